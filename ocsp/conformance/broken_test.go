package conformance_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"io"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ocsp"
	"github.com/openjpki/jpki/ocsp/conformance"
)

// A responder that is broken in one way fails the cases for that and passes the plain ones that have nothing to do with
// it: the kit can tell.
func TestBrokenResponders(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		make  func(*testing.T, *world) http.Handler
		fails []string // at least
		holds []string // still
	}{
		{"strips nonces", stripNonces, []string{"nonce-32"}, []string{"post-good", "nonce-no-error", "get-percent", "response-verified"}},
		{"echoes an old nonce", replayNonce, []string{"nonce-32", "response-no-nonce"}, []string{"post-content-type"}},
		{"answers stale", stale, []string{"response-current", "response-verified", "get-percent"}, []string{"post-good", "response-signature", "delegate-eku"}},
		{"is ahead of its time", ahead, []string{"response-current", "response-times"}, []string{"post-good"}},
		{"signs wrongly", mangle(flipLast), []string{"response-signature", "response-verified", "get-percent", "post-unknown-signed"}, []string{"post-good", "post-revoked", "http-put"}},
		{"sends another content type", setHeader("Content-Type", "text/html"), []string{"post-content-type", "malformed-status"}, []string{"post-good", "response-verified"}},
		{"calls everything good", allGood, []string{"post-revoked", "post-suspended", "post-unknown", "get-revoked"}, []string{"post-good", "response-verified"}},
		{"calls nobody's certificates good", anyIssuer, []string{"issuer-foreign", "issuer-foreign-key", "issuer-swapped", "hash-foreign"}, []string{"post-good", "response-verified"}},
		{"has a delegate without nocheck", delegate(func(c *x509.Certificate) { c.ExtraExtensions = nil }), []string{"delegate-nocheck"}, []string{"post-good", "response-verified", "delegate-eku"}},
		{"has a delegate without the usage", delegate(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }), []string{"delegate-eku", "response-verified"}, []string{"post-good", "response-signature", "delegate-nocheck"}},
		{"has an expired delegate", delegate(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-10 * time.Minute) }), []string{"delegate-valid", "response-verified", "delegate-outlives"}, []string{"post-good", "response-signature"}},
		{"has a delegate of somebody else's", foreignDelegate, []string{"delegate-issued", "response-verified"}, []string{"post-good", "response-signature"}},
		{"cleans paths", cleanPaths, []string{"get-slashes"}, []string{"get-percent", "post-good"}},
		{"takes plus for a space", plusIsSpace, []string{"get-plus"}, []string{"get-plus-escaped", "post-good"}},
		{"knows no GET", noGET, []string{"get-percent", "get-revoked", "cache-etag"}, []string{"post-good"}},
		{"forbids caching", setHeader("Cache-Control", "no-store"), []string{"cache-control", "cache-get-storable"}, []string{"post-good", "get-percent"}},
		{"lets caches keep answers for a day", setHeader("Cache-Control", "max-age=86400, public, no-transform, must-revalidate"), []string{"cache-control", "cache-refusal"}, []string{"post-good"}},
		{"says 304 always", always304, []string{"cache-if-none-match-other"}, []string{"post-good"}},
		{"answers whatever comes", swallow, []string{"malformed-octets", "malformed-empty-sequence", "malformed-status", "nonce-0", "nonce-129", "malformed-large"}, []string{"post-good", "nonce-32"}},
		{"adds octets", mangle(func(b []byte) []byte { return append(b, 0) }), []string{"post-good", "get-percent"}, []string{"http-put"}},
		{"says nothing", func(*testing.T, *world) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
		}, []string{"post-good", "post-unknown", "malformed-octets", "issuer-foreign"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			failed, _ := run(t, w.config(serve(t, c.make(t, w))))
			for _, id := range c.fails {
				if failed[id] == "" {
					t.Errorf("%s does not fail", id)
				}
			}
			for _, id := range c.holds {
				if failed[id] != "" {
					t.Errorf("%s fails: %s", id, failed[id])
				}
			}
		})
	}
}

func sound(t *testing.T, w *world) http.Handler {
	return w.responder(t, nil).Before(http.NotFoundHandler())
}

// through has a request answered by a sound responder and changes what comes back.
func through(next http.Handler, w http.ResponseWriter, r *http.Request, change func(*httptest.ResponseRecorder)) {
	rec := httptest.NewRecorder()
	next.ServeHTTP(rec, r)
	change(rec)
	maps.Copy(w.Header(), rec.Header())
	w.Header().Set("Content-Length", strconv.Itoa(rec.Body.Len()))
	w.WriteHeader(rec.Code)
	_, _ = w.Write(rec.Body.Bytes())
}

func mangle(change func([]byte) []byte) func(*testing.T, *world) http.Handler {
	return func(t *testing.T, w *world) http.Handler {
		next := sound(t, w)
		return http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
			through(next, out, r, func(rec *httptest.ResponseRecorder) {
				body := change(bytes.Clone(rec.Body.Bytes()))
				rec.Body.Reset()
				rec.Body.Write(body)
			})
		})
	}
}

