package cms

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/verifier/primitive"
)

// A SignConfig says who signs and how. Signed attributes are always made: a signature over bare content could be
// passed off as one over attributes, and so over another content.
type SignConfig struct {
	// Certificate is the signer's, DER. Required.
	Certificate []byte
	// Signer makes the signature value, by the key in Certificate: a card, for example. Required.
	Signer crypto.Signer
	// Rand is given to Signer. Required; most signers ignore it.
	Rand io.Reader
	// Chain are further certificates to put into the file.
	Chain [][]byte
	// Algorithm is how to sign. Zero means PKCS#1 v1.5 with SHA-256 for RSA keys, ECDSA with a hash of the curve's strength,
	// Ed25519.
	Algorithm primitive.Algorithm
	// SigningTime is claimed as the time of signing. Zero leaves it out, which CAdES B-B does not allow.
	SigningTime time.Time
	// MIMEType says what the content is, signed with it. Empty leaves it out.
	MIMEType string
	// Attached puts the content into the file. It must then fit into memory.
	Attached bool
}

// Sign makes a CMS signature over content, in DER: CAdES-B-B if it has a signing time. Steps:
//  1. choose the algorithm and take the content's digest
//  2. make the signed attributes: content type, digest, certificate, algorithms, time
//  3. have their DER signed, and check that the signature is right
//  4. put it all together
func Sign(content io.Reader, c SignConfig) ([]byte, error) {
	cert := parseCertificate(c.Certificate)
	switch {
	case content == nil, c.Signer == nil, c.Rand == nil:
		return nil, errors.New("cms: sign: content, Signer and Rand are required")
	case cert == nil:
		return nil, jpki.Errorf(jpki.Malformed, "CMS: the signer's certificate is not a certificate")
	}
	key, err := cert.key()
	if err != nil {
		return nil, jpki.WrapError(jpki.WeakKey, err, "CMS: the signer's key cannot be used")
	}
	alg, hash, err := c.algorithm()
	if err != nil {
		return nil, err
	}

	var body bytes.Buffer
	sum := primitive.NewHash(hash)
	sink := io.Writer(sum)
	if c.Attached {
		sink = io.MultiWriter(sum, &body)
		content = io.LimitReader(content, MaxBytes)
	}
	n, err := io.Copy(sink, content)
	if err != nil {
		return nil, jpki.WrapError(jpki.Unavailable, err, "CMS: content cannot be read")
	}
	if c.Attached && n == MaxBytes {
		return nil, jpki.Errorf(jpki.TooLarge, "CMS: content is too long to be attached")
	}

	hashID, err := primitive.HashIdentifier(hash)
	if err != nil {
		return nil, err
	}
	algID, err := alg.Identifier()
	if err != nil {
		return nil, err
	}
	attrs, err := c.attributes(sum.Sum(nil), hashID, algID)
	if err != nil {
		return nil, fmt.Errorf("cms: signed attributes: %w", err)
	}

	input := attrs
	if alg.Scheme != primitive.Ed25519 {
		input = primitive.Digest(alg.Hash, attrs)
	}
	value, err := c.Signer.Sign(c.Rand, input, alg.SignerOpts())
	if err != nil {
		return nil, fmt.Errorf("cms: sign: %w", err)
	}
	if err := primitive.VerifyMessage(key, alg, attrs, value); err != nil {
		return nil, fmt.Errorf("cms: the signer's key is not that of the certificate, or it signed something else: %w", err)
	}
	return assemble(cert, c.Chain, hashID, algID, attrs, value, body.Bytes(), c.Attached)
}

