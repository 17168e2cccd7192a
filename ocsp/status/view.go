package status

import (
	"cmp"
	"encoding/binary"
	"math/bits"
	"strings"
	"sync/atomic"

	"github.com/openjpki/jpki"
)

// A view is everything that is known: first what the log brought last, then what is being merged, then the base. Look-ups
// load it once and take no lock; whatever changes in it afterwards only makes it newer.
type view struct {
	parts  []*part  // never changed: replaced by a longer one
	active *overlay // written by whoever follows the log
	frozen *overlay // being merged into the base; nil at other times
}

// A part of the base holds the certificates of one issuer whose serials have one length, by their first octet.
type part struct {
	issuer   jpki.IssuerID
	length   int
	segments [256]atomic.Pointer[segment]
}

func (v *view) part(issuer jpki.IssuerID, length int) *part {
	for _, p := range v.parts {
		if p.length == length && p.issuer == issuer {
			return p
		}
	}
	return nil
}

// comparePlaces gives the parts their order in a snapshot.
func comparePlaces(a, b *part) int {
	return cmp.Or(strings.Compare(string(a.issuer.CA), string(b.issuer.CA)), cmp.Compare(a.issuer.Generation, b.issuer.Generation), cmp.Compare(a.length, b.length))
}

// find returns what the view knows of a certificate.
func (v *view) find(id jpki.CertID) (value, bool) {
	k, length := keyOf(id.Serial)
	p := v.part(id.Issuer, length)
	if p == nil {
		return value{}, false
	}
	return v.findIn(p, &k)
}

// count returns how many certificates the view has; not during a merge, and not while the overlay is written.
func (v *view) count() int64 {
	var n int64
	for _, p := range v.parts {
		for i := range p.segments {
			if s := p.segments[i].Load(); s != nil {
				n += int64(s.count)
			}
		}
	}
	for _, it := range v.active.items() {
		s := it.part.segments[it.key[0]].Load()
		if s == nil {
			n++
		} else if _, known := s.find(&it.key); !known {
			n++
		}
	}
	return n
}

func (v *view) findIn(p *part, k *key) (value, bool) {
	if i := v.active.find(p, k); i != nil {
		return i.value, true
	}
	if v.frozen != nil {
		if i := v.frozen.find(p, k); i != nil {
			return i.value, true
		}
	}
	s := p.segments[k[0]].Load()
	if s == nil {
		return value{}, false
	}
	return s.find(k)
}

// An overlay is a hash table that one goroutine writes while any number read it. An item never changes and is never removed,
// only replaced.
type overlay struct {
	table atomic.Pointer[[]atomic.Pointer[item]]
	count atomic.Int64
}

type item struct {
	part *part
	record
}

func newOverlay() *overlay {
	o := new(overlay)
	table := make([]atomic.Pointer[item], 64)
	o.table.Store(&table)
	return o
}

// slot returns where the search for a key begins in a table of a power of two. Only the authority chooses what is in the
// table, and its serials are random.
func (k *key) slot(size int) int {
	a, b, c := binary.LittleEndian.Uint64(k[:]), binary.LittleEndian.Uint64(k[8:]), binary.LittleEndian.Uint32(k[16:])
	const odd = 0x9e3779b97f4a7c15
	h := (a ^ bits.RotateLeft64(b*odd, 32) ^ uint64(c)) * odd
	h ^= h >> 32
	return int(h * odd >> 32 & uint64(size-1))
}

func (o *overlay) find(p *part, k *key) *item {
	if o.count.Load() == 0 {
		return nil
	}
	table := *o.table.Load()
	for i := k.slot(len(table)); ; i = (i + 1) & (len(table) - 1) {
		if it := table[i].Load(); it == nil || it.key == *k && it.part == p {
			return it
		}
	}
}

// put enters an item in place of the one with the same key. It is called by one goroutine at a time.
func (o *overlay) put(it *item) {
	table := *o.table.Load()
	if int(o.count.Load()) >= len(table)/2 {
		larger := make([]atomic.Pointer[item], 2*len(table))
		for i := range table {
			if old := table[i].Load(); old != nil {
				place(larger, old)
			}
		}
		o.table.Store(&larger)
		table = larger
	}
	if place(table, it) {
		o.count.Add(1)
	}
}

// place reports whether the item is new.
func place(table []atomic.Pointer[item], it *item) bool {
	for i := it.key.slot(len(table)); ; i = (i + 1) & (len(table) - 1) {
		old := table[i].Load()
		if old == nil || old.key == it.key && old.part == it.part {
			table[i].Store(it)
			return old == nil
		}
	}
}

// items returns them all, in no order.
func (o *overlay) items() []*item {
	out := make([]*item, 0, o.count.Load())
	table := *o.table.Load()
	for i := range table {
		if it := table[i].Load(); it != nil {
			out = append(out, it)
		}
	}
	return out
}
