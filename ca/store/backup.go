package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/openjpki/jpki"
)

// tables are all there are, each behind those that it refers to. A test compares them with the schema.
var tables = []string{
	"generation", "station", "station_certificate", "used_token", "holder", "token", "intent", "certificate", "certificate_status", "status_log", "audit",
	"idempotency", "resident_event", "phone_enrolment", "acme_account", "acme_authorization", "acme_order",
	"relying_operator", "relying_tenant", "relying_user", "relying_watch", "relying_cursor", "relying_change", "relying_consent", "relying_record", "head",
}

// single are the tables whose only row the schema makes.
var single = []string{"head", "relying_cursor"}

// ordered are the tables of which the order of rows means something.
var ordered = map[string]string{"status_log": " ORDER BY seq", "audit": " ORDER BY seq"}

// A Table is the name of one and those of its columns.
type Table struct {
	Name    string
	Columns []string
}

// Position is an end of both sequences.
type Position struct {
	Audit  int64 `json:"audit"`
	Status int64 `json:"status"`
}

// Export walks a database as one snapshot sees it: begin is called with how many rows there are, table before a table's
// rows, and row for each, whose values are nil, int64, string and []byte. With after, only what the audit record and the
// status log have behind a position is walked. Nothing is held in memory but a row. A fenced database is not exported.
func (s *Store) Export(ctx context.Context, after *Position, begin func(rows int64) error, table func(Table) error, row func([]any) error) error {
	return s.View(ctx, func(tx *Tx) error {
		if _, err := tx.AuditHead(); err != nil {
			return err
		}
		type part struct {
			name, from string
			args       []any
		}
		var parts []part
		for _, name := range tables {
			parts = append(parts, part{name: name, from: " FROM " + name})
		}
		if after != nil {
			parts = []part{
				{"status_log", " FROM status_log WHERE seq > $1", []any{after.Status}},
				{"audit", " FROM audit WHERE seq > $1", []any{after.Audit}},
			}
		}
		var total int64
		for _, p := range parts {
			var n int64
			if err := tx.q.QueryRowContext(ctx, `SELECT COUNT(*)`+p.from, p.args...).Scan(&n); err != nil {
				return fmt.Errorf("count %s: %w", p.name, err)
			}
			total += n
		}
		if err := begin(total); err != nil {
			return err
		}
		for _, p := range parts {
			if err := tx.export(p.name, p.from, p.args, table, row); err != nil {
				return fmt.Errorf("export %s: %w", p.name, err)
			}
		}
		return nil
	})
}

func (tx *Tx) export(name, from string, args []any, table func(Table) error, row func([]any) error) error {
	found, err := tx.q.QueryContext(tx.ctx, `SELECT *`+from+ordered[name], args...)
	if err != nil {
		return err
	}
	defer func() { _ = found.Close() }()
	columns, err := found.Columns()
	if err != nil {
		return err
	}
	if err := table(Table{name, columns}); err != nil {
		return err
	}
	values, into := make([]any, len(columns)), make([]any, len(columns))
	for i := range values {
		into[i] = &values[i]
	}
	for found.Next() {
		if err := found.Scan(into...); err != nil {
			return err
		}
		for i, v := range values {
			switch v := v.(type) {
			case nil, int64, string, []byte:
			case int32: // of PostgreSQL's INTEGER
				values[i] = int64(v)
			default:
				return fmt.Errorf("column %s is a %T", columns[i], v)
			}
		}
		if err := row(values); err != nil {
			return err
		}
	}
	return found.Err()
}

// An Import writes what [Store.Export] has read.
type Import struct {
	tx      *Tx
	table   string
	head    string
	columns int
	rows    [][]any
	done    []string
}

// Import fills an empty database, all of it or nothing, and puts a fence around it: f gives it the tables in the order of
// the export and returns as whose restoration the audit record shall have it. The schema must be the same.
func (s *Store) Import(ctx context.Context, now time.Time, by jpki.Actor, f func(*Import) (subject string, err error)) error {
	_, _, err := s.once(ctx, func(tx *Tx) error {
		for _, name := range tables {
			var n int
			if err := tx.q.QueryRowContext(ctx, `SELECT COUNT(*) FROM (SELECT 1 FROM `+name+` LIMIT 2) AS sample`).Scan(&n); err != nil {
				return fmt.Errorf("look into %s: %w", name, err)
			}
			if n > 0 && !slices.Contains(single, name) {
				return jpki.Errorf(jpki.Conflict, "the database is not empty: table %s has rows", name)
			}
		}
		for _, name := range single {
			if _, err := tx.exec(`DELETE FROM ` + name); err != nil {
				return err
			}
		}
		i := &Import{tx: tx}
		subject, err := f(i)
		if err != nil {
			return err
		}
		if err := i.flush(); err != nil {
			return err
		}
		if !slices.Equal(i.done, tables) {
			return errors.New("the tables to import are not those of the schema")
		}
		return tx.raiseFence(now, by, subject)
	})
	return s.d.classify(ctx, err)
}

// Table begins a table.
func (i *Import) Table(t Table) error {
	if err := i.flush(); err != nil {
		return err
	}
	if !slices.Contains(tables, t.Name) || slices.Contains(i.done, t.Name) {
		return fmt.Errorf("table %q is unknown, or there twice", t.Name)
	}
	columns, err := i.tx.columns(t.Name)
	if err != nil {
		return err
	}
	if !slices.Equal(slices.Sorted(slices.Values(columns)), slices.Sorted(slices.Values(t.Columns))) { // from here on they are names of ours
		return fmt.Errorf("table %s has other columns here: restore with the program that made the backup, and migrate then", t.Name)
	}
	i.table, i.columns, i.done = t.Name, len(t.Columns), append(i.done, t.Name)
	i.head = `INSERT INTO ` + t.Name + ` (` + strings.Join(t.Columns, ", ") + `)`
	return nil
}

func (tx *Tx) columns(table string) ([]string, error) {
	found, err := tx.q.QueryContext(tx.ctx, `SELECT * FROM `+table+` LIMIT 0`)
	if err != nil {
		return nil, err
	}
	defer func() { _ = found.Close() }()
	columns, err := found.Columns()
	return columns, errors.Join(err, found.Err())
}

// Row adds a row to the table begun last. The values are kept until the import has ended or the next table begins.
func (i *Import) Row(values []any) error {
	if i.table == "" || len(values) != i.columns {
		return errors.New("a row does not fit its table")
	}
	i.rows = append(i.rows, values)
	if len(i.rows) < rowSizes[0] {
		return nil
	}
	return i.flush()
}

func (i *Import) flush() error {
	rows := i.rows
	i.rows = nil
	return i.tx.perform(insert(i.head, "", rows, as("write "+i.table)))
}
