package ca

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"sync"
	"time"

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
	if err := a.stationCerts.verify(cert, now); err != nil {
		return jpki.Actor{}, jpki.WrapError(jpki.ClientCertificateInvalid, err, "")
	}
	s, err := a.station(ctx, cert.Subject.CommonName)
	if err != nil {
		return jpki.Actor{}, err
	}
	if s.Disabled || s.KeyHash != spkiHash(cert.RawSubjectPublicKeyInfo) {
		return jpki.Actor{}, jpki.Errorf(jpki.UnknownStation, "the certificate's key is not the enrolled one")
	}
	return s.Actor, nil
}

// A lookUp is a request's question who a station is.
type lookUp struct {
	name  string
	found store.Station
	err   error
}

// lookUpTime bounds one query for stations.
const lookUpTime = 5 * time.Second

// station asks the database for each request, for a station that was shut out is refused from then on. Requests that come
// while a query is under way share the next: none is answered by a query that had begun before it came.
func (a *Authority) station(ctx context.Context, name string) (store.Station, error) {
	l := &lookUp{name: name}
	if !a.lookingUp.do(ctx, l, func() {}) {
		return store.Station{}, jpki.WrapError(jpki.Unavailable, ctx.Err(), "the database does not answer")
	}
	return l.found, l.err
}

// lookUpAll answers a round of questions by one query.
func (a *Authority) lookUpAll(list []*lookUp, done func(int)) {
	ctx, cancel := context.WithTimeout(context.Background(), lookUpTime) // of nobody in particular
	defer cancel()
	names := make([]string, len(list))
	for i, l := range list {
		names[i] = l.name
	}
	found, err := a.store.Stations(ctx, names)
	for i, l := range list {
		var known bool
		if l.found, known = found[l.name]; err != nil {
			l.err = err
		} else if !known {
			l.err = jpki.Errorf(jpki.UnknownStation, "")
		}
		done(i)
	}
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

// verifiedCerts verifies client certificates and remembers for how long a verdict holds: stations ask all day with the
// same certificate, and its signature does not change. It is safe for concurrent use.
type verifiedCerts struct {
	roots *x509.CertPool

	mu    sync.Mutex
	until map[[sha256.Size]byte]window
}

// A window is when a whole chain is valid.
type window struct{ from, to time.Time }

// maxVerified bounds how many certificates are remembered.
const maxVerified = 4096

func (v *verifiedCerts) verify(cert *x509.Certificate, now time.Time) error {
	id := sha256.Sum256(cert.Raw)
	v.mu.Lock()
	w, known := v.until[id]
	v.mu.Unlock()
	if known && !now.Before(w.from) && !now.After(w.to) {
		return nil
	}
	chains, err := cert.Verify(x509.VerifyOptions{Roots: v.roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	if err != nil {
		return err
	}
	w = window{cert.NotBefore, cert.NotAfter}
	for _, c := range chains[0] {
		if c.NotBefore.After(w.from) {
			w.from = c.NotBefore
		}
		if c.NotAfter.Before(w.to) {
			w.to = c.NotAfter
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.until == nil || len(v.until) >= maxVerified {
		v.until = map[[sha256.Size]byte]window{}
	}
	v.until[id] = w
	return nil
}
