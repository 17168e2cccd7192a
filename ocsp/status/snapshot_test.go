package status_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"math/big"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ocsp/status"
)

func (l *log) append(c jpki.StatusChange) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c.Seq = int64(len(l.entries) + 1)
	l.entries = append(l.entries, c)
}

// randomID draws a serial of 1 to 20 octets. Many are alike, so that they share buckets.
func randomID(t rapid.TB, chance *rand.Rand) jpki.CertID {
	b := make([]byte, []int{16, 16, 16, 16, 9, 20, 2, 1}[chance.IntN(8)])
	for i := range b {
		if b[i] = byte(chance.Uint32()); chance.IntN(4) == 0 {
			b[i] = 0x55
		}
	}
	b[0] |= 0x40
	serial, err := jpki.SerialFromBytes(b)
	noError(t, err)
	return jpki.CertID{Issuer: []jpki.IssuerID{sign1, auth1, {CA: jpki.SignCA, Generation: 2}}[chance.IntN(3)], Serial: serial}
}

// next returns the certificate with the number after id's.
func next(t rapid.TB, id jpki.CertID) jpki.CertID {
	serial, err := jpki.SerialFromBig(new(big.Int).Add(id.Serial.Big(), big.NewInt(1)))
	if err != nil {
		t.Skip("there is no larger number")
	}
	return jpki.CertID{Issuer: id.Issuer, Serial: serial}
}

func noError(t rapid.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func randomStatus(chance *rand.Rand, version int64) jpki.Status {
	st := jpki.Status{State: jpki.Good, Since: since.Add(time.Duration(chance.IntN(1e9)) * time.Second), Version: version}
	switch chance.IntN(3) {
	case 1:
		st.State, st.Reason = jpki.Suspended, jpki.CertificateHold
	case 2:
		st.State, st.Reason = jpki.Revoked, jpki.Reason(chance.IntN(9))
	}
	return st
}

// told is what an index says of a status that was put into the log.
func told(st jpki.Status) jpki.Status {
	if st.State == jpki.Good && st.Version == 1 {
		return jpki.Status{State: jpki.Good, Version: 1}
	}
	st.Cause = jpki.NoCause
	return st
}

func expect(t rapid.TB, x *status.Index, id jpki.CertID, want jpki.Status, known bool) {
	t.Helper()
	got, _, err := x.Status(context.Background(), id)
	switch {
	case known && err != nil:
		t.Fatalf("%s: %v", id, err)
	case known && got != told(want):
		t.Fatalf("%s (-want +got):\n%s", id, cmp.Diff(told(want), got))
	case !known && !errors.Is(err, jpki.UnknownCertificate):
		t.Fatalf("%s: %v, %v; it was never issued", id, got, err)
	}
}

// A map says the same, whatever is merged, saved, restarted, damaged or expired meanwhile.
func TestModel(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		path := filepath.Join(dir, strconv.FormatUint(rand.Uint64(), 36))
		chance := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		l, now := new(log), time.Now()
		const kept = 100 * 24 * time.Hour
		start := func() *status.Index {
			return index(t, status.Config{
				Log: l, Now: func() time.Time { return now }, Snapshot: path, MergeAt: 1 + chance.IntN(2000), Retention: kept, Pause: time.Nanosecond,
			})
		}
		x := start()
		model := map[jpki.CertID]jpki.StatusChange{}
		var ids []jpki.CertID
		enter := func(c jpki.StatusChange) {
			l.append(c)
			model[c.ID] = c
		}
		t.Repeat(map[string]func(*rapid.T){
			"issue": func(t *rapid.T) {
				for range 1 + chance.IntN(100) {
					id := randomID(t, chance)
					if _, twice := model[id]; twice {
						continue
					}
					c := jpki.StatusChange{ID: id, Status: good(), NotAfter: now.AddDate(0, chance.IntN(24)-6, 0)}
					if chance.IntN(10) == 0 {
						c.NotAfter = time.Time{}
					}
					enter(c)
					ids = append(ids, id)
				}
			},
			"change": func(*rapid.T) {
				for range min(len(ids), 20) {
					c := model[ids[chance.IntN(len(ids))]]
					c.Status = randomStatus(chance, c.Status.Version+1)
					enter(c)
				}
			},
			"save": func(t *rapid.T) { noError(t, x.Save()) },
			"restart": func(t *rapid.T) {
				status.Settle(x)
				x = start()
				noError(t, x.SnapshotErr())
			},
			"damage": func(t *rapid.T) {
				noError(t, x.Save())
				status.Settle(x)
				data, err := os.ReadFile(path)
				if errors.Is(err, fs.ErrNotExist) {
					return
				}
				noError(t, err)
				data[chance.IntN(len(data))] ^= byte(1 + chance.IntN(255))
				noError(t, os.WriteFile(path, data, 0o600))
				if x = start(); x.SnapshotErr() == nil {
					t.Fatal("a damaged snapshot was used")
				}
				noError(t, x.Refresh(context.Background()))
				noError(t, x.Save()) // puts a sound one in its place
			},
			"wait": func(*rapid.T) { now = now.Add(time.Duration(chance.IntN(60*24)) * time.Hour) },
			"": func(t *rapid.T) {
				noError(t, x.Refresh(context.Background()))
				for range min(len(ids), 30) {
					c := model[ids[chance.IntN(len(ids))]]
					if !c.NotAfter.IsZero() && now.After(c.NotAfter.Add(kept)) {
						if st, _, err := x.Status(context.Background(), c.ID); !errors.Is(err, jpki.UnknownCertificate) && (err != nil || st != told(c.Status)) {
							t.Fatalf("%s, long expired: %v, %v", c.ID, st, err)
						}
						continue
					}
					expect(t, x, c.ID, c.Status, true)
					if other := next(t, c.ID); model[other].Status.Version == 0 {
						expect(t, x, other, jpki.Status{}, false)
					}
				}
			},
		})
		noError(t, x.Save())
	})
}

