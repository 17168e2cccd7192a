package ca

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"maps"
	"slices"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/store"
)

// AddGeneration records a new key of a CA, under the next number. It does not issue yet: before it does, its certificate has
// to reach whoever verifies, and a responder and CRLs have to stand ready for it. The name of the CA stays the same and so do
// the earlier generations, whose certificates, CRLs and OCSP answers go on to their end.
//
// The problems it reports: Forbidden, Conflict for a number that is not the next and for the key of another generation.
func (a *Authority) AddGeneration(ctx context.Context, by jpki.Actor, i Issuer) error {
	if by.Role != jpki.System {
		return jpki.Errorf(jpki.Forbidden, "a %s does not add keys", by.Role)
	}
	if err := i.check(a.profile); err != nil {
		return fmt.Errorf("add generation %s: %w", i.ID, err)
	}
	now := a.now()
	return a.store.Update(ctx, func(tx *store.Tx) error {
		known, err := tx.Generations()
		if err != nil {
			return fmt.Errorf("read generations: %w", err)
		}
		next := 1
		for _, g := range known {
			cert, err := x509.ParseCertificate(g.Certificate)
			if err != nil {
				return fmt.Errorf("read generation %s: %w", g.Issuer, err)
			}
			if bytes.Equal(cert.RawSubjectPublicKeyInfo, i.Certificate.RawSubjectPublicKeyInfo) {
				return jpki.Errorf(jpki.Conflict, "generation %s has this key", g.Issuer)
			}
			if g.Issuer.CA == i.ID.CA {
				next = max(next, g.Issuer.Generation+1)
			}
		}
		if i.ID.Generation != next {
			return jpki.Errorf(jpki.Conflict, "the next generation of the %s CA is %d", i.ID.CA, next)
		}
		if err := tx.AddGeneration(store.Generation{Issuer: i.ID, Certificate: i.Certificate.Raw}, now); err != nil {
			return err
		}
		return tx.Audit(now, by, "generation.added", i.ID.String(), generationDetail(i.Certificate))
	})
}

// Activate lets a recorded generation issue in place of the one that does, from one issuance to the next: those under way end
// with the generation they began with. It may also be an earlier one, if the newer cannot be used. Other processes on the
// database issue with the generation that they were started with until they are started anew.
//
// The problems it reports: Forbidden, NotFound for a generation that [Authority.AddGeneration] has not recorded, Conflict for
// another certificate than the recorded one and for one that is not valid now.
func (a *Authority) Activate(ctx context.Context, by jpki.Actor, i Issuer) error {
	if by.Role != jpki.System {
		return jpki.Errorf(jpki.Forbidden, "a %s does not choose keys", by.Role)
	}
	if err := i.check(a.profile); err != nil {
		return fmt.Errorf("activate generation %s: %w", i.ID, err)
	}
	now := a.now()
	if now.Before(i.Certificate.NotBefore) || now.After(i.Certificate.NotAfter) {
		return jpki.Errorf(jpki.Conflict, "the certificate of generation %s is not valid now", i.ID)
	}
	// The database and this process must agree on the last of several.
	a.activating.Lock()
	defer a.activating.Unlock()
	err := a.store.Update(ctx, func(tx *store.Tx) error {
		known, err := tx.Generations()
		if err != nil {
			return fmt.Errorf("read generations: %w", err)
		}
		at := slices.IndexFunc(known, func(g store.Generation) bool { return g.Issuer == i.ID })
		switch {
		case at < 0:
			return jpki.Errorf(jpki.NotFound, "generation %s is not recorded", i.ID)
		case !bytes.Equal(known[at].Certificate, i.Certificate.Raw):
			return jpki.Errorf(jpki.Conflict, "generation %s is recorded with another certificate", i.ID)
		case known[at].Active:
			return nil
		}
		if err := tx.ActivateGeneration(i.ID); err != nil {
			return err
		}
		return tx.Audit(now, by, "generation.activated", i.ID.String(), generationDetail(i.Certificate))
	})
	if err != nil {
		return err
	}
	issuing := maps.Clone(*a.issuing.Load())
	issuing[i.ID.CA] = &i
	a.issuing.Store(&issuing)
	return nil
}

func generationDetail(c *x509.Certificate) map[string]any {
	return map[string]any{"serial": fmt.Sprintf("%X", c.SerialNumber), "not_after": c.NotAfter, "algorithm": c.SignatureAlgorithm.String(), "key": spkiHash(c.RawSubjectPublicKeyInfo)}
}
