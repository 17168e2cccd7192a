package api

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/client"
	"github.com/openjpki/jpki/verifier"
)

// Phones is what the API needs to begin the enrolment of phones. Every field is required.
type Phones struct {
	// Directories are the ACME directories where phones go on, by attestation format.
	Directories map[string]string
	// Audience is what holders see that they sign for: the https URL by which they reach this API, without a final slash.
	Audience string
	// Policy is what is demanded of a holder's signature; of cards' signature certificates, whatever else it admits.
	Policy verifier.Policy
	Rand   io.Reader // for challenges
}

// holders is the part that serves holders, who show no client certificate but sign.
type holders struct {
	Phones
	now       func() time.Time
	key       [32]byte // of challenges; they end with the process
	admission *ca.Admission

	mu    sync.Mutex
	spent map[string]time.Time // challenges that were answered well, until they would have expired anyway
}

// Limits of the routes for holders. A challenge costs nothing before it is answered with a signature that holds, and then
// a place among maxSpent. The quota is of all holders' signatures together: people are too many to have one each, and a limit for
// each address belongs in front.
const (
	challengeLife = 2 * time.Minute // a PIN is typed in it
	maxSpent      = 100_000
	holdersQuota  = "holders"
	maxMinutes    = 60 // that an enrolment is open
)

func newHolders(c Config) (*holders, error) {
	h := &holders{Phones: *c.Phones, now: c.Now, spent: map[string]time.Time{}}
	if len(h.Directories) == 0 || h.Audience == "" || h.Rand == nil {
		return nil, errors.New("api: every field of Phones is required")
	}
	if err := h.Policy.Validate(); err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	if h.Policy.Purpose != verifier.ForSignature {
		return nil, errors.New("api: the policy of Phones is not for signatures")
	}
	if _, err := io.ReadFull(h.Rand, h.key[:]); err != nil {
		return nil, fmt.Errorf("draw key of challenges: %w", err)
	}
	var err error
	h.admission, err = ca.NewAdmission(ca.AdmissionConfig{Now: c.Now})
	return h, err
}

// phoneEnrolment begins an enrolment for a counter. There is no Idempotency-Key: the answer holds a key that is not kept, so
// it cannot be given twice, and asking again ends what was begun before.
func (a *API) phoneEnrolment(c *gin.Context) {
	var body client.PhoneEnrolmentOrder
	by, err := a.begin(c, &body)
	if err != nil {
		a.refuse(c, err)
		return
	}
	if body.Minutes < 0 || body.Minutes > maxMinutes {
		a.refuse(c, jpki.Errorf(jpki.Malformed, "minutes is 1 to %d", maxMinutes))
		return
	}
	a.beginPhone(c, by, ca.PhoneEnrolmentRequest{
		Holder: body.Holder, Token: body.Token, Parent: body.Parent, Kinds: body.Kinds, Life: time.Duration(body.Minutes) * time.Minute,
	})
}

func (a *API) beginPhone(c *gin.Context, by jpki.Actor, req ca.PhoneEnrolmentRequest) {
	if a.holders == nil {
		a.refuse(c, jpki.Errorf(jpki.NotFound, "phones do not enrol here"))
		return
	}
	b, err := a.Authority.BeginPhoneEnrolment(c.Request.Context(), by, req)
	if err != nil {
		a.refuse(c, err)
		return
	}
	a.answer(c, http.StatusCreated, client.PhoneEnrolment{
		ID: b.Enrolment, Directories: a.holders.Directories, KeyID: b.KeyID, Key: b.Key, ExpiresAt: b.ExpiresAt.Truncate(time.Second),
	})
}

// holderChallenge hands out what a holder's request is bound to.
func (a *API) holderChallenge(c *gin.Context) {
	if err := a.beginHolder(c, &struct{}{}); err != nil {
		a.refuse(c, err)
		return
	}
	ch, err := a.holders.challenge()
	if err != nil {
		a.refuse(c, err)
		return
	}
	a.answer(c, http.StatusCreated, ch)
}

// holderPhone begins an enrolment for a holder who asks with the card. Steps:
//  1. is the challenge ours, in time, and not answered yet?
//  2. does the signature hold: by a card's signature certificate in force, over exactly this request?
//  3. the challenge is spent; whatever comes now, this signature opens nothing twice
//  4. whose certificate it is says our own record
func (a *API) holderPhone(c *gin.Context) {
	var body client.HolderPhoneOrder
	if err := a.beginHolder(c, &body); err != nil {
		a.refuse(c, err)
		return
	}
	der, err := client.DER(body.Certificate)
	if err != nil {
		a.refuse(c, jpki.Errorf(jpki.Malformed, "certificate is not one certificate in PEM"))
		return
	}
	// 1.
	expires, err := a.holders.check(body.Challenge)
	if err != nil {
		a.refuse(c, err)
		return
	}
	if err := a.holders.admission.Spend(holdersQuota); err != nil {
		a.refuse(c, err)
		return
	}
	// 2.
	ch := client.HolderChallenge{Challenge: body.Challenge, Audience: a.holders.Audience, ExpiresAt: expires}
	message, err := ch.PhoneMessage(body.Token, body.Kinds)
	if err != nil {
		a.refuse(c, err)
		return
	}
	if err := a.checkHolder(c.Request.Context(), der, message, body.Signature); err != nil {
		a.refuse(c, err)
		return
	}
	// 3.
	if err := a.holders.spend(body.Challenge, expires); err != nil {
		a.refuse(c, err)
		return
	}
	// 4.
	card, err := a.Authority.OnRecord(c.Request.Context(), der)
	if err != nil {
		a.refuse(c, err)
		return
	}
	by := jpki.Actor{Role: jpki.Holder, ID: card.Holder}
	c.Set("actor", string(by.Role)) // who it is stands in the audit record only
	a.beginPhone(c, by, ca.PhoneEnrolmentRequest{Holder: card.Holder, Token: body.Token, Parent: card.ID, Kinds: body.Kinds})
}