// filled returns a log with n certificates, every third of them changed.
func filled(t testing.TB, n int) *log {
	l := new(log)
	chance := rand.New(rand.NewPCG(1, uint64(n)))
	for i := range n {
		id := randomID(t, chance)
		l.append(jpki.StatusChange{ID: id, Status: good(), NotAfter: since.AddDate(5, 0, 0)})
		if i%3 == 0 {
			l.append(jpki.StatusChange{ID: id, Status: lost(), NotAfter: since.AddDate(5, 0, 0)})
		}
	}
	return l
}

// saved returns an index on a log and the snapshot it has written.
func saved(t testing.TB, l status.Log) (x *status.Index, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "snapshot")
	x = index(t, status.Config{Log: l, Snapshot: path, Bound: time.Hour})
	noError(t, x.Refresh(context.Background()))
	noError(t, x.Save())
	noError(t, x.SnapshotErr())
	return x, path
}

func TestRestart(t *testing.T) {
	l := filled(t, 500)
	before, path := saved(t, l)
	reads := l.count()
	x := index(t, status.Config{Log: l, Snapshot: path, Bound: time.Hour})
	noError(t, x.SnapshotErr())
	if x.Len() != before.Len() || x.Seq() != before.Seq() || !x.Watermark().IsZero() || l.count() != reads {
		t.Errorf("%d certificates up to entry %d, complete up to %v; want %d up to %d, and nothing said before the log is read", x.Len(), x.Seq(), x.Watermark(), before.Len(), before.Seq())
	}
	added := certID(t, auth1, 1)
	l.add(added, good())
	expect(t, x, added, good(), true)
	latest := map[jpki.CertID]jpki.Status{}
	for _, c := range l.entries {
		latest[c.ID] = c.Status
	}
	for id, st := range latest {
		expect(t, x, id, st, true)
	}
	if x.Len() != len(latest) {
		t.Errorf("%d certificates, want %d", x.Len(), len(latest))
	}
}

