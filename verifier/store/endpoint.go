package store

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/openjpki/jpki"
)

// A Method is how changes get to a receiver.
type Method string

// The methods.
const (
	Webhook Method = "webhook"  // Standard Webhooks
	SSFPush Method = "ssf-push" // Security Event Tokens, pushed (RFC 8935)
	SSFPoll Method = "ssf-poll" // Security Event Tokens, polled (RFC 8936)
)

// MaxEndpoints is how many endpoints a tenant may have.
const MaxEndpoints = 16

// A Target is where and how an endpoint is reached. It is kept sealed.
type Target struct {
	URL           string   `json:"url,omitempty"`
	Secret        []byte   `json:"secret,omitempty"`        // of webhooks
	OldSecret     []byte   `json:"old_secret,omitempty"`    // which still signs, too
	OldUntil      int64    `json:"old_until,omitempty"`     // until then, Unix seconds
	Authorization string   `json:"authorization,omitempty"` // header sent with pushed tokens
	Audience      string   `json:"audience,omitempty"`      // of tokens
	Events        []string `json:"events,omitempty"`        // types of events wanted in tokens
	Description   string   `json:"description,omitempty"`   // of a stream, its receiver's words
	Disabled      bool     `json:"disabled,omitempty"`      // switched off: what happens until it is on again is not delivered later
}

// An Endpoint is a tenant's receiver of changes.
type Endpoint struct {
	ID     string
	Tenant jpki.CorporateNumber
	Method Method
	Target
	Enabled   bool
	Position  int64  // up to this sequence everything is delivered or refused
	Attempts  int    // in vain, for what comes next
	Failure   string // of the last of them; empty if there is none
	NextAt    time.Time
	CreatedAt time.Time
}

const selectEndpoints = `SELECT id, tenant, method, sealed, enabled, position, attempts, failure, next_at, created_at FROM endpoint`

type sealedEndpoint struct {
	Endpoint
	sealed []byte
}

func scanEndpoint(r scanner) (e sealedEndpoint, err error) {
	var enabled int
	var next, created int64
	err = r.Scan(&e.ID, &e.Tenant, &e.Method, &e.sealed, &enabled, &e.Position, &e.Attempts, &e.Failure, &next, &created)
	e.Enabled, e.NextAt, e.CreatedAt = enabled == 1, fromMicros(next), fromMicros(created)
	return e, err
}

func endpointLabel(id string) string { return "endpoint " + id }

func (e sealedEndpoint) open(k key) (Endpoint, error) {
	text, err := k.open(endpointLabel(e.ID), e.sealed)
	if err == nil {
		err = json.Unmarshal(text, &e.Target)
	}
	if err != nil {
		return Endpoint{}, fmt.Errorf("open endpoint: %w", err)
	}
	return e.Endpoint, nil
}

// AddEndpoint makes a receiver that gets what is behind a sequence; -1 means the feed's end. More than [MaxEndpoints] are a [jpki.Conflict].
func (s *Store) AddEndpoint(ctx context.Context, a *Access, m Method, t Target, after int64, now time.Time) (Endpoint, error) {
	var random [16]byte
	if _, err := io.ReadFull(s.rand, random[:]); err != nil {
		return Endpoint{}, fmt.Errorf("draw endpoint's identifier: %w", err)
	}
	e := Endpoint{ID: hex.EncodeToString(random[:]), Tenant: a.Tenant.ID, Method: m, Target: t, Enabled: true, Position: after, NextAt: fromMicros(micros(now)), CreatedAt: fromMicros(micros(now))}
	text, err := json.Marshal(t) //nolint:gosec // G117: sealed below
	if err != nil {
		return Endpoint{}, err
	}
	sealed, err := a.key.seal(endpointLabel(e.ID), text)
	if err != nil {
		return Endpoint{}, fmt.Errorf("seal endpoint: %w", err)
	}
	return e, s.Update(ctx, func(tx *Tx) error {
		end, err := tx.feedEnd(a.Tenant.ID)
		if err != nil {
			return err
		}
		var n int
		if err := tx.q.QueryRowContext(tx.ctx, `SELECT COUNT(*) FROM endpoint WHERE tenant = $1`, string(a.Tenant.ID)).Scan(&n); err != nil {
			return err
		}
		switch {
		case end < 0:
			return jpki.Errorf(jpki.NotFound, "the tenant is revoked")
		case n >= MaxEndpoints:
			return jpki.Errorf(jpki.Conflict, "a tenant has at most %d endpoints", MaxEndpoints)
		case after < 0:
			e.Position = end
		case after > end:
			return jpki.Errorf(jpki.Malformed, "the feed ends at %d", end)
		}
		_, err = tx.exec(`INSERT INTO endpoint (id, tenant, method, sealed, enabled, position, attempts, failure, next_at, leased_by, leased_until, created_at)
			VALUES ($1, $2, $3, $4, 1, $5, 0, '', $6, '', 0, $6)`, e.ID, string(e.Tenant), string(m), sealed, e.Position, micros(now))
		return err
	})
}

