package ca

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/store"
)

// A CertifyDelegate signs a delegate's certificate with the key of exactly one issuer, under the serial number that it is
// given. What the request asks for besides its key counts for nothing.
type CertifyDelegate func(ctx context.Context, issuer jpki.IssuerID, serial jpki.Serial, request []byte) (*x509.Certificate, error)

// CertifyResponder has a status server's new key certified for answering OCSP in the name of one recorded generation (RFC
// 6960 §4.2.2.2). The status server is enrolled under the role Responder, or the authority asks for itself. request is a
// PKCS #10 certification request, which proves possession of the key and asks for nothing else. Steps:
//  1. check the request
//  2. the order, with its serial number, is in the audit record (transaction 1)
//  3. sign; no transaction is open
//  4. the certificate is in the audit record (transaction 2); then only it is handed out
//
// The problems are Forbidden, UnknownStation, Malformed, WeakKey, BadRequestProof and NotFound for an issuer that there is
// not.
func (a *Authority) CertifyResponder(ctx context.Context, by jpki.Actor, issuer jpki.IssuerID, request []byte, certify CertifyDelegate) (*x509.Certificate, error) {
	if by.Role != jpki.Responder && by.Role != jpki.System {
		return nil, jpki.Errorf(jpki.Forbidden, "a %s does not answer OCSP", by.Role)
	}
	// 1.
	spki, err := checkResponderRequest(request)
	if err != nil {
		return nil, err
	}
	serial, err := jpki.NewSerial(a.rand)
	if err != nil {
		return nil, err
	}
	// 2.
	detail := map[string]any{"issuer": issuer.String(), "serial": serial.String(), "key": spkiHash(spki)}
	err = a.store.Update(ctx, func(tx *store.Tx) error {
		known, err := tx.Generations()
		if err != nil {
			return err
		}
		i := slices.IndexFunc(known, func(g store.Generation) bool { return g.Issuer == issuer })
		if i < 0 {
			return jpki.Errorf(jpki.NotFound, "there is no generation %s", issuer)
		}
		authority, err := x509.ParseCertificate(known[i].Certificate)
		if err != nil {
			return fmt.Errorf("read generation %s: %w", issuer, err)
		}
		if bytes.Equal(authority.RawSubjectPublicKeyInfo, spki) {
			return jpki.Errorf(jpki.KeyReused, "it is the authority's own")
		}
		if by.Role == jpki.Responder {
			switch s, err := tx.Station(by.ID); {
			case err != nil:
				return err
			case s.Disabled || s.Role != jpki.Responder:
				return jpki.Errorf(jpki.UnknownStation, "the status server is disabled")
			case s.KeyHash == spkiHash(spki):
				return jpki.Errorf(jpki.KeyReused, "it is the one with which the status server itself asks")
			}
		}
		return tx.Audit(a.now(), by, "delegate.ordered", by.ID, detail)
	})
	if err != nil {
		return nil, err
	}
	// 3.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finish)
	defer cancel()
	cert, err := certify(ctx, issuer, serial, request)
	if err != nil {
		return nil, fmt.Errorf("certify responder: %w", err)
	}
	if cert.SerialNumber.Cmp(serial.Big()) != 0 || !bytes.Equal(cert.RawSubjectPublicKeyInfo, spki) {
		return nil, errors.New("certify responder: the certificate is not what was ordered")
	}
	// 4.
	err = a.store.Update(ctx, func(tx *store.Tx) error {
		detail["not_after"] = cert.NotAfter
		return tx.Audit(a.now(), by, "delegate.certified", by.ID, detail)
	})
	if err != nil {
		return nil, err
	}
	return cert, nil
}

// checkResponderRequest returns the key that a request is about. It asks for nothing but a certificate for it: no
// extension; what other attributes say counts for nothing.
func checkResponderRequest(der []byte) (spki []byte, err error) {
	if len(der) > maxRequest {
		return nil, jpki.Errorf(jpki.TooLarge, "a certification request has at most %d octets", maxRequest)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, jpki.WrapError(jpki.Malformed, err, "the certification request is not PKCS #10")
	}
	if len(csr.Extensions) > 0 {
		return nil, jpki.Errorf(jpki.Malformed, "the certification request asks for more than a certificate for its key")
	}
	if CarriesMyNumber(csr) {
		return nil, jpki.Errorf(jpki.MyNumberPresent, "in the certification request")
	}
	if err := checkStationKey(csr.RawSubjectPublicKeyInfo); err != nil {
		return nil, err
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, jpki.WrapError(jpki.BadRequestProof, err, "")
	}
	return csr.RawSubjectPublicKeyInfo, nil
}
