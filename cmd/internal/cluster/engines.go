package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A postgres is one PostgreSQL server; whether it is the primary changes.
type postgres struct {
	*service
	bin  string
	dir  string
	port int
	as   func(*exec.Cmd) // PostgreSQL refuses to be run by root
}

func newPostgres(ctx context.Context, dir, name string) (*postgres, error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) == 0 {
		return nil, errors.New("no PostgreSQL server under /usr/lib/postgresql (deploy/test/install.sh installs one)")
	}
	slices.Sort(found)
	p := &postgres{bin: filepath.Dir(found[len(found)-1]), dir: filepath.Join(dir, name), as: func(cmd *exec.Cmd) { cmd.Dir = "/" }}
	if err := os.Mkdir(p.dir, 0o700); err != nil {
		return nil, err
	}
	if os.Geteuid() == 0 {
		u, err := user.Lookup("postgres")
		if err != nil {
			return nil, err
		}
		uid, _ := strconv.ParseUint(u.Uid, 10, 32)
		gid, _ := strconv.ParseUint(u.Gid, 10, 32)
		if err := os.Chown(p.dir, int(uid), int(gid)); err != nil {
			return nil, err
		}
		p.as = func(cmd *exec.Cmd) {
			cmd.Dir = "/"
			if cmd.SysProcAttr == nil {
				cmd.SysProcAttr = &syscall.SysProcAttr{}
			}
			cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		}
	}
	var err error
	if p.port, err = freePort(ctx); err != nil {
		return nil, err
	}
	p.service = &service{
		name: name, program: filepath.Join(p.bin, "postgres"), set: p.as,
		args: []string{
			"-D", p.dir + "/data", "-c", "listen_addresses=127.0.0.1", "-c", fmt.Sprint("port=", p.port), "-c", "unix_socket_directories=",
			"-c", "max_connections=300", "-c", "shared_buffers=32MB", "-c", "tcp_keepalives_idle=5", "-c", "tcp_keepalives_interval=2", "-c", "tcp_keepalives_count=3",
		},
		well: func(ctx context.Context) error {
			return p.run(ctx, "pg_isready", "-q", "-h", "127.0.0.1", "-p", strconv.Itoa(p.port))
		},
	}
	return p, nil
}

// run runs one of PostgreSQL's programs that ends by itself.
func (p *postgres) run(ctx context.Context, program string, args ...string) error {
	_, err := p.ask(ctx, program, args...)
	return err
}

func (p *postgres) ask(ctx context.Context, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(p.bin, program), args...) //nolint:gosec // one of PostgreSQL's
	p.as(cmd)
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", program, err, out)
	}
	return strings.TrimSpace(string(out)), err
}

// sql runs statements one by one, and returns what the last of them selects.
func (p *postgres) sql(ctx context.Context, role, database string, statements ...string) (out string, err error) {
	for _, s := range statements {
		if out, err = p.ask(ctx, "psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", databaseURL(role, database, p), "-c", s); err != nil {
			return "", err
		}
	}
	return out, nil
}

// databaseURL names a database on one server or on several, of which the one is meant that is written to.
func databaseURL(role, database string, on ...*postgres) string {
	var hosts []string
	for _, p := range on {
		hosts = append(hosts, at(p.port))
	}
	url := "postgres://" + role + "@" + strings.Join(hosts, ",") + "/" + database + "?sslmode=disable&connect_timeout=5"
	if len(on) > 1 {
		url += "&target_session_attrs=read-write"
	}
	return url
}

// addPostgres makes and starts the primary, roles and databases, and then the standby.
func (c *cluster) addPostgres(ctx context.Context) (err error) {
	for i, name := range []string{"postgres-1", "postgres-2"} {
		if c.postgres[i], err = newPostgres(ctx, c.dir, name); err != nil {
			return err
		}
	}
	primary := c.postgres[0]
	if err := primary.run(ctx, "initdb", "-D", primary.dir+"/data", "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"); err != nil {
		return err
	}
	if err := c.add(ctx, primary.service); err != nil {
		return err
	}
	if _, err := primary.sql(ctx, "postgres", "postgres",
		"CREATE ROLE jpki_ca LOGIN", "CREATE ROLE jpki_verifier LOGIN", "CREATE ROLE jpki_status LOGIN CONNECTION LIMIT 100",
		"CREATE DATABASE jpki OWNER jpki_ca", "CREATE DATABASE verifier OWNER jpki_verifier"); err != nil {
		return err
	}
	return c.follow(ctx, primary, c.postgres[1])
}

