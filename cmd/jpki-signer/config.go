package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/openjpki/jpki/hsm"
	"github.com/openjpki/jpki/hsm/pkcs11"
	"github.com/openjpki/jpki/hsm/signer"
)

// A config is what the file says; example.yaml explains each field.
type config struct {
	Listen   string        `yaml:"listen"`
	Mode     string        `yaml:"mode"`
	Group    string        `yaml:"group"`
	Admin    string        `yaml:"admin"`
	State    string        `yaml:"state"`
	Record   time.Duration `yaml:"record"`
	Sessions int           `yaml:"sessions"`
	Hang     time.Duration `yaml:"hang"`
	Probe    time.Duration `yaml:"probe"`
	GiveUp   time.Duration `yaml:"give_up"`
	Waiting  int           `yaml:"waiting"`
	Keys     []key         `yaml:"keys"`

	file string
	dir  string // of the file
	mode os.FileMode
	gid  int // of the socket; -1 for the process's
}

type key struct {
	Name      string   `yaml:"name"`
	Algorithm string   `yaml:"algorithm"`
	At        []string `yaml:"at"` // URIs
	Verify    int      `yaml:"verify"`
	Allow     []allow  `yaml:"allow"`

	uris []pkcs11.URI // parsed; none for a file
}

type allow struct {
	User     string   `yaml:"user"`
	Group    string   `yaml:"group"`
	Program  string   `yaml:"program"`
	Purposes []string `yaml:"purposes"`
	Rate     float64  `yaml:"rate"`
	Burst    int      `yaml:"burst"`
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
	c := &config{Mode: "0600", Admin: "127.0.0.1:8095", Record: time.Minute, Sessions: 16, Hang: 5 * time.Second, Probe: 5 * time.Second, GiveUp: time.Minute, Waiting: 256, gid: -1}
	if err := yaml.UnmarshalWithOptions(text, c, yaml.Strict()); err != nil {
		return nil, fmt.Errorf("%s: %s", path, yaml.FormatError(err, false, false))
	}
	if c.file, err = filepath.Abs(path); err != nil {
		return nil, err
	}
	c.dir = filepath.Dir(c.file)
	mode, bad := strconv.ParseUint(c.Mode, 8, 32)
	switch {
	case c.Listen == "":
		err = errors.New("listen is required")
	case c.State == "":
		err = errors.New("state is required")
	case bad != nil || mode != 0o600 && mode != 0o660:
		err = errors.New(`mode is neither "0600" nor "0660"`)
	case c.Group != "" && mode == 0o600:
		err = errors.New(`group needs mode "0660"`)
	case c.Record <= 0 || c.Hang < 100*time.Millisecond || c.Probe < 100*time.Millisecond:
		err = errors.New("record must be positive, hang and probe at least 100ms")
	case c.GiveUp < 100*time.Millisecond:
		err = errors.New("give_up must be at least 100ms")
	case c.Sessions < 1 || c.Sessions > 256 || c.Waiting < 1 || c.Waiting > 65536:
		err = errors.New("sessions must be 1 to 256, waiting 1 to 65536")
	case len(c.Keys) == 0:
		err = errors.New("keys: at least one is required")
	}
	c.mode = os.FileMode(mode)
	if err == nil && c.Group != "" {
		c.gid, err = lookUp(c.Group, groupNumber)
	}
	for i := range c.Keys {
		if err == nil {
			if err = c.Keys[i].check(); err != nil {
				err = fmt.Errorf("keys[%d] (%s): %w", i, c.Keys[i].Name, err)
			}
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// apart is everything but the keys, to be compared.
func (c *config) apart() string {
	other := *c
	other.Keys = nil
	return fmt.Sprintf("%+v", other)
}

func (k *key) check() error {
	switch {
	case !signer.ValidName(k.Name):
		return errors.New("name must be 1 to 64 of letters, digits and - _ . only")
	case k.Algorithm != string(hsm.RSA2048) && k.Algorithm != string(hsm.P256) && k.Algorithm != string(hsm.P384):
		return fmt.Errorf("algorithm must be %s, %s or %s", hsm.RSA2048, hsm.P256, hsm.P384)
	case len(k.At) == 0:
		return errors.New("at: a URI is required")
	case len(k.Allow) == 0:
		return errors.New("allow: without a rule nobody is admitted")
	case k.Verify < 0:
		return errors.New("verify is negative")
	}
	if k.Verify == 0 {
		k.Verify = 1
	}
	for _, text := range k.At {
		if strings.HasPrefix(text, "file:") {
			if len(k.At) != 1 {
				return errors.New("at: a key in a file has no second place")
			}
			continue
		}
		u, err := pkcs11.ParseURI(text)
		if err == nil {
			err = u.Check()
		}
		if err != nil {
			return fmt.Errorf("at: %w", err)
		}
		k.uris = append(k.uris, u)
	}
	_, err := k.rules()
	return err
}

// rules translates who is admitted: names become numbers once, at the start.
func (k *key) rules() (rules []signer.Rule, err error) {
	for i, a := range k.Allow {
		r := signer.Rule{Program: a.Program, Rate: a.Rate, Burst: a.Burst}
		var n int
		if a.User == "" && a.Group == "" {
			err = errors.New("user or group is required")
		}
		if a.User != "" && err == nil {
			if n, err = lookUp(a.User, userNumber); err == nil {
				id := uint32(n)
				r.UID = &id
			}
		}
		if a.Group != "" && err == nil {
			if n, err = lookUp(a.Group, groupNumber); err == nil {
				id := uint32(n)
				r.GID = &id
			}
		}
		for _, name := range a.Purposes {
			p, bad := signer.ParsePurpose(name)
			r.Purposes, err = append(r.Purposes, p), errors.Join(err, bad)
		}
		switch {
		case err != nil:
		case len(r.Purposes) == 0:
			err = errors.New("purposes is required")
		case a.Program != "" && !filepath.IsAbs(a.Program):
			err = errors.New("program is no absolute path")
		case a.Rate < 0 || a.Rate > 0 != (a.Burst > 0):
			err = errors.New("rate and burst are positive, both or neither")
		}
		if err != nil {
			return nil, fmt.Errorf("allow[%d]: %w", i, err)
		}
		rules = append(rules, r)
	}
	return rules, nil
}

// lookUp returns the number of a user or group, which may be a number already.
func lookUp(name string, find func(string) (string, error)) (int, error) {
	if n, err := strconv.ParseUint(name, 10, 31); err == nil {
		return int(n), nil
	}
	number, err := find(name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(number)
}

func userNumber(name string) (string, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return "", err
	}
	return u.Uid, nil
}

func groupNumber(name string) (string, error) {
	g, err := user.LookupGroup(name)
	if err != nil {
		return "", err
	}
	return g.Gid, nil
}

func (c *config) path(p string) string {
	if filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(c.dir, p)
}

// fileURI makes the path of a key's file absolute.
func (c *config) fileURI(uri string) string {
	return hsm.FileURI(c.path(strings.TrimPrefix(strings.TrimPrefix(uri, "file:"), "//")))
}

// create makes a key at the first of its places and prints its public half. The signer must not need the token meanwhile:
// a token that admits one process only has to be left alone by the others.
func (c *config) create(ctx context.Context, name string) error {
	for _, k := range c.Keys {
		if k.Name != name {
			continue
		}
		if k.uris == nil {
			s, err := hsm.Create(ctx, c.fileURI(k.At[0]), hsm.Algorithm(k.Algorithm))
			if err != nil {
				return err
			}
			return printPublic(s.Public())
		}
		pub, err := pkcs11.Create(ctx, k.uris[0], k.Algorithm)
		if err != nil {
			return fmt.Errorf("create key %s: %w", name, err)
		}
		return printPublic(pub)
	}
	return fmt.Errorf("the configuration has no key %q", name)
}

// reload has the signer that serves on the configuration's socket read its keys and rules again.
func (c *config) reload(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, checkPatience)
	defer cancel()
	client := signer.NewClient(c.path(c.Listen))
	defer client.Close()
	return client.Reload(ctx)
}

func printPublic(pub any) error {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return err
	}
	return pem.Encode(os.Stdout, &pem.Block{Type: "PUBLIC KEY", Bytes: der})
}
