package main

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"maps"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/acme"
	"github.com/openjpki/jpki/cmd/internal/sandbox"
	"github.com/openjpki/jpki/hsm"
)

var update = flag.Bool("update", false, "write docs/security.md's tables anew")

// A role is somebody who calls: with a client certificate, or a header, or nothing.
type role struct {
	name   string
	client *http.Client
	header []string
}

// A matrix is what every role may do at every route of one listener: a cell is "yes" if the caller was let in, whatever then was wrong
// with what it sent, else the HTTP status of the refusal.
type matrix struct {
	name   string // of the table in docs/security.md
	base   string
	roles  []role
	routes []string                                                     // METHOD /path/{parameter}
	ask    func(t *testing.T, r role, method, path string) (a answered) // makes the path and the body
}

// Who may call what is a table in docs/security.md, and this test asks every route as every role whether that is so. A route that is in
// an OpenAPI document, or in the list of the enrolment's, and not in the table fails the test until somebody has decided and read the
// new row (-update writes it). Nobody without credentials of ours is let in anywhere but at the routes that public names.
func TestGoldenMatrix(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p, env := start(t, dir, 0)
	if err := p.waitFor(func() bool { return strings.Contains(p.out.String(), "steps held") }); err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile("../../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(doc)
	for _, m := range []matrix{authorityMatrix(t, dir, env), verifierMatrix(t, dir, env), enrolmentMatrix(t, dir, env), publicMatrix(env), adminMatrix(env)} {
		table := m.run(t)
		begin, end := "<!-- matrix "+m.name+" -->\n", "<!-- end -->\n"
		before, rest, found := strings.Cut(text, begin)
		old, after, closed := strings.Cut(rest, end)
		if !found || !closed {
			t.Fatalf("docs/security.md has no table between %q and %q", begin, end)
		}
		if diff := cmp.Diff(strings.Split(old, "\n"), strings.Split(table, "\n")); diff != "" && !*update {
			t.Errorf("who may call what at the %s is not what docs/security.md says (-: the document, +: the sandbox):\n%s", m.name, diff)
		}
		text = before + begin + table + end + after
	}
	if *update {
		if err := os.WriteFile("../../docs/security.md", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	p.end(t)
}

// public are the routes that need no credentials, and why.
var public = map[string]string{
	"GET /openapi.yaml": "description", "GET /docs": "description", "GET /.well-known/ssf-configuration": "public keys and addresses",
	"GET /.well-known/jwks.json": "public keys", "GET /.well-known/receipt-keys.json": "public keys",
	"POST /holder/v1/challenges": "a card's signature decides", "POST /holder/v1/phone-enrolments": "a card's signature decides", "POST /holder/v1/log-ins": "a card's signature decides",
	"POST /holder/v1/record": "a log-in's token decides", "POST /holder/v1/consents": "a log-in's token decides", "POST /holder/v1/consent-withdrawals": "a card's signature decides",
	"GET /.well-known/consent-receipt-keys": "public keys",
	"GET /health":                           "no secret", "GET /roots": "public", "GET /root/{sha256}": "public", "GET /provisioners": "public keys",
}

// open reports whether a route needs no credentials. Phones have an ACME account's key, whose signature over each request decides.
func open(route string) bool {
	_, named := public[route]
	return named || strings.Contains(route, " /acme/{provisionerID}/")
}

// harmless are the routes at which somebody without credentials gets what they ask for.
var harmless = []string{"POST /holder/v1/challenges"}

// run asks every route as every role, and writes the table.
func (m matrix) run(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("| route |")
	for _, r := range m.roles {
		b.WriteString(" " + r.name + " |")
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(m.roles)) + "\n")
	for _, route := range m.routes {
		method, path, _ := strings.Cut(route, " ")
		b.WriteString("| `" + route + "` |")
		for _, r := range m.roles {
			a := m.ask(t, r, method, path)
			c := a.cell()
			if method == "POST" && a.status/100 == 2 && open(route) && !slices.Contains(harmless, route) {
				t.Errorf("%s: %s does what %s asks without a signature: HTTP status %d, %s", m.name, route, r.name, a.status, cut(a.body))
			}
			if strings.HasPrefix(r.name, "no ") && c == "yes" && !open(route) && m.name != "status zone" && m.name != "admin" {
				t.Errorf("%s: %s lets in who shows %s: HTTP status %d, %s", m.name, route, r.name, a.status, cut(a.body))
			}
			if a.status >= 500 {
				t.Errorf("%s: %s of %s: HTTP status %d, %s", m.name, route, r.name, a.status, cut(a.body))
			}
			b.WriteString(" " + c + " |")
		}
		b.WriteString("\n")
	}
	return b.String()
}

// cell says whether somebody was let in.
func (a answered) cell() string {
	var p jpki.ProblemDetails
	_ = json.Unmarshal(a.body, &p)
	line, _, _ := bytes.Cut(a.body, []byte("\n"))
	var first struct { // of a batch
		Problem *jpki.ProblemDetails `json:"problem"`
	}
	switch {
	case a.status == http.StatusForbidden && strings.Contains(p.Detail, "not connected to an authority"), a.status == http.StatusForbidden && strings.Contains(p.Detail, "signature"):
		return "yes" // who asks was not the matter
	case a.status == http.StatusUnauthorized, a.status == http.StatusForbidden, a.status == http.StatusNotFound && p.Problem() == jpki.NotFound:
		return fmt.Sprint(a.status)
	case a.status == http.StatusOK && json.Unmarshal(line, &first) == nil && first.Problem != nil && (first.Problem.Status == 401 || first.Problem.Status == 403):
		return fmt.Sprint(first.Problem.Status)
	}
	return "yes"
}

// routesOf reads an OpenAPI document that is served.
func routesOf(t *testing.T, c *http.Client, base string) []string {
	t.Helper()
	var doc struct {
		Paths map[string]map[string]any `yaml:"paths"`
	}
	if err := yaml.Unmarshal(send(t, c, "GET", base+"/openapi.yaml", "", nil).body, &doc); err != nil {
		t.Fatal(err)
	}
	var out []string
	for path, item := range doc.Paths {
		for method := range item {
			if slices.Contains([]string{"get", "put", "post", "delete", "patch", "head", "options", "trace"}, method) {
				out = append(out, strings.ToUpper(method)+" "+path)
			}
		}
	}
	if len(out) < 10 {
		t.Fatalf("the OpenAPI document of %s has %d routes", base, len(out))
	}
	slices.SortFunc(out, func(a, b string) int {
		m, p, _ := strings.Cut(a, " ")
		n, q, _ := strings.Cut(b, " ")
		return strings.Compare(p+" "+m, q+" "+n)
	})
	return out
}

// A forger makes client certificates.
type forger struct {
	cert *x509.Certificate
	key  any
}

// newForger is an authority that calls itself as ours does and is another.
func newForger(t *testing.T, like *x509.Certificate) forger {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: like.SerialNumber, RawSubject: like.RawSubject, SubjectKeyId: like.SubjectKeyId, NotBefore: like.NotBefore, NotAfter: like.NotAfter,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return forger{cert, key}
}

// stolen is the sandbox's own infrastructure CA: what a mistake of its operator could sign.
func stolen(t *testing.T, dir string) forger {
	t.Helper()
	cert, err := sandbox.ReadCertificate(filepath.Join(dir, "infrastructure", "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := hsm.Open(t.Context(), hsm.FileURI(filepath.Join(dir, "infrastructure", "ca.key")))
	if err != nil {
		t.Fatal(err)
	}
	return forger{cert, key}
}

// station makes a client certificate with a new key; change may be nil.
func (f forger) station(t *testing.T, name string, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{Country: []string{"JP"}, Organization: []string{"JPKI-SANDBOX"}, CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, f.cert, key.Public(), f.key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// stationRoles are those who call the authority and the enrolment.
func stationRoles(t *testing.T, dir string, env sandbox.Env) []role {
	t.Helper()
	roots := x509.NewCertPool()
	root, err := sandbox.ReadCertificate(env.StationCA)
	if err != nil {
		t.Fatal(err)
	}
	roots.AddCert(root)
	with := func(pairs ...tls.Certificate) *http.Client {
		return newClient(&tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if len(pairs) == 0 {
				return new(tls.Certificate), nil
			}
			return &pairs[0], nil // whatever the server says that it accepts
		}})
	}
	enrolled := func(name string) *http.Client {
		base := filepath.Join(dir, "infrastructure", name)
		pair, err := tls.LoadX509KeyPair(base+".crt", base+".key")
		if err != nil {
			t.Fatal(err)
		}
		return with(pair)
	}
	return []role{
		{"no certificate", with(), nil},
		{"no CA of ours", with(newForger(t, root).station(t, "aoba-counter-1", nil)), nil},
		{"no enrolled key", with(stolen(t, dir).station(t, "aoba-counter-1", nil)), nil},
		{"no certificate, tenant's token", with(), []string{"Authorization", "Bearer " + env.VerifierToken}},
		{"counter elsewhere", enrolled("minato-counter-1"), nil},
		{"call centre", enrolled("hotline"), nil},
		{"register", enrolled("register"), nil},
		{"status server", enrolled("status-1"), nil},
		{"operator of a verifier", enrolled("verifier-1"), nil},
		{"counter", enrolled("aoba-counter-1"), nil},
	}
}

func fileText(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// certificationRequest is one for a new P-256 key.
func certificationRequest(t *testing.T, name string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

// authorityMatrix asks with bodies that are well formed, so that who asks is looked at, and come to nothing: the card exists, and
// what is asked for it is wrong, or it does not exist.
func authorityMatrix(t *testing.T, dir string, env sandbox.Env) matrix {
	t.Helper()
	roles := stationRoles(t, dir, env)
	sample, err := sandbox.ReadCertificate(env.SampleSignCert)
	if err != nil {
		t.Fatal(err)
	}
	id, err := env.CertID(sample)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, rsaKey)
	if err != nil {
		t.Fatal(err)
	}
	request := map[string]any{"kind": "card-auth", "request": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr}))}
	now := time.Now().UTC().Truncate(time.Second)
	terms := map[string]any{"tenant": env.RPTenant, "purpose": "account", "description": "to keep the address up to date", "items": []string{"address"}, "lang": "en"}
	signed := map[string]any{"version": "x", "reference": "x", "issued_at": now, "signature": []byte("x")}
	maps.Copy(signed, terms)
	user := strings.Repeat("A", 32)
	bodies := map[string]any{
		"POST /station/v1/certificates":        map[string]any{"holder": env.SampleHolder, "token": "matrix-card", "requests": []any{request}},
		"POST /station/v1/renewals":            map[string]any{"holder": env.SampleHolder, "token": "matrix-card", "requests": []any{request}},
		"POST /station/v1/deliveries":          map[string]any{"token": "sample-card"},
		"POST /station/v1/suspensions":         map[string]any{"certificate": id, "cause": "lost"},
		"POST /station/v1/resumptions":         map[string]any{"certificate": id, "cause": "found"},
		"POST /station/v1/revocations":         map[string]any{"certificate": id, "cause": "holder-request"},
		"POST /station/v1/batches":             map[string]any{"key": "matrix-1", "holder": env.SampleHolder, "token": "matrix-card", "requests": []any{request}},
		"POST /station/v1/phone-enrolments":    map[string]any{"holder": env.SampleHolder, "token": "matrix-phone", "parent": id, "kinds": []string{"phone-auth"}},
		"POST /registry/v1/events":             map[string]any{"id": "matrix-1", "holder": "nobody-at-all", "type": "died", "effective_at": now},
		"POST /registry/v1/batches":            map[string]any{"id": "matrix-2", "holder": "nobody-at-all", "type": "died", "effective_at": now},
		"POST /responder/v1/certificates":      map[string]any{"issuer": "sign-9", "request": certificationRequest(t, "status-1")},
		"POST /relying-party/v1/identities":    map[string]any{"tenant": env.RPTenant, "purpose": "account", "id": "sign-1/00000000000000000000000000000001"},
		"POST /relying-party/v1/watches":       map[string]any{"tenant": env.RPTenant, "watches": []any{map[string]any{"user": user, "purpose": "account"}}},
		"POST /relying-party/v1/watch-endings": map[string]any{"tenant": env.RPTenant, "watches": []any{map[string]any{"user": user, "purpose": "account"}}},
		"POST /relying-party/v1/consent-texts": terms,
		"POST /relying-party/v1/consents":      signed,
		"POST /relying-party/v1/attributes":    map[string]any{"tenant": env.RPTenant, "user": user, "purpose": "account"},
		"POST /relying-party/v1/uses":          map[string]any{"tenant": env.RPTenant, "uses": []any{map[string]any{"id": "m1", "user": user, "action": "verification", "purpose": "account", "at": now}}},
		"POST /holder/v1/phone-enrolments":     map[string]any{"challenge": "x", "token": "matrix-phone", "kinds": []string{"phone-auth"}, "certificate": string(fileText(t, env.SampleSignCert)), "signature": []byte("x")},
		"GET /station/v1/certificates":         "?holder=" + env.SampleHolder,
		"GET /relying-party/v1/watches":        "?tenant=" + env.RPTenant,
		"GET /relying-party/v1/consents":       "?tenant=" + env.RPTenant,
	}
	n := 0
	ask := func(t *testing.T, r role, method, path string) answered {
		body := bodies[method+" "+path]
		query, _ := body.(string)
		url := env.CAURL + strings.ReplaceAll(path, "{token}", "sample-card") + query
		if method == "GET" {
			a := send(t, r.client, method, url, "", nil, r.header...)
			if r.name == "counter elsewhere" && bytes.Contains(a.body, []byte(id.Serial.String())) {
				t.Errorf("%s shows a counter another municipality's certificates", path)
			}
			return a
		}
		if body == nil {
			body = map[string]any{}
		}
		text, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		media := "application/json"
		if strings.HasSuffix(path, "/batches") {
			media, text = "application/x-ndjson", append(text, '\n')
		}
		n++
		return send(t, r.client, method, url, media, text, append([]string{"Idempotency-Key", fmt.Sprintf("matrix-%d", n)}, r.header...)...)
	}
	return matrix{"authority", env.CAURL, roles, routesOf(t, roles[0].client, env.CAURL), ask}
}

// otherBank is another tenant of the verifier's.
const otherBank = "5835678256246"

func verifierMatrix(t *testing.T, dir string, env sandbox.Env) matrix {
	t.Helper()
	c := newClient(nil)
	run := func(args ...string) string {
		out, errOut, code := tool(t, append(args, "-dir", dir)...)
		if code != 0 {
			t.Fatalf("jpki %s: %s", strings.Join(args, " "), errOut)
		}
		return strings.TrimSpace(out)
	}
	bearer := func(token string) []string { return []string{"Authorization", "Bearer " + token} }
	run("tenant", "add", otherBank, "-name", "other-bank")
	roles := []role{{"no token", c, nil}, {"no token of ours", c, bearer(rand.Text())}}
	for _, scope := range []string{"verify", "status", "evidence", "watch", "consent", "holder"} {
		roles = append(roles, role{"`" + scope + "`", c, bearer(run("tenant", "token", env.RPTenant, "-scopes", scope))})
	}
	roles = append(roles, role{"another tenant", c, bearer(run("tenant", "token", otherBank, "-scopes", "verify,status,evidence,watch,consent,holder"))})

	own := bearer(env.VerifierToken)
	digest := sha256.Sum256([]byte("matrix"))
	key, err := hsm.Open(t.Context(), hsm.FileURI(env.SampleSignKey))
	if err != nil {
		t.Fatal(err)
	}
	signature, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	sample, err := sandbox.ReadCertificate(env.SampleSignCert)
	if err != nil {
		t.Fatal(err)
	}
	order, err := json.Marshal(map[string]any{"certificate": sample.Raw, "digest": digest[:], "hash": "sha256", "signature": signature})
	if err != nil {
		t.Fatal(err)
	}
	made := func(path string, body []byte, field string) string {
		a := send(t, c, "POST", env.VerifierURL+path, "application/json", body, own...)
		var out map[string]any
		if err := json.Unmarshal(a.body, &out); err != nil || a.status/100 != 2 {
			t.Fatalf("%s: HTTP status %d, %s", path, a.status, a.body)
		}
		id, _ := out[field].(string)
		if id == "" {
			t.Fatalf("%s: no %s in %s", path, field, a.body)
		}
		return id
	}
	// Each thing is made anew for each question, for some of them end it.
	object := func(path string) (id string, end func()) {
		switch {
		case strings.HasPrefix(path, "/v1/evidence/"):
			return made("/v1/verifications", order, "id"), func() {}
		case strings.HasPrefix(path, "/v1/endpoints/"):
			id = made("/v1/endpoints", []byte(`{"url":"https://receiver.example/hook"}`), "id")
			return id, func() { send(t, c, "DELETE", env.VerifierURL+"/v1/endpoints/"+id, "", nil, own...) }
		case strings.HasPrefix(path, "/v1/ssf/streams/"):
			id = made("/v1/ssf/streams", []byte(`{}`), "stream_id")
			return id, func() { send(t, c, "DELETE", env.VerifierURL+"/v1/ssf/streams?stream_id="+id, "", nil, own...) }
		}
		return "", func() {}
	}
	ask := func(t *testing.T, r role, method, path string) answered {
		if strings.Contains(path, "{id}") {
			id, end := object(path)
			defer end()
			path = strings.ReplaceAll(path, "{id}", id)
		}
		if method == "GET" || method == "DELETE" {
			return send(t, r.client, method, env.VerifierURL+path, "", nil, r.header...)
		}
		body, media := []byte("{}"), "application/json"
		if strings.HasSuffix(path, "/batch") {
			media, body = "application/x-ndjson", []byte("{}\n")
		}
		if strings.HasSuffix(path, "/reevaluations") {
			body = []byte(`{"policy":"rfc5280"}`)
		}
		return send(t, r.client, method, env.VerifierURL+path, media, body, r.header...)
	}
	return matrix{"verifier", env.VerifierURL, roles, routesOf(t, c, env.VerifierURL), ask}
}

// enrolmentMatrix asks without tokens and signatures: what is left of a request then is who has the key of the connection.
func enrolmentMatrix(t *testing.T, dir string, env sandbox.Env) matrix {
	t.Helper()
	roles := stationRoles(t, dir, env)
	csr := certificationRequest(t, "aoba-counter-1")
	ask := func(t *testing.T, r role, method, path string) answered {
		media := "application/json"
		body, err := json.Marshal(map[string]any{"csr": csr, "ott": unsignedToken(map[string]any{"sub": "aoba-counter-1", "iss": "helpdesk"}), "serial": "1", "passive": true})
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(path, "/acme/") {
			media, body = "application/jose+json", []byte(`{"protected":"e30","payload":"","signature":""}`)
		}
		if path == "/rekey" || path == "/renew" {
			// A counter of the table gets what it asks for here: it is a renewal of its own. The request names another.
			body = []byte(`{"csr":` + quoted(certificationRequest(t, "somebody-else")) + `}`)
		}
		for from, to := range map[string]string{"{provisionerID}": "phone-step", "{sha256}": strings.Repeat("0", 64), "{accID}": "a", "{ordID}": "o", "{authzID}": "z", "{chID}": "c", "{certID}": "t"} {
			path = strings.ReplaceAll(path, from, to)
		}
		if method == "GET" || method == "HEAD" {
			body, media = nil, ""
		}
		return send(t, r.client, method, env.EnrolmentURL+path, media, body, r.header...)
	}
	return matrix{"enrolment", env.EnrolmentURL, roles, acme.Routes(), ask}
}

func quoted(s string) string {
	b, _ := json.Marshal(s) // a string has a form
	return string(b)
}

// unsignedToken is a JWT under alg none.
func unsignedToken(claims map[string]any) string {
	text, _ := json.Marshal(claims) // strings
	return base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"JWT"}`)) + "." + base64.RawURLEncoding.EncodeToString(text) + "."
}

// What the status zone and the administrative address serve are few things, and nobody is asked who they are there.
func publicMatrix(env sandbox.Env) matrix {
	return fixedMatrix("status zone", env.StatusURL(), []string{
		"GET /ocsp/{request}", "POST /ocsp", "GET /crl/sign-1/full.crl", "GET /ca/sign-1.cer", "GET /snapshot/", "GET /metrics", "GET /healthz", "GET /readyz", "GET /v1/policies", "GET /station/v1/certificates",
	})
}

func adminMatrix(env sandbox.Env) matrix {
	return fixedMatrix("admin", env.AdminURL, []string{"GET /healthz", "GET /readyz", "GET /metrics", "POST /metrics", "GET /", "GET /debug/pprof/", "GET /ocsp", "GET /v1/policies", "GET /station/v1/certificates"})
}

func fixedMatrix(name, base string, routes []string) matrix {
	ask := func(t *testing.T, r role, method, path string) answered {
		a := send(t, r.client, method, base+strings.ReplaceAll(path, "{request}", "MAA="), "", nil)
		if a.status == http.StatusNotFound { // the administrative address speaks in plain text
			a.body = []byte(`{"type":"` + jpki.ProblemBase + `not-found"}`)
		}
		return a
	}
	return matrix{name, base, []role{{"anybody", newClient(nil), nil}}, routes, ask}
}
