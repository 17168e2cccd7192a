package verifier

import (
	"context"
	"fmt"
	"iter"
	"runtime"
	"sync"

	"github.com/openjpki/jpki"
)

// A BatchInput is one question of many. Exactly one member is set.
type BatchInput struct {
	Signature   *SignatureInput // as for [Verifier.Signature]
	Document    *DocumentInput  // as for [Verifier.Document]
	Certificate []byte          // as for [Verifier.CertificateStatus]
}

// A BatchResult is the answer to one question. If Err is nil, Document is set for a document and Result for the others.
type BatchResult struct {
	Index    int // of the input, from 0
	Result   *Result
	Document *DocumentResult
	Err      error // what the single call returns; the context's error for what was not begun
}

// OK reports whether what was asked about may be relied upon. It is the only value to decide by.
func (r BatchResult) OK() bool { return r.Err == nil && (r.Result.OK() || r.Document.OK()) }

// BatchConfig says how a batch is worked off. The zero value is good for all that needs no network.
type BatchConfig struct {
	// Workers is how many questions are worked on at once, at most 1024; 0 means one for each core. Who waits for a network
	// wants more, such as 64.
	Workers int
	// Ahead is how many more inputs may have been taken than results were given, workers included, at most 65,536; it bounds the
	// memory. 0 means four times Workers, and it is never less than Workers.
	Ahead int
}

const (
	maxWorkers = 1024
	maxAhead   = 1 << 16
)

// Batch answers many questions on all cores and yields the answers in the order of the inputs. It takes inputs as it goes, from
// the caller's goroutine, so neither list needs to exist as a whole: memory holds at most Ahead inputs with their results. An
// input that is bad, or breaks something, has an error of its own and harms no other.
//
// When ctx ends, what is being worked on ends as it does by itself, the inputs taken so far have its error, and no more are taken.
// Who stops listening ends it the same way; nothing goes on when the loop is left. An answer may have to wait for the next input:
// do not make inputs depend on answers.
//
// Certificates that come again are asked about once if Revocation is a [VerdictCache], and documents' if a [CheckerSource] has one.
func (v *Verifier) Batch(ctx context.Context, inputs iter.Seq[BatchInput], cfg BatchConfig) iter.Seq[BatchResult] {
	workers := cfg.Workers
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	workers = min(workers, maxWorkers)
	ahead := cfg.Ahead
	if ahead <= 0 {
		ahead = 4 * workers
	}
	ahead = min(max(ahead, workers), maxAhead)
	return func(yield func(BatchResult) bool) {
		ctx, cancel := context.WithCancel(ctx)
		b := &batch{v: v, work: make(chan *slot, ahead), yield: yield}
		for range workers {
			b.wait.Go(func() { b.serve(ctx) })
		}
		defer b.wait.Wait()
		defer close(b.work)
		defer cancel()
		for in := range inputs {
			for len(b.queue) > 0 && (len(b.queue) == ahead || b.queue[0].isDone()) {
				if !b.next() {
					return
				}
			}
			if ctx.Err() != nil {
				break
			}
			b.take(in)
		}
		for listens := true; listens && len(b.queue) > 0; {
			listens = b.next()
		}
	}
}

// A batch is the inputs that were taken and not yet answered, in their order.
type batch struct {
	v     *Verifier
	work  chan *slot // never full: it has room for all of queue
	wait  sync.WaitGroup
	queue []*slot
	taken int
	yield func(BatchResult) bool
}

// A slot is an input, and then its result.
type slot struct {
	in   BatchInput
	out  BatchResult
	done chan struct{}
}

func (s *slot) isDone() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

func (b *batch) take(in BatchInput) {
	s := &slot{in: in, out: BatchResult{Index: b.taken}, done: make(chan struct{})}
	b.taken++
	b.queue = append(b.queue, s)
	b.work <- s
}

// next yields the oldest answer and reports whether somebody still listens.
func (b *batch) next() bool {
	s := b.queue[0]
	b.queue[0] = nil
	b.queue = b.queue[1:]
	<-s.done
	return b.yield(s.out)
}

func (b *batch) serve(ctx context.Context) {
	for s := range b.work {
		if s.out.Err = ctx.Err(); s.out.Err == nil {
			b.v.answer(ctx, &s.in, &s.out)
		}
		s.in = BatchInput{}
		close(s.done)
	}
}

// answer answers one question. What breaks a single call would take the whole batch along.
func (v *Verifier) answer(ctx context.Context, in *BatchInput, out *BatchResult) {
	defer func() {
		if p := recover(); p != nil {
			*out = BatchResult{Index: out.Index, Err: jpki.WrapError(jpki.Internal, fmt.Errorf("panic of type %T", p), "this input breaks the verifier")}
		}
	}()
	switch {
	case in.Signature != nil && in.Document == nil && in.Certificate == nil:
		out.Result, out.Err = v.Signature(ctx, *in.Signature)
	case in.Signature == nil && in.Document != nil && in.Certificate == nil:
		out.Document, out.Err = v.Document(ctx, *in.Document)
	case in.Signature == nil && in.Document == nil && in.Certificate != nil:
		out.Result, out.Err = v.CertificateStatus(ctx, in.Certificate)
	default:
		out.Err = jpki.Errorf(jpki.Malformed, "want one of Signature, Document and Certificate")
	}
}
