package ca

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"math/big"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	zx509 "github.com/zmap/zcrypto/x509"
	zlint "github.com/zmap/zlint/v3/lint"
	"golang.org/x/crypto/cryptobyte"

	"github.com/openjpki/jpki"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// lintKeys are made once.
var lintKeys = sync.OnceValue(func() (k struct {
	rsa, other *rsa.PrivateKey
	p384       *ecdsa.PrivateKey
	p256       *ecdsa.PrivateKey
},
) {
	k.rsa, k.other = must(rsa.GenerateKey(rand.Reader, 2048)), must(rsa.GenerateKey(rand.Reader, 2048))
	k.p384, k.p256 = must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)), must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	return k
})

func issuerFor(t testing.TB, p *Profile, ca jpki.CA, key crypto.Signer) *Issuer {
	t.Helper()
	i := &Issuer{ID: jpki.IssuerID{CA: ca, Generation: 1}, Signer: key}
	var err error
	if i.Certificate, err = SelfSigned(p, ca, key, must(jpki.NewSerial(rand.Reader)), jst(2026, 1, 1, 0, 0, 0)); err != nil {
		t.Fatal(err)
	}
	if err := i.check(p); err != nil {
		t.Fatal(err)
	}
	return i
}

// subjectFor returns a faultless subject, of a profile of its own.
func subjectFor(t testing.TB, p *Profile, k jpki.Kind, i *Issuer, key crypto.PublicKey) *subject {
	t.Helper()
	scope, _ := p.CRLScope("http://status.example", i.ID, "99101")
	place, _ := p.municipality("99101")
	return &subject{
		profile: p, authority: p.Authorities[k.CA()], kind: p.Kinds[k], issuer: i, serial: must(jpki.NewSerial(rand.Reader)), id: "ABCDEFGHIJKLMN99101001A", municipality: place,
		attributes: jpki.Attributes{Name: "砂場　花子", Sex: jpki.Female, BirthDate: "319800217", Address: "砂箱県青葉市中央一丁目2番3号"},
		spki:       must(x509.MarshalPKIXPublicKey(key)), notBefore: jst(2026, 4, 1, 9, 0, 0), notAfter: jst(2031, 2, 17, 23, 59, 59), ocspURL: "http://status.example/ocsp", scope: scope,
	}
}

// failing returns the names of the lints that a certificate does not pass, zlint's included.
func failing(t *testing.T, c candidate, der []byte) (out []string) {
	t.Helper()
	var err error
	if c.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	for _, l := range lints {
		if l.of&c.of != 0 && !l.holds(c) {
			out = append(out, l.name)
		}
	}
	if len(out) == 0 {
		if refused, ok := errors.AsType[*lintError](c.lint(der)); ok {
			out = append(out, refused.lint)
		}
	}
	return out
}

