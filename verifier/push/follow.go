package push

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/client"
	"github.com/openjpki/jpki/verifier/store"
)

// A Feed is the authority's feed for the operator of this verifier.
type Feed interface {
	// Changes returns what is behind a position, at most limit, and waits up to wait if there is nothing.
	Changes(ctx context.Context, after int64, limit int, wait time.Duration) (client.ChangePage, error)
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
	wake chan struct{}
}

// NewFollower checks the configuration.
func NewFollower(cfg FollowerConfig) (*Follower, error) {
	if cfg.Store == nil || cfg.Feed == nil || cfg.Now == nil || cfg.Rand == nil {
		return nil, errors.New("push: Store, Feed, Now and Rand are required")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Follower{cfg, make(chan struct{}, 1)}, nil
}

// Wake receives after changes were added; for [Config].
func (f *Follower) Wake() <-chan struct{} { return f.wake }

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

// Step reads once and adds what it read.
func (f *Follower) Step(ctx context.Context, wait time.Duration) error {
	after, err := f.Store.AuthorityPosition(ctx)
	if err != nil {
		return err
	}
	in, err := f.Feed.Changes(ctx, after, client.MaxChanges, wait)
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
		select {
		case f.wake <- struct{}{}:
		default:
		}
	}
	return err
}
