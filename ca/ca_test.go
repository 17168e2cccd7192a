package ca_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/ca/store/storetest"
)

var (
	counter  = jpki.Actor{Role: jpki.Counter, ID: "aoba-1", Municipality: "99101"}
	other    = jpki.Actor{Role: jpki.Counter, ID: "minato-1", Municipality: "99202"}
	centre   = jpki.Actor{Role: jpki.CallCentre, ID: "hotline"}
	register = jpki.Actor{Role: jpki.Register, ID: "juki"}
)

// keys are made once for the whole run, several at a time: RSA keys are slow to make. Each world uses them from the first.
var (
	keysMu   sync.Mutex
	keys     []*rsa.PrivateKey
	requests [][]byte // certification requests of the keys
)

func key(t testing.TB, n int) *rsa.PrivateKey {
	t.Helper()
	keysMu.Lock()
	defer keysMu.Unlock()
	for len(keys) <= n {
		var made [8]*rsa.PrivateKey
		var failed [len(made)]error
		var wg sync.WaitGroup
		for i := range made {
			wg.Go(func() { made[i], failed[i] = rsa.GenerateKey(rand.Reader, 2048) })
		}
		wg.Wait()
		if err := errors.Join(failed[:]...); err != nil {
			t.Fatal(err)
		}
		for _, k := range made {
			keys, requests = append(keys, k), append(requests, csr(t, k))
		}
	}
	return keys[n]
}

// keyRequest returns the certification request of a key.
func keyRequest(t testing.TB, n int) []byte {
	t.Helper()
	key(t, n)
	keysMu.Lock()
	defer keysMu.Unlock()
	return slices.Clone(requests[n])
}

func csr(t testing.TB, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// A world is an authority on a fresh database with a clock that the test turns.
type world struct {
	t        *testing.T
	db       *store.Store
	a        *ca.Authority
	fault    func(format string, args ...any) // reports what a check finds
	profile  *ca.Profile
	issuers  []ca.Issuer // that issue
	now      time.Time
	nextKey  int
	nextName int

	generations []ca.Issuer // all there ever were
	people      []string
	high        time.Time // the latest time so far
	public      *public
}

var signers = sync.OnceValue(func() []crypto.Signer {
	var out []crypto.Signer
	for range 10 { // five generations
		k, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err)
		}
		out = append(out, k)
	}
	return out
})

func newWorld(t *testing.T, db *store.Store) *world {
	t.Helper()
	w := &world{t: t, fault: t.Errorf, db: db, profile: ca.Sandbox(), now: time.Date(2026, 4, 1, 9, 0, 0, 0, jpki.JST)}
	w.generation(1, w.now.AddDate(0, -1, 0))
	w.register("h1", "99101", jpki.NewBirthDate(1980, 2, 17))
	return w
}

