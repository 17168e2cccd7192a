package ca_test

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/ca/store/storetest"
)

// soak says how many times longer than usual the tests that could go on for ever do; see make soak-ca.
func soak() int {
	if n, err := strconv.Atoi(os.Getenv("JPKI_SOAK")); err == nil && n > 0 {
		return n
	}
	return 1
}

// TestModel gives random commands to an authority and compares it with the law as law_test.go has it. A failure names a
// seed; JPKI_MODEL_SEED runs that one alone.
func TestModel(t *testing.T) {
	t.Parallel()
	const worlds, steps = 4, 150
	storetest.EachEngine(t, func(t *testing.T, fresh func(*testing.T) string) {
		for n := range worlds * soak() {
			seed := rand.Uint64()
			if s := os.Getenv("JPKI_MODEL_SEED"); s != "" {
				if n > 0 {
					break
				}
				seed = must(strconv.ParseUint(s, 10, 64))
			}
			ok := t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
				m := newModel(newWorld(t, storetest.Create(t, fresh(t))), seed)
				t.Cleanup(func() {
					if t.Failed() {
						t.Logf("JPKI_MODEL_SEED=%d; what happened:\n%s", seed, strings.Join(m.story, "\n"))
					}
				})
				for i := range steps {
					if m.step(); i%50 == 49 || i == steps-1 {
						m.w.check()
					} else if i%10 == 9 {
						m.w.invariants()
					}
					if t.Failed() {
						return
					}
				}
			})
			if !ok {
				return
			}
		}
	})
}

// A model is the world beside the law.
type model struct {
	*rand.Rand
	w       *world
	law     *law
	story   []string
	done    []act // commands with an idempotency key, to be repeated
	told    []jpki.Event
	spare   []int // keys made and not certified
	names   int
	fails   atomic.Int64 // which signature from now on fails; 0 for none
	holders []string
	births  []jpki.BirthDate
}

// A failingSigner fails when it is told to.
type failingSigner struct {
	crypto.Signer
	in *atomic.Int64
}

func (s failingSigner) Sign(r io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	if s.in.Load() > 0 && s.in.Add(-1) == 0 {
		return nil, errors.New("token was removed")
	}
	return s.Signer.Sign(r, digest, o)
}

func newModel(w *world, seed uint64) *model {
	m := &model{Rand: rand.New(rand.NewPCG(seed, 1)), w: w, law: newLaw(w.issuers[0].Certificate.NotAfter), holders: []string{"h1", "h2", "h3", "h4", "h5"}}
	m.restart()
	w.people = m.holders
	// h1 is in the register since the world began; the others come in the course of time.
	m.law.now = w.now
	m.law.holders["h1"] = lawHolder{attributes: complete(*attributes(jpki.NewBirthDate(1980, 2, 17))), place: "99101", since: map[string]time.Time{}}
	for _, s := range []string{"name", "birth", "sex", "address", "move", "stay"} {
		m.law.holders["h1"].since[s] = w.now
	}
	m.births = []jpki.BirthDate{
		jpki.NewBirthDate(1980, 2, 17), jpki.NewBirthDate(2012, 2, 29), jpki.NewBirthDate(2011, 4, 5), jpki.NewBirthDate(2008, 12, 31), jpki.NewBirthDate(1950, 1, 1), jpki.NewBirthDate(2024, 6, 30),
	}
	for i, h := range m.holders[1:4] {
		a := complete(*attributes(m.births[i+1]))
		m.alone(m.telling(jpki.Event{ID: m.name(), Holder: h, Type: jpki.Registered, EffectiveAt: w.now.UTC(), Municipality: "99202", Attributes: &a}))
	}
	return m
}

// restart is a new process.
func (m *model) restart() {
	issuers := slices.Clone(m.w.issuers)
	for i := range issuers {
		issuers[i].Signer = failingSigner{issuers[i].Signer, &m.fails}
	}
	m.w.restart(issuers)
}