// Every lint refuses something: for each there is at least one certificate that differs from what was asked for in what
// the lint is about. A row changes the certificate that is built (built), what it is compared with (asked), both, or octets.
func TestEveryLintRefuses(t *testing.T) {
	octets := func(old, replacement string) func([]byte) []byte {
		return func(tbs []byte) []byte {
			a, b := must(hex.DecodeString(old)), must(hex.DecodeString(replacement))
			if bytes.Count(tbs, a) != 1 {
				t.Fatalf("%s occurs %d times", old, bytes.Count(tbs, a))
			}
			return bytes.Replace(tbs, a, b, 1)
		}
	}
	other := SandboxNext()
	lawful := map[string]bool{}
	for _, row := range []struct {
		lint  string
		kind  jpki.Kind
		built func(*subject)
		both  func(*subject)
		tbs   func([]byte) []byte
	}{
		{lint: "size", kind: jpki.CardSign, both: func(s *subject) { s.profile.CPS += strings.Repeat("x", 1000) }},
		{lint: "version", kind: jpki.CardSign, tbs: octets("a003020102", "a003020101")},
		{lint: "serial", kind: jpki.CardSign, built: func(s *subject) { s.serial = must(jpki.NewSerial(rand.Reader)) }},
		{lint: "serial", kind: jpki.CardSign, both: func(s *subject) { s.serial = must(jpki.SerialFromBytes([]byte{1, 2, 3})) }},
		{lint: "algorithm", kind: jpki.CardSign, built: func(s *subject) {
			i := *s.issuer
			i.algorithm = algorithm{oidECDSASHA256, false, crypto.SHA256, x509.ECDSAWithSHA256}
			s.issuer = &i
		}},
		{lint: "issuer", kind: jpki.CardSign, built: func(s *subject) { s.issuer = issuerFor(t, s.profile, jpki.AuthCA, lintKeys().rsa) }},
		{lint: "subject", kind: jpki.CardSign, built: func(s *subject) { s.id += "X" }},
		{lint: "subject", kind: jpki.CardAuth, built: func(s *subject) { s.kind.Subject = s.profile.Kinds[jpki.CardSign].Subject }},
		{lint: "subject", kind: jpki.CardAuth, tbs: octets("550403"+"0c17", "550403"+"1317")}, // a common name as PrintableString
		{lint: "validity", kind: jpki.CardSign, built: func(s *subject) { s.notAfter = s.notAfter.AddDate(0, 0, -1) }},
		{lint: "validity", kind: jpki.CardSign, built: func(s *subject) { s.notBefore = s.notBefore.Add(time.Second) }},
		{lint: "validity", kind: jpki.CardSign, both: func(s *subject) { s.notAfter = s.notAfter.Add(-time.Second) }},
		{lint: "validity", kind: jpki.CardSign, both: func(s *subject) { s.caps = []time.Time{s.notAfter.Add(-time.Second)} }},
		{lint: "validity", kind: jpki.CardSign, both: func(s *subject) { s.notAfter = jst(2033, 2, 17, 23, 59, 59) }},
		{lint: "validity", kind: jpki.CardSign, both: func(s *subject) { c := *s.issuer.Certificate; c.NotAfter = s.notBefore; s.issuer.Certificate = &c }},
		{lint: "subject-key", kind: jpki.CardSign, built: func(s *subject) { s.spki = must(x509.MarshalPKIXPublicKey(&lintKeys().rsa.PublicKey)) }},
		{lint: "subject-key", kind: jpki.CardSign, both: func(s *subject) { s.spki = must(x509.MarshalPKIXPublicKey(&lintKeys().p384.PublicKey)) }},
		{lint: "extensions", kind: jpki.CardSign, built: func(s *subject) {
			s.kind.Extensions = slices.Clone(s.kind.Extensions)
			slices.Reverse(s.kind.Extensions)
		}},
		{lint: "extensions", kind: jpki.CardSign, built: func(s *subject) { s.kind.Extensions = s.kind.Extensions[:7] }},
		{lint: "extensions", kind: jpki.CardAuth, built: func(s *subject) { s.kind.Extensions = append(slices.Clone(s.kind.Extensions), "subjectAltName") }},
		{lint: "extensions", kind: jpki.CardSign, built: func(s *subject) { s.kind.Extensions = append([]string{"keyUsage"}, s.kind.Extensions[1:]...) }},
		{lint: "key-usage", kind: jpki.CardAuth, built: func(s *subject) { s.kind.KeyUsage = []string{"digitalSignature", "nonRepudiation"} }},
		{lint: "key-usage", kind: jpki.CardAuth, both: func(s *subject) { s.kind.KeyUsage = []string{"digitalSignature", "keyCertSign"} }},
		{lint: "extended-key-usage", kind: jpki.CardAuth, tbs: octets("06082b06010505070302", "06082b06010505070309")},
		{lint: "policy", kind: jpki.CardSign, built: func(s *subject) { s.kind.Policy = "1.2.392.200149.8.5.1.1.20" }},
		{lint: "policy", kind: jpki.CardSign, built: func(s *subject) { s.profile.CPS = "http://elsewhere.example/" }},
		{lint: "attributes", kind: jpki.CardSign, built: func(s *subject) { s.attributes.Sex = jpki.Male }},
		{lint: "attributes", kind: jpki.CardSign, built: func(s *subject) { s.attributes.NameSubstitutes = "10000" }},
		{lint: "attributes", kind: jpki.PhoneSign, built: func(s *subject) { s.attributes.Address = "砂箱県港市" }},
		{lint: "attributes", kind: jpki.PhoneSign, built: func(s *subject) { slices.Reverse(s.profile.Attributes) }},
		{lint: "no-personal-data", kind: jpki.CardAuth, both: func(s *subject) { s.id = s.attributes.Name }},
		{lint: "no-personal-data", kind: jpki.PhoneAuth, both: func(s *subject) { s.profile.CPS += "?" + s.attributes.Address }},
		{lint: "alternative-name", kind: jpki.CardSign, built: func(s *subject) { s.authority = s.profile.Authorities[jpki.AuthCA] }},
		{lint: "distribution-point", kind: jpki.CardSign, built: func(s *subject) { s.scope, _ = s.profile.CRLScope("http://status.example", s.issuer.ID, "99202") }},
		{lint: "ocsp", kind: jpki.CardSign, built: func(s *subject) { s.ocspURL = "http://elsewhere.example/ocsp" }},
		{lint: "authority-key", kind: jpki.CardSign, built: func(s *subject) { s.issuer = issuerFor(t, s.profile, jpki.SignCA, lintKeys().p384) }},
		{lint: "subject-key-identifier", kind: jpki.CardSign, built: func(s *subject) {}, tbs: func(tbs []byte) []byte {
			id := keyIdentifier(must(x509.MarshalPKIXPublicKey(&lintKeys().other.PublicKey)))
			return bytes.Replace(tbs, id[:], make([]byte, len(id)), 1)
		}},
		// zlint has its own opinion of what a profile may say.
		{lint: "w_ext_ian_critical", kind: jpki.CardSign, both: func(s *subject) {
			s.kind.Extensions = strings.Fields(strings.Replace(strings.Join(s.kind.Extensions, " "), "issuerAltName", "issuerAltName!", 1))
		}},
	} {
		asked := subjectFor(t, Sandbox(), row.kind, issuerFor(t, other, row.kind.CA(), lintKeys().rsa), &lintKeys().other.PublicKey)
		if row.both != nil {
			row.both(asked)
		}
		if !lawful[row.lint] && row.both == nil && row.tbs == nil {
			if _, err := asked.prepare(); err != nil {
				t.Errorf("%s: a faultless certificate: %v", row.lint, err)
			}
			lawful[row.lint] = true
		}
		built := *asked
		own, kind := *asked.profile, *asked.kind // what the row changes must not change what was asked for
		own.Attributes = slices.Clone(own.Attributes)
		built.profile, built.kind = &own, &kind
		if row.built != nil {
			row.built(&built)
		}
		tbs, err := built.tbs()
		if err != nil {
			t.Fatal(err)
		}
		if row.tbs != nil {
			tbs = row.tbs(tbs)
		}
		der := must(built.issuer.assemble(tbs, must(noSignature(built.issuer.Signer.Public()))))
		c := candidate{of: subscriber, profile: asked.profile, subject: asked, issuer: asked.issuer.Certificate}
		got := failing(t, c, der)
		if !slices.Contains(got, row.lint) {
			t.Errorf("%s × %s: refused for %v", row.lint, row.kind, got)
		}
		lawful["! "+row.lint] = true
	}
	for _, r := range spoiltDelegates(t) {
		lawful["! "+r] = true
	}
	for _, l := range lints {
		if !lawful["! "+l.name] {
			t.Errorf("no row shows that lint %s refuses anything", l.name)
		}
	}
}

