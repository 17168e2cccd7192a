package main

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/goccy/go-yaml"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/hsm"
)

// A config is what the file says; example.yaml explains each field.
type config struct {
	Listen     string     `yaml:"listen"`
	Admin      string     `yaml:"admin"`
	Database   string     `yaml:"database"`
	AcceptLoss bool       `yaml:"accept_loss"`
	Profile    string     `yaml:"profile"`
	StatusURL  string     `yaml:"status_url"`
	Keys       keys       `yaml:"keys"`
	Server     identity   `yaml:"server"`
	StationsCA string     `yaml:"stations_ca"`
	Audit      auditFiles `yaml:"audit"`
	Publish    string     `yaml:"publish"`
	Bucket     *bucketAt  `yaml:"bucket"`
	Enrolment  *enrolment `yaml:"enrolment"`

	dir     string // of the file
	profile *ca.Profile
}

// keys are URIs with {} for the generation.
type keys struct {
	Certificates string `yaml:"certificates"`
	Lists        string `yaml:"lists"`
	Responders   string `yaml:"responders"`
	Snapshots    string `yaml:"snapshots"`
}

type identity struct {
	Certificate string `yaml:"certificate"`
	Key         string `yaml:"key"` // URI
}

type auditFiles struct {
	Key         string `yaml:"key"`
	Checkpoints string `yaml:"checkpoints"`
}

type bucketAt struct {
	Endpoint    string `yaml:"endpoint"`
	Region      string `yaml:"region"`
	Name        string `yaml:"name"`
	Prefix      string `yaml:"prefix"`
	Credentials string `yaml:"credentials"`
}

type enrolment struct {
	identity     `yaml:",inline"`
	Listen       string        `yaml:"listen"`
	Hosts        []string      `yaml:"hosts"`
	Provisioners []provisioner `yaml:"provisioners"`
	Stations     []station     `yaml:"stations"`
	URL          string        `yaml:"url"`
	Audience     string        `yaml:"audience"`
	Policies     string        `yaml:"policies"`
	Phones       []attestation `yaml:"phones"`
}

type provisioner struct {
	Name string `yaml:"name"`
	Key  string `yaml:"key"`
}

type station struct {
	Role         jpki.Role `yaml:"role"`
	Name         string    `yaml:"name"`
	Municipality string    `yaml:"municipality"`
	Provisioner  string    `yaml:"provisioner"`
}

type attestation struct {
	Format string `yaml:"format"`
	Roots  string `yaml:"roots"`
}

