package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/openjpki/jpki"
)

// A Holder is a person in the register: an opaque name, the latest four attributes and what decides eligibility.
type Holder struct {
	ID           string
	Municipality string
	Attributes   jpki.Attributes
	Guardianship bool
	Protected    bool           // from being found by the register (支援措置)
	StayUntil    *time.Time     // end of a foreign resident's period of stay
	Ended        jpki.EventType // Death, Departure, or empty
	Since        Since
	Version      int64 // grows with every change
}

// A Since says as of when the register told a holder's fields: the effective time of the newest event about each. The zero
// time is older than any.
type Since struct {
	Name         time.Time `json:"name,omitzero"`
	Sex          time.Time `json:"sex,omitzero"`
	BirthDate    time.Time `json:"birth_date,omitzero"`
	Address      time.Time `json:"address,omitzero"` // with the municipality; moves and renamed places
	Moved        time.Time `json:"moved,omitzero"`   // moves only
	Guardianship time.Time `json:"guardianship,omitzero"`
	Guarded      time.Time `json:"guarded,omitzero"` // only when it began
	Stay         time.Time `json:"stay,omitzero"`
	Protection   time.Time `json:"protection,omitzero"`
	Ended        time.Time `json:"ended,omitzero"` // or returned
}

const holderColumns = `SELECT id, municipality, name, name_substitutes, sex, birth_date, address, address_substitutes, guardianship, protected, stay_until, ended, since, version FROM holder `

// Holder returns a holder and locks the row until the transaction ends: commands on one person run one after another.
// Nobody of that name is [jpki.UnknownHolder].
func (tx *Tx) Holder(id string) (Holder, error) {
	if tx.ahead != nil {
		if h, known := tx.ahead.holders[id]; known && h != nil {
			return *h, nil
		} else if known {
			return Holder{}, jpki.Errorf(jpki.UnknownHolder, "")
		}
	}
	h, err := scanHolder(tx.q.QueryRowContext(tx.ctx, holderColumns+`WHERE id = $1`+tx.lock(), id))
	return h, notFound(err, jpki.UnknownHolder)
}

// Holders returns many holders by name and locks their rows, always in the same order; who is not known is left out.
func (tx *Tx) Holders(ids []string) (map[string]Holder, error) {
	var list []Holder
	err := tx.perform(tx.lockHolders(&list, ids, false))
	out := make(map[string]Holder, len(list))
	for _, h := range list {
		out[h.ID] = h
	}
	return out, err
}

func (tx *Tx) lockHolders(out *[]Holder, ids []string, skipLocked bool) task {
	ids = slices.Compact(slices.Sorted(slices.Values(ids)))
	lock := tx.lock()
	if skipLocked && lock != "" {
		lock += " SKIP LOCKED"
	}
	return find(out, scanHolder, holderColumns+`WHERE id IN `, ` ORDER BY id`+lock, anys(ids))
}

// lock is the suffix of a query that locks its rows, where the transaction may write.
func (tx *Tx) lock() string {
	if tx.readOnly {
		return ""
	}
	return tx.d.forUpdate
}

func scanHolder(row scanner) (h Holder, err error) {
	var guardianship, protected int
	var stay sql.NullInt64
	var since string
	err = row.Scan(&h.ID, &h.Municipality, &h.Attributes.Name, &h.Attributes.NameSubstitutes, &h.Attributes.Sex,
		&h.Attributes.BirthDate, &h.Attributes.Address, &h.Attributes.AddressSubstitutes, &guardianship, &protected, &stay, &h.Ended, &since, &h.Version)
	if err != nil {
		return h, err
	}
	h.Guardianship, h.Protected, h.StayUntil = guardianship == 1, protected == 1, fromOptional(stay)
	if err := json.Unmarshal([]byte(since), &h.Since); err != nil {
		return h, fmt.Errorf("read since: %w", err)
	}
	return h, nil
}

// PutHolder writes a holder. A new one has version 0; another must be as read in this transaction, under its lock.
func (tx *Tx) PutHolder(h Holder, now time.Time) error { return tx.PutHolders([]Holder{h}, now) }

