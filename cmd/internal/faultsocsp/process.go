package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A process is a child that does not outlive us: it is killed at the end of the run, and by the kernel should we be killed.
type process struct {
	name string
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when it has ended
}

// A nursery has all children of a run.
type nursery struct {
	dir string // where their output goes

	mu  sync.Mutex
	all []*process
}

// start starts a program; set, if any, changes the command before.
func (n *nursery) start(name string, set func(*exec.Cmd), program string, args ...string) (*process, error) {
	p := &process{name: name, cmd: exec.Command(program, args...), log: filepath.Join(n.dir, name+".log"), done: make(chan struct{})} //nolint:noctx,gosec // programs of ours, ended by kill
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = out.Close() }()
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true} // Ctrl-C is for us alone
	if set != nil {
		set(p.cmd)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() { _ = p.cmd.Wait(); close(p.done) }()
	n.all = append(n.all, p)
	return p, nil
}

// killAll ends what is left, the youngest first.
func (n *nursery) killAll() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range slices.Backward(n.all) {
		p.kill()
	}
}

// kill ends the process by SIGKILL.
func (p *process) kill() {
	if p != nil {
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

func (p *process) signal(s syscall.Signal) error { return p.cmd.Process.Signal(s) }

// tail is the end of what it printed.
func (p *process) tail() string {
	text, _ := os.ReadFile(p.log)
	return strings.TrimSpace(string(text[max(0, len(text)-2000):]))
}

// await waits until f is content, the process has ended or patience is over.
func (p *process) await(ctx context.Context, what string, f func() error) error {
	return until(ctx, what, func() error {
		select {
		case <-p.done:
			return final{fmt.Errorf("%s has ended: %s", p.name, p.tail())}
		default:
			return f()
		}
	})
}

// final is an error after which waiting is in vain.
type final struct{ error }

const patience = 30 * time.Second

// until calls f until it returns no error.
func until(ctx context.Context, what string, f func() error) error {
	for end := time.Now().Add(patience); ; {
		err := f()
		var last final
		if err == nil || errors.As(err, &last) {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("waited in vain until %s: %w", what, err)
		}
		if err := sleep(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// freePort draws a port below those that the kernel hands out; a Redis Cluster also listens 10000 higher.
func freePort(ctx context.Context) (int, error) {
	for range 100 {
		port := 12000 + rand.IntN(10000) //nolint:gosec // no secret
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", at(port))
		if err != nil {
			continue
		}
		_ = l.Close()
		return port, nil
	}
	return 0, errors.New("no free port")
}

func at(port int) string { return "127.0.0.1:" + strconv.Itoa(port) }

// dialable reports why nobody listens at an address.
func dialable(ctx context.Context, address string) error {
	c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", address)
	if err == nil {
		_ = c.Close()
	}
	return err
}

// A cluster is a PostgreSQL server, as PostgreSQL calls it.
type cluster struct {
	n    *nursery
	name string
	bin  string
	dir  string
	port int
	as   func(*exec.Cmd)
	p    *process
}

// newCluster gets ready to start a server of the newest PostgreSQL, which refuses to be run by root.
func (n *nursery) newCluster(ctx context.Context, name string) (*cluster, error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) == 0 {
		return nil, errors.New("no PostgreSQL server under /usr/lib/postgresql (deploy/test/install.sh installs one)")
	}
	slices.Sort(found)
	c := &cluster{n: n, name: name, bin: filepath.Dir(found[len(found)-1]), dir: filepath.Join(n.dir, name)}
	if err := os.Mkdir(c.dir, 0o700); err != nil {
		return nil, err
	}
	c.as = func(cmd *exec.Cmd) { cmd.Dir = "/" }
	if os.Geteuid() == 0 {
		u, err := user.Lookup("postgres")
		if err != nil {
			return nil, err
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		if err := os.Chown(c.dir, uid, gid); err != nil {
			return nil, err
		}
		c.as = func(cmd *exec.Cmd) {
			cmd.Dir = "/"
			if cmd.SysProcAttr == nil {
				cmd.SysProcAttr = &syscall.SysProcAttr{}
			}
			cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		}
	}
	var err error
	c.port, err = freePort(ctx)
	return c, err
}

// prepare runs one of PostgreSQL's programs that ends by itself.
func (c *cluster) prepare(ctx context.Context, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(c.bin, program), args...) //nolint:gosec // one of PostgreSQL's
	c.as(cmd)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", program, err, out)
	}
	return nil
}

func (c *cluster) start(ctx context.Context) (err error) {
	c.p, err = c.n.start(c.name, c.as, filepath.Join(c.bin, "postgres"), "-D", c.dir+"/data", "-c", "listen_addresses=127.0.0.1", "-c", fmt.Sprint("port=", c.port),
		"-c", "unix_socket_directories=", "-c", "max_connections=300", "-c", "shared_buffers=32MB")
	if err != nil {
		return err
	}
	return c.p.await(ctx, "PostgreSQL answers", func() error { return c.prepare(ctx, "pg_isready", "-q", "-h", "127.0.0.1", "-p", strconv.Itoa(c.port)) })
}

// stop stops the server as a power cut does: without a checkpoint, connections cut.
func (c *cluster) stop() error {
	if err := c.p.signal(syscall.SIGQUIT); err != nil {
		return err
	}
	<-c.p.done
	return nil
}

// databaseURL names a database on one server or on several, of which the one is meant that is written to.
func databaseURL(database string, on ...*cluster) string {
	var hosts []string
	for _, c := range on {
		hosts = append(hosts, at(c.port))
	}
	url := "postgres://postgres@" + strings.Join(hosts, ",") + "/" + database + "?sslmode=disable&connect_timeout=5"
	if len(on) > 1 {
		url += "&target_session_attrs=read-write"
	}
	return url
}

// A redisServer is one redis-server. It saves its data only when told to.
type redisServer struct {
	n    *nursery
	name string
	dir  string
	port int
	args []string
	p    *process
}

func (n *nursery) newRedis(ctx context.Context, name string, args ...string) (*redisServer, error) {
	r := &redisServer{n: n, name: name, dir: filepath.Join(n.dir, name), args: args}
	if err := os.Mkdir(r.dir, 0o700); err != nil {
		return nil, err
	}
	var err error
	if r.port, err = freePort(ctx); err != nil {
		return nil, err
	}
	return r, r.start(ctx)
}

// start starts it with what was saved last.
func (r *redisServer) start(ctx context.Context) (err error) {
	args := append([]string{"--port", strconv.Itoa(r.port), "--bind", "127.0.0.1", "--dir", r.dir, "--save", "", "--daemonize", "no"}, r.args...)
	if r.p, err = r.n.start(r.name, nil, "redis-server", args...); err != nil {
		return err
	}
	return r.p.await(ctx, "Redis answers", func() error {
		out, err := r.do(ctx, "PING")
		if err == nil && out != "PONG" {
			err = errors.New(out)
		}
		return err
	})
}

// do gives it a command by redis-cli and returns what that prints.
func (r *redisServer) do(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, "redis-cli", append([]string{"-e", "-p", strconv.Itoa(r.port)}, args...)...).CombinedOutput() //nolint:gosec // to a server of our own
	if err != nil {
		err = fmt.Errorf("redis-cli %s: %w: %s", args[0], err, out)
	}
	return strings.TrimSpace(string(out)), err
}

// newRedisCluster starts three primaries with a replica each; the first three were primaries then.
func (n *nursery) newRedisCluster(ctx context.Context) ([]*redisServer, error) {
	var servers []*redisServer
	create := []string{"--cluster", "create"}
	for i := range 6 {
		s, err := n.newRedis(ctx, fmt.Sprint("redis-cluster-", i), "--cluster-enabled", "yes", "--cluster-node-timeout", "1000",
			"--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0")
		if err != nil {
			return nil, err
		}
		servers = append(servers, s)
		create = append(create, at(s.port))
	}
	if _, err := servers[0].do(ctx, append(create, "--cluster-replicas", "1", "--cluster-yes")...); err != nil {
		return nil, err
	}
	for _, s := range servers {
		if err := s.p.await(ctx, "the Redis Cluster is well", func() error {
			info, err := s.do(ctx, "CLUSTER", "INFO")
			if err != nil {
				return err
			}
			role, err := s.do(ctx, "ROLE")
			if err == nil && (!strings.Contains(info, "cluster_state:ok") || !strings.HasPrefix(role, "master") && !strings.Contains(role, "connected")) {
				err = errors.New("not yet")
			}
			return err
		}); err != nil {
			return nil, err
		}
	}
	return servers, nil
}
