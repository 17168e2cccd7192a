package c14n

import "fmt"

// Work is what may still be spent on writing and selecting. Sets that share it are bounded together; one without is bounded for each
// Write, Filter, Nodes or Pick alone. It must not be used by several goroutines at once.
type Work struct {
	left, limit int
	room        room // of the last writer
}

// A room is what one writer leaves to the next, empty.
type room struct {
	buf   []byte
	now   map[string]string
	undo  []binding
	open  []opened
	decls []decl
	attrs []attr
}

// NewWork returns what Limits.Work allows.
func NewWork(l Limits) *Work {
	n := l.orDefault().Work
	return &Work{left: n, limit: n}
}

// Spend takes n steps, or reports that they are beyond the limit.
func (w *Work) Spend(n int) error {
	if w.left -= n; w.left < 0 {
		return fmt.Errorf("%w: more than %d steps", ErrLimit, w.limit)
	}
	return nil
}

// Within returns the set with its work bounded by w.
func (s Set) Within(w *Work) Set {
	s.work = w
	return s
}

// budget returns what bounds the next operation on the set.
func (s Set) budget() *Work {
	if s.work != nil {
		return s.work
	}
	return NewWork(s.doc.limits)
}