// Nothing is missed and nothing is believed: a snapshot with any octet altered is left aside and the log read instead.
func TestDamagedSnapshot(t *testing.T) {
	l := filled(t, 12)
	_, path := saved(t, l)
	sound, err := os.ReadFile(path)
	noError(t, err)
	last := l.entries[len(l.entries)-1]
	refused := func(what string, data []byte) {
		t.Helper()
		noError(t, os.WriteFile(path, data, 0o600))
		x := index(t, status.Config{Log: l, Snapshot: path})
		if x.SnapshotErr() == nil || x.Len() != 0 || x.Seq() != 0 {
			t.Errorf("%s: used", what)
			return
		}
		expect(t, x, last.ID, last.Status, true)
	}
	for i := range sound {
		for _, mask := range []byte{0x01, 0x80, 0xff} {
			data := bytes.Clone(sound)
			data[i] ^= mask
			refused(fmt.Sprintf("octet %d of %d xor %02x", i, len(sound), mask), data)
		}
		refused(fmt.Sprintf("cut after %d octets of %d", i, len(sound)), sound[:i])
	}
	refused("longer", append(bytes.Clone(sound), 0))
	refused("twice", append(bytes.Clone(sound), sound...))
	refused("zeros", make([]byte, len(sound)))
	noError(t, os.Remove(path))
	noError(t, os.Mkdir(path, 0o700))
	x := index(t, status.Config{Log: l, Snapshot: path})
	if x.SnapshotErr() == nil {
		t.Error("a directory was used")
	}
	expect(t, x, last.ID, last.Status, true)
	if err := x.Save(); err == nil || x.SnapshotErr() == nil {
		t.Error("a snapshot was written over a directory")
	}
	expect(t, x, last.ID, last.Status, true)
}

// A log that does not have what the snapshot was made from is not followed, as if the process had never been away.
func TestSnapshotOfAnotherLog(t *testing.T) {
	l := filled(t, 100)
	_, path := saved(t, l)
	id := l.entries[0].ID
	other := filled(t, 200)
	restored := &log{entries: l.entries[:len(l.entries)-1]}
	rewritten := &log{entries: slices.Clone(l.entries)}
	rewritten.entries[len(l.entries)-1].Status.State = jpki.Revoked
	for name, other := range map[string]*log{"another authority's": other, "restored from a backup": restored, "rewritten": rewritten, "empty": new(log)} {
		x := index(t, status.Config{Log: other, Snapshot: path})
		noError(t, x.SnapshotErr())
		if st, _, err := x.Status(t.Context(), id); !errors.Is(err, jpki.Unavailable) {
			t.Errorf("log %s: %v, %v; want unavailable", name, st, err)
		}
		if x.Err() == nil {
			t.Errorf("log %s: followed", name)
		}
	}
}

// Whoever looks during merges sees what was true before or something newer, never less.
func TestLookUpsDuringMerges(t *testing.T) {
	l := new(log)
	path := filepath.Join(t.TempDir(), "snapshot")
	x := index(t, status.Config{Log: l, Snapshot: path, MergeAt: 200, Bound: time.Hour, Pause: time.Microsecond, SaveEvery: time.Microsecond})
	const n = 300
	var ids [n]jpki.CertID
	var versions [n]atomic.Int64
	chance := rand.New(rand.NewPCG(2, 2))
	for i := range ids {
		ids[i] = certID(t, []jpki.IssuerID{sign1, auth1}[i%2], chance.Uint64())
		l.append(jpki.StatusChange{ID: ids[i], Status: good()})
		versions[i].Store(1)
	}
	noError(t, x.Refresh(t.Context()))
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := rand.IntN(n)
				least := versions[i].Load()
				st, _, err := x.Status(ctx, ids[i])
				if ctx.Err() == nil && (err != nil || st.Version < least || st.Version%2 == 1 != (st.State == jpki.Good)) {
					t.Errorf("%v, %v; at least version %d was known", st, err, least)
					return
				}
				if st, _, err := x.StatusAt(ctx, next(t, ids[i]), time.Time{}.Add(1)); !errors.Is(err, jpki.UnknownCertificate) && ctx.Err() == nil {
					t.Errorf("never issued: %v, %v", st, err)
					return
				}
			}
		})
	}
	for round := range int64(60) {
		for i := range ids {
			st := good()
			if round%2 == 0 {
				st = lost()
			}
			st.Version = round + 2
			l.append(jpki.StatusChange{ID: ids[i], Status: st})
		}
		noError(t, x.Refresh(t.Context()))
		for i := range ids {
			versions[i].Store(round + 2)
		}
		if round%10 == 0 {
			noError(t, x.Save())
		}
	}
	stop()
	wg.Wait()
	noError(t, x.Save())
	noError(t, x.SnapshotErr())
	if x.Len() != n {
		t.Errorf("%d certificates, want %d", x.Len(), n)
	}
}

