package jpki

import (
	"strconv"
	"strings"
	"unicode"
)

// ContainsMyNumber reports whether text contains a valid My Number: twelve digits, ASCII or full-width, possibly in
// groups parted by single spaces or hyphens of any width, the last of them the check digit. My Numbers must never enter
// this system, so inputs are refused when this reports true. The text may be a raw JSON message with escapes in it.
//
// Twelve digits inside a longer run of digits are not one, nor are digits that are part of a hexadecimal word or of
// a UUID: serial numbers and request identifiers contain such runs by chance.
func ContainsMyNumber(text string) bool {
	if !mayContain(text) {
		return false
	}
	r := []rune(unescape(text))
	hideIdentifiers(r)
	for i := range r {
		if digit(r[i]) < 0 || (i > 0 && digit(r[i-1]) >= 0) {
			continue // not the start of a run of digits
		}
		if _, ok := myNumberAt(r, i); ok {
			return true
		}
	}
	return false
}

// mayContain is a quick look that spares most texts the slow one: twelve digits between which no ASCII but blanks and
// hyphens stands, or a backslash.
func mayContain(text string) bool {
	digits := 0
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\':
			return true
		case c >= '0' && c <= '9', c == 0xEF && i+2 < len(text) && text[i+1] == 0xBC && text[i+2] >= 0x90 && text[i+2] <= 0x99: // ０ to ９
			if digits++; digits == 12 {
				return true
			}
		case c < 0x80 && c != ' ' && c != '-':
			digits = 0
		}
	}
	return false
}

// ValidMyNumber reports whether s is exactly twelve ASCII digits with a right check digit
// (番号法施行令 / 総務省令: weights 6 5 4 3 2 7 6 5 4 3 2).
func ValidMyNumber(s string) bool {
	r := []rune(s)
	end, ok := myNumberAt(r, 0)
	return ok && end == len(r) && len(s) == 12
}

// myNumberAt reads twelve digits from position i and reports where they end and whether they are a My Number.
func myNumberAt(r []rune, i int) (end int, ok bool) {
	var d [12]int
	n := 0
	for ; i < len(r) && n < 12; i++ {
		v := digit(r[i])
		if v < 0 {
			next := i + 1
			if n > 0 && separator(r[i]) && next < len(r) && digit(r[next]) >= 0 {
				continue
			}
			return i, false
		}
		d[n] = v
		n++
	}
	if n < 12 || (i < len(r) && digit(r[i]) >= 0) {
		return i, false
	}
	sum := 0
	for k, w := range [11]int{6, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2} {
		sum += d[k] * w
	}
	check := 11 - sum%11
	if check >= 10 {
		check = 0
	}
	return i, d[11] == check
}

func digit(r rune) int {
	switch {
	case r >= '0' && r <= '9':
		return int(r - '0')
	case r >= '０' && r <= '９':
		return int(r - '０')
	}
	return -1
}

// separator includes what Japanese keyboards offer for a hyphen: the minus, the long vowel mark and the box line.
func separator(r rune) bool {
	return unicode.In(r, unicode.Zs, unicode.Pd) || strings.ContainsRune("−ーｰ─", r)
}

// unescape undoes JSON's \uXXXX, whose digits would otherwise lengthen a run of digits, and \b and \f, whose letters
// would make a hexadecimal word of one.
func unescape(text string) string {
	before, after, found := strings.Cut(text, `\`)
	if !found {
		return text
	}
	var b strings.Builder
	for ; found; before, after, found = strings.Cut(after, `\`) {
		b.WriteString(before)
		switch {
		case len(after) >= 5 && after[0] == 'u':
			if c, err := strconv.ParseUint(after[1:5], 16, 16); err == nil {
				b.WriteRune(rune(c))
				after = after[5:]
				continue
			}
		case after != "" && (after[0] == 'b' || after[0] == 'f'):
			b.WriteByte(' ')
			after = after[1:]
			continue
		}
		b.WriteByte('\\')
	}
	b.WriteString(before)
	return b.String()
}

// hideIdentifiers overwrites UUIDs and hexadecimal words.
func hideIdentifiers(r []rune) {
	for i := 0; i < len(r); {
		end := wordEnd(r, i)
		if uuidAt(r, i) {
			end = i + 36
		} else if !hexadecimalWord(r[i:end]) {
			i = max(end, i+1)
			continue
		}
		for ; i < end; i++ {
			r[i] = 'x'
		}
	}
}

// wordEnd returns the end of the run of ASCII letters and digits that begins at i.
func wordEnd(r []rune, i int) int {
	for i < len(r) && (r[i] >= '0' && r[i] <= '9' || r[i]|0x20 >= 'a' && r[i]|0x20 <= 'z') {
		i++
	}
	return i
}

// hexadecimalWord reports whether w consists of hexadecimal digits and at least one of them is a letter.
func hexadecimalWord(w []rune) bool {
	letter := false
	for _, c := range w {
		switch {
		case c >= '0' && c <= '9':
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			letter = true
		default:
			return false
		}
	}
	return letter
}

// uuidAt reports whether a UUID, five hexadecimal words of 8-4-4-4-12 digits, begins at i, the start of a word.
func uuidAt(r []rune, i int) bool {
	for k, n := range [5]int{8, 4, 4, 4, 12} {
		if k > 0 {
			if i == len(r) || r[i] != '-' {
				return false
			}
			i++
		}
		end := wordEnd(r, i)
		if end-i != n {
			return false
		}
		for _, c := range r[i:end] {
			if c > '9' && c|0x20 > 'f' {
				return false
			}
		}
		i = end
	}
	return true
}
