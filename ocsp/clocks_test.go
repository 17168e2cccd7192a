package ocsp_test

import (
	"bytes"
	"crypto"
	"fmt"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ocsp"
	"github.com/openjpki/jpki/ocsp/status"
)

// Two responders share a shelf, and the clock of one is wrong. What it leaves there is not served by the other as something
// of the future or of the past, nor does either miss a change.
func TestClocksDiffer(t *testing.T) {
	for _, wrong := range []time.Duration{-10 * time.Minute, -2 * time.Minute, 2 * time.Minute, 10 * time.Minute} {
		t.Run(fmt.Sprint(wrong), func(t *testing.T) {
			far, secret := new(shelf), bytes.Repeat([]byte{7}, 32)
			w := newWorld(t, p256(), p256(), p256(), now, withNear, func(_ *world, c *ocsp.Config) { c.Far, c.Secret = []ocsp.Shelf{far}, secret })
			off := func() time.Time { return w.clock.now().Add(wrong) }
			other := must(ocsp.New(ocsp.Config{
				Delegates: w.delegates, Now: off, Near: new(shelf), Far: []ocsp.Shelf{far}, Secret: secret,
				Statuses: must(status.New(status.Config{Log: w.log, Now: off})),
			}))
			der := must(must(ocsp.NewRequest(w.first.cert, crypto.SHA256, nil, w.good)).Marshal())
			for _, want := range []string{"good", "revoked"} {
				// In turn, so that each finds what the other has left.
				for turn := range 3 {
					theirs := must(ocsp.ParseResponse(other.Exchange(t.Context(), &ocsp.Query{Request: der}).Body))
					if got := answer(must(theirs.Answer(w.first.cert, w.good))); got != want {
						t.Errorf("turn %d: the one whose clock is wrong says %s, not %s", turn, got, want)
					}
					a := must(w.exchange(t.Context(), t, crypto.SHA256, nil, w.good).Answer(w.first.cert, w.good))
					if got := answer(a); got != want {
						t.Errorf("turn %d: the one whose clock is right says %s, not %s", turn, got, want)
					}
					if err := a.Fresh(w.clock.now(), 0, 0); err != nil {
						t.Errorf("turn %d: %v", turn, err)
					}
				}
				w.log.add(w.first, w.good, jpki.Status{State: jpki.Suspended, Reason: jpki.CertificateHold, Cause: jpki.Lost, Since: w.clock.now(), Version: 2})
				w.clock.advance(1100 * time.Millisecond)
			}
		})
	}
}

// A clock that jumps by ten minutes, and back, makes no responder repeat what is no longer true.
func TestClockJumps(t *testing.T) {
	for _, jump := range []time.Duration{-10 * time.Minute, 10 * time.Minute} {
		t.Run(fmt.Sprint(jump), func(t *testing.T) {
			w := newWorld(t, p256(), p256(), p256(), now, withNear)
			w.says(t, w.good)
			w.clock.advance(jump)
			if got := w.says(t, w.good); got != "good" {
				t.Errorf("after the jump: %s", got)
			}
			w.log.add(w.first, w.good, jpki.Status{State: jpki.Suspended, Reason: jpki.CertificateHold, Cause: jpki.Lost, Since: w.clock.now(), Version: 2})
			w.clock.advance(1100 * time.Millisecond)
			for range 2 {
				if got := w.says(t, w.good); got != "revoked" {
					t.Errorf("after the change: %s", got)
				}
				w.clock.advance(-jump)
			}
		})
	}
}
