package cache

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/maypok86/otter/v2"
	"github.com/maypok86/otter/v2/stats"
)

// overhead is what an entry costs beside its key and its value: node, table slot, timer wheel (measured, rounded up).
const overhead = 192

// resolution is how exact a time to live is. Asking for the exact time would be half of what a look-up costs, and whoever
// takes an answer off the shelf looks at the times within it anyhow.
const resolution = 100 * time.Millisecond

// MemoryConfig is what a [Memory] needs.
type MemoryConfig struct {
	Bytes int64 // required: how much it may hold, keys, values and an estimate of the rest
}

// A Memory is a shelf in the process.
type Memory struct {
	entries *otter.Cache[string, item]
	counter *stats.Counter
	clock   *otter.CoarseClock
	bytes   int64
}

type item struct {
	value []byte
	ttl   time.Duration
}

// NewMemory returns an empty shelf.
func NewMemory(cfg MemoryConfig) (*Memory, error) {
	if cfg.Bytes <= 0 {
		return nil, errors.New("make shelf in memory: Bytes is required")
	}
	m := &Memory{counter: stats.NewCounter(), clock: otter.NewCoarseClock(resolution), bytes: cfg.Bytes}
	entries, err := otter.New(&otter.Options[string, item]{
		MaximumWeight:    uint64(cfg.Bytes),
		Weigher:          func(key string, it item) uint32 { return uint32(len(key) + len(it.value) + overhead) },
		ExpiryCalculator: otter.ExpiryWritingFunc(func(e otter.Entry[string, item]) time.Duration { return e.Value.ttl }),
		StatsRecorder:    m.counter,
		Clock:            m.clock,
		Logger:           &otter.NoopLogger{}, // there is nothing it could tell: no loader, no listener
	})
	if err != nil {
		m.clock.Stop()
		return nil, fmt.Errorf("make shelf in memory: %w", err)
	}
	m.entries = entries
	return m, nil
}

// Get returns the value put last under a key, if it is still here. The value is shared and must not be changed. The key is
// not kept: it may be a view of a buffer that the caller uses again.
func (m *Memory) Get(_ context.Context, key string) (value []byte, ok bool) {
	it, ok := m.entries.GetIfPresent(key)
	return it.value, ok
}

// Put keeps a key and its value for at most ttl; without one, nothing. It takes no copies: a key that lies in its value is in
// the processor's cache when the value is read. A value that is
// larger than a thousandth of the shelf (and than 64 KiB) is not kept: it would push out too many others.
func (m *Memory) Put(key string, value []byte, ttl time.Duration) {
	if size := int64(len(key) + len(value)); ttl <= 0 || size > max(64<<10, m.bytes/1000) || size+overhead > m.bytes {
		return
	}
	m.entries.Set(key, item{value, ttl})
}

// Outcomes returns how often a look-up was a hit or a miss, and how many entries were evicted: for want of room or when
// their time had come.
func (m *Memory) Outcomes() map[string]uint64 {
	s := m.counter.Snapshot()
	return map[string]uint64{"hit": s.Hits, "miss": s.Misses, "evicted": s.Evictions}
}

// Bytes returns how much the shelf holds, by its own estimate.
func (m *Memory) Bytes() uint64 { return m.entries.WeightedSize() }

// Close empties the shelf and ends what runs behind it.
func (m *Memory) Close() error {
	m.entries.StopAllGoroutines()
	m.clock.Stop()
	m.entries.InvalidateAll()
	return nil
}
