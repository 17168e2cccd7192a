package api_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"io"
	"math/big"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/verifier"
	"github.com/openjpki/jpki/verifier/api"
	"github.com/openjpki/jpki/verifier/store"
)

// documentResult reads the verdict on a document.
func (b *bench) documentResult(a answer) verifier.DocumentResult {
	b.t.Helper()
	var res verifier.DocumentResult
	if err := json.Unmarshal(a.body, &res); err != nil || a.StatusCode != http.StatusOK {
		b.t.Fatalf("status %d, %v: %s", a.StatusCode, err, a.body)
	}
	return res
}

// form makes a form of parts in pairs of name and content, and returns it with its media type.
func form(parts ...string) (body, media string) {
	var out bytes.Buffer
	w := multipart.NewWriter(&out)
	for i := 0; i+1 < len(parts); i += 2 {
		p := must(w.CreateFormField(parts[i]))
		_ = must(io.WriteString(p, parts[i+1]))
	}
	_ = w.Close()
	return out.String(), w.FormDataContentType()
}

func TestDocuments(t *testing.T) {
	b := newBench(t)
	attached, detached := b.document(true), b.document(false)
	send := func(parts ...string) answer {
		body, media := form(parts...)
		return b.send("POST", "/v1/verifications", body, "Content-Type", media)
	}
	for name, a := range map[string]answer{
		"as such":          b.send("POST", "/v1/verifications", string(attached), "Content-Type", "application/pkcs7-mime"),
		"in JSON":          b.send("POST", "/v1/verifications", object{"document": b64(attached), "format": "cms", "user": "u", "store_attributes": true}),
		"in JSON, apart":   b.send("POST", "/v1/verifications", object{"document": b64(detached), "detached": b64(application)}),
		"in a form":        send("document", string(attached), "user", "u", "store_attributes", "false", "existed", t0.Format(time.RFC3339)),
		"in a form, apart": send("detached", string(application), "document", string(detached)),
	} {
		if res := b.documentResult(a); !res.OK() || res.Signatures[0].Attributes == nil || res.Signatures[0].Attributes.Name != holderName {
			t.Errorf("%s: %s", name, a.body)
		}
	}
	if res := b.documentResult(send("document", string(detached), "detached", "another")); res.OK() || res.Code != "digest-mismatch" && res.Indication != verifier.TotalFailed {
		t.Errorf("%+v", res)
	}
	for name, a := range map[string]answer{
		"no document":       send("detached", "x"),
		"twice":             send("document", "x", "document", "x"),
		"unknown part":      send("document", "x", "colour", "red"),
		"not true or false": send("document", "x", "store_attributes", "yes"),
		"no boundary":       b.send("POST", "/v1/verifications", "x", "Content-Type", "multipart/form-data"),
		"cut":               b.send("POST", "/v1/verifications", "--x\r\n", "Content-Type", "multipart/form-data; boundary=x"),
		"of no format":      b.send("POST", "/v1/verifications", "hello", "Content-Type", "application/pdf"),
		"with a digest":     b.send("POST", "/v1/verifications", object{"document": b64(attached), "hash": "sha256"}),
		"digest and format": b.send("POST", "/v1/verifications", with("format", "cms")(b)),
		"text for truth":    b.send("POST", "/v1/verifications", object{"document": b64(attached), "store_attributes": "true"}),
		"compressed":        b.send("POST", "/v1/verifications", string(attached), "Content-Type", "application/pdf", "Content-Encoding", "gzip"),
	} {
		t.Run(name, func(t *testing.T) { b.t = t; b.wantProblem(a, jpki.Malformed) })
	}
	b.t = t
	b.wantProblem(send("document", "x", "user", "123456789018"), jpki.MyNumberPresent)
	b.wantProblem(b.send("POST", "/v1/verifications", strings.Repeat("x", 16<<20+1), "Content-Type", "application/pdf"), jpki.TooLarge)
	b.wantProblem(b.send("POST", "/v1/certificate-status", string(attached), "Content-Type", "application/pdf"), jpki.Malformed)
}

