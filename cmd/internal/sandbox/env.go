package sandbox

import (
	"bufio"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/client"
	"github.com/openjpki/jpki/verifier"
)

// An Env is what a running sandbox tells scripts and tools: the file DIR/env holds one shell variable a line. It is there
// only while everything answers.
type Env struct {
	OCSPURL             string `env:"OCSP_URL"`
	CRLURL              string `env:"CRL_URL"`
	CAURL               string `env:"CA_URL"`
	EnrolmentURL        string `env:"ENROLMENT_URL"` // what step calls --ca-url
	VerifierURL         string `env:"VERIFIER_URL"`
	VerifierToken       string `env:"VERIFIER_TOKEN"`
	AdminURL            string `env:"ADMIN_URL"`
	TrustSign           string `env:"TRUST_SIGN"` // the generation that issues; all generations lie beside it
	TrustAuth           string `env:"TRUST_AUTH"`
	StationCert         string `env:"STATION_CERT"`
	StationKey          string `env:"STATION_KEY"`
	StationCA           string `env:"STATION_CA"` // trusts the authority's TLS server
	HotlineCert         string `env:"HOTLINE_CERT"`
	HotlineKey          string `env:"HOTLINE_KEY"`
	RegisterCert        string `env:"REGISTER_CERT"`
	RegisterKey         string `env:"REGISTER_KEY"`
	RPCert              string `env:"RP_CERT"` // of the operator of the verifier, who acts for the bank
	RPKey               string `env:"RP_KEY"`
	RPTenant            string `env:"RP_TENANT"`            // the bank's Corporate Number
	ProvisionerKey      string `env:"PROVISIONER_KEY"`      // of who admits stations; encrypted
	ProvisionerPassword string `env:"PROVISIONER_PASSWORD"` // the file with its password
	AttestationRoot     string `env:"ATTESTATION_ROOT"`     // of the maker of the sandbox's phones
	AttestationKey      string `env:"ATTESTATION_KEY"`
	AttestationStatus   string `env:"ATTESTATION_STATUS"` // its list of keys not to be believed any more
	PhoneDirectory      string `env:"PHONE_DIRECTORY"`    // where phones go on by ACME, with attestations in the format step
	CardDir             string `env:"CARD_DIR"`
	CardKeys            string `env:"CARD_KEYS"` // what keys cards have: rsa-2048 or p-384
	Samples             string `env:"SAMPLES"`   // requests for each answer of the verifier, if the sandbox was started with -samples
	SampleHolder        string `env:"SAMPLE_HOLDER"`
	SampleSignCert      string `env:"SAMPLE_SIGN_CERT"`
	SampleAuthCert      string `env:"SAMPLE_AUTH_CERT"`
	SampleSignKey       string `env:"SAMPLE_SIGN_KEY"`
	SampleAuthKey       string `env:"SAMPLE_AUTH_KEY"`
}

func (s *System) newEnv() Env {
	at := func(scheme string, port int) string {
		return scheme + "://127.0.0.1:" + strconv.Itoa(port+s.opt.Offset)
	}
	infra := func(name string) string { return s.dir.path("infrastructure", name) }
	public := at("http", statusPort)
	enrolment := at("https", enrolmentPort)
	return Env{
		OCSPURL: public + "/ocsp", CRLURL: public + "/crl", CAURL: at("https", authorityPort), EnrolmentURL: enrolment, PhoneDirectory: enrolment + "/acme/phone-step/directory", VerifierURL: at("http", verifierPort), AdminURL: at("http", adminPort),
		TrustSign: s.dir.certificate(s.keys.active[0].ID), TrustAuth: s.dir.certificate(s.keys.active[1].ID),
		StationCert: infra(counterActor.ID + ".crt"), StationKey: infra(counterActor.ID + ".key"), StationCA: infra("ca.crt"),
		HotlineCert: infra(hotlineActor.ID + ".crt"), HotlineKey: infra(hotlineActor.ID + ".key"),
		RegisterCert: infra(registerActor.ID + ".crt"), RegisterKey: infra(registerActor.ID + ".key"), RPCert: infra(verifierActor.ID + ".crt"), RPKey: infra(verifierActor.ID + ".key"), RPTenant: string(bankNumber), ProvisionerKey: infra(helpdesk + ".key"), ProvisionerPassword: infra(helpdesk + ".password"),
		AttestationRoot: infra("attestation.crt"), AttestationKey: infra("attestation.key"), AttestationStatus: infra("attestation-status.json"), CardDir: s.dir.path("cards"), CardKeys: string(s.profile.cards),
		Samples: s.dir.path("samples"), SampleHolder: sampleHolder, SampleSignCert: s.dir.path("sample", "sign.crt"), SampleAuthCert: s.dir.path("sample", "auth.crt"),
		SampleSignKey: s.dir.path("sample", "sign.key"), SampleAuthKey: s.dir.path("sample", "auth.key"),
	}
}

