package api_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/client"
	"github.com/openjpki/jpki/verifier/api"
	"github.com/openjpki/jpki/verifier/store"
)

const (
	transmitter = "http://127.0.0.1:8090"
	someUser    = "abcdefghijklmnopqrstuvwxyz234567"
	noUser      = "77777777777777777777777777777777"
)

// An authority answers as the real one does at its door. The sandbox's tests have the real one.
type authority struct {
	mu      sync.Mutex
	users   map[string]bool // known to whom: "TENANT USER"
	watches map[client.Watch]bool
	asked   client.IdentityRequest
	err     error
}

func (a *authority) Identify(_ context.Context, r client.IdentityRequest) (client.Identity, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked = r
	if a.err != nil {
		return client.Identity{}, a.err
	}
	known := a.users[string(r.Tenant)+someUser]
	a.users[string(r.Tenant)+someUser] = true
	return client.Identity{User: someUser, New: !known, Kind: jpki.CardSign, Latest: true, State: jpki.Good}, nil
}

func (a *authority) CreateWatches(_ context.Context, o client.WatchOrder) (out client.WatchOutcome, err error) {
	return a.order(o, true)
}

func (a *authority) EndWatches(_ context.Context, o client.WatchOrder) (client.WatchOutcome, error) {
	return a.order(o, false)
}

func (a *authority) order(o client.WatchOrder, watched bool) (out client.WatchOutcome, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, w := range o.Watches {
		switch {
		case w.User != someUser:
			out.Unknown = append(out.Unknown, w.User)
		case a.watches[w] != watched:
			a.watches[w] = watched
			out.Changed++
		}
	}
	return out, a.err
}

func (a *authority) WatchesAfter(_ context.Context, _ jpki.CorporateNumber, after string) (out client.WatchPage, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for w, watched := range a.watches {
		if watched && after == "" {
			w.Since = t0
			out.Watches, out.Next = append(out.Watches, w), w.User+"/"+w.Purpose
		}
	}
	return out, a.err
}

// happen has n changes come to the bank, and as many to the telecom.
func (b *bench) happen(n int) {
	b.t.Helper()
	at := must(b.store.AuthorityPosition(b.t.Context()))
	var list []store.AuthorityChange
	for i := range 2 * n {
		list = append(list, store.AuthorityChange{Tenant: []jpki.CorporateNumber{bank, telecom}[i%2], Change: store.Change{
			ID: fmt.Sprintf("verifier-1-%d", at+int64(i)+1), User: someUser, Purpose: "account", Class: jpki.ChangeClasses[i/2%5], Kind: jpki.CardSign, Correction: i == 0, At: t0,
		}})
	}
	if moved := must(b.store.AppendChanges(b.t.Context(), at, at+int64(2*n), list, b.now)); !moved {
		b.t.Fatal("the cursor is elsewhere")
	}
}

// into reads an answer of a status.
func (b *bench) into(a answer, status int, v any) {
	b.t.Helper()
	if a.StatusCode != status {
		b.t.Fatalf("status %d, want %d: %s", a.StatusCode, status, a.body)
	}
	if v != nil {
		if err := json.Unmarshal(a.body, v); err != nil {
			b.t.Fatalf("%v: %s", err, a.body)
		}
	}
}

type anEndpoint struct {
	ID, Method, URL, Secret, Failure string
	Enabled                          bool
	Position, Waiting, Attempts      int64
}

type aStream struct {
	ID        string   `json:"stream_id"`
	Requested []string `json:"events_requested"`
	Delivered []string `json:"events_delivered"`
	Supported []string `json:"events_supported"`
	Delivery  struct {
		Method        string
		URL           string `json:"endpoint_url"`
		Authorization *string
	}
	Description, Iss, Aud string
}

