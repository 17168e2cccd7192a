package path

import (
	"encoding/asn1"
	"errors"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cryptobyte_asn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// A der is what is left of some DER. What is read from it aliases it.
type der = cryptobyte.String

const (
	tagBoolean    = cryptobyte_asn1.BOOLEAN
	tagInteger    = cryptobyte_asn1.INTEGER
	tagBitString  = cryptobyte_asn1.BIT_STRING
	tagOctets     = cryptobyte_asn1.OCTET_STRING
	tagOID        = cryptobyte_asn1.OBJECT_IDENTIFIER
	tagEnumerated = cryptobyte_asn1.ENUM
	tagSequence   = cryptobyte_asn1.SEQUENCE
	tagSet        = cryptobyte_asn1.SET
)

var errDER = errors.New("not DER of the expected form")

// tagged returns the tag [n]; constructed if it is EXPLICIT or holds a SEQUENCE.
func tagged(n uint8, constructed bool) cryptobyte_asn1.Tag {
	t := cryptobyte_asn1.Tag(n).ContextSpecific()
	if constructed {
		t = t.Constructed()
	}
	return t
}

// sequence reads the one SEQUENCE that is all of b.
func sequence(b []byte) (der, bool) {
	s := der(b)
	var contents der
	ok := s.ReadASN1(&contents, tagSequence) && s.Empty()
	return contents, ok
}

// readOID reads an object identifier's contents octets, each arc in its shortest form.
func readOID(s *der) (string, bool) {
	var oid der
	if !s.ReadASN1(&oid, tagOID) || !validOID(oid) {
		return "", false
	}
	return string(oid), true
}

// maxOID bounds an object identifier: names in use have a dozen octets.
const maxOID = 128

func validOID(oid []byte) bool {
	if len(oid) == 0 || len(oid) > maxOID || oid[len(oid)-1]&0x80 != 0 {
		return false
	}
	first := true
	for _, b := range oid {
		if first && b == 0x80 {
			return false
		}
		first = b&0x80 == 0
	}
	return true
}

// An OID is the contents octets of an object identifier, which is how identifiers are compared here.
type OID string

// String returns the identifier as people write it, arcs and dots.
func (o OID) String() string { return dotted(string(o)) }

func dotted(oid string) string {
	if len(oid) > 40 {
		return "a long identifier"
	}
	var id asn1.ObjectIdentifier
	if _, err := asn1.Unmarshal(append([]byte{byte(tagOID), byte(len(oid))}, oid...), &id); err != nil {
		return "an identifier with a long arc"
	}
	return id.String()
}

// ParseOID reads an identifier as people write it.
func ParseOID(text string) (OID, error) {
	bad := errors.New("not an object identifier")
	var id asn1.ObjectIdentifier
	for arc := range strings.SplitSeq(text, ".") {
		n, err := strconv.ParseUint(arc, 10, 31)
		if err != nil || len(id) == 32 {
			return "", bad
		}
		id = append(id, int(n))
	}
	full, err := asn1.Marshal(id)
	if err != nil || len(full) > 127 {
		return "", bad
	}
	return OID(full[2:]), nil
}

// readInteger reads an INTEGER's contents octets in their shortest form, whatever its sign.
func readInteger(s *der) ([]byte, bool) {
	var n der
	if !s.ReadASN1(&n, tagInteger) || !shortest(n) {
		return nil, false
	}
	return n, true
}

func shortest(n []byte) bool {
	return len(n) == 1 || len(n) > 1 && (n[0] != 0 || n[1] >= 0x80) && (n[0] != 0xff || n[1] < 0x80)
}

// readCount reads an INTEGER that counts something. What is more than can matter is cut down to that.
func readCount(s *der, tag cryptobyte_asn1.Tag) (int, bool) {
	var n der
	if !s.ReadASN1(&n, tag) || !shortest(n) || n[0] >= 0x80 {
		return 0, false
	}
	const most = 1 << 20
	count := 0
	for _, b := range n {
		if count = count<<8 | int(b); count > most {
			return most, true
		}
	}
	return count, true
}

// readFlag reads a BOOLEAN DEFAULT FALSE. An encoded FALSE, which DER leaves out, is taken for what it says: old authorities
// wrote it, it is signed with the rest, and it has one meaning.
func readFlag(s *der, tag cryptobyte_asn1.Tag, flag *bool) bool {
	var value der
	var present bool
	if !s.ReadOptionalASN1(&value, &present, tag) {
		return false
	}
	*flag = present && len(value) == 1 && value[0] == 0xff
	return !present || len(value) == 1 && (value[0] == 0xff || value[0] == 0)
}

// readTime reads a Time: UTCTime or GeneralizedTime in UTC to the second (RFC 5280 §4.1.2.5). That years before 2050 are
// UTCTime binds the issuer; no reader can mistake the other.
func readTime(s *der, t *time.Time) bool {
	switch {
	case s.PeekASN1Tag(cryptobyte_asn1.UTCTime):
		var text der
		return s.ReadASN1(&text, cryptobyte_asn1.UTCTime) && len(text) == 13 && parseTime(text, 1, t)
	default:
		return readGeneralizedTime(s, t)
	}
}

func readGeneralizedTime(s *der, t *time.Time) bool {
	var text der
	return s.ReadASN1(&text, cryptobyte_asn1.GeneralizedTime) && len(text) == 15 && parseTime(text, 0, t)
}

// parseTime reads the pairs of digits of a time whose first n are absent.
func parseTime(text []byte, n int, t *time.Time) bool {
	var v [7]int // century, year, month, day, hour, minute, second
	if text[len(text)-1] != 'Z' {
		return false
	}
	for i := n; i < len(v); i++ {
		tens, ones := text[2*(i-n)]-'0', text[2*(i-n)+1]-'0'
		if tens > 9 || ones > 9 {
			return false
		}
		v[i] = 10*int(tens) + int(ones)
	}
	if n == 1 {
		v[0] = 20
		if v[1] >= 50 {
			v[0] = 19
		}
	}
	if v[2] < 1 || v[2] > 12 || v[3] < 1 || v[3] > 31 || v[4] > 23 || v[5] > 59 || v[6] > 59 {
		return false
	}
	*t = time.Date(100*v[0]+v[1], time.Month(v[2]), v[3], v[4], v[5], v[6], 0, time.UTC)
	return t.Day() == v[3] // there is no 31st of June
}

// readBits reads a BIT STRING of named bits; what is beyond sixteen is ignored. Trailing zeros, which DER strips, are
// admitted: they say what their absence says.
func readBits(s *der, tag cryptobyte_asn1.Tag) (bits uint16, ok bool) {
	var b der
	if !s.ReadASN1(&b, tag) {
		return 0, false
	}
	return bitsOf(b)
}

// bitsOf reads a BIT STRING's contents.
func bitsOf(b []byte) (bits uint16, ok bool) {
	if len(b) == 0 || b[0] > 7 || len(b) == 1 && b[0] != 0 || len(b) > 5 || len(b) > 1 && b[len(b)-1]&(1<<b[0]-1) != 0 {
		return 0, false
	}
	for i := range 16 {
		if 1+i/8 < len(b) && b[1+i/8]&(0x80>>(i%8)) != 0 {
			bits |= 1 << i
		}
	}
	return bits, true
}

// readSignature reads the BIT STRING of a signature. One that is not whole octets is none, and so it is read as empty, which
// no key has signed.
func readSignature(s *der, signature *[]byte) bool {
	var b der
	if !s.ReadASN1(&b, tagBitString) || len(b) == 0 || b[0] > 7 {
		return false
	}
	if b[0] == 0 {
		*signature = b[1:]
	}
	return true
}

// An extension as it stands in a certificate or a list.
type extension struct {
	oid      string // contents octets
	critical bool
	value    []byte
}

// maxExtensions bounds the extensions of one structure.
const maxExtensions = 64

// readExtensions reads a SEQUENCE OF Extension that is all of b: one at least, none twice (RFC 5280 §4.2).
func readExtensions(b []byte) ([]extension, error) {
	list, ok := sequence(b)
	if !ok || list.Empty() {
		return nil, errDER
	}
	all := make([]extension, 0, 12)
	for !list.Empty() {
		var ext, value der
		if !list.ReadASN1(&ext, tagSequence) {
			return nil, errDER
		}
		oid, ok := readOID(&ext)
		e := extension{oid: oid}
		if !ok || !readFlag(&ext, tagBoolean, &e.critical) || !ext.ReadASN1(&value, tagOctets) || !ext.Empty() {
			return nil, errDER
		}
		e.value = value
		if len(all) == maxExtensions {
			return nil, errors.New("more extensions than admitted")
		}
		for i := range all {
			if all[i].oid == oid {
				return nil, errors.New("extension " + dotted(oid) + " is there twice")
			}
		}
		all = append(all, e)
	}
	return all, nil
}
