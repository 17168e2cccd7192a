package main

import (
	"bufio"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/pprof"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ocsp"
	"github.com/openjpki/jpki/ocsp/front"
)

const (
	head   = "Content-Type: application/ocsp-response\r\nCache-Control: max-age=60, public, no-transform, must-revalidate\r\n"
	prefix = "/ocsp"
)

var answer = []byte(strings.Repeat("0123456789abcdef", 32)) // 512 octets that a configuration file can hold

// requests are a thousand different OCSP requests, the same in every process.
func requests() ([][]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, SubjectKeyId: []byte{1},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	issuer, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	out := make([][]byte, 1000)
	for i := range out {
		number := make([]byte, 16)
		number[0] = 0x5a
		binary.BigEndian.PutUint64(number[8:], uint64(i)*0x9e3779b97f4a7c15)
		serial, err := jpki.SerialFromBytes(number)
		if err != nil {
			return nil, err
		}
		q, err := ocsp.NewRequest(issuer, crypto.SHA1, nil, serial)
		if err != nil {
			return nil, err
		}
		// The issuer differs in each process, which the front does not look at: the serial is what is looked up.
		if out[i], err = q.Marshal(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// table answers a request by its last octets, the serial number.
type table map[string]*ocsp.Reply

func newTable() (table, error) {
	rs, err := requests()
	if err != nil {
		return nil, err
	}
	t := table{}
	for _, r := range rs {
		t[string(r[len(r)-16:])] = &ocsp.Reply{Code: http.StatusOK, Head: []byte(head), Body: answer}
	}
	return t, nil
}

func (t table) Exchange(_ context.Context, q *ocsp.Query) ocsp.Reply {
	if len(q.Request) > 16 {
		if r := t[string(q.Request[len(q.Request)-16:])]; r != nil {
			return *r
		}
	}
	return ocsp.Reply{Code: http.StatusNotFound}
}

// serve is a front's process. It prints its address and ends with its standard input.
func serve(ctx context.Context, name, profile string) error {
	t, err := newTable()
	if err != nil {
		return err
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	if profile != "" && name == "front" {
		f, err := os.Create(profile)
		if err != nil {
			return err
		}
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	f, err := front.New(front.Config{Exchanger: t, Now: time.Now, Log: slog.New(slog.DiscardHandler), Prefix: prefix})
	if err != nil {
		return err
	}
	failed := make(chan error, 1)
	switch name {
	case "front":
		go func() { failed <- f.Serve(l) }()
	case "handler": // the same over net/http
		go func() { failed <- (&http.Server{Handler: f, ReadHeaderTimeout: 10 * time.Second}).Serve(l) }()
	case "nethttp":
		go func() {
			failed <- (&http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(bare)}).Serve(l)
		}()
	case "fasthttp":
		go func() {
			failed <- (&fasthttp.Server{
				Handler: fast(t), NoDefaultServerHeader: true, DisablePreParseMultipartForm: true,
				ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: time.Minute,
			}).Serve(l)
		}()
	default:
		return errors.New("there is no such front")
	}
	fmt.Println(l.Addr())
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(ended)
	}()
	select {
	case err := <-failed:
		return err
	case <-ended:
		return nil
	}
}

// bare is what net/http itself costs.
func bare(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	h := w.Header()
	h["Content-Type"] = []string{"application/ocsp-response"}
	h["Cache-Control"] = []string{"max-age=60, public, no-transform, must-revalidate"}
	h["Content-Length"] = []string{strconv.Itoa(len(answer))}
	_, _ = w.Write(answer)
}

func fast(t table) fasthttp.RequestHandler {
	return func(ctx *fasthttp.RequestCtx) {
		var q ocsp.Query
		if ctx.IsPost() {
			q.Request = ctx.PostBody()
		} else if path, ok := strings.CutPrefix(string(ctx.RequestURI()), prefix); ok {
			q.GET = true
			q.Request, _ = ocsp.DecodeGET([]byte(path), nil)
		}
		reply := t.Exchange(ctx, &q)
		ctx.SetStatusCode(reply.Code)
		ctx.Response.Header.SetContentType("application/ocsp-response")
		ctx.Response.Header.Set("Cache-Control", "max-age=60, public, no-transform, must-revalidate")
		ctx.Response.SetBodyRaw(reply.Body)
	}
}

// A target is a server that runs.
type target struct {
	name, address string
	pid           int
	stop          func()
}

func startTarget(ctx context.Context, name, dir, profile string) (*target, error) {
	if name == "nginx" {
		return startNginx(ctx, dir)
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := pinned(ctx, 0, self, "fronts", "-serve", name, "-cpuprofile", profile)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	t := &target{name: name, address: strings.TrimSpace(line), pid: cmd.Process.Pid, stop: func() { in.Close(); _ = cmd.Wait() }}
	if err != nil {
		t.stop()
		return nil, err
	}
	return t, nil
}

const nginxConf = `daemon off; pid nginx.pid; error_log error.log crit; worker_processes 1; %s
events { worker_connections 4096; }
http { access_log off; keepalive_requests 100000000; default_type application/ocsp-response; client_body_temp_path body;
 proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
 add_header Cache-Control "max-age=60, public, no-transform, must-revalidate";
 server { listen 127.0.0.1:%s; location / { return 200 "%s"; } } }
`

func startNginx(ctx context.Context, dir string) (*target, error) {
	path, err := exec.LookPath("nginx")
	if err != nil {
		if path, err = exec.LookPath("/usr/sbin/nginx"); err != nil {
			return nil, errors.New("nginx is not installed (Debian: nginx-light)")
		}
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	address := l.Addr().String()
	_ = l.Close()
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;"
	}
	conf := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, nginxConf, user, port, answer), 0o600); err != nil {
		return nil, err
	}
	cmd := pinned(ctx, 0, path, "-p", dir, "-c", conf, "-e", filepath.Join(dir, "error.log"))
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	t := &target{name: "nginx", address: address, pid: cmd.Process.Pid, stop: func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	}}
	for range 100 {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err == nil {
			c.Close()
			return t, nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.stop()
	return nil, errors.New("nginx does not answer")
}
