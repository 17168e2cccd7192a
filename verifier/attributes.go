package verifier

import (
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/openjpki/jpki"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// The contents octets, but for the last, of 1.2.392.200149.8.5.5.n, the arc of the four attributes.
const attributeArc = "\x2a\x83\x08\x8c\x9b\x55\x08\x05\x05"

const (
	maxAltNames     = 32
	maxAltNameBytes = 4 << 10 // 200 characters of address and 100 of name in UTF-8 come to a third of it
)

// ParseAttributes reads the holder's four attributes from the DER value of a signature certificate's subjectAltName:
// otherName entries whose type ends in 1 (name), 4 (birth date), 3 (sex), 5 (address) and, where characters had to be
// substituted, 2 and 6 (their positions in name and address; absent and empty are the same). Other names are passed over.
// Errors name the field at fault and never its contents.
func ParseAttributes(san []byte) (*jpki.Attributes, error) {
	if len(san) > maxAltNameBytes {
		return nil, fmt.Errorf("subjectAltName is longer than %d octets", maxAltNameBytes)
	}
	var a jpki.Attributes
	var sex, birth string
	fields := map[byte]struct {
		name     string
		to       *string
		required bool
	}{
		1: {"name", &a.Name, true}, 2: {"name_substitutes", &a.NameSubstitutes, false},
		3: {"sex", &sex, true}, 4: {"birth_date", &birth, true},
		5: {"address", &a.Address, true}, 6: {"address_substitutes", &a.AddressSubstitutes, false},
	}
	der := cryptobyte.String(san)
	var names cryptobyte.String
	if !der.ReadASN1(&names, asn1.SEQUENCE) || !der.Empty() {
		return nil, errors.New("subjectAltName is not DER")
	}
	seen := map[byte]bool{}
	for n := 0; !names.Empty(); n++ {
		var name cryptobyte.String
		var tag asn1.Tag
		if n == maxAltNames || !names.ReadAnyASN1(&name, &tag) {
			return nil, errors.New("subjectAltName is not DER or has too many names")
		}
		if tag != asn1.Tag(0).ContextSpecific().Constructed() {
			continue // not an otherName
		}
		var oid, value, text cryptobyte.String
		if !name.ReadASN1(&oid, asn1.OBJECT_IDENTIFIER) || !name.ReadASN1(&value, asn1.Tag(0).ContextSpecific().Constructed()) || !name.Empty() {
			return nil, errors.New("an otherName is not DER")
		}
		if len(oid) != len(attributeArc)+1 || string(oid[:len(attributeArc)]) != attributeArc {
			continue
		}
		last := oid[len(attributeArc)]
		field, known := fields[last]
		if !known {
			continue
		}
		if seen[last] {
			return nil, fmt.Errorf("%s occurs twice", field.name)
		}
		seen[last] = true
		if !value.ReadASN1(&text, asn1.UTF8String) || !value.Empty() || !utf8.Valid(text) {
			return nil, fmt.Errorf("%s is not a UTF8String", field.name)
		}
		*field.to = string(text)
	}
	for last := byte(1); last <= 6; last++ {
		if f := fields[last]; f.required && !seen[last] {
			return nil, fmt.Errorf("%s is missing", f.name)
		}
	}
	a.Sex, a.BirthDate = jpki.Sex(sex), jpki.BirthDate(birth)
	if err := a.Validate(); err != nil {
		return nil, err
	}
	return &a, nil
}
