package cms

import (
	"bytes"
	"crypto"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/openjpki/jpki/verifier/primitive"
)

// count returns how many values attributes of one type have together; an attribute without a value counts as two, since it
// is as wrong.
func count(attrs []Attribute, oid string) int {
	n := 0
	for _, a := range attrs {
		if a.oid == oid {
			if n += len(a.Values); len(a.Values) == 0 {
				n += 2
			}
		}
	}
	return n
}

// single returns the value of an attribute that stands there once, with one value.
func single(attrs []Attribute, oid string) ([]byte, bool) {
	if count(attrs, oid) != 1 {
		return nil, false
	}
	for _, a := range attrs {
		if a.oid == oid && len(a.Values) == 1 {
			return a.Values[0], true
		}
	}
	return nil, false
}

// octets returns what is in an OCTET STRING, a part of element; nil if it is none.
func octets(element []byte) []byte {
	in := cryptobyte.String(element)
	var out cryptobyte.String
	if !in.ReadASN1(&out, cbasn1.OCTET_STRING) || !in.Empty() {
		return nil
	}
	return out
}

// objectID returns the content octets of an OBJECT IDENTIFIER; nil if it is none.
func objectID(element []byte) []byte {
	in := cryptobyte.String(element)
	var out cryptobyte.String
	if !in.ReadASN1(&out, cbasn1.OBJECT_IDENTIFIER) || !in.Empty() {
		return nil
	}
	return out
}

// describe reads what the signer states. What cannot be read is left empty: nothing here decides anything.
func (out *Signature) describe(s *signer) {
	if v, ok := single(s.signed, oidSigningTime); ok {
		if at, ok := utcTime(v); ok {
			out.SigningTime = at
		} else if in := cryptobyte.String(v); !in.ReadASN1UTCTime(&out.SigningTime) {
			in.ReadASN1GeneralizedTime(&out.SigningTime)
		}
	}
	out.PolicyID, out.Policy = policyOf(s)
	for _, a := range s.signed {
		switch a.oid {
		case oidCommitment:
			for _, v := range a.Values {
				var seq, id cryptobyte.String
				if in := cryptobyte.String(v); in.ReadASN1(&seq, cbasn1.SEQUENCE) && seq.ReadASN1(&id, cbasn1.OBJECT_IDENTIFIER) && len(out.Commitments) < maxCommitments {
					out.Commitments = append(out.Commitments, primitive.DottedOID(string(id)))
				}
			}
		case oidSignerAttributes, oidSignerAttributesV2:
			out.ClaimsRoles = true
		}
	}
	if v, ok := single(s.signed, oidMIMEType); ok {
		out.MIMEType = utf8(v)
	}
	if v, ok := single(s.signed, oidContentHints); ok {
		in := cryptobyte.String(v)
		var seq, text, id cryptobyte.String
		if in.ReadASN1(&seq, cbasn1.SEQUENCE) {
			if seq.PeekASN1Tag(cbasn1.UTF8String) && seq.ReadASN1Element(&text, cbasn1.UTF8String) {
				out.Hints.Description = utf8(text)
			}
			if seq.ReadASN1(&id, cbasn1.OBJECT_IDENTIFIER) {
				out.Hints.Type = primitive.DottedOID(string(id))
			}
		}
	}
}

// utcTime reads a UTCTime of the form that DER wants (X.690 §11.8), to the second and in UTC; package cryptobyte reads all others.
func utcTime(element []byte) (at time.Time, ok bool) {
	if len(element) != 15 || element[0] != byte(cbasn1.UTCTime) || element[1] != 13 || element[14] != 'Z' {
		return at, false
	}
	var n [6]int // year to second
	for i := range n {
		tens, ones := element[2+2*i]-'0', element[3+2*i]-'0'
		if tens > 9 || ones > 9 {
			return at, false
		}
		n[i] = 10*int(tens) + int(ones)
	}
	if n[0] += 1900; n[0] < 1950 { // RFC 5280 §4.1.2.5.1
		n[0] += 100
	}
	at = time.Date(n[0], time.Month(n[1]), n[2], n[3], n[4], n[5], 0, time.UTC)
	return at, at.Month() == time.Month(n[1]) && at.Day() == n[2] && at.Hour() == n[3] && at.Minute() == n[4] && at.Second() == n[5]
}

// What [Signature.PolicyID] is for a policy without an identifier: it is that of the signer all the same, and must not be taken for none.
const (
	PolicyImplied    = "implied"    // by what was signed, or agreed upon elsewhere (RFC 5126 §5.8.1)
	PolicyUnreadable = "unreadable" // the attribute cannot be read, or is there twice
)

const maxCommitments = 32

