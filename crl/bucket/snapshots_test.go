package bucket_test

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/crl/bucket"
	"github.com/openjpki/jpki/crl/snapshot"
)

// A house publishes snapshots of a hundred certificates, of which ever more are revoked, and mirrors them.
type house struct {
	t       *testing.T
	dir     string
	a       authority
	m       *bucket.Mirror
	p       *snapshot.Publisher
	revoked int
	ahead   time.Duration // of the publisher's clock
}

func newHouse(t *testing.T, b *bucket.Bucket, a authority) *house {
	t.Helper()
	h := &house{t: t, dir: t.TempDir(), a: a}
	var err error
	if h.p, err = snapshot.NewPublisher(snapshot.PublisherConfig{Dir: h.dir, Source: h, Now: func() time.Time { return time.Now().Add(h.ahead - time.Minute) }, Rand: rand.Reader}); err != nil {
		t.Fatal(err)
	}
	cfg := bucket.MirrorConfig{Bucket: b, Dir: t.TempDir(), Snapshots: h.dir, Issuers: map[jpki.IssuerID]*x509.Certificate{sign1: a.cert}, Now: time.Now}
	if h.m, err = bucket.NewMirror(cfg); err != nil {
		t.Fatal(err)
	}
	return h
}

func numbered(n int) jpki.Serial {
	s, err := jpki.SerialFromBytes([]byte{0x40, byte(n >> 8), byte(n)})
	if err != nil {
		panic(err)
	}
	return s
}

func (h *house) Certificates(context.Context, jpki.IssuerID, time.Time) iter.Seq2[snapshot.Certificate, error] {
	return func(yield func(snapshot.Certificate, error) bool) {
		for n := range 100 {
			state := jpki.Good
			if n < h.revoked {
				state = jpki.Revoked
			}
			if !yield(snapshot.Certificate{Serial: numbered(n), State: state}, nil) {
				return
			}
		}
	}
}

func (h *house) publish(revoked int, whole bool) {
	h.t.Helper()
	h.revoked = revoked
	if err := h.p.Publish(context.Background(), snapshot.Issuer{ID: sign1, Cert: h.a.cert, Signer: h.a.key}, whole); err != nil {
		h.t.Fatal(err)
	}
}

// inBucket fetches what the bucket's index names, as a reader would, and returns how many are revoked and the last number.
func inBucket(t *testing.T, b *bucket.Bucket, a authority) (revoked int, sequence uint64) {
	t.Helper()
	dir := t.TempDir()
	fetch := func(name string) []byte {
		body, _, err := b.Get(context.Background(), "snapshot/sign-1/"+name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			return nil
		}
		defer body.Close()
		octets, err := io.ReadAll(body)
		if err != nil {
			t.Error(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), octets, 0o600); err != nil {
			t.Error(err)
		}
		return octets
	}
	if _, err := b.Look(context.Background(), "snapshot/sign-1/"+snapshot.IndexName); errors.Is(err, jpki.NotFound) {
		return -1, 0
	}
	index, err := snapshot.ParseIndex(fetch(snapshot.IndexName))
	if err != nil {
		t.Error(err)
		return -1, 0
	}
	for _, f := range index.Files {
		fetch(f.Name)
	}
	s, _, err := snapshot.OpenDir(dir, snapshot.Config{IssuerCert: a.cert, Now: time.Now})
	if err != nil {
		t.Error(err)
		return -1, 0
	}
	for n := range 100 {
		if state, _ := s.Lookup(snapshot.Question{Serial: numbered(n), NotBefore: now.AddDate(-1, 0, 0), NotAfter: time.Now().AddDate(1, 0, 0)}); state == jpki.Revoked {
			revoked++
		}
	}
	return revoked, s.Info().Sequence
}

