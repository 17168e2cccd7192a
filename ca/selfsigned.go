package ca

import (
	"crypto"
	"crypto/x509"
	"fmt"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/openjpki/jpki"
)

// SelfSigned makes the certificate of a new generation: the profile's years, less the day of issue, ending at 23:59:59 JST.
// Its key decides how this generation signs: RSA or P-256 with SHA-256, P-384 with SHA-384. Its shape is that of the JPKI's own CA certificates: keyUsage, the Japanese name as subjectAltName, basicConstraints
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
	notAfter := endOfDay(now, p.Validity.AuthorityYears, -1)
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
				addExtension(b, oidBasicConstraints, true, func(b *cryptobyte.Builder) {
					b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1Boolean(true) })
				})
				addExtension(b, extensions["cRLDistributionPoints"].oid, false, func(b *cryptobyte.Builder) {
					b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
						b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
							b.AddASN1(constructed(0), func(b *cryptobyte.Builder) {
								b.AddASN1(constructed(0), func(b *cryptobyte.Builder) {
									b.AddASN1(constructed(4), func(b *cryptobyte.Builder) { addName(b, a.Subject) })
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
	self := &Issuer{ID: jpki.IssuerID{CA: ca}, Signer: key, algorithm: alg, Certificate: &x509.Certificate{
		RawSubject: encodeName(a.Subject), NotAfter: notAfter, PublicKey: key.Public(), PublicKeyAlgorithm: publicKeyAlgorithm(alg), IsCA: true, BasicConstraintsValid: true, Version: 3, KeyUsage: x509.KeyUsageCertSign,
	}}
	d, err := self.prepare(tbs, candidate{of: authority, profile: p, name: ca})
	if err != nil {
		return nil, fmt.Errorf("make CA certificate: %w", err)
	}
	der, err := self.sign(d)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func publicKeyAlgorithm(a algorithm) x509.PublicKeyAlgorithm {
	if a.null {
		return x509.RSA
	}
	return x509.ECDSA
}
