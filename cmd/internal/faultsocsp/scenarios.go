package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// A scenario is a fault, how it is brought about and how it ends.
type scenario struct {
	name, fault string

	prepare func(*stage, *play) error // before anything is measured
	begin   func(*stage, *play) error
	hold    time.Duration
	heal    func(*stage, *play) error

	// excuse says why no answer was possible where one was refused. Nil: one was possible at all times.
	excuse func(t *tally, r refusal) bool
	remark string // to be read below the table
}

// A play is what a scenario being played has besides the stage.
type play struct {
	at   []*responder // who is asked; the stage's, unless prepare says otherwise
	note string       // for the table
	stop func()       // ends the fault, where it is something that we do
	ends []func() error
}

func (p *play) atEnd(f func() error) { p.ends = append(p.ends, f) }

// scenarios are the faults, in an order in which each finds a stage that is whole.
var scenarios = []scenario{
	{name: "healthy", fault: "none"},
	{
		name: "redis-killed", fault: "Redis killed, restarted empty", hold: 2 * time.Second,
		begin: func(s *stage, _ *play) error { s.redis.p.kill(); return nil },
		heal:  func(s *stage, _ *play) error { return s.redis.start(s.ctx) },
	},
	{
		name: "redis-hung", fault: "Redis stopped for 3 s", hold: 3 * time.Second,
		begin: func(s *stage, _ *play) error { return s.redis.p.signal(syscall.SIGSTOP) },
		heal:  func(s *stage, _ *play) error { return s.redis.p.signal(syscall.SIGCONT) },
	},
	{
		name: "redis-flushed", fault: "Redis emptied",
		begin: func(s *stage, _ *play) error { _, err := s.redis.do(s.ctx, "FLUSHALL"); return err },
	},
	{
		name: "redis-older", fault: "Redis replaced by an older copy",
		prepare: func(s *stage, _ *play) error { _, err := s.redis.do(s.ctx, "SAVE"); return err },
		begin:   func(s *stage, _ *play) error { s.redis.p.kill(); return nil },
		hold:    200 * time.Millisecond,
		heal:    func(s *stage, _ *play) error { return s.redis.start(s.ctx) },
	},
	{
		name: "redis-cluster", fault: "a primary of a Redis Cluster killed", hold: 3 * time.Second,
		prepare: (*stage).useCluster,
		begin:   (*stage).killRelaysPrimary,
		remark:  "the primary is the one that has the relay's keys; it stays dead, and its replica takes its place during the fault",
	},
	{
		name: "network-cut", fault: "responder 2 cut off from Redis", hold: 3 * time.Second,
		begin: func(s *stage, _ *play) error { s.network.cut(); return nil },
		heal:  func(s *stage, _ *play) error { s.network.mend(); return nil },
	},
	{
		name: "relay-killed", fault: "relay killed, restarted", hold: 2 * time.Second,
		prepare: func(s *stage, p *play) error { // an authority of no relay goes on with the work
			other, err := s.startAuthority(nil, false, false)
			p.atEnd(func() error { other.kill(); return nil })
			return err
		},
		begin: func(s *stage, _ *play) error { s.authority.kill(); return nil },
		heal:  (*stage).restartAuthority,
	},
	{
		name: "responder-stopped", fault: "responder 1 stopped for 3 s", hold: 3 * time.Second,
		begin: func(s *stage, _ *play) error {
			s.responders[0].sleep(now(), 0)
			return s.responders[0].process.signal(syscall.SIGSTOP)
		},
		heal: func(s *stage, _ *play) error {
			s.responders[0].sleep(0, now())
			return s.responders[0].process.signal(syscall.SIGCONT)
		},
		// What it had begun to answer when it was stopped is too old to be sent.
		excuse: func(t *tally, r refusal) bool {
			return r.responder == 0 && r.at > t.fault && r.at < t.healed+int64(200*time.Millisecond)
		},
		remark: "changes made while it was stopped count from when it goes on; what it was answering when it was stopped it may refuse",
	},
	{name: "slow-clients", fault: "10,000 slow connections to responder 3", hold: 14 * time.Second, begin: (*stage).crawl, heal: stop},
	{
		name: "flood", fault: "random serials from 64 connections", hold: 4 * time.Second, begin: (*stage).flood, heal: stop,
		// Nothing is excused. But the two who ask each responder share what they wait for: where the machine is so busy with
		// other things that a read takes longer than the bound, both are refused, perhaps when the flood is over already.
		remark: "a number that was never issued waits for a read of the log that began after the question; a read that takes longer than the bound refuses all who share it",
	},
	{
		name: "lagging-copy", fault: "responder 4 knows a paused standby only", hold: 3 * time.Second,
		prepare: func(s *stage, p *play) error {
			r, err := s.startResponder("responder-4", databaseURL("jpki", s.standby), nil, false)
			if err != nil {
				return err
			}
			r.unseen = true
			p.at = append(slices.Clone(s.responders), r)
			p.atEnd(func() error { r.process.kill(); return nil })
			return nil
		},
		begin:  func(s *stage, _ *play) error { return s.sql(s.standby, "SELECT pg_wal_replay_pause()") },
		heal:   func(s *stage, _ *play) error { return s.sql(s.standby, "SELECT pg_wal_replay_resume()") },
		excuse: func(_ *tally, r refusal) bool { return r.responder == 3 },
		remark: "responder 4 can know nothing for sure: it may refuse and must not lie",
	},
	{
		name: "failover", fault: "database primary killed, standby promoted", hold: 2 * time.Second,
		begin: func(s *stage, _ *play) error { return s.primary.stop() },
		heal: func(s *stage, _ *play) error {
			return s.standby.prepare(s.ctx, "pg_ctl", "-D", s.standby.dir+"/data", "-w", "-t", "60", "promote")
		},
		// The view that it has is good for a second, but not to say that a number is not in the log.
		excuse: func(t *tally, r refusal) bool {
			const lasts = int64(bound / 2)
			return r.at > t.fault && r.at < t.healed+int64(recovery) && (r.at > t.fault+lasts || r.issued == 0 || r.issued > t.fault-lasts)
		},
		remark: "without a primary no answer is possible once a view is older than the bound, nor at any time that a number was never issued",
	},
	{
		name: "clocks", fault: "clocks of responders 1 and 2 jump by 10 min, ahead and back", hold: 4 * time.Second,
		prepare: func(s *stage, p *play) error { return s.useFaulty(p, 2) },
		begin: func(_ *stage, p *play) error {
			return errors.Join(p.at[0].wrongBy(10*time.Minute), p.at[1].wrongBy(-10*time.Minute))
		},
		heal: func(_ *stage, p *play) error { return errors.Join(p.at[0].wrongBy(0), p.at[1].wrongBy(0)) },
		// A view that seems ten minutes old, or of the future, has to be read again.
		excuse: func(t *tally, r refusal) bool {
			const again = int64(bound / 2)
			return r.responder < 2 && (r.at > t.fault && r.at < t.fault+again || r.at > t.healed-again && r.at < t.healed+again)
		},
		remark: "answers are verified by the responder's clock: no view gets older than the bound by it; what they were answering when their clock jumped they may refuse",
	},
	{
		name: "key-fails", fault: "responder 1's key fails", hold: 3 * time.Second,
		prepare: func(s *stage, p *play) error { return s.useFaulty(p, 1) },
		begin:   func(_ *stage, p *play) error { return p.at[0].have("key fails") },
		heal:    func(_ *stage, p *play) error { return p.at[0].have("") },
		excuse:  withoutKey,
		remark:  "without its key it may answer what it has kept, refuses the rest, and must not lie",
	},
	{
		name: "key-hangs", fault: "responder 1's key hangs", hold: 3 * time.Second,
		prepare: func(s *stage, p *play) error { return s.useFaulty(p, 1) },
		begin:   func(_ *stage, p *play) error { return p.at[0].have("key hangs") },
		heal:    func(_ *stage, p *play) error { return p.at[0].have("") },
		excuse:  withoutKey,
		remark:  "likewise",
	},
	{
		name: "key-lost", fault: "responder 1's key file lost", hold: 12 * time.Second, // it looks at its files every ten seconds
		prepare: (*stage).useOwnKeys,
		begin:   (*stage).loseKeys,
		heal:    (*stage).mustNotStart,
		remark:  "the key that it has it keeps; another start with that configuration is refused",
	},
}

