package push_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openjpki/jpki/verifier/store"
)

// TestNotices: a test goes before what waits and ends a back-off; while a secret changes both sign; who pauses is obeyed in the middle
// of a turn, and who resumes waits for nobody's lease.
func TestNotices(t *testing.T) {
	b := newBench(t)
	secret, old := []byte("new secret"), []byte("old secret")
	var types []string
	down := true
	r := &receiver{}
	r.check = func(q *http.Request, body []byte) (string, int64) {
		var signatures []string
		for _, key := range [][]byte{secret, old} {
			h := hmac.New(sha256.New, key)
			fmt.Fprintf(h, "%s.%s.%s", q.Header.Get("webhook-id"), q.Header.Get("webhook-timestamp"), body)
			signatures = append(signatures, "v1,"+base64.StdEncoding.EncodeToString(h.Sum(nil)))
		}
		if got := strings.Fields(q.Header.Get("webhook-signature")); !slices.Equal(got, signatures) {
			t.Errorf("signatures %v", got)
		}
		var m struct {
			Type string
			Data struct{ Sequence int64 }
		}
		b.must(json.Unmarshal(body, &m))
		if !down {
			types = append(types, m.Type)
		}
		return q.Header.Get("webhook-id"), m.Data.Sequence
	}
	r.answer = func(int, string) int {
		if down {
			return http.StatusServiceUnavailable
		}
		return http.StatusNoContent
	}
	server := httptest.NewServer(r)
	defer server.Close()
	a := b.access[bank]
	e, err := b.store.AddEndpoint(t.Context(), a, store.Webhook, store.Target{URL: server.URL, Secret: secret, OldSecret: old, OldUntil: time.Now().Add(time.Hour).Unix()}, 0, time.Now())
	b.must(err)
	b.feed.add(600)
	b.follow()
	b.run(true, func() bool {
		got, err := b.store.Endpoint(t.Context(), a, e.ID)
		return err == nil && got.Attempts >= 2
	})
	r.mu.Lock()
	down = false
	r.mu.Unlock()
	n, err := b.store.AddNotice(t.Context(), a, e.ID, "", time.Now())
	b.must(err)
	enable := func(on bool) {
		_, err := b.store.ChangeEndpoint(t.Context(), a, e.ID, func(e *store.Endpoint, _ int64) error { e.Enabled = on; return nil }, time.Now())
		b.must(err)
	}
	b.run(true, func() bool {
		if r.count() < 5 {
			return false
		}
		enable(false)
		return true
	})
	r.mu.Lock()
	if types[0] != "jpki.test" || r.ids[0] != n.ID || types[1] != "jpki.user.credential-renewed" && r.got[1] != 1 {
		t.Errorf("first %v %v", types[:2], r.got[:2])
	}
	r.mu.Unlock()
	enable(true)
	b.run(true, func() bool { return slices.Contains(r.sequences(), 300) })
	got := slices.Compact(r.sequences()[1:])
	slices.Sort(got)
	if !slices.Equal(slices.Compact(got), upTo(300)) {
		t.Errorf("got %v", got)
	}
}

func (r *receiver) sequences() []int64 { r.mu.Lock(); defer r.mu.Unlock(); return slices.Clone(r.got) }

// TestVerificationEvent is delivered by push as changes are.
func TestVerificationEvent(t *testing.T) {
	b := newBench(t)
	var state string
	r := &receiver{check: func(_ *http.Request, body []byte) (string, int64) {
		id, _, event := b.token(string(body), "bank")
		part, err := base64.RawURLEncoding.DecodeString(strings.Split(string(body), ".")[1])
		b.must(err)
		var claims struct {
			Events map[string]struct{ State string }
		}
		b.must(json.Unmarshal(part, &claims))
		state = claims.Events["https://schemas.openid.net/secevent/ssf/event-type/verification"].State
		if event == "" {
			t.Error("no event")
		}
		return id, 0
	}}
	server := httptest.NewServer(r)
	defer server.Close()
	e, err := b.store.AddEndpoint(t.Context(), b.access[bank], store.SSFPush, store.Target{URL: server.URL, Audience: "bank"}, -1, time.Now())
	b.must(err)
	n, err := b.store.AddNotice(t.Context(), b.access[bank], e.ID, "hello", time.Now())
	b.must(err)
	b.run(true, func() bool { return r.count() >= 1 })
	if state != "hello" || r.ids[0] != n.ID {
		t.Errorf("%q %v", state, r.ids)
	}
}
