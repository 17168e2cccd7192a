package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ocsp"
)

// bound is the promise: an answer produced later than this after a commit knows of it.
const bound = time.Second

// What an answer can say, besides a refusal.
const (
	sayGood      = "good"
	saySuspended = "suspended"
	sayRevoked   = "revoked"
	sayUnknown   = "unknown"
)

// A subject is a certificate with what the authority did to it, in Unix nanoseconds; 0 is not yet.
type subject struct {
	ca                    jpki.CA
	serial                jpki.Serial
	issued                int64
	suspending, suspended int64 // the command was given, its commit has returned
	revoking, revoked     int64
	posts                 []byte // the request
	path                  string // of the request by GET
}

// judge says what is wrong with an answer whose question was sent and which was received at the given times. A commit in
// doubt makes both right: before its command has returned nothing is demanded, and once it is given nothing new is wrong.
func (s *subject) judge(said string, sent, received int64) (stale, wrong bool) {
	late := func(committed int64) bool { return committed != 0 && sent > committed+int64(bound) }
	begun := func(at int64) bool { return at != 0 && at <= received }
	if s.issued == 0 {
		return false, said != sayUnknown
	}
	switch said {
	case sayUnknown:
		return false, late(s.issued)
	case sayGood:
		return late(s.suspended) || late(s.revoked), false
	case saySuspended:
		return late(s.revoked), !begun(s.suspending)
	case sayRevoked:
		return false, !begun(s.revoking)
	}
	return false, true
}

// A responder is one of those that are asked.
type responder struct {
	name    string
	url     string
	client  *http.Client
	process *process
	config  string
	faults  string // file that tells it which faults to have
	unseen  bool   // it is not expected to see changes, only not to lie about them

	mu     sync.Mutex
	offset time.Duration // its clock is wrong by this, or was a moment ago
	slept  [2]int64      // when it was stopped and resumed: in between nobody could have been answered
}

func newResponder(name, address string) *responder {
	return &responder{name: name, url: "http://" + address + "/ocsp", client: &http.Client{
		Timeout:   15 * time.Second, // longer than any fault: an answer that comes late is judged, too
		Transport: &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true},
	}}
}

// A sight is a change, when its commit had returned and when a responder first told of it.
type sight struct {
	responder int
	committed int64
	seen      int64
}

// A refusal is an answer that was none.
type refusal struct {
	responder int
	at        int64
	issued    int64 // when what was asked about was
	took      time.Duration
	why       string
}

// A tally is what was measured during a fault.
type tally struct {
	answers, stale, wrong int
	examples              []string
	refusals              []refusal
	sights                []sight
	fault, healed         int64
	waiting               int // for changes to be seen
	unseen                int // changes that were committed and not seen to the end
}

// A checker asks and judges.
type checker struct {
	issuers map[jpki.CA]*x509.Certificate
	rng     *mrand.Rand // guarded by mu

	mu     sync.Mutex
	book   map[string]*subject // by CA and serial
	all    []*subject
	recent []*subject // changed last
	at     []*responder
	now    *tally
	ctx    context.Context //nolint:containedctx // of the measurement; nil while changes that begin are not watched
}

func newChecker(issuers map[jpki.CA]*x509.Certificate, seed uint64) *checker {
	return &checker{issuers: issuers, rng: mrand.New(mrand.NewPCG(seed, 0)), book: map[string]*subject{}, now: &tally{}} //nolint:gosec // to be repeated, not to be secret
}

func (k *checker) subject(name jpki.CA, serial jpki.Serial) (*subject, error) {
	s := &subject{ca: name, serial: serial}
	q, err := ocsp.NewRequest(k.issuers[name], crypto.SHA256, nil, serial)
	if err != nil {
		return nil, err
	}
	if s.posts, err = q.Marshal(); err != nil {
		return nil, err
	}
	s.path = "/" + url.PathEscape(base64.StdEncoding.EncodeToString(s.posts))
	return s, nil
}

