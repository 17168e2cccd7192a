package ocsp

import (
	"bytes"
	"context"
	"errors"
	"time"
	"unsafe"

	"github.com/openjpki/jpki"
)

// A flight makes or fetches one answer, once for all who wait for it. It goes on when they give up. It shares nothing with
// the request, and is one piece of memory: there is one for each answer made.
type flight struct {
	key      key
	delegate *delegate
	answers  answers
	list     [1]Answer // of answers
	octets   [96]byte  // of the CertID, if it is no longer
	state    jpki.State

	done    chan struct{} // made under the responder's lock by the first who waits, closed by run; nil if nobody does
	got     kept          // valid once run has returned or done is closed, as are the next two
	refusal ResponseStatus
	signed  bool // by our key, not fetched
}

// fetch returns the answer of a key: from a shelf outside or signed, unless somebody is at it already.
func (r *Responder) fetch(ctx context.Context, k *key, d *delegate, ask *question, st *jpki.Status, asOf time.Time) (kept, ResponseStatus) {
	if !r.enter() {
		return kept{}, TryLater
	}
	f, done, first := r.take(k, !d.here)
	if first {
		r.begin(f, d, ask, st, asOf)
	}
	switch {
	case first && d.here: // shelves answer in time and the key always does; and a stack that has signed before need not grow
		r.run(f)
		r.waiting.Add(-1)
		if f.signed && d.quick {
			r.gathering.pass()
		}
		return f.got, f.refusal
	case first:
		go r.run(f)
	default:
		r.counts.one(countShared)
	}
	defer r.waiting.Add(-1)
	if !r.wait(ctx, done) {
		return kept{}, TryLater
	}
	return f.got, f.refusal
}

// refresh has an answer made anew while the one that is kept is still served. A flight too many is none.
func (r *Responder) refresh(k *key, d *delegate, ask *question, st *jpki.Status, asOf time.Time) {
	if r.waiting.Load() >= int64(r.cfg.MaxWaiting) {
		return
	}
	if f, _, first := r.take(k, false); first {
		r.counts.one(countRefreshed)
		r.begin(f, d, ask, st, asOf)
		go r.run(f)
	}
}

// begin says what a flight has to do.
func (r *Responder) begin(f *flight, d *delegate, ask *question, st *jpki.Status, asOf time.Time) {
	f.delegate, f.state = d, st.State
	f.list[0].CertID.Raw = append(f.octets[:0], ask.certID...)
	f.list[0].set(st)
	f.answers = answers{producedAt: ask.at, list: f.list[:]}
	r.date(&f.answers, d, asOf)
}

// enter counts a request among those that wait, or reports that there are too many: it is better to say so at once than to
// answer everybody too late.
func (r *Responder) enter() bool {
	if r.waiting.Add(1) > int64(r.cfg.MaxWaiting) {
		r.waiting.Add(-1)
		r.counts.one(countBusy)
		return false
	}
	return true
}

// take returns the flight of a key, and whether it is new and the caller's to run. Unless it is, or if the caller waits in
// any case, done is closed when it has ended.
func (r *Responder) take(k *key, waits bool) (f *flight, done chan struct{}, first bool) {
	r.flights.Lock()
	defer r.flights.Unlock()
	if f = r.flights.m[*k]; f == nil {
		f, first = &flight{key: *k}, true
		r.flights.m[*k] = f
	}
	if f.done == nil && (waits || !first) {
		f.done = make(chan struct{})
	}
	return f, f.done, first
}

// wait waits for a flight no longer than an answer may take, and not when nobody listens any more.
func (r *Responder) wait(ctx context.Context, done <-chan struct{}) bool {
	timer := time.NewTimer(r.cfg.Late)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		r.counts.one(countLate)
	case <-ctx.Done():
	}
	return false
}

