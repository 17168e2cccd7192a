package signer

import (
	"bufio"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/openjpki/jpki"
)

// A Backend has the private key. Sign waits for a token that is away until ctx ends; its errors wrap a [Code]: Unavailable
// when nothing was signed for want of time, else Failed.
type Backend interface {
	Public() crypto.PublicKey // nil until the key has been seen once; the same ever after
	Sign(ctx context.Context, s Scheme, h crypto.Hash, digest []byte) ([]byte, error)
}

// A KeyConfig is one key that a Server signs with.
type KeyConfig struct {
	Name     string
	Backend  Backend
	Rules    []Rule
	AtOnce   int // requests given to the backend at once; required
	PerPeer  int // requests of one connection that may wait; required
	Verified int // of how many signatures one is verified before it leaves; 1 for every one; required
}

// A Config is what a Server needs. Log, Usage and Reload may be nil.
type Config struct {
	Keys  []KeyConfig
	Usage *Meter
	Now   func() time.Time
	Log   *slog.Logger
	// Reload has keys and rules read again, and calls SetKeys. Who asks for it on the socket is this process's user or root,
	// and reads what its error says. Calls may overlap.
	Reload func(context.Context) error
}

// A Server signs for its peers.
type Server struct {
	cfg     Config
	keys    atomic.Pointer[map[string]*served] // replaced whole
	setting sync.Mutex                         // held by who replaces them
	tally   jpki.Tally
	mu      sync.Mutex
	conns   map[net.Conn]struct{}
	listen  net.Listener
	closing atomic.Bool
	work    sync.WaitGroup // requests and connections under way
}

// A served is a key under the rules of its time. What outlives the rules is behind pointers.
type served struct {
	KeyConfig
	gate    *gate
	buckets []*bucket
	signed  *atomic.Uint64
}

const maxConns = 256 // connections at once

// New checks a configuration and makes a server of it.
func New(cfg Config) (*Server, error) {
	if cfg.Now == nil {
		return nil, errors.New("signer: Keys and Now are required")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, conns: map[net.Conn]struct{}{}}
	return s, s.SetKeys(cfg.Keys)
}

// SetKeys replaces all keys and rules at once; an error leaves them as they were. Requests that were admitted before are
// carried out. A key that stays keeps its queue and its count, and a rule that stays what is left of its rate.
func (s *Server) SetKeys(keys []KeyConfig) error {
	s.setting.Lock()
	defer s.setting.Unlock()
	if len(keys) == 0 {
		return errors.New("signer: Keys and Now are required")
	}
	before, after := s.table(), map[string]*served{}
	for _, k := range keys {
		switch {
		case !ValidName(k.Name):
			return fmt.Errorf("signer: key name %q is not made of letters, digits, and - _ . alone", k.Name)
		case after[k.Name] != nil:
			return fmt.Errorf("signer: key %s: twice", k.Name)
		case k.Backend == nil || k.AtOnce < 1 || k.PerPeer < 1 || k.Verified < 1:
			return fmt.Errorf("signer: key %s: Backend, AtOnce, PerPeer and Verified are required", k.Name)
		}
		one := &served{KeyConfig: k, gate: &gate{free: k.AtOnce}, signed: new(atomic.Uint64)}
		old := before[k.Name]
		if old != nil {
			one.signed = old.signed
			if old.AtOnce == k.AtOnce {
				one.gate = old.gate
			}
		}
		for i, r := range k.Rules {
			if err := r.check(); err != nil {
				return fmt.Errorf("signer: key %s: rule %d %w", k.Name, i, err)
			}
			one.buckets = append(one.buckets, new(bucket))
			if old != nil && i < len(old.Rules) && reflect.DeepEqual(old.Rules[i], r) {
				one.buckets[i] = old.buckets[i]
			}
		}
		after[k.Name] = one
	}
	s.keys.Store(&after)
	return nil
}

// table returns the keys of the moment.
func (s *Server) table() map[string]*served {
	if t := s.keys.Load(); t != nil {
		return *t
	}
	return nil
}

