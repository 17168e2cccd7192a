//go:build crashtest

// Crashtest gives the authority one command and may be killed by itself on the way.
//
// It reads an order, JSON, from its standard input, carries it out on a database that a test has prepared, and prints how many
// places it passed at which it could have died: before and after every write, commit and signature. At the one that
// JPKI_CRASH_AT names it does, by SIGKILL. It exists only under the build tag crashtest, for package ca's tests.
package main

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/store"
)

// An order says what is to be done, where and when.
type order struct {
	Database string
	Now      time.Time
	Issuers  []struct {
		ID               jpki.IssuerID
		Certificate, Key []byte // DER, PKCS #8
	}
	By      jpki.Actor
	Command string
	Key     string // idempotency key
	Issue   ca.IssueRequest
	Change  ca.ChangeRequest
	Event   jpki.Event
	Events  []jpki.Event
	Token   string // to deliver
	Mass    ca.MassRevocation
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(store.CrashPoints())
}

func run() error {
	var o order
	if err := json.NewDecoder(os.Stdin).Decode(&o); err != nil {
		return err
	}
	ctx := context.Background()
	db, err := store.Open(ctx, o.Database)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	cfg := ca.Config{Store: db, Profile: ca.Sandbox(), StatusURL: "http://status.example", Now: func() time.Time { return o.Now }, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler)}
	for _, i := range o.Issuers {
		cert, err := x509.ParseCertificate(i.Certificate)
		if err != nil {
			return err
		}
		key, err := x509.ParsePKCS8PrivateKey(i.Key)
		if err != nil {
			return err
		}
		cfg.Issuers = append(cfg.Issuers, ca.Issuer{ID: i.ID, Certificate: cert, Signer: mortal{key.(crypto.Signer)}})
	}
	a, err := ca.New(cfg)
	if err != nil {
		return err
	}
	o.Issue.IdempotencyKey, o.Change.IdempotencyKey = o.Key, o.Key
	switch o.Command {
	case "issue":
		_, err = a.Issue(ctx, o.By, o.Issue)
	case "renew":
		_, err = a.Renew(ctx, o.By, o.Issue)
	case "suspend":
		_, err = a.Suspend(ctx, o.By, o.Change)
	case "resume":
		_, err = a.Resume(ctx, o.By, o.Change)
	case "revoke":
		_, err = a.Revoke(ctx, o.By, o.Change)
	case "event":
		_, err = a.ApplyResidentEvent(ctx, o.By, o.Event)
	case "events":
		for _, r := range a.ApplyResidentEvents(ctx, o.By, o.Events) {
			if !errors.Is(r.Err, jpki.UnknownHolder) { // refused alone, and on purpose
				err = errors.Join(err, r.Err)
			}
		}
	case "deliver":
		_, err = a.Deliver(ctx, o.By, o.Key, o.Token)
	case "revoke-all":
		_, err = a.RevokeAll(ctx, o.By, o.Mass)
	case "due":
		_, err = a.ApplyDue(ctx)
	case "reconcile":
		_, err = a.Reconcile(ctx, 0)
	default:
		err = fmt.Errorf("no command %q", o.Command)
	}
	return err
}

// A mortal signer can die before and after it signs.
type mortal struct{ crypto.Signer }

func (m mortal) Sign(r io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	store.CrashPoint("before", "signature")
	sig, err := m.Signer.Sign(r, digest, o)
	store.CrashPoint("after", "signature")
	return sig, err
}
