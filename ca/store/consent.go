package store

import (
	"database/sql"
	"fmt"
	"strings"
	"time"

	"github.com/openjpki/jpki"
)

// A Consent is what a holder signed for one tenant and purpose, with what has become of it.
type Consent struct {
	ID          string
	Tenant      jpki.CorporateNumber
	TenantName  string // as of now
	Operator    string
	User        string
	Holder      string
	Purpose     string
	Description string
	Items       []jpki.Item
	Lang        string
	Version     string
	Reference   string
	Text        string
	Document    []byte      // the CMS; with the certificate, so with personal data
	Certificate jpki.CertID // that signed it
	ReceivedAt  time.Time
	ValidFrom   time.Time
	ValidUntil  time.Time
	ReplacedAt  *time.Time
	WithdrawnAt *time.Time
	Provided    *jpki.CertID // the newest signature certificate on the strength of which attributes were handed out
	ProvidedKey string       // the idempotency key under which they were
}

const consentColumns = `SELECT c.id, c.tenant, t.name, c.operator, c.user_id, c.holder, c.purpose, c.description, c.items, c.lang, c.version, c.reference, c.text, c.document, c.cert_issuer,
	c.cert_serial, c.received_at, c.valid_from, c.valid_until, c.replaced_at, c.withdrawn_at, c.provided_issuer, c.provided_serial, c.provided_key FROM relying_consent c JOIN relying_tenant t ON t.corporate_number = c.tenant `

func scanConsent(row scanner) (c Consent, err error) {
	var items, issuer string
	var serial, providedSerial []byte
	var provided sql.NullString
	var received, from, until int64
	var replaced, withdrawn sql.NullInt64
	if err = row.Scan(&c.ID, &c.Tenant, &c.TenantName, &c.Operator, &c.User, &c.Holder, &c.Purpose, &c.Description, &items, &c.Lang, &c.Version, &c.Reference, &c.Text, &c.Document, &issuer,
		&serial, &received, &from, &until, &replaced, &withdrawn, &provided, &providedSerial, &c.ProvidedKey); err != nil {
		return c, err
	}
	c.Items = ParseItems(items)
	c.ReceivedAt, c.ValidFrom, c.ValidUntil = fromMicros(received), fromMicros(from), fromMicros(until)
	c.ReplacedAt, c.WithdrawnAt = fromOptional(replaced), fromOptional(withdrawn)
	if provided.Valid {
		id, err := certID(provided.String, providedSerial)
		if err != nil {
			return c, err
		}
		c.Provided = &id
	}
	c.Certificate, err = certID(issuer, serial)
	return c, err
}

// ParseItems reads items as they stand in a column: by name, parted by spaces.
func ParseItems(s string) (out []jpki.Item) {
	for i := range strings.FieldsSeq(s) {
		out = append(out, jpki.Item(i))
	}
	return out
}

// FormatItems writes them.
func FormatItems(items []jpki.Item) string {
	var b strings.Builder
	for i, item := range items {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(string(item))
	}
	return b.String()
}

// Consent returns a consent and, in a transaction that writes, locks it; [jpki.NotFound] when there is none.
func (tx *Tx) Consent(id string) (Consent, error) {
	if !tx.readOnly {
		if _, err := tx.exec(`UPDATE relying_consent SET id = id WHERE id = $1`, id); err != nil { // FOR UPDATE would lock the tenant, too
			return Consent{}, fmt.Errorf("lock consent: %w", err)
		}
	}
	c, err := scanConsent(tx.q.QueryRowContext(tx.ctx, consentColumns+`WHERE c.id = $1`, id))
	return c, notFound(err, jpki.NotFound)
}

// ConsentOn returns the consent to a text by its reference; false when nobody has consented to it.
func (tx *Tx) ConsentOn(reference string) (c Consent, found bool, err error) {
	list, err := queryAll(tx.ctx, tx.q, scanConsent, consentColumns+`WHERE c.reference = $1`, reference)
	if err != nil || len(list) == 0 {
		return c, false, err
	}
	return list[0], true, nil
}

