package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A server is a process that is asked, with those that it cannot do without.
type server struct {
	address string
	path    string // under which OCSP lives
	admin   string // address of ours
	pids    []int
	ready   time.Duration // from its start until it would answer
}

// cpu is the processor time that all its processes have used.
func (s *server) cpu() (total time.Duration, err error) {
	for _, pid := range s.pids {
		t, err := cpuTime(pid)
		if err != nil {
			return 0, err
		}
		total += t
	}
	return total, nil
}

// resident is how much memory it has, in MiB.
func (s *server) resident() float64 {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.pids[0]))
	for line := range strings.Lines(string(text)) {
		var kib float64
		if n, _ := fmt.Sscanf(line, "VmRSS: %f kB", &kib); n == 1 {
			return kib / 1024
		}
	}
	return 0
}

// start runs a program on the servers' processor until the bench ends. What it says goes to a file of its own.
func (b *bench) start(ctx context.Context, name, program string, args ...string) (pid int, stop func() error, err error) {
	log, err := os.Create(filepath.Join(b.dir, name+".log"))
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = log.Close() }()
	cmd := pinned(ctx, 0, program, args...)
	cmd.Dir = b.dir
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Start(); err != nil {
		return 0, nil, fmt.Errorf("start %s: %w", name, err)
	}
	return cmd.Process.Pid, func() error {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(5*time.Second, func() { _ = cmd.Process.Kill() })
		defer kill.Stop()
		_ = cmd.Wait() // how it ends says nothing
		return nil
	}, nil
}

// await waits until a server does what it is asked for.
func (b *bench) await(ctx context.Context, name string, patience time.Duration, ready func() error) error {
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		err := ready()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil || time.Now().After(deadline) {
			said, _ := os.ReadFile(filepath.Join(b.dir, name+".log"))
			return fmt.Errorf("%s does not answer: %w; it said: %s", name, err, said[max(0, len(said)-500):])
		}
	}
}

// serve starts a server and waits until it takes connections.
func (b *bench) serve(ctx context.Context, name string, s *server, program string, args ...string) error {
	pid, stop, err := b.start(ctx, name, program, args...)
	if err != nil {
		return err
	}
	b.atEnd(stop)
	s.pids = append([]int{pid}, s.pids...)
	return b.await(ctx, name, 20*time.Second, func() error {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", s.address)
		if err == nil {
			_ = c.Close()
		}
		return err
	})
}

// freeAddress finds a port that nobody uses at this moment.
func freeAddress(ctx context.Context) (address, port string, err error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", "", err
	}
	defer func() { _ = l.Close() }()
	_, port, err = net.SplitHostPort(l.Addr().String())
	return l.Addr().String(), port, err
}

// ourConfig is what jpki-status is told. Answers are valid for an hour: within five minutes all would be signed anew during
// whichever measurement is under way then, as if that second were the only one of those minutes.
const ourConfig = `listen: %s
admin: %s
prefix: %s
snapshot: %s
accept_trial: true
delegates:
  - issuer: %s
    issuer_certificate: %s
    certificate: %s
    key: file:%s
validity: 1h
memory: %d
`

// ours starts jpki-status on a snapshot, with so many MiB for answers, and with Redis if an address is given.
func (b *bench) ours(ctx context.Context, name, snapshot string, memory int, redis string) (*server, error) {
	address, _, err := freeAddress(ctx)
	if err != nil {
		return nil, err
	}
	admin, _, err := freeAddress(ctx)
	if err != nil {
		return nil, err
	}
	s := &server{address: address, path: prefix, admin: admin}
	mine := filepath.Join(b.dir, name+".snapshot") // each process has a file of its own
	if err := os.Link(snapshot, mine); err != nil {
		return nil, err
	}
	text := fmt.Sprintf(ourConfig, address, admin, prefix, mine, generation, issuerFile, delegateFile, keyFile, memory)
	if redis != "" {
		if err := os.WriteFile(filepath.Join(b.dir, "secret"), []byte(strings.Repeat("s", 32)), 0o600); err != nil {
			return nil, err
		}
		text += "redis:\n  addresses: [" + redis + "]\n  secret_file: secret\n"
	}
	config := filepath.Join(b.dir, name+".yaml")
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	args := []string{"-config", config}
	if b.profile != "" {
		args = append(args, "-cpuprofile", b.profile+"."+name)
	}
	begin := time.Now()
	pid, stop, err := b.start(ctx, name, b.status, args...)
	if err != nil {
		return nil, err
	}
	b.atEnd(stop)
	s.pids = []int{pid}
	err = b.await(ctx, name, 5*time.Minute, func() error {
		_, err := get(ctx, "http://"+admin+"/readyz")
		return err
	})
	s.ready = time.Since(begin)
	return s, err
}

func get(ctx context.Context, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	var text strings.Builder
	if err := resp.Write(&text); err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", errors.New(resp.Status)
	}
	return text.String(), nil
}