// spoiltDelegates refuses responders, and CAs, that are not what they should be. It returns the lints it saw at work.
func spoiltDelegates(t *testing.T) (seen []string) {
	t.Helper()
	p := Sandbox()
	i := issuerFor(t, p, jpki.SignCA, lintKeys().rsa)
	noCheck := pkix.Extension{Id: oidNoCheck, Value: []byte{5, 0}}
	for name, row := range map[string]struct {
		want  string
		spoil func(*x509.Certificate)
	}{
		"a proper one":           {"", func(*x509.Certificate) {}},
		"31 days":                {"short-life", func(c *x509.Certificate) { c.NotAfter = c.NotBefore.AddDate(0, 0, 31) }},
		"a CA":                   {"no-ca", func(c *x509.Certificate) { c.IsCA = true }},
		"may sign certificates":  {"key-usage", func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign }},
		"another purpose beside": {"extended-key-usage", func(c *x509.Certificate) { c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth) }},
		"without nocheck":        {"extensions", func(c *x509.Certificate) { c.ExtraExtensions = nil }},
		"a long serial number":   {"serial", func(c *x509.Certificate) { c.SerialNumber = new(big.Int).Lsh(big.NewInt(1), 150) }},
		"without key identifier": {"subject-key-identifier", func(c *x509.Certificate) { c.SubjectKeyId = []byte{1, 2, 3} }},
	} {
		template := &x509.Certificate{
			SerialNumber: must(jpki.NewSerial(rand.Reader)).Big(), Subject: pkix.Name{Country: []string{"JP"}, CommonName: "OCSP responder"},
			NotBefore: jst(2026, 4, 1, 0, 0, 0), NotAfter: jst(2026, 4, 30, 0, 0, 0), KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning},
			BasicConstraintsValid: true, ExtraExtensions: []pkix.Extension{noCheck},
		}
		id := keyIdentifier(must(x509.MarshalPKIXPublicKey(&lintKeys().p256.PublicKey)))
		template.SubjectKeyId = id[:]
		row.spoil(template)
		der := must(x509.CreateCertificate(rand.Reader, template, i.Certificate, &lintKeys().p256.PublicKey, i.Signer))
		got := failing(t, candidate{of: responder, issuer: i.Certificate}, der)
		if row.want == "" && len(got) > 0 || row.want != "" && !slices.Contains(got, row.want) {
			t.Errorf("responder, %s: refused for %v, want %q", name, got, row.want)
		}
		if (LintResponder(der, i.Certificate) == nil) != (row.want == "") {
			t.Errorf("responder, %s: %v", name, LintResponder(der, i.Certificate))
		}
		seen = append(seen, row.want)
	}
	// OCSPSigning never on a CA certificate, whatever else is right about it.
	ca := &x509.Certificate{
		SerialNumber: must(jpki.NewSerial(rand.Reader)).Big(), RawSubject: i.Certificate.RawSubject, NotBefore: i.Certificate.NotBefore, NotAfter: i.Certificate.NotAfter,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}, IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
	}
	got := failing(t, candidate{of: authority, profile: p, name: jpki.SignCA, issuer: i.Certificate}, must(x509.CreateCertificate(rand.Reader, ca, ca, i.Signer.Public(), i.Signer)))
	for _, want := range []string{"extended-key-usage", "ca", "extensions"} {
		if !slices.Contains(got, want) {
			t.Errorf("a CA with OCSPSigning and a path length: refused for %v", got)
		}
		seen = append(seen, want)
	}
	return seen
}

