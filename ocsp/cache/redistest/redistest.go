// Package redistest gives tests real Redis servers, to be killed, stopped, emptied, cut off and given old data.
//
// [Start] starts one server, [StartCluster] a cluster with replicas, [StartSentinels] a primary that sentinels watch, and
// [NewProxy] puts a network in between that can be cut. It is for tests only; the import test keeps it out of programs.
// Servers listen on loopback ports, keep their data in directories of their own and end with the test.
package redistest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A Server is one redis-server.
type Server struct {
	t     testing.TB
	dir   string
	port  int
	args  []string
	watch string // a sentinel's configuration
	auth  string // password of the default user
	cmd   *exec.Cmd
	done  chan struct{} // closed when cmd has ended
}

// Start starts a server; args are further words of its command line, as in "--maxmemory", "1mb". It saves its data only
// when told to, see [Server.Save]. Without redis-server the test is skipped, or fails where JPKI_TEST_REQUIRE is 1.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	return start(t, "", "", args...)
}

func start(t testing.TB, watch, auth string, args ...string) *Server {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		if os.Getenv("JPKI_TEST_REQUIRE") == "1" {
			t.Fatal("no redis-server")
		}
		t.Skip("no redis-server")
	}
	s := &Server{t: t, dir: t.TempDir(), args: args, watch: watch, auth: auth}
	t.Cleanup(s.Kill)
	for try := range 20 { // nobody can reserve a port for a server that is yet to start
		s.port = 12000 + rand.IntN(10000) // a cluster's bus listens 10000 higher
		if c, err := net.Dial("tcp", s.Addr()); err == nil {
			_ = c.Close()
			continue
		}
		err := s.start()
		if err == nil {
			return s
		}
		if try > 5 {
			t.Fatal(err)
		}
	}
	t.Fatal("no free port")
	return nil
}

func (s *Server) start() error {
	args := append([]string{"--port", fmt.Sprint(s.port), "--bind", "127.0.0.1", "--dir", s.dir, "--save", "", "--logfile", "log", "--daemonize", "no"}, s.args...)
	if s.watch != "" {
		config := filepath.Join(s.dir, "sentinel.conf")
		if err := os.WriteFile(config, fmt.Appendf(nil, "port %d\nbind 127.0.0.1\nlogfile log\n%s", s.port, s.watch), 0o600); err != nil {
			return err
		}
		args = []string{config, "--sentinel"}
	}
	s.cmd = exec.Command("redis-server", args...)
	s.cmd.Dir = s.dir
	// Should the test be killed, its servers are too.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		return err
	}
	s.done = make(chan struct{})
	go func(cmd *exec.Cmd, done chan struct{}) { _ = cmd.Wait(); close(done) }(s.cmd, s.done)
	for range 2000 {
		select {
		case <-s.done:
			log, _ := os.ReadFile(filepath.Join(s.dir, "log"))
			return fmt.Errorf("redis-server ended: %s", log)
		case <-time.After(5 * time.Millisecond):
		}
		if c, err := net.Dial("tcp", s.Addr()); err == nil {
			_ = c.Close()
			if out, err := s.Try("PING"); err == nil && out == "PONG" {
				return nil
			}
		}
	}
	return errors.New("redis-server does not answer")
}

// Addr returns where the server listens.
func (s *Server) Addr() string { return fmt.Sprintf("127.0.0.1:%d", s.port) }

// Start starts a server that was killed, on the port it had, with what it saved last.
func (s *Server) Start() {
	s.t.Helper()
	if err := s.start(); err != nil {
		s.t.Fatal(err)
	}
}

// Kill ends the server by SIGKILL.
func (s *Server) Kill() {
	if s.cmd == nil || s.cmd.Process == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	<-s.done
}

// Hang stops the server by SIGSTOP: connections stay, answers do not come.
func (s *Server) Hang() { s.signal(syscall.SIGSTOP) }

