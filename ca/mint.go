package ca

import (
	"fmt"
	"io"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/store"
)

// A Minter makes certificates of the profile's shape without rules, holders or records: test data for sandboxes and load
// tests. It is safe for concurrent use.
type Minter struct {
	a       *Authority
	issuers issuers
}

// NewMinter returns a minter for the issuers, one for each CA.
func NewMinter(p *Profile, list []Issuer, statusURL string, rand io.Reader) (*Minter, error) {
	by, err := newIssuers(p, list)
	if err != nil {
		return nil, err
	}
	return &Minter{&Authority{profile: p, statusURL: statusURL, rand: rand}, by}, nil
}

// Mint gives c, whose kind, times and partition, the holder's municipality, are set, a serial number and, when spki is not nil, a signed certificate
// for that key. Its end is moved to the end of its day in Japan: minted certificates pass the lints that issued ones pass.
func (m *Minter) Mint(c store.Certificate, attributes jpki.Attributes, spki []byte) (store.Certificate, error) {
	issuer := m.issuers[c.Kind.CA()]
	serial, err := jpki.NewSerial(m.a.rand)
	if err != nil {
		return c, err
	}
	c.ID, c.NotAfter = jpki.CertID{Issuer: issuer.ID, Serial: serial}, endOfDay(c.NotAfter, 0, 0).UTC()
	place, ok := m.a.profile.municipality(c.Partition)
	if !ok {
		return c, fmt.Errorf("partition %s is not in the profile", c.Partition)
	}
	c.Partition = m.a.profile.partition(c.Kind.CA(), place, serial)
	if spki == nil {
		return c, nil
	}
	name, err := m.a.commonName(c.Kind, place)
	if err != nil {
		return c, err
	}
	s, err := m.a.subject(&issuePlan{place: place, holder: store.Holder{Attributes: attributes}}, m.issuers, &c, publicKey{spki: spki}, nil, name)
	if err != nil {
		return c, err
	}
	draft, err := s.prepare()
	if err != nil {
		return c, err
	}
	if c.DER, err = issuer.sign(draft); err != nil {
		return c, err
	}
	c.KeyHash = spkiHash(spki)
	return c, nil
}