// never makes a certificate that was not issued.
func (k *checker) never() (*subject, error) {
	serial, err := jpki.NewSerial(rand.Reader)
	if err != nil {
		return nil, err
	}
	return k.subject(jpki.CAs[0], serial)
}

// hear takes in what an authority says. A change that begins is watched at each responder until it is seen.
func (k *checker) hear(e event, working *sync.WaitGroup) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i, c := range e.Certs {
		key := string(c.CA) + c.Serial
		s := k.book[key]
		if e.Do == "issued" {
			serial, err := jpki.ParseSerial(c.Serial)
			if err != nil {
				continue
			}
			if s, err = k.subject(c.CA, serial); err != nil {
				continue
			}
			s.issued = e.At
			k.book[key] = s
			k.all = append(k.all, s)
			continue
		}
		if s == nil {
			continue
		}
		switch {
		case e.Do == "begin" && e.To == jpki.Suspended:
			s.suspending = e.At
		case e.Do == "begin":
			s.revoking = e.At
		case e.To == jpki.Suspended:
			s.suspended = e.At
		default:
			s.revoked = e.At
		}
		if e.Do != "begin" {
			if k.recent = append(k.recent, s); len(k.recent) > 60 {
				k.recent = k.recent[1:]
			}
			continue
		}
		if k.ctx == nil || i != k.rng.IntN(1024)%len(e.Certs) {
			continue
		}
		for n, r := range k.at {
			if !r.unseen {
				t, ctx := k.now, k.ctx
				t.waiting++
				working.Go(func() { k.watch(ctx, t, n, r, s, e.To) })
			}
		}
	}
}

// Intervals between two questions about a change: while it may come any moment, and when it is late.
const (
	watchClosely = 3 * time.Millisecond
	watchLoosely = 25 * time.Millisecond
)

// watch asks about a change until it is seen, or the measurement is over.
func (k *checker) watch(ctx context.Context, t *tally, n int, r *responder, s *subject, to jpki.State) {
	seen := false
	committed := func() int64 {
		k.mu.Lock()
		defer k.mu.Unlock()
		if to == jpki.Suspended {
			return s.suspended
		}
		return s.revoked
	}
	defer func() {
		at := committed()
		k.mu.Lock()
		defer k.mu.Unlock()
		t.waiting--
		if !seen && at != 0 {
			t.unseen++
		}
	}()
	for i := 0; ctx.Err() == nil; i++ {
		said, received := k.ask(ctx, t, n, r, s, i%2 == 0)
		if said == sayRevoked || said == saySuspended && to == jpki.Suspended {
			at := committed()
			for at == 0 && ctx.Err() == nil { // seen before the commit returned
				_ = sleep(ctx, watchClosely)
				at = committed()
			}
			r.mu.Lock()
			if asleep := r.slept; asleep[0] != 0 && at < asleep[1] && received > asleep[0] {
				at = asleep[1]
			}
			r.mu.Unlock()
			seen = true
			if at == 0 {
				return
			}
			k.mu.Lock()
			t.sights = append(t.sights, sight{n, at, received})
			k.mu.Unlock()
			return
		}
		rest := watchClosely
		if at := committed(); at != 0 && received > at+int64(100*time.Millisecond) || i > 200 {
			rest = watchLoosely
		}
		_ = sleep(ctx, rest)
	}
}

