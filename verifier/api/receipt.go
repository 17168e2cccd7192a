package api

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/client"
)

const (
	receiptKeysPath = "/.well-known/consent-receipt-keys"
	receiptSchema   = "jpki-consent-receipt-1"
	receiptType     = "consent-receipt+jwt"
)

// receipts signs receipts of consents.
type receipts struct {
	issuer string
	key    crypto.Signer
	id     string // of the key
	set    []byte // all keys, JSON
}

func newReceipts(c *Consents) (*receipts, error) {
	u, err := url.Parse(c.Issuer)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || strings.HasSuffix(c.Issuer, "/") {
		return nil, errors.New("the Issuer is no http URL without a final slash")
	}
	r := &receipts{issuer: c.Issuer, key: c.Key}
	var keys []map[string]string
	for _, k := range append([]crypto.PublicKey{c.Key.Public()}, c.FormerKeys...) {
		jwk, err := jwkOf(k)
		if err != nil {
			return nil, err
		}
		keys = append(keys, jwk)
	}
	r.id = keys[0]["kid"]
	r.set, err = json.Marshal(map[string]any{"keys": keys})
	return r, err
}

// jwkOf writes a P-256 key as RFC 7517 has it, named by its thumbprint (RFC 7638).
func jwkOf(k crypto.PublicKey) (map[string]string, error) {
	public, ok := k.(*ecdsa.PublicKey)
	if !ok || public.Curve != elliptic.P256() {
		return nil, errors.New("the keys are not P-256")
	}
	point, err := public.Bytes()
	if err != nil {
		return nil, err
	}
	encode := base64.RawURLEncoding.EncodeToString
	x, y := encode(point[1:33]), encode(point[33:])
	sum := sha256.Sum256(fmt.Appendf(nil, `{"crv":"P-256","kty":"EC","x":"%s","y":"%s"}`, x, y))
	return map[string]string{"kty": "EC", "crv": "P-256", "x": x, "y": y, "alg": "ES256", "use": "sig", "kid": encode(sum[:])}, nil
}

// receiptKeys publishes the keys, for anybody.
func (a *API) receiptKeys(c *gin.Context) {
	if a.receipts == nil {
		_, err := a.authority()
		a.refuse(c, err)
		return
	}
	c.Set(outcomeKey, answered)
	c.Header("Cache-Control", "public, max-age=3600")
	c.Data(http.StatusOK, "application/jwk-set+json", a.receipts.set)
}

// A receipt is what is signed: the fields that ISO/IEC TS 27560 gives a consent record, as far as there is something to say.
// Nothing in it tells who the holder is but the pseudonym that the tenant has.
type receipt struct {
	Issuer   string         `json:"iss"`
	ID       string         `json:"jti"`
	IssuedAt int64          `json:"iat"`
	Schema   string         `json:"schema_version"`
	Record   string         `json:"record_id"`
	Subject  string         `json:"pii_principal_id"`
	Process  []processing   `json:"pii_processing"`
	Events   []receiptEvent `json:"events"`
	State    string         `json:"consent_state"`
	RemindAt string         `json:"reminder_time,omitempty"`
}

type processing struct {
	Notice     notice       `json:"privacy_notice"`
	Controller controller   `json:"pii_controller"`
	Operator   string       `json:"service_operator"`
	Purpose    string       `json:"purpose"`
	Text       string       `json:"purpose_description"`
	Basis      string       `json:"lawful_basis"`
	Items      []jpki.Item  `json:"pii_type"`
	Source     string       `json:"collection_method"`
	From       string       `json:"valid_from"`
	Until      string       `json:"valid_until"`
	Withdrawal string       `json:"withdrawal_method"`
	Recipients []controller `json:"recipient_third_parties"`
}

type controller struct {
	ID   jpki.CorporateNumber `json:"corporate_number"`
	Name string               `json:"name"`
}

type notice struct {
	Version   string `json:"version"`
	Reference string `json:"reference"`
	Lang      string `json:"language"`
	Text      string `json:"text_sha256"`
	Document  string `json:"signed_document_sha256"`
}

type receiptEvent struct {
	Type string `json:"event_type"`
	At   string `json:"event_time"`
}

// of signs the receipt for a consent as it is now: a compact JWS (RFC 7515) with ES256.
func (r *receipts) of(c client.Consent, now time.Time, rand io.Reader) (string, error) {
	when := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	var id [16]byte
	if _, err := io.ReadFull(rand, id[:]); err != nil {
		return "", fmt.Errorf("draw identifier: %w", err)
	}
	out := receipt{
		Issuer: r.issuer, ID: hex.EncodeToString(id[:]), IssuedAt: now.Unix(), Schema: receiptSchema, Record: c.ID, Subject: c.User, State: string(c.State),
		Process: []processing{{
			Notice:     notice{c.Version, c.Reference, c.Lang, c.TextSHA256, c.DocumentSHA256},
			Controller: controller{c.Tenant, c.TenantName}, Operator: c.Operator, Purpose: c.Purpose, Text: c.Description, Basis: "consent", Items: c.Items,
			Source: "certification-authority", From: when(c.ValidFrom), Until: when(c.ValidUntil), Withdrawal: "authentication-certificate", Recipients: []controller{},
		}},
		Events: []receiptEvent{{"consent-given", when(c.ReceivedAt)}},
	}
	if c.WithdrawnAt != nil {
		out.Events = append(out.Events, receiptEvent{"consent-withdrawn", when(*c.WithdrawnAt)})
	}
	if c.RemindAt != nil {
		out.RemindAt = when(*c.RemindAt)
	}
	header, err := json.Marshal(map[string]string{"alg": "ES256", "typ": receiptType, "kid": r.id})
	if err != nil {
		return "", err
	}
	payload, err := json.Marshal(out)
	if err != nil {
		return "", err
	}
	encode := base64.RawURLEncoding.EncodeToString
	text := encode(header) + "." + encode(payload)
	sum := sha256.Sum256([]byte(text))
	der, err := r.key.Sign(rand, sum[:], crypto.SHA256)
	if err != nil {
		return "", fmt.Errorf("sign receipt: %w", err)
	}
	var pair struct{ R, S *big.Int }
	if rest, err := asn1.Unmarshal(der, &pair); err != nil || len(rest) > 0 {
		return "", errors.New("sign receipt: the signer's signature cannot be read")
	}
	var signature [64]byte
	pair.R.FillBytes(signature[:32])
	pair.S.FillBytes(signature[32:])
	return text + "." + encode(signature[:]), nil
}

func hexSHA256(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
