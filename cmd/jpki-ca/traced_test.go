package main_test

import (
	"bytes"
	"encoding/hex"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// spans is what an OTLP/HTTP receiver of a test's own got.
type spans struct {
	mu  sync.Mutex
	all map[string][]*otlp.Span // by service and name
	raw []byte
}

func receiver(t *testing.T) (*spans, string) {
	t.Helper()
	s := &spans{all: map[string][]*otlp.Span{}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var got collector.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(body, &got)
		}
		if err != nil {
			t.Error(err)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.raw = append(s.raw, body...)
		for _, of := range got.GetResourceSpans() {
			for _, scope := range of.GetScopeSpans() {
				for _, one := range scope.GetSpans() {
					name := of.GetResource().GetAttributes()[0].GetValue().GetStringValue() + ": " + one.GetName()
					s.all[name] = append(s.all[name], one)
				}
			}
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t.Cleanup(server.Close)
	return s, server.URL + "/v1/traces"
}

// one returns the span of a name that belongs to a trace, or to any if that is empty.
func (s *spans) one(t *testing.T, name, trace string) *otlp.Span {
	t.Helper()
	for _, span := range s.all[name] {
		if trace == "" || hex.EncodeToString(span.GetTraceId()) == trace {
			return span
		}
	}
	t.Fatalf("no span %s of trace %s in %v", name, trace, s.all)
	return nil
}

// objectStore starts an object store that nobody here wrote, with an empty bucket, which is a folder.
func objectStore(t *testing.T) (endpoint, folder string) {
	t.Helper()
	dir := t.TempDir()
	program := os.Getenv("JPKI_TEST_VERSITYGW")
	if program == "" {
		program = filepath.Join(dir, "versitygw")
		cmd := exec.CommandContext(t.Context(), "go", "install", "github.com/versity/versitygw/cmd/versitygw@v1.8.0")
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GOBIN="+dir, "GOFLAGS=", "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			if os.Getenv("JPKI_TEST_REQUIRE") == "1" {
				t.Fatalf("install the object store: %v\n%s", err, out)
			}
			t.Skipf("the object store cannot be installed: %v", err)
		}
	}
	folder = filepath.Join(dir, "store", "crls") // of a file system with extended attributes
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	address := "127.0.0.1:" + freePort(t)
	cmd := exec.Command(program, "--access", "access", "--secret", "secret-of-tests", "--region", "ap-northeast-1", "--port", address, "posix", filepath.Dir(folder)) //nolint:gosec // the program that the tester names, or one just installed
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			_ = conn.Close()
			return "http://" + address, folder
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// TestTraced runs the guide with traces switched on. A station's order is one trace with the authority's answer and its signature,
// a status server's order for a delegate is one through both programs, logs name the trace, and nothing of cards and people is exported.
func TestTraced(t *testing.T) {
	got, endpoint := receiver(t)
	const order = "0af7651916cd43dd8448eb211c80319c"
	dir := story(t, "", `
kill -TERM %2; wait %2
kill -TERM %1; wait %1
for p in ca status; do printf 'traces: {endpoint: "`+endpoint+`", ratio: 1}\n' >> $p.yaml; done
sed 's/ratio: 1/ratio: 2/' ca.yaml > ca-2.yaml
refused jpki-ca -config ca-2.yaml -check 2> ratio.err
grep -q 'traces.ratio' ratio.err
jpki-ca -config ca.yaml -check
jpki-ca -config ca.yaml 2> traced.log &
CA=$!
until curl -fsS http://127.0.0.1:$ADMIN_PORT/readyz; do sleep 0.2; done
rm -rf delegates; mkdir -m 700 delegates
jpki-status -config status.yaml 2> status-traced.log &
STATUS=$!
until curl -fsS http://127.0.0.1:$STATUS_ADMIN_PORT/readyz; do sleep 0.2; done
openssl req -new -newkey rsa:2048 -nodes -subj / -keyout traced.key -out traced.csr
jq -n --rawfile csr traced.csr '{holder: "H-1", token: "T-7777", requests: [{kind: "card-auth", request: $csr}]}' > traced.json
call counter-1 $URL/station/v1/certificates -H 'Idempotency-Key: traced-1' -H 'traceparent: 00-`+order+`-b7ad6b7169203331-01' -H 'tracestate: name=Hanako' -H 'X-Request-ID: Saburo-77' -d @traced.json > traced.out
call counter-1 $URL/station/v1/tokens/T-7777 > token.out
jq -r '.certificates[0].certificate' traced.out > traced.pem
openssl x509 -in traced.pem -noout -serial | cut -d= -f2 > serial
openssl ocsp -issuer ceremony-auth/auth-1.pem -cert traced.pem -url http://127.0.0.1:$STATUS_PORT/ocsp -CAfile ceremony-auth/auth-1.pem
kill -TERM $STATUS; wait $STATUS
kill -TERM $CA; wait $CA
jq -se 'map(select(.route == "/station/v1/certificates")) | length == 1 and .[0].trace_id == "`+order+`"' traced.log
`)
	got.mu.Lock()
	defer got.mu.Unlock()
	answer := got.one(t, "jpki-ca: POST /station/v1/certificates", order)
	if hex.EncodeToString(answer.GetParentSpanId()) != "b7ad6b7169203331" {
		t.Errorf("the station's span is not the parent: %v", answer)
	}
	if signature := got.one(t, "jpki-ca: sign certificate", order); !bytes.Equal(signature.GetParentSpanId(), answer.GetSpanId()) {
		t.Errorf("the answer is not the signature's parent: %v", signature)
	}
	got.one(t, "jpki-ca: GET /station/v1/tokens/{token}", "")
	asked := got.one(t, "jpki-status: POST to authority", "")
	certified := got.one(t, "jpki-ca: POST /responder/v1/certificates", hex.EncodeToString(asked.GetTraceId()))
	if !bytes.Equal(certified.GetParentSpanId(), asked.GetSpanId()) {
		t.Errorf("the status server's span is not the parent: %v", certified)
	}
	serial, err := os.ReadFile(filepath.Join(dir, "serial"))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.TrimSpace(string(serial))
	octets, err := hex.DecodeString(text)
	if err != nil || len(octets) != 16 {
		t.Fatalf("serial %q", text)
	}
	for _, secret := range []string{text, strings.ToLower(text), string(octets), "T-7777", "H-1", "traced-1", "counter-1", "status-1", "Hanako", "Saburo", "127.0.0.1", "見本", "319900401", "砂箱"} {
		if bytes.Contains(got.raw, []byte(secret)) {
			t.Errorf("%q was exported", secret)
		}
	}
}

// TestBucket has two servers publish into one bucket: CRLs and status snapshots are there as in the folder of the one that
// leads, and when that is killed the other goes on with what is newer.
func TestBucket(t *testing.T) {
	endpoint, folder := objectStore(t)
	story(t, freshDatabase(t), `
printf 'access\nsecret-of-tests\n' > s3
printf 'bucket: {endpoint: "`+endpoint+`", region: ap-northeast-1, name: crls, credentials: s3, prefix: lists/, snapshot_prefix: packed/}\n' >> ca.yaml
B=`+folder+`
kill -TERM %1; wait %1
jpki-ca -config ca.yaml -check
jpki-ca -config ca.yaml 2> bucket.log &
CA=$!
whole() { # FOLDER: everything in the bucket is what the folder has
  for g in sign-1 auth-1; do
    cmp $1/crl/$g/full.crl $B/lists/$g/full.crl || return 1
    test "$(jq -cS . $1/snapshot/$g/index.json)" = "$(jq -cS . $B/packed/$g/index.json)" || return 1
    jq -r '.files[].name' $1/snapshot/$g/index.json > names || return 1
    test -s names || return 1
    while read f; do cmp $1/snapshot/$g/$f $B/packed/$g/$f || return 1; done < names
  done
}
within() { for n in $(seq 300); do if "$@" > last 2>&1; then return 0; fi; sleep 0.2; done; cat last; find $B; return 1; }
within whole public
openssl crl -inform DER -in $B/lists/auth-1/full.crl -CAfile ceremony-auth/auth-1.pem -noout
sed -e "s/^listen: .*/listen: 127.0.0.1:$CA_PORT2/" -e "s/^admin: .*/admin: 127.0.0.1:$ADMIN_PORT2/" -e 's/^publish: .*/publish: public2/' -e 's/checkpoints: checkpoints/checkpoints: checkpoints2/' ca.yaml > ca2.yaml
mkdir public2
jpki-ca -config ca2.yaml 2> bucket2.log &
until curl -fsS http://127.0.0.1:$ADMIN_PORT2/readyz; do sleep 0.2; done
cp $B/lists/auth-1/full.crl before.crl
kill -9 $CA; wait $CA || true
call counter-1 https://127.0.0.1:$CA_PORT2/station/v1/suspensions -H 'Idempotency-Key: lost-1' -d '{"token": "T-1", "cause": "lost"}'
listed() { openssl crl -inform DER -in $B/lists/auth-1/full.crl -noout -text | grep -q "$(openssl x509 -in card.pem -noout -serial | cut -d= -f2)"; }
within listed
within whole public2
refused cmp before.crl $B/lists/auth-1/full.crl
counted() { curl -fsS http://127.0.0.1:$ADMIN_PORT2/metrics | grep '^jpki_crl_mirror_total{outcome="put"}'; } # once a second
within counted
`, "CA_PORT2", "ADMIN_PORT2")
}
