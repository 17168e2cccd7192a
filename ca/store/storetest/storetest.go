// Package storetest gives tests of other packages real databases.
//
// [OnBoth] runs a test on a fresh SQLite and on a fresh PostgreSQL database. It is for tests only; the import test keeps
// it out of programs. The PostgreSQL server is the one that JPKI_TEST_POSTGRES names (deploy/test/with-postgres.sh).
package storetest

import (
	"database/sql"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib" // database/sql driver "pgx"

	"github.com/openjpki/jpki/ca/store"
)

// OnBoth runs f on SQLite and on PostgreSQL, each time on a fresh database.
func OnBoth(t *testing.T, f func(t *testing.T, s *store.Store)) {
	EachEngine(t, func(t *testing.T, fresh func(*testing.T) string) { f(t, Create(t, fresh(t))) })
}

// EachEngine runs f with either engine; fresh returns the name of a database that does not exist or is empty, as often as
// it is called.
func EachEngine(t *testing.T, f func(t *testing.T, fresh func(*testing.T) string)) {
	t.Run("sqlite", func(t *testing.T) {
		f(t, func(t *testing.T) string { return "sqlite:" + filepath.Join(t.TempDir(), "ca db.sqlite") })
	})
	t.Run("postgres", func(t *testing.T) { f(t, Postgres) })
}

// EachCopied runs f with either engine and a fresh database; once that is closed, again returns the name of a database that
// holds what it then held, as often as it is called, one after the other.
func EachCopied(t *testing.T, f func(t *testing.T, database string, again func(*testing.T) string)) {
	t.Run("sqlite", func(t *testing.T) {
		original := filepath.Join(t.TempDir(), "ca.sqlite")
		f(t, "sqlite:"+original, func(t *testing.T) string {
			t.Helper()
			content, err := os.ReadFile(original)
			if err != nil {
				t.Fatal(err)
			}
			copied := filepath.Join(t.TempDir(), "ca.sqlite")
			if err := os.WriteFile(copied, content, 0o600); err != nil {
				t.Fatal(err)
			}
			return "sqlite:" + copied
		})
	})
	t.Run("postgres", func(t *testing.T) {
		original := Postgres(t)
		f(t, original, func(t *testing.T) string { t.Helper(); rewind(t, original); return original })
	})
}

// rewind puts every table of a PostgreSQL database back to what it held when rewind was called first. That is much quicker
// than a database made anew: dropping one waits for a checkpoint.
func rewind(t *testing.T, database string) {
	t.Helper()
	run(t, database, `DO $$
DECLARE
	known boolean := EXISTS (SELECT FROM pg_namespace WHERE nspname = 'original');
	name text;
BEGIN
	IF NOT known THEN
		CREATE SCHEMA original;
	END IF;
	SET LOCAL session_replication_role = replica; -- no foreign keys
	FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' LOOP
		IF known THEN
			EXECUTE format('DELETE FROM public.%1$I; INSERT INTO public.%1$I SELECT * FROM original.%1$I', name);
		ELSE
			EXECUTE format('CREATE TABLE original.%1$I AS TABLE public.%1$I', name);
		END IF;
	END LOOP;
END $$`)
}

// Create makes a database and closes it when the test ends.
func Create(t *testing.T, name string) *store.Store {
	t.Helper()
	s, err := store.Create(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// Open connects to a database that [Create] has made, and closes it when the test ends.
func Open(t *testing.T, name string) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// Postgres makes an empty PostgreSQL database, dropped when the test ends, and returns its URL. Without a server the test
// is skipped, or fails where JPKI_TEST_REQUIRE is 1.
func Postgres(t *testing.T) string {
	t.Helper()
	server := os.Getenv("JPKI_TEST_POSTGRES")
	if server == "" {
		if os.Getenv("JPKI_TEST_REQUIRE") == "1" {
			t.Fatal("JPKI_TEST_POSTGRES is not set")
		}
		t.Skip("JPKI_TEST_POSTGRES is not set; deploy/test/with-postgres.sh sets it")
	}
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("t%d", rand.Uint64())
	run(t, server, "CREATE DATABASE "+name)
	t.Cleanup(func() { run(t, server, "DROP DATABASE "+name+" WITH (FORCE)") })
	u.Path = "/" + name
	return u.String()
}

// Exec runs statements on a database behind the store's back.
func Exec(t *testing.T, database string, statements ...string) {
	t.Helper()
	for _, s := range statements {
		run(t, database, s)
	}
}

func run(t *testing.T, server, statement string) {
	t.Helper()
	driver := "pgx"
	if path, ok := strings.CutPrefix(server, "sqlite:"); ok {
		driver, server = "sqlite", path
	}
	db, err := sql.Open(driver, server)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if _, err := db.Exec(statement); err != nil {
		t.Fatal(err)
	}
}
