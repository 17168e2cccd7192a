package front

import (
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ocsp"
)

// A refusal is an answer to what is wrong with HTTP itself. What is wrong with the OCSP request is the Exchanger's to say.
type refusal struct {
	label string // in Outcomes
	reply ocsp.Reply
	stays bool // the connection: where the request ends is certain
}

var (
	malformed        = refuse("malformed", http.StatusBadRequest, "")
	tooSlow          = refuse("too-slow", http.StatusRequestTimeout, "")
	tooLarge         = refuse("too-large", http.StatusRequestEntityTooLarge, "")
	unknownCoding    = refuse("unknown-coding", http.StatusNotImplemented, "")
	unknownVersion   = refuse("unknown-version", http.StatusHTTPVersionNotSupported, "")
	unknownExpecting = refuse("unknown-expectation", http.StatusExpectationFailed, "")
	tooManyFields    = refuse("too-many-fields", http.StatusRequestHeaderFieldsTooLarge, "")
	headTooLarge     = refuse("head-too-large", http.StatusRequestHeaderFieldsTooLarge, "")
	targetTooLong    = refuse("target-too-long", http.StatusRequestURITooLong, "")
	busy             = refuse("too-many-large", http.StatusServiceUnavailable, "Retry-After: 1\r\n")
	fault            = refuse("fault", http.StatusInternalServerError, "")

	notFound             = staying(refuse("not-found", http.StatusNotFound, ""))
	methodNotAllowed     = staying(refuse("method-not-allowed", http.StatusMethodNotAllowed, "Allow: GET, POST\r\n"))
	unsupportedMediaType = staying(refuse("unsupported-media-type", http.StatusUnsupportedMediaType, "Accept-Post: application/ocsp-request\r\n"))
)

// titled are the codes whose problem has a name of ours; the others have none (RFC 9457 §4.2.1).
var titled = map[int]jpki.Problem{
	http.StatusBadRequest: jpki.Malformed, http.StatusRequestEntityTooLarge: jpki.TooLarge, http.StatusNotFound: jpki.NotFound,
	http.StatusMethodNotAllowed: jpki.MethodNotAllowed, http.StatusServiceUnavailable: jpki.Unavailable,
	http.StatusInternalServerError: jpki.Internal,
}

func refuse(label string, code int, head string) *refusal {
	details := jpki.ProblemDetails{Type: "about:blank", Title: http.StatusText(code), Status: code}
	if p, ok := titled[code]; ok {
		details.Type, details.Title = jpki.ProblemBase+string(p), p.Title("en")
	}
	body, err := json.Marshal(details)
	if err != nil {
		body = nil // text and a number
	}
	return &refusal{label: label, reply: ocsp.Reply{
		Code: code, Head: []byte("Content-Type: application/problem+json\r\nCache-Control: no-store\r\n" + head), Body: append(body, '\n'),
	}}
}

func staying(r *refusal) *refusal {
	r.stays = true
	return r
}

// appendReply appends a whole response. http10 asks for the header with which HTTP/1.0 keeps a connection.
func appendReply(out []byte, r *ocsp.Reply, date []byte, last, http10, headOnly bool) []byte {
	code := statusCode(r)
	if code == http.StatusOK {
		out = append(out, "HTTP/1.1 200 OK\r\n"...)
	} else {
		out = append(strconv.AppendInt(append(out, "HTTP/1.1 "...), int64(code), 10), ' ')
		out = append(append(out, http.StatusText(code)...), "\r\n"...)
	}
	out = append(out, date...)
	if bodiless(code) {
		headOnly = true
	} else {
		out = append(strconv.AppendInt(append(out, "Content-Length: "...), int64(len(r.Body)), 10), "\r\n"...)
	}
	out = append(out, r.Head...)
	switch {
	case last:
		out = append(out, "Connection: close\r\n"...)
	case http10:
		out = append(out, "Connection: keep-alive\r\n"...)
	}
	out = append(out, "\r\n"...)
	if !headOnly {
		out = append(out, r.Body...)
	}
	return out
}

func statusCode(r *ocsp.Reply) int {
	if r.Code < 200 || r.Code > 599 { // no Exchanger does that
		return http.StatusInternalServerError
	}
	return r.Code
}

// bodiless reports whether answers with this code have no body, and no Content-Length either (RFC 9110 §8.6).
func bodiless(code int) bool { return code == http.StatusNoContent || code == http.StatusNotModified }
