package snapshot

import (
	"encoding/binary"
	"math/bits"
)

// A key is the hash of a serial: 128 bits as two words.
type key struct{ a, b uint64 }

// Ribbon filters (Dillinger, Hübschle-Schneider, Sanders, Walzer: Fast Succinct Retrieval and Approximate Membership using
// Ribbon, SEA 2022) are systems of linear equations over GF(2). Each key is one equation: the exclusive or of those unknowns
// that 256 random bits from some random place on select is the key's value. The unknowns, solved, are all that is stored, in
// little more than one bit for each key; what a key was not among the equations has a random value. That the ones of a row
// lie close together lets elimination touch neighbours only, and a look-up read 32 octets in a row.
const (
	rowWords  = 4
	rowOctets = 8 * rowWords
)

// A row is an equation's left side: which of the octets from start on, and which of their bits.
type row struct {
	start int
	bits  [rowWords]uint64
}

// golden is 2^64 divided by the golden ratio: the increment of splitmix64.
const golden = 0x9e3779b97f4a7c15

// mix is the output function of splitmix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// state is where a key's stream of random words begins, which differs for every filter and every seed of one.
func (k key) state(filter, seed uint8) uint64 {
	return mix(k.a^(uint64(filter)<<8|uint64(seed))*golden) + k.b
}

// startOf returns where the equation of a key begins in a filter with size octets for each bit of value.
func startOf(state uint64, size int) int {
	span := uint64(1)
	if size > rowOctets {
		span = uint64(size-rowOctets) + 1
	}
	at, _ := bits.Mul64(mix(state+golden), span)
	return int(at)
}

// rowOf returns the whole equation, and 64 bits to choose a value from.
func rowOf(state uint64, size int) (r row, value uint64) {
	r.start = startOf(state, size)
	z := state + golden
	for i := range r.bits {
		z += golden
		r.bits[i] = mix(z)
	}
	return r, mix(z + golden)
}

// parity returns the exclusive or of what a row selects of one column of a filter.
func (r *row) parity(column []byte) uint64 {
	if len(column) < rowOctets {
		return r.parityOfFew(column)
	}
	c := column[r.start : r.start+rowOctets]
	x := r.bits[0]&binary.LittleEndian.Uint64(c) ^
		r.bits[1]&binary.LittleEndian.Uint64(c[8:]) ^
		r.bits[2]&binary.LittleEndian.Uint64(c[16:]) ^
		r.bits[3]&binary.LittleEndian.Uint64(c[24:])
	return uint64(bits.OnesCount64(x)) & 1
}

// parityOfFew is parity of a column shorter than a row.
func (r *row) parityOfFew(column []byte) uint64 {
	var c [rowOctets]byte
	copy(c[:], column)
	whole := row{bits: r.bits}
	return whole.parity(c[:])
}

// A solver solves the equations of one filter after the other in the same memory.
type solver struct {
	rows   [][rowWords]uint64 // by the place of their first one, which is shifted to bit 0; zero: none
	values []uint32           // right sides, a bit for each column
	out    []byte
	both   []key // of cascadeFor
}

// solve returns the columns of a filter of size octets each, one after the other, in which every key has its value of
// so many bits; false if the equations contradict each other. The result is valid until the next call.
func (s *solver) solve(keys []key, filter, seed uint8, size, columns int, valueOf func(i int, random uint64) uint32) ([]byte, bool) {
	n := 8 * size
	s.rows = resize(s.rows, n)
	s.values = resize(s.values, n)
	mask := uint32(1)<<columns - 1
	for i, k := range keys {
		r, random := rowOf(k.state(filter, seed), size)
		if !s.add(r, valueOf(i, random)&mask, n) {
			return nil, false
		}
	}
	s.out = resize(s.out, size*columns)
	s.substitute(n, size, columns)
	return s.out, true
}

func resize[T any](b []T, n int) []T {
	if cap(b) < n {
		return make([]T, n)
	}
	b = b[:n]
	clear(b)
	return b
}

// add brings an equation into the triangle; false if it contradicts those that are there.
func (s *solver) add(r row, value uint32, n int) bool {
	at, w := 8*r.start, r.bits
	if n < 64*rowWords { // only the unknowns that exist
		for i := range w {
			switch left := n - 64*i; {
			case left <= 0:
				w[i] = 0
			case left < 64:
				w[i] &= 1<<left - 1
			}
		}
	}
	for {
		// Shift until bit 0 is set.
		for w[0] == 0 {
			if w[1]|w[2]|w[3] == 0 {
				return value == 0
			}
			w[0], w[1], w[2], w[3] = w[1], w[2], w[3], 0
			at += 64
		}
		if z := bits.TrailingZeros64(w[0]); z > 0 {
			w[0] = w[0]>>z | w[1]<<(64-z)
			w[1] = w[1]>>z | w[2]<<(64-z)
			w[2] = w[2]>>z | w[3]<<(64-z)
			w[3] >>= z
			at += z
		}
		there := &s.rows[at]
		if there[0] == 0 {
			*there, s.values[at] = w, value
			return true
		}
		w[0] ^= there[0]
		w[1] ^= there[1]
		w[2] ^= there[2]
		w[3] ^= there[3]
		value ^= s.values[at]
	}
}

// substitute finds the unknowns from the last to the first; those that no equation begins with are 0.
func (s *solver) substitute(n, size, columns int) {
	for c := range columns {
		column := s.out[c*size : (c+1)*size]
		var w [rowWords]uint64 // the unknowns from the present one on
		for i := n - 1; i >= 0; i-- {
			w[3] = w[3]<<1 | w[2]>>63
			w[2] = w[2]<<1 | w[1]>>63
			w[1] = w[1]<<1 | w[0]>>63
			w[0] <<= 1
			if r := &s.rows[i]; r[0] != 0 {
				x := r[0]&w[0] ^ r[1]&w[1] ^ r[2]&w[2] ^ r[3]&w[3]
				if uint32(bits.OnesCount64(x))&1 != s.values[i]>>c&1 {
					w[0] |= 1
					column[i/8] |= 1 << (i % 8)
				}
			}
		}
	}
}
