package pkcs11

import (
	"bufio"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/openjpki/jpki/hsm/signer"
)

// A SlotConfig is what a slot needs. Log may be nil.
type SlotConfig struct {
	Token    URI            // without a key
	Keys     map[string]URI // by name; required
	Program  []string       // the child: a program and its arguments, which calls Work on file descriptor 3; required
	Sessions int            // of the token, at least 1
	Folder   string         // where a refused PIN is remembered; required
	Hang     time.Duration  // how long the token may take for one signature before the child is replaced; required
	Start    time.Duration  // how long the child may take to report; required
	Probe    time.Duration  // how often a token is tried that nobody uses; required
	GiveUp   time.Duration  // after how long nobody who comes waits for the token any more; required
	// Suits says why a key that was found under a name is not the one that was meant; nil if it is. Nil for any key.
	Suits func(name string, public crypto.PublicKey) error
	Now   func() time.Time // required
	Log   *slog.Logger
}

// A Slot keeps one token in use. Run does the work.
type Slot struct {
	cfg      SlotConfig
	mu       sync.Mutex
	state    State
	detail   string
	since    time.Time // when it last came into use, or went out of it
	live     *child
	keys     map[string]URI // what the next child is told
	others   bell           // rings when keys are others
	bells    []*bell
	restarts atomic.Uint64
	doubted  atomic.Bool       // the log has that the slot has another key than the others
	missing  map[string]string // keys that were not there, or did not sign, when the slot was last up
}

// A child is one process with the token in use.
type child struct {
	link *signer.Link
	keys map[string]crypto.PublicKey
}