// PutHolders writes many holders, no one twice.
func (tx *Tx) PutHolders(list []Holder, now time.Time) error {
	if tx.ahead != nil {
		for _, h := range list {
			delete(tx.ahead.holders, h.ID)
		}
	}
	rows := make([][]any, len(list))
	for i, h := range list {
		since, err := json.Marshal(h.Since)
		if err != nil {
			return fmt.Errorf("encode since: %w", err)
		}
		a := h.Attributes
		rows[i] = []any{
			h.ID, h.Municipality, a.Name, a.NameSubstitutes, string(a.Sex), string(a.BirthDate), a.Address, a.AddressSubstitutes,
			boolInt(h.Guardianship), boolInt(h.Protected), optionalMicros(h.StayUntil), string(h.Ended), string(since), micros(now), h.Version + 1,
		}
	}
	return tx.perform(insert(`INSERT INTO holder (id, municipality, name, name_substitutes, sex, birth_date, address, address_substitutes, guardianship, protected, stay_until, ended, since,
		updated_at, version)`, ` ON CONFLICT (id) DO UPDATE SET municipality = excluded.municipality, name = excluded.name, name_substitutes = excluded.name_substitutes, sex = excluded.sex,
		birth_date = excluded.birth_date, address = excluded.address, address_substitutes = excluded.address_substitutes, guardianship = excluded.guardianship,
		protected = excluded.protected, stay_until = excluded.stay_until, ended = excluded.ended, since = excluded.since, updated_at = excluded.updated_at, version = excluded.version
		WHERE holder.version = excluded.version - 1`, rows, func(written int64, err error) error {
		if err == nil && written != int64(len(rows)) {
			return jpki.Errorf(jpki.Conflict, "the register entry changed meanwhile")
		}
		return as("write holders")(0, err)
	}))
}

// A Token is a card or a phone.
type Token struct {
	ID         string
	Type       jpki.TokenType
	Holder     string
	ValidUntil time.Time
	Parent     *jpki.CertID // of a phone: the card signature certificate that asked for it
}

const cardColumns = `SELECT id, type, holder, valid_until, parent_issuer, parent_serial FROM token `

// Token returns a token; [jpki.UnknownToken] when there is none.
func (tx *Tx) Token(id string) (Token, error) {
	if tx.ahead != nil {
		if t, known := tx.ahead.tokens[id]; known && t != nil {
			return *t, nil
		} else if known {
			return Token{}, jpki.Errorf(jpki.UnknownToken, "")
		}
	}
	if err := tx.settle(); err != nil {
		return Token{}, err
	}
	t, err := scanToken(tx.q.QueryRowContext(tx.ctx, cardColumns+`WHERE id = $1`, id))
	return t, notFound(err, jpki.UnknownToken)
}

// TokensOf returns a holder's tokens, oldest first.
func (tx *Tx) TokensOf(holder string) ([]Token, error) {
	if err := tx.settle(); err != nil {
		return nil, err
	}
	return queryAll(tx.ctx, tx.q, scanToken, cardColumns+`WHERE holder = $1 ORDER BY created_at, id`, holder)
}

// TokensUnder returns the phones that hang on a card signature certificate.
func (tx *Tx) TokensUnder(parent jpki.CertID) ([]Token, error) {
	if tx.ahead != nil && tx.ahead.holderOf[parent] != "" {
		return tx.ahead.phones[parent], nil
	}
	if err := tx.settle(); err != nil {
		return nil, err
	}
	return queryAll(tx.ctx, tx.q, scanToken, cardColumns+`WHERE parent_issuer = $1 AND parent_serial = $2 ORDER BY id`,
		parent.Issuer.String(), parent.Serial.Bytes())
}

