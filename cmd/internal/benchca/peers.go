package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

// Names and versions of the peers as the table calls them; deploy/test/bench-peers.sh builds them.
const (
	stepCA = "step-ca v0.30.2"
	cfssl  = "cfssl v1.6.5 + PostgreSQL"
)

// A peer is another certification authority under the same load. One request brings one certificate, over whose key it
// checks the same kind of proof of possession.
type peer struct {
	server
	name, key string
	body      func(name, request string) (path string, body any, err error)
}

// peerRequests is how many requests are made for the peers; they certify the same key again and again without a word.
const peerRequests = 3000

// A plea is a request for a name, PEM.
type plea struct{ name, request string }

func makePleas(ring *keyring) ([]plea, error) {
	out := make([]plea, peerRequests)
	for i := range out {
		name := fmt.Sprintf("card-%d.example", i)
		der, err := ring.request(&x509.CertificateRequest{Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}})
		if err != nil {
			return nil, err
		}
		out[i] = plea{name, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))}
	}
	return out, nil
}

// issueByPeer loads a peer.
func (b *bench) issueByPeer(ctx context.Context, p *peer, row row) error {
	requests := make([][]byte, len(b.pleas))
	for i, plea := range b.pleas {
		path, body, err := p.body(plea.name, plea.request)
		if err != nil {
			return err
		}
		text, err := json.Marshal(body)
		if err != nil {
			return err
		}
		requests[i] = p.post(path, "", text)
	}
	return b.measure(row, nil, func() (sample, error) { return p.load(ctx, requests, row.clients, 1, b.peerTime) })
}

// startPeers starts each peer with an issuing key of each kind.
func (b *bench) startPeers(ctx context.Context, programs string) (err error) {
	if b.pleas, err = makePleas(b.ring); err != nil {
		return err
	}
	for _, kind := range []string{rsa2048, p256} {
		for _, start := range []func(ctx context.Context, programs, dir, kind string) (*peer, error){b.startStepCA, b.startCFSSL} {
			p, err := start(ctx, programs, b.dir, kind)
			if err != nil {
				return err
			}
			b.peers = append(b.peers, p)
		}
	}
	return nil
}

// start runs a peer's server and waits until it takes connections. What it says goes to a file of its own.
func (b *bench) start(ctx context.Context, name string, s *server, program string, args ...string) error {
	log, err := os.Create(filepath.Join(b.dir, name+".log"))
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	cmd := exec.CommandContext(ctx, program, args...) //nolint:gosec // a peer that our script has built
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	s.pid = cmd.Process.Pid
	b.atEnd(stopServer(cmd))
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		c, err := s.dial(ctx)
		if err == nil {
			c.close()
			return nil
		}
		if ctx.Err() != nil || time.Now().After(deadline) {
			said, _ := os.ReadFile(log.Name())
			return fmt.Errorf("%s does not answer: %w; it said: %s", name, err, said[max(0, len(said)-500):])
		}
	}
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

// A peerCA is the certificates that a peer issues under, in files.
type peerCA struct{ root, issuing, key string }

