package cache

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	most    = 128 // keys or values in one exchange
	waiting = 32  // full batches that may wait for one server
	strikes = 3   // failures in a row after which a server is left alone
	longest = 16  // times Rest: the longest pause between probes
)

// A lane leads to one server: what is looked up there is gathered, what is written there queued, and what goes wrong there
// counted, so that a lost primary holds up nobody whose key lives elsewhere.
//
// shut is the circuit breaker. It is set at first and after so many strikes; only probe, which runs as long as it is set,
// takes it back.
type lane struct {
	r      *Redis
	client redis.UniversalClient
	moved  func() // called when the server does not have what it should, or is lost
	puts   chan put
	shut   atomic.Bool
	gone   chan struct{} // closed when the node has left the cluster

	mu      sync.Mutex
	full    []*batch // complete, waiting for an exchange to end; in order
	next    *batch   // being gathered
	running int      // exchanges under way
	missed  int      // failures in a row
}

type put struct {
	name  string
	value []byte
	ttl   time.Duration
}

// A batch is look-ups that travel together. Its deadline counts from its first: who joins later has less time, and has it
// only if the server is slow.
type batch struct {
	ctx    context.Context
	cancel context.CancelFunc
	names  []string
	values [][]byte      // set before done is closed; nil for what is not there
	err    error         // likewise
	done   chan struct{} // closed before ctx is cancelled, unless the deadline passed
}

func (r *Redis) open(c redis.UniversalClient, moved func()) *lane {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.openLocked(c, moved)
}

func (r *Redis) openLocked(c redis.UniversalClient, moved func()) *lane {
	l := &lane{r: r, client: c, moved: moved, puts: make(chan put, r.cfg.Writes), gone: make(chan struct{})}
	l.shut.Store(true)
	r.spawnLocked(l.probe)
	r.spawnLocked(l.write)
	return l
}

// join enters a look-up into the batch being gathered and has that sent off if there is room; nil if too many wait.
func (l *lane) join(name string) (b *batch, i int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if b = l.next; b == nil {
		if len(l.full) >= waiting {
			return nil, 0
		}
		b = &batch{done: make(chan struct{})}
		b.ctx, b.cancel = context.WithTimeout(l.r.ctx, l.r.cfg.Deadline)
		l.next = b
		if l.running < l.r.cfg.Exchanges {
			l.running++
			go l.run()
		}
	}
	i = len(b.names)
	b.names = append(b.names, name)
	if len(b.names) == most {
		l.full = append(l.full, b)
		l.next = nil
	}
	return b, i
}

// run makes exchanges for as long as something waits. Close does not wait for it: it ends by its batches' context.
// Before each it lets everybody else go on who can: those who have a look-up to make as well come along, and nobody's
// time is spent by waiting for them.
func (l *lane) run() {
	for {
		runtime.Gosched()
		var b *batch
		l.mu.Lock()
		if len(l.full) > 0 {
			b, l.full = l.full[0], l.full[1:]
		} else {
			b, l.next = l.next, nil
		}
		if b == nil {
			l.running--
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
		l.exchange(b)
	}
}

var errShut = errors.New("the server is being left alone")

func (l *lane) exchange(b *batch) {
	switch {
	case l.shut.Load():
		b.err = errShut
	case b.ctx.Err() != nil: // it waited too long; that is the fault of those before it
		b.err = b.ctx.Err()
	default:
		b.values, b.err = l.get(b.ctx, b.names)
		l.judge(b.err)
	}
	close(b.done)
	b.cancel()
}

// get asks for all names at once: by MGET, or in a cluster, where one command must stay within a slot, by a pipeline.
func (l *lane) get(ctx context.Context, names []string) ([][]byte, error) {
	values := make([][]byte, len(names))
	if l.r.cluster == nil {
		found, err := l.client.MGet(ctx, names...).Result()
		if err == nil && len(found) != len(names) {
			err = errors.New("another number of values than of keys")
		}
		if err != nil {
			return nil, err
		}
		for i, v := range found {
			if s, ok := v.(string); ok {
				values[i] = []byte(s)
			}
		}
		return values, nil
	}
	p := l.client.Pipeline()
	found := make([]*redis.StringCmd, len(names))
	for i, n := range names {
		found[i] = p.Get(ctx, n)
	}
	_, _ = p.Exec(ctx) // each command has its own error
	for i, cmd := range found {
		v, err := cmd.Bytes()
		switch {
		case err == nil:
			values[i] = v
		case errors.Is(err, redis.Nil):
		case elsewhere(err):
			l.moved()
		default:
			return nil, err
		}
	}
	return values, nil
}

// elsewhere reports whether a cluster's node says that a key is not, or not for long, its own.
func elsewhere(err error) bool {
	_, moved := redis.IsMovedError(err)
	_, ask := redis.IsAskError(err)
	return moved || ask
}

// judge counts failures in a row and after some shuts the lane.
func (l *lane) judge(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		l.missed = 0
		return
	}
	if l.missed++; l.missed >= strikes && l.shut.CompareAndSwap(false, true) {
		l.r.outcomes.Add("opened")
		l.r.spawn(l.probe)
	}
}

