package store

import (
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	_ "github.com/jackc/pgx/v5/stdlib" // database/sql driver "pgx"
	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// A dialect holds every difference between the two engines.
type dialect struct {
	goose     goose.Dialect
	forUpdate string             // suffix of a SELECT that locks its row
	snapshot  sql.IsolationLevel // in which a reader sees one state of the database
	retryable func(error) bool   // lost a race; running again may succeed
	unique    func(error) bool   // violates a unique index
}

var postgres = &dialect{
	goose:     goose.DialectPostgres,
	forUpdate: " FOR UPDATE",
	snapshot:  sql.LevelRepeatableRead,
	retryable: func(err error) bool { return pgCode(err, "40001", "40P01") },
	unique:    func(err error) bool { return pgCode(err, "23505") },
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
}

func pgCode(err error, codes ...string) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return false
	}
	return slices.Contains(codes, e.Code)
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
	if strings.HasPrefix(name, "postgres://") || strings.HasPrefix(name, "postgresql://") {
		db, err := sql.Open("pgx", name)
		if err != nil {
			return nil, nil, nil, err
		}
		db.SetMaxOpenConns(32)
		db.SetMaxIdleConns(32)
		return postgres, db, db, nil
	}
	return nil, nil, nil, fmt.Errorf("database name must begin with sqlite: or postgres://")
}
