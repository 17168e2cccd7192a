package ca_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/store"
)

func TestEventsAreTakenInOnce(t *testing.T) {
	onBoth(t, func(w *world) {
		sign := w.issue("h1", "card-1", jpki.CardSign)[0].ID
		move := jpki.Event{ID: "e1", Holder: "h1", Type: jpki.AddressChanged, EffectiveAt: w.now, Municipality: "99101", Attributes: with(func(a *jpki.Attributes) { a.Address = "砂箱県青葉市南町四丁目5番6号" })}
		first, err := w.event(move)
		if err != nil {
			w.t.Fatal(err)
		}
		again, err := w.event(move)
		if err != nil || !again.Applied || len(again.Changed) != 1 || again.Changed[0].ID != first.Changed[0].ID {
			w.t.Errorf("the same event again: %v %v", again, err)
		}
		other := move
		other.Municipality = "99202"
		if _, err := w.event(other); !errors.Is(err, jpki.EventConflict) {
			w.t.Errorf("other content under the same identifier: %v", err)
		}
		w.expect(map[jpki.CertID]string{sign: "revoked affiliationChanged"})
		if n := len(must(w.db.StatusChanges(w.t.Context(), 0, 100))); n != 2 {
			w.t.Errorf("%d entries in the status log, want the issue and one revocation", n)
		}
	})
}

func TestEventsOfTheFutureWait(t *testing.T) {
	onBoth(t, func(w *world) {
		sign := w.issue("h1", "card-1", jpki.CardSign)[0].ID
		move := jpki.Event{ID: "e1", Holder: "h1", Type: jpki.AddressChanged, EffectiveAt: w.now.Add(24 * time.Hour), Municipality: "99202", Attributes: attributes(jpki.NewBirthDate(1980, 2, 17))}
		for range 2 {
			if out, err := w.event(move); err != nil || out.Applied {
				w.t.Fatal(out, err)
			}
		}
		if n, err := w.a.ApplyDue(w.t.Context()); n != 0 || err != nil {
			w.t.Errorf("applied early: %d %v", n, err)
		}
		w.expect(map[jpki.CertID]string{sign: "good"})
		w.now = w.now.Add(24 * time.Hour)
		if n, err := w.a.ApplyDue(w.t.Context()); n != 1 || err != nil {
			w.t.Errorf("due: %d %v", n, err)
		}
		w.expect(map[jpki.CertID]string{sign: "revoked affiliationChanged"})
		if out, err := w.event(move); err != nil || !out.Applied || len(out.Changed) != 1 {
			w.t.Errorf("reported again after it took effect: %v %v", out, err)
		}
		// Once applied, the event's personal data is gone from the event table.
		err := w.db.View(w.t.Context(), func(tx *store.Tx) error {
			e, _, err := tx.ResidentEvent("e1")
			if strings.Contains(e.Body, "砂") {
				w.t.Error("an applied event still holds the holder's attributes")
			}
			return err
		})
		if err != nil {
			w.t.Fatal(err)
		}
	})
}

func TestEventsThatAreRefused(t *testing.T) {
	onBoth(t, func(w *world) {
		ok := func() jpki.Event {
			return jpki.Event{Holder: "h1", Type: jpki.AddressChanged, Municipality: "99202", Attributes: attributes(jpki.NewBirthDate(1980, 2, 17))}
		}
		with := func(f func(*jpki.Event)) jpki.Event { e := ok(); f(&e); return e }
		for name, c := range map[string]struct {
			e    jpki.Event
			want jpki.Problem
		}{
			"no holder":               {with(func(e *jpki.Event) { e.Holder = "" }), jpki.Malformed},
			"My Number as holder":     {with(func(e *jpki.Event) { e.Holder = "1234-5678-9018" }), jpki.MyNumberPresent},
			"My Number in address":    {with(func(e *jpki.Event) { e.Attributes.Address += "１２３４５６７８９０１８" }), jpki.MyNumberPresent},
			"unknown type":            {with(func(e *jpki.Event) { e.Type = "exploded" }), jpki.Malformed},
			"no attributes":           {with(func(e *jpki.Event) { e.Attributes = nil }), jpki.Malformed},
			"attributes of the dead":  {with(func(e *jpki.Event) { e.Type, e.Municipality = jpki.Death, "" }), jpki.Malformed},
			"unknown municipality":    {with(func(e *jpki.Event) { e.Municipality = "13101" }), jpki.Malformed},
			"no municipality":         {with(func(e *jpki.Event) { e.Municipality = "" }), jpki.Malformed},
			"impossible birth date":   {with(func(e *jpki.Event) { e.Attributes.BirthDate = "319800231" }), jpki.Malformed},
			"control character":       {with(func(e *jpki.Event) { e.Attributes.Name = "a\x00b" }), jpki.Malformed},
			"marks of another length": {with(func(e *jpki.Event) { e.Attributes.NameSubstitutes = "00" }), jpki.Malformed},
			"somebody unknown":        {with(func(e *jpki.Event) { e.Holder = "h9" }), jpki.UnknownHolder},
			"registered twice":        {with(func(e *jpki.Event) { e.Type = jpki.Registered }), jpki.EventConflict},
		} {
			if _, err := w.event(c.e); jpki.ProblemOf(err) != c.want {
				w.t.Errorf("%s: got %v, want %s", name, err, c.want)
			}
			if _, err := w.a.ApplyResidentEvent(w.t.Context(), counter, ok()); !errors.Is(err, jpki.Forbidden) {
				w.t.Errorf("a counter reported a move: %v", err)
			}
		}
	})
}
