package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	xocsp "golang.org/x/crypto/ocsp"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/api"
	"github.com/openjpki/jpki/ca/ceremony"
	"github.com/openjpki/jpki/ca/client"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/ca/store/storetest"
	"github.com/openjpki/jpki/cmd/internal/boot"
	"github.com/openjpki/jpki/ocsp"
)

// An office is an authority with its API on a TLS listener, on a clock that the test moves.
type office struct {
	t         *testing.T
	dir       string
	database  string
	db        *store.Store
	authority *ca.Authority
	handler   http.Handler
	infra     *ceremony.Signer
	issuers   []ca.Issuer

	mu     sync.Mutex
	at     time.Time
	away   bool
	server *http.Server
	addr   string
}

func (o *office) now() time.Time { o.mu.Lock(); defer o.mu.Unlock(); return o.at }

func (o *office) advance(d time.Duration) { o.mu.Lock(); defer o.mu.Unlock(); o.at = o.at.Add(d) }

// absent has the authority answer or not, as if its machine were off.
func (o *office) absent(away bool) { o.mu.Lock(); defer o.mu.Unlock(); o.away = away }

var systemActor = jpki.Actor{Role: jpki.System, ID: "test"}

func newOffice(t *testing.T) *office {
	t.Helper()
	o := &office{t: t, dir: t.TempDir(), at: time.Now()}
	o.database = "sqlite:" + filepath.Join(o.dir, "ca.db")
	o.db = storetest.Create(t, o.database)
	for _, name := range jpki.CAs {
		key := newKey(t, "RSA")
		cert, err := ca.SelfSigned(ca.Sandbox(), name, key, newSerial(t), o.now())
		if err != nil {
			t.Fatal(err)
		}
		id := jpki.IssuerID{CA: name, Generation: 1}
		o.issuers = append(o.issuers, ca.Issuer{ID: id, Certificate: cert, Signer: key})
		if err := o.db.Update(t.Context(), func(tx *store.Tx) error {
			return tx.AddGeneration(store.Generation{Issuer: id, Certificate: cert.Raw, Active: true}, o.now())
		}); err != nil {
			t.Fatal(err)
		}
		o.write(id.String()+".cer", cert.Raw)
	}
	infraKey := newKey(t, "P-256")
	infra, err := ceremony.NewInfrastructure(infraKey, newSerial(t), o.now())
	if err != nil {
		t.Fatal(err)
	}
	if o.infra, err = ceremony.NewSigner(infra, infraKey, o.now); err != nil {
		t.Fatal(err)
	}
	o.write("infra.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: infra.Raw}))
	pool := x509.NewCertPool()
	pool.AddCert(infra)
	if o.authority, err = ca.New(ca.Config{
		Store: o.db, Profile: ca.Sandbox(), Issuers: o.issuers, StatusURL: "http://status.example", Now: o.now, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler), StationCAs: pool,
	}); err != nil {
		t.Fatal(err)
	}
	if o.handler, err = api.New(api.Config{
		Authority: o.authority, NewID: rand.Text, Now: o.now, Log: slog.New(slog.DiscardHandler),
		Delegate: func(_ context.Context, id jpki.IssuerID, serial jpki.Serial, request []byte) (*x509.Certificate, error) {
			i := slices.IndexFunc(o.issuers, func(i ca.Issuer) bool { return i.ID == id })
			s, err := ceremony.NewSigner(o.issuers[i].Certificate, o.issuers[i].Signer, o.now)
			if err != nil {
				return nil, err
			}
			return s.CertifyResponder(request, id, serial)
		},
	}); err != nil {
		t.Fatal(err)
	}
	o.listen()
	if err := os.Mkdir(filepath.Join(o.dir, "delegates"), 0o700); err != nil {
		t.Fatal(err)
	}
	return o
}

