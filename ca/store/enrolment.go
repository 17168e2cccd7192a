package store

import (
	"database/sql"
	"fmt"
	"time"

	"github.com/openjpki/jpki"
)

// UseToken records that a one-time token was presented, by the hash of its identifier. It returns false when that had
// happened before. Tokens used before forget are forgotten: they must be invalid for another reason by then.
func (tx *Tx) UseToken(idHash string, now, forget time.Time) (fresh bool, err error) {
	if _, err := tx.exec(`DELETE FROM used_token WHERE used_at < $1`, micros(forget)); err != nil {
		return false, fmt.Errorf("forget used tokens: %w", err)
	}
	n, err := tx.exec(`INSERT INTO used_token (id_hash, used_at) VALUES ($1, $2) ON CONFLICT (id_hash) DO NOTHING`, idHash, micros(now))
	if err != nil {
		return false, fmt.Errorf("record token: %w", err)
	}
	return n == 1, nil
}

// A StationCertificate is a certificate of a station's key, or, without DER, a serial number reserved for one.
type StationCertificate struct {
	Serial   jpki.Serial
	Station  string
	Actor    string // who ordered it
	KeyHash  string
	DER      []byte
	NotAfter time.Time // zero while there is no DER
	Revoked  *time.Time
}

// ReserveStationCertificate writes down a serial number before anything is signed with it.
func (tx *Tx) ReserveStationCertificate(c StationCertificate, now time.Time) error {
	_, err := tx.exec(`INSERT INTO station_certificate (serial, station, actor, key_hash, reserved_at) VALUES ($1, $2, $3, $4, $5)`,
		c.Serial.Bytes(), c.Station, c.Actor, c.KeyHash, micros(now))
	if err != nil && tx.d.unique(err) {
		return jpki.Errorf(jpki.Conflict, "the serial number is taken")
	}
	if err != nil {
		return fmt.Errorf("reserve serial number: %w", err)
	}
	return nil
}

// RecordStationCertificate adds what was signed to its reservation.
func (tx *Tx) RecordStationCertificate(serial jpki.Serial, der []byte, notAfter, now time.Time) error {
	n, err := tx.exec(`UPDATE station_certificate SET der = $2, issued_at = $3, not_after = $4 WHERE serial = $1 AND der IS NULL`,
		serial.Bytes(), der, micros(now), micros(notAfter))
	if err == nil && n == 0 {
		err = jpki.Errorf(jpki.Conflict, "the serial number is not reserved")
	}
	return err
}

// StationCertificate returns a certificate or reservation; [jpki.UnknownCertificate] when there is none.
func (tx *Tx) StationCertificate(serial jpki.Serial) (StationCertificate, error) {
	c := StationCertificate{Serial: serial}
	var notAfter, revoked sql.NullInt64
	err := tx.q.QueryRowContext(tx.ctx, `SELECT station, actor, key_hash, der, not_after, revoked_at FROM station_certificate WHERE serial = $1`, serial.Bytes()).
		Scan(&c.Station, &c.Actor, &c.KeyHash, &c.DER, &notAfter, &revoked)
	if notAfter.Valid {
		c.NotAfter = fromMicros(notAfter.Int64)
	}
	c.Revoked = fromOptional(revoked)
	return c, notFound(err, jpki.UnknownCertificate)
}

// RevokeStationCertificate ends a certificate; [jpki.ForbiddenChange] when it has ended before or was never issued.
func (tx *Tx) RevokeStationCertificate(serial jpki.Serial, now time.Time) error {
	n, err := tx.exec(`UPDATE station_certificate SET revoked_at = $2 WHERE serial = $1 AND der IS NOT NULL AND revoked_at IS NULL`, serial.Bytes(), micros(now))
	if err == nil && n == 0 {
		err = jpki.Errorf(jpki.ForbiddenChange, "the certificate is revoked already")
	}
	return err
}

// EnrolKey enrols a station with its first or a new key, but not one that has been disabled: only [Tx.PutStation] ends
// that. With former, the station must still be enrolled with that key; "" replaces whatever there is. A refusal is
// [jpki.UnknownStation].
func (tx *Tx) EnrolKey(s Station, former string, now time.Time) error {
	n, err := tx.exec(`INSERT INTO station (id, role, municipality, key_hash, enrolled_at) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (id) DO UPDATE SET role = excluded.role, municipality = excluded.municipality, key_hash = excluded.key_hash
		WHERE station.disabled_at IS NULL AND ($6 = '' OR station.key_hash = $6)`,
		s.ID, string(s.Role), s.Municipality, s.KeyHash, micros(now), former)
	if err != nil {
		return fmt.Errorf("enrol station: %w", err)
	}
	if n == 0 {
		return jpki.Errorf(jpki.UnknownStation, "the station is disabled or has another key by now")
	}
	return nil
}

// DisableKey shuts a station out if this is its key.
func (tx *Tx) DisableKey(station, keyHash string, now time.Time) error {
	_, err := tx.exec(`UPDATE station SET disabled_at = $3 WHERE id = $1 AND key_hash = $2 AND disabled_at IS NULL`, station, keyHash, micros(now))
	return err
}
