package main

import (
	"bufio"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime/pprof"
	"strings"
	"syscall"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/api"
	"github.com/openjpki/jpki/ca/ceremony"
	"github.com/openjpki/jpki/ca/client"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/cmd/internal/boot"
)

// A welcome is what an authority's server process tells on its standard output once it serves.
type welcome struct {
	Address string // of the API
	Admin   string // of health and metrics
	Root    []byte // certifies the server
	Issuing []byte // the CA key, PKCS #8, for the bare signature
	Counter credentials
	Feeder  credentials // of the register
}

type credentials struct{ Certificate, Key []byte }

func (c credentials) tls(root []byte) (*tls.Config, error) {
	ca, err := x509.ParseCertificate(root)
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(c.Key)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	return &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{{Certificate: [][]byte{c.Certificate}, PrivateKey: key}}, MinVersion: tls.VersionTLS12, ServerName: "127.0.0.1"}, nil
}

// serve is the authority as a server process of its own, until standard input ends. The limits of one station do not
// hold, for one stands for all here; everything else is as the sandbox has it.
func serve(ctx context.Context, url, kind, profile string) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	if profile != "" {
		end, err := startProfile(profile)
		if err != nil {
			return err
		}
		defer end()
	}
	db, err := store.Create(ctx, url)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	key, err := newKey(kind)
	if err != nil {
		return err
	}
	issuers, err := newIssuers(ctx, db, key, 1)
	if err != nil {
		return err
	}
	hello, root, server, err := newInfrastructure()
	if err != nil {
		return err
	}
	if hello.Issuing, err = x509.MarshalPKCS8PrivateKey(key); err != nil {
		return err
	}
	stations := x509.NewCertPool()
	stations.AddCert(root)
	a, err := newAuthority(db, issuers, stations)
	if err != nil {
		return err
	}
	for actor, c := range map[jpki.Actor]credentials{counter: hello.Counter, register: hello.Feeder} {
		cert, err := x509.ParseCertificate(c.Certificate)
		if err != nil {
			return err
		}
		if err := a.Enrol(ctx, jpki.Actor{Role: jpki.System, ID: "bench"}, actor, cert); err != nil {
			return err
		}
	}
	admission, err := ca.NewAdmission(ca.AdmissionConfig{Now: time.Now, Rate: 1e6, Burst: 1e6})
	if err != nil {
		return err
	}
	nowhere, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { _ = nowhere.Close() }()
	log := slog.New(slog.NewJSONHandler(nowhere, nil)) // written as ever, and paid for
	handler, err := api.New(api.Config{Authority: a, NewID: rand.Text, Now: time.Now, Log: log, Admission: admission})
	if err != nil {
		return err
	}
	services := []boot.Service{
		{Name: "authority", Handler: handler, TLS: &tls.Config{Certificates: []tls.Certificate{server}, ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS12}},
		{Name: "admin", Handler: boot.Admin(func() error { return nil })},
	}
	for i, address := range []*string{&hello.Address, &hello.Admin} {
		if services[i].Listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0"); err != nil {
			return err
		}
		*address = services[i].Listener.Addr().String()
	}
	if err := json.NewEncoder(os.Stdout).Encode(hello); err != nil {
		return err
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	return boot.Run(ctx, log, services)
}

// newInfrastructure makes what certifies server and stations, and their certificates.
func newInfrastructure() (w welcome, root *x509.Certificate, server tls.Certificate, err error) {
	rootKey, err := newKey(p256)
	if err != nil {
		return w, nil, server, err
	}
	serial, err := jpki.NewSerial(rand.Reader)
	if err != nil {
		return w, nil, server, err
	}
	if root, err = ceremony.NewInfrastructure(rootKey, serial, time.Now()); err != nil {
		return w, nil, server, err
	}
	signer, err := ceremony.NewSigner(root, rootKey, time.Now)
	if err != nil {
		return w, nil, server, err
	}
	w.Root = root.Raw
	for actor, c := range map[jpki.Actor]*credentials{counter: &w.Counter, register: &w.Feeder} {
		if *c, err = newCredentials(func(key crypto.Signer) (*x509.Certificate, error) { return signer.Station(key, actor.ID) }); err != nil {
			return w, nil, server, err
		}
	}
	serverKey, err := newKey(p256)
	if err != nil {
		return w, nil, server, err
	}
	cert, err := signer.Server(serverKey, "authority", "127.0.0.1")
	if err != nil {
		return w, nil, server, err
	}
	return w, root, tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: serverKey, Leaf: cert}, nil
}

