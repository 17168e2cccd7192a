package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/hsm"
)

// foundAuthority fills the authority's database and writes the configurations of both jpki-ca. Where certificates say that they are
// asked about is the first status server's: in production that is a name behind which all of them stand.
func (c *cluster) foundAuthority(ctx context.Context) (err error) {
	for i := range c.responders {
		c.responders[i] = &server{}
		for _, p := range []*int{&c.responders[i].port, &c.responders[i].admin} {
			if *p, err = freePort(ctx); err != nil {
				return err
			}
		}
		c.responders[i].url = "http://" + at(c.responders[i].port)
	}
	if err := os.Mkdir(c.path("public"), 0o700); err != nil {
		return err
	}
	key := "signer://" + c.path("hsm", "s.sock") + "?key={}&purpose="
	for i := range c.authorities {
		name := fmt.Sprint("ca-", i+1)
		if err := os.Mkdir(c.path(name), 0o700); err != nil {
			return err
		}
		if c.authorities[i], err = c.newServer(ctx, name, "jpki-ca", nil, func(s *server) string {
			return fmt.Sprintf(`listen: %s
admin: %s
database: %s
profile: sandbox-next
status_url: %s
keys:
  certificates: %scertificate
  lists: %scrl
  snapshots: %sother
server: {certificate: infrastructure/ca-server.crt, key: "file:infrastructure/ca-server.key"}
stations_ca: infrastructure/ca.crt
audit: {key: audit.key, checkpoints: %s/checkpoints}
publish: public
relying: {audience: "%s", login: jpki-authentication, consent: sandbox-signature-2026}
`, at(s.port), at(s.admin), c.database("jpki_ca", "jpki"), c.responders[0].url, key, key, key, name, s.url)
		}); err != nil {
			return err
		}
	}
	order := func(args ...string) error {
		_, err := command(ctx, c.dir, "", c.program("jpki-ca"), append([]string{"-config", "ca-1.yaml", "-operator", "cluster"}, args...)...)
		return err
	}
	if err := order("migrate"); err != nil {
		return err
	}
	if err := order("init", "trust/sign-1.crt", "trust/auth-1.crt"); err != nil {
		return err
	}
	if _, err := c.postgres[0].sql(ctx, "jpki_ca", "jpki",
		"GRANT CONNECT ON DATABASE jpki TO jpki_status", "GRANT USAGE ON SCHEMA public TO jpki_status", "GRANT SELECT ON certificate_status, status_log TO jpki_status"); err != nil {
		return err
	}
	return c.admit(ctx)
}

// admit enrols whoever speaks with the authority, and registers the relying party. jpki-ca's "enrol" does the former one by one.
func (c *cluster) admit(ctx context.Context) (err error) {
	db, err := store.Open(ctx, c.database("jpki_ca", "jpki"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	stations, err := readPool(c.path("infrastructure", "ca.crt"))
	if err != nil {
		return err
	}
	cfg := ca.Config{
		Store: db, Profile: ca.SandboxNext(), StatusURL: c.responders[0].url, Now: time.Now, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler), StationCAs: stations,
	}
	for _, id := range c.generations {
		i := ca.Issuer{ID: id}
		if i.Certificate, err = readCertificate(c.path("trust", id.String()+".crt")); err != nil {
			return err
		}
		c.issuers[id.CA] = i.Certificate
		if i.Signer, err = hsm.Open(ctx, c.keyURI(id.String(), "certificate")); err != nil {
			return err
		}
		cfg.Issuers = append(cfg.Issuers, i)
	}
	a, err := ca.New(cfg)
	if err != nil {
		return err
	}
	by := jpki.Actor{Role: jpki.System, ID: "cluster"}
	for _, i := range identities {
		if i.role == "" {
			continue
		}
		cert, err := readCertificate(c.path("infrastructure", i.name+".crt"))
		if err != nil {
			return err
		}
		who := jpki.Actor{Role: i.role, ID: i.name}
		if i.role == jpki.Counter {
			who.Municipality = municipality
		}
		if err := a.Enrol(ctx, by, who, cert); err != nil {
			return fmt.Errorf("enrol %s: %w", i.name, err)
		}
	}
	return a.RegisterTenant(ctx, by, store.Tenant{Number: tenantNumber, Operator: "verifier-1", Name: tenantName, Uses: jpki.Uses})
}

// publishAuditKey writes the public half of the key that signs checkpoints.
func publishAuditKey(seed []byte, path string) error {
	public, _ := ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey)
	return os.WriteFile(path, []byte(base64.StdEncoding.EncodeToString(public)+"\n"), 0o600)
}
