package path

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sort"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/verifier/primitive"
)

// A reasonMask is a set of ReasonFlags: bit n is flag n (RFC 5280 §4.2.1.13), of which 1 to 8 exist.
type reasonMask uint16

const allReasons reasonMask = 0x1fe

func readReasons(b []byte) (reasonMask, error) {
	bits, ok := bitsOf(b)
	if mask := reasonMask(bits) & allReasons; ok && mask != 0 {
		return mask, nil
	}
	return 0, errors.New("reasons that are none")
}

// MaxCRLBytes bounds a list that is held in memory. Package crl reads longer ones from a stream.
const MaxCRLBytes = 64 << 20

// A CRL is a complete or delta certificate revocation list of any scope (RFC 5280 §5). It aliases Raw; nothing in it is
// changed after [ParseCRL].
type CRL struct {
	Raw                    []byte
	SHA256                 [32]byte
	Issuer                 Name
	ThisUpdate, NextUpdate time.Time
	Number                 []byte // contents octets of the CRL number
	Base                   []byte // of a delta the number of the list it is added to; nil for a complete list
	AuthorityKeyID         []byte
	Entries                int

	scope         []byte // the issuingDistributionPoint's value; nil if absent
	points        []generalName
	onlyUser      bool
	onlyCA        bool
	onlyAttribute bool
	indirect      bool
	reasons       reasonMask

	tbs       []byte
	algorithm []byte
	signature []byte
	revoked   []byte // contents of revokedCertificates
	index     []crlIndex
	issuers   []Name // of entries in indirect lists; the first is Issuer
	fault     string // why the list says nothing about anybody
}

// crlIndex says where an entry is and whose certificate it means. The index is in the order of serials.
type crlIndex struct{ offset, issuer uint32 }

// A crlEntry is one entry.
type crlEntry struct {
	serial  []byte
	at      time.Time
	reason  jpki.Reason
	invalid time.Time // invalidityDate (RFC 5280 §5.3.2); zero if absent
	removed bool
}

// ParseCRL reads a list in DER. As with certificates, a list with a faulty or unknown critical extension is read, so that
// it can be looked at, but nobody's status is taken from it.
func ParseCRL(raw []byte) (*CRL, error) {
	if len(raw) > MaxCRLBytes {
		return nil, fmt.Errorf("parse CRL: longer than %d octets", MaxCRLBytes)
	}
	l := &CRL{Raw: raw, SHA256: sha256.Sum256(raw), reasons: allReasons}
	if err := l.parse(); err != nil {
		return nil, fmt.Errorf("parse CRL: %w", err)
	}
	return l, nil
}

func (l *CRL) parse() (err error) {
	var tbs, alg, inner, revoked, wrapped der
	body, ok := sequence(l.Raw)
	if !ok || !body.ReadASN1Element(&tbs, tagSequence) || !body.ReadASN1Element(&alg, tagSequence) ||
		!readSignature(&body, &l.signature) || !body.Empty() {
		return errDER
	}
	l.tbs, l.algorithm = tbs, alg
	in, _ := sequence(tbs)
	version := 0
	if in.PeekASN1Tag(tagInteger) {
		if version, ok = readCount(&in, tagInteger); !ok || version != 1 {
			return errors.New("not of version 2")
		}
	}
	if !in.ReadASN1Element(&inner, tagSequence) {
		return errDER
	}
	if !bytes.Equal(inner, alg) {
		return errors.New("the two signature algorithms differ")
	}
	if l.Issuer, err = readName(&in); err != nil {
		return fmt.Errorf("issuer: %w", err)
	}
	if !readTime(&in, &l.ThisUpdate) {
		return errors.New("thisUpdate is none")
	}
	if !in.PeekASN1Tag(tagSequence) && !in.PeekASN1Tag(tagged(0, true)) && !in.Empty() {
		if !readTime(&in, &l.NextUpdate) {
			return errors.New("nextUpdate is none")
		}
	}
	l.issuers = []Name{l.Issuer}
	if in.PeekASN1Tag(tagSequence) {
		if !in.ReadASN1(&revoked, tagSequence) {
			return errDER
		}
	}
	present := false
	if !in.ReadOptionalASN1(&wrapped, &present, tagged(0, true)) || !in.Empty() {
		return errDER
	}
	if present {
		if version != 1 {
			return errors.New("extensions, but not of version 2")
		}
		if err := l.readExtensions(wrapped); err != nil {
			return err
		}
	}
	l.revoked = revoked
	if err := l.readEntries(); err != nil {
		return err
	}
	switch { // what RFC 5280 §5 demands of every list
	case l.fault != "":
	case l.Number == nil:
		l.fault = "no CRL number (§5.2.3)"
	case l.NextUpdate.IsZero():
		l.fault = "no nextUpdate (§5.1.2.5)"
	case l.Issuer.Empty():
		l.fault = "the issuer has no name (§5.1.2.3)"
	}
	return nil
}