// follow makes a standby of a server that has no data or is to forget what it has, and has the primary wait for it with every commit.
// A server that was a standby once waits for its own standbys as soon as it is promoted: until it has one, nothing is committed.
func (c *cluster) follow(ctx context.Context, primary, standby *postgres) error {
	if err := os.RemoveAll(standby.dir + "/data"); err != nil {
		return err
	}
	if err := primary.run(ctx, "pg_basebackup", "-D", standby.dir+"/data", "-R", "-X", "stream", "-c", "fast", "--no-sync", "-d", databaseURL("postgres", "postgres", primary)); err != nil {
		return err
	}
	const waits = "synchronous_standby_names=*"
	if !slices.Contains(standby.args, waits) {
		standby.args = append(standby.args, "-c", waits)
	}
	if standby.starts() == 0 {
		if err := c.add(ctx, standby.service); err != nil {
			return err
		}
	} else if err := standby.release(); err != nil {
		return err
	}
	if _, err := primary.sql(ctx, "postgres", "postgres", "ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()"); err != nil {
		return err
	}
	return until(ctx, "the standby follows", func() error {
		state, err := primary.sql(ctx, "postgres", "postgres", "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'")
		if err == nil && state != "1" {
			err = errors.New("not yet")
		}
		return err
	})
}

// failOver kills the primary as a power cut does, promotes the standby, and makes a new standby where the primary was.
func (c *cluster) failOver(ctx context.Context) error {
	old, next := c.postgres[0], c.postgres[1]
	old.hold(syscall.SIGQUIT)
	if err := next.run(ctx, "pg_ctl", "-D", next.dir+"/data", "-w", "-t", "60", "promote"); err != nil {
		return err
	}
	c.postgres[0], c.postgres[1] = next, old
	return c.follow(ctx, next, old)
}

// A redis is one node of the Redis Cluster. Nothing in it has to survive.
type redis struct {
	*service
	port int
}

func (r *redis) do(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second) // it may be stopped
	defer cancel()
	return command(ctx, "", "", "redis-cli", append([]string{"-e", "-p", strconv.Itoa(r.port)}, args...)...)
}

// addRedis starts a Redis Cluster: three primaries with a replica each.
func (c *cluster) addRedis(ctx context.Context) error {
	create := []string{"--cluster", "create"}
	for i := range c.redis {
		name := fmt.Sprint("redis-", i+1)
		dir := filepath.Join(c.dir, name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
		port, err := freePort(ctx)
		if err != nil {
			return err
		}
		r := &redis{port: port}
		r.service = &service{
			name: name, program: "redis-server", args: []string{
				"--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--dir", dir, "--save", "", "--daemonize", "no", "--cluster-enabled", "yes",
				"--cluster-node-timeout", "1000", "--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0",
			},
			well: func(ctx context.Context) error { _, err := r.do(ctx, "PING"); return err },
		}
		if err := c.add(ctx, r.service); err != nil {
			return err
		}
		c.redis[i] = r
		create = append(create, at(port))
	}
	if _, err := c.redis[0].do(ctx, append(create, "--cluster-replicas", "1", "--cluster-yes")...); err != nil {
		return err
	}
	for _, r := range c.redis {
		r.well = func(ctx context.Context) error {
			info, err := r.do(ctx, "CLUSTER", "INFO")
			if err == nil && !strings.Contains(info, "cluster_state:ok") {
				err = errors.New("the Redis Cluster is not well")
			}
			return err
		}
		if err := r.await(ctx); err != nil {
			return err
		}
	}
	return nil
}
