package ca_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/store/storetest"
)

// A primary that was thought dead comes back, first in the connection string and willing to be written to. Nobody who knows of
// its successor, or can ask it, is fooled: what was suspended meanwhile stays suspended, and what is issued is issued once.
func TestAnOldPrimaryReturns(t *testing.T) {
	t.Parallel()
	primary := storetest.NewCluster(t)
	primary.Database("ca")
	storetest.Create(t, primary.URL("ca"))
	standby := primary.Standby()
	both := primary.URL("ca", standby)

	// The order of the servers in the connection string means nothing: a standby is passed over.
	w := newWorld(t, storetest.Open(t, standby.URL("ca", primary)))
	id := w.issue("h1", "card-1", card...)[0].ID
	w.db = storetest.Open(t, both)
	w.restart(w.issuers)
	w.check()

	w.register("h2", "99101", jpki.NewBirthDate(1980, 2, 17))
	primary.Stop()
	standby.Promote()
	if _, err := w.change(w.a.Suspend, centre, ca.ChangeRequest{Token: "card-1", Cause: jpki.Lost}); err != nil {
		t.Fatal(err)
	}
	w.check()
	primary.Start()
	cut := "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'ca' AND pid <> pg_backend_pid()"

	// The danger is real: asked alone, the old primary says that the certificate is good.
	old := storetest.Open(t, primary.URL("ca"))
	if c, err := old.StatusOf(t.Context(), id); err != nil || c.Status.State != jpki.Good {
		t.Fatalf("the old primary says %v, %v; the test shows nothing", c.Status, err)
	}
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}

	anew := func() { // as a process that is started
		w.db, w.public = storetest.Open(t, both), nil
		w.restart(w.issuers)
	}
	for _, what := range []string{"a process that has seen the successor", "a process that was started since"} {
		storetest.Exec(t, standby.URL("postgres"), cut)
		asked := 0
		for n := 0; n < 200 && asked < 40; n++ { // connections that were cut say so, once each
			c, err := w.db.StatusOf(t.Context(), id)
			if err == nil && c.Status.State != jpki.Suspended {
				t.Fatalf("%s: the certificate is %s", what, c.Status.State)
			}
			if err == nil {
				asked++
			}
		}
		if asked < 40 {
			t.Errorf("%s is answered %d times only", what, asked)
		}
		w.issue("h2", w.name(), card...)
		anew()
		w.check()
	}

	// With its successor gone, who has seen that goes without an authority rather than back to the old one.
	standby.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := w.a.Suspend(ctx, centre, ca.ChangeRequest{IdempotencyKey: w.name(), Token: "card-1", Cause: jpki.Lost}); !errors.Is(err, jpki.Unavailable) {
		t.Errorf("without the successor: %v", err)
	}
	if c, err := w.db.StatusOf(t.Context(), id); err == nil {
		t.Errorf("without the successor the certificate is %v", c.Status)
	}
	standby.Start()
	anew()
	w.check()
}