// Resume lets a hung server go on.
func (s *Server) Resume() { s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// Save saves the data and returns a copy of the file.
func (s *Server) Save() (dump []byte) {
	s.t.Helper()
	s.Do("SAVE")
	dump, err := os.ReadFile(filepath.Join(s.dir, "dump.rdb"))
	if err != nil {
		s.t.Fatal(err)
	}
	return dump
}

// Restore kills the server and starts it with an earlier copy of its data; nil is none.
func (s *Server) Restore(dump []byte) {
	s.t.Helper()
	s.Kill()
	file := filepath.Join(s.dir, "dump.rdb")
	if dump == nil {
		_ = os.Remove(file)
	} else if err := os.WriteFile(file, dump, 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.Start()
}

// Do gives the server a command by redis-cli and returns what that prints.
func (s *Server) Do(args ...string) string {
	s.t.Helper()
	out, err := s.Try(args...)
	if err != nil {
		s.t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return out
}

// Try is Do for a command that may fail.
func (s *Server) Try(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "redis-cli", append([]string{"-e", "-p", fmt.Sprint(s.port)}, args...)...)
	if s.auth != "" {
		cmd.Env = append(os.Environ(), "REDISCLI_AUTH="+s.auth)
	}
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// StartCluster starts a cluster of that many primaries with a replica each, and waits until it is well. The first half of
// the servers were primaries then. A lost primary is replaced within about two seconds.
func StartCluster(t testing.TB, primaries int) []*Server {
	t.Helper()
	var servers []*Server
	create := []string{"--cluster", "create"}
	for range 2 * primaries {
		s := Start(t, "--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0")
		servers = append(servers, s)
		create = append(create, s.Addr())
	}
	servers[0].Do(append(create, "--cluster-replicas", "1", "--cluster-yes")...)
	for _, s := range servers {
		Until(t, "the cluster is well", func() bool {
			role := s.Do("ROLE")
			return strings.Contains(s.Do("CLUSTER", "INFO"), "cluster_state:ok") &&
				(strings.HasPrefix(role, "master") || strings.Contains(role, "connected"))
		})
	}
	return servers
}

// Primary reports whether a server is no replica.
func (s *Server) Primary() bool {
	role, err := s.Try("ROLE")
	return err == nil && strings.HasPrefix(role, "master")
}

// StartSentinels starts a primary and a replica, watched by three sentinels under the name "jpki", and returns the
// sentinels' addresses. A lost primary is replaced within a few seconds.
func StartSentinels(t testing.TB) (sentinels []string, primary, replica *Server) {
	t.Helper()
	watching, primary, replica := startSentinels(t, "")
	for _, s := range watching {
		sentinels = append(sentinels, s.Addr())
	}
	return sentinels, primary, replica
}

// StartGuardedSentinels is [StartSentinels] with a password that everything asks for, the sentinels, too: it is that of the
// default user everywhere. Other users are the caller's to make, at each server for itself.
func StartGuardedSentinels(t testing.TB, password string) (sentinels []*Server, primary, replica *Server) {
	t.Helper()
	return startSentinels(t, password)
}

func startSentinels(t testing.TB, password string) (sentinels []*Server, primary, replica *Server) {
	t.Helper()
	args, guard := []string{"--repl-diskless-sync-delay", "0"}, ""
	if password != "" {
		args = append(args, "--requirepass", password, "--masterauth", password)
		guard = fmt.Sprintf("requirepass %s\nsentinel sentinel-pass %[1]s\nsentinel auth-pass jpki %[1]s\n", password)
	}
	primary = start(t, "", password, args...)
	replica = start(t, "", password, append(args, "--replicaof", "127.0.0.1", fmt.Sprint(primary.port))...)
	Until(t, "the replica is connected", func() bool { return strings.Contains(replica.Do("ROLE"), "connected") })
	for range 3 {
		sentinels = append(sentinels, start(t, fmt.Sprintf("sentinel monitor jpki 127.0.0.1 %d 2\nsentinel down-after-milliseconds jpki 1000\nsentinel failover-timeout jpki 5000\n%s", primary.port, guard), password))
	}
	for _, s := range sentinels {
		Until(t, "the sentinels know each other", func() bool {
			out := s.Do("SENTINEL", "MASTER", "jpki")
			return strings.Contains(out, "num-other-sentinels\n2") && strings.Contains(out, "num-slaves\n1")
		})
	}
	return sentinels, primary, replica
}

// Until waits for up to a minute until f reports true.
func Until(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}
