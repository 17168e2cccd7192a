package front

import (
	"bytes"
	"net/http"
	"strings"
)

// Limits on a request's head: the request line and the header fields. Another limit is that of the OCSP request,
// [ocsp.MaxRequestBytes].
const (
	maxHead   = 16 << 10 // octets in all, a GET's request included
	maxFields = 64
)

// A head is a request's head as far as this server looks at it. Its slices lie in the connection's buffer.
type head struct {
	method  string // GET, POST, HEAD or "" for any other
	target  []byte
	http10  bool
	close   bool // the client wants it to be the last
	keep    bool // the client wants it not to be the last, which HTTP/1.0 has to say
	chunked bool
	length  int  // of the body; 0 without one, or chunked
	expects bool // 100-continue
	strange bool // expects something else

	contentType   []byte
	noneMatch     []byte
	modifiedSince []byte
	forwarded     []byte   // X-Forwarded-For
	certificates  []string // what the headers of that name say
	joined        []byte   // where noneMatch and forwarded lie if they had several lines
}

// headEnd looks for the empty line behind a request's head, from the beginning of a line on. It returns the head's
// length with that line, or 0 when it has not come yet; from is where to go on looking then.
// Lines end with CRLF: others take a bare LF for one (RFC 9112 §2.2), and a proxy may be such another or not.
func headEnd(b []byte, from int) (end, next int, ok bool) {
	for {
		i := bytes.IndexByte(b[from:], '\n')
		if i < 0 {
			return 0, from, true
		}
		if i == 0 || b[from+i-1] != '\r' {
			return 0, from, false
		}
		if i == 1 {
			return from + 2, 0, true
		}
		from += i + 1
	}
}

// parse reads a head that ends with the empty line, all of whose lines end with CRLF, and returns why it is refused, or nil.
// certificate is the name of the header with the client's certificate.
func (h *head) parse(b []byte, certificate string) *refusal {
	*h = head{joined: h.joined[:0]}
	line, b := nextLine(b)
	if why := h.requestLine(line); why != nil {
		return why
	}
	hosts, lengths, codings := 0, 0, 0
	for fields := 0; ; fields++ {
		if line, b = nextLine(b); len(line) == 0 {
			break
		}
		if fields == maxFields {
			return tooManyFields
		}
		colon := bytes.IndexByte(line, ':')
		if colon <= 0 || !isToken(line[:colon]) { // no space before the colon, no folded line (RFC 9112 §5.1, §5.2)
			return malformed
		}
		name, value := line[:colon], trim(line[colon+1:])
		if !isFieldValue(value) {
			return malformed
		}
		switch len(name) { // cheaper than comparing with each
		case len("Host"):
			if is(name, "Host") {
				hosts++
				if !isHost(value) {
					return malformed
				}
			}
		case len("Expect"):
			if is(name, "Expect") {
				h.expects = is(value, "100-continue")
				h.strange = h.strange || !h.expects
			}
		case len("Connection"):
			if is(name, "Connection") {
				h.connection(value)
			}
		case len("Content-Type"):
			if is(name, "Content-Type") && h.contentType == nil {
				h.contentType = value
			}
		case len("If-None-Match"):
			if is(name, "If-None-Match") {
				h.noneMatch = h.join(h.noneMatch, value)
			}
		case len("Content-Length"):
			if is(name, "Content-Length") {
				lengths++
				n, ok := decimal(value)
				if !ok {
					return malformed
				}
				h.length = n
			}
		case len("X-Forwarded-For"):
			if is(name, "X-Forwarded-For") {
				h.forwarded = h.join(h.forwarded, value)
			}
		case len("If-Modified-Since"): // and Transfer-Encoding
			switch {
			case is(name, "If-Modified-Since"):
				if h.modifiedSince == nil {
					h.modifiedSince = value
				}
			case is(name, "Transfer-Encoding"):
				codings++
				h.chunked = is(value, "chunked")
			}
		}
		if len(name) == len(certificate) && is(name, certificate) {
			h.certificates = append(h.certificates, string(value))
		}
	}
	switch {
	case hosts > 1, hosts == 0 && !h.http10: // RFC 9112 §3.2
		return malformed
	case lengths > 1, lengths == 1 && codings > 0, codings > 1, codings > 0 && h.http10: // RFC 9112 §6.1, §6.3: smuggling
		return malformed
	case codings == 1 && !h.chunked:
		return unknownCoding
	}
	return nil
}

