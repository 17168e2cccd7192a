package conformance

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// forms are the ways in which a request is written into a path.
var forms = map[string]func(der []byte) string{
	"percent": func(der []byte) string { return url.QueryEscape(base64.StdEncoding.EncodeToString(der)) },
	"raw":     base64.StdEncoding.EncodeToString,
	"lower": func(der []byte) string {
		return strings.NewReplacer("+", "%2b", "/", "%2f", "=", "%3d").Replace(base64.StdEncoding.EncodeToString(der))
	},
	"every": func(der []byte) string {
		var b strings.Builder
		for _, c := range []byte(base64.StdEncoding.EncodeToString(der)) {
			fmt.Fprintf(&b, "%%%02X", c)
		}
		return b.String()
	},
	"unpadded": func(der []byte) string { return url.QueryEscape(base64.RawStdEncoding.EncodeToString(der)) },
	"url-safe": base64.URLEncoding.EncodeToString,
	"slash-before": func(der []byte) string {
		return "/" + url.QueryEscape(base64.StdEncoding.EncodeToString(der))
	},
	"slash-behind": func(der []byte) string { return url.QueryEscape(base64.StdEncoding.EncodeToString(der)) + "/" },
}

// A message is one HTTP request in octets.
type message struct {
	method  string
	head    []byte // ends with the empty line
	body    []byte
	framing string
	filling *filling
	sent    Send
}

// octets returns the message in one piece.
func (m *message) octets() []byte { return slices.Concat(m.head, m.body) }

// drawLimit bounds how often random variables are drawn for one path.
const drawLimit = 100_000

// make writes a request. Header values may refer to the reply before it.
func (k *Kit) make(cfg *Config, at *url.URL, s Send, before *reply) (*message, error) {
	m := &message{method: s.Method, framing: s.Framing, sent: s}
	var der []byte
	if s.Body != "" {
		for try := 0; ; try++ {
			m.filling = &filling{cfg: cfg, with: s.With, drawn: map[string][]byte{}}
			var err error
			if der, err = k.templates[s.Body].fill(m.filling.value); err != nil {
				return nil, err
			}
			if strings.Contains(base64.StdEncoding.EncodeToString(der), s.Holds) {
				break
			}
			if try == drawLimit || len(m.filling.drawn) == 0 {
				return nil, fmt.Errorf("no request was found whose base64 contains %q", s.Holds)
			}
		}
		der = der[:max(0, len(der)-s.Cut)]
	}
	base := strings.TrimSuffix(at.EscapedPath(), "/")
	if s.Raw != "" {
		text := strings.NewReplacer("\n", "\r\n", "{host}", at.Host, "{path}", base+"/", "{post}", postPath(at)).Replace(k.raw[s.Raw])
		m.method, _, _ = strings.Cut(text, " ")
		m.head = []byte(text)
		return m, nil
	}
	path := postPath(at)
	if s.Get != "" {
		path = base + "/" + forms[s.Get](der)
		der = nil
	}
	if m.method == "" {
		if m.method = http.MethodPost; s.Get != "" {
			m.method = http.MethodGet
		}
	}
	if s.Path != "" {
		path = base + s.Path
	}
	if s.Target == "absolute" {
		path = "http://" + at.Host + path
	}
	m.head = writeHead(m, at, s, path, der, before)
	m.body = der
	if s.Framing == "chunked" {
		half := len(der) / 2
		m.body = fmt.Appendf(nil, "%x\r\n%s\r\n%X;note=conformance\r\n%s\r\n0\r\n\r\n", half, der[:half], len(der)-half, der[half:])
	}
	return m, nil
}

// postPath is the responder's own path, to the letter.
func postPath(at *url.URL) string {
	if p := at.EscapedPath(); p != "" {
		return p
	}
	return "/"
}

func writeHead(m *message, at *url.URL, s Send, path string, body []byte, before *reply) []byte {
	version := s.Version
	if version == "" {
		version = "1.1"
	}
	fields := [][2]string{{"Host", at.Host}}
	if m.method != http.MethodGet && m.method != http.MethodHead {
		fields = append(fields, [2]string{"Content-Type", "application/ocsp-request"})
		if s.Framing == "chunked" {
			fields = append(fields, [2]string{"Transfer-Encoding", "chunked"})
		} else {
			fields = append(fields, [2]string{"Content-Length", strconv.Itoa(len(body))})
		}
	}
	if s.Framing == "continue" {
		fields = append(fields, [2]string{"Expect", "100-continue"})
	}
	for name, v := range s.Header {
		if field, ok := strings.CutPrefix(v, "$reply."); ok {
			if v = ""; before != nil && before.head != nil {
				v = before.head.Get(field)
			}
		}
		fields = slices.DeleteFunc(fields, func(f [2]string) bool { return strings.EqualFold(f[0], name) })
		if v != "" {
			fields = append(fields, [2]string{name, v})
		}
	}
	out := fmt.Appendf(nil, "%s %s HTTP/%s\r\n", m.method, path, version)
	for _, f := range fields {
		out = fmt.Appendf(out, "%s: %s\r\n", f[0], f[1])
	}
	return append(out, "\r\n"...)
}

