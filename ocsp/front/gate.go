package front

import (
	"os"
	"sync"
	"sync/atomic"
)

// turnsBetween is how many turns all connections together have before they stop at the gate. Counted for each connection by
// itself, 200 would wait for four times as many as 50 do.
const turnsBetween = 400

// A gate gives all connections their turn. The scheduler looks for what has come over the network when it has nothing else to
// run, or every ten milliseconds; connections whose next request is always there already would keep it from looking, and the
// others waiting. So they stop at the gate now and then until it has looked: who opens the gate waits for an octet that
// comes as requests do, through the poller. It is safe for concurrent use.
type gate struct {
	in, out *os.File     // a pipe
	turns   atomic.Int64 // since the gate was opened

	mu     sync.Mutex
	waits  bool       // somebody does, and an octet is under way
	times  uint64     // the gate was opened
	opened *sync.Cond // lets go first who came first, whose next request has had the most time to come
	closed bool
}

func newGate() (*gate, error) {
	in, out, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	g := &gate{in: in, out: out}
	g.opened = sync.NewCond(&g.mu)
	return g, nil
}

// due counts a turn and reports whether who had it has to pass the gate.
func (g *gate) due() bool { return g.turns.Add(1) > turnsBetween }

// pass returns once everything that had come over the network before has its turn.
func (g *gate) pass() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return
	}
	times := g.times
	if !g.waits {
		g.waits = true
		g.mu.Unlock()
		_, err := g.out.Write([]byte{0})
		g.mu.Lock()
		if err != nil {
			g.open()
		}
	}
	for g.times == times {
		g.opened.Wait()
	}
}

// open lets all pass who wait.
func (g *gate) open() {
	g.turns.Store(0)
	g.times++
	g.waits = false
	g.opened.Broadcast()
}

// run opens the gate whenever somebody waits, until the gate is closed.
func (g *gate) run() {
	var octet [1]byte
	for {
		if _, err := g.in.Read(octet[:]); err != nil {
			g.close()
			return
		}
		g.mu.Lock()
		g.open()
		g.mu.Unlock()
	}
}

// close lets everybody pass from now on.
func (g *gate) close() {
	g.mu.Lock()
	g.closed = true
	g.open()
	g.mu.Unlock()
	_ = g.in.Close()
	_ = g.out.Close()
}
