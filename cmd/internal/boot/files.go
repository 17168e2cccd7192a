package boot

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/goccy/go-yaml"
)

// ReadConfig reads a YAML file strictly into a configuration: an unknown field is an error. It returns where the file is: relative
// paths in it are relative to it.
func ReadConfig(path string, into any) (Dir, error) {
	text, err := readLimited(path)
	if err != nil {
		return "", err
	}
	if err := yaml.UnmarshalWithOptions(text, into, yaml.Strict()); err != nil {
		return "", fmt.Errorf("%s: %s", path, yaml.FormatError(err, false, false))
	}
	abs, err := filepath.Abs(filepath.Dir(path))
	return Dir(abs), err
}

// A Dir is where a configuration is.
type Dir string

// Path makes the path of a file that a configuration names.
func (d Dir) Path(p string) string {
	if p == "" || filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(string(d), p)
}

// KeyURI makes the URI of a key that a configuration names: of file: the path may be relative.
func (d Dir) KeyURI(uri string) string {
	if p, ok := strings.CutPrefix(uri, "file:"); ok && !strings.HasPrefix(p, "//") {
		return (&url.URL{Scheme: "file", Path: d.Path(p)}).String()
	}
	return uri
}

// maxFile bounds every file that is read whole.
const maxFile = 1 << 20

// Read reads a file of at most a MiB.
func (d Dir) Read(path string) ([]byte, error) { return readLimited(d.Path(path)) }

func readLimited(path string) ([]byte, error) {
	f, err := os.Open(path)
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

// Secret reads a file that only its owner may read, without the space around its text.
func (d Dir) Secret(path string) (string, error) {
	info, err := os.Stat(d.Path(path))
	if err != nil {
		return "", err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("%s may be read by others than its owner", path)
	}
	text, err := d.Read(path)
	return strings.TrimSpace(string(text)), err
}

// Certificates reads one certificate or more, DER or PEM.
func (d Dir) Certificates(path string) (out []*x509.Certificate, err error) {
	text, err := d.Read(path)
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

// Certificate reads a file that holds one.
func (d Dir) Certificate(path string) (*x509.Certificate, error) {
	all, err := d.Certificates(path)
	if err != nil {
		return nil, err
	}
	if len(all) != 1 {
		return nil, fmt.Errorf("%s holds %d certificates and should hold one", path, len(all))
	}
	return all[0], nil
}

// Pool reads certificates that are trusted.
func (d Dir) Pool(path string) (*x509.CertPool, error) {
	all, err := d.Certificates(path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	for _, cert := range all {
		pool.AddCert(cert)
	}
	return pool, nil
}

// Identity reads a certificate, with those between it and its root if there are any, for a key that is open. The files are read again by each call:
// whoever renews a certificate writes over the file.
func (d Dir) Identity(path string, key crypto.Signer) (*tls.Certificate, error) {
	chain, err := d.Certificates(path)
	if err != nil {
		return nil, err
	}
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(chain[0].PublicKey) {
		return nil, errors.New("the certificate is of another key")
	}
	out := &tls.Certificate{PrivateKey: key, Leaf: chain[0]}
	for _, cert := range chain {
		out.Certificate = append(out.Certificate, cert.Raw)
	}
	return out, nil
}

// ServerTLS is the configuration of a server with this certificate, which is read again for each connection. Clients are asked for certificates,
// and it is left to handlers who is admitted.
func (d Dir) ServerTLS(path string, key crypto.Signer) (*tls.Config, error) {
	if _, err := d.Identity(path, key); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &tls.Config{
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return d.Identity(path, key) }, ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS12,
	}, nil
}
