package cms

import (
	"bytes"
	"fmt"
	"math/big"
	"slices"
	"sync"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/verifier/primitive"
)

// Limits on what one file may bring. They bound the work it can cause; what people sign stays far below.
const (
	MaxBytes        = 64 << 20 // of the file, attached content included
	MaxSigners      = 64       // counter-signatures included
	MaxCertificates = 256
	MaxRevocations  = 1024 // CRLs and OCSP responses
	MaxAttributes   = 128  // of one signer, signed and unsigned each
	MaxTimeStamps   = 64   // of one file
)

// maxNesting is how deep counter-signatures of counter-signatures are read.
const maxNesting = 4

var (
	oidData               = primitive.RawOID("1.2.840.113549.1.7.1")
	oidSignedData         = primitive.RawOID("1.2.840.113549.1.7.2")
	oidTSTInfo            = primitive.RawOID("1.2.840.113549.1.9.16.1.4")
	oidContentType        = primitive.RawOID("1.2.840.113549.1.9.3")
	oidMessageDigest      = primitive.RawOID("1.2.840.113549.1.9.4")
	oidSigningTime        = primitive.RawOID("1.2.840.113549.1.9.5")
	oidCounter            = primitive.RawOID("1.2.840.113549.1.9.6")
	oidProtection         = primitive.RawOID("1.2.840.113549.1.9.52")      // CMSAlgorithmProtection, RFC 6211
	oidSigningCert        = primitive.RawOID("1.2.840.113549.1.9.16.2.12") // ESSCertID, RFC 2634
	oidSigningCertV2      = primitive.RawOID("1.2.840.113549.1.9.16.2.47") // RFC 5035
	oidContentHints       = primitive.RawOID("1.2.840.113549.1.9.16.2.4")  // RFC 2634
	oidPolicyID           = primitive.RawOID("1.2.840.113549.1.9.16.2.15") // signature policy, EN 319 122-1 §5.2.9.1
	oidPolicyURI          = primitive.RawOID("1.2.840.113549.1.9.16.5.1")  // SPuri, EN 319 122-1 §5.2.9.2
	oidPolicyStore        = primitive.RawOID("0.4.0.19122.1.3")            // EN 319 122-1 §5.2.10
	oidCommitment         = primitive.RawOID("1.2.840.113549.1.9.16.2.16") // EN 319 122-1 §5.2.3
	oidMIMEType           = primitive.RawOID("0.4.0.1733.2.1")             // EN 319 122-1 §5.2.4.3
	oidSignerAttributes   = primitive.RawOID("1.2.840.113549.1.9.16.2.18") // RFC 5126 §5.11.3
	oidSignerAttributesV2 = primitive.RawOID("0.4.0.19122.1.1")            // EN 319 122-1 §5.2.6.1
	oidCertValues         = primitive.RawOID("1.2.840.113549.1.9.16.2.23") // EN 319 122-1 annex A.1.1.2
	oidRevValues          = primitive.RawOID("1.2.840.113549.1.9.16.2.24") // and A.1.2.2
	oidAdobeRevocation    = primitive.RawOID("1.2.840.113583.1.1.8")       // ISO 32000, signed
	oidHashIndex          = primitive.RawOID("0.4.0.1733.2.5")             // TS 101 733 §6.4.2
	oidHashIndexV3        = primitive.RawOID("0.4.0.19122.1.5")            // EN 319 122-1 §5.5.2
	oidRIOCSPResponse     = primitive.RawOID("1.3.6.1.5.5.7.16.2")         // RFC 5940 §2.1
	oidRIOCSPBasic        = primitive.RawOID("1.3.6.1.5.5.7.48.1.1")       // what CAdES files have instead
)

// knownOIDs are those that nearly every signature has.
var knownOIDs = map[string]string{
	oidData: oidData, oidTSTInfo: oidTSTInfo,
	oidContentType: oidContentType, oidMessageDigest: oidMessageDigest, oidSigningTime: oidSigningTime,
	oidSigningCert: oidSigningCert, oidSigningCertV2: oidSigningCertV2, oidProtection: oidProtection, oidMIMEType: oidMIMEType,
}

