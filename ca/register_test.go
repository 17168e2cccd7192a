package ca_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/store"
)

func (w *world) holder(id string) (h store.Holder) {
	w.t.Helper()
	if err := w.db.View(w.t.Context(), func(tx *store.Tx) (err error) { h, err = tx.Holder(id); return err }); err != nil {
		w.t.Fatal(err)
	}
	return h
}

// Each row tells h1's events in the order in which they arrive; at is in hours after the registration.
func TestEventsInAnyOrder(t *testing.T) {
	const (
		first  = "砂箱県青葉市中央一丁目2番3号" // as registered
		south  = "砂箱県青葉市南町四丁目5番6号"
		north  = "砂箱県青葉市北町七丁目8番9号"
		merged = "砂箱県大青葉市南町四丁目5番6号"
	)
	move := func(at int, to string) jpki.Event {
		return jpki.Event{Type: jpki.AddressChanged, EffectiveAt: time.Unix(int64(at), 0), Municipality: "99101", Attributes: with(func(a *jpki.Attributes) { a.Address = to })}
	}
	rename := func(at int, to string) jpki.Event { e := move(at, to); e.Type = jpki.AddressRenamed; return e }
	named := func(e jpki.Event, name string) jpki.Event { e.Attributes.Name = name; return e }
	name := func(at int, name, address string) jpki.Event {
		return named(jpki.Event{Type: jpki.NameChanged, EffectiveAt: time.Unix(int64(at), 0), Attributes: move(at, address).Attributes}, name)
	}
	plain := func(at int, typ jpki.EventType) jpki.Event {
		return jpki.Event{Type: typ, EffectiveAt: time.Unix(int64(at), 0)}
	}
	for title, c := range map[string]struct {
		events  []jpki.Event
		changed []int // certificates each event ends; there is a new signature certificate before each
		name    string
		address string
	}{
		"in order":                                                  {[]jpki.Event{move(1, south), move(2, north)}, []int{1, 1}, "砂場　花子", north},
		"two moves, the later first":                                {[]jpki.Event{move(2, north), move(1, south)}, []int{1, 0}, "砂場　花子", north},
		"back again, the middle one last":                           {[]jpki.Event{move(1, south), move(3, south), move(2, north)}, []int{1, 0, 1}, "砂場　花子", south},
		"a name, then an older move with the old name":              {[]jpki.Event{name(2, "新名　花子", first), move(1, south)}, []int{1, 1}, "新名　花子", south},
		"a name of the same time as the move, with the old address": {[]jpki.Event{move(1, south), name(1, "新名　花子", first)}, []int{1, 1}, "新名　花子", south},
		"a name without its municipality moves nobody":              {[]jpki.Event{name(1, "新名　花子", north)}, []int{1}, "新名　花子", first},
		"a move that brings a new name":                             {[]jpki.Event{named(move(1, first), "新名　花子")}, []int{1}, "新名　花子", first},
		"a renaming that brings a new name":                         {[]jpki.Event{named(rename(1, south), "新名　花子")}, []int{1}, "新名　花子", south},
		"a merger":                                                  {[]jpki.Event{rename(1, merged)}, []int{0}, "砂場　花子", merged},
		"a merger, then the move before it":                         {[]jpki.Event{rename(2, merged), move(1, south), move(1, south)}, []int{0, 1, 1}, "砂場　花子", merged},
		"a merger after a move known":                               {[]jpki.Event{move(2, south), rename(3, merged), move(1, north)}, []int{1, 0, 0}, "砂場　花子", merged},
		"the same address again":                                    {[]jpki.Event{move(1, first)}, []int{0}, "砂場　花子", first},
		"another width and spacing":                                 {[]jpki.Event{move(1, "砂箱県 青葉市中央一丁目2番3号"), move(2, "砂箱県青葉市中央一丁目２番３号")}, []int{1, 1}, "砂場　花子", "砂箱県青葉市中央一丁目２番３号"},
		"another width":                                             {[]jpki.Event{move(1, "砂箱県青葉市中央一丁目２番３号"), name(2, "砂場  花子", first)}, []int{0, 0}, "砂場　花子", first},
		"another width as a renaming is written down":               {[]jpki.Event{rename(1, "砂箱県青葉市中央一丁目２番３号")}, []int{0}, "砂場　花子", "砂箱県青葉市中央一丁目２番３号"},
		"a variant ideograph is another name":                       {[]jpki.Event{name(1, "神場　花子", first), name(2, "\uFA19場　花子", first)}, []int{1, 1}, "\uFA19場　花子", first},
		"kana in two code points":                                   {[]jpki.Event{name(1, "さわだ　花子", first), name(2, "さわた\u3099　花子", first)}, []int{1, 0}, "さわだ　花子", first},
		"guardianship began and ended, in the other order":          {[]jpki.Event{plain(2, jpki.GuardianshipEnded), plain(1, jpki.GuardianshipBegan)}, []int{0, 1}, "砂場　花子", first},
		"left, then a move before that":                             {[]jpki.Event{plain(3, jpki.Departure), move(2, south)}, []int{1, 0}, "砂場　花子", first},
	} {
		t.Run(title, func(t *testing.T) {
			onBoth(t, func(w *world) {
				start := w.holder("h1").Since.Address
				for i, e := range c.events {
					if w.holder("h1").Ended == "" {
						w.issue("h1", fmt.Sprint("card-", i), jpki.CardSign)
					}
					e.Holder, e.EffectiveAt = "h1", start.Add(time.Duration(e.EffectiveAt.Unix())*time.Hour)
					w.now = start.Add(100 * time.Hour)
					out, err := w.event(e)
					if err != nil || !out.Applied || len(out.Changed) != c.changed[i] {
						w.t.Errorf("event %d: %+v %v, want %d certificates ended", i+1, out, err, c.changed[i])
					}
				}
				if h := w.holder("h1"); h.Attributes.Name != c.name || h.Attributes.Address != c.address {
					w.t.Errorf("the register says %q %q, want %q %q", h.Attributes.Name, h.Attributes.Address, c.name, c.address)
				}
				w.check()
			})
		})
	}
}

