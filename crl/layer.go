package crl

import (
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"iter"
	"math/bits"
	"time"

	"github.com/openjpki/jpki"
)

// A layer is the entries of one list in a hash table of lines of 64 octets, as processors fetch them, so that a look-up waits for
// memory once. In a line there are three entries, or two if there are serials of more than 16 octets: the serials, in words, and
// behind them 42 bits for each, time and reason. An entry whose line is full is in the next that is not. There is no pointer in it,
// so the garbage collector has nothing to do; the hash is seeded, so that nobody can choose serials that meet in one line.
type layer struct {
	seed  maphash.Seed
	table []byte
	lines uint64
	wide  bool // two entries in a line
}

const (
	lineOctets = 64
	metaBits   = 42 // 38 of time, 4 of reason + 1
	metaMask   = 1<<metaBits - 1

	// timeBias makes every time of a list positive: they begin in 1950. Until the end of 9999 they need 38 bits.
	timeBias = 1 << 30
)

// newLayer returns an empty table: 36 octets for each entry, or 40.
func newLayer(entries int, wide bool) layer {
	lines := entries*9/16 + 1
	if wide {
		lines = entries*5/8 + 1
	}
	l := layer{seed: maphash.MakeSeed(), table: make([]byte, lines*lineOctets), lines: uint64(lines), wide: wide}
	useLargePages(l.table)
	return l
}

// slots returns how many entries a line has.
func (l *layer) slots() int {
	if l.wide {
		return 2
	}
	return 3
}

// lineOf returns the line where a serial is, or would be if that is not full.
func (l *layer) lineOf(n number) uint64 {
	var b [24]byte
	binary.LittleEndian.PutUint64(b[:], n.lo)
	binary.LittleEndian.PutUint64(b[8:], n.mid)
	octets := b[:16]
	if l.wide {
		binary.LittleEndian.PutUint64(b[16:], n.hi)
		octets = b[:]
	}
	at, _ := bits.Mul64(maphash.Bytes(l.seed, octets), l.lines)
	return at
}

// A line is one line of a table.
type line [lineOctets]byte

func (l *layer) line(at uint64) *line { return (*line)(l.table[at*lineOctets:]) }

func (b *line) word(i int) uint64 { return binary.LittleEndian.Uint64(b[8*i:]) }

func (b *line) setWord(i int, w uint64) { binary.LittleEndian.PutUint64(b[8*i:], w) }

// serial returns the serial of an entry, 0 if there is none.
func (b *line) serial(slot int, wide bool) number {
	if wide {
		return number{b.word(3*slot + 2), b.word(3*slot + 1), b.word(3 * slot)}
	}
	return number{0, b.word(2*slot + 1), b.word(2 * slot)}
}

// meta returns time and reason of an entry. The third of a line has what the last two words leave over.
func (b *line) meta(slot int) uint64 {
	if slot < 2 {
		return b.word(6+slot) & metaMask
	}
	return b.word(6)>>metaBits | b.word(7)>>metaBits<<(64-metaBits)&metaMask
}

func (b *line) set(slot int, wide bool, n number, meta uint64) {
	if wide {
		b.setWord(3*slot, n.lo)
		b.setWord(3*slot+1, n.mid)
		b.setWord(3*slot+2, n.hi)
	} else {
		b.setWord(2*slot, n.lo)
		b.setWord(2*slot+1, n.mid)
	}
	if slot < 2 {
		b.setWord(6+slot, b.word(6+slot)|meta)
		return
	}
	b.setWord(6, b.word(6)|meta<<metaBits)
	b.setWord(7, b.word(7)|meta>>(64-metaBits)<<metaBits)
}

// add puts an entry in; false if its serial is there already.
func (l *layer) add(n number, meta uint64) bool {
	for at := l.lineOf(n); ; {
		b := l.line(at)
		for slot := range l.slots() {
			switch b.serial(slot, l.wide) {
			case number{}:
				b.set(slot, l.wide, n, meta)
				return true
			case n:
				return false
			}
		}
		if at++; at == l.lines {
			at = 0
		}
	}
}

