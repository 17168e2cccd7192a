package main

import (
	"bytes"
	"crypto/ed25519"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/audit"
	"github.com/openjpki/jpki/ca/client"
	"github.com/openjpki/jpki/ca/store"
)

// Promise: every state change is in the audit chain; removing, reordering or altering one entry is detected offline.
// An intruder here has the database and all the time in the world, but not the audit key.
func TestAuditVerifyDetectsTampering(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p, _ := start(t, dir, 0)
	if err := p.waitFor(func() bool { return strings.Contains(p.out.String(), "steps held") }); err != nil {
		t.Fatal(err)
	}
	p.end(t)
	if out, _, code := tool(t, "audit", "verify", "-dir", dir); code != 0 || !regexp.MustCompile(`^whole: \d+ entries, \d+ signed checkpoints, 9 certificates as recorded\nhead   [0-9a-f]{64}\n$`).MatchString(out) {
		t.Fatalf("exit code %d: %s", code, out)
	}

	for name, c := range map[string]struct {
		tamper func(t *testing.T, dir string, db *sql.DB)
		want   string
	}{
		"altered": {sqlRun(`UPDATE audit SET actor = 'counter:somebody-else' WHERE seq = 5`), `^audit record broken at entry 5: altered`},
		"altered detail": {
			sqlRun(`UPDATE audit SET detail = replace(detail, 'suspended', 'good') WHERE seq = (SELECT min(seq) FROM audit WHERE action = 'suspend')`),
			`^audit record broken at entry \d+: altered`,
		},
		"removed":     {sqlRun(`DELETE FROM audit WHERE seq = 7`), `^audit record broken at entry 7: missing, entry 8 follows entry 6$`},
		"removed all": {sqlRun(`DELETE FROM audit`), `^entries 1 to \d+ are missing: a signed checkpoint saw them$`},
		"cut short":   {sqlRun(`DELETE FROM audit WHERE seq > (SELECT max(seq) - 3 FROM audit)`), `^entries (\d+) to \d+ are missing: a signed checkpoint saw them$`},
		"cut and mended": {
			sqlRun(`DELETE FROM audit WHERE seq > (SELECT max(seq) - 3 FROM audit)`,
				`UPDATE head SET audit_seq = (SELECT max(seq) FROM audit), audit_hash = (SELECT hash FROM audit ORDER BY seq DESC LIMIT 1)`),
			`are missing: a signed checkpoint saw them$`,
		},
		"reordered": {
			sqlRun(`UPDATE audit SET seq = -9 WHERE seq = 9`, `UPDATE audit SET seq = 9 WHERE seq = 10`, `UPDATE audit SET seq = 10 WHERE seq = -9`),
			`^audit record broken at entry 9: does not continue the entry before it$`,
		},
		"rewritten as a whole": {rewrite, `^audit record broken at entry \d+: not what a signed checkpoint saw$`},
		"unreadable":           {sqlRun(`UPDATE audit SET hash = 'xx' WHERE seq = 4`), `^audit record broken at entry 4: `},
		"state made good": {
			sqlRun(`UPDATE certificate_status SET state = 'good', reason = 0, cause = '' WHERE state = 'revoked'`),
			`^sign-1/[0-9A-F]{32} is good \(version \d+\), the record says revoked \w+ [\w-]+ \(version \d+\)$`,
		},
		"reason changed": {
			sqlRun(`UPDATE certificate_status SET reason = 1 WHERE reason = 3`),
			`^sign-1/[0-9A-F]{32} is revoked keyCompromise [\w-]+ \(version 2\), the record says revoked affiliationChanged [\w-]+ \(version 2\)$`,
		},
		"status slipped in": {
			sqlRun(`INSERT INTO certificate_status SELECT issuer, X'41', state, reason, cause, since, version, partition, not_after FROM certificate_status LIMIT 1`),
			`^(sign|auth)-1/41 is \w+.* \(version \d+\), the record says nothing of it$`,
		},
		"log entry slipped in": {
			sqlRun(`INSERT INTO status_log SELECT (SELECT MAX(seq) + 1 FROM status_log), issuer, X'41', state, reason, cause, since, 1, partition, not_after FROM status_log LIMIT 1`),
			`^status log entry \d+: (sign|auth)-1/41 is .*, the record says nothing of it$`,
		},
		"log entry altered": {
			sqlRun(`UPDATE status_log SET reason = 1 WHERE reason = 3`),
			`^status log entry \d+: sign-1/[0-9A-F]{32} is revoked keyCompromise [\w-]+ \(version 2\), the record says revoked affiliationChanged [\w-]+ \(version 2\)$`,
		},
		"log entry removed": {
			sqlRun(`DELETE FROM status_log WHERE seq = 1`),
			`^(sign|auth)-1/[0-9A-F]{32}: the record says good \(version 1\), the status log nothing$`,
		},
		"status removed":    {sqlRun(`DELETE FROM certificate_status WHERE state = 'good'`), `^(sign|auth)-1/[0-9A-F]{32} has no status, the record says good \(version 1\)$`},
		"checkpoint forged": {forgeCheckpoint, `^checkpoint in line 1: not signed with the audit key$`},
	} {
		t.Run(name, func(t *testing.T) {
			copied := t.TempDir()
			if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}
			db := database(t, copied)
			c.tamper(t, copied, db)
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			out, errOut, code := tool(t, "audit", "verify", "-dir", copied)
			if code != exitNo || errOut != "" || !regexp.MustCompile("(?m)"+c.want).MatchString(out) {
				t.Errorf("exit code %d, want %d and a line like %s:\n%s%s", code, exitNo, c.want, out, errOut)
			}
		})
	}

	// The story's last step is the same check: a sandbox with a broken record says which step did not hold, and fails.
	t.Run("story", func(t *testing.T) {
		sqlRun(`UPDATE audit SET actor = 'counter:somebody-else' WHERE seq = 5`)(t, dir, database(t, dir))
		for try := 0; ; try++ {
			offset, err := freeOffset()
			if err != nil {
				t.Fatal(err)
			}
			out, errOut, code := tool(t, "sandbox", "-once", "-dir", dir, "-offset", fmt.Sprint(offset))
			if strings.Contains(errOut, "address already in use") && try < 5 {
				continue
			}
			if code != exitFailure || !strings.Contains(out, "This step did not hold: audit record broken at entry 5") || strings.Contains(out, "steps held") {
				t.Errorf("exit code %d\n%s", code, out)
			}
			oneLine(t, errOut, `^jpki: step 17, The audit record proves all of it: audit record broken at entry 5: altered`)
			return
		}
	})
}

