package main

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/cmd/internal/sandbox"
	"github.com/openjpki/jpki/ocsp"
)

// Promise: a clear answer to everything that comes in, and nothing lost.
func TestAbuse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p, env := start(t, dir, 0)
	if err := p.waitFor(func() bool { return strings.Contains(p.out.String(), "steps held") }); err != nil {
		t.Fatal(err)
	}
	before := metrics(t, env)
	counted := map[string]int{} // what the metrics have to have grown by

	t.Run("ocsp", func(t *testing.T) { abuseOCSP(t, env, counted) })
	t.Run("paths", func(t *testing.T) { abusePaths(t, env, counted) })
	t.Run("authority", func(t *testing.T) { abuseAuthority(t, env, counted) })
	t.Run("verifier", func(t *testing.T) { abuseVerifier(t, env, counted) })

	if got := get(t, env.AdminURL+"/healthz"); got != "ok\n" {
		t.Errorf("healthz: %q", got)
	}
	if got := get(t, env.AdminURL+"/readyz"); got != "ready\n" {
		t.Errorf("readyz: %q", got)
	}
	after := metrics(t, env)
	for name, n := range counted {
		if grown := after[name] - before[name]; grown != float64(n) {
			t.Errorf("%s grew by %v, want %d", name, grown, n)
		}
	}
	sample, err := sandbox.ReadCertificate(env.SampleSignCert)
	if err != nil {
		t.Fatal(err)
	}
	issuer, err := env.Issuer(sample)
	if err != nil {
		t.Fatal(err)
	}
	expectOCSP(t, env, sample, issuer, "good")
	p.end(t)
	log, err := os.ReadFile(filepath.Join(dir, "log"))
	if err != nil || bytes.Contains(log, []byte("panic")) || bytes.Contains(log, []byte(`"level":"ERROR"`)) {
		t.Errorf("%v; the log tells of trouble:\n%s", err, log)
	}
}

// answered is what is looked at of an answer.
type answered struct {
	status int
	header http.Header
	body   []byte
}

// problem returns the name of the problem that the answer is, and fails if it is none.
func (a answered) problem(t *testing.T, what string) string {
	t.Helper()
	var p jpki.ProblemDetails
	if a.header.Get("Content-Type") != "application/problem+json" || json.Unmarshal(a.body, &p) != nil || p.Status != a.status || p.Title == "" {
		t.Errorf("%s: HTTP status %d and no problem: %q", what, a.status, cut(a.body))
	}
	return string(p.Problem())
}

func cut(b []byte) []byte { return b[:min(200, len(b))] }

// send makes a request, without following redirections.
func send(t *testing.T, c *http.Client, method, url, contentType string, body []byte, header ...string) answered {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatalf("%s %s with %d octets: %v", method, url, len(body), err)
	}
	defer func() { _ = resp.Body.Close() }()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	return answered{resp.StatusCode, resp.Header, got}
}

