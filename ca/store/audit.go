package store

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/audit"
)

// Audit appends an entry to the audit record. It is numbered and chained when the transaction ends. detail is encoded
// as JSON and must hold codes and identifiers only; nil means none.
func (tx *Tx) Audit(at time.Time, by jpki.Actor, action, subject string, detail any) error {
	text := ""
	if detail != nil {
		b, err := json.Marshal(detail)
		if err != nil {
			return fmt.Errorf("encode audit detail: %w", err)
		}
		text = string(b)
	}
	tx.entries = append(tx.entries, audit.Entry{At: at, Actor: by.String(), Action: action, Subject: subject, Detail: text})
	return nil
}

func insertAudit(entries []audit.Entry) task {
	rows := make([][]any, len(entries))
	for i, e := range entries {
		rows[i] = []any{e.Seq, micros(e.At), e.Actor, e.Action, e.Subject, e.Detail, e.Prev.String(), e.Hash.String()}
	}
	return insert(`INSERT INTO audit (seq, at, actor, action, subject, detail, prev, hash)`, "", rows, as("write audit entries"))
}

// AuditHead returns the newest entry's position and hash; [ErrFenced] of a database that was restored and not reconciled.
func (tx *Tx) AuditHead() (audit.Head, error) {
	var h audit.Head
	var hash string
	if err := tx.q.QueryRowContext(tx.ctx, `SELECT audit_seq, audit_hash FROM head WHERE id = 1`).Scan(&h.Seq, &hash); err != nil {
		return h, fmt.Errorf("read audit head: %w", err)
	}
	if hash == fencedHash {
		return h, errFenced()
	}
	var err error
	h.Hash, err = audit.ParseHash(hash)
	return h, err
}

func scanAudit(row scanner) (e audit.Entry, err error) {
	var at int64
	var prev, hash string
	if err = row.Scan(&e.Seq, &at, &e.Actor, &e.Action, &e.Subject, &e.Detail, &prev, &hash); err != nil {
		return e, err
	}
	e.At = fromMicros(at)
	if e.Prev, err = audit.ParseHash(prev); err != nil {
		return e, &audit.BrokenChainError{Seq: e.Seq, Reason: err.Error()}
	}
	if e.Hash, err = audit.ParseHash(hash); err != nil {
		return e, &audit.BrokenChainError{Seq: e.Seq, Reason: err.Error()}
	}
	return e, nil
}
