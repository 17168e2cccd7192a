package main

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/acme"
	"github.com/openjpki/jpki/ca/api"
	"github.com/openjpki/jpki/ca/ceremony"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/verifier"
)

// openDatabase opens the database, whose schema must be the one this program knows, and refuses one that would forget
// commits that were answered.
func (c *config) openDatabase(ctx context.Context) (*store.Store, error) {
	db, err := store.Open(ctx, c.Database)
	if err != nil {
		return nil, err
	}
	if err := c.checkReplication(ctx, db); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

func (c *config) checkReplication(ctx context.Context, db *store.Store) error {
	r, err := db.Replication(ctx)
	if err != nil {
		return fmt.Errorf("ask the database about its replication: %w", err)
	}
	if replicated := r.Standbys > 0 || store.SeveralServers(c.Database); replicated && !r.Synchronous && !c.AcceptLoss {
		return errors.New("the database is replicated, and answers before a standby has what it commits: a fail-over would forget certificates and revocations. " +
			"Set synchronous_standby_names, and synchronous_commit = on, or say accept_loss: true")
	}
	return nil
}

// generations reads what is on record, oldest first.
func generations(ctx context.Context, db *store.Store) (out []store.Generation, err error) {
	err = db.View(ctx, func(tx *store.Tx) (err error) { out, err = tx.Generations(); return err })
	if err != nil {
		return nil, fmt.Errorf("read generations: %w", err)
	}
	return out, nil
}

// issuer opens the issuing key of a generation.
func (c *config) issuer(ctx context.Context, id jpki.IssuerID, der []byte) (ca.Issuer, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return ca.Issuer{}, fmt.Errorf("read generation %s: %w", id, err)
	}
	key, err := c.issuingKey(ctx, id)
	if err != nil {
		return ca.Issuer{}, fmt.Errorf("generation %s: %w", id, err)
	}
	return ca.Issuer{ID: id, Certificate: cert, Signer: key}, nil
}

// authority makes the authority with the generations that issue now.
func (c *config) authority(ctx context.Context, db *store.Store, log *slog.Logger) (*ca.Authority, error) {
	recorded, err := generations(ctx, db)
	if err != nil {
		return nil, err
	}
	var active []ca.Issuer
	for _, g := range recorded {
		if !g.Active {
			continue
		}
		i, err := c.issuer(ctx, g.Issuer, g.Certificate)
		if err != nil {
			return nil, err
		}
		active = append(active, i)
	}
	if len(active) < len(jpki.CAs) {
		return nil, errors.New(`no generation issues: "jpki-ca -config FILE -operator NAME init sign-1.pem auth-1.pem" records the first ones`)
	}
	return c.newAuthority(db, active, log)
}

func (c *config) newAuthority(db *store.Store, active []ca.Issuer, log *slog.Logger) (*ca.Authority, error) {
	pool, err := c.pool(c.StationsCA)
	if err != nil {
		return nil, fmt.Errorf("stations_ca: %w", err)
	}
	return ca.New(ca.Config{
		Store: db, Profile: c.profile, Issuers: active, StatusURL: c.StatusURL, Now: time.Now, Rand: rand.Reader, Log: log, StationCAs: pool, OpenKey: c.issuingKey,
	})
}

// certifyDelegate signs status servers' certificates with the keys of whatever generations are on record. Each key is opened
// once, when the first certificate is asked for.
func (c *config) certifyDelegate(db *store.Store) ca.CertifyDelegate {
	var mu sync.Mutex
	ready := map[jpki.IssuerID]*ceremony.Signer{}
	return func(ctx context.Context, id jpki.IssuerID, serial jpki.Serial, request []byte) (*x509.Certificate, error) {
		mu.Lock()
		defer mu.Unlock()
		if signer := ready[id]; signer != nil {
			return signer.CertifyResponder(request, id, serial)
		}
		recorded, err := generations(ctx, db)
		if err != nil {
			return nil, err
		}
		at := slices.IndexFunc(recorded, func(g store.Generation) bool { return g.Issuer == id })
		if at < 0 {
			return nil, jpki.Errorf(jpki.NotFound, "there is no generation %s", id)
		}
		cert, err := x509.ParseCertificate(recorded[at].Certificate)
		if err != nil {
			return nil, err
		}
		key, err := c.keyFor(ctx, c.Keys.Responders, id)
		if err != nil {
			return nil, jpki.WrapError(jpki.Unavailable, err, "the key of this generation cannot be used now")
		}
		signer, err := ceremony.NewSigner(cert, key, time.Now)
		if err != nil {
			return nil, err
		}
		ready[id] = signer
		return signer.CertifyResponder(request, id, serial)
	}
}

