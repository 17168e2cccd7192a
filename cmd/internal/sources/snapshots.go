package sources

import (
	"context"
	"crypto/x509"
	"errors"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/crl/snapshot"
	"github.com/openjpki/jpki/verifier"
)

// FolderConfig is what [NewSnapshots] and [NewLists] want; every field is required but URL.
type FolderConfig struct {
	Dir     string // in which each issuer has a folder of its own, as sign-1
	URL     string // of the status service; empty if somebody else keeps the folder up to date
	Issuers []Issuer
	Now     func() time.Time
}

func (c *FolderConfig) check() error {
	if c.Dir == "" || len(c.Issuers) == 0 || c.Now == nil {
		return errors.New("folder of statuses: Dir, Issuers and Now are required")
	}
	return nil
}

// Snapshots answers from status snapshots. They say what became of a certificate, not since when.
type Snapshots struct {
	FolderConfig
	now []atomic.Pointer[snapshot.Snapshot] // of each issuer
}

// NewSnapshots takes up what the folder has.
func NewSnapshots(cfg FolderConfig) (*Snapshots, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	s := &Snapshots{FolderConfig: cfg, now: make([]atomic.Pointer[snapshot.Snapshot], len(cfg.Issuers))}
	for i := range cfg.Issuers {
		_ = s.open(i) // there may be none yet
	}
	return s, nil
}

// Refresh fetches what is new and takes it up. One issuer's failure does not keep the others back.
func (s *Snapshots) Refresh(ctx context.Context) error {
	var failed []error
	for i, issuer := range s.Issuers {
		if s.URL != "" {
			if _, _, err := FetchSnapshot(ctx, s.URL+"/snapshot/"+issuer.ID.String()+"/", s.dir(i), issuer.Certificate); err != nil {
				failed = append(failed, err)
				continue
			}
		}
		failed = append(failed, s.open(i))
	}
	return errors.Join(failed...)
}

func (s *Snapshots) dir(i int) string { return filepath.Join(s.Dir, s.Issuers[i].ID.String()) }

func (s *Snapshots) open(i int) error {
	cfg := snapshot.Config{IssuerCert: s.Issuers[i].Certificate, Now: s.Now}
	if have := s.now[i].Load(); have != nil {
		cfg.Sequence = have.Info().Sequence
	}
	opened, _, err := snapshot.OpenDir(s.dir(i), cfg)
	if err == nil {
		s.now[i].Store(opened)
	}
	return err
}

// Age is how old the oldest issuer's snapshot is, in seconds; an issuer that has none is as old as the century.
func (s *Snapshots) Age() float64 {
	var oldest time.Duration
	for i := range s.now {
		at := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
		if have := s.now[i].Load(); have != nil {
			at = have.Info().ThisUpdate
		}
		oldest = max(oldest, s.Now().Sub(at))
	}
	return oldest.Seconds()
}

// Check is [verifier.StatusChecker]'s.
func (s *Snapshots) Check(_ context.Context, leaf, issuer *x509.Certificate, _ time.Time) (verifier.Revocation, error) {
	i := find(s.Issuers, issuer)
	if i < 0 {
		return verifier.Revocation{}, notCovered("no snapshots of this issuer")
	}
	have := s.now[i].Load()
	if have == nil {
		return verifier.Revocation{}, notCovered("there is no snapshot yet")
	}
	serial, err := jpki.SerialFromBig(leaf.SerialNumber)
	if err != nil {
		return verifier.Revocation{}, err
	}
	state, covered := have.Lookup(snapshot.Question{Serial: serial, NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter})
	if !covered {
		return verifier.Revocation{}, notCovered("the snapshot does not cover the certificate")
	}
	info := have.Info()
	return verifier.Revocation{State: state, Source: "snapshot " + info.Issuer.String(), ThisUpdate: info.ThisUpdate, NextUpdate: info.NextUpdate, CheckedAt: s.Now()}, nil
}
