package store_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/verifier/store"
)

var renewed = bytes.Repeat([]byte{9}, 32)

// keepSome keeps evidence for a tenant under a token and returns the token's credential.
func keepSome(t *testing.T, s *store.Store, tenant jpki.CorporateNumber, id string) store.Credential {
	t.Helper()
	_, secret, err := s.AddToken(t.Context(), tenant, store.Scopes(), time.Time{}, t0)
	wantProblem(t, err, "")
	c := store.Credential{Kind: store.BearerToken, Hash: sha256.Sum256([]byte(secret))}
	a, err := s.Access(t.Context(), c, t0)
	if err != nil {
		t.Fatal(err)
	}
	report := &store.UseReport{Certificate: jpki.CertID{Issuer: jpki.IssuerID{CA: jpki.SignCA, Generation: 1}, Serial: serialOf(t, id)}, Action: "verification", Purpose: "signature-verification"}
	wantProblem(t, s.Keep(t.Context(), a, []store.Record{{ID: id, Content: []byte("content of " + id), Certificate: []byte(tenant), Action: "verification", Outcome: "ok", Report: report}}, t0), "")
	return c
}

// serialOf makes a serial of a name.
func serialOf(t *testing.T, name string) jpki.Serial {
	t.Helper()
	n, err := jpki.SerialFromBig(new(big.Int).SetBytes([]byte(name)))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// wantKept fails unless evidence opens, the use of the certificate is found, and what the authority is to be told of it opens.
func wantKept(t *testing.T, s *store.Store, c store.Credential, tenant jpki.CorporateNumber, id string) {
	t.Helper()
	a, err := s.Access(t.Context(), c, t0)
	if err != nil {
		t.Fatal(err)
	}
	e, err := s.Evidence(t.Context(), a, id, t0)
	if err != nil || string(e.Content) != "content of "+id {
		t.Errorf("%v %q", err, e.Content)
	}
	if uses, err := s.Uses(t.Context(), []byte(tenant), 10); err != nil || len(uses) != 1 {
		t.Errorf("%v, %d uses, want 1", err, len(uses))
	}
	if waiting, err := s.UseReports(t.Context(), tenant, 10); err != nil || len(waiting) != 1 || waiting[0].Certificate.Serial != serialOf(t, id) || waiting[0].Purpose != "signature-verification" {
		t.Errorf("%v, reports %+v", err, waiting)
	}
}

func reopen(t *testing.T, database string, masterKey, previous []byte) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), store.Config{Database: database, MasterKey: masterKey, PreviousMasterKey: previous})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestRotateMaster(t *testing.T) {
	onBoth(t, func(t *testing.T, s *store.Store, database string) {
		c := keepSome(t, s, bank, "e1")
		_, err := s.RotateMaster(t.Context())
		if err == nil {
			t.Error("rotated without a previous key")
		}
		both := reopen(t, database, renewed, master)
		wantKept(t, both, c, bank, "e1") // before anything is sealed anew
		if n, err := both.RotateMaster(t.Context()); err != nil || n != 3 {
			t.Errorf("%v, %d keys sealed anew, want those of two tenants and of digests", err, n)
		}
		wantKept(t, both, c, bank, "e1")
		if n, err := both.RotateMaster(t.Context()); err != nil || n != 0 {
			t.Errorf("%v, %d keys sealed anew by the second run", err, n)
		}
		// A server that was not stopped adds a tenant under the previous key.
		const late jpki.CorporateNumber = "7000012050002"
		wantProblem(t, s.AddTenant(t.Context(), store.Tenant{ID: late, Name: "late", RetentionDays: 30}, t0), "")
		lateToken := keepSome(t, s, late, "e2")
		if n, err := both.RotateMaster(t.Context()); err != nil || n != 1 {
			t.Errorf("%v, %d keys sealed anew, want the late tenant's", err, n)
		}
		alone := reopen(t, database, renewed, nil)
		wantKept(t, alone, c, bank, "e1")
		wantKept(t, alone, lateToken, late, "e2")
		for name, cfg := range map[string]store.Config{
			"the previous key alone": {Database: database, MasterKey: master},
			"a stranger":             {Database: database, MasterKey: bytes.Repeat([]byte{1}, 32), PreviousMasterKey: master},
			"twice the same":         {Database: database, MasterKey: renewed, PreviousMasterKey: renewed},
			"too short":              {Database: database, MasterKey: renewed, PreviousMasterKey: master[:31]},
		} {
			if s, err := store.Open(t.Context(), cfg); err == nil {
				_ = s.Close()
				t.Errorf("%s opens", name)
			}
		}
		// And on: the key of digests stays what it was.
		third := bytes.Repeat([]byte{3}, 32)
		if n, err := reopen(t, database, third, renewed).RotateMaster(t.Context()); err != nil || n != 4 {
			t.Errorf("%v, %d keys sealed anew", err, n)
		}
		wantKept(t, reopen(t, database, third, nil), c, bank, "e1")
	})
}

