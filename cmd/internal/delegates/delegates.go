// Package delegates keeps the OCSP keys that a program makes for itself, in a folder, across restarts.
//
// A [Folder] makes keys, keeps each with its certificate and finds the one to begin with; it gives ocsp.Keeper what that
// needs for a post. [By] is how a key comes to its certificate: in the sandbox by the authority of the same process, in
// jpki-status over mutual TLS. It decides nothing about when: that is ocsp.Keeper's. A Folder belongs to one process, but
// another may make a post's first delegate in it. Start at Folder.Post.
package delegates

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/hsm"
	"github.com/openjpki/jpki/ocsp"
)

// A Folder is a directory that nobody else can read. For each issuer it has, under the first octets of the key's SHA-256, a
// key and its certificate, and at most one key that waits to be certified.
type Folder struct {
	Dir string
	Now func() time.Time
}

// By has a key certified whose certification request (PKCS #10, DER) asks for nothing else. It is an [ocsp.Certifier].
type By func(ctx context.Context, issuer jpki.IssuerID, request []byte) (*x509.Certificate, error)

// CertifyResponder makes the request.
func (f By) CertifyResponder(ctx context.Context, issuer jpki.IssuerID, key crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fmt.Errorf("make certification request: %w", err)
	}
	return f(ctx, issuer, der)
}

// Post returns a post of the issuer, with the delegate that lasts the longest of those kept, if there is one. It may have
// ended: then it signs nothing, but the server starts without the authority and goes on asking.
func (f Folder) Post(ctx context.Context, issuer jpki.IssuerID, cert *x509.Certificate) (ocsp.Post, error) {
	p := ocsp.Post{Issuer: issuer, IssuerCertificate: cert, NewKey: func(ctx context.Context) (crypto.Signer, error) { return f.newKey(ctx, issuer) }}
	all, err := f.kept(issuer, cert)
	if err != nil || len(all) == 0 {
		return p, err
	}
	key, err := hsm.Open(ctx, hsm.FileURI(f.path(issuer, all[0].name+".key")))
	if err != nil {
		return p, err
	}
	p.Now = &ocsp.Delegate{Issuer: issuer, IssuerCertificate: cert, Certificate: all[0].cert, Key: key}
	return p, nil
}

// newKey makes a key, or opens the one that was made the last time and not certified: an authority that is away for long
// shall not fill the disk.
func (f Folder) newKey(ctx context.Context, issuer jpki.IssuerID) (crypto.Signer, error) {
	uri := hsm.FileURI(f.path(issuer, "next.key"))
	key, err := hsm.Open(ctx, uri)
	if errors.Is(err, fs.ErrNotExist) {
		if key, err = hsm.Create(ctx, uri, hsm.P256); errors.Is(err, fs.ErrExist) { // another process was quicker
			key, err = hsm.Open(ctx, uri)
		}
	}
	return key, err
}

// Keep keeps a new delegate, whose key is one that NewKey made, and throws away what has ended. The certificate is written
// first: without its key it is not looked at, and the key that waits is then certified again.
func (f Folder) Keep(_ context.Context, d ocsp.Delegate) error {
	name, err := nameOf(d.Certificate)
	if err != nil {
		return err
	}
	if err := writeFile(f.path(d.Issuer, name+".crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: d.Certificate.Raw})); err != nil {
		return err
	}
	err = os.Rename(f.path(d.Issuer, "next.key"), f.path(d.Issuer, name+".key"))
	if _, there := os.Stat(f.path(d.Issuer, name+".key")); err != nil && there != nil { // unless another process has kept it
		return err
	}
	if err := syncDir(f.Dir); err != nil {
		return err
	}
	all, err := f.kept(d.Issuer, d.IssuerCertificate)
	if err != nil {
		return err
	}
	for _, one := range all {
		if f.Now().After(one.cert.NotAfter) {
			err = errors.Join(err, os.Remove(f.path(d.Issuer, one.name+".key")), os.Remove(f.path(d.Issuer, one.name+".crt")))
		}
	}
	return err
}

type pair struct {
	name string
	cert *x509.Certificate
}

// kept lists the certificates whose keys are there and that this issuer's key signed, the one that lasts the longest first.
func (f Folder) kept(issuer jpki.IssuerID, by *x509.Certificate) (out []pair, err error) {
	files, err := filepath.Glob(f.path(issuer, "*.crt"))
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		name := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(file), prefix(issuer)), ".crt")
		if _, err := os.Stat(f.path(issuer, name+".key")); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		block, _ := pem.Decode(text)
		if block == nil {
			return nil, fmt.Errorf("%s is not PEM", file)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
		if cert.CheckSignatureFrom(by) == nil {
			out = append(out, pair{name, cert})
		}
	}
	slices.SortFunc(out, func(a, b pair) int {
		return cmp.Or(b.cert.NotAfter.Compare(a.cert.NotAfter), bytes.Compare(a.cert.Raw, b.cert.Raw))
	})
	return out, nil
}

func prefix(issuer jpki.IssuerID) string { return "responder-" + issuer.String() + "-" }

func (f Folder) path(issuer jpki.IssuerID, name string) string {
	return filepath.Join(f.Dir, prefix(issuer)+name)
}

func nameOf(cert *x509.Certificate) (string, error) {
	if cert == nil {
		return "", errors.New("no certificate")
	}
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:8]), nil
}

// writeFile replaces a file whole and durably.
func writeFile(path string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = f.Write(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// syncDir makes changes of names durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
