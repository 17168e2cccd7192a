// Package deploy_test checks what lies in deploy with the programs that will read it: compose-go, helm, kubeconform, systemd-analyze,
// nginx, promtool, Prometheus, PostgreSQL, Redis, and our own. TestTopology has everything of compose.yaml run as processes.
package deploy_test

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// deploy is where the files lie.
const deploy = ".."

const tags = "nomsgpack,nobadger,nomysql,nobbolt,nopgx"

// built is the folder for what tests build once; TestMain removes it.
var built string

func TestMain(m *testing.M) {
	var err error
	if built, err = os.MkdirTemp("", "jpki-deploy"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(built)
	os.Exit(code)
}

// need skips a test for which an outside program is missing, unless all have to be there.
func need(t *testing.T, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("JPKI_TEST_REQUIRE") == "1" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
}

// slow skips a test that builds or starts much.
func slow(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("builds programs")
	}
}

var buildPrograms = sync.OnceValue(func() error {
	args := []string{"build", "-tags", tags, "-ldflags=-s -w", "-o", filepath.Join(built, "bin") + "/"}
	for _, name := range []string{"jpki", "jpki-ca", "jpki-load", "jpki-signer", "jpki-status", "jpki-verifier"} {
		args = append(args, "github.com/openjpki/jpki/cmd/"+name)
	}
	return build(args...)
})

func build(args ...string) error {
	cmd := exec.Command("go", args...)
	cmd.Dir = filepath.Join(deploy, "..")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// programs builds ours and returns their folder.
func programs(t *testing.T) string {
	t.Helper()
	slow(t)
	if err := buildPrograms(); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(built, "bin")
}

// Checkers are built apart from go.mod, so that none of what they need reaches a program of ours. The first time that takes a minute, from
// then on they come out of Go's cache.
const apart = "-modfile=validators.mod"

// checker returns the path of one that is a program of its module.
func checker(t *testing.T, name string) string {
	t.Helper()
	slow(t)
	return strings.TrimSpace(output(t, "go", "tool", apart, "-n", name))
}

// checkBy is the command line of one that is a file here.
func checkBy(t *testing.T, file string, args ...string) []string {
	t.Helper()
	slow(t)
	return append([]string{"run", apart, file}, args...)
}

// sources reads every Go file of ours below a folder of the repository, but for tests.
func sources(t *testing.T, folder string) string {
	t.Helper()
	root, err := os.OpenRoot(filepath.Join(deploy, "..", folder))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = root.Close() }()
	var b strings.Builder
	err = fs.WalkDir(root.FS(), ".", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := root.ReadFile(path)
		_, _ = b.Write(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// run runs a program and returns what it prints; that it fails is an error of the test.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := try(t, name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", filepath.Base(name), strings.Join(args, " "), err, out)
	}
	return out
}

// output is run's without what goes to standard error, where go tells what it downloads on a new machine.
func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	var chatter bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stderr = &chatter
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", filepath.Base(name), strings.Join(args, " "), err, chatter.String())
	}
	return string(out)
}

// try is run's for a program that may fail: what it prints, and how it ends.
func try(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	return string(out), err
}

// A process is one that serves until the test's end.
type process struct {
	cmd *exec.Cmd
	log bytes.Buffer
}

// start starts a process; at the end it gets SIGTERM and must exit with 0.
func start(t *testing.T, dir string, env []string, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(args[0], args[1:]...)} // ended by the clean-up, in order
	p.cmd.Dir, p.cmd.Env = dir, append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(20*time.Second, func() { _ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) })
		err := p.cmd.Wait()
		kill.Stop()
		if err != nil {
			t.Errorf("%s: %v", strings.Join(args, " "), err)
		}
		if t.Failed() {
			var b strings.Builder
			for line := range strings.Lines(p.log.String()) {
				if !strings.Contains(line, `"level":"INFO"`) {
					_, _ = b.WriteString(line)
				}
			}
			t.Logf("%s:\n%s", filepath.Base(args[0]), b.String()[max(0, b.Len()-4000):])
		}
	})
	return p
}

// freePort returns a port of the loopback address that nobody listens at.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// eventually waits until f returns nil.
func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(3 * time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

func read(t *testing.T, path ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func write(t *testing.T, text string, path ...string) string {
	t.Helper()
	name := filepath.Join(path...)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil { // nginx reads it as another user
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}
