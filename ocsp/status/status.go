// Package status keeps the status of every certificate in memory by following the authority's status log.
//
// It owns [Index], which knows at any time up to when its view is complete, the watermark, and refuses to speak from a
// view that is older than its bound. Of a hundred million certificates it needs some 15 octets each (decision 0019), and
// a snapshot file, if it has one, spares it the beginning of the log.
// It writes nothing else, knows nothing of OCSP and keeps no cause: a public service has no use for it.
// What it asks of the log, append-only and numbered without gaps, is said at [Log].
// An Index is safe for concurrent use, and look-ups take no lock; when the log fails it goes on for as long as the bound
// allows and then says jpki.Unavailable, never an old status. Start at Index.Status.
package status

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"slices"
	"sync"
	"sync/atomic"
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
	Pause    time.Duration   // from one read of the log to the next that is made only for unknown certificates; 0 means 5 ms
	Timeout  time.Duration   // given to one read of the log; 0 means 10 seconds
	Wake     <-chan struct{} // optional: signalled after a commit, makes Run read at once

	Snapshot    string        // optional: the file to begin with and to keep up to date; no other process may write it
	SaveEvery   time.Duration // how old the file may become while anything new arrives; 0 means 1 hour
	AcceptTrial bool          // begin with a snapshot of certificates that no log has, see [AddTrial]: never in production
	Retention   time.Duration // how long after its end a certificate is known at least; 0 means 1 year
	MergeAt     int           // how many certificates the log may bring before they are packed; 0 means a sixteenth of all
}

// An Index is an in-memory view of the status log. Without [Index.Run] it works as well, reading the log when asked.
type Index struct {
	cfg Config

	view      atomic.Pointer[view]
	watermark atomic.Pointer[time.Time] // nothing committed before is missing from the view; nil before the first complete read
	count     atomic.Int64

	merging sync.Mutex // held by a merge; taken before mu
	trial   bool       // the base has certificates that no log has

	mu          sync.Mutex        // guards writing the view, and what follows
	last        jpki.StatusChange // the entry applied last; its Seq is our position
	err         error             // of the last round
	saved       int64             // position of the snapshot file
	savedAt     time.Time         // when it was made, or should have been
	snapshotErr error
	opened      time.Time // when the snapshot was made that we began with
	timeline    time.Time // when the log began its present timeline, as far as it was read

	rounds  sync.Mutex // guards the coalescing of reads
	waiting *round
	reading bool
	began   time.Time // the last read; of the reading goroutine
	anew    time.Time // before that no rewritten log is read from its beginning; likewise
}

var states = [...]jpki.State{jpki.Good, jpki.Suspended, jpki.Revoked}

// New returns an index that begins with the snapshot. A snapshot that cannot be used is left aside, see [Index.SnapshotErr]:
// then, or without any, the first Refresh, Status or Run reads the log from its beginning.
func New(cfg Config) (*Index, error) {
	switch {
	case cfg.Log == nil:
		return nil, errors.New("make status index: Log is required")
	case cfg.Now == nil:
		return nil, errors.New("make status index: Now is required")
	case cfg.Bound < 0 || cfg.Interval < 0 || cfg.Pause < 0 || cfg.Timeout < 0 || cfg.SaveEvery < 0 || cfg.Retention < 0:
		return nil, errors.New("make status index: a duration is negative")
	case cfg.MergeAt < 0:
		return nil, errors.New("make status index: MergeAt is negative")
	}
	for _, d := range []struct {
		field *time.Duration
		usual time.Duration
	}{
		{&cfg.Bound, time.Second},
		{&cfg.Interval, 100 * time.Millisecond},
		{&cfg.Pause, 5 * time.Millisecond},
		{&cfg.Timeout, 10 * time.Second},
		{&cfg.SaveEvery, time.Hour},
		{&cfg.Retention, 365 * 24 * time.Hour},
	} {
		if *d.field == 0 {
			*d.field = d.usual
		}
	}
	x := &Index{cfg: cfg, savedAt: cfg.Now()}
	x.view.Store(&view{active: newOverlay()})
	if cfg.Snapshot != "" {
		if err := x.openSnapshot(); err != nil && !errors.Is(err, fs.ErrNotExist) {
			x.snapshotErr = fmt.Errorf("open snapshot: %w", err)
		}
	}
	return x, nil
}

