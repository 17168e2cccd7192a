package ocsp

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/openjpki/jpki"
)

// Statuses is where a responder learns what is true of a certificate.
//
// Status returns the status and asOf, the time up to which the source's view is complete: no change committed before asOf
// is missing from it. How far asOf may lie behind is the source's promise. For a certificate that was never issued the
// error is jpki.UnknownCertificate, by errors.Is, and asOf still holds; for a view that is too old and cannot be refreshed
// it is jpki.Unavailable. A status that differs from an earlier one of the same certificate has a greater version.
// Status is called by several goroutines at once.
type Statuses interface {
	Status(ctx context.Context, id jpki.CertID) (st jpki.Status, asOf time.Time, err error)
}

// ManyStatuses is what a source of statuses may offer besides, so that a question about many certificates costs at most one
// read of what it follows, and not one for each that it does not know.
//
// StatusAt is Status for one of several questions that arrived together at the given time, by the responder's clock: a view
// that is complete up to then is enough to say that a certificate was never issued.
type ManyStatuses interface {
	Statuses
	StatusAt(ctx context.Context, id jpki.CertID, arrived time.Time) (st jpki.Status, asOf time.Time, err error)
}

// NeverIssued says how a question about a certificate that was never issued is answered.
type NeverIssued string

// The ways, all of them lawful (RFC 6960 §2.2).
const (
	AsUnknown      NeverIssued = ""             // unknown: the client may ask elsewhere
	AsRevoked      NeverIssued = "revoked"      // revoked, on hold since 1970, with the extension extended-revoke
	AsUnauthorized NeverIssued = "unauthorized" // the whole request is refused, without a signature
)

// Config is what a [Responder] needs.
type Config struct {
	Delegates []Delegate       // required: for each issuer answered for, the default first, one for each algorithm
	Statuses  Statuses         // required; may be a ManyStatuses
	Now       func() time.Time // required

	Prefix   string        // path under which the responder lives, as in "/ocsp"; "" for the root
	Validity time.Duration // thisUpdate to nextUpdate, in whole seconds; 0 means 5 minutes
	Refresh  time.Duration // age at which an answer that is kept is signed anew; 0 means half of Validity

	// MaxAge is how long an HTTP cache may keep an answer, and RevokedMaxAge how long one that will never change. Both are
	// whole seconds, and with Refresh no longer than Validity: what a cache keeps must not run out there.
	MaxAge        time.Duration // 0 means 1 minute, or less if there is no room for it
	RevokedMaxAge time.Duration // 0 means as long as there is room for

	// Late is the longest time from taking up a request to having its answer; a responder that was stopped in between, or
	// waited longer for its key, says tryLater. 0 means 1 second.
	Late time.Duration

	// Near keeps signed answers in this process, and what it returns is served as it is. Far are the shelves outside, in the
	// order in which they are asked when Near has nothing; what they return is verified. Both are optional.
	Near Shelf
	Far  []Shelf

	// Secret authenticates what is put on the shelves of Far: 32 octets or more, shared by the responders that share keys
	// and shelves. Without it each answer's signature is checked instead, which costs more than a P-256 signature.
	Secret []byte

	// MaxSigning is how many signatures are made at once, about what the keys can do; 0 means twice the processors.
	// MaxWaiting is how many requests wait for an answer to be made or fetched: about MaxSigning × Late ÷ the time of a
	// signature; one more is told to try later at once. 0 means 1000.
	MaxSigning, MaxWaiting int

	// Handover is the time in which a new delegate takes over from one that signs alike, see [Responder.SetDelegates]; 0
	// means at once.
	Handover time.Duration

	ByName      bool                     // the responder ID is the delegate's name instead of the hash of its key
	NeverIssued NeverIssued              // the zero value is AsUnknown
	Retention   time.Duration            // if not 0, answers have an archive cutoff that long before (RFC 6960 §4.4.4)
	CRLs        map[jpki.IssuerID]string // URLs of lists that have all of an issuer's certificates, put into answers (§4.4.2)

	Access Access                     // the zero value: everybody is answered
	Quota  Quota                      // the zero value: as often as they like
	Client func(*http.Request) Client // who asks over net/http; nil means the connection's address and verified certificate
}

