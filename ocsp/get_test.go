package ocsp_test

import (
	"bufio"
	"bytes"
	"crypto"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ocsp"
	"pgregory.net/rapid"
)

// forms are the ways in which clients and proxies write a request into a path.
var forms = []struct {
	name string
	path func(der []byte) string
}{
	{"plain", func(der []byte) string { return base64.StdEncoding.EncodeToString(der) }},
	{"query escape", func(der []byte) string { return url.QueryEscape(base64.StdEncoding.EncodeToString(der)) }},
	{"path escape", func(der []byte) string { return url.PathEscape(base64.StdEncoding.EncodeToString(der)) }},
	{"lower-case escape", func(der []byte) string {
		return strings.NewReplacer("+", "%2b", "/", "%2f", "=", "%3d").Replace(base64.StdEncoding.EncodeToString(der))
	}},
	{"every octet escaped", func(der []byte) string {
		var b strings.Builder
		for _, c := range []byte(base64.StdEncoding.EncodeToString(der)) {
			fmt.Fprintf(&b, "%%%02X", c)
		}
		return b.String()
	}},
	{"no padding", func(der []byte) string { return base64.RawStdEncoding.EncodeToString(der) }},
	{"URL-safe", func(der []byte) string { return base64.URLEncoding.EncodeToString(der) }},
	{"URL-safe without padding", func(der []byte) string { return base64.RawURLEncoding.EncodeToString(der) }},
	{"slash behind", func(der []byte) string { return base64.StdEncoding.EncodeToString(der) + "/" }},
	{"no padding, slash behind", func(der []byte) string { return base64.RawStdEncoding.EncodeToString(der) + "/" }},
	{"two slashes behind", func(der []byte) string { return base64.StdEncoding.EncodeToString(der) + "//" }},
	{"slash before", func(der []byte) string { return "/" + base64.StdEncoding.EncodeToString(der) }},
	{"escaped slash before", func(der []byte) string { return "%2F" + base64.StdEncoding.EncodeToString(der) }},
	{"plus as space", func(der []byte) string {
		return strings.ReplaceAll(base64.StdEncoding.EncodeToString(der), "+", "%20")
	}},
	{"line breaks", func(der []byte) string {
		text := base64.StdEncoding.EncodeToString(der)
		return text[:60] + "%0D%0A" + text[60:] + "%0A"
	}},
	{"query behind", func(der []byte) string { return base64.StdEncoding.EncodeToString(der) + "?q=/+" }},
}

// rawGET writes a request line as it is: no client library has a say in the path.
func rawGET(t interface {
	Helper()
	Fatal(...any)
}, address, target string,
) []byte {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: ocsp.example\r\nConnection: close\r\n\r\n", target)
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != http.StatusOK {
		t.Fatal(target, res.Status, string(body))
	}
	return body
}

// A GET says the same as a POST, in whatever form it comes, through the listener that production uses.
func TestGETEqualsPOST(t *testing.T) {
	w := newWorld(t, p256(), p256(), p256(), now, withNear)
	address := strings.TrimSuffix(strings.TrimPrefix(w.url, "http://"), "/ocsp")
	known := []jpki.Serial{w.good, w.hold, w.revoked, w.discarded}
	seen := map[string]bool{}
	rapid.Check(t, func(rt *rapid.T) {
		var q ocsp.Request
		hash := rapid.SampledFrom([]crypto.Hash{crypto.SHA1, crypto.SHA256, crypto.SHA384}).Draw(rt, "hash")
		for range rapid.IntRange(1, 4).Draw(rt, "certificates") {
			raw := rapid.SliceOfN(rapid.Byte(), 1, 20).Draw(rt, "serial")
			serial, err := jpki.SerialFromBytes(raw)
			if err != nil || rapid.Bool().Draw(rt, "known") {
				serial = rapid.SampledFrom(known).Draw(rt, "which")
			}
			q.CertIDs = append(q.CertIDs, must(ocsp.NewCertID(w.first.cert, hash, serial)))
		}
		switch rapid.IntRange(0, 2).Draw(rt, "kind of nonce") {
		case 1:
			q.Nonce = rapid.SliceOfN(rapid.Byte(), 1, 40).Draw(rt, "nonce")
		case 2: // many slashes
			q.Nonce = bytes.Repeat([]byte{0xff}, rapid.IntRange(4, 40).Draw(rt, "ones"))
		}
		der := must(q.Marshal())
		for _, s := range []string{"//", "/", "+", "="} {
			seen[s] = seen[s] || strings.Contains(base64.StdEncoding.EncodeToString(der), s)
		}
		body, _ := w.post(t, der)
		want := must(ocsp.ParseResponse(body))
		if want.Status != ocsp.Successful {
			rt.Fatal(want.Status)
		}
		for _, form := range forms {
			before := rapid.SampledFrom([]string{"/ocsp/", "//ocsp/", "http://ocsp.example/ocsp/"}).Draw(rt, "before")
			got := must(ocsp.ParseResponse(rawGET(rt, address, before+form.path(der))))
			if d := diff(want.Answers, got.Answers); d != "" || !bytes.Equal(got.Nonce, want.Nonce) || got.Status != want.Status {
				rt.Errorf("%s %s: %v, nonce %x\n%s", before, form.name, got.Status, got.Nonce, d)
			}
		}
	})
	// The property is worth nothing if the hard cases do not come up.
	for _, s := range []string{"//", "/", "+", "="} {
		if !seen[s] {
			t.Errorf("no request had %q in its base64", s)
		}
	}
}

