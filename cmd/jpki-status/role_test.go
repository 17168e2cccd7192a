package main

import (
	"context"
	"database/sql"
	"net/url"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	xocsp "golang.org/x/crypto/ocsp"

	"github.com/openjpki/jpki/ca/store/storetest"
)

// role makes a database role as docs/database.md says, drops it when the test ends, and has the server log in as it.
func (w *world) role(name string) {
	w.t.Helper()
	t, ok := w.t.(*testing.T)
	if !ok {
		w.t.Fatal("for tests only")
	}
	u, err := url.Parse(w.database)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range documentedRole(t) {
		s = strings.ReplaceAll(strings.ReplaceAll(s, "jpki_status", name), "DATABASE ca ", "DATABASE "+strings.TrimPrefix(u.Path, "/")+" ")
		storetest.Exec(t, w.database, s)
	}
	owner := w.database
	t.Cleanup(func() { storetest.Exec(t, owner, "DROP OWNED BY "+name, "DROP ROLE "+name) })
	u.User = url.UserPassword(name, "hush")
	w.database = u.String()
}

// documentedRole returns the statements that docs/database.md gives for the status servers' role.
func documentedRole(t *testing.T) (out []string) {
	t.Helper()
	text, err := os.ReadFile("../../docs/database.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, ok := strings.Cut(string(text), "```sql\n")
	block, _, closed := strings.Cut(block, "```")
	if !ok || !closed {
		t.Fatal("docs/database.md has no SQL")
	}
	for s := range strings.SplitSeq(block, ";") {
		if strings.TrimSpace(s) != "" {
			out = append(out, s)
		}
	}
	return out
}

// The documented role is enough to serve, and shows nothing of a person.
func TestLeastPrivilege(t *testing.T) {
	t.Parallel()
	w := newWorld(t, storetest.Postgres(t), "P-256")
	w.delegate("a", "P-256")
	alive, lost := newSerial(t), newSerial(t)
	w.set(good, alive)
	w.set(suspended, lost)
	w.role("status_" + strconv.FormatInt(time.Now().UnixNano(), 36))
	s := w.serve(w.config(nil, "a"))
	s.want(alive, xocsp.Good, 0)
	s.want(lost, xocsp.Revoked, 6)

	db, err := sql.Open("pgx", w.database)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	rows, err := db.QueryContext(t.Context(), "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	var tables []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		tables = append(tables, name)
	}
	if err := rows.Err(); err != nil || len(tables) < 10 {
		t.Fatalf("%v: %v", tables, err)
	}
	for _, name := range tables {
		want := "permission denied"
		if name == "status_log" || name == "certificate_status" {
			want = ""
		}
		refused(t, db, want, "SELECT count(*) FROM "+name)
		refused(t, db, "permission denied", "DELETE FROM "+name)
	}
	refused(t, db, "permission denied", "CREATE TABLE public.mine (n int)")
	refused(t, db, "permission denied", "CREATE TEMPORARY TABLE mine (n int)")
}

// refused fails unless the database refuses a statement with these words, or takes it if there are none.
func refused(t *testing.T, db *sql.DB, want, statement string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), forever)
	defer cancel()
	_, err := db.ExecContext(ctx, statement)
	if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
		t.Errorf("%s: %v, want %q", statement, err, want)
	}
}
