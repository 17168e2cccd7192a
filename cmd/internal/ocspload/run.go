package ocspload

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ocsp"
)

// Options say how a set is replayed.
type Options struct {
	Conns    int           // connections, each with one request at a time; required
	Rate     float64       // open loop: requests a second, whether answers come or not; 0 means closed loop
	Warmup   time.Duration // at the beginning, not counted
	Duration time.Duration // counted; required
	Timeout  time.Duration // of one request; 0 means 5 seconds
	Samples  int           // answers a second that are verified in full; 0 means 100, negative none
	Skew     time.Duration // by which clocks may differ; 0 means 10 seconds
	MaxAge   time.Duration // how old an answer may be, counted from thisUpdate; 0 means as it says itself
	Nonces   bool          // a nonce that does not come back is a wrong answer
}

// maxIntervals is into how many parts the counted time is divided for the report.
const maxIntervals = 60

// maxExamples is how many wrong answers are told of.
const maxExamples = 10

// An Interval is a part of the counted time.
type Interval struct {
	Begin         time.Duration // after the warm-up
	Length        time.Duration
	Done          uint64 // answers that came in it
	Errors        uint64
	P50, P99, Max time.Duration // of requests due in it
}

// A Result is what came of a run.
type Result struct {
	Options
	Set       *Set
	Start     time.Time // of the counted time
	Latency   Histogram
	Lateness  Histogram // open loop: how much later than due the client itself was with a connection free
	Intervals []Interval
	Done      uint64 // answers within the counted time
	Sent      uint64 // octets
	Received  uint64
	Errors    map[string]uint64
	Unsent    uint64 // open loop: due, and no connection free until the end
	Checked   uint64 // answers verified in full
	Skipped   uint64 // samples that were drawn and not verified, because the verifier was busy
	NoNonce   uint64 // of those checked: a nonce was sent and none came back
	Wrong     uint64 // answers that are wrong, of all
	Examples  []string
	Opened    uint64        // connections
	CPU       time.Duration // of this process in the counted time
	Cores     int           // that it may use
	Busy      float64       // share of the machine's processors in use, 0 to 1; negative if not known
}

// PerSecond returns answers a second.
func (r *Result) PerSecond() float64 { return float64(r.Done) / r.Duration.Seconds() }

// A run is the state that connections share.
type run struct {
	opt     Options
	set     *Set
	base    time.Time
	from    time.Duration // since base: begin of the counted time
	until   time.Duration
	length  time.Duration // of an interval
	stop    atomic.Bool
	due     chan time.Duration // open loop
	spent   []recorder         // latencies by interval
	done    []atomic.Uint64
	failed  []atomic.Uint64
	late    recorder
	errs    jpki.Tally
	sent    atomic.Uint64
	got     atomic.Uint64
	opened  atomic.Uint64
	unsent  atomic.Uint64
	next    atomic.Int64 // when the next sample is taken, since base
	samples chan sample
	check   checker
}

// Run replays a set against its responder. An error means that there was nothing to measure; wrong answers are in the
// result.
func Run(ctx context.Context, set *Set, opt Options) (*Result, error) {
	if opt.Timeout == 0 {
		opt.Timeout = 5 * time.Second
	}
	if opt.Samples == 0 {
		opt.Samples = 100
	}
	if opt.Skew == 0 {
		opt.Skew = 10 * time.Second
	}
	if opt.Conns < 1 || opt.Duration <= 0 || opt.Warmup < 0 || opt.Rate < 0 {
		return nil, errors.New("connections and duration have to be positive, rate and warm-up not negative")
	}
	r := &run{
		opt: opt, set: set, from: opt.Warmup, until: opt.Warmup + opt.Duration, length: max(100*time.Millisecond, (opt.Duration+maxIntervals-1)/maxIntervals),
		samples: make(chan sample, 64), due: make(chan time.Duration, 1<<16),
	}
	n := int((opt.Duration + r.length - 1) / r.length)
	r.spent, r.done, r.failed = make([]recorder, n), make([]atomic.Uint64, n), make([]atomic.Uint64, n)
	r.check = checker{set: set, opt: opt}

	// All connections stand before the clock starts.
	workers := make([]*worker, opt.Conns)
	var dialled sync.WaitGroup
	errs := make([]error, opt.Conns)
	for i := range workers {
		workers[i] = &worker{run: r, at: i * set.Len() / opt.Conns, draw: rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))} //nolint:gosec // load needs nonces that differ, not secret ones
		dialled.Go(func() { errs[i] = workers[i].connect(ctx) })
	}
	dialled.Wait()
	defer func() {
		for _, w := range workers {
			w.hangUp()
		}
	}()
	if workers[0].conn == nil {
		return nil, fmt.Errorf("connect: %w", errs[0])
	}
	return r.measure(ctx, workers)
}