// api makes the handler of stations, register, holders and status servers.
func (c *config) api(a *ca.Authority, db *store.Store, log *slog.Logger) (*api.API, error) {
	cfg := api.Config{Authority: a, NewID: rand.Text, Now: time.Now, Log: log, Delegate: c.certifyDelegate(db)}
	if e := c.Enrolment; e != nil && len(e.Phones) > 0 {
		policies := verifier.SandboxPolicies()
		if e.Policies != "" {
			text, err := c.read(e.Policies)
			if err != nil {
				return nil, fmt.Errorf("enrolment.policies: %w", err)
			}
			if policies, err = verifier.ParsePolicies(text); err != nil {
				return nil, fmt.Errorf("enrolment.policies: %w", err)
			}
			if len(policies) == 0 {
				return nil, errors.New("enrolment.policies: there is none")
			}
		}
		cfg.Phones = &api.Phones{Directories: map[string]string{}, Audience: e.Audience, Policy: policies[0], Rand: rand.Reader}
		for _, p := range e.Phones {
			cfg.Phones.Directories[p.Format] = e.URL + "/acme/phone-" + p.Format + "/directory"
		}
	}
	var err error
	if cfg.Relying, err = c.relyingParties(); err != nil {
		return nil, err
	}
	return api.New(cfg)
}

// enrol makes the handler where stations and phones get their certificates; nil where there is none.
func (c *config) enrol(ctx context.Context, a *ca.Authority, db *store.Store, log *slog.Logger) (*acme.Enrolment, error) {
	e := c.Enrolment
	if e == nil {
		return nil, nil
	}
	root, err := c.certificate(e.Certificate)
	if err != nil {
		return nil, fmt.Errorf("enrolment.certificate: %w", err)
	}
	key, err := c.key(ctx, e.Key)
	if err != nil {
		return nil, fmt.Errorf("enrolment.key: %w", err)
	}
	signer, err := ceremony.NewSigner(root, key, time.Now)
	if err != nil {
		return nil, fmt.Errorf("enrolment: %w", err)
	}
	cfg := acme.Config{Authority: a, Store: db, Root: root, Certify: signer.CertifyStation, Hosts: e.Hosts, NewID: rand.Text, Now: time.Now, Log: log}
	for _, p := range e.Provisioners {
		public, err := c.read(p.Key)
		if err != nil {
			return nil, fmt.Errorf("enrolment: provisioner %s: %w", p.Name, err)
		}
		cfg.Provisioners = append(cfg.Provisioners, acme.Provisioner{Name: p.Name, Key: public})
	}
	for _, s := range e.Stations {
		cfg.Stations = append(cfg.Stations, acme.Station{Actor: jpki.Actor{Role: s.Role, ID: s.Name, Municipality: s.Municipality}, Provisioner: s.Provisioner})
	}
	for _, p := range e.Phones {
		roots, err := c.certificates(p.Roots)
		if err != nil {
			return nil, fmt.Errorf("enrolment: phones %s: %w", p.Format, err)
		}
		attested, err := p.policy(roots)
		if err != nil {
			return nil, err
		}
		cfg.Phones = append(cfg.Phones, attested)
	}
	return acme.New(cfg)
}

// checkAll makes everything that serving needs, the connection to the database included, and throws it away. It changes
// nothing.
func (c *config) checkAll(ctx context.Context, log *slog.Logger) (err error) {
	var wrong []error
	note := func(what string, err error) {
		if err != nil {
			wrong = append(wrong, fmt.Errorf("%s: %w", what, err))
		}
	}
	_, err = c.tlsConfig(ctx)
	note("TLS", err)
	_, err = c.auditKey()
	note("audit.key", err)
	note("publish", c.checkFolder())
	_, err = c.mirror(nil, log)
	note("bucket", err)
	_, err = c.socket()
	note("signer", err)
	_, err = c.pool(c.StationsCA)
	note("stations_ca", err)
	db, err := c.openDatabase(ctx)
	if note("database", err); err != nil {
		return errors.Join(wrong...)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	a, err := c.authority(ctx, db, slog.New(slog.DiscardHandler))
	if note("generations", err); err != nil {
		return errors.Join(wrong...)
	}
	_, err = c.api(a, db, log)
	note("API", err)
	_, err = c.enrol(ctx, a, db, log)
	note("enrolment", err)
	return errors.Join(wrong...)
}
