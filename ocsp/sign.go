package ocsp

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/openjpki/jpki"
)

// A flight makes or fetches one answer, once for all who wait for it. It goes on when they give up.
type flight struct {
	done    chan struct{}
	got     kept // set before done is closed, as is refusal
	refusal ResponseStatus
}

// An errand is what a flight has to do: it shares nothing with the request.
type errand struct {
	key      key
	delegate *delegate
	answers  *answers
	state    jpki.State
}

// fetch returns the answer of a key: from a shelf outside or signed, unless somebody is at it already.
func (r *Responder) fetch(ctx context.Context, k key, d *delegate, ask *question, st *jpki.Status, asOf time.Time) (kept, ResponseStatus) {
	if !r.enter() {
		return kept{}, TryLater
	}
	defer r.waiting.Add(-1)
	f, first := r.take(k)
	switch {
	case first && d.here: // shelves answer in time and the key always does; and a stack that has signed before need not grow
		r.run(f, r.errand(k, d, ask, st, asOf))
		return f.got, f.refusal
	case first:
		go r.run(f, r.errand(k, d, ask, st, asOf))
	default:
		r.counts.one(countShared)
	}
	if !r.wait(ctx, f) {
		return kept{}, TryLater
	}
	return f.got, f.refusal
}

// refresh has an answer made anew while the one that is kept is still served. A flight too many is none.
func (r *Responder) refresh(k key, d *delegate, ask *question, st *jpki.Status, asOf time.Time) {
	if r.waiting.Load() >= int64(r.cfg.MaxWaiting) {
		return
	}
	if f, first := r.take(k); first {
		r.counts.one(countRefreshed)
		go r.run(f, r.errand(k, d, ask, st, asOf))
	}
}

func (r *Responder) errand(k key, d *delegate, ask *question, st *jpki.Status, asOf time.Time) *errand {
	list := []Answer{{CertID: CertID{Raw: bytes.Clone(ask.certID)}}}
	list[0].set(st)
	return &errand{key: k, delegate: d, answers: r.begin(d, ask.at, asOf, list, nil), state: st.State}
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

// take returns the flight of a key, and whether it is new and the caller's to run.
func (r *Responder) take(k key) (f *flight, first bool) {
	r.flights.Lock()
	defer r.flights.Unlock()
	if f = r.flights.m[k]; f != nil {
		return f, false
	}
	f = &flight{done: make(chan struct{})}
	r.flights.m[k] = f
	return f, true
}

// wait waits for a flight no longer than an answer may take, and not when nobody listens any more.
func (r *Responder) wait(ctx context.Context, f *flight) bool {
	timer := time.NewTimer(r.cfg.Late)
	defer timer.Stop()
	select {
	case <-f.done:
		return true
	case <-timer.C:
		r.counts.one(countLate)
	case <-ctx.Done():
	}
	return false
}

// run asks the shelves outside, then the key. What was made lands on the shelves whoever still waits for it.
func (r *Responder) run(f *flight, e *errand) {
	defer func() {
		if recover() != nil { // somebody else's code, an HSM's for instance: it must not end the process
			f.refusal = InternalError
		}
		r.flights.Lock()
		delete(r.flights.m, e.key)
		r.flights.Unlock()
		close(f.done)
	}()
	f.refusal = InternalError
	name := string(e.key[:])
	if got, ok := r.ask(e, name); ok {
		f.got, f.refusal = got, Successful
		return
	}
	x := e.answers
	e.delegate.complete(x)
	var body []byte
	if body, f.refusal = r.sign(e.delegate, x); f.refusal != Successful {
		return
	}
	f.got = r.keep(e, name, x, body)
	if macs := r.macs; len(r.cfg.Far) > 0 {
		value := e.key.far(x, body, macs)
		for _, shelf := range r.cfg.Far {
			shelf.Put(name, value, r.ttl(x))
		}
	}
}

// keep puts an answer on the near shelf, with its head.
func (r *Responder) keep(e *errand, name string, x *answers, body []byte) kept {
	this, next := x.list[0].ThisUpdate, x.list[0].NextUpdate
	t := r.terms(this.Unix(), next.Unix(), e.state)
	head := r.head(body, this, next, t.maxAge, true)
	got := kept{thisUpdate: this.Unix(), nextUpdate: next.Unix(), producedAt: x.producedAt.Unix(), head: head, body: body}
	if r.cfg.Near != nil {
		r.cfg.Near.Put(name, e.key.near(x, head, body), r.ttl(x))
	}
	return got
}

func (r *Responder) ttl(x *answers) time.Duration {
	return x.list[0].NextUpdate.Sub(x.producedAt)
}

// ask looks for an answer on the shelves outside that need not be signed anew yet.
func (r *Responder) ask(e *errand, name string) (kept, bool) {
	if len(r.cfg.Far) == 0 {
		return kept{}, false
	}
	ctx, cancel := context.WithTimeout(context.Background(), r.cfg.Late/2) // leaves time to sign
	defer cancel()
	for _, shelf := range r.cfg.Far {
		value, ok := shelf.Get(ctx, name)
		if !ok {
			continue
		}
		x := &answers{list: []Answer{e.answers.list[0]}} // as it is now, with the times of then
		got, ok := e.key.openFar(value, e.delegate, x, r.macs)
		if !ok {
			r.counts.one(countFarRefused)
			continue
		}
		at := e.answers.producedAt
		if t := r.terms(got.thisUpdate, got.nextUpdate, e.state); !t.covers(at) || t.due(at) {
			continue
		}
		r.counts.one(countFar)
		return r.keep(e, name, x, bytes.Clone(got.body)), true
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
	defer r.waiting.Add(-1)
	if d.here { // as in fetch
		return r.sign(d, x)
	}
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
	if !r.wait(ctx, f) {
		return nil, TryLater
	}
	return f.got.body, f.refusal
}