// Expired certificates stay for the retention, and go at some merge afterwards.
func TestExpiry(t *testing.T) {
	l := new(log)
	now := since
	path := filepath.Join(t.TempDir(), "snapshot")
	start := func() *status.Index {
		return index(t, status.Config{Log: l, Now: func() time.Time { return now }, Snapshot: path, Retention: 30 * 24 * time.Hour, Pause: time.Nanosecond})
	}
	x := start()
	ends := map[jpki.CertID]time.Time{}
	for i := range uint64(1000) {
		c := jpki.StatusChange{ID: certID(t, sign1, i<<40), Status: good(), NotAfter: now.Add(time.Duration(i) * 24 * time.Hour)}
		if i%7 == 0 {
			c.Status = lost()
		}
		l.append(c)
		ends[c.ID] = c.NotAfter
	}
	forever := []jpki.CertID{certID(t, sign1, 1), certID(t, sign1, 2)}
	l.append(jpki.StatusChange{ID: forever[0], Status: good()})
	l.append(jpki.StatusChange{ID: forever[1], Status: good(), NotAfter: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)})
	noError(t, x.Refresh(t.Context()))
	for days := range 12 {
		now = since.Add(time.Duration(days) * 100 * 24 * time.Hour)
		l.add(certID(t, auth1, uint64(days)), good()) // something to merge
		noError(t, x.Refresh(t.Context()))
		noError(t, x.Save())
		if days%3 == 0 {
			x = start()
			noError(t, x.SnapshotErr())
		}
		gone := 0
		for id, end := range ends {
			_, _, err := x.Status(t.Context(), id)
			switch {
			case err == nil && now.After(end.Add((30+92)*24*time.Hour)):
				t.Fatalf("%v after its end a certificate is still there", now.Sub(end))
			case errors.Is(err, jpki.UnknownCertificate):
				if gone++; now.Before(end.Add(30 * 24 * time.Hour)) {
					t.Fatalf("%v after its end a certificate is gone", now.Sub(end))
				}
			case err != nil:
				t.Fatal(err)
			}
		}
		if want := 1000 - gone + 2 + days + 1; x.Len() != want {
			t.Fatalf("%d certificates, want %d", x.Len(), want)
		}
		expect(t, x, forever[0], good(), true)
		expect(t, x, forever[1], good(), true)
	}
}

// However many questions about numbers that were never issued arrive together, the log is read once.
func TestManyUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := filled(t, 10)
		x := index(t, status.Config{Log: l})
		noError(t, x.Refresh(t.Context()))
		ask := func() {
			arrived := time.Now()
			time.Sleep(time.Nanosecond)
			for i := range uint64(100) {
				if st, asOf, err := x.StatusAt(t.Context(), certID(t, sign1, i), arrived); !errors.Is(err, jpki.UnknownCertificate) || !asOf.After(arrived) {
					t.Fatalf("%v as of %v, %v", st, asOf, err)
				}
			}
		}
		for range 3 {
			time.Sleep(300 * time.Millisecond)
			reads := l.count()
			if ask(); l.count() != reads+1 {
				t.Errorf("%d reads for one request", l.count()-reads)
			}
		}
		// What was issued before they arrived is found, though the view was fresh.
		id := certID(t, sign1, 7)
		l.add(id, good())
		expect(t, x, id, good(), true)
		time.Sleep(time.Millisecond)
		l.add(certID(t, sign1, 8), good())
		time.Sleep(time.Millisecond)
		if st, _, err := x.StatusAt(t.Context(), certID(t, sign1, 8), time.Now()); err != nil || st.State != jpki.Good {
			t.Errorf("issued before the question: %v, %v", st, err)
		}
		if st, _, err := x.StatusAt(t.Context(), id, time.Now()); err != nil || st.State != jpki.Good {
			t.Errorf("known: %v, %v", st, err)
		}
	})
}

