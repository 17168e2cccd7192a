// Command faultsocsp breaks things around real OCSP responders and checks that none of them ever lies.
//
// It starts PostgreSQL with a synchronous standby, Redis, an authority that issues, suspends and revokes, its relay, and
// three jpki-status, brings about one fault after the other and meanwhile asks all of them over HTTP. It knows when each
// change was committed; package ocsp's promise is that an answer produced later than a second after that knows it, too.
// Clocks and keys cannot be broken from outside: for those it starts a build of jpki-status that has such faults in it.
// Exit code 0 means that every promise held. Whatever it starts ends with it. make faults-ocsp runs it. Start at run.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	os.Exit(command(ctx, os.Args[1:]))
}

// command returns the exit code: 0 every promise held, 1 one did not or nothing could be said, 2 wrong command line.
func command(ctx context.Context, args []string) int {
	flags := flag.NewFlagSet("faultsocsp", flag.ContinueOnError)
	if len(args) > 0 && args[0] == "authority" { // what a run starts for itself
		var o authorOptions
		flags.StringVar(&o.database, "db", "", "")
		flags.StringVar(&o.dir, "dir", "", "")
		flags.StringVar(&o.name, "name", "", "")
		flags.StringVar(&o.redis, "redis", "", "")
		flags.BoolVar(&o.cluster, "cluster", false, "")
		flags.BoolVar(&o.relay, "relay", false, "")
		flags.Float64Var(&o.rate, "rate", 10, "")
		if flags.Parse(args[1:]) != nil {
			return 2
		}
		if err := serveAuthority(ctx, o, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "authority:", err)
			return 1
		}
		return 0
	}
	r := run{}
	only := flags.String("only", "", "play these scenarios only, in the order of the table: "+strings.Join(names(), ","))
	flags.Float64Var(&r.seconds, "seconds", 10, "how long a scenario lasts besides its fault")
	flags.Float64Var(&r.rate, "rate", 12, "changes a second")
	flags.Uint64Var(&r.seed, "seed", rand.Uint64(), "what is asked when; the faults come at the same times anyway") //nolint:gosec // no secret
	flags.StringVar(&r.status, "status", "bin/jpki-status", "the responder's program")
	flags.StringVar(&r.faulty, "faulty", "bin/jpki-status-faults", "the same, built with the tag faults: for clocks and keys")
	flags.StringVar(&r.keep, "keep", "", "leave logs and configurations in this new directory")
	if flags.Parse(args) != nil {
		return 2
	}
	for _, name := range strings.FieldsFunc(*only, func(c rune) bool { return c == ',' }) {
		if !slices.Contains(names(), name) {
			fmt.Fprintf(os.Stderr, "faultsocsp: there is no scenario %q\n", name)
			return 2
		}
		r.only = append(r.only, name)
	}
	rows, err := r.play(ctx)
	report(os.Stdout, rows, r.seed, loadAverages())
	if err != nil {
		fmt.Fprintln(os.Stderr, "faultsocsp:", err)
	}
	if err != nil || slices.ContainsFunc(rows, func(r row) bool { return len(r.broken()) > 0 }) {
		return 1
	}
	return 0
}

// loadAverages says how many processes wanted to run lately, ours among them.
func loadAverages() string {
	text, err := os.ReadFile("/proc/loadavg")
	fields := strings.Fields(string(text))
	if err != nil || len(fields) < 3 {
		return "unknown"
	}
	return strings.Join(fields[:3], ", ")
}

func names() (out []string) {
	for _, s := range scenarios {
		out = append(out, s.name)
	}
	return out
}

// A run is what the flags say.
type run struct {
	only          []string
	seconds, rate float64
	seed          uint64
	status        string
	faulty        string
	keep          string
}

// recovery is how soon after a fault's end everything is as if it had not been.
const recovery = 5 * time.Second

// play plays the scenarios, and returns what was measured even if a later one could not be played.
func (o *run) play(ctx context.Context) (rows []row, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	status, err := filepath.Abs(o.status)
	if err != nil {
		return nil, err
	}
	faulty, err := filepath.Abs(o.faulty)
	if err != nil {
		return nil, err
	}
	dir := o.keep
	if dir == "" {
		if dir, err = os.MkdirTemp("", "faultsocsp-"); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	} else if err := os.Mkdir(dir, 0o755); err != nil { //nolint:gosec // PostgreSQL's user looks into it
		return nil, err
	}
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // likewise
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	s := &stage{nursery: nursery{dir: dir}, self: self, status: status, faulty: faulty, rate: o.rate, ctx: ctx}
	defer func() {
		cancel()
		s.killAll()
		if s.network != nil {
			s.network.close()
		}
		s.working.Wait()
	}()
	if err := s.build(o.seed); err != nil {
		return nil, err
	}
	for _, sc := range scenarios {
		if len(o.only) > 0 && !slices.Contains(o.only, sc.name) {
			continue
		}
		fmt.Fprintf(os.Stderr, "%s: %s\n", sc.name, sc.fault)
		r, err := s.play(sc, time.Duration(o.seconds*float64(time.Second)))
		if err != nil {
			return rows, fmt.Errorf("%s: %w", sc.name, err)
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// play plays one. Steps:
//  1. questions, and changes to be seen
//  2. a while later the fault, and its end
//  3. a while for everything to be well again; then no new change is watched, and those that are must be seen
//  4. the stage is put in order
func (s *stage) play(sc scenario, length time.Duration) (out row, err error) {
	p := &play{at: s.responders}
	defer func() {
		for _, end := range slices.Backward(p.ends) {
			if failed := end(); err == nil {
				err = failed
			}
		}
		out.note = p.note
	}()
	do := func(f func(*stage, *play) error) error {
		if f == nil {
			return nil
		}
		return f(s, p)
	}
	if err := do(sc.prepare); err != nil {
		return out, err
	}
	// 1.
	ctx, cancel := context.WithCancel(s.ctx)
	t := &tally{}
	k := s.checker
	k.mu.Lock()
	k.at, k.now, k.ctx = p.at, t, ctx
	k.mu.Unlock()
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	for n, r := range p.at {
		for range 2 {
			asking.Go(func() { k.roam(ctx, t, n, r) })
		}
	}
	// 2.
	if err := sleep(ctx, length*3/10); err != nil {
		return out, err
	}
	t.set(k, &t.fault)
	if err := do(sc.begin); err != nil {
		return out, err
	}
	if err := sleep(ctx, sc.hold); err != nil {
		return out, err
	}
	if err := do(sc.heal); err != nil {
		return out, err
	}
	t.set(k, &t.healed)
	// 3.
	if err := sleep(ctx, length*7/10); err != nil {
		return out, err
	}
	k.mu.Lock()
	k.ctx = nil
	k.mu.Unlock()
	for end := time.Now().Add(recovery); time.Now().Before(end); {
		k.mu.Lock()
		waiting := t.waiting
		k.mu.Unlock()
		if waiting == 0 {
			break
		}
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return out, err
		}
	}
	cancel()
	asking.Wait()
	for { // what was watched in vain is counted
		k.mu.Lock()
		waiting := t.waiting
		k.mu.Unlock()
		if waiting == 0 {
			break
		}
		_ = sleep(s.ctx, time.Millisecond)
		if s.ctx.Err() != nil {
			return out, s.ctx.Err()
		}
	}
	return row{sc: sc, tally: t}, nil
}

func (t *tally) set(k *checker, at *int64) { k.mu.Lock(); defer k.mu.Unlock(); *at = now() }
