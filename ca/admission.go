package ca

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/openjpki/jpki"
)

// AdmissionConfig bounds what stations can have the authority do at the same time. Zero values mean the defaults.
type AdmissionConfig struct {
	Now func() time.Time // required

	Concurrent int           // works at once, which share transactions; default: 16 for each processor
	Waiting    int           // a station's single-card works that may wait; default 64
	Patience   time.Duration // how long one of those waits at most; default 10 s
	Streams    int           // a station's batches at once; default 4
	Rate       float64       // a station's requests a second, on average; default 100
	Burst      int           // its requests at once; default 200
}

// singlesBeforeBatch is how many single-card works may go before a waiting batch line.
const singlesBeforeBatch = 8

// An Admission lets work in so that no station can crowd out another. What counters wait for, single cards, goes before
// lines of batches, of which one goes in all the same after every eight; within both, stations take turns, whoever has
// however much waiting. It is safe for concurrent use.
type Admission struct {
	c AdmissionConfig

	mu      sync.Mutex
	free    int
	single  turns
	batch   turns
	run     int // single works let in since the last batch line, while one waited
	quotas  map[string]*quota
	streams map[string]int
}

// NewAdmission returns an admission where everything is free.
func NewAdmission(c AdmissionConfig) (*Admission, error) {
	if c.Now == nil {
		return nil, errors.New("ca: AdmissionConfig.Now is required")
	}
	for p, d := range map[*int]int{&c.Concurrent: 16 * runtime.GOMAXPROCS(0), &c.Waiting: 64, &c.Streams: 4, &c.Burst: 200} {
		if *p == 0 {
			*p = d
		}
	}
	if c.Patience == 0 {
		c.Patience = 10 * time.Second
	}
	if c.Rate == 0 {
		c.Rate = 100
	}
	if c.Concurrent < 0 || c.Waiting < 0 || c.Streams < 0 || c.Burst < 0 || c.Rate < 0 || c.Patience < 0 {
		return nil, errors.New("ca: a limit of AdmissionConfig is negative")
	}
	return &Admission{c: c, free: c.Concurrent, quotas: map[string]*quota{}, streams: map[string]int{}}, nil
}

// Concurrent returns how many works are let in at once.
func (a *Admission) Concurrent() int { return a.c.Concurrent }

// Single waits until a single-card work of a station may begin; done must be called when it has ended. A station with too
// much waiting, or too long, is [jpki.RateLimited].
func (a *Admission) Single(ctx context.Context, station string) (done func(), err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, a.c.Patience, jpki.Errorf(jpki.RateLimited, "the authority is busy"))
	defer cancel()
	return a.enter(ctx, station, &a.single, a.c.Waiting)
}

// Line waits until a line of a station's batch may begin, as long as ctx lets it.
func (a *Admission) Line(ctx context.Context, station string) (done func(), err error) {
	return a.enter(ctx, station, &a.batch, -1)
}

// Stream admits one more batch of a station, or says [jpki.RateLimited]; done must be called at its end.
func (a *Admission) Stream(station string) (done func(), err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.streams[station] >= a.c.Streams {
		return nil, jpki.Errorf(jpki.RateLimited, "a station sends at most %d batches at once", a.c.Streams)
	}
	a.streams[station]++
	return sync.OnceFunc(func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.streams[station]--; a.streams[station] == 0 {
			delete(a.streams, station)
		}
	}), nil
}

// Spend takes one request from a station's quota; [jpki.RateLimited] when it is used up.
func (a *Admission) Spend(station string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.c.Now()
	q := a.quotas[station]
	if q == nil {
		q = &quota{float64(a.c.Burst), now}
		a.quotas[station] = q
	}
	q.left = min(float64(a.c.Burst), q.left+max(0, now.Sub(q.at).Seconds())*a.c.Rate)
	q.at = now
	if q.left < 1 {
		return jpki.Errorf(jpki.RateLimited, "more than %g requests a second", a.c.Rate)
	}
	q.left--
	return nil
}

// A quota is a bucket that fills with time. Stations are few and enrolled, so quotas are never dropped.
type quota struct {
	left float64
	at   time.Time
}

// turns is a queue of queues: each station's works in their order, and the stations in theirs.
type turns struct {
	waiting map[string][]chan struct{}
	order   []string
}

func (t *turns) add(station string) chan struct{} {
	c := make(chan struct{})
	if t.waiting == nil {
		t.waiting = map[string][]chan struct{}{}
	}
	if len(t.waiting[station]) == 0 {
		t.order = append(t.order, station)
	}
	t.waiting[station] = append(t.waiting[station], c)
	return c
}

// next lets in the first work of the station whose turn it is; false when nobody waits.
func (t *turns) next() bool {
	if len(t.order) == 0 {
		return false
	}
	station := t.order[0]
	t.order = t.order[1:]
	close(t.waiting[station][0])
	t.set(station, t.waiting[station][1:])
	if len(t.waiting[station]) > 0 {
		t.order = append(t.order, station)
	}
	return true
}

// leave takes back a work that waits no more; false when it was let in meanwhile.
func (t *turns) leave(station string, c chan struct{}) bool {
	i := slices.Index(t.waiting[station], c)
	if i < 0 {
		return false
	}
	if t.set(station, slices.Delete(t.waiting[station], i, i+1)); len(t.waiting[station]) == 0 {
		t.order = slices.DeleteFunc(t.order, func(s string) bool { return s == station })
	}
	return true
}

func (t *turns) set(station string, left []chan struct{}) {
	if len(left) == 0 {
		delete(t.waiting, station)
		return
	}
	t.waiting[station] = left
}

func (a *Admission) enter(ctx context.Context, station string, queue *turns, limit int) (done func(), err error) {
	a.mu.Lock()
	if limit >= 0 && len(queue.waiting[station]) >= limit && a.free == 0 {
		a.mu.Unlock()
		return nil, jpki.Errorf(jpki.RateLimited, "%d works of the station are waiting", limit)
	}
	turn := queue.add(station)
	a.dispatch()
	a.mu.Unlock()
	select {
	case <-turn:
		return sync.OnceFunc(a.leave), nil
	case <-ctx.Done():
	}
	a.mu.Lock()
	waited := queue.leave(station, turn)
	a.mu.Unlock()
	if !waited { // let in at this very moment
		a.leave()
	}
	return nil, context.Cause(ctx)
}

func (a *Admission) leave() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.free++
	a.dispatch()
}

// dispatch lets in whose turn it is, for as long as there is room.
func (a *Admission) dispatch() {
	for a.free > 0 {
		switch {
		case a.run < singlesBeforeBatch && a.single.next():
			if a.run++; len(a.batch.order) == 0 {
				a.run = 0
			}
		case a.batch.next(), a.single.next():
			a.run = 0
		default:
			return
		}
		a.free--
	}
}
