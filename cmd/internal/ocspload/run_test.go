package ocspload_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/cmd/internal/ocspload"
	"github.com/openjpki/jpki/ocsp"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// A world is an authority with certificates in every state, and a responder for them.
type world struct {
	issuer  *x509.Certificate
	states  map[jpki.Serial]jpki.Status
	targets []ocspload.Target
	ocsp    *ocsp.Responder
}

func newWorld(t testing.TB, now func() time.Time) *world {
	t.Helper()
	w := &world{states: map[jpki.Serial]jpki.Status{}}
	keys := [2]*ecdsa.PrivateKey{must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)), must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))}
	sign := func(tmpl *x509.Certificate, key crypto.Signer) *x509.Certificate {
		parent := w.issuer
		if parent == nil {
			parent = tmpl
		}
		tmpl.NotBefore, tmpl.NotAfter, tmpl.BasicConstraintsValid = time.Now().Add(-time.Hour), time.Now().Add(time.Hour), true
		return must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, tmpl, parent, key.Public(), keys[0]))))
	}
	w.issuer = sign(&x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, KeyUsage: x509.KeyUsageCertSign}, keys[0])
	delegate := sign(&x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "responder"}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning},
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 5}, Value: []byte{5, 0}}},
	}, keys[1])
	since := time.Now().Add(-time.Minute).Truncate(time.Second)
	for i := range 40 {
		serial := must(jpki.NewSerial(rand.Reader))
		st := []jpki.Status{
			{State: jpki.Good, Since: since, Version: 1}, {State: jpki.Revoked, Reason: jpki.Superseded, Since: since, Version: 2}, {State: jpki.Suspended, Reason: jpki.CertificateHold, Since: since, Version: 2}, {},
		}[i%4]
		if st.Version > 0 {
			w.states[serial] = st
		}
		w.targets = append(w.targets, ocspload.Target{Issuer: w.issuer, Serial: serial, State: []ocspload.State{ocspload.Good, ocspload.Revoked, ocspload.Suspended, ocspload.Unknown}[i%4]})
	}
	w.ocsp = must(ocsp.New(ocsp.Config{
		Delegates: []ocsp.Delegate{{Issuer: jpki.IssuerID{CA: jpki.SignCA, Generation: 1}, IssuerCertificate: w.issuer, Certificate: delegate, Key: keys[1]}},
		Statuses:  statuses{w, now}, Now: now, Prefix: "/ocsp",
	}))
	return w
}

type statuses struct {
	*world
	now func() time.Time
}

func (s statuses) Status(_ context.Context, id jpki.CertID) (jpki.Status, time.Time, error) {
	st, ok := s.states[id.Serial]
	if !ok {
		return st, s.now(), jpki.UnknownCertificate
	}
	return st, s.now(), nil
}

func serve(t testing.TB, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL + "/ocsp"
}

var everything = ocspload.Mix{Count: 400, GET: 0.4, Nonce: 0.5, Hashes: map[crypto.Hash]float64{crypto.SHA1: 0.2, crypto.SHA256: 0.7, crypto.SHA384: 0.1}, Seed: 7}

func load(t *testing.T, url string, targets []ocspload.Target, mix ocspload.Mix, opt ocspload.Options) *ocspload.Result {
	t.Helper()
	set, err := ocspload.NewSet(url, targets, mix)
	if err != nil {
		t.Fatal(err)
	}
	if opt.Conns == 0 {
		opt.Conns = 4
	}
	if opt.Duration == 0 {
		opt.Duration = 400 * time.Millisecond
	}
	r, err := ocspload.Run(t.Context(), set, opt)
	if r == nil {
		t.Fatal(err)
	}
	return r
}

func TestRun(t *testing.T) {
	t.Parallel()
	for name, opt := range map[string]ocspload.Options{
		"closed loop": {Nonces: true, Samples: 1000, Warmup: 50 * time.Millisecond}, "open loop": {Rate: 500, Nonces: true, Samples: 1000, Conns: 20},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, time.Now)
			var asked atomic.Int64
			next := w.ocsp.Before(http.NotFoundHandler())
			r := load(t, serve(t, http.HandlerFunc(func(out http.ResponseWriter, req *http.Request) { asked.Add(1); next.ServeHTTP(out, req) })), w.targets, everything, opt)
			if r.Done == 0 || r.Wrong > 0 || r.Checked == 0 || len(r.Errors) > 0 || r.NoNonce > 0 {
				t.Errorf("done %d, wrong %d %v, checked %d, errors %v, without nonce %d", r.Done, r.Wrong, r.Examples, r.Checked, r.Errors, r.NoNonce)
			}
			if int64(r.Done) > asked.Load() {
				t.Errorf("%d answers to %d requests", r.Done, asked.Load())
			}
			var sum uint64
			for _, iv := range r.Intervals {
				sum += iv.Done
			}
			if sum != r.Done || r.Latency.Count == 0 || r.Latency.Max < r.Latency.Quantile(0.5) {
				t.Errorf("%d in the intervals of %d; latencies %d", sum, r.Done, r.Latency.Count)
			}
			if opt.Rate > 0 && asked.Load() > int64(opt.Rate*r.Duration.Seconds())+1 {
				t.Errorf("%d requests at %.0f a second in %s", asked.Load(), opt.Rate, r.Duration)
			}
		})
	}
}

