package reader_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/hsm/card"
	"github.com/openjpki/jpki/hsm/card/reader"
	"github.com/openjpki/jpki/hsm/card/reader/readertest"
)

const signPIN, authPIN = "ABC123", "1234"

var pins = map[jpki.Kind]string{jpki.CardSign: signPIN, jpki.CardAuth: authPIN}

const patience = time.Minute

// today is a card of today with four certificates; making its keys takes a second.
var today = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "card")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	c, err := card.New(card.Config{Dir: dir, ID: "TODAY-1", SignPIN: signPIN, AuthPIN: authPIN, Rand: rand.Reader})
	if err != nil {
		return nil, err
	}
	for _, kind := range card.Kinds {
		pub, err := c.PublicKey(kind)
		if err != nil {
			return nil, err
		}
		der, ca, err := certify(pub, string(kind))
		if err = errors.Join(err, c.WriteCertificate(kind, der), c.WriteCACertificate(kind, ca)); err != nil {
			return nil, err
		}
	}
	return os.ReadFile(c.Path())
})

func todaysCard(t *testing.T) *card.Card {
	t.Helper()
	data, err := today()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "TODAY-1.card")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := card.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// certify makes an authority of its own and has it certify a key.
func certify(pub crypto.PublicKey, name string) (der, ca []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "JPKI-SANDBOX test CA"}, BasicConstraintsValid: true, IsCA: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	if ca, err = x509.CreateCertificate(rand.Reader, template, template, key.Public(), key); err != nil {
		return nil, nil, err
	}
	der, err = x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, NotBefore: template.NotBefore, NotAfter: template.NotAfter,
	}, template, pub, key)
	return der, ca, err
}

// insert puts a card into a slot of a virtual reader and, as `jpki card serve` does, again when the reader comes back. What it returns pulls it.
func insert(t *testing.T, slot string, c *card.Card) (pull func()) {
	t.Helper()
	session, err := card.NewSession(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			_ = reader.Slot{Addr: slot, Card: session}.Show(ctx)
			time.Sleep(20 * time.Millisecond)
		}
	}()
	pull = func() { cancel(); <-done }
	t.Cleanup(pull)
	return pull
}

