package ca

import (
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/store"
)

// The law, written down a second time and in another form: which kinds an event ends, and what is published.
func TestRulesSayWhatTheLawSays(t *testing.T) {
	changed, ended := jpki.AffiliationChanged, jpki.CessationOfOperation
	want := map[jpki.EventType]map[jpki.Kind]jpki.Reason{
		jpki.Registered:        {},
		jpki.AddressChanged:    {jpki.CardSign: changed, jpki.PhoneSign: changed},
		jpki.NameChanged:       {jpki.CardSign: changed, jpki.PhoneSign: changed},
		jpki.BirthDateAmended:  {jpki.CardSign: changed, jpki.PhoneSign: changed},
		jpki.SexAmended:        {jpki.CardSign: changed, jpki.PhoneSign: changed},
		jpki.AddressRenamed:    {},
		jpki.Death:             {jpki.CardSign: ended, jpki.CardAuth: ended, jpki.PhoneSign: ended, jpki.PhoneAuth: ended},
		jpki.Departure:         {jpki.CardSign: ended, jpki.CardAuth: ended, jpki.PhoneSign: ended, jpki.PhoneAuth: ended},
		jpki.GuardianshipBegan: {jpki.CardSign: ended, jpki.PhoneSign: ended},
		jpki.GuardianshipEnded: {},
		jpki.StayExtended:      {},
		jpki.ProtectionBegan:   {},
		jpki.ProtectionEnded:   {},
	}
	for _, event := range jpki.EventTypes {
		for _, kind := range jpki.Kinds {
			var rows []rule
			for _, r := range rules {
				if r.on == event && r.kind == kind {
					rows = append(rows, r)
				}
			}
			if len(rows) != 1 {
				t.Errorf("%s × %s has %d rows", event, kind, len(rows))
				continue
			}
			reason, ends := rows[0].cause.Reason()
			wantReason, wantEnd := want[event][kind]
			if ends != wantEnd || ends && reason != wantReason {
				t.Errorf("%s × %s: ends %v with %v, want %v with %v", event, kind, ends, reason, wantEnd, wantReason)
			}
		}
	}
}

func TestTransitions(t *testing.T) {
	a := &Authority{transitions: transitionsWith([]jpki.Kind{jpki.PhoneAuth})}
	for _, from := range []jpki.State{jpki.Good, jpki.Suspended, jpki.Revoked} {
		for _, do := range []command{suspend, resume, revoke} {
			for _, kind := range jpki.Kinds {
				want := map[command]bool{
					suspend: from == jpki.Good,
					resume:  from == jpki.Suspended && kind == jpki.PhoneAuth,
					revoke:  from != jpki.Revoked,
				}[do]
				_, err := a.allowed(store.Certificate{Kind: kind, Status: jpki.Status{State: from}}, do, jpki.Counter)
				if (err == nil) != want {
					t.Errorf("%s a %s %s: %v, want allowed %v", do, from, kind, err, want)
				}
			}
		}
	}
	for role, want := range map[jpki.Role]map[command]bool{
		jpki.CallCentre: {suspend: true}, jpki.Register: {revoke: true}, jpki.Counter: {suspend: true, resume: true, revoke: true},
		jpki.Holder: {suspend: true, resume: true, revoke: true}, jpki.System: {suspend: true, revoke: true},
	} {
		for do, from := range map[command]jpki.State{suspend: jpki.Good, resume: jpki.Suspended, revoke: jpki.Good} {
			_, err := a.allowed(store.Certificate{Kind: jpki.PhoneAuth, Status: jpki.Status{State: from}}, do, role)
			if (err == nil) != want[do] {
				t.Errorf("%s may %s: %v, want %v", role, do, err, want[do])
			}
		}
	}
	if _, err := (&Authority{transitions: transitionsWith(jpki.Kinds)}).allowed(store.Certificate{Kind: jpki.CardSign, Status: jpki.Status{State: jpki.Suspended}}, resume, jpki.Counter); err != nil {
		t.Errorf("an operator whose rules release cards: %v", err)
	}
}

