package hsm_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/openjpki/jpki/hsm"
)

// tool returns the path of an external program that a test compares us with.
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

func TestCreateOpenSign(t *testing.T) {
	openssl := tool(t, "openssl")
	ctx := context.Background()
	for _, alg := range []hsm.Algorithm{hsm.RSA2048, hsm.P256, hsm.P384} {
		t.Run(string(alg), func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "a key #1.pem") // a name that needs escaping in a URI
			created, err := hsm.Create(ctx, hsm.FileURI(path), alg)
			if err != nil {
				t.Fatal(err)
			}
			info, err := os.Stat(path)
			if err != nil || info.Mode().Perm() != 0o600 {
				t.Fatalf("mode %v, %v; want 0600", info.Mode(), err)
			}
			if names, _ := os.ReadDir(dir); len(names) != 1 {
				t.Errorf("Create left %v", names)
			}
			opened, err := hsm.Open(ctx, hsm.FileURI(path))
			if err != nil {
				t.Fatal(err)
			}
			if !opened.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(created.Public()) {
				t.Error("another key came back")
			}

			message := filepath.Join(dir, "message")
			digest := sha256.Sum256([]byte("契約書"))
			sig, err := opened.Sign(rand.Reader, digest[:], crypto.SHA256)
			if err != nil {
				t.Fatal(err)
			}
			write(t, message, []byte("契約書"))
			write(t, message+".sig", sig)
			if out, err := exec.Command(openssl, "pkey", "-in", path, "-pubout", "-out", message+".pub").CombinedOutput(); err != nil {
				t.Fatalf("openssl cannot read our key: %v\n%s", err, out)
			}
			out, err := exec.Command(openssl, "dgst", "-sha256", "-verify", message+".pub", "-signature", message+".sig", message).CombinedOutput()
			if err != nil {
				t.Errorf("openssl does not verify our signature: %v\n%s", err, out)
			}
		})
	}
}

func TestOpenKeysOfOpenSSL(t *testing.T) {
	openssl := tool(t, "openssl")
	for _, c := range []struct {
		args []string
		want string // in the error; empty: opens
	}{
		{[]string{"-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"}, ""},
		{[]string{"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"}, ""},
		{[]string{"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"}, ""},
		{[]string{"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"}, "none of rsa-2048, p-256 and p-384"},
		{[]string{"-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"}, "none of"},
		{[]string{"-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-aes256", "-pass", "pass:secret"}, "unencrypted"},
	} {
		path := filepath.Join(t.TempDir(), "key.pem")
		if out, err := exec.Command(openssl, append([]string{"genpkey", "-out", path}, c.args...)...).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := hsm.Open(context.Background(), hsm.FileURI(path))
		checkError(t, strings.Join(c.args, " "), err, c.want)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := pkcs8(t, p256)
	sec1, err := x509.MarshalECPrivateKey(p256)
	if err != nil {
		t.Fatal(err)
	}
	broken := bytes.Replace(good, []byte("\n"), []byte("\nAAAA"), 1)

	for _, c := range []struct {
		name string
		text []byte
		mode os.FileMode
		want string
	}{
		{"good", good, 0o600, ""},
		{"read-only", good, 0o400, ""},
		{"group", good, 0o640, "mode 0640"},
		{"world", good, 0o604, "mode 0604"},
		{"group write", good, 0o620, "mode 0620"},
		{"empty", nil, 0o600, "no PEM block"},
		{"garbage", []byte("not a key"), 0o600, "no PEM block"},
		{"two blocks", append(append([]byte{}, good...), good...), 0o600, "something besides"},
		{"text before", append([]byte("key:\n"), good...), 0o600, "something besides"},
		{"SEC 1", pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1}), 0o600, "PKCS #8"},
		{"broken", broken, 0o600, "not a PKCS #8 key"},
		{"Ed25519", pkcs8(t, ed), 0o600, "none of rsa-2048"},
		{"too long", append(append([]byte{}, good...), bytes.Repeat([]byte("\n"), 64<<10)...), 0o600, "longer than"},
	} {
		path := filepath.Join(dir, c.name)
		write(t, path, c.text)
		if err := os.Chmod(path, c.mode); err != nil {
			t.Fatal(err)
		}
		_, err := hsm.Open(context.Background(), hsm.FileURI(path))
		checkError(t, c.name, err, c.want)
	}

	if err := syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	for _, c := range []struct {
		ctx       context.Context
		uri, want string
	}{
		{nil, "file:" + dir + "/good", ""},
		{nil, "file://localhost" + dir + "/good", ""},
		{nil, "pkcs11:token=ca", "jpki-signer's to open"},
		{nil, dir + "/good", `scheme ""; the known schemes are file and signer`},
		{nil, "file:good", "no absolute path"},
		{nil, "file://host" + dir + "/good", "more than a path"},
		{nil, "file://" + dir + "/good?pin=1234", "more than a path"},
		{nil, "file://" + dir + "/good#x", "more than a path"},
		{nil, "\x00", "not a URI"},
		{nil, "file://" + dir, "not a regular file"},
		{nil, "file://" + dir + "/fifo", "not a regular file"},
		{nil, "file://" + dir + "/absent", "no such file"},
		{cancelled, "file://" + dir + "/good", "canceled"},
	} {
		if c.ctx == nil {
			c.ctx = context.Background()
		}
		_, err := hsm.Open(c.ctx, c.uri)
		checkError(t, c.uri, err, c.want)
	}
}

