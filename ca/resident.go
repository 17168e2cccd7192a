package ca

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/store"
)

// An EventOutcome is what became of a register event.
type EventOutcome struct {
	Applied bool      `json:"applied"` // false: it is recorded and waits for its time
	Changed []Changed `json:"changed"` // certificates that it ended
}

// changesAttributes and needsPlace say what an event must bring with it; these and the others, what it writes into the
// register entry.
var (
	changesAttributes = []jpki.EventType{jpki.Registered, jpki.AddressChanged, jpki.NameChanged, jpki.BirthDateAmended, jpki.SexAmended, jpki.AddressRenamed}
	needsPlace        = []jpki.EventType{jpki.Registered, jpki.AddressChanged, jpki.AddressRenamed}
	changesName       = []jpki.EventType{jpki.Registered, jpki.NameChanged}
	changesBirthDate  = []jpki.EventType{jpki.Registered, jpki.BirthDateAmended}
	changesSex        = []jpki.EventType{jpki.Registered, jpki.SexAmended}
	changesStay       = []jpki.EventType{jpki.Registered, jpki.StayExtended}
	changesWardship   = []jpki.EventType{jpki.GuardianshipBegan, jpki.GuardianshipEnded}
	changesPresence   = []jpki.EventType{jpki.Registered, jpki.Departure, jpki.Death}
)

// ApplyResidentEvent takes in an event of the resident register (異動) and lets the certificates follow by rule, at once or
// when the event becomes effective. The same event again gets the same outcome; the same identifier with other content is
// [jpki.EventConflict]. An event that arrives after one that became effective later ends certificates as any other, but does
// not set the register entry back. Steps:
//  1. check the event
//  2. in one transaction: record it under its own identifier
//  3. if it is effective: change the register entry, then put each certificate in force through rules and transitions
func (a *Authority) ApplyResidentEvent(ctx context.Context, by jpki.Actor, e jpki.Event) (EventOutcome, error) {
	// 1.
	if by.Role != jpki.Register {
		return EventOutcome{}, jpki.Errorf(jpki.Forbidden, "a %s does not report register events", by.Role)
	}
	if err := a.checkEvent(&e); err != nil {
		return EventOutcome{}, err
	}
	hash, err := requestHash("resident-event", e)
	if err != nil {
		return EventOutcome{}, err
	}
	body, err := json.Marshal(e)
	if err != nil {
		return EventOutcome{}, fmt.Errorf("encode event: %w", err)
	}
	now := a.now()
	var outcome EventOutcome
	err = a.store.Update(ctx, func(tx *store.Tx) error {
		outcome = EventOutcome{Changed: []Changed{}}
		// 2.
		known, found, err := tx.ResidentEvent(e.ID)
		switch {
		case err != nil:
			return err
		case found && known.BodyHash != hash:
			return jpki.Errorf(jpki.EventConflict, "event %s", e.ID)
		case found && known.AppliedAt == nil:
			return nil
		case found && known.Refused != "":
			return jpki.Errorf(known.Refused, "event %s could not take effect when its time came", e.ID)
		case found:
			return json.Unmarshal([]byte(known.Body), &outcome)
		}
		record := store.ResidentEvent{ID: e.ID, Holder: e.Holder, Type: e.Type, EffectiveAt: e.EffectiveAt, BodyHash: hash, Body: string(body), Actor: by.String()}
		if err := tx.AddResidentEvent(record, now); err != nil {
			return err
		}
		if e.EffectiveAt.After(now) {
			return tx.Audit(now, by, "resident-event.waiting", e.ID, map[string]any{"type": e.Type, "effective_at": e.EffectiveAt})
		}
		// 3.
		outcome, err = a.takeEffect(tx, by, e, now)
		return err
	})
	return outcome, err
}

