package ca

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
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

	// Refused is why an event that had waited could not take effect when its time came; it never will.
	Refused jpki.Problem `json:"refused,omitempty"`
}

// changesAttributes and needsPlace say what an event must bring with it.
var (
	changesAttributes = []jpki.EventType{jpki.Registered, jpki.AddressChanged, jpki.NameChanged, jpki.BirthDateAmended, jpki.SexAmended, jpki.AddressRenamed}
	needsPlace        = []jpki.EventType{jpki.Registered, jpki.AddressChanged, jpki.AddressRenamed}
)

// An EventResult is what became of one of many register events: its outcome, or why it was refused.
type EventResult struct {
	EventOutcome
	Err error
}

// MaxEventGroup is how many events [Authority.ApplyResidentEvents] takes in at once.
const MaxEventGroup = 200

// ApplyResidentEvent takes in an event of the resident register (異動) and lets the certificates follow by rule, at once or
// when the event becomes effective. The same event again gets the same outcome; the same identifier with other content is
// [jpki.EventConflict].
func (a *Authority) ApplyResidentEvent(ctx context.Context, by jpki.Actor, e jpki.Event) (EventOutcome, error) {
	r := a.ApplyResidentEvents(ctx, by, []jpki.Event{e})[0]
	return r.EventOutcome, r.Err
}

// ApplyResidentEvents does what [Authority.ApplyResidentEvent] does for up to [MaxEventGroup] events, in their order and
// in one transaction: one commit for all is what makes a night's moves feasible. One that is refused does not hinder the
// others; if the transaction fails, each is tried on its own. Steps:
//  1. check the events
//  2. in one transaction: find out which are known, and record the others under their own identifiers
//  3. change the register entries by those that are effective, then put each certificate in force through rules and transitions
func (a *Authority) ApplyResidentEvents(ctx context.Context, by jpki.Actor, events []jpki.Event) []EventResult {
	results := make([]EventResult, len(events))
	var sound []arrival
	for i, e := range events {
		// 1.
		arrived, err := a.arrive(by, e)
		if len(events) > MaxEventGroup {
			err = jpki.Errorf(jpki.TooLarge, "more than %d events", MaxEventGroup)
		}
		if err != nil {
			results[i].Err = err
			continue
		}
		arrived.result = &results[i]
		sound = append(sound, arrived)
	}
	a.takeInAll(ctx, sound)
	if _, err := a.statistics.Wrote(ctx, a.store, len(sound)); err != nil { // nobody's answer depends on it
		a.log.WarnContext(ctx, "the database's statistics are old", slog.Any("error", err))
	}
	return results
}

// An arrival is a checked event on its way into the register.
type arrival struct {
	jpki.Event
	by     jpki.Actor
	hash   string // of the event as it was reported
	body   string
	result *EventResult
}

func (a *Authority) arrive(by jpki.Actor, e jpki.Event) (arrival, error) {
	if by.Role != jpki.Register {
		return arrival{}, jpki.Errorf(jpki.Forbidden, "a %s does not report register events", by.Role)
	}
	if err := a.checkEvent(&e); err != nil {
		return arrival{}, err
	}
	body, err := json.Marshal(e)
	if err != nil {
		return arrival{}, fmt.Errorf("encode event: %w", err)
	}
	hash, err := requestHash("resident-event", e)
	return arrival{Event: e, by: by, hash: hash, body: string(body)}, err
}

// takeInAll takes events in together or, where that fails, one by one.
func (a *Authority) takeInAll(ctx context.Context, events []arrival) {
	if len(events) == 0 {
		return
	}
	err := a.store.Update(ctx, func(tx *store.Tx) error { return a.takeIn(tx, events) })
	switch {
	case err == nil:
	case len(events) == 1:
		*events[0].result = EventResult{Err: err}
	default:
		for i := range events {
			a.takeInAll(ctx, events[i:i+1])
		}
	}
}