// ConsentInForce returns the consent to a tenant's purpose that is neither withdrawn nor replaced, whatever its time; false
// when there is none.
func (tx *Tx) ConsentInForce(tenant jpki.CorporateNumber, user, purpose string) (c Consent, found bool, err error) {
	list, err := queryAll(tx.ctx, tx.q, scanConsent, consentColumns+`WHERE c.tenant = $1 AND c.user_id = $2 AND c.purpose = $3 AND c.replaced_at IS NULL AND c.withdrawn_at IS NULL
		ORDER BY c.received_at DESC, c.id LIMIT 1`, string(tenant), user, purpose)
	if err != nil || len(list) == 0 {
		return c, false, err
	}
	return list[0], true, nil
}

// AddConsent records a consent in the place of the one for the same purpose. Its text must not have been consented to:
// [jpki.Conflict].
func (tx *Tx) AddConsent(c Consent) error {
	if _, err := tx.exec(`UPDATE relying_consent SET replaced_at = $4 WHERE tenant = $1 AND user_id = $2 AND purpose = $3 AND replaced_at IS NULL AND withdrawn_at IS NULL`,
		string(c.Tenant), c.User, c.Purpose, micros(c.ReceivedAt)); err != nil {
		return fmt.Errorf("replace consent: %w", err)
	}
	_, err := tx.exec(`INSERT INTO relying_consent (id, tenant, operator, user_id, holder, purpose, description, items, lang, version, reference, text, document, cert_issuer, cert_serial,
		received_at, valid_from, valid_until, provided_key) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, '')`,
		c.ID, string(c.Tenant), c.Operator, c.User, c.Holder, c.Purpose, c.Description, FormatItems(c.Items), c.Lang, c.Version, c.Reference, c.Text, c.Document, c.Certificate.Issuer.String(),
		c.Certificate.Serial.Bytes(), micros(c.ReceivedAt), micros(c.ValidFrom), micros(c.ValidUntil))
	if err != nil && tx.d.unique(err) {
		return jpki.Errorf(jpki.Conflict, "the text was consented to meanwhile")
	}
	if err != nil {
		return fmt.Errorf("record consent: %w", err)
	}
	return nil
}

// WithdrawConsent ends a consent, with the proof that its holder wants that.
func (tx *Tx) WithdrawConsent(id, proof string, now time.Time) error {
	_, err := tx.exec(`UPDATE relying_consent SET withdrawn_at = $2, withdrawal = $3 WHERE id = $1 AND withdrawn_at IS NULL`, id, micros(now), proof)
	return err
}

// ProvidedUnder notes on the strength of which certificate attributes were handed out under a consent, and under which key.
func (tx *Tx) ProvidedUnder(consent string, c jpki.CertID, key string) error {
	_, err := tx.exec(`UPDATE relying_consent SET provided_issuer = $2, provided_serial = $3, provided_key = $4 WHERE id = $1`, consent, c.Issuer.String(), c.Serial.Bytes(), key)
	return err
}

// ConsentsOf returns all consents of a holder, newest first.
func (tx *Tx) ConsentsOf(holder string) ([]Consent, error) {
	return queryAll(tx.ctx, tx.q, scanConsent, consentColumns+`WHERE c.holder = $1 ORDER BY c.received_at DESC, c.id`, holder)
}

// ConsentsTo returns up to limit consents to a tenant behind the one called after (received at afterAt), oldest first; of one
// user, or of all when user is empty.
func (tx *Tx) ConsentsTo(tenant jpki.CorporateNumber, user string, afterAt time.Time, after string, limit int) ([]Consent, error) {
	at := int64(-1)
	if after != "" {
		at = micros(afterAt)
	}
	return queryAll(tx.ctx, tx.q, scanConsent, consentColumns+`WHERE c.tenant = $1 AND (c.user_id = $2 OR $2 = '') AND c.received_at >= $3 AND (c.received_at > $3 OR c.id > $4)
		ORDER BY c.received_at, c.id LIMIT $5`, string(tenant), user, at, after, limit)
}