// requestLine reads the method, the target and the version, which one space separates (RFC 9112 §3).
func (h *head) requestLine(line []byte) *refusal {
	i := bytes.IndexByte(line, ' ')
	j := bytes.LastIndexByte(line, ' ')
	if i <= 0 || j <= i+1 {
		return malformed
	}
	method, target, version := line[:i], line[i+1:j], line[j+1:]
	if !isToken(method) {
		return malformed
	}
	for _, c := range target {
		if c <= ' ' || c >= 0x7f {
			return malformed
		}
	}
	for _, known := range []string{http.MethodGet, http.MethodPost, http.MethodHead} {
		if string(method) == known {
			h.method = known
		}
	}
	h.target = target
	switch string(version) {
	case "HTTP/1.1":
	case "HTTP/1.0":
		h.http10 = true
	default:
		if len(version) == len("HTTP/1.1") && bytes.HasPrefix(version, []byte("HTTP/")) && version[6] == '.' {
			return unknownVersion
		}
		return malformed
	}
	if target[0] == '/' || afterScheme(target) != nil || string(target) == "*" && string(method) == "OPTIONS" {
		return nil
	}
	return malformed // the authority form as well: this is no proxy (RFC 9112 §3.2.3)
}

// connection reads one line of the Connection header.
func (h *head) connection(value []byte) {
	for len(value) > 0 {
		option := value
		if i := bytes.IndexByte(value, ','); i >= 0 {
			option, value = value[:i], value[i+1:]
		} else {
			value = nil
		}
		option = trim(option)
		h.close = h.close || is(option, "close")
		h.keep = h.keep || is(option, "keep-alive")
	}
}

// join appends a further line of a list to what was there (RFC 9110 §5.3).
func (h *head) join(before, value []byte) []byte {
	if before == nil {
		return value
	}
	from := len(h.joined)
	h.joined = append(append(append(h.joined, before...), ", "...), value...)
	return h.joined[from:]
}

// last reports whether the connection ends after this request.
func (h *head) last() bool { return h.close || h.http10 && !h.keep }

// hasBody reports whether octets follow that belong to the request.
func (h *head) hasBody() bool { return h.chunked || h.length > 0 }

// under returns what follows the prefix in a target, and whether it is under the prefix at all. It mends slashes before
// the prefix and nothing else: base64 has slashes of its own. What is behind a question mark does not count.
func under(prefix string, target []byte) (rest []byte, ok bool) {
	if after := afterScheme(target); after != nil { // absolute form, as if to a proxy (RFC 9112 §3.2.2)
		i := bytes.IndexByte(after, '/')
		if i < 0 {
			i = len(after)
		}
		target = after[i:]
	}
	if i := bytes.IndexByte(target, '?'); i >= 0 {
		target = target[:i]
	}
	for len(target) > 1 && target[0] == '/' && target[1] == '/' {
		target = target[1:]
	}
	if len(target) == 0 || target[0] != '/' {
		return nil, prefix == "" && len(target) == 0
	}
	if len(target) < len(prefix) || string(target[:len(prefix)]) != prefix {
		return nil, false
	}
	rest = target[len(prefix):]
	return rest, len(rest) == 0 || rest[0] == '/'
}

// afterScheme returns what follows http:// or https://; nil when that is not how the target begins.
func afterScheme(target []byte) []byte {
	if len(target) == 0 || target[0]|0x20 != 'h' {
		return nil
	}
	for _, scheme := range []string{"http://", "https://"} {
		if len(target) > len(scheme) && is(target[:len(scheme)], scheme) {
			return target[len(scheme):]
		}
	}
	return nil
}

func nextLine(b []byte) (line, rest []byte) {
	i := bytes.IndexByte(b, '\n') // headEnd saw them all
	return b[:i-1], b[i+1:]
}

// is compares a name or a keyword, in ASCII, without regard to case.
func is(b []byte, s string) bool {
	if len(b) != len(s) {
		return false
	}
	for i, c := range b {
		if c != s[i] && (c|0x20 != s[i]|0x20 || c|0x20 < 'a' || c|0x20 > 'z') {
			return false
		}
	}
	return true
}

func trim(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// decimal reads a length: digits and nothing else. One that is too large for any use is as good as the largest.
func decimal(b []byte) (int, bool) {
	n := 0
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = min(10*n+int(c-'0'), 1<<40)
	}
	return n, len(b) > 0
}

// Octets of a token (RFC 9110 §5.6.2).
var tokenOctet = octets(func(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
})

// Octets of a field's value: no controls but the tab (RFC 9110 §5.5).
var valueOctet = octets(func(c byte) bool { return c >= ' ' && c != 0x7f || c == '\t' })

// Octets of a host, with a port or without (RFC 3986 §3.2.2).
var hostOctet = octets(func(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~%!$&'()*+,;=:[]", c) >= 0
})

func octets(admit func(byte) bool) (table [256]bool) {
	for i := range table {
		table[i] = admit(byte(i))
	}
	return table
}

func isToken(b []byte) bool      { return len(b) > 0 && all(b, &tokenOctet) }
func isFieldValue(b []byte) bool { return all(b, &valueOctet) }
func isHost(b []byte) bool       { return all(b, &hostOctet) }

func all(b []byte, table *[256]bool) bool {
	for _, c := range b {
		if !table[c] {
			return false
		}
	}
	return true
}