func newPeerCA(dir, kind string) (*peerCA, error) {
	rootKey, err := newKey(kind)
	if err != nil {
		return nil, err
	}
	key, err := newKey(kind)
	if err != nil {
		return nil, err
	}
	template := func(serial int64, name string) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(10, 0, 0),
			IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		}
	}
	top := template(1, "Root of a peer")
	root, err := x509.CreateCertificate(rand.Reader, top, top, rootKey.Public(), rootKey)
	if err != nil {
		return nil, err
	}
	issuing, err := x509.CreateCertificate(rand.Reader, template(2, "Issuing CA of a peer"), top, key.Public(), rootKey)
	if err != nil {
		return nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	out := &peerCA{filepath.Join(dir, "root.crt"), filepath.Join(dir, "issuing.crt"), filepath.Join(dir, "issuing.key")}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	for path, block := range map[string]*pem.Block{
		out.root: {Type: "CERTIFICATE", Bytes: root}, out.issuing: {Type: "CERTIFICATE", Bytes: issuing}, out.key: {Type: "PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func writeJSON(path string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o600)
}

// startStepCA starts step-ca as its own set-up leaves it: badger beside it, a JWK provisioner whose tokens are good for one
// certificate each, TLS.
func (b *bench) startStepCA(ctx context.Context, programs, dir, kind string) (*peer, error) {
	name := "step-ca-" + kind
	dir = filepath.Join(dir, name)
	files, err := newPeerCA(dir, kind)
	if err != nil {
		return nil, err
	}
	key, err := newKey(p256)
	if err != nil {
		return nil, err
	}
	provisioner := &tokenMaker{key: key}
	address, port, err := freeAddress(ctx)
	if err != nil {
		return nil, err
	}
	jwk, err := provisioner.jwk()
	if err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "ca.json")
	if err := writeJSON(config, map[string]any{
		"root": files.root, "crt": files.issuing, "key": files.key, "address": address, "dnsNames": []string{"127.0.0.1"},
		"db":        map[string]any{"type": "badgerv2", "dataSource": filepath.Join(dir, "db")},
		"authority": map[string]any{"provisioners": []any{map[string]any{"type": "JWK", "name": provisionerName, "key": jwk}}},
	}); err != nil {
		return nil, err
	}
	p := &peer{server: server{address: address}, name: stepCA, key: kind}
	root, err := os.ReadFile(files.root)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(root)
	p.tls = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	p.body = func(name, request string) (string, any, error) {
		token, err := provisioner.token("https://127.0.0.1:"+port+"/1.0/sign", name)
		return "/1.0/sign", map[string]string{"csr": request, "ott": token}, err
	}
	return p, b.start(ctx, name, &p.server, filepath.Join(programs, "step-ca"), config)
}

const provisionerName = "bench"

// A tokenMaker is a provisioner: it signs the tokens (RFC 7519, ES256) against which step-ca certifies.
type tokenMaker struct{ key crypto.Signer }

// jwk is the provisioner's public key (RFC 7517).
func (m *tokenMaker) jwk() (map[string]string, error) {
	public, ok := m.key.Public().(*ecdsa.PublicKey)
	if !ok {
		return nil, errors.New("a provisioner's key is on P-256")
	}
	point, err := public.Bytes()
	if err != nil {
		return nil, err
	}
	x, y := point[1:33], point[33:]
	return map[string]string{"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": provisionerName, "x": base64.RawURLEncoding.EncodeToString(x), "y": base64.RawURLEncoding.EncodeToString(y)}, nil
}

func (m *tokenMaker) token(audience, subject string) (string, error) {
	now := time.Now()
	var parts string
	for _, v := range []any{
		map[string]string{"alg": "ES256", "typ": "JWT", "kid": provisionerName},
		map[string]any{
			"iss": provisionerName, "aud": audience, "sub": subject, "sans": []string{subject}, "jti": rand.Text(),
			"iat": now.Unix(), "nbf": now.Add(-time.Minute).Unix(), "exp": now.Add(5 * time.Minute).Unix(),
		},
	} {
		text, err := json.Marshal(v)
		if err != nil {
			return "", err
		}
		parts += "." + base64.RawURLEncoding.EncodeToString(text)
	}
	parts = parts[1:]
	digest := sha256.Sum256([]byte(parts))
	key, ok := m.key.(*ecdsa.PrivateKey)
	if !ok {
		return "", errors.New("a provisioner's key is on P-256")
	}
	r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
	if err != nil {
		return "", err
	}
	signature := make([]byte, 64) // r and s side by side (RFC 7518 §3.4)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return parts + "." + base64.RawURLEncoding.EncodeToString(signature), nil
}

// startCFSSL starts cfssl serve with its certificate database in PostgreSQL, over plain HTTP, its default.
func (b *bench) startCFSSL(ctx context.Context, programs, dir, kind string) (*peer, error) {
	name := "cfssl-" + kind
	dir = filepath.Join(dir, name)
	files, err := newPeerCA(dir, kind)
	if err != nil {
		return nil, err
	}
	url, err := b.newDatabase(ctx, name)
	if err != nil {
		return nil, err
	}
	schema, err := os.ReadFile(filepath.Join(programs, "cfssl.sql"))
	if err != nil {
		return nil, err
	}
	db, err := sql.Open("pgx", url)
	if err != nil {
		return nil, err
	}
	defer func() { _ = db.Close() }()
	if _, err := db.ExecContext(ctx, string(schema)); err != nil {
		return nil, fmt.Errorf("make cfssl's tables: %w", err)
	}
	config, database := filepath.Join(dir, "config.json"), filepath.Join(dir, "db.json")
	if err := errors.Join(
		writeJSON(config, map[string]any{"signing": map[string]any{"default": map[string]any{"expiry": "43800h", "usages": []string{"digital signature", "client auth"}}}}),
		writeJSON(database, map[string]string{"driver": "postgres", "data_source": url})); err != nil {
		return nil, err
	}
	address, port, err := freeAddress(ctx)
	if err != nil {
		return nil, err
	}
	p := &peer{server: server{address: address}, name: cfssl, key: kind}
	p.body = func(name, request string) (string, any, error) {
		return "/api/v1/cfssl/sign", map[string]any{"certificate_request": request, "hosts": []string{name}}, nil
	}
	const warnings = 2
	return p, b.start(ctx, name, &p.server, filepath.Join(programs, "cfssl"), "serve", "-address", "127.0.0.1", "-port", port, "-loglevel", strconv.Itoa(warnings),
		"-ca", files.issuing, "-ca-key", files.key, "-config", config, "-db-config", database)
}
