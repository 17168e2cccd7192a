package ocsp

import (
	"errors"
	"hash/maphash"
	"math"
	"net/netip"
	"sync"
	"time"
)

// A Quota is how often one client may ask: Burst certificates at once, and then Rate a second. A client is known by its
// registered certificate, or else by its address, of which IPv6 counts the first 64 bits. Who asks more is told tryLater,
// which every OCSP client understands, and never an HTTP error, which many take for the end.
type Quota struct {
	Rate    float64 // certificates a second; 0 means no limit
	Burst   int     // 0 means 100, one full request
	Clients int     // how many are remembered, at 24 octets each; 0 means 65,536
}

// ways is how many places a client may have.
const ways = 8

// A quota is a table of token buckets of fixed size. A client finds its bucket in one of a few places; when all are taken
// it gets that of the one who has been away the longest. So many clients at once can make the table forget, and then it
// is more generous than it should be, never stricter.
type quota struct {
	rate, burst float64
	seed        maphash.Seed
	rows        []quotaRow
}

type quotaRow struct {
	mu      sync.Mutex
	buckets [ways]bucket
}

type bucket struct {
	client uint64
	tokens float64
	at     int64 // of the last request, Unix nanoseconds; 0 for an empty place
}

func newQuota(q Quota) (*quota, error) {
	if q.Rate < 0 || q.Burst < 0 || q.Clients < 0 || math.IsNaN(q.Rate) || math.IsInf(q.Rate, 0) {
		return nil, errors.New("Quota is negative or no number")
	}
	if q.Rate == 0 {
		return nil, nil //nolint:nilnil // no quota: take knows
	}
	if q.Burst == 0 {
		q.Burst = MaxCertIDs
	}
	if q.Clients == 0 {
		q.Clients = 1 << 16
	}
	return &quota{rate: q.Rate, burst: float64(q.Burst), seed: maphash.MakeSeed(), rows: make([]quotaRow, (q.Clients+ways-1)/ways)}, nil
}

// take takes n tokens from the client's bucket, or none and returns false.
func (q *quota) take(c *Client, known bool, n int, now time.Time) bool {
	if q == nil {
		return true
	}
	h := q.hash(c, known)
	row := &q.rows[h%uint64(len(q.rows))]
	row.mu.Lock()
	defer row.mu.Unlock()
	at := max(1, now.UnixNano())
	b := row.find(h)
	switch {
	case b.client != h || b.at == 0:
		*b = bucket{client: h, tokens: q.burst, at: at}
	case at > b.at:
		b.tokens = min(q.burst, b.tokens+float64(at-b.at)/1e9*q.rate)
		b.at = at
	}
	if b.tokens < float64(n) {
		return false
	}
	b.tokens -= float64(n)
	return true
}

// find returns the client's bucket, or the one to take for it.
func (r *quotaRow) find(h uint64) *bucket {
	oldest := &r.buckets[0]
	for i := range r.buckets {
		b := &r.buckets[i]
		if b.client == h && b.at != 0 {
			return b
		}
		if b.at < oldest.at {
			oldest = b
		}
	}
	return oldest
}

func (q *quota) hash(c *Client, known bool) uint64 {
	if known {
		return maphash.Bytes(q.seed, c.Certificate)
	}
	a, err := netip.ParseAddr(c.Address)
	if err != nil {
		return maphash.String(q.seed, c.Address)
	}
	b := a.Unmap().As16()
	if a.Unmap().Is6() {
		return maphash.Bytes(q.seed, b[:8])
	}
	return maphash.Bytes(q.seed, b[:])
}
