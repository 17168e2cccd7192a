package ocsp

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // RFC 6960 §4.2.1 fixes SHA-1 for the responder's key hash: a name, not a proof
	"crypto/subtle"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/openjpki/jpki"
)

// VerifyOptions say whose answer is expected, and when.
type VerifyOptions struct {
	Issuer *x509.Certificate // required: the generation that issued the certificate in question; the caller trusts it
	At     time.Time         // required: when the response is relied upon, normally now
	Nonce  []byte            // if not nil, the response must echo it
	Skew   time.Duration     // how far clocks may differ
}

// Verify reports why a response may not be believed, or nil. It proves who signed it; which certificate it speaks of
// and how old it is are for [Response.Answer] and [Answer.Fresh].
//
// The signer is the issuer's key itself or a delegate that this very key certified: the name proves nothing where
// generations share one. A delegate is an end-entity certificate within its validity that has the extended key usage
// OCSPSigning and the extension id-pkix-ocsp-nocheck, without which its own status would be a question that nobody
// answers here (RFC 6960 §4.2.2.2).
func (r *Response) Verify(o VerifyOptions) error {
	switch {
	case o.Issuer == nil || o.At.IsZero():
		return errors.New("verify OCSP response: issuer and time are required")
	case r.Status != Successful:
		return fmt.Errorf("verify OCSP response: responder answered %s", r.Status)
	case o.Nonce != nil && subtle.ConstantTimeCompare(o.Nonce, r.Nonce) != 1:
		return errors.New("verify OCSP response: nonce is missing or another")
	case r.ProducedAt.After(o.At.Add(o.Skew)):
		return errors.New("verify OCSP response: produced in the future")
	case r.algorithm == x509.UnknownSignatureAlgorithm:
		return errors.New("verify OCSP response: signature algorithm is not accepted")
	}
	err := errors.New("no certificate matches the responder ID")
	if r.names(o.Issuer) {
		if err = checkSignature(o.Issuer, r.algorithm, r.tbs, r.signature); err == nil {
			return nil
		}
		err = fmt.Errorf("issuer: %w", err)
	}
	for _, cert := range r.Certificates {
		if !r.names(cert) {
			continue
		}
		if err = checkSignature(cert, r.algorithm, r.tbs, r.signature); err == nil {
			err = checkDelegate(cert, o.Issuer)
		}
		if err == nil && (o.At.Add(o.Skew).Before(cert.NotBefore) || o.At.Add(-o.Skew).After(cert.NotAfter)) {
			err = errors.New("outside its validity")
		}
		if err == nil {
			return nil
		}
		err = fmt.Errorf("delegate: %w", err)
	}
	return fmt.Errorf("verify OCSP response: %w", err)
}

// Answer returns what the response says of the certificate that issuer issued as serial: the hashes of name and key are
// computed again under the algorithm of each answer. If there are several, it returns the worst.
func (r *Response) Answer(issuer *x509.Certificate, serial jpki.Serial) (Answer, error) {
	var found *Answer
	for i := range r.Answers {
		a := &r.Answers[i]
		if serial.IsZero() || a.CertID.Serial != serial || !a.CertID.issuedBy(issuer) {
			continue
		}
		if found == nil || a.Revoked && !found.Revoked || a.Unknown && !found.Revoked && !found.Unknown {
			found = a
		}
	}
	if found == nil {
		return Answer{}, errors.New("OCSP response has no answer for this certificate")
	}
	return *found, nil
}

// Fresh reports why an answer is not current at the given time, or nil. Clocks may differ by skew. An answer may be at
// most maxAge old, counted from thisUpdate; zero means as long as it says itself, and then it must say so.
func (a Answer) Fresh(at time.Time, skew, maxAge time.Duration) error {
	switch {
	case a.ThisUpdate.After(at.Add(skew)):
		return errors.New("OCSP answer is of the future")
	case a.NextUpdate.IsZero() && maxAge <= 0:
		return errors.New("OCSP answer does not say how long it holds")
	case !a.NextUpdate.IsZero() && a.NextUpdate.Before(a.ThisUpdate):
		return errors.New("OCSP answer ends before it begins")
	case !a.NextUpdate.IsZero() && a.NextUpdate.Before(at.Add(-skew)):
		return errors.New("OCSP answer has expired")
	case maxAge > 0 && a.ThisUpdate.Before(at.Add(-maxAge-skew)):
		return errors.New("OCSP answer is older than accepted")
	}
	return nil
}

// names reports whether the responder ID is that of cert.
func (r *Response) names(cert *x509.Certificate) bool {
	if r.ResponderName != nil {
		return bytes.Equal(r.ResponderName, cert.RawSubject)
	}
	hash, err := responderKeyHash(cert)
	return err == nil && bytes.Equal(r.ResponderKeyHash, hash)
}

func responderKeyHash(cert *x509.Certificate) ([]byte, error) {
	bits, err := publicKeyBits(cert)
	if err != nil {
		return nil, err
	}
	hash := sha1.Sum(bits) //nolint:gosec // see the import
	return hash[:], nil
}

// checkSignature checks a signature by cert's key, which must be one of the accepted kinds.
func checkSignature(cert *x509.Certificate, alg x509.SignatureAlgorithm, signed, signature []byte) error {
	if !slices.ContainsFunc(signatures, func(s signatureAlgorithm) bool { return s.algorithm == alg }) {
		return fmt.Errorf("signature algorithm %s is not accepted", alg)
	}
	if err := checkKey(cert.PublicKey); err != nil {
		return err
	}
	return cert.CheckSignature(alg, signed, signature)
}

func checkKey(key any) error {
	switch key := key.(type) {
	case *rsa.PublicKey:
		if n := key.N.BitLen(); n < 2048 || n > 8192 {
			return fmt.Errorf("RSA key of %d bits is not accepted", n)
		}
	case *ecdsa.PublicKey:
		if key.Curve != elliptic.P256() && key.Curve != elliptic.P384() {
			return errors.New("ECDSA key is on neither P-256 nor P-384")
		}
	default:
		return errors.New("key is neither RSA nor ECDSA")
	}
	return nil
}

// checkDelegate reports why cert may not sign answers on behalf of exactly the issuer's key, its validity apart.
func checkDelegate(cert, issuer *x509.Certificate) error {
	switch {
	case !bytes.Equal(cert.RawIssuer, issuer.RawSubject):
		return errors.New("issued under another name")
	case cert.IsCA || cert.KeyUsage&x509.KeyUsageCertSign != 0:
		return errors.New("is a certification authority")
	case !slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning):
		return errors.New("lacks the extended key usage OCSPSigning")
	case cert.KeyUsage != 0 && cert.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return errors.New("lacks the key usage digitalSignature")
	}
	nocheck := false
	for _, e := range cert.Extensions {
		if e.Id.Equal(oidNoCheck) {
			nocheck = isNULL(e.Value)
		}
	}
	if !nocheck {
		return errors.New("lacks id-pkix-ocsp-nocheck, so its own status cannot be established")
	}
	for _, id := range cert.UnhandledCriticalExtensions {
		if !id.Equal(oidNoCheck) {
			return errors.New("has a critical extension that is not understood")
		}
	}
	if err := checkSignature(issuer, cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature); err != nil {
		return fmt.Errorf("not issued by this key: %w", err)
	}
	return nil
}
