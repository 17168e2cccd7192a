package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	xocsp "golang.org/x/crypto/ocsp"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/cmd/internal/boot"
)

// The tests run jpki-status as people do, as a process of its own, beside a database that they change as the authority does.

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"jpki-status": func() {
		go endWithParent(os.Getppid())
		main()
	}})
}

// endWithParent ends a process whose test is gone.
func endWithParent(parent int) {
	for os.Getppid() == parent {
		time.Sleep(200 * time.Millisecond)
	}
	os.Exit(boot.ExitFailure)
}

// forever bounds every wait. Nothing is asserted about speed.
const forever = time.Minute

var issuerID = jpki.IssuerID{CA: jpki.SignCA, Generation: 1}

// A world is an authority's certificate, key and database, and a directory for a server's files.
type world struct {
	t        testing.TB
	dir      string
	database string
	db       *store.Store // nil if there is no database
	ca       *x509.Certificate
	key      crypto.Signer
}

func newKey(t testing.TB, alg string) (key crypto.Signer) {
	t.Helper()
	var err error
	if alg == "RSA" {
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	} else {
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// newWorld makes a world whose authority signs with alg: RSA or P-256.
func newWorld(t testing.TB, database, alg string) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), database: database, key: newKey(t, alg)}
	w.ca = w.certify(w.key.Public(), &x509.Certificate{Subject: pkix.Name{CommonName: "JPKI-SANDBOX status test"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign})
	w.write("ca.cer", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: w.ca.Raw}))
	if database != "" {
		db, err := store.Create(t.Context(), database)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = db.Close() })
		w.db = db
	}
	return w
}

// certify has the authority sign a certificate, its own if there is none yet.
func (w *world) certify(public crypto.PublicKey, c *x509.Certificate) *x509.Certificate {
	w.t.Helper()
	if c.SerialNumber == nil {
		c.SerialNumber = newSerial(w.t).Big()
	}
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	parent := w.ca
	if parent == nil {
		parent = c
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, public, w.key)
	if err != nil {
		w.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		w.t.Fatal(err)
	}
	return cert
}

// delegate writes a responder's key and certificate to NAME.key and NAME.cer. It replaces them whole.
func (w *world) delegate(name, alg string) *x509.Certificate {
	w.t.Helper()
	key := newKey(w.t, alg)
	cert := w.certify(key.Public(), &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning},
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 5}, Value: []byte{5, 0}}}, // nocheck
	})
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		w.t.Fatal(err)
	}
	w.write(name+".key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	w.write(name+".cer", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))
	return cert
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

func (w *world) write(name string, text []byte) string {
	w.t.Helper()
	path := w.path(name)
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		w.t.Fatal(err)
	}
	return path
}

// config writes a configuration: fields with their values as YAML has them, instead of or beside the usual ones.
func (w *world) config(fields map[string]string, delegates ...string) string {
	w.t.Helper()
	all := map[string]string{"listen": "127.0.0.1:0", "admin": "127.0.0.1:0", "database": strconv.Quote(w.database), "snapshot": "status.snapshot"}
	maps.Copy(all, fields)
	list := ""
	for _, d := range delegates {
		list += fmt.Sprintf("\n  - {issuer: sign-1, issuer_certificate: ca.cer, certificate: %s.cer, key: 'file:%[1]s.key'}", d)
	}
	if _, given := all["delegates"]; !given {
		all["delegates"] = list
	}
	text := ""
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if all[name] != "" {
			text += name + ": " + all[name] + "\n"
		}
	}
	return w.write("status.yaml", []byte(text))
}

