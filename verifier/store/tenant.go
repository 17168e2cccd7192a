package store

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/openjpki/jpki"
)

// A Tenant is an organisation that asks the verifier.
type Tenant struct {
	ID              jpki.CorporateNumber
	Name            string // 1 to 64 printable ASCII characters without spaces; no other tenant's
	RetentionDays   int    // how long evidence is kept, 0 to 36525; with 0 none is
	StoreAttributes bool   // keep certificates that carry attributes unless a request says otherwise
	Rate            int    // requests a second; 0 leaves it to the server
	DailyQuota      int64  // verdicts a day (UTC); 0 for no limit
	CreatedAt       time.Time
	RevokedAt       time.Time // zero if it is not revoked

	sealed []byte // its key under the master key
}

// RetentionDays is how long evidence is kept unless a tenant is made with another time: seven years, as long as a bank keeps its
// confirmation records (犯罪収益移転防止法 Article 6).
const RetentionDays = 7*365 + 2

const selectTenants = `SELECT id, name, data_key, retention_days, store_attributes, rate, daily_quota, created_at, revoked_at FROM tenant`

func scanTenant(r scanner) (t Tenant, err error) {
	var created int64
	var revoked sql.NullInt64
	err = r.Scan(&t.ID, &t.Name, &t.sealed, &t.RetentionDays, &t.StoreAttributes, &t.Rate, &t.DailyQuota, &created, &revoked)
	t.CreatedAt, t.RevokedAt = fromMicros(created), fromOptional(revoked)
	return t, err
}

// check reports what is wrong with a tenant as [jpki.Malformed].
func (t *Tenant) check() error {
	if _, err := jpki.ParseCorporateNumber(string(t.ID)); err != nil {
		return err
	}
	switch {
	case t.Name == "" || len(t.Name) > 64 || strings.ContainsFunc(t.Name, func(r rune) bool { return r <= ' ' || r > '~' }):
		return jpki.Errorf(jpki.Malformed, "a tenant's name is 1 to 64 printable ASCII characters without spaces")
	case jpki.ContainsMyNumber(t.Name):
		return jpki.Errorf(jpki.MyNumberPresent, "a tenant's name may not contain a My Number")
	case t.RetentionDays < 0 || t.RetentionDays > 36525:
		return jpki.Errorf(jpki.Malformed, "retention is not between 0 and 36525 days")
	case t.Rate < 0 || t.DailyQuota < 0:
		return jpki.Errorf(jpki.Malformed, "rate and quota are not negative")
	}
	return nil
}

func labelOf(id jpki.CorporateNumber) string { return "tenant " + string(id) }

