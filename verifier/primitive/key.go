package primitive

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"fmt"
	"math/big"
	"math/bits"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// A KeyKind is a family of public keys: RSA, or one curve.
type KeyKind string

// The kinds of keys.
const (
	RSA  KeyKind = "RSA"
	P224 KeyKind = "P-224"
	P256 KeyKind = "P-256"
	P384 KeyKind = "P-384"
	P521 KeyKind = "P-521"
	// Edwards25519 is the kind of Ed25519 keys.
	Edwards25519 KeyKind = "Ed25519"
)

// Limits on RSA keys: below, nobody should rely on them whatever a policy says; above, checking is a way to keep us busy.
// Exponents of more than 31 bits, which crypto/rsa refuses, are on identity cards of several countries.
const (
	MinRSABits      = 1024
	MaxRSABits      = 8192
	MaxExponentBits = 48
)

var curves = map[KeyKind]elliptic.Curve{P224: elliptic.P224(), P256: elliptic.P256(), P384: elliptic.P384(), P521: elliptic.P521()}

// A Key is a public key that was checked: an RSA modulus of admitted size, a point on its curve.
type Key struct {
	Kind     KeyKind
	Bits     int // of the modulus or of the curve's order
	Exponent int // of RSA, odd, 3 or more

	public crypto.PublicKey
	pss    *Algorithm // what an id-RSASSA-PSS key restricts itself to (RFC 4055 §1.2)
	bound  bool       // an id-RSASSA-PSS key
}

// Public returns the key as [*rsa.PublicKey], [*ecdsa.PublicKey] or [ed25519.PublicKey].
func (k *Key) Public() crypto.PublicKey { return k.public }

// String describes the key for people.
func (k *Key) String() string {
	if k.Kind == RSA {
		return fmt.Sprintf("RSA-%d", k.Bits)
	}
	return string(k.Kind)
}

// NewKey checks a key that was read elsewhere, such as that of an [x509.Certificate]. Note that crypto/x509 does not read
// id-RSASSA-PSS keys: give [ParseKey] the RawSubjectPublicKeyInfo instead.
//
// [x509.Certificate]: https://pkg.go.dev/crypto/x509#Certificate
func NewKey(public crypto.PublicKey) (*Key, error) {
	switch p := public.(type) {
	case *rsa.PublicKey:
		if p == nil || p.N == nil {
			break
		}
		return newRSA(p)
	case *ecdsa.PublicKey:
		if p == nil || p.Curve == nil {
			break
		}
		for kind, curve := range curves {
			if p.Curve == curve {
				point, err := p.Bytes()
				if err != nil {
					return nil, fmt.Errorf("public key: %w: not a point on %s", ErrMalformed, kind)
				}
				return newEC(kind, point)
			}
		}
		return nil, fmt.Errorf("public key: %w: curve", ErrUnsupported)
	case ed25519.PublicKey:
		return newEd25519(p)
	}
	return nil, fmt.Errorf("public key: %w: %T", ErrUnsupported, public)
}

// ParseKey reads a public key, strictly in DER: a SubjectPublicKeyInfo (RFC 5280 §4.1.2.7) of rsaEncryption,
// id-RSASSA-PSS, id-ecPublicKey with a named curve or id-Ed25519, or a PKCS#1 RSAPublicKey (RFC 8017 appendix A.1.1).
func ParseKey(der []byte) (*Key, error) {
	in := cryptobyte.String(der)
	var seq cryptobyte.String
	if !in.ReadASN1(&seq, cbasn1.SEQUENCE) || !in.Empty() {
		return nil, fmt.Errorf("public key: %w: no SEQUENCE", ErrMalformed)
	}
	if seq.PeekASN1Tag(cbasn1.INTEGER) {
		return parseRSA(der)
	}
	var alg cryptobyte.String
	var value []byte
	if !seq.ReadASN1Element(&alg, cbasn1.SEQUENCE) || !seq.ReadASN1BitStringAsBytes(&value) || !seq.Empty() {
		return nil, fmt.Errorf("public key: %w: no SubjectPublicKeyInfo", ErrMalformed)
	}
	oid, params, err := readIdentifier(alg)
	if err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	switch string(oid) {
	case rawRSA:
		if len(params) != 0 && !isNull(params) {
			return nil, fmt.Errorf("public key: %w: unexpected parameters", ErrMalformed)
		}
		return parseRSA(value)
	case rawPSS:
		return parsePSSKey(params, value)
	case rawECKey:
		return parseEC(params, value)
	case rawEd25519:
		if len(params) != 0 {
			return nil, fmt.Errorf("public key: %w: unexpected parameters", ErrMalformed)
		}
		return newEd25519(value)
	}
	if n := signatureOIDs[string(oid)]; n.never != "" {
		return nil, fmt.Errorf("public key: %w: %s", ErrUnsupported, n.never)
	}
	return nil, fmt.Errorf("public key: %w: %s", ErrUnsupported, dotted(string(oid)))
}