// beginHolder reads the body of somebody who has not said yet who they are.
func (a *API) beginHolder(c *gin.Context, body any) error {
	switch {
	case a.holders == nil:
		return jpki.Errorf(jpki.NotFound, "phones do not enrol here")
	case c.Request.URL.RawQuery != "" && queryHoldsMyNumber(c.Request.URL.RawQuery):
		return jpki.Errorf(jpki.MyNumberPresent, "")
	}
	return decode(c, body)
}

// checkHolder asks the library that relying parties use. A generation that was added a moment ago counts, too.
func (a *API) checkHolder(ctx context.Context, certificate, message, signature []byte) error {
	anchors, err := a.Authority.Anchors(ctx)
	if err != nil {
		return err
	}
	v, err := verifier.New(verifier.Config{
		Anchors: anchors, Policies: []verifier.Policy{a.holders.Policy}, Revocation: onRecord{a.Authority, a.Now}, Now: a.Now, Rand: a.holders.Rand,
	})
	if err != nil {
		return err
	}
	in := verifier.SignatureInput{Certificate: certificate, Signature: signature}
	in.Digest, in.Hash = client.HolderDigest(certificate, message)
	res, err := v.Signature(ctx, in)
	switch {
	case err != nil:
		return err
	case res.Code == verifier.StatusNotEstablished && res.Cause != nil:
		return jpki.WrapError(jpki.Unavailable, res.Cause, "the certificate's state cannot be established")
	case !res.OK():
		return jpki.Errorf(jpki.Forbidden, "the card's signature does not hold: %s", res.Code)
	case res.Signer.Kind != jpki.CardSign:
		return jpki.Errorf(jpki.Forbidden, "a phone is asked for with the card's signature certificate")
	}
	return nil
}

// onRecord establishes statuses from the authority's own record.
type onRecord struct {
	a   *ca.Authority
	now func() time.Time
}

// Check says what is on record of a certificate, now.
func (o onRecord) Check(ctx context.Context, leaf, _ *x509.Certificate, _ time.Time) (verifier.Revocation, error) {
	now := o.now()
	c, err := o.a.OnRecord(ctx, leaf.Raw)
	if errors.Is(err, jpki.UnknownCertificate) {
		return verifier.Revocation{State: verifier.Unknown, Source: "record", ThisUpdate: now, CheckedAt: now}, nil
	}
	if err != nil {
		return verifier.Revocation{}, err
	}
	r := verifier.Revocation{State: c.Status.State, Source: "record", ThisUpdate: now, CheckedAt: now}
	if reason, at, revoked := c.Status.Revocation(); revoked {
		r.Reason, r.RevokedAt = reason, &at
	}
	return r, nil
}

// A challenge is sixteen drawn octets, when it expires, and a tag over both: whoever asks for many costs no memory.
const (
	challengeDrawn = 16
	challengeBytes = challengeDrawn + 8
	challengeTag   = 16
)

func (h *holders) challenge() (client.HolderChallenge, error) {
	raw := make([]byte, challengeDrawn, challengeBytes+challengeTag)
	if _, err := io.ReadFull(h.Rand, raw); err != nil {
		return client.HolderChallenge{}, fmt.Errorf("draw challenge: %w", err)
	}
	expires := h.now().Add(challengeLife).UTC().Truncate(time.Second)
	raw = binary.BigEndian.AppendUint64(raw, uint64(expires.Unix()))
	raw = append(raw, h.tag(raw)...)
	return client.HolderChallenge{Challenge: base64.RawURLEncoding.EncodeToString(raw), Audience: h.Audience, ExpiresAt: expires}, nil
}

func (h *holders) tag(raw []byte) []byte {
	m := hmac.New(sha256.New, h.key[:])
	m.Write(raw)
	return m.Sum(nil)[:challengeTag]
}

var errChallenge = jpki.Errorf(jpki.ChallengeInvalid, "ask for a new challenge and sign that")

// check returns when a challenge of ours expires that can still be answered.
func (h *holders) check(text string) (expires time.Time, err error) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(raw) != challengeBytes+challengeTag || base64.RawURLEncoding.EncodeToString(raw) != text || !hmac.Equal(raw[challengeBytes:], h.tag(raw[:challengeBytes])) {
		return expires, errChallenge
	}
	expires = time.Unix(int64(binary.BigEndian.Uint64(raw[challengeDrawn:])), 0).UTC()
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, spent := h.spent[text]; spent || !h.now().Before(expires) {
		return expires, errChallenge
	}
	return expires, nil
}

// spend takes a challenge back, once.
func (h *holders) spend(text string, expires time.Time) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, spent := h.spent[text]; spent {
		return errChallenge
	}
	if len(h.spent) >= maxSpent {
		now := h.now()
		for t, end := range h.spent {
			if !now.Before(end) {
				delete(h.spent, t)
			}
		}
		if len(h.spent) >= maxSpent {
			return jpki.Errorf(jpki.RateLimited, "too many phones are being enrolled")
		}
	}
	h.spent[text] = expires
	return nil
}
