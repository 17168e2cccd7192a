package ca

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	mrand "math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/openjpki/jpki"
)

// A formed is a kind of certificate under one profile, with keys that may stand in it.
type formed struct {
	profile *Profile
	kind    jpki.Kind
	issuer  *Issuer
	keys    []crypto.PublicKey
}

// allForms are the kinds under an RSA key and under P-384.
func allForms(t *testing.T) (out []formed) {
	t.Helper()
	for _, kind := range []jpki.Kind{jpki.CardSign, jpki.CardAuth, jpki.PhoneSign, jpki.PhoneAuth} {
		p, next := Sandbox(), SandboxNext()
		curve := must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
		out = append(
			out,
			formed{p, kind, issuerFor(t, p, kind.CA(), lintKeys().rsa), []crypto.PublicKey{&lintKeys().other.PublicKey, &lintKeys().rsa.PublicKey}},
			formed{next, kind, issuerFor(t, next, kind.CA(), lintKeys().p384), []crypto.PublicKey{&curve.PublicKey, &lintKeys().p384.PublicKey}},
		)
	}
	return out
}

// unsigned returns a certificate without a signature.
func (f formed) unsigned(s *subject) ([]byte, error) {
	tbs, err := s.tbs()
	if err != nil {
		return nil, err
	}
	return f.issuer.assemble(tbs, must(noSignature(f.issuer.Signer.Public())))
}

// verdict is the name of the lint that refuses, or nothing.
func verdict(err error) string {
	if refused, ok := errors.AsType[*lintError](err); ok {
		return refused.lint
	}
	return ""
}

// zlint says the same of all certificates of a form: each octet of a certificate is replaced in several ways, and what then
// still has its form must pass, too.
func TestAFormHasOneVerdict(t *testing.T) {
	for i, f := range allForms(t) {
		s := subjectFor(t, f.profile, f.kind, f.issuer, f.keys[0])
		if i%4 < 2 {
			s.notAfter = jst(2056, 2, 17, 23, 59, 59) // GeneralizedTime
		}
		der, err := f.unsigned(s)
		if err != nil {
			t.Fatal(err)
		}
		want, ok := formOf(der)
		c := candidate{of: subscriber, issuer: f.issuer.Certificate}
		if err := c.zlint(der); err != nil || !ok {
			t.Fatalf("%s: %v, %v", f.kind, err, ok)
		}
		same := 0
		for i := range der {
			others := []byte("0123456789")
			for range 8 {
				others = append(others, byte(mrand.Uint32()))
			}
			for _, other := range others {
				spoilt := bytes.Clone(der)
				if spoilt[i] = other; other == der[i] {
					continue
				}
				if got, ok := formOf(spoilt); !ok || got != want {
					continue
				}
				if _, err := x509.ParseCertificate(spoilt); err != nil {
					continue
				}
				same++
				if err := c.zlint(spoilt); err != nil {
					t.Errorf("%s: with octet %d %#x instead of %#x zlint refuses for %s", f.kind, i, spoilt[i], der[i], verdict(err))
				}
			}
		}
		if same < 300 {
			t.Errorf("%s: only %d others have the form", f.kind, same)
		}
	}
}

// What is remembered changes no verdict, whatever stands in certificates.
func TestWhatIsRememberedChangesNoVerdict(t *testing.T) {
	all, spared, refused := allForms(t), 0, map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		f := rapid.SampledFrom(all).Draw(t, "kind")
		s := &subject{}
		*s = *f.subject(t)
		text := rapid.OneOf(rapid.StringMatching(`[A-Z0-9]{20}001A`), rapid.StringN(0, 30, 70), rapid.StringMatching(`[A-Za-z0-9 *@.\x00-\x1f-]{1,24}`))
		day := rapid.Int64Range(jst(2026, 4, 1, 0, 0, 0).Unix(), jst(2056, 4, 1, 0, 0, 0).Unix())
		s.id = text.Draw(t, "id")
		s.attributes.Name = rapid.OneOf(rapid.Just("砂場　花子"), rapid.StringN(0, 20, 100)).Draw(t, "name")
		s.attributes.Address = rapid.OneOf(rapid.Just("砂箱県青葉市中央一丁目2番3号"), rapid.StringN(0, 20, 100)).Draw(t, "address")
		if rapid.Bool().Draw(t, "odd times") {
			s.notBefore, s.notAfter = time.Unix(day.Draw(t, "from"), 0), time.Unix(day.Draw(t, "to"), 0)
		} else {
			s.notBefore = s.notBefore.Add(time.Duration(rapid.Int64Range(0, 3*86400).Draw(t, "seconds")) * time.Second)
		}
		der, err := f.unsigned(s)
		if err != nil {
			return // what cannot be built is not linted
		}
		c := candidate{of: subscriber, profile: f.profile, subject: s, issuer: f.issuer.Certificate}
		want := verdict(c.lint(der))
		form, ok := formOf(der)
		if f.issuer.passed.has(form) && ok && want == "" {
			spared++
		}
		c.passed = f.issuer.passed
		for range 2 {
			if got := verdict(c.lint(der)); got != want {
				t.Fatalf("%s: %q, with what is remembered %q", f.kind, want, got)
			}
		}
		// zlint by itself, also of what our lints refuse
		if f.issuer.passed.has(form) && ok && c.zlint(der) != nil {
			t.Fatalf("%s: zlint refuses what is remembered for %s", f.kind, verdict(c.zlint(der)))
		}
		refused[want]++
	})
	if spared == 0 || refused[""] == 0 || len(refused) < 3 {
		t.Errorf("%d were spared zlint; verdicts %v", spared, refused)
	}
}

func (f formed) subject(t *rapid.T) *subject {
	scope, _ := f.profile.CRLScope("http://status.example", f.issuer.ID, "99101")
	place, _ := f.profile.municipality("99101")
	return &subject{
		profile: f.profile, authority: f.profile.Authorities[f.kind.CA()], kind: f.profile.Kinds[f.kind], issuer: f.issuer, serial: must(jpki.NewSerial(rand.Reader)), municipality: place,
		attributes: jpki.Attributes{Sex: jpki.Female, BirthDate: "319800217"}, spki: must(x509.MarshalPKIXPublicKey(rapid.SampledFrom(f.keys).Draw(t, "key"))),
		notBefore: jst(2026, 4, 1, 9, 0, 0), notAfter: jst(2031, 2, 17, 23, 59, 59), ocspURL: "http://status.example/ocsp", scope: scope,
	}
}

// A form knows the day of a certificate, so a lint may not come into effect, or end, in the middle of one.
func TestLintsComeIntoEffectAtMidnight(t *testing.T) {
	for _, l := range zlints() {
		for _, at := range []time.Time{l.EffectiveDate, l.IneffectiveDate} {
			if !at.Equal(at.UTC().Truncate(24 * time.Hour)) {
				t.Errorf("%s does so at %s", l.Name, at)
			}
		}
	}
}

func TestFormsAreForgotten(t *testing.T) {
	var p passed
	for i := range maxForms + 1 {
		p.add(form{byte(i), byte(i >> 8), byte(i >> 16)})
	}
	if n := len(p.forms); n != 1 {
		t.Errorf("%d are remembered", n)
	}
	if !p.has(form{0, maxForms >> 8 & 0xff, maxForms >> 16}) || p.has(form{}) {
		t.Error("the wrong one is remembered")
	}
}