func (l *CRL) refuse(why string) {
	if l.fault == "" {
		l.fault = why
	}
}

func (l *CRL) readExtensions(wrapped []byte) error {
	extensions, err := readExtensions(wrapped)
	if err != nil {
		return err
	}
	for _, e := range extensions {
		ok := true
		value := der(e.value)
		switch e.oid {
		case extAuthorityKeyID:
			l.AuthorityKeyID, ok = readAuthorityKeyID(value)
		case extIssuerAltName:
		case extCRLNumber:
			l.Number, ok = readNumber(value)
			if e.critical {
				l.refuse("critical CRL number (§5.2.3)")
			}
		case extDeltaIndicator:
			l.Base, ok = readNumber(value)
			if !e.critical {
				l.refuse("delta CRL indicator that is not critical (§5.2.4)")
			}
		case extIssuingPoint:
			l.scope = e.value
			ok = l.readScope(value)
		case extFreshest:
			_, err := readPoints(value, l.Issuer)
			ok = err == nil
		case extExpiredOnCRL, extAuthorityAccess:
		default:
			if e.critical {
				l.refuse("critical extension " + dotted(e.oid))
			}
		}
		if !ok {
			l.refuse("extension " + dotted(e.oid) + ": " + errDER.Error())
		}
	}
	return nil
}

// readNumber reads a number of at most 20 octets (RFC 5280 §5.2.3).
func readNumber(value der) ([]byte, bool) {
	n, ok := readInteger(&value)
	return n, ok && value.Empty() && n[0] < 0x80 && len(n) <= 21
}

// readScope reads an IssuingDistributionPoint (RFC 5280 §5.2.5).
func (l *CRL) readScope(value der) bool {
	var body, point, reasons der
	var hasPoint, hasReasons bool
	if !value.ReadASN1(&body, tagSequence) || !value.Empty() || !body.ReadOptionalASN1(&point, &hasPoint, tagged(0, true)) {
		return false
	}
	if hasPoint {
		var err error
		if l.points, err = readPointName(point, l.Issuer); err != nil {
			return false
		}
	}
	if !readFlag(&body, tagged(1, false), &l.onlyUser) || !readFlag(&body, tagged(2, false), &l.onlyCA) ||
		!body.ReadOptionalASN1(&reasons, &hasReasons, tagged(3, false)) || !readFlag(&body, tagged(4, false), &l.indirect) ||
		!readFlag(&body, tagged(5, false), &l.onlyAttribute) || !body.Empty() {
		return false
	}
	if hasReasons {
		var err error
		if l.reasons, err = readReasons(reasons); err != nil {
			return false
		}
	}
	return true
}

// readEntries checks every entry and makes the index.
func (l *CRL) readEntries() error {
	in := der(l.revoked)
	issuer := uint32(0)
	sortedAlready := true
	var last []byte
	l.index = make([]crlIndex, 0, len(l.revoked)/36)
	for !in.Empty() {
		offset := uint32(len(l.revoked) - len(in))
		var e crlEntry
		name, fault, ok := readEntry(&in, &e)
		if !ok {
			return errors.New("an entry is " + errDER.Error())
		}
		if fault != "" {
			l.refuse(fault)
		}
		if name != nil {
			if !l.indirect {
				l.refuse("an entry of another issuer in a list that is not indirect (§5.3.3)")
			}
			l.issuers = append(l.issuers, *name)
			issuer = uint32(len(l.issuers) - 1)
		}
		if e.removed && l.Base == nil {
			l.refuse("an entry removed from a list that is no delta (§5.3.1)")
		}
		l.index = append(l.index, crlIndex{offset, issuer})
		sortedAlready = sortedAlready && compareSerials(last, e.serial) < 0
		last = e.serial
	}
	l.Entries = len(l.index)
	if sortedAlready {
		return nil
	}
	sort.Slice(l.index, func(a, b int) bool {
		return compareSerials(l.serial(a), l.serial(b)) < 0
	})
	for i := 1; i < len(l.index); i++ {
		for k := i - 1; k >= 0 && k >= i-64 && bytes.Equal(l.serial(k), l.serial(i)); k-- {
			if l.issuers[l.index[k].issuer].Equal(l.issuers[l.index[i].issuer]) {
				l.refuse("a certificate is there twice")
			}
		}
	}
	return nil
}

