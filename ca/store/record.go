package store

import (
	"context"
	"iter"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/audit"
)

// pageSize is how many rows a walk over a whole table reads at a time.
const pageSize = 1000

// pages walks a table in order: page returns what comes behind the last row seen, which is the zero value at first.
func pages[T any](page func(last T) ([]T, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var last T
		for {
			rows, err := page(last)
			if err != nil {
				yield(last, err)
				return
			}
			for _, last = range rows {
				if !yield(last, nil) {
					return
				}
			}
			if len(rows) < pageSize {
				return
			}
		}
	}
}

// AuditEntries walks the whole audit record in order.
func (s *Store) AuditEntries(ctx context.Context) iter.Seq2[audit.Entry, error] {
	return auditEntries(ctx, s.db)
}

// AuditEntries walks the whole audit record in order, as the transaction sees it.
func (tx *Tx) AuditEntries() iter.Seq2[audit.Entry, error] { return auditEntries(tx.ctx, tx.q) }

// AuditEntriesAfter walks the audit record behind a position in order, as the transaction sees it.
func (tx *Tx) AuditEntriesAfter(seq int64) iter.Seq2[audit.Entry, error] {
	return auditEntriesAfter(tx.ctx, tx.q, seq)
}

func auditEntries(ctx context.Context, q querier) iter.Seq2[audit.Entry, error] {
	return auditEntriesAfter(ctx, q, 0)
}

func auditEntriesAfter(ctx context.Context, q querier, after int64) iter.Seq2[audit.Entry, error] {
	return pages(func(last audit.Entry) ([]audit.Entry, error) {
		last.Seq = max(last.Seq, after)
		return queryAll(ctx, q, scanAudit, `SELECT seq, at, actor, action, subject, detail, prev, hash FROM audit WHERE seq > $1 ORDER BY seq LIMIT $2`, last.Seq, pageSize)
	})
}

// StatusLog walks the whole status log in order, as the transaction sees it.
func (tx *Tx) StatusLog() iter.Seq2[jpki.StatusChange, error] {
	return pages(func(last jpki.StatusChange) ([]jpki.StatusChange, error) {
		return queryAll(tx.ctx, tx.q, scanChange, `SELECT seq, issuer, serial, state, reason, cause, since, version, partition, not_after
			FROM status_log WHERE seq > $1 AND seq < $3 ORDER BY seq LIMIT $2`, last.Seq, pageSize, int64(fencePosition))
	})
}

// Statuses walks the present status of every serial number, as the transaction sees them. Their Seq is 0.
func (tx *Tx) Statuses() iter.Seq2[jpki.StatusChange, error] {
	return pages(func(last jpki.StatusChange) ([]jpki.StatusChange, error) {
		issuer := ""
		if !last.ID.Serial.IsZero() {
			issuer = last.ID.Issuer.String()
		}
		return queryAll(tx.ctx, tx.q, scanChange, `SELECT 0, issuer, serial, state, reason, cause, since, version, partition, not_after
			FROM certificate_status WHERE issuer > $1 OR issuer = $1 AND serial > $2 ORDER BY issuer, serial LIMIT $3`, issuer, last.ID.Serial.Bytes(), pageSize)
	})
}