// A SignedData is a parsed CMS file, about which nothing is established yet. All octets are DER, and parts of what was
// parsed: the caller must not change either.
type SignedData struct {
	// Content is what was signed, if it is attached; Detached says that it is not.
	Content  []byte
	Detached bool
	// Certificates are all in the file, in its order, duplicates left out: those of the field of that name first, then
	// those in signers' certificate-values. Nothing is said about any of them; not even that it can be parsed.
	Certificates [][]byte
	// CRLs and OCSPs are the revocation information of the file, from the crls field and from signers' attributes. Members
	// of OCSPs are OCSPResponses or BasicOCSPResponses, as the file has them.
	CRLs  [][]byte
	OCSPs [][]byte

	contentType string                                // content octets of the OID
	field       struct{ certificates, crls [][]byte } // elements as they stand in the two fields, for archive time-stamps
	signers     []*signer
	budget      budget
}

// budget is what is left of the limits that count over a whole file.
type budget struct{ signers, timeStamps, revocations int }

// ContentType returns the OID of the content's type in dotted form: "1.2.840.113549.1.7.1" for plain data.
func (d *SignedData) ContentType() string { return primitive.DottedOID(d.contentType) }

// Signers returns how many signatures there are, counter-signatures not counted.
func (d *SignedData) Signers() int { return len(d.signers) }

// A signer is a SignerInfo, taken apart.
type signer struct {
	version, sid, digestAlg, signedRaw, sigAlg, signature []byte // elements, in the order of the structure

	value    []byte // of the signature
	issuer   []byte // of the certificate, or …
	serial   []byte
	keyID    []byte // … its subject key identifier
	signed   []Attribute
	unsigned []Attribute
	counters []counter
	stamps   []stamp
}

// A counter is a counter-signature, or what stands in the place of one.
type counter struct {
	signer *signer
	err    error
}

// An Attribute is a CMS attribute as it stands in the file.
type Attribute struct {
	Values [][]byte // DER elements

	oid string // content octets
	raw []byte
}

// OID returns the attribute's type in dotted form.
func (a Attribute) OID() string { return primitive.DottedOID(a.oid) }

// Parse reads a CMS file with a SignedData inside, DER or BER. Octets behind it are refused.
func Parse(raw []byte) (*SignedData, error) {
	d, rest, err := parsePrefix(raw)
	if err == nil && len(rest) > 0 {
		return nil, jpki.Errorf(jpki.Malformed, "CMS: %d octets behind the end", len(rest))
	}
	return d, err
}

// ParsePadded is Parse for places of fixed size, such as the Contents of a PDF signature: octets 0 may follow.
func ParsePadded(raw []byte) (*SignedData, error) {
	d, rest, err := parsePrefix(raw)
	if err == nil && len(bytes.TrimRight(rest, "\x00")) > 0 {
		return nil, jpki.Errorf(jpki.Malformed, "CMS: octets other than 0 behind the end")
	}
	return d, err
}

func parsePrefix(raw []byte) (*SignedData, []byte, error) {
	if len(raw) > MaxBytes {
		return nil, nil, jpki.Errorf(jpki.TooLarge, "CMS: longer than %d octets", MaxBytes)
	}
	der, used, err := definite(raw)
	if err != nil {
		return nil, nil, jpki.WrapError(jpki.Malformed, err, "CMS: neither DER nor BER")
	}
	d := &SignedData{budget: budget{MaxSigners, MaxTimeStamps, MaxRevocations}}
	if err := d.parse(der); err != nil {
		return nil, nil, jpki.WrapError(jpki.Malformed, err, "CMS: no SignedData within the limits")
	}
	return d, raw[used:], nil
}

// malformed names the part that is wrong.
func malformed(part string) error { return fmt.Errorf("%s: malformed or beyond a limit", part) }

