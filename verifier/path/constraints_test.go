package path_test

import (
	"strings"
	"testing"

	"github.com/openjpki/jpki/verifier/path"
)

// Names held against constraints (RFC 5280 §4.2.1.10). The first octet of a constraint is its kind.
func TestConstraints(t *testing.T) {
	const mail, dns, uri, ip = 1, 2, 6, 7
	kind := func(k byte, values ...string) (out [][2]string) {
		for _, v := range values {
			out = append(out, [2]string{string(k), v})
		}
		return out
	}
	tests := []struct {
		name                string
		permitted, excluded [][2]string
		kind                uint8
		value               string
		want                string // part of the reason; "" if admitted
		bad                 bool   // the constraint is none
	}{
		{"the host itself", kind(dns, "example.com"), nil, dns, "EXAMPLE.com", "", false},
		{"below", kind(dns, "example.com"), nil, dns, "a.b.example.com", "", false},
		{"beside", kind(dns, "example.com"), nil, dns, "anexample.com", "outside", false},
		{"above", kind(dns, "a.example.com"), nil, dns, "example.com", "outside", false},
		{"one of two", kind(dns, "x.test", "example.com"), nil, dns, "example.com", "", false},
		{"all hosts", kind(dns, ""), nil, dns, "example.com", "", false},
		{"no hosts", nil, kind(dns, ""), dns, "example.com", "excluded", false},
		{"excluded below permitted", kind(dns, "example.com"), kind(dns, "a.example.com"), dns, "b.a.example.com", "excluded", false},
		{"wildcard inside", kind(dns, "example.com"), nil, dns, "*.example.com", "", false},
		{"wildcard wider than permitted", kind(dns, "a.example.com"), nil, dns, "*.example.com", "outside", false},
		{"wildcard that covers what is excluded", nil, kind(dns, "a.example.com"), dns, "*.example.com", "excluded", false},
		{"wildcard beside what is excluded", nil, kind(dns, "b.a.example.com"), dns, "*.example.com", "", false},
		{"a host that is none", kind(dns, "example.com"), nil, dns, "a..example.com", "cannot be held", false},
		{"a host that is none, elsewhere", kind(mail, "example.com"), nil, dns, "a..example.com", "", false},
		{"leading dot", kind(dns, ".example.com"), nil, dns, "a.example.com", "", true},
		{"wildcard in a constraint", kind(dns, "*.example.com"), nil, dns, "a.example.com", "", true},

		{"mailbox", kind(mail, "a@example.com"), nil, mail, "a@EXAMPLE.com", "", false},
		{"another mailbox", kind(mail, "a@example.com"), nil, mail, "A@example.com", "outside", false},
		{"quoted mailbox", kind(mail, "a@example.com"), nil, mail, `"a"@example.com`, "", false},
		{"quoted at sign", kind(mail, "example.com"), nil, mail, `"a@evil.test"@example.com`, "", false},
		{"two at signs", kind(mail, "example.com"), nil, mail, "a@evil.test@example.com", "cannot be held", false},
		{"all at a host", kind(mail, "example.com"), nil, mail, "a@example.com", "", false},
		{"below a host", kind(mail, "example.com"), nil, mail, "a@b.example.com", "outside", false},
		{"all below a domain", kind(mail, ".example.com"), nil, mail, "a@b.example.com", "", false},
		{"the domain itself", kind(mail, ".example.com"), nil, mail, "a@example.com", "outside", false},
		{"star is a letter", kind(mail, "*@example.com"), nil, mail, "*@example.com", "", false},
		{"star is only a letter", kind(mail, "*@example.com"), nil, mail, "a@example.com", "outside", false},
		{"excluded host", nil, kind(mail, "example.com"), mail, "a@example.com", "excluded", false},
		{"no mailbox", nil, kind(mail, "example.com"), mail, "example.com", "cannot be held", false},

		{"URI host", kind(uri, "example.com"), nil, uri, "https://example.com/x", "", false},
		{"URI with port and user", kind(uri, "example.com"), nil, uri, "https://u:p@EXAMPLE.com:8443/x", "", false},
		{"URI below a host", kind(uri, "example.com"), nil, uri, "https://a.example.com/", "outside", false},
		{"URI below a domain", kind(uri, ".example.com"), nil, uri, "https://a.b.example.com/", "", false},
		{"URI at an address", kind(uri, "example.com"), nil, uri, "https://192.0.2.1/", "cannot be held", false},
		{"URI at an address in IPv6", nil, kind(uri, "example.com"), uri, "https://[::1]/", "cannot be held", false},
		{"URI without host", nil, kind(uri, "example.com"), uri, "urn:isbn:1", "cannot be held", false},
		{"URI that tricks", nil, kind(uri, "evil.test"), uri, "https://example.com\\@evil.test/", "cannot be held", false},

		{"address", kind(ip, "\xc0\x00\x02\x00\xff\xff\xff\x00"), nil, ip, "\xc0\x00\x02\x07", "", false},
		{"address outside", kind(ip, "\xc0\x00\x02\x00\xff\xff\xff\x00"), nil, ip, "\xc0\x00\x03\x07", "outside", false},
		{"address of the other family", kind(ip, "\xc0\x00\x02\x00\xff\xff\xff\x00"), nil, ip, strings.Repeat("\x00", 16), "outside", false},
		{"every address excluded", nil, kind(ip, strings.Repeat("\x00", 8)), ip, "\x01\x02\x03\x04", "excluded", false},
		{"mask with a hole", kind(ip, "\xc0\x00\x02\x00\xff\x00\xff\x00"), nil, ip, "\xc0\x00\x02\x07", "", true},
		{"mask of a wrong length", kind(ip, "\xc0\x00\x02\x00\xff"), nil, ip, "\xc0\x00\x02\x07", "", true},

		{"a kind without meaning", kind(8, "\x2a\x03"), nil, 8, "\x2a\x03", "cannot be evaluated", false},
		{"a kind without meaning, absent", kind(8, "\x2a\x03"), nil, dns, "example.com", "", false},
		{"otherName excluded", nil, kind(0, "\x06\x01\x2a"), 0, "\x06\x01\x2a", "cannot be evaluated", false},
	}
	for _, test := range tests {
		why, err := path.Admits(test.permitted, test.excluded, test.kind, test.value)
		switch {
		case (err != nil) != test.bad:
			t.Errorf("%s: %v", test.name, err)
		case err == nil && (why == "") != (test.want == ""), !strings.Contains(why, test.want):
			t.Errorf("%s: %q", test.name, why)
		}
	}
}