// generation makes a generation of both CAs, from which on it is the one that issues.
func (w *world) generation(n int, from time.Time) {
	w.t.Helper()
	w.issuers = nil
	for i, name := range jpki.CAs {
		key := signers()[2*(n-1)+i]
		cert, err := ca.SelfSigned(w.profile, name, key, must(jpki.NewSerial(rand.Reader)), from)
		if err != nil {
			w.t.Fatal(err)
		}
		w.issuers = append(w.issuers, ca.Issuer{ID: jpki.IssuerID{CA: name, Generation: n}, Certificate: cert, Signer: key})
	}
	w.generations = append(w.generations, w.issuers...)
	err := w.db.Update(w.t.Context(), func(tx *store.Tx) error {
		for _, i := range w.issuers {
			if err := tx.AddGeneration(store.Generation{Issuer: i.ID, Certificate: i.Certificate.Raw, Active: n == 1}, w.now); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.restart(w.issuers)
}

// restart makes a new authority on the same database.
func (w *world) restart(issuers []ca.Issuer) {
	w.t.Helper()
	w.restartWith(issuers, func(*ca.Config) {})
}

// restartWith is restart with a configuration of its own.
func (w *world) restartWith(issuers []ca.Issuer, change func(*ca.Config)) {
	w.t.Helper()
	c := ca.Config{Store: w.db, Profile: w.profile, Issuers: issuers, StatusURL: "http://status.example", Now: func() time.Time { return w.now }, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler)}
	change(&c)
	a, err := ca.New(c)
	if err != nil {
		w.t.Fatal(err)
	}
	w.a = a
}

// name returns a name not used before.
func (w *world) name() string { w.nextName++; return fmt.Sprint("k", w.nextName) }

func attributes(born jpki.BirthDate) *jpki.Attributes {
	return &jpki.Attributes{Name: "砂場　花子", Sex: jpki.Female, BirthDate: born, Address: "砂箱県青葉市中央一丁目2番3号"}
}

// with returns the attributes of h1, changed.
func with(change func(*jpki.Attributes)) *jpki.Attributes {
	a := attributes(jpki.NewBirthDate(1980, 2, 17))
	change(a)
	return a
}

func (w *world) event(e jpki.Event) (ca.EventOutcome, error) {
	if e.ID == "" {
		e.ID = w.name()
	}
	if e.EffectiveAt.IsZero() {
		e.EffectiveAt = w.now
	}
	if e.Type == jpki.Registered && !slices.Contains(w.people, e.Holder) {
		w.people = append(w.people, e.Holder)
	}
	return w.a.ApplyResidentEvent(w.t.Context(), register, e)
}

func (w *world) register(holder, place string, born jpki.BirthDate) {
	w.t.Helper()
	if _, err := w.event(jpki.Event{Holder: holder, Type: jpki.Registered, Municipality: place, Attributes: attributes(born)}); err != nil {
		w.t.Fatal(err)
	}
}

// request asks for kinds on a token with new keys.
func (w *world) request(holder, token string, kinds ...jpki.Kind) ca.IssueRequest {
	w.t.Helper()
	r := ca.IssueRequest{IdempotencyKey: w.name(), Holder: holder, Token: token}
	for _, k := range kinds {
		r.Requests = append(r.Requests, ca.KeyRequest{Kind: k, Request: keyRequest(w.t, w.nextKey)})
		w.nextKey++
	}
	return r
}

func (w *world) issue(holder, token string, kinds ...jpki.Kind) []ca.Issued {
	w.t.Helper()
	out, err := w.a.Issue(w.t.Context(), counter, w.request(holder, token, kinds...))
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

func (w *world) state(id jpki.CertID) string {
	w.t.Helper()
	c, err := w.db.StatusOf(w.t.Context(), id)
	if err != nil {
		return string(jpki.ProblemOf(err))
	}
	if c.Status.State == jpki.Good {
		return "good"
	}
	return string(c.Status.State) + " " + c.Status.Reason.String()
}

func (w *world) expect(ids map[jpki.CertID]string) {
	w.t.Helper()
	for id, want := range ids {
		if got := w.state(id); got != want {
			w.t.Errorf("%s is %s, want %s", id, got, want)
		}
	}
}

func (w *world) change(do func(context.Context, jpki.Actor, ca.ChangeRequest) ([]ca.Changed, error), by jpki.Actor, r ca.ChangeRequest) ([]ca.Changed, error) {
	if r.IdempotencyKey == "" {
		r.IdempotencyKey = w.name()
	}
	return do(w.t.Context(), by, r)
}

func onBoth(t *testing.T, f func(w *world)) {
	storetest.OnBoth(t, func(t *testing.T, db *store.Store) {
		w := newWorld(t, db)
		f(w)
		w.check()
	})
}

func TestLifeOfACard(t *testing.T) {
	onBoth(t, func(w *world) {
		first := w.issue("h1", "card-1", jpki.CardSign, jpki.CardAuth)
		sign, auth := first[0].ID, first[1].ID
		w.expect(map[jpki.CertID]string{sign: "good", auth: "good"})
		if ids, err := w.a.Deliver(w.t.Context(), counter, w.name(), "card-1"); err != nil || len(ids) != 2 {
			w.t.Errorf("deliver: %v %v", ids, err)
		}
		if _, err := w.change(w.a.Suspend, centre, ca.ChangeRequest{Token: "card-1", Cause: jpki.Lost}); err != nil {
			w.t.Fatal(err)
		}
		w.expect(map[jpki.CertID]string{sign: "suspended certificateHold", auth: "suspended certificateHold"})
		if _, err := w.change(w.a.Resume, counter, ca.ChangeRequest{Token: "card-1", Cause: jpki.Found}); !errors.Is(err, jpki.ForbiddenChange) {
			w.t.Errorf("a card's suspension ended well: %v", err)
		}
		second := w.issue("h1", "card-2", jpki.CardSign, jpki.CardAuth)
		w.expect(map[jpki.CertID]string{sign: "revoked superseded", auth: "revoked superseded", second[0].ID: "good", second[1].ID: "good"})
		if second[0].Replaces == nil || *second[0].Replaces != sign || *second[1].Replaces != auth {
			w.t.Error("the new card's certificates do not continue the old one's lineage")
		}
		moved := jpki.Event{Holder: "h1", Type: jpki.AddressChanged, Municipality: "99202", Attributes: attributes(jpki.NewBirthDate(1980, 2, 17))}
		out, err := w.event(moved)
		if err != nil || len(out.Changed) != 1 {
			w.t.Fatalf("move: %v %v", out, err)
		}
		w.expect(map[jpki.CertID]string{second[0].ID: "revoked affiliationChanged", second[1].ID: "good"})
		again, err := w.a.Issue(w.t.Context(), other, w.request("h1", "card-2", jpki.CardSign))
		if err != nil {
			w.t.Fatal(err)
		}
		w.expect(map[jpki.CertID]string{again[0].ID: "good"})
		if *again[0].Replaces != second[0].ID {
			w.t.Error("the signature certificate after the move does not continue the lineage")
		}
		cert, _ := x509.ParseCertificate(again[0].Certificate)
		if !slices.Contains(cert.Subject.Locality, "Minato-shi") {
			w.t.Errorf("issued for %v after the move", cert.Subject.Locality)
		}
		if _, err := w.event(jpki.Event{Holder: "h1", Type: jpki.Death}); err != nil {
			w.t.Fatal(err)
		}
		w.expect(map[jpki.CertID]string{again[0].ID: "revoked cessationOfOperation", second[1].ID: "revoked cessationOfOperation"})
		if _, err := w.a.Issue(w.t.Context(), other, w.request("h1", "card-2", jpki.CardAuth)); !errors.Is(err, jpki.NotEligible) {
			w.t.Errorf("issued to the dead: %v", err)
		}
	})
}

func TestPhonesHangOnTheCard(t *testing.T) {
	onBoth(t, func(w *world) {
		card := w.issue("h1", "card-1", jpki.CardSign, jpki.CardAuth)
		phone := w.request("h1", "phone-1", jpki.PhoneSign, jpki.PhoneAuth)
		if _, err := w.a.Issue(w.t.Context(), counter, phone); !errors.Is(err, jpki.Malformed) {
			w.t.Errorf("a phone without a parent: %v", err)
		}
		phone.Parent = &card[1].ID
		if _, err := w.a.Issue(w.t.Context(), counter, phone); !errors.Is(err, jpki.Forbidden) {
			w.t.Errorf("a phone under an authentication certificate: %v", err)
		}
		phone.Parent = &card[0].ID
		got, err := w.a.Issue(w.t.Context(), counter, phone)
		if err != nil {
			w.t.Fatal(err)
		}
		sign, auth := got[0].ID, got[1].ID
		if !got[0].NotAfter.Equal(card[0].NotAfter) || !got[1].NotAfter.Equal(card[0].NotAfter) {
			w.t.Errorf("the phone's certificates end %v and %v, the card's %v", got[0].NotAfter, got[1].NotAfter, card[0].NotAfter)
		}
		if _, err := w.change(w.a.Suspend, centre, ca.ChangeRequest{Token: "phone-1", Cause: jpki.Lost}); err != nil {
			w.t.Fatal(err)
		}
		w.expect(map[jpki.CertID]string{card[0].ID: "good", card[1].ID: "good", sign: "suspended certificateHold", auth: "suspended certificateHold"})
		changed, err := w.change(w.a.Resume, counter, ca.ChangeRequest{Token: "phone-1", Cause: jpki.Found})
		if err != nil || len(changed) != 1 || changed[0].ID != auth {
			w.t.Errorf("found again: %v %v", changed, err)
		}
		w.expect(map[jpki.CertID]string{sign: "suspended certificateHold", auth: "good"})
		if _, err := w.event(jpki.Event{Holder: "h1", Type: jpki.NameChanged, Attributes: with(func(a *jpki.Attributes) { a.Name = "新名　花子" })}); err != nil {
			w.t.Fatal(err)
		}
		w.expect(map[jpki.CertID]string{card[0].ID: "revoked affiliationChanged", card[1].ID: "good", sign: "revoked affiliationChanged", auth: "good"})
	})
}

func TestRenewal(t *testing.T) {
	onBoth(t, func(w *world) {
		old := w.issue("h1", "card-1", jpki.CardSign, jpki.CardAuth)
		if want := time.Date(2031, 2, 17, 23, 59, 59, 0, jpki.JST); !old[0].NotAfter.Equal(want) {
			w.t.Errorf("ends %v, want %v", old[0].NotAfter, want)
		}
		renew := func() ([]ca.Issued, error) {
			return w.a.Renew(w.t.Context(), counter, w.request("h1", "card-1", jpki.CardSign, jpki.CardAuth))
		}
		if _, err := renew(); !errors.Is(err, jpki.NotRenewable) {
			w.t.Errorf("renewed on the day of issue: %v", err)
		}
		w.now = time.Date(2030, 11, 17, 0, 0, 0, 0, jpki.JST).Add(-time.Second)
		if _, err := renew(); !errors.Is(err, jpki.NotRenewable) {
			w.t.Errorf("renewed a second before the window: %v", err)
		}
		w.now = w.now.Add(time.Second)
		next, err := renew()
		if err != nil {
			w.t.Fatal(err)
		}
		if want := time.Date(2036, 2, 17, 14, 59, 59, 0, time.UTC); !next[1].NotAfter.Equal(want) && !next[1].NotAfter.Equal(w.issuers[1].Certificate.NotAfter) {
			w.t.Errorf("the renewed certificate ends %v, want the sixth birthday %v", next[1].NotAfter, want)
		}
		w.expect(map[jpki.CertID]string{old[0].ID: "revoked superseded", old[1].ID: "revoked superseded", next[0].ID: "good", next[1].ID: "good"})
		if *next[0].Replaces != old[0].ID {
			w.t.Error("lineage is broken")
		}
	})
}

func TestARepeatedRequestGetsTheSameCertificates(t *testing.T) {
	onBoth(t, func(w *world) {
		req := w.request("h1", "card-1", jpki.CardSign, jpki.CardAuth)
		first, err := w.a.Issue(w.t.Context(), counter, req)
		if err != nil {
			w.t.Fatal(err)
		}
		w.restart(w.issuers)
		second, err := w.a.Issue(w.t.Context(), counter, req)
		if err != nil || len(second) != 2 || !slices.Equal(first[0].Certificate, second[0].Certificate) || first[1].ID != second[1].ID {
			w.t.Errorf("repeated: %v %v", second, err)
		}
		changed := w.request("h1", "card-1", jpki.CardAuth)
		changed.IdempotencyKey = req.IdempotencyKey
		if _, err := w.a.Issue(w.t.Context(), counter, changed); !errors.Is(err, jpki.IdempotencyReused) {
			w.t.Errorf("another body: %v", err)
		}
		if _, err := w.a.Renew(w.t.Context(), counter, req); !errors.Is(err, jpki.IdempotencyReused) {
			w.t.Errorf("another command: %v", err)
		}
		lost := ca.ChangeRequest{IdempotencyKey: "lost", Token: "card-1", Cause: jpki.Lost}
		a, err := w.change(w.a.Suspend, centre, lost)
		if err != nil {
			w.t.Fatal(err)
		}
		b, err := w.change(w.a.Suspend, centre, lost)
		if err != nil || len(a) != len(b) || a[0].ID != b[0].ID || !a[0].Status.Since.Equal(b[0].Status.Since) {
			w.t.Errorf("suspended twice: %v, then %v %v", a, b, err)
		}
	})
}

func TestRequestsThatAreRefused(t *testing.T) {
	onBoth(t, func(w *world) {
		w.issue("h1", "card-1", jpki.CardSign, jpki.CardAuth)
		w.register("child", "99101", jpki.NewBirthDate(2011, 4, 2))
		w.register("adult", "99101", jpki.NewBirthDate(2011, 4, 1))
		w.register("ward", "99101", jpki.NewBirthDate(1950, 1, 1))
		if _, err := w.event(jpki.Event{Holder: "ward", Type: jpki.GuardianshipBegan}); err != nil {
			w.t.Fatal(err)
		}
		stay := w.now.Add(-time.Hour)
		if _, err := w.event(jpki.Event{Holder: "guest", Type: jpki.Registered, Municipality: "99101", Attributes: attributes(jpki.NewBirthDate(1990, 1, 1)), StayUntil: &stay}); err != nil {
			w.t.Fatal(err)
		}
		small, err := rsa.GenerateKey(rand.Reader, 1024) //nolint:gosec // must be refused
		if err != nil {
			w.t.Fatal(err)
		}
		with := func(r ca.IssueRequest, f func(*ca.IssueRequest)) ca.IssueRequest { f(&r); return r }
		fresh := func() ca.IssueRequest { return w.request("h1", "card-9", jpki.CardAuth) }
		before := len(must(w.db.StatusChanges(w.t.Context(), 0, 1000)))
		for name, c := range map[string]struct {
			by   jpki.Actor
			req  ca.IssueRequest
			want jpki.Problem
		}{
			"no idempotency key":     {counter, with(fresh(), func(r *ca.IssueRequest) { r.IdempotencyKey = "" }), jpki.MissingIdempotency},
			"odd idempotency key":    {counter, with(fresh(), func(r *ca.IssueRequest) { r.IdempotencyKey = "a b" }), jpki.Malformed},
			"My Number as holder":    {counter, with(fresh(), func(r *ca.IssueRequest) { r.Holder = "123456789018" }), jpki.MyNumberPresent},
			"no requests":            {counter, with(fresh(), func(r *ca.IssueRequest) { r.Requests = nil }), jpki.Malformed},
			"unknown kind":           {counter, with(fresh(), func(r *ca.IssueRequest) { r.Requests[0].Kind = "x" }), jpki.Malformed},
			"one kind twice":         {counter, w.request("h1", "card-9", jpki.CardAuth, jpki.CardAuth), jpki.Malformed},
			"card and phone at once": {counter, w.request("h1", "card-9", jpki.CardAuth, jpki.PhoneSign), jpki.Malformed},
			"garbage for a request":  {counter, with(fresh(), func(r *ca.IssueRequest) { r.Requests[0].Request = []byte("garbage") }), jpki.Malformed},
			"huge request":           {counter, with(fresh(), func(r *ca.IssueRequest) { r.Requests[0].Request = make([]byte, 9000) }), jpki.TooLarge},
			"wrong proof":            {counter, with(fresh(), func(r *ca.IssueRequest) { d := r.Requests[0].Request; d[len(d)-1] ^= 1 }), jpki.BadRequestProof},
			"small key":              {counter, with(fresh(), func(r *ca.IssueRequest) { r.Requests[0].Request = csr(w.t, small) }), jpki.WeakKey},
			"one key for both":       {counter, with(w.request("h1", "card-9", jpki.CardSign, jpki.CardAuth), func(r *ca.IssueRequest) { r.Requests[1].Request = r.Requests[0].Request }), jpki.KeyReused},
			"key of another":         {counter, with(fresh(), func(r *ca.IssueRequest) { r.Requests[0].Request = csr(w.t, key(w.t, 0)) }), jpki.KeyReused},
			"unknown holder":         {counter, w.request("nobody", "card-9", jpki.CardAuth), jpki.UnknownHolder},
			"wrong municipality":     {other, fresh(), jpki.WrongMunicipality},
			"call centre":            {centre, fresh(), jpki.Forbidden},
			"another's card":         {counter, w.request("child", "card-1", jpki.CardAuth), jpki.Forbidden},
			"already certified":      {counter, w.request("h1", "card-1", jpki.CardAuth), jpki.AlreadyCertified},
			"too young to sign":      {counter, w.request("child", "card-c", jpki.CardSign), jpki.NotEligible},
			"under guardianship":     {counter, w.request("ward", "card-w", jpki.CardSign), jpki.NotEligible},
			"stay is over":           {counter, w.request("guest", "card-g", jpki.CardAuth), jpki.NoValidityLeft},
		} {
			if _, err := w.a.Issue(w.t.Context(), c.by, c.req); jpki.ProblemOf(err) != c.want {
				w.t.Errorf("%s: got %v, want %s", name, err, c.want)
			}
		}
		if after := len(must(w.db.StatusChanges(w.t.Context(), 0, 1000))); after != before {
			w.t.Errorf("refused requests left %d entries in the status log", after-before)
		}
		for holder, kind := range map[string]jpki.Kind{"child": jpki.CardAuth, "adult": jpki.CardSign, "ward": jpki.CardAuth} {
			if _, err := w.a.Issue(w.t.Context(), counter, w.request(holder, "card-"+holder, kind)); err != nil {
				w.t.Errorf("%s may have a %s certificate: %v", holder, kind, err)
			}
		}
	})
}

// A signer that stops in the middle: nothing is issued, the number is burnt and answered for, the request can be repeated.
type brokenSigner struct{ crypto.Signer }

func (brokenSigner) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("token was removed")
}

type lyingSigner struct{ crypto.Signer }

func (s lyingSigner) Sign(r io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	sig, err := s.Signer.Sign(r, digest, o)
	sig[7] ^= 0x10
	return sig, err
}

func TestWhenTheSignerFails(t *testing.T) {
	for name, c := range map[string]struct {
		which int // of the two signatures
		wrap  func(crypto.Signer) crypto.Signer
	}{
		"gone at the first":   {0, func(s crypto.Signer) crypto.Signer { return brokenSigner{s} }},
		"gone at the second":  {1, func(s crypto.Signer) crypto.Signer { return brokenSigner{s} }},
		"wrong at the first":  {0, func(s crypto.Signer) crypto.Signer { return lyingSigner{s} }},
		"wrong at the second": {1, func(s crypto.Signer) crypto.Signer { return lyingSigner{s} }},
	} {
		t.Run(name, func(t *testing.T) {
			onBoth(t, func(w *world) {
				issuers := slices.Clone(w.issuers)
				issuers[c.which].Signer = c.wrap(issuers[c.which].Signer)
				w.restart(issuers)
				req := w.request("h1", "card-1", jpki.CardSign, jpki.CardAuth)
				if got, err := w.a.Issue(w.t.Context(), counter, req); err == nil {
					w.t.Fatalf("issued %v", got)
				}
				burnt := must(w.db.StatusChanges(w.t.Context(), 0, 10))
				if len(burnt) != 2 || w.state(burnt[0].ID) != "revoked unspecified" || w.state(burnt[1].ID) != "revoked unspecified" {
					w.t.Errorf("status log after the failure: %v", burnt)
				}
				w.restart(w.issuers)
				got, err := w.a.Issue(w.t.Context(), counter, req)
				if err != nil {
					w.t.Fatal(err)
				}
				w.expect(map[jpki.CertID]string{got[0].ID: "good", got[1].ID: "good"})
			})
		})
	}
}

// A crash between the transactions: what the dead process began is ended by the next one.
func TestReconcileEndsWhatACrashLeft(t *testing.T) {
	onBoth(t, func(w *world) {
		id := jpki.CertID{Issuer: jpki.IssuerID{CA: jpki.AuthCA, Generation: 1}, Serial: must(jpki.NewSerial(rand.Reader))}
		w.issue("h1", "card-1", jpki.CardSign)
		err := w.db.Update(w.t.Context(), func(tx *store.Tx) error {
			if _, _, err := tx.BeginOnce(counter.String(), "dead", "hash", w.now); err != nil {
				return err
			}
			return tx.AddIntent(store.Intent{ID: id, Kind: jpki.CardAuth, Holder: "h1", Token: "card-1", Partition: "99101", NotAfter: w.now.AddDate(5, 0, 0), Actor: counter.String(), IdemKey: "dead", CreatedAt: w.now})
		})
		if err != nil {
			w.t.Fatal(err)
		}
		if n, err := w.a.Reconcile(w.t.Context(), time.Minute); n != 0 || err != nil {
			w.t.Errorf("ended an issuance that may still go on: %d %v", n, err)
		}
		w.expect(map[jpki.CertID]string{id: string(jpki.UnknownCertificate)})
		w.now = w.now.Add(time.Minute)
		if n, err := w.a.Reconcile(w.t.Context(), time.Minute); n != 1 || err != nil {
			w.t.Errorf("reconcile: %d %v", n, err)
		}
		w.expect(map[jpki.CertID]string{id: "revoked unspecified"})
		req := w.request("h1", "card-1", jpki.CardAuth)
		req.IdempotencyKey = "dead"
		if _, err := w.a.Issue(w.t.Context(), counter, req); err != nil {
			w.t.Errorf("repeated after the crash: %v", err)
		}
	})
}

func TestRacesHaveOneWinner(t *testing.T) {
	onBoth(t, func(w *world) {
		const n = 6
		requests := make([]ca.IssueRequest, n)
		for i := range requests {
			requests[i] = w.request("h1", "card-1", jpki.CardAuth)
		}
		var wg sync.WaitGroup
		var mu sync.Mutex
		var won []ca.Issued
		for _, r := range requests {
			wg.Go(func() {
				got, err := w.a.Issue(context.Background(), counter, r)
				mu.Lock()
				defer mu.Unlock()
				if p := jpki.ProblemOf(err); err != nil && p != jpki.AlreadyCertified && p != jpki.Conflict {
					w.t.Errorf("a loser was told %v", err)
				}
				won = append(won, got...)
			})
		}
		wg.Wait()
		if len(won) != 1 {
			w.t.Errorf("%d of %d requests for one card were granted", len(won), n)
		}
		// Revoking races with moving: both end the certificate, one of them is first, and the other says so.
		sign := w.issue("h1", "card-1", jpki.CardSign)[0].ID
		for range n {
			wg.Go(func() {
				_, err := w.a.Revoke(context.Background(), counter, ca.ChangeRequest{IdempotencyKey: rand.Text(), Certificate: &sign, Cause: jpki.HolderRequest})
				if err != nil && !errors.Is(err, jpki.ForbiddenChange) && !errors.Is(err, jpki.Conflict) {
					w.t.Error(err)
				}
			})
		}
		wg.Wait()
		w.expect(map[jpki.CertID]string{sign: "revoked cessationOfOperation"})
	})
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
