package signer

import (
	"fmt"
	"os"
	"slices"
	"sync"
	"time"
)

// A Peer is who is at the other end of a connection, as the kernel says.
type Peer struct {
	PID      int32
	UID, GID uint32
}

// program returns the path of the peer's program; empty when it cannot be told. A process may have replaced itself since
// it connected, so this narrows what a user's processes may do by mistake: what keeps users apart is their UID.
func (p Peer) program() string {
	path, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", p.PID))
	if err != nil {
		return ""
	}
	return path
}

// A Rule admits peers to one key. What it leaves nil or empty it does not ask for.
type Rule struct {
	UID      *uint32
	GID      *uint32 // the peer's primary group
	Program  string  // absolute path, of a peer on this machine
	Purposes []Purpose
	Rate     float64 // signatures a second, of all that the rule admits together; 0 for no limit
	Burst    int     // how many at once; at least 1 when there is a rate
}

func (r Rule) check() error {
	switch {
	case r.UID == nil && r.GID == nil:
		return fmt.Errorf("names neither a user nor a group")
	case len(r.Purposes) == 0:
		return fmt.Errorf("names no purpose")
	case r.Rate < 0 || r.Rate > 0 && r.Burst < 1 || r.Rate == 0 && r.Burst != 0:
		return fmt.Errorf("a rate needs a burst of at least 1, and a burst a rate")
	}
	return nil
}

// admits reports whether the rule is about a peer.
func (r Rule) admits(p Peer, program string) bool {
	return (r.UID == nil || *r.UID == p.UID) && (r.GID == nil || *r.GID == p.GID) && (r.Program == "" || r.Program == program)
}

// A bucket holds what is left of a rule's rate.
type bucket struct {
	mu   sync.Mutex
	left float64
	at   time.Time
}

// take reports whether one more is within the rate.
func (b *bucket) take(r Rule, now time.Time) bool {
	if r.Rate == 0 {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch since := now.Sub(b.at).Seconds(); {
	case b.at.IsZero():
		b.left = float64(r.Burst)
	case since > 0:
		b.left = min(float64(r.Burst), b.left+since*r.Rate)
	}
	b.at = now
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}

// A gate lets a bounded number of requests of one key through at once. Those that wait are taken in turn: one of each peer,
// then one of each again, so that a peer with a thousand requests does not keep another waiting for its one.
type gate struct {
	mu    sync.Mutex
	free  int
	turns []*line // peers that wait, in the order of their turns
}

type line struct {
	peer    any
	waiting []chan struct{}
}

// enter waits for a place. It fails with Busy when the peer has limit requests waiting, with Unavailable when done is closed.
func (g *gate) enter(done <-chan struct{}, peer any, limit int) error {
	g.mu.Lock()
	if g.free > 0 {
		g.free--
		g.mu.Unlock()
		return nil
	}
	i := slices.IndexFunc(g.turns, func(l *line) bool { return l.peer == peer })
	if i < 0 {
		i = len(g.turns)
		g.turns = append(g.turns, &line{peer: peer})
	}
	l := g.turns[i]
	if len(l.waiting) >= limit {
		g.mu.Unlock()
		return Busy
	}
	place := make(chan struct{})
	l.waiting = append(l.waiting, place)
	g.mu.Unlock()
	select {
	case <-place:
		return nil
	case <-done:
	}
	g.mu.Lock()
	for i, l := range g.turns {
		if at := slices.Index(l.waiting, place); at >= 0 {
			if l.waiting = slices.Delete(l.waiting, at, at+1); len(l.waiting) == 0 {
				g.turns = slices.Delete(g.turns, i, i+1)
			}
			g.mu.Unlock()
			return Unavailable
		}
	}
	g.mu.Unlock()
	g.leave() // the place came in the same moment
	return Unavailable
}

// leave gives the place to who is next.
func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.turns) == 0 {
		g.free++
		return
	}
	l := g.turns[0]
	close(l.waiting[0])
	l.waiting = l.waiting[1:]
	if g.turns = g.turns[1:]; len(l.waiting) > 0 {
		g.turns = append(g.turns, l)
	}
}

// waiting returns how many wait.
func (g *gate) waiting() (n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, l := range g.turns {
		n += len(l.waiting)
	}
	return n
}
