package verifier_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/verifier"
)

func sha256sum(b []byte) []byte { s := sha256.Sum256(b); return s[:] }

// TestHostileOCSP: every way in which an answer, its sender or the way to it can be wrong ends in "not established".
func TestHostileOCSP(t *testing.T) {
	signedBy := func(f func(t *testing.T, w *world, issuer *authority) (crypto.Signer, *x509.Certificate)) func(*testing.T, *world) {
		return func(t *testing.T, w *world) {
			w.ocsp.signer = func(issuer *authority) (crypto.Signer, *x509.Certificate) { return f(t, w, issuer) }
		}
	}
	spoiled := func(f func(w *world, a *answer)) func(*testing.T, *world) {
		return func(_ *testing.T, w *world) { w.ocsp.tweak = func(a *answer) { f(w, a) } }
	}
	served := func(h http.HandlerFunc) func(*testing.T, *world) {
		return func(_ *testing.T, w *world) { w.ocsp.before = h }
	}
	for _, tc := range []struct {
		name   string
		spoil  func(*testing.T, *world)
		cert   func(*world, *x509.Certificate)
		failed verifier.StatusFailure // empty: good
		retry  int
	}{
		{"issuer itself", func(*testing.T, *world) {}, nil, "", 0},
		{"delegate", signedBy(func(t *testing.T, _ *world, i *authority) (crypto.Signer, *x509.Certificate) { return delegate(t, i) }), nil, "", 0},
		{"answer without nextUpdate", spoiled(func(_ *world, a *answer) { a.nextUpdate = time.Time{} }), nil, "", 0},
		{"delegate of the other generation", signedBy(func(t *testing.T, w *world, _ *authority) (crypto.Signer, *x509.Certificate) {
			return delegate(t, w.sign[0])
		}), nil, verifier.ResponderWrong, 30},
		{"delegate of the other authority", signedBy(func(t *testing.T, w *world, _ *authority) (crypto.Signer, *x509.Certificate) {
			return delegate(t, w.auth[1])
		}), nil, verifier.ResponderWrong, 30},
		{"other generation itself", signedBy(func(_ *testing.T, w *world, _ *authority) (crypto.Signer, *x509.Certificate) {
			return w.sign[0].key, w.sign[0].cert
		}), nil, verifier.ResponderWrong, 30},
		{"delegate without extended key usage", signedBy(func(t *testing.T, _ *world, i *authority) (crypto.Signer, *x509.Certificate) {
			return delegate(t, i, func(c *x509.Certificate) { c.ExtKeyUsage = nil })
		}), nil, verifier.ResponderWrong, 30},
		{"delegate for any usage", signedBy(func(t *testing.T, _ *world, i *authority) (crypto.Signer, *x509.Certificate) {
			return delegate(t, i, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} })
		}), nil, verifier.ResponderWrong, 30},
		{"delegate without nocheck", signedBy(func(t *testing.T, _ *world, i *authority) (crypto.Signer, *x509.Certificate) {
			return delegate(t, i, func(c *x509.Certificate) { c.ExtraExtensions = nil })
		}), nil, verifier.ResponderWrong, 30},
		{"delegate expired", signedBy(func(t *testing.T, _ *world, i *authority) (crypto.Signer, *x509.Certificate) {
			return delegate(t, i, func(c *x509.Certificate) { c.NotBefore, c.NotAfter = t0.Add(-2*time.Hour), t0.Add(-time.Hour) })
		}), nil, verifier.ResponderWrong, 30},
		{"a holder's certificate signs", signedBy(func(t *testing.T, w *world, i *authority) (crypto.Signer, *x509.Certificate) {
			l := w.issue(t, i, ecKey(elliptic.P256()), likeSign)
			return l.key, must(x509.ParseCertificate(l.der))
		}), nil, verifier.ResponderWrong, 30},
		{"stranger", signedBy(func(t *testing.T, _ *world, _ *authority) (crypto.Signer, *x509.Certificate) {
			a := newAuthority(t, "sign", ecKey(elliptic.P256()), t0)
			return a.key, a.cert
		}), nil, verifier.ResponderWrong, 30},
		{"produced in the future", spoiled(func(w *world, a *answer) { a.producedAt = w.now.Add(time.Hour) }), nil, verifier.ResponderWrong, 30},
		{"another serial", spoiled(func(_ *world, a *answer) { a.serial = new(big.Int).Add(a.serial, big.NewInt(1)) }), nil, verifier.OtherCertificate, 30},
		{"another issuer's key", spoiled(func(w *world, a *answer) { a.keyHash = sha256sum(keyBits(w.auth[0].cert)) }), nil, verifier.OtherCertificate, 30},
		{"another issuer's name", spoiled(func(w *world, a *answer) { a.nameHash = sha256sum(w.auth[0].cert.RawSubject) }), nil, verifier.OtherCertificate, 30},
		{"no nonce", spoiled(func(_ *world, a *answer) { a.nonce = nil }), nil, verifier.NonceWrong, 30},
		{"another nonce", spoiled(func(_ *world, a *answer) { a.nonce = append([]byte{a.nonce[0] ^ 1}, a.nonce[1:]...) }), nil, verifier.NonceWrong, 30},
		{"nonce cut short", spoiled(func(_ *world, a *answer) { a.nonce = a.nonce[:16] }), nil, verifier.NonceWrong, 30},
		{"no longer valid", spoiled(func(w *world, a *answer) {
			a.thisUpdate, a.nextUpdate = w.now.Add(-50*time.Minute), w.now.Add(-2*time.Minute)
		}), nil, verifier.AnswerNotCurrent, 30},
		{"older than the policy accepts", spoiled(func(w *world, a *answer) {
			a.thisUpdate, a.nextUpdate = w.now.Add(-2*time.Hour), w.now.Add(22*time.Hour)
		}), nil, verifier.AnswerNotCurrent, 30},
		{"older than anybody accepts", spoiled(func(w *world, a *answer) {
			a.thisUpdate, a.nextUpdate = w.now.AddDate(0, -1, 0), w.now.AddDate(0, 1, 0)
		}), nil, verifier.AnswerNotCurrent, 30},
		{"of the future", spoiled(func(w *world, a *answer) { a.thisUpdate = w.now.Add(10 * time.Minute) }), nil, verifier.AnswerNotCurrent, 30},
		{"tryLater", spoiled(func(_ *world, a *answer) { a.outer = 3 }), nil, verifier.SourceRefused, 30},
		{"unauthorized", spoiled(func(_ *world, a *answer) { a.outer = 6 }), nil, verifier.SourceRefused, 30},
		{"HTTP 500", served(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }), nil, verifier.HTTPFailure, 30},
		{"HTTP 503 with a hint", served(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(503)
		}), nil, verifier.HTTPFailure, 7},
		{"HTTP 503 with an absurd hint", served(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "9999999999")
			w.WriteHeader(503)
		}), nil, verifier.HTTPFailure, 3600},
		{"web page", served(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) }), nil, verifier.HTTPFailure, 30},
		{"not DER", served(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/ocsp-response")
			_, _ = w.Write([]byte("no"))
		}), nil, verifier.AnswerMalformed, 30},
		{"oversized", served(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/ocsp-response")
			_, _ = w.Write(make([]byte, 64<<10+1))
		}), nil, verifier.AnswerTooLarge, 30},
		{"connection cut", served(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/ocsp-response")
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte("half"))
		}), nil, verifier.Unreachable, 30},
		{"nobody there", func(_ *testing.T, w *world) { w.ocsp.server.Close() }, nil, verifier.Unreachable, 30},
		{"certificate names no source", func(*testing.T, *world) {}, func(_ *world, c *x509.Certificate) { c.OCSPServer = nil }, verifier.NoSource, 30},
		{"certificate names another host", func(*testing.T, *world) {}, func(_ *world, c *x509.Certificate) {
			c.OCSPServer = []string{"http://169.254.169.254/latest", "file:///etc/passwd", "http://user@127.0.0.1/", "ldap://x", "::"}
		}, verifier.SourceNotAllowed, 30},
		{"certificate names the host with a user", func(*testing.T, *world) {}, func(w *world, c *x509.Certificate) {
			c.OCSPServer = []string{strings.Replace(w.ocsp.server.URL, "http://", "http://x@", 1)}
		}, verifier.SourceNotAllowed, 30},
		{"certificate names the allowed host second", func(*testing.T, *world) {}, func(w *world, c *x509.Certificate) {
			c.OCSPServer = []string{"http://example.com", w.ocsp.server.URL + "/x"}
		}, "", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			l := w.signCert(t, func(c *x509.Certificate) {
				if tc.cert != nil {
					tc.cert(w, c)
				}
			})
			tc.spoil(t, w)
			res, err := w.verifier(t).Signature(t.Context(), l.input(t))
			if err != nil {
				t.Fatal(err)
			}
			if res.OK() != (tc.failed == "") || res.StatusFailure != tc.failed || res.RetryAfter != tc.retry {
				t.Errorf("code %s, failure %q, want %q; retry %d: %+v", res.Code, res.StatusFailure, tc.failed, res.RetryAfter, res.Checks)
			}
			if tc.failed != "" && (res.Code != verifier.StatusNotEstablished || res.SubIndication != verifier.SubTryLater || res.Attributes != nil) {
				t.Errorf("verdict %s/%s, attributes handed out %t", res.Code, res.SubIndication, res.Attributes != nil)
			}
		})
	}
}

