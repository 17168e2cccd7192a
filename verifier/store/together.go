package store

import (
	"context"
	"sync"

	"github.com/openjpki/jpki"
)

// together makes writes that come at the same time share a transaction, since it is the commit that costs. Who finds nobody at
// work commits for all who wait; a group that fails is tried one by one, so that nobody fails by another's fault.
type together struct {
	mu      sync.Mutex
	waiting []*shared
	busy    bool
}

// A shared write waits for its commit.
type shared struct {
	write func(*Tx) error
	done  chan error
}

// maxTogether bounds a transaction.
const maxTogether = 256

// updateTogether is Update for short writes that conflict with nothing. When the context ends first the write may still be made.
func (s *Store) updateTogether(ctx context.Context, write func(*Tx) error) error {
	w := &shared{write, make(chan error, 1)}
	g := &s.together
	g.mu.Lock()
	g.waiting = append(g.waiting, w)
	lead := !g.busy
	g.busy = true
	g.mu.Unlock()
	if lead {
		go s.commitAll(context.WithoutCancel(ctx))
	}
	select {
	case err := <-w.done:
		return err
	case <-ctx.Done():
		return s.d.classify(ctx, ctx.Err())
	}
}

// commitAll works until nobody waits.
func (s *Store) commitAll(ctx context.Context) {
	g := &s.together
	for {
		g.mu.Lock()
		n := min(len(g.waiting), maxTogether)
		group := g.waiting[:n:n]
		g.waiting = g.waiting[n:]
		g.busy = n > 0
		g.mu.Unlock()
		if n == 0 {
			return
		}
		err := s.Update(ctx, func(tx *Tx) error {
			for _, w := range group {
				if err := w.write(tx); err != nil {
					return err
				}
			}
			return nil
		})
		for _, w := range group {
			if err != nil && n > 1 && jpki.ProblemOf(err) != jpki.Unavailable {
				w.done <- s.Update(ctx, w.write)
			} else {
				w.done <- err
			}
		}
	}
}
