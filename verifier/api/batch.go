package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/verifier/store"
)

const (
	ndjson   = "application/x-ndjson"
	maxLine  = 1 << 20 // octets
	maxLines = 100_000 // a request
	maxRef   = 64      // characters

	// moves is how long a client may take to send more or to take an answer.
	moves = time.Minute
	// together is how many answered lines share a transaction, at most.
	together = 128
	// moment is for how long an answered line waits for the next, so that more share one.
	moment = 5 * time.Millisecond
)

// lines says what is done with the lines of a batch.
type lines struct {
	members []string
	verdict func(*API, context.Context, *store.Access, *fields, []byte, []byte) (verdict, error)
}

var (
	verificationLines = lines{append([]string{"ref?"}, verificationMembers...), (*API).verification}
	statusLines       = lines{append([]string{"ref?"}, statusMembers...), (*API).status}
)

// A line is one line on its way: done is closed when it has its answer or err.
type line struct {
	number int
	ref    string
	verdict
	err  error
	done chan struct{}
}

// batch answers line by line while it reads. Lines are worked on in parallel and answered in their order; a line's problem is its
// own. At most a window of lines is in memory. What is to be kept of lines that are ready together is kept in one transaction,
// and only then are they answered. Steps, each in a goroutine:
//  1. read lines and start work on them, as far as the window goes
//  2. take answers in the order of the lines, keep, write
func (a *API) batch(c *gin.Context, in call, l lines, limit time.Duration) {
	if in.media() != ndjson {
		a.refuse(c, jpki.Errorf(jpki.Malformed, "Content-Type is not %s", ndjson))
		return
	}
	rc := http.NewResponseController(c.Writer)
	_ = rc.EnableFullDuplex() // HTTP/2 always is
	c.Set(outcomeKey, answered)
	c.Header("Content-Type", ndjson)
	c.Header("Cache-Control", "no-store")
	c.Writer.WriteHeaderNow()
	_ = rc.Flush()
	ctx, stop := context.WithCancel(c.Request.Context())
	body, ended, early, whole := c.Request.Body, make(chan struct{}), true, false
	defer func() { // nobody reads the body once this request is over
		stop()
		if early {
			_ = rc.SetReadDeadline(time.Unix(1, 0))
		}
		<-ended
		if whole { // or the connection has to end: what is left of the body is no request
			_, _ = rc.SetReadDeadline(time.Time{}), rc.SetWriteDeadline(time.Time{})
		} else {
			_ = rc.SetReadDeadline(time.Unix(1, 0))
		}
	}()

	workers := runtime.GOMAXPROCS(0)
	order, work := make(chan *line, 4*workers+together), make(chan func(), workers)
	for range 2 * workers { // some wait for statuses while others compute
		go func() {
			for f := range work {
				f()
			}
		}()
	}
	go func() {
		defer close(ended)
		defer close(order)
		defer close(work)
		whole = a.readLines(ctx, body, rc, func(n int, text []byte, err error) bool {
			j := &line{number: n, err: err, done: make(chan struct{})}
			select {
			case order <- j:
			case <-ctx.Done():
				return false
			}
			if err != nil {
				close(j.done)
				return true
			}
			text = bytes.Clone(text)
			select {
			case work <- func() { defer close(j.done); a.line(ctx, in.Access, l, j, text, limit) }:
			case <-ctx.Done():
				j.err = jpki.WrapError(jpki.Unavailable, ctx.Err(), "the batch ended before this line")
				close(j.done)
			}
			return true
		})
	}()
	out := bufio.NewWriterSize(c.Writer, 64<<10)
	for open := true; open; {
		group, more := gather(order)
		open = more
		if len(group) == 0 {
			continue
		}
		a.keepLines(ctx, in.Access, group)
		_ = rc.SetWriteDeadline(time.Now().Add(moves)) //nolint:forbidigo // the kernel's clock, not the product's
		for _, j := range group {
			a.writeLine(ctx, out, c.Request, j)
		}
		if errors.Join(out.Flush(), rc.Flush()) != nil {
			return // the client has gone; stop ends the rest
		}
	}
	early = false
}

// gather waits for one line and takes with it those behind it that are ready within a moment. It does not wait for lines that
// were not sent yet. more is false at the end.
func gather(order <-chan *line) (group []*line, more bool) {
	j, more := <-order
	if !more {
		return nil, false
	}
	<-j.done
	group = append(make([]*line, 0, together), j)
	enough := time.NewTimer(moment)
	defer enough.Stop()
	for len(group) < together {
		select {
		case j, more := <-order:
			if !more {
				return group, false
			}
			group = append(group, j)
			select {
			case <-j.done:
				continue
			case <-enough.C:
				<-j.done
				return group, true
			}
		default:
			return group, true
		}
	}
	return group, true
}

