package crl_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/crl"
)

// newServer publishes a partition's and the full CRL and serves them through a real listener.
func newServer(t *testing.T) (w *world, p *crl.Publisher, s *crl.Server, url, dir string) {
	t.Helper()
	dir = t.TempDir()
	w = &world{now: t0, revoked: map[string][]crl.Entry{"99101": numbered(t, 3)}}
	p = newPublisher(t, config(t, w, dir))
	for _, key := range []crl.ID{key101, keyFull} {
		if err := p.Publish(context.Background(), key); err != nil {
			t.Fatal(err)
		}
	}
	s, err := crl.NewServer(crl.ServerConfig{Dir: dir, Now: w.Now})
	if err != nil {
		t.Fatal(err)
	}
	ts := httptest.NewServer(s)
	t.Cleanup(ts.Close)
	return w, p, s, ts.URL, dir
}

func get(t *testing.T, method, url string, header ...string) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequest(method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, body
}

func TestServe(t *testing.T) {
	w, p, s, url, dir := newServer(t)
	for _, key := range []crl.ID{key101, keyFull} {
		resp, body := get(t, "GET", url+"/crl/"+key.Path())
		if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "application/pkix-crl" || !bytes.Equal(body, published(t, dir, key)) {
			t.Errorf("GET %s: %v", key, resp)
		}
	}
	w.set(func() { w.now = t0.Add(time.Minute) })
	url101 := url + "/crl/sign-1/99101.crl"
	resp, _ := get(t, "GET", url101)
	etag, modified := resp.Header.Get("ETag"), resp.Header.Get("Last-Modified")
	if modified != t0.Format(http.TimeFormat) || len(etag) != 34 {
		t.Errorf("ETag %s, Last-Modified %s", etag, modified)
	}
	resp, body := get(t, "HEAD", url101)
	if resp.StatusCode != 200 || len(body) != 0 || resp.ContentLength != int64(len(published(t, dir, key101))) || resp.Header.Get("ETag") != etag {
		t.Errorf("HEAD: %v", resp)
	}
	resp, body = get(t, "GET", url101, "Range", "bytes=10-19")
	if resp.StatusCode != 206 || !bytes.Equal(body, published(t, dir, key101)[10:20]) {
		t.Errorf("Range: %v", resp)
	}
	for _, c := range []struct {
		name, value string
		want        int
	}{
		{"If-None-Match", etag, 304},
		{"If-None-Match", `"other"`, 200},
		{"If-Modified-Since", modified, 304},
		{"If-Modified-Since", t0.Add(-time.Second).Format(http.TimeFormat), 200},
		{"If-Match", `"other"`, 412},
		{"Range", "bytes=999999-", 416},
	} {
		if resp, _ := get(t, "GET", url101, c.name, c.value); resp.StatusCode != c.want {
			t.Errorf("%s %s: %d, want %d", c.name, c.value, resp.StatusCode, c.want)
		}
	}

	// The next CRL is seen at once, by every validator.
	if err := p.Publish(context.Background(), key101); err != nil {
		t.Fatal(err)
	}
	w.set(func() { w.now = t0.Add(2 * time.Minute) })
	for _, h := range [][2]string{{"If-None-Match", etag}, {"If-Modified-Since", modified}} {
		resp, body := get(t, "GET", url101, h[0], h[1])
		if resp.StatusCode != 200 || !bytes.Equal(body, published(t, dir, key101)) || resp.Header.Get("ETag") == etag {
			t.Errorf("%s after another publication: %v", h[0], resp)
		}
	}
	want := map[string]uint64{"ok": 8, "partial": 1, "not-modified": 2, "precondition-failed": 1, "bad-range": 1}
	if diff := cmp.Diff(want, s.Outcomes.Snapshot()); diff != "" {
		t.Error(diff)
	}
}

// Two CRLs within one second must not be taken for one by a client that only knows Last-Modified.
func TestServeWithinASecond(t *testing.T) {
	w, p, _, url, dir := newServer(t)
	url += "/crl/sign-1/99101.crl"
	resp, _ := get(t, "GET", url)
	if lm := resp.Header.Get("Last-Modified"); lm != "" {
		t.Errorf("Last-Modified %s of a file that may change within the second", lm)
	}
	if err := p.Publish(context.Background(), key101); err != nil {
		t.Fatal(err)
	}
	resp, body := get(t, "GET", url, "If-Modified-Since", t0.Format(http.TimeFormat))
	if resp.StatusCode != 200 || !bytes.Equal(body, published(t, dir, key101)) {
		t.Errorf("a CRL published within the same second: %v", resp)
	}
	w.set(func() { w.now = t0.Add(2 * time.Second) })
	if resp, _ := get(t, "GET", url); resp.Header.Get("Last-Modified") != t0.Format(http.TimeFormat) {
		t.Errorf("Last-Modified %q once the second is over", resp.Header.Get("Last-Modified"))
	}
}

func TestServeCacheControl(t *testing.T) {
	w, _, _, url, _ := newServer(t)
	for _, c := range []struct {
		at   time.Duration
		want string
	}{
		{0, "max-age=300,"},
		{48*time.Hour - 300*time.Second, "max-age=300,"},
		{48*time.Hour - 90*time.Second, "max-age=90,"},
		{48*time.Hour - 500*time.Millisecond, "max-age=0,"},
		{48 * time.Hour, "max-age=0,"},
		{100 * time.Hour, "max-age=0,"},
	} {
		w.set(func() { w.now = t0.Add(c.at) })
		resp, _ := get(t, "GET", url+"/crl/sign-1/99101.crl")
		if got := resp.Header.Get("Cache-Control"); resp.StatusCode != 200 || !strings.Contains(got, c.want) {
			t.Errorf("%v after thisUpdate: %d, %q, want %q", c.at, resp.StatusCode, got, c.want)
		}
	}
}

