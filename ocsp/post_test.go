package ocsp_test

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"testing"
	"time"

	"github.com/openjpki/jpki/ocsp"
)

// A post for a new generation is filled before AddPost returns, or is not there at all.
func TestAddPost(t *testing.T) {
	w := newWorld(t, p256(), p256(), p256(), now, withNear)
	c := &certifier{w: w, ends: 30 * 24 * time.Hour}
	newKey := func(context.Context) (crypto.Signer, error) { return p256(), nil }
	var refuse error
	var used []ocsp.Delegate
	k := must(ocsp.NewKeeper(ocsp.KeeperConfig{
		Posts:     []ocsp.Post{{Issuer: w.first.id, IssuerCertificate: w.first.cert, NewKey: newKey}},
		Certifier: c, Now: w.clock.now, Rand: bytes.NewReader(make([]byte, 100)),
		Use: func(d []ocsp.Delegate) error {
			if refuse == nil {
				used = d
			}
			return refuse
		},
	}))
	if err := k.Look(t.Context()); err != nil || len(used) != 1 {
		t.Fatalf("%v, %d delegates", err, len(used))
	}
	second := ocsp.Post{Issuer: w.second.id, IssuerCertificate: w.second.cert, NewKey: newKey}
	for name, fault := range map[string]func() (heal func()){
		"the authority is away": func() func() { c.down = true; return func() { c.down = false } },
		"it is of the future":   func() func() { c.begins = time.Hour; return func() { c.begins = 0 } },
		"the responder refuses": func() func() { refuse = errors.New("not now"); return func() { refuse = nil } },
		"it is for another key": func() func() { c.another = true; return func() { c.another = false } },
		"no issuer's certificate": func() func() {
			second.IssuerCertificate = nil
			return func() { second.IssuerCertificate = w.second.cert }
		},
	} {
		heal := fault()
		if err := k.AddPost(t.Context(), second); err == nil || len(used) != 1 || len(k.Delegates()) != 1 {
			t.Errorf("%s: %v, %d used, %d held", name, err, len(used), len(k.Delegates()))
		}
		heal()
		if err := k.Look(t.Context()); err != nil || len(used) != 1 || len(k.Delegates()) != 1 { // it left nothing behind
			t.Errorf("after %s: %v, %d used, %d held", name, err, len(used), len(k.Delegates()))
		}
	}
	if err := k.AddPost(t.Context(), second); err != nil || len(used) != 2 || used[1].Issuer != w.second.id {
		t.Fatalf("%v, %+v", err, used)
	}
	// It is renewed like the other.
	before := [2][]byte{used[0].Certificate.Raw, used[1].Certificate.Raw}
	w.clock.advance(25 * 24 * time.Hour)
	if err := k.Look(t.Context()); err != nil || bytes.Equal(used[0].Certificate.Raw, before[0]) || bytes.Equal(used[1].Certificate.Raw, before[1]) {
		t.Errorf("not renewed: %v", err)
	}
	// One that has a holder costs no certificate, and is used as it is.
	made := c.serial
	k = must(ocsp.NewKeeper(ocsp.KeeperConfig{
		Posts:     []ocsp.Post{{Issuer: w.first.id, IssuerCertificate: w.first.cert, NewKey: newKey, Now: &used[0]}},
		Certifier: c, Now: w.clock.now, Rand: bytes.NewReader(make([]byte, 100)), Use: w.responder.SetDelegates,
	}))
	second.Now = &used[1]
	if err := k.AddPost(t.Context(), second); err != nil || c.serial != made || len(k.Delegates()) != 2 {
		t.Errorf("%v, %d certificates made, %d held", err, c.serial-made, len(k.Delegates()))
	}
}

// An authority that stays away: the old delegate answers to its last second, then everybody is told to try later, and no
// answer ever has a signer whose certificate has ended. When it is back, answers are back at the next look.
func TestAuthorityStaysAway(t *testing.T) {
	w := newWorld(t, p256(), p256(), p256(), now, withNear)
	c := &certifier{w: w, ends: 3 * time.Hour}
	newKey := func(context.Context) (crypto.Signer, error) { return p256(), nil }
	k := must(ocsp.NewKeeper(ocsp.KeeperConfig{
		Posts: []ocsp.Post{
			{Issuer: w.first.id, IssuerCertificate: w.first.cert, NewKey: newKey},
			{Issuer: w.second.id, IssuerCertificate: w.second.cert, NewKey: newKey},
		},
		Certifier: c, Use: w.responder.SetDelegates, Now: w.clock.now, Rand: bytes.NewReader([]byte{0, 0}),
	}))
	if err := k.Look(t.Context()); err != nil {
		t.Fatal(err)
	}
	ends := k.Delegates()[0].Certificate.NotAfter
	c.down = true
	for !w.clock.now().After(ends.Add(10 * time.Minute)) {
		err := k.Look(t.Context())
		if due := ends.Sub(w.clock.now()) <= time.Hour; (err != nil) != due {
			t.Fatalf("%v before the end: %v", ends.Sub(w.clock.now()), err)
		}
		at := w.clock.now()
		r := w.exchange(t.Context(), t, crypto.SHA256, nil, w.good)
		switch {
		case at.After(ends):
			if r.Status != ocsp.TryLater {
				t.Fatalf("%v after the end: %v", at.Sub(ends), r.Status)
			}
		case r.Status != ocsp.Successful:
			t.Fatalf("%v before the end: %v", ends.Sub(at), r.Status)
		case r.Certificates[0].NotAfter.Before(at) || r.Answers[0].NextUpdate.After(r.Certificates[0].NotAfter):
			t.Fatalf("%v before the end: an answer outlives its signer", ends.Sub(at))
		}
		w.clock.advance(30 * time.Second)
	}
	c.down = false
	if err := k.Look(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r := w.exchange(t.Context(), t, crypto.SHA256, nil, w.good); r.Status != ocsp.Successful || !r.Certificates[0].NotAfter.After(w.clock.now()) {
		t.Errorf("the authority is back: %v", r.Status)
	}
}
