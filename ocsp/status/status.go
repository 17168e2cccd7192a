// Package status keeps the status of every certificate in memory by following the authority's status log.
//
// It owns [Index], which knows at any time up to when its view is complete, the watermark, and refuses to speak from a
// view that is older than its bound.
// It writes nothing, knows nothing of OCSP and keeps no cause: a public service has no use for it.
// What it asks of the log, append-only and numbered without gaps, is said at [Log].
// An Index is safe for concurrent use; when the log fails it goes on for as long as the bound allows and then says
// jpki.Unavailable, never an old status.
// Start at Index.Status.
package status

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/openjpki/jpki"
)

// A Log is the status log. StatusChanges returns the entries after a position, at most limit of them, in sequence order
// and without gaps. It reflects everything committed before the call began, so fewer than limit means that there were
// no more then. It ends when ctx does.
type Log interface {
	StatusChanges(ctx context.Context, after int64, limit int) ([]jpki.StatusChange, error)
}

// page is how many entries are asked for at once.
const page = 4096

// Config is what an [Index] needs.
type Config struct {
	Log Log              // required
	Now func() time.Time // required; should carry the monotonic clock, as time.Now does

	Bound    time.Duration   // how old the view may be when a status is taken from it; 0 means 1 second
	Interval time.Duration   // between two reads of the log by Run; 0 means 100 ms
	Timeout  time.Duration   // given to one read of the log; 0 means 10 seconds
	Wake     <-chan struct{} // optional: signalled after a commit, makes Run read at once
}

// An Index is an in-memory view of the status log. Without [Index.Run] it works as well, reading the log when asked.
type Index struct {
	cfg Config

	mu        sync.RWMutex // guards the view
	certs     map[jpki.IssuerID]map[jpki.Serial]entry
	n         int
	last      jpki.StatusChange // the entry applied last; its Seq is our position
	watermark time.Time         // nothing committed before is missing; zero before the first complete read
	err       error             // of the last round

	rounds  sync.Mutex // guards the coalescing of reads
	waiting *round
	reading bool
}

// An entry is what the view keeps of one certificate.
type entry struct {
	since   int64 // Unix seconds
	version int64
	state   byte // an index of states
	reason  byte
}

var states = [...]jpki.State{jpki.Good, jpki.Suspended, jpki.Revoked}

// New returns an index with nothing in it: the first Refresh, Status or Run reads the log from its beginning.
func New(cfg Config) (*Index, error) {
	switch {
	case cfg.Log == nil:
		return nil, errors.New("make status index: Log is required")
	case cfg.Now == nil:
		return nil, errors.New("make status index: Now is required")
	case cfg.Bound < 0 || cfg.Interval < 0 || cfg.Timeout < 0:
		return nil, errors.New("make status index: a duration is negative")
	}
	if cfg.Bound == 0 {
		cfg.Bound = time.Second
	}
	if cfg.Interval == 0 {
		cfg.Interval = 100 * time.Millisecond
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 10 * time.Second
	}
	return &Index{cfg: cfg, certs: map[jpki.IssuerID]map[jpki.Serial]entry{}}, nil
}

// Status returns what is true of a certificate and the time up to which that is complete, at most Bound ago. If the view
// is older, or does not have the certificate, the log is read once more before anything is said: so an issuance is
// visible as soon as it is committed. The error is jpki.UnknownCertificate, with asOf, for a certificate that is not in
// the log, and jpki.Unavailable when the log cannot be read within Bound. The cause of a status is not kept.
func (x *Index) Status(ctx context.Context, id jpki.CertID) (st jpki.Status, asOf time.Time, err error) {
	st, asOf, found := x.look(id)
	if found && x.fresh(asOf) {
		return st, asOf, nil
	}
	wait, cancel := context.WithTimeout(ctx, x.cfg.Bound)
	defer cancel()
	if err := x.Refresh(wait); err != nil {
		return jpki.Status{}, time.Time{}, jpki.WrapError(jpki.Unavailable, err, "the view of statuses is not complete")
	}
	switch st, asOf, found = x.look(id); {
	case !x.fresh(asOf):
		return jpki.Status{}, time.Time{}, jpki.Errorf(jpki.Unavailable, "the view of statuses is too old")
	case !found:
		return jpki.Status{}, asOf, jpki.UnknownCertificate
	}
	return st, asOf, nil
}

func (x *Index) look(id jpki.CertID) (st jpki.Status, asOf time.Time, found bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	e, found := x.certs[id.Issuer][id.Serial]
	if !found {
		return st, x.watermark, false
	}
	return jpki.Status{State: states[e.state], Reason: jpki.Reason(e.reason), Since: time.Unix(e.since, 0).UTC(), Version: e.version}, x.watermark, true
}

// fresh reports whether a view complete up to the given time may still be used. Both clocks have to agree: the monotonic
// one is not fooled by a correction of the time, the other goes on while the machine sleeps.
func (x *Index) fresh(watermark time.Time) bool {
	now := x.cfg.Now()
	return !watermark.IsZero() && now.Sub(watermark) <= x.cfg.Bound && now.Round(0).Sub(watermark.Round(0)) <= x.cfg.Bound
}

