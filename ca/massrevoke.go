package ca

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/store"
)

// massCauses are what an operator may state for many certificates at once. None of them needs the holder's word: keys turned
// out weak, a station wrote what is not so, a CA key leaked (Act, Articles 10, 13 and 14).
var massCauses = []jpki.Cause{jpki.KeyCompromised, jpki.RecordError, jpki.CAKeyLeak}

// A MassRevocation says which certificates to revoke, all together, and why.
type MassRevocation struct {
	Name     string // of the order; the same again goes on where it was interrupted
	Criteria store.Criteria
	Cause    jpki.Cause
	Expect   int // how many certificates in force must fit when the order is first given

	PerSecond int                   `json:"-"` // certificates, at most; 0 means as fast as it goes
	Progress  func(done, total int) `json:"-"` // called after each group; nil if nobody watches
}

// massGroup is how many certificates share a transaction: few enough that nobody at a counter waits for their locks long.
const massGroup = 100

// massPage is how many are looked for at a time: a look can cost as much as reading all there are.
const massPage = 50_000

// Operator returns the actor under which an operator's orders are recorded.
func Operator(name string) jpki.Actor { return jpki.Actor{Role: jpki.System, ID: "operator-" + name} }

// PreviewRevocation counts the certificates in force that fit, by kind and municipality. It tells nothing of persons.
func (a *Authority) PreviewRevocation(ctx context.Context, criteria store.Criteria) (counts []store.MatchCount, err error) {
	if err := checkCriteria(criteria); err != nil {
		return nil, err
	}
	now := a.now()
	err = a.store.View(ctx, func(tx *store.Tx) error {
		counts, err = tx.CountMatches(criteria, now)
		return err
	})
	return counts, err
}

// RevokeAll revokes every certificate in force that fits, each by the table of transitions and with an entry of its own in
// the audit record. It returns how many fitted at first. Steps:
//  1. check the order
//  2. the first time only: count, compare with what is expected, and take the order's name
//  3. group by group: lock the holders, revoke what is still in force, commit
//  4. look for what was issued meanwhile, until nothing fits any more; then note that the order was carried out
//
// Interrupted, it leaves whole groups revoked; the same order again does the rest. An order under the name of another is
// refused, and one that was carried out does nothing more. Certificates that hang on the revoked ones end with them.
func (a *Authority) RevokeAll(ctx context.Context, by jpki.Actor, m MassRevocation) (total int, err error) {
	// 1.
	switch {
	case by.Role != jpki.System:
		return 0, jpki.Errorf(jpki.Forbidden, "a %s does not revoke many at once", by.Role)
	case !slices.Contains(massCauses, m.Cause):
		return 0, jpki.Errorf(jpki.Malformed, "cause is none of those to revoke many certificates at once")
	case m.PerSecond < 0 || m.PerSecond > 1_000_000:
		return 0, jpki.Errorf(jpki.Malformed, "a rate is 1 to 1000000, or 0 for none")
	}
	if err := errors.Join(checkIdempotencyKey(m.Name), checkIdentifier("operator", by.ID), checkCriteria(m.Criteria)); err != nil {
		return 0, err
	}
	// 2.
	total, done, err := a.takeOrder(ctx, by, m)
	if done || err != nil {
		return total, err
	}
	if err := a.store.Analyze(ctx); err != nil {
		return total, err
	}
	var turn <-chan time.Time
	if m.PerSecond > 0 {
		ticker := time.NewTicker(time.Second * massGroup / time.Duration(m.PerSecond))
		defer ticker.Stop()
		turn = ticker.C
	}
	// 3.
	var after jpki.CertID
	found, revoked := false, 0
	for {
		var list []store.Match
		now := a.now()
		err := a.store.View(ctx, func(tx *store.Tx) (err error) {
			list, err = tx.Matches(m.Criteria, now, after, massPage)
			return err
		})
		if err != nil {
			return total, err
		}
		if len(list) == 0 {
			// 4.
			if !found {
				return total, a.store.Update(ctx, func(tx *store.Tx) error { return endOnce(tx, by, m.Name, total) })
			}
			after, found = jpki.CertID{}, false
			continue
		}
		for group := range slices.Chunk(list, massGroup) {
			n, err := a.revokeGroup(ctx, by, m.Cause, group)
			if err != nil {
				return total, err
			}
			after, found, revoked = group[len(group)-1].ID, true, revoked+n
			if m.Progress != nil {
				m.Progress(revoked, total)
			}
			if turn != nil {
				select {
				case <-turn:
				case <-ctx.Done():
					return total, ctx.Err()
				}
			}
		}
	}
}

// takeOrder is step 2. total is how many certificates the order is still about; done says that it was carried out before.
func (a *Authority) takeOrder(ctx context.Context, by jpki.Actor, m MassRevocation) (total int, done bool, err error) {
	hash, err := requestHash("revoke-all", m)
	if err != nil {
		return 0, false, err
	}
	now := a.now()
	err = a.store.Update(ctx, func(tx *store.Tx) error {
		total, done = 0, false
		_, ended, err := tx.BeginOnce(by.String(), m.Name, hash, now)
		going := errors.Is(err, jpki.InProgress)
		if err != nil && !going {
			return err
		}
		if ended {
			total, done = m.Expect, true
			return nil
		}
		counts, err := tx.CountMatches(m.Criteria, now)
		if err != nil {
			return err
		}
		for _, c := range counts {
			total += c.Count
		}
		if going {
			return nil
		}
		if total != m.Expect {
			return jpki.Errorf(jpki.Conflict, "%d certificates fit, not %d: look again before you order it", total, m.Expect)
		}
		return tx.Audit(now, by, "revoke-all", m.Name, struct {
			Cause jpki.Cause `json:"cause"`
			Count int        `json:"count"`
		}{m.Cause, total})
	})
	return total, done, err
}

// revokeGroup revokes what is in force of a group, in one transaction.
func (a *Authority) revokeGroup(ctx context.Context, by jpki.Actor, cause jpki.Cause, list []store.Match) (revoked int, err error) {
	now := a.now()
	err = a.store.Update(ctx, func(tx *store.Tx) error {
		revoked = 0
		if err := tx.ReadMatches(list); err != nil {
			return err
		}
		for _, m := range list {
			c, err := tx.Certificate(m.ID)
			if err != nil {
				return err
			}
			if !c.Live(now) { // somebody was quicker, or it fell with another of the group
				continue
			}
			if _, err := a.apply(tx, by, c, revoke, cause, now); err != nil {
				return err
			}
			revoked++
		}
		return nil
	})
	return revoked, err
}

// checkCriteria refuses what would mean every certificate there is, by mistake or on purpose.
func checkCriteria(c store.Criteria) error {
	switch {
	case len(c.KeyHashes) == 0 && c.Actor == "" && c.KeyPrefix == "" && c.From.IsZero() && c.Until.IsZero() && c.Issuer == (jpki.IssuerID{}):
		return jpki.Errorf(jpki.Malformed, "no criterion is given")
	case len(c.KeyHashes) > store.MaxKeyHashes:
		return jpki.Errorf(jpki.TooLarge, "more than %d key hashes", store.MaxKeyHashes)
	case !c.From.IsZero() && !c.Until.IsZero() && !c.From.Before(c.Until):
		return jpki.Errorf(jpki.Malformed, "the time range is empty")
	}
	if c.KeyPrefix != "" {
		return checkIdentifier("key prefix", c.KeyPrefix)
	}
	return nil
}