// A night's worth in small: what many events do together is what they do one by one.
func TestManyEventsAtOnce(t *testing.T) {
	onBoth(t, func(w *world) {
		born := jpki.NewBirthDate(1980, 2, 17)
		var events []jpki.Event
		for i := range 50 {
			w.people = append(w.people, fmt.Sprint("p", i))
			events = append(events, jpki.Event{ID: fmt.Sprint("reg", i), Holder: fmt.Sprint("p", i), Type: jpki.Registered, EffectiveAt: w.now.Add(-time.Hour), Municipality: "99101", Attributes: attributes(born)})
		}
		for i, r := range w.a.ApplyResidentEvents(w.t.Context(), register, events) {
			if r.Err != nil || !r.Applied {
				w.t.Fatalf("%d: %+v", i, r)
			}
		}
		var sign, auth []jpki.CertID
		for i := range 6 {
			out := w.issue(fmt.Sprint("p", i), fmt.Sprint("c", i), jpki.CardSign, jpki.CardAuth)
			sign, auth = append(sign, out[0].ID), append(auth, out[1].ID)
		}
		phone := w.request("p5", "phone-5", jpki.PhoneSign, jpki.PhoneAuth)
		phone.Parent = &sign[5]
		phones, err := w.a.Issue(w.t.Context(), counter, phone)
		if err != nil {
			w.t.Fatal(err)
		}
		moved := with(func(a *jpki.Attributes) { a.Address = "砂箱県湊市港町1番" })
		e := func(id, holder string, typ jpki.EventType, place string, a *jpki.Attributes) jpki.Event {
			return jpki.Event{ID: id, Holder: holder, Type: typ, EffectiveAt: w.now, Municipality: place, Attributes: a}
		}
		future := e("m3", "p3", jpki.AddressChanged, "99202", moved)
		future.EffectiveAt = w.now.Add(time.Hour)
		night := []jpki.Event{
			e("m0", "p0", jpki.AddressChanged, "99202", moved),
			e("m0", "p0", jpki.AddressChanged, "99202", moved), // the same again
			e("m0", "p1", jpki.AddressChanged, "99202", moved), // other content
			e("n0", "p0", jpki.NameChanged, "", with(func(a *jpki.Attributes) { a.Name, a.Address = "新名　花子", moved.Address })),
			e("r1", "p1", jpki.AddressRenamed, "99202", moved), // keeps
			e("d2", "p2", jpki.Death, "", nil),                 // ends all
			e("x2", "p2", jpki.NameChanged, "", moved),         // of the dead
			future,                                // waits
			e("u", "nobody", jpki.Death, "", nil), // unknown
			e("bad", "p4", "exploded", "", nil),   // malformed
			e("m5", "p5", jpki.AddressChanged, "99202", moved),          // the phone's falls with it
			e("new", "p99", jpki.Registered, "99101", attributes(born)), // somebody new,
			e("new2", "p99", jpki.AddressChanged, "99202", moved),       // who moves at once
		}
		want := []string{"applied 1", "applied 1", "event-conflict", "applied 0", "applied 0", "applied 2", "event-conflict", "waits", "unknown-holder", "malformed", "applied 2", "applied 0", "applied 0"}
		say := func(r ca.EventResult) string {
			switch {
			case r.Err != nil:
				return string(jpki.ProblemOf(r.Err))
			case !r.Applied:
				return "waits"
			}
			return fmt.Sprint("applied ", len(r.Changed))
		}
		w.people = append(w.people, "p99")
		for range 2 { // and all of it once more
			for i, r := range w.a.ApplyResidentEvents(w.t.Context(), register, night) {
				if say(r) != want[i] {
					w.t.Errorf("%s: %s (%v), want %s", night[i].ID, say(r), r.Err, want[i])
				}
			}
		}
		w.expect(map[jpki.CertID]string{
			sign[0]: "revoked affiliationChanged", auth[0]: "good", sign[1]: "good", auth[1]: "good", sign[2]: "revoked cessationOfOperation", auth[2]: "revoked cessationOfOperation",
			sign[3]: "good", sign[5]: "revoked affiliationChanged", auth[5]: "good", phones[0].ID: "revoked affiliationChanged", phones[1].ID: "good",
		})
		if h := w.holder("p0"); h.Attributes.Name != "新名　花子" || h.Municipality != "99202" {
			w.t.Errorf("two events on one holder in one transaction: %s", h.Municipality)
		}
		if h := w.holder("p99"); h.Municipality != "99202" {
			w.t.Errorf("registered and moved in one transaction: %s", h.Municipality)
		}
		w.now = w.now.Add(2 * time.Hour)
		if n, err := w.a.ApplyDue(w.t.Context()); n != 1 || err != nil {
			w.t.Errorf("due: %d %v", n, err)
		}
		w.expect(map[jpki.CertID]string{sign[3]: "revoked affiliationChanged"})
		for _, r := range w.a.ApplyResidentEvents(w.t.Context(), counter, night[:1]) {
			if !errors.Is(r.Err, jpki.Forbidden) {
				w.t.Error(r.Err)
			}
		}
		for _, r := range w.a.ApplyResidentEvents(w.t.Context(), register, make([]jpki.Event, ca.MaxEventGroup+1)) {
			if !errors.Is(r.Err, jpki.TooLarge) {
				w.t.Fatal(r.Err)
			}
		}
		w.check()
	})
}

