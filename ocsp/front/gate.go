package front

import (
	"os"
	"sync"
)

// turnsBeforeGate is how many requests a connection may have answered one after the other before it passes the gate.
const turnsBeforeGate = 8

// A gate gives all connections their turn. The scheduler looks for what has come over the network when it has nothing else to
// run, or every ten milliseconds; connections whose next request is always there already would keep it from looking, and the
// others waiting. So they stop at the gate now and then until it has looked: who opens the gate waits for an octet that
// comes as requests do, through the poller. It is safe for concurrent use.
type gate struct {
	in, out *os.File // a pipe

	mu     sync.Mutex
	opened chan struct{} // closed when the gate opens; nil while nobody waits
	closed bool
}

func newGate() (*gate, error) {
	in, out, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	return &gate{in: in, out: out}, nil
}

// pass returns once everything that had come over the network before has its turn.
func (g *gate) pass() {
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return
	}
	first := g.opened == nil
	if first {
		g.opened = make(chan struct{})
	}
	opened := g.opened
	g.mu.Unlock()
	if first {
		if _, err := g.out.Write([]byte{0}); err != nil {
			g.open()
		}
	}
	<-opened
}

// open lets all pass who wait.
func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.opened != nil {
		close(g.opened)
		g.opened = nil
	}
}

// run opens the gate whenever somebody waits, until the gate is closed.
func (g *gate) run() {
	var octet [1]byte
	for {
		if _, err := g.in.Read(octet[:]); err != nil {
			g.close()
			return
		}
		g.open()
	}
}

// close lets everybody pass from now on.
func (g *gate) close() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	g.open()
	_ = g.in.Close()
	_ = g.out.Close()
}
