package push

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"slices"
	"strconv"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/verifier/store"
)

// EventBase is what the types of our own events begin with; the rest is the class.
const EventBase = "https://github.com/openjpki/jpki/blob/main/docs/verifier-api.md#event-"

// credentialChange is the type of CAEP 1.0 §3.3 for a credential that was made or ended.
const credentialChange = "https://schemas.openid.net/secevent/caep/event-type/credential-change" //nolint:gosec // G101: a type of event

// caep says which change of a credential a class is. The others have no counterpart that would tell no more than we do: CAEP's
// token-claims-change carries the new values.
var caep = map[jpki.ChangeClass]string{jpki.CredentialRenewed: "update", jpki.CredentialEnded: "revoke"}

// EventTypes lists every type of event that tokens may have.
func EventTypes() []string {
	var out []string
	for _, c := range jpki.ChangeClasses {
		out = append(out, EventBase+string(c))
	}
	return append(out, EventBase+string(jpki.ChangesMissed), credentialChange)
}

// Events makes Security Event Tokens.
type Events struct {
	issuer string
	key    crypto.Signer
	jwk    map[string]string
}

// NewEvents returns what signs tokens in the name of issuer, an http or https URL, with a P-256 key.
func NewEvents(issuer string, key crypto.Signer) (*Events, error) {
	u, err := url.Parse(issuer)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, errors.New("push: the issuer is no URL")
	}
	public, ok := key.Public().(*ecdsa.PublicKey)
	if !ok || public.Curve != elliptic.P256() {
		return nil, errors.New("push: the key is not P-256")
	}
	point, err := public.Bytes()
	if err != nil {
		return nil, fmt.Errorf("push: %w", err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	jwk := map[string]string{"kty": "EC", "crv": "P-256", "x": encode(point[1:33]), "y": encode(point[33:])}
	// RFC 7638: the members that are required, in their order.
	sum := sha256.Sum256(fmt.Appendf(nil, `{"crv":"P-256","kty":"EC","x":"%s","y":"%s"}`, jwk["x"], jwk["y"]))
	jwk["alg"], jwk["use"], jwk["kid"] = "ES256", "sig", encode(sum[:])
	return &Events{issuer, key, jwk}, nil
}

// Issuer returns in whose name tokens are signed.
func (e *Events) Issuer() string { return e.issuer }

// KeySet returns the keys that verify tokens (RFC 7517).
func (e *Events) KeySet() any { return map[string]any{"keys": []map[string]string{e.jwk}} }

// streamUpdated is the type of the event that tells of a stream itself (OpenID Shared Signals Framework 1.0 §8.1.5).
const streamUpdated = "https://schemas.openid.net/secevent/ssf/event-type/stream-updated"

// missed is the token that tells a stream's receiver that changes may be missing: every receiver has to know, so who asked for certain
// types of events and not for ours gets the framework's own, which goes to all.
func (e *Events) missed(to *store.Endpoint, c store.Change) (string, error) {
	kind, event := EventBase+string(c.Class), map[string]any{"event_timestamp": c.At.Unix(), "sequence": c.Sequence}
	if len(to.Events) > 0 && !slices.Contains(to.Events, kind) {
		kind, event = streamUpdated, map[string]any{"status": "enabled", "reason": "changes may be missing before sequence " + strconv.FormatInt(c.Sequence, 10) + ": look at all users anew"}
	}
	return e.sign(map[string]any{
		"iss": e.issuer, "jti": c.ID, "iat": c.ReceivedAt.Unix(), "aud": to.Audience,
		"sub_id": map[string]string{"format": "opaque", "id": to.ID}, "events": map[string]any{kind: event},
	})
}

// Token returns a change as a Security Event Token (RFC 8417) with one event, about the pairwise user as an opaque subject
// (RFC 9493 §3.2.5). wanted is false if the endpoint asked for no type of event that this class has. The token's identifier is the change's,
// whenever it is made.
func (e *Events) Token(to *store.Endpoint, c store.Change) (token string, wanted bool, err error) {
	if c.Class == jpki.ChangesMissed {
		token, err = e.missed(to, c)
		return token, true, err
	}
	event := map[string]any{"event_timestamp": c.At.Unix(), "purpose": c.Purpose, "kind": c.Kind, "sequence": c.Sequence}
	if c.Correction {
		event["correction"] = true
	}
	kind := EventBase + string(c.Class)
	if len(to.Events) > 0 && !slices.Contains(to.Events, kind) {
		change, has := caep[c.Class]
		if !has || !slices.Contains(to.Events, credentialChange) {
			return "", false, nil
		}
		kind = credentialChange
		event["credential_type"], event["change_type"] = "x509", change
	}
	token, err = e.sign(map[string]any{
		"iss": e.issuer, "jti": c.ID, "iat": c.ReceivedAt.Unix(), "aud": to.Audience,
		"sub_id": map[string]string{"format": "opaque", "id": c.User}, "events": map[string]any{kind: event},
	})
	return token, true, err
}

// verification is the type of the event by which a receiver sees that a stream works (OpenID Shared Signals Framework 1.0 §8.1.4.1).
const verification = "https://schemas.openid.net/secevent/ssf/event-type/verification"

// Verification returns a stream's verification event, with the state that the receiver sent if it sent one.
func (e *Events) Verification(to *store.Endpoint, n store.Notice) (string, error) {
	event := map[string]string{}
	if n.State != "" {
		event["state"] = n.State
	}
	return e.sign(map[string]any{
		"iss": e.issuer, "jti": n.ID, "iat": n.CreatedAt.Unix(), "aud": to.Audience,
		"sub_id": map[string]string{"format": "opaque", "id": to.ID}, "events": map[string]any{verification: event},
	})
}

func (e *Events) tokenOf(to *store.Endpoint, m message) (token string, wanted bool, err error) {
	if m.notice != nil {
		token, err = e.Verification(to, *m.notice)
		return token, true, err
	}
	return e.Token(to, m.change)
}

// sign makes a JWT signed with ES256 (RFC 7515, RFC 7518 §3.4), typed as RFC 8417 §2.3 recommends.
func (e *Events) sign(claims map[string]any) (string, error) {
	header, err := json.Marshal(map[string]string{"alg": "ES256", "typ": "secevent+jwt", "kid": e.jwk["kid"]})
	if err != nil {
		return "", err
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	text := base64.RawURLEncoding.EncodeToString(header) + "." + base64.RawURLEncoding.EncodeToString(payload)
	sum := sha256.Sum256([]byte(text))
	der, err := e.key.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	var pair struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &pair); err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	var signature [64]byte
	pair.R.FillBytes(signature[:32])
	pair.S.FillBytes(signature[32:])
	return text + "." + base64.RawURLEncoding.EncodeToString(signature[:]), nil
}

// Delivery methods, as the framework names them.
const (
	PushMethod = "urn:ietf:rfc:8935"
	PollMethod = "urn:ietf:rfc:8936"
)

// The paths of the transmitter, behind the issuer.
const (
	MetadataPath     = "/.well-known/ssf-configuration"
	KeySetPath       = "/.well-known/jwks.json"
	StreamsPath      = "/v1/ssf/streams"
	StatusPath       = "/v1/ssf/status"
	VerificationPath = "/v1/ssf/verifications"
)

// Metadata describes the transmitter (OpenID Shared Signals Framework 1.0 §7.1). Every user whom the tenant watches is a subject
// of its streams, and no other: there is nothing to add or remove.
func (e *Events) Metadata() any {
	return map[string]any{
		"spec_version": "1_0", "issuer": e.issuer, "jwks_uri": e.issuer + KeySetPath,
		"delivery_methods_supported": []string{PushMethod, PollMethod},
		"configuration_endpoint":     e.issuer + StreamsPath, "status_endpoint": e.issuer + StatusPath, "verification_endpoint": e.issuer + VerificationPath,
		"authorization_schemes": []map[string]string{{"spec_urn": "urn:ietf:rfc:6749"}}, "default_subjects": "ALL",
	}
}
