package ca_test

import (
	"context"
	"crypto/x509"
	"errors"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/store"
)

func day(y int, m time.Month, d int) time.Time { return time.Date(y, m, d, 10, 0, 0, 0, jpki.JST) }

// end is the last second of a day, at which certificates end.
func end(y int, m time.Month, d int) time.Time {
	return time.Date(y, m, d, 23, 59, 59, 0, jpki.JST)
}

// A life is a person's part in a story that is told in the order of time: a list of what happens when.
type life struct {
	w      *world
	holder string
	is     jpki.Attributes // by the register
	place  jpki.Actor      // the counter of the municipality they live in
	certs  map[jpki.Kind]ca.Issued
	steps  []step
}

type step struct {
	at   time.Time
	who  string
	what string
	do   func()
}

func (w *world) life(holder string, year int, month time.Month, dom int) *life {
	return &life{w: w, holder: holder, is: *attributes(jpki.NewBirthDate(year, month, dom)), place: counter, certs: map[jpki.Kind]ca.Issued{}}
}

// at adds a step.
func (l *life) at(t time.Time, what string, do func()) {
	l.steps = append(l.steps, step{t, l.holder, what, do})
}

// registers enters the person into the register; stay is the end of a foreign resident's, or zero.
func (l *life) registers(stay time.Time) {
	e := jpki.Event{Holder: l.holder, Type: jpki.Registered, Municipality: l.place.Municipality, Attributes: l.becomes(func(*jpki.Attributes) {})}
	if !stay.IsZero() {
		e.StayUntil = &stay
	}
	l.reports(e)
}

// reports tells an event and checks that it ends the certificates of just these kinds.
func (l *life) reports(e jpki.Event, ended ...jpki.Kind) {
	l.w.t.Helper()
	e.Holder = l.holder
	out, err := l.w.event(e)
	if err != nil || !out.Applied {
		l.w.t.Fatalf("%s of %s: %v %v", e.Type, l.holder, out, err)
	}
	l.changed(out.Changed, ended)
}

func (l *life) changed(changed []ca.Changed, want []jpki.Kind) {
	l.w.t.Helper()
	got := map[jpki.Kind]bool{}
	for _, c := range changed {
		if got[c.Kind] = true; c.ID != l.certs[c.Kind].ID {
			l.w.t.Errorf("%s: changed %s, which is not the %s certificate in force", l.holder, c.ID, c.Kind)
		}
		if c.Status.State == jpki.Revoked {
			delete(l.certs, c.Kind)
		}
	}
	if !maps.Equal(got, set(want)) || len(changed) != len(got) {
		l.w.t.Errorf("%s: changed %v, want %v", l.holder, changed, want)
	}
}

func set(kinds []jpki.Kind) map[jpki.Kind]bool {
	m := map[jpki.Kind]bool{}
	for _, k := range kinds {
		m[k] = true
	}
	return m
}

func (l *life) moves(to jpki.Actor, ended ...jpki.Kind) {
	l.w.t.Helper()
	l.place = to
	l.reports(jpki.Event{Type: jpki.AddressChanged, Municipality: to.Municipality, Attributes: l.becomes(func(a *jpki.Attributes) { a.Address = "砂箱県" + l.w.name() + "番" })}, ended...)
}

// becomes changes the attributes, from now on.
func (l *life) becomes(change func(*jpki.Attributes)) *jpki.Attributes {
	change(&l.is)
	a := l.is
	return &a
}

func (l *life) asks(do func(context.Context, jpki.Actor, ca.IssueRequest) ([]ca.Issued, error), token string, kinds []jpki.Kind) ([]ca.Issued, error) {
	l.w.t.Helper()
	r := l.w.request(l.holder, token, kinds...)
	if sign, found := l.certs[jpki.CardSign]; found && r.Requests[0].Kind.Token() == jpki.Phone {
		r.Parent = &sign.ID
	}
	return do(l.w.t.Context(), l.place, r)
}

