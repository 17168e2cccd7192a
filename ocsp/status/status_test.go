package status_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ocsp/status"
)

// log is an append-only log in memory. Whoever puts a channel into hold stops reads, after they have begun, until it is
// closed or the reader gives up.
type log struct {
	mu      sync.Mutex
	entries []jpki.StatusChange
	reads   int
	hold    chan struct{}
	deaf    bool // a stopped read does not even notice that its reader gave up
	fail    error
	during  func() // runs within each read
}

func (l *log) StatusChanges(ctx context.Context, after int64, limit int) ([]jpki.StatusChange, error) {
	l.mu.Lock()
	l.reads++
	var out []jpki.StatusChange
	for _, e := range l.entries {
		if e.Seq > after && len(out) < limit {
			out = append(out, e)
		}
	}
	if l.during != nil {
		l.during()
	}
	hold, deaf, fail := l.hold, l.deaf, l.fail
	l.mu.Unlock()
	if hold != nil && deaf {
		<-hold
	} else if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return out, fail
}

func (l *log) add(id jpki.CertID, st jpki.Status) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries = append(l.entries, jpki.StatusChange{Seq: int64(len(l.entries) + 1), ID: id, Status: st})
}

func (l *log) set(f func(*log)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f(l)
}

func (l *log) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reads
}

func certID(t testing.TB, issuer jpki.IssuerID, n uint64) jpki.CertID {
	t.Helper()
	serial, err := jpki.SerialFromBytes(binary.BigEndian.AppendUint64([]byte{0x40}, n))
	if err != nil {
		t.Fatal(err)
	}
	return jpki.CertID{Issuer: issuer, Serial: serial}
}

var (
	sign1 = jpki.IssuerID{CA: jpki.SignCA, Generation: 1}
	auth1 = jpki.IssuerID{CA: jpki.AuthCA, Generation: 1}
	since = time.Date(2026, 4, 1, 3, 0, 0, 0, time.UTC)
)

func good() jpki.Status { return jpki.Status{State: jpki.Good, Since: since, Version: 1} }
func lost() jpki.Status {
	return jpki.Status{State: jpki.Suspended, Reason: jpki.CertificateHold, Cause: jpki.Lost, Since: since.Add(time.Hour), Version: 2}
}

func index(t rapid.TB, cfg status.Config) *status.Index {
	t.Helper()
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	x, err := status.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func TestStatus(t *testing.T) {
	l := new(log)
	x := index(t, status.Config{Log: l})
	a, b := certID(t, sign1, 1), certID(t, auth1, 1) // one number, two issuers
	l.add(a, good())
	l.add(b, good())
	l.add(a, lost())

	st, asOf, err := x.Status(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	want := lost()
	want.Cause = jpki.NoCause // stays inside the authority
	if diff := cmp.Diff(want, st); diff != "" {
		t.Errorf("suspended certificate (-want +got):\n%s", diff)
	}
	if !asOf.Equal(x.Watermark()) || asOf.IsZero() {
		t.Errorf("asOf %v, watermark %v", asOf, x.Watermark())
	}
	if st, _, err := x.Status(t.Context(), b); err != nil || st.State != jpki.Good {
		t.Errorf("the other issuer's certificate: %v, %v", st.State, err)
	}
	st, asOf, err = x.Status(t.Context(), certID(t, sign1, 2))
	if !errors.Is(err, jpki.UnknownCertificate) || asOf.IsZero() || st != (jpki.Status{}) {
		t.Errorf("never issued: %+v, %v, %v", st, asOf, err)
	}
	if x.Len() != 2 || x.Seq() != 3 {
		t.Errorf("Len %d, Seq %d; want 2, 3", x.Len(), x.Seq())
	}

	l.add(a, jpki.Status{State: jpki.Revoked, Reason: jpki.Superseded, Cause: jpki.TokenReplaced, Since: since.Add(2 * time.Hour), Version: 3})
	if err := x.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	want = jpki.Status{State: jpki.Revoked, Reason: jpki.Superseded, Since: since.Add(2 * time.Hour), Version: 3}
	if st, _, _ := x.Status(t.Context(), a); !cmp.Equal(want, st) {
		t.Error(cmp.Diff(want, st))
	}
}

func TestIssuanceIsVisibleAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := new(log)
		x := index(t, status.Config{Log: l, Bound: time.Hour})
		if err := x.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		id := certID(t, sign1, 1)
		l.add(id, good())
		if st, _, err := x.Status(t.Context(), id); err != nil || st.State != jpki.Good {
			t.Errorf("fresh view, new certificate: %v, %v", st.State, err)
		}
	})
}