// Base64 that ends in a slash is not shortened, and the slash a proxy adds is not taken for base64.
func TestGETEndsWithSlash(t *testing.T) {
	w := newWorld(t, p256(), p256(), p256(), now)
	address := strings.TrimSuffix(strings.TrimPrefix(w.url, "http://"), "/ocsp")
	found := 0
	for n := 1; n < 64; n++ { // a nonce is the last thing in a request
		q := ocsp.Request{CertIDs: []ocsp.CertID{must(ocsp.NewCertID(w.first.cert, crypto.SHA1, w.good))}, Nonce: bytes.Repeat([]byte{0xff}, n)}
		der := must(q.Marshal())
		text := base64.RawStdEncoding.EncodeToString(der)
		if !strings.HasSuffix(text, "//") {
			continue
		}
		found++
		for _, behind := range []string{"", "/", "//"} {
			r := must(ocsp.ParseResponse(rawGET(t, address, "/ocsp/"+text+behind)))
			if r.Status != ocsp.Successful || !bytes.Equal(r.Nonce, q.Nonce) {
				t.Errorf("nonce of %d, %q behind: %v", n, behind, r.Status)
			}
		}
	}
	if found == 0 {
		t.Error("no request ended in a slash")
	}
}

// Any path either decodes to a SEQUENCE, whose every form decodes to the same, or is refused.
func FuzzGETPath(f *testing.F) {
	a := newAuthority(jpki.IssuerID{CA: jpki.SignCA, Generation: 1}, p256(), now)
	der := must(must(ocsp.NewRequest(a.cert, crypto.SHA1, bytes.Repeat([]byte{0xff}, 40), newSerial())).Marshal())
	for _, form := range forms {
		f.Add(form.path(der))
	}
	f.Add("%")
	f.Add("/MIIB")
	f.Add("MIIB%2")
	f.Add("hello//")
	f.Fuzz(func(t *testing.T, path string) {
		der, err := ocsp.DecodePath(path)
		want, ok := slowDecode(path)
		if ok != (err == nil) || !bytes.Equal(der, want) {
			t.Fatalf("%x, %v; letter by letter %x, %v", der, err, want, ok)
		}
		if err != nil {
			return
		}
		if len(der) == 0 || der[0] != 0x30 || len(der) > ocsp.MaxRequestBytes {
			t.Fatalf("decoded to %x", der)
		}
		for _, form := range forms {
			if form.name == "query behind" || form.name == "line breaks" && len(der) < 60 {
				continue // the query is cut off before; the form breaks lines after 60
			}
			again, err := ocsp.DecodePath(form.path(der))
			if err != nil || !bytes.Equal(again, der) {
				t.Errorf("%s: %x, %v; want %x", form.name, again, err, der)
			}
		}
	})
}

// slowDecode is the same with the standard library's base64, after everything was brought into its form.
func slowDecode(path string) ([]byte, bool) {
	var text []byte
	for i := 0; i < len(path); i++ {
		c := path[i]
		if c == '%' {
			if i+2 >= len(path) {
				return nil, false
			}
			b, err := hex.DecodeString(path[i+1 : i+3])
			if err != nil {
				return nil, false
			}
			c, i = b[0], i+2
		}
		switch c {
		case '-', ' ':
			c = '+'
		case '_':
			c = '/'
		case '\r', '\n':
			continue
		}
		if c != '/' || len(text) > 0 {
			text = append(text, c)
		}
	}
	if len(path) > 4*ocsp.MaxRequestBytes || len(text) < 8 {
		return nil, false
	}
	head, err := base64.RawStdEncoding.DecodeString(string(text[:8]))
	if err != nil || head[0] != 0x30 {
		return nil, false
	}
	n := 2 + int(head[1])
	switch head[1] {
	case 0x81:
		n = 3 + int(head[2])
	case 0x82:
		n = 4 + int(head[2])<<8 + int(head[3])
	default:
		if head[1] >= 0x80 {
			return nil, false
		}
	}
	end := base64.RawStdEncoding.EncodedLen(n)
	if n < 6 || n > ocsp.MaxRequestBytes || end > len(text) || strings.TrimLeft(strings.TrimLeft(string(text[end:]), "="), "/") != "" {
		return nil, false
	}
	der, err := base64.RawStdEncoding.Strict().DecodeString(string(text[:end]))
	if err != nil {
		return nil, false
	}
	return der, true
}
