package acme_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	stepca "github.com/smallstep/certificates/ca"
	"go.step.sm/crypto/jose"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/acme"
	"github.com/openjpki/jpki/ca/api"
	"github.com/openjpki/jpki/ca/ceremony"
	"github.com/openjpki/jpki/ca/client"
	"github.com/openjpki/jpki/ca/store"
)

const password = "correct horse"

var (
	operator = jpki.Actor{Role: jpki.System, ID: "operator"}
	counter  = jpki.Actor{Role: jpki.Counter, ID: "aoba-counter-2", Municipality: "99101"}
	other    = jpki.Actor{Role: jpki.Counter, ID: "minato-counter-1", Municipality: "99202"}
	register = jpki.Actor{Role: jpki.Register, ID: "register"}
	unlisted = jpki.Actor{Role: jpki.CallCentre, ID: "hotline"}
)

// A world is the authority with its station API and its enrolment, each on a TLS listener of its own. The helpdesk
// admits the counters, the ministry the register.
type world struct {
	db                 *store.Store
	authority          *ca.Authority
	enrolment          *acme.Enrolment
	infra              *x509.Certificate
	infraKey           *ecdsa.PrivateKey
	roots              *x509.CertPool
	rootFile           string
	url, apiURL        string
	helpdesk, ministry *jose.JSONWebKey // private
	helpdeskEncrypted  []byte
	log                *syncBuffer
	makers             map[string]*maker // of phones, by attestation format
	statusList         string            // file of Android's maker
	ahead              atomic.Int64      // how far our clock is ahead of the machine's, which smallstep looks at
	issuers            []ca.Issuer
	address            string // of the enrolment's listener; "" for any
	servers            []*httptest.Server

	mu      sync.Mutex
	onSign  func() error // runs before the infrastructure CA signs
	certify func(key crypto.PublicKey, name string, serial jpki.Serial) (*x509.Certificate, error)
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}
func (s *syncBuffer) String() string { s.mu.Lock(); defer s.mu.Unlock(); return s.b.String() }

var caKeys = sync.OnceValue(func() (keys [2]*rsa.PrivateKey) {
	for i := range keys {
		keys[i], _ = rsa.GenerateKey(rand.Reader, 2048)
	}
	return keys
})

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func newKey() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) }

func newSerial() jpki.Serial { return must(jpki.NewSerial(rand.Reader)) }

type provisionerPair struct {
	public, encrypted []byte
	private           *jose.JSONWebKey
}

// provisioners are three key pairs for all tests: their passwords are stretched for long. The third is nobody's.
var provisioners = sync.OnceValue(func() (pairs [3]provisionerPair) {
	for i := range pairs {
		p := &pairs[i]
		var err error
		if p.public, p.encrypted, err = acme.NewProvisionerKey([]byte(password)); err != nil {
			panic(err)
		}
		p.private = must(jose.ParseKey(p.encrypted, jose.WithPassword([]byte(password))))
	}
	return pairs
})

// forger is a key that claims to be the helpdesk's.
func (w *world) forger() *jose.JSONWebKey {
	key := *provisioners()[2].private
	key.KeyID = w.helpdesk.KeyID
	return &key
}

func newWorld(t *testing.T, db *store.Store) *world {
	t.Helper()
	return openWorld(t, db, func(*world) {})
}

func (w *world) now() time.Time { return time.Now().Add(time.Duration(w.ahead.Load())) }