type evidence struct {
	ID               string          `json:"id"`
	Kind             string          `json:"kind"`
	CreatedAt        time.Time       `json:"created_at"`
	DeleteAfter      time.Time       `json:"delete_after"`
	AttributesStored bool            `json:"attributes_stored"`
	Result           json.RawMessage `json:"result"`
	Evidence         json.RawMessage `json:"evidence"`
}

func TestEvidence(t *testing.T) {
	b := newBench(t)
	get := func(id string, headers ...string) (e evidence, a answer) {
		t.Helper()
		a = b.send("GET", "/v1/evidence/"+id, nil, headers...)
		_ = json.Unmarshal(a.body, &e)
		return e, a
	}
	telecom := []string{"Authorization", "Bearer " + telecomToken}

	// What was not asked for is not stored, and attributes come once.
	first := b.documentResult(b.send("POST", "/v1/verifications", object{"document": b64(b.document(true)), "user": "u1"}))
	e, a := get(first.ID)
	if a.StatusCode != 200 || e.Kind != "document" || e.AttributesStored || e.Evidence != nil || bytes.Contains(a.body, []byte(holderName)) || !e.DeleteAfter.Equal(t0.AddDate(0, 0, store.RetentionDays)) {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	b.wantProblem(b.send("POST", "/v1/evidence/"+first.ID+"/reevaluations", object{"policy": "rfc5280"}), jpki.EvidenceNotKept)

	second := b.documentResult(b.send("POST", "/v1/verifications", object{"document": b64(b.document(true)), "user": "u1", "store_attributes": true}))
	if e, a := get(second.ID); !e.AttributesStored || e.Evidence == nil || !bytes.Contains(a.body, []byte(holderName)) {
		t.Errorf("%s", a.body)
	}
	again := b.documentResult(b.send("POST", "/v1/evidence/"+second.ID+"/reevaluations", object{"policy": "sandbox-signature-2026"}))
	if !again.OK() || again.Signatures[0].Attributes == nil {
		t.Errorf("%+v", again)
	}
	other := b.documentResult(b.send("POST", "/v1/evidence/"+second.ID+"/reevaluations", object{"policy": "sandbox-authentication-2026"}))
	if other.OK() || other.Policy.Name != "sandbox-authentication-2026" {
		t.Errorf("%+v", other)
	}
	b.wantProblem(b.send("POST", "/v1/evidence/"+second.ID+"/reevaluations", object{"policy": "none"}), jpki.Malformed)

	third := b.result(b.send("POST", "/v1/verifications", with("user", "u2")(b)))
	if e, a := get(third.ID); e.Kind != "signature" || bytes.Contains(a.body, []byte(holderName)) || bytes.Contains(a.body, []byte(`"certificate":`)) {
		t.Errorf("%s", a.body)
	}
	ch := b.challenge(nil)
	login := b.result(b.send("POST", "/v1/authentications", b.login(ch, object{"user": "u2"})))
	if e, a := get(login.ID); e.Kind != "authentication" {
		t.Errorf("%s", a.body)
	}

	// Another tenant sees nothing of it.
	for _, id := range []string{first.ID, strings.Repeat("0", 32), "x", "..%2f"} {
		_, a := get(id, telecom...)
		b.wantProblem(a, jpki.NotFound)
		b.wantProblem(b.send("DELETE", "/v1/evidence/"+id, nil, telecom...), jpki.NotFound)
		b.wantProblem(b.send("POST", "/v1/evidence/"+id+"/reevaluations", object{"policy": "rfc5280"}, telecom...), jpki.NotFound)
	}
	if a := b.send("POST", "/v1/evidence-deletions", object{"user": "u1"}, telecom...); string(a.body) != "{\"deleted\":0}\n" {
		t.Errorf("%s", a.body)
	}
	if a := b.send("DELETE", "/v1/evidence/"+third.ID, nil); a.StatusCode != 204 || len(a.body) != 0 {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	b.wantProblem(b.send("DELETE", "/v1/evidence/"+third.ID, nil), jpki.NotFound)
	if a := b.send("POST", "/v1/evidence-deletions", object{"user": "u1"}); string(a.body) != "{\"deleted\":2}\n" {
		t.Errorf("%s", a.body)
	}
	_, a = get(second.ID)
	b.wantProblem(a, jpki.NotFound)
	// Time passes.
	b.now = t0.AddDate(0, 0, store.RetentionDays)
	_, a = get(login.ID)
	b.wantProblem(a, jpki.NotFound)
}

// TestUses: what anybody asked about a certificate is on record under it, whoever asked.
func TestUses(t *testing.T) {
	b := newBench(t)
	req := b.signed()
	b.result(b.send("POST", "/v1/verifications", req))
	b.now = b.now.Add(time.Minute)
	b.result(b.send("POST", "/v1/certificate-status", object{"certificate": req["certificate"], "purpose": "signature_verification"}, "Authorization", "Bearer "+telecomToken))
	b.now = b.now.Add(time.Minute)
	b.result(b.send("POST", "/v1/certificate-status", object{"certificate": req["certificate"]}))
	var der []byte
	_ = json.Unmarshal([]byte(`"`+req["certificate"].(string)+`"`), &der)
	sum := sha256.Sum256(der)
	uses, err := b.store.Uses(t.Context(), sum[:], 10)
	var got []string
	for _, u := range uses {
		got = append(got, u.Name+" "+u.Action+" "+u.Outcome)
	}
	if want := "bank liveness_check ok|telecom signature_verification ok|bank verification ok"; err != nil || strings.Join(got, "|") != want {
		t.Errorf("%v %v", err, got)
	}
}

func TestScopes(t *testing.T) {
	b := newBench(t)
	b.token(bank, "narrow", t0.Add(time.Hour), store.Status)
	narrow := []string{"Authorization", "Bearer narrow"}
	_, cert := b.issue(authOID)
	b.result(b.send("POST", "/v1/certificate-status", object{"certificate": b64(cert)}, narrow...))
	b.wantProblem(b.send("POST", "/v1/verifications", b.signed(), narrow...), jpki.Forbidden)
	b.wantProblem(b.send("POST", "/v1/verifications/batch", "{}", append(narrow, "Content-Type", "application/x-ndjson")...), jpki.Forbidden)
	b.wantProblem(b.send("GET", "/v1/evidence/"+strings.Repeat("0", 32), nil, narrow...), jpki.Forbidden)
	if a := b.send("GET", "/v1/policies", nil, narrow...); a.StatusCode != 200 {
		t.Errorf("%s", a.body)
	}
	b.now = t0.Add(time.Hour)
	b.wantProblem(b.send("GET", "/v1/policies", nil, narrow...), jpki.Unauthorized)
}

// TestRevokedTokenEnds: at the latest a second after.
func TestRevokedTokenEnds(t *testing.T) {
	b := newBench(t)
	token := b.token(bank, "short", time.Time{}, store.Verify)
	short := []string{"Authorization", "Bearer short"}
	if a := b.send("GET", "/v1/policies", nil, short...); a.StatusCode != 200 {
		t.Fatalf("%s", a.body)
	}
	if err := b.store.RevokeToken(t.Context(), token.ID, b.now); err != nil {
		t.Fatal(err)
	}
	b.now = b.now.Add(time.Second)
	b.wantProblem(b.send("GET", "/v1/policies", nil, short...), jpki.Unauthorized)
}

// TestClientCertificate: the key of a client certificate stands for a token.
func TestClientCertificate(t *testing.T) {
	b := newBench(t)
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "anything"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der := must(x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key))
	cert := must(x509.ParseCertificate(der))
	server := httptest.NewUnstartedServer(b.api)
	server.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	server.StartTLS()
	defer server.Close()
	client := server.Client()
	client.Transport.(*http.Transport).TLSClientConfig.Certificates = []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}
	status := func() int {
		resp := must(client.Get(server.URL + "/v1/policies"))
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	if got := status(); got != 401 {
		t.Errorf("a stranger: %d", got)
	}
	c := store.Credential{Kind: store.ClientCertificate, Hash: sha256.Sum256(cert.RawSubjectPublicKeyInfo)}
	if _, err := b.store.AddCredential(t.Context(), telecom, c, []store.Scope{store.Verify}, time.Time{}, t0); err != nil {
		t.Fatal(err)
	}
	if got := status(); got != 200 {
		t.Errorf("a tenant: %d", got)
	}
}

func TestIdempotency(t *testing.T) {
	b := newBench(t)
	req := b.signed()
	key := []string{"Idempotency-Key", "k1"}
	first := b.send("POST", "/v1/verifications", req, key...)
	b.now = b.now.Add(time.Minute)
	second := b.send("POST", "/v1/verifications", req, key...)
	if b.result(first).Attributes == nil || !bytes.Equal(first.body, second.body) || second.Header.Get("Idempotency-Replayed") != "true" || first.Header.Get("Idempotency-Replayed") != "" {
		t.Errorf("%s\n%s", first.body, second.body)
	}
	b.wantProblem(b.send("POST", "/v1/verifications", b.signed(), key...), jpki.IdempotencyReused)
	b.wantProblem(b.send("POST", "/v1/certificate-status", req, key...), jpki.IdempotencyReused)
	if res := b.result(b.send("POST", "/v1/verifications", req, "Idempotency-Key", "k1", "Authorization", "Bearer "+telecomToken)); res.ID == b.result(first).ID {
		t.Error("another tenant's key")
	}
	for _, bad := range []string{"a\tb", "鍵", strings.Repeat("k", 256)} {
		b.wantProblem(b.send("POST", "/v1/verifications", req, "Idempotency-Key", bad), jpki.Malformed)
	}
	b.wantProblem(b.send("POST", "/v1/verifications", req, "Idempotency-Key", "123456789018"), jpki.MyNumberPresent)

	// A log-in's challenge is used once, but its answer can be had again; what came to nothing can be tried again.
	ch := b.challenge(nil)
	in := b.login(ch, nil)
	once, again := b.send("POST", "/v1/authentications", in, "Idempotency-Key", "k2"), b.send("POST", "/v1/authentications", in, "Idempotency-Key", "k2")
	if !bytes.Equal(once.body, again.body) || !func() bool { r := b.result(again); return r.OK() }() {
		t.Errorf("%s\n%s", once.body, again.body)
	}
	b.wantProblem(b.send("POST", "/v1/verifications", "{", "Idempotency-Key", "k3"), jpki.Malformed)
	b.result(b.send("POST", "/v1/verifications", req, "Idempotency-Key", "k3"))
	good := b.check
	b.check = func() (verifier.Revocation, error) { panic("fault") }
	b.wantProblem(b.send("POST", "/v1/verifications", req, "Idempotency-Key", "k4"), jpki.Internal)
	b.check = good
	b.result(b.send("POST", "/v1/verifications", req, "Idempotency-Key", "k4"))
}

// TestDeadline: what is not ready in time has no verdict, and leaves nothing.
func TestDeadline(t *testing.T) {
	b := newBench(t, func(c *api.Config, _ *verifier.ChallengesConfig) { c.Deadline = 20 * time.Millisecond })
	req := b.signed()
	good := b.check
	b.blocks = true
	b.check = good
	b.wantProblem(b.send("POST", "/v1/verifications", req, "Idempotency-Key", "k"), jpki.DeadlineExceeded)
	a := b.batch("/v1/verifications/batch", req)
	if len(a) != 1 || a[0].Problem == nil || a[0].Problem.Problem() != jpki.DeadlineExceeded {
		t.Errorf("%+v", a)
	}
	b.blocks = false
	b.api = must(api.New(api.Config{Verifier: b.verifier, Challenges: b.verifier.Challenges(), Store: b.store, Now: func() time.Time { return b.now }}))
	b.result(b.send("POST", "/v1/verifications", req, "Idempotency-Key", "k", "Prefer", `respond-async, wait=5`))
	for _, bad := range []string{"wait=0", "wait", "wait=soon", "wait=70000"} {
		b.wantProblem(b.send("POST", "/v1/verifications", req, "Prefer", bad), jpki.Malformed)
	}
	b.blocks = true
	began := time.Now()
	b.wantProblem(b.send("POST", "/v1/verifications", b.signed(), "Prefer", "wait=1"), jpki.DeadlineExceeded)
	if time.Since(began) > 8*time.Second {
		t.Error("Prefer: wait does not count")
	}
}

func TestRateAndQuota(t *testing.T) {
	b := newBench(t)
	if err := b.store.ChangeTenant(t.Context(), store.Tenant{ID: bank, Name: "bank", Rate: 2, DailyQuota: 3, RetentionDays: 1}); err != nil {
		t.Fatal(err)
	}
	get := func() answer { return b.send("GET", "/v1/policies", nil) }
	for range 4 {
		if a := get(); a.StatusCode != 200 {
			t.Fatalf("%s", a.body)
		}
	}
	a := get()
	b.wantProblem(a, jpki.RateLimited)
	if a.Header.Get("Retry-After") != "1" {
		t.Error(a.Header)
	}
	if a := b.send("GET", "/v1/policies", nil, "Authorization", "Bearer "+telecomToken); a.StatusCode != 200 {
		t.Errorf("another tenant: %s", a.body)
	}
	b.now = b.now.Add(500 * time.Millisecond)
	if a := get(); a.StatusCode != 200 {
		t.Errorf("%s", a.body)
	}
	b.now = b.now.Add(time.Hour)
	given := 0
	for _, l := range b.batch("/v1/verifications/batch", b.signed(), b.signed(), b.signed(), b.signed(), b.signed()) {
		if l.Problem == nil {
			given++
		} else if l.Problem.Problem() != jpki.RateLimited {
			t.Errorf("%+v", l.Problem)
		}
	}
	if given != 3 {
		t.Errorf("%d verdicts, want 3", given)
	}
	a = b.send("POST", "/v1/verifications", b.signed())
	b.wantProblem(a, jpki.RateLimited)
	if n, err := strconv.Atoi(a.Header.Get("Retry-After")); err != nil || n != 20*3600 { // it is four in the morning
		t.Errorf("Retry-After %d %v", n, err)
	}
	b.now = b.now.Add(20 * time.Hour)
	b.result(b.send("POST", "/v1/verifications", b.signed()))
}

// A batchLine is what is answered for a line.
type batchLine struct {
	Line    int                  `json:"line"`
	Ref     string               `json:"ref"`
	Result  *verifier.Result     `json:"result"`
	Problem *jpki.ProblemDetails `json:"problem"`
}

// batch sends lines, objects or text, and returns the answers.
func (b *bench) batch(path string, lines ...any) (out []batchLine) {
	b.t.Helper()
	var body strings.Builder
	for _, l := range lines {
		if s, ok := l.(string); ok {
			body.WriteString(s + "\n")
		} else {
			body.Write(append(must(json.Marshal(l)), '\n'))
		}
	}
	a := b.send("POST", path, body.String(), "Content-Type", "application/x-ndjson")
	if a.StatusCode != 200 || a.Header.Get("Content-Type") != "application/x-ndjson" {
		b.t.Fatalf("%d %s", a.StatusCode, a.body)
	}
	for text := range strings.Lines(string(a.body)) {
		var l batchLine
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			b.t.Fatalf("%v: %s", err, text)
		}
		out = append(out, l)
	}
	return out
}

