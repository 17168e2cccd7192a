package ocsp

import (
	"runtime"
	"sync"
)

// gathered is how many answers wait for each other at most, beside the one who lets the others run.
const gathered = 8

// A gathering holds back answers that were just signed until there are some more, so that they are written one right after
// the other. Under load a client sleeps while we sign, and waking it costs the writer, on a virtual machine, a third of what a
// P-256 signature does; whoever was woken by the first answer is awake for those that follow.
//
// The first who comes lets all others run who can, once, and then everybody goes. So nobody waits for company that may not
// come, and only that one waits for longer than a few signatures take. It is safe for concurrent use.
type gathering struct {
	mu     sync.Mutex
	leads  bool          // somebody lets others run and will open then
	inside int           // that wait
	opened chan struct{} // what they wait for
}

// pass returns when the gathering does.
func (g *gathering) pass() {
	g.mu.Lock()
	if !g.leads {
		g.leads = true
		g.mu.Unlock()
		runtime.Gosched()
		g.mu.Lock()
		g.leads = false
		g.open()
		g.mu.Unlock()
		return
	}
	if g.inside++; g.inside == gathered {
		g.open()
		g.mu.Unlock()
		return
	}
	if g.opened == nil {
		g.opened = make(chan struct{})
	}
	opened := g.opened
	g.mu.Unlock()
	<-opened
}

// open lets those go who wait.
func (g *gathering) open() {
	if g.inside = 0; g.opened != nil {
		close(g.opened)
		g.opened = nil
	}
}
