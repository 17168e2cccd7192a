package crl

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"

	"github.com/openjpki/jpki"
)

// A Change is what became of one certificate.
type Change struct {
	Entry         // since when and why it is revoked; of a released one, since when it is good again
	Released bool // it was suspended and is good again
}

// reason is what a delta CRL gives (RFC 5280 §5.3.1).
func (c Change) reason() jpki.Reason {
	if c.Released {
		return jpki.RemoveFromCRL
	}
	return c.Reason
}

// latest keeps the last change of every certificate, in order of serials.
func latest(changes []Change) []Change {
	last := make(map[jpki.Serial]Change, len(changes))
	for _, c := range changes {
		last[c.Serial] = c
	}
	out := make([]Change, 0, len(last))
	for _, c := range last {
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b Change) int {
		var x, y [20]byte
		return compare(a.Serial.Append(x[:0]), b.Serial.Append(y[:0]))
	})
	return out
}

// streamed returns a source's entries, which can be written once. Their size is a guess.
func streamed(entries iter.Seq2[Entry, error], size int64) body {
	return body{size, func(w io.Writer) (int64, error) {
		var failed error
		size, err := writeEntries(w, func(yield func(Entry) bool) {
			for e, err := range entries {
				if err != nil {
					failed = fmt.Errorf("read what is revoked: %w", err)
					return
				}
				if !yield(e) {
					return
				}
			}
		}, false)
		return size, cmp.Or(failed, err)
	}}
}

// An edit is a place in a list of entries where some octets give way to others.
type edit struct {
	at, skip int64
	insert   []byte
}

// edited returns the entries of a published list, which was read before, with changes applied: all but the few that change
// are copied as they are, without a look at each.
func edited(f io.ReaderAt, k known, changes []Change) (body, error) {
	length := k.bodyEnd - k.bodyStart
	edits, size, err := findEdits(io.NewSectionReader(f, k.bodyStart, length), length, k.marks, changes)
	if err != nil {
		return body{}, err
	}
	return body{size, func(w io.Writer) (int64, error) {
		return size, writeEdited(w, io.NewSectionReader(f, k.bodyStart, length), length, edits)
	}}, nil
}

// writeEdited copies octets with edits applied.
func writeEdited(w io.Writer, r io.ReaderAt, length int64, edits []edit) error {
	b := bufio.NewWriterSize(w, bufferSize)
	buf := make([]byte, bufferSize)
	for at := int64(0); at < length || len(edits) > 0; {
		part := buf[:min(length-at, bufferSize)]
		if n, err := r.ReadAt(part, at); n < len(part) {
			return err
		}
		end := at + int64(len(part))
		if len(edits) == 0 || edits[0].at > end { // nothing to copy twice for
			if err := b.Flush(); err != nil {
				return err
			}
			if _, err := w.Write(part); err != nil {
				return err
			}
			at = end
			continue
		}
		start := at
		for len(edits) > 0 && edits[0].at <= end {
			e := edits[0]
			_, _ = b.Write(part[at-start : e.at-start])
			_, _ = b.Write(e.insert)
			at, edits = e.at+e.skip, edits[1:]
		}
		if at < end {
			_, _ = b.Write(part[at-start:])
			at = end
		}
	}
	return b.Flush()
}

// findEdits finds where changes, in order of serials, belong among encoded entries, which passed the check when they were
// published. Of these it reads what lies between two marks, where something changes.
func findEdits(octets io.ReaderAt, length int64, marks []mark, changes []Change) (edits []edit, size int64, err error) {
	r := bufio.NewReaderSize(io.NewSectionReader(octets, 0, length), 16<<10)
	size = length
	var buf [20]byte
	place := func(c Change, at, skip int64) error {
		e := edit{at: at, skip: skip}
		if !c.Released {
			if e.insert, err = appendEntry(nil, c.Serial.Append(buf[:0]), c.Entry, false); err != nil {
				return fmt.Errorf("entry %s: %w", c.Serial, err)
			}
		}
		edits, size = append(edits, e), size-skip+int64(len(e.insert))
		return nil
	}
	for at := int64(0); len(changes) > 0 && at < length; {
		if near := markBefore(marks, changes[0].Serial.Append(buf[:0])); near > at+int64(r.Buffered()) {
			at = near
			r.Reset(io.NewSectionReader(octets, at, length-at))
		}
		skipped, err := skipBefore(r, changes[0].Serial.Append(buf[:0]))
		if at += skipped; err != nil || at == length {
			if err != nil {
				return nil, 0, err
			}
			break
		}
		serial, n, err := peekEntry(r)
		if err != nil || at+n > length {
			return nil, 0, cmp.Or(err, errUnreadable)
		}
		order := compare(serial, changes[0].Serial.Append(buf[:0]))
		if order >= 0 {
			skip := int64(0)
			if order == 0 {
				skip = n
			}
			if order == 0 || !changes[0].Released {
				if err := place(changes[0], at, skip); err != nil {
					return nil, 0, err
				}
			}
			changes = changes[1:]
		}
		if order <= 0 {
			if _, err := r.Discard(int(n)); err != nil {
				return nil, 0, err
			}
			at += n
		}
	}
	for _, c := range changes { // behind the last entry
		if !c.Released {
			if err := place(c, length, 0); err != nil {
				return nil, 0, err
			}
		}
	}
	return edits, size, nil
}

// markBefore returns where to begin to look for a serial.
func markBefore(marks []mark, serial []byte) int64 {
	n, _ := slices.BinarySearchFunc(marks, serial, func(m mark, serial []byte) int { return compare(m.serial[:m.n], serial) })
	if n == 0 {
		return 0
	}
	return marks[n-1].at
}

var errUnreadable = errors.New("the published entries cannot be read")

// peekEntry looks at the next entry: its serial without a leading zero, and its octets.
func peekEntry(r *bufio.Reader) (serial []byte, n int64, err error) {
	head, err := r.Peek(4)
	if err != nil {
		return nil, 0, err
	}
	n = int64(head[1]) + 2
	if int64(head[3])+4 > n {
		return nil, 0, errUnreadable
	}
	entry, err := r.Peek(4 + int(head[3]))
	if err != nil {
		return nil, 0, err
	}
	if serial = entry[4:]; len(serial) > 1 && serial[0] == 0 {
		serial = serial[1:]
	}
	return serial, n, nil
}

// skipBefore skips what is in the buffer of r and comes before a serial, in a loop that makes five million entries cheap.
func skipBefore(r *bufio.Reader, wanted []byte) (skipped int64, err error) {
	window, err := r.Peek(r.Buffered())
	if err != nil {
		return 0, err
	}
	at := 0
	for at+4 <= len(window) {
		n, serial := int(window[at+1])+2, int(window[at+3])
		if at+n > len(window) || serial+4 > n {
			break
		}
		from := at + 4
		if serial > 1 && window[from] == 0 {
			from, serial = from+1, serial-1
		}
		if serial > len(wanted) || serial == len(wanted) && bytes.Compare(window[from:from+serial], wanted) >= 0 {
			break
		}
		at += n
	}
	n, err := r.Discard(at)
	return int64(n), err
}
