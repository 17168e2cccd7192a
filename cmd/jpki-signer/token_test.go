package main

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha512"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/hsm"
	"github.com/openjpki/jpki/hsm/signer"
)

// Every algorithm, made on the token, and every signature as OpenSSL sees it.
func TestSignaturesVerifyElsewhere(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		missing(t, err)
	}
	s := newStage(t, "a")
	var keys []string
	for _, alg := range []string{"rsa-2048", "p-256", "p-384"} {
		keys = append(keys, entry(alg, alg, everything(), s.store.URI("a", alg)))
	}
	path := s.configure(keys...)
	if out, code := s.call("-config", path, "-check"); code != exitUsage || !strings.Contains(out, "none of the keys") {
		t.Errorf("-check before the keys are there: %d %s", code, out)
	}
	s.create("rsa-2048", "p-256", "p-384")
	if out, code := s.call("-config", path, "-create", "p-256"); code != exitExists || !strings.Contains(out, "exists") {
		t.Errorf("a key was made twice: %d %s", code, out)
	}
	if out, code := s.call("-config", path, "-check"); code != 0 || out != "ok\n" {
		t.Errorf("-check: %d %s", code, out)
	}
	s.start()
	message := filepath.Join(s.dir, "message")
	write(t, message, "契約書")
	sum384, sum512 := sha512.Sum384([]byte("契約書")), sha512.Sum512([]byte("契約書"))
	pss := func(h crypto.Hash) crypto.SignerOpts {
		return &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: h}
	}
	for _, c := range []struct {
		key    string
		digest []byte
		opts   crypto.SignerOpts
		args   []string
	}{
		{"rsa-2048", digest[:], crypto.SHA256, []string{"-sha256"}},
		{"rsa-2048", sum384[:], crypto.SHA384, []string{"-sha384"}},
		{"rsa-2048", sum512[:], crypto.SHA512, []string{"-sha512"}},
		{"rsa-2048", digest[:], pss(crypto.SHA256), []string{"-sha256", "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"}},
		{"rsa-2048", sum384[:], pss(crypto.SHA384), []string{"-sha384", "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"}},
		{"p-256", digest[:], crypto.SHA256, []string{"-sha256"}},
		{"p-256", sum384[:], crypto.SHA384, []string{"-sha384"}},
		{"p-384", digest[:], crypto.SHA256, []string{"-sha256"}},
		{"p-384", sum384[:], crypto.SHA384, []string{"-sha384"}},
		{"p-384", sum512[:], crypto.SHA512, []string{"-sha512"}},
	} {
		key := s.open(c.key)
		der, err := x509.MarshalPKIXPublicKey(key.Public())
		if err != nil {
			t.Fatal(err)
		}
		write(t, message+".pub", string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))
		sig, err := key.Sign(rand.Reader, c.digest, c.opts)
		if err != nil {
			t.Fatalf("%s %v: %v", c.key, c.args, err)
		}
		write(t, message+".sig", string(sig))
		args := append([]string{"dgst"}, c.args...)
		if out, err := exec.CommandContext(t.Context(), openssl, append(args, "-verify", message+".pub", "-signature", message+".sig", message)...).CombinedOutput(); err != nil {
			t.Errorf("openssl does not verify %s %v: %v\n%s", c.key, c.args, err, out)
		}
	}
	if _, err := s.open("p-256").Sign(rand.Reader, digest[:20], crypto.SHA1); jpki.ProblemOf(err) != jpki.Malformed {
		t.Errorf("SHA-1: %v", err)
	}

	s.eventually("readiness", func() bool { code, body := s.get("/readyz"); return code == 200 && body == "ready\n" })
	if _, body := s.get("/metrics"); !strings.Contains(body, `jpki_signer_signatures_total{outcome="rsa-2048"} 5`) || !strings.Contains(body, `jpki_signer_tokens{outcome="up"} 1`) {
		t.Errorf("metrics:\n%s", body)
	}
	info, err := os.Stat(filepath.Join(s.dir, "s.sock"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket's mode is %v, %v", info.Mode(), err)
	}
	if strings.Contains(s.logged(), testPIN) {
		t.Error("the PIN is in the log")
	}
	s.stop()
	out, code := s.call("-usage", filepath.Join(s.dir, "state", "usage.ndjson"))
	if code != 0 || !strings.Contains(out, `"rsa-2048":{"used":{"certificate":5},"ceiling":5}`) {
		t.Errorf("the record of use: %d %s", code, out)
	}
}

