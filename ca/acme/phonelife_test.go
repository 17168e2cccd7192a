package acme_test

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.step.sm/crypto/jose"
	xacme "golang.org/x/crypto/acme"
	"pgregory.net/rapid"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/acme"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/ca/store/storetest"
)

// A phone ends its certificates itself, with the account that ordered them or with their own keys, and for its holder.
func TestPhoneRevokes(t *testing.T) {
	storetest.OnBoth(t, func(t *testing.T, db *store.Store) {
		w := newWorld(t, db)
		parent := w.card(t, "h1", 0)
		p := w.phone(t, "app-1", "step").joined(w.invite(t, parent, pair2...))
		chains := map[jpki.Kind]*x509.Certificate{}
		for n, kind := range pair2 {
			chain, err := p.obtain(phoneKey(2+n), kind)
			if err != nil {
				t.Fatal(err)
			}
			chains[kind] = chain[0]
		}
		sign, auth := chains[jpki.PhoneSign], chains[jpki.PhoneAuth]
		w.card(t, "h2", 4)
		other := w.phone(t, "app-9", "step").joined(must(w.enrolment.BeginPhone(t.Context(), jpki.Actor{Role: jpki.Holder, ID: "h2"},
			ca.PhoneEnrolmentRequest{Holder: "h2", Token: "phone-9", Parent: w.certOf(t, "h2", jpki.CardSign), Kinds: pair2})))
		forged := bytes.Clone(sign.Raw)
		forged[len(forged)-1] ^= 1
		var card []byte
		if err := db.View(t.Context(), func(tx *store.Tx) error {
			c, err := tx.Certificate(parent)
			card = c.DER
			return err
		}); err != nil {
			t.Fatal(err)
		}
		for name, c := range map[string]struct {
			by     *phone
			key    crypto.Signer
			cert   []byte
			reason xacme.CRLReasonCode
			want   string
		}{
			"another's account":       {other, nil, sign.Raw, 0, "unauthorized"},
			"another's key":           {other, phoneKey(4), sign.Raw, 0, "unauthorized"},
			"the other certificate's": {p, phoneKey(3), sign.Raw, 0, "unauthorized"},
			"a card's certificate":    {p, phoneKey(0), card, 0, "unknown-certificate"},
			"one that nobody issued":  {p, nil, w.infra.Raw, 0, "unknown-certificate"},
			"one that looks like it":  {p, nil, forged, 0, "malformed"},
			"no certificate":          {p, nil, []byte("x"), 0, "malformed"},
			"for the CA's failure":    {p, nil, sign.Raw, xacme.CRLReasonCACompromise, "badRevocationReason"},
			"for a move":              {p, nil, sign.Raw, xacme.CRLReasonAffiliationChanged, "badRevocationReason"},
			"for a while":             {p, nil, sign.Raw, xacme.CRLReasonCertificateHold, "badRevocationReason"},
			"for no reason that is":   {p, nil, sign.Raw, 7, "badRevocationReason"},
		} {
			if err := c.by.client.RevokeCert(t.Context(), c.key, c.cert, c.reason); problemOf(err) != c.want {
				t.Errorf("%s: %v, want %s", name, err, c.want)
			}
		}
		if s, a := w.state(t, w.certOf(t, "h1", jpki.PhoneSign)), w.state(t, w.certOf(t, "h1", jpki.PhoneAuth)); s != "good" || a != "good" {
			t.Fatalf("after nothing but refusals: %s, %s", s, a)
		}

		if err := p.client.RevokeCert(t.Context(), nil, sign.Raw, xacme.CRLReasonKeyCompromise); err != nil {
			t.Fatal(err)
		}
		if got := w.state(t, w.certOf(t, "h1", jpki.PhoneSign)); got != "revoked key-compromised" {
			t.Error(got)
		}
		again := must(json.Marshal(map[string]string{"certificate": base64.RawURLEncoding.EncodeToString(sign.Raw)})) // the client takes this refusal for success
		if _, got := p.send("/acme/phone-step/revoke-cert", p.jws("/acme/phone-step/revoke-cert", p.nonce(), p.kid(), again), nil); got != "alreadyRevoked" {
			t.Errorf("revoked again: %s", got)
		}
		// Long after the account is forgotten the key is what there is.
		w.ahead.Store(int64(48 * time.Hour))
		w.begin(t, ca.PhoneEnrolmentRequest{Holder: "h1", Token: "phone-3", Parent: parent, Kinds: pair2})
		if err := p.client.RevokeCert(t.Context(), nil, auth.Raw, 0); problemOf(err) != "accountDoesNotExist" {
			t.Errorf("by an account that is forgotten: %v", err)
		}
		stranger := w.phone(t, "app-1", "step")
		if err := stranger.client.RevokeCert(t.Context(), phoneKey(3), auth.Raw, xacme.CRLReasonCessationOfOperation); err != nil {
			t.Fatal(err)
		}
		if got := w.state(t, w.certOf(t, "h1", jpki.PhoneAuth)); got != "revoked holder-request" {
			t.Error(got)
		}
		if got := w.audited(t, "revoke"); len(got) != 2 || !strings.HasPrefix(got[0], "holder:h1 ") || !strings.HasPrefix(got[1], "holder:h1 ") {
			t.Errorf("audited: %q", got)
		}
	})
}