func jst(y int, m time.Month, d, h, min, s int) time.Time {
	return time.Date(y, m, d, h, min, s, 0, jpki.JST)
}

// The terms of today's cards and of the next generation's, as the law and the plans have them.
var (
	today = Validity{Birthdays: 5, Renewed: 6, RenewalMonths: 3, CardAdult: 10, CardMinor: 5, FullAge: 18, AuthorityYears: 10}
	next  = Validity{Birthdays: 10, Renewed: 11, RenewalMonths: 12, CardAdult: 10, CardMinor: 5, FullAge: 18, AuthorityYears: 15}
)

func TestNotAfter(t *testing.T) {
	for name, c := range map[string]struct {
		born    jpki.BirthDate
		now     time.Time
		renewed bool
		caps    []time.Time
		want    time.Time
	}{
		"a published example":              {"319800217", jst(2025, 10, 27, 12, 0, 0), false, nil, jst(2030, 2, 17, 23, 59, 59)},
		"issued the day before":            {"319800217", jst(2026, 2, 16, 23, 59, 59), false, nil, jst(2030, 2, 17, 23, 59, 59)},
		"issued on the birthday":           {"319800217", jst(2026, 2, 17, 0, 0, 0), false, nil, jst(2031, 2, 17, 23, 59, 59)},
		"birthday in Japan, not in UTC":    {"319800217", time.Date(2026, 2, 16, 15, 0, 0, 0, time.UTC), false, nil, jst(2031, 2, 17, 23, 59, 59)},
		"renewed":                          {"319800217", jst(2025, 10, 27, 12, 0, 0), true, nil, jst(2031, 2, 17, 23, 59, 59)},
		"capped by the card":               {"319800217", jst(2025, 10, 27, 12, 0, 0), false, []time.Time{jst(2028, 5, 5, 23, 59, 59), jst(2029, 1, 1, 0, 0, 0)}, jst(2028, 5, 5, 23, 59, 59)},
		"29 February, ends in a leap year": {"319960229", jst(2027, 6, 1, 0, 0, 0), false, nil, jst(2032, 2, 29, 23, 59, 59)},
		"29 February, ends in another":     {"319960229", jst(2026, 6, 1, 0, 0, 0), false, nil, jst(2031, 2, 28, 23, 59, 59)},
		"29 February, issued on the 28th":  {"319960229", jst(2026, 2, 28, 9, 0, 0), false, nil, jst(2031, 2, 28, 23, 59, 59)},
		"29 February, issued on the 27th":  {"319960229", jst(2026, 2, 27, 9, 0, 0), false, nil, jst(2030, 2, 28, 23, 59, 59)},
		"day of birth unknown":             {"319500300", jst(2026, 4, 1, 9, 0, 0), false, nil, jst(2031, 4, 1, 23, 59, 59)},
		"nothing known":                    {"000000000", jst(2026, 4, 1, 9, 0, 0), false, nil, jst(2031, 4, 1, 23, 59, 59)},
		"unknown, issued on 29 February":   {"000000000", jst(2028, 2, 29, 9, 0, 0), false, nil, jst(2033, 2, 28, 23, 59, 59)},
	} {
		if got := today.notAfter(c.born, c.now, c.renewed, c.caps...); !got.Equal(c.want) {
			t.Errorf("%s: %v, want %v", name, got.In(jpki.JST), c.want)
		}
	}
}

