package status

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"runtime"
	"sort"
	"time"

	"github.com/openjpki/jpki"
)

// A key is a serial's octets, left-aligned.
type key [20]byte

// A value is what is known of one certificate.
type value struct {
	since   int64 // Unix seconds; of a certificate that is good since its issuance it is not kept
	version uint32
	end     quarter // the certificate's notAfter
	state   byte    // an index of states
	reason  byte
}

// plain reports whether a class octet says it all.
func (v *value) plain() bool { return v.state == 0 && v.version == 1 }

// A record is one certificate on its way into a segment.
type record struct {
	key key
	value
}

// A quarter counts periods of 91 days since 1970, rounded up: exact enough for when to forget an expired certificate.
type quarter uint16

const (
	never         quarter = 1<<16 - 1
	quarterLength         = 91 * 24 * 60 * 60 // seconds
)

// A segment holds the certificates of one issuer whose serials have one length and begin with one octet. It never changes.
// Its memory, which is also its form in a snapshot, has three parts:
//
//	starts   2^bits+1 little-endian uint32: at which entry each bucket begins. A serial's bucket is the bits after its first octet.
//	entries  in the order of their serials: the octets that the bucket does not determine, and one for the class:
//	         bit 7, there are details; bits 0 to 6, the quarter of expiry from first on, 127 for later than that.
//	details  16 octets each, for what is not good in version 1: entry, version (uint32 each), since (int48), reason, state.
type segment struct {
	mem     []byte // all parts, and slack
	entries []byte
	details []byte

	count int     // entries
	size  int     // octets of an entry
	first quarter // expiry of the class octet 0
	head  byte    // first octet of every serial
	bits  uint8
	cut   uint8  // leading octets that are not stored, the first one and as many as the bucket determines
	shift uint8  // makes a word of what is stored, if that is less than 8 octets
	sum   uint32 // checksum of the memory without the slack
}

const (
	hasDetails = 0x80
	late       = 0x7f // class of an expiry too far away to be told, or unknown: such a certificate is never forgotten
	detailSize = 16
	slack      = 8 // a word can be read at the beginning of every entry
	maxBits    = 24

	// maxSegment bounds a segment's memory, and so what one merge needs beside the view: serials are random, so this is
	// reached at some ten thousand million certificates.
	maxSegment = 1 << 30
)

// castagnoli is CRC-32C: processors have it, so it costs a tenth of reading the file, and a wrong octet, or any burst of
// up to 32 wrong bits, never escapes it.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// bitsFor chooses how many bits select the bucket. With some dozens of entries in each the starts cost next to nothing, and
// what one looks for is still only a few entries from where it should be; somewhat more buckets are worth it where they
// spare every entry another octet.
func bitsFor(count, length int) uint8 {
	limit := min(maxBits, 8*(length-1))
	b := 0
	for b < limit && count>>(b+1) >= 24 {
		b++
	}
	if next := (b + 7) / 8 * 8; next <= limit && count>>next >= 8 {
		b = next
	}
	return uint8(b)
}

// newSegment returns a segment with memory for so many entries and details, all zero.
func newSegment(length int, head byte, bits uint8, first quarter, count, details int) (*segment, error) {
	s := &segment{count: count, size: length - int(bits/8), first: first, head: head, bits: bits, cut: 1 + bits/8}
	if stored := s.size - 1; stored < 8 {
		s.shift = uint8(64 - 8*stored)
	}
	starts, entries := 4*(1<<bits+1), count*s.size
	if starts+entries+details*detailSize > maxSegment {
		return nil, fmt.Errorf("%d certificates of one issuer begin with the octet %02X: too many", count, head)
	}
	s.mem = allot(s, starts+entries+details*detailSize+slack)
	s.entries = s.mem[starts:]
	s.details = s.mem[starts+entries : len(s.mem)-slack]
	return s, nil
}

// bytes is the segment as a snapshot has it.
func (s *segment) bytes() []byte { return s.mem[:len(s.mem)-slack] }

func (s *segment) bucket(k *key) uint32  { return binary.BigEndian.Uint32(k[1:]) >> (32 - s.bits) }
func (s *segment) start(b uint32) uint32 { return binary.LittleEndian.Uint32(s.mem[4*b:]) }
func (s *segment) class(i uint32) byte   { return s.entries[int(i)*s.size+s.size-1] }

// word is the first octets that are stored of a serial, as many as there are up to eight.
func (s *segment) word(i uint32) uint64 {
	return binary.BigEndian.Uint64(s.entries[int(i)*s.size:]) >> s.shift
}

