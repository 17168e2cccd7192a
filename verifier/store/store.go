// Package store reads and writes everything the verifier's API remembers of the organisations that use it.
//
// A [Store] is one database, SQLite or PostgreSQL, under one SQL text: tenants, their tokens, evidence, idempotency keys and
// uses of certificates. It shares nothing with the authority's database. What tells of persons is sealed under a key of the tenant, which is
// sealed under the master key; without either it is noise. It never asks for the time.
// Problems of the tenant are jpki's; of the database, [jpki.Unavailable]. A Store is safe for concurrent use; a Tx belongs to
// its closure.
// Start at Open and Store.Update.
package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/pressly/goose/v3"

	"github.com/openjpki/jpki"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Config is what [Open] and [Create] want.
type Config struct {
	Database  string // required: "sqlite:PATH" or a "postgres://…" URL
	MasterKey []byte // required: 32 octets, under which tenants' keys are sealed
	// PreviousMasterKey also opens keys that are sealed under it, until [Store.RotateMaster] has sealed them anew; nil for none.
	PreviousMasterKey []byte
	Rand              io.Reader // for keys and tokens; nil means crypto/rand; must be safe for concurrent use
}

// A Store is the verifier's database.
type Store struct {
	d           *dialect
	write, read *sql.DB
	master      key
	previous    key // nil if there is none
	digests     key // for keyed digests that are the same for all tenants
	rand        io.Reader
	together    together
}

// Open connects to a database whose schema is exactly the one this program knows, and whose tenants' keys the master key
// opens.
func Open(ctx context.Context, cfg Config) (*Store, error) { return open(ctx, cfg, false) }

// Create makes the schema, or brings an older one forward, and then does what [Open] does.
func Create(ctx context.Context, cfg Config) (*Store, error) { return open(ctx, cfg, true) }

func open(ctx context.Context, cfg Config, create bool) (*Store, error) {
	if err := checkKeys(cfg); err != nil {
		return nil, err
	}
	d, write, read, err := connect(cfg.Database, create)
	if err != nil {
		return nil, fmt.Errorf("verifier's store: Database: %w", err)
	}
	s := &Store{d: d, write: write, read: read, master: key(cfg.MasterKey), previous: key(cfg.PreviousMasterKey), rand: cfg.Rand}
	if s.rand == nil {
		s.rand = rand.Reader
	}
	if err := s.migrate(ctx, create); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if err := s.openKeys(ctx); err != nil {
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
func (s *Store) Close() error {
	if s.read == s.write {
		return s.write.Close()
	}
	return errors.Join(s.write.Close(), s.read.Close())
}

// attempts bounds how often a transaction that lost a race is run again.
const attempts = 10

// Update runs f as one transaction and commits it when f returns nil. f may run several times, so it must not touch
// anything but the Tx. Losing every attempt to others is a [jpki.Conflict]. When the database cannot be reached or
// cannot write it is [jpki.Unavailable], which leaves open whether the commit took place.
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
		if err = s.once(ctx, s.write, nil, f); err == nil {
			return nil
		}
		if !s.d.retryable(err) {
			return s.d.classify(ctx, err)
		}
	}
	return jpki.WrapError(jpki.Conflict, err, "too many changes at the same time")
}

// View runs f over one transaction that changes nothing.
func (s *Store) View(ctx context.Context, f func(*Tx) error) error {
	return s.d.classify(ctx, s.once(ctx, s.read, &sql.TxOptions{ReadOnly: true}, f))
}

func (s *Store) once(ctx context.Context, db *sql.DB, opt *sql.TxOptions, f func(*Tx) error) error {
	tx, err := db.BeginTx(ctx, opt)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // does nothing after a commit
	if err := f(&Tx{ctx: ctx, q: tx, s: s}); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// A Tx is one transaction. Its methods are the tables' queries.
type Tx struct {
	ctx context.Context // of the transaction, which ends before the closure's caller goes on
	q   *sql.Tx
	s   *Store
}

func (tx *Tx) exec(query string, args ...any) (int64, error) {
	res, err := tx.q.ExecContext(tx.ctx, query, args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// queryAll reads every row of a query.
func queryAll[T any](tx *Tx, scan func(scanner) (T, error), query string, args ...any) ([]T, error) {
	rows, err := tx.q.QueryContext(tx.ctx, query, args...)
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
func notFound(err error, p jpki.Problem, detail string) error {
	if errors.Is(err, sql.ErrNoRows) {
		return jpki.Errorf(p, "%s", detail)
	}
	return err
}

func micros(t time.Time) int64 { return t.UnixMicro() }

func fromMicros(us int64) time.Time { return time.UnixMicro(us).UTC() }

// optional makes a zero time NULL.
func optional(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return micros(t)
}

func fromOptional(us sql.NullInt64) time.Time {
	if !us.Valid {
		return time.Time{}
	}
	return fromMicros(us.Int64)
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}
