package ca_test

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
)

// This file is the law of the life of certificates written a second time, as prose would have it: no tables, no database,
// days counted one by one. The model test compares the authority with it. A verdict is the set of all that speaks against a
// request; the authority may name any of it.

type verdict map[jpki.Problem]bool

func (v verdict) if_(against bool, p jpki.Problem) {
	if against {
		v[p] = true
	}
}

type lawHolder struct {
	attributes jpki.Attributes
	place      string
	ward       bool
	stay       *time.Time
	ended      jpki.EventType
	// As of when the last was told, by subject.
	since map[string]time.Time
}

type lawToken struct {
	kind   jpki.TokenType
	holder string
	until  time.Time
	parent jpki.CertID
}

type lawCert struct {
	id        jpki.CertID
	kind      jpki.Kind
	holder    string
	token     string
	notAfter  time.Time
	delivered bool
	replaces  jpki.CertID // zero for the first
	state     jpki.State
	cause     jpki.Cause
	since     time.Time
}

type lawEvent struct {
	jpki.Event
	body    string
	state   string // waiting, applied, refused
	changed []jpki.CertID
}

type lawRequest struct {
	what string // everything about it
	ids  []jpki.CertID
}

// A law is the state of the world as it should be.
type law struct {
	now     time.Time
	caEnd   time.Time
	holders map[string]lawHolder
	tokens  map[string]lawToken
	certs   []lawCert // in the order of issuance
	keys    map[int]bool
	once    map[string]lawRequest // by actor and idempotency key
	events  map[string]lawEvent
}

func newLaw(caEnd time.Time) *law {
	return &law{caEnd: caEnd, holders: map[string]lawHolder{}, tokens: map[string]lawToken{}, keys: map[int]bool{}, once: map[string]lawRequest{}, events: map[string]lawEvent{}}
}

func (m *law) clone() *law {
	c := *m
	c.holders, c.tokens, c.keys, c.once, c.events = maps.Clone(m.holders), maps.Clone(m.tokens), maps.Clone(m.keys), maps.Clone(m.once), maps.Clone(m.events)
	c.certs = slices.Clone(m.certs)
	return &c
}

func (m *law) live(c lawCert) bool { return c.state != jpki.Revoked && !m.now.After(c.notAfter) }

func (m *law) cert(id jpki.CertID) (int, bool) {
	i := slices.IndexFunc(m.certs, func(c lawCert) bool { return c.id == id })
	return i, i >= 0
}

// isBirthday counts 28 February for those born on the 29th where the year has none.
func isBirthday(born jpki.BirthDate, day time.Time) bool {
	_, month, dom := born.Parts()
	if month == 2 && dom == 29 && day.Month() == time.February && day.Day() == 28 {
		return day.AddDate(0, 0, 1).Day() == 1
	}
	return int(day.Month()) == month && day.Day() == dom
}

func midnight(t time.Time) time.Time {
	t = t.In(jpki.JST)
	return time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, jpki.JST)
}

// birthdayEnd goes from day to day until it has seen n birthdays, and returns the last second of that one.
func birthdayEnd(born jpki.BirthDate, from time.Time, n int) time.Time {
	day := midnight(from)
	for n > 0 {
		if day = day.AddDate(0, 0, 1); isBirthday(born, day) {
			n--
		}
	}
	return day.AddDate(0, 0, 1).Add(-time.Second)
}

func isOfAge(born jpki.BirthDate, years int, now time.Time) bool {
	year, month, _ := born.Parts()
	day := time.Date(year+years, time.Month(month), 1, 0, 0, 0, 0, jpki.JST)
	for !isBirthday(born, day) {
		day = day.AddDate(0, 0, 1)
	}
	return !midnight(now).Before(day)
}

// inWindow: the same day three months before the last one, or where there is none the last of that month, begins it.
func inWindow(notAfter, now time.Time) bool {
	last := notAfter.In(jpki.JST)
	first := time.Date(last.Year(), last.Month()-3, 1, 0, 0, 0, 0, jpki.JST)
	for first.Day() < last.Day() && first.AddDate(0, 0, 1).Month() == first.Month() {
		first = first.AddDate(0, 0, 1)
	}
	return !now.Before(first) && !now.After(notAfter)
}