// follow goes through every answer of the routes of users who are followed, and checks them against the document.
func (b *bench) follow(c *contract) {
	b.t.Helper()
	watches := object{"watches": []any{object{"user": someUser, "purpose": "account"}, object{"user": noUser, "purpose": "account"}}}
	c.conforms("POST", "/v1/watches", "", watches, "Idempotency-Key", "w")
	c.conforms("POST", "/v1/watches", "", watches, "Idempotency-Key", "w")
	c.conforms("POST", "/v1/watch-lists", "", nil)
	c.conforms("POST", "/v1/watch-lists", "", object{"after": "x"})
	b.happen(5)
	c.conforms("GET", "/v1/changes?after=2&limit=2&wait=1", "", nil)
	c.conforms("GET", "/v1/changes?after=end", "", nil)
	var e anEndpoint
	b.into(c.conforms("POST", "/v1/endpoints", "", object{"url": "https://bank.example/hook", "after": 0}), 201, &e)
	c.conforms("GET", "/v1/endpoints", "", nil)
	c.conforms("GET", "/v1/endpoints/{id}", e.ID, nil)
	c.conforms("PATCH", "/v1/endpoints/{id}", e.ID, object{"enabled": false})
	c.conforms("POST", "/v1/endpoints/{id}/secrets", e.ID, nil)
	c.conforms("POST", "/v1/endpoints/{id}/tests", e.ID, nil)
	c.conforms("POST", "/v1/endpoints/{id}/redeliveries", e.ID, object{"sequence": 1})
	for _, what := range []string{"secrets", "tests"} {
		for _, body := range []any{nil, "{}"} { // the same key, another request
			c.conforms("POST", "/v1/endpoints/{id}/"+what, e.ID, body, "Idempotency-Key", what)
		}
	}
	var s aStream
	b.into(c.conforms("POST", "/v1/ssf/streams", "", object{"events_requested": []string{"x"}, "description": "d"}), 201, &s)
	c.conforms("GET", "/v1/ssf/streams", "", nil)
	c.conforms("GET", "/v1/ssf/streams?stream_id="+s.ID, "", nil)
	c.conforms("PATCH", "/v1/ssf/streams", "", object{"stream_id": s.ID, "description": "e"})
	c.conforms("PUT", "/v1/ssf/streams", "", object{"stream_id": s.ID})
	c.conforms("GET", "/v1/ssf/status?stream_id="+s.ID, "", nil)
	c.conforms("POST", "/v1/ssf/status", "", object{"stream_id": s.ID, "status": "paused", "reason": "night"})
	c.conforms("POST", "/v1/ssf/status", "", object{"stream_id": s.ID, "status": "enabled"})
	c.conforms("POST", "/v1/ssf/verifications", "", object{"stream_id": s.ID, "state": "s"})
	b.happen(2)
	var polled struct{ Sets map[string]string }
	b.into(c.conforms("POST", "/v1/ssf/streams/{id}/poll", s.ID, object{"returnImmediately": true}), 200, &polled)
	for id := range polled.Sets {
		c.conforms("POST", "/v1/ssf/streams/{id}/poll", s.ID, object{"maxEvents": 0, "setErrs": object{id: object{"err": "invalid_key", "description": "?"}}})
	}
	c.conforms("GET", "/v1/endpoints/{id}/dead-letters?limit=3", s.ID, nil)
	for _, path := range []string{"/v1/ssf/streams", "/v1/ssf/status"} {
		c.conforms("GET", path+"?stream_id=0", "", nil)
	}
	for _, method := range []string{"PATCH", "PUT"} {
		c.conforms(method, "/v1/ssf/streams", "", object{"stream_id": e.ID})
	}
	c.conforms("POST", "/v1/ssf/status", "", object{"stream_id": e.ID, "status": "paused"})
	c.conforms("POST", "/v1/ssf/verifications", "", object{"stream_id": e.ID})
	none := strings.Repeat("0", 32)
	c.conforms("PATCH", "/v1/endpoints/{id}", s.ID, object{"enabled": true})
	c.conforms("POST", "/v1/endpoints/{id}/secrets", s.ID, nil)
	for _, id := range []string{none, "x"} {
		c.conforms("GET", "/v1/endpoints/{id}", id, nil)
		c.conforms("DELETE", "/v1/endpoints/{id}", id, nil)
		c.conforms("POST", "/v1/endpoints/{id}/tests", id, nil)
		c.conforms("POST", "/v1/endpoints/{id}/redeliveries", id, nil)
		c.conforms("GET", "/v1/endpoints/{id}/dead-letters", id, nil)
		c.conforms("POST", "/v1/ssf/streams/{id}/poll", id, object{})
	}
	c.conforms("DELETE", "/v1/ssf/streams?stream_id="+s.ID, "", nil)
	c.conforms("DELETE", "/v1/ssf/streams?stream_id="+s.ID, "", nil)
	c.conforms("DELETE", "/v1/endpoints/{id}", e.ID, nil)
	c.conforms("POST", "/v1/watch-endings", "", watches)
	b.now = b.now.Add(store.ChangesKept + time.Hour)
	must(b.store.ForgetChanges(b.t.Context(), b.now))
	c.conforms("GET", "/v1/changes", "", nil)
	b.now = t0
	c.conforms("GET", "/.well-known/ssf-configuration", "", nil, "Authorization", "")
	c.conforms("GET", "/.well-known/jwks.json", "", nil, "Authorization", "")
	c.conforms("POST", "/v1/verifications", "", with("identify_user", true)(b))
	c.conforms("POST", "/v1/verifications", "", object{"document": b64(b.document(true)), "identify_user": true, "purpose": "account"})
}