// listen serves the API over TLS. While the office is absent connections break.
func (o *office) listen() {
	o.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		o.t.Fatal(err)
	}
	o.addr = l.Addr().String()
	o.server = &http.Server{
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug), ReadHeaderTimeout: forever,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			o.mu.Lock()
			away := o.away
			o.mu.Unlock()
			if away {
				panic(http.ErrAbortHandler)
			}
			o.handler.ServeHTTP(w, r)
		}),
		TLSConfig: &tls.Config{
			MinVersion: tls.VersionTLS12, ClientAuth: tls.RequestClientCert, Time: o.now,
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { // renewed by whoever runs it
				key := newKey(o.t, "P-256")
				cert, err := o.infra.Server(key, "authority", "127.0.0.1")
				if err != nil {
					return nil, err
				}
				return &tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}, nil
			},
		},
	}
	ended := make(chan struct{})
	go func() { _ = o.server.ServeTLS(l, "", ""); close(ended) }()
	o.t.Cleanup(func() { _ = o.server.Close(); <-ended })
}

func (o *office) path(name string) string { return filepath.Join(o.dir, name) }

func (o *office) write(name string, text []byte) {
	o.t.Helper()
	if err := os.WriteFile(o.path(name), text, 0o600); err != nil {
		o.t.Fatal(err)
	}
}

// enrol gives a client of the API a key and a certificate, NAME.key and NAME.pem, and enrols it unless the role is "".
func (o *office) enrol(name string, role jpki.Role) *tls.Certificate {
	o.t.Helper()
	key := newKey(o.t, "P-256")
	cert, err := o.infra.Station(key, name)
	if err != nil {
		o.t.Fatal(err)
	}
	if role != "" {
		actor := jpki.Actor{Role: role, ID: name}
		if role == jpki.Counter {
			actor.Municipality = "99101"
		}
		if err := o.authority.Enrol(o.t.Context(), systemActor, actor, cert); err != nil {
			o.t.Fatal(err)
		}
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		o.t.Fatal(err)
	}
	o.write(name+".key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	o.write(name+".pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))
	return &tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
}

// settings are the configuration of a status server that has its keys certified here.
func (o *office) settings() string {
	text := fmt.Sprintf("listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\ndatabase: %q\n", o.database)
	text += fmt.Sprintf("authority: {url: 'https://%s', ca: infra.pem, certificate: status-1.pem, key: 'file:status-1.key', folder: delegates}\ndelegates:\n", o.addr)
	for _, i := range o.issuers {
		text += fmt.Sprintf("  - {issuer: %[1]s, issuer_certificate: %[1]s.cer}\n", i.ID)
	}
	o.write("status.yaml", []byte(text))
	return o.path("status.yaml")
}

// entries returns what the audit record says was done in a way.
func (o *office) entries(action string) (n int) {
	o.t.Helper()
	if err := o.db.View(o.t.Context(), func(tx *store.Tx) error {
		for e, err := range tx.AuditEntries() {
			if err != nil {
				return err
			}
			if e.Action == action {
				n++
			}
		}
		return nil
	}); err != nil {
		o.t.Fatal(err)
	}
	return n
}

type goodAlways struct{ now func() time.Time }

func (g goodAlways) Status(context.Context, jpki.CertID) (jpki.Status, time.Time, error) {
	return jpki.Status{State: jpki.Good, Since: g.now().Add(-time.Hour), Version: 1}, g.now(), nil
}

