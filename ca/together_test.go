package ca

import (
	"context"
	"slices"
	"testing"
)

// A rounds lets a test see and hold the rounds of a together, whose tasks are lists of names.
type rounds struct {
	together[[]string]
	begun chan [][]string
	end   chan struct{}
}

func newRounds() *rounds {
	r := &rounds{begun: make(chan [][]string), end: make(chan struct{})}
	r.most = 3
	r.names = func(task []string) []string { return task }
	r.round = func(tasks [][]string, done func(int)) {
		r.begun <- tasks
		<-r.end
		for i := range tasks {
			done(i)
		}
	}
	return r
}

// queued returns once n tasks wait.
func (r *rounds) queued(n int) {
	for {
		r.mu.Lock()
		have := len(r.waiting)
		r.mu.Unlock()
		if have == n {
			return
		}
	}
}

func TestTogether(t *testing.T) {
	r := newRounds()
	results := make(chan bool)
	ask := func(ctx context.Context, left func(), names ...string) {
		go func() { results <- r.do(ctx, names, left) }()
	}
	never := func() { t.Error("told of a task that nobody left") }
	ctx := t.Context()
	ask(ctx, never, "a")
	if got := <-r.begun; len(got) != 1 {
		t.Fatalf("the first round has %v", got)
	}
	// What comes meanwhile is in rounds of three; no two that share a name are in one, and nobody overtakes.
	for i, names := range [][]string{{"b", "c"}, {"c", "d"}, {"d"}, {"e"}, {"f"}, {"g"}} {
		ask(ctx, never, names...)
		r.queued(i + 1)
	}
	for _, want := range [][][]string{{{"b", "c"}, {"e"}, {"f"}}, {{"c", "d"}, {"g"}}, {{"d"}}} {
		r.end <- struct{}{}
		if got := <-r.begun; !slices.EqualFunc(got, want, slices.Equal[[]string]) {
			t.Errorf("a round has %v, want %v", got, want)
		}
	}
	r.end <- struct{}{}
	for range 7 {
		if !<-results {
			t.Error("a task was left")
		}
	}

	// Who leaves before a round begins is forgotten; who leaves later is told at the end.
	first, leaveFirst := context.WithCancel(ctx)
	second, leaveSecond := context.WithCancel(ctx)
	told := make(chan struct{})
	ask(first, func() { close(told) }, "a")
	<-r.begun
	ask(second, never, "b")
	r.queued(1)
	leaveSecond()
	if <-results {
		t.Error("the second was done")
	}
	leaveFirst()
	if <-results {
		t.Error("the first was done")
	}
	select {
	case <-told:
		t.Error("told before the end")
	default:
	}
	r.end <- struct{}{}
	<-told
	r.queued(0)
}