// gets has certificates issued, or renewed, and checks their end.
func (l *life) gets(do func(context.Context, jpki.Actor, ca.IssueRequest) ([]ca.Issued, error), token string, notAfter time.Time, kinds ...jpki.Kind) {
	l.w.t.Helper()
	got, err := l.asks(do, token, kinds)
	if err != nil {
		l.w.t.Fatalf("%s at %s: %v", l.holder, l.w.now, err)
	}
	if r, err := l.w.a.Deliver(l.w.t.Context(), l.place, l.w.name(), token); err != nil || len(r) != len(kinds) {
		l.w.t.Errorf("deliver: %v %v", r, err)
	}
	for i, c := range got {
		if !c.NotAfter.Equal(notAfter) || c.Kind != kinds[i] {
			l.w.t.Errorf("%s: the %s certificate of %s ends %s, want %s", l.holder, c.Kind, l.w.now.In(jpki.JST), c.NotAfter.In(jpki.JST), notAfter)
		}
		if before, found := l.certs[c.Kind]; found && (c.Replaces == nil || *c.Replaces != before.ID) {
			l.w.t.Errorf("%s: the %s certificate replaces %v, want %s", l.holder, c.Kind, c.Replaces, before.ID)
		}
		for _, g := range l.w.issuers {
			if cert := must(x509.ParseCertificate(c.Certificate)); g.ID == c.ID.Issuer && cert.NotAfter.After(g.Certificate.NotAfter) {
				l.w.t.Errorf("%s: the %s certificate outlives its issuer's", l.holder, c.Kind)
			}
		}
		l.certs[c.Kind] = c
	}
}

func (l *life) refused(do func(context.Context, jpki.Actor, ca.IssueRequest) ([]ca.Issued, error), token string, want jpki.Problem, kinds ...jpki.Kind) {
	l.w.t.Helper()
	if got, err := l.asks(do, token, kinds); !errors.Is(err, want) {
		l.w.t.Errorf("%s at %s: got %v %v, want %s", l.holder, l.w.now.In(jpki.JST), got, err, want)
	}
}

func (l *life) orders(do func(context.Context, jpki.Actor, ca.ChangeRequest) ([]ca.Changed, error), by jpki.Actor, token string, cause jpki.Cause, changed ...jpki.Kind) {
	l.w.t.Helper()
	got, err := l.w.change(do, by, ca.ChangeRequest{Token: token, Cause: cause})
	if err != nil {
		l.w.t.Fatalf("%s of %s for %s: %v", cause, token, l.holder, err)
	}
	l.changed(got, changed)
}

// are checks the states of the certificates in force.
func (l *life) are(states map[jpki.Kind]string) {
	l.w.t.Helper()
	for kind, want := range states {
		if got := l.w.state(l.certs[kind].ID); got != want {
			l.w.t.Errorf("%s: the %s certificate is %s, want %s", l.holder, kind, got, want)
		}
	}
}

// tell lets the lives happen, everything in its time, and checks all that must hold after each step.
func (w *world) tell(lives ...*life) {
	w.t.Helper()
	var all []step
	for _, l := range lives {
		all = append(all, l.steps...)
	}
	slices.SortStableFunc(all, func(a, b step) int { return a.at.Compare(b.at) })
	for _, s := range all {
		w.now = s.at
		s.do()
		w.check()
		if w.t.Failed() {
			w.t.Fatalf("%s, %s: %s", s.at.Format(time.DateTime), s.who, s.what)
		}
	}
}

var (
	yama  = jpki.Actor{Role: jpki.Counter, ID: "yama-1", Municipality: "99303"}
	card  = []jpki.Kind{jpki.CardSign, jpki.CardAuth}
	phone = []jpki.Kind{jpki.PhoneSign, jpki.PhoneAuth}
	every = jpki.Kinds
)

