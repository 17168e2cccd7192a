package main

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/cmd/internal/boot"
	"github.com/openjpki/jpki/hsm"
	"github.com/openjpki/jpki/hsm/pkcs11"
	"github.com/openjpki/jpki/hsm/signer"
)

// A world is everything that signs. Its keys may be replaced while it does.
type world struct {
	program string
	log     *slog.Logger
	changes sync.Mutex // held by who replaces the keys

	mu    sync.Mutex
	slots []*place                  // in the configuration's order
	keys  map[string]*pkcs11.Key    // in tokens
	algs  map[string]string         // of the keys, by name
	run   func(*pkcs11.Slot) func() // starts a slot and returns what ends it; nil: slots are not started
}

// A place is one token's slot.
type place struct {
	*pkcs11.Slot
	keys map[string]pkcs11.URI // by name
	end  func()                // nil if the slot was not started
}

func newWorld(log *slog.Logger) (*world, error) {
	program, err := os.Executable()
	return &world{program: program, log: log, keys: map[string]*pkcs11.Key{}}, err
}

// set makes the keys those of a configuration. Until use has accepted them, nothing changes. Keys with the same token share
// a slot; no token is asked for anything yet. Steps:
//  1. which keys are on which token
//  2. slots, those that are there and new ones
//  3. what a server needs of each key, and have it used
//  4. tell the slots and keys that stay, start the new, end the others
func (w *world) set(ctx context.Context, c *config, use func([]signer.KeyConfig) error) error {
	w.changes.Lock()
	defer w.changes.Unlock()
	// 1.
	slots := map[string]*place{} // by token
	var order []*place
	for _, k := range c.Keys {
		for _, u := range k.uris {
			token := u.WithoutKey()
			p := slots[token.String()]
			if p == nil {
				p = &place{keys: map[string]pkcs11.URI{}}
				slots[token.String()] = p
				order = append(order, p)
			}
			if _, twice := p.keys[k.Name]; twice {
				return fmt.Errorf("key %s is twice on one token", k.Name)
			}
			p.keys[k.Name] = u
		}
	}
	// 2.
	old := map[string]*place{}
	for _, p := range w.places() {
		old[p.Token()] = p
	}
	for token, p := range slots {
		if was := old[token]; was != nil {
			p.Slot, p.end = was.Slot, was.end
			continue
		}
		u, err := pkcs11.ParseURI(token)
		if err != nil {
			return err
		}
		if p.Slot, err = pkcs11.NewSlot(pkcs11.SlotConfig{
			Token: u, Keys: p.keys, Program: []string{w.program, "-worker"}, Sessions: c.Sessions, Folder: c.path(c.State),
			Hang: c.Hang, Start: 10*time.Second + c.Hang, Probe: c.Probe, GiveUp: c.GiveUp, Suits: w.suits, Now: time.Now, Log: w.log,
		}); err != nil {
			return err
		}
	}
	// 3.
	keys, algs, at := map[string]*pkcs11.Key{}, map[string]string{}, map[string][]*pkcs11.Slot{}
	var served []signer.KeyConfig
	for _, k := range c.Keys {
		one, err := k.served(ctx, c)
		if err != nil {
			return fmt.Errorf("key %s: %w", k.Name, err)
		}
		if k.uris != nil {
			for _, u := range k.uris {
				at[k.Name] = append(at[k.Name], slots[u.WithoutKey().String()].Slot)
			}
			if keys[k.Name] = w.key(k.Name); keys[k.Name] == nil {
				keys[k.Name] = pkcs11.NewKey(k.Name, nil, w.log)
			}
			algs[k.Name] = k.Algorithm
			if pub := keys[k.Name].Public(); pub != nil {
				if err := is(pub, k.Algorithm); err != nil {
					return fmt.Errorf("key %s: %w", k.Name, err)
				}
			}
			// As many again as sign stand behind them, so that no session waits for a request on its way.
			one.Backend, one.AtOnce = keys[k.Name], 2*c.Sessions*len(k.uris)
		}
		served = append(served, one)
	}
	if err := use(served); err != nil {
		return err
	}
	// 4.
	for name, k := range keys {
		k.SetSlots(at[name])
	}
	w.mu.Lock()
	w.slots, w.keys, w.algs = order, keys, algs
	run := w.run
	w.mu.Unlock()
	var errs []error
	for token, p := range slots {
		errs = append(errs, p.SetKeys(p.keys))
		if p.end == nil && run != nil {
			p.end = run(p.Slot)
		}
		delete(old, token)
	}
	for _, p := range old {
		if p.end != nil {
			p.end()
		}
	}
	return errors.Join(errs...)
}

