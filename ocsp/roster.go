package ocsp

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"time"

	"github.com/openjpki/jpki"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// A roster is the set of delegates in force, found by what stands in a CertID.
type roster struct {
	issuers []*issuer
	named   map[string]named // by the octets of a CertID before the serial
}

// An issuer is one for whom answers are given, with its delegates, the default first.
type issuer struct {
	id    jpki.IssuerID
	seats []seat
}

// A seat is held by a delegate, which since the given time takes over from the previous one, a certificate at a time.
type seat struct {
	*delegate
	previous *delegate // nil if there was none
	since    time.Time
}

// A named is one of the ways to write an issuer into a CertID.
type named struct {
	*issuer
	form byte // tells the ways apart: the answer echoes the question's
	hash crypto.Hash
}

func newRoster(delegates []Delegate, cfg *Config, old *roster) (*roster, error) {
	if len(delegates) == 0 {
		return nil, errors.New("there is none")
	}
	now := cfg.Now()
	out := &roster{named: map[string]named{}}
	for _, given := range delegates {
		d, err := newDelegate(given, cfg)
		if err != nil {
			return nil, fmt.Errorf("delegate for %s: %w", given.Issuer, err)
		}
		i, err := out.issuer(d)
		if err != nil {
			return nil, err
		}
		for _, other := range i.seats {
			if other.algorithm.algorithm == d.algorithm.algorithm {
				return nil, fmt.Errorf("two for %s that sign alike", d.Issuer)
			}
		}
		i.seats = append(i.seats, d.follow(old, now, cfg.Handover))
	}
	return out, nil
}

// issuer returns the entry of the delegate's issuer, which it makes for the first delegate.
func (r *roster) issuer(d *delegate) (*issuer, error) {
	for _, i := range r.issuers {
		if i.id == d.Issuer {
			if !i.seats[0].IssuerCertificate.Equal(d.IssuerCertificate) {
				return nil, fmt.Errorf("two certificates of %s", d.Issuer)
			}
			return i, nil
		}
	}
	i := &issuer{id: d.Issuer}
	form := byte(0)
	for _, h := range hashes {
		name, key, err := issuerHashes(d.IssuerCertificate, h.hash)
		if err != nil {
			return nil, err
		}
		for _, null := range []bool{true, false} { // RFC 5754 leaves it out, most clients do not
			form++
			var b cryptobyte.Builder
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1(asn1.OBJECT_IDENTIFIER, func(b *cryptobyte.Builder) { b.AddBytes([]byte(h.oid)) })
				if null {
					b.AddASN1NULL()
				}
			})
			b.AddASN1OctetString(name)
			b.AddASN1OctetString(key)
			prefix, err := b.Bytes()
			if err != nil {
				return nil, err
			}
			if other, taken := r.named[string(prefix)]; taken {
				return nil, fmt.Errorf("two for %s: it is %s", d.Issuer, other.id)
			}
			r.named[string(prefix)] = named{issuer: i, form: form, hash: h.hash}
		}
	}
	r.issuers = append(r.issuers, i)
	return i, nil
}

// follow returns a seat in which the delegate takes over from the one before it, if there was one that signs alike, in the
// course of the given time: were it to do so at once, all answers that are kept would have to be signed anew at once.
func (d *delegate) follow(old *roster, now time.Time, handover time.Duration) seat {
	out := seat{delegate: d}
	if old == nil || handover <= 0 {
		return out
	}
	for _, i := range old.issuers {
		for _, before := range i.seats {
			switch {
			case i.id != d.Issuer || before.algorithm.algorithm != d.algorithm.algorithm:
			case before.tag != d.tag:
				out.previous, out.since = before.delegate, now
			case now.Sub(before.since) < handover: // the same again: a take-over goes on
				out.previous, out.since = before.previous, before.since
			}
		}
	}
	return out
}

// pick returns who signs about a certificate: by the first algorithm in the client's order that we have (RFC 6960
// §4.4.7.2), else the issuer's default; nil if nobody may sign at that time. random is any octet of the serial.
func (i *issuer) pick(at time.Time, random byte, preferred []preference, cfg *Config) *delegate {
	for _, p := range preferred {
		for _, s := range i.seats {
			if s.algorithm.oid == p.oid && (p.key == nil || bytes.Equal(p.key, s.keyKind)) {
				if d := s.holder(at, random, cfg); d != nil {
					return d
				}
			}
		}
	}
	for _, s := range i.seats {
		if d := s.holder(at, random, cfg); d != nil {
			return d
		}
	}
	return nil
}

// holder returns the delegate, or the one that it is taking over from, or nil if neither is valid.
func (s *seat) holder(at time.Time, random byte, cfg *Config) *delegate {
	if p := s.previous; p != nil && p.valid(at) {
		gone := at.Sub(s.since)
		early := gone < cfg.Handover && time.Duration(random)*cfg.Handover/256 >= gone && p.valid(at.Add(cfg.Validity))
		if early || !s.valid(at) {
			return p
		}
	}
	if s.valid(at) {
		return s.delegate
	}
	return nil
}
