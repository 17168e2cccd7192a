package store

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/openjpki/jpki"
)

// A succession keeps connections away from a server that has been succeeded. PostgreSQL begins a new timeline whenever a
// standby takes its primary's place; a primary that was thought dead and comes back is on an older one. It takes
// connections and calls itself writable, but what it knows is out of date and what it is told is lost. The connection string
// names several servers, and whichever is on the newest timeline, ever seen or to be seen on any of them now, is the one.
type succession struct {
	newest atomic.Uint64
	others []*pgconn.Config // one for each server of the connection string; nil when there is but one
}

// follow makes a configuration's connections follow the succession.
func (s *succession) follow(c *pgconn.Config) {
	var known []string
	var alone []*pgconn.Config
	for _, f := range append([]*pgconn.FallbackConfig{{Host: c.Host, Port: c.Port, TLSConfig: c.TLSConfig}}, c.Fallbacks...) {
		address := fmt.Sprint(f.Host, " ", f.Port)
		if slices.Contains(known, address) {
			continue // the same server without TLS
		}
		one := c.Copy()
		one.Host, one.Port, one.TLSConfig, one.Fallbacks, one.ValidateConnect = f.Host, f.Port, f.TLSConfig, nil, nil
		known, alone = append(known, address), append(alone, one)
	}
	if len(alone) > 1 {
		s.others = alone
	}
	wanted := c.ValidateConnect
	c.ValidateConnect = func(ctx context.Context, conn *pgconn.PgConn) error {
		if wanted != nil {
			if err := wanted(ctx, conn); err != nil {
				return err
			}
		}
		return s.admit(ctx, conn)
	}
}

// admit refuses a server that is behind another.
func (s *succession) admit(ctx context.Context, conn *pgconn.PgConn) error {
	here, standby, ok := timeline(ctx, conn)
	if standby {
		return jpki.Errorf(jpki.Unavailable, "this database server is a standby: what it knows may be old")
	}
	if !ok {
		return nil
	}
	s.see(here)
	var asking sync.WaitGroup
	for _, o := range s.others {
		asking.Go(func() {
			other, err := pgconn.ConnectConfig(ctx, o)
			if err != nil {
				return // one that does not answer has nothing to say
			}
			defer func() { _ = other.Close(ctx) }()
			if t, _, ok := timeline(ctx, other); ok {
				s.see(t)
			}
		})
	}
	asking.Wait()
	if newest := s.newest.Load(); here < newest {
		return jpki.Errorf(jpki.Unavailable, "this database server is on timeline %d and was succeeded by one on %d", here, newest)
	}
	return nil
}

// see remembers the newest timeline.
func (s *succession) see(t uint64) {
	for newest := s.newest.Load(); t > newest && !s.newest.CompareAndSwap(newest, t); newest = s.newest.Load() {
	}
}

// timeline asks a server for the timeline that it writes on; a standby writes on none, and engines that only speak
// PostgreSQL's protocol know none.
func timeline(ctx context.Context, conn *pgconn.PgConn) (t uint64, standby, ok bool) {
	got, err := conn.Exec(ctx, `SELECT CASE WHEN pg_is_in_recovery() THEN '' ELSE substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) END`).ReadAll()
	if err != nil || len(got) != 1 || len(got[0].Rows) != 1 {
		return 0, false, false
	}
	text := string(got[0].Rows[0][0])
	t, err = strconv.ParseUint(text, 16, 32)
	return t, text == "", err == nil
}

// CheckPrimary says why a database name may lead to another server than the primary, or returns nil. What is read from a
// copy that lags would be believed: a URL that names several servers has to say which of them is meant.
func CheckPrimary(name string) error {
	if !isPostgres(name) {
		return nil
	}
	cfg, err := pgconn.ParseConfig(name)
	if err != nil {
		return fmt.Errorf("read database URL: %w", err)
	}
	u, err := url.Parse(name)
	if err != nil {
		return errors.New("read database URL: it is none") // the error would repeat it, with the password
	}
	servers := map[string]bool{fmt.Sprint(cfg.Host, " ", cfg.Port): true}
	for _, f := range cfg.Fallbacks {
		servers[fmt.Sprint(f.Host, " ", f.Port)] = true
	}
	switch attrs := u.Query().Get("target_session_attrs"); {
	case attrs == "read-write" || attrs == "primary":
		return nil
	case attrs != "" && attrs != "any":
		return fmt.Errorf("the database URL says target_session_attrs=%s: only read-write and primary reach the primary", attrs)
	case len(servers) > 1:
		return errors.New("the database URL names several servers without target_session_attrs=read-write: one that lags behind would be believed")
	}
	return nil
}

// SeveralServers reports whether a database name names more than one server. A name that cannot be read names none.
func SeveralServers(name string) bool {
	if !isPostgres(name) {
		return false
	}
	cfg, err := pgconn.ParseConfig(name)
	if err != nil {
		return false
	}
	first := fmt.Sprint(cfg.Host, " ", cfg.Port)
	return slices.ContainsFunc(cfg.Fallbacks, func(f *pgconn.FallbackConfig) bool { return fmt.Sprint(f.Host, " ", f.Port) != first })
}
