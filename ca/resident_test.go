package ca_test

import (
	"context"
	"errors"
	"strings"
	"sync"
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

// Events arrive out of order: by late report, by another line, by a wait that ends behind one that did not wait. What is
// newer in the register entry stays, and what it stays against ends no certificate.
func TestEventsOutOfOrder(t *testing.T) {
	born := jpki.NewBirthDate(1980, 2, 17)
	with := func(name, address string) *jpki.Attributes {
		a := attributes(born)
		a.Name, a.Address = name, address
		return a
	}
	onBoth(t, func(w *world) {
		day := func(n int) time.Time { return w.now.AddDate(0, 0, n) }
		report := func(e jpki.Event) {
			w.t.Helper()
			e.Holder = "h1"
			if _, err := w.event(e); err != nil {
				w.t.Fatalf("%s of %s: %v", e.Type, e.EffectiveAt, err)
			}
		}
		entry := func() (h store.Holder) {
			w.t.Helper()
			if err := w.db.View(w.t.Context(), func(tx *store.Tx) (err error) { h, err = tx.Holder("h1"); return err }); err != nil {
				w.t.Fatal(err)
			}
			return h
		}
		want := func(name, address, municipality string, ward bool) {
			w.t.Helper()
			h := entry()
			if h.Attributes.Name != name || h.Attributes.Address != address || h.Municipality != municipality || h.Guardianship != ward {
				w.t.Errorf("the register entry has another name, address or municipality (%s), or guardianship is %v", h.Municipality, h.Guardianship)
			}
		}
		w.now = w.now.AddDate(0, 0, 30)
		start := w.now
		w.now = start.AddDate(0, 0, 10)
		report(jpki.Event{Type: jpki.AddressChanged, EffectiveAt: day(-2), Municipality: "99202", Attributes: with("砂場　花子", "港市二丁目")})
		sign := must(w.a.Issue(w.t.Context(), other, w.request("h1", "card-1", jpki.CardSign)))[0].ID
		report(jpki.Event{Type: jpki.AddressChanged, EffectiveAt: day(-5), Municipality: "99303", Attributes: with("砂場　花子", "山町一丁目")})
		want("砂場　花子", "港市二丁目", "99202", false)
		w.expect(map[jpki.CertID]string{sign: "good"})
		// A late report of something else changes what it is about and nothing else.
		report(jpki.Event{Type: jpki.NameChanged, EffectiveAt: day(-4), Attributes: with("箱庭　花子", "青葉市")})
		want("箱庭　花子", "港市二丁目", "99202", false)
		w.expect(map[jpki.CertID]string{sign: "revoked affiliationChanged"})
		report(jpki.Event{Type: jpki.GuardianshipEnded, EffectiveAt: day(-1)})
		report(jpki.Event{Type: jpki.GuardianshipBegan, EffectiveAt: day(-3)})
		want("箱庭　花子", "港市二丁目", "99202", false)
		// One that waited is overtaken by one that came at its own time, before the waiting ones were looked through.
		report(jpki.Event{ID: "waits", Type: jpki.AddressChanged, EffectiveAt: day(1), Municipality: "99101", Attributes: with("箱庭　花子", "青葉市三丁目")})
		w.now = day(3)
		report(jpki.Event{Type: jpki.AddressChanged, EffectiveAt: day(-1), Municipality: "99303", Attributes: with("箱庭　花子", "山町四丁目")})
		if n, err := w.a.ApplyDue(w.t.Context()); n != 1 || err != nil {
			w.t.Errorf("due: %d %v", n, err)
		}
		want("箱庭　花子", "山町四丁目", "99303", false)
		// A return of the future, then a departure before it.
		report(jpki.Event{Type: jpki.Departure})
		w.now = day(1)
		report(jpki.Event{Type: jpki.Registered, Municipality: "99101", Attributes: with("箱庭　花子", "青葉市五丁目")})
		want("箱庭　花子", "青葉市五丁目", "99101", false)
		if h := entry(); h.Ended != "" {
			w.t.Errorf("returned, and yet %s", h.Ended)
		}
		report(jpki.Event{Type: jpki.Departure, EffectiveAt: day(-1).Add(-time.Hour)})
		if h := entry(); h.Ended != "" {
			w.t.Errorf("a departure from before the return: %s", h.Ended)
		}
		report(jpki.Event{Type: jpki.Death, EffectiveAt: day(-1)})
		if h := entry(); h.Ended != jpki.Death {
			w.t.Error("came back from death")
		}
	})
}

func TestOneInstantIsOneEvent(t *testing.T) {
	onBoth(t, func(w *world) {
		e := jpki.Event{ID: "e1", Holder: "h1", Type: jpki.GuardianshipBegan, EffectiveAt: w.now.In(jpki.JST)}
		for _, zone := range []*time.Location{jpki.JST, time.UTC} {
			e.EffectiveAt = e.EffectiveAt.In(zone)
			if out, err := w.event(e); err != nil || !out.Applied {
				w.t.Errorf("told in %s: %v %v", zone, out, err)
			}
		}
	})
}

// Waiting events that can never take effect neither wait for ever nor hold up others.
func TestWaitingEventsThatTheRegisterNoLongerAllows(t *testing.T) {
	onBoth(t, func(w *world) {
		born := jpki.NewBirthDate(1980, 2, 17)
		move := func(id, holder string, in time.Duration) jpki.Event {
			return jpki.Event{ID: id, Holder: holder, Type: jpki.AddressChanged, EffectiveAt: w.now.Add(in), Municipality: "99202", Attributes: attributes(born)}
		}
		const many = 150
		var last jpki.Event
		for i := range many {
			last = move(w.name(), "h1", time.Duration(i+1)*time.Minute)
			if _, err := w.event(last); err != nil {
				w.t.Fatal(err)
			}
		}
		for i := range many { // of somebody who is not in the register yet
			if _, err := w.event(move(w.name(), "h2", time.Duration(i+1)*time.Minute)); err != nil {
				w.t.Fatal(err)
			}
		}
		w.register("h3", "99101", born)
		if _, err := w.event(move("good", "h3", (many+1)*time.Minute)); err != nil {
			w.t.Fatal(err)
		}
		if _, err := w.event(jpki.Event{Holder: "h1", Type: jpki.Death}); err != nil {
			w.t.Fatal(err)
		}
		w.now = w.now.Add(24 * time.Hour)
		if n, err := w.a.ApplyDue(w.t.Context()); n != 1 || !errors.Is(err, jpki.UnknownHolder) || errors.Is(err, jpki.EventConflict) {
			w.t.Errorf("applied %d, want the one of the living: %v", n, jpki.ProblemOf(err))
		}
		if out, err := w.event(last); !errors.Is(err, jpki.EventConflict) {
			w.t.Errorf("reported again after it was closed: %v %v", out, err)
		}
		err := w.db.View(w.t.Context(), func(tx *store.Tx) error {
			e, _, err := tx.ResidentEvent(last.ID)
			if strings.Contains(e.Body, "砂") {
				w.t.Error("a closed event still holds the holder's attributes")
			}
			return err
		})
		if err != nil {
			w.t.Fatal(err)
		}
		w.register("h2", "99101", born)
		if n, err := w.a.ApplyDue(w.t.Context()); n != many || err != nil {
			w.t.Errorf("applied %d of %d that waited for their person: %v", n, many, err)
		}
	})
}

// Two processes look through the waiting events at the same time.
func TestAWaitingEventTakesEffectOnce(t *testing.T) {
	onBoth(t, func(w *world) {
		for range 5 {
			if _, err := w.event(jpki.Event{Holder: "h1", Type: jpki.GuardianshipBegan, EffectiveAt: w.now.Add(time.Minute)}); err != nil {
				w.t.Fatal(err)
			}
		}
		before := w.audited("resident-event")
		w.now = w.now.Add(time.Hour)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if _, err := w.a.ApplyDue(context.Background()); err != nil && !errors.Is(err, jpki.Conflict) {
					w.t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := w.audited("resident-event") - before; n != 5 {
			w.t.Errorf("five events took effect %d times", n)
		}
	})
}

// audited counts the audit record's entries of an action.
func (w *world) audited(action string) (n int) {
	w.t.Helper()
	for e, err := range w.db.AuditEntries(w.t.Context()) {
		if err != nil {
			w.t.Fatal(err)
		}
		if e.Action == action {
			n++
		}
	}
	return n
}
