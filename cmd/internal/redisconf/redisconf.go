// Package redisconf is how programs are told, in YAML, which Redis to use and as whom.
//
// A [Server] is a part of a configuration, the same in jpki-status and in jpki relay. Passwords and keys are never in it but
// in files of their own. [Server.Open] reads those and returns what clients need; it connects to nothing.
package redisconf

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/openjpki/jpki/ocsp/cache"
)

// A Server says which Redis and how to reach it; the example configurations explain each field. Files are relative to that
// of the configuration.
type Server struct {
	Addresses            []string `yaml:"addresses"`
	Master               string   `yaml:"master"`
	Cluster              bool     `yaml:"cluster"`
	Username             string   `yaml:"username"`
	PasswordFile         string   `yaml:"password_file"`
	SentinelUsername     string   `yaml:"sentinel_username"`
	SentinelPasswordFile string   `yaml:"sentinel_password_file"`
	TLS                  *TLS     `yaml:"tls"`
}

// TLS says that connections are encrypted, those to sentinels and to all nodes of a cluster, too. The server is verified by
// its name or address always: there is no way to leave that out.
type TLS struct {
	CA          string `yaml:"ca"`          // who certifies the server; without it, whom the machine trusts
	Certificate string `yaml:"certificate"` // of ours, if Redis asks for one
	Key         string `yaml:"key"`         // PEM file
	ServerName  string `yaml:"server_name"` // instead of the address's own
}

// Open reads the files in or below dir.
func (s *Server) Open(dir string) (out cache.Server, err error) {
	out = cache.Server{Addrs: s.Addresses, Master: s.Master, Cluster: s.Cluster, Username: s.Username, SentinelUsername: s.SentinelUsername}
	switch {
	case s.Username != "" && s.PasswordFile == "":
		return out, errors.New("redis.username needs redis.password_file")
	case s.SentinelUsername != "" && s.SentinelPasswordFile == "":
		return out, errors.New("redis.sentinel_username needs redis.sentinel_password_file")
	case s.Master == "" && s.SentinelPasswordFile != "":
		return out, errors.New("redis.sentinel_password_file is for sentinels, which need redis.master")
	}
	if out.Password, err = secret(dir, s.PasswordFile); err != nil {
		return out, err
	}
	if out.SentinelPassword, err = secret(dir, s.SentinelPasswordFile); err != nil {
		return out, err
	}
	if s.TLS != nil {
		out.TLS, err = s.TLS.open(dir)
	}
	return out, err
}

func (t *TLS) open(dir string) (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	if t.CA != "" {
		text, err := os.ReadFile(path(dir, t.CA))
		if err != nil {
			return nil, err
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("redis.tls.ca: %s has no certificate in PEM", t.CA)
		}
	}
	if (t.Certificate == "") != (t.Key == "") {
		return nil, errors.New("redis.tls has a certificate and a key, or neither")
	}
	if t.Certificate != "" {
		pair := func() (*tls.Certificate, error) {
			c, err := tls.LoadX509KeyPair(path(dir, t.Certificate), path(dir, t.Key))
			return &c, err
		}
		if _, err := pair(); err != nil {
			return nil, fmt.Errorf("redis.tls: %w", err)
		}
		// Read again for each connection: certificates are renewed while programs run.
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return pair() }
	}
	return cfg, nil
}

// secret reads a file that holds nothing else; "" for no file.
func secret(dir, file string) (string, error) {
	if file == "" {
		return "", nil
	}
	text, err := os.ReadFile(path(dir, file))
	if err != nil {
		return "", err
	}
	out := strings.TrimRight(string(text), "\r\n")
	if out == "" {
		return "", fmt.Errorf("%s is empty", file)
	}
	return out, nil
}

func path(dir, file string) string {
	if filepath.IsAbs(file) {
		return file
	}
	return filepath.Join(dir, file)
}
