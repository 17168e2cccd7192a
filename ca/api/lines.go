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
	"maps"
	"net/http"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/gin-gonic/gin"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/client"
)

// A lineReader splits a body into lines that have at most size octets, the line feed not counted.
type lineReader struct {
	r      *bufio.Reader
	size   int
	number int // of the line read last, from 1
}

func newLineReader(r io.Reader, size int) *lineReader {
	return &lineReader{r: bufio.NewReaderSize(r, size+1), size: size}
}

// next returns the next line that is not blank; it is valid until the next call. A line too long is [jpki.TooLarge], and
// the one behind it can be read. At the end of the body the error is io.EOF; anything else, with what is left of a line
// that was cut, means that the body broke off.
func (l *lineReader) next() ([]byte, error) {
	for {
		text, err := l.r.ReadSlice('\n')
		if len(text) > 0 {
			l.number++
		}
		long := errors.Is(err, bufio.ErrBufferFull)
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = l.r.ReadSlice('\n')
		}
		if err != nil && (!errors.Is(err, io.EOF) || len(text) == 0) {
			return nil, err
		}
		text = bytes.TrimSuffix(text, []byte("\n"))
		if long || len(text) > l.size {
			return nil, jpki.Errorf(jpki.TooLarge, "a line has at most %d octets", l.size)
		}
		if len(bytes.TrimSpace(text)) > 0 {
			return text, nil
		}
	}
}

// parseLine reads a line as parse does and, as nobody checks the text of a line before, insists on UTF-8.
func parseLine(text []byte, v any) error {
	if !utf8.Valid(text) {
		return jpki.Errorf(jpki.Malformed, "the line is not UTF-8")
	}
	return parse(text, v)
}

// A job is a line on its way.
type job[T any] struct {
	line  int
	body  T
	err   error // the line's problem
	does  any   // the answer; without it there is a problem
	after *job[T]
	done  chan struct{}
}

// A stream says what is done with the lines of one kind of batch.
type stream[T any] struct {
	size    int                                         // of a line, at most
	of      func(T) string                              // whose lines keep their order
	workers int                                         // at once
	group   int                                         // jobs that a worker takes at once, at most
	work    func(ctx context.Context, jobs []*job[T])   // gives each job does or err
	refusal func(j *job[T], p *jpki.ProblemDetails) any // what is answered for a problem
}

// window is how many lines are read ahead of the one answered next.
func (s stream[T]) window() int { return 4 * s.workers * s.group }

// moves is how long a client may take to send more or to take an answer.
const moves = time.Minute

// trusted is how long a caller's authentication is believed before it is looked at again.
const trusted = time.Second

// serve answers a batch line by line while it is being read. Lines of one holder or token are worked on in their order,
// others in parallel, and answers come in the order of the lines. At most a window of lines is in memory. When the client
// goes away no more lines are read and begun; those begun are completed.
func serve[T any](a *API, c *gin.Context, s stream[T]) {
	rc := http.NewResponseController(c.Writer)
	_ = rc.EnableFullDuplex() // HTTP/2 always is
	_ = rc.SetWriteDeadline(time.Time{})
	c.Header("Content-Type", client.NDJSON)
	c.Header("Cache-Control", "no-store")
	c.Writer.WriteHeaderNow()
	_ = rc.Flush()

	far := &peer{rc, c.Request.Body, c.Writer}
	ctx, stop := context.WithCancel(c.Request.Context())
	order, queue := make(chan *job[T], s.window()), make(chan *job[T], s.window())
	var all sync.WaitGroup
	all.Go(func() {
		defer close(order)
		defer close(queue)
		read(ctx, a, c.Request, far, s, func(j *job[T]) {
			order <- j
			queue <- j
		})
	})
	var taking sync.Mutex // groups are taken one after the other, so each waits only for earlier ones
	for range s.workers {
		all.Go(func() {
			for {
				taking.Lock()
				jobs := take(queue, s.group)
				taking.Unlock()
				if len(jobs) == 0 {
					return
				}
				perform(ctx, s, jobs)
			}
		})
	}
	out := bufio.NewWriterSize(far, 64<<10)
	encoder := json.NewEncoder(out)
	gone := false
	flush := func() {
		gone = gone || out.Flush() != nil
		if gone {
			stop()
		}
	}
	for {
		j, ok := next(order, flush)
		if !ok {
			break
		}
		p := jpki.Problem("ok")
		if j.does == nil {
			p = a.lineProblem(c, j.err)
			j.does = s.refusal(j, problemDetails(c, p, j.err))
		}
		a.lines.Add(string(p))
		if gone = gone || encoder.Encode(j.does) != nil; gone {
			stop()
		}
	}
	flush()
	stop()
	all.Wait()
	a.outcomes.Add("ok")
}