// Whatever is wrong with an answer is found: what it says in every answer, the rest in samples.
func TestRunFindsWrongAnswers(t *testing.T) {
	t.Parallel()
	mangle := func(change func([]byte) []byte) func(http.Handler) http.Handler {
		return func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
				rec := httptest.NewRecorder()
				next.ServeHTTP(rec, r)
				_, _ = out.Write(change(rec.Body.Bytes()))
			})
		}
	}
	same := func(h http.Handler) http.Handler { return h }
	for _, c := range []struct {
		name    string
		now     func() time.Time
		spoil   func(*world)
		between func(http.Handler) http.Handler
		opt     ocspload.Options
		says    string
	}{
		{"expected good", nil, func(w *world) {
			w.targets = []ocspload.Target{{Issuer: w.issuer, Serial: w.targets[1].Serial, State: ocspload.Good}}
		}, same, ocspload.Options{Samples: -1}, "says revoked"},
		{"expected revoked", nil, func(w *world) {
			w.targets = []ocspload.Target{{Issuer: w.issuer, Serial: w.targets[0].Serial, State: ocspload.Revoked}}
		}, same, ocspload.Options{Samples: -1}, "says good"},
		{"expected known", nil, func(w *world) {
			w.targets = []ocspload.Target{{Issuer: w.issuer, Serial: w.targets[3].Serial, State: ocspload.Good}}
		}, same, ocspload.Options{Samples: -1}, "says unknown"},
		{"revoked, not suspended", nil, func(w *world) {
			w.targets = []ocspload.Target{{Issuer: w.issuer, Serial: w.targets[1].Serial, State: ocspload.Suspended}}
		}, same, ocspload.Options{}, "says revoked"},
		{"signature", nil, nil, mangle(func(b []byte) []byte {
			if r, err := ocsp.ParseResponse(b); err == nil && r.Status == ocsp.Successful {
				b[bytes.LastIndex(b, r.Certificates[0].Raw)-12] ^= 1
			}
			return b
		}), ocspload.Options{}, "verify OCSP response"},
		{"stale", func() time.Time { return time.Now().Add(-20 * time.Minute) }, nil, same, ocspload.Options{}, "expired"},
		{"of the future", func() time.Time { return time.Now().Add(20 * time.Minute) }, nil, same, ocspload.Options{}, "future"},
		{"older than accepted", func() time.Time { return time.Now().Add(-2 * time.Minute) }, nil, same, ocspload.Options{MaxAge: time.Minute}, "older"},
		{"no OCSP", nil, nil, mangle(func([]byte) []byte { return []byte("<html>busy</html>") }), ocspload.Options{Samples: -1}, "not an OCSP response"},
		{"cut off", nil, nil, mangle(func(b []byte) []byte { return b[:len(b)-1] }), ocspload.Options{Samples: -1}, "not an OCSP response"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if c.now == nil {
				c.now = time.Now
			}
			w := newWorld(t, c.now)
			if c.spoil != nil {
				c.spoil(w)
			}
			r := load(t, serve(t, c.between(w.ocsp.Before(http.NotFoundHandler()))), w.targets, everything, c.opt)
			if r.Wrong == 0 || len(r.Examples) == 0 || !strings.Contains(strings.Join(r.Examples, "\n"), c.says) {
				t.Errorf("wrong %d: %q; errors %v", r.Wrong, r.Examples, r.Errors)
			}
		})
	}
}

// A nonce that does not come back may be; one that is another's may not.
func TestRunNonces(t *testing.T) {
	t.Parallel()
	w := newWorld(t, time.Now)
	var nonce []byte
	handler := http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		q := must(ocsp.ParseRequest(body))
		q.Nonce = nonce
		body = must(q.Marshal())
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		w.ocsp.ServeHTTP(out, r)
	})
	mix := ocspload.Mix{Nonce: 1}
	url := serve(t, handler)
	if r := load(t, url, w.targets, mix, ocspload.Options{}); r.Wrong > 0 || r.NoNonce == 0 {
		t.Errorf("no nonces: wrong %d %v, counted %d", r.Wrong, r.Examples, r.NoNonce)
	}
	if r := load(t, url, w.targets, mix, ocspload.Options{Nonces: true}); r.Wrong == 0 {
		t.Error("no nonces, though required: nothing wrong")
	}
	nonce = make([]byte, 32)
	if r := load(t, url, w.targets, mix, ocspload.Options{}); r.Wrong == 0 {
		t.Error("foreign nonces: nothing wrong")
	}
}