// measure runs the clock: warm-up, counted time, and the end of what was under way.
func (r *run) measure(ctx context.Context, workers []*worker) (*Result, error) {
	r.base = time.Now()
	var busy, checking sync.WaitGroup
	checking.Go(func() {
		for s := range r.samples {
			r.check.verify(s)
		}
	})
	for _, w := range workers {
		if r.opt.Rate > 0 {
			busy.Go(func() { w.open(ctx) })
		} else {
			busy.Go(func() { w.closed(ctx) })
		}
	}
	if r.opt.Rate > 0 {
		busy.Go(func() { r.pace(ctx) })
	}
	sleep(ctx, r.opt.Warmup)
	before, machine := cpuTime(), readMachine()
	begin := time.Now()
	sleep(ctx, time.Until(r.base.Add(r.until)))
	out := &Result{Options: r.opt, Set: r.set, Start: begin, Cores: runtime.GOMAXPROCS(0), CPU: cpuTime() - before, Busy: machine.busySince()}
	r.stop.Store(true)
	busy.Wait()
	close(r.samples)
	checking.Wait()
	r.collect(out)
	if ctx.Err() != nil {
		return out, ctx.Err()
	}
	if out.Done == 0 && out.Wrong == 0 {
		return out, fmt.Errorf("no answer came: %s", countsOf(out.Errors))
	}
	return out, nil
}

func (r *run) collect(out *Result) {
	for i := range r.spent {
		var h Histogram
		h.merge(&r.spent[i])
		out.Latency.merge(&r.spent[i])
		iv := Interval{Begin: time.Duration(i) * r.length, Length: r.length, Done: r.done[i].Load(), Errors: r.failed[i].Load(), P50: h.Quantile(0.5), P99: h.Quantile(0.99), Max: h.Max}
		iv.Length = min(iv.Length, r.opt.Duration-iv.Begin)
		out.Intervals = append(out.Intervals, iv)
		out.Done += iv.Done
	}
	out.Lateness.merge(&r.late)
	out.Sent, out.Received, out.Opened, out.Unsent, out.Errors = r.sent.Load(), r.got.Load(), r.opened.Load(), r.unsent.Load(), r.errs.Snapshot()
	out.Checked, out.Skipped, out.NoNonce = r.check.checked.Load(), r.check.skipped.Load(), r.check.noNonce.Load()
	out.Wrong, out.Examples = r.check.wrong.Load(), r.check.examples
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// interval returns the part of the counted time that something at a time since base belongs to.
func (r *run) interval(at time.Duration) (int, bool) {
	if at < r.from || at >= r.until {
		return 0, false
	}
	return min(int((at-r.from)/r.length), len(r.done)-1), true
}

// pace says when requests are due. It sleeps in its own thread, for the runtime's timers are a millisecond wide.
func (r *run) pace(ctx context.Context) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(r.due)
	for i := 0; !r.stop.Load(); i++ {
		due := time.Duration(float64(i) / r.opt.Rate * 1e9)
		if due >= r.until {
			return
		}
		if wait := due - time.Since(r.base); wait > 0 {
			nap(wait)
		}
		select {
		case r.due <- due:
		case <-ctx.Done():
			return
		}
	}
}

// A worker is one connection.
type worker struct {
	*run
	at      int // of the next message
	conn    net.Conn
	in      *reader
	armed   time.Duration // since base: when the deadline was set last
	scratch []byte
	draw    *rand.Rand
}

func (w *worker) connect(ctx context.Context) error {
	d := net.Dialer{Timeout: w.opt.Timeout}
	conn, err := d.DialContext(ctx, "tcp", w.set.host)
	if err != nil {
		return err
	}
	w.opened.Add(1)
	w.conn, w.in, w.armed = conn, newReader(conn), -w.opt.Timeout
	return nil
}

func (w *worker) hangUp() {
	if w.conn != nil {
		_ = w.conn.Close()
		w.conn = nil
	}
}

// closed sends the next request when the answer to the last is there.
func (w *worker) closed(ctx context.Context) {
	for now := time.Since(w.base); !w.stop.Load() && ctx.Err() == nil; {
		now = w.exchange(ctx, now, now)
	}
}

// open sends a request when it is due, or as soon as this connection is free.
func (w *worker) open(ctx context.Context) {
	free := time.Duration(0)
	for due := range w.due {
		if w.stop.Load() || ctx.Err() != nil {
			w.unsent.Add(1)
			continue
		}
		now := time.Since(w.base)
		if due >= w.from {
			w.late.add(now - max(due, free))
		}
		free = w.exchange(ctx, due, now)
	}
}

