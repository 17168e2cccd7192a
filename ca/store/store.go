// Package store reads and writes everything the authority remembers.
//
// A [Store] is one database, SQLite or PostgreSQL, under one SQL text. [Store.Update] runs one command as one
// transaction over a [Tx], whose methods stand one file a table; what a transaction appends to the audit record and
// to the status log is numbered under a lock as its last act, so both have no gaps and become visible in order.
// A [StatusReader] is the part that the public zone may see. The package decides nothing: rules are package ca's.
// It never asks for the time. Store and StatusReader are safe for concurrent use; a Tx belongs to its closure.
// Start at Open and Store.Update.
package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"github.com/pressly/goose/v3"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/audit"
)

//go:embed migrations/*.sql
var migrations embed.FS

// A Store is the authority's database.
type Store struct {
	StatusReader
	write *sql.DB

	mu      sync.Mutex
	waiters []chan struct{}
}

// Open connects to a database whose schema is exactly the one this program knows. The name is
// "sqlite:PATH" or a "postgres://…" URL.
func Open(ctx context.Context, name string) (*Store, error) { return open(ctx, name, false) }

// Create makes the schema, or brings an older one forward, and then does what [Open] does.
func Create(ctx context.Context, name string) (*Store, error) { return open(ctx, name, true) }

func open(ctx context.Context, name string, create bool) (*Store, error) {
	d, write, read, err := connect(name, create)
	if err != nil {
		return nil, err
	}
	s := &Store{StatusReader: StatusReader{db: read, d: d}, write: write}
	if err := s.migrate(ctx, create); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Store) migrate(ctx context.Context, create bool) error {
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(s.d.goose, s.write, dir)
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	if create {
		if _, err := p.Up(ctx); err != nil {
			return fmt.Errorf("migrate schema: %w", err)
		}
	}
	have, want, err := p.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("read schema version: %w", err)
	}
	if have != want {
		return fmt.Errorf("database has schema version %d, this program needs %d", have, want)
	}
	return nil
}

// Close closes all connections.
func (s *Store) Close() error { return errors.Join(s.write.Close(), s.db.Close()) }

// attempts bounds how often a transaction that lost a race is run again.
const attempts = 10

// Update runs f as one transaction and commits it when f returns nil. f may run several times, so it must not touch
// anything but the Tx. Losing every attempt to others is a [jpki.Conflict]. When the database cannot be reached or
// cannot write it is [jpki.Unavailable], which leaves open whether the commit took place if it had been sent.
func (s *Store) Update(ctx context.Context, f func(*Tx) error) error {
	var err error
	for try := range attempts {
		if try > 0 {
			select {
			case <-ctx.Done():
				return s.d.classify(ctx, ctx.Err())
			case <-time.After(time.Duration(try*try) * time.Millisecond):
			}
		}
		var appended, sent bool
		appended, sent, err = s.once(ctx, f)
		if err == nil {
			if appended {
				s.wake()
			}
			return nil
		}
		// A transaction whose commit was not sent has left nothing, so another connection may try it again.
		if !s.d.retryable(err) && (sent || ctx.Err() != nil || !s.d.lost(err)) {
			return s.d.classify(ctx, err)
		}
	}
	if s.d.lost(err) {
		return s.d.classify(ctx, err)
	}
	return jpki.WrapError(jpki.Conflict, err, "too many changes at the same time")
}

func (s *Store) once(ctx context.Context, f func(*Tx) error) (appended, sent bool, err error) {
	conn, err := s.write.Conn(ctx)
	if err != nil {
		return false, false, fmt.Errorf("begin: %w", err)
	}
	defer func() { _ = conn.Close() }() // gives it back
	sqlTx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return false, false, fmt.Errorf("begin: %w", err)
	}
	defer func() { _ = sqlTx.Rollback() }() // does nothing after a commit
	tx := &Tx{ctx: ctx, q: sqlTx, d: s.d}
	if s.d.pipelines {
		tx.conn = conn
	}
	if err := f(tx); err != nil {
		return false, false, err
	}
	if err := tx.flush(); err != nil {
		return false, false, err
	}
	crashPoint("before", "COMMIT")
	if err := sqlTx.Commit(); err != nil {
		return false, true, fmt.Errorf("commit: %w", err)
	}
	crashPoint("after", "COMMIT")
	return len(tx.changes) > 0, true, nil
}