// complete marks no character as substituted, as the authority does where nothing is said.
func complete(a jpki.Attributes) jpki.Attributes {
	a.NameSubstitutes, a.AddressSubstitutes = strings.Repeat("0", len([]rune(a.Name))), strings.Repeat("0", len([]rune(a.Address)))
	return a
}

// pick returns one of several; a method cannot have a type parameter of its own.
func pick[T any](m *model, from ...T) T { return from[m.IntN(len(from))] }

func (m *model) chance(percent int) bool { return m.IntN(100) < percent }

func (m *model) name() string { m.names++; return fmt.Sprint("n", m.names) }

// A result is what a command returned.
type result struct {
	problem jpki.Problem // "" if there was none
	ids     []jpki.CertID
	issued  []ca.Issued
	applied bool
	each    []result // of several events
}

func (r result) String() string {
	if r.problem != "" {
		return string(r.problem)
	}
	return fmt.Sprint("ok ", len(r.ids), " certificates")
}

// An act is a command: how it is given, and what the law says of a result, changing the law's state if the result is right.
// It returns a complaint, or "".
type act struct {
	what   string
	give   func(ctx context.Context) result
	judge  func(l *law, r result, failed int) string
	key    string // actor and idempotency key, if it has one
	failed int    // which signature fails; 0 for none
	keys   []int  // it asks to have certified
}

// step does something at random and compares.
func (m *model) step() {
	l := m.law
	switch n := m.IntN(100); {
	case n < 14:
		m.turnClock()
	case n < 18:
		m.restart()
		if n, err := m.w.a.Reconcile(context.Background(), 0); n != 0 || err != nil {
			m.w.t.Errorf("%d issuances were left open (%v)", n, err)
		}
		m.note("restart")
	case n < 24:
		applied, err := m.w.a.ApplyDue(context.Background())
		want := l.due()
		m.note("apply due: %d %v", applied, jpki.ProblemOf(err))
		if applied != want || err != nil && !errors.Is(err, jpki.UnknownHolder) {
			m.w.t.Errorf("%d waiting events took effect, want %d: %v", applied, want, err)
		}
	case n < 40:
		m.pair(m.act(), m.act())
	default:
		m.alone(m.act())
	}
	for _, d := range m.differences(m.law) {
		m.w.t.Error(d)
	}
	if n := len(m.w.generations)/len(jpki.CAs) + 1; n <= len(signers())/len(jpki.CAs) && m.w.now.AddDate(3, 0, 0).After(m.law.caEnd) {
		m.w.generation(n, m.w.now)
		m.restart()
		m.law.caEnd = m.w.issuers[0].Certificate.NotAfter
		m.note("generation %d", n)
	}
}

func (m *model) note(format string, args ...any) {
	m.story = append(m.story, m.w.now.In(jpki.JST).Format(time.DateTime)+" "+fmt.Sprintf(format, args...))
}

func (m *model) turnClock() {
	to := m.w.now.Add(pick(m, time.Second, 7*time.Second, time.Hour, 10*time.Hour, 24*time.Hour, 10*24*time.Hour, 45*24*time.Hour, 89*24*time.Hour, 200*24*time.Hour, -time.Second, -time.Minute, -3*time.Hour))
	switch n := m.IntN(10); { // or to where something may be renewed, ends, or somebody is 15
	case n < 3 && len(m.law.certs) > 0:
		end := pick(m, m.law.certs...).notAfter
		to = pick(m, end.Add(-time.Second), end, end.Add(time.Second), end.AddDate(0, -1, 0), end.AddDate(0, -2, 0), end.AddDate(0, -2, 0), midnight(end.AddDate(0, -3, 0)), midnight(end.AddDate(0, -3, 0)).Add(-time.Second))
	case n < 4:
		if year, month, dom := m.law.holders[pick(m, m.holders...)].attributes.BirthDate.Parts(); year > 2000 {
			to = time.Date(year+15, time.Month(month), dom, 0, 0, pick(m, -1, 0), 0, jpki.JST)
		}
	}
	if to.After(m.law.caEnd.AddDate(0, 3, 0)) || to.After(m.w.now.AddDate(6, 0, 0)) {
		return
	}
	if to.Before(m.w.now) { // a clock that goes back goes back a little, and what had ended does not live again
		if m.w.now.Sub(to) > 3*time.Hour || slices.ContainsFunc(m.law.certs, func(c lawCert) bool { return !c.notAfter.Before(to) && c.notAfter.Before(m.w.now) }) {
			return
		}
	}
	m.w.latest()
	m.w.now, m.law.now = to, to
	m.note("is the time")
}

