package main_test

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
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
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return bin
}

// freshDatabase makes an empty database on the tests' server.
func freshDatabase(t *testing.T) string {
	t.Helper()
	server := os.Getenv("JPKI_TEST_POSTGRES")
	if server == "" {
		missing(t, "JPKI_TEST_POSTGRES names no server")
	}
	db, err := sql.Open("pgx", server)
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("verifier_%d_%d", os.Getpid(), time.Now().UnixNano())
	if _, err := db.ExecContext(t.Context(), "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := db.ExecContext(context.Background(), "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
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

// missing skips a test for which something is not there, unless everything has to be.
func missing(t *testing.T, what any) {
	t.Helper()
	if os.Getenv("JPKI_TEST_REQUIRE") == "1" {
		t.Fatal(what)
	}
	t.Skip(what)
}

// freeOffset finds ports for a sandbox.
func freeOffset(t *testing.T) string {
	t.Helper()
	for range 50 {
		offset, free := 20000+rand.IntN(300)*100, true
		for _, port := range []int{8080, 8081, 8090, 8443, 8444, 8445} {
			l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:"+strconv.Itoa(port+offset))
			if free = free && err == nil; err == nil {
				_ = l.Close()
			}
		}
		if free {
			return strconv.Itoa(offset)
		}
	}
	t.Fatal("no free ports")
	return ""
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

// TestGuide runs the commands of docs/verifier-server.md word for word, and then what nobody types: a lost card, which every source
// has to refuse, a stop in the middle of a request, configurations that are refused, and a search for what may be in no log.
func TestGuide(t *testing.T) {
	if testing.Short() {
		t.Skip("builds programs")
	}
	for _, tool := range []string{"bash", "openssl", "curl", "jq"} {
		if _, err := exec.LookPath(tool); err != nil {
			missing(t, err)
		}
	}
	database := freshDatabase(t)
	bin := build(t, "jpki", "jpki-verifier")
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "verifier-server.md"))
	if err != nil {
		t.Fatal(err)
	}
	script := "set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true; wait || true' EXIT\nrefused() { if \"$@\"; then echo \"not refused: $*\"; exit 1; fi; }\n"
	for _, block := range shell.FindAllStringSubmatch(string(text), -1) {
		script += block[1]
	}
	script += `
# The second answers from its files; nobody without a token is answered, and a token opens the first for documents, too.
VERIFIER_PORT=$VERIFIER_PORT2 ask < request.json | jq -re '.revocation.source' | grep -E '^(snapshot|crl) sign-1$'
test "$(curl -sS -o /dev/null -w '%{http_code}' --cacert server.pem --json '{}' https://localhost:$VERIFIER_PORT/v1/verifications)" = 401
openssl cms -sign -binary -nodetach -cades -in application.txt -signer $SAMPLE_SIGN_CERT -inkey $SAMPLE_SIGN_KEY -outform DER -out application.p7m
for port in $VERIFIER_PORT $VERIFIER_PORT2; do
  curl -sSf --cacert server.pem -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/pkcs7-mime' --data-binary @application.p7m https://localhost:$port/v1/verifications | jq -re .indication | grep '^TOTAL-PASSED$'
done
# The certificate is revoked: the first says so at once, the second from what it has until it is brought up to date, and never good after it has said so once.
HASH=$(openssl x509 -in $SAMPLE_SIGN_CERT -noout -pubkey | openssl pkey -pubin -outform DER | sha256sum | cut -d' ' -f1)
jpki revoke -dir sandbox -key-hash $HASH -cause key-compromised -name stolen -operator sato -expect 1
until ask < request.json | jq -r .indication | grep -v '^TOTAL-PASSED$'; do sleep 0.2; done
ask < request.json > refused.json
jq -re .revocation.state refused.json | grep '^revoked$'
# Without its source nothing is good.
kill %1; wait %1 || true
ask < request.json | jq -re .indication | grep '^INDETERMINATE$'
curl -fsS http://127.0.0.1:$ADMIN_PORT/metrics | grep -E '^jpki_verifier_sources_total\{outcome="ocsp-unreachable"\} [1-9]'
# It stops on SIGTERM, and says so by its exit code.
kill -TERM %2; wait %2
# Configurations that are refused.
broken() { # EXPRESSION MESSAGE
  sed -E "$1" verifier.yaml > broken.yaml
  refused jpki-verifier -config broken.yaml -check 2> broken.err
  grep -q -- "$2" broken.err || { cat broken.err; exit 1; }
}
broken 's/^(  - .issuer: sign-1.*sha256: ").*("})/\100\2/' 'and should be 00'
broken 's/^server:.*/plain: true/; s/^listen: .*/listen: 0.0.0.0:1/' 'tokens would cross the network in the clear'
broken 's/^server:.*//' 'either server has a certificate'
broken 's/^  - ocsp:.*/  - ocsp: {}/' 'either url or allowed is required'
broken 's/^policies:.*/policies: none.json/' 'none.json'
broken 's/^policies:/polices:/' 'polices'
broken '/issuer: auth-1/d' 'none of the anchors is for authentication'
chmod 644 master.key
broken '' 'may be read by others'
chmod 600 master.key
cp master.key kept.key
openssl rand -hex 32 > master.key
broken '' 'master key'
mv kept.key master.key
sed "s/^server:.*/plain: true/; s#ocsp: {url: \(.*\)}#ocsp: {url: \1, remember_good_for: 30s, remember_bad_for: 5s}#" verifier.yaml > plain.yaml
grep -q remember_bad_for plain.yaml
jpki-verifier -config plain.yaml -check
# No personal data in any log, and no token.
jq -j .attributes.name verdict.json > name; test -s name
refused grep -F -f name -e "$TOKEN" -e customer-4711 verifier.log offline.log
# SQLite, for one process.
sed 's#^database:.*#database: "sqlite:verifier.db"#' plain.yaml > sqlite.yaml
jpki-verifier -config sqlite.yaml migrate
jpki-verifier -config sqlite.yaml -check
jpki-verifier -config sqlite.yaml 2> sqlite.log &
until curl -fsS http://127.0.0.1:$ADMIN_PORT/readyz; do sleep 0.2; done
curl -fsS -o openapi.yaml http://127.0.0.1:$VERIFIER_PORT/openapi.yaml
grep -q openapi openapi.yaml
jpki-verifier -example > example.yaml
grep -q "^listen:" example.yaml
echo THE-END
`
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", script)
	cmd.Dir = t.TempDir()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "DATABASE="+database, "OFFSET="+freeOffset(t), "BASH_XTRACEFD=2", "SHELLOPTS=xtrace", "LANG=C")
	for _, name := range []string{"VERIFIER_PORT", "ADMIN_PORT", "VERIFIER_PORT2", "ADMIN_PORT2"} {
		cmd.Env = append(cmd.Env, name+"="+freePort(t))
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "\nTHE-END\n") {
		for _, name := range []string{"sandbox.log", "verifier.log", "offline.log", "sqlite.log", "verdict.json", "refused.json"} {
			log, _ := os.ReadFile(filepath.Join(cmd.Dir, name))
			t.Logf("%s:\n%s", name, log[max(0, len(log)-2000):])
		}
		t.Fatalf("%v\n%s", err, out[max(0, len(out)-4000):])
	}
}
