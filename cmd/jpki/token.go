package main

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/openjpki/jpki/cmd/internal/sandbox"
	"github.com/openjpki/jpki/hsm"
	"github.com/openjpki/jpki/verifier"
)

// tokenFlags are what `jpki verify` is told about validation tokens.
type tokenFlags struct {
	out, key, cert, name, with string

	certificate *x509.Certificate
	signer      crypto.Signer
	hash        crypto.Hash
}

func (f *tokenFlags) flags(c *cobra.Command) {
	c.Flags().StringVar(&f.out, "token", "", "where to write a validation token (RFC 9321) if the document passes; wants -token-key and -token-cert")
	c.Flags().StringVar(&f.key, "token-key", "", "the token issuer's private key, PKCS #8 PEM, for its owner's eyes only")
	c.Flags().StringVar(&f.cert, "token-cert", "", "the token issuer's certificate, PEM or DER: yours to make tokens, pinned to accept them")
	c.Flags().StringVar(&f.name, "token-issuer", "", "the token issuer's name, as a rule a URI (default: the fingerprint of -token-cert)")
	c.Flags().StringVar(&f.with, "with-token", "", "a file that -token wrote: accept the verdict of that time; nobody is asked about certificates")
}

// configure reads keys and certificates, before anything is verified.
func (f *tokenFlags) configure(ctx context.Context, cfg *verifier.DocumentConfig) error {
	switch {
	case f.out == "" && f.with == "" && f.key == "" && f.cert == "" && f.name == "":
		return nil
	case f.out != "" && f.with != "":
		return usageError{errors.New("-token and -with-token exclude one another: a token is made from a verification, not from a token")}
	case f.out == "" && f.with == "":
		return usageError{errors.New("-token-key, -token-cert and -token-issuer belong to -token or -with-token")}
	case f.cert == "":
		return usageError{errors.New("-token-cert is missing: the certificate of who issues the token")}
	case f.out != "" && f.key == "":
		return usageError{errors.New("-token-key is missing: the key that signs the token")}
	}
	var err error
	if f.certificate, err = sandbox.ReadCertificate(f.cert); err != nil {
		return err
	}
	if f.name == "" {
		sum := sha256.Sum256(f.certificate.Raw)
		f.name = "sha256/" + hex.EncodeToString(sum[:])
	}
	if f.with != "" {
		cfg.TokenIssuers = []verifier.TokenIssuer{{Certificate: f.certificate, Name: f.name}}
		return nil
	}
	if f.hash, err = verifier.TokenHash(f.certificate); err != nil {
		return err
	}
	path, err := filepath.Abs(f.key)
	if err != nil {
		return err
	}
	f.signer, err = hsm.Open(ctx, hsm.FileURI(path))
	return err
}

// write makes the tokens of a document that passed, one a line.
func (f *tokenFlags) write(res *verifier.DocumentResult) error {
	if f.out == "" || !res.OK() {
		return nil
	}
	tokens, err := res.Tokens(verifier.TokenConfig{Certificate: f.certificate, Signer: f.signer, Issuer: f.name, Now: time.Now, Rand: rand.Reader})
	if err != nil {
		return err
	}
	if err := os.WriteFile(f.out, []byte(strings.Join(tokens, "\n")+"\n"), 0o600); err != nil {
		return fmt.Errorf("write the token: %w", err)
	}
	return nil
}

// verify accepts a document by its tokens.
func (f *tokenFlags) verify(ctx context.Context, v *verifier.Verifier, in verifier.DocumentInput) (*verifier.DocumentResult, error) {
	text, err := os.ReadFile(f.with)
	if err != nil {
		return nil, err
	}
	return v.VerifyToken(ctx, in, strings.Fields(string(text))...)
}