func newCredentials(certify func(crypto.Signer) (*x509.Certificate, error)) (c credentials, err error) {
	key, err := newKey(p256)
	if err != nil {
		return c, err
	}
	cert, err := certify(key)
	if err != nil {
		return c, err
	}
	c.Certificate = cert.Raw
	c.Key, err = x509.MarshalPKCS8PrivateKey(key)
	return c, err
}

func startProfile(path string) (end func(), err error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { pprof.StopCPUProfile(); _ = f.Close() }, nil
}

// An authority is our server process as its clients see it.
type authority struct {
	server
	admin    string
	key      crypto.Signer
	register *client.Client
}

// startAuthority starts a server process of this very program with a CA key of a kind.
func (b *bench) startAuthority(ctx context.Context, url, kind string) (*authority, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args := []string{"serve", "-db", url, "-key", kind}
	if b.profile != "" {
		args = append(args, "-cpuprofile", b.profile+".server-"+kind)
	}
	cmd := exec.CommandContext(ctx, self, args...) //nolint:gosec // this very program
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
		return nil, fmt.Errorf("start the authority: %w", err)
	}
	b.atEnd(func() error { return errors.Join(in.Close(), cmd.Wait()) })
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		return nil, fmt.Errorf("the authority did not start: %w", err)
	}
	var w welcome
	if err := json.Unmarshal(line, &w); err != nil {
		return nil, err
	}
	a := &authority{server: server{address: w.Address, pid: cmd.Process.Pid}, admin: w.Admin}
	if a.tls, err = w.Counter.tls(w.Root); err != nil {
		return nil, err
	}
	feeder, err := w.Feeder.tls(w.Root)
	if err != nil {
		return nil, err
	}
	a.register = client.New("https://"+w.Address, feeder)
	key, err := x509.ParsePKCS8PrivateKey(w.Issuing)
	if err != nil {
		return nil, err
	}
	var ok bool
	if a.key, ok = key.(crypto.Signer); !ok {
		return nil, fmt.Errorf("a CA key is a %T", key)
	}
	return a, nil
}

// stopServer returns what ends a peer's process.
func stopServer(cmd *exec.Cmd) func() error {
	return func() error {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil && !strings.HasPrefix(err.Error(), "signal:") && !strings.HasPrefix(err.Error(), "exit status") {
			return err
		}
		return nil
	}
}

// orders registers the holders of n new cards and encodes what a station orders for them: both certificates of a card
// with one request, or the first so many kinds.
func (a *authority) orders(ctx context.Context, cards []card, kinds []int) ([][]byte, error) {
	err := a.feed(ctx, func(yield func(jpki.Event) bool) {
		for _, c := range cards {
			if !yield(registered(c.name)) {
				return
			}
		}
	})
	if err != nil {
		return nil, err
	}
	out := make([][]byte, len(cards))
	for i, c := range cards {
		order := client.CertificateOrder{Holder: c.name, Token: c.name}
		for _, k := range kinds {
			order.Requests = append(order.Requests, client.KeyRequest{Kind: cardKinds[k], Request: client.RequestPEM(c.requests[k])})
		}
		body, err := json.Marshal(order)
		if err != nil {
			return nil, err
		}
		out[i] = a.post("/station/v1/certificates", c.name, body)
	}
	return out, nil
}

// feed reports events as the register does at night: many in one request.
func (a *authority) feed(ctx context.Context, events iter.Seq[jpki.Event]) error {
	for r, err := range a.register.Feed(ctx, events) {
		if err := errors.Join(err, r.Err()); err != nil {
			return fmt.Errorf("register event %s: %w", r.ID, err)
		}
	}
	return nil
}

// issueOverHTTP loads the server with the orders of many new cards.
func (b *bench) issueOverHTTP(ctx context.Context, a *authority, row row, kinds []int) error {
	cards, err := makeCards(ctx, b.ring, b.prefix(), b.pairs)
	if err != nil {
		return err
	}
	requests, err := a.orders(ctx, cards, kinds)
	if err != nil {
		return err
	}
	return b.measure(row, a.key, func() (sample, error) { return a.load(ctx, requests, row.clients, len(kinds), patience) })
}

// metric reads one value of the server's metrics.
func (a *authority) metric(ctx context.Context, name string) (value float64, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+a.admin+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			_, err := fmt.Sscan(text, &value)
			return value, err
		}
	}
	return 0, fmt.Errorf("the server has no metric %s", name)
}