// Serve answers who connects until Shutdown or Close; then it returns nil.
func (s *Server) Serve(l net.Listener) error {
	s.mu.Lock()
	s.listen = l
	s.mu.Unlock()
	for {
		conn, err := l.Accept()
		if s.closing.Load() {
			if err == nil {
				_ = conn.Close()
			}
			return nil
		}
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			s.cfg.Log.WarnContext(context.Background(), "accept", slog.Any("error", err))
			time.Sleep(10 * time.Millisecond) // such as no file descriptors left
			continue
		}
		peer, err := peerOf(conn)
		s.mu.Lock()
		full := len(s.conns) >= maxConns || s.closing.Load() // stop looks at conns under the same lock
		if err == nil && !full {
			s.conns[conn] = struct{}{}
			s.work.Add(1)
		}
		s.mu.Unlock()
		if err != nil || full {
			s.tally.Add("connection-refused")
			_ = conn.Close()
			continue
		}
		go s.serve(conn, peer)
	}
}

// Shutdown stops accepting and reading, and waits until what was begun is answered or ctx ends.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stop()
	done := make(chan struct{})
	go func() { s.work.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Server) stop() {
	s.closing.Store(true)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listen != nil {
		_ = s.listen.Close()
	}
	for conn := range s.conns {
		_ = conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// Close ends every connection at once.
func (s *Server) Close() error {
	s.stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for conn := range s.conns {
		_ = conn.Close()
	}
	return nil
}

// serve reads one peer's requests. Each is answered by a goroutine of its own; how many there can be is bounded here.
func (s *Server) serve(conn net.Conn, peer Peer) {
	defer s.work.Done()
	ctx, cancel := context.WithCancel(context.Background())
	var requests sync.WaitGroup
	defer func() {
		if !s.closing.Load() {
			cancel() // nobody is there to answer to
		}
		requests.Wait()
		cancel()
		_ = conn.Close()
		s.mu.Lock()
		delete(s.conns, conn)
		s.mu.Unlock()
	}()
	program := peer.program()
	w, r := NewWriter(conn), bufio.NewReaderSize(conn, 16<<10)
	most := make(chan struct{}, s.most())
	for {
		req, err := ReadRequest(r)
		if err != nil {
			return
		}
		most <- struct{}{}
		requests.Go(func() {
			resp := s.answer(ctx, conn, peer, program, req)
			resp.ID = req.ID
			s.tally.Add(resp.Code.String())
			_ = w.Write(func(b []byte) []byte { return AppendResponse(b, resp) })
			<-most
		})
	}
}

// most is how many requests of one connection are read before others are answered: one more than may wait, so that
// who sends more hears Busy.
func (s *Server) most() (n int) {
	for _, k := range s.table() {
		n += k.PerPeer + k.AtOnce
	}
	return n + 1
}

// answer carries out one request. Steps:
//  1. find the rule that admits this peer to this key for this purpose
//  2. take from the rule's rate
//  3. wait in the key's queue for a place
//  4. count the use
//  5. sign
//  6. verify
func (s *Server) answer(ctx context.Context, conn net.Conn, peer Peer, program string, req Request) Response {
	ctx, cancel := context.WithTimeout(ctx, req.Wait)
	defer cancel()
	fail := func(c Code, text string) Response { return Response{Code: c, Data: []byte(text)} }
	// 1.
	if req.Op == OpReload {
		return s.again(ctx, peer)
	}
	if req.Op == OpUsage {
		for _, k := range s.table() {
			if k.rule(peer, program, 0) >= 0 && s.cfg.Usage != nil {
				return Response{Data: s.cfg.Usage.Last()}
			}
		}
		return fail(Refused, "no rule admits this")
	}
	key := s.table()[req.Key]
	rule := -1
	if key != nil {
		rule = key.rule(peer, program, req.Purpose)
	}
	if rule < 0 {
		s.cfg.Log.WarnContext(ctx, "refused", slog.String("key", req.Key), slog.String("purpose", req.Purpose.String()), slog.Uint64("uid", uint64(peer.UID)), slog.Int("pid", int(peer.PID)))
		return fail(Refused, "no rule admits this")
	}
	if req.Op == OpPublic {
		return key.publicKey(ctx)
	}
	pub := key.Backend.Public()
	if pub != nil && !suits(pub, req.Scheme) {
		return fail(Unsuited, "the key does not sign in this way")
	}
	// 2.
	if !key.buckets[rule].take(key.Rules[rule], s.cfg.Now()) {
		return fail(Limited, "beyond the rate")
	}
	// 3.
	if err := key.gate.enter(ctx.Done(), conn, key.PerPeer); err != nil {
		return fail(codeOf(err), "waited")
	}
	defer key.gate.leave()
	// 4.
	if s.cfg.Usage != nil {
		if err := s.cfg.Usage.Use(req.Key, req.Purpose); err != nil {
			s.cfg.Log.ErrorContext(ctx, "the usage cannot be recorded, so nothing is signed", slog.Any("error", err))
			return fail(Unavailable, "the usage cannot be recorded")
		}
	}
	// 5.
	sig, err := key.Backend.Sign(ctx, req.Scheme, req.Hash, req.Digest)
	if err != nil {
		s.cfg.Log.WarnContext(ctx, "not signed", slog.String("key", req.Key), slog.Any("error", err))
		return fail(codeOf(err), "not signed")
	}
	// 6.
	if key.signed.Add(1)%uint64(key.Verified) == 0 {
		if pub = key.Backend.Public(); pub == nil || !Verify(pub, req.Scheme, req.Hash, req.Digest, sig) {
			s.cfg.Log.ErrorContext(ctx, "a signature does not verify and was kept back", slog.String("key", req.Key))
			s.tally.Add("kept-back")
			return fail(Failed, "the signature does not verify")
		}
	}
	return Response{Data: sig}
}

// again has keys and rules read again for a peer that may do so.
func (s *Server) again(ctx context.Context, peer Peer) Response {
	if s.cfg.Reload == nil || peer.UID != uint32(os.Geteuid()) && peer.UID != 0 {
		s.cfg.Log.WarnContext(ctx, "refused", slog.String("asked", "reload"), slog.Uint64("uid", uint64(peer.UID)), slog.Int("pid", int(peer.PID)))
		return Response{Code: Refused, Data: []byte("no rule admits this")}
	}
	if err := s.cfg.Reload(ctx); err != nil {
		return Response{Code: Failed, Data: []byte(err.Error())}
	}
	return Response{}
}

// rule returns the index of the first rule that admits a peer for a purpose, or for any with purpose 0; -1 for none.
func (k *served) rule(p Peer, program string, purpose Purpose) int {
	return slices.IndexFunc(k.Rules, func(r Rule) bool {
		return r.admits(p, program) && (purpose == 0 || slices.Contains(r.Purposes, purpose))
	})
}

// publicKey waits for the key to be seen.
func (k *served) publicKey(ctx context.Context) Response {
	for {
		if pub := k.Backend.Public(); pub != nil {
			der, err := x509.MarshalPKIXPublicKey(pub)
			if err != nil {
				return Response{Code: Failed, Data: []byte("the public key has no encoding")}
			}
			return Response{Data: der}
		}
		timer := time.NewTimer(again)
		select {
		case <-ctx.Done():
			timer.Stop()
			return Response{Code: Unavailable, Data: []byte("the key has not been seen yet")}
		case <-timer.C:
		}
	}
}

func suits(pub crypto.PublicKey, s Scheme) bool {
	switch pub.(type) {
	case *rsa.PublicKey:
		return s == PKCS1v15 || s == PSS
	case *ecdsa.PublicKey:
		return s == ECDSA
	}
	return false
}

func codeOf(err error) Code {
	if c, ok := errors.AsType[Code](err); ok {
		return c
	}
	return Failed
}

// Outcomes counts responses by code.
func (s *Server) Outcomes() map[string]uint64 { return s.tally.Snapshot() }

// Signed counts signatures by key, since the start.
func (s *Server) Signed() map[string]uint64 {
	out := map[string]uint64{}
	for name, k := range s.table() {
		out[name] = k.signed.Load()
	}
	return out
}

// Waiting returns how many requests wait for a place.
func (s *Server) Waiting() (n int) {
	for _, k := range s.table() {
		n += k.gate.waiting()
	}
	return n
}

// A Local is a Backend whose key is in this process, such as one in a file.
type Local struct{ Signer crypto.Signer }

// Public returns the public key.
func (l Local) Public() crypto.PublicKey { return l.Signer.Public() }

// Sign signs at once.
func (l Local) Sign(_ context.Context, s Scheme, h crypto.Hash, digest []byte) ([]byte, error) {
	var opts crypto.SignerOpts = h
	if s == PSS {
		opts = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: h}
	}
	return l.Signer.Sign(nil, digest, opts)
}
