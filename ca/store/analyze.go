package store

import (
	"context"
	"fmt"
	"sync"
)

// Statistics tells PostgreSQL's planner of rows that came in bulk. Until its own autovacuum looks at a table, a minute or more
// later, it plans for the few rows that were there, and reads the whole of a table that has grown. The zero value is ready.
type Statistics struct {
	mu      sync.Mutex
	written int // since the last ANALYZE
	next    int // how many more rows call for one
}

// An ANALYZE is due after so many rows, and then after ten times as many as the time before: what misleads the planner is
// growth by an order of magnitude. Later on autovacuum keeps up.
const (
	firstAnalyze = 1_000
	lastAnalyze  = 100_000
)

// registerTables are what register events write to and look into.
const registerTables = "holder, resident_event, certificate, certificate_status, status_log, token, audit"

// Wrote counts rows that register events have written to s, and has the tables analysed when many have come since the last
// time; it reports whether they were. On SQLite, whose plans do not depend on numbers here, it does nothing.
func (t *Statistics) Wrote(ctx context.Context, s *Store, rows int) (analyzed bool, err error) {
	if s.d != postgres || !t.due(rows) {
		return false, nil
	}
	if err := s.analyze(ctx, registerTables); err != nil {
		return false, err
	}
	return true, nil
}

// Analyze tells PostgreSQL's planner what certificates there are, before many of them are looked for. It takes about a second
// however many there are. On SQLite it does nothing.
func (s *Store) Analyze(ctx context.Context) error {
	if s.d != postgres {
		return nil
	}
	return s.analyze(ctx, "certificate, certificate_status, intent, token")
}

func (s *Store) analyze(ctx context.Context, tables string) error {
	if _, err := s.write.ExecContext(ctx, "ANALYZE "+tables); err != nil {
		return s.d.classify(ctx, fmt.Errorf("analyse tables: %w", err))
	}
	return nil
}

func (t *Statistics) due(rows int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.next == 0 {
		t.next = firstAnalyze
	}
	if t.written += rows; t.written < t.next {
		return false
	}
	t.written, t.next = 0, min(10*t.next, lastAnalyze)
	return true
}