// A flood of such questions makes one read each Pause, and an issuance is visible nevertheless.
func TestFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := new(log)
		x := index(t, status.Config{Log: l, Pause: 5 * time.Millisecond})
		noError(t, x.Refresh(t.Context()))
		reads := l.count()
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		var answered atomic.Int64
		for i := range uint64(1000) {
			wg.Go(func() {
				for ctx.Err() == nil {
					_, _, err := x.StatusAt(ctx, certID(t, auth1, i), time.Now())
					if answered.Add(1); ctx.Err() == nil && !errors.Is(err, jpki.UnknownCertificate) {
						t.Error(err)
					}
				}
			})
		}
		const rounds = 100
		for i := range uint64(rounds) {
			time.Sleep(10 * time.Millisecond)
			id := certID(t, sign1, i)
			l.add(id, good())
			asked := time.Now()
			expect(t, x, id, good(), true)
			if waited := time.Since(asked); waited > 5*time.Millisecond {
				t.Errorf("an issuance was visible after %v", waited)
			}
			// Whoever does not ask about unknown numbers does not wait for the flood.
			asked = time.Now()
			noError(t, x.Refresh(t.Context()))
			if time.Since(asked) > 0 {
				t.Errorf("Refresh waited %v", time.Since(asked))
			}
		}
		stop()
		wg.Wait()
		time.Sleep(time.Second)         // the last read ends
		most := 2*rounds + 1 + rounds*3 // at each turn one for the issuance, one for Refresh; and one each 5 ms
		if n := l.count() - reads; n > most || answered.Load() < 1000*rounds {
			t.Errorf("%d reads for %d questions; want %d at most", n, answered.Load(), most)
		}
	})
}

// The file follows at its own pace, also when the log brings little.
func TestSaveEvery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := filled(t, 10)
		path := filepath.Join(t.TempDir(), "snapshot")
		x := index(t, status.Config{Log: l, Snapshot: path, SaveEvery: time.Hour})
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- x.Run(ctx) }()
		written := func() (at time.Time) {
			time.Sleep(time.Minute)
			status.Settle(x)
			if info, err := os.Stat(path); err == nil {
				at = info.ModTime()
			}
			return at
		}
		if at := written(); !at.IsZero() {
			t.Error("written at once")
		}
		time.Sleep(time.Hour)
		first := written()
		if first.IsZero() {
			t.Fatal("not written after an hour")
		}
		time.Sleep(2 * time.Hour)
		if at := written(); !at.Equal(first) {
			t.Error("written though nothing was new")
		}
		l.add(certID(t, sign1, 1), good())
		if at := written(); at.Equal(first) {
			t.Error("what is new was not written")
		}
		stop()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		y := index(t, status.Config{Log: l, Snapshot: path})
		if noError(t, y.SnapshotErr()); y.Seq() != x.Seq() {
			t.Errorf("up to entry %d, want %d", y.Seq(), x.Seq())
		}
	})
}

// Without room for a snapshot the index goes on, packed and right.
func TestSnapshotCannotBeWritten(t *testing.T) {
	l := filled(t, 500)
	dir := filepath.Join(t.TempDir(), "missing")
	x := index(t, status.Config{Log: l, Snapshot: filepath.Join(dir, "snapshot"), Bound: time.Hour})
	noError(t, x.Refresh(t.Context()))
	if err := x.Save(); err == nil || x.SnapshotErr() == nil {
		t.Error("saved into a directory that is not there")
	}
	last := l.entries[len(l.entries)-1]
	expect(t, x, last.ID, last.Status, true)
	noError(t, os.Mkdir(dir, 0o700))
	noError(t, x.Save())
	noError(t, x.SnapshotErr())
	y := index(t, status.Config{Log: l, Snapshot: filepath.Join(dir, "snapshot"), Bound: time.Hour})
	if y.Len() != x.Len() || y.Seq() != x.Seq() {
		t.Errorf("%d certificates up to %d, want %d up to %d", y.Len(), y.Seq(), x.Len(), x.Seq())
	}
}

// Packing needs no file.
func TestWithoutSnapshot(t *testing.T) {
	l := filled(t, 5000)
	x := index(t, status.Config{Log: l, MergeAt: 100, Bound: time.Hour})
	noError(t, x.Refresh(t.Context()))
	status.Settle(x)
	noError(t, x.Save())
	if status.Overlay(x) != 0 {
		t.Errorf("%d certificates are not packed", status.Overlay(x))
	}
	latest := map[jpki.CertID]jpki.Status{}
	for _, c := range l.entries {
		latest[c.ID] = c.Status
	}
	if x.Len() != len(latest) {
		t.Errorf("%d certificates, want %d", x.Len(), len(latest))
	}
	for id, st := range latest {
		expect(t, x, id, st, true)
	}
}

