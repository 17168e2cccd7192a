package sandbox

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/cmd/internal/lists"
	"github.com/openjpki/jpki/crl"
	"github.com/openjpki/jpki/hsm/signer"
)

// listsConfig is how CRLs are published here, but for the issuers.
func listsConfig(d dir, db *store.Store) crl.Config {
	return crl.Config{Dir: d.path("public", "crl"), Source: lists.Statuses{DB: db, Now: time.Now}, Changes: lists.Statuses{DB: db, Now: time.Now}, Now: time.Now, Gzip: true}
}

// listed is a generation as the CRL publisher knows it.
func (s *System) listed(ctx context.Context, i ca.Issuer) (crl.Issuer, error) {
	return listed(ctx, s.profile.Profile, s.env.StatusURL(), &s.db.StatusReader, i)
}

// listed is that for any database.
func listed(ctx context.Context, p *ca.Profile, statusURL string, r *store.StatusReader, i ca.Issuer) (crl.Issuer, error) {
	return lists.Issuer(ctx, lists.IssuerConfig{
		Profile: p, StatusURL: statusURL, Reader: r, ID: i.ID, Certificate: i.Certificate, Key: forPurpose(i.Signer, signer.ForCRL),
	})
}

// PublishLists publishes the CRLs of the sandbox in path anew from its database, one or all of them, whether that runs or
// not: for operators. Both take turns at the directory. statusURL is where certificates say that the lists are; empty for the
// address of the one that runs. It returns how many were published, refused and failed.
func PublishLists(ctx context.Context, path, statusURL string, only *crl.ID) (outcomes map[string]uint64, err error) {
	err = withGenerations(ctx, path, func(d dir, db *store.Store, all []ca.Issuer) error {
		if statusURL == "" {
			env, err := Load(string(d))
			if err != nil {
				return err
			}
			statusURL = env.StatusURL()
		}
		profile, err := d.chooseProfile("")
		if err != nil {
			return err
		}
		cfg := listsConfig(d, db)
		for _, i := range all {
			issuer, err := listed(ctx, profile.Profile, statusURL, &db.StatusReader, i)
			if err != nil {
				return err
			}
			cfg.Issuers = append(cfg.Issuers, issuer)
		}
		publisher, err := crl.NewPublisher(cfg)
		if err != nil {
			return err
		}
		if only != nil {
			err = publisher.Publish(ctx, *only)
		} else {
			err = publisher.PublishAll(ctx)
		}
		outcomes = publisher.Outcomes.Snapshot()
		return err
	})
	return outcomes, err
}

// withGenerations opens the database and every generation of the sandbox in path.
func withGenerations(ctx context.Context, path string, f func(dir, *store.Store, []ca.Issuer) error) (err error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	d := dir(abs)
	db, err := store.Open(ctx, "sqlite:"+d.path("authority", "ca.db"))
	if err != nil {
		return fmt.Errorf("open the sandbox's database (has the sandbox been started once?): %w", err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	all, _, err := openGenerations(ctx, db, d)
	if err != nil {
		return err
	}
	return f(d, db, all)
}
