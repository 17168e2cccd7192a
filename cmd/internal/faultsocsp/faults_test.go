package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestMain is the authority's process, too.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "authority" {
		os.Exit(command(context.Background(), os.Args[1:]))
	}
	dir, err := os.MkdirTemp("", "faultsocsp-test-")
	if err != nil {
		panic(err)
	}
	built = filepath.Join(dir, "jpki-status")
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// built is where the responder's program is, once status has built it.
var built string

// require leaves tests out where their outside programs are missing.
func require(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("starts many processes")
	}
	missing := ""
	if found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb"); len(found) == 0 {
		missing = "PostgreSQL"
	}
	for _, program := range []string{"redis-server", "redis-cli", "psql"} {
		if _, err := exec.LookPath(program); err != nil {
			missing = program
		}
	}
	switch {
	case missing == "":
	case os.Getenv("JPKI_TEST_REQUIRE") == "1":
		t.Fatalf("no %s", missing)
	default:
		t.Skipf("no %s", missing)
	}
}

// status builds the responder's program.
func status(t *testing.T) string {
	t.Helper()
	if _, err := os.Stat(built); err == nil {
		return built
	}
	cmd := exec.CommandContext(t.Context(), "go", "build", "-tags", "nomsgpack,nobadger,nomysql,nobbolt,nopgx", "-o", built, "../../jpki-status")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return built
}

// A short play of some faults. The others are for make faults-ocsp.
func TestPromisesHold(t *testing.T) {
	require(t)
	run := run{only: []string{"healthy", "redis-killed", "network-cut", "responder-stopped"}, seconds: 3, rate: 8, seed: 1, status: status(t), keep: readable(t)}
	rows, err := run.play(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != len(run.only) {
		t.Fatalf("%d scenarios were played", len(rows))
	}
	var table bytes.Buffer
	report(&table, rows, run.seed, loadAverages())
	t.Logf("\n%s", table.String())
	for _, r := range rows {
		for _, what := range r.broken() {
			t.Errorf("%s: %s", r.sc.name, what)
		}
		if len(r.tally.visible(-1)) == 0 {
			t.Errorf("%s: no change was seen", r.sc.name)
		}
	}
	if left := running(t, run.keep); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// readable names a new directory where PostgreSQL's user may look.
func readable(t *testing.T) string {
	t.Helper()
	parent, err := os.MkdirTemp("", "faultsocsp-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(parent) })
	if err := os.Chmod(parent, 0o755); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(parent, "run")
}

// running lists the processes that have a directory in their command line.
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

// Whoever interrupts a run has nothing left of it.
func TestInterruptedRunLeavesNothing(t *testing.T) {
	require(t)
	dir := readable(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	run := run{seconds: 60, rate: 8, status: status(t), keep: dir}
	go func() { _, err := run.play(ctx); ended <- err }()
	for len(running(t, dir)) < 5 {
		select {
		case err := <-ended:
			t.Fatal(err)
		case <-time.After(10 * time.Millisecond):
		}
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the run ended with %v", err)
	}
	if left := running(t, dir); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestJudge(t *testing.T) {
	const s = int64(time.Second)
	for _, test := range []struct {
		name         string
		subject      subject
		said         string
		sent         int64
		stale, wrong bool
	}{
		{"good", subject{issued: s}, sayGood, 10 * s, false, false},
		{"never issued", subject{}, sayUnknown, 10 * s, false, false},
		{"never issued and good", subject{}, sayGood, 10 * s, false, true},
		{"never issued and revoked", subject{}, sayRevoked, 10 * s, false, true},
		{"issued a moment ago", subject{issued: 10*s - 1}, sayUnknown, 10 * s, false, false},
		{"issued and long unknown", subject{issued: s}, sayUnknown, 10 * s, false, true},
		{"suspended a moment ago", subject{issued: s, suspending: 9 * s, suspended: 9 * s}, sayGood, 10 * s, false, false},
		{"suspended before the bound", subject{issued: s, suspending: 8 * s, suspended: 9*s - 1}, sayGood, 10 * s, true, false},
		{"suspended and known", subject{issued: s, suspending: 2 * s, suspended: 3 * s}, saySuspended, 10 * s, false, false},
		{"never suspended", subject{issued: s}, saySuspended, 10 * s, false, true},
		{"being suspended", subject{issued: s, suspending: 10 * s}, saySuspended, 10 * s, false, false},
		{"being suspended, commit in doubt", subject{issued: s, suspending: 2 * s}, sayGood, 10 * s, false, false},
		{"revoked and good", subject{issued: s, revoking: 2 * s, revoked: 3 * s}, sayGood, 10 * s, true, false},
		{"revoked and still on hold", subject{issued: s, suspending: s, suspended: s, revoking: 2 * s, revoked: 3 * s}, saySuspended, 10 * s, true, false},
		{"never revoked", subject{issued: s, suspending: s, suspended: s}, sayRevoked, 10 * s, false, true},
	} {
		if stale, wrong := test.subject.judge(test.said, test.sent, test.sent); stale != test.stale || wrong != test.wrong {
			t.Errorf("%s: stale %v, wrong %v", test.name, stale, wrong)
		}
	}
}

func TestWhatBreaksAPromise(t *testing.T) {
	const s = int64(time.Second)
	good := func() row { return row{tally: &tally{answers: 1, fault: s, healed: 2 * s}} }
	for _, test := range []struct {
		name  string
		spoil func(*row)
		want  []string
	}{
		{"nothing", func(*row) {}, nil},
		{"silence", func(r *row) { r.tally.answers = 0 }, []string{"nobody answered"}},
		{"stale", func(r *row) { r.tally.stale = 2 }, []string{"2 stale answers"}},
		{"wrong", func(r *row) { r.tally.wrong = 1 }, []string{"1 wrong answers"}},
		{"unseen", func(r *row) { r.tally.unseen = 1 }, []string{"1 changes that were never seen"}},
		{"refused", func(r *row) { r.tally.refusals = []refusal{{at: s}} }, []string{"1 refusals where an answer was possible"}},
		{"excused", func(r *row) {
			r.tally.refusals = []refusal{{at: s}}
			r.sc.excuse = func(*tally, refusal) bool { return true }
		}, nil},
		{"excused for too long", func(r *row) {
			r.tally.refusals = []refusal{{at: 8 * s}}
			r.sc.excuse = func(*tally, refusal) bool { return true }
		}, []string{"not well again within 5s"}},
		{"slow for too long", func(r *row) { r.tally.sights = []sight{{committed: 7 * s, seen: 9 * s}} }, []string{"not well again within 5s"}},
	} {
		r := good()
		test.spoil(&r)
		if d := cmp.Diff(test.want, r.broken()); d != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, d)
		}
	}
}

func TestProxyCutsAndMends(t *testing.T) {
	echo, err := newEcho(t)
	if err != nil {
		t.Fatal(err)
	}
	p, err := newProxy(t.Context(), echo)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	c := dial(t, p.address())
	c.says(t, true)
	p.cut()
	c.says(t, false)
	p.mend()
	c.hears(t, true) // what was held back
	c.says(t, true)
}
