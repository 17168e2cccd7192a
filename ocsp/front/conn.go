package front

import (
	"cmp"
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/openjpki/jpki/ocsp"
)

// A connection has a small buffer of its own, in which usual requests fit, and borrows a larger one for a request that
// needs it. The largest takes any admitted request; there are few of them.
const (
	smallBuffer  = 2 << 10
	middleBuffer = maxHead
	largeBuffer  = maxHead + ocsp.MaxRequestBytes + maxFraming + 1
	maxLarge     = 256

	maxBatch  = 32 << 10 // octets of pipelined answers that wait to be written together
	keptBatch = 64 << 10 // larger ones are not kept for reuse
	maxLinger = 1 << 20  // octets that a client may still send to a connection that ends
)

// A conn is one connection, served by one goroutine. Only due is touched by others.
type conn struct {
	s       *Server
	nc      net.Conn
	io      io.ReadWriter // nc itself, or what is faster
	address string        // of the peer
	counted netip.Addr    // in Server.addresses, if valid
	proxied bool          // the peer is a proxy of ours

	// due says when the connection's time is up: a tick, shifted by one, and whether it waits for a request. 0 while it
	// works, so that nobody ends it then, and ended afterwards.
	due   atomic.Int64
	began int64 // the tick at which the present request's first octet was there, plus one; 0 before

	buf      []byte  // small, or borrowed
	borrowed *[]byte // what goes back to the pool
	r, w     int     // buf[r:w] was read and not yet used; a request begins at r
	served   bool
	handed   bool // over
	head     head
	work     *work // borrowed from the first answer until it is written
	small    [smallBuffer]byte
}

const (
	waits = 1
	ended = -1
)

// work is what answering takes; connections that wait have none.
type work struct {
	out   []byte // answers to be written together
	der   []byte // of a GET's request
	query ocsp.Query
}

// errOver ends a connection on which all that is to be said has been said.
var errOver = errors.New("connection is over")

// run serves the connection to its end.
func (c *conn) run() {
	defer func() {
		c.shrink()
		c.s.forget(c)
		if !c.handed {
			c.nc.Close()
			c.s.release(c.counted)
		}
	}()
	for c.serve() == nil {
		c.began, c.served = 0, true
	}
}

// serve answers one request. Steps:
//  1. wait for the head and read it
//  2. hand the connection over if the request is not for OCSP
//  3. refuse what no body can mend
//  4. wait for the body
//  5. exchange, and put the answer behind those that are to be written with it
//
// Answers are written when nothing more can be answered without waiting.
func (c *conn) serve() error {
	// 1.
	c.head.method, c.head.http10 = "", false
	end, why, err := c.readHead()
	if err != nil {
		return err
	}
	if why == nil {
		why = c.parse(end)
	}
	if why != nil {
		return c.refuse(why, true)
	}
	// 2.
	path, ours := under(c.s.cfg.Prefix, c.head.target)
	if !ours && c.s.cfg.Other != nil {
		return c.handOver()
	}
	// 3.
	get := c.head.method == http.MethodGet
	switch {
	case c.head.strange:
		why = unknownExpecting
	case !ours:
		why = notFound
	default:
		why = admissible(c.head.method, path, c.head.contentType)
	}
	switch {
	case why != nil && (!why.stays || c.head.hasBody()): // a body is not read for nothing
		return c.refuse(why, true)
	case why != nil:
		c.r += end
		return c.refuse(why, c.head.last())
	}
	// 4.
	var body []byte
	next, last := end, c.head.last()
	if c.head.hasBody() {
		var moved bool
		if body, next, moved, why, err = c.readBody(end); err != nil {
			return err
		}
		if why == tooLarge { // which is malformed in the words of OCSP; and where the next request begins is not known
			body, next, last = nil, c.w-c.r, true
		} else if why != nil {
			return c.refuse(why, true)
		}
		if moved { // the head may lie elsewhere now
			if why := c.parse(end); why != nil {
				return c.refuse(why, true)
			}
			path, _ = under(c.s.cfg.Prefix, c.head.target)
		}
	}
	// 5.
	w := c.working()
	w.query = ocsp.Query{Request: body, GET: get, Client: ocsp.Client{Address: c.address}}
	if get {
		if der, err := ocsp.DecodeGET(path, w.der[:0]); err == nil { // otherwise nothing, which is malformed
			w.der, w.query.Request = der, der
		} else {
			w.query.Request = nil
		}
		w.query.IfNoneMatch, w.query.IfModifiedSince = string(c.head.noneMatch), string(c.head.modifiedSince)
	}
	if c.proxied {
		w.query.Client = c.s.behind(c.address, string(c.head.forwarded), oneOf(c.head.certificates))
	}
	last = c.exchange(&w.query, last)
	c.r += next
	switch {
	case last && (why != nil || !c.head.last() || c.r < c.w):
		return c.linger()
	case last: // a client that wanted it sends nothing more
		return cmp.Or(c.flush(), errOver)
	case len(w.out) >= maxBatch:
		return c.flush()
	}
	return nil
}

