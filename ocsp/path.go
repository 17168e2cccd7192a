package ocsp

import (
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

// DecodeGET reads the request out of a GET's path as the client wrote it, behind the responder's prefix and without query
// (RFC 6960 appendix A.1): base64, percent-encoded in whole, in part or not at all. It also takes what clients and proxies
// make of it: the URL-safe alphabet, a plus that became a space, line breaks, no padding, slashes before and behind. A
// slash behind may be base64 or an addition; the request, being DER, says itself where it ends.
//
// The request is appended to dst[:0], which is not allocated anew if it has room; 3/4 of the path's length suffices.
func DecodeGET(path, dst []byte) ([]byte, error) { return decodePath(path, dst) }

// letters has the value of each letter of both alphabets, with the signs that follow or surround them.
var letters = func() (t [256]byte) {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	for i := range t {
		t[i] = notBase64
	}
	for i := range len(alphabet) {
		t[alphabet[i]] = byte(i)
	}
	t['-'], t[' '], t['_'] = t['+'], t['+'], t['/']
	t['='], t['\r'], t['\n'] = padding, lineBreak, lineBreak
	return t
}()

const (
	notBase64 = 0xff - iota
	padding
	lineBreak
)

func decodePath[T string | []byte](path T, dst []byte) ([]byte, error) {
	if len(path) > 4*MaxRequestBytes { // percent-encoded in whole: 4/3 × 3
		return nil, errPath
	}
	der := dst[:0]
	length, n := 0, 0 // of the request in octets, as soon as it is known, and of its base64 so far
	var bits uint32
	behind := false
	for i := 0; i < len(path); i++ {
		for n%4 == 0 && length > 0 && len(der)+4 <= length && i+4 < len(path) { // most of most paths
			a, b, c, d := letters[path[i]], letters[path[i+1]], letters[path[i+2]], letters[path[i+3]]
			if (a|b|c|d)&0xc0 != 0 {
				break
			}
			der = append(der, a<<2|b>>4, b<<4|c>>2, c<<6|d)
			i, n = i+4, n+4
		}
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
		v := letters[c]
		switch {
		case v == lineBreak:
			continue
		case length > 0 && len(der) == length: // only padding and slashes may follow, in this order
			switch {
			case v == padding && !behind:
			case v == letters['/']:
				behind = true
			default:
				return nil, errPath
			}
			continue
		case v >= 64:
			return nil, errPath
		case n == 0 && v == letters['/']:
			continue // no DER begins so
		}
		bits, n = bits<<6|uint32(v), n+1
		switch n % 4 {
		case 2:
			der = append(der, byte(bits>>4))
		case 3:
			der = append(der, byte(bits>>2))
		case 0:
			der = append(der, byte(bits))
		}
		if length == 0 && len(der) == 6 {
			if length = derLength(der); length < len(der) {
				return nil, errPath
			}
		}
		if len(der) == length && (n%4 == 2 && bits&0xf != 0 || n%4 == 3 && bits&3 != 0) {
			return nil, errPath // one request has one encoding
		}
	}
	if length == 0 || len(der) != length {
		return nil, errPath
	}
	return der, nil
}

// derLength returns how many octets the SEQUENCE has that begins with head; 0 if it is none that we would read.
func derLength(head []byte) int {
	n := 0
	if head[0] != 0x30 {
		return 0
	}
	switch l := head[1]; {
	case l < 0x80:
		n = 2 + int(l)
	case l == 0x81:
		n = 3 + int(head[2])
	case l == 0x82:
		n = 4 + int(head[2])<<8 + int(head[3])
	}
	if n > MaxRequestBytes {
		return 0
	}
	return n
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
