package front_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openjpki/jpki/ocsp"
	"github.com/openjpki/jpki/ocsp/front"
)

// mirror answers with what it was asked. Some requests make it do more.
type mirror struct {
	entered chan struct{} // told of each "wait"
	release chan struct{} // lets them go on
}

func newMirror() mirror { return mirror{make(chan struct{}, 100), make(chan struct{})} }

func (m mirror) Exchange(_ context.Context, q *ocsp.Query) ocsp.Reply {
	switch string(q.Request) {
	case "panic":
		panic("secret of the exchange")
	case "wait":
		m.entered <- struct{}{}
		<-m.release
	case "big":
		return ocsp.Reply{Code: http.StatusOK, Body: make([]byte, 200<<10)}
	case "nonsense":
		return ocsp.Reply{}
	}
	if q.IfNoneMatch == `"same"` {
		return ocsp.Reply{Code: http.StatusNotModified, Head: []byte("ETag: \"same\"\r\nCache-Control: max-age=60\r\n")}
	}
	return ocsp.Reply{
		Code: http.StatusOK, Head: []byte("Content-Type: application/ocsp-response\r\nCache-Control: max-age=60, public\r\nETag: \"x\"\r\n"),
		Body: []byte(seen(q)),
	}
}

func seen(q *ocsp.Query) string {
	return fmt.Sprintf("get %v request %x none-match %q since %q address %q certificate %x",
		q.GET, q.Request, q.IfNoneMatch, q.IfModifiedSince, q.Client.Address, q.Client.Certificate)
}

var quiet = slog.New(slog.DiscardHandler)