// Without Run, the age of the view alone makes it read.
func TestNotRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := new(log)
		x := index(t, status.Config{Log: l})
		id := certID(t, sign1, 1)
		l.add(id, good())
		if _, _, err := x.Status(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		l.add(id, lost())
		time.Sleep(time.Second) // exactly the bound: may still be answered from the view
		reads := l.count()
		if _, _, err := x.Status(t.Context(), id); err != nil || l.count() != reads {
			t.Errorf("within the bound: %v, %d reads", err, l.count()-reads)
		}
		time.Sleep(time.Nanosecond)
		if st, asOf, err := x.Status(t.Context(), id); err != nil || st.State != jpki.Suspended || !asOf.Equal(time.Now()) {
			t.Errorf("beyond the bound: %v as of %v, %v; want suspended as of %v", st.State, asOf, err, time.Now())
		}
	})
}

// A log that does not answer must never leave an old status standing.
func TestStalledLog(t *testing.T) {
	for _, deaf := range []bool{false, true} {
		t.Run(fmt.Sprintf("deaf=%v", deaf), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := new(log)
				x := index(t, status.Config{Log: l})
				ctx, stop := context.WithCancel(t.Context())
				var wg sync.WaitGroup
				wg.Go(func() { _ = x.Run(ctx) })
				id := certID(t, sign1, 1)
				l.add(id, good())
				synctest.Wait()
				if _, _, err := x.Status(ctx, id); err != nil {
					t.Fatal(err)
				}

				hold := make(chan struct{})
				l.set(func(l *log) { l.hold, l.deaf = hold, deaf })
				time.Sleep(100 * time.Millisecond) // Run's next read hangs
				before := time.Now()
				l.add(id, lost()) // commits while it hangs: the read under way does not have it
				for time.Since(before) <= 3*time.Second {
					st, asOf, err := x.Status(ctx, id)
					switch {
					case err == nil && time.Since(asOf) > time.Second:
						t.Fatalf("%v after the commit: %s as of %v ago", time.Since(before), st.State, time.Since(asOf))
					case err == nil && st.State == jpki.Good && time.Since(before) > time.Second:
						t.Fatalf("good %v after the suspension", time.Since(before))
					case err != nil && !errors.Is(err, jpki.Unavailable):
						t.Fatal(err)
					}
					time.Sleep(50 * time.Millisecond)
				}
				if _, _, err := x.Status(ctx, id); !errors.Is(err, jpki.Unavailable) {
					t.Errorf("while the log hangs: %v; want unavailable", err)
				}
				if _, _, err := x.Status(ctx, certID(t, sign1, 2)); !errors.Is(err, jpki.Unavailable) {
					t.Errorf("never issued, while the log hangs: %v; want unavailable", err)
				}

				l.set(func(l *log) { l.hold = nil })
				close(hold)
				synctest.Wait()
				if st, _, err := x.Status(ctx, id); err != nil || st.State != jpki.Suspended {
					t.Errorf("once the log answers: %v, %v", st.State, err)
				}
				stop()
				wg.Wait()
			})
		})
	}
}

// What a read that began before the call brings is not enough for Refresh.
func TestRefreshBeginsAfterTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := new(log)
		x := index(t, status.Config{Log: l})
		id := certID(t, sign1, 1)
		hold := make(chan struct{})
		l.set(func(l *log) { l.hold = hold })
		var wg sync.WaitGroup
		wg.Go(func() { _ = x.Refresh(t.Context()) })
		synctest.Wait() // the read has seen an empty log and hangs
		l.add(id, good())
		const callers = 50
		var returned atomic.Int32
		for range callers {
			wg.Go(func() {
				if err := x.Refresh(t.Context()); err != nil {
					t.Error(err)
				}
				if returned.Add(1); x.Seq() != 1 {
					t.Error("Refresh returned without what was committed before the call")
				}
			})
		}
		synctest.Wait()
		if returned.Load() != 0 || l.count() != 1 {
			t.Errorf("%d callers returned and %d reads began while the first read hangs", returned.Load(), l.count())
		}
		l.set(func(l *log) { l.hold = nil })
		close(hold)
		wg.Wait()
		if l.count() != 2 {
			t.Errorf("%d callers made %d reads; want 2", callers+1, l.count())
		}
	})
}

// The watermark is the time before the read, not the time at which its answer came.
func TestWatermark(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := new(log)
		x := index(t, status.Config{Log: l})
		hold := make(chan struct{})
		l.set(func(l *log) { l.hold = hold })
		began := time.Now()
		go func() { time.Sleep(700 * time.Millisecond); close(hold) }()
		if err := x.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !x.Watermark().Equal(began) {
			t.Errorf("watermark %v after the read began", x.Watermark().Sub(began))
		}
	})
}

