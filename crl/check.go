package crl

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cryptobyte_asn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/openjpki/jpki"
)

// Check reports why the CRL new, in DER, must not take the place of old, which is nil if there is none. Both are read
// twice, by crypto/x509 and by the reader of long lists, neither of which shares code with [Build]. A CRL passes if
//   - it is complete and signed by the issuer's key, in the algorithm that goes with it, under the issuer's name and key identifier;
//   - it has the extensions of the scope and no others, so it is for this distribution point and critical where it must be;
//   - thisUpdate is not after now and nextUpdate is;
//   - its entries ascend, so none is there twice, were revoked not after now and have reasons that a complete CRL may have;
//   - old, which must be of the same issuer key and scope, has a smaller number and no later thisUpdate;
//   - every entry of old is still there or mayVanish allows that it is not: the certificate has expired, or its suspension
//     was ended. With a nil mayVanish none may vanish.
func Check(old, new []byte, issuer *x509.Certificate, scope Scope, now time.Time, mayVanish func(jpki.Serial) bool) error {
	err := checkSmall(old, new, issuer, scope, now, mayVanish)
	if err == nil {
		err = checkStream(old, new, issuer, scope, now, mayVanish)
	}
	if err != nil {
		return fmt.Errorf("check CRL %s: %w", scope.ID(), err)
	}
	return nil
}

// checkSmall is the half of Check that crypto/x509 does.
func checkSmall(old, new []byte, issuer *x509.Certificate, scope Scope, now time.Time, mayVanish func(jpki.Serial) bool) error {
	var prev *x509.RevocationList
	if old != nil {
		var err error
		if prev, err = parse(old, issuer, scope, false, true); err != nil {
			return fmt.Errorf("the published one: %w", err)
		}
	}
	next, err := parse(new, issuer, scope, false, false)
	if err == nil {
		err = compareLists(prev, next, now, mayVanish)
	}
	return err
}

// checkStream is the other half, which alone sees long lists.
func checkStream(old, new []byte, issuer *x509.Certificate, scope Scope, now time.Time, mayVanish func(jpki.Serial) bool) error {
	g := gate{now: now}
	if mayVanish != nil {
		g.mayVanish = func(s jpki.Serial) (bool, error) { return mayVanish(s), nil }
	}
	var err error
	if old != nil {
		if g.prev, err = openGateList(bytes.NewReader(old), int64(len(old)), issuer, scope, false, false); err != nil {
			return fmt.Errorf("the published one: %w", err)
		}
		g.prev.old = true
	}
	if g.next, err = openGateList(bytes.NewReader(new), int64(len(new)), issuer, scope, false, false); err != nil {
		return err
	}
	return firstError(g.pass, g.next.finish)
}

// parse reads a CRL and checks what can be checked of it alone and at any time.
func parse(der []byte, issuer *x509.Certificate, scope Scope, delta, published bool) (*x509.RevocationList, error) {
	if err := scope.Validate(); err != nil {
		return nil, err
	}
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, fmt.Errorf("parse: %w", err)
	}
	alg, err := algorithmOf(issuer.PublicKey)
	switch {
	case err != nil:
		return nil, err
	case len(list.Raw) != len(der):
		return nil, errors.New("something follows the CRL")
	case !bytes.Equal(list.RawIssuer, issuer.RawSubject):
		return nil, errors.New("the issuer's name is another")
	case len(issuer.SubjectKeyId) == 0 || !bytes.Equal(list.AuthorityKeyId, issuer.SubjectKeyId):
		return nil, errors.New("the authorityKeyIdentifier is of another key")
	case list.SignatureAlgorithm != alg.name:
		return nil, fmt.Errorf("signed with %v, want %v", list.SignatureAlgorithm, alg.name)
	}
	if err := list.CheckSignatureFrom(issuer); err != nil {
		return nil, fmt.Errorf("signature: %w", err)
	}
	check := checkExtensions
	if published {
		check = checkOldExtensions
	}
	if err := check(list.Extensions, list.Number, scope, delta); err != nil {
		return nil, err
	}
	return list, checkEntries(list.RevokedCertificateEntries, delta)
}

// checkOldExtensions checks a published list, which may have been made before its scope had deltas, or while it had.
func checkOldExtensions(found []pkix.Extension, number *big.Int, scope Scope, delta bool) error {
	scope.DeltaURL = ""
	found = slices.DeleteFunc(slices.Clone(found), func(e pkix.Extension) bool { return e.Id.Equal(oidFreshestCRL) && !e.Critical })
	return checkExtensions(found, number, scope, delta)
}

