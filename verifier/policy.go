package verifier

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/openjpki/jpki"
)

// A Purpose is what a certificate is used for.
type Purpose string

// The two purposes.
const (
	ForSignature      Purpose = "signature"
	ForAuthentication Purpose = "authentication"
)

// A Policy says what is demanded of a certificate and of what its key made. It is data: two policies with the same
// [Policy.Digest] demand the same.
type Policy struct {
	Name    string  `json:"name"` // lower-case letters, digits, dots and hyphens, at most 64
	Purpose Purpose `json:"purpose"`

	// CertificatePolicies names, for each kind accepted, the object identifiers in dotted form under which certificates
	// of that kind are issued. A certificate must carry exactly one policy, and it must be one of these.
	CertificatePolicies map[jpki.Kind][]string `json:"certificate_policies"`
	// KeyUsage and ForbiddenKeyUsage hold bits by their names in RFC 5280 §4.2.1.3.
	KeyUsage          []string `json:"key_usage"`
	ForbiddenKeyUsage []string `json:"forbidden_key_usage,omitempty"`
	// ExtendedKeyUsage: a certificate that has this extension must name one of these; empty accepts any.
	ExtendedKeyUsage []string `json:"extended_key_usage,omitempty"`
	// IssuerKeyIDs restricts the trust anchors, by subject key identifier in lower-case hexadecimal; empty admits all.
	IssuerKeyIDs []string `json:"issuer_key_ids,omitempty"`
	// MaxRevocationAge is how many seconds before the time asked about a status may have been true, 1 to 604800.
	MaxRevocationAge int `json:"max_revocation_age_seconds"`
	// Algorithms lists what is admitted, both for the signature and for the certificate's own.
	Algorithms []Algorithm `json:"algorithms"`
}

// An Algorithm admits a kind of key with some hash functions.
type Algorithm struct {
	Key     string   `json:"key"`                // rsa (PKCS#1 v1.5), p256 or p384
	MinBits int      `json:"min_bits,omitempty"` // rsa only, at least 2048
	Hashes  []string `json:"hashes"`             // sha256, sha384, sha512
	// Until is the last moment at which such a signature may have been made; without it no end is known. Several rows may
	// name one kind of key: what one of them admits is admitted. Dates such as ETSI TS 119 312 proposes belong here.
	Until time.Time `json:"until,omitzero"`
}

// maxStatusAge bounds every policy: no status older than this is worth looking at.
const maxStatusAge = 7 * 24 * time.Hour

// maxRSABits keeps a hostile key from costing seconds.
const maxRSABits = 8192

var keyUsageBits = map[string]x509.KeyUsage{
	"digitalSignature": x509.KeyUsageDigitalSignature,
	"nonRepudiation":   x509.KeyUsageContentCommitment,
	"keyEncipherment":  x509.KeyUsageKeyEncipherment,
	"dataEncipherment": x509.KeyUsageDataEncipherment,
	"keyAgreement":     x509.KeyUsageKeyAgreement,
	"keyCertSign":      x509.KeyUsageCertSign,
	"cRLSign":          x509.KeyUsageCRLSign,
	"encipherOnly":     x509.KeyUsageEncipherOnly,
	"decipherOnly":     x509.KeyUsageDecipherOnly,
}

var hashNames = map[string]crypto.Hash{"sha256": crypto.SHA256, "sha384": crypto.SHA384, "sha512": crypto.SHA512}

// ParseHash reads the name of an admitted hash function: sha256, sha384 or sha512.
func ParseHash(name string) (crypto.Hash, error) {
	h, ok := hashNames[name]
	if !ok {
		return 0, jpki.Errorf(jpki.Malformed, "hash is not one of sha256, sha384, sha512")
	}
	return h, nil
}

