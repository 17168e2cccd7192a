package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"hash/fnv"
	"strings"
	"time"
)

// A Lease is the right of one process on the database to do some work that several could do, but one should. It belongs to
// a connection: PostgreSQL takes it back when that breaks, whatever became of the process, and no clock has a part in it.
// SQLite knows no other machines; there everybody gets every lease.
type Lease struct {
	conn *sql.Conn // nil on SQLite
}

// Lease returns the lease of a name, or nil if another process has it. A server that was succeeded forgets its leases: who
// has one asks [Lease.Held] again and again, and stops when it says no.
func (s *Store) Lease(ctx context.Context, name string) (*Lease, error) {
	if s.d.lease == "" {
		return &Lease{}, nil
	}
	conn, err := s.write.Conn(ctx)
	if err != nil {
		return nil, s.d.classify(ctx, fmt.Errorf("lease: %w", err))
	}
	var got bool
	h := fnv.New64a()
	_, _ = h.Write([]byte("jpki lease " + name))
	if err := conn.QueryRowContext(ctx, s.d.lease, int64(h.Sum64())).Scan(&got); err != nil || !got { // #nosec G115 -- any 64 bits will do
		_ = conn.Close()
		return nil, s.d.classify(ctx, err)
	}
	return &Lease{conn}, nil
}

// leasePatience bounds how long a holder waits to hear that the lease is still its own.
const leasePatience = 5 * time.Second

// Held says why the lease is lost, or returns nil. What is held through a server that does not answer counts as lost.
func (l *Lease) Held(ctx context.Context) error {
	if l.conn == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, leasePatience)
	defer cancel()
	var one int
	return l.conn.QueryRowContext(ctx, `SELECT 1`).Scan(&one)
}

// Close gives the lease back. Where that cannot be said, the connection breaks, which does the same.
func (l *Lease) Close() error {
	if l.conn == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), leasePatience)
	defer cancel()
	if _, err := l.conn.ExecContext(ctx, `SELECT pg_advisory_unlock_all()`); err != nil {
		_ = l.conn.Raw(func(any) error { return driver.ErrBadConn }) // not back into the pool
	}
	return l.conn.Close()
}

// A Replication is what a PostgreSQL server says about who else has what it commits.
type Replication struct {
	Standbys    int  // connected now
	Synchronous bool // a commit is answered only when a standby has it
}

// Replication asks the server. [Store]s on SQLite have none.
func (s *Store) Replication(ctx context.Context) (r Replication, err error) {
	if s.d.lease == "" {
		return r, nil
	}
	var names, commit string
	err = s.write.QueryRowContext(ctx, `SELECT current_setting('synchronous_standby_names'), current_setting('synchronous_commit'),
		(SELECT count(*) FROM pg_stat_replication)`).Scan(&names, &commit, &r.Standbys)
	// "local" and "off" answer before a standby has anything; "remote_write" before it is on a standby's disk.
	r.Synchronous = strings.TrimSpace(names) != "" && (commit == "on" || commit == "remote_apply")
	return r, s.d.classify(ctx, err)
}
