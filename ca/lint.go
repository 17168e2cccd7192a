package ca

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	zx509 "github.com/zmap/zcrypto/x509"
	zlint "github.com/zmap/zlint/v3/lint"
	_ "github.com/zmap/zlint/v3/lints/rfc" // registers the lints
	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/openjpki/jpki"
)

// A shape is what kind of certificate a lint is about, one bit each.
type shape uint8

const (
	subscriber shape = 1 << iota // a holder's
	authority                    // a CA's own, self-signed
	responder                    // an OCSP delegate's
	every      = subscriber | authority | responder
)

// A candidate is a certificate that is about to be signed, and what was asked for.
type candidate struct {
	of      shape
	profile *Profile          // of subscriber and authority
	subject *subject          // of a subscriber: what was asked for
	name    jpki.CA           // of an authority: which
	issuer  *x509.Certificate // that of the key that will sign
	cert    *x509.Certificate // with a signature that is none
	passed  *passed           // forms that need not be shown to zlint again
}

// maxCertificate bounds a certificate, in octets: card readers, and proofs about signatures made on cards, rely on it. It
// leaves room for about seventy characters of name and address together; see [subject.fits].
const maxCertificate = 2048

// The lints, which say nothing but yes and no, so that no refusal can tell what a certificate contains. Each looks at
// what was read back and not at how it was built. lint_test.go has for each a certificate that it refuses.
var lints = []struct {
	name  string
	of    shape
	rule  string
	holds func(candidate) bool
}{
	{"size", every, "The certificate begins with 30 82 and has at most 2048 octets: card readers rely on both", candidate.sized},
	{"version", every, "The version is 3", func(c candidate) bool { return c.cert.Version == 3 }},
	{"serial", every, "The serial number is positive, has 16 octets, and is the one that was reserved", candidate.numbered},
	{"algorithm", every, "The signature algorithm is the one that goes with the issuer's key", candidate.algorithmFits},
	{"issuer", every, "The issuer is the signing CA certificate's subject, octet by octet", func(c candidate) bool { return bytes.Equal(c.cert.RawIssuer, c.issuer.RawSubject) }},
	{"subject", subscriber | authority, "The subject is the profile's, its country a PrintableString and all else UTF8String", candidate.named},
	{"validity", subscriber | authority, "The validity ends at 23:59:59 in Japan or with a cap, within the profile's longest term and the issuer's life", candidate.timed},
	{"short-life", responder, "A responder's certificate lives for 30 days at most, for nobody can revoke it", func(c candidate) bool {
		return c.cert.NotAfter.After(c.cert.NotBefore) && c.cert.NotAfter.Sub(c.cert.NotBefore) <= 30*24*time.Hour
	}},
	{"subject-key", subscriber, "The key is the one whose possession was proved, and of a kind that the profile admits", candidate.keyed},
	{"extensions", every, "The extensions are the profile's, in its order and with its criticality", candidate.extended},
	{"key-usage", every, "The key usage is the profile's", candidate.usable},
	{"extended-key-usage", every, "OCSPSigning stands on responders alone, clientAuth alone on authentication certificates", candidate.purposed},
	{"no-ca", subscriber | responder, "The certificate is no CA's", func(c candidate) bool { return !c.cert.IsCA }},
	{"ca", authority, "The certificate is a CA's, without a path length", func(c candidate) bool { return c.cert.IsCA && c.cert.MaxPathLen == -1 }},
	{"policy", subscriber, "There is one policy, the profile's, and it names the practice statement", candidate.underPolicy},
	{"attributes", subscriber, "A signature certificate carries the holder's attributes in the profile's characters; decoding it gives them back", candidate.attributed},
	{"no-personal-data", subscriber, "An authentication certificate carries nothing of the holder's name and address", candidate.anonymous},
	{"alternative-name", subscriber | authority, "The CA's Japanese name is the profile's", candidate.alternativelyNamed},
	{"distribution-point", subscriber | authority, "The certificate points to the CRL of its scope, a CA's to the CA itself", candidate.listed},
	{"ocsp", subscriber, "The certificate points to the OCSP responder and to nothing else", func(c candidate) bool {
		return slices.Equal(c.cert.OCSPServer, []string{c.subject.ocspURL}) && len(c.cert.IssuingCertificateURL) == 0
	}},
	{"authority-key", subscriber | responder, "authorityKeyIdentifier is the issuer's subjectKeyIdentifier, for a holder's with its name and number", candidate.authorised},
	{"subject-key-identifier", every, "subjectKeyIdentifier is the SHA-1 of the key", func(c candidate) bool {
		id := keyIdentifier(c.cert.RawSubjectPublicKeyInfo)
		return bytes.Equal(c.cert.SubjectKeyId, id[:])
	}},
}

