package relay_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/relay"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/ca/store/storetest"
	"github.com/openjpki/jpki/ocsp/cache/redistest"
	"github.com/openjpki/jpki/ocsp/status"
)

// From a commit in the authority's real database to the status index of a responder.
func TestFromCommitToIndex(t *testing.T) {
	storetest.OnBoth(t, func(t *testing.T, db *store.Store) {
		server := redistest.Start(t)
		relays(t, relay.Config{Server: at(server), Log: db, Wake: db.Changes()})
		f := follows(t, at(server))
		logs, err := relay.NewLogs(relay.LogsConfig{Tiers: []relay.Tier{{Name: "redis", Log: f, Within: 200 * time.Millisecond}, {Name: "database", Log: db}}, Now: time.Now})
		if err != nil {
			t.Fatal(err)
		}
		x, err := status.New(status.Config{Log: logs, Now: time.Now, Bound: 10 * time.Second, Wake: f.Wake()})
		if err != nil {
			t.Fatal(err)
		}
		runs(t, x.Run)
		redistest.Until(t, "Redis answers", func() bool { return logs.Outcomes()["redis"] > 0 })

		var took []time.Duration
		for i := range int64(100) {
			c := entry(i + 1)
			c.Status = jpki.Status{State: jpki.Suspended, Reason: jpki.CertificateHold, Since: since}
			begin := time.Now()
			if err := db.Update(t.Context(), func(tx *store.Tx) error { return tx.AddStatus(c) }); err != nil {
				t.Fatal(err)
			}
			committed := time.Now()
			for x.Seq() < i+1 {
				if time.Since(begin) > time.Minute {
					t.Fatalf("entry %d is not seen: %v, %v", i+1, x.Err(), f.Err())
				}
				time.Sleep(50 * time.Microsecond)
			}
			took = append(took, time.Since(committed))
			if st, _, err := x.Status(t.Context(), c.ID); err != nil || st.State != jpki.Suspended || !st.Since.Equal(since) || st.Version != 1 {
				t.Fatal(st, err)
			}
		}
		slices.Sort(took)
		t.Logf("from commit to index: median %v, 99th %v; %v, %v", took[50], took[98], logs.Outcomes(), f.Outcomes())
		if out := server.Do("--raw", "XRANGE", "jpki", "-", "+"); out != "" {
			t.Error("a key without tag")
		}
	})
}

func TestFollower(t *testing.T) {
	server := redistest.Start(t)
	log := newBook(0)
	f := follows(t, at(server))
	if err := view(t, f, log, 0, 10); err == nil {
		t.Error("a view without a relay")
	}
	r, _ := relays(t, relay.Config{Server: at(server), Log: log, Wake: log.wake})
	sees(t, f, log, 0)
	log.commit(2345)
	for _, limit := range []int{1, 7, 1000, 2344, 2345, 2346, 1 << 20} {
		if err := view(t, f, log, max(0, 2345-int64(limit)*10), limit); err != nil {
			t.Errorf("limit %d: %v", limit, err)
		}
	}
	for _, bad := range [][2]int64{{-1, 1}, {0, 0}, {0, -1}} {
		if _, err := f.StatusChanges(t.Context(), bad[0], int(bad[1])); err == nil {
			t.Errorf("%v is accepted", bad)
		}
	}
	if got, err := f.StatusChanges(t.Context(), 5000, 10); err != nil || len(got) != 0 {
		t.Errorf("behind the end: %v, %v", got, err)
	}
	// Each commit wakes.
	for len(f.Wake()) > 0 {
		<-f.Wake()
	}
	log.commit(1)
	<-f.Wake()
	if !r.Working() || r.Err() != nil || f.Err() != nil {
		t.Errorf("working %v, %v, %v", r.Working(), r.Err(), f.Err())
	}
	// A caller who gives up is let go, and its question forgotten.
	hold := make(chan struct{})
	log.set(func(b *book) { b.hold = hold })
	ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
	defer cancel()
	if _, err := f.StatusChanges(ctx, 0, 1); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a log that hangs: %v", err)
	}
	close(hold)
	log.set(func(b *book) { b.hold = nil })
	sees(t, f, log, 0)
}

