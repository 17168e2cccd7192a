package ocspload

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/client"
	"github.com/openjpki/jpki/cmd/internal/sandbox"
	"github.com/openjpki/jpki/ocsp"
)

// CanaryOptions say how often a canary dies, and who watches.
type CanaryOptions struct {
	URLs     []string      // of the responders; required
	Rounds   int           // cards, each suspended and then revoked; required
	Parallel int           // rounds at once; 0 means 4
	Bound    time.Duration // later than this after the commit's answer a stale answer is a violation; 0 means 1 second
	Watch    time.Duration // how long after the commit's answer the responders are watched; 0 means twice the bound
	Every    time.Duration // between two questions to a responder; 0 means 2 ms
	Skew     time.Duration // by which clocks may differ; 0 means 10 seconds
	GET      bool          // ask by GET without a nonce, so that HTTP caches in between take part
	Progress func(done int)
}

// A Sight is what a canary saw of one responder.
type Sight struct {
	URL        string
	Visible    []time.Duration // for each change: from the commit's answer to the first right answer, in order of size
	Asked      int
	Stale      int // answers that did not yet say it
	Violations int // of them, those asked for later than the bound; and changes that never showed
	Back       int // stale answers after a right one: responders behind one address that are not of one mind
	NoAnswer   int // tryLater and broken connections: late, but no lie
	Wrong      int // answers that do not verify
	Examples   []string
}

// Quantile returns how long a share q of the changes took at most.
func (s *Sight) Quantile(q float64) time.Duration {
	if len(s.Visible) == 0 {
		return 0
	}
	return s.Visible[min(int(q*float64(len(s.Visible))), len(s.Visible)-1)]
}

// Canary has fresh trial certificates issued by a sandbox's authority, suspends and revokes them and measures how long each
// responder takes to say so. Steps of a round:
//  1. every responder says good
//  2. the questions begin, then the command is given; its answer starts the clock
//  3. the first right answer is the measurement; the responders are watched on until the end of the round
func Canary(ctx context.Context, env sandbox.Env, opt CanaryOptions) ([]*Sight, error) {
	if opt.Parallel == 0 {
		opt.Parallel = 4
	}
	if opt.Bound == 0 {
		opt.Bound = time.Second
	}
	if opt.Watch == 0 {
		opt.Watch = 2 * opt.Bound
	}
	if opt.Every == 0 {
		opt.Every = 2 * time.Millisecond
	}
	if opt.Skew == 0 {
		opt.Skew = 10 * time.Second
	}
	if len(opt.URLs) == 0 || opt.Rounds < 1 || opt.Parallel < 1 || opt.Bound < 0 || opt.Watch <= opt.Bound || opt.Every < 0 {
		return nil, errors.New("responders and a positive number of rounds are required, and to be watched longer than the bound")
	}
	c := &canary{env: env, opt: opt, http: &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 2 * opt.Parallel, DisableCompression: true}}}
	for _, u := range opt.URLs {
		if at, err := url.Parse(u); err != nil || at.Host == "" {
			return nil, fmt.Errorf("%q is not the address of a responder", u)
		}
		c.sights = append(c.sights, &Sight{URL: u})
	}
	var err error
	if c.station, err = env.Station(); err != nil {
		return nil, err
	}
	if c.hotline, err = env.Hotline(); err != nil {
		return nil, err
	}
	if c.register, err = env.Register(); err != nil {
		return nil, err
	}
	keys, err := sandbox.TrialKeys(ctx, opt.Rounds, func(float64) {})
	if err != nil {
		return nil, err
	}
	var work errgroup.Group
	work.SetLimit(opt.Parallel)
	for i, key := range keys {
		work.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := c.round(ctx, i, key); err != nil {
				return fmt.Errorf("round %d: %w", i+1, err)
			}
			return nil
		})
	}
	err = work.Wait()
	for _, s := range c.sights {
		slices.Sort(s.Visible)
	}
	return c.sights, err
}

