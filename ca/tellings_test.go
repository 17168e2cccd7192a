package ca

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/store"
)

// Every cause has one row, whatever happens; and what a tenant is told does not tell it which of the sensitive ones it was.
func TestTellings(t *testing.T) {
	t.Parallel()
	causes := map[jpki.Cause]int{}
	for _, r := range tellings {
		causes[r.cause]++
		for _, class := range []jpki.ChangeClass{r.cardSign, r.others, r.protected} {
			if class != "" && !slices.Contains(jpki.ChangeClasses, class) {
				t.Errorf("%s: %s is no class", r.cause, class)
			}
		}
		if r.protected == jpki.AttributesChanged {
			t.Errorf("%s of a protected person is told", r.cause)
		}
		reason, ends := r.cause.Reason()
		switch {
		case r.cause == jpki.NoCause, r.cause == jpki.Found, r.cause == jpki.Abandoned:
		case !ends:
			t.Errorf("%s changes nothing", r.cause)
		case (reason == jpki.CertificateHold) != (r.cardSign == jpki.CredentialHeld), (reason == jpki.AffiliationChanged) != (r.cardSign == jpki.AttributesChanged):
			t.Errorf("%s is published as %s and told as %s", r.cause, reason, r.cardSign)
		}
	}
	for _, c := range everyCause {
		if causes[c] != 1 {
			t.Errorf("%s has %d rows", c, causes[c])
		}
	}
	for _, r := range rules {
		if !slices.Contains(everyCause, r.cause) {
			t.Errorf("a rule has a cause of its own: %s", r.cause)
		}
	}
	sensitive := []jpki.Cause{jpki.Died, jpki.LeftRegister, jpki.Guardianship, jpki.HolderRequest, jpki.CardReturned, jpki.KeyCompromised}
	for _, k := range jpki.Kinds {
		for _, protected := range []bool{false, true} {
			for _, c := range sensitive {
				if got := classOf(store.LoggedStatus{Kind: k, State: jpki.Revoked, Cause: c, Protected: protected}); got != jpki.CredentialEnded {
					t.Errorf("%s of %s (protected %t) is told as %q", c, k, protected, got)
				}
			}
		}
	}
}

var everyCause = []jpki.Cause{
	jpki.NoCause, jpki.Lost, jpki.KeyDoubt, jpki.Found, jpki.Moved, jpki.Renamed, jpki.BirthDateChanged, jpki.SexChanged, jpki.RecordError, jpki.Died, jpki.LeftRegister, jpki.Guardianship,
	jpki.Renewed, jpki.TokenReplaced, jpki.HolderRequest, jpki.CardReturned, jpki.KeyCompromised, jpki.CAKeyLeak, jpki.Discarded, jpki.Abandoned,
}

// Ten years from the day after, by the calendar of Japan.
func TestConsentPeriods(t *testing.T) {
	t.Parallel()
	for received, want := range map[string][2]string{
		"2023-05-18T10:00:00+09:00": {"2023-05-19T00:00:00+09:00", "2033-05-18T23:59:59+09:00"},
		"2023-05-18T23:59:59+09:00": {"2023-05-19T00:00:00+09:00", "2033-05-18T23:59:59+09:00"},
		"2023-05-18T15:00:00Z":      {"2023-05-20T00:00:00+09:00", "2033-05-19T23:59:59+09:00"},
		"2023-12-31T00:00:00+09:00": {"2024-01-01T00:00:00+09:00", "2033-12-31T23:59:59+09:00"},
		"2024-02-28T12:00:00+09:00": {"2024-02-29T00:00:00+09:00", "2034-02-28T23:59:59+09:00"},
		"2024-02-29T12:00:00+09:00": {"2024-03-01T00:00:00+09:00", "2034-02-28T23:59:59+09:00"},
	} {
		at, _ := time.Parse(time.RFC3339, received)
		from, until := consentPeriod(at)
		if got := [2]string{from.In(jpki.JST).Format(time.RFC3339), until.In(jpki.JST).Format(time.RFC3339)}; got != want {
			t.Errorf("%s: %v, want %v", received, got, want)
		}
		c := store.Consent{ValidFrom: from, ValidUntil: until}
		reminders := 0
		for now := at; ; reminders++ {
			next := reminder(c, now)
			if next == nil {
				break
			}
			if !next.After(now) || next.After(until) {
				t.Errorf("%s: a reminder at %s", received, next)
			}
			now = *next
		}
		if reminders != 9 {
			t.Errorf("%s: %d reminders in ten years", received, reminders)
		}
	}
}

// Both wordings have the same fifteen items and leave nothing open.
func TestWordings(t *testing.T) {
	t.Parallel()
	tenant := store.Tenant{Number: "5835678256246", Name: "砂箱銀行", Operator: "platform-1"}
	numbered := regexp.MustCompile(`(?m)^ ?(\d+)\. `)
	for lang := range wordings {
		text := wording(ConsentText{
			ConsentTerms: ConsentTerms{Tenant: tenant.Number, Purpose: "address-upkeep", Description: "{name} を確かめる", Items: jpki.Items, Lang: lang},
			Version:      ConsentVersion, Reference: "r3f", IssuedAt: time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC),
		}, tenant)
		for i, m := range numbered.FindAllStringSubmatch(text, -1) {
			if m[1] != fmt.Sprint(i+1) || i > 14 {
				t.Errorf("%s: item %s stands at %d", lang, m[1], i+1)
			}
		}
		if n := len(numbered.FindAllString(text, -1)); n != 15 {
			t.Errorf("%s: %d items", lang, n)
		}
		// What is put in is not read again: a description with braces stays as it is.
		for _, want := range []string{"砂箱銀行", "5835678256246", "platform-1", "{name} を確かめる", "address-upkeep", "r3f", "2026-04-01T09:00:00+09:00", ConsentVersion, itemNames[lang][jpki.ItemBirthDate]} {
			if !strings.Contains(text, want) {
				t.Errorf("%s: the text does not say %q", lang, want)
			}
		}
		if strings.Count(text, "{") != 1 {
			t.Errorf("%s: something is left open:\n%s", lang, text)
		}
	}
}
