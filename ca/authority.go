// Package ca decides what happens to certificates and makes it so.
//
// An [Authority] owns the commands: Issue, Renew, Deliver, Suspend, Resume, Revoke and ApplyResidentEvent. The law is in
// tables: transitions (lifecycle.go), causes and what register events do (rules.go), validity (validity.go) and the
// contents of certificates (a [Profile], held by the lints of lint.go). It knows no HTTP, no cache and no responder: consequences follow the status log.
// It follows RFC 5280 and the Act on JPKI as docs/glossary.md cites it. An Authority is safe for concurrent use, also by
// several processes on one database. A command that returned an error has changed nothing, unless the error is
// [jpki.Unavailable]: then it may have, and the same request under the same key finds out.
// Start at New, then read issue.go from top to bottom.
package ca

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/store"
)

// An Issuer is one generation of one CA with the use of its key.
type Issuer struct {
	ID          jpki.IssuerID
	Certificate *x509.Certificate
	Signer      crypto.Signer
	algorithm   algorithm
	passed      *passed
}

// Config is what an [Authority] needs. Every field is required unless it says otherwise.
type Config struct {
	Store     *store.Store
	Profile   *Profile
	Issuers   []Issuer // one for each CA: the generation that issues; see Activate and Follow
	StatusURL string   // where OCSP and CRLs are served, without a final slash; goes into certificates
	Now       func() time.Time
	Rand      io.Reader // for serial numbers and identifiers
	Log       *slog.Logger

	StationCAs  *x509.CertPool // who certifies stations; nil admits none
	HoldRelease []jpki.Kind    // kinds whose suspension may end well; default: phone authentication certificates only
	OpenKey     OpenKey        // opens the key of a generation that another process activated; nil: only keys that this one has used
	// ConsentsAtOnce lets consents hold from when they are received, not from midnight on: for sandboxes, where nobody waits for a day.
	ConsentsAtOnce bool
	SigningTime    time.Duration // bounds an issuance from its first signature to its record, whatever the caller's patience; 0 means 30 s
}

// An Authority is the certification authority. See the package comment.
type Authority struct {
	store        *store.Store
	profile      *Profile
	statusURL    string
	now          func() time.Time
	rand         io.Reader
	log          *slog.Logger
	stationCerts verifiedCerts
	transitions  []transition

	activating  sync.Mutex // one at a time; guards held
	held        map[jpki.IssuerID]*Issuer
	openKey     OpenKey
	issuing     atomic.Pointer[issuers] // swapped whole
	signingTime time.Duration
	statistics  store.Statistics
	reserving   together[*issuance] // step 2 of issuances
	recording   together[*issuance] // step 5
	lookingUp   together[*lookUp]   // of stations
	told        bell                // rings when a feed of changes has grown
	atOnce      bool                // consents hold
}

// roundSize bounds how many issuances share a transaction.
const roundSize = 64

// issuers are the generations that issue at one moment, one for each CA. It is never changed.
type issuers map[jpki.CA]*Issuer

// New checks the configuration and returns the authority. It signs nothing and reads nothing yet.
func New(c Config) (*Authority, error) {
	for name, missing := range map[string]bool{"Store": c.Store == nil, "Profile": c.Profile == nil, "StatusURL": c.StatusURL == "", "Now": c.Now == nil, "Rand": c.Rand == nil, "Log": c.Log == nil} {
		if missing {
			return nil, fmt.Errorf("ca: Config.%s is required", name)
		}
	}
	a := &Authority{store: c.Store, profile: c.Profile, statusURL: c.StatusURL, now: c.Now, rand: c.Rand, log: c.Log, stationCerts: verifiedCerts{roots: c.StationCAs}, openKey: c.OpenKey, signingTime: c.SigningTime, atOnce: c.ConsentsAtOnce}
	if a.signingTime < 0 {
		return nil, errors.New("ca: Config.SigningTime is negative")
	}
	if a.signingTime == 0 {
		a.signingTime = 30 * time.Second
	}
	if a.stationCerts.roots == nil {
		a.stationCerts.roots = x509.NewCertPool() // empty, where nil would mean the system's
	}
	issuing, err := newIssuers(c.Profile, c.Issuers)
	if err != nil {
		return nil, err
	}
	a.issuing.Store(&issuing)
	a.held = map[jpki.IssuerID]*Issuer{}
	for _, i := range issuing {
		a.held[i.ID] = i
	}
	release := c.HoldRelease
	if release == nil {
		release = []jpki.Kind{jpki.PhoneAuth}
	}
	a.transitions = transitionsWith(release)
	round := func(step func(*store.Tx, []*issuance, bool) error) func([]*issuance, func(int)) {
		return func(list []*issuance, done func(int)) { a.inRound(list, done, step) }
	}
	a.reserving = together[*issuance]{most: roundSize, names: (*issuance).names, round: round(a.reserve)}
	a.recording = together[*issuance]{most: roundSize, names: (*issuance).names, round: round(a.record)}
	a.lookingUp = together[*lookUp]{most: roundSize, names: func(*lookUp) []string { return nil }, round: a.lookUpAll}
	return a, nil
}