func TestRunCountsErrors(t *testing.T) {
	t.Parallel()
	w := newWorld(t, time.Now)
	for kind, answer := range map[string]http.HandlerFunc{
		"HTTP 503":      func(out http.ResponseWriter, _ *http.Request) { out.WriteHeader(http.StatusServiceUnavailable) },
		"OCSP tryLater": func(out http.ResponseWriter, _ *http.Request) { _, _ = out.Write([]byte{0x30, 3, 0x0a, 1, 3}) },
		"closed": func(out http.ResponseWriter, _ *http.Request) {
			conn, _, _ := http.NewResponseController(out).Hijack()
			_ = conn.Close()
		},
		"not HTTP": func(out http.ResponseWriter, _ *http.Request) {
			conn, _, _ := http.NewResponseController(out).Hijack()
			_, _ = conn.Write([]byte("busy, call again\r\n\r\n"))
			_ = conn.Close()
		},
		"timeout": func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.ReadAll(r.Body) // so that the server notices when we hang up
			<-r.Context().Done()
		},
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			r := load(t, serve(t, answer), w.targets[:3], ocspload.Mix{}, ocspload.Options{Timeout: 100 * time.Millisecond})
			if r.Errors[kind] == 0 || r.Done > 0 || r.Wrong > 0 {
				t.Errorf("%v; done %d, wrong %d", r.Errors, r.Done, r.Wrong)
			}
		})
	}
}

// A responder that answers each request in a tenth of a second, asked a hundred times a second over one connection, falls
// behind. A client that waited for it would see a tenth of a second each; ours sees how long they waited.
func TestOpenLoopOmitsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, time.Now)
	slow := http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		time.Sleep(100 * time.Millisecond)
		w.ocsp.ServeHTTP(out, r)
	})
	r := load(t, serve(t, slow), w.targets, ocspload.Mix{}, ocspload.Options{Conns: 1, Rate: 100, Duration: time.Second})
	// The fifth answer comes after 500 ms at the earliest and was due after 40.
	if r.Done < 5 && r.Unsent == 0 || r.Done >= 5 && r.Latency.Max < 400*time.Millisecond || r.Unsent == 0 {
		t.Errorf("%d answers, max %s, %d not sent", r.Done, r.Latency.Max, r.Unsent)
	}
	if !strings.Contains(strings.Join(r.Warnings(), "\n"), "no free connection") {
		t.Errorf("warnings: %q", r.Warnings())
	}
}

func TestRunRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t, time.Now)
	for _, url := range []string{"", "https://x", "ftp://x", "http://", "http:///ocsp", ":"} {
		if _, err := ocspload.NewSet(url, w.targets, ocspload.Mix{}); err == nil {
			t.Errorf("%q is an address", url)
		}
	}
	for _, mix := range []ocspload.Mix{{GET: 1.5}, {Nonce: -1}, {Count: -1}} {
		if _, err := ocspload.NewSet("http://x", w.targets, mix); err == nil {
			t.Errorf("%v is a mix", mix)
		}
	}
	if _, err := ocspload.NewSet("http://x", nil, ocspload.Mix{}); err == nil {
		t.Error("a set about nothing")
	}
	set := must(ocspload.NewSet("http://127.0.0.1:1/ocsp", w.targets, ocspload.Mix{}))
	for _, opt := range []ocspload.Options{{}, {Conns: 1}, {Conns: 1, Duration: time.Second, Rate: -1}, {Conns: 1, Duration: time.Second}} {
		if _, err := ocspload.Run(t.Context(), set, opt); err == nil {
			t.Errorf("%v ran", opt)
		}
	}
}