type canary struct {
	env                        sandbox.Env
	opt                        CanaryOptions
	http                       *http.Client
	station, hotline, register *client.Client
	mu                         sync.Mutex
	sights                     []*Sight
	done                       int
}

// round is the life of one card.
func (c *canary) round(ctx context.Context, i int, key *rsa.PrivateKey) error {
	token, cert, issuer, err := c.issue(ctx, i, key)
	if err != nil {
		return fmt.Errorf("issue: %w", err)
	}
	ask, err := c.question(cert, issuer)
	if err != nil {
		return err
	}
	for _, s := range c.sights {
		if err := c.waitGood(ctx, ask, s.URL); err != nil {
			return err
		}
	}
	for _, change := range []struct {
		state State
		do    func(context.Context) (client.Changes, error)
	}{
		{Suspended, func(ctx context.Context) (client.Changes, error) {
			return c.hotline.Suspend(ctx, rand.Text(), client.Change{Token: token, Cause: jpki.Lost})
		}},
		{Revoked, func(ctx context.Context) (client.Changes, error) {
			return c.station.Revoke(ctx, rand.Text(), client.Change{Token: token, Cause: jpki.HolderRequest})
		}},
	} {
		if err := c.watch(ctx, ask, change.state, change.do); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done++; c.opt.Progress != nil {
		c.opt.Progress(c.done)
	}
	return nil
}

// issue has an authentication certificate issued to a new resident's new card.
func (c *canary) issue(ctx context.Context, i int, key *rsa.PrivateKey) (token string, cert, issuer *x509.Certificate, err error) {
	resident := sandbox.NewResident(i)
	if err := sandbox.RegisterResident(ctx, c.register, resident); err != nil {
		return "", nil, nil, err
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return "", nil, nil, err
	}
	token = "T" + rand.Text()[:16]
	got, err := c.station.Issue(ctx, rand.Text(), client.CertificateOrder{Holder: resident.ID, Token: token, Requests: []client.KeyRequest{{Kind: jpki.CardAuth, Request: client.RequestPEM(request)}}})
	if err != nil {
		return "", nil, nil, err
	}
	if len(got.Certificates) != 1 {
		return "", nil, nil, errors.New("the authority issued another number of certificates than was ordered")
	}
	der, err := client.DER(got.Certificates[0].Certificate)
	if err != nil {
		return "", nil, nil, err
	}
	if cert, err = x509.ParseCertificate(der); err != nil {
		return "", nil, nil, err
	}
	issuer, err = c.env.Issuer(cert)
	return token, cert, issuer, err
}

// errNoAnswer is of a responder that said nothing, or that it cannot tell.
var errNoAnswer = errors.New("no answer")

// question returns a function that asks a responder and verifies what it says.
func (c *canary) question(cert, issuer *x509.Certificate) (func(context.Context, string) (State, error), error) {
	serial, err := jpki.SerialFromBig(cert.SerialNumber)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, address string) (State, error) {
		var nonce []byte
		if !c.opt.GET {
			nonce = make([]byte, nonceBytes)
			if _, err := rand.Read(nonce); err != nil {
				return "", err
			}
		}
		q, err := ocsp.NewRequest(issuer, crypto.SHA256, nonce, serial)
		if err != nil {
			return "", err
		}
		der, err := q.Marshal()
		if err != nil {
			return "", err
		}
		body, err := c.exchange(ctx, address, der)
		if err != nil {
			return "", fmt.Errorf("%w: %w", errNoAnswer, err)
		}
		r, err := ocsp.ParseResponse(body)
		if err != nil {
			return "", err
		}
		if r.Status != ocsp.Successful {
			return "", fmt.Errorf("%w: %s", errNoAnswer, r.Status)
		}
		if r.Nonce == nil {
			nonce = nil // RFC 9919 §3.2.1 allows it
		}
		at := time.Now()
		if err := r.Verify(ocsp.VerifyOptions{Issuer: issuer, At: at, Nonce: nonce, Skew: c.opt.Skew}); err != nil {
			return "", err
		}
		a, err := r.Answer(issuer, serial)
		if err != nil {
			return "", err
		}
		return StateOf(a), a.Fresh(at, c.opt.Skew, 0)
	}, nil
}

