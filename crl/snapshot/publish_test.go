package snapshot_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/crl/snapshot"
)

// A house is a directory, a clock and what a publisher is told.
type house struct {
	t     *testing.T
	mu    sync.Mutex
	now   time.Time
	state universe
	err   error
	dir   string
	a     authority
	p     *snapshot.Publisher
}

func newHouse(t *testing.T) *house {
	h := &house{t: t, now: t0, state: universe{1000, 100, 3000, 1}, dir: t.TempDir(), a: newAuthority(t, "p-256")}
	var err error
	if h.p, err = snapshot.NewPublisher(h.config()); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *house) config() snapshot.PublisherConfig {
	return snapshot.PublisherConfig{Dir: h.dir, Source: h, Now: h.Now, Rand: rand.Reader}
}

func (h *house) Now() time.Time { h.mu.Lock(); defer h.mu.Unlock(); return h.now }

func (h *house) pass(d time.Duration) { h.mu.Lock(); defer h.mu.Unlock(); h.now = h.now.Add(d) }

func (h *house) Certificates(_ context.Context, issuer jpki.IssuerID, _ time.Time) iter.Seq2[snapshot.Certificate, error] {
	return func(yield func(snapshot.Certificate, error) bool) {
		h.state.all(yield)
		if h.err != nil {
			yield(snapshot.Certificate{}, h.err)
		}
	}
}

func (h *house) issuer() snapshot.Issuer {
	return snapshot.Issuer{ID: sign1, Cert: h.a.cert, Signer: h.a.key}
}

func (h *house) due() {
	h.t.Helper()
	if err := h.p.Due(context.Background(), h.issuer()); err != nil {
		h.t.Error(err)
	}
}

func (h *house) folder() string { return filepath.Join(h.dir, "sign-1") }

// check opens what is published and compares every answer; it returns the kinds of files in the index.
func (h *house) check() (files string, last uint64) {
	h.t.Helper()
	s, index, err := snapshot.OpenDir(h.folder(), snapshot.Config{IssuerCert: h.a.cert, Now: h.Now})
	if err != nil {
		h.t.Fatal(err)
	}
	for n := range h.state.n {
		q := h.state.question(n)
		if got, covered := s.Lookup(q); got != h.state.state(n) || !covered {
			h.t.Fatalf("certificate %d: %s, %v, want %s", n, got, covered, h.state.state(n))
		}
	}
	for _, f := range index.Files {
		files += map[bool]string{true: "S", false: "d"}[strings.HasSuffix(f.Name, ".snapshot")]
	}
	return files, s.Info().Sequence
}

func (h *house) names() (out []string) {
	h.t.Helper()
	entries, err := os.ReadDir(h.folder())
	if err != nil {
		h.t.Fatal(err)
	}
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

// Three days of hours: a snapshot a day, a delta an hour, everything true at every hour, numbers that grow, and no file longer
// than somebody may use it.
func TestPublishSchedule(t *testing.T) {
	h := newHouse(t)
	var number uint64
	want := ""
	for hour := range 73 {
		h.state.salt = uint64(hour) // a third has changed
		h.state.n += 3
		h.due()
		files, last := h.check()
		if hour%24 == 0 {
			want = "S"
		} else {
			want += "d"
		}
		if files != want && !(files == "S" && len(want) > 2) { // deltas that outgrow it make way for a snapshot
			t.Fatalf("hour %d: %s, want %s", hour, files, want)
		}
		want = files
		if last <= number {
			t.Errorf("hour %d: number %d after %d", hour, last, number)
		}
		number = last
		h.due()
		if again, same := h.check(); again != files || same != last {
			t.Errorf("hour %d: published again: %s", hour, again)
		}
		h.pass(time.Hour)
	}
	if n := len(h.names()); n < 48 || n > 52 {
		t.Errorf("%d files: two days' can still be used", n)
	}
	if got := h.p.Outcomes.Snapshot(); got["snapshot"] != 4 || got["delta"] != 69 || got["failed"] != 0 {
		t.Error(got)
	}
}

// Whatever a crash leaves or somebody destroys, what is published next is whole, true and has a greater number.
func TestPublishAfterCrash(t *testing.T) {
	for name, crash := range map[string]func(h *house, oldIndex []byte){
		"before the index":       func(h *house, old []byte) { h.write(snapshot.IndexName, old) },
		"while building":         func(h *house, _ []byte) { h.write(".new", []byte("half a snapsh")) },
		"while writing an index": func(h *house, _ []byte) { h.write(snapshot.IndexName+".new", []byte("{")) },
		"index lost":             func(h *house, _ []byte) { h.remove(snapshot.IndexName) },
		"index cut":              func(h *house, old []byte) { h.write(snapshot.IndexName, old[:len(old)/2]) },
		"snapshot lost":          func(h *house, _ []byte) { h.remove(h.find(".snapshot")) },
		"delta lost":             func(h *house, _ []byte) { h.remove(h.find(".delta")) },
		"snapshot damaged":       func(h *house, _ []byte) { h.write(h.find(".snapshot"), []byte("nothing")) },
		"delta is another's":     func(h *house, old []byte) { h.write(h.find(".delta"), old) },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			h.due()
			old, err := os.ReadFile(filepath.Join(h.folder(), snapshot.IndexName))
			if err != nil {
				t.Fatal(err)
			}
			h.pass(time.Hour)
			h.state.salt = 2
			h.due()
			files, number := h.check()
			if files != "Sd" {
				t.Fatal(files)
			}
			crash(h, old)
			h.pass(time.Hour)
			h.state.salt = 3
			h.due()
			if _, last := h.check(); last <= number {
				t.Errorf("number %d after %d", last, number)
			}
			if slices.Contains(h.names(), ".new") {
				t.Error("an unfinished file is left")
			}
		})
	}
}

