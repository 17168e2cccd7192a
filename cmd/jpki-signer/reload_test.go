package main

import (
	"crypto"
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/hsm"
	"github.com/openjpki/jpki/hsm/signer"
)

func (s *stage) reload() (string, int) {
	s.t.Helper()
	return s.call("-config", filepath.Join(s.dir, "signer.yaml"), "-reload")
}

// Keys come, get other rules and go while a signer serves, and nobody who asks for a key that stays notices.
func TestReload(t *testing.T) {
	s := newStage(t, "a", "b")
	uid := itoa(os.Getuid())
	first := entry("first", "p-256", everything(), s.store.URI("a", "first"))
	s.configure(first)
	s.create("first")
	s.start()
	key := s.open("first")
	l := s.load(key, 16)

	// A second key on the same token, and one on a token that was of no use before.
	second := entry("second", "p-384", everything(), s.store.URI("a", "second"))
	third := entry("third", "rsa-2048", everything(), s.store.URI("b", "third"))
	s.configure(first, second, third)
	s.create("second", "third")
	if _, err := hsm.Open(t.Context(), s.uri("second", signer.ForCRL, patience)); jpki.ProblemOf(err) != jpki.Forbidden {
		t.Errorf("a key that the signer has not been told of: %v", err)
	}
	if out, code := s.reload(); code != 0 {
		t.Fatalf("reload: %d %s", code, out)
	}
	for _, name := range []string{"second", "third"} {
		if _, err := s.open(name).Sign(rand.Reader, digest[:], crypto.SHA256); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	s.grows(l)

	// Other rules, by a signal.
	s.configure(first, strings.Replace(second, everything(), `[{user: "`+uid+`", purposes: [crl]}]`, 1), third)
	if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	s.eventually("other rules", func() bool {
		k, err := hsm.Open(t.Context(), s.uri("second", signer.ForOCSP, patience))
		if err == nil {
			_, err = k.Sign(rand.Reader, digest[:], crypto.SHA256)
		}
		return jpki.ProblemOf(err) == jpki.Forbidden
	})
	s.grows(l)

	// What is wrong is refused whole.
	for name, keys := range map[string][]string{
		"twice a name":      {first, first},
		"a file that lacks": {first, entry("fourth", "p-256", everything(), "file:absent.pem")},
		"no such algorithm": {first, strings.Replace(second, "p-384", "p-521", 1)},
		"other than keys":   {"  []\nsessions: 7\nkeys:\n"},
	} {
		path := s.configure(keys...)
		if name == "other than keys" {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			write(t, path, strings.Replace(string(text), "keys:\n  []\n", "", 1)+first)
		}
		if out, code := s.reload(); code == 0 {
			t.Errorf("%s was accepted: %s", name, out)
		}
		if _, err := s.open("third").Sign(rand.Reader, digest[:], crypto.SHA256); err != nil {
			t.Errorf("%s: the key of the former configuration: %v", name, err)
		}
	}

	// Keys go, and a token with them.
	s.configure(first)
	if out, code := s.reload(); code != 0 {
		t.Fatalf("reload: %d %s", code, out)
	}
	if _, err := hsm.Open(t.Context(), s.uri("third", signer.ForCRL, patience)); jpki.ProblemOf(err) != jpki.Forbidden {
		t.Errorf("a key that has gone: %v", err)
	}
	s.eventually("one token", func() bool {
		_, body := s.get("/metrics")
		return strings.Contains(body, `jpki_signer_tokens{outcome="up"} 1`) && !strings.Contains(body, `jpki_signer_tokens{outcome="up"} 2`)
	})
	if n := len(s.children()); n != 1 {
		t.Errorf("%d child processes for one token", n)
	}
	s.grows(l)
	l.end()
	s.stop()
	if n := strings.Count(s.logged(), `"a token is lost"`); n != 0 {
		t.Errorf("the log says %d times that a token was lost", n)
	}
}

// A reload is for the signer's own user and for root.
func TestReloadByAnotherUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can become another user")
	}
	s := newStage(t)
	if _, err := hsm.Create(t.Context(), hsm.FileURI(filepath.Join(s.dir, "k.pem")), hsm.P256); err != nil {
		t.Fatal(err)
	}
	s.configure(entry("k", "p-256", everything(), "file:k.pem"))
	s.start()
	s.open("k")
	for _, path := range []string{s.dir, filepath.Join(s.dir, "s.sock")} {
		if err := os.Chmod(path, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(s.dir, "other")
	if err := os.WriteFile(copied, text, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), copied, "-test.run", "^TestReloadProbe$")
	cmd.Env = append(os.Environ(), "JPKI_SIGNER_PROBE="+filepath.Join(s.dir, "s.sock"))
	cmd.Dir = s.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 54321, Gid: 54321}}
	if out, err := cmd.CombinedOutput(); err != nil || !strings.HasPrefix(string(out), "forbidden\n") {
		t.Errorf("another user: %v %s", err, out)
	}
	if strings.Contains(s.logged(), "read again") {
		t.Error("another user had the configuration read again")
	}
	if out, code := s.reload(); code != 0 {
		t.Errorf("its own user: %d %s", code, out)
	}
	s.stop()
}

// TestReloadProbe is what TestReloadByAnotherUser runs as somebody else.
func TestReloadProbe(t *testing.T) {
	socket := os.Getenv("JPKI_SIGNER_PROBE")
	if socket == "" {
		t.Skip("a part of TestReloadByAnotherUser")
	}
	time.AfterFunc(patience, func() { os.Exit(exitFailure) })
	client := signer.NewClient(socket)
	defer client.Close()
	err := client.Reload(t.Context())
	_, _ = os.Stdout.WriteString(string(jpki.ProblemOf(err)) + "\n")
}
