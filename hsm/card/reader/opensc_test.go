package reader_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/hsm/card"
	"github.com/openjpki/jpki/hsm/card/reader/readertest"
)

// An outside runs other people's programs beside a card in a reader.
type outside struct {
	t    *testing.T
	d    *readertest.Daemon
	dir  string
	card *card.Card
	pull func() // takes the card out
}

func withOpenSC(t *testing.T) *outside {
	t.Helper()
	for _, name := range []string{"opensc-tool", "pkcs15-tool", "pkcs11-tool", "openssl"} {
		tool(t, name)
	}
	o := &outside{t: t, d: readertest.Start(t), dir: t.TempDir(), card: todaysCard(t)}
	o.pull = insert(t, o.d.Slots[0], o.card)
	await(t, dial(t, o.d), 1)
	return o
}

// run runs a program and returns what it says and whether it ended well.
func (o *outside) run(name string, args ...string) (string, bool) {
	o.t.Helper()
	ctx, cancel := context.WithTimeout(o.t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = o.dir, o.d.Env()
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		o.t.Fatalf("%s %v hangs\n%s", name, args, out)
	}
	return string(out), err == nil
}

// says runs a program that must end well and print what all the patterns say.
func (o *outside) says(command string, patterns ...string) string {
	o.t.Helper()
	args := strings.Fields(command)
	out, ok := o.run(args[0], args[1:]...)
	if !ok {
		o.t.Errorf("%s failed\n%s", command, out)
	}
	for _, p := range patterns {
		if !regexp.MustCompile("(?m)" + p).MatchString(out) {
			o.t.Errorf("%s does not say %q\n%s", command, p, out)
		}
	}
	return out
}

// fails runs a program that must not end well, for the reason given.
func (o *outside) fails(command, pattern string) {
	o.t.Helper()
	args := strings.Fields(command)
	if out, ok := o.run(args[0], args[1:]...); ok || !regexp.MustCompile(pattern).MatchString(out) {
		o.t.Errorf("%s: ended well: %v, want a failure that says %q\n%s", command, ok, pattern, out)
	}
}

func (o *outside) file(name string, content []byte) {
	o.t.Helper()
	if err := os.WriteFile(filepath.Join(o.dir, name), content, 0o600); err != nil {
		o.t.Fatal(err)
	}
}

// OpenSC's own driver for JPKI takes our card for one, reads it and signs with it; OpenSSL verifies.
func TestOpenSC(t *testing.T) {
	o := withOpenSC(t)
	o.says("opensc-tool --reader 0 -n", `^jpki`)
	o.says("opensc-tool --reader 0 --atr", `^3b:e0:00:ff:81:31:fe:45:14`)
	o.says("pkcs15-tool -D", `PKCS#15 Card \[JPKI\]`, `User Authentication PIN`, `Digital Signature PIN`, `Tries left +: 3`, `Tries left +: 5`,
		`ModLength +: 2048`, `\[User Authentication Certificate\]`, `\[Digital Signature Certificate\]`)

	want, err := o.card.Certificate(jpki.CardAuth, "")
	if err != nil {
		t.Fatal(err)
	}
	same := func(out string, want []byte) {
		t.Helper()
		if block, _ := pem.Decode([]byte(out[max(0, strings.Index(out, "-----BEGIN")):])); block == nil || string(block.Bytes) != string(want) {
			t.Errorf("another certificate was read:\n%s", out)
		}
	}
	same(o.says("pkcs15-tool --read-certificate 1"), want)
	if want, err = o.card.Certificate(jpki.CardSign, signPIN); err != nil {
		t.Fatal(err)
	}
	same(o.says("pkcs15-tool --read-certificate 2 --auth-id 2 --verify-pin --pin "+signPIN), want)
	o.fails("pkcs15-tool --read-certificate 2", `(?i)security status|not satisfied|failed`)
	if want, err = o.card.CACertificate(jpki.CardSign); err != nil {
		t.Fatal(err)
	}
	same(o.says("pkcs15-tool --read-certificate 4"), want)

	o.file("message", []byte("口座開設申込書"))
	for _, row := range []struct {
		kind     jpki.Kind
		slot, id string
	}{{jpki.CardAuth, "0", "01"}, {jpki.CardSign, "1", "02"}} {
		der, err := o.card.Certificate(row.kind, pins[row.kind])
		if err != nil {
			t.Fatal(err)
		}
		o.file("certificate.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
		o.says("openssl x509 -in certificate.pem -pubkey -noout -out public.pem")
		o.says("pkcs11-tool --slot-index " + row.slot + " --login --pin " + pins[row.kind] + " --id " + row.id +
			" --sign -m SHA256-RSA-PKCS --input-file message --output-file signature")
		o.says("openssl dgst -sha256 -verify public.pem -signature signature message", `^Verified OK`)
	}
	o.says("pkcs11-tool --slot-index 0 --login --pin "+authPIN+" --list-objects", `Private Key Object; RSA`, `User Authentication Certificate`)
}

// Three wrong PINs lock, for OpenSC and for everybody else, and they stay locked when the reader, its daemon and the card are started again.
func TestOpenSCLocksThePIN(t *testing.T) {
	o := withOpenSC(t)
	login := "pkcs11-tool --slot-index 0 --login --list-objects --pin "
	for _, left := range []string{"2", "1"} {
		o.fails(login+"0000", `CKR_PIN_INCORRECT`)
		o.says("pkcs15-tool --list-pins", `Tries left +: `+left)
	}
	o.says(login + authPIN) // the right one fills the counter
	o.says("pkcs15-tool --list-pins", `Tries left +: 3`)
	for range 2 {
		o.fails(login+"0000", `CKR_PIN_INCORRECT`)
	}
	o.fails(login+"0000", `CKR_PIN_(INCORRECT|LOCKED)`)
	o.d.Kill()
	o.d.Restart()
	await(t, dial(t, o.d), 1)
	o.fails(login+authPIN, `C_Login failed`) // not CKR_PIN_LOCKED: OpenSC does not know 6984, the real card's word for it
	again, err := card.Open(o.card.Path())
	if err != nil {
		t.Fatal(err)
	}
	if locked, err := again.Locked(jpki.CardAuth); err != nil || !locked {
		t.Errorf("locked: %v, %v", locked, err)
	}
	if n, err := again.Tries(jpki.CardSign); err != nil || n != 5 {
		t.Errorf("the other PIN has %d tries, %v", n, err)
	}
}

// kill -9 of pcscd while OpenSC signs again and again: commands fail or end well, none hangs, no PIN is lost, and afterwards everything works.
func TestOpenSCWithPCSCDKilled(t *testing.T) {
	o := withOpenSC(t)
	o.file("message", []byte("message"))
	stop, stopped := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		for {
			select {
			case <-stop:
				stopped <- n
				return
			default:
			}
			if _, ok := o.run("pkcs11-tool", "--slot-index", "0", "--login", "--pin", authPIN, "--id", "01", "--sign", "-m", "SHA256-RSA-PKCS", "--input-file", "message", "--output-file", "x"); ok {
				n++
			}
		}
	}()
	for range 4 {
		time.Sleep(300 * time.Millisecond)
		o.d.Kill()
		o.d.Restart()
		await(t, dial(t, o.d), 1)
	}
	time.Sleep(time.Second)
	close(stop)
	t.Logf("%d signatures beside four killed daemons", <-stopped)
	await(t, dial(t, o.d), 1)
	o.says("pkcs11-tool --slot-index 0 --login --pin " + authPIN + " --id 01 --sign -m SHA256-RSA-PKCS --input-file message --output-file signature")
	o.says("pkcs15-tool --list-pins", `Tries left +: 3`)
}

