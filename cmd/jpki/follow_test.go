package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/client"
	"github.com/openjpki/jpki/ca/store/storetest"
	"github.com/openjpki/jpki/cmd/internal/sandbox"
	verifierclient "github.com/openjpki/jpki/verifier/client"
	verifierstore "github.com/openjpki/jpki/verifier/store"
)

const (
	bankNumber    jpki.CorporateNumber = "9999999999999"
	telecomNumber jpki.CorporateNumber = "8700110005901"
)

// An arrival is a message that a receiver took.
type arrival struct {
	id       string
	sequence int64
	user     string
}

// arrivals are what one receiver took, in the order in which it came.
type arrivals struct {
	mu   sync.Mutex
	list []arrival
	down atomic.Bool
}

func (a *arrivals) take(x arrival) { a.mu.Lock(); defer a.mu.Unlock(); a.list = append(a.list, x) }

func (a *arrivals) distinct() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	seen := map[string]bool{}
	for _, x := range a.list {
		seen[x.id] = true
	}
	return len(seen)
}

// has reports whether all of a feed came.
func (a *arrivals) has(feed []arrival) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return !slices.ContainsFunc(feed, func(x arrival) bool { return !slices.Contains(a.list, x) })
}

// check compares with the feed: nothing is missing, what is new comes in order, and what comes twice has its identifier.
func (a *arrivals) check(t *testing.T, name string, feed []arrival) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	var fresh []arrival
	for _, x := range a.list {
		if !slices.ContainsFunc(fresh, func(y arrival) bool { return y.id == x.id }) {
			fresh = append(fresh, x)
		}
	}
	if !slices.Equal(fresh, feed) {
		t.Errorf("%s got %v, the feed has %v", name, fresh, feed)
	}
	t.Logf("%s: %d changes in %d deliveries", name, len(fresh), len(a.list))
}

// webhooks is a receiver of Standard Webhooks.
func (a *arrivals) webhooks(t *testing.T, secret func() string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a.down.Load() {
			panic(http.ErrAbortHandler)
		}
		body, _ := io.ReadAll(r.Body)
		key, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret(), "whsec_"))
		h := hmac.New(sha256.New, key)
		fmt.Fprintf(h, "%s.%s.%s", r.Header.Get("webhook-id"), r.Header.Get("webhook-timestamp"), body)
		if r.Header.Get("webhook-signature") != "v1,"+base64.StdEncoding.EncodeToString(h.Sum(nil)) {
			t.Error("a webhook's signature does not verify")
		}
		var m struct {
			Data struct {
				Sequence int64
				User     string
			}
		}
		if err := json.Unmarshal(body, &m); err != nil {
			t.Error(err)
		}
		a.take(arrival{r.Header.Get("webhook-id"), m.Data.Sequence, m.Data.User})
	})
}

// signals is a receiver of pushed Security Event Tokens that knows RFCs 7515, 7517, 7518, 8417, 8935 and 9493 and nothing of ours.
func (a *arrivals) signals(t *testing.T, transmitter, audience string) http.Handler {
	get := func(url string, into any) error {
		resp, err := http.Get(url) //nolint:gosec // G107: of the transmitter that the test started
		if err != nil {
			return err
		}
		defer func() { _ = resp.Body.Close() }()
		return json.NewDecoder(resp.Body).Decode(into)
	}
	raw := func(s string) []byte { b, _ := base64.RawURLEncoding.DecodeString(s); return b }
	verify := func(text string) (claims struct {
		Iss, Aud, Jti string
		SubID         struct{ Format, ID string } `json:"sub_id"`
		Events        map[string]struct{ Sequence int64 }
	}, err error,
	) {
		part := strings.Split(text, ".")
		if len(part) != 3 {
			return claims, fmt.Errorf("%d parts", len(part))
		}
		var header struct{ Alg, Typ, Kid string }
		var meta struct {
			Issuer string
			Keys   string `json:"jwks_uri"`
		}
		var set struct {
			Keys []struct{ Kty, Crv, X, Y, Kid string }
		}
		if err := json.Unmarshal(raw(part[0]), &header); err != nil {
			return claims, err
		}
		if err := get(transmitter+"/.well-known/ssf-configuration", &meta); err != nil {
			return claims, err
		}
		if err := get(meta.Keys, &set); err != nil {
			return claims, err
		}
		for _, k := range set.Keys {
			if k.Kid != header.Kid || k.Crv != "P-256" || header.Alg != "ES256" || header.Typ != "secevent+jwt" {
				continue
			}
			key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), slices.Concat([]byte{4}, raw(k.X), raw(k.Y)))
			if err != nil {
				return claims, err
			}
			sum, s := sha256.Sum256([]byte(part[0]+"."+part[1])), raw(part[2])
			if len(s) != 64 || !ecdsa.Verify(key, sum[:], new(big.Int).SetBytes(s[:32]), new(big.Int).SetBytes(s[32:])) {
				return claims, fmt.Errorf("the signature does not verify")
			}
			if err := json.Unmarshal(raw(part[1]), &claims); err != nil {
				return claims, err
			}
			if claims.Iss != meta.Issuer || claims.Aud != audience || claims.SubID.Format != "opaque" || len(claims.Events) != 1 {
				return claims, fmt.Errorf("%+v", claims)
			}
			return claims, nil
		}
		return claims, fmt.Errorf("no key %s", header.Kid)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if a.down.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		claims, err := verify(string(body))
		if err != nil {
			// The server was killed, and the keys cannot be asked for: RFC 8935 leaves it to the transmitter to send again.
			t.Logf("not verified yet: %v", err)
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		for _, e := range claims.Events {
			a.take(arrival{claims.Jti, e.Sequence, claims.SubID.ID})
		}
		w.WriteHeader(http.StatusAccepted)
	})
}

