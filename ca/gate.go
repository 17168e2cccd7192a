package ca

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"sync/atomic"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/openjpki/jpki"
)

// A draft is a TBSCertificate that has passed every lint. [Issuer.prepare] alone makes one and [Issuer.sign] takes nothing
// else, so a CA key signs no certificate that was not linted; a test looks for other ways. A draft can be signed once.
type draft struct {
	tbs    []byte
	issuer *Issuer
	used   atomic.Bool
}

// prepare puts a signature of the right size that is none behind a TBSCertificate, reads the result back as a relying
// party would and runs the lints of its shape over it. What they refuse is a [*lintError], a problem of our own.
func (i *Issuer) prepare(tbs []byte, c candidate) (*draft, error) {
	none, err := noSignature(i.Signer.Public())
	if err != nil {
		return nil, err
	}
	der, err := i.assemble(tbs, none)
	if err != nil {
		return nil, err
	}
	c.issuer, c.passed = i.Certificate, i.passed
	if err := c.lint(der); err != nil {
		return nil, err
	}
	return &draft{tbs: tbs, issuer: i}, nil
}

// sign signs a draft and returns the certificate, DER: the octets that were linted, with a signature. What comes back from
// the signer is checked with a second implementation before anyone sees it, for a faulty signature can reveal the key.
// An RSA key in this process has done so already: Go's signs nothing that it has not verified.
func (i *Issuer) sign(d *draft) ([]byte, error) { return i.signFor(context.Background(), d) }

// A contextSigner is a key that is told for which request it signs, and gives up when that ends.
type contextSigner interface {
	SignContext(ctx context.Context, digest []byte, opts crypto.SignerOpts) ([]byte, error)
}

// signFor is sign for a request.
func (i *Issuer) signFor(ctx context.Context, d *draft) ([]byte, error) {
	if d == nil || d.issuer != i || d.used.Swap(true) {
		return nil, errors.New("the draft is none, another issuer's, or signed already")
	}
	h := i.algorithm.hash.New()
	h.Write(d.tbs)
	var signature []byte
	var err error
	if s, ok := i.Signer.(contextSigner); ok {
		signature, err = s.SignContext(ctx, h.Sum(nil), i.algorithm.hash)
	} else {
		signature, err = i.Signer.Sign(rand.Reader, h.Sum(nil), i.algorithm.hash)
	}
	if err != nil {
		return nil, jpki.WrapError(jpki.Unavailable, fmt.Errorf("sign with %s: %w", i.ID, err), "the signing key does not answer")
	}
	if _, own := i.Signer.(*rsa.PrivateKey); !own {
		if err := i.Certificate.CheckSignature(i.algorithm.x509, d.tbs, signature); err != nil {
			return nil, errors.New("the signer returned a wrong signature")
		}
	}
	return i.assemble(d.tbs, signature)
}

// signInTime signs a draft and returns the certificate, DER, or gives up when ctx ends: a signer may know no contexts, and
// hang. What it still signs then is thrown away; the number is answered for.
func (i *Issuer) signInTime(ctx context.Context, d *draft) ([]byte, error) {
	type result struct {
		der []byte
		err error
	}
	done := make(chan result, 1)
	go func() { der, err := i.signFor(ctx, d); done <- result{der, err} }()
	select {
	case r := <-done:
		return r.der, r.err
	case <-ctx.Done():
		return nil, jpki.WrapError(jpki.Unavailable, fmt.Errorf("sign with %s: %w", i.ID, ctx.Err()), "the signing key does not answer")
	}
}

// assemble puts a TBSCertificate, the algorithm and a signature together.
func (i *Issuer) assemble(tbs, signature []byte) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(tbs)
		i.algorithm.add(b)
		b.AddASN1BitString(signature)
	})
	der, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("encode certificate: %w", err)
	}
	return der, nil
}

// noSignature returns something as long as the longest signature of a key, and of its form.
func noSignature(key crypto.PublicKey) ([]byte, error) {
	switch k := key.(type) {
	case *rsa.PublicKey:
		return make([]byte, k.Size()), nil
	case *ecdsa.PublicKey:
		half := bytes.Repeat([]byte{0xff}, (k.Params().BitSize+7)/8)
		var b cryptobyte.Builder
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			for range 2 {
				b.AddASN1(cbasn1.INTEGER, func(b *cryptobyte.Builder) { b.AddUint8(0); b.AddBytes(half) })
			}
		})
		return b.Bytes()
	}
	return nil, fmt.Errorf("no signature for a key of type %T", key)
}
