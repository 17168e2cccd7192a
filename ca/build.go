package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // key identifiers are SHA-1 by RFC 5280 §4.2.1.2; nothing's security rests on it
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"strings"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/crl"
)

var (
	nameTypes = map[string]asn1.ObjectIdentifier{
		"C": {2, 5, 4, 6}, "O": {2, 5, 4, 10}, "OU": {2, 5, 4, 11}, "L": {2, 5, 4, 7}, "CN": {2, 5, 4, 3},
	}
	keyUsageBits = map[string]int{"digitalSignature": 0, "nonRepudiation": 1, "keyCertSign": 5, "cRLSign": 6}

	// extensions says under which identifier and how each extension that a profile may name is encoded.
	extensions = map[string]struct {
		oid   asn1.ObjectIdentifier
		value func(*subject, *cryptobyte.Builder)
	}{
		"keyUsage":               {asn1.ObjectIdentifier{2, 5, 29, 15}, func(s *subject, b *cryptobyte.Builder) { addKeyUsage(b, s.kind.KeyUsage) }},
		"extKeyUsage":            {asn1.ObjectIdentifier{2, 5, 29, 37}, (*subject).addClientAuth},
		"subjectAltName":         {asn1.ObjectIdentifier{2, 5, 29, 17}, (*subject).addAttributes},
		"certificatePolicies":    {asn1.ObjectIdentifier{2, 5, 29, 32}, (*subject).addPolicy},
		"issuerAltName":          {asn1.ObjectIdentifier{2, 5, 29, 18}, func(s *subject, b *cryptobyte.Builder) { addDirectoryNames(b, s.authority.AltName) }},
		"cRLDistributionPoints":  {asn1.ObjectIdentifier{2, 5, 29, 31}, (*subject).addDistributionPoint},
		"authorityInfoAccess":    {asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 1}, (*subject).addOCSP},
		"authorityKeyIdentifier": {asn1.ObjectIdentifier{2, 5, 29, 35}, (*subject).addAuthorityKey},
		"subjectKeyIdentifier":   {asn1.ObjectIdentifier{2, 5, 29, 14}, func(s *subject, b *cryptobyte.Builder) { id := keyIdentifier(s.spki); b.AddASN1OctetString(id[:]) }},
	}

	oidClientAuth = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 2}
	oidCPS        = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 2, 1}
	oidNoCheck    = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 5}
	oidOCSP       = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1}

	oidBasicConstraints = asn1.ObjectIdentifier{2, 5, 29, 19}

	oidRSASHA256   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}
	oidECDSASHA256 = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}
	oidECDSASHA384 = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 3}
)

// A subject is everything that goes into one end-entity certificate.
type subject struct {
	profile      *Profile
	authority    *AuthorityProfile
	kind         *KindProfile
	issuer       *Issuer
	serial       jpki.Serial
	id           string // common name
	municipality Municipality
	attributes   jpki.Attributes // as the register has them
	spki         []byte          // subjectPublicKeyInfo, DER
	notBefore    time.Time
	notAfter     time.Time
	caps         []time.Time // none of which it outlives
	ocspURL      string
	scope        crl.Scope // of the CRL that will list it
}

// tbs encodes the TBSCertificate of RFC 5280 §4.1, extensions in the profile's order.
func (s *subject) tbs() ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) { b.AddASN1Int64(2) })
		b.AddASN1BigInt(s.serial.Big())
		s.issuer.algorithm.add(b)
		b.AddBytes(s.issuer.Certificate.RawSubject)
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { addTime(b, s.notBefore); addTime(b, s.notAfter) })
		addName(b, fill(s.kind.Subject, s.municipality, s.id))
		b.AddBytes(s.spki)
		b.AddASN1(cbasn1.Tag(3).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				for _, name := range s.kind.Extensions {
					name, critical := strings.CutSuffix(name, "!")
					e := extensions[name]
					addExtension(b, e.oid, critical, func(b *cryptobyte.Builder) { e.value(s, b) })
				}
			})
		})
	})
	return b.Bytes()
}

// fits reports before anything is signed whether the certificate around a TBSCertificate is as small as it must be.
func (i *Issuer) fits(tbs []byte) (bool, error) {
	none, err := noSignature(i.Signer.Public())
	if err != nil {
		return false, err
	}
	const framing = 4 + 4 + 1 + 15 // both lengths, the unused bits, the algorithm
	if len(tbs)+len(none)+framing <= maxCertificate {
		return true, nil
	}
	der, err := i.assemble(tbs, none)
	return len(der) <= maxCertificate, err
}

// prepare builds and lints the certificate.
func (s *subject) prepare() (*draft, error) {
	tbs, err := s.tbs()
	if err != nil {
		return nil, fmt.Errorf("build certificate: %w", err)
	}
	return s.prepareBuilt(tbs)
}

// prepareBuilt lints the certificate around a TBSCertificate made of s.
func (s *subject) prepareBuilt(tbs []byte) (*draft, error) {
	return s.issuer.prepare(tbs, candidate{of: subscriber, profile: s.profile, subject: s})
}

func (s *subject) addClientAuth(b *cryptobyte.Builder) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oidClientAuth) })
}

// addAttributes writes one otherName an attribute: [0] { type-id, value [0] EXPLICIT UTF8String }.
func (s *subject) addAttributes(b *cryptobyte.Builder) {
	attributes := s.profile.Characters.certifiable(s.attributes)
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, a := range s.profile.Attributes {
			oid, _ := parseOID(a.Type)
			value, _ := attributeValue(attributes, a.Field)
			b.AddASN1(cbasn1.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(oid)
				b.AddASN1(cbasn1.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
					b.AddASN1(cbasn1.UTF8String, func(b *cryptobyte.Builder) { b.AddBytes([]byte(value)) })
				})
			})
		}
	})
}