// TestIdentify: who it is comes with good verdicts, when asked for, and is not kept with the evidence.
func TestIdentify(t *testing.T) {
	b := newBench(t)
	type identified struct {
		ID   string
		User *struct {
			ID          string
			New, Latest bool
		}
	}
	ask := func(body any) (out identified) {
		t.Helper()
		b.into(b.send("POST", "/v1/verifications", body), 200, &out)
		return out
	}
	if out := ask(b.signed()); out.User != nil {
		t.Errorf("not asked: %+v", out)
	}
	first := ask(with("identify_user", true)(b))
	if first.User == nil || first.User.ID != someUser || !first.User.New || !first.User.Latest || b.asked.Tenant != bank || b.asked.Purpose != "verification" || !strings.HasPrefix(b.asked.Certificate, "-----BEGIN CERTIFICATE") {
		t.Errorf("%+v %+v", first.User, b.asked)
	}
	if a := b.send("GET", "/v1/evidence/"+first.ID, nil); strings.Contains(string(a.body), someUser) {
		t.Errorf("kept: %s", a.body)
	}
	if out := ask(object{"document": b64(b.document(true)), "identify_user": true, "purpose": "account-opening"}); out.User == nil || out.User.New || b.asked.Purpose != "account-opening" {
		t.Errorf("%+v %+v", out.User, b.asked)
	}
	body, media := form("document", string(b.document(true)), "identify_user", "true")
	if a := b.send("POST", "/v1/verifications", body, "Content-Type", media); !strings.Contains(string(a.body), someUser) {
		t.Errorf("%s", a.body)
	}
	if a := b.send("POST", "/v1/authentications", b.login(b.challenge(nil), object{"identify_user": true})); !strings.Contains(string(a.body), someUser) || b.asked.Purpose != "log-in" {
		t.Errorf("%s", a.body)
	}
	b.asked = client.IdentityRequest{}
	if out := ask(with("identify_user", true)(b).(object).only(with("signature", b64([]byte("a signature that is none at all")))(b).(object), "identify_user")); out.User != nil || b.asked.Certificate != "" {
		t.Errorf("%+v", out)
	}
	b.wantProblem(b.send("POST", "/v1/verifications", with("purpose", "account")(b)), jpki.Malformed)
	two := with("identify_user", true)(b).(object)
	two["purpose"] = "Not This"
	b.wantProblem(b.send("POST", "/v1/verifications", two), jpki.Malformed)
	for err, want := range map[error]jpki.Problem{
		jpki.Errorf(jpki.UnknownTenant, ""): jpki.UnknownTenant, jpki.Errorf(jpki.Forbidden, ""): jpki.Forbidden, jpki.Errorf(jpki.Unavailable, ""): jpki.Unavailable,
		jpki.Errorf(jpki.ClientCertificateExpired, "ours"): jpki.Internal,
	} {
		b.authority.err = err
		a := b.send("POST", "/v1/verifications", with("identify_user", true)(b))
		b.wantProblem(a, want)
		if strings.Contains(string(a.body), "ours") {
			t.Errorf("%s", a.body)
		}
	}
	b.authority.err = nil
	b.api = must(api.New(api.Config{Verifier: b.verifier, Challenges: b.verifier.Challenges(), Store: b.store, Now: func() time.Time { return b.now }}))
	b.wantProblem(b.send("POST", "/v1/verifications", with("identify_user", true)(b)), jpki.Forbidden)
}

