package card_test

import (
	"bufio"
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/hsm/card"
)

const signPIN, authPIN = "ABC123", "1234"

var pins = map[jpki.Kind]string{jpki.CardSign: signPIN, jpki.CardAuth: authPIN}

// TestMain is, in a child process that a test starts, a holder at another terminal: it presents one PIN several times and
// prints what the card says each time.
func TestMain(m *testing.M) {
	path := os.Getenv("CARD_TEST_PATH")
	if path == "" {
		os.Exit(m.Run())
	}
	c, err := card.Open(path)
	if err != nil {
		fmt.Println("open:", err)
		os.Exit(1)
	}
	digest := sha256.Sum256([]byte("message"))
	for range len(os.Getenv("CARD_TEST_TIMES")) {
		_, err := c.Sign(jpki.CardAuth, os.Getenv("CARD_TEST_PIN"), digest[:], crypto.SHA256)
		fmt.Println(outcome(err))
	}
}

// child starts a process that presents pin n times to the authentication key.
func child(t *testing.T, path, pin string, n int) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd, out := exec.Command(exe), new(bytes.Buffer)
	cmd.Env = append(os.Environ(), "CARD_TEST_PATH="+path, "CARD_TEST_PIN="+pin, "CARD_TEST_TIMES="+strings.Repeat("x", n))
	cmd.Stdout, cmd.Stderr = out, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, out
}

func outcome(err error) string {
	var wrong *card.WrongPINError
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &wrong):
		return fmt.Sprint("wrong ", wrong.Remaining)
	case errors.Is(err, card.ErrLocked):
		return "locked"
	}
	return err.Error()
}

// blank is a card whose keys took their time; tests work on copies of its file.
var blank = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "card")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	c, err := card.New(card.Config{Dir: dir, ID: "TEST-0001", SignPIN: signPIN, AuthPIN: authPIN, Rand: rand.Reader})
	if err != nil {
		return nil, err
	}
	return os.ReadFile(c.Path())
})

func newCard(t *testing.T) *card.Card {
	t.Helper()
	data, err := blank()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "TEST-0001.card")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := card.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("JPKI_TEST_REQUIRE") == "1" {
			t.Fatalf("%s is required: %v", name, err)
		}
		t.Skipf("%s is not installed", name)
	}
	return path
}

// publicKey asks the card for the public key of a kind.
func publicKey(t *testing.T, c *card.Card, kind jpki.Kind, pin string) *rsa.PublicKey {
	t.Helper()
	s, err := c.Signer(kind, pin)
	if err != nil {
		t.Fatal(err)
	}
	return s.Public().(*rsa.PublicKey)
}

// certify makes a certificate for pub; an authority's if ca.
func certify(t testing.TB, pub crypto.PublicKey, serial int64, ca bool) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if pub == nil {
		pub = key.Public()
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "test"}, BasicConstraintsValid: ca, IsCA: ca,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, pub, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func checkTries(t *testing.T, c *card.Card, kind jpki.Kind, want int) {
	t.Helper()
	got, err := c.Tries(kind)
	if err != nil || got != want {
		t.Errorf("Tries(%s) = %d, %v; want %d", kind, got, err, want)
	}
	if locked, err := c.Locked(kind); err != nil || locked != (want == 0) {
		t.Errorf("Locked(%s) = %v, %v; want %v", kind, locked, err, want == 0)
	}
}

