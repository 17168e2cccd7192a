package verifier

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/verifier/path"
	"github.com/openjpki/jpki/verifier/primitive"
)

// A DocumentPolicy says what is demanded of a signature in a document. It is data: two with the same
// [DocumentPolicy.Digest] demand the same. Names end in a year or version: a policy that was used is not changed.
type DocumentPolicy struct {
	Name string `json:"name"` // lower-case letters, digits, dots and hyphens, at most 64

	// AnchorSHA256 names the trust anchors that count, by SHA-256 of the certificate in lower-case hexadecimal. Empty admits
	// all that are configured.
	AnchorSHA256 []string `json:"anchor_sha256,omitempty"`
	// CertificatePolicies names, for each kind of certificate, the identifiers under which it is issued, of which one must be
	// valid for the whole path (RFC 5280 §6.1). Empty admits any.
	CertificatePolicies map[jpki.Kind][]string `json:"certificate_policies,omitempty"`
	// KeyUsage and ForbiddenKeyUsage hold bits by their names in RFC 5280 §4.2.1.3. Whatever they say, the key of a
	// certificate with the extension must be for digitalSignature or nonRepudiation.
	KeyUsage          []string `json:"key_usage,omitempty"`
	ForbiddenKeyUsage []string `json:"forbidden_key_usage,omitempty"`
	// ExtendedKeyUsage: a certificate that has this extension must name one of these; empty accepts any.
	ExtendedKeyUsage []string `json:"extended_key_usage,omitempty"`
	// RequireNamedCertificate refuses signatures that do not cover a reference to the signer's certificate, as AdES do.
	RequireNamedCertificate bool `json:"require_named_certificate,omitempty"`
	// SignaturePolicies are the identifiers of signature policies that are agreed to, "implied" for one without; "*" agrees to any
	// unread. A signature with another, or one that cannot be read, is INDETERMINATE (EN 319 102-1 §5.2.4), and so is one with a
	// policy that is named here if its document is neither in [DocumentConfig] nor with the signature, or is not the one signed.
	SignaturePolicies []string `json:"signature_policies,omitempty"`
	// MaxRevocationAge is how many seconds old data on revocation may be, at most 31 days; 0 means that their own nextUpdate decides.
	MaxRevocationAge int `json:"max_revocation_age_seconds,omitempty"`
	// Attributes says whether the four attributes are handed out when all is good.
	Attributes bool `json:"attributes,omitempty"`
	// Algorithms lists what is admitted, for the signature, for time-stamps and for certificates.
	Algorithms []DocumentAlgorithm `json:"algorithms"`
}

// A DocumentAlgorithm admits a kind of signature with some hash functions.
type DocumentAlgorithm struct {
	Key     string   `json:"key"`                // rsa (PKCS#1 v1.5), rsa-pss, p256, p384, p521 or ed25519
	MinBits int      `json:"min_bits,omitempty"` // of RSA, 2048 to 8192; from 1024 in a row with Until
	Hashes  []string `json:"hashes"`             // sha256, sha384, sha512; also sha1 in a row with Until
	// Until is the last moment at which such a signature proves anything; without it no end is known. Several rows may name
	// one kind of key: what one of them admits is admitted. A signature is held against it at the time since when it is known
	// to exist, certificates at the time since when nobody could have put others in their place.
	Until time.Time `json:"until,omitzero"`
}

const maxDocumentStatusAge = 31 * 24 * time.Hour

// The fingerprints of the JPKI's own certificates: generations 1 to 3 for signatures, 1 and 3 for authentication.
var (
	jpkiSignAnchors = []string{
		"19645405a1fe14377434bd55957628ac4038557c542403a2243f21c706fc9355",
		"79679c33e4cc9319440f1ad120a597ff1844e2ef217063adb176966fd5e6fbeb",
		"d227f6cde11d35c5252178f106f843d24651944975413b539fa2fb68dbfa365f",
	}
	jpkiAuthAnchors = []string{
		"4dcfc4ca0aaf9fb2a3081b3f0c991c320b3acc008667a341eeaec5af1d58ca7d",
		"64114f29620c24ed2631d46476a040e7ee740d956089c00b036a6a8118c322b5",
	}
)

