package ca

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/store"
)

// Reconcile ends issuances that a crash cut short: those begun longer ago than age and not ended. Whether the key had
// signed already cannot be known, so their serial numbers are recorded as revoked: should such a certificate ever turn
// up, it is answered for. The request that began it can be repeated. It returns how many were ended.
func (a *Authority) Reconcile(ctx context.Context, age time.Duration) (int, error) {
	const batch = 100
	ended := 0
	for {
		now := a.now()
		var open []store.Intent
		err := a.store.View(ctx, func(tx *store.Tx) (err error) {
			open, err = tx.OpenIntents(now.Add(-age), batch)
			return err
		})
		if err != nil {
			return ended, fmt.Errorf("list open issuances: %w", err)
		}
		for _, i := range open {
			if err := a.abandon(ctx, []store.Intent{i}, now); err != nil && !errors.Is(err, jpki.Conflict) {
				return ended, fmt.Errorf("end open issuance: %w", err)
			}
			ended++
		}
		if len(open) < batch {
			return ended, nil
		}
	}
}

// abandon ends intents: the numbers are burnt, the idempotency key is free again.
func (a *Authority) abandon(ctx context.Context, intents []store.Intent, now time.Time) error {
	self := jpki.Actor{Role: jpki.System, ID: "reconcile"}
	return a.store.Update(ctx, func(tx *store.Tx) error {
		for _, i := range intents {
			if err := tx.EndIntent(i.ID, false, now); err != nil {
				return err
			}
			status := jpki.Status{State: jpki.Revoked, Reason: jpki.Unspecified, Cause: jpki.Abandoned, Since: now.UTC().Truncate(time.Second), Version: 1}
			if err := tx.AddStatus(jpki.StatusChange{ID: i.ID, Partition: i.Partition, NotAfter: i.NotAfter, Status: status}); err != nil {
				return err
			}
			if err := tx.Audit(now, self, "issue.abandoned", i.ID.String(), statusDetail(i.Kind, status)); err != nil {
				return err
			}
			if err := tx.ForgetOnce(i.Actor, i.IdemKey); err != nil {
				return err
			}
		}
		return nil
	})
}
