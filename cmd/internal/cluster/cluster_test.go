package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/cmd/internal/softhsm"
)

// shared is the folder with the programs, for all tests.
var shared string

func TestMain(m *testing.M) {
	var err error
	if shared, err = os.MkdirTemp("", "cluster-bin-"); err != nil {
		panic(err)
	}
	code := m.Run()
	_ = os.RemoveAll(shared)
	os.Exit(code)
}

const tags = "nomsgpack,nobadger,nomysql,nobbolt,nopgx"

var build = sync.OnceValue(func() error {
	const ours = "github.com/openjpki/jpki/cmd/"
	for _, b := range []struct {
		cgo, tags, out string
		programs       []string
	}{
		{"CGO_ENABLED=0", tags, shared + "/", []string{ours + "jpki", ours + "jpki-ca", ours + "jpki-status", ours + "jpki-verifier"}},
		{"CGO_ENABLED=1", tags, shared + "/", []string{ours + "jpki-signer"}},
		{"CGO_ENABLED=0", "faults," + tags, shared + "/jpki-status-faults", []string{ours + "jpki-status"}},
	} {
		cmd := exec.Command("go", append([]string{"build", "-tags", b.tags, "-o", b.out}, b.programs...)...)
		cmd.Env = append(os.Environ(), b.cgo)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
	}
	return nil
})

// programs builds what a cluster runs, and leaves the test out where an outside program is missing.
func programs(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("starts many processes")
	}
	var missing error
	if found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb"); len(found) == 0 {
		missing = errors.New("no PostgreSQL")
	}
	for _, program := range []string{"redis-server", "redis-cli", "psql", "openssl", "cc"} {
		if _, err := exec.LookPath(program); err != nil {
			missing = err
		}
	}
	if _, err := softhsm.Module(); err != nil {
		missing = err
	}
	switch {
	case missing != nil && os.Getenv("JPKI_TEST_REQUIRE") == "1":
		t.Fatal(missing)
	case missing != nil:
		t.Skip(missing)
	}
	if err := build(); err != nil {
		t.Fatal(err)
	}
	return shared
}

// folder is one into which PostgreSQL's user may look.
func folder(t *testing.T) string {
	t.Helper()
	parent, err := os.MkdirTemp("", "cluster-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if left := running(t, parent); len(left) > 0 {
			t.Errorf("left behind: %q", left)
		}
		_ = os.RemoveAll(parent)
	})
	if err := os.Chmod(parent, 0o755); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(parent, "c")
}

// running lists the processes that have a folder in their command line.
func running(t *testing.T, dir string) (out []string) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range all {
		if text, err := os.ReadFile(file); err == nil && bytes.Contains(text, []byte(dir)) {
			out = append(out, strings.ReplaceAll(string(text), "\x00", " "))
		}
	}
	return out
}

// play runs the command and returns its exit code and what it printed.
func play(t *testing.T, args ...string) (code int, out string) {
	t.Helper()
	var b bytes.Buffer
	code = run(t.Context(), args, &b)
	return code, b.String()
}

// The whole topology comes up, a card lives its life on it, and nothing is left of it.
func TestWalk(t *testing.T) {
	bin := programs(t)
	code, out := play(t, "up", "-once", "-dir", folder(t), "-bin", bin)
	for _, want := range []string{"good at all 3 status servers", "TOTAL-PASSED", "suspended at all 3 status servers", "revoked at all 3 status servers", "the audit record is whole"} {
		if !strings.Contains(out, want) {
			t.Errorf("nothing of %q", want)
		}
	}
	if code != 0 || t.Failed() {
		t.Errorf("exit code %d\n%s", code, out)
	}
}

// A slice of make soak: half a minute of faults, and no promise is broken.
func TestSoak(t *testing.T) {
	bin := programs(t)
	if code, out := play(t, "soak", "-for", "30s", "-seed", "3", "-recovery", "90s", "-dir", folder(t), "-bin", bin); code != 0 {
		t.Errorf("exit code %d\n%s", code, out)
	}
}

