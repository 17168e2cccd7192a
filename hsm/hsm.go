package hsm

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/openjpki/jpki/hsm/signer"
)

// An Algorithm is a kind and size of key that a generation of an authority may have.
type Algorithm string

// The algorithms.
const (
	RSA2048 Algorithm = "rsa-2048" // two primes, e = 65537
	P256    Algorithm = "p-256"
	P384    Algorithm = "p-384"
)

// Open returns the key that uri names. Schemes:
//
//   - "file", as in file:///etc/jpki/sign-1.pem: a PKCS #8 PEM file that nobody but its owner may read or write
//   - "signer", as in signer:///run/jpki/signer.sock?key=sign-1&purpose=certificate: a key that jpki-signer uses for us, see
//     [signer.ParseRef]; its signatures wait for a signer or a token that is away, for 10 s unless the URI says wait=
//
// A "pkcs11" URI is jpki-signer's to open: programs that answer the network load no vendor's library. Keys of other kinds
// than the [Algorithm] constants are refused. Before it is returned, a key signs a test message and the signature is
// verified; a signer does so itself with its keys.
func Open(ctx context.Context, uri string) (crypto.Signer, error) {
	if strings.HasPrefix(uri, "signer:") {
		return openSigner(ctx, uri)
	}
	path, err := filePath(uri)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	key, err := openFile(path)
	if err != nil {
		return nil, fmt.Errorf("open key %s: %w", uri, err)
	}
	if err := selfTest(key); err != nil {
		return nil, fmt.Errorf("open key %s: %w", uri, err)
	}
	return key, nil
}

// Create makes a new key, keeps it durably under uri, and opens it. An existing key is never overwritten: the error then
// is an [io/fs.ErrExist]. The directory of a file URI must exist. Keys in tokens are made by "jpki-signer -create".
func Create(ctx context.Context, uri string, alg Algorithm) (crypto.Signer, error) {
	path, err := filePath(uri)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := createFile(path, alg); err != nil {
		return nil, fmt.Errorf("create key %s: %w", uri, err)
	}
	return Open(ctx, uri)
}

// openSigner asks jpki-signer for a key.
func openSigner(ctx context.Context, uri string) (crypto.Signer, error) {
	ref, err := signer.ParseRef(uri)
	if err != nil {
		return nil, err
	}
	client := signer.NewClient(ref.Socket)
	key, err := client.Open(ctx, ref)
	if err == nil {
		if _, err = AlgorithmOf(key.Public()); err == nil {
			return key, nil
		}
	}
	client.Close()
	return nil, fmt.Errorf("open key %s: %w", uri, err)
}

// FileURI returns the URI of the key file with the given absolute path.
func FileURI(path string) string { return (&url.URL{Scheme: "file", Path: path}).String() }

// AlgorithmOf says which of the admitted algorithms a public key has.
func AlgorithmOf(pub crypto.PublicKey) (Algorithm, error) {
	switch k := pub.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() == 2048 && k.E == 65537 {
			return RSA2048, nil
		}
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			return P256, nil
		case elliptic.P384():
			return P384, nil
		}
	}
	return "", fmt.Errorf("the key is none of %s, %s and %s", RSA2048, P256, P384)
}

// selfTest proves that the private key belongs to the public one and that signing works.
func selfTest(s crypto.Signer) error {
	digest := sha256.Sum256([]byte("a test message; a signature of it means nothing"))
	sig, err := s.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		return fmt.Errorf("sign a test message: %w", err)
	}
	ok := false
	switch pub := s.Public().(type) {
	case *rsa.PublicKey:
		ok = rsa.VerifyPKCS1v15(pub, crypto.SHA256, digest[:], sig) == nil
	case *ecdsa.PublicKey:
		ok = ecdsa.VerifyASN1(pub, digest[:], sig)
	}
	if !ok {
		return errors.New("the key's signature of a test message does not verify")
	}
	return nil
}
