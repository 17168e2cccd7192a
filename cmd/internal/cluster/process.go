package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A service is a process that is started again when it ends, until the cluster ends or somebody holds it down. It does not
// outlive us: it is killed at the end, and by the kernel should we be killed.
type service struct {
	name    string
	program string
	args    []string
	env     []string                    // besides ours
	set     func(*exec.Cmd)             // changes the command before it starts; nil for nothing
	well    func(context.Context) error // says why it does not serve yet; nil for a process that serves at once
	log     string

	mu    sync.Mutex
	cmd   *exec.Cmd
	done  chan struct{} // closed when cmd has ended
	held  bool          // whoever holds it starts it again
	ended bool          // with the cluster
	count int           // how often it was started
}

// A nursery has all processes of a cluster.
type nursery struct {
	dir string
	out *slog.Logger

	mu       sync.Mutex
	services []*service
	watching sync.WaitGroup
}

// again is how long a process stays away that has ended.
const again = 200 * time.Millisecond

// add starts a process and waits until it serves.
func (n *nursery) add(ctx context.Context, s *service) error {
	s.log = filepath.Join(n.dir, "log", s.name)
	if err := s.start(); err != nil {
		return err
	}
	n.mu.Lock()
	n.services = append(n.services, s)
	n.mu.Unlock()
	n.watching.Go(func() { n.watch(s) })
	return s.await(ctx)
}

// watch starts a process again whenever it ends.
func (n *nursery) watch(s *service) {
	for {
		s.mu.Lock()
		done := s.done
		s.mu.Unlock()
		<-done
		time.Sleep(again)
		s.mu.Lock()
		over, held, same := s.ended, s.held, s.done == done
		s.mu.Unlock()
		switch {
		case over:
			return
		case held || !same:
			continue
		}
		n.out.InfoContext(context.Background(), "started again", slog.String("process", s.name))
		if err := s.start(); err != nil {
			n.out.ErrorContext(context.Background(), "cannot be started", slog.String("process", s.name), slog.Any("error", err))
		}
	}
}

func (s *service) start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return nil
	}
	if s.done != nil {
		select {
		case <-s.done:
		default:
			return nil // it runs
		}
	}
	out, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }()
	cmd := exec.Command(s.program, s.args...) //nolint:noctx,gosec // programs of ours, ended by kill
	cmd.Stdout, cmd.Stderr = out, out
	if s.env != nil {
		cmd.Env = append(os.Environ(), s.env...)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true} // Ctrl-C is for us alone
	if s.set != nil {
		s.set(cmd)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", s.name, err)
	}
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); close(done) }()
	s.cmd, s.done = cmd, done
	s.count++
	return nil
}

// await waits until the process serves; it may end and be started again meanwhile, but not for ever.
func (s *service) await(ctx context.Context) error {
	if s.well == nil {
		return nil
	}
	before := s.starts()
	if err := until(ctx, s.name+" is well", func() error {
		err := s.well(ctx)
		if err != nil && s.starts() > before+tries {
			err = final{err}
		}
		return err
	}); err != nil {
		return fmt.Errorf("%w: %s", err, s.tail())
	}
	return nil
}

// tries is how often a process that is waited for may end by itself.
const tries = 20

// signal sends a signal to the process as it is now.
func (s *service) signal(sig syscall.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd != nil {
		_ = s.cmd.Process.Signal(sig) // it may have ended by itself
	}
}

// end ends the process by a signal and waits until it has ended.
func (s *service) end(sig syscall.Signal) {
	s.mu.Lock()
	done := s.done
	s.mu.Unlock()
	s.signal(sig)
	<-done
}

// hold ends the process by a signal and keeps it from being started again, until release.
func (s *service) hold(sig syscall.Signal) {
	s.mu.Lock()
	s.held = true
	s.mu.Unlock()
	s.end(sig)
}

func (s *service) release() error {
	s.mu.Lock()
	s.held = false
	s.mu.Unlock()
	return s.start()
}

// starts is how often the process was started.
func (s *service) starts() int { s.mu.Lock(); defer s.mu.Unlock(); return s.count }

// tail is the end of what it printed.
func (s *service) tail() string {
	text, _ := os.ReadFile(s.log)
	return strings.TrimSpace(string(text[max(0, len(text)-1000):]))
}

// close ends everything, the youngest first: at once, because what is committed is committed.
func (n *nursery) close() {
	n.mu.Lock()
	all := slices.Clone(n.services)
	n.mu.Unlock()
	for _, s := range slices.Backward(all) {
		s.mu.Lock()
		s.ended = true
		started := s.cmd != nil
		s.mu.Unlock()
		if !started {
			continue
		}
		s.signal(syscall.SIGCONT)
		sig := syscall.SIGKILL
		if strings.HasPrefix(s.name, "postgres") { // whose children would have to find out
			sig = syscall.SIGQUIT
		}
		s.end(sig)
	}
	n.watching.Wait()
}

// well returns the first reason why something does not serve.
func (n *nursery) well(ctx context.Context) error {
	n.mu.Lock()
	all := slices.Clone(n.services)
	n.mu.Unlock()
	for _, s := range all {
		if s.well == nil {
			continue
		}
		if err := s.well(ctx); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

// final is an error after which waiting is in vain.
type final struct{ error }

const patience = 60 * time.Second

// until calls f until it returns no error.
func until(ctx context.Context, what string, f func() error) error {
	for end := time.Now().Add(patience); ; {
		err := f()
		var last final
		if err == nil || errors.As(err, &last) {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("waited in vain until %s: %w", what, err)
		}
		if stopped := sleep(ctx, 50*time.Millisecond); stopped != nil {
			return stopped
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// freePort draws a port below those that the kernel hands out; a Redis Cluster also listens 10000 higher.
func freePort(ctx context.Context) (int, error) {
	for range 100 {
		port := 12000 + rand.IntN(10000) //nolint:gosec // no secret
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", at(port))
		if err != nil {
			continue
		}
		_ = l.Close()
		return port, nil
	}
	return 0, errors.New("no free port")
}

func at(port int) string { return "127.0.0.1:" + strconv.Itoa(port) }

// ready asks a program of ours whether it serves.
func ready(admin int) func(context.Context) error {
	return func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		_, err := fetch(ctx, "http://"+at(admin)+"/readyz")
		return err
	}
}

// fetch gets a page that has to be there.
func fetch(ctx context.Context, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, strings.TrimSpace(string(text)))
	}
	return string(text), err
}

// command runs a program that ends by itself, in a folder, and returns what it printed.
func command(ctx context.Context, dir, env, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, args...) //nolint:gosec // ours
	cmd.Dir = dir
	if env != "" {
		cmd.Env = append(os.Environ(), env)
	}
	var wrong strings.Builder
	cmd.Stderr = &wrong
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s %s: %w: %s", filepath.Base(program), strings.Join(args, " "), err, strings.TrimSpace(wrong.String()))
	}
	return strings.TrimSpace(string(out)), err
}
