// Package acme enrols stations by the protocol of step-ca, and phones by ACME: clients that nobody here wrote speak both.
//
// An [Enrolment] is the handler of that protocol: an embedded smallstep authority checks tokens and requests, but signs
// nothing itself. Its signing service (cas.go) passes what an [Enrolment] has authorised to ca.Authority.CertifyStation, so
// contents and lifetime are our profile's whatever a request says, and every certificate is reserved, recorded, audited
// and its key enrolled. A one-time token of a [Provisioner] admits a [Station] of the operator's table; afterwards the
// station renews with its present certificate. A phone whose enrolment was begun with the card's signature certificate has
// keys certified that its maker has attested in an [Attestation]'s format (phone.go); only ca.Authority.Issue signs for it,
// whose holder, kinds and rules are none of this package's. All state is in ca/store. Tokens are RFC 7519 with RFC 7515 x5c
// headers, requests RFC 2986, ACME is RFC 8555 with draft-ietf-acme-device-attest. Enrolment is safe for concurrent use; a
// refused request changes nothing but that its token or nonce is spent. Start at New, then http.go or phone.go.
package acme

import (
	"crypto"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"slices"
	"time"

	"github.com/smallstep/certificates/authority"
	"github.com/smallstep/certificates/authority/config"
	"github.com/smallstep/certificates/authority/provisioner"
	"go.step.sm/crypto/jose"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/store"
)

// A Provisioner is who may admit stations: whoever holds the private key of Key and signs one-time tokens with it. The
// authority never has that key, not even encrypted.
type Provisioner struct {
	Name string
	Key  []byte // the public key, a JSON Web Key (RFC 7517)
}

// A Station is a row of the operator's table: what a station of this name is, and whose tokens admit it.
type Station struct {
	jpki.Actor
	Provisioner string
}

// Config is what enrolment needs; every field but Phones is required.
type Config struct {
	Authority *ca.Authority
	Store     *store.Store
	Root      *x509.Certificate // the infrastructure CA's
	// Certify signs a station's certificate with the infrastructure CA's key.
	Certify      func(key crypto.PublicKey, name string, serial jpki.Serial) (*x509.Certificate, error)
	Hosts        []string // names and addresses under which the handler is reached; tokens are made out to them
	Provisioners []Provisioner
	Stations     []Station
	Phones       []Attestation // none: no phones enrol here
	NewID        func() string // draws identifiers that nobody can guess, such as crypto/rand's Text
	Now          func() time.Time
	Log          *slog.Logger
}

// bySelf is the provisioner for stations that ask with their present certificate in the x5c header of a token.
const bySelf = "station"

// An Enrolment is the handler. It needs a TLS listener that asks for client certificates without requiring them.
type Enrolment struct {
	Config
	step         *authority.Authority
	provisioners provisioner.List
	roots        *x509.CertPool
	stations     map[string]Station
	orders       orders
	phones       http.Handler     // nil without Phones
	judges       map[string]judge // by directory; where there is none, smallstep judges
	finalizing   finalizations
	revoking     revocations
	nonces       *nonces
	outcomes     jpki.Tally
}

var stationName = regexp.MustCompile(`^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$`)

// New checks the configuration and returns the handler.
func New(c Config) (*Enrolment, error) {
	if c.Authority == nil || c.Store == nil || c.Root == nil || c.Certify == nil || len(c.Hosts) == 0 || len(c.Provisioners) == 0 || len(c.Stations) == 0 ||
		c.NewID == nil || c.Now == nil || c.Log == nil {
		return nil, errors.New("acme: every field of Config is required")
	}
	e := &Enrolment{Config: c, roots: x509.NewCertPool(), stations: map[string]Station{}, judges: map[string]judge{}, nonces: newNonces(c.NewID())}
	e.roots.AddCert(c.Root)
	known := map[string]bool{}
	for _, p := range c.Provisioners {
		key := new(jose.JSONWebKey)
		if err := json.Unmarshal(p.Key, key); err != nil {
			return nil, fmt.Errorf("acme: key of provisioner %s: %w", p.Name, err)
		}
		if p.Name == "" || p.Name == bySelf || known[p.Name] || !key.IsPublic() || !key.Valid() || key.KeyID == "" {
			return nil, fmt.Errorf("acme: provisioner %q needs a name of its own and a public key with a kid", p.Name)
		}
		known[p.Name] = true
		e.provisioners = append(e.provisioners, &provisioner.JWK{Type: "JWK", Name: p.Name, Key: key, Claims: claims()})
	}
	e.provisioners = append(e.provisioners, &provisioner.X5C{
		Type: "X5C", Name: bySelf, Roots: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Root.Raw}), Claims: claims(),
	})
	for _, s := range c.Stations {
		if _, twice := e.stations[s.ID]; twice || !stationName.MatchString(s.ID) || jpki.ContainsMyNumber(s.ID) || !known[s.Provisioner] {
			return nil, fmt.Errorf("acme: station %q needs a host name of its own and a provisioner of the list", s.ID)
		}
		e.stations[s.ID] = s
	}
	all := slices.Clone(e.provisioners)
	for _, a := range c.Phones {
		p, err := c.acmeProvisioner(a)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(all, func(other provisioner.Interface) bool { return other.GetName() == p.Name }) {
			return nil, fmt.Errorf("acme: two provisioners are called %q", p.Name)
		}
		all = append(all, p)
		if e.judges[p.Name], err = c.judge(a); err != nil {
			return nil, err
		}
	}
	if len(c.Phones) > 0 {
		e.phones = e.newPhones()
	}
	var err error
	e.step, err = authority.NewEmbedded(authority.WithQuietInit(),
		authority.WithConfig(&config.Config{DNSNames: c.Hosts, AuthorityConfig: &config.AuthConfig{
			Provisioners: all, DisableIssuedAtCheck: true, // used tokens outlive a restart here
		}}),
		authority.WithX509RootCerts(c.Root), authority.WithX509CAService(service{e}), authority.WithDatabase(database{e}))
	if err != nil {
		return nil, fmt.Errorf("acme: open smallstep authority: %w", err)
	}
	return e, nil
}

// claims are the limits smallstep checks its own draft against, which nobody signs: it caps the draft's end at the present
// certificate's, so the minimum has to be small or a station could not renew in its last minutes.
func claims() *provisioner.Claims {
	yes, no, second, day := true, false, provisioner.Duration{Duration: time.Second}, provisioner.Duration{Duration: 24 * time.Hour}
	return &provisioner.Claims{
		MinTLSDur: &second, DefaultTLSDur: &day, MaxTLSDur: &day, DisableSmallstepExtensions: &yes, EnableSSHCA: &no, AllowRenewalAfterExpiry: &no,
	}
}

// Outcomes returns how often requests ended in which problem, or "ok".
func (e *Enrolment) Outcomes() map[string]uint64 { return e.outcomes.Snapshot() }

// NewProvisionerKey draws a key pair for a [Provisioner]: the public JSON Web Key, and the private one encrypted under a
// password (RFC 7516), as `step ca token -key` reads it.
func NewProvisionerKey(password []byte) (public, private []byte, err error) {
	key, encrypted, err := jose.GenerateDefaultKeyPair(password)
	if err != nil {
		return nil, nil, fmt.Errorf("draw provisioner key: %w", err)
	}
	if public, err = json.Marshal(key); err != nil {
		return nil, nil, fmt.Errorf("encode provisioner key: %w", err)
	}
	return public, []byte(encrypted.FullSerialize()), nil
}
