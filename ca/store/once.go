package store

import (
	"database/sql"
	"slices"
	"time"

	"github.com/openjpki/jpki"
)

// A OnceKey is an idempotency key; every actor has keys of its own.
type OnceKey struct{ Actor, Key string }

// A onceRow is what is known of a key that was claimed.
type onceRow struct {
	OnceKey
	hash   string
	result sql.NullString // of a request that has ended
}

// BeginOnce does what Once does and, when the key is free, claims it.
func (tx *Tx) BeginOnce(actor, key, requestHash string, now time.Time) (result string, done bool, err error) {
	if result, done, err = tx.Once(actor, key, requestHash); done || err != nil {
		return result, done, err
	}
	return "", false, tx.ClaimOnce(actor, key, requestHash, now)
}

// Once looks for an idempotency key. When a request under it has ended it returns the stored result: done is true. A
// different request under the same key is [jpki.IdempotencyReused], one that is still being worked on is [jpki.InProgress].
func (tx *Tx) Once(actor, key, requestHash string) (result string, done bool, err error) {
	k := OnceKey{actor, key}
	row, read := (*onceRow)(nil), false
	if tx.ahead != nil {
		row, read = tx.ahead.once[k]
	}
	if !read {
		if err := tx.settle(); err != nil {
			return "", false, err
		}
		found := map[OnceKey]*onceRow{}
		if err := tx.perform(findOnce(found, []OnceKey{k})); err != nil {
			return "", false, err
		}
		row = found[k]
	}
	switch {
	case row == nil:
		return "", false, nil
	case row.hash != requestHash:
		return "", false, jpki.Errorf(jpki.IdempotencyReused, "")
	case !row.result.Valid:
		return "", false, jpki.Errorf(jpki.InProgress, "")
	}
	return row.result.String, true, nil
}

// ClaimOnce claims a free idempotency key. One that somebody else claims at the same time is waited for and is
// [jpki.InProgress] then.
func (tx *Tx) ClaimOnce(actor, key, requestHash string, now time.Time) error {
	claim := []any{actor, key, requestHash, micros(now)}
	if tx.ahead == nil {
		return tx.perform(insertClaims([][]any{claim}))
	}
	k := OnceKey{actor, key}
	tx.ahead.once[k] = &onceRow{OnceKey: k, hash: requestHash}
	tx.ahead.pending.claims = append(tx.ahead.pending.claims, claim)
	return nil
}

// findOnce finds what is known of keys; nil for one that is free.
func findOnce(out map[OnceKey]*onceRow, keys []OnceKey) task {
	t := task{
		read: func(found rows) error {
			for found.Next() {
				var r onceRow
				if err := found.Scan(&r.Actor, &r.Key, &r.hash, &r.result); err != nil {
					return err
				}
				out[r.OnceKey] = &r
			}
			return nil
		},
		then: as("read idempotency keys"),
	}
	for chunk := range slices.Chunk(keys, listSize) {
		for _, k := range chunk {
			out[k] = nil
		}
		query, args := valueList(`SELECT actor, idem_key, request_hash, result FROM idempotency JOIN (`, `) AS wanted ON actor = wanted.column1 AND idem_key = wanted.column2`, chunk,
			func(k OnceKey) []any { return []any{k.Actor, k.Key} })
		t.statements = append(t.statements, statement{query, args})
	}
	return t
}

func insertClaims(rows [][]any) task {
	return insert(`INSERT INTO idempotency (actor, idem_key, request_hash, created_at)`, ` ON CONFLICT (actor, idem_key) DO NOTHING`, rows, func(claimed int64, err error) error {
		if err == nil && claimed != int64(len(rows)) {
			return jpki.Errorf(jpki.InProgress, "")
		}
		return as("claim idempotency keys")(0, err)
	})
}

// EndOnce stores the result that repeated requests under the key shall get. A key that is not claimed, or has its result
// already, is a [jpki.Conflict]: somebody else ended this request.
func (tx *Tx) EndOnce(actor, key, result string) error {
	row := []any{actor, key, result}
	if tx.ahead != nil {
		tx.ahead.pending.results = append(tx.ahead.pending.results, row)
		return nil
	}
	return tx.perform(storeResults([][]any{row}))
}

func storeResults(rows [][]any) task {
	const tail = `) AS ended WHERE actor = ended.column1 AND idem_key = ended.column2 AND result IS NULL`
	return insert(`UPDATE idempotency SET result = ended.column3 FROM (`, tail, rows, func(stored int64, err error) error {
		if err == nil && stored != int64(len(rows)) {
			return jpki.Errorf(jpki.Conflict, "the request was ended meanwhile")
		}
		return as("store results")(0, err)
	})
}

// ForgetOnce frees an idempotency key whose request came to nothing, so that it can be tried again.
func (tx *Tx) ForgetOnce(actor, key string) error {
	_, err := tx.exec(`DELETE FROM idempotency WHERE actor = $1 AND idem_key = $2 AND result IS NULL`, actor, key)
	return err
}