func (m *model) alone(a act) {
	m.fails.Store(int64(a.failed))
	r := a.give(context.Background())
	m.fails.Store(0)
	m.note("%s: %v", a.what, r)
	if complaint := a.judge(m.law, r, a.failed); complaint != "" {
		m.w.t.Errorf("%s: %s", a.what, complaint)
	}
	m.remember(a)
}

func (m *model) remember(a act) {
	for _, k := range a.keys {
		if !m.law.keys[k] && !slices.Contains(m.spare, k) {
			m.spare = append(m.spare, k)
		}
	}
	if a.key != "" {
		m.done = append(m.done, a)
	}
}

// pair gives two commands at once. What comes of it must be what one after the other could have brought about, save that
// either may have been told to try again, and that one may have met the other's token before its certificates.
func (m *model) pair(a, b act) {
	if a.failed+b.failed > 0 { // nobody could say whose signature
		m.alone(a)
		return
	}
	acts := [2]act{a, b}
	var results [2]result
	var wg sync.WaitGroup
	for i := range acts {
		wg.Go(func() { results[i] = acts[i].give(context.Background()) })
	}
	wg.Wait()
	m.note("at once: %s: %v", a.what, results[0])
	m.note("         %s: %v", b.what, results[1])
	var why []string
	for _, try := range []struct {
		between bool // the one came between the two transactions of an issuance, when its token is on record and no certificate
		order   [2]int
	}{{false, [2]int{0, 1}}, {false, [2]int{1, 0}}, {true, [2]int{0, 1}}, {true, [2]int{1, 0}}} {
		l := m.law.clone()
		if try.between {
			m.adopt(l)
		}
		complaint := ""
		for _, i := range try.order {
			if p := results[i].problem; p == jpki.Conflict || p == jpki.InProgress {
				continue
			}
			complaint += acts[i].judge(l, results[i], 0)
		}
		m.adopt(l)
		if complaint == "" {
			complaint = strings.Join(m.differences(l), "\n")
		}
		if complaint == "" {
			m.law = l
			m.remember(a)
			m.remember(b)
			return
		}
		why = append(why, complaint)
	}
	m.w.t.Errorf("no order explains it:\n%s", strings.Join(why, "\n\n"))
}

// adopt takes over tokens that an issuance left which lost the race in its second transaction.
func (m *model) adopt(l *law) {
	m.view(func(tx *store.Tx) error {
		for _, h := range m.holders {
			tokens, err := tx.TokensOf(h)
			if err != nil {
				return err
			}
			for _, t := range tokens {
				if _, known := l.tokens[t.ID]; !known {
					l.tokens[t.ID] = lawToken{kind: t.Type, holder: t.Holder, until: t.ValidUntil, parent: deref(t.Parent)}
				}
			}
		}
		return nil
	})
}

// entryOf spells a register entry out, as attributes do not by themselves.
func entryOf(a jpki.Attributes, place string, ward bool, stay *time.Time, ended jpki.EventType) string {
	until := "for ever"
	if stay != nil {
		until = stay.UTC().Format(time.DateTime)
	}
	return fmt.Sprint(a.Name, a.NameSubstitutes, a.Sex, a.BirthDate, a.Address, a.AddressSubstitutes, " in ", place, ", ward ", ward, ", stays ", until, ", ended ", ended)
}

func deref(id *jpki.CertID) jpki.CertID {
	if id == nil {
		return jpki.CertID{}
	}
	return *id
}