func context(n uint8) cbasn1.Tag { return cbasn1.Tag(n).ContextSpecific().Constructed() }

// parse reads ContentInfo and SignedData (RFC 5652 §3, §5.1).
func (d *SignedData) parse(der cryptobyte.String) error {
	var info, oid, body, sd cryptobyte.String
	if !der.ReadASN1(&info, cbasn1.SEQUENCE) || !info.ReadASN1(&oid, cbasn1.OBJECT_IDENTIFIER) || string(oid) != oidSignedData ||
		!info.ReadASN1(&body, context(0)) || !info.Empty() || !body.ReadASN1(&sd, cbasn1.SEQUENCE) || !body.Empty() {
		return malformed("ContentInfo")
	}
	var version int
	var digests, encap, certs, crls, signers cryptobyte.String
	if !sd.ReadASN1Integer(&version) || version < 1 || version > 5 || !sd.ReadASN1(&digests, cbasn1.SET) ||
		!sd.ReadASN1(&encap, cbasn1.SEQUENCE) || !sd.ReadOptionalASN1(&certs, nil, context(0)) ||
		!sd.ReadOptionalASN1(&crls, nil, context(1)) || !sd.ReadASN1(&signers, cbasn1.SET) || !sd.Empty() {
		return malformed("SignedData")
	}
	if err := d.parseContent(encap); err != nil {
		return err
	}
	if err := d.parseCertificates(certs); err != nil {
		return err
	}
	if err := d.parseRevocations(crls); err != nil {
		return err
	}
	for !signers.Empty() {
		var one cryptobyte.String
		if !signers.ReadASN1Element(&one, cbasn1.SEQUENCE) {
			return malformed("SignerInfos")
		}
		s, err := d.parseSigner(one, 0)
		if err != nil {
			return err
		}
		d.signers = append(d.signers, s)
	}
	return nil
}

// parseContent reads EncapsulatedContentInfo (RFC 5652 §5.2). A SEQUENCE instead of an OCTET STRING is content of
// PKCS #7: its content octets count (§5.2.1).
func (d *SignedData) parseContent(encap cryptobyte.String) error {
	var oid, content cryptobyte.String
	var there bool
	if !encap.ReadASN1(&oid, cbasn1.OBJECT_IDENTIFIER) || !encap.ReadOptionalASN1(&content, &there, context(0)) || !encap.Empty() {
		return malformed("EncapsulatedContentInfo")
	}
	d.contentType, d.Detached = knownOID(oid), !there
	if there {
		var inner cryptobyte.String
		var tag cbasn1.Tag
		if !content.ReadAnyASN1(&inner, &tag) || !content.Empty() ||
			tag != cbasn1.OCTET_STRING && (tag != cbasn1.SEQUENCE || d.contentType == oidData) {
			return malformed("EncapsulatedContentInfo")
		}
		d.Content = inner
	}
	return nil
}

func (d *SignedData) parseCertificates(certs cryptobyte.String) error {
	for n := 0; !certs.Empty(); n++ {
		var one cryptobyte.String
		var tag cbasn1.Tag
		if n == MaxCertificates || !certs.ReadAnyASN1Element(&one, &tag) {
			return malformed("certificates")
		}
		d.field.certificates = append(d.field.certificates, one)
		if tag == cbasn1.SEQUENCE { // others are attribute certificates and the like
			d.addCertificate(one)
		}
	}
	return nil
}

func (d *SignedData) addCertificate(der []byte) {
	if slices.ContainsFunc(d.Certificates, func(c []byte) bool { return bytes.Equal(c, der) }) || len(d.Certificates) >= 2*MaxCertificates {
		return
	}
	d.Certificates = append(d.Certificates, der)
}

