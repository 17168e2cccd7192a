package verifier

import (
	"cmp"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/verifier/jws"
	"github.com/openjpki/jpki/verifier/primitive"
)

// A TokenConfig says who makes validation tokens.
type TokenConfig struct {
	// Certificate is the issuer's. Required. Who is to believe the tokens has it in a [TokenIssuer].
	Certificate *x509.Certificate
	// Signer signs, by the key in Certificate. Required.
	Signer crypto.Signer
	// Issuer is the issuer's name, as a rule a URI of a domain of its own. Required.
	Issuer string
	// Audience are the names of those that the tokens are for; empty means anybody.
	Audience []string
	// Lifetime is for how long the issuer answers for a token; zero sets no end. What a token says does not expire (RFC 9321 §3.2.2).
	Lifetime time.Duration
	Now      func() time.Time // required
	Rand     io.Reader        // required; for identifiers, and given to Signer
}

// tokenHashes are the hash functions of tokens.
var tokenHashes = []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512}

// tokenProfiles are how tokens call the formats. RFC 9321 has three; for CMS, which has none there, we do as for PDF, whose
// signatures are CMS, and call what was signed "content", and for a counter-signature "signature".
var tokenProfiles = map[Format]string{FormatXML: "XML", FormatPDF: "PDF", FormatJSON: "JWS", FormatCMS: "CMS"}

// The types of proof in time_val, beside that of a time-stamp.
const (
	timeByStamp      = "urn:ietf:rfc:3161"
	timeByCaller     = "caller"     // the issuer had the document, or its digest, on record
	timeByValidation = "validation" // the document existed when it was validated
)

// TokenHash returns what [DocumentInput.TokenHash] should be for tokens that are signed by the key of a certificate: RFC 9321
// §3.2.10 wants digests and signature to be by one hash function.
func TokenHash(c *x509.Certificate) (crypto.Hash, error) {
	key, err := primitive.CertificateKey(c.Raw)
	if err != nil {
		return 0, jpki.WrapError(jpki.Malformed, err, "the certificate's key is none that signs tokens")
	}
	switch key.Kind {
	case primitive.RSA, primitive.P256:
		return crypto.SHA256, nil
	case primitive.P384:
		return crypto.SHA384, nil
	}
	return crypto.SHA512, nil
}

// tokenAlgorithms gives the name in JOSE of a signature by a key of one kind with a hash function.
var tokenAlgorithms = map[primitive.KeyKind]map[crypto.Hash]string{
	primitive.RSA:          {crypto.SHA256: "RS256", crypto.SHA384: "RS384", crypto.SHA512: "RS512"},
	primitive.P256:         {crypto.SHA256: "ES256"},
	primitive.P384:         {crypto.SHA384: "ES384"},
	primitive.P521:         {crypto.SHA512: "ES512"},
	primitive.Edwards25519: {crypto.SHA512: "EdDSA"},
}

// tokenClaims are the claims of a token (RFC 9321 §3.2.2 and what follows it).
type tokenClaims struct {
	ID       string         `json:"jti"`
	Issuer   string         `json:"iss"`
	IssuedAt int64          `json:"iat"`
	Audience tokenAudience  `json:"aud,omitempty"`
	Expires  int64          `json:"exp,omitempty"`
	Claims   tokenSigClaims `json:"sig_val_claims"`
}

type tokenSigClaims struct {
	Version    string            `json:"ver"`
	Profile    string            `json:"profile"`
	Hash       string            `json:"hash_algo"`
	Signatures []tokenSignature  `json:"sig"`
	Extension  map[string]string `json:"ext,omitempty"`
}

type tokenSignature struct {
	Ref struct {
		ID    string `json:"id,omitempty"`
		Value []byte `json:"sig_hash"`
		Bytes []byte `json:"sb_hash"`
	} `json:"sig_ref"`
	Data        []tokenData `json:"sig_data_ref"`
	Certificate struct {
		Type string   `json:"type"`
		Ref  [][]byte `json:"ref"`
	} `json:"signer_cert_ref"`
	Verdicts  []tokenVerdict    `json:"sig_val"`
	Times     []tokenTime       `json:"time_val,omitempty"`
	Extension map[string]string `json:"ext,omitempty"`
}

