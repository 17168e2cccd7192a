package push

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/client"
	"github.com/openjpki/jpki/verifier/store"
)

// A Feed is the authority's feed for the operator of this verifier.
type Feed interface {
	// Changes returns what is behind a position, at most limit, and waits up to wait if there is nothing.
	Changes(ctx context.Context, after int64, limit int, wait time.Duration) (client.ChangePage, error)
	// FeedBounds returns the position behind which everything is kept, and the last.
	FeedBounds(ctx context.Context) (start, end int64, err error)
}

// FollowerConfig is what [NewFollower] wants.
type FollowerConfig struct {
	Store *store.Store     // required
	Feed  Feed             // required
	Now   func() time.Time // required
	Log   *slog.Logger     // nil means none
	Rand  io.Reader        // required: for waiting after failures
}

// A Follower reads the authority's feed into the tenants' feeds. Any number of processes may follow: who commits first moves the
// cursor, and the others read on behind it.
type Follower struct {
	FollowerConfig
	wake    chan struct{}
	mu      sync.Mutex
	changed chan struct{} // closed when changes are added
	resyncs jpki.Tally
}

// NewFollower checks the configuration.
func NewFollower(cfg FollowerConfig) (*Follower, error) {
	if cfg.Store == nil || cfg.Feed == nil || cfg.Now == nil || cfg.Rand == nil {
		return nil, errors.New("push: Store, Feed, Now and Rand are required")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Follower{FollowerConfig: cfg, wake: make(chan struct{}, 1), changed: make(chan struct{})}, nil
}

// Wake receives after changes were added; for [Config].
func (f *Follower) Wake() <-chan struct{} { return f.wake }

// Changed returns what is closed when this process next adds changes; for those who wait for one.
func (f *Follower) Changed() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changed
}

// longPoll is how long the authority may wait for something to tell.
const longPoll = 20 * time.Second

// Run follows until the context ends.
func (f *Follower) Run(ctx context.Context) error {
	for vain := 0; ; {
		err := f.Step(ctx, longPoll)
		if err == nil {
			vain = 0
			continue
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		f.Log.WarnContext(ctx, "the authority's changes cannot be read", slog.Any("error", err))
		wait := min(30*time.Second, 100*time.Millisecond<<min(vain, 9))
		n, err := randInt(f.Rand, int64(wait))
		if err != nil {
			return err
		}
		vain++
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait/2 + time.Duration(n)/2):
		}
	}
}

// Step reads once and adds what it read. Where the authority's feed does not go on from where it was read, tenants are told so, once.
func (f *Follower) Step(ctx context.Context, wait time.Duration) error {
	after, err := f.Store.AuthorityPosition(ctx)
	if err != nil {
		return err
	}
	in, err := f.Feed.Changes(ctx, after, client.MaxChanges, wait)
	if p := jpki.ProblemOf(err); err != nil && (p == jpki.CursorExpired || p == jpki.Malformed) {
		return f.resynchronise(ctx, after, err)
	}
	if err != nil {
		return err
	}
	if in.Next == after {
		return nil
	}
	var changes []store.AuthorityChange
	at := after
	for _, c := range in.Changes {
		if at++; c.Position != at { // never skip what was not told
			return jpki.WrapError(jpki.Internal, errors.New("the authority's feed has a gap"), "")
		}
		changes = append(changes, store.AuthorityChange{Tenant: c.Tenant, Change: store.Change{ID: c.ID, User: c.User, Purpose: c.Purpose, Class: c.Class, Kind: c.Kind, Correction: c.Correction, At: c.At}})
	}
	if in.Next != at {
		return jpki.WrapError(jpki.Internal, errors.New("the authority's feed ends elsewhere than it says"), "")
	}
	moved, err := f.Store.AppendChanges(ctx, after, in.Next, changes, f.Now())
	if moved {
		f.tell()
	}
	return err
}

func (f *Follower) tell() {
	f.mu.Lock()
	close(f.changed)
	f.changed = make(chan struct{})
	f.mu.Unlock()
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// resynchronise goes on where the authority's feed is, and tells every tenant that changes may be missing. It is for two cases and no
// other: what followed our position is kept no longer, because we were away for too long or the authority was restored (then the feed goes on
// behind what is forgotten); or our position lies behind the feed's end, because this operator was registered anew (then
// behind the end: what is before may have been told already).
func (f *Follower) resynchronise(ctx context.Context, after int64, refused error) error {
	start, end, err := f.Feed.FeedBounds(ctx)
	if err != nil {
		return errors.Join(refused, err)
	}
	next := start
	switch {
	case after < start:
	case after > end:
		next = end
	default:
		return refused
	}
	tenants, moved, err := f.Store.Resynchronise(ctx, after, next, f.Now())
	if moved {
		f.Log.WarnContext(ctx, "changes of the authority's may have been missed; the tenants were told", slog.Int64("from", after), slog.Int64("to", next), slog.Int("tenants", tenants))
		f.resyncs.Add("resynchronised")
		f.tell()
	}
	return err
}

// Outcomes counts how often changes may have been missed ("resynchronised").
func (f *Follower) Outcomes() map[string]uint64 { return f.resyncs.Snapshot() }
