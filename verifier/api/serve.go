package api

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/verifier/store"
)

// serve is the way of every request under a token. Steps:
//  1. who asks, and may they?
//  2. not too often
//  3. how long may it take?
//  4. read the body
//  5. was it sent before, with an idempotency key?
//  6. the handler, and the answer
func (a *API) serve(c *gin.Context, r route) {
	// 1.
	access, err := a.access(c.Request)
	if err != nil {
		a.refuse(c, err)
		return
	}
	c.Set(partyKey, access.Tenant.Name)
	switch {
	case r.scope != "" && !access.Token.Allows(r.scope):
		err = jpki.Errorf(jpki.Forbidden, "the token has not the scope %s", r.scope)
	default: // 2.
		if err = checkQuery(r, c.Request.URL.RawQuery); err != nil {
			break
		}
		err = a.meters.request(c.Writer.Header(), access, a.Rate, a.Now())
	}
	if err != nil {
		a.refuse(c, err)
		return
	}
	// 3.
	limit, err := a.limit(c.Request)
	if err != nil {
		a.refuse(c, err)
		return
	}
	in := call{Request: c.Request, Access: access, limit: limit, param: c.Param("id"), answer: c.Writer.Header()}
	if r.stream != nil {
		a.batch(c, in, *r.stream, limit)
		return
	}
	ctx, cancel := context.WithTimeout(c.Request.Context(), limit)
	defer cancel()
	in.Request = c.Request.WithContext(ctx)
	// 4.
	done, err := a.readBody(&in, r.documents)
	if err != nil {
		a.refuse(c, late(ctx, err))
		return
	}
	defer done()
	// 5 and 6.
	out, err := a.once(c, in, r)
	if err != nil {
		a.refuse(c, late(ctx, err))
		return
	}
	c.Set(outcomeKey, out.Outcome)
	c.Header("Cache-Control", "no-store")
	if out.Body == nil {
		c.Status(out.Status)
		c.Writer.WriteHeaderNow()
		return
	}
	c.Data(out.Status, "application/json", append(out.Body, '\n'))
}

// late says that it took too long, if it did: whatever else went wrong then follows from it.
func late(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return jpki.WrapError(jpki.DeadlineExceeded, err, "nothing was kept")
	}
	return err
}

// limit is how long a request may take: what Prefer: wait says in seconds (RFC 7240 §4.3), and never longer than configured.
func (a *API) limit(r *http.Request) (time.Duration, error) {
	for _, header := range r.Header.Values("Prefer") {
		for preference := range strings.SplitSeq(header, ",") {
			name, value, _ := strings.Cut(preference, "=")
			if !strings.EqualFold(strings.TrimSpace(name), "wait") {
				continue
			}
			n, err := strconv.ParseUint(strings.TrimSpace(value), 10, 16)
			if err != nil || n == 0 {
				return 0, jpki.Errorf(jpki.Malformed, "Prefer: wait is not a number of seconds from 1 to 65535")
			}
			return min(a.Deadline, time.Duration(n)*time.Second), nil
		}
	}
	return a.Deadline, nil
}

// readBody reads the body. Those of documents wait for a place, so that memory is bounded; done gives it back.
func (a *API) readBody(c *call, documents bool) (done func(), err error) {
	done = func() {}
	limit := int64(maxBody)
	if media := c.media(); documents && (documentMedia[media] || media == multipartMedia) {
		select {
		case a.documents <- struct{}{}:
			done = func() { <-a.documents }
		case <-c.Context().Done():
			return nil, jpki.Errorf(jpki.Unavailable, "too many documents at once")
		}
		limit = a.MaxDocument
	}
	if c.body, err = jpki.ReadBody(c.Request, limit); err != nil {
		done()
		return nil, err
	}
	return done, nil
}

// An outcome is what a request ended with, in the form in which it can be kept.
type outcome struct {
	Status  int             `json:"status"`
	Body    json.RawMessage `json:"body,omitempty"`
	Outcome string          `json:"outcome"`
}

// once calls the handler, or takes the answer of the same request before under the same idempotency key.
func (a *API) once(c *gin.Context, in call, r route) (out outcome, err error) {
	key := in.Header.Get("Idempotency-Key")
	if key == "" || in.Method != http.MethodPost || asksAuthority(r.path) {
		return a.handle(in, r)
	}
	if len(key) > 255 || strings.ContainsFunc(key, func(r rune) bool { return r < ' ' || r > '~' }) {
		return out, jpki.Errorf(jpki.Malformed, "Idempotency-Key is not 1 to 255 printable ASCII characters")
	}
	if jpki.ContainsMyNumber(key) {
		return out, jpki.Errorf(jpki.MyNumberPresent, "remove the My Number; nothing was kept")
	}
	h := sha256.New()
	for _, part := range []string{in.Method, in.URL.Path, in.Header.Get("Content-Type"), ""} {
		h.Write([]byte(part))
		h.Write([]byte{0})
	}
	h.Write(in.body)
	o := store.Once{Key: key, Request: h.Sum(nil)}
	before, done, err := a.Store.Begin(in.Context(), in.Access, o, a.Now())
	if err != nil {
		return out, err
	}
	if done {
		c.Header("Idempotency-Replayed", "true")
		return out, json.Unmarshal(before, &out)
	}
	// Whatever happens now, the key is freed or has its answer, also when the time is over or the handler panics.
	var answer []byte
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(in.Context()), 5*time.Second)
		defer cancel()
		if e := a.Store.End(ctx, in.Access, o, answer); e != nil && err == nil {
			err = e
		}
	}()
	if out, err = a.handle(in, r); err == nil {
		answer, err = json.Marshal(out)
	}
	return out, err
}

func (a *API) handle(in call, r route) (out outcome, err error) {
	rep, err := r.handle(a, in)
	if err == nil && in.Context().Err() != nil {
		err = in.Context().Err()
	}
	if err != nil {
		return out, err
	}
	out.Status, out.Outcome = rep.status, rep.outcome
	switch body := rep.body.(type) {
	case nil:
	case json.RawMessage:
		out.Body = body
	default:
		out.Body, err = json.Marshal(body)
	}
	return out, err
}
