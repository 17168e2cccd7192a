package api_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/ceremony"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/ocsp"
	"github.com/openjpki/jpki/ocsp/status"
	"github.com/openjpki/jpki/verifier"
)

// Two generations under one name, RSA and P-384: the bank's verifier and OpenSSL accept certificates of both, and each is
// answered for by the delegate of its own generation.
func TestRelyingPartiesFollowARollOver(t *testing.T) {
	w := newWorld(t)
	system := jpki.Actor{Role: jpki.System, ID: "ceremony"}
	next := ca.Issuer{ID: jpki.IssuerID{CA: jpki.SignCA, Generation: 2}, Signer: must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))}
	next.Certificate = must(ca.SelfSigned(ca.Sandbox(), jpki.SignCA, next.Signer, must(jpki.NewSerial(rand.Reader)), time.Now()))
	var first ca.Issuer
	if err := w.db.View(t.Context(), func(tx *store.Tx) error {
		for _, g := range must(tx.Generations()) {
			if g.Issuer.CA == jpki.SignCA {
				first = ca.Issuer{ID: g.Issuer, Certificate: must(x509.ParseCertificate(g.Certificate)), Signer: caKeys()[0]}
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}

	// The station's side: one certificate before, one after.
	before := w.signFor(t, "h1", "card-1")
	if err := w.authority.AddGeneration(t.Context(), system, next); err != nil {
		t.Fatal(err)
	}
	if err := w.authority.Activate(t.Context(), system, next); err != nil {
		t.Fatal(err)
	}
	if _, err := w.as(w.register).ReportEvent(t.Context(), registered("h2", "99101")); err != nil {
		t.Fatal(err)
	}
	after := w.signFor(t, "h2", "card-2")
	if before.SignatureAlgorithm != x509.SHA256WithRSA || after.SignatureAlgorithm != x509.ECDSAWithSHA384 || before.Issuer.String() != after.Issuer.String() {
		t.Fatalf("signed with %v by %s and %v by %s", before.SignatureAlgorithm, before.Issuer, after.SignatureAlgorithm, after.Issuer)
	}

	// The status zone's side: a delegate for each generation.
	var delegates []ocsp.Delegate
	for _, i := range []ca.Issuer{first, next} {
		key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
		cert := must(must(ceremony.NewSigner(i.Certificate, i.Signer, time.Now)).Responder(key, i.ID))
		delegates = append(delegates, ocsp.Delegate{Issuer: i.ID, IssuerCertificate: i.Certificate, Certificate: cert, Key: key})
	}
	index := must(status.New(status.Config{Log: w.db, Now: time.Now}))
	responder := must(ocsp.New(ocsp.Config{Delegates: delegates, Statuses: index, Now: time.Now, Prefix: "/ocsp"}))
	server := httptest.NewServer(responder.Before(http.NotFoundHandler()))
	t.Cleanup(server.Close)

	// The bank's side.
	anchors := []*x509.Certificate{first.Certificate, next.Certificate}
	checker := must(verifier.NewOCSP(verifier.OCSPConfig{URL: server.URL + "/ocsp", Now: time.Now, Rand: rand.Reader}))
	bank := must(verifier.New(verifier.Config{Anchors: anchors, Policies: []verifier.Policy{verifier.SandboxPolicies()[0].WithIssuers(anchors...)}, Revocation: checker, Now: time.Now, Rand: rand.Reader}))
	late := must(verifier.New(verifier.Config{Anchors: anchors[:1], Policies: []verifier.Policy{verifier.SandboxPolicies()[0].WithIssuers(anchors[0])}, Revocation: checker, Now: time.Now, Rand: rand.Reader}))
	for i, cert := range []*x509.Certificate{before, after} {
		if r, err := bank.CertificateStatus(t.Context(), cert.Raw); err != nil || !r.OK() {
			t.Errorf("generation %d: %+v %v", i+1, r, err)
		}
		if r, err := late.CertificateStatus(t.Context(), cert.Raw); err != nil || r.OK() != (i == 0) {
			t.Errorf("generation %d, at a bank that knows the first only: %+v %v", i+1, r, err)
		}
		out := openssl(t, "ocsp", "-issuer", pemFile(t, anchors[i]), "-cert", pemFile(t, cert), "-url", server.URL+"/ocsp", "-CAfile", pemFile(t, anchors[i]), "-resp_text")
		if !strings.Contains(out, ": good") || !strings.Contains(out, "OCSP responder of "+delegates[i].Issuer.String()) {
			t.Errorf("generation %d: OpenSSL says\n%s", i+1, out)
		}
		openssl(t, "verify", "-CAfile", pemFile(t, anchors...), pemFile(t, cert))
	}
}

// signFor has a card signature certificate made.
func (w *world) signFor(t *testing.T, holder, token string) *x509.Certificate {
	t.Helper()
	key := crypto.Signer(must(rsa.GenerateKey(rand.Reader, 2048)))
	csr := must(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key))
	got, err := w.authority.Issue(t.Context(), jpki.Actor{Role: jpki.Counter, ID: "aoba-1", Municipality: "99101"},
		ca.IssueRequest{IdempotencyKey: rand.Text(), Holder: holder, Token: token, Requests: []ca.KeyRequest{{Kind: jpki.CardSign, Request: csr}}})
	if err != nil {
		t.Fatal(err)
	}
	return must(x509.ParseCertificate(got[0].Certificate))
}

func pemFile(t *testing.T, certs ...*x509.Certificate) string {
	t.Helper()
	var text []byte
	for _, c := range certs {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	file := filepath.Join(t.TempDir(), "certificates.pem")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func openssl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "openssl", args...).CombinedOutput()
	if err != nil {
		t.Errorf("openssl %v: %v\n%s", args, err, out)
	}
	return string(out)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
