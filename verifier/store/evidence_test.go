package store_test

import (
	"bytes"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/verifier/store"
)

// access returns what a tenant's new token opens.
func access(t *testing.T, s *store.Store, tenant jpki.CorporateNumber) *store.Access {
	t.Helper()
	_, secret, err := s.AddToken(t.Context(), tenant, store.Scopes(), time.Time{}, t0)
	if err != nil {
		t.Fatal(err)
	}
	a, err := s.Access(t.Context(), store.Credential{Kind: store.BearerToken, Hash: sha256.Sum256([]byte(secret))}, t0)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestEvidence(t *testing.T) {
	onBoth(t, func(t *testing.T, s *store.Store, _ string) {
		ctx := t.Context()
		a, other := access(t, s, bank), access(t, s, telecom)
		var all sync.WaitGroup
		for i := range 200 { // more than share a statement
			all.Go(func() {
				err := s.Keep(ctx, a, []store.Record{{ID: fmt.Sprint("e", i), User: fmt.Sprint("u", i%2), Content: fmt.Append(nil, "content ", i), Certificate: []byte{byte(i % 3)}, Action: "verification", Outcome: "ok"}}, t0.Add(time.Duration(i)*time.Second))
				if err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		e, err := s.Evidence(ctx, a, "e7", t0)
		if err != nil || string(e.Content) != "content 7" || !e.CreatedAt.Equal(t0.Add(7*time.Second)) || !e.DeleteAfter.Equal(e.CreatedAt.AddDate(0, 0, 30)) {
			t.Errorf("%v %+v", err, e)
		}
		_, err = s.Evidence(ctx, other, "e7", t0)
		wantProblem(t, err, jpki.NotFound)
		_, err = s.Evidence(ctx, a, "e7", e.DeleteAfter)
		wantProblem(t, err, jpki.NotFound) // over, even before it is swept
		wantProblem(t, s.DeleteEvidence(ctx, other, "e7"), jpki.NotFound)
		wantProblem(t, s.DeleteEvidence(ctx, a, "e7"), "")
		wantProblem(t, s.DeleteEvidence(ctx, a, "e7"), jpki.NotFound)
		if n, err := s.DeleteEvidenceOfUser(ctx, other, "u1"); n != 0 || err != nil {
			t.Errorf("%d %v", n, err)
		}
		if n, err := s.DeleteEvidenceOfUser(ctx, a, "u1"); n != 99 || err != nil {
			t.Errorf("%d %v", n, err)
		}
		_, err = s.Evidence(ctx, a, "e9", t0)
		wantProblem(t, err, jpki.NotFound)

		uses, err := s.Uses(ctx, []byte{1}, 10)
		if err != nil || len(uses) != 10 || uses[0].Tenant != bank || uses[0].Name != "bank" || !uses[0].At.Equal(t0.Add(199*time.Second)) {
			t.Errorf("%v %+v", err, uses)
		}
		if n, err := s.Sweep(ctx, t0.AddDate(0, 0, 30).Add(98*time.Second)); n != 50 || err != nil {
			t.Errorf("swept %d, %v", n, err)
		}
		if uses, err := s.Uses(ctx, []byte{1}, 1000); err != nil || len(uses) != 67 {
			t.Errorf("%v %d", err, len(uses))
		}
		if _, err := s.Sweep(ctx, t0.AddDate(0, 0, store.RetentionDays).Add(time.Hour)); err != nil {
			t.Error(err)
		}
		if uses, err := s.Uses(ctx, []byte{1}, 1000); err != nil || len(uses) != 0 {
			t.Errorf("%v %d", err, len(uses))
		}
	})
}

// TestKeepFailsAlone: one record whose identifier is taken does not fail those that share its transaction.
func TestKeepFailsAlone(t *testing.T) {
	onBoth(t, func(t *testing.T, s *store.Store, _ string) {
		a := access(t, s, bank)
		keep := func(id string) error {
			return s.Keep(t.Context(), a, []store.Record{{ID: id, Content: []byte("x")}}, t0)
		}
		wantProblem(t, keep("taken"), "")
		var all sync.WaitGroup
		for i := range 40 {
			all.Go(func() {
				if i%4 == 0 {
					if keep("taken") == nil {
						t.Error("kept twice")
					}
				} else if err := keep(fmt.Sprint(i)); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
	})
}

func TestOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, s *store.Store, _ string) {
		ctx := t.Context()
		a, other := access(t, s, bank), access(t, s, telecom)
		o := store.Once{Key: "k1", Request: []byte("request one")}
		begin := func(a *store.Access, o store.Once, at time.Time, want jpki.Problem, wantAnswer string) {
			t.Helper()
			answer, done, err := s.Begin(ctx, a, o, at)
			wantProblem(t, err, want)
			if string(answer) != wantAnswer || done != (wantAnswer != "") {
				t.Errorf("%q %v", answer, done)
			}
		}
		begin(a, o, t0, "", "")
		begin(a, o, t0.Add(time.Second), jpki.InProgress, "")
		begin(a, store.Once{Key: "k1", Request: []byte("two")}, t0, jpki.IdempotencyReused, "")
		begin(other, o, t0, "", "")
		wantProblem(t, s.End(ctx, a, o, []byte("answer")), "")
		begin(a, o, t0.Add(time.Hour), "", "answer")
		begin(a, store.Once{Key: "k1", Request: []byte("two")}, t0.Add(time.Hour), jpki.IdempotencyReused, "")
		begin(other, o, t0.Add(3*time.Minute), "", "") // abandoned: begun anew
		wantProblem(t, s.End(ctx, other, o, nil), "")
		begin(other, o, t0.Add(3*time.Minute), "", "") // freed
		begin(a, store.Once{Key: "k1", Request: []byte("two")}, t0.Add(store.OnceKept), "", "")

		// Of many at the same time one begins.
		var all sync.WaitGroup
		results := make(chan error, 20)
		for range cap(results) {
			all.Go(func() {
				_, _, err := s.Begin(ctx, a, store.Once{Key: "race", Request: []byte("r")}, t0)
				results <- err
			})
		}
		all.Wait()
		begun := 0
		for range cap(results) {
			if err := <-results; err == nil {
				begun++
			} else if !errors.Is(err, jpki.InProgress) && !errors.Is(err, jpki.Conflict) {
				t.Error(err)
			}
		}
		if begun != 1 {
			t.Errorf("%d began", begun)
		}
	})
}

// TestDestroyedKey: what was copied before a tenant was revoked stays noise when it is put back, and nothing that was kept can be
// read in the database.
func TestDestroyedKey(t *testing.T) {
	onBoth(t, func(t *testing.T, s *store.Store, database string) {
		ctx := t.Context()
		a := access(t, s, bank)
		const secret, user, key = "砂箱県青葉市一丁目", "customer-4711", "order-0815" //nolint:gosec // G101: looked for, not used
		for i := range 5 {
			wantProblem(t, s.Keep(ctx, a, []store.Record{{ID: fmt.Sprint(i), User: user, Content: []byte(secret), Certificate: []byte(secret), Action: "verification"}}, t0), "")
		}
		o := store.Once{Key: key, Request: []byte(secret)}
		_, _, err := s.Begin(ctx, a, o, t0)
		wantProblem(t, err, "")
		wantProblem(t, s.End(ctx, a, o, []byte(secret)), "")

		driver, name := "pgx", database
		if path, ok := strings.CutPrefix(database, "sqlite:"); ok {
			driver, name = "sqlite", path
			for _, file := range []string{path, path + "-wal"} {
				content, err := os.ReadFile(file)
				wantProblem(t, err, "")
				for _, s := range []string{secret, user, key} {
					if bytes.Contains(content, []byte(s)) {
						t.Errorf("%s is in %s", s, file)
					}
				}
			}
		}
		db, err := sql.Open(driver, name)
		wantProblem(t, err, "")
		t.Cleanup(func() { _ = db.Close() })
		var sealed, wrapped []byte
		wantProblem(t, db.QueryRow(`SELECT sealed FROM evidence WHERE id = '3'`).Scan(&sealed), "")
		wantProblem(t, db.QueryRow(`SELECT data_key FROM tenant WHERE id = $1`, string(bank)).Scan(&wrapped), "")
		if bytes.Contains(sealed, []byte(secret)) || len(wrapped) < 48 {
			t.Errorf("not sealed: %d octets, key of %d", len(sealed), len(wrapped))
		}
		wantProblem(t, s.RevokeTenant(ctx, bank, t0), "")
		wantProblem(t, db.QueryRow(`SELECT data_key FROM tenant WHERE id = $1`, string(bank)).Scan(&wrapped), "")
		var left int
		wantProblem(t, db.QueryRow(`SELECT count(*) FROM evidence`).Scan(&left), "")
		if len(wrapped) != 0 || left != 0 {
			t.Errorf("a key of %d octets and %d pieces of evidence are left", len(wrapped), left)
		}
		// Another tenant's key, or the same record elsewhere, opens nothing.
		b := access(t, s, telecom)
		_, err = db.Exec(`INSERT INTO evidence (id, tenant, sealed, created_at, delete_after) VALUES ('3', $1, $2, 0, 9000000000000000)`, string(telecom), sealed)
		wantProblem(t, err, "")
		if e, err := s.Evidence(ctx, b, "3", t0); err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%q %v", e.Content, err)
		}
	})
}
