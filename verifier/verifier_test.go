package verifier_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/verifier"
)

func TestSignatureGood(t *testing.T) {
	w := newWorld(t)
	v := w.verifier(t)
	in := w.signCert(t).input(t)
	res, err := v.Signature(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	if !res.OK() || res.Indication != verifier.TotalPassed || res.SubIndication != "" || res.Code != verifier.OK {
		t.Fatalf("verdict %s %s %s: %+v", res.Indication, res.SubIndication, res.Code, res.Checks)
	}
	if diff := cmp.Diff(&taro, res.Attributes); diff != "" {
		t.Error(diff)
	}
	if res.Signer.Kind != jpki.CardSign || res.Signer.IssuerKeyID != hex.EncodeToString(w.sign[1].cert.SubjectKeyId) {
		t.Errorf("signer %+v", res.Signer)
	}
	if r := res.Revocation; r.State != jpki.Good || !r.ThisUpdate.Equal(t0.Add(-10*time.Minute)) || r.Age != 600 || !r.CheckedAt.Equal(t0) ||
		r.Source != w.ocsp.server.URL+"/ocsp" || len(r.Evidence) == 0 {
		t.Errorf("revocation %+v", r)
	}
	if p := verifier.SandboxPolicies()[0]; res.Policy != (verifier.PolicyRef{Name: "jpki-signature", SHA256: p.Digest()}) {
		t.Errorf("policy %+v", res.Policy)
	}
	var ids []verifier.CheckID
	for _, c := range res.Checks {
		if !c.OK {
			t.Errorf("check %s failed in a passed result", c.ID)
		}
		ids = append(ids, c.ID)
	}
	want := []verifier.CheckID{
		verifier.CheckFormat, verifier.CheckIssuer, verifier.CheckValidity, verifier.CheckPurpose, verifier.CheckKeyUsage,
		verifier.CheckAttributes, verifier.CheckAlgorithm, verifier.CheckSignature, verifier.CheckStatus,
	}
	if diff := cmp.Diff(want, ids); diff != "" {
		t.Error(diff)
	}
	again, err := v.Signature(t.Context(), in)
	if err != nil || again.ID == res.ID || len(again.ID) != 32 {
		t.Errorf("identifiers %q and %q, %v", res.ID, again.ID, err)
	}
}

// TestVerdicts has at least one row for every code there is.
func TestVerdicts(t *testing.T) {
	type row struct {
		name string
		// make returns what is handed in; it may change the world first.
		make func(*testing.T, *world) verifier.SignatureInput
		conf func(*verifier.Config)
		code verifier.Code
		ind  verifier.Indication
		sub  verifier.SubIndication
		at   verifier.CheckID // that failed
	}
	signed := func(change func(*x509.Certificate)) func(*testing.T, *world) verifier.SignatureInput {
		return func(t *testing.T, w *world) verifier.SignatureInput { return w.signCert(t, change).input(t) }
	}
	revoked := func(reason jpki.Reason) func(*testing.T, *world) verifier.SignatureInput {
		return func(t *testing.T, w *world) verifier.SignatureInput {
			l := w.signCert(t)
			w.ocsp.statuses[l.serial()] = status{reason: reason, at: t0.Add(-time.Hour)}
			return l.input(t)
		}
	}
	const failed, unsure = verifier.TotalFailed, verifier.Indeterminate
	const format, issuer, valid, purpose = verifier.CheckFormat, verifier.CheckIssuer, verifier.CheckValidity, verifier.CheckPurpose
	constraints := verifier.SubChainConstraintsFailure
	rows := []row{
		{"not DER", func(t *testing.T, w *world) verifier.SignatureInput {
			in := w.signCert(t).input(t)
			in.Certificate = []byte("certificate")
			return in
		}, nil, verifier.MalformedCertificate, failed, verifier.SubFormatFailure, format},
		{"trailing octet", func(t *testing.T, w *world) verifier.SignatureInput {
			in := w.signCert(t).input(t)
			in.Certificate = append(in.Certificate, 0)
			return in
		}, nil, verifier.MalformedCertificate, failed, verifier.SubFormatFailure, format},
		{"larger than the limit", signed(func(c *x509.Certificate) {
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: oid("2.999.1"), Value: make([]byte, verifier.MaxCertificateBytes)})
		}), nil, verifier.MalformedCertificate, failed, verifier.SubFormatFailure, format},
		{"an extension twice", signed(func(c *x509.Certificate) {
			c.ExtraExtensions = append(c.ExtraExtensions, policiesExtension(cardSign))
		}), nil, verifier.MalformedCertificate, failed, verifier.SubFormatFailure, format},
		{"unknown critical extension", signed(func(c *x509.Certificate) {
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: oid("2.999.1"), Critical: true, Value: []byte{5, 0}})
		}), nil, verifier.UnknownCriticalExtension, unsure, verifier.SubCertificateChainGeneralFailure, format},
		{"critical extension known to crypto/x509 only", signed(func(c *x509.Certificate) {
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: oid("2.5.29.54"), Critical: true, Value: []byte{2, 1, 0}})
		}), nil, verifier.UnknownCriticalExtension, unsure, verifier.SubCertificateChainGeneralFailure, format},
		{"authority with another name", func(t *testing.T, w *world) verifier.SignatureInput {
			w.sign[1] = newAuthority(t, "nobody", ecKey(elliptic.P256()), t0)
			return w.signCert(t).input(t)
		}, func(c *verifier.Config) { c.Anchors = nil }, verifier.UntrustedIssuer, unsure, verifier.SubNoCertificateChainFound, issuer},
		{"authority with the same name", func(t *testing.T, w *world) verifier.SignatureInput {
			w.sign[1] = newAuthority(t, "sign", ecKey(elliptic.P256()), t0)
			return w.signCert(t).input(t)
		}, func(c *verifier.Config) { c.Anchors = nil }, verifier.UntrustedIssuer, unsure, verifier.SubNoCertificateChainFound, issuer},
		{"authority that claims an anchor's name and key identifier", func(t *testing.T, w *world) verifier.SignatureInput {
			impostor := *w.sign[1]
			impostor.key = ecKey(elliptic.P256())
			impostor.cert = newAuthority(t, "sign", impostor.key, t0).cert
			impostor.cert.SubjectKeyId = w.sign[1].cert.SubjectKeyId
			w.sign[1] = &impostor
			return w.signCert(t).input(t)
		}, func(c *verifier.Config) { c.Anchors = nil }, verifier.UntrustedIssuer, unsure, verifier.SubNoCertificateChainFound, issuer},
		{"no authority key identifier", func(t *testing.T, w *world) verifier.SignatureInput {
			stripped := *w.sign[1].cert
			stripped.SubjectKeyId = nil
			w.sign[1] = &authority{w.sign[1].key, &stripped}
			return w.signCert(t).input(t)
		}, func(c *verifier.Config) { c.Anchors = nil }, verifier.UntrustedIssuer, unsure, verifier.SubNoCertificateChainFound, issuer},
		{"certificate signed with RSA-PSS", func(t *testing.T, w *world) verifier.SignatureInput {
			w.sign[1] = newAuthority(t, "sign", rsaKey(), t0)
			return w.signCert(t, func(c *x509.Certificate) { c.SignatureAlgorithm = x509.SHA256WithRSAPSS }).input(t)
		}, nil, verifier.WeakAlgorithm, unsure, verifier.SubCryptoConstraintsFailure, issuer},
		{"RSA key of 1024 bits", func(t *testing.T, w *world) verifier.SignatureInput {
			key := must(rsa.GenerateKey(rand.Reader, 1024)) //nolint:gosec // weak on purpose
			return w.issue(t, w.sign[1], key, likeSign).input(t)
		}, nil, verifier.WeakAlgorithm, unsure, verifier.SubCryptoConstraintsFailure, verifier.CheckAlgorithm},
		{"key on P-521", func(t *testing.T, w *world) verifier.SignatureInput {
			return w.issue(t, w.sign[1], ecKey(elliptic.P521()), likeSign).input(t)
		}, nil, verifier.WeakAlgorithm, unsure, verifier.SubCryptoConstraintsFailure, verifier.CheckAlgorithm},
		{"RSA key with exponent 3", func(t *testing.T, w *world) verifier.SignatureInput {
			return w.issue(t, w.sign[1], oddKey{rsaKey(), &rsa.PublicKey{N: rsaKey().N, E: 3}}, likeSign).input(t)
		}, nil, verifier.WeakAlgorithm, unsure, verifier.SubCryptoConstraintsFailure, verifier.CheckAlgorithm},
		{"RSA key of 16384 bits", func(t *testing.T, w *world) verifier.SignatureInput {
			n := new(big.Int).Lsh(big.NewInt(1), 16383)
			return w.issue(t, w.sign[1], oddKey{rsaKey(), &rsa.PublicKey{N: n.Add(n, big.NewInt(1)), E: 65537}}, likeSign).input(t)
		}, nil, verifier.WeakAlgorithm, unsure, verifier.SubCryptoConstraintsFailure, verifier.CheckAlgorithm},
		{"Ed25519", func(t *testing.T, w *world) verifier.SignatureInput {
			pub, _, err := ed25519.GenerateKey(rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			return w.issue(t, w.sign[1], oddKey{rsaKey(), pub}, likeSign).input(t)
		}, nil, verifier.WeakAlgorithm, unsure, verifier.SubCryptoConstraintsFailure, verifier.CheckAlgorithm},
		{"authority on P-521", func(t *testing.T, w *world) verifier.SignatureInput {
			w.sign[1] = newAuthority(t, "sign", ecKey(elliptic.P521()), t0)
			return w.signCert(t).input(t)
		}, nil, verifier.WeakAlgorithm, unsure, verifier.SubCryptoConstraintsFailure, issuer},
		{"hash the policy leaves out", func(t *testing.T, w *world) verifier.SignatureInput { return w.signCert(t).input(t) }, func(c *verifier.Config) {
			c.Policies = verifier.SandboxPolicies()
			c.Policies[0].Algorithms = []verifier.Algorithm{{Key: "p256", Hashes: []string{"sha256"}}, {Key: "rsa", MinBits: 2048, Hashes: []string{"sha512"}}}
		}, verifier.WeakAlgorithm, unsure, verifier.SubCryptoConstraintsFailure, verifier.CheckAlgorithm},
		{"not yet valid", signed(func(c *x509.Certificate) { c.NotBefore = t0.Add(2 * time.Minute) }), nil, verifier.NotYetValid, failed, verifier.SubNotYetValid, valid},
		{"expired", signed(func(c *x509.Certificate) { c.NotAfter = t0.Add(-time.Second) }), nil, verifier.Expired, unsure, verifier.SubOutOfBoundsNoPOE, valid},
		{"anchor expired", func(t *testing.T, w *world) verifier.SignatureInput {
			w.sign[1] = newAuthority(t, "sign", ecKey(elliptic.P256()), t0.AddDate(-8, 0, 0))
			return w.signCert(t).input(t)
		}, nil, verifier.IssuerNotValid, unsure, verifier.SubCertificateChainGeneralFailure, valid},
		{"an authority's certificate", signed(func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }), nil, verifier.CACertificate, unsure, constraints, purpose},
		{"may sign certificates", signed(func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign }), nil, verifier.CACertificate, unsure, constraints, purpose},
		{
			"authentication certificate used to sign", func(t *testing.T, w *world) verifier.SignatureInput { return w.authCert(t).input(t) }, nil,
			verifier.WrongPurpose, unsure, constraints, purpose,
		},
		{"authentication certificate used to sign, anchors restricted", func(t *testing.T, w *world) verifier.SignatureInput {
			w.policies[0] = w.policies[0].WithIssuers(w.sign[0].cert, w.sign[1].cert)
			return w.authCert(t).input(t)
		}, nil, verifier.WrongPurpose, unsure, constraints, purpose},
		{"signature policy from the authentication authority", func(t *testing.T, w *world) verifier.SignatureInput {
			w.policies[0] = w.policies[0].WithIssuers(w.sign[0].cert, w.sign[1].cert)
			return w.issue(t, w.auth[1], rsaKey(), likeSign).input(t)
		}, nil, verifier.WrongIssuer, unsure, constraints, purpose},
		{
			"foreign policy", signed(func(c *x509.Certificate) { c.ExtraExtensions[0] = policiesExtension("1.2.392.200149.8.5.1.1.20") }), nil,
			verifier.WrongPolicy, unsure, constraints, purpose,
		},
		{"anyPolicy", signed(func(c *x509.Certificate) { c.ExtraExtensions[0] = policiesExtension("2.5.29.32.0") }), nil, verifier.WrongPolicy, unsure, constraints, purpose},
		{
			"both policies", signed(func(c *x509.Certificate) { c.ExtraExtensions[0] = policiesExtension(cardSign, cardAuth) }), nil,
			verifier.WrongPolicy, unsure, constraints, purpose,
		},
		{"no policy", signed(func(c *x509.Certificate) { c.ExtraExtensions = c.ExtraExtensions[1:] }), nil, verifier.WrongPolicy, unsure, constraints, purpose},
		{
			"no nonRepudiation", signed(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature }), nil,
			verifier.WrongKeyUsage, unsure, constraints, verifier.CheckKeyUsage,
		},
		{"no key usage", signed(func(c *x509.Certificate) { c.KeyUsage = 0 }), nil, verifier.WrongKeyUsage, unsure, constraints, verifier.CheckKeyUsage},
		{
			"extended key usage of another kind", signed(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }), nil,
			verifier.WrongKeyUsage, unsure, constraints, verifier.CheckKeyUsage,
		},
		{
			"no attributes", signed(func(c *x509.Certificate) { c.ExtraExtensions = c.ExtraExtensions[:1] }), nil,
			verifier.WrongAttributes, unsure, constraints, verifier.CheckAttributes,
		},
		{"attributes without address", signed(func(c *x509.Certificate) {
			a := taro
			a.Address, a.AddressSubstitutes = "", ""
			c.ExtraExtensions[1] = altNameExtension(altNames(a))
		}), nil, verifier.WrongAttributes, unsure, constraints, verifier.CheckAttributes},
		{"document changed", func(t *testing.T, w *world) verifier.SignatureInput {
			in := w.signCert(t).input(t)
			in.Digest[0] ^= 1
			return in
		}, nil, verifier.DigestMismatch, failed, verifier.SubHashFailure, verifier.CheckSignature},
		{"signature changed", func(t *testing.T, w *world) verifier.SignatureInput {
			in := w.signCert(t).input(t)
			in.Signature[100] ^= 1
			return in
		}, nil, verifier.SignatureWrong, failed, verifier.SubSigCryptoFailure, verifier.CheckSignature},
		{"signature of another holder", func(t *testing.T, w *world) verifier.SignatureInput {
			in := w.signCert(t).input(t)
			in.Certificate = w.issue(t, w.sign[1], must(rsa.GenerateKey(rand.Reader, 2048)), likeSign).der
			return in
		}, nil, verifier.SignatureWrong, failed, verifier.SubSigCryptoFailure, verifier.CheckSignature},
		{"ECDSA over another digest", func(t *testing.T, w *world) verifier.SignatureInput {
			in := w.issue(t, w.sign[1], ecKey(elliptic.P256()), likeSign).input(t)
			in.Digest[0] ^= 1
			return in
		}, nil, verifier.SignatureWrong, failed, verifier.SubSigCryptoFailure, verifier.CheckSignature},
		{"hash named wrongly", func(t *testing.T, w *world) verifier.SignatureInput {
			in := w.signCert(t).input(t)
			in.Hash, in.Digest = crypto.SHA512, append(in.Digest, in.Digest...)
			return in
		}, nil, verifier.DigestMismatch, failed, verifier.SubHashFailure, verifier.CheckSignature},
		{
			"status not checked", signed(func(*x509.Certificate) {}), func(c *verifier.Config) { c.Revocation = nil },
			verifier.StatusNotEstablished, unsure, verifier.SubTryLater, verifier.CheckStatus,
		},
		{"never issued", func(t *testing.T, w *world) verifier.SignatureInput {
			l := w.signCert(t)
			w.ocsp.statuses[l.serial()] = status{unknown: true}
			return l.input(t)
		}, nil, verifier.CertificateUnknown, unsure, verifier.SubCertificateChainGeneralFailure, verifier.CheckStatus},
		{"good, but asked after expiry", func(t *testing.T, w *world) verifier.SignatureInput {
			in := w.signCert(t, func(c *x509.Certificate) { c.NotAfter = t0.AddDate(0, 0, -1) }).input(t)
			in.At = t0.AddDate(0, 0, -30)
			return in
		}, nil, verifier.StatusAfterExpiry, unsure, verifier.SubOutOfBoundsNoPOE, verifier.CheckStatus},
		{"suspended", revoked(jpki.CertificateHold), nil, verifier.Suspended, unsure, verifier.SubTryLater, verifier.CheckStatus},
		{"discarded", revoked(jpki.Unspecified), nil, verifier.RevokedUnspecified, unsure, verifier.SubRevokedNoPOE, verifier.CheckStatus},
		{"reason nobody uses", revoked(9), nil, verifier.RevokedUnspecified, unsure, verifier.SubRevokedNoPOE, verifier.CheckStatus},
		{"key compromise", revoked(jpki.KeyCompromise), nil, verifier.RevokedKeyCompromise, unsure, verifier.SubRevokedNoPOE, verifier.CheckStatus},
		{"CA compromise", revoked(jpki.CACompromise), nil, verifier.RevokedCACompromise, unsure, verifier.SubRevokedNoPOE, verifier.CheckStatus},
		{"moved", revoked(jpki.AffiliationChanged), nil, verifier.RevokedAttributesChanged, unsure, verifier.SubRevokedNoPOE, verifier.CheckStatus},
		{"renewed", revoked(jpki.Superseded), nil, verifier.RevokedSuperseded, unsure, verifier.SubRevokedNoPOE, verifier.CheckStatus},
		{"card returned", revoked(jpki.CessationOfOperation), nil, verifier.RevokedCeased, unsure, verifier.SubRevokedNoPOE, verifier.CheckStatus},
		{"revoked by a clock ahead of ours", func(t *testing.T, w *world) verifier.SignatureInput {
			l := w.signCert(t)
			w.ocsp.statuses[l.serial()] = status{reason: jpki.Superseded, at: t0.Add(5 * time.Second)}
			return l.input(t)
		}, nil, verifier.RevokedSuperseded, unsure, verifier.SubRevokedNoPOE, verifier.CheckStatus},
		{"revoked before the time of acceptance", func(t *testing.T, w *world) verifier.SignatureInput {
			l := w.signCert(t)
			w.ocsp.statuses[l.serial()] = status{reason: jpki.AffiliationChanged, at: t0.AddDate(0, 0, -31)}
			in := l.input(t)
			in.At = t0.AddDate(0, 0, -30)
			return in
		}, nil, verifier.RevokedAttributesChanged, unsure, verifier.SubRevokedNoPOE, verifier.CheckStatus},

		{"good", signed(func(*x509.Certificate) {}), nil, verifier.OK, verifier.TotalPassed, "", ""},
		{"phone", signed(func(c *x509.Certificate) { c.ExtraExtensions[0] = policiesExtension(phoneSign) }), nil, verifier.OK, verifier.TotalPassed, "", ""},
		{"critical alternative name", signed(func(c *x509.Certificate) { c.ExtraExtensions[1].Critical = true }), nil, verifier.OK, verifier.TotalPassed, "", ""},
		{
			"older generation", func(t *testing.T, w *world) verifier.SignatureInput {
				return w.issue(t, w.sign[0], rsaKey(), likeSign).input(t)
			}, nil,
			verifier.OK, verifier.TotalPassed, "", "",
		},
		{"P-384 with SHA-384", func(t *testing.T, w *world) verifier.SignatureInput {
			l := w.issue(t, w.sign[1], ecKey(elliptic.P384()), likeSign)
			digest, sig := l.sign(t, crypto.SHA384, []byte("x"))
			return verifier.SignatureInput{Certificate: l.der, Digest: digest, Hash: crypto.SHA384, Signature: sig}
		}, nil, verifier.OK, verifier.TotalPassed, "", ""},
		{"RSA authority", func(t *testing.T, w *world) verifier.SignatureInput {
			w.sign[1] = newAuthority(t, "sign", must(rsa.GenerateKey(rand.Reader, 2048)), t0)
			w.ocsp.signer = func(*authority) (crypto.Signer, *x509.Certificate) { return delegate(t, w.sign[1]) }
			return w.signCert(t).input(t)
		}, nil, verifier.OK, verifier.TotalPassed, "", ""},
		{"issued by a clock ahead of ours", signed(func(c *x509.Certificate) { c.NotBefore = t0.Add(30 * time.Second) }), nil, verifier.OK, verifier.TotalPassed, "", ""},
		{"moved after the time of acceptance", func(t *testing.T, w *world) verifier.SignatureInput {
			l := w.signCert(t)
			w.ocsp.statuses[l.serial()] = status{reason: jpki.AffiliationChanged, at: t0.AddDate(0, 0, -29)}
			in := l.input(t)
			in.At = t0.AddDate(0, 0, -30)
			return in
		}, nil, verifier.OK, verifier.TotalPassed, "", ""},
		{"expired since, moved after the time of acceptance", func(t *testing.T, w *world) verifier.SignatureInput {
			l := w.signCert(t, func(c *x509.Certificate) { c.NotAfter = t0.AddDate(0, 0, -1) })
			w.ocsp.statuses[l.serial()] = status{reason: jpki.AffiliationChanged, at: t0.AddDate(0, 0, -29)}
			in := l.input(t)
			in.At = t0.AddDate(0, 0, -30)
			return in
		}, nil, verifier.OK, verifier.TotalPassed, "", ""},
	}
	rsaUntil := func(at time.Time) func(*verifier.Config) {
		return func(c *verifier.Config) { c.Policies[0].Algorithms[0].Until = at }
	}
	rows = append(
		rows,
		row{"algorithm relied upon until now", signed(func(*x509.Certificate) {}), rsaUntil(t0), verifier.OK, verifier.TotalPassed, "", ""},
		row{
			"algorithm relied upon until an hour ago", signed(func(*x509.Certificate) {}), rsaUntil(t0.Add(-time.Hour)),
			verifier.AlgorithmExpired, unsure, verifier.SubCryptoConstraintsFailureNoPOE, verifier.CheckAlgorithm,
		},
		row{"algorithm relied upon until an hour ago, signature recorded before", func(t *testing.T, w *world) verifier.SignatureInput {
			in := w.signCert(t).input(t)
			in.At = t0.Add(-2 * time.Hour)
			return in
		}, rsaUntil(t0.Add(-time.Hour)), verifier.OK, verifier.TotalPassed, "", ""},
		row{"the authority's algorithm relied upon until an hour ago", signed(func(*x509.Certificate) {}), func(c *verifier.Config) {
			c.Policies[0].Algorithms[1].Until = t0.Add(-time.Hour)
		}, verifier.AlgorithmExpired, unsure, verifier.SubCryptoConstraintsFailureNoPOE, issuer},
		row{"a smaller key until an hour ago, a larger one for good", signed(func(*x509.Certificate) {}), func(c *verifier.Config) {
			long := c.Policies[0].Algorithms[0]
			long.MinBits = 3072
			c.Policies[0].Algorithms = append(c.Policies[0].Algorithms, long)
			c.Policies[0].Algorithms[0].Until = t0.Add(-time.Hour)
		}, verifier.AlgorithmExpired, unsure, verifier.SubCryptoConstraintsFailureNoPOE, verifier.CheckAlgorithm},
		row{"key compromised before the time of acceptance, revoked after", func(t *testing.T, w *world) verifier.SignatureInput {
			l := w.signCert(t)
			w.ocsp.statuses[l.serial()] = status{reason: jpki.KeyCompromise, at: t0.Add(-time.Hour), invalidSince: t0.Add(-3 * time.Hour)}
			in := l.input(t)
			in.At = t0.Add(-2 * time.Hour)
			return in
		}, nil, verifier.RevokedKeyCompromise, unsure, verifier.SubRevokedNoPOE, verifier.CheckStatus},
		row{"key compromised and revoked after the time of acceptance", func(t *testing.T, w *world) verifier.SignatureInput {
			l := w.signCert(t)
			w.ocsp.statuses[l.serial()] = status{reason: jpki.KeyCompromise, at: t0.Add(-time.Hour), invalidSince: t0.Add(-90 * time.Minute)}
			in := l.input(t)
			in.At = t0.Add(-2 * time.Hour)
			return in
		}, nil, verifier.OK, verifier.TotalPassed, "", ""},
	)
	covered := map[verifier.Code]bool{}
	for _, r := range rows {
		covered[r.code] = true
		t.Run(r.name, func(t *testing.T) {
			w := newWorld(t)
			// A row that takes the anchors away means those from before it replaced an authority.
			before := w.config(t).Anchors
			in := r.make(t, w)
			v := w.verifier(t, func(c *verifier.Config) {
				if r.conf != nil {
					r.conf(c)
				}
				if c.Anchors == nil {
					c.Anchors = before
				}
			})
			res, err := v.Signature(t.Context(), in)
			if err != nil {
				t.Fatal(err)
			}
			if res.Code != r.code || res.Indication != r.ind || res.SubIndication != r.sub {
				t.Errorf("verdict %s %s/%s, want %s %s/%s: %+v", res.Code, res.Indication, res.SubIndication, r.code, r.ind, r.sub, res.Checks)
			}
			if res.OK() != (r.code == verifier.OK) || (res.Attributes != nil) != res.OK() {
				t.Errorf("OK %t, attributes handed out %t", res.OK(), res.Attributes != nil)
			}
			last := res.Checks[len(res.Checks)-1]
			if r.at != "" && (last.ID != r.at || last.OK) {
				t.Errorf("failed at %+v, want %s", last, r.at)
			}
			if res.Message.EN == "" || res.Message.JA == "" || res.Action.EN == "" || res.Action.JA == "" {
				t.Error("no words for people")
			}
			asked := r.at == "" || r.at == verifier.CheckStatus && r.name != "status not checked"
			if (w.ocsp.asked > 0) != asked {
				t.Errorf("authority asked %d times", w.ocsp.asked)
			}
		})
	}
	for _, c := range verifier.Codes() {
		if !covered[c] {
			t.Errorf("no row for %s", c)
		}
	}
}

