package api_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/client"
	"github.com/openjpki/jpki/verifier"
	"github.com/openjpki/jpki/verifier/api"
	"github.com/openjpki/jpki/verifier/push"
	"github.com/openjpki/jpki/verifier/store"
)

var t0 = time.Date(2026, 11, 24, 3, 0, 0, 0, time.UTC)

// A bench is an API in front of a real verifier whose statuses the test sets.
type bench struct {
	t      *testing.T
	api    *api.API
	log    *lockedBuffer
	key    *ecdsa.PrivateKey
	anchor *x509.Certificate
	store  *store.Store
	*authority
	watching *api.Watching
	verifier *verifier.Verifier
	file     string // of the store
	office   *office
	now      time.Time
	check    func() (verifier.Revocation, error)
	source   verifier.StatusChecker // instead of check
	blocks   bool                   // the source of statuses does not answer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}
func (l *lockedBuffer) String() string { l.mu.Lock(); defer l.mu.Unlock(); return l.b.String() }

// Check makes the bench the verifier's source of statuses.
func (b *bench) Check(ctx context.Context, leaf, issuer *x509.Certificate, at time.Time) (verifier.Revocation, error) {
	if b.source != nil {
		return b.source.Check(ctx, leaf, issuer, at)
	}
	if b.blocks {
		<-ctx.Done()
		return verifier.Revocation{}, ctx.Err()
	}
	return b.check()
}

const (
	bankToken    = "bank-token-for-tests"
	telecomToken = "telecom-secret-for-tests" //nolint:gosec // opens nothing
	signOID      = "1.1.20"
	authOID      = "1.3.30"
	holderName   = "試験　太郎"
	holderPlace  = "砂箱県青葉市一丁目"
)

func newBench(t *testing.T, change ...func(*api.Config, *verifier.ChallengesConfig)) *bench {
	t.Helper()
	b := &bench{t: t, log: new(lockedBuffer), now: t0, key: must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))}
	b.check = func() (verifier.Revocation, error) {
		return verifier.Revocation{State: jpki.Good, Source: "test", ThisUpdate: b.now, CheckedAt: b.now, Evidence: []byte{1}, Format: "text/plain"}, nil
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{Organization: []string{"TEST"}}, NotBefore: t0.AddDate(-1, 0, 0), NotAfter: t0.AddDate(9, 0, 0),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, IsCA: true, BasicConstraintsValid: true,
	}
	b.anchor = must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, tmpl, tmpl, b.key.Public(), b.key))))

	clock := func() time.Time { return b.now }
	chs := verifier.ChallengesConfig{Now: clock, Rand: rand.Reader}
	b.openStore()
	b.authority = &authority{users: map[string]bool{}, watches: map[client.Watch]bool{}}
	b.watching = &api.Watching{Authority: b.authority, Events: must(push.NewEvents(transmitter, must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)))), Private: true}
	b.office = &office{t: t, given: map[string]client.Consent{}, uses: map[string]client.CertificateUse{}}
	cfg := api.Config{
		Store: b.store, Now: clock, Log: slog.New(slog.NewJSONHandler(b.log, nil)), Issuers: map[string]jpki.IssuerID{hex.EncodeToString(b.anchor.SubjectKeyId): {CA: jpki.CAs[0], Generation: 1}},
		Watching: b.watching,
		Consents: &api.Consents{Authority: b.office, Issuer: "https://verifier.example", Key: b.key},
	}
	for _, c := range change {
		c(&cfg, &chs)
	}
	cfg.Challenges = must(verifier.NewChallenges(chs))
	b.verifier = must(verifier.New(verifier.Config{
		Anchors: []*x509.Certificate{b.anchor}, Policies: verifier.SandboxPolicies(), Revocation: b, Challenges: cfg.Challenges, Now: clock, Rand: rand.Reader,
		Documents: b.documentConfig(),
	}))
	cfg.Verifier = b.verifier
	var err error
	if b.api, err = api.New(cfg); err != nil {
		t.Fatal(err)
	}
	return b
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// issue makes a certificate, for signing with the four attributes or for authentication without, and its key.
func (b *bench) issue(policy string) (*ecdsa.PrivateKey, []byte) {
	type info struct{ ID asn1.ObjectIdentifier }
	serial := must(rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)))
	last := map[string]asn1.ObjectIdentifier{signOID: {2, 999, 8, 5, 1, 1, 20}, authOID: {2, 999, 8, 5, 1, 3, 30}}
	tmpl := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "holder"}, NotBefore: t0.AddDate(0, -1, 0), NotAfter: t0.AddDate(1, 0, 0), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 32}, Critical: true, Value: must(asn1.Marshal([]info{{last[policy]}}))}},
	}
	if policy == signOID {
		type otherName struct {
			ID    asn1.ObjectIdentifier
			Value string `asn1:"utf8,explicit,tag:0"`
		}
		var names []asn1.RawValue
		for _, a := range []struct {
			n    int
			text string
		}{{1, holderName}, {4, "319800217"}, {3, "1"}, {5, holderPlace}} {
			der := must(asn1.MarshalWithParams(otherName{asn1.ObjectIdentifier{1, 2, 392, 200149, 8, 5, 5, a.n}, a.text}, "tag:0"))
			names = append(names, asn1.RawValue{FullBytes: der})
		}
		tmpl.KeyUsage |= x509.KeyUsageContentCommitment
		tmpl.ExtraExtensions = append(tmpl.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: must(asn1.Marshal(names))})
	}
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	return key, must(x509.CreateCertificate(rand.Reader, tmpl, b.anchor, key.Public(), b.key))
}

