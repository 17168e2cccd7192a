package cache

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/openjpki/jpki"
)

// format is the version of what lies under our keys. Another one is another key: responders of two versions may share a
// server and never read each other's answers.
const format = "1"

// RedisConfig is what a [Redis] needs. It takes no clock: durations are measured by timers, the time to live by Redis.
type RedisConfig struct {
	Server Server // required

	Prefix    string        // of every key, followed by ":1:"; "" means "jpki:ocsp"
	Deadline  time.Duration // of a look-up; 0 means 5 ms
	Patience  time.Duration // of a write, of connecting and of a probe; 0 means 250 ms
	Exchanges int           // look-ups under way at once with one server, each of many keys; 0 means 2
	Writes    int           // that may wait for one server; 0 means 4096
	MaxValue  int           // octets; larger ones are not kept; 0 means 16 KiB
	MaxTTL    time.Duration // 0 means 7 days
	Rest      time.Duration // from the third failure in a row to the first probe; then twice as long, up to 16 times; 0 means 100 ms
}

// A Redis is a shelf in Redis, shared by many responders.
//
//   - Look-ups that come while others are under way are sent together: one command for all of them, or in a cluster one
//     pipeline for each primary. Nobody waits for company: with nothing under way a look-up goes at once.
//   - Writes wait in a bounded queue for a writer; when it is full they are dropped.
//   - After three failures in a row a server is left alone, and every look-up there is a miss at once, until a probe in the
//     background has been answered. So it begins, too: nobody waits for the first connection.
type Redis struct {
	cfg      RedisConfig
	client   redis.UniversalClient
	cluster  *redis.ClusterClient // nil if it is none
	sole     *lane                // nil in a cluster
	ready    atomic.Bool          // a cluster's layout is known
	lanes    sync.Map             // *redis.Client → *lane
	ctx      context.Context      // ends with Close
	end      context.CancelFunc
	mu       sync.Mutex // guards closed and the growth of running
	closed   bool
	running  sync.WaitGroup
	outcomes jpki.Tally
}

// NewRedis returns a shelf. It connects in the background: a server that is down is no error.
func NewRedis(cfg RedisConfig) (*Redis, error) {
	if err := cfg.Server.check(); err != nil {
		return nil, fmt.Errorf("make shelf in Redis: %w", err)
	}
	if cfg.Deadline < 0 || cfg.Patience < 0 || cfg.Exchanges < 0 || cfg.Writes < 0 || cfg.MaxValue < 0 || cfg.MaxTTL < 0 || cfg.Rest < 0 {
		return nil, errors.New("make shelf in Redis: a limit is negative")
	}
	def(&cfg.Prefix, "jpki:ocsp")
	def(&cfg.Deadline, 5*time.Millisecond)
	def(&cfg.Patience, 250*time.Millisecond)
	def(&cfg.Exchanges, 2)
	def(&cfg.Writes, 4096)
	def(&cfg.MaxValue, 16<<10)
	def(&cfg.MaxTTL, 7*24*time.Hour)
	def(&cfg.Rest, 100*time.Millisecond)
	cfg.Prefix += ":" + format + ":"

	r := &Redis{cfg: cfg}
	r.ctx, r.end = context.WithCancel(context.Background())
	r.client = redis.NewUniversalClient(cfg.Server.options(cfg.Exchanges+2, cfg.Patience)) // one for writes, one for probes
	if c, ok := r.client.(*redis.ClusterClient); ok {
		r.cluster = c
		r.spawn(r.survey)
	} else {
		r.sole = r.open(r.client, func() {})
	}
	return r, nil
}

func def[T comparable](v *T, or T) {
	if zero := *new(T); *v == zero {
		*v = or
	}
}

// survey learns the cluster's layout for the first time; the client keeps it up to date from then on.
func (r *Redis) survey() {
	for r.ctx.Err() == nil {
		if _, err := r.cluster.MasterForKey(r.ctx, r.cfg.Prefix); err == nil {
			r.ready.Store(true)
			return
		}
		pause(r.ctx, r.cfg.Rest)
	}
}