// AddToken records a new token.
func (tx *Tx) AddToken(t Token, now time.Time) error {
	var issuer, serial any
	if t.Parent != nil {
		issuer, serial = t.Parent.Issuer.String(), t.Parent.Serial.Bytes()
	}
	row := []any{t.ID, string(t.Type), t.Holder, micros(t.ValidUntil), issuer, serial, micros(now)}
	if tx.ahead != nil {
		tx.ahead.tokens[t.ID] = &t
		tx.ahead.pending.tokens = append(tx.ahead.pending.tokens, row)
		return nil
	}
	return tx.perform(tx.insertTokens([][]any{row}))
}

func (tx *Tx) insertTokens(rows [][]any) task {
	return insert(`INSERT INTO token (id, type, holder, valid_until, parent_issuer, parent_serial, created_at)`, "", rows, func(_ int64, err error) error {
		if err != nil && tx.d.unique(err) {
			return jpki.Errorf(jpki.Conflict, "the token was recorded meanwhile")
		}
		return as("write tokens")(0, err)
	})
}

// SetParent makes a phone hang on another card signature certificate, whose end becomes its own. The phone must have been
// recorded by an earlier transaction.
func (tx *Tx) SetParent(t Token) error {
	n, err := tx.exec(`UPDATE token SET parent_issuer = $2, parent_serial = $3, valid_until = $4 WHERE id = $1 AND type = 'phone'`,
		t.ID, t.Parent.Issuer.String(), t.Parent.Serial.Bytes(), micros(t.ValidUntil))
	if err != nil {
		return fmt.Errorf("change parent: %w", err)
	}
	if n != 1 {
		return jpki.Errorf(jpki.UnknownToken, "no phone %s", t.ID)
	}
	return nil
}

func scanToken(row scanner) (t Token, err error) {
	var until int64
	var issuer sql.NullString
	var serial []byte
	if err = row.Scan(&t.ID, &t.Type, &t.Holder, &until, &issuer, &serial); err != nil {
		return t, err
	}
	t.ValidUntil = fromMicros(until)
	if issuer.Valid {
		id, err := certID(issuer.String, serial)
		if err != nil {
			return t, err
		}
		t.Parent = &id
	}
	return t, nil
}

// A Station is an enrolled client of the station or register API, known by its client certificate's key.
type Station struct {
	jpki.Actor
	KeyHash  string // SHA-256 of the certificate's public key
	Disabled bool
}

// Station returns an enrolled station by name; [jpki.UnknownStation] when there is none.
func (tx *Tx) Station(id string) (Station, error) {
	s, err := scanStation(tx.q.QueryRowContext(tx.ctx, stationColumns+`WHERE id = $1`, id))
	return s, notFound(err, jpki.UnknownStation)
}

const stationColumns = `SELECT id, role, municipality, key_hash, disabled_at FROM station `

func scanStation(row scanner) (s Station, err error) {
	var disabled sql.NullInt64
	err = row.Scan(&s.ID, &s.Role, &s.Municipality, &s.KeyHash, &disabled)
	s.Disabled = disabled.Valid
	return s, err
}

// Stations returns those of many stations that are enrolled, by name, without a transaction: every request asks for one.
func (s *Store) Stations(ctx context.Context, ids []string) (map[string]Station, error) {
	ids = slices.Compact(slices.Sorted(slices.Values(ids)))
	list, err := queryIn(&Tx{ctx: ctx, q: s.db, d: s.d, readOnly: true}, scanStation, stationColumns+`WHERE id IN `, "", anys(ids))
	out := make(map[string]Station, len(list))
	for _, found := range list {
		out[found.ID] = found
	}
	return out, s.d.classify(ctx, err)
}

// PutStation enrols a station or replaces its key.
func (tx *Tx) PutStation(s Station, now time.Time) error {
	_, err := tx.exec(`INSERT INTO station (id, role, municipality, key_hash, enrolled_at) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (id) DO UPDATE SET role = excluded.role, municipality = excluded.municipality, key_hash = excluded.key_hash, disabled_at = NULL`,
		s.ID, string(s.Role), s.Municipality, s.KeyHash, micros(now))
	if err != nil {
		return fmt.Errorf("enrol station: %w", err)
	}
	return nil
}

