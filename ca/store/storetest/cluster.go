package storetest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// A Cluster is a PostgreSQL server of a test's own, to be stopped, restarted and replicated. It listens on a loopback port,
// admits everybody there and is removed when the test ends.
type Cluster struct {
	t     *testing.T
	bin   string
	dir   string
	port  int
	enter []string // put before every command: into the mount namespace with the small disk; see NewSmallCluster
	small string   // where that is
	flags []string // of initdb
	set   string   // more settings of the server
}

// NewCluster makes and starts one. Without PostgreSQL's programs the test is skipped, or fails where JPKI_TEST_REQUIRE is 1.
func NewCluster(t *testing.T) *Cluster {
	t.Helper()
	c := newCluster(t, programs(t))
	c.init()
	return c
}

// programs finds the newest PostgreSQL.
func programs(t *testing.T) string {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) == 0 {
		if os.Getenv("JPKI_TEST_REQUIRE") == "1" {
			t.Fatal("no PostgreSQL server under /usr/lib/postgresql")
		}
		t.Skip("no PostgreSQL server under /usr/lib/postgresql")
	}
	slices.Sort(found)
	return filepath.Dir(found[len(found)-1])
}

func (c *Cluster) init() {
	c.t.Helper()
	c.must("initdb", append([]string{"-D", c.dir + "/data", "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"}, c.flags...)...)
	c.listen()
}

func newCluster(t *testing.T, bin string) *Cluster {
	t.Helper()
	dir, err := os.MkdirTemp("", "jpki-cluster") // not the test's own directory, into which the server's user may not look
	if err != nil {
		t.Fatal(err)
	}
	c := &Cluster{t: t, bin: bin, dir: dir}
	t.Cleanup(func() {
		if _, err := os.Stat(dir + "/data/postmaster.pid"); err == nil || c.enter != nil {
			_, _ = c.run("pg_ctl", "-D", dir+"/data", "-m", "immediate", "-t", "60", "stop")
		}
		_ = os.RemoveAll(dir)
	})
	if os.Geteuid() == 0 {
		u, err := user.Lookup("postgres")
		if err != nil {
			t.Fatal(err)
		}
		uid, _ := strconv.Atoi(u.Uid)
		if err := os.Chown(dir, uid, -1); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// run runs one of PostgreSQL's programs, which refuse to be run by root.
func (c *Cluster) run(program string, args ...string) (string, error) {
	if !filepath.IsAbs(program) {
		program = filepath.Join(c.bin, program)
	}
	args = append([]string{program}, args...)
	if os.Geteuid() == 0 {
		args = append([]string{"runuser", "-u", "postgres", "--"}, args...)
	}
	args = append(slices.Clone(c.enter), args...)
	cmd := exec.Command(args[0], args[1:]...) // no context: also at clean-up, when the test's has ended
	cmd.Dir = "/"
	log, err := os.CreateTemp(c.dir, "out") // a file, for a server that pg_ctl leaves behind would keep a pipe open
	if err != nil {
		return "", err
	}
	defer func() { _ = log.Close() }()
	cmd.Stdout, cmd.Stderr = log, log
	err = cmd.Run()
	text, _ := os.ReadFile(log.Name())
	return string(text), err
}

func (c *Cluster) must(program string, args ...string) {
	c.t.Helper()
	if out, err := c.run(program, args...); err != nil {
		c.t.Fatalf("%s: %v\n%s", program, err, out)
	}
}

// listen starts the server on a port that it draws: nobody can reserve one for a server that is yet to start.
func (c *Cluster) listen() {
	c.t.Helper()
	for try := range 20 {
		c.port = 15000 + rand.IntN(16000)
		err := c.start()
		if err == nil {
			return
		}
		log, _ := os.ReadFile(c.dir + "/log")
		if try == 19 || !strings.Contains(string(log), "Address already in use") {
			c.t.Fatalf("start PostgreSQL: %v\n%s", err, log)
		}
		_ = os.Remove(c.dir + "/log")
	}
}

func (c *Cluster) start() error {
	_, err := c.run("pg_ctl", "-D", c.dir+"/data", "-w", "-t", "60", "-l", c.dir+"/log", "-o",
		fmt.Sprintf("-c listen_addresses=127.0.0.1 -c port=%d -c unix_socket_directories='' -c max_connections=100 -c shared_buffers=16MB%s", c.port, c.set), "start")
	return err
}

// Start starts a stopped server, on the port it had.
func (c *Cluster) Start() {
	c.t.Helper()
	if err := c.start(); err != nil {
		log, _ := os.ReadFile(c.dir + "/log")
		c.t.Fatalf("start PostgreSQL: %v\n%s", err, log)
	}
}

// Stop stops the server as a power cut does: without a checkpoint, connections cut.
func (c *Cluster) Stop() {
	c.t.Helper()
	c.must("pg_ctl", "-D", c.dir+"/data", "-m", "immediate", "-w", "-t", "60", "stop")
}

// Standby makes and starts a second server that follows this one, and makes this one wait for it with every commit.
func (c *Cluster) Standby() *Cluster {
	c.t.Helper()
	s := newCluster(c.t, c.bin)
	s.must("pg_basebackup", "-D", s.dir+"/data", "-R", "-X", "stream", "-c", "fast", "--no-sync", "-d", c.URL("postgres"))
	s.listen()
	run(c.t, c.URL("postgres"), "ALTER SYSTEM SET synchronous_standby_names = '*'")
	run(c.t, c.URL("postgres"), "SELECT pg_reload_conf()")
	run(c.t, c.URL("postgres"), `DO $$ BEGIN
		FOR i IN 1..600 LOOP
			PERFORM pg_stat_clear_snapshot();
			IF EXISTS (SELECT FROM pg_stat_replication WHERE sync_state = 'sync') THEN RETURN; END IF;
			PERFORM pg_sleep(0.1);
		END LOOP;
		RAISE EXCEPTION 'the standby does not follow';
	END $$`)
	return s
}

// Promote makes a standby a server that is written to.
func (c *Cluster) Promote() {
	c.t.Helper()
	c.must("pg_ctl", "-D", c.dir+"/data", "-w", "-t", "60", "promote")
}

// Database makes a database.
func (c *Cluster) Database(name string) {
	c.t.Helper()
	run(c.t, c.URL("postgres"), "CREATE DATABASE "+name)
}

// URL returns the address of a database here and, if given, on others that may take this server's place.
func (c *Cluster) URL(database string, others ...*Cluster) string {
	var hosts []string
	for _, o := range append([]*Cluster{c}, others...) {
		hosts = append(hosts, fmt.Sprintf("127.0.0.1:%d", o.port))
	}
	u := "postgres://postgres@" + strings.Join(hosts, ",") + "/" + database + "?sslmode=disable&connect_timeout=5"
	if len(others) > 0 {
		u += "&target_session_attrs=read-write"
	}
	return u
}
