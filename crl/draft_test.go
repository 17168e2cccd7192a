package crl_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/crl"
)

// However much longer or shorter a list becomes, what was written where the last one's length put it ends up where it belongs.
func TestPublishLongerAndShorter(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	a := newAuthority(t, "rsa")
	all := numbered(t, 9_000) // more than one buffer
	w := &world{now: t0, revoked: map[string][]crl.Entry{}, released: map[jpki.Serial]bool{}}
	for _, e := range all {
		w.released[e.Serial] = true
	}
	scope := partition(t, a.id, "99101")
	p := newPublisher(t, crl.Config{Dir: dir, Source: w, Now: w.Now, Issuers: []crl.Issuer{{ID: a.id, Cert: a.cert, Signer: a.key, Partitions: []crl.Scope{scope}}}})
	for _, n := range []int{9_000, 0, 1, 3, 4, 300, 9_000, 2, 6_500, 0, 0, 8_999} {
		w.set(func() { w.now, w.revoked["99101"] = w.now.Add(time.Minute), all[:n] })
		if err := p.Publish(ctx, key101); err != nil {
			t.Fatalf("%d entries: %v", n, err)
		}
		got := parsed(t, dir, key101)
		tm := crl.Template{IssuerCert: a.cert, Signer: a.key, Scope: scope, Number: got.Number, ThisUpdate: got.ThisUpdate, NextUpdate: got.NextUpdate}
		if !bytes.Equal(build(t, tm, slices.Clone(all[:n])), published(t, dir, key101)) {
			t.Errorf("%d entries: not the list that Build makes", n)
		}
	}
}

// An ECDSA signature may be so short that the length of the whole has fewer octets than was thought.
func TestPublishShortSignature(t *testing.T) {
	ctx, key, moved := context.Background(), generate(t, "p-256"), 0
	short := strange{key, func(digest []byte) ([]byte, error) {
		for {
			if sig, err := key.Sign(rand.Reader, digest, crypto.SHA256); err != nil || len(sig) <= 70 {
				return sig, err
			}
		}
	}}
	for n := range 64 {
		cert := selfSigned(t, key, func(c *x509.Certificate) {
			c.RawSubject, c.Subject.CommonName = nil, strings.Repeat("x", 1+n)
		})
		dir, w := t.TempDir(), &world{now: t0}
		p := newPublisher(t, crl.Config{Dir: dir, Source: w, Now: w.Now, Issuers: []crl.Issuer{{ID: sign1, Cert: cert, Signer: short}}})
		for range 2 { // the second reads the first
			w.set(func() { w.now = w.now.Add(time.Minute) })
			if err := p.Publish(ctx, keyFull); err != nil {
				t.Fatal(err)
			}
		}
		list, der := parsed(t, dir, keyFull), published(t, dir, keyFull)
		if err := list.CheckSignatureFrom(cert); err != nil {
			t.Error(err)
		}
		if der[1] == 0x81 && len(der)-3+72-len(list.Signature) > 255 {
			moved++
		}
	}
	if moved == 0 {
		t.Error("no list was as long as this is about")
	}
}

// What the gate refuses is not shown to the key.
func TestRefusedIsNotSigned(t *testing.T) {
	ctx, dir, signed := context.Background(), t.TempDir(), 0
	w := &world{now: t0, revoked: map[string][]crl.Entry{"99101": numbered(t, 3)}}
	cfg := config(t, w, dir)
	key := cfg.Issuers[0].Signer
	cfg.Issuers[0].Signer = strange{key, func(digest []byte) ([]byte, error) {
		signed++
		hash := crypto.SHA256
		if len(digest) == 48 {
			hash = crypto.SHA384
		}
		return key.Sign(rand.Reader, digest, hash)
	}}
	p := newPublisher(t, cfg)
	if err := p.Publish(ctx, key101); err != nil || signed != 1 {
		t.Fatalf("%d signatures, %v", signed, err)
	}
	w.set(func() { w.now, w.revoked = w.now.Add(time.Minute), nil })
	checkError(t, "Publish", p.Publish(ctx, key101), "has vanished")
	if signed != 1 {
		t.Error("signed what was refused")
	}
}
