package ca

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"math/big"
	"slices"
	"strings"
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
// the key, which must be of a kind that admitted names. Subject and attributes are ignored, the authority alone decides
// what is certified, but may not carry a My Number.
func checkRequest(der []byte, admitted []string) (publicKey, error) {
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
	if err := checkKey(csr.PublicKey, admitted); err != nil {
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
		case tag&constructedBit != 0 || tag == asn1.OCTET_STRING:
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
	constructedBit = asn1.Tag(0x20) // the bit of a tag that says so
	bmpString      = asn1.Tag(30)
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

// subjectKeys are the kinds of key that a profile can admit: how one is recognised, and what else must hold of it.
var subjectKeys = map[string]struct {
	is    func(key any) bool
	check func(key any) error
}{
	"rsa-2048": {
		func(key any) bool { k, ok := key.(*rsa.PublicKey); return ok && k.N.BitLen() == 2048 && k.E == 65537 },
		func(key any) error { return checkModulus(key.(*rsa.PublicKey).N) }, // is has looked
	},
	"p-384": {
		func(key any) bool { k, ok := key.(*ecdsa.PublicKey); return ok && k.Curve == elliptic.P384() },
		func(any) error { return nil }, // that the point is on the curve, and finite, was a condition of reading it
	},
}

// checkKey admits a key of one of the kinds that the profile names.
func checkKey(key any, admitted []string) error {
	i := slices.IndexFunc(admitted, func(kind string) bool { return subjectKeys[kind].is(key) })
	if i < 0 {
		return jpki.Errorf(jpki.WeakKey, "the key must be %s", strings.Join(admitted, " or "))
	}
	return subjectKeys[admitted[i]].check(key)
}

// checkModulus finds moduli that a careless generator makes.
func checkModulus(n *big.Int) error {
	switch {
	case n.Bit(0) == 0 || new(big.Int).GCD(nil, nil, n, smallPrimes).Cmp(big.NewInt(1)) != 0:
		return jpki.Errorf(jpki.WeakKey, "the modulus has a small factor")
	case closePrimes(n):
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
	if words := n.Bits(); len(words) > 0 && !residues[0][words[0]%64] { // most end here
		return false
	}
	r := new(big.Int).Mod(n, squareModulus).Uint64()
	for i, m := range squareModuli {
		if !residues[i][r%m] {
			return false
		}
	}
	return true
}