// takeIn does steps 2 and 3 for events in one transaction. What it refuses it notes in the event's result and goes on;
// an error means that nothing at all has happened.
func (a *Authority) takeIn(tx *store.Tx, events []arrival) error {
	now := a.now()
	var ids, names, touched []string
	for _, e := range events {
		ids, names = append(ids, e.ID), append(names, e.Holder)
	}
	known, err := tx.ResidentEvents(ids)
	if err != nil {
		return fmt.Errorf("look for events: %w", err)
	}
	holders, err := tx.Holders(names)
	if err != nil {
		return fmt.Errorf("lock holders: %w", err)
	}
	if len(events) > 1 {
		for _, e := range events {
			if _, found := known[e.ID]; !found && endsSome(e.Type) {
				touched = append(touched, e.Holder)
			}
		}
		if err := tx.ReadAhead(store.Ahead{Certificates: slices.Compact(slices.Sorted(slices.Values(touched)))}); err != nil {
			return fmt.Errorf("read certificates: %w", err)
		}
	}
	changed := map[string]store.Holder{}
	var records []store.ResidentEvent
	for _, e := range events {
		*e.result = EventResult{EventOutcome: EventOutcome{Changed: []Changed{}}}
		record, found := known[e.ID]
		waits := e.EffectiveAt.After(now)
		switch {
		case found && record.BodyHash != e.hash:
			e.result.Err = jpki.Errorf(jpki.EventConflict, "event %s", e.ID)
			continue
		case found && record.AppliedAt != nil:
			if err := json.Unmarshal([]byte(record.Body), &e.result.EventOutcome); err != nil {
				return fmt.Errorf("read outcome: %w", err)
			}
			if why := e.result.Refused; why != "" {
				e.result.Err = jpki.Errorf(why, "event %s could not take effect when its time came", e.ID)
			}
			continue
		case found && waits:
			continue
		case !found:
			record = store.ResidentEvent{ID: e.ID, Holder: e.Holder, Type: e.Type, EffectiveAt: e.EffectiveAt, BodyHash: e.hash, Body: e.body, Actor: e.by.String()}
		}
		if waits {
			if err := tx.Audit(now, e.by, "resident-event.waiting", e.ID, map[string]any{"type": e.Type, "effective_at": e.EffectiveAt}); err != nil {
				return err
			}
			records, known[e.ID] = append(records, record), record
			continue
		}
		h, entered := holders[e.Holder]
		late, err := admit(h, entered, e.Event)
		if err != nil {
			e.result.Err = err
			if found && errors.Is(err, jpki.EventConflict) {
				if known[e.ID], err = closeEvent(tx, e, record, now); err != nil {
					return err
				}
			}
			continue
		}
		before := h
		if h.ID = e.Holder; !late {
			if e.result.Changed, err = a.takeEffect(tx, e.by, &h, e.Event, now); err != nil {
				return err
			}
		}
		if e.result.Applied = true; h != before {
			holders[h.ID], changed[h.ID] = h, h
		}
		text, err := json.Marshal(e.result.EventOutcome)
		if err != nil {
			return fmt.Errorf("encode outcome: %w", err)
		}
		record.Body, record.AppliedAt = string(text), &now
		if known[e.ID] = record; !found {
			records = append(records, record)
		} else if err := tx.EventApplied(e.ID, record.Body, now); err != nil {
			return err
		}
		if err := tx.Audit(now, e.by, "resident-event", e.ID, map[string]any{"type": e.Type, "holder": e.Holder, "changed": len(e.result.Changed)}); err != nil {
			return err
		}
	}
	if err := tx.PutHolders(slices.Collect(maps.Values(changed)), now); err != nil {
		return err
	}
	return tx.AddResidentEvents(records, now)
}

// ApplyDue lets waiting events take effect whose time has come and returns how many did. One that the register entry no
// longer allows, such as a move of somebody who died meanwhile, is closed without effect and its content forgotten. One that
// fails otherwise goes on waiting and is reported; it holds up no other.
func (a *Authority) ApplyDue(ctx context.Context) (applied int, err error) {
	now := a.now()
	var failed []error
	for last := (store.ResidentEvent{}); ; {
		var due []store.ResidentEvent
		if err := a.store.View(ctx, func(tx *store.Tx) (err error) { due, err = tx.DueEvents(now, last, MaxEventGroup); return err }); err != nil {
			return applied, fmt.Errorf("list due events: %w", err)
		}
		results := make([]EventResult, len(due))
		var events []arrival
		for i, d := range due {
			_, name, _ := strings.Cut(d.Actor, ":")
			e := arrival{by: jpki.Actor{Role: jpki.Register, ID: name}, hash: d.BodyHash, result: &results[i]}
			if err := json.Unmarshal([]byte(d.Body), &e.Event); err != nil {
				results[i].Err = fmt.Errorf("read waiting event: %w", err)
				continue
			}
			events = append(events, e)
		}
		a.takeInAll(ctx, events)
		for i, r := range results {
			switch {
			case r.Err == nil:
				applied++
			case !errors.Is(r.Err, jpki.EventConflict):
				failed = append(failed, fmt.Errorf("event %s: %w", due[i].ID, r.Err))
			}
		}
		if len(due) < MaxEventGroup {
			return applied, errors.Join(failed...)
		}
		last = due[len(due)-1]
	}
}

// closeEvent ends an event that had waited in vain, such as the move of somebody who died meanwhile: its content is
// forgotten, its refusal kept. It returns what is now recorded of it.
func closeEvent(tx *store.Tx, e arrival, record store.ResidentEvent, now time.Time) (store.ResidentEvent, error) {
	text, err := json.Marshal(EventOutcome{Changed: []Changed{}, Refused: jpki.EventConflict})
	if err != nil {
		return record, fmt.Errorf("encode outcome: %w", err)
	}
	record.Body, record.AppliedAt = string(text), &now
	if err := tx.EventApplied(e.ID, record.Body, now); err != nil {
		return record, err
	}
	return record, tx.Audit(now, e.by, "resident-event.refused", e.ID, map[string]any{"type": e.Type, "holder": e.Holder})
}

// endsSome reports whether an event of this type may end certificates.
func endsSome(t jpki.EventType) bool {
	return slices.ContainsFunc(rules, func(r rule) bool { return r.on == t && r.cause != jpki.NoCause })
}

// takeEffect changes the register entry and the certificates, and returns which.
func (a *Authority) takeEffect(tx *store.Tx, by jpki.Actor, h *store.Holder, e jpki.Event, now time.Time) ([]Changed, error) {
	out := []Changed{}
	follow := take(h, e)
	if len(follow) == 0 {
		return out, nil
	}
	certs, err := tx.CertificatesOf(h.ID)
	if err != nil {
		return nil, err
	}
	for _, on := range follow {
		for _, r := range rules {
			if r.on != on || r.cause == jpki.NoCause {
				continue
			}
			for _, c := range certs {
				if c.Kind != r.kind || !c.Live(now) || slices.ContainsFunc(out, func(done Changed) bool { return done.ID == c.ID }) {
					continue
				}
				changed, err := a.apply(tx, by, c, revoke, r.cause, now)
				if err != nil {
					return nil, err
				}
				out = append(out, changed...)
			}
		}
	}
	return out, nil
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
