package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/openjpki/jpki/cmd/internal/boot"
	"github.com/openjpki/jpki/hsm"
	"github.com/openjpki/jpki/hsm/pkcs11"
	"github.com/openjpki/jpki/hsm/signer"
)

// A world is everything that signs.
type world struct {
	slots []*pkcs11.Slot
	keys  []signer.KeyConfig
	ready map[string]func() bool // keys in tokens
}

// open makes slots and keys; no token is asked for anything yet. Keys with the same token share a slot.
func (c *config) open(ctx context.Context, log *slog.Logger) (*world, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	w := &world{ready: map[string]func() bool{}}
	tokens := map[string]map[string]pkcs11.URI{} // token → name → key
	var order []pkcs11.URI
	for _, k := range c.Keys {
		for _, u := range k.uris {
			token := u.WithoutKey()
			if tokens[token.String()] == nil {
				tokens[token.String()] = map[string]pkcs11.URI{}
				order = append(order, token)
			}
			if _, twice := tokens[token.String()][k.Name]; twice {
				return nil, fmt.Errorf("key %s is twice on one token", k.Name)
			}
			tokens[token.String()][k.Name] = u
		}
	}
	slots := map[string]*pkcs11.Slot{}
	for _, token := range order {
		s, err := pkcs11.NewSlot(pkcs11.SlotConfig{
			Token: token, Keys: tokens[token.String()], Program: []string{program, "-worker"}, Sessions: c.Sessions, Folder: c.path(c.State),
			Hang: c.Hang, Start: 10*time.Second + c.Hang, Probe: c.Probe, Now: time.Now, Log: log,
		})
		if err != nil {
			return nil, err
		}
		slots[token.String()] = s
		w.slots = append(w.slots, s)
	}
	for _, k := range c.Keys {
		rules, err := k.rules()
		if err != nil {
			return nil, fmt.Errorf("key %s: %w", k.Name, err)
		}
		one := signer.KeyConfig{Name: k.Name, Rules: rules, PerPeer: c.Waiting, Verified: k.Verify}
		if k.uris == nil {
			s, err := hsm.Open(ctx, c.fileURI(k.At[0]))
			if err != nil {
				return nil, err
			}
			if alg, err := hsm.AlgorithmOf(s.Public()); err != nil || string(alg) != k.Algorithm {
				return nil, fmt.Errorf("key %s is %s and not %s", k.Name, alg, k.Algorithm)
			}
			one.Backend, one.AtOnce = signer.Local{Signer: s}, c.Sessions
		} else {
			var mine []*pkcs11.Slot
			for _, u := range k.uris {
				mine = append(mine, slots[u.WithoutKey().String()])
			}
			backend := pkcs11.NewKey(k.Name, mine, log)
			w.ready[k.Name] = backend.Ready
			// As many again as sign stand behind them, so that no session waits for a request on its way.
			one.Backend, one.AtOnce = backend, 2*c.Sessions*len(mine)
		}
		w.keys = append(w.keys, one)
	}
	return w, nil
}

// notReady names the keys that cannot sign now.
func (w *world) notReady() error {
	var missing []string
	for name, ready := range w.ready {
		if !ready() {
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
	for _, s := range w.slots {
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
	w, err := c.open(ctx, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	if _, err := signer.New(signer.Config{Keys: w.keys, Now: time.Now}); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, checkPatience)
	defer cancel()
	for _, s := range w.slots {
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
	w, err := c.open(ctx, log)
	if err != nil {
		return err
	}
	server, err := signer.New(signer.Config{Keys: w.keys, Usage: meter, Now: time.Now, Log: log})
	if err != nil {
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
	slots, stopSlots := context.WithCancel(context.WithoutCancel(ctx))
	var ended []chan struct{}
	for _, s := range w.slots {
		done := make(chan struct{})
		ended = append(ended, done)
		go func() { defer close(done); _ = s.Run(slots) }()
	}
	ready := func() error { return errors.Join(w.notReady(), meter.Err()) }
	handler := boot.Admin(func() error {
		if err := ready(); err != nil {
			return err
		}
		return w.slotsDown()
	}, w.metrics(server)...)
	log.InfoContext(ctx, "serving", slog.String("socket", l.Addr().String()), slog.String("admin", admin.Addr().String()))
	err = boot.Run(ctx, log, []boot.Service{{Name: "admin", Listener: admin, Handler: handler}},
		boot.Serve("signer", server, l), boot.Every(log, "record of use", c.Record, func(context.Context) error { return meter.Keep() }))
	// 3.
	stopSlots()
	for _, done := range ended {
		<-done
	}
	return err
}

func (w *world) metrics(s *signer.Server) []boot.Metric {
	up := func() map[string]uint64 {
		out := map[string]uint64{}
		for _, s := range w.slots {
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
			for _, s := range w.slots {
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