// withoutKey excuses the first responder while its key is away, and for what waited for it then.
func withoutKey(t *tally, r refusal) bool {
	return r.responder == 0 && r.at > t.fault && r.at < t.healed+int64(bound+200*time.Millisecond)
}

func stop(_ *stage, p *play) error { p.stop(); return nil }

func (r *responder) sleep(from, to int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if from != 0 {
		r.slept = [2]int64{from, 1 << 62}
		return
	}
	r.slept[1] = to
}

func (s *stage) restartAuthority(*play) (err error) {
	s.authority, err = s.startAuthority([]string{at(s.redis.port)}, false, true)
	return err
}

// useCluster puts other responders and another authority, on a Redis Cluster, in place of the usual ones.
func (s *stage) useCluster(p *play) error {
	servers, err := s.newRedisCluster(s.ctx)
	if err != nil {
		return err
	}
	s.authority.kill()
	var addresses []string
	for _, r := range servers {
		addresses = append(addresses, at(r.port))
	}
	authority, err := s.startAuthority(addresses, true, true)
	if err != nil {
		return err
	}
	p.at = nil
	for i := range 3 {
		r, err := s.startResponder(fmt.Sprint("responder-c", i+1), s.database(), addresses, true)
		if err != nil {
			return err
		}
		p.at = append(p.at, r)
	}
	s.cluster = servers
	p.atEnd(func() error {
		for _, r := range p.at {
			r.process.kill()
		}
		authority.kill()
		for _, r := range servers {
			r.p.kill()
		}
		return s.restartAuthority(nil)
	})
	return nil
}

