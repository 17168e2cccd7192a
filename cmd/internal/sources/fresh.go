package sources

import (
	"context"
	"crypto/x509"
	"time"

	"github.com/openjpki/jpki/verifier"
)

// Fresh asks a source that remembers, and the one behind it when what is remembered has become too old to be relied upon.
type Fresh struct {
	Remembering, Behind verifier.StatusChecker
	MaxAge              time.Duration
}

// Check is [verifier.StatusChecker]'s.
func (f Fresh) Check(ctx context.Context, leaf, issuer *x509.Certificate, at time.Time) (verifier.Revocation, error) {
	rev, err := f.Remembering.Check(ctx, leaf, issuer, at)
	if err == nil && rev.ThisUpdate.Before(at.Add(-f.MaxAge)) {
		return f.Behind.Check(ctx, leaf, issuer, at)
	}
	return rev, err
}
