package status

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/openjpki/jpki"
)

var errTrial = errors.New("it holds certificates that were never issued, for trials, and this responder does not accept any")

// AddTrial puts certificates that no log has into the snapshot at path, or begins one, and marks it as being for trials
// forever. The certificates come issuer by issuer in ascending order of their serials, which have [jpki.SerialBytes] octets;
// Seq is not looked at. What the snapshot knows already stays, position in the log and all; a snapshot that cannot be read
// is an error. Memory is needed for one serial's first octet at a time. No index may use the file meanwhile.
func AddTrial(path string, now time.Time, certs map[jpki.IssuerID]iter.Seq[jpki.StatusChange]) (err error) {
	s := new(snapshot)
	f, err := os.Open(path)
	switch {
	case err == nil:
		defer func() { _ = f.Close() }()
		info, err := f.Stat()
		if err != nil {
			return fmt.Errorf("open snapshot: %w", err)
		}
		if s, err = readDirectory(f, info.Size()); err != nil {
			return fmt.Errorf("open snapshot: %w", err)
		}
	case !errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("open snapshot: %w", err)
	}
	for issuer := range maps.Keys(certs) {
		p := &directoryPart{part: &part{issuer: issuer, length: jpki.SerialBytes}}
		if !slices.ContainsFunc(s.parts, func(o *directoryPart) bool { return comparePlaces(o.part, p.part) == 0 }) {
			s.parts = append(s.parts, p)
		}
	}
	slices.SortFunc(s.parts, func(a, b *directoryPart) int { return comparePlaces(a.part, b.part) })
	w, err := newWriter(path)
	if err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	defer func() {
		if err != nil {
			w.abort()
			err = fmt.Errorf("write snapshot: %w", err)
		}
	}()
	for _, p := range s.parts {
		t := trial{f: f, w: w, p: p}
		w.part(p.issuer, p.length)
		if seq := certs[p.issuer]; seq != nil && p.length == jpki.SerialBytes {
			for c := range seq {
				if err := t.add(c); err != nil {
					return err
				}
			}
		}
		if err := t.flush(256); err != nil {
			return err
		}
	}
	return w.commit(now, s.last, true)
}

// A trial is one part on its way from one file to the other.
type trial struct {
	f     *os.File
	w     *writer
	p     *directoryPart
	newer []record // with the same first octet
	done  int      // octets of segments that nobody needs any more
	head  int      // the first octet whose segment has not been written
}

func (t *trial) add(c jpki.StatusChange) error {
	v, err := compact(c)
	if err != nil {
		return err
	}
	k, length := keyOf(c.ID.Serial)
	if length != t.p.length || c.ID.Issuer != t.p.issuer {
		return fmt.Errorf("%s does not belong here", c.ID)
	}
	if n := len(t.newer); n > 0 && t.newer[n-1].key[0] != k[0] {
		if err := t.flush(int(t.newer[n-1].key[0]) + 1); err != nil {
			return err
		}
	}
	if n := len(t.newer); int(k[0]) < t.head || n > 0 && string(t.newer[n-1].key[:]) >= string(k[:]) {
		return fmt.Errorf("%s is out of order", c.ID)
	}
	t.newer = append(t.newer, record{k, v})
	return nil
}

// flush writes all segments up to a first octet.
func (t *trial) flush(to int) error {
	for ; t.head < to; t.head++ {
		var old *segment
		if i := slices.IndexFunc(t.p.sections, func(s section) bool { return int(s.head) == t.head }); i >= 0 {
			var err error
			if old, err = t.p.sections[i].load(t.f, t.p.length); err != nil {
				return err
			}
		}
		var newer []record
		if len(t.newer) > 0 && int(t.newer[0].key[0]) == t.head {
			newer = t.newer
		}
		s, err := buildSegment(t.p.length, byte(t.head), old, newer, func(quarter) bool { return false })
		if err != nil {
			return err
		}
		if s == nil {
			continue
		}
		if err := t.w.segment(s); err != nil {
			return err
		}
		if t.done += len(s.mem); t.done > garbage {
			runtime.GC()
			t.done = 0
		}
	}
	t.newer = t.newer[:0]
	return nil
}
