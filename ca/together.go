package ca

import (
	"context"
	"sync"
)

// together does the tasks of many callers in rounds: what arrives while one is under way is done by the next, so that a
// busy authority commits for many at once and an idle one at once for one. Two tasks that have a name in common are never
// in one round. It is safe for concurrent use.
type together[T any] struct {
	most  int                        // tasks in a round
	names func(T) []string           // what a task is about
	round func([]T, func(index int)) // does all tasks and calls the function once for each, when it is done, also after it returned

	mu      sync.Mutex
	waiting []waiter[T]
	working bool
}

type waiter[T any] struct {
	task T
	done chan struct{}
}

// do has a task done and returns true, or false when ctx ends first; left is then called once the task, which goes on, is
// done. It is not called for a task that no round had begun.
func (g *together[T]) do(ctx context.Context, task T, left func()) bool {
	w := waiter[T]{task, make(chan struct{})}
	g.mu.Lock()
	g.waiting = append(g.waiting, w)
	if !g.working {
		g.working = true
		go g.work()
	}
	g.mu.Unlock()
	select {
	case <-w.done:
		return true
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, o := range g.waiting {
		if o.done == w.done {
			g.waiting = append(g.waiting[:i:i], g.waiting[i+1:]...)
			return false
		}
	}
	go func() { <-w.done; left() }()
	return false
}

// work does rounds for as long as somebody waits.
func (g *together[T]) work() {
	for {
		tasks, done := g.take()
		if len(tasks) == 0 {
			return
		}
		g.round(tasks, done)
	}
}

// take takes up the tasks of a round from the front of the queue.
func (g *together[T]) take() (tasks []T, done func(int)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	taken := map[string]bool{}
	var now, later []waiter[T]
	for _, w := range g.waiting {
		names := g.names(w.task)
		fits := len(now) < g.most
		for _, n := range names {
			fits = fits && !taken[n]
			taken[n] = true // also when it has to wait: nobody overtakes it
		}
		if fits {
			now, tasks = append(now, w), append(tasks, w.task)
		} else {
			later = append(later, w)
		}
	}
	g.waiting, g.working = later, len(tasks) > 0
	return tasks, func(i int) { close(now[i].done) }
}
