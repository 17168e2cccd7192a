package front

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ocsp"
)

// ServeHTTP answers as the listener does, over net/http: for embedding, and for connections that were handed over. Mount it
// before any router; routers clean paths, and base64 does not survive that.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	target := r.RequestURI
	if target == "" { // a request that did not come over a connection
		target = r.URL.EscapedPath()
	}
	path, ours := under(s.cfg.Prefix, []byte(target))
	if !ours && s.cfg.Other != nil {
		s.cfg.Other.ServeHTTP(w, r)
		return
	}
	why := notFound
	if ours {
		why = admissible(r.Method, path, []byte(r.Header.Get("Content-Type")))
	}
	if why != nil {
		s.refused.Add(why.label)
		_, _ = io.CopyN(io.Discard, r.Body, maxLinger) // net/http might reset the connection on what it has not read
		write(w, &why.reply)
		return
	}
	q := ocsp.Query{GET: r.Method == http.MethodGet, Client: s.clientOf(r)}
	if q.GET {
		q.Request, _ = ocsp.DecodeGET(path, nil) // nothing, which is malformed, if that fails
		q.IfNoneMatch, q.IfModifiedSince = strings.Join(r.Header.Values("If-None-Match"), ", "), r.Header.Get("If-Modified-Since")
	} else {
		q.Request, _ = jpki.ReadBody(r, ocsp.MaxRequestBytes) // likewise
	}
	reply, _ := s.ask(r.Context(), &q)
	write(w, &reply)
}

// clientOf returns who asks.
func (s *Server) clientOf(r *http.Request) ocsp.Client {
	peer := addressOf(r.RemoteAddr)
	if !peer.IsValid() {
		return ocsp.Client{}
	}
	if !s.trusts(peer) {
		return ocsp.Client{Address: peer.String()}
	}
	certificate := ""
	if name := s.cfg.CertificateHeader; name != "" {
		certificate = oneOf(r.Header.Values(name))
	}
	return s.behind(peer.String(), strings.Join(r.Header.Values("X-Forwarded-For"), ", "), certificate)
}

// oneOf returns the value of a header that may stand once. Of several, a client may have written one: whose is the
// proxy's? So it is none that can be read.
func oneOf(values []string) string {
	switch len(values) {
	case 0:
		return ""
	case 1:
		return values[0]
	}
	return "ambiguous"
}

func write(w http.ResponseWriter, reply *ocsp.Reply) {
	h := w.Header()
	for line := range bytes.Lines(reply.Head) {
		if name, value, ok := bytes.Cut(line, []byte(":")); ok {
			h.Add(string(name), string(bytes.TrimSpace(value)))
		}
	}
	code := statusCode(reply)
	if !bodiless(code) {
		h.Set("Content-Length", strconv.Itoa(len(reply.Body)))
	}
	w.WriteHeader(code)
	if !bodiless(code) {
		_, _ = w.Write(reply.Body)
	}
}

// handOver gives the connection to net/http, with what has been read of it, for as long as it lasts.
func (c *conn) handOver() error {
	if err := c.flush(); err != nil {
		return err
	}
	s, counted := c.s, c.counted
	h := &handed{Conn: c.nc, read: bytes.Clone(c.buf[c.r:c.w]), closed: sync.OnceFunc(func() { s.release(counted) })}
	c.handed = true
	c.s.forget(c)
	c.s.refused.Add("handed-over")
	select {
	case c.s.handing.conns <- h:
	case <-c.s.handing.closed:
		_ = h.Close()
	}
	return errOver
}

// handed is a connection whose first octets have been read already.
type handed struct {
	net.Conn
	read   []byte
	closed func()
}

func (h *handed) Read(b []byte) (int, error) {
	if len(h.read) == 0 {
		return h.Conn.Read(b)
	}
	n := copy(b, h.read)
	if h.read = h.read[n:]; len(h.read) == 0 {
		h.read = nil
	}
	return n, nil
}

// ReadFrom lets net/http send files without reading them, as it does on a connection of its own.
func (h *handed) ReadFrom(r io.Reader) (int64, error) {
	if to, ok := h.Conn.(io.ReaderFrom); ok {
		return to.ReadFrom(r)
	}
	return io.Copy(struct{ io.Writer }{h.Conn}, r)
}

// CloseWrite lets net/http end a connection without resetting it.
func (h *handed) CloseWrite() error {
	if half, ok := h.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

func (h *handed) Close() error {
	defer h.closed()
	return h.Conn.Close()
}

// handing is the listener on which net/http finds the connections that are handed over.
type handing struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (h *handing) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

func (h *handing) Close() error {
	h.once.Do(func() { close(h.closed) })
	return nil
}

func (h *handing) Addr() net.Addr { return &net.TCPAddr{} }
