package main

import (
	"context"
	"io"
	"net"
	"sync"
)

// A proxy is a network that can be cut: connections stay, nothing comes through, and new ones get no answer.
type proxy struct {
	l  net.Listener
	to string

	mu    sync.Mutex
	clear chan struct{} // closed while the network is whole
	conns map[net.Conn]bool
}

func newProxy(ctx context.Context, to string) (*proxy, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{l: l, to: to, clear: make(chan struct{}), conns: map[net.Conn]bool{}}
	close(p.clear)
	go p.serve(ctx)
	return p, nil
}

func (p *proxy) address() string { return p.l.Addr().String() }

func (p *proxy) serve(ctx context.Context) {
	for {
		c, err := p.l.Accept()
		if err != nil {
			return
		}
		p.keep(c)
		go p.connect(ctx, c)
	}
}

func (p *proxy) connect(ctx context.Context, c net.Conn) {
	defer p.drop(c)
	<-p.whole()
	far, err := (&net.Dialer{}).DialContext(ctx, "tcp", p.to)
	if err != nil {
		return
	}
	p.keep(far)
	defer p.drop(far)
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{far, c}, {c, far}} {
		both.Go(func() {
			p.pump(way[0], way[1])
			_ = c.Close()
			_ = far.Close()
		})
	}
	both.Wait()
}

func (p *proxy) pump(to io.Writer, from io.Reader) {
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		<-p.whole()
		if _, failed := to.Write(b[:n]); failed != nil || err != nil {
			return
		}
	}
}

func (p *proxy) whole() chan struct{} { p.mu.Lock(); defer p.mu.Unlock(); return p.clear }

// cut swallows everything from now on.
func (p *proxy) cut() { p.mu.Lock(); defer p.mu.Unlock(); p.clear = make(chan struct{}) }

// mend lets through what was held back, as a network does that was away for a moment.
func (p *proxy) mend() { p.mu.Lock(); defer p.mu.Unlock(); close(p.clear) }

func (p *proxy) keep(c net.Conn) { p.mu.Lock(); defer p.mu.Unlock(); p.conns[c] = true }

func (p *proxy) drop(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
	_ = c.Close()
}

func (p *proxy) close() {
	_ = p.l.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
}
