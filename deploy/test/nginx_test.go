package deploy_test

import (
	"bufio"
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ocsp"
)

// startNginx starts nginx with a configuration for its http block, after its own test of it.
func startNginx(t *testing.T, conf, listen string, upstream map[string]string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "jpki-nginx")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { // for nginx's workers, who are another user
		t.Fatal(err)
	}
	for from, to := range upstream {
		conf = strings.ReplaceAll(conf, from, to)
	}
	conf = strings.NewReplacer("listen 80;", "listen "+listen+";", "/var/cache/nginx", dir).Replace(conf)
	main := "daemon off;\nworker_processes 2;\npid " + dir + "/pid;\nerror_log stderr warn;\nevents {}\nhttp {\naccess_log off;\n"
	for _, name := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		main += name + "_temp_path " + dir + "/" + name + ";\n"
	}
	file := write(t, main+conf+"}\n", dir, "nginx.conf")
	run(t, "nginx", "-t", "-e", "stderr", "-p", dir, "-c", file)
	start(t, dir, nil, "nginx", "-e", "stderr", "-p", dir, "-c", file)
	eventually(t, "nginx", func() error {
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", listen)
		if err == nil {
			_ = c.Close()
		}
		return err
	})
}

// exchange sends a request as it is written and returns status and body.
func exchange(t *testing.T, address, request string) (int, []byte) {
	t.Helper()
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Body.Close() }()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, body
}

func getAsWritten(path string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: status.example.jp\r\nConnection: close\r\n\r\n"
}

// TestNginxKeepsPaths: what a client writes into the path reaches the status server octet for octet, and no two questions share an answer.
func TestNginxKeepsPaths(t *testing.T) {
	need(t, "nginx")
	back := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		_, _ = io.WriteString(w, r.RequestURI+" "+r.Header.Get("X-Forwarded-For")) //nolint:gosec // no page
	}))
	t.Cleanup(back.Close)
	at, there := "127.0.0.1:"+freePort(t), back.Listener.Addr().String()
	conf := strings.Replace(read(t, deploy, "nginx", "status.conf"), "rate=200r/s", "rate=100000r/s", 1)
	startNginx(t, conf, at, map[string]string{"status-1:8080": there, "status-2:8080": there, "status-3:8080": there})
	paths := []string{
		"/ocsp/MEI//w==", "/ocsp/MEI/w==", "/ocsp/MEI///w==", "/ocsp/a+b=", "/ocsp/a%2Bb=", "/ocsp/a%2bb%3D", "/ocsp/%2F%2F/", "/ocsp//", "/ocsp/a/../b", "/ocsp/a/./b", "/ocsp/a%20b", "/ocsp?a=b", "/ocsp/a;b",
		"/crl/sign-1/full.crl", "/crl/99101/sign-1%2Ecrl",
	}
	for range 300 {
		question := make([]byte, 70)
		_, _ = rand.Read(question)
		paths = append(paths, "/ocsp/"+base64.StdEncoding.EncodeToString(question))
	}
	for range 2 { // the second time from nginx's memory
		for _, path := range paths {
			if status, body := exchange(t, at, getAsWritten(path)); status != http.StatusOK || string(body) != path+" 127.0.0.1" {
				t.Errorf("%s becomes %d %s", path, status, body)
			}
		}
	}
	for _, path := range []string{"/metrics", "/ocsp/%2e%2e/metrics", "/ocsp/../metrics", "/crl/../metrics"} {
		if status, body := exchange(t, at, getAsWritten(path)); status != http.StatusNotFound || bytes.Contains(body, []byte("127.0.0.1")) {
			t.Errorf("%s: %d", path, status)
		}
	}

	// The test can fail: nginx as it comes tidies up.
	tidy := strings.Replace(conf, "merge_slashes off;", "", 1)
	tidy = strings.Replace(tidy, "proxy_cache_key $request_uri;", "proxy_cache_key $uri;", 1)
	at = "127.0.0.1:" + freePort(t)
	startNginx(t, tidy, at, map[string]string{"status-1:8080": there, "status-2:8080": there, "status-3:8080": there})
	exchange(t, at, getAsWritten("/ocsp/MEI//w=="))
	if _, body := exchange(t, at, getAsWritten("/ocsp/MEI/w==")); strings.HasPrefix(string(body), "/ocsp/MEI/w==") {
		t.Error("without merge_slashes and cache key it works as well: what are they for?")
	}
}

