package sandbox

import (
	"context"
	"crypto/rand"
	"errors"
	"iter"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/crl/snapshot"
	"github.com/openjpki/jpki/hsm/signer"
)

// snapshotsConfig is how status snapshots are published here.
func snapshotsConfig(d dir, db *store.Store) snapshot.PublisherConfig {
	return snapshot.PublisherConfig{Dir: d.path("public", "snapshot"), Source: Statuses{db}, Now: time.Now, Rand: rand.Reader}
}

// publishSnapshots publishes what is due. One generation's failure does not keep the others waiting.
func (s *System) publishSnapshots(ctx context.Context) error {
	var failed []error
	for _, i := range s.keys.all() {
		failed = append(failed, s.packer.Due(ctx, snapshot.Issuer{ID: i.ID, Cert: i.Certificate, Signer: forPurpose(i.Signer, signer.ForOther)}))
	}
	return errors.Join(failed...)
}

// PublishSnapshots publishes of every generation of the sandbox in path a delta at once, or a snapshot, whether that runs or not.
func PublishSnapshots(ctx context.Context, path string, whole bool, margin time.Duration) (outcomes map[string]uint64, err error) {
	err = withGenerations(ctx, path, func(d dir, db *store.Store, all []ca.Issuer) error {
		cfg := snapshotsConfig(d, db)
		cfg.Margin = margin
		p, err := snapshot.NewPublisher(cfg)
		if err != nil {
			return err
		}
		var failed []error
		for _, i := range all {
			failed = append(failed, p.Publish(ctx, snapshot.Issuer{ID: i.ID, Cert: i.Certificate, Signer: forPurpose(i.Signer, signer.ForOther)}, whole))
		}
		outcomes = p.Outcomes.Snapshot()
		return errors.Join(failed...)
	})
	return outcomes, err
}

// Statuses shows a database to what makes status snapshots.
type Statuses struct{ DB *store.Store }

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
