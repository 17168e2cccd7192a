package ca

import (
	"errors"
	"slices"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/store"
)

// A command is what can be done to an issued certificate.
type command string

const (
	suspend command = "suspend"
	resume  command = "resume"
	revoke  command = "revoke"
)

// A transition is one legal change of state and who may bring it about.
type transition struct {
	from  jpki.State
	do    command
	to    jpki.State
	kinds []jpki.Kind
	by    []jpki.Role
}

// transitionsWith returns the only legal changes of state. Revoked has no way out. Whether a suspension may end well
// depends on the kind: a card's never does (it is revoked and issued anew), a phone's authentication certificate does.
func transitionsWith(release []jpki.Kind) []transition {
	return []transition{
		{jpki.Good, suspend, jpki.Suspended, jpki.Kinds, []jpki.Role{jpki.Counter, jpki.CallCentre, jpki.Holder, jpki.System}},
		{jpki.Suspended, resume, jpki.Good, release, []jpki.Role{jpki.Counter, jpki.Holder}},
		{jpki.Good, revoke, jpki.Revoked, jpki.Kinds, []jpki.Role{jpki.Counter, jpki.Register, jpki.Holder, jpki.System}},
		{jpki.Suspended, revoke, jpki.Revoked, jpki.Kinds, []jpki.Role{jpki.Counter, jpki.Register, jpki.Holder, jpki.System}},
	}
}

// A cascade says that the end of a certificate ends those that hang on it.
type cascade struct{ parent, child jpki.Kind }

// cascades: a phone was certified on the strength of the card's signature certificate and its signature certificate
// falls with it (Act, Articles 12 and 16-14).
var cascades = []cascade{{jpki.CardSign, jpki.PhoneSign}}

// allowed finds the transition for a command, or says why there is none.
func (a *Authority) allowed(c store.Certificate, do command, by jpki.Role) (transition, error) {
	state := c.Status.State
	for _, t := range a.transitions {
		if t.from == state && t.do == do && slices.Contains(t.kinds, c.Kind) {
			if !slices.Contains(t.by, by) {
				return t, jpki.Errorf(jpki.Forbidden, "a %s may not %s a certificate", by, do)
			}
			return t, nil
		}
	}
	return transition{}, jpki.Errorf(jpki.ForbiddenChange, "%s %s is %s: no %s from there", c.Kind, c.ID, state, do)
}

// apply changes one certificate's state: the table decides, the status row, the status log and the audit record follow
// in the caller's transaction, and so do the certificates that hang on this one. Every change of state goes through here.
func (a *Authority) apply(tx *store.Tx, by jpki.Actor, c store.Certificate, do command, cause jpki.Cause, now time.Time) ([]Changed, error) {
	t, err := a.allowed(c, do, by.Role)
	if err != nil {
		return nil, err
	}
	next := jpki.Status{State: t.to, Cause: cause, Since: now.UTC().Truncate(time.Second), Version: c.Status.Version + 1}
	if next.Since.Before(c.Status.Since) { // the clock went back; the order of events did not
		next.Since = c.Status.Since
	}
	if t.to != jpki.Good {
		reason, ok := cause.Reason()
		if !ok || (reason == jpki.CertificateHold) != (t.to == jpki.Suspended) {
			return nil, jpki.Errorf(jpki.Malformed, "%q is no cause to %s a certificate", cause, do)
		}
		next.Reason = reason
	}
	if err := tx.SetStatus(jpki.StatusChange{ID: c.ID, Partition: c.Partition, NotAfter: c.NotAfter, Status: next}); err != nil {
		return nil, err
	}
	if err := tx.Audit(now, by, string(do), c.ID.String(), statusDetail(c.Kind, next)); err != nil {
		return nil, err
	}
	changed := []Changed{{ID: c.ID, Kind: c.Kind, Status: next}}
	if t.to != jpki.Revoked {
		return changed, nil
	}
	for _, row := range cascades {
		if row.parent != c.Kind {
			continue
		}
		tokens, err := tx.TokensUnder(c.ID)
		if err != nil {
			return nil, err
		}
		for _, token := range tokens {
			children, err := tx.CertificatesOn(token.ID)
			if err != nil {
				return nil, err
			}
			for _, child := range children {
				if child.Kind != row.child || !child.Live(now) {
					continue
				}
				more, err := a.apply(tx, jpki.Actor{Role: jpki.System, ID: "cascade"}, child, revoke, cause, now)
				if err != nil {
					return nil, err
				}
				changed = append(changed, more...)
			}
		}
	}
	return changed, nil
}

// applyAll gives a command to every live certificate of a list that the table lets take it. Nobody taking it is the
// first refusal.
func (a *Authority) applyAll(tx *store.Tx, by jpki.Actor, certs []store.Certificate, do command, cause jpki.Cause, now time.Time) ([]Changed, error) {
	var changed []Changed
	refusal := jpki.Errorf(jpki.UnknownCertificate, "no certificate in force")
	first := true
	for _, c := range certs {
		if !c.Live(now) || slices.ContainsFunc(changed, func(done Changed) bool { return done.ID == c.ID }) {
			continue
		}
		more, err := a.apply(tx, by, c, do, cause, now)
		if errors.Is(err, jpki.ForbiddenChange) {
			if first {
				refusal, first = err, false
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		changed = append(changed, more...)
	}
	if len(changed) == 0 {
		return nil, refusal
	}
	return changed, nil
}

// statusDetail is what the audit record says of a status.
func statusDetail(k jpki.Kind, s jpki.Status) any {
	d := struct {
		Kind    jpki.Kind  `json:"kind"`
		State   jpki.State `json:"state"`
		Reason  string     `json:"reason,omitempty"`
		Cause   jpki.Cause `json:"cause,omitempty"`
		Version int64      `json:"version"`
	}{Kind: k, State: s.State, Cause: s.Cause, Version: s.Version}
	if s.State != jpki.Good {
		d.Reason = s.Reason.String()
	}
	return d
}

// Changed is one certificate whose status a command changed.
type Changed struct {
	ID     jpki.CertID `json:"certificate"`
	Kind   jpki.Kind   `json:"kind"`
	Status jpki.Status `json:"status"`
}