// oneKey is a stage with one P-256 key, on the store's own module or another.
func oneKey(t *testing.T, module string, s *stage) {
	t.Helper()
	uri := s.store.URI("a", "k")
	if module != "" {
		uri = strings.Replace(uri, s.store.Module, module, 1)
	}
	s.configure(entry("k", "p-256", everything(), uri))
	s.create("k")
}

func TestTokenAwayUnderLoad(t *testing.T) {
	s := newStage(t, "a")
	oneKey(t, "", s)
	s.start()
	l := s.load(s.open("k"), 16)
	for range 3 {
		rename(t, s.store.Tokens(), s.store.Tokens()+".away")
		s.eventually("notice", func() bool { code, _ := s.get("/readyz"); return code == 503 })
		rename(t, s.store.Tokens()+".away", s.store.Tokens())
		s.grows(l)
	}
	l.end()
	// With nobody asking, too.
	rename(t, s.store.Tokens(), s.store.Tokens()+".away")
	s.eventually("notice while idle", func() bool {
		code, body := s.get("/readyz")
		return code == 503 && strings.Contains(body, "no token signs with k")
	})
	impatient, err := hsm.Open(t.Context(), s.uri("k", signer.ForCertificate, 50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := impatient.Sign(rand.Reader, digest[:], crypto.SHA256); jpki.ProblemOf(err) != jpki.Unavailable {
		t.Errorf("a request that cannot wait: %v", err)
	}
	rename(t, s.store.Tokens()+".away", s.store.Tokens())
	s.eventually("readiness", func() bool { code, _ := s.get("/readyz"); return code == 200 })
	s.stop()
}

func TestKilledUnderLoad(t *testing.T) {
	s := newStage(t, "a")
	oneKey(t, "", s)
	s.start()
	l := s.load(s.open("k"), 16)
	for range 3 { // the signer itself
		s.kill()
		s.start()
		s.grows(l)
	}
	for range 3 { // its child
		for _, pid := range s.children() {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
		s.grows(l)
	}
	s.stop() // in an orderly way, and begun anew
	s.start()
	s.grows(l)
	l.end()
	made := uint64(l.made.Load())
	s.stop()
	f, err := os.Open(filepath.Join(s.dir, "state", "usage.ndjson"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	last, err := signer.VerifyUsage(f)
	if err != nil {
		t.Fatal(err)
	}
	if u := last.Keys["k"]; u.Ceiling < made || u.Used["unknown"] == 0 {
		t.Errorf("%d signatures were made and the record of use says %+v", made, u)
	}
}

// Nobody is left behind by a signer that was killed.
func TestChildrenEndWithTheSigner(t *testing.T) {
	s := newStage(t, "a")
	oneKey(t, "", s)
	s.start()
	s.open("k")
	pids := s.children()
	if len(pids) != 1 {
		t.Fatalf("children: %v", pids)
	}
	s.kill()
	s.eventually("the child's end", func() bool {
		text, err := os.ReadFile("/proc/" + itoa(pids[0]) + "/stat")
		_, rest, _ := strings.Cut(string(text), ") ")
		return err != nil || strings.HasPrefix(rest, "Z")
	})
}

func TestModuleHangsAndCrashes(t *testing.T) {
	s := newStage(t, "a")
	module, folder := s.faulty()
	oneKey(t, module, s)
	s.start()
	l := s.load(s.open("k"), 16)
	for i, fault := range []string{"crash", "hang", "crash", "hang"} {
		write(t, filepath.Join(folder, fault), "")
		s.eventually("one restart for each "+fault, func() bool {
			_, body := s.get("/metrics")
			return strings.Contains(body, "jpki_signer_restarts "+itoa(i+1)+"\n")
		})
		s.grows(l)
	}
	l.end()
	s.stop()
}

func TestSessionsExhausted(t *testing.T) {
	s := newStage(t, "a")
	module, folder := s.faulty()
	oneKey(t, module, s)
	write(t, filepath.Join(folder, "sessions"), "")
	s.start()
	l := s.load(s.open("k"), 64)
	l.end()
	if !strings.Contains(s.logged(), `"sessions":1`) {
		t.Errorf("the token gave more than one session\n%s", s.logged())
	}
	s.stop()
}

// A wrong PIN is tried once, whatever is restarted; a right one, written into the file, is tried.
func TestWrongPIN(t *testing.T) {
	s := newStage(t, "a")
	module, folder := s.faulty()
	oneKey(t, module, s)
	logins := func() int {
		text, _ := os.ReadFile(filepath.Join(folder, "logins"))
		return strings.Count(string(text), "\n")
	}
	s.start()
	s.open("k")
	s.stop()
	before := logins()
	write(t, s.store.PINFile("a"), "000000\n")
	refused := func() bool {
		code, _ := s.get("/readyz")
		return code == 503 && strings.Contains(s.logged(), "pin-refused")
	}
	for range 3 {
		s.start()
		s.eventually("refusal", func() bool {
			_, body := s.get("/metrics")
			return strings.Contains(body, `outcome="pin-refused"} 1`) && refused()
		})
		if out, code := s.call("-config", filepath.Join(s.dir, "signer.yaml"), "-check"); code != exitUsage || !strings.Contains(out, "PIN was refused") {
			t.Errorf("-check: %d %s", code, out)
		}
		s.kill()
	}
	if n := logins() - before; n != 1 {
		t.Errorf("a wrong PIN was tried %d times", n)
	}
	s.start()
	write(t, s.store.PINFile("a"), testPIN)
	s.open("k")
	s.stop()
}

// A PIN that the token says is locked, or nearly so, is not tried; nobody has to restart anything when it is unlocked.
func TestLockedPIN(t *testing.T) {
	for _, state := range []string{"locked", "final"} {
		s := newStage(t, "a")
		module, folder := s.faulty()
		oneKey(t, module, s)
		if err := os.Remove(filepath.Join(folder, "logins")); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(folder, state), "")
		s.start()
		s.eventually("refusal", func() bool { _, body := s.get("/metrics"); return strings.Contains(body, `outcome="pin-locked"} 1`) })
		if _, err := os.Stat(filepath.Join(folder, "logins")); err == nil {
			t.Errorf("%s: the PIN was tried", state)
		}
		if err := os.Remove(filepath.Join(folder, state)); err != nil {
			t.Fatal(err)
		}
		s.open("k")
		s.stop()
	}
}

// Two tokens with the same key: either may go.
func TestFailOver(t *testing.T) {
	s := newStage(t, "a", "b")
	file := filepath.Join(s.dir, "key.pem")
	made, err := hsm.Create(t.Context(), hsm.FileURI(file), hsm.P256)
	if err != nil {
		t.Fatal(err)
	}
	for _, token := range []string{"a", "b"} {
		if err := s.store.Import(t.Context(), token, testPIN, file, "k", "01"); err != nil {
			t.Fatal(err)
		}
	}
	s.configure(entry("k", "p-256", everything(), s.store.URI("a", "k"), s.store.URI("b", "k")))
	s.start()
	key := s.open("k")
	if !key.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(made.Public()) {
		t.Error("another key came")
	}
	s.eventually("both tokens", func() bool { code, body := s.get("/readyz"); return code == 200 && body == "ready\n" })
	l := s.load(key, 16)
	tokens, err := filepath.Glob(filepath.Join(s.store.Tokens(), "*"))
	if err != nil || len(tokens) != 2 {
		t.Fatal(tokens, err)
	}
	for _, token := range tokens {
		away := filepath.Join(s.dir, "away")
		rename(t, token, away)
		s.eventually("notice", func() bool { _, body := s.get("/readyz"); return strings.Contains(body, "ready, but") })
		s.grows(l)
		rename(t, away, token)
		s.eventually("both tokens", func() bool { _, body := s.get("/readyz"); return body == "ready\n" })
	}
	l.end()
	s.stop()
}

// A second token with another key under the name is not signed with.
func TestOtherKeyUnderTheName(t *testing.T) {
	s := newStage(t, "a", "b")
	a, b := s.store.URI("a", "k"), s.store.URI("b", "k")
	s.configure(entry("k", "p-256", everything(), b))
	s.create("k")
	s.configure(entry("k", "p-256", everything(), a))
	s.create("k")
	s.configure(entry("k", "p-256", everything(), a, b))
	s.start()
	key := s.open("k") // whichever was quicker
	l := s.load(key, 8)
	s.eventually("notice", func() bool { return strings.Contains(s.logged(), "another key under the same name") })
	l.end()
	s.stop()
}

func TestRules(t *testing.T) {
	s := newStage(t)
	for _, name := range []string{"own", "other", "limited", "program"} {
		if _, err := hsm.Create(t.Context(), hsm.FileURI(filepath.Join(s.dir, name+".pem")), hsm.P256); err != nil {
			t.Fatal(err)
		}
	}
	uid := itoa(os.Getuid())
	s.configure(
		entry("own", "p-256", `[{user: "`+uid+`", purposes: [crl]}]`, "file:own.pem"),
		entry("other", "p-256", `[{user: "54321", purposes: [crl]}]`, "file:other.pem"),
		entry("limited", "p-256", `[{user: "`+uid+`", purposes: [crl], rate: 0.001, burst: 3}, {group: "`+itoa(os.Getgid())+`", purposes: [ocsp]}]`, "file:limited.pem"),
		entry("program", "p-256", `[{user: "`+uid+`", program: /usr/bin/jpki-ca, purposes: [crl]}]`, "file:program.pem"),
	)
	s.start()
	for _, c := range []struct {
		key     string
		purpose signer.Purpose
		times   int
		want    jpki.Problem
	}{
		{"own", signer.ForCRL, 10, ""},
		{"own", signer.ForCertificate, 1, jpki.Forbidden},
		{"own", signer.ForOther, 1, jpki.Forbidden},
		{"other", signer.ForCRL, 1, jpki.Forbidden},
		{"absent", signer.ForCRL, 1, jpki.Forbidden},
		{"program", signer.ForCRL, 1, jpki.Forbidden},
		{"limited", signer.ForCRL, 3, ""},
		{"limited", signer.ForCRL, 1, jpki.RateLimited},
		{"limited", signer.ForOCSP, 10, ""},
	} {
		for range c.times {
			err := func() error {
				key, err := hsm.Open(t.Context(), s.uri(c.key, c.purpose, patience))
				if err != nil {
					return err
				}
				_, err = key.Sign(rand.Reader, digest[:], crypto.SHA256)
				return err
			}()
			if got := jpki.ProblemOf(err); err == nil && c.want != "" || err != nil && got != c.want {
				t.Errorf("%s for %v: %v, want %q", c.key, c.purpose, err, c.want)
			}
		}
	}
	s.stop()
}

// Peers of another user are told apart by the kernel. Needs root, to become somebody else.
func TestAnotherUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can become another user")
	}
	s := newStage(t)
	if _, err := hsm.Create(t.Context(), hsm.FileURI(filepath.Join(s.dir, "k.pem")), hsm.P256); err != nil {
		t.Fatal(err)
	}
	s.configure(entry("k", "p-256", `[{user: "54321", purposes: [crl]}]`, "file:k.pem"))
	s.start()
	s.eventually("the socket", func() bool { _, err := os.Stat(filepath.Join(s.dir, "s.sock")); return err == nil })
	if _, err := hsm.Open(t.Context(), s.uri("k", signer.ForCRL, patience)); jpki.ProblemOf(err) != jpki.Forbidden {
		t.Errorf("root is admitted where only another user is: %v", err)
	}
	for _, path := range []string{s.dir, filepath.Join(s.dir, "s.sock")} { // let the other user in, as far as files go
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
	copied := filepath.Join(s.dir, "probe")
	if err := os.WriteFile(copied, text, 0o755); err != nil {
		t.Fatal(err)
	}
	for uid, want := range map[uint32]string{54321: "signed\n", 54322: "forbidden\n"} {
		cmd := exec.CommandContext(t.Context(), copied, "-test.run", "^TestProbe$")
		cmd.Env = append(os.Environ(), "JPKI_SIGNER_PROBE="+s.uri("k", signer.ForCRL, patience))
		cmd.Dir = s.dir
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.HasPrefix(string(out), want) {
			t.Errorf("user %d: %v %s", uid, err, out)
		}
	}
	s.stop()
}

// TestProbe is what TestAnotherUser runs as somebody else.
func TestProbe(t *testing.T) {
	uri := os.Getenv("JPKI_SIGNER_PROBE")
	if uri == "" {
		t.Skip("a part of TestAnotherUser")
	}
	key, err := hsm.Open(t.Context(), uri)
	if err == nil {
		_, err = key.Sign(rand.Reader, digest[:], crypto.SHA256)
	}
	if err == nil {
		_, _ = os.Stdout.WriteString("signed\n")
		return
	}
	_, _ = os.Stdout.WriteString(string(jpki.ProblemOf(err)) + "\n")
}

// Who sends more than it may have waiting hears so; whoever asks a little is served all the same.
func TestFairAndBounded(t *testing.T) {
	s := newStage(t, "a")
	path := s.configure(entry("k", "rsa-2048", everything(), s.store.URI("a", "k")))
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, strings.Replace(string(text), "keys:", "sessions: 1\nwaiting: 20\nkeys:", 1))
	s.create("k")
	s.start()
	greedy, modest := s.open("k"), s.open("k")
	var busy, other int
	var mu sync.Mutex
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			_, err := greedy.Sign(rand.Reader, digest[:], crypto.SHA256)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case jpki.ProblemOf(err) == jpki.RateLimited:
				busy++
			case err != nil:
				other++
			}
		})
	}
	if _, err := modest.Sign(rand.Reader, digest[:], crypto.SHA256); err != nil {
		t.Errorf("the modest peer: %v", err)
	}
	all.Wait()
	if busy == 0 || busy > 80 || other != 0 {
		t.Errorf("of 100 requests at once %d were too many, %d failed otherwise", busy, other)
	}
	s.stop()
}

func TestSecondSignerRefused(t *testing.T) {
	s := newStage(t)
	if _, err := hsm.Create(t.Context(), hsm.FileURI(filepath.Join(s.dir, "k.pem")), hsm.P256); err != nil {
		t.Fatal(err)
	}
	path := s.configure(entry("k", "p-256", everything(), "file:k.pem"))
	s.start()
	s.open("k")
	if out, code := s.call("-config", path); code != exitFailure || !strings.Contains(out, "another process") {
		t.Errorf("a second signer: %d %s", code, out)
	}
	s.open("k")
	s.stop()
	if _, err := os.Stat(filepath.Join(s.dir, "s.sock")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket was left: %v", err)
	}
}