func parseRSA(der []byte) (*Key, error) {
	in := cryptobyte.String(der)
	var seq cryptobyte.String
	n, e := new(big.Int), 0
	if len(der) > 2*MaxRSABits/8 || !in.ReadASN1(&seq, cbasn1.SEQUENCE) || !in.Empty() ||
		!seq.ReadASN1Integer(n) || !seq.ReadASN1Integer(&e) || !seq.Empty() {
		return nil, fmt.Errorf("public key: %w: no RSAPublicKey, or an exponent beyond the limit", ErrMalformed)
	}
	return newRSA(&rsa.PublicKey{N: n, E: e})
}

func newRSA(p *rsa.PublicKey) (*Key, error) {
	switch n := p.N.BitLen(); {
	case p.N.Sign() <= 0 || p.N.Bit(0) == 0:
		return nil, fmt.Errorf("public key: %w: modulus is not odd and positive", ErrMalformed)
	case n < MinRSABits || n > MaxRSABits:
		return nil, fmt.Errorf("public key: %w: RSA modulus of %d bits", ErrUnsupported, n)
	case p.E < 3 || p.E&1 == 0 || bits.Len(uint(p.E)) > MaxExponentBits:
		return nil, fmt.Errorf("public key: %w: RSA exponent is not odd, 3 or more and of at most %d bits", ErrUnsupported, MaxExponentBits)
	}
	return &Key{Kind: RSA, Bits: p.N.BitLen(), Exponent: p.E, public: p}, nil
}

func parsePSSKey(params cryptobyte.String, der []byte) (*Key, error) {
	k, err := parseRSA(der)
	if err != nil {
		return nil, err
	}
	k.bound = true
	if len(params) != 0 {
		a, err := parsePSS(params)
		if err != nil {
			return nil, fmt.Errorf("public key: %w", err)
		}
		k.pss = &a
	}
	return k, nil
}

func parseEC(params cryptobyte.String, point []byte) (*Key, error) {
	var id cryptobyte.String
	if !params.ReadASN1(&id, cbasn1.OBJECT_IDENTIFIER) || !params.Empty() {
		return nil, fmt.Errorf("public key: %w: elliptic curve that is not named", ErrUnsupported)
	}
	c, ok := curveOIDs[string(id)]
	switch {
	case !ok:
		return nil, fmt.Errorf("public key: %w: curve %s", ErrUnsupported, dotted(string(id)))
	case c.never != "":
		return nil, fmt.Errorf("public key: %w: %s", ErrUnsupported, c.never)
	}
	return newEC(c.kind, point)
}

func newEC(kind KeyKind, point []byte) (*Key, error) {
	curve := curves[kind]
	if len(point) > 0 && (point[0] == 2 || point[0] == 3) { // compressed (SEC 1 §2.3.3), which the next step does not read
		x, y := elliptic.UnmarshalCompressed(curve, point)
		if x == nil {
			return nil, fmt.Errorf("public key: %w: not a point on %s", ErrMalformed, kind)
		}
		size := (curve.Params().BitSize + 7) / 8
		point = append(append([]byte{4}, x.FillBytes(make([]byte, size))...), y.FillBytes(make([]byte, size))...)
	}
	p, err := ecdsa.ParseUncompressedPublicKey(curve, point)
	if err != nil {
		return nil, fmt.Errorf("public key: %w: not a point on %s", ErrMalformed, kind)
	}
	return &Key{Kind: kind, Bits: curve.Params().N.BitLen(), public: p}, nil
}

func newEd25519(point []byte) (*Key, error) {
	if len(point) != ed25519.PublicKeySize || smallOrder(point) {
		return nil, fmt.Errorf("public key: %w: not an Ed25519 key", ErrMalformed)
	}
	return &Key{Kind: Edwards25519, Bits: 253, public: ed25519.PublicKey(append([]byte(nil), point...))}, nil
}
