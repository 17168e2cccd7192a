package status

import (
	"bufio"
	"bytes"
	"errors"
	"hash/crc32"
)

// Settle returns when no merge is under way.
func Settle(x *Index) { x.afterMerge() }

// Overlay returns how many certificates are not packed.
func Overlay(x *Index) int { return int(x.view.Load().active.count.Load()) }

// Rewrite reads a snapshot as an index does, checks that every certificate in it is found, and writes it anew.
func Rewrite(data []byte) ([]byte, error) {
	s, err := readDirectory(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return nil, err
	}
	if err := s.loadAll(bytes.NewReader(data)); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	w := &writer{w: bufio.NewWriter(&out), offset: int64(headerSize)}
	for _, p := range s.parts {
		w.part(p.issuer, p.length)
		for i := range p.segments {
			seg := p.segments[i].Load()
			if seg == nil {
				continue
			}
			if err := findAll(seg); err != nil {
				return nil, err
			}
			if err := w.segment(seg); err != nil {
				return nil, err
			}
		}
	}
	dir, err := w.directory(s.created, s.last)
	if err != nil {
		return nil, err
	}
	_ = w.w.Flush()
	return append(append(header(w.offset, dir, s.trial), out.Bytes()...), dir...), nil
}

// ErrLost is an error that Rewrite must never return.
var ErrLost = errors.New("a certificate in a segment is not found, or one that is not in it is")

func findAll(s *segment) error {
	var r record
	c := cursor{s: s, details: s.details}
	for c.next(&r) {
		v, ok := s.find(&r.key)
		v.end = r.end
		if !ok || v != r.value {
			return ErrLost
		}
	}
	return nil
}

// Mend corrects the checksums of a damaged snapshot, as far as its parts can be told.
func Mend(data []byte) []byte {
	data = bytes.Clone(data)
	if len(data) < headerSize {
		return data
	}
	d := decoder{b: data[len(magic)+8:]}
	offset, length := d.uint64(), d.uint32()
	if offset > uint64(len(data)) || uint64(length) > uint64(len(data))-offset {
		return data
	}
	dir := data[offset:][:length]
	sums := func() {
		end := headerSize - 4
		putSum(data[end-4:], dir)
		putSum(data[end:], data[:end])
	}
	sums()
	s, err := readDirectory(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return data
	}
	for _, p := range s.parts {
		for i := range p.sections {
			sec := &p.sections[i]
			sec.sum = crc32.Checksum(data[sec.offset:][:sec.size(p.length)], castagnoli)
		}
	}
	w := writer{parts: s.parts}
	if mended, err := w.directory(s.created, s.last); err == nil && len(mended) == len(dir) {
		copy(dir, mended)
		sums()
	}
	return data
}

func putSum(at, of []byte) {
	sum := crc32.Checksum(of, castagnoli)
	at[0], at[1], at[2], at[3] = byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24)
}
