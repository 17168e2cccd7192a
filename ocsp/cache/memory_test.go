package cache_test

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/openjpki/jpki/ocsp/cache"
)

// shelf is what the responder asks of its caches.
type shelf interface {
	Get(ctx context.Context, key string) (value []byte, ok bool)
	Put(key string, value []byte, ttl time.Duration)
}

var _, _ shelf = (*cache.Memory)(nil), (*cache.Redis)(nil)

func memory(t testing.TB, n int64) *cache.Memory {
	t.Helper()
	m, err := cache.NewMemory(cache.MemoryConfig{Bytes: n})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return m
}

func TestMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := memory(t, 1<<20)
		m.Put("a", []byte("first"), time.Minute)
		m.Put("b", []byte("other"), 10*time.Minute)
		m.Put("never", []byte("x"), 0)
		m.Put("large", make([]byte, 128<<10), time.Minute)
		m.Put("a", []byte("second"), 2*time.Minute)
		get := func(key, want string) {
			t.Helper()
			if v, ok := m.Get(t.Context(), key); ok != (want != "") || string(v) != want {
				t.Errorf("%s: %q, %v; want %q", key, v, ok, want)
			}
		}
		time.Sleep(90 * time.Second)
		get("a", "second") // the later Put's time counts
		get("b", "other")
		get("never", "")
		get("large", "")
		time.Sleep(31 * time.Second)
		get("a", "")
		get("b", "other")
		if got := m.Outcomes(); got["hit"] != 3 || got["miss"] != 3 {
			t.Errorf("outcomes %v", got)
		}
		_ = m.Close()
		get("b", "")
	})
	for _, bad := range []int64{0, -1} {
		if _, err := cache.NewMemory(cache.MemoryConfig{Bytes: bad}); err == nil {
			t.Errorf("Bytes %d is accepted", bad)
		}
	}
}

// The bound is one of bytes: whatever the entries' size, the process grows by about so much.
func TestMemoryIsBounded(t *testing.T) {
	for _, size := range []int{50, 500, 5000} {
		const bound = 16 << 20
		before := heap()
		m := memory(t, bound)
		for i := range 3 * bound / size {
			m.Put(fmt.Sprintf("a key of some length: %d", i), make([]byte, size), time.Hour)
		}
		grown := heap() - before
		t.Logf("values of %d: %d MiB on the heap, %d MiB by its own estimate, %v", size, grown>>20, m.Bytes()>>20, m.Outcomes())
		if grown > bound*5/4 || m.Bytes() > bound*5/4 {
			t.Errorf("values of %d: the heap grew by %d with a bound of %d", size, grown, bound)
		}
		if m.Outcomes()["evicted"] == 0 {
			t.Error("nothing was evicted")
		}
		runtime.KeepAlive(m)
	}
}

// over returns a string that is a view of a buffer.
func over(buf []byte) string {
	return unsafe.String(&buf[0], len(buf)) //nolint:gosec // what is tested is that nobody keeps it
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc)
}

// A look-up allocates nothing with a key that is a view of a buffer in use elsewhere, and keeps nothing of it.
func TestMemoryKeepsNoKey(t *testing.T) {
	m := memory(t, 1<<20)
	buf := []byte("key 1 of 32 octets, as a digest.")
	key := over(buf)
	m.Put(strings.Clone(key), []byte("one"), time.Hour)
	copy(buf, "key 2")
	m.Put(strings.Clone(key), []byte("two"), time.Hour)
	copy(buf, "key 3")
	if _, ok := m.Get(t.Context(), key); ok {
		t.Error("found what was never put")
	}
	for i, want := range []string{"one", "two"} {
		copy(buf, fmt.Sprint("key ", i+1))
		if v, ok := m.Get(t.Context(), key); !ok || string(v) != want {
			t.Errorf("%s: %q, %v", key, v, ok)
		}
	}
	ctx := t.Context()
	if n := testing.AllocsPerRun(1000, func() { m.Get(ctx, key) }); n != 0 {
		t.Errorf("a hit allocates %v times", n)
	}
	copy(buf, "key 4")
	if n := testing.AllocsPerRun(1000, func() { m.Get(ctx, key) }); n != 0 {
		t.Errorf("a miss allocates %v times", n)
	}
}

func BenchmarkMemory(b *testing.B) {
	const n = 10000
	keys := make([]string, n)
	m := memory(b, 64<<20)
	for i := range keys {
		keys[i] = strings.Repeat(fmt.Sprint(i), 32)[:32]
		m.Put(keys[i], bytes.Repeat([]byte{1}, 1500), time.Hour)
	}
	ctx := b.Context()
	b.Run("heap", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if _, ok := m.Get(ctx, keys[i%n]); !ok {
				b.Fatal("miss")
			}
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for i := 0; pb.Next(); i++ {
				m.Get(ctx, keys[i%n])
			}
		})
	})
	b.Run("stack", func(b *testing.B) { // a new buffer for each look-up
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			var buf [32]byte
			copy(buf[:], keys[i%n])
			if _, ok := m.Get(ctx, over(buf[:])); !ok {
				b.Fatal("miss")
			}
		}
	})
	b.Run("interface", func(b *testing.B) { // likewise, but behind an interface, where nothing is known of who keeps what
		b.ReportAllocs()
		shelves := []shelf{m, nil} // the compiler does not see through this
		for i := 0; b.Loop(); i++ {
			var buf [32]byte
			copy(buf[:], keys[i%n])
			if _, ok := shelves[i/math.MaxInt].Get(ctx, over(buf[:])); !ok {
				b.Fatal("miss")
			}
		}
	})
	b.Run("string", func(b *testing.B) { // of a buffer, by conversion
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			var buf [32]byte
			copy(buf[:], keys[i%n])
			if _, ok := m.Get(ctx, string(buf[:])); !ok {
				b.Fatal("miss")
			}
		}
	})
	b.Run("scratch", func(b *testing.B) { // one buffer that stays
		b.ReportAllocs()
		buf := make([]byte, 32)
		for i := 0; b.Loop(); i++ {
			copy(buf, keys[i%n])
			if _, ok := m.Get(ctx, over(buf[:])); !ok {
				b.Fatal("miss")
			}
		}
	})
}
