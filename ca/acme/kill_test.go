package acme_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/store/storetest"
)

// A mortalOrder is what the process that will be killed needs to stand in for a world.
type mortalOrder struct {
	Database, Address string
	Infra, Makers     [][]byte // certificates
	Keys              [][]byte // the infrastructure CA's, then the issuers'; PKCS #8
	Issuers           [][]byte
}

// mortal makes a world's parts those of an order, on its address.
func (o mortalOrder) mortal(w *world) {
	parse := func(der []byte) *x509.Certificate { return must(x509.ParseCertificate(der)) }
	key := func(n int) crypto.Signer { return must(x509.ParsePKCS8PrivateKey(o.Keys[n])).(crypto.Signer) }
	w.infra, w.infraKey = parse(o.Infra[0]), key(0).(*ecdsa.PrivateKey)
	w.makers = map[string]*maker{"step": {root: parse(o.Makers[0])}, "apple": {root: parse(o.Makers[1])}, "android-key": {root: parse(o.Makers[2])}}
	for i := range w.issuers {
		w.issuers[i].Certificate, w.issuers[i].Signer = parse(o.Issuers[i]), key(1+i)
	}
	w.address = o.Address
}

// fatal is a signing key whose process dies with its first signature made.
type fatal struct{ crypto.Signer }

func (f fatal) Sign(r io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	if _, err := f.Signer.Sign(r, digest, o); err != nil {
		return nil, err
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

// TestMortal is the process that TestKilledBetweenSignatureAndRecord kills.
func TestMortal(t *testing.T) {
	text := os.Getenv("JPKI_TEST_MORTAL")
	if text == "" {
		t.Skip("a part of TestKilledBetweenSignatureAndRecord")
	}
	var o mortalOrder
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		t.Fatal(err)
	}
	openWorld(t, storetest.Open(t, o.Database), func(w *world) {
		o.mortal(w)
		for i := range w.issuers {
			w.issuers[i].Signer = fatal{w.issuers[i].Signer}
		}
	})
	time.Sleep(time.Minute)
}

// Killed when the key has signed and nothing says so, the authority ends what was begun, and the phone that asks again gets
// one certificate, another.
func TestKilledBetweenSignatureAndRecord(t *testing.T) {
	storetest.EachEngine(t, func(t *testing.T, fresh func(*testing.T) string) {
		database := fresh(t)
		l := must((&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0"))
		address := l.Addr().String()
		_ = l.Close()
		first := openWorld(t, storetest.Create(t, database), func(w *world) { w.address = address })
		p := first.phone(t, "app-1", "step").joined(first.invite(t, first.card(t, "h1", 0), jpki.PhoneAuth))
		o := p.ready(phoneKey(2))
		order := mortalOrder{
			Database: database, Address: address, Infra: [][]byte{first.infra.Raw}, Makers: [][]byte{first.makers["step"].root.Raw, first.makers["apple"].root.Raw, first.makers["android-key"].root.Raw},
			Keys: [][]byte{must(x509.MarshalPKCS8PrivateKey(first.infraKey))},
		}
		for _, i := range first.issuers {
			order.Issuers, order.Keys = append(order.Issuers, i.Certificate.Raw), append(order.Keys, must(x509.MarshalPKCS8PrivateKey(i.Signer.(*rsa.PrivateKey))))
		}
		first.close()
		p.client.HTTPClient = &http.Client{Transport: first.as(nil)}

		child := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestMortal$") //nolint:gosec // this program itself
		child.Env = append(os.Environ(), "JPKI_TEST_MORTAL="+string(must(json.Marshal(order))))
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		for try := 0; ; try++ {
			c, err := (&tls.Dialer{Config: first.as(nil).TLSClientConfig}).DialContext(t.Context(), "tcp", address)
			if err == nil {
				_ = c.Close()
				break
			}
			if try == 300 {
				t.Fatal("the process does not come up:", err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if _, err := p.finalize(o, csr(phoneKey(2), "")); err == nil {
			t.Fatal("the process lives")
		}
		exit := new(exec.ExitError)
		if err := child.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatal(err)
		}

		again := openWorld(t, first.db, order.mortal)
		other := csr(phoneKey(2), jpki.PhoneAuth) // the phone makes its request anew; the first counts
		if _, err := p.finalize(o, other); problemOf(err) != "in-progress" {
			t.Errorf("before anybody has cleaned up: %v", err)
		}
		if n, err := again.authority.Reconcile(t.Context(), 0); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		chain, err := p.finalize(o, other)
		if err != nil {
			t.Fatal(err)
		}
		rows := again.certificates(t)[jpki.PhoneAuth]
		if len(rows) != 1 || string(rows[0].DER) != string(chain[0].Raw) || again.state(t, rows[0].ID) != "good" {
			t.Errorf("recorded: %+v", rows)
		}
		// Killed a little later, behind Issue, before the order says so.
		storetest.Exec(t, database, `UPDATE acme_order SET status = 'ready', cert_issuer = NULL, cert_serial = NULL`)
		if got, err := p.finalize(o, other); err != nil || !got[0].Equal(chain[0]) {
			t.Errorf("after a death behind the issuance: %v", err)
		}
		burnt := again.audited(t, "issue.abandoned")
		if len(burnt) != 1 {
			t.Errorf("audited: %q", burnt)
		}
	})
}
