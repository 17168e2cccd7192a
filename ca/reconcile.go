package ca

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/store"
)

// Reconcile ends issuances that a crash cut short: those begun longer ago than age and not ended. Whether the key had
// signed already cannot be known, so their serial numbers are recorded as revoked: should such a certificate ever turn
// up, it is answered for. The request that began it can be repeated. It returns how many numbers were burnt.
//
// While other processes issue, age must be longer than [Config].SigningTime. Age 0 ends everything that is open, whatever
// the clock says: for a process that knows it is alone.
func (a *Authority) Reconcile(ctx context.Context, age time.Duration) (int, error) {
	const batch = 100
	ended := 0
	for {
		now := a.now()
		before := now.Add(-age)
		if age == 0 {
			before = time.UnixMicro(1<<63 - 1)
		}
		var open []store.Intent
		err := a.store.View(ctx, func(tx *store.Tx) (err error) { open, err = tx.OpenIntents(before, batch); return err })
		if err != nil {
			return ended, fmt.Errorf("list open issuances: %w", err)
		}
		for _, i := range open {
			n, err := a.reconcile(ctx, i, now)
			if err != nil && !errors.Is(err, jpki.Conflict) {
				return ended, fmt.Errorf("end open issuance: %w", err)
			}
			ended += n
		}
		if len(open) < batch {
			return ended, nil
		}
	}
}

// reconcile ends the issuance that an intent is of, with all its numbers at once: they share an idempotency key, and once
// that is free a repeated request may begin anew under it.
func (a *Authority) reconcile(ctx context.Context, one store.Intent, now time.Time) (ended int, err error) {
	err = a.store.Update(ctx, func(tx *store.Tx) error {
		all, err := tx.OpenIntentsUnder(one.Actor, one.IdemKey)
		if err != nil {
			return err
		}
		if ended = len(all); !slices.ContainsFunc(all, func(i store.Intent) bool { return i.ID == one.ID }) {
			ended = 0
			return nil // ended meanwhile
		}
		return abandon(tx, all, now)
	})
	return ended, err
}

// abandon ends the intents of one issuance, all or, if somebody else has ended one, none.
func (a *Authority) abandon(ctx context.Context, intents []store.Intent, now time.Time) error {
	return a.store.Update(ctx, func(tx *store.Tx) error { return abandon(tx, intents, now) })
}

// abandon: the numbers are burnt, the idempotency key is free again.
func abandon(tx *store.Tx, intents []store.Intent, now time.Time) error {
	self := jpki.Actor{Role: jpki.System, ID: "reconcile"}
	for _, i := range intents {
		if err := tx.EndIntent(i.ID, false, now); err != nil {
			return err
		}
		status := jpki.Status{State: jpki.Revoked, Reason: jpki.Unspecified, Cause: jpki.Abandoned, Since: now.UTC().Truncate(time.Second)}
		if err := tx.AddStatus(jpki.StatusChange{ID: i.ID, Partition: i.Partition, NotAfter: i.NotAfter, Status: status}); err != nil {
			return err
		}
		status.Version = 1
		if err := tx.Audit(now, self, "issue.abandoned", i.ID.String(), statusDetail(i.Kind, status)); err != nil {
			return err
		}
		if err := tx.ForgetOnce(i.Actor, i.IdemKey); err != nil {
			return err
		}
	}
	return nil
}