// An oddKey signs with one key and shows another.
type oddKey struct {
	crypto.Signer
	public crypto.PublicKey
}

func (k oddKey) Public() crypto.PublicKey { return k.public }

func likeSign(c *x509.Certificate) {
	c.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment
	c.ExtraExtensions = []pkix.Extension{policiesExtension(cardSign), altNameExtension(altNames(taro))}
}

func TestSignatureMisuse(t *testing.T) {
	w := newWorld(t)
	v := w.verifier(t)
	good := w.signCert(t).input(t)
	for name, spoil := range map[string]func(*verifier.SignatureInput){
		"no certificate":      func(in *verifier.SignatureInput) { in.Certificate = nil },
		"no signature":        func(in *verifier.SignatureInput) { in.Signature = nil },
		"digest too short":    func(in *verifier.SignatureInput) { in.Digest = in.Digest[1:] },
		"no hash":             func(in *verifier.SignatureInput) { in.Hash = 0 },
		"SHA-1":               func(in *verifier.SignatureInput) { in.Hash, in.Digest = crypto.SHA1, in.Digest[:20] },
		"time in the future":  func(in *verifier.SignatureInput) { in.At = t0.Add(2 * time.Minute) },
		"digest of no length": func(in *verifier.SignatureInput) { in.Digest = nil },
	} {
		t.Run(name, func(t *testing.T) {
			in := good
			spoil(&in)
			if res, err := v.Signature(t.Context(), in); res != nil || !errors.Is(err, jpki.Malformed) {
				t.Errorf("result %v, error %v", res, err)
			}
		})
	}
	broken := w.verifier(t, func(c *verifier.Config) { c.Rand = strings.NewReader("short") })
	if res, err := broken.Signature(t.Context(), good); res != nil || err == nil {
		t.Errorf("no randomness: result %v, error %v", res, err)
	}
	authOnly := w.verifier(t, func(c *verifier.Config) { c.Policies = c.Policies[1:] })
	if res, err := authOnly.Signature(t.Context(), good); res != nil || err == nil {
		t.Errorf("no policy: result %v, error %v", res, err)
	}
}