func (m *model) view(f func(tx *store.Tx) error) {
	if err := m.w.db.View(context.Background(), f); err != nil {
		m.w.t.Fatal(err)
	}
}

// differences compares the database with the law.
func (m *model) differences(l *law) (out []string) {
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	m.view(func(tx *store.Tx) error {
		n, tokens := 0, 0
		for _, name := range m.holders {
			h, err := tx.Holder(name)
			want, known := l.holders[name]
			switch {
			case errors.Is(err, jpki.UnknownHolder):
				if known {
					say("%s is not in the register", name)
				}
				continue
			case err != nil:
				return err
			}
			if got := entryOf(h.Attributes, h.Municipality, h.Guardianship, h.StayUntil, h.Ended); got != entryOf(want.attributes, want.place, want.ward, want.stay, want.ended) {
				say("%s is %s; the law has %s", name, got, entryOf(want.attributes, want.place, want.ward, want.stay, want.ended))
			}
			certs, err := tx.CertificatesOf(name)
			if err != nil {
				return err
			}
			n += len(certs)
			for _, c := range certs {
				i, found := l.cert(c.ID)
				if !found {
					say("%s: the law does not know %s %s", name, c.Kind, c.ID)
					continue
				}
				w := l.certs[i]
				if c.Kind != w.kind || c.Holder != w.holder || c.Token != w.token || !c.NotAfter.Equal(w.notAfter) || (c.DeliveredAt != nil) != w.delivered || deref(c.Replaces) != w.replaces {
					say("%s: recorded %s on %s ends %s, replaces %v, delivered %v; the law has %+v", c.ID, c.Kind, c.Token, c.NotAfter, c.Replaces, c.DeliveredAt, w)
				}
				reason, _ := w.cause.Reason()
				if c.Status.State != w.state || c.Status.Cause != w.cause || c.Status.Reason != reason || !c.Status.Since.Equal(w.since) {
					say("%s %s on %s is %s for %s since %s; the law has %s for %s since %s", c.Kind, c.ID, c.Token, c.Status.State, c.Status.Cause, c.Status.Since, w.state, w.cause, w.since)
				}
			}
			of, err := tx.TokensOf(name)
			if err != nil {
				return err
			}
			tokens += len(of)
			for _, t := range of {
				if w := l.tokens[t.ID]; w.kind != t.Type || w.holder != t.Holder || !w.until.Equal(t.ValidUntil) || w.parent != deref(t.Parent) {
					say("%s %s of %s ends %s under %v; the law has %+v", t.Type, t.ID, t.Holder, t.ValidUntil, t.Parent, w)
				}
			}
		}
		if n != len(l.certs) || tokens != len(l.tokens) {
			say("%d certificates on %d tokens; the law has %d on %d", n, tokens, len(l.certs), len(l.tokens))
		}
		return nil
	})
	return out
}

// act makes up a command.
func (m *model) act() act {
	switch n := m.IntN(100); {
	case n < 8 && len(m.done) > 0:
		a := pick(m, m.done...)
		a.what, a.failed = "again: "+a.what, 0
		return a
	case n < 45:
		return m.newAsk()
	case n < 68:
		return m.newOrder()
	case n < 74:
		return m.newDelivery()
	case n < 80:
		return m.newGroup()
	}
	return m.telling(m.newEvent())
}

func (m *model) newKey() string {
	if m.chance(3) && len(m.done) > 0 { // used before
		_, key, _ := strings.Cut(pick(m, m.done...).key, " ")
		return key
	}
	return m.name()
}

// counterOf returns, mostly, the counter of a holder's municipality.
func (m *model) counterOf(holder string) jpki.Actor {
	for _, c := range []jpki.Actor{counter, other, yama} {
		if m.law.holders[holder].place == c.Municipality && m.chance(95) {
			return c
		}
	}
	return pick(m, counter, other, centre)
}

