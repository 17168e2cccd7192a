package cache_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/openjpki/jpki/ocsp/cache"
	"github.com/openjpki/jpki/ocsp/cache/redistest"
)

// deadline is generous, for tests share their machine; what is tested is that it is the deadline which counts, and not
// one of the seconds that clients of Redis wait.
const deadline = 50 * time.Millisecond

func open(t testing.TB, cfg cache.RedisConfig) *cache.Redis {
	t.Helper()
	if cfg.Deadline == 0 {
		cfg.Deadline = deadline
	}
	before := runtime.NumGoroutine()
	r, err := cache.NewRedis(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if _, ok := r.Get(context.Background(), "a"); ok {
			t.Error("a closed shelf is not empty")
		}
		r.Put("a", []byte("x"), time.Hour)
		for range 500 { // go-redis ends what it began within a second or so
			if runtime.NumGoroutine() <= before {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		var stacks bytes.Buffer
		buf := make([]byte, 1<<20)
		stacks.Write(buf[:runtime.Stack(buf, true)])
		t.Errorf("%d goroutines before, %d after\n%s", before, runtime.NumGoroutine(), &stacks)
	})
	return r
}

// works waits until what is put can be got.
func works(t testing.TB, r *cache.Redis) {
	t.Helper()
	for i := range 16 { // in a cluster: somewhere else each
		key := fmt.Sprint(rand.Uint64())
		redistest.Until(t, "the shelf works", func() bool {
			r.Put(key, []byte(key), time.Hour)
			v, ok := r.Get(t.Context(), key)
			if ok && string(v) != key {
				t.Fatalf("look-up %d: %q under %q", i, v, key)
			}
			return ok
		})
	}
}

func TestRedis(t *testing.T) {
	server := redistest.Start(t)
	r := open(t, cache.RedisConfig{Server: cache.Server{Addrs: []string{server.Addr()}}, MaxValue: 1000, MaxTTL: time.Hour})
	works(t, r)

	if _, ok := r.Get(t.Context(), "nothing"); ok {
		t.Error("found what was never put")
	}
	buf := []byte("a key of which nothing is kept")
	r.Put(string(buf), []byte{}, time.Minute)
	redistest.Until(t, "an empty value is there", func() bool { v, ok := r.Get(t.Context(), string(buf)); return ok && len(v) == 0 })
	server.Do("FLUSHALL")
	r.Put("no ttl", []byte("x"), 0)
	r.Put("past", []byte("x"), -time.Second)
	r.Put("large", make([]byte, 1001), time.Minute)
	r.Put("long", []byte("x"), 1000*time.Hour)
	r.Put("short", make([]byte, 1000), 1500*time.Millisecond)
	redistest.Until(t, "the writes are through", func() bool { return server.Do("DBSIZE") == "2" })
	for key := range strings.FieldsSeq(server.Do("KEYS", "*")) {
		var ms int64
		_, _ = fmt.Sscan(server.Do("PTTL", key), &ms)
		if limit := map[string]int64{"jpki:ocsp:1:long": 3600000, "jpki:ocsp:1:short": 1500}[key]; ms < 1 || ms > limit {
			t.Errorf("%s lives for %d ms", key, ms)
		}
	}
	server.Do("SET", "jpki:ocsp:1:foreign", strings.Repeat("x", 1001))
	server.Do("LPUSH", "jpki:ocsp:1:list", "x")
	for _, key := range []string{"foreign", "list"} {
		if v, ok := r.Get(t.Context(), key); ok {
			t.Errorf("%s: %d octets", key, len(v))
		}
	}
	if n := r.Outcomes(); n["put-refused"] != 3 || n["oversize"] != 1 {
		t.Errorf("outcomes %v", n)
	}
	works(t, r)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	server.Hang()
	if _, ok := r.Get(ctx, "long"); ok {
		t.Error("a caller who has given up is answered")
	}
	server.Resume()
}

func TestRedisConfig(t *testing.T) {
	for name, cfg := range map[string]cache.RedisConfig{
		"no address":           {},
		"two single servers":   {Server: cache.Server{Addrs: []string{"a:1", "b:1"}}},
		"cluster and sentinel": {Server: cache.Server{Addrs: []string{"a:1"}, Cluster: true, Master: "m"}},
		"cluster with DB":      {Server: cache.Server{Addrs: []string{"a:1"}, Cluster: true, DB: 1}},
		"negative":             {Server: cache.Server{Addrs: []string{"a:1"}}, Deadline: -1},
	} {
		if _, err := cache.NewRedis(cfg); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

// Look-ups that come while others are under way go together: Redis counts commands.
func TestRedisGathers(t *testing.T) {
	server := redistest.Start(t)
	r := open(t, cache.RedisConfig{Server: cache.Server{Addrs: []string{server.Addr()}}, Deadline: 10 * time.Second, Patience: 10 * time.Second, Exchanges: 1})
	works(t, r)
	server.Do("CONFIG", "RESETSTAT")
	const n = 1000
	server.Hang()
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { r.Get(context.Background(), fmt.Sprint(i)) })
	}
	time.Sleep(100 * time.Millisecond) // the more have come by then, the fewer commands
	server.Resume()
	all.Wait()
	var calls int
	for line := range strings.Lines(server.Do("INFO", "commandstats")) {
		_, _ = fmt.Sscanf(line, "cmdstat_mget:calls=%d", &calls)
	}
	if got := r.Outcomes()["miss"]; got < n || calls == 0 || calls > n/4 {
		t.Errorf("%d look-ups took %d commands; outcomes %v", n, calls, r.Outcomes())
	}
	t.Logf("%d look-ups took %d commands", n, calls)
}

// A load looks things up and writes them, and notes how long a look-up took at most.
type load struct {
	stop    chan struct{}
	all     sync.WaitGroup
	longest atomic.Int64
	gets    atomic.Int64
	hits    atomic.Int64
}

func start(r *cache.Redis) *load {
	l := &load{stop: make(chan struct{})}
	for range 8 {
		l.all.Go(func() {
			for {
				select {
				case <-l.stop:
					return
				default:
				}
				key := fmt.Sprint(rand.IntN(200))
				begin := time.Now()
				v, ok := r.Get(context.Background(), key)
				l.longest.Store(max(l.longest.Load(), int64(time.Since(begin))))
				l.gets.Add(1)
				switch {
				case ok && string(v) == key:
					l.hits.Add(1)
				case ok:
					panic("another's value") // seen by the test as nothing else would be
				default:
					r.Put(key, []byte(key), time.Minute)
					time.Sleep(time.Millisecond) // as an answer has to be signed
				}
			}
		})
	}
	return l
}

func (l *load) end(t *testing.T) {
	t.Helper()
	close(l.stop)
	l.all.Wait()
	if d := time.Duration(l.longest.Load()); d > 20*deadline {
		t.Errorf("a look-up took %v with a deadline of %v", d, deadline)
	} else {
		t.Logf("%d look-ups, %d hits, the longest took %v", l.gets.Load(), l.hits.Load(), d)
	}
}

func TestRedisFaults(t *testing.T) {
	tests := []struct {
		name        string
		fault, heal func(*redistest.Server, *redistest.Proxy)
		opens       bool
	}{
		{"killed", func(s *redistest.Server, _ *redistest.Proxy) { s.Kill() }, func(s *redistest.Server, _ *redistest.Proxy) { s.Start() }, true},
		{"hung", func(s *redistest.Server, _ *redistest.Proxy) { s.Hang() }, func(s *redistest.Server, _ *redistest.Proxy) { s.Resume() }, true},
		{"cut", func(_ *redistest.Server, p *redistest.Proxy) { p.Cut() }, func(_ *redistest.Server, p *redistest.Proxy) { p.Heal() }, true},
		{"black hole", func(_ *redistest.Server, p *redistest.Proxy) { p.Blackhole() }, func(_ *redistest.Server, p *redistest.Proxy) { p.Heal() }, true},
		{"restarted empty", func(s *redistest.Server, _ *redistest.Proxy) { s.Restore(nil) }, func(*redistest.Server, *redistest.Proxy) {}, false},
		{"flushed", func(s *redistest.Server, _ *redistest.Proxy) { s.Do("FLUSHALL") }, func(*redistest.Server, *redistest.Proxy) {}, false},
		{"reads refused", func(s *redistest.Server, _ *redistest.Proxy) {
			s.Do("ACL", "SETUSER", "default", "-get", "-mget", "-exists")
		}, func(s *redistest.Server, _ *redistest.Proxy) { s.Do("ACL", "SETUSER", "default", "+@all") }, true},
		{"full", func(s *redistest.Server, _ *redistest.Proxy) { s.Do("CONFIG", "SET", "maxmemory", "1") }, func(s *redistest.Server, _ *redistest.Proxy) { s.Do("CONFIG", "SET", "maxmemory", "0") }, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			server := redistest.Start(t)
			proxy := redistest.NewProxy(t, server.Addr())
			r := open(t, cache.RedisConfig{Server: cache.Server{Addrs: []string{proxy.Addr()}}, Rest: 20 * time.Millisecond})
			works(t, r)
			l := start(r)
			defer l.end(t)
			test.fault(server, proxy)
			if test.opens {
				redistest.Until(t, "the server is left alone", r.Open)
				for i := range 100 {
					if _, ok := r.Get(t.Context(), fmt.Sprint(i)); ok {
						t.Fatal("a hit from a server that does not answer")
					}
				}
				if n := r.Outcomes(); n["opened"] == 0 || n["open"] == 0 {
					t.Errorf("outcomes %v", n)
				}
			}
			test.heal(server, proxy)
			works(t, r)
			t.Log(r.Outcomes())
		})
	}
}