// served is what a server needs of a key; where the key is in a token, but for its backend.
func (k *key) served(ctx context.Context, c *config) (signer.KeyConfig, error) {
	one := signer.KeyConfig{Name: k.Name, PerPeer: c.Waiting, Verified: k.Verify}
	var err error
	if one.Rules, err = k.rules(); err != nil || k.uris != nil {
		return one, err
	}
	s, err := hsm.Open(ctx, c.fileURI(k.At[0]))
	if err != nil {
		return one, err
	}
	if err := is(s.Public(), k.Algorithm); err != nil {
		return one, err
	}
	one.Backend, one.AtOnce = signer.Local{Signer: s}, c.Sessions
	return one, nil
}

// is says so if a key has another algorithm than the configuration says.
func is(pub crypto.PublicKey, algorithm string) error {
	if alg, err := hsm.AlgorithmOf(pub); err != nil || string(alg) != algorithm {
		return fmt.Errorf("it is %s and not %s", alg, algorithm)
	}
	return nil
}

// suits says so if a token's key has another algorithm than the configuration says.
func (w *world) suits(name string, pub crypto.PublicKey) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return is(pub, w.algs[name])
}

// start starts the slots, and from now on those that come.
func (w *world) start(run func(*pkcs11.Slot) (end func())) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.run = run
	for _, p := range w.slots {
		p.end = run(p.Slot)
	}
}

// stop ends the slots.
func (w *world) stop() {
	w.changes.Lock()
	defer w.changes.Unlock()
	for _, p := range w.places() {
		p.end()
	}
}

func (w *world) places() []*place {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.slots
}

func (w *world) key(name string) *pkcs11.Key {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.keys[name]
}

// notReady names the keys that cannot sign now.
func (w *world) notReady() error {
	w.mu.Lock()
	keys := w.keys
	w.mu.Unlock()
	var missing []string
	for name, k := range keys {
		if !k.Ready() {
			missing = append(missing, name)
		}
	}
	if missing == nil {
		return nil
	}
	slices.Sort(missing)
	return fmt.Errorf("no token signs with %s", strings.Join(missing, ", "))
}

// slotsDown says which tokens are out of use although their keys have others.
func (w *world) slotsDown() error {
	for _, s := range w.places() {
		if state, _ := s.State(); state != pkcs11.Up {
			return boot.Note(fmt.Sprintf("%s is %s", s.Token(), state))
		}
	}
	return nil
}

const checkPatience = 30 * time.Second

// checkKeys starts every slot, waits until each is up with every key, and ends.
func (c *config) checkKeys(ctx context.Context) error {
	if err := os.MkdirAll(c.path(c.State), 0o700); err != nil {
		return err
	}
	w, err := newWorld(slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	if err := w.set(ctx, c, func(keys []signer.KeyConfig) error {
		_, err := signer.New(signer.Config{Keys: keys, Now: time.Now})
		return err
	}); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, checkPatience)
	defer cancel()
	for _, s := range w.places() {
		if err := s.Try(ctx); err != nil {
			return fmt.Errorf("%s: %w", s.Token(), err)
		}
	}
	return nil
}

