package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/openjpki/jpki/cmd/internal/sandbox"
)

// The tests run jpki as people do: as processes of its own, with openssl, curl and the like beside it. Scripts in
// testdata/script read as documentation; what needs a database handle or many clients at once is Go.

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"jpki": func() {
		go endWithParent(os.Getppid())
		os.Exit(run(os.Args[1:]))
	}})
}

// endWithParent ends a process whose test is gone: a run that is killed or times out leaves no sandbox behind.
func endWithParent(parent int) {
	for os.Getppid() == parent {
		time.Sleep(200 * time.Millisecond)
	}
	os.Exit(exitFailure)
}

// patience bounds every wait of these tests. Nothing is asserted about speed.
const patience = time.Minute

// A process is a running `jpki sandbox`.
type process struct {
	dir    string
	offset int
	cmd    *exec.Cmd
	out    buffer // standard output and error
	ended  chan struct{}
}

// launch starts a sandbox and returns once its environment file is there. A non-zero offset is kept; else one whose
// ports are free is chosen.
func launch(dir string, offset int, args ...string) (*process, error) {
	fixed := offset != 0
	for try := 0; ; try++ {
		if !fixed {
			var err error
			if offset, err = freeOffset(); err != nil {
				return nil, err
			}
		}
		p := &process{dir: dir, offset: offset, ended: make(chan struct{})}
		p.cmd = exec.Command("jpki", append([]string{"sandbox", "-dir", dir, "-offset", strconv.Itoa(offset)}, args...)...)
		p.cmd.Env = append(os.Environ(), "LANG=C")
		p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
		environment := func() time.Time { // when it was written
			f, err := os.Stat(filepath.Join(dir, "env"))
			if err != nil {
				return time.Time{}
			}
			return f.ModTime()
		}
		old := environment() // of one that was killed
		if err := p.cmd.Start(); err != nil {
			return nil, err
		}
		go func() { _ = p.cmd.Wait(); close(p.ended) }()
		err := p.waitFor(func() bool { now := environment(); return !now.IsZero() && !now.Equal(old) })
		switch {
		case err == nil:
			return p, nil
		case !fixed && try < 5 && strings.Contains(p.out.String(), "address already in use"):
			continue // somebody was quicker
		}
		p.kill()
		return nil, err
	}
}

// waitFor polls until a condition holds, and gives up when the process ends.
func (p *process) waitFor(condition func() bool) error {
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(5 * time.Millisecond) {
		select {
		case <-p.ended:
			return fmt.Errorf("sandbox ended: %s\n%s", p.cmd.ProcessState, p.out.String())
		default:
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("sandbox keeps us waiting\n%s", p.out.String())
		}
	}
	return nil
}

// kill ends the process as a power failure would, and waits until it is gone.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.ended
}

// stop asks the process to end and returns its exit code.
func (p *process) stop(sig os.Signal) (int, error) {
	if err := p.cmd.Process.Signal(sig); err != nil {
		return -1, err
	}
	select {
	case <-p.ended:
		return p.cmd.ProcessState.ExitCode(), nil
	case <-time.After(patience):
		p.kill()
		return -1, errors.New("sandbox does not stop")
	}
}

// start is launch for tests in Go; the sandbox is stopped with the test.
func start(t *testing.T, dir string, offset int) (*process, sandbox.Env) {
	t.Helper()
	return startWith(t, dir, offset)
}

func startWith(t *testing.T, dir string, offset int, args ...string) (*process, sandbox.Env) {
	t.Helper()
	p, err := launch(dir, offset, args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.kill()
		if strings.Contains(p.out.String(), "DATA RACE") {
			t.Error("the race detector found something")
		}
		if t.Failed() {
			t.Logf("sandbox: %s\n%s", p.cmd.ProcessState, p.out.String())
		}
	})
	env, err := sandbox.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	return p, env
}

// end stops a sandbox that must be well.
func (p *process) end(t *testing.T) {
	t.Helper()
	if code, err := p.stop(syscall.SIGTERM); err != nil || code != 0 {
		t.Fatalf("sandbox ended with %d, %v\n%s", code, err, p.out.String())
	}
}

// tool runs a command of jpki and returns what it printed and its exit code.
func tool(t testing.TB, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := exec.Command("jpki", args...)
	cmd.Env = append(os.Environ(), "LANG=C")
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		if _, ok := errors.AsType[*exec.ExitError](err); !ok {
			t.Errorf("jpki %s: %v", strings.Join(args, " "), err)
		}
	}
	return out.String(), errOut.String(), cmd.ProcessState.ExitCode()
}

// A buffer is a bytes.Buffer that a process writes while the test reads.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// reserved are the ports given to this run's sandboxes, running or not.
var reserved = struct {
	sync.Mutex
	ports map[int]bool
}{ports: map[int]bool{}}

// freeOffset finds an offset at which all five ports are free, below the range from which outgoing connections take theirs.
func freeOffset() (int, error) {
	reserved.Lock()
	defer reserved.Unlock()
next:
	for range 1000 {
		offset := 1 + rand.IntN(32_000-8443)
		ports := []int{8443 + offset, 8445 + offset, 8080 + offset, 8090 + offset, 8099 + offset}
		for _, p := range ports {
			if reserved.ports[p] {
				continue next
			}
			l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(p)))
			if err != nil {
				continue next
			}
			_ = l.Close()
		}
		for _, p := range ports {
			reserved.ports[p] = true
		}
		return offset, nil
	}
	return 0, errors.New("no free ports")
}

// scriptTools are the outside programs that scripts call. A script skips itself when one is missing, unless that is
// forbidden by JPKI_TEST_REQUIRE=1.
var scriptTools = []string{"openssl", "curl", "jq", "certtool", "ocsptool", "java", "pdfsig"}

