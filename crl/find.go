package crl

import (
	"iter"
	"time"

	"github.com/openjpki/jpki"
)

// FindAll walks those serials that Find finds: where in the slice they are, in ascending order, and their entries. It is for many: some dozen
// serials at a time first read from everywhere in the table what they need, so that they wait for memory together and not one
// after the other.
func (l *List) FindAll(serials []jpki.Serial) iter.Seq2[int, Entry] {
	return func(yield func(int, Entry) bool) {
		var b batch
		for from := 0; from < len(serials); from += together {
			group := serials[from:min(from+together, len(serials))]
			b.find(l.layers, group)
			for i := range group {
				w := &b.wanted[i]
				if !w.found || w.reason == jpki.RemoveFromCRL && !l.head.Delta() {
					continue
				}
				if !yield(from+i, Entry{Serial: group[i], At: time.Unix(w.at, 0).UTC(), Reason: w.reason}) {
					return
				}
			}
		}
	}
}

// together is how many look-ups wait for memory at the same time: as many as keep a processor's loads busy and as have room, with
// all that they touch, in its first cache.
const together = 64

// A batch is a group of serials on their way.
type batch struct {
	wanted [together]wanted
}

type wanted struct {
	octets [21]byte // as in a table: the length, then the serial
	found  bool
	reason jpki.Reason
	place  int // in the present table
	at     int64
}

func (w *wanted) serial() []byte { return w.octets[:1+w.octets[0]] }

func (b *batch) find(layers []layer, group []jpki.Serial) {
	wanted := b.wanted[:len(group)]
	for i := range wanted {
		w := &wanted[i]
		w.octets[0] = byte(len(group[i].Append(w.octets[:1])) - 1)
		w.found = false
	}
	for n := range layers {
		l := &layers[n]
		for i := range wanted {
			wanted[i].place = l.home(wanted[i].serial())
		}
		for i := range wanted { // nothing but reading: as many at once as a processor can
			l.touch(wanted[i].place)
		}
		for i := range wanted {
			if w := &wanted[i]; !w.found {
				w.at, w.reason, w.found = l.findFrom(w.place, w.serial())
			}
		}
	}
}

// touch reads where a look-up will read: mostly the line of 64 octets at its home and the next, seldom farther. It is not
// inlined, for a compiler that sees that nobody uses the result reads nothing.
//
//go:noinline
func (l *layer) touch(home int) byte { //nolint:unparam // see above
	return l.table[home] ^ l.table[min(home+64, len(l.table)-1)]
}
