package crl

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cryptobyte_asn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/openjpki/jpki"
)

// A Head is what a CRL says besides its entries.
type Head struct {
	Issuer         []byte // DER of the Name
	AuthorityKeyID []byte // nil if the list has none
	ThisUpdate     time.Time
	NextUpdate     time.Time // zero if the list has none
	Number         *big.Int  // nil if the list has none
	Base           *big.Int  // of a delta CRL, the number of the complete list that it changes; nil of a complete list

	// What is listed (RFC 5280 §5.2.5); of a list of all that the issuer certified, all of it is zero.
	Points        [][]byte // names of the distribution point, each the DER of a GeneralName
	OnlyUser      bool     // no CA certificates
	OnlyCA        bool     // nothing but CA certificates
	OnlyAttribute bool     // nothing but attribute certificates
	Reasons       []jpki.Reason

	Freshest  []string // URLs of delta CRLs
	Algorithm x509.SignatureAlgorithm
	Entries   int
	Ascending bool // serials strictly ascend, so none is there twice

	scope []byte // issuingDistributionPoint as it stands there; nil if there is none
}

// Delta reports whether the list says only what changed since the list numbered Base.
func (h *Head) Delta() bool { return h.Base != nil }

// ErrNotFresh is the reason why a list may not be relied upon any more, or not yet.
var ErrNotFresh = errors.New("not fresh")

// Fresh reports why a list is not fresh at the time now: made later, beyond its nextUpdate, or, with a maxAge that is not zero,
// older than that. Without a nextUpdate, which RFC 5280 §5.1.2.5 demands, only a maxAge can say so.
func (h *Head) Fresh(now time.Time, maxAge time.Duration) error {
	switch {
	case h.ThisUpdate.After(now):
		return fmt.Errorf("%w: made later than now, at %s", ErrNotFresh, h.ThisUpdate.Format(time.RFC3339))
	case h.NextUpdate.IsZero() && maxAge == 0:
		return fmt.Errorf("%w: no nextUpdate says until when", ErrNotFresh)
	case !h.NextUpdate.IsZero() && !h.NextUpdate.After(now):
		return fmt.Errorf("%w: the next was due at %s", ErrNotFresh, h.NextUpdate.Format(time.RFC3339))
	case maxAge != 0 && now.Sub(h.ThisUpdate) > maxAge:
		return fmt.Errorf("%w: older than %s", ErrNotFresh, maxAge)
	}
	return nil
}

// ErrScope is the reason why a list says nothing about a certificate, or is not the one for an address.
var ErrScope = errors.New("not the list for this")

// Covers reports why the list says nothing about a certificate, or not everything (RFC 5280 §6.3.3 b): another issuer name or
// key, another kind of certificate, another distribution point, some reasons only.
func (h *Head) Covers(cert *x509.Certificate) error {
	switch {
	case !bytes.Equal(h.Issuer, cert.RawIssuer):
		return fmt.Errorf("%w: another issuer's", ErrScope)
	case h.AuthorityKeyID != nil && len(cert.AuthorityKeyId) > 0 && !bytes.Equal(h.AuthorityKeyID, cert.AuthorityKeyId):
		return fmt.Errorf("%w: another key's", ErrScope)
	case h.OnlyAttribute:
		return fmt.Errorf("%w: of attribute certificates only", ErrScope)
	case h.OnlyUser && cert.IsCA:
		return fmt.Errorf("%w: of user certificates only", ErrScope)
	case h.OnlyCA && !cert.IsCA:
		return fmt.Errorf("%w: of CA certificates only", ErrScope)
	case h.Reasons != nil:
		return fmt.Errorf("%w: for some reasons only", ErrScope)
	case h.Points == nil:
		return nil
	}
	named := [][]byte{directoryName(cert.RawIssuer)} // of a certificate that names no point (RFC 5280 §6.3.3)
	for _, ext := range cert.Extensions {
		if !ext.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 31}) {
			continue
		}
		var err error
		if named, err = readPoints(ext.Value, cert.RawIssuer); err != nil {
			return fmt.Errorf("%w: the certificate's distribution points: %w", ErrScope, err)
		}
	}
	for _, name := range h.Points {
		if slices.ContainsFunc(named, func(other []byte) bool { return bytes.Equal(name, other) }) {
			return nil
		}
	}
	return fmt.Errorf("%w: of another distribution point", ErrScope)
}

// URLs returns the addresses among the names of the distribution point.
func (h *Head) URLs() []string { return urlsOf(h.Points) }

