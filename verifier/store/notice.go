package store

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"time"

	"github.com/openjpki/jpki"
)

// MaxNotices is how many notices may wait for an endpoint.
const MaxNotices = 16

// A Notice is delivered to one endpoint and tells nothing about a user: a test, or a stream's verification event.
type Notice struct {
	ID        string
	State     string // what the receiver wants to see again
	CreatedAt time.Time
}

func noticeLabel(id string) string { return "notice " + id }

// AddNotice has a notice delivered, before the changes that wait and without waiting for the end of a back-off. More than [MaxNotices]
// are [jpki.RateLimited].
func (s *Store) AddNotice(ctx context.Context, a *Access, endpoint, state string, now time.Time) (Notice, error) {
	var random [16]byte
	if _, err := io.ReadFull(s.rand, random[:]); err != nil {
		return Notice{}, fmt.Errorf("draw notice's identifier: %w", err)
	}
	n := Notice{hex.EncodeToString(random[:]), state, fromMicros(micros(now))}
	sealed, err := a.key.seal(noticeLabel(n.ID), []byte(state))
	if err != nil {
		return Notice{}, fmt.Errorf("seal notice: %w", err)
	}
	return n, s.Update(ctx, func(tx *Tx) error {
		known, err := tx.exec(`UPDATE endpoint SET next_at = $1 WHERE id = $2 AND tenant = $3`, micros(now), endpoint, string(a.Tenant.ID))
		if err != nil {
			return err
		}
		if known == 0 {
			return errNoEndpoint()
		}
		var waiting int
		if err := tx.q.QueryRowContext(tx.ctx, `SELECT COUNT(*) FROM notice WHERE endpoint = $1`, endpoint).Scan(&waiting); err != nil {
			return err
		}
		if waiting >= MaxNotices {
			return jpki.Errorf(jpki.RateLimited, "%d tests or verification events wait already", waiting)
		}
		_, err = tx.exec(`INSERT INTO notice (id, endpoint, sealed, created_at) VALUES ($1, $2, $3, $4)`, n.ID, endpoint, sealed, micros(now))
		return err
	})
}

func (tx *Tx) notices(endpoint string, k key) ([]Notice, error) {
	return queryAll(tx, func(r scanner) (n Notice, err error) {
		var sealed []byte
		var created int64
		if err = r.Scan(&n.ID, &sealed, &created); err != nil {
			return n, err
		}
		state, err := k.open(noticeLabel(n.ID), sealed)
		n.State, n.CreatedAt = string(state), fromMicros(created)
		return n, err
	}, `SELECT id, sealed, created_at FROM notice WHERE endpoint = $1 ORDER BY created_at, id`, endpoint)
}

func (tx *Tx) dropNotice(endpoint, id string) error {
	_, err := tx.exec(`DELETE FROM notice WHERE endpoint = $1 AND id = $2`, endpoint, id)
	return err
}
