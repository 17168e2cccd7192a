package main

import (
	"bufio"
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/ceremony"
	"github.com/openjpki/jpki/ca/relay"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/hsm"
)

const municipality = "99101"

var (
	register = jpki.Actor{Role: jpki.Register, ID: "register"}
	counter  = jpki.Actor{Role: jpki.Counter, ID: "counter", Municipality: municipality}
)

// An event is what the authority's process tells the checker, one a line: that certificates were issued, that a change of
// them begins, that it is committed. Times are of the machine's clock, taken after the commit returned.
type event struct {
	Do    string     `json:"do"` // ready, issued, begin, done
	Certs []jpkiCert `json:"certs,omitempty"`
	To    jpki.State `json:"to,omitempty"`
	At    int64      `json:"at,omitempty"` // Unix nanoseconds
}

type jpkiCert struct {
	CA     jpki.CA `json:"ca"`
	Serial string  `json:"serial"`
}

func now() int64 { return time.Now().UnixNano() }

// earlier is when keys were certified: a responder whose clock is behind shall have a delegate that is valid by it.
func earlier() time.Time { return time.Now().Add(-time.Hour) }

// found makes what everything begins with: the schema, one generation of both CAs, and keys and certificates for responders.
func found(ctx context.Context, dir, database string) error {
	db, err := store.Create(ctx, database)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	for _, name := range jpki.CAs {
		id := jpki.IssuerID{CA: name, Generation: 1}
		key, err := hsm.Create(ctx, hsm.FileURI(filepath.Join(dir, id.String()+".key")), hsm.P384)
		if err != nil {
			return err
		}
		serial, err := jpki.NewSerial(rand.Reader)
		if err != nil {
			return err
		}
		cert, err := ca.SelfSigned(ca.SandboxNext(), name, key, serial, earlier())
		if err != nil {
			return err
		}
		if err := db.Update(ctx, func(tx *store.Tx) error {
			return tx.AddGeneration(store.Generation{Issuer: id, Certificate: cert.Raw, Active: true}, time.Now())
		}); err != nil {
			return err
		}
		signer, err := ceremony.NewSigner(cert, key, earlier)
		if err != nil {
			return err
		}
		delegate, err := hsm.Create(ctx, hsm.FileURI(filepath.Join(dir, id.String()+"-ocsp.key")), hsm.P256)
		if err != nil {
			return err
		}
		delegated, err := signer.Responder(delegate, id)
		if err != nil {
			return err
		}
		for file, der := range map[string][]byte{".cer": cert.Raw, "-ocsp.cer": delegated.Raw} {
			if err := os.WriteFile(filepath.Join(dir, id.String()+file), der, 0o600); err != nil {
				return err
			}
		}
	}
	return nil
}

// An author is the authority's process.
type author struct {
	ca    *ca.Authority
	name  string
	out   *json.Encoder
	outMu sync.Mutex
	next  int

	mu              sync.Mutex
	good, suspended []token
}

type token struct {
	name  string
	certs []jpkiCert
}

type authorOptions struct {
	database, dir, name, redis string
	cluster, relay             bool
	rate                       float64
}

// serveAuthority issues, suspends and revokes until ctx ends, and relays if it is to. Steps:
//  1. the authority over the database
//  2. the relay
//  3. a stock of cards, kept up
//  4. at the given rate: suspend a card, revoke one, revoke a suspended one
func serveAuthority(ctx context.Context, o authorOptions, out io.Writer) error {
	// 1.
	db, err := store.Open(ctx, o.database)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	var issuers []ca.Issuer
	for _, name := range jpki.CAs {
		id := jpki.IssuerID{CA: name, Generation: 1}
		key, err := hsm.Open(ctx, hsm.FileURI(filepath.Join(o.dir, id.String()+".key")))
		if err != nil {
			return err
		}
		cert, err := readCertificate(filepath.Join(o.dir, id.String()+".cer"))
		if err != nil {
			return err
		}
		issuers = append(issuers, ca.Issuer{ID: id, Certificate: cert, Signer: key})
	}
	authority, err := ca.New(ca.Config{
		Store: db, Profile: ca.SandboxNext(), Issuers: issuers, StatusURL: "http://status.example", Now: time.Now, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	var working sync.WaitGroup
	defer working.Wait()
	// 2.
	if o.relay {
		key, err := os.ReadFile(filepath.Join(o.dir, "relay-key"))
		if err != nil {
			return err
		}
		r, err := relay.New(relay.Config{
			Server: relay.Server{Addrs: strings.Split(o.redis, ","), Cluster: o.cluster}, Log: db, Key: key, Rand: rand.Reader, Wake: db.Changes(),
		})
		if err != nil {
			return err
		}
		working.Go(func() { _ = r.Run(ctx) })
	}
	// 3.
	a := &author{ca: authority, name: o.name, out: json.NewEncoder(out)}
	for range stock {
		if err := a.issue(ctx); err != nil {
			return err
		}
	}
	a.say(event{Do: "ready"})
	working.Go(func() {
		for ctx.Err() == nil {
			a.mu.Lock()
			n := len(a.good)
			a.mu.Unlock()
			if n < stock {
				if a.issue(ctx) == nil {
					continue
				}
			}
			_ = sleep(ctx, 20*time.Millisecond)
		}
	})
	// 4.
	turn := time.NewTicker(time.Duration(float64(time.Second) / o.rate))
	defer turn.Stop()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return nil
		case <-turn.C:
		}
		from, to := &a.good, jpki.Suspended
		if i%2 == 1 {
			to = jpki.Revoked
		}
		if i%4 == 3 {
			from = &a.suspended
		}
		a.mu.Lock()
		if len(*from) == 0 {
			a.mu.Unlock()
			continue
		}
		t := (*from)[0]
		*from = (*from)[1:]
		a.mu.Unlock()
		working.Go(func() { a.change(ctx, t, to) })
	}
}

