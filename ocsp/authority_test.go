package ocsp_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ocsp"
	"github.com/openjpki/jpki/ocsp/status"
)

// now is when tests without external tools take place: a second and a half, so that truncation shows.
var now = time.Date(2026, 4, 1, 3, 0, 0, 500_000_000, time.UTC)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func diff(want, got any) string {
	return cmp.Diff(want, got, cmpopts.EquateComparable(jpki.Serial{}))
}

func marshalKey(t testing.TB, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// The RSA keys are made once: they are slow.
var rsaKeys = sync.OnceValue(func() (k [2]crypto.Signer) {
	for i := range k {
		k[i] = must(rsa.GenerateKey(rand.Reader, 2048))
	}
	return k
})

func rsaKey(i int) crypto.Signer { return rsaKeys()[i] }
func p256() crypto.Signer        { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) }
func p384() crypto.Signer        { return must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)) }

// An authority is one generation of a CA; all made here have the same name.
type authority struct {
	id   jpki.IssuerID
	key  crypto.Signer
	cert *x509.Certificate
	at   time.Time
}

func newAuthority(id jpki.IssuerID, key crypto.Signer, at time.Time) *authority {
	a := &authority{id: id, key: key, at: at}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(int64(id.Generation)), Subject: pkix.Name{Country: []string{"JP"}, Organization: []string{"JPKI-TEST"}, OrganizationalUnit: []string{"for digital signature"}},
		NotBefore: at.Add(-24 * time.Hour), NotAfter: at.Add(10 * 365 * 24 * time.Hour),
		BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	a.cert = a.issue(tmpl, key)
	return a
}

// issue signs a certificate; the first is the authority's own.
func (a *authority) issue(tmpl *x509.Certificate, key crypto.Signer) *x509.Certificate {
	parent := a.cert
	if parent == nil {
		parent = tmpl
	}
	return must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, tmpl, parent, key.Public(), a.key))))
}

var noCheck = pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 5}, Value: []byte{5, 0}}

// delegateTemplate is a proper delegate; tests spoil it.
func (a *authority) delegateTemplate() *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(4711), Subject: pkix.Name{Country: []string{"JP"}, CommonName: "OCSP responder"},
		NotBefore: a.at.Add(-time.Hour), NotAfter: a.at.Add(24 * time.Hour).Truncate(time.Second),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning},
		ExtraExtensions: []pkix.Extension{noCheck}, BasicConstraintsValid: true,
	}
}

func (a *authority) delegate(key crypto.Signer) ocsp.Delegate {
	return ocsp.Delegate{Issuer: a.id, IssuerCertificate: a.cert, Certificate: a.issue(a.delegateTemplate(), key), Key: key}
}

// subscriber issues an ordinary certificate.
func (a *authority) subscriber(serial jpki.Serial) *x509.Certificate {
	return a.issue(&x509.Certificate{
		SerialNumber: serial.Big(), Subject: pkix.Name{CommonName: "subscriber"},
		NotBefore: a.at.Add(-time.Minute), NotAfter: a.at.Add(24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
	}, p256())
}

func newSerial() jpki.Serial { return must(jpki.NewSerial(rand.Reader)) }

// statusLog is an append-only log in memory, which an Index follows.
type statusLog struct {
	mu      sync.Mutex
	entries []jpki.StatusChange
	broken  bool
}

func (l *statusLog) StatusChanges(_ context.Context, after int64, limit int) ([]jpki.StatusChange, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken {
		return nil, errors.New("the log is down")
	}
	out := l.entries[after:]
	return out[:min(limit, len(out))], nil
}

func (l *statusLog) add(a *authority, serial jpki.Serial, st jpki.Status) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries = append(l.entries, jpki.StatusChange{Seq: int64(len(l.entries) + 1), ID: jpki.CertID{Issuer: a.id, Serial: serial}, Status: st})
}