// set gives certificates a state: their first, or the next.
func (w *world) set(st jpki.Status, serials ...jpki.Serial) {
	w.t.Helper()
	err := w.db.Update(w.t.Context(), func(tx *store.Tx) error {
		for _, s := range serials {
			c := jpki.StatusChange{ID: jpki.CertID{Issuer: issuerID, Serial: s}, Status: st, Partition: "99101", NotAfter: time.Now().Add(24 * time.Hour)}
			c.Status.Since = time.Now().Truncate(time.Second).UTC()
			old, err := tx.Status(c.ID)
			if errors.Is(err, jpki.UnknownCertificate) {
				err = tx.AddStatus(c)
			} else if err == nil {
				c.Status.Version = old.Status.Version + 1
				err = tx.SetStatus(c)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

var (
	good      = jpki.Status{State: jpki.Good}
	suspended = jpki.Status{State: jpki.Suspended, Reason: jpki.CertificateHold, Cause: jpki.Lost}
	revoked   = jpki.Status{State: jpki.Revoked, Reason: jpki.AffiliationChanged, Cause: jpki.Moved}
)

func newSerial(t testing.TB) jpki.Serial {
	t.Helper()
	s, err := jpki.NewSerial(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// jpkiStatus runs the program to its end.
func jpkiStatus(t testing.TB, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), forever)
	defer cancel()
	cmd := exec.CommandContext(ctx, "jpki-status", args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		if _, ok := errors.AsType[*exec.ExitError](err); !ok {
			t.Fatal(err)
		}
	}
	return out.String(), errOut.String(), cmd.ProcessState.ExitCode()
}

// A server is a running jpki-status.
type server struct {
	w            *world
	cmd          *exec.Cmd
	url, admin   string // of OCSP, with the prefix, and of the admin address
	certificates int    // that it knew of when it began
	ended        chan struct{}

	mu  sync.Mutex
	log strings.Builder
}

// serve starts the program and returns once it listens.
func (w *world) serve(config string) *server {
	w.t.Helper()
	s := &server{w: w, cmd: exec.Command("jpki-status", "-config", config), ended: make(chan struct{})}
	out, err := s.cmd.StderrPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	serving := make(chan struct{})
	go func() {
		defer close(s.ended)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			s.mu.Lock()
			s.log.WriteString(lines.Text() + "\n")
			s.mu.Unlock()
			var said struct {
				Msg, OCSP, Admin string
				Certificates     int
			}
			if json.Unmarshal(lines.Bytes(), &said) == nil && said.Msg == "serving" {
				s.url, s.admin, s.certificates = "http://"+said.OCSP+"/ocsp", "http://"+said.Admin, said.Certificates
				close(serving)
			}
		}
		_ = s.cmd.Wait()
	}()
	w.t.Cleanup(func() {
		_ = s.cmd.Process.Kill()
		<-s.ended
		if w.t.Failed() || strings.Contains(s.said(), "DATA RACE") {
			w.t.Errorf("jpki-status: %s\n%s", s.cmd.ProcessState, s.said())
		}
	})
	select {
	case <-serving:
	case <-s.ended:
		w.t.Fatalf("jpki-status ended: %s\n%s", s.cmd.ProcessState, s.said())
	case <-time.After(forever):
		w.t.Fatal("jpki-status does not begin to serve")
	}
	return s
}

func (s *server) said() string { s.mu.Lock(); defer s.mu.Unlock(); return s.log.String() }

// stop asks the server to end and returns its exit code.
func (s *server) stop() int {
	s.w.t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		s.w.t.Fatal(err)
	}
	select {
	case <-s.ended:
	case <-time.After(forever):
		s.w.t.Fatal("jpki-status does not stop")
	}
	return s.cmd.ProcessState.ExitCode()
}

// get asks the admin address.
func (s *server) get(path string) (code int, body string) {
	s.w.t.Helper()
	resp, err := http.Get(s.admin + path)
	if err != nil {
		s.w.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		s.w.t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// until waits for a condition.
func (s *server) until(what string, f func() bool) {
	s.w.t.Helper()
	for deadline := time.Now().Add(forever); !f(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.w.t.Fatalf("never: %s", what)
		}
		select {
		case <-s.ended:
			s.w.t.Fatalf("jpki-status ended: %s", s.cmd.ProcessState)
		default:
		}
	}
}

// ask asks about a certificate with another library's client, which checks the signature.
func (s *server) ask(serial jpki.Serial) (*xocsp.Response, error) {
	req, err := (&xocsp.Request{HashAlgorithm: crypto.SHA1, IssuerNameHash: s.w.nameHash(), IssuerKeyHash: s.w.keyHash(), SerialNumber: serial.Big()}).Marshal()
	if err != nil {
		return nil, err
	}
	resp, err := http.Post(s.url, "application/ocsp-request", bytes.NewReader(req))
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	der, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	return xocsp.ParseResponseForCert(der, &x509.Certificate{SerialNumber: serial.Big()}, s.w.ca)
}

// want fails unless a certificate has a state, as another library reads it.
func (s *server) want(serial jpki.Serial, status, reason int) {
	s.w.t.Helper()
	got, err := s.ask(serial)
	if err != nil {
		s.w.t.Errorf("%s: %v", serial, err)
	} else if got.Status != status || got.RevocationReason != reason {
		s.w.t.Errorf("%s: status %d, reason %d; want %d, %d", serial, got.Status, got.RevocationReason, status, reason)
	}
}

func (w *world) nameHash() []byte {
	h := crypto.SHA1.New()
	h.Write(w.ca.RawSubject)
	return h.Sum(nil)
}

func (w *world) keyHash() []byte {
	var spki struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(w.ca.RawSubjectPublicKeyInfo, &spki); err != nil {
		w.t.Fatal(err)
	}
	h := crypto.SHA1.New()
	h.Write(spki.Key.RightAlign())
	return h.Sum(nil)
}
