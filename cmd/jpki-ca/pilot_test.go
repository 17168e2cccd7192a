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

// TestPilot runs the guide on SQLite, for which it is the same but for the database's name, and then rolls a generation while the server runs:
// its key is made in a ceremony, recorded, published and activated, and certificates come from it without a restart.
func TestPilot(t *testing.T) {
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
	script += `
test -s pilot.db
sed 's/generation: auth-1/generation: auth-2/; s/^title:.*/title: Second generation of auth/' auth.yaml > auth-2.yaml
jpki ceremony run auth-2.yaml -out ceremony-auth-2 -yes
refused jpki-ca -config ca.yaml -operator sato add auth-2 ceremony-auth-2/auth-2.pem 2> keyless.err
grep -q 'auth-2' keyless.err
mv ceremony-auth-2/auth-2.key keys/
refused jpki-ca -config ca.yaml -operator sato activate auth-2 2> unknown.err
grep -q 'not on record' unknown.err
jpki-ca -config ca.yaml -operator sato add auth-2 ceremony-auth-2/auth-2.pem
until test -s public/crl/auth-2/full.crl && test -s public/ca/auth-2.cer; do sleep 0.2; done
openssl crl -inform DER -in public/crl/auth-2/full.crl -CAfile ceremony-auth-2/auth-2.pem -noout
# It does not issue yet; once it is activated it does, and the old one's card is still answered for.
order() { # TOKEN
  openssl req -new -newkey rsa:2048 -nodes -subj / -keyout $1.key -out $1.csr
  jq -n --rawfile csr $1.csr --arg token $1 '{holder: "H-1", token: $token, requests: [{kind: "card-auth", request: $csr}]}' > $1.json
  call counter-1 $URL/station/v1/certificates -H "Idempotency-Key: $1" -d @$1.json > $1.out
  jq -r '.certificates[0].certificate' $1.out > $1.pem
}
order T-2
openssl verify -partial_chain -CAfile ceremony-auth/auth-1.pem T-2.pem
jpki-ca -config ca.yaml -operator sato activate auth-2
sleep 2
order T-3
openssl verify -partial_chain -CAfile ceremony-auth-2/auth-2.pem T-3.pem
# A second time each is refused, or changes nothing.
refused jpki-ca -config ca.yaml -operator sato add auth-2 ceremony-auth-2/auth-2.pem
# Killed, it goes on where it was.
kill -9 %1; wait %1 || true
jpki-ca -config ca.yaml 2> again.log &
until curl -fsS http://127.0.0.1:$ADMIN_PORT/readyz; do sleep 0.2; done
call counter-1 $URL/station/v1/certificates -H 'Idempotency-Key: T-3' -d @T-3.json | cmp - T-3.out
test "$(sort -u checkpoints | wc -l)" = "$(wc -l < checkpoints)"
echo THE-END
`
	bin := build(t, "jpki", "jpki-ca", "jpki-status")
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", script)
	cmd.Dir = t.TempDir()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "DATABASE=sqlite:"+filepath.Join(cmd.Dir, "pilot.db"), "BASH_XTRACEFD=2", "SHELLOPTS=xtrace")
	for _, name := range []string{"CA_PORT", "ADMIN_PORT", "STATUS_PORT", "STATUS_ADMIN_PORT"} {
		cmd.Env = append(cmd.Env, name+"="+freePort(t))
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "\nTHE-END\n") {
		for _, name := range []string{"ca.log", "status.log", "again.log", "T-3.out"} {
			log, _ := os.ReadFile(filepath.Join(cmd.Dir, name))
			t.Logf("%s:\n%s", name, log[max(0, len(log)-2000):])
		}
		t.Fatalf("%v\n%s", err, out[max(0, len(out)-4000):])
	}
}