// start serves on a port of its own until the test ends, with whatever is required and not given.
func start(t testing.TB, cfg front.Config) (*front.Server, string) {
	t.Helper()
	if cfg.Exchanger == nil {
		cfg.Exchanger = newMirror()
	}
	if cfg.Log == nil {
		cfg.Log = quiet
	}
	if cfg.Prefix == "" {
		cfg.Prefix = "/ocsp"
	}
	cfg.Now = time.Now
	s, err := front.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	t.Cleanup(func() {
		_ = s.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return s, l.Addr().String()
}

func dial(t testing.TB, address string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil { // a test that hangs says where
		t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

// An answer is what a test looks at of a response.
type answer struct {
	Code   int
	Body   string
	Last   bool
	Header http.Header
}

// answers reads responses until the connection ends.
func answers(t testing.TB, c net.Conn, methods ...string) []answer {
	t.Helper()
	in := bufio.NewReader(c)
	var out []answer
	for {
		if _, err := in.Peek(1); err != nil {
			if !errors.Is(err, io.EOF) {
				t.Errorf("the connection did not end but broke: %v", err)
			}
			return out
		}
		method := http.MethodPost
		if len(methods) > len(out) {
			method = methods[len(out)]
		}
		out = append(out, readAnswer(t, in, method))
	}
}

func readAnswer(t testing.TB, in *bufio.Reader, method string) answer {
	t.Helper()
	res, err := http.ReadResponse(in, &http.Request{Method: method})
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{res.StatusCode, string(body), res.Close, res.Header}
}

// codes says what happened in one line.
func codes(as []answer) string {
	var out []string
	for _, a := range as {
		out = append(out, strconv.Itoa(a.Code))
	}
	return strings.Join(out, " ")
}

func post(body string) string {
	return fmt.Sprintf("POST /ocsp HTTP/1.1\r\nHost: x\r\nContent-Type: application/ocsp-request\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

// talk sends octets and the end, and returns what came back until the other end.
func talk(t testing.TB, address, raw string, methods ...string) []answer {
	t.Helper()
	c := dial(t, address)
	go func() { // the server may answer and stop listening before all is sent
		_, _ = io.WriteString(c, raw)
		_ = c.CloseWrite()
	}()
	return answers(t, c, methods...)
}

const ok = "get false request 6d756d626c65 none-match \"\" since \"\" address \"127.0.0.1\" certificate "

// Each input is followed by a good request: when that is answered as well, the connection went on, and at the right place.
func TestHostileRequests(t *testing.T) {
	_, address := start(t, front.Config{})
	long := strings.Repeat("a", 20<<10)
	const host, typed = "Host: x\r\n", "Host: x\r\nContent-Type: application/ocsp-request\r\n"
	for _, test := range []struct{ name, raw, want string }{
		{"nothing", "", "200"},
		{"good", post("mumble"), "200 200"},
		{"HTTP/1.0 ends", "POST /ocsp HTTP/1.0\r\nContent-Length: 1\r\n\r\nx", "200"},
		{"HTTP/1.0 that goes on", "POST /ocsp HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\nx", "200 200"},
		{"close", "POST /ocsp HTTP/1.1\r\nConnection: Close\r\n" + host + "Content-Length: 1\r\n\r\nx", "200"},
		{"close in a list", "POST /ocsp HTTP/1.1\r\nConnection: te , cLose,\r\n" + host + "Content-Length: 1\r\n\r\nx", "200"},
		{"close and keep-alive", "POST /ocsp HTTP/1.0\r\nConnection: close, keep-alive\r\n" + host + "Content-Length: 1\r\n\r\nx", "200"},
		{"no body", "POST /ocsp HTTP/1.1\r\n" + typed + "\r\n", "200 200"},
		{"empty body", "POST /ocsp HTTP/1.1\r\n" + typed + "Content-Length: 0\r\n\r\n", "200 200"},
		{"chunked", "POST /ocsp HTTP/1.1\r\n" + typed + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n00A;x=\"y\"\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n", "200 200"},
		{"chunked, spelt otherwise", "POST /ocsp HTTP/1.1\r\n" + typed + "transfer-encoding:\tCHUNKED \r\n\r\n0\r\n\r\n", "200 200"},
		{"empty line before", "\r\n" + post("x"), "200 200"},
		{"absolute form", "POST http://any.example:80/ocsp HTTP/1.1\r\n" + typed + "Content-Length: 1\r\n\r\nx", "200 200"},
		{"slashes", "POST //ocsp/ HTTP/1.1\r\n" + typed + "Content-Length: 1\r\n\r\nx", "200 200"},
		{"GET with a body", "GET /ocsp/MAA= HTTP/1.1\r\n" + host + "Content-Length: 3\r\n\r\nabc", "200 200"},
		{"a GET's path is not base64", "GET /ocsp/%%% HTTP/1.1\r\n" + host + "\r\n", "200 200"},
		{"no type", "POST /ocsp HTTP/1.1\r\n" + host + "Content-Length: 1\r\n\r\nx", "200 200"},
		{"type with parameter", "POST /ocsp HTTP/1.1\r\n" + host + "Content-Type: Application/OCSP-Request; x=y\r\nContent-Length: 1\r\n\r\nx", "200 200"},
		{"octets above ASCII in a value", "POST /ocsp HTTP/1.1\r\n" + typed + "X: \xe3\x81\x82\r\nContent-Length: 1\r\n\r\nx", "200 200"},
		{"as many fields as may be", "GET /ocsp/MAA= HTTP/1.1\r\n" + host + strings.Repeat("a: b\r\n", 63) + "\r\n", "200 200"},

		{"HEAD", "HEAD /ocsp/MAA= HTTP/1.1\r\n" + host + "\r\n", "405 200"},
		{"OPTIONS", "OPTIONS /ocsp HTTP/1.1\r\n" + host + "\r\n", "405 200"},
		{"OPTIONS *", "OPTIONS * HTTP/1.1\r\n" + host + "\r\n", "404 200"},
		{"PUT with a body", "PUT /ocsp HTTP/1.1\r\n" + host + "Content-Length: 1\r\n\r\nx", "405"},
		{"elsewhere", "GET /elsewhere HTTP/1.1\r\n" + host + "\r\n", "404 200"},
		{"prefix of another name", "GET /ocspx HTTP/1.1\r\n" + host + "\r\n", "404 200"},
		{"POST below", "POST /ocsp/x HTTP/1.1\r\n" + typed + "\r\n", "404 200"},
		{"type", "POST /ocsp HTTP/1.1\r\n" + host + "Content-Type: text/plain\r\n\r\n", "415 200"},
		{"type, with a body", "POST /ocsp HTTP/1.1\r\n" + host + "Content-Type: text/plain\r\nContent-Length: 1\r\n\r\nx", "415"},
		{"expects what nobody knows", "POST /ocsp HTTP/1.1\r\n" + typed + "Expect: wonders\r\nContent-Length: 1\r\n\r\nx", "417"},

		{"TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "400"},
		{"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "505"},
		{"HTTP/1.2", "GET /ocsp/MAA= HTTP/1.2\r\n" + host + "\r\n", "505"},
		{"HTTP/0.9", "GET /ocsp/MAA=\r\n\r\n", "400"},
		{"version in small letters", "GET /ocsp/MAA= http/1.1\r\n" + host + "\r\n", "400"},
		{"CONNECT", "CONNECT x:443 HTTP/1.1\r\n" + host + "\r\n", "400"},
		{"relative target", "GET ocsp/MAA= HTTP/1.1\r\n" + host + "\r\n", "400"},
		{"two spaces", "GET  /ocsp/MAA= HTTP/1.1\r\n" + host + "\r\n", "400"},
		{"space in the target", "GET /ocsp/MA A= HTTP/1.1\r\n" + host + "\r\n", "400"},
		{"tab in the request line", "GET\t/ocsp/MAA= HTTP/1.1\r\n" + host + "\r\n", "400"},
		{"octets above ASCII in the target", "GET /ocsp/\xe3\x81\x82 HTTP/1.1\r\n" + host + "\r\n", "400"},
		{"method of no token", "G@T /ocsp/MAA= HTTP/1.1\r\n" + host + "\r\n", "400"},
		{"two empty lines before", "\r\n\r\n" + post("x"), "400"},
		{"no host", "POST /ocsp HTTP/1.1\r\nContent-Length: 1\r\n\r\nx", "400"},
		{"two hosts", "POST /ocsp HTTP/1.1\r\nHost: x\r\nhost: x\r\nContent-Length: 1\r\n\r\nx", "400"},
		{"host of strange octets", "POST /ocsp HTTP/1.1\r\nHost: x/y\r\nContent-Length: 1\r\n\r\nx", "400"},
		{"bare LF", "POST /ocsp HTTP/1.1\nHost: x\nContent-Length: 1\n\nx", "400"},
		{"one bare LF", "POST /ocsp HTTP/1.1\r\nHost: x\nContent-Length: 1\r\n\r\nx", "400"},
		{"bare CR", "POST /ocsp HTTP/1.1\r\nHost: x\r\nX: a\rContent-Length: 3\r\n\r\n", "400"},
		{"NUL in a value", "POST /ocsp HTTP/1.1\r\n" + host + "X: a\x00b\r\n\r\n", "400"},
		{"NUL in a name", "POST /ocsp HTTP/1.1\r\n" + host + "X\x00: a\r\n\r\n", "400"},
		{"control in a value", "POST /ocsp HTTP/1.1\r\n" + host + "X: a\x7fb\r\n\r\n", "400"},
		{"space before the colon", "POST /ocsp HTTP/1.1\r\n" + host + "Content-Length : 1\r\n\r\nx", "400"},
		{"tab before the colon", "POST /ocsp HTTP/1.1\r\n" + host + "Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n", "400"},
		{"no colon", "POST /ocsp HTTP/1.1\r\n" + host + "Content-Length\r\n\r\n", "400"},
		{"no name", "POST /ocsp HTTP/1.1\r\n" + host + ": x\r\n\r\n", "400"},
		{"folded line", "POST /ocsp HTTP/1.1\r\n" + host + "X: a\r\n b\r\n\r\n", "400"},
		{"folded first line", "POST /ocsp HTTP/1.1\r\n X: a\r\n" + host + "\r\n", "400"},
		{"both lengths", "POST /ocsp HTTP/1.1\r\n" + typed + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"},
		{"both lengths, the other way", "POST /ocsp HTTP/1.1\r\n" + typed + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", "400"},
		{"two lengths", "POST /ocsp HTTP/1.1\r\n" + typed + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nxy", "400"},
		{"two equal lengths", "POST /ocsp HTTP/1.1\r\n" + typed + "Content-Length: 1\r\nContent-Length: 1\r\n\r\nx", "400"},
		{"list of lengths", "POST /ocsp HTTP/1.1\r\n" + typed + "Content-Length: 1, 1\r\n\r\nx", "400"},
		{"length with a sign", "POST /ocsp HTTP/1.1\r\n" + typed + "Content-Length: +1\r\n\r\nx", "400"},
		{"negative length", "POST /ocsp HTTP/1.1\r\n" + typed + "Content-Length: -1\r\n\r\nx", "400"},
		{"hexadecimal length", "POST /ocsp HTTP/1.1\r\n" + typed + "Content-Length: 0x1\r\n\r\nx", "400"},
		{"no length in the length", "POST /ocsp HTTP/1.1\r\n" + typed + "Content-Length: \r\n\r\nx", "400"},
		{"two codings", "POST /ocsp HTTP/1.1\r\n" + typed + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"},
		{"coding twice", "POST /ocsp HTTP/1.1\r\n" + typed + "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", "501"},
		{"identity", "POST /ocsp HTTP/1.1\r\n" + typed + "Transfer-Encoding: identity\r\n\r\n", "501"},
		{"gzip", "POST /ocsp HTTP/1.1\r\n" + typed + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "501"},
		{"coding with a vertical tab", "POST /ocsp HTTP/1.1\r\n" + typed + "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", "400"},
		{"chunked in HTTP/1.0", "POST /ocsp HTTP/1.0\r\n" + typed + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"},
		{"chunk without length", "POST /ocsp HTTP/1.1\r\n" + typed + "Transfer-Encoding: chunked\r\n\r\n\r\n", "400"},
		{"chunk of a strange length", "POST /ocsp HTTP/1.1\r\n" + typed + "Transfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n", "400"},
		{"chunk with a space before its length", "POST /ocsp HTTP/1.1\r\n" + typed + "Transfer-Encoding: chunked\r\n\r\n 1;\r\na\r\n0\r\n\r\n", "400"},
		{"chunk of negative length", "POST /ocsp HTTP/1.1\r\n" + typed + "Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n0\r\n\r\n", "400"},
		{"chunk whose length overflows", "POST /ocsp HTTP/1.1\r\n" + typed + "Transfer-Encoding: chunked\r\n\r\n10000000000000001\r\na\r\n0\r\n\r\n", "400"},
		{"chunk longer than said", "POST /ocsp HTTP/1.1\r\n" + typed + "Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n", "400"},
		{"chunk lines end with LF", "POST /ocsp HTTP/1.1\r\n" + typed + "Transfer-Encoding: chunked\r\n\r\n1\na\n0\n\n", "400"},
		{"chunk data ends with LF", "POST /ocsp HTTP/1.1\r\n" + typed + "Transfer-Encoding: chunked\r\n\r\n1\r\na\n0\r\n\r\n", "400"},
		{"endless extension", "POST /ocsp HTTP/1.1\r\n" + typed + "Transfer-Encoding: chunked\r\n\r\n1;" + long + "\r\na\r\n0\r\n\r\n", "400"},
		{"more chunks than data", "POST /ocsp HTTP/1.1\r\n" + typed + "Transfer-Encoding: chunked\r\n\r\n" + strings.Repeat("1\r\na\r\n", 5000) + "0\r\n\r\n", "400"},
		{"endless trailer", "POST /ocsp HTTP/1.1\r\n" + typed + "Transfer-Encoding: chunked\r\n\r\n0\r\n" + strings.Repeat("X: "+long[:200]+"\r\n", 100) + "\r\n", "400"},
		{"folded trailer", "POST /ocsp HTTP/1.1\r\n" + typed + "Transfer-Encoding: chunked\r\n\r\n0\r\n X: y\r\n\r\n", "400"},

		{"too many fields", "GET /ocsp/MAA= HTTP/1.1\r\n" + host + strings.Repeat("a: b\r\n", 64) + "\r\n", "431"},
		{"head too large", "GET /ocsp/MAA= HTTP/1.1\r\n" + host + "X: " + long + "\r\n\r\n", "431"},
		{"target too long", "GET /ocsp/" + long + " HTTP/1.1\r\n" + host + "\r\n", "414"},
		// Too large for OCSP is malformed in its own words; where the next request would begin is not looked for.
		{"body too large", "POST /ocsp HTTP/1.1\r\n" + typed + "Content-Length: 65537\r\n\r\n" + strings.Repeat("a", 65537), "200"},
		{"length beyond all measure", "POST /ocsp HTTP/1.1\r\n" + typed + "Content-Length: 99999999999999999999999999\r\n\r\n", "200"},
		{"chunks too large", "POST /ocsp HTTP/1.1\r\n" + typed + "Transfer-Encoding: chunked\r\n\r\n10000\r\n" + strings.Repeat("a", 0x10000) + "\r\n1\r\na\r\n0\r\n\r\n", "200"},
		{"a fault", post("panic"), "500"},
		{"an answer that is none", post("nonsense"), "500 200"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := talk(t, address, test.raw+post("mumble"), strings.Fields(test.raw + " POST")[0])
			if codes(got) != test.want {
				t.Fatalf("got %s, want %s", codes(got), test.want)
			}
			last := got[len(got)-1]
			if on := strings.HasSuffix(test.want, "200") && last.Body == ok; on == last.Last {
				t.Errorf("said that it is the last: %v; %q", last.Last, last.Body)
			}
			if strings.HasSuffix(test.want, " 200") && last.Body != ok {
				t.Errorf("the next request was taken for something else: %q", last.Body)
			}
			for _, a := range got {
				if a.Code >= 400 && a.Code != 500 && (a.Header.Get("Content-Type") != "application/problem+json" || a.Header.Get("Cache-Control") != "no-store") {
					t.Errorf("a refusal without a problem: %v", a.Header)
				}
				if a.Header.Get("Date") == "" {
					t.Error("no date")
				}
				if a.Code == http.StatusMethodNotAllowed && a.Header.Get("Allow") != "GET, POST" {
					t.Error("not said what is allowed")
				}
			}
		})
	}
}

// What a body was taken for, in every way to send one, at the limit and beyond.
func TestBodies(t *testing.T) {
	_, address := start(t, front.Config{})
	body := strings.Repeat("0123456789abcdef", ocsp.MaxRequestBytes/16)
	chunked := func(size int) string {
		var b strings.Builder
		b.WriteString("POST /ocsp HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
		for rest := body; rest != ""; {
			n := min(size, len(rest))
			fmt.Fprintf(&b, "%x\r\n%s\r\n", n, rest[:n])
			rest = rest[n:]
		}
		return b.String() + "0\r\n\r\n"
	}
	for name, raw := range map[string]string{"length": post(body), "chunks": chunked(1000), "one chunk": chunked(len(body))} {
		t.Run(name, func(t *testing.T) {
			got := talk(t, address, raw+raw+post("mumble"))
			want := seen(&ocsp.Query{Request: []byte(body), Client: ocsp.Client{Address: "127.0.0.1"}})
			if codes(got) != "200 200 200" || got[0].Body != want || got[1].Body != want || got[2].Body != ok {
				t.Fatalf("got %s", codes(got))
			}
		})
	}
	t.Run("too large is malformed OCSP", func(t *testing.T) {
		got := talk(t, address, post(body+"x"))
		if codes(got) != "200" || got[0].Body != seen(&ocsp.Query{Client: ocsp.Client{Address: "127.0.0.1"}}) || !got[0].Last {
			t.Errorf("got %v", got)
		}
	})
}

func TestContinue(t *testing.T) {
	_, address := start(t, front.Config{})
	c := dial(t, address)
	in := bufio.NewReader(c)
	const head = "POST /ocsp HTTP/1.1\r\nHost: x\r\nExpect: 100-Continue\r\nContent-Length: 6\r\n\r\n"
	fmt.Fprint(c, post("mumble"), head) // the answer to the first must come before
	if a := readAnswer(t, in, "POST"); a.Body != ok {
		t.Fatal(a)
	}
	if line, err := in.ReadString('\n'); err != nil || line != "HTTP/1.1 100 Continue\r\n" {
		t.Fatal(line, err)
	}
	if line, err := in.ReadString('\n'); err != nil || line != "\r\n" {
		t.Fatal(line, err)
	}
	fmt.Fprint(c, "mumble", head, "mumble") // the second body comes at once
	for range 2 {
		if a := readAnswer(t, in, "POST"); a.Body != ok {
			t.Fatal(a)
		}
	}
	fmt.Fprint(c, strings.ReplaceAll(head, "Length: 6", "Length: 65537")) // no need to send it
	if a := readAnswer(t, in, "POST"); a.Code != 200 || !a.Last {
		t.Fatal(a)
	}
}

func TestConditions(t *testing.T) {
	_, address := start(t, front.Config{})
	const before = "GET /ocsp/MAYwBDACMAA%3D?x HTTP/1.1\r\nHost: x\r\n"
	got := talk(t, address, before+"If-None-Match: \"same\"\r\n\r\n"+
		before+"if-none-match: \"a\"\r\nIf-None-Match: W/\"b\"\r\nIF-MODIFIED-SINCE: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n"+post("mumble"), "GET", "GET")
	if codes(got) != "304 200 200" || got[0].Header.Get("ETag") != `"same"` || got[0].Header.Get("Content-Length") != "" {
		t.Fatal(got)
	}
	want := seen(&ocsp.Query{
		GET: true, Request: []byte{0x30, 6, 0x30, 4, 0x30, 2, 0x30, 0}, IfNoneMatch: `"a", W/"b"`,
		IfModifiedSince: "Sun, 06 Nov 1994 08:49:37 GMT", Client: ocsp.Client{Address: "127.0.0.1"},
	})
	if d := cmp.Diff(want, got[1].Body); d != "" {
		t.Error(d)
	}
}

// What a fault leaves in the log is where it was, never what the request held.
func TestFaultIsLoggedWithoutItsValue(t *testing.T) {
	var log bytes.Buffer
	s, address := start(t, front.Config{Log: slog.New(slog.NewTextHandler(&log, nil))})
	if got := talk(t, address, post("mumble")+post("panic")+post("mumble")); codes(got) != "200 500" {
		t.Fatal(codes(got))
	}
	if _ = s.Close(); !strings.Contains(log.String(), "Exchange") || strings.Contains(log.String(), "secret") {
		t.Error(log.String())
	}
}

func TestConfig(t *testing.T) {
	good := front.Config{Exchanger: newMirror(), Now: time.Now, Log: quiet}
	for name, spoil := range map[string]func(*front.Config){
		"Exchanger":         func(c *front.Config) { c.Exchanger = nil },
		"Now":               func(c *front.Config) { c.Now = nil },
		"Log":               func(c *front.Config) { c.Log = nil },
		"Arrive":            func(c *front.Config) { c.Arrive = -1 },
		"Idle":              func(c *front.Config) { c.Idle = -1 },
		"Write":             func(c *front.Config) { c.Write = -1 },
		"connections":       func(c *front.Config) { c.PerAddress = -1 },
		"Prefix":            func(c *front.Config) { c.Prefix = "/ocsp/" },
		"CertificateHeader": func(c *front.Config) { c.CertificateHeader = "Client Cert" },
	} {
		cfg := good
		spoil(&cfg)
		if _, err := front.New(cfg); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := front.New(good); err != nil {
		t.Error(err)
	}
}
