package push_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/client"
	"github.com/openjpki/jpki/verifier/push"
	"github.com/openjpki/jpki/verifier/store"
)

const (
	bank    jpki.CorporateNumber = "5835678256246"
	telecom jpki.CorporateNumber = "8700110005901"
	issuer                       = "https://verifier.example"
)

// A feed is an authority's, of as many changes as it is told to have, behind what is forgotten.
type feed struct {
	forgotten int64
	changes   []client.UserChange
}

func (f *feed) Changes(_ context.Context, after int64, limit int, _ time.Duration) (client.ChangePage, error) {
	start, end, _ := f.FeedBounds(context.Background())
	switch {
	case after < start:
		return client.ChangePage{}, jpki.Errorf(jpki.CursorExpired, "forgotten")
	case after > end:
		return client.ChangePage{}, jpki.Errorf(jpki.Malformed, "behind the end")
	}
	end = min(end, after+int64(limit))
	return client.ChangePage{Changes: f.changes[after-start : end-start], Next: end}, nil
}

func (f *feed) FeedBounds(context.Context) (start, end int64, err error) {
	return f.forgotten, f.forgotten + int64(len(f.changes)), nil
}

// add has two tenants told of n changes by turns.
func (f *feed) add(n int) {
	for range n {
		p := f.forgotten + int64(len(f.changes)) + 1
		f.changes = append(f.changes, client.UserChange{
			Position: p, ID: fmt.Sprintf("verifier-1-%d", p), Tenant: []jpki.CorporateNumber{bank, telecom}[p%2], User: fmt.Sprintf("user%d", p%7),
			Purpose: "account", Class: jpki.ChangeClasses[p%5], Kind: jpki.CardSign, At: time.Unix(1_800_000_000+p, 0).UTC(),
		})
	}
}

type bench struct {
	*testing.T
	store  *store.Store
	feed   feed
	access map[jpki.CorporateNumber]*store.Access
	events *push.Events
	key    *ecdsa.PrivateKey
}

func newBench(t *testing.T) *bench {
	s, err := store.Create(t.Context(), store.Config{Database: "sqlite:" + filepath.Join(t.TempDir(), "v.db"), MasterKey: bytes.Repeat([]byte{7}, 32)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	b := &bench{T: t, store: s, access: map[jpki.CorporateNumber]*store.Access{}}
	for id, name := range map[jpki.CorporateNumber]string{bank: "bank", telecom: "telecom"} {
		b.must(s.AddTenant(t.Context(), store.Tenant{ID: id, Name: name, RetentionDays: 1}, time.Now()))
		_, secret, err := s.AddToken(t.Context(), id, store.Scopes(), time.Time{}, time.Now())
		b.must(err)
		b.access[id], err = s.Access(t.Context(), store.Credential{Kind: store.BearerToken, Hash: sha256.Sum256([]byte(secret))}, time.Now())
		b.must(err)
	}
	b.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	b.must(err)
	b.events, err = push.NewEvents(issuer, b.key)
	b.must(err)
	return b
}

func (b *bench) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

func (b *bench) follower() *push.Follower {
	f, err := push.NewFollower(push.FollowerConfig{Store: b.store, Feed: &b.feed, Now: time.Now, Rand: rand.Reader})
	b.must(err)
	return f
}

func (b *bench) follow() {
	b.Helper()
	for range len(b.feed.changes)/client.MaxChanges + 1 {
		b.must(b.follower().Step(b.Context(), 0))
	}
}

// run delivers until done says so.
func (b *bench) run(private bool, done func() bool) {
	b.Helper()
	p, err := push.New(push.Config{Store: b.store, Events: b.events, Now: time.Now, Rand: rand.Reader, Private: private})
	b.must(err)
	ctx, stop := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	for deadline := time.Now().Add(60 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			b.Errorf("not done after a minute: %v", p.Outcomes())
			break
		}
	}
	stop()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		b.Error(err)
	}
}