// A question that comes while the log is being read is answered by the next read, and not by this one.
func TestAnswerIsYoungerThanItsQuestion(t *testing.T) {
	server := redistest.Start(t)
	log := newBook(10)
	relays(t, relay.Config{Server: at(server), Log: log, Interval: time.Hour, Lease: time.Minute})
	f := follows(t, at(server))
	sees(t, f, log, 0)
	for range 10 {
		hold := make(chan struct{})
		log.set(func(b *book) { b.hold, b.held = hold, make(chan struct{}, 100) })
		ctx, cancel := context.WithCancel(t.Context())
		first := make(chan struct{})
		go func() { defer close(first); _, _ = f.StatusChanges(ctx, 0, 100) }()
		<-log.held // the log has been read, and the relay does not know it yet
		log.commit(1)
		log.set(func(b *book) { b.hold = nil })
		time.AfterFunc(150*time.Millisecond, func() { close(hold) }) // the second question is with the relay by then
		if err := view(t, f, log, 0, 100); err != nil {
			t.Error(err)
		}
		cancel()
		<-first
	}
}

// Many ask, and the log is read a few times.
func TestManyFollowers(t *testing.T) {
	server := redistest.Start(t)
	log := &counted{book: newBook(10)}
	r, _ := relays(t, relay.Config{Server: at(server), Log: log, Pace: 20 * time.Millisecond})
	var fs []*relay.Follower
	for range 5 {
		fs = append(fs, follows(t, at(server)))
	}
	for _, f := range fs {
		sees(t, f, log.book, 0)
	}
	reads, answers := log.reads.Load(), r.Outcomes()["answer"]
	begin := time.Now()
	var all sync.WaitGroup
	for i := range 500 {
		all.Go(func() {
			if err := view(t, fs[i%5], log.book, 5, 100); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	passed := time.Since(begin)
	reads = log.reads.Load() - reads
	t.Logf("500 questions in %v took %d reads", passed, reads)
	if most := 3 + 2*int64(passed/(20*time.Millisecond)); reads > most {
		t.Errorf("500 questions took %d reads, more than %d", reads, most)
	}
	if got := r.Outcomes()["answer"] - answers; got < 500 {
		t.Errorf("%d answers", got)
	}
}

type counted struct {
	*book
	reads atomic.Int64
}

func (c *counted) StatusChanges(ctx context.Context, after int64, limit int) ([]jpki.StatusChange, error) {
	c.reads.Add(1)
	return c.book.StatusChanges(ctx, after, limit)
}

func TestGaps(t *testing.T) {
	server := redistest.Start(t)
	log := newBook(12345)
	r, _ := relays(t, relay.Config{Server: at(server), Log: log, Keep: 1000})
	f := follows(t, at(server))
	sees(t, f, log, 12000)
	if err := view(t, f, log, 11344, 100); err == nil {
		t.Error("the copy reaches back further than agreed") // 1000 were asked for, and a new copy holds no more
	}
	for range 3 {
		if err := view(t, f, log, 0, 100); err == nil {
			t.Error("read what is not in the copy")
		}
	}
	if n := f.Outcomes()["gap"]; n != 4 {
		t.Errorf("outcomes %v", f.Outcomes())
	}
	// Trimmed from the front, a part is still a part.
	log.commit(5000)
	sees(t, f, log, 17300)
	if err := view(t, f, log, 12000, 100); err == nil {
		t.Error("read what was trimmed")
	}
	// With the database behind it, nothing is missing.
	logs, err := relay.NewLogs(relay.LogsConfig{Tiers: []relay.Tier{{Name: "redis", Log: f, Within: time.Second}, {Name: "database", Log: uncaused{log}}}, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	if err := view(t, logs, log, 0, 1000); err != nil {
		t.Error(err)
	}
	if n := logs.Outcomes(); n["redis"] == 0 || n["database"] == 0 || n["redis-failed"] > 0 {
		t.Errorf("outcomes %v", n)
	}
	if n := r.Outcomes(); n["rebuilt"] != 1 {
		t.Errorf("relay's outcomes %v", n)
	}
}

// uncaused reads a book as the database is read here, where causes are compared with nothing.
type uncaused struct{ *book }

func (u uncaused) StatusChanges(ctx context.Context, after int64, limit int) ([]jpki.StatusChange, error) {
	out, err := u.book.StatusChanges(ctx, after, limit)
	for i := range out {
		out[i].Status.Cause = jpki.NoCause
	}
	return out, err
}

// Whatever happens to Redis and the network, no view is short of an entry, and all is well again without a restart.
func TestFaults(t *testing.T) {
	type scene struct {
		t      *testing.T
		server *redistest.Server
		proxy  *redistest.Proxy // between Redis and relay
		log    *book
		old    []byte // a dump from before the last commits
	}
	tests := map[string]func(s *scene){
		"flushed":                 func(s *scene) { s.server.Do("FLUSHALL") },
		"restarted empty":         func(s *scene) { s.server.Restore(nil) },
		"restarted with old dump": func(s *scene) { s.server.Restore(s.old) },
		"restarted":               func(s *scene) { s.server.Restore(s.server.Save()) },
		"hung":                    func(s *scene) { s.server.Hang(); time.Sleep(time.Second); s.server.Resume() },
		"relay cut off":           func(s *scene) { s.proxy.Cut(); s.log.commit(3); time.Sleep(700 * time.Millisecond); s.proxy.Heal() },
		"relay in a black hole": func(s *scene) {
			s.proxy.Blackhole()
			s.log.commit(3)
			time.Sleep(700 * time.Millisecond)
			s.proxy.Heal()
		},
		"copy deleted": func(s *scene) {
			s.server.Do("DEL", "{jpki:log:1}:entries:"+s.server.Do("GET", "{jpki:log:1}:epoch"))
		},
		"epoch deleted": func(s *scene) { s.server.Do("DEL", "{jpki:log:1}:epoch") },
		"beats deleted": func(s *scene) { s.server.Do("DEL", "{jpki:log:1}:beats") },
		"beats from the future": func(s *scene) {
			s.server.Do("DEL", "{jpki:log:1}:beats")
			s.server.Do("XADD", "{jpki:log:1}:beats", "99999999999999-1", "b", "forged")
			time.Sleep(300 * time.Millisecond)
			s.server.Do("DEL", "{jpki:log:1}:beats")
		},
		"lease stolen": func(s *scene) { s.server.Do("SET", "{jpki:log:1}:lease", "thief", "PX", "500") },
		"entries in between": func(s *scene) { // from nobody, numbered as the next
			s.server.Do("XADD", "{jpki:log:1}:entries:"+s.server.Do("GET", "{jpki:log:1}:epoch"), fmt.Sprint(s.log.len()+1, "-0"), "e", "forged")
		},
		"an entry removed": func(s *scene) {
			s.server.Do("XDEL", "{jpki:log:1}:entries:"+s.server.Do("GET", "{jpki:log:1}:epoch"), fmt.Sprint(s.log.len(), "-0"))
		},
		"wrong type": func(s *scene) {
			s.server.Do("SET", "{jpki:log:1}:questions", "x")
			time.Sleep(200 * time.Millisecond)
			s.server.Do("DEL", "{jpki:log:1}:questions")
		},
		"database fails": func(s *scene) {
			s.log.set(func(b *book) { b.fail = errors.New("no database") })
			time.Sleep(200 * time.Millisecond)
			s.log.set(func(b *book) { b.fail = nil })
		},
	}
	for name, fault := range tests {
		t.Run(name, func(t *testing.T) {
			s := &scene{t: t, server: redistest.Start(t), log: newBook(50)}
			s.proxy = redistest.NewProxy(t, s.server.Addr())
			relays(t, relay.Config{Server: relay.Server{Addrs: []string{s.proxy.Addr()}}, Log: s.log, Wake: s.log.wake})
			f := follows(t, at(s.server))
			sees(t, f, s.log, 0)
			s.old = s.server.Save()
			s.log.commit(10)
			sees(t, f, s.log, 0)
			stop := make(chan struct{})
			var all sync.WaitGroup
			all.Go(func() { // somebody who looks all the time
				for {
					select {
					case <-stop:
						return
					default:
						_ = view(t, f, s.log, 0, 20)
					}
				}
			})
			fault(s)
			s.log.commit(1)
			sees(t, f, s.log, 0)
			s.log.commit(5)
			sees(t, f, s.log, 57)
			close(stop)
			all.Wait()
		})
	}
}

// Redis comes back with yesterday's data, beats and all, while no relay runs: nothing in it looks complete.
func TestOldDumpIsNoView(t *testing.T) {
	server := redistest.Start(t)
	log := newBook(50)
	_, stop := relays(t, relay.Config{Server: at(server), Log: log})
	f := follows(t, at(server))
	sees(t, f, log, 0)
	dump := server.Save()
	stop()
	log.commit(1)
	server.Restore(dump)
	if n := server.Do("XLEN", "{jpki:log:1}:beats"); n == "0" {
		t.Fatal("the dump has no beats")
	}
	for range 5 {
		if err := view(t, f, log, 0, 1000); err == nil {
			t.Fatal("a view without a relay")
		}
	}
	relays(t, relay.Config{Server: at(server), Log: log})
	sees(t, f, log, 0)
}

// The database was set back, and other things happened then: what had been copied is not mixed with what is true now.
func TestRewrittenLog(t *testing.T) {
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprint("restart ", restart), func(t *testing.T) {
			server := redistest.Start(t)
			log := newBook(100)
			r, stop := relays(t, relay.Config{Server: at(server), Log: log})
			f := follows(t, at(server))
			sees(t, f, log, 0)
			before := server.Save()
			if restart {
				stop()
			}
			other := newBook(130)
			for i := range other.entries[80:] {
				other.entries[80+i].Status.Since = since.Add(time.Hour)
			}
			log.set(func(b *book) { b.entries = other.entries[:90] })
			if restart {
				r, _ = relays(t, relay.Config{Server: at(server), Log: log})
			}
			sees(t, f, log, 0)
			log.set(func(b *book) { b.entries = other.entries })
			sees(t, f, log, 0)
			if n := r.Outcomes()["rebuilt"]; n == 0 {
				t.Errorf("outcomes %v", r.Outcomes())
			}
			server.Restore(before) // with the copy from before
			sees(t, f, log, 0)
			sees(t, f, log, 85)
		})
	}
}

// Several relays at once: one works, and the copy has every entry once, in order, though each is stopped now and then.
func TestRacingRelays(t *testing.T) {
	server := redistest.Start(t)
	log := newBook(10)
	var proxies []*redistest.Proxy
	for range 3 {
		p := redistest.NewProxy(t, server.Addr())
		proxies = append(proxies, p)
		relays(t, relay.Config{Server: relay.Server{Addrs: []string{p.Addr()}}, Log: log, Lease: 50 * time.Millisecond, Interval: 5 * time.Millisecond, Patience: 100 * time.Millisecond})
	}
	f := follows(t, at(server))
	for range 30 {
		p := proxies[mrand.IntN(3)]
		p.Blackhole() // what it has sent arrives later
		log.commit(5)
		sees(t, f, log, 0)
		p.Heal()
		log.commit(1)
		sees(t, f, log, 0)
	}
	epoch := server.Do("GET", "{jpki:log:1}:epoch")
	if out := ids(server, "{jpki:log:1}:entries:"+epoch); !strings.HasPrefix(out, fmt.Sprintf("%d %d-0", log.len(), log.len())) {
		t.Errorf("the copy of %d entries: %.40s", log.len(), out)
	}
}

func TestCluster(t *testing.T) {
	servers := redistest.StartCluster(t, 3)
	log := newBook(100)
	where := relay.Server{Addrs: []string{servers[0].Addr(), servers[1].Addr(), servers[2].Addr()}, Cluster: true}
	relays(t, relay.Config{Server: where, Log: log, Wake: log.wake})
	f := follows(t, where)
	sees(t, f, log, 0)
	for _, s := range servers[:3] {
		if out, err := s.Try("GET", "{jpki:log:1}:epoch"); err == nil && out != "" {
			s.Kill()
			break
		}
	}
	log.commit(10)
	sees(t, f, log, 0)
}

func TestSentinel(t *testing.T) {
	sentinels, primary, _ := redistest.StartSentinels(t)
	log := newBook(100)
	where := relay.Server{Addrs: sentinels, Master: "jpki"}
	relays(t, relay.Config{Server: where, Log: log, Wake: log.wake})
	f := follows(t, where)
	sees(t, f, log, 0)
	primary.Kill()
	log.commit(10)
	sees(t, f, log, 0)
}

// The index's clock and the world's differ, by correction or for good: no one's completeness depends on a clock.
func TestClocks(t *testing.T) {
	server := redistest.Start(t)
	log := newBook(10)
	relays(t, relay.Config{Server: at(server), Log: log, Wake: log.wake})
	for _, off := range []time.Duration{-10 * time.Minute, 0, 10 * time.Minute} {
		f := follows(t, at(server))
		sees(t, f, log, 0)
		var jump atomic.Int64
		now := func() time.Time { return time.Now().Add(off + time.Duration(jump.Load())) }
		logs, err := relay.NewLogs(relay.LogsConfig{Tiers: []relay.Tier{{Name: "redis", Log: f, Within: 5 * time.Second}, {Name: "database", Log: failing{}}}, Now: now})
		if err != nil {
			t.Fatal(err)
		}
		x, err := status.New(status.Config{Log: logs, Now: now, Bound: 10 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		for _, step := range []time.Duration{0, 10 * time.Minute, -20 * time.Minute} { // the second is a stop of ten minutes, too
			jump.Add(int64(step))
			log.commit(1)
			if _, asOf, err := x.Status(t.Context(), entry(log.len()).ID); err != nil || now().Sub(asOf).Abs() > 10*time.Second {
				t.Errorf("off by %v, then %v: %v, as of %v", off, step, err, asOf)
			}
		}
	}
}

type failing struct{}

func (failing) StatusChanges(context.Context, int64, int) ([]jpki.StatusChange, error) {
	return nil, errors.New("no database")
}

func TestLogs(t *testing.T) {
	var now atomic.Int64
	first, second := newBook(5), newBook(5)
	logs, err := relay.NewLogs(relay.LogsConfig{
		Tiers: []relay.Tier{{Name: "first", Log: first, Within: 20 * time.Millisecond}, {Name: "second", Log: second}},
		Now:   func() time.Time { return since.Add(time.Duration(now.Load())) },
	})
	if err != nil {
		t.Fatal(err)
	}
	read := func(wantErr bool, counts string) {
		t.Helper()
		got, err := logs.StatusChanges(t.Context(), 2, 2)
		if (err != nil) != wantErr || !wantErr && (len(got) != 2 || got[0].Seq != 3) {
			t.Errorf("%v, %v", got, err)
		}
		if out := fmt.Sprint(logs.Outcomes()); out != counts {
			t.Errorf("%s; want %s", out, counts)
		}
	}
	read(false, "map[first:1]")
	first.set(func(b *book) { b.hold = make(chan struct{}) }) // it hangs
	read(false, "map[first:1 first-failed:1 second:1]")
	first.set(func(b *book) { b.hold = nil })
	read(false, "map[first:1 first-failed:1 second:2]") // it rests
	if logs.Err() == nil {
		t.Error("nobody is told")
	}
	now.Add(int64(-time.Hour)) // a clock set back does not prolong that
	read(false, "map[first:2 first-failed:1 second:2]")
	if logs.Err() != nil {
		t.Error(logs.Err())
	}
	first.set(func(b *book) { b.fail = errors.New("broken") })
	second.set(func(b *book) { b.fail = errors.New("broken") })
	read(true, "map[first:2 first-failed:2 second:2 second-failed:1]")
	second.set(func(b *book) { b.fail = nil })
	read(false, "map[first:2 first-failed:2 second:3 second-failed:1]") // the last is always tried
	now.Add(int64(time.Second))
	first.set(func(b *book) { b.fail = nil })
	read(false, "map[first:3 first-failed:2 second:3 second-failed:1]")
}

func TestConfigs(t *testing.T) {
	where := relay.Server{Addrs: []string{"a:1"}}
	good := relay.Config{Server: where, Log: newBook(0), Key: key, Rand: rand.Reader}
	for name, spoil := range map[string]func(*relay.Config){
		"Server":   func(c *relay.Config) { c.Server.Addrs = nil },
		"Log":      func(c *relay.Config) { c.Log = nil },
		"Key":      func(c *relay.Config) { c.Key = key[:31] },
		"Rand":     func(c *relay.Config) { c.Rand = nil },
		"negative": func(c *relay.Config) { c.Keep = -1 },
		"token":    func(c *relay.Config) { c.Rand = bytes.NewReader(nil) },
	} {
		cfg := good
		spoil(&cfg)
		if _, err := relay.New(cfg); err == nil {
			t.Errorf("relay without %s", name)
		}
	}
	for name, cfg := range map[string]relay.FollowerConfig{
		"Server":   {Key: key, Rand: rand.Reader},
		"Key":      {Server: where, Rand: rand.Reader},
		"Rand":     {Server: where, Key: key},
		"negative": {Server: where, Key: key, Rand: rand.Reader, Patience: -1},
	} {
		if _, err := relay.NewFollower(cfg); err == nil {
			t.Errorf("follower without %s", name)
		}
	}
	for name, cfg := range map[string]relay.LogsConfig{
		"Tiers":    {Now: time.Now},
		"Now":      {Tiers: []relay.Tier{{Name: "a", Log: newBook(0)}}},
		"Name":     {Tiers: []relay.Tier{{Log: newBook(0)}}, Now: time.Now},
		"Log":      {Tiers: []relay.Tier{{Name: "a"}}, Now: time.Now},
		"negative": {Tiers: []relay.Tier{{Name: "a", Log: newBook(0)}}, Now: time.Now, Rest: -1},
	} {
		if _, err := relay.NewLogs(cfg); err == nil {
			t.Errorf("logs without %s", name)
		}
	}
}

// TestMain is, in a child process that a test starts, a relay beside a database of its own. It may stop for ever in the
// middle of a long copy, when it has read the log so many times.
func TestMain(m *testing.M) {
	where := os.Getenv("JPKI_TEST_RELAY")
	if where == "" {
		os.Exit(m.Run())
	}
	var database string
	var stall int
	if _, err := fmt.Sscan(where, &where, &stall, &database); err != nil {
		panic(err)
	}
	db, err := store.OpenStatusReader(database)
	if err != nil {
		panic(err)
	}
	r, err := relay.New(relay.Config{
		Server: relay.Server{Addrs: []string{where}}, Log: &stalls{Log: db, after: stall}, Key: key, Rand: rand.Reader,
		Lease: 300 * time.Millisecond, Interval: 20 * time.Millisecond,
	})
	if err != nil {
		panic(err)
	}
	panic(r.Run(context.Background()))
}

type stalls struct {
	relay.Log
	after, reads int
}

func (s *stalls) StatusChanges(ctx context.Context, after int64, limit int) ([]jpki.StatusChange, error) {
	if limit > 1 { // not while it looks for the end
		if s.reads++; s.after > 0 && s.reads > s.after {
			select {}
		}
	}
	return s.Log.StatusChanges(ctx, after, limit)
}

func child(t *testing.T, where string, stall int, database string) *os.Process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), fmt.Sprintf("JPKI_TEST_RELAY=%s %d %s", where, stall, database))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd.Process
}

// A relay is killed when it has copied entries and not yet said so; another is stopped and goes on when a third works.
func TestKilledAndStoppedRelays(t *testing.T) {
	database := "sqlite:" + t.TempDir() + "/ca.sqlite"
	db := storetest.Create(t, database)
	truth := newBook(0)
	commit := func(n int) {
		t.Helper()
		first := truth.len() + 1
		err := db.Update(t.Context(), func(tx *store.Tx) error {
			for i := range int64(n) {
				c := entry(first + i)
				c.Status = jpki.Status{State: jpki.Good, Since: since}
				if err := tx.AddStatus(c); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		truth.set(func(b *book) {
			for i := range int64(n) {
				c := entry(first + i)
				c.Status = jpki.Status{State: jpki.Good, Since: since, Version: 1}
				b.entries = append(b.entries, c)
			}
		})
	}
	commit(3500)
	server := redistest.Start(t)
	f := follows(t, at(server))
	killed := child(t, server.Addr(), 2, database)
	redistest.Until(t, "some pages are copied", func() bool {
		epoch := server.Do("GET", "{jpki:log:1}:epoch")
		return epoch != "" && server.Do("XLEN", "{jpki:log:1}:entries:"+epoch) >= "1000"
	})
	if err := killed.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := view(t, f, truth, 0, 1000); err == nil {
		t.Fatal("a view from a copy that nobody vouched for")
	}
	epoch := server.Do("GET", "{jpki:log:1}:epoch")

	stopped := child(t, server.Addr(), 0, database)
	sees(t, f, truth, 0)
	if now := server.Do("GET", "{jpki:log:1}:epoch"); now != epoch {
		t.Error("a part of the copy that is right was thrown away")
	}
	if err := stopped.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	commit(10)
	relays(t, relay.Config{Server: at(server), Log: db, Wake: db.Changes()})
	sees(t, f, truth, 0)
	if err := stopped.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		commit(1)
		sees(t, f, truth, 3400)
	}
	if out := ids(server, "{jpki:log:1}:entries:"+epoch); !strings.HasPrefix(out, fmt.Sprintf("%d %d-0", truth.len(), truth.len())) {
		t.Errorf("the copy of %d entries: %.40s", truth.len(), out)
	}
}

// Under random faults a view, if there is one, has every entry that was committed before it was asked for; and when the
// faults end there is one.
func TestNoViewIsShort(t *testing.T) {
	rounds := 40
	if testing.Short() {
		rounds = 10
	}
	seed := uint64(time.Now().UnixNano())
	random := mrand.New(mrand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	server := redistest.Start(t)
	forRelays, forFollowers := redistest.NewProxy(t, server.Addr()), redistest.NewProxy(t, server.Addr())
	log := newBook(1)
	cfg := relay.Config{Server: relay.Server{Addrs: []string{forRelays.Addr()}}, Log: log, Wake: log.wake, Lease: 100 * time.Millisecond, Patience: 100 * time.Millisecond}
	one, stop := relays(t, cfg)
	two, _ := relays(t, cfg)
	defer func() {
		if t.Failed() {
			t.Logf("relays: %v, %v; %v, %v", one.Err(), one.Outcomes(), two.Err(), two.Outcomes())
			t.Logf("Redis: %s, %s", server.Do("KEYS", "*"), server.Do("LLEN", "{jpki:log:1}:questions"))
		}
	}()
	var views, refused atomic.Int64
	end := make(chan struct{})
	var all sync.WaitGroup
	for range 3 {
		f := follows(t, relay.Server{Addrs: []string{forFollowers.Addr()}})
		defer func() {
			if t.Failed() {
				t.Log("follower: ", f.Err(), f.Outcomes(), view(t, f, log, log.len(), 100))
			}
		}()
		all.Go(func() {
			for {
				select {
				case <-end:
					return
				default:
				}
				if view(t, f, log, max(0, log.len()-mrand.Int64N(50)), 200+mrand.IntN(1000)) == nil {
					views.Add(1)
				} else {
					refused.Add(1)
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
	all.Go(func() {
		for {
			select {
			case <-end:
				return
			case <-time.After(5 * time.Millisecond):
				log.commit(1 + mrand.IntN(5))
			}
		}
	})
	var dumps [][]byte
	for range rounds {
		switch random.IntN(10) {
		case 0:
			server.Do("FLUSHALL")
		case 1:
			dumps = append(dumps, server.Save())
		case 2:
			dumps = append(dumps, nil)
			server.Restore(dumps[random.IntN(len(dumps))])
		case 3:
			forRelays.Cut()
		case 4:
			forRelays.Blackhole()
		case 5:
			forFollowers.Cut()
		case 6:
			forFollowers.Blackhole()
		case 7:
			stop()
			one, stop = relays(t, cfg)
		case 8:
			server.Hang()
			time.Sleep(time.Duration(random.IntN(200)) * time.Millisecond)
			server.Resume()
		case 9:
			server.Kill()
			time.Sleep(time.Duration(random.IntN(100)) * time.Millisecond)
			server.Start()
		}
		time.Sleep(time.Duration(random.IntN(150)) * time.Millisecond)
		if random.IntN(2) == 0 {
			forRelays.Heal()
			forFollowers.Heal()
		}
	}
	forRelays.Heal()
	forFollowers.Heal()
	seen := views.Load()
	redistest.Until(t, "views come again", func() bool { return views.Load() > seen+20 })
	close(end)
	all.Wait()
	t.Logf("%d views, %d refused, %d entries", views.Load(), refused.Load(), log.len())
}
