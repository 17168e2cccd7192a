package jpki

import (
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"
	"unicode"
	"unicode/utf8"
)

// JST is Japan Standard Time, in which the law counts days.
var JST = time.FixedZone("JST", 9*60*60)

// Attributes are the holder's four attributes (基本4情報) as a signature certificate carries them. They are personal
// data: the fmt verbs and slog print a placeholder, only explicit access to a field or JSON encoding reveals them.
type Attributes struct {
	Name               string    `json:"name"`                          // 氏名
	NameSubstitutes    string    `json:"name_substitutes,omitempty"`    // one digit a character of Name: 1 marks a substitute character
	Sex                Sex       `json:"sex"`                           // 性別
	BirthDate          BirthDate `json:"birth_date"`                    // 生年月日
	Address            string    `json:"address"`                       // 住所
	AddressSubstitutes string    `json:"address_substitutes,omitempty"` // as NameSubstitutes, for Address
}

// Longest accepted values, in characters. The profile states 200 for the address; the name's bound is ours.
const (
	MaxNameLength    = 100
	MaxAddressLength = 200
)

// Validate reports the first rule an attribute set breaks. Its errors name fields, never their contents.
func (a Attributes) Validate() error {
	for _, f := range []struct {
		name, value, marks string
		max                int
	}{{"name", a.Name, a.NameSubstitutes, MaxNameLength}, {"address", a.Address, a.AddressSubstitutes, MaxAddressLength}} {
		n := utf8.RuneCountInString(f.value)
		switch {
		case n == 0:
			return fmt.Errorf("%s is empty", f.name)
		case n > f.max:
			return fmt.Errorf("%s is longer than %d characters", f.name, f.max)
		case !utf8.ValidString(f.value):
			return fmt.Errorf("%s is not UTF-8", f.name)
		case f.marks != "" && len(f.marks) != n:
			return fmt.Errorf("%s_substitutes has not one digit a character", f.name)
		}
		for _, r := range f.value {
			if unicode.IsControl(r) {
				return fmt.Errorf("%s contains a control character", f.name)
			}
		}
		for _, m := range f.marks {
			if m != '0' && m != '1' {
				return fmt.Errorf("%s_substitutes holds something other than 0 and 1", f.name)
			}
		}
	}
	switch a.Sex {
	case Male, Female, SexUnknown, SexNotApplicable:
	default:
		return errors.New("sex is not one of 1, 2, 3, 9")
	}
	_, err := ParseBirthDate(string(a.BirthDate))
	return err
}

const redacted = "[redacted]"

// String keeps the attributes out of formatted output.
func (Attributes) String() string { return redacted }

// GoString keeps the attributes out of %#v.
func (Attributes) GoString() string { return redacted }

// Format keeps the attributes out of every fmt verb but %p and %w, which vet refuses for them. Not even this helps where
// they sit in an unexported field of something formatted: fmt cannot call methods there.
func (Attributes) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// LogValue keeps the attributes out of logs.
func (Attributes) LogValue() slog.Value { return slog.StringValue(redacted) }

// A Sex is a code of the certificate profile.
type Sex string

// The codes; the last is of JIS X 0303.
const (
	Male             Sex = "1"
	Female           Sex = "2"
	SexUnknown       Sex = "3"
	SexNotApplicable Sex = "9"
)

// A BirthDate has the certificate profile's form EYYYYMMDD: an era digit (1 Meiji … 5 Reiwa, 0 unknown) and a Gregorian
// date whose unknown parts are zeros, so it is not always a date.
type BirthDate string

// NewBirthDate returns the birth date of a fully known Gregorian date, with its era.
func NewBirthDate(year int, month time.Month, day int) BirthDate {
	d := year*10000 + int(month)*100 + day
	era := 1
	for i, first := range []int{19120730, 19261225, 19890108, 20190501} {
		if d >= first {
			era = i + 2
		}
	}
	return BirthDate(fmt.Sprintf("%d%08d", era, d))
}

// ParseBirthDate checks the form; a part may be zero only if every smaller part is zero too.
func ParseBirthDate(s string) (BirthDate, error) {
	if len(s) != 9 {
		return "", errors.New("birth_date is not nine digits EYYYYMMDD")
	}
	for _, c := range s {
		if c < '0' || c > '9' {
			return "", errors.New("birth_date is not nine digits EYYYYMMDD")
		}
	}
	b := BirthDate(s)
	y, m, d := b.Parts()
	switch {
	case s[0] > '5':
		return "", errors.New("birth_date has an unknown era")
	case y == 0 && m != 0, m == 0 && d != 0, m > 12:
		return "", errors.New("birth_date is no date")
	case d != 0:
		// 29 February needs the year; an unknown year has an unknown month, so the year is known here.
		if t := time.Date(y, time.Month(m), d, 0, 0, 0, 0, time.UTC); t.Day() != d {
			return "", errors.New("birth_date is no date")
		}
	}
	return b, nil
}

// Parts returns year, month and day; an unknown part is zero.
func (b BirthDate) Parts() (year, month, day int) {
	if len(b) != 9 {
		return 0, 0, 0
	}
	year, _ = strconv.Atoi(string(b[1:5]))
	month, _ = strconv.Atoi(string(b[5:7]))
	day, _ = strconv.Atoi(string(b[7:9]))
	return year, month, day
}
