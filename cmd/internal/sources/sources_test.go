package sources_test

import (
	"context"
	"crypto/x509"
	"errors"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/cmd/internal/sources"
	"github.com/openjpki/jpki/verifier"
)

// says is a source with one answer.
type says struct {
	rev verifier.Revocation
	err error
}

func (s says) Check(context.Context, *x509.Certificate, *x509.Certificate, time.Time) (verifier.Revocation, error) {
	return s.rev, s.err
}

func TestChain(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	at := func(state jpki.State, ago time.Duration, since bool) says {
		rev := verifier.Revocation{State: state, ThisUpdate: now.Add(-ago)}
		if since {
			rev.RevokedAt, rev.Reason = new(now.Add(-48*time.Hour)), jpki.CertificateHold
		}
		return says{rev: rev}
	}
	good := func(ago time.Duration) says { return at(jpki.Good, ago, false) }
	fails := func(f verifier.StatusFailure) says { return says{err: &verifier.StatusError{Failure: f}} }
	for name, c := range map[string]struct {
		sources []says
		want    jpki.State // "" if it fails
		failure verifier.StatusFailure
	}{
		"the first that knows":                       {[]says{good(time.Minute), at(jpki.Revoked, 0, true)}, jpki.Good, ""},
		"one that fails is passed over":              {[]says{fails(verifier.Unreachable), good(0)}, jpki.Good, ""},
		"one that does not cover is passed over":     {[]says{fails(verifier.NoSource), at(jpki.Suspended, 0, true)}, jpki.Suspended, ""},
		"an old one is passed over":                  {[]says{good(2 * time.Hour), at(jpki.Revoked, 0, true)}, jpki.Revoked, ""},
		"only an old one":                            {[]says{good(2 * time.Hour)}, "", verifier.AnswerNotCurrent},
		"bad without time, and one who knows it":     {[]says{at(jpki.Revoked, 0, false), at(jpki.Revoked, 0, true)}, jpki.Revoked, ""},
		"bad without time, and nobody who knows it":  {[]says{at(jpki.Revoked, 0, false)}, "", verifier.AnswerInconsistent},
		"revoked, and a later source says good":      {[]says{at(jpki.Revoked, time.Minute, false), good(0)}, "", verifier.AnswerInconsistent},
		"long revoked, and a later source says good": {[]says{at(jpki.Revoked, 2*time.Hour, true), good(0)}, "", verifier.AnswerInconsistent},
		"suspended, and good from before":            {[]says{at(jpki.Suspended, time.Minute, false), good(time.Minute)}, "", verifier.AnswerInconsistent},
		"suspended, and released since":              {[]says{at(jpki.Suspended, time.Minute, false), good(0)}, jpki.Good, ""},
		"revoked beats suspended":                    {[]says{at(jpki.Suspended, time.Minute, false), at(jpki.Revoked, time.Hour, false), good(0)}, "", verifier.AnswerInconsistent},
		"suspended does not soften revoked":          {[]says{at(jpki.Revoked, time.Minute, false), at(jpki.Suspended, 0, false), good(0)}, "", verifier.AnswerInconsistent},
		"never issued is an answer":                  {[]says{at(verifier.Unknown, 0, false), good(0)}, verifier.Unknown, ""},
		"what failed is said, not what had nothing":  {[]says{fails(verifier.TimedOut), fails(verifier.NoSource)}, "", verifier.TimedOut},
		"nobody has anything":                        {[]says{fails(verifier.NoSource)}, "", verifier.NoSource},
		"an error without a name":                    {[]says{{err: errors.New("broken")}}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := sources.ChainConfig{Now: func() time.Time { return now }, MaxAge: time.Hour}
			for _, s := range c.sources {
				cfg.Sources = append(cfg.Sources, sources.Source{Name: "s", Checker: s})
			}
			chain, err := sources.NewChain(cfg)
			if err != nil {
				t.Fatal(err)
			}
			rev, err := chain.Check(t.Context(), nil, nil, now)
			if c.want != "" {
				if err != nil || rev.State != c.want {
					t.Errorf("got %s, %v", rev.State, err)
				}
				return
			}
			if err == nil {
				t.Fatalf("got %s", rev.State)
			}
			e, named := errors.AsType[*verifier.StatusError](err)
			if named != (c.failure != "") || named && e.Failure != c.failure {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestFresh(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	behind := says{rev: verifier.Revocation{State: jpki.Revoked, ThisUpdate: now}}
	for age, want := range map[time.Duration]jpki.State{time.Hour: jpki.Good, time.Hour + 1: jpki.Revoked} {
		f := sources.Fresh{Remembering: says{rev: verifier.Revocation{State: jpki.Good, ThisUpdate: now.Add(-age)}}, Behind: behind, MaxAge: time.Hour}
		if rev, err := f.Check(t.Context(), nil, nil, now); err != nil || rev.State != want {
			t.Errorf("after %s: %s, %v", age, rev.State, err)
		}
	}
}
