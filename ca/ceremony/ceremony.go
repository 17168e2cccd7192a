// Package ceremony makes what is above the subscribers' certificates: the authorities' own keys and certificates, OCSP
// delegates, servers and stations.
//
// [Hold] holds a ceremony, which one input file describes ([Plan]): a new generation, a responder's delegation, or the end of
// a key. Each step is a line of a transcript in which every line names the hash of the one before; openssl reads what was
// made; witnesses sign the transcript, and [Verify] checks all of it at any later time. A key's backup is shared out among
// custodians (custody.go says what we do and what a token does).
// A [Signer] issues under one CA key by the profiles of policy.json, an operator-readable cfssl signing policy: responders
// under an authority's own key, servers and stations under an infrastructure CA that [NewInfrastructure] makes. It stores
// nothing and records nothing: whoever uses it writes the audit record. The country and organisation in what it issues are
// those of the CA's own certificate. Responder certificates follow RFC 6960
// §4.2.2.2 with id-pkix-ocsp-nocheck, live 30 days at most, and pass package ca's lints before the CA key signs.
// A Signer is safe for concurrent use; a ceremony is one person's work. Start at Hold or at NewSigner.
package ceremony

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	_ "embed"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/cloudflare/cfssl/config"
	"github.com/cloudflare/cfssl/csr"
	cflog "github.com/cloudflare/cfssl/log"
	"github.com/cloudflare/cfssl/signer"
	"github.com/cloudflare/cfssl/signer/local"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
)

//go:embed policy.json
var policy []byte

// backdate is how far before now certificates begin, so that a relying party whose clock is a little behind takes them.
const backdate = 5 * time.Minute

// A Signer issues infrastructure certificates under one CA key.
type Signer struct {
	Rand io.Reader // for serial numbers; NewSigner sets crypto/rand's

	s    *local.Signer
	cert *x509.Certificate
	key  crypto.Signer
	now  func() time.Time
}

var quiet = sync.OnceFunc(func() { cflog.Level = cflog.LevelError }) // cfssl reports each signature on standard error otherwise

// NewSigner returns a signer for a CA certificate and its key; now is the clock.
func NewSigner(cert *x509.Certificate, key crypto.Signer, now func() time.Time) (*Signer, error) {
	quiet()
	s, err := open(cert, key)
	if err != nil {
		return nil, err
	}
	return &Signer{Rand: rand.Reader, s: s, cert: cert, key: key, now: now}, nil
}

func open(cert *x509.Certificate, key crypto.Signer) (*local.Signer, error) {
	cfg, err := config.LoadConfig(policy)
	if err != nil {
		return nil, fmt.Errorf("read signing policy: %w", err)
	}
	for _, p := range cfg.Signing.Profiles {
		p.ClientProvidesSerialNumbers = true // ours have one form, whoever signs
	}
	s, err := local.NewSigner(key, cert, signer.DefaultSigAlgo(key), cfg.Signing)
	if err != nil {
		return nil, fmt.Errorf("open signer: %w", err)
	}
	return s, nil
}

// Responder certifies a key for answering OCSP in the name of the signer's CA key. Nobody asks for the status of such a
// certificate (nocheck), so it lives for 30 days and is replaced long before. A throw-away key signs it first and
// [ca.LintResponder] reads it; only the very same certificate is then signed by the CA's key.
func (s *Signer) Responder(key crypto.Signer, issuer jpki.IssuerID) (*x509.Certificate, error) {
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fmt.Errorf("make certification request: %w", err)
	}
	serial, err := jpki.NewSerial(s.Rand)
	if err != nil {
		return nil, err
	}
	return s.CertifyResponder(request, issuer, serial)
}

// CertifyResponder does what [Signer.Responder] does for a key that is elsewhere, under a serial number that the caller has
// recorded. The caller has checked that the request, DER, asks for nothing but a certificate for its key.
func (s *Signer) CertifyResponder(request []byte, issuer jpki.IssuerID, serial jpki.Serial) (*x509.Certificate, error) {
	req := s.fill("responder", request, "OCSP responder of "+issuer.String(), []string{}, serial)
	throwAway, err := likeKey(s.key.Public())
	if err != nil {
		return nil, err
	}
	stand := *s.cert
	stand.PublicKey = throwAway.Public()
	rehearsal, err := open(&stand, throwAway)
	if err != nil {
		return nil, err
	}
	draft, err := sign(rehearsal, req)
	if err != nil {
		return nil, err
	}
	if err := ca.LintResponder(draft.Raw, s.cert); err != nil {
		return nil, fmt.Errorf("certify responder of %s: %w", issuer, err)
	}
	cert, err := sign(s.s, req)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(cert.RawTBSCertificate, draft.RawTBSCertificate) {
		return nil, errors.New("the responder's certificate is not the one that was linted")
	}
	return cert, nil
}

