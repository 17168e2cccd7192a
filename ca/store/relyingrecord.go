package store

import (
	"math"
	"time"

	"github.com/openjpki/jpki"
)

// A Recorded is one thing that a relying party did about a holder.
type Recorded struct {
	Operator   string
	Ref        string // the operator's own name for it, or drawn
	Holder     string
	Tenant     jpki.CorporateNumber
	TenantName string // as of now; when read
	Action     string
	Purpose    string
	Items      []jpki.Item
	Consent    string
	At         time.Time
}

// AddRecords adds to holders' records, no entry twice, and returns how many were not there before.
func (tx *Tx) AddRecords(list ...Recorded) (added int64, err error) {
	rows := make([][]any, len(list))
	for i, r := range list {
		rows[i] = []any{r.Operator, r.Ref, r.Holder, string(r.Tenant), r.Action, r.Purpose, FormatItems(r.Items), r.Consent, micros(r.At)}
	}
	const head = `INSERT INTO relying_record (operator, ref, holder, tenant, action, purpose, items, consent, at)`
	err = tx.perform(insert(head, ` ON CONFLICT (operator, ref) DO NOTHING`, rows, func(n int64, err error) error {
		added = n
		return as("add to holders' records")(n, err)
	}))
	return added, err
}

// RecordOf returns up to limit entries of a holder's record older than one, newest first; the zero entry begins.
func (tx *Tx) RecordOf(holder string, before Recorded, limit int) ([]Recorded, error) {
	at := int64(math.MaxInt64)
	if before.Ref != "" {
		at = micros(before.At)
	}
	return queryAll(tx.ctx, tx.q, func(row scanner) (r Recorded, err error) {
		var items string
		var at int64
		err = row.Scan(&r.Operator, &r.Ref, &r.Holder, &r.Tenant, &r.TenantName, &r.Action, &r.Purpose, &items, &r.Consent, &at)
		r.Items, r.At = ParseItems(items), fromMicros(at)
		return r, err
	}, `SELECT r.operator, r.ref, r.holder, r.tenant, t.name, r.action, r.purpose, r.items, r.consent, r.at FROM relying_record r JOIN relying_tenant t ON t.corporate_number = r.tenant
		WHERE r.holder = $1 AND r.at <= $2 AND (r.at < $2 OR r.operator < $3 OR r.operator = $3 AND r.ref < $4) ORDER BY r.at DESC, r.operator DESC, r.ref DESC LIMIT $5`,
		holder, at, before.Operator, before.Ref, limit)
}