func (c *canary) exchange(ctx context.Context, address string, der []byte) ([]byte, error) {
	method, body := http.MethodPost, io.Reader(bytes.NewReader(der))
	if c.opt.GET {
		method, body = http.MethodGet, nil
		address = strings.TrimSuffix(address, "/") + "/" + url.QueryEscape(base64.StdEncoding.EncodeToString(der))
	}
	req, err := http.NewRequestWithContext(ctx, method, address, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/ocsp-request")
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("HTTP status %d", resp.StatusCode)
	}
	return io.ReadAll(io.LimitReader(resp.Body, maxBody))
}

// patience is how long a responder may take to know a new certificate, or a change once it is late.
const patience = 30 * time.Second

func (c *canary) waitGood(ctx context.Context, ask func(context.Context, string) (State, error), address string) error {
	for begin := time.Now(); ; sleep(ctx, 10*time.Millisecond) {
		state, err := ask(ctx, address)
		if err == nil && state == Good {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Since(begin) > patience {
			return fmt.Errorf("%s says of a new certificate: %s %w", address, state, errors.Join(err, errNoAnswer))
		}
	}
}

// watch gives the command and asks every responder until the round is over.
func (c *canary) watch(ctx context.Context, ask func(context.Context, string) (State, error), want State, do func(context.Context) (client.Changes, error)) error {
	var mu sync.Mutex
	var commit time.Time // when the command was answered; zero before
	committed := func() (time.Time, bool) {
		mu.Lock()
		defer mu.Unlock()
		return commit, !commit.IsZero()
	}
	asking, stop := context.WithCancel(ctx)
	defer stop()
	var watchers sync.WaitGroup
	for _, s := range c.sights {
		watchers.Go(func() { c.observe(asking, s, ask, want, committed) })
	}
	sleep(ctx, 10*c.opt.Every)
	changed, err := do(ctx)
	mu.Lock()
	commit = time.Now()
	mu.Unlock()
	if err == nil && len(changed.Changed) != 1 {
		err = fmt.Errorf("%d certificates changed", len(changed.Changed))
	}
	if err != nil {
		stop()
	}
	watchers.Wait()
	return errors.Join(err, ctx.Err())
}

// observe asks one responder about one change.
func (c *canary) observe(ctx context.Context, s *Sight, ask func(context.Context, string) (State, error), want State, committed func() (time.Time, bool)) {
	seen := false
	for ctx.Err() == nil {
		sent := time.Now()
		state, err := ask(ctx, s.URL)
		got := time.Now()
		if ctx.Err() != nil {
			return
		}
		at, over := committed()
		c.mu.Lock()
		s.Asked++
		switch {
		case errors.Is(err, errNoAnswer):
			s.NoAnswer++
		case err != nil:
			s.Wrong++
			s.example(err.Error())
		case state == want && !seen:
			seen = true
			if !over {
				at = got // before the command's answer: the time is 0
			}
			s.Visible = append(s.Visible, max(0, got.Sub(at)))
		case state != want && over:
			s.Stale++
			if seen {
				s.Back++
			}
			if late := sent.Sub(at); late > c.opt.Bound {
				s.Violations++
				s.example(fmt.Sprintf("says %s to a question asked %s after the change to %s was confirmed", state, short(late), want))
			}
		}
		c.mu.Unlock()
		if over && got.Sub(at) > c.opt.Watch && seen {
			return
		}
		if over && got.Sub(at) > c.opt.Watch+patience {
			c.mu.Lock()
			s.Violations++
			s.example(fmt.Sprintf("never says %s", want))
			c.mu.Unlock()
			return
		}
		every := c.opt.Every
		if seen {
			every = 10 * every
		}
		sleep(ctx, every)
	}
}

func (s *Sight) example(text string) {
	if len(s.Examples) < maxExamples {
		s.Examples = append(s.Examples, text)
	}
}
