package ca

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/store"
)

// Authenticate says who stands behind a client certificate: chain is what the client presented in TLS, its own first,
// the possession of whose key TLS has proved. Certificates come from one of the authority's station CAs and are, besides,
// enrolled one by one: name and key must be known. The problems are NoClientCertificate, ClientCertificateExpired,
// ClientCertificateInvalid and UnknownStation.
func (a *Authority) Authenticate(ctx context.Context, chain []*x509.Certificate) (jpki.Actor, error) {
	if len(chain) == 0 {
		return jpki.Actor{}, jpki.Errorf(jpki.NoClientCertificate, "")
	}
	cert, now := chain[0], a.now()
	if now.Before(cert.NotBefore) || now.After(cert.NotAfter) {
		return jpki.Actor{}, jpki.Errorf(jpki.ClientCertificateExpired, "valid from %s to %s", cert.NotBefore.Format("2006-01-02"), cert.NotAfter.Format("2006-01-02"))
	}
	if _, err := cert.Verify(x509.VerifyOptions{Roots: a.stationCAs, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		return jpki.Actor{}, jpki.WrapError(jpki.ClientCertificateInvalid, err, "")
	}
	var s store.Station
	err := a.store.View(ctx, func(tx *store.Tx) (err error) { s, err = tx.Station(cert.Subject.CommonName); return err })
	if err != nil {
		return jpki.Actor{}, err
	}
	if s.Disabled || s.KeyHash != spkiHash(cert.RawSubjectPublicKeyInfo) {
		return jpki.Actor{}, jpki.Errorf(jpki.UnknownStation, "the certificate's key is not the enrolled one")
	}
	return s.Actor, nil
}

// Enrol admits a station under the name in its certificate, or gives it a new key.
func (a *Authority) Enrol(ctx context.Context, by, station jpki.Actor, cert *x509.Certificate) error {
	if station.ID != cert.Subject.CommonName {
		return jpki.Errorf(jpki.Malformed, "the certificate names another station")
	}
	if err := a.checkStation(station); err != nil {
		return err
	}
	now := a.now()
	return a.store.Update(ctx, func(tx *store.Tx) error {
		if err := tx.PutStation(store.Station{Actor: station, KeyHash: spkiHash(cert.RawSubjectPublicKeyInfo)}, now); err != nil {
			return err
		}
		return tx.Audit(now, by, "station.enrolled", station.ID, map[string]any{"role": station.Role, "municipality": station.Municipality, "key": spkiHash(cert.RawSubjectPublicKeyInfo)})
	})
}

// Disable shuts a station out at once.
func (a *Authority) Disable(ctx context.Context, by jpki.Actor, station string) error {
	now := a.now()
	return a.store.Update(ctx, func(tx *store.Tx) error {
		if err := tx.DisableStation(station, now); err != nil {
			return err
		}
		return tx.Audit(now, by, "station.disabled", station, nil)
	})
}

// spkiHash is how keys are told apart: the SHA-256 of the subjectPublicKeyInfo, hexadecimal.
func spkiHash(spki []byte) string {
	sum := sha256.Sum256(spki)
	return hex.EncodeToString(sum[:])
}