// DocumentPolicies returns the policies there are, by name:
//   - jpki-signature-2026: signature certificates of the JPKI, from its own anchors only
//   - jpki-authentication-2026: its authentication certificates; phones' are not among them, as their policy is not published
//   - sandbox-signature-2026, sandbox-authentication-2026: the same for the sandbox's certificates, from any configured anchor
//   - rfc5280: any certificate that is fit to sign, from any configured anchor
func DocumentPolicies() []DocumentPolicy {
	hashes := []string{"sha256", "sha384", "sha512"}
	algorithms := []DocumentAlgorithm{
		{Key: "rsa", MinBits: 2048, Hashes: hashes}, {Key: "rsa-pss", MinBits: 2048, Hashes: hashes}, {Key: "p256", Hashes: hashes}, {Key: "p384", Hashes: hashes},
	}
	sign := DocumentPolicy{
		Name: "jpki-signature-2026", AnchorSHA256: jpkiSignAnchors, Attributes: true, MaxRevocationAge: 86400,
		CertificatePolicies: map[jpki.Kind][]string{jpki.CardSign: {"1.2.392.200149.8.5.1.1.20"}, jpki.PhoneSign: {"1.2.392.200149.8.5.1.1.40"}},
		KeyUsage:            []string{"digitalSignature", "nonRepudiation"}, ForbiddenKeyUsage: []string{"keyCertSign", "cRLSign"}, Algorithms: algorithms,
	}
	auth := DocumentPolicy{
		Name: "jpki-authentication-2026", AnchorSHA256: jpkiAuthAnchors, MaxRevocationAge: 86400,
		CertificatePolicies: map[jpki.Kind][]string{jpki.CardAuth: {"1.2.392.200149.8.5.1.3.30"}},
		KeyUsage:            []string{"digitalSignature"}, ForbiddenKeyUsage: []string{"nonRepudiation", "keyCertSign", "cRLSign"},
		ExtendedKeyUsage: []string{"1.3.6.1.5.5.7.3.2"}, Algorithms: algorithms,
	}
	sandbox := SandboxPolicies()
	sandboxSign, sandboxAuth := sign, auth
	sandboxSign.Name, sandboxSign.AnchorSHA256, sandboxSign.CertificatePolicies = "sandbox-signature-2026", nil, sandbox[0].CertificatePolicies
	sandboxAuth.Name, sandboxAuth.AnchorSHA256, sandboxAuth.CertificatePolicies = "sandbox-authentication-2026", nil, sandbox[1].CertificatePolicies
	generic := DocumentPolicy{
		Name: "rfc5280", SignaturePolicies: []string{"*"},
		Algorithms: append(slices.Clone(algorithms), DocumentAlgorithm{Key: "p521", Hashes: hashes}, DocumentAlgorithm{Key: "ed25519", Hashes: []string{"sha512"}}),
	}
	return []DocumentPolicy{sign.clone(), auth.clone(), sandboxSign.clone(), sandboxAuth.clone(), generic.clone()}
}

// FindDocumentPolicy returns one of [DocumentPolicies] by its name.
func FindDocumentPolicy(name string) (DocumentPolicy, error) {
	for _, p := range DocumentPolicies() {
		if p.Name == name {
			return p, nil
		}
	}
	return DocumentPolicy{}, jpki.Errorf(jpki.Malformed, "there is no policy %.64q", name)
}

// ParseDocumentPolicy reads a policy from JSON; an unknown member is an error.
func ParseDocumentPolicy(data []byte) (DocumentPolicy, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	var p DocumentPolicy
	if err := dec.Decode(&p); err != nil {
		return p, fmt.Errorf("read policy: %w", err)
	}
	if dec.More() {
		return p, errors.New("read policy: something follows it")
	}
	return p, p.Validate()
}

// Digest returns the SHA-256 of the policy as [Policy.Digest] does.
func (p DocumentPolicy) Digest() string { return digestJSON(p) }