func (m *model) newAsk() act {
	holder := pick(m, m.holders...)
	if m.chance(50) {
		holder = "h1"
	}
	a := ask{by: m.counterOf(holder), holder: holder, renew: m.chance(8), token: fmt.Sprintf("card-%s-%d", holder, m.IntN(3)), kinds: pick(m, []jpki.Kind{jpki.CardSign, jpki.CardAuth}, []jpki.Kind{jpki.CardSign, jpki.CardAuth}, []jpki.Kind{jpki.CardSign}, []jpki.Kind{jpki.CardAuth}, []jpki.Kind{jpki.CardAuth, jpki.CardSign})}
	if m.chance(35) {
		a.token, a.kinds = fmt.Sprintf("phone-%s-%d", holder, m.IntN(2)), pick(m, phone, phone, []jpki.Kind{jpki.PhoneSign}, []jpki.Kind{jpki.PhoneAuth})
	}
	if m.chance(3) {
		a.token = pick(m, "card-h1-0", "phone-h1-0", "card-h2-0")
	}
	if old := slices.DeleteFunc(slices.Clone(m.law.certs), func(c lawCert) bool { return c.holder != holder || !m.law.live(c) || !inWindow(c.notAfter, m.w.now) }); len(old) > 0 && m.chance(70) {
		c := pick(m, old...)
		a.renew, a.token = true, c.token
		if c.kind.Token() != a.kinds[0].Token() {
			a.kinds = []jpki.Kind{c.kind}
		}
	}
	if asking := slices.DeleteFunc(slices.Clone(m.law.certs), func(c lawCert) bool { return c.kind != jpki.CardSign || c.state != jpki.Good || !m.law.live(c) }); !a.renew && a.kinds[0].Token() == jpki.Phone && len(asking) > 0 && m.chance(70) {
		a.holder = pick(m, asking...).holder
		holder, a.token, a.by = a.holder, fmt.Sprintf("phone-%s-%d", a.holder, m.IntN(2)), m.counterOf(a.holder)
	}
	for _, c := range m.law.certs { // the newest card signature certificate, sometimes another certificate, sometimes none
		if a.kinds[0].Token() == jpki.Phone && (c.holder == holder && c.kind == jpki.CardSign || m.chance(1)) {
			a.parent = &c.id
		}
	}
	key := m.newKey()
	req := ca.IssueRequest{IdempotencyKey: key, Holder: a.holder, Token: a.token, Parent: a.parent}
	for _, k := range a.kinds {
		n := m.freshKey()
		a.keys = append(a.keys, n)
		req.Requests = append(req.Requests, ca.KeyRequest{Kind: k, Request: keyRequest(m.w.t, n)})
	}
	fails := 0
	if m.chance(6) {
		fails = 1 + m.IntN(2)
	}
	return m.asking(a, req, fails)
}

// freshKey returns a key that, mostly, is not certified.
func (m *model) freshKey() int {
	if m.chance(2) && m.w.nextKey > 0 {
		return m.IntN(m.w.nextKey)
	}
	for len(m.spare) > 0 {
		n := m.spare[0]
		m.spare = m.spare[1:]
		if !m.law.keys[n] {
			return n
		}
	}
	n := m.w.nextKey
	m.w.nextKey++
	return n
}

