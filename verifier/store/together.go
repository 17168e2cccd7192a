package store

import (
	"context"
	"fmt"
	"strconv"
	"sync"

	"github.com/openjpki/jpki"
)

// together makes records that come at the same time share a transaction, since it is the commit that costs. Who finds nobody
// at work commits for all who wait; a group that fails is tried one by one, so that nobody fails by another's fault.
type together struct {
	mu      sync.Mutex
	waiting []*shared
	busy    bool
}

// shared are somebody's rows on their way into a transaction with others'.
type shared struct {
	evidence, uses, reports [][]any
	done                    chan error
}

// maxTogether bounds how many share a transaction.
const maxTogether = 256

// addTogether returns when the rows are committed. When the context ends first they may still be.
func (s *Store) addTogether(ctx context.Context, evidence, uses, reports [][]any) error {
	w := &shared{evidence, uses, reports, make(chan error, 1)}
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
		err := s.add(ctx, group)
		for _, w := range group {
			if err != nil && n > 1 && jpki.ProblemOf(err) != jpki.Unavailable {
				w.done <- s.add(ctx, []*shared{w})
			} else {
				w.done <- err
			}
		}
	}
}

func (s *Store) add(ctx context.Context, group []*shared) error {
	var evidence, uses, reports [][]any
	for _, w := range group {
		evidence, uses, reports = append(evidence, w.evidence...), append(uses, w.uses...), append(reports, w.reports...)
	}
	return s.Update(ctx, func(tx *Tx) error {
		if err := tx.insertRows(`evidence (id, tenant, user_mac, sealed, created_at, delete_after)`, evidence); err != nil {
			return fmt.Errorf("keep evidence: %w", err)
		}
		if err := tx.insertRows(`certificate_use (id, certificate_mac, tenant, action, outcome, used_at)`, uses); err != nil {
			return fmt.Errorf("record use: %w", err)
		}
		if err := tx.insertRows(intoReports, reports); err != nil {
			return fmt.Errorf("put report of use aside: %w", err)
		}
		return nil
	})
}

// insertRows inserts up to 64 rows a statement. Numbered parameters are named ones to SQLite, which looks each up among all.
func (tx *Tx) insertRows(into string, rows [][]any) error {
	for len(rows) > 0 {
		n := min(len(rows), maxRows)
		args := make([]any, 0, n*len(rows[0]))
		for _, row := range rows[:n] {
			args = append(args, row...)
		}
		if _, err := tx.exec(insertStatement(into, len(rows[0]), n, tx.s.d.positional), args...); err != nil {
			return err
		}
		rows = rows[n:]
	}
	return nil
}

const maxRows = 64

func insertStatement(into string, columns, rows int, positional bool) string {
	b := make([]byte, 0, 64+len(into)+rows*columns*5)
	b = append(append(b, "INSERT INTO "+into...), " VALUES "...)
	for i := range rows * columns {
		switch {
		case i == 0:
			b = append(b, '(')
		case i%columns == 0:
			b = append(b, "),("...)
		default:
			b = append(b, ',')
		}
		if positional {
			b = append(b, '?')
		} else {
			b = strconv.AppendInt(append(b, '$'), int64(i+1), 10)
		}
	}
	return string(append(b, ')'))
}