// Endpoints returns a tenant's receivers, oldest first.
func (s *Store) Endpoints(ctx context.Context, a *Access) (out []Endpoint, err error) {
	var rows []sealedEndpoint
	err = s.View(ctx, func(tx *Tx) (err error) {
		rows, err = queryAll(tx, scanEndpoint, selectEndpoints+` WHERE tenant = $1 ORDER BY created_at, id`, string(a.Tenant.ID))
		return err
	})
	for _, r := range rows {
		e, err := r.open(a.key)
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, err
}

// Endpoint returns one receiver; [jpki.NotFound] if the tenant has none of this name.
func (s *Store) Endpoint(ctx context.Context, a *Access, id string) (Endpoint, error) {
	all, err := s.Endpoints(ctx, a)
	if err != nil {
		return Endpoint{}, err
	}
	if i := slices.IndexFunc(all, func(e Endpoint) bool { return e.ID == id }); i >= 0 {
		return all[i], nil
	}
	return Endpoint{}, errNoEndpoint()
}

func errNoEndpoint() error { return jpki.Errorf(jpki.NotFound, "there is no such endpoint") }

// ChangeEndpoint has change alter method, target, whether it is enabled, or the position, and forgets failures. change may run several
// times. Who delivers at the moment goes on with what was before for no longer than a delivery takes, or 250 ms.
func (s *Store) ChangeEndpoint(ctx context.Context, a *Access, id string, change func(e *Endpoint, feedEnd int64) error, now time.Time) (e Endpoint, err error) {
	err = s.Update(ctx, func(tx *Tx) error {
		// The write takes the row's lock.
		n, err := tx.exec(`UPDATE endpoint SET attempts = 0, failure = '', next_at = $1 WHERE id = $2 AND tenant = $3`, micros(now), id, string(a.Tenant.ID))
		if err != nil {
			return err
		}
		if n == 0 {
			return errNoEndpoint()
		}
		row, err := scanEndpoint(tx.q.QueryRowContext(tx.ctx, selectEndpoints+` WHERE id = $1`, id))
		if err != nil {
			return err
		}
		if e, err = row.open(a.key); err != nil {
			return err
		}
		end, err := tx.feedEnd(a.Tenant.ID)
		if err != nil {
			return err
		}
		if err := change(&e, end); err != nil {
			return err
		}
		text, err := json.Marshal(e.Target) //nolint:gosec // G117: sealed below
		if err != nil {
			return err
		}
		sealed, err := a.key.seal(endpointLabel(e.ID), text)
		if err != nil {
			return fmt.Errorf("seal endpoint: %w", err)
		}
		if e.Method != row.Method {
			if _, err := tx.exec(`DELETE FROM acknowledged WHERE endpoint = $1`, id); err != nil {
				return err
			}
		}
		_, err = tx.exec(`UPDATE endpoint SET method = $1, sealed = $2, enabled = $3, position = $4 WHERE id = $5`, string(e.Method), sealed, boolInt(e.Enabled), e.Position, id)
		return err
	})
	return e, err
}

// DeleteEndpoint deletes a receiver with its dead letters.
func (s *Store) DeleteEndpoint(ctx context.Context, a *Access, id string) error {
	return s.Update(ctx, func(tx *Tx) error {
		for _, statement := range []string{
			`DELETE FROM dead_letter WHERE endpoint IN (SELECT id FROM endpoint WHERE id = $1 AND tenant = $2)`,
			`DELETE FROM acknowledged WHERE endpoint IN (SELECT id FROM endpoint WHERE id = $1 AND tenant = $2)`,
			`DELETE FROM notice WHERE endpoint IN (SELECT id FROM endpoint WHERE id = $1 AND tenant = $2)`,
		} {
			if _, err := tx.exec(statement, id, string(a.Tenant.ID)); err != nil {
				return err
			}
		}
		n, err := tx.exec(`DELETE FROM endpoint WHERE id = $1 AND tenant = $2`, id, string(a.Tenant.ID))
		if err == nil && n == 0 {
			err = errNoEndpoint()
		}
		return err
	})
}

// A DeadLetter is what a receiver refused.
type DeadLetter struct {
	Change
	Failure string
	DiedAt  time.Time
	Again   bool // it is to be delivered once more
}

// DeadLetters returns what a receiver refused behind a sequence, at most limit, and how many changes wait for it.
func (s *Store) DeadLetters(ctx context.Context, a *Access, id string, after int64, limit int) (out []DeadLetter, waiting int64, err error) {
	err = s.View(ctx, func(tx *Tx) error {
		err := tx.q.QueryRowContext(tx.ctx, `SELECT COALESCE(feed.last, 0) - position FROM endpoint LEFT JOIN feed ON feed.tenant = endpoint.tenant WHERE endpoint.id = $1 AND endpoint.tenant = $2`,
			id, string(a.Tenant.ID)).Scan(&waiting)
		if err != nil {
			return notFound(err, jpki.NotFound, "there is no such endpoint")
		}
		out, err = tx.deadLetters(id, `dead_letter.sequence > $2`, after, limit)
		return err
	})
	return out, waiting, err
}

func (tx *Tx) deadLetters(endpoint, where string, arg any, limit int) ([]DeadLetter, error) {
	return queryAll(tx, func(r scanner) (d DeadLetter, err error) {
		var again int
		var died int64
		d.Change, err = scanChange(scanInto{r, []any{&d.Failure, &died, &again}})
		d.DiedAt, d.Again = fromMicros(died), again == 1
		return d, err
	}, `SELECT change.sequence, change.id, user_id, purpose, class, kind, correction, changed_at, received_at, dead_letter.failure, died_at, again
		FROM dead_letter JOIN endpoint ON endpoint.id = dead_letter.endpoint JOIN change ON change.tenant = endpoint.tenant AND change.sequence = dead_letter.sequence
		WHERE dead_letter.endpoint = $1 AND `+where+` ORDER BY dead_letter.sequence LIMIT $3`, endpoint, arg, limit)
}

// scanInto scans more columns than its user knows of.
type scanInto struct {
	scanner
	more []any
}

func (s scanInto) Scan(dest ...any) error { return s.scanner.Scan(append(dest, s.more...)...) }

// Redeliver has dead letters of a receiver delivered once more: that of a sequence, or all with 0. It returns how many those are.
func (s *Store) Redeliver(ctx context.Context, a *Access, id string, sequence int64, now time.Time) (n int64, err error) {
	err = s.Update(ctx, func(tx *Tx) error {
		known, err := tx.exec(`UPDATE endpoint SET next_at = $1 WHERE id = $2 AND tenant = $3`, micros(now), id, string(a.Tenant.ID))
		if err != nil {
			return err
		}
		if known == 0 {
			return errNoEndpoint()
		}
		n, err = tx.exec(`UPDATE dead_letter SET again = 1 WHERE endpoint = $1 AND ($2 = 0 OR sequence = $2)`, id, sequence)
		return err
	})
	return n, err
}

// A Lease is a receiver that one process delivers to, until its time is over.
type Lease struct {
	Endpoint
	by     string
	key    key
	sealed []byte
}

// LeaseEndpoints leases receivers to whom something is due, at most limit, until a time. by is a random name of the process's turn.
// While a lease runs, nobody else delivers: so the order is kept.
func (s *Store) LeaseEndpoints(ctx context.Context, by string, limit int, now, until time.Time) (out []Lease, err error) {
	type row struct {
		sealedEndpoint
		tenantKey []byte
	}
	var due []row
	err = s.View(ctx, func(tx *Tx) (err error) {
		due, err = queryAll(tx, func(r scanner) (v row, err error) {
			v.sealedEndpoint, err = scanEndpoint(scanInto{r, []any{&v.tenantKey}})
			return v, err
		}, `SELECT endpoint.id, endpoint.tenant, method, sealed, enabled, position, attempts, failure, next_at, endpoint.created_at, tenant.data_key
			FROM endpoint JOIN tenant ON tenant.id = endpoint.tenant JOIN feed ON feed.tenant = endpoint.tenant
			WHERE enabled = 1 AND method <> 'ssf-poll' AND next_at <= $1 AND leased_until <= $1 AND tenant.revoked_at IS NULL
			AND (position < feed.last OR EXISTS (SELECT 1 FROM dead_letter WHERE dead_letter.endpoint = endpoint.id AND again = 1)
				OR EXISTS (SELECT 1 FROM notice WHERE notice.endpoint = endpoint.id))
			ORDER BY next_at, endpoint.id LIMIT $2`, micros(now), limit)
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, r := range due {
		k, _, err := s.unwrap(labelOf(r.Tenant), r.tenantKey)
		if err != nil {
			return nil, fmt.Errorf("open tenant's key: %w", err)
		}
		e, err := r.open(k)
		if err != nil {
			return nil, err
		}
		var ours bool
		err = s.Update(ctx, func(tx *Tx) error {
			n, err := tx.exec(`UPDATE endpoint SET leased_by = $1, leased_until = $2 WHERE id = $3 AND leased_until <= $4 AND position = $5`, by, micros(until), e.ID, micros(now), e.Position)
			ours = n == 1
			return err
		})
		if err != nil {
			return out, err
		}
		if ours {
			out = append(out, Lease{e, by, k, r.sealed})
		}
	}
	return out, nil
}

// Due is what is to be delivered next.
type Due struct {
	Notices []Notice
	Again   []DeadLetter // to be delivered once more
	Next    []Change     // behind the position; only if there is nothing else
}

// Due returns what is to be delivered next, at most limit dead letters and changes.
func (s *Store) Due(ctx context.Context, l *Lease, limit int) (d Due, err error) {
	err = s.View(ctx, func(tx *Tx) (err error) {
		if d.Notices, err = tx.notices(l.ID, l.key); err != nil {
			return err
		}
		if d.Again, err = tx.deadLetters(l.ID, `again = $2`, 1, limit); err != nil || len(d.Again) > 0 {
			return err
		}
		d.Next, err = tx.changes(l.Tenant, l.Position, limit)
		if jpki.ProblemOf(err) == jpki.CursorExpired { // down for longer than anything is kept
			d.Next, err = queryAll(tx, scanChange, selectChanges+` WHERE tenant = $1 AND sequence > $2 ORDER BY sequence LIMIT $3`, string(l.Tenant), l.Position, limit)
		}
		return err
	})
	return d, err
}

// A Progress is what came of delivering.
type Progress struct {
	Position int64            // up to here everything is delivered or dead
	Dead     map[int64]string // refused, with the reason
	Revived  []int64          // dead letters that were delivered after all
	Noticed  []string         // notices that were delivered, or refused
	Attempts int              // in vain, for what comes next
	Failure  string
	NextAt   time.Time // when to go on
	Disable  bool      // the receiver wants no more
	Release  bool      // the lease ends
}

// Progress records what came of delivering under a lease, and reads what the tenant has changed about the endpoint. [jpki.Conflict] if
// the lease is another's by now.
func (s *Store) Progress(ctx context.Context, l *Lease, p Progress, now time.Time) error {
	var row sealedEndpoint
	err := s.Update(ctx, func(tx *Tx) error {
		n, err := tx.exec(`UPDATE endpoint SET position = CASE WHEN position > $1 THEN position ELSE $1 END, attempts = $2, failure = $3, next_at = $4, enabled = CASE WHEN $5 = 1 THEN 0 ELSE enabled END, leased_until = CASE WHEN $6 = 1 THEN 0 ELSE leased_until END
			WHERE id = $7 AND leased_by = $8 AND leased_until > $9`, p.Position, p.Attempts, p.Failure, micros(p.NextAt), boolInt(p.Disable), boolInt(p.Release), l.ID, l.by, micros(now))
		if err != nil {
			return err
		}
		if n == 0 {
			return jpki.Errorf(jpki.Conflict, "the lease is over")
		}
		if row, err = scanEndpoint(tx.q.QueryRowContext(tx.ctx, selectEndpoints+` WHERE id = $1`, l.ID)); err != nil {
			return err
		}
		for _, id := range p.Noticed {
			if err := tx.dropNotice(l.ID, id); err != nil {
				return err
			}
		}
		for sequence, failure := range p.Dead {
			if err := tx.bury(l.ID, sequence, failure, now); err != nil {
				return err
			}
		}
		for _, sequence := range p.Revived {
			if _, err := tx.exec(`DELETE FROM dead_letter WHERE endpoint = $1 AND sequence = $2`, l.ID, sequence); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	l.Enabled, l.Position, l.Attempts = row.Enabled, row.Position, p.Attempts
	if !bytes.Equal(l.sealed, row.sealed) {
		e, err := row.open(l.key)
		if err != nil {
			return err
		}
		l.Method, l.Target, l.sealed = e.Method, e.Target, row.sealed
	}
	return nil
}

func (tx *Tx) bury(endpoint string, sequence int64, failure string, now time.Time) error {
	_, err := tx.exec(`INSERT INTO dead_letter (endpoint, sequence, failure, died_at, again) VALUES ($1, $2, $3, $4, 0)
		ON CONFLICT (endpoint, sequence) DO UPDATE SET failure = excluded.failure, died_at = excluded.died_at, again = 0`, endpoint, sequence, failure, micros(now))
	return err
}

// Poll acknowledges what a polling receiver names by identifier, and returns what it has not acknowledged yet, in order, at most
// limit; more tells that there is more, and notices are those not acknowledged. refused maps identifiers that the receiver could not take
// to a reason. While the endpoint is not enabled nothing is returned.
func (s *Store) Poll(ctx context.Context, a *Access, id string, acks []string, refused map[string]string, limit int, now time.Time) (out []Change, notices []Notice, more bool, err error) {
	err = s.Update(ctx, func(tx *Tx) error {
		out, notices, more = nil, nil, false
		var position int64
		var enabled int
		// The write takes the row's lock, so two polls take turns.
		n, err := tx.exec(`UPDATE endpoint SET next_at = $1 WHERE id = $2 AND tenant = $3 AND method = 'ssf-poll'`, micros(now), id, string(a.Tenant.ID))
		if err != nil {
			return err
		}
		if n == 0 {
			return errNoEndpoint()
		}
		if err := tx.q.QueryRowContext(tx.ctx, `SELECT position, enabled FROM endpoint WHERE id = $1`, id).Scan(&position, &enabled); err != nil {
			return err
		}
		take := func(change, failure string) error {
			if err := tx.dropNotice(id, change); err != nil {
				return err
			}
			found, err := queryAll(tx, func(r scanner) (n int64, err error) { return n, r.Scan(&n) }, `SELECT sequence FROM change WHERE id = $1 AND tenant = $2`, change, string(a.Tenant.ID))
			if err != nil {
				return err
			}
			for _, sequence := range found {
				if failure != "" {
					err = tx.bury(id, sequence, failure, now)
				} else {
					_, err = tx.exec(`DELETE FROM dead_letter WHERE endpoint = $1 AND sequence = $2`, id, sequence)
				}
				if err != nil {
					return err
				}
				if sequence > position {
					if _, err := tx.exec(`INSERT INTO acknowledged (endpoint, sequence) VALUES ($1, $2) ON CONFLICT (endpoint, sequence) DO NOTHING`, id, sequence); err != nil {
						return err
					}
				}
			}
			return nil
		}
		for _, change := range acks {
			if err := take(change, ""); err != nil {
				return err
			}
		}
		for change, failure := range refused {
			if err := take(change, failure); err != nil {
				return err
			}
		}
		taken, err := queryAll(tx, func(r scanner) (n int64, err error) { return n, r.Scan(&n) }, `SELECT sequence FROM acknowledged WHERE endpoint = $1 ORDER BY sequence`, id)
		if err != nil {
			return err
		}
		for len(taken) > 0 && taken[0] == position+1 {
			position, taken = taken[0], taken[1:]
		}
		if _, err := tx.exec(`UPDATE endpoint SET position = $1 WHERE id = $2`, position, id); err != nil {
			return err
		}
		if _, err := tx.exec(`DELETE FROM acknowledged WHERE endpoint = $1 AND sequence <= $2`, id, position); err != nil {
			return err
		}
		if enabled == 0 {
			return nil
		}
		if notices, err = tx.notices(id, a.key); err != nil {
			return err
		}
		again, err := tx.deadLetters(id, `again = $2`, 1, limit)
		if err != nil {
			return err
		}
		for _, d := range again {
			out = append(out, d.Change)
		}
		rest, err := queryAll(tx, scanChange, selectChanges+` WHERE tenant = $1 AND sequence > $2
			AND NOT EXISTS (SELECT 1 FROM acknowledged WHERE endpoint = $3 AND acknowledged.sequence = change.sequence) ORDER BY sequence LIMIT $4`, string(a.Tenant.ID), position, id, limit+1)
		if err != nil {
			return err
		}
		out = append(out, rest...)
		if more = len(out) > limit; more {
			out = out[:limit]
		}
		return nil
	})
	return out, notices, more, err
}