func TestOCSPFollowsNoRedirect(t *testing.T) {
	w := newWorld(t)
	l := w.signCert(t)
	elsewhere := newWorld(t)
	elsewhere.sign, elsewhere.auth = w.sign, w.auth // would answer rightly
	for _, code := range []int{301, 302, 303, 307, 308} {
		w.ocsp.before = func(rw http.ResponseWriter, r *http.Request) { http.Redirect(rw, r, elsewhere.ocsp.server.URL, code) }
		v := w.verifier(t, func(c *verifier.Config) {
			c.Revocation = w.checker(t, func(c *verifier.OCSPConfig) {
				c.Client = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return nil }} // not heeded
			})
		})
		res, err := v.Signature(t.Context(), l.input(t))
		if err != nil || res.StatusFailure != verifier.Redirected {
			t.Errorf("%d: %v %+v", code, err, res)
		}
	}
	if elsewhere.ocsp.asked != 0 {
		t.Error("followed")
	}
}

// TestOCSPSlow: the caller's deadline and our own both end the wait.
func TestOCSPSlow(t *testing.T) {
	for _, who := range []string{"caller", "own timeout", "client"} {
		t.Run(who, func(t *testing.T) {
			w := newWorld(t)
			release := make(chan struct{})
			w.ocsp.before = func(http.ResponseWriter, *http.Request) { <-release }
			t.Cleanup(func() { close(release) })
			ctx := t.Context()
			short := func(c *verifier.OCSPConfig) {}
			switch who {
			case "caller":
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, 20*time.Millisecond)
				defer cancel()
			case "own timeout":
				short = func(c *verifier.OCSPConfig) { c.Timeout = 20 * time.Millisecond }
			case "client":
				short = func(c *verifier.OCSPConfig) { c.Client = &http.Client{Timeout: 20 * time.Millisecond} }
			}
			v := w.verifier(t, func(c *verifier.Config) { c.Revocation = w.checker(t, short) })
			res, err := v.Signature(ctx, w.signCert(t).input(t))
			if err != nil || res.StatusFailure != verifier.TimedOut {
				t.Errorf("%v %+v", err, res)
			}
		})
	}
}

