package main_test

import (
	"context"
	"database/sql"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
)

// build compiles programs as they are shipped.
func build(t *testing.T, names ...string) (bin string) {
	t.Helper()
	bin = t.TempDir()
	args := []string{"build", "-tags", "nomsgpack,nobadger,nomysql,nobbolt,nopgx", "-o", bin + "/"}
	for _, name := range names {
		args = append(args, "github.com/openjpki/jpki/cmd/"+name)
	}
	if out, err := exec.CommandContext(t.Context(), "go", args...).CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return bin
}

// freshDatabase makes an empty database on the tests' server.
func freshDatabase(t *testing.T) string {
	t.Helper()
	server := os.Getenv("JPKI_TEST_POSTGRES")
	if server == "" {
		if os.Getenv("JPKI_TEST_REQUIRE") == "1" {
			t.Fatal("JPKI_TEST_POSTGRES is required")
		}
		t.Skip("JPKI_TEST_POSTGRES names no server")
	}
	db, err := sql.Open("pgx", server)
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("operate_%d_%d", os.Getpid(), time.Now().UnixNano())
	if _, err := db.ExecContext(t.Context(), "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, err := db.ExecContext(context.Background(), "DROP DATABASE "+name+" WITH (FORCE)")
		if err != nil {
			t.Error(err)
		}
		_ = db.Close()
	})
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/" + name
	return u.String()
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

var shell = regexp.MustCompile("(?ms)^```sh\n(.*?)^```$")