// flipLast spoils the signature: the embedded certificate is last, so it is looked for.
func flipLast(b []byte) []byte {
	if r, err := ocsp.ParseResponse(b); err == nil && r.Status == ocsp.Successful {
		if i := bytes.LastIndex(b, r.Certificates[0].Raw); i > 20 {
			b[i-12] ^= 1
		}
	}
	return b
}

func setHeader(name, value string) func(*testing.T, *world) http.Handler {
	return func(t *testing.T, w *world) http.Handler {
		next := sound(t, w)
		return http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
			through(next, out, r, func(rec *httptest.ResponseRecorder) { rec.Header().Set(name, value) })
		})
	}
}

// rewrite has the sound responder answer another request than the one that came.
func rewrite(change func(*ocsp.Request)) func(*testing.T, *world) http.Handler {
	return func(t *testing.T, w *world) http.Handler {
		next := sound(t, w)
		return http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				body, _ := io.ReadAll(r.Body) // what broke off is nothing the responder can read
				if q, err := ocsp.ParseRequest(body); err == nil {
					change(q)
					body = must(q.Marshal())
				}
				r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
			}
			next.ServeHTTP(out, r)
		})
	}
}

func stripNonces(t *testing.T, w *world) http.Handler {
	return rewrite(func(q *ocsp.Request) { q.Nonce = nil })(t, w)
}

func replayNonce(t *testing.T, w *world) http.Handler {
	return rewrite(func(q *ocsp.Request) { q.Nonce = bytes.Repeat([]byte{7}, 32) })(t, w)
}

func (w *world) at(t *testing.T, d time.Duration) http.Handler {
	clock := func() time.Time { return time.Now().Add(d) }
	return w.responder(t, func(cfg *ocsp.Config) {
		cfg.Now = clock
		cfg.Statuses = statuses(func(ctx context.Context, id jpki.CertID) (jpki.Status, time.Time, error) {
			st, asOf, err := w.Status(ctx, id)
			return st, asOf.Add(d), err
		})
	}).Before(http.NotFoundHandler())
}

func stale(t *testing.T, w *world) http.Handler { return w.at(t, -30*time.Minute) }
func ahead(t *testing.T, w *world) http.Handler { return w.at(t, 30*time.Minute) }

type statuses func(context.Context, jpki.CertID) (jpki.Status, time.Time, error)

func (f statuses) Status(ctx context.Context, id jpki.CertID) (jpki.Status, time.Time, error) {
	return f(ctx, id)
}

func allGood(t *testing.T, w *world) http.Handler {
	return w.responder(t, func(cfg *ocsp.Config) {
		cfg.Statuses = statuses(func(context.Context, jpki.CertID) (jpki.Status, time.Time, error) {
			return jpki.Status{State: jpki.Good, Since: time.Now().Add(-time.Hour), Version: 1}, time.Now(), nil
		})
	}).Before(http.NotFoundHandler())
}

// anyIssuer takes every CertID for one about the good certificate.
func anyIssuer(t *testing.T, w *world) http.Handler {
	own := must(ocsp.NewCertID(w.issuer, 5, w.good)) // SHA-256
	return rewrite(func(q *ocsp.Request) {
		for i := range q.CertIDs {
			if q.CertIDs[i].Serial == w.good && !bytes.Equal(q.CertIDs[i].Raw, own.Raw) {
				q.CertIDs[i] = own
			}
		}
	})(t, w)
}

// delegate spoils the delegate's certificate, which our own responder would refuse to work with: it is exchanged in the
// answer, for the key is the same.
func delegate(spoil func(*x509.Certificate)) func(*testing.T, *world) http.Handler {
	return func(t *testing.T, w *world) http.Handler {
		tmpl := w.delegateTemplate()
		spoil(tmpl)
		return exchangeDelegate(t, w, w.sign(tmpl, w.delegateKey))
	}
}

func foreignDelegate(t *testing.T, w *world) http.Handler {
	other := newWorld(t)
	return exchangeDelegate(t, w, other.sign(other.delegateTemplate(), w.delegateKey))
}

func exchangeDelegate(t *testing.T, w *world, cert *x509.Certificate) http.Handler {
	return mangle(func(b []byte) []byte {
		if r, err := ocsp.ParseResponse(b); err != nil || r.Status != ocsp.Successful {
			return b
		}
		// The certificate is what ends every structure around it, so their lengths are made anew: 30 a0 30 04 30 a0 30.
		return resize(b, w.delegate.Raw, cert.Raw)
	})(t, w)
}

// resize replaces the tail of nested DER and corrects the lengths of all that contain it.
func resize(b, old, replacement []byte) []byte {
	if len(b) < len(old) {
		return b
	}
	if bytes.Equal(b, old) {
		return replacement
	}
	head, content, ok := split(b)
	if !ok {
		return b
	}
	var siblings []byte
	for rest := content; ; {
		h, c, ok := split(rest)
		if !ok {
			return b
		}
		n := len(h) + len(c)
		if n == len(rest) {
			return wrap(head[0], append(siblings, resize(rest, old, replacement)...))
		}
		siblings, rest = append(siblings, rest[:n]...), rest[n:]
	}
}

