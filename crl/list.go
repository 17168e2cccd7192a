package crl

import (
	"bytes"
	"crypto/x509"
	"encoding/binary"
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

// A List is a CRL in memory for look-ups, in 38 octets an entry if its serials have 16, as ours. It is safe for concurrent use.
type List struct {
	head   Head
	layers []layer // the newest first: deltas, and last a complete list; or one delta
}

// Load reads and verifies a list as [Read] does and keeps its entries. A list that names a serial twice is refused.
func Load(r io.Reader, issuer *x509.Certificate) (*List, error) {
	var h heap
	head, err := readVerified(r, issuer, false, h.add)
	if err != nil {
		return nil, err
	}
	l, err := h.layer(head.Entries)
	if err != nil {
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
	var octets [21]byte
	want := serial.Append(octets[:1])
	want[0] = byte(len(want) - 1)
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

// All walks the entries in no order, each serial once.
func (l *List) All() iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		for i := range l.layers {
			for e := range l.layers[i].all() {
				hidden := slices.ContainsFunc(l.layers[:i], func(newer layer) bool { _, _, ok := newer.find(e.serial); return ok })
				if hidden || e.reason == jpki.RemoveFromCRL && !l.head.Delta() {
					continue
				}
				e.serial = e.serial[1:]
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

// A layer is the entries of one list, in a hash table of octets, three fifths full, that a look-up reads in one place:
// length of the serial (0 where there is no entry), serial and room for the longest, reason, five octets of time. There is no
// pointer in it, so the garbage collector has nothing to do.
type layer struct {
	seed   maphash.Seed
	table  []byte
	stride int // octets of a place in the table
}

// timeBias makes every time of a list positive: they begin in 1950.
const timeBias = 1 << 30

// A heap is the entries of a list of unknown length on their way into a layer: as in its table, but one behind the other.
type heap struct {
	pages   [][]byte
	longest int // octets of a serial
}

const pageSize = 1 << 20

func (h *heap) add(e *rawEntry) error {
	last := len(h.pages) - 1
	if last < 0 || len(h.pages[last])+1+len(e.serial)+6 > pageSize {
		capacity := 0
		if last >= 0 {
			capacity = pageSize // one is full: this is no small list
		}
		h.pages = append(h.pages, make([]byte, 0, capacity))
		last++
	}
	h.longest = max(h.longest, len(e.serial))
	p := append(h.pages[last], byte(len(e.serial)))
	p = append(p, e.serial...)
	t := uint64(e.at + timeBias)
	h.pages[last] = append(p, byte(e.reason), byte(t>>32), byte(t>>24), byte(t>>16), byte(t>>8), byte(t))
	return nil
}

// layer makes the hash table of a heap, which it uses up.
func (h *heap) layer(entries int) (layer, error) {
	l := layer{seed: maphash.MakeSeed(), stride: 1 + h.longest + 6}
	l.table = make([]byte, (entries+entries*2/3+1)*l.stride)
	for i, page := range h.pages {
		h.pages[i] = nil
		for len(page) > 0 {
			serial, rest := page[:1+page[0]], page[1+page[0]:]
			at, found := l.place(l.home(serial), serial)
			if found {
				return layer{}, fmt.Errorf("entry %X is there twice", serial[1:])
			}
			copy(l.table[at:], serial)
			copy(l.table[at+l.stride-6:], rest[:6])
			page = rest[6:]
		}
	}
	return l, nil
}

// home returns where in the table one begins to look for a serial that has its length before it.
func (l *layer) home(serial []byte) int {
	hi, _ := bits.Mul64(maphash.Bytes(l.seed, serial), uint64(len(l.table)/l.stride))
	return int(hi) * l.stride
}

// place returns where in the table, from its home on, a serial stands or would have to.
func (l *layer) place(home int, serial []byte) (at int, found bool) {
	if len(serial) == usualSerial && l.stride >= usualSerial {
		return l.placeUsual(home, serial)
	}
	for at = home; l.table[at] != 0; {
		if bytes.Equal(l.table[at:at+len(serial)], serial) {
			return at, true
		}
		if at += l.stride; at == len(l.table) {
			at = 0
		}
	}
	return at, false
}

// usualSerial is the length of nearly all serials, and the octet that says so: they are compared by words.
const usualSerial = 1 + jpki.SerialBytes

func (l *layer) placeUsual(home int, serial []byte) (at int, found bool) {
	le := binary.LittleEndian
	first, second := le.Uint64(serial[1:]), le.Uint64(serial[9:usualSerial])
	for at = home; ; {
		there := l.table[at : at+usualSerial]
		if le.Uint64(there[1:]) == first && le.Uint64(there[9:]) == second && there[0] == usualSerial-1 {
			return at, true
		}
		if there[0] == 0 {
			return at, false
		}
		if at += l.stride; at == len(l.table) {
			at = 0
		}
	}
}

func (l *layer) find(serial []byte) (when int64, reason jpki.Reason, ok bool) {
	home := l.home(serial)
	l.touch(home) // both lines at once, not the next when the first is there
	return l.findFrom(home, serial)
}

func (l *layer) findFrom(home int, serial []byte) (when int64, reason jpki.Reason, ok bool) {
	if len(serial) > l.stride-6 {
		return 0, 0, false
	}
	at, ok := l.place(home, serial)
	if !ok {
		return 0, 0, false
	}
	when, reason = readRecord(l.table[at+l.stride-6:])
	return when, reason, true
}

// readRecord reads what follows the serial.
func readRecord(b []byte) (at int64, reason jpki.Reason) {
	t := uint64(b[1])<<32 | uint64(b[2])<<24 | uint64(b[3])<<16 | uint64(b[4])<<8 | uint64(b[5])
	return int64(t) - timeBias, jpki.Reason(b[0])
}

// all walks the table: in no order. Each serial has its length before it.
func (l *layer) all() iter.Seq[rawEntry] {
	return func(yield func(rawEntry) bool) {
		for table := l.table; len(table) > 0; table = table[l.stride:] {
			if table[0] == 0 {
				continue
			}
			at, reason := readRecord(table[l.stride-6:])
			if !yield(rawEntry{serial: table[:1+table[0]], at: at, reason: reason}) {
				return
			}
		}
	}
}