// newIssuers checks one issuer for each CA.
func newIssuers(p *Profile, list []Issuer) (issuers, error) {
	out := issuers{}
	for _, i := range list {
		if err := i.check(p); err != nil {
			return nil, fmt.Errorf("ca: issuer %s: %w", i.ID, err)
		}
		if out[i.ID.CA] != nil {
			return nil, fmt.Errorf("ca: two issuing generations of the %s CA", i.ID.CA)
		}
		out[i.ID.CA] = &i
	}
	for _, ca := range jpki.CAs {
		if out[ca] == nil {
			return nil, fmt.Errorf("ca: no issuer for the %s CA", ca)
		}
	}
	return out, nil
}

// check reports why i cannot issue under p, and completes it.
func (i *Issuer) check(p *Profile) (err error) {
	if i.Certificate == nil || i.Signer == nil {
		return errors.New("certificate and signer are required")
	}
	if i.algorithm, err = algorithmOf(i.Signer.Public()); err != nil {
		return err
	}
	if k, ok := i.Certificate.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !k.Equal(i.Signer.Public()) {
		return errors.New("the signer holds another key than the certificate")
	}
	if !i.Certificate.IsCA || i.Certificate.KeyUsage&x509.KeyUsageCertSign == 0 {
		return errors.New("the certificate is not a CA's")
	}
	a := p.Authorities[i.ID.CA]
	if a == nil || string(i.Certificate.RawSubject) != string(encodeName(a.Subject)) {
		return errors.New("the certificate does not have the profile's name")
	}
	if id := keyIdentifier(i.Certificate.RawSubjectPublicKeyInfo); string(id[:]) != string(i.Certificate.SubjectKeyId) {
		return errors.New("the certificate's subjectKeyIdentifier is not the SHA-1 of its key")
	}
	i.passed = &passed{}
	return nil
}

// once runs a command that is a single transaction at most once under an idempotency key and returns what it returned
// the first time. The result must hold no personal data: it is stored.
func once[T any](ctx context.Context, a *Authority, by jpki.Actor, key, action string, request any, f func(tx *store.Tx, now time.Time) (T, error)) (T, error) {
	var result T
	hash, err := requestHash(action, request)
	if err != nil {
		return result, err
	}
	now := a.now()
	err = a.store.Update(ctx, func(tx *store.Tx) error {
		result = *new(T)
		stored, done, err := tx.BeginOnce(by.String(), key, hash, now)
		if err != nil {
			return err
		}
		if done {
			return json.Unmarshal([]byte(stored), &result)
		}
		if result, err = f(tx, now); err != nil {
			return err
		}
		return endOnce(tx, by, key, result)
	})
	return result, err
}

func endOnce(tx *store.Tx, by jpki.Actor, key string, result any) error {
	text, err := json.Marshal(result)
	if err != nil {
		return fmt.Errorf("encode result: %w", err)
	}
	return tx.EndOnce(by.String(), key, string(text))
}

func requestHash(action string, request any) (string, error) {
	text, err := json.Marshal(request)
	if err != nil {
		return "", fmt.Errorf("encode request: %w", err)
	}
	sum := sha256.Sum256(append([]byte(action+"\n"), text...))
	return hex.EncodeToString(sum[:]), nil
}
