package acme

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"math/big"
	"time"

	"github.com/smallstep/certificates/db"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/store"
)

// database shows our store to the embedded authority, whose interface has no contexts. Certificates are recorded by
// ca.Authority, so it does not store any. Of SSH there is nothing.
type database struct{ e *Enrolment }

// patience bounds a database call that smallstep makes.
const patience = 10 * time.Second

// remember is how long the identifiers of used tokens are kept: far beyond maxTokenLife.
const remember = 24 * time.Hour

// UseToken spends a token; false if it was spent before.
func (d database) UseToken(id, _ string) (bool, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	sum, now := sha256.Sum256([]byte(id)), d.e.Now()
	var fresh bool
	err := d.e.Store.Update(ctx, func(tx *store.Tx) (err error) {
		fresh, err = tx.UseToken(hex.EncodeToString(sum[:]), now, now.Add(-remember))
		return err
	})
	return fresh, err
}

// IsRevoked reports whether a certificate, by its decimal serial number, has been revoked. One that is not recorded was
// made by a ceremony and is ended by disabling the station.
func (d database) IsRevoked(sn string) (bool, error) {
	c, err := d.certificate(sn)
	if errors.Is(err, jpki.UnknownCertificate) {
		return false, nil
	}
	return c.Revoked != nil, err
}

// GetCertificate returns an issued certificate by its decimal serial number.
func (d database) GetCertificate(sn string) (*x509.Certificate, error) {
	c, err := d.certificate(sn)
	if err != nil {
		return nil, err
	}
	if c.DER == nil {
		return nil, jpki.Errorf(jpki.UnknownCertificate, "")
	}
	return x509.ParseCertificate(c.DER)
}

// Revoke ends a certificate on the station's own order. A phone's has ended by now; see service.RevokeCertificate.
func (d database) Revoke(rci *db.RevokedCertificateInfo) error {
	if rci.ACME {
		return nil
	}
	c, err := d.certificate(rci.Serial)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err = d.e.Authority.RevokeStation(ctx, d.e.stations[c.Station].Actor, c.Serial)
	if errors.Is(err, jpki.ForbiddenChange) {
		return db.ErrAlreadyExists
	}
	return err
}

func (d database) certificate(sn string) (store.StationCertificate, error) {
	n, ok := new(big.Int).SetString(sn, 10)
	if !ok {
		return store.StationCertificate{}, jpki.Errorf(jpki.UnknownCertificate, "")
	}
	serial, err := jpki.SerialFromBig(n)
	if err != nil {
		return store.StationCertificate{}, jpki.Errorf(jpki.UnknownCertificate, "")
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var c store.StationCertificate
	err = d.e.Store.View(ctx, func(tx *store.Tx) (err error) { c, err = tx.StationCertificate(serial); return err })
	return c, err
}

// IsSSHRevoked and the following have no meaning here.
func (database) IsSSHRevoked(string) (bool, error) { return false, db.ErrNotImplemented }

// RevokeSSH has no meaning here.
func (database) RevokeSSH(*db.RevokedCertificateInfo) error { return db.ErrNotImplemented }

// IsSSHHost has no meaning here.
func (database) IsSSHHost(string) (bool, error) { return false, db.ErrNotImplemented }

// GetSSHHostPrincipals has no meaning here.
func (database) GetSSHHostPrincipals() ([]string, error) { return nil, db.ErrNotImplemented }

// Shutdown does nothing: the store is not ours to close.
func (database) Shutdown() error { return nil }