func TestNew(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cards")
	cfg := card.Config{Dir: dir, ID: "TEST-0002", SignPIN: signPIN, AuthPIN: authPIN, Rand: rand.Reader}
	c, err := card.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if c.ID() != cfg.ID {
		t.Errorf("ID = %q", c.ID())
	}
	if info, err := os.Stat(c.Path()); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
	checkTries(t, c, jpki.CardSign, card.SignTries)
	checkTries(t, c, jpki.CardAuth, card.AuthTries)
	if publicKey(t, c, jpki.CardSign, signPIN).Equal(publicKey(t, c, jpki.CardAuth, authPIN)) {
		t.Error("both keys are the same")
	}
	before, _ := os.ReadFile(c.Path())
	if bytes.Contains(before, []byte(signPIN)) {
		t.Error("the file contains a PIN")
	}
	if _, err := card.New(cfg); !errors.Is(err, fs.ErrExist) {
		t.Errorf("New over a card: %v, want an ErrExist", err)
	}
	if after, _ := os.ReadFile(c.Path()); !bytes.Equal(before, after) {
		t.Error("New over a card changed it")
	}

	for _, name := range []string{"notes.txt", ".TEST-0003.card.new", "bad id.card"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	paths, err := card.List(dir)
	if diff := cmp.Diff([]string{c.Path()}, paths); err != nil || diff != "" {
		t.Errorf("List: %v\n%s", err, diff)
	}
}

func TestNewRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  card.Config
		want string
	}{
		{"no directory", card.Config{ID: "A", SignPIN: signPIN, AuthPIN: authPIN, Rand: rand.Reader}, "Config.Dir"},
		{"no randomness", card.Config{Dir: t.TempDir(), ID: "A", SignPIN: signPIN, AuthPIN: authPIN}, "Config.Rand"},
		{"no number", card.Config{Dir: t.TempDir(), SignPIN: signPIN, AuthPIN: authPIN, Rand: rand.Reader}, "card number"},
		{"traversal", card.Config{Dir: t.TempDir(), ID: "../A", SignPIN: signPIN, AuthPIN: authPIN, Rand: rand.Reader}, "card number"},
		{"long number", card.Config{Dir: t.TempDir(), ID: strings.Repeat("A", 65), SignPIN: signPIN, AuthPIN: authPIN, Rand: rand.Reader}, "card number"},
		{"My Number", card.Config{Dir: t.TempDir(), ID: "123456789018", SignPIN: signPIN, AuthPIN: authPIN, Rand: rand.Reader}, "my-number-present"},
		{"sign PIN", card.Config{Dir: t.TempDir(), ID: "A", SignPIN: "ABCDEF", AuthPIN: authPIN, Rand: rand.Reader}, "signature PIN"},
		{"auth PIN", card.Config{Dir: t.TempDir(), ID: "A", SignPIN: signPIN, AuthPIN: "12345", Rand: rand.Reader}, "authentication PIN"},
	} {
		if _, err := card.New(c.cfg); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want an error with %q", c.name, err, c.want)
		}
	}
}