type object map[string]any

func b64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

// signed returns a request for a verification.
func (b *bench) signed() object {
	key, cert := b.issue(signOID)
	digest := sha256.Sum256([]byte("account application"))
	return object{"certificate": b64(cert), "digest": b64(digest[:]), "hash": "sha256", "signature": b64(must(key.Sign(rand.Reader, digest[:], crypto.SHA256)))}
}

// An answer is what came back.
type answer struct {
	*http.Response
	body []byte
}

// send sends a body, an object or text, with headers in pairs.
func (b *bench) send(method, path string, body any, headers ...string) answer {
	b.t.Helper()
	var data []byte
	switch v := body.(type) {
	case nil:
	case string:
		data = []byte(v)
	default:
		data = must(json.Marshal(v))
	}
	r := httptest.NewRequestWithContext(b.t.Context(), method, path, bytes.NewReader(data))
	r.Header.Set("Authorization", "Bearer "+bankToken)
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	b.api.ServeHTTP(w, r)
	resp := w.Result()
	defer func() { _ = resp.Body.Close() }()
	return answer{resp, must(io.ReadAll(resp.Body))}
}

func (b *bench) result(a answer) verifier.Result {
	b.t.Helper()
	var res verifier.Result
	if err := json.Unmarshal(a.body, &res); err != nil || a.StatusCode != http.StatusOK || a.Header.Get("Content-Type") != "application/json" {
		b.t.Fatalf("status %d, %v: %s", a.StatusCode, err, a.body)
	}
	return res
}

func (b *bench) wantProblem(a answer, p jpki.Problem) {
	b.t.Helper()
	var d jpki.ProblemDetails
	if err := json.Unmarshal(a.body, &d); err != nil || d.Problem() != p || a.StatusCode != p.HTTPStatus() || d.Status != a.StatusCode {
		b.t.Errorf("status %d %s, want %s", a.StatusCode, a.body, p)
	}
	if a.Header.Get("Content-Type") != "application/problem+json" || a.Header.Get("X-Request-ID") == "" || d.RequestID != a.Header.Get("X-Request-ID") {
		b.t.Errorf("headers %v", a.Header)
	}
}

