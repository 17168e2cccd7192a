package conformance_test

import (
	"net/http"
	"testing"
)

// What our own responder gets wrong is in docs/ocsp-conformance.md, and nothing else.
func TestOwnResponder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	failed, inapplicable := run(t, w.config(serve(t, w.responder(t, nil).Before(http.NotFoundHandler()))))
	for id, why := range failed {
		t.Logf("%s %s", id, why)
	}
	for id, why := range inapplicable {
		t.Logf("n/a %s %s", id, why)
	}
}
