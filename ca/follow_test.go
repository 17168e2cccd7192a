package ca_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"errors"
	"io/fs"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/ca/store/storetest"
)

// A second authority on the same database learns of an activation by following, without being started anew: that of a key it
// has to open first, and the way back to one that it has held all the time.
func TestFollowAnActivationElsewhere(t *testing.T) {
	storetest.EachEngine(t, func(t *testing.T, fresh func(*testing.T) string) {
		name := fresh(t)
		w := newWorld(t, storetest.Create(t, name))
		second, stranger := w.next(jpki.SignCA, 2), w.next(jpki.SignCA, 3)
		opened, keys := 0, map[jpki.IssuerID]crypto.Signer{}
		b, err := ca.New(ca.Config{
			Store: storetest.Open(t, name), Profile: ca.Sandbox(), Issuers: w.issuers, StatusURL: "http://status.example", Now: func() time.Time { return w.now }, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler),
			OpenKey: func(_ context.Context, id jpki.IssuerID) (crypto.Signer, error) {
				opened++
				if k := keys[id]; k != nil {
					return k, nil
				}
				return nil, fs.ErrNotExist
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		issuer := func(a *ca.Authority) int {
			t.Helper()
			h := w.name()
			w.register(h, "99101", jpki.NewBirthDate(1980, 2, 17))
			got, err := a.Issue(t.Context(), counter, w.request(h, w.name(), jpki.CardSign))
			if err != nil {
				t.Fatal(err)
			}
			return got[0].ID.Issuer.Generation
		}
		follow := func(want int, problem string, failed error) {
			t.Helper()
			if err := b.Follow(t.Context()); failed == nil && err != nil || failed != nil && !errors.Is(err, failed) {
				t.Errorf("%s: %v", problem, err)
			}
			if got := issuer(b); got != want {
				t.Errorf("%s: generation %d issues, want %d", problem, got, want)
			}
		}

		follow(1, "nothing happened", nil)
		if err := w.a.AddGeneration(t.Context(), system, second); err != nil {
			t.Fatal(err)
		}
		follow(1, "recorded only", nil)
		if opened != 0 {
			t.Error("a key was opened that was not needed")
		}
		if err := w.a.Activate(t.Context(), system, second); err != nil {
			t.Fatal(err)
		}
		follow(1, "active, the key is not there", fs.ErrNotExist)
		keys[second.ID] = stranger.Signer
		if err := b.Follow(t.Context()); err == nil {
			t.Error("followed with a key that is not the certificate's")
		}
		if got := issuer(b); got != 1 {
			t.Errorf("with another key's signer generation %d issues", got)
		}
		keys[second.ID] = second.Signer
		follow(2, "active", nil)
		before := opened
		follow(2, "active, again", nil)
		if err := w.a.Activate(t.Context(), system, w.issuers[0]); err != nil {
			t.Fatal(err)
		}
		follow(1, "back to the first", nil)
		if opened != before {
			t.Error("a key that was held was opened again")
		}
		if err := b.Activate(t.Context(), system, second); err != nil {
			t.Fatal(err)
		}
		if err := w.a.Follow(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := issuer(w.a); got != 2 {
			t.Errorf("the first process, which held the key: generation %d issues", got)
		}

		// What is no certificate is not followed.
		err = w.db.Update(t.Context(), func(tx *store.Tx) error {
			return tx.AddGeneration(store.Generation{Issuer: stranger.ID, Certificate: []byte{0x30}}, w.now)
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.db.Update(t.Context(), func(tx *store.Tx) error { return tx.ActivateGeneration(stranger.ID) }); err != nil {
			t.Fatal(err)
		}
		if err := b.Follow(t.Context()); err == nil {
			t.Error("followed what is no certificate")
		}
		if got := issuer(b); got != 2 {
			t.Errorf("generation %d issues", got)
		}
	})
}

// Issuances go on while the generation turns again and again, in two processes: each ends, by a generation that was active
// since it began, and every certificate is its generation's.
func TestFollowUnderLoad(t *testing.T) {
	storetest.EachEngine(t, func(t *testing.T, fresh func(*testing.T) string) {
		name := fresh(t)
		w := newWorld(t, storetest.Create(t, name))
		second := w.next(jpki.SignCA, 2)
		if err := w.a.AddGeneration(t.Context(), system, second); err != nil {
			t.Fatal(err)
		}
		b, err := ca.New(ca.Config{
			Store: storetest.Open(t, name), Profile: ca.Sandbox(), Issuers: w.issuers, StatusURL: "http://status.example", Now: func() time.Time { return w.now }, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler),
			OpenKey: func(context.Context, jpki.IssuerID) (crypto.Signer, error) { return second.Signer, nil },
		})
		if err != nil {
			t.Fatal(err)
		}
		const each = 8
		var requests [2][]ca.IssueRequest
		for i := range requests {
			for range each {
				h := w.name()
				w.register(h, "99101", jpki.NewBirthDate(1980, 2, 17))
				requests[i] = append(requests[i], w.request(h, w.name(), jpki.CardSign))
			}
		}
		var issuing, turning sync.WaitGroup
		stop := make(chan struct{})
		turning.Go(func() {
			for n := 0; ; n++ {
				if err := errors.Join(w.a.Activate(t.Context(), system, []ca.Issuer{second, w.issuers[0]}[n%2]), b.Follow(t.Context())); err != nil {
					t.Error(err)
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		})
		for i, a := range []*ca.Authority{w.a, b} {
			issuing.Go(func() {
				for _, r := range requests[i] {
					if _, err := a.Issue(t.Context(), counter, r); err != nil {
						t.Errorf("process %d: %v", i, err)
					}
				}
			})
		}
		issuing.Wait()
		close(stop)
		turning.Wait()
		w.generations = append(w.generations, second)
		w.check()
	})
}