func TestVerification(t *testing.T) {
	b := newBench(t)
	req := b.signed()
	res := b.result(b.send("POST", "/v1/verifications", req))
	if !res.OK() || res.Attributes == nil || res.Attributes.Name != holderName || res.Attributes.Address != holderPlace {
		t.Errorf("%+v", res)
	}
	// A bad verdict is an answer, not a problem.
	digest := sha256.Sum256([]byte("another"))
	req["digest"] = b64(digest[:])
	if res := b.result(b.send("POST", "/v1/verifications", req)); res.Code != verifier.SignatureWrong || res.Attributes != nil {
		t.Errorf("%+v", res)
	}
	// The time asked about is passed on.
	req = b.signed()
	req["at"] = t0.AddDate(0, -2, 0).Format(time.RFC3339)
	if res := b.result(b.send("POST", "/v1/verifications", req)); res.Code != verifier.NotYetValid || !res.ValidationTime.Equal(t0.AddDate(0, -2, 0)) {
		t.Errorf("%+v", res)
	}
	moved := t0.Add(-time.Hour)
	b.check = func() (verifier.Revocation, error) {
		return verifier.Revocation{State: jpki.Revoked, Reason: jpki.AffiliationChanged, RevokedAt: &moved, ThisUpdate: t0}, nil
	}
	if res := b.result(b.send("POST", "/v1/verifications", b.signed())); res.Code != verifier.RevokedAttributesChanged {
		t.Errorf("%+v", res)
	}
	b.check = func() (verifier.Revocation, error) { return verifier.Revocation{}, errors.New("responder is down") }
	if res := b.result(b.send("POST", "/v1/verifications", b.signed())); res.Code != verifier.StatusNotEstablished || res.RetryAfter == 0 {
		t.Errorf("%+v", res)
	}
	if !strings.Contains(b.log.String(), `"failure":"check-failed","error":"responder is down"`) {
		t.Errorf("log %s", b.log.String())
	}
	want := map[string]uint64{"ok": 1, "signature-wrong": 1, "not-yet-valid": 1, "revoked-attributes-changed": 1, "status-not-established": 1}
	if got := b.api.Outcomes(); !maps.Equal(got, want) {
		t.Errorf("outcomes %v", got)
	}
}

func TestCertificateStatus(t *testing.T) {
	b := newBench(t)
	for _, policy := range []string{signOID, authOID} {
		_, cert := b.issue(policy)
		if res := b.result(b.send("POST", "/v1/certificate-status", object{"certificate": b64(cert)})); !res.OK() || res.Attributes != nil {
			t.Errorf("%+v", res)
		}
	}
}

type challenge struct {
	ID        string    `json:"challenge_id"`
	Nonce     []byte    `json:"nonce"`
	Message   []byte    `json:"message"`
	ExpiresAt time.Time `json:"expires_at"`
}

func (b *bench) challenge(body any, headers ...string) challenge {
	b.t.Helper()
	a := b.send("POST", "/v1/challenges", body, headers...)
	var ch challenge
	if err := json.Unmarshal(a.body, &ch); err != nil || a.StatusCode != http.StatusCreated {
		b.t.Fatalf("status %d, %v: %s", a.StatusCode, err, a.body)
	}
	return ch
}

// login answers a challenge; extra members are added to the request.
func (b *bench) login(ch challenge, extra object) object {
	key, cert := b.issue(authOID)
	digest := sha256.Sum256(ch.Message)
	out := object{"challenge_id": ch.ID, "certificate": b64(cert), "signature": b64(must(key.Sign(rand.Reader, digest[:], crypto.SHA256)))}
	maps.Copy(out, extra)
	return out
}

