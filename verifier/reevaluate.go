package verifier

import (
	"context"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ocsp"
)

// SignatureEvidence is what a verdict on a signature over a digest was reached from.
type SignatureEvidence struct {
	SignatureInput           // At is required: the time that the verdict was about
	Response       []byte    // the OCSP response, DER; nil if the status had no such proof
	CheckedAt      time.Time // when it was got
	Source         string    // from whom; is repeated in the result
}

// ReevaluateSignature gives the verdict anew, under the policy and with the trust anchors of now, as of the time of the verification.
// Nobody is asked: the status is what the stored response proves. Without one, or with one that may not be believed, the
// status is not established, however the first verdict was.
func (v *Verifier) ReevaluateSignature(ctx context.Context, e SignatureEvidence) (*Result, error) {
	if e.At.IsZero() {
		return nil, jpki.Errorf(jpki.Malformed, "the time of the verification is required")
	}
	stored := *v
	stored.revocation = storedStatus{&e, v.skew}
	return stored.Signature(ctx, e.SignatureInput)
}

// storedStatus is the [StatusChecker] that reads one stored response.
type storedStatus struct {
	*SignatureEvidence
	skew time.Duration
}

// Check believes the response as of when it was got.
func (s storedStatus) Check(_ context.Context, leaf, issuer *x509.Certificate, _ time.Time) (Revocation, error) {
	if len(s.Response) == 0 || s.CheckedAt.IsZero() {
		return Revocation{}, &StatusError{Failure: NoSource}
	}
	serial, err := jpki.SerialFromBig(leaf.SerialNumber)
	if err != nil {
		return Revocation{}, fmt.Errorf("read stored status: %w", err)
	}
	resp, err := ocsp.ParseResponse(s.Response)
	if err != nil {
		return Revocation{}, &StatusError{Failure: AnswerMalformed, Err: err}
	}
	return revocationIn(resp, serial, issuer, nil, s.CheckedAt, s.skew, s.Source)
}
