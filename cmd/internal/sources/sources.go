// Package sources asks whether a certificate is revoked where a configuration says, in its order.
//
// A [Chain] is a verifier.StatusChecker over several: [Snapshots] and [Lists] look into folders that they keep up to date,
// verifier.OCSP asks. The first that knows answers; what is too old for every policy is passed over, and so is a source that fails. No
// source makes good again what an earlier one said is not. It decides nothing else about certificates. All are safe for
// concurrent use. Start at Chain.Check.
package sources

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/verifier"
)

// A Source is one of a [Chain].
type Source struct {
	Name    string // in metrics: "snapshot", "crl", "ocsp"
	Checker verifier.StatusChecker
}

// ChainConfig is what [NewChain] wants.
type ChainConfig struct {
	Sources []Source         // required
	Now     func() time.Time // required
	// MaxAge is how old a statement may be (required): that of the strictest policy. An older one is passed over.
	MaxAge time.Duration
}

// A Chain asks its sources in their order.
type Chain struct {
	ChainConfig
	outcomes jpki.Tally
}

// NewChain checks the configuration.
func NewChain(cfg ChainConfig) (*Chain, error) {
	if len(cfg.Sources) == 0 || cfg.Now == nil || cfg.MaxAge <= 0 {
		return nil, errors.New("chain of sources: Sources, Now and MaxAge are required")
	}
	return &Chain{ChainConfig: cfg}, nil
}

// Outcomes counts what each source answered: "crl-good", "snapshot-not-covered", "ocsp-timed-out".
func (c *Chain) Outcomes() map[string]uint64 { return c.outcomes.Snapshot() }

// Check is [verifier.StatusChecker]'s. A source that says that a certificate is not good, but not since when and why, or that is too old
// to be relied upon, leaves a doubt: a later source has to know it better, from a later time if the certificate may have been released.
func (c *Chain) Check(ctx context.Context, leaf, issuer *x509.Certificate, at time.Time) (verifier.Revocation, error) {
	var doubt *verifier.Revocation
	var failed error
	note := func(s Source, f verifier.StatusFailure, err error) {
		c.outcomes.Add(s.Name + "-" + string(f))
		if failed == nil || f != verifier.NoSource { // that one knows nothing says less than that another failed
			failed = err
		}
	}
	for _, s := range c.Sources {
		rev, err := s.Checker.Check(ctx, leaf, issuer, at)
		if err != nil {
			failure := verifier.CheckFailed
			if e, ok := errors.AsType[*verifier.StatusError](err); ok {
				failure = e.Failure
			}
			note(s, failure, fmt.Errorf("%s: %w", s.Name, err))
			continue
		}
		bad := rev.State == jpki.Suspended || rev.State == jpki.Revoked
		switch old := rev.ThisUpdate.Before(at.Add(-c.MaxAge)); {
		case bad && (old || rev.RevokedAt == nil):
			if doubt == nil || doubt.State != jpki.Revoked && (rev.State == jpki.Revoked || rev.ThisUpdate.After(doubt.ThisUpdate)) {
				doubt = &rev
			}
			note(s, verifier.AnswerInconsistent, &verifier.StatusError{Failure: verifier.AnswerInconsistent, Err: fmt.Errorf("%s says %s, and nobody since when", s.Name, rev.State)})
		case old:
			note(s, verifier.AnswerNotCurrent, &verifier.StatusError{Failure: verifier.AnswerNotCurrent, Err: fmt.Errorf("%s is too old", s.Name)})
		case rev.State == jpki.Good && doubt != nil && (doubt.State == jpki.Revoked || !rev.ThisUpdate.After(doubt.ThisUpdate)):
			note(s, verifier.AnswerInconsistent, &verifier.StatusError{Failure: verifier.AnswerInconsistent, Err: fmt.Errorf("%s says good, and an earlier source %s", s.Name, doubt.State)})
		default:
			c.outcomes.Add(s.Name + "-" + string(rev.State))
			return rev, nil
		}
	}
	return verifier.Revocation{}, failed
}

// notCovered says that a source has nothing about a certificate.
func notCovered(why string) error {
	return &verifier.StatusError{Failure: verifier.NoSource, Err: errors.New(why)}
}

// An Issuer is one whose certificates a folder has the statuses of.
type Issuer struct {
	ID          jpki.IssuerID
	Certificate *x509.Certificate
}

// find returns the index of the issuer with this certificate's key, -1 if there is none.
func find(all []Issuer, issuer *x509.Certificate) int {
	for i, one := range all {
		if one.Certificate.Equal(issuer) {
			return i
		}
	}
	return -1
}
