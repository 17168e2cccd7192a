package ca

import (
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/openjpki/jpki"
)

// SelfSigned makes the certificate of a new generation: ten years, less the day of issue, ending at 23:59:59 JST. Its
// shape is that of the JPKI's own CA certificates: keyUsage, the Japanese name as subjectAltName, basicConstraints
// without path length, its own name as CRL distribution point, subjectKeyIdentifier, and nothing else.
func SelfSigned(p *Profile, ca jpki.CA, key crypto.Signer, serial jpki.Serial, now time.Time) (*x509.Certificate, error) {
	a := p.Authorities[ca]
	alg, err := algorithmOf(key.Public())
	if err != nil {
		return nil, err
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, fmt.Errorf("encode public key: %w", err)
	}
	day := now.In(jpki.JST)
	notAfter := time.Date(day.Year()+10, day.Month(), day.Day()-1, 23, 59, 59, 0, jpki.JST)
	keyID := keyIdentifier(spki)
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) { b.AddASN1Int64(2) })
		b.AddASN1BigInt(serial.Big())
		alg.add(b)
		addName(b, a.Subject)
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { addTime(b, now); addTime(b, notAfter) })
		addName(b, a.Subject)
		b.AddBytes(spki)
		b.AddASN1(cbasn1.Tag(3).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				addExtension(b, extensions["keyUsage"].oid, true, func(b *cryptobyte.Builder) { addKeyUsage(b, []string{"keyCertSign", "cRLSign"}) })
				addExtension(b, extensions["subjectAltName"].oid, false, func(b *cryptobyte.Builder) { addDirectoryNames(b, a.AltName) })
				addExtension(b, asn1.ObjectIdentifier{2, 5, 29, 19}, true, func(b *cryptobyte.Builder) {
					b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1Boolean(true) })
				})
				addExtension(b, extensions["cRLDistributionPoints"].oid, false, func(b *cryptobyte.Builder) {
					context := func(n uint8) cbasn1.Tag { return cbasn1.Tag(n).ContextSpecific().Constructed() }
					b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
						b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
							b.AddASN1(context(0), func(b *cryptobyte.Builder) {
								b.AddASN1(context(0), func(b *cryptobyte.Builder) {
									b.AddASN1(context(4), func(b *cryptobyte.Builder) { addName(b, a.Subject) })
								})
							})
						})
					})
				})
				addExtension(b, extensions["subjectKeyIdentifier"].oid, false, func(b *cryptobyte.Builder) { b.AddASN1OctetString(keyID[:]) })
			})
		})
	})
	tbs, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("encode CA certificate: %w", err)
	}
	self := &Issuer{Signer: key, algorithm: alg, Certificate: &x509.Certificate{PublicKey: key.Public(), PublicKeyAlgorithm: publicKeyAlgorithm(alg), IsCA: true, BasicConstraintsValid: true, Version: 3, KeyUsage: x509.KeyUsageCertSign}}
	return self.sign(tbs)
}

func publicKeyAlgorithm(a algorithm) x509.PublicKeyAlgorithm {
	if a.null {
		return x509.RSA
	}
	return x509.ECDSA
}
