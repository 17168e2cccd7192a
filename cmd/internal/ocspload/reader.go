package ocspload

import (
	"bytes"
	"errors"
	"io"
)

// The bounds of what is read of one response, in octets.
const (
	maxHead = 16 << 10
	maxBody = 256 << 10
)

// What can be wrong with a response. They are what errors are counted by.
var (
	errNotHTTP  = errors.New("not HTTP")
	errTooLong  = errors.New("too long")
	errTrailing = errors.New("octets nobody asked for")
)

// A response is what the reader found; its body aliases the reader's buffer until the next call.
type response struct {
	code  int
	body  []byte
	size  int  // octets on the wire
	close bool // the connection ends with it
}

// A reader takes HTTP/1.1 responses off a connection: only what an OCSP responder sends. Bodies end by Content-Length, by
// chunks, or with the connection.
type reader struct {
	in   io.Reader
	buf  []byte
	from int // what is read lies in buf[from:to]
	to   int
	body []byte // of a chunked response
}

func newReader(in io.Reader) *reader { return &reader{in: in, buf: make([]byte, 8<<10)} }

// more reads at least one octet; room says how many octets from `from` on have to find place.
func (r *reader) more(room int) error {
	if r.from > 0 && (r.from == r.to || len(r.buf)-r.from < room || r.to == len(r.buf)) {
		copy(r.buf, r.buf[r.from:r.to])
		r.from, r.to = 0, r.to-r.from
	}
	if r.to == len(r.buf) || len(r.buf) < room {
		bigger := make([]byte, max(2*len(r.buf), room))
		copy(bigger, r.buf[:r.to])
		r.buf = bigger
	}
	n, err := r.in.Read(r.buf[r.to:])
	r.to += n
	if n > 0 {
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// next returns the next response that is not 1xx.
func (r *reader) next() (response, error) {
	for {
		out, err := r.one()
		if err != nil || out.code >= 200 {
			return out, err
		}
	}
}

// one reads one response. An error at its very beginning is the connection's, such as io.EOF; one in the midst of it is
// io.ErrUnexpectedEOF or says what is wrong.
func (r *reader) one() (response, error) {
	end := -1
	for searched := 0; ; {
		if i := bytes.Index(r.buf[r.from+searched:r.to], crlf2); i >= 0 {
			end = searched + i
			break
		}
		if r.to-r.from > maxHead {
			return response{}, errTooLong
		}
		searched = max(0, r.to-r.from-3)
		if err := r.more(0); err != nil {
			if r.to > r.from && errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return response{}, err
		}
	}
	if end > maxHead {
		return response{}, errTooLong
	}
	head, err := parseHead(r.buf[r.from : r.from+end+2])
	if err != nil {
		return response{}, err
	}
	out := response{code: head.code, close: head.close, size: end + 4}
	switch {
	case head.code < 200 || head.code == 204 || head.code == 304:
		r.from += end + 4
	case head.chunked:
		r.from += end + 4
		r.body = r.body[:0]
		err = r.chunks(&out)
	case head.length >= 0:
		if head.length > maxBody {
			return response{}, errTooLong
		}
		whole := end + 4 + head.length
		for r.to-r.from < whole {
			if err := r.more(whole); err != nil {
				return response{}, unexpected(err)
			}
		}
		out.body, out.size = r.buf[r.from+end+4:r.from+whole], whole
		r.from += whole
	default:
		out.close = true
		for {
			if r.to-r.from > end+4+maxBody {
				return response{}, errTooLong
			}
			if err := r.more(0); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				return response{}, err
			}
		}
		out.body, out.size = r.buf[r.from+end+4:r.to], r.to-r.from
		r.from = r.to
	}
	return out, err
}

var crlf2 = []byte("\r\n\r\n")

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// chunks reads a body in chunks (RFC 9112 §7.1). Trailers are read and forgotten.
func (r *reader) chunks(out *response) error {
	for {
		line, err := r.line(out)
		if err != nil {
			return err
		}
		if i := bytes.IndexByte(line, ';'); i >= 0 {
			line = line[:i]
		}
		n, ok := parseHex(bytes.TrimRight(line, " \t"))
		if !ok {
			return errNotHTTP
		}
		if n == 0 {
			break
		}
		if len(r.body)+n > maxBody {
			return errTooLong
		}
		for r.to-r.from < n+2 {
			if err := r.more(n + 2); err != nil {
				return unexpected(err)
			}
		}
		if r.buf[r.from+n] != '\r' || r.buf[r.from+n+1] != '\n' {
			return errNotHTTP
		}
		r.body = append(r.body, r.buf[r.from:r.from+n]...)
		r.from += n + 2
		out.size += n + 2
	}
	for {
		line, err := r.line(out)
		if err != nil {
			return err
		}
		if len(line) == 0 {
			out.body = r.body
			return nil
		}
		if out.size > maxHead+2*maxBody {
			return errTooLong
		}
	}
}

// line reads a line of a chunked body, without its end.
func (r *reader) line(out *response) ([]byte, error) {
	for {
		if i := bytes.IndexByte(r.buf[r.from:r.to], '\n'); i >= 0 {
			line := r.buf[r.from : r.from+i]
			r.from += i + 1
			out.size += i + 1
			if !bytes.HasSuffix(line, []byte("\r")) {
				return nil, errNotHTTP
			}
			return line[:i-1], nil
		}
		if r.to-r.from > maxHead {
			return nil, errTooLong
		}
		if err := r.more(0); err != nil {
			return nil, unexpected(err)
		}
	}
}

// A head is what matters of a response's header.
type head struct {
	code    int
	length  int // -1 if not given
	chunked bool
	close   bool
}

// parseHead reads a status line and fields, all of which end with CRLF.
func parseHead(b []byte) (head, error) {
	h := head{length: -1}
	line, rest, _ := bytes.Cut(b, []byte("\r\n"))
	// HTTP/1.1 200 OK
	if len(line) < 12 || string(line[:7]) != "HTTP/1." || line[7] != '0' && line[7] != '1' || line[8] != ' ' || len(line) > 12 && line[12] != ' ' ||
		bytes.IndexByte(line, '\n') >= 0 {
		return h, errNotHTTP
	}
	for _, c := range line[9:12] {
		if c < '0' || c > '9' {
			return h, errNotHTTP
		}
		h.code = h.code*10 + int(c-'0')
	}
	if h.code < 100 || h.code == 101 {
		return h, errNotHTTP
	}
	old := line[7] == '0'
	h.close = old
	for len(rest) > 0 {
		line, rest, _ = bytes.Cut(rest, []byte("\r\n"))
		i := bytes.IndexByte(line, ':')
		if i <= 0 || bytes.ContainsAny(line[:i], " \t") || bytes.IndexByte(line, '\n') >= 0 {
			return h, errNotHTTP
		}
		if err := h.field(line[:i], bytes.Trim(line[i+1:], " \t")); err != nil {
			return h, err
		}
	}
	switch {
	case h.chunked && old: // HTTP/1.0 has no chunks (RFC 9112 §6.1)
		return h, errNotHTTP
	case h.chunked:
		h.length = -1
	}
	return h, nil
}

func (h *head) field(name, value []byte) error {
	switch len(name) { // most fields are none of ours: their length says so
	case len("Content-Length"):
		if is(name, "content-length") {
			n, ok := parseDecimal(value)
			if !ok || h.length >= 0 && h.length != n {
				return errNotHTTP
			}
			h.length = n
		}
	case len("Transfer-Encoding"):
		if is(name, "transfer-encoding") {
			if h.chunked || !is(value, "chunked") {
				return errNotHTTP
			}
			h.chunked = true
		}
	case len("Connection"):
		if is(name, "connection") {
			h.close = h.close && !is(value, "keep-alive") || is(value, "close")
		}
	}
	return nil
}

// is compares without regard to case; lower is in lower case.
func is(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

func parseDecimal(b []byte) (n int, ok bool) {
	for _, c := range b {
		if c < '0' || c > '9' || n > maxBody {
			return n, false
		}
		n = n*10 + int(c-'0')
	}
	return n, len(b) > 0
}

func parseHex(b []byte) (n int, ok bool) {
	for _, c := range b {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		if n > maxBody {
			return n, false
		}
		n = n<<4 | int(c)
	}
	return n, len(b) > 0
}