func TestLogin(t *testing.T) {
	b := newBench(t)
	const origin = "https://bank.example"
	telecom := []string{"Authorization", "bearer " + telecomToken}
	for _, tc := range []struct {
		name       string
		ask, reply object
		as         []string
		ok         bool
	}{
		{"nothing stated", nil, nil, nil, true},
		{"audience and binding", object{"audience": origin, "binding": "s"}, object{"audience": origin, "binding": "s"}, nil, true},
		{"audience left out", object{"audience": origin}, nil, nil, false},
		{"other audience", object{"audience": origin}, object{"audience": origin + ".evil"}, nil, false},
		{"other binding", object{"binding": "s"}, object{"binding": "t"}, nil, false},
		{"binding left out", object{"binding": "s"}, nil, nil, false},
		{"another relying party", nil, nil, telecom, false},
		{"another relying party with the right audience", nil, object{"audience": "bank"}, telecom, false},
		{"another relying party with everything right", object{"audience": origin, "binding": "s"}, object{"audience": origin, "binding": "s"}, telecom, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b.t = t
			var ask any
			if tc.ask != nil {
				ask = tc.ask
			}
			ch := b.challenge(ask)
			if !ch.ExpiresAt.Equal(t0.Add(time.Minute)) || len(ch.Nonce) != 32 || !bytes.Contains(ch.Message, ch.Nonce) {
				t.Errorf("%+v", ch)
			}
			req := b.login(ch, tc.reply)
			a := b.send("POST", "/v1/authentications", req, tc.as...)
			if tc.ok {
				if res := b.result(a); !res.OK() || res.Attributes != nil || res.Policy.Name != "jpki-authentication" {
					t.Errorf("%+v", res)
				}
			} else {
				b.wantProblem(a, jpki.ChallengeInvalid)
			}
			b.wantProblem(b.send("POST", "/v1/authentications", req), jpki.ChallengeInvalid) // a second time
		})
	}
}