// split returns an element's header and contents.
func split(b []byte) (head, content []byte, ok bool) {
	if len(b) < 2 {
		return nil, nil, false
	}
	n, h := int(b[1]), 2
	if n >= 0x80 {
		h += n & 0x7f
		if len(b) < h {
			return nil, nil, false
		}
		n = int(new(big.Int).SetBytes(b[2:h]).Int64())
	}
	if len(b) < h+n {
		return nil, nil, false
	}
	return b[:h], b[h : h+n], true
}

func wrap(tag byte, content []byte) []byte {
	n := len(content)
	switch {
	case n < 0x80:
		return append([]byte{tag, byte(n)}, content...)
	case n < 0x100:
		return append([]byte{tag, 0x81, byte(n)}, content...)
	}
	return append([]byte{tag, 0x82, byte(n >> 8), byte(n)}, content...)
}

// cleanPaths is what a router in front does.
func cleanPaths(t *testing.T, w *world) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", sound(t, w))
	return mux
}

func plusIsSpace(t *testing.T, w *world) http.Handler {
	next := sound(t, w)
	return http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		r.RequestURI = strings.ReplaceAll(r.RequestURI, "+", "%0A")
		next.ServeHTTP(out, r)
	})
}

func noGET(t *testing.T, w *world) http.Handler {
	next := sound(t, w)
	return http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			out.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		next.ServeHTTP(out, r)
	})
}

func always304(t *testing.T, w *world) http.Handler {
	next := sound(t, w)
	return http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		if r.Header.Get("If-None-Match") != "" {
			out.WriteHeader(http.StatusNotModified)
			return
		}
		next.ServeHTTP(out, r)
	})
}

// swallow takes what is malformed for a question about the good certificate, and cuts nonces to size.
func swallow(t *testing.T, w *world) http.Handler {
	next := sound(t, w)
	plain := must(must(ocsp.NewRequest(w.issuer, 5, nil, w.good)).Marshal())
	return http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			body, _ := io.ReadAll(r.Body) // what broke off is nothing the responder can read
			if _, err := ocsp.ParseRequest(body); err != nil {
				body = plain
			}
			r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		}
		next.ServeHTTP(out, r)
	})
}

// A kit that cannot be meant is refused before anything is sent.
func TestConfig(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	kit := must(conformance.New())
	for name, spoil := range map[string]func(*conformance.Config){
		"URL": func(c *conformance.Config) { c.URL = "ftp://x" }, "no URL": func(c *conformance.Config) { c.URL = "" },
		"Issuer": func(c *conformance.Config) { c.Issuer = nil }, "Good": func(c *conformance.Config) { c.Good = jpki.Serial{} },
		"Now": func(c *conformance.Config) { c.Now = nil }, "Rand": func(c *conformance.Config) { c.Rand = nil },
		"Only": func(c *conformance.Config) { c.Only = []string{"no-such-case"} },
	} {
		cfg := w.config("http://127.0.0.1:1/ocsp")
		spoil(&cfg)
		if _, err := kit.Run(t.Context(), cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	// Nobody there: every case that sends something fails, none passes.
	cfg := w.config("http://127.0.0.1:1/ocsp")
	cfg.Timeout = time.Second
	results, err := kit.Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		if r.Verdict == conformance.Pass {
			t.Errorf("%s passes with nobody there", r.ID)
		}
	}
	if conformance.Conforms(results) {
		t.Error("nobody conforms")
	}
}

// Without certificates of a sort, the cases about them do not apply; the others do.
func TestNotApplicable(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg := w.config(serve(t, sound(t, w)))
	cfg.Revoked, cfg.Suspended = jpki.Serial{}, jpki.Serial{}
	failed, inapplicable := run(t, cfg)
	for _, id := range []string{"post-revoked", "post-suspended", "several-two", "get-revoked", "nonce-revoked"} {
		if inapplicable[id] == "" {
			t.Errorf("%s applies", id)
		}
	}
	for _, id := range []string{"post-good", "get-percent", "nonce-32"} {
		if failed[id] != "" || inapplicable[id] != "" {
			t.Errorf("%s: %s%s", id, failed[id], inapplicable[id])
		}
	}
}

func TestKit(t *testing.T) {
	t.Parallel()
	kit := must(conformance.New())
	cases := kit.Cases()
	if len(cases) < 60 {
		t.Errorf("%d cases", len(cases))
	}
	w := newWorld(t)
	messages, err := kit.Messages(w.config("http://127.0.0.1:8080/ocsp"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		if len(messages[c.ID]) != len(c.Send) {
			t.Errorf("%s: %d messages of %d", c.ID, len(messages[c.ID]), len(c.Send))
		}
	}
	i := slices.IndexFunc(cases, func(c conformance.Case) bool { return c.ID == "post-good" })
	_, body, _ := bytes.Cut(messages[cases[i].ID][0], []byte("\r\n\r\n"))
	want := must(must(ocsp.NewRequest(w.issuer, 5, nil, w.good)).Marshal())
	if !bytes.Equal(body, want) {
		t.Errorf("post-good sends\n%x, want\n%x", body, want)
	}
}