// The files are what the harness of shared benchmarks reads.
func TestWriteFiles(t *testing.T) {
	t.Parallel()
	w := newWorld(t, time.Now)
	dir := filepath.Join(t.TempDir(), "set")
	set := must(ocspload.NewSet("http://127.0.0.1/ocsp", w.targets, everything))
	if err := set.WriteFiles(dir); err != nil {
		t.Fatal(err)
	}
	bin, b64 := must(os.ReadFile(filepath.Join(dir, "requests.bin"))), strings.Fields(string(must(os.ReadFile(filepath.Join(dir, "requests.b64")))))
	serials := strings.Fields(string(must(os.ReadFile(filepath.Join(dir, "serials.txt")))))
	hashes, nonces, n := map[crypto.Hash]int{}, 0, 0
	for ; len(bin) > 0; n++ {
		size := int(bin[0])<<8 | int(bin[1])
		der := bin[2 : 2+size]
		bin = bin[2+size:]
		q, err := ocsp.ParseRequest(der)
		if err != nil {
			t.Fatal(err)
		}
		if base64.StdEncoding.EncodeToString(der) != b64[n] || fmt.Sprintf("%032x", q.CertIDs[0].Serial.Big()) != serials[n] {
			t.Errorf("request %d differs between the files", n)
		}
		hashes[q.CertIDs[0].Hash]++
		if q.Nonce != nil {
			nonces++
		}
	}
	// 400 requests: 280 under SHA-256 and 120 nonces are expected; a tenth of all is five deviations and more.
	if n != 400 || len(b64) != 400 || hashes[crypto.SHA256] < 230 || hashes[crypto.SHA256] > 330 || hashes[crypto.SHA1] == 0 || hashes[crypto.SHA384] == 0 || nonces < 70 || nonces > 170 {
		t.Errorf("%d requests, %v, %d nonces", n, hashes, nonces)
	}
}

func TestReadTargets(t *testing.T) {
	t.Parallel()
	w := newWorld(t, time.Now)
	one, two := map[string]*x509.Certificate{"a": w.issuer}, map[string]*x509.Certificate{"a": w.issuer, "b": w.issuer}
	for _, c := range []struct {
		text    string
		issuers map[string]*x509.Certificate
		want    string
	}{
		{"4A00,good\n", one, "4A00 good"},
		{"serial,state\n\n# comment\n0x4a00 , Revoked\r\n", one, "4A00 revoked"},
		{"a00\n", one, "0A00 any"},
		{"004a00,suspended,b\n", two, "4A00 suspended"},
		{"4A00,good\n", two, ""},
		{"4A00,good,c\n", two, ""},
		{"4A00,bad\n", one, ""},
		{"xyz,good\n", one, ""},
		{"0,good\n", one, ""},
		{"", one, ""},
		{strings.Repeat("11", 21) + ",good\n", one, ""},
	} {
		got, err := ocspload.ReadTargets(strings.NewReader(c.text), c.issuers)
		said := ""
		if err == nil {
			said = fmt.Sprintf("%s %s", got[0].Serial, got[0].State)
		}
		if said != c.want && !(c.want == "0A00 any" && said == "0A00 any") {
			t.Errorf("%q is %q, %v; want %q", c.text, said, err, c.want)
		}
	}
}

// What is read is written and read again as the same.
func FuzzReadTargets(f *testing.F) {
	issuers := map[string]*x509.Certificate{"sign-1": {Raw: []byte{1}}, "auth-1": {Raw: []byte{2}}}
	f.Add("serial,state,issuer\n4A00,good,sign-1\n0x1,any,auth-1\n")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := ocspload.ReadTargets(strings.NewReader(text), issuers)
		if err != nil {
			return
		}
		var b bytes.Buffer
		name := func(c *x509.Certificate) string {
			if c == issuers["sign-1"] {
				return "sign-1"
			}
			return "auth-1"
		}
		if err := ocspload.WriteTargets(&b, got, name); err != nil {
			t.Fatal(err)
		}
		again, err := ocspload.ReadTargets(&b, issuers)
		if err != nil || len(again) != len(got) {
			t.Fatalf("%d, then %d: %v", len(got), len(again), err)
		}
		for i := range got {
			if got[i] != again[i] {
				t.Fatalf("%v, then %v", got[i], again[i])
			}
		}
	})
}

// The report is one file: it fetches nothing, and nothing in it comes alive.
func TestReport(t *testing.T) {
	t.Parallel()
	w := newWorld(t, time.Now)
	r := load(t, serve(t, w.ocsp.Before(http.NotFoundHandler())), w.targets, everything, ocspload.Options{Rate: 200})
	r.Examples = []string{"<script>alert(1)</script>"}
	var b bytes.Buffer
	if err := r.WriteReport(&b, `A & <b>"title"</b>`); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	for _, never := range []string{"<script", "src=", "href=", "@import", "url(", "<b>\"title", "NaN", "Inf"} {
		if strings.Contains(text, never) {
			t.Errorf("the report contains %s", never)
		}
	}
	if n := strings.Count(text, "<svg "); n != 4 {
		t.Errorf("%d plots", n)
	}
	if !strings.Contains(text, "<polyline class=\"a\" points=\"") || !strings.Contains(text, "A &amp; &lt;b&gt;") {
		t.Error("the report has no line, or no title")
	}
	var table bytes.Buffer
	r.WriteTable(&table)
	for _, word := range []string{"p99.9", "µs a request", "errors", "WRONG", "lateness"} {
		if !strings.Contains(table.String(), word) {
			t.Errorf("the table lacks %s\n%s", word, table.String())
		}
	}
}
