package crl

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/openjpki/jpki"
)

// A table has what was put into it, every time and reason, and nothing else: with short serials, with long ones, with few and many.
func TestLayer(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // test data
	first, last := time.Date(1950, 1, 1, 0, 0, 0, 0, time.UTC).Unix(), time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC).Unix()
	for _, entries := range []int{0, 1, 2, 3, 7, 100, 60_000} {
		for _, longest := range []int{1, 15, 16, 17, 20} {
			var h heap
			want := map[number]rawEntry{}
			for len(want) < entries && (longest > 1 || len(want) < 100) {
				serial := make([]byte, 1+rnd.IntN(longest))
				for i := range serial {
					serial[i] = byte(rnd.Uint32())
				}
				serial[0] |= 1
				e := rawEntry{number: numberOf(serial), at: first + rnd.Int64N(last-first+1), reason: jpki.Reason(rnd.IntN(11))}
				switch len(want) {
				case 0:
					e.at = first
				case 1:
					e.at = last
				}
				if _, twice := want[e.number]; twice {
					continue
				}
				want[e.number] = e
				if err := h.add(&e); err != nil {
					t.Fatal(err)
				}
			}
			l, err := h.layer(len(want))
			if err != nil {
				t.Fatal(err)
			}
			for n, e := range want {
				at, reason, ok := l.find(n)
				if !ok || at != e.at || reason != e.reason {
					t.Fatalf("%d entries of up to %d octets: %v: %d, %d, %v, want %d, %d", entries, longest, n, at, reason, ok, e.at, e.reason)
				}
				for _, other := range []number{{n.hi ^ 1, n.mid, n.lo}, {n.hi, n.mid ^ 1, n.lo}, {n.hi, n.mid, n.lo ^ 1}} {
					if _, listed := want[other]; listed {
						continue
					}
					if _, _, ok := l.find(other); ok {
						t.Fatalf("%v is not listed", other)
					}
				}
			}
			if _, _, ok := l.find(number{}); ok {
				t.Error("found what is no serial")
			}
			seen := 0
			for n, e := range l.all() {
				if w, ok := want[n]; !ok || e.At.Unix() != w.at || e.Reason != w.reason || numberOf(e.Serial.Bytes()) != n {
					t.Fatalf("%v is %v, want %v", n, e, w)
				}
				seen++
			}
			if seen != len(want) {
				t.Errorf("%d entries in all, want %d", seen, len(want))
			}
			for n := range want { // the same number again, however it is written
				if l.add(n, metaOf(0, 0)) {
					t.Error("twice")
				}
				break
			}
		}
	}
}

// A table that is fuller than any should be still has everything, and its look-ups end.
func TestFullLayer(t *testing.T) {
	l := newLayer(16, false)
	most := uint64(l.lines)*3 - 1
	for n := range most {
		if !l.add(number{lo: n + 1}, metaOf(int64(n), 1)) {
			t.Fatal(n)
		}
	}
	for n := range most {
		if at, _, ok := l.find(number{lo: n + 1}); !ok || at != int64(n) {
			t.Errorf("%d: %d, %v", n, at, ok)
		}
	}
	if _, _, ok := l.find(number{lo: most + 1}); ok {
		t.Error("found what is not there")
	}
}