func TestServeRefuses(t *testing.T) {
	_, _, s, url, dir := newServer(t)
	for path, data := range map[string]string{
		"secret": "secret", "sign-1/secret.crl": "secret", "sign-1/99103.crl": "not a CRL", "../above.crl": "secret",
	} {
		if err := os.WriteFile(filepath.Join(dir, path), []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "sign-1", "99104.crl"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		method, path string
		status       int
		problem      jpki.Problem
	}{
		{"GET", "/crl/sign-1/99102.crl", 404, jpki.NotFound}, // not published yet
		{"GET", "/crl/sign-2/full.crl", 404, jpki.NotFound},
		{"GET", "/crl/", 404, jpki.NotFound},
		{"GET", "/", 404, jpki.NotFound},
		{"GET", "/sign-1/full.crl", 404, jpki.NotFound},
		{"GET", "/crl/secret", 404, jpki.NotFound},
		{"GET", "/crl/sign-1/secret.crl", 404, jpki.NotFound},
		{"GET", "/crl/sign-1/", 404, jpki.NotFound},
		{"GET", "/crl/sign-1/../sign-1/full.crl", 404, jpki.NotFound},
		{"GET", "/crl/sign-1/..%2f..%2fabove.crl", 404, jpki.NotFound},
		{"GET", "/crl/sign-1%2ffull.crl", 404, jpki.NotFound},
		{"GET", "/crl//sign-1/full.crl", 404, jpki.NotFound},
		{"GET", "/crl/sign-1/full.crl/", 404, jpki.NotFound},
		{"GET", "/crl/sign-1/full.crl%00", 404, jpki.NotFound},
		{"GET", "/crl/sign-1/.99101.crl.new", 404, jpki.NotFound},
		{"POST", "/crl/sign-1/nothing", 404, jpki.NotFound},
		{"POST", "/crl/sign-1/full.crl", 405, jpki.MethodNotAllowed},
		{"PUT", "/crl/sign-1/full.crl", 405, jpki.MethodNotAllowed},
		{"DELETE", "/crl/sign-1/99102.crl", 405, jpki.MethodNotAllowed},
		{"GET", "/crl/sign-1/99103.crl", 503, jpki.Unavailable},
		{"GET", "/crl/sign-1/99104.crl", 503, jpki.Unavailable},
	} {
		resp, body := get(t, c.method, url+c.path)
		var details jpki.ProblemDetails
		if err := json.Unmarshal(body, &details); err != nil || resp.StatusCode != c.status || details.Problem() != c.problem ||
			resp.Header.Get("Content-Type") != "application/problem+json" || bytes.Contains(body, []byte("secret")) || bytes.Contains(body, []byte(dir)) {
			t.Errorf("%s %s: %d %s, want %d %s", c.method, c.path, resp.StatusCode, body, c.status, c.problem)
		}
		if allow := resp.Header.Get("Allow"); (allow == "GET, HEAD") != (c.status == 405) {
			t.Errorf("%s %s: Allow: %q", c.method, c.path, allow)
		}
	}
	if diff := cmp.Diff(map[string]uint64{"not-found": 16, "method-not-allowed": 3, "unavailable": 2}, s.Outcomes.Snapshot()); diff != "" {
		t.Error(diff)
	}
}

func TestNewServerRefuses(t *testing.T) {
	for name, cfg := range map[string]crl.ServerConfig{
		"Dir": {Now: time.Now}, "Now": {Dir: "."}, "MaxAge": {Dir: ".", Now: time.Now, MaxAge: -1},
	} {
		_, err := crl.NewServer(cfg)
		checkError(t, name, err, "ServerConfig."+name)
	}
}

// The reader of a CRL's beginning reads what crypto/x509 reads of everything that is a CRL; of a part of one, the same or nothing.
func FuzzReadTimes(f *testing.F) {
	a := newAuthority(f, "p-256")
	late := template(a, partition(f, a.id, "99101"))
	late.ThisUpdate, late.NextUpdate = t0, time.Date(2050, 1, 1, 0, 0, 0, 0, time.UTC)
	f.Add(build(f, late, nil))
	f.Add(build(f, template(a, crl.Scope{Issuer: a.id}), numbered(f, 2)))
	f.Add(build(f, late, numbered(f, 200)))
	f.Add([]byte{0x30, 0x80, 0x30, 0x80})
	f.Fuzz(func(t *testing.T, der []byte) {
		list, err := x509.ParseRevocationList(der)
		if err != nil || list.NextUpdate.IsZero() {
			return
		}
		for _, n := range []int{len(der), 4096, len(der) / 2} {
			this, next, err := crl.ReadTimes(der[:min(n, len(der))])
			switch {
			case err != nil && n == len(der):
				t.Errorf("%v; crypto/x509 reads it", err)
			case err == nil && (!this.Equal(list.ThisUpdate) || !next.Equal(list.NextUpdate)):
				t.Errorf("%v, %v of %d octets; crypto/x509 reads %v, %v", this, next, n, list.ThisUpdate, list.NextUpdate)
			}
		}
	})
}