// zlintExcluded are zlint's lints that do not fit, each with the reason.
var zlintExcluded = map[string]string{
	"w_distribution_point_missing_ldap_or_uri": "the JPKI's own CA certificates point to a directory entry, by its name alone",
}

// zlints are zlint's lints of the RFCs, less the excluded. The forums' rules are for web servers' certificates.
var zlints = sync.OnceValue(func() (out []*zlint.CertificateLint) {
	all := zlint.GlobalRegistry().CertificateLints()
	for _, source := range []zlint.LintSource{zlint.RFC5280, zlint.RFC3279, zlint.RFC5480, zlint.RFC8813} {
		for _, l := range all.BySource(source) {
			if zlintExcluded[l.Name] == "" {
				out = append(out, l)
			}
		}
	}
	return out
})

// zlintConfig is empty. Making one costs more than all lints together.
var zlintConfig = sync.OnceValue(zlint.NewEmptyConfig)

// A lintError names the first lint that a certificate did not pass. It never says what the certificate contains.
type lintError struct{ lint, rule string }

func (e *lintError) Error() string { return "lint " + e.lint + ": " + e.rule }

func refused(name, rule string) error {
	return jpki.WrapError(jpki.Internal, &lintError{name, rule}, "a certificate was not fit to be signed")
}

// lint runs every lint over a certificate. It needs no clock and no network.
func (c candidate) lint(der []byte) (err error) {
	if c.cert, err = x509.ParseCertificate(der); err != nil {
		return refused("x509", "Go reads the certificate")
	}
	for _, l := range lints {
		if l.of&c.of != 0 && !l.holds(c) {
			return refused(l.name, l.rule)
		}
	}
	if c.of != subscriber {
		return c.zlint(der)
	}
	f, ordinary := formOf(der)
	if ordinary && c.passed.has(f) {
		return nil
	}
	if err := c.zlint(der); err != nil {
		return err
	}
	if ordinary {
		c.passed.add(f)
	}
	return nil
}

// zlint has zlint's lints look at the certificate.
func (c candidate) zlint(der []byte) error {
	z, err := zx509.ParseCertificate(der)
	if err != nil {
		return refused("zcrypto", "zcrypto reads the certificate")
	}
	z.SelfSigned = c.of == authority // zcrypto would have seen it by the signature
	for _, l := range zlints() {
		if r := l.Execute(z, zlintConfig()); r.Status > zlint.Notice {
			return refused(l.Name, l.Description+" ("+l.Citation+")")
		}
	}
	return nil
}

// LintResponder reports the first rule that an OCSP responder's certificate breaks; issuer is the CA certificate of the key
// that signs it. Whoever makes one lints it before the real key signs: the signature is not looked at.
func LintResponder(der []byte, issuer *x509.Certificate) error {
	return candidate{of: responder, issuer: issuer}.lint(der)
}

func (c candidate) sized() bool {
	return len(c.cert.Raw) <= maxCertificate && bytes.HasPrefix(c.cert.Raw, []byte{0x30, 0x82})
}

