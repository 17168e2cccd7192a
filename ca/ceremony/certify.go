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

// CertifyStation does what [Signer.Station] does for a key that is elsewhere, under a serial number that the caller has
// recorded. The contents are the station profile's; the caller has checked name and possession of the key.
func (s *Signer) CertifyStation(key crypto.PublicKey, id string, serial jpki.Serial) (*x509.Certificate, error) {
	profile := s.s.Policy().Profiles["station"]
	usage, extended, unknown := profile.Usages()
	if len(unknown) > 0 {
		return nil, fmt.Errorf("issue station certificate: the policy has unknown usages %q", unknown)
	}
	start := s.now().Add(-backdate).UTC().Truncate(time.Second)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial.Big(), Subject: pkix.Name{Country: s.cert.Subject.Country, Organization: s.cert.Subject.Organization, CommonName: id},
		NotBefore: start, NotAfter: start.Add(profile.Expiry), KeyUsage: usage, ExtKeyUsage: extended, BasicConstraintsValid: true,
	}, s.cert, key, s.key)
	if err != nil {
		return nil, fmt.Errorf("issue station certificate: %w", err)
	}
	return x509.ParseCertificate(der)
}