// probe knocks until the server answers, and answers within the deadline of a look-up. It knocks with more patience than a
// look-up has: a new connection takes longer than an answer on an old one, and TLS longer still.
func (l *lane) probe() {
	for rest := l.r.cfg.Rest; l.r.ctx.Err() == nil; {
		ping := func(within time.Duration) error {
			ctx, cancel := context.WithTimeout(l.r.ctx, within)
			defer cancel()
			return l.client.Exists(ctx, l.r.cfg.Prefix).Err() // PING is answered even while a server loads its data
		}
		err := ping(l.r.cfg.Patience)
		if err == nil || elsewhere(err) {
			err = ping(l.r.cfg.Deadline)
		}
		switch {
		case l.r.ctx.Err() != nil:
			return
		case err == nil || elsewhere(err):
			l.mu.Lock()
			l.missed = 0
			l.shut.Store(false)
			l.mu.Unlock()
			l.r.outcomes.Add("closed")
			return
		case errors.Is(err, redis.ErrClosed): // the node has left the cluster
			l.leave()
			return
		}
		l.moved()
		pause(l.r.ctx, rest)
		rest = min(2*rest, longest*l.r.cfg.Rest)
	}
}

// leave ends the lane; its node has left the cluster, whose client was therefore closed.
func (l *lane) leave() {
	if l.r.lanes.CompareAndDelete(l.client, l) {
		close(l.gone)
	}
}

// write writes what waits, many at once.
func (l *lane) write() {
	for {
		var batch []put
		select {
		case <-l.r.ctx.Done():
			return
		case <-l.gone:
			return
		case p := <-l.puts:
			batch = append(batch, p)
		}
	gather:
		for len(batch) < most {
			select {
			case p := <-l.puts:
				batch = append(batch, p)
			default:
				break gather
			}
		}
		l.set(batch)
	}
}

func (l *lane) set(batch []put) {
	if l.shut.Load() {
		for range batch {
			l.r.outcomes.Add("put-dropped")
		}
		return
	}
	ctx, cancel := context.WithTimeout(l.r.ctx, l.r.cfg.Patience)
	defer cancel()
	p := l.client.Pipeline()
	for _, w := range batch {
		p.Set(ctx, w.name, w.value, w.ttl)
	}
	cmds, _ := p.Exec(ctx) // each command has its own error
	var broken error
	for _, cmd := range cmds {
		err := cmd.Err()
		if err == nil {
			l.r.outcomes.Add("put")
			continue
		}
		l.r.outcomes.Add("put-failed")
		if elsewhere(err) {
			l.moved()
		} else if reply := redis.Error(nil); !errors.As(err, &reply) { // one that says no, as for want of memory, can be read from all the same
			broken = err
		}
	}
	l.judge(broken)
}