// A reply is what came back for a message.
type reply struct {
	err    error // nothing came, or nothing that is HTTP
	code   int
	head   http.Header
	body   []byte
	length int64 // as announced, -1 if not
	after  []byte
	closed bool // the responder closed the connection afterwards
	at     time.Time

	answer    *answer
	answerErr error
	to        *message
}

// maxBody bounds what is read of a reply's body; afterwards is how long the last reply is waited on for more.
const (
	maxBody    = 4 << 20
	afterwards = 300 * time.Millisecond
	continues  = time.Second
)

// A manner says how messages share a connection, and whether to see what the responder does with it afterwards.
type manner struct{ together, watch bool }

// exchange sends messages on one connection and reads a reply for each.
func exchange(ctx context.Context, cfg *Config, at *url.URL, how manner, messages ...*message) []*reply {
	out := make([]*reply, len(messages))
	for i, m := range messages {
		out[i] = &reply{to: m, err: errors.New("no connection")}
	}
	conn, err := dial(ctx, cfg, at)
	if err != nil {
		for _, r := range out {
			r.err = fmt.Errorf("no connection: %w", err)
		}
		return out
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(cfg.Now().Add(cfg.Timeout))
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	in := bufio.NewReader(conn)
	if how.together {
		var all []byte
		for _, m := range messages {
			all = append(all, m.octets()...)
		}
		go func() { _, _ = conn.Write(all) }()
	}
	for i, m := range messages {
		if !how.together {
			write(conn, in, m)
		}
		out[i].read(in, m.method, cfg)
		if out[i].err != nil {
			break
		}
	}
	last := out[len(out)-1]
	if how.watch && last.err == nil {
		_ = conn.SetReadDeadline(cfg.Now().Add(afterwards))
		more, err := io.ReadAll(io.LimitReader(in, 4096))
		var timeout net.Error
		last.after, last.closed = more, !errors.As(err, &timeout) || !timeout.Timeout()
	}
	return out
}

func dial(ctx context.Context, cfg *Config, at *url.URL) (net.Conn, error) {
	host := at.Host
	if at.Port() == "" {
		host = net.JoinHostPort(at.Hostname(), map[string]string{"http": "80", "https": "443"}[at.Scheme])
	}
	d := &net.Dialer{Timeout: cfg.Timeout}
	if at.Scheme == "https" {
		return (&tls.Dialer{NetDialer: d, Config: &tls.Config{MinVersion: tls.VersionTLS12}}).DialContext(ctx, "tcp", host)
	}
	return d.DialContext(ctx, "tcp", host)
}

// write sends a message beside what comes back, for a responder may refuse a body before it has read it.
func write(conn net.Conn, in *bufio.Reader, m *message) {
	switch m.framing {
	case "pieces":
		go func() {
			for _, b := range m.octets() {
				if _, err := conn.Write([]byte{b}); err != nil {
					return
				}
			}
		}()
	case "continue":
		_, _ = conn.Write(m.head)
		// Whoever does not know Expect waits for the body, so it is sent after a while in any case (RFC 9110 §10.1.1).
		ready := make(chan struct{})
		go func() { _, _ = in.Peek(1); close(ready) }()
		wait := time.NewTimer(continues)
		defer wait.Stop()
		select {
		case <-ready:
		case <-wait.C:
		}
		_, _ = conn.Write(m.body)
		<-ready
	default:
		octets := m.octets()
		go func() { _, _ = conn.Write(octets) }()
	}
}

// read takes the next final reply off a connection.
func (r *reply) read(in *bufio.Reader, method string, cfg *Config) {
	r.err = nil
	for {
		resp, err := http.ReadResponse(in, &http.Request{Method: method})
		if err != nil {
			r.err = explain(err)
			return
		}
		if resp.StatusCode < 200 && resp.StatusCode != http.StatusSwitchingProtocols {
			continue
		}
		body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
		_ = resp.Body.Close()
		if err != nil {
			r.err = explain(err)
			return
		}
		r.code, r.head, r.body, r.length, r.at = resp.StatusCode, resp.Header, body, resp.ContentLength, cfg.Now()
		break
	}
	if r.code == http.StatusOK && method != http.MethodHead {
		r.answer, r.answerErr = readAnswer(r.body)
	}
}

// explain says in a few words why nothing came.
func explain(err error) error {
	var n net.Error
	switch {
	case errors.As(err, &n) && n.Timeout():
		return errors.New("no reply in time")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the connection was closed without a whole reply")
	case strings.Contains(err.Error(), "reset by peer"), strings.Contains(err.Error(), "broken pipe"):
		return errors.New("the connection was reset")
	}
	text := err.Error()
	return errors.New("the reply is not HTTP: " + string(bytes.ToValidUTF8([]byte(text[:min(len(text), 80)]), nil)))
}
