package acme

import (
	"crypto/x509"

	stepacme "github.com/smallstep/certificates/acme"
	casapi "github.com/smallstep/certificates/cas/apiv1"

	"github.com/openjpki/jpki"
)

// Service is the signing service behind the embedded authority.
func Service(e *Enrolment) casapi.CertificateAuthorityService { return service{e} }

// Accounts is the database that smallstep's ACME handlers see.
func Accounts(e *Enrolment) stepacme.DB { return accounts{e} }

// RequestedKind is what a certification request is read for.
func RequestedKind(csr *x509.CertificateRequest, wanted []jpki.Kind) (jpki.Kind, error) {
	return requestedKind(csr, wanted)
}

// AttestationLeaf reads an attestation.
func AttestationLeaf(payload []byte) (*x509.Certificate, error) { return attestationLeaf(payload) }

// NonceWindow is how many nonces are good at once.
const NonceWindow = nonceWindow

// Nonces gives out nonces and takes them back.
type Nonces struct{ n *nonces }

// NewNonces makes what a process with this secret has.
func NewNonces(secret string) Nonces { return Nonces{newNonces(secret)} }

// Give gives out a nonce.
func (n Nonces) Give() string { return n.n.give() }

// Spend reports whether a nonce is good, once.
func (n Nonces) Spend(s string) bool { return n.n.spend(s) }
