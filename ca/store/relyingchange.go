package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/openjpki/jpki"
)

// LockChanges returns up to which position of the status log changes have been derived and locks that until the transaction
// ends. Who makes a watch does so under it: what is in the status log by then has been derived or will find the watch.
func (tx *Tx) LockChanges() (derived int64, err error) {
	err = tx.q.QueryRowContext(tx.ctx, `SELECT status_seq FROM relying_cursor WHERE id = 1`+tx.lock()).Scan(&derived)
	if err != nil {
		return 0, fmt.Errorf("lock changes: %w", err)
	}
	return derived, nil
}

// StatusEnd returns the last position of the status log.
func (tx *Tx) StatusEnd() (end int64, err error) {
	if err = tx.q.QueryRowContext(tx.ctx, `SELECT status_seq FROM head WHERE id = 1`).Scan(&end); err != nil {
		return 0, fmt.Errorf("read end of the status log: %w", err)
	}
	return end, nil
}

// ChangesDue reports whether the status log goes on behind what changes have been derived from.
func (s *Store) ChangesDue(ctx context.Context) (due bool, err error) {
	var behind int64
	err = s.db.QueryRowContext(ctx, `SELECT h.status_seq - c.status_seq FROM head h, relying_cursor c WHERE h.id = 1 AND c.id = 1`).Scan(&behind)
	return behind > 0, s.d.classify(ctx, err)
}

// A LoggedStatus is an entry of the status log with whom it concerns.
type LoggedStatus struct {
	Seq       int64
	Kind      jpki.Kind
	Holder    string
	State     jpki.State
	Cause     jpki.Cause
	Since     time.Time
	First     bool // the certificate's issuance
	Protected bool // the holder is, now
	Succeeded bool // another certificate took the place of this one
}

// StatusesBehind returns the entries at up to limit positions of the status log behind one, in order, and the last of these
// positions. Entries of numbers without a certificate concern nobody and are left out.
func (tx *Tx) StatusesBehind(after int64, limit int) (list []LoggedStatus, last int64, err error) {
	end, err := tx.StatusEnd()
	if err != nil {
		return nil, 0, err
	}
	last = min(end, after+int64(limit))
	list, err = queryAll(tx.ctx, tx.q, func(row scanner) (s LoggedStatus, err error) {
		var since, version int64
		var protected, successors int
		if err = row.Scan(&s.Seq, &s.Kind, &s.Holder, &s.State, &s.Cause, &since, &version, &protected, &successors); err != nil {
			return s, err
		}
		s.Since, s.First, s.Protected, s.Succeeded = fromMicros(since), version == 1, protected == 1, successors > 0
		return s, nil
	}, `SELECT l.seq, c.kind, c.holder, l.state, l.cause, l.since, l.version, h.protected,
			(SELECT COUNT(*) FROM certificate r WHERE r.holder = c.holder AND r.replaces_issuer = l.issuer AND r.replaces_serial = l.serial)
		FROM status_log l JOIN certificate c ON c.issuer = l.issuer AND c.serial = l.serial JOIN holder h ON h.id = c.holder
		WHERE l.seq > $1 AND l.seq <= $2 ORDER BY l.seq`, after, last)
	return list, last, err
}

// A Watcher is a watch with what decides what it is told.
type Watcher struct {
	Holder   string
	Tenant   jpki.CorporateNumber
	Operator string
	User     string
	Purpose  string
	After    int64 // position of the status log from behind which it tells
	Kinds    KindSet
	Uses     string // that the tenant is entitled to, parted by spaces
}