func TestCertificateStatus(t *testing.T) {
	for _, tc := range []struct {
		name   string
		make   func(*testing.T, *world) leaf
		code   verifier.Code
		ind    verifier.Indication
		sub    verifier.SubIndication
		policy string
	}{
		{"good", func(t *testing.T, w *world) leaf { return w.signCert(t) }, verifier.OK, verifier.TotalPassed, "", "jpki-signature"},
		{"authentication", func(t *testing.T, w *world) leaf { return w.authCert(t) }, verifier.OK, verifier.TotalPassed, "", "jpki-authentication"},
		{"moved", func(t *testing.T, w *world) leaf {
			l := w.signCert(t)
			w.ocsp.statuses[l.serial()] = status{reason: jpki.AffiliationChanged, at: t0.Add(-time.Hour)}
			return l
		}, verifier.RevokedAttributesChanged, verifier.TotalFailed, verifier.SubRevoked, "jpki-signature"},
		{"lost", func(t *testing.T, w *world) leaf {
			l := w.authCert(t)
			w.ocsp.statuses[l.serial()] = status{reason: jpki.CertificateHold, at: t0.Add(-time.Hour)}
			return l
		}, verifier.Suspended, verifier.Indeterminate, verifier.SubTryLater, "jpki-authentication"},
		{"expired", func(t *testing.T, w *world) leaf {
			return w.signCert(t, func(c *x509.Certificate) { c.NotAfter = t0.Add(-time.Hour) })
		}, verifier.Expired, verifier.TotalFailed, verifier.SubExpired, "jpki-signature"},
		{"nonsense", func(t *testing.T, w *world) leaf { return leaf{der: []byte{1}} }, verifier.MalformedCertificate, verifier.TotalFailed, verifier.SubFormatFailure, "jpki-signature"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			l := tc.make(t, w)
			res, err := w.verifier(t).CertificateStatus(t.Context(), l.der)
			if err != nil {
				t.Fatal(err)
			}
			if res.Code != tc.code || res.Indication != tc.ind || res.SubIndication != tc.sub || res.Policy.Name != tc.policy {
				t.Errorf("verdict %s %s/%s under %s: %+v", res.Code, res.Indication, res.SubIndication, res.Policy.Name, res.Checks)
			}
			if res.Attributes != nil {
				t.Error("attributes without a signature")
			}
		})
	}
	v := newWorld(t).verifier(t)
	if _, err := v.CertificateStatus(t.Context(), nil); !errors.Is(err, jpki.Malformed) {
		t.Errorf("no certificate: %v", err)
	}
}

