package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/openjpki/jpki/cmd/internal/softhsm"
	"github.com/openjpki/jpki/hsm"
	"github.com/openjpki/jpki/hsm/signer"
)

// TestMain lets the test's binary be the program: jpki-signer starts itself as a worker.
func TestMain(m *testing.M) {
	if os.Getenv("JPKI_SIGNER_TEST") == "1" && len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-test.") {
		main()
	}
	os.Exit(m.Run())
}

// A stage is a SoftHSM store and, once started, a signer for it.
type stage struct {
	t      *testing.T
	dir    string
	store  softhsm.Store
	admin  string
	cmd    *exec.Cmd
	stderr bytes.Buffer
	mu     sync.Mutex
}

const testPIN = "493827"

// missing skips a test whose outside program is not installed, or fails it where all must be.
func missing(t *testing.T, err error) {
	t.Helper()
	if os.Getenv("JPKI_TEST_REQUIRE") == "1" {
		t.Fatal(err)
	}
	t.Skip(err)
}

// newStage makes a store with the tokens.
func newStage(t *testing.T, tokens ...string) *stage {
	t.Helper()
	dir, err := os.MkdirTemp("", "signer") // shorter than t.TempDir: a socket's path has 107 octets
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{t: t, dir: dir}
	t.Cleanup(func() { s.kill(); _ = os.RemoveAll(dir) })
	if s.store, err = softhsm.Make(dir); err != nil {
		missing(t, err)
	}
	name, value, _ := strings.Cut(s.store.Env(), "=")
	t.Setenv(name, value)
	t.Setenv("JPKI_SIGNER_TEST", "1")
	for _, token := range tokens {
		if err := s.store.Init(t.Context(), token, testPIN); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.admin = l.Addr().String()
	_ = l.Close()
	return s
}

// everything admits this process to a key.
func everything() string {
	return fmt.Sprintf(`[{user: "%d", purposes: [certificate, crl, ocsp, other]}]`, os.Getuid())
}

// entry is a key's entry in a configuration.
func entry(name, algorithm, allow string, at ...string) string {
	text := fmt.Sprintf("  - name: %s\n    algorithm: %s\n    allow: %s\n    at:\n", name, algorithm, allow)
	for _, uri := range at {
		text += "      - " + uri + "\n"
	}
	return text
}

// configure writes the configuration.
func (s *stage) configure(keys ...string) string {
	s.t.Helper()
	path := filepath.Join(s.dir, "signer.yaml")
	text := "listen: s.sock\nstate: state\nadmin: " + s.admin + "\nhang: 700ms\nprobe: 300ms\nrecord: 100ms\nkeys:\n" + strings.Join(keys, "")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// call runs the program to its end and returns what it printed, and its exit code.
func (s *stage) call(args ...string) (string, int) {
	s.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.CommandContext(s.t.Context(), exe, args...)
	out, _ := cmd.CombinedOutput()
	return string(out), cmd.ProcessState.ExitCode()
}

// create makes keys.
func (s *stage) create(names ...string) {
	s.t.Helper()
	for _, name := range names {
		if out, code := s.call("-config", filepath.Join(s.dir, "signer.yaml"), "-create", name); code != 0 {
			s.t.Fatalf("create %s: %s", name, out)
		}
	}
}

// start starts the signer; it does not wait for it.
func (s *stage) start() {
	s.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	s.cmd = exec.Command(exe, "-config", filepath.Join(s.dir, "signer.yaml"))
	s.cmd.Stderr = s
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stage) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stderr.Write(p)
}

func (s *stage) logged() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stderr.String()
}

// kill ends the signer as kill -9 does.
func (s *stage) kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

// stop ends the signer as systemd does.
func (s *stage) stop() {
	s.t.Helper()
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	if err := s.cmd.Wait(); err != nil {
		s.t.Errorf("jpki-signer: %v\n%s", err, s.logged())
	}
	s.cmd = nil
}

// children returns the signer's child processes.
func (s *stage) children() (pids []int) {
	s.t.Helper()
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(text), ") ")
		if f := strings.Fields(rest); len(f) > 1 && f[0] != "Z" && f[1] == strconv.Itoa(s.cmd.Process.Pid) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			pids = append(pids, pid)
		}
	}
	return pids
}

func (s *stage) uri(key string, purpose signer.Purpose, wait time.Duration) string {
	return signer.Ref{Socket: filepath.Join(s.dir, "s.sock"), Key: key, Purpose: purpose, Wait: wait}.String()
}

const patience = 20 * time.Second

// open opens a key, whose requests have patience.
func (s *stage) open(key string) crypto.Signer {
	s.t.Helper()
	k, err := hsm.Open(s.t.Context(), s.uri(key, signer.ForCertificate, patience))
	if err != nil {
		s.t.Fatalf("%v\n%s", err, s.logged())
	}
	return k
}

var digest = sha256.Sum256([]byte("契約書"))

// eventually waits for a condition.
func (s *stage) eventually(what string, f func() bool) {
	s.t.Helper()
	for end := time.Now().Add(patience); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("%s: not within %v\n%s", what, patience, s.logged())
		}
	}
}

func (s *stage) get(path string) (int, string) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, "http://"+s.admin+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, ""
	}
	defer func() { _ = resp.Body.Close() }()
	body, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body)
}

// A load asks for signatures from several goroutines and verifies each, until it is ended.
type load struct {
	made atomic.Int64
	end  func()
}

func (s *stage) load(key crypto.Signer, goroutines int) *load {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context())
	l := &load{}
	var all sync.WaitGroup
	for range goroutines {
		all.Go(func() {
			for ctx.Err() == nil {
				sig, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
				if err != nil {
					s.t.Errorf("a request was lost: %v", err)
					return
				}
				scheme, _, _ := signer.SchemeOf(key.Public(), crypto.SHA256)
				if !signer.Verify(key.Public(), scheme, crypto.SHA256, digest[:], sig) {
					s.t.Error("a signature does not verify")
				}
				l.made.Add(1)
			}
		})
	}
	l.end = sync.OnceFunc(func() { cancel(); all.Wait() })
	s.t.Cleanup(l.end)
	s.grows(l)
	return l
}

// grows waits until signatures are made that were asked for after now.
func (s *stage) grows(l *load) {
	s.t.Helper()
	want := l.made.Load() + 40
	s.eventually("signatures under load", func() bool { return l.made.Load() >= want || s.t.Failed() })
}

// faulty builds the module that fails on command and returns the folder of its commands.
func (s *stage) faulty() (module, folder string) {
	s.t.Helper()
	cc, err := exec.LookPath("cc")
	if err != nil {
		missing(s.t, err)
	}
	headers, err := exec.CommandContext(s.t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/miekg/pkcs11").Output()
	if err != nil {
		s.t.Fatal(err)
	}
	folder, module = filepath.Join(s.dir, "faults"), filepath.Join(s.dir, "faulty.so")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		s.t.Fatal(err)
	}
	if out, err := exec.CommandContext(s.t.Context(), cc, "-shared", "-fPIC", "-I", strings.TrimSpace(string(headers)), "-o", module, "testdata/faulty.c", "-ldl").CombinedOutput(); err != nil {
		s.t.Fatalf("cc: %v\n%s", err, out)
	}
	s.t.Setenv("FAULTY_FOLDER", folder)
	s.t.Setenv("FAULTY_MODULE", s.store.Module)
	return module, folder
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}
