package ceremony

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"time"

	"github.com/openjpki/jpki"
)

// NewAttestationRoot makes the root of a maker of phones that do not exist, for the sandbox: whoever has its key can say
// of any key that it is in a phone. Real roots are published by the makers.
func NewAttestationRoot(key crypto.Signer, serial jpki.Serial, now time.Time) (*x509.Certificate, error) {
	template := &x509.Certificate{
		SerialNumber: serial.Big(), Subject: pkix.Name{Country: []string{"JP"}, Organization: []string{"JPKI-SANDBOX"}, CommonName: "JPKI-SANDBOX attestation root"},
		NotBefore: now.Add(-backdate), NotAfter: now.AddDate(10, 0, 0), KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make attestation root: %w", err)
	}
	return x509.ParseCertificate(der)
}