// Watchers returns the watches of holders, by holder, in the order of tenant, user and purpose. Those of tenants that have
// ended tell nothing.
func (tx *Tx) Watchers(holders []string) (map[string][]Watcher, error) {
	holders = slices.Compact(slices.Sorted(slices.Values(holders)))
	list, err := queryIn(tx, func(row scanner) (w Watcher, err error) {
		return w, row.Scan(&w.Holder, &w.Tenant, &w.Operator, &w.User, &w.Purpose, &w.After, &w.Kinds, &w.Uses)
	}, `SELECT u.holder, w.tenant, t.operator, w.user_id, w.purpose, w.after_seq, u.kinds, t.uses FROM relying_user u
		JOIN relying_watch w ON w.tenant = u.tenant AND w.user_id = u.user_id JOIN relying_tenant t ON t.corporate_number = w.tenant
		WHERE t.ended_at IS NULL AND u.holder IN `, ` ORDER BY w.tenant, w.user_id, w.purpose`, anys(holders))
	out := map[string][]Watcher{}
	for _, w := range list {
		out[w.Holder] = append(out[w.Holder], w)
	}
	return out, err
}

// A UserChange is an entry of an operator's feed.
type UserChange struct {
	Operator   string
	Seq        int64
	Tenant     jpki.CorporateNumber
	User       string
	Purpose    string
	Class      jpki.ChangeClass
	Kind       jpki.Kind
	Correction bool
	At         time.Time
}

// AppendChanges adds what was derived from the status log up to a position to the operators' feeds, in order, and moves the
// position: under its lock, so each entry is derived once, and the feeds have no gaps and become visible in order.
func (tx *Tx) AppendChanges(changes []UserChange, derived int64, now time.Time) error {
	var names []string
	for _, c := range changes {
		names = append(names, c.Operator)
	}
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	operators, err := tx.Operators(names)
	if err != nil {
		return fmt.Errorf("read feeds: %w", err)
	}
	rows := make([][]any, len(changes))
	for i, c := range changes {
		o := operators[c.Operator]
		o.Position++
		operators[c.Operator] = o
		rows[i] = []any{c.Operator, o.Position, string(c.Tenant), c.User, c.Purpose, string(c.Class), string(c.Kind), boolInt(c.Correction), micros(c.At), micros(now)}
	}
	tasks := []task{insert(`INSERT INTO relying_change (operator, seq, tenant, user_id, purpose, class, kind, correction, at, derived_at)`, "", rows, as("append changes"))}
	for _, name := range names {
		tasks = append(tasks, task{statements: []statement{{`UPDATE relying_operator SET change_seq = $2 WHERE id = $1`, []any{name, operators[name].Position}}}, then: as("advance feed")})
	}
	return tx.perform(append(tasks, task{statements: []statement{{`UPDATE relying_cursor SET status_seq = $1 WHERE id = 1`, []any{derived}}}, then: as("advance derivation")})...)
}

// UserChanges returns up to limit changes of a feed behind a position, in order.
func (tx *Tx) UserChanges(operator string, after int64, limit int) ([]UserChange, error) {
	return queryAll(tx.ctx, tx.q, func(row scanner) (c UserChange, err error) {
		var correction int
		var at int64
		err = row.Scan(&c.Operator, &c.Seq, &c.Tenant, &c.User, &c.Purpose, &c.Class, &c.Kind, &correction, &at)
		c.Correction, c.At = correction == 1, fromMicros(at)
		return c, err
	}, `SELECT operator, seq, tenant, user_id, purpose, class, kind, correction, at FROM relying_change WHERE operator = $1 AND seq > $2 ORDER BY seq LIMIT $3`, operator, after, limit)
}

// ForgetChanges removes changes derived before a time and notes in the feeds how far they are gone.
func (tx *Tx) ForgetChanges(before time.Time) (removed int64, err error) {
	if _, err := tx.LockChanges(); err != nil {
		return 0, err
	}
	// Not beyond the first that stays: the clock may have gone back between two.
	if _, err := tx.exec(`UPDATE relying_operator SET forgotten_seq = COALESCE((SELECT MIN(seq) - 1 FROM relying_change c WHERE c.operator = relying_operator.id AND c.derived_at >= $1), change_seq)`, micros(before)); err != nil {
		return 0, fmt.Errorf("note forgotten changes: %w", err)
	}
	return tx.exec(`DELETE FROM relying_change WHERE seq <= (SELECT forgotten_seq FROM relying_operator o WHERE o.id = relying_change.operator)`)
}
