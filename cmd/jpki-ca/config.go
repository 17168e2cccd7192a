package main

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/cmd/internal/boot"
	"github.com/openjpki/jpki/cmd/internal/trace"
	"github.com/openjpki/jpki/hsm"
)

// A config is what the file says; example.yaml explains each field.
type config struct {
	Listen     string        `yaml:"listen"`
	Admin      string        `yaml:"admin"`
	Database   string        `yaml:"database"`
	AcceptLoss bool          `yaml:"accept_loss"`
	Profile    string        `yaml:"profile"`
	StatusURL  string        `yaml:"status_url"`
	Keys       keys          `yaml:"keys"`
	Server     identity      `yaml:"server"`
	StationsCA string        `yaml:"stations_ca"`
	Audit      auditFiles    `yaml:"audit"`
	Publish    string        `yaml:"publish"`
	Bucket     *bucketAt     `yaml:"bucket"`
	Enrolment  *enrolment    `yaml:"enrolment"`
	Relying    *relying      `yaml:"relying"`
	Traces     *trace.Config `yaml:"traces"`

	dir     boot.Dir
	profile *ca.Profile
	tracer  *trace.Tracer // of a server
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
	Snapshots   string `yaml:"snapshot_prefix"`
	Credentials string `yaml:"credentials"`
}

type enrolment struct {
	Certificate  string        `yaml:"certificate"`
	Key          string        `yaml:"key"` // URI
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

// readConfig reads a file strictly: an unknown field is an error.
func readConfig(path string) (*config, error) {
	c := &config{Listen: "127.0.0.1:8443", Admin: "127.0.0.1:8444"}
	var err error
	if c.dir, err = boot.ReadConfig(path, c); err != nil {
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
	if err := errors.Join(c.Relying.validate(), c.Traces.Validate()); err != nil {
		wrong = append(wrong, err)
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

func (c *config) path(p string) string                               { return c.dir.Path(p) }
func (c *config) read(p string) ([]byte, error)                      { return c.dir.Read(p) }
func (c *config) certificate(p string) (*x509.Certificate, error)    { return c.dir.Certificate(p) }
func (c *config) certificates(p string) ([]*x509.Certificate, error) { return c.dir.Certificates(p) }
func (c *config) pool(p string) (*x509.CertPool, error)              { return c.dir.Pool(p) }

// key opens a key; the path of a file is relative to the configuration's.
func (c *config) key(ctx context.Context, uri string) (crypto.Signer, error) {
	return hsm.Open(ctx, c.dir.KeyURI(uri))
}

// issuingKey opens a generation's key for issuing certificates.
func (c *config) issuingKey(ctx context.Context, id jpki.IssuerID) (crypto.Signer, error) {
	key, err := c.keyFor(ctx, "", id)
	if err != nil {
		return nil, err
	}
	return c.tracer.Key("certificate", key), nil
}

// keyFor opens a generation's key for another use, whose template may be empty.
func (c *config) keyFor(ctx context.Context, template string, id jpki.IssuerID) (crypto.Signer, error) {
	if template == "" {
		template = c.Keys.Certificates
	}
	return c.key(ctx, strings.Replace(template, "{}", id.String(), 1))
}

// tlsConfig asks clients for certificates and leaves it to the APIs who is admitted: holders have none.
func (c *config) tlsConfig(ctx context.Context) (*tls.Config, error) {
	key, err := c.key(ctx, c.Server.Key)
	if err != nil {
		return nil, fmt.Errorf("server.key: %w", err)
	}
	return c.dir.ServerTLS(c.Server.Certificate, key)
}

// auditKey reads the key that signs checkpoints, from a file that only its owner may read.
func (c *config) auditKey() (ed25519.PrivateKey, error) {
	text, err := c.dir.Secret(c.Audit.Key)
	if err != nil {
		return nil, err
	}
	seed, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("%s is not %d octets in base64", c.Audit.Key, ed25519.SeedSize)
	}
	return ed25519.NewKeyFromSeed(seed), nil
}
