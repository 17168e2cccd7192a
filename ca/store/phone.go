package store

import (
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/openjpki/jpki"
)

// A PhoneEnrolment is a phone that may enrol for a while.
type PhoneEnrolment struct {
	ID         string
	Holder     string
	Token      string
	Parent     jpki.CertID // the card signature certificate that asks for it
	Kinds      []jpki.Kind
	By         jpki.Actor
	SealedKey  []byte // nil once an account is bound
	DeviceHash string // SHA-256 of what the first attested key's device is called; "" before
	ExpiresAt  time.Time
}

// AddPhoneEnrolment records an enrolment. Those of the same token that are open end.
func (tx *Tx) AddPhoneEnrolment(e PhoneEnrolment, now time.Time) error {
	if _, err := tx.exec(`UPDATE phone_enrolment SET expires_at = $2 WHERE token = $1 AND expires_at > $2`, e.Token, micros(now)); err != nil {
		return fmt.Errorf("end former enrolments: %w", err)
	}
	kinds := make([]string, len(e.Kinds))
	for i, k := range e.Kinds {
		kinds[i] = string(k)
	}
	_, err := tx.exec(`INSERT INTO phone_enrolment (id, holder, token, parent_issuer, parent_serial, kinds, actor_role, actor_id, actor_municipality, sealed_key, device_hash, created_at, expires_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, '', $11, $12)`,
		e.ID, e.Holder, e.Token, e.Parent.Issuer.String(), e.Parent.Serial.Bytes(), strings.Join(kinds, " "),
		string(e.By.Role), e.By.ID, e.By.Municipality, e.SealedKey, micros(now), micros(e.ExpiresAt))
	if err != nil {
		return fmt.Errorf("record phone enrolment: %w", err)
	}
	return nil
}

const enrolmentColumns = `SELECT e.id, e.holder, e.token, e.parent_issuer, e.parent_serial, e.kinds, e.actor_role, e.actor_id, e.actor_municipality, e.sealed_key, e.device_hash, e.expires_at
	FROM phone_enrolment e `

// PhoneEnrolment returns an enrolment; [jpki.NotFound] when there is none.
func (tx *Tx) PhoneEnrolment(id string) (PhoneEnrolment, error) {
	return scanEnrolment(tx.q.QueryRowContext(tx.ctx, enrolmentColumns+`WHERE e.id = $1`, id))
}

// PhoneEnrolmentOf returns the enrolment that an account is bound to; [jpki.NotFound] when there is none.
func (tx *Tx) PhoneEnrolmentOf(account string) (PhoneEnrolment, error) {
	return scanEnrolment(tx.q.QueryRowContext(tx.ctx, enrolmentColumns+`JOIN acme_account a ON a.enrolment = e.id WHERE a.id = $1`, account))
}

func scanEnrolment(row scanner) (e PhoneEnrolment, err error) {
	var issuer, kinds string
	var serial []byte
	var expires int64
	err = row.Scan(&e.ID, &e.Holder, &e.Token, &issuer, &serial, &kinds, &e.By.Role, &e.By.ID, &e.By.Municipality, &e.SealedKey, &e.DeviceHash, &expires)
	if err != nil {
		return e, notFound(err, jpki.NotFound)
	}
	for k := range strings.FieldsSeq(kinds) {
		e.Kinds = append(e.Kinds, jpki.Kind(k))
	}
	e.ExpiresAt = fromMicros(expires)
	e.Parent, err = certID(issuer, serial)
	return e, err
}

// BindPhoneEnrolment binds an account to an enrolment, once: [jpki.Unauthorized] when either is bound already.
func (tx *Tx) BindPhoneEnrolment(id, account string) error {
	n, err := tx.exec(`UPDATE phone_enrolment SET sealed_key = NULL WHERE id = $1 AND sealed_key IS NOT NULL`, id)
	if err == nil && n == 1 {
		n, err = tx.exec(`UPDATE acme_account SET enrolment = $1 WHERE id = $2 AND enrolment IS NULL`, id, account)
	}
	if err != nil {
		return fmt.Errorf("bind account: %w", err)
	}
	if n != 1 {
		return jpki.Errorf(jpki.Unauthorized, "the external account binding has been used")
	}
	return nil
}