func TestCheckPIN(t *testing.T) {
	for _, c := range []struct {
		kind jpki.Kind
		pin  string
		ok   bool
	}{
		{jpki.CardAuth, "0000", true},
		{jpki.CardAuth, "123", false},
		{jpki.CardAuth, "12345", false},
		{jpki.CardAuth, "12A4", false},
		{jpki.CardAuth, "", false},
		{jpki.CardAuth, "１２３４", false},
		{jpki.CardAuth, "123 ", false},
		{jpki.CardSign, "A23456", true},
		{jpki.CardSign, "ABCDEFGHIJKLMNO1", true},
		{jpki.CardSign, "A2345", false},
		{jpki.CardSign, "ABCDEFGHIJKLMNOP1", false},
		{jpki.CardSign, "ABCDEF", false},
		{jpki.CardSign, "123456", false},
		{jpki.CardSign, "abc123", false},
		{jpki.CardSign, "ABC-123", false},
		{jpki.CardSign, "ABC12é", false},
		{jpki.PhoneAuth, "1234", false},
	} {
		if err := card.CheckPIN(c.kind, c.pin); (err == nil) != c.ok {
			t.Errorf("CheckPIN(%s, %q) = %v, want ok = %v", c.kind, c.pin, err, c.ok)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	data, err := blank()
	if err != nil {
		t.Fatal(err)
	}
	edit := func(f func(m map[string]any)) []byte {
		var m map[string]any
		if err := json.Unmarshal(data, &m); err != nil {
			t.Fatal(err)
		}
		f(m)
		out, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	auth := func(m map[string]any) map[string]any { return m["auth"].(map[string]any) }
	for _, c := range []struct {
		name string
		data []byte
		mode os.FileMode
		want string
	}{
		{"good", data, 0o600, ""},
		{"readable by others", data, 0o644, "mode 0644"},
		{"empty", nil, 0o600, "not a card"},
		{"cut", data[:len(data)/2], 0o600, "not a card"},
		{"twice", append(append([]byte{}, data...), data...), 0o600, "something follows"},
		{"unknown member", edit(func(m map[string]any) { m["my_number"] = "" }), 0o600, "not a card"},
		{"version", edit(func(m map[string]any) { m["version"] = 2 }), 0o600, "version 2"},
		{"too many tries", edit(func(m map[string]any) { auth(m)["tries"] = 4 }), 0o600, "damaged"},
		{"negative tries", edit(func(m map[string]any) { auth(m)["tries"] = -1 }), 0o600, "damaged"},
		{"no PIN", edit(func(m map[string]any) { delete(auth(m), "pin") }), 0o600, "damaged"},
		{"endless PIN", edit(func(m map[string]any) { auth(m)["pin"].(map[string]any)["iterations"] = 1 << 40 }), 0o600, "damaged"},
		{"bad number", edit(func(m map[string]any) { m["id"] = "../x" }), 0o600, "card number"},
		{"too long", append(append([]byte{}, data...), bytes.Repeat([]byte(" "), 128<<10)...), 0o600, "longer than"},
	} {
		path := filepath.Join(t.TempDir(), "x.card")
		if err := os.WriteFile(path, c.data, c.mode); err != nil {
			t.Fatal(err)
		}
		_, err := card.Open(path)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want an error with %q", c.name, err, c.want)
		}
	}
}

// Every operation that needs a PIN counts, locks and unlocks alike.
func TestPINs(t *testing.T) {
	digest := sha256.Sum256([]byte("message"))
	operations := map[string]func(c *card.Card, kind jpki.Kind, pin string) error{
		"Sign": func(c *card.Card, k jpki.Kind, pin string) error {
			_, err := c.Sign(k, pin, digest[:], crypto.SHA256)
			return err
		},
		"Signer": func(c *card.Card, k jpki.Kind, pin string) error { _, err := c.Signer(k, pin); return err },
		"CertificateRequest": func(c *card.Card, k jpki.Kind, pin string) error {
			_, err := c.CertificateRequest(k, pin)
			return err
		},
		"RegenerateKey": func(c *card.Card, k jpki.Kind, pin string) error { return c.RegenerateKey(k, pin) },
		"Certificate": func(c *card.Card, k jpki.Kind, pin string) error {
			if k == jpki.CardAuth { // is free, so let another count
				_, err := c.Signer(k, pin)
				return err
			}
			if _, err := c.Certificate(k, pin); !errors.Is(err, card.ErrNoCertificate) {
				return err
			}
			return nil
		},
	}
	for name, operate := range operations {
		for kind, pin := range pins {
			t.Run(name+"/"+string(kind), func(t *testing.T) {
				c := newCard(t)
				other := jpki.CardAuth
				max, otherMax := card.SignTries, card.AuthTries
				if kind == jpki.CardAuth {
					other, max, otherMax = jpki.CardSign, card.AuthTries, card.SignTries
				}
				check := func(pin, want string) {
					t.Helper()
					if got := outcome(operate(c, kind, pin)); got != want {
						t.Fatalf("with PIN %q: %s, want %s", pin, got, want)
					}
				}
				for i := 1; i < max; i++ {
					check("WRONG0", fmt.Sprint("wrong ", max-i))
				}
				checkTries(t, c, kind, 1)
				check(pin, "ok") // the right PIN gives all tries back
				checkTries(t, c, kind, max)
				for i, wrong := range []string{"", "0", pin + "0", strings.Repeat("9", 1000), pin[1:]}[:max] {
					check(wrong, fmt.Sprint("wrong ", max-i-1))
				}
				check(pin, "locked")
				check("WRONG0", "locked")
				checkTries(t, c, kind, 0)
				checkTries(t, c, other, otherMax)

				if err := c.ResetPIN(kind, "no"); err == nil {
					t.Error("ResetPIN took a PIN that may not be chosen")
				}
				checkTries(t, c, kind, 0)
				fresh := map[jpki.Kind]string{jpki.CardSign: "NEWPIN42", jpki.CardAuth: "9876"}[kind]
				if err := c.ResetPIN(kind, fresh); err != nil {
					t.Fatal(err)
				}
				checkTries(t, c, kind, max)
				check(pin, fmt.Sprint("wrong ", max-1)) // the old one
				check(fresh, "ok")
				checkTries(t, c, kind, max)
			})
		}
	}
}

func TestWrongPINError(t *testing.T) {
	if err := error(&card.WrongPINError{Remaining: 1}); errors.Is(err, card.ErrLocked) {
		t.Error("one try left, but locked")
	}
	if err := error(&card.WrongPINError{}); !errors.Is(err, card.ErrLocked) {
		t.Error("no try left, but not locked")
	}
}

// A process killed between taking a PIN and judging it gains nothing: not with a wrong PIN, and not with the right one,
// which the card cannot tell apart at that moment.
func TestKilledTryCounts(t *testing.T) {
	c := newCard(t)
	slowPIN(t, c.Path())
	for i, pin := range []string{"0000", authPIN, "0000"} {
		want := card.AuthTries - i - 1
		cmd, out := child(t, c.Path(), pin, 1)
		exited := make(chan struct{})
		go func() { _ = cmd.Wait(); close(exited) }()
		for triesInFile(t, c.Path()) != want {
			select {
			case <-exited:
				t.Fatalf("the PIN was judged before the try was counted: %q", out)
			case <-time.After(time.Millisecond):
			}
		}
		if err := cmd.Process.Kill(); err != nil { // SIGKILL, while the PIN is being hashed
			t.Fatal(err)
		}
		<-exited
		if out.Len() != 0 {
			t.Fatalf("the process lived on to say %q", out)
		}
		checkTries(t, c, jpki.CardAuth, want)
	}
	if _, err := c.Signer(jpki.CardAuth, authPIN); !errors.Is(err, card.ErrLocked) {
		t.Errorf("after three killed tries: %v, want ErrLocked", err)
	}
}

// slowPIN makes judging the authentication PIN take seconds.
func slowPIN(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(data, &m); err != nil {
		t.Fatal(err)
	}
	m["auth"].(map[string]any)["pin"].(map[string]any)["iterations"] = 100_000_000
	if data, err = json.Marshal(m); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// triesInFile reads the counter past the lock that a running operation holds.
func triesInFile(t *testing.T, path string) int {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var m struct{ Auth struct{ Tries int } }
	if err := json.Unmarshal(data, &m); err != nil {
		t.Fatal(err)
	}
	return m.Auth.Tries
}

// However many processes guess at once, the card judges three wrong PINs and no more.
func TestProcessesShareTries(t *testing.T) {
	c := newCard(t)
	var cmds []*exec.Cmd
	var outs []*bytes.Buffer
	for range 3 {
		cmd, out := child(t, c.Path(), "0000", 3)
		cmds, outs = append(cmds, cmd), append(outs, out)
	}
	count := map[string]int{}
	for i, cmd := range cmds {
		if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		}
		for lines := bufio.NewScanner(outs[i]); lines.Scan(); {
			count[lines.Text()]++
		}
	}
	if diff := cmp.Diff(map[string]int{"wrong 2": 1, "wrong 1": 1, "wrong 0": 1, "locked": 6}, count); diff != "" {
		t.Error(diff)
	}
}

// Processes and goroutines that use the card rightly never disturb each other.
func TestConcurrentUse(t *testing.T) {
	c := newCard(t)
	a, outA := child(t, c.Path(), authPIN, 10)
	b, outB := child(t, c.Path(), authPIN, 10)
	pub := publicKey(t, c, jpki.CardAuth, authPIN)
	digest := sha256.Sum256([]byte("message"))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			mine, err := card.Open(c.Path())
			if err != nil {
				t.Error(err)
				return
			}
			for range 5 {
				sig, err := mine.Sign(jpki.CardAuth, authPIN, digest[:], crypto.SHA256)
				if err != nil || rsa.VerifyPKCS1v15(pub, crypto.SHA256, digest[:], sig) != nil {
					t.Errorf("Sign: %v, or a wrong signature", err)
				}
				if _, err := c.CertificateRequest(jpki.CardSign, signPIN); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if err := errors.Join(a.Wait(), b.Wait()); err != nil {
		t.Error(err)
	}
	for _, out := range []*bytes.Buffer{outA, outB} {
		if want := strings.Repeat("ok\n", 10); out.String() != want {
			t.Errorf("a child said %q", out)
		}
	}
	checkTries(t, c, jpki.CardAuth, card.AuthTries)
	checkTries(t, c, jpki.CardSign, card.SignTries)
}

func TestSignaturesAndRequestsWithOpenSSL(t *testing.T) {
	openssl := tool(t, "openssl")
	c, dir := newCard(t), t.TempDir()
	message, sigFile, pubFile, csrFile := dir+"/m", dir+"/m.sig", dir+"/pub.pem", dir+"/csr.der"
	write := func(path string, data []byte) {
		t.Helper()
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) string {
		t.Helper()
		out, err := exec.Command(openssl, args...).CombinedOutput()
		if err != nil {
			t.Errorf("openssl %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	text := []byte("口座開設申込書")
	write(message, text)
	s256, s384, s512 := sha256.Sum256(text), sha512.Sum384(text), sha512.Sum512(text)
	digestInfo := append([]byte("\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20"), s256[:]...)

	for kind, pin := range pins {
		csr, err := c.CertificateRequest(kind, pin)
		if err != nil {
			t.Fatal(err)
		}
		write(csrFile, csr)
		out := run("req", "-inform", "DER", "-in", csrFile, "-verify", "-noout", "-subject")
		if !strings.Contains(out, "verify OK") || !strings.Contains(out, "subject=\n") {
			t.Errorf("openssl req says %q, want a good proof and an empty subject", out)
		}
		run("req", "-inform", "DER", "-in", csrFile, "-pubkey", "-noout", "-out", pubFile)
		signer, err := c.Signer(kind, pin)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range []struct {
			flag   string
			digest []byte
			hash   crypto.Hash
		}{{"-sha256", s256[:], crypto.SHA256}, {"-sha384", s384[:], crypto.SHA384}, {"-sha512", s512[:], crypto.SHA512}, {"-sha256", digestInfo, 0}} {
			sig, err := c.Sign(kind, pin, s.digest, s.hash)
			if err != nil {
				t.Fatal(err)
			}
			write(sigFile, sig)
			run("dgst", s.flag, "-verify", pubFile, "-signature", sigFile, message)
			again, err := signer.Sign(nil, s.digest, s.hash)
			if err != nil || !bytes.Equal(sig, again) { // PKCS #1 v1.5 is deterministic
				t.Errorf("the signer's signature differs: %v", err)
			}
		}
	}
}

func TestSignRefuses(t *testing.T) {
	c := newCard(t)
	signer, err := c.Signer(jpki.CardAuth, authPIN)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []struct {
		n    int
		opts crypto.SignerOpts
	}{
		{31, crypto.SHA256},
		{32, crypto.SHA384},
		{20, crypto.SHA1},
		{0, crypto.Hash(0)},
		{246, crypto.Hash(0)},
		{32, &rsa.PSSOptions{Hash: crypto.SHA256}},
		{32, nil},
	} {
		if _, err := signer.Sign(nil, make([]byte, s.n), s.opts); err == nil {
			t.Errorf("%d octets with %v: signed", s.n, s.opts)
		}
	}
	if _, err := c.Sign(jpki.PhoneSign, signPIN, make([]byte, 32), crypto.SHA256); err == nil {
		t.Error("a card signed with a phone's key")
	}
}

func TestCertificates(t *testing.T) {
	c := newCard(t)
	for kind, pin := range pins {
		if _, err := c.Certificate(kind, pin); !errors.Is(err, card.ErrNoCertificate) {
			t.Errorf("%s of a new card: %v", kind, err)
		}
		if _, err := c.CACertificate(kind); !errors.Is(err, card.ErrNoCertificate) {
			t.Errorf("CA of %s of a new card: %v", kind, err)
		}
		other := jpki.CardSign
		if kind == jpki.CardSign {
			other = jpki.CardAuth
		}
		mine := certify(t, publicKey(t, c, kind, pin), 1, false)
		second := certify(t, publicKey(t, c, kind, pin), 2, false)
		for name, err := range map[string]error{
			"the other key's": c.WriteCertificate(other, mine),
			"an EC key's":     c.WriteCertificate(kind, certify(t, nil, 3, false)),
			"garbage":         c.WriteCertificate(kind, []byte("x")),
			"trailing data":   c.WriteCertificate(kind, append(append([]byte{}, mine...), 0)),
			"too long":        c.WriteCertificate(kind, make([]byte, 9000)),
			"a subscriber's":  c.WriteCACertificate(kind, mine),
			"a phone's":       c.WriteCertificate(jpki.PhoneSign, mine),
		} {
			if err == nil {
				t.Errorf("%s certificate was written as %s", name, kind)
			}
		}
		authority := certify(t, nil, 4, true)
		for range 2 { // the second time changes nothing
			if err := errors.Join(c.WriteCertificate(kind, mine), c.WriteCACertificate(kind, authority)); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.WriteCertificate(kind, second); err == nil {
			t.Error("a key was certified twice")
		}
		got, err := c.Certificate(kind, pin)
		if err != nil || !bytes.Equal(got, mine) {
			t.Errorf("Certificate: %v, or another one", err)
		}
		got, err = c.CACertificate(kind)
		if err != nil || !bytes.Equal(got, authority) {
			t.Errorf("CACertificate: %v, or another one", err)
		}
	}

	// Only the certificate with the attributes is behind a PIN.
	if _, err := c.Certificate(jpki.CardAuth, ""); err != nil {
		t.Errorf("authentication certificate without PIN: %v", err)
	}
	if _, err := c.Certificate(jpki.CardSign, ""); outcome(err) != "wrong 4" {
		t.Errorf("signature certificate without PIN: %v", err)
	}
	checkTries(t, c, jpki.CardAuth, card.AuthTries)

	// A re-issue on the same card.
	old := publicKey(t, c, jpki.CardSign, signPIN)
	session, err := c.Signer(jpki.CardSign, signPIN)
	if err != nil {
		t.Fatal(err)
	}
	oldCert, _ := c.Certificate(jpki.CardSign, signPIN)
	if err := c.RegenerateKey(jpki.CardSign, signPIN); err != nil {
		t.Fatal(err)
	}
	fresh := publicKey(t, c, jpki.CardSign, signPIN)
	if fresh.Equal(old) {
		t.Error("RegenerateKey kept the key")
	}
	if _, err := c.Certificate(jpki.CardSign, signPIN); !errors.Is(err, card.ErrNoCertificate) {
		t.Errorf("the old certificate is still there: %v", err)
	}
	if _, err := session.Sign(nil, make([]byte, 32), crypto.SHA256); err == nil {
		t.Error("a session with the old key signs with the new one")
	}
	if err := c.WriteCertificate(jpki.CardSign, oldCert); err == nil {
		t.Error("the old certificate was written for the new key")
	}
	if err := c.WriteCertificate(jpki.CardSign, certify(t, fresh, 5, false)); err != nil {
		t.Error(err)
	}
	if got, err := c.Certificate(jpki.CardAuth, ""); err != nil || got == nil {
		t.Errorf("the other certificate is gone: %v", err)
	}
}

// A file that a crash left behind harms nothing.
func TestUnfinishedWrite(t *testing.T) {
	c := newCard(t)
	unfinished := filepath.Join(filepath.Dir(c.Path()), "."+filepath.Base(c.Path())+".new")
	before, err := os.ReadFile(c.Path())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Link(c.Path(), unfinished); err != nil { // New was killed after it gave the file its name
		t.Fatal(err)
	}
	if _, err := c.Sign(jpki.CardAuth, "0000", make([]byte, 32), crypto.SHA256); outcome(err) != "wrong 2" {
		t.Fatal(err)
	}
	if _, err := os.Stat(unfinished); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the unfinished file is still there: %v", err)
	}
	if err := os.WriteFile(unfinished, before[:100], 0o600); err != nil { // a write was cut short
		t.Fatal(err)
	}
	if _, err := c.Sign(jpki.CardAuth, authPIN, make([]byte, 32), crypto.SHA256); err != nil {
		t.Fatal(err)
	}
	checkTries(t, c, jpki.CardAuth, card.AuthTries)
	if _, err := card.Open(c.Path()); err != nil {
		t.Error(err)
	}
}

// A private key in the file is the one the card signs with, as an independent reader sees it.
func TestFileHoldsTheKey(t *testing.T) {
	openssl := tool(t, "openssl")
	c := newCard(t)
	data, err := os.ReadFile(c.Path())
	if err != nil {
		t.Fatal(err)
	}
	var m struct{ Auth struct{ Key []byte } }
	if err := json.Unmarshal(data, &m); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(openssl, "pkey", "-inform", "DER", "-check", "-pubout")
	cmd.Stdin = bytes.NewReader(m.Auth.Key)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("openssl does not like the key: %v", err)
	}
	_, rest, _ := bytes.Cut(out, []byte("-----BEGIN"))
	block, _ := pem.Decode(append([]byte("-----BEGIN"), rest...))
	if block == nil {
		t.Fatalf("no public key in %q", out)
	}
	pub, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil || !publicKey(t, c, jpki.CardAuth, authPIN).Equal(pub) {
		t.Errorf("another key, or %v", err)
	}
}

// What Open accepts can be used and written again without changing what it says.
func FuzzOpen(f *testing.F) {
	data, err := blank()
	if err != nil {
		f.Fatal(err)
	}
	authority := certify(f, nil, 1, true)
	f.Add(data)
	f.Add(bytes.ReplaceAll(data, []byte(`"tries": 3`), []byte(`"tries": 0`)))
	f.Add(bytes.ReplaceAll(data, []byte(`"version": 1`), []byte(`"version": 1, "version": 1`)))
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "x.card")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := card.Open(path)
		if err != nil {
			return
		}
		state := func(c *card.Card) (out []any) {
			for _, kind := range card.Kinds {
				n, err := c.Tries(kind)
				out = append(out, c.ID(), n, err)
			}
			cert, err := c.Certificate(jpki.CardAuth, "")
			return append(out, cert, errors.Is(err, card.ErrNoCertificate))
		}
		before := state(c)
		if err := c.WriteCACertificate(jpki.CardAuth, authority); err != nil {
			t.Fatal(err)
		}
		again, err := card.Open(path)
		if err != nil {
			t.Fatalf("the card does not open after a change: %v", err)
		}
		if diff := cmp.Diff(before, state(again)); diff != "" {
			t.Error(diff)
		}
	})
}
