package ocsp

import (
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
)

// under returns what follows the prefix in a request's path as the client wrote it, and whether the path is under the
// prefix at all. It never looks at URL.Path, where %2F and / are one already, and mends only slashes before the prefix.
func under(prefix string, r *http.Request) (rest string, ok bool) {
	raw := r.RequestURI
	if raw == "" { // a request that did not come over a connection
		raw = r.URL.EscapedPath()
	}
	if !strings.HasPrefix(raw, "/") { // absolute form, as to a proxy (RFC 9112 §3.2.2)
		_, raw, _ = strings.Cut(raw, "://")
		if i := strings.IndexByte(raw, '/'); i >= 0 {
			raw = raw[i:]
		}
	}
	raw, _, _ = strings.Cut(raw, "?")
	rest, ok = strings.CutPrefix("/"+strings.TrimLeft(raw, "/"), prefix)
	return rest, ok && (rest == "" || rest[0] == '/')
}

var errPath = errors.New("path is not the base64 of an OCSP request")

// DecodePath reads the request out of a GET's path (RFC 6960 appendix A.1): base64, percent-encoded in whole, in part or
// not at all. It also takes what clients and proxies make of it: the URL-safe alphabet, a plus that became a space, line
// breaks, no padding, slashes before and behind. A slash behind may be base64 or an addition; the request, being DER,
// says itself where it ends.
func DecodePath(path string) ([]byte, error) {
	if len(path) > 4*MaxRequestBytes { // percent-encoded in whole: 4/3 × 3
		return nil, errPath
	}
	text := make([]byte, 0, len(path))
	for i := 0; i < len(path); i++ {
		c := path[i]
		if c == '%' {
			if i+2 >= len(path) {
				return nil, errPath
			}
			hi, lo := unhex(path[i+1]), unhex(path[i+2])
			if hi > 15 || lo > 15 {
				return nil, errPath
			}
			c, i = hi<<4|lo, i+2
		}
		switch c {
		case '-', ' ':
			c = '+'
		case '_':
			c = '/'
		case '\r', '\n':
			continue
		}
		if c == '/' && len(text) == 0 {
			continue // no DER begins so
		}
		text = append(text, c)
	}
	n, err := derLength(text)
	if err != nil {
		return nil, err
	}
	end := base64.RawStdEncoding.EncodedLen(n)
	if end > len(text) || strings.TrimLeft(strings.TrimLeft(string(text[end:]), "="), "/") != "" {
		return nil, errPath
	}
	der := make([]byte, n)
	if _, err := base64.RawStdEncoding.Strict().Decode(der, text[:end]); err != nil {
		return nil, errPath
	}
	return der, nil
}

// derLength returns how many octets the SEQUENCE has whose base64 begins text.
func derLength(text []byte) (int, error) {
	var head [6]byte
	if len(text) < 8 {
		return 0, errPath
	}
	if _, err := base64.RawStdEncoding.Decode(head[:], text[:8]); err != nil || head[0] != 0x30 {
		return 0, errPath
	}
	n := 0
	switch l := head[1]; {
	case l < 0x80:
		n = 2 + int(l)
	case l == 0x81:
		n = 3 + int(head[2])
	case l == 0x82:
		n = 4 + int(head[2])<<8 + int(head[3])
	default:
		return 0, errPath
	}
	if n < len(head) || n > MaxRequestBytes {
		return 0, errPath
	}
	return n, nil
}

func unhex(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	}
	return 0xff
}
