package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/store"
)

// expected is what has to be said of a certificate when nothing is under way.
func (s *subject) expected() string {
	switch {
	case s.revoked != 0:
		return sayRevoked
	case s.suspended != 0:
		return saySuspended
	}
	return sayGood
}

// checkRecord compares the database with what the city was answered, and returns what is wrong: a certificate that is forgotten, is in
// another state, or is in force though nobody was given it; a gap in the status log. Numbers of issuances that were cut short are on
// record as revoked. Nothing may be under way but what is in doubt.
func (y *city) checkRecord(ctx context.Context) (wrong []string) {
	bad := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	db, err := store.Open(ctx, y.c.database("jpki_ca", "jpki"))
	if err != nil {
		return []string{fmt.Sprintf("open the database: %v", err)}
	}
	defer func() { _ = db.Close() }()
	y.mu.Lock()
	missing := map[jpki.CertID]string{}
	for id, c := range y.known {
		missing[id] = c.expected()
	}
	doubt := len(y.doubt)
	y.mu.Unlock()
	if err := db.View(ctx, func(tx *store.Tx) error {
		wrong = nil // it may run again
		left := len(missing)
		for c, err := range tx.Statuses() {
			if err != nil {
				return err
			}
			want, known := missing[c.ID]
			switch got := string(c.Status.State); {
			case known:
				if left--; got != want {
					bad("%s is %s on record, and was answered to be %s", c.ID, got, want)
				}
			case c.Status.Cause == jpki.Abandoned:
			case doubt == 0:
				bad("%s is %s on record and nobody was given it", c.ID, got)
			}
		}
		if left != 0 {
			bad("%d certificates were handed out and are not on record", left)
		}
		var last int64
		for c, err := range tx.StatusLog() {
			if err != nil {
				return err
			}
			if c.Seq != last+1 {
				bad("the status log goes on at %d after %d", c.Seq, last)
			}
			last = c.Seq
		}
		return nil
	}); err != nil {
		bad("read the database: %v", err)
	}
	slices.Sort(wrong)
	return wrong
}