func (m *model) asking(a ask, req ca.IssueRequest, fails int) act {
	verb, do := "issue", func(ctx context.Context) ([]ca.Issued, error) { return m.w.a.Issue(ctx, a.by, req) }
	if a.renew {
		verb, do = "renew", func(ctx context.Context) ([]ca.Issued, error) { return m.w.a.Renew(ctx, a.by, req) }
	}
	what := fmt.Sprintf("%s %v to %s on %s by %s, keys %v, parent %v, key %s", verb, a.kinds, a.holder, a.token, a.by.ID, a.keys, a.parent, req.IdempotencyKey)
	key := a.by.String() + " " + req.IdempotencyKey
	return act{
		what: what, key: key, failed: fails, keys: a.keys,
		give: func(ctx context.Context) result {
			got, err := do(ctx)
			return result{problem: problemOf(err), ids: idsOf(got), issued: got}
		},
		judge: func(l *law, r result, failed int) string {
			if a.keys[0] == a.keys[len(a.keys)-1] && len(a.keys) > 1 {
				return refusedFor(r, verdict{jpki.KeyReused: true})
			}
			v, g := l.ask(a)
			if complaint, judged := m.judgeKey(l, key, what, v, r); judged {
				return complaint
			}
			if len(v) > 0 {
				return refusedFor(r, v)
			}
			if failed > 0 && failed <= len(a.kinds) {
				l.touch(a, g)
				return refusedFor(r, verdict{jpki.Unavailable: true})
			}
			if r.problem != "" {
				return "refused with " + string(r.problem) + ", and nothing speaks against it"
			}
			for i, c := range r.issued {
				if c.Kind != a.kinds[i] || !c.NotAfter.Equal(g.notAfter[i]) || deref(c.Replaces) != g.replaces[i] {
					return fmt.Sprintf("got %s until %s in the place of %v, want %+v", c.Kind, c.NotAfter, c.Replaces, g)
				}
			}
			l.given(a, g, r.ids)
			l.once[key] = lawRequest{what, r.ids}
			return ""
		},
	}
}

// judgeKey judges a result if it is decided by the idempotency key.
func (m *model) judgeKey(l *law, key, what string, v verdict, r result) (complaint string, judged bool) {
	known, found := l.once[key]
	switch {
	case !found:
		return "", false
	case known.what == what && (r.problem != "" || !slices.Equal(r.ids, known.ids)):
		return fmt.Sprintf("repeated, got %v %v, want %v", r.problem, r.ids, known.ids), true
	case known.what != what && r.problem != jpki.IdempotencyReused && !v[r.problem]:
		return fmt.Sprintf("under a used key got %v", r), true
	}
	return "", true
}

func refusedFor(r result, v verdict) string {
	if !v[r.problem] {
		return fmt.Sprintf("got %v, want a refusal for one of %v", r, v)
	}
	return ""
}

func problemOf(err error) jpki.Problem {
	if err == nil {
		return ""
	}
	return jpki.ProblemOf(err)
}

func (m *model) newOrder() act {
	o := order{do: pick(m, "suspend", "suspend", "resume", "revoke"), cause: pick(m, jpki.Lost, jpki.HolderRequest, jpki.Found)}
	if m.chance(95) {
		o.cause = map[string][]jpki.Cause{
			"suspend": {jpki.Lost, jpki.KeyDoubt}, "resume": {jpki.Found}, "revoke": {jpki.HolderRequest, jpki.KeyCompromised, jpki.CardReturned, jpki.RecordError, jpki.Discarded},
		}[o.do][0]
		if o.do == "revoke" {
			o.cause = pick(m, jpki.HolderRequest, jpki.KeyCompromised, jpki.CardReturned, jpki.RecordError, jpki.Discarded, jpki.Discarded)
		}
	}
	holder := pick(m, m.holders...)
	o.token = pick(m, fmt.Sprintf("card-%s-0", holder), fmt.Sprintf("phone-%s-0", holder), "card-nobody")
	if live := slices.DeleteFunc(slices.Clone(m.law.certs), func(c lawCert) bool { return !m.law.live(c) }); len(live) > 0 && m.chance(85) {
		c := pick(m, live...)
		holder, o.token = c.holder, c.token
	}
	if held := slices.DeleteFunc(slices.Clone(m.law.certs), func(c lawCert) bool { return c.state != jpki.Suspended || !m.law.live(c) || c.kind != jpki.PhoneAuth }); len(held) > 0 && o.do == "resume" {
		c := pick(m, held...)
		holder, o.token = c.holder, c.token
	}
	if m.chance(35) && len(m.law.certs) > 0 {
		c := pick(m, m.law.certs...)
		holder, o.token, o.cert = c.holder, "", &c.id
	}
	if o.by = m.counterOf(holder); o.do == "suspend" && m.chance(30) {
		o.by = centre
	}
	req := ca.ChangeRequest{IdempotencyKey: m.newKey(), Token: o.token, Certificate: o.cert, Cause: o.cause}
	what := fmt.Sprintf("%s %s%v for %s by %s, key %s", o.do, o.token, o.cert, o.cause, o.by.ID, req.IdempotencyKey)
	key := o.by.String() + " " + req.IdempotencyKey
	return act{
		what: what, key: key,
		give: func(ctx context.Context) result {
			f := m.w.a.Suspend
			switch o.do {
			case "resume":
				f = m.w.a.Resume
			case "revoke":
				f = m.w.a.Revoke
			}
			got, err := f(ctx, o.by, req)
			r := result{problem: problemOf(err)}
			for _, c := range got {
				r.ids = append(r.ids, c.ID)
			}
			return r
		},
		judge: func(l *law, r result, _ int) string {
			if _, found := l.once[key]; found {
				v, _ := l.clone().order(o)
				complaint, _ := m.judgeKey(l, key, what, v, r)
				return complaint
			}
			v, changed := l.order(o)
			return judgeChange(l, key, what, v, changed, r)
		},
	}
}

