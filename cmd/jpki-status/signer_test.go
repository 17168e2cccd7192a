package main

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/cmd/internal/softhsm"
	"github.com/openjpki/jpki/hsm"
	"github.com/openjpki/jpki/hsm/signer"
)

// required skips a test whose outside program is not installed, or fails it where all must be.
func required(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	if os.Getenv("JPKI_TEST_REQUIRE") == "1" {
		t.Fatal(err)
	}
	t.Skip(err)
}

// A keeper is a jpki-signer with a SoftHSM token, as processes of their own.
type keeper struct {
	t       *testing.T
	dir     string
	program string
	store   softhsm.Store
	cmd     *exec.Cmd
}

// newKeeper builds jpki-signer and makes a token with a key for OCSP.
func newKeeper(t *testing.T, algorithm hsm.Algorithm) *keeper {
	t.Helper()
	dir, err := os.MkdirTemp("", "keeper") // shorter than t.TempDir: a socket's path has 107 octets
	if err != nil {
		t.Fatal(err)
	}
	k := &keeper{t: t, dir: dir, program: filepath.Join(dir, "jpki-signer")}
	t.Cleanup(func() { k.kill(); _ = os.RemoveAll(dir) })
	k.store, err = softhsm.Make(dir)
	required(t, err)
	_, err = exec.LookPath("cc")
	required(t, err)
	build := exec.CommandContext(t.Context(), "go", "build", "-tags", "nomsgpack,nobadger,nomysql,nobbolt,nopgx", "-o", k.program, "../jpki-signer")
	build.Env = append(os.Environ(), "CGO_ENABLED=1")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := k.store.Init(t.Context(), "a", "493827"); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("listen: s.sock\nstate: state\nadmin: 127.0.0.1:0\nhang: 1s\nprobe: 300ms\nkeys:\n  - {name: ocsp-1, algorithm: %s, at: [%q], allow: [{user: \"%d\", purposes: [ocsp]}]}\n",
		algorithm, k.store.URI("a", "ocsp-1"), os.Getuid())
	if err := os.WriteFile(k.config(), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := k.command("-create", "ocsp-1").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	k.start()
	return k
}

func (k *keeper) config() string { return filepath.Join(k.dir, "signer.yaml") }

func (k *keeper) command(args ...string) *exec.Cmd {
	cmd := exec.Command(k.program, append([]string{"-config", k.config()}, args...)...)
	cmd.Env = append(os.Environ(), k.store.Env())
	return cmd
}

func (k *keeper) start() {
	k.t.Helper()
	k.cmd = k.command()
	if err := k.cmd.Start(); err != nil {
		k.t.Fatal(err)
	}
}

// kill ends the signer as kill -9 does; its child ends by itself.
func (k *keeper) kill() {
	if k.cmd != nil {
		_ = k.cmd.Process.Signal(syscall.SIGKILL)
		_ = k.cmd.Wait()
		k.cmd = nil
	}
}

func (k *keeper) uri() string {
	return signer.Ref{Socket: filepath.Join(k.dir, "s.sock"), Key: "ocsp-1", Purpose: signer.ForOCSP, Wait: 20 * time.Second}.String()
}

// The responder's key is in a token: answers are good to OpenSSL, and whoever asks while the signer is killed, or the token
// away, is answered when it is back.
func TestDelegateBehindSigner(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	required(t, err)
	k := newKeeper(t, hsm.P256)
	w := newWorld(t, "sqlite:"+filepath.Join(t.TempDir(), "ca.db"), "RSA")
	key, err := hsm.Open(t.Context(), k.uri())
	if err != nil {
		t.Fatal(err)
	}
	cert := w.certify(key.Public(), &x509.Certificate{
		Subject: pkix.Name{CommonName: "in a token"}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning},
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 5}, Value: []byte{5, 0}}},
	})
	w.write("token.cer", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))
	serials := make([]jpki.Serial, 4000)
	for i := range serials {
		serials[i] = newSerial(t)
	}
	goods, bads := serials[:2000], serials[2000:]
	w.set(good, goods...)
	w.set(revoked, bads...)
	config := w.config(map[string]string{"delegates": "\n  - {issuer: sign-1, issuer_certificate: ca.cer, certificate: token.cer, key: '" + k.uri() + "'}"})
	if _, errOut, code := jpkiStatus(t, "-config", config, "-check"); code != 0 {
		t.Fatalf("-check: %d %s", code, errOut)
	}
	s := w.serve(config)
	read := func(serial jpki.Serial, want string, more ...string) {
		t.Helper()
		args := append([]string{"ocsp", "-issuer", w.path("ca.cer"), "-CAfile", w.path("ca.cer"), "-serial", fmt.Sprintf("%#x", serial.Big()), "-url", s.url}, more...)
		out, err := exec.CommandContext(t.Context(), openssl, args...).CombinedOutput()
		if err != nil || !strings.Contains(string(out), ": "+want) || !strings.Contains(string(out), "Response verify OK") {
			t.Errorf("openssl: %v, want %s\n%s", err, want, out)
		}
	}
	read(goods[0], "good")
	read(bads[0], "revoked")

	// Under load, with answers that nobody has asked for before, so that each needs a signature.
	var next, answered atomic.Int64
	var load sync.WaitGroup
	ended := make(chan struct{})
	for range 8 {
		load.Go(func() {
			for {
				select {
				case <-ended:
					return
				default:
				}
				i := int(next.Add(1))
				if i >= len(goods) {
					return
				}
				s.want(goods[i], 0, 0)
				s.want(bads[i], 1, 3)
				answered.Add(2)
			}
		})
	}
	grows := func() {
		t.Helper()
		from := answered.Load()
		s.until("answers under load", func() bool { return answered.Load() >= from+40 || t.Failed() || int(next.Load()) >= len(goods) })
	}
	grows()
	for range 3 { // the signer itself
		k.kill()
		time.Sleep(200 * time.Millisecond) // somebody asks meanwhile
		k.start()
		grows()
	}
	if err := os.Rename(k.store.Tokens(), k.store.Tokens()+".away"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(400 * time.Millisecond)
	if err := os.Rename(k.store.Tokens()+".away", k.store.Tokens()); err != nil {
		t.Fatal(err)
	}
	grows()
	if int(next.Load()) >= len(goods) {
		t.Error("the load ended before the last fault: there were too few certificates")
	}
	close(ended)
	load.Wait()
	read(goods[len(goods)-1], "good")
	read(bads[len(bads)-1], "revoked")

	// While it is away, what was signed before is answered from memory.
	k.kill()
	read(goods[1], "good", "-no_nonce")
	read(bads[1], "revoked", "-no_nonce")
	if code := s.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