// rollover makes a change of keys; each argument may be another than it should.
func (p *phone) rollover(outerKid, innerURL, account string, former crypto.PublicKey, next *jose.SigningKey, embed bool) []byte {
	p.t.Helper()
	const path = "/acme/phone-step/key-change"
	o := &jose.SignerOptions{ExtraHeaders: map[jose.HeaderKey]any{"url": innerURL}, EmbedJWK: embed}
	signer := must(jose.NewSigner(*next, o))
	inner := must(signer.Sign(must(json.Marshal(map[string]any{"account": account, "oldKey": jose.JSONWebKey{Key: former}})))).FullSerialize()
	return p.jws(path, p.nonce(), outerKid, []byte(inner))
}

// An account gets another key, which only the present one can bring about.
func TestAccountKeyChange(t *testing.T) {
	storetest.OnBoth(t, func(t *testing.T, db *store.Store) {
		w := newWorld(t, db)
		parent := w.card(t, "h1", 0)
		p := w.phone(t, "app-1", "step").joined(w.invite(t, parent, pair2...))
		other := w.phone(t, "app-2", "step").joined(w.invite2(t, parent))
		kid, former, next := p.kid(), p.acct, newKey()
		const path = "/acme/phone-step/key-change"
		url := w.url + path
		es := func(key any) *jose.SigningKey { return &jose.SigningKey{Algorithm: jose.ES256, Key: key} }
		for name, c := range map[string]struct {
			body func() []byte
			want string
		}{
			"another's account":            {func() []byte { return p.rollover(kid, url, other.kid(), p.acct.Public(), es(next), true) }, "malformed"},
			"for another's account, whole": {func() []byte { return p.rollover(other.kid(), url, other.kid(), other.acct.Public(), es(next), true) }, "malformed"},
			"a former key that it is not":  {func() []byte { return p.rollover(kid, url, kid, other.acct.Public(), es(next), true) }, "conflict"},
			"another's key":                {func() []byte { return p.rollover(kid, url, kid, p.acct.Public(), es(other.acct), true) }, "conflict"},
			"another URL inside":           {func() []byte { return p.rollover(kid, w.url+newOrder, kid, p.acct.Public(), es(next), true) }, "malformed"},
			"no key inside":                {func() []byte { return p.rollover(kid, url, kid, p.acct.Public(), es(next), false) }, "malformed"},
			"a shared secret for a key": {func() []byte {
				return p.rollover(kid, url, kid, p.acct.Public(), &jose.SigningKey{Algorithm: jose.HS256, Key: make([]byte, 32)}, false)
			}, "malformed"},
			"nothing inside": {func() []byte { return p.jws(path, p.nonce(), kid, []byte("{}")) }, "malformed"},
			"a spent nonce": {func() []byte {
				n := p.nonce()
				p.send(newOrder, p.jws(newOrder, n, kid, []byte("x")), nil)
				return p.jws(path, n, kid, []byte("{}"))
			}, "badNonce"},
			"not signed": {func() []byte { return []byte("{}") }, "malformed"},
		} {
			if status, got := p.send(path, c.body(), nil); got != c.want || status < 400 || status >= 500 {
				t.Errorf("%s: %d %s, want %s", name, status, got, c.want)
			}
		}
		if p.kid() != kid || other.kid() == kid {
			t.Fatal("a refusal changed a key")
		}

		if err := p.client.AccountKeyRollover(t.Context(), next); err != nil {
			t.Fatal(err)
		}
		p.acct = next
		if _, err := p.obtain(phoneKey(2), jpki.PhoneAuth); err != nil {
			t.Errorf("with the new key: %v", err)
		}
		p.acct, p.client.Key = former, former
		if _, got := p.send(newOrder, p.jws(newOrder, p.nonce(), kid, []byte("{}")), nil); got != "malformed" {
			t.Errorf("with the former key: %s", got)
		}
		if got := w.audited(t, "phone.rekeyed"); len(got) != 1 || !strings.HasPrefix(got[0], "holder:h1 ") {
			t.Errorf("audited: %q", got)
		}
		p.acct, p.client.Key = next, next
		w.ahead.Store(int64(16 * time.Minute))
		if err := p.client.AccountKeyRollover(t.Context(), newKey()); problemOf(err) != "unauthorized" {
			t.Errorf("after the enrolment's end: %v", err)
		}
	})
}

