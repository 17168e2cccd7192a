package verifier_test

import (
	"context"
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"slices"
	"testing"
	"time"

	"github.com/openjpki/jpki/verifier"
)

// A stranger is a checker of somebody else's: it hands on what another one found, and no more.
type stranger struct {
	verifier.StatusChecker
	spoil func(*verifier.Revocation)
}

func (s stranger) Check(ctx context.Context, leaf, issuer *x509.Certificate, at time.Time) (verifier.Revocation, error) {
	r, err := s.StatusChecker.Check(ctx, leaf, issuer, at)
	out := verifier.Revocation{
		State: r.State, Reason: r.Reason, RevokedAt: r.RevokedAt, Source: r.Source, ThisUpdate: r.ThisUpdate, NextUpdate: r.NextUpdate,
		CheckedAt: r.CheckedAt, Evidence: r.Evidence, Format: r.Format,
	}
	if s.spoil != nil {
		s.spoil(&out)
	}
	return out, err
}

// TestAnswersByPolicy: what an OCSP answer and its responder's certificate are signed with is held against the policy, as of when it was got.
func TestAnswersByPolicy(t *testing.T) {
	w := newWorld(t)
	input := w.signCert(t).input(t)
	by := func(curve elliptic.Curve) func(*authority) (crypto.Signer, *x509.Certificate) {
		return func(i *authority) (crypto.Signer, *x509.Certificate) {
			key := ecKey(curve)
			_, cert := delegate(t, i)
			return key, recertified(t, i, cert, key)
		}
	}
	without := func(key string) func(*verifier.Policy) {
		return func(p *verifier.Policy) {
			p.Algorithms = slices.DeleteFunc(p.Algorithms, func(a verifier.Algorithm) bool { return a.Key == key })
		}
	}
	until := func(key string, at time.Time) func(*verifier.Policy) {
		return func(p *verifier.Policy) {
			for i := range p.Algorithms {
				if p.Algorithms[i].Key == key {
					p.Algorithms[i].Until = at
				}
			}
		}
	}
	past := t0.Add(-40 * time.Minute)
	for _, r := range []struct {
		name   string
		signer func(*authority) (crypto.Signer, *x509.Certificate)
		policy func(*verifier.Policy)
		at     time.Time
		spoil  func(*verifier.Revocation)
		failed verifier.StatusFailure // good if empty
	}{
		{name: "issuer itself"},
		{name: "delegate of an admitted kind", signer: by(elliptic.P384())},
		{name: "delegate of a kind that is not admitted", signer: by(elliptic.P384()), policy: without("p384"), failed: verifier.AnswerWeak},
		{name: "delegate of a kind that is relied upon for a while yet", signer: by(elliptic.P384()), policy: until("p384", t0.Add(time.Minute))},
		{name: "delegate of a kind that is not relied upon any more", signer: by(elliptic.P384()), policy: until("p384", t0.Add(-time.Minute)), failed: verifier.AnswerWeak},
		{name: "about the past, answered now", at: past, policy: until("p256", t0.Add(time.Minute))},
		{name: "about the past, answered when the issuer's kind is not relied upon any more", at: past, policy: until("p256", t0.Add(-time.Minute)), failed: verifier.AnswerWeak},
		{name: "likewise under the delegate's certificate", signer: by(elliptic.P384()), at: past, policy: until("p256", t0.Add(-time.Minute)), failed: verifier.AnswerWeak},
		{name: "got while it was relied upon", at: past, policy: until("p256", t0.Add(-time.Minute)), spoil: func(r *verifier.Revocation) { r.CheckedAt = t0.Add(-2 * time.Minute) }},
		{name: "said to be got in the future", at: past, policy: until("p256", t0.Add(-time.Minute)), spoil: func(r *verifier.Revocation) { r.CheckedAt = t0.Add(time.Hour) }, failed: verifier.AnswerWeak},
		{name: "proof that is none", spoil: func(r *verifier.Revocation) { r.Evidence = r.Evidence[1:] }, failed: verifier.AnswerMalformed},
		{name: "proof with another signature", spoil: func(r *verifier.Revocation) { r.Evidence[len(r.Evidence)-1] ^= 1 }, failed: verifier.AnswerMalformed},
		{name: "no proof", spoil: func(r *verifier.Revocation) { r.Evidence = nil }, failed: verifier.AnswerMalformed},
		{name: "a proof of another form, which its checker judged", spoil: func(r *verifier.Revocation) { r.Evidence, r.Format = []byte("x"), "text/plain" }},
	} {
		for _, own := range []bool{true, false} {
			if own && r.spoil != nil {
				continue
			}
			w.ocsp.signer = r.signer
			v := w.verifier(t, func(c *verifier.Config) {
				c.Policies = slices.Clone(c.Policies)
				for i := range c.Policies {
					if c.Policies[i].Algorithms = slices.Clone(c.Policies[i].Algorithms); r.policy != nil {
						r.policy(&c.Policies[i])
					}
				}
				if !own {
					c.Revocation = stranger{c.Revocation, r.spoil}
				}
			})
			in := input
			in.At = r.at
			res, err := v.Signature(t.Context(), in)
			if err != nil || res.OK() != (r.failed == "") || res.StatusFailure != r.failed {
				t.Errorf("%s, our checker %t: %v %s %q, want %q: %+v", r.name, own, err, res.Code, res.StatusFailure, r.failed, res.Cause)
			}
		}
	}
}

// recertified is a certificate of the same content for another key.
func recertified(t *testing.T, by *authority, like *x509.Certificate, key crypto.Signer) *x509.Certificate {
	t.Helper()
	tmpl := *like
	tmpl.SignatureAlgorithm, tmpl.ExtraExtensions = 0, []pkix.Extension{{Id: oid("1.3.6.1.5.5.7.48.1.5"), Value: []byte{5, 0}}}
	der, err := x509.CreateCertificate(rand.Reader, &tmpl, by.cert, key.Public(), by.key)
	if err != nil {
		t.Fatal(err)
	}
	return must(x509.ParseCertificate(der))
}