func TestCreateNeverOverwrites(t *testing.T) {
	ctx, path := context.Background(), filepath.Join(t.TempDir(), "key.pem")
	const racers = 8
	var wg sync.WaitGroup
	errs := make([]error, racers)
	keys := make([]crypto.Signer, racers)
	for i := range racers {
		wg.Go(func() { keys[i], errs[i] = hsm.Create(ctx, hsm.FileURI(path), hsm.P256) })
	}
	wg.Wait()
	var winner crypto.Signer
	for i, err := range errs {
		switch {
		case err == nil && winner == nil:
			winner = keys[i]
		case err == nil:
			t.Error("two of several concurrent calls made the key")
		case !errors.Is(err, fs.ErrExist):
			t.Errorf("Create: %v, want an ErrExist", err)
		}
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := hsm.Create(ctx, hsm.FileURI(path), hsm.P256); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Create over a key: %v, want an ErrExist", err)
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
		t.Error("the file changed")
	}
	opened, err := hsm.Open(ctx, hsm.FileURI(path))
	if err != nil {
		t.Fatal(err)
	}
	if winner == nil || !opened.Public().(*ecdsa.PublicKey).Equal(winner.Public()) {
		t.Error("the file is not the key of the call that succeeded")
	}
	if _, err := hsm.Create(ctx, hsm.FileURI(path+"2"), "rsa-1024"); err == nil || !strings.Contains(err.Error(), "not one of rsa-2048, p-256, p-384") {
		t.Errorf("Create with an unknown algorithm: %v", err)
	}
	if names, _ := os.ReadDir(filepath.Dir(path)); len(names) != 1 {
		t.Errorf("files left: %v", names)
	}
}

// A liar claims one key's public half and signs with another.
type liar struct {
	crypto.Signer
	pub crypto.PublicKey
	err error
}

func (l liar) Public() crypto.PublicKey { return l.pub }
func (l liar) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if l.err != nil {
		return nil, l.err
	}
	return l.Signer.Sign(r, digest, opts)
}

func TestSelfTest(t *testing.T) {
	for _, gen := range []func() (crypto.Signer, error){
		func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 2048) },
		func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P384(), rand.Reader) },
	} {
		a, err := gen()
		if err != nil {
			t.Fatal(err)
		}
		b, err := gen()
		if err != nil {
			t.Fatal(err)
		}
		checkError(t, "honest", hsm.SelfTest(a), "")
		checkError(t, "other key", hsm.SelfTest(liar{a, b.Public(), nil}), "does not verify")
		checkError(t, "broken", hsm.SelfTest(liar{a, a.Public(), errors.New("token removed")}), "token removed")
	}
}

func pkcs8(t *testing.T, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func checkError(t *testing.T, name string, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("%s: %v, want no error", name, err)
	case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
		t.Errorf("%s: %v, want an error with %q", name, err, want)
	}
}