// OpenSSL signs, and logs in by TLS, with the card through its PKCS #11 engine and OpenSC. TLS 1.2, because TLS 1.3 asks of RSA keys for PSS, which
// OpenSC's driver does not offer.
func TestOpenSSLEngine(t *testing.T) {
	o := withOpenSC(t)
	der, err := o.card.Certificate(jpki.CardAuth, "")
	if err != nil {
		t.Fatal(err)
	}
	o.file("certificate.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	o.file("message", []byte("message"))
	t.Setenv("PKCS11_MODULE_PATH", module(t))
	key := "pkcs11:token=JPKI%20%28User%20Authentication%20PIN%29;id=%01;type=private;pin-value=" + authPIN
	if out, ok := o.run("openssl", "engine", "-t", "pkcs11"); !ok || !strings.Contains(out, "[ available ]") {
		if os.Getenv("JPKI_TEST_REQUIRE") == "1" {
			t.Fatalf("OpenSSL's engine pkcs11 is required\n%s", out)
		}
		t.Skip("OpenSSL has no engine pkcs11")
	}

	o.says("openssl dgst -engine pkcs11 -keyform engine -sign " + key + " -sha256 -out signature message")
	o.says("openssl x509 -in certificate.pem -pubkey -noout -out public.pem")
	o.says("openssl dgst -sha256 -verify public.pem -signature signature message", `^Verified OK`)

	server := o.bank(tls.VersionTLS12)
	login := func(certificate ...string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		cmd := exec.CommandContext(ctx, "openssl", append([]string{"s_client", "-connect", server.Listener.Addr().String(), "-CAfile", "server.pem", "-ign_eof", "-tls1_2", "-client_sigalgs", "RSA+SHA256"}, certificate...)...)
		cmd.Dir, cmd.Env = o.dir, o.d.Env()
		cmd.Stdin = strings.NewReader("GET / HTTP/1.0\r\n\r\n")
		out, _ := cmd.CombinedOutput()
		return string(out)
	}
	if out := login("-engine", "pkcs11", "-keyform", "engine", "-cert", "certificate.pem", "-key", key); !strings.Contains(out, "hello, card-auth") {
		t.Errorf("not logged in\n%s", out)
	}
	if out := login(); strings.Contains(out, "hello") {
		t.Errorf("logged in without the card\n%s", out)
	}
}

// serverCertificate makes an authority, whose certificate it leaves in server.pem, and a server's certificate. Browsers refuse one certificate for both.
func serverCertificate(t *testing.T, o *outside) tls.Certificate {
	t.Helper()
	root, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "servers"}, BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	server := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "server"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, NotBefore: authority.NotBefore, NotAfter: authority.NotAfter,
	}
	der, err := x509.CreateCertificate(rand.Reader, authority, authority, root.Public(), root)
	if err != nil {
		t.Fatal(err)
	}
	o.file("server.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	if der, err = x509.CreateCertificate(rand.Reader, server, authority, key.Public(), root); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
