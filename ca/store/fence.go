package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/audit"
)

// A fence stands around a database that was restored, until it is reconciled with what was published and recorded after
// the backup. It is made of two rows that are there anyway, so that programs older than the fence stop at it, too, and no
// role needs another right:
//
//   - status_log has an entry at the last position there can be. Whoever reads the log gets that entry alone, and whoever
//     follows it finds that it is not the next one.
//   - head has no hash. Whoever appends to the audit record finds nothing to append to, and what is not recorded does not
//     happen.
const (
	fencePosition = math.MaxInt64
	fencedHash    = "restored, not reconciled"
)

// ErrFenced is why a restored database serves nobody; [jpki.Unavailable] wraps it.
var ErrFenced = errors.New("the database was restored and has not been reconciled")

func errFenced() error {
	return jpki.WrapError(jpki.Unavailable, ErrFenced, "the database was restored; `jpki restore lift` ends that when it has been reconciled")
}

// Fenced reports whether the database was restored and not reconciled.
func (r *StatusReader) Fenced(ctx context.Context) (bool, error) {
	var n int
	err := r.db.QueryRowContext(ctx, `SELECT COUNT(*) FROM status_log WHERE seq = $1`, int64(fencePosition)).Scan(&n)
	return n > 0, r.d.classify(ctx, err)
}

// admit refuses what is read from a fenced database.
func (r *StatusReader) admit(ctx context.Context) error {
	fenced, err := r.Fenced(ctx)
	if err == nil && fenced {
		err = errFenced()
	}
	return err
}

// Fence puts a fence around a database that was restored by other means than [Store.Import]; around a fenced one it does
// nothing. The audit record says so under the action "fence", with where it and the status log ended.
func (s *Store) Fence(ctx context.Context, now time.Time, by jpki.Actor, subject string) error {
	fenced, err := s.Fenced(ctx)
	if err != nil || fenced {
		return err
	}
	return s.Update(ctx, func(tx *Tx) error { return tx.raiseFence(now, by, subject) })
}

func (tx *Tx) raiseFence(now time.Time, by jpki.Actor, subject string) error {
	var end Position
	err := tx.q.QueryRowContext(tx.ctx, `SELECT audit_seq, status_seq FROM head WHERE id = 1`+tx.d.forUpdate).Scan(&end.Audit, &end.Status)
	if err != nil {
		return fmt.Errorf("lock head: %w", err)
	}
	if err := tx.Audit(now, by, "fence", subject, end); err != nil {
		return err
	}
	tx.fence = raising
	_, err = tx.exec(`INSERT INTO status_log (seq, issuer, serial, state, reason, cause, since, version, partition, not_after)
		VALUES ($1, 'sign-1', $2, 'revoked', 0, 'fence', 0, 0, '', 0)`, int64(fencePosition), []byte{1})
	return err
}

// UpdateFenced is [Store.Update] behind the fence, for those who reconcile; [jpki.Conflict] if there is none.
func (s *Store) UpdateFenced(ctx context.Context, f func(*Tx) error) error {
	return s.Update(ctx, func(tx *Tx) error {
		tx.fence = inside
		var hash string
		if err := tx.q.QueryRowContext(tx.ctx, `SELECT audit_hash FROM head WHERE id = 1`+tx.d.forUpdate).Scan(&hash); err != nil {
			return fmt.Errorf("lock head: %w", err)
		}
		if hash != fencedHash {
			return jpki.Errorf(jpki.Conflict, "the database is not one that was restored, or has been reconciled")
		}
		return f(tx)
	})
}

// FenceRaised returns the entry of the audit record that tells of the fence, and where the records ended before it.
func (tx *Tx) FenceRaised() (e audit.Entry, end Position, err error) {
	e, err = scanAudit(tx.q.QueryRowContext(tx.ctx, `SELECT seq, at, actor, action, subject, detail, prev, hash FROM audit WHERE action = 'fence' ORDER BY seq DESC LIMIT 1`))
	if err == nil {
		err = json.Unmarshal([]byte(e.Detail), &end)
	}
	return e, end, notFound(err, jpki.NotFound)
}

// LiftFence takes the fence away, within [Store.UpdateFenced].
func (tx *Tx) LiftFence() error {
	if tx.fence != inside {
		return errors.New("lift fence: not behind one")
	}
	tx.fence = lifting
	_, err := tx.exec(`DELETE FROM status_log WHERE seq = $1`, int64(fencePosition))
	return err
}

// What a transaction has to do with the fence.
type fenceState int

const (
	outside fenceState = iota
	raising            // nobody's hash is in the head from now on
	inside             // appends although there is a fence
	lifting            // the hash comes back
)

// newestEntry is the audit record's head, found in the record itself.
func (tx *Tx) newestEntry() (h audit.Head, err error) {
	e, err := scanAudit(tx.q.QueryRowContext(tx.ctx, `SELECT seq, at, actor, action, subject, detail, prev, hash FROM audit ORDER BY seq DESC LIMIT 1`))
	if errors.Is(err, sql.ErrNoRows) {
		return h, nil
	}
	return audit.Head{Seq: e.Seq, Hash: e.Hash}, err
}

// AnyPartition returns a CRL partition in which an issuer has certificates; the empty string if there is none.
func (tx *Tx) AnyPartition(issuer jpki.IssuerID) (partition string, err error) {
	err = tx.q.QueryRowContext(tx.ctx, `SELECT COALESCE(MIN(partition), '') FROM certificate_status WHERE issuer = $1`, issuer.String()).Scan(&partition)
	return partition, err
}
