package ca

import (
	"errors"
	"slices"
	"testing"

	"github.com/openjpki/jpki"
)

// Who may give which reason for what, role by role. A row of the table that is not here is a cause that nobody decided about.
func TestCauses(t *testing.T) {
	const (
		c, cc, h, s = jpki.Counter, jpki.CallCentre, jpki.Holder, jpki.System
	)
	want := map[command]map[jpki.Cause][]jpki.Role{
		suspend: {jpki.Lost: {c, cc, h}, jpki.KeyDoubt: {c, cc, h, s}},
		resume:  {jpki.Found: {c, h}},
		revoke: {
			jpki.HolderRequest: {c, h}, jpki.KeyCompromised: {c, h}, jpki.CardReturned: {c}, jpki.RecordError: {c, s}, jpki.CAKeyLeak: {s}, jpki.Discarded: {c},
		},
	}
	rows := 0
	for _, given := range want {
		rows += len(given)
	}
	if rows != len(causes) {
		t.Errorf("%d causes, want %d", len(causes), rows)
	}
	for _, do := range []command{suspend, resume, revoke} {
		for _, row := range causes {
			for _, by := range []jpki.Role{jpki.Counter, jpki.CallCentre, jpki.Holder, jpki.System, jpki.Register, jpki.Responder} {
				roles, known := want[do][row.cause]
				err := checkCause(do, row.cause, by)
				switch {
				case !known && !errors.Is(err, jpki.Malformed):
					t.Errorf("%s for %s: %v, want malformed", do, row.cause, err)
				case known && slices.Contains(roles, by) && err != nil:
					t.Errorf("a %s may not %s for %s: %v", by, do, row.cause, err)
				case known && !slices.Contains(roles, by) && !errors.Is(err, jpki.Forbidden):
					t.Errorf("a %s may %s for %s: %v", by, do, row.cause, err)
				}
			}
		}
	}
}

// What hangs on what: the phone's signature certificate on the card's, and nothing else on anything.
func TestCascades(t *testing.T) {
	if want := []cascade{{jpki.CardSign, jpki.PhoneSign}}; !slices.Equal(cascades, want) {
		t.Errorf("%v, want %v", cascades, want)
	}
}
