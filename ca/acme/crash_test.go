package acme_test

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/audit"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/ca/store/storetest"
)

// A crashOrder is what the helper program ca/acme/crashtest reads, and what it tells.
type crashOrder struct {
	Database     string
	Issuers      []crashPair
	Infra, Maker crashPair
	Provisioner  []byte
	Account      []byte
	Phone        []byte
	Holder       string
	Token        string
	Parent       jpki.CertID
	crashTold
}

type crashPair struct{ Certificate, Key []byte }

type crashTold struct {
	KeyID       string
	Key         []byte
	Order       string
	Certificate []byte
}

// crashStep is how many places are passed over for one at which the process is killed. PostgreSQL's commits are what differs
// there, and they are met all the same.
var crashStep = map[bool]int{true: 1, false: 5} // SQLite

// TestCrash kills authority and phone before and after every write, commit and signature between the beginning of an enrolment
// and the certificate, one after the other, each time on a fresh database. What the next process finds must be in order, and
// the phone that goes on with what it remembers must get one certificate.
func TestCrash(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "crashtest")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-tags", "crashtest nomsgpack nobadger nomysql nobbolt nopgx", "-o", program, "./crashtest").CombinedOutput(); err != nil {
		t.Fatalf("build the helper program: %v\n%s", err, out)
	}
	storetest.EachCopied(t, func(t *testing.T, database string, again func(*testing.T) string) {
		w := newWorld(t, storetest.Create(t, database))
		pkcs8 := func(key any) []byte { return must(x509.MarshalPKCS8PrivateKey(key)) }
		o := crashOrder{
			Infra: crashPair{w.infra.Raw, pkcs8(w.infraKey)}, Maker: crashPair{w.makers["step"].root.Raw, pkcs8(w.makers["step"].key)}, Provisioner: provisioners()[0].public,
			Account: pkcs8(newKey()), Phone: pkcs8(phoneKey(2)), Holder: "h1", Token: "phone-1", Parent: w.card(t, "h1", 0),
		}
		for _, i := range w.issuers {
			o.Issuers = append(o.Issuers, crashPair{i.Certificate.Raw, pkcs8(i.Signer.(*rsa.PrivateKey))})
		}
		w.close()
		if err := w.db.Close(); err != nil {
			t.Fatal(err)
		}
		step := crashStep[strings.HasPrefix(database, "sqlite:")]
		n, died := step, 0
		for done := false; !done && !t.Failed(); n += step {
			t.Run(fmt.Sprint(n), func(t *testing.T) { done = crash(t, program, n, again(t), o) })
			died++
		}
		t.Logf("died at %d places", died-1)
		if died*step < 30 {
			t.Error("so few? the crash points are not where they should be")
		}
	})
}

// crash runs an order until its n-th place, and then to its end, twice. It returns whether the first had come there by itself.
func crash(t *testing.T, program string, n int, database string, o crashOrder) (done bool) {
	t.Helper()
	o.Database = database
	place, died := o.run(t, program, n)
	if !died && len(o.Certificate) == 0 {
		t.Fatal("it ended without a certificate")
	}
	db := storetest.Open(t, database)
	order := func(when string) {
		t.Helper()
		if _, err := audit.Verify(db.AuditEntries(t.Context()), nil); err != nil {
			t.Errorf("%s, %s: %v", place, when, err)
		}
		live := 0
		if err := db.View(t.Context(), func(tx *store.Tx) error {
			all, err := tx.CertificatesOf("h1")
			for _, c := range all {
				if c.Kind == jpki.PhoneAuth {
					live++
				}
			}
			return err
		}); err != nil || live > 1 {
			t.Errorf("%s, %s: %d certificates for one key, %v", place, when, live, err)
		}
	}
	order("found")
	var first []byte
	for _, when := range []string{"gone on", "asked again"} {
		if _, died := o.run(t, program, 0); died || len(o.Certificate) == 0 {
			t.Fatalf("%s, %s: no certificate", place, when)
		}
		order(when)
		if first == nil {
			first = o.Certificate
		}
		if !bytes.Equal(first, o.Certificate) {
			t.Errorf("%s, %s: another certificate", place, when)
		}
	}
	if err := db.View(t.Context(), func(tx *store.Tx) error {
		all, err := tx.CertificatesOf("h1")
		for _, c := range all {
			if c.Kind == jpki.PhoneAuth && (!bytes.Equal(c.DER, first) || c.Status.State != jpki.Good) {
				t.Errorf("%s: what is recorded is not what the phone has, or is %s", place, c.Status.State)
			}
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return !died
}

// run starts the helper program. The order then has what the phone remembers.
func (o *crashOrder) run(t *testing.T, program string, n int) (place string, died bool) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program)
	cmd.Env = append(os.Environ(), fmt.Sprint("JPKI_CRASH_AT=", n))
	cmd.Stdin = bytes.NewReader(must(json.Marshal(o)))
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	err := cmd.Run()
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		if status, ok := exit.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
			t.Fatalf("%d: %v\n%s", n, err, &stderr)
		}
	} else if err != nil {
		t.Fatal(err)
	}
	for dec := json.NewDecoder(&out); dec.More(); {
		if err := dec.Decode(&o.crashTold); err != nil {
			t.Fatal(err)
		}
	}
	return strings.TrimSpace(stderr.String()), err != nil
}
