package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// A task is what a transaction has to do: statements of one kind, and what their results mean. Tasks that do not need each
// other's results are performed together; see [Tx.perform].
type task struct {
	statements []statement
	read       func(rows) error                     // of queries: takes what one returned
	then       func(changed int64, err error) error // what it means; err is the first statement's that failed
}

type statement struct {
	query string
	args  []any
}

// rows is what *sql.Rows and pgx.Rows have in common.
type rows interface {
	scanner
	Next() bool
	Err() error
}

// perform does tasks in their order, as if each statement had been sent by itself. PostgreSQL gets all of them in one go and
// answers in one: a statement takes its locks and sees what is committed when its turn comes, as ever. It stops at the first
// that fails.
func (tx *Tx) perform(tasks ...task) error {
	run := tx.oneByOne
	if tx.conn != nil {
		run = tx.inOneGo
	}
	changed := make([]int64, len(tasks))
	failed, err := run(tasks, changed)
	for i, t := range tasks {
		var cause error
		if err != nil && i == failed {
			cause = err
		}
		if t.then != nil {
			cause = t.then(changed[i], cause)
		}
		if cause != nil {
			return cause
		}
		if err != nil && i == failed {
			return err
		}
	}
	return nil
}

// oneByOne runs statements through database/sql and says which task failed.
func (tx *Tx) oneByOne(tasks []task, changed []int64) (failed int, err error) {
	for i, t := range tasks {
		for _, s := range t.statements {
			if t.read == nil {
				n, err := tx.exec(s.query, s.args...)
				if err != nil {
					return i, err
				}
				changed[i] += n
				continue
			}
			if err := tx.query(s, t.read); err != nil {
				return i, err
			}
		}
	}
	return 0, nil
}

func (tx *Tx) query(s statement, read func(rows) error) error {
	found, err := tx.q.QueryContext(tx.ctx, s.query, s.args...)
	if err != nil {
		return err
	}
	defer func() { _ = found.Close() }()
	if err := read(found); err != nil {
		return err
	}
	return found.Err()
}

// inOneGo sends all statements before it reads the first answer. What is sent belongs to the transaction or is not sent:
// database/sql ends one whose context has ended behind our back.
func (tx *Tx) inOneGo(tasks []task, changed []int64) (failed int, err error) {
	var batch pgx.Batch
	for _, t := range tasks {
		for _, s := range t.statements {
			batch.Queue(s.query, s.args...)
			if t.read == nil {
				crashPoint("before", s.query)
			}
		}
	}
	if batch.Len() == 0 {
		return 0, nil
	}
	raw := tx.conn.Raw(func(driver any) error {
		c, ok := driver.(*stdlib.Conn)
		if !ok {
			err = fmt.Errorf("a driver's connection is a %T", driver)
			return nil
		}
		failed, err = send(tx.ctx, c.Conn(), &batch, tasks, changed)
		return nil // to database/sql an error would mean to end the connection below the transaction
	})
	if err = errors.Join(err, raw); err != nil {
		return failed, err
	}
	for _, t := range tasks {
		for _, s := range t.statements {
			if t.read == nil {
				crashPoint("after", s.query)
			}
		}
	}
	return 0, nil
}

const inTransaction = 'T' // of PostgreSQL's ReadyForQuery

func send(ctx context.Context, conn *pgx.Conn, batch *pgx.Batch, tasks []task, changed []int64) (failed int, err error) {
	if conn.IsClosed() || conn.PgConn().TxStatus() != inTransaction {
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		return 0, sql.ErrConnDone
	}
	results := conn.SendBatch(ctx, batch)
	defer func() { err = errors.Join(err, results.Close()) }()
	for i, t := range tasks {
		for range t.statements {
			if t.read == nil {
				tag, err := results.Exec()
				if err != nil {
					return i, err
				}
				changed[i] += tag.RowsAffected()
				continue
			}
			found, err := results.Query()
			if err != nil {
				return i, err
			}
			err = t.read(found)
			found.Close()
			if err = errors.Join(err, found.Err()); err != nil {
				return i, err
			}
		}
	}
	return 0, nil
}
