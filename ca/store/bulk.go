package store

import (
	"slices"
	"strconv"
	"strings"

	"github.com/openjpki/jpki"
)

// rowSizes are how many rows one statement writes. Few sizes mean few statement texts, which the drivers keep prepared.
var rowSizes = []int{64, 16, 4, 1}

// insertRows writes rows of one width by statements of several rows: head VALUES (…), (…) tail.
func (tx *Tx) insertRows(head, tail string, rows [][]any) (written int64, err error) {
	for _, size := range rowSizes {
		for len(rows) >= size {
			var query strings.Builder
			query.WriteString(head)
			args := make([]any, 0, size*len(rows[0]))
			for i, row := range rows[:size] {
				query.WriteString([]string{" VALUES (", ", ("}[min(i, 1)])
				for j, v := range row {
					if j > 0 {
						query.WriteByte(',')
					}
					args = append(args, v)
					query.WriteString("$" + strconv.Itoa(len(args)))
				}
				query.WriteByte(')')
			}
			n, err := tx.exec(query.String()+tail, args...)
			if err != nil {
				return written, err
			}
			written, rows = written+n, rows[size:]
		}
	}
	return written, nil
}

// listSize bounds how many keys one query looks for.
const listSize = 256

// queryIn reads every row whose key is one of keys: the query is head ($1, $2, …) tail. The list is filled up to a power
// of four by repeating a key, again for the sake of few statement texts.
func queryIn[T any](tx *Tx, scan func(scanner) (T, error), head, tail string, keys [][]any) ([]T, error) {
	var out []T
	for chunk := range slices.Chunk(keys, listSize) {
		size := 1
		for size < len(chunk) {
			size *= 4
		}
		var list strings.Builder
		var args []any
		for i := range size {
			list.WriteString([]string{"(", ", "}[min(i, 1)])
			key := chunk[min(i, len(chunk)-1)]
			for j, v := range key {
				args = append(args, v)
				if len(key) > 1 {
					list.WriteString([]string{"(", ", "}[min(j, 1)])
				}
				list.WriteString("$" + strconv.Itoa(len(args)))
			}
			if len(key) > 1 {
				list.WriteByte(')')
			}
		}
		rows, err := queryAll(tx.ctx, tx.q, scan, head+list.String()+")"+tail, args...)
		if err != nil {
			return nil, err
		}
		out = append(out, rows...)
	}
	return out, nil
}

func textKeys(names []string) [][]any {
	keys := make([][]any, len(names))
	for i, n := range names {
		keys[i] = []any{n}
	}
	return keys
}

// ahead is what a transaction over many holders has read of their certificates, kept true by what it changes of them.
type ahead struct {
	certificates map[string][]Certificate // by holder
	holderOf     map[jpki.CertID]string
	phones       map[jpki.CertID][]Token // under a card signature certificate
	statuses     []jpki.StatusChange     // changed here, not written yet
}

// ReadAhead reads the certificates of many holders, whom the transaction has locked, and the phones that hang on them, in
// two queries. CertificatesOf and TokensUnder then answer from there, and SetStatus of one of these certificates is
// written together with others when the transaction ends.
func (tx *Tx) ReadAhead(holders []string) error {
	if len(holders) == 0 {
		return nil
	}
	certs, err := queryIn(tx, scanCertificate, certificateColumns+`WHERE c.holder IN `, ` ORDER BY c.issued_at, c.issuer, c.serial`, textKeys(holders))
	if err != nil {
		return err
	}
	a := &ahead{certificates: map[string][]Certificate{}, holderOf: map[jpki.CertID]string{}, phones: map[jpki.CertID][]Token{}}
	for _, h := range holders {
		a.certificates[h] = nil
	}
	for _, c := range certs {
		a.certificates[c.Holder] = append(a.certificates[c.Holder], c)
		a.holderOf[c.ID] = c.Holder
	}
	phones, err := queryIn(tx, scanToken, cardColumns+`WHERE parent_serial IS NOT NULL AND holder IN `, ` ORDER BY id`, textKeys(holders))
	if err != nil {
		return err
	}
	for _, p := range phones {
		a.phones[*p.Parent] = append(a.phones[*p.Parent], p)
	}
	tx.ahead = a
	return nil
}

// setAhead changes a status of which the certificate was read ahead; false when it was not.
func (tx *Tx) setAhead(c jpki.StatusChange) (bool, error) {
	if tx.ahead == nil {
		return false, nil
	}
	holder, known := tx.ahead.holderOf[c.ID]
	if !known {
		return false, nil
	}
	certs := tx.ahead.certificates[holder]
	i := slices.IndexFunc(certs, func(o Certificate) bool { return o.ID == c.ID })
	if certs[i].Status.Version != c.Status.Version-1 {
		return true, errStatusChanged
	}
	certs[i].Status = c.Status
	tx.ahead.statuses = append(tx.ahead.statuses, c)
	return true, nil
}

// settle writes what setAhead has held back and forgets what was read ahead: called before any other look at
// certificates and at the end. The guard is the version, as for a single one; holder locks and the reading before make
// sure that each row exists.
func (tx *Tx) settle() error {
	if tx.ahead == nil {
		return nil
	}
	pending := tx.ahead.statuses
	tx.ahead = nil
	for len(pending) > 0 {
		// One statement cannot change a row twice.
		var now, later []jpki.StatusChange
		seen := map[jpki.CertID]bool{}
		for _, c := range pending {
			if seen[c.ID] {
				later = append(later, c)
				continue
			}
			seen[c.ID], now = true, append(now, c)
		}
		rows := make([][]any, len(now))
		for i, c := range now {
			rows[i] = changeColumns(c)
		}
		n, err := tx.insertRows(insertStatus, ` ON CONFLICT (issuer, serial) DO UPDATE SET state = excluded.state, reason = excluded.reason, cause = excluded.cause,
			since = excluded.since, version = excluded.version WHERE certificate_status.version = excluded.version - 1`, rows)
		if err != nil {
			return err
		}
		if n != int64(len(rows)) {
			return errStatusChanged
		}
		pending = later
	}
	return nil
}
