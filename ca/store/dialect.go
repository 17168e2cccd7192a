package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/openjpki/jpki"
)

// A dialect holds every difference between the two engines.
type dialect struct {
	goose     goose.Dialect
	forUpdate string             // suffix of a SELECT that locks its row
	lease     string             // a SELECT that takes a lock of the connection if nobody has it; empty: there are no other machines
	pipelines bool               // a connection takes several statements before it answers the first
	snapshot  sql.IsolationLevel // in which a reader sees one state of the database
	retryable func(error) bool   // lost a race; running again may succeed
	unique    func(error) bool   // violates a unique index
	gone      func(error) bool   // cannot be reached or cannot write: nothing is wrong with the statement
	lost      func(error) bool   // the connection broke; another one may be had
}

var postgres = &dialect{
	goose:     goose.DialectPostgres,
	forUpdate: " FOR UPDATE",
	lease:     `SELECT pg_try_advisory_lock($1)`,
	pipelines: true,
	snapshot:  sql.LevelRepeatableRead,
	retryable: func(err error) bool { return pgCode(err, "40001", "40P01") },
	unique:    func(err error) bool { return pgCode(err, "23505") },
	gone: func(err error) bool {
		// Connection exceptions, insufficient resources such as a full disk, operator intervention such as a shutdown, system
		// errors; and a server that is or has become a standby.
		return pgClass(err, "08", "53", "57", "58") || pgCode(err, "25006") || connectionLost(err)
	},
	lost: func(err error) bool {
		return pgClass(err, "08") || pgCode(err, "57P01", "57P02", "57P03", "25006") || connectionLost(err)
	},
}

// SQLite has one writer at a time (a transaction takes the lock when it begins), so rows need no locks of their own,
// and every transaction sees one state.
var sqliteDialect = &dialect{
	goose:     goose.DialectSQLite3,
	forUpdate: "",
	snapshot:  sql.LevelDefault,
	retryable: func(err error) bool { return sqliteCode(err) == sqlite3.SQLITE_BUSY },
	unique: func(err error) bool {
		c := sqliteExtended(err)
		return c == sqlite3.SQLITE_CONSTRAINT_UNIQUE || c == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY
	},
	gone: func(err error) bool {
		switch sqliteCode(err) {
		case sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_NOMEM:
			return true
		}
		return false
	},
	lost: func(error) bool { return false },
}

func pgCode(err error, codes ...string) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return false
	}
	return slices.Contains(codes, e.Code)
}

func pgClass(err error, classes ...string) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && len(e.Code) == 5 && slices.Contains(classes, e.Code[:2])
}

// connectionLost reports errors that come from no server: dialling, reading and writing.
func connectionLost(err error) bool {
	_, connecting := errors.AsType[*pgconn.ConnectError](err)
	_, network := errors.AsType[net.Error](err)
	return connecting || network || pgconn.SafeToRetry(err) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, driver.ErrBadConn) ||
		errors.Is(err, sql.ErrConnDone) || errors.Is(err, net.ErrClosed)
}

// classify makes an error of the database that is nobody's fault a [jpki.Unavailable].
func (d *dialect) classify(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*jpki.Error](err); ok {
		return err
	}
	if d.gone(err) || errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return jpki.WrapError(jpki.Unavailable, err, "the database does not answer")
	}
	return err
}

func sqliteExtended(err error) int {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		return e.Code()
	}
	return 0
}

func sqliteCode(err error) int { return sqliteExtended(err) & 0xff }

// connect opens the writing and the reading handle of a database.
func connect(name string, create bool) (d *dialect, write, read *sql.DB, err error) {
	if path, ok := strings.CutPrefix(name, "sqlite:"); ok {
		mode := "rw"
		if create {
			mode = "rwc"
		}
		dsn := func(mode, extra string) string {
			return (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath()}).String() + "?mode=" + mode +
				"&_pragma=busy_timeout(10000)&_pragma=foreign_keys(1)&_pragma=synchronous(FULL)" + extra
		}
		if write, err = sql.Open("sqlite", dsn(mode, "&_pragma=journal_mode(WAL)&_txlock=immediate")); err != nil {
			return nil, nil, nil, err
		}
		write.SetMaxOpenConns(1)
		if read, err = sql.Open("sqlite", dsn(mode, "&_pragma=query_only(1)")); err != nil {
			return nil, nil, nil, errors.Join(err, write.Close())
		}
		read.SetMaxOpenConns(8)
		read.SetMaxIdleConns(8)
		return sqliteDialect, write, read, nil
	}
	if isPostgres(name) {
		cfg, err := pgx.ParseConfig(name)
		if err != nil {
			return nil, nil, nil, err
		}
		new(succession).follow(&cfg.Config)
		db := stdlib.OpenDB(*cfg)
		db.SetMaxOpenConns(32)
		db.SetMaxIdleConns(32)
		return postgres, db, db, nil
	}
	return nil, nil, nil, fmt.Errorf("database name must begin with sqlite: or postgres://")
}

func isPostgres(name string) bool {
	return strings.HasPrefix(name, "postgres://") || strings.HasPrefix(name, "postgresql://")
}