// openWorld makes a world; prepare may change its parts before they are put together.
func openWorld(t *testing.T, db *store.Store, prepare func(*world)) *world {
	t.Helper()
	w := &world{db: db, infraKey: newKey(), log: &syncBuffer{}, makers: map[string]*maker{"step": newMaker(), "apple": newMaker(), "android-key": newMaker()}}
	w.makers["apple-appattest"] = w.makers["apple"]
	w.infra = must(ceremony.NewInfrastructure(w.infraKey, newSerial(), time.Now()))
	for i, name := range jpki.CAs {
		w.issuers = append(w.issuers, ca.Issuer{
			ID: jpki.IssuerID{CA: name, Generation: 1}, Signer: caKeys()[i], Certificate: must(ca.SelfSigned(ca.Sandbox(), name, caKeys()[i], newSerial(), time.Now())),
		})
	}
	w.statusList = filepath.Join(t.TempDir(), "status.json")
	if err := os.WriteFile(w.statusList, []byte(`{"entries":{}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	prepare(w)
	signer := must(ceremony.NewSigner(w.infra, w.infraKey, time.Now))
	w.certify = signer.CertifyStation
	w.roots = x509.NewCertPool()
	w.roots.AddCert(w.infra)
	w.rootFile = filepath.Join(t.TempDir(), "root.crt")
	if err := os.WriteFile(w.rootFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: w.infra.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(w.log, nil))

	var err error
	w.authority, err = ca.New(ca.Config{Store: db, Profile: ca.Sandbox(), Issuers: w.issuers, StatusURL: "http://status.example", Now: w.now, Rand: rand.Reader, Log: log, StationCAs: w.roots})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Update(t.Context(), func(tx *store.Tx) error {
		for _, i := range w.issuers {
			if known, err := tx.Generations(); err != nil || len(known) == len(w.issuers) {
				return err
			}
			if err := tx.AddGeneration(store.Generation{Issuer: i.ID, Certificate: i.Certificate.Raw, Active: true}, time.Now()); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	helpdesk, ministry := provisioners()[0], provisioners()[1]
	w.helpdesk, w.helpdeskEncrypted, w.ministry = helpdesk.private, helpdesk.encrypted, ministry.private
	w.enrolment, err = acme.New(acme.Config{
		Authority: w.authority, Store: db, Root: w.infra, Certify: w.sign, Hosts: []string{"127.0.0.1"},
		Provisioners: []acme.Provisioner{{Name: "helpdesk", Key: helpdesk.public}, {Name: "ministry", Key: ministry.public}},
		Stations:     []acme.Station{{Actor: counter, Provisioner: "helpdesk"}, {Actor: other, Provisioner: "helpdesk"}, {Actor: register, Provisioner: "ministry"}},
		Phones: []acme.Attestation{
			{Format: "step", Roots: []*x509.Certificate{w.makers["step"].root}},
			{Format: "apple", Roots: []*x509.Certificate{w.makers["apple"].root}},
			{Format: "android-key", Roots: []*x509.Certificate{w.makers["android-key"].root}, Android: acme.AndroidPolicy{StatusList: w.statusList, MaxListAge: 7 * 24 * time.Hour}},
			{Format: "apple-appattest", Roots: []*x509.Certificate{w.makers["apple"].root}, AppAttest: acme.AppAttestPolicy{Apps: []string{walletApp}}},
		},
		NewID: rand.Text, Now: w.now, Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	stationAPI, err := api.New(api.Config{Authority: w.authority, NewID: rand.Text, Now: time.Now, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	serverKey := newKey()
	server := must(signer.Server(serverKey, "authority", "127.0.0.1"))
	serve := func(h http.Handler, address string) string {
		srv := httptest.NewUnstartedServer(h)
		if address != "" {
			_ = srv.Listener.Close()
			srv.Listener = must((&net.ListenConfig{}).Listen(t.Context(), "tcp", address))
		}
		srv.TLS = &tls.Config{ClientAuth: tls.RequestClientCert, Certificates: []tls.Certificate{{Certificate: [][]byte{server.Raw}, PrivateKey: serverKey}}}
		srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
		srv.StartTLS()
		t.Cleanup(srv.Close)
		w.servers = append(w.servers, srv)
		return srv.URL
	}
	w.url, w.apiURL = serve(w.enrolment, w.address), serve(stationAPI, "")
	return w
}

// close stops serving, as when a process ends.
func (w *world) close() {
	for _, s := range w.servers {
		s.Close()
	}
}

// sign is the infrastructure CA.
func (w *world) sign(key crypto.PublicKey, name string, serial jpki.Serial) (*x509.Certificate, error) {
	w.mu.Lock()
	f := w.onSign
	w.mu.Unlock()
	if f != nil {
		if err := f(); err != nil {
			return nil, err
		}
	}
	return w.certify(key, name, serial)
}

func (w *world) whenSigning(f func() error) { w.mu.Lock(); w.onSign = f; w.mu.Unlock() }

// enrolled gives a station a certificate by ceremony, as a sandbox does.
func (w *world) enrolled(t *testing.T, station jpki.Actor) *tls.Certificate {
	t.Helper()
	key := newKey()
	cert := must(w.certify(key.Public(), station.ID, newSerial()))
	if err := w.authority.Enrol(t.Context(), operator, station, cert); err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}
}

// A claimSet is a token's claims.
type claimSet map[string]any

// token makes a token as step does, for five minutes; each change overrides a claim, nil removes it.
func (w *world) token(t *testing.T, name, issuer string, key *jose.JSONWebKey, changes claimSet) string {
	t.Helper()
	return w.sealed(t, name, issuer, jose.SigningKey{Algorithm: jose.ES256, Key: key.Key}, new(jose.SignerOptions).WithHeader("kid", key.KeyID), w.url+"/1.0/sign", changes)
}

// selfToken makes a token with a certificate in its x5c header.
func (w *world) selfToken(t *testing.T, name string, pair *tls.Certificate, changes claimSet) string {
	t.Helper()
	chain := make([]string, 0, 1)
	for _, der := range pair.Certificate {
		chain = append(chain, base64Std(der))
	}
	return w.sealed(t, name, "station", jose.SigningKey{Algorithm: jose.ES256, Key: pair.PrivateKey}, new(jose.SignerOptions).WithHeader("x5c", chain), w.url+"/1.0/sign#x5c/station", changes)
}

func (w *world) sealed(t *testing.T, name, issuer string, key jose.SigningKey, opts *jose.SignerOptions, audience string, changes claimSet) string {
	t.Helper()
	now := time.Now()
	claims := claimSet{
		"sub": name, "iss": issuer, "aud": audience, "jti": rand.Text(), "sans": []string{name},
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(),
	}
	for k, v := range changes {
		if v == nil {
			delete(claims, k)
		} else {
			claims[k] = v
		}
	}
	signer, err := jose.NewSigner(key, opts.WithType("JWT"))
	if err != nil {
		t.Fatal(err)
	}
	return must(jose.Signed(signer).Claims(map[string]any(claims)).CompactSerialize())
}

// request makes a certification request for a name, as step does; change may be nil.
func request(t *testing.T, key crypto.Signer, name string, change func(*x509.CertificateRequest)) *x509.CertificateRequest {
	t.Helper()
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}}
	if change != nil {
		change(template)
	}
	return must(x509.ParseCertificateRequest(must(x509.CreateCertificateRequest(rand.Reader, template, key))))
}

// step returns smallstep's own client.
func (w *world) step(t *testing.T) *stepca.Client {
	t.Helper()
	c, err := stepca.NewClient(w.url, stepca.WithRootFile(w.rootFile))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// as returns a transport that presents a client certificate.
func (w *world) as(pair *tls.Certificate) *http.Transport {
	cfg := &tls.Config{RootCAs: w.roots, MinVersion: tls.VersionTLS12}
	if pair != nil {
		cfg.Certificates = []tls.Certificate{*pair}
	}
	return &http.Transport{TLSClientConfig: cfg, DisableKeepAlives: true}
}

// stationAPI returns the problem that the station API has with a client certificate; "unknown-token" is none, for the
// card that is asked for does not exist.
func (w *world) stationAPI(t *testing.T, pair *tls.Certificate) jpki.Problem {
	t.Helper()
	_, err := client.New(w.apiURL, w.as(pair).TLSClientConfig).Token(t.Context(), "no-such-card")
	return jpki.ProblemOf(err)
}

// audited returns the audit record's entries of one action.
func (w *world) audited(t *testing.T, action string) (out []string) {
	t.Helper()
	for e, err := range w.db.AuditEntries(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Action == action {
			out = append(out, e.Actor+" "+e.Subject+" "+e.Detail)
		}
	}
	return out
}

func post(t *testing.T, tr http.RoundTripper, url string, body []byte) (int, []byte) {
	t.Helper()
	req := must(http.NewRequestWithContext(t.Context(), http.MethodPost, url, bytes.NewReader(body)))
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	return resp.StatusCode, must(io.ReadAll(resp.Body))
}
