package front_test

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/openjpki/jpki/ocsp/front"
)

// Whatever valid request comes, the listener answers as net/http does in front of the same handler.
func TestAsNetHTTP(t *testing.T) {
	other := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, r.Method, " ", r.RequestURI) //nolint:gosec // no browser reads it
	})
	s, address := start(t, front.Config{Other: other})
	h := httptest.NewServer(s)
	defer h.Close()
	reference := strings.TrimPrefix(h.URL, "http://")
	seenCodes := map[int]bool{}
	compare := func(rt *rapid.T) {
		var raw strings.Builder
		var methods []string
		n := rapid.IntRange(1, 4).Draw(rt, "requests")
		for i := range n {
			method, text := request(rt, i == n-1)
			methods = append(methods, method)
			raw.WriteString(text)
		}
		got, want := talk(t, address, raw.String(), methods...), talk(t, reference, raw.String(), methods...)
		if len(got) < len(want) && got[len(got)-1].Code >= 400 { // it does not read a body that is of no use
			want = want[:len(got)]
			want[len(got)-1].Last = got[len(got)-1].Last
		}
		for i := range min(len(got), len(want)) {
			seenCodes[got[i].Code] = true
			for _, a := range []*answer{&got[i], &want[i]} {
				a.Header.Del("Date")
				a.Last = a.Last && a.Code < 400
			}
		}
		if d := cmp.Diff(want, got); d != "" {
			rt.Errorf("%q:\n%s", raw.String(), d)
		}
	}
	unseen := func(code int) bool { return !seenCodes[code] }
	codes := []int{200, 304, 404, 405, 415}
	for range 20 { // chance may leave one out
		rapid.Check(t, compare)
		if t.Failed() || !slices.ContainsFunc(codes, unseen) {
			return
		}
	}
	for _, code := range slices.DeleteFunc(codes, func(code int) bool { return seenCodes[code] }) {
		t.Errorf("no answer was %d", code)
	}
}

// request draws a request that is valid HTTP.
func request(t *rapid.T, last bool) (method, raw string) {
	pick := func(name string, of ...string) string { return rapid.SampledFrom(of).Draw(t, name) }
	body := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "body")
	if rapid.IntRange(0, 19).Draw(t, "large") == 0 {
		body = slices.Repeat([]byte("0123456789"), rapid.IntRange(100, 6500).Draw(t, "tens"))
	}
	method = pick("method", "GET", "GET", "GET", "POST", "POST", "POST", "HEAD", "PUT", "OPTIONS", "DELETE")
	target := pick("prefix", "/ocsp", "/ocsp", "/ocsp/", "//ocsp/", "/ocspx", "/other", "http://x/ocsp", "http://x/ocsp/", "HTTP://x/ocsp/")
	if method == "GET" {
		der := append([]byte{0x30, 0x82, 0, 0}, rapid.SliceOfN(rapid.Byte(), 4, 300).Draw(t, "request")...)
		der[2], der[3] = byte((len(der)-4)>>8), byte(len(der)-4)
		text := base64.StdEncoding.EncodeToString(der)
		target += "/" + pick("form", text, url.PathEscape(text), url.QueryEscape(text), strings.TrimRight(text, "="), base64.URLEncoding.EncodeToString(der), text+"/", text+"?"+text, "nonsense", "")
	} else {
		target += pick("behind", "", "", "", "/", "?x=y", "/x")
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\n%s: x\r\n", method, target, pick("host", "Host", "host", "HOST"))
	for range rapid.IntRange(0, 3).Draw(t, "fields") {
		b.WriteString(pick("field", "Content-Type: application/ocsp-request\r\n", "content-type:application/octet-stream; a=b\r\n", "Content-Type: text/plain\r\n",
			"If-None-Match: \"same\"\r\n", "If-None-Match: \"other\"\t\r\n", "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n",
			"X-Forwarded-For: 192.0.2.1\r\n", "Accept: */*\r\n", "X: \xff\r\n", "Connection: keep-alive\r\n", "X-Empty:\r\n", "Pragma: a, b\r\n"))
	}
	if last && rapid.Bool().Draw(t, "close") { // who says it earlier may lose answers
		b.WriteString("Connection: close\r\n")
	}
	switch {
	case method == "GET" || method == "HEAD" || method == "OPTIONS" || method == "DELETE":
		b.WriteString("\r\n")
	case rapid.Bool().Draw(t, "chunked"):
		b.WriteString("Transfer-Encoding: chunked\r\n\r\n")
		for rest := body; len(rest) > 0; {
			n := rapid.IntRange(min(len(rest), 1+len(rest)/20), len(rest)).Draw(t, "chunk")
			fmt.Fprintf(&b, "%s%s\r\n%s\r\n", fmt.Sprintf(pick("digits", "%x", "%X", "00%x"), n), pick("extension", "", "", ";a", ";a=b", "; a=\"b\""), rest[:n])
			rest = rest[n:]
		}
		b.WriteString(pick("end", "0\r\n\r\n", "0\r\nA: b\r\n\r\n", "000;x\r\n\r\n"))
	default:
		fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n%s", len(body), body)
	}
	return method, b.String()
}
