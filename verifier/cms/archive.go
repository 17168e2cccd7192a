package cms

import (
	"crypto"
	"errors"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/openjpki/jpki/verifier/primitive"
)

var errIndex = errors.New("the time-stamp's index of hashes cannot be read")

// archived returns the digest that an archive time-stamp of the third kind must have stamped (EN 319 122-1 §5.5.3): over
// the content's type and digest, the signer's fields, and the index of hashes of the rest, which stands in the token. It is
// an error if that index has the hash of something that is not there: then part of what was archived is gone or changed.
func (v *verification) archived(t *Token, s *signer, about *content, contentType string) ([]byte, error) {
	index, err := t.index()
	if err != nil {
		return nil, err
	}
	digest := about.digest(t.Hash)
	sum := primitive.NewHash(t.Hash)
	if digest == nil || sum == nil {
		return nil, nil
	}
	oid, err := marshalOID(contentType)
	if err != nil {
		return nil, err
	}
	for _, part := range [][]byte{oid, digest, s.version, s.sid, s.digestAlg, s.signedRaw, s.sigAlg, s.signature, index.raw} {
		sum.Write(part)
	}
	return sum.Sum(nil), v.indexed(index, s)
}

// A hashIndex is an ATSHashIndex or ATSHashIndexV3: the hashes of what an archive time-stamp covers.
type hashIndex struct {
	raw                       []byte
	hash                      crypto.Hash
	certificates, crls, attrs [][]byte
	byValue                   bool // attrs are over one value each, not whole attributes
}

// index reads the token's index of hashes (EN 319 122-1 §5.5.2, TS 101 733 §6.4.2), an unsigned attribute of the token.
func (t *Token) index() (*hashIndex, error) {
	attrs := t.Data.signers[0].unsigned
	x := &hashIndex{hash: crypto.SHA256}
	var ok bool
	if x.raw, ok = single(attrs, oidHashIndexV3); ok {
		x.byValue = true
	} else if x.raw, ok = single(attrs, oidHashIndex); !ok {
		return nil, errIndex
	}
	in := cryptobyte.String(x.raw)
	var seq cryptobyte.String
	if !in.ReadASN1(&seq, cbasn1.SEQUENCE) || !in.Empty() {
		return nil, errIndex
	}
	rest := seq
	var alg, inner cryptobyte.String
	if !rest.ReadASN1Element(&alg, cbasn1.SEQUENCE) {
		return nil, errIndex
	}
	element := alg
	if element.ReadASN1(&inner, cbasn1.SEQUENCE) && inner.PeekASN1Tag(cbasn1.OBJECT_IDENTIFIER) { // otherwise the default
		var err error
		if x.hash, err = primitive.ParseHash(alg); err != nil {
			return nil, errIndex
		}
		seq = rest
	}
	for _, to := range []*[][]byte{&x.certificates, &x.crls, &x.attrs} {
		var list cryptobyte.String
		if !seq.ReadASN1(&list, cbasn1.SEQUENCE) {
			return nil, errIndex
		}
		for !list.Empty() {
			var one cryptobyte.String
			if !list.ReadASN1(&one, cbasn1.OCTET_STRING) {
				return nil, errIndex
			}
			*to = append(*to, one)
		}
	}
	if !seq.Empty() {
		return nil, errIndex
	}
	return x, nil
}

// A presence is a set of hashes: of the certificates, the CRLs or one signer's unsigned attributes.
type presence struct {
	hash    crypto.Hash
	of      string
	signer  *signer
	byValue bool
}

// indexed checks that all the index has hashes of is there.
func (v *verification) indexed(x *hashIndex, s *signer) error {
	for _, list := range []struct {
		hashes [][]byte
		key    presence
		things func() [][]byte
	}{
		{x.certificates, presence{x.hash, "a certificate", nil, false}, func() [][]byte { return v.data.field.certificates }},
		{x.crls, presence{x.hash, "a CRL or OCSP response", nil, false}, func() [][]byte { return v.data.field.crls }},
		{x.attrs, presence{x.hash, "an attribute", s, x.byValue}, func() [][]byte { return s.attributes(x.byValue) }},
	} {
		there := v.hashed[list.key]
		if there == nil {
			there = map[string]bool{}
			for _, thing := range list.things() {
				there[string(primitive.Digest(x.hash, thing))] = true
			}
			v.hashed[list.key] = there
		}
		for _, h := range list.hashes {
			if !there[string(h)] {
				return errors.New("the time-stamp covers " + list.key.of + " that is not there")
			}
		}
	}
	return nil
}

// attributes returns what indexes have hashes of: unsigned attributes, or the type with each value.
func (s *signer) attributes(byValue bool) [][]byte {
	var out [][]byte
	for _, a := range s.unsigned {
		if !byValue {
			out = append(out, a.raw)
			continue
		}
		oid, err := marshalOID(a.oid)
		if err != nil {
			continue
		}
		for _, value := range a.Values {
			out = append(out, slices.Concat(oid, value))
		}
	}
	return out
}

func marshalOID(raw string) ([]byte, error) {
	var b cryptobyte.Builder
	addOID(&b, raw)
	return b.Bytes()
}