func checkExtensions(found []pkix.Extension, number *big.Int, scope Scope, delta bool) error {
	want := []pkix.Extension{{Id: oidAuthorityKeyIdentifier}, {Id: oidCRLNumber}}
	if delta {
		want = append(want, pkix.Extension{Id: oidDeltaCRLIndicator, Critical: true})
	}
	if scope.Partition != "" {
		idp, err := scope.issuingDistributionPoint()
		if err != nil {
			return err
		}
		want = append(want, pkix.Extension{Id: oidIssuingDistributionPoint, Critical: true, Value: idp})
	}
	if !delta && scope.DeltaURL != "" {
		want = append(want, pkix.Extension{Id: oidFreshestCRL, Value: scope.freshestCRL()})
	}
	if len(found) != len(want) {
		return fmt.Errorf("%d extensions, want %d for this scope", len(found), len(want))
	}
	for i, e := range found {
		switch {
		case !e.Id.Equal(want[i].Id) || e.Critical != want[i].Critical:
			return fmt.Errorf("extension %v (critical: %v), want %v (critical: %v)", e.Id, e.Critical, want[i].Id, want[i].Critical)
		case want[i].Value != nil && !bytes.Equal(e.Value, want[i].Value):
			return fmt.Errorf("the %s is not the scope's", map[bool]string{true: "issuingDistributionPoint", false: "freshestCRL"}[e.Critical])
		}
	}
	if number == nil || number.Sign() <= 0 || number.BitLen() > 20*8-1 {
		return errors.New("the number is not positive and of at most 20 octets")
	}
	return nil
}

func checkEntries(entries []x509.RevocationListEntry, delta bool) error {
	for i, e := range entries {
		serial, err := jpki.SerialFromBig(e.SerialNumber)
		switch {
		case err != nil:
			return fmt.Errorf("entry %d: %w", i, err)
		case i > 0 && entries[i-1].SerialNumber.Cmp(e.SerialNumber) >= 0:
			return fmt.Errorf("entry %s is there twice or out of order", serial)
		case (e.ReasonCode < 0 || e.ReasonCode > int(jpki.CertificateHold)) && (!delta || e.ReasonCode != int(jpki.RemoveFromCRL)):
			return fmt.Errorf("entry %s has reason %d", serial, e.ReasonCode)
		}
		// No extensions but reasonCode, and that only with something to say.
		var want []byte
		if e.ReasonCode != 0 {
			want = []byte{byte(cryptobyte_asn1.ENUM), 1, byte(e.ReasonCode)}
		}
		switch {
		case want == nil && len(e.Extensions) == 0:
		case want != nil && len(e.Extensions) == 1 && !e.Extensions[0].Critical && bytes.Equal(e.Extensions[0].Value, want):
		default:
			return fmt.Errorf("entry %s has other extensions than its reason", serial)
		}
	}
	return nil
}

// compareLists checks a parsed list against the clock and the one before it.
func compareLists(prev, next *x509.RevocationList, now time.Time, mayVanish func(jpki.Serial) bool) error {
	switch {
	case next.ThisUpdate.After(now):
		return errors.New("thisUpdate is in the future")
	case !next.NextUpdate.After(now):
		return errors.New("nextUpdate is not in the future")
	}
	for _, e := range next.RevokedCertificateEntries {
		if e.RevocationTime.After(now) {
			return fmt.Errorf("entry %X is not yet revoked", e.SerialNumber)
		}
	}
	if prev == nil {
		return nil
	}
	switch {
	case next.Number.Cmp(prev.Number) <= 0:
		return fmt.Errorf("number %v does not come after the published %v", next.Number, prev.Number)
	case next.ThisUpdate.Before(prev.ThisUpdate):
		return fmt.Errorf("thisUpdate %v is before the published %v", next.ThisUpdate, prev.ThisUpdate)
	}
	for _, e := range prev.RevokedCertificateEntries {
		_, found := slices.BinarySearchFunc(next.RevokedCertificateEntries, e.SerialNumber,
			func(e x509.RevocationListEntry, serial *big.Int) int { return e.SerialNumber.Cmp(serial) })
		if found {
			continue
		}
		serial, err := jpki.SerialFromBig(e.SerialNumber)
		if err != nil {
			return err
		}
		if mayVanish == nil || !mayVanish(serial) {
			return fmt.Errorf("entry %s has vanished, but its certificate has neither expired nor been released", serial)
		}
	}
	return nil
}

// maxHead is how much of a CRL is read for its times, in octets; before them there is nothing longer than the issuer's name.
const maxHead = 4 << 10

// readTimes reads thisUpdate and nextUpdate off the beginning of a CRL, of which there may be no more than that.
func readTimes(head []byte) (this, next time.Time, err error) {
	s := cryptobyte.String(head)
	var skipped cryptobyte.String
	version := 0
	list := skipHeader(&s)
	tbs := list && skipHeader(&s)
	ok := tbs && s.ReadASN1Integer(&version) && version == 1 &&
		s.ReadASN1(&skipped, cryptobyte_asn1.SEQUENCE) && // signature
		s.ReadASN1(&skipped, cryptobyte_asn1.SEQUENCE) && // issuer
		readTime(&s, &this) && readTime(&s, &next)
	if !ok {
		return time.Time{}, time.Time{}, errors.New("not the beginning of a CRL with a nextUpdate")
	}
	return this, next, nil
}

// skipHeader skips the tag and length of a SEQUENCE that may be longer than s.
func skipHeader(s *cryptobyte.String) bool {
	var tag, length uint8
	if !s.ReadUint8(&tag) || tag != tagSequence || !s.ReadUint8(&length) {
		return false
	}
	return length < 0x80 || length > 0x80 && length <= 0x84 && s.Skip(int(length&0x7f))
}

func readTime(s *cryptobyte.String, t *time.Time) bool {
	if s.PeekASN1Tag(cryptobyte_asn1.UTCTime) {
		return s.ReadASN1UTCTime(t)
	}
	return s.ReadASN1GeneralizedTime(t)
}
