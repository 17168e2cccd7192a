// Package ceremony makes the certificates around the subscribers' own: OCSP delegates, servers and stations.
//
// A [Signer] issues under one CA key by the profiles of policy.json, an operator-readable cfssl signing policy: responders
// under an authority's own key, servers and stations under an infrastructure CA that [NewInfrastructure] makes. It stores
// nothing and records nothing: whoever holds a ceremony writes the audit record. Responder certificates follow RFC 6960
// §4.2.2.2 with id-pkix-ocsp-nocheck and live 30 days at most. A Signer is safe for concurrent use. Start at NewSigner.
package ceremony

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	_ "embed"
	"encoding/pem"
	"fmt"
	"sync"
	"time"

	"github.com/cloudflare/cfssl/config"
	"github.com/cloudflare/cfssl/csr"
	cflog "github.com/cloudflare/cfssl/log"
	"github.com/cloudflare/cfssl/signer"
	"github.com/cloudflare/cfssl/signer/local"

	"github.com/openjpki/jpki"
)

//go:embed policy.json
var policy []byte

// backdate is how far before now certificates begin, so that a relying party whose clock is a little behind takes them.
const backdate = 5 * time.Minute

// A Signer issues infrastructure certificates under one CA key.
type Signer struct {
	s    *local.Signer
	cert *x509.Certificate
	key  crypto.Signer
	now  func() time.Time
}

var quiet = sync.OnceFunc(func() { cflog.Level = cflog.LevelError }) // cfssl reports each signature on standard error otherwise

// NewSigner returns a signer for a CA certificate and its key; now is the clock.
func NewSigner(cert *x509.Certificate, key crypto.Signer, now func() time.Time) (*Signer, error) {
	quiet()
	cfg, err := config.LoadConfig(policy)
	if err != nil {
		return nil, fmt.Errorf("read signing policy: %w", err)
	}
	algorithm := signer.DefaultSigAlgo(key)
	s, err := local.NewSigner(key, cert, algorithm, cfg.Signing)
	if err != nil {
		return nil, fmt.Errorf("open signer: %w", err)
	}
	return &Signer{s, cert, key, now}, nil
}

// Responder certifies a key for answering OCSP in the name of the signer's CA key. Nobody asks for the status of such a
// certificate (nocheck), so it lives for 30 days and is replaced long before.
func (s *Signer) Responder(key crypto.Signer, issuer jpki.IssuerID) (*x509.Certificate, error) {
	return s.issue("responder", key, "OCSP responder of "+issuer.String(), nil)
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
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}}, key)
	if err != nil {
		return nil, fmt.Errorf("make certification request: %w", err)
	}
	start := s.now().Add(-backdate).UTC().Truncate(time.Second)
	life := s.s.Policy().Profiles[profile].Expiry
	out, err := s.s.Sign(signer.SignRequest{
		Hosts: hosts, Request: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})),
		Subject: &signer.Subject{CN: name, Names: []csr.Name{{C: "JP", O: "JPKI-SANDBOX"}}}, Profile: profile, NotBefore: start, NotAfter: start.Add(life),
	})
	if err != nil {
		return nil, fmt.Errorf("issue %s certificate: %w", profile, err)
	}
	block, _ := pem.Decode(out)
	if block == nil {
		return nil, fmt.Errorf("issue %s certificate: the signer returned no certificate", profile)
	}
	return x509.ParseCertificate(block.Bytes)
}

// NewInfrastructure makes the self-signed certificate of an infrastructure CA, for ten years. It certifies servers and
// stations only; no relying party trusts it for persons.
func NewInfrastructure(key crypto.Signer, serial jpki.Serial, now time.Time) (*x509.Certificate, error) {
	template := &x509.Certificate{
		SerialNumber: serial.Big(), Subject: pkix.Name{Country: []string{"JP"}, Organization: []string{"JPKI-SANDBOX"}, CommonName: "JPKI-SANDBOX infrastructure CA"},
		NotBefore: now.Add(-backdate), NotAfter: now.AddDate(10, 0, 0), KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make infrastructure CA: %w", err)
	}
	return x509.ParseCertificate(der)
}