// Validate reports everything that makes a policy unfit, not only the first.
func (p DocumentPolicy) Validate() error {
	_, err := p.compile()
	return err
}

// A documentDemand is a policy in the form in which it is applied. It is never changed.
type documentDemand struct {
	DocumentPolicy
	ref                 PolicyRef
	kinds               map[path.OID]jpki.Kind
	policies, purposes  []path.OID
	required, forbidden path.KeyUsage
	algorithms          path.Algorithms
	maxAge              time.Duration
}

// documentKeys says how keys and schemes are called in policies.
var documentKeys = map[string]struct {
	kind   primitive.KeyKind
	scheme primitive.Scheme
}{
	"rsa": {primitive.RSA, primitive.PKCS1v15}, "rsa-pss": {primitive.RSA, primitive.PSS}, "p256": {primitive.P256, primitive.ECDSA},
	"p384": {primitive.P384, primitive.ECDSA}, "p521": {primitive.P521, primitive.ECDSA}, "ed25519": {primitive.Edwards25519, primitive.Ed25519},
}

// algorithmName returns how policies call a signature by this key, empty if they have no name for it.
func algorithmName(key *primitive.Key, alg primitive.Algorithm) string {
	if key == nil || alg.Scheme == primitive.PSS && alg.MGF != alg.Hash {
		return ""
	}
	for name, k := range documentKeys {
		if k.scheme == alg.Scheme && k.kind == key.Kind {
			return name
		}
	}
	return ""
}

func hashName(h crypto.Hash) string {
	for name, known := range hashNames {
		if known == h {
			return name
		}
	}
	if h == crypto.SHA1 {
		return oldHash
	}
	return primitive.HashName(h)
}

func (p DocumentPolicy) compile() (*documentDemand, error) {
	d := &documentDemand{DocumentPolicy: p.clone(), kinds: map[path.OID]jpki.Kind{}, maxAge: time.Duration(p.MaxRevocationAge) * time.Second}
	d.ref = PolicyRef{Name: p.Name, SHA256: p.Digest()}
	var errs []error
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("policy %.64q: "+format, append([]any{p.Name}, args...)...))
	}
	if !isName(p.Name) {
		bad("name must be 1 to 64 of a-z, 0-9, dot and hyphen")
	}
	for _, f := range p.AnchorSHA256 {
		if b, err := hex.DecodeString(f); err != nil || len(b) != sha256.Size || hex.EncodeToString(b) != f {
			bad("anchor_sha256: %.80q is no SHA-256 in lower-case hexadecimal", f)
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(p.CertificatePolicies)) {
		if _, err := jpki.ParseKind(string(kind)); err != nil {
			bad("certificate_policies: %w", err)
		}
		for _, text := range p.CertificatePolicies[kind] {
			oid, err := path.ParseOID(text)
			if err != nil || oid == path.AnyPolicy || d.kinds[oid] != "" {
				bad("certificate_policies: %.64q is no policy's identifier, or there twice", text)
			}
			d.kinds[oid], d.policies = kind, append(d.policies, oid)
		}
	}
	for _, list := range []struct {
		member string
		names  []string
		bits   *path.KeyUsage
	}{{"key_usage", p.KeyUsage, &d.required}, {"forbidden_key_usage", p.ForbiddenKeyUsage, &d.forbidden}} {
		for _, name := range list.names {
			bit, ok := keyUsageBits[name]
			if !ok {
				bad("%s: %.64q is unknown", list.member, name)
			}
			*list.bits |= path.KeyUsage(bit) // both number the bits as RFC 5280 does
		}
	}
	if d.required&d.forbidden != 0 {
		bad("key_usage contradicts forbidden_key_usage")
	}
	for _, text := range p.ExtendedKeyUsage {
		oid, err := path.ParseOID(text)
		if err != nil {
			bad("extended_key_usage: %.64q is no object identifier", text)
		}
		d.purposes = append(d.purposes, oid)
	}
	if p.MaxRevocationAge < 0 || d.maxAge > maxDocumentStatusAge {
		bad("max_revocation_age_seconds is not between 0 and %d", int(maxDocumentStatusAge/time.Second))
	}
	if len(p.Algorithms) == 0 {
		bad("algorithms is empty")
	}
	for _, a := range p.Algorithms {
		k, ok := documentKeys[a.Key]
		isRSA := k.kind == primitive.RSA
		least := 2048
		if !a.Until.IsZero() {
			least = primitive.MinRSABits
		}
		if !ok || len(a.Hashes) == 0 || isRSA && (a.MinBits < least || a.MinBits > maxRSABits) || !isRSA && a.MinBits != 0 {
			bad("algorithms: %.64q is unknown, has no hashes, or min_bits is not %d to %d for RSA and absent otherwise", a.Key, least, maxRSABits)
		}
		row := path.AlgorithmRow{Key: path.KeyRule{Kind: k.kind, MinBits: a.MinBits}, Scheme: k.scheme, Until: a.Until}
		if isRSA {
			row.Key.MaxBits = maxRSABits
		}
		for _, name := range a.Hashes {
			h, ok := hashNames[name]
			if name == oldHash && !a.Until.IsZero() {
				h, ok = crypto.SHA1, true
			}
			if !ok {
				bad("algorithms: hash %.64q is unknown, or broken and without until", name)
			}
			row.Hashes = append(row.Hashes, h)
		}
		d.algorithms.Rows = append(d.algorithms.Rows, row)
	}
	return d, errors.Join(errs...)
}

