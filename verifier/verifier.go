package verifier

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/openjpki/jpki"
)

// Config is what [New] wants.
type Config struct {
	// Anchors are the authorities' self-signed certificates: every generation whose certificates are accepted, 1 to 64.
	// Generations of one authority share its name; they are told apart by key identifier and signature.
	Anchors []*x509.Certificate
	// Policies has at most one policy for each purpose, and at least one. See [SandboxPolicies] and [ParsePolicies].
	Policies []Policy
	// Revocation establishes statuses. If it is nil no verdict is ever TOTAL-PASSED: not checked is not good.
	Revocation StatusChecker
	// Challenges is what Login consumes from; nil if log-ins are not verified.
	Challenges *Challenges
	// Documents is what Document works with; nil if no documents are verified. With it, Anchors and Policies may be left out
	// by who verifies nothing else.
	Documents *DocumentConfig
	Now       func() time.Time // required
	Rand      io.Reader        // required; for the identifiers of results; must be safe for concurrent use
	// Skew is by how much clocks may differ: at the beginning of a certificate's validity and of a status. 0 means
	// DefaultSkew, at most 10 minutes.
	Skew time.Duration
}

// DefaultSkew is the difference between clocks that is tolerated unless configured otherwise.
const DefaultSkew = time.Minute

const maxSkew = 10 * time.Minute

// A Verifier gives verdicts. It keeps nothing between calls.
type Verifier struct {
	anchors    anchors
	demands    map[Purpose]*demand
	revocation StatusChecker
	challenges *Challenges
	documents  *documents
	now        func() time.Time
	rand       io.Reader
	skew       time.Duration
}

// New checks the configuration and returns a Verifier.
func New(cfg Config) (*Verifier, error) {
	v := &Verifier{demands: map[Purpose]*demand{}, revocation: cfg.Revocation, challenges: cfg.Challenges, now: cfg.Now, rand: cfg.Rand, skew: cfg.Skew}
	switch {
	case cfg.Now == nil:
		return nil, errors.New("verifier: Now is required")
	case cfg.Rand == nil:
		return nil, errors.New("verifier: Rand is required")
	case len(cfg.Policies) == 0 && cfg.Documents == nil:
		return nil, errors.New("verifier: Policies is required")
	case cfg.Skew < 0 || cfg.Skew > maxSkew:
		return nil, fmt.Errorf("verifier: Skew is not between 0 and %s", maxSkew)
	}
	if v.skew == 0 {
		v.skew = DefaultSkew
	}
	var err error
	if cfg.Documents != nil {
		if v.documents, err = newDocuments(*cfg.Documents, v.skew); err != nil {
			return nil, fmt.Errorf("verifier: %w", err)
		}
	}
	if len(cfg.Policies) > 0 || len(cfg.Anchors) > 0 {
		if v.anchors, err = newAnchors(cfg.Anchors); err != nil {
			return nil, fmt.Errorf("verifier: %w", err)
		}
	}
	kinds := map[string]string{}
	for _, p := range cfg.Policies {
		d, err := p.compile()
		if err != nil {
			return nil, fmt.Errorf("verifier: %w", err)
		}
		if v.demands[p.Purpose] != nil {
			return nil, fmt.Errorf("verifier: two policies for %s", p.Purpose)
		}
		for oid := range d.kinds {
			if other, twice := kinds[oid]; twice {
				return nil, fmt.Errorf("verifier: certificate policy %s is in %s and %s", oid, other, p.Name)
			}
			kinds[oid] = p.Name
		}
		v.demands[p.Purpose] = d
	}
	return v, nil
}

// Policies returns what is demanded, signature first.
func (v *Verifier) Policies() []Policy {
	var out []Policy
	for _, p := range []Purpose{ForSignature, ForAuthentication} {
		if d := v.demands[p]; d != nil {
			out = append(out, d.clone())
		}
	}
	return out
}

// Anchors returns the trust anchors. The certificates are shared: do not change them.
func (v *Verifier) Anchors() []*x509.Certificate { return slices.Clone(v.anchors) }

// Challenges returns the store that [Verifier.Login] consumes from; nil if there is none.
func (v *Verifier) Challenges() *Challenges { return v.challenges }

