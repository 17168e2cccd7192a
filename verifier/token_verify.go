package verifier

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/verifier/jws"
	"github.com/openjpki/jpki/verifier/primitive"
)

// A TokenIssuer is somebody whose validation tokens are believed. Its certificate is pinned: no path is built, and nobody but its
// owner says that its key was lost. Who learns that takes it out of the configuration.
type TokenIssuer struct {
	// Certificate has the key that signs tokens. Required. A token must have been issued while it was valid.
	Certificate *x509.Certificate
	// Name is what tokens must give as their issuer. Required.
	Name string
	// Policies are the identifiers of policies (pol) under which a verdict counts; empty means that of this Verifier, by
	// [PolicyRef.TokenPolicy].
	Policies []string
}

// Limits on tokens.
const (
	MaxTokenBytes = 1 << 20
	MaxTokens     = 256 // for one document
)

// CheckSVT is the check of a validation token (RFC 9321 §5).
const CheckSVT CheckID = "SVT"

// A TokenRef says which validation token a verdict rests on.
type TokenRef struct {
	ID       string    `json:"id"` // as the issuer gave it
	Issuer   string    `json:"issuer"`
	IssuedAt time.Time `json:"issued_at"`
	Policy   string    `json:"policy"`
	SHA256   string    `json:"sha256"` // of the token
}

// A validatedToken is one that is believed.
type validatedToken struct {
	ref      TokenRef
	hash     crypto.Hash
	profile  string
	issuer   *TokenIssuer
	sigs     []tokenSignature
	issuedAt time.Time
}

func tokenIssuers(list []TokenIssuer) ([]TokenIssuer, error) {
	out := slices.Clone(list)
	for i, t := range out {
		if t.Certificate == nil || t.Name == "" {
			return nil, errors.New("a TokenIssuer needs Certificate and Name")
		}
		if _, err := primitive.CertificateKey(t.Certificate.Raw); err != nil {
			return nil, fmt.Errorf("TokenIssuer %.64q: %w", t.Name, err)
		}
		out[i].Policies = slices.Clone(t.Policies)
	}
	return out, nil
}