func TestWatches(t *testing.T) {
	b := newBench(t)
	var out client.WatchOutcome
	order := object{"watches": []any{object{"user": someUser, "purpose": "account"}, object{"user": noUser, "purpose": "account"}}}
	b.into(b.send("POST", "/v1/watches", order), 200, &out)
	if out.Changed != 1 || !slices.Equal(out.Unknown, []string{noUser}) {
		t.Errorf("%+v", out)
	}
	var page client.WatchPage
	b.into(b.send("POST", "/v1/watch-lists", nil), 200, &page)
	if len(page.Watches) != 1 || page.Watches[0].User != someUser {
		t.Errorf("%+v", page)
	}
	for name, body := range map[string]any{
		"none": object{"watches": []any{}}, "too many": object{"watches": slices.Repeat([]any{object{"user": someUser, "purpose": "account"}}, 1001)},
		"no user": object{"watches": []any{object{"purpose": "account"}}}, "no purpose": object{"watches": []any{object{"user": someUser}}},
		"its own time": object{"watches": []any{object{"user": someUser, "purpose": "account", "since": t0}}}, "another member": object{"watches": []any{}, "colour": "red"},
		"twice": `{"watches":[]}{}`, "a list": `[]`, "null": `null`, "not UTF-8": "{\"watches\":\"\xff\"}",
	} {
		t.Run(name, func(t *testing.T) {
			b.t = t
			b.wantProblem(b.send("POST", "/v1/watches", body), jpki.Malformed)
		})
	}
	b.t = t
	b.into(b.send("POST", "/v1/watch-endings", order), 200, &out)
	if out.Changed != 1 || b.watches[client.Watch{User: someUser, Purpose: "account"}] {
		t.Errorf("%+v", out)
	}
}

type aPage struct {
	Changes []struct {
		Sequence              int64
		ID, User, Class, Kind string
	}
	Next, End int64
}

// TestChanges: the feed is a tenant's own, without gaps, and who waits is told at once.
func TestChanges(t *testing.T) {
	b := newBench(t)
	read := func(query string, headers ...string) (p aPage) {
		t.Helper()
		b.into(b.send("GET", "/v1/changes"+query, nil, headers...), 200, &p)
		return p
	}
	if p := read(""); len(p.Changes) != 0 || p.Next != 0 || p.End != 0 {
		t.Errorf("%+v", p)
	}
	b.happen(7)
	var ids []string
	for after := int64(0); after < 7; {
		p := read(fmt.Sprintf("?after=%d&limit=3", after))
		for i, c := range p.Changes {
			if c.Sequence != after+int64(i)+1 || c.User != someUser || c.Class == "" {
				t.Fatalf("%+v", p)
			}
			ids = append(ids, c.ID)
		}
		if after = p.Next; p.End != 7 || len(p.Changes) == 0 {
			t.Fatalf("%+v", p)
		}
	}
	for _, c := range read("", "Authorization", "Bearer "+telecomToken).Changes {
		if slices.Contains(ids, c.ID) {
			t.Error("two tenants have an identifier in common")
		}
	}
	if p := read("?after=end"); p.Next != 7 || len(p.Changes) != 0 {
		t.Errorf("%+v", p)
	}
	for _, query := range []string{"?after=8", "?after=-1", "?after=x", "?limit=1001", "?wait=31", "?after=1&after=2", "?colour=red", "?%zz"} {
		b.wantProblem(b.send("GET", "/v1/changes"+query, nil), jpki.Malformed)
	}
	// Somebody waits: for a change of another process, then of ours.
	changed := make(chan struct{})
	b.watching.Changed = func() <-chan struct{} { return changed }
	for i := range 2 {
		got := make(chan answer, 1)
		go func() { got <- b.send("GET", fmt.Sprintf("/v1/changes?after=%d&wait=30", 7+i), nil) }()
		time.Sleep(20 * time.Millisecond)
		b.happen(1)
		if i == 1 {
			close(changed)
		}
		var p aPage
		b.into(<-got, 200, &p)
		if len(p.Changes) != 1 || p.Next != int64(8+i) {
			t.Errorf("%+v", p)
		}
	}
	b.now = t0.Add(store.ChangesKept)
	if n := must(b.store.ForgetChanges(t.Context(), b.now)); n == 0 {
		t.Error("nothing forgotten")
	}
	b.wantProblem(b.send("GET", "/v1/changes?after=3", nil), jpki.CursorExpired)
	if p := read("?after=end"); p.Next != 9 {
		t.Errorf("%+v", p)
	}
}