func (c *conn) parse(end int) *refusal {
	return c.head.parse(c.buf[c.r:c.r+end], c.s.cfg.CertificateHeader)
}

// admissible says why a request under the prefix is refused whatever its body, or nil (RFC 6960 appendix A.1).
func admissible(method string, path, contentType []byte) *refusal {
	switch {
	case method == http.MethodGet:
		return nil
	case method != http.MethodPost:
		return methodNotAllowed
	}
	for _, c := range path {
		if c != '/' {
			return notFound
		}
	}
	if len(contentType) == 0 || is(contentType, "application/ocsp-request") {
		return nil
	}
	if t, _, _ := mime.ParseMediaType(string(contentType)); t != "application/ocsp-request" && t != "application/octet-stream" {
		return unsupportedMediaType
	}
	return nil
}

// readHead waits for a whole head and returns its length. An empty line before it is passed over, which some clients
// send behind a body (RFC 9112 §2.2).
func (c *conn) readHead() (end int, why *refusal, err error) {
	skipped := false
	for from := 0; ; {
		b := c.buf[c.r:c.w]
		if !skipped && len(b) >= 2 && b[0] == '\r' && b[1] == '\n' {
			c.r, skipped = c.r+2, true
			continue
		}
		if len(b) > 0 && !tokenOctet[b[0]] && (b[0] != '\r' || skipped) {
			return 0, malformed, nil // TLS, for instance, which would never come to the end of a line
		}
		var ok bool
		if end, from, ok = headEnd(b, from); !ok {
			return 0, malformed, nil
		}
		switch {
		case end > maxHead, end == 0 && len(b) >= maxHead:
			if from == 0 && end == 0 {
				return 0, targetTooLong, nil
			}
			return 0, headTooLarge, nil
		case end > 0:
			return end, nil, nil
		}
		if why, err := c.more(); why != nil || err != nil {
			return 0, why, err
		}
	}
}

// readBody waits for the whole body, which begins at from, and returns it with where the next request begins. moved: the
// buffer is another than before. All offsets are from c.r.
func (c *conn) readBody(from int) (body []byte, next int, moved bool, why *refusal, err error) {
	var decoding chunks
	if c.head.length > ocsp.MaxRequestBytes {
		return nil, 0, false, tooLarge, nil
	}
	length, chunked, expects := c.head.length, c.head.chunked, c.head.expects && !c.head.http10
	for {
		b := c.buf[c.r+from : c.w]
		switch {
		case !chunked && len(b) >= length:
			return b[:length], from + length, moved, nil, nil
		case chunked:
			if why := decoding.decode(b, ocsp.MaxRequestBytes); why != nil {
				return nil, 0, moved, why, nil
			}
			if decoding.state == chunkDone {
				return b[:decoding.out], from + decoding.in, moved, nil, nil
			}
		}
		if expects && len(b) == 0 { // a client that has begun to send waits no more
			w := c.working()
			w.out = append(w.out, "HTTP/1.1 100 Continue\r\n\r\n"...)
		}
		expects, moved = false, true
		if why, err := c.more(); why != nil || err != nil {
			return nil, 0, moved, why, err
		}
	}
}

// exchange appends the answer to a query, and reports whether it said that it is the last.
func (c *conn) exchange(q *ocsp.Query, last bool) bool {
	reply, sound := c.s.ask(c.s.base, q)
	last = last || !sound || c.s.closing.Load()
	w := c.working()
	w.out = appendReply(w.out, &reply, *c.s.date.Load(), last, c.head.http10, false)
	return last
}

// refuse appends a refusal; the last one ends the connection.
func (c *conn) refuse(why *refusal, last bool) error {
	c.s.refused.Add(why.label)
	w := c.working()
	last = last || c.s.closing.Load()
	w.out = appendReply(w.out, &why.reply, *c.s.date.Load(), last, c.head.http10, c.head.method == http.MethodHead)
	if !last {
		return nil
	}
	return c.linger()
}

// working borrows what answering takes.
func (c *conn) working() *work {
	if c.work == nil {
		c.work = c.s.work.Get().(*work)
	}
	return c.work
}

