package status_test

import (
	"errors"
	"maps"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ocsp/status"
)

// newTimeline is an entry by which a restored log says that it goes on.
func newTimeline(id jpki.CertID, at time.Time) jpki.StatusChange {
	return jpki.StatusChange{ID: id, NotAfter: time.Unix(0, 0), Status: jpki.Status{State: jpki.Revoked, Since: at.Truncate(time.Second), Version: 1}}
}

// numbered gives entries their positions.
func numbered(entries ...jpki.StatusChange) []jpki.StatusChange {
	for i := range entries {
		entries[i].Seq = int64(i + 1)
	}
	return entries
}

// A log that was restored is followed if it says so, and only if it says so later than it was last seen whole. Until then, and
// while it cannot be read, nothing that was known is told any more.
func TestNewTimeline(t *testing.T) {
	a, b, c := certID(t, sign1, 1), certID(t, sign1, 2), certID(t, sign1, 3)
	change := func(id jpki.CertID, st jpki.Status) jpki.StatusChange {
		return jpki.StatusChange{ID: id, NotAfter: since.AddDate(5, 0, 0), Status: st}
	}
	for name, row := range map[string]struct {
		log      func(seen, now time.Time) []jpki.StatusChange
		followed bool
	}{
		"restored": {func(_, now time.Time) []jpki.StatusChange {
			return numbered(change(a, good()), newTimeline(c, now), newTimeline(certID(t, sign1, 4), now), change(a, lost()))
		}, true},
		"restored, and shorter": {func(_, now time.Time) []jpki.StatusChange {
			return numbered(newTimeline(c, now))
		}, true},
		"restored twice": {func(seen, now time.Time) []jpki.StatusChange {
			return numbered(newTimeline(c, seen.Add(-time.Hour)), newTimeline(certID(t, sign1, 4), now))
		}, true},
		"a former primary's": {func(time.Time, time.Time) []jpki.StatusChange { return numbered(change(a, good())) }, false},
		"a former primary's that was restored once": {func(seen, _ time.Time) []jpki.StatusChange {
			return numbered(change(a, good()), newTimeline(c, seen.Add(-time.Minute)))
		}, false},
		"one with a gap": {func(_, now time.Time) []jpki.StatusChange {
			log := numbered(change(a, good()), newTimeline(c, now), change(b, good()), change(b, lost()))
			log[3].Seq++
			return log
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &log{entries: numbered(change(a, good()), change(b, good()), change(b, lost()))}
				x := index(t, status.Config{Log: l})
				if err := x.Refresh(t.Context()); err != nil {
					t.Fatal(err)
				}
				seen := time.Now()
				time.Sleep(time.Hour)
				restored := row.log(seen, time.Now())
				l.set(func(l *log) { l.entries = restored })
				time.Sleep(2 * time.Second)
				err := x.Refresh(t.Context())
				if (err == nil) != row.followed {
					t.Fatalf("followed: %v", err)
				}
				if !row.followed {
					if st, _, err := x.Status(t.Context(), b); !errors.Is(err, jpki.Unavailable) {
						t.Errorf("%v %v", st, err)
					}
					return
				}
				want := map[jpki.CertID]jpki.State{}
				for _, e := range restored {
					want[e.ID] = e.Status.State
				}
				for _, id := range []jpki.CertID{a, b, c} {
					st, _, err := x.Status(t.Context(), id)
					if _, known := want[id]; known != (err == nil) || st.State != want[id] {
						t.Errorf("%s is %q (%v), want %q", id, st.State, err, want[id])
					}
				}
				if x.Len() != len(want) || x.Seq() != int64(len(restored)) {
					t.Errorf("%d certificates up to %d", x.Len(), x.Seq())
				}
				l.set(func(l *log) { l.entries = numbered(append(l.entries, change(b, lost()))...) })
				if st, _, err := x.Status(t.Context(), b); err == nil && st.State != jpki.Suspended && row.followed {
					t.Errorf("and does not go on: %v", st)
				}
				if err := x.Refresh(t.Context()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// A process that begins with a snapshot file of the lost timeline goes the same way, and the file is replaced.
func TestNewTimelineAfterARestart(t *testing.T) {
	l := filled(t, 100)
	x, path := saved(t, l)
	_ = x
	held := l.entries[3]
	mark := newTimeline(certID(t, sign1, 1<<40), time.Now().Add(2*time.Second))
	restored := &log{entries: numbered(append(l.entries[:50:50], mark)...)}
	y := index(t, status.Config{Log: restored, Snapshot: path})
	if err := y.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, _, err := y.Status(t.Context(), held.ID); err != nil {
		t.Error(err)
	}
	if err := y.Save(); err != nil {
		t.Fatal(err)
	}
	c, err := status.OpenCopy(path)
	if err != nil || c.Position != 51 {
		t.Errorf("the file: %+v, %v", c, err)
	}
}

// A copy tells all that an index knew.
func TestCopy(t *testing.T) {
	l := filled(t, 1000)
	_, path := saved(t, l)
	want, got := map[jpki.CertID]jpki.State{}, map[jpki.CertID]jpki.State{}
	for _, e := range l.entries {
		want[e.ID] = e.Status.State
	}
	c, err := status.OpenCopy(path)
	if err != nil {
		t.Fatal(err)
	}
	for id, st := range c.All() {
		got[id] = st.State
	}
	if !maps.Equal(got, want) || c.Position != l.entries[len(l.entries)-1].Seq {
		t.Errorf("%d of %d certificates up to position %d", len(got), len(want), c.Position)
	}
	if _, err := status.OpenCopy(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("no file was read")
	}
}
