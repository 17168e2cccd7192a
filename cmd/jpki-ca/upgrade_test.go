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
)

// TestUpgrade takes an authority of an earlier commit to this one while a counter works: the guide is followed with the old program, the new
// one migrates the schema and stands beside the old one, which then ends. Every request of the counter has to be granted by one of the two, each
// order once. It needs the commit, which a shallow clone has not: "make upgrade" names it.
func TestUpgrade(t *testing.T) {
	from := os.Getenv("JPKI_UPGRADE_FROM")
	if from == "" {
		t.Skip("JPKI_UPGRADE_FROM names no commit")
	}
	source, old := t.TempDir(), filepath.Join(t.TempDir(), "old")
	prepare := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", //nolint:gosec // G702: whoever runs the test names the commit
		`git -C ../.. archive "$1" | tar -x -C "$2" && cd "$2" && go build -tags nomsgpack,nobadger,nomysql,nobbolt,nopgx -o "$3/" ./cmd/jpki-ca`, "prepare", from, source, old)
	if out, err := prepare.CombinedOutput(); err != nil {
		t.Fatalf("build the program of %s: %v\n%s", from, err, out)
	}
	text, err := os.ReadFile(filepath.Join(source, "docs", "operate.md"))
	if err != nil {
		t.Fatal(err)
	}
	script := "set -euo pipefail\ntrap 'touch stop; kill $(jobs -p) 2>/dev/null || true; wait || true' EXIT\n"
	for _, block := range shell.FindAllStringSubmatch(string(text), -1) {
		script += block[1]
	}
	script += `
STATUS=$(jobs -p %2); kill $STATUS; wait $STATUS || true
# A counter that works without a pause, and asks the other server when one cannot be reached.
work() {
  n=0
  until test -e stop; do
    n=$((n + 1))
    openssl req -new -newkey rsa:2048 -nodes -subj / -keyout work.key -out work.csr 2> work.made
    jq -n --rawfile csr work.csr --arg token "W-$n" '{holder: "H-1", token: $token, requests: [{kind: "card-auth", request: $csr}]}' > work.json
    for try in 1 2 3; do
      for url in $URL $URL2; do
        if call counter-1 $url/station/v1/certificates -H "Idempotency-Key: work-$n" -d @work.json > work.out 2>> work.err; then echo "W-$n" >> granted; continue 3; fi
        grep -q '"type"' work.out && { cat work.out >> failed; continue 3; }
      done
      sleep 0.1
    done
    echo "W-$n: nobody answered" >> failed
  done
}
URL2=https://127.0.0.1:$CA_PORT2
grown() { now=$(wc -l < granted); until test $(wc -l < granted) -gt $((now + 5)); do test ! -s failed; sleep 0.1; done; }
touch granted
work &
WORK=$!
grown
# The new program migrates under load, and stands beside the old one.
sed -e "s/^listen: .*/listen: 127.0.0.1:$CA_PORT2/" -e "s/^admin: .*/admin: 127.0.0.1:$ADMIN_PORT2/" -e 's/^publish: .*/publish: public2/' -e 's/checkpoints: checkpoints/checkpoints: checkpoints2/' ca.yaml > ca2.yaml
mkdir public2
$NEW/jpki-ca -config ca2.yaml migrate
grown
$NEW/jpki-ca -config ca2.yaml -check
$NEW/jpki-ca -config ca2.yaml 2> ca2.log &
until curl -fsS http://127.0.0.1:$ADMIN_PORT2/readyz; do sleep 0.2; done
grown
# What either answered is known to the other, and the same order is the same certificate.
call counter-1 $URL2/station/v1/certificates -H 'Idempotency-Key: order-1' -d @order.json | cmp - issued.json
# The old one ends; the new one takes the lease, and work goes on.
kill -TERM %1; wait %1
grown
until curl -fsS http://127.0.0.1:$ADMIN_PORT2/metrics | grep '^jpki_publisher_leads 1$' && test -s public2/crl/auth-1/full.crl; do sleep 0.2; done
touch stop; wait $WORK
test ! -s failed || { cat failed; exit 1; }
for token in $(cat granted); do
  call counter-1 $URL2/station/v1/tokens/$token | jq -e '.certificates | length == 1' > token.out || { echo $token; cat token.out; exit 1; }
done
echo "$(wc -l < granted) orders granted"
echo THE-END
`
	bin := build(t, "jpki", "jpki-ca", "jpki-status")
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", script)
	cmd.Dir = t.TempDir()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.Env = append(os.Environ(), "PATH="+old+":"+bin+":"+os.Getenv("PATH"), "NEW="+bin, "DATABASE="+freshDatabase(t), "BASH_XTRACEFD=2", "SHELLOPTS=xtrace")
	for _, name := range []string{"CA_PORT", "ADMIN_PORT", "STATUS_PORT", "STATUS_ADMIN_PORT", "CA_PORT2", "ADMIN_PORT2"} {
		cmd.Env = append(cmd.Env, name+"="+freePort(t))
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "\nTHE-END\n") {
		for _, name := range []string{"ca.log", "ca2.log", "failed", "work.err"} {
			log, _ := os.ReadFile(filepath.Join(cmd.Dir, name))
			t.Logf("%s:\n%s", name, log[max(0, len(log)-2000):])
		}
		t.Fatalf("%v\n%s", err, out[max(0, len(out)-4000):])
	}
	for line := range strings.Lines(string(out)) {
		if strings.HasSuffix(line, "orders granted\n") {
			t.Log(strings.TrimSpace(line))
		}
	}
}
