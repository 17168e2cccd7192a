package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/openjpki/jpki/cmd/internal/ocspload"
	"github.com/openjpki/jpki/cmd/internal/sandbox"
)

// sourceFlags say which certificates are asked about, and whom.
type sourceFlags struct {
	url     string
	issuers []string
	targets string
	limit   int
	unknown float64
	names   map[*x509.Certificate]string
}

func (f *sourceFlags) declare(c *cobra.Command) {
	c.Flags().StringVar(&f.url, "url", "", "the responder; default: the sandbox's")
	c.Flags().StringSliceVar(&f.issuers, "issuer", nil, "certificates of the issuers, PEM or DER; default: the sandbox's")
	c.Flags().StringVar(&f.targets, "targets", "", "file with lines serial,state[,issuer], - for standard input; default: what the sandbox holds")
	c.Flags().IntVar(&f.limit, "limit", 100_000, "so many certificates of a sandbox at most")
	c.Flags().Float64Var(&f.unknown, "unknown", 0.01, "share of numbers that were never issued, beside the sandbox's")
}

// load returns the responder's address and the certificates to ask about.
func (f *sourceFlags) load(c *cobra.Command) (string, []ocspload.Target, error) {
	if f.limit < 1 || f.unknown < 0 || f.unknown >= 1 {
		return "", nil, usageError{errors.New("-limit has to be positive and -unknown at least 0 and less than 1")}
	}
	dir, _ := c.Flags().GetString("dir") // declared on the root command
	var env sandbox.Env
	if f.url == "" || len(f.issuers) == 0 || f.targets == "" {
		var err error
		if env, err = sandbox.Load(dir); err != nil {
			return "", nil, fmt.Errorf("without all of -url, -issuer and -targets: %w", err)
		}
	}
	if f.url == "" {
		f.url = env.OCSPURL
	}
	issuers, err := f.readIssuers(env)
	if err != nil {
		return "", nil, err
	}
	if f.targets == "" {
		targets, err := ocspload.SandboxTargets(c.Context(), dir, env, f.limit, f.unknown)
		return f.url, targets, err
	}
	var in io.Reader = c.InOrStdin()
	if f.targets != "-" {
		file, err := os.Open(f.targets)
		if err != nil {
			return "", nil, err
		}
		defer func() { _ = file.Close() }()
		in = file
	}
	targets, err := ocspload.ReadTargets(in, issuers)
	if err != nil {
		return "", nil, fmt.Errorf("read %s: %w", f.targets, err)
	}
	return f.url, targets, nil
}

// readIssuers reads the issuers' certificates. Each is called by its file's name without what is behind the dot.
func (f *sourceFlags) readIssuers(env sandbox.Env) (map[string]*x509.Certificate, error) {
	files := f.issuers
	if len(files) == 0 {
		var err error
		if files, err = filepath.Glob(filepath.Join(filepath.Dir(env.TrustSign), "*.crt")); err != nil {
			return nil, err
		}
	}
	out := map[string]*x509.Certificate{}
	f.names = map[*x509.Certificate]string{}
	for _, path := range files {
		cert, err := sandbox.ReadCertificate(path)
		if err != nil {
			return nil, err
		}
		name := strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
		if out[name] != nil {
			return nil, usageError{fmt.Errorf("two issuers are called %s", name)}
		}
		out[name], f.names[cert] = cert, name
	}
	return out, nil
}

// write writes targets.csv into a folder.
func (f *sourceFlags) write(dir string, targets []ocspload.Target) error {
	file, err := os.Create(filepath.Join(dir, "targets.csv"))
	if err != nil {
		return err
	}
	name := func(c *x509.Certificate) string {
		for own, name := range f.names {
			if own.Equal(c) {
				return name
			}
		}
		return ""
	}
	names := map[*x509.Certificate]string{}
	for _, t := range targets {
		if _, ok := names[t.Issuer]; !ok {
			names[t.Issuer] = name(t.Issuer)
		}
	}
	return errors.Join(ocspload.WriteTargets(file, targets, func(c *x509.Certificate) string { return names[c] }), file.Close())
}
