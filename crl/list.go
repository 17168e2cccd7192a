package crl

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"iter"
	"math/bits"
	"os"
	"slices"
	"time"

	"github.com/openjpki/jpki"
)

// A List is a CRL in memory for look-ups, in some 34 octets an entry. It is safe for concurrent use.
type List struct {
	head   Head
	layers []layer // the newest first: deltas, and last a complete list; or one delta
}

// Load reads and verifies a list as [Read] does and keeps its entries. A list that names a serial twice is refused.
func Load(r io.Reader, issuer *x509.Certificate) (*List, error) {
	l := layer{seed: maphash.MakeSeed()}
	head, err := readVerified(r, issuer, l.add)
	if err != nil {
		return nil, err
	}
	if err := l.index(head.Entries); err != nil {
		return nil, fmt.Errorf("read CRL: %w", err)
	}
	return &List{*head, []layer{l}}, nil
}

// OpenList is [Load] of a file, which is not needed afterwards.
func OpenList(path string, issuer *x509.Certificate) (*List, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	l, err := Load(f, issuer)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return l, nil
}

// Head returns what the list says besides its entries. Of a combined list number and times are the delta's, and Entries
// counts what the complete list and the delta say together, some of it twice.
func (l *List) Head() Head { return l.head }

// Find returns the entry of a serial. In a delta CRL it may be one with the reason [jpki.RemoveFromCRL].
func (l *List) Find(serial jpki.Serial) (Entry, bool) {
	var octets [20]byte
	want := serial.Append(octets[:0])
	for i := range l.layers {
		if at, reason, ok := l.layers[i].find(want); ok {
			if reason == jpki.RemoveFromCRL && !l.head.Delta() {
				return Entry{}, false
			}
			return Entry{Serial: serial, At: time.Unix(at, 0).UTC(), Reason: reason}, true
		}
	}
	return Entry{}, false
}

// All walks the entries, those of the newest layer first, each serial once.
func (l *List) All() iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		for i := range l.layers {
			for e := range l.layers[i].all() {
				hidden := slices.ContainsFunc(l.layers[:i], func(newer layer) bool { _, _, ok := newer.find(e.serial); return ok })
				if hidden || e.reason == jpki.RemoveFromCRL && !l.head.Delta() {
					continue
				}
				entry, err := e.entry()
				if err != nil {
					continue // cannot be: only serials were kept
				}
				if !yield(entry) {
					return
				}
			}
		}
	}
}

// ErrCombine is the reason why a complete list and a delta do not go together.
var ErrCombine = errors.New("the complete CRL and the delta do not go together")

// Combine returns what a complete list says once a delta has changed it (RFC 5280 §5.2.4): both of the same issuer, key
// and scope, the complete one no older than the delta's base and older than the delta. It shares the memory of both, and may
// itself be combined with a later delta.
func Combine(complete, delta *List) (*List, error) {
	a, b := &complete.head, &delta.head
	wrong := ""
	switch {
	case a.Delta():
		wrong = "the complete one is itself a delta"
	case !b.Delta():
		wrong = "the delta is a complete one"
	case a.Number == nil || b.Number == nil:
		wrong = "one has no number"
	case !bytes.Equal(a.Issuer, b.Issuer):
		wrong = "of different issuers"
	case !bytes.Equal(a.AuthorityKeyID, b.AuthorityKeyID):
		wrong = "of different keys"
	case (a.scope == nil) != (b.scope == nil) || !bytes.Equal(a.scope, b.scope):
		wrong = "of different scopes"
	case a.Number.Cmp(b.Base) < 0:
		wrong = fmt.Sprintf("the complete one has number %v, the delta changes %v or later", a.Number, b.Base)
	case a.Number.Cmp(b.Number) >= 0:
		wrong = fmt.Sprintf("the complete one has number %v, the delta is of %v", a.Number, b.Number)
	case b.ThisUpdate.Before(a.ThisUpdate):
		wrong = "the delta is older"
	}
	if wrong != "" {
		return nil, fmt.Errorf("%w: %s", ErrCombine, wrong)
	}
	head := *a
	head.Number, head.ThisUpdate, head.NextUpdate, head.Algorithm = b.Number, b.ThisUpdate, b.NextUpdate, b.Algorithm
	head.Entries, head.Ascending = a.Entries+b.Entries, false
	return &List{head, slices.Concat(delta.layers, complete.layers)}, nil
}