// algorithm returns how to sign and the hash function of the content.
func (c *SignConfig) algorithm() (primitive.Algorithm, crypto.Hash, error) {
	if a := c.Algorithm; a.Scheme == primitive.Ed25519 {
		return a, crypto.SHA512, nil // RFC 8419 §3.1
	} else if a.Scheme != "" {
		if primitive.NewHash(a.Hash) == nil || a.Raw {
			return a, 0, jpki.Errorf(jpki.Malformed, "CMS: algorithm without a hash function, or not for CMS")
		}
		return a, a.Hash, nil
	}
	switch k := c.Signer.Public().(type) {
	case *rsa.PublicKey:
		return primitive.Algorithm{Scheme: primitive.PKCS1v15, Hash: crypto.SHA256}, crypto.SHA256, nil
	case ed25519.PublicKey:
		return primitive.Algorithm{Scheme: primitive.Ed25519}, crypto.SHA512, nil
	case *ecdsa.PublicKey:
		hash := crypto.SHA256
		if bits := k.Params().BitSize; bits > 384 {
			hash = crypto.SHA512
		} else if bits > 256 {
			hash = crypto.SHA384
		}
		return primitive.Algorithm{Scheme: primitive.ECDSA, Hash: hash}, hash, nil
	}
	return primitive.Algorithm{}, 0, jpki.Errorf(jpki.WeakKey, "CMS: a key of a kind that signs nothing here")
}

// attributes returns the signed attributes as a SET in DER.
func (c *SignConfig) attributes(digest, hashID, algID []byte) ([]byte, error) {
	certHash := sha256.Sum256(c.Certificate)
	var list [][]byte
	var failed error
	add := func(oid string, value cryptobyte.BuilderContinuation) {
		var b cryptobyte.Builder
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			addOID(b, oid)
			b.AddASN1(cbasn1.SET, value)
		})
		der, err := b.Bytes()
		failed = errors.Join(failed, err)
		list = append(list, der)
	}
	add(oidContentType, func(b *cryptobyte.Builder) { addOID(b, oidData) })
	add(oidMessageDigest, func(b *cryptobyte.Builder) { b.AddASN1OctetString(digest) })
	add(oidSigningCertV2, func(b *cryptobyte.Builder) { // RFC 5035 §3, with SHA-256, its default
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1OctetString(certHash[:]) })
			})
		})
	})
	add(oidProtection, func(b *cryptobyte.Builder) { // RFC 6211 §2
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddBytes(hashID)
			b.AddBytes(append([]byte{0xa1}, algID[1:]...))
		})
	})
	if c.MIMEType != "" {
		add(oidMIMEType, func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.UTF8String, func(b *cryptobyte.Builder) { b.AddBytes([]byte(c.MIMEType)) })
		})
	}
	if !c.SigningTime.IsZero() {
		add(oidSigningTime, func(b *cryptobyte.Builder) {
			if at := c.SigningTime.UTC(); at.Year() < 2050 { // RFC 5652 §11.3
				b.AddASN1UTCTime(at)
			} else {
				b.AddASN1GeneralizedTime(at)
			}
		})
	}
	slices.SortFunc(list, bytes.Compare)
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) {
		for _, a := range list {
			b.AddBytes(a)
		}
	})
	out, err := b.Bytes()
	return out, errors.Join(failed, err)
}

// assemble makes the ContentInfo.
func assemble(cert *certificate, chain [][]byte, hashID, algID, attrs, value, body []byte, attached bool) ([]byte, error) {
	certs := append([][]byte{cert.raw}, chain...)
	slices.SortFunc(certs, bytes.Compare) // a SET OF
	certs = slices.CompactFunc(certs, bytes.Equal)
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		addOID(b, oidSignedData)
		b.AddASN1(context(0), func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1Int64(1)
				b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) { b.AddBytes(hashID) })
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
					addOID(b, oidData)
					if attached {
						b.AddASN1(context(0), func(b *cryptobyte.Builder) { b.AddASN1OctetString(body) })
					}
				})
				b.AddASN1(context(0), func(b *cryptobyte.Builder) {
					for _, c := range certs {
						b.AddBytes(c)
					}
				})
				b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) {
					b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
						b.AddASN1Int64(1)
						b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
							b.AddBytes(cert.issuer)
							b.AddASN1(cbasn1.INTEGER, func(b *cryptobyte.Builder) { b.AddBytes(cert.serial) })
						})
						b.AddBytes(hashID)
						b.AddBytes(append([]byte{0xa0}, attrs[1:]...))
						b.AddBytes(algID)
						b.AddASN1OctetString(value)
					})
				})
			})
		})
	})
	out, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("cms: assemble: %w", err)
	}
	return out, nil
}

func addOID(b *cryptobyte.Builder, raw string) {
	b.AddASN1(cbasn1.OBJECT_IDENTIFIER, func(b *cryptobyte.Builder) { b.AddBytes([]byte(raw)) })
}
