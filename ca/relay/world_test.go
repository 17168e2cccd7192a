package relay_test

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/relay"
	"github.com/openjpki/jpki/ocsp/cache/redistest"
)

var since = time.Date(2026, 4, 1, 3, 0, 0, 0, time.UTC)

// entry returns an entry of a log, with a cause.
func entry(seq int64) jpki.StatusChange {
	serial, err := jpki.SerialFromBytes(binary.BigEndian.AppendUint64([]byte{0x40}, uint64(seq)))
	if err != nil {
		panic(err)
	}
	return jpki.StatusChange{
		Seq: seq, ID: jpki.CertID{Issuer: jpki.IssuerID{CA: jpki.SignCA, Generation: 1}, Serial: serial}, Partition: "13101", NotAfter: since.AddDate(5, 0, 0),
		Status: jpki.Status{State: jpki.Suspended, Reason: jpki.CertificateHold, Cause: jpki.Lost, Since: since, Version: seq%3 + 1},
	}
}

// A book is a log in memory, to be rewritten, stopped and made to fail.
type book struct {
	mu      sync.Mutex
	entries []jpki.StatusChange
	fail    error
	hold    chan struct{} // reads wait, after they have read, until it is closed
	held    chan struct{} // if not nil, signalled by reads that begin to wait
	wake    chan struct{}
}

func newBook(n int) *book {
	b := &book{wake: make(chan struct{}, 1)}
	b.commit(n)
	return b
}

func (b *book) commit(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for range n {
		b.entries = append(b.entries, entry(int64(len(b.entries)+1)))
	}
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

func (b *book) set(f func(*book)) { b.mu.Lock(); defer b.mu.Unlock(); f(b) }

func (b *book) len() int64 { b.mu.Lock(); defer b.mu.Unlock(); return int64(len(b.entries)) }

func (b *book) StatusChanges(ctx context.Context, after int64, limit int) ([]jpki.StatusChange, error) {
	b.mu.Lock()
	from := min(max(after, 0), int64(len(b.entries)))
	out := slices.Clone(b.entries[from:min(from+int64(limit), int64(len(b.entries)))])
	hold, held, fail := b.hold, b.held, b.fail
	b.mu.Unlock()
	if hold != nil {
		if held != nil {
			held <- struct{}{}
		}
		select {
		case <-hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return out, fail
}

// relays runs a relay until the test ends or stop is called.
func relays(t testing.TB, cfg relay.Config) (r *relay.Relay, stop func()) {
	t.Helper()
	cfg.Key, cfg.Rand = key, rand.Reader
	def(&cfg.Lease, 300*time.Millisecond)
	def(&cfg.Interval, 20*time.Millisecond)
	def(&cfg.Patience, 300*time.Millisecond)
	r, err := relay.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r, runs(t, r.Run)
}

// follows runs a follower until the test ends.
func follows(t testing.TB, server relay.Server) *relay.Follower {
	t.Helper()
	f, err := relay.NewFollower(relay.FollowerConfig{Server: server, Key: key, Rand: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	runs(t, f.Run)
	return f
}

func runs(t testing.TB, run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := run(ctx); ctx.Err() == nil || !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v", err)
		}
	}()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return stop
}

func def[T comparable](v *T, or T) {
	if zero := *new(T); *v == zero {
		*v = or
	}
}

func at(s *redistest.Server) relay.Server { return relay.Server{Addrs: []string{s.Addr()}} }

// view reads a log from a position to its end, and fails the test unless that is what truth has, without causes, and all
// that was committed before. A read that fails is no offence.
func view(t testing.TB, log relay.Log, truth *book, after int64, limit int) error {
	t.Helper()
	committed := truth.len()
	for {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		got, err := log.StatusChanges(ctx, after, limit)
		cancel()
		if err != nil {
			return err
		}
		truth.mu.Lock()
		if after+int64(len(got)) > int64(len(truth.entries)) {
			t.Fatalf("read %d entries after %d of %d", len(got), after, len(truth.entries))
		}
		want := slices.Clone(truth.entries[min(after, int64(len(truth.entries))):][:len(got)])
		truth.mu.Unlock()
		for i := range want {
			want[i].Status.Cause = jpki.NoCause
		}
		if len(got) > 0 {
			if diff := cmp.Diff(want, got, cmpopts.EquateComparable(jpki.Serial{})); diff != "" {
				t.Fatalf("after %d (-want +got):\n%s", after, diff)
			}
		}
		after += int64(len(got))
		if len(got) < limit {
			break
		}
	}
	if after < committed {
		t.Fatalf("a complete view ends at %d, but %d were committed before", after, committed)
	}
	return nil
}

// sees waits until a log can be read from a position.
func sees(t testing.TB, log relay.Log, truth *book, after int64) {
	t.Helper()
	var err error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if err = view(t, log, truth, after, 1000); err == nil {
			return
		}
	}
	t.Fatalf("no view: %v", err)
}

func ids(s *redistest.Server, stream string) string {
	return fmt.Sprint(s.Do("XLEN", stream), " ", s.Do("XREVRANGE", stream, "+", "-", "COUNT", "1"))
}
