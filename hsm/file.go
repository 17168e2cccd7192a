package hsm

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
)

// maxKeyFile bounds what is read of a key file, in octets.
const maxKeyFile = 64 << 10

const pemType = "PRIVATE KEY" // PKCS #8, unencrypted

// filePath returns the path in a file URI.
func filePath(uri string) (string, error) {
	u, err := url.Parse(uri)
	if err != nil {
		return "", errors.New("key URI is not a URI")
	}
	switch {
	case u.Scheme == "pkcs11":
		return "", errors.New("keys in tokens are jpki-signer's to open: configure it with this URI, and use signer:///path?key=NAME here")
	case u.Scheme != "file":
		return "", fmt.Errorf("key URI has the scheme %q; the known schemes are file and signer", u.Scheme)
	case u.User != nil, u.Host != "" && u.Host != "localhost", u.RawQuery != "", u.ForceQuery, u.Fragment != "":
		return "", errors.New("key URI of scheme file has more than a path")
	case !filepath.IsAbs(u.Path):
		return "", errors.New("key URI of scheme file has no absolute path; write file:///path")
	}
	return filepath.Clean(u.Path), nil
}

// openFile reads a private key. What the permissions are is asked of the open file, so that it cannot be exchanged in between.
func openFile(path string) (crypto.Signer, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // non-blocking: a FIFO must not hang us
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, errors.New("not a regular file")
	case info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("mode %04o lets others than the owner in; it must be 0600 or less", info.Mode().Perm())
	}
	text, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return nil, err
	}
	defer clear(text)
	if len(text) > maxKeyFile {
		return nil, fmt.Errorf("longer than %d octets", maxKeyFile)
	}
	return parseKey(text)
}

// parseKey reads exactly one PKCS #8 PEM block.
func parseKey(text []byte) (crypto.Signer, error) {
	block, rest := pem.Decode(text)
	switch {
	case block == nil:
		return nil, errors.New("no PEM block")
	case block.Type != pemType || len(block.Headers) != 0:
		return nil, fmt.Errorf("the PEM block is not a plain %q (PKCS #8, unencrypted)", pemType)
	case !bytes.HasPrefix(text, []byte("-----BEGIN")) || len(bytes.TrimSpace(rest)) != 0:
		return nil, errors.New("something besides one PEM block")
	}
	defer clear(block.Bytes)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("the PEM block is not a PKCS #8 key") // the cause could quote the key
	}
	s, ok := key.(crypto.Signer)
	if !ok {
		return nil, errors.New("the key cannot sign")
	}
	if _, err := AlgorithmOf(s.Public()); err != nil {
		return nil, err
	}
	return s, nil
}

// createFile makes a key and a file for it. The file gets its name last, by a link that fails if the name is taken: under
// that name there is nothing, or a whole key that is on the disk.
func createFile(path string, alg Algorithm) (err error) {
	if _, err := os.Lstat(path); err == nil { // only to fail before the work; the link below decides
		return fs.ErrExist
	}
	key, err := generate(alg)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	defer clear(der)
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.new") // mode 0600
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(f.Name())) }()
	err = pem.Encode(f, &pem.Block{Type: pemType, Bytes: der})
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err = os.Link(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func generate(alg Algorithm) (crypto.Signer, error) {
	switch alg {
	case RSA2048:
		return rsa.GenerateKey(rand.Reader, 2048)
	case P256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case P384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	}
	return nil, fmt.Errorf("algorithm %q is not one of %s, %s, %s", string(alg), RSA2048, P256, P384)
}

// syncDir makes a change of names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