// Names that are the same to people are the same (RFC 5280 §7.1), others are not.
func TestNames(t *testing.T) {
	const printable, utf8, bmp, latin = 19, 12, 30, 20
	name := func(tag byte, value string) []byte {
		av := append([]byte{0x06, 3, 0x55, 4, 3, tag, byte(len(value))}, value...)
		av = append([]byte{0x30, byte(len(av))}, av...)
		av = append([]byte{0x31, byte(len(av))}, av...)
		return append([]byte{0x30, byte(len(av))}, av...)
	}
	tests := []struct {
		a, b []byte
		same bool
	}{
		{name(printable, "Alice Example"), name(utf8, "alice  example "), true},
		{name(printable, "Alice Example"), name(printable, "AliceExample"), false},
		{name(utf8, "電子署名 CA"), name(utf8, "電子署名  ca"), true},
		{name(utf8, "é"), name(latin, "\xc9"), true},
		{name(utf8, "ı"), name(utf8, "i"), false},
		{name(utf8, "K"), name(utf8, "k"), true}, // KELVIN SIGN
		{name(bmp, "\x00A\x65\xe5"), name(utf8, "a月"), false},
		{name(bmp, "\x00A\x65\xe5"), name(utf8, "a日"), true},
		{name(utf8, "\xff"), name(utf8, "\xfe"), false},
		{name(utf8, "\xff"), name(utf8, "\xff"), true},
		{name(printable, ""), name(printable, " "), true},
		{name(4, "A"), name(4, "a"), false}, // not text
	}
	for i, test := range tests {
		if same, ok := path.SameName(test.a, test.b); !ok || same != test.same {
			t.Errorf("%d: same %v, names %v", i, same, ok)
		}
	}
	// The order within one RDN is not that of the octets once case is gone.
	av := func(tag byte, oid byte, value string) string {
		return "\x30" + string(rune(7+len(value))) + "\x06\x03\x55\x04" + string(rune(oid)) + string(rune(tag)) + string(rune(len(value))) + value
	}
	set := func(parts ...string) []byte {
		all := strings.Join(parts, "")
		return []byte("\x30" + string(rune(2+len(all))) + "\x31" + string(rune(len(all))) + all)
	}
	if same, ok := path.SameName(set(av(printable, 3, "B"), av(utf8, 3, "a")), set(av(utf8, 3, "A"), av(printable, 3, "b"))); !ok || !same {
		t.Error("a set in another order is another name")
	}
}
