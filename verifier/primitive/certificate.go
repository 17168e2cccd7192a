package primitive

import (
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// CertificateKey reads the key out of a certificate (RFC 5280 §4.1) and nothing else: whether it is a good certificate is for
// others. Unlike crypto/x509 it reads keys that are for RSA-PSS only, and certificates whose extensions are not as they should be.
func CertificateKey(der []byte) (*Key, error) {
	input := cryptobyte.String(der)
	var cert, tbs, spki cryptobyte.String
	if !input.ReadASN1(&cert, cbasn1.SEQUENCE) || !input.Empty() || !cert.ReadASN1(&tbs, cbasn1.SEQUENCE) ||
		!tbs.SkipOptionalASN1(cbasn1.Tag(0).Constructed().ContextSpecific()) || !tbs.SkipASN1(cbasn1.INTEGER) {
		return nil, fmt.Errorf("certificate: %w", ErrMalformed)
	}
	for range 4 { // signature, issuer, validity, subject
		if !tbs.SkipASN1(cbasn1.SEQUENCE) {
			return nil, fmt.Errorf("certificate: %w", ErrMalformed)
		}
	}
	if !tbs.ReadASN1Element(&spki, cbasn1.SEQUENCE) {
		return nil, fmt.Errorf("certificate: %w", ErrMalformed)
	}
	return ParseKey(spki)
}

// CertificateAlgorithm reads with what algorithm a certificate is signed, out of the field behind what is signed (RFC 5280
// §4.1.1.2), and nothing else.
func CertificateAlgorithm(der []byte) (Algorithm, error) {
	input := cryptobyte.String(der)
	var cert, alg cryptobyte.String
	if !input.ReadASN1(&cert, cbasn1.SEQUENCE) || !input.Empty() || !cert.SkipASN1(cbasn1.SEQUENCE) || !cert.ReadASN1Element(&alg, cbasn1.SEQUENCE) {
		return Algorithm{}, fmt.Errorf("certificate: %w", ErrMalformed)
	}
	return ParseAlgorithm(alg)
}