// Run reads the log every Interval and whenever woken, until ctx ends; it returns ctx's error. A read that fails is tried
// again at the next turn: see [Index.Err], and the age of the watermark.
func (x *Index) Run(ctx context.Context) error {
	tick := time.NewTicker(x.cfg.Interval)
	defer tick.Stop()
	wake := x.cfg.Wake
	for {
		_ = x.Refresh(ctx) // kept for Err
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		case _, open := <-wake:
			if !open {
				wake = nil
			}
		}
	}
}

// A round is one reading of the log to its end, for all who asked before it began.
type round struct {
	done chan struct{}
	err  error // set before done is closed
}

// Refresh returns after a read of the log that began after the call: what was committed before the call is then in the
// view. Calls that come while a read is under way share the next one. A read goes on when the caller gives up.
func (x *Index) Refresh(ctx context.Context) error {
	x.rounds.Lock()
	if x.waiting == nil {
		x.waiting = &round{done: make(chan struct{})}
	}
	r := x.waiting
	if !x.reading {
		x.reading = true
		go x.read()
	}
	x.rounds.Unlock()
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return fmt.Errorf("refresh status view: %w", ctx.Err())
	}
}

// read runs rounds for as long as somebody waits for one.
func (x *Index) read() {
	for {
		x.rounds.Lock()
		r := x.waiting
		x.waiting = nil
		x.reading = r != nil
		x.rounds.Unlock()
		if r == nil {
			return
		}
		r.err = x.catchUp()
		x.mu.Lock()
		x.err = r.err
		x.mu.Unlock()
		close(r.done)
	}
}

// catchUp reads the log to its end. The watermark is the time before the read that found nothing more.
func (x *Index) catchUp() error {
	for {
		at := x.cfg.Now()
		changes, err := x.next()
		if err != nil {
			return fmt.Errorf("read status log: %w", err)
		}
		if err := x.apply(changes); err != nil {
			return fmt.Errorf("follow status log: %w", err)
		}
		if len(changes) < page {
			x.mu.Lock()
			x.watermark = at
			x.mu.Unlock()
			return nil
		}
	}
}

// next reads one page. It begins with the entry we had last: a log that was rolled back, by a restore or a fail-over,
// no longer has it, and is not to be followed.
func (x *Index) next() ([]jpki.StatusChange, error) {
	ctx, cancel := context.WithTimeout(context.Background(), x.cfg.Timeout) // not the caller's: others wait for it too
	defer cancel()
	last := x.last // written by this goroutine's predecessors only, never at the same time
	changes, err := x.cfg.Log.StatusChanges(ctx, max(0, last.Seq-1), page)
	if err != nil || last.Seq == 0 {
		return changes, err
	}
	if len(changes) == 0 || !same(changes[0], last) {
		return nil, fmt.Errorf("entry %d is no longer what it was", last.Seq)
	}
	return changes, nil
}

func same(a, b jpki.StatusChange) bool {
	return a.Seq == b.Seq && a.ID == b.ID && a.Status.State == b.Status.State && a.Status.Version == b.Status.Version
}

// apply enters a page, or nothing of it if it does not follow what we have.
func (x *Index) apply(changes []jpki.StatusChange) error {
	if x.last.Seq > 0 {
		changes = changes[1:] // next has compared it
	}
	entries := make([]entry, len(changes))
	for i, c := range changes {
		if c.Seq != x.last.Seq+int64(i)+1 {
			return fmt.Errorf("after entry %d comes %d", x.last.Seq+int64(i), c.Seq)
		}
		e, err := compact(c.Status)
		if err != nil {
			return fmt.Errorf("entry %d: %w", c.Seq, err)
		}
		entries[i] = e
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for i, c := range changes {
		certs := x.certs[c.ID.Issuer]
		if certs == nil {
			certs = map[jpki.Serial]entry{}
			x.certs[c.ID.Issuer] = certs
		}
		before := len(certs)
		certs[c.ID.Serial] = entries[i]
		x.n += len(certs) - before
		x.last = c
	}
	return nil
}

func compact(st jpki.Status) (entry, error) {
	if st.Reason < 0 || st.Reason > math.MaxUint8 {
		return entry{}, fmt.Errorf("reason %d", st.Reason)
	}
	for i, s := range states {
		if s == st.State {
			return entry{since: st.Since.Unix(), version: st.Version, state: byte(i), reason: byte(st.Reason)}, nil
		}
	}
	return entry{}, fmt.Errorf("unknown state %q", st.State)
}

// Watermark returns the time up to which the view is complete; zero before the first complete read.
func (x *Index) Watermark() time.Time { x.mu.RLock(); defer x.mu.RUnlock(); return x.watermark }

// Len returns how many certificates the view has.
func (x *Index) Len() int { x.mu.RLock(); defer x.mu.RUnlock(); return x.n }

// Seq returns the position of the last entry in the view; 0 before the first.
func (x *Index) Seq() int64 { x.mu.RLock(); defer x.mu.RUnlock(); return x.last.Seq }

// Err returns why the last read of the log failed, or nil.
func (x *Index) Err() error { x.mu.RLock(); defer x.mu.RUnlock(); return x.err }