func dial(t *testing.T, d *readertest.Daemon) *reader.Client {
	t.Helper()
	c, err := reader.Dial(t.Context(), d.Socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// await waits until n cards are in readers, and returns the first one's reader.
func await(t *testing.T, c *reader.Client, n int) string {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		states, err := c.Readers(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		in, first := 0, ""
		for _, s := range states {
			if s.Present {
				if in++; first == "" {
					first = s.Reader
				}
			}
		}
		if in == n {
			return first
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d cards are in readers, want %d: %+v", in, n, states)
		}
	}
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

// A card of each generation, through vpcd and pcscd: PINs, files, signatures, and what happens when it is pulled.
func TestTerminalThroughPCSC(t *testing.T) {
	d := readertest.Start(t)
	client := dial(t, d)
	for _, of := range []card.KeyType{card.RSA2048, card.P384} {
		c := todaysCard(t)
		if of == card.P384 {
			var err error
			if c, err = card.New(card.Config{Dir: t.TempDir(), ID: "NEXT-1", SignPIN: signPIN, AuthPIN: authPIN, Keys: of, Rand: rand.Reader}); err != nil {
				t.Fatal(err)
			}
			for _, kind := range card.Kinds {
				pub, err := c.PublicKey(kind)
				if err != nil {
					t.Fatal(err)
				}
				der, ca, err := certify(pub, "next")
				if err = errors.Join(err, c.WriteCertificate(kind, der), c.WriteCACertificate(kind, ca)); err != nil {
					t.Fatal(err)
				}
			}
		}
		pull := insert(t, d.Slots[0], c)
		conn, err := client.Connect(t.Context(), await(t, client, 1))
		if err != nil {
			t.Fatal(err)
		}
		term := reader.NewTerminal(conn)
		if blank, err := term.SelectPersonalisation(t.Context()); err != nil || blank {
			t.Errorf("%s: blank: %v, %v", of, blank, err)
		}
		if found, err := term.SelectJPKI(t.Context()); err != nil || !found {
			t.Fatalf("%s: JPKI: %v, %v", of, found, err)
		}
		if n, err := term.Tries(t.Context(), jpki.CardAuth); err != nil || n != 3 {
			t.Errorf("%s: %d tries, %v", of, n, err)
		}
		var wrong *card.WrongPINError
		if err := term.Verify(t.Context(), jpki.CardAuth, "0000"); !errors.As(err, &wrong) || wrong.Remaining != 2 {
			t.Errorf("%s: wrong PIN: %v", of, err)
		}
		var status *reader.StatusError
		if _, err := term.Certificate(t.Context(), jpki.CardSign); !errors.As(err, &status) || status.Word != card.StatusPINMissing {
			t.Errorf("%s: signature certificate without PIN: %v", of, err)
		}
		for kind, pin := range pins {
			der, err := c.Certificate(kind, pin)
			if err != nil {
				t.Fatal(err)
			}
			ca, err := c.CACertificate(kind)
			if err != nil {
				t.Fatal(err)
			}
			if err := term.Prove(t.Context(), kind, pin, der, ca); err != nil {
				t.Errorf("%s, %s: %v", of, kind, err)
			}
			if err := term.Prove(t.Context(), kind, pin, ca, ca); err == nil {
				t.Errorf("%s, %s proves another certificate", of, kind)
			}
		}
		pull()
		if _, err := term.SelectJPKI(t.Context()); !errors.Is(err, reader.ErrCardGone) {
			t.Errorf("%s: after the card was pulled: %v", of, err)
		}
		_ = conn.Disconnect(t.Context())
		await(t, client, 0)
		time.Sleep(reader.SwapTime)
		if _, err := client.Connect(t.Context(), "Virtual 00 00"); !errors.Is(err, reader.ErrCardGone) {
			t.Errorf("%s: without a card: %v", of, err)
		}
	}
	if _, err := client.Connect(t.Context(), "no such reader"); err == nil {
		t.Error("connected to a reader that is not there")
	}
	// A conversation that was broken off is over, and says so.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := client.Readers(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("after the context ended: %v", err)
	}
	if _, err := client.Readers(t.Context()); !errors.Is(err, reader.ErrDaemonGone) {
		t.Errorf("after that: %v", err)
	}
}

// pcscd is killed while two readers work as fast as they can: everybody learns it at once, and goes on with the same cards and counters once
// there is a new one.
func TestDaemonKilledUnderLoad(t *testing.T) {
	d := readertest.Start(t)
	cards := []*card.Card{todaysCard(t), todaysCard(t)}
	for i, c := range cards {
		insert(t, d.Slots[i], c)
	}
	for round := range 3 {
		watch := dial(t, d)
		await(t, watch, 2)
		states, err := watch.Readers(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		signed, failed := make(chan struct{}, 1), make(chan error, 2)
		for _, s := range states {
			client := dial(t, d)
			go func() {
				conn, err := client.Connect(t.Context(), s.Reader)
				for err == nil {
					term := reader.NewTerminal(conn)
					var pub crypto.PublicKey
					if pub, err = cards[0].PublicKey(jpki.CardAuth); err == nil {
						_, err = term.Request(t.Context(), jpki.CardAuth, authPIN, pub)
					}
					select {
					case signed <- struct{}{}:
					default:
					}
				}
				failed <- err
			}()
		}
		for range 5 {
			select {
			case <-signed:
			case <-time.After(patience):
				t.Fatal("nothing is signed")
			}
		}
		d.Kill()
		for range 2 {
			select {
			case err := <-failed:
				if !errors.Is(err, reader.ErrDaemonGone) && !errors.Is(err, reader.ErrCardGone) {
					t.Errorf("round %d: %v", round, err)
				}
			case <-time.After(patience):
				t.Fatal("a terminal waits for a dead pcscd")
			}
		}
		if _, err := reader.Dial(t.Context(), d.Socket); !errors.Is(err, reader.ErrDaemonGone) {
			t.Errorf("round %d: dialled a dead pcscd: %v", round, err)
		}
		d.Restart()
	}
	await(t, dial(t, d), 2)
	for _, c := range cards {
		if n, err := c.Tries(jpki.CardAuth); err != nil || n < 2 { // a PIN may have been on its way when the power went
			t.Errorf("%d tries are left, %v", n, err)
		}
	}
}

// hand is a Transmitter that gives what a fuzzer thinks of.
type hand struct{ answers []byte }

func (h *hand) Transmit(context.Context, []byte) ([]byte, error) {
	if len(h.answers) == 0 {
		return nil, reader.ErrCardGone
	}
	n := min(len(h.answers), 1+int(h.answers[0]))
	answer := h.answers[1:n]
	h.answers = h.answers[n:]
	return answer, nil
}

// Whatever a card answers, a certificate read from it has the form and the length its header says, and wrong answers are errors.
func FuzzTerminal(f *testing.F) {
	f.Add([]byte("\x02\x90\x00\x06\x30\x82\x00\x02\x90\x00\x04\x01\x02\x90\x00"))
	f.Add([]byte("\x02\x90\x00\x02\x6b\x00"))
	f.Add([]byte("\x02\x90\x00\x06\x30\x82\xff\xff\x90\x00"))
	f.Add([]byte("\x02\x61\x10\x02\x61\x00\x02\x90\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		der, err := reader.NewTerminal(&hand{b}).Certificate(t.Context(), jpki.CardAuth)
		if err == nil && (len(der) < 4 || !bytes.HasPrefix(der, []byte{0x30, 0x82}) || len(der) != 4+(int(der[2])<<8|int(der[3]))) {
			t.Errorf("read %X", der)
		}
		if n, err := reader.NewTerminal(&hand{b}).Tries(t.Context(), jpki.CardAuth); err == nil && (n < 0 || n > 15) {
			t.Errorf("%d tries", n)
		}
		_, _ = reader.NewTerminal(&hand{b}).MakeKey(t.Context(), jpki.CardAuth)
	})
}