// SandboxPolicies returns the policies jpki-signature and jpki-authentication for the sandbox's certificates, whose
// policy identifiers lie under the example arc 2.999. A deployment loads its own with [ParsePolicies].
func SandboxPolicies() []Policy {
	algorithms := func() []Algorithm {
		all := func() []string { return []string{"sha256", "sha384", "sha512"} }
		return []Algorithm{{Key: "rsa", MinBits: 2048, Hashes: all()}, {Key: "p256", Hashes: all()}, {Key: "p384", Hashes: all()}}
	}
	return []Policy{
		{
			Name: "jpki-signature", Purpose: ForSignature,
			CertificatePolicies: map[jpki.Kind][]string{jpki.CardSign: {"2.999.8.5.1.1.20"}, jpki.PhoneSign: {"2.999.8.5.1.1.40"}},
			KeyUsage:            []string{"digitalSignature", "nonRepudiation"}, ForbiddenKeyUsage: []string{"keyCertSign", "cRLSign"},
			ExtendedKeyUsage: []string{"1.3.6.1.5.5.7.3.36"}, // document signing, RFC 9336
			MaxRevocationAge: 3600, Algorithms: algorithms(),
		},
		{
			Name: "jpki-authentication", Purpose: ForAuthentication,
			CertificatePolicies: map[jpki.Kind][]string{jpki.CardAuth: {"2.999.8.5.1.3.30"}, jpki.PhoneAuth: {"2.999.8.5.1.3.50"}},
			KeyUsage:            []string{"digitalSignature"}, ForbiddenKeyUsage: []string{"nonRepudiation", "keyCertSign", "cRLSign"},
			ExtendedKeyUsage: []string{"1.3.6.1.5.5.7.3.2"}, // client authentication, RFC 5280 §4.2.1.12
			MaxRevocationAge: 3600, Algorithms: algorithms(),
		},
	}
}

// ParsePolicies reads a JSON array of policies; an unknown member is an error.
func ParsePolicies(data []byte) ([]Policy, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	var ps []Policy
	if err := dec.Decode(&ps); err != nil {
		return nil, fmt.Errorf("read policies: %w", err)
	}
	if dec.More() {
		return nil, errors.New("read policies: something follows the array")
	}
	for _, p := range ps {
		if err := p.Validate(); err != nil {
			return nil, fmt.Errorf("read policies: %w", err)
		}
	}
	return ps, nil
}

// Validate reports everything that makes a policy unfit, not only the first.
func (p Policy) Validate() error {
	_, err := p.compile()
	return err
}

// Digest returns the SHA-256, in hexadecimal, of the policy's JSON with members in alphabetical order and without
// spaces. (`jq -cSj . policy.json | sha256sum` gives the same.)
func (p Policy) Digest() string { return digestJSON(p) }

