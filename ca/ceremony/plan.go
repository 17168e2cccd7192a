package ceremony

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/hsm"
)

// A Kind is what a ceremony is held for.
type Kind string

// The kinds.
const (
	NewGeneration Kind = "generation"  // make an authority's key and its self-signed certificate
	Delegation    Kind = "responder"   // certify a responder's key for OCSP under a generation's key
	Destruction   Kind = "destruction" // end a key for good
)

// A Plan is the one input of a ceremony: a YAML file, read strictly, which the witnesses have read before. Paths in it are
// relative to it.
type Plan struct {
	Title      string        `yaml:"title"`
	Kind       Kind          `yaml:"kind"`
	Place      string        `yaml:"place"`
	Generation jpki.IssuerID `yaml:"generation"`
	Profile    string        `yaml:"profile"`   // file of an authority's profile; "sandbox" and "sandbox-next" are built in
	Algorithm  hsm.Algorithm `yaml:"algorithm"` // of a new key
	Ends       string        `yaml:"ends"`      // last day of a new certificate in Japan, YYYY-MM-DD: what the profile must come to
	Key        string        `yaml:"key"`       // URI; empty for a file in the ceremony's own folder
	Issuer     string        `yaml:"certificate"`
	Request    string        `yaml:"request"` // PKCS #10, of a responder
	Witnesses  []Witness     `yaml:"witnesses"`
	Quorum     int           `yaml:"quorum"` // how many witnesses must have signed
	Custody    *Custody      `yaml:"custody"`
	Tokens     []Token       `yaml:"tokens"` // that have the key, where it is behind jpki-signer and made or destroyed

	text    []byte
	dir     string
	profile *ca.Profile
	issuer  *x509.Certificate
	request []byte
}

// A Witness watches and then signs the transcript.
type Witness struct {
	Name        string `yaml:"name"`
	Role        string `yaml:"role"`
	Certificate string `yaml:"certificate"` // file: with its key the transcript is signed, as CMS

	certificate *x509.Certificate
}

// Custody says how the backup of a key is kept: any Threshold of the custodians can restore it together, fewer learn nothing.
type Custody struct {
	Threshold  int      `yaml:"threshold"`
	Custodians []string `yaml:"custodians"`
}

// Bounds of what an input file may have.
const (
	maxPlan       = 64 << 10 // octets, also of files that it names
	maxWitnesses  = 16
	maxCustodians = 16
	maxLine       = 120 // characters of a name or a title
)

// ReadPlan reads and checks an input file and the files that it names. It opens no key and makes nothing.
func ReadPlan(path string) (*Plan, error) {
	text, err := readSmall(path)
	if err != nil {
		return nil, err
	}
	p, err := parsePlan(text)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	p.dir = filepath.Dir(path)
	if err := p.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return p, nil
}

func parsePlan(text []byte) (*Plan, error) {
	p := &Plan{text: text}
	if err := yaml.UnmarshalWithOptions(text, p, yaml.Strict()); err != nil {
		return nil, errors.New(strings.ReplaceAll(yaml.FormatError(err, false, false), "\n", " "))
	}
	return p, nil
}

// rules says which fields a kind needs, and which it must not have.
var rules = map[Kind]struct{ needs, has []string }{
	NewGeneration: {[]string{"profile", "algorithm", "ends"}, []string{"profile", "algorithm", "ends", "key", "custody"}},
	Delegation:    {[]string{"key", "certificate", "request"}, []string{"key", "certificate", "request"}},
	Destruction:   {[]string{"key", "certificate"}, []string{"key", "certificate"}},
}

func (p *Plan) check() error {
	given := map[string]bool{
		"profile": p.Profile != "", "algorithm": p.Algorithm != "", "ends": p.Ends != "", "key": p.Key != "",
		"certificate": p.Issuer != "", "request": p.Request != "", "custody": p.Custody != nil,
	}
	rule, known := rules[p.Kind]
	if !known {
		return fmt.Errorf("kind %.40q is not one of %s, %s, %s", p.Kind, NewGeneration, Delegation, Destruction)
	}
	for field, is := range given {
		switch {
		case is && !slices.Contains(rule.has, field):
			return fmt.Errorf("a ceremony of kind %s has no %s", p.Kind, field)
		case !is && slices.Contains(rule.needs, field):
			return fmt.Errorf("a ceremony of kind %s needs: %s", p.Kind, field)
		}
	}
	switch {
	case !line(p.Title) || !line(p.Place):
		return fmt.Errorf("title and place are required, in one line of at most %d characters", maxLine)
	case p.Generation == jpki.IssuerID{}:
		return errors.New("generation is required, as in sign-1")
	case p.Algorithm != "" && !slices.Contains([]hsm.Algorithm{hsm.RSA2048, hsm.P256, hsm.P384}, p.Algorithm):
		return fmt.Errorf("algorithm %.40q is not one of %s, %s, %s", p.Algorithm, hsm.RSA2048, hsm.P256, hsm.P384)
	}
	if err := p.checkWitnesses(); err != nil {
		return err
	}
	if err := p.checkCustody(); err != nil {
		return err
	}
	if err := p.checkTokens(); err != nil {
		return err
	}
	return p.readFiles()
}

