package verifier

import (
	"crypto/x509"
	"fmt"
	"time"

	"github.com/openjpki/jpki/verifier/path"
)

// proofOf reads by which keys and algorithms an OCSP response is signed. That they may speak for issuer was found out by who
// asked; what they are worth is the policy's question.
func proofOf(response []byte, issuer *x509.Certificate) ([]path.SignedBy, error) {
	o, err := path.ParseOCSP(response)
	if err != nil {
		return nil, err
	}
	by, err := path.ParseCertificate(issuer.Raw)
	if err != nil {
		return nil, err
	}
	return o.SignedBy(by)
}

// admitsProof reports why the policy does not rely on what proves a status, or nil. An answer is held against the ends of
// algorithms at the time at which it was got: it was made just before, whatever time the question is about. What a checker brings that
// is no OCSP response was judged by that checker alone.
func (d *demand) admitsProof(rev *Revocation, issuer *x509.Certificate, now time.Time) *StatusError {
	if rev.Format != mediaResponse {
		return nil
	}
	signed := rev.signed
	if signed == nil { // a checker of somebody else's
		var err error
		if signed, err = proofOf(rev.Evidence, issuer); err != nil {
			return &StatusError{Failure: AnswerMalformed, Err: err}
		}
	}
	if got := rev.CheckedAt; !got.IsZero() && got.Before(now) {
		now = got // remembered since
	}
	for _, s := range signed {
		if err := d.admits(s.Key, s.Algorithm, now); err != nil {
			return &StatusError{Failure: AnswerWeak, Err: fmt.Errorf("%s: %w", s.What, err)}
		}
	}
	return nil
}