// TestProblems has a row for every problem that the API can answer with.
func TestProblems(t *testing.T) {
	many := strings.Repeat("9", 1<<20)
	const number = "123456789018" // a My Number by its check digit
	for _, tc := range []struct {
		name         string
		method, path string
		body         func(b *bench) any
		headers      []string
		want         jpki.Problem
	}{
		{"no token", "POST", "/v1/verifications", (*bench).any, []string{"Authorization", ""}, jpki.Unauthorized},
		{"wrong token", "POST", "/v1/verifications", (*bench).any, []string{"Authorization", "Bearer " + bankToken + "x"}, jpki.Unauthorized},
		{"other scheme", "POST", "/v1/verifications", (*bench).any, []string{"Authorization", "Basic " + bankToken}, jpki.Unauthorized},
		{"policies without token", "GET", "/v1/policies", nil, []string{"Authorization", "Bearer"}, jpki.Unauthorized},
		{"anchors without token", "GET", "/v1/trust-anchors", nil, []string{"Authorization", "Bearer "}, jpki.Unauthorized},
		{"no such path", "GET", "/v1/verification", nil, nil, jpki.NotFound},
		{"root", "GET", "/", nil, nil, jpki.NotFound},
		{"slash behind", "POST", "/v1/verifications/", (*bench).any, nil, jpki.NotFound},
		{"other method", "GET", "/v1/verifications", nil, nil, jpki.MethodNotAllowed},
		{"unheard-of method", "BREW", "/v1/policies", nil, nil, jpki.MethodNotAllowed},
		{"query", "POST", "/v1/verifications?at=now", (*bench).any, nil, jpki.Malformed},
		{"too large", "POST", "/v1/verifications", text(`{"binding":"` + many + `"}`), nil, jpki.TooLarge},
		{"empty", "POST", "/v1/verifications", text(""), nil, jpki.Malformed},
		{"not JSON", "POST", "/v1/verifications", text("certificate=x"), nil, jpki.Malformed},
		{"cut", "POST", "/v1/verifications", text(`{"hash":"sha256"`), nil, jpki.Malformed},
		{"an array", "POST", "/v1/challenges", text(`[]`), nil, jpki.Malformed},
		{"null", "POST", "/v1/challenges", text(`null`), nil, jpki.Malformed},
		{"a number for a string", "POST", "/v1/challenges", text(`{"binding":1}`), nil, jpki.Malformed},
		{"null for a string", "POST", "/v1/challenges", text(`{"binding":null}`), nil, jpki.Malformed},
		{"an object for a string", "POST", "/v1/challenges", text(`{"binding":{"a":"b"}}`), nil, jpki.Malformed},
		{"deep", "POST", "/v1/challenges", text(strings.Repeat("[", 100_000)), nil, jpki.Malformed},
		{"two objects", "POST", "/v1/challenges", text(`{}{}`), nil, jpki.Malformed},
		{"a member twice", "POST", "/v1/challenges", text(`{"binding":"a","binding":"b"}`), nil, jpki.Malformed},
		{"a member in capitals", "POST", "/v1/challenges", text(`{"Binding":"a"}`), nil, jpki.Malformed},
		{"an unknown member", "POST", "/v1/challenges", text(`{"colour":"red"}`), nil, jpki.Malformed},
		{"not UTF-8", "POST", "/v1/challenges", text("{\"binding\":\"\xff\"}"), nil, jpki.Malformed},
		{"audience of another script", "POST", "/v1/challenges", text(`{"audience":"銀行"}`), nil, jpki.Malformed},
		{"long binding", "POST", "/v1/challenges", text(`{"binding":"` + strings.Repeat("b", 257) + `"}`), nil, jpki.Malformed},
		{"a form", "POST", "/v1/verifications", (*bench).any, []string{"Content-Type", "application/x-www-form-urlencoded"}, jpki.Malformed},
		{"compressed", "POST", "/v1/verifications", (*bench).any, []string{"Content-Encoding", "gzip"}, jpki.Malformed},
		{"no certificate", "POST", "/v1/verifications", with("certificate", nil), nil, jpki.Malformed},
		{"empty certificate", "POST", "/v1/verifications", with("certificate", ""), nil, jpki.Malformed},
		{"not base64", "POST", "/v1/verifications", with("signature", "a-b_"), nil, jpki.Malformed},
		{"base64 without padding", "POST", "/v1/verifications", with("digest", "YQ"), nil, jpki.Malformed},
		{"digest of another length", "POST", "/v1/verifications", with("digest", "YWJj"), nil, jpki.Malformed},
		{"unknown hash", "POST", "/v1/verifications", with("hash", "sha1"), nil, jpki.Malformed},
		{"time in another form", "POST", "/v1/verifications", with("at", "24 Nov 2026"), nil, jpki.Malformed},
		{"time in the future", "POST", "/v1/verifications", with("at", "2027-01-01T00:00:00Z"), nil, jpki.Malformed},
		{"no challenge", "POST", "/v1/authentications", text(`{"certificate":"YQ==","signature":"YQ=="}`), nil, jpki.Malformed},
		{"unknown challenge", "POST", "/v1/authentications", text(`{"challenge_id":"x","certificate":"YQ==","signature":"YQ=="}`), nil, jpki.ChallengeInvalid},
		{"no certificate to check", "POST", "/v1/certificate-status", text(`{}`), nil, jpki.Malformed},
		{"bad certificate to check", "POST", "/v1/certificate-status", text(`{"certificate":"!"}`), nil, jpki.Malformed},

		{"My Number as binding", "POST", "/v1/challenges", text(`{"binding":"` + number + `"}`), nil, jpki.MyNumberPresent},
		{"My Number within text", "POST", "/v1/challenges", text(`{"binding":"no. 1234-5678-9018!"}`), nil, jpki.MyNumberPresent},
		{"My Number in full width", "POST", "/v1/challenges", text(`{"binding":"１２３４５６７８９０１８"}`), nil, jpki.MyNumberPresent},
		{"My Number escaped", "POST", "/v1/challenges", text(`{"binding":"\u0031\u00323456789018"}`), nil, jpki.MyNumberPresent},
		{"My Number as number", "POST", "/v1/challenges", text(`{"binding":` + number + `}`), nil, jpki.MyNumberPresent},
		{"My Number with exponent", "POST", "/v1/challenges", text(`{"binding":1.23456789018E11}`), nil, jpki.MyNumberPresent},
		{"My Number under an unknown name", "POST", "/v1/challenges", text(`{"my_number":"` + number + `"}`), nil, jpki.MyNumberPresent},
		{"My Number as a name", "POST", "/v1/challenges", text(`{"` + number + `":""}`), nil, jpki.MyNumberPresent},
		{"My Number deep inside", "POST", "/v1/challenges", text(`{"a":[{"b":["` + number + `"]}]}`), nil, jpki.MyNumberPresent},
		{"My Number behind the object", "POST", "/v1/challenges", text(`{} "` + number + `"`), nil, jpki.MyNumberPresent},
		{"My Number behind a mistake", "POST", "/v1/challenges", text(`{"binding":} ` + number), nil, jpki.MyNumberPresent},
		{"My Number where base64 belongs", "POST", "/v1/verifications", with("certificate", number), nil, jpki.MyNumberPresent},
		{"My Number as hash", "POST", "/v1/verifications", with("hash", number), nil, jpki.MyNumberPresent},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBench(t)
			var body any
			if tc.body != nil {
				body = tc.body(b)
			}
			a := b.send(tc.method, tc.path, body, tc.headers...)
			b.wantProblem(a, tc.want)
			if got := b.api.Outcomes(); len(got) != 1 || got[string(tc.want)] != 1 {
				t.Errorf("outcomes %v", got)
			}
			if tc.want == jpki.Unauthorized && a.Header.Get("WWW-Authenticate") != "Bearer" {
				t.Error("no WWW-Authenticate")
			}
			if allow := a.Header.Get("Allow"); tc.want == jpki.MethodNotAllowed && allow != "POST" && allow != "GET" {
				t.Errorf("Allow %q", allow)
			}
			for _, secret := range []string{number, "1234-5678", bankToken, "colour", "binding", "24 Nov"} {
				if strings.Contains(b.log.String(), secret) {
					t.Errorf("%q in the log: %s", secret, b.log.String())
				}
			}
			if strings.Contains(string(a.body), number) {
				t.Errorf("echoed: %s", a.body)
			}
		})
	}
}

