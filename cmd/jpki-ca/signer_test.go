package main_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/openjpki/jpki/cmd/internal/softhsm"
)

// TestSignerKilled runs the guide with the authority's keys moved into a SoftHSM token, and kills jpki-signer again and again
// while counters work: each order is carried out once, though no counter asks twice, and nothing is left in halves.
func TestSignerKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("builds programs")
	}
	store, err := softhsm.Make(t.TempDir())
	for _, tool := range []string{"bash", "openssl", "curl", "jq", "cc"} {
		if _, missing := exec.LookPath(tool); missing != nil {
			err = missing
		}
	}
	if err != nil {
		if os.Getenv("JPKI_TEST_REQUIRE") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	const pin = "493827"
	if err := store.Init(t.Context(), "a", pin); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "operate.md"))
	if err != nil {
		t.Fatal(err)
	}
	script := "set -euo pipefail\ntrap 'touch stop; kill $(jobs -p) 2>/dev/null || true; wait || true' EXIT\n"
	for _, block := range shell.FindAllStringSubmatch(string(text), -1) {
		script += block[1]
	}
	script += `
kill %2; wait %2 || true
kill %1; wait %1
# The keys go into the token; their files are away.
{ printf 'listen: s.sock\nstate: state\nadmin: 127.0.0.1:0\nkeys:\n'
  for ca in sign auth; do
    softhsm2-util --import keys/$ca-1.key --token a --pin $PIN --label $ca-1 --id 0$((n=${n:-0}+1)) 1>&2
    printf '  - {name: %s-1, algorithm: rsa-2048, at: ["%s"], allow: [{user: "%s", purposes: [certificate, crl, other]}]}\n' $ca "${PLACE//KEY/$ca-1}" $(id -u)
  done; } > signer.yaml
mv keys keys.away
sed -i "s|^keys: .*|keys: {certificates: \"signer://$PWD/s.sock?key={}\&purpose=certificate\"}|" ca.yaml
jpki-signer -config signer.yaml 2>> signer.log &
SIGNER=$!
jpki-ca -config ca.yaml -check
jpki-ca -config ca.yaml 2> hsm.log &
CA=$!
until curl -fsS http://127.0.0.1:$ADMIN_PORT/readyz; do sleep 0.2; done
# A card for each order, with a key made before, so that what takes time is the authority.
work() { # COUNTER
  n=0
  until test -e stop; do
    n=$((n + 1))
    jq -n --rawfile csr card-$1.csr --arg token "W-$1-$n" '{holder: "H-1", token: $token, requests: [{kind: "card-auth", request: $csr}]}' > $1.json
    if call counter-1 $URL/station/v1/certificates -H "Idempotency-Key: work-$1-$n" -d @$1.json > $1.out 2>> $1.err; then echo "$1 $n" >> granted; cp $1.json $1-$n.json; cp $1.out $1-$n.out
    else cat $1.out >> failed; fi
    openssl req -new -newkey rsa:2048 -nodes -subj / -keyout $1.key -out card-$1.csr 2> $1.made
  done
}
grown() { now=$(wc -l < granted); until test $(wc -l < granted) -gt $((now + $1)); do test ! -s failed || { cat failed; exit 1; }; sleep 0.05; done; }
touch granted
for c in 1 2 3; do cp card.csr card-$c.csr; openssl req -new -newkey rsa:2048 -nodes -subj / -keyout $c.key -out card-$c.csr 2> $c.made; done
WORKERS=
for c in 1 2 3; do work $c & WORKERS="$WORKERS $!"; done
for round in 1 2 3 4 5; do
  grown 2
  kill -9 $SIGNER; wait $SIGNER || true
  sleep 0.$((round * 15))
  jpki-signer -config signer.yaml 2>> signer.log &
  SIGNER=$!
done
grown 3
touch stop; wait $WORKERS
test ! -s failed || { cat failed; exit 1; }
# What was granted is what is on record, once, and answered so again.
while read c n; do
  call counter-1 $URL/station/v1/tokens/W-$c-$n | jq -e '.certificates | length == 1' > token.out || { echo W-$c-$n; cat token.out; exit 1; }
  call counter-1 $URL/station/v1/certificates -H "Idempotency-Key: work-$c-$n" -d @$c-$n.json | cmp - $c-$n.out
  jq -r '.certificates[0].certificate' $c-$n.out | openssl verify -partial_chain -CAfile ceremony-auth/auth-1.pem > verified
done < granted
kill $CA; wait $CA
kill $SIGNER; wait $SIGNER
jpki-signer -usage state/usage.ndjson > usage
jq -e --argjson made $(wc -l < granted) '.keys["auth-1"].ceiling >= $made' usage
echo THE-END $(wc -l < granted)
`
	bin := build(t, "jpki", "jpki-ca", "jpki-status")
	signer := exec.CommandContext(t.Context(), "go", "build", "-tags", "nomsgpack,nobadger,nomysql,nobbolt,nopgx", "-o", bin+"/", "github.com/openjpki/jpki/cmd/jpki-signer")
	signer.Env = append(os.Environ(), "CGO_ENABLED=1")
	if out, err := signer.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", script)
	if cmd.Dir, err = os.MkdirTemp("", "ca"); err != nil { // shorter than t.TempDir: a socket's path has 107 octets
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(cmd.Dir) })
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "DATABASE=sqlite:"+filepath.Join(cmd.Dir, "pilot.db"), store.Env(), "PIN="+pin, "PLACE="+store.URI("a", "KEY"))
	for _, name := range []string{"CA_PORT", "ADMIN_PORT", "STATUS_PORT", "STATUS_ADMIN_PORT"} {
		cmd.Env = append(cmd.Env, name+"="+freePort(t))
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "\nTHE-END ") {
		for _, name := range []string{"ca.log", "hsm.log", "signer.log", "1.err", "failed"} {
			log, _ := os.ReadFile(filepath.Join(cmd.Dir, name))
			t.Logf("%s:\n%s", name, log[max(0, len(log)-2000):])
		}
		t.Fatalf("%v\n%s", err, out[max(0, len(out)-4000):])
	}
}
