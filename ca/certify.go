package ca

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/store"
)

// A StationOrder asks for a certificate for a station's key.
type StationOrder struct {
	Station jpki.Actor        // the station with its rights, from the operator's table, never from the request
	Key     []byte            // the subjectPublicKeyInfo, of whose private key possession has been proved
	Present *x509.Certificate // with which the station itself asks; nil when By admits it
	By      jpki.Actor        // who admits the station; not used when Present is set
}

// finish bounds what is done for a caller who may have hung up: sign and record.
const finish = 30 * time.Second

// CertifyStation has a station's key certified by the infrastructure CA and enrols the station with it, so that its
// former key stops. certify signs under the serial number it is given. A disabled station gets nothing, nor does one that
// presents a key it has replaced. Steps:
//  1. check the order; reserve the serial number (transaction 1)
//  2. sign; no transaction is open
//  3. record the certificate, enrol the key, write the audit entry (transaction 2)
//
// After a crash in between, the reservation stays without a certificate, and nobody is enrolled with its key.
func (a *Authority) CertifyStation(ctx context.Context, o StationOrder, certify func(jpki.Serial) (*x509.Certificate, error)) (*x509.Certificate, error) {
	by, former := o.By, ""
	if o.Present != nil {
		by, former = o.Station, spkiHash(o.Present.RawSubjectPublicKeyInfo)
	}
	if err := a.checkStation(o.Station); err != nil {
		return nil, err
	}
	if err := checkStationKey(o.Key); err != nil {
		return nil, err
	}
	serial, err := jpki.NewSerial(a.rand)
	if err != nil {
		return nil, err
	}
	hash := spkiHash(o.Key)
	err = a.store.Update(ctx, func(tx *store.Tx) error {
		s, err := tx.Station(o.Station.ID)
		switch {
		case errors.Is(err, jpki.UnknownStation) && o.Present == nil:
		case err != nil:
			return err
		case s.Disabled || former != "" && s.KeyHash != former:
			return jpki.Errorf(jpki.UnknownStation, "the station is disabled or has another key by now")
		}
		return tx.ReserveStationCertificate(store.StationCertificate{Serial: serial, Station: o.Station.ID, Actor: by.String(), KeyHash: hash}, a.now())
	})
	if err != nil {
		return nil, err
	}

	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finish)
	defer cancel()
	cert, err := certify(serial)
	if err != nil {
		return nil, fmt.Errorf("certify station: %w", err)
	}
	if cert.SerialNumber.Cmp(serial.Big()) != 0 || cert.Subject.CommonName != o.Station.ID || !bytes.Equal(cert.RawSubjectPublicKeyInfo, o.Key) {
		return nil, errors.New("certify station: the certificate is not what was ordered")
	}

	now := a.now()
	err = a.store.Update(ctx, func(tx *store.Tx) error {
		if err := tx.RecordStationCertificate(serial, cert.Raw, cert.NotAfter, now); err != nil {
			return err
		}
		if err := tx.EnrolKey(store.Station{Actor: o.Station, KeyHash: hash}, former, now); err != nil {
			return err
		}
		return tx.Audit(now, by, "station.certified", o.Station.ID, map[string]any{
			"role": o.Station.Role, "municipality": o.Station.Municipality, "serial": serial.String(), "key": hash, "former": former, "not_after": cert.NotAfter,
		})
	})
	if err != nil {
		return nil, err
	}
	return cert, nil
}

// RevokeStation ends a station's certificate that CertifyStation made and, when its key is the enrolled one, shuts the
// station out: a key that may be in other hands must not get another certificate. The problems are UnknownCertificate and
// ForbiddenChange.
func (a *Authority) RevokeStation(ctx context.Context, by jpki.Actor, serial jpki.Serial) error {
	now := a.now()
	return a.store.Update(ctx, func(tx *store.Tx) error {
		c, err := tx.StationCertificate(serial)
		if err != nil {
			return err
		}
		if err := tx.RevokeStationCertificate(serial, now); err != nil {
			return err
		}
		if err := tx.DisableKey(c.Station, c.KeyHash, now); err != nil {
			return err
		}
		return tx.Audit(now, by, "station.revoked", c.Station, map[string]any{"serial": serial.String(), "key": c.KeyHash})
	})
}

// checkStation reports why an actor cannot be a station.
func (a *Authority) checkStation(station jpki.Actor) error {
	if _, ok := a.profile.municipality(station.Municipality); station.Role == jpki.Counter && !ok {
		return jpki.Errorf(jpki.Malformed, "a counter needs a municipality of the profile")
	}
	return nil
}

// checkStationKey admits what every TLS stack has: P-256, P-384, and RSA from 2048 to 4096 bits.
func checkStationKey(spki []byte) error {
	key, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return jpki.WrapError(jpki.Malformed, err, "the key cannot be read")
	}
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() || k.Curve == elliptic.P384() {
			return nil
		}
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n >= 2048 && n <= 4096 && k.E == 65537 {
			return nil
		}
	}
	return jpki.Errorf(jpki.WeakKey, "a station's key is on P-256 or P-384, or RSA with 2048 to 4096 bits")
}
