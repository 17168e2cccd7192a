package main

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/client"
	"github.com/openjpki/jpki/cmd/internal/delegates"
	"github.com/openjpki/jpki/ocsp"
)

// keeper returns a keeper of all delegates, to be used by use: it makes a key and asks the authority for a certificate. What
// it has made before is there from the start, whether the authority is or not.
func (c *config) keeper(ctx context.Context, use func([]ocsp.Delegate) error) (*ocsp.Keeper, error) {
	by, err := c.asker()
	if err != nil {
		return nil, err
	}
	folder := delegates.Folder{Dir: c.path(c.Authority.Folder), Now: c.now}
	cfg := ocsp.KeeperConfig{Certifier: by, Use: use, Keep: folder.Keep, Now: c.now, Rand: rand.Reader}
	for i, d := range c.Delegates {
		id, cert, err := c.issuer(d)
		if err != nil {
			return nil, fmt.Errorf("delegates[%d] (%s): %w", i, d.Issuer, err)
		}
		post, err := folder.Post(ctx, id, cert)
		if err != nil {
			return nil, fmt.Errorf("delegates[%d] (%s): %w", i, d.Issuer, err)
		}
		cfg.Posts = append(cfg.Posts, post)
	}
	return ocsp.NewKeeper(cfg)
}

func (c *config) issuer(d delegate) (id jpki.IssuerID, cert *x509.Certificate, err error) {
	if id, err = jpki.ParseIssuerID(d.Issuer); err == nil {
		cert, err = c.certificate(d.IssuerCertificate)
	}
	return id, cert, err
}

// asker asks the authority over mutual TLS. This server's own certificate is read again for each connection: whoever renews
// it writes over the files, the key first.
func (c *config) asker() (delegates.By, error) {
	roots := x509.NewCertPool()
	text, err := os.ReadFile(c.path(c.Authority.CA))
	if err != nil {
		return nil, err
	}
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s has no certificate in PEM", c.Authority.CA)
	}
	authority := client.New(c.Authority.URL, &tls.Config{
		MinVersion: tls.VersionTLS12, RootCAs: roots, Time: c.now,
		GetClientCertificate: func(r *tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.identity(r.Context()) },
	}).Through(func(base http.RoundTripper) http.RoundTripper { return c.tracer.Transport("authority", base) })
	return func(ctx context.Context, issuer jpki.IssuerID, request []byte) (*x509.Certificate, error) {
		defer authority.CloseIdle()
		out, err := authority.CertifyResponder(ctx, client.ResponderOrder{
			Issuer: issuer, Request: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: request})),
		})
		if err != nil {
			return nil, err
		}
		block, _ := pem.Decode([]byte(out.Certificate))
		if block == nil {
			return nil, errors.New("the authority's answer has no certificate")
		}
		return x509.ParseCertificate(block.Bytes)
	}, nil
}

// identity is who this server is to the authority.
func (c *config) identity(ctx context.Context) (*tls.Certificate, error) {
	cert, err := c.certificate(c.Authority.Certificate)
	if err != nil {
		return nil, err
	}
	key, err := c.key(ctx, c.Authority.Key)
	if err != nil {
		return nil, err
	}
	if public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(cert.PublicKey) {
		return nil, errors.New("authority.key is not that of authority.certificate")
	}
	return &tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}, nil
}

// checkAuthority looks at what asking needs, and returns the delegates that were made before.
func (c *config) checkAuthority(ctx context.Context) ([]ocsp.Delegate, error) {
	if _, err := c.identity(ctx); err != nil {
		return nil, err
	}
	if info, err := os.Stat(c.path(c.Authority.Folder)); err != nil || !info.IsDir() {
		return nil, errors.Join(fmt.Errorf("authority.folder %s is no directory", c.Authority.Folder), err)
	}
	k, err := c.keeper(ctx, func([]ocsp.Delegate) error { return nil })
	if err != nil {
		return nil, err
	}
	return k.Delegates(), nil
}