// NewSlot checks a configuration.
func NewSlot(cfg SlotConfig) (*Slot, error) {
	if len(cfg.Program) == 0 || cfg.Sessions < 1 || cfg.Folder == "" || cfg.Hang <= 0 || cfg.Start <= 0 || cfg.Probe <= 0 || cfg.GiveUp <= 0 || cfg.Now == nil {
		return nil, errors.New("pkcs11: Keys, Program, Sessions, Folder, Hang, Start, Probe, GiveUp and Now are required")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Slot{cfg: cfg, state: Starting, since: cfg.Now(), others: bell{ch: make(chan struct{})}}
	return s, s.SetKeys(cfg.Keys)
}

// SetKeys replaces the keys that the slot has. A child that has others ends, and a new one finds these; what was on its way
// is asked again.
func (s *Slot) SetKeys(keys map[string]URI) error {
	if len(keys) == 0 {
		return errors.New("pkcs11: Keys, Program, Sessions, Folder, Hang, Start, Probe, GiveUp and Now are required")
	}
	for name, u := range keys {
		if err := u.Check(); err != nil {
			return fmt.Errorf("pkcs11: key %s: %w", name, err)
		}
		if u.WithoutKey().String() != s.cfg.Token.String() {
			return fmt.Errorf("pkcs11: key %s is on another token", name)
		}
	}
	s.mu.Lock()
	same := maps.EqualFunc(s.keys, keys, func(a, b URI) bool { return a.String() == b.String() })
	s.keys = keys
	s.mu.Unlock()
	if !same {
		s.others.ring()
	}
	return nil
}

// State says how the slot is and, unless it is Up, why.
func (s *Slot) State() (State, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state, s.detail
}

// Token returns the URI of the slot's token.
func (s *Slot) Token() string { return s.cfg.Token.String() }

// Restarts counts the children started after the first.
func (s *Slot) Restarts() uint64 { return s.restarts.Load() }

// The least and the most time between one child's end and the next one's start. The most, with a child's start, is what a
// returned token waits.
const (
	leastPause = 20 * time.Millisecond
	mostPause  = 800 * time.Millisecond
	steady     = 10 * time.Second // a child that lived so long was well
	lookAgain  = 250 * time.Millisecond
)

// Run keeps a child alive until ctx ends. It returns nil.
func (s *Slot) Run(ctx context.Context) error {
	defer s.become(Stopped, "", nil)
	pause := leastPause
	for first := true; ctx.Err() == nil; first = false {
		if !s.mayLogIn() {
			s.become(PINRefused, "write the right PIN into "+s.cfg.Token.PINFile, nil)
			sleep(ctx, lookAgain)
			continue
		}
		if !first {
			s.restarts.Add(1)
		}
		started := s.cfg.Now()
		err := s.once(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if s.cfg.Now().Sub(started) > steady || errors.Is(err, errOthers) {
			pause = leastPause
		}
		state, _ := s.State()
		s.cfg.Log.WarnContext(ctx, "a token is out of use", slog.String("token", s.cfg.Token.String()), slog.String("state", string(state)), slog.Any("error", err))
		sleep(ctx, pause)
		pause = min(2*pause, mostPause)
	}
	return nil
}

// once lives with one child from its start to its end.
func (s *Slot) once(ctx context.Context) error {
	pin := identity(s.cfg.Token.PINFile)
	conn, end, err := s.spawn(ctx)
	if err != nil {
		s.become(Absent, err.Error(), nil)
		return err
	}
	defer end()
	_ = conn.SetDeadline(time.Now().Add(s.cfg.Start)) //nolint:forbidigo // the kernel's clock
	others := s.others.wait()                         // before the keys are read: a change in between is not missed
	o := order{Token: s.cfg.Token.String(), Keys: map[string]string{}, Sessions: s.cfg.Sessions}
	s.mu.Lock()
	for name, u := range s.keys {
		o.Keys[name] = u.String()
	}
	s.mu.Unlock()
	r := bufio.NewReaderSize(conn, 16<<10)
	var found report
	if err = writeFrame(conn, o); err == nil {
		err = readFrame(r, &found)
	}
	if err != nil {
		err = fmt.Errorf("the child did not report: %w", err)
		s.become(Absent, err.Error(), nil)
		return err
	}
	if found.State != Up {
		s.become(found.State, found.Detail, nil)
		if found.State == PINRefused {
			s.refuse(ctx, pin)
		}
		return errors.New(found.Detail)
	}
	_ = conn.SetDeadline(time.Time{})
	s.forget()
	c := &child{keys: map[string]crypto.PublicKey{}}
	for name, der := range found.Keys {
		if c.keys[name], err = x509.ParsePKIXPublicKey(der); err != nil {
			return fmt.Errorf("public key of %s: %w", name, err)
		}
		if s.cfg.Suits == nil {
			continue
		}
		if err := s.cfg.Suits(name, c.keys[name]); err != nil {
			delete(c.keys, name)
			if found.Missing == nil {
				found.Missing = map[string]string{}
			}
			found.Missing[name] = err.Error()
		}
	}
	s.mu.Lock()
	s.missing = found.Missing
	s.mu.Unlock()
	for name, why := range found.Missing {
		s.cfg.Log.ErrorContext(ctx, "a key is not on its token, or another one is", slog.String("key", name), slog.String("token", s.cfg.Token.String()), slog.String("error", why))
	}
	c.link = signer.NewLink(conn, r)
	defer c.link.Close()
	s.become(Up, "", c)
	s.cfg.Log.InfoContext(ctx, "a token is in use", slog.String("token", s.cfg.Token.String()), slog.Int("keys", len(c.keys)), slog.Int("sessions", found.Sessions))
	err = s.watch(ctx, c, others)
	s.become(Lost, err.Error(), nil)
	return err
}

var errOthers = errors.New("its keys are others now")

// watch returns when the child is no good any more: it ended, does not answer, fails the test of an idle token, or is to
// have other keys.
func (s *Slot) watch(ctx context.Context, c *child, others <-chan struct{}) error {
	tick := time.NewTicker(min(s.cfg.Hang/4, lookAgain))
	defer tick.Stop()
	name := ""
	if names := slices.Sorted(maps.Keys(c.keys)); len(names) > 0 {
		name = names[0]
	}
	probed := s.cfg.Now()
	failed := make(chan error, 1)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.link.Done():
			return errors.New("the child ended, or its token was lost")
		case <-others:
			return errOthers
		case err := <-failed:
			return fmt.Errorf("the token failed a test: %w", err)
		case <-tick.C:
		}
		since, busy := c.link.Oldest()
		now := s.cfg.Now()
		switch {
		case busy && time.Since(since) > s.cfg.Hang:
			return fmt.Errorf("the token has not answered for %v", s.cfg.Hang)
		case busy:
			probed = now
		case name != "" && now.Sub(probed) >= s.cfg.Probe:
			probed = now
			go func() {
				if err := probe(ctx, c, name); err != nil {
					failed <- err
				}
			}()
		}
	}
}