// computed is a log whose entry n is the issuance of certificate n.
type computed struct{ upTo int64 }

func (l *computed) StatusChanges(_ context.Context, after int64, limit int) ([]jpki.StatusChange, error) {
	var out []jpki.StatusChange
	for n := after + 1; n <= l.upTo && len(out) < limit; n++ {
		serial, err := jpki.SerialFromBytes(binary.BigEndian.AppendUint64([]byte{0x40}, uint64(n)*0x9e3779b97f4a7c15))
		if err != nil {
			return nil, err
		}
		out = append(out, jpki.StatusChange{Seq: n, ID: jpki.CertID{Issuer: sign1, Serial: serial}, Status: good()})
	}
	return out, nil
}

// A process killed at any moment while it writes leaves a snapshot that can be used, and never one older than before.
func TestKilledWriting(t *testing.T) {
	const variable = "JPKI_TEST_STATUS_SNAPSHOT"
	if path := os.Getenv(variable); path != "" {
		saveForever(t, path)
	}
	rounds := 25
	if testing.Short() {
		rounds = 5
	}
	path := filepath.Join(t.TempDir(), "snapshot")
	var seq int64
	unfinished := 0
	for range rounds {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKilledWriting$") //nolint:gosec // this very test
		cmd.Env = append(os.Environ(), variable+"="+path)
		out, err := cmd.StdoutPipe()
		noError(t, err)
		noError(t, cmd.Start())
		first := make([]byte, 1)
		if _, err = out.Read(first); err != nil || first[0] != '.' { // it has saved once
			t.Fatalf("the process that saves says %q, %v", first, err)
		}
		time.Sleep(time.Duration(rand.IntN(40)) * time.Millisecond)
		noError(t, cmd.Process.Kill())
		_ = cmd.Wait()
		if _, err := os.Stat(path + ".new"); err == nil {
			unfinished++
		}
		l := new(computed)
		x := index(t, status.Config{Log: l, Snapshot: path})
		noError(t, x.SnapshotErr())
		if x.Seq() <= seq || x.Len() != int(x.Seq()) {
			t.Fatalf("%d certificates up to entry %d; before it was %d", x.Len(), x.Seq(), seq)
		}
		seq = x.Seq()
		l.upTo = seq
		changes, err := l.StatusChanges(t.Context(), seq-1, 1)
		noError(t, err)
		expect(t, x, changes[0].ID, good(), true)
	}
	t.Logf("%d of %d were killed while they wrote", unfinished, rounds)
}

// saveForever adds to the log that the process before it left and saves after each addition.
func saveForever(t *testing.T, path string) {
	l := new(computed)
	x := index(t, status.Config{Log: l, Snapshot: path, Bound: time.Hour})
	noError(t, x.SnapshotErr())
	for l.upTo = max(x.Seq(), 20_000) + 1; ; l.upTo++ {
		noError(t, x.Refresh(t.Context()))
		noError(t, x.Save())
		fmt.Print(".")
	}
}

func trialOf(t *testing.T, n uint64) iter.Seq[jpki.StatusChange] {
	return func(yield func(jpki.StatusChange) bool) {
		for i := range n {
			id := certID(t, sign1, i)
			serial, err := jpki.SerialFromBytes(append(id.Serial.Bytes(), 1, 2, 3, 4, 5, 6, 7))
			noError(t, err)
			if !yield(jpki.StatusChange{ID: jpki.CertID{Issuer: sign1, Serial: serial}, Status: good()}) {
				return
			}
		}
	}
}