// VerifyToken says whether a document may be relied upon because of validation tokens that were made when it was verified
// ([DocumentResult.Tokens]). No source is asked and no path built: whether certificates were good, the issuer found out then. That the
// document and its signatures are what the issuer had is found out now. A token never makes a verdict better than it was, and nothing
// makes up for a signature that is not intact; of several tokens about one signature the latest counts.
//
// It returns an error for misuse as [Verifier.Document] does; a token that is not believed is a result, with [TokenRefused]. Steps:
//  1. which tokens are by an issuer that is configured, for us, and of this time?
//  2. read the document anew, with its digests by the tokens' hash function
//  3. is each signature intact, now?
//  4. is there a token that has all of its digests: of its value, what that is over, what was signed, and the certificate?
//  5. does that say that it passed, under a policy that is agreed to?
func (v *Verifier) VerifyToken(ctx context.Context, in DocumentInput, tokens ...string) (*DocumentResult, error) {
	if v.documents == nil {
		return nil, errors.New("verify token: no Documents are configured")
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if len(tokens) == 0 || len(tokens) > MaxTokens {
		return nil, jpki.Errorf(jpki.Malformed, "want 1 to %d tokens", MaxTokens)
	}
	// 1.
	at := in.At
	if at.IsZero() {
		at = v.now()
	}
	var valid []*validatedToken
	var refused error
	for _, text := range tokens {
		t, err := v.documents.validateToken(text, at)
		if err != nil {
			refused = err
			continue
		}
		if len(valid) > 0 && valid[0].hash != t.hash {
			return nil, jpki.Errorf(jpki.Malformed, "the tokens are by different hash functions: verify by one after the other")
		}
		valid = append(valid, t)
	}
	slices.SortStableFunc(valid, func(a, b *validatedToken) int { return b.issuedAt.Compare(a.issuedAt) }) // the latest first
	// 2.
	in.TokenHash = 0
	if len(valid) > 0 {
		in.TokenHash = valid[0].hash
	}
	e, err := v.read(in)
	if err != nil {
		return nil, err
	}
	d := v.documents
	j := d.judgementOf(e, d.demand, d.validators, nil)
	for i := range e.Signatures {
		j.result.Signatures = append(j.result.Signatures, *j.byToken(&e.Signatures[i], valid, refused))
	}
	return j.conclude(), nil
}

// byToken does steps 3 to 5.
func (j *judgement) byToken(f *Facts, tokens []*validatedToken, refused error) *SignatureResult {
	// 3.
	t := j.trial(f)
	leaf := t.intact()
	if leaf == nil {
		return t.out
	}
	// 4.
	if len(tokens) == 0 {
		return t.failed(CheckSVT, TokenRefused, false, refused.Error())
	}
	var token *validatedToken
	var claims *tokenSignature
	for _, candidate := range tokens {
		if candidate.profile != tokenProfiles[j.result.Format] {
			continue
		}
		// The latest decides, and of the same moment that which is worse.
		if token != nil && !candidate.issuedAt.Equal(token.issuedAt) {
			break
		}
		for i := range candidate.sigs {
			if s := &candidate.sigs[i]; s.about(f) && (claims == nil || !s.passed(candidate.issuer, j.demand.ref)) {
				token, claims = candidate, s
			}
		}
	}
	if token == nil {
		return t.failed(CheckSVT, TokenMissing, false, "no token has the digests of this signature, its data and its certificate")
	}
	// 5.
	ref := token.ref
	t.out.Token = &ref
	verdict := claims.under(token.issuer, j.demand.ref)
	if verdict != nil {
		ref.Policy = verdict.Policy
	}
	if verdict == nil || verdict.Result != tokenResults[TotalPassed] {
		detail := "no verdict under a policy that is agreed to"
		if verdict != nil {
			detail = fmt.Sprintf("the token says %s, %.64q", verdict.Result, verdict.Extension["code"])
		}
		t.failed(CheckSVT, TokenNegative, false, detail)
		if verdict != nil && verdict.Result == tokenResults[TotalFailed] {
			t.out.Indication, t.out.SubIndication = TotalFailed, "" // the token has none that is known here
		}
		return t.out
	}
	t.out.BestTime, t.out.BestTimeProof = token.issuedAt, ByToken
	for _, at := range claims.Times {
		if at.Type == timeByStamp || at.Type == timeByCaller || at.Type == timeByValidation {
			if known := time.Unix(at.Time, 0).UTC(); known.Before(t.out.BestTime) {
				t.out.BestTime = known
			}
		}
	}
	if kind, err := jpki.ParseKind(verdict.Extension["kind"]); err == nil {
		t.out.Signer.Kind = kind
	}
	t.pass(CheckSVT, fmt.Sprintf("passed on %s by %s", token.issuedAt.Format(time.RFC3339), token.ref.Issuer))
	return t.good(leaf)
}

// about reports whether a token's claims are about a signature: all digests must be there, and no others.
func (s *tokenSignature) about(f *Facts) bool {
	b := f.Binding
	if b == nil || !bytes.Equal(s.Ref.Value, b.Value) || !bytes.Equal(s.Ref.Bytes, b.Bytes) || len(s.Data) != len(b.Data) {
		return false
	}
	for i, d := range b.Data {
		if s.Data[i].Ref != d.Ref || !bytes.Equal(s.Data[i].Hash, d.Digest) {
			return false
		}
	}
	switch s.Certificate.Type {
	case "chain":
		return bytes.Equal(s.Certificate.Ref[0], f.Certificate)
	case "chain_hash":
		return bytes.Equal(s.Certificate.Ref[0], primitive.Digest(hashNames[b.Hash], f.Certificate))
	}
	return false
}

// under returns the verdict under a policy that is agreed to, the worst if there are several; nil without one.
func (s *tokenSignature) under(by *TokenIssuer, own PolicyRef) (out *tokenVerdict) {
	agreed := by.Policies
	if len(agreed) == 0 {
		agreed = []string{own.TokenPolicy()}
	}
	for i := range s.Verdicts {
		if v := &s.Verdicts[i]; slices.Contains(agreed, v.Policy) && (out == nil || out.Result == tokenResults[TotalPassed] || v.Result == tokenResults[TotalFailed]) {
			out = v
		}
	}
	return out
}

func (s *tokenSignature) passed(by *TokenIssuer, own PolicyRef) bool {
	v := s.under(by, own)
	return v != nil && v.Result == tokenResults[TotalPassed]
}

// validateToken says whether a token may be relied upon at a time. Steps:
//  1. it is a JWT in the compact serialization, by the pinned key of an issuer, with an algorithm that the policy admits
//  2. its claims are those of RFC 9321, with digests by the hash function of its signature
//  3. it names the issuer of that key, and us if anybody, and was issued while the certificate was valid and not after now
func (d *documents) validateToken(text string, now time.Time) (*validatedToken, error) {
	// 1.
	s, by, err := d.openToken(text)
	if err != nil {
		return nil, err
	}
	// 2.
	c, h, err := parseToken(s.Payload)
	if err != nil {
		return nil, err
	}
	var f Facts
	key, err := primitive.CertificateKey(by.Certificate.Raw)
	if err != nil {
		return nil, errors.New("the issuer's key is not supported")
	}
	f.sign(key, s.Algorithm)
	if f.Hash != hashName(h) {
		return nil, errors.New("the token's digests and its signature are by different hash functions")
	}
	if until, ok := d.demand.admits(&f); !ok || !until.IsZero() && now.After(until) { // nothing proves that a token is older than it says
		return nil, fmt.Errorf("the token's signature is not admitted: %q of %d bits with %s", f.Algorithm, f.KeyBits, f.Hash)
	}
	// 3.
	issued := time.Unix(c.IssuedAt, 0).UTC()
	switch {
	case c.Issuer != by.Name:
		return nil, errors.New("the token names another issuer than its key's")
	case len(c.Audience) > 0 && !slices.ContainsFunc(c.Audience, func(a string) bool { return slices.Contains(d.tokenAudience, a) }):
		return nil, errors.New("the token is for others")
	case issued.After(now.Add(d.skew)):
		return nil, errors.New("the token is of the future")
	case c.Expires != 0 && !now.Before(time.Unix(c.Expires, 0)):
		return nil, errors.New("the token has expired")
	case issued.Before(by.Certificate.NotBefore), issued.After(by.Certificate.NotAfter):
		return nil, errors.New("the token was issued outside the validity of its issuer's certificate")
	}
	return &validatedToken{
		ref: TokenRef{ID: c.ID, Issuer: c.Issuer, IssuedAt: issued, SHA256: sha256Hex(text)}, hash: h, profile: c.Claims.Profile,
		issuer: by, sigs: c.Claims.Signatures, issuedAt: issued,
	}, nil
}

// openToken checks a token's signature. Certificates that it brings say which issuer's key it is, and are not believed.
func (d *documents) openToken(text string) (*jws.Signature, *TokenIssuer, error) {
	if len(text) > MaxTokenBytes || !strings.HasPrefix(text, "ey") { // {"
		return nil, nil, fmt.Errorf("no token in the compact serialization, or longer than %d octets", MaxTokenBytes)
	}
	var by *TokenIssuer
	all, err := jws.Read([]byte(text), jws.Options{Key: func(s *jws.Signature) *primitive.Key {
		for i := range d.tokenIssuers {
			if raw := d.tokenIssuers[i].Certificate.Raw; namesCertificate(s, raw) {
				if key, err := primitive.CertificateKey(raw); err == nil {
					by = &d.tokenIssuers[i]
					return key
				}
			}
		}
		return nil
	}})
	if err != nil || len(all) != 1 {
		return nil, nil, errors.New("the token is no JWT")
	}
	s := all[0]
	if v := s.Verify(); v.Err != nil {
		if errors.Is(v.Err, jws.ErrNoKey) {
			return nil, nil, errors.New("the token is by none of the configured issuers")
		}
		return nil, nil, fmt.Errorf("the token: %w", v.Err)
	}
	if s.Header.Type != "JWT" || s.Mechanism != "" || s.Header.Unencoded || s.Payload == nil || by == nil {
		return nil, nil, errors.New("the token is no JWT with its claims")
	}
	return s, by, nil
}

// namesCertificate reports whether a token's header names a certificate: by x5c, or by its digest in kid (RFC 9321 appendices A.4.1, B.3.1, C.3.1).
func namesCertificate(s *jws.Signature, raw []byte) bool {
	if c := s.Header.Certificates; len(c) > 0 {
		return bytes.Equal(c[0], raw)
	}
	h := s.Algorithm.Hash
	if s.Algorithm.Scheme == primitive.Ed25519 {
		h = crypto.SHA512
	}
	sum := primitive.Digest(h, raw)
	return sum != nil && s.KeyID == base64.StdEncoding.EncodeToString(sum)
}

// parseToken reads claims. What RFC 9321 does not know is refused: it lets issuers add to ext alone (§3.2.2 to §3.2.9).
func parseToken(payload []byte) (*tokenClaims, crypto.Hash, error) {
	bad := errors.New("the token's claims are not those of a validation token")
	dec := json.NewDecoder(bytes.NewReader(payload))
	dec.DisallowUnknownFields()
	c := &tokenClaims{}
	if err := dec.Decode(c); err != nil || dec.More() {
		return nil, 0, bad
	}
	h, err := primitive.HashFromXML(c.Claims.Hash)
	if err != nil || !slices.Contains(tokenHashes, h) || c.ID == "" || c.Issuer == "" || c.IssuedAt <= 0 || c.Expires < 0 || c.Claims.Version != "1.0" || len(c.Claims.Signatures) == 0 {
		return nil, 0, bad
	}
	for i := range c.Claims.Signatures {
		s := &c.Claims.Signatures[i]
		if len(s.Ref.Value) != h.Size() || len(s.Ref.Bytes) != h.Size() || len(s.Data) == 0 || len(s.Certificate.Ref) == 0 || len(s.Verdicts) == 0 {
			return nil, 0, bad
		}
		for _, d := range s.Data {
			if len(d.Hash) != h.Size() {
				return nil, 0, bad
			}
		}
		for _, v := range s.Verdicts {
			if v.Policy == "" || v.Result != tokenResults[TotalPassed] && v.Result != tokenResults[TotalFailed] && v.Result != tokenResults[Indeterminate] {
				return nil, 0, bad
			}
		}
	}
	return c, h, nil
}

// A tokenAudience is one name or several (RFC 7519 §4.1.3).
type tokenAudience []string

// UnmarshalJSON implements [json.Unmarshaler].
func (a *tokenAudience) UnmarshalJSON(text []byte) error {
	if string(text) == "null" { // as good as not there (RFC 9321 §3.2.1)
		return nil
	}
	var one string
	if json.Unmarshal(text, &one) == nil {
		*a = tokenAudience{one}
		return nil
	}
	var list []string
	if err := json.Unmarshal(text, &list); err != nil {
		return err
	}
	*a = list
	return nil
}
