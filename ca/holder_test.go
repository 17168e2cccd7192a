package ca_test

import (
	"context"
	"errors"
	"maps"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
)

// A holder suspends, releases, revokes, sees and asks for what is theirs, by token or by certificate, and nothing of anybody else's.
func TestHoldersActForThemselves(t *testing.T) {
	onBoth(t, func(w *world) {
		w.register("h2", "99101", jpki.NewBirthDate(1990, 5, 1))
		mine, others := w.issue("h1", "card-1", card...), w.issue("h2", "card-2", card...)
		self := jpki.Actor{Role: jpki.Holder, ID: "h1"}
		before := w.invariants()
		change := func(do func(context.Context, jpki.Actor, ca.ChangeRequest) ([]ca.Changed, error), r ca.ChangeRequest) func() error {
			return func() error { _, err := w.change(do, self, r); return err }
		}
		for what, do := range map[string]func() error{
			"suspend a card":        change(w.a.Suspend, ca.ChangeRequest{Token: "card-2", Cause: jpki.Lost}),
			"suspend a certificate": change(w.a.Suspend, ca.ChangeRequest{Certificate: &others[1].ID, Cause: jpki.KeyDoubt}),
			"revoke":                change(w.a.Revoke, ca.ChangeRequest{Certificate: &others[0].ID, Cause: jpki.HolderRequest}),
			"resume":                change(w.a.Resume, ca.ChangeRequest{Token: "card-2", Cause: jpki.Found}),
			"look at":               func() error { _, err := w.a.Certificates(w.t.Context(), self, "card-2"); return err },
			"issue":                 func() error { _, err := w.a.Issue(w.t.Context(), self, w.request("h2", "card-3", card...)); return err },
			"renew":                 func() error { _, err := w.a.Renew(w.t.Context(), self, w.request("h2", "card-2", card...)); return err },
		} {
			if err := do(); !errors.Is(err, jpki.Forbidden) {
				w.t.Errorf("%s what is another's: %v, want %s", what, err, jpki.Forbidden)
			}
		}
		if after := w.invariants(); !maps.Equal(before, after) {
			w.t.Error("something of another's changed")
		}
		if certs, err := w.a.Certificates(w.t.Context(), self, "card-1"); err != nil || len(certs) != 2 {
			w.t.Errorf("look at one's own: %v", err)
		}
		if got, err := w.change(w.a.Suspend, self, ca.ChangeRequest{Token: "card-1", Cause: jpki.Lost}); err != nil || len(got) != 2 {
			w.t.Errorf("suspend one's own: %v", err)
		}
		if got, err := w.change(w.a.Revoke, self, ca.ChangeRequest{Certificate: &mine[1].ID, Cause: jpki.KeyCompromised}); err != nil || len(got) != 1 {
			w.t.Errorf("revoke one's own: %v", err)
		}
	})
}

// A period of stay that is cut short ends nothing by itself: it is none of the four attributes. It bounds what is issued from
// then on, and when the stay ends the register says so by a departure.
func TestAShortenedStay(t *testing.T) {
	onBoth(t, func(w *world) {
		long, short := w.now.AddDate(3, 0, 0), w.now.AddDate(0, 6, 0)
		e := jpki.Event{Holder: "f1", Type: jpki.Registered, Municipality: "99101", Attributes: attributes(jpki.NewBirthDate(1990, 1, 1)), StayUntil: &long}
		if _, err := w.event(e); err != nil {
			w.t.Fatal(err)
		}
		first := w.issue("f1", "card-1", card...)
		if !first[0].NotAfter.Equal(long) {
			w.t.Fatalf("ends %v, want %v", first[0].NotAfter, long)
		}
		w.now = w.now.Add(time.Hour)
		out, err := w.event(jpki.Event{Holder: "f1", Type: jpki.StayExtended, StayUntil: &short})
		if err != nil || !out.Applied || len(out.Changed) != 0 {
			w.t.Errorf("cut short: %+v %v", out, err)
		}
		w.expect(map[jpki.CertID]string{first[0].ID: "good", first[1].ID: "good"})
		if second := w.issue("f1", "card-2", card...); !second[0].NotAfter.Equal(short) || !second[1].NotAfter.Equal(short) {
			w.t.Errorf("issued until %v and %v, want %v", second[0].NotAfter, second[1].NotAfter, short)
		} else {
			w.now = short
			if out, err := w.event(jpki.Event{Holder: "f1", Type: jpki.Departure}); err != nil || len(out.Changed) != 2 {
				w.t.Errorf("left: %+v %v", out, err)
			}
		}
	})
}
