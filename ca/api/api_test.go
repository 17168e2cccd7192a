package api_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/api"
	"github.com/openjpki/jpki/ca/client"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/ca/store/storetest"
)

// stationCA issues client certificates for the tests.
type stationCA struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newStationCA(t *testing.T) stationCA {
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "stations"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(20, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, _ := x509.ParseCertificate(der)
	return stationCA{key, cert}
}

func (s stationCA) client(t *testing.T, name string, usage x509.ExtKeyUsage, until time.Duration) (*tls.Certificate, *x509.Certificate) {
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(until),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{usage},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, s.cert, key.Public(), s.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, _ := x509.ParseCertificate(der)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, cert
}

// A world is the authority's API on a TLS listener, with a counter, a call centre and the register enrolled.
type world struct {
	url                        string
	roots                      *x509.CertPool
	authority                  *ca.Authority
	handler                    *api.API
	log                        *syncBuffer
	stations                   stationCA
	counter, register, hotline *tls.Certificate
	db                         *store.Store
	ahead                      atomic.Int64 // how far the API's clock is ahead of the machine's
}

func (w *world) now() time.Time { return time.Now().Add(time.Duration(w.ahead.Load())) }

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

func newWorld(t *testing.T) *world {
	t.Helper()
	return newWorldOn(t, storetest.Create(t, "sqlite:"+filepath.Join(t.TempDir(), "ca.db")))
}

func newWorldOn(t *testing.T, db *store.Store) *world {
	t.Helper()
	w := &world{log: &syncBuffer{}, stations: newStationCA(t), db: db}
	log := slog.New(slog.NewTextHandler(w.log, nil))
	var issuers []ca.Issuer
	for i, name := range jpki.CAs {
		serial, _ := jpki.NewSerial(rand.Reader)
		cert, err := ca.SelfSigned(ca.Sandbox(), name, caKeys()[i], serial, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		issuers = append(issuers, ca.Issuer{ID: jpki.IssuerID{CA: name, Generation: 1}, Certificate: cert, Signer: caKeys()[i]})
		if err := w.db.Update(t.Context(), func(tx *store.Tx) error {
			return tx.AddGeneration(store.Generation{Issuer: issuers[i].ID, Certificate: cert.Raw, Active: true}, time.Now())
		}); err != nil {
			t.Fatal(err)
		}
	}
	pool := x509.NewCertPool()
	pool.AddCert(w.stations.cert)
	var err error
	w.authority, err = ca.New(ca.Config{Store: w.db, Profile: ca.Sandbox(), Issuers: issuers, StatusURL: "http://status.example", Now: w.now, Rand: rand.Reader, Log: log, StationCAs: pool})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []struct {
		actor jpki.Actor
		to    **tls.Certificate
	}{
		{jpki.Actor{Role: jpki.Counter, ID: "aoba-1", Municipality: "99101"}, &w.counter},
		{jpki.Actor{Role: jpki.Register, ID: "juki"}, &w.register},
		{jpki.Actor{Role: jpki.CallCentre, ID: "hotline"}, &w.hotline},
	} {
		pair, cert := w.stations.client(t, s.actor.ID, x509.ExtKeyUsageClientAuth, 10*365*24*time.Hour)
		if err := w.authority.Enrol(t.Context(), jpki.Actor{Role: jpki.System, ID: "test"}, s.actor, cert); err != nil {
			t.Fatal(err)
		}
		*s.to = pair
	}
	srv := httptest.NewUnstartedServer(nil)
	if w.handler, err = api.New(api.Config{
		Authority: w.authority, NewID: rand.Text, Now: w.now, Log: log, Phones: phones("https://" + srv.Listener.Addr().String()), Relying: relying("https://" + srv.Listener.Addr().String()),
	}); err != nil {
		t.Fatal(err)
	}
	srv.Config.Handler = w.handler
	srv.EnableHTTP2 = true // which package client speaks; post speaks HTTP/1.1
	srv.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	w.url, w.roots = srv.URL, x509.NewCertPool()
	w.roots.AddCert(srv.Certificate())
	if _, err := w.as(w.register).ReportEvent(t.Context(), registered("h1", "99101")); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) tls(pair *tls.Certificate) *tls.Config {
	cfg := &tls.Config{RootCAs: w.roots}
	if pair != nil {
		cfg.Certificates = []tls.Certificate{*pair}
	}
	return cfg
}

func (w *world) as(pair *tls.Certificate) *client.Client { return client.New(w.url, w.tls(pair)) }

func registered(holder, place string) jpki.Event {
	return jpki.Event{
		ID: "reg-" + holder, Holder: holder, Type: jpki.Registered, EffectiveAt: time.Now().Add(-time.Minute), Municipality: place,
		Attributes: &jpki.Attributes{Name: "砂場　花子", Sex: jpki.Female, BirthDate: "319800217", Address: "砂箱県青葉市中央一丁目2番3号"},
	}
}

func order(t *testing.T, token string, kinds ...jpki.Kind) client.CertificateOrder {
	t.Helper()
	o := client.CertificateOrder{Holder: "h1", Token: token}
	for _, k := range kinds {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
		if err != nil {
			t.Fatal(err)
		}
		o.Requests = append(o.Requests, client.KeyRequest{Kind: k, Request: client.RequestPEM(der)})
	}
	return o
}

func TestEveryRouteByTheClient(t *testing.T) {
	w := newWorld(t)
	counter, ctx := w.as(w.counter), t.Context()
	issued, err := counter.Issue(ctx, "k1", order(t, "card-1", jpki.CardSign, jpki.CardAuth))
	if err != nil || len(issued.Certificates) != 2 {
		t.Fatal(issued, err)
	}
	der, err := client.DER(issued.Certificates[0].Certificate)
	if err != nil {
		t.Fatal(err)
	}
	if cert, err := x509.ParseCertificate(der); err != nil || cert.SerialNumber.Cmp(issued.Certificates[0].ID.Serial.Big()) != 0 {
		t.Error("the certificate is not the one named", err)
	}
	if d, err := counter.Deliver(ctx, "k2", "card-1"); err != nil || len(d.Delivered) != 2 {
		t.Error(d, err)
	}
	if _, err := counter.Renew(ctx, "k3", order(t, "card-1", jpki.CardSign)); !errors.Is(err, jpki.NotRenewable) {
		t.Error(err)
	}
	if c, err := w.as(w.hotline).Suspend(ctx, "k4", client.Change{Token: "card-1", Cause: jpki.Lost}); err != nil || len(c.Changed) != 2 || c.Changed[0].Reason != "certificateHold" {
		t.Error(c, err)
	}
	if _, err := counter.Resume(ctx, "k5", client.Change{Token: "card-1", Cause: jpki.Found}); !errors.Is(err, jpki.ForbiddenChange) {
		t.Error(err)
	}
	if c, err := counter.Revoke(ctx, "k6", client.Change{Certificate: &issued.Certificates[1].ID, Cause: jpki.HolderRequest}); err != nil || len(c.Changed) != 1 || c.Changed[0].State != jpki.Revoked {
		t.Error(c, err)
	}
	token, err := counter.Token(ctx, "card-1")
	if err != nil || len(token.Certificates) != 2 {
		t.Fatal(token, err)
	}
	for _, c := range token.Certificates {
		if want := map[jpki.Kind]string{jpki.CardSign: "suspended certificateHold", jpki.CardAuth: "revoked cessationOfOperation"}[c.Kind]; string(c.State)+" "+c.Reason != want || c.DeliveredAt == nil {
			t.Errorf("%s is %s %s, want %s", c.Kind, c.State, c.Reason, want)
		}
	}
	if e, err := w.as(w.register).ReportEvent(ctx, jpki.Event{ID: "died-h1", Holder: "h1", Type: jpki.Death, EffectiveAt: time.Now().Add(-time.Second)}); err != nil || !e.Applied || len(e.Changed) != 1 {
		t.Error(e, err)
	}
}

// post sends a raw body and returns the problem's name and the whole answer.
func (w *world) post(t *testing.T, pair *tls.Certificate, method, path, key, body string) (string, *http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, w.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	req.Header.Set("Accept-Language", "ja")
	resp, err := (&http.Client{Transport: &http.Transport{TLSClientConfig: w.tls(pair), DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, _ := io.ReadAll(resp.Body)
	var p jpki.ProblemDetails
	if resp.Header.Get("Content-Type") == "application/problem+json" {
		if err := json.Unmarshal(text, &p); err != nil || p.Status != resp.StatusCode || p.Title == "" || p.RequestID == "" {
			t.Errorf("%s %s: incomplete problem %s", method, path, text)
		}
		return string(p.Problem()), resp, string(text)
	}
	return "", resp, string(text)
}

func TestEveryRefusalIsAProblemAndChangesNothing(t *testing.T) {
	w := newWorld(t)
	if _, err := w.as(w.counter).Issue(t.Context(), "used", order(t, "card-1", jpki.CardSign)); err != nil {
		t.Fatal(err)
	}
	before, _ := w.db.StatusChanges(t.Context(), 0, 1000)
	expired, _ := w.stations.client(t, "aoba-1", x509.ExtKeyUsageClientAuth, -time.Minute)
	serverCert, _ := w.stations.client(t, "aoba-1", x509.ExtKeyUsageServerAuth, time.Hour)
	stranger, _ := newStationCA(t).client(t, "aoba-1", x509.ExtKeyUsageClientAuth, time.Hour)
	unknown, _ := w.stations.client(t, "aoba-9", x509.ExtKeyUsageClientAuth, time.Hour)
	impostor, _ := w.stations.client(t, "aoba-1", x509.ExtKeyUsageClientAuth, time.Hour)
	const certificates = "/station/v1/certificates"
	lost := `{"token":"card-1","cause":"lost"}`
	for name, c := range map[string]struct {
		pair              *tls.Certificate
		method, path, key string
		body              string
		want              jpki.Problem
	}{
		"no certificate":            {nil, "POST", certificates, "k", "{}", jpki.NoClientCertificate},
		"expired certificate":       {expired, "POST", certificates, "k", "{}", jpki.ClientCertificateExpired},
		"certificate of a server":   {serverCert, "POST", certificates, "k", "{}", jpki.ClientCertificateInvalid},
		"certificate of a stranger": {stranger, "POST", certificates, "k", "{}", jpki.ClientCertificateInvalid},
		"unknown station":           {unknown, "POST", certificates, "k", "{}", jpki.UnknownStation},
		"another key":               {impostor, "POST", certificates, "k", "{}", jpki.UnknownStation},
		"no JSON":                   {w.counter, "POST", certificates, "k", "{", jpki.Malformed},
		"empty body":                {w.counter, "POST", certificates, "k", "", jpki.Malformed},
		"an array":                  {w.counter, "POST", certificates, "k", "[]", jpki.Malformed},
		"two values":                {w.counter, "POST", certificates, "k", "{} {}", jpki.Malformed},
		"unknown field":             {w.counter, "POST", certificates, "k", `{"holder":"h1","my_number":"x"}`, jpki.Malformed},
		"wrong type":                {w.counter, "POST", certificates, "k", `{"holder":1}`, jpki.Malformed},
		"neither PEM nor base64":    {w.counter, "POST", certificates, "k", `{"holder":"h1","token":"c","requests":[{"kind":"card-sign","request":"%"}]}`, jpki.Malformed},
		"a certificate for a request": {
			w.counter, "POST", certificates, "k",
			`{"holder":"h1","token":"c","requests":[{"kind":"card-sign","request":"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"}]}`, jpki.Malformed,
		},
		"1 MB":                   {w.counter, "POST", certificates, "k", `{"holder":"` + strings.Repeat("h", 1<<20) + `"}`, jpki.TooLarge},
		"My Number as a string":  {w.counter, "POST", certificates, "k", `{"holder":"6214-9832-0257"}`, jpki.MyNumberPresent},
		"My Number as a number":  {w.counter, "POST", certificates, "k", `{"holder":621498320257}`, jpki.MyNumberPresent},
		"My Number as a key":     {w.counter, "POST", certificates, "k", `{"621498320257":1}`, jpki.MyNumberPresent},
		"My Number deep inside":  {w.counter, "POST", certificates, "k", `{"requests":[{"kind":"６２１４９８３２０２５７"}]}`, jpki.MyNumberPresent},
		"My Number in a path":    {w.counter, "GET", "/station/v1/tokens/621498320257", "", "", jpki.MyNumberPresent},
		"My Number in a query":   {w.counter, "GET", "/station/v1/tokens/card-1?x=%EF%BC%96%EF%BC%92%EF%BC%91%EF%BC%94%EF%BC%99%EF%BC%98%EF%BC%93%EF%BC%92%EF%BC%90%EF%BC%92%EF%BC%95%EF%BC%97", "", "", jpki.MyNumberPresent},
		"My Number in a header":  {w.counter, "POST", "/station/v1/suspensions", "621498320257", lost, jpki.MyNumberPresent},
		"no idempotency key":     {w.counter, "POST", "/station/v1/suspensions", "", lost, jpki.MissingIdempotency},
		"reused idempotency key": {w.counter, "POST", "/station/v1/suspensions", "used", lost, jpki.IdempotencyReused},
		"unknown card":           {w.counter, "POST", "/station/v1/suspensions", "k", `{"token":"card-9","cause":"lost"}`, jpki.UnknownToken},
		"unknown certificate":    {w.counter, "POST", "/station/v1/revocations", "k", `{"certificate":"sign-1/41","cause":"holder-request"}`, jpki.UnknownCertificate},
		"odd certificate":        {w.counter, "POST", "/station/v1/revocations", "k", `{"certificate":"x","cause":"holder-request"}`, jpki.Malformed},
		"made-up cause":          {w.counter, "POST", "/station/v1/suspensions", "k", `{"token":"card-1","cause":"whim"}`, jpki.Malformed},
		"hotline revokes":        {w.hotline, "POST", "/station/v1/revocations", "k", `{"token":"card-1","cause":"holder-request"}`, jpki.Forbidden},
		"counter as register":    {w.counter, "POST", "/registry/v1/events", "", `{"id":"e9","holder":"h1","type":"died","effective_at":"2020-01-01T00:00:00Z"}`, jpki.Forbidden},
		"register as counter":    {w.register, "POST", certificates, "k", "{}", jpki.Malformed},
		"batch by a call centre": {w.hotline, "POST", "/station/v1/batches", "", "{}\n", jpki.Forbidden},
		"batch by the register":  {w.register, "POST", "/station/v1/batches", "", "{}\n", jpki.Forbidden},
		"feed by a counter":      {w.counter, "POST", "/registry/v1/batches", "", "{}\n", jpki.Forbidden},
		"batch by nobody":        {nil, "POST", "/station/v1/batches", "", "{}\n", jpki.NoClientCertificate},
		"search for nothing":     {w.counter, "GET", certificates, "", "", jpki.Malformed},
		"search for two things":  {w.counter, "GET", certificates + "?holder=h1&token=card-1", "", "", jpki.Malformed},
		"search twice":           {w.counter, "GET", certificates + "?holder=h1&holder=h2", "", "", jpki.Malformed},
		"search by a name":       {w.counter, "GET", certificates + "?name=x", "", "", jpki.Malformed},
		"broken query":           {w.counter, "GET", certificates + "?holder=%zz", "", "", jpki.Malformed},
		"odd serial":             {w.counter, "GET", certificates + "?serial=xyz", "", "", jpki.Malformed},
		"odd state":              {w.counter, "GET", certificates + "?holder=h1&state=expired", "", "", jpki.Malformed},
		"odd cursor":             {w.counter, "GET", certificates + "?holder=h1&after=x", "", "", jpki.Malformed},
		"cursor of nothing":      {w.counter, "GET", certificates + "?holder=h1&after=sign-1/41", "", "", jpki.Malformed},
		"huge page":              {w.counter, "GET", certificates + "?holder=h1&limit=101", "", "", jpki.Malformed},
		"search for a My Number": {w.counter, "GET", certificates + "?holder=6214-9832-0257", "", "", jpki.MyNumberPresent},
		"search for a stranger":  {w.counter, "GET", certificates + "?holder=h9", "", "", jpki.UnknownHolder},
		"search by the register": {w.register, "GET", certificates + "?holder=h1", "", "", jpki.Forbidden},
		"negative age":           {w.counter, "GET", "/station/v1/undelivered?older_than_days=-1", "", "", jpki.Malformed},
		"age of a stone":         {w.counter, "GET", "/station/v1/undelivered?older_than_days=40000", "", "", jpki.Malformed},
		"hotline's undelivered":  {w.hotline, "GET", "/station/v1/undelivered", "", "", jpki.Forbidden},
		"no such path":           {w.counter, "GET", "/station/v2/x", "", "", jpki.NotFound},
		"no such method":         {w.counter, "DELETE", certificates, "", "", jpki.MethodNotAllowed},
	} {
		t.Run(name, func(t *testing.T) {
			count := w.handler.Outcomes()[string(c.want)]
			got, resp, text := w.post(t, c.pair, c.method, c.path, c.key, c.body)
			if got != string(c.want) || resp.StatusCode != c.want.HTTPStatus() {
				t.Errorf("got %d %s, want %s", resp.StatusCode, text, c.want)
			}
			if after := w.handler.Outcomes()[string(c.want)]; after != count+1 {
				t.Errorf("counted %d times", after-count)
			}
			if strings.Contains(text, "6214") {
				t.Errorf("the answer repeats the My Number: %s", text)
			}
		})
	}
	if after, _ := w.db.StatusChanges(t.Context(), 0, 1000); len(after) != len(before) {
		t.Error("a refused request changed a status")
	}
	log := w.log.String()
	for _, secret := range []string{"6214-9832", "６２１４", "621498320257", "花子", "card-1", "砂箱"} {
		if strings.Contains(log, secret) {
			i := strings.Index(log, secret)
			t.Errorf("the log contains %q: %s", secret, log[max(0, i-100):i+40])
		}
	}
	if !strings.Contains(log, "problem=my-number-present") {
		t.Error("the log does not tell of the refusals")
	}
}

func TestAShutOutStationIsRefusedAtOnce(t *testing.T) {
	w := newWorld(t)
	c := w.as(w.counter)
	if _, err := c.Token(t.Context(), "card-1"); !errors.Is(err, jpki.UnknownToken) {
		t.Fatal(err)
	}
	if err := w.authority.Disable(t.Context(), jpki.Actor{Role: jpki.System, ID: "test"}, "aoba-1"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Token(t.Context(), "card-1"); !errors.Is(err, jpki.UnknownStation) {
		t.Errorf("on the same connection: %v", err)
	}
}

func TestOpenAPITellsTheRoutes(t *testing.T) {
	doc, err := openapi3.NewLoader().LoadFromData(api.OpenAPI)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	described := map[string]bool{}
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			described[method+" "+path] = true
			if op.Summary == "" || op.Responses.Len() == 0 {
				t.Errorf("%s %s has no summary or no responses", method, path)
			}
			pair, want := w.counter, ""
			if got, resp, _ := w.post(t, pair, method, strings.ReplaceAll(path, "{token}", "card-1"), "k", ""); resp.StatusCode == 405 || got == string(jpki.NotFound) {
				t.Errorf("%s %s is described but not served %s", method, path, want)
			}
		}
	}
	for _, route := range w.handler.Routes() {
		if !described[route] {
			t.Errorf("%s is served but not described", route)
		}
	}
	var causes []string
	for _, v := range doc.Components.Schemas["Change"].Value.Properties["cause"].Value.Enum {
		causes = append(causes, fmt.Sprint(v))
	}
	if len(causes) == 0 {
		t.Error("no causes")
	}
}