const stock = 30

func (a *author) say(e event) {
	a.outMu.Lock()
	defer a.outMu.Unlock()
	e.At = cmp.Or(e.At, now())
	_ = a.out.Encode(e)
}

// issue gives a new holder a card with both certificates. Callers take turns.
func (a *author) issue(ctx context.Context) error {
	a.next++
	name := fmt.Sprint(a.name, "-", a.next)
	if err := again(ctx, func(ctx context.Context) error {
		_, err := a.ca.ApplyResidentEvent(ctx, register, jpki.Event{
			ID: name, Holder: name, Type: jpki.Registered, EffectiveAt: time.Now().Add(-time.Second), Municipality: municipality,
			Attributes: &jpki.Attributes{Name: "試験　用", Sex: jpki.SexUnknown, BirthDate: "319800217", Address: "砂箱県青葉市中央一丁目２番３号"},
		})
		return err
	}); err != nil {
		return fmt.Errorf("register: %w", err)
	}
	req := ca.IssueRequest{IdempotencyKey: "issue-" + name, Holder: name, Token: name}
	for _, kind := range []jpki.Kind{jpki.CardSign, jpki.CardAuth} {
		var key crypto.Signer
		key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
		if err != nil {
			return err
		}
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
		if err != nil {
			return err
		}
		req.Requests = append(req.Requests, ca.KeyRequest{Kind: kind, Request: der})
	}
	t := token{name: name}
	if err := again(ctx, func(ctx context.Context) error {
		issued, err := a.ca.Issue(ctx, counter, req)
		if err != nil {
			return err
		}
		for _, i := range issued {
			t.certs = append(t.certs, jpkiCert{CA: i.ID.Issuer.CA, Serial: i.ID.Serial.String()})
		}
		return nil
	}); err != nil {
		return fmt.Errorf("issue: %w", err)
	}
	a.say(event{Do: "issued", Certs: t.certs})
	a.mu.Lock()
	defer a.mu.Unlock()
	a.good = append(a.good, t)
	return nil
}

// change suspends or revokes a card and says so before and after. It does not give up: the same command with the same
// idempotency key is one command.
func (a *author) change(ctx context.Context, t token, to jpki.State) {
	a.say(event{Do: "begin", Certs: t.certs, To: to})
	do, cause := a.ca.Suspend, jpki.Lost
	if to == jpki.Revoked {
		do, cause = a.ca.Revoke, jpki.HolderRequest
	}
	err := again(ctx, func(ctx context.Context) error {
		_, err := do(ctx, counter, ca.ChangeRequest{IdempotencyKey: string(to) + "-" + t.name, Token: t.name, Cause: cause})
		return err
	})
	at := now()
	if err != nil {
		if ctx.Err() == nil {
			fmt.Fprintln(os.Stderr, "change:", err)
		}
		return
	}
	a.say(event{Do: "done", Certs: t.certs, To: to, At: at})
	if to == jpki.Suspended {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.suspended = append(a.suspended, t)
	}
}

// again does something until the authority has done it or refused it for good.
func again(ctx context.Context, f func(context.Context) error) error {
	for {
		once, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := f(once)
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
		if !errors.Is(err, jpki.Unavailable) && !errors.Is(err, jpki.Conflict) && !errors.Is(err, jpki.InProgress) && !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

func readCertificate(path string) (*x509.Certificate, error) {
	der, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// readEvents hands on what an authority's process says, until that ends.
func readEvents(r io.Reader, each func(event)) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) == nil {
			each(e)
		}
	}
}
