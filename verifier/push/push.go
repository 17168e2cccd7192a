// Package push tells tenants of the verifier what changed about the users whom they watch.
//
// It owns [Follower], which reads the authority's feed into the tenants' feeds, and [Pusher], which delivers these to the tenants'
// endpoints: as Standard Webhooks, or as Security Event Tokens (RFC 8417) by push (RFC 8935); [Events] makes the tokens for those who
// poll (RFC 8936), too. A change tells a class, never content. Delivery is at least once, in order for each endpoint, under an
// identifier that stays; the tenant's feed is the truth. State is in package verifier/store, so nothing is lost with a process.
// Receivers are strangers: what they answer is read as far as a few octets and logged nowhere. All are safe for concurrent use.
// Start at Pusher.Run and Pusher.deliver.
package push

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/verifier/store"
)

// Config is what [New] wants.
type Config struct {
	Store  *store.Store     // required
	Events *Events          // required
	Now    func() time.Time // required
	Rand   io.Reader        // required: for back-off and leases
	Log    *slog.Logger     // nil means none
	Wake   <-chan struct{}  // receives when there may be something new; nil means looking every 250 ms is all
	// Private admits receivers with private addresses (RFC 1918, loopback and the like), and loopback ones without TLS. Without it,
	// a tenant cannot make us call what is ours.
	Private bool
	Timeout time.Duration // of one delivery; 0 means 10 s
	Workers int           // endpoints served at once; 0 means 16
}

// A Pusher delivers changes. Several processes may run one each over the same store.
type Pusher struct {
	Config
	client   *http.Client
	outcomes jpki.Tally
}

// New checks the configuration.
func New(cfg Config) (*Pusher, error) {
	switch {
	case cfg.Store == nil:
		return nil, errors.New("push: Store is required")
	case cfg.Events == nil:
		return nil, errors.New("push: Events is required")
	case cfg.Now == nil:
		return nil, errors.New("push: Now is required")
	case cfg.Rand == nil:
		return nil, errors.New("push: Rand is required")
	case cfg.Timeout < 0 || cfg.Timeout > turn || cfg.Workers < 0:
		return nil, fmt.Errorf("push: Timeout is not between 0 and %s, or Workers is negative", turn)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.Timeout, cfg.Workers = cmp.Or(cfg.Timeout, 10*time.Second), cmp.Or(cfg.Workers, 16)
	p := &Pusher{Config: cfg}
	// The address is looked at once the name is resolved: a name that resolves to another address later is caught as well.
	dialer := &net.Dialer{Timeout: cfg.Timeout, Control: func(_, address string, _ syscall.RawConn) error { return p.mayDial(address) }}
	transport := &http.Transport{DialContext: dialer.DialContext, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 2, IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: 16 << 10}
	p.client = &http.Client{Transport: transport, Timeout: cfg.Timeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return p, nil
}

// Outcomes counts deliveries by how they ended.
func (p *Pusher) Outcomes() map[string]uint64 { return p.outcomes.Snapshot() }

var errAddress = errors.New("the receiver's address is not a public one")

// notPublic are ranges that netip does not call private (RFC 6890): shared address space, benchmarking, reserved, translation to IPv4.
var notPublic = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"), netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("240.0.0.0/4"), netip.MustParsePrefix("64:ff9b::/96"), netip.MustParsePrefix("64:ff9b:1::/48"), netip.MustParsePrefix("2002::/16"), netip.MustParsePrefix("2001::/32"),
}

func (p *Pusher) mayDial(address string) error {
	if p.Private {
		return nil
	}
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return errAddress
	}
	if !isPublic(to.Addr()) {
		return errAddress
	}
	return nil
}

func isPublic(ip netip.Addr) bool {
	ip = ip.Unmap()
	return ip.IsGlobalUnicast() && !ip.IsPrivate() && !slices.ContainsFunc(notPublic, func(r netip.Prefix) bool { return r.Contains(ip) })
}