// exchange sends one request and reads its answer. The latency counts from due. It returns when it was over.
func (w *worker) exchange(ctx context.Context, due, now time.Duration) time.Duration {
	m := &w.set.messages[w.at]
	if w.at++; w.at == len(w.set.messages) {
		w.at = 0
	}
	kind, wrong, resp := w.once(ctx, m, now)
	end := time.Since(w.base)
	if i, ok := w.interval(due); ok && kind == "" {
		w.spent[i].add(end - due)
	}
	if wrong != "" {
		w.check.tell(m, wrong)
	}
	if i, ok := w.interval(end); ok {
		switch kind {
		case "":
			w.done[i].Add(1)
			w.sent.Add(uint64(len(m.octets)))
			w.got.Add(uint64(resp.size))
		default:
			w.failed[i].Add(1)
			w.errs.Add(kind)
		}
	}
	if kind == "" && wrong == "" && w.opt.Samples > 0 {
		if at := w.next.Load(); int64(end) >= at && w.next.CompareAndSwap(at, int64(end)+int64(time.Second)/int64(w.opt.Samples)) {
			w.sample(m, resp)
		}
	}
	if kind != "" && w.conn == nil {
		sleep(ctx, time.Millisecond) // a responder that is gone is not to be hammered with connections
		end = time.Since(w.base)
	}
	if resp.close {
		w.hangUp()
	}
	return end
}

// once returns what kind of error occurred, "" for none, or what is wrong with the answer.
func (w *worker) once(ctx context.Context, m *message, now time.Duration) (kind, wrong string, resp response) {
	if w.conn == nil {
		if err := w.connect(ctx); err != nil {
			return "connect", "", resp
		}
	}
	if now-w.armed > w.opt.Timeout/4 { // timers cost: a request has between three quarters of the time and all of it
		_ = w.conn.SetDeadline(time.Now().Add(w.opt.Timeout))
		w.armed = now
	}
	octets := m.octets
	if m.nonce > 0 {
		w.scratch = append(w.scratch[:0], octets...)
		octets = w.scratch
		fillNonce(octets[m.nonce:], w.draw)
	}
	_, err := w.conn.Write(octets)
	if err == nil {
		resp, err = w.in.next()
	}
	if err == nil && w.in.from != w.in.to {
		err = errTrailing
	}
	if err != nil {
		w.hangUp()
		return kindOf(err), "", resp
	}
	if resp.code != 200 {
		return fmt.Sprintf("HTTP %d", resp.code), "", resp
	}
	kind, wrong = glance(resp.body, m)
	return kind, wrong, resp
}

func fillNonce(b []byte, draw *rand.Rand) {
	for i := range b {
		if i%8 == 0 {
			v := draw.Uint64()
			for k := i; k < min(i+8, len(b)); k++ {
				b[k] = byte(v >> (8 * (k - i)))
			}
		}
	}
}

// glance looks at every answer without parsing it: the response status, and what stands behind the serial number.
func glance(body []byte, m *message) (kind, wrong string) {
	status, ok := responseStatus(body)
	switch {
	case !ok:
		return "", "not an OCSP response"
	case status == ocsp.Unauthorized && m.expect == tagUnknown:
		return "", ""
	case status != ocsp.Successful:
		return "OCSP " + status.String(), ""
	}
	i := bytes.Index(body, m.integer)
	if i < 0 || i+len(m.integer) >= len(body) {
		return "", "about another certificate"
	}
	if tag := body[i+len(m.integer)]; m.expect != 0 && tag != m.expect {
		return "", "says " + map[byte]string{tagGood: "good", tagRevoked: "revoked", tagUnknown: "unknown"}[tag]
	}
	return "", ""
}

// responseStatus reads the beginning of an OCSPResponse: a SEQUENCE of the right length with an ENUMERATED in front.
func responseStatus(b []byte) (ocsp.ResponseStatus, bool) {
	if len(b) < 5 || b[0] != 0x30 {
		return 0, false
	}
	h, n := 2, int(b[1])
	if n >= 0x80 {
		if k := n & 0x7f; k < 1 || k > 3 || len(b) < 2+k {
			return 0, false
		}
		n = 0
		for _, c := range b[2 : 2+int(b[1]&0x7f)] {
			n, h = n<<8|int(c), h+1
		}
	}
	if len(b) != h+n || len(b) < h+3 || b[h] != 0x0a || b[h+1] != 1 {
		return 0, false
	}
	return ocsp.ResponseStatus(b[h+2]), true
}

func kindOf(err error) string {
	var n net.Error
	switch {
	case errors.As(err, &n) && n.Timeout():
		return "timeout"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "closed"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "reset"
	case errors.Is(err, errNotHTTP), errors.Is(err, errTooLong), errors.Is(err, errTrailing):
		return err.Error()
	}
	return "connection"
}