func TestTrial(t *testing.T) {
	l := filled(t, 300)
	before, path := saved(t, l)
	noError(t, status.AddTrial(path, time.Now(), map[jpki.IssuerID]iter.Seq[jpki.StatusChange]{sign1: trialOf(t, 1000)}))

	x := index(t, status.Config{Log: l, Snapshot: path, Bound: time.Hour})
	if x.SnapshotErr() == nil || x.Len() != 0 {
		t.Error("certificates that were never issued were accepted")
	}
	start := func() *status.Index {
		x := index(t, status.Config{Log: l, Snapshot: path, AcceptTrial: true, Bound: time.Hour})
		noError(t, x.SnapshotErr())
		noError(t, x.Refresh(t.Context()))
		return x
	}
	x = start()
	if x.Len() != before.Len()+1000 || x.Seq() != before.Seq() {
		t.Errorf("%d certificates up to entry %d, want %d up to %d", x.Len(), x.Seq(), before.Len()+1000, before.Seq())
	}
	// The log goes on on top of it, and what is for trials remains so.
	var first jpki.StatusChange
	for first = range trialOf(t, 1) {
		l.append(jpki.StatusChange{ID: first.ID, Status: lost()})
	}
	noError(t, x.Refresh(t.Context()))
	noError(t, x.Save())
	if index(t, status.Config{Log: l, Snapshot: path}).SnapshotErr() == nil {
		t.Error("a merge made the snapshot one for production")
	}
	x = start()
	expect(t, x, first.ID, lost(), true)
	for c := range trialOf(t, 1000) {
		if c.ID != first.ID {
			expect(t, x, c.ID, good(), true)
		}
	}

	// What is refused changes nothing.
	sound, err := os.ReadFile(path)
	noError(t, err)
	list := slices.Collect(trialOf(t, 3))
	foreign := list[0]
	foreign.ID.Issuer = auth1
	short := jpki.StatusChange{ID: certID(t, sign1, 1), Status: good()}
	stateless := list[0]
	stateless.Status.State = ""
	for name, certs := range map[string][]jpki.StatusChange{
		"out of order": {list[1], list[0]}, "twice": {list[0], list[0]}, "of another issuer": {foreign}, "too short": {short}, "without a state": {stateless},
	} {
		if err := status.AddTrial(path, time.Now(), map[jpki.IssuerID]iter.Seq[jpki.StatusChange]{sign1: slices.Values(certs)}); err == nil {
			t.Errorf("%s: accepted", name)
		}
		if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, sound) {
			t.Fatalf("%s: the snapshot changed: %v", name, err)
		}
	}
	noError(t, os.WriteFile(path, sound[:len(sound)-1], 0o600))
	if err := status.AddTrial(path, time.Now(), nil); err == nil || !strings.Contains(err.Error(), "open snapshot") {
		t.Errorf("added to a damaged snapshot: %v", err)
	}
}

// A log may bring what the store never writes; nothing of it is made good.
func TestImpossibleEntries(t *testing.T) {
	id := certID(t, sign1, 1)
	for name, c := range map[string]jpki.StatusChange{
		"no serial":        {Status: good()},
		"negative version": {ID: id, Status: jpki.Status{State: jpki.Good, Version: -1}},
		"large version":    {ID: id, Status: jpki.Status{State: jpki.Good, Version: 1 << 32}},
		"large reason":     {ID: id, Status: jpki.Status{State: jpki.Revoked, Reason: 256, Version: 1}},
		"negative reason":  {ID: id, Status: jpki.Status{State: jpki.Revoked, Reason: -1, Version: 1}},
		"far future":       {ID: id, Status: jpki.Status{State: jpki.Revoked, Since: time.Unix(1<<47, 0), Version: 1}},
	} {
		c.Seq = 1
		x := index(t, status.Config{Log: &log{entries: []jpki.StatusChange{c}}})
		if st, _, err := x.Status(t.Context(), id); !errors.Is(err, jpki.Unavailable) {
			t.Errorf("%s: %v, %v", name, st, err)
		}
	}
}

// Whatever octets a snapshot has, with checksums that are right: it is refused, or it says exactly one thing and every
// certificate in it is found.
func FuzzSnapshot(f *testing.F) {
	for _, n := range []int{0, 1, 12, 300} {
		_, path := saved(f, filled(f, n))
		data, err := os.ReadFile(path)
		if n > 0 {
			noError(f, err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, data := range [][]byte{data, status.Mend(data)} {
			again, err := status.Rewrite(data)
			if errors.Is(err, status.ErrLost) {
				t.Error(err)
			}
			if err == nil && !bytes.Equal(again, data) {
				t.Errorf("read and written again it is another file:\n%x\n%x", data, again)
			}
		}
	})
}
