package ca

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/store"
)

// A PhoneEnrolmentRequest asks that a phone be let in, to have keys certified that it makes and its maker attests.
type PhoneEnrolmentRequest struct {
	Holder string
	Token  string
	Parent jpki.CertID // the card signature certificate that asks for it
	Kinds  []jpki.Kind // one or both of a phone's
	Life   time.Duration
}

// How long an enrolment is open, unless asked for otherwise, and at most; and how long it is remembered afterwards.
const (
	phoneLife    = 15 * time.Minute
	maxPhoneLife = time.Hour
	phoneMemory  = 24 * time.Hour
)

// A PhoneBinding is what the phone is told, once: with it, it binds its ACME account (RFC 8555 §7.3.4).
type PhoneBinding struct {
	Enrolment string
	KeyID     string
	Key       []byte // for HS256
	ExpiresAt time.Time
}

// LogValue keeps the key out of logs.
func (b PhoneBinding) LogValue() slog.Value { return slog.StringValue(b.Enrolment) }

// BeginPhoneEnrolment lets a phone in for a while, on the strength of the holder's card signature certificate, and ends
// what was open for it before: a request whose answer got lost is simply made again. Certificates that the phone has may be
// asked for when they end soon, to be renewed. What is checked here is checked by
// [Authority.Issue], too, and there it counts; this is to say no early.
//
// The problems it reports: Malformed, MyNumberPresent, Forbidden, WrongMunicipality, UnknownHolder, UnknownCertificate,
// NotEligible, AlreadyCertified, Unavailable.
func (a *Authority) BeginPhoneEnrolment(ctx context.Context, by jpki.Actor, req PhoneEnrolmentRequest) (PhoneBinding, error) {
	if err := checkPhoneEnrolment(by, &req); err != nil {
		return PhoneBinding{}, err
	}
	now := a.now().UTC()
	b := PhoneBinding{ExpiresAt: now.Add(req.Life), Key: make([]byte, sha256.Size)}
	drawn := make([]byte, 2*bindingPart)
	for _, p := range [][]byte{drawn, b.Key} {
		if _, err := io.ReadFull(a.rand, p); err != nil {
			return PhoneBinding{}, fmt.Errorf("draw external account binding: %w", err)
		}
	}
	b.Enrolment = base64.RawURLEncoding.EncodeToString(drawn[:bindingPart])
	b.KeyID = base64.RawURLEncoding.EncodeToString(drawn)
	sealed, err := sealer(drawn)
	if err != nil {
		return PhoneBinding{}, err
	}
	e := store.PhoneEnrolment{
		ID: b.Enrolment, Holder: req.Holder, Token: req.Token, Parent: req.Parent, Kinds: req.Kinds, By: by,
		SealedKey: sealed.Seal(nil, nil, b.Key, []byte(b.Enrolment)), ExpiresAt: b.ExpiresAt, //nolint:gosec // the cipher draws the nonce itself
	}
	err = a.store.Update(ctx, func(tx *store.Tx) error {
		if err := a.mayEnrolPhone(tx, by, req, now); err != nil {
			return err
		}
		if err := tx.ForgetPhoneEnrolments(now.Add(-phoneMemory)); err != nil {
			return err
		}
		if err := tx.AddPhoneEnrolment(e, now); err != nil {
			return err
		}
		return tx.Audit(now, by, "phone.enrolment", e.ID, map[string]any{"holder": e.Holder, "token": e.Token, "parent": e.Parent, "kinds": e.Kinds, "until": e.ExpiresAt})
	})
	if err != nil {
		return PhoneBinding{}, err
	}
	return b, nil
}

// checkPhoneEnrolment checks everything that needs no database.
func checkPhoneEnrolment(by jpki.Actor, req *PhoneEnrolmentRequest) error {
	switch {
	case by.Role != jpki.Counter && by.Role != jpki.Holder:
		return jpki.Errorf(jpki.Forbidden, "a %s may not ask for certificates", by.Role)
	case by.Role == jpki.Holder && by.ID != req.Holder:
		return jpki.Errorf(jpki.Forbidden, "a holder enrols a phone of their own")
	}
	for field, s := range map[string]string{"holder": req.Holder, "token": req.Token} {
		if err := checkIdentifier(field, s); err != nil {
			return err
		}
	}
	req.Kinds = slices.Clone(req.Kinds)
	slices.Sort(req.Kinds)
	req.Kinds = slices.Compact(req.Kinds)
	other := slices.ContainsFunc(req.Kinds, func(k jpki.Kind) bool { return k != jpki.PhoneSign && k != jpki.PhoneAuth })
	if len(req.Kinds) == 0 || other {
		return jpki.Errorf(jpki.Malformed, "the kinds are phone-sign, phone-auth or both")
	}
	if req.Life == 0 {
		req.Life = phoneLife
	}
	if req.Life < time.Minute || req.Life > maxPhoneLife {
		return jpki.Errorf(jpki.Malformed, "an enrolment is open for 1 to %d minutes", maxPhoneLife/time.Minute)
	}
	return nil
}