func (c *Config) fill() error {
	if c.Validity == 0 {
		c.Validity = 5 * time.Minute
	}
	if c.Refresh == 0 {
		c.Refresh = c.Validity / 2
	}
	room := (c.Validity - c.Refresh).Truncate(time.Second)
	if c.MaxAge == 0 {
		c.MaxAge = min(time.Minute, room)
	}
	if c.RevokedMaxAge == 0 {
		c.RevokedMaxAge = room
	}
	if c.Late == 0 {
		c.Late = time.Second
	}
	if c.MaxSigning == 0 {
		c.MaxSigning = 2 * runtime.GOMAXPROCS(0)
	}
	if c.MaxWaiting == 0 {
		c.MaxWaiting = 1000
	}
	switch {
	case c.Statuses == nil:
		return errors.New("make OCSP responder: Statuses is required")
	case c.Now == nil:
		return errors.New("make OCSP responder: Now is required")
	case c.Validity < time.Second || c.Validity%time.Second != 0:
		return errors.New("make OCSP responder: Validity is not a positive number of seconds")
	case c.Refresh < 0 || c.Refresh > c.Validity:
		return errors.New("make OCSP responder: Refresh is negative or beyond Validity")
	case c.MaxAge < 0 || c.MaxAge%time.Second != 0 || c.MaxAge > room:
		return errors.New("make OCSP responder: MaxAge is not a number of seconds for which there is room between Refresh and Validity")
	case c.RevokedMaxAge < 0 || c.RevokedMaxAge%time.Second != 0 || c.RevokedMaxAge > room:
		return errors.New("make OCSP responder: RevokedMaxAge is not a number of seconds for which there is room between Refresh and Validity")
	case c.Late < 0 || c.MaxSigning < 0 || c.MaxWaiting < 0 || c.Handover < 0 || c.Retention < 0:
		return errors.New("make OCSP responder: Late, MaxSigning, MaxWaiting, Handover or Retention is negative")
	case c.Prefix != "" && (c.Prefix[0] != '/' || strings.HasSuffix(c.Prefix, "/")):
		return errors.New("make OCSP responder: Prefix does not begin with a slash or ends with one")
	case c.Secret != nil && len(c.Secret) < 32:
		return errors.New("make OCSP responder: Secret has fewer than 32 octets")
	}
	switch c.NeverIssued {
	case AsUnknown, AsRevoked, AsUnauthorized:
	default:
		return errors.New("make OCSP responder: NeverIssued is none of the ways")
	}
	for _, url := range c.CRLs {
		if !isIA5(url) || len(url) > 1024 {
			return errors.New("make OCSP responder: a URL of CRLs is not ASCII or longer than 1024")
		}
	}
	return nil
}

// A Responder answers OCSP requests: [Responder.Exchange] is all of it, [Responder.ServeHTTP] brings net/http to it.
type Responder struct {
	cfg    Config
	roster atomic.Pointer[roster]
	many   ManyStatuses // nil if Statuses is none
	access access
	quota  *quota
	macs   *macs

	flights struct {
		sync.Mutex
		m map[key]*flight
	}
	signing   chan struct{} // holds one for each signature being made
	waiting   atomic.Int64  // requests that wait for a flight
	gathering gathering     // of answers just signed

	counts   counts
	outcomes jpki.Tally // of HTTP only
}

// New returns a responder, having checked its delegates and tried their keys.
func New(cfg Config) (*Responder, error) {
	if err := cfg.fill(); err != nil {
		return nil, err
	}
	r := &Responder{cfg: cfg, signing: make(chan struct{}, cfg.MaxSigning)}
	r.flights.m = map[key]*flight{}
	r.many, _ = cfg.Statuses.(ManyStatuses)
	if cfg.Secret != nil {
		r.macs = newMACs(cfg.Secret)
	}
	var err error
	if r.access, err = newAccess(cfg.Access); err == nil {
		if r.quota, err = newQuota(cfg.Quota); err == nil {
			err = r.SetDelegates(cfg.Delegates)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("make OCSP responder: %w", err)
	}
	return r, nil
}

// SetDelegates replaces all delegates at once, for a roll-over, after the checks that [New] makes. Answers begun are
// finished with the old ones, and where the old and the new sign alike, the new one takes over certificate by certificate
// in the time of Handover. After an error the old ones stay. It is for one goroutine at a time.
func (r *Responder) SetDelegates(delegates []Delegate) error {
	next, err := newRoster(delegates, &r.cfg, r.roster.Load())
	if err != nil {
		return fmt.Errorf("set delegates: %w", err)
	}
	r.roster.Store(next)
	return nil
}

// Outcomes returns how often each outcome occurred: good, revoked and unknown count certificates; notModified, the names
// of unsuccessful response statuses and those of HTTP refusals count requests. delegateExpired, late, busy, quota and
// signFailed say why some of the tryLater were, signedWrong why some of the internalError.
func (r *Responder) Outcomes() map[string]uint64 {
	out := r.outcomes.Snapshot()
	r.counts.add(out, 0, firstSource)
	return out
}

// Sources returns where answers came from: near, far, signed, or shared with a request that asked the same; how many were
// refreshed before their time and how often a shelf outside returned what was not believed.
func (r *Responder) Sources() map[string]uint64 {
	out := map[string]uint64{}
	r.counts.add(out, firstSource, numCounts)
	return out
}

// counts are what is counted on the way of every request: without a map and without allocating.
type counts [numCounts]atomic.Uint64

type count int

const (
	countGood count = iota
	countRevoked
	countUnknown
	countNotModified
	countMalformed
	countInternal
	countTryLater
	countSigRequired
	countUnauthorized
	countExpired
	countLate
	countBusy
	countQuota
	countSignFailed
	countSignedWrong
	countNear
	countFar
	countSigned
	countShared
	countRefreshed
	countFarRefused
	numCounts

	firstSource = countNear
)

var countNames = [numCounts]string{
	"good", "revoked", "unknown", "notModified", "malformedRequest", "internalError", "tryLater", "sigRequired", "unauthorized",
	"delegateExpired", "late", "busy", "quota", "signFailed", "signedWrong",
	"near", "far", "signed", "shared", "refreshed", "farRefused",
}

func (c *counts) one(n count) { c[n].Add(1) }

func (c *counts) add(out map[string]uint64, from, to count) {
	for i := from; i < to; i++ {
		if n := c[i].Load(); n > 0 {
			out[countNames[i]] += n
		}
	}
}