// An ask is a request for certificates.
type ask struct {
	by     jpki.Actor
	renew  bool
	holder string
	token  string
	kinds  []jpki.Kind
	keys   []int
	parent *jpki.CertID
}

// grant is what an ask is to get.
type grant struct {
	notAfter []time.Time
	replaces []jpki.CertID
	ends     []jpki.CertID
	until    time.Time // of the token
}

func (m *law) ask(a ask) (verdict, grant) {
	v, g := verdict{}, grant{}
	if a.by.Role != jpki.Counter {
		return verdict{jpki.Forbidden: true}, g
	}
	h, found := m.holders[a.holder]
	if !found {
		return verdict{jpki.UnknownHolder: true}, g
	}
	v.if_(h.place != a.by.Municipality, jpki.WrongMunicipality)
	v.if_(h.ended != "", jpki.NotEligible)
	phone := a.kinds[0] == jpki.PhoneSign || a.kinds[0] == jpki.PhoneAuth
	for i, k := range a.kinds {
		if k != jpki.CardAuth { // the only one for children and wards
			v.if_(!isOfAge(h.attributes.BirthDate, 15, m.now) || h.ward, jpki.NotEligible)
		}
		v.if_(m.keys[a.keys[i]], jpki.KeyReused)
	}
	t, known := m.tokens[a.token]
	switch {
	case known && t.holder != a.holder:
		v[jpki.Forbidden] = true
	case known && (t.kind == jpki.Phone) != phone:
		v[jpki.Malformed] = true
	case !known && a.renew:
		v[jpki.UnknownToken] = true
	}
	g.until = t.until
	switch {
	case !known && !phone && isOfAge(h.attributes.BirthDate, 18, m.now):
		g.until = birthdayEnd(h.attributes.BirthDate, m.now, 10)
	case !known && !phone:
		g.until = birthdayEnd(h.attributes.BirthDate, m.now, 5)
	case phone && a.parent == nil:
		v[jpki.Malformed] = true
	case phone:
		i, found := m.cert(*a.parent)
		if !found {
			v[jpki.UnknownCertificate] = true
			break
		}
		p := m.certs[i]
		v.if_(p.holder != a.holder || p.kind != jpki.CardSign || p.state != jpki.Good || !m.live(p), jpki.Forbidden)
		g.until = p.notAfter
	}
	var auth time.Time // the end of the authentication certificate that will be beside the signature certificate
	for _, c := range m.certs {
		if c.token == a.token && c.kind == jpki.CardAuth && m.live(c) {
			auth = c.notAfter
		}
	}
	for _, k := range a.kinds {
		i := slices.IndexFunc(m.certs, func(c lawCert) bool { return c.token == a.token && c.kind == k && m.live(c) })
		switch {
		case a.renew && (i < 0 || m.certs[i].state != jpki.Good || !inWindow(m.certs[i].notAfter, m.now)):
			v[jpki.NotRenewable] = true
		case a.renew:
			g.ends = append(g.ends, m.certs[i].id)
		case i >= 0:
			v[jpki.AlreadyCertified] = true
		}
		end := g.until
		if !phone {
			end = earliest(end, birthdayEnd(h.attributes.BirthDate, m.now, map[bool]int{false: 5, true: 6}[a.renew]))
		}
		end = earliest(end, m.caEnd)
		if h.stay != nil {
			end = earliest(end, *h.stay)
		}
		g.notAfter = append(g.notAfter, end)
		if k == jpki.CardAuth {
			auth = end
		}
		var last jpki.CertID
		for _, c := range m.certs {
			if c.holder == a.holder && c.kind == k {
				last = c.id
			}
		}
		g.replaces = append(g.replaces, last)
	}
	for i, k := range a.kinds {
		if k == jpki.CardSign && !auth.IsZero() {
			g.notAfter[i] = earliest(g.notAfter[i], auth)
		}
		v.if_(!g.notAfter[i].After(m.now), jpki.NoValidityLeft)
	}
	if !a.renew {
		for _, c := range m.certs {
			if c.holder == a.holder && c.token != a.token && m.live(c) && (c.kind == jpki.PhoneSign || c.kind == jpki.PhoneAuth) == phone {
				g.ends = append(g.ends, c.id)
			}
		}
	}
	return v, g
}