// parseRevocations reads RevocationInfoChoices (RFC 5652 §10.2.1, RFC 5940). What is of a kind nobody knows is left out.
func (d *SignedData) parseRevocations(crls cryptobyte.String) error {
	for !crls.Empty() {
		var one cryptobyte.String
		var tag cbasn1.Tag
		if !crls.ReadAnyASN1Element(&one, &tag) || d.budget.revocations == 0 {
			return malformed("crls")
		}
		d.field.crls = append(d.field.crls, one)
		d.budget.revocations--
		var other, oid, response cryptobyte.String
		switch element := one; {
		case tag == cbasn1.SEQUENCE:
			d.CRLs = append(d.CRLs, one)
		case tag == context(1) && element.ReadASN1(&other, tag) && other.ReadASN1(&oid, cbasn1.OBJECT_IDENTIFIER) &&
			(string(oid) == oidRIOCSPResponse || string(oid) == oidRIOCSPBasic) && other.ReadASN1Element(&response, cbasn1.SEQUENCE):
			d.OCSPs = append(d.OCSPs, response)
		}
	}
	return nil
}

// parseSigner reads SignerInfo (RFC 5652 §5.3).
func (d *SignedData) parseSigner(der cryptobyte.String, depth int) (*signer, error) {
	if d.budget.signers == 0 || depth > maxNesting {
		return nil, malformed("SignerInfos: too many")
	}
	d.budget.signers--
	s := &signer{}
	var in, unsigned cryptobyte.String
	var tag cbasn1.Tag
	take := func(out *[]byte, tag cbasn1.Tag) bool { return in.ReadASN1Element((*cryptobyte.String)(out), tag) }
	if !der.ReadASN1(&in, cbasn1.SEQUENCE) || !take(&s.version, cbasn1.INTEGER) ||
		!in.ReadAnyASN1Element((*cryptobyte.String)(&s.sid), &tag) || !s.parseID(tag) || !take(&s.digestAlg, cbasn1.SEQUENCE) {
		return nil, malformed("SignerInfo")
	}
	if in.PeekASN1Tag(context(0)) && !take(&s.signedRaw, context(0)) {
		return nil, malformed("signed attributes")
	}
	if !take(&s.sigAlg, cbasn1.SEQUENCE) || !take(&s.signature, cbasn1.OCTET_STRING) ||
		!in.ReadOptionalASN1(&unsigned, nil, context(1)) || !in.Empty() {
		return nil, malformed("SignerInfo")
	}
	version := cryptobyte.String(s.version)
	if n := 0; !version.ReadASN1Integer(&n) || n != 1 && n != 3 {
		return nil, malformed("SignerInfo: version")
	}
	element := cryptobyte.String(s.signature)
	element.ReadASN1((*cryptobyte.String)(&s.value), cbasn1.OCTET_STRING)
	if s.signedRaw != nil {
		signed := cryptobyte.String(s.signedRaw)
		signed.ReadASN1(&signed, context(0))
		var err error
		if s.signed, err = parseAttributes(signed); err != nil {
			return nil, err
		}
	}
	var err error
	if s.unsigned, err = parseAttributes(unsigned); err != nil {
		return nil, err
	}
	d.gather(s, depth)
	return s, nil
}

// parseID reads SignerIdentifier.
func (s *signer) parseID(tag cbasn1.Tag) bool {
	element := cryptobyte.String(s.sid)
	if tag == cbasn1.Tag(0).ContextSpecific() {
		return element.ReadASN1((*cryptobyte.String)(&s.keyID), tag) && len(s.keyID) > 0
	}
	var seq, issuer cryptobyte.String
	ok := element.ReadASN1(&seq, cbasn1.SEQUENCE) && seq.ReadASN1Element(&issuer, cbasn1.SEQUENCE) && readSerial(&seq, &s.serial) && seq.Empty()
	s.issuer = issuer
	return ok
}

