package jpki_test

import (
	"strings"
	"testing"

	"github.com/openjpki/jpki"
	"pgregory.net/rapid"
)

// The numbers are published: the example of the rule's own explanation, the National Tax Agency's, and a company's.
func TestCorporateNumber(t *testing.T) {
	for _, s := range []string{"5835678256246", "7000012050002", "8700110005901"} {
		if n, err := jpki.ParseCorporateNumber(s); err != nil || string(n) != s {
			t.Errorf("%s: %v", s, err)
		}
	}
	for _, s := range []string{"", "6835678256246", "5835678256247", "583567825624", "58356782562461", "5835678256a46", "５835678256246", "0835678256246"} {
		if _, err := jpki.ParseCorporateNumber(s); jpki.ProblemOf(err) != jpki.Malformed || s != "" && strings.Contains(err.Error(), s) {
			t.Errorf("%q: %v", s, err)
		}
	}
}

// TestCorporateNumberNoticesOneWrongDigit but for what the rule itself does not tell apart: a 0 and a 9, which are the same modulo
// 9 (as the real rule has it).
func TestCorporateNumberNoticesOneWrongDigit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		number := []byte("5835678256246")
		at, digit := rapid.IntRange(0, 12).Draw(t, "at"), byte('0'+rapid.IntRange(0, 9).Draw(t, "digit"))
		nines := digit == '0' && number[at] == '9' || digit == '9' && number[at] == '0'
		same := digit == number[at] || at > 0 && nines
		number[at] = digit
		if _, err := jpki.ParseCorporateNumber(string(number)); (err == nil) != same {
			t.Fatalf("%s: %v", number, err)
		}
	})
}
