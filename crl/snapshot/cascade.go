package snapshot

import (
	"encoding/binary"
	"errors"
)

// A cascade tells members of a set from the other elements of a universe, in two steps: an approximate filter that lets all members
// pass and of the others one in 2^columns; and an exact one over all who pass. With as many columns as make the sum smallest
// it needs about a tenth more than the entropy of the set. CRLite's successor works like this (Larisch and others,
// Clubcards for the WebPKI, IEEE S&P 2025).
type cascade struct {
	columns     int // bits of a value in the approximate filter; 0: there is none, all pass
	seeds       [2]uint8
	size        [2]int // octets in a column of either filter
	approximate []byte
	exact       []byte // empty: whoever passes is a member, or, without columns, what seeds[1] says
}

const (
	cascadeHead = 7 // octets in the directory
	maxColumns  = 16
	maxSeed     = 255
	maxColumn   = 1<<16 - 1 // octets

	spareFor      = 4096 // keys for which a filter has an octet to spare
	triesPerOctet = 2    // seeds that are tried before a filter grows by another
)

// The filters of a block have numbers, so that a key is never in the same place in two of them.
const (
	notGood  = uint8(0) // and 1
	suspends = uint8(2) // and 3
)

// contains reports whether an element of the universe is a member.
func (c *cascade) contains(k key, filter uint8) bool {
	return c.passes(k, filter) && c.decides(k, filter)
}

// passes asks the approximate filter, all its columns: none of them alone is likely enough to tell.
func (c *cascade) passes(k key, filter uint8) bool {
	if c.columns == 0 {
		return true
	}
	r, random := rowOf(k.state(filter, c.seeds[0]), c.size[0])
	var differ uint64
	for i := range c.columns {
		differ |= r.parity(c.approximate[i*c.size[0]:(i+1)*c.size[0]]) ^ random>>i
	}
	return differ&1 == 0
}

// decides asks the exact filter about one who passes.
func (c *cascade) decides(k key, filter uint8) bool {
	if len(c.exact) == 0 {
		return c.columns > 0 || c.seeds[1] == 1
	}
	r, _ := rowOf(k.state(filter+1, c.seeds[1]), c.size[1])
	return r.parity(c.exact) == 1
}

// startOfFirst and startOfSecond return where passes and decides begin to read, in each column.
func (c *cascade) startOfFirst(k key, filter uint8) int {
	return startOf(k.state(filter, c.seeds[0]), c.size[0])
}

func (c *cascade) startOfSecond(k key, filter uint8) int {
	return startOf(k.state(filter+1, c.seeds[1]), c.size[1])
}

// columnsFor returns how many columns make the sum of both filters smallest.
func columnsFor(members, others int) int {
	best, least := 0, float64(members+others)
	for columns := 1; columns <= maxColumns; columns++ {
		if bits := float64(members)*float64(columns+1) + float64(others)/float64(int(1)<<columns); bits < least {
			best, least = columns, bits
		}
	}
	return best
}

// cascadeFor builds the cascade of a set. The lists are not kept, but others may be put in another order.
func (s *solver) cascadeFor(members, others []key, filter uint8) (*cascade, error) {
	c := &cascade{}
	switch {
	case len(members) == 0:
		return c, nil
	case len(others) == 0:
		c.seeds[1] = 1
		return c, nil
	}
	var err error
	if c.columns = columnsFor(len(members), len(others)); c.columns > 0 {
		c.approximate, c.seeds[0], c.size[0], err = s.filterOf(members, filter, c.columns, func(_ int, random uint64) uint32 { return uint32(random) })
		if err != nil {
			return nil, err
		}
		passed := 0
		for i, k := range others {
			if c.passes(k, filter) {
				others[passed], others[i] = others[i], others[passed]
				passed++
			}
		}
		others = others[:passed]
	}
	if len(others) > 0 {
		s.both = append(append(s.both[:0], members...), others...)
		c.exact, c.seeds[1], c.size[1], err = s.filterOf(s.both, filter+1, 1, func(i int, _ uint64) uint32 {
			if i < len(members) {
				return 1
			}
			return 0
		})
	}
	return c, err
}

// filterOf tries seeds, and larger filters, until the equations can be solved. With rows of 256 bits, and hardly more unknowns
// than equations, every other system has a solution.
func (s *solver) filterOf(keys []key, filter uint8, columns int, valueOf func(int, uint64) uint32) (octets []byte, seed uint8, size int, err error) {
	for try := range maxSeed + 1 {
		size = (len(keys)+7)/8 + len(keys)/spareFor + try/triesPerOctet
		if size > maxColumn {
			break
		}
		if octets, ok := s.solve(keys, filter, uint8(try), size, columns, valueOf); ok {
			return append([]byte(nil), octets...), uint8(try), size, nil
		}
	}
	return nil, 0, 0, errors.New("no filter of the permitted size holds the keys")
}

// appendHead appends what the directory says of a cascade.
func (c *cascade) appendHead(b []byte) []byte {
	b = append(b, byte(c.columns), c.seeds[0], c.seeds[1])
	b = binary.LittleEndian.AppendUint16(b, uint16(c.size[0]))
	return binary.LittleEndian.AppendUint16(b, uint16(c.size[1]))
}

// parseHead reads what appendHead wrote; false for anything that it would not write.
func (c *cascade) parseHead(b []byte) bool {
	c.columns, c.seeds = int(b[0]), [2]uint8{b[1], b[2]}
	c.size = [2]int{int(binary.LittleEndian.Uint16(b[3:])), int(binary.LittleEndian.Uint16(b[5:]))}
	switch {
	case c.columns > maxColumns:
		return false
	case (c.columns == 0) != (c.size[0] == 0):
		return false
	case c.columns == 0 && c.seeds[0] != 0:
		return false
	case c.size[1] == 0 && c.columns > 0:
		return c.seeds[1] == 0
	case c.size[1] == 0:
		return c.seeds[1] <= 1
	}
	return true
}

// length returns the octets of both filters.
func (c *cascade) length() int { return c.columns*c.size[0] + c.size[1] }

// take lets the cascade read its filters from the beginning of b and returns the rest.
func (c *cascade) take(b []byte) []byte {
	n := c.columns * c.size[0]
	c.approximate, c.exact = b[:n], b[n:n+c.size[1]]
	return b[n+c.size[1]:]
}

func (c *cascade) appendTo(b []byte) []byte { return append(append(b, c.approximate...), c.exact...) }
