package store

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
)

// digestLabel binds the key of digests to its place.
const digestLabel = "digest key"

var errMaster = errors.New("the master key is not the one under which keys are sealed")

// unwrap opens a key that is sealed under the master key, or still under the previous one. old says which it was.
func (s *Store) unwrap(label string, sealed []byte) (k key, old bool, err error) {
	if k, err = s.master.open(label, sealed); err == nil || s.previous == nil {
		return k, false, err
	}
	k, err = s.previous.open(label, sealed)
	return k, err == nil, err
}

// openKeys opens the key of digests, which it makes of the master key in a database that has none yet, and a tenant's key, so that
// a wrong master key is noticed at the start.
func (s *Store) openKeys(ctx context.Context) error {
	if err := s.checkMaster(ctx); err != nil {
		return err
	}
	sealed, err := s.digestKey(ctx)
	if err != nil {
		return fmt.Errorf("read key of digests: %w", err)
	}
	if sealed == nil {
		first := s.master
		if s.previous != nil { // there was a key before the one that is to come
			first = s.previous
		}
		if sealed, err = first.seal(digestLabel, first); err != nil {
			return fmt.Errorf("seal key of digests: %w", err)
		}
		if err := s.Update(ctx, func(tx *Tx) error {
			_, err := tx.exec(`INSERT INTO digest_key (id, sealed) VALUES (1, $1) ON CONFLICT (id) DO NOTHING`, sealed)
			return err
		}); err != nil {
			return fmt.Errorf("store key of digests: %w", err)
		}
		if sealed, err = s.digestKey(ctx); err != nil { // another process may have been faster
			return fmt.Errorf("read key of digests: %w", err)
		}
	}
	if s.digests, _, err = s.unwrap(digestLabel, sealed); err != nil {
		return errMaster
	}
	return nil
}

func (s *Store) digestKey(ctx context.Context) (sealed []byte, err error) {
	var all [][]byte
	err = s.View(ctx, func(tx *Tx) (err error) {
		all, err = queryAll(tx, func(r scanner) (b []byte, err error) { return b, r.Scan(&b) }, `SELECT sealed FROM digest_key`)
		return err
	})
	if err != nil || len(all) == 0 {
		return nil, err
	}
	return all[0], nil
}

// checkMaster opens one tenant's key.
func (s *Store) checkMaster(ctx context.Context) error {
	return s.View(ctx, func(tx *Tx) error {
		tenants, err := queryAll(tx, scanTenant, selectTenants+` WHERE revoked_at IS NULL ORDER BY id LIMIT 1`)
		if err != nil {
			return fmt.Errorf("read tenants: %w", err)
		}
		for _, t := range tenants {
			if _, _, err := s.unwrap(labelOf(t.ID), t.sealed); err != nil {
				return errMaster
			}
		}
		return nil
	})
}

// RotateMaster seals every key that is still under Config.PreviousMasterKey under Config.MasterKey, all of them or none, and returns how
// many those were. What the keys protect is not touched. Who stops it, or has a server with the previous key add a tenant meanwhile,
// runs it again. On SQLite what is overwritten is gone; PostgreSQL keeps it until it vacuums.
func (s *Store) RotateMaster(ctx context.Context) (n int, err error) {
	if s.previous == nil {
		return 0, errors.New("verifier's store: PreviousMasterKey is required to rotate")
	}
	err = s.Update(ctx, func(tx *Tx) error {
		n = 0
		tenants, err := queryAll(tx, scanTenant, selectTenants+` WHERE revoked_at IS NULL ORDER BY id`)
		if err != nil {
			return fmt.Errorf("read tenants: %w", err)
		}
		for _, t := range tenants {
			// Not if it was revoked or rotated meanwhile.
			if err := tx.rewrap(&n, labelOf(t.ID), t.sealed, `UPDATE tenant SET data_key = $1 WHERE data_key = $2 AND id = $3 AND revoked_at IS NULL`, string(t.ID)); err != nil {
				return fmt.Errorf("tenant %s: %w", t.ID, err)
			}
		}
		var sealed []byte
		if err := tx.q.QueryRowContext(tx.ctx, `SELECT sealed FROM digest_key WHERE id = 1`).Scan(&sealed); err != nil {
			return fmt.Errorf("read key of digests: %w", err)
		}
		return tx.rewrap(&n, digestLabel, sealed, `UPDATE digest_key SET sealed = $1 WHERE sealed = $2 AND id = $3`, 1)
	})
	if err == nil && s.d == sqliteDialect {
		_, err = s.write.ExecContext(ctx, `PRAGMA wal_checkpoint(TRUNCATE)`) // it still holds the old pages
	}
	return n, err
}

func (tx *Tx) rewrap(n *int, label string, sealed []byte, update string, id any) error {
	k, old, err := tx.s.unwrap(label, sealed)
	if err != nil || !old {
		return err
	}
	again, err := tx.s.master.seal(label, k)
	if err != nil {
		return err
	}
	changed, err := tx.exec(update, again, sealed, id)
	*n += int(changed)
	return err
}

// checkKeys says what is wrong with the configured keys.
func checkKeys(cfg Config) error {
	switch {
	case len(cfg.MasterKey) != keyBytes:
		return fmt.Errorf("verifier's store: MasterKey has not %d octets", keyBytes)
	case cfg.PreviousMasterKey != nil && len(cfg.PreviousMasterKey) != keyBytes:
		return fmt.Errorf("verifier's store: PreviousMasterKey has not %d octets", keyBytes)
	case subtle.ConstantTimeCompare(cfg.MasterKey, cfg.PreviousMasterKey) == 1:
		return errors.New("verifier's store: PreviousMasterKey is the MasterKey")
	}
	return nil
}