// probe has a key sign a test message.
func probe(ctx context.Context, c *child, name string) error {
	scheme, digest := signer.PKCS1v15, sha256.Sum256([]byte("a test message; a signature of it means nothing"))
	if _, ok := c.keys[name].(*ecdsa.PublicKey); ok {
		scheme = signer.ECDSA
	}
	resp, err := c.link.Do(ctx, signer.Request{Op: signer.OpSign, Key: name, Purpose: signer.ForOther, Scheme: scheme, Hash: crypto.SHA256, Digest: digest[:]})
	if err != nil || resp.Code != signer.OK {
		return errors.Join(err, resp.Code)
	}
	if !signer.Verify(c.keys[name], scheme, crypto.SHA256, digest[:], resp.Data) {
		return errors.New("the signature does not verify")
	}
	return nil
}

// spawn starts the child with one end of a socket pair as its file descriptor 3.
func (s *Slot) spawn(ctx context.Context) (conn net.Conn, end func(), err error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "slot"), os.NewFile(uintptr(fds[1]), "child")
	conn, err = net.FileConn(ours)
	_ = ours.Close()
	if err != nil {
		_ = theirs.Close()
		return nil, nil, err
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), s.cfg.Program[0], s.cfg.Program[1:]...) //nolint:gosec // ourselves
	cmd.Stderr, cmd.ExtraFiles = os.Stderr, []*os.File{theirs}
	err = cmd.Start()
	_ = theirs.Close()
	if err != nil {
		_ = conn.Close()
		return nil, nil, err
	}
	return conn, func() {
		_ = conn.Close() // the child ends by this, unless it cannot
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}, nil
}

// become changes the state and tells who waits for a token.
func (s *Slot) become(state State, detail string, live *child) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if (state == Up) != (s.state == Up) {
		s.since = s.cfg.Now()
	}
	s.state, s.detail, s.live = state, detail, live
	for _, b := range s.bells {
		b.ring()
	}
}

// givenUp reports whether the slot has been as it is for so long that nothing is to be waited for.
func (s *Slot) givenUp() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cfg.Now().Sub(s.since) >= s.cfg.GiveUp
}

// serves returns the child if it has a key.
func (s *Slot) serves(key string) (*child, crypto.PublicKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live == nil {
		return nil, nil
	}
	select {
	case <-s.live.link.Done():
		return nil, nil
	default:
	}
	pub := s.live.keys[key]
	if pub == nil {
		return nil, nil
	}
	return s.live, pub
}

// mark is the file that remembers a refused PIN: not the PIN, but which file it was in.
func (s *Slot) mark() string {
	sum := sha256.Sum256([]byte(s.cfg.Token.String()))
	return filepath.Join(s.cfg.Folder, "pin-refused-"+hex.EncodeToString(sum[:8]))
}

// mayLogIn reports whether the PIN's file is another than the one whose PIN was refused.
func (s *Slot) mayLogIn() bool {
	was, err := os.ReadFile(s.mark())
	if errors.Is(err, os.ErrNotExist) {
		return true
	}
	return err == nil && string(was) != identity(s.cfg.Token.PINFile)
}

// refuse remembers a refused PIN. Where that fails, the slot stops here rather than try again.
func (s *Slot) refuse(ctx context.Context, pin string) {
	for ctx.Err() == nil {
		err := os.WriteFile(s.mark(), []byte(pin), 0o600)
		if err == nil {
			return
		}
		s.cfg.Log.ErrorContext(ctx, "a refused PIN cannot be remembered, so the token is not tried again", slog.Any("error", err))
		sleep(ctx, time.Second)
	}
}

func (s *Slot) forget() { _ = os.Remove(s.mark()) }

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// A bell wakes everybody who waits for a token.
type bell struct {
	mu sync.Mutex
	ch chan struct{}
}

func (b *bell) wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ch
}

func (b *bell) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.ch)
	b.ch = make(chan struct{})
}

// A Key is one key in one or several slots; it is a signer.Backend.
type Key struct {
	name   string
	slots  []*Slot
	bell   bell
	mu     sync.Mutex
	public crypto.PublicKey
	log    *slog.Logger
}

// NewKey returns the key that the slots have under a name. All of them must have the same: the first public key that is
// seen is the key's, and a slot with another is not used.
func NewKey(name string, slots []*Slot, log *slog.Logger) *Key {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	k := &Key{name: name, log: log, bell: bell{ch: make(chan struct{})}}
	k.SetSlots(slots)
	return k
}