// ask asks once and judges the answer. It returns "" for none.
func (k *checker) ask(ctx context.Context, t *tally, n int, r *responder, s *subject, get bool) (said string, received int64) {
	sent := now()
	said, err := r.ask(ctx, k.issuers[s.ca], s, get)
	received = now()
	if ctx.Err() != nil {
		return "", received
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if err != nil {
		t.refusals = append(t.refusals, refusal{n, received, s.issued, time.Duration(received - sent), err.Error()})
		return "", received
	}
	t.answers++
	stale, wrong := s.judge(said, sent, received)
	if stale {
		t.stale++
	}
	if wrong {
		t.wrong++
	}
	if (stale || wrong) && len(t.examples) < 5 {
		since := "never issued"
		switch {
		case said == sayUnknown:
			since = fmt.Sprintf("%.3f s after it was issued", float64(sent-s.issued)/1e9)
		case s.issued != 0:
			since = fmt.Sprintf("%.3f s after the last commit", float64(sent-max(s.issued, s.suspended, s.revoked))/1e9)
		}
		t.examples = append(t.examples, fmt.Sprintf("%s said %s, asked %s", r.name, said, since))
	}
	return said, received
}

// ask asks over a connection that is kept, and verifies the answer. An error is a refusal.
func (r *responder) ask(ctx context.Context, issuer *x509.Certificate, s *subject, get bool) (string, error) {
	method, to, body := http.MethodPost, r.url, io.Reader(bytes.NewReader(s.posts))
	if get {
		method, to, body = http.MethodGet, r.url+s.path, nil
	}
	req, err := http.NewRequestWithContext(ctx, method, to, body)
	if err != nil {
		return "", err
	}
	if !get {
		req.Header.Set("Content-Type", "application/ocsp-request")
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	der, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("HTTP %d", resp.StatusCode)
	}
	answer, err := ocsp.ParseResponse(der)
	if err != nil {
		return "", err
	}
	if answer.Status != ocsp.Successful {
		return "", fmt.Errorf("%s", answer.Status)
	}
	one, err := r.believe(answer, issuer, s.serial)
	if err != nil {
		return "", err
	}
	switch {
	case one.Unknown:
		return sayUnknown, nil
	case one.Revoked && one.Reason == jpki.CertificateHold:
		return saySuspended, nil
	case one.Revoked:
		return sayRevoked, nil
	}
	return sayGood, nil
}

// believe verifies an answer as a relying party does whose clock agrees with the responder's: whether they agree is another
// question than whether it lies.
func (r *responder) believe(answer *ocsp.Response, issuer *x509.Certificate, serial jpki.Serial) (one ocsp.Answer, err error) {
	r.mu.Lock()
	offset := r.offset
	r.mu.Unlock()
	for _, by := range []time.Duration{0, offset} {
		at := time.Now().Add(by)
		if err = answer.Verify(ocsp.VerifyOptions{Issuer: issuer, At: at, Skew: time.Second}); err != nil {
			continue
		}
		if one, err = answer.Answer(issuer, serial); err != nil {
			continue
		}
		if err = one.Fresh(at, time.Second, 0); err == nil {
			return one, nil
		}
	}
	return one, err
}

// roam asks a responder about whatever comes, until ctx ends: half of it changed lately, the rest is any certificate or none.
func (k *checker) roam(ctx context.Context, t *tally, n int, r *responder) {
	for i := 0; ctx.Err() == nil; i++ {
		k.mu.Lock()
		var s *subject
		switch pick := k.rng.IntN(10); {
		case pick < 5 && len(k.recent) > 0:
			s = k.recent[k.rng.IntN(len(k.recent))]
		case pick < 9 && len(k.all) > 0:
			s = k.all[k.rng.IntN(len(k.all))]
		}
		k.mu.Unlock()
		if s == nil {
			var err error
			if s, err = k.never(); err != nil {
				return
			}
		}
		if said, _ := k.ask(ctx, t, n, r, s, i%2 == 0); said == "" {
			_ = sleep(ctx, 20*time.Millisecond)
		}
		_ = sleep(ctx, 8*time.Millisecond)
	}
}

// quantile returns a quantile of values that are sorted, and 0 of none.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

// visible returns how long each change took to be seen at a responder, sorted; n < 0 means at any.
func (t *tally) visible(n int) (out []time.Duration) {
	for _, s := range t.sights {
		if n < 0 || s.responder == n {
			out = append(out, max(0, time.Duration(s.seen-s.committed)))
		}
	}
	slices.Sort(out)
	return out
}