func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// given records what an ask got, under the numbers it was given.
func (m *law) given(a ask, g grant, ids []jpki.CertID) {
	cause := jpki.TokenReplaced
	if a.renew {
		cause = jpki.Renewed
	}
	for _, id := range g.ends {
		if i, _ := m.cert(id); m.certs[i].state != jpki.Revoked { // else it fell with another
			m.revoke(i, cause)
		}
	}
	m.touch(a, g)
	if t := m.tokens[a.token]; t.kind == jpki.Phone {
		t.until, t.parent = g.until, *a.parent
		m.tokens[a.token] = t
	}
	for i, k := range a.kinds {
		m.keys[a.keys[i]] = true
		m.certs = append(m.certs, lawCert{
			id: ids[i], kind: k, holder: a.holder, token: a.token, notAfter: g.notAfter[i], replaces: g.replaces[i], state: jpki.Good, since: m.now.Truncate(time.Second),
		})
	}
}

// touch makes a token known, which is so even if the issuance then fails.
func (m *law) touch(a ask, g grant) {
	if _, known := m.tokens[a.token]; known {
		return
	}
	t := lawToken{kind: jpki.Card, holder: a.holder, until: g.until}
	if a.parent != nil {
		t.kind, t.parent = jpki.Phone, *a.parent
	}
	m.tokens[a.token] = t
}

func (m *law) set(i int, s jpki.State, cause jpki.Cause) jpki.CertID {
	c := &m.certs[i]
	c.state, c.cause = s, cause
	if now := m.now.Truncate(time.Second); now.After(c.since) {
		c.since = now
	}
	return c.id
}

// revoke ends a certificate and the phone's signature certificate that hangs on it.
func (m *law) revoke(i int, cause jpki.Cause) []jpki.CertID {
	changed := []jpki.CertID{m.set(i, jpki.Revoked, cause)}
	if m.certs[i].kind != jpki.CardSign {
		return changed
	}
	for j, c := range m.certs {
		if c.kind == jpki.PhoneSign && m.live(c) && m.tokens[c.token].parent == m.certs[i].id {
			changed = append(changed, m.set(j, jpki.Revoked, cause))
		}
	}
	return changed
}

// An order is a command on a token's certificates, or on one.
type order struct {
	by    jpki.Actor
	do    string // suspend, resume, revoke
	token string
	cert  *jpki.CertID
	cause jpki.Cause
}