// TestGuide runs the commands of docs/operate.md word for word, and then what nobody types: a second server beside the
// first, which takes over when that is killed, and a configuration that is refused.
func TestGuide(t *testing.T) {
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
	database := freshDatabase(t)
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "operate.md"))
	if err != nil {
		t.Fatal(err)
	}
	script := "set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true; wait || true' EXIT\nrefused() { if \"$@\"; then echo \"not refused: $*\"; exit 1; fi; }\n"
	for _, block := range shell.FindAllStringSubmatch(string(text), -1) {
		script += block[1]
	}
	script += `
# Once more is refused; so is who is not enrolled, and a counter of another municipality.
refused jpki-ca -config ca.yaml -operator sato init ceremony-sign/sign-1.pem ceremony-auth/auth-1.pem 2> again.err
grep -q 'generations are on record already' again.err
# Relying parties: only an operator of a verifier acts for one, under a Corporate Number whose check digit is right.
refused jpki-ca -config ca.yaml -operator sato tenant counter-1 8700110005900 signature bank 2> tenant.err
refused jpki-ca -config ca.yaml -operator sato tenant counter-1 8700110005901 everything bank 2> tenant.err
grep -q malformed tenant.err
certify verifier-1 clientAuth
jpki-ca -config ca.yaml -operator sato enrol verifier:verifier-1 verifier-1.pem
jpki-ca -config ca.yaml -operator sato tenant verifier-1 8700110005901 signature,authentication bank | grep -x 'verifier-1 acts for 8700110005901'
test "$(curl -sS -o changes.json -w '%{http_code}' --cacert infrastructure.pem --cert verifier-1.pem --key verifier-1.key "$URL/relying-party/v1/changes?after=0")" = 200
test "$(curl -sS -o /dev/null -w '%{http_code}' --cacert infrastructure.pem $URL/station/v1/tokens/T-1)" = 401
# A second server stands by, and takes over.
sed -e "s/^listen: .*/listen: 127.0.0.1:$CA_PORT2/" -e "s/^admin: .*/admin: 127.0.0.1:$ADMIN_PORT2/" -e 's/^publish: .*/publish: public2/' -e 's/checkpoints: checkpoints/checkpoints: checkpoints2/' ca.yaml > ca2.yaml
mkdir public2
# It also takes consents and shows holders their record, which the first does not.
printf 'relying:\n  audience: https://127.0.0.1:%s\n  login: jpki-authentication\n  consent: sandbox-signature-2026\n' $CA_PORT2 >> ca2.yaml
sed 's/login: jpki-authentication/login: jpki-signature/' ca2.yaml > ca4.yaml
refused jpki-ca -config ca4.yaml -check 2> login.err
grep -q 'relying.login: there is no such policy' login.err
sed 's#audience: https:#audience: http:#' ca2.yaml > ca4.yaml
refused jpki-ca -config ca4.yaml -check 2> audience.err
grep -q 'audience is an https URL' audience.err
jpki-ca -config ca2.yaml -check
jpki-ca -config ca2.yaml 2> ca2.log &
leads() { curl -fsS http://127.0.0.1:$1/metrics | grep '^jpki_publisher_leads'; }
until curl -fsS http://127.0.0.1:$ADMIN_PORT2/readyz; do sleep 0.2; done
leads $ADMIN_PORT | grep ' 1$'
sleep 2
leads $ADMIN_PORT2 | grep ' 0$'
test ! -e public2/crl/sign-1/full.crl
login() { curl -sS -o login.json -w '%{http_code}' --cacert infrastructure.pem -H 'Content-Type: application/json' -d '{"action":"record"}' "$1/holder/v1/log-ins"; }
test "$(login $URL)" = 404
test "$(login https://127.0.0.1:$CA_PORT2)" = 201
jq -e --arg a https://127.0.0.1:$CA_PORT2 '.audience == $a' login.json
call counter-1 https://127.0.0.1:$CA_PORT2/station/v1/tokens/T-1 | jq -e '.certificates | length == 1'
kill -9 %1
until leads $ADMIN_PORT2 | grep ' 1$' && test -s public2/crl/auth-1/full.crl; do sleep 0.2; done
test -s checkpoints2
cmp public/ca/sign-1.cer public2/ca/sign-1.cer
# A card that is lost: through the second server, the same status server says so.
call counter-1 https://127.0.0.1:$CA_PORT2/station/v1/suspensions -H 'Idempotency-Key: lost-1' -d '{"token": "T-1", "cause": "lost"}'
sleep 1
openssl ocsp -issuer ceremony-auth/auth-1.pem -cert card.pem -url http://127.0.0.1:$STATUS_PORT/ocsp -CAfile ceremony-auth/auth-1.pem | grep 'card.pem: revoked'
jpki-ca -config ca2.yaml -operator sato disable counter-1
test "$(curl -sS -o /dev/null -w '%{http_code}' --cacert infrastructure.pem --cert counter-1.pem --key counter-1.key https://127.0.0.1:$CA_PORT2/station/v1/tokens/T-1)" = 403
# No personal data in any log.
refused grep -e 一郎 -e 319900401 ca.log ca2.log status.log
# Several servers without a synchronous standby are refused, until that is accepted.
sed -E 's#^database: "?([^"]*)"?$#database: "\1"#; s#@127.0.0.1:([0-9]+)/#@127.0.0.1:\1,127.0.0.1:1/#; s#sslmode=disable#sslmode=disable\&target_session_attrs=read-write#' ca2.yaml > ca3.yaml
refused jpki-ca -config ca3.yaml -check 2> lossy.err
grep -q 'before a standby has what it commits' lossy.err
echo 'accept_loss: true' >> ca3.yaml
jpki-ca -config ca3.yaml -check
echo THE-END
`
	bin := build(t, "jpki", "jpki-ca", "jpki-status")
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", script)
	cmd.Dir = t.TempDir()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "DATABASE="+database, "BASH_XTRACEFD=2", "SHELLOPTS=xtrace")
	for _, name := range []string{"CA_PORT", "ADMIN_PORT", "STATUS_PORT", "STATUS_ADMIN_PORT", "CA_PORT2", "ADMIN_PORT2"} {
		cmd.Env = append(cmd.Env, name+"="+freePort(t))
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "\nTHE-END\n") {
		for _, name := range []string{"ca.log", "ca2.log", "status.log", "issued.json"} {
			log, _ := os.ReadFile(filepath.Join(cmd.Dir, name))
			t.Logf("%s:\n%s", name, log[max(0, len(log)-2000):])
		}
		t.Fatalf("%v\n%s", err, out[max(0, len(out)-4000):])
	}
}