// A status server renews its delegates through the authority's API, over several lives of a certificate: there is always an
// answer, and none by a delegate that has ended. The authority may be away for days; when it stays away, the old ones are used to
// their end and then nothing is signed.
func TestDelegatesAreRenewed(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	o.enrol("status-1", jpki.Responder)
	c, err := readConfig(o.settings())
	if err != nil {
		t.Fatal(err)
	}
	c.now = o.now
	var responder *ocsp.Responder
	use := func(all []ocsp.Delegate) (err error) {
		if responder == nil {
			responder, err = ocsp.New(c.answers(all, goodAlways{o.now}, nil))
			return err
		}
		return responder.SetDelegates(all)
	}
	k, err := c.keeper(t.Context(), use)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Look(t.Context()); err != nil {
		t.Fatal(err)
	}
	signers := map[string]bool{}
	serial := newSerial(t)
	ask := func() (signed bool) {
		t.Helper()
		answers := 0
		for _, i := range o.issuers {
			der, err := xocsp.CreateRequest(&x509.Certificate{SerialNumber: serial.Big()}, i.Certificate, &xocsp.RequestOptions{Hash: crypto.SHA256})
			if err != nil {
				t.Fatal(err)
			}
			reply := responder.Exchange(t.Context(), &ocsp.Query{Request: der})
			got, err := xocsp.ParseResponse(reply.Body, i.Certificate)
			if refused := (xocsp.ResponseError{}); errors.As(err, &refused) && refused.Status == xocsp.TryLater {
				continue
			}
			if err != nil || got.Status != xocsp.Good {
				t.Fatalf("%s: %v", i.ID, err)
			}
			if at := o.now(); got.Certificate.NotAfter.Before(at) || got.Certificate.NotBefore.After(at) || got.NextUpdate.After(got.Certificate.NotAfter) {
				t.Errorf("%s at %v: signed by one valid from %v to %v, for until %v", i.ID, at, got.Certificate.NotBefore, got.Certificate.NotAfter, got.NextUpdate)
			}
			signers[string(got.Certificate.Raw)] = true
			answers++
		}
		if answers == 1 {
			t.Error("one issuer's answers without the other's")
		}
		return answers == 2
	}
	// 150 days in steps of 6 hours; the authority is away for 3 of every 4 days, and the server starts anew now and then.
	for step := range 600 {
		o.absent(step > 0 && step%16 >= 4)
		if step%320 == 300 { // its identity is renewed by other means
			o.absent(false)
			o.enrol("status-1", jpki.Responder)
		}
		if step%100 == 50 {
			if k, err = c.keeper(t.Context(), use); err != nil {
				t.Fatal(err)
			}
		}
		_ = k.Look(t.Context())
		if !ask() {
			t.Fatalf("day %d: no answer", step/4)
		}
		o.advance(6 * time.Hour)
	}
	if len(signers) < 12 || len(signers) > 20 || o.entries("delegate.certified") != len(signers) {
		t.Errorf("%d signers, %d certified", len(signers), o.entries("delegate.certified"))
	}
	// Old keys are thrown away.
	files, err := os.ReadDir(o.path("delegates"))
	if err != nil || len(files) > 8 {
		t.Errorf("%d files, %v", len(files), err)
	}
	// It stays away.
	o.absent(true)
	end := k.Delegates()[0].Certificate.NotAfter
	for _, d := range k.Delegates() {
		if d.Certificate.NotAfter.Before(end) {
			end = d.Certificate.NotAfter
		}
	}
	o.advance(end.Sub(o.now()) - time.Minute)
	if err := k.Look(t.Context()); err == nil || !errors.Is(err, jpki.Unavailable) {
		t.Errorf("away: %v", err)
	}
	if !ask() {
		t.Error("a minute before its end the old delegate answers no more")
	}
	o.advance(60 * 24 * time.Hour)
	if k, err = c.keeper(t.Context(), use); err != nil { // a restart meanwhile
		t.Fatal(err)
	}
	if err := k.Look(t.Context()); err == nil || ask() {
		t.Error("answers after all delegates have ended")
	}
	files, _ = os.ReadDir(o.path("delegates"))
	for range 20 { // trying in vain leaves nothing behind
		_ = k.Look(t.Context())
	}
	if again, _ := os.ReadDir(o.path("delegates")); len(again) != len(files) {
		t.Errorf("%d files, then %d", len(files), len(again))
	}
	o.absent(false)
	o.enrol("status-1", jpki.Responder) // its own certificate has ended, too
	if err := k.Look(t.Context()); err != nil || !ask() {
		t.Errorf("the authority is back: %v", err)
	}
}

