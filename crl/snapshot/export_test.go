package snapshot

import (
	"fmt"
	"slices"
	"strings"
	"time"

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

// ReadBody returns what answers about serials without looking at times, from a body that nobody has signed; it fails
// where one question alone and several at once have different answers.
func ReadBody(body []byte, blocks uint32) (func(jpki.Serial) (state jpki.State, ok bool), error) {
	s := &Snapshot{info: Info{NextUpdate: time.Unix(1, 0)}}
	s.config.Now = func() time.Time { return time.Unix(0, 0) }
	if err := s.parseBody(body, blocks); err != nil {
		return nil, err
	}
	return func(serial jpki.Serial) (jpki.State, bool) {
		n, ok := s.state(s.hasher.key(serial))
		together := s.AppendAnswers(nil, []Question{{Serial: serial}, {}, {Serial: serial}})
		same := Answer{words[n], ok}
		return words[n], ok && slices.Equal(together, []Answer{same, {}, same})
	}, nil
}

// ReadDelta applies a delta's body that nobody has signed and returns how many changes the reader then has.
func ReadDelta(body []byte, units uint32) (int, error) {
	info := Info{Sequence: 1}
	s := &Snapshot{info: info, base: 1}
	info.Sequence = 2
	changes, err := s.overlay(body, &header{Info: info, units: units})
	return len(changes), err
}

// Trace says, step by step, how a snapshot comes to its answer about a serial, as docs/snapshot-format.md shows it.
func (s *Snapshot) Trace(serial jpki.Serial) string {
	var out strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&out, "    %-12s"+format+"\n", append([]any{name}, args...)...)
	}
	k := s.hasher.key(serial)
	n := blockOf(k, s.blocks)
	line("serial", "%s", serial)
	line("H", "%X", s.hasher[:])
	line("a, b", "%016X %016X", k.a, k.b)
	line("block", "%d of %d", n, s.blocks)
	filters := s.filters[s.offsets[n]:s.offsets[n+1]]
	for i, filter := range []uint8{notGood, suspends} {
		var c cascade
		head := s.heads[n*blockHead+i*cascadeHead:]
		c.parseHead(head)
		filters = c.take(filters)
		line("directory", "%X: C %d, seeds %d and %d, S0 %d, S1 %d", head[:cascadeHead], c.columns, c.seeds[0], c.seeds[1], c.size[0], c.size[1])
		for j, columns := range []int{c.columns, min(c.size[1], 1)} {
			if columns == 0 {
				continue
			}
			column := [][]byte{c.approximate, c.exact}[j]
			x := k.state(filter+uint8(j), c.seeds[j])
			r, random := rowOf(x, c.size[j])
			value := uint64(0)
			for bit := range columns {
				value |= r.parity(column[bit*c.size[j]:(bit+1)*c.size[j]]) << bit
			}
			says := fmt.Sprintf("x %016X, start %d, row from %016X, value %d", x, r.start, r.bits[0], value)
			if j == 0 {
				says += fmt.Sprintf(", fingerprint %d", random&(1<<columns-1))
			}
			line(fmt.Sprintf("filter %d", int(filter)+j), "%s", says)
			if j == 0 && !c.passes(k, filter) {
				break
			}
		}
		if !c.contains(k, filter) {
			line("member", "no")
			break
		}
		line("member", "yes")
	}
	state, _ := s.state(k)
	line("state", "%s", words[state])
	return out.String()
}
