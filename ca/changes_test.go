package ca_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/store"
)

// While watches are made, certificates change and two processes derive, all at the same time, a reader sees positions without
// gaps, no change twice, and in the end every change of every watch that stood before it.
func TestFeedWithoutGaps(t *testing.T) {
	onBoth(t, func(w *world) {
		w.relying()
		const people = 12
		users, certs := make([]string, people), make([]jpki.CertID, people)
		for i := range people {
			holder := fmt.Sprint("p", i)
			w.register(holder, "99101", jpki.NewBirthDate(1980, 2, 17))
			certs[i] = w.issue(holder, "card-"+holder, jpki.CardSign)[0].ID
			users[i] = w.identify(platform, bank, certs[i]).User
		}
		ctx, stop := context.WithTimeout(w.t.Context(), time.Minute)
		defer stop()
		var deriving, changing errgroup.Group
		ended, end := context.WithCancel(ctx)
		for range 2 {
			deriving.Go(func() error {
				for ended.Err() == nil {
					if some, err := w.a.DeriveChanges(ctx); err != nil {
						return err
					} else if !some {
						time.Sleep(time.Millisecond)
					}
				}
				return nil
			})
		}
		for i := range people {
			changing.Go(func() error {
				if _, err := w.a.Watch(ctx, platform, bank, []store.Watch{{User: users[i], Purpose: "p"}}); err != nil {
					return err
				}
				_, err := w.a.Suspend(ctx, centre, ca.ChangeRequest{IdempotencyKey: fmt.Sprint("s", i), Certificate: &certs[i], Cause: jpki.Lost})
				return err
			})
		}
		seen := map[string]int{}
		var after int64
		for len(seen) < people && ctx.Err() == nil {
			f, err := w.a.Changes(ctx, platform, after, 5, time.Second)
			if err != nil {
				w.t.Fatal(err)
			}
			for _, c := range f.Changes {
				if after++; c.Seq != after {
					w.t.Fatalf("position %d follows %d", c.Seq, after-1)
				}
				seen[c.User+string(c.Class)]++
			}
		}
		if err := changing.Wait(); err != nil {
			w.t.Fatal(err)
		}
		end()
		if err := deriving.Wait(); err != nil {
			w.t.Fatal(err)
		}
		w.derive()
		f := must(w.a.Changes(w.t.Context(), platform, 0, 0, 0))
		if len(f.Changes) != people || len(seen) != people {
			w.t.Errorf("%d changes in the feed, %d seen, want %d", len(f.Changes), len(seen), people)
		}
	})
}

// What is not kept any more is said to be gone, and positions that never were are refused.
func TestForgottenChanges(t *testing.T) {
	onBoth(t, func(w *world) {
		w.relying()
		if _, err := w.a.Changes(w.t.Context(), platform, 0, 0, 0); err != nil {
			w.t.Error("an empty feed:", err)
		}
		card := w.issue("h1", "card-1", jpki.CardSign)
		w.watch(platform, bank, w.identify(platform, bank, card[0].ID).User)
		var after int64
		w.moves("h1", "砂箱県青葉市北町一丁目1番1号")
		w.told(platform, &after)
		w.later(48 * time.Hour)
		w.issue("h1", "card-1", jpki.CardSign)
		w.told(platform, &after)
		if n, err := w.a.ForgetChanges(w.t.Context(), 24*time.Hour); err != nil || n != 1 {
			w.t.Error(n, err)
		}
		for position, want := range map[int64]error{0: jpki.CursorExpired, 1: nil, 2: nil, 3: jpki.Malformed, -1: jpki.Malformed} {
			f, err := w.a.Changes(w.t.Context(), platform, position, 0, 0)
			if !errors.Is(err, want) || want == nil && len(f.Changes) != int(2-position) {
				w.t.Errorf("from %d: %d changes, %v", position, len(f.Changes), err)
			}
		}
		w.later(48 * time.Hour)
		if n, err := w.a.ForgetChanges(w.t.Context(), 24*time.Hour); err != nil || n != 1 {
			w.t.Error(n, err)
		}
		if f, err := w.a.Changes(w.t.Context(), platform, 2, 0, 0); err != nil || len(f.Changes) != 0 {
			w.t.Error("at the end of an empty feed:", err)
		}
		if _, err := w.a.Changes(w.t.Context(), counter, 0, 0, 0); !errors.Is(err, jpki.Forbidden) {
			w.t.Error(err)
		}
	})
}