// TestResultKeepsPersonalDataIn: the attributes are in JSON under their own name, and in no log.
func TestResultKeepsPersonalDataIn(t *testing.T) {
	w := newWorld(t)
	res, err := w.verifier(t).Signature(t.Context(), w.signCert(t).input(t))
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := json.Unmarshal(must(json.Marshal(res)), &doc); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"name": taro.Name, "name_substitutes": "00010", "sex": "1", "birth_date": "319800217",
		"address": taro.Address, "address_substitutes": taro.AddressSubstitutes,
	}
	if diff := cmp.Diff(want, doc["attributes"]); diff != "" {
		t.Error(diff)
	}
	delete(doc, "attributes")
	var log bytes.Buffer
	for _, h := range []slog.Handler{slog.NewJSONHandler(&log, nil), slog.NewTextHandler(&log, nil)} {
		slog.New(h).InfoContext(t.Context(), "verified", slog.Any("result", res), slog.Any("value", *res), slog.Any("attributes", res.Attributes))
	}
	fmt.Fprintf(&log, "%v %+v %#v %s", res, *res, res.Attributes, must(json.Marshal(doc)))
	for _, secret := range []string{taro.Name, taro.Address, string(taro.BirthDate)} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("%q leaked", secret)
		}
	}
	if !strings.Contains(log.String(), `"code":"ok"`) {
		t.Error("the log does not show the verdict")
	}
}