// A layer is the entries of one list. Each is a record, one after the other in pages: length of the serial, serial, reason, five
// octets of time. slots is a hash table of their places: the upper half of a slot is a part of the serial's hash, the
// lower half the place plus one. There is no pointer to an entry, so the garbage collector has nothing to do.
type layer struct {
	seed  maphash.Seed
	pages [][]byte
	slots []uint64
}

const (
	pageBits = 20
	pageSize = 1 << pageBits
	// timeBias makes every time of a list positive: they begin in 1950.
	timeBias = 1 << 30
)

func (l *layer) add(e *rawEntry) error {
	size := 1 + len(e.serial) + 1 + 5
	last := len(l.pages) - 1
	if last < 0 || len(l.pages[last])+size > pageSize {
		if len(l.pages) == 1<<(32-pageBits)-1 {
			return errors.New("more entries than admitted")
		}
		capacity := 0
		if last >= 0 {
			capacity = pageSize // one is full: this is no small list
		}
		l.pages = append(l.pages, make([]byte, 0, capacity))
		last++
	}
	p := append(l.pages[last], byte(len(e.serial)))
	p = append(p, e.serial...)
	t := uint64(e.at + timeBias)
	l.pages[last] = append(p, byte(e.reason), byte(t>>32), byte(t>>24), byte(t>>16), byte(t>>8), byte(t))
	return nil
}

// index makes the hash table, three quarters full.
func (l *layer) index(entries int) error {
	if n := len(l.pages); n > 0 {
		l.pages[n-1] = bytes.Clone(l.pages[n-1]) // without what it could have grown to
	}
	l.slots = make([]uint64, entries+entries/3+1)
	for page := range l.pages {
		for at := 0; at < len(l.pages[page]); {
			serial := l.serial(uint32(page)<<pageBits | uint32(at))
			hash := maphash.Bytes(l.seed, serial)
			i := l.slot(hash)
			for ; l.slots[i] != 0; i = l.next(i) {
				if l.slots[i]>>32 == hash&(1<<32-1) && bytes.Equal(l.serial(uint32(l.slots[i])-1), serial) {
					return fmt.Errorf("entry %X is there twice", serial)
				}
			}
			l.slots[i] = hash<<32 | (uint64(page)<<pageBits | uint64(at)) + 1
			at += 1 + len(serial) + 1 + 5
		}
	}
	return nil
}

// slot returns where the search for a hash begins; next where it goes on.
func (l *layer) slot(hash uint64) int {
	hi, _ := bits.Mul64(hash, uint64(len(l.slots)))
	return int(hi)
}

func (l *layer) next(i int) int {
	if i++; i == len(l.slots) {
		return 0
	}
	return i
}

func (l *layer) serial(place uint32) []byte {
	b := l.pages[place>>pageBits][place&(pageSize-1):]
	return b[1 : 1+b[0]]
}

func (l *layer) find(serial []byte) (at int64, reason jpki.Reason, ok bool) {
	if len(l.slots) == 0 {
		return 0, 0, false
	}
	hash := maphash.Bytes(l.seed, serial)
	for i := l.slot(hash); l.slots[i] != 0; i = l.next(i) {
		if l.slots[i]>>32 != hash&(1<<32-1) {
			continue
		}
		place := uint32(l.slots[i]) - 1
		b := l.pages[place>>pageBits][place&(pageSize-1):]
		if bytes.Equal(b[1:1+b[0]], serial) {
			at, reason = readRecord(b[1+b[0]:])
			return at, reason, true
		}
	}
	return 0, 0, false
}

// readRecord reads what follows the serial.
func readRecord(b []byte) (at int64, reason jpki.Reason) {
	t := uint64(b[1])<<32 | uint64(b[2])<<24 | uint64(b[3])<<16 | uint64(b[4])<<8 | uint64(b[5])
	return int64(t) - timeBias, jpki.Reason(b[0])
}

func (l *layer) all() iter.Seq[rawEntry] {
	return func(yield func(rawEntry) bool) {
		for _, page := range l.pages {
			for len(page) > 0 {
				n := 1 + int(page[0])
				at, reason := readRecord(page[n:])
				if !yield(rawEntry{page[1:n], at, reason}) {
					return
				}
				page = page[n+6:]
			}
		}
	}
}