// sources asks a server of ours where its answers came from, and how many requests were refused.
func (s *server) sources(ctx context.Context) (map[string]float64, error) {
	text, err := get(ctx, "http://"+s.admin+"/metrics")
	if err != nil {
		return nil, err
	}
	out := map[string]float64{}
	for line := range strings.Lines(text) {
		for _, name := range []string{"jpki_ocsp_sources_total", "jpki_ocsp_responses_total"} {
			rest, ok := strings.CutPrefix(line, name+`{outcome="`)
			label, value, ok2 := strings.Cut(rest, `"} `)
			if !ok || !ok2 {
				continue
			}
			if out[label], err = strconv.ParseFloat(strings.TrimSpace(value), 64); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

const peerNginx = `daemon off; pid nginx.pid; worker_processes 1; %s
events { worker_connections 4096; use epoll; }
http { access_log off; keepalive_requests 100000000; default_type application/ocsp-response; etag off; sendfile on; tcp_nodelay on;
 open_file_cache max=100 inactive=600s; open_file_cache_valid 600s;
 client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
 add_header Cache-Control "max-age=60, public, no-transform, must-revalidate";
 server { listen %s; location / { return 200 "%s"; } }
 server { listen %s; root %s; location / { rewrite ^ /answer break; } } }
`

// startNginxes starts one nginx that answers from memory and from a file, with as many octets as we do.
func (b *bench) startNginxes(ctx context.Context, length int) error {
	program, err := exec.LookPath("nginx")
	if err != nil {
		if program, err = exec.LookPath("/usr/sbin/nginx"); err != nil {
			return errors.New("nginx is not installed (deploy/test/install-bench.sh)")
		}
	}
	memory, _, err := freeAddress(ctx)
	if err != nil {
		return err
	}
	file, _, err := freeAddress(ctx)
	if err != nil {
		return err
	}
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;"
	}
	body := strings.Repeat("0123456789abcdef", length/16+1)[:length]
	conf := filepath.Join(b.dir, "nginx.conf")
	if err := errors.Join(os.WriteFile(conf, fmt.Appendf(nil, peerNginx, user, memory, body, file, b.dir), 0o600),
		os.WriteFile(filepath.Join(b.dir, "answer"), []byte(body), 0o600)); err != nil {
		return err
	}
	s := server{address: memory, path: prefix}
	if err := b.serve(ctx, "nginx", &s, program, "-p", b.dir, "-c", conf, "-e", filepath.Join(b.dir, "nginx.log")); err != nil {
		return err
	}
	b.nginxMemory, b.nginxFile = &s, &server{address: file, path: prefix, pids: s.pids}
	return nil
}

// startRedis starts a Redis that keeps nothing on disk.
func (b *bench) startRedis(ctx context.Context) (*server, error) {
	address, port, err := freeAddress(ctx)
	if err != nil {
		return nil, err
	}
	s := &server{address: address}
	return s, b.serve(ctx, "redis", s, "redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", b.dir)
}

// startCFSSL starts cfssl ocspserve with our answers in a file.
func (b *bench) startCFSSL(ctx context.Context, program string, answers [][]byte) (*server, error) {
	var text []byte
	for _, a := range answers {
		text = append(base64.StdEncoding.AppendEncode(text, a), '\n')
	}
	file := filepath.Join(b.dir, "responses")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return nil, err
	}
	address, port, err := freeAddress(ctx)
	if err != nil {
		return nil, err
	}
	s := &server{address: address}
	const warnings = 2
	return s, b.serve(ctx, "cfssl", s, program, "ocspserve", "-address", "127.0.0.1", "-port", port, "-responses", file, "-loglevel", strconv.Itoa(warnings))
}

// writeIndex writes what "openssl ocsp" reads: state, expiry, revocation, serial, file, subject.
func (b *bench) writeIndex(s *set) error {
	var text []byte
	for _, q := range s.questions {
		state, revoked := "V", ""
		if q.revoked {
			state, revoked = "R", "260101000000Z"
		}
		text = fmt.Appendf(text, "%s\t360101000000Z\t%s\t%X\tunknown\t/CN=%[3]X\n", state, revoked, q.serial.Append(nil))
	}
	return os.WriteFile(filepath.Join(b.dir, "index.txt"), text, 0o600)
}

// startOpenSSL starts "openssl ocsp" with two children. A connection that is opened and closed without a word blocks a child for
// good, so nothing may knock: not we, who look into the kernel's table instead, and not wrk, which tries an address before it begins.
func (b *bench) startOpenSSL(ctx context.Context) (s *server, stop func() error, err error) {
	address, port, err := freeAddress(ctx)
	if err != nil {
		return nil, nil, err
	}
	pid, stop, err := b.start(ctx, "openssl", "openssl", "ocsp", "-multi", "2", "-port", port, "-index", "index.txt", "-CA", issuerFile,
		"-rsigner", delegateFile, "-rkey", keyFile, "-nmin", "60")
	if err != nil {
		return nil, nil, err
	}
	end := stop
	stop = func() error {
		_ = syscall.Kill(-pid, syscall.SIGKILL) // it leads a group, and its children do not always go with it
		return end()
	}
	s = &server{address: address, pids: []int{pid}}
	err = b.await(ctx, "openssl", 20*time.Second, func() error {
		if n := childrenOf(pid); n != 2 {
			return fmt.Errorf("it has %d children", n)
		}
		return listening(address)
	})
	return s, stop, err
}

// listening looks into the kernel's table whether somebody listens at a port.
func listening(address string) error {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return err
	}
	const listens = "0A"
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		text, _ := os.ReadFile(table)
		for line := range strings.Lines(string(text)) {
			if f := strings.Fields(line); len(f) > 3 && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", n)) && f[3] == listens {
				return nil
			}
		}
	}
	return errors.New("nobody listens")
}

// childrenOf counts a process's children.
func childrenOf(pid int) int {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", pid))
	return len(strings.Fields(string(text)))
}
