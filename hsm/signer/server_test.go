package signer_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/hsm/signer"
)

// A liar claims one key's public half and signs with another.
type liar struct {
	signer.Local
	pub crypto.PublicKey
}

func (l liar) Public() crypto.PublicKey { return l.pub }

// A stuck backend signs when it is let.
type stuck struct {
	signer.Local
	entered chan struct{}
	release chan struct{}
}

func (s stuck) Sign(ctx context.Context, scheme signer.Scheme, h crypto.Hash, digest []byte) ([]byte, error) {
	s.entered <- struct{}{}
	select {
	case <-s.release:
		return s.Local.Sign(ctx, scheme, h, digest)
	case <-ctx.Done():
		return nil, signer.Unavailable
	}
}

func local(t *testing.T) signer.Local {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return signer.Local{Signer: k}
}

// serve starts a server with one key, for this process.
func serve(t *testing.T, b signer.Backend) (s *signer.Server, socket string) {
	t.Helper()
	uid := uint32(os.Getuid())
	s, err := signer.New(signer.Config{Now: time.Now, Keys: []signer.KeyConfig{{
		Name: "k", Backend: b, AtOnce: 1, PerPeer: 10, Verified: 1, Rules: []signer.Rule{{UID: &uid, Purposes: []signer.Purpose{signer.ForOther}}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "signer")
	if err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	t.Cleanup(func() {
		_ = s.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		_ = os.RemoveAll(dir)
	})
	return s, socket
}

func open(t *testing.T, socket string, wait time.Duration) *signer.Key {
	t.Helper()
	c := signer.NewClient(socket)
	t.Cleanup(c.Close)
	k, err := c.Open(t.Context(), signer.Ref{Socket: socket, Key: "k", Purpose: signer.ForOther, Wait: wait})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestWrongSignaturesAreKeptBack(t *testing.T) {
	s, socket := serve(t, liar{local(t), local(t).Public()})
	_, err := open(t, socket, time.Minute).Sign(nil, digest[:], crypto.SHA256)
	if err == nil || !strings.Contains(err.Error(), "does not verify") {
		t.Errorf("got %v", err)
	}
	if s.Outcomes()["kept-back"] != 1 {
		t.Error(s.Outcomes())
	}
}

// What was begun is answered when the server shuts down; what comes later is not begun.
func TestShutdownAnswersWhatWasBegun(t *testing.T) {
	b := stuck{local(t), make(chan struct{}), make(chan struct{})}
	s, socket := serve(t, b)
	k := open(t, socket, time.Minute)
	signed := make(chan error, 1)
	go func() { _, err := k.Sign(nil, digest[:], crypto.SHA256); signed <- err }()
	<-b.entered
	ended := make(chan error, 1)
	go func() { ended <- s.Shutdown(t.Context()) }()
	for { // until it has stopped listening
		conn, err := net.Dial("unix", socket)
		if err != nil {
			break
		}
		_ = conn.Close()
	}
	close(b.release)
	if err := <-signed; err != nil {
		t.Errorf("a request under way: %v", err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// A request that waits for its place longer than it may is told so, and leaves its place in the queue.
func TestWaitingEndsInTime(t *testing.T) {
	b := stuck{local(t), make(chan struct{}), make(chan struct{})}
	s, socket := serve(t, b)
	first, second := open(t, socket, time.Minute), open(t, socket, 20*time.Millisecond)
	signed := make(chan error, 1)
	go func() { _, err := first.Sign(nil, digest[:], crypto.SHA256); signed <- err }()
	<-b.entered
	if _, err := second.Sign(nil, digest[:], crypto.SHA256); jpki.ProblemOf(err) != jpki.Unavailable {
		t.Errorf("got %v", err)
	}
	close(b.release)
	if err := <-signed; err != nil {
		t.Error(err)
	}
	for s.Waiting() != 0 {
		time.Sleep(time.Millisecond)
	}
}

// Several peers with many requests each are served by turns: when one with few has had its answers, those with many have
// not had many more.
func TestPeersTakeTurns(t *testing.T) {
	b := stuck{local(t), make(chan struct{}), make(chan struct{})}
	s, socket := serve(t, b)
	greedy, modest := open(t, socket, time.Minute), open(t, socket, time.Minute)
	var mu sync.Mutex
	var order []string
	var all sync.WaitGroup
	ask := func(k *signer.Key, name string) {
		all.Go(func() {
			if _, err := k.Sign(nil, digest[:], crypto.SHA256); err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			order = append(order, name)
		})
	}
	for range 9 {
		ask(greedy, "greedy")
	}
	<-b.entered // one is being signed, eight wait or are about to
	waiting := func(n int) {
		for s.Waiting() < n {
			time.Sleep(time.Millisecond)
		}
	}
	waiting(8)
	ask(modest, "modest")
	waiting(9)
	for i := range 10 {
		b.release <- struct{}{}
		if i < 9 {
			<-b.entered
		}
	}
	all.Wait()
	mu.Lock()
	defer mu.Unlock()
	if at := strings.Index(strings.Join(order, " "), "modest"); at < 0 || at > len("greedy ")*4 {
		t.Errorf("the modest peer was served late: %v", order)
	}
}

func TestMalformedEndsTheConnection(t *testing.T) {
	_, socket := serve(t, local(t))
	for _, octets := range []string{"\x00\x00\x00\x00", "\xff\xff\xff\xff", "\x00\x00\x00\x05hello", "GET / HTTP/1.1\r\n\r\n"} {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte(octets)); err != nil {
			t.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		if n, err := conn.Read(make([]byte, 10)); n != 0 || err == nil || os.IsTimeout(err) {
			t.Errorf("%q: %d octets, %v", octets, n, err)
		}
		_ = conn.Close()
	}
	if _, err := open(t, socket, time.Minute).Sign(nil, digest[:], crypto.SHA256); err != nil {
		t.Error(err)
	}
}

func TestNewRefuses(t *testing.T) {
	uid := uint32(1)
	rule := signer.Rule{UID: &uid, Purposes: []signer.Purpose{signer.ForCRL}}
	good := signer.KeyConfig{Name: "k", Backend: local(t), AtOnce: 1, PerPeer: 1, Verified: 1, Rules: []signer.Rule{rule}}
	for want, change := range map[string]func(*signer.Config){
		"":                 func(*signer.Config) {},
		"Keys and Now":     func(c *signer.Config) { c.Now = nil },
		"not made of":      func(c *signer.Config) { c.Keys[0].Name = "a b" },
		"twice":            func(c *signer.Config) { c.Keys = append(c.Keys, c.Keys[0]) },
		"Backend, AtOnce":  func(c *signer.Config) { c.Keys[0].Verified = 0 },
		"neither a user":   func(c *signer.Config) { c.Keys[0].Rules = []signer.Rule{{Purposes: rule.Purposes}} },
		"names no purpose": func(c *signer.Config) { c.Keys[0].Rules = []signer.Rule{{UID: &uid}} },
		"needs a burst":    func(c *signer.Config) { c.Keys[0].Rules = []signer.Rule{{UID: &uid, Purposes: rule.Purposes, Rate: 1}} },
	} {
		cfg := signer.Config{Now: time.Now, Keys: []signer.KeyConfig{good}}
		change(&cfg)
		if _, err := signer.New(cfg); want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
