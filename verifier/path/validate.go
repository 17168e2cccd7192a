package path

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// A Config says what a [Validator] relies upon, whatever it is asked.
type Config struct {
	// Anchors are trusted (required). A path may begin at any of them, also at one that is not self-signed.
	Anchors []*Certificate
	// BareAnchors takes of an anchor its name and key only (RFC 5280 §6.1.1 (d)). Otherwise its validity, usage, critical
	// extensions, path length, name and policy constraints count as if it were a certificate of the path (RFC 5937).
	BareAnchors bool
	// Certificates may be used in any path; nothing is trusted in them.
	Certificates []*Certificate
	// Responders may answer by OCSP for any certificate (RFC 6960 §4.2.2.2, local configuration).
	Responders []*Certificate
	// Algorithms are [StandardAlgorithms] if nil.
	Algorithms *Algorithms
	Limits     Limits
	// Cache remembers what was checked. May be nil.
	Cache *Cache
	// Skew is how far clocks may differ: data are not refused for being that much in the future.
	Skew time.Duration
	// Fetch gets what is missing. If nil, which is the default, only what comes with a Request is used.
	Fetch func(ctx context.Context, want Want) ([][]byte, error)
}

// A Validator finds and checks certification paths. It is safe for concurrent use.
type Validator struct {
	anchors, responders []*Certificate
	known               []*Certificate
	bare                bool
	algorithms          Algorithms
	limits              Limits
	cache               *Cache
	skew                time.Duration
	fetch               func(context.Context, Want) ([][]byte, error)
}

// New returns a Validator.
func New(c Config) (*Validator, error) {
	if len(c.Anchors) == 0 {
		return nil, errors.New("path: no Anchors")
	}
	for _, list := range [][]*Certificate{c.Anchors, c.Certificates, c.Responders} {
		if slices.Contains(list, nil) {
			return nil, errors.New("path: a certificate is nil")
		}
	}
	if c.Skew < 0 {
		return nil, errors.New("path: Skew is negative")
	}
	limits, err := c.Limits.resolve()
	if err != nil {
		return nil, fmt.Errorf("path: %w", err)
	}
	v := &Validator{
		anchors: slices.Clone(c.Anchors), known: slices.Clone(c.Certificates), responders: slices.Clone(c.Responders),
		bare: c.BareAnchors, limits: limits, cache: c.Cache, skew: c.Skew, fetch: c.Fetch, algorithms: StandardAlgorithms(),
	}
	if c.Algorithms != nil {
		v.algorithms = *c.Algorithms
	}
	return v, nil
}

// RevocationMode says what must be known of revocation.
type RevocationMode int

// The modes. Whatever the mode, a certificate found revoked makes a path invalid, and a status not established is
// reported as undetermined.
const (
	RevocationRequired  RevocationMode = iota // every certificate of the path must be found good
	RevocationIfOffered                       // undetermined is accepted where no list and no answer is about the certificate, not where one is and is unfit
	RevocationOff                             // nothing is looked at
)

// A Request says what is asked about one certificate.
type Request struct {
	Certificate  *Certificate   // required
	At           time.Time      // required: when the path must be valid
	Certificates []*Certificate // that came with it; nothing is trusted in them

	// The inputs of RFC 5280 §6.1.1 (c), (e), (f), (g). No Policies means any-policy.
	Policies              []OID
	RequireExplicitPolicy bool
	InhibitPolicyMapping  bool
	InhibitAnyPolicy      bool

	KeyUsage      KeyUsage     // all of these, if the certificate has the extension
	Purposes      []OID        // one of these, if the certificate has extKeyUsage
	ChainPurposes bool         // authorities with extKeyUsage must have the purpose, too
	Names         []WantedName // every one of these must be among the alternative names
	PathLength    *int         // how many authorities that are not self-issued may stand below the anchor; nil for any number
	Profile       Profile      // what issuers must do that validation does not ask about

	Revocation RevocationMode
	CRLs       []*CRL
	OCSP       []*OCSP
	// StatusAt is when the data on revocation must be current; At if zero. If it is later than At, a certificate revoked
	// only after At was good at At.
	StatusAt time.Time
	// MaxAge bounds how long before StatusAt data may have been issued; zero means their own nextUpdate does. Answers
	// without nextUpdate are refused unless MaxAge is set.
	MaxAge time.Duration
	// AlgorithmsAt is until when nobody could have forged the certificates: Algorithms.Rows must admit their signatures then.
	// At if zero. Data on revocation are held against the later of it and StatusAt.
	AlgorithmsAt time.Time
}

