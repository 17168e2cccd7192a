package front

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ocsp"
)

// Config is what a [Server] needs.
type Config struct {
	Exchanger ocsp.Exchanger   // required
	Now       func() time.Time // required: what the Date header says
	Log       *slog.Logger     // required: for what should never happen; requests are not logged

	Prefix string       // path under which OCSP is answered, as in "/ocsp"; "" for the root
	Other  http.Handler // answers what is not under the prefix; nil: nothing is there

	// A connection that is one too many closes one that waits for its next request, or is closed itself.
	Connections int // open at once; 0 means 20,000
	PerAddress  int // of one IPv4 address or IPv6 /64 that is no proxy of ours; 0 means 1,000

	Arrive time.Duration // a request, or the first octet on a new connection, must have come within this; 0 means 10 seconds
	Idle   time.Duration // a connection waits for its next request this long; 0 means 1 minute
	Write  time.Duration // a client must have taken its answers within this; 0 means 10 seconds

	// Proxies are in front of us, terminate TLS and are believed what they say of their clients: the address in
	// X-Forwarded-For and the certificate in CertificateHeader, which they must remove from what clients send.
	Proxies           []netip.Prefix
	CertificateHeader string // as in "Client-Cert" (RFC 9440); "": client certificates are not read
}

// check enters the defaults and says what is wrong.
func (c *Config) check() error {
	for _, d := range []struct {
		value    *time.Duration
		standard time.Duration
		name     string
	}{{&c.Arrive, 10 * time.Second, "Arrive"}, {&c.Idle, time.Minute, "Idle"}, {&c.Write, 10 * time.Second, "Write"}} {
		if *d.value == 0 {
			*d.value = d.standard
		}
		if *d.value < 0 {
			return fmt.Errorf("make OCSP front: %s is negative", d.name)
		}
	}
	if c.Connections == 0 {
		c.Connections = 20_000
	}
	if c.PerAddress == 0 {
		c.PerAddress = 1_000
	}
	switch {
	case c.Exchanger == nil:
		return errors.New("make OCSP front: Exchanger is required")
	case c.Now == nil:
		return errors.New("make OCSP front: Now is required")
	case c.Log == nil:
		return errors.New("make OCSP front: Log is required")
	case c.Connections < 0 || c.PerAddress < 0:
		return errors.New("make OCSP front: a limit of connections is negative")
	case c.Prefix != "" && (c.Prefix[0] != '/' || strings.HasSuffix(c.Prefix, "/")):
		return errors.New("make OCSP front: Prefix does not begin with a slash or ends with one")
	case strings.ContainsFunc(c.CertificateHeader, func(r rune) bool { return r > 127 || !tokenOctet[r] }):
		return errors.New("make OCSP front: CertificateHeader is not the name of a header")
	}
	return nil
}

// A Server answers OCSP over HTTP/1.1.
type Server struct {
	cfg      Config
	date     atomic.Pointer[[]byte] // a whole Date line
	clock    atomic.Int64           // counts ticks
	tick     time.Duration
	large    atomic.Int64 // large buffers in use
	requests atomic.Uint64
	refused  jpki.Tally
	work     sync.Pool // of *work
	middle   sync.Pool // of *[]byte
	base     context.Context
	abort    context.CancelFunc // of base: when waiting has an end

	gate    *gate
	other   *http.Server // of connections that are handed over
	handing handing
	start   sync.Once

	mu        sync.Mutex
	closing   atomic.Bool // changed under mu
	listeners map[net.Listener]bool
	conns     map[*conn]bool // not those handed over
	open      int            // also those handed over
	addresses map[netip.Addr]int
	drained   chan struct{} // closed when closing and no connection is left
}

// New returns a server, having checked its configuration. Nothing runs before Serve.
func New(cfg Config) (*Server, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	s := &Server{
		cfg: cfg, listeners: map[net.Listener]bool{}, conns: map[*conn]bool{}, addresses: map[netip.Addr]int{},
		// A quarter of the shortest limit, so that none is overrun by more than that.
		tick:    min(max(min(cfg.Arrive, cfg.Idle, cfg.Write)/4, time.Millisecond), 250*time.Millisecond),
		drained: make(chan struct{}),
		handing: handing{conns: make(chan net.Conn), closed: make(chan struct{})},
	}
	var err error
	if s.gate, err = newGate(); err != nil {
		return nil, fmt.Errorf("make OCSP listener: %w", err)
	}
	s.work.New = func() any { return &work{out: make([]byte, 0, 4<<10)} }
	s.middle.New = func() any { b := make([]byte, middleBuffer); return &b }
	s.base, s.abort = context.WithCancel(context.Background())
	s.other = &http.Server{
		Handler: s, ErrorLog: slog.NewLogLogger(cfg.Log.Handler(), slog.LevelDebug),
		ReadHeaderTimeout: cfg.Arrive, ReadTimeout: 3 * cfg.Arrive, WriteTimeout: 6 * cfg.Write, IdleTimeout: cfg.Idle, MaxHeaderBytes: maxHead,
	}
	s.tell()
	return s, nil
}

// Serve accepts connections until [Server.Shutdown] or [Server.Close], then returns nil, or until accepting fails for
// good. It may be called for several listeners. The listener is closed when it returns.
func (s *Server) Serve(l net.Listener) error {
	defer func() { _ = l.Close() }()
	s.mu.Lock()
	if s.closing.Load() {
		s.mu.Unlock()
		return nil
	}
	s.listeners[l] = true
	s.mu.Unlock()
	s.start.Do(func() {
		go s.watch()
		go s.gate.run()                               // ends when the server stops
		go func() { _ = s.other.Serve(&s.handing) }() // ends with handing
	})
	for failures := 0; ; {
		nc, err := l.Accept()
		switch {
		case err == nil:
			failures = 0
			if c := s.admit(nc); c != nil {
				go c.run()
			} else {
				nc.Close()
			}
		case s.closing.Load():
			return nil
		case errors.Is(err, net.ErrClosed) || failures == 100:
			return fmt.Errorf("accept OCSP connections: %w", err)
		default: // no file descriptor is free, say: others will end
			s.refused.Add("accept-failed")
			failures++
			time.Sleep(min(5*time.Millisecond<<min(failures, 8), time.Second))
		}
	}
}