// later returns t with its two clocks moved apart: a machine that slept has only the wall clock advanced, one whose time
// was set back by as much as went by has only the monotonic one.
func later(t *testing.T, at time.Time, wall, monotonic time.Duration) time.Time {
	t.Helper()
	out := at.Add(wall)
	(*struct { // package time's own layout; the check below fails if it is another
		wall uint64
		ext  int64
		loc  *time.Location
	})(unsafe.Pointer(&out)).ext += int64(monotonic - wall) //nolint:gosec // no other way to make such a time
	if out.Sub(at) != monotonic || out.Round(0).Sub(at.Round(0)) != wall {
		t.Fatalf("clocks moved by %v and %v", out.Round(0).Sub(at.Round(0)), out.Sub(at))
	}
	return out
}

// A process that did not run for a minute notices before it answers, by whichever clock shows it.
func TestStoppedProcess(t *testing.T) {
	for name, wall := range map[string][2]time.Duration{
		"stopped": {time.Minute, time.Minute}, "machine slept": {time.Minute, 0}, "time set back": {0, time.Minute}, "time set far back": {-time.Hour, time.Minute},
		"slept, then time set back": {-10 * time.Minute, 0}, "restored": {-10 * time.Minute, -10 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			l := new(log)
			id := certID(t, sign1, 1)
			l.add(id, good())
			now := time.Now()
			x := index(t, status.Config{Log: l, Now: func() time.Time { return now }})
			if _, _, err := x.Status(t.Context(), id); err != nil {
				t.Fatal(err)
			}
			l.add(id, lost())
			now = later(t, now, wall[0], wall[1])
			if st, _, err := x.Status(t.Context(), id); err != nil || st.State != jpki.Suspended {
				t.Errorf("%v, %v", st.State, err)
			}
		})
	}
}

// Stopped while the log was being read, it holds a view that was complete a minute ago.
func TestStoppedDuringRead(t *testing.T) {
	l := new(log)
	id := certID(t, sign1, 1)
	l.add(id, good())
	now := time.Now()
	x := index(t, status.Config{Log: l, Now: func() time.Time { l.mu.Lock(); defer l.mu.Unlock(); return now }})
	l.set(func(l *log) { l.during = func() { now = now.Add(time.Minute) } })
	for _, id := range []jpki.CertID{id, certID(t, sign1, 2)} {
		if st, _, err := x.Status(t.Context(), id); !errors.Is(err, jpki.Unavailable) {
			t.Errorf("%q, %v; want unavailable", st.State, err)
		}
	}
}

func TestDamagedLog(t *testing.T) {
	a := certID(t, sign1, 1)
	change := func(seq int64, st jpki.Status) jpki.StatusChange {
		return jpki.StatusChange{Seq: seq, ID: a, Status: st}
	}
	for _, test := range []struct {
		name           string
		first, damaged []jpki.StatusChange
	}{
		{"gap", []jpki.StatusChange{change(1, good())}, []jpki.StatusChange{change(1, good()), change(3, lost())}},
		{"gap at the beginning", nil, []jpki.StatusChange{change(2, good())}},
		{"out of order", []jpki.StatusChange{change(1, good())}, []jpki.StatusChange{change(1, good()), change(3, lost()), change(2, good())}},
		{"twice", []jpki.StatusChange{change(1, good())}, []jpki.StatusChange{change(1, good()), change(2, lost()), change(2, lost())}},
		{"rolled back", []jpki.StatusChange{change(1, good()), change(2, lost())}, []jpki.StatusChange{change(1, good())}},
		{"rewritten", []jpki.StatusChange{change(1, good()), change(2, lost())}, []jpki.StatusChange{change(1, good()), change(2, good())}},
		{"emptied", []jpki.StatusChange{change(1, good())}, nil},
		{"unknown state", []jpki.StatusChange{change(1, good())}, []jpki.StatusChange{change(1, good()), change(2, jpki.Status{State: "fine"})}},
		{"no state", nil, []jpki.StatusChange{change(1, jpki.Status{})}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &log{entries: test.first}
				x := index(t, status.Config{Log: l})
				if err := x.Refresh(t.Context()); err != nil {
					t.Fatal(err)
				}
				seq, mark := x.Seq(), x.Watermark()
				l.set(func(l *log) { l.entries = test.damaged })
				time.Sleep(2 * time.Second)
				if err := x.Refresh(t.Context()); err == nil {
					t.Error("followed a damaged log")
				}
				if x.Err() == nil {
					t.Error("Err says nothing")
				}
				if x.Seq() != seq || !x.Watermark().Equal(mark) {
					t.Errorf("advanced from %d to %d, %v to %v", seq, x.Seq(), mark, x.Watermark())
				}
				if st, _, err := x.Status(t.Context(), a); !errors.Is(err, jpki.Unavailable) {
					t.Errorf("Status: %v, %v; want unavailable", st.State, err)
				}
				l.set(func(l *log) { l.entries = test.first })
				if err := x.Refresh(t.Context()); err != nil || x.Err() != nil {
					t.Errorf("mended: %v, %v", err, x.Err())
				}
			})
		})
	}
}

