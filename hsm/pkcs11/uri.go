package pkcs11

import (
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A URI is what a PKCS #11 URI (RFC 7512) says, of what we admit: attributes that choose a token, a private key, a module
// and the file that holds the PIN. Empty fields are absent attributes.
type URI struct {
	Token        string // label, at most 32 octets
	Manufacturer string // at most 32 octets
	Model        string // at most 16 octets
	Serial       string // at most 16 octets
	SlotID       *uint64
	Object       string // CKA_LABEL, at most 128 octets
	ID           string // CKA_ID, at most 64 octets of any value
	Module       string // absolute path
	PINFile      string // absolute path
}

const maxURI = 1024 // octets

// attribute says where a URI's attribute goes, and in which order String writes it.
type attribute struct {
	name  string
	query bool
	max   int // octets, decoded
	field func(*URI) *string
}

var attributes = []attribute{
	{"token", false, 32, func(u *URI) *string { return &u.Token }},
	{"manufacturer", false, 32, func(u *URI) *string { return &u.Manufacturer }},
	{"model", false, 16, func(u *URI) *string { return &u.Model }},
	{"serial", false, 16, func(u *URI) *string { return &u.Serial }},
	{"object", false, 128, func(u *URI) *string { return &u.Object }},
	{"id", false, 64, func(u *URI) *string { return &u.ID }},
	{"module-path", true, 512, func(u *URI) *string { return &u.Module }},
	{"pin-source", true, 512, func(u *URI) *string { return &u.PINFile }},
}

// ParseURI parses a PKCS #11 URI strictly. RFC 7512 leaves to the reader what to do with attributes it does not know: they
// are refused, since a key that was not meant must not sign. So are repeated attributes, a PIN in the URI (pin-value), a type
// other than private, and a pin-source that is no file.
func ParseURI(s string) (URI, error) {
	var u URI
	rest, ok := strings.CutPrefix(s, "pkcs11:")
	if !ok || len(s) > maxURI {
		return URI{}, fmt.Errorf("key URI is not pkcs11: with at most %d octets", maxURI)
	}
	path, query, asked := strings.Cut(rest, "?")
	if asked && query == "" {
		return URI{}, errors.New("key URI has an empty query")
	}
	seen := map[string]bool{}
	for _, part := range []struct {
		text, separator string
		query           bool
	}{{path, ";", false}, {query, "&", true}} {
		if part.text == "" {
			continue
		}
		for pair := range strings.SplitSeq(part.text, part.separator) {
			name, raw, ok := strings.Cut(pair, "=")
			if !ok || seen[name] {
				return URI{}, fmt.Errorf("key URI: attribute %q has no value or comes twice", printable(name))
			}
			seen[name] = true
			value, err := unescape(raw, part.query)
			if err == nil {
				err = u.set(name, value, part.query)
			}
			if err != nil {
				return URI{}, fmt.Errorf("key URI: attribute %q: %w", printable(name), err)
			}
		}
	}
	return u, nil
}

// printable keeps what could be a secret out of an error: names of attributes are short.
func printable(name string) string {
	if len(name) > 24 {
		return name[:24] + "…"
	}
	return name
}

func (u *URI) set(name, value string, query bool) error {
	switch {
	case name == "pin-value" && query:
		return errors.New("a PIN does not belong into a URI: use pin-source=file:/path")
	case name == "type" && !query:
		if value != "private" {
			return errors.New("only private keys are meant here")
		}
		return nil
	case name == "slot-id" && !query:
		id, err := strconv.ParseUint(value, 10, 32)
		if err != nil || strconv.FormatUint(id, 10) != value {
			return errors.New("not a number of a slot")
		}
		u.SlotID = &id
		return nil
	}
	for _, a := range attributes {
		if a.name != name || a.query != query {
			continue
		}
		if name == "pin-source" {
			var ok bool
			if value, ok = strings.CutPrefix(value, "file:"); !ok {
				return errors.New("only file:/path is known")
			}
			if rest, ok := strings.CutPrefix(value, "//"); ok {
				value = rest
			}
		}
		switch {
		case value == "":
			return errors.New("empty")
		case len(value) > a.max:
			return fmt.Errorf("longer than %d octets", a.max)
		case name == "id":
		case !utf8.ValidString(value) || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f }):
			return errors.New("not printable UTF-8")
		case query && (!filepath.IsAbs(value) || filepath.Clean(value) != value):
			return errors.New("not an absolute, clean path")
		}
		*a.field(u) = value
		return nil
	}
	return errors.New("unknown")
}

// Characters that need no escape besides letters and digits (RFC 7512 §2.3, pk11-pchar and pk11-qchar).
const (
	plain      = "-._~:[]@!$'()*+,="
	plainPath  = plain + "&"
	plainQuery = plain + "/?|"
)

func unescape(s string, query bool) (string, error) {
	admitted := plainPath
	if query {
		admitted = plainQuery
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '%':
			if i+2 >= len(s) {
				return "", errors.New("a broken escape")
			}
			octet, err := hex.DecodeString(s[i+1 : i+3])
			if err != nil {
				return "", errors.New("a broken escape")
			}
			b.Write(octet)
			i += 2
		case isAlnum(c), strings.IndexByte(admitted, c) >= 0:
			b.WriteByte(c)
		default:
			return "", errors.New("a character that must be escaped")
		}
	}
	return b.String(), nil
}

func isAlnum(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

func escape(s, also string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if isAlnum(c) || strings.IndexByte("-._~"+also, c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// String returns the URI; ParseURI reads the same from it.
func (u URI) String() string {
	var path, query []string
	for _, a := range attributes {
		switch value := *a.field(&u); {
		case value == "":
		case a.name == "pin-source":
			query = append(query, "pin-source=file:"+escape(value, "/"))
		case a.query:
			query = append(query, a.name+"="+escape(value, "/"))
		default:
			path = append(path, a.name+"="+escape(value, ""))
		}
	}
	if u.SlotID != nil {
		path = append(path, "slot-id="+strconv.FormatUint(*u.SlotID, 10))
	}
	s := "pkcs11:" + strings.Join(path, ";")
	if query != nil {
		s += "?" + strings.Join(query, "&")
	}
	return s
}

// Check says what a URI of a key lacks to be used: a module, a PIN file, something that tells the token, and an object or id.
func (u URI) Check() error {
	switch {
	case u.Module == "":
		return errors.New("key URI has no module-path")
	case u.PINFile == "":
		return errors.New("key URI has no pin-source")
	case u.Token == "" && u.Serial == "" && u.SlotID == nil:
		return errors.New("key URI tells no token: token, serial or slot-id")
	case u.Object == "" && u.ID == "":
		return errors.New("key URI tells no key: object or id")
	}
	return nil
}

// WithoutKey returns the URI of the token alone: keys with the same one share a slot.
func (u URI) WithoutKey() URI {
	u.Object, u.ID = "", ""
	return u
}
