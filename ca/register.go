package ca

import (
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
	"golang.org/x/text/width"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/store"
)

// admit says whether the register entry of a holder (known: there is one) can take an event: it may, it comes too late to
// have any effect, or it is refused.
func admit(h store.Holder, known bool, e jpki.Event) (late bool, err error) {
	enters := e.Type == jpki.Registered
	switch {
	case !known && !enters:
		return false, jpki.Errorf(jpki.UnknownHolder, "")
	case !known:
		return false, nil
	case h.Ended != "" && e.EffectiveAt.Before(h.Since.Ended):
		return true, nil
	case enters && h.Ended != jpki.Departure:
		return false, jpki.Errorf(jpki.EventConflict, "the holder is in the register already")
	case !enters && h.Ended != "":
		return false, jpki.Errorf(jpki.EventConflict, "the holder has left the register")
	}
	return false, nil
}

// take changes a register entry by an event, each field as far as nothing newer was told of it, and returns the events
// whose rules the certificates must follow: none for what changes nothing. Events come in any order, so each field has
// its own time; docs/decisions/0014 gives the reasons.
//
//   - An event about a field overwrites what is not newer. What differs only in writing (see sameText) is no change.
//   - The other attributes that it brings along count only where they are newer and changed; an address needs a municipality.
//   - A move, or the beginning of guardianship, that comes after something newer still ends certificates unless a newer one
//     of its own sort has: a renamed place, or the end of a guardianship, ended none.
func take(h *store.Holder, e jpki.Event) (follow []jpki.EventType) {
	at, s := e.EffectiveAt.UTC(), &h.Since
	// told notes that a field was told as of at, unless something newer was.
	told := func(since *time.Time) bool {
		if at.Before(*since) {
			return false
		}
		*since = at
		return true
	}
	switch e.Type {
	case jpki.Registered:
		since := store.Since{Name: at, Sex: at, BirthDate: at, Address: at, Moved: at, Stay: at, Guardianship: s.Guardianship, Guarded: s.Guarded, Protection: s.Protection}
		if h.Ended != "" { // a return: departures before it are over
			since.Ended = at
		}
		h.Attributes, h.Municipality, h.Ended, h.StayUntil, h.Since = *e.Attributes, e.Municipality, "", e.StayUntil, since
		return nil
	case jpki.Departure:
		if !told(&s.Ended) {
			return nil
		}
		h.Ended = e.Type
		return []jpki.EventType{e.Type}
	case jpki.Death: // from which nobody returns
		h.Ended, s.Ended = e.Type, at
		return []jpki.EventType{e.Type}
	case jpki.GuardianshipBegan:
		if told(&s.Guardianship) {
			h.Guardianship = true
		}
		if told(&s.Guarded) {
			follow = append(follow, e.Type)
		}
		return follow
	case jpki.GuardianshipEnded:
		if told(&s.Guardianship) {
			h.Guardianship = false
		}
		return nil
	case jpki.ProtectionBegan, jpki.ProtectionEnded:
		if told(&s.Protection) {
			h.Protected = e.Type == jpki.ProtectionBegan
		}
		return nil
	case jpki.StayExtended:
		if told(&s.Stay) {
			h.StayUntil = e.StayUntil
		}
		return nil
	case jpki.AddressRenamed:
		if told(&s.Address) {
			takeAddress(h, e) // also another way of writing the same
		}
	case jpki.AddressChanged:
		late := !told(&s.Address)
		differs := h.Municipality != e.Municipality || !sameText(h.Attributes.Address, h.Attributes.AddressSubstitutes, e.Attributes.Address, e.Attributes.AddressSubstitutes)
		if !late && differs {
			takeAddress(h, e)
		}
		if (late || differs) && told(&s.Moved) {
			follow = append(follow, e.Type)
		}
	}
	for _, f := range []struct {
		on    jpki.EventType
		since *time.Time
		same  bool
		take  func()
	}{
		{
			jpki.NameChanged, &s.Name, sameText(h.Attributes.Name, h.Attributes.NameSubstitutes, e.Attributes.Name, e.Attributes.NameSubstitutes),
			func() {
				h.Attributes.Name, h.Attributes.NameSubstitutes = e.Attributes.Name, e.Attributes.NameSubstitutes
			},
		},
		{jpki.BirthDateAmended, &s.BirthDate, h.Attributes.BirthDate == e.Attributes.BirthDate, func() { h.Attributes.BirthDate = e.Attributes.BirthDate }},
		{jpki.SexAmended, &s.Sex, h.Attributes.Sex == e.Attributes.Sex, func() { h.Attributes.Sex = e.Attributes.Sex }},
	} {
		if about := f.on == e.Type; about && told(f.since) && !f.same || !about && !f.same && at.After(*f.since) {
			*f.since = at
			f.take()
			follow = append(follow, f.on)
		}
	}
	return follow
}

func takeAddress(h *store.Holder, e jpki.Event) {
	h.Municipality, h.Attributes.Address, h.Attributes.AddressSubstitutes = e.Municipality, e.Attributes.Address, e.Attributes.AddressSubstitutes
}

// sameText reports whether two values differ in nothing or only in how they are written (軽微な修正): width of letters,
// digits and kana, kind and number of spaces, voiced kana in one code point or two. Ideographs are compared by code point:
// a variant is another character. The substitute marks count unless the spacing moves them.
func sameText(a, aMarks, b, bMarks string) bool {
	return plain(a) == plain(b) && (aMarks == bMarks || utf8.RuneCountInString(a) != utf8.RuneCountInString(b))
}

// plain brings a text into the form in which sameText compares it.
func plain(s string) string {
	var out strings.Builder
	s = width.Fold.String(s)
	for s != "" {
		// Composition would replace the ideographs of the compatibility blocks, which are names' own variants.
		i := strings.IndexFunc(s, compatibility)
		if i < 0 {
			i = len(s)
		}
		out.WriteString(norm.NFC.String(s[:i]))
		s = s[i:]
		_, n := utf8.DecodeRuneInString(s)
		out.WriteString(s[:n])
		s = s[n:]
	}
	return strings.Join(strings.FieldsFunc(out.String(), func(r rune) bool { return unicode.Is(unicode.Zs, r) }), " ")
}

func compatibility(r rune) bool {
	return r >= 0xF900 && r <= 0xFAFF || r >= 0x2F800 && r <= 0x2FA1F
}
