package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/client"
)

// A city is who speaks with the authority: the register, four counters and the operator of a verifier. It remembers what it was
// told, and that is what the promises are held against.
type city struct {
	c         *cluster
	counters  [][]*client.Client // by jpki-ca, then by counter
	registers []*client.Client   // by jpki-ca
	operators []*client.Client
	retried   jpki.Tally // why a command had to be given again

	mu    sync.Mutex
	cards []*card
	known map[jpki.CertID]*subject
	doubt map[string]bool // commands that were cut short
}

// A card is one that a counter handed out.
type card struct {
	name         string // of the holder and of the token
	counter      int
	keys         [2]*ecdsa.PrivateKey // for signatures, for authentication
	certificates [2]*subject
	user         string // as the relying party knows the holder; empty if it is not watched
}

// A subject is a certificate with what the authority did to it, in Unix nanoseconds; 0 is not yet. The city's lock guards it.
type subject struct {
	id                    jpki.CertID
	der                   []byte
	question              []byte // about it, to a status server
	issued                int64
	suspending, suspended int64 // the command was given for the first time; its answer came
	revoking, revoked     int64
}

const counters = 4

func now() int64 { return time.Now().UnixNano() }

func newCity(c *cluster) (*city, error) {
	y := &city{c: c, known: map[jpki.CertID]*subject{}, doubt: map[string]bool{}}
	pool, err := readPool(c.path("infrastructure", "ca.crt"))
	if err != nil {
		return nil, err
	}
	as := func(name string, a *server) (*client.Client, error) {
		own, err := tls.LoadX509KeyPair(c.path("infrastructure", name+".crt"), c.path("infrastructure", name+".key"))
		if err != nil {
			return nil, err
		}
		return client.New(a.url, &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{own}, MinVersion: tls.VersionTLS13}), nil
	}
	for _, a := range c.authorities {
		var row []*client.Client
		for i := range counters {
			one, err := as(fmt.Sprint("counter-", i+1), a)
			if err != nil {
				return nil, err
			}
			row = append(row, one)
		}
		y.counters = append(y.counters, row)
		register, err := as("register", a)
		if err != nil {
			return nil, err
		}
		operator, err := as("verifier-1", a)
		if err != nil {
			return nil, err
		}
		y.registers, y.operators = append(y.registers, register), append(y.operators, operator)
	}
	return y, nil
}

// tryLater are the refusals that say so: nothing is wrong with the command, nor with whoever refuses it.
var tryLater = []jpki.Problem{jpki.Unavailable, jpki.InProgress, jpki.RateLimited, jpki.Conflict}

var (
	errLost    = errors.New("no answer")                     // to a command
	errInDoubt = errors.New("the authority is not done yet") // with a command; whoever carried it out may have been killed
)

// order gives a command, to one jpki-ca and then the other, until it is answered. Its idempotency key makes it one command.
func (y *city) order(ctx context.Context, first int, f func(ctx context.Context, authority int) error) error {
	began := time.Now()
	for at := first; ; at++ {
		once, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := f(once, at%len(y.counters))
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
		problem := jpki.ProblemOf(err)
		later := errors.Is(err, context.DeadlineExceeded)
		for _, p := range tryLater {
			later = later || problem == p
		}
		if !later {
			return err
		}
		y.retried.Add(string(problem))
		if problem == jpki.InProgress && time.Since(began) > 10*time.Second {
			return fmt.Errorf("%w: %w", errInDoubt, err)
		}
		if time.Since(began) > patience {
			return fmt.Errorf("%w within %v: %w", errLost, patience, err)
		}
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

func (y *city) inDoubt(what string, yes bool) {
	y.mu.Lock()
	defer y.mu.Unlock()
	if yes {
		y.doubt[what] = true
	} else {
		delete(y.doubt, what)
	}
}

func resident(name string) jpki.Event {
	return jpki.Event{
		ID: "event-" + name, Holder: name, Type: jpki.Registered, EffectiveAt: time.Now().Add(-time.Second), Municipality: municipality,
		Attributes: &jpki.Attributes{Name: "試験　用", Sex: jpki.SexUnknown, BirthDate: "319800217", Address: "砂箱県青葉市中央一丁目２番３号"},
	}
}

// register reports a new resident.
func (y *city) register(ctx context.Context, n int, name string) error {
	e := resident(name)
	return y.order(ctx, n, func(ctx context.Context, a int) error {
		_, err := y.registers[a].ReportEvent(ctx, e)
		return err
	})
}

// prepare makes a card with its keys, which have no certificates yet.
func prepare(n int, name string) (*card, client.CertificateOrder, error) {
	k := &card{name: name, counter: n % counters}
	o := client.CertificateOrder{Holder: name, Token: name}
	for i, kind := range []jpki.Kind{jpki.CardSign, jpki.CardAuth} {
		var err error
		if k.keys[i], err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader); err != nil {
			return nil, o, err
		}
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, k.keys[i])
		if err != nil {
			return nil, o, err
		}
		o.Requests = append(o.Requests, client.KeyRequest{Kind: kind, Request: client.RequestPEM(der)})
	}
	return k, o, nil
}

