package verifier

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/openjpki/jpki"
)

// VerdictCacheConfig is what [NewVerdictCache] wants.
type VerdictCacheConfig struct {
	Checker StatusChecker    // required: asked when nothing remembered will do
	Now     func() time.Time // required
	// GoodFor is for how long after it was asked for a good status is given again (required), at most a day. Within that time a
	// suspension goes unnoticed: it is what a lost card costs. A policy that demands fresher data gets them: see Check.
	GoodFor time.Duration
	// BadFor is the same for suspended, revoked and unknown. 0 means that they are never remembered; at most GoodFor.
	BadFor time.Duration
	// Entries bounds what is remembered, 2 to 1,048,576; each has some 3 KB, at most 20. 0 means 4096.
	Entries int
}

// A VerdictCache is a [StatusChecker] that remembers what another one said: off unless somebody makes one. It hides a change of
// status for GoodFor, no longer, and never beyond what the answer or the policy allows; whoever must know at once leaves it out.
// Questions about one certificate that come while it is being asked about wait for that answer. Errors are not remembered.
type VerdictCache struct {
	checker         StatusChecker
	now             func() time.Time
	goodFor, badFor time.Duration
	half            int
	tally           jpki.Tally

	mu         sync.Mutex
	young, old map[verdictKey]*Revocation // when young is full, old is forgotten
	flights    map[verdictKey]*flight
}

// A verdictKey names a certificate of an issuer's key. The number alone would not do: every issuer has its own.
type verdictKey struct{ issuer, leaf [sha256.Size]byte }

func keyOfVerdict(leaf, issuer *x509.Certificate) verdictKey {
	h := sha256.New()
	h.Write(issuer.RawSubjectPublicKeyInfo)
	h.Write(issuer.RawSubject) // self-delimiting, as DER is
	return verdictKey{issuer: [sha256.Size]byte(h.Sum(nil)), leaf: sha256.Sum256(leaf.Raw)}
}

const (
	maxGoodFor        = 24 * time.Hour
	maxVerdictEntries = 1 << 20
	maxVerdictProof   = 16 << 10 // an answer with a longer proof is not remembered
)

// NewVerdictCache checks the configuration.
func NewVerdictCache(cfg VerdictCacheConfig) (*VerdictCache, error) {
	if cfg.Entries == 0 {
		cfg.Entries = 4096
	}
	switch {
	case cfg.Checker == nil || cfg.Now == nil:
		return nil, errors.New("verdict cache: Checker and Now are required")
	case cfg.GoodFor <= 0 || cfg.GoodFor > maxGoodFor:
		return nil, fmt.Errorf("verdict cache: GoodFor is not between 0 and %s", maxGoodFor)
	case cfg.BadFor < 0 || cfg.BadFor > cfg.GoodFor:
		return nil, errors.New("verdict cache: BadFor is not between 0 and GoodFor")
	case cfg.Entries < 2 || cfg.Entries > maxVerdictEntries:
		return nil, fmt.Errorf("verdict cache: Entries is not between 2 and %d", maxVerdictEntries)
	}
	return &VerdictCache{
		checker: cfg.Checker, now: cfg.Now, goodFor: cfg.GoodFor, badFor: cfg.BadFor, half: cfg.Entries / 2,
		young: map[verdictKey]*Revocation{}, flights: map[verdictKey]*flight{},
	}, nil
}

// Check is [StatusChecker]'s. What is remembered is given again only while all of this holds, and otherwise it is asked for anew:
//   - the question is about the present: what was true some day is another question
//   - it was learnt less than GoodFor, or BadFor, ago, by a clock that was not set back since
//   - the answer says until when it is true, and that time has not come
//   - it was true within the time that the policy admits, if a [Verifier] asks
func (c *VerdictCache) Check(ctx context.Context, leaf, issuer *x509.Certificate, at time.Time) (Revocation, error) {
	return c.check(ctx, leaf, issuer, at, maxStatusAge)
}

// Counts returns how many questions were answered how: "remembered", "asked", "waited" for who asked already, "passed-on"
// because they were about the past, and of those asked "failed".
func (c *VerdictCache) Counts() map[string]uint64 { return c.tally.Snapshot() }