func judgeChange(l *law, key, what string, v verdict, changed []jpki.CertID, r result) string {
	switch {
	case len(v) > 0:
		return refusedFor(r, v)
	case r.problem != "":
		return "refused with " + string(r.problem) + ", and nothing speaks against it"
	case !sameIDs(changed, r.ids):
		return fmt.Sprintf("changed %v, want %v", r.ids, changed)
	}
	if key != "" {
		l.once[key] = lawRequest{what, r.ids}
	}
	return ""
}

func sameIDs(a, b []jpki.CertID) bool {
	byText := func(a, b jpki.CertID) int { return strings.Compare(a.String(), b.String()) }
	return slices.Equal(slices.SortedFunc(slices.Values(a), byText), slices.SortedFunc(slices.Values(b), byText))
}

func (m *model) newDelivery() act {
	holder := pick(m, m.holders...)
	token := pick(m, fmt.Sprintf("card-%s-%d", holder, m.IntN(3)), fmt.Sprintf("phone-%s-%d", holder, m.IntN(2)))
	by, once := m.counterOf(holder), m.newKey()
	what, key := fmt.Sprintf("deliver %s by %s, key %s", token, by.ID, once), by.String()+" "+once
	return act{
		what: what, key: key,
		give: func(ctx context.Context) result {
			ids, err := m.w.a.Deliver(ctx, by, once, token)
			return result{problem: problemOf(err), ids: ids}
		},
		judge: func(l *law, r result, _ int) string {
			if _, found := l.once[key]; found {
				v, _ := l.clone().deliver(by, token)
				complaint, _ := m.judgeKey(l, key, what, v, r)
				return complaint
			}
			v, ids := l.deliver(by, token)
			return judgeChange(l, key, what, v, ids, r)
		},
	}
}

// newGroup tells several events at once.
func (m *model) newGroup() act {
	var events []jpki.Event
	var singles []act
	what := "together:"
	for range 2 + m.IntN(5) {
		e := m.newEvent()
		events, singles = append(events, e), append(singles, m.telling(e))
		what += "\n                      " + singles[len(singles)-1].what
	}
	return act{
		what: what,
		give: func(ctx context.Context) (r result) {
			for _, got := range m.w.a.ApplyResidentEvents(ctx, register, events) {
				r.each = append(r.each, eventResult(got.EventOutcome, got.Err))
			}
			return r
		},
		judge: func(l *law, r result, _ int) (complaint string) {
			for i, one := range r.each {
				if one.problem == jpki.Conflict || one.problem == jpki.InProgress {
					continue // the others went ahead
				}
				complaint += singles[i].judge(l, one, 0)
			}
			return complaint
		},
	}
}

func eventResult(out ca.EventOutcome, err error) result {
	r := result{problem: problemOf(err), applied: out.Applied}
	for _, c := range out.Changed {
		r.ids = append(r.ids, c.ID)
	}
	return r
}

