package relay

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/openjpki/jpki"
)

// A Tier is one of several logs to read from.
type Tier struct {
	Name   string        // required, for counting
	Log    Log           // required
	Within time.Duration // given to one read; 0 means as much as the caller gives
}

// LogsConfig is what [Logs] need.
//
// The times have to fit into the bound of whoever reads, 1 second for the status index: with 200 ms for Redis and Rest of
// a second, a view is at its oldest 100 ms (the index's interval) + 200 ms + the read from the database, once a second.
type LogsConfig struct {
	Tiers []Tier           // required, in the order in which they are tried; the last should be the database
	Now   func() time.Time // required; should carry the monotonic clock, as time.Now does

	Rest time.Duration // for which a tier that failed is passed over, unless it is the last; 0 means 1 second
}

// Logs reads from the first of several logs that answers. It is a [Log] if all of them are.
type Logs struct {
	cfg      LogsConfig
	outcomes jpki.Tally

	mu     sync.Mutex
	failed []time.Time // per tier: when it failed last; zero if it has answered since
	errs   []error     // per tier: how
}

// NewLogs returns a chain of logs.
func NewLogs(cfg LogsConfig) (*Logs, error) {
	switch {
	case len(cfg.Tiers) == 0:
		return nil, errors.New("make chain of logs: Tiers are required")
	case cfg.Now == nil:
		return nil, errors.New("make chain of logs: Now is required")
	case cfg.Rest < 0:
		return nil, errors.New("make chain of logs: Rest is negative")
	}
	for _, t := range cfg.Tiers {
		if t.Name == "" || t.Log == nil || t.Within < 0 {
			return nil, errors.New("make chain of logs: each tier needs Name and Log, and no negative time")
		}
	}
	def(&cfg.Rest, time.Second)
	return &Logs{cfg: cfg, failed: make([]time.Time, len(cfg.Tiers)), errs: make([]error, len(cfg.Tiers))}, nil
}

// StatusChanges is [Log]'s, from the first tier that answers. The error is the last tier's.
func (l *Logs) StatusChanges(ctx context.Context, after int64, limit int) (changes []jpki.StatusChange, err error) {
	for i, t := range l.cfg.Tiers {
		if i < len(l.cfg.Tiers)-1 && l.resting(i) {
			continue
		}
		changes, err = t.read(ctx, after, limit)
		switch {
		case err == nil:
			l.note(i, nil)
			l.outcomes.Add(t.Name)
			return changes, nil
		case errors.Is(err, errGap): // it is well, and just does not reach so far back
		case ctx.Err() != nil:
			return nil, err
		default:
			l.note(i, err)
			l.outcomes.Add(t.Name + "-failed")
		}
	}
	return nil, err
}

func (t Tier) read(ctx context.Context, after int64, limit int) ([]jpki.StatusChange, error) {
	if t.Within > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, t.Within)
		defer cancel()
	}
	changes, err := t.Log.StatusChanges(ctx, after, limit)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", t.Name, err)
	}
	return changes, nil
}

// resting reports whether a tier failed a short while ago. A clock that was set back does not prolong that.
func (l *Logs) resting(i int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	since := l.cfg.Now().Sub(l.failed[i])
	return !l.failed[i].IsZero() && since >= 0 && since < l.cfg.Rest
}

func (l *Logs) note(i int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.errs[i] = err; err == nil {
		l.failed[i] = time.Time{}
	} else {
		l.failed[i] = l.cfg.Now()
	}
}

// Err returns how the first tier failed last, if it has not answered since: then others do its work.
func (l *Logs) Err() error { l.mu.Lock(); defer l.mu.Unlock(); return l.errs[0] }

// Outcomes returns how often each tier answered, by its name, and how often it failed, by its name with "-failed".
func (l *Logs) Outcomes() map[string]uint64 { return l.outcomes.Snapshot() }
