package ca_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/ca/store/storetest"
)

// Many issuances at once share transactions; what is wrong with some leaves the others alone.
func TestManyIssuancesAtOnce(t *testing.T) {
	storetest.OnBoth(t, func(t *testing.T, db *store.Store) {
		w := newWorld(t, db)
		type asked struct {
			ca.IssueRequest
			want error
		}
		var all []asked
		ask := func(want error, r ca.IssueRequest) { all = append(all, asked{r, want}) }
		for i := range 12 {
			holder := fmt.Sprint("many-", i)
			w.register(holder, "99101", jpki.NewBirthDate(1980, 2, 17))
			ask(nil, w.request(holder, "card-"+holder, jpki.CardSign, jpki.CardAuth))
		}
		w.register("elsewhere", "99202", jpki.NewBirthDate(1980, 2, 17))
		w.register("child", "99101", jpki.NewBirthDate(2020, 2, 17))
		ask(jpki.UnknownHolder, w.request("nobody", "card-nobody", jpki.CardAuth))
		ask(jpki.WrongMunicipality, w.request("elsewhere", "card-elsewhere", jpki.CardAuth))
		ask(jpki.NotEligible, w.request("child", "card-child", jpki.CardSign))
		used := w.request("h1", "card-h1", jpki.CardAuth)
		used.Requests[0].Request = all[3].Requests[1].Request // whose turn comes first decides who gets it
		ask(errOneOfTwo, used)
		all[3].want = errOneOfTwo
		again := all[5].IssueRequest // repeated while it is being worked on, or after
		ask(errRepeated, again)
		all[5].want = errRepeated
		w.register("other", "99101", jpki.NewBirthDate(1980, 2, 17))
		stolen := w.request("other", "card-other", jpki.CardAuth)
		stolen.IdempotencyKey = all[6].IdempotencyKey
		ask(errOneOfTwo, stolen)
		all[6].want = errOneOfTwo

		got := make([]error, len(all))
		issued := make([][]ca.Issued, len(all))
		var wg sync.WaitGroup
		for i, r := range all {
			wg.Go(func() { issued[i], got[i] = w.a.Issue(context.Background(), counter, r.IssueRequest) })
		}
		wg.Wait()
		for i, r := range all {
			switch {
			case errors.Is(r.want, errOneOfTwo), errors.Is(r.want, errRepeated):
			case r.want == nil && got[i] != nil, r.want != nil && !errors.Is(got[i], r.want):
				t.Errorf("%s: %v, want %v", r.Holder, got[i], r.want)
			}
		}
		for _, two := range [][2]int{{3, 15}, {6, 17}} {
			if (got[two[0]] == nil) == (got[two[1]] == nil) {
				t.Errorf("of two that want one thing: %v and %v", got[two[0]], got[two[1]])
			}
		}
		if got[5] != nil && got[16] != nil {
			t.Errorf("of a repeated request neither was answered: %v, %v", got[5], got[16])
		}
		if first, err := w.a.Issue(t.Context(), counter, again); err != nil || len(first) != 2 {
			t.Errorf("repeated at the end: %v", err)
		}
		w.check()
	})
}

var errOneOfTwo, errRepeated = errors.New("one of two"), errors.New("repeated")

// Somebody who holds a lock on one person keeps nobody else waiting.
func TestALockedHolderDelaysNobodyElse(t *testing.T) {
	w := newWorld(t, storetest.Create(t, storetest.Postgres(t)))
	var wg sync.WaitGroup
	locked, release := make(chan struct{}), make(chan struct{})
	wg.Go(func() {
		err := w.db.Update(context.Background(), func(tx *store.Tx) error {
			_, err := tx.Holder("h1")
			close(locked)
			<-release
			return err
		})
		if err != nil {
			t.Error(err)
		}
	})
	<-locked
	done := make(chan error, 1)
	first := w.request("h1", "card-h1", jpki.CardAuth)
	var others []ca.IssueRequest
	for i := range 6 {
		holder := fmt.Sprint("free-", i)
		w.register(holder, "99101", jpki.NewBirthDate(1980, 2, 17))
		others = append(others, w.request(holder, "card-"+holder, jpki.CardAuth))
	}
	wg.Go(func() { _, err := w.a.Issue(context.Background(), counter, first); done <- err })
	var rest sync.WaitGroup
	for _, r := range others {
		rest.Go(func() {
			if _, err := w.a.Issue(context.Background(), counter, r); err != nil {
				t.Error(err)
			}
		})
	}
	rest.Wait()
	select {
	case err := <-done:
		t.Errorf("the locked holder was served: %v", err)
	default:
	}
	close(release)
	wg.Wait()
	if err := <-done; err != nil {
		t.Error(err)
	}
	w.check()
}
