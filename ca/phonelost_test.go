package ca_test

import (
	"errors"
	"testing"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
)

// What is held ends with what it hangs on, and when another phone takes its place; what was found is good again for its
// log-in alone.
func TestLostPhones(t *testing.T) {
	onBoth(t, func(w *world) {
		holder := jpki.Actor{Role: jpki.Holder, ID: "h1"}
		card := w.issue("h1", "card-1", jpki.CardSign, jpki.CardAuth)
		phone := func(token string, kinds ...jpki.Kind) []ca.Issued {
			w.t.Helper()
			r := w.request("h1", token, kinds...)
			r.Parent = &card[0].ID
			got, err := w.a.Issue(w.t.Context(), counter, r)
			if err != nil {
				w.t.Fatal(err)
			}
			for _, c := range got {
				if c.NotAfter.After(card[0].NotAfter) {
					w.t.Errorf("%s of %s ends %v, after the card's %v", c.Kind, token, c.NotAfter, card[0].NotAfter)
				}
			}
			return got
		}
		lose := func(token string) {
			w.t.Helper()
			if _, err := w.change(w.a.Suspend, centre, ca.ChangeRequest{Token: token, Cause: jpki.Lost}); err != nil {
				w.t.Fatal(err)
			}
		}
		// Another phone in the place of one that is lost: found later, it stays what it is.
		first := phone("phone-1", jpki.PhoneSign, jpki.PhoneAuth)
		lose("phone-1")
		second := phone("phone-2", jpki.PhoneSign, jpki.PhoneAuth)
		w.expect(map[jpki.CertID]string{first[0].ID: "revoked superseded", first[1].ID: "revoked superseded", second[0].ID: "good", second[1].ID: "good"})
		if got, err := w.change(w.a.Resume, holder, ca.ChangeRequest{Token: "phone-1", Cause: jpki.Found}); !errors.Is(err, jpki.UnknownCertificate) {
			w.t.Errorf("a replaced phone was found: %v %v", got, err)
		}
		// A move while the phone is lost.
		lose("phone-2")
		if _, err := w.event(jpki.Event{Holder: "h1", Type: jpki.AddressChanged, Municipality: "99101", Attributes: with(func(a *jpki.Attributes) { a.Address = "砂箱県青葉市南町四丁目5番6号" })}); err != nil {
			w.t.Fatal(err)
		}
		w.expect(map[jpki.CertID]string{card[0].ID: "revoked affiliationChanged", second[0].ID: "revoked affiliationChanged", second[1].ID: "suspended certificateHold"})
		// Found by its holder: the log-in, and on the strength of the next card signature certificate the signature.
		got, err := w.change(w.a.Resume, holder, ca.ChangeRequest{Token: "phone-2", Cause: jpki.Found})
		if err != nil || len(got) != 1 || got[0].ID != second[1].ID {
			w.t.Errorf("found: %v %v", got, err)
		}
		card[0] = w.issue("h1", "card-1", jpki.CardSign)[0]
		again := phone("phone-2", jpki.PhoneSign)
		w.expect(map[jpki.CertID]string{second[0].ID: "revoked affiliationChanged", second[1].ID: "good", again[0].ID: "good"})
		// Nothing outlives its holder, held or not.
		lose("phone-2")
		if _, err := w.event(jpki.Event{Holder: "h1", Type: jpki.Death}); err != nil {
			w.t.Fatal(err)
		}
		w.expect(map[jpki.CertID]string{
			card[0].ID: "revoked cessationOfOperation", card[1].ID: "revoked cessationOfOperation",
			again[0].ID: "revoked cessationOfOperation", second[1].ID: "revoked cessationOfOperation",
		})
	})
}

// The card's signature certificate that asks must be in force: not held, as a lost card's is, and not over.
func TestNoPhoneFromALostCard(t *testing.T) {
	onBoth(t, func(w *world) {
		card := w.issue("h1", "card-1", jpki.CardSign, jpki.CardAuth)
		ask := func() error {
			r := w.request("h1", "phone-1", jpki.PhoneAuth)
			r.Parent = &card[0].ID
			_, issue := w.a.Issue(w.t.Context(), counter, r)
			_, begin := w.a.BeginPhoneEnrolment(w.t.Context(), counter, ca.PhoneEnrolmentRequest{Holder: "h1", Token: "phone-1", Parent: card[0].ID, Kinds: []jpki.Kind{jpki.PhoneAuth}})
			if !errors.Is(begin, jpki.Forbidden) {
				w.t.Errorf("an enrolment was begun: %v", begin)
			}
			return issue
		}
		w.now = card[0].NotAfter.AddDate(0, 0, 1)
		if err := ask(); !errors.Is(err, jpki.Forbidden) {
			w.t.Errorf("with a certificate that is over: %v", err)
		}
		w.now = card[0].NotAfter.AddDate(0, 0, -1)
		if _, err := w.change(w.a.Suspend, centre, ca.ChangeRequest{Token: "card-1", Cause: jpki.Lost}); err != nil {
			w.t.Fatal(err)
		}
		if err := ask(); !errors.Is(err, jpki.Forbidden) {
			w.t.Errorf("with a lost card: %v", err)
		}
	})
}
