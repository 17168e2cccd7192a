package ocsp

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"mime"
	"net"
	"net/http"
	"strconv"
	"strings"

	"github.com/openjpki/jpki"
)

// Before returns a handler that answers everything under the prefix itself and leaves the rest to next. It belongs in
// front of every router: routers clean paths, and base64 does not survive that.
func (r *Responder) Before(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if _, ok := under(r.cfg.Prefix, req); ok {
			r.ServeHTTP(w, req)
			return
		}
		next.ServeHTTP(w, req)
	})
}

// ServeHTTP brings a GET or POST (RFC 6960 appendix A.1, RFC 9919 §6) to [Responder.Exchange]. What is wrong with HTTP is
// answered by a problem.
func (r *Responder) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	der, ok := r.read(w, req)
	if !ok {
		return
	}
	q := Query{Request: der, GET: req.Method == http.MethodGet, Client: r.client(req)}
	if q.GET {
		q.IfNoneMatch = strings.Join(req.Header.Values("If-None-Match"), ",")
		q.IfModifiedSince = req.Header.Get("If-Modified-Since")
	}
	a := r.Exchange(req.Context(), &q)
	h := w.Header()
	for lines := a.Head; len(lines) > 0; {
		var line []byte
		line, lines, _ = bytes.Cut(lines, []byte("\r\n"))
		if name, value, ok := bytes.Cut(line, []byte(": ")); ok {
			h.Set(string(name), string(value))
		}
	}
	if a.Code != http.StatusNotModified {
		h.Set("Content-Length", strconv.Itoa(len(a.Body)))
	}
	w.WriteHeader(a.Code)
	_, _ = w.Write(a.Body)
}

// read returns the request's octets, or answers itself and returns false. What is no base64 at all is left empty, which is
// malformed for Exchange too.
func (r *Responder) read(w http.ResponseWriter, req *http.Request) ([]byte, bool) {
	rest, ok := under(r.cfg.Prefix, req)
	switch {
	case !ok:
		r.outcomes.Add(string(jpki.WriteProblem(w, req, jpki.NotFound)))
		return nil, false
	case req.Method == http.MethodGet:
		der, _ := decodePath(rest, make([]byte, 0, min(len(rest), MaxRequestBytes)))
		return der, true
	case req.Method != http.MethodPost:
		w.Header().Set("Allow", "GET, POST")
		r.outcomes.Add(string(jpki.WriteProblem(w, req, jpki.MethodNotAllowed)))
		return nil, false
	case strings.Trim(rest, "/") != "":
		r.outcomes.Add(string(jpki.WriteProblem(w, req, jpki.NotFound)))
		return nil, false
	}
	sent := req.Header.Get("Content-Type")
	if sent != "" && sent != "application/ocsp-request" {
		if t, _, _ := mime.ParseMediaType(sent); t != "application/ocsp-request" && t != "application/octet-stream" {
			r.outcomes.Add("unsupported-media-type")
			unsupportedMediaType(w, req)
			return nil, false
		}
	}
	der, err := jpki.ReadBody(req, MaxRequestBytes)
	if err != nil {
		der = nil
	}
	return der, true
}

// client says who asks, as far as the connection shows it.
func (r *Responder) client(req *http.Request) Client {
	if r.cfg.Client != nil {
		return r.cfg.Client(req)
	}
	host, _, err := net.SplitHostPort(req.RemoteAddr)
	if err != nil {
		host = req.RemoteAddr
	}
	c := Client{Address: host}
	if req.TLS != nil && len(req.TLS.VerifiedChains) > 0 {
		sum := sha256.Sum256(req.TLS.PeerCertificates[0].Raw)
		c.Certificate = sum[:]
	}
	return c
}

// unsupportedMediaType answers with a problem that has no type of its own (RFC 9457 §4.2.1).
func unsupportedMediaType(w http.ResponseWriter, req *http.Request) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusUnsupportedMediaType)
	_ = json.NewEncoder(w).Encode(jpki.ProblemDetails{
		Type: "about:blank", Title: http.StatusText(http.StatusUnsupportedMediaType), Status: http.StatusUnsupportedMediaType,
		Detail: "send application/ocsp-request", RequestID: jpki.RequestID(req.Context()),
	})
}