// SetSlots replaces the slots. The key stays the one that it is: a slot with another under the name is not used.
func (k *Key) SetSlots(slots []*Slot) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, s := range k.slots {
		s.mu.Lock()
		s.bells = slices.DeleteFunc(s.bells, func(b *bell) bool { return b == &k.bell })
		s.mu.Unlock()
	}
	k.slots = slices.Clone(slots)
	for _, s := range slots {
		s.mu.Lock()
		s.bells = append(s.bells, &k.bell)
		s.mu.Unlock()
	}
	k.bell.ring()
}

// places returns the slots of the moment.
func (k *Key) places() []*Slot {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.slots
}

// Public returns the public key, or nil while no slot has been up.
func (k *Key) Public() crypto.PublicKey {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.public == nil {
		for _, s := range k.slots {
			if _, pub := s.serves(k.name); pub != nil {
				k.public = pub
				break
			}
		}
	}
	return k.public
}

// Ready reports whether some slot can sign now.
func (k *Key) Ready() bool { return k.choose(context.Background()) != nil }

// choose returns the child, among those with the key, that has least to do.
func (k *Key) choose(ctx context.Context) (best *child) {
	want := k.Public()
	least := 0
	for _, s := range k.places() {
		c, pub := s.serves(k.name)
		if c == nil {
			continue
		}
		if !pub.(interface{ Equal(crypto.PublicKey) bool }).Equal(want) {
			if !s.doubted.Swap(true) {
				k.log.ErrorContext(ctx, "a token has another key under the same name and is not used", slog.String("key", k.name), slog.String("token", s.Token()))
			}
			continue
		}
		if n := c.link.Pending(); best == nil || n < least {
			best, least = c, n
		}
	}
	return best
}

// givenUp reports whether no slot is worth waiting for.
func (k *Key) givenUp() bool {
	return !slices.ContainsFunc(k.places(), func(s *Slot) bool { return !s.givenUp() })
}

const mostTries = 5 // of one request that costs children their lives

// Sign has a slot sign. While none is up, it waits, unless every slot has been away for long before it was called; when a
// slot is lost, another is asked, or the same one when it is back.
func (k *Key) Sign(ctx context.Context, scheme signer.Scheme, h crypto.Hash, digest []byte) ([]byte, error) {
	asked := false
	for try := 0; try < mostTries; {
		changed := k.bell.wait()
		c := k.choose(ctx)
		if c == nil {
			if !asked && k.givenUp() {
				return nil, fmt.Errorf("no token with the key for long: %w", signer.Unavailable)
			}
			asked = true
			select {
			case <-ctx.Done():
				return nil, fmt.Errorf("no token with the key: %w", signer.Unavailable)
			case <-changed:
			}
			continue
		}
		resp, err := c.link.Do(ctx, signer.Request{Op: signer.OpSign, Key: k.name, Purpose: signer.ForOther, Scheme: scheme, Hash: h, Digest: digest})
		switch {
		case err == nil && resp.Code == signer.OK:
			return resp.Data, nil
		case err == nil && resp.Code != signer.Gone:
			return nil, fmt.Errorf("%w: %s", signer.Failed, resp.Data)
		case ctx.Err() != nil:
			return nil, fmt.Errorf("the token did not answer in time: %w", signer.Unavailable)
		}
		if err == nil { // gone: its child ends by itself, but must not be asked again until then
			c.link.Close()
			k.log.WarnContext(ctx, "a token is lost", slog.String("key", k.name), slog.String("error", string(resp.Data)))
		}
		try++
	}
	return nil, fmt.Errorf("%w: tokens were lost over this request %d times", signer.Failed, mostTries)
}

// Try starts a child once and says why the token or one of its keys cannot be used; nil if all can.
func (s *Slot) Try(ctx context.Context) error {
	if !s.mayLogIn() {
		return errors.New("its PIN was refused: write the right one into " + s.cfg.Token.PINFile)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- s.once(ctx) }()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for {
		select {
		case err := <-ended:
			return err
		case <-look.C:
		}
		if state, _ := s.State(); state == Up {
			cancel()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				return err
			}
			return s.incomplete()
		}
	}
}

// incomplete says which keys were not there, or did not sign, when the slot was last up.
func (s *Slot) incomplete() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for name, why := range s.missing {
		errs = append(errs, fmt.Errorf("key %s: %s", name, why))
	}
	return errors.Join(errs...)
}
