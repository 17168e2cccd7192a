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
	goose      goose.Dialect
	positional bool             // parameters may be question marks
	retryable  func(error) bool // lost a race; running again may succeed
	unique     func(error) bool // violates a unique index
	gone       func(error) bool // cannot be reached or cannot write: nothing is wrong with the statement
}

var postgres = &dialect{
	goose:     goose.DialectPostgres,
	retryable: func(err error) bool { return pgCode(err, "40001", "40P01") },
	unique:    func(err error) bool { return pgCode(err, "23505") },
	gone: func(err error) bool {
		// Connection exceptions, insufficient resources, operator intervention, system errors; a standby.
		for _, class := range []string{"08", "53", "57", "58", "25006"} {
			if e, ok := errors.AsType[*pgconn.PgError](err); ok && strings.HasPrefix(e.Code, class) {
				return true
			}
		}
		_, connecting := errors.AsType[*pgconn.ConnectError](err)
		_, network := errors.AsType[net.Error](err)
		return connecting || network || pgconn.SafeToRetry(err) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, driver.ErrBadConn) ||
			errors.Is(err, sql.ErrConnDone) || errors.Is(err, net.ErrClosed)
	},
}

// SQLite has one writer at a time: a transaction takes the lock when it begins.
var sqliteDialect = &dialect{
	goose:      goose.DialectSQLite3,
	positional: true,
	retryable:  func(err error) bool { return sqliteCode(err)&0xff == sqlite3.SQLITE_BUSY },
	unique: func(err error) bool {
		c := sqliteCode(err)
		return c == sqlite3.SQLITE_CONSTRAINT_UNIQUE || c == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY
	},
	gone: func(err error) bool {
		return slices.Contains([]int{sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_NOMEM}, sqliteCode(err)&0xff)
	},
}

func pgCode(err error, codes ...string) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && slices.Contains(codes, e.Code)
}

func sqliteCode(err error) int {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		return e.Code()
	}
	return 0
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

// connect opens the writing and the reading handle of a database. What is deleted from SQLite is overwritten.
func connect(name string, create bool) (d *dialect, write, read *sql.DB, err error) {
	if path, ok := strings.CutPrefix(name, "sqlite:"); ok {
		mode := "rw"
		if create {
			mode = "rwc"
		}
		dsn := (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath()}).String() + "?mode=" + mode +
			"&_pragma=page_size(8192)&_pragma=busy_timeout(10000)&_pragma=foreign_keys(1)&_pragma=synchronous(FULL)&_pragma=secure_delete(1)"
		if write, err = sql.Open("sqlite", dsn+"&_pragma=journal_mode(WAL)&_txlock=immediate"); err != nil {
			return nil, nil, nil, err
		}
		write.SetMaxOpenConns(1)
		if read, err = sql.Open("sqlite", dsn+"&_pragma=query_only(1)"); err != nil {
			return nil, nil, nil, errors.Join(err, write.Close())
		}
		read.SetMaxOpenConns(8)
		read.SetMaxIdleConns(8)
		return sqliteDialect, write, read, nil
	}
	if strings.HasPrefix(name, "postgres://") || strings.HasPrefix(name, "postgresql://") {
		cfg, err := pgx.ParseConfig(name)
		if err != nil {
			return nil, nil, nil, errors.New("the database's URL is not one of PostgreSQL") // the cause may quote a password
		}
		db := stdlib.OpenDB(*cfg)
		db.SetMaxOpenConns(32)
		db.SetMaxIdleConns(32)
		return postgres, db, db, nil
	}
	return nil, nil, nil, fmt.Errorf("database name must begin with sqlite: or postgres://")
}