// stored returns the octets that are stored of a serial.
func (s *segment) stored(i uint32) []byte { return s.entries[int(i)*s.size:][:s.size-1] }

// find returns what the segment has of a serial that begins with its octet and has its length.
func (s *segment) find(k *key) (v value, ok bool) {
	b := s.bucket(k)
	from, to := s.start(b), s.start(b+1)
	if from == to {
		return v, false
	}
	raw := binary.BigEndian.Uint64(k[s.cut:])
	want := raw >> s.shift
	// Serials are random, so the place can be computed, but for a few steps; where it cannot, halving finds it. Reading to
	// both sides at once has the memory of all these steps fetched together.
	i := from + uint32(raw<<(s.bits%8)>>32*uint64(to-from)>>32)
	left, right := max(i, from+stride)-stride, min(i+stride, to-1)
	a, m, z := s.word(left), s.word(i), s.word(right)
	if z < want {
		i = right
	} else if m >= want {
		i = left
	}
	if z < want || m < want || a < want {
		limit := min(to, i+steps)
		for i < limit && s.word(i) < want {
			i++
		}
		if i == limit {
			i = s.halve(i, to, want)
		}
	} else {
		limit := max(i, from+steps) - steps
		for i > limit && s.word(i-1) >= want {
			i--
		}
		if i == limit {
			i = s.halve(from, i, want)
		}
	}
	rest := k[s.cut:][:s.size-1]
	for ; i < to && s.word(i) == want; i++ {
		if bytes.Equal(s.stored(i), rest) {
			v = s.value(i)
			runtime.KeepAlive(s) // its memory goes when it goes
			return v, true
		}
	}
	runtime.KeepAlive(s)
	return v, false
}

// An entry is looked for within so many steps of where it should be; most are not farther than a stride.
const (
	stride = 4
	steps  = 32
)

// halve returns the first entry of a range, or its end, whose word is not less than want.
func (s *segment) halve(from, to uint32, want uint64) uint32 {
	return from + uint32(sort.Search(int(to-from), func(i int) bool { return s.word(from+uint32(i)) >= want }))
}

// value is what entry i says, but for the quarter.
func (s *segment) value(i uint32) value {
	if s.class(i)&hasDetails == 0 {
		return value{version: 1}
	}
	// Details are spread as evenly as one likes: where they cannot be computed, halving finds them.
	n := len(s.details) / detailSize
	at := int(uint64(i) * uint64(n) / uint64(s.count))
	for range steps {
		switch e := s.detailed(at); {
		case e == i:
			return detail(s.details[at*detailSize:])
		case e < i:
			at++
		default:
			at--
		}
	}
	at = sort.Search(n, func(j int) bool { return s.detailed(j) >= i })
	return detail(s.details[at*detailSize:])
}

// detailed returns the entry to which a detail belongs.
func (s *segment) detailed(j int) uint32 { return binary.LittleEndian.Uint32(s.details[j*detailSize:]) }

func detail(d []byte) value {
	return value{version: binary.LittleEndian.Uint32(d[4:]), since: int64(binary.LittleEndian.Uint64(d[8:])<<16) >> 16, reason: d[14], state: d[15]}
}

func (v *value) putDetail(d []byte, entry int) {
	binary.LittleEndian.PutUint32(d, uint32(entry))
	binary.LittleEndian.PutUint32(d[4:], v.version)
	binary.LittleEndian.PutUint64(d[8:], uint64(v.since))
	d[14], d[15] = v.reason, v.state
}

// A cursor walks through a segment in the order of its serials.
type cursor struct {
	s       *segment
	bucket  uint32
	i       int
	details []byte
}

// next returns the record after the last one, false at the end. A nil segment has none.
func (c *cursor) next(r *record) bool {
	s := c.s
	if s == nil || c.i == s.count {
		return false
	}
	for int(s.start(c.bucket+1)) == c.i {
		c.bucket++
	}
	*r = record{}
	binary.BigEndian.PutUint32(r.key[1:], uint32(uint64(c.bucket)<<(32-s.bits)))
	r.key[0] = s.head
	copy(r.key[s.cut:], s.stored(uint32(c.i)))
	class := s.class(uint32(c.i))
	if class&hasDetails != 0 {
		r.value, c.details = detail(c.details), c.details[detailSize:]
	} else {
		r.version = 1
	}
	if r.end = never; class&late != late {
		r.end = s.first + quarter(class&late)
	}
	c.i++
	return true
}

