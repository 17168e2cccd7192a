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
	tagLength    = 26 // 24 digits in quotes
)

// head returns the header lines of an answer (RFC 9919 §7.2). One with a nonce is of use to nobody else, and where not
// everybody is answered no shared cache may stand in for us; but signed answers never say no-store.
func (r *Responder) head(body []byte, thisUpdate, nextUpdate time.Time, maxAge int64, shared bool) []byte {
	sum := sha256.Sum256(body)
	h := make([]byte, 0, 288)
	h = append(h, headType...)
	h = append(h, "Last-Modified: "...)
	h = thisUpdate.UTC().AppendFormat(h, http.TimeFormat)
	h = append(h, "\r\n"+headTag+`"`...)
	h = hex.AppendEncode(h, sum[:12])
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
	h = nextUpdate.UTC().AppendFormat(h, http.TimeFormat)
	return append(h, "\r\n"...)
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