// In the last three months the holder's phone gets certificates in the place of its own, on the strength of the renewed card.
func TestPhoneRenews(t *testing.T) {
	storetest.OnBoth(t, func(t *testing.T, db *store.Store) {
		w := newWorld(t, db)
		parent := w.card(t, "h1", 0)
		p := w.phone(t, "app-1", "step").joined(w.invite(t, parent, pair2...))
		for n, kind := range pair2 {
			if _, err := p.obtain(phoneKey(2+n), kind); err != nil {
				t.Fatal(err)
			}
		}
		first := w.certificates(t)
		end := first[jpki.PhoneAuth][0].NotAfter
		w.ahead.Store(int64(time.Until(end.AddDate(0, -3, -2))))
		again := ca.PhoneEnrolmentRequest{Holder: "h1", Token: "phone-1", Parent: parent, Kinds: pair2}
		if _, err := w.enrolment.BeginPhone(t.Context(), counter, again); !errors.Is(err, jpki.AlreadyCertified) {
			t.Errorf("four months before the end: %v", err)
		}
		w.ahead.Store(int64(time.Until(end.AddDate(0, 0, -30))))
		req := ca.IssueRequest{IdempotencyKey: "renew-card", Holder: "h1", Token: "card-h1"}
		for i, k := range []jpki.Kind{jpki.CardSign, jpki.CardAuth} {
			req.Requests = append(req.Requests, ca.KeyRequest{Kind: k, Request: csr(phoneKey(4+i), "")})
		}
		again.Parent = must(w.authority.Renew(t.Context(), counter, req))[0].ID
		i := must(w.enrolment.BeginPhone(t.Context(), holderActor, again))
		p = w.phone(t, "app-1", "step").joined(i)

		// The old signature certificate ended with the card's, the old authentication certificate lives: one is issued, one renewed.
		if s, a := w.state(t, first[jpki.PhoneSign][0].ID), w.state(t, first[jpki.PhoneAuth][0].ID); s != "revoked renewed" || a != "good" {
			t.Fatalf("before: %s, %s", s, a)
		}
		o := p.ready(phoneKey(7))
		chain, err := p.finalize(o, csr(phoneKey(7), jpki.PhoneAuth))
		if err != nil {
			t.Fatal(err)
		}
		if !chain[0].NotAfter.After(end.AddDate(1, 0, 0)) {
			t.Errorf("renewed until %s, was %s", chain[0].NotAfter, end)
		}
		if got, err := p.finalize(o, csr(phoneKey(7), jpki.PhoneAuth)); err != nil || !got[0].Equal(chain[0]) {
			t.Errorf("finalized again: %v", err)
		}
		if _, err := p.obtain(phoneKey(6), jpki.PhoneSign); err != nil {
			t.Fatal(err)
		}
		if _, err := p.obtain(phoneKey(8), jpki.PhoneAuth); problemOf(err) != "already-certified" {
			t.Errorf("a third time: %v", err)
		}
		now := w.certificates(t)
		var states []string
		for _, kind := range pair2 {
			for _, c := range now[kind] {
				states = append(states, string(kind)+" "+w.state(t, c.ID))
			}
		}
		slices.Sort(states)
		if got := strings.Join(states, ", "); got != "phone-auth good, phone-auth revoked renewed, phone-sign good, phone-sign revoked renewed" {
			t.Error(got)
		}
		at := slices.IndexFunc(now[jpki.PhoneAuth], func(c store.Certificate) bool { return bytes.Equal(c.DER, chain[0].Raw) })
		if at < 0 || now[jpki.PhoneAuth][at].Replaces == nil || *now[jpki.PhoneAuth][at].Replaces != first[jpki.PhoneAuth][0].ID {
			t.Error("the new certificate does not replace the old")
		}
	})
}