// While the server is away nobody knocks more often than agreed, however many look things up.
func TestRedisKnocksSoftly(t *testing.T) {
	var dials atomic.Int64
	r := open(t, cache.RedisConfig{
		Server: cache.Server{Addrs: []string{"127.0.0.1:1"}, Dial: func(context.Context, string, string) (net.Conn, error) {
			dials.Add(1)
			return nil, syscall.ECONNREFUSED
		}},
		Rest: 50 * time.Millisecond,
	})
	begin := time.Now()
	l := start(r)
	redistest.Until(t, "some probes are through", func() bool { return dials.Load() >= 5 })
	passed := time.Since(begin)
	l.end(t)
	// Probes, each a look and no second one, and once a second one by go-redis on its own.
	if n := dials.Load(); n > 10+2*int64(passed/(50*time.Millisecond)) {
		t.Errorf("%d connections tried in %v, with %d look-ups", n, passed, l.gets.Load())
	}
}

func TestRedisCluster(t *testing.T) {
	servers := redistest.StartCluster(t, 3)
	r := open(t, cache.RedisConfig{Server: cache.Server{Addrs: []string{servers[0].Addr(), servers[1].Addr(), servers[2].Addr()}, Cluster: true}, Rest: 20 * time.Millisecond})
	works(t, r)
	l := start(r)
	works(t, r)

	// A primary hangs: what lives elsewhere is answered all the same.
	servers[1].Hang()
	redistest.Until(t, "its server is left alone", func() bool { return r.Outcomes()["opened"] > 0 })
	hits := l.hits.Load()
	redistest.Until(t, "others are found", func() bool { return l.hits.Load() > hits+1000 })
	redistest.Until(t, "its replica takes over", func() bool { return servers[3].Primary() || servers[4].Primary() || servers[5].Primary() })
	works(t, r)
	servers[1].Resume() // as a replica, which sends everybody away
	redistest.Until(t, "it follows", func() bool { return !servers[1].Primary() })
	works(t, r)

	servers[2].Kill()
	redistest.Until(t, "its replica takes over", func() bool {
		n := 0
		for _, s := range servers {
			if s != servers[2] && s.Primary() {
				n++
			}
		}
		return n == 3
	})
	works(t, r)
	t.Log(r.Outcomes())
	l.end(t)
}

