package main

import (
	"bufio"
	"bytes"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	xocsp "golang.org/x/crypto/ocsp"

	"github.com/openjpki/jpki"
)

// GET and POST say the same octets, whatever is asked about and however the path is written: random requests over
// connections that stay open. Of certificates that were never issued nothing is kept, so that there the status is compared.
func TestGETIsPOST(t *testing.T) {
	requests := 100_000
	if testing.Short() {
		requests = 2000
	}
	w := newWorld(t, "sqlite:"+filepath.Join(t.TempDir(), "ca.db"), "RSA")
	w.delegate("a", "P-256")
	serials := make([]jpki.Serial, 400)
	for i := range serials {
		serials[i] = newSerial(t)
	}
	w.set(good, serials[:200]...)
	w.set(suspended, serials[200:300]...)
	w.set(revoked, serials[300:390]...)
	s := w.serve(w.config(map[string]string{"validity": "24h"}, "a")) // nothing is signed anew meanwhile
	u, err := url.Parse(s.url)
	if err != nil {
		t.Fatal(err)
	}
	var clients sync.WaitGroup
	const each = 4
	for n := range each {
		clients.Go(func() {
			random := rand.New(rand.NewPCG(uint64(n), 1))
			nc, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", u.Host)
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = nc.Close() }()
			in := bufio.NewReader(nc)
			read := func(method string) (int, []byte) {
				resp, err := http.ReadResponse(in, &http.Request{Method: method})
				if err != nil {
					t.Errorf("%s: %v", method, err)
					return 0, nil
				}
				defer func() { _ = resp.Body.Close() }()
				body, err := io.ReadAll(resp.Body)
				if err != nil {
					t.Error(err)
				}
				return resp.StatusCode, body
			}
			for range requests / each {
				i := random.IntN(len(serials))
				der := w.request(t, serials[i], []crypto.Hash{crypto.SHA1, crypto.SHA256}[random.IntN(2)])
				path := base64.StdEncoding.EncodeToString(der)
				switch random.IntN(3) {
				case 0:
					path = url.PathEscape(path)
				case 1:
					path = strings.NewReplacer("+", "%2b", "/", "%2f", "=", "%3d").Replace(path)
				}
				fmt.Fprintf(nc, "POST /ocsp HTTP/1.1\r\nHost: a\r\nContent-Type: application/ocsp-request\r\nContent-Length: %d\r\n\r\n%s"+
					"GET /ocsp/%s HTTP/1.1\r\nHost: a\r\n\r\n", len(der), der, path)
				postCode, posted := read(http.MethodPost)
				getCode, got := read(http.MethodGet)
				same := bytes.Equal(posted, got)
				if i >= 390 {
					same = unknown(posted, w.ca) && unknown(got, w.ca)
				}
				if postCode != http.StatusOK || getCode != postCode || !same {
					t.Errorf("certificate %d: POST %d, GET %d, %d and %d octets", i, postCode, getCode, len(posted), len(got))
					return
				}
			}
		})
	}
	clients.Wait()
	for i, want := range map[int][2]int{0: {xocsp.Good, 0}, 200: {xocsp.Revoked, 6}, 300: {xocsp.Revoked, 3}, 399: {xocsp.Unknown, 0}} {
		s.want(serials[i], want[0], want[1])
	}
}

// unknown reports whether an answer says that, as another library reads it.
func unknown(der []byte, ca *x509.Certificate) bool {
	r, err := xocsp.ParseResponse(der, ca)
	return err == nil && r.Status == xocsp.Unknown
}

// request is a request of another library.
func (w *world) request(t testing.TB, serial jpki.Serial, hash crypto.Hash) []byte {
	t.Helper()
	der, err := xocsp.CreateRequest(&x509.Certificate{SerialNumber: serial.Big()}, w.ca, &xocsp.RequestOptions{Hash: hash})
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// Four clients of other people understand all that can be said of a certificate, signed with either kind of key.
func TestClients(t *testing.T) {
	for _, tool := range []string{"openssl", "ocsptool", "java"} {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("JPKI_TEST_REQUIRE") == "1" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
	for _, alg := range []string{"RSA", "P-256"} {
		t.Run(alg, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "sqlite:"+filepath.Join(t.TempDir(), "ca.db"), "RSA")
			delegate := w.delegate("a", alg)
			alive, lost, ended, never := newSerial(t), newSerial(t), newSerial(t), newSerial(t)
			w.set(good, alive)
			w.set(suspended, lost)
			w.set(revoked, ended)
			s := w.serve(w.config(nil, "a"))
			validate, err := filepath.Abs("../jpki/testdata/java/Validate.java")
			if err != nil {
				t.Fatal(err)
			}
			ca := w.path("ca.cer")
			for _, test := range []struct {
				name                  string
				serial                jpki.Serial
				status, reason        int
				openssl, gnutls, java string
			}{
				{"good", alive, xocsp.Good, 0, ": good", "Certificate Status: good", ": good"},
				{"on hold", lost, xocsp.Revoked, 6, "Reason: certificateHold", "Certificate Status: revoked", ": revoked CERTIFICATE_HOLD"},
				{"revoked", ended, xocsp.Revoked, 3, "Reason: affiliationChanged", "Certificate Status: revoked", ": revoked AFFILIATION_CHANGED"},
				{"never issued", never, xocsp.Unknown, 0, ": unknown", "Certificate Status: unknown", ": refused UNDETERMINED_REVOCATION_STATUS"},
			} {
				got, err := s.ask(test.serial)
				if err != nil || got.Status != test.status || got.RevocationReason != test.reason || !bytes.Equal(got.Certificate.Raw, delegate.Raw) {
					t.Errorf("%s: x/crypto/ocsp: %+v, %v", test.name, got, err)
				}
				cert := w.subscriber(test.serial)
				for _, call := range []struct {
					args []string
					want []string
				}{
					{[]string{"openssl", "ocsp", "-issuer", ca, "-cert", cert, "-url", s.url, "-CAfile", ca, "-nonce"}, []string{test.openssl, "Response verify OK"}},
					{[]string{"ocsptool", "--ask=" + s.url, "--load-issuer", ca, "--load-cert", cert, "--load-trust", ca, "--nonce"}, []string{test.gnutls, "Success"}},
					{[]string{"java", validate, ca, cert, s.url}, []string{test.java}},
				} {
					out, _ := exec.CommandContext(t.Context(), call.args[0], call.args[1:]...).CombinedOutput() // the exit code says that the answer is no
					for _, want := range call.want {
						if !strings.Contains(string(out), want) {
							t.Errorf("%s: %s: no %q in\n%s", test.name, call.args[0], want, out)
						}
					}
				}
			}
		})
	}
}

// subscriber writes a certificate under a number, for clients that want to see one, and returns where it is.
func (w *world) subscriber(serial jpki.Serial) string {
	cert := w.certify(newKey(w.t, "P-256").Public(), &x509.Certificate{SerialNumber: serial.Big(), Subject: pkix.Name{CommonName: "nobody"}, KeyUsage: x509.KeyUsageDigitalSignature})
	return w.write(serial.String()+".cer", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))
}