func (c candidate) numbered() bool {
	serial, err := jpki.SerialFromBig(c.cert.SerialNumber)
	return err == nil && len(serial.Bytes()) == jpki.SerialBytes && (c.of != subscriber || serial == c.subject.serial)
}

func (c candidate) algorithmFits() bool {
	want := x509.UnknownSignatureAlgorithm
	switch k := c.issuer.PublicKey.(type) {
	case *rsa.PublicKey:
		want = x509.SHA256WithRSA
	case *ecdsa.PublicKey:
		want = map[elliptic.Curve]x509.SignatureAlgorithm{elliptic.P256(): x509.ECDSAWithSHA256, elliptic.P384(): x509.ECDSAWithSHA384}[k.Curve]
	}
	return want != x509.UnknownSignatureAlgorithm && c.cert.SignatureAlgorithm == want
}

func (c candidate) named() bool {
	var want []string
	if c.of == authority {
		want = c.profile.Authorities[c.name].Subject
	} else {
		want = fill(c.subject.kind.Subject, c.subject.municipality, c.subject.id)
	}
	name := cryptobyte.String(c.cert.RawSubject)
	return slices.Equal(readName(&name), want)
}

func (c candidate) timed() bool {
	start, end := c.cert.NotBefore, c.cert.NotAfter
	if c.of == authority {
		return end.Equal(endOfDay(start, c.profile.Validity.AuthorityYears, -1))
	}
	s := c.subject
	atEndOfDay := end.Equal(endOfDay(end, 0, 0))
	atCap := slices.ContainsFunc(s.caps, end.Equal)
	beyondCap := slices.ContainsFunc(s.caps, end.After)
	return start.Equal(s.notBefore) && end.Equal(s.notAfter) && end.After(start) && (atEndOfDay || atCap) && !beyondCap &&
		!end.After(endOfDay(start, s.profile.Validity.Renewed, 0)) && !end.After(c.issuer.NotAfter)
}

func (c candidate) keyed() bool {
	admitted := slices.ContainsFunc(c.subject.kind.Keys, func(name string) bool { return subjectKeys[name].is(c.cert.PublicKey) })
	return admitted && bytes.Equal(c.cert.RawSubjectPublicKeyInfo, c.subject.spki)
}

// extended compares names, order and criticality.
func (c candidate) extended() bool {
	var want []string
	switch c.of {
	case subscriber:
		want = c.subject.kind.Extensions
	case authority:
		want = []string{"keyUsage!", "subjectAltName", "basicConstraints!", "cRLDistributionPoints", "subjectKeyIdentifier"}
	case responder:
		want = []string{"keyUsage!", "extKeyUsage", "basicConstraints!", "subjectKeyIdentifier", "authorityKeyIdentifier", "ocspNoCheck"}
	}
	var got []string
	for _, e := range c.cert.Extensions {
		name := extensionName(e.Id)
		if e.Critical {
			name += "!"
		}
		got = append(got, name)
	}
	return slices.Equal(got, want)
}

func extensionName(id asn1.ObjectIdentifier) string {
	switch {
	case id.Equal(oidBasicConstraints):
		return "basicConstraints"
	case id.Equal(oidNoCheck):
		return "ocspNoCheck"
	}
	for name, e := range extensions {
		if e.oid.Equal(id) {
			return name
		}
	}
	return id.String()
}

func (c candidate) usable() bool {
	switch c.of {
	case authority:
		return c.cert.KeyUsage == x509.KeyUsageCertSign|x509.KeyUsageCRLSign
	case responder:
		return c.cert.KeyUsage == x509.KeyUsageDigitalSignature
	}
	want := x509.KeyUsage(0)
	for _, u := range c.subject.kind.KeyUsage {
		want |= 1 << keyUsageBits[u]
	}
	return c.cert.KeyUsage == want && want&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) == 0
}