// SignatureInput is what a customer's software hands over after signing.
type SignatureInput struct {
	Certificate []byte      // the signature certificate, DER
	Digest      []byte      // of what was signed, as the relying party computed it
	Hash        crypto.Hash // what Digest was computed with: SHA-256, SHA-384 or SHA-512
	Signature   []byte      // RSA PKCS#1 v1.5, or ECDSA as DER
	// At is the time the verdict is about. Zero means now. For an earlier time the caller vouches that the signature
	// existed then: it kept the time of acceptance on record. Never take it from the signed document.
	At time.Time
}

// Signature says whether a signature over a digest may be relied upon, and by whom it is. It returns an error only for
// misuse ([jpki.Malformed]) or if no verdict could be reached; a bad signature is a Result.
//
// The checks that need nothing but the input come first and the status last, so that nobody can make the relying party
// ask the authority about a certificate without a signature that verifies. Steps:
//  1. read the certificate
//  2. find the trust anchor that issued it
//  3. is it valid at the time asked about?
//  4. is it a person's, for signing, and of the agreed content?
//  5. is the signature by its key over the digest, with an admitted algorithm?
//  6. is it neither revoked nor suspended at that time, by data recent enough?
//  7. only then hand out the four attributes
func (v *Verifier) Signature(ctx context.Context, in SignatureInput) (*Result, error) {
	if err := checkInput(in.Certificate, in.Signature); err != nil {
		return nil, err
	}
	if !slices.Contains([]crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512}, in.Hash) || len(in.Digest) != in.Hash.Size() {
		return nil, jpki.Errorf(jpki.Malformed, "hash is none of SHA-256, SHA-384, SHA-512, or digest has not its length")
	}
	e, err := v.evaluate(ForSignature, in.At, false)
	if err != nil {
		return nil, err
	}
	// 1 to 4.
	leaf, issuer, ok := e.certificate(in.Certificate)
	if !ok {
		return e.res, nil
	}
	// 5.
	if !e.signature(leaf, in.Hash, in.Digest, in.Signature) {
		return e.res, nil
	}
	// 6 and 7.
	return e.finish(ctx, leaf, issuer), nil
}

// CertificateStatus says whether a certificate met before is still good now: how a relying party notices that a
// customer's attributes have changed ([RevokedAttributesChanged]). The policy is that of the certificate's own purpose;
// no attributes are handed out, since nobody proved to hold the key.
func (v *Verifier) CertificateStatus(ctx context.Context, certificate []byte) (*Result, error) {
	if len(certificate) == 0 {
		return nil, jpki.Errorf(jpki.Malformed, "certificate is required")
	}
	purpose := ForSignature
	if cert, err := ParseCertificate(certificate); err == nil {
		for p, d := range v.demands {
			if len(cert.Policies) == 1 && d.kinds[cert.Policies[0].String()] != "" {
				purpose = p
			}
		}
	}
	if v.demands[purpose] == nil {
		purpose = ForAuthentication // a verifier with that policy only
	}
	e, err := v.evaluate(purpose, time.Time{}, true)
	if err != nil {
		return nil, err
	}
	leaf, issuer, ok := e.certificate(certificate)
	if !ok {
		return e.res, nil
	}
	e.attributes = nil
	return e.finish(ctx, leaf, issuer), nil
}

// An evaluation is one verdict in the making.
type evaluation struct {
	v          *Verifier
	demand     *demand
	at         time.Time // what the verdict is about
	past       bool      // at lies before now, beyond the skew
	timeKnown  bool      // that at is when the key was used is known, not assumed
	attributes *jpki.Attributes
	res        *Result
}

func (v *Verifier) evaluate(purpose Purpose, at time.Time, timeKnown bool) (*evaluation, error) {
	d := v.demands[purpose]
	if d == nil {
		return nil, fmt.Errorf("verify: no policy for %s is configured", purpose)
	}
	now := v.now()
	if at.IsZero() {
		at = now
	}
	if at.After(now.Add(v.skew)) {
		return nil, jpki.Errorf(jpki.Malformed, "the time asked about lies in the future")
	}
	id, err := v.newID()
	if err != nil {
		return nil, err
	}
	return &evaluation{
		v: v, demand: d, at: at, past: at.Before(now.Add(-v.skew)), timeKnown: timeKnown,
		res: &Result{ID: id, Checks: []Check{}, Policy: d.ref, ValidationTime: at.UTC()},
	}, nil
}