// From birth on: an authentication certificate from the first day, the signature certificate from the fifteenth birthday,
// a card for five years and then for ten, five generations of the CA, and dates behind 2049, which are encoded otherwise.
func lifeOfAChild(w *world) *life {
	l := w.life("child", 2026, 4, 2)
	a := w // the authority changes with its generations
	l.at(day(2026, 4, 2), "is born", func() { l.registers(time.Time{}) })
	l.at(day(2026, 4, 10), "gets a card", func() {
		l.refused(a.a.Issue, "card-c1", jpki.NotEligible, jpki.CardSign)
		l.gets(a.a.Issue, "card-c1", end(2031, 4, 2), jpki.CardAuth)
	})
	l.at(day(2031, 1, 2).Add(-10*time.Hour-time.Second), "is early", func() { l.refused(a.a.Renew, "card-c1", jpki.NotRenewable, jpki.CardAuth) })
	l.at(day(2031, 1, 2).Add(-10*time.Hour), "renews on a card that ends", func() { l.gets(a.a.Renew, "card-c1", end(2031, 4, 2), jpki.CardAuth) })
	l.at(day(2031, 3, 1), "gets the second card", func() { l.gets(a.a.Issue, "card-c2", end(2035, 4, 2), jpki.CardAuth) })
	l.at(end(2035, 4, 2), "holds it to its last second", func() { l.are(map[jpki.Kind]string{jpki.CardAuth: "good"}) })
	l.at(day(2035, 4, 3), "is late", func() {
		l.refused(a.a.Renew, "card-c2", jpki.NotRenewable, jpki.CardAuth)
		l.gets(a.a.Issue, "card-c3", end(2040, 4, 2), jpki.CardAuth)
	})
	l.at(day(2040, 3, 1), "gets a card before the age of 15", func() {
		l.refused(a.a.Issue, "card-c4", jpki.NotEligible, card...)
		l.gets(a.a.Issue, "card-c4", end(2044, 4, 2), jpki.CardAuth)
	})
	l.at(end(2041, 4, 1), "is 14 for another second", func() { l.refused(a.a.Issue, "card-c4", jpki.NotEligible, jpki.CardSign) })
	l.at(end(2041, 4, 1).Add(time.Second), "is 15", func() {
		l.gets(a.a.Issue, "card-c4", end(2044, 4, 2), jpki.CardSign) // no longer than the authentication certificate beside it
	})
	l.at(day(2041, 5, 1), "gets a phone", func() { l.gets(a.a.Issue, "phone-c1", end(2044, 4, 2), phone...) })
	l.at(day(2044, 4, 2), "is of age and gets a card for ten years", func() {
		l.gets(a.a.Issue, "card-c5", end(2049, 4, 2), card...)
		l.are(map[jpki.Kind]string{jpki.PhoneSign: "revoked superseded", jpki.PhoneAuth: "good"}) // asked for with the former card
	})
	l.at(day(2049, 1, 2), "renews", func() { l.gets(a.a.Renew, "card-c5", end(2054, 4, 2), card...) })
	l.at(day(2050, 1, 1), "gets a phone", func() { l.gets(a.a.Issue, "phone-c2", end(2054, 4, 2), phone...) })
	l.at(day(2050, 6, 1), "loses the card, in times encoded otherwise", func() { l.orders(a.a.Suspend, centre, "card-c5", jpki.Lost, card...) })
	l.at(day(2051, 6, 1), "dies", func() { l.reports(jpki.Event{Type: jpki.Death}, every...) })
	return l
}