func (l *layer) find(n number) (when int64, reason jpki.Reason, ok bool) {
	if n == (number{}) || l.lines == 0 || n.hi != 0 && !l.wide {
		return 0, 0, false
	}
	for at := l.lineOf(n); ; {
		b := l.line(at)
		meta, ok := b.find(n, l.wide)
		if ok {
			when, reason = readMeta(meta)
			return when, reason, true
		}
		if b.serial(l.slots()-1, l.wide) == (number{}) { // the last is filled last
			return 0, 0, false
		}
		if at++; at == l.lines {
			at = 0
		}
	}
}

// find returns the meta of a serial. It does not branch on which of the entries that is: a processor that guessed wrong would
// have to wait for the line before it could begin with the next look-up.
func (b *line) find(n number, wide bool) (meta uint64, ok bool) {
	var is [3]uint64 // all ones, or 0
	if wide {
		is[0] = allIfZero((b.word(0) ^ n.lo) | (b.word(1) ^ n.mid) | (b.word(2) ^ n.hi))
		is[1] = allIfZero((b.word(3) ^ n.lo) | (b.word(4) ^ n.mid) | (b.word(5) ^ n.hi))
	} else {
		is[0] = allIfZero((b.word(0) ^ n.lo) | (b.word(1) ^ n.mid))
		is[1] = allIfZero((b.word(2) ^ n.lo) | (b.word(3) ^ n.mid))
		is[2] = allIfZero((b.word(4) ^ n.lo) | (b.word(5) ^ n.mid))
	}
	return b.meta(0)&is[0] | b.meta(1)&is[1] | b.meta(2)&is[2], is[0]|is[1]|is[2] != 0
}

func allIfZero(w uint64) uint64 { return (w|-w)>>63 - 1 }

func metaOf(at int64, reason jpki.Reason) uint64 { return uint64(at+timeBias)<<4 | uint64(reason+1) }

func readMeta(meta uint64) (at int64, reason jpki.Reason) {
	return int64(meta>>4) - timeBias, jpki.Reason(meta&15) - 1
}

func entryOf(n number, meta uint64) Entry {
	var b [20]byte
	binary.BigEndian.PutUint32(b[:], uint32(n.hi))
	binary.BigEndian.PutUint64(b[4:], n.mid)
	binary.BigEndian.PutUint64(b[12:], n.lo)
	at, reason := readMeta(meta)
	e := Entry{At: time.Unix(at, 0).UTC(), Reason: reason}
	_ = e.Serial.SetBytes(b[:]) // one that was read
	return e
}

// all walks the table: in no order.
func (l *layer) all() iter.Seq2[number, Entry] {
	return func(yield func(number, Entry) bool) {
		for at := range l.lines {
			b := l.line(at)
			for slot := range l.slots() {
				n := b.serial(slot, l.wide)
				if n == (number{}) {
					break
				}
				if !yield(n, entryOf(n, b.meta(slot))) {
					return
				}
			}
		}
	}
}

// A heap is the entries of a list of unknown length on their way into a layer: their words and meta, one behind the other.
type heap struct {
	pages [][]uint64
	wide  bool
}

const pageWords = 1 << 17

func (h *heap) add(e *rawEntry) error {
	const words = 4
	last := len(h.pages) - 1
	if last < 0 || len(h.pages[last])+words > pageWords {
		capacity := 0
		if last >= 0 {
			capacity = pageWords // one is full: this is no small list
		}
		h.pages = append(h.pages, make([]uint64, 0, capacity))
		last++
	}
	meta := metaOf(e.at, e.reason)
	if e.number.hi != 0 {
		h.wide = true
	}
	h.pages[last] = append(h.pages[last], e.number.lo, e.number.mid, e.number.hi, meta)
	return nil
}

// layer makes the hash table of a heap, which it uses up.
func (h *heap) layer(entries int) (layer, error) {
	l := newLayer(entries, h.wide)
	for i, page := range h.pages {
		h.pages[i] = nil
		for ; len(page) > 0; page = page[4:] {
			n := number{page[2], page[1], page[0]}
			if !l.add(n, page[3]) {
				return layer{}, fmt.Errorf("entry %X is there twice", entryOf(n, page[3]).Serial.Bytes())
			}
		}
	}
	return l, nil
}
