package ca_test

import (
	"errors"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/store/storetest"
)

// PostgreSQL's disk is full: it refuses to let a table grow, or it cannot write its log and stops at once. Whoever asks is
// told that the authority is not available, nothing is half done, and once there is room the same requests are granted.
func TestTheDatabasesDiskIsFull(t *testing.T) {
	t.Parallel()
	for name, onlyLog := range map[string]bool{"all of it": false, "the log's": true} {
		t.Run(name, func(t *testing.T) { fillDatabase(t, onlyLog) })
	}
}

func fillDatabase(t *testing.T, onlyLog bool) {
	c := storetest.NewSmallCluster(t, onlyLog)
	c.Database("ca")
	w := newWorld(t, storetest.Create(t, c.URL("ca")))
	w.issue("h1", "card-1", card...)
	w.check()
	full, stops := 0, 0
	refused := func(err error) bool {
		if err == nil {
			return false
		}
		if full++; !errors.Is(err, jpki.Unavailable) {
			t.Errorf("on a full disk: %v", err)
		}
		return true
	}
	for range 2 {
		open := []ca.IssueRequest{w.request("h1", w.name(), card...), w.request("h1", w.name(), card...)}
		c.Fill()
		var missed []jpki.Event // moves use up what room there is in files that exist
		for n := 0; n < 5000 && len(missed) < 3; n++ {
			w.now = w.now.Add(time.Second)
			e := jpki.Event{ID: w.name(), Holder: "h1", Type: jpki.AddressChanged, EffectiveAt: w.now, Municipality: "99101", Attributes: with(func(a *jpki.Attributes) { a.Address += w.name() })}
			if _, err := w.event(e); refused(err) {
				missed = append(missed, e)
			}
		}
		for _, r := range open {
			_, err := w.a.Issue(t.Context(), counter, r)
			refused(err)
		}
		if c.Clear() {
			stops++
		}
		w.invariants()
		if _, err := w.a.Reconcile(t.Context(), 0); err != nil {
			t.Error(err)
		}
		for _, e := range missed {
			if out, err := w.event(e); err != nil || !out.Applied {
				t.Errorf("when there was room again: %v %v", out, err)
			}
		}
		for _, r := range open {
			if got, err := w.a.Issue(t.Context(), counter, r); err != nil || len(got) != 2 {
				t.Errorf("when there was room again: %v", err)
			}
		}
		w.check()
	}
	t.Logf("the disk was full %d times, and the server stopped %d times", full, stops)
	if full < 6 || onlyLog != (stops > 0) {
		t.Error("so seldom, or not as it was meant?")
	}
}
