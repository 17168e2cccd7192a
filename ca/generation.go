package ca

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
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
// database learn of it by [Authority.Follow].
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
	a.let(&i)
	return nil
}

// let makes a generation the one that issues here. The caller holds activating.
func (a *Authority) let(i *Issuer) {
	issuing := maps.Clone(*a.issuing.Load())
	issuing[i.ID.CA] = i
	a.held[i.ID] = i
	a.issuing.Store(&issuing)
}

// An OpenKey opens the key of a recorded generation.
type OpenKey func(context.Context, jpki.IssuerID) (crypto.Signer, error)

// Follow lets the generations issue here that the database says issue, whoever activated them. How often it is called bounds
// for how long this process goes on issuing with the former generation, which is trusted as before; issuances under way end with the
// one they began with. A generation whose key cannot be opened, or is another than the recorded certificate's, is an error: the
// former one goes on issuing here, and so does the other CA's follow its own.
func (a *Authority) Follow(ctx context.Context) error {
	a.activating.Lock()
	defer a.activating.Unlock()
	var known []store.Generation
	if err := a.store.View(ctx, func(tx *store.Tx) (err error) { known, err = tx.Generations(); return err }); err != nil {
		return fmt.Errorf("read generations: %w", err)
	}
	var failed []error
	for _, g := range known {
		if now := (*a.issuing.Load())[g.Issuer.CA]; !g.Active || now.ID == g.Issuer {
			continue
		}
		i, err := a.hold(ctx, g)
		if err != nil {
			failed = append(failed, fmt.Errorf("follow generation %s: %w", g.Issuer, err))
			continue
		}
		a.let(i)
		a.log.InfoContext(ctx, "another generation issues", slog.String("generation", g.Issuer.String()))
	}
	return errors.Join(failed...)
}

// hold returns a recorded generation with the use of its key.
func (a *Authority) hold(ctx context.Context, g store.Generation) (*Issuer, error) {
	if i := a.held[g.Issuer]; i != nil && bytes.Equal(i.Certificate.Raw, g.Certificate) {
		return i, nil
	}
	if a.openKey == nil {
		return nil, errors.New("this process does not have its key")
	}
	cert, err := x509.ParseCertificate(g.Certificate)
	if err != nil {
		return nil, fmt.Errorf("read certificate: %w", err)
	}
	key, err := a.openKey(ctx, g.Issuer)
	if err != nil {
		return nil, fmt.Errorf("open key: %w", err)
	}
	i := &Issuer{ID: g.Issuer, Certificate: cert, Signer: key}
	return i, i.check(a.profile)
}

func generationDetail(c *x509.Certificate) map[string]any {
	return map[string]any{"serial": fmt.Sprintf("%X", c.SerialNumber), "not_after": c.NotAfter, "algorithm": c.SignatureAlgorithm.String(), "key": spkiHash(c.RawSubjectPublicKeyInfo)}
}

// Anchors returns the certificates of all generations there have been, oldest first.
func (a *Authority) Anchors(ctx context.Context) (out []*x509.Certificate, err error) {
	err = a.store.View(ctx, func(tx *store.Tx) error {
		out = nil
		generations, err := tx.Generations()
		if err != nil {
			return err
		}
		for _, g := range generations {
			c, err := x509.ParseCertificate(g.Certificate)
			if err != nil {
				return fmt.Errorf("generation %s: %w", g.Issuer, err)
			}
			out = append(out, c)
		}
		return nil
	})
	return out, err
}

// OnRecord returns what is on record of a certificate, octet by octet: [jpki.UnknownCertificate] for any other. That names the
// holder, whoever shows it; that they have the key is for the caller to see to.
func (a *Authority) OnRecord(ctx context.Context, der []byte) (out store.Certificate, err error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return out, jpki.WrapError(jpki.Malformed, err, "the certificate cannot be read")
	}
	serial, err := jpki.SerialFromBig(cert.SerialNumber)
	if err != nil {
		return out, jpki.Errorf(jpki.UnknownCertificate, "")
	}
	err = a.store.View(ctx, func(tx *store.Tx) error {
		generations, err := tx.Generations()
		if err != nil {
			return err
		}
		for _, g := range generations {
			out, err = tx.Certificate(jpki.CertID{Issuer: g.Issuer, Serial: serial})
			if err == nil && bytes.Equal(out.DER, der) {
				return nil
			}
			if err != nil && !errors.Is(err, jpki.UnknownCertificate) {
				return err
			}
		}
		return jpki.Errorf(jpki.UnknownCertificate, "")
	})
	return out, err
}