// A receiver takes what is sent to it, as Standard Webhooks or RFC 8935 say, and refuses as told.
type receiver struct {
	mu     sync.Mutex
	check  func(*http.Request, []byte) (id string, sequence int64)
	answer func(nth int, id string) int
	calls  int
	got    []int64
	ids    []string
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	body, _ := io.ReadAll(io.LimitReader(q.Body, 1<<16))
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls++
	id, sequence := r.check(q, body)
	status := http.StatusAccepted
	if r.answer != nil {
		status = r.answer(r.calls, id)
	}
	if status/100 == 2 {
		r.got, r.ids = append(r.got, sequence), append(r.ids, id)
	}
	w.WriteHeader(status)
}

func (r *receiver) count() int { r.mu.Lock(); defer r.mu.Unlock(); return len(r.got) }

func upTo(n int64) (out []int64) {
	for i := range n {
		out = append(out, i+1)
	}
	return out
}

// webhook checks by the text of Standard Webhooks.
func (b *bench) webhook(secret []byte) func(*http.Request, []byte) (string, int64) {
	return func(q *http.Request, body []byte) (string, int64) {
		h := hmac.New(sha256.New, secret)
		fmt.Fprintf(h, "%s.%s.%s", q.Header.Get("webhook-id"), q.Header.Get("webhook-timestamp"), body)
		if q.Header.Get("webhook-signature") != "v1,"+base64.StdEncoding.EncodeToString(h.Sum(nil)) {
			b.Error("signature does not verify")
		}
		var m struct {
			Type string `json:"type"`
			Data struct {
				Sequence  int64
				ID, Class string
			} `json:"data"`
		}
		if err := json.Unmarshal(body, &m); err != nil || m.Data.ID != q.Header.Get("webhook-id") || m.Type != "jpki.user."+m.Data.Class {
			b.Errorf("%v %s", err, body)
		}
		return m.Data.ID, m.Data.Sequence
	}
}

// token checks a Security Event Token by RFC 7515, 7518, 8417 and 9493.
func (b *bench) token(text, audience string) (id string, sequence int64, event string) {
	part := strings.Split(text, ".")
	if len(part) != 3 {
		b.Fatal("not three parts")
	}
	raw := func(s string) []byte { out, err := base64.RawURLEncoding.DecodeString(s); b.must(err); return out }
	sum, signature := sha256.Sum256([]byte(part[0]+"."+part[1])), raw(part[2])
	if len(signature) != 64 || !ecdsa.Verify(&b.key.PublicKey, sum[:], new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])) {
		b.Error("signature does not verify")
	}
	var header struct{ Alg, Typ, Kid string }
	var claims struct {
		Iss, Jti, Aud string
		Iat           int64
		Sub           *string
		Exp           *int64
		SubID         struct{ Format, ID string } `json:"sub_id"`
		Events        map[string]struct{ Sequence int64 }
	}
	b.must(json.Unmarshal(raw(part[0]), &header))
	b.must(json.Unmarshal(raw(part[1]), &claims))
	if header.Alg != "ES256" || header.Typ != "secevent+jwt" || header.Kid == "" || claims.Iss != issuer || claims.Aud != audience || claims.Iat == 0 || claims.Sub != nil || claims.Exp != nil ||
		claims.SubID.Format != "opaque" || claims.SubID.ID == "" || len(claims.Events) != 1 {
		b.Errorf("%+v %+v", header, claims)
	}
	for kind, e := range claims.Events {
		event, sequence = kind, e.Sequence
	}
	return claims.Jti, sequence, event
}

