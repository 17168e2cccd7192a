package push_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
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

// news returns a tenant's feed, whose sequences must have no gap and whose identifiers must differ.
func (b *bench) news(tenant jpki.CorporateNumber) (classes []jpki.ChangeClass, all []store.Change) {
	b.Helper()
	all, err := b.store.Changes(b.Context(), tenant, 0, 10_000)
	b.must(err)
	seen := map[string]bool{}
	for i, c := range all {
		if c.Sequence != int64(i+1) || seen[c.ID] || c.ID == "" {
			b.Fatalf("%+v", c)
		}
		seen[c.ID] = true
		classes = append(classes, c.Class)
	}
	return classes, all
}

// TestResync: wherever the authority's feed does not go on from where it was read, each tenant is told so once, however many follow, between
// what was told before and what is told after.
func TestResync(t *testing.T) {
	b := newBench(t)
	step := func() {
		t.Helper()
		var wait sync.WaitGroup
		for range 4 {
			wait.Go(func() {
				for range 3 {
					if err := b.follower().Step(t.Context(), 0); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wait.Wait()
	}
	expect := func(what string, missed, told int) {
		t.Helper()
		for _, tenant := range []jpki.CorporateNumber{bank, telecom} {
			_, all := b.news(tenant)
			n := 0
			for _, e := range all {
				if e.Class != jpki.ChangesMissed {
					continue
				}
				n++
				if e.User != "" || e.Purpose != "" || e.Kind != jpki.Kind("") {
					t.Errorf("%s: %+v", what, e)
				}
			}
			if n != missed || len(all)-n != told {
				t.Errorf("%s: %s was told %d changes and %d times that some may be missing, want %d and %d", what, tenant, len(all)-n, n, told, missed)
			}
		}
	}
	b.feed.add(20)
	step()
	expect("before", 0, 10)
	b.feed = feed{forgotten: 1_800_000_000_000_000} // a restore
	step()
	expect("restored", 1, 10)
	b.feed.add(6)
	step()
	expect("after the restore", 1, 13)
	b.feed = feed{forgotten: b.feed.forgotten + 4, changes: b.feed.changes[4:]} // what we have read is forgotten: nothing is missing
	b.feed.add(2)
	step()
	expect("forgotten behind us", 1, 14)
	b.feed = feed{forgotten: b.feed.forgotten + 100} // away for too long
	b.feed.add(4)
	step() // what is kept is told behind the notice
	expect("away", 2, 16)
	if classes, _ := b.news(bank); slices.Index(classes[12:], jpki.ChangesMissed) != 3 {
		t.Errorf("the notice is not where the hole is: %v", classes)
	}
	b.feed = feed{} // registered anew
	b.feed.add(2)
	step()
	expect("registered anew", 3, 16)
	b.feed.changes = b.feed.changes[:0]
	b.feed.add(4)
	for i := range b.feed.changes { // a new feed has a new name
		b.feed.changes[i].ID = "anew" + b.feed.changes[i].ID
	}
	step()
	expect("after it", 3, 17)
}

// refusing is a feed that refuses everything.
type refusing struct {
	*feed
	problem jpki.Problem
	unknown bool // where the feed is
}

func (f refusing) Changes(context.Context, int64, int, time.Duration) (client.ChangePage, error) {
	return client.ChangePage{}, jpki.Errorf(f.problem, "no")
}

func (f refusing) FeedBounds(ctx context.Context) (start, end int64, err error) {
	if f.unknown {
		return 0, 0, jpki.Errorf(jpki.Unavailable, "no")
	}
	return f.feed.FeedBounds(ctx)
}

// TestNoResync: tenants are alarmed only where something may be missing.
func TestNoResync(t *testing.T) {
	b := newBench(t)
	b.feed.add(4)
	b.follow()
	gone := &feed{forgotten: 1000}
	for _, tc := range []refusing{
		{&b.feed, jpki.Unavailable, false},
		{&b.feed, jpki.Forbidden, false},
		{&b.feed, jpki.Malformed, false}, // our position is in the feed: it is refused for something else
		{&b.feed, jpki.CursorExpired, false},
		{gone, jpki.Unavailable, false},
		{gone, jpki.CursorExpired, true},
	} {
		f, err := push.NewFollower(push.FollowerConfig{Store: b.store, Feed: tc, Now: time.Now, Rand: strings.NewReader("")})
		b.must(err)
		if err := f.Step(t.Context(), 0); !errors.Is(err, tc.problem) {
			t.Errorf("%v: %v", tc.problem, err)
		}
		if n := f.Outcomes()["resynchronised"]; n != 0 {
			t.Errorf("%v: %d", tc.problem, n)
		}
	}
	if _, all := b.news(bank); len(all) != 2 {
		t.Errorf("%d entries", len(all))
	}
	if at, err := b.store.AuthorityPosition(t.Context()); err != nil || at != 4 {
		t.Error(at, err)
	}
}

// TestResyncIsDelivered: a webhook of its own type without a user, and tokens for every stream.
func TestResyncIsDelivered(t *testing.T) {
	b := newBench(t)
	var types []string
	r := &receiver{check: func(q *http.Request, body []byte) (string, int64) {
		var m struct {
			Type string
			Data map[string]any
		}
		b.must(json.Unmarshal(body, &m))
		types = append(types, m.Type)
		if m.Data["user"] != nil || m.Data["kind"] != nil || m.Data["purpose"] != nil || m.Data["class"] != "resync" {
			t.Errorf("%s", body)
		}
		return q.Header.Get("webhook-id"), 1
	}}
	server := httptest.NewServer(r)
	defer server.Close()
	_, err := b.store.AddEndpoint(t.Context(), b.access[bank], store.Webhook, store.Target{URL: server.URL, Secret: make([]byte, 32)}, 0, time.Now())
	b.must(err)
	b.feed.forgotten = 9
	b.must(b.follower().Step(t.Context(), 0))
	b.run(true, func() bool { return r.count() >= 1 })
	_, all := b.news(bank)
	if len(types) != 1 || types[0] != "jpki.resync" || r.ids[0] != all[0].ID {
		t.Errorf("%v %v", types, r.ids)
	}
	for _, tc := range []struct {
		asked []string
		want  string
	}{
		{nil, push.EventBase + "resync"},
		{[]string{push.EventBase + "resync"}, push.EventBase + "resync"},
		{[]string{"https://schemas.openid.net/secevent/caep/event-type/credential-change"}, "https://schemas.openid.net/secevent/ssf/event-type/stream-updated"},
	} {
		text, wanted, err := b.events.Token(&store.Endpoint{ID: "stream-1", Target: store.Target{Audience: "bank", Events: tc.asked}}, all[0])
		if err != nil || !wanted {
			t.Fatal(wanted, err)
		}
		id, _, event := b.token(text, "bank")
		claims, err := io.ReadAll(base64.NewDecoder(base64.RawURLEncoding, strings.NewReader(strings.Split(text, ".")[1])))
		b.must(err)
		if id != all[0].ID || event != tc.want || !strings.Contains(string(claims), "stream-1") {
			t.Errorf("%v: %s %s", tc.asked, id, event)
		}
	}
}
