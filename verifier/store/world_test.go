package store_test

import (
	"bytes"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // database/sql driver "pgx"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/verifier/store"
)

var t0 = time.Date(2026, 11, 24, 3, 0, 0, 0, time.UTC)

const (
	bank    jpki.CorporateNumber = "5835678256246"
	telecom jpki.CorporateNumber = "8700110005901"
)

var master = bytes.Repeat([]byte{7}, 32)

// onBoth runs f on SQLite and on PostgreSQL, each time on a fresh database with two tenants.
func onBoth(t *testing.T, f func(t *testing.T, s *store.Store, database string)) {
	run := func(t *testing.T, database string) {
		s, err := store.Create(t.Context(), store.Config{Database: database, MasterKey: master})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		for id, name := range map[jpki.CorporateNumber]string{bank: "bank", telecom: "telecom"} {
			if err := s.AddTenant(t.Context(), store.Tenant{ID: id, Name: name, RetentionDays: 30}, t0); err != nil {
				t.Fatal(err)
			}
		}
		f(t, s, database)
	}
	t.Run("sqlite", func(t *testing.T) { run(t, "sqlite:"+filepath.Join(t.TempDir(), "verifier db.sqlite")) })
	t.Run("postgres", func(t *testing.T) { run(t, postgres(t)) })
}

// postgres makes an empty database, dropped when the test ends, on the server that deploy/test/with-postgres.sh starts.
func postgres(t *testing.T) string {
	t.Helper()
	server := os.Getenv("JPKI_TEST_POSTGRES")
	if server == "" {
		if os.Getenv("JPKI_TEST_REQUIRE") == "1" {
			t.Fatal("JPKI_TEST_POSTGRES is not set")
		}
		t.Skip("JPKI_TEST_POSTGRES is not set; deploy/test/with-postgres.sh sets it")
	}
	exec := func(statement string) {
		t.Helper()
		db, err := sql.Open("pgx", server)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = db.Close() }()
		if _, err := db.Exec(statement); err != nil {
			t.Fatal(err)
		}
	}
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("v%d", rand.Uint64())
	exec("CREATE DATABASE " + name)
	t.Cleanup(func() { exec("DROP DATABASE " + name + " WITH (FORCE)") })
	u.Path = "/" + name
	return u.String()
}

// wantProblem fails unless an error is about p; "" means none.
func wantProblem(t *testing.T, err error, p jpki.Problem) {
	t.Helper()
	if (err == nil) != (p == "") || err != nil && jpki.ProblemOf(err) != p {
		t.Errorf("%v, want %q", err, p)
	}
}