type tokenData struct {
	Ref  string `json:"ref"`
	Hash []byte `json:"hash"`
}

type tokenVerdict struct {
	Policy    string            `json:"pol"`
	Result    string            `json:"res"` // PASSED, FAILED or INDETERMINATE
	Message   string            `json:"msg,omitempty"`
	Extension map[string]string `json:"ext,omitempty"`
}

type tokenTime struct {
	Time      int64             `json:"time"`
	Type      string            `json:"type"`
	Issuer    string            `json:"iss"`
	ID        string            `json:"id,omitempty"`
	Hash      []byte            `json:"hash,omitempty"`
	Verdicts  []tokenVerdict    `json:"val,omitempty"`
	Extension map[string]string `json:"ext,omitempty"`
}

// tokenResults are the results of RFC 9321 §3.2.7.
var tokenResults = map[Indication]string{TotalPassed: "PASSED", TotalFailed: "FAILED", Indeterminate: "INDETERMINATE"}

// TokenPolicy is how tokens name the policy: with its digest, so that one of that name that was changed is another.
func (p PolicyRef) TokenPolicy() string { return p.Name + "/sha256/" + p.SHA256 }

// Tokens makes validation tokens of a result (RFC 9321): JWTs that say what the verdict on each signature was, under which policy
// and as of when, for a time at which certificates, algorithms and data on revocation are gone. They name signatures, signed data and
// certificates by digests and have no personal data. One is about all signatures of a PDF or CMS document, and one about
// each signature of an XML or JSON one. A verdict other than TOTAL-PASSED is written as such. Signatures that are not intact
// have no digests and are left out.
//
// The document must have been read with [DocumentInput.TokenHash], else, or if no signature is intact, the error is [jpki.Malformed].
func (r *DocumentResult) Tokens(c TokenConfig) ([]string, error) {
	switch {
	case c.Certificate == nil, c.Signer == nil, c.Now == nil, c.Rand == nil:
		return nil, errors.New("tokens: Certificate, Signer, Now and Rand are required")
	case c.Issuer == "":
		return nil, errors.New("tokens: Issuer is required")
	case c.Lifetime < 0:
		return nil, errors.New("tokens: Lifetime is negative")
	case len(r.Signatures) != len(r.Evidence.Signatures):
		return nil, jpki.Errorf(jpki.Malformed, "the result has no evidence")
	}
	key, err := primitive.CertificateKey(c.Certificate.Raw)
	if err != nil {
		return nil, fmt.Errorf("tokens: the issuer's certificate: %w", err)
	}
	var all []tokenSignature
	hash := ""
	for i := range r.Signatures {
		if b := r.Evidence.Signatures[i].Binding; b != nil {
			if hash = cmp.Or(hash, b.Hash); hash != b.Hash {
				return nil, jpki.Errorf(jpki.Malformed, "the evidence has digests by two hash functions")
			}
			all = append(all, r.tokenSignature(i, c.Issuer))
		}
	}
	if len(all) == 0 {
		return nil, jpki.Errorf(jpki.Malformed, "no signature is intact, or the document was read without TokenHash")
	}
	h := hashNames[hash]
	alg := tokenAlgorithms[key.Kind][h]
	uri, known := tokenHashURIs[h]
	if alg == "" || !known {
		return nil, jpki.Errorf(jpki.Malformed, "the issuer's key does not sign with %.16q: see TokenHash", hash)
	}
	now := c.Now()
	if now.Before(r.ValidationTime) {
		now = r.ValidationTime // by clocks that differ: a token is no older than what it says
	}
	claims := tokenClaims{Issuer: c.Issuer, Audience: c.Audience, IssuedAt: now.Unix(), Claims: tokenSigClaims{Version: "1.0", Profile: tokenProfiles[r.Format], Hash: uri}}
	if c.Lifetime > 0 {
		claims.Expires = now.Add(c.Lifetime).Unix()
	}
	groups := [][]tokenSignature{all}
	if r.Format == FormatXML || r.Format == FormatJSON {
		groups = slices.Collect(slices.Chunk(all, 1))
	}
	out := make([]string, 0, len(groups))
	for _, group := range groups {
		id := make([]byte, 16)
		if _, err := io.ReadFull(c.Rand, id); err != nil {
			return nil, fmt.Errorf("draw an identifier: %w", err)
		}
		claims.ID, claims.Claims.Signatures = hex.EncodeToString(id), group
		payload, err := json.Marshal(claims)
		if err != nil {
			return nil, fmt.Errorf("write token: %w", err)
		}
		token, err := jws.Sign(payload, jws.SignConfig{Certificate: c.Certificate.Raw, Signer: c.Signer, Rand: c.Rand, Algorithm: alg, Type: "JWT"})
		if err != nil {
			return nil, fmt.Errorf("sign token: %w", err)
		}
		if len(token) > MaxTokenBytes {
			return nil, jpki.Errorf(jpki.TooLarge, "a token of so many signatures would be longer than %d octets", MaxTokenBytes)
		}
		out = append(out, string(token))
	}
	return out, nil
}