// check is Check for a policy that wants data no older than maxAge.
func (c *VerdictCache) check(ctx context.Context, leaf, issuer *x509.Certificate, at time.Time, maxAge time.Duration) (Revocation, error) {
	now := c.now()
	if at.Before(now.Add(-DefaultSkew)) || at.After(now.Add(DefaultSkew)) {
		c.tally.Add("passed-on")
		r, err := c.checker.Check(ctx, leaf, issuer, at)
		if err == nil && r.State != jpki.Good {
			c.mu.Lock()
			c.forget(keyOfVerdict(leaf, issuer))
			c.mu.Unlock()
		}
		return r, err
	}
	key := keyOfVerdict(leaf, issuer)
	c.mu.Lock()
	if r := c.get(key); r != nil && c.usable(r, now, maxAge) {
		c.mu.Unlock()
		c.tally.Add("remembered")
		return r.clone(), nil
	}
	f := c.flights[key]
	if f == nil {
		c.tally.Add("asked")
		shared, cancel := context.WithCancel(context.WithoutCancel(ctx))
		f = &flight{done: make(chan struct{}), cancel: cancel}
		c.flights[key] = f
		go c.ask(shared, f, key, leaf, issuer, at)
	} else {
		c.tally.Add("waited")
	}
	f.waiting++
	c.mu.Unlock()

	select {
	case <-f.done:
		return f.rev.clone(), f.err
	case <-ctx.Done():
		c.mu.Lock()
		if f.waiting--; f.waiting == 0 {
			f.cancel() // nobody wants to know any more
			if c.flights[key] == f {
				delete(c.flights, key)
			}
		}
		c.mu.Unlock()
		return Revocation{}, &StatusError{Failure: TimedOut, Err: ctx.Err()}
	}
}

// A flight is a question that is being asked. It outlives who asked first, as long as somebody waits.
type flight struct {
	done    chan struct{}
	cancel  context.CancelFunc
	waiting int
	rev     Revocation // when done
	err     error
}

// ask asks and remembers. What a checker breaks stays here: it would end the program, not only the call it broke.
func (c *VerdictCache) ask(ctx context.Context, f *flight, key verdictKey, leaf, issuer *x509.Certificate, at time.Time) {
	defer f.cancel()
	defer close(f.done)
	defer func() {
		if p := recover(); p != nil {
			f.err = fmt.Errorf("status checker broke: %v", p)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if f.err != nil {
			c.tally.Add("failed")
		}
		if c.flights[key] != f {
			return // abandoned: a later one may know better
		}
		delete(c.flights, key)
		if f.err == nil {
			c.put(key, f.rev)
		}
	}()
	f.rev, f.err = c.checker.Check(ctx, leaf, issuer, at)
}

// usable reports whether a status may be given again.
func (c *VerdictCache) usable(r *Revocation, now time.Time, maxAge time.Duration) bool {
	return !now.Before(r.CheckedAt) && now.Before(r.CheckedAt.Add(c.keeps(r.State))) && now.Before(r.NextUpdate) && !r.ThisUpdate.Before(now.Add(-maxAge))
}

// keeps returns for how long a state is remembered.
func (c *VerdictCache) keeps(s jpki.State) time.Duration {
	if s == jpki.Good {
		return c.goodFor
	}
	return c.badFor
}

func (c *VerdictCache) get(key verdictKey) *Revocation {
	if r := c.young[key]; r != nil {
		return r
	}
	r := c.old[key]
	if r != nil {
		c.store(key, r)
	}
	return r
}

// put remembers the latest that is known, if it may be given again, and forgets in any case what was known before. An answer
// without end says that there may always be a newer one (RFC 6960 §4.2.2.1).
func (c *VerdictCache) put(key verdictKey, r Revocation) {
	c.forget(key)
	if c.keeps(r.State) > 0 && !r.NextUpdate.IsZero() && !r.CheckedAt.IsZero() && len(r.Evidence) <= maxVerdictProof {
		kept := r.clone()
		c.store(key, &kept)
	}
}

func (c *VerdictCache) forget(key verdictKey) {
	delete(c.young, key)
	delete(c.old, key)
}

func (c *VerdictCache) store(key verdictKey, r *Revocation) {
	if len(c.young) >= c.half {
		c.old, c.young = c.young, make(map[verdictKey]*Revocation)
	}
	c.young[key] = r
}

// clone returns a copy that shares nothing that can be changed.
func (r Revocation) clone() Revocation {
	if r.RevokedAt != nil {
		at := *r.RevokedAt
		r.RevokedAt = &at
	}
	r.Evidence = bytes.Clone(r.Evidence)
	return r
}
