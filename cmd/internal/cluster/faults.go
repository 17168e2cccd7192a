package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"syscall"
	"time"
)

// A fault is something that is broken for a while. What begins it returns what ends it, nil for nothing.
type fault struct {
	name     string
	what     string // %s is the target
	often    int    // how often it is drawn, compared with the others of its track
	from, to time.Duration
	targets  func(*soak) []*service // of which one is drawn; nil for a fault that has none
	begin    func(context.Context, *soak, *service, time.Duration) (end func(context.Context) error, err error)
}

// Two tracks of faults: of each there is at most one at any time, so that every pair of both comes about.
var tracks = [2][]fault{
	{ // behind the authority
		{"primary", "PostgreSQL's primary killed, the standby promoted, a new standby made", 2, 0, 0, nil, failOver},
		{"standby", "%s, the standby, away for %.1f s: nothing commits", 1, 500 * ms, 2500 * ms, func(s *soak) []*service { return list(s.c.postgres[1].service) }, kept(syscall.SIGQUIT)},
		{"ca-killed", "%s killed", 3, 0, 0, authorities, kill},
		{"ca-stopped", "%s stopped for %.1f s", 2, 500 * ms, 4 * time.Second, authorities, halt},
		{"ca-away", "%s away for %.1f s", 1, time.Second, 4 * time.Second, authorities, kept(syscall.SIGKILL)},
		{"signer-killed", "%s killed", 2, 0, 0, func(s *soak) []*service { return list(s.c.signer) }, kill},
		{"signer-stopped", "%s stopped for %.1f s", 1, 500 * ms, 3 * time.Second, func(s *soak) []*service { return list(s.c.signer) }, halt},
	},
	{ // before it
		{"redis-killed", "%s away for %.1f s, back empty", 2, 100 * ms, 4 * time.Second, redises, kept(syscall.SIGKILL)},
		{"redis-stopped", "%s stopped for %.1f s", 2, 500 * ms, 4 * time.Second, redises, halt},
		{"redis-flushed", "every Redis emptied", 1, 0, 0, nil, flush},
		{"relay-killed", "%s killed", 2, 0, 0, relays, kill},
		{"relay-stopped", "%s stopped for %.1f s", 1, time.Second, 5 * time.Second, relays, halt},
		{"status-killed", "%s killed", 2, 0, 0, statuses, kill},
		{"status-stopped", "%s stopped for %.1f s", 3, 500 * ms, 4 * time.Second, statuses, halt},
		{"verifier-killed", "%s killed", 1, 0, 0, func(s *soak) []*service { return list(s.c.verifier.service) }, kill},
		{"verifier-stopped", "%s stopped for %.1f s", 1, 500 * ms, 3 * time.Second, func(s *soak) []*service { return list(s.c.verifier.service) }, halt},
		{"clock-ahead", "the clock of %s ten minutes ahead for %.1f s", 1, time.Second, 4 * time.Second, faulty, skew(10 * time.Minute)},
		{"clock-behind", "the clock of %s ten minutes behind for %.1f s", 1, time.Second, 4 * time.Second, faulty, skew(-10 * time.Minute)},
	},
}

const ms = time.Millisecond

func list(s ...*service) []*service { return s }

func authorities(s *soak) []*service {
	return list(s.c.authorities[0].service, s.c.authorities[1].service)
}

func relays(s *soak) []*service { return list(s.c.relays[0].service, s.c.relays[1].service) }

func redises(s *soak) (out []*service) {
	for _, r := range s.c.redis {
		out = append(out, r.service)
	}
	return out
}

func statuses(s *soak) (out []*service) {
	for _, r := range s.c.responders {
		out = append(out, r.service)
	}
	return out
}

// faulty are the status servers of the program that can have faults in it.
func faulty(s *soak) (out []*service) {
	for _, r := range s.c.responders {
		if r.faults != "" {
			out = append(out, r.service)
		}
	}
	return out
}

// kill ends a process that is started again at once.
func kill(_ context.Context, _ *soak, p *service, _ time.Duration) (func(context.Context) error, error) {
	p.end(syscall.SIGKILL)
	return nil, nil
}

// kept ends a process and keeps it away for a while.
func kept(by syscall.Signal) func(context.Context, *soak, *service, time.Duration) (func(context.Context) error, error) {
	return func(_ context.Context, _ *soak, p *service, _ time.Duration) (func(context.Context) error, error) {
		p.hold(by)
		return func(context.Context) error { return p.release() }, nil
	}
}

// halt stops a process, which does not know when it goes on.
func halt(_ context.Context, _ *soak, p *service, _ time.Duration) (func(context.Context) error, error) {
	p.signal(syscall.SIGSTOP)
	return func(context.Context) error { p.signal(syscall.SIGCONT); return nil }, nil
}

func failOver(ctx context.Context, s *soak, _ *service, _ time.Duration) (func(context.Context) error, error) {
	return nil, s.c.failOver(ctx)
}

func flush(ctx context.Context, s *soak, _ *service, _ time.Duration) (func(context.Context) error, error) {
	for _, r := range s.c.redis {
		_, _ = r.do(ctx, "FLUSHALL") // a replica refuses
	}
	return nil, nil
}

// skew has a status server's clock jump, and back.
func skew(by time.Duration) func(context.Context, *soak, *service, time.Duration) (func(context.Context) error, error) {
	return func(_ context.Context, s *soak, p *service, _ time.Duration) (func(context.Context) error, error) {
		for _, r := range s.asked {
			if r.service != p {
				continue
			}
			say := func(text string) error {
				if err := os.WriteFile(r.faults+".new", []byte(text), 0o600); err != nil {
					return err
				}
				return os.Rename(r.faults+".new", r.faults)
			}
			r.offset.Store(int64(by))
			return func(ctx context.Context) error {
				err := say("")
				_ = sleep(ctx, time.Second) // answers by the wrong clock are under way
				r.offset.Store(0)
				return err
			}, say("clock " + by.String() + "\n")
		}
		return nil, nil
	}
}

// A draw is a fault with all that chance decides about it.
type draw struct {
	fault
	target *service
	pause  time.Duration // before it
	hold   time.Duration
}

func (d draw) String() string {
	switch {
	case d.target == nil:
		return d.what
	case d.to == 0:
		return fmt.Sprintf(d.what, d.target.name)
	}
	return fmt.Sprintf(d.what, d.target.name, d.hold.Seconds())
}

// drawFault draws the next fault of a track. The same numbers draw the same faults: nothing else decides.
func (s *soak) drawFault(track []fault, rng *rand.Rand) (d draw) {
	sum := 0
	for _, f := range track {
		sum += f.often
	}
	n := rng.IntN(sum)
	for _, f := range track {
		if n -= f.often; n < 0 {
			d.fault = f
			break
		}
	}
	d.pause = time.Duration(rng.Int64N(int64(1500 * ms)))
	d.hold = d.from + time.Duration(rng.Int64N(int64(d.to-d.from+1)))
	if pick := rng.IntN(1 << 20); d.targets != nil {
		if all := d.targets(s); len(all) > 0 {
			d.target = all[pick%len(all)]
		}
	}
	return d
}
