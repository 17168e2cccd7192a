package signer

import (
	"bufio"
	"context"
	"errors"
	"net"
	"runtime"
	"sync"
	"time"
)

// A Writer sends frames of many goroutines over one connection: whoever comes while another writes leaves its frame to that
// one, so that under load one system call carries many.
type Writer struct {
	conn    net.Conn
	mu      sync.Mutex
	next    []byte
	spare   []byte
	writing bool
	err     error
}

// NewWriter returns a Writer on a connection.
func NewWriter(conn net.Conn) *Writer { return &Writer{conn: conn} }

// patience is how long a peer may leave its answers unread before its connection ends.
const patience = 10 * time.Second

// Write has the frames that f appends sent, soon. After the connection failed it returns why.
func (w *Writer) Write(f func([]byte) []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return w.err
	}
	w.next = f(w.next)
	if w.writing {
		return nil
	}
	w.writing = true
	for len(w.next) > 0 && w.err == nil {
		w.mu.Unlock()
		runtime.Gosched() // others who are ready come along
		w.mu.Lock()
		out := w.next
		w.next = w.spare[:0]
		w.mu.Unlock()
		_ = w.conn.SetWriteDeadline(time.Now().Add(patience)) //nolint:forbidigo // the kernel's clock, not the product's
		_, err := w.conn.Write(out)
		w.mu.Lock()
		w.spare, w.err = out, err
	}
	w.writing = false
	return w.err
}

// A Link is one connection with many requests on their way. When it ends, all of them fail with [ErrLinkLost].
type Link struct {
	conn    net.Conn
	w       *Writer
	mu      sync.Mutex
	last    uint64
	pending map[uint64]waiting
	err     error
	done    chan struct{}
}

type waiting struct {
	answer chan Response
	since  time.Time
}

// ErrLinkLost is what ends requests whose connection ended: whether they were carried out is not known.
var ErrLinkLost = errors.New("the connection to the signer was lost")

// NewLink takes over a connection. Frames may already have been read from it through r; nil for a fresh connection.
func NewLink(conn net.Conn, r *bufio.Reader) *Link {
	if r == nil {
		r = bufio.NewReaderSize(conn, 16<<10)
	}
	l := &Link{conn: conn, w: NewWriter(conn), pending: map[uint64]waiting{}, done: make(chan struct{})}
	go l.read(r)
	return l
}

func (l *Link) read(r *bufio.Reader) {
	for {
		frame, err := readFrame(r, nil, maxResponse)
		var resp Response
		if err == nil {
			resp, err = ParseResponse(frame)
		}
		if err != nil {
			l.Close()
			return
		}
		l.mu.Lock()
		p, ok := l.pending[resp.ID]
		delete(l.pending, resp.ID)
		l.mu.Unlock()
		if ok {
			p.answer <- resp
		}
	}
}

// Close ends the connection and every request on it.
func (l *Link) Close() {
	_ = l.conn.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = ErrLinkLost
		close(l.done)
		for id, p := range l.pending {
			close(p.answer)
			delete(l.pending, id)
		}
	}
}

// Done is closed when the connection has ended.
func (l *Link) Done() <-chan struct{} { return l.done }

// Oldest returns since when the request waits that waits longest; false if none does.
func (l *Link) Oldest() (since time.Time, any bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.pending {
		if !any || p.since.Before(since) {
			since, any = p.since, true
		}
	}
	return since, any
}

// Pending returns how many requests are on their way.
func (l *Link) Pending() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.pending)
}

// Do sends a request, numbered by the link, and waits for its answer until ctx ends or the link does.
func (l *Link) Do(ctx context.Context, r Request) (Response, error) {
	answer := make(chan Response, 1)
	l.mu.Lock()
	if l.err != nil {
		l.mu.Unlock()
		return Response{}, l.err
	}
	l.last++
	r.ID = l.last
	l.pending[r.ID] = waiting{answer, time.Now()} //nolint:forbidigo // how long this process waits, monotonic
	l.mu.Unlock()
	if err := l.w.Write(func(b []byte) []byte { return AppendRequest(b, r) }); err != nil {
		l.Close()
		return Response{}, ErrLinkLost
	}
	select {
	case resp, ok := <-answer:
		if !ok {
			return Response{}, ErrLinkLost
		}
		return resp, nil
	case <-ctx.Done(): // it stays pending: whoever watches the link must see that it was not answered
		return Response{}, ctx.Err()
	}
}