// readConfig reads a file strictly: an unknown field is an error.
func readConfig(path string) (*config, error) {
	if path == "" {
		return nil, errors.New("-config is required (see -help)")
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	c := &config{Listen: "127.0.0.1:8443", Admin: "127.0.0.1:8444"}
	if err := yaml.UnmarshalWithOptions(text, c, yaml.Strict()); err != nil {
		return nil, fmt.Errorf("%s: %s", path, yaml.FormatError(err, false, false))
	}
	if c.dir, err = filepath.Abs(filepath.Dir(path)); err != nil {
		return nil, err
	}
	if err := c.validate(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// validate reports every mistake that can be seen without opening anything but the profile.
func (c *config) validate() error {
	var wrong []error
	bad := func(yes bool, format string, args ...any) {
		if yes {
			wrong = append(wrong, fmt.Errorf(format, args...))
		}
	}
	for _, f := range []struct{ name, value string }{
		{"database", c.Database},
		{"profile", c.Profile},
		{"status_url", c.StatusURL},
		{"keys.certificates", c.Keys.Certificates},
		{"server.certificate", c.Server.Certificate},
		{"server.key", c.Server.Key},
		{"stations_ca", c.StationsCA},
		{"audit.key", c.Audit.Key},
		{"audit.checkpoints", c.Audit.Checkpoints},
		{"publish", c.Publish},
	} {
		bad(f.value == "", "%s is required", f.name)
	}
	for _, k := range []string{c.Keys.Certificates, c.Keys.Lists, c.Keys.Responders, c.Keys.Snapshots} {
		bad(k != "" && strings.Count(k, "{}") != 1, "keys: a URI has {} once, where the generation's name belongs")
	}
	u, err := url.Parse(c.StatusURL)
	bad(c.StatusURL != "" && (err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.RawQuery != "" || u.Fragment != "" || strings.HasSuffix(u.Path, "/")),
		"status_url is no http URL without a final slash")
	if c.Database != "" {
		if err := store.CheckPrimary(c.Database); err != nil {
			wrong = append(wrong, err)
		}
	}
	if b := c.Bucket; b != nil {
		bad(b.Endpoint == "" || b.Name == "" || b.Credentials == "", "bucket: endpoint, name and credentials are required")
	}
	if e := c.Enrolment; e != nil {
		bad(e.Listen == "" || e.Certificate == "" || e.Key == "" || len(e.Hosts) == 0, "enrolment: listen, hosts, certificate and key are required")
		bad(len(e.Phones) > 0 && (!strings.HasPrefix(e.URL, "https://") || !strings.HasPrefix(e.Audience, "https://")), "enrolment: with phones, url and audience are required, https")
	}
	if c.Profile != "" {
		if c.profile, err = c.readProfile(); err != nil {
			wrong = append(wrong, fmt.Errorf("profile: %w", err))
		}
	}
	return errors.Join(wrong...)
}

func (c *config) readProfile() (*ca.Profile, error) {
	switch c.Profile {
	case "sandbox":
		return ca.Sandbox(), nil
	case "sandbox-next":
		return ca.SandboxNext(), nil
	}
	text, err := os.ReadFile(c.path(c.Profile))
	if err != nil {
		return nil, err
	}
	return ca.ParseProfile(text)
}

func (c *config) path(p string) string {
	if p == "" || filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(c.dir, p)
}

// key opens a key; the path of a file is relative to the configuration's.
func (c *config) key(ctx context.Context, uri string) (crypto.Signer, error) {
	if p, ok := strings.CutPrefix(uri, "file:"); ok && !strings.HasPrefix(p, "//") {
		uri = hsm.FileURI(c.path(p))
	}
	return hsm.Open(ctx, uri)
}

// issuingKey opens a generation's key for issuing certificates.
func (c *config) issuingKey(ctx context.Context, id jpki.IssuerID) (crypto.Signer, error) {
	return c.keyFor(ctx, "", id)
}

// keyFor opens a generation's key for another use, whose template may be empty.
func (c *config) keyFor(ctx context.Context, template string, id jpki.IssuerID) (crypto.Signer, error) {
	if template == "" {
		template = c.Keys.Certificates
	}
	return c.key(ctx, strings.Replace(template, "{}", id.String(), 1))
}

// maxFile bounds every file that is read whole.
const maxFile = 1 << 20

func (c *config) read(path string) ([]byte, error) {
	f, err := os.Open(c.path(path))
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(text) > maxFile {
		err = fmt.Errorf("%s is larger than %d octets", path, maxFile)
	}
	return text, err
}

// certificates reads one certificate or more, DER or PEM.
func (c *config) certificates(path string) (out []*x509.Certificate, err error) {
	text, err := c.read(path)
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(text)
	if block == nil {
		block = &pem.Block{Type: "CERTIFICATE", Bytes: text}
	}
	for ; block != nil; block, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		out = append(out, cert)
	}
	return out, nil
}

func (c *config) certificate(path string) (*x509.Certificate, error) {
	all, err := c.certificates(path)
	if err != nil {
		return nil, err
	}
	if len(all) != 1 {
		return nil, fmt.Errorf("%s holds %d certificates and should hold one", path, len(all))
	}
	return all[0], nil
}

func (c *config) pool(path string) (*x509.CertPool, error) {
	all, err := c.certificates(path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	for _, cert := range all {
		pool.AddCert(cert)
	}
	return pool, nil
}

// tlsConfig asks clients for certificates and leaves it to the APIs who is admitted: holders have none.
func (c *config) tlsConfig(ctx context.Context) (*tls.Config, error) {
	key, err := c.key(ctx, c.Server.Key)
	if err != nil {
		return nil, fmt.Errorf("server.key: %w", err)
	}
	load := func() (*tls.Certificate, error) {
		chain, err := c.certificates(c.Server.Certificate)
		if err != nil {
			return nil, err
		}
		out := &tls.Certificate{PrivateKey: key, Leaf: chain[0]}
		public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
		if !ok || !public.Equal(chain[0].PublicKey) {
			return nil, errors.New("server: the certificate is of another key")
		}
		for _, cert := range chain {
			out.Certificate = append(out.Certificate, cert.Raw)
		}
		return out, nil
	}
	if _, err := load(); err != nil {
		return nil, err
	}
	return &tls.Config{
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return load() }, ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS12,
	}, nil
}

// auditKey reads the key that signs checkpoints, from a file that only its owner may read.
func (c *config) auditKey() (ed25519.PrivateKey, error) {
	info, err := os.Stat(c.path(c.Audit.Key))
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s may be read by others than its owner", c.Audit.Key)
	}
	text, err := c.read(c.Audit.Key)
	if err != nil {
		return nil, err
	}
	seed, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("%s is not %d octets in base64", c.Audit.Key, ed25519.SeedSize)
	}
	return ed25519.NewKeyFromSeed(seed), nil
}