// SetPhoneDevice notes for which device the keys of an enrolment are attested, once: [jpki.Forbidden] when it is another.
func (tx *Tx) SetPhoneDevice(id, hash string) error {
	n, err := tx.exec(`UPDATE phone_enrolment SET device_hash = $2 WHERE id = $1 AND device_hash IN ('', $2)`, id, hash)
	if err == nil && n == 0 {
		err = jpki.Errorf(jpki.Forbidden, "the keys of an enrolment must be attested for one device")
	}
	return err
}

// ForgetPhoneEnrolments removes enrolments that ended before a time, with their accounts, orders and authorizations, and
// accounts that have not been bound since.
func (tx *Tx) ForgetPhoneEnrolments(before time.Time) error {
	_, err := tx.exec(`DELETE FROM phone_enrolment WHERE expires_at < $1`, micros(before))
	if err == nil {
		_, err = tx.exec(`DELETE FROM acme_account WHERE enrolment IS NULL AND created_at < $1`, micros(before))
	}
	if err != nil {
		return fmt.Errorf("forget phone enrolments: %w", err)
	}
	return nil
}

// An ACMEAccount is an account of RFC 8555. Of contacts nothing is kept.
type ACMEAccount struct {
	ID          string
	KeyID       string // the key's thumbprint (RFC 7638)
	Key         []byte // a JSON Web Key
	Directory   string // under which it was made
	Location    string // its URL without the identifier
	Deactivated bool
}

// PutACMEAccount records an account that is not bound yet. It takes the place of one with the same key that has not been
// bound either: a client that was cut off tries again.
func (tx *Tx) PutACMEAccount(a ACMEAccount, now time.Time) error {
	n, err := tx.exec(`INSERT INTO acme_account (id, key_id, public_key, directory, location, status, created_at) VALUES ($1, $2, $3, $4, $5, 'valid', $6)
		ON CONFLICT (key_id) DO UPDATE SET id = excluded.id, directory = excluded.directory, location = excluded.location, created_at = excluded.created_at
		WHERE acme_account.enrolment IS NULL`,
		a.ID, a.KeyID, string(a.Key), a.Directory, a.Location, micros(now))
	if err != nil {
		return fmt.Errorf("record account: %w", err)
	}
	if n != 1 {
		return jpki.Errorf(jpki.Conflict, "the key has an account by now")
	}
	return nil
}

const accountColumns = `SELECT id, key_id, public_key, directory, location, status FROM acme_account WHERE enrolment IS NOT NULL AND `

// ACMEAccount returns a bound account; [jpki.NotFound] when there is none.
func (tx *Tx) ACMEAccount(id string) (ACMEAccount, error) {
	return scanAccount(tx.q.QueryRowContext(tx.ctx, accountColumns+`id = $1`, id))
}

// ACMEAccountByKey returns the bound account of a key; [jpki.NotFound] when there is none.
func (tx *Tx) ACMEAccountByKey(keyID string) (ACMEAccount, error) {
	return scanAccount(tx.q.QueryRowContext(tx.ctx, accountColumns+`key_id = $1`, keyID))
}

func scanAccount(row scanner) (a ACMEAccount, err error) {
	var key, status string
	err = row.Scan(&a.ID, &a.KeyID, &key, &a.Directory, &a.Location, &status)
	a.Key, a.Deactivated = []byte(key), status == "deactivated"
	return a, notFound(err, jpki.NotFound)
}

// DeactivateACMEAccount ends an account's use.
func (tx *Tx) DeactivateACMEAccount(id string) error {
	_, err := tx.exec(`UPDATE acme_account SET status = 'deactivated' WHERE id = $1`, id)
	return err
}