func (m *law) order(o order) (verdict, []jpki.CertID) {
	v := verdict{}
	belongs := map[jpki.Cause]string{
		jpki.Lost: "suspend", jpki.KeyDoubt: "suspend", jpki.Found: "resume", jpki.HolderRequest: "revoke", jpki.KeyCompromised: "revoke",
		jpki.CardReturned: "revoke", jpki.RecordError: "revoke", jpki.Discarded: "revoke",
	}[o.cause]
	if belongs != o.do {
		return verdict{jpki.Malformed: true}, nil
	}
	if o.by.Role == jpki.CallCentre && o.do != "suspend" {
		return verdict{jpki.Forbidden: true}, nil
	}
	var on []int
	holder := ""
	if o.cert != nil {
		i, found := m.cert(*o.cert)
		if !found {
			return verdict{jpki.UnknownCertificate: true}, nil
		}
		holder, on = m.certs[i].holder, []int{i}
		v.if_(!m.live(m.certs[i]), jpki.ForbiddenChange)
	} else {
		t, found := m.tokens[o.token]
		if !found {
			return verdict{jpki.UnknownToken: true}, nil
		}
		holder = t.holder
		for i, c := range m.certs {
			if c.token == o.token && m.live(c) {
				on = append(on, i)
			}
		}
		v.if_(len(on) == 0, jpki.UnknownCertificate)
	}
	v.if_(o.by.Role == jpki.Counter && o.by.Municipality != m.holders[holder].place, jpki.WrongMunicipality)
	able := slices.DeleteFunc(slices.Clone(on), func(i int) bool {
		c := m.certs[i]
		switch o.do {
		case "suspend":
			return c.state != jpki.Good
		case "resume":
			return c.state != jpki.Suspended || c.kind != jpki.PhoneAuth // the law for cards: never; phones sign anew
		}
		return c.state == jpki.Revoked
	})
	v.if_(len(able) == 0 && len(on) > 0, jpki.ForbiddenChange)
	for _, i := range on {
		v.if_(o.cause == jpki.Discarded && m.certs[i].delivered && m.live(m.certs[i]), jpki.ForbiddenChange)
	}
	if len(v) > 0 {
		return v, nil
	}
	var changed []jpki.CertID
	for _, i := range able {
		switch o.do {
		case "suspend":
			changed = append(changed, m.set(i, jpki.Suspended, o.cause))
		case "resume":
			changed = append(changed, m.set(i, jpki.Good, o.cause))
		case "revoke":
			changed = append(changed, m.revoke(i, o.cause)...)
		}
	}
	return v, changed
}

func (m *law) deliver(by jpki.Actor, token string) (verdict, []jpki.CertID) {
	if by.Role != jpki.Counter {
		return verdict{jpki.Forbidden: true}, nil
	}
	t, found := m.tokens[token]
	if !found {
		return verdict{jpki.UnknownToken: true}, nil
	}
	if m.holders[t.holder].place != by.Municipality {
		return verdict{jpki.WrongMunicipality: true}, nil
	}
	var ids []jpki.CertID
	for i := range m.certs {
		if c := &m.certs[i]; c.token == token && m.live(*c) && !c.delivered {
			c.delivered = true
			ids = append(ids, c.id)
		}
	}
	return nil, ids
}

// event takes in an event and returns whether it took effect and what it ended.
func (m *law) event(e jpki.Event) (verdict, bool, []jpki.CertID) {
	body := fmt.Sprintf("%+v %v %v", e, e.Attributes, e.StayUntil)
	if e.Attributes != nil { // which do not print
		body += e.Attributes.Name + e.Attributes.Address + string(e.Attributes.BirthDate) + string(e.Attributes.Sex)
	}
	if known, found := m.events[e.ID]; found {
		switch {
		case known.body != body || known.state == "refused":
			return verdict{jpki.EventConflict: true}, false, nil
		case known.state == "applied":
			return nil, true, known.changed
		}
	}
	told := lawEvent{Event: e, body: body, state: "waiting"}
	if e.EffectiveAt.After(m.now) {
		m.events[e.ID] = told
		return nil, false, nil
	}
	_, waited := m.events[e.ID]
	v, changed := m.effect(e)
	switch {
	case len(v) == 0:
		told.state, told.changed = "applied", changed
		m.events[e.ID] = told
	case waited && v[jpki.EventConflict]:
		told.state = "refused"
		m.events[e.ID] = told
	}
	return v, true, changed
}