// sqlRun changes the database, which must notice nothing.
func sqlRun(statements ...string) func(*testing.T, string, *sql.DB) {
	return func(t *testing.T, _ string, db *sql.DB) {
		t.Helper()
		for _, s := range statements {
			result, err := db.ExecContext(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			if n, err := result.RowsAffected(); err != nil || n == 0 {
				t.Fatalf("%s: %d rows, %v", s, n, err)
			}
		}
	}
}

// rewrite alters an early entry and makes every later hash fit.
func rewrite(t *testing.T, dir string, db *sql.DB) {
	t.Helper()
	s, err := store.Open(t.Context(), "sqlite:"+filepath.Join(dir, "authority", "ca.db"))
	if err != nil {
		t.Fatal(err)
	}
	var entries []audit.Entry
	for e, err := range s.AuditEntries(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, e)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	var head audit.Head
	for i, e := range entries {
		if i == 2 {
			e.Actor = "counter:somebody-else"
		}
		e, head = head.Append(e)
		if _, err := db.ExecContext(t.Context(), `UPDATE audit SET actor = $1, prev = $2, hash = $3 WHERE seq = $4`, e.Actor, e.Prev.String(), e.Hash.String(), e.Seq); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := db.ExecContext(t.Context(), `UPDATE head SET audit_hash = $1`, head.Hash.String()); err != nil {
		t.Fatal(err)
	}
}

// forgeCheckpoint replaces the signed heads by one that another key signed.
func forgeCheckpoint(t *testing.T, dir string, _ *sql.DB) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	line := audit.Sign(audit.Head{Seq: 3}, time.Now(), key).String() + "\n"
	if err := os.WriteFile(filepath.Join(dir, "authority", "checkpoints"), []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
}

// What a killed process left of a checkpoint's line is neither evidence of tampering nor in the next one's way.
func TestUnfinishedCheckpoint(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p, _ := start(t, dir, 0)
	p.kill()
	f, err := os.OpenFile(filepath.Join(dir, "authority", "checkpoints"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("99 0123456789abcdef"); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for _, when := range []string{"before the next start", "after it"} {
		if out, errOut, code := tool(t, "audit", "verify", "-dir", dir); code != 0 {
			t.Errorf("%s: exit code %d: %s%s", when, code, out, errOut)
		}
		if when == "before the next start" {
			p, _ = start(t, dir, p.offset)
			p.end(t)
		}
	}
}

// While the authority works, its record is whole at every moment: a status that changed after the record was read is no
// intruder's.
func TestAuditVerifyWhileWorking(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p, env := start(t, dir, 0)
	orders := makeOrders(t, 12)
	station, err := env.Station()
	if err != nil {
		t.Fatal(err)
	}
	hotline, err := env.Hotline()
	if err != nil {
		t.Fatal(err)
	}
	register(t, env, orders)
	for _, o := range orders {
		if _, err := station.Issue(t.Context(), o.key, o.CertificateOrder); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan error, 1)
	go func() {
		for _, o := range orders {
			if _, err := hotline.Suspend(t.Context(), o.key+"-lost", client.Change{Token: o.Token, Cause: jpki.Lost}); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for working := true; working; {
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
			working = false
		default:
		}
		var out bytes.Buffer
		root := newRoot()
		root.SetOut(&out)
		root.SetArgs([]string{"audit", "verify", "--dir", dir})
		if err := root.ExecuteContext(t.Context()); err != nil || !strings.HasPrefix(out.String(), "whole: ") {
			t.Errorf("%v: %s", err, out.String())
		}
	}
	p.end(t)
}