// likeKey returns a new key of the same kind as another.
func likeKey(key crypto.PublicKey) (crypto.Signer, error) {
	switch k := key.(type) {
	case *rsa.PublicKey:
		return rsa.GenerateKey(rand.Reader, k.N.BitLen())
	case *ecdsa.PublicKey:
		return ecdsa.GenerateKey(k.Curve, rand.Reader)
	}
	return nil, fmt.Errorf("no key like one of type %T", key)
}

// Server certifies a TLS server under its host names or addresses, for 90 days.
func (s *Signer) Server(key crypto.Signer, name string, hosts ...string) (*x509.Certificate, error) {
	return s.issue("server", key, name, hosts)
}

// Station certifies a station's client key, for 90 days; id is the name under which it is enrolled.
func (s *Signer) Station(key crypto.Signer, id string) (*x509.Certificate, error) {
	return s.issue("station", key, id, nil)
}

func (s *Signer) issue(profile string, key crypto.Signer, name string, hosts []string) (*x509.Certificate, error) {
	req, err := s.request(profile, key, name, hosts)
	if err != nil {
		return nil, err
	}
	return sign(s.s, req)
}

// request says in full what is to be signed for a key that is here: signing it twice differs in the signature only.
func (s *Signer) request(profile string, key crypto.Signer, name string, hosts []string) (signer.SignRequest, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}}, key)
	if err != nil {
		return signer.SignRequest{}, fmt.Errorf("make certification request: %w", err)
	}
	serial, err := jpki.NewSerial(s.Rand)
	if err != nil {
		return signer.SignRequest{}, err
	}
	return s.fill(profile, der, name, hosts, serial), nil
}

// fill says what is to be signed for the key of a PKCS #10 request.
func (s *Signer) fill(profile string, der []byte, name string, hosts []string, serial jpki.Serial) signer.SignRequest {
	start := s.now().Add(-backdate).UTC().Truncate(time.Second)
	return signer.SignRequest{
		Hosts: hosts, Request: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})), Serial: serial.Big(),
		Subject: &signer.Subject{CN: name, Names: []csr.Name{s.organisation()}}, Profile: profile,
		NotBefore: start, NotAfter: start.Add(s.s.Policy().Profiles[profile].Expiry),
	}
}

// organisation is whose certificates these are: the CA's own, as its certificate says.
func (s *Signer) organisation() (n csr.Name) {
	if c := s.cert.Subject.Country; len(c) > 0 {
		n.C = c[0]
	}
	if o := s.cert.Subject.Organization; len(o) > 0 {
		n.O = o[0]
	}
	return n
}

func sign(s *local.Signer, req signer.SignRequest) (*x509.Certificate, error) {
	out, err := s.Sign(req)
	if err != nil {
		return nil, fmt.Errorf("issue %s certificate: %w", req.Profile, err)
	}
	block, _ := pem.Decode(out)
	if block == nil {
		return nil, fmt.Errorf("issue %s certificate: the signer returned no certificate", req.Profile)
	}
	return x509.ParseCertificate(block.Bytes)
}

// NewInfrastructure is [NewInfrastructureOf] for the sandbox.
func NewInfrastructure(key crypto.Signer, serial jpki.Serial, now time.Time) (*x509.Certificate, error) {
	return NewInfrastructureOf("JPKI-SANDBOX", key, serial, now)
}

// NewInfrastructureOf makes the self-signed certificate of an organisation's infrastructure CA, for ten years. It certifies
// servers and stations only, in the organisation's name; no relying party trusts it for persons.
func NewInfrastructureOf(organisation string, key crypto.Signer, serial jpki.Serial, now time.Time) (*x509.Certificate, error) {
	if !line(organisation) {
		return nil, errors.New("make infrastructure CA: the organisation's name is missing or too long")
	}
	template := &x509.Certificate{
		SerialNumber: serial.Big(), Subject: pkix.Name{Country: []string{"JP"}, Organization: []string{organisation}, CommonName: organisation + " infrastructure CA"},
		NotBefore: now.Add(-backdate), NotAfter: now.AddDate(10, 0, 0), KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make infrastructure CA: %w", err)
	}
	return x509.ParseCertificate(der)
}