// ChangeACMEAccountKey gives a bound account another key: [jpki.Conflict] when the former is no more the account's, or the
// other is somebody's already.
func (tx *Tx) ChangeACMEAccountKey(id, former, keyID string, key []byte) error {
	n, err := tx.exec(`UPDATE acme_account SET key_id = $3, public_key = $4 WHERE id = $1 AND key_id = $2 AND enrolment IS NOT NULL AND status = 'valid'`, id, former, keyID, string(key))
	if err != nil && tx.d.unique(err) || err == nil && n != 1 {
		return jpki.Errorf(jpki.Conflict, "the key has an account, or the account another key by now")
	}
	return err
}

// ACMEAccountOfCertificate returns the identifier of the account that ordered a certificate; "" when that is not remembered.
func (tx *Tx) ACMEAccountOfCertificate(c jpki.CertID) (account string, err error) {
	err = tx.q.QueryRowContext(tx.ctx, `SELECT account FROM acme_order WHERE cert_serial = $1 AND cert_issuer = $2`, c.Serial.Bytes(), c.Issuer.String()).Scan(&account)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return account, err
}

// An ACMEAuthorization is an authorization with its only challenge. Statuses are RFC 8555's.
type ACMEAuthorization struct {
	ID              string
	Account         string
	Challenge       string
	Identifier      string
	Token           string
	Status          string
	ChallengeStatus string
	ChallengeError  string // JSON; "" for none
	ValidatedAt     string // RFC 3339; "" before
	Fingerprint     string // of the attested key; "" before
	ExpiresAt       time.Time
}

// AddACMEAuthorization records an authorization; [jpki.RateLimited] when the account has limit of them.
func (tx *Tx) AddACMEAuthorization(a ACMEAuthorization, limit int) error {
	var have int
	if err := tx.q.QueryRowContext(tx.ctx, `SELECT count(*) FROM acme_authorization WHERE account = $1`, a.Account).Scan(&have); err != nil {
		return fmt.Errorf("count authorizations: %w", err)
	}
	if have >= limit {
		return jpki.Errorf(jpki.RateLimited, "an account has at most %d orders", limit)
	}
	_, err := tx.exec(`INSERT INTO acme_authorization (id, account, challenge, identifier, token, status, challenge_status, challenge_error, validated_at, fingerprint, expires_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, '', '', '', $8)`, a.ID, a.Account, a.Challenge, a.Identifier, a.Token, a.Status, a.ChallengeStatus, micros(a.ExpiresAt))
	if err != nil {
		return fmt.Errorf("record authorization: %w", err)
	}
	return nil
}

// ACMEAuthorization returns an authorization; [jpki.NotFound] when there is none.
func (tx *Tx) ACMEAuthorization(id string) (a ACMEAuthorization, err error) {
	var expires int64
	err = tx.q.QueryRowContext(tx.ctx, `SELECT id, account, challenge, identifier, token, status, challenge_status, challenge_error, validated_at, fingerprint, expires_at
		FROM acme_authorization WHERE id = $1`, id).
		Scan(&a.ID, &a.Account, &a.Challenge, &a.Identifier, &a.Token, &a.Status, &a.ChallengeStatus, &a.ChallengeError, &a.ValidatedAt, &a.Fingerprint, &expires)
	a.ExpiresAt = fromMicros(expires)
	return a, notFound(err, jpki.NotFound)
}

// SetACMEAuthorization changes status and fingerprint of a pending authorization; of any other nothing changes any more.
func (tx *Tx) SetACMEAuthorization(id, status, fingerprint string) error {
	_, err := tx.exec(`UPDATE acme_authorization SET status = $2, fingerprint = $3 WHERE id = $1 AND status = 'pending'`, id, status, fingerprint)
	return err
}

// SetACMEChallenge changes a pending challenge. With an invalid one the authorization is lost (RFC 8555 §7.1.6).
func (tx *Tx) SetACMEChallenge(authorization, status, problem, validatedAt string) error {
	_, err := tx.exec(`UPDATE acme_authorization SET challenge_status = $2, challenge_error = $3, validated_at = $4,
		status = CASE WHEN $2 = 'invalid' AND status = 'pending' THEN 'invalid' ELSE status END
		WHERE id = $1 AND challenge_status = 'pending'`, authorization, status, problem, validatedAt)
	return err
}

