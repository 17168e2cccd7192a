package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/hsm"
	"github.com/openjpki/jpki/ocsp"
)

// A config is what the file says; example.yaml explains each field.
type config struct {
	Listen      string        `yaml:"listen"`
	Admin       string        `yaml:"admin"`
	Prefix      string        `yaml:"prefix"`
	Database    string        `yaml:"database"`
	Bound       time.Duration `yaml:"bound"`
	Snapshot    string        `yaml:"snapshot"`
	AcceptTrial bool          `yaml:"accept_trial"` // begin with a snapshot of certificates that were never issued: load tests only
	Delegates   []delegate    `yaml:"delegates"`
	Validity    time.Duration `yaml:"validity"`
	MaxAge      time.Duration `yaml:"max_age"`
	Memory      int64         `yaml:"memory"`
	Redis       *redis        `yaml:"redis"`
	Connections int           `yaml:"connections"`
	PerAddress  int           `yaml:"per_address"`
	Proxies     []string      `yaml:"proxies"`

	dir string // of the file
}

type delegate struct {
	Issuer            string `yaml:"issuer"`
	IssuerCertificate string `yaml:"issuer_certificate"`
	Certificate       string `yaml:"certificate"`
	Key               string `yaml:"key"` // URI
}

type redis struct {
	Addresses    []string `yaml:"addresses"`
	Master       string   `yaml:"master"`
	Cluster      bool     `yaml:"cluster"`
	Username     string   `yaml:"username"`
	PasswordFile string   `yaml:"password_file"`
	SecretFile   string   `yaml:"secret_file"`
	RelayKeyFile string   `yaml:"relay_key_file"`
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
	c := &config{Listen: "127.0.0.1:8080", Admin: "127.0.0.1:8081", Prefix: "/ocsp", Memory: 256}
	if err := yaml.UnmarshalWithOptions(text, c, yaml.Strict()); err != nil {
		return nil, fmt.Errorf("%s: %s", path, yaml.FormatError(err, false, false))
	}
	if c.dir, err = filepath.Abs(filepath.Dir(path)); err != nil {
		return nil, err
	}
	switch {
	case c.Database == "" && !c.AcceptTrial:
		err = errors.New("database is required")
	case len(c.Delegates) == 0:
		err = errors.New("delegates: at least one is required")
	case c.Memory < 0:
		err = errors.New("memory is negative")
	case c.Redis != nil && len(c.Redis.Addresses) == 0:
		err = errors.New("redis.addresses is required")
	case c.Redis != nil && c.Redis.SecretFile == "":
		err = errors.New("redis.secret_file is required: without it anybody who can write to Redis could slow us down")
	case c.AcceptTrial && c.Snapshot == "":
		err = errors.New("accept_trial is for a snapshot, and there is none")
	case strings.HasPrefix(c.Database, "postgres") && strings.Contains(c.Database, ",") && !strings.Contains(c.Database, "target_session_attrs=read-write"):
		err = errors.New("database names several servers without target_session_attrs=read-write: one that lags behind would be believed")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// checkFiles opens what the configuration names, apart from servers.
func (c *config) checkFiles(ctx context.Context) error {
	delegates, err := c.delegates(ctx)
	if err != nil {
		return err
	}
	if _, err := c.proxies(); err != nil {
		return err
	}
	if c.Redis != nil {
		for _, f := range []string{c.Redis.PasswordFile, c.Redis.SecretFile, c.Redis.RelayKeyFile} {
			if _, err := c.secret(f); err != nil {
				return err
			}
		}
	}
	_, err = ocsp.New(ocsp.Config{Delegates: delegates, Statuses: noStatuses{}, Now: time.Now, Prefix: c.Prefix, Validity: c.Validity, MaxAge: c.MaxAge})
	return err
}

func (c *config) path(p string) string {
	if p == "" || filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(c.dir, p)
}

// delegates opens certificates and keys.
func (c *config) delegates(ctx context.Context) ([]ocsp.Delegate, error) {
	var out []ocsp.Delegate
	for i, d := range c.Delegates {
		fail := func(err error) ([]ocsp.Delegate, error) {
			return nil, fmt.Errorf("delegates[%d] (%s): %w", i, d.Issuer, err)
		}
		id, err := jpki.ParseIssuerID(d.Issuer)
		if err != nil {
			return fail(err)
		}
		one := ocsp.Delegate{Issuer: id}
		if one.IssuerCertificate, err = c.certificate(d.IssuerCertificate); err != nil {
			return fail(err)
		}
		if one.Certificate, err = c.certificate(d.Certificate); err != nil {
			return fail(err)
		}
		uri := d.Key
		if p, ok := strings.CutPrefix(uri, "file:"); ok {
			uri = hsm.FileURI(c.path(p))
		}
		if one.Key, err = hsm.Open(ctx, uri); err != nil {
			return fail(err)
		}
		out = append(out, one)
	}
	return out, nil
}

func (c *config) certificate(path string) (*x509.Certificate, error) {
	if path == "" {
		return nil, errors.New("issuer_certificate and certificate are required")
	}
	der, err := os.ReadFile(c.path(path))
	if err != nil {
		return nil, err
	}
	if block, _ := pem.Decode(der); block != nil {
		der = block.Bytes
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return cert, nil
}

// secret reads a file that holds nothing else; nil for no file.
func (c *config) secret(path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	text, err := os.ReadFile(c.path(path))
	if err != nil {
		return nil, err
	}
	return []byte(strings.TrimRight(string(text), "\r\n")), nil
}

func (c *config) proxies() (out []netip.Prefix, err error) {
	for _, p := range c.Proxies {
		prefix, err := netip.ParsePrefix(p)
		if err != nil {
			return nil, fmt.Errorf("proxies: %w", err)
		}
		out = append(out, prefix)
	}
	return out, nil
}

// noStatuses is what a responder has that is made only to check its delegates.
type noStatuses struct{}

func (noStatuses) Status(context.Context, jpki.CertID) (jpki.Status, time.Time, error) {
	return jpki.Status{}, time.Time{}, jpki.Errorf(jpki.Unavailable, "not serving")
}