// serial returns the serial of the entry at a place in the index.
func (l *CRL) serial(i int) []byte {
	in := der(l.revoked[l.index[i].offset:])
	var entry, serial der
	_ = in.ReadASN1(&entry, tagSequence) && entry.ReadASN1(&serial, tagInteger) // readEntries did it before
	return serial
}

func compareSerials(a, b []byte) int {
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	return bytes.Compare(a, b)
}

// find returns the entry of a certificate, nil if there is none.
func (l *CRL) find(issuer Name, serial []byte) *crlEntry {
	i, _ := slices.BinarySearchFunc(l.index, serial, func(x crlIndex, serial []byte) int {
		in := der(l.revoked[x.offset:])
		var entry, s der
		_ = in.ReadASN1(&entry, tagSequence) && entry.ReadASN1(&s, tagInteger)
		return compareSerials(s, serial)
	})
	for ; i < len(l.index) && bytes.Equal(l.serial(i), serial); i++ {
		if !l.issuers[l.index[i].issuer].Equal(issuer) {
			continue
		}
		in := der(l.revoked[l.index[i].offset:])
		e := &crlEntry{}
		if _, _, ok := readEntry(&in, e); ok {
			return e
		}
	}
	return nil
}

// reasonOnly is how an entry's extensions begin if they are a reasonCode, not critical, and nothing else; its value follows.
const reasonOnly = "\x30\x0c\x30\x0a\x06\x03\x55\x1d\x15\x04\x03\x0a\x01"

// readEntry reads an entry. name is the certificateIssuer's; fault is why the list cannot be used.
func readEntry(in *der, e *crlEntry) (name *Name, fault string, ok bool) {
	var entry der
	if !in.ReadASN1(&entry, tagSequence) {
		return nil, "", false
	}
	if e.serial, ok = readInteger(&entry); !ok || !readTime(&entry, &e.at) {
		return nil, "", false
	}
	switch {
	case entry.Empty():
		return nil, "", true
	case len(entry) == len(reasonOnly)+1 && string(entry[:len(reasonOnly)]) == reasonOnly:
		fault = e.setReason(int(entry[len(reasonOnly)]))
		return nil, fault, true
	}
	extensions, err := readExtensions(entry)
	if err != nil {
		return nil, "", false
	}
	for _, x := range extensions {
		value := der(x.value)
		bad := "entry extension " + dotted(x.oid) + ": " + errDER.Error()
		switch x.oid {
		case extReasonCode:
			code, ok := readCount(&value, tagEnumerated)
			if !ok || !value.Empty() {
				fault = bad
			} else if why := e.setReason(code); why != "" {
				fault = why
			}
		case extInvalidityDate:
			if !readGeneralizedTime(&value, &e.invalid) || !value.Empty() {
				fault = bad
			}
		case extCertIssuer:
			list, ok := sequence(value)
			var names []generalName
			if ok {
				names, err = readGeneralNames(list)
			}
			if i := slices.IndexFunc(names, func(g generalName) bool { return g.kind == directoryName }); ok && err == nil && i >= 0 {
				name = &names[i].dn
			} else {
				fault = bad
			}
		default:
			if x.critical {
				fault = "critical entry extension " + dotted(x.oid)
			}
		}
	}
	return name, fault, true
}

func (e *crlEntry) setReason(code int) string {
	if code > 10 || code == 7 {
		return "an entry with a reason that is none (§5.3.1)"
	}
	e.reason = jpki.Reason(code)
	e.removed = e.reason == jpki.RemoveFromCRL
	return ""
}

// Fault returns why nobody's status may be taken from the list; "" if nothing is wrong.
func (l *CRL) Fault() string { return l.fault }

// signedPart returns what the list's issuer signed.
func (l *CRL) signedPart() signed {
	alg, err := primitive.ParseAlgorithm(l.algorithm)
	return signed{sum: l.SHA256, message: l.tbs, algorithm: alg, err: err, signature: l.signature}
}