func lifeOfAnAdult(w *world) *life {
	l := w.life("adult", 1980, 2, 17)
	a := w
	l.at(day(2026, 4, 2), "is in the register", func() { l.registers(time.Time{}) })
	l.at(day(2026, 4, 3), "gets a card", func() { l.gets(a.a.Issue, "card-a1", end(2031, 2, 17), card...) })
	l.at(day(2026, 5, 1), "gets a phone", func() { l.gets(a.a.Issue, "phone-a1", end(2031, 2, 17), phone...) })
	l.at(day(2027, 3, 30), "moves", func() { l.moves(other, jpki.CardSign, jpki.PhoneSign) })
	l.at(day(2027, 3, 31), "signs again, with the card and the phone", func() {
		l.refused(a.a.Issue, "phone-a1", jpki.Malformed, jpki.PhoneSign)
		l.gets(a.a.Issue, "card-a1", end(2031, 2, 17), jpki.CardSign)
		l.gets(a.a.Issue, "phone-a1", end(2031, 2, 17), jpki.PhoneSign)
	})
	l.at(day(2028, 6, 1), "marries", func() {
		l.reports(jpki.Event{Type: jpki.NameChanged, Attributes: l.becomes(func(a *jpki.Attributes) { a.Name = "箱庭　花子" })}, jpki.CardSign, jpki.PhoneSign)
		l.gets(a.a.Issue, "card-a1", end(2031, 2, 17), jpki.CardSign)
	})
	l.at(time.Date(2028, 8, 1, 3, 0, 0, 0, jpki.JST), "loses the card at three in the morning", func() {
		l.orders(a.a.Suspend, centre, "card-a1", jpki.Lost, card...)
		l.are(map[jpki.Kind]string{jpki.CardSign: "suspended certificateHold", jpki.PhoneAuth: "good"})
		if _, err := a.change(a.a.Resume, l.place, ca.ChangeRequest{Token: "card-a1", Cause: jpki.Found}); !errors.Is(err, jpki.ForbiddenChange) {
			a.t.Errorf("a card's suspension ended well: %v", err)
		}
	})
	l.at(day(2028, 8, 20), "gets a new card", func() { l.gets(a.a.Issue, "card-a2", end(2033, 2, 17), card...) })
	l.at(day(2028, 9, 1), "signs with the phone again", func() {
		l.gets(a.a.Issue, "phone-a1", end(2033, 2, 17), jpki.PhoneSign)
		l.are(map[jpki.Kind]string{jpki.PhoneAuth: "good"})
	})
	l.at(day(2028, 10, 1), "loses the phone", func() { l.orders(a.a.Suspend, centre, "phone-a1", jpki.Lost, phone...) })
	l.at(day(2028, 10, 2), "finds the phone", func() {
		l.orders(a.a.Resume, l.place, "phone-a1", jpki.Found, jpki.PhoneAuth)
		l.are(map[jpki.Kind]string{jpki.PhoneSign: "suspended certificateHold", jpki.PhoneAuth: "good", jpki.CardSign: "good"})
		sign := l.certs[jpki.PhoneSign].ID
		if _, err := a.change(a.a.Revoke, l.place, ca.ChangeRequest{Certificate: &sign, Cause: jpki.HolderRequest}); err != nil {
			a.t.Error(err)
		}
		l.gets(a.a.Issue, "phone-a1", end(2033, 2, 17), jpki.PhoneSign)
	})
	l.at(day(2029, 1, 1), "gets another phone", func() {
		former := []jpki.CertID{l.certs[jpki.PhoneSign].ID, l.certs[jpki.PhoneAuth].ID}
		l.gets(a.a.Issue, "phone-a2", end(2033, 2, 17), phone...)
		a.expect(map[jpki.CertID]string{former[0]: "revoked superseded", former[1]: "revoked superseded"})
	})
	l.at(end(2032, 11, 16), "is early", func() { l.refused(a.a.Renew, "card-a2", jpki.NotRenewable, card...) })
	l.at(end(2032, 11, 16).Add(time.Second), "renews at the first second", func() {
		l.gets(a.a.Renew, "card-a2", end(2038, 2, 17), card...)
		l.are(map[jpki.Kind]string{jpki.PhoneSign: "revoked superseded", jpki.PhoneAuth: "good"})
		delete(l.certs, jpki.PhoneSign)
		l.gets(a.a.Renew, "phone-a2", end(2038, 2, 17), jpki.PhoneAuth)
	})
	l.at(end(2038, 2, 17), "finds that the card ends with the certificates", func() { l.refused(a.a.Renew, "card-a2", jpki.NoValidityLeft, card...) })
	l.at(day(2038, 2, 18), "gets a card", func() { l.gets(a.a.Issue, "card-a3", end(2043, 2, 17), card...) })
	l.at(day(2039, 1, 1), "moves to where a place is renamed", func() {
		l.moves(yama, jpki.CardSign)
		l.gets(a.a.Issue, "card-a3", end(2043, 2, 17), jpki.CardSign)
		l.reports(jpki.Event{Type: jpki.AddressRenamed, Municipality: "99303", Attributes: l.becomes(func(a *jpki.Attributes) { a.Address = "砂箱県新町1番" })})
	})
	l.at(day(2040, 1, 1), "comes under guardianship", func() {
		l.reports(jpki.Event{Type: jpki.GuardianshipBegan}, jpki.CardSign)
		l.refused(a.a.Issue, "card-a3", jpki.NotEligible, jpki.CardSign)
	})
	l.at(day(2041, 1, 1), "can act again", func() {
		l.reports(jpki.Event{Type: jpki.GuardianshipEnded})
		l.gets(a.a.Issue, "card-a3", end(2043, 2, 17), jpki.CardSign)
	})
	l.at(day(2042, 1, 1), "leaves the country", func() {
		l.reports(jpki.Event{Type: jpki.Departure}, card...)
		l.refused(a.a.Issue, "card-a4", jpki.NotEligible, jpki.CardAuth)
	})
	l.at(day(2044, 1, 1), "returns", func() {
		l.place = counter
		l.registers(time.Time{})
		l.gets(a.a.Issue, "card-a4", end(2048, 2, 17), card...)
	})
	l.at(day(2045, 1, 1), "gives the card back", func() { l.orders(a.a.Revoke, l.place, "card-a4", jpki.CardReturned, card...) })
	l.at(day(2046, 1, 1), "dies", func() { l.reports(jpki.Event{Type: jpki.Death}) })
	return l
}

