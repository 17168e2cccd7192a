package main

import (
	"strings"
	"testing"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/cmd/internal/sandbox"
	"github.com/openjpki/jpki/cmd/internal/seed"
)

// Many statuses go into the snapshot, and the sandbox answers for them as for its own.
func TestSeedSnapshot(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p, env := start(t, dir, 0)
	many := []string{"seed", "-dir", dir, "-n", "120000", "-revoked", "0.1", "-status-only"}
	if _, errOut, code := tool(t, many...); code == 0 || !strings.Contains(errOut, "stop it first") {
		t.Errorf("beside a running sandbox: exit code %d: %s", code, errOut)
	}
	db := database(t, dir)
	if _, errOut, code := tool(t, "seed", "-dir", dir, "-n", "2", "-revoked", "1"); code != 0 {
		t.Fatalf("exit code %d: %s", code, errOut)
	}
	issued := ids(t, db, `SELECT issuer, serial FROM certificate WHERE holder = 'seed-holder'`)[0]
	expectStatus(t, env, issued, "revoked (affiliationChanged)")
	before := metrics(t, env)["jpki_status_certificates"]
	p.end(t)
	for range 2 { // the second on top of the first
		if out, errOut, code := tool(t, many...); code != 0 || out != "" {
			t.Fatalf("exit code %d: %s%s", code, out, errOut)
		}
	}
	plans, err := seed.Read(sandbox.SeedPlans(dir))
	if err != nil || len(plans) != 2 {
		t.Fatalf("%d plans, %v", len(plans), err)
	}
	for range 2 { // the second reads what the first has written at its end
		p, env = start(t, dir, p.offset)
		for _, plan := range plans {
			for k := range 20 {
				c := plan.At(k * 5999)
				want := "good"
				if c.Status.State == jpki.Revoked {
					want = "revoked (affiliationChanged)"
				}
				expectStatus(t, env, c.ID, want)
				b := c.ID.Serial.Bytes()
				b[15] ^= 1
				other := jpki.CertID{Issuer: c.ID.Issuer}
				if other.Serial, err = jpki.SerialFromBytes(b); err != nil {
					t.Fatal(err)
				}
				expectStatus(t, env, other, "unknown")
			}
		}
		expectStatus(t, env, issued, "revoked (affiliationChanged)")
		if n := metrics(t, env)["jpki_status_certificates"]; n < before+240_000 {
			t.Errorf("%v certificates, before the seeds %v", n, before)
		}
		p.end(t)
	}
}