// Waiting events that cannot take effect do not hinder those behind them, however many they are.
func TestDueEventsPassTheOnesThatCannot(t *testing.T) {
	onBoth(t, func(w *world) {
		var events []jpki.Event
		for i := range ca.MaxEventGroup {
			events = append(events, jpki.Event{ID: fmt.Sprint("stuck", i), Holder: "nobody", Type: jpki.Death, EffectiveAt: w.now.Add(time.Hour)})
		}
		w.a.ApplyResidentEvents(w.t.Context(), register, events)
		if out, err := w.event(jpki.Event{ID: "last", Holder: "h1", Type: jpki.Death, EffectiveAt: w.now.Add(2 * time.Hour)}); err != nil || out.Applied {
			w.t.Fatal(out, err)
		}
		w.now = w.now.Add(3 * time.Hour)
		n, err := w.a.ApplyDue(w.t.Context())
		if n != 1 || !errors.Is(err, jpki.UnknownHolder) || !strings.Contains(err.Error(), "stuck199") {
			w.t.Errorf("%d applied, %v", n, err)
		}
		if w.holder("h1").Ended != jpki.Death {
			w.t.Error("the event behind them has not taken effect")
		}
	})
}

// The same event twice in one group: the second is told what became of the first.
func TestAnEventThatIsClosedIsClosedOnce(t *testing.T) {
	onBoth(t, func(w *world) {
		move := jpki.Event{ID: "later", Holder: "h1", Type: jpki.AddressChanged, EffectiveAt: w.now.Add(time.Hour), Municipality: "99202", Attributes: attributes(jpki.NewBirthDate(1980, 2, 17))}
		if out, err := w.event(move); err != nil || out.Applied {
			w.t.Fatal(out, err)
		}
		if _, err := w.event(jpki.Event{Holder: "h1", Type: jpki.Death}); err != nil {
			w.t.Fatal(err)
		}
		w.now = w.now.Add(2 * time.Hour)
		for i, r := range w.a.ApplyResidentEvents(w.t.Context(), register, []jpki.Event{move, move}) {
			if !errors.Is(r.Err, jpki.EventConflict) || r.Applied {
				w.t.Errorf("event %d: %+v", i+1, r)
			}
		}
		if n := w.audited("resident-event.refused"); n != 1 {
			w.t.Errorf("closed %d times", n)
		}
	})
}
