package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/openjpki/jpki"
)

// A Record is what one verdict leaves behind.
type Record struct {
	ID      string // the verdict's, unique
	User    string // the tenant's own name for the user, by which it can delete; may be empty; kept as a keyed digest only
	Content []byte // what the verdict was reached from, sealed under the tenant's key; nil keeps none
	// Certificate is the SHA-256 of the certificate that was used, for its holder's record; nil if there was none.
	Certificate []byte
	Action      string     // what was done with it, from a closed list
	Outcome     string     // the verdict's code
	Report      *UseReport // what the authority is to be told, in the same transaction; nil tells nothing
}

// evidenceLabel binds what is sealed to its place.
func evidenceLabel(id string) string { return "evidence " + id }

// Keep records verdicts of a tenant, all or none, and returns when they are committed. Evidence is kept as long as the tenant's
// setting says, and not at all if that is 0 days.
func (s *Store) Keep(ctx context.Context, a *Access, records []Record, now time.Time) error {
	var evidence, uses, reports [][]any
	tenant := string(a.Tenant.ID)
	for _, r := range records {
		if r.Content != nil && a.Tenant.RetentionDays > 0 {
			sealed, err := a.key.seal(evidenceLabel(r.ID), r.Content)
			if err != nil {
				return fmt.Errorf("seal evidence: %w", err)
			}
			var user any
			if r.User != "" {
				user = a.key.mac("user", []byte(r.User))
			}
			evidence = append(evidence, []any{r.ID, tenant, user, sealed, micros(now), micros(now.AddDate(0, 0, a.Tenant.RetentionDays))})
		}
		if r.Certificate != nil {
			uses = append(uses, []any{r.ID, s.digests.mac("certificate", r.Certificate), tenant, r.Action, r.Outcome, micros(now)})
		}
		if r.Report != nil {
			row, err := s.reportRow(a.Tenant.ID, r.ID, *r.Report, now)
			if err != nil {
				return err
			}
			reports = append(reports, row)
		}
	}
	if len(evidence)+len(uses)+len(reports) == 0 {
		return nil
	}
	return s.addTogether(ctx, evidence, uses, reports)
}

// KeptEvidence is what was kept of a verdict.
type KeptEvidence struct {
	ID          string
	Content     []byte
	CreatedAt   time.Time
	DeleteAfter time.Time
}

// Evidence returns what was kept; [jpki.NotFound] if nothing was, it is another tenant's, or its time is over.
func (s *Store) Evidence(ctx context.Context, a *Access, id string, now time.Time) (KeptEvidence, error) {
	e := KeptEvidence{ID: id}
	var sealed []byte
	err := s.View(ctx, func(tx *Tx) error {
		var created, end int64
		err := tx.q.QueryRowContext(tx.ctx, `SELECT sealed, created_at, delete_after FROM evidence WHERE id = $1 AND tenant = $2 AND delete_after > $3`,
			id, string(a.Tenant.ID), micros(now)).Scan(&sealed, &created, &end)
		e.CreatedAt, e.DeleteAfter = fromMicros(created), fromMicros(end)
		return notFound(err, jpki.NotFound, "there is no such evidence")
	})
	if err != nil {
		return e, err
	}
	if e.Content, err = a.key.open(evidenceLabel(id), sealed); err != nil {
		return e, fmt.Errorf("open evidence: %w", err)
	}
	return e, nil
}

// DeleteEvidence deletes one; [jpki.NotFound] if there is none of this tenant.
func (s *Store) DeleteEvidence(ctx context.Context, a *Access, id string) error {
	return s.Update(ctx, func(tx *Tx) error {
		n, err := tx.exec(`DELETE FROM evidence WHERE id = $1 AND tenant = $2`, id, string(a.Tenant.ID))
		if err == nil && n == 0 {
			err = jpki.Errorf(jpki.NotFound, "there is no such evidence")
		}
		return err
	})
}

// DeleteEvidenceOfUser deletes all that a tenant kept under a name and returns how many that were.
func (s *Store) DeleteEvidenceOfUser(ctx context.Context, a *Access, user string) (n int64, err error) {
	err = s.Update(ctx, func(tx *Tx) (err error) {
		n, err = tx.exec(`DELETE FROM evidence WHERE tenant = $1 AND user_mac = $2`, string(a.Tenant.ID), a.key.mac("user", []byte(user)))
		return err
	})
	return n, err
}

// Sweep deletes evidence whose time is over, idempotency keys older than [OnceKept], and uses and reports that the authority refused, as
// old as evidence gets by default.
// It returns how much evidence it deleted.
func (s *Store) Sweep(ctx context.Context, now time.Time) (n int64, err error) {
	err = s.Update(ctx, func(tx *Tx) (err error) {
		if n, err = tx.exec(`DELETE FROM evidence WHERE delete_after <= $1`, micros(now)); err != nil {
			return err
		}
		if _, err = tx.exec(`DELETE FROM once WHERE claimed_at <= $1`, micros(now.Add(-OnceKept))); err != nil {
			return err
		}
		if _, err = tx.exec(`DELETE FROM certificate_use WHERE used_at <= $1`, micros(now.AddDate(0, 0, -RetentionDays))); err != nil {
			return err
		}
		_, err = tx.exec(`DELETE FROM use_report WHERE refused <> '' AND used_at <= $1`, micros(now.AddDate(0, 0, -RetentionDays)))
		return err
	})
	return n, err
}

