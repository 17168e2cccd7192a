package crl

import (
	"bytes"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"
	"time"

	"github.com/openjpki/jpki"
)

// A List is a CRL in memory for look-ups, in 36 octets an entry if no serial is longer than 16, as ours. It is safe for concurrent use.
type List struct {
	head   Head
	layers []layer // the newest first: deltas, and last a complete list; or one delta
}

// Load reads and verifies a list as [Read] does and keeps its entries. A list that names a serial twice is refused.
func Load(r io.Reader, issuer *x509.Certificate) (*List, error) {
	var h heap
	head, err := readVerified(r, issuer, false, h.add)
	if err != nil {
		return nil, err
	}
	l, err := h.layer(head.Entries)
	if err != nil {
		return nil, fmt.Errorf("read CRL: %w", err)
	}
	return &List{*head, []layer{l}}, nil
}

// OpenList is [Load] of a file, which is not needed afterwards.
func OpenList(path string, issuer *x509.Certificate) (*List, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	l, err := Load(f, issuer)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return l, nil
}

// Head returns what the list says besides its entries. Of a combined list number and times are the delta's, and Entries
// counts what the complete list and the delta say together, some of it twice.
func (l *List) Head() Head { return l.head }

// Find returns the entry of a serial. In a delta CRL it may be one with the reason [jpki.RemoveFromCRL].
func (l *List) Find(serial jpki.Serial) (Entry, bool) {
	var octets [40]byte
	tail := octets[len(serial.Append(octets[20:20])):] // 20 octets, of which those before the serial are 0
	want := number{uint64(binary.BigEndian.Uint32(tail)), binary.BigEndian.Uint64(tail[4:]), binary.BigEndian.Uint64(tail[12:])}
	for i := range l.layers {
		if at, reason, ok := l.layers[i].find(want); ok {
			if reason == jpki.RemoveFromCRL && !l.head.Delta() {
				return Entry{}, false
			}
			return Entry{Serial: serial, At: time.Unix(at, 0).UTC(), Reason: reason}, true
		}
	}
	return Entry{}, false
}

// All walks the entries in no order, each serial once.
func (l *List) All() iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		for i := range l.layers {
			for n, e := range l.layers[i].all() {
				hidden := slices.ContainsFunc(l.layers[:i], func(newer layer) bool { _, _, ok := newer.find(n); return ok })
				if hidden || e.Reason == jpki.RemoveFromCRL && !l.head.Delta() {
					continue
				}
				if !yield(e) {
					return
				}
			}
		}
	}
}

// ErrCombine is the reason why a complete list and a delta do not go together.
var ErrCombine = errors.New("the complete CRL and the delta do not go together")

// Combine returns what a complete list says once a delta has changed it (RFC 5280 §5.2.4): both of the same issuer, key
// and scope, the complete one no older than the delta's base and older than the delta. It shares the memory of both, and may
// itself be combined with a later delta.
func Combine(complete, delta *List) (*List, error) {
	a, b := &complete.head, &delta.head
	wrong := ""
	switch {
	case a.Delta():
		wrong = "the complete one is itself a delta"
	case !b.Delta():
		wrong = "the delta is a complete one"
	case a.Number == nil || b.Number == nil:
		wrong = "one has no number"
	case !bytes.Equal(a.Issuer, b.Issuer):
		wrong = "of different issuers"
	case !bytes.Equal(a.AuthorityKeyID, b.AuthorityKeyID):
		wrong = "of different keys"
	case (a.scope == nil) != (b.scope == nil) || !bytes.Equal(a.scope, b.scope):
		wrong = "of different scopes"
	case a.Number.Cmp(b.Base) < 0:
		wrong = fmt.Sprintf("the complete one has number %v, the delta changes %v or later", a.Number, b.Base)
	case a.Number.Cmp(b.Number) >= 0:
		wrong = fmt.Sprintf("the complete one has number %v, the delta is of %v", a.Number, b.Number)
	case b.ThisUpdate.Before(a.ThisUpdate):
		wrong = "the delta is older"
	}
	if wrong != "" {
		return nil, fmt.Errorf("%w: %s", ErrCombine, wrong)
	}
	head := *a
	head.Number, head.ThisUpdate, head.NextUpdate, head.Algorithm = b.Number, b.ThisUpdate, b.NextUpdate, b.Algorithm
	head.Entries, head.Ascending = a.Entries+b.Entries, false
	return &List{head, slices.Concat(delta.layers, complete.layers)}, nil
}
