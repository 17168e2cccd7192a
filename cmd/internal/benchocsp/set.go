package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/cmd/internal/seed"
	"github.com/openjpki/jpki/ocsp"
)

// generation is whose certificates are asked about.
var generation = jpki.IssuerID{CA: jpki.SignCA, Generation: 1}

// An authority is the certificates and the key that answering takes, in files of these names in the bench's folder.
type authority struct {
	issuer   *x509.Certificate
	delegate *x509.Certificate
	key      *ecdsa.PrivateKey // the delegate's
}

const (
	issuerFile   = "issuer.pem"
	delegateFile = "delegate.pem"
	keyFile      = "delegate.key"
)

// newAuthority makes keys on P-256. No request about its certificates is written with "//" in its first half: cfssl has a
// path cleaned and answers such a GET with a redirection.
func newAuthority(dir string) (*authority, error) {
	for range 1000 {
		a, err := makeAuthority()
		if err != nil {
			return nil, err
		}
		serial, err := jpki.SerialFromBytes(bytes.Repeat([]byte{0x55}, jpki.SerialBytes))
		if err != nil {
			return nil, err
		}
		der, err := a.request(serial)
		if err != nil {
			return nil, err
		}
		if !asPath(der) {
			continue
		}
		key, err := x509.MarshalPKCS8PrivateKey(a.key)
		if err != nil {
			return nil, err
		}
		for name, block := range map[string]*pem.Block{
			issuerFile: {Type: "CERTIFICATE", Bytes: a.issuer.Raw}, delegateFile: {Type: "CERTIFICATE", Bytes: a.delegate.Raw}, keyFile: {Type: "PRIVATE KEY", Bytes: key},
		} {
			if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
				return nil, err
			}
		}
		return a, nil
	}
	return nil, errors.New("no authority's hashes can be written into a path")
}

func makeAuthority() (*authority, error) {
	top, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	from, until := time.Now().Add(-time.Hour), time.Now().AddDate(1, 0, 0)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{Country: []string{"JP"}, Organization: []string{"JPKI-BENCH"}}, NotBefore: from, NotAfter: until,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	issuer, err := certify(template, template, top.Public(), top)
	if err != nil {
		return nil, err
	}
	delegate, err := certify(&x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{Country: []string{"JP"}, CommonName: "OCSP responder"}, NotBefore: from, NotAfter: until,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}, BasicConstraintsValid: true,
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 5}, Value: []byte{5, 0}}}, // id-pkix-ocsp-nocheck
	}, issuer, key.Public(), top)
	return &authority{issuer, delegate, key}, err
}

func certify(template, parent *x509.Certificate, public any, signer crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// request asks as most clients do: with SHA-1 and without a nonce.
func (a *authority) request(serial jpki.Serial) ([]byte, error) {
	q, err := ocsp.NewRequest(a.issuer, crypto.SHA1, nil, serial)
	if err != nil {
		return nil, err
	}
	return q.Marshal()
}

// asPath reports whether a request survives a router that cleans paths.
func asPath(der []byte) bool {
	return !strings.Contains("/"+base64.StdEncoding.EncodeToString(der), "//")
}

// A question is one request, and what the answer has to say.
type question struct {
	der     []byte
	serial  jpki.Serial
	revoked bool
}

// A set is what is asked, in turn, and the scripts by which wrk asks it.
type set struct {
	authority *authority
	questions []question
	scripts   map[string]string // by method
}

// asked is how many certificates are asked about.
const asked = 10_000

// newSet asks about the certificates of a plan that pick names; those that cannot be a path are left out.
func newSet(a *authority, p *seed.Plan, dir, name, path string, pick func(i int) int) (*set, error) {
	s := &set{authority: a, scripts: map[string]string{}}
	for i := 0; len(s.questions) < asked; i++ {
		c := p.At(pick(i) % p.Count)
		der, err := a.request(c.ID.Serial)
		if err != nil {
			return nil, err
		}
		if asPath(der) || i > 2*asked {
			s.questions = append(s.questions, question{der, c.ID.Serial, c.Status.State == jpki.Revoked})
		}
	}
	return s, s.write(dir, name, path)
}

func (s *set) write(dir, name, path string) (err error) {
	ders := make([][]byte, len(s.questions))
	for i, q := range s.questions {
		ders[i] = q.der
	}
	for _, method := range methods {
		if s.scripts[method], err = writeScript(dir, name+"-"+method, onWire(method, path, ders)); err != nil {
			return err
		}
	}
	return nil
}

// check asks some of the questions, every so manyth, and looks whether the answers are right: signed and what is true.
// It returns the answers.
func (s *set) check(ctx context.Context, method, address, path string, every int) ([][]byte, error) {
	client := &http.Client{Transport: &http.Transport{}, Timeout: 10 * time.Second}
	defer client.CloseIdleConnections()
	var out [][]byte
	for i := 0; i < len(s.questions); i += every {
		q := &s.questions[i]
		der, err := ask(ctx, client, method, "http://"+address+path, q.der)
		if err == nil {
			err = s.verify(q, der)
		}
		if err != nil {
			return nil, fmt.Errorf("question %d by %s: %w", i, method, err)
		}
		out = append(out, der)
	}
	return out, nil
}

func ask(ctx context.Context, client *http.Client, method, url string, der []byte) ([]byte, error) {
	var body io.Reader
	if method == http.MethodGet {
		url += "/" + strings.NewReplacer("/", "%2F", "+", "%2B", "=", "%3D").Replace(base64.StdEncoding.EncodeToString(der))
	} else {
		body = bytes.NewReader(der)
	}
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/ocsp-request")
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	return answer, err
}

func (s *set) verify(q *question, der []byte) error {
	r, err := ocsp.ParseResponse(der)
	if err != nil {
		return err
	}
	if err := r.Verify(ocsp.VerifyOptions{Issuer: s.authority.issuer, At: time.Now(), Skew: time.Minute}); err != nil {
		return err
	}
	a, err := r.Answer(s.authority.issuer, q.serial)
	if err != nil {
		return err
	}
	if a.Revoked != q.revoked || a.Unknown {
		return fmt.Errorf("the answer says revoked %t, unknown %t, and that is wrong", a.Revoked, a.Unknown)
	}
	return a.Fresh(time.Now(), time.Minute, 0)
}