// View runs f over a consistent snapshot and changes nothing.
func (s *Store) View(ctx context.Context, f func(*Tx) error) error {
	var sqlTx *sql.Tx
	var err error
	for range attempts { // a connection may have died in the pool
		if sqlTx, err = s.db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true, Isolation: s.d.snapshot}); err == nil || ctx.Err() != nil || !s.d.lost(err) {
			break
		}
	}
	if err != nil {
		return s.d.classify(ctx, fmt.Errorf("begin: %w", err))
	}
	defer func() { _ = sqlTx.Rollback() }()
	return s.d.classify(ctx, f(&Tx{ctx: ctx, q: sqlTx, d: s.d, readOnly: true}))
}

// Changes returns a channel that receives a value after a commit of this process has appended to the status log.
// Several commits may share one value; commits of other processes are not announced, so followers also poll.
func (s *Store) Changes() <-chan struct{} {
	c := make(chan struct{}, 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiters = append(s.waiters, c)
	return c
}

func (s *Store) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.waiters {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// querier is what *sql.Tx and *sql.DB have in common here.
type querier interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// A Tx is one transaction. Its methods are the tables' queries.
type Tx struct {
	ctx      context.Context // of the transaction, which ends before the closure's caller goes on
	q        querier
	conn     *sql.Conn // under q, where statements are sent together; see perform
	d        *dialect
	readOnly bool
	entries  []audit.Entry
	changes  []jpki.StatusChange
	ahead    *ahead // see ReadAhead; nil for most
	fence    fenceState
}

func (tx *Tx) exec(query string, args ...any) (int64, error) {
	crashPoint("before", query)
	res, err := tx.q.ExecContext(tx.ctx, query, args...)
	if err != nil {
		return 0, err
	}
	crashPoint("after", query)
	return res.RowsAffected()
}

// flush numbers and writes what the transaction appends. The lock on the head is taken here, last, so that it is held
// only from here to the commit.
func (tx *Tx) flush() error {
	last := tx.pending()
	if len(tx.entries) == 0 && len(tx.changes) == 0 && tx.fence != lifting {
		return tx.perform(last...)
	}
	var head audit.Head
	var statusSeq int64
	if err := tx.perform(append(last, tx.lockHead(&head, &statusSeq))...); err != nil {
		return err
	}
	for i, e := range tx.entries {
		tx.entries[i], head = head.Append(e)
	}
	for i := range tx.changes {
		statusSeq++
		tx.changes[i].Seq = statusSeq
	}
	hash := head.Hash.String()
	if tx.fence == raising || tx.fence == inside {
		hash = fencedHash
	}
	return tx.perform(insertAudit(tx.entries), insertStatusChanges(tx.changes), task{
		statements: []statement{{`UPDATE head SET audit_seq = $1, audit_hash = $2, status_seq = $3 WHERE id = 1`, []any{head.Seq, hash, statusSeq}}},
		then:       as("advance head"),
	})
}

func (tx *Tx) lockHead(head *audit.Head, statusSeq *int64) task {
	found, fenced := false, false
	return task{
		statements: []statement{{`SELECT audit_seq, audit_hash, status_seq FROM head WHERE id = 1` + tx.d.forUpdate, nil}},
		read: func(r rows) (err error) {
			for r.Next() {
				var hash string
				if err := r.Scan(&head.Seq, &hash, statusSeq); err != nil {
					return err
				}
				if hash == fencedHash {
					if tx.fence != inside && tx.fence != lifting {
						return errFenced()
					}
					fenced = true
				} else if head.Hash, err = audit.ParseHash(hash); err != nil {
					return err
				}
				found = true
			}
			return nil
		},
		then: func(_ int64, err error) error {
			if err == nil && !found {
				err = sql.ErrNoRows
			}
			if err == nil && fenced {
				*head, err = tx.newestEntry()
			}
			return as("lock head")(0, err)
		},
	}
}

// queryAll reads every row of a query.
func queryAll[T any](ctx context.Context, q querier, scan func(scanner) (T, error), query string, args ...any) ([]T, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var out []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, rows.Err()
}

type scanner interface{ Scan(dest ...any) error }

// notFound turns "no rows" into the given problem.
func notFound(err error, p jpki.Problem) error {
	if errors.Is(err, sql.ErrNoRows) {
		return jpki.Errorf(p, "")
	}
	return err
}

func micros(t time.Time) int64 { return t.UnixMicro() }

func fromMicros(us int64) time.Time { return time.UnixMicro(us).UTC() }

func optionalMicros(t *time.Time) any {
	if t == nil {
		return nil
	}
	return micros(*t)
}

func fromOptional(us sql.NullInt64) *time.Time {
	if !us.Valid {
		return nil
	}
	t := fromMicros(us.Int64)
	return &t
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}