// agrees reports whether a signature policy is one that is agreed to, and whether by its name. XAdES and JAdES write an object
// identifier as a URN.
func (d *documentDemand) agrees(id string) (named, agreed bool) {
	named = slices.ContainsFunc(d.SignaturePolicies, func(s string) bool { return barePolicy(s) == barePolicy(id) })
	return named, named || id == "" || slices.Contains(d.SignaturePolicies, "*")
}

// oldHash is what policies call a hash function that they may admit for the past alone.
const oldHash = "sha1"

// admits reports whether a signature of these facts is strong enough, and until when; zero is for good.
func (d *documentDemand) admits(f *Facts) (until time.Time, ok bool) {
	return d.until(func(a *DocumentAlgorithm) bool {
		return a.Key == f.Algorithm && f.KeyBits >= a.MinBits && (a.MinBits == 0 || f.KeyBits <= maxRSABits) && slices.Contains(a.Hashes, f.Hash)
	})
}

// admitsHash is admits for the hash function of a time-stamp's imprint.
func (d *documentDemand) admitsHash(name string) (until time.Time, ok bool) {
	return d.until(func(a *DocumentAlgorithm) bool { return slices.Contains(a.Hashes, name) })
}

// until returns the latest end of the rows that fit.
func (d *documentDemand) until(fits func(*DocumentAlgorithm) bool) (until time.Time, ok bool) {
	for i := range d.Algorithms {
		a := &d.Algorithms[i]
		switch {
		case !fits(a):
		case a.Until.IsZero():
			return time.Time{}, true
		case !ok || a.Until.After(until):
			until, ok = a.Until, true
		}
	}
	return until, ok
}

func (p DocumentPolicy) clone() DocumentPolicy {
	c := p
	c.CertificatePolicies = maps.Clone(p.CertificatePolicies)
	for k, v := range c.CertificatePolicies {
		c.CertificatePolicies[k] = slices.Clone(v)
	}
	c.AnchorSHA256, c.KeyUsage, c.ForbiddenKeyUsage = slices.Clone(p.AnchorSHA256), slices.Clone(p.KeyUsage), slices.Clone(p.ForbiddenKeyUsage)
	c.ExtendedKeyUsage, c.SignaturePolicies, c.Algorithms = slices.Clone(p.ExtendedKeyUsage), slices.Clone(p.SignaturePolicies), slices.Clone(p.Algorithms)
	for i := range c.Algorithms {
		c.Algorithms[i].Hashes = slices.Clone(c.Algorithms[i].Hashes)
	}
	return c
}