func (s *subject) addPolicy(b *cryptobyte.Builder) {
	oid, _ := parseOID(s.kind.Policy)
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(oid)
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1ObjectIdentifier(oidCPS)
					b.AddASN1(cbasn1.IA5String, func(b *cryptobyte.Builder) { b.AddBytes([]byte(s.profile.CPS)) })
				})
			})
		})
	})
}

// addDistributionPoint points to the partition's CRL; the CRL's own issuingDistributionPoint is made of the same scope.
func (s *subject) addDistributionPoint(b *cryptobyte.Builder) {
	value, err := s.scope.CRLDistributionPoints()
	if err != nil {
		b.SetError(err)
		return
	}
	b.AddBytes(value)
}

func (s *subject) addOCSP(b *cryptobyte.Builder) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(oidOCSP)
			b.AddASN1(cbasn1.Tag(6).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes([]byte(s.ocspURL)) })
		})
	})
}

// addAuthorityKey writes key identifier, issuer name and serial number of the CA certificate: the name alone would not
// tell one generation from another.
func (s *subject) addAuthorityKey(b *cryptobyte.Builder) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.Tag(0).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes(s.issuer.Certificate.SubjectKeyId) })
		b.AddASN1(cbasn1.Tag(1).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.Tag(4).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) { b.AddBytes(s.issuer.Certificate.RawIssuer) })
		})
		b.AddASN1(cbasn1.Tag(2).ContextSpecific(), func(b *cryptobyte.Builder) {
			serial := s.issuer.Certificate.SerialNumber.Bytes()
			if serial[0]&0x80 != 0 {
				b.AddUint8(0)
			}
			b.AddBytes(serial)
		})
	})
}

func addExtension(b *cryptobyte.Builder, oid asn1.ObjectIdentifier, critical bool, value func(*cryptobyte.Builder)) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oid)
		if critical {
			b.AddASN1Boolean(true)
		}
		b.AddASN1(cbasn1.OCTET_STRING, value)
	})
}

func addKeyUsage(b *cryptobyte.Builder, usages []string) {
	var bits byte
	for _, u := range usages {
		bits |= 0x80 >> keyUsageBits[u]
	}
	unused := byte(0)
	for bits>>unused&1 == 0 && unused < 7 {
		unused++
	}
	b.AddASN1(cbasn1.BIT_STRING, func(b *cryptobyte.Builder) { b.AddBytes([]byte{unused, bits}) })
}

func addDirectoryNames(b *cryptobyte.Builder, name []string) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.Tag(4).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) { addName(b, name) })
	})
}

// addName writes a name, one attribute an RDN: the country as PrintableString, everything else as UTF8String.
func addName(b *cryptobyte.Builder, name []string) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, rdn := range name {
			typ, value, _ := strings.Cut(rdn, "=")
			b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) {
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1ObjectIdentifier(nameTypes[typ])
					tag := cbasn1.UTF8String
					if typ == "C" {
						tag = cbasn1.PrintableString
					}
					b.AddASN1(tag, func(b *cryptobyte.Builder) { b.AddBytes([]byte(value)) })
				})
			})
		}
	})
}

// fill replaces the places of a name that vary.
func fill(name []string, m Municipality, id string) []string {
	r := strings.NewReplacer("{prefecture}", m.Prefecture, "{municipality}", m.Municipality, "{id}", id)
	out := make([]string, len(name))
	for i, rdn := range name {
		out[i] = r.Replace(rdn)
	}
	return out
}

// encodeName returns a name as DER.
func encodeName(name []string) []byte {
	var b cryptobyte.Builder
	addName(&b, name)
	return b.BytesOrPanic() // cannot fail: lengths are bounded and nothing nested can err
}

// addTime writes UTCTime until 2049 and GeneralizedTime after (RFC 5280 §4.1.2.5).
func addTime(b *cryptobyte.Builder, t time.Time) {
	t = t.UTC()
	if t.Year() >= 2050 {
		b.AddASN1GeneralizedTime(t)
	} else {
		b.AddASN1UTCTime(t)
	}
}

// keyIdentifier is the SHA-1 of the key's bit string (RFC 5280 §4.2.1.2 method 1).
func keyIdentifier(spki []byte) jpki.KeyID {
	var info struct {
		Algorithm asn1.RawValue
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(spki, &info); err != nil {
		return jpki.KeyID{}
	}
	return sha1.Sum(info.Key.Bytes) //nolint:gosec // see the import
}

// An algorithm is how a key signs certificates.
type algorithm struct {
	oid  asn1.ObjectIdentifier
	null bool // parameters NULL, as RSA wants; absent otherwise
	hash crypto.Hash
	x509 x509.SignatureAlgorithm
}

func (a algorithm) add(b *cryptobyte.Builder) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(a.oid)
		if a.null {
			b.AddASN1NULL()
		}
	})
}

func algorithmOf(key crypto.PublicKey) (algorithm, error) {
	switch k := key.(type) {
	case *rsa.PublicKey:
		return algorithm{oidRSASHA256, true, crypto.SHA256, x509.SHA256WithRSA}, nil
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			return algorithm{oidECDSASHA256, false, crypto.SHA256, x509.ECDSAWithSHA256}, nil
		case elliptic.P384():
			return algorithm{oidECDSASHA384, false, crypto.SHA384, x509.ECDSAWithSHA384}, nil
		}
	}
	return algorithm{}, fmt.Errorf("no signature algorithm for a key of type %T", key)
}
