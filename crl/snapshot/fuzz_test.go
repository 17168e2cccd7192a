package snapshot_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/crl/snapshot"
)

// A header that is read is in the only form that there is of it.
func FuzzHeader(f *testing.F) {
	a := newAuthority(f, "p-256")
	f.Add(build(f, template(a, 1), universe{n: 10}.all)[:168])
	f.Fuzz(func(t *testing.T, file []byte) {
		again, err := snapshot.ReadHeader(file)
		if err == nil && again != nil && !bytes.Equal(again, file[:168]) {
			t.Errorf("read %x, which is written %x", file[:168], again)
		}
		if _, err := snapshot.Open(file, config(a)); err == nil && len(file) <= 170 {
			t.Error("opened a file without a signature")
		}
	})
}

// A body, even a hostile one under a good signature, is refused, or else every serial has an answer, alone and among others.
func FuzzBody(f *testing.F) {
	a := newAuthority(f, "p-256")
	for _, u := range []universe{{10, 0, 0, 1}, {300, 2000, 6000, 1}, {3000, 2000, 12000, 1}} {
		file := build(f, template(a, 1), u.all)
		n := 170 + int(binary.LittleEndian.Uint16(file[168:]))
		f.Add(file[n:], binary.LittleEndian.Uint32(file[128:]))
	}
	f.Add([]byte{}, uint32(1<<31))
	f.Fuzz(func(t *testing.T, body []byte, blocks uint32) {
		read, err := snapshot.ReadBody(body, blocks)
		if err != nil {
			return
		}
		for n := range uint64(20) {
			state, ok := read(serialOf(n))
			if !ok || state != jpki.Good && state != jpki.Suspended && state != jpki.Revoked {
				t.Fatalf("a body was taken and has no answer, or two: %q", state)
			}
		}
	})
}

// A delta's body is refused, or else has as many changes as it says.
func FuzzDelta(f *testing.F) {
	head := binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, 1), 1)
	f.Add(append(head, make([]byte, 12)...), uint32(0))
	f.Add(append(append(bytes.Clone(head), 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0), []byte("abcdefghijklabcdefghijkm")...), uint32(2))
	f.Fuzz(func(t *testing.T, body []byte, units uint32) {
		if n, err := snapshot.ReadDelta(body, units); err == nil && n != int(units) {
			t.Errorf("%d changes, %d were announced", n, units)
		}
	})
}
