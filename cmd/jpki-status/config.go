package main

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/relay"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/cmd/internal/redisconf"
	"github.com/openjpki/jpki/cmd/internal/trace"
	"github.com/openjpki/jpki/hsm"
	"github.com/openjpki/jpki/ocsp"
	"github.com/openjpki/jpki/ocsp/cache"
	"github.com/openjpki/jpki/ocsp/front"
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
	Authority   *authority    `yaml:"authority"`
	Validity    time.Duration `yaml:"validity"`
	MaxAge      time.Duration `yaml:"max_age"`
	Memory      int64         `yaml:"memory"`
	Redis       *redis        `yaml:"redis"`
	Connections int           `yaml:"connections"`
	PerAddress  int           `yaml:"per_address"`
	Proxies     []string      `yaml:"proxies"`
	Public      string        `yaml:"public"`
	Traces      *trace.Config `yaml:"traces"`

	dir    string           // of the file
	now    func() time.Time // see clock
	tracer *trace.Tracer    // of a server
}

type delegate struct {
	Issuer            string `yaml:"issuer"`
	IssuerCertificate string `yaml:"issuer_certificate"`
	Certificate       string `yaml:"certificate"`
	Key               string `yaml:"key"` // URI
}

// An authority certifies the delegates of a server that makes their keys itself.
type authority struct {
	URL         string `yaml:"url"`
	CA          string `yaml:"ca"` // of the authority's server
	Certificate string `yaml:"certificate"`
	Key         string `yaml:"key"` // URI
	Folder      string `yaml:"folder"`
}

type redis struct {
	redisconf.Server `yaml:",inline"`
	SecretFile       string `yaml:"secret_file"`
	RelayKeyFile     string `yaml:"relay_key_file"`
}

// made reports whether this server makes the delegate itself.
func (d delegate) made() bool { return d.Certificate == "" && d.Key == "" }

// readConfig reads a file strictly: an unknown field is an error.
func readConfig(path string) (*config, error) {
	if path == "" {
		return nil, errors.New("-config is required (see -help)")
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	c := &config{Listen: "127.0.0.1:8080", Admin: "127.0.0.1:8081", Prefix: "/ocsp", Memory: 256, now: clock()}
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
	case slices.ContainsFunc(c.Delegates, func(d delegate) bool {
		return d.made() != (c.Authority != nil) || (d.Certificate == "") != (d.Key == "")
	}):
		err = errors.New("delegates: each has a certificate and a key, or with authority none has: then this server makes them")
	case c.Authority != nil && (c.Authority.URL == "" || c.Authority.CA == "" || c.Authority.Certificate == "" || c.Authority.Key == "" || c.Authority.Folder == ""):
		err = errors.New("authority: url, ca, certificate, key and folder are required")
	case c.Authority != nil && !strings.HasPrefix(c.Authority.URL, "https://"):
		err = errors.New("authority.url is no https URL")
	case c.Memory < 0:
		err = errors.New("memory is negative")
	case c.Redis != nil && len(c.Redis.Addresses) == 0:
		err = errors.New("redis.addresses is required")
	case c.Redis != nil && c.Redis.SecretFile == "":
		err = errors.New("redis.secret_file is required: without it anybody who can write to Redis could slow us down")
	case c.AcceptTrial && c.Snapshot == "":
		err = errors.New("accept_trial is for a snapshot, and there is none")
	case c.Public != "" && c.Prefix == "":
		err = errors.New("public needs a prefix: with OCSP at the root every address is OCSP's")
	case c.Bound < 0:
		err = errors.New("bound is negative")
	default:
		err = errors.Join(c.Traces.Validate(), store.CheckPrimary(c.Database))
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// checkFiles makes everything that serving needs, of what the configuration names and apart from connections, and throws
// it away.
func (c *config) checkFiles(ctx context.Context) error {
	var delegates []ocsp.Delegate
	var err error
	if c.Authority == nil {
		delegates, err = c.delegates(ctx)
	} else {
		delegates, err = c.checkAuthority(ctx)
	}
	if err != nil {
		return err
	}
	if c.Database != "" {
		reader, err := store.OpenStatusReader(c.Database)
		if err != nil {
			return err
		}
		_ = reader.Close()
	}
	server, secret, relayKey, err := c.secrets()
	if err != nil {
		return err
	}
	if c.Redis != nil {
		shelf, err := cache.NewRedis(cache.RedisConfig{Server: server})
		if err != nil {
			return err
		}
		_ = shelf.Close()
	}
	if relayKey != nil {
		if _, err := relay.NewFollower(relay.FollowerConfig{Server: relay.Server(server), Key: relayKey, Rand: rand.Reader}); err != nil {
			return err
		}
	}
	if len(delegates) == 0 && c.Authority != nil { // the first start makes them
		_, err := c.proxies()
		return err
	}
	responder, err := ocsp.New(c.answers(delegates, noStatuses{}, secret))
	if err != nil {
		return err
	}
	files, err := c.files()
	if err != nil {
		return err
	}
	_, err = c.front(responder, files, slog.New(slog.DiscardHandler))
	return err
}

// answers is what a responder needs, without shelves.
func (c *config) answers(delegates []ocsp.Delegate, statuses ocsp.Statuses, secret []byte) ocsp.Config {
	return ocsp.Config{
		Delegates: delegates, Statuses: statuses, Now: c.now, Prefix: c.Prefix, Validity: c.Validity, MaxAge: c.MaxAge,
		Late: c.Bound, Secret: secret, Handover: 10 * time.Minute,
	}
}

// front makes the listener's server.
func (c *config) front(responder *ocsp.Responder, files *files, log *slog.Logger) (*front.Server, error) {
	proxies, err := c.proxies()
	if err != nil {
		return nil, err
	}
	cfg := front.Config{
		Exchanger: responder, Now: c.now, Log: log, Prefix: c.Prefix, Connections: c.Connections, PerAddress: c.PerAddress, Proxies: proxies,
	}
	if files != nil {
		cfg.Other = files
	}
	return front.New(cfg)
}

// secrets reads what Redis needs; nothing without Redis, and no relay key where the log is not followed through it.
func (c *config) secrets() (server cache.Server, secret, relayKey []byte, err error) {
	if c.Redis == nil {
		return server, nil, nil, nil
	}
	if server, err = c.Redis.Open(c.dir); err != nil {
		return server, nil, nil, err
	}
	if secret, err = c.secret(c.Redis.SecretFile); err != nil {
		return server, nil, nil, err
	}
	if relayKey, err = c.secret(c.Redis.RelayKeyFile); err != nil {
		return server, nil, nil, err
	}
	return server, secret, relayKey, nil
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
		if one.Key, err = c.key(ctx, d.Key); err != nil {
			return fail(err)
		}
		out = append(out, one)
	}
	return out, nil
}

// key opens a key; the path of a file is relative to the configuration's.
func (c *config) key(ctx context.Context, uri string) (crypto.Signer, error) {
	if p, ok := strings.CutPrefix(uri, "file:"); ok {
		uri = hsm.FileURI(c.path(p))
	}
	key, err := hsm.Open(ctx, uri)
	if err != nil {
		return nil, err
	}
	return faulty(key), nil
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
