package store_test

import (
	"bytes"
	"crypto/sha256"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/verifier/store"
)

func TestTenants(t *testing.T) {
	onBoth(t, func(t *testing.T, s *store.Store, _ string) {
		ctx := t.Context()
		for _, tc := range []struct {
			tenant store.Tenant
			want   jpki.Problem
		}{
			{store.Tenant{ID: bank, Name: "other"}, jpki.Conflict},
			{store.Tenant{ID: "7000012050002", Name: "bank"}, jpki.Conflict},
			{store.Tenant{ID: "7000012050003", Name: "other"}, jpki.Malformed},
			{store.Tenant{ID: "7000012050002", Name: "銀行"}, jpki.Malformed},
			{store.Tenant{ID: "7000012050002", Name: "a b"}, jpki.Malformed},
			{store.Tenant{ID: "7000012050002", Name: "n-123456789018"}, jpki.MyNumberPresent},
			{store.Tenant{ID: "7000012050002", Name: "other", RetentionDays: -1}, jpki.Malformed},
			{store.Tenant{ID: "7000012050002", Name: "other", Rate: -1}, jpki.Malformed},
		} {
			wantProblem(t, s.AddTenant(ctx, tc.tenant, t0), tc.want)
		}
		changed := store.Tenant{ID: bank, Name: "bank", RetentionDays: 5, StoreAttributes: true, Rate: 3, DailyQuota: 4}
		wantProblem(t, s.ChangeTenant(ctx, changed), "")
		got, err := s.Tenant(ctx, bank)
		wantProblem(t, err, "")
		changed.CreatedAt = t0
		if diff := cmp.Diff(changed, got, cmpopts.IgnoreUnexported(store.Tenant{})); diff != "" {
			t.Error(diff)
		}
		wantProblem(t, s.RevokeTenant(ctx, bank, t0.Add(time.Hour)), "")
		wantProblem(t, s.RevokeTenant(ctx, bank, t0), jpki.NotFound)
		wantProblem(t, s.ChangeTenant(ctx, changed), jpki.NotFound)
		all, err := s.Tenants(ctx)
		if err != nil || len(all) != 2 || all[0].ID != bank || !all[0].RevokedAt.Equal(t0.Add(time.Hour)) || !all[1].RevokedAt.IsZero() {
			t.Errorf("%v %+v", err, all)
		}
	})
}

func TestTokens(t *testing.T) {
	onBoth(t, func(t *testing.T, s *store.Store, _ string) {
		ctx := t.Context()
		token, secret, err := s.AddToken(ctx, bank, []store.Scope{store.Verify, store.Evidence}, t0.Add(time.Hour), t0)
		wantProblem(t, err, "")
		if !strings.HasPrefix(secret, "jpki_") || len(secret) != 48 {
			t.Errorf("secret has %d characters", len(secret))
		}
		bearer := store.Credential{Kind: store.BearerToken, Hash: sha256.Sum256([]byte(secret))}
		a, err := s.Access(ctx, bearer, t0)
		if err != nil || a.Tenant.Name != "bank" || a.Token.ID != token.ID || !a.Token.Allows(store.Verify) || a.Token.Allows(store.Status) {
			t.Fatalf("%v %+v", err, a)
		}
		for name, c := range map[string]store.Credential{
			"other token":         {Kind: store.BearerToken, Hash: sha256.Sum256([]byte("x"))},
			"not a certificate's": {Kind: store.ClientCertificate, Hash: bearer.Hash},
		} {
			if _, err := s.Access(ctx, c, t0); jpki.ProblemOf(err) != jpki.Unauthorized {
				t.Errorf("%s: %v", name, err)
			}
		}
		_, err = s.Access(ctx, bearer, t0.Add(time.Hour))
		wantProblem(t, err, jpki.Unauthorized) // expired
		wantProblem(t, s.RevokeToken(ctx, token.ID, t0), "")
		wantProblem(t, s.RevokeToken(ctx, token.ID, t0), jpki.NotFound)
		_, err = s.Access(ctx, bearer, t0)
		wantProblem(t, err, jpki.Unauthorized)

		pin := store.Credential{Kind: store.ClientCertificate, Hash: [32]byte{1}}
		_, err = s.AddCredential(ctx, bank, pin, []store.Scope{store.Status}, time.Time{}, t0)
		wantProblem(t, err, "")
		_, err = s.AddCredential(ctx, telecom, pin, []store.Scope{store.Status}, time.Time{}, t0)
		wantProblem(t, err, jpki.Conflict)
		_, err = s.AddCredential(ctx, bank, store.Credential{Kind: store.BearerToken, Hash: [32]byte{2}}, []store.Scope{"root"}, time.Time{}, t0)
		wantProblem(t, err, jpki.Malformed)
		_, _, err = s.AddToken(ctx, bank, nil, time.Time{}, t0)
		wantProblem(t, err, jpki.Malformed)
		_, _, err = s.AddToken(ctx, "7000012050002", store.Scopes(), time.Time{}, t0)
		wantProblem(t, err, jpki.NotFound)
		_, _, err = s.AddToken(ctx, bank, store.Scopes(), t0, t0)
		wantProblem(t, err, jpki.Malformed)
		if all, err := s.Tokens(ctx, bank); err != nil || len(all) != 2 {
			t.Errorf("%v %+v", err, all)
		}
		wantProblem(t, s.RevokeTenant(ctx, bank, t0), "")
		_, err = s.Access(ctx, pin, t0)
		wantProblem(t, err, jpki.Unauthorized)
		_, _, err = s.AddToken(ctx, bank, store.Scopes(), time.Time{}, t0)
		wantProblem(t, err, jpki.NotFound)
	})
}

func TestOpenRefuses(t *testing.T) {
	onBoth(t, func(t *testing.T, _ *store.Store, database string) {
		for want, cfg := range map[string]store.Config{
			"MasterKey has not":            {Database: database, MasterKey: master[:31]},
			"master key is not the one":    {Database: database, MasterKey: bytes.Repeat([]byte{8}, 32)},
			"must begin with sqlite":       {Database: "mysql:", MasterKey: master},
			"unable to open":               {Database: "sqlite:" + t.TempDir() + "/absent", MasterKey: master},
			"URL is not one of PostgreSQL": {Database: "postgres://u:secret@h:x/", MasterKey: master},
		} {
			if s, err := store.Open(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
				if s != nil {
					_ = s.Close()
				}
				t.Errorf("%s: %v", want, err)
			}
		}
	})
}