// TestFeeds: each tenant's feed has its changes once, without gaps, however many follow, and identifiers tell nothing of others.
func TestFeeds(t *testing.T) {
	b := newBench(t)
	b.feed.add(3000)
	b.feed.changes[10].Tenant = "7000012050002" // not ours
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			for range 12 {
				if err := b.follower().Step(t.Context(), 0); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wait.Wait()
	seen, total := map[string]bool{}, 0
	for _, tenant := range []jpki.CorporateNumber{bank, telecom} {
		all, err := b.store.Changes(t.Context(), tenant, 0, 10_000)
		b.must(err)
		for i, c := range all {
			if c.Sequence != int64(i+1) || seen[c.ID] || strings.Contains(c.ID, "verifier") {
				t.Fatalf("%+v", c)
			}
			seen[c.ID] = true
		}
		total += len(all)
	}
	if total != 2999 {
		t.Errorf("%d changes", total)
	}
	n, err := b.store.ForgetChanges(t.Context(), time.Now().Add(time.Hour))
	if err != nil || n == 0 {
		t.Errorf("%d %v", n, err)
	}
	if _, err := b.store.Changes(t.Context(), bank, 0, 1); jpki.ProblemOf(err) != jpki.CursorExpired {
		t.Error(err)
	}
	b.feed.changes = append(b.feed.changes, client.UserChange{Position: 3002, Tenant: bank})
	if b.follower().Step(t.Context(), 0) == nil {
		t.Error("a gap of the authority's was passed over")
	}
}

// TestWebhooks: in order, through a receiver that is down for a while and a pusher that ends; what is refused is a dead letter and
// can be delivered again.
func TestWebhooks(t *testing.T) {
	b := newBench(t)
	secret, refuse := []byte("0123456789abcdef0123456789abcdef"), true
	r := &receiver{check: b.webhook(secret)}
	var third string
	r.answer = func(nth int, id string) int {
		if nth == 1 {
			return http.StatusServiceUnavailable
		}
		if third == id && refuse {
			return http.StatusBadRequest
		}
		return http.StatusNoContent
	}
	server := httptest.NewServer(r)
	defer server.Close()
	e, err := b.store.AddEndpoint(t.Context(), b.access[bank], store.Webhook, store.Target{URL: server.URL, Secret: secret}, 0, time.Now())
	b.must(err)
	b.feed.add(200)
	b.follow()
	all, err := b.store.Changes(t.Context(), bank, 0, 1000)
	b.must(err)
	const dead int64 = 70
	third = all[dead-1].ID // before a pusher runs: how far the first gets depends on the machine
	b.run(true, func() bool { return r.count() >= 40 })
	b.run(true, func() bool { return r.count() >= 99 && slices.Contains(r.got, 100) })
	want := slices.DeleteFunc(upTo(100), func(n int64) bool { return n == dead })
	if !slices.IsSorted(r.got) || !slices.Equal(slices.Compact(slices.Clone(r.got)), want) {
		t.Errorf("got %v", r.got)
	}
	ids := map[int64]string{}
	for i, n := range r.got { // twice only under the same identifier
		if before, twice := ids[n]; twice && before != r.ids[i] {
			t.Errorf("%d under two identifiers", n)
		}
		ids[n] = r.ids[i]
	}
	if len(ids) != 99 {
		t.Errorf("%d changes arrived", len(ids))
	}
	letters, waiting, err := b.store.DeadLetters(t.Context(), b.access[bank], e.ID, 0, 10)
	if err != nil || waiting != 0 || len(letters) != 1 || letters[0].Sequence != dead || letters[0].Failure != "status-400" {
		t.Fatalf("%v %d %+v", err, waiting, letters)
	}
	r.mu.Lock()
	refuse = false
	r.mu.Unlock()
	if _, err := b.store.Redeliver(t.Context(), b.access[telecom], e.ID, 0, time.Now()); jpki.ProblemOf(err) != jpki.NotFound {
		t.Error(err)
	}
	if n, err := b.store.Redeliver(t.Context(), b.access[bank], e.ID, 0, time.Now()); n != 1 || err != nil {
		t.Errorf("%d %v", n, err)
	}
	b.run(true, func() bool {
		letters, _, err := b.store.DeadLetters(t.Context(), b.access[bank], e.ID, 0, 10)
		return err == nil && len(letters) == 0
	})
	if r.got[len(r.got)-1] != dead {
		t.Errorf("got %v", r.got)
	}
}

// TestPushedTokens reads tokens by the RFCs; only types that were asked for come.
func TestPushedTokens(t *testing.T) {
	b := newBench(t)
	const caep = "https://schemas.openid.net/secevent/caep/event-type/credential-change"
	r := &receiver{check: func(q *http.Request, body []byte) (string, int64) {
		if q.Header.Get("Content-Type") != "application/secevent+jwt" || q.Header.Get("Authorization") != "Bearer x" {
			t.Error("headers")
		}
		id, n, event := b.token(string(body), "bank")
		if event != caep && event != push.EventBase+"suspended" {
			t.Errorf("event %s", event)
		}
		return id, n
	}}
	server := httptest.NewServer(r)
	defer server.Close()
	_, err := b.store.AddEndpoint(t.Context(), b.access[bank], store.SSFPush, store.Target{URL: server.URL, Authorization: "Bearer x", Audience: "bank", Events: []string{caep, push.EventBase + "suspended"}}, -1, time.Now())
	b.must(err)
	b.feed.add(100)
	b.follow()
	b.run(true, func() bool { return r.count() >= 30 })
	if r.calls != 30 {
		t.Errorf("%d calls", r.calls)
	}
}

// TestPoll acknowledges out of order, as RFC 8936 allows.
func TestPoll(t *testing.T) {
	b := newBench(t)
	e, err := b.store.AddEndpoint(t.Context(), b.access[bank], store.SSFPoll, store.Target{Audience: "bank"}, 0, time.Now())
	b.must(err)
	b.feed.add(10)
	b.follow()
	poll := func(acks []string, errs map[string]string, limit int) ([]store.Change, bool) {
		t.Helper()
		out, _, more, err := b.store.Poll(t.Context(), b.access[bank], e.ID, acks, errs, limit, time.Now())
		b.must(err)
		return out, more
	}
	first, more := poll(nil, nil, 3)
	if len(first) != 3 || !more || first[0].Sequence != 1 {
		t.Fatalf("%+v %v", first, more)
	}
	id, n, _ := "", int64(0), ""
	text, wanted, err := b.events.Token(&e, first[0])
	b.must(err)
	if id, n, _ = b.token(text, "bank"); id != first[0].ID || n != 1 || !wanted {
		t.Error(id, n, wanted)
	}
	rest, more := poll([]string{first[1].ID}, map[string]string{first[2].ID: "refused"}, 10)
	if len(rest) != 3 || more || rest[0].Sequence != 1 || rest[1].Sequence != 4 {
		t.Fatalf("%+v %v", rest, more)
	}
	if rest, _ = poll([]string{first[0].ID, rest[1].ID, rest[2].ID}, nil, 10); len(rest) != 0 {
		t.Errorf("%+v", rest)
	}
	if _, _, _, err := b.store.Poll(t.Context(), b.access[telecom], e.ID, nil, nil, 1, time.Now()); jpki.ProblemOf(err) != jpki.NotFound {
		t.Error(err)
	}
}

// TestAddresses: no tenant makes us call what is ours.
func TestAddresses(t *testing.T) {
	for url, ok := range map[string]bool{
		"https://bank.example/hook": true, "http://bank.example/hook": false, "http://127.0.0.1/": false, "https://u@bank.example/": false, "ftp://x/": false, "https://": false,
	} {
		if err := push.CheckURL(url, false); (err == nil) != ok {
			t.Errorf("%s: %v", url, err)
		}
	}
	b := newBench(t)
	called := make(chan struct{}, 1)
	server := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { called <- struct{}{} }))
	defer server.Close()
	for _, host := range []string{"127.0.0.1", "localhost"} {
		_, err := b.store.AddEndpoint(t.Context(), b.access[bank], store.Webhook, store.Target{URL: strings.Replace(server.URL, "127.0.0.1", host, 1), Secret: []byte("s")}, 0, time.Now())
		b.must(err)
	}
	b.feed.add(2)
	b.follow()
	b.run(false, func() bool {
		all, err := b.store.Endpoints(t.Context(), b.access[bank])
		return err == nil && all[0].Failure == "address" && all[1].Failure == "address"
	})
	if len(called) > 0 {
		t.Error("a loopback address was called")
	}
}