// The program itself: it makes its delegates at the first start, goes on with them without the authority, and shows how long
// they last.
func TestServeWithDelegatesOfItsOwn(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	config := o.settings()
	if _, said, code := jpkiStatus(t, "-config", config, "-check"); code != boot.ExitUsage || !strings.Contains(said, "status-1.pem") {
		t.Errorf("without an identity: exit code %d, %s", code, said)
	}
	o.enrol("status-1", "")
	if _, said, code := jpkiStatus(t, "-config", config); code != boot.ExitFailure || !strings.Contains(said, string(jpki.UnknownStation)) {
		t.Errorf("not enrolled: exit code %d, %s", code, said)
	}
	o.enrol("status-1", jpki.Responder)
	if out, said, code := jpkiStatus(t, "-config", config, "-check"); code != 0 || out != "ok\n" {
		t.Errorf("exit code %d, %s", code, said)
	}
	w := &world{t: t, dir: o.dir, database: o.database, db: o.db, ca: o.issuers[0].Certificate, key: o.issuers[0].Signer}
	alive := newSerial(t)
	w.set(good, alive)
	s := w.serve(config)
	s.want(alive, xocsp.Good, 0)
	got, err := s.ask(alive)
	if err != nil {
		t.Fatal(err)
	}
	if _, metrics := s.get("/metrics"); !strings.Contains(metrics, "jpki_ocsp_delegate_seconds 2.5") || !strings.Contains(metrics, `jpki_ocsp_delegates_total{outcome="renewed"} 2`) {
		t.Errorf("metrics: %s", metrics)
	}
	if code := s.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	o.absent(true)
	s = w.serve(config)
	again, err := s.ask(alive)
	if err != nil || !bytes.Equal(again.Certificate.Raw, got.Certificate.Raw) {
		t.Errorf("after a restart: %v", err)
	}
	if out, said, code := jpkiStatus(t, "-config", config, "-check"); code != 0 || out != "ok\n" {
		t.Errorf("with delegates: exit code %d, %s", code, said)
	}
}