func (c candidate) purposed() bool {
	var want []x509.ExtKeyUsage
	switch {
	case c.of == responder:
		want = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}
	case c.of == subscriber && slices.ContainsFunc(c.subject.kind.Extensions, isExtension("extKeyUsage")):
		want = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	}
	return slices.Equal(c.cert.ExtKeyUsage, want) && len(c.cert.UnknownExtKeyUsage) == 0
}

func isExtension(name string) func(string) bool {
	return func(e string) bool { return strings.TrimSuffix(e, "!") == name }
}

func (c candidate) underPolicy() bool {
	value := c.extension("certificatePolicies")
	var policies, info, qualifiers, qualifier, cps cryptobyte.String
	var policy, kind asn1.ObjectIdentifier
	want, err := parseOID(c.subject.kind.Policy)
	return err == nil && value.ReadASN1(&policies, cbasn1.SEQUENCE) && value.Empty() &&
		policies.ReadASN1(&info, cbasn1.SEQUENCE) && policies.Empty() &&
		info.ReadASN1ObjectIdentifier(&policy) && policy.Equal(want) && info.ReadASN1(&qualifiers, cbasn1.SEQUENCE) && info.Empty() &&
		qualifiers.ReadASN1(&qualifier, cbasn1.SEQUENCE) && qualifiers.Empty() &&
		qualifier.ReadASN1ObjectIdentifier(&kind) && kind.Equal(oidCPS) && qualifier.ReadASN1(&cps, cbasn1.IA5String) && qualifier.Empty() &&
		string(cps) == c.subject.profile.CPS
}

// attributed decodes subjectAltName; a kind without it passes.
func (c candidate) attributed() bool {
	if !c.signs() {
		return true
	}
	s := c.subject
	want := s.profile.Characters.certifiable(s.attributes)
	value := c.extension("subjectAltName")
	var names cryptobyte.String
	if !value.ReadASN1(&names, cbasn1.SEQUENCE) || !value.Empty() {
		return false
	}
	for _, a := range s.profile.Attributes {
		var name, wrapped, text cryptobyte.String
		var id asn1.ObjectIdentifier
		field, _ := attributeValue(want, a.Field)
		if !names.ReadASN1(&name, constructed(0)) || !name.ReadASN1ObjectIdentifier(&id) || id.String() != a.Type ||
			!name.ReadASN1(&wrapped, constructed(0)) || !name.Empty() || !wrapped.ReadASN1(&text, cbasn1.UTF8String) || !wrapped.Empty() || string(text) != field {
			return false
		}
	}
	for text, marks := range map[string]string{want.Name: want.NameSubstitutes, want.Address: want.AddressSubstitutes} {
		if utf8.RuneCountInString(text) != len(marks) || strings.ContainsFunc(text, func(r rune) bool { return !s.profile.Characters.allowed[r] }) {
			return false
		}
	}
	return names.Empty()
}

// signs reports whether the kind is for signatures, the ones that carry attributes.
func (c candidate) signs() bool {
	return slices.ContainsFunc(c.subject.kind.Extensions, isExtension("subjectAltName"))
}

// anonymous looks for the octets of name and address. Text of a few octets would be found by chance.
func (c candidate) anonymous() bool {
	const byChance = 8
	if c.signs() {
		return true
	}
	written := c.subject.profile.Characters.certifiable(c.subject.attributes)
	for _, text := range []string{c.subject.attributes.Name, c.subject.attributes.Address, written.Name, written.Address} {
		if len(text) > byChance && bytes.Contains(c.cert.Raw, []byte(text)) {
			return false
		}
	}
	return true
}

