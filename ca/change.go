package ca

import (
	"context"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/store"
)

// A ChangeRequest names what a command is given to: every certificate in force on a token, or one certificate.
type ChangeRequest struct {
	IdempotencyKey string       `json:"-"`
	Token          string       `json:"token,omitempty"`
	Certificate    *jpki.CertID `json:"certificate,omitempty"`
	Cause          jpki.Cause   `json:"cause"`
}

// Suspend holds certificates (一時停止): a lost card or phone, or a key in doubt. OCSP and CRLs then say certificateHold.
func (a *Authority) Suspend(ctx context.Context, by jpki.Actor, req ChangeRequest) ([]Changed, error) {
	return a.change(ctx, by, suspend, req)
}

// Resume ends a suspension well, where the table of transitions lets it: by default only for a phone's authentication
// certificate. The others on the token stay as they are.
func (a *Authority) Resume(ctx context.Context, by jpki.Actor, req ChangeRequest) ([]Changed, error) {
	return a.change(ctx, by, resume, req)
}

// Revoke ends certificates for good (失効). [jpki.Discarded] is a cause only before delivery.
func (a *Authority) Revoke(ctx context.Context, by jpki.Actor, req ChangeRequest) ([]Changed, error) {
	return a.change(ctx, by, revoke, req)
}

// change is all three. Steps:
//  1. check the request and who may give this cause
//  2. find the certificates and check that the actor may act for their holder
//  3. put each through the table of transitions, in the same transaction
func (a *Authority) change(ctx context.Context, by jpki.Actor, do command, req ChangeRequest) ([]Changed, error) {
	// 1.
	if err := checkIdempotencyKey(req.IdempotencyKey); err != nil {
		return nil, err
	}
	if (req.Token == "") == (req.Certificate == nil) {
		return nil, jpki.Errorf(jpki.Malformed, "name either a token or a certificate")
	}
	if req.Token != "" {
		if err := checkIdentifier("token", req.Token); err != nil {
			return nil, err
		}
	}
	if err := checkCause(do, req.Cause, by.Role); err != nil {
		return nil, err
	}
	return once(ctx, a, by, req.IdempotencyKey, string(do), req, func(tx *store.Tx, now time.Time) ([]Changed, error) {
		// 2.
		certs, err := a.targets(tx, by, req)
		if err != nil {
			return nil, err
		}
		for _, c := range certs {
			if req.Cause == jpki.Discarded && c.DeliveredAt != nil && c.Live(now) {
				return nil, jpki.Errorf(jpki.ForbiddenChange, "%s was delivered", c.ID)
			}
		}
		// 3.
		if req.Certificate != nil {
			if now.After(certs[0].NotAfter) {
				return nil, jpki.Errorf(jpki.ForbiddenChange, "%s has expired", certs[0].ID)
			}
			return a.apply(tx, by, certs[0], do, req.Cause, now)
		}
		return a.applyAll(tx, by, certs, do, req.Cause, now)
	})
}

// targets reads the certificates a request names, under their holder's lock.
func (a *Authority) targets(tx *store.Tx, by jpki.Actor, req ChangeRequest) ([]store.Certificate, error) {
	var holder string
	if req.Certificate != nil {
		c, err := tx.Certificate(*req.Certificate)
		if err != nil {
			return nil, err
		}
		holder = c.Holder
	} else {
		t, err := tx.Token(req.Token)
		if err != nil {
			return nil, err
		}
		holder = t.Holder
	}
	h, err := tx.Holder(holder)
	if err != nil {
		return nil, err
	}
	if err := mayActFor(by, h); err != nil {
		return nil, err
	}
	if req.Certificate != nil {
		c, err := tx.Certificate(*req.Certificate) // again, now that nobody else can change it
		return []store.Certificate{c}, err
	}
	return tx.CertificatesOn(req.Token)
}

// Deliver records that a token with its certificates reached its holder. Only then do the reasons of the living apply;
// before, a certificate can be discarded. It returns the certificates that had not been delivered.
func (a *Authority) Deliver(ctx context.Context, by jpki.Actor, idempotencyKey, token string) ([]jpki.CertID, error) {
	if err := checkIdempotencyKey(idempotencyKey); err != nil {
		return nil, err
	}
	if err := checkIdentifier("token", token); err != nil {
		return nil, err
	}
	if by.Role != jpki.Counter {
		return nil, jpki.Errorf(jpki.Forbidden, "a %s does not deliver", by.Role)
	}
	return once(ctx, a, by, idempotencyKey, "deliver", token, func(tx *store.Tx, now time.Time) ([]jpki.CertID, error) {
		certs, err := a.targets(tx, by, ChangeRequest{Token: token})
		if err != nil {
			return nil, err
		}
		delivered := []jpki.CertID{}
		for _, c := range certs {
			if c.DeliveredAt != nil || !c.Live(now) {
				continue
			}
			if err := tx.SetDelivered(c.ID, now); err != nil {
				return nil, err
			}
			if err := tx.Audit(now, by, "deliver", c.ID.String(), nil); err != nil {
				return nil, err
			}
			delivered = append(delivered, c.ID)
		}
		return delivered, nil
	})
}

// Certificates returns every certificate a token ever had, oldest first, for the counter.
func (a *Authority) Certificates(ctx context.Context, by jpki.Actor, token string) (certs []store.Certificate, err error) {
	if err := checkIdentifier("token", token); err != nil {
		return nil, err
	}
	err = a.store.View(ctx, func(tx *store.Tx) error {
		certs, err = a.targets(tx, by, ChangeRequest{Token: token})
		return err
	})
	return certs, err
}
