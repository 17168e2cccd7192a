package ocspload_test

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/openjpki/jpki/cmd/internal/ocspload"
)

func TestReader(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 100_000)
	for _, c := range []struct {
		name, in string
		want     []ocspload.Response
		err      error
	}{
		{"plain", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", []ocspload.Response{{200, "abc", 41, false}}, io.EOF},
		{"no reason", "HTTP/1.1 404\r\ncontent-length:0\r\n\r\n", []ocspload.Response{{404, "", 34, false}}, io.EOF},
		{"two", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\naHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nb", []ocspload.Response{{200, "a", 39, false}, {200, "b", 39, false}}, io.EOF},
		{"long", "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + long, []ocspload.Response{{200, long, 100_043, false}}, io.EOF},
		{"chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nTrailer: x\r\n\r\n", []ocspload.Response{{200, "abcde", 83, false}}, io.EOF},
		{"until the end", "HTTP/1.0 200 OK\r\n\r\nabc", []ocspload.Response{{200, "abc", 22, true}}, nil},
		{"closed", "HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 1\r\n\r\na", []ocspload.Response{{200, "a", 58, true}}, nil},
		{"kept by 1.0", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\na", []ocspload.Response{{200, "a", 63, false}}, io.EOF},
		{"100 first", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 304 Not Modified\r\n\r\n", []ocspload.Response{{304, "", 29, false}}, io.EOF},
		{"nothing", "", nil, io.EOF},
		{"half a head", "HTTP/1.1 200 OK\r\nCont", nil, io.ErrUnexpectedEOF},
		{"half a body", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", nil, io.ErrUnexpectedEOF},
		{"half a chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab", nil, io.ErrUnexpectedEOF},
	} {
		got, err := ocspload.ReadResponses(strings.NewReader(c.in))
		if d := cmp.Diff(c.want, got); d != "" || !errIs(err, c.err) {
			t.Errorf("%s: %v, want %v\n%s", c.name, err, c.err, d)
		}
	}
	for _, in := range []string{
		"HTTP/2 200 OK\r\n\r\n", "HTTP/1.1 2x0 OK\r\n\r\n", "HTTP/1.1 200OK\r\n\r\n", "ICY 200 OK\r\n\r\n", "HTTP/1.1 101 Switching Protocols\r\n\r\n", "HTTP/1.1 099 x\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", "HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length : 1\r\n\r\na", "HTTP/1.1 200 OK\r\n: 1\r\n\r\na", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n",
		"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("y", 20_000) + "\r\n\r\n", "HTTP/1.0 200 OK\r\n\r\n" + strings.Repeat("y", 300_000),
	} {
		if got, err := ocspload.ReadResponses(strings.NewReader(in)); err == nil || errIs(err, io.EOF) || len(got) > 0 {
			t.Errorf("%.60q: %v, %v", in, got, err)
		}
	}
}

func errIs(err, want error) bool { return err == want } //nolint:errorlint // the very error is meant

// What the reader and net/http both take, they read as the same; and it does not matter how the octets come.
func FuzzReader(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Type: application/ocsp-response\r\nContent-Length: 5\r\n\r\n0\x03\x0a\x01\x06"))
	f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\n\r\nHTTP/1.1 404 x\r\nContent-Length: 0\r\n\r\n"))
	f.Add([]byte("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\nabc"))
	f.Add([]byte("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 304 Not Modified\r\n\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		got, err := ocspload.ReadResponses(bytes.NewReader(in))
		again, errAgain := ocspload.ReadResponses(iotest.OneByteReader(bytes.NewReader(in)))
		if d := cmp.Diff(got, again); d != "" || (err == nil) != (errAgain == nil) {
			t.Fatalf("octet by octet it reads otherwise: %v, %v\n%s", err, errAgain, d)
		}
		std := bufio.NewReader(bytes.NewReader(in))
		for i, g := range got {
			want, err := final(std)
			if err != nil {
				return // it looks into fields that are none of ours
			}
			body, err := io.ReadAll(want.Body)
			if err != nil || want.StatusCode != g.Code || string(body) != g.Body {
				t.Fatalf("response %d: %d %q, net/http has %d %q %v", i, g.Code, g.Body, want.StatusCode, body, err)
			}
		}
	})
}

func final(in *bufio.Reader) (*http.Response, error) {
	for {
		r, err := http.ReadResponse(in, nil)
		if err != nil || r.StatusCode >= 200 {
			return r, err
		}
	}
}

// A quantile is never less than the latency of that rank, and at most a part in 64 more.
func TestHistogram(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var all []time.Duration
		for _, v := range rapid.SliceOfN(rapid.Int64Range(0, int64(100*time.Second)), 1, 200).Draw(t, "latencies") {
			all = append(all, time.Duration(v)>>rapid.IntRange(0, 30).Draw(t, "shift"))
		}
		h := ocspload.Measure(all)
		slices.Sort(all)
		if h.Count != uint64(len(all)) || h.Max != all[len(all)-1] || h.Quantile(1) != h.Max {
			t.Fatalf("count %d of %d, max %s of %s", h.Count, len(all), h.Max, all[len(all)-1])
		}
		for _, q := range []float64{0.001, 0.5, 0.9, 0.99} {
			rank := min(max(int(q*float64(len(all))+0.999999), 1), len(all))
			want, got := all[rank-1], h.Quantile(q)
			if got < want || got > want+want/64+1 {
				t.Fatalf("quantile %g is %s, the latency of rank %d is %s", q, got, rank, want)
			}
		}
	})
	if q := ocspload.Measure(nil).Quantile(0.5); q != 0 {
		t.Errorf("of nothing: %s", q)
	}
}