func (c candidate) alternativelyNamed() bool {
	of, alt := "subjectAltName", []string(nil)
	if c.of == authority {
		alt = c.profile.Authorities[c.name].AltName
	} else if of, alt = "issuerAltName", c.subject.authority.AltName; !slices.ContainsFunc(c.subject.kind.Extensions, isExtension(of)) {
		return true
	}
	value := c.extension(of)
	var names, name cryptobyte.String
	return value.ReadASN1(&names, cbasn1.SEQUENCE) && value.Empty() && names.ReadASN1(&name, constructed(4)) && names.Empty() &&
		slices.Equal(readName(&name), alt)
}

func (c candidate) listed() bool {
	value := c.extension("cRLDistributionPoints")
	var points, point, choice, names, url, directory cryptobyte.String
	if !value.ReadASN1(&points, cbasn1.SEQUENCE) || !value.Empty() || !points.ReadASN1(&point, cbasn1.SEQUENCE) || !points.Empty() ||
		!point.ReadASN1(&choice, constructed(0)) || !point.Empty() || !choice.ReadASN1(&names, constructed(0)) || !choice.Empty() {
		return false
	}
	want := c.cert.RawSubject
	if c.of == subscriber {
		want = c.subject.scope.DirectoryName
		if !names.ReadASN1(&url, cbasn1.Tag(6).ContextSpecific()) || string(url) != c.subject.scope.URL {
			return false
		}
	}
	return names.ReadASN1(&directory, constructed(4)) && names.Empty() && bytes.Equal(directory, want)
}

func (c candidate) authorised() bool {
	if c.of == responder {
		return len(c.issuer.SubjectKeyId) > 0 && bytes.Equal(c.cert.AuthorityKeyId, c.issuer.SubjectKeyId)
	}
	value := c.extension("authorityKeyIdentifier")
	var id, key, names, name, serial cryptobyte.String
	return value.ReadASN1(&id, cbasn1.SEQUENCE) && value.Empty() &&
		id.ReadASN1(&key, cbasn1.Tag(0).ContextSpecific()) && bytes.Equal(key, c.issuer.SubjectKeyId) &&
		id.ReadASN1(&names, constructed(1)) && names.ReadASN1(&name, constructed(4)) && names.Empty() && bytes.Equal(name, c.issuer.RawIssuer) &&
		id.ReadASN1(&serial, cbasn1.Tag(2).ContextSpecific()) && bytes.Equal(bytes.TrimLeft(serial, "\x00"), c.issuer.SerialNumber.Bytes()) && id.Empty()
}

// extension returns an extension's value, empty when there is none.
func (c candidate) extension(name string) cryptobyte.String {
	for _, e := range c.cert.Extensions {
		if extensionName(e.Id) == name {
			return e.Value
		}
	}
	return nil
}

// readName reads a Name as the profile writes names; nil if it is anything else or its string types are not ours.
func readName(s *cryptobyte.String) (out []string) {
	var name cryptobyte.String
	if !s.ReadASN1(&name, cbasn1.SEQUENCE) || !s.Empty() {
		return nil
	}
	for !name.Empty() {
		var rdn, attribute, value cryptobyte.String
		var id asn1.ObjectIdentifier
		var tag cbasn1.Tag
		if !name.ReadASN1(&rdn, cbasn1.SET) || !rdn.ReadASN1(&attribute, cbasn1.SEQUENCE) || !rdn.Empty() ||
			!attribute.ReadASN1ObjectIdentifier(&id) || !attribute.ReadAnyASN1(&value, &tag) || !attribute.Empty() {
			return nil
		}
		typ := ""
		for t, oid := range nameTypes {
			if oid.Equal(id) {
				typ = t
			}
		}
		if want := map[bool]cbasn1.Tag{true: cbasn1.PrintableString, false: cbasn1.UTF8String}[typ == "C"]; typ == "" || tag != want {
			return nil
		}
		out = append(out, typ+"="+string(value))
	}
	return out
}

// constructed is a constructed context-specific tag.
func constructed(n uint8) cbasn1.Tag { return cbasn1.Tag(n).ContextSpecific().Constructed() }
