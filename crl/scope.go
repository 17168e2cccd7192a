package crl

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cryptobyte_asn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/openjpki/jpki"
)

// An Entry is one revoked or suspended certificate.
type Entry struct {
	Serial jpki.Serial
	At     time.Time   // when it was revoked; a CRL says it to the second
	Reason jpki.Reason // Unspecified to CertificateHold; a CRL says nothing of Unspecified (RFC 5280 §5.3.1)
}

// An ID names one CRL: that of an issuer's certificates of one partition, or with an empty partition that of all of them.
// It is comparable.
type ID struct {
	Issuer    jpki.IssuerID
	Partition string // a municipality code, five or six digits, or a [Shard]
	Delta     bool   // its delta CRL
}

const (
	extension = ".crl"
	fullName  = "full"
	deltaName = "-delta"
)

// ParsePath reads the form that Path writes.
func ParsePath(s string) (ID, error) {
	issuer, name, ok := strings.Cut(s, "/")
	name, ok2 := strings.CutSuffix(name, extension)
	key, err := jpki.ParseIssuerID(issuer)
	name, delta := strings.CutSuffix(name, deltaName)
	id := ID{key, name, delta}
	if name == fullName {
		id.Partition = ""
	}
	if !ok || !ok2 || err != nil || name == "" || !id.valid() {
		return ID{}, errors.New("not of the form sign-1/99101.crl, sign-1/h7.crl, sign-1/full.crl or sign-1/99101-delta.crl")
	}
	return id, nil
}

// Path returns where the CRL lies below a directory or a URL: "sign-1/99101.crl", "sign-1/full.crl", "sign-1/99101-delta.crl".
func (id ID) Path() string { return id.String() + extension }

// String returns "sign-1/99101", "sign-1/full" or "sign-1/99101-delta".
func (id ID) String() string {
	name := id.Partition
	if name == "" {
		name = fullName
	}
	if id.Delta {
		name += deltaName
	}
	return id.Issuer.String() + "/" + name
}

func (id ID) valid() bool {
	if _, err := jpki.ParseIssuerID(id.Issuer.String()); err != nil {
		return false
	}
	if _, shard := ParseShard(id.Partition); shard {
		return true
	}
	for _, c := range []byte(id.Partition) {
		if c < '0' || c > '9' {
			return false
		}
	}
	return id.Partition == "" || len(id.Partition) == 5 || len(id.Partition) == 6
}

// A Scope is what a CRL covers and how certificates point to it. The certificate's cRLDistributionPoints and the CRL's
// issuingDistributionPoint are made from the same Scope, so that they cannot differ.
type Scope struct {
	Issuer        jpki.IssuerID
	Partition     string // a municipality code or a [Shard]; "" for the full CRL of the issuer
	DirectoryName []byte // DER of the distribution point's Name; nil for the full CRL
	URL           string // where the CRL is served: http, ending with "/" and the ID's path; of a partition it may be empty
	DeltaURL      string // where its delta CRLs are served, likewise; "" if there are none
}

// ID returns the CRL's name.
func (s Scope) ID() ID { return ID{Issuer: s.Issuer, Partition: s.Partition} }

// Validate reports the first thing wrong with a scope.
func (s Scope) Validate() error {
	if !s.ID().valid() {
		return fmt.Errorf("CRL scope %q: the partition is not a municipality code or a shard, or the issuer is none", s.ID())
	}
	delta := s.ID()
	delta.Delta = true
	for _, at := range []struct{ url, path string }{{s.URL, s.ID().Path()}, {s.DeltaURL, delta.Path()}} {
		u, err := url.Parse(at.url)
		if at.url != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.String() != at.url || !strings.HasSuffix(at.url, "/"+at.path)) {
			return fmt.Errorf("CRL scope %s: the URL is not one that ends with /%s", s.ID(), at.path)
		}
	}
	if s.Partition == "" {
		if s.DirectoryName != nil {
			return fmt.Errorf("CRL scope %s: a full CRL has no distribution point", s.ID())
		}
		return nil
	}
	var name pkix.RDNSequence
	if rest, err := asn1.Unmarshal(s.DirectoryName, &name); err != nil || len(rest) != 0 || len(name) == 0 {
		return fmt.Errorf("CRL scope %s: the directory name is not the DER of a Name", s.ID())
	}
	return nil
}

// CRLDistributionPoints returns the value of the extension by which certificates of a partition point to its CRL
// (RFC 5280 §4.2.1.13): one distribution point whose full name is the URL, if there is one, and the directory name.
func (s Scope) CRLDistributionPoints() ([]byte, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	if s.Partition == "" {
		return nil, errors.New("a full CRL has no distribution point")
	}
	var b cryptobyte.Builder
	b.AddASN1(cryptobyte_asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cryptobyte_asn1.SEQUENCE, s.addDistributionPoint)
	})
	return b.Bytes()
}

// issuingDistributionPoint returns the value of the CRL extension (RFC 5280 §5.2.5), which a partition's CRL has and a
// full one has not.
func (s Scope) issuingDistributionPoint() ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(cryptobyte_asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		s.addDistributionPoint(b)
		onlyContainsUserCerts := cryptobyte_asn1.Tag(1).ContextSpecific()
		b.AddASN1(onlyContainsUserCerts, func(b *cryptobyte.Builder) { b.AddUint8(0xff) })
	})
	return b.Bytes()
}

// freshestCRL returns the value of the extension by which a complete CRL says where its delta is (RFC 5280 §5.2.6).
func (s Scope) freshestCRL() []byte {
	var b cryptobyte.Builder
	explicit := cryptobyte_asn1.Tag(0).Constructed().ContextSpecific()
	b.AddASN1(cryptobyte_asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cryptobyte_asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(explicit, func(b *cryptobyte.Builder) {
				b.AddASN1(explicit, func(b *cryptobyte.Builder) {
					b.AddASN1(cryptobyte_asn1.Tag(6).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes([]byte(s.DeltaURL)) })
				})
			})
		})
	})
	return b.BytesOrPanic() // of one string, which has passed Validate
}

// addDistributionPoint adds the field that both extensions have: distributionPoint [0], of it the choice fullName [0].
// The URL comes first: some readers, Go's among them, look no further than the first name of another form.
func (s Scope) addDistributionPoint(b *cryptobyte.Builder) {
	explicit := func(n uint8) cryptobyte_asn1.Tag { return cryptobyte_asn1.Tag(n).Constructed().ContextSpecific() }
	b.AddASN1(explicit(0), func(b *cryptobyte.Builder) {
		b.AddASN1(explicit(0), func(b *cryptobyte.Builder) {
			if s.URL != "" {
				b.AddASN1(cryptobyte_asn1.Tag(6).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes([]byte(s.URL)) })
			}
			b.AddASN1(explicit(4), func(b *cryptobyte.Builder) { b.AddBytes(s.DirectoryName) })
		})
	})
}
