package ocsp

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strconv"
	"time"
)

// What every head begins with; the parts behind have fixed lengths.
const (
	headType     = "Content-Type: application/ocsp-response\r\n"
	headModified = "Last-Modified: " + http.TimeFormat + "\r\n"
	headTag      = "ETag: "
	tagLength    = 2*sha256.Size + 2 // digits in quotes
)

// head returns the header lines of an answer (RFC 9919 §7.2, with the ETag that it recommends). One with a nonce is of use to
// nobody else, and where not everybody is answered no shared cache may stand in for us; but signed answers never say no-store
// or no-cache.
func (r *Responder) head(body []byte, thisUpdate, nextUpdate time.Time, maxAge int64, shared bool) []byte {
	sum := sha256.Sum256(body)
	h := make([]byte, 0, 320)
	h = append(h, headType...)
	h = append(h, "Last-Modified: "...)
	h = appendDate(h, thisUpdate)
	h = append(h, "\r\n"+headTag+`"`...)
	h = hex.AppendEncode(h, sum[:])
	h = append(h, "\"\r\nCache-Control: max-age="...)
	if !shared {
		maxAge = 0
	}
	h = strconv.AppendInt(h, max(0, maxAge), 10)
	if shared && r.access.open() {
		h = append(h, ", public"...)
	} else {
		h = append(h, ", private"...)
	}
	h = append(h, ", no-transform, must-revalidate\r\nExpires: "...)
	h = appendDate(h, nextUpdate)
	return append(h, "\r\n"...)
}

// appendDate appends a time as http.TimeFormat has it, of a year of four digits, in a fraction of the time that takes.
func appendDate(h []byte, t time.Time) []byte {
	t = t.UTC()
	year, month, day := t.Date()
	hour, minute, second := t.Clock()
	h = append(h, http.TimeFormat...)
	b := h[len(h)-len(http.TimeFormat):]
	copy(b, t.Weekday().String()[:3])
	digits(b[5:7], day)
	copy(b[8:11], month.String()[:3])
	digits(b[12:14], year/100)
	digits(b[14:16], year%100)
	digits(b[17:19], hour)
	digits(b[20:22], minute)
	digits(b[23:25], second)
	return h
}

// refusalHeads are the heads of unsigned responses, which nobody may keep.
var (
	refusalHead = []byte(headType + "Cache-Control: no-store\r\n")
	laterHead   = []byte(headType + "Cache-Control: no-store\r\nRetry-After: 1\r\n")
)

// refuse returns an unsigned response.
func (r *Responder) refuse(s ResponseStatus) Reply {
	out := Reply{Code: http.StatusOK, Head: refusalHead, Body: refusals[s]}
	switch s {
	case MalformedRequest:
		r.counts.one(countMalformed)
	case InternalError:
		r.counts.one(countInternal)
	case TryLater:
		r.counts.one(countTryLater)
		out.Head = laterHead
	case SigRequired:
		r.counts.one(countSigRequired)
	case Unauthorized:
		r.counts.one(countUnauthorized)
	}
	return out
}