func (m *model) newEvent() jpki.Event {
	e := jpki.Event{ID: m.name(), Holder: pick(m, m.holders...), EffectiveAt: m.w.now.Truncate(time.Second).UTC()}
	e.Type = pick(m, jpki.AddressChanged, jpki.AddressChanged, jpki.AddressChanged, jpki.AddressChanged, jpki.NameChanged, jpki.NameChanged, jpki.BirthDateAmended, jpki.SexAmended, jpki.AddressRenamed, jpki.AddressRenamed, jpki.GuardianshipBegan, jpki.StayExtended, jpki.StayExtended, jpki.Departure, jpki.Registered)
	if m.chance(1) {
		e.Type = jpki.Death
	}
	if m.law.holders[e.Holder].ward && m.chance(60) {
		e.Type = jpki.GuardianshipEnded
	}
	if h, known := m.law.holders[e.Holder]; (!known || h.ended == jpki.Departure) && m.chance(80) {
		e.Type = jpki.Registered
	}
	if m.chance(35) {
		e.EffectiveAt = e.EffectiveAt.Add(pick(m, -40*24*time.Hour, -24*time.Hour, -time.Hour, time.Hour, 24*time.Hour, 30*24*time.Hour))
	}
	if slices.Contains([]jpki.EventType{jpki.Registered, jpki.AddressChanged, jpki.NameChanged, jpki.BirthDateAmended, jpki.SexAmended, jpki.AddressRenamed}, e.Type) {
		a := complete(jpki.Attributes{Name: fmt.Sprint("砂場　", m.name()), Sex: pick(m, jpki.Male, jpki.Female), BirthDate: pick(m, m.births...), Address: fmt.Sprint("砂箱県", m.name())})
		if h, known := m.law.holders[e.Holder]; known && m.chance(80) { // only what it is about, and sometimes not even that
			b := h.attributes
			switch say := m.chance(90); {
			case say && e.Type == jpki.NameChanged:
				b.Name, b.NameSubstitutes = a.Name, a.NameSubstitutes
			case say && e.Type == jpki.BirthDateAmended:
				b.BirthDate = a.BirthDate
			case say && e.Type == jpki.SexAmended:
				b.Sex = a.Sex
			case say:
				b.Address, b.AddressSubstitutes = a.Address, a.AddressSubstitutes
			}
			a = b
		}
		e.Attributes = &a
	}
	if slices.Contains([]jpki.EventType{jpki.Registered, jpki.AddressChanged, jpki.AddressRenamed}, e.Type) {
		e.Municipality = pick(m, "99101", "99202", "99303")
	}
	if e.Type == jpki.StayExtended || e.Type == jpki.Registered && m.chance(20) {
		until := m.w.now.Truncate(time.Second).UTC().AddDate(0, pick(m, 1, 6, 36), 0)
		e.StayUntil = &until
	}
	if len(m.told) > 0 && m.chance(10) { // once more, or something else under a used identifier
		if old := pick(m, m.told...); m.chance(80) {
			e = old
		} else {
			e.ID = old.ID
		}
	}
	m.told = append(m.told, e)
	return e
}

func (m *model) telling(e jpki.Event) act {
	return act{
		what: fmt.Sprintf("event %s: %s of %s effective %s, place %s, stay until %v", e.ID, e.Type, e.Holder, e.EffectiveAt.In(jpki.JST).Format(time.DateTime), e.Municipality, e.StayUntil),
		give: func(ctx context.Context) result {
			return eventResult(m.w.a.ApplyResidentEvent(ctx, register, e))
		},
		judge: func(l *law, r result, _ int) string {
			v, applied, changed := l.event(e)
			if len(v) == 0 && r.problem == "" && r.applied != applied {
				return fmt.Sprintf("applied: %v, want %v", r.applied, applied)
			}
			return judgeChange(l, "", "", v, changed, r)
		},
	}
}
