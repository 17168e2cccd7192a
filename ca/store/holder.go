package store

import (
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/openjpki/jpki"
)

// A Holder is a person in the register: an opaque name, the latest four attributes and what decides eligibility.
type Holder struct {
	ID           string
	Municipality string
	Attributes   jpki.Attributes
	Guardianship bool
	StayUntil    *time.Time     // end of a foreign resident's period of stay
	Ended        jpki.EventType // Death, Departure, or empty
	Version      int64          // grows with every change
}

// Holder returns a holder and locks the row until the transaction ends: commands on one person run one after another.
// Nobody of that name is [jpki.UnknownHolder].
func (tx *Tx) Holder(id string) (Holder, error) {
	lock := tx.d.forUpdate
	if tx.readOnly {
		lock = ""
	}
	var h Holder
	var guardianship int
	var stay sql.NullInt64
	err := tx.q.QueryRowContext(tx.ctx, `SELECT id, municipality, name, name_substitutes, sex, birth_date, address, address_substitutes, guardianship, stay_until, ended, version
		FROM holder WHERE id = $1`+lock, id).Scan(&h.ID, &h.Municipality, &h.Attributes.Name, &h.Attributes.NameSubstitutes, &h.Attributes.Sex,
		&h.Attributes.BirthDate, &h.Attributes.Address, &h.Attributes.AddressSubstitutes, &guardianship, &stay, &h.Ended, &h.Version)
	h.Guardianship, h.StayUntil = guardianship == 1, fromOptional(stay)
	return h, notFound(err, jpki.UnknownHolder)
}

// PutHolder writes a holder. A new one has version 0; another must be as read in this transaction, under its lock.
func (tx *Tx) PutHolder(h Holder, now time.Time) error {
	a := h.Attributes
	columns := []any{
		h.ID, h.Municipality, a.Name, a.NameSubstitutes, string(a.Sex), string(a.BirthDate), a.Address, a.AddressSubstitutes,
		boolInt(h.Guardianship), optionalMicros(h.StayUntil), string(h.Ended), micros(now),
	}
	query := `INSERT INTO holder (id, municipality, name, name_substitutes, sex, birth_date, address, address_substitutes, guardianship, stay_until, ended, updated_at, version)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, 1)`
	if h.Version > 0 {
		query = `UPDATE holder SET municipality = $2, name = $3, name_substitutes = $4, sex = $5, birth_date = $6, address = $7, address_substitutes = $8,
			guardianship = $9, stay_until = $10, ended = $11, updated_at = $12, version = version + 1 WHERE id = $1`
	}
	_, err := tx.exec(query, columns...)
	if err != nil && tx.d.unique(err) {
		return jpki.Errorf(jpki.Conflict, "the holder is in the register already")
	}
	if err != nil {
		return fmt.Errorf("write holder: %w", err)
	}
	return nil
}

// A Token is a card or a phone.
type Token struct {
	ID         string
	Type       jpki.TokenType
	Holder     string
	ValidUntil time.Time
	Parent     *jpki.CertID // of a phone: the card signature certificate that asked for it
}

// Token returns a token; [jpki.UnknownToken] when there is none.
func (tx *Tx) Token(id string) (Token, error) {
	t, err := scanToken(tx.q.QueryRowContext(tx.ctx, `SELECT id, type, holder, valid_until, parent_issuer, parent_serial FROM token WHERE id = $1`, id))
	return t, notFound(err, jpki.UnknownToken)
}

// TokensOf returns a holder's tokens, oldest first.
func (tx *Tx) TokensOf(holder string) ([]Token, error) {
	return queryAll(tx.ctx, tx.q, scanToken, `SELECT id, type, holder, valid_until, parent_issuer, parent_serial FROM token WHERE holder = $1 ORDER BY created_at, id`, holder)
}

// TokensUnder returns the phones that hang on a card signature certificate.
func (tx *Tx) TokensUnder(parent jpki.CertID) ([]Token, error) {
	return queryAll(tx.ctx, tx.q, scanToken, `SELECT id, type, holder, valid_until, parent_issuer, parent_serial FROM token WHERE parent_issuer = $1 AND parent_serial = $2 ORDER BY id`,
		parent.Issuer.String(), parent.Serial.Bytes())
}

