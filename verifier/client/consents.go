package client

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/big"
	"net/http"
	"strings"
	"time"

	"github.com/openjpki/jpki"
)

// ConsentTerms is what a holder shall consent to.
type ConsentTerms struct {
	Purpose     string      `json:"purpose"`     // 1 to 64 of a-z, 0-9 and hyphen
	Description string      `json:"description"` // of the purpose, for the holder to read: 1 to 200 characters
	Items       []jpki.Item `json:"items"`       // in the order of [jpki.Items]
	Lang        string      `json:"lang"`        // of the text: ja or en
}

// A ConsentText is what the holder reads and signs, detached, as CMS: exactly the octets of Text in UTF-8.
type ConsentText struct {
	ConsentTerms
	Version   string    `json:"version"`
	Reference string    `json:"reference"` // of this text, which is signed once
	IssuedAt  time.Time `json:"issued_at"` // it may be signed for a day
	Text      string    `json:"text"`
}

// A Consent is one as it stands, with a receipt for that.
type Consent struct {
	ID   string `json:"id"`
	User string `json:"user"` // the holder's pseudonym for your organisation; empty in lists for the holder
	ConsentTerms
	Version        string     `json:"version"`
	Reference      string     `json:"reference"`
	TextSHA256     string     `json:"text_sha256"`
	DocumentSHA256 string     `json:"document_sha256"` // of the CMS
	ReceivedAt     time.Time  `json:"received_at"`
	ValidFrom      time.Time  `json:"valid_from"`
	ValidUntil     time.Time  `json:"valid_until"`
	State          string     `json:"state"` // pending, valid, expired, withdrawn or replaced
	WithdrawnAt    *time.Time `json:"withdrawn_at"`
	RemindAt       *time.Time `json:"remind_at"` // when the holder is next to be reminded, once a year
	Receipt        string     `json:"receipt"`   // see [VerifyReceipt]

	Tenant     jpki.CorporateNumber `json:"tenant"`      // for the holder: who receives the attributes
	TenantName string               `json:"tenant_name"` // for the holder
}

// NewConsentText returns what a holder is to read and sign.
func (c *Client) NewConsentText(ctx context.Context, t ConsentTerms) (out ConsentText, err error) {
	return out, c.post(ctx, "/v1/consent-texts", t, &out)
}

// GiveConsent brings what a holder signed and returns the consent. Repeated, it returns the same.
func (c *Client) GiveConsent(ctx context.Context, t ConsentText, signature []byte) (out Consent, err error) {
	return out, c.post(ctx, "/v1/consents", struct {
		ConsentText
		Signature []byte `json:"signature"`
	}{t, signature}, &out)
}

// Consents returns up to 100 of your consents behind a place, oldest first, and where to go on, empty at the end. user may be empty: all
// users.
func (c *Client) Consents(ctx context.Context, user, after string) (list []Consent, next string, err error) {
	in := map[string]string{}
	if user != "" {
		in["user"] = user
	}
	if after != "" {
		in["after"] = after
	}
	var out struct {
		Consents []Consent `json:"consents"`
		Next     string    `json:"next"`
	}
	err = c.post(ctx, "/v1/consent-searches", in, &out)
	return out.Consents, out.Next, err
}

// LatestAttributes are those of the four that a consent covers. They are personal data: fmt and slog print a placeholder.
type LatestAttributes struct {
	Consent            string         `json:"consent"` // under which they are handed out
	Name               string         `json:"name"`
	NameSubstitutes    string         `json:"name_substitutes"`
	Sex                jpki.Sex       `json:"sex"`
	BirthDate          jpki.BirthDate `json:"birth_date"`
	Address            string         `json:"address"`
	AddressSubstitutes string         `json:"address_substitutes"`
	RemindAt           *time.Time     `json:"remind_at"`
}

// Format keeps the attributes out of formatted output.
func (LatestAttributes) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("[redacted]")) }

// LogValue keeps the attributes out of logs.
func (LatestAttributes) LogValue() slog.Value { return slog.StringValue("[redacted]") }

// LatestAttributes fetches a user's attributes under a consent: [jpki.ConsentRequired] without one in force, [jpki.NotAvailableYet]
// while there is no newer certificate. Keep the key, 1 to 255 printable ASCII characters, until you have the answer: the same
// key gets the same again.
func (c *Client) LatestAttributes(ctx context.Context, key, user, purpose string) (out LatestAttributes, err error) {
	body, err := json.Marshal(map[string]string{"user": user, "purpose": purpose})
	if err != nil {
		return out, err
	}
	return out, c.doUnder(ctx, key, http.MethodPost, "/v1/attributes", "application/json", body, &out)
}

// A HolderAsk is a holder's request: record, consents, or withdraw-consent with a consent.
type HolderAsk struct {
	Action  string `json:"action"`
	Consent string `json:"consent,omitempty"`
}

// A HolderLogin is what the holder's authentication key signs for one request.
type HolderLogin struct {
	Challenge string    `json:"challenge"`
	Nonce     []byte    `json:"nonce"`
	Audience  string    `json:"audience"` // the authority's URL: do not have another's signed
	ExpiresAt time.Time `json:"expires_at"`
	Message   []byte    `json:"message"`
}