func TestLongLog(t *testing.T) {
	l := new(log)
	const n = 10_000 // more than two pages
	for i := range uint64(n) {
		l.add(certID(t, sign1, i), good())
	}
	x := index(t, status.Config{Log: l, Bound: time.Hour})
	if err := x.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if x.Len() != n || x.Seq() != n {
		t.Errorf("Len %d, Seq %d; want %d", x.Len(), x.Seq(), n)
	}
	l.add(certID(t, sign1, 0), lost())
	if err := x.Refresh(t.Context()); err != nil || x.Len() != n || x.Seq() != n+1 {
		t.Errorf("one more: Len %d, Seq %d, %v", x.Len(), x.Seq(), err)
	}
}

func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := new(log)
		wake := make(chan struct{}, 1)
		x := index(t, status.Config{Log: l, Interval: time.Minute, Wake: wake})
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- x.Run(ctx) }()
		l.add(certID(t, sign1, 1), good())
		synctest.Wait()
		if x.Seq() != 1 {
			t.Error("Run does not read when it begins")
		}
		l.add(certID(t, sign1, 2), good())
		wake <- struct{}{}
		synctest.Wait()
		if x.Seq() != 2 {
			t.Error("Run does not read when woken")
		}
		l.add(certID(t, sign1, 3), good())
		l.set(func(l *log) { l.fail = errors.New("down") })
		time.Sleep(time.Minute)
		synctest.Wait()
		if x.Seq() != 2 || x.Err() == nil {
			t.Errorf("failing log: Seq %d, Err %v", x.Seq(), x.Err())
		}
		l.set(func(l *log) { l.fail = nil })
		time.Sleep(time.Minute)
		synctest.Wait()
		if x.Seq() != 3 || x.Err() != nil {
			t.Errorf("Run does not go on after a failure: Seq %d, Err %v", x.Seq(), x.Err())
		}
		close(wake)
		reads := l.count()
		time.Sleep(30 * time.Second)
		if n := l.count() - reads; n > 1 {
			t.Errorf("a closed Wake makes Run read %d times", n)
		}
		stop()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v", err)
		}
	})
}

// Many readers and one writer: once a suspension is committed and refreshed, nobody sees good again.
func TestConcurrency(t *testing.T) {
	l := new(log)
	x := index(t, status.Config{Log: l, Interval: time.Millisecond, Pause: time.Microsecond, Bound: time.Minute})
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = x.Run(ctx) })
	const n = 200
	var suspended atomic.Uint64 // all below are
	for range 8 {
		wg.Go(func() {
			for ctx.Err() == nil {
				upTo := suspended.Load()
				if upTo == 0 {
					continue
				}
				if st, _, err := x.Status(ctx, certID(t, sign1, upTo-1)); ctx.Err() == nil && (err != nil || st.State != jpki.Suspended) {
					t.Errorf("certificate %d: %q, %v", upTo-1, st.State, err)
					return
				}
			}
		})
	}
	for i := range uint64(n) {
		l.add(certID(t, sign1, i), good())
		if st, _, err := x.Status(ctx, certID(t, sign1, i)); err != nil || st.State != jpki.Good {
			t.Errorf("certificate %d: %q, %v", i, st.State, err)
		}
		l.add(certID(t, sign1, i), lost())
		if err := x.Refresh(ctx); err != nil {
			t.Fatal(err)
		}
		suspended.Store(i + 1)
	}
	stop()
	wg.Wait()
	if x.Len() != n || x.Seq() != 2*n {
		t.Errorf("Len %d, Seq %d", x.Len(), x.Seq())
	}
}

func TestNewRequires(t *testing.T) {
	for name, cfg := range map[string]status.Config{
		"Log": {Now: time.Now}, "Now": {Log: new(log)}, "a duration": {Log: new(log), Now: time.Now, Bound: -1},
		"a retention": {Log: new(log), Now: time.Now, Retention: -1}, "a MergeAt": {Log: new(log), Now: time.Now, MergeAt: -1},
	} {
		if _, err := status.New(cfg); err == nil {
			t.Errorf("New without a proper %s", name)
		}
	}
}
