package ca

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/encoding/japanese"
	"golang.org/x/text/unicode/norm"

	"github.com/openjpki/jpki"
)

// Characters says which characters of name and address a certificate can carry (the sets' names are those of
// characterSets) and what stands in the place of any other. The register keeps the true name.
type Characters struct {
	Sets       []string `yaml:"sets"`
	Substitute string   `yaml:"substitute"` // one character of the sets

	allowed map[rune]bool
}

// characterSets are made of the standards' own code tables: a row and a cell each, from 1 to 94.
var characterSets = map[string]func() []rune{
	"ascii": func() (out []rune) {
		for r := ' '; r <= '~'; r++ {
			out = append(out, r)
		}
		return out
	},
	// Rows 1 to 8 and, levels 1 and 2, 16 to 84. What vendors put between and behind, such as 髙 and ①, is not of the standard.
	// x/text reads seven symbols as Windows does; the standard's own reading of them is the same character.
	"jis-x-0208": sync.OnceValue(func() []rune { return append(jisRows("", 1, 8, 16, 84), []rune("〜‖−—¢£¬")...) }),
	// The supplementary ideographs; the Latin and Greek letters with accents, rows 2 to 11, are not among them.
	"jis-x-0212-kanji": sync.OnceValue(func() []rune { return jisRows("\x8f", 16, 77) }),
}

// jisRows reads ranges of rows of a code table by way of EUC-JP, in which prefix selects the table.
func jisRows(prefix string, ranges ...int) (out []rune) {
	for ; len(ranges) > 0; ranges = ranges[2:] {
		for row := ranges[0]; row <= ranges[1]; row++ {
			for cell := 1; cell <= 94; cell++ {
				text, err := japanese.EUCJP.NewDecoder().String(prefix + string([]byte{0xa0 + byte(row), 0xa0 + byte(cell)}))
				if r, n := utf8.DecodeRuneInString(text); err == nil && n == len(text) && r != utf8.RuneError {
					out = append(out, r)
				}
			}
		}
	}
	return out
}

// check returns what is wrong with the repertoire, and completes it.
func (c *Characters) check() (wrong []string) {
	c.allowed = map[rune]bool{}
	for _, name := range c.Sets {
		set, ok := characterSets[name]
		if !ok {
			wrong = append(wrong, fmt.Sprintf("characters: unknown set %q", name))
			continue
		}
		for _, r := range set() {
			c.allowed[r] = true
		}
	}
	if r, n := utf8.DecodeRuneInString(c.Substitute); n == 0 || n != len(c.Substitute) || !c.allowed[r] {
		wrong = append(wrong, "characters.substitute is not one character of the sets")
	}
	return wrong
}

// certifiable returns the attributes as a certificate carries them.
func (c *Characters) certifiable(a jpki.Attributes) jpki.Attributes {
	a.Name, a.NameSubstitutes = c.substitute(a.Name, a.NameSubstitutes)
	a.Address, a.AddressSubstitutes = c.substitute(a.Address, a.AddressSubstitutes)
	return a
}

// substitute writes a text in the repertoire, with one mark a character of what it writes: 1 where that is not what the
// register has, or where the register itself says so (marks: a digit a code point, or nothing). A character is a code
// point with the combining marks and variation selectors behind it:
//   - one of the repertoire, also one written in parts as か with a dakuten, is carried, composed, with mark 0;
//   - a character of the repertoire in a form that a variation selector asks for is carried in its common form, with mark 1;
//   - any other becomes the substitute, with mark 1. Compatibility ideographs are not taken for the ordinary ones.
//
// Substituting what was substituted changes nothing.
func (c *Characters) substitute(text, marks string) (written, positions string) {
	var out, flags strings.Builder
	marked := func(i int) bool { return i < len(marks) && marks[i] == '1' }
	runes := []rune(text)
	for from := 0; from < len(runes); {
		to, flag := from+1, marked(from)
		for ; to < len(runes) && unicode.IsMark(runes[to]); to++ {
			flag = flag || marked(to)
		}
		r, same := c.write(runes[from:to])
		out.WriteRune(r)
		if flag || !same {
			flags.WriteByte('1')
		} else {
			flags.WriteByte('0')
		}
		from = to
	}
	return out.String(), flags.String()
}

// write returns what stands for one character, and whether it is the same.
func (c *Characters) write(char []rune) (r rune, same bool) {
	if len(char) == 1 && c.allowed[char[0]] {
		return char[0], true
	}
	if len(char) > 1 {
		if composed := []rune(norm.NFC.String(string(char))); len(composed) == 1 && c.allowed[composed[0]] {
			return composed[0], true
		}
		if c.allowed[char[0]] && !slices.ContainsFunc(char[1:], func(r rune) bool { return !unicode.Is(unicode.Variation_Selector, r) }) {
			return char[0], false
		}
	}
	r, _ = utf8.DecodeRuneInString(c.Substitute)
	return r, false
}