// eachMerged walks through a segment and newer records, both in order; the newer win. Those that forget names are left out.
func eachMerged(old *segment, newer []record, forget func(quarter) bool, yield func(*record)) {
	var r record
	c := cursor{s: old}
	if old != nil {
		c.details = old.details
	}
	more := c.next(&r)
	for more || len(newer) > 0 {
		next, order := &r, 1
		if len(newer) > 0 {
			if order = -1; more {
				order = bytes.Compare(newer[0].key[:], r.key[:])
			}
		}
		if order <= 0 {
			next, newer = &newer[0], newer[1:]
		}
		if !forget(next.end) {
			yield(next)
		}
		if order >= 0 {
			more = c.next(&r)
		}
	}
	runtime.KeepAlive(old)
}

// buildSegment returns the old segment, or nil, with newer records entered, which are in order, and without those to be
// forgotten; nil when nothing is left.
func buildSegment(length int, head byte, old *segment, newer []record, forget func(quarter) bool) (*segment, error) {
	count, details, first := 0, 0, never
	eachMerged(old, newer, forget, func(r *record) {
		if count++; !r.plain() {
			details++
		}
		first = min(first, r.end)
	})
	if count == 0 {
		return nil, nil
	}
	s, err := newSegment(length, head, bitsFor(count, length), first, count, details)
	if err != nil {
		return nil, err
	}
	i, d, begun := 0, s.details, uint32(0)
	begin := func(until uint32) {
		for ; begun <= until; begun++ {
			binary.LittleEndian.PutUint32(s.mem[4*begun:], uint32(i))
		}
	}
	eachMerged(old, newer, forget, func(r *record) {
		begin(s.bucket(&r.key))
		e := s.entries[i*s.size:][:s.size]
		copy(e, r.key[s.cut:length])
		class := byte(min(r.end-first, late))
		if !r.plain() {
			class |= hasDetails
			r.putDetail(d, i)
			d = d[detailSize:]
		}
		e[s.size-1] = class
		i++
	})
	begin(1 << s.bits)
	s.sum = crc32.Checksum(s.bytes(), castagnoli)
	return s, nil
}

// check looks at what came from outside: nothing in it may lead a look-up astray.
func (s *segment) check() error {
	if crc32.Checksum(s.bytes(), castagnoli) != s.sum {
		return errors.New("wrong checksum")
	}
	defer runtime.KeepAlive(s)
	buckets, within := uint32(1)<<s.bits, uint(8-s.bits%8)
	if s.start(0) != 0 || int(s.start(buckets)) != s.count || s.count == 0 {
		return errors.New("the buckets do not hold the entries")
	}
	details := s.details
	for b := range buckets {
		from, to := s.start(b), s.start(b+1)
		if from > to || int(to) > s.count {
			return errors.New("the buckets are not in order")
		}
		for i := from; i < to; i++ {
			stored, next := s.stored(i), s.word(i)
			if s.bits%8 != 0 && stored[0]>>within != byte(b&(1<<(s.bits%8)-1)) {
				return errors.New("a serial is in the wrong bucket")
			}
			if i > from && (s.word(i-1) > next || s.word(i-1) == next && bytes.Compare(s.stored(i-1), stored) >= 0) {
				return errors.New("the serials are not in order")
			}
			if c := s.class(i) & late; c != late && int(s.first)+int(c) > int(never) {
				return errors.New("an expiry is out of range")
			}
			if s.class(i)&hasDetails == 0 {
				continue
			}
			if len(details) == 0 || binary.LittleEndian.Uint32(details) != i {
				return errors.New("details do not belong to their entries")
			}
			if v := detail(details); v.plain() || int(v.state) >= len(states) {
				return errors.New("details say nothing")
			}
			details = details[detailSize:]
		}
	}
	if len(details) > 0 {
		return errors.New("details of nothing")
	}
	return nil
}

// keyOf returns a serial's octets and their number.
func keyOf(serial jpki.Serial) (k key, length int) {
	length = len(serial.Append(k[:0]))
	return k, length
}

// quarterOf returns the quarter in which a certificate is sure to have expired; never if that is not known.
func quarterOf(notAfter time.Time) quarter {
	if notAfter.IsZero() {
		return never
	}
	return quarter(min(max(0, (notAfter.Unix()+quarterLength)/quarterLength), int64(never)))
}

// before reports whether the whole quarter lies before t.
func (q quarter) before(t time.Time) bool { return q != never && int64(q)*quarterLength < t.Unix() }