// pause waits for d or for ctx to end.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// lane returns what leads to the server where a key belongs; nil if that is not known or the shelf is closed.
func (r *Redis) lane(name string) *lane {
	if r.cluster == nil {
		return r.sole
	}
	if !r.ready.Load() {
		return nil
	}
	c, err := r.cluster.MasterForKey(r.ctx, name)
	if err != nil {
		return nil
	}
	if l, ok := r.lanes.Load(c); ok {
		return l.(*lane)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if l, ok := r.lanes.Load(c); ok || r.closed {
		l, _ := l.(*lane)
		return l
	}
	r.lanes.Range(func(_, old any) bool { // a new node: perhaps in the place of an old one, where nobody will look again
		r.spawnLocked(func() {
			if old := old.(*lane); errors.Is(old.client.Ping(r.ctx).Err(), redis.ErrClosed) {
				old.leave()
			}
		})
		return true
	})
	l := r.openLocked(c, r.relearn)
	r.lanes.Store(c, l)
	return l
}

// relearn asks for the cluster's layout: something is not where it was. The client sees to it that this is not too often.
func (r *Redis) relearn() { r.cluster.ReloadState(r.ctx) }

// spawn runs f for Close to wait for; not at all once closed.
func (r *Redis) spawn(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.spawnLocked(f)
}

func (r *Redis) spawnLocked(f func()) {
	if !r.closed {
		r.running.Go(f)
	}
}

// Get returns the value under a key, if Redis answers within the deadline and has it. The value is shared and must not be
// changed; the key is not kept.
func (r *Redis) Get(ctx context.Context, key string) (value []byte, ok bool) {
	name := r.cfg.Prefix + key
	l := r.lane(name)
	if l == nil || l.shut.Load() {
		r.outcomes.Add("open")
		return nil, false
	}
	b, i := l.join(name)
	if b == nil {
		r.outcomes.Add("busy")
		return nil, false
	}
	select {
	case <-b.done:
	case <-b.ctx.Done():
	case <-ctx.Done():
	}
	select {
	case <-b.done:
	default: // the deadline, or the caller gave up; whether there is a value nobody knows yet
		r.outcomes.Add("late")
		return nil, false
	}
	switch {
	case b.err != nil:
		r.outcomes.Add("failed")
	case b.values[i] == nil:
		r.outcomes.Add("miss")
	case len(b.values[i]) > r.cfg.MaxValue:
		r.outcomes.Add("oversize")
	default:
		r.outcomes.Add("hit")
		return b.values[i], true
	}
	return nil, false
}

// Put has a value written some time soon, to be kept for ttl; without a ttl nothing is written. It takes a copy of the
// key but not of the value, which must not change any more.
func (r *Redis) Put(key string, value []byte, ttl time.Duration) {
	if ttl < time.Millisecond || len(value) > r.cfg.MaxValue {
		r.outcomes.Add("put-refused")
		return
	}
	name := r.cfg.Prefix + key
	l := r.lane(name)
	if l == nil || l.shut.Load() {
		r.outcomes.Add("put-dropped")
		return
	}
	select {
	case l.puts <- put{name, value, min(ttl, r.cfg.MaxTTL)}:
	default:
		r.outcomes.Add("put-dropped")
	}
}

// Open reports whether no server is known to answer now: before the first connection, and while all are left alone.
func (r *Redis) Open() bool {
	if r.sole != nil {
		return r.sole.shut.Load()
	}
	open := true
	r.lanes.Range(func(_, l any) bool { open = l.(*lane).shut.Load(); return open })
	return open
}

// Outcomes returns how often each outcome occurred. A look-up is a hit, a miss, oversize (a value we would not have
// written), late (the deadline), failed (an error), open (the server was being left alone) or busy (too many waited). A
// write is put, put-refused (no ttl, or too large), put-dropped (too many waited, or left alone) or put-failed. And opened
// and closed count how often a server began and ceased to be left alone.
func (r *Redis) Outcomes() map[string]uint64 { return r.outcomes.Snapshot() }

// Close ends all that is under way; writes that still wait are lost.
func (r *Redis) Close() error {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.end()
	if r.sole != nil {
		r.sole.shut.Store(true)
	}
	r.lanes.Range(func(_, l any) bool { l.(*lane).shut.Store(true); return true })
	err := r.client.Close()
	r.running.Wait()
	return err
}
