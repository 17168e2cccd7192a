package jpki

import (
	"io"
	"net/http"
)

// drainAtMost is how much of a body that is too large is still read and thrown away, in octets.
const drainAtMost = 8 << 20

// ReadBody reads a request's body of at most limit octets. Of one that is longer it returns [TooLarge], after reading some
// megabytes more into nowhere: a server that closes while its client is still writing resets the connection, and the
// client never sees the answer. A body that breaks off is [Malformed].
func ReadBody(r *http.Request, limit int64) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, limit+1))
	if err != nil {
		return nil, WrapError(Malformed, err, "the body broke off")
	}
	if int64(len(body)) > limit {
		_, _ = io.CopyN(io.Discard, r.Body, drainAtMost)
		return nil, Errorf(TooLarge, "a body has at most %d octets", limit)
	}
	return body, nil
}