// effect follows docs/decisions/0014: each subject has its own time.
func (m *law) effect(e jpki.Event) (verdict, []jpki.CertID) {
	h, found := m.holders[e.Holder]
	at, a, enters := e.EffectiveAt, e.Attributes, e.Type == jpki.Registered
	switch {
	case !found && !enters:
		return verdict{jpki.UnknownHolder: true}, nil
	case h.ended != "" && at.Before(h.since["presence"]):
		return nil, nil
	case enters && found && h.ended != jpki.Departure, !enters && h.ended != "":
		return verdict{jpki.EventConflict: true}, nil
	}
	before := h.since
	if h.since = maps.Clone(before); h.since == nil {
		h.since = map[string]time.Time{}
	}
	// about reports whether the event has the last word on a subject, and notes that it spoke.
	about := func(subject string) bool {
		last := !at.Before(before[subject])
		if last {
			h.since[subject] = at
		}
		return last
	}
	var causes []jpki.Cause // the first is the one that counts
	all := false
	switch e.Type {
	case jpki.Registered:
		for _, subject := range []string{"name", "birth", "sex", "address", "move", "stay"} {
			h.since[subject] = at
		}
		if h.ended != "" {
			h.since["presence"] = at
		}
		h.attributes, h.place, h.stay, h.ended = *a, e.Municipality, e.StayUntil, ""
	case jpki.Departure:
		if all = about("presence"); all {
			h.ended, causes = e.Type, []jpki.Cause{jpki.LeftRegister}
		}
	case jpki.Death:
		h.since["presence"] = at
		all, h.ended, causes = true, e.Type, []jpki.Cause{jpki.Died}
	case jpki.StayExtended:
		if about("stay") {
			h.stay = e.StayUntil
		}
	case jpki.GuardianshipBegan:
		if about("ward") {
			h.ward = true
		}
		if about("beginning") { // even if its end is known already
			causes = append(causes, jpki.Guardianship)
		}
	case jpki.GuardianshipEnded:
		if about("ward") {
			h.ward = false
		}
	default: // of the attributes, of which all are told and one is meant
		if where := e.Type == jpki.AddressChanged || e.Type == jpki.AddressRenamed; where {
			other := h.attributes.Address != a.Address || h.place != e.Municipality
			last := about("address")
			if last {
				h.attributes.Address, h.attributes.AddressSubstitutes, h.place = a.Address, a.AddressSubstitutes, e.Municipality
			}
			// A move ends certificates even if the place has another name by now, but not if there was a later move.
			if e.Type == jpki.AddressChanged && (other || !last) && about("move") {
				causes = append(causes, jpki.Moved)
			}
		}
		// changes reports whether an attribute becomes another: what is meant counts from its time on, the others behind it.
		changes := func(subject string, meant jpki.EventType, other bool) bool {
			if e.Type == meant {
				return about(subject) && other
			}
			return other && at.After(before[subject]) && about(subject)
		}
		if changes("name", jpki.NameChanged, h.attributes.Name != a.Name) {
			h.attributes.Name, h.attributes.NameSubstitutes = a.Name, a.NameSubstitutes
			causes = append(causes, jpki.Renamed)
		}
		if changes("birth", jpki.BirthDateAmended, h.attributes.BirthDate != a.BirthDate) {
			h.attributes.BirthDate = a.BirthDate
			causes = append(causes, jpki.BirthDateChanged)
		}
		if changes("sex", jpki.SexAmended, h.attributes.Sex != a.Sex) {
			h.attributes.Sex = a.Sex
			causes = append(causes, jpki.SexChanged)
		}
	}
	m.holders[e.Holder] = h
	if len(causes) == 0 {
		return nil, nil
	}
	var changed []jpki.CertID
	for i, c := range m.certs {
		if c.holder == e.Holder && m.live(m.certs[i]) && (all || c.kind == jpki.CardSign || c.kind == jpki.PhoneSign) {
			changed = append(changed, m.revoke(i, causes[0])...)
		}
	}
	return nil, changed
}

// due lets what waits take effect, and returns how many did.
func (m *law) due() (applied int) {
	waiting := slices.Collect(maps.Values(m.events))
	slices.SortFunc(waiting, func(a, b lawEvent) int { return cmp.Or(a.EffectiveAt.Compare(b.EffectiveAt), cmp.Compare(a.ID, b.ID)) })
	for _, e := range waiting {
		if e.state != "waiting" || e.EffectiveAt.After(m.now) {
			continue
		}
		v, changed := m.effect(e.Event)
		switch {
		case v[jpki.EventConflict]:
			e.state = "refused"
		case len(v) > 0:
			continue
		default:
			e.state, e.changed = "applied", changed
			applied++
		}
		m.events[e.ID] = e
	}
	return applied
}

func idsOf(issued []ca.Issued) (ids []jpki.CertID) {
	for _, i := range issued {
		ids = append(ids, i.ID)
	}
	return ids
}
