package store

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/openjpki/jpki"
)

// A UseReport is what the authority is to be told of one use of a certificate, for the holder's record. It waits in the
// database until the authority has it, sealed under the key of digests, which stays when the master key changes.
type UseReport struct {
	ID          string      `json:"-"` // 32 hexadecimal digits: the same for the same record, and for nobody the verdict's
	Certificate jpki.CertID `json:"certificate"`
	Action      string      `json:"action"`
	Purpose     string      `json:"purpose"`
	At          time.Time   `json:"-"`
}

const intoReports = `use_report (id, tenant, sealed, used_at, refused)`

func reportLabel(id string) string { return "use report " + id }

// reportRow makes the row of a record's report.
func (s *Store) reportRow(tenant jpki.CorporateNumber, record string, r UseReport, now time.Time) ([]any, error) {
	id := hex.EncodeToString(s.digests.mac("use report", []byte(record))[:16])
	text, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode report of use: %w", err)
	}
	sealed, err := s.digests.seal(reportLabel(id), text)
	if err != nil {
		return nil, fmt.Errorf("seal report of use: %w", err)
	}
	return []any{id, string(tenant), sealed, micros(now), ""}, nil
}

// UseReportTenants returns whose reports wait.
func (s *Store) UseReportTenants(ctx context.Context) (out []jpki.CorporateNumber, err error) {
	err = s.View(ctx, func(tx *Tx) (err error) {
		out, err = queryAll(tx, func(r scanner) (n jpki.CorporateNumber, err error) { return n, r.Scan(&n) }, `SELECT DISTINCT tenant FROM use_report WHERE refused = '' ORDER BY tenant`)
		return err
	})
	return out, err
}

// UseReports returns a tenant's reports that wait, oldest first, at most limit.
func (s *Store) UseReports(ctx context.Context, tenant jpki.CorporateNumber, limit int) (out []UseReport, err error) {
	err = s.View(ctx, func(tx *Tx) (err error) {
		out, err = queryAll(tx, func(r scanner) (u UseReport, err error) {
			var id string
			var sealed []byte
			var at int64
			if err := r.Scan(&id, &sealed, &at); err != nil {
				return u, err
			}
			text, err := s.digests.open(reportLabel(id), sealed)
			if err == nil {
				err = json.Unmarshal(text, &u)
			}
			if err != nil {
				return u, fmt.Errorf("open report of use: %w", err)
			}
			u.ID, u.At = id, fromMicros(at)
			return u, nil
		}, `SELECT id, sealed, used_at FROM use_report WHERE tenant = $1 AND refused = '' ORDER BY used_at, id LIMIT $2`, string(tenant), limit)
		return err
	})
	return out, err
}

// EndUseReports deletes reports that the authority has.
func (s *Store) EndUseReports(ctx context.Context, ids []string) error {
	return s.Update(ctx, func(tx *Tx) error {
		for len(ids) > 0 {
			n := min(len(ids), 256)
			args := make([]any, n)
			places := make([]string, n)
			for i, id := range ids[:n] {
				args[i], places[i] = id, fmt.Sprintf("$%d", i+1)
			}
			if _, err := tx.exec(`DELETE FROM use_report WHERE id IN (`+strings.Join(places, ",")+`)`, args...); err != nil {
				return err
			}
			ids = ids[n:]
		}
		return nil
	})
}

// RefuseUseReport notes that the authority refuses a report for good. It stays, for who operates the verifier to see.
func (s *Store) RefuseUseReport(ctx context.Context, id string, why jpki.Problem) error {
	return s.Update(ctx, func(tx *Tx) error {
		_, err := tx.exec(`UPDATE use_report SET refused = $1 WHERE id = $2`, string(why), id)
		return err
	})
}

// CountUseReports returns how many reports wait, and how many were refused.
func (s *Store) CountUseReports(ctx context.Context) (waiting, refused int64, err error) {
	err = s.View(ctx, func(tx *Tx) error {
		return tx.q.QueryRowContext(tx.ctx, `SELECT COUNT(CASE WHEN refused = '' THEN 1 END), COUNT(CASE WHEN refused <> '' THEN 1 END) FROM use_report`).Scan(&waiting, &refused)
	})
	return waiting, refused, err
}