// Nonces are good once and for as long as they are among the newest, whatever else is shown.
func TestNonces(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := acme.NewNonces("secret")
		good := map[string]bool{}
		var given []string
		t.Repeat(map[string]func(*rapid.T){
			"give": func(t *rapid.T) {
				s := n.Give()
				if _, twice := good[s]; twice {
					t.Fatal("the same again")
				}
				good[s], given = true, append(given, s)
			},
			"spend": func(t *rapid.T) {
				if len(given) == 0 {
					t.Skip()
				}
				s := rapid.SampledFrom(given).Draw(t, "nonce")
				if n.Spend(s) != good[s] {
					t.Fatalf("%s: want %t", s, good[s])
				}
				good[s] = false
			},
			"make up": func(t *rapid.T) {
				if s := base64.RawURLEncoding.EncodeToString(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "nonce")); n.Spend(s) {
					t.Fatal("made up")
				}
			},
			"another's": func(t *rapid.T) {
				if n.Spend(acme.NewNonces("another").Give()) {
					t.Fatal("another process's")
				}
			},
		})
	})

	n := acme.NewNonces("secret")
	oldest, second := n.Give(), n.Give()
	for range acme.NonceWindow - 1 {
		n.Give()
	}
	if n.Spend(oldest) || !n.Spend(second) || n.Spend(second) {
		t.Error("the window does not end where it should")
	}
	fresh := n.Give()
	var wg sync.WaitGroup
	won := make(chan bool, 16)
	for range cap(won) {
		wg.Go(func() { won <- n.Spend(fresh) })
	}
	wg.Wait()
	close(won)
	wins := 0
	for ok := range won {
		if ok {
			wins++
		}
	}
	if wins != 1 {
		t.Errorf("spent %d times", wins)
	}
}

// Many who ask for nonces cost the database nothing.
func TestNoncesAreNotRecorded(t *testing.T) {
	w := sqlite(t)
	p := w.phone(t, "app-1", "step")
	if err := w.db.Close(); err != nil {
		t.Fatal(err)
	}
	if first, second := p.nonce(), p.nonce(); first == second {
		t.Error("the same again")
	}
	if status, got := p.send(newOrder, p.jws(newOrder, p.nonce(), w.url+"/acme/phone-step/account/x", []byte("{}")), nil); status != http.StatusInternalServerError {
		t.Errorf("the database is closed: %d %s", status, got)
	}
}