// Only an enrolled status server gets a delegate's certificate, it gets nothing else, and nothing but its key of what it asks
// for.
func TestWhoGetsADelegate(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	roots := x509.NewCertPool()
	text, err := os.ReadFile(o.path("infra.pem"))
	if err != nil || !roots.AppendCertsFromPEM(text) {
		t.Fatal(err)
	}
	as := func(cert *tls.Certificate) *client.Client {
		cfg := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
		if cert != nil {
			cfg.Certificates = []tls.Certificate{*cert}
		}
		return client.New("https://"+o.addr, cfg)
	}
	key := newKey(t, "P-256")
	request := func(template *x509.CertificateRequest, key crypto.Signer) string {
		der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
		if err != nil {
			t.Fatal(err)
		}
		return base64.StdEncoding.EncodeToString(der)
	}
	plain := request(&x509.CertificateRequest{}, key)
	forged, err := base64.StdEncoding.DecodeString(plain)
	if err != nil {
		t.Fatal(err)
	}
	forged[len(forged)-1] ^= 1
	sign := o.issuers[0].ID
	status := o.enrol("status-1", jpki.Responder)
	out := o.enrol("status-2", jpki.Responder)
	if err := o.authority.Disable(t.Context(), systemActor, "status-2"); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		who   *tls.Certificate
		order client.ResponderOrder
		want  jpki.Problem
	}{
		"nobody":            {nil, client.ResponderOrder{Issuer: sign, Request: plain}, jpki.NoClientCertificate},
		"not enrolled":      {o.enrol("stranger", ""), client.ResponderOrder{Issuer: sign, Request: plain}, jpki.UnknownStation},
		"a counter":         {o.enrol("counter", jpki.Counter), client.ResponderOrder{Issuer: sign, Request: plain}, jpki.Forbidden},
		"the register":      {o.enrol("juki", jpki.Register), client.ResponderOrder{Issuer: sign, Request: plain}, jpki.Forbidden},
		"shut out":          {out, client.ResponderOrder{Issuer: sign, Request: plain}, jpki.UnknownStation},
		"no such issuer":    {status, client.ResponderOrder{Issuer: jpki.IssuerID{CA: jpki.SignCA, Generation: 7}, Request: plain}, jpki.NotFound},
		"not its key":       {status, client.ResponderOrder{Issuer: sign, Request: base64.StdEncoding.EncodeToString(forged)}, jpki.BadRequestProof},
		"a name":            {status, client.ResponderOrder{Issuer: sign, Request: request(&x509.CertificateRequest{DNSNames: []string{"bank.example"}}, key)}, jpki.Malformed},
		"no request":        {status, client.ResponderOrder{Issuer: sign, Request: "AAAA"}, jpki.Malformed},
		"its identity":      {status, client.ResponderOrder{Issuer: sign, Request: request(&x509.CertificateRequest{}, status.PrivateKey.(crypto.Signer))}, jpki.KeyReused},
		"the authority's":   {status, client.ResponderOrder{Issuer: sign, Request: request(&x509.CertificateRequest{}, o.issuers[0].Signer)}, jpki.KeyReused},
		"a fine one, again": {status, client.ResponderOrder{Issuer: sign, Request: plain}, ""},
	} {
		got, err := as(test.who).CertifyResponder(t.Context(), test.order)
		if test.want != "" {
			if !errors.Is(err, test.want) {
				t.Errorf("%s: %v, want %s", name, err, test.want)
			}
			continue
		}
		block, _ := pem.Decode([]byte(got.Certificate))
		if err != nil || block == nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		nocheck := slices.ContainsFunc(cert.Extensions, func(e pkix.Extension) bool { return e.Id.String() == "1.3.6.1.5.5.7.48.1.5" })
		if !nocheck || cert.IsCA || len(cert.ExtKeyUsage) != 1 || cert.ExtKeyUsage[0] != x509.ExtKeyUsageOCSPSigning || cert.KeyUsage != x509.KeyUsageDigitalSignature ||
			cert.NotAfter.Sub(o.now()) > 31*24*time.Hour || cert.CheckSignatureFrom(o.issuers[0].Certificate) != nil || len(cert.DNSNames) > 0 {
			t.Errorf("%s: nocheck %v, usages %v, %v, until %v", name, nocheck, cert.ExtKeyUsage, cert.KeyUsage, cert.NotAfter)
		}
	}
	if n, m := o.entries("delegate.ordered"), o.entries("delegate.certified"); n != 1 || m != 1 {
		t.Errorf("audit record: %d ordered, %d certified", n, m)
	}
	// A status server's identity opens no other door.
	me := as(status)
	for name, err := range map[string]error{
		"issue":   second(me.Issue(t.Context(), "key-00000001", client.CertificateOrder{Holder: "h", Token: "t"})),
		"suspend": second(me.Suspend(t.Context(), "key-00000002", client.Change{Token: "t", Cause: jpki.Lost})),
		"revoke":  second(me.Revoke(t.Context(), "key-00000003", client.Change{Token: "t", Cause: jpki.RecordError})),
		"token":   second(me.Token(t.Context(), "t")),
		"event":   second(me.ReportEvent(t.Context(), jpki.Event{ID: "e"})),
		"deliver": second(me.Deliver(t.Context(), "key-00000004", "t")),
	} {
		if !errors.Is(err, jpki.Forbidden) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Whoever has its key cannot keep the authority's busy.
	limited := false
	for range 50 {
		_, err := me.CertifyResponder(t.Context(), client.ResponderOrder{Issuer: sign, Request: "AAAA"})
		limited = limited || errors.Is(err, jpki.RateLimited)
	}
	if !limited {
		t.Error("no limit to orders")
	}
}

func second[T any](_ T, err error) error { return err }
