package snapshot

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"slices"
)

// An element is a certificate of the universe.
type element struct {
	key
	state uint8
}

// States in memory and in files; package jpki's have words.
const (
	good uint8 = iota
	suspended
	revoked
	states = 3
)

// A spill sorts elements into buckets by the first octet of their hashes, in a temporary file when they are many. It is what
// lets a universe of any size be built in little memory.
type spill struct {
	dir     string
	file    *os.File
	buckets [256]struct {
		waiting []byte
		chunks  []int64 // offsets in the file
	}
	end    int64
	counts [states]uint64
}

const (
	elementOctets = 17
	chunkOctets   = 960 * elementOctets // all chunks in the file are full
)

func (s *spill) add(e element) error {
	b := &s.buckets[e.a>>56]
	if len(b.waiting) == chunkOctets {
		if s.file == nil {
			f, err := os.CreateTemp(s.dir, "snapshot-*")
			if err != nil {
				return err
			}
			s.file = f
		}
		if _, err := s.file.WriteAt(b.waiting, s.end); err != nil {
			return err
		}
		b.chunks = append(b.chunks, s.end)
		s.end += chunkOctets
		b.waiting = b.waiting[:0]
	}
	b.waiting = binary.LittleEndian.AppendUint64(b.waiting, e.a)
	b.waiting = binary.LittleEndian.AppendUint64(b.waiting, e.b)
	b.waiting = append(b.waiting, e.state)
	s.counts[e.state]++
	return nil
}

// bucket returns the elements of one bucket in order of their hashes, each once.
func (s *spill) bucket(n int) ([]element, error) {
	b := &s.buckets[n]
	out := make([]element, 0, len(b.chunks)*chunkOctets/elementOctets+len(b.waiting)/elementOctets)
	read := func(chunk []byte) {
		for c := range slices.Chunk(chunk, elementOctets) {
			out = append(out, element{key{binary.LittleEndian.Uint64(c), binary.LittleEndian.Uint64(c[8:])}, c[16]})
		}
	}
	chunk := make([]byte, chunkOctets)
	for _, at := range b.chunks {
		if _, err := s.file.ReadAt(chunk, at); err != nil {
			return nil, err
		}
		read(chunk)
	}
	read(b.waiting)
	slices.SortFunc(out, func(x, y element) int { return compareKeys(x.key, y.key) })
	for i := 1; i < len(out); i++ {
		if out[i].key == out[i-1].key {
			return nil, errors.New("a serial is there twice")
		}
	}
	return out, nil
}

func compareKeys(x, y key) int {
	switch {
	case x.a < y.a:
		return -1
	case x.a > y.a:
		return 1
	case x.b < y.b:
		return -1
	case x.b > y.b:
		return 1
	}
	return 0
}

// remove removes the temporary file.
func (s *spill) remove() {
	if s.file != nil {
		_ = s.file.Close()
		_ = os.Remove(s.file.Name())
	}
}

// octets is a key in deltas: its first twelve octets as the hash has them.
func (k key) octets() (o [changeOctets]byte) {
	binary.LittleEndian.PutUint64(o[:], k.a)
	binary.LittleEndian.PutUint32(o[8:], uint32(k.b))
	return o
}

func compareOctets(x, y [changeOctets]byte) int { return bytes.Compare(x[:], y[:]) }