// DisableStation shuts a station out from now on.
func (tx *Tx) DisableStation(id string, now time.Time) error {
	n, err := tx.exec(`UPDATE station SET disabled_at = $2 WHERE id = $1`, id, micros(now))
	if err == nil && n == 0 {
		err = jpki.Errorf(jpki.UnknownStation, "")
	}
	return err
}

// A ResidentEvent is a received register event and what has become of it.
type ResidentEvent struct {
	ID          string
	Holder      string
	Type        jpki.EventType
	EffectiveAt time.Time
	AppliedAt   *time.Time
	BodyHash    string
	Body        string // the event as JSON, with personal data; once applied, the outcome instead
	Actor       string
}

const eventColumns = `SELECT id, holder, type, effective_at, applied_at, body_hash, body, actor FROM resident_event `

// ResidentEvent returns a received event, or false when its identifier is new.
func (tx *Tx) ResidentEvent(id string) (ResidentEvent, bool, error) {
	found, err := tx.ResidentEvents([]string{id})
	e, ok := found[id]
	return e, ok, err
}

// ResidentEvents returns those of many events that were received before, by identifier.
func (tx *Tx) ResidentEvents(ids []string) (map[string]ResidentEvent, error) {
	list, err := queryIn(tx, scanEvent, eventColumns+`WHERE id IN `, "", anys(ids))
	out := make(map[string]ResidentEvent, len(list))
	for _, e := range list {
		out[e.ID] = e
	}
	return out, err
}

// AddResidentEvents records events as received, and those whose AppliedAt is set as applied too.
func (tx *Tx) AddResidentEvents(list []ResidentEvent, now time.Time) error {
	rows := make([][]any, len(list))
	for i, e := range list {
		rows[i] = []any{e.ID, e.Holder, string(e.Type), micros(e.EffectiveAt), micros(now), optionalMicros(e.AppliedAt), e.BodyHash, e.Body, e.Actor}
	}
	return tx.perform(insert(`INSERT INTO resident_event (id, holder, type, effective_at, received_at, applied_at, body_hash, body, actor)`, "", rows, func(_ int64, err error) error {
		if err != nil && tx.d.unique(err) {
			return jpki.Errorf(jpki.InProgress, "the same event is being recorded")
		}
		return as("record events")(0, err)
	}))
}

// EventApplied notes that an event has taken effect and puts the outcome, codes only, in the place of its content. One that
// waits no longer is a [jpki.Conflict].
func (tx *Tx) EventApplied(id, outcome string, now time.Time) error {
	n, err := tx.exec(`UPDATE resident_event SET applied_at = $3, body = $2 WHERE id = $1 AND applied_at IS NULL`, id, outcome, micros(now))
	if err != nil {
		return fmt.Errorf("end event: %w", err)
	}
	if n != 1 {
		return jpki.Errorf(jpki.Conflict, "the event was applied meanwhile")
	}
	return nil
}

// DueEvents returns waiting events that are effective by now, in the order in which they take effect, from behind one of
// them on; a zero after begins with the first.
func (tx *Tx) DueEvents(now time.Time, after ResidentEvent, limit int) ([]ResidentEvent, error) {
	from := int64(math.MinInt64)
	if after.ID != "" {
		from = micros(after.EffectiveAt)
	}
	return queryAll(tx.ctx, tx.q, scanEvent, eventColumns+`WHERE applied_at IS NULL AND effective_at <= $1 AND (effective_at, id) > ($2, $3) ORDER BY effective_at, id LIMIT $4`,
		micros(now), from, after.ID, limit)
}

func scanEvent(row scanner) (e ResidentEvent, err error) {
	var effective int64
	var applied sql.NullInt64
	err = row.Scan(&e.ID, &e.Holder, &e.Type, &effective, &applied, &e.BodyHash, &e.Body, &e.Actor)
	e.EffectiveAt, e.AppliedAt = fromMicros(effective), fromOptional(applied)
	return e, err
}