// StatusURL is where the status zone is served.
func (e Env) StatusURL() string { return strings.TrimSuffix(e.OCSPURL, "/ocsp") }

// write puts the variables into a file that a POSIX shell can source.
func (e Env) write(path string) error {
	var b strings.Builder
	v := reflect.ValueOf(e)
	for i := range v.NumField() {
		fmt.Fprintf(&b, "%s='%s'\n", v.Type().Field(i).Tag.Get("env"), strings.ReplaceAll(v.Field(i).String(), "'", `'\''`))
	}
	return writeFile(path, []byte(b.String()), 0o600)
}

// Load reads the environment of the sandbox that runs in dir.
func Load(dir string) (Env, error) {
	var e Env
	f, err := os.Open(filepath.Join(dir, "env"))
	if errors.Is(err, fs.ErrNotExist) {
		return e, fmt.Errorf("no sandbox runs in %s: start one with `jpki sandbox -dir %s`", dir, dir)
	}
	if err != nil {
		return e, err
	}
	defer func() { _ = f.Close() }()
	values := map[string]string{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if name, value, ok := strings.Cut(lines.Text(), "="); ok {
			value = strings.TrimSuffix(strings.TrimPrefix(value, "'"), "'")
			values[name] = strings.ReplaceAll(value, `'\''`, "'")
		}
	}
	v := reflect.ValueOf(&e).Elem()
	for i := range v.NumField() {
		v.Field(i).SetString(values[v.Type().Field(i).Tag.Get("env")])
	}
	return e, nil
}

// Station returns the authority's client for the sandbox's counter.
func (e Env) Station() (*client.Client, error) { return e.client(e.StationCert, e.StationKey) }

// Hotline returns the authority's client for the call centre.
func (e Env) Hotline() (*client.Client, error) { return e.client(e.HotlineCert, e.HotlineKey) }

// RelyingParty returns the authority's client for the operator of the verifier.
func (e Env) RelyingParty() (*client.Client, error) { return e.client(e.RPCert, e.RPKey) }

// Register returns the authority's client for the resident register.
func (e Env) Register() (*client.Client, error) { return e.client(e.RegisterCert, e.RegisterKey) }

func (e Env) client(cert, key string) (*client.Client, error) {
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("read client certificate: %w", err)
	}
	root, err := ReadCertificate(e.StationCA)
	if err != nil {
		return nil, err
	}
	return client.New(e.CAURL, &tls.Config{RootCAs: poolOf(root), Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}), nil
}

// ReadCertificate reads a certificate file, PEM or DER.
func ReadCertificate(path string) (*x509.Certificate, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if block, _ := pem.Decode(text); block != nil {
		text = block.Bytes
	}
	c, err := x509.ParseCertificate(text)
	if err != nil {
		return nil, fmt.Errorf("%s is not a certificate: %w", path, err)
	}
	return c, nil
}

// Issuer returns the trust anchor whose key signed a certificate.
func (e Env) Issuer(c *x509.Certificate) (*x509.Certificate, error) {
	anchors, err := e.Anchors()
	if err != nil {
		return nil, err
	}
	for _, root := range anchors {
		if c.CheckSignatureFrom(root) == nil {
			return root, nil
		}
	}
	return nil, jpki.Errorf(jpki.UnknownCertificate, "none of the sandbox's authorities issued it")
}

// CertID returns how the authority calls one of its certificates.
func (e Env) CertID(c *x509.Certificate) (jpki.CertID, error) {
	root, err := e.Issuer(c)
	if err != nil {
		return jpki.CertID{}, err
	}
	serial, err := jpki.SerialFromBig(c.SerialNumber)
	if err != nil {
		return jpki.CertID{}, err
	}
	for _, path := range e.anchorFiles() {
		if other, err := ReadCertificate(path); err == nil && other.Equal(root) {
			issuer, err := jpki.ParseIssuerID(strings.TrimSuffix(filepath.Base(path), ".crt"))
			return jpki.CertID{Issuer: issuer, Serial: serial}, err
		}
	}
	return jpki.CertID{}, jpki.Errorf(jpki.UnknownCertificate, "")
}

// Anchors returns the CA certificates of every generation.
func (e Env) Anchors() ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for _, path := range e.anchorFiles() {
		c, err := ReadCertificate(path)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

func (e Env) anchorFiles() []string {
	files, _ := filepath.Glob(filepath.Join(filepath.Dir(e.TrustSign), "*.crt")) // fails for a bad pattern only
	return files
}

// Verifier returns the verifier library, set up as the sandbox's bank has it.
func (e Env) Verifier() (*verifier.Verifier, error) {
	anchors, err := e.Anchors()
	if err != nil {
		return nil, err
	}
	checker, err := verifier.NewOCSP(verifier.OCSPConfig{URL: e.OCSPURL, Now: time.Now, Rand: rand.Reader})
	if err != nil {
		return nil, err
	}
	return verifier.New(verifier.Config{Anchors: anchors, Policies: policies(anchors), Revocation: checker, Now: time.Now, Rand: rand.Reader})
}