func TestBatch(t *testing.T) {
	b := newBench(t)
	var lines []any
	for i := range 300 {
		switch i % 10 {
		case 3:
			lines = append(lines, "{")
		case 5:
			lines = append(lines, with("ref", "r"+strconv.Itoa(i))(b), "  ")
		case 7:
			lines = append(lines, object{"document": b64(b.document(true))})
		case 8:
			lines = append(lines, `{"user":"123456789018"}`)
		default:
			lines = append(lines, b.signed())
		}
	}
	lines = append(lines, strings.Repeat(" ", 1<<20+1), with("ref", `a"b`)(b), b.signed())
	got := b.batch("/v1/verifications/batch", lines...)
	n, counts := 0, map[string]int{}
	for _, l := range got {
		if l.Line <= n {
			t.Fatalf("line %d after %d", l.Line, n)
		}
		n = l.Line
		if l.Problem != nil {
			counts[string(l.Problem.Problem())]++
			continue
		}
		counts[string(l.Result.Code)]++
		if l.Ref != "" {
			counts["ref"]++
		}
		if a := b.send("GET", "/v1/evidence/"+l.Result.ID, nil); a.StatusCode != 200 {
			t.Errorf("line %d: %s", l.Line, a.body)
		}
	}
	want := map[string]int{"ok": 241, "malformed": 31, "my-number-present": 30, "too-large": 1, "ref": 30}
	for name, w := range want {
		if counts[name] != w {
			t.Errorf("%d %s, want %d: %v", counts[name], name, w, counts)
		}
	}
	_, cert := b.issue(authOID)
	if got := b.batch("/v1/certificate-status/batch", object{"certificate": b64(cert), "ref": "c"}, object{"certificate": b64(cert), "purpose": "curiosity"}); len(got) != 2 || got[0].Ref != "c" || !got[0].Result.OK() || got[1].Problem.Problem() != jpki.Malformed {
		t.Errorf("%+v", got)
	}
	b.wantProblem(b.send("POST", "/v1/verifications/batch", "{}"), jpki.Malformed)
}