const rotating = "JPKI_TEST_ROTATE"

// TestRotateHelper is the process that TestRotateKilled kills: it rotates from one key to the other and back without end.
func TestRotateHelper(t *testing.T) {
	database := os.Getenv(rotating)
	if database == "" {
		t.Skip("started by TestRotateKilled")
	}
	keys := [][]byte{master, renewed}
	fmt.Println("rotating")
	for i := 0; ; i++ {
		s, err := store.Open(t.Context(), store.Config{Database: database, MasterKey: keys[(i+1)%2], PreviousMasterKey: keys[i%2]})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.RotateMaster(t.Context()); err != nil {
			t.Fatal(err)
		}
		_ = s.Close()
	}
}

// Killed at any moment, all keys are under the one or all under the other, and the next run finishes.
func TestRotateKilled(t *testing.T) {
	onBoth(t, func(t *testing.T, s *store.Store, database string) {
		c := keepSome(t, s, bank, "e1")
		for range 6 {
			ctx, cancel := context.WithCancel(t.Context())
			cmd := exec.CommandContext(ctx, os.Args[0], "-test.run", "^TestRotateHelper$") //nolint:gosec // G702: itself
			cmd.Env = append(os.Environ(), rotating+"="+database)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if _, err := out.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Duration(rand.IntN(150)) * time.Millisecond)
			cancel() // SIGKILL
			if exit := new(exec.ExitError); !errors.As(cmd.Wait(), &exit) || strings.Contains(exit.String(), "exit status") {
				t.Fatalf("the helper ended by itself: %v", exit)
			}
			both := reopen(t, database, renewed, master)
			if n, err := both.RotateMaster(t.Context()); err != nil || n != 0 && n != 3 {
				t.Errorf("%v, %d of 3 keys were under the previous one", err, n)
			}
			wantKept(t, reopen(t, database, renewed, nil), c, bank, "e1")
			if _, err := reopen(t, database, master, renewed).RotateMaster(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestEditTenant(t *testing.T) {
	onBoth(t, func(t *testing.T, s *store.Store, _ string) {
		ctx := t.Context()
		for _, tc := range []struct {
			id   jpki.CorporateNumber
			edit func(*store.Tenant)
			want jpki.Problem
		}{
			{bank, func(t *store.Tenant) { t.Name = "aoba-bank" }, ""},
			{bank, func(t *store.Tenant) { t.Name = "telecom" }, jpki.Conflict},
			{bank, func(t *store.Tenant) { t.Name = "" }, jpki.Malformed},
			{bank, func(t *store.Tenant) { t.Rate, t.DailyQuota = 5, 6 }, ""},
			{bank, func(t *store.Tenant) { t.DailyQuota = -1 }, jpki.Malformed},
			{"7000012050002", func(*store.Tenant) {}, jpki.NotFound},
		} {
			_, err := s.EditTenant(ctx, tc.id, tc.edit)
			wantProblem(t, err, tc.want)
		}
		// At the same time, each its own part: nothing is lost.
		done := make(chan error, 20)
		for i := range 20 {
			go func() {
				_, err := s.EditTenant(ctx, bank, func(t *store.Tenant) {
					if i%2 == 0 {
						t.Rate++
					} else {
						t.DailyQuota++
					}
				})
				done <- err
			}()
		}
		for range 20 {
			wantProblem(t, <-done, "")
		}
		if got, err := s.Tenant(ctx, bank); err != nil || got.Name != "aoba-bank" || got.Rate != 15 || got.DailyQuota != 16 || got.RetentionDays != 30 {
			t.Errorf("%v %+v", err, got)
		}
		token, _, err := s.AddToken(ctx, bank, []store.Scope{store.Verify}, time.Time{}, t0)
		wantProblem(t, err, "")
		wantProblem(t, s.SetScopes(ctx, token.ID, []store.Scope{store.Status, store.Watch}), "")
		wantProblem(t, s.SetScopes(ctx, token.ID, nil), jpki.Malformed)
		wantProblem(t, s.SetScopes(ctx, token.ID, []store.Scope{"root"}), jpki.Malformed)
		wantProblem(t, s.SetScopes(ctx, "0123456789abcdef", []store.Scope{store.Status}), jpki.NotFound)
		if all, err := s.Tokens(ctx, bank); err != nil || len(all) != 1 || all[0].Allows(store.Verify) || !all[0].Allows(store.Watch) {
			t.Errorf("%v %+v", err, all)
		}
		wantProblem(t, s.RevokeToken(ctx, token.ID, t0), "")
		wantProblem(t, s.SetScopes(ctx, token.ID, []store.Scope{store.Status}), jpki.NotFound)
	})
}
