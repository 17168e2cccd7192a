// Package lists shows an authority's database to what publishes CRLs and status snapshots of it.
//
// [Statuses] is what a crl.Publisher and a snapshot.Publisher read, [Issuer] which lists a generation has, and
// [Follow] tells a publisher which of them no longer say the truth. Whatever is published is signed elsewhere: the package
// has no keys. Start at Statuses.
package lists

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/crl"
	"github.com/openjpki/jpki/crl/snapshot"
)

// kept is how long an expired certificate stays listed: two publication periods (RFC 5280 §3.3).
const kept = 48 * time.Hour

// Statuses are those of the certificates in a database. It is a crl.Source, a crl.Log and a snapshot.Source.
type Statuses struct {
	DB  *store.Store
	Now func() time.Time
}

// Revoked implements [crl.Source].
func (s Statuses) Revoked(ctx context.Context, issuer jpki.IssuerID, partition string) (iter.Seq2[crl.Entry, error], crl.Mark, error) {
	mark, err := s.mark(ctx)
	if err != nil {
		return nil, mark, err
	}
	return func(yield func(crl.Entry, error) bool) {
		for c, err := range s.DB.EachListed(ctx, issuer, partition) {
			if err != nil {
				yield(crl.Entry{}, err)
				return
			}
			if change, listed := changeOf(c, mark.AsOf); listed && !change.Released && !yield(change.Entry, nil) {
				return
			}
		}
	}, mark, nil
}

// Changes implements [crl.Log].
func (s Statuses) Changes(ctx context.Context, issuer jpki.IssuerID, partition string, after int64, limit int) (out []crl.Change, mark crl.Mark, err error) {
	if mark, err = s.mark(ctx); err != nil {
		return nil, mark, err
	}
	for c, err := range s.DB.EachChanged(ctx, issuer, partition, after, mark.Position) {
		if err != nil || len(out) > limit {
			return out, mark, err
		}
		if change, listed := changeOf(c, mark.AsOf); listed {
			out = append(out, change)
		}
	}
	return out, mark, nil
}

// mark is taken before anything else is read: what is read then is at least of this time and position.
func (s Statuses) mark(ctx context.Context) (crl.Mark, error) {
	asOf := s.Now()
	position, err := s.DB.StatusPosition(ctx)
	return crl.Mark{AsOf: asOf, Position: position}, err
}

// changeOf says a status as CRLs do; not of a certificate that expired long ago.
func changeOf(c jpki.StatusChange, asOf time.Time) (change crl.Change, listed bool) {
	reason, at, revoked := c.Status.Revocation()
	if !revoked {
		at = c.Status.Since
	}
	if at.After(asOf) { // the clock went back meanwhile; a CRL may not speak of the future
		at = asOf
	}
	return crl.Change{Entry: crl.Entry{Serial: c.ID.Serial, At: at, Reason: reason}, Released: !revoked}, asOf.Before(c.NotAfter.Add(kept))
}

// MayVanish implements [crl.Source].
func (s Statuses) MayVanish(ctx context.Context, issuer jpki.IssuerID, serial jpki.Serial) (bool, error) {
	c, err := s.DB.StatusOf(ctx, jpki.CertID{Issuer: issuer, Serial: serial})
	return err == nil && (c.Status.State == jpki.Good || s.Now().After(c.NotAfter)), err
}

// Certificates implements [snapshot.Source].
func (s Statuses) Certificates(ctx context.Context, issuer jpki.IssuerID, from time.Time) iter.Seq2[snapshot.Certificate, error] {
	return func(yield func(snapshot.Certificate, error) bool) {
		stopped := false
		err := s.DB.View(ctx, func(tx *store.Tx) error {
			for change, err := range tx.Statuses() {
				switch {
				case err != nil:
					return err
				case change.ID.Issuer != issuer || change.NotAfter.Before(from):
					continue
				case !yield(snapshot.Certificate{Serial: change.ID.Serial, State: change.Status.State}, nil):
					stopped = true
					return nil
				}
			}
			return nil
		})
		if err != nil && !stopped {
			yield(snapshot.Certificate{}, err)
		}
	}
}

// An IssuerConfig says what [Issuer] reads; every field is required.
type IssuerConfig struct {
	Profile     *ca.Profile
	StatusURL   string // the one that certificates carry
	Reader      *store.StatusReader
	ID          jpki.IssuerID
	Certificate *x509.Certificate
	Key         crypto.Signer // signs the lists
}

// Issuer gives a CRL and a delta to every partition that the profile has, and to those of earlier rules in which there are
// certificates: they point to it for life.
func Issuer(ctx context.Context, c IssuerConfig) (crl.Issuer, error) {
	issuer := crl.Issuer{ID: c.ID, Cert: c.Certificate, Signer: c.Key, DeltaURL: deltaURL(c.StatusURL, crl.ID{Issuer: c.ID})}
	used, err := c.Reader.Partitions(ctx, c.ID)
	if err != nil {
		return issuer, fmt.Errorf("read which partitions have certificates: %w", err)
	}
	for _, partition := range slices.Compact(slices.Sorted(slices.Values(append(used, c.Profile.Partitions(c.ID.CA)...)))) {
		scope, ok := c.Profile.CRLScope(c.StatusURL, c.ID, partition)
		if !ok {
			return issuer, fmt.Errorf("certificates of %s point to the CRL of partition %s, for which the profile has no name", c.ID, partition)
		}
		scope.DeltaURL = deltaURL(c.StatusURL, scope.ID())
		issuer.Partitions = append(issuer.Partitions, scope)
	}
	return issuer, nil
}

func deltaURL(statusURL string, id crl.ID) string {
	id.Delta = true
	return statusURL + "/crl/" + id.Path()
}

// A FollowConfig says what [Follow] does; every field is required but Changes.
type FollowConfig struct {
	Reader  *store.StatusReader
	Profile *ca.Profile
	Issuers []jpki.IssuerID // published once at the beginning; others come with the changes
	Changes <-chan struct{} // announces changes by this process; those of others are found within a second
	Log     *slog.Logger
}

// Follow reads the status log until ctx ends and tells a publisher which CRLs no longer say the truth. What changed before
// is found by publishing everything once.
func Follow(ctx context.Context, c FollowConfig, dirty chan<- crl.ID) error {
	send := func(k crl.ID) error {
		select {
		case dirty <- k:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	var after int64
	for _, id := range c.Issuers {
		for _, partition := range c.Profile.Partitions(id.CA) { // others, of earlier rules, come with the changes
			if err := send(crl.ID{Issuer: id, Partition: partition}); err != nil {
				return err
			}
		}
	}
	for {
		log, err := c.Reader.StatusChanges(ctx, after, 10_000)
		if err != nil && !errors.Is(err, context.Canceled) {
			c.Log.ErrorContext(ctx, "status log cannot be read for CRLs", slog.Any("error", err))
		}
		stale := map[crl.ID]bool{}
		for _, change := range log {
			after = change.Seq
			if change.Status.Version > 1 || change.Status.State != jpki.Good {
				stale[crl.ID{Issuer: change.ID.Issuer, Partition: change.Partition}] = true
			}
		}
		for k := range stale {
			if err := send(k); err != nil {
				return err
			}
		}
		if len(log) > 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.Changes:
		case <-time.After(time.Second):
		}
	}
}
