package ca

import (
	"time"

	"github.com/openjpki/jpki"
)

// Terms of validity. Days are counted in Japan Standard Time and a certificate ends with its last day, at 23:59:59.
const (
	birthdays        = 5 // ends on this birthday counted after the day of issue
	birthdaysRenewed = 6 // when renewed within renewalMonths of the old certificate's end
	renewalMonths    = 3

	cardBirthdaysAdult = 10 // a card ends on this birthday counted after its issue
	cardBirthdaysMinor = 5
	adultAge           = 18
)

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
func notAfter(born jpki.BirthDate, now time.Time, renewed bool, caps ...time.Time) time.Time {
	n := birthdays
	if renewed {
		n = birthdaysRenewed
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
func cardEnd(born jpki.BirthDate, now time.Time) time.Time {
	if age(born, now) >= adultAge {
		return birthday(born, now, cardBirthdaysAdult).UTC()
	}
	return birthday(born, now, cardBirthdaysMinor).UTC()
}

// renewable reports whether a certificate may be renewed now: from three months before its last day to its end.
func renewable(end, now time.Time) bool {
	last := end.In(jpki.JST)
	from := time.Date(last.Year(), last.Month()-renewalMonths, last.Day(), 0, 0, 0, 0, jpki.JST)
	if from.Day() != last.Day() { // no such day in that month: its last one
		from = time.Date(last.Year(), last.Month()-renewalMonths+1, 0, 0, 0, 0, 0, jpki.JST)
	}
	return !now.Before(from) && !now.After(end)
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