func TestRevocationJSON(t *testing.T) {
	at := t0
	got := string(must(json.Marshal(verifier.Revocation{State: jpki.Revoked, Reason: jpki.AffiliationChanged, RevokedAt: &at, ThisUpdate: t0, CheckedAt: t0})))
	for _, want := range []string{`"reason":"affiliationChanged"`, `"revoked_at":"2026-11-24T03:00:00Z"`, `"status_as_of":"2026-11-24T03:00:00Z"`} {
		if !strings.Contains(got, want) {
			t.Errorf("%s lacks %s", got, want)
		}
	}
	if got := string(must(json.Marshal(verifier.Revocation{State: jpki.Good}))); strings.Contains(got, "reason") || strings.Contains(got, "next_update") {
		t.Errorf("good: %s", got)
	}
}

func TestNewRefuses(t *testing.T) {
	w := newWorld(t)
	other := verifier.SandboxPolicies()[0]
	other.CertificatePolicies = map[jpki.Kind][]string{jpki.CardSign: {"2.999.1"}}
	shared := verifier.SandboxPolicies()
	shared[1].CertificatePolicies[jpki.CardAuth] = []string{cardSign}
	end := must(x509.ParseCertificate(w.signCert(t).der))
	forged := *w.sign[0].cert
	forged.Signature = slices.Clone(forged.Signature)
	forged.Signature[len(forged.Signature)-1] ^= 1
	for name, spoil := range map[string]func(*verifier.Config){
		"Now":                 func(c *verifier.Config) { c.Now = nil },
		"Rand":                func(c *verifier.Config) { c.Rand = nil },
		"Policies":            func(c *verifier.Config) { c.Policies = nil },
		"anchors":             func(c *verifier.Config) { c.Anchors = nil },
		"Skew":                func(c *verifier.Config) { c.Skew = time.Hour },
		"two policies":        func(c *verifier.Config) { c.Policies = append(c.Policies, other) },
		"certificate policy":  func(c *verifier.Config) { c.Policies = shared },
		"nil":                 func(c *verifier.Config) { c.Anchors = []*x509.Certificate{nil} },
		"not a certification": func(c *verifier.Config) { c.Anchors = []*x509.Certificate{end} },
		"not self-signed":     func(c *verifier.Config) { c.Anchors = []*x509.Certificate{&forged} },
		"max_revocation_age":  func(c *verifier.Config) { c.Policies = verifier.SandboxPolicies(); c.Policies[0].MaxRevocationAge = 0 },
		"has no subject key": func(c *verifier.Config) {
			k := *w.sign[0].cert
			k.SubjectKeyId = nil
			c.Anchors = []*x509.Certificate{&k}
		},
		"65 given": func(c *verifier.Config) { c.Anchors = slices.Repeat(c.Anchors[:1], 65) },
		"critical extension that is": func(c *verifier.Config) {
			k := *w.sign[0].cert
			k.UnhandledCriticalExtensions = append(k.UnhandledCriticalExtensions, oid("2.999.1"))
			c.Anchors = []*x509.Certificate{&k}
		},
	} {
		cfg := w.config(t)
		spoil(&cfg)
		if _, err := verifier.New(cfg); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestStatusCheckers: whatever a checker says, only a consistent, recent "good" is good.
func TestStatusCheckers(t *testing.T) {
	w := newWorld(t)
	in := w.signCert(t).input(t)
	at := t0.Add(-time.Hour)
	good := verifier.Revocation{State: jpki.Good, ThisUpdate: t0, CheckedAt: t0, Source: "snapshot"}
	for _, tc := range []struct {
		name    string
		rev     verifier.Revocation
		err     error
		code    verifier.Code
		failure verifier.StatusFailure
		retry   int
	}{
		{"good", good, nil, verifier.OK, "", 0},
		{"good as old as accepted", verifier.Revocation{State: jpki.Good, ThisUpdate: t0.Add(-time.Hour)}, nil, verifier.OK, "", 0},
		{"good but older", verifier.Revocation{State: jpki.Good, ThisUpdate: t0.Add(-time.Hour - time.Second)}, nil, verifier.StatusNotEstablished, verifier.AnswerNotCurrent, 30},
		{"good of the future", verifier.Revocation{State: jpki.Good, ThisUpdate: t0.Add(2 * time.Minute)}, nil, verifier.StatusNotEstablished, verifier.AnswerNotCurrent, 30},
		{
			"good but no longer",
			verifier.Revocation{State: jpki.Good, ThisUpdate: t0.Add(-30 * time.Minute), NextUpdate: t0.Add(-2 * time.Minute)},
			nil,
			verifier.StatusNotEstablished, verifier.AnswerNotCurrent, 30,
		},
		{"no time", verifier.Revocation{State: jpki.Good}, nil, verifier.StatusNotEstablished, verifier.AnswerNotCurrent, 30},
		{"nothing", verifier.Revocation{}, nil, verifier.StatusNotEstablished, verifier.AnswerNotCurrent, 30},
		{"no state", verifier.Revocation{ThisUpdate: t0}, nil, verifier.StatusNotEstablished, verifier.AnswerInconsistent, 30},
		{"revoked without time", verifier.Revocation{State: jpki.Revoked, ThisUpdate: t0}, nil, verifier.StatusNotEstablished, verifier.AnswerInconsistent, 30},
		{
			"suspended for another reason",
			verifier.Revocation{State: jpki.Suspended, RevokedAt: &at, Reason: jpki.Superseded, ThisUpdate: t0},
			nil,
			verifier.StatusNotEstablished, verifier.AnswerInconsistent, 30,
		},
		{"revoked", verifier.Revocation{State: jpki.Revoked, RevokedAt: &at, Reason: jpki.Superseded, ThisUpdate: t0}, nil, verifier.RevokedSuperseded, "", 0},
		{"good with an error", good, errors.New("could not read"), verifier.StatusNotEstablished, verifier.CheckFailed, 30},
		{
			"named error", good, fmt.Errorf("ask: %w", &verifier.StatusError{Failure: verifier.SourceRefused, RetryAfter: 1500 * time.Millisecond}),
			verifier.StatusNotEstablished, verifier.SourceRefused, 2,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v := w.verifier(t, func(c *verifier.Config) {
				c.Revocation = checkerFunc(func() (verifier.Revocation, error) { return tc.rev, tc.err })
			})
			res, err := v.Signature(t.Context(), in)
			if err != nil {
				t.Fatal(err)
			}
			if res.Code != tc.code || res.StatusFailure != tc.failure || res.RetryAfter != tc.retry {
				t.Errorf("code %s, failure %q, retry %d", res.Code, res.StatusFailure, res.RetryAfter)
			}
			if !errors.Is(res.Cause, tc.err) {
				t.Errorf("cause %v", res.Cause)
			}
			if (res.Revocation == nil) != (tc.code == verifier.StatusNotEstablished) {
				t.Errorf("revocation %+v", res.Revocation)
			}
		})
	}
}

type checkerFunc func() (verifier.Revocation, error)

func (f checkerFunc) Check(context.Context, *x509.Certificate, *x509.Certificate, time.Time) (verifier.Revocation, error) {
	return f()
}

// TestSameSerialOfTwoGenerations: an answer for one generation says nothing about the other's certificate of that number.
func TestSameSerialOfTwoGenerations(t *testing.T) {
	w := newWorld(t)
	serial := big.NewInt(0x52A0)
	number := func(c *x509.Certificate) { likeSign(c); c.SerialNumber = serial }
	old, young := w.issue(t, w.sign[0], rsaKey(), number), w.issue(t, w.sign[1], rsaKey(), number)
	v := w.verifier(t)
	for i, l := range []leaf{old, young} {
		res, err := v.Signature(t.Context(), l.input(t))
		if err != nil || !res.OK() || res.Signer.IssuerKeyID != hex.EncodeToString(w.sign[i].cert.SubjectKeyId) {
			t.Fatalf("generation %d: %v %+v", i, err, res)
		}
	}
	w.ocsp.tweak = func(a *answer) { a.keyHash = sha256sum(keyBits(w.sign[0].cert)) }
	res, err := v.Signature(t.Context(), young.input(t))
	if err != nil || res.StatusFailure != verifier.OtherCertificate {
		t.Errorf("answer for the other generation: %v %+v", err, res)
	}
}