// An exclusion that no longer does anything is dead weight: what it excludes must exist and refuse one of our certificates.
func TestExcludedLintsWouldRefuse(t *testing.T) {
	ca := issuerFor(t, Sandbox(), jpki.SignCA, lintKeys().rsa).Certificate
	z := must(zx509.ParseCertificate(ca.Raw))
	for name, why := range zlintExcluded {
		l := zlint.GlobalRegistry().CertificateLints().ByName(name)
		if l == nil || l.Execute(z, zlint.NewEmptyConfig()).Status <= zlint.Notice || why == "" {
			t.Errorf("%s need not be excluded", name)
		}
	}
	if n := len(zlints()); n < 100 {
		t.Errorf("only %d of zlint's lints run", n)
	}
}

func TestADraftIsSignedOnceAndByItsIssuer(t *testing.T) {
	p := Sandbox()
	i, other := issuerFor(t, p, jpki.SignCA, lintKeys().rsa), issuerFor(t, p, jpki.SignCA, lintKeys().p384)
	d, err := subjectFor(t, p, jpki.CardSign, i, &lintKeys().other.PublicKey).prepare()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.sign(d); err == nil {
		t.Error("another issuer signed the draft")
	}
	der, err := i.sign(d)
	if err != nil {
		t.Fatal(err)
	}
	if c, err := x509.ParseCertificate(der); err != nil || !bytes.Equal(c.RawTBSCertificate, d.tbs) || c.CheckSignatureFrom(i.Certificate) != nil {
		t.Errorf("signed something else: %v", err)
	}
	for what, d := range map[string]*draft{"a second time": d, "nothing": nil, "what was never linted": {}} {
		if _, err := i.sign(d); err == nil {
			t.Errorf("signed %s", what)
		}
	}
}

