package path

import (
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	cryptobyte_asn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// A Name is a distinguished name that can be compared.
type Name struct {
	Raw []byte // DER

	// key is the name in the form that is compared: every RDN with its length in front, so that a name is under another
	// exactly if its key begins with the other's.
	key    string
	emails []string // values of emailAddress, which constrain like rfc822Names (RFC 5280 §4.2.1.10)
}

// Limits of a name: what is longer is not a name anybody has.
const (
	maxRDNs  = 4096
	maxInRDN = 64
)

// Equal compares names as RFC 5280 §7.1 says: without regard to case, to the kind of string, and to the number of spaces. It
// knows no normal forms of Unicode beyond that: what differs in them is another name.
func (n Name) Equal(other Name) bool { return n.key == other.key }

// Empty reports whether the name has no part.
func (n Name) Empty() bool { return n.key == "" }

// under reports whether n is base or lies below it.
func (n Name) under(base Name) bool { return strings.HasPrefix(n.key, base.key) }

// readName reads a Name.
func readName(s *der) (Name, error) {
	var raw, rdns der
	if !s.ReadASN1Element(&raw, tagSequence) {
		return Name{}, errDER
	}
	n := Name{Raw: raw}
	rest := raw
	if !rest.ReadASN1(&rdns, tagSequence) {
		return Name{}, errDER
	}
	key := make([]byte, 0, len(raw)+16)
	for count := 0; !rdns.Empty(); count++ {
		if count == maxRDNs {
			return Name{}, errors.New("a name longer than admitted")
		}
		var rdn der
		if !rdns.ReadASN1(&rdn, tagSet) || rdn.Empty() {
			return Name{}, errDER
		}
		var err error
		if key, err = n.readRDN(key, rdn); err != nil {
			return Name{}, err
		}
	}
	n.key = string(key)
	return n, nil
}

const oidEmail = "\x2a\x86\x48\x86\xf7\x0d\x01\x09\x01" // emailAddress

// readRDN appends an RDN in compared form to key.
func (n *Name) readRDN(key []byte, rdn der) ([]byte, error) {
	start := len(key)
	key = append(key, 0, 0, 0, 0)
	var parts []string
	single := true
	for first := true; !rdn.Empty(); first = false {
		var attribute, value, contents der
		var tag cryptobyte_asn1.Tag
		if !rdn.ReadASN1(&attribute, tagSequence) {
			return nil, errDER
		}
		var oid der
		if !attribute.ReadASN1(&oid, tagOID) || !validOID(oid) || !attribute.ReadAnyASN1Element(&value, &tag) || !attribute.Empty() {
			return nil, errDER
		}
		whole := value
		if !whole.ReadAnyASN1(&contents, &tag) {
			return nil, errDER
		}
		if string(oid) == oidEmail { // of any kind of string: another kind than IA5String escapes no constraint
			n.emails = append(n.emails, string(contents))
		}
		single = first && rdn.Empty()
		if single {
			key = appendAttribute(key, oid, tag, contents, value)
			break
		}
		parts = append(parts, string(appendAttribute(nil, oid, tag, contents, value)))
		if len(parts) > maxInRDN {
			return nil, errors.New("a name with more in one part than admitted")
		}
	}
	if !single { // a set: its order in DER depends on case and kind of string, so it gets one of its own
		slices.Sort(parts)
		for _, p := range parts {
			key = append(key, p...)
		}
	}
	binary.BigEndian.PutUint32(key[start:], uint32(len(key)-start-4))
	return key, nil
}

// appendAttribute appends an attribute in compared form. Octets that are no text are compared as they are.
func appendAttribute(key []byte, oid []byte, tag cryptobyte_asn1.Tag, contents, whole []byte) []byte {
	key = append(key, byte(len(oid)))
	key = append(key, oid...)
	at := len(key)
	key = append(key, 0, 0, 0, 0, 't')
	folded, ok := appendText(key, tag, contents)
	if ok {
		key = folded
	} else {
		key[len(key)-1] = 'o'
		key = append(key, whole...)
	}
	binary.BigEndian.PutUint32(key[at:], uint32(len(key)-at-4))
	return key
}

const (
	tagUniversalString = cryptobyte_asn1.Tag(28)
	tagBMPString       = cryptobyte_asn1.Tag(30)
	tagNumericString   = cryptobyte_asn1.Tag(18)
	tagVisibleString   = cryptobyte_asn1.Tag(26)
)

// appendText appends a string in compared form: lower case, no space at the ends, one space where there are several.
func appendText(key []byte, tag cryptobyte_asn1.Tag, contents []byte) ([]byte, bool) {
	switch tag {
	case cryptobyte_asn1.PrintableString, cryptobyte_asn1.IA5String, tagNumericString, tagVisibleString:
		return appendASCII(key, contents)
	case cryptobyte_asn1.UTF8String:
		if out, ok := appendASCII(key, contents); ok {
			return out, true
		}
		if !utf8.Valid(contents) {
			return key, false
		}
		return appendRunes(key, []rune(string(contents))), true
	case cryptobyte_asn1.T61String: // in practice Latin-1
		runes := make([]rune, len(contents))
		for i, b := range contents {
			runes[i] = rune(b)
		}
		return appendRunes(key, runes), true
	case tagBMPString:
		if len(contents)%2 != 0 {
			return key, false
		}
		units := make([]uint16, len(contents)/2)
		for i := range units {
			units[i] = binary.BigEndian.Uint16(contents[2*i:])
		}
		return appendRunes(key, utf16.Decode(units)), true
	case tagUniversalString:
		if len(contents)%4 != 0 {
			return key, false
		}
		runes := make([]rune, len(contents)/4)
		for i := range runes {
			r := binary.BigEndian.Uint32(contents[4*i:])
			if r > unicode.MaxRune {
				return key, false
			}
			runes[i] = rune(r)
		}
		return appendRunes(key, runes), true
	}
	return key, false
}

func appendASCII(key, contents []byte) ([]byte, bool) {
	start := len(key)
	space := false
	for _, c := range contents {
		switch {
		case c >= 0x80:
			return key[:start], false
		case c == ' ' || c >= 9 && c <= 13:
			space = len(key) > start
			continue
		case c < ' ' || c == 0x7f: // mapped to nothing (RFC 4518 §2.2)
			continue
		case c >= 'A' && c <= 'Z':
			c += 'a' - 'A'
		}
		if space {
			key, space = append(key, ' '), false
		}
		key = append(key, c)
	}
	return key, true
}

func appendRunes(key []byte, runes []rune) []byte {
	start := len(key)
	space := false
	for _, r := range runes {
		switch {
		case unicode.IsSpace(r) || unicode.Is(unicode.Zs, r):
			space = len(key) > start
			continue
		case unicode.IsControl(r) || r == 0xad || r == 0x200b || r == 0xfeff:
			continue
		}
		if space {
			key, space = append(key, ' '), false
		}
		key = utf8.AppendRune(key, fold(r))
	}
	return key
}

// fold returns one of the runes that differ from r only in case, the same for each of them.
func fold(r rune) rune {
	least := r
	for other := unicode.SimpleFold(r); other != r; other = unicode.SimpleFold(other) {
		least = min(least, other)
	}
	if least >= 'A' && least <= 'Z' {
		least += 'a' - 'A' // as appendASCII has it
	}
	return least
}

// The kinds of general names, which are their tags (RFC 5280 §4.2.1.6).
const (
	otherName     = 0
	emailName     = 1
	dnsName       = 2
	x400Name      = 3
	directoryName = 4
	ediName       = 5
	uriName       = 6
	ipName        = 7
	registeredID  = 8
)

var kindNames = [...]string{"otherName", "rfc822Name", "dNSName", "x400Address", "directoryName", "ediPartyName", "uniformResourceIdentifier", "iPAddress", "registeredID"}

// A generalName is one name of a subjectAltName, a distribution point or a constraint.
type generalName struct {
	kind  uint8
	value []byte // contents octets
	dn    Name   // of a directoryName
}

// maxNames bounds the names of one list. Web servers have a hundred, seldom a thousand.
const maxNames = 8192

func readGeneralName(s *der) (generalName, error) {
	var value der
	var tag cryptobyte_asn1.Tag
	if !s.ReadAnyASN1(&value, &tag) {
		return generalName{}, errDER
	}
	kind := uint8(tag) & 0x1f
	if tag&0xc0 != 0x80 || kind > registeredID {
		return generalName{}, errDER
	}
	constructed := kind == otherName || kind == x400Name || kind == directoryName || kind == ediName
	if tag != tagged(kind, constructed) {
		return generalName{}, errDER
	}
	g := generalName{kind: kind, value: value}
	switch kind {
	case emailName, dnsName, uriName:
		for _, c := range value {
			if c >= 0x80 {
				return g, errors.New(kindNames[kind] + " is not ASCII")
			}
		}
	case directoryName:
		var err error
		rest := value
		if g.dn, err = readName(&rest); err != nil || !rest.Empty() {
			return g, errDER
		}
	case registeredID:
		if !validOID(value) {
			return g, errDER
		}
	}
	return g, nil
}

// readGeneralNames reads the contents of GeneralNames: one at least.
func readGeneralNames(list der) ([]generalName, error) {
	var names []generalName
	for !list.Empty() {
		if len(names) == maxNames {
			return nil, errors.New("more names than admitted")
		}
		g, err := readGeneralName(&list)
		if err != nil {
			return nil, err
		}
		names = append(names, g)
	}
	if names == nil {
		return nil, errors.New("a list of names without one")
	}
	return names, nil
}

// equal reports whether two general names are the same, directory names as [Name.Equal] says and others octet for octet.
func (g generalName) equal(other generalName) bool {
	if g.kind != other.kind {
		return false
	}
	if g.kind == directoryName {
		return g.dn.Equal(other.dn)
	}
	return string(g.value) == string(other.value)
}

// common reports whether two lists of names have one in common.
func common(a, b []generalName) bool {
	for _, g := range a {
		if slices.ContainsFunc(b, g.equal) {
			return true
		}
	}
	return false
}