func (s *stage) killRelaysPrimary(*play) error {
	for _, r := range s.cluster[:3] {
		keys, err := r.do(s.ctx, "KEYS", "*:lease")
		if err != nil {
			return err
		}
		if strings.TrimSpace(keys) != "" {
			r.p.kill()
			return nil
		}
	}
	return errors.New("no primary has the relay's lease")
}

// slowConnections is how many crawl makes, from so many addresses that none has more than a responder lets one have.
const slowConnections, slowAddresses = 10_000, 20

var errClosed = errors.New("the responder has had enough")

// crawl sends a request over each of many connections, an octet a second. What is closed is opened again.
func (s *stage) crawl(p *play) error {
	ctx, cancel := context.WithCancel(s.ctx)
	to := strings.TrimSuffix(strings.TrimPrefix(s.responders[2].url, "http://"), "/ocsp")
	var open, most, again atomic.Int64
	var all sync.WaitGroup
	p.stop = sync.OnceFunc(func() { cancel(); all.Wait() })
	p.atEnd(func() error {
		p.stop()
		if most.Load() < slowConnections*9/10 {
			return fmt.Errorf("only %d slow connections could be made", most.Load())
		}
		p.note = fmt.Sprintf("%d open at once, %d opened again", most.Load(), again.Load())
		return nil
	})
	one := func(from net.Addr) error {
		c, err := (&net.Dialer{LocalAddr: from, Timeout: 5 * time.Second}).DialContext(ctx, "tcp", to)
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		defer context.AfterFunc(ctx, func() { _ = c.Close() })()
		defer open.Add(-1)
		if n := open.Add(1); n > most.Load() {
			most.Store(n)
		}
		for _, octet := range []byte("POST /ocsp HTTP/1.1\r\nHost: slow.example\r\nContent-Length: 100\r\n") {
			if _, err := c.Write([]byte{octet}); err != nil {
				return err
			}
			_ = c.SetReadDeadline(time.Now().Add(time.Second))
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
				return errClosed
			}
		}
		return nil
	}
	for i := range slowConnections {
		from := &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+i%slowAddresses))}
		all.Go(func() {
			for sleep(ctx, time.Duration(i)*400*time.Microsecond) == nil {
				if one(from) != nil && sleep(ctx, 100*time.Millisecond) == nil {
					again.Add(1)
				}
			}
		})
	}
	return nil
}

// flood asks the first responder for serials that were never issued, over many connections, as fast as it answers.
func (s *stage) flood(p *play) error {
	const connections, different = 64, 2000
	var asked [][]byte
	for range different {
		one, err := s.checker.never()
		if err != nil {
			return err
		}
		asked = append(asked, one.posts)
	}
	ctx, cancel := context.WithCancel(s.ctx)
	to := strings.TrimSuffix(strings.TrimPrefix(s.responders[0].url, "http://"), "/ocsp")
	var all sync.WaitGroup
	var answers atomic.Int64
	began := time.Now()
	p.stop = sync.OnceFunc(func() {
		p.note = fmt.Sprintf("%.0f answers a second", float64(answers.Load())/time.Since(began).Seconds())
		cancel()
		all.Wait()
	})
	p.atEnd(func() error { p.stop(); return nil })
	for c := range connections {
		all.Go(func() {
			for i := c; ctx.Err() == nil; {
				_ = pour(ctx, to, func() []byte { i++; return asked[i%different] }, &answers)
				_ = sleep(ctx, 50*time.Millisecond)
			}
		})
	}
	return nil
}

// pour asks over one connection until it ends.
func pour(ctx context.Context, to string, next func() []byte, answers *atomic.Int64) error {
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", to)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	b := make([]byte, 16<<10)
	for {
		q := next()
		if _, err := fmt.Fprintf(c, "POST /ocsp HTTP/1.1\r\nHost: flood.example\r\nContent-Type: application/ocsp-request\r\nContent-Length: %d\r\n\r\n%s", len(q), q); err != nil {
			return err
		}
		n, err := c.Read(b) // an answer is written at once and fits
		if err != nil {
			return err
		}
		if bytes.HasPrefix(b[:n], []byte("HTTP/1.1 200")) {
			answers.Add(1)
		}
	}
}