// For reports why this is not the list to be had at a URL: its distribution point does not name it. Somebody may have put one
// partition's list in the place of another's, signed by the same key. A list of all that the issuer certified names none.
func (h *Head) For(url string) error {
	if !slices.Contains(h.URLs(), url) {
		return fmt.Errorf("%w: the distribution point is not %s", ErrScope, url)
	}
	return nil
}

// ErrIssuer is the reason why a list was refused if it names another issuer, or another of the issuer's keys.
var ErrIssuer = errors.New("of another issuer")

func (h *Head) checkIssuer(issuer *x509.Certificate) error {
	switch {
	case !bytes.Equal(h.Issuer, issuer.RawSubject):
		return fmt.Errorf("%w: the name is another", ErrIssuer)
	case h.AuthorityKeyID != nil && len(issuer.SubjectKeyId) > 0 && !bytes.Equal(h.AuthorityKeyID, issuer.SubjectKeyId):
		return fmt.Errorf("%w: the authorityKeyIdentifier is of another key", ErrIssuer)
	case issuer.KeyUsage != 0 && issuer.KeyUsage&x509.KeyUsageCRLSign == 0:
		return errors.New("the issuer's certificate does not let it sign CRLs")
	}
	return nil
}

// readExtensions reads crlExtensions, which are all of b, if anything.
func (h *Head) readExtensions(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	s := cryptobyte.String(b)
	var list cryptobyte.String
	if !s.ReadASN1(&list, contextTag(0, true)) || !s.Empty() {
		return errDER
	}
	return forExtensions(list, func(id string, critical bool, value cryptobyte.String) (err error) {
		switch id {
		case extAuthorityKeyID:
			var aki, key cryptobyte.String
			var present bool
			if !value.ReadASN1(&aki, cryptobyte_asn1.SEQUENCE) || !value.Empty() || !aki.ReadOptionalASN1(&key, &present, contextTag(0, false)) {
				return errors.New("the authorityKeyIdentifier is none")
			}
			if present {
				h.AuthorityKeyID = bytes.Clone(key)
			}
		case extCRLNumber:
			h.Number, err = readNumber(value)
		case extDeltaIndicator:
			if !critical {
				return errors.New("the deltaCRLIndicator is not critical")
			}
			h.Base, err = readNumber(value)
		case extIssuingPoint:
			h.scope = bytes.Clone(value)
			err = h.readIssuingPoint(value)
		case extFreshest:
			var names [][]byte
			if names, err = readPoints(value, h.Issuer); err != nil {
				return fmt.Errorf("freshestCRL: %w", err)
			}
			h.Freshest = urlsOf(names)
		case extIssuerAltName: // says nothing about what is listed
		default:
			if critical {
				return fmt.Errorf("%x is critical and unknown", id)
			}
		}
		return err
	})
}

func (h *Head) readIssuingPoint(value cryptobyte.String) error {
	bad := errors.New("the issuingDistributionPoint is none")
	var idp, point, reasons cryptobyte.String
	var hasPoint, hasReasons bool
	if !value.ReadASN1(&idp, cryptobyte_asn1.SEQUENCE) || !value.Empty() || idp.Empty() || !idp.ReadOptionalASN1(&point, &hasPoint, contextTag(0, true)) {
		return bad
	}
	if hasPoint {
		var err error
		if h.Points, err = readPointName(point, h.Issuer); err != nil {
			return err
		}
	}
	indirect := false
	ok := readFlag(&idp, 1, &h.OnlyUser) && readFlag(&idp, 2, &h.OnlyCA) && idp.ReadOptionalASN1(&reasons, &hasReasons, contextTag(3, false)) &&
		readFlag(&idp, 4, &indirect) && readFlag(&idp, 5, &h.OnlyAttribute) && idp.Empty()
	only := 0
	for _, flag := range []bool{h.OnlyUser, h.OnlyCA, h.OnlyAttribute} {
		if flag {
			only++
		}
	}
	switch {
	case !ok:
		return bad
	case indirect:
		return ErrIndirect
	case only > 1:
		return errors.New("the issuingDistributionPoint lists only one kind of certificate and only another")
	}
	if hasReasons {
		var err error
		h.Reasons, err = readReasons(reasons)
		return err
	}
	return nil
}

// readReasons reads the contents of ReasonFlags, whose bits 7 and 8 are the reasons 9 and 10 (RFC 5280 §4.2.1.13, §5.3.1).
func readReasons(b []byte) ([]jpki.Reason, error) {
	bad := errors.New("the reasons are none")
	if len(b) < 2 || len(b) > 3 || b[0] > 7 {
		return nil, bad
	}
	bits := 8*(len(b)-1) - int(b[0])
	if bits > 9 || b[len(b)-1]&(1<<b[0]-1) != 0 {
		return nil, bad
	}
	var reasons []jpki.Reason
	for i := range bits {
		switch set := b[1+i/8]&(0x80>>(i%8)) != 0; {
		case !set || i == 0:
		case i >= 7:
			reasons = append(reasons, jpki.Reason(i+2))
		default:
			reasons = append(reasons, jpki.Reason(i))
		}
	}
	if reasons == nil {
		return nil, bad
	}
	return reasons, nil
}