// What is checked can be found wrong: a certificate that is revoked and revived behind the authority's back, one that is forgotten, one that
// nobody was given, and an audit record in which an entry was altered.
func TestForgeriesAreFound(t *testing.T) {
	bin := programs(t)
	ctx := t.Context()
	forge := func(c *cluster, statements ...string) {
		t.Helper()
		if _, err := c.postgres[0].sql(ctx, "postgres", "jpki", statements...); err != nil {
			t.Fatal(err)
		}
	}
	if err := with(ctx, folder(t), bin, io.Discard, func(ctx context.Context, c *cluster, _ io.Writer) error {
		y, err := newCity(c)
		if err != nil {
			return err
		}
		for n := range 3 {
			name := fmt.Sprint("resident-", n)
			k, order, err := prepare(n, name)
			if err == nil {
				err = y.register(ctx, n, name)
			}
			if err == nil {
				err = y.issue(ctx, n, k, order)
			}
			if err != nil {
				return err
			}
		}
		if err := y.change(ctx, 0, y.cards[0], jpki.Revoked); err != nil {
			return err
		}
		if wrong := y.checkRecord(ctx); len(wrong) > 0 {
			t.Errorf("before any forgery: %q", wrong)
		}
		if _, err := c.audit(ctx); err != nil {
			t.Errorf("before any forgery: %v", err)
		}
		found := func(what string) {
			t.Helper()
			if wrong := strings.Join(y.checkRecord(ctx), "\n"); !strings.Contains(wrong, what) {
				t.Errorf("%q is not found, but %q", what, wrong)
			}
		}
		forge(c, "UPDATE certificate_status SET state = 'good', reason = 0, cause = '' WHERE state = 'revoked'")
		found("is good on record, and was answered to be revoked")
		if _, err := c.audit(ctx); err == nil {
			t.Error("the audit record is whole, and statuses are not as it says")
		}
		delete(y.known, y.cards[1].certificates[0].id)
		found("nobody was given it")
		y.known[jpki.CertID{Issuer: c.generations[0]}] = &subject{issued: 1}
		found("1 certificates were handed out and are not on record")
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

func TestInterruptedRunLeavesNothing(t *testing.T) {
	bin, dir := programs(t), folder(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	go func() { ended <- run(ctx, []string{"soak", "-dir", dir, "-bin", bin}, io.Discard) }()
	for len(running(t, dir)) < 8 {
		select {
		case code := <-ended:
			t.Fatalf("it ended with %d", code)
		case <-time.After(10 * time.Millisecond):
		}
	}
	cancel()
	if code := <-ended; code != 1 {
		t.Errorf("exit code %d", code)
	} // folder looks for what is left
}

func TestCommandLines(t *testing.T) {
	for _, args := range [][]string{{"fly"}, {"up", "-no"}, {"soak", "-for", "soon"}, {"load", "much"}} {
		if code, _ := play(t, args...); code != 2 {
			t.Errorf("%q: exit code %d", args, code)
		}
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "precious"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _ := play(t, "up", "-dir", dir); code != 1 {
		t.Errorf("a folder that is not a cluster's: exit code %d", code)
	}
	if _, err := os.Stat(filepath.Join(dir, "precious")); err != nil {
		t.Error(err)
	}
}

func TestJudge(t *testing.T) {
	const s = int64(time.Second)
	for _, test := range []struct {
		name    string
		subject subject
		said    string
		sent    int64
		wrong   bool
	}{
		{"good", subject{issued: s}, sayGood, 10 * s, false},
		{"never issued", subject{}, sayUnknown, 10 * s, false},
		{"never issued and good", subject{}, sayGood, 10 * s, true},
		{"issued a moment ago", subject{issued: 10*s - 1}, sayUnknown, 10 * s, false},
		{"issued and long unknown", subject{issued: s}, sayUnknown, 10 * s, true},
		{"suspended a moment ago", subject{issued: s, suspending: 9 * s, suspended: 9 * s}, sayGood, 10 * s, false},
		{"suspended before the bound", subject{issued: s, suspending: 8 * s, suspended: 9*s - 1}, sayGood, 10 * s, true},
		{"never suspended", subject{issued: s}, saySuspended, 10 * s, true},
		{"being suspended, commit in doubt", subject{issued: s, suspending: 2 * s}, sayGood, 10 * s, false},
		{"revoked and good", subject{issued: s, revoking: 2 * s, revoked: 3 * s}, sayGood, 10 * s, true},
		{"revoked and on hold", subject{issued: s, suspending: s, suspended: s, revoking: 2 * s, revoked: 3 * s}, saySuspended, 10 * s, true},
		{"never revoked", subject{issued: s, suspending: s, suspended: s}, sayRevoked, 10 * s, true},
	} {
		if wrong := test.subject.judge(test.said, test.sent, test.sent); (wrong != "") != test.wrong {
			t.Errorf("%s: %q", test.name, wrong)
		}
		// The verifier asks a status server: it is as wrong in the same cases, where both have a word for them.
		v := verdict{Indication: passed}
		switch test.said {
		case sayRevoked, saySuspended:
			v.Indication, v.Revocation.State = "INDETERMINATE", test.said
		case sayUnknown:
			continue
		}
		if test.subject.issued == 0 || test.subject.revoked != 0 && test.said == saySuspended {
			continue
		}
		if wrong := test.subject.judgeVerdict(v, test.sent, test.sent); (wrong != "") != test.wrong {
			t.Errorf("%s: of the verdict %q", test.name, wrong)
		}
	}
}

// The same seed draws the same faults.
func TestFaultsAreReproducible(t *testing.T) {
	c := &cluster{signer: &service{name: "jpki-signer"}}
	for i := range c.postgres {
		c.postgres[i] = &postgres{service: &service{name: fmt.Sprint("postgres-", i+1)}}
	}
	for i := range c.redis {
		c.redis[i] = &redis{service: &service{name: fmt.Sprint("redis-", i+1)}}
	}
	for i := range c.authorities {
		c.authorities[i], c.relays[i] = &server{service: &service{name: fmt.Sprint("ca-", i+1)}}, &server{service: &service{name: fmt.Sprint("relay-", i+1)}}
	}
	for i := range c.responders {
		c.responders[i] = &server{service: &service{name: fmt.Sprint("status-", i+1)}}
	}
	c.verifier = &server{service: &service{name: "verifier"}}
	s := &soak{c: c}
	list := func(seed uint64) (out []string, names map[string]bool) {
		names = map[string]bool{}
		for i, track := range tracks {
			rng := source(seed, i)
			for range 300 {
				d := s.drawFault(track, rng)
				out = append(out, fmt.Sprint(d.pause, d))
				names[d.name] = true
			}
		}
		return out, names
	}
	one, names := list(7)
	if again, _ := list(7); strings.Join(one, "\n") != strings.Join(again, "\n") {
		t.Error("the same seed draws other faults")
	}
	if other, _ := list(8); strings.Join(one, "\n") == strings.Join(other, "\n") {
		t.Error("another seed draws the same faults")
	}
	for _, track := range tracks {
		for _, f := range track {
			if !names[f.name] {
				t.Errorf("%s is never drawn", f.name)
			}
		}
	}
	for _, text := range one {
		if strings.Contains(text, "%!") {
			t.Errorf("%q", text)
		}
	}
}