// CheckURL says what is wrong with a receiver's address, as [jpki.Malformed]. What its name leads to is looked at when it is called. private is as in [Config].
func CheckURL(text string, private bool) error {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.Fragment != "" || len(text) > 1024:
		return jpki.Errorf(jpki.Malformed, "url is not an https URL of at most 1024 characters, without user and fragment")
	case u.Scheme == "http" && private:
		if ip, err := netip.ParseAddr(u.Hostname()); err == nil && ip.IsLoopback() {
			return nil
		}
		return jpki.Errorf(jpki.Malformed, "url is not https")
	case u.Scheme != "https":
		return jpki.Errorf(jpki.Malformed, "url is not https")
	}
	if ip, err := netip.ParseAddr(u.Hostname()); err == nil && !private && !isPublic(ip) {
		return jpki.Errorf(jpki.Malformed, "url leads to an address that is not a public one")
	}
	return nil
}

const (
	turn      = 20 * time.Second // for how long an endpoint is served before others get their turn
	leased    = 60 * time.Second // longer than a turn and a delivery
	page      = 64               // changes in memory for each endpoint
	settle    = 250 * time.Millisecond
	refusals  = 5 // of one change, before it is a dead letter
	firstWait = time.Second
	longWait  = 10 * time.Minute
)

// Run delivers until the context ends.
func (p *Pusher) Run(ctx context.Context) error {
	free := make(chan struct{}, p.Workers)
	defer func() { // those at work end with the context
		for range p.Workers {
			free <- struct{}{}
		}
	}()
	for {
		found, err := p.lease(ctx, free)
		if err != nil && ctx.Err() == nil {
			p.Log.ErrorContext(ctx, "endpoints cannot be read", slog.Any("error", err))
		}
		if found > 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.Wake:
		case <-time.After(settle):
		}
	}
}

func (p *Pusher) lease(ctx context.Context, free chan struct{}) (int, error) {
	room := p.Workers - len(free)
	if room == 0 {
		return 0, nil
	}
	var by [16]byte
	if _, err := io.ReadFull(p.Rand, by[:]); err != nil {
		return 0, err
	}
	now := p.Now()
	leases, err := p.Store.LeaseEndpoints(ctx, hex.EncodeToString(by[:]), room, now, now.Add(leased))
	for _, l := range leases {
		free <- struct{}{}
		go func() {
			defer func() { <-free }()
			if err := p.serve(ctx, &l, now.Add(turn)); err != nil && ctx.Err() == nil {
				p.Log.ErrorContext(ctx, "changes cannot be delivered", slog.Any("error", err))
			}
		}()
	}
	return len(leases), err
}

// serve delivers what is due to one endpoint, one after the other, until nothing is left, something fails or the turn is over.
func (p *Pusher) serve(ctx context.Context, l *store.Lease, until time.Time) error {
	for p.Now().Before(until) {
		due, err := p.Store.Due(ctx, l, page)
		if err != nil {
			return errors.Join(err, p.release(ctx, l))
		}
		if len(due.Notices)+len(due.Again)+len(due.Next) == 0 {
			break
		}
		progress := store.Progress{Position: l.Position, Attempts: l.Attempts, NextAt: p.Now(), Dead: map[int64]string{}}
		saved, stop := p.Now(), false
		save := func() error {
			saved = p.Now()
			progress.Release = stop
			// What was delivered is saved although the process is ending, or the endpoint would wait until the lease is over.
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			err := p.Store.Progress(ctx, l, progress, saved)
			progress.Dead, progress.Revived, progress.Noticed = map[int64]string{}, nil, nil
			stop = stop || !l.Enabled // the tenant has paused it meanwhile
			return err
		}
		for _, n := range due.Notices {
			failure, gone := p.deliver(ctx, &l.Endpoint, message{notice: &n})
			switch {
			case ctx.Err() != nil:
				stop = true
			case failure == nil, failure.refused:
				progress.Noticed = append(progress.Noticed, n.ID)
				progress.Disable, stop = gone, gone
			default: // as with a change, which the receiver would not get either
				progress.Attempts++
				progress.Failure, stop = failure.name, true
				if progress.NextAt, err = p.after(progress.Attempts, failure.wait); err != nil {
					return err
				}
			}
			if failure != nil && failure.refused {
				progress.Failure = failure.name
			}
			if stop {
				break
			}
		}
		for _, d := range due.Again {
			if stop {
				break
			}
			if failure, gone := p.deliver(ctx, &l.Endpoint, message{change: d.Change}); failure == nil {
				progress.Revived = append(progress.Revived, d.Sequence)
			} else {
				progress.Dead[d.Sequence], progress.Disable = failure.name, gone
			}
			if stop = progress.Disable || !p.Now().Before(until) || ctx.Err() != nil; stop {
				break
			}
		}
		for _, c := range due.Next {
			if stop {
				break
			}
			failure, gone := p.deliver(ctx, &l.Endpoint, message{change: c})
			switch {
			case ctx.Err() != nil:
				stop = true
			case failure == nil:
				progress.Position, progress.Attempts, progress.Failure = c.Sequence, 0, ""
			case gone:
				progress.Disable, progress.Failure, stop = true, failure.name, true
			case failure.refused && progress.Attempts+1 >= refusals:
				progress.Dead[c.Sequence], progress.Position, progress.Attempts, progress.Failure = failure.name, c.Sequence, 0, ""
			default:
				progress.Attempts++
				progress.Failure, stop = failure.name, true
				if progress.NextAt, err = p.after(progress.Attempts, failure.wait); err != nil {
					return err
				}
			}
			if stop = stop || !p.Now().Before(until); !stop && p.Now().Sub(saved) > settle {
				if err := save(); err != nil {
					return err
				}
			}
		}
		stop = stop || ctx.Err() != nil
		if err := save(); err != nil {
			return err
		}
		if stop && !progress.Release { // paused, as we just learnt
			break
		}
		if stop {
			return nil
		}
	}
	return p.release(ctx, l)
}