func digestJSON(data any) string {
	b, err := json.Marshal(data)
	var v any
	if err == nil {
		err = json.Unmarshal(b, &v)
	}
	if err == nil {
		b, err = json.Marshal(v) // maps are written in the order of their keys
	}
	if err != nil {
		return "" // strings, integers, lists and maps of them always encode
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// WithIssuers returns the policy restricted to these trust anchors: those of the authority for its purpose.
func (p Policy) WithIssuers(anchors ...*x509.Certificate) Policy {
	c := p.clone()
	c.IssuerKeyIDs = nil
	for _, a := range anchors {
		c.IssuerKeyIDs = append(c.IssuerKeyIDs, hex.EncodeToString(a.SubjectKeyId))
	}
	return c
}

// A demand is a policy in the form in which it is applied. It is never changed.
type demand struct {
	Policy
	ref                 PolicyRef
	kinds               map[string]jpki.Kind // by policy identifier
	required, forbidden x509.KeyUsage
	maxAge              time.Duration
}

func (p Policy) compile() (*demand, error) {
	d := &demand{Policy: p.clone(), kinds: map[string]jpki.Kind{}, maxAge: time.Duration(p.MaxRevocationAge) * time.Second}
	d.ref = PolicyRef{Name: p.Name, SHA256: p.Digest()}
	var errs []error
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("policy %.64q: "+format, append([]any{p.Name}, args...)...))
	}

	if !isName(p.Name) {
		bad("name must be 1 to 64 of a-z, 0-9, dot and hyphen")
	}
	var ca jpki.CA
	switch p.Purpose {
	case ForSignature:
		ca = jpki.SignCA
	case ForAuthentication:
		ca = jpki.AuthCA
	default:
		bad("purpose is neither signature nor authentication")
	}
	for _, kind := range slices.Sorted(maps.Keys(p.CertificatePolicies)) {
		if k, err := jpki.ParseKind(string(kind)); err != nil {
			bad("%w", err)
		} else if ca != "" && k.CA() != ca {
			bad("certificate_policies: %s is not for %s", kind, p.Purpose)
		}
		for _, oid := range p.CertificatePolicies[kind] {
			if _, err := x509.ParseOID(oid); err != nil || oid == "2.5.29.32.0" {
				bad("certificate_policies: %.64q is no policy's identifier", oid)
			} else if _, twice := d.kinds[oid]; twice {
				bad("certificate_policies: %s occurs twice", oid)
			}
			d.kinds[oid] = kind
		}
	}
	if len(d.kinds) == 0 {
		bad("certificate_policies is empty")
	}
	for _, list := range []struct {
		member string
		names  []string
		bits   *x509.KeyUsage
	}{{"key_usage", p.KeyUsage, &d.required}, {"forbidden_key_usage", p.ForbiddenKeyUsage, &d.forbidden}} {
		for _, name := range list.names {
			bit, ok := keyUsageBits[name]
			if !ok {
				bad("%s: %.64q is unknown", list.member, name)
			}
			*list.bits |= bit
		}
	}
	if d.required == 0 || d.required&d.forbidden != 0 {
		bad("key_usage is empty or contradicts forbidden_key_usage")
	}
	for _, oid := range p.ExtendedKeyUsage {
		if _, err := x509.ParseOID(oid); err != nil {
			bad("extended_key_usage: %.64q is no object identifier", oid)
		}
	}
	for _, id := range p.IssuerKeyIDs {
		if b, err := hex.DecodeString(id); err != nil || len(b) == 0 || hex.EncodeToString(b) != id {
			bad("issuer_key_ids: %.64q is not lower-case hexadecimal", id)
		}
	}
	if p.MaxRevocationAge < 1 || d.maxAge > maxStatusAge {
		bad("max_revocation_age_seconds is not between 1 and %d", int(maxStatusAge/time.Second))
	}
	if len(p.Algorithms) == 0 {
		bad("algorithms is empty")
	}
	for _, a := range p.Algorithms {
		if a.Key != "rsa" && a.Key != "p256" && a.Key != "p384" || a.Key == "rsa" && (a.MinBits < 2048 || a.MinBits > maxRSABits) ||
			a.Key != "rsa" && a.MinBits != 0 || len(a.Hashes) == 0 {
			bad("algorithms: %.64q is not rsa with min_bits of 2048 to %d, p256 or p384, or has no hashes", a.Key, maxRSABits)
		}
		for _, h := range a.Hashes {
			if _, ok := hashNames[h]; !ok {
				bad("algorithms: hash %.64q is unknown", h)
			}
		}
	}
	return d, errors.Join(errs...)
}

func (p Policy) clone() Policy {
	c := p
	c.CertificatePolicies = make(map[jpki.Kind][]string, len(p.CertificatePolicies))
	for k, v := range p.CertificatePolicies {
		c.CertificatePolicies[k] = slices.Clone(v)
	}
	c.KeyUsage, c.ForbiddenKeyUsage = slices.Clone(p.KeyUsage), slices.Clone(p.ForbiddenKeyUsage)
	c.ExtendedKeyUsage, c.IssuerKeyIDs = slices.Clone(p.ExtendedKeyUsage), slices.Clone(p.IssuerKeyIDs)
	c.Algorithms = slices.Clone(p.Algorithms)
	for i := range c.Algorithms {
		c.Algorithms[i].Hashes = slices.Clone(c.Algorithms[i].Hashes)
	}
	return c
}

func isName(s string) bool {
	for _, c := range s {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '.' && c != '-' {
			return false
		}
	}
	return len(s) >= 1 && len(s) <= 64
}