// run asks the shelves outside, then the key. What was made lands on the shelves whoever still waits for it.
func (r *Responder) run(f *flight) {
	defer func() {
		if recover() != nil { // somebody else's code, an HSM's for instance: it must not end the process
			f.refusal = InternalError
		}
		r.flights.Lock()
		delete(r.flights.m, f.key)
		done := f.done
		r.flights.Unlock()
		if done != nil {
			close(done)
		}
	}()
	f.refusal = InternalError
	name := ""
	if len(r.cfg.Far) > 0 {
		name = string(f.key[:])
		if got, ok := r.ask(f, name); ok {
			f.got, f.refusal = got, Successful
			return
		}
	}
	x := &f.answers
	f.delegate.complete(x)
	var body []byte
	if body, f.refusal = r.sign(f.delegate, x); f.refusal != Successful {
		return
	}
	f.signed = true
	f.got = r.keep(f, x, body)
	if macs := r.macs; len(r.cfg.Far) > 0 {
		value := f.key.far(x, body, macs)
		for _, shelf := range r.cfg.Far {
			shelf.Put(name, value, r.ttl(x))
		}
	}
}

// keep puts an answer on the near shelf, with its head. The shelf's key lies in the value, where it is compared again.
func (r *Responder) keep(f *flight, x *answers, body []byte) kept {
	this, next := x.list[0].ThisUpdate, x.list[0].NextUpdate
	t := r.terms(this.Unix(), next.Unix(), f.state)
	head := r.head(body, this, next, t.maxAge, true)
	got := kept{thisUpdate: this.Unix(), nextUpdate: next.Unix(), producedAt: x.producedAt.Unix(), head: head, body: body}
	if r.cfg.Near != nil {
		value := f.key.near(x, head, body)
		r.cfg.Near.Put(unsafe.String(&value[1], keySize), value, r.ttl(x)) //nolint:gosec // nobody changes a value
	}
	return got
}

func (r *Responder) ttl(x *answers) time.Duration {
	return x.list[0].NextUpdate.Sub(x.producedAt)
}

// ask looks for an answer on the shelves outside that need not be signed anew yet.
func (r *Responder) ask(f *flight, name string) (kept, bool) {
	ctx, cancel := context.WithTimeout(context.Background(), r.cfg.Late/2) // leaves time to sign
	defer cancel()
	for _, shelf := range r.cfg.Far {
		value, ok := shelf.Get(ctx, name)
		if !ok {
			continue
		}
		x := &answers{list: []Answer{f.answers.list[0]}} // as it is now, with the times of then
		got, ok := f.key.openFar(value, f.delegate, x, r.macs)
		if !ok {
			r.counts.one(countFarRefused)
			continue
		}
		at := f.answers.producedAt
		if t := r.terms(got.thisUpdate, got.nextUpdate, f.state); !t.covers(at) || t.due(at) {
			continue
		}
		r.counts.one(countFar)
		return r.keep(f, x, bytes.Clone(got.body)), true
	}
	return kept{}, false
}

// sign makes one response, if a place among those being signed becomes free in time.
func (r *Responder) sign(d *delegate, x *answers) ([]byte, ResponseStatus) {
	select {
	case r.signing <- struct{}{}:
	default:
		timer := time.NewTimer(r.cfg.Late)
		defer timer.Stop()
		select {
		case r.signing <- struct{}{}:
		case <-timer.C:
			r.counts.one(countBusy)
			return nil, TryLater
		}
	}
	defer func() { <-r.signing }()
	body, err := d.respond(x)
	switch {
	case err == nil:
		r.counts.one(countSigned)
		return body, Successful
	case errors.Is(err, errWrong):
		r.counts.one(countSignedWrong)
		return nil, InternalError
	}
	r.counts.one(countSignFailed)
	return nil, TryLater
}

// signAlone signs for one request, within the same limits.
func (r *Responder) signAlone(ctx context.Context, d *delegate, x *answers) ([]byte, ResponseStatus) {
	if !r.enter() {
		return nil, TryLater
	}
	if d.here { // as in fetch
		body, refusal := r.sign(d, x)
		r.waiting.Add(-1)
		if d.quick {
			r.gathering.pass()
		}
		return body, refusal
	}
	defer r.waiting.Add(-1)
	f := &flight{done: make(chan struct{})}
	go func() {
		defer func() {
			if recover() != nil { // as in run
				f.refusal = InternalError
			}
			close(f.done)
		}()
		f.got.body, f.refusal = r.sign(d, x)
	}()
	if !r.wait(ctx, f.done) {
		return nil, TryLater
	}
	return f.got.body, f.refusal
}