// release ends a lease, also when the context has ended: or the endpoint would wait until the lease is over.
func (p *Pusher) release(ctx context.Context, l *store.Lease) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	return p.Store.Progress(ctx, l, store.Progress{Position: l.Position, Attempts: l.Attempts, NextAt: p.Now(), Release: true}, p.Now())
}

// after says when to try again: exponential back-off of which half is chance, so that receivers that come back are not overrun, and
// not before the receiver asked for it.
func (p *Pusher) after(attempts int, wish time.Duration) (time.Time, error) {
	wait := min(longWait, firstWait<<min(attempts-1, 10))
	n, err := randInt(p.Rand, int64(wait/2))
	if err != nil {
		return time.Time{}, err
	}
	return p.Now().Add(max(wait/2+time.Duration(n), min(wish, time.Hour))), nil
}

func randInt(r io.Reader, below int64) (int64, error) {
	var b [8]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return 0, err
	}
	n := new(big.Int).SetBytes(b[:])
	return n.Mod(n, big.NewInt(below)).Int64(), nil
}

// A failure is why a delivery came to nothing. Names are a closed list: what a receiver says is its own.
type failure struct {
	name    string // "unreachable", "status-NNN", "address"
	refused bool   // the receiver did not want this one; else it could not be asked
	wait    time.Duration
}

// A message is a change, or a notice.
type message struct {
	change store.Change
	notice *store.Notice
}

// deliver sends one message once. gone tells that the receiver wants nothing more (HTTP status 410, Standard Webhooks).
func (p *Pusher) deliver(ctx context.Context, e *store.Endpoint, m message) (f *failure, gone bool) {
	defer func() {
		outcome := "delivered"
		if f != nil {
			outcome = f.name
		}
		p.outcomes.Add(outcome)
	}()
	req, err := p.request(ctx, e, m)
	if err != nil {
		return &failure{name: "unreachable"}, false
	}
	if req == nil {
		return nil, false // not a type of event that this receiver asked for
	}
	if err := CheckURL(e.URL, p.Private); err != nil {
		return &failure{name: "address"}, false
	}
	resp, err := p.client.Do(req)
	if err != nil {
		if errors.Is(err, errAddress) {
			return &failure{name: "address"}, false
		}
		return &failure{name: "unreachable"}, false
	}
	defer func() { _ = resp.Body.Close() }()
	_, _ = io.CopyN(io.Discard, resp.Body, 4<<10) // so that the connection can be used again
	switch s := resp.StatusCode; {
	case s/100 == 2:
		return nil, false
	case s == http.StatusGone:
		return &failure{name: "status-410", refused: true}, true
	case s == http.StatusRequestTimeout, s == http.StatusTooEarly, s == http.StatusTooManyRequests, s == http.StatusUnauthorized, s == http.StatusForbidden, s == http.StatusNotFound, s/100 != 4:
		// It is not this change that is wrong.
		seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
		return &failure{name: "status-" + strconv.Itoa(s), wait: time.Duration(max(0, min(seconds, 3600))) * time.Second}, false
	default:
		return &failure{name: "status-" + strconv.Itoa(s), refused: true}, false
	}
}