func newClient(cfg *tls.Config) *http.Client {
	return &http.Client{
		Timeout: patience, Transport: &http.Transport{TLSClientConfig: cfg},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// raw sends octets over a connection of its own and returns what comes back until the other side closes.
func raw(t *testing.T, base, text string) string {
	t.Helper()
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.DialTimeout("tcp", u.Host, patience)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	if tcp, ok := c.(*net.TCPConn); ok && !strings.Contains(text, "Connection: close") { // else the other side closes
		if err := tcp.CloseWrite(); err != nil {
			t.Fatal(err)
		}
	}
	got, _ := io.ReadAll(c) // a reset is an answer, too
	return string(got)
}

func ocspCounter(outcome string) string {
	return fmt.Sprintf("jpki_ocsp_responses_total{outcome=%q}", outcome)
}

func listenerCounter(outcome string) string {
	return fmt.Sprintf("jpki_ocsp_listener_total{outcome=%q}", outcome)
}

func abuseOCSP(t *testing.T, env sandbox.Env, counted map[string]int) {
	c := newClient(nil)
	sample, err := sandbox.ReadCertificate(env.SampleSignCert)
	if err != nil {
		t.Fatal(err)
	}
	issuer, err := env.Issuer(sample)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := jpki.SerialFromBig(sample.SerialNumber)
	if err != nil {
		t.Fatal(err)
	}
	request, err := ocsp.NewRequest(issuer, crypto.SHA256, nil, serial)
	if err != nil {
		t.Fatal(err)
	}
	valid, err := request.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	noise := make([]byte, 1<<20)
	if _, err := rand.Read(noise); err != nil {
		t.Fatal(err)
	}

	// What is no request gets the five octets that say so.
	malformed := []byte{0x30, 0x03, 0x0a, 0x01, 0x01}
	garbage := map[string][]byte{
		"nothing": {}, "text": []byte("good morning"), "a megabyte of noise": noise, "noise": noise[:300], "a megabyte of zeros": make([]byte, 1<<20), "cut short": valid[:len(valid)-1],
		"continued": append(bytes.Clone(valid), 0), "indefinite length": {0x30, 0x80, 0x30, 0x80, 0, 0, 0, 0}, "endless length": {0x30, 0x88, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		"a million levels": bytes.Repeat([]byte{0x30, 0x80}, 500_000), "a certificate": sample.Raw,
	}
	seed := mathrand.Uint64()
	t.Logf("seed %d", seed)
	chance := mathrand.New(mathrand.NewPCG(seed, 0))
	for i := range 200 { // one octet of the head is wrong: tags and lengths, so that it is never a request
		b := bytes.Clone(valid)
		b[chance.IntN(8)] ^= byte(1 + chance.IntN(255))
		garbage[fmt.Sprintf("%d: %X", i, b)] = b
	}
	for name, body := range garbage {
		got := send(t, c, "POST", env.OCSPURL, "application/ocsp-request", body)
		counted[ocspCounter("malformedRequest")]++
		if got.status != 200 || !bytes.Equal(got.body, malformed) || got.header.Get("Content-Type") != "application/ocsp-response" {
			t.Errorf("%s: HTTP status %d, %X", name, got.status, cut(got.body))
		}
	}
	for _, path := range []string{"", "/", "//", "/!!!!", "/AAAA", "/" + strings.Repeat("A", 12_000), "/%00", "/..%2f..%2fetc%2fpasswd", "?x=y"} {
		got := send(t, c, "GET", env.OCSPURL+path, "", nil)
		counted[ocspCounter("malformedRequest")]++
		if got.status != 200 || !bytes.Equal(got.body, malformed) {
			t.Errorf("GET /ocsp%s: HTTP status %d, %X", cut([]byte(path)), got.status, cut(got.body))
		}
	}

	if got := send(t, c, "GET", env.OCSPURL+"/"+strings.Repeat("A", 60_000), "", nil); got.status != http.StatusRequestURITooLong {
		t.Errorf("an endless path: HTTP status %d", got.status)
	}
	counted[listenerCounter("target-too-long")]++

	// A foreign issuer is told apart from an unknown number.
	foreign, err := ocsp.NewRequest(selfMade(t), crypto.SHA1, nil, serial)
	if err != nil {
		t.Fatal(err)
	}
	der, err := foreign.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if got := send(t, c, "POST", env.OCSPURL, "application/ocsp-request", der); got.status != 200 || !bytes.Equal(got.body, []byte{0x30, 0x03, 0x0a, 0x01, 0x06}) {
		t.Errorf("foreign issuer: HTTP status %d, %X", got.status, cut(got.body))
	}
	counted[ocspCounter("unauthorized")]++

	// What is wrong with HTTP is a problem.
	for _, method := range []string{"PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "get"} {
		got := send(t, c, method, env.OCSPURL, "application/ocsp-request", valid)
		counted[listenerCounter("method-not-allowed")]++
		if got.status != 405 || got.problem(t, method) != "method-not-allowed" || got.header.Get("Allow") != "GET, POST" {
			t.Errorf("%s: HTTP status %d, Allow %q", method, got.status, got.header.Get("Allow"))
		}
	}
	for _, contentType := range []string{"text/html", "application/json", "application/x-www-form-urlencoded", "application/ocsp-response", "a;b;c", "\u00e9"} {
		if got := send(t, c, "POST", env.OCSPURL, contentType, valid); got.status != 415 {
			t.Errorf("Content-Type %s: HTTP status %d", contentType, got.status)
		}
		counted[listenerCounter("unsupported-media-type")]++
	}
	if got := send(t, c, "POST", env.OCSPURL+"/more", "application/ocsp-request", valid); got.status != 404 || got.problem(t, "POST /ocsp/more") != "not-found" {
		t.Errorf("POST /ocsp/more: HTTP status %d", got.status)
	}
	counted[listenerCounter("not-found")]++

	// The base64 of a request is taken as it is, slashes and all.
	for range 40 {
		number, err := jpki.NewSerial(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		q, err := ocsp.NewRequest(issuer, crypto.SHA1, nil, number)
		if err != nil {
			t.Fatal(err)
		}
		der, err := q.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		text := base64.StdEncoding.EncodeToString(der)
		got := raw(t, env.OCSPURL, "GET /ocsp/"+text+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		_, body, _ := strings.Cut(got, "\r\n\r\n")
		counted[ocspCounter("unknown")]++
		if r, err := ocsp.ParseResponse([]byte(body)); err != nil || !strings.HasPrefix(got, "HTTP/1.1 200 ") {
			t.Errorf("GET /ocsp/%s: %v %q", text, err, cut([]byte(got)))
		} else if a, err := r.Answer(issuer, number); err != nil || !a.Unknown {
			t.Errorf("GET /ocsp/%s: %v, %+v", text, err, a)
		}
	}

	// A client that says more than it sends, or that is no client.
	raw(t, env.OCSPURL, "POST /ocsp HTTP/1.1\r\nHost: x\r\nContent-Type: application/ocsp-request\r\nContent-Length: 100\r\n\r\n0")
	for _, text := range []string{"\x16\x03\x01\x02\x00\x01\x00", "GET / HTTP/9.9\r\n\r\n", "\r\n\r\n", "POST /ocsp HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", "GET /ocsp HTTP/1.1\r\n" + strings.Repeat("X: y\r\n", 50_000) + "\r\n"} {
		if got := raw(t, env.OCSPURL, text); strings.HasPrefix(got, "HTTP/1.1 2") {
			t.Errorf("%q was answered with %q", cut([]byte(text)), cut([]byte(got)))
		}
	}
	if got := send(t, c, "POST", env.OCSPURL, "application/ocsp-request", valid); got.status != 200 || len(got.body) < 500 {
		t.Errorf("after all that a good request gets HTTP status %d, %X", got.status, cut(got.body))
	}
	counted[ocspCounter("good")]++
}

// selfMade returns a certificate that nobody here has seen.
func selfMade(t *testing.T) *x509.Certificate {
	t.Helper()
	key := keys(t, 1)[0]
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func abusePaths(t *testing.T, env sandbox.Env, counted map[string]int) {
	c := newClient(nil)
	public := env.StatusURL()
	for _, path := range []string{
		"/crl/", "/crl/sign-1", "/crl/sign-1/", "/crl/sign-1/00000.crl", "/crl/sign-2/full.crl", "/crl/nobody-1/full.crl", "/crl/sign-1/full.crl/", "/crl/sign-1/.full.crl.new",
		"/crl/../authority/ca.db", "/crl/sign-1/../../../authority/sign-1.key", "/crl/%2e%2e/%2e%2e/authority/sign-1.key", "/crl/sign-1%2ffull.crl", "/crl//sign-1/full.crl",
		"/crl/sign-1/full.crl%00", "/crl/SIGN-1/full.crl", "/crl/sign-1/99101.CRL", "/crl/sign-1/%EF%BC%99%EF%BC%99101.crl", "/crl/" + strings.Repeat("a/", 2000),
	} {
		got := raw(t, public, "GET "+path+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		counted[`jpki_crl_requests_total{outcome="not-found"}`]++
		if !strings.HasPrefix(got, "HTTP/1.1 404 ") || !strings.Contains(got, "#not-found") {
			t.Errorf("GET %s: %q", cut([]byte(path)), cut([]byte(got)))
		}
	}
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS"} {
		got := send(t, c, method, env.CRLURL+"/sign-1/full.crl", "text/plain", []byte("x"))
		counted[`jpki_crl_requests_total{outcome="method-not-allowed"}`]++
		if got.status != 405 || got.problem(t, method) != "method-not-allowed" || got.header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: HTTP status %d, Allow %q", method, got.status, got.header.Get("Allow"))
		}
	}
	whole := send(t, c, "GET", env.CRLURL+"/auth-1/99303.crl", "", nil)
	if whole.status != 200 || whole.header.Get("ETag") == "" || whole.header.Get("Content-Type") != "application/pkix-crl" {
		t.Fatalf("HTTP status %d, %v", whole.status, whole.header)
	}
	counted[`jpki_crl_requests_total{outcome="ok"}`]++
	if got := send(t, c, "GET", env.CRLURL+"/auth-1/99303.crl", "", nil, "If-None-Match", whole.header.Get("ETag")); got.status != 304 {
		t.Errorf("unchanged: HTTP status %d", got.status)
	}
	counted[`jpki_crl_requests_total{outcome="not-modified"}`]++
	if got := send(t, c, "GET", env.CRLURL+"/auth-1/99303.crl", "", nil, "Range", "bytes=0-0,1-1,2-2,5-9999999"); got.status >= 500 {
		t.Errorf("ranges: HTTP status %d", got.status)
	}
	for _, path := range []string{"/", "/ca/", "/ca/sign-1.key", "/ca/../authority/sign-1.key", "/env", "/log", "/ocspx", "/CRL/sign-1/full.crl", "/metrics", "/healthz"} {
		got := raw(t, public, "GET "+path+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		if !strings.HasPrefix(got, "HTTP/1.1 404 ") || !strings.Contains(got, "#not-found") {
			t.Errorf("GET %s: %q", path, cut([]byte(got)))
		}
	}
	trust, err := sandbox.ReadCertificate(env.TrustSign)
	if err != nil {
		t.Fatal(err)
	}
	if got := send(t, c, "GET", public+"/ca/sign-1.cer", "", nil); got.status != 200 || !bytes.Equal(got.body, trust.Raw) {
		t.Errorf("/ca/sign-1.cer: HTTP status %d", got.status)
	}
}

func abuseAuthority(t *testing.T, env sandbox.Env, counted map[string]int) {
	root, err := sandbox.ReadCertificate(env.StationCA)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(root)
	pair, err := tls.LoadX509KeyPair(env.StationCert, env.StationKey)
	if err != nil {
		t.Fatal(err)
	}
	station := newClient(&tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12})
	nobody := newClient(&tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12})
	orders := env.CAURL + "/station/v1/certificates"
	for _, c := range []struct {
		what, method, url, contentType string
		body                           []byte
		status                         int
		problem                        string
		client                         *http.Client
	}{
		{"garbage", "POST", orders, "application/json", []byte("\x00\xff{"), 400, "malformed", station},
		{"empty", "POST", orders, "application/json", nil, 400, "malformed", station},
		{"unknown field", "POST", orders, "application/json", []byte(`{"holder":"a","token":"b","requests":[],"admin":true}`), 400, "malformed", station},
		{"two values", "POST", orders, "application/json", []byte(`{} {}`), 400, "malformed", station},
		{"a megabyte", "POST", orders, "application/json", bytes.Repeat([]byte(" "), 1<<20), 413, "too-large", station},
		{"a deep one", "POST", orders, "application/json", bytes.Repeat([]byte("["), 60_000), 400, "malformed", station},
		{"odd method", "DELETE", orders, "", nil, 405, "method-not-allowed", station},
		{"odd path", "GET", env.CAURL + "/station/v1/../../etc/passwd", "", nil, 404, "not-found", station},
		{"unknown path", "GET", env.CAURL + "/station/v2/certificates", "", nil, 404, "not-found", station},
		{"no certificate", "POST", orders, "application/json", []byte(`{}`), 401, "client-certificate-required", nobody},
		{"no certificate and a megabyte", "POST", orders, "application/json", bytes.Repeat([]byte(" "), 1<<20), 401, "client-certificate-required", nobody},
		{"another's door", "POST", env.CAURL + "/registry/v1/events", "application/json", []byte(`{}`), 403, "", station},
	} {
		got := send(t, c.client, c.method, c.url, c.contentType, c.body, "Idempotency-Key", "abuse")
		p := got.problem(t, c.what)
		counted[fmt.Sprintf("jpki_authority_requests_total{outcome=%q}", p)]++
		if got.status != c.status || (c.problem != "" && p != c.problem) {
			t.Errorf("%s: HTTP status %d, %s", c.what, got.status, p)
		}
	}
	if got := raw(t, env.CAURL, "GET /openapi.yaml HTTP/1.1\r\nHost: x\r\n\r\n"); strings.Contains(got, "openapi: ") {
		t.Errorf("plain HTTP was answered with %q", cut([]byte(got)))
	}
}

func abuseVerifier(t *testing.T, env sandbox.Env, counted map[string]int) {
	c := newClient(nil)
	token := "Bearer " + env.VerifierToken
	for _, v := range []struct {
		what, method, path, token string
		body                      []byte
		status                    int
		problem                   string
	}{
		{"garbage", "POST", "/v1/verifications", token, []byte("\x00\xff{"), 400, "malformed"},
		{"not base64", "POST", "/v1/verifications", token, []byte(`{"certificate":"%","digest":"%","hash":"sha256","signature":"%"}`), 400, "malformed"},
		{"two megabytes", "POST", "/v1/verifications", token, bytes.Repeat([]byte(" "), 2<<20), 413, "too-large"},
		{"a My Number", "POST", "/v1/certificate-status", token, []byte(`{"certificate":"1234-5678-9018"}`), 422, "my-number-present"},
		{"no token", "POST", "/v1/verifications", "", []byte(`{}`), 401, "unauthorized"},
		{"wrong token", "POST", "/v1/verifications", token + "x", []byte(`{}`), 401, "unauthorized"},
		{"odd method", "PUT", "/v1/verifications", token, nil, 405, "method-not-allowed"},
		{"odd path", "GET", "/v1/", token, nil, 404, "not-found"},
		{"used challenge", "POST", "/v1/authentications", token, []byte(`{"challenge_id":"AAAA","certificate":"MAA=","signature":"AA=="}`), 409, "challenge-invalid"},
	} {
		header := []string{}
		if v.token != "" {
			header = []string{"Authorization", v.token}
		}
		got := send(t, c, v.method, env.VerifierURL+v.path, "application/json", v.body, header...)
		p := got.problem(t, v.what)
		counted[fmt.Sprintf("jpki_verifier_requests_total{outcome=%q}", p)]++
		if got.status != v.status || p != v.problem {
			t.Errorf("%s: HTTP status %d, %s", v.what, got.status, p)
		}
	}
	// A certificate that is none is a verdict, not a problem.
	got := send(t, c, "POST", env.VerifierURL+"/v1/certificate-status", "application/json", []byte(`{"certificate":"MAA="}`), "Authorization", token)
	var verdict sandbox.Verdict
	if err := json.Unmarshal(got.body, &verdict); err != nil || got.status != 200 || verdict.Code != "malformed-certificate" {
		t.Errorf("HTTP status %d: %s", got.status, cut(got.body))
	}
}
