package sandbox

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/cmd/internal/lists"
	"github.com/openjpki/jpki/crl/snapshot"
	"github.com/openjpki/jpki/hsm/signer"
)

// snapshotsConfig is how status snapshots are published here.
func snapshotsConfig(d dir, db *store.Store) snapshot.PublisherConfig {
	return snapshot.PublisherConfig{Dir: d.path("public", "snapshot"), Source: lists.Statuses{DB: db, Now: time.Now}, Now: time.Now, Rand: rand.Reader}
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
