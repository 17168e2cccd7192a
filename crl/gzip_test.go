package crl_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/openjpki/jpki/crl"
)

// packedWorld publishes a long and a short list with their gzip forms and serves them.
func packedWorld(t *testing.T) (w *world, p *crl.Publisher, url, dir string) {
	t.Helper()
	dir = t.TempDir()
	w = &world{now: t0, revoked: map[string][]crl.Entry{"99101": numbered(t, 500)}}
	cfg := config(t, w, dir)
	cfg.Gzip = true
	p = newPublisher(t, cfg)
	for _, key := range []crl.ID{key101, key102} {
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
	w.set(func() { w.now = t0.Add(time.Minute) })
	return w, p, ts.URL + "/crl/", dir
}

func gunzip(t *testing.T, b []byte) []byte {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestServeGzip(t *testing.T) {
	w, p, url, dir := packedWorld(t)
	plain, whole := get(t, "GET", url+key101.Path(), "Accept-Encoding", "identity")
	packed, octets := get(t, "GET", url+key101.Path(), "Accept-Encoding", "gzip")
	for name, resp := range map[string]*http.Response{"plain": plain, "packed": packed} {
		h := resp.Header
		if resp.StatusCode != 200 || h.Get("Vary") != "Accept-Encoding" || h.Get("Last-Modified") == "" || h.Get("Cache-Control") == "" || h.Get("Content-Type") != "application/pkix-crl" || resp.ContentLength <= 0 {
			t.Errorf("%s: %v", name, resp)
		}
	}
	tag := packed.Header.Get("ETag")
	if plain.Header.Get("Content-Encoding") != "" || packed.Header.Get("Content-Encoding") != "gzip" || tag == plain.Header.Get("ETag") {
		t.Errorf("encodings %q, %q; tags %s, %s", plain.Header.Get("Content-Encoding"), packed.Header.Get("Content-Encoding"), plain.Header.Get("ETag"), tag)
	}
	if !bytes.Equal(whole, published(t, dir, key101)) || !bytes.Equal(gunzip(t, octets), whole) || len(octets) >= len(whole) {
		t.Errorf("%d octets, packed %d", len(whole), len(octets))
	}
	if resp, body := get(t, "HEAD", url+key101.Path(), "Accept-Encoding", "gzip"); resp.ContentLength != int64(len(octets)) || len(body) != 0 || resp.Header.Get("ETag") != tag {
		t.Errorf("HEAD: %v", resp)
	}
	// Each form has ranges, validators and lengths of its own.
	for _, c := range []struct {
		name, value string
		status      int
		body        []byte
	}{
		{"Range", "bytes=5-", 206, octets[5:]},
		{"If-None-Match", tag, 304, nil},
		{"If-None-Match", plain.Header.Get("ETag"), 200, octets},
		{"If-Match", `"other"`, 412, nil},
		{"If-Modified-Since", packed.Header.Get("Last-Modified"), 304, nil},
	} {
		resp, body := get(t, "GET", url+key101.Path(), "Accept-Encoding", "gzip", c.name, c.value)
		if resp.StatusCode != c.status || !bytes.Equal(body, c.body) {
			t.Errorf("%s %s: %v", c.name, c.value, resp)
		}
	}
	resp, body := get(t, "GET", url+key101.Path(), "Accept-Encoding", "gzip", "Range", "bytes=5-9", "If-Range", plain.Header.Get("ETag"))
	if resp.StatusCode != 200 || !bytes.Equal(body, octets) {
		t.Errorf("a part of one form was asked for with the tag of the other: %v", resp)
	}
	if resp, _ := get(t, "GET", url+key102.Path(), "Accept-Encoding", "gzip"); resp.Header.Get("Content-Encoding") != "" {
		t.Error("a short list is packed")
	}

	// After the next publication, and when that was killed before it packed, and when somebody damaged the file: never the old list.
	before := read(t, packedPath(dir))
	w.set(func() { w.revoked["99101"] = numbered(t, 501) })
	if err := p.Publish(context.Background(), key101); err != nil {
		t.Fatal(err)
	}
	check := func(name, encoding string) {
		t.Helper()
		resp, body := get(t, "GET", url+key101.Path(), "Accept-Encoding", "gzip")
		if resp.Header.Get("Content-Encoding") != encoding {
			t.Errorf("%s: encoding %q", name, resp.Header.Get("Content-Encoding"))
		}
		if encoding == "gzip" {
			body = gunzip(t, body)
		}
		if !bytes.Equal(body, published(t, dir, key101)) {
			t.Errorf("%s: another list", name)
		}
	}
	check("published anew", "gzip")
	for name, content := range map[string][]byte{"of the list before": before, "empty": nil, "cut": before[:20], "something else": []byte("no gzip at all, but long enough to be read as a head of one")} {
		if err := os.WriteFile(packedPath(dir), content, 0o644); err != nil {
			t.Fatal(err)
		}
		check(name, "")
	}
	if err := os.Remove(packedPath(dir)); err != nil {
		t.Fatal(err)
	}
	check("without", "")
}

func packedPath(dir string) string { return filepath.Join(dir, "sign-1", ".99101.crl.gz") }

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// That the gzip form cannot be written leaves the list published, and is counted.
func TestPublishUnpacked(t *testing.T) {
	w, p, url, dir := packedWorld(t)
	if err := os.Remove(packedPath(dir)); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(packedPath(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	w.set(func() { w.revoked["99101"] = numbered(t, 501) })
	if err := p.Publish(context.Background(), key101); err != nil {
		t.Fatal(err)
	}
	if got := p.Outcomes.Snapshot(); got["unpacked"] != 1 || got["published"] != 3 {
		t.Error(got)
	}
	if resp, body := get(t, "GET", url+key101.Path(), "Accept-Encoding", "gzip"); resp.StatusCode != 200 || !bytes.Equal(body, published(t, dir, key101)) {
		t.Errorf("%v", resp)
	}
}

func TestAcceptEncoding(t *testing.T) {
	_, _, url, _ := packedWorld(t)
	for value, want := range map[string]bool{
		"gzip": true, "GZIP": true, "x-gzip": true, "deflate, gzip;q=0.5": true, "*": true, "*;q=0, gzip": true, "br;q=1.0, *;q=0.1": true,
		"": false, "identity": false, "gzip;q=0": false, "gzip; q=0.000": false, "*, gzip;q=0": false, "*;q=0": false, "gzip;q=much": false, "gzipped": false,
	} {
		resp, _ := get(t, "GET", url+key101.Path(), "Accept-Encoding", value)
		if got := resp.Header.Get("Content-Encoding") == "gzip"; got != want {
			t.Errorf("Accept-Encoding %s: %v", strconv.Quote(value), got)
		}
	}
}