// An ACMEOrder asks for one certificate.
type ACMEOrder struct {
	ID            string
	Account       string
	Authorization string
	Identifier    string // the authorization's
	Status        string
	Error         string       // JSON; "" for none
	Request       []byte       // PKCS #10; nil before it is finalized
	Renews        bool         // decided with the request: the certificate takes the place of one that ends soon
	Certificate   *jpki.CertID // set when the status is valid
	NotBefore     time.Time
	NotAfter      time.Time
	ExpiresAt     time.Time
}

// AddACMEOrder records an order.
func (tx *Tx) AddACMEOrder(o ACMEOrder) error {
	_, err := tx.exec(`INSERT INTO acme_order (id, account, authz, status, error, not_before, not_after, expires_at) VALUES ($1, $2, $3, $4, '', $5, $6, $7)`,
		o.ID, o.Account, o.Authorization, o.Status, micros(o.NotBefore), micros(o.NotAfter), micros(o.ExpiresAt))
	if err != nil {
		return fmt.Errorf("record order: %w", err)
	}
	return nil
}

// ACMEOrder returns an order; [jpki.NotFound] when there is none.
func (tx *Tx) ACMEOrder(id string) (o ACMEOrder, err error) {
	var issuer sql.NullString
	var serial []byte
	var renews int
	var notBefore, notAfter, expires int64
	err = tx.q.QueryRowContext(tx.ctx, `SELECT o.id, o.account, o.authz, a.identifier, o.status, o.error, o.request, o.renews, o.cert_issuer, o.cert_serial, o.not_before, o.not_after, o.expires_at
		FROM acme_order o JOIN acme_authorization a ON a.id = o.authz WHERE o.id = $1`, id).
		Scan(&o.ID, &o.Account, &o.Authorization, &o.Identifier, &o.Status, &o.Error, &o.Request, &renews, &issuer, &serial, &notBefore, &notAfter, &expires)
	if err != nil {
		return o, notFound(err, jpki.NotFound)
	}
	o.Renews = renews == 1
	o.NotBefore, o.NotAfter, o.ExpiresAt = fromMicros(notBefore), fromMicros(notAfter), fromMicros(expires)
	if issuer.Valid {
		id, err := certID(issuer.String, serial)
		if err != nil {
			return o, err
		}
		o.Certificate = &id
	}
	return o, nil
}

// PendingACMEOrders returns the identifiers of an account's orders that are not ended.
func (tx *Tx) PendingACMEOrders(account string, now time.Time) ([]string, error) {
	return queryAll(tx.ctx, tx.q, func(row scanner) (id string, err error) { err = row.Scan(&id); return id, err },
		`SELECT id FROM acme_order WHERE account = $1 AND status IN ('pending', 'ready') AND expires_at > $2 ORDER BY id`, account, micros(now))
}

// SetACMEOrder changes the status of an order that has not ended; of any other nothing changes any more.
func (tx *Tx) SetACMEOrder(id, status, problem string) error {
	_, err := tx.exec(`UPDATE acme_order SET status = $2, error = $3 WHERE id = $1 AND status IN ('pending', 'ready')`, id, status, problem)
	return err
}

// RequestACMEOrder records the certification request that an order is finalized with, and what for, if there is none yet.
func (tx *Tx) RequestACMEOrder(id string, request []byte, renews bool) error {
	_, err := tx.exec(`UPDATE acme_order SET request = $2, renews = $3 WHERE id = $1 AND request IS NULL`, id, request, boolInt(renews))
	return err
}

// CertifyACMEOrder ends an order with its certificate.
func (tx *Tx) CertifyACMEOrder(id string, certificate jpki.CertID) error {
	n, err := tx.exec(`UPDATE acme_order SET status = 'valid', error = '', cert_issuer = $2, cert_serial = $3 WHERE id = $1 AND (cert_serial IS NULL OR cert_issuer = $2 AND cert_serial = $3)`,
		id, certificate.Issuer.String(), certificate.Serial.Bytes())
	if err == nil && n == 0 {
		err = jpki.Errorf(jpki.Conflict, "the order has another certificate by now")
	}
	return err
}
