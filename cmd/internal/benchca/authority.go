package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"log/slog"
	"runtime"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/store"
)

// The kinds of CA key, as the table calls them.
const (
	rsa2048 = "RSA-2048"
	p256    = "P-256"
	p384    = "P-384"
)

func newKey(kind string) (crypto.Signer, error) {
	switch kind {
	case rsa2048:
		return rsa.GenerateKey(rand.Reader, 2048)
	case p256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case p384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	}
	return nil, fmt.Errorf("no kind of key is called %q", kind)
}

const municipality = "99101"

var (
	register = jpki.Actor{Role: jpki.Register, ID: "register"}
	counter  = jpki.Actor{Role: jpki.Counter, ID: "counter", Municipality: municipality}
)

// newIssuers makes one generation of both CAs with one key and records it.
func newIssuers(ctx context.Context, db *store.Store, key crypto.Signer, generation int) ([]ca.Issuer, error) {
	var issuers []ca.Issuer
	for _, name := range jpki.CAs {
		serial, err := jpki.NewSerial(rand.Reader)
		if err != nil {
			return nil, err
		}
		cert, err := ca.SelfSigned(ca.Sandbox(), name, key, serial, time.Now())
		if err != nil {
			return nil, err
		}
		id := jpki.IssuerID{CA: name, Generation: generation}
		issuers = append(issuers, ca.Issuer{ID: id, Certificate: cert, Signer: key})
		if err := db.Update(ctx, func(tx *store.Tx) error {
			return tx.AddGeneration(store.Generation{Issuer: id, Certificate: cert.Raw, Active: false}, time.Now())
		}); err != nil {
			return nil, err
		}
	}
	return issuers, nil
}

func newAuthority(db *store.Store, issuers []ca.Issuer, stations *x509.CertPool) (*ca.Authority, error) {
	return ca.New(ca.Config{
		Store: db, Profile: ca.Sandbox(), Issuers: issuers, StatusURL: "http://status.example", StationCAs: stations,
		Now: time.Now, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler),
	})
}

// registered is the event by which a holder enters the register.
func registered(holder string) jpki.Event {
	return jpki.Event{
		ID: holder, Holder: holder, Type: jpki.Registered, EffectiveAt: time.Now().Add(-time.Second), Municipality: municipality,
		Attributes: &jpki.Attributes{Name: "測定　用", Sex: jpki.SexUnknown, BirthDate: "319800217", Address: "砂箱県青葉市中央一丁目２番３号"},
	}
}

// A card is what one is made for: a holder, who is called as the card, and the requests of its keys.
type card struct {
	name     string
	requests [2][]byte // of the kinds in cardKinds
}

var cardKinds = [2]jpki.Kind{jpki.CardSign, jpki.CardAuth}

// makeCards makes the requests of n cards on all processors.
func makeCards(ctx context.Context, ring *keyring, prefix string, n int) ([]card, error) {
	out := make([]card, n)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i := range out {
		g.Go(func() (err error) {
			if err := ctx.Err(); err != nil {
				return err
			}
			out[i].name = fmt.Sprint(prefix, "-", i)
			for j := range out[i].requests {
				if out[i].requests[j], err = ring.request(&x509.CertificateRequest{}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return out, g.Wait()
}