// A job is one call of Validate.
type job struct {
	ctx context.Context
	v   *Validator
	r   *Request
	at  time.Time // when data on revocation must be current
	// When the algorithms of certificates, and of data on revocation, must be relied upon.
	certificatesAt, dataAt time.Time
	few                    []*Certificate            // what is at hand, or, if that is much …
	pool                   map[string][]*Certificate // … by name
	crls                   map[string][]*CRL
	answers                []*OCSP
	signatures             map[verified]*problem   // what was computed
	statuses               map[[3][32]byte]*Status // of a certificate by its issuer's key under an anchor's
	has                    map[[32]byte]bool       // what is in pool and crls
	way                    [4]*Certificate         // room for most paths
	open                   map[[32]byte]bool       // certificates whose status is being established
	fetched                map[string]bool
	work                   Work
	exhausted              bool
}

// Validate looks for a valid path from an anchor to a certificate. Steps, for one candidate after the other, the likely ones first:
//  1. extend the path by somebody of the issuer's name whose key made the signature (build.go)
//  2. at an anchor, process the certificates from there to the end as RFC 5280 §6.1 says (process.go)
//  3. check purpose, names and profile as far as they were asked for
//  4. establish the status of each certificate (status.go)
//
// The error is about the request or the context; whatever is wrong with certificates is in the Result.
func (v *Validator) Validate(ctx context.Context, r Request) (*Result, error) {
	switch {
	case r.Certificate == nil:
		return nil, errors.New("path: no Certificate")
	case r.At.IsZero():
		return nil, errors.New("path: no time At")
	case slices.Contains(r.Certificates, nil) || slices.Contains(r.CRLs, nil) || slices.Contains(r.OCSP, nil):
		return nil, errors.New("path: a certificate, list or answer is nil")
	case r.PathLength != nil && *r.PathLength < 0 || r.MaxAge < 0 || r.Revocation < RevocationRequired || r.Revocation > RevocationOff, r.Profile < NoProfile || r.Profile > FullProfile:
		return nil, errors.New("path: PathLength, MaxAge, Revocation or Profile is none")
	}
	j := &job{ctx: ctx, v: v, r: &r, at: r.StatusAt}
	if j.at.IsZero() {
		j.at = r.At
	}
	if j.certificatesAt = r.AlgorithmsAt; j.certificatesAt.IsZero() {
		j.certificatesAt = r.At
	}
	if j.dataAt = j.at; j.certificatesAt.After(j.dataAt) {
		j.dataAt = j.certificatesAt
	}
	if n := len(v.known) + len(r.Certificates); n > fewCertificates {
		j.pool, j.has = make(map[string][]*Certificate, n), make(map[[32]byte]bool, n)
	}
	for _, c := range v.known {
		j.addCertificate(c)
	}
	for _, c := range r.Certificates {
		j.addCertificate(c)
	}
	if v.fetch != nil {
		j.fetched = map[string]bool{}
	}
	if r.Revocation != RevocationOff {
		j.crls, j.statuses, j.open = map[string][]*CRL{}, map[[3][32]byte]*Status{}, map[[32]byte]bool{}
		for _, l := range r.CRLs {
			j.addCRL(l)
		}
		j.answers = slices.Clone(r.OCSP)
	}
	s := &search{j: j, target: r.Certificate, at: r.At, inputs: &r}
	s.run()
	res := s.result()
	res.Work, res.LimitReached = j.work, j.exhausted
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return res, nil
}

// fewCertificates is up to how many are looked through one by one: an index would cost more.
const fewCertificates = 8

func (j *job) addCertificate(c *Certificate) {
	switch {
	case j.pool == nil && len(j.few) < fewCertificates:
		if !slices.ContainsFunc(j.few, func(o *Certificate) bool { return o.SHA256 == c.SHA256 }) {
			j.few = append(j.few, c)
		}
		return
	case j.pool == nil: // more were fetched
		if j.pool = map[string][]*Certificate{}; j.has == nil {
			j.has = map[[32]byte]bool{}
		}
		for _, o := range j.few {
			j.has[o.SHA256], j.pool[o.Subject.key] = true, append(j.pool[o.Subject.key], o)
		}
	}
	if !j.has[c.SHA256] {
		j.has[c.SHA256] = true
		j.pool[c.Subject.key] = append(j.pool[c.Subject.key], c)
	}
}

// named returns the certificates at hand with a name.
func (j *job) named(key string) (out []*Certificate) {
	if j.pool != nil {
		return j.pool[key]
	}
	for _, c := range j.few {
		if c.Subject.key == key {
			out = append(out, c)
		}
	}
	return out
}

func (j *job) addCRL(l *CRL) {
	if j.has == nil {
		j.has = map[[32]byte]bool{}
	}
	if !j.has[l.SHA256] {
		j.has[l.SHA256] = true
		j.crls[l.Issuer.key] = append(j.crls[l.Issuer.key], l)
	}
}
