package snapshot

import (
	"github.com/openjpki/jpki"
)

// ReadHeader is what is read of a file before its signature is checked; again is the header written anew.
func ReadHeader(file []byte) (again []byte, err error) {
	if len(file) < headerOctets {
		return nil, nil
	}
	h, err := parseHeader(file)
	if err != nil {
		return nil, err
	}
	return h.encode(), nil
}

// ReadBody asks a body that nobody has signed about a serial.
func ReadBody(body []byte, blocks uint32, serial jpki.Serial) (state jpki.State, ok bool, err error) {
	s := &Snapshot{}
	if err := s.parseBody(body, blocks); err != nil {
		return "", false, err
	}
	n, ok := s.state(s.hasher.key(serial))
	return words[n], ok, nil
}

// ReadDelta applies a delta's body that nobody has signed and returns how many changes the reader then has.
func ReadDelta(body []byte, units uint32) (int, error) {
	info := Info{Sequence: 1}
	s := &Snapshot{info: info, base: 1}
	info.Sequence = 2
	changes, err := s.overlay(body, &header{Info: info, units: units})
	return len(changes), err
}