// TestTenantsAreTold: whatever is killed, cut off or down, each tenant's feed and receivers have every change that the authority told,
// once under its identifier and in order; and no two tenants can tell that they follow the same person.
func TestTenantsAreTold(t *testing.T) {
	if testing.Short() {
		t.Skip("kills and restarts")
	}
	cluster := storetest.NewCluster(t)
	dir := t.TempDir()
	var p *process
	t.Cleanup(func() { p.kill() })
	run := func(offset int) sandbox.Env {
		t.Helper()
		var err error
		if p, err = launch(dir, offset, "-verifier-database", cluster.URL("postgres")); err != nil {
			t.Fatal(err)
		}
		// Whatever breaks then, the story must have ended: it would end the sandbox.
		if err := p.waitFor(func() bool { return strings.Contains(p.out.String(), "steps held") }); err != nil {
			t.Fatal(err)
		}
		env, err := sandbox.Load(dir)
		if err != nil {
			t.Fatal(err)
		}
		return env
	}
	env := run(0)

	// Two tenants who follow the same people.
	if out, stderr, code := tool(t, "relying-party", "add", "-dir", dir, "-operator", "verifier-1", "-tenant", string(telecomNumber), "-name", "砂箱電話", "-uses", "signature,authentication"); code != 0 {
		t.Fatalf("exit code %d: %s%s", code, out, stderr)
	}
	tokens := map[jpki.CorporateNumber]string{bankNumber: env.VerifierToken, telecomNumber: addTenant(t, dir, cluster.URL("postgres"))}
	api := map[jpki.CorporateNumber]*verifierclient.Client{}
	for number, token := range tokens {
		c, err := verifierclient.New(verifierclient.Config{URL: env.VerifierURL, Token: token})
		if err != nil {
			t.Fatal(err)
		}
		api[number] = c
	}
	orders := makeOrders(t, 16)
	register(t, env, orders)
	station, err := env.Station()
	if err != nil {
		t.Fatal(err)
	}
	operator, err := env.RelyingParty()
	if err != nil {
		t.Fatal(err)
	}
	watches := map[jpki.CorporateNumber][]verifierclient.Watch{}
	for _, o := range orders {
		got, err := station.Issue(t.Context(), o.key, o.CertificateOrder)
		if err != nil {
			t.Fatal(err)
		}
		for number := range api {
			for _, c := range got.Certificates {
				known, err := operator.Identify(t.Context(), client.IdentityRequest{Tenant: number, Purpose: "account", Certificate: c.Certificate})
				if err != nil {
					t.Fatal(err)
				}
				watches[number] = append(watches[number], verifierclient.Watch{User: known.User, Purpose: "account"})
			}
		}
	}
	var bank, telecom arrivals
	var secret atomic.Pointer[string]
	for number, c := range api {
		if out, err := c.CreateWatches(t.Context(), watches[number]...); err != nil || len(out.Unknown) != 0 {
			t.Fatalf("%v %+v", err, out)
		}
	}
	hook := httptest.NewServer(bank.webhooks(t, func() string { return *secret.Load() }))
	defer hook.Close()
	stream := httptest.NewServer(telecom.signals(t, env.VerifierURL, "telecom"))
	defer stream.Close()
	e, err := api[bankNumber].CreateEndpoint(t.Context(), hook.URL, -1)
	if err != nil {
		t.Fatal(err)
	}
	secret.Store(&e.Secret)
	createStream(t, env, tokens[telecomNumber], stream.URL)

	// Cards are lost while things break. What the authority has confirmed must arrive.
	lost := 0 // certificates
	lose := func(n int) {
		t.Helper()
		hotline, err := env.Hotline()
		if err != nil {
			t.Fatal(err)
		}
		for range n {
			if _, err := hotline.Suspend(t.Context(), "lose-"+orders[0].key, client.Change{Token: orders[0].Token, Cause: jpki.Lost}); err != nil {
				t.Fatal(err)
			}
			lost += len(orders[0].Requests)
			orders = orders[1:]
		}
	}
	await := func(what string, done func() bool) {
		t.Helper()
		for deadline := time.Now().Add(4 * patience); !done(); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s does not come\n%s", what, p.out.String())
			}
		}
	}
	lose(3)
	await("the first change", func() bool { return bank.distinct() >= 3 && telecom.distinct() >= 3 })
	bank.down.Store(true)
	lose(4)
	p.kill() // the first time
	env = run(p.offset)
	lose(2)
	cluster.Stop()
	lose(3)
	cluster.Start()
	lose(2)
	p.kill() // the second time
	env = run(p.offset)
	lose(2)
	bank.down.Store(false)

	// The truth is what the authority told.
	told := map[jpki.CorporateNumber][]string{}
	for after := int64(0); ; {
		page, err := operator.Changes(t.Context(), after, 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		if len(told[bankNumber]) >= lost && len(told[telecomNumber]) >= lost {
			break
		}
		if len(page.Changes) == 0 { // not derived yet
			time.Sleep(20 * time.Millisecond)
		}
		for _, c := range page.Changes {
			if c.Purpose == "account" && slices.ContainsFunc(watches[c.Tenant], func(w verifierclient.Watch) bool { return w.User == c.User }) {
				told[c.Tenant] = append(told[c.Tenant], strings.Join([]string{c.User, string(c.Class), string(c.Kind), c.At.String()}, " "))
			}
		}
		after = page.Next
	}
	if len(told[bankNumber]) != lost || len(told[telecomNumber]) != lost {
		t.Fatalf("the authority told %d and %d changes of %d", len(told[bankNumber]), len(told[telecomNumber]), lost)
	}
	feeds := map[jpki.CorporateNumber][]arrival{}
	for number, c := range api {
		ours := func(ch verifierclient.Change) bool { // and not of the story's customers
			return slices.ContainsFunc(watches[number], func(w verifierclient.Watch) bool { return w.User == ch.User })
		}
		page := &verifierclient.ChangePage{}
		await("the feed", func() bool {
			var err error
			if page, err = c.Changes(t.Context(), 0, 0, 0); err != nil {
				return false
			}
			n := 0
			for _, ch := range page.Changes {
				if ours(ch) {
					n++
				}
			}
			return n >= lost
		})
		var got []string
		for i, ch := range page.Changes {
			if ch.Sequence != int64(i+1) {
				t.Errorf("sequence %d at place %d", ch.Sequence, i+1)
			}
			if ours(ch) {
				got = append(got, strings.Join([]string{ch.User, string(ch.Class), string(ch.Kind), ch.At.String()}, " "))
				feeds[number] = append(feeds[number], arrival{ch.ID, ch.Sequence, ch.User})
			}
		}
		if !slices.Equal(got, told[number]) {
			t.Errorf("feed of %s has %v, the authority told %v", number, got, told[number])
		}
	}
	await("the rest", func() bool { return bank.has(feeds[bankNumber]) && telecom.has(feeds[telecomNumber]) })
	bank.mu.Lock()
	bank.list = slices.DeleteFunc(bank.list, func(x arrival) bool { // of the stories that were told after the kills
		return !slices.ContainsFunc(watches[bankNumber], func(w verifierclient.Watch) bool { return w.User == x.user })
	})
	bank.mu.Unlock()
	bank.check(t, "the bank's webhook", feeds[bankNumber])
	telecom.check(t, "the telecom's stream", feeds[telecomNumber])

	// What two tenants have is not comparable, and the log has nobody's pseudonym.
	for _, x := range feeds[bankNumber] {
		if slices.ContainsFunc(feeds[telecomNumber], func(y arrival) bool { return x.id == y.id || x.user == y.user }) {
			t.Errorf("the tenants have %v in common", x)
		}
	}
	log, err := os.ReadFile(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range feeds[bankNumber] {
		if bytes.Contains(log, []byte(x.user)) {
			t.Error("a pseudonym is in the log")
		}
	}
	p.end(t)
}

// addTenant makes the telecom a tenant of the verifier and returns its token.
func addTenant(t *testing.T, dir, database string) string {
	t.Helper()
	key, err := sandbox.ReadMasterKey(filepath.Join(dir, "verifier", "master.key"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := verifierstore.Open(t.Context(), verifierstore.Config{Database: database, MasterKey: key})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if err := s.AddTenant(t.Context(), verifierstore.Tenant{ID: telecomNumber, Name: "telecom"}, time.Now()); err != nil {
		t.Fatal(err)
	}
	_, token, err := s.AddToken(t.Context(), telecomNumber, verifierstore.Scopes(), time.Time{}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// createStream asks for tokens to be pushed, as the framework says.
func createStream(t *testing.T, env sandbox.Env, token, url string) {
	t.Helper()
	body := strings.NewReader(`{"delivery":{"method":"urn:ietf:rfc:8935","endpoint_url":` + strconv.Quote(url) + `}}`)
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, env.VerifierURL+"/v1/ssf/streams", body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if text, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusCreated {
		t.Fatalf("status %d: %s", resp.StatusCode, text)
	}
}