// policyOf returns the signature policy (EN 319 122-1 §5.2.9.1) and what is said of its document.
func policyOf(s *signer) (string, *primitive.PolicyReference) {
	if !slices.ContainsFunc(s.signed, func(a Attribute) bool { return a.oid == oidPolicyID }) {
		return "", nil
	}
	v, _ := single(s.signed, oidPolicyID)
	in := cryptobyte.String(v)
	var seq, id, hash, alg, digest, qualifiers cryptobyte.String
	if bytes.Equal(v, []byte{5, 0}) {
		return PolicyImplied, nil
	}
	if !in.ReadASN1(&seq, cbasn1.SEQUENCE) || !in.Empty() || !seq.ReadASN1(&id, cbasn1.OBJECT_IDENTIFIER) || primitive.DottedOID(string(id)) == "" ||
		!seq.ReadASN1(&hash, cbasn1.SEQUENCE) || !hash.ReadASN1Element(&alg, cbasn1.SEQUENCE) || !hash.ReadASN1(&digest, cbasn1.OCTET_STRING) || !hash.Empty() ||
		!seq.ReadOptionalASN1(&qualifiers, nil, cbasn1.SEQUENCE) || !seq.Empty() {
		return PolicyUnreadable, nil
	}
	ref := &primitive.PolicyReference{Specified: true}
	if !primitive.IsZeroHash(digest) {
		ref.Digest = digest
		ref.Hash, _ = primitive.ParseHash(alg) // one that is not known is found out when it is wanted
	}
	for n := 0; n < MaxAttributes && !qualifiers.Empty(); n++ {
		var one, kind, uri cryptobyte.String
		if !qualifiers.ReadASN1(&one, cbasn1.SEQUENCE) || !one.ReadASN1(&kind, cbasn1.OBJECT_IDENTIFIER) {
			break // to be shown, and no more
		}
		if string(kind) == oidPolicyURI && one.ReadASN1(&uri, cbasn1.IA5String) {
			ref.At(string(uri))
		}
	}
	for _, a := range s.unsigned {
		if a.oid != oidPolicyStore {
			continue
		}
		for _, v := range a.Values {
			var store, document cryptobyte.String
			if in := cryptobyte.String(v); in.ReadASN1(&store, cbasn1.SEQUENCE) && store.ReadAnyASN1Element(new(cryptobyte.String), new(cbasn1.Tag)) &&
				store.ReadASN1(&document, cbasn1.OCTET_STRING) {
				ref.Store(document)
			}
		}
	}
	return primitive.DottedOID(string(id)), ref
}

// maxText is how long a text from a file may be to be repeated.
const maxText = 1024

func utf8(element []byte) string {
	in := cryptobyte.String(element)
	var text cryptobyte.String
	if !in.ReadASN1(&text, cbasn1.UTF8String) || len(text) > maxText {
		return ""
	}
	return string(bytes.ToValidUTF8(text, []byte("\uFFFD")))
}

// A reference is an ESSCertID or ESSCertIDv2: the signed statement which certificate is the signer's.
type reference struct {
	hash   crypto.Hash
	digest []byte
	serial []byte // contents octets; nil if not stated
}

// parseReference reads the first reference of SigningCertificate (RFC 2634 §5.4) or SigningCertificateV2 (RFC 5035 §3),
// which is the one to the signer's certificate.
func parseReference(value []byte, v2 bool) (*reference, error) {
	bad := func() error { return refuse(Malformed, "signed reference to the signer's certificate") }
	in := cryptobyte.String(value)
	var attr, list, id, digest cryptobyte.String
	if !in.ReadASN1(&attr, cbasn1.SEQUENCE) || !in.Empty() || !attr.ReadASN1(&list, cbasn1.SEQUENCE) || !list.ReadASN1(&id, cbasn1.SEQUENCE) {
		return nil, bad()
	}
	ref := &reference{hash: crypto.SHA1}
	if v2 {
		ref.hash = crypto.SHA256
		if id.PeekASN1Tag(cbasn1.SEQUENCE) {
			var alg cryptobyte.String
			id.ReadASN1Element(&alg, cbasn1.SEQUENCE)
			var err error
			if ref.hash, err = primitive.ParseHash(alg); err != nil {
				return nil, fromPrimitive(err)
			}
		}
	}
	if !id.ReadASN1(&digest, cbasn1.OCTET_STRING) || len(digest) != ref.hash.Size() {
		return nil, bad()
	}
	ref.digest = digest
	if !id.Empty() {
		var issuerSerial, names cryptobyte.String
		if !id.ReadASN1(&issuerSerial, cbasn1.SEQUENCE) || !id.Empty() || !issuerSerial.ReadASN1(&names, cbasn1.SEQUENCE) ||
			!readSerial(&issuerSerial, &ref.serial) {
			return nil, bad()
		}
	}
	return ref, nil
}

// matches reports whether the reference is to c. The digest decides; the issuer's name, which software writes in more than
// one encoding, is not compared.
func (r *reference) matches(c *certificate) bool {
	return primitive.IsDigest(r.hash, c.raw, r.digest) && (r.serial == nil || bytes.Equal(r.serial, c.serial))
}
