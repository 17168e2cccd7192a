package store_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/verifier/store"
)

// open returns what a tenant's new token opens.
func open(t *testing.T, s *store.Store, tenant jpki.CorporateNumber) *store.Access {
	t.Helper()
	_, secret, err := s.AddToken(t.Context(), tenant, store.Scopes(), time.Time{}, t0)
	if err != nil {
		t.Fatal(err)
	}
	a, err := s.Access(t.Context(), store.Credential{Kind: store.BearerToken, Hash: sha256.Sum256([]byte(secret))}, t0)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// told appends n changes, by turns for two tenants.
func told(t *testing.T, s *store.Store, n int, now time.Time) {
	t.Helper()
	at, err := s.AuthorityPosition(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var list []store.AuthorityChange
	for i := range int64(n) {
		list = append(list, store.AuthorityChange{Tenant: []jpki.CorporateNumber{bank, telecom}[i%2], Change: store.Change{
			ID: fmt.Sprintf("op-%d", at+i+1), User: "u", Purpose: "p", Class: jpki.AttributesChanged, Kind: jpki.CardSign, At: now,
		}})
	}
	if moved, err := s.AppendChanges(t.Context(), at, at+int64(n), list, now); err != nil || !moved {
		t.Fatalf("%v %v", moved, err)
	}
}

// TestAppendedOnce: of many who read the same, one adds it; sequences have no gaps on either engine.
func TestAppendedOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, s *store.Store, _ string) {
		var all sync.WaitGroup
		var mu sync.Mutex
		added := 0
		for range 4 {
			all.Go(func() {
				for {
					at, err := s.AuthorityPosition(t.Context())
					if err != nil || at >= 300 {
						return
					}
					var list []store.AuthorityChange
					for i := range int64(10) {
						list = append(list, store.AuthorityChange{Tenant: bank, Change: store.Change{ID: fmt.Sprintf("op-%d", at+i+1), User: "u", Purpose: "p", Class: jpki.CredentialEnded, Kind: jpki.CardAuth, At: t0}})
					}
					moved, err := s.AppendChanges(t.Context(), at, at+10, list, t0)
					if err != nil && !errors.Is(err, jpki.Conflict) {
						t.Error(err)
						return
					}
					if moved {
						mu.Lock()
						added += 10
						mu.Unlock()
					}
				}
			})
		}
		all.Wait()
		got, err := s.Changes(t.Context(), bank, 0, 1000)
		if err != nil || len(got) != 300 || added != 300 {
			t.Fatalf("%v: %d in the feed, %d added", err, len(got), added)
		}
		for i, c := range got {
			if c.Sequence != int64(i+1) {
				t.Fatalf("sequence %d at place %d", c.Sequence, i+1)
			}
		}
		if end, err := s.FeedEnd(t.Context(), telecom); err != nil || end != 0 {
			t.Errorf("%d %v", end, err)
		}
	})
}