func (b *bench) any() any { return b.signed() }

func text(s string) func(*bench) any { return func(*bench) any { return s } }

// with changes a member of a good request; nil removes it.
func with(name string, value any) func(*bench) any {
	return func(b *bench) any {
		req := b.signed()
		if req[name] = value; value == nil {
			delete(req, name)
		}
		return req
	}
}

// TestBase64IsNoMyNumber: twelve digits inside a certificate or signature are chance.
func TestBase64IsNoMyNumber(t *testing.T) {
	b := newBench(t)
	req := b.signed()
	req["signature"] = "+123456789018+" + strings.Repeat("A", 74)
	if !jpki.ContainsMyNumber(req["signature"].(string)) {
		t.Fatal("the example is none")
	}
	if res := b.result(b.send("POST", "/v1/verifications", req)); res.Code != verifier.SignatureWrong {
		t.Errorf("%+v", res)
	}
}

func TestRateLimited(t *testing.T) {
	b := newBench(t, func(_ *api.Config, c *verifier.ChallengesConfig) { c.Max = 1 })
	b.challenge(nil)
	a := b.send("POST", "/v1/challenges", nil)
	b.wantProblem(a, jpki.RateLimited)
	if a.Header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
}

// TestPanic: a fault in one request is answered as a problem, logged without what caused it, and ends nothing else.
func TestPanic(t *testing.T) {
	b := newBench(t)
	good := b.check
	b.check = func() (verifier.Revocation, error) { panic("about " + holderName) }
	b.wantProblem(b.send("POST", "/v1/verifications", b.signed()), jpki.Internal)
	if log := b.log.String(); strings.Contains(log, holderName) || !strings.Contains(log, `"msg":"panic"`) || !strings.Contains(log, `"status":500`) {
		t.Errorf("log %s", log)
	}
	b.check = good
	if res := b.result(b.send("POST", "/v1/verifications", b.signed())); !res.OK() {
		t.Errorf("%+v", res)
	}
	b.check = func() (verifier.Revocation, error) { panic(http.ErrAbortHandler) }
	defer func() {
		if err, ok := recover().(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
			t.Errorf("panic %v", err)
		}
	}()
	b.send("POST", "/v1/verifications", b.signed())
}

