package conformance_test

import (
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/openjpki/jpki/ocsp"
	"github.com/openjpki/jpki/ocsp/front"
)

// What our own responder does not do, behind either of its listeners, is in docs/ocsp-conformance.md, and nothing else.
func TestOwnResponder(t *testing.T) {
	t.Parallel()
	for name, listen := range map[string]func(testing.TB, *ocsp.Responder) string{
		"`ocsp/front`": func(t testing.TB, r *ocsp.Responder) string {
			server, err := front.New(front.Config{Exchanger: r, Now: time.Now, Log: slog.New(slog.DiscardHandler), Prefix: "/ocsp"})
			if err != nil {
				t.Fatal(err)
			}
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			ended := make(chan struct{})
			go func() { _ = server.Serve(l); close(ended) }()
			t.Cleanup(func() { _ = server.Close(); <-ended })
			return "http://" + l.Addr().String() + "/ocsp"
		},
		"`net/http`": func(t testing.TB, r *ocsp.Responder) string { return serve(t, r.Before(http.NotFoundHandler())) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			failed, inapplicable := run(t, w.config(listen(t, w.responder(t, nil))))
			compare(t, failed, documented(t, name))
			delete(inapplicable, "http-put-allow") // of a server that says 501
			if len(inapplicable) > 0 {
				t.Errorf("cases that do not apply to us: %v", inapplicable)
			}
		})
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