func parseAttributes(set cryptobyte.String) ([]Attribute, error) {
	var out []Attribute
	var room [][]byte // for the values
	if n := elements(set); n > 0 {
		out, room = make([]Attribute, 0, n), make([][]byte, n)
	}
	for !set.Empty() {
		var raw, seq, oid, values cryptobyte.String
		if len(out) == MaxAttributes || !set.ReadASN1Element(&raw, cbasn1.SEQUENCE) {
			return nil, malformed("attributes")
		}
		element := raw
		if !element.ReadASN1(&seq, cbasn1.SEQUENCE) || !seq.ReadASN1(&oid, cbasn1.OBJECT_IDENTIFIER) ||
			!seq.ReadASN1(&values, cbasn1.SET) || !seq.Empty() {
			return nil, malformed("attribute")
		}
		a := Attribute{oid: knownOID(oid), raw: raw}
		if len(room) > 0 {
			a.Values, room = room[:0:1], room[1:]
		}
		for !values.Empty() {
			var v cryptobyte.String
			if len(a.Values) == MaxAttributes || !values.ReadAnyASN1Element(&v, new(cbasn1.Tag)) {
				return nil, malformed("attribute")
			}
			a.Values = append(a.Values, v)
		}
		out = append(out, a)
	}
	return out, nil
}

// elements counts the elements of a SET, no further than attributes are read.
func elements(set cryptobyte.String) (n int) {
	var one cryptobyte.String
	for n < MaxAttributes && set.ReadAnyASN1Element(&one, new(cbasn1.Tag)) {
		n++
	}
	return n
}

// knownOID returns the type of an attribute or of content: our own string, if it is one that is acted upon.
func knownOID(oid []byte) string {
	if known, ok := knownOIDs[string(oid)]; ok {
		return known
	}
	return string(oid)
}

// gather reads what attributes hold that is more than a fact: counter-signatures, time-stamps, certificates and
// revocation information. What cannot be read is left out or becomes a broken counter-signature or time-stamp: none of it
// may make the signature itself look broken, since anybody can add it.
func (d *SignedData) gather(s *signer, depth int) {
	for _, signed := range []bool{true, false} {
		list := s.unsigned
		if signed {
			list = s.signed
		}
		for _, a := range list {
			kind := stampKinds[a.oid]
			for _, v := range a.Values {
				switch {
				case !signed && a.oid == oidCounter:
					one, err := d.parseSigner(v, depth+1)
					s.counters = append(s.counters, counter{one, err})
				case kind != "" && signed == (kind == ContentTimeStamp):
					if d.budget.timeStamps--; d.budget.timeStamps >= 0 {
						s.stamps = append(s.stamps, newStamp(kind, v))
					}
				case !signed && a.oid == oidCertValues:
					d.gatherCertificates(v)
				case !signed && a.oid == oidRevValues:
					d.gatherRevocations(v)
				case signed && a.oid == oidAdobeRevocation:
					d.gatherRevocations(v)
				}
			}
		}
	}
}

// gatherCertificates reads CertificateValues (EN 319 122-1 annex A.1.1.2).
func (d *SignedData) gatherCertificates(v cryptobyte.String) {
	var seq, one cryptobyte.String
	if v.ReadASN1(&seq, cbasn1.SEQUENCE) {
		for n := 0; n < MaxCertificates && seq.ReadASN1Element(&one, cbasn1.SEQUENCE); n++ {
			d.addCertificate(one)
		}
	}
}

// gatherRevocations reads RevocationValues (EN 319 122-1 annex A.1.2.2: [0] CRLs, [1] OCSP responses), which Adobe's
// attribute resembles enough.
func (d *SignedData) gatherRevocations(v cryptobyte.String) {
	var seq cryptobyte.String
	if !v.ReadASN1(&seq, cbasn1.SEQUENCE) {
		return
	}
	for n, to := range []*[][]byte{&d.CRLs, &d.OCSPs} {
		var list, one cryptobyte.String
		if !seq.ReadOptionalASN1(&list, nil, context(uint8(n))) || !list.Empty() && !list.ReadASN1(&list, cbasn1.SEQUENCE) {
			return
		}
		for d.budget.revocations > 0 && list.ReadASN1Element(&one, cbasn1.SEQUENCE) {
			d.budget.revocations--
			*to = append(*to, one)
		}
	}
}

