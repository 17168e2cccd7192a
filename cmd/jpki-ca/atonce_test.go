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

// story runs the guide of docs/operate.md and then more of a script, with programs as they are shipped and ports of their own, and
// returns the folder in which it ran.
func story(t *testing.T, database, more string, ports ...string) (dir string) {
	t.Helper()
	if testing.Short() {
		t.Skip("builds programs")
	}
	for _, tool := range []string{"bash", "openssl", "curl", "jq"} {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("JPKI_TEST_REQUIRE") == "1" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "operate.md"))
	if err != nil {
		t.Fatal(err)
	}
	script := "set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true; wait || true' EXIT\nrefused() { if \"$@\"; then echo \"not refused: $*\"; exit 1; fi; }\n"
	for _, block := range shell.FindAllStringSubmatch(string(text), -1) {
		script += block[1]
	}
	bin := build(t, "jpki", "jpki-ca", "jpki-status")
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", script+more+"\necho THE-END\n")
	cmd.Dir = t.TempDir()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	if database == "" {
		database = "sqlite:" + filepath.Join(cmd.Dir, "pilot.db")
	}
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "DATABASE="+database, "BASH_XTRACEFD=2", "SHELLOPTS=xtrace")
	for _, name := range append([]string{"CA_PORT", "ADMIN_PORT", "STATUS_PORT", "STATUS_ADMIN_PORT"}, ports...) {
		cmd.Env = append(cmd.Env, name+"="+freePort(t))
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "\nTHE-END\n") {
		logs, _ := filepath.Glob(filepath.Join(cmd.Dir, "*.log"))
		for _, name := range logs {
			log, _ := os.ReadFile(name)
			t.Logf("%s:\n%s", filepath.Base(name), log[max(0, len(log)-2000):])
		}
		t.Fatalf("%v\n%s", err, out[max(0, len(out)-4000):])
	}
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "RESULT ") {
			t.Log(strings.TrimSpace(line))
		}
	}
	return cmd.Dir
}

// TestTwoAtOnce sends each order to two servers on one database at the same moment, under one idempotency key, several times to each; and
// first one, then the other is killed in the middle and started again. An order is one certificate, and whoever answered gave the same
// one; what a killed server had under way is nobody's until it is ended, minutes later, and comes to nothing. One of the servers publishes.
func TestTwoAtOnce(t *testing.T) {
	story(t, freshDatabase(t), `
sed -e "s/^listen: .*/listen: 127.0.0.1:$CA_PORT2/" -e "s/^admin: .*/admin: 127.0.0.1:$ADMIN_PORT2/" -e 's/^publish: .*/publish: public2/' -e 's/checkpoints: checkpoints/checkpoints: checkpoints2/' ca.yaml > ca2.yaml
mkdir public2 answers
URL2=https://127.0.0.1:$CA_PORT2
jpki-ca -config ca2.yaml 2> ca2.log &
SECOND=$!
until curl -fsS http://127.0.0.1:$ADMIN_PORT2/readyz; do sleep 0.2; done
leads() { curl -fsS http://127.0.0.1:$1/metrics | sed -n 's/^jpki_publisher_leads //p'; }
sleep 2
test "$(leads $ADMIN_PORT)$(leads $ADMIN_PORT2)" = 10
ask() { # TOKEN URL COPY: until it is answered; while the other has it the answer is that it is under way
  for try in $(seq 100); do
    if call counter-1 $2/station/v1/certificates -H "Idempotency-Key: once-$1" -d @$1.json > answers/$1.$3 2> answers/$1.$3.err; then return 0; fi
    cat answers/$1.$3 >> answers/refusals; echo >> answers/refusals
    sleep 0.1
  done
  if grep -q in-progress answers/$1.$3; then echo $1 >> answers/cut; else echo "$1 $2" >> answers/failed; fi
}
N=16
for n in $(seq $N); do
  openssl genrsa -out B-$n.key 2048 2> made
  openssl req -new -key B-$n.key -subj / -out B-$n.csr
  jq -n --rawfile csr B-$n.csr --arg token B-$n '{holder: "H-1", token: $token, requests: [{kind: "card-auth", request: $csr}]}' > B-$n.json
done
round() { # FROM TO
  waiting=
  for n in $(seq $1 $2); do
    for copy in 1 2 3; do
      ask B-$n $URL a$copy & waiting="$waiting $!"
      ask B-$n $URL2 b$copy & waiting="$waiting $!"
    done
  done
}
for from in 1 5; do
  round $from $((from + 3))
  wait $waiting
done
test ! -e answers/cut
# The second is killed with orders on the way, and comes back.
round 9 12
sleep 0.1
kill -9 $SECOND; wait $SECOND || true
jpki-ca -config ca2.yaml 2> ca2-again.log &
SECOND=$!
wait $waiting
# The first, which publishes, is killed with orders on the way; the second takes over.
round 13 $N
sleep 0.1
kill -9 %1; wait %1 || true
until test "$(leads $ADMIN_PORT2)" = 1 && test -s public2/crl/auth-1/full.crl; do sleep 0.2; done
jpki-ca -config ca.yaml 2> ca-again.log &
wait $waiting
test ! -e answers/failed || { cat answers/failed answers/refusals; exit 1; }
# All six answers are one and the same, and there is one certificate of each order.
touch answers/cut
sort -u answers/cut > cut
want=0
for n in $(seq $N); do
  if grep -qx B-$n cut; then # the killed server had it: it stays under way for all until it is ended, and there is nothing of it
    call counter-1 $URL2/station/v1/tokens/B-$n > one || true
    refused jq -e '.certificates | length > 0' one
    continue
  fi
  want=$((want + 1))
  for copy in a2 a3 b1 b2 b3; do cmp answers/B-$n.a1 answers/B-$n.$copy; done
  jq -r '.certificates[0].certificate' answers/B-$n.a1 | openssl x509 -noout -serial >> serials
  call counter-1 $URL2/station/v1/tokens/B-$n | jq -e '.certificates | length == 1' > one || { cat one; exit 1; }
done
test "$(sort -u serials | wc -l)" = $want
test "$(leads $ADMIN_PORT)$(leads $ADMIN_PORT2)" = 01
# The same key for another order is refused by whichever is asked.
sed 's/B-1/B-2/' B-1.json > other.json
for url in $URL $URL2; do
  test "$(curl -sS -o other.out -w '%{http_code}' --cacert infrastructure.pem --cert counter-1.pem --key counter-1.key -H 'Content-Type: application/json' -H 'Idempotency-Key: once-B-1' -d @other.json $url/station/v1/certificates)" -ge 400
done
echo "RESULT $want of $N orders granted once, $(wc -l < cut) cut short by a kill"
echo "RESULT refusals on the way: $(grep -o '"type":"[^"]*"' answers/refusals 2> none | sort | uniq -c | tr '\n' ' ')"
`, "CA_PORT2", "ADMIN_PORT2")
}
