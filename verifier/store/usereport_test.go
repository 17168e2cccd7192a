package store_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/verifier/store"
)

// TestUseReports: a report is put aside with its record, outlives the tenant's key and the process, and goes when the authority has it.
func TestUseReports(t *testing.T) {
	onBoth(t, func(t *testing.T, s *store.Store, database string) {
		ctx := t.Context()
		a := access(t, s, bank)
		id, err := jpki.ParseCertID("sign-1/7D95947A8C750735D6AE5E0EF59E943B")
		if err != nil {
			t.Fatal(err)
		}
		for i := range 300 { // more than one statement takes
			report := &store.UseReport{Certificate: id, Action: "verification", Purpose: "p"}
			if err := s.Keep(ctx, a, []store.Record{{ID: fmt.Sprint("r", i), Action: "verification", Report: report}, {ID: fmt.Sprint("n", i)}}, t0.Add(time.Duration(i)*time.Second)); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.RevokeTenant(ctx, bank, t0); err != nil {
			t.Fatal(err)
		}
		again, err := store.Open(ctx, store.Config{Database: database, MasterKey: master})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = again.Close() }()
		if tenants, err := again.UseReportTenants(ctx); err != nil || !slices.Equal(tenants, []jpki.CorporateNumber{bank}) {
			t.Fatal(tenants, err)
		}
		list, err := again.UseReports(ctx, bank, 1000)
		if err != nil || len(list) != 300 {
			t.Fatal(len(list), err)
		}
		seen := map[string]bool{}
		for i, u := range list {
			if u.Certificate != id || u.Action != "verification" || u.Purpose != "p" || !u.At.Equal(t0.Add(time.Duration(i)*time.Second)) || len(u.ID) != 32 || seen[u.ID] {
				t.Error(u)
			}
			seen[u.ID] = true
		}
		if err := again.RefuseUseReport(ctx, list[299].ID, jpki.Malformed); err != nil {
			t.Fatal(err)
		}
		if waiting, refused, err := s.CountUseReports(ctx); err != nil || waiting != 299 || refused != 1 {
			t.Error(waiting, refused, err)
		}
		var ids []string
		for _, u := range list[:299] {
			ids = append(ids, u.ID)
		}
		for range 2 {
			if err := again.EndUseReports(ctx, ids); err != nil {
				t.Fatal(err)
			}
		}
		if tenants, err := s.UseReportTenants(ctx); err != nil || len(tenants) != 0 {
			t.Error(tenants, err)
		}
		if _, err := s.Sweep(ctx, t0.AddDate(0, 0, store.RetentionDays+1)); err != nil {
			t.Fatal(err)
		}
		if waiting, refused, err := s.CountUseReports(ctx); err != nil || waiting+refused != 0 {
			t.Error(waiting, refused, err)
		}
	})
}