// Status returns what is true of a certificate and the time up to which that is complete, at most Bound ago. If the view
// is older, or does not have the certificate, the log is read once more before anything is said: so an issuance is
// visible as soon as it is committed. The error is jpki.UnknownCertificate, with asOf, for a certificate that is not in
// the log, and jpki.Unavailable when the log cannot be read within Bound. The cause of a status is not kept, nor since when
// a certificate is good that never was anything else.
func (x *Index) Status(ctx context.Context, id jpki.CertID) (st jpki.Status, asOf time.Time, err error) {
	return x.status(ctx, id, time.Time{})
}

// StatusAt is Status for one of several questions that arrived together, at a time that the index's clock showed. What was
// committed before they arrived is enough for them, so that any number of unknown certificates makes the log be read once.
func (x *Index) StatusAt(ctx context.Context, id jpki.CertID, arrived time.Time) (st jpki.Status, asOf time.Time, err error) {
	return x.status(ctx, id, arrived)
}

// status reads the watermark before the view: what is found is then never older than asOf says.
func (x *Index) status(ctx context.Context, id jpki.CertID, arrived time.Time) (st jpki.Status, asOf time.Time, err error) {
	asOf = x.Watermark()
	v, found := x.view.Load().find(id)
	fresh := x.fresh(asOf)
	switch {
	case found && fresh:
		return v.status(), asOf, nil
	case fresh && !arrived.IsZero() && asOf.After(arrived):
		return jpki.Status{}, asOf, jpki.UnknownCertificate
	}
	wait, cancel := context.WithTimeout(ctx, x.cfg.Bound)
	defer cancel()
	if err := x.refresh(wait, !fresh); err != nil {
		return jpki.Status{}, time.Time{}, jpki.WrapError(jpki.Unavailable, err, "the view of statuses is not complete")
	}
	asOf = x.Watermark()
	switch v, found = x.view.Load().find(id); {
	case !x.fresh(asOf):
		return jpki.Status{}, time.Time{}, jpki.Errorf(jpki.Unavailable, "the view of statuses is too old")
	case !found:
		return jpki.Status{}, asOf, jpki.UnknownCertificate
	}
	return v.status(), asOf, nil
}

func (v *value) status() jpki.Status {
	if v.plain() {
		return jpki.Status{State: jpki.Good, Version: 1}
	}
	return jpki.Status{State: states[v.state], Reason: jpki.Reason(v.reason), Since: time.Unix(v.since, 0).UTC(), Version: int64(v.version)}
}

// fresh reports whether a view complete up to the given time may still be used. Both clocks have to agree: the monotonic
// one is not fooled by a correction of the time, the other goes on while the machine sleeps. A view of the future says that
// a clock was set back, not how old it is.
func (x *Index) fresh(watermark time.Time) bool {
	now := x.cfg.Now()
	monotonic, wall := now.Sub(watermark), now.Round(0).Sub(watermark.Round(0))
	return !watermark.IsZero() && min(monotonic, wall) >= 0 && max(monotonic, wall) <= x.cfg.Bound
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
	urgent chan struct{} // closed when somebody asks who cannot wait for the pause
	hurry  sync.Once
	done   chan struct{}
	err    error // set before done is closed
}

// Refresh returns after a read of the log that began after the call: what was committed before the call is then in the
// view. Calls that come while a read is under way share the next one. A read goes on when the caller gives up.
func (x *Index) Refresh(ctx context.Context) error { return x.refresh(ctx, true) }

