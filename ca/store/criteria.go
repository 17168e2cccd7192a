package store

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/openjpki/jpki"
)

// Criteria say which of all certificates in force are meant: those that fit every field that is set.
type Criteria struct {
	KeyHashes []string      // SHA-256 of their public keys, as in [Certificate], at most MaxKeyHashes
	Actor     string        // who had them issued, as in the audit record: counter:aoba-1
	KeyPrefix string        // how the idempotency key began under which they were issued, which is what a batch has in common
	From      time.Time     // issued then or later
	Until     time.Time     // issued before
	Issuer    jpki.IssuerID `json:",omitzero"` // the generation that issued them
}

// MaxKeyHashes bounds a list of key hashes.
const MaxKeyHashes = listSize

// A Match is a certificate that fits, and whose it is.
type Match struct {
	ID     jpki.CertID
	Holder string
}

// A MatchCount says how many certificates of a kind and a municipality fit.
type MatchCount struct {
	Kind         jpki.Kind
	Municipality string // of the CRL partition: where the holder lived when it was issued, or a shard
	State        jpki.State
	Count        int
}

// from returns the joins and conditions of a query for certificates in force that fit. Without an actor or a key prefix the
// intents are not looked at: test data has none.
func (c Criteria) from(now time.Time) (query string, args []any) {
	var joins, where strings.Builder
	add := func(condition string, arg any) {
		args = append(args, arg)
		fmt.Fprintf(&where, " AND "+condition, "$"+strconv.Itoa(len(args)))
	}
	joins.WriteString(` FROM certificate c JOIN certificate_status s ON s.issuer = c.issuer AND s.serial = c.serial`)
	if c.Actor != "" || c.KeyPrefix != "" {
		joins.WriteString(` JOIN intent i ON i.issuer = c.issuer AND i.serial = c.serial`)
	}
	add("c.not_after >= %s", micros(now))
	if c.Actor != "" {
		add("i.actor = %s", c.Actor)
	}
	if c.KeyPrefix != "" {
		add("substr(i.idem_key, 1, "+strconv.Itoa(utf8.RuneCountInString(c.KeyPrefix))+") = %s", c.KeyPrefix)
	}
	if !c.From.IsZero() {
		add("c.issued_at >= %s", micros(c.From))
	}
	if !c.Until.IsZero() {
		add("c.issued_at < %s", micros(c.Until))
	}
	if c.Issuer != (jpki.IssuerID{}) {
		add("c.issuer = %s", c.Issuer.String())
	}
	if len(c.KeyHashes) > 0 {
		list, keys := placeholders(anys(c.KeyHashes), len(args)+1)
		where.WriteString(" AND c.key_hash IN " + list)
		args = append(args, keys...)
	}
	return joins.String() + ` WHERE s.state <> 'revoked'` + where.String(), args
}

// CountMatches counts the certificates in force that fit, by kind, municipality and state.
func (tx *Tx) CountMatches(c Criteria, now time.Time) ([]MatchCount, error) {
	if err := tx.settle(); err != nil {
		return nil, err
	}
	query, args := c.from(now)
	return queryAll(tx.ctx, tx.q, func(row scanner) (m MatchCount, err error) {
		return m, row.Scan(&m.Kind, &m.Municipality, &m.State, &m.Count)
	}, `SELECT c.kind, s.partition, s.state, COUNT(*)`+query+` GROUP BY c.kind, s.partition, s.state ORDER BY c.kind, s.partition, s.state`, args...)
}

// Matches returns up to limit certificates in force that fit, behind the one called after, in the order of issuer and serial.
func (tx *Tx) Matches(c Criteria, now time.Time, after jpki.CertID, limit int) ([]Match, error) {
	if err := tx.settle(); err != nil {
		return nil, err
	}
	query, args := c.from(now)
	if !after.Serial.IsZero() {
		// Not compared as a row: PostgreSQL would begin at it in the index for every certificate that it looks up there.
		n := len(args)
		query += fmt.Sprintf(` AND (c.issuer > $%d OR c.issuer = $%d AND c.serial > $%d)`, n+1, n+1, n+2)
		args = append(args, after.Issuer.String(), after.Serial.Bytes())
	}
	if limit <= 0 {
		limit = math.MaxInt32
	}
	args = append(args, limit)
	return queryAll(tx.ctx, tx.q, func(row scanner) (m Match, err error) {
		var issuer string
		var serial []byte
		if err = row.Scan(&issuer, &serial, &m.Holder); err != nil {
			return m, err
		}
		m.ID, err = certID(issuer, serial)
		return m, err
	}, `SELECT c.issuer, c.serial, c.holder`+query+` ORDER BY c.issuer, c.serial LIMIT $`+strconv.Itoa(len(args)), args...)
}

// ReadMatches is [Tx.ReadAhead] for certificates picked out of many: it locks their holders and reads them and the phones
// that hang on them. What it does not read of their holders, who may have very many, [Tx.CertificatesOf] must not be asked for
// in the same transaction.
func (tx *Tx) ReadMatches(list []Match) error {
	holders := make([]string, len(list))
	for i, m := range list {
		holders[i] = m.Holder
	}
	holders = slices.Compact(slices.Sorted(slices.Values(holders)))
	found, err := tx.Holders(holders)
	if err != nil {
		return err
	}
	if err := tx.ReadAhead(Ahead{}); err != nil {
		return err
	}
	a := tx.ahead
	for id, h := range found {
		a.holders[id] = &h
	}
	// For each issuer by itself, and said of both tables: so the indexes of their primary keys are taken.
	byIssuer := map[jpki.IssuerID][]any{}
	serials := make([]any, len(list))
	for i, m := range list {
		serials[i] = m.ID.Serial.Bytes()
		byIssuer[m.ID.Issuer] = append(byIssuer[m.ID.Issuer], serials[i])
	}
	var certs []Certificate
	for issuer, wanted := range byIssuer {
		for chunk := range slices.Chunk(wanted, listSize) {
			among, args := placeholders(chunk, 2)
			found, err := queryAll(tx.ctx, tx.q, scanCertificate, certificateColumns+`WHERE c.issuer = $1 AND s.issuer = $1 AND c.serial IN `+among+` AND s.serial IN `+among, append([]any{issuer.String()}, args...)...)
			if err != nil {
				return err
			}
			certs = append(certs, found...)
		}
	}
	wanted := map[jpki.CertID]bool{}
	for _, m := range list {
		wanted[m.ID] = true
	}
	for _, c := range certs {
		if wanted[c.ID] {
			a.certificates[c.Holder] = append(a.certificates[c.Holder], c)
			a.holderOf[c.ID] = c.Holder
		}
	}
	phones, err := queryIn(tx, scanToken, cardColumns+`WHERE parent_serial IN `, ` ORDER BY id`, serials)
	if err != nil {
		return err
	}
	for _, p := range phones {
		a.phones[*p.Parent] = append(a.phones[*p.Parent], p)
	}
	return nil
}