// Born on a day that most years do not have.
func lifeOfALeapling(w *world) *life {
	l := w.life("leapling", 2012, 2, 29)
	a := w
	l.at(day(2026, 6, 1), "is in the register", func() { l.registers(time.Time{}) })
	l.at(end(2027, 2, 27), "is 14 for another second", func() { l.refused(a.a.Issue, "card-l1", jpki.NotEligible, card...) })
	l.at(end(2027, 2, 27).Add(time.Second), "is 15", func() { l.gets(a.a.Issue, "card-l1", end(2032, 2, 29), card...) })
	l.at(end(2031, 11, 28), "is early", func() { l.refused(a.a.Renew, "card-l1", jpki.NotRenewable, card...) })
	l.at(day(2031, 11, 29), "gets a card for ten years", func() { l.gets(a.a.Issue, "card-l2", end(2036, 2, 29), card...) })
	l.at(day(2036, 2, 28), "renews a day before the birthday", func() { l.gets(a.a.Renew, "card-l2", end(2041, 2, 28), card...) })
	l.at(end(2040, 11, 27), "is early", func() { l.refused(a.a.Renew, "card-l2", jpki.NotRenewable, card...) })
	l.at(end(2040, 11, 27).Add(time.Second), "needs a card and takes it on the last birthday but one", func() { l.gets(a.a.Issue, "card-l3", end(2045, 2, 28), card...) })
	return l
}

