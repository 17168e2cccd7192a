package jpki_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/openjpki/jpki"
)

func TestErrorKeepsItsParts(t *testing.T) {
	cause := errors.New("disk full")
	err := fmt.Errorf("issue: %w", jpki.WrapError(jpki.Unavailable, cause, "try again"))
	if !errors.Is(err, jpki.Unavailable) || !errors.Is(err, cause) || errors.Is(err, jpki.Internal) {
		t.Errorf("errors.Is does not find what is in %v", err)
	}
	if want := "issue: unavailable: try again: disk full"; err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
	for _, c := range []struct {
		err  error
		want jpki.Problem
	}{
		{err, jpki.Unavailable},
		{jpki.Errorf(jpki.WeakKey, "%d bits", 1024), jpki.WeakKey},
		{jpki.NotFound, jpki.NotFound},
		{fmt.Errorf("look: %w", jpki.NotFound), jpki.NotFound},
		{jpki.WrapError(jpki.Forbidden, jpki.NotFound, ""), jpki.Forbidden}, // the outer one decides what is said
		{errors.Join(cause, jpki.Conflict), jpki.Conflict},
		{cause, jpki.Internal},
		{nil, jpki.Internal},
	} {
		if got := jpki.ProblemOf(c.err); got != c.want {
			t.Errorf("ProblemOf(%v) = %s, want %s", c.err, got, c.want)
		}
	}
	if got := jpki.Errorf(jpki.WeakKey, "%d bits", 1024).Error(); got != "weak-key: 1024 bits" {
		t.Errorf("got %q", got)
	}
}