// A certificate is what has to be known of a certificate to find it and to take its key.
type certificate struct {
	raw, issuer, spki, keyID []byte
	serial                   []byte // contents octets of the INTEGER
	usage                    []byte // the value of extKeyUsage
	usageCritical            bool

	once   sync.Once
	public *primitive.Key
	keyErr error
}

var (
	oidSubjectKeyID = primitive.RawOID("2.5.29.14")
	oidExtKeyUsage  = primitive.RawOID("2.5.29.37")
)

// parseCertificate reads a certificate as far as needed; nil if it is none. Path validation parses it in earnest.
func parseCertificate(der []byte) *certificate {
	c := &certificate{raw: der}
	in := cryptobyte.String(der)
	var outer, tbs, skip, issuer, spki, list, exts cryptobyte.String
	if !in.ReadASN1(&outer, cbasn1.SEQUENCE) || !outer.ReadASN1(&tbs, cbasn1.SEQUENCE) || !tbs.SkipOptionalASN1(context(0)) ||
		!readSerial(&tbs, &c.serial) || !tbs.ReadASN1(&skip, cbasn1.SEQUENCE) || !tbs.ReadASN1Element(&issuer, cbasn1.SEQUENCE) ||
		!tbs.ReadASN1(&skip, cbasn1.SEQUENCE) || !tbs.ReadASN1(&skip, cbasn1.SEQUENCE) || !tbs.ReadASN1Element(&spki, cbasn1.SEQUENCE) ||
		!tbs.SkipOptionalASN1(cbasn1.Tag(1).ContextSpecific()) || !tbs.SkipOptionalASN1(cbasn1.Tag(2).ContextSpecific()) ||
		!tbs.ReadOptionalASN1(&list, nil, context(3)) || !list.Empty() && !list.ReadASN1(&exts, cbasn1.SEQUENCE) {
		return nil
	}
	c.issuer, c.spki = issuer, spki
	for !exts.Empty() {
		var ext, oid, value cryptobyte.String
		var critical bool
		if !exts.ReadASN1(&ext, cbasn1.SEQUENCE) || !ext.ReadASN1(&oid, cbasn1.OBJECT_IDENTIFIER) ||
			!readFlag(&ext, &critical) || !ext.ReadASN1(&value, cbasn1.OCTET_STRING) {
			return nil
		}
		switch string(oid) {
		case oidSubjectKeyID:
			value.ReadASN1((*cryptobyte.String)(&c.keyID), cbasn1.OCTET_STRING)
		case oidExtKeyUsage:
			c.usage, c.usageCritical = value, critical
		}
	}
	return c
}

// readSerial reads the contents octets of an INTEGER in their shortest form, which DER makes the only one (X.690 §8.3.2).
func readSerial(in *cryptobyte.String, out *[]byte) bool {
	if !in.ReadASN1((*cryptobyte.String)(out), cbasn1.INTEGER) {
		return false
	}
	n := *out
	return len(n) == 1 || len(n) > 1 && (n[0] != 0 || n[1]&0x80 != 0) && (n[0] != 0xff || n[1]&0x80 == 0)
}

// number returns what such octets are.
func number(octets []byte) *big.Int {
	if octets == nil {
		return nil
	}
	n := new(big.Int).SetBytes(octets)
	if octets[0]&0x80 != 0 { // two's complement
		n.Sub(n, new(big.Int).Lsh(big.NewInt(1), uint(8*len(octets))))
	}
	return n
}

// readFlag reads a BOOLEAN DEFAULT FALSE.
func readFlag(in *cryptobyte.String, out *bool) bool {
	return !in.PeekASN1Tag(cbasn1.BOOLEAN) || in.ReadASN1Boolean(out)
}

// key returns the certificate's public key.
func (c *certificate) key() (*primitive.Key, error) {
	c.once.Do(func() { c.public, c.keyErr = primitive.ParseKey(c.spki) })
	return c.public, c.keyErr
}
