package conformance_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ocsp"
	"github.com/openjpki/jpki/ocsp/conformance"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// A world is an authority with four certificates and a delegate.
type world struct {
	issuer, delegate                  *x509.Certificate
	issuerKey, delegateKey            *ecdsa.PrivateKey
	good, revoked, suspended, unknown jpki.Serial
}

func newKey() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) }

func newSerial() jpki.Serial { return must(jpki.NewSerial(rand.Reader)) }

var noCheck = pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 5}, Value: []byte{5, 0}}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{issuerKey: newKey(), delegateKey: newKey(), good: newSerial(), revoked: newSerial(), suspended: newSerial(), unknown: newSerial()}
	w.issuer = w.sign(&x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{Country: []string{"JP"}, Organization: []string{"JPKI-TEST"}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(48 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, w.issuerKey)
	w.delegate = w.sign(w.delegateTemplate(), w.delegateKey)
	return w
}

func (w *world) delegateTemplate() *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{Country: []string{"JP"}, CommonName: "OCSP responder"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}, ExtraExtensions: []pkix.Extension{noCheck}, BasicConstraintsValid: true,
	}
}

// sign certifies a key; the first certificate is the authority's own.
func (w *world) sign(tmpl *x509.Certificate, key crypto.Signer) *x509.Certificate {
	parent := w.issuer
	if parent == nil {
		parent = tmpl
	}
	return must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, tmpl, parent, key.Public(), w.issuerKey))))
}

// Status makes a world the source of its responder's statuses.
func (w *world) Status(_ context.Context, id jpki.CertID) (jpki.Status, time.Time, error) {
	now := time.Now()
	st, ok := map[jpki.Serial]jpki.Status{
		w.good:      {State: jpki.Good, Since: now.Add(-time.Hour), Version: 1},
		w.revoked:   {State: jpki.Revoked, Reason: jpki.AffiliationChanged, Since: now.Add(-time.Minute).Truncate(time.Second), Version: 2},
		w.suspended: {State: jpki.Suspended, Reason: jpki.CertificateHold, Since: now.Add(-time.Minute).Truncate(time.Second), Version: 2},
	}[id.Serial]
	if !ok {
		return st, now, jpki.UnknownCertificate
	}
	return st, now, nil
}

func (w *world) responder(t testing.TB, change func(*ocsp.Config)) *ocsp.Responder {
	t.Helper()
	cfg := ocsp.Config{
		Delegates: []ocsp.Delegate{{Issuer: jpki.IssuerID{CA: jpki.SignCA, Generation: 1}, IssuerCertificate: w.issuer, Certificate: w.delegate, Key: w.delegateKey}},
		Statuses:  w, Now: time.Now, Prefix: "/ocsp",
	}
	if change != nil {
		change(&cfg)
	}
	r, err := ocsp.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// serve starts a server whose handler sees every path; the URL is the responder's.
func serve(t testing.TB, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL + "/ocsp"
}

func (w *world) config(url string) conformance.Config {
	return conformance.Config{
		URL: url, Issuer: w.issuer, Good: w.good, Revoked: w.revoked, Suspended: w.suspended, Unknown: w.unknown, Now: time.Now, Rand: rand.Reader,
	}
}

// run asks a responder and returns what failed and what did not apply, by case.
func run(t testing.TB, cfg conformance.Config) (failed, inapplicable map[string]string) {
	t.Helper()
	kit, err := conformance.New()
	if err != nil {
		t.Fatal(err)
	}
	results, err := kit.Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	failed, inapplicable = map[string]string{}, map[string]string{}
	for _, r := range results {
		switch r.Verdict {
		case conformance.Fail:
			failed[r.ID] = r.Level + ": " + r.Why
		case conformance.NotApplicable:
			inapplicable[r.ID] = r.Why
		}
	}
	return failed, inapplicable
}

// ask has a sound responder answer a request.
func ask(w *world, t testing.TB, der []byte) []byte {
	rec := httptest.NewRecorder()
	req := httptest.NewRequest(http.MethodPost, "/ocsp", bytes.NewReader(der))
	req.Header.Set("Content-Type", "application/ocsp-request")
	w.responder(t, nil).ServeHTTP(rec, req)
	return rec.Body.Bytes()
}
