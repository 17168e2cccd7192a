package redistest

import (
	"net"
	"sync"
	"testing"
)

// A Proxy is a network between a client and a server.
type Proxy struct {
	listener net.Listener
	target   string

	mu    sync.Mutex
	cond  *sync.Cond
	state int // one of those below
	conns map[net.Conn]bool
	ended bool
	run   sync.WaitGroup
}

const (
	whole = iota
	hole  // octets vanish and connections are accepted but lead nowhere
	cut   // connections break at once
)

// NewProxy listens on a loopback port and leads to the target.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{listener: l, target: target, conns: map[net.Conn]bool{}}
	p.cond = sync.NewCond(&p.mu)
	p.run.Go(p.accept)
	t.Cleanup(func() {
		_ = l.Close()
		p.mu.Lock()
		p.ended = true
		p.mu.Unlock()
		p.set(cut)
		p.run.Wait()
	})
	return p
}

// Addr returns where the proxy listens.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Cut breaks all connections, and new ones as soon as they are made.
func (p *Proxy) Cut() { p.set(cut) }

// Blackhole lets octets wait on the way, in both directions, and new connections lead nowhere; nobody is told.
func (p *Proxy) Blackhole() { p.set(hole) }

// Heal makes the network whole. What was held up arrives.
func (p *Proxy) Heal() { p.set(whole) }

func (p *Proxy) set(state int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state = state
	if state == cut {
		for c := range p.conns {
			_ = c.Close()
		}
	}
	p.cond.Broadcast()
}

// wait returns when the network is whole, or false when it is cut.
func (p *Proxy) wait() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.state == hole && !p.ended {
		p.cond.Wait()
	}
	return p.state == whole && !p.ended
}

func (p *Proxy) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.run.Go(func() { p.carry(c) })
	}
}

func (p *Proxy) carry(client net.Conn) {
	defer p.drop(client)
	if !p.keep(client) || !p.wait() {
		return
	}
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer p.drop(server)
	if !p.keep(server) {
		return
	}
	p.run.Go(func() { p.copy(client, server) })
	p.copy(server, client)
}

func (p *Proxy) copy(dst, src net.Conn) {
	defer func() { _ = dst.Close(); _ = src.Close() }()
	buf := make([]byte, 64<<10)
	for {
		n, err := src.Read(buf)
		if !p.wait() {
			return
		}
		if _, werr := dst.Write(buf[:n]); werr != nil || err != nil {
			return
		}
	}
}

func (p *Proxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state == cut {
		return false
	}
	p.conns[c] = true
	return true
}

func (p *Proxy) drop(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
	_ = c.Close()
}
