package store

import (
	"context"
	"database/sql"
	"iter"

	"github.com/openjpki/jpki"
)

// EachListed walks what Listed returns without holding it, in serial order, as one query sees it. The sequence is walked once.
func (r *StatusReader) EachListed(ctx context.Context, issuer jpki.IssuerID, partition string) iter.Seq2[jpki.StatusChange, error] {
	query, args := `SELECT 0, issuer, serial, state, reason, cause, since, version, partition, not_after FROM certificate_status
		WHERE issuer = $1 AND state <> 'good'`, []any{issuer.String()}
	if partition != "" {
		query, args = query+` AND partition = $2`, append(args, partition)
	}
	return each(ctx, r.db, scanChange, query+` ORDER BY serial`, args...)
}

// StatusPosition returns the last position of the status log; everything up to there is committed.
// Of a database that was restored and not reconciled there is none: [ErrFenced].
func (r *StatusReader) StatusPosition(ctx context.Context) (position int64, err error) {
	err = r.db.QueryRowContext(ctx, `SELECT COALESCE(MAX(seq), 0) FROM status_log`).Scan(&position)
	if err == nil && position == fencePosition {
		return 0, errFenced()
	}
	return position, err
}

// EachChanged walks the status log of an issuer, behind position after up to position end: what was suspended, revoked or
// released, in one partition or, when partition is empty, in all.
func (r *StatusReader) EachChanged(ctx context.Context, issuer jpki.IssuerID, partition string, after, end int64) iter.Seq2[jpki.StatusChange, error] {
	query, args := `SELECT seq, issuer, serial, state, reason, cause, since, version, partition, not_after FROM status_log
		WHERE seq > $1 AND seq <= $2 AND issuer = $3 AND (version > 1 OR state <> 'good')`, []any{after, end, issuer.String()}
	if partition != "" {
		query, args = query+` AND partition = $4`, append(args, partition)
	}
	return each(ctx, r.db, scanChange, query+` ORDER BY seq`, args...)
}

// each walks the rows of a query.
func each[T any](ctx context.Context, db *sql.DB, scan func(scanner) (T, error), query string, args ...any) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		rows, err := db.QueryContext(ctx, query, args...)
		if err != nil {
			yield(none, err)
			return
		}
		defer func() { _ = rows.Close() }()
		for rows.Next() {
			v, err := scan(rows)
			if !yield(v, err) || err != nil {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(none, err)
		}
	}
}