// keepLines keeps what the lines leave behind. If that does not succeed they have no verdict.
func (a *API) keepLines(ctx context.Context, access *store.Access, group []*line) {
	var records []store.Record
	for _, j := range group {
		if j.err == nil {
			records = append(records, j.keep...)
		}
	}
	if err := a.Store.Keep(ctx, access, records, a.Now()); err != nil {
		for _, j := range group {
			if j.err == nil {
				j.err = err
			}
		}
	}
}

// readLines calls f for every line that is not blank, until it returns false. text is valid during the call. whole says that it
// has read the body to its end.
func (a *API) readLines(ctx context.Context, body io.Reader, rc *http.ResponseController, f func(n int, text []byte, err error) bool) (whole bool) {
	r := bufio.NewReaderSize(body, maxLine+1)
	n := 0
	for ctx.Err() == nil {
		_ = rc.SetReadDeadline(time.Now().Add(moves)) //nolint:forbidigo // the kernel's clock, not the product's
		text, err := r.ReadSlice('\n')
		long := errors.Is(err, bufio.ErrBufferFull)
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = r.ReadSlice('\n')
		}
		if errors.Is(err, io.EOF) && len(text) == 0 {
			return true
		}
		n++
		text = bytes.TrimSuffix(text, []byte("\n"))
		var problem error
		switch {
		case err != nil && !errors.Is(err, io.EOF):
			f(n, nil, jpki.WrapError(jpki.Malformed, err, "the body broke off"))
			return false
		case n > maxLines:
			f(n, nil, jpki.Errorf(jpki.TooLarge, "a batch has at most %d lines", maxLines))
			return false
		case long:
			problem = jpki.Errorf(jpki.TooLarge, "a line has at most %d octets", maxLine)
		case len(bytes.TrimSpace(text)) == 0:
			continue
		}
		if !f(n, text, problem) {
			return false
		}
	}
	return false
}

// line gives one line its verdict or its problem.
func (a *API) line(ctx context.Context, access *store.Access, l lines, j *line, text []byte, limit time.Duration) {
	defer func() {
		if p := recover(); p != nil {
			a.Log.ErrorContext(ctx, "panic", slog.String("request_id", jpki.RequestID(ctx)), slog.String("type", fmt.Sprintf("%T", p)), slog.String("stack", string(debug.Stack())))
			j.err = jpki.Internal
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	f, err := parseFields(text, l.members...)
	if err == nil {
		if j.ref, err = f.ref(); err == nil {
			err = a.meters.verdict(nil, access, a.Now())
		}
	}
	if err == nil {
		j.verdict, err = l.verdict(a, ctx, access, f, nil, nil)
	}
	if j.err = err; err != nil {
		j.err = late(ctx, err)
	}
}

// ref is the caller's own name for a line, which is repeated and logged nowhere.
func (f *fields) ref() (string, error) {
	ref := f.values["ref"]
	if len(ref) > maxRef || strings.ContainsFunc(ref, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' }) {
		return "", jpki.Errorf(jpki.Malformed, "ref has more than %d characters, or others than printable ASCII without space, quotation mark and backslash", maxRef)
	}
	return ref, nil
}

func (a *API) writeLine(ctx context.Context, out *bufio.Writer, r *http.Request, j *line) {
	fmt.Fprintf(out, `{"line":%d`, j.number)
	if j.ref != "" {
		fmt.Fprintf(out, `,"ref":"%s"`, j.ref)
	}
	if j.err == nil {
		a.outcomes.Add(j.code)
		fmt.Fprint(out, `,"result":`)
		_, _ = out.Write(j.answer)
	} else {
		problem := jpki.ProblemOf(j.err)
		if problem == jpki.Internal {
			a.Log.ErrorContext(ctx, "internal error", slog.String("request_id", jpki.RequestID(ctx)), slog.Any("error", j.err))
		}
		a.outcomes.Add(string(problem))
		d := jpki.DetailsOf(r, j.err)
		text, _ := json.Marshal(d) // strings and numbers
		fmt.Fprint(out, `,"problem":`)
		_, _ = out.Write(text)
	}
	fmt.Fprint(out, "}\n")
}