// admit enters a connection, or returns nil for one too many.
func (s *Server) admit(nc net.Conn) *conn {
	c := &conn{s: s, nc: nc, io: direct(nc)}
	peer := addressOf(nc.RemoteAddr().String())
	if peer.IsValid() {
		c.address = peer.String()
		c.proxied = s.trusts(peer)
		if !c.proxied {
			c.counted = site(peer)
		}
	}
	c.buf = c.small[:]
	c.wait(s.cfg.Arrive, waits)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closing.Load():
		return nil
	case c.counted.IsValid() && s.addresses[c.counted] >= s.cfg.PerAddress:
		s.refused.Add("too-many-from-address")
		return nil
	case s.open >= s.cfg.Connections && !s.evict():
		s.refused.Add("too-many-connections")
		return nil
	}
	s.open++
	if c.counted.IsValid() {
		s.addresses[c.counted]++
	}
	s.conns[c] = true
	return c
}

// evict ends a connection that waits for its next request, any of them, and reports whether one was found. It stays open
// for the moment that takes.
func (s *Server) evict() bool {
	if s.open >= s.cfg.Connections+64 { // those that are ending have not ended
		return false
	}
	tries := 0
	for c := range s.conns {
		if due := c.due.Load(); due > 0 && due&waits != 0 && c.end(due) {
			s.refused.Add("evicted")
			return true
		}
		if tries++; tries == 256 {
			break
		}
	}
	return false
}

// forget takes a connection off the watch: it has ended or is handed over.
func (s *Server) forget(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

// release counts a connection as closed.
func (s *Server) release(counted netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open--
	if counted.IsValid() {
		if s.addresses[counted]--; s.addresses[counted] == 0 {
			delete(s.addresses, counted)
		}
	}
	if s.closing.Load() && s.open == 0 {
		close(s.drained)
	}
}

// watch keeps time and ends connections whose time is up. One goroutine looks at all of them four times a second: setting
// a deadline on the connection costs more than an atomic store, and there would be two for each request. Ticks are
// counted, not measured: a process that was stopped gives its clients the rest of their time.
func (s *Server) watch() {
	ticker := time.NewTicker(s.tick)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-s.base.Done():
			return
		}
		s.tell()
		now := s.clock.Add(1)
		s.mu.Lock()
		for c := range s.conns {
			if due := c.due.Load(); due > 0 && due>>1 <= now {
				c.end(due)
			}
		}
		s.mu.Unlock()
	}
}

// after returns the tick by which a time has passed for certain.
func (s *Server) after(d time.Duration) int64 { return s.clock.Load() + 1 + s.ticks(d) }

func (s *Server) ticks(d time.Duration) int64 { return int64((d + s.tick - 1) / s.tick) }

// last is when the time of connections that wait is up after stop.
func (s *Server) last() int64 { return (s.clock.Load()+2)<<1 | waits }

// tell writes the Date line anew.
func (s *Server) tell() {
	line := append(s.cfg.Now().UTC().AppendFormat([]byte("Date: "), http.TimeFormat), "\r\n"...)
	s.date.Store(&line)
}

// Shutdown stops accepting and returns nil when every connection has ended: requests under way are answered, those that
// still come on connections that wait are answered for half a second, and each of these answers says that it is the last. When ctx ends first,
// what is left is cut off and ctx's error returned.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stop()
	err := s.other.Shutdown(ctx)
	if err == nil {
		select {
		case <-s.drained:
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	_ = s.Close()
	return err
}

// Close cuts everything off at once.
func (s *Server) Close() error {
	s.stop()
	s.abort()
	_ = s.other.Close()
	s.mu.Lock()
	for c := range s.conns {
		c.nc.Close()
	}
	s.mu.Unlock()
	return nil
}

// stop refuses new connections and gives those that wait two more ticks.
func (s *Server) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing.Swap(true) {
		return
	}
	s.gate.close()
	for l := range s.listeners {
		_ = l.Close()
	}
	_ = s.handing.Close()
	last := s.last()
	for c := range s.conns {
		if due := c.due.Load(); due > last && due&waits != 0 {
			c.due.CompareAndSwap(due, last) // else it has just got a request
		}
	}
	if s.open == 0 {
		close(s.drained)
	}
}

// ask has a query answered. A fault of the Exchanger's is the end of that connection, not of all.
func (s *Server) ask(ctx context.Context, q *ocsp.Query) (reply ocsp.Reply, sound bool) {
	defer func() {
		if recover() != nil { // the value may hold what must not be logged
			s.cfg.Log.ErrorContext(ctx, "fault in an OCSP exchange", slog.String("stack", string(debug.Stack())))
			s.refused.Add(fault.label)
			reply = fault.reply
		}
	}()
	s.requests.Add(1)
	return s.cfg.Exchanger.Exchange(ctx, q), true
}

// Outcomes returns how many requests were exchanged and how often anything was refused, by reason.
func (s *Server) Outcomes() map[string]uint64 {
	out := s.refused.Snapshot()
	out["exchanged"] = s.requests.Load()
	return out
}

// Open returns how many connections are open.
func (s *Server) Open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open
}
