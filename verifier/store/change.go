package store

import (
	"context"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/openjpki/jpki"
)

// ChangesKept is for how long a tenant's feed can be read again.
const ChangesKept = 90 * 24 * time.Hour

// A Change is an entry of a tenant's feed: that something about a user changed, never what; or, with the class [jpki.ChangesMissed] and
// no user, purpose or kind, that the feed may have a hole.
type Change struct {
	Sequence   int64 // 1, 2, 3 … for each tenant, without gaps
	ID         string
	User       string
	Purpose    string
	Class      jpki.ChangeClass
	Kind       jpki.Kind
	Correction bool
	At         time.Time // to the second
	ReceivedAt time.Time
}

// An AuthorityChange is a change as the authority tells it: for which tenant, and under the authority's identifier.
type AuthorityChange struct {
	Tenant jpki.CorporateNumber
	Change
}

// AuthorityPosition returns up to where the authority's feed was read.
func (s *Store) AuthorityPosition(ctx context.Context) (position int64, err error) {
	err = s.View(ctx, func(tx *Tx) error {
		return tx.q.QueryRowContext(tx.ctx, `SELECT position FROM authority_cursor WHERE id = 1`).Scan(&position)
	})
	return position, err
}

// AppendChanges adds to tenants' feeds what the authority told between two positions, and moves the cursor, in one transaction. If
// the cursor is not at after any more, another process was faster: nothing is added and moved is false. So each change gets into a
// feed once, however many processes follow, and sequences have no gaps. What concerns no tenant of ours is left out.
//
// Identifiers are made anew for each tenant: the authority's count over all tenants, which would tell that two were told of the
// same thing.
func (s *Store) AppendChanges(ctx context.Context, after, next int64, changes []AuthorityChange, now time.Time) (moved bool, err error) {
	err = s.Update(ctx, func(tx *Tx) error {
		n, err := tx.exec(`UPDATE authority_cursor SET position = $1 WHERE id = 1 AND position = $2`, next, after)
		if err != nil {
			return fmt.Errorf("move cursor: %w", err)
		}
		if moved = n == 1; !moved {
			return nil
		}
		ends := map[jpki.CorporateNumber]int64{}
		var rows [][]any
		for _, c := range changes {
			end, known := ends[c.Tenant]
			if !known {
				if end, err = tx.feedEnd(c.Tenant); err != nil {
					return err
				}
			}
			if end < 0 {
				ends[c.Tenant] = end
				continue
			}
			end++
			ends[c.Tenant] = end
			id := hex.EncodeToString(s.digests.mac("change", []byte(string(c.Tenant)+" "+c.ID))[:16])
			rows = append(rows, []any{string(c.Tenant), end, id, c.User, c.Purpose, string(c.Class), string(c.Kind), boolInt(c.Correction), micros(c.At), micros(now)})
		}
		if err := tx.insertRows(`change (tenant, sequence, id, user_id, purpose, class, kind, correction, changed_at, received_at)`, rows); err != nil {
			return fmt.Errorf("append changes: %w", err)
		}
		for tenant, end := range ends {
			if end >= 0 {
				if _, err := tx.exec(`UPDATE feed SET last = $1 WHERE tenant = $2`, end, string(tenant)); err != nil {
					return fmt.Errorf("move feed's end: %w", err)
				}
			}
		}
		return nil
	})
	return moved, err
}

// Resynchronise moves the cursor, as [Store.AppendChanges] does, over what the authority does not tell any more, and puts one entry of class
// [jpki.ChangesMissed] into each tenant's feed, about no user. It returns how many tenants there are.
func (s *Store) Resynchronise(ctx context.Context, after, next int64, now time.Time) (tenants int, moved bool, err error) {
	err = s.Update(ctx, func(tx *Tx) error {
		tenants = 0
		n, err := tx.exec(`UPDATE authority_cursor SET position = $1 WHERE id = 1 AND position = $2`, next, after)
		if err != nil {
			return fmt.Errorf("move cursor: %w", err)
		}
		if moved = n == 1; !moved {
			return nil
		}
		all, err := queryAll(tx, func(r scanner) (id string, err error) { return id, r.Scan(&id) }, `SELECT id FROM tenant WHERE revoked_at IS NULL ORDER BY id`)
		if err != nil {
			return fmt.Errorf("read tenants: %w", err)
		}
		var rows [][]any
		for _, tenant := range all {
			end, err := tx.feedEnd(jpki.CorporateNumber(tenant))
			if err != nil {
				return err
			}
			// The authority has no identifier for this; a cursor can jump between the same positions more than once.
			id := hex.EncodeToString(s.digests.mac("change", fmt.Appendf(nil, "%s resync %d %d %d", tenant, after, next, micros(now)))[:16])
			rows = append(rows, []any{tenant, end + 1, id, "", "", string(jpki.ChangesMissed), "", 0, micros(now.Truncate(time.Second)), micros(now)})
			if _, err := tx.exec(`UPDATE feed SET last = $1 WHERE tenant = $2`, end+1, tenant); err != nil {
				return fmt.Errorf("move feed's end: %w", err)
			}
		}
		tenants = len(all)
		if err := tx.insertRows(`change (tenant, sequence, id, user_id, purpose, class, kind, correction, changed_at, received_at)`, rows); err != nil {
			return fmt.Errorf("tell tenants: %w", err)
		}
		return nil
	})
	return tenants, moved, err
}

