package ca

import (
	"slices"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/store"
)

// A causeRow says who may give a cause for a command.
type causeRow struct {
	do    command
	cause jpki.Cause
	by    []jpki.Role
}

// causes are the reasons people can state. Those that follow from a register event, a renewal or a new card are not
// here: nobody states them, commands bring them about.
var causes = []causeRow{
	{suspend, jpki.Lost, []jpki.Role{jpki.Counter, jpki.CallCentre, jpki.Holder}},
	{suspend, jpki.KeyDoubt, []jpki.Role{jpki.Counter, jpki.CallCentre, jpki.Holder, jpki.System}},
	{resume, jpki.Found, []jpki.Role{jpki.Counter, jpki.Holder}},
	{revoke, jpki.HolderRequest, []jpki.Role{jpki.Counter, jpki.Holder}},  // Act, Article 9
	{revoke, jpki.KeyCompromised, []jpki.Role{jpki.Counter, jpki.Holder}}, // Article 10
	{revoke, jpki.CardReturned, []jpki.Role{jpki.Counter}},
	{revoke, jpki.RecordError, []jpki.Role{jpki.Counter, jpki.System}}, // Article 13
	{revoke, jpki.CAKeyLeak, []jpki.Role{jpki.System}},                 // Article 14
	{revoke, jpki.Discarded, []jpki.Role{jpki.Counter}},                // before delivery only
}

func checkCause(do command, cause jpki.Cause, by jpki.Role) error {
	i := slices.IndexFunc(causes, func(r causeRow) bool { return r.do == do && r.cause == cause })
	if i < 0 {
		return jpki.Errorf(jpki.Malformed, "cause is none of those to %s a certificate", do)
	}
	if !slices.Contains(causes[i].by, by) {
		return jpki.Errorf(jpki.Forbidden, "a %s may not %s a certificate for this cause", by, do)
	}
	return nil
}

// A rule says what an event in the resident register does to a kind of certificate.
type rule struct {
	on    jpki.EventType
	kind  jpki.Kind
	cause jpki.Cause // of its revocation; NoCause keeps it
}

// rules is the law of Articles 12 and 16-14 (signature) and their counterparts for authentication certificates: a change
// of the four attributes ends the signature certificates only; death or leaving the register ends all. Every event has a
// row for every kind, so that what is kept is decided, not forgotten. A renamed place moves nobody. A period of stay, even
// one cut short, is no attribute: it bounds what is issued from then on, and its end comes as a departure.
var rules = func() []rule {
	const (
		cs, ca, ps, pa = jpki.CardSign, jpki.CardAuth, jpki.PhoneSign, jpki.PhoneAuth
		keep           = jpki.NoCause
	)
	return []rule{
		{jpki.Registered, cs, keep},
		{jpki.Registered, ca, keep},
		{jpki.Registered, ps, keep},
		{jpki.Registered, pa, keep},
		{jpki.AddressChanged, cs, jpki.Moved},
		{jpki.AddressChanged, ca, keep},
		{jpki.AddressChanged, ps, jpki.Moved},
		{jpki.AddressChanged, pa, keep},
		{jpki.NameChanged, cs, jpki.Renamed},
		{jpki.NameChanged, ca, keep},
		{jpki.NameChanged, ps, jpki.Renamed},
		{jpki.NameChanged, pa, keep},
		{jpki.BirthDateAmended, cs, jpki.BirthDateChanged},
		{jpki.BirthDateAmended, ca, keep},
		{jpki.BirthDateAmended, ps, jpki.BirthDateChanged},
		{jpki.BirthDateAmended, pa, keep},
		{jpki.SexAmended, cs, jpki.SexChanged},
		{jpki.SexAmended, ca, keep},
		{jpki.SexAmended, ps, jpki.SexChanged},
		{jpki.SexAmended, pa, keep},
		{jpki.AddressRenamed, cs, keep},
		{jpki.AddressRenamed, ca, keep},
		{jpki.AddressRenamed, ps, keep},
		{jpki.AddressRenamed, pa, keep},
		{jpki.Death, cs, jpki.Died},
		{jpki.Death, ca, jpki.Died},
		{jpki.Death, ps, jpki.Died},
		{jpki.Death, pa, jpki.Died},
		{jpki.Departure, cs, jpki.LeftRegister},
		{jpki.Departure, ca, jpki.LeftRegister},
		{jpki.Departure, ps, jpki.LeftRegister},
		{jpki.Departure, pa, jpki.LeftRegister},
		{jpki.GuardianshipBegan, cs, jpki.Guardianship},
		{jpki.GuardianshipBegan, ca, keep},
		{jpki.GuardianshipBegan, ps, jpki.Guardianship},
		{jpki.GuardianshipBegan, pa, keep},
		{jpki.GuardianshipEnded, cs, keep},
		{jpki.GuardianshipEnded, ca, keep},
		{jpki.GuardianshipEnded, ps, keep},
		{jpki.GuardianshipEnded, pa, keep},
		{jpki.StayExtended, cs, keep},
		{jpki.StayExtended, ca, keep},
		{jpki.StayExtended, ps, keep},
		{jpki.StayExtended, pa, keep},
		{jpki.ProtectionBegan, cs, keep},
		{jpki.ProtectionBegan, ca, keep},
		{jpki.ProtectionBegan, ps, keep},
		{jpki.ProtectionBegan, pa, keep},
		{jpki.ProtectionEnded, cs, keep},
		{jpki.ProtectionEnded, ca, keep},
		{jpki.ProtectionEnded, ps, keep},
		{jpki.ProtectionEnded, pa, keep},
	}
}()

// An eligibility says who may have a kind of certificate.
type eligibility struct {
	minimumAge   int
	guardianship bool // also under guardianship of adults
}

// eligible is Article 3: a signature certificate needs the capacity to act for oneself.
var eligible = map[jpki.Kind]eligibility{
	jpki.CardSign:  {minimumAge: 15, guardianship: false},
	jpki.CardAuth:  {minimumAge: 0, guardianship: true},
	jpki.PhoneSign: {minimumAge: 15, guardianship: false},
	jpki.PhoneAuth: {minimumAge: 15, guardianship: false}, // asked for with the card's signature certificate
}

func checkEligible(h store.Holder, k jpki.Kind, now time.Time) error {
	e := eligible[k]
	switch {
	case h.Ended != "":
		return jpki.Errorf(jpki.NotEligible, "the holder has left the register")
	case age(h.Attributes.BirthDate, now) < e.minimumAge:
		return jpki.Errorf(jpki.NotEligible, "a %s certificate needs an age of %d", k, e.minimumAge)
	case h.Guardianship && !e.guardianship:
		return jpki.Errorf(jpki.NotEligible, "a %s certificate is not issued under guardianship", k)
	}
	return nil
}

// mayActFor checks for whom an actor acts: a counter for its municipality's residents, a holder for none but themselves. The
// other roles act for everybody; what they may do is in the tables.
func mayActFor(by jpki.Actor, h store.Holder) error {
	switch {
	case by.Role == jpki.Responder, by.Role == jpki.Verifying:
		return jpki.Errorf(jpki.Forbidden, "a %s acts for nobody", by.Role)
	case by.Role == jpki.Counter && by.Municipality != h.Municipality:
		return jpki.Errorf(jpki.WrongMunicipality, "station %s acts for municipality %s only", by.ID, by.Municipality)
	case by.Role == jpki.Holder && by.ID != h.ID:
		return jpki.Errorf(jpki.Forbidden, "these are another holder's")
	}
	return nil
}
