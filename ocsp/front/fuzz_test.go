package front_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/openjpki/jpki/ocsp"
	"github.com/openjpki/jpki/ocsp/front"
)

// recorded is a connection whose octets are there from the beginning and come in pieces of one size.
type recorded struct {
	in     []byte
	piece  int
	out    bytes.Buffer
	closed chan struct{}
}

func (r *recorded) Read(b []byte) (int, error) {
	if len(r.in) == 0 {
		return 0, io.EOF
	}
	n := copy(b, r.in[:min(r.piece, len(r.in))])
	r.in = r.in[n:]
	return n, nil
}
func (r *recorded) Write(b []byte) (int, error)      { return r.out.Write(b) }
func (r *recorded) Close() error                     { close(r.closed); return nil }
func (r *recorded) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (r *recorded) RemoteAddr() net.Addr             { return &net.UnixAddr{} }
func (r *recorded) SetDeadline(time.Time) error      { return nil }
func (r *recorded) SetReadDeadline(time.Time) error  { return nil }
func (r *recorded) SetWriteDeadline(time.Time) error { return nil }

type recordings chan net.Conn

func (r recordings) Accept() (net.Conn, error) {
	if c, ok := <-r; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}
func (r recordings) Close() error   { return nil }
func (r recordings) Addr() net.Addr { return &net.TCPAddr{} }

// Whatever octets come, in whatever pieces: what goes back is HTTP, the same for all pieces, and every request that was
// taken for one is the same to net/http, which reads it from the same place. So nothing can be smuggled past either.
func FuzzConnection(f *testing.F) {
	for _, seed := range []string{
		post("mumble"), post("mumble") + post("x"), "\r\n" + post("x"),
		"GET /ocsp/MAYwBDACMAA= HTTP/1.1\r\nHost: x\r\nIf-None-Match: \"a\"\r\n\r\nGET //ocsp//MAYwBDACMAA%3d?x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
		"POST http://x/ocsp HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n00A\r\n0123456789\r\n0\r\nA: b\r\n\r\n" + post("x"),
		"POST /ocsp HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 6\r\n\r\nmumble" + post("x"),
		"HEAD /ocsp HTTP/1.1\r\nHost: x\r\n\r\nOPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n" + post("x"),
		"POST /ocsp HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"POST /ocsp HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\nContent-Length : 5\r\n\r\n", "\x16\x03\x01",
	} {
		f.Add([]byte(seed))
	}
	s, err := front.New(front.Config{Exchanger: newMirror(), Now: func() time.Time { return time.Unix(0, 0) }, Log: quiet, Prefix: "/ocsp"})
	if err != nil {
		f.Fatal(err)
	}
	listener := make(recordings)
	go func() { _ = s.Serve(listener) }()
	f.Cleanup(func() {
		_ = s.Close()
		close(listener)
	})
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) > 100<<10 || bytes.Contains(in, []byte("wait")) || bytes.Contains(in, []byte("panic")) {
			return
		}
		var first []byte
		for _, piece := range []int{len(in), 1, 7, 1000} {
			if piece == 1 && len(in) > 4<<10 {
				continue
			}
			c := &recorded{in: bytes.Clone(in), piece: max(piece, 1), closed: make(chan struct{})}
			listener <- c
			<-c.closed
			out := bytes.ReplaceAll(c.out.Bytes(), []byte("HTTP/1.1 100 Continue\r\n\r\n"), nil)
			if first == nil {
				first = bytes.Clone(out)
			}
			if !bytes.Equal(out, first) {
				t.Fatalf("in pieces of %d: %q\nin one: %q", piece, out, first)
			}
		}
		compare(t, in, first)
	})
}

// compare reads the answers, and beside them the requests as net/http reads them.
func compare(t *testing.T, in, out []byte) {
	answers, requests := bufio.NewReader(bytes.NewReader(out)), bufio.NewReaderSize(bytes.NewReader(in), 128<<10)
	for {
		if _, err := answers.Peek(1); err != nil {
			return
		}
		if begin, _ := requests.Peek(2); string(begin) == "\r\n" {
			_, _ = requests.Discard(2)
		}
		method := http.MethodPost
		if begin, _ := requests.Peek(5); string(begin) == "HEAD " {
			method = http.MethodHead
		}
		req, reqErr := http.ReadRequest(requests)
		res, err := http.ReadResponse(answers, &http.Request{Method: method})
		if err != nil {
			t.Fatalf("what went back is not HTTP: %v\n%q", err, out)
		}
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatalf("what went back is not HTTP: %v\n%q", err, out)
		}
		switch res.StatusCode {
		case http.StatusOK, http.StatusNotModified, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusUnsupportedMediaType:
		default: // refused as a whole
			if !res.Close {
				t.Fatalf("goes on after %s", res.Status)
			}
			return
		}
		var target *url.Error
		if errors.As(reqErr, &target) || reqErr != nil && strings.Contains(reqErr.Error(), "bad trailer key") {
			return // stricter about what means nothing here
		}
		if reqErr != nil {
			t.Fatalf("net/http would refuse this: %v\n%q", reqErr, in)
		}
		content, err := io.ReadAll(req.Body)
		if res.StatusCode == http.StatusOK && req.Method == http.MethodPost && len(content) <= ocsp.MaxRequestBytes {
			if err != nil && !(res.Close && bytes.HasPrefix(body, []byte("get false request  "))) {
				t.Fatalf("net/http would refuse this body: %v\n%q", err, in)
			}
			want := seen(&ocsp.Query{Request: content})
			if res.ContentLength >= 0 && err == nil && string(body) != want && string(content) != "big" {
				t.Fatalf("took %q for %q", want, body)
			}
		}
		if res.StatusCode == http.StatusOK && req.Method == http.MethodGet && !bytes.HasPrefix(body, []byte("get true")) {
			t.Fatalf("took a GET for %q", body)
		}
		if res.Close {
			return
		}
	}
}
