package signer

import (
	"bufio"
	"errors"
	"io"
)

// lines reads lines of bounded length that end with a line feed.
type lines struct{ s *bufio.Scanner }

func newLines(r io.Reader) lines {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 4096), maxRecord+1)
	return lines{s}
}

func (l lines) next() ([]byte, error) {
	if l.s.Scan() {
		return l.s.Bytes(), nil
	}
	if l.s.Err() != nil {
		return nil, errors.New("a line is too long, or reading failed")
	}
	return nil, io.EOF
}
