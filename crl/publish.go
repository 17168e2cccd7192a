package crl

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/openjpki/jpki"
)

// A Source knows what is revoked.
type Source interface {
	// Revoked returns every certificate of the issuer's key, in one partition or with an empty partition in all, that was
	// revoked or suspended at the time of the mark, in ascending order of serials; an error ends the sequence, which is walked
	// once. A certificate that expired revoked must still be among them for two publication periods: it has to be on a CRL
	// made after its expiry (RFC 5280 §3.3).
	Revoked(ctx context.Context, issuer jpki.IssuerID, partition string) (iter.Seq2[Entry, error], Mark, error)
	// MayVanish reports whether a certificate that was published as revoked may be missing from now on: it has expired, or
	// it was suspended and is good again.
	MayVanish(ctx context.Context, issuer jpki.IssuerID, serial jpki.Serial) (bool, error)
}

// A Mark says what a look at a source has seen: everything until AsOf, which becomes thisUpdate, and of the status log
// everything up to a position.
type Mark struct {
	AsOf     time.Time
	Position int64
}

// A Log knows what has changed.
type Log interface {
	// Changes returns what was revoked, suspended or released behind a position, in the order in which that happened, of the
	// issuer's key and of one partition or, with an empty one, of all. It stops after limit+1: the caller then asks a
	// [Source] for everything.
	Changes(ctx context.Context, issuer jpki.IssuerID, partition string, after int64, limit int) ([]Change, Mark, error)
}

// An Issuer is one key for which CRLs are published: a full one and one for each partition.
type Issuer struct {
	ID         jpki.IssuerID
	Cert       *x509.Certificate
	Signer     crypto.Signer
	Partitions []Scope // of this issuer, each partition once
	DeltaURL   string  // where the full CRL's delta is served; "" if it has none
}

// A Config says what a publisher does. Dir, Issuers, Source and Now are required.
type Config struct {
	Dir      string // which must exist; a [Server] reads it
	Issuers  []Issuer
	Source   Source
	Changes  Log // optional: what changed is taken from here, and the rest from the published CRL; required for deltas
	Now      func() time.Time
	Period   time.Duration // after which a CRL is made from the source again even if nothing happened; 0 means 24 h
	Validity time.Duration // from thisUpdate to nextUpdate, at least twice the period; 0 means 48 h
	// DeltaPeriod is after how long a delta is published again even if nothing happened; it is valid for two. 0 means 1 h.
	DeltaPeriod time.Duration
	// DeltaAlone is from how many octets on a CRL that has deltas is published once a period, and after a change only its
	// delta is; 0 means 16 MiB.
	DeltaAlone int64
	Gzip       bool         // put a gzip form beside each list of 4 KiB or more, for a [Server]
	Log        *slog.Logger // optional
}

// A Publisher keeps the CRLs in a directory up to date.
type Publisher struct {
	// Outcomes counts publications: "published", "refused" by the check, "failed" before or after it; "unpacked" those whose
	// gzip form could not be written.
	Outcomes jpki.Tally

	cfg Config

	mu      sync.Mutex // guards targets and known
	targets map[ID]target
	known   map[ID]known
	added   chan struct{} // a target came after the publisher was made
}

type target struct {
	issuer Issuer
	scope  Scope
}

// NewPublisher checks the configuration.
func NewPublisher(cfg Config) (*Publisher, error) {
	if cfg.Period == 0 {
		cfg.Period = 24 * time.Hour
	}
	if cfg.Validity == 0 {
		cfg.Validity = 48 * time.Hour
	}
	if cfg.DeltaPeriod == 0 {
		cfg.DeltaPeriod = time.Hour
	}
	if cfg.DeltaAlone == 0 {
		cfg.DeltaAlone = 16 << 20
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	switch {
	case cfg.Dir == "":
		return nil, errors.New("crl.Config.Dir is missing")
	case len(cfg.Issuers) == 0:
		return nil, errors.New("crl.Config.Issuers is missing")
	case cfg.Source == nil:
		return nil, errors.New("crl.Config.Source is missing")
	case cfg.Now == nil:
		return nil, errors.New("crl.Config.Now is missing")
	case cfg.Period < time.Second:
		return nil, errors.New("crl.Config.Period is less than a second")
	case cfg.DeltaPeriod < time.Second:
		return nil, errors.New("crl.Config.DeltaPeriod is less than a second")
	case cfg.Validity < 2*cfg.Period:
		return nil, errors.New("crl.Config.Validity is less than two periods: one missed publication would leave no valid CRL")
	}
	p := &Publisher{cfg: cfg, targets: map[ID]target{}, known: map[ID]known{}, added: make(chan struct{}, 1)}
	for _, issuer := range cfg.Issuers {
		if err := p.AddIssuer(issuer); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// AddIssuer has the CRLs of one more key published from now on, by a [Publisher.Run] that is under way as well. An error
// leaves things as they were.
func (p *Publisher) AddIssuer(issuer Issuer) error {
	if _, err := checkIssuer(issuer.Cert, issuer.Signer); err != nil {
		return fmt.Errorf("issuer %s: %w", issuer.ID, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	more := maps.Clone(p.targets)
	for _, scope := range append([]Scope{{Issuer: issuer.ID, DeltaURL: issuer.DeltaURL}}, issuer.Partitions...) {
		if err := scope.Validate(); err != nil {
			return fmt.Errorf("issuer %s: %w", issuer.ID, err)
		}
		if _, twice := more[scope.ID()]; twice || scope.Issuer != issuer.ID {
			return fmt.Errorf("issuer %s: CRL scope %s is there twice or another issuer's", issuer.ID, scope.ID())
		}
		more[scope.ID()] = target{issuer, scope}
		if scope.DeltaURL != "" {
			if p.cfg.Changes == nil {
				return fmt.Errorf("CRL scope %s has deltas, and crl.Config.Changes is missing", scope.ID())
			}
			delta := scope.ID()
			delta.Delta = true
			more[delta] = target{issuer, scope}
		}
	}
	p.targets = more
	select {
	case p.added <- struct{}{}:
	default:
	}
	return nil
}

// all returns the targets, not to be changed.
func (p *Publisher) all() map[ID]target {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.targets
}
