package ca

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func TestSubstitution(t *testing.T) {
	characters := sandboxCharacters()
	for name, c := range map[string]struct{ text, marks, written, positions string }{
		"level 1 and 2, ideographic space":         {"砂場　花子", "", "砂場　花子", "00000"},
		"a supplementary ideograph":                {"丂丒", "", "丂丒", "00"},
		"outside the plane: 𠮷":                     {"𠮷野　家", "", "〓野　家", "1000"},
		"a vendor's character: 髙":                  {"髙橋　真", "", "〓橋　真", "1000"},
		"a vendor's character: 﨑":                  {"山\uFA11　歩", "", "山〓　歩", "0100"},
		"a vendor's symbol: ①":                     {"港町①番", "", "港町〓番", "0010"},
		"a compatibility ideograph, canonically 神": {"\uFA19田", "", "〓田", "10"},
		"JIS X 0213, level 3: 俱":                   {"俱知安", "", "〓知安", "100"},
		"a Latin name":                             {"SMITH JOHN", "", "SMITH JOHN", strings.Repeat("0", 10)},
		"a Latin name, full-width":                 {"ＳＭＩＴＨ　ＪＯＨＮ", "", "ＳＭＩＴＨ　ＪＯＨＮ", strings.Repeat("0", 10)},
		"an accent, composed":                      {"José", "", "Jos〓", "0001"},
		"an accent, in parts":                      {"Jose\u0301", "", "Jos〓", "0001"},
		"a dakuten, in parts":                      {"か\u3099く", "", "がく", "00"},
		"a dakuten where none can be":              {"あ\u3099", "", "〓", "1"},
		"half-width katakana":                      {"ｱｵﾊﾞ", "", "〓〓〓〓", "1111"},
		"an ideographic variation sequence":        {"葛\U000E0100城", "", "葛城", "10"},
		"a standardised variation sequence":        {"逸\uFE00見", "", "逸見", "10"},
		"a variation of what is not admitted":      {"髙\U000E0101", "", "〓", "1"},
		"a mark with nothing before it":            {"\u3099か", "", "〓か", "10"},
		"a selector with nothing before it":        {"\uFE00か", "", "〓か", "10"},
		"an invisible character":                   {"山\u200b田", "", "山〓田", "010"},
		"a wave dash and a minus, either reading":  {"一〜二～三−四－五", "", "一〜二～三−四－五", "000000000"},
		"marks of the register are kept":           {"高橋　真", "1000", "高橋　真", "1000"},
		"marks of the register are merged":         {"高𠮷　真", "1000", "高〓　真", "1100"},
		"a mark within a character":                {"葛\U000E0100城", "010", "葛城", "10"},
		"the substitute itself, from the register": {"〓橋", "10", "〓橋", "10"},
		"not UTF-8": {"山\xff", "", "山〓", "01"},
		"nothing":   {"", "", "", ""},
	} {
		written, positions := characters.substitute(c.text, c.marks)
		if written != c.written || positions != c.positions {
			t.Errorf("%s: %q %s, want %q %s", name, written, positions, c.written, c.positions)
		}
	}
}

func sandboxCharacters() Characters { return Sandbox().Characters }

// The tables are the standards': as many characters as they have, none that is invisible or modifies another.
func TestCharacterSets(t *testing.T) {
	const windows = 7 // readings of seven symbols that are the standard's own
	for name, want := range map[string]int{"ascii": 95, "jis-x-0208": 524 + 2965 + 3390 + windows, "jis-x-0212-kanji": 5801} {
		set := map[rune]bool{}
		for _, r := range characterSets[name]() {
			if set[r] || unicode.IsMark(r) || unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == utf8.RuneError {
				t.Errorf("%s has %U, or has it twice", name, r)
			}
			set[r] = true
		}
		if len(set) != want {
			t.Errorf("%s has %d characters, want %d", name, len(set), want)
		}
	}
}

func FuzzSubstitution(f *testing.F) {
	for _, s := range []string{"砂場　花子", "𠮷野家", "か\u3099", "葛\U000E0100城", "José", "\u3099\uFE00", "\xff", "山\u200d田", "〓"} {
		f.Add(s, "0101")
	}
	c := sandboxCharacters()
	f.Fuzz(func(t *testing.T, text, marks string) {
		written, positions := c.substitute(text, marks)
		if utf8.RuneCountInString(written) != len(positions) || strings.Trim(positions, "01") != "" {
			t.Fatalf("%q has the marks %q", written, positions)
		}
		for _, r := range written {
			if !c.allowed[r] {
				t.Fatalf("%q carries %U", written, r)
			}
		}
		if again, marks := c.substitute(written, positions); again != written || marks != positions {
			t.Fatalf("substituted again: %q %s, before %q %s", again, marks, written, positions)
		}
		// What can be carried is carried as it is.
		carried := !strings.ContainsFunc(text, func(r rune) bool { return !c.allowed[r] })
		if carried && (written != text || marks == "" && strings.Contains(positions, "1")) {
			t.Fatalf("%q was changed to %q %s", text, written, positions)
		}
	})
}

// The next generation differs in keys, terms and how the lists of the authentication certificates are cut, and in nothing that
// a relying party looks for.
func TestTheNextProfileDiffersInKeysTermsAndShardsOnly(t *testing.T) {
	text, err := os.ReadFile("profiles/sandbox-next.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "\nname: ")
	if !regexp.MustCompile(`^JPKI-SANDBOX-NEXT\n`).MatchString(rest) {
		t.Error("the profile does not say which it is")
	}
	a, b := Sandbox(), SandboxNext()
	if a.Validity != today || b.Validity != next {
		t.Errorf("terms: %+v and %+v", a.Validity, b.Validity)
	}
	b.Name, b.Validity = a.Name, a.Validity
	for k := range b.Kinds {
		if !cmp.Equal(b.Kinds[k].Keys, []string{"p-384"}) || !cmp.Equal(a.Kinds[k].Keys, []string{"rsa-2048"}) {
			t.Errorf("%s: keys %v and %v", k, a.Kinds[k].Keys, b.Kinds[k].Keys)
		}
		b.Kinds[k].Keys = a.Kinds[k].Keys
	}
	if b.Authorities["auth"].CRLShards == 0 || a.Authorities["auth"].CRLShards != 0 {
		t.Error("the profiles do not differ in shards")
	}
	b.Authorities["auth"].CRLShards = 0
	a.Characters.allowed, b.Characters.allowed = nil, nil
	if diff := cmp.Diff(a, b, cmp.AllowUnexported(Characters{})); diff != "" {
		t.Error(diff)
	}
}