func (x *Index) refresh(ctx context.Context, urgent bool) error {
	x.rounds.Lock()
	if x.waiting == nil {
		x.waiting = &round{urgent: make(chan struct{}), done: make(chan struct{})}
	}
	r := x.waiting
	if urgent {
		r.hurry.Do(func() { close(r.urgent) })
	}
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

// read runs rounds for as long as somebody waits for one. Whoever knows a number that was never issued can ask for rounds
// without end: the pause bounds what that costs the log, and all who ask during it share the next round.
func (x *Index) read() {
	for {
		x.rounds.Lock()
		r := x.waiting
		x.reading = r != nil
		x.rounds.Unlock()
		if r == nil {
			return
		}
		x.pause(r)
		x.rounds.Lock()
		x.waiting = nil
		x.rounds.Unlock()
		x.began = x.cfg.Now()
		r.err = x.catchUp()
		x.mu.Lock()
		x.err = r.err
		x.mu.Unlock()
		close(r.done)
	}
}

func (x *Index) pause(r *round) {
	left := x.cfg.Pause - x.cfg.Now().Sub(x.began)
	if x.began.IsZero() || left <= 0 {
		return
	}
	timer := time.NewTimer(min(left, x.cfg.Pause)) // a clock that was set back must not make it longer
	defer timer.Stop()
	select {
	case <-r.urgent:
	case <-timer.C:
	}
}

// catchUp reads the log to its end. The watermark is the time before the read that found nothing more.
func (x *Index) catchUp() error {
	for {
		at := x.cfg.Now()
		changes, err := x.next()
		if errors.Is(err, errRewritten) {
			if err = x.beginAnew(err); err == nil {
				continue
			}
		}
		if err != nil {
			return fmt.Errorf("read status log: %w", err)
		}
		if err := x.apply(changes); err != nil {
			return fmt.Errorf("follow status log: %w", err)
		}
		if len(changes) < page {
			x.watermark.Store(&at)
			x.mergeIfDue()
			return nil
		}
		x.mergeIfDue()
	}
}

// next reads one page. It begins with the entry we had last: a log that was rolled back, by a restore or a fail-over,
// no longer has it, and is not to be followed; see beginAnew.
func (x *Index) next() ([]jpki.StatusChange, error) {
	ctx, cancel := context.WithTimeout(context.Background(), x.cfg.Timeout) // not the caller's: others wait for it too
	defer cancel()
	last := x.last // written by this goroutine's predecessors only, never at the same time
	changes, err := x.cfg.Log.StatusChanges(ctx, max(0, last.Seq-1), page)
	if err != nil || last.Seq == 0 {
		return changes, err
	}
	if len(changes) == 0 || !same(changes[0], last) {
		return nil, fmt.Errorf("entry %d is no longer what it was: %w", last.Seq, errRewritten)
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
	items := make([]*item, len(changes))
	for i, c := range changes {
		if c.Seq != x.last.Seq+int64(i)+1 {
			return fmt.Errorf("after entry %d comes %d", x.last.Seq+int64(i), c.Seq)
		}
		v, err := compact(c)
		if err != nil {
			return fmt.Errorf("entry %d: %w", c.Seq, err)
		}
		items[i] = &item{record: record{value: v}}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for i, c := range changes {
		it := items[i]
		var length int
		it.key, length = keyOf(c.ID.Serial)
		v := x.view.Load()
		if it.part = v.part(c.ID.Issuer, length); it.part == nil {
			it.part = &part{issuer: c.ID.Issuer, length: length}
			v = &view{parts: append(slices.Clone(v.parts), it.part), active: v.active, frozen: v.frozen}
			x.view.Store(v)
		}
		if _, known := v.findIn(it.part, &it.key); !known {
			x.count.Add(1)
		}
		v.active.put(it)
		x.last = c
		if c.NewTimeline() {
			x.timeline = c.Status.Since
		}
	}
	return nil
}

func compact(c jpki.StatusChange) (value, error) {
	st, since := c.Status, c.Status.Since.Unix()
	switch i := slices.Index(states[:], st.State); {
	case i < 0:
		return value{}, fmt.Errorf("unknown state %q", st.State)
	case st.Reason < 0 || st.Reason > math.MaxUint8:
		return value{}, fmt.Errorf("reason %d", st.Reason)
	case st.Version < 0 || st.Version > math.MaxUint32:
		return value{}, fmt.Errorf("version %d", st.Version)
	case since < -1<<47 || since >= 1<<47:
		return value{}, errors.New("a time that no certificate can bear")
	case c.ID.Serial.IsZero():
		return value{}, errors.New("no serial")
	default:
		return value{since: since, version: uint32(st.Version), end: quarterOf(c.NotAfter), state: byte(i), reason: byte(st.Reason)}, nil
	}
}

// Watermark returns the time up to which the view is complete; zero before the first complete read.
func (x *Index) Watermark() time.Time {
	if at := x.watermark.Load(); at != nil {
		return *at
	}
	return time.Time{}
}

// Len returns how many certificates the view has.
func (x *Index) Len() int { return int(x.count.Load()) }

// Seq returns the position of the last entry in the view; 0 before the first.
func (x *Index) Seq() int64 { x.mu.Lock(); defer x.mu.Unlock(); return x.last.Seq }

// Err returns why the last read of the log failed, or nil.
func (x *Index) Err() error { x.mu.Lock(); defer x.mu.Unlock(); return x.err }

// SnapshotErr returns why the snapshot could not be used, or not be replaced the last time; nil when all is well.
func (x *Index) SnapshotErr() error { x.mu.Lock(); defer x.mu.Unlock(); return x.snapshotErr }
