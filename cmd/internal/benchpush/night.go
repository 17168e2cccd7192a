package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/client"
	"github.com/openjpki/jpki/verifier/push"
	verifierstore "github.com/openjpki/jpki/verifier/store"
)

// A feed is an authority's with a night's changes.
type feed int

func (f feed) Changes(ctx context.Context, after int64, limit int, wait time.Duration) (out client.ChangePage, err error) {
	for p := after + 1; p <= int64(f) && len(out.Changes) < limit; p++ {
		out.Changes = append(out.Changes, client.UserChange{
			Position: p, ID: fmt.Sprintf("night-%d", p), Tenant: bank, User: fmt.Sprintf("%032d", p), Purpose: "account", Class: jpki.AttributesChanged, Kind: jpki.CardSign, At: time.Unix(1_800_000_000, 0),
		})
	}
	if out.Next = after + int64(len(out.Changes)); len(out.Changes) == 0 {
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
	return out, ctx.Err()
}

func (f feed) FeedBounds(context.Context) (start, end int64, err error) { return 0, int64(f), nil }

// night drains a burst, and compares with posting alone.
func (b *bench) night(ctx context.Context) error {
	s, err := verifierstore.Create(ctx, verifierstore.Config{Database: "sqlite:" + filepath.Join(b.dir, "night.db"), MasterKey: make([]byte, 32)})
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	if err := s.AddTenant(ctx, verifierstore.Tenant{ID: bank, Name: "bank"}, time.Now()); err != nil {
		return err
	}
	_, token, err := s.AddToken(ctx, bank, verifierstore.Scopes(), time.Time{}, time.Now())
	if err != nil {
		return err
	}
	access, err := s.Access(ctx, verifierstore.Credential{Kind: verifierstore.BearerToken, Hash: digestOf(token)}, time.Now())
	if err != nil {
		return err
	}
	var mu sync.Mutex
	var last int64
	var wrong string
	done := make(chan struct{})
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var m push.WebhookMessage
		body, _ := io.ReadAll(r.Body)
		err := json.Unmarshal(body, &m)
		mu.Lock()
		defer mu.Unlock()
		switch {
		case err != nil, m.Data.Sequence > last+1:
			wrong = fmt.Sprintf("%d after %d", m.Data.Sequence, last)
		case m.Data.Sequence == last+1:
			if last++; last == int64(b.burst) {
				close(done)
			}
		}
	}))
	defer receiver.Close()
	if _, err := s.AddEndpoint(ctx, access, verifierstore.Webhook, verifierstore.Target{URL: receiver.URL, Secret: []byte("secret")}, 0, time.Now()); err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	events, err := push.NewEvents("https://verifier.example", key)
	if err != nil {
		return err
	}
	follower, err := push.NewFollower(push.FollowerConfig{Store: s, Feed: feed(b.burst), Now: time.Now, Rand: rand.Reader})
	if err != nil {
		return err
	}
	pusher, err := push.New(push.Config{Store: s, Events: events, Now: time.Now, Rand: rand.Reader, Wake: follower.Wake(), Private: true})
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	var all sync.WaitGroup
	begin := time.Now()
	all.Go(func() { _ = follower.Run(running) })
	all.Go(func() { _ = pusher.Run(running) })
	select {
	case <-done:
	case <-ctx.Done():
	}
	took := time.Since(begin)
	stop()
	all.Wait()
	if wrong != "" || ctx.Err() != nil {
		return fmt.Errorf("the burst did not come in order: %s", wrong)
	}
	alone, err := post(ctx, receiver.URL, min(b.burst, 20_000))
	if err != nil {
		return err
	}
	rate := float64(b.burst) / took.Seconds()
	fmt.Printf("%-54s %7.1f s, %.0f/s to one receiver, in order; posting alone %.0f/s: %.2f of it\n", fmt.Sprintf("a burst of %d changes", b.burst), took.Seconds(), rate, alone, rate/alone)
	return nil
}

// post sends bodies of the same size one after the other and does nothing else.
func post(ctx context.Context, url string, n int) (float64, error) {
	body, err := json.Marshal(push.WebhookMessage{Type: "jpki.user.attributes-changed", Timestamp: time.Now(), Data: push.News{Sequence: 1, ID: fmt.Sprintf("%032d", 0), User: fmt.Sprintf("%032d", 0), Purpose: "account", Class: jpki.AttributesChanged, Kind: jpki.CardSign, At: time.Now()}})
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	for range n {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
		if err != nil {
			return 0, err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return 0, err
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	}
	return float64(n) / time.Since(begin).Seconds(), nil
}