// request makes what is sent; nil if the receiver did not ask for this type of event.
func (p *Pusher) request(ctx context.Context, e *store.Endpoint, m message) (*http.Request, error) {
	var body []byte
	header := http.Header{"User-Agent": {"jpki-verifier"}}
	switch e.Method {
	case store.Webhook:
		var err error
		id, content := m.change.ID, any(WebhookOf(m.change))
		if m.notice != nil {
			id, content = m.notice.ID, testMessage{"jpki.test", m.notice.CreatedAt, struct{}{}}
		}
		if body, err = json.Marshal(content); err != nil {
			return nil, err
		}
		now := p.Now()
		at := strconv.FormatInt(now.Unix(), 10)
		header.Set("Content-Type", "application/json")
		header.Set("webhook-id", id)
		header.Set("webhook-timestamp", at)
		signature := signWebhook(e.Secret, id, at, body)
		if now.Unix() < e.OldUntil { // Standard Webhooks: several signatures while a secret changes
			signature += " " + signWebhook(e.OldSecret, id, at, body)
		}
		header.Set("webhook-signature", signature)
	default:
		token, wanted, err := p.Events.tokenOf(e, m)
		if err != nil || !wanted {
			return nil, err
		}
		body = []byte(token)
		header.Set("Content-Type", "application/secevent+jwt")
		header.Set("Accept", "application/json")
		if e.Authorization != "" {
			header.Set("Authorization", e.Authorization)
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.URL, bytes.NewReader(body))
	if err == nil {
		req.Header = header
	}
	return req, err
}

// A WebhookMessage is the body of a webhook.
type WebhookMessage struct {
	Type      string    `json:"type"`      // "jpki.user." and the class; "jpki.resync" where changes may be missing
	Timestamp time.Time `json:"timestamp"` // of the change
	Data      News      `json:"data"`
}

// testMessage is the body of a webhook that a tenant asked for as a test.
type testMessage struct {
	Type      string    `json:"type"`
	Timestamp time.Time `json:"timestamp"`
	Data      struct{}  `json:"data"`
}

// News is what a tenant is told.
type News struct {
	Sequence   int64            `json:"sequence"`
	ID         string           `json:"id"`
	User       string           `json:"user,omitempty"` // this, Purpose and Kind are empty if the class is [jpki.ChangesMissed]
	Purpose    string           `json:"purpose,omitempty"`
	Class      jpki.ChangeClass `json:"class"`
	Kind       jpki.Kind        `json:"kind,omitempty"`
	Correction bool             `json:"correction,omitempty"`
	At         time.Time        `json:"at"`
}

// NewsOf returns a change as a tenant is told.
func NewsOf(c store.Change) News {
	return News{c.Sequence, c.ID, c.User, c.Purpose, c.Class, c.Kind, c.Correction, c.At}
}

// WebhookOf returns the webhook for a change.
func WebhookOf(c store.Change) WebhookMessage {
	if c.Class == jpki.ChangesMissed {
		return WebhookMessage{"jpki." + string(c.Class), c.At, NewsOf(c)}
	}
	return WebhookMessage{"jpki.user." + string(c.Class), c.At, NewsOf(c)}
}

// signWebhook signs as Standard Webhooks says, version 1: HMAC-SHA-256 over identifier, time and body.
func signWebhook(secret []byte, id, at string, body []byte) string {
	h := hmac.New(sha256.New, secret)
	h.Write([]byte(id + "." + at + "."))
	h.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(h.Sum(nil))
}
