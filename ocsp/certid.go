package ocsp

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"errors"

	"github.com/openjpki/jpki"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// A CertID names a certificate as OCSP does (RFC 6960 §4.1.1): by hashes of its issuer's name and key, and its serial.
// All generations of an authority share the name, so only the key hash says which one is meant.
type CertID struct {
	Hash     crypto.Hash // SHA-1, SHA-256 or SHA-384; 0 for an algorithm this package does not know
	NameHash []byte      // of the issuer's DER name
	KeyHash  []byte      // of the issuer's subjectPublicKey bits
	Serial   jpki.Serial // the zero value for a number that no authority may issue: zero, negative or beyond 20 octets
	Raw      []byte      // the DER, echoed octet for octet in an answer
}

// NewCertID returns the CertID, under one of the three hash algorithms, of the certificate that issuer issued as serial.
func NewCertID(issuer *x509.Certificate, hash crypto.Hash, serial jpki.Serial) (CertID, error) {
	if serial.IsZero() {
		return CertID{}, errors.New("serial is zero")
	}
	name, key, err := issuerHashes(issuer, hash)
	if err != nil {
		return CertID{}, err
	}
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(asn1.OBJECT_IDENTIFIER, func(b *cryptobyte.Builder) {
				for _, h := range hashes {
					if h.hash == hash {
						b.AddBytes([]byte(h.oid))
					}
				}
			})
			b.AddASN1NULL() // what every client in use writes, though RFC 5754 would leave it out for SHA-2
		})
		b.AddASN1OctetString(name)
		b.AddASN1OctetString(key)
		b.AddASN1BigInt(serial.Big())
	})
	raw, err := b.Bytes()
	return CertID{Hash: hash, NameHash: name, KeyHash: key, Serial: serial, Raw: raw}, err
}

// readCertID reads one CertID. Octet strings alias the input.
func readCertID(s *cryptobyte.String) (CertID, error) {
	var id CertID
	var raw, body, serial cryptobyte.String
	if !s.ReadASN1Element(&raw, asn1.SEQUENCE) {
		return id, errDER
	}
	id.Raw = raw
	rest := raw
	if !rest.ReadASN1(&body, asn1.SEQUENCE) {
		return id, errDER
	}
	oid, params, ok := readAlgorithm(&body)
	if !ok || !body.ReadASN1Bytes(&id.NameHash, asn1.OCTET_STRING) || !body.ReadASN1Bytes(&id.KeyHash, asn1.OCTET_STRING) ||
		!body.ReadASN1(&serial, asn1.INTEGER) || !body.Empty() {
		return id, errDER
	}
	if len(serial) == 0 || len(serial) > 1 && (serial[0] == 0 && serial[1] < 0x80 || serial[0] == 0xff && serial[1] >= 0x80) {
		return id, errDER
	}
	for _, h := range hashes {
		if h.oid != oid {
			continue
		}
		if len(params) != 0 && !isNULL(params) {
			return id, errDER
		}
		id.Hash = h.hash
	}
	if serial[0] < 0x80 { // not negative
		id.Serial, _ = jpki.SerialFromBytes(serial) // what is refused stays the zero value
	}
	return id, nil
}

// issuedBy reports whether the CertID's hashes are those of the issuer's name and key.
func (c CertID) issuedBy(issuer *x509.Certificate) bool {
	name, key, err := issuerHashes(issuer, c.Hash)
	return err == nil && bytes.Equal(c.NameHash, name) && bytes.Equal(c.KeyHash, key)
}

// issuerHashes returns the two hashes by which a CertID names an issuer.
func issuerHashes(issuer *x509.Certificate, hash crypto.Hash) (name, key []byte, err error) {
	switch hash {
	case crypto.SHA1, crypto.SHA256, crypto.SHA384:
	default:
		return nil, nil, errors.New("hash algorithm is not SHA-1, SHA-256 or SHA-384")
	}
	bits, err := publicKeyBits(issuer)
	if err != nil {
		return nil, nil, err
	}
	h := hash.New()
	h.Write(issuer.RawSubject)
	name = h.Sum(nil)
	h.Reset()
	h.Write(bits)
	return name, h.Sum(nil), nil
}

// publicKeyBits returns the contents of a certificate's subjectPublicKey bit string.
func publicKeyBits(cert *x509.Certificate) ([]byte, error) {
	var spki, bits cryptobyte.String
	in := cryptobyte.String(cert.RawSubjectPublicKeyInfo)
	if !in.ReadASN1(&spki, asn1.SEQUENCE) || !spki.SkipASN1(asn1.SEQUENCE) || !spki.ReadASN1(&bits, asn1.BIT_STRING) ||
		len(bits) < 2 || bits[0] != 0 {
		return nil, errors.New("certificate has no subject public key")
	}
	return bits[1:], nil
}