func TestRequestID(t *testing.T) {
	b := newBench(t)
	for given, kept := range map[string]bool{
		"req-1_2.3": true, "": false, strings.Repeat("a", 65): false, "a b": false, "<script>": false, "123456789018": false, "x\u00e9": false,
	} {
		a := b.send("GET", "/v1/policies", nil, "X-Request-ID", given)
		if got := a.Header.Get("X-Request-ID"); (got == given) != kept || !kept && len(got) != 32 {
			t.Errorf("%q: %q", given, got)
		}
	}
	if !strings.Contains(b.log.String(), `"request_id":"req-1_2.3"`) {
		t.Error("not logged")
	}
	broken := newBench(t, func(c *api.Config, _ *verifier.ChallengesConfig) { c.Rand = strings.NewReader("") })
	if a := broken.send("GET", "/v1/policies", nil); a.StatusCode != http.StatusInternalServerError {
		t.Errorf("no randomness: %d %s", a.StatusCode, a.body)
	}
}

// TestAccessLog: one line a request, with what was decided and nothing that was sent.
func TestAccessLog(t *testing.T) {
	b := newBench(t)
	req := b.signed()
	b.result(b.send("POST", "/v1/verifications", req))
	b.send("GET", "/customers/taro?address=tokyo", nil)
	lines := strings.Split(strings.TrimSpace(b.log.String()), "\n")
	if len(lines) != 2 {
		t.Fatalf("log %s", b.log.String())
	}
	var line map[string]any
	if err := json.Unmarshal([]byte(lines[0]), &line); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]any{"route": "/v1/verifications", "method": "POST", "status": 200.0, "outcome": "ok", "relying_party": "bank"} {
		if line[name] != want {
			t.Errorf("%s is %v, want %v", name, line[name], want)
		}
	}
	for _, secret := range []string{holderName, holderPlace, "319800217", req["certificate"].(string)[:40], req["signature"].(string)[:40], "taro", "tokyo", "192.0.2.1"} {
		if strings.Contains(b.log.String(), secret) {
			t.Errorf("%q in the log", secret)
		}
	}
}

func TestPoliciesAndAnchors(t *testing.T) {
	b := newBench(t)
	var ps struct {
		Policies []struct {
			SHA256 string
			Policy json.RawMessage
		}
	}
	if err := json.Unmarshal(b.send("GET", "/v1/policies", nil).body, &ps); err != nil || len(ps.Policies) != 2 {
		t.Fatal(err, ps)
	}
	for i, p := range ps.Policies {
		parsed, err := verifier.ParsePolicies(slices.Concat([]byte("["), p.Policy, []byte("]")))
		if err != nil || parsed[0].Digest() != p.SHA256 || p.SHA256 != verifier.SandboxPolicies()[i].Digest() {
			t.Errorf("%v %s", err, p.Policy)
		}
	}
	var as struct {
		TrustAnchors []struct{ Certificate []byte } `json:"trust_anchors"`
	}
	if err := json.Unmarshal(b.send("GET", "/v1/trust-anchors", nil).body, &as); err != nil || len(as.TrustAnchors) != 1 ||
		!bytes.Equal(as.TrustAnchors[0].Certificate, b.anchor.Raw) {
		t.Errorf("%v %+v", err, as)
	}
}

func TestNewRefuses(t *testing.T) {
	clock := func() time.Time { return t0 }
	b := newBench(t)
	good := api.Config{Verifier: b.verifier, Challenges: b.verifier.Challenges(), Store: b.store, Now: clock}
	if _, err := api.New(good); err != nil {
		t.Fatal(err)
	}
	for want, spoil := range map[string]func(*api.Config){
		"Verifier": func(c *api.Config) { c.Verifier = nil },
		"must be the": func(c *api.Config) {
			c.Challenges = must(verifier.NewChallenges(verifier.ChallengesConfig{Now: clock, Rand: rand.Reader}))
		},
		"Store":    func(c *api.Config) { c.Store = nil },
		"Now":      func(c *api.Config) { c.Now = nil },
		"Deadline": func(c *api.Config) { c.Deadline = time.Hour },
		"Rate":     func(c *api.Config) { c.MaxDocument = 1 << 40 },
	} {
		cfg := good
		spoil(&cfg)
		if _, err := api.New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}