// issue has a card's certificates issued and remembers them.
func (y *city) issue(ctx context.Context, n int, k *card, o client.CertificateOrder) error {
	var issued client.Certificates
	if err := y.order(ctx, n, func(ctx context.Context, a int) (err error) {
		issued, err = y.counters[a][k.counter].Issue(ctx, "issue-"+k.name, o)
		return err
	}); err != nil {
		return fmt.Errorf("issue: %w", err)
	}
	at := now()
	if len(issued.Certificates) != len(k.certificates) {
		return fmt.Errorf("issue: %d certificates", len(issued.Certificates))
	}
	for i, cert := range issued.Certificates {
		der, err := client.DER(cert.Certificate)
		if err != nil {
			return err
		}
		question, err := y.question(cert.ID)
		if err != nil {
			return err
		}
		k.certificates[i] = &subject{id: cert.ID, der: der, question: question, issued: at}
	}
	y.mu.Lock()
	defer y.mu.Unlock()
	for _, s := range k.certificates {
		if y.known[s.id] != nil {
			return fmt.Errorf("%s was issued twice", s.id)
		}
		y.known[s.id] = s
	}
	y.cards = append(y.cards, k)
	return nil
}

// watch makes the holder a customer of the relying party, who is told from now on when something changes about them.
func (y *city) watch(ctx context.Context, n int, k *card) error {
	var user string
	if err := y.order(ctx, n, func(ctx context.Context, a int) error {
		known, err := y.operators[a].Identify(ctx, client.IdentityRequest{Tenant: tenantNumber, Purpose: purpose, ID: &k.certificates[0].id})
		user = known.User
		return err
	}); err != nil {
		return fmt.Errorf("identify: %w", err)
	}
	if err := y.order(ctx, n, func(ctx context.Context, a int) error {
		_, err := y.operators[a].CreateWatches(ctx, client.WatchOrder{Tenant: tenantNumber, Watches: []client.Watch{{User: user, Purpose: purpose}}})
		return err
	}); err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	y.mu.Lock()
	defer y.mu.Unlock()
	k.user = user
	return nil
}

const purpose = "accounts"

// change suspends a card or revokes it, both certificates at once.
func (y *city) change(ctx context.Context, n int, k *card, to jpki.State) error {
	mark := func(f func(*subject)) {
		y.mu.Lock()
		defer y.mu.Unlock()
		for _, s := range k.certificates {
			f(s)
		}
	}
	begun, cause := now(), jpki.Lost
	if to == jpki.Revoked {
		cause = jpki.HolderRequest
		mark(func(s *subject) { s.revoking = begun })
	} else {
		mark(func(s *subject) { s.suspending = begun })
	}
	if err := y.order(ctx, n, func(ctx context.Context, a int) (err error) {
		ask, ch := y.counters[a][k.counter], client.Change{Token: k.name, Cause: cause}
		if to == jpki.Revoked {
			_, err = ask.Revoke(ctx, "revoke-"+k.name, ch)
		} else {
			_, err = ask.Suspend(ctx, "suspend-"+k.name, ch)
		}
		return err
	}); err != nil {
		return fmt.Errorf("change to %s: %w", to, err)
	}
	done := now()
	if to == jpki.Revoked {
		mark(func(s *subject) { s.revoked = done })
	} else {
		mark(func(s *subject) { s.suspended = done })
	}
	return nil
}

// lookUp asks what certificates a card has, as a counter does before it resets a PIN.
func (y *city) lookUp(ctx context.Context, n int, k *card) (out client.Certificates, err error) {
	err = y.order(ctx, n, func(ctx context.Context, a int) (err error) {
		out, err = y.counters[a][k.counter].Token(ctx, k.name)
		return err
	})
	return out, err
}
