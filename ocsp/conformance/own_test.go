package conformance_test

import (
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What our own responder does not do is in docs/ocsp-conformance.md, and nothing else.
func TestOwnResponder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	failed, inapplicable := run(t, w.config(serve(t, w.responder(t, nil).Before(http.NotFoundHandler()))))
	compare(t, failed, documented(t, "`jpki`"))
	if len(inapplicable) > 0 {
		t.Errorf("cases that do not apply to us: %v", inapplicable)
	}
}

var row = regexp.MustCompile("^\\| `([a-z0-9.-]+)` \\|")

// documented returns the failures that docs/ocsp-conformance.md admits under the heading of a responder.
func documented(t *testing.T, responder string) map[string]bool {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "ocsp-conformance.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(text), "\n### "+responder)
	if !ok {
		t.Fatalf("docs/ocsp-conformance.md says nothing of %s", responder)
	}
	section, _, _ = strings.Cut(section, "\n#")
	out := map[string]bool{}
	for line := range strings.Lines(section) {
		if m := row.FindStringSubmatch(line); m != nil {
			out[m[1]] = true
		}
	}
	return out
}

// compare demands that every failure is documented. One that no longer happens is only told: a newer release may have
// mended it.
func compare(t *testing.T, failed map[string]string, known map[string]bool) {
	t.Helper()
	for id, why := range failed {
		if !known[id] {
			t.Errorf("| `%s` | %s |", id, why)
		}
	}
	for id := range known {
		if failed[id] == "" {
			t.Logf("%s is documented as a failure, and passes", id)
		}
	}
}