func TestScripts(t *testing.T) {
	if testing.Short() {
		t.Skip("the scripts start many processes")
	}
	for _, tool := range scriptTools {
		if _, err := exec.LookPath(tool); err != nil && os.Getenv("JPKI_TEST_REQUIRE") == "1" {
			t.Fatal(err)
		}
	}
	java, err := filepath.Abs("testdata/java/Validate.java")
	if err != nil {
		t.Fatal(err)
	}
	readme, err := filepath.Abs("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			offset, err := freeOffset()
			env.Setenv("OFFSET", strconv.Itoa(offset))
			env.Setenv("VALIDATE", java)
			env.Setenv("README", readme)
			env.Setenv("DOCS", filepath.Join(filepath.Dir(readme), "docs"))
			env.Setenv("HOME", env.WorkDir) // openssl and java look for files of the user there
			return err
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"sandbox": cmdSandbox, "stop": cmdStop, "exits": cmdExits, "let": cmdLet, "within": cmdWithin, "guide": cmdGuide,
		},
	})
}

// running are the scripts' sandboxes.
var running sync.Map // *testscript.TestScript → *process

// sandbox [flags] starts a sandbox in var/sandbox, as `jpki sandbox` alone does, waits until it is up and has a shell
// source its environment file into the script's environment.
func cmdSandbox(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("unsupported: ! sandbox")
	}
	dir := ts.MkAbs("var/sandbox")
	offset, err := strconv.Atoi(ts.Getenv("OFFSET"))
	ts.Check(err)
	p, err := launch(dir, offset, args...)
	for try := 0; err != nil && try < 5 && strings.Contains(err.Error(), "address already in use"); try++ { // somebody was quicker
		offset, err = freeOffset()
		ts.Check(err)
		ts.Setenv("OFFSET", strconv.Itoa(offset))
		p, err = launch(dir, offset, args...)
	}
	ts.Check(err)
	// The story issues and revokes: what a script counts must not change under its hands.
	ts.Check(p.waitFor(func() bool { return strings.Contains(p.out.String(), "steps held") }))
	running.Store(ts, p)
	ts.Defer(p.kill)
	shell := exec.Command("sh", "-euc", `set -a; . "$0"; exec env`, filepath.Join(dir, "env"))
	shell.Env = []string{"PATH=" + os.Getenv("PATH")}
	out, err := shell.Output()
	ts.Check(err)
	for line := range strings.Lines(string(out)) {
		if name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "="); ok && name != "PATH" && name != "PWD" {
			ts.Setenv(name, value)
		}
	}
}

// stop SIGNAL ends the script's sandbox, which must exit with 0. What it printed is in the file sandbox.out.
func cmdStop(ts *testscript.TestScript, neg bool, args []string) {
	signals := map[string]os.Signal{"INT": syscall.SIGINT, "TERM": syscall.SIGTERM, "KILL": syscall.SIGKILL}
	v, ok := running.LoadAndDelete(ts)
	if neg || len(args) != 1 || signals[args[0]] == nil || !ok {
		ts.Fatalf("usage: stop INT|TERM|KILL, after sandbox")
	}
	p, _ := v.(*process)
	code, err := p.stop(signals[args[0]])
	ts.Check(err)
	if code != 0 && args[0] != "KILL" {
		ts.Fatalf("sandbox ended with %d\n%s", code, p.out.String())
	}
	ts.Check(os.WriteFile(ts.MkAbs("sandbox.out"), []byte(p.out.String()), 0o600))
}

// exits CODE PROGRAM [args] runs a program that must end with this code and no other.
func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM [args]")
	}
	code := "0"
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%v", err)
		}
		code = strconv.Itoa(exit.ExitCode())
	}
	if code != args[0] {
		ts.Fatalf("exit code %s, want %s", code, args[0])
	}
}

// let NAME sets a variable to what the last program printed.
func cmdLet(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: let NAME")
	}
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
}

// within DURATION PROGRAM [args] runs a program again and again until it ends with 0. A run that began later than the
// duration must do so, however slow the machine is.
func cmdWithin(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: within DURATION PROGRAM [args]")
	}
	allowed, err := time.ParseDuration(args[0])
	ts.Check(err)
	for first := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		late := time.Since(first) > allowed
		err := ts.Exec(args[1], args[2:]...)
		if err == nil {
			return
		}
		if late {
			ts.Fatalf("still not so after %s: %v", allowed, err)
		}
	}
}

// metrics reads the admin address's counters and gauges, by name with labels.
func metrics(t *testing.T, env sandbox.Env) map[string]float64 {
	t.Helper()
	out := map[string]float64{}
	for line := range strings.Lines(get(t, env.AdminURL+"/metrics")) {
		if i := strings.LastIndexByte(line, ' '); i > 0 && !strings.HasPrefix(line, "#") {
			if v, err := strconv.ParseFloat(strings.TrimSpace(line[i:]), 64); err == nil {
				out[line[:i]] = v
			}
		}
	}
	return out
}

func get(t *testing.T, url string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil || resp.StatusCode != 200 {
		t.Fatalf("GET %s: %s, %v", url, resp.Status, err)
	}
	return string(body)
}

// oneLine fails unless a text is one line of the tool that matches a pattern.
func oneLine(t *testing.T, text, pattern string) {
	t.Helper()
	if !strings.HasPrefix(text, "jpki: ") || strings.Index(text, "\n") != len(text)-1 || !regexp.MustCompile(pattern).MatchString(text) {
		t.Errorf("want one line that begins with jpki: and matches %s, got\n%s", pattern, text)
	}
}
