package api_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/google/go-cmp/cmp"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/verifier"
	"github.com/openjpki/jpki/verifier/api"
	"github.com/openjpki/jpki/verifier/store"
)

// document loads the document as the API serves it, without a token.
func document(t *testing.T, b *bench) *openapi3.T {
	t.Helper()
	a := b.send("GET", "/openapi.yaml", nil, "Authorization", "")
	if a.StatusCode != http.StatusOK || a.Header.Get("Content-Type") != "application/yaml" {
		t.Fatalf("status %d, %v", a.StatusCode, a.Header)
	}
	doc, err := openapi3.NewLoader().LoadFromData(a.body)
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return doc
}

func TestDocumentHasTheRoutes(t *testing.T) {
	doc := document(t, newBench(t))
	var documented []string
	for path, item := range doc.Paths.Map() {
		for method := range item.Operations() {
			documented = append(documented, method+" "+path)
		}
	}
	routes := api.Routes()
	slices.Sort(documented)
	slices.Sort(routes)
	if diff := cmp.Diff(routes, documented); diff != "" {
		t.Errorf("routes (-) and document (+) differ:\n%s", diff)
	}
}

// TestDocumentHasTheCodes: closed lists in the document are those of package verifier.
func TestDocumentHasTheCodes(t *testing.T) {
	result := document(t, newBench(t)).Components.Schemas["Result"].Value
	list := func(name string) (out []string) {
		for _, v := range result.Properties[name].Value.Enum {
			out = append(out, v.(string))
		}
		return out
	}
	var codes, failures []string
	for _, c := range verifier.Codes() {
		codes = append(codes, string(c))
	}
	for _, f := range verifier.StatusFailures {
		failures = append(failures, string(f))
	}
	if diff := cmp.Diff(codes, list("code")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(failures, list("status_failure")); diff != "" {
		t.Error(diff)
	}
}

// TestDocumentHasThePolicies and the other closed lists of what is asked for.
func TestDocumentHasThePolicies(t *testing.T) {
	schemas := document(t, newBench(t)).Components.Schemas
	var want []any
	for _, p := range verifier.DocumentPolicies() {
		want = append(want, p.Name)
	}
	if diff := cmp.Diff(want, schemas["ReevaluationRequest"].Value.Properties["policy"].Value.AnyOf[0].Value.Enum); diff != "" {
		t.Error(diff)
	}
}

// A contract checks answers against the document and remembers which were seen.
type contract struct {
	*bench
	doc  *openapi3.T
	seen map[string]bool
}

// conforms sends a request to a path of the document, with id for what stands in braces there.
func (c *contract) conforms(method, path, id string, body any, headers ...string) answer {
	c.t.Helper()
	a := c.send(method, strings.Replace(path, "{id}", id, 1), body, headers...)
	path, _, _ = strings.Cut(path, "?")
	op := c.doc.Paths.Find(path).GetOperation(method)
	c.seen[method+" "+path+" "+strconv.Itoa(a.StatusCode)] = true
	resp := op.Responses.Status(a.StatusCode)
	if resp == nil {
		c.t.Fatalf("%s %s: status %d is not documented: %s", method, path, a.StatusCode, a.body)
	}
	for name := range a.Header {
		known := slices.Contains([]string{"Content-Type", "Content-Length", "X-Content-Type-Options", "Cache-Control", "X-Request-Id", "Retry-After", "Www-Authenticate", "Content-Security-Policy"}, name)
		if !known && resp.Value.Headers[name] == nil {
			c.t.Errorf("%s %s %d: header %s is not documented", method, path, a.StatusCode, name)
		}
	}
	if a.StatusCode == http.StatusNoContent {
		return a
	}
	kind := a.Header.Get("Content-Type")
	media := resp.Value.Content.Get(kind)
	if media == nil {
		c.t.Fatalf("%s %s: media type %s of status %d is not documented", method, path, kind, a.StatusCode)
	}
	check := func(what string, schema *openapi3.Schema, text []byte) {
		c.t.Helper()
		var value any
		if err := json.Unmarshal(text, &value); err != nil {
			c.t.Fatal(err)
		}
		if err := schema.VisitJSON(value, openapi3.EnableJSONSchema2020()); err != nil {
			c.t.Errorf("%s %s: %s: %v\n%s", method, path, what, err, text)
		}
	}
	switch kind {
	case "application/json", "application/problem+json":
		check("answer", media.Schema.Value, a.body)
	case "application/x-ndjson":
		for line := range strings.Lines(string(a.body)) {
			check("line", media.Schema.Value, []byte(line))
		}
	}
	if _, isText := body.(string); a.StatusCode < 300 && body != nil && !isText {
		check("request", op.RequestBody.Value.Content.Get("application/json").Schema.Value, must(json.Marshal(body)))
	}
	return a
}

// TestAnswersAreAsDocumented sends requests of every outcome and checks request, status, headers and body against the document.
func TestAnswersAreAsDocumented(t *testing.T) {
	b := newBench(t)
	c := &contract{b, document(t, b), map[string]bool{}}
	lines := []string{"Content-Type", "application/x-ndjson"}
	encode := func(objects ...any) string {
		var out strings.Builder
		for _, o := range objects {
			out.Write(append(must(json.Marshal(o)), '\n'))
		}
		return out.String()
	}
	since := t0.Add(-time.Hour)
	good := b.check
	for _, check := range []func() (verifier.Revocation, error){
		good,
		func() (verifier.Revocation, error) {
			return verifier.Revocation{State: jpki.Suspended, Reason: jpki.CertificateHold, RevokedAt: &since, ThisUpdate: t0, NextUpdate: t0.Add(time.Hour), CheckedAt: t0}, nil
		},
		func() (verifier.Revocation, error) { return verifier.Revocation{}, errors.New("down") },
	} {
		b.check = check
		c.conforms("POST", "/v1/verifications", "", b.signed(), "Idempotency-Key", "k"+strconv.Itoa(len(c.seen)))
		_, cert := b.issue(authOID)
		c.conforms("POST", "/v1/certificate-status", "", object{"certificate": b64(cert), "purpose": "liveness_check"})
		c.conforms("POST", "/v1/verifications/batch", "", encode(with("ref", "a")(b), object{}, object{"document": b64(b.document(true))}), lines...)
		c.conforms("POST", "/v1/certificate-status/batch", "", encode(object{"certificate": b64(cert), "ref": "a"}, object{}), lines...)
		session := object{"audience": "https://bank.example", "binding": "s"}
		var ch challenge
		if err := json.Unmarshal(c.conforms("POST", "/v1/challenges", "", session).body, &ch); err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second time it is used
			c.conforms("POST", "/v1/authentications", "", b.login(ch, with("user", "u")(b).(object).only(session, "user")))
		}
	}
	b.check = good
	signed := b.signed()
	for range 2 {
		c.conforms("POST", "/v1/verifications", "", signed, "Idempotency-Key", "again")
	}
	c.conforms("POST", "/v1/verifications", "", with("certificate", b64([]byte("x")))(b))
	c.conforms("POST", "/v1/verifications", "", with("at", "2026-11-24T12:00:00+09:00")(b))
	c.conforms("POST", "/v1/verifications", "", object{"document": b64(b.document(false))})
	c.conforms("POST", "/v1/verifications", "", string(b.document(true)), "Content-Type", "application/pkcs7-mime")
	for _, id := range []string{
		b.result(c.conforms("POST", "/v1/verifications", "", with("user", "u")(b))).ID,
		b.result(c.conforms("POST", "/v1/verifications", "", with("store_attributes", true)(b))).ID,
		b.documentResult(c.conforms("POST", "/v1/verifications", "", object{"document": b64(b.document(true))})).ID,
		b.documentResult(c.conforms("POST", "/v1/verifications", "", object{"document": b64(b.document(true)), "store_attributes": true, "user": "u"})).ID,
	} {
		c.conforms("GET", "/v1/evidence/{id}", id, nil)
		for _, p := range verifier.DocumentPolicies() {
			if p.AnchorSHA256 == nil { // those of the real anchors are not fit here
				c.conforms("POST", "/v1/evidence/{id}/reevaluations", id, object{"policy": p.Name})
			}
		}
		c.conforms("POST", "/v1/evidence/{id}/reevaluations", id, object{"policy": "jpki-signature"})
		c.conforms("DELETE", "/v1/evidence/{id}", id, nil)
		c.conforms("DELETE", "/v1/evidence/{id}", id, nil)
		c.conforms("GET", "/v1/evidence/{id}", id, nil)
		c.conforms("POST", "/v1/evidence/{id}/reevaluations", id, object{"policy": "rfc5280"})
	}
	c.conforms("POST", "/v1/evidence-deletions", "", object{"user": "u"})
	c.conforms("GET", "/v1/policies", "", nil)
	c.conforms("GET", "/v1/trust-anchors", "", nil)
	c.conforms("GET", "/docs", "", nil, "Authorization", "")
	c.conforms("GET", "/openapi.yaml", "", nil, "Authorization", "")

	c.consents()

	// What every route refuses in the same way.
	b.follow(c)
	b.token(bank, "narrow", time.Time{}, store.Watch)
	b.token(bank, "narrow for watches", time.Time{}, store.Verify)
	each := func(f func(method, path string, batch bool)) {
		for path, item := range c.doc.Paths.Map() {
			for method := range item.Operations() {
				if path != "/openapi.yaml" && path != "/docs" && !strings.HasPrefix(path, "/.well-known/") {
					f(method, path, strings.HasSuffix(path, "/batch"))
				}
			}
		}
	}
	each(func(method, path string, batch bool) {
		c.conforms(method, path, "0", nil, "Authorization", "")
		if path != "/v1/policies" && path != "/v1/trust-anchors" {
			c.conforms(method, path, "0", nil, "Authorization", "Bearer narrow")
			c.conforms(method, path, "0", nil, "Authorization", "Bearer narrow for watches")
		}
		c.conforms(method, path+"?all", "0", nil)
		if method == "POST" || method == "PATCH" || method == "PUT" {
			c.conforms(method, path, "0", "{")
			c.conforms(method, path, strings.Repeat("0", 32), "{")
			if !batch {
				c.conforms(method, path, "0", `{"a":"123456789018"}`)
				c.conforms(method, path, strings.Repeat("0", 32), `{"a":"123456789018"}`)
				c.conforms(method, path, "0", strings.Repeat(" ", 1<<20+1))
			}
		}
	})
	full := b.api
	b.api = must(api.New(api.Config{Verifier: b.verifier, Challenges: b.verifier.Challenges(), Store: b.store, Now: func() time.Time { return b.now }, Deadline: 1, Watching: b.watching}))
	each(func(method, path string, batch bool) {
		if !batch {
			c.conforms(method, path, strings.Repeat("0", 32), map[string]any{"POST": `{"user":"u","policy":"rfc5280"}`}[method])
		}
	})
	b.api = must(api.New(api.Config{Verifier: b.verifier, Challenges: b.verifier.Challenges(), Store: b.store, Now: func() time.Time { return b.now }}))
	for _, path := range []string{"/.well-known/ssf-configuration", "/.well-known/jwks.json", "/v1/changes"} { // without an authority
		if a := c.conforms("GET", path, "", nil); a.StatusCode != http.StatusForbidden {
			t.Errorf("%s: status %d", path, a.StatusCode)
		}
	}
	b.api = full
	if err := b.store.ChangeTenant(t.Context(), store.Tenant{ID: telecom, Name: "telecom", Rate: 1}); err != nil {
		t.Fatal(err)
	}
	each(func(method, path string, _ bool) { // the first two times it is something else
		for range 3 {
			c.conforms(method, path, "0", nil, "Authorization", "Bearer "+telecomToken)
		}
	})

	// Nothing is documented that does not happen, but for what takes a fault of ours, or two requests at once.
	for path, item := range c.doc.Paths.Map() {
		for method, op := range item.Operations() {
			for status := range op.Responses.Map() {
				if !c.seen[method+" "+path+" "+status] && status != "500" && status != "503" && status != "409" {
					t.Errorf("%s %s never answered %s", method, path, status)
				}
			}
		}
	}
}