// TestEndpointsOnBoth: an endpoint changes under who delivers, tells it, and nothing waits for what is forgotten.
func TestEndpointsOnBoth(t *testing.T) {
	onBoth(t, func(t *testing.T, s *store.Store, database string) {
		ctx := t.Context()
		a, other := open(t, s, bank), open(t, s, telecom)
		told(t, s, 20, t0)
		e, err := s.AddEndpoint(ctx, a, store.Webhook, store.Target{URL: "https://secret-host.example/", Secret: []byte("s")}, 0, t0)
		if err != nil {
			t.Fatal(err)
		}
		lease := func(now time.Time) []store.Lease {
			t.Helper()
			l, err := s.LeaseEndpoints(ctx, "me", 10, now, now.Add(time.Minute))
			if err != nil {
				t.Fatal(err)
			}
			return l
		}
		l := lease(t0)
		if len(l) != 1 || len(lease(t0)) != 0 {
			t.Fatalf("%d leases", len(l))
		}
		if _, err := s.AddNotice(ctx, a, e.ID, "state", t0); err != nil {
			t.Fatal(err)
		}
		_, err = s.AddNotice(ctx, other, e.ID, "state", t0)
		wantProblem(t, err, jpki.NotFound)
		due, err := s.Due(ctx, &l[0], 4)
		if err != nil || len(due.Notices) != 1 || due.Notices[0].State != "state" || len(due.Next) != 4 || due.Next[0].Sequence != 1 {
			t.Fatalf("%v %+v", err, due)
		}
		change := func(f func(*store.Endpoint, int64) error) {
			t.Helper()
			if _, err := s.ChangeEndpoint(ctx, a, e.ID, f, t0); err != nil {
				t.Fatal(err)
			}
		}
		change(func(e *store.Endpoint, end int64) error {
			e.URL, e.Enabled = "https://another.example/", false
			if end != 10 {
				t.Errorf("end %d", end)
			}
			return nil
		})
		_, err = s.ChangeEndpoint(ctx, other, e.ID, func(*store.Endpoint, int64) error { return nil }, t0)
		wantProblem(t, err, jpki.NotFound)
		if err := s.Progress(ctx, &l[0], store.Progress{Position: 2, Dead: map[int64]string{2: "status-400"}, Noticed: []string{due.Notices[0].ID}, NextAt: t0}, t0); err != nil {
			t.Fatal(err)
		}
		if l[0].Enabled || l[0].URL != "https://another.example/" || l[0].Position != 2 {
			t.Errorf("%+v", l[0].Endpoint)
		}
		change(func(e *store.Endpoint, _ int64) error { e.Enabled = true; return nil })
		if n, err := s.Redeliver(ctx, a, e.ID, 0, t0); n != 1 || err != nil {
			t.Errorf("%d %v", n, err)
		}
		// Down for longer than anything is kept: it goes on with what is there, and nobody is leased for nothing.
		later := t0.Add(time.Hour)
		if n, err := s.ForgetChanges(ctx, t0.Add(time.Second)); n != 20 || err != nil {
			t.Fatalf("%d %v", n, err)
		}
		if l := lease(later); len(l) != 0 {
			t.Errorf("leased with nothing to deliver: %+v", l)
		}
		if got, err := s.Endpoint(ctx, a, e.ID); err != nil || got.Position != 10 {
			t.Errorf("%v %+v", err, got)
		}
		told(t, s, 2, later)
		if l = lease(later); len(l) != 1 {
			t.Fatalf("%d leases", len(l))
		}
		if due, err = s.Due(ctx, &l[0], 4); err != nil || len(due.Next) != 1 || due.Next[0].Sequence != 11 {
			t.Errorf("%v %+v", err, due)
		}
		// A killed process's lease ends by itself, and it cannot go on under it.
		if len(lease(later.Add(59*time.Second))) != 0 || len(lease(later.Add(61*time.Second))) != 1 {
			t.Error("the lease does not end after its time")
		}
		wantProblem(t, s.Progress(ctx, &store.Lease{Endpoint: l[0].Endpoint}, store.Progress{Position: 11}, later), jpki.Conflict)

		poll, err := s.AddEndpoint(ctx, a, store.SSFPoll, store.Target{}, 10, later)
		if err != nil {
			t.Fatal(err)
		}
		n, err := s.AddNotice(ctx, a, poll.ID, "v", later)
		if err != nil {
			t.Fatal(err)
		}
		list, notices, _, err := s.Poll(ctx, a, poll.ID, nil, nil, 5, later)
		if err != nil || len(list) != 1 || len(notices) != 1 || notices[0].ID != n.ID {
			t.Fatalf("%v %+v %+v", err, list, notices)
		}
		if list, notices, _, err = s.Poll(ctx, a, poll.ID, []string{n.ID, list[0].ID}, nil, 5, later); err != nil || len(list)+len(notices) != 0 {
			t.Errorf("%v %+v %+v", err, list, notices)
		}
		for _, id := range []string{e.ID, poll.ID} {
			if _, err := s.AddNotice(ctx, a, id, "x", later); err != nil {
				t.Error(err)
			}
		}
		if err := s.DeleteEndpoint(ctx, a, e.ID); err != nil {
			t.Error(err)
		}
		if path, ok := strings.CutPrefix(database, "sqlite:"); ok {
			for _, file := range []string{path, path + "-wal"} {
				if text, err := os.ReadFile(file); err == nil && (slices.Contains(strings.Fields(string(text)), "secret-host") || strings.Contains(string(text), "secret-host.example")) {
					t.Errorf("a receiver's address is readable in %s", file)
				}
			}
		}
		if err := s.RevokeTenant(ctx, bank, later); err != nil {
			t.Error(err)
		}
	})
}
