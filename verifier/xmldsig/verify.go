package xmldsig

import (
	"crypto"
	"fmt"
	"math/big"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/openjpki/jpki/verifier/primitive"
	"github.com/openjpki/jpki/verifier/xmldsig/c14n"
)

// A Verdict is what computing alone can say of a signature.
type Verdict struct {
	// Err is nil if the value is that of the key over the references, and all of these hold. Otherwise it wraps one of the
	// errors of this package.
	Err         error
	Key         *primitive.Key
	Certificate []byte // the signer's, DER; nil if the signature brought a bare key
}

// maxTries bounds how many keys a signature is tried with.
const maxTries = 20

// Verify checks value, references and what the signer said of the signing certificate. Steps:
//  1. the key, by the signed certificate reference, else the one that fits
//  2. the value over the canonical SignedInfo
//  3. every reference
func (s *Signature) Verify() Verdict {
	if s.malformed != nil {
		return Verdict{Err: s.malformed}
	}
	work := c14n.NewWork(s.options.Limits)
	v := s.signer(work)
	for i := range s.References {
		if v.Err != nil {
			break
		}
		if err := s.check(&s.References[i], work); err != nil {
			v.Err = fmt.Errorf("reference %d: %w", i+1, err)
		}
	}
	return v
}

// Covered returns the digests, by h, of the canonical SignedInfo, which the value is over, and of what each reference names after its
// transforms, in order. It checks neither.
func (s *Signature) Covered(h crypto.Hash) (info []byte, references [][]byte, err error) {
	if s.malformed != nil {
		return nil, nil, s.malformed
	}
	work := c14n.NewWork(s.options.Limits)
	sum := primitive.NewHash(h)
	if sum == nil {
		return nil, nil, fmt.Errorf("%w: hash function", ErrUnsupported)
	}
	if err := s.info.Subtree(true).Within(work).Write(sum, s.method); err != nil {
		return nil, nil, classified(err)
	}
	info = sum.Sum(nil)
	for i := range s.References {
		digest, err := s.digest(&s.References[i], h, work)
		if err != nil {
			return nil, nil, err
		}
		references = append(references, digest)
	}
	return info, references, nil
}

// A candidate may be the key of a signature.
type candidate struct {
	key         *primitive.Key
	certificate []byte
}

// signer finds the key that made the value.
func (s *Signature) signer(work *c14n.Work) Verdict {
	signed := &collector{}
	if err := s.info.Subtree(true).Within(work).Write(signed, s.method); err != nil {
		return Verdict{Err: classified(err)}
	}
	all, others := s.candidates()
	last := Verdict{Err: ErrNoKey}
	if others {
		last.Err = ErrCertificate
	}
	for _, c := range all {
		last = Verdict{Key: c.key, Certificate: c.certificate}
		err := primitive.VerifyMessage(c.key, s.Algorithm, signed.octets, ecdsaValue(c.key, s.Algorithm, s.Value))
		if err == nil {
			return last
		}
		last.Err = fmt.Errorf("%w: %w", ErrValue, err)
	}
	return last
}

// ecdsaValue brings an ECDSA value into the form of XML-DSig §6.4.3, two numbers of full length. There are signers that
// write DER, and some that write numbers shorter or longer than they are to be.
func ecdsaValue(key *primitive.Key, alg primitive.Algorithm, value []byte) []byte {
	size := (key.Bits + 7) / 8
	if alg.Scheme != primitive.ECDSA || len(value) == 2*size || len(value) > 4*size {
		return value
	}
	r, s := new(big.Int), new(big.Int)
	input := cryptobyte.String(value)
	var seq cryptobyte.String
	switch {
	case input.ReadASN1(&seq, asn1.SEQUENCE) && input.Empty() && seq.ReadASN1Integer(r) && seq.ReadASN1Integer(s) && seq.Empty():
	case len(value)%2 == 0:
		r.SetBytes(value[:len(value)/2])
		s.SetBytes(value[len(value)/2:])
	default:
		return value
	}
	if r.Sign() <= 0 || s.Sign() <= 0 || r.BitLen() > size*8 || s.BitLen() > size*8 {
		return value
	}
	return append(r.FillBytes(make([]byte, size)), s.FillBytes(make([]byte, size))...)
}

// candidates lists keys in the order in which they are tried: of certificates, bare, by name. Where the signer said which
// certificate it is, others are passed over, and so are bare keys.
func (s *Signature) candidates() (out []candidate, others bool) {
	named := s.Properties != nil && len(s.Properties.Certificates) > 0
	certificates := s.KeyInfo.Certificates
	if named {
		certificates = slices.Concat(certificates, s.Properties.CertificateValues)
	}
	for _, der := range slices.Concat(certificates, s.options.Certificates) {
		if named && !s.Properties.Certificates[0].Matches(der) {
			others = true
		} else if key, err := primitive.CertificateKey(der); err == nil && len(out) < maxTries {
			out = append(out, candidate{key, der})
		}
	}
	if named {
		return out, others || len(s.KeyInfo.Keys) > 0
	}
	for _, key := range s.KeyInfo.Keys {
		if len(out) < maxTries {
			out = append(out, candidate{key: key})
		}
	}
	if s.options.Key != nil {
		if key := s.options.Key(s.KeyInfo); key != nil {
			out = append(out, candidate{key: key})
		}
	}
	return out, false
}

// A collector keeps what is written to it.
type collector struct{ octets []byte }

func (c *collector) Write(p []byte) (int, error) {
	c.octets = append(c.octets, p...)
	return len(p), nil
}

// Signed returns the element that a reference names, for those inside the document. What is below it is covered unless Filtered
// says otherwise or a transform takes its text only (base64). Use this element: another of the same name is not signed.
func (r *Reference) Signed() (c14n.Node, bool) { return r.target, !r.target.IsZero() }
