package api_test

import (
	"errors"
	"testing"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/client"
)

// A phone is lost, found, replaced, and outlives its card but for the signature; every step over the API, by who may.
func TestLifeOfAPhone(t *testing.T) {
	w := newWorld(t)
	counter, hotline, ctx := w.as(w.counter), w.as(w.hotline), t.Context()
	gets := func(key, token string, parent *jpki.CertID, kinds ...jpki.Kind) map[jpki.Kind]jpki.CertID {
		t.Helper()
		o := order(t, token, kinds...)
		o.Parent = parent
		got, err := counter.Issue(ctx, key, o)
		if err != nil {
			t.Fatal(err)
		}
		out := map[jpki.Kind]jpki.CertID{}
		for _, c := range got.Certificates {
			out[c.Kind] = c.ID
		}
		return out
	}
	are := func(token string, ids map[jpki.Kind]jpki.CertID, want map[jpki.Kind]string) {
		t.Helper()
		on, err := counter.Token(ctx, token)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range on.Certificates {
			state := string(c.State)
			if c.Reason != "" {
				state += " " + c.Reason
			}
			if ids[c.Kind] == c.ID && state != want[c.Kind] {
				t.Errorf("%s on %s is %s, want %s", c.Kind, token, state, want[c.Kind])
			}
		}
	}
	const held, good, replaced = "suspended certificateHold", "good", "revoked superseded"
	card := gets("card", "card-1", nil, jpki.CardSign, jpki.CardAuth)
	parent := card[jpki.CardSign]
	phone := gets("phone", "phone-1", &parent, jpki.PhoneSign, jpki.PhoneAuth)

	// Lost: the call centre holds the phone's, and not the card's. It releases nothing and ends nothing.
	if got, err := hotline.Suspend(ctx, "lost", client.Change{Token: "phone-1", Cause: jpki.Lost}); err != nil || len(got.Changed) != 2 {
		t.Fatal(got, err)
	}
	are("phone-1", phone, map[jpki.Kind]string{jpki.PhoneSign: held, jpki.PhoneAuth: held})
	are("card-1", card, map[jpki.Kind]string{jpki.CardSign: good, jpki.CardAuth: good})
	if _, err := hotline.Resume(ctx, "h1", client.Change{Token: "phone-1", Cause: jpki.Found}); !errors.Is(err, jpki.Forbidden) {
		t.Error("the call centre releases:", err)
	}
	if _, err := hotline.Revoke(ctx, "h2", client.Change{Token: "phone-1", Cause: jpki.HolderRequest}); !errors.Is(err, jpki.Forbidden) {
		t.Error("the call centre revokes:", err)
	}
	if _, err := hotline.Suspend(ctx, "h3", client.Change{Token: "phone-1", Cause: jpki.Lost}); !errors.Is(err, jpki.ForbiddenChange) {
		t.Error("suspended twice:", err)
	}

	// Found: the authentication certificate alone is released. The signature certificate stays held, is ended and issued anew.
	if got, err := counter.Resume(ctx, "found", client.Change{Token: "phone-1", Cause: jpki.Found}); err != nil || len(got.Changed) != 1 || got.Changed[0].Kind != jpki.PhoneAuth {
		t.Error(got, err)
	}
	are("phone-1", phone, map[jpki.Kind]string{jpki.PhoneSign: held, jpki.PhoneAuth: good})
	sign := phone[jpki.PhoneSign]
	if _, err := counter.Resume(ctx, "found-2", client.Change{Certificate: &sign, Cause: jpki.Found}); !errors.Is(err, jpki.ForbiddenChange) {
		t.Error("a signature certificate was released:", err)
	}
	again := order(t, "phone-1", jpki.PhoneSign)
	again.Parent = &parent
	if _, err := counter.Issue(ctx, "early", again); !errors.Is(err, jpki.AlreadyCertified) {
		t.Error("issued anew beside one that is held:", err)
	}
	if _, err := counter.Revoke(ctx, "end", client.Change{Certificate: &sign, Cause: jpki.HolderRequest}); err != nil {
		t.Error(err)
	}
	phone[jpki.PhoneSign] = gets("anew", "phone-1", &parent, jpki.PhoneSign)[jpki.PhoneSign]
	are("phone-1", phone, map[jpki.Kind]string{jpki.PhoneSign: good, jpki.PhoneAuth: good})

	// One person, one phone.
	second := gets("second", "phone-2", &parent, jpki.PhoneSign, jpki.PhoneAuth)
	are("phone-1", phone, map[jpki.Kind]string{jpki.PhoneSign: replaced, jpki.PhoneAuth: replaced})
	are("phone-2", second, map[jpki.Kind]string{jpki.PhoneSign: good, jpki.PhoneAuth: good})

	// A card that is held takes nothing along; one whose authentication certificate ends does not; the signature's end does.
	if _, err := hotline.Suspend(ctx, "card-lost", client.Change{Token: "card-1", Cause: jpki.Lost}); err != nil {
		t.Error(err)
	}
	are("phone-2", second, map[jpki.Kind]string{jpki.PhoneSign: good, jpki.PhoneAuth: good})
	auth := card[jpki.CardAuth]
	if _, err := counter.Revoke(ctx, "auth", client.Change{Certificate: &auth, Cause: jpki.HolderRequest}); err != nil {
		t.Error(err)
	}
	are("phone-2", second, map[jpki.Kind]string{jpki.PhoneSign: good, jpki.PhoneAuth: good})
	if got, err := counter.Revoke(ctx, "sign", client.Change{Certificate: &parent, Cause: jpki.HolderRequest}); err != nil || len(got.Changed) != 2 {
		t.Error(got, err)
	}
	are("phone-2", second, map[jpki.Kind]string{jpki.PhoneSign: "revoked cessationOfOperation", jpki.PhoneAuth: good})
}