func TestMirrorSnapshots(t *testing.T) {
	endpoint, name := store(t)
	b, a := open(t, endpoint, name), newAuthority(t)
	ctx, h := t.Context(), newHouse(t, b, a)
	step := func(what string, h *house, revoked int, outcome string) {
		t.Helper()
		before := h.m.Outcomes.Snapshot()
		err := h.m.Sync(ctx)
		if bad := outcome == "refused" || outcome == "failed"; bad != (err != nil) {
			t.Errorf("%s: %v", what, err)
		}
		after := h.m.Outcomes.Snapshot()
		if outcome != "" && after[outcome] != before[outcome]+1 || outcome == "" && len(after) != len(before) {
			t.Errorf("%s: %v after %v, want one %q more", what, after, before, outcome)
		}
		if got, _ := inBucket(t, b, a); got != revoked {
			t.Errorf("%s: %d are revoked in the bucket, want %d", what, got, revoked)
		}
	}
	overwrite := func(text string) {
		t.Helper()
		key := "snapshot/sign-1/" + snapshot.IndexName
		tag, err := b.Look(ctx, key)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Put(ctx, key, content(text), tag); err != nil {
			t.Fatal(err)
		}
	}
	step("nothing there", h, -1, "")
	h.publish(1, true)
	step("a snapshot", h, 1, "put")
	step("nothing new", h, 1, "")
	h.publish(2, false)
	h.publish(3, false)
	step("two deltas", h, 3, "put")
	restored := newHouse(t, b, a)
	if err := os.CopyFS(restored.dir, os.DirFS(h.dir)); err != nil {
		t.Fatal(err)
	}
	h.publish(4, false)
	step("one more", h, 4, "put")
	step("a directory that was restored", restored, 4, "behind")
	h.ahead = time.Second
	h.publish(5, true)
	step("a new snapshot", h, 5, "put")
	another := newHouse(t, b, a)
	if err := os.CopyFS(another.dir, os.DirFS(h.dir)); err != nil {
		t.Fatal(err)
	}
	step("the same from elsewhere", another, 5, "same")

	overwrite("no index at all")
	h.publish(6, false)
	step("in the place of rubbish", h, 6, "put")
	forged := snapshot.Index{Issuer: "sign-1", Files: []snapshot.File{{Name: "9999999999999.snapshot", Octets: 500, SHA256: strings.Repeat("00", 32), ThisUpdate: now, NextUpdate: now.AddDate(9, 0, 0)}}}
	text, err := json.Marshal(forged)
	if err != nil {
		t.Fatal(err)
	}
	overwrite(string(text))
	h.publish(7, false)
	step("in the place of an index of what is not there", h, 7, "put")
	if _, err := b.Put(ctx, "snapshot/sign-1/9999999999999.snapshot", content(strings.Repeat("x", 500)), ""); err != nil {
		t.Fatal(err)
	}
	overwrite(string(text))
	h.publish(8, false)
	step("in the place of an index of what nobody signed", h, 8, "put")

	stranger := newHouse(t, b, newAuthority(t))
	stranger.ahead = 2 * time.Second
	stranger.publish(50, true)
	stranger.m, err = bucket.NewMirror(bucket.MirrorConfig{Bucket: b, Dir: t.TempDir(), Snapshots: stranger.dir, Issuers: map[jpki.IssuerID]*x509.Certificate{sign1: a.cert}, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	step("another issuer's", stranger, 8, "refused")
	// A file that is there under the next name, and another: nothing names it.
	h.publish(9, false)
	_, index, err := snapshot.OpenDir(filepath.Join(h.dir, "sign-1"), snapshot.Config{IssuerCert: a.cert, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Put(ctx, "snapshot/sign-1/"+index.Files[len(index.Files)-1].Name, content("another"), ""); err != nil {
		t.Fatal(err)
	}
	step("behind another file of that name", h, 8, "failed")
}

// Publishers that know nothing of each other race for one index: what it names is always there and fits, its number only grows and
// ends with the greatest.
func TestMirrorsRaceWithSnapshots(t *testing.T) {
	endpoint, name := store(t)
	b, a := open(t, endpoint, name), newAuthority(t)
	const houses, rounds = 3, 8
	var publishers sync.WaitGroup
	var mu sync.Mutex
	greatest := uint64(0)
	for n := range houses {
		h := newHouse(t, open(t, endpoint, name), a)
		publishers.Go(func() {
			for round := range rounds {
				h.ahead = time.Duration(round*houses+n) * 100 * time.Millisecond
				h.publish(round, round%3 == 0)
				if err := h.m.Sync(context.Background()); err != nil && !errors.Is(err, jpki.Conflict) {
					t.Error(err)
				}
			}
			if err := h.m.Sync(context.Background()); err != nil {
				t.Error(err)
			}
			s, _, err := snapshot.OpenDir(filepath.Join(h.dir, "sign-1"), snapshot.Config{IssuerCert: a.cert, Now: time.Now})
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			greatest = max(greatest, s.Info().Sequence)
		})
	}
	over := make(chan struct{})
	go func() { publishers.Wait(); close(over) }()
	for last := uint64(0); ; {
		_, sequence := inBucket(t, b, a)
		if sequence < last {
			t.Errorf("number %d after %d", sequence, last)
		}
		last = sequence
		select {
		case <-over:
			if _, sequence := inBucket(t, b, a); sequence != greatest {
				t.Errorf("number %d in the end, want %d", sequence, greatest)
			}
			return
		default:
		}
	}
}