// feedEnd returns the last sequence of a tenant's feed, which it begins if need be; -1 if there is no such tenant.
func (tx *Tx) feedEnd(tenant jpki.CorporateNumber) (int64, error) {
	if _, err := tx.exec(`INSERT INTO feed (tenant, last, forgotten) SELECT id, 0, 0 FROM tenant WHERE id = $1 AND revoked_at IS NULL ON CONFLICT (tenant) DO NOTHING`, string(tenant)); err != nil {
		return 0, fmt.Errorf("begin feed: %w", err)
	}
	ends, err := queryAll(tx, func(r scanner) (end int64, err error) { return end, r.Scan(&end) },
		`SELECT last FROM feed JOIN tenant ON tenant.id = feed.tenant WHERE feed.tenant = $1 AND tenant.revoked_at IS NULL`, string(tenant))
	if err != nil {
		return 0, fmt.Errorf("read feed's end: %w", err)
	}
	if len(ends) == 0 {
		return -1, nil
	}
	return ends[0], nil
}

const selectChanges = `SELECT sequence, id, user_id, purpose, class, kind, correction, changed_at, received_at FROM change`

func scanChange(r scanner) (c Change, err error) {
	var kind string
	var correction int
	var at, received int64
	if err = r.Scan(&c.Sequence, &c.ID, &c.User, &c.Purpose, &c.Class, &kind, &correction, &at, &received); err != nil {
		return c, err
	}
	c.Correction, c.At, c.ReceivedAt = correction == 1, fromMicros(at), fromMicros(received)
	if c.Class != jpki.ChangesMissed { // which concerns no certificate
		c.Kind, err = jpki.ParseKind(kind)
	}
	return c, err
}

// FeedEnd returns the last sequence of a tenant's feed, 0 if it is empty.
func (s *Store) FeedEnd(ctx context.Context, tenant jpki.CorporateNumber) (last int64, err error) {
	err = s.View(ctx, func(tx *Tx) error {
		return tx.q.QueryRowContext(tx.ctx, `SELECT COALESCE(MAX(last), 0) FROM feed WHERE tenant = $1`, string(tenant)).Scan(&last)
	})
	return last, err
}

// Changes returns a tenant's changes behind a sequence, at most limit. [jpki.CursorExpired] if some of them are kept no longer.
func (s *Store) Changes(ctx context.Context, tenant jpki.CorporateNumber, after int64, limit int) (out []Change, err error) {
	err = s.View(ctx, func(tx *Tx) (err error) { out, err = tx.changes(tenant, after, limit); return err })
	return out, err
}

func (tx *Tx) changes(tenant jpki.CorporateNumber, after int64, limit int) ([]Change, error) {
	forgotten, err := queryAll(tx, func(r scanner) (n int64, err error) { return n, r.Scan(&n) }, `SELECT forgotten FROM feed WHERE tenant = $1`, string(tenant))
	if err != nil {
		return nil, fmt.Errorf("read feed: %w", err)
	}
	if len(forgotten) == 1 && after < forgotten[0] {
		return nil, jpki.Errorf(jpki.CursorExpired, "changes up to %d are kept no longer", forgotten[0])
	}
	out, err := queryAll(tx, scanChange, selectChanges+` WHERE tenant = $1 AND sequence > $2 ORDER BY sequence LIMIT $3`, string(tenant), after, limit)
	if err != nil {
		return nil, fmt.Errorf("read changes: %w", err)
	}
	return out, nil
}

// ForgetChanges deletes what was received before a time, up to 10,000 at once, and returns how many that were.
func (s *Store) ForgetChanges(ctx context.Context, before time.Time) (n int64, err error) {
	err = s.Update(ctx, func(tx *Tx) error {
		n = 0
		type end struct {
			tenant string
			last   int64
		}
		ends, err := queryAll(tx, func(r scanner) (e end, err error) { return e, r.Scan(&e.tenant, &e.last) },
			`SELECT tenant, MAX(sequence) FROM (SELECT tenant, sequence FROM change WHERE received_at < $1 ORDER BY received_at LIMIT 10000) AS old GROUP BY tenant`, micros(before))
		if err != nil {
			return err
		}
		for _, e := range ends {
			if _, err := tx.exec(`UPDATE feed SET forgotten = $1 WHERE tenant = $2 AND forgotten < $1`, e.last, e.tenant); err != nil {
				return err
			}
			// Nothing waits for what is not there any more.
			for _, statement := range []string{
				`UPDATE endpoint SET position = $2 WHERE tenant = $1 AND position < $2`,
				`DELETE FROM dead_letter WHERE sequence <= $2 AND endpoint IN (SELECT id FROM endpoint WHERE tenant = $1)`,
				`DELETE FROM acknowledged WHERE sequence <= $2 AND endpoint IN (SELECT id FROM endpoint WHERE tenant = $1)`,
			} {
				if _, err := tx.exec(statement, e.tenant, e.last); err != nil {
					return err
				}
			}
			deleted, err := tx.exec(`DELETE FROM change WHERE tenant = $1 AND sequence <= $2`, e.tenant, e.last)
			if err != nil {
				return err
			}
			n += deleted
		}
		return nil
	})
	return n, err
}
