package front_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	xocsp "golang.org/x/crypto/ocsp"

	"github.com/openjpki/jpki/ocsp"
	"github.com/openjpki/jpki/ocsp/front"
)

// responder is a small responder of another make: what is tested here is how OCSP gets to it and back.
type responder struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func (r responder) Exchange(_ context.Context, q *ocsp.Query) ocsp.Reply {
	body := xocsp.MalformedRequestErrorResponse
	if req, err := xocsp.ParseRequest(q.Request); err == nil {
		now := time.Now()
		answer := xocsp.Response{Status: xocsp.Good, SerialNumber: req.SerialNumber, ThisUpdate: now.Add(-time.Minute), NextUpdate: now.Add(time.Hour), IssuerHash: req.HashAlgorithm}
		if body, err = xocsp.CreateResponse(r.cert, r.cert, answer, r.key); err != nil {
			body = xocsp.InternalErrorErrorResponse
		}
	}
	return ocsp.Reply{Code: http.StatusOK, Head: []byte("Content-Type: application/ocsp-response\r\n"), Body: body}
}

func program(t *testing.T, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		if os.Getenv("JPKI_TEST_REQUIRE") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}

func TestOpenSSLAndCurl(t *testing.T) {
	program(t, "openssl")
	program(t, "curl")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "front test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, SubjectKeyId: []byte{1, 2, 3}, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	other := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.NotFound(w, nil) })
	_, address := start(t, front.Config{Exchanger: responder{ca, key}, Other: other})
	url := "http://" + address + "/ocsp"

	out, err := exec.CommandContext(t.Context(), "openssl", "ocsp", "-issuer", file, "-serial", "0x5A01", "-url", url, "-no_nonce", "-CAfile", file).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "Response verify OK") || !strings.Contains(string(out), "0x5A01: good") {
		t.Errorf("%v\n%s", err, out)
	}

	request, err := xocsp.CreateRequest(ca, ca, nil)
	if err != nil {
		t.Fatal(err)
	}
	body := filepath.Join(t.TempDir(), "request")
	if err := os.WriteFile(body, request, 0o600); err != nil {
		t.Fatal(err)
	}
	text := base64.StdEncoding.EncodeToString(request)
	for name, args := range map[string][]string{
		"GET":              {"--path-as-is", url + "/" + text},
		"GET, escaped":     {url + "/" + strings.NewReplacer("+", "%2B", "/", "%2F", "=", "%3D").Replace(text)},
		"POST":             {"--data-binary", "@" + body, "-H", "Content-Type: application/ocsp-request", url},
		"POST, HTTP/1.0":   {"--http1.0", "--data-binary", "@" + body, "-H", "Content-Type: application/ocsp-request", url},
		"POST, chunked":    {"--data-binary", "@" + body, "-H", "Content-Type: application/ocsp-request", "-H", "Transfer-Encoding: chunked", url},
		"POST, to be sure": {"--data-binary", "@" + body, "-H", "Content-Type: application/ocsp-request", "-H", "Expect: 100-continue", url},
		"two on one line":  {"--data-binary", "@" + body, "-H", "Content-Type: application/ocsp-request", url, url, "-o", "/dev/null"},
	} {
		out, err := exec.CommandContext(t.Context(), "curl", append([]string{"-sS", "--fail", "--max-time", "20"}, args...)...).Output()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if a, err := xocsp.ParseResponse(out, ca); err != nil || a.SerialNumber.Cmp(ca.SerialNumber) != 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	out, err = exec.CommandContext(t.Context(), "curl", "-sS", "--max-time", "20", "http://"+address+"/crl/x", url+"/"+text, "-o", "-", "-o", "/dev/null").CombinedOutput()
	if err != nil || string(out) != "404 page not found\n" {
		t.Errorf("%v: %s", err, out)
	}
}
