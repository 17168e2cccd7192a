package main

import (
	"crypto/x509"
	"math/rand/v2"
	"testing"

	"github.com/openjpki/jpki"
)

func TestSeed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p, env := start(t, dir, 0)
	db := database(t, dir)
	before := metrics(t, env)
	good, revoked := 0, 0
	for _, c := range []struct {
		what string
		args []string
		from string // where to find what was added
	}{
		{"certificates", []string{"-n", "300", "-revoked", "0.1"}, `certificate_status s JOIN certificate c USING (issuer, serial) WHERE c.holder = 'seed-holder'`},
		{"statuses only", []string{"-n=300", "-revoked=0.1", "-status-only"}, `certificate_status s WHERE NOT EXISTS (SELECT 1 FROM certificate c WHERE c.issuer = s.issuer AND c.serial = s.serial)`},
	} {
		if out, errOut, code := tool(t, append([]string{"seed", "-dir", dir}, c.args...)...); code != 0 || out != "" {
			t.Fatalf("%s: exit code %d: %s%s", c.what, code, out, errOut)
		}
		for state, want := range map[jpki.State]struct {
			n    int
			says string
		}{jpki.Good: {270, "good"}, jpki.Revoked: {30, "revoked (affiliationChanged)"}} {
			added := ids(t, db, `SELECT s.issuer, s.serial FROM `+c.from+` AND s.state = $1`, string(state))
			if len(added) != want.n {
				t.Errorf("%s: %d are %s, want %d", c.what, len(added), state, want.n)
			}
			rand.Shuffle(len(added), func(i, j int) { added[i], added[j] = added[j], added[i] })
			for _, id := range added[:min(15, len(added))] {
				expectStatus(t, env, id, want.says)
				if state == jpki.Good {
					good++
				} else {
					revoked++
				}
			}
		}
	}

	// The responder counted what it said (the story asks, too) and knows all of them.
	after := metrics(t, env)
	for name, n := range map[string]int{
		`jpki_ocsp_responses_total{outcome="good"}`: good, `jpki_ocsp_responses_total{outcome="revoked"}`: revoked, `jpki_status_certificates`: 600,
	} {
		if grown := after[name] - before[name]; grown < float64(n) {
			t.Errorf("%s grew by %v, want %d or more", name, grown, n)
		}
	}

	// Real ones are real certificates, and both kinds are good to other tools.
	for _, query := range []string{
		`SELECT der FROM certificate WHERE holder = 'seed-holder' AND kind = 'card-sign' LIMIT 1`, `SELECT der FROM certificate WHERE holder = 'seed-holder' AND kind = 'card-auth' LIMIT 1`,
	} {
		var der []byte
		if err := db.QueryRowContext(t.Context(), query).Scan(&der); err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		issuer, err := env.Issuer(cert)
		if err != nil {
			t.Fatal(err)
		}
		if err := cert.CheckSignatureFrom(issuer); err != nil || len(cert.OCSPServer) != 1 || cert.OCSPServer[0] != env.OCSPURL {
			t.Errorf("%v; OCSP at %v", err, cert.OCSPServer)
		}
	}

	// The lists follow, although another process wrote: all thirty-odd of each authority.
	err := p.waitFor(func() bool {
		n := 0
		for _, issuer := range jpki.CAs {
			list, err := x509.ParseRevocationList([]byte(get(t, env.CRLURL+"/"+string(issuer)+"-1/full.crl")))
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range list.RevokedCertificateEntries {
				if e.ReasonCode == int(jpki.AffiliationChanged) {
					n++
				}
			}
		}
		return n >= 60
	})
	if err != nil {
		t.Error("seeded revocations are not on the full lists:", err)
	}
	if out, _, code := tool(t, "audit", "verify", "-dir", dir); code != 0 {
		t.Errorf("exit code %d: %s", code, out)
	}
	p.end(t)

	// It works without a running sandbox, too, and the next one answers for what it added.
	if _, errOut, code := tool(t, "seed", "-dir", dir, "-n", "10", "-revoked", "1"); code != 0 {
		t.Fatalf("exit code %d: %s", code, errOut)
	}
	_, env = start(t, dir, p.offset)
	for _, id := range ids(t, db, `SELECT issuer, serial FROM certificate WHERE holder = 'seed-holder' ORDER BY rowid DESC LIMIT 10`) {
		expectStatus(t, env, id, "revoked (affiliationChanged)")
	}
}