// flush writes what is to be written, in one Write.
func (c *conn) flush() error {
	w := c.work
	if w == nil {
		return nil
	}
	c.work = nil
	var err error
	if len(w.out) > 0 {
		c.wait(c.s.cfg.Write, 0)
		if _, err = c.io.Write(w.out); !c.resume() || err != nil {
			err = errOver
			c.s.refused.Add("not-taken")
		}
	}
	if cap(w.out) <= keptBatch {
		w.out, w.query = w.out[:0], ocsp.Query{}
		c.s.work.Put(w)
	}
	return err
}

// more reads at least one octet more. Before it waits it writes.
func (c *conn) more() (*refusal, error) {
	if err := c.flush(); err != nil {
		return nil, err
	}
	between, alive := c.r == c.w, false
	if between {
		c.r, c.w = 0, 0
		c.shrink()
		c.head = head{}
		// Others first: by the time it is this connection's turn again its next request has often come, and Read need not
		// fail before it waits. That is a system call in three saved under load.
		if c.s.gate.due() {
			c.s.gate.pass()
		} else {
			runtime.Gosched()
		}
		alive = c.wait(c.patience(), waits)
	} else {
		if c.r > 0 && c.w == len(c.buf) {
			c.w, c.r = copy(c.buf, c.buf[c.r:c.w]), 0
		}
		if c.w == len(c.buf) && !c.grow() {
			return busy, nil
		}
		if c.began == 0 {
			c.began = c.s.after(0)
		}
		alive = c.until(c.began+c.s.ticks(c.s.cfg.Arrive), 0)
	}
	if !alive {
		return nil, errOver
	}
	n, err := c.io.Read(c.buf[c.w:])
	c.w += n
	switch alive = c.resume(); {
	case !alive && between:
		return nil, errOver
	case !alive:
		_ = c.nc.SetDeadline(time.Time{}) // time to say so
		return tooSlow, nil
	case n == 0:
		return nil, cmp.Or(err, io.ErrNoProgress)
	}
	return nil, nil
}

// patience is how long a connection may wait for a request: less for its first.
func (c *conn) patience() time.Duration {
	if c.served {
		return c.s.cfg.Idle
	}
	return c.s.cfg.Arrive
}

// grow borrows a larger buffer, or reports that there is none.
func (c *conn) grow() bool {
	var larger []byte
	var borrowed *[]byte
	switch len(c.buf) {
	case smallBuffer:
		borrowed = c.s.middle.Get().(*[]byte)
		larger = *borrowed
	case middleBuffer:
		if c.s.large.Add(1) > maxLarge {
			c.s.large.Add(-1)
			return false
		}
		larger = make([]byte, largeBuffer)
	default: // takes any admitted request
		return false
	}
	c.w, c.r = copy(larger, c.buf[c.r:c.w]), 0
	c.shrink()
	c.buf, c.borrowed = larger, borrowed
	return true
}

// shrink gives back what was borrowed.
func (c *conn) shrink() {
	switch {
	case c.borrowed != nil:
		c.s.middle.Put(c.borrowed)
	case len(c.buf) == largeBuffer:
		c.s.large.Add(-1)
	}
	c.buf, c.borrowed = c.small[:], nil
}

// linger ends the connection in such a way that the client sees the last answer: closing it while the client's octets are
// still coming in would reset it, and then what the client has not yet read is lost (RFC 9112 §9.6).
func (c *conn) linger() error {
	if err := c.flush(); err != nil {
		return err
	}
	half, ok := c.nc.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil || !c.wait(min(time.Second, c.s.cfg.Write), 0) {
		return errOver
	}
	for n := 0; n < maxLinger; {
		m, err := c.nc.Read(c.buf)
		if err != nil {
			break
		}
		n += m
	}
	return errOver
}

// wait says when the connection's time is up, and reports false if it was already.
func (c *conn) wait(limit time.Duration, kind int64) bool { return c.until(c.s.after(limit), kind) }

func (c *conn) until(tick, kind int64) bool {
	due := tick<<1 | kind
	if c.due.Swap(due) == ended {
		return false
	}
	if kind == waits && c.s.closing.Load() { // stop looked at this connection before
		c.due.CompareAndSwap(due, c.s.last())
	}
	return true
}

// resume takes the connection off the clock, and reports false if its time was up.
func (c *conn) resume() bool { return c.due.Swap(0) != ended }

var past = time.Unix(1, 0)

// end ends a connection unless it has gone on since due was read. Whatever it waits for fails.
func (c *conn) end(due int64) bool {
	if !c.due.CompareAndSwap(due, ended) {
		return false
	}
	_ = c.nc.SetDeadline(past)
	return true
}
