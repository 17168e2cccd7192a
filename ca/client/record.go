package client

import (
	"context"
	"crypto/sha256"
	"iter"
	"net/http"
	"strings"
	"time"

	"golang.org/x/crypto/cryptobyte"

	"github.com/openjpki/jpki"
)

// A HolderAction is what a holder asks for with an authentication certificate.
type HolderAction string

// The actions.
const (
	ReadRecord      HolderAction = "record"
	ReadConsents    HolderAction = "consents"
	WithdrawConsent HolderAction = "withdraw-consent"
)

// A HolderAsk begins a holder's request: what it will be.
type HolderAsk struct {
	Action  HolderAction `json:"action"`
	Consent string       `json:"consent,omitempty"` // to withdraw
}

// Binding is what ties a log-in to one request: the SHA-256 of the text "JPKI holder request, version 1", a zero octet, the
// action, a zero octet and the consent.
func (a HolderAsk) Binding() []byte {
	sum := sha256.Sum256([]byte("JPKI holder request, version 1\x00" + string(a.Action) + "\x00" + a.Consent))
	return sum[:]
}

// A HolderLogin is what the holder's authentication key signs for one request.
type HolderLogin struct {
	Challenge string    `json:"challenge"`
	Nonce     []byte    `json:"nonce"`
	Audience  string    `json:"audience"` // the URL of the authority that asks
	ExpiresAt time.Time `json:"expires_at"`
}

var loginPrefix = strings.Repeat(" ", 64) + "JPKI log-in challenge, version 1\x00"

// Message is what is signed: a log-in challenge as verifiers make them, bound to the request. It is 64 spaces, the text "JPKI
// log-in challenge, version 1" and a zero octet, then, each after its length in two octets, the audience, the challenge, the
// nonce and [HolderAsk.Binding], then the expiry in seconds since 1970 in eight octets.
func (l HolderLogin) Message(a HolderAsk) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddBytes([]byte(loginPrefix))
	for _, part := range [][]byte{[]byte(l.Audience), []byte(l.Challenge), l.Nonce, a.Binding()} {
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(part) })
	}
	b.AddUint64(uint64(l.ExpiresAt.Unix()))
	out, err := b.Bytes()
	if err != nil {
		return nil, jpki.WrapError(jpki.Malformed, err, "a part of the challenge is too long")
	}
	return out, nil
}

// A HolderProof is a holder's signed request. Next, from a page of the record, stands in for a signature for some minutes.
type HolderProof struct {
	Challenge   string `json:"challenge,omitempty"`
	Certificate string `json:"certificate,omitempty"` // the authentication certificate, PEM
	Signature   []byte `json:"signature,omitempty"`
	Next        string `json:"next,omitempty"`

	// To withdraw a consent: which, and of what the signed message was made, since it is kept.
	Consent   string    `json:"consent,omitempty"`
	Nonce     []byte    `json:"nonce,omitempty"`
	ExpiresAt time.Time `json:"expires_at,omitzero"`
}

// A RecordAction is what was done about a holder.
type RecordAction string

// The actions of relying parties; those of [UseAction] are recorded under their own names.
const (
	RecordIdentity     RecordAction = "identity"
	RecordWatch        RecordAction = "watch"
	RecordWatchEnded   RecordAction = "watch-ended"
	RecordConsent      RecordAction = "consent"
	RecordWithdrawal   RecordAction = "consent-withdrawn"
	RecordAttributes   RecordAction = "attributes" // were handed out
	RecordVerification RecordAction = RecordAction(UseVerification)
	RecordLogin        RecordAction = RecordAction(UseLogin)
	RecordStatusCheck  RecordAction = RecordAction(UseStatusCheck)
)

// A RecordEntry is one thing that a relying party did about the holder, for the holder to read.
type RecordEntry struct {
	At         time.Time            `json:"at"`
	Tenant     jpki.CorporateNumber `json:"tenant"`
	TenantName string               `json:"tenant_name"`
	Operator   string               `json:"operator"`
	Action     RecordAction         `json:"action"`
	Purpose    string               `json:"purpose"`
	Items      []jpki.Item          `json:"items,omitempty"`   // of consents and of what was handed out
	Consent    string               `json:"consent,omitempty"` // of the same
}

// A RecordPage is a part of a holder's record, newest first.
type RecordPage struct {
	Entries []RecordEntry `json:"entries"`
	Next    string        `json:"next,omitempty"`
}

// HolderConsents are all consents of a holder, newest first.
type HolderConsents struct {
	Consents []Consent `json:"consents"`
}

// A HolderSigner signs with an authentication certificate, DER: an RSA PKCS #1 v1.5 signature over the message's SHA-256, or
// ECDSA, in DER, over its SHA-384.
type HolderSigner struct {
	Certificate []byte
	Sign        func(message []byte) ([]byte, error)
}

// OwnRecord yields what relying parties did about the holder, newest first. The client needs no certificate.
func (c *Client) OwnRecord(ctx context.Context, s HolderSigner) iter.Seq2[RecordEntry, error] {
	return func(yield func(RecordEntry, error) bool) {
		proof, err := c.prove(ctx, s, HolderAsk{Action: ReadRecord})
		for {
			var page RecordPage
			if err == nil {
				err = c.do(ctx, http.MethodPost, "/holder/v1/record", "", proof, &page)
			}
			if err != nil {
				yield(RecordEntry{}, err)
				return
			}
			for _, e := range page.Entries {
				if !yield(e, nil) {
					return
				}
			}
			if page.Next == "" {
				return
			}
			proof = HolderProof{Next: page.Next}
		}
	}
}

// OwnConsents returns the holder's consents.
func (c *Client) OwnConsents(ctx context.Context, s HolderSigner) (out HolderConsents, err error) {
	proof, err := c.prove(ctx, s, HolderAsk{Action: ReadConsents})
	if err != nil {
		return out, err
	}
	return out, c.do(ctx, http.MethodPost, "/holder/v1/consents", "", proof, &out)
}

// WithdrawConsent ends a consent of the holder. Repeated, it returns the same.
func (c *Client) WithdrawConsent(ctx context.Context, s HolderSigner, consent string) (out Consent, err error) {
	proof, err := c.prove(ctx, s, HolderAsk{Action: WithdrawConsent, Consent: consent})
	if err != nil {
		return out, err
	}
	return out, c.do(ctx, http.MethodPost, "/holder/v1/consent-withdrawals", "", proof, &out)
}

// prove has the holder sign one request. A challenge of another authority than the one that was called is not signed.
func (c *Client) prove(ctx context.Context, s HolderSigner, ask HolderAsk) (p HolderProof, err error) {
	var l HolderLogin
	if err := c.do(ctx, http.MethodPost, "/holder/v1/log-ins", "", ask, &l); err != nil {
		return p, err
	}
	if l.Audience != c.base {
		return p, jpki.Errorf(jpki.ChallengeInvalid, "the challenge is another authority's")
	}
	message, err := l.Message(ask)
	if err != nil {
		return p, err
	}
	signature, err := s.Sign(message)
	if err != nil {
		return p, err
	}
	p = HolderProof{Challenge: l.Challenge, Certificate: PEM(s.Certificate), Signature: signature}
	if ask.Action == WithdrawConsent {
		p.Consent, p.Nonce, p.ExpiresAt = ask.Consent, l.Nonce, l.ExpiresAt
	}
	return p, nil
}