// A foreign resident, whose certificates end with the stay.
func lifeOfAGuest(w *world) *life {
	l := w.life("guest", 1990, 12, 31)
	a := w
	extended := func(until time.Time) {
		l.reports(jpki.Event{Type: jpki.StayExtended, StayUntil: &until})
	}
	l.at(day(2026, 9, 1), "arrives", func() { l.registers(end(2027, 8, 31)) })
	l.at(day(2026, 9, 10), "gets a card", func() { l.gets(a.a.Issue, "card-g1", end(2027, 8, 31), card...) })
	l.at(day(2026, 10, 1), "gets a phone", func() { l.gets(a.a.Issue, "phone-g1", end(2027, 8, 31), phone...) })
	l.at(end(2027, 5, 30), "is early", func() { l.refused(a.a.Renew, "card-g1", jpki.NotRenewable, card...) })
	l.at(day(2027, 6, 15), "may stay longer", func() {
		extended(end(2030, 8, 31))
		l.gets(a.a.Renew, "card-g1", end(2030, 8, 31), card...)
		delete(l.certs, jpki.PhoneSign)
		l.gets(a.a.Renew, "phone-g1", end(2030, 8, 31), jpki.PhoneAuth)
	})
	l.at(end(2030, 8, 31), "overstays", func() { l.refused(a.a.Renew, "card-g1", jpki.NoValidityLeft, card...) })
	l.at(day(2030, 9, 1), "is told to leave, and certificates have ended", func() {
		l.refused(a.a.Issue, "card-g2", jpki.NoValidityLeft, card...)
		l.certs = map[jpki.Kind]ca.Issued{}
		l.reports(jpki.Event{Type: jpki.Departure})
	})
	l.at(day(2032, 3, 1), "comes back for good", func() {
		l.registers(time.Time{})
		l.gets(a.a.Issue, "card-g2", end(2036, 12, 31), card...)
	})
	return l
}

// The authority's own life: a generation every five years, long before the last one ends.
func lifeOfTheAuthority(w *world) *life {
	l := w.life("authority", 0, 1, 0)
	for n, year := range map[int]int{2: 2031, 3: 2036, 4: 2041, 5: 2046} {
		l.at(day(year, 3, 1), "makes a generation", func() { w.generation(n, w.now) })
	}
	return l
}

func TestWholeLife(t *testing.T) {
	t.Parallel()
	onBoth(t, func(w *world) {
		w.tell(lifeOfTheAuthority(w), lifeOfAChild(w), lifeOfAnAdult(w), lifeOfALeapling(w), lifeOfAGuest(w))
	})
}

// A generation that nobody replaces bounds what it issues, down to nothing.
func TestLifeEndsWithTheCAs(t *testing.T) {
	onBoth(t, func(w *world) {
		last := w.issuers[0].Certificate.NotAfter // ten years less a day after 1 March 2026
		if !last.Equal(end(2036, 2, 29)) {
			w.t.Fatalf("the CA ends %s", last)
		}
		l := w.life("late", 1980, 6, 1)
		l.at(day(2031, 6, 1), "is in the register", func() {
			l.registers(time.Time{})
			l.gets(w.a.Issue, "card-1", last, card...)
		})
		l.at(day(2036, 1, 1), "renews and gains nothing", func() { l.gets(w.a.Renew, "card-1", last, card...) })
		l.at(last.Add(-time.Second), "gets two seconds", func() { l.gets(w.a.Issue, "card-2", last, card...) })
		l.at(last, "gets nothing", func() { l.refused(w.a.Issue, "card-3", jpki.NoValidityLeft, card...) })
		l.at(last.Add(time.Second), "has nothing", func() {
			l.refused(w.a.Issue, "card-3", jpki.NoValidityLeft, card...)
			if err := w.db.View(w.t.Context(), func(tx *store.Tx) error {
				certs, err := tx.CertificatesOf("late")
				for _, c := range certs {
					if c.Live(w.now) {
						w.t.Errorf("%s outlives its CA", c.ID)
					}
				}
				return err
			}); err != nil {
				w.t.Error(err)
			}
		})
		w.tell(l)
	})
}
