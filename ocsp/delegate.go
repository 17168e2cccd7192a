package ocsp

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/openjpki/jpki"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
	xocsp "golang.org/x/crypto/ocsp"
)

// A Delegate signs the answers about one issuer's certificates: a key of the responder's own with a certificate that
// exactly this generation of the issuer gave it.
type Delegate struct {
	Issuer            jpki.IssuerID
	IssuerCertificate *x509.Certificate
	Certificate       *x509.Certificate
	Key               crypto.Signer // RSA of 2048 bits or more, P-256 or P-384; used by several goroutines at once
}

// A delegate is a Delegate that was checked, with what every answer needs of it computed once.
type delegate struct {
	Delegate
	algorithm signatureAlgorithm
	keyHash   []byte   // the responder ID
	ids       []CertID // the issuer's hashes under each algorithm
}

func newDelegate(d Delegate) (*delegate, error) {
	if d.IssuerCertificate == nil || d.Certificate == nil || d.Key == nil {
		return nil, errors.New("issuer certificate, certificate and key are required")
	}
	pub, ok := d.Key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !pub.Equal(d.Certificate.PublicKey) {
		return nil, errors.New("key is not that of the certificate")
	}
	if !d.IssuerCertificate.IsCA {
		return nil, errors.New("issuer is not a certification authority")
	}
	if err := checkDelegate(d.Certificate, d.IssuerCertificate); err != nil {
		return nil, err
	}
	out := &delegate{Delegate: d}
	want := x509.SHA256WithRSA
	switch key := d.Certificate.PublicKey.(type) {
	case *rsa.PublicKey:
	case *ecdsa.PublicKey:
		if want = x509.ECDSAWithSHA256; key.Curve == elliptic.P384() {
			want = x509.ECDSAWithSHA384
		}
	}
	for _, s := range signatures {
		if s.algorithm == want {
			out.algorithm = s
		}
	}
	var err error
	if out.keyHash, err = responderKeyHash(d.Certificate); err != nil {
		return nil, err
	}
	for _, h := range hashes {
		name, key, err := issuerHashes(d.IssuerCertificate, h.hash)
		if err != nil {
			return nil, err
		}
		out.ids = append(out.ids, CertID{Hash: h.hash, NameHash: name, KeyHash: key})
	}
	// A key that cannot sign, or signs with another, shall be found out now and not by relying parties.
	probe := []byte("a key signs and its certificate verifies")
	signature, err := out.sign(probe)
	if err != nil {
		return nil, fmt.Errorf("try the key: %w", err)
	}
	if err := checkSignature(d.Certificate, want, probe, signature); err != nil {
		return nil, fmt.Errorf("try the key: %w", err)
	}
	return out, nil
}

// issued reports whether a CertID names this delegate's issuer: the key hash decides between generations, and the name
// hash has to fit.
func (d *delegate) issued(id CertID) bool {
	for _, own := range d.ids {
		if own.Hash == id.Hash {
			return bytes.Equal(own.KeyHash, id.KeyHash) && bytes.Equal(own.NameHash, id.NameHash)
		}
	}
	return false
}

func (d *delegate) sign(data []byte) ([]byte, error) {
	h := d.algorithm.hash.New()
	h.Write(data)
	return d.Key.Sign(rand.Reader, h.Sum(nil), d.algorithm.hash)
}

// respond returns the signed DER of a successful response.
func (d *delegate) respond(producedAt time.Time, answers []Answer, nonce []byte) ([]byte, error) {
	var data cryptobyte.Builder
	data.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(explicit(2), func(b *cryptobyte.Builder) { b.AddASN1OctetString(d.keyHash) })
		b.AddASN1GeneralizedTime(producedAt.UTC())
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			for _, a := range answers {
				b.AddASN1(asn1.SEQUENCE, a.add)
			}
		})
		addNonce(b, 1, nonce)
	})
	tbs, err := data.Bytes()
	if err != nil {
		return nil, fmt.Errorf("encode OCSP response: %w", err)
	}
	signature, err := d.sign(tbs)
	if err != nil {
		return nil, fmt.Errorf("sign OCSP response: %w", err)
	}
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Enum(int64(Successful))
		b.AddASN1(explicit(0), func(b *cryptobyte.Builder) {
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1(asn1.OBJECT_IDENTIFIER, func(b *cryptobyte.Builder) { b.AddBytes([]byte(oidBasic)) })
				b.AddASN1(asn1.OCTET_STRING, func(b *cryptobyte.Builder) {
					b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
						b.AddBytes(tbs)
						b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
							b.AddASN1(asn1.OBJECT_IDENTIFIER, func(b *cryptobyte.Builder) { b.AddBytes([]byte(d.algorithm.oid)) })
							if d.algorithm.rsa {
								b.AddASN1NULL()
							}
						})
						b.AddASN1BitString(signature)
						b.AddASN1(explicit(0), func(b *cryptobyte.Builder) {
							b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddBytes(d.Certificate.Raw) })
						})
					})
				})
			})
		})
	})
	der, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("encode OCSP response: %w", err)
	}
	return der, nil
}

// add writes the contents of a SingleResponse. The reason unspecified is left out, as RFC 5280 §5.3.1 asks for CRLs.
func (a Answer) add(b *cryptobyte.Builder) {
	b.AddBytes(a.CertID.Raw)
	switch {
	case a.Revoked:
		b.AddASN1(explicit(1), func(b *cryptobyte.Builder) {
			b.AddASN1GeneralizedTime(a.RevokedAt.UTC())
			if a.Reason != jpki.Unspecified {
				b.AddASN1(explicit(0), func(b *cryptobyte.Builder) { b.AddASN1Enum(int64(a.Reason)) })
			}
		})
	case a.Unknown:
		b.AddASN1(implicit(2), func(*cryptobyte.Builder) {})
	default:
		b.AddASN1(implicit(0), func(*cryptobyte.Builder) {})
	}
	b.AddASN1GeneralizedTime(a.ThisUpdate.UTC())
	b.AddASN1(explicit(0), func(b *cryptobyte.Builder) { b.AddASN1GeneralizedTime(a.NextUpdate.UTC()) })
}

// refusals are the bodies of the unsigned responses.
var refusals = map[ResponseStatus][]byte{
	MalformedRequest: xocsp.MalformedRequestErrorResponse,
	InternalError:    xocsp.InternalErrorErrorResponse,
	TryLater:         xocsp.TryLaterErrorResponse,
	Unauthorized:     xocsp.UnauthorizedErrorResponse,
}
