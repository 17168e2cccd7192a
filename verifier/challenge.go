package verifier

import (
	"bytes"
	"container/list"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/openjpki/jpki"
	"golang.org/x/crypto/cryptobyte"
)

// ChallengesConfig is what [NewChallenges] wants.
type ChallengesConfig struct {
	Now  func() time.Time // required
	Rand io.Reader        // required; for identifiers and nonces; must be safe for concurrent use
	TTL  time.Duration    // how long a challenge may be answered; 0 means 60 s, at most 10 minutes
	Max  int              // how many may be open at once; 0 means 100000
}

// Challenges hands out log-in challenges and takes each back once, if in time, for the same audience and session. It
// keeps them in memory: log-ins begin and end at the same process, and a restart voids those that are open.
type Challenges struct {
	now  func() time.Time
	rand io.Reader
	ttl  time.Duration
	max  int

	mu   sync.Mutex
	open map[string]*list.Element // by identifier
	age  *list.List               // of *openChallenge, oldest first
}

type openChallenge struct {
	Challenge
	audience [32]byte // hashes, so that comparing takes the same time for all
	binding  [32]byte
}

// A Challenge is what a log-in begins with.
type Challenge struct {
	ID        string    // 22 characters of base64url; names the challenge and proves nothing
	Nonce     []byte    // 32 octets, as contained in Message
	ExpiresAt time.Time // to the second
	// Message is what the card signs: SHA-256 of it for RSA and P-256 keys, SHA-384 for P-384 keys. It is 64 spaces, the
	// text "JPKI log-in challenge, version 1" and a zero octet, then, each after its length in two octets, the audience,
	// the identifier, the nonce and the session binding (possibly empty), then the expiry in seconds since 1970 in eight
	// octets. Holder software can check the audience before it signs. No document begins like this, so a log-in can
	// not be passed off as a signature on something, nor the reverse.
	Message []byte
}

var challengePrefix = strings.Repeat(" ", 64) + "JPKI log-in challenge, version 1\x00"

// NewChallenges checks the configuration.
func NewChallenges(cfg ChallengesConfig) (*Challenges, error) {
	c := &Challenges{now: cfg.Now, rand: cfg.Rand, ttl: cfg.TTL, max: cfg.Max, open: map[string]*list.Element{}, age: list.New()}
	if c.ttl == 0 {
		c.ttl = time.Minute
	}
	if c.max == 0 {
		c.max = 100_000
	}
	switch {
	case c.now == nil:
		return nil, errors.New("challenges: Now is required")
	case c.rand == nil:
		return nil, errors.New("challenges: Rand is required")
	case c.ttl < time.Second || c.ttl > 10*time.Minute:
		return nil, errors.New("challenges: TTL is not between 1 second and 10 minutes")
	case c.max < 0:
		return nil, errors.New("challenges: Max is negative")
	}
	return c, nil
}

// NewChallenge makes a challenge for an audience, the relying party's name or web origin in 1 to 255 printable ASCII
// characters, and optionally for a session, by a hash of 32 octets that the relying party can compute again at the end.
// With too many challenges open it returns [jpki.RateLimited].
func (c *Challenges) NewChallenge(ctx context.Context, audience string, binding []byte) (Challenge, error) {
	if err := ctx.Err(); err != nil {
		return Challenge{}, err
	}
	if err := checkAudience(audience, binding); err != nil {
		return Challenge{}, err
	}
	var random [16 + nonceBytes]byte
	if _, err := io.ReadFull(c.rand, random[:]); err != nil {
		return Challenge{}, fmt.Errorf("draw challenge: %w", err)
	}
	now := c.now()
	ch := Challenge{ID: base64.RawURLEncoding.EncodeToString(random[:16]), Nonce: random[16:], ExpiresAt: now.Add(c.ttl).UTC().Truncate(time.Second)}
	var b cryptobyte.Builder
	b.AddBytes([]byte(challengePrefix))
	for _, part := range [][]byte{[]byte(audience), []byte(ch.ID), ch.Nonce, binding} {
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(part) })
	}
	b.AddUint64(uint64(ch.ExpiresAt.Unix()))
	var err error
	if ch.Message, err = b.Bytes(); err != nil {
		return Challenge{}, fmt.Errorf("encode challenge: %w", err)
	}

	c.mu.Lock()
	defer c.mu.Unlock()
	for e := c.age.Front(); e != nil && !now.Before(e.Value.(*openChallenge).ExpiresAt); e = c.age.Front() {
		c.remove(e)
	}
	if len(c.open) >= c.max {
		return Challenge{}, jpki.Errorf(jpki.RateLimited, "too many log-ins are open")
	}
	if _, taken := c.open[ch.ID]; taken {
		return Challenge{}, errors.New("draw challenge: the random source repeats itself")
	}
	kept := ch
	kept.Nonce, kept.Message = bytes.Clone(ch.Nonce), bytes.Clone(ch.Message)
	c.open[ch.ID] = c.age.PushBack(&openChallenge{kept, sha256.Sum256([]byte(audience)), sha256.Sum256(binding)})
	return ch, nil
}

// consume takes a challenge back. Whatever it says, the challenge cannot be used again. All refusals are
// [jpki.ChallengeInvalid] without saying which of the reasons it was: the other side may be guessing.
func (c *Challenges) consume(id, audience string, binding []byte) (Challenge, error) {
	refused := jpki.Errorf(jpki.ChallengeInvalid, "ask for a new challenge and sign that")
	now := c.now()
	c.mu.Lock()
	e, found := c.open[id]
	if found {
		c.remove(e)
	}
	c.mu.Unlock()
	if !found {
		return Challenge{}, refused
	}
	ch := e.Value.(*openChallenge)
	a, b := sha256.Sum256([]byte(audience)), sha256.Sum256(binding)
	if subtle.ConstantTimeCompare(a[:], ch.audience[:])&subtle.ConstantTimeCompare(b[:], ch.binding[:]) != 1 || !now.Before(ch.ExpiresAt) {
		return Challenge{}, refused
	}
	return ch.Challenge, nil
}

func (c *Challenges) remove(e *list.Element) {
	delete(c.open, e.Value.(*openChallenge).ID)
	c.age.Remove(e)
}

func checkAudience(audience string, binding []byte) error {
	if len(audience) < 1 || len(audience) > 255 {
		return jpki.Errorf(jpki.Malformed, "audience has not 1 to 255 characters")
	}
	for i := range len(audience) {
		if audience[i] <= ' ' || audience[i] > '~' {
			return jpki.Errorf(jpki.Malformed, "audience is not printable ASCII without spaces")
		}
	}
	if len(binding) != 0 && len(binding) != sha256.Size {
		return jpki.Errorf(jpki.Malformed, "binding has not 32 octets")
	}
	return nil
}
