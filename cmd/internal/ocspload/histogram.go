package ocspload

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// Latencies fall into buckets 1/64 as wide as they are far from zero, to a nanosecond below 64 ns and up to 137 s.
const (
	subBits   = 6
	topBit    = 37
	bucketNum = (topBit - subBits + 1) << subBits
)

func bucketOf(d time.Duration) int {
	v := uint64(max(d, 0))
	if v < 1<<subBits {
		return int(v)
	}
	shift := bits.Len64(v) - 1 - subBits
	return min(shift<<subBits+int(v>>shift), bucketNum-1)
}

// upper returns the end of a bucket: what is said of it is never less than what was measured.
func upper(bucket int) time.Duration {
	if bucket < 1<<subBits {
		return time.Duration(bucket)
	}
	shift := bucket>>subBits - 1
	return time.Duration((uint64(bucket&(1<<subBits-1)|1<<subBits)+1)<<shift - 1)
}

// A recorder counts latencies of many connections at once.
type recorder struct {
	counts [bucketNum]atomic.Uint32
	max    atomic.Int64
}

func (r *recorder) add(d time.Duration) {
	r.counts[bucketOf(d)].Add(1)
	for {
		seen := r.max.Load()
		if int64(d) <= seen || r.max.CompareAndSwap(seen, int64(d)) {
			return
		}
	}
}

// A Histogram is counted latencies.
type Histogram struct {
	counts [bucketNum]uint64
	Count  uint64
	Max    time.Duration
}

func (h *Histogram) merge(r *recorder) {
	for i := range r.counts {
		n := uint64(r.counts[i].Load())
		h.counts[i] += n
		h.Count += n
	}
	h.Max = max(h.Max, time.Duration(r.max.Load()))
}

// Quantile returns the latency that a share q of all did not exceed, at most 1/64 too high; 0 if nothing was counted.
func (h *Histogram) Quantile(q float64) time.Duration {
	rank, seen := uint64(q*float64(h.Count)+0.999999), uint64(0)
	for i, n := range h.counts {
		if seen += n; seen >= max(rank, 1) {
			return min(upper(i), h.Max)
		}
	}
	return h.Max
}
