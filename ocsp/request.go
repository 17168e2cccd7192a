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

	// Extra reports that the request carried parts that Marshal does not write: a requestor's name, a signature, preferred
	// signature algorithms, extensions not understood. A [Responder] looks at the first three, see [Access].
	Extra bool
}

// A message is a request with what only a responder has a use for.
type message struct {
	Request
	preferred []preference
	signed    *signedRequest
}

// A preference is one of the signature algorithms that a client would like best (RFC 6960 §4.4.7.1).
type preference struct {
	oid string
	key []byte // the contents of a SubjectPublicKeyInfo's AlgorithmIdentifier; nil for any
}

// A signedRequest is the optional signature of a request and what it is over.
type signedRequest struct {
	tbs       []byte
	name      []byte                  // DER of the requestor's directoryName; nil if there is none
	algorithm x509.SignatureAlgorithm // 0 if not an accepted one
	signature []byte
	certs     [][]byte
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
	m := new(message)
	if err := m.parse(der); err != nil {
		return nil, fmt.Errorf("parse OCSP request: %w", err)
	}
	return &m.Request, nil
}

func (r *message) parse(in cryptobyte.String) error {
	if len(in) > MaxRequestBytes {
		return errDER
	}
	var body, raw, tbs, name, list cryptobyte.String
	var named bool
	if !in.ReadASN1(&body, asn1.SEQUENCE) || !in.Empty() || !body.ReadASN1Element(&raw, asn1.SEQUENCE) {
		return errDER
	}
	whole := raw
	if !raw.ReadASN1(&tbs, asn1.SEQUENCE) {
		return errDER
	}
	if err := r.parseSignature(&body, whole); err != nil {
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
		if r.signed != nil && tag == explicit(4) { // directoryName
			r.signed.name = general
		}
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
		others, err := readExtensions(&single, 0, nil)
		if err != nil {
			return err
		}
		r.Extra = r.Extra || others > 0
		r.CertIDs = append(r.CertIDs, id)
	}
	others, err := readExtensions(&tbs, 2, func(oid string, value cryptobyte.String) (understood bool, err error) {
		switch oid {
		case oidNonce:
			r.Nonce, err = readNonce(value)
		case oidPreferred:
			r.Extra = true
			err = r.parsePreferred(value)
		default:
			return false, nil
		}
		return true, err
	})
	if err != nil {
		return err
	}
	r.Extra = r.Extra || others > 0
	return r.check()
}

// parsePreferred reads PreferredSignatureAlgorithms (RFC 6960 §4.4.7.1).
func (r *message) parsePreferred(value cryptobyte.String) error {
	var list cryptobyte.String
	if !value.ReadASN1(&list, asn1.SEQUENCE) || !value.Empty() {
		return errDER
	}
	for !list.Empty() {
		var one cryptobyte.String
		if !list.ReadASN1(&one, asn1.SEQUENCE) {
			return errDER
		}
		oid, _, ok := readAlgorithm(&one)
		if !ok {
			return errDER
		}
		p := preference{oid: oid}
		if !one.Empty() {
			var key cryptobyte.String
			peek := one
			if _, _, ok := readAlgorithm(&peek); !ok || !one.ReadASN1(&key, asn1.SEQUENCE) || !one.Empty() {
				return errDER
			}
			p.key = key
		}
		if len(r.preferred) == maxPreferred {
			return errors.New("too many preferred signature algorithms")
		}
		r.preferred = append(r.preferred, p)
	}
	return nil
}

// parseSignature reads the optional signature over tbs. Whether it is worth anything is for [Access].
func (r *message) parseSignature(s *cryptobyte.String, tbs []byte) error {
	var wrapped, signature, certs, list cryptobyte.String
	var signed, present bool
	if !s.ReadOptionalASN1(&wrapped, &signed, explicit(0)) || !s.Empty() {
		return errDER
	}
	if !signed {
		return nil
	}
	r.Extra = true
	r.signed = &signedRequest{tbs: tbs}
	if !wrapped.ReadASN1(&signature, asn1.SEQUENCE) || !wrapped.Empty() {
		return errDER
	}
	oid, params, ok := readAlgorithm(&signature)
	if !ok || !signature.ReadASN1BitStringAsBytes(&r.signed.signature) ||
		!signature.ReadOptionalASN1(&certs, &present, explicit(0)) || !signature.Empty() {
		return errDER
	}
	r.signed.algorithm = acceptedAlgorithm(oid, params)
	if present && (!certs.ReadASN1(&list, asn1.SEQUENCE) || !certs.Empty()) {
		return errDER
	}
	for !list.Empty() {
		var cert cryptobyte.String
		if !list.ReadASN1Element(&cert, asn1.SEQUENCE) {
			return errDER
		}
		if len(r.signed.certs) == maxRequestors {
			return errors.New("too many certificates")
		}
		r.signed.certs = append(r.signed.certs, cert)
	}
	return nil
}