// The gate has one door: prepare alone makes drafts, sign alone uses a CA key, and neither crypto/x509 nor anything else in
// the package makes certificates.
func TestNothingIsSignedButDrafts(t *testing.T) {
	sources := must(filepath.Glob("*.go"))
	found := map[string][]string{}
	for _, source := range sources {
		if strings.HasSuffix(source, "_test.go") {
			continue
		}
		file := must(parser.ParseFile(token.NewFileSet(), source, nil, 0))
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			ast.Inspect(f, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.CompositeLit:
					if id, ok := n.Type.(*ast.Ident); ok && id.Name == "draft" {
						found["draft"] = append(found["draft"], f.Name.Name)
					}
				case *ast.SelectorExpr:
					if n.Sel.Name == "Sign" || n.Sel.Name == "SignMessage" || n.Sel.Name == "CreateCertificate" {
						found[n.Sel.Name] = append(found[n.Sel.Name], f.Name.Name)
					}
				}
				return true
			})
		}
	}
	slices.Sort(found["Sign"])
	want := map[string][]string{"draft": {"prepare"}, "Sign": {"closePrimes", "signFor"}} // the first is a number's sign
	if !maps.EqualFunc(found, want, slices.Equal) {
		t.Errorf("found %v, want %v", found, want)
	}
}

func TestReadNameRefusesOtherStringTypes(t *testing.T) {
	good := encodeName([]string{"C=JP", "CN=x"})
	for what, der := range map[string][]byte{
		"UTF8String for the country":   bytes.Replace(good, []byte{0x13, 2, 'J'}, []byte{0x0c, 2, 'J'}, 1),
		"PrintableString for the name": bytes.Replace(good, []byte{0x0c, 1, 'x'}, []byte{0x13, 1, 'x'}, 1),
		"something behind it":          append(bytes.Clone(good), 0),
		"an unknown attribute":         must(asn1.Marshal(pkix.Name{SerialNumber: "1"}.ToRDNSequence())),
	} {
		s := cryptobyte.String(der)
		if got := readName(&s); got != nil {
			t.Errorf("%s: read %v", what, got)
		}
	}
	s := cryptobyte.String(good)
	if got := readName(&s); !slices.Equal(got, []string{"C=JP", "CN=x"}) {
		t.Errorf("read %v", got)
	}
}

func BenchmarkLints(b *testing.B) {
	for _, name := range []string{"rsa-2048", "p-384"} {
		b.Run(name, func(b *testing.B) {
			p, key, subscriberKey := Sandbox(), crypto.Signer(lintKeys().rsa), crypto.PublicKey(&lintKeys().other.PublicKey)
			if name == "p-384" {
				p, key, subscriberKey = SandboxNext(), lintKeys().p384, &lintKeys().p384.PublicKey
			}
			s := subjectFor(b, p, jpki.CardSign, issuerFor(b, p, jpki.SignCA, key), subscriberKey)
			tbs := must(s.tbs())
			for b.Loop() {
				if _, err := s.issuer.prepare(tbs, candidate{of: subscriber, profile: p, subject: s}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