// A HolderProof is what the holder signed. Only a withdrawal has consent, nonce and expiry.
type HolderProof struct {
	Challenge   string     `json:"challenge"`
	Certificate []byte     `json:"certificate"` // the authentication certificate, DER
	Signature   []byte     `json:"signature"`
	Consent     string     `json:"consent,omitempty"`
	Nonce       []byte     `json:"nonce,omitempty"`
	ExpiresAt   *time.Time `json:"expires_at,omitempty"`
}

// Proof makes the proof of a request from the signature over l.Message.
func (l HolderLogin) Proof(ask HolderAsk, certificate, signature []byte) HolderProof {
	p := HolderProof{Challenge: l.Challenge, Certificate: certificate, Signature: signature}
	if ask.Consent != "" {
		p.Consent, p.Nonce, p.ExpiresAt = ask.Consent, l.Nonce, &l.ExpiresAt
	}
	return p
}

// A RecordEntry is one thing that a relying party did about the holder.
type RecordEntry struct {
	At         time.Time            `json:"at"`
	Tenant     jpki.CorporateNumber `json:"tenant"`
	TenantName string               `json:"tenant_name"`
	Operator   string               `json:"operator"`
	Action     string               `json:"action"`
	Purpose    string               `json:"purpose"`
	Items      []jpki.Item          `json:"items"`
	Consent    string               `json:"consent"`
}

// HolderLogin begins a holder's request.
func (c *Client) HolderLogin(ctx context.Context, ask HolderAsk) (out HolderLogin, err error) {
	return out, c.post(ctx, "/v1/holder/log-ins", ask, &out)
}

// HolderRecord returns a page of the holder's record, newest first, and what opens the following one; empty at the end.
func (c *Client) HolderRecord(ctx context.Context, p HolderProof) (list []RecordEntry, next string, err error) {
	return c.record(ctx, p)
}

// HolderRecordNext returns the page that next opens, for 15 minutes.
func (c *Client) HolderRecordNext(ctx context.Context, next string) (list []RecordEntry, following string, err error) {
	return c.record(ctx, map[string]string{"next": next})
}

func (c *Client) record(ctx context.Context, in any) ([]RecordEntry, string, error) {
	var out struct {
		Entries []RecordEntry `json:"entries"`
		Next    string        `json:"next"`
	}
	err := c.post(ctx, "/v1/holder/record", in, &out)
	return out.Entries, out.Next, err
}

// HolderConsents returns all consents of the holder, to whomever, newest first.
func (c *Client) HolderConsents(ctx context.Context, p HolderProof) ([]Consent, error) {
	var out struct {
		Consents []Consent `json:"consents"`
	}
	err := c.post(ctx, "/v1/holder/consents", p, &out)
	return out.Consents, err
}

// WithdrawConsent ends a consent of the holder, at once and for ever.
func (c *Client) WithdrawConsent(ctx context.Context, p HolderProof) (out Consent, err error) {
	return out, c.post(ctx, "/v1/holder/consent-withdrawals", p, &out)
}

// ReceiptKeys returns the keys that verify receipts, a JWK Set. Keep them with the receipts.
func (c *Client) ReceiptKeys(ctx context.Context) (set json.RawMessage, err error) {
	return set, c.do(ctx, http.MethodGet, "/.well-known/consent-receipt-keys", "", nil, &set)
}

// Bounds of what [VerifyReceipt] reads, in octets.
const (
	maxReceipt = 64 << 10
	maxKeySet  = 1 << 20
)

// VerifyReceipt verifies a receipt offline with a JWK Set and returns what it says, JSON. Whose keys the set has is for the caller to
// know. The error is [jpki.Malformed] if the receipt is none, and [jpki.Forbidden] if no key of the set signed it.
func VerifyReceipt(set []byte, receipt string) (claims json.RawMessage, err error) {
	bad := jpki.Errorf(jpki.Malformed, "not a receipt of a consent")
	parts := strings.Split(receipt, ".")
	if len(receipt) > maxReceipt || len(set) > maxKeySet || len(parts) != 3 {
		return nil, bad
	}
	var raw [3][]byte
	for i, p := range parts {
		if raw[i], err = base64.RawURLEncoding.Strict().DecodeString(p); err != nil || base64.RawURLEncoding.EncodeToString(raw[i]) != p {
			return nil, bad
		}
	}
	var header struct{ Alg, Typ, Kid string }
	var keys struct {
		Keys []struct{ Kty, Crv, Kid, X, Y string }
	}
	if json.Unmarshal(raw[0], &header) != nil || header.Alg != "ES256" || header.Typ != "consent-receipt+jwt" || len(raw[2]) != 64 || !json.Valid(raw[1]) || json.Unmarshal(set, &keys) != nil {
		return nil, bad
	}
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	for _, k := range keys.Keys {
		x, errX := base64.RawURLEncoding.DecodeString(k.X)
		y, errY := base64.RawURLEncoding.DecodeString(k.Y)
		if k.Kty != "EC" || k.Crv != "P-256" || k.Kid != header.Kid || errX != nil || errY != nil || len(x) != 32 || len(y) != 32 {
			continue
		}
		public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append(append([]byte{4}, x...), y...))
		if err == nil && ecdsa.Verify(public, sum[:], new(big.Int).SetBytes(raw[2][:32]), new(big.Int).SetBytes(raw[2][32:])) {
			return raw[1], nil
		}
	}
	return nil, jpki.Errorf(jpki.Forbidden, "no key of the set signed the receipt")
}