func TestRedisSentinel(t *testing.T) {
	sentinels, primary, replica := redistest.StartSentinels(t)
	r := open(t, cache.RedisConfig{Server: cache.Server{Addrs: sentinels, Master: "jpki"}, Rest: 20 * time.Millisecond})
	works(t, r)
	l := start(r)
	primary.Kill()
	redistest.Until(t, "the server is left alone", r.Open)
	redistest.Until(t, "the replica takes over", replica.Primary)
	works(t, r)
	t.Log(r.Outcomes())
	l.end(t)
}

// BenchmarkRedis compares look-ups gathered by us with go-redis' GET, in the same run: look-ups for each second of this
// process's CPU time, hits of 1500 octets.
func BenchmarkRedis(b *testing.B) {
	server := redistest.Start(b)
	r := open(b, cache.RedisConfig{Server: cache.Server{Addrs: []string{server.Addr()}}, Deadline: 100 * time.Millisecond})
	works(b, r)
	const keys = 10000
	for i := range keys {
		for {
			before := r.Outcomes()["put-dropped"]
			if r.Put(fmt.Sprint("key", i), bytes.Repeat([]byte{byte(i)}, 1500), time.Hour); r.Outcomes()["put-dropped"] == before {
				break
			}
			time.Sleep(time.Millisecond)
		}
	}
	redistest.Until(b, "all is written", func() bool { return r.Outcomes()["put"] >= keys })
	bare := redis.NewClient(&redis.Options{Addr: server.Addr(), PoolSize: 200})
	defer func() { _ = bare.Close() }()
	ours := func(ctx context.Context, i int) bool { _, ok := r.Get(ctx, fmt.Sprint("key", i)); return ok }
	theirs := func(ctx context.Context, i int) bool {
		_, err := bare.Get(ctx, fmt.Sprint("jpki:ocsp:1:key", i)).Bytes()
		return err == nil
	}
	for _, goroutines := range []int{1, 50, 200} {
		b.Run(fmt.Sprint(goroutines), func(b *testing.B) {
			var rate [2]float64
			for b.Loop() {
				for who, get := range []func(context.Context, int) bool{ours, theirs} {
					rate[who] += measure(b, goroutines, get)
				}
			}
			b.ReportMetric(rate[0]/float64(b.N), "ours/CPU-s")
			b.ReportMetric(rate[1]/float64(b.N), "GET/CPU-s")
			b.ReportMetric(rate[0]/rate[1], "ratio")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func measure(b *testing.B, goroutines int, get func(context.Context, int) bool) float64 {
	var n, missed atomic.Int64
	var all sync.WaitGroup
	before, end := cpu(b), time.Now().Add(500*time.Millisecond)
	for range goroutines {
		all.Go(func() {
			for time.Now().Before(end) {
				for range 10 {
					if !get(b.Context(), rand.IntN(10000)) {
						missed.Add(1)
					}
				}
				n.Add(10)
			}
		})
	}
	all.Wait()
	if missed.Load() > n.Load()/100 {
		b.Fatalf("%d of %d were misses", missed.Load(), n.Load())
	}
	return float64(n.Load()) / (cpu(b) - before).Seconds()
}

func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
