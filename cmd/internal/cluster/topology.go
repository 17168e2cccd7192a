package main

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"golang.org/x/sync/errgroup"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/cmd/internal/softhsm"
)

// A cluster is everything that runs.
type cluster struct {
	nursery
	bin   string // of our programs
	ports struct{ signerAdmin int }

	tokens      softhsm.Store
	generations []jpki.IssuerID
	issuers     map[jpki.CA]*x509.Certificate

	postgres    [2]*postgres // the primary first
	redis       [6]*redis
	signer      *service
	authorities [2]*server
	relays      [2]*server
	responders  [3]*server
	verifier    *server
	token       string // of the verifier's tenant
}

// A server is a process of ours that listens.
type server struct {
	*service
	url    string
	port   int
	admin  int
	faults string // the file that tells it which faults to have; empty for a program that can have none
}

// The tenant who asks the verifier, and the relying party of the authority's feed.
const (
	tenantNumber = jpki.CorporateNumber("5835678256246")
	tenantName   = "aoba-bank"
	municipality = "99101"
)

// marker is the file by which a folder is known as one of ours.
const marker = "CLUSTER"

// newCluster makes the folder, in the place of an earlier cluster's.
func newCluster(dir, bin string, log *slog.Logger) (*cluster, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if bin, err = filepath.Abs(bin); err != nil {
		return nil, err
	}
	if len(dir) > 80 {
		return nil, fmt.Errorf("%s is too long a name: jpki-signer's socket is in it", dir)
	}
	switch left, err := os.ReadDir(dir); {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return nil, err
	case len(left) > 0:
		if _, err := os.Stat(filepath.Join(dir, marker)); err != nil {
			return nil, fmt.Errorf("%s is not empty, and no cluster's", dir)
		}
		if err := os.RemoveAll(dir); err != nil {
			return nil, err
		}
	}
	// PostgreSQL's user has to come through; what is secret is in files that only we may read.
	if err := os.MkdirAll(filepath.Join(dir, "log"), 0o755); err != nil { //nolint:gosec // see above
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, marker), []byte("A cluster's. It is removed when another is started here.\n"), 0o600); err != nil {
		return nil, err
	}
	return &cluster{nursery: nursery{dir: dir, out: log}, bin: bin, issuers: map[jpki.CA]*x509.Certificate{}}, nil
}

func (c *cluster) path(parts ...string) string {
	return filepath.Join(append([]string{c.dir}, parts...)...)
}

func (c *cluster) program(name string) string { return filepath.Join(c.bin, name) }

// build starts everything. Steps:
//  1. secrets, and the infrastructure's certificates
//  2. at the same time: PostgreSQL with a standby, the Redis Cluster, and the keys' ceremonies with jpki-signer
//  3. the authority's database, and who may speak with it
//  4. two jpki-ca, then at the same time relays, status servers and the verifier
func (c *cluster) build(ctx context.Context) error {
	// 1.
	if err := c.makeSecrets(); err != nil {
		return err
	}
	authority, err := newInfrastructure(c.path("infrastructure"))
	if err != nil {
		return err
	}
	for _, i := range identities {
		if err := authority.certify(i.name, i.usage); err != nil {
			return err
		}
	}
	// 2.
	if err := together(ctx, c.addPostgres, c.addRedis, c.holdCeremonies); err != nil {
		return err
	}
	// 3.
	if err := c.foundAuthority(ctx); err != nil {
		return err
	}
	// 4.
	if err := together(ctx, func(ctx context.Context) error { return c.add(ctx, c.authorities[0].service) }, func(ctx context.Context) error { return c.add(ctx, c.authorities[1].service) }); err != nil {
		return err
	}
	return together(ctx, c.addRelays, c.addResponders, c.addVerifier)
}

func together(ctx context.Context, all ...func(context.Context) error) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, f := range all {
		g.Go(func() error { return f(ctx) })
	}
	return g.Wait()
}

// newServer draws ports for a program, writes its configuration and makes it ready to be started.
func (c *cluster) newServer(ctx context.Context, name, program string, args []string, config func(*server) string) (*server, error) {
	s := &server{}
	for _, p := range []*int{&s.port, &s.admin} {
		var err error
		if *p, err = freePort(ctx); err != nil {
			return nil, err
		}
	}
	s.url = "https://" + at(s.port)
	file := c.path(name + ".yaml")
	if err := os.WriteFile(file, []byte(config(s)), 0o600); err != nil {
		return nil, err
	}
	s.service = &service{name: name, program: c.program(program), args: append(args, "-config", file), well: ready(s.admin)}
	return s, nil
}

// database is a database's URL wherever the primary is.
func (c *cluster) database(role, name string) string {
	return databaseURL(role, name, c.postgres[0], c.postgres[1])
}

// redisAddresses is what configurations say about Redis.
func (c *cluster) redisAddresses() string {
	var all []string
	for _, r := range c.redis {
		all = append(all, "'"+at(r.port)+"'")
	}
	return "addresses: [" + strings.Join(all, ", ") + "]\n  cluster: true\n"
}

func (c *cluster) addRelays(ctx context.Context) error {
	for i := range c.relays {
		var err error
		if c.relays[i], err = c.newServer(ctx, fmt.Sprint("relay-", i+1), "jpki", []string{"relay"}, func(s *server) string {
			return fmt.Sprintf("database: %s\nredis:\n  %skey_file: relay.key\nadmin: %s\n", c.database("jpki_status", "jpki"), c.redisAddresses(), at(s.admin))
		}); err != nil {
			return err
		}
		if err := c.add(ctx, c.relays[i].service); err != nil {
			return err
		}
	}
	return nil
}

