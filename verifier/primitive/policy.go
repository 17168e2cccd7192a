package primitive

import (
	"bytes"
	"crypto"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// A PolicyReference is what a signer says of the document that a signature policy is written in. Formats read it, each in its way.
type PolicyReference struct {
	Hash   crypto.Hash // of Digest; zero if it is none that is known here
	Digest []byte      // of the document; nil if the signer did not know it
	URI    string      // where the signer says it is; an outsider's text, to be shown and not opened
	// Stored are documents that came with the signature, added by anybody: to be believed by Digest alone.
	Stored [][]byte
	// Specified says that the digest may be over what the specification of the document's form names, not over all of it: of ASN.1,
	// over what RFC 3125 §3.1 makes signPolicyHash of.
	Specified bool
	// Transform, if set, makes of a document what the digest is over.
	Transform func(document []byte) ([]byte, error)
}

// maxStored is how many documents of a policy are looked at, and maxPolicyURI how long the text of its place may be.
const (
	maxStored    = 4
	maxPolicyURI = 1024
)

// Store adds a document that came along.
func (r *PolicyReference) Store(document []byte) {
	if len(r.Stored) < maxStored {
		r.Stored = append(r.Stored, document)
	}
}

// At sets where the document is said to be.
func (r *PolicyReference) At(uri string) {
	if r.URI == "" && len(uri) <= maxPolicyURI {
		r.URI = string(bytes.ToValidUTF8([]byte(uri), []byte("\uFFFD")))
	}
}

// Check compares a document with the digest that was signed. It is [ErrWrong] if it is another one, and [ErrUnsupported] or
// [ErrMalformed] if that cannot be found out; without a digest, the former.
func (r *PolicyReference) Check(document []byte) error {
	if r.Hash == 0 || r.Digest == nil {
		return fmt.Errorf("digest of a signature policy: %w: none, or by no hash function that is known", ErrUnsupported)
	}
	forms := [][]byte{document}
	if r.Specified {
		if parts, ok := policyInASN1(document); ok {
			forms = append(forms, parts)
		}
	}
	if r.Transform != nil {
		octets, err := r.Transform(document)
		if err != nil {
			return err
		}
		forms = [][]byte{octets}
	}
	for _, octets := range forms {
		if IsDigest(r.Hash, octets, r.Digest) {
			return nil
		}
	}
	return fmt.Errorf("digest of a signature policy: %w", ErrWrong)
}

// policyInASN1 returns what the digest of a SignaturePolicy (RFC 3125 §3.1) is over: signPolicyHashAlg and signPolicyInfo as
// they stand, without the SEQUENCE around them and without the digest behind them.
func policyInASN1(document []byte) (octets []byte, ok bool) {
	in := cryptobyte.String(document)
	var seq, alg, info cryptobyte.String
	if !in.ReadASN1(&seq, cbasn1.SEQUENCE) || !in.Empty() {
		return nil, false
	}
	whole := seq
	if !seq.ReadASN1Element(&alg, cbasn1.SEQUENCE) || !seq.ReadASN1Element(&info, cbasn1.SEQUENCE) {
		return nil, false
	}
	if rest := seq; !rest.Empty() && (!rest.SkipASN1(cbasn1.OCTET_STRING) || !rest.Empty()) {
		return nil, false
	}
	return whole[:len(alg)+len(info)], true
}

// IsZeroHash reports whether a digest says that it is not known (EN 319 122-1 §5.2.9.1: octets of zero, any number of them).
func IsZeroHash(digest []byte) bool { return len(bytes.Trim(digest, "\x00")) == 0 }
