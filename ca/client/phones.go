package client

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"net/http"
	"strings"
	"time"

	"golang.org/x/crypto/cryptobyte"

	"github.com/openjpki/jpki"
)

// A PhoneEnrolmentOrder asks that a phone be let in to have keys certified that it makes.
type PhoneEnrolmentOrder struct {
	Holder  string      `json:"holder"`
	Token   string      `json:"token"`             // of the phone
	Parent  jpki.CertID `json:"parent"`            // the card signature certificate that asks for it
	Kinds   []jpki.Kind `json:"kinds"`             // phone-sign, phone-auth or both
	Minutes int         `json:"minutes,omitempty"` // how long it is open, 1 to 60; 0 means 15
}

// A PhoneEnrolment is what a phone goes on with, by ACME (RFC 8555). It is told once.
type PhoneEnrolment struct {
	ID          string            `json:"id"`
	Directories map[string]string `json:"directories"` // URLs, by attestation format
	KeyID       string            `json:"key_id"`      // of the external account binding, with the key for HS256
	Key         []byte            `json:"key"`
	ExpiresAt   time.Time         `json:"expires_at"`
}

// A HolderChallenge is what a holder's request is bound to.
type HolderChallenge struct {
	Challenge string    `json:"challenge"`
	Audience  string    `json:"audience"` // the URL of the authority that asks
	ExpiresAt time.Time `json:"expires_at"`
}

// A HolderPhoneOrder asks the same as [PhoneEnrolmentOrder] for the holder of a card, who signs it.
type HolderPhoneOrder struct {
	Challenge   string      `json:"challenge"`
	Token       string      `json:"token"`
	Kinds       []jpki.Kind `json:"kinds"`
	Certificate string      `json:"certificate"` // the card's signature certificate, PEM
	Signature   []byte      `json:"signature"`   // over HolderChallenge.PhoneMessage
}

var phonePrefix = strings.Repeat(" ", 64) + "JPKI phone enrolment, version 1\x00"

// PhoneMessage is what the card signs, with its signature key, to ask for a phone: 64 spaces, the text "JPKI phone enrolment,
// version 1" and a zero octet, then, each after its length in two octets, the audience, the challenge, the phone's token
// and the kinds, sorted and joined by spaces, then the expiry in seconds since 1970 in eight octets. No document and no
// log-in begins like this.
func (c HolderChallenge) PhoneMessage(token string, kinds []jpki.Kind) ([]byte, error) {
	var sorted []string
	for _, k := range []jpki.Kind{jpki.PhoneAuth, jpki.PhoneSign} {
		n := 0
		for _, asked := range kinds {
			if asked == k {
				n++
			}
		}
		if n > 1 {
			return nil, jpki.Errorf(jpki.Malformed, "kinds names %s twice", k)
		}
		if n == 1 {
			sorted = append(sorted, string(k))
		}
	}
	if len(sorted) == 0 || len(sorted) != len(kinds) {
		return nil, jpki.Errorf(jpki.Malformed, "the kinds are phone-sign, phone-auth or both")
	}
	var b cryptobyte.Builder
	b.AddBytes([]byte(phonePrefix))
	for _, part := range []string{c.Audience, c.Challenge, token, strings.Join(sorted, " ")} {
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes([]byte(part)) })
	}
	b.AddUint64(uint64(c.ExpiresAt.Unix()))
	out, err := b.Bytes()
	if err != nil {
		return nil, jpki.WrapError(jpki.Malformed, err, "a part of the request is too long")
	}
	return out, nil
}

// HolderDigest hashes a message for the key of a certificate as cards do: SHA-384 for P-384 keys, else SHA-256.
func HolderDigest(certificate, message []byte) ([]byte, crypto.Hash) {
	hash := crypto.SHA256
	if c, err := x509.ParseCertificate(certificate); err == nil {
		if k, ok := c.PublicKey.(*ecdsa.PublicKey); ok && k.Curve == elliptic.P384() {
			hash = crypto.SHA384
		}
	}
	h := hash.New()
	h.Write(message)
	return h.Sum(nil), hash
}

// BeginPhone begins a phone's enrolment for a counter. It may be repeated: the newest of a phone's counts.
func (c *Client) BeginPhone(ctx context.Context, o PhoneEnrolmentOrder) (out PhoneEnrolment, err error) {
	return out, c.do(ctx, http.MethodPost, "/station/v1/phone-enrolments", "", o, &out)
}

// BeginOwnPhone begins the enrolment of a holder's phone; the client needs no certificate. sign has the card sign a message
// with its signature key: an RSA PKCS #1 v1.5 signature over its SHA-256, or ECDSA, in DER, over its SHA-384.
// A challenge of another authority than the one that was called is not signed.
func (c *Client) BeginOwnPhone(ctx context.Context, token string, kinds []jpki.Kind, certificate []byte, sign func(message []byte) ([]byte, error)) (out PhoneEnrolment, err error) {
	var ch HolderChallenge
	if err := c.do(ctx, http.MethodPost, "/holder/v1/challenges", "", struct{}{}, &ch); err != nil {
		return out, err
	}
	if ch.Audience != c.base {
		return out, jpki.Errorf(jpki.ChallengeInvalid, "the challenge is another authority's")
	}
	message, err := ch.PhoneMessage(token, kinds)
	if err != nil {
		return out, err
	}
	signature, err := sign(message)
	if err != nil {
		return out, err
	}
	o := HolderPhoneOrder{Challenge: ch.Challenge, Token: token, Kinds: kinds, Certificate: PEM(certificate), Signature: signature}
	return out, c.do(ctx, http.MethodPost, "/holder/v1/phone-enrolments", "", o, &out)
}