// newID begins with the time in milliseconds, as version 7 of RFC 9562 does: whoever keeps results by identifier, in an index of a
// database, adds at its end and not all over. 80 bits are random.
func (v *Verifier) newID() (string, error) {
	var id [16]byte
	binary.BigEndian.PutUint64(id[:], uint64(v.now().UnixMilli())<<16)
	if _, err := io.ReadFull(v.rand, id[6:]); err != nil {
		return "", fmt.Errorf("draw result identifier: %w", err)
	}
	return hex.EncodeToString(id[:]), nil
}

func checkInput(certificate, signature []byte) error {
	if len(certificate) == 0 || len(signature) == 0 {
		return jpki.Errorf(jpki.Malformed, "certificate and signature are required")
	}
	return nil
}

func (e *evaluation) pass(id CheckID, detail string) {
	e.res.Checks = append(e.res.Checks, Check{ID: id, OK: true, Detail: detail})
}

// fail ends the evaluation.
func (e *evaluation) fail(id CheckID, code Code, detail string) {
	e.res.Checks = append(e.res.Checks, Check{ID: id, Detail: detail})
	e.res.conclude(code, e.timeKnown)
}

// certificate makes the checks that concern the certificate alone: steps 1 to 4 of [Verifier.Signature].
func (e *evaluation) certificate(der []byte) (leaf, issuer *x509.Certificate, ok bool) {
	// 1. Form.
	leaf, err := ParseCertificate(der)
	if err != nil {
		code := MalformedCertificate
		if errors.Is(err, errCritical) {
			code = UnknownCriticalExtension
		}
		e.fail(CheckFormat, code, err.Error())
		return nil, nil, false
	}
	e.res.Signer = describe(leaf)
	e.pass(CheckFormat, "X.509 version 3, DER, no unknown critical extension")

	// 2. Issuer.
	issuer, err = e.v.anchors.issuerOf(leaf, e.demand, e.at)
	switch keyID := hex.EncodeToString(leaf.AuthorityKeyId); {
	case errors.Is(err, errAlgorithmExpired):
		e.fail(CheckIssuer, AlgorithmExpired, err.Error())
		return nil, nil, false
	case errors.Is(err, errAlgorithm):
		e.fail(CheckIssuer, WeakAlgorithm, err.Error())
		return nil, nil, false
	case err != nil:
		e.fail(CheckIssuer, UntrustedIssuer, fmt.Sprintf("%v (authority key identifier %.64q)", err, keyID))
		return nil, nil, false
	default:
		e.pass(CheckIssuer, "signed by trust anchor "+keyID)
	}

	// 3. Validity, of the certificate and of the anchor. Clocks may differ when a certificate is used as soon as issued.
	switch {
	case e.at.Before(leaf.NotBefore.Add(-e.v.skew)):
		e.fail(CheckValidity, NotYetValid, "begins "+leaf.NotBefore.UTC().Format(time.RFC3339))
		return nil, nil, false
	case e.at.After(leaf.NotAfter):
		e.fail(CheckValidity, Expired, "ended "+leaf.NotAfter.UTC().Format(time.RFC3339))
		return nil, nil, false
	case e.at.Before(issuer.NotBefore.Add(-e.v.skew)) || e.at.After(issuer.NotAfter):
		e.fail(CheckValidity, IssuerNotValid, "the trust anchor is outside its own validity")
		return nil, nil, false
	}
	e.pass(CheckValidity, "until "+leaf.NotAfter.UTC().Format(time.RFC3339))

	// 4. Whose, and for what.
	if !e.purpose(leaf) || !e.keyUsage(leaf) || !e.content(leaf) {
		return nil, nil, false
	}
	return leaf, issuer, true
}