// testNginx asks real status servers through nginx. That what comes back is the same octet for octet can be asked of one server's answers
// only, so there is an nginx before that one.
func (w *topology) testNginx(t *testing.T) {
	cert := w.issue(t)
	status := w.address["status-1:8080"]
	at := "127.0.0.1:" + freePort(t)
	startNginx(t, read(t, deploy, "nginx", "status.conf"), at, map[string]string{"status-1:8080": status, "status-2:8080": status, "status-3:8080": status})
	block, _ := pem.Decode([]byte(read(t, w.dir, "ca", "auth-1.pem")))
	issuer, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := jpki.SerialFromBig(cert.SerialNumber)
	if err != nil {
		t.Fatal(err)
	}
	q, err := ocsp.NewRequest(issuer, crypto.SHA256, nil, serial)
	if err != nil {
		t.Fatal(err)
	}
	der, err := q.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	check := func(path string, direct, through []byte) {
		t.Helper()
		r, err := ocsp.ParseResponse(through)
		if err != nil || r.Status != ocsp.Successful || len(r.Answers) != 1 || r.Answers[0].Unknown || r.Answers[0].Revoked {
			t.Fatalf("%s: %+v %v", path, r, err)
		}
		if !bytes.Equal(direct, through) {
			t.Errorf("%s: nginx changed the answer", path)
		}
	}
	want := map[string]bool{"//": false, "/": false, "+": false, "=": false}
	for i := range 5000 {
		who := make([]byte, 16+i%3)
		_, _ = rand.Read(who)
		text := base64.StdEncoding.EncodeToString(asked(t, der, who))
		news := false
		for c, had := range want {
			news = news || !had && strings.Contains(text, c)
		}
		if !news {
			continue
		}
		for c := range want {
			want[c] = want[c] || strings.Contains(text, c)
		}
		escape := strings.NewReplacer("+", "%2B", "/", "%2F", "=", "%3D")
		for _, path := range []string{"/ocsp/" + text, "/ocsp/" + escape.Replace(text), "/ocsp/" + strings.ReplaceAll(text, "+", "%2b")} {
			_, direct := exchange(t, status, getAsWritten(path))
			for range 2 {
				code, through := exchange(t, at, getAsWritten(path))
				if code != http.StatusOK {
					t.Fatalf("%s: %d", path, code)
				}
				check(path, direct, through)
			}
		}
	}
	for c, had := range want {
		if !had {
			t.Errorf("no question had %q", c)
		}
	}
	post := fmt.Sprintf("POST /ocsp HTTP/1.1\r\nHost: status.example.jp\r\nConnection: close\r\nContent-Type: application/ocsp-request\r\nContent-Length: %d\r\n\r\n%s", len(der), der)
	_, direct := exchange(t, status, post)
	_, through := exchange(t, at, post)
	check("POST", direct, through)
	for _, path := range []string{"/crl/auth-1/full.crl", "/ca/auth-1.cer"} {
		_, direct := exchange(t, status, getAsWritten(path))
		if code, through := exchange(t, at, getAsWritten(path)); code != http.StatusOK || sha256.Sum256(direct) != sha256.Sum256(through) {
			t.Errorf("%s: %d", path, code)
		}
	}
}

// asked is an OCSP request with a name of who asks, which changes nothing but the octets.
func asked(t *testing.T, request, who []byte) []byte {
	t.Helper()
	s := cryptobyte.String(request)
	var outer, tbs, list cryptobyte.String
	if !s.ReadASN1(&outer, asn1.SEQUENCE) || !outer.ReadASN1(&tbs, asn1.SEQUENCE) || !tbs.ReadASN1Element(&list, asn1.SEQUENCE) {
		t.Fatal("not a request")
	}
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(asn1.Tag(1).Constructed().ContextSpecific(), func(b *cryptobyte.Builder) {
				b.AddASN1(asn1.Tag(0).Constructed().ContextSpecific(), func(b *cryptobyte.Builder) { // otherName
					b.AddASN1ObjectIdentifier([]int{2, 999})
					b.AddASN1(asn1.Tag(0).Constructed().ContextSpecific(), func(b *cryptobyte.Builder) { b.AddASN1OctetString(who) })
				})
			})
			b.AddBytes(list)
		})
	})
	out, err := b.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// issue has a certificate issued at the counter, for a key that OpenSSL makes.
func (w *topology) issue(t *testing.T) *x509.Certificate {
	t.Helper()
	who := rand.Text()
	script := `set -euo pipefail
call() { curl -sS --fail-with-body --cacert $DIR/infrastructure.pem --cert $DIR/$1.pem --key $DIR/$1.key -H 'Content-Type: application/json' "${@:2}"; }
call register $URL/registry/v1/events -d '{"id": "event-'$WHO'", "holder": "H-'$WHO'", "type": "registered", "effective_at": "2025-04-01T00:00:00+09:00", "municipality": "99101",
  "attributes": {"name": "見本　一郎", "sex": "1", "birth_date": "319900401", "address": "砂箱県"}}' > /dev/null
openssl req -new -newkey rsa:2048 -nodes -subj / -keyout /dev/null 2> /dev/null > card.csr
jq -n --rawfile csr card.csr '{holder: "H-'$WHO'", token: "T-'$WHO'", requests: [{kind: "card-auth", request: $csr}]}' |
  call counter-1 $URL/station/v1/certificates -H "Idempotency-Key: order-$WHO" -d @-`
	cmd := exec.CommandContext(t.Context(), "bash", "-c", script)
	cmd.Dir = t.TempDir()
	cmd.Stderr = os.Stderr
	cmd.Env = append(os.Environ(), "DIR="+filepath.Join(w.dir, "canary"), "URL="+w.rewrite("canary", "https://ca:8443"), "WHO="+who)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var issued struct {
		Certificates []struct{ Certificate string }
	}
	if err := json.Unmarshal(out, &issued); err != nil || len(issued.Certificates) != 1 {
		t.Fatalf("%v\n%s", err, out)
	}
	block, _ := pem.Decode([]byte(issued.Certificates[0].Certificate))
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}