// ApplyDue lets waiting events take effect whose time has come, one transaction each, and returns how many did. One that
// the register entry no longer allows, such as a move of somebody who died meanwhile, is closed without effect and its
// content forgotten. One that fails otherwise goes on waiting and is reported; it holds up no other.
func (a *Authority) ApplyDue(ctx context.Context) (applied int, err error) {
	const batch = 100
	now := a.now()
	var failed []error
	for last := (store.ResidentEvent{}); ; {
		var due []store.ResidentEvent
		if err := a.store.View(ctx, func(tx *store.Tx) (err error) { due, err = tx.DueEvents(now, last, batch); return err }); err != nil {
			return applied, errors.Join(append(failed, fmt.Errorf("list due events: %w", err))...)
		}
		for _, d := range due {
			switch err := a.applyWaiting(ctx, d); {
			case err == nil:
				applied++
			case errors.Is(err, jpki.Unavailable):
				return applied, errors.Join(append(failed, err)...)
			case !errors.Is(err, jpki.EventConflict):
				failed = append(failed, err)
			}
		}
		if len(due) < batch {
			return applied, errors.Join(failed...)
		}
		last = due[batch-1]
	}
}

// applyWaiting lets one event take effect, or closes it and reports [jpki.EventConflict].
func (a *Authority) applyWaiting(ctx context.Context, d store.ResidentEvent) error {
	_, name, _ := strings.Cut(d.Actor, ":")
	by := jpki.Actor{Role: jpki.Register, ID: name}
	err := a.store.Update(ctx, func(tx *store.Tx) error {
		now, found, err := tx.ResidentEvent(d.ID)
		if err != nil || !found || now.AppliedAt != nil {
			return err
		}
		var e jpki.Event
		if err := json.Unmarshal([]byte(now.Body), &e); err != nil {
			return fmt.Errorf("read waiting event: %w", err)
		}
		_, err = a.takeEffect(tx, by, e, a.now())
		return err
	})
	if errors.Is(err, jpki.EventConflict) {
		closed := a.store.Update(ctx, func(tx *store.Tx) error {
			now := a.now()
			if err := tx.EventApplied(d.ID, "", jpki.EventConflict, now); err != nil {
				return err
			}
			return tx.Audit(now, by, "resident-event.refused", d.ID, map[string]any{"type": d.Type, "holder": d.Holder})
		})
		if closed != nil {
			err = closed
		}
	}
	if err != nil {
		return fmt.Errorf("event %s: %w", d.ID, err)
	}
	return nil
}

// takeEffect changes the register entry and the certificates.
func (a *Authority) takeEffect(tx *store.Tx, by jpki.Actor, e jpki.Event, now time.Time) (EventOutcome, error) {
	outcome := EventOutcome{Applied: true, Changed: []Changed{}}
	h, err := tx.Holder(e.Holder)
	switch {
	case errors.Is(err, jpki.UnknownHolder) && e.Type == jpki.Registered:
		h = store.Holder{ID: e.Holder}
	case err != nil:
		return outcome, err
	case e.Type == jpki.Registered && h.Ended != jpki.Departure:
		return outcome, jpki.Errorf(jpki.EventConflict, "the holder is in the register already")
	case e.Type != jpki.Registered && h.Ended != "":
		return outcome, jpki.Errorf(jpki.EventConflict, "the holder has left the register")
	}
	later, err := tx.EventsSince(e.Holder, e.EffectiveAt)
	if err != nil {
		return outcome, err
	}
	enter(&h, e, later)
	if err := tx.PutHolder(h, now); err != nil {
		return outcome, err
	}
	certs, err := tx.CertificatesOf(h.ID)
	if err != nil {
		return outcome, err
	}
	for _, r := range rules {
		if r.on != e.Type || r.cause == jpki.NoCause {
			continue
		}
		for _, c := range certs {
			if c.Kind != r.kind || !c.Live(now) || slices.ContainsFunc(outcome.Changed, func(done Changed) bool { return done.ID == c.ID }) {
				continue
			}
			changed, err := a.apply(tx, by, c, revoke, r.cause, now)
			if err != nil {
				return outcome, err
			}
			outcome.Changed = append(outcome.Changed, changed...)
		}
	}
	text, err := json.Marshal(outcome)
	if err != nil {
		return outcome, fmt.Errorf("encode outcome: %w", err)
	}
	if err := tx.EventApplied(e.ID, string(text), "", now); err != nil {
		return outcome, err
	}
	return outcome, tx.Audit(now, by, "resident-event", e.ID, map[string]any{"type": e.Type, "holder": e.Holder, "changed": len(outcome.Changed)})
}

