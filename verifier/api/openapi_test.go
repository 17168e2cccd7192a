package api_test

import (
	"encoding/json"
	"errors"
	"net/http"
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

// TestAnswersAreAsDocumented sends requests of every outcome and checks request, status and body against the document.
func TestAnswersAreAsDocumented(t *testing.T) {
	b := newBench(t)
	doc := document(t, b)
	seen := map[string]bool{}
	conforms := func(method, path string, body any, headers ...string) answer {
		t.Helper()
		a := b.send(method, path, body, headers...)
		path, _, _ = strings.Cut(path, "?")
		op := doc.Paths.Find(path).GetOperation(method)
		seen[method+" "+path+" "+strconv.Itoa(a.StatusCode)] = true
		resp := op.Responses.Status(a.StatusCode)
		if resp == nil {
			t.Fatalf("%s %s: status %d is not documented", method, path, a.StatusCode)
		}
		media := resp.Value.Content.Get(a.Header.Get("Content-Type"))
		if media == nil {
			t.Fatalf("%s %s: media type %s of status %d is not documented", method, path, a.Header.Get("Content-Type"), a.StatusCode)
		}
		var value any
		if err := json.Unmarshal(a.body, &value); err != nil {
			t.Fatal(err)
		}
		if err := media.Schema.Value.VisitJSON(value, openapi3.EnableJSONSchema2020()); err != nil {
			t.Errorf("%s %s: %v\n%s", method, path, err, a.body)
		}
		if a.StatusCode < 300 && body != nil {
			var sent any
			if err := json.Unmarshal(must(json.Marshal(body)), &sent); err != nil {
				t.Fatal(err)
			}
			if err := op.RequestBody.Value.Content.Get("application/json").Schema.Value.VisitJSON(sent, openapi3.EnableJSONSchema2020()); err != nil {
				t.Errorf("%s %s: request: %v", method, path, err)
			}
		}
		return a
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
		conforms("POST", "/v1/verifications", b.signed())
		_, cert := b.issue(authOID)
		conforms("POST", "/v1/certificate-status", object{"certificate": b64(cert)})
		session := object{"audience": "https://bank.example", "binding": "s"}
		var ch challenge
		if err := json.Unmarshal(conforms("POST", "/v1/challenges", session).body, &ch); err != nil {
			t.Fatal(err)
		}
		conforms("POST", "/v1/authentications", b.login(ch, session))
		conforms("POST", "/v1/authentications", b.login(ch, session)) // used
	}
	b.check = good
	conforms("POST", "/v1/verifications", with("certificate", b64([]byte("x")))(b))
	conforms("POST", "/v1/verifications", with("at", "2026-11-24T12:00:00+09:00")(b))
	conforms("GET", "/v1/policies", nil)
	conforms("GET", "/v1/trust-anchors", nil)
	for path, item := range doc.Paths.Map() {
		for method := range item.Operations() {
			if path == "/openapi.yaml" {
				continue
			}
			conforms(method, path, nil, "Authorization", "")
			if method == "POST" {
				conforms(method, path, "{")
				conforms(method, path, `{"a":"123456789018"}`)
				conforms(method, path, strings.Repeat(" ", 1<<20+1))
			} else {
				conforms(method, path+"?all", nil)
			}
		}
	}
	// Nothing is documented that does not happen, but for what takes a fault or a full store.
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			for status := range op.Responses.Map() {
				if !seen[method+" "+path+" "+status] && status != "500" && status != "429" && path != "/openapi.yaml" {
					t.Errorf("%s %s never answered %s", method, path, status)
				}
			}
		}
	}
}
