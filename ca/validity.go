package ca

import (
	"fmt"
	"time"

	"github.com/openjpki/jpki"
)

// Validity says how long certificates, cards and CA certificates last. Days are counted in Japan Standard Time, and what
// ends on a day ends at its 23:59:59.
type Validity struct {
	Birthdays      int `yaml:"birthdays"`       // a certificate ends on this birthday counted after the day of issue
	Renewed        int `yaml:"renewed"`         // the same for one renewed within RenewalMonths of the old one's end
	RenewalMonths  int `yaml:"renewal_months"`  // how long before its last day a certificate can be renewed
	CardAdult      int `yaml:"card_adult"`      // a card ends on this birthday counted after its issue
	CardMinor      int `yaml:"card_minor"`      // the same for a holder not of full age
	FullAge        int `yaml:"full_age"`        // in years
	AuthorityYears int `yaml:"authority_years"` // of a CA certificate, less the day of issue
}

// check returns what is wrong with the terms.
func (v Validity) check() (wrong []string) {
	for _, term := range []struct {
		name        string
		n, min, max int
		why         string
	}{
		{"birthdays", v.Birthdays, 1, 20, ""},
		{"renewed", v.Renewed, v.Birthdays, v.Birthdays + (v.RenewalMonths+11)/12, ": who renews as early as possible must neither lose time nor gain more than the window"},
		{"renewal_months", v.RenewalMonths, 1, 12 * v.Birthdays, ""},
		{"card_adult", v.CardAdult, 1, 20, ""},
		{"card_minor", v.CardMinor, 1, v.CardAdult, ""},
		{"full_age", v.FullAge, 15, 25, ""},
		{"authority_years", v.AuthorityYears, v.Renewed + 1, 40, ": a new CA certificate must outlast what it issues"},
	} {
		if term.n < term.min || term.n > term.max {
			wrong = append(wrong, fmt.Sprintf("validity.%s is %d and must be from %d to %d%s", term.name, term.n, term.min, term.max, term.why))
		}
	}
	return wrong
}

// birthday returns the end of the n-th birthday counted after the day of from. Somebody born on 29 February has the
// birthday on 28 February in common years: the law says nothing of certificates, and of ages that one is reached at the
// end of the day before. Where month or day of birth are unknown, the anniversary of the day of from takes their place.
func birthday(born jpki.BirthDate, from time.Time, n int) time.Time {
	day := from.In(jpki.JST)
	_, month, dom := born.Parts()
	if month == 0 || dom == 0 {
		month, dom = int(day.Month()), day.Day()
	}
	year := day.Year()
	first := dayIn(year, month, dom)
	if !first.After(time.Date(year, day.Month(), day.Day(), 0, 0, 0, 0, jpki.JST)) {
		year++ // this year's birthday is today or past: the first to count is next year's
	}
	d := dayIn(year+n-1, month, dom)
	return time.Date(d.Year(), d.Month(), d.Day(), 23, 59, 59, 0, jpki.JST)
}

// dayIn returns a day of a year, 28 February for 29 February in a common year.
func dayIn(year, month, day int) time.Time {
	t := time.Date(year, time.Month(month), day, 0, 0, 0, 0, jpki.JST)
	if int(t.Month()) != month {
		t = time.Date(year, time.Month(month), day-1, 0, 0, 0, 0, jpki.JST)
	}
	return t
}

// notAfter returns the end of a certificate issued now: the birthday, or the earliest cap.
func (v Validity) notAfter(born jpki.BirthDate, now time.Time, renewed bool, caps ...time.Time) time.Time {
	n := v.Birthdays
	if renewed {
		n = v.Renewed
	}
	end := birthday(born, now, n)
	for _, c := range caps {
		if c.Before(end) {
			end = c
		}
	}
	return end.UTC()
}

// cardEnd returns the end of a card issued now.
func (v Validity) cardEnd(born jpki.BirthDate, now time.Time) time.Time {
	if age(born, now) >= v.FullAge {
		return birthday(born, now, v.CardAdult).UTC()
	}
	return birthday(born, now, v.CardMinor).UTC()
}

// renewable reports whether a certificate may be renewed now: from the beginning of the window to its end.
func (v Validity) renewable(end, now time.Time) bool {
	last := end.In(jpki.JST)
	month := last.Month() - time.Month(v.RenewalMonths)
	from := time.Date(last.Year(), month, last.Day(), 0, 0, 0, 0, jpki.JST)
	if from.Day() != last.Day() { // no such day in that month: its last one
		from = time.Date(last.Year(), month+1, 0, 0, 0, 0, 0, jpki.JST)
	}
	return !now.Before(from) && !now.After(end)
}

// endOfDay returns 23:59:59 of a day n years after that of t, in Japan.
func endOfDay(t time.Time, years, days int) time.Time {
	day := t.In(jpki.JST)
	return time.Date(day.Year()+years, day.Month(), day.Day()+days, 23, 59, 59, 0, jpki.JST)
}

// age returns completed years; a person whose year of birth is unknown counts as of full age, one whose month or day
// is unknown as born on the last day it could have been.
func age(born jpki.BirthDate, now time.Time) int {
	year, month, day := born.Parts()
	if year == 0 {
		return 150
	}
	if month == 0 {
		month = 12
	}
	if day == 0 {
		day = time.Date(year, time.Month(month)+1, 0, 0, 0, 0, 0, jpki.JST).Day()
	}
	today := now.In(jpki.JST)
	n := today.Year() - year
	if time.Date(today.Year(), today.Month(), today.Day(), 0, 0, 0, 0, jpki.JST).Before(dayIn(today.Year(), month, day)) {
		n--
	}
	return n
}
