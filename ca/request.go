package ca

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"math/big"
	"unicode/utf16"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/openjpki/jpki"
)

// maxRequest bounds a certification request, in octets; one for RSA-2048 without attributes has about 600.
const maxRequest = 8 << 10

// A publicKey is a key that proved its possession and is fit to be certified.
type publicKey struct {
	spki []byte
	hash string // see spkiHash
}

// checkRequest reads a PKCS #10 certification request (RFC 2986) made by the token: its signature proves possession of
// the key. Subject and attributes are ignored, the authority alone decides what is certified, but may not carry a My Number.
func checkRequest(der []byte) (publicKey, error) {
	if len(der) > maxRequest {
		return publicKey{}, jpki.Errorf(jpki.TooLarge, "a certification request has at most %d octets", maxRequest)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return publicKey{}, jpki.WrapError(jpki.Malformed, err, "the certification request is not PKCS #10")
	}
	if CarriesMyNumber(csr) {
		return publicKey{}, jpki.Errorf(jpki.MyNumberPresent, "in the certification request")
	}
	if err := checkKey(csr.PublicKey); err != nil {
		return publicKey{}, err
	}
	if err := csr.CheckSignature(); err != nil {
		return publicKey{}, jpki.WrapError(jpki.BadRequestProof, err, "")
	}
	return publicKey{csr.RawSubjectPublicKeyInfo, spkiHash(csr.RawSubjectPublicKeyInfo)}, nil
}

// CarriesMyNumber reports whether a certification request has a My Number in any of its values. They are looked at one by
// one: the octets around a value can be digits, too, such as the tag of a SEQUENCE, and would hide it.
func CarriesMyNumber(csr *x509.CertificateRequest) bool {
	return derCarriesMyNumber(csr.RawTBSCertificateRequest)
}

func derCarriesMyNumber(der cryptobyte.String) bool {
	for !der.Empty() {
		whole := der
		var value cryptobyte.String
		var tag asn1.Tag
		if !der.ReadAnyASN1(&value, &tag) {
			return textCarriesMyNumber(whole) // not DER after all, such as an octet string's content
		}
		switch {
		case tag&constructed != 0 || tag == asn1.OCTET_STRING:
			if derCarriesMyNumber(value) {
				return true
			}
		case tag == bmpString:
			units := make([]uint16, 0, len(value)/2)
			for ; len(value) >= 2; value = value[2:] {
				units = append(units, uint16(value[0])<<8|uint16(value[1]))
			}
			if jpki.ContainsMyNumber(string(utf16.Decode(units))) {
				return true
			}
		case textCarriesMyNumber(value):
			return true
		}
	}
	return false
}

const (
	constructed = asn1.Tag(0x20) // the bit of a tag that says so
	bmpString   = asn1.Tag(30)
)

func textCarriesMyNumber(text []byte) bool {
	return jpki.ContainsMyNumber(string(bytes.ToValidUTF8(text, []byte{0})))
}

// smallPrimes is the product of the odd primes up to 751 (FIPS 186-5, appendix on trial division): no sound modulus
// shares a factor with it.
var smallPrimes = func() *big.Int {
	product := big.NewInt(1)
	for n := int64(3); n <= 751; n += 2 {
		if p := big.NewInt(n); p.ProbablyPrime(0) {
			product.Mul(product, p)
		}
	}
	return product
}()

// checkKey admits what the cards of today make: RSA with 2048 bits and exponent 65537.
func checkKey(key any) error {
	k, ok := key.(*rsa.PublicKey)
	if !ok {
		return jpki.Errorf(jpki.WeakKey, "the key must be RSA")
	}
	switch {
	case k.N.BitLen() != 2048:
		return jpki.Errorf(jpki.WeakKey, "the modulus must have 2048 bits, not %d", k.N.BitLen())
	case k.E != 65537:
		return jpki.Errorf(jpki.WeakKey, "the public exponent must be 65537")
	case k.N.Bit(0) == 0 || new(big.Int).GCD(nil, nil, k.N, smallPrimes).Cmp(big.NewInt(1)) != 0:
		return jpki.Errorf(jpki.WeakKey, "the modulus has a small factor")
	case closePrimes(k.N):
		return jpki.Errorf(jpki.WeakKey, "the modulus is a product of close primes")
	}
	return nil
}

// closePrimes tries Fermat's factorisation for as long as it would take a careless key generator's product.
func closePrimes(n *big.Int) bool {
	const rounds = 100
	// n = a² − b² = (a+b)(a−b): look for an a, from the root of n upwards, for which a² − n is a square.
	a := new(big.Int).Sqrt(n)
	square := new(big.Int)
	square.Sub(square.Mul(a, a), n)
	one, step, root := big.NewInt(1), new(big.Int), new(big.Int)
	for range rounds {
		if square.Sign() >= 0 && maybeSquare(square) && root.Mul(root.Sqrt(square), root).Cmp(square) == 0 {
			return true
		}
		root = new(big.Int)
		square.Add(square, step.Add(step.Lsh(a, 1), one)) // (a+1)² = a² + 2a + 1
		a.Add(a, one)
	}
	return false
}

// residues[i] tells which remainders modulo squareModuli[i] squares can leave.
var (
	squareModuli = [...]uint64{64, 63, 65, 11, 17, 19, 23, 31}
	residues     = func() (out [len(squareModuli)][65]bool) {
		for i, m := range squareModuli {
			for x := range m {
				out[i][x*x%m] = true
			}
		}
		return out
	}()
	squareModulus = new(big.Int).SetUint64(64 * 63 * 65 * 11 * 17 * 19 * 23 * 31)
)

// maybeSquare reports false for all but one in thousands of the numbers that are no squares: roots are dear.
func maybeSquare(n *big.Int) bool {
	r := new(big.Int).Mod(n, squareModulus).Uint64()
	for i, m := range squareModuli {
		if !residues[i][r%m] {
			return false
		}
	}
	return true
}
