package verifier_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/verifier"
)

const arc = "1.2.392.200149.8.5.5."

// names builds a subjectAltName from pairs of identifier and text; an identifier that begins with "!" is written as
// PrintableString, the identifier "dns" as a dNSName.
func names(pairs ...string) []byte {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for i := 0; i < len(pairs); i += 2 {
			id, printable := strings.CutPrefix(pairs[i], "!")
			switch tag := cbasn1.UTF8String; {
			case id == "dns":
				b.AddASN1(cbasn1.Tag(2).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes([]byte(pairs[i+1])) })
			case printable:
				addOtherName(b, oid(id), cbasn1.PrintableString, pairs[i+1])
			default:
				addOtherName(b, oid(id), tag, pairs[i+1])
			}
		}
	})
	return b.BytesOrPanic()
}

func TestParseAttributes(t *testing.T) {
	plain := jpki.Attributes{Name: "John Ａ", Sex: jpki.SexUnknown, BirthDate: "400000000", Address: "県"}
	four := []string{arc + "1", "John Ａ", arc + "4", "400000000", arc + "3", "3", arc + "5", "県"}
	with := func(more ...string) []byte { return names(slices.Concat(four, more)...) }
	without := func(n int) []byte { return names(slices.Concat(four[:2*n], four[2*n+2:])...) }
	changed := func(n int, value string) []byte {
		c := slices.Clone(four)
		c[2*n+1] = value
		return names(c...)
	}
	for _, tc := range []struct {
		name string
		san  []byte
		want *jpki.Attributes
		err  string
	}{
		{"as on a card", altNames(taro), &taro, ""},
		{"without substitutes", with(), &plain, ""},
		{"empty substitutes", with(arc+"2", "", arc+"6", ""), &plain, ""},
		{"other names beside", with("dns", "example.com", "2.999.1", "x", arc+"7", "x", arc+"1.1", "x"), &plain, ""},
		{"another order", names(four[6], four[7], four[4], four[5], four[0], four[1], four[2], four[3]), &plain, ""},
		{"no name", without(0), nil, "name is missing"},
		{"no birth date", without(1), nil, "birth_date is missing"},
		{"no sex", without(2), nil, "sex is missing"},
		{"no address", without(3), nil, "address is missing"},
		{"empty name", changed(0, ""), nil, "name is empty"},
		{"name too long", changed(0, strings.Repeat("長", 101)), nil, "name is longer"},
		{"control character", changed(3, "県\n"), nil, "address contains a control character"},
		{"not UTF-8", changed(0, "\xff"), nil, "name is not a UTF8String"},
		{"no such sex", changed(2, "4"), nil, "sex is not one of"},
		{"no such date", changed(1, "420230229"), nil, "birth_date is no date"},
		{"marks too short", with(arc+"2", "0"), nil, "name_substitutes"},
		{"name twice", with(arc+"1", "other"), nil, "name occurs twice"},
		{"other string type", names("!"+arc+"1", "John", four[2], four[3], four[4], four[5], four[6], four[7]), nil, "name is not a UTF8String"},
		{"too many names", names(strings.Split(strings.Repeat("dns,x,", 32)+"dns,x", ",")...), nil, "too many names"},
		{"too long", with("dns", strings.Repeat("x", 4<<10)), nil, "longer than"},
		{"trailing octet", append(with(), 0), nil, "not DER"},
		{"nothing", nil, nil, "not DER"},
		{"a number", []byte{2, 1, 0}, nil, "not DER"},
		{"otherName with an octet after", []byte{0x30, 10, 0xa0, 8, 6, 1, 42, 0xa0, 2, 5, 0, 0}, nil, "not DER"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := verifier.ParseAttributes(tc.san)
			if (err != nil) != (tc.err != "") || err != nil && !strings.Contains(err.Error(), tc.err) {
				t.Fatalf("error %v, want %q", err, tc.err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// FuzzAttributes: what is accepted keeps the rules of package jpki and survives being written again.
func FuzzAttributes(f *testing.F) {
	f.Add(altNames(taro))
	f.Add(names(arc+"1", "A", arc+"4", "000000000", arc+"3", "9", arc+"5", "B", "dns", "x"))
	f.Add(names(arc+"1", "A", arc+"1", "B"))
	f.Add([]byte{0x30, 0x80, 0, 0})
	f.Fuzz(func(t *testing.T, san []byte) {
		a, err := verifier.ParseAttributes(san)
		if err != nil {
			if a != nil {
				t.Fatal("attributes with an error")
			}
			return
		}
		if err := a.Validate(); err != nil {
			t.Fatal(err)
		}
		again, err := verifier.ParseAttributes(altNames(*a))
		if err != nil {
			t.Fatal(err)
		}
		if *again != *a {
			t.Fatal("changed by writing and reading")
		}
	})
}
