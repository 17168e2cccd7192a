package status

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"runtime"
	"slices"
	"time"
)

// When the log has brought so many certificates, they are merged into the base: a sixteenth of it, within bounds.
const (
	fewest = 1 << 16
	most   = 1 << 21 // some 200 MB
)

// garbage is how much replaced memory a merge leaves behind before it has the collector find it.
const garbage = 128 << 20

// openSnapshot makes a snapshot the base of an index that knows nothing yet, or leaves the index as it is.
func (x *Index) openSnapshot() error {
	f, err := os.Open(x.cfg.Snapshot)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	s, err := readDirectory(f, info.Size())
	if err != nil {
		return err
	}
	if s.trial && !x.cfg.AcceptTrial {
		return errTrial
	}
	if err := s.loadAll(f); err != nil {
		return err
	}
	v := &view{active: newOverlay()}
	for _, p := range s.parts {
		v.parts = append(v.parts, p.part)
		x.count.Add(int64(p.count))
	}
	x.view.Store(v)
	x.last, x.saved, x.savedAt, x.opened, x.trial = s.last, s.last.Seq, s.created, s.created, s.trial
	return nil
}

// Save merges what the log brought into the base and, if there is a snapshot file and anything new, replaces it. Look-ups go
// on meanwhile. A process killed at any moment leaves the old file or the new one, and perhaps an unfinished one beside it.
func (x *Index) Save() error {
	x.merging.Lock()
	defer x.merging.Unlock()
	return x.merge()
}

// mergeIfDue begins a merge in the background if it is time for one, or waits for the one under way if the log brings more
// than it can keep up with.
func (x *Index) mergeIfDue() {
	limit := x.cfg.MergeAt
	if limit == 0 {
		limit = int(min(max(x.count.Load()/16, fewest), most))
	}
	x.mu.Lock()
	recent := int(x.view.Load().active.count.Load())
	aged := x.cfg.Snapshot != "" && x.last.Seq > x.saved && x.cfg.Now().Sub(x.savedAt) >= x.cfg.SaveEvery
	x.mu.Unlock()
	if recent < limit && !aged {
		return
	}
	if x.merging.TryLock() {
		go func() {
			defer x.merging.Unlock()
			_ = x.merge() // kept for SnapshotErr
		}()
		return
	}
	if recent >= 2*limit {
		x.afterMerge()
	}
}

// afterMerge returns when no merge is under way.
func (x *Index) afterMerge() {
	x.merging.Lock()
	defer x.merging.Unlock()
}

// merge moves the overlay into the base, segment by segment. Look-ups see the overlay before the base until all of it is
// there, so that in no moment anything is missing, and only one segment is in memory twice.
func (x *Index) merge() error {
	now := x.cfg.Now()
	x.mu.Lock()
	last := x.last
	v := x.view.Load()
	due := v.active.count.Load() > 0 || x.cfg.Snapshot != "" && last.Seq > x.saved
	if due {
		v = &view{parts: v.parts, frozen: v.active, active: newOverlay()}
		x.view.Store(v)
	}
	x.mu.Unlock()
	if !due {
		return nil
	}

	var w *writer
	var unwritten error // the merge goes on in memory
	if x.cfg.Snapshot != "" {
		w, unwritten = newWriter(x.cfg.Snapshot)
	}
	write := func(f func() error) {
		if w != nil && unwritten == nil {
			unwritten = f()
		}
	}
	unmerged := x.mergeParts(v, now, w, write)
	if unmerged == nil {
		write(func() error { return w.commit(now, last, x.trial) })
	}
	if w != nil && (unmerged != nil || unwritten != nil) {
		w.abort()
	}
	err := cmp.Or(unmerged, unwritten)
	if err != nil {
		err = fmt.Errorf("write snapshot: %w", err)
	}

	x.mu.Lock()
	defer x.mu.Unlock()
	v = x.view.Load()
	if unmerged != nil {
		for _, it := range v.frozen.items() {
			if v.active.find(it.part, &it.key) == nil {
				v.active.put(it)
			}
		}
	}
	v = &view{parts: v.parts, active: v.active}
	x.view.Store(v)
	x.count.Store(v.count())
	x.savedAt, x.snapshotErr = now, err
	if err == nil {
		x.saved = last.Seq
	}
	return err
}

// mergeParts replaces the segments that change and writes all of them.
func (x *Index) mergeParts(v *view, now time.Time, w *writer, write func(func() error)) error {
	fresh := v.frozen.items()
	slices.SortFunc(fresh, func(a, b *item) int {
		return cmp.Or(comparePlaces(a.part, b.part), bytes.Compare(a.key[:], b.key[:]))
	})
	forget := func(end quarter) bool { return end.before(now.Add(-x.cfg.Retention)) }
	replaced := 0
	for _, p := range slices.SortedFunc(slices.Values(v.parts), comparePlaces) {
		write(func() error { w.part(p.issuer, p.length); return nil })
		for head := range p.segments {
			n := 0
			for n < len(fresh) && fresh[n].part == p && int(fresh[n].key[0]) == head {
				n++
			}
			s := p.segments[head].Load()
			if n > 0 || s != nil && forget(s.first) {
				newer := make([]record, n)
				for i, it := range fresh[:n] {
					newer[i] = it.record
				}
				fresh = fresh[n:]
				if s != nil {
					replaced += len(s.mem)
				}
				var err error
				if s, err = buildSegment(p.length, byte(head), s, newer, forget); err != nil {
					return err
				}
				p.segments[head].Store(s)
				if replaced > garbage {
					runtime.GC()
					replaced = 0
				}
			}
			if s != nil {
				write(func() error { return w.segment(s) })
			}
		}
	}
	if replaced > large {
		runtime.GC()
	}
	return nil
}