func TestEndpoints(t *testing.T) {
	b := newBench(t)
	b.happen(3)
	for _, url := range []string{"", "http://bank.example/", "https://u:p@bank.example/", "ftp://bank.example", "https://bank.example/#x"} {
		b.wantProblem(b.send("POST", "/v1/endpoints", object{"url": url}), jpki.Malformed)
	}
	b.watching.Private = false
	for _, url := range []string{"http://127.0.0.1/", "https://127.0.0.1/", "https://10.0.0.1/", "https://[::1]/", "https://169.254.169.254/latest", "https://[::ffff:10.0.0.1]/"} {
		b.wantProblem(b.send("POST", "/v1/endpoints", object{"url": url}), jpki.Malformed)
		b.wantProblem(b.send("POST", "/v1/ssf/streams", object{"delivery": object{"method": "urn:ietf:rfc:8935", "endpoint_url": url}}), jpki.Malformed)
	}
	b.wantProblem(b.send("POST", "/v1/endpoints", object{"url": "https://bank.example/", "after": 4}), jpki.Malformed)
	var e, got anEndpoint
	b.into(b.send("POST", "/v1/endpoints", object{"url": "https://bank.example/hook", "after": 1}), 201, &e)
	if !strings.HasPrefix(e.Secret, "whsec_") || e.Position != 1 || e.Waiting != 2 || !e.Enabled {
		t.Errorf("%+v", e)
	}
	path := "/v1/endpoints/" + e.ID
	b.into(b.send("GET", path, nil), 200, &got)
	if got.Secret != "" || got.URL != e.URL {
		t.Errorf("%+v", got)
	}
	b.into(b.send("POST", path+"/secrets", nil), 201, &got)
	if got.Secret == e.Secret || got.Secret == "" {
		t.Error("the secret did not change")
	}
	b.into(b.send("PATCH", path, object{"enabled": false}), 200, &got)
	if got.Enabled || got.URL != e.URL {
		t.Errorf("%+v", got)
	}
	b.into(b.send("PATCH", path, object{"enabled": true, "url": "https://bank.example/other"}), 200, &got)
	if !got.Enabled || got.URL != "https://bank.example/other" {
		t.Errorf("%+v", got)
	}
	// Another tenant's is not there.
	other := []string{"Authorization", "Bearer " + telecomToken}
	for _, r := range [][2]string{{"GET", ""}, {"DELETE", ""}, {"POST", "/secrets"}, {"POST", "/tests"}, {"GET", "/dead-letters"}, {"POST", "/redeliveries"}} {
		b.wantProblem(b.send(r[0], path+r[1], nil, other...), jpki.NotFound)
	}
	b.wantProblem(b.send("PATCH", path, object{"enabled": false}, other...), jpki.NotFound)
	for range store.MaxNotices {
		b.into(b.send("POST", path+"/tests", nil), 202, nil)
	}
	b.wantProblem(b.send("POST", path+"/tests", nil), jpki.RateLimited)
	for range store.MaxEndpoints - 1 {
		b.into(b.send("POST", "/v1/endpoints", object{"url": "https://bank.example/hook"}), 201, nil)
	}
	b.wantProblem(b.send("POST", "/v1/endpoints", object{"url": "https://bank.example/hook"}), jpki.Conflict)
	b.into(b.send("DELETE", path, nil), 204, nil)
	b.wantProblem(b.send("GET", path, nil), jpki.NotFound)
	if strings.Contains(b.log.String(), "bank.example") {
		t.Error("a receiver's address is in the log")
	}
}

// A set is a Security Event Token, read by the RFCs alone: 7515, 7517, 7518, 8417, 9493.
type set struct {
	Iss, Aud, Jti string
	Iat           int64
	SubID         struct{ Format, ID string } `json:"sub_id"`
	Events        map[string]struct {
		State    string
		Sequence int64
	}
}