// TestBatchStreams: answers come while lines are still being sent, and a caller who goes away ends it.
func TestBatchStreams(t *testing.T) {
	b := newBench(t)
	var ended sync.WaitGroup
	ended.Add(1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer ended.Done()
		b.api.ServeHTTP(w, r)
	}))
	defer server.Close()
	b.now = later(t0, time.Now()) // deadlines are of the connection
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	body, in := io.Pipe()
	req := must(http.NewRequestWithContext(ctx, http.MethodPost, server.URL+"/v1/certificate-status/batch", body))
	req.Header.Set("Authorization", "Bearer "+bankToken)
	req.Header.Set("Content-Type", "application/x-ndjson")
	resp := must(http.DefaultClient.Do(req))
	defer func() { _ = resp.Body.Close() }()
	dec := json.NewDecoder(resp.Body)
	_, cert := b.issue(authOID)
	for i := range 3 {
		_ = must(in.Write(append(must(json.Marshal(object{"certificate": b64(cert)})), '\n')))
		var l batchLine
		if err := dec.Decode(&l); err != nil || l.Line != i+1 {
			t.Fatalf("%v %+v", err, l)
		}
	}
	cancel()
	ended.Wait()
}

// TestNothingPersonal: after every kind of request neither the log nor the database's files hold a name, an address, a serial or
// a user's name.
func TestNothingPersonal(t *testing.T) {
	b := newBench(t)
	req := with("user", "customer-4711")(b).(object)
	var der []byte
	_ = json.Unmarshal([]byte(`"`+req["certificate"].(string)+`"`), &der)
	for range 2 {
		b.send("POST", "/v1/verifications", req, "Idempotency-Key", "order-0815")
	}
	req["store_attributes"] = true
	res := b.result(b.send("POST", "/v1/verifications", req))
	doc := b.documentResult(b.send("POST", "/v1/verifications", object{"document": b64(b.document(true)), "user": "customer-4711", "store_attributes": true}))
	b.send("POST", "/v1/evidence/"+doc.ID+"/reevaluations", object{"policy": "rfc5280"})
	b.send("GET", "/v1/evidence/"+res.ID, nil)
	b.batch("/v1/verifications/batch", req, "{", b.signed())
	b.batch("/v1/certificate-status/batch", object{"certificate": req["certificate"]})
	b.send("POST", "/v1/authentications", b.login(b.challenge(nil), object{"user": "customer-4711"}))
	b.check = func() (verifier.Revocation, error) {
		return verifier.Revocation{}, &verifier.StatusError{Failure: verifier.CheckFailed}
	}
	b.send("POST", "/v1/verifications", b.signed())
	b.send("POST", "/v1/evidence-deletions", object{"user": "customer-4711"})
	texts := map[string]string{"log": b.log.String()}
	for _, name := range []string{b.file, b.file + "-wal"} {
		texts[name] = string(must(os.ReadFile(name)))
	}
	sum := sha256.Sum256(der)
	cert := must(x509.ParseCertificate(der))
	for where, text := range texts {
		for _, secret := range []string{
			holderName, holderPlace, "319800217", "customer-4711", "order-0815", bankToken, b64(der)[:60], string(der[:60]), hex.EncodeToString(sum[:]), string(sum[:]),
			b64(sum[:]), string(cert.SerialNumber.Bytes()), hex.EncodeToString(cert.SerialNumber.FillBytes(make([]byte, 16))),
		} {
			if strings.Contains(text, secret) {
				t.Errorf("%q is in %s", secret, where)
			}
		}
		if len(text) < 1000 {
			t.Errorf("%s has %d octets only", where, len(text))
		}
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