// only returns the other object with one member of this.
func (o object) only(other object, name string) object {
	out := maps.Clone(other)
	out[name] = o[name]
	return out
}

// TestDocsPage: the page names every operation and schema, needs nothing from elsewhere, and leads nowhere else.
func TestDocsPage(t *testing.T) {
	b := newBench(t)
	a := b.send("GET", "/docs", nil, "Authorization", "")
	page := string(a.body)
	doc := document(t, b)
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			if !strings.Contains(page, `<section id="`+op.OperationID+`">`) || !strings.Contains(page, method+"</b> "+path) {
				t.Errorf("no %s %s", method, path)
			}
		}
	}
	ids := regexp.MustCompile(`id="([^"]+)"`)
	have := map[string]bool{}
	for _, m := range ids.FindAllStringSubmatch(page, -1) {
		have[m[1]] = true
	}
	for name := range doc.Components.Schemas {
		if !have["schema-"+name] {
			t.Errorf("no schema %s", name)
		}
	}
	for _, m := range regexp.MustCompile(`(?:href|src)="([^"]*)"`).FindAllStringSubmatch(page, -1) {
		if target, inside := strings.CutPrefix(m[1], "#"); inside && !have[target] || !inside && m[1] != "openapi.yaml" {
			t.Errorf("leads to %s", m[1])
		}
	}
	for _, outside := range []string{"<script", "@import", "url(", "http://", "<img", "<link", "<no value>", "map[", "[{", "`"} {
		if strings.Contains(page, outside) {
			t.Errorf("%s on the page", outside)
		}
	}
	style := page[strings.Index(page, "<style>")+len("<style>") : strings.Index(page, "</style>")]
	sum := sha256.Sum256([]byte(style))
	if csp := a.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'; style-src 'sha256-"+base64.StdEncoding.EncodeToString(sum[:])+"'") {
		t.Errorf("%s does not admit the style", csp)
	}
}
