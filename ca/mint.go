package ca

import (
	"errors"
	"fmt"
	"io"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/store"
)

// A Minter makes certificates of the profile's shape without rules, holders or records: test data for sandboxes and load
// tests. It is safe for concurrent use.
type Minter struct{ a *Authority }

// NewMinter returns a minter for the issuers, one for each CA.
func NewMinter(p *Profile, issuers []Issuer, statusURL string, rand io.Reader) (*Minter, error) {
	a := &Authority{profile: p, issuers: map[jpki.CA]*Issuer{}, statusURL: statusURL, rand: rand}
	for _, i := range issuers {
		if err := i.check(p); err != nil {
			return nil, fmt.Errorf("ca: issuer %s: %w", i.ID, err)
		}
		a.issuers[i.ID.CA] = &i
	}
	if len(a.issuers) != len(jpki.CAs) {
		return nil, errors.New("ca: a minter needs an issuer for each CA")
	}
	return &Minter{a}, nil
}

// Mint gives c, whose kind, partition and times are set, a serial number and, when spki is not nil, a signed certificate
// for that key.
func (m *Minter) Mint(c store.Certificate, attributes jpki.Attributes, spki []byte) (store.Certificate, error) {
	issuer := m.a.issuers[c.Kind.CA()]
	serial, err := jpki.NewSerial(m.a.rand)
	if err != nil {
		return c, err
	}
	c.ID = jpki.CertID{Issuer: issuer.ID, Serial: serial}
	if spki == nil {
		return c, nil
	}
	place, ok := m.a.profile.municipality(c.Partition)
	if !ok {
		return c, fmt.Errorf("partition %s is not in the profile", c.Partition)
	}
	s, err := m.a.subject(&issuePlan{place: place, holder: store.Holder{Attributes: attributes}}, &c, publicKey{spki: spki})
	if err != nil {
		return c, err
	}
	tbs, err := s.tbs()
	if err != nil {
		return c, fmt.Errorf("build certificate: %w", err)
	}
	cert, err := issuer.sign(tbs)
	if err != nil {
		return c, err
	}
	c.DER, c.KeyHash = cert.Raw, spkiHash(spki)
	return c, nil
}
