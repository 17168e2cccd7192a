package sandbox

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/acme"
	"github.com/openjpki/jpki/ca/ceremony"
	"github.com/openjpki/jpki/cmd/internal/phone"
	"github.com/openjpki/jpki/hsm"
)

// helpdesk is the sandbox's provisioner: who holds its key admits stations.
const helpdesk = "helpdesk"

// spareActor is a station that the table admits and nobody has enrolled yet, for trying enrolment without taking the key
// of a station that works.
var spareActor = jpki.Actor{Role: jpki.Counter, ID: "aoba-counter-2", Municipality: "99101"}

// openEnrolment opens the endpoint where stations get and renew their certificates and phones enrol. The register is not in its table: it
// keeps the certificate of the ceremony.
func (s *System) openEnrolment(ctx context.Context) error {
	phones, err := openAttestation(ctx, s.env.AttestationRoot, s.env.AttestationKey)
	if err != nil {
		return err
	}
	if err := openStatusList(s.env.AttestationStatus); err != nil {
		return err
	}
	var attestations []acme.Attestation
	for _, f := range phoneFormats {
		a := acme.Attestation{Format: f, Roots: []*x509.Certificate{phones}}
		switch f {
		case androidKey:
			a.Android = acme.AndroidPolicy{StatusList: s.env.AttestationStatus, MaxListAge: statusListAge, UserAuth: true}
		case appAttest:
			a.AppAttest = acme.AppAttestPolicy{Apps: []string{phone.AppID}}
		}
		attestations = append(attestations, a)
	}
	public, err := openProvisioner(s.dir.path("infrastructure", helpdesk+".pub"), s.env.ProvisionerKey, s.env.ProvisionerPassword)
	if err != nil {
		return err
	}
	s.enrolment, err = acme.New(acme.Config{
		Authority: s.ca, Store: s.db, Root: s.keys.infra, Certify: s.keys.station.CertifyStation, Hosts: []string{"127.0.0.1", "localhost"},
		Provisioners: []acme.Provisioner{{Name: helpdesk, Key: public}},
		Stations:     []acme.Station{{Actor: counterActor, Provisioner: helpdesk}, {Actor: spareActor, Provisioner: helpdesk}, {Actor: minatoActor, Provisioner: helpdesk}, {Actor: serverActor, Provisioner: helpdesk}},
		Phones:       attestations,
		NewID:        rand.Text, Now: time.Now, Log: s.log,
	})
	return err
}

// openProvisioner reads the provisioner's public key, or draws a pair: its private half is a file of its own, encrypted
// under a password in another, for the provisioner's hands only.
func openProvisioner(public, private, password string) ([]byte, error) {
	key, err := os.ReadFile(public)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	secret := []byte(rand.Text())
	key, encrypted, err := acme.NewProvisionerKey(secret)
	if err != nil {
		return nil, err
	}
	// The public key last: it says that the others are there.
	return key, errors.Join(writeFile(password, append(secret, '\n'), 0o600), writeFile(private, encrypted, 0o600), writeFile(public, key, 0o644))
}

// openAttestation reads or makes the root of the sandbox's maker of phones, whose key lies beside it for whoever writes one.
func openAttestation(ctx context.Context, root, key string) (*x509.Certificate, error) {
	signer, err := openKey(ctx, key, hsm.P256)
	if err != nil {
		return nil, err
	}
	cert, err := openCertificate(root, 0, func() (*x509.Certificate, error) {
		serial, err := newSerial()
		if err != nil {
			return nil, err
		}
		return ceremony.NewAttestationRoot(signer, serial, time.Now())
	})
	return cert, err
}

// statusListAge is how old the maker's list of revoked keys may be: as long as a sandbox may run. Who runs an authority fetches
// Google's every day and admits none older than a week.
const statusListAge = 366 * 24 * time.Hour

// openStatusList makes the list of revoked keys, on which nobody is yet, or says that it still holds.
func openStatusList(path string) error {
	now := time.Now()
	err := os.Chtimes(path, now, now)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return writeFile(path, []byte("{\"entries\": {}}\n"), 0o644)
}