// mayEnrolPhone checks an enrolment against register, token and certificates.
func (a *Authority) mayEnrolPhone(tx *store.Tx, by jpki.Actor, req PhoneEnrolmentRequest, now time.Time) error {
	h, err := tx.Holder(req.Holder)
	if err != nil {
		return err
	}
	if err := mayActFor(by, h); err != nil {
		return err
	}
	parent, err := tx.Certificate(req.Parent)
	if err != nil {
		return err
	}
	if parent.Holder != h.ID || parent.Kind != jpki.CardSign || parent.Status.State != jpki.Good || !parent.Live(now) {
		return jpki.Errorf(jpki.Forbidden, "the parent is not the holder's card signature certificate in force")
	}
	all, err := tx.CertificatesOf(h.ID)
	if err != nil {
		return err
	}
	for _, k := range req.Kinds {
		if err := checkEligible(h, k, now); err != nil {
			return err
		}
		for _, c := range all {
			if c.Token == req.Token && c.Kind == k && c.Live(now) && !a.renewable(c, now) {
				return jpki.Errorf(jpki.AlreadyCertified, "%s %s is %s", k, c.ID, c.Status.State)
			}
		}
	}
	return nil
}

// renewable reports whether another certificate may take a phone's place now.
func (a *Authority) renewable(c store.Certificate, now time.Time) bool {
	return c.Status.State == jpki.Good && a.profile.Validity.renewable(c.NotAfter, now)
}

// Renews reports whether a phone's certificate of a kind would take the place of one that ends soon, which is [Authority.Renew]'s
// business, or not, which is [Authority.Issue]'s. They check it all again.
func (a *Authority) Renews(tx *store.Tx, holder, token string, k jpki.Kind) (bool, error) {
	all, err := tx.CertificatesOf(holder)
	now := a.now()
	return slices.ContainsFunc(all, func(c store.Certificate) bool {
		return c.Token == token && c.Kind == k && c.Live(now) && a.renewable(c, now)
	}), err
}

// A binding's key identifier is two parts: which enrolment, and the secret under which the key lies in the database. So
// the database alone, or a copy of it, binds no account, and no process needs a key of its own for it.
const bindingPart = 16 // octets

// sealer returns the cipher of a key identifier.
func sealer(keyID []byte) (cipher.AEAD, error) {
	key := sha256.Sum256(append([]byte("phone enrolment\n"), keyID[bindingPart:]...))
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, fmt.Errorf("open external account binding: %w", err)
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// ParseBindingKeyID returns the enrolment that a key identifier is of. It accepts exactly the form that
// [PhoneBinding].KeyID has.
func ParseBindingKeyID(s string) (enrolment string, err error) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(raw) != 2*bindingPart || strings.ContainsAny(s, "\r\n") { // which the decoder would skip
		return "", jpki.Errorf(jpki.Unauthorized, "the key identifier of the external account binding is unknown")
	}
	return base64.RawURLEncoding.EncodeToString(raw[:bindingPart]), nil
}

// OpenBinding returns the key that was sealed for an enrolment.
func OpenBinding(keyID string, e store.PhoneEnrolment) ([]byte, error) {
	id, err := ParseBindingKeyID(keyID)
	if err != nil {
		return nil, err
	}
	raw, err := base64.RawURLEncoding.DecodeString(keyID)
	if err != nil {
		return nil, err
	}
	sealed, err := sealer(raw)
	if err != nil {
		return nil, err
	}
	key, err := sealed.Open(nil, nil, e.SealedKey, []byte(e.ID))
	if err != nil || id != e.ID {
		return nil, jpki.Errorf(jpki.Unauthorized, "the key identifier of the external account binding is unknown")
	}
	return key, nil
}
