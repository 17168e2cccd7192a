package api_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"math/big"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ocsp"
	"github.com/openjpki/jpki/verifier"
)

// good is an authority that issued every certificate.
type good struct{ since time.Time }

func (g good) Status(context.Context, jpki.CertID) (jpki.Status, time.Time, error) {
	return jpki.Status{State: jpki.Good, Since: g.since}, g.since, nil
}

// TestReevaluateSignature: a signature over a digest is judged anew from what was kept, a year later and with nobody to ask.
func TestReevaluateSignature(t *testing.T) {
	b := newBench(t)
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(77), Subject: pkix.Name{CommonName: "responder"}, NotBefore: t0.Add(-time.Hour), NotAfter: t0.AddDate(0, 1, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning},
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 5}, Value: []byte{5, 0}}},
	}
	delegate := must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, tmpl, b.anchor, key.Public(), b.key))))
	responder, err := ocsp.New(ocsp.Config{
		Delegates: []ocsp.Delegate{{Issuer: jpki.IssuerID{CA: jpki.SignCA, Generation: 1}, IssuerCertificate: b.anchor, Certificate: delegate, Key: key}},
		Statuses:  good{t0}, Now: func() time.Time { return b.now },
	})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(responder)
	defer server.Close()
	b.source = must(verifier.NewOCSP(verifier.OCSPConfig{URL: server.URL, Now: func() time.Time { return b.now }, Rand: rand.Reader}))
	first := b.send("POST", "/v1/verifications", with("store_attributes", true)(b))
	bare := b.result(b.send("POST", "/v1/verifications", b.signed()))
	b.source = nil
	unproven := b.result(b.send("POST", "/v1/verifications", with("store_attributes", true)(b)))
	b.check = func() (verifier.Revocation, error) {
		t.Error("somebody was asked")
		return verifier.Revocation{}, jpki.Unavailable
	}
	b.now = t0.AddDate(1, 0, 0)

	was := b.result(first)
	if !was.OK() {
		t.Fatalf("%+v", was)
	}
	again := func(id, policy string) answer {
		return b.send("POST", "/v1/evidence/"+id+"/reevaluations", object{"policy": policy})
	}
	a := again(was.ID, "jpki-signature")
	got := b.result(a)
	if !got.OK() || got.ID != was.ID || !got.ValidationTime.Equal(was.ValidationTime) || got.Revocation == nil || !bytes.Equal(got.Revocation.Evidence, was.Revocation.Evidence) ||
		got.Attributes == nil || *got.Attributes != *was.Attributes {
		t.Errorf("%+v", got)
	}
	if got := b.result(again(unproven.ID, "jpki-signature")); got.OK() || got.Code != verifier.StatusNotEstablished || got.Attributes != nil {
		t.Errorf("without proof: %+v", got)
	}
	b.wantProblem(again(bare.ID, "jpki-signature"), jpki.EvidenceNotKept)
	for _, policy := range []string{"rfc5280", "sandbox-authentication-2026", ""} {
		b.wantProblem(again(was.ID, policy), jpki.Malformed)
	}
	uses, err := b.store.Uses(t.Context(), must(hex.DecodeString(was.Signer.SHA256)), 10)
	if err != nil || len(uses) != 2 || uses[0].Action != "reevaluation" && uses[1].Action != "reevaluation" {
		t.Errorf("%v %+v", err, uses)
	}
}