func (p *Plan) checkWitnesses() error {
	if len(p.Witnesses) < 2 || len(p.Witnesses) > maxWitnesses || p.Quorum < 2 || p.Quorum > len(p.Witnesses) {
		return fmt.Errorf("a ceremony has 2 to %d witnesses, and quorum says how many of them must sign: at least 2", maxWitnesses)
	}
	keys := map[string]bool{}
	for i := range p.Witnesses {
		w := &p.Witnesses[i]
		if !line(w.Name) || !line(w.Role) {
			return fmt.Errorf("witness %d: name and role are required", i+1)
		}
		var err error
		if w.certificate, err = p.readCertificate(w.Certificate); err != nil {
			return fmt.Errorf("witness %d: %w", i+1, err)
		}
		if key := string(w.certificate.RawSubjectPublicKeyInfo); keys[key] {
			return fmt.Errorf("witness %d has another witness's key", i+1)
		} else {
			keys[key] = true
		}
	}
	return nil
}

func (p *Plan) checkCustody() error {
	c := p.Custody
	switch {
	case c == nil:
		return nil
	case p.Key != "":
		return errors.New("custody is of a key in the ceremony's own folder: a token's key never leaves it, and is backed up by the token's own means")
	case c.Threshold < 2 || c.Threshold > len(c.Custodians) || len(c.Custodians) > maxCustodians:
		return fmt.Errorf("custody has a threshold of at least 2, and as many custodians up to %d", maxCustodians)
	}
	for i, name := range c.Custodians {
		if !line(name) || slices.Contains(c.Custodians[:i], name) {
			return fmt.Errorf("custodian %d has no name, or another's", i+1)
		}
	}
	return nil
}

func (p *Plan) readFiles() (err error) {
	switch p.Profile {
	case "":
	case "sandbox":
		p.profile = ca.Sandbox()
	case "sandbox-next":
		p.profile = ca.SandboxNext()
	default:
		text, err := readSmall(p.path(p.Profile))
		if err != nil {
			return err
		}
		if p.profile, err = ca.ParseProfile(text); err != nil {
			return fmt.Errorf("profile: %w", err)
		}
	}
	if p.Ends != "" {
		if _, err := time.Parse(time.DateOnly, p.Ends); err != nil {
			return errors.New("ends is a day, as in 2036-11-22")
		}
	}
	if p.Issuer != "" {
		if p.issuer, err = p.readCertificate(p.Issuer); err != nil {
			return err
		}
	}
	if p.Request != "" {
		text, err := readSmall(p.path(p.Request))
		if err != nil {
			return err
		}
		if p.request, err = checkRequest(text); err != nil {
			return fmt.Errorf("request: %w", err)
		}
	}
	return nil
}

// checkRequest returns the DER of a PKCS #10 request that proves possession of its key and asks for nothing else.
func checkRequest(text []byte) ([]byte, error) {
	der := decode(text, "CERTIFICATE REQUEST")
	r, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, errors.New("it cannot be read as PKCS #10")
	}
	switch {
	case r.CheckSignature() != nil:
		return nil, errors.New("it does not prove possession of its key")
	case len(r.Extensions) > 0:
		return nil, errors.New("it asks for extensions: a responder's certificate has those of the policy")
	}
	return der, nil
}

func (p *Plan) path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(p.dir, name)
}

func (p *Plan) readCertificate(name string) (*x509.Certificate, error) {
	if name == "" {
		return nil, errors.New("the file of a certificate is missing")
	}
	text, err := readSmall(p.path(name))
	if err != nil {
		return nil, err
	}
	c, err := x509.ParseCertificate(decode(text, "CERTIFICATE"))
	if err != nil {
		return nil, fmt.Errorf("%s is not a certificate", name)
	}
	return c, nil
}

// decode returns DER from PEM of a type, or what came.
func decode(text []byte, kind string) []byte {
	if b, _ := pem.Decode(text); b != nil && b.Type == kind {
		return b.Bytes
	}
	return text
}

func readSmall(path string) ([]byte, error) { return readFile(path, maxPlan) }

// line reports whether a text can stand in one line of a transcript.
func line(s string) bool {
	return s != "" && len([]rune(s)) <= maxLine && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}
