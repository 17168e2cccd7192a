package acme

import (
	"crypto"
	"crypto/x509"
	"time"

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

// KeyDescription is what Android says of a key.
type KeyDescription = keyDescription

// ParseKeyDescription reads it.
func ParseKeyDescription(der []byte) (KeyDescription, error) { return parseKeyDescription(der) }

// ParseApplication reads who has asked for a key.
func ParseApplication(der []byte) (packages []string, signers [][]byte, err error) {
	a, err := parseApplication(der)
	return a.Packages, a.Signers, err
}

// ParseStatusList reads a maker's list.
func ParseStatusList(text []byte) (map[string]bool, error) { return parseStatusList(text) }

// JudgeAndroid judges the response to a challenge.
func JudgeAndroid(a Attestation, now func() time.Time, payload []byte, authorization string) (crypto.PublicKey, error) {
	j, err := newAndroids(a, now)
	if err != nil {
		return nil, err
	}
	return j.judge(payload, authorization)
}

// JudgeApp judges the response to a challenge.
func JudgeApp(a Attestation, inSandbox bool, now func() time.Time, payload []byte, authorization string) (crypto.PublicKey, error) {
	j, err := newAppAttests(a, inSandbox, now)
	if err != nil {
		return nil, err
	}
	return j.judge(payload, authorization)
}

// CheckApp judges an attestation object over the hash of any client data.
func CheckApp(a Attestation, now time.Time, object []byte, clientData [32]byte) error {
	j, err := newAppAttests(a, true, func() time.Time { return now })
	if err != nil {
		return err
	}
	return j.check(object, clientData)
}

// AuthData is an authenticator's data.
type AuthData = authData

// ParseAuthData reads it.
func ParseAuthData(raw []byte) (AuthData, error) { return parseAuthData(raw) }

// ParseAppObject reads an attestation object of App Attest's.
func ParseAppObject(object []byte) (x5c [][]byte, receipt, authData []byte, err error) {
	o, err := parseAppObject(object)
	return o.Statement.X5C, o.Statement.Receipt, o.AuthData, err
}

// ParseAppNonce reads Apple's extension.
func ParseAppNonce(der []byte) ([]byte, error) { return parseAppNonce(der) }