func (h *house) write(name string, content []byte) {
	h.t.Helper()
	if err := os.WriteFile(filepath.Join(h.folder(), name), content, 0o644); err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) remove(name string) {
	h.t.Helper()
	if err := os.Remove(filepath.Join(h.folder(), name)); err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) find(suffix string) string {
	h.t.Helper()
	i := slices.IndexFunc(h.names(), func(n string) bool { return strings.HasSuffix(n, suffix) })
	if i < 0 {
		h.t.Fatalf("no %s", suffix)
	}
	return h.names()[i]
}

// A failure leaves what is published as it was, and no rubbish.
func TestPublishFails(t *testing.T) {
	h := newHouse(t)
	h.due()
	names := h.names()
	h.pass(time.Hour)
	h.err = errors.New("the database is down")
	if err := h.p.Due(context.Background(), h.issuer()); !errors.Is(err, h.err) {
		t.Errorf("%v", err)
	}
	if got := h.names(); !slices.Equal(got, names) {
		t.Errorf("%v, before %v", got, names)
	}
	if got := h.p.Outcomes.Snapshot(); got["failed"] != 1 || got["snapshot"] != 1 {
		t.Error(got)
	}
}

// Publishers of one directory take turns: numbers grow, and what one makes the next builds upon.
func TestSnapshotPublishersTakeTurns(t *testing.T) {
	h := newHouse(t)
	h.due()
	_, number := h.check()
	var wg sync.WaitGroup
	for range 4 {
		p, err := snapshot.NewPublisher(h.config())
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			for range 3 {
				if err := p.Publish(context.Background(), h.issuer(), false); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if files, last := h.check(); files != "S"+strings.Repeat("d", 12) || last != number+12 {
		t.Errorf("%s, number %d after %d", files, last, number)
	}
}

func TestNewPublisherRefuses(t *testing.T) {
	h := newHouse(t)
	for want, edit := range map[string]func(*snapshot.PublisherConfig){
		"Dir": func(c *snapshot.PublisherConfig) { c.Dir = "" }, "Source": func(c *snapshot.PublisherConfig) { c.Source = nil },
		"Now": func(c *snapshot.PublisherConfig) { c.Now = nil }, "Rand": func(c *snapshot.PublisherConfig) { c.Rand = nil },
		"Delta": func(c *snapshot.PublisherConfig) { c.Delta = 25 * time.Hour }, "Life": func(c *snapshot.PublisherConfig) { c.Life = 47 * time.Hour },
		"Margin": func(c *snapshot.PublisherConfig) { c.Margin = -1 },
	} {
		cfg := h.config()
		edit(&cfg)
		if _, err := snapshot.NewPublisher(cfg); err == nil || !strings.Contains(err.Error(), "PublisherConfig."+want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestServeSnapshots(t *testing.T) {
	h := newHouse(t)
	h.due()
	h.pass(time.Hour)
	h.due()
	s, err := snapshot.NewServer(snapshot.ServerConfig{Dir: h.dir, Now: h.Now})
	if err != nil {
		t.Fatal(err)
	}
	ts := httptest.NewServer(s)
	defer ts.Close()
	get := func(method, path string, header ...string) (*http.Response, []byte) {
		t.Helper()
		req, err := http.NewRequest(method, ts.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp, body
	}
	resp, body := get("GET", "/snapshot/sign-1/index.json")
	index, err := snapshot.ParseIndex(body)
	if err != nil || resp.Header.Get("Content-Type") != "application/json" || resp.Header.Get("Cache-Control") != "public, max-age=60, must-revalidate" {
		t.Fatalf("%v: %v", err, resp)
	}
	if again, _ := get("GET", "/snapshot/sign-1/index.json", "If-None-Match", resp.Header.Get("ETag")); again.StatusCode != 304 {
		t.Errorf("%v", again)
	}
	for _, f := range index.Files {
		path := "/snapshot/sign-1/" + f.Name
		resp, body := get("GET", path)
		age := "public, max-age=172800, immutable"
		if strings.HasSuffix(f.Name, ".snapshot") {
			age = "public, max-age=169200, immutable" // an hour has passed
		}
		if err := f.Matches(body); err != nil || resp.Header.Get("Cache-Control") != age || resp.Header.Get("Content-Type") != "application/octet-stream" {
			t.Errorf("%s: %v, %v", f.Name, err, resp)
		}
		if again, _ := get("GET", path, "If-None-Match", resp.Header.Get("ETag")); again.StatusCode != 304 {
			t.Errorf("%v", again)
		}
		if part, rest := get("GET", path, "Range", "bytes=100-", "If-Range", resp.Header.Get("ETag")); part.StatusCode != 206 || !bytes.Equal(rest, body[100:]) {
			t.Errorf("%v", part)
		}
		if head, none := get("HEAD", path); head.ContentLength != f.Octets || len(none) != 0 {
			t.Errorf("%v", head)
		}
	}
	h.write("secret", []byte("secret"))
	h.write("7.snapshot", []byte("secret"))
	for _, c := range []struct {
		method, path string
		status       int
		problem      jpki.Problem
	}{
		{"GET", "/snapshot/sign-2/index.json", 404, jpki.NotFound},
		{"GET", "/snapshot/sign-1/", 404, jpki.NotFound},
		{"GET", "/snapshot/", 404, jpki.NotFound},
		{"GET", "/snapshot/sign-1/secret", 404, jpki.NotFound},
		{"GET", "/snapshot/sign-1/.new", 404, jpki.NotFound},
		{"GET", "/snapshot/sign-1/01.snapshot", 404, jpki.NotFound},
		{"GET", "/snapshot/sign-1/../sign-1/index.json", 404, jpki.NotFound},
		{"GET", "/snapshot/sign-1%2findex.json", 404, jpki.NotFound},
		{"POST", "/snapshot/sign-1/index.json", 405, jpki.MethodNotAllowed},
		{"GET", "/snapshot/sign-1/7.snapshot", 503, jpki.Unavailable},
	} {
		resp, body := get(c.method, c.path)
		var details jpki.ProblemDetails
		if err := json.Unmarshal(body, &details); err != nil || resp.StatusCode != c.status || details.Problem() != c.problem || bytes.Contains(body, []byte("secret\"")) || bytes.Contains(body, []byte(h.dir)) {
			t.Errorf("%s %s: %d %s, want %d", c.method, c.path, resp.StatusCode, body, c.status)
		}
	}
	if got := s.Outcomes.Snapshot(); got["index"] != 2 || got["file"] != 8 || got["not-found"] != 8 || got["method-not-allowed"] != 1 || got["unavailable"] != 1 {
		t.Error(got)
	}
}

// An index that is read names files in its own folder only, and is written in one way only.
func FuzzParseIndex(f *testing.F) {
	sum := strings.Repeat("ab", 32)
	f.Add([]byte(`{"issuer":"sign-1","files":[{"name":"17.snapshot","octets":200,"sha256":"` + sum + `","this_update":"2026-04-01T00:00:00Z","next_update":"2026-04-02T00:00:00Z"},{"name":"18.delta","octets":200,"sha256":"` + sum + `","this_update":"2026-04-01T00:00:00Z","next_update":"2026-04-02T00:00:00Z"}]}`))
	f.Add([]byte(`{"issuer":"sign-1","files":[{"name":"../17.snapshot"}]}`))
	f.Add([]byte(`{"issuer":"sign-1"} {}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		index, err := snapshot.ParseIndex(text)
		if err != nil {
			if !errors.Is(err, jpki.Malformed) {
				t.Errorf("%v", err)
			}
			return
		}
		for _, file := range index.Files {
			if filepath.Base(file.Name) != file.Name || strings.HasPrefix(file.Name, ".") || file.Octets > 1<<29 {
				t.Errorf("%+v", file)
			}
		}
		again, err := json.Marshal(index)
		if err != nil {
			return // a time that JSON cannot say
		}
		if _, err := snapshot.ParseIndex(again); err != nil {
			t.Errorf("%v: %s", err, again)
		}
	})
}