// A world is a responder on a real listener with an authority of two generations behind it.
type world struct {
	first, second *authority
	delegates     []ocsp.Delegate
	log           *statusLog
	clock         *clock
	responder     *ocsp.Responder
	url           string

	good, hold, revoked, discarded, never jpki.Serial // of the first generation
	sinceHold, sinceRevoked               time.Time
}

// A clock stands still unless it is told to run.
type clock struct {
	mu  sync.Mutex
	at  time.Time
	run bool
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.run {
		return time.Now()
	}
	return c.at
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

type option func(*world, *ocsp.Config)

func newWorld(t testing.TB, first, second, responder crypto.Signer, at time.Time, options ...option) *world {
	t.Helper()
	w := &world{log: new(statusLog), clock: &clock{at: at}}
	w.first = newAuthority(jpki.IssuerID{CA: jpki.SignCA, Generation: 1}, first, at)
	w.second = newAuthority(jpki.IssuerID{CA: jpki.SignCA, Generation: 2}, second, at)
	w.delegates = []ocsp.Delegate{w.first.delegate(responder), w.second.delegate(p256())}
	w.good, w.hold, w.revoked, w.discarded, w.never = newSerial(), newSerial(), newSerial(), newSerial(), newSerial()
	w.sinceHold, w.sinceRevoked = at.Add(-2*time.Hour).Truncate(time.Second), at.Add(-time.Hour).Truncate(time.Second)
	for _, s := range []jpki.Serial{w.good, w.hold, w.revoked, w.discarded} {
		w.log.add(w.first, s, jpki.Status{State: jpki.Good, Since: at.Add(-3 * time.Hour), Version: 1})
	}
	w.log.add(w.second, w.never, jpki.Status{State: jpki.Good, Since: at.Add(-3 * time.Hour), Version: 1})
	w.log.add(w.first, w.hold, jpki.Status{State: jpki.Suspended, Reason: jpki.CertificateHold, Cause: jpki.Lost, Since: w.sinceHold, Version: 2})
	w.log.add(w.first, w.revoked, jpki.Status{State: jpki.Revoked, Reason: jpki.AffiliationChanged, Cause: jpki.Moved, Since: w.sinceRevoked, Version: 2})
	w.log.add(w.first, w.discarded, jpki.Status{State: jpki.Revoked, Reason: jpki.Unspecified, Cause: jpki.Discarded, Since: w.sinceRevoked, Version: 2})
	index := must(status.New(status.Config{Log: w.log, Now: w.clock.now}))
	cfg := ocsp.Config{Delegates: w.delegates, Statuses: index, Now: w.clock.now, Prefix: "/ocsp"}
	for _, o := range options {
		o(w, &cfg)
	}
	w.responder = must(ocsp.New(cfg))
	server := httptest.NewServer(w.responder.Before(http.NewServeMux())) // the mux would clean paths
	t.Cleanup(server.Close)
	w.url = server.URL + "/ocsp"
	return w
}

// statusesFunc answers for a source that misbehaves in a way the index cannot.
type statusesFunc func(context.Context, jpki.CertID) (jpki.Status, time.Time, error)

func (f statusesFunc) Status(ctx context.Context, id jpki.CertID) (jpki.Status, time.Time, error) {
	return f(ctx, id)
}

func writePEM(t testing.TB, name, kind string, der []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// tool returns an external program's path. Without it the test is skipped, or fails where all tools are required.
func tool(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err == nil {
		return path
	}
	if os.Getenv("JPKI_TEST_REQUIRE") == "1" {
		t.Fatal(err)
	}
	t.Skip(err)
	return ""
}

// vectors returns a folder of the public test vectors. Without it the test is skipped.
func vectors(t testing.TB, name string) string {
	t.Helper()
	root := os.Getenv("JPKI_VECTORS")
	if root == "" {
		root = filepath.Join("..", "..", "shared", "vectors") // beside the repository
	}
	dir := filepath.Join(root, name)
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("no test vectors (set JPKI_VECTORS): %v", err)
	}
	return dir
}
