package verifier_test

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"math/big"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ocsp"
	"github.com/openjpki/jpki/verifier"
)

// statuses holds what an authority would: every certificate it issued.
type statuses map[jpki.CertID]jpki.Status

func (s statuses) Status(_ context.Context, id jpki.CertID) (jpki.Status, time.Time, error) {
	st, ok := s[id]
	if !ok {
		return jpki.Status{}, t0, jpki.Errorf(jpki.UnknownCertificate, "never issued")
	}
	return st, t0, nil
}

// TestOurResponder: the authority's responder and the relying party's checker understand each other, state by state.
func TestOurResponder(t *testing.T) {
	w := newWorld(t)
	known := statuses{}
	var delegates []ocsp.Delegate
	for i, a := range w.sign {
		key, cert := delegate(t, a, func(c *x509.Certificate) { c.SerialNumber = big.NewInt(int64(100 + i)) })
		delegates = append(delegates, ocsp.Delegate{Issuer: jpki.IssuerID{CA: jpki.SignCA, Generation: i + 1}, IssuerCertificate: a.cert, Certificate: cert, Key: key})
	}
	r, err := ocsp.New(ocsp.Config{Delegates: delegates, Statuses: known, Now: func() time.Time { return w.now }})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	v := w.verifier(t, func(c *verifier.Config) {
		c.Revocation = must(verifier.NewOCSP(verifier.OCSPConfig{URL: server.URL, Now: c.Now, Rand: rand.Reader}))
	})
	for i, a := range w.sign {
		l := w.issue(t, a, rsaKey(), likeSign)
		id := jpki.CertID{Issuer: delegates[i].Issuer, Serial: must(jpki.SerialFromBig(must(x509.ParseCertificate(l.der)).SerialNumber))}
		since := t0.Add(-time.Hour)
		for _, step := range []struct {
			status *jpki.Status
			want   verifier.Code
		}{
			{nil, verifier.CertificateUnknown},
			{&jpki.Status{State: jpki.Good, Since: since}, verifier.OK},
			{&jpki.Status{State: jpki.Suspended, Since: since}, verifier.Suspended},
			{&jpki.Status{State: jpki.Revoked, Reason: jpki.AffiliationChanged, Since: since}, verifier.RevokedAttributesChanged},
		} {
			if step.status != nil {
				known[id] = *step.status
			}
			res, err := v.Signature(t.Context(), l.input(t))
			if err != nil || res.Code != step.want {
				t.Errorf("generation %d: %v, %s, want %s: %+v", i+1, err, res.Code, step.want, res.Checks)
			}
		}
	}
}
