package ca_test

import (
	"database/sql"
	"fmt"
	"testing"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/store/storetest"
)

// After the first thousand events the planner knows how many rows there are; before, and for the next thousand, nobody asks it to count.
func TestBulkLoadsAreAnalysed(t *testing.T) {
	database := storetest.Postgres(t)
	w := newWorld(t, storetest.Create(t, database))
	var reset []string
	for _, table := range []string{"holder", "resident_event", "audit"} { // only we, then
		reset = append(reset, "ALTER TABLE "+table+" SET (autovacuum_enabled = false)")
	}
	storetest.Exec(t, database, reset...)
	db, err := sql.Open("pgx", database)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	known := func(table string) (rows float64) {
		t.Helper()
		if err := db.QueryRowContext(t.Context(), `SELECT reltuples FROM pg_class WHERE relname = $1`, table).Scan(&rows); err != nil {
			t.Fatal(err)
		}
		return rows
	}
	events := 0
	load := func(groups int) {
		t.Helper()
		for range groups {
			group := make([]jpki.Event, ca.MaxEventGroup)
			for i := range group {
				events++
				group[i] = jpki.Event{ID: fmt.Sprint("in-", events), Holder: fmt.Sprint("bulk-", events), Type: jpki.Registered, EffectiveAt: w.now, Municipality: "99101", Attributes: attributes(jpki.NewBirthDate(1980, 2, 17))}
			}
			for _, r := range w.a.ApplyResidentEvents(t.Context(), register, group) {
				if r.Err != nil {
					t.Fatal(r.Err)
				}
			}
		}
	}
	load(4)
	if n := known("holder"); n > 0 {
		t.Errorf("after %d events the planner knows of %v holders", events, n)
	}
	load(1)
	for _, table := range []string{"holder", "resident_event", "audit"} {
		if n := known(table); n < 1000 {
			t.Errorf("after %d events the planner knows of %v rows in %s", events, n, table)
		}
	}
	before := known("holder")
	load(5)
	if n := known("holder"); n != before {
		t.Errorf("counted again after a thousand more: %v", n)
	}
}