// addResponders starts the status servers. Should there be a build of the program that has faults in it, the last one is of that: it
// is the same program until its file says otherwise.
func (c *cluster) addResponders(ctx context.Context) error {
	var starts []func(context.Context) error
	for i := range c.responders {
		name := fmt.Sprint("status-", i+1)
		if err := os.Mkdir(c.path(name), 0o700); err != nil {
			return err
		}
		s := c.responders[i]
		var delegates strings.Builder
		for _, g := range c.generations {
			fmt.Fprintf(&delegates, "  - {issuer: %[1]s, issuer_certificate: trust/%[1]s.crt}\n", g)
		}
		text := fmt.Sprintf(`listen: %s
admin: %s
database: %s
bound: 1s
snapshot: %s/statuses
delegates:
%sauthority: {url: "%s", ca: infrastructure/ca.crt, certificate: infrastructure/%s.crt, key: "file:infrastructure/%s.key", folder: %s}
memory: 64
redis:
  %s  secret_file: shelf.secret
  relay_key_file: relay.key
public: public
`, at(s.port), at(s.admin), c.database("jpki_status", "jpki"), name, delegates.String(), c.authorities[i%len(c.authorities)].url, name, name, name, c.redisAddresses())
		file := c.path(name + ".yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return err
		}
		s.service = &service{name: name, program: c.program("jpki-status"), args: []string{"-config", file}, well: ready(s.admin)}
		if program := c.program("jpki-status-faults"); i == len(c.responders)-1 && exists(program) {
			s.faults, s.program = c.path(name+".faults"), program
			if err := os.WriteFile(s.faults, nil, 0o600); err != nil {
				return err
			}
			s.env = []string{"JPKI_FAULTS=" + s.faults}
		}
		starts = append(starts, func(ctx context.Context) error { return c.add(ctx, s.service) })
	}
	return together(ctx, starts...)
}

// addVerifier starts the verifier, which asks the status servers in turn, and admits a tenant.
func (c *cluster) addVerifier(ctx context.Context) (err error) {
	var anchors, sources strings.Builder
	for _, g := range c.generations {
		sum := sha256.Sum256(c.issuers[g.CA].Raw)
		fmt.Fprintf(&anchors, "  - {issuer: %[1]s, certificate: trust/%[1]s.crt, sha256: %[2]q}\n", g, hex.EncodeToString(sum[:]))
	}
	for _, r := range c.responders {
		fmt.Fprintf(&sources, "  - ocsp: {url: %q, timeout: 2s}\n", r.url+"/ocsp")
	}
	if c.verifier, err = c.newServer(ctx, "verifier", "jpki-verifier", nil, func(s *server) string {
		return fmt.Sprintf(`listen: %s
admin: %s
server: {certificate: infrastructure/verifier-server.crt, key: "file:infrastructure/verifier-server.key"}
database: %s
master_key: master.key
anchors:
%spolicies: sandbox
documents: {policy: sandbox-signature-2026}
sources:
%sauthority: {url: "%s", ca: infrastructure/ca.crt, certificate: infrastructure/verifier-1.crt, key: "file:infrastructure/verifier-1.key"}
`, at(s.port), at(s.admin), c.database("jpki_verifier", "verifier"), anchors.String(), sources.String(), c.authorities[0].url)
	}); err != nil {
		return err
	}
	if _, err := command(ctx, c.dir, "", c.program("jpki-verifier"), "-config", "verifier.yaml", "migrate"); err != nil {
		return err
	}
	tenant := []string{"tenant", "-database", c.database("jpki_verifier", "verifier"), "-master-key", "master.key"}
	if _, err := command(ctx, c.dir, "", c.program("jpki"), append(tenant, "add", string(tenantNumber), "-name", tenantName)...); err != nil {
		return err
	}
	if c.token, err = command(ctx, c.dir, "", c.program("jpki"), append(tenant, "token", string(tenantNumber))...); err != nil {
		return err
	}
	return c.add(ctx, c.verifier.service)
}

// describe prints what runs where.
func (c *cluster) describe(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(cells ...string) { fmt.Fprintln(w, strings.Join(cells, "\t")) }
	row("process", "address", "operator's port", "configuration", "log")
	own := func(s *server, address string) {
		row(s.name, address, "http://"+at(s.admin), s.name+".yaml", "log/"+s.name)
	}
	for i, p := range c.postgres {
		row(p.name, at(p.port)+[]string{" (primary)", " (synchronous standby)"}[i], "", p.name+"/data", "log/"+p.name)
	}
	for _, r := range c.redis {
		row(r.name, at(r.port), "", "", "log/"+r.name)
	}
	row(c.signer.name, "hsm/s.sock", "http://"+at(c.ports.signerAdmin), "hsm/signer.yaml", "log/"+c.signer.name)
	for _, s := range c.authorities {
		own(s, s.url)
	}
	for _, s := range c.relays {
		own(s, "")
	}
	for _, s := range c.responders {
		own(s, s.url+"/ocsp")
	}
	own(c.verifier, c.verifier.url)
	_ = w.Flush()
	fmt.Fprintf(out, "\nIn %s: trust/ (the authorities' certificates), infrastructure/ (who speaks with whom over TLS), public/ (CRLs and snapshots).\n", c.dir)
}

func exists(path string) bool { _, err := os.Stat(path); return err == nil }

func readCertificate(path string) (*x509.Certificate, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s: no certificate", path)
	}
	return x509.ParseCertificate(block.Bytes)
}

func readPool(path string) (*x509.CertPool, error) {
	cert, err := readCertificate(path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return pool, nil
}