// The next generation: ten birthdays, eleven for who renews in the last year.
func TestNotAfterOfTheNextGeneration(t *testing.T) {
	for name, c := range map[string]struct {
		born    jpki.BirthDate
		now     time.Time
		renewed bool
		caps    []time.Time
		want    time.Time
	}{
		"issued":                               {"319800217", jst(2029, 10, 27, 12, 0, 0), false, nil, jst(2039, 2, 17, 23, 59, 59)},
		"issued on the birthday":               {"319800217", jst(2029, 2, 17, 0, 0, 0), false, nil, jst(2039, 2, 17, 23, 59, 59)},
		"renewed on the first day":             {"319800217", jst(2038, 2, 17, 0, 0, 0), true, nil, jst(2049, 2, 17, 23, 59, 59)},
		"renewed on the last day":              {"319800217", jst(2039, 2, 17, 23, 59, 59), true, nil, jst(2050, 2, 17, 23, 59, 59)},
		"29 February, ends in a common year":   {"320000229", jst(2029, 3, 1, 0, 0, 0), false, nil, jst(2039, 2, 28, 23, 59, 59)},
		"29 February, ends in a leap year":     {"320000229", jst(2030, 2, 28, 0, 0, 0), false, nil, jst(2040, 2, 29, 23, 59, 59)},
		"29 February, renewed":                 {"320000229", jst(2039, 2, 1, 0, 0, 0), true, nil, jst(2049, 2, 28, 23, 59, 59)},
		"capped by a minor's card":             {"420150501", jst(2029, 10, 27, 0, 0, 0), false, []time.Time{jst(2034, 5, 1, 23, 59, 59)}, jst(2034, 5, 1, 23, 59, 59)},
		"capped by a stay":                     {"319900101", jst(2029, 10, 27, 0, 0, 0), false, []time.Time{jst(2030, 4, 30, 12, 0, 0), jst(2044, 1, 1, 0, 0, 0)}, jst(2030, 4, 30, 12, 0, 0)},
		"the CA certificate is not in the way": {"319800217", jst(2033, 1, 1, 0, 0, 0), true, []time.Time{endOfDay(jst(2029, 1, 15, 0, 0, 0), next.AuthorityYears, -1)}, jst(2043, 2, 17, 23, 59, 59)},
	} {
		if got := next.notAfter(c.born, c.now, c.renewed, c.caps...); !got.Equal(c.want) {
			t.Errorf("%s: %v, want %v", name, got.In(jpki.JST), c.want)
		}
	}
	end := jst(2040, 2, 29, 23, 59, 59)
	for at, want := range map[time.Time]bool{jst(2039, 2, 27, 23, 59, 59): false, jst(2039, 2, 28, 0, 0, 0): true, end: true, end.Add(time.Second): false} {
		if got := next.renewable(end, at); got != want {
			t.Errorf("renewable on %v: %v", at, got)
		}
	}
}

func TestAge(t *testing.T) {
	for name, c := range map[string]struct {
		born jpki.BirthDate
		now  time.Time
		want int
	}{
		"the day before":        {"420110402", jst(2026, 4, 1, 23, 59, 59), 14},
		"the day":               {"420110402", jst(2026, 4, 2, 0, 0, 0), 15},
		"29 February":           {"420080229", jst(2023, 2, 28, 0, 0, 0), 15},
		"29 February, too soon": {"420080229", jst(2023, 2, 27, 23, 0, 0), 14},
		"month unknown":         {"420110000", jst(2026, 12, 30, 0, 0, 0), 14},
		"year unknown":          {"400000000", jst(2026, 4, 1, 0, 0, 0), 150},
	} {
		if got := age(c.born, c.now); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

func TestRenewable(t *testing.T) {
	end := jst(2030, 5, 31, 23, 59, 59)
	for at, want := range map[time.Time]bool{
		jst(2030, 2, 27, 23, 59, 59): false, jst(2030, 2, 28, 0, 0, 0): true, end: true, end.Add(time.Second): false,
	} {
		if got := today.renewable(end, at); got != want {
			t.Errorf("renewable on %v: %v", at, got)
		}
	}
}

func TestCardEnd(t *testing.T) {
	if got := today.cardEnd("319800217", jst(2026, 4, 1, 0, 0, 0)); !got.Equal(jst(2036, 2, 17, 23, 59, 59)) {
		t.Errorf("an adult's card ends %v", got.In(jpki.JST))
	}
	if got := today.cardEnd("420100401", jst(2026, 4, 1, 0, 0, 0)); !got.Equal(jst(2031, 4, 1, 23, 59, 59)) {
		t.Errorf("a minor's card ends %v", got.In(jpki.JST))
	}
}