// purpose checks that the certificate is a person's and was issued under a policy for this purpose.
func (e *evaluation) purpose(leaf *x509.Certificate) bool {
	if leaf.IsCA || leaf.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0 {
		e.fail(CheckPurpose, CACertificate, "is a certification authority's")
		return false
	}
	if len(leaf.Policies) != 1 {
		e.fail(CheckPurpose, WrongPolicy, fmt.Sprintf("%d certificate policies, 1 wanted", len(leaf.Policies)))
		return false
	}
	oid := leaf.Policies[0].String()
	kind, ok := e.demand.kinds[oid]
	if !ok {
		for _, other := range e.v.demands {
			if other.kinds[oid] != "" {
				e.res.Signer.Kind = other.kinds[oid]
				e.fail(CheckPurpose, WrongPurpose, fmt.Sprintf("certificate policy %s is for %s", oid, other.Purpose))
				return false
			}
		}
		e.fail(CheckPurpose, WrongPolicy, fmt.Sprintf("certificate policy %.64q is not accepted", oid))
		return false
	}
	e.res.Signer.Kind = kind
	if ids := e.demand.IssuerKeyIDs; len(ids) > 0 && !slices.Contains(ids, hex.EncodeToString(leaf.AuthorityKeyId)) {
		e.fail(CheckPurpose, WrongIssuer, "the policy does not admit this trust anchor")
		return false
	}
	e.pass(CheckPurpose, fmt.Sprintf("%s, certificate policy %s", kind, oid))
	return true
}

func (e *evaluation) keyUsage(leaf *x509.Certificate) bool {
	if got := leaf.KeyUsage; got&e.demand.required != e.demand.required || got&e.demand.forbidden != 0 {
		e.fail(CheckKeyUsage, WrongKeyUsage, fmt.Sprintf("key usage bits %#x do not fit", int(got)))
		return false
	}
	if value, present := extension(leaf, oidExtKeyUsage); present && len(e.demand.ExtendedKeyUsage) > 0 {
		usages, ok := readOIDs(value)
		if !ok || !slices.ContainsFunc(e.demand.ExtendedKeyUsage, func(want string) bool { return slices.Contains(usages, want) }) {
			e.fail(CheckKeyUsage, WrongKeyUsage, "extended key usage does not fit")
			return false
		}
	}
	e.pass(CheckKeyUsage, "key usage fits the purpose")
	return true
}

// content checks the four attributes, which a signature certificate must have. They are kept back until the end.
func (e *evaluation) content(leaf *x509.Certificate) bool {
	if e.demand.Purpose != ForSignature {
		return true
	}
	san, _ := extension(leaf, oidSubjectAltName)
	a, err := ParseAttributes(san)
	if err != nil {
		e.fail(CheckAttributes, WrongAttributes, err.Error())
		return false
	}
	e.attributes = a
	e.pass(CheckAttributes, "four attributes in the agreed form")
	return true
}

// signature checks algorithm and value.
func (e *evaluation) signature(leaf *x509.Certificate, hash crypto.Hash, digest, signature []byte) bool {
	key, err := keyOf(leaf)
	if err == nil {
		err = e.demand.admits(key, schemeOf(key, hash), e.at)
	}
	switch {
	case errors.Is(err, errAlgorithmExpired):
		e.fail(CheckAlgorithm, AlgorithmExpired, err.Error())
		return false
	case err != nil:
		e.fail(CheckAlgorithm, WeakAlgorithm, "not admitted: "+err.Error())
		return false
	}
	e.pass(CheckAlgorithm, fmt.Sprintf("%s with %s", leaf.PublicKeyAlgorithm, hash))
	switch code := checkValue(key, hash, digest, signature); code {
	case OK:
		e.pass(CheckSignature, "by the certificate's key over the digest")
		return true
	case DigestMismatch:
		e.fail(CheckSignature, code, "by this key, over another digest")
	default:
		e.fail(CheckSignature, code, "does not verify")
	}
	return false
}

// finish establishes the status and concludes.
func (e *evaluation) finish(ctx context.Context, leaf, issuer *x509.Certificate) *Result {
	code, detail := e.status(ctx, leaf, issuer)
	if code != OK {
		e.fail(CheckStatus, code, detail)
		return e.res
	}
	e.pass(CheckStatus, detail)
	e.res.Attributes = e.attributes
	e.res.conclude(OK, e.timeKnown)
	return e.res
}

// loginHash returns what a card hashes a challenge with: SHA-384 for keys on P-384, else SHA-256.
func loginHash(key crypto.PublicKey) crypto.Hash {
	if k, ok := key.(*ecdsa.PublicKey); ok && k.Curve == elliptic.P384() {
		return crypto.SHA384
	}
	return crypto.SHA256
}