// serve signs until ctx ends. Steps:
//  1. open the record of use, the slots and the socket
//  2. serve, with the slots at work, until the first failure or the end
//  3. answer what was begun, write the record's last line
func serve(ctx context.Context, c *config, log *slog.Logger) (err error) {
	// 1.
	state := c.path(c.State)
	if err := os.MkdirAll(state, 0o700); err != nil {
		return err
	}
	meter, err := signer.OpenMeter(filepath.Join(state, "usage.ndjson"), time.Now)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, meter.Close()) }()
	w, err := newWorld(log)
	if err != nil {
		return err
	}
	var server *signer.Server
	var reloads jpki.Tally
	reload := func(ctx context.Context) error { return w.reload(ctx, c, server, &reloads) }
	if err := w.set(ctx, c, func(keys []signer.KeyConfig) (err error) {
		server, err = signer.New(signer.Config{Keys: keys, Usage: meter, Now: time.Now, Log: log, Reload: reload})
		return err
	}); err != nil {
		return err
	}
	l, err := c.listen(ctx)
	if err != nil {
		return err
	}
	admin, err := new(net.ListenConfig).Listen(ctx, "tcp", c.Admin)
	if err != nil {
		_ = l.Close()
		return err
	}
	// 2.
	w.start(func(s *pkcs11.Slot) func() {
		ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		done := make(chan struct{})
		go func() { defer close(done); _ = s.Run(ctx) }()
		return func() { cancel(); <-done }
	})
	ready := func() error { return errors.Join(w.notReady(), meter.Err()) }
	handler := boot.Admin(func() error {
		if err := ready(); err != nil {
			return err
		}
		return w.slotsDown()
	}, append(w.metrics(server), boot.Outcomes("jpki_signer_reloads_total", "How often keys and rules were read again, by how that ended.", reloads.Snapshot))...)
	log.InfoContext(ctx, "serving", slog.String("socket", l.Addr().String()), slog.String("admin", admin.Addr().String()))
	err = boot.Run(ctx, log, []boot.Service{{Name: "admin", Listener: admin, Handler: handler}},
		boot.Serve("signer", server, l), boot.Every(log, "record of use", c.Record, func(context.Context) error { return meter.Keep() }),
		onHangUp(reload))
	// 3.
	w.stop()
	return err
}

// onHangUp reloads at each SIGHUP. What went wrong is in the log.
func onHangUp(reload func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		hangUps := make(chan os.Signal, 1)
		signal.Notify(hangUps, syscall.SIGHUP)
		defer signal.Stop(hangUps)
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-hangUps:
				_ = reload(ctx)
			}
		}
	}
}

// reload reads the configuration's file again and has its keys and rules used from now on. Everything else in it is of the
// start; a file in which that is different is refused whole, and so is one that is wrong.
func (w *world) reload(ctx context.Context, c *config, server *signer.Server, outcomes *jpki.Tally) (err error) {
	defer func() {
		if err != nil {
			outcomes.Add("failed")
			w.log.ErrorContext(ctx, "the configuration is not used: keys and rules are as they were", slog.Any("error", err))
			return
		}
		outcomes.Add("ok")
	}()
	again, err := readConfig(c.file)
	if err != nil {
		return err
	}
	if a, b := c.apart(), again.apart(); a != b {
		return fmt.Errorf("%s: only keys can change without a restart", c.file)
	}
	if err := w.set(ctx, again, server.SetKeys); err != nil {
		return fmt.Errorf("%s: %w", c.file, err)
	}
	w.log.InfoContext(ctx, "keys and rules were read again", slog.Int("keys", len(again.Keys)))
	return nil
}

func (w *world) metrics(s *signer.Server) []boot.Metric {
	up := func() map[string]uint64 {
		out := map[string]uint64{}
		for _, s := range w.places() {
			state, _ := s.State()
			out[string(state)]++
		}
		return out
	}
	return []boot.Metric{
		boot.Outcomes("jpki_signer_requests_total", "Requests answered, by how they ended.", s.Outcomes),
		boot.Outcomes("jpki_signer_signatures_total", "Signatures made, by key.", s.Signed),
		boot.Outcomes("jpki_signer_tokens", "Tokens, by state.", up),
		boot.Gauge("jpki_signer_waiting", "Requests that wait for a place.", func() float64 { return float64(s.Waiting()) }),
		boot.Gauge("jpki_signer_restarts", "Child processes started in place of one that ended.", func() float64 {
			n := uint64(0)
			for _, s := range w.places() {
				n += s.Restarts()
			}
			return float64(n)
		}),
	}
}

// listen makes the socket, where a signer that was killed may have left one. One that answers is not replaced.
func (c *config) listen(ctx context.Context) (net.Listener, error) {
	path := c.path(c.Listen)
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err == nil {
		_ = conn.Close()
		return nil, fmt.Errorf("listen: another process serves %s", path)
	}
	if info, err := os.Lstat(path); err == nil && info.Mode()&os.ModeSocket != 0 {
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	mask := syscall.Umask(0o177) // before other threads make files: the socket is ours alone until its mode says otherwise
	l, err := new(net.ListenConfig).Listen(ctx, "unix", path)
	syscall.Umask(mask)
	if err != nil {
		return nil, err
	}
	if c.gid >= 0 {
		err = os.Chown(path, -1, c.gid)
	}
	if err = errors.Join(err, os.Chmod(path, c.mode)); err != nil {
		_ = l.Close()
		return nil, err
	}
	return l, nil
}
