package nightcheck

import (
	"bytes"
	"errors"
	"io"
	"sync"
)

// blockSize is how many octets of lines are read, checked and written together.
const blockSize = 256 << 10

// A block is some lines on their way.
type block struct {
	text    []byte // whole lines; in the place of one that is longer than a block there is nothing, and long is true
	long    bool
	first   int64 // number of the first line, from 1
	end     int64 // octets read up to here
	results []Result
	ready   chan struct{} // closed when the results are there
}

// each walks the lines that are not empty, without their ends; nil for one that is too long.
func (b *block) each(do func(n int64, text []byte)) {
	if b.long {
		do(b.first, nil)
		return
	}
	n := b.first
	for text := b.text; len(text) > 0; n++ {
		var one []byte
		one, text, _ = bytes.Cut(text, []byte("\n"))
		if one = bytes.TrimSuffix(one, []byte("\r")); len(one) > 0 {
			do(n, one)
		}
	}
}

// blocks reads lines into blocks.
type blocks struct {
	in   io.Reader
	rest []byte // of a line that is not whole yet
	line int64  // number of the next
	read int64
	over bool

	spare sync.Pool
}

func newBlocks(in io.Reader) *blocks {
	return &blocks{in: in, line: 1, spare: sync.Pool{New: func() any { return &block{text: make([]byte, 0, blockSize)} }}}
}

func (r *blocks) release(b *block) {
	if cap(b.results) < blockSize/4 { // not one of empty lines, which has many
		r.spare.Put(b)
	}
}

// head reads the first line.
func (r *blocks) head() (places, error) {
	text := make([]byte, 0, maxLine)
	for {
		if end := bytes.IndexByte(text, '\n'); end >= 0 {
			r.rest = bytes.Clone(text[end+1:])
			text = text[:end]
			break
		}
		if r.over {
			break
		}
		if len(text) == maxLine {
			return places{}, errors.New("the line is too long")
		}
		n, err := r.in.Read(text[len(text):cap(text)])
		text = text[:len(text)+n]
		r.read += int64(n)
		if r.over = err == io.EOF; err != nil && !r.over {
			return places{}, err
		}
	}
	r.line++
	return readHead(bytes.TrimSuffix(text, []byte("\r")))
}

// next reads a block of whole lines; io.EOF after the last.
func (r *blocks) next() (*block, error) {
	b, _ := r.spare.Get().(*block)
	b.first, b.long, b.ready = r.line, false, make(chan struct{})
	b.text = append(b.text[:0], r.rest...)
	r.rest = r.rest[:0]
	for !r.over && len(b.text) < blockSize {
		n, err := r.in.Read(b.text[len(b.text):blockSize])
		b.text = b.text[:len(b.text)+n]
		r.read += int64(n)
		if r.over = err == io.EOF; err != nil && !r.over {
			return nil, err
		}
	}
	b.end = r.read
	if len(b.text) == 0 {
		return nil, io.EOF
	}
	if end := bytes.LastIndexByte(b.text, '\n') + 1; end > 0 {
		r.rest = append(r.rest, b.text[end:]...)
		b.text = b.text[:end]
	} else if !r.over {
		b.long = true
		if err := r.skip(b); err != nil {
			return nil, err
		}
		r.line++
		return b, nil
	}
	r.line += int64(bytes.Count(b.text, []byte("\n")))
	return b, nil
}

// skip reads on to the end of a line that is longer than a block.
func (r *blocks) skip(b *block) error {
	for !r.over {
		n, err := r.in.Read(b.text[:blockSize])
		r.read += int64(n)
		if r.over = err == io.EOF; err != nil && !r.over {
			return err
		}
		if end := bytes.IndexByte(b.text[:n], '\n'); end >= 0 {
			r.rest = append(r.rest, b.text[end+1:n]...)
			break
		}
	}
	b.text, b.end = b.text[:0], r.read
	return nil
}
