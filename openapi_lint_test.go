package jpki_test

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"testing"

	"github.com/speakeasy-api/openapi/linter"
	"github.com/speakeasy-api/openapi/openapi"
	openapilinter "github.com/speakeasy-api/openapi/openapi/linter"
	"github.com/speakeasy-api/openapi/validation"
)

// apiDocuments are what we publish of our APIs, with the rules that do not fit and why.
var apiDocuments = map[string][]string{
	"verifier/api/openapi.yaml": {
		"owasp-security-hosts-https-oas3", // the server is /, whose scheme is that of who serves it
		"style-oas3-host-trailing-slash",  // and / is the shortest way to say so
	},
	"ca/api/openapi.yaml": {
		"style-oas3-api-servers",      // every authority has its own address
		"owasp-no-credentials-in-url", // token is a card's number, no access token
	},
}

// lint returns the names of the rules that a document breaks, those left out aside: the schema of OpenAPI 3.1, references, and the
// linter's recommended rules. Details go to the test's log.
func lint(t *testing.T, text []byte, without []string) (broken []string) {
	t.Helper()
	doc, found, err := openapi.Unmarshal(t.Context(), bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	rules, err := openapilinter.NewLinter(&linter.Config{Extends: []string{"recommended"}})
	if err != nil {
		t.Fatal(err)
	}
	out, err := rules.Lint(t.Context(), linter.NewDocumentInfo(doc, "openapi.yaml"), found, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, result := range out.Results {
		rule := "unreadable"
		if e, ok := errors.AsType[*validation.Error](result); ok {
			rule = e.Rule
		}
		if !slices.Contains(without, rule) {
			t.Logf("%s: %v", rule, result)
			broken = append(broken, rule)
		}
	}
	return broken
}

// TestAPIDocumentsAreLinted: what the APIs publish is OpenAPI 3.1 to a linter that is not ours.
func TestAPIDocumentsAreLinted(t *testing.T) {
	for path, without := range apiDocuments {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if broken := lint(t, text, without); len(broken) > 0 {
			t.Errorf("%s breaks %q", path, broken)
		}
	}
}

// TestLinterSees: the linter is one that finds what is wrong with a document.
func TestLinterSees(t *testing.T) {
	good, err := os.ReadFile("verifier/api/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string][2]string{
		"an operation without identifier": {"operationId: ", "x-operationId: "},
		"a reference to nothing":          {`"#/components/schemas/`, `"#/components/schemas/No`},
		"a type that is none":             {"type: string", "type: text"},
		"a member that is none":           {"responses:", "answers:"},
	} {
		if !bytes.Contains(good, []byte(change[0])) {
			t.Fatalf("%s: there is no %q", name, change[0])
		}
		bad := bytes.Replace(good, []byte(change[0]), []byte(change[1]), 1)
		if len(lint(t, bad, apiDocuments["verifier/api/openapi.yaml"])) == 0 {
			t.Errorf("%s is not found", name)
		}
	}
}