// read makes jobs of lines and hands them on, until the body or the client's patience ends.
func read[T any](ctx context.Context, a *API, r *http.Request, body io.Reader, s stream[T], hand func(*job[T])) {
	lines := newLineReader(body, s.size)
	last := map[string]*job[T]{}
	checked := a.Now()
	for ctx.Err() == nil {
		text, err := lines.next()
		if err != nil && !errors.Is(err, jpki.TooLarge) {
			return // the end, or the client has gone
		}
		j := &job[T]{line: lines.number, err: err, done: make(chan struct{})}
		if lines.number > client.MaxLines {
			j.err = jpki.Errorf(jpki.TooLarge, "a batch has at most %d lines", client.MaxLines)
			hand(j)
			return
		}
		if now := a.Now(); now.Sub(checked) > trusted {
			checked = now
			if _, err := a.Authority.Authenticate(ctx, chainOf(r)); err != nil {
				j.err = err
				hand(j)
				return
			}
		}
		if j.err == nil {
			j.err = parseLine(text, &j.body)
		}
		if j.err == nil {
			of := s.of(j.body)
			if j.after = last[of]; j.after != nil && j.after.isDone() {
				j.after = nil
			}
			last[of] = j
		}
		if len(last) > 2*s.window() {
			maps.DeleteFunc(last, func(_ string, l *job[T]) bool { return l.isDone() })
		}
		hand(j)
	}
}

func (j *job[T]) isDone() bool {
	select {
	case <-j.done:
		return true
	default:
		return false
	}
}

// take waits for one job and takes what else is there; nothing at the end.
func take[T any](queue <-chan *job[T], most int) (jobs []*job[T]) {
	j, ok := <-queue
	for ok {
		if jobs = append(jobs, j); len(jobs) == most {
			break
		}
		select {
		case j, ok = <-queue:
		default:
			ok = false
		}
	}
	return jobs
}

// perform works on the jobs that have no problem yet.
func perform[T any](ctx context.Context, s stream[T], jobs []*job[T]) {
	mine := map[*job[T]]bool{}
	var sound []*job[T]
	for _, j := range jobs {
		mine[j] = true
		if j.after != nil && !mine[j.after] {
			<-j.after.done
		}
		j.after = nil
		if j.err == nil {
			sound = append(sound, j)
		}
	}
	if err := ctx.Err(); err != nil {
		for _, j := range sound {
			j.err = jpki.WrapError(jpki.Unavailable, err, "the batch ended before this line")
		}
	} else if len(sound) > 0 {
		s.attempt(ctx, sound)
	}
	for _, j := range jobs {
		close(j.done)
	}
}

// attempt works on jobs; a panic, which would end the process outside of a handler's own goroutine, is their problem.
func (s stream[T]) attempt(ctx context.Context, jobs []*job[T]) {
	defer func() {
		if p := recover(); p != nil {
			for _, j := range jobs {
				j.does, j.err = nil, fmt.Errorf("work on a line panicked: %T", p)
			}
		}
	}()
	s.work(ctx, jobs)
}

// A peer gives the client time for each read and write, and none in between.
type peer struct {
	rc  *http.ResponseController
	in  io.Reader
	out io.Writer
}

func (p *peer) Read(b []byte) (int, error) {
	_ = p.rc.SetReadDeadline(time.Now().Add(moves)) //nolint:forbidigo // the kernel's clock, not the product's
	defer func() { _ = p.rc.SetReadDeadline(time.Time{}) }()
	return p.in.Read(b)
}

func (p *peer) Write(b []byte) (int, error) {
	_ = p.rc.SetWriteDeadline(time.Now().Add(moves)) //nolint:forbidigo // the kernel's clock, not the product's
	defer func() { _ = p.rc.SetWriteDeadline(time.Time{}) }()
	n, err := p.out.Write(b)
	if err != nil {
		return n, err
	}
	return n, p.rc.Flush()
}

// next returns the next job, when it is done; it calls flush before it has to wait.
func next[T any](order <-chan *job[T], flush func()) (*job[T], bool) {
	var j *job[T]
	var ok bool
	select {
	case j, ok = <-order:
	default:
		flush()
		j, ok = <-order
	}
	if !ok {
		return nil, false
	}
	if !j.isDone() {
		flush()
		<-j.done
	}
	return j, true
}

// lineProblem names a line's problem and logs what only the log may see.
func (a *API) lineProblem(c *gin.Context, err error) jpki.Problem {
	p := jpki.ProblemOf(err)
	if p == jpki.Internal {
		a.Log.ErrorContext(c.Request.Context(), "line of a batch failed", slog.String("route", c.FullPath()), slog.Any("error", err), slog.String("request_id", jpki.RequestID(c.Request.Context())))
	}
	return p
}

// problemDetails is the problem object of one line.
func problemDetails(c *gin.Context, p jpki.Problem, err error) *jpki.ProblemDetails {
	d := &jpki.ProblemDetails{Type: jpki.ProblemBase + string(p), Title: p.Title(c.GetHeader("Accept-Language")), Status: p.HTTPStatus(), RequestID: jpki.RequestID(c.Request.Context())}
	if e, ok := errors.AsType[*jpki.Error](err); ok && p != jpki.Internal {
		d.Detail = e.Detail
	}
	return d
}