// readSet verifies a token with the keys that the transmitter publishes.
func (b *bench) readSet(text string) (s set) {
	b.t.Helper()
	var meta struct {
		Issuer string
		Keys   string `json:"jwks_uri"`
	}
	b.into(b.send("GET", "/.well-known/ssf-configuration", nil, "Authorization", ""), 200, &meta)
	var keys struct{ Keys []map[string]string }
	b.into(b.send("GET", strings.TrimPrefix(meta.Keys, meta.Issuer), nil, "Authorization", ""), 200, &keys)
	part := strings.Split(text, ".")
	if len(part) != 3 {
		b.t.Fatal("not three parts")
	}
	raw := func(s string) []byte { return must(base64.RawURLEncoding.DecodeString(s)) }
	var header struct{ Alg, Typ, Kid string }
	if err := json.Unmarshal(raw(part[0]), &header); err != nil || header.Alg != "ES256" || header.Typ != "secevent+jwt" {
		b.t.Fatalf("%v %+v", err, header)
	}
	i := slices.IndexFunc(keys.Keys, func(k map[string]string) bool {
		return k["kid"] == header.Kid && k["kty"] == "EC" && k["crv"] == "P-256"
	})
	if i < 0 {
		b.t.Fatal("no such key")
	}
	key := must(ecdsa.ParseUncompressedPublicKey(elliptic.P256(), slices.Concat([]byte{4}, raw(keys.Keys[i]["x"]), raw(keys.Keys[i]["y"]))))
	sum, signature := sha256.Sum256([]byte(part[0]+"."+part[1])), raw(part[2])
	if len(signature) != 64 || !ecdsa.Verify(key, sum[:], new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])) {
		b.t.Error("the signature does not verify")
	}
	if err := json.Unmarshal(raw(part[1]), &s); err != nil || s.Iss != meta.Issuer || s.Aud != "bank" || s.Jti == "" || len(s.Events) != 1 || s.SubID.Format != "opaque" {
		b.t.Fatalf("%v %+v", err, s)
	}
	return s
}