func TestOCSPSources(t *testing.T) {
	w := newWorld(t)
	base := w.ocsp.server.URL
	for _, tc := range []struct {
		name, url string
		allowed   []string
		aia       string
		ok        bool
	}{
		{"origin", "", []string{base}, base + "/any/path", true},
		{"exact", "", []string{base + "/ocsp"}, base + "/ocsp", true},
		{"below exact", "", []string{base + "/ocsp"}, base + "/ocsp/x", false},
		{"scheme in capitals", "", []string{strings.ToUpper(base[:4]) + base[4:]}, base + "/ocsp", true},
		{"with query", "", []string{base}, base + "/ocsp?to=http://elsewhere", false},
		{"origin as prefix of another", "", []string{base}, base + "1/ocsp", false},
		{"https instead", "", []string{strings.Replace(base, "http:", "https:", 1)}, base + "/ocsp", false},
		{"override", base, nil, "http://elsewhere.example/", true},
	} {
		o := w.checker(t, func(c *verifier.OCSPConfig) { c.URL, c.Allowed = tc.url, tc.allowed })
		l := w.signCert(t, func(c *x509.Certificate) { c.OCSPServer = []string{tc.aia} })
		_, err := o.Check(t.Context(), must(x509.ParseCertificate(l.der)), w.sign[1].cert, t0)
		if (err == nil) != tc.ok {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}

func TestNewOCSPRefuses(t *testing.T) {
	good := verifier.OCSPConfig{URL: "http://ocsp.example", Now: time.Now, Rand: rand.Reader}
	if _, err := verifier.NewOCSP(good); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*verifier.OCSPConfig){
		"Now": func(c *verifier.OCSPConfig) { c.Now = nil }, "Rand": func(c *verifier.OCSPConfig) { c.Rand = nil },
		"URL or Allowed": func(c *verifier.OCSPConfig) { c.URL = "" }, "URL: ": func(c *verifier.OCSPConfig) { c.URL = "ftp://x" },
		"Allowed: ": func(c *verifier.OCSPConfig) { c.Allowed = []string{"ocsp.example"} }, "Hash": func(c *verifier.OCSPConfig) { c.Hash = crypto.MD5 },
		"Skew": func(c *verifier.OCSPConfig) { c.Skew = time.Hour }, "Timeout": func(c *verifier.OCSPConfig) { c.Timeout = -1 },
	} {
		cfg := good
		spoil(&cfg)
		if _, err := verifier.NewOCSP(cfg); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// openssl runs the tool and returns its output; a test that needs it fails without it when JPKI_TEST_REQUIRE is 1.
func openssl(t *testing.T, args ...string) []byte {
	t.Helper()
	path, err := exec.LookPath("openssl")
	if err != nil {
		if os.Getenv("JPKI_TEST_REQUIRE") == "1" {
			t.Fatal("openssl is required and not on PATH")
		}
		t.Skip("openssl is not on PATH")
	}
	var stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Errorf("openssl %s: %v\n%s", args[0], err, stderr.Bytes())
	}
	return out
}

func writePEM(t *testing.T, file, typ string, der []byte) string {
	t.Helper()
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestOpenSSLResponder: a responder that nobody here wrote answers our requests, and its answers are believed.
func TestOpenSSLResponder(t *testing.T) {
	w := newWorld(t)
	w.now = time.Now() // the tool has no other clock
	dir := t.TempDir()
	key, cert := delegate(t, w.sign[1], func(c *x509.Certificate) { c.NotBefore, c.NotAfter = w.now.Add(-time.Hour), w.now.Add(time.Hour) })
	ca := writePEM(t, filepath.Join(dir, "ca.pem"), "CERTIFICATE", w.sign[1].cert.Raw)
	rsigner := writePEM(t, filepath.Join(dir, "responder.pem"), "CERTIFICATE", cert.Raw)
	rkey := writePEM(t, filepath.Join(dir, "responder.key"), "PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(key)))
	index := filepath.Join(dir, "index.txt")

	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		var body bytes.Buffer
		_, _ = body.ReadFrom(r.Body)
		req, resp := filepath.Join(dir, "req.der"), filepath.Join(dir, "resp.der")
		_ = os.WriteFile(req, body.Bytes(), 0o600)
		openssl(t, "ocsp", "-index", index, "-CA", ca, "-rsigner", rsigner, "-rkey", rkey, "-reqin", req, "-respout", resp, "-nmin", "5")
		rw.Header().Set("Content-Type", "application/ocsp-response")
		der, _ := os.ReadFile(resp)
		_, _ = rw.Write(der)
	}))
	t.Cleanup(server.Close)
	openssl(t, "version") // skips here, not within the server

	validity := func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter, c.OCSPServer = w.now.Add(-2*time.Hour), w.now.AddDate(1, 0, 0), []string{server.URL}
	}
	revokedAt := w.now.Add(-time.Hour).UTC()
	for _, hash := range []crypto.Hash{crypto.SHA256, crypto.SHA1} {
		for _, tc := range []struct {
			entry string // of the tool's index: status, expiry, revocation, serial
			code  verifier.Code
		}{
			{"V\t301231235959Z\t\t%s\tunknown\t/CN=x\n", verifier.OK},
			{"R\t301231235959Z\t" + revokedAt.Format("060102150405Z") + ",affiliationChanged\t%s\tunknown\t/CN=x\n", verifier.RevokedAttributesChanged},
			{"R\t301231235959Z\t" + revokedAt.Format("060102150405Z") + ",certificateHold\t%s\tunknown\t/CN=x\n", verifier.Suspended},
			{"V\t301231235959Z\t\t01%s\tunknown\t/CN=x\n", verifier.CertificateUnknown},
		} {
			l := w.signCert(t, validity)
			serial := must(jpki.SerialFromBig(must(x509.ParseCertificate(l.der)).SerialNumber))
			if err := os.WriteFile(index, fmt.Appendf(nil, tc.entry, serial), 0o600); err != nil {
				t.Fatal(err)
			}
			v := w.verifier(t, func(c *verifier.Config) {
				c.Revocation = w.checker(t, func(o *verifier.OCSPConfig) { o.Allowed, o.Hash = []string{server.URL}, hash })
			})
			w.now = time.Now()
			res, err := v.Signature(t.Context(), l.input(t))
			if err != nil || res.Code != tc.code {
				t.Errorf("%s, %s: %v %s %+v", hash, tc.code, err, res.Code, res.Checks)
			}
		}
	}
}
