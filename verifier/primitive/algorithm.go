package primitive

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // old signatures have it; the caller's policy decides
	"crypto/sha256"
	"crypto/sha3"
	"crypto/sha512"
	"errors"
	"fmt"
	"hash"
)

// The ways in which a check can fail. Every error of this package wraps one of them.
var (
	ErrMalformed   = errors.New("malformed")                    // not the syntax the standard demands
	ErrUnsupported = errors.New("unsupported")                  // well formed, but nothing that is checked here; the text names it
	ErrMismatch    = errors.New("key and algorithm do not fit") // an algorithm for another kind of key, or one the key excludes
	ErrWrong       = errors.New("signature is wrong")           // the key did not make this value over this
)

// A Scheme is a way of making a signature out of a digest or message.
type Scheme string

// The schemes.
const (
	PKCS1v15 Scheme = "RSA-PKCS1-v1.5" // RFC 8017 §8.2
	PSS      Scheme = "RSA-PSS"        // RFC 8017 §8.1
	ECDSA    Scheme = "ECDSA"          // FIPS 186-5 §6
	Ed25519  Scheme = "Ed25519"        // RFC 8032 §5.1, the pure variant
)

// An Algorithm says all about a signature that is needed to check it, apart from the key. Two are equal (==) if they are
// the same algorithm.
type Algorithm struct {
	Scheme Scheme
	// Hash makes the digest. It is zero for Ed25519, which takes the message itself, and in an identifier that leaves the
	// hash to another field (CMS's rsaEncryption): see [Algorithm.WithHash].
	Hash crypto.Hash
	// MGF is the hash of PSS's mask generation function MGF1, which may be another than Hash.
	MGF crypto.Hash
	// Salt is the length of PSS's salt in octets. A signature with another length is wrong.
	Salt int
	// Curve is the only curve that is admitted, where the algorithm names one (JOSE); otherwise empty.
	Curve KeyKind
	// Raw says that an ECDSA signature is r and s side by side, each as long as the curve's order (IEEE P1363, XML-DSig,
	// JOSE), and not a DER SEQUENCE of them.
	Raw bool
}

// WithHash returns the algorithm with the hash function another field names, if its identifier names none. An
// identifier that contradicts that field is [ErrMismatch]: one of the two is a lie.
func (a Algorithm) WithHash(h crypto.Hash) (Algorithm, error) {
	switch {
	case a.Scheme == Ed25519 || a.Hash == h:
		return a, nil
	case a.Hash != 0:
		return a, fmt.Errorf("%w: signature is over %s, digest is %s", ErrMismatch, HashName(a.Hash), HashName(h))
	}
	a.Hash = h
	return a, nil
}

// String describes the algorithm for people.
func (a Algorithm) String() string {
	switch {
	case a.Scheme == Ed25519 || a.Hash == 0:
		return string(a.Scheme)
	case a.Scheme == PSS && a.MGF != a.Hash:
		return fmt.Sprintf("%s with %s, MGF1 with %s, salt %d", a.Scheme, HashName(a.Hash), HashName(a.MGF), a.Salt)
	case a.Scheme == PSS:
		return fmt.Sprintf("%s with %s, salt %d", a.Scheme, HashName(a.Hash), a.Salt)
	}
	return fmt.Sprintf("%s with %s", a.Scheme, HashName(a.Hash))
}

// SignerOpts returns what a [crypto.Signer] wants to hear to sign by this algorithm, except where MGF is another hash than
// Hash or an empty salt is wanted, which [crypto/rsa] cannot make.
func (a Algorithm) SignerOpts() crypto.SignerOpts {
	if a.Scheme == PSS {
		return &rsa.PSSOptions{SaltLength: a.Salt, Hash: a.Hash}
	}
	return a.Hash
}

// hashes are the hash functions that signatures are checked over, with their names in OIDs (NIST's arc), for people, in
// XML-DSig (RFC 9231 §2.1) and in an AlgorithmIdentifier of RSA (RFC 8017 appendix A.2.4).
var hashes = []struct {
	hash crypto.Hash
	oid  string
	name string
	xml  string
	new  func() hash.Hash
}{
	{crypto.SHA1, "1.3.14.3.2.26", "SHA-1", "http://www.w3.org/2000/09/xmldsig#sha1", sha1.New},
	{crypto.SHA224, "2.16.840.1.101.3.4.2.4", "SHA-224", "http://www.w3.org/2001/04/xmldsig-more#sha224", sha256.New224},
	{crypto.SHA256, "2.16.840.1.101.3.4.2.1", "SHA-256", "http://www.w3.org/2001/04/xmlenc#sha256", sha256.New},
	{crypto.SHA384, "2.16.840.1.101.3.4.2.2", "SHA-384", "http://www.w3.org/2001/04/xmldsig-more#sha384", sha512.New384},
	{crypto.SHA512, "2.16.840.1.101.3.4.2.3", "SHA-512", "http://www.w3.org/2001/04/xmlenc#sha512", sha512.New},
	{crypto.SHA512_224, "2.16.840.1.101.3.4.2.5", "SHA-512/224", "", sha512.New512_224},
	{crypto.SHA512_256, "2.16.840.1.101.3.4.2.6", "SHA-512/256", "", sha512.New512_256},
	{crypto.SHA3_224, "2.16.840.1.101.3.4.2.7", "SHA3-224", "http://www.w3.org/2007/05/xmldsig-more#sha3-224", func() hash.Hash { return sha3.New224() }},
	{crypto.SHA3_256, "2.16.840.1.101.3.4.2.8", "SHA3-256", "http://www.w3.org/2007/05/xmldsig-more#sha3-256", func() hash.Hash { return sha3.New256() }},
	{crypto.SHA3_384, "2.16.840.1.101.3.4.2.9", "SHA3-384", "http://www.w3.org/2007/05/xmldsig-more#sha3-384", func() hash.Hash { return sha3.New384() }},
	{crypto.SHA3_512, "2.16.840.1.101.3.4.2.10", "SHA3-512", "http://www.w3.org/2007/05/xmldsig-more#sha3-512", func() hash.Hash { return sha3.New512() }},
}

// HashName returns the name of a hash function as NIST writes it. [crypto.Hash.String] differs for some.
func HashName(h crypto.Hash) string {
	for i := range hashes {
		if hashes[i].hash == h {
			return hashes[i].name
		}
	}
	return "no hash function"
}

func knownHash(h crypto.Hash) bool {
	for i := range hashes {
		if hashes[i].hash == h {
			return true
		}
	}
	return false
}

// NewHash returns a new digest of one of the hash functions that signatures are checked over, or nil.
func NewHash(h crypto.Hash) hash.Hash {
	for i := range hashes {
		if hashes[i].hash == h {
			return hashes[i].new()
		}
	}
	return nil
}

// IsDigest reports whether digest is that of data.
func IsDigest(h crypto.Hash, data, digest []byte) bool {
	if h == crypto.SHA256 {
		sum := sha256.Sum256(data)
		return bytes.Equal(sum[:], digest)
	}
	d := Digest(h, data)
	return d != nil && bytes.Equal(d, digest)
}

// Digest returns the digest of data, or nil for a hash function that nothing is checked over.
func Digest(h crypto.Hash, data []byte) []byte {
	switch h { // without a detour over the heap for the two that nearly all signatures have
	case crypto.SHA256:
		sum := sha256.Sum256(data)
		return sum[:]
	case crypto.SHA512:
		sum := sha512.Sum512(data)
		return sum[:]
	}
	d := NewHash(h)
	if d == nil {
		return nil
	}
	d.Write(data)
	return d.Sum(nil)
}