// TestStreams goes the way of a receiver that knows the framework and nothing of us.
func TestStreams(t *testing.T) {
	b := newBench(t)
	var meta struct {
		Issuer, Streams string
		Configuration   string   `json:"configuration_endpoint"`
		Status          string   `json:"status_endpoint"`
		Verification    string   `json:"verification_endpoint"`
		Methods         []string `json:"delivery_methods_supported"`
	}
	b.into(b.send("GET", "/.well-known/ssf-configuration", nil, "Authorization", ""), 200, &meta)
	if meta.Issuer != transmitter || len(meta.Methods) != 2 {
		t.Errorf("%+v", meta)
	}
	at := func(url string) string { return strings.TrimPrefix(url, meta.Issuer) }
	var s aStream
	b.into(b.send("POST", at(meta.Configuration), object{"iss": "theirs", "aud": "theirs", "events_supported": []string{"x"}, "something": object{"new": 1}}), 201, &s)
	if s.Delivery.Method != "urn:ietf:rfc:8936" || s.Iss != transmitter || s.Aud != "bank" || len(s.Delivered) != 6 || len(s.Supported) != 7 {
		t.Fatalf("%+v", s)
	}
	id := s.ID
	poll := func(body object) (sets map[string]string, more bool) {
		t.Helper()
		var out struct {
			Sets map[string]string
			More bool `json:"moreAvailable"`
		}
		body["returnImmediately"] = true
		b.into(b.send("POST", at(s.Delivery.URL), body), 200, &out)
		return out.Sets, out.More
	}
	b.into(b.send("POST", at(meta.Verification), object{"stream_id": id, "state": "VGhpcw"}), 204, nil)
	sets, _ := poll(object{})
	for jti, text := range sets {
		if v := b.readSet(text); v.Jti != jti || v.SubID.ID != id || v.Events["https://schemas.openid.net/secevent/ssf/event-type/verification"].State != "VGhpcw" {
			t.Errorf("%+v", v)
		}
		sets, _ = poll(object{"ack": []string{jti}})
	}
	if len(sets) != 0 {
		t.Errorf("%v", sets)
	}
	b.happen(5)
	sets, more := poll(object{"maxEvents": 2})
	if len(sets) != 2 || !more {
		t.Fatalf("%v %v", sets, more)
	}
	var acks []string
	errs := object{}
	for jti, text := range sets {
		v := b.readSet(text)
		for kind, e := range v.Events {
			if v.SubID.ID != someUser || e.Sequence < 1 || e.Sequence > 2 || !strings.Contains(kind, "#event-") {
				t.Errorf("%+v", v)
			}
			if e.Sequence == 2 {
				errs[jti] = object{"err": "invalid_key", "description": "who are you"}
			} else {
				acks = append(acks, jti)
			}
		}
	}
	if sets, more = poll(object{"ack": acks, "setErrs": errs, "maxEvents": 0}); len(sets) != 0 || !more {
		t.Errorf("%v %v", sets, more)
	}
	var letters struct {
		Dead []struct {
			Sequence int64
			Failure  string
		} `json:"dead_letters"`
		Waiting int64
	}
	b.into(b.send("GET", "/v1/endpoints/"+id+"/dead-letters", nil), 200, &letters)
	if len(letters.Dead) != 1 || letters.Dead[0].Sequence != 2 || letters.Dead[0].Failure != "set-invalid-key" || letters.Waiting != 3 {
		t.Errorf("%+v", letters)
	}
	// Paused, nothing comes; it comes later. Disabled, it does not.
	status := func(want string) {
		t.Helper()
		var got struct{ Status string }
		b.into(b.send("POST", at(meta.Status), object{"stream_id": id, "status": want}), 200, &got)
		b.into(b.send("GET", at(meta.Status)+"?stream_id="+id, nil), 200, &got)
		if got.Status != want {
			t.Errorf("%s, want %s", got.Status, want)
		}
	}
	status("paused")
	if sets, _ := poll(object{}); len(sets) != 0 {
		t.Error("paused, but something came")
	}
	status("enabled")
	if sets, _ := poll(object{}); len(sets) != 3 {
		t.Errorf("%d came", len(sets))
	}
	status("disabled")
	b.happen(1)
	status("enabled")
	if sets, _ := poll(object{}); len(sets) != 0 {
		t.Errorf("%d came of what happened before", len(sets))
	}
	b.wantProblem(b.send("POST", at(meta.Status), object{"stream_id": id, "status": "asleep"}), jpki.Malformed)
	// Only what was asked for.
	const caep = "https://schemas.openid.net/secevent/caep/event-type/credential-change"
	b.into(b.send("PATCH", at(meta.Configuration), object{"stream_id": id, "events_requested": []string{caep, "urn:unknown"}}), 200, &s)
	if !slices.Equal(s.Delivered, []string{caep}) {
		t.Errorf("%+v", s)
	}
	b.happen(5) // one of them renewed, one ended
	if sets, _ = poll(object{}); len(sets) != 2 {
		t.Errorf("%d came", len(sets))
	}
	// To push, and its secret is not told.
	b.into(b.send("PATCH", at(meta.Configuration), object{"stream_id": id, "delivery": object{"method": "urn:ietf:rfc:8935", "endpoint_url": "https://bank.example/set", "authorization_header": "Bearer sesame"}}), 200, &s)
	a := b.send("GET", at(meta.Configuration)+"?stream_id="+id, nil)
	if s.Delivery.Method != "urn:ietf:rfc:8935" || strings.Contains(string(a.body), "sesame") {
		t.Errorf("%s", a.body)
	}
	b.into(b.send("PUT", at(meta.Configuration), object{"stream_id": id}), 200, &s)
	if s.Delivery.Method != "urn:ietf:rfc:8936" || len(s.Delivered) != 6 {
		t.Errorf("%+v", s)
	}
	b.wantProblem(b.send("PATCH", at(meta.Configuration), object{"stream_id": id, "delivery": object{"method": "carrier pigeon"}}), jpki.Malformed)
	b.wantProblem(b.send("PATCH", at(meta.Configuration), object{"stream_id": id}, "Authorization", "Bearer "+telecomToken), jpki.NotFound)
	b.into(b.send("DELETE", at(meta.Configuration)+"?stream_id="+id, nil), 204, nil)
	var all []aStream
	b.into(b.send("GET", at(meta.Configuration), nil), http.StatusOK, &all)
	if len(all) != 0 {
		t.Errorf("%+v", all)
	}
}
