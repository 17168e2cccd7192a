package ca

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"sync"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// A form is a digest of all of a holder's certificate but the values that zlint's lints do not judge and ours bind: see
// [formOf]. What zlint says of one certificate it says of all of its form.
type form [sha256.Size]byte

// formOf returns the form of a certificate that our lints have passed; ok is false when it is not built as we build them, so
// that zlint has to look at it. Every octet counts but these, of which the right column says what binds them:
//
//	the serial number's value                       lint serial: positive, of 16 octets
//	the digits of the times; not the day of the     lint validity, and Go read them; a lint is in effect from a day on,
//	first, nor the year of a GeneralizedTime        and RFC 5280 §4.1.2.5 wants UTCTime until 2049
//	a common name of capitals and digits, not       lint subject
//	its length
//	the key's bits, not its algorithm and size      lint subject-key
//	the subjectKeyIdentifier's 20 octets            lint subject-key-identifier
//	the texts in subjectAltName's otherNames        lint attributes
func formOf(der []byte) (f form, ok bool) {
	w := make([]byte, 0, maxCertificate)
	outer, whole := cryptobyte.String(der), cryptobyte.String(nil)
	var tbs, fields, number, between, validity, from, to, subject, spki, keyAlgorithm, bits, explicit, list cryptobyte.String
	if !outer.ReadASN1(&whole, cbasn1.SEQUENCE) || !outer.Empty() || !whole.ReadASN1(&fields, cbasn1.SEQUENCE) {
		return f, false
	}
	w = piece(w, whole) // the algorithm and the signature that is none
	tbs = fields
	if !tbs.ReadASN1Element(&between, constructed(0)) { // version
		return f, false
	}
	w = piece(w, between)
	if !tbs.ReadASN1(&number, cbasn1.INTEGER) {
		return f, false
	}
	w = append(w, byte(len(number)))
	for range 2 { // algorithm, issuer
		if !tbs.ReadASN1Element(&between, cbasn1.SEQUENCE) {
			return f, false
		}
		w = piece(w, between)
	}
	var first, last cbasn1.Tag
	if !tbs.ReadASN1(&validity, cbasn1.SEQUENCE) || !validity.ReadAnyASN1(&from, &first) || !validity.ReadAnyASN1(&to, &last) || !validity.Empty() ||
		!tbs.ReadASN1(&subject, cbasn1.SEQUENCE) || !tbs.ReadASN1(&spki, cbasn1.SEQUENCE) ||
		!spki.ReadASN1Element(&keyAlgorithm, cbasn1.SEQUENCE) || !spki.ReadASN1(&bits, cbasn1.BIT_STRING) || !spki.Empty() ||
		!tbs.ReadASN1(&explicit, constructed(3)) || !tbs.Empty() || !explicit.ReadASN1(&list, cbasn1.SEQUENCE) || !explicit.Empty() {
		return f, false
	}
	days, years := 6, 0 // YYMMDD
	if first == cbasn1.GeneralizedTime {
		days = 8
	}
	if last == cbasn1.GeneralizedTime {
		years = 4
	}
	w = digitless(append(w, byte(first)), from, days)
	w = digitless(append(w, byte(last)), to, years)
	if w, ok = nameForm(w, subject); !ok {
		return f, false
	}
	w = piece(w, keyAlgorithm)
	w = binary.BigEndian.AppendUint16(w, uint16(len(bits)))
	for !list.Empty() {
		var extension, id, value cryptobyte.String
		if !list.ReadASN1(&extension, cbasn1.SEQUENCE) || !extension.ReadASN1(&id, cbasn1.OBJECT_IDENTIFIER) {
			return f, false
		}
		w = piece(w, id)
		if extension.PeekASN1Tag(cbasn1.BOOLEAN) {
			if !extension.ReadASN1Element(&between, cbasn1.BOOLEAN) {
				return f, false
			}
			w = piece(w, between)
		}
		if !extension.ReadASN1(&value, cbasn1.OCTET_STRING) || !extension.Empty() {
			return f, false
		}
		switch string(id) {
		case "\x55\x1d\x0e": // subjectKeyIdentifier
			var key cryptobyte.String
			if !value.ReadASN1(&key, cbasn1.OCTET_STRING) || !value.Empty() {
				return f, false
			}
			w = append(w, byte(len(key)))
		case "\x55\x1d\x11": // subjectAltName
			if w, ok = otherNamesForm(w, value); !ok {
				return f, false
			}
		default:
			w = piece(w, value)
		}
	}
	return sha256.Sum256(w), true
}

// piece writes octets and how many they are, so that two different lists of pieces are never one text.
func piece(w, octets []byte) []byte {
	return append(binary.BigEndian.AppendUint16(w, uint16(len(octets))), octets...)
}

// digitless writes a time, from its first octets on without its digits.
func digitless(w, text []byte, keep int) []byte {
	blank := slices.Clone(text)
	for i := min(keep, len(text)); i < len(blank); i++ {
		if blank[i] >= '0' && blank[i] <= '9' {
			blank[i] = '0'
		}
	}
	return piece(w, blank)
}

// nameForm writes a name, and of a common name of capitals and digits the length only.
func nameForm(w []byte, name cryptobyte.String) ([]byte, bool) {
	for !name.Empty() {
		var rdn, attribute, id, value cryptobyte.String
		var tag cbasn1.Tag
		if !name.ReadASN1(&rdn, cbasn1.SET) || !rdn.ReadASN1(&attribute, cbasn1.SEQUENCE) || !rdn.Empty() ||
			!attribute.ReadASN1(&id, cbasn1.OBJECT_IDENTIFIER) || !attribute.ReadAnyASN1(&value, &tag) || !attribute.Empty() {
			return w, false
		}
		w = append(piece(w, id), byte(tag))
		odd := slices.ContainsFunc(value, func(c byte) bool { return (c < '0' || c > '9') && (c < 'A' || c > 'Z') })
		if string(id) == "\x55\x04\x03" && !odd {
			w = append(w, 0xff, byte(len(value))) // no piece is as long as this begins
			continue
		}
		w = piece(w, value)
	}
	return w, true
}

// otherNamesForm writes the types of otherNames that are UTF8Strings.
func otherNamesForm(w []byte, value cryptobyte.String) ([]byte, bool) {
	var names cryptobyte.String
	if !value.ReadASN1(&names, cbasn1.SEQUENCE) || !value.Empty() || names.Empty() {
		return w, false
	}
	for !names.Empty() {
		var name, id, wrapped, text cryptobyte.String
		if !names.ReadASN1(&name, constructed(0)) || !name.ReadASN1(&id, cbasn1.OBJECT_IDENTIFIER) ||
			!name.ReadASN1(&wrapped, constructed(0)) || !name.Empty() || !wrapped.ReadASN1(&text, cbasn1.UTF8String) || !wrapped.Empty() {
			return w, false
		}
		w = piece(w, id)
	}
	return w, true
}

// passed remembers the forms that zlint has passed. It is safe for concurrent use; nil remembers nothing.
type passed struct {
	mu    sync.Mutex
	forms map[form]struct{}
}

// maxForms bounds how many forms are remembered: a day has one for each municipality and kind.
const maxForms = 1 << 14

func (p *passed) has(f form) bool {
	if p == nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	_, known := p.forms[f]
	return known
}

func (p *passed) add(f form) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.forms == nil || len(p.forms) >= maxForms {
		p.forms = map[form]struct{}{}
	}
	p.forms[f] = struct{}{}
}