// AddToken records a new token.
func (tx *Tx) AddToken(t Token, now time.Time) error {
	var issuer, serial any
	if t.Parent != nil {
		issuer, serial = t.Parent.Issuer.String(), t.Parent.Serial.Bytes()
	}
	_, err := tx.exec(`INSERT INTO token (id, type, holder, valid_until, parent_issuer, parent_serial, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
		t.ID, string(t.Type), t.Holder, micros(t.ValidUntil), issuer, serial, micros(now))
	if err != nil && tx.d.unique(err) {
		return jpki.Errorf(jpki.Conflict, "the token was recorded meanwhile")
	}
	if err != nil {
		return fmt.Errorf("write token: %w", err)
	}
	return nil
}

// SetParent makes a phone hang on another card signature certificate, whose end becomes its own.
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
	var s Station
	var disabled sql.NullInt64
	err := tx.q.QueryRowContext(tx.ctx, `SELECT id, role, municipality, key_hash, disabled_at FROM station WHERE id = $1`, id).
		Scan(&s.ID, &s.Role, &s.Municipality, &s.KeyHash, &disabled)
	s.Disabled = disabled.Valid
	return s, notFound(err, jpki.UnknownStation)
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
	AppliedAt   *time.Time   // when it took effect, or was found to be unable to
	Refused     jpki.Problem // why it could not take effect; empty if it did or still waits
	BodyHash    string
	Body        string // the event as JSON, with personal data; once applied, the outcome instead
	Actor       string
}

const eventColumns = `SELECT id, holder, type, effective_at, applied_at, refused, body_hash, body, actor FROM resident_event `

// ResidentEvent returns a received event, or false when its identifier is new.
func (tx *Tx) ResidentEvent(id string) (ResidentEvent, bool, error) {
	e, err := scanEvent(tx.q.QueryRowContext(tx.ctx, eventColumns+`WHERE id = $1`, id))
	if errors.Is(err, sql.ErrNoRows) {
		return e, false, nil
	}
	return e, err == nil, err
}

// AddResidentEvent records an event as received.
func (tx *Tx) AddResidentEvent(e ResidentEvent, now time.Time) error {
	_, err := tx.exec(`INSERT INTO resident_event (id, holder, type, effective_at, received_at, applied_at, body_hash, body, actor) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
		e.ID, e.Holder, string(e.Type), micros(e.EffectiveAt), micros(now), optionalMicros(e.AppliedAt), e.BodyHash, e.Body, e.Actor)
	if err != nil && tx.d.unique(err) {
		return jpki.Errorf(jpki.InProgress, "the same event is being recorded")
	}
	if err != nil {
		return fmt.Errorf("record event: %w", err)
	}
	return nil
}

// EventApplied notes that an event has taken effect, or for which problem it could not, and puts the outcome, codes only,
// in the place of its content. One that waits no longer is a [jpki.Conflict].
func (tx *Tx) EventApplied(id, outcome string, refused jpki.Problem, now time.Time) error {
	n, err := tx.exec(`UPDATE resident_event SET applied_at = $4, body = $2, refused = $3 WHERE id = $1 AND applied_at IS NULL`,
		id, outcome, sql.NullString{String: string(refused), Valid: refused != ""}, micros(now))
	if err != nil {
		return fmt.Errorf("end event: %w", err)
	}
	if n != 1 {
		return jpki.Errorf(jpki.Conflict, "the event was applied meanwhile")
	}
	return nil
}

// DueEvents returns waiting events that are effective by now, in the order in which they take effect: those that come
// behind a given one in that order, which may be the zero value.
func (tx *Tx) DueEvents(now time.Time, behind ResidentEvent, limit int) ([]ResidentEvent, error) {
	return queryAll(tx.ctx, tx.q, scanEvent, eventColumns+`WHERE applied_at IS NULL AND effective_at <= $1
		AND (effective_at > $2 OR effective_at = $2 AND id > $3) ORDER BY effective_at, id LIMIT $4`, micros(now), micros(behind.EffectiveAt), behind.ID, limit)
}

// EventsSince returns the types of a holder's events that have taken effect and became effective after t.
func (tx *Tx) EventsSince(holder string, t time.Time) ([]jpki.EventType, error) {
	types, err := queryAll(tx.ctx, tx.q, scanString, `SELECT DISTINCT type FROM resident_event WHERE holder = $1 AND effective_at > $2
		AND applied_at IS NOT NULL AND refused IS NULL ORDER BY type`, holder, micros(t))
	var out []jpki.EventType
	for _, s := range types {
		out = append(out, jpki.EventType(s))
	}
	return out, err
}

func scanEvent(row scanner) (e ResidentEvent, err error) {
	var effective int64
	var applied sql.NullInt64
	var refused sql.NullString
	err = row.Scan(&e.ID, &e.Holder, &e.Type, &effective, &applied, &refused, &e.BodyHash, &e.Body, &e.Actor)
	e.EffectiveAt, e.AppliedAt, e.Refused = fromMicros(effective), fromOptional(applied), jpki.Problem(refused.String)
	return e, err
}
