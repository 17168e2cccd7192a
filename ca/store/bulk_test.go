package store_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/store"
)

func TestManyRowsAtOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, s *store.Store) {
		const many = 300 // more than one statement writes and one query looks for
		var list []store.Holder
		var ids []string
		for i := range many {
			list, ids = append(list, holder(fmt.Sprint("p", i))), append(ids, fmt.Sprint("p", i))
		}
		update(t, s, func(tx *store.Tx) error { return tx.PutHolders(list, now) })
		update(t, s, func(tx *store.Tx) error {
			got, err := tx.Holders(append(ids, "nobody", "p0"))
			if err != nil || len(got) != many {
				t.Fatal(len(got), err)
			}
			for i, h := range list {
				h = got[h.ID]
				h.Attributes.Name, h.Since.Name = "新名　花子", now
				list[i] = h
			}
			return tx.PutHolders(list, now)
		})
		err := s.View(t.Context(), func(tx *store.Tx) error {
			got, err := tx.Holders(ids)
			for _, h := range list {
				h.Version++
				if got[h.ID] != h {
					t.Errorf("%s came back otherwise, version %d", h.ID, got[h.ID].Version)
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		// One that somebody else has changed meanwhile keeps all from being written.
		stale := []store.Holder{list[1], list[0]}
		stale[0].Version, stale[1].Municipality = 2, "99202"
		if err := s.Update(t.Context(), func(tx *store.Tx) error { return tx.PutHolders(stale, now) }); !errors.Is(err, jpki.Conflict) {
			t.Error(err)
		}
		if err := s.Update(t.Context(), func(tx *store.Tx) error { return tx.PutHolder(holder("p0"), now) }); !errors.Is(err, jpki.Conflict) {
			t.Error("a second holder of one name:", err)
		}
		var events []store.ResidentEvent
		for i := range many {
			events = append(events, store.ResidentEvent{ID: fmt.Sprint("e", i), Holder: "p0", Type: jpki.Death, EffectiveAt: now, BodyHash: "h", Body: "b", Actor: "register:juki"})
		}
		update(t, s, func(tx *store.Tx) error { return tx.AddResidentEvents(events, now) })
		if err := s.Update(t.Context(), func(tx *store.Tx) error { return tx.AddResidentEvents(events[7:8], now) }); !errors.Is(err, jpki.InProgress) {
			t.Error("an event recorded twice:", err)
		}
	})
}

func TestReadAhead(t *testing.T) {
	onBoth(t, func(t *testing.T, s *store.Store) {
		world(t, s)
		update(t, s, func(tx *store.Tx) error {
			return errors.Join(tx.AddCertificate(certificate(1)), tx.AddCertificate(certificate(2)))
		})
		status := func(n int, version int64, state jpki.State) jpki.StatusChange {
			c := certificate(n)
			return jpki.StatusChange{ID: c.ID, Partition: c.Partition, NotAfter: c.NotAfter, Status: jpki.Status{State: state, Reason: jpki.CertificateHold, Cause: jpki.Lost, Since: now, Version: version}}
		}
		update(t, s, func(tx *store.Tx) error {
			if err := tx.ReadAhead(store.Ahead{Certificates: []string{"h1", "h2"}}); err != nil {
				return err
			}
			if err := errors.Join(tx.SetStatus(status(1, 2, jpki.Suspended)), tx.SetStatus(status(1, 3, jpki.Good)), tx.SetStatus(status(2, 2, jpki.Suspended))); err != nil {
				return err
			}
			if err := tx.SetStatus(status(2, 2, jpki.Suspended)); !errors.Is(err, jpki.Conflict) {
				t.Error("one version twice:", err)
			}
			ahead, err := tx.CertificatesOf("h1")
			if err != nil {
				return err
			}
			settled, err := tx.CertificatesOn("card1") // not read ahead: the database is asked
			if diff := cmp.Diff(fmt.Sprint(settled), fmt.Sprint(ahead)); diff != "" || len(settled) != 2 || settled[0].Status.Version != 3 || settled[1].Status.State != jpki.Suspended {
				t.Error(diff, settled)
			}
			if phones, err := tx.TokensUnder(certificate(1).ID); err != nil || len(phones) != 0 {
				t.Error(phones, err)
			}
			return err
		})
		log, err := s.StatusChanges(t.Context(), 0, 10)
		if err != nil || len(log) != 5 || log[4].Status.State != jpki.Suspended {
			t.Error(log, err)
		}
		if c, err := s.StatusOf(t.Context(), certificate(1).ID); err != nil || c.Status.Version != 3 || c.Status.State != jpki.Good {
			t.Error(c, err)
		}
		boom := errors.New("boom")
		if err := s.Update(t.Context(), func(tx *store.Tx) error {
			return errors.Join(tx.ReadAhead(store.Ahead{Certificates: []string{"h1"}}), tx.SetStatus(status(2, 3, jpki.Revoked)), boom)
		}); !errors.Is(err, boom) {
			t.Error(err)
		}
		if c, _ := s.StatusOf(t.Context(), certificate(2).ID); c.Status.Version != 2 {
			t.Error("an undone transaction changed a status")
		}
	})
}
