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

// changesAttributes and needsPlace say what an event must bring with it.
var (
	changesAttributes = []jpki.EventType{jpki.Registered, jpki.AddressChanged, jpki.NameChanged, jpki.BirthDateAmended, jpki.SexAmended, jpki.AddressRenamed}
	needsPlace        = []jpki.EventType{jpki.Registered, jpki.AddressChanged, jpki.AddressRenamed}
)

// ApplyResidentEvent takes in an event of the resident register (異動) and lets the certificates follow by rule, at once or
// when the event becomes effective. The same event again gets the same outcome; the same identifier with other content is
// [jpki.EventConflict]. Steps:
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

// ApplyDue lets waiting events take effect whose time has come, one transaction each, and returns how many did. An event
// that the state of the register no longer allows stays waiting and is reported.
func (a *Authority) ApplyDue(ctx context.Context) (applied int, err error) {
	const batch = 100
	now := a.now()
	var due []store.ResidentEvent
	if err := a.store.View(ctx, func(tx *store.Tx) (err error) { due, err = tx.DueEvents(now, batch); return err }); err != nil {
		return 0, fmt.Errorf("list due events: %w", err)
	}
	var failed []error
	for _, d := range due {
		err := a.store.Update(ctx, func(tx *store.Tx) error {
			now, found, err := tx.ResidentEvent(d.ID)
			if err != nil || !found || now.AppliedAt != nil {
				return err
			}
			var e jpki.Event
			if err := json.Unmarshal([]byte(now.Body), &e); err != nil {
				return fmt.Errorf("read waiting event: %w", err)
			}
			_, name, _ := strings.Cut(d.Actor, ":")
			_, err = a.takeEffect(tx, jpki.Actor{Role: jpki.Register, ID: name}, e, a.now())
			return err
		})
		if err != nil {
			failed = append(failed, fmt.Errorf("event %s: %w", d.ID, err))
			continue
		}
		applied++
	}
	return applied, errors.Join(failed...)
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
	if e.Attributes != nil {
		h.Attributes = *e.Attributes
	}
	if e.Municipality != "" {
		h.Municipality = e.Municipality
	}
	switch e.Type {
	case jpki.Registered:
		h.Ended, h.StayUntil = "", e.StayUntil
	case jpki.StayExtended:
		h.StayUntil = e.StayUntil
	case jpki.GuardianshipBegan:
		h.Guardianship = true
	case jpki.GuardianshipEnded:
		h.Guardianship = false
	case jpki.Death, jpki.Departure:
		h.Ended = e.Type
	}
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
	if err := tx.EventApplied(e.ID, string(text), now); err != nil {
		return outcome, err
	}
	return outcome, tx.Audit(now, by, "resident-event", e.ID, map[string]any{"type": e.Type, "holder": e.Holder, "changed": len(outcome.Changed)})
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