// tokenHashURIs are the identifiers of hash functions (RFC 9231 §2.1).
var tokenHashURIs = map[crypto.Hash]string{
	crypto.SHA256: "http://www.w3.org/2001/04/xmlenc#sha256", crypto.SHA384: "http://www.w3.org/2001/04/xmldsig-more#sha384",
	crypto.SHA512: "http://www.w3.org/2001/04/xmlenc#sha512",
}

// tokenSignature writes what is known of one signature.
func (r *DocumentResult) tokenSignature(i int, issuer string) (out tokenSignature) {
	s, f := &r.Signatures[i], &r.Evidence.Signatures[i]
	b := f.Binding
	out.Ref.ID, out.Ref.Value, out.Ref.Bytes = b.ID, b.Value, b.Bytes
	for _, d := range b.Data {
		out.Data = append(out.Data, tokenData{d.Ref, d.Digest})
	}
	// By its digest, as it is in the document: the certificate itself has the four attributes. RFC 9321 would have all of the chain
	// here, and in full where a part of it is not in the document (appendices A.3.4, B.2.4, C.2.4): see decision 0027.
	out.Certificate.Type, out.Certificate.Ref = "chain_hash", [][]byte{primitive.Digest(hashNames[b.Hash], f.Certificate)}
	v := tokenVerdict{Policy: r.Policy.TokenPolicy(), Result: tokenResults[s.Indication], Message: s.Message.EN, Extension: map[string]string{"code": string(s.Code)}}
	if s.SubIndication != "" {
		v.Extension["sub_indication"] = string(s.SubIndication)
	}
	if s.Signer != nil && s.Signer.Kind != "" {
		v.Extension["kind"] = string(s.Signer.Kind)
	}
	out.Verdicts = []tokenVerdict{v}
	for k, t := range s.TimeStamps {
		if t.Code == OK && t.Kind != ContentStamp {
			out.Times = append(out.Times, tokenTime{Time: ceil(t.Time), Type: timeByStamp, Issuer: "sha256/" + t.AuthoritySHA256, ID: fmt.Sprint(k + 1)})
		}
	}
	if s.BestTimeProof == ByCaller {
		out.Times = append(out.Times, tokenTime{Time: ceil(s.BestTime), Type: timeByCaller, Issuer: issuer})
	}
	out.Times = append(out.Times, tokenTime{Time: ceil(r.ValidationTime), Type: timeByValidation, Issuer: issuer})
	return out
}

// ceil returns a time in whole seconds that is not before t: what existed at t existed then.
func ceil(t time.Time) int64 { return t.Add(time.Second - 1).Unix() }

// tokenHashes is TokenHash as a list.
func (in *DocumentInput) tokenHashes() []crypto.Hash {
	if in.TokenHash == 0 {
		return nil
	}
	return []crypto.Hash{in.TokenHash}
}

// binding makes a Binding for a signature of this value, over octets whose digest is known.
func (in *DocumentInput) binding(value, octets []byte, data ...BoundData) *Binding {
	return &Binding{Hash: hashName(in.TokenHash), Value: primitive.Digest(in.TokenHash, value), Bytes: octets, Data: data}
}

// sha256Hex names a token.
func sha256Hex(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}