// AddTenant makes a tenant and draws its key. A number or name that is taken is a [jpki.Conflict]; a revoked tenant's stay taken.
func (s *Store) AddTenant(ctx context.Context, t Tenant, now time.Time) error {
	if err := t.check(); err != nil {
		return err
	}
	k := make(key, keyBytes)
	if _, err := io.ReadFull(s.rand, k); err != nil {
		return fmt.Errorf("draw tenant's key: %w", err)
	}
	sealed, err := s.master.seal(labelOf(t.ID), k)
	if err != nil {
		return fmt.Errorf("seal tenant's key: %w", err)
	}
	return s.Update(ctx, func(tx *Tx) error {
		_, err := tx.exec(`INSERT INTO tenant (id, name, data_key, retention_days, store_attributes, rate, daily_quota, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
			string(t.ID), t.Name, sealed, t.RetentionDays, boolInt(t.StoreAttributes), t.Rate, t.DailyQuota, micros(now))
		if err != nil && s.d.unique(err) {
			return jpki.Errorf(jpki.Conflict, "there is a tenant with this Corporate Number or name")
		}
		return err
	})
}

// ChangeTenant replaces a tenant's settings: name, retention, attributes, rate and quota. Evidence that is there already keeps its term.
// A name that is taken is a [jpki.Conflict]; challenges that were drawn under another name and not yet answered are void.
func (s *Store) ChangeTenant(ctx context.Context, t Tenant) error {
	_, err := s.EditTenant(ctx, t.ID, func(have *Tenant) {
		have.Name, have.RetentionDays, have.StoreAttributes, have.Rate, have.DailyQuota = t.Name, t.RetentionDays, t.StoreAttributes, t.Rate, t.DailyQuota
	})
	return err
}

// EditTenant changes those settings that edit changes, and returns what they are then. Two that run at the same time lose nothing of
// each other's. edit may run several times.
func (s *Store) EditTenant(ctx context.Context, id jpki.CorporateNumber, edit func(*Tenant)) (t Tenant, err error) {
	err = s.Update(ctx, func(tx *Tx) error {
		// Changes nothing and locks the row, on either engine.
		n, err := tx.exec(`UPDATE tenant SET rate = rate WHERE id = $1 AND revoked_at IS NULL`, string(id))
		if err == nil && n == 0 {
			err = jpki.Errorf(jpki.NotFound, "there is no such tenant")
		}
		if err != nil {
			return err
		}
		if t, err = tx.Tenant(id); err != nil {
			return err
		}
		edit(&t)
		t.ID = id
		if err := t.check(); err != nil {
			return err
		}
		_, err = tx.exec(`UPDATE tenant SET name = $1, retention_days = $2, store_attributes = $3, rate = $4, daily_quota = $5 WHERE id = $6`,
			t.Name, t.RetentionDays, boolInt(t.StoreAttributes), t.Rate, t.DailyQuota, string(id))
		if err != nil && s.d.unique(err) {
			return jpki.Errorf(jpki.Conflict, "there is a tenant with this name")
		}
		return err
	})
	return t, err
}

// Tenant returns a tenant, revoked or not; [jpki.NotFound] if there is none.
func (tx *Tx) Tenant(id jpki.CorporateNumber) (Tenant, error) {
	t, err := scanTenant(tx.q.QueryRowContext(tx.ctx, selectTenants+` WHERE id = $1`, string(id)))
	return t, notFound(err, jpki.NotFound, "there is no such tenant")
}

// Tenant is [Tx.Tenant] in a transaction of its own.
func (s *Store) Tenant(ctx context.Context, id jpki.CorporateNumber) (t Tenant, err error) {
	err = s.View(ctx, func(tx *Tx) (err error) { t, err = tx.Tenant(id); return err })
	return t, err
}

// Tenants returns all, in the order of their numbers.
func (s *Store) Tenants(ctx context.Context) (out []Tenant, err error) {
	err = s.View(ctx, func(tx *Tx) (err error) {
		out, err = queryAll(tx, scanTenant, selectTenants+` ORDER BY id`)
		return err
	})
	return out, err
}

// RevokeTenant ends a tenant for good: its tokens are void, its evidence and answers are deleted, and its key is destroyed, so that
// copies of them are noise. Its name, number and uses stay, for the holders' record.
func (s *Store) RevokeTenant(ctx context.Context, id jpki.CorporateNumber, now time.Time) error {
	err := s.Update(ctx, func(tx *Tx) error {
		n, err := tx.exec(`UPDATE tenant SET data_key = $1, revoked_at = $2 WHERE id = $3 AND revoked_at IS NULL`, []byte{}, micros(now), string(id))
		if err != nil {
			return err
		}
		if n == 0 {
			return jpki.Errorf(jpki.NotFound, "there is no such tenant")
		}
		if _, err := tx.exec(`UPDATE token SET revoked_at = $1 WHERE tenant = $2 AND revoked_at IS NULL`, micros(now), string(id)); err != nil {
			return err
		}
		for _, statement := range []string{
			`DELETE FROM evidence WHERE tenant = $1`, `DELETE FROM once WHERE tenant = $1`,
			`DELETE FROM dead_letter WHERE endpoint IN (SELECT id FROM endpoint WHERE tenant = $1)`, `DELETE FROM acknowledged WHERE endpoint IN (SELECT id FROM endpoint WHERE tenant = $1)`,
			`DELETE FROM notice WHERE endpoint IN (SELECT id FROM endpoint WHERE tenant = $1)`,
			`DELETE FROM endpoint WHERE tenant = $1`, `DELETE FROM change WHERE tenant = $1`,
		} {
			if _, err := tx.exec(statement, string(id)); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil && s.d == sqliteDialect {
		// The write-ahead log still holds the old pages.
		_, err = s.write.ExecContext(ctx, `PRAGMA wal_checkpoint(TRUNCATE)`)
	}
	return err
}
