package api

import (
	"crypto/rand"
	"testing"
	"time"
)

// ChallengeChecks shows how challenges are made and checked.
type ChallengeChecks struct{ h *holders }

// Challenges makes what hands out challenges, at a time that stands still.
func Challenges(testing.TB) ChallengeChecks {
	now := time.Now()
	h := &holders{Phones: Phones{Rand: rand.Reader}, now: func() time.Time { return now }}
	_, _ = rand.Read(h.key[:])
	return ChallengeChecks{h}
}

// New returns a challenge.
func (c ChallengeChecks) New() string {
	ch, err := c.h.challenge()
	if err != nil {
		return ""
	}
	return ch.Challenge
}

// Good reports whether a challenge can be answered.
func (c ChallengeChecks) Good(s string) bool {
	_, err := c.h.check(s)
	return err == nil
}