// A Use is one time that somebody asked about a certificate.
type Use struct {
	Tenant  jpki.CorporateNumber
	Name    string // of the tenant
	Action  string
	Outcome string
	At      time.Time
}

// Uses returns who used a certificate, given by its SHA-256, newest first, at most limit.
func (s *Store) Uses(ctx context.Context, certificate []byte, limit int) (out []Use, err error) {
	err = s.View(ctx, func(tx *Tx) (err error) {
		out, err = queryAll(tx, func(r scanner) (u Use, err error) {
			var at int64
			err = r.Scan(&u.Tenant, &u.Name, &u.Action, &u.Outcome, &at)
			u.At = fromMicros(at)
			return u, err
		}, `SELECT tenant.id, tenant.name, action, outcome, used_at FROM certificate_use JOIN tenant ON tenant.id = certificate_use.tenant
			 WHERE certificate_mac = $1 ORDER BY used_at DESC, certificate_use.id LIMIT $2`, s.digests.mac("certificate", certificate), limit)
		return err
	})
	return out, err
}

// OnceKept is how long an idempotency key is remembered.
const OnceKept = 24 * time.Hour

// abandoned is after how long a request that was begun and never ended counts as dead.
const abandoned = 2 * time.Minute

// A Once is a request that carries an idempotency key.
type Once struct {
	Key     string // the caller's
	Request []byte // SHA-256 of everything that makes the request what it is
}

// The database holds keyed digests of both. The answer is sealed under what follows from the tenant's key and the request's
// digest, which is kept nowhere: only who sends the same request again can have it opened, so attributes in an answer are not
// stored in any form that we could read.
func (o Once) rows(k key) (keyMAC, request []byte, answerKey key) {
	return k.mac("once", []byte(o.Key)), k.mac("once request", o.Request), k.mac("once answer", o.Request)
}

// Begin claims an idempotency key. If the same request has ended, done is true and its answer is returned. Another request under
// the same key is [jpki.IdempotencyReused]; the same one that has not ended is [jpki.InProgress].
func (s *Store) Begin(ctx context.Context, a *Access, o Once, now time.Time) (answer []byte, done bool, err error) {
	keyMAC, request, answerKey := o.rows(a.key)
	var sealed []byte
	err = s.Update(ctx, func(tx *Tx) error {
		sealed = nil
		var before []byte
		var claimed int64
		err := tx.q.QueryRowContext(tx.ctx, `SELECT request, answer, claimed_at FROM once WHERE tenant = $1 AND key_mac = $2`, string(a.Tenant.ID), keyMAC).Scan(&before, &sealed, &claimed)
		at := fromMicros(claimed)
		fresh := err == nil && now.Before(at.Add(OnceKept))
		switch {
		case err != nil && !errors.Is(err, sql.ErrNoRows):
			return err
		case fresh && string(before) != string(request):
			return jpki.Errorf(jpki.IdempotencyReused, "the key was used for another request")
		case fresh && sealed != nil:
			return nil
		case fresh && now.Before(at.Add(abandoned)):
			return jpki.Errorf(jpki.InProgress, "the same request is being worked on")
		case err == nil: // over, or abandoned
			sealed = nil
			n, err := tx.exec(`UPDATE once SET request = $1, answer = NULL, claimed_at = $2 WHERE tenant = $3 AND key_mac = $4 AND claimed_at = $5`, request, micros(now), string(a.Tenant.ID), keyMAC, claimed)
			if err == nil && n == 0 {
				err = jpki.Errorf(jpki.InProgress, "the same request is being worked on")
			}
			return err
		}
		_, err = tx.exec(`INSERT INTO once (tenant, key_mac, request, claimed_at) VALUES ($1, $2, $3, $4)`, string(a.Tenant.ID), keyMAC, request, micros(now))
		if err != nil && s.d.unique(err) {
			err = jpki.Errorf(jpki.InProgress, "the same request is being worked on")
		}
		return err
	})
	if err != nil || sealed == nil {
		return nil, false, err
	}
	if answer, err = answerKey.open("answer", sealed); err != nil {
		return nil, false, fmt.Errorf("open answer: %w", err)
	}
	return answer, true, nil
}

// End records the answer of a request that [Store.Begin] has claimed. A nil answer frees the key, so that a request that came to
// nothing can be sent again.
func (s *Store) End(ctx context.Context, a *Access, o Once, answer []byte) error {
	keyMAC, request, answerKey := o.rows(a.key)
	var sealed []byte
	if answer != nil {
		var err error
		if sealed, err = answerKey.seal("answer", answer); err != nil {
			return fmt.Errorf("seal answer: %w", err)
		}
	}
	return s.Update(ctx, func(tx *Tx) (err error) {
		if sealed == nil {
			_, err = tx.exec(`DELETE FROM once WHERE tenant = $1 AND key_mac = $2 AND request = $3 AND answer IS NULL`, string(a.Tenant.ID), keyMAC, request)
		} else {
			_, err = tx.exec(`UPDATE once SET answer = $1 WHERE tenant = $2 AND key_mac = $3 AND request = $4`, sealed, string(a.Tenant.ID), keyMAC, request)
		}
		return err
	})
}