// enter writes an event into the register entry. One that comes late, after events of the types in later which became
// effective after it, writes only what it is about, and that only if none of them was about the same.
func enter(h *store.Holder, e jpki.Event, later []jpki.EventType) {
	latest := func(group []jpki.EventType) bool {
		return slices.Contains(group, e.Type) && !slices.ContainsFunc(later, func(t jpki.EventType) bool { return slices.Contains(group, t) })
	}
	if e.Attributes != nil && len(later) == 0 {
		h.Attributes = *e.Attributes
	}
	if latest(changesName) {
		h.Attributes.Name, h.Attributes.NameSubstitutes = e.Attributes.Name, e.Attributes.NameSubstitutes
	}
	if latest(changesBirthDate) {
		h.Attributes.BirthDate = e.Attributes.BirthDate
	}
	if latest(changesSex) {
		h.Attributes.Sex = e.Attributes.Sex
	}
	if latest(needsPlace) {
		h.Attributes.Address, h.Attributes.AddressSubstitutes, h.Municipality = e.Attributes.Address, e.Attributes.AddressSubstitutes, e.Municipality
	}
	if latest(changesStay) {
		h.StayUntil = e.StayUntil
	}
	if latest(changesWardship) {
		h.Guardianship = e.Type == jpki.GuardianshipBegan
	}
	switch {
	case e.Type == jpki.Death: // whatever came after, nobody returns from it
		h.Ended = jpki.Death
	case latest(changesPresence) && e.Type == jpki.Departure:
		h.Ended = jpki.Departure
	case latest(changesPresence):
		h.Ended = ""
	}
}

// checkEvent checks an event's form and completes its substitute marks.
func (a *Authority) checkEvent(e *jpki.Event) error {
	if err := errors.Join(checkIdentifier("id", e.ID), checkIdentifier("holder", e.Holder)); err != nil {
		return err
	}
	if !slices.Contains(jpki.EventTypes, e.Type) {
		return jpki.Errorf(jpki.Malformed, "type is no event of the register")
	}
	if e.EffectiveAt.IsZero() {
		return jpki.Errorf(jpki.Malformed, "effective_at is required")
	}
	e.EffectiveAt = e.EffectiveAt.UTC() // one instant is one event, in whatever zone it is told
	if e.StayUntil != nil {
		t := e.StayUntil.UTC()
		e.StayUntil = &t
	}
	if want := slices.Contains(changesAttributes, e.Type); want != (e.Attributes != nil) {
		return jpki.Errorf(jpki.Malformed, "attributes must be given exactly when they change")
	}
	if want := slices.Contains(needsPlace, e.Type); want != (e.Municipality != "") {
		return jpki.Errorf(jpki.Malformed, "municipality must be given exactly when it may change")
	}
	if e.Municipality != "" {
		if _, ok := a.profile.municipality(e.Municipality); !ok {
			return jpki.Errorf(jpki.Malformed, "municipality is not one of the profile's")
		}
	}
	if e.Type == jpki.StayExtended && e.StayUntil == nil || e.StayUntil != nil && e.Type != jpki.StayExtended && e.Type != jpki.Registered {
		return jpki.Errorf(jpki.Malformed, "stay_until must be given exactly when it changes")
	}
	if e.Attributes == nil {
		return nil
	}
	attributes := *e.Attributes
	if jpki.ContainsMyNumber(attributes.Name) || jpki.ContainsMyNumber(attributes.Address) {
		return jpki.Errorf(jpki.MyNumberPresent, "in the attributes")
	}
	if attributes.NameSubstitutes == "" {
		attributes.NameSubstitutes = strings.Repeat("0", utf8.RuneCountInString(attributes.Name))
	}
	if attributes.AddressSubstitutes == "" {
		attributes.AddressSubstitutes = strings.Repeat("0", utf8.RuneCountInString(attributes.Address))
	}
	if err := attributes.Validate(); err != nil {
		return jpki.WrapError(jpki.Malformed, err, "attributes: "+err.Error())
	}
	e.Attributes = &attributes
	return nil
}
