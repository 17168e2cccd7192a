package ocsp_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"math/big"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ocsp"
)

// A certifier is the authority's side of it.
type certifier struct {
	w       *world
	down    bool
	ends    time.Duration // life of a certificate
	begins  time.Duration // from now
	serial  int64
	another bool // certifies a key that nobody asked about
}

func (c *certifier) CertifyResponder(_ context.Context, issuer jpki.IssuerID, key crypto.Signer) (*x509.Certificate, error) {
	if c.down {
		return nil, errors.New("the authority is away")
	}
	a := map[jpki.IssuerID]*authority{c.w.first.id: c.w.first, c.w.second.id: c.w.second}[issuer]
	tmpl := a.delegateTemplate()
	c.serial++
	tmpl.SerialNumber = big.NewInt(c.serial)
	tmpl.NotBefore = c.w.clock.now().Add(c.begins).Truncate(time.Second)
	tmpl.NotAfter = tmpl.NotBefore.Add(c.ends)
	if c.another {
		key = p256()
	}
	return a.issue(tmpl, key), nil
}

// Over a year of thirty-day certificates, with an authority that is often away, there is no moment without an answer and
// no answer that outlives its delegate.
func TestKeeper(t *testing.T) {
	w := newWorld(t, p256(), p256(), p256(), now, withNear)
	c := &certifier{w: w, ends: 30 * 24 * time.Hour}
	kept := 0
	newKey := func(context.Context) (crypto.Signer, error) { return p256(), nil }
	k := must(ocsp.NewKeeper(ocsp.KeeperConfig{
		Posts: []ocsp.Post{
			{Issuer: w.first.id, IssuerCertificate: w.first.cert, NewKey: newKey, Now: &w.delegates[0]}, // ends tomorrow
			{Issuer: w.second.id, IssuerCertificate: w.second.cert, NewKey: newKey},
		},
		Certifier: c, Use: w.responder.SetDelegates, Now: w.clock.now, Rand: bytes.NewReader([]byte{0, 255}),
		Keep: func(context.Context, ocsp.Delegate) error { kept++; return nil },
	}))
	signers := map[string]bool{}
	for hour := range 365 * 24 {
		c.down = hour > 0 && hour/(9*24)%2 == 1 // nine days here, nine days away
		if hour%24 != 0 && hour > 48 {
			w.clock.advance(time.Hour)
			continue
		}
		if err := k.Look(t.Context()); err != nil && !c.down {
			t.Fatal(err)
		}
		r := w.exchange(t.Context(), t, crypto.SHA256, nil, w.good)
		if r.Status != ocsp.Successful {
			t.Fatalf("hour %d: %v", hour, r.Status)
		}
		if r.Answers[0].NextUpdate.After(r.Certificates[0].NotAfter) {
			t.Errorf("hour %d: the answer outlives its delegate", hour)
		}
		signers[string(r.Certificates[0].Raw)] = true
		w.clock.advance(time.Hour)
	}
	if len(signers) < 13 || len(signers) > 20 || kept != int(k.Outcomes()["renewed"]) || len(k.Delegates()) != 2 || k.Outcomes()["failed"] == 0 {
		t.Errorf("%d signers, %d kept, %d delegates, %v", len(signers), kept, len(k.Delegates()), k.Outcomes())
	}
}

func TestKeeperIsCareful(t *testing.T) {
	w := newWorld(t, p256(), p256(), p256(), now)
	c := &certifier{w: w, ends: time.Hour}
	newKey := func(context.Context) (crypto.Signer, error) { return p256(), nil }
	used := 0
	var refuse error
	cfg := ocsp.KeeperConfig{
		Posts:     []ocsp.Post{{Issuer: w.first.id, IssuerCertificate: w.first.cert, NewKey: newKey}},
		Certifier: c, Now: w.clock.now, Rand: bytes.NewReader(make([]byte, 100)),
		Use: func([]ocsp.Delegate) error { used++; return refuse },
	}
	k := must(ocsp.NewKeeper(cfg))
	// The wrong key, an issuer that is another, a certificate that has ended: none is used.
	c.another = true
	if err := k.Look(t.Context()); err == nil || used != 0 {
		t.Errorf("another key: %v, used %d times", err, used)
	}
	c.another, c.begins = false, -2*time.Hour
	if err := k.Look(t.Context()); err == nil || used != 0 {
		t.Errorf("has ended: %v, used %d times", err, used)
	}
	// One of the future waits.
	c.begins = 10 * time.Minute
	if err := k.Look(t.Context()); err != nil || used != 0 || len(k.Delegates()) != 0 {
		t.Errorf("of the future: %v, used %d times", err, used)
	}
	w.clock.advance(10 * time.Minute)
	refuse = errors.New("not now")
	if err := k.Look(t.Context()); err == nil || used != 1 {
		t.Errorf("refused: %v, used %d times", err, used)
	}
	refuse, c.begins = nil, 0
	for range 2 { // what was refused is offered again, what was taken is not
		if err := k.Look(t.Context()); err != nil || used != 2 || c.serial != 3 {
			t.Errorf("again: %v, used %d times, certified %d", err, used, c.serial)
		}
	}
	// One that ends before what we have helps nobody.
	w.clock.advance(45 * time.Minute)
	c.ends = time.Minute
	if err := k.Look(t.Context()); err == nil || used != 2 {
		t.Errorf("ends sooner: %v, used %d times", err, used)
	}
	for name, spoil := range map[string]func(*ocsp.KeeperConfig){
		"no posts": func(c *ocsp.KeeperConfig) { c.Posts = nil }, "no certifier": func(c *ocsp.KeeperConfig) { c.Certifier = nil },
		"no use": func(c *ocsp.KeeperConfig) { c.Use = nil }, "no key": func(c *ocsp.KeeperConfig) { c.Posts = []ocsp.Post{{IssuerCertificate: w.first.cert}} },
		"no chance": func(c *ocsp.KeeperConfig) { c.Rand = bytes.NewReader(nil) }, "negative": func(c *ocsp.KeeperConfig) { c.Interval = -1 },
	} {
		bad := cfg
		spoil(&bad)
		if _, err := ocsp.NewKeeper(bad); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
