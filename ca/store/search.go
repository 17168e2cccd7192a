package store

import (
	"math"
	"time"

	"github.com/openjpki/jpki"
)

// A CertificateFilter says which certificates to look for: those of one holder, on one token or with one serial number,
// or else those not delivered.
type CertificateFilter struct {
	Holder       string
	Token        string
	Serial       jpki.Serial
	Municipality string // where the holder lives now; empty for anywhere
	State        jpki.State
	Undelivered  time.Time   // not zero: only those in force at Now that were issued by then and have not reached their holder
	Now          time.Time   // with Undelivered
	After        jpki.CertID // the last one seen; zero for the first page
	Limit        int
}

// FindCertificates returns certificates in the order in which they were issued. A certificate to go on after that does not
// exist is [jpki.UnknownCertificate].
func (tx *Tx) FindCertificates(f CertificateFilter) ([]Certificate, error) {
	afterAt := int64(math.MinInt64)
	if !f.After.Serial.IsZero() {
		after, err := tx.Certificate(f.After)
		if err != nil {
			return nil, err
		}
		afterAt = micros(after.IssuedAt)
	}
	if err := tx.settle(); err != nil {
		return nil, err
	}
	// Each way of looking starts at an index of its own; a serial number is looked for under every generation's name.
	where, key, inForce := `c.holder = $1`, any(f.Holder), int64(0)
	switch {
	case f.Token != "":
		where, key = `c.token = $1`, f.Token
	case !f.Serial.IsZero():
		where, key = `c.issuer IN (SELECT issuer FROM generation) AND c.serial = $1`, f.Serial.Bytes()
	case !f.Undelivered.IsZero():
		where, key, inForce = `c.delivered_at IS NULL AND c.issued_at <= $1 AND s.state <> 'revoked'`, micros(f.Undelivered), micros(f.Now)
	}
	return queryAll(tx.ctx, tx.q, scanCertificate, certificateColumns+`JOIN holder h ON h.id = c.holder WHERE `+where+` AND (h.municipality = $2 OR $2 = '')
		AND (s.state = $3 OR $3 = '') AND c.not_after >= $4 AND c.issued_at >= $5 AND (c.issued_at > $5 OR c.issuer > $6 OR c.issuer = $6 AND c.serial > $7)
		ORDER BY c.issued_at, c.issuer, c.serial LIMIT $8`,
		key, f.Municipality, string(f.State), inForce, afterAt, f.After.Issuer.String(), f.After.Serial.Bytes(), f.Limit)
}
