package ocsp

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/openjpki/jpki"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// A Request is an OCSPRequest (RFC 6960 §4.1.1). Its slices alias what was parsed.
type Request struct {
	CertIDs []CertID // 1 to MaxCertIDs
	Nonce   []byte   // 1 to MaxNonceBytes octets, nil if absent (RFC 9654)

	// Extra reports that the request carried parts that have no effect on the answer and that Marshal does not write:
	// a requestor's name, a signature (it is not checked: statuses are public), extensions not understood.
	Extra bool
}

// NewRequest asks for the certificates that issuer issued under the serials. hash is for the CertIDs: SHA-256 (RFC 9919
// prefers it), SHA-384 or, for old responders, SHA-1. A nil nonce asks for an answer that may come from a cache.
func NewRequest(issuer *x509.Certificate, hash crypto.Hash, nonce []byte, serials ...jpki.Serial) (*Request, error) {
	r := &Request{Nonce: nonce}
	for _, serial := range serials {
		id, err := NewCertID(issuer, hash, serial)
		if err != nil {
			return nil, fmt.Errorf("make OCSP request: %w", err)
		}
		r.CertIDs = append(r.CertIDs, id)
	}
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("make OCSP request: %w", err)
	}
	return r, nil
}

func (r *Request) check() error {
	switch {
	case len(r.CertIDs) == 0:
		return errors.New("no certificate is asked about")
	case len(r.CertIDs) > MaxCertIDs:
		return fmt.Errorf("more than %d certificates are asked about", MaxCertIDs)
	case r.Nonce != nil && (len(r.Nonce) == 0 || len(r.Nonce) > MaxNonceBytes):
		return fmt.Errorf("nonce of %d octets", len(r.Nonce))
	}
	return nil
}

// Marshal returns the DER: the CertIDs as their Raw has them, and the nonce.
func (r *Request) Marshal() ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("marshal OCSP request: %w", err)
	}
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
				for _, id := range r.CertIDs {
					b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddBytes(id.Raw) })
				}
			})
			addNonce(b, 2, r.Nonce)
		})
	})
	return b.Bytes()
}

// ParseRequest reads a request of at most [MaxRequestBytes] in strict DER. A serial that no authority may issue and a
// hash algorithm that nobody here knows are not errors: they have their own answers.
func ParseRequest(der []byte) (*Request, error) {
	if len(der) > MaxRequestBytes {
		return nil, fmt.Errorf("parse OCSP request: longer than %d octets", MaxRequestBytes)
	}
	r := new(Request)
	err := r.parse(der)
	if err == nil {
		err = r.check()
	}
	if err != nil {
		return nil, fmt.Errorf("parse OCSP request: %w", err)
	}
	return r, nil
}

func (r *Request) parse(in cryptobyte.String) error {
	var body, tbs, name, list cryptobyte.String
	var named bool
	if !in.ReadASN1(&body, asn1.SEQUENCE) || !in.Empty() || !body.ReadASN1(&tbs, asn1.SEQUENCE) {
		return errDER
	}
	if err := r.parseSignature(&body); err != nil {
		return err
	}
	if tbs.PeekASN1Tag(explicit(0)) {
		return errors.New("version is not 1") // which DER omits
	}
	if !tbs.ReadOptionalASN1(&name, &named, explicit(1)) || !tbs.ReadASN1(&list, asn1.SEQUENCE) {
		return errDER
	}
	if named {
		var general cryptobyte.String
		var tag asn1.Tag
		if !name.ReadAnyASN1(&general, &tag) || !name.Empty() {
			return errDER
		}
		r.Extra = true
	}
	for !list.Empty() {
		if len(r.CertIDs) > MaxCertIDs {
			break // check says so
		}
		var single cryptobyte.String
		if !list.ReadASN1(&single, asn1.SEQUENCE) {
			return errDER
		}
		id, err := readCertID(&single)
		if err != nil {
			return err
		}
		_, others, err := readExtensions(&single, 0, false)
		if err != nil {
			return err
		}
		r.Extra = r.Extra || others > 0
		r.CertIDs = append(r.CertIDs, id)
	}
	nonce, others, err := readExtensions(&tbs, 2, true)
	if err != nil {
		return err
	}
	r.Nonce, r.Extra = nonce, r.Extra || others > 0
	return nil
}

// parseSignature checks the form of the optional signature and no more.
func (r *Request) parseSignature(s *cryptobyte.String) error {
	var wrapped, signature, certs, list cryptobyte.String
	var signed, present bool
	var bits []byte
	if !s.ReadOptionalASN1(&wrapped, &signed, explicit(0)) || !s.Empty() {
		return errDER
	}
	if !signed {
		return nil
	}
	r.Extra = true
	if !wrapped.ReadASN1(&signature, asn1.SEQUENCE) || !wrapped.Empty() {
		return errDER
	}
	if _, _, ok := readAlgorithm(&signature); !ok || !signature.ReadASN1BitStringAsBytes(&bits) ||
		!signature.ReadOptionalASN1(&certs, &present, explicit(0)) || !signature.Empty() {
		return errDER
	}
	if present && (!certs.ReadASN1(&list, asn1.SEQUENCE) || !certs.Empty()) {
		return errDER
	}
	return nil
}