// readFlag reads [n] IMPLICIT BOOLEAN DEFAULT FALSE, which is there only to be TRUE.
func readFlag(s *cryptobyte.String, n uint8, flag *bool) bool {
	var value cryptobyte.String
	if !s.ReadOptionalASN1(&value, flag, contextTag(n, false)) {
		return false
	}
	return !*flag || len(value) == 1 && value[0] == 0xff
}

func contextTag(n uint8, constructed bool) cryptobyte_asn1.Tag {
	if constructed {
		return cryptobyte_asn1.Tag(n).ContextSpecific().Constructed()
	}
	return cryptobyte_asn1.Tag(n).ContextSpecific()
}

// readPoints reads CRLDistributionPoints and returns the names of those that tell all about the certificates of the issuer
// itself: neither for some reasons only nor with lists of another issuer.
func readPoints(b, issuer []byte) ([][]byte, error) {
	bad := errors.New("not distribution points")
	s := cryptobyte.String(b)
	var all cryptobyte.String
	if !s.ReadASN1(&all, cryptobyte_asn1.SEQUENCE) || !s.Empty() || all.Empty() {
		return nil, bad
	}
	var names [][]byte
	for !all.Empty() {
		var point, name, reasons, other cryptobyte.String
		var hasName, hasReasons, hasOther bool
		if !all.ReadASN1(&point, cryptobyte_asn1.SEQUENCE) || !point.ReadOptionalASN1(&name, &hasName, contextTag(0, true)) ||
			!point.ReadOptionalASN1(&reasons, &hasReasons, contextTag(1, false)) || !point.ReadOptionalASN1(&other, &hasOther, contextTag(2, true)) || !point.Empty() {
			return nil, bad
		}
		if !hasName || hasReasons || hasOther {
			continue
		}
		more, err := readPointName(name, issuer)
		if err != nil {
			return nil, err
		}
		names = append(names, more...)
	}
	return names, nil
}

// maxNames bounds the names of one distribution point.
const maxNames = 64

// readPointName reads a DistributionPointName: names as they stand there, or one relative to the issuer's, which is completed.
func readPointName(s cryptobyte.String, issuer []byte) ([][]byte, error) {
	bad := errors.New("the distribution point's name is none")
	var full, relative cryptobyte.String
	var isFull, isRelative bool
	if !s.ReadOptionalASN1(&full, &isFull, contextTag(0, true)) || !s.ReadOptionalASN1(&relative, &isRelative, contextTag(1, true)) || !s.Empty() || isFull == isRelative {
		return nil, bad
	}
	if isRelative {
		name := cryptobyte.String(issuer)
		var rdns cryptobyte.String
		if !name.ReadASN1(&rdns, cryptobyte_asn1.SEQUENCE) || relative.Empty() {
			return nil, bad
		}
		var b cryptobyte.Builder
		b.AddASN1(cryptobyte_asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddBytes(rdns)
			b.AddASN1(cryptobyte_asn1.SET, func(b *cryptobyte.Builder) { b.AddBytes(relative) })
		})
		der, err := b.Bytes()
		return [][]byte{directoryName(der)}, err
	}
	var names [][]byte
	for !full.Empty() {
		var name cryptobyte.String
		var tag cryptobyte_asn1.Tag
		if !full.ReadAnyASN1Element(&name, &tag) || tag&0xc0 != 0x80 || len(names) == maxNames {
			return nil, bad
		}
		names = append(names, bytes.Clone(name))
	}
	if names == nil {
		return nil, bad
	}
	return names, nil
}

// directoryName returns the GeneralName directoryName of a Name.
func directoryName(name []byte) []byte {
	var b cryptobyte.Builder
	b.AddASN1(contextTag(4, true), func(b *cryptobyte.Builder) { b.AddBytes(name) })
	der, err := b.Bytes()
	if err != nil {
		return nil
	}
	return der
}

// urlsOf returns the uniformResourceIdentifiers among GeneralNames.
func urlsOf(names [][]byte) (urls []string) {
	for _, name := range names {
		s := cryptobyte.String(name)
		var url cryptobyte.String
		if s.ReadASN1(&url, contextTag(6, false)) {
			urls = append(urls, string(url))
		}
	}
	return urls
}
