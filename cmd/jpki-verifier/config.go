package main

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/client"
	"github.com/openjpki/jpki/cmd/internal/boot"
	"github.com/openjpki/jpki/cmd/internal/sources"
	"github.com/openjpki/jpki/cmd/internal/trace"
	"github.com/openjpki/jpki/hsm"
	"github.com/openjpki/jpki/verifier"
)

// A config is what the file says; example.yaml explains each field.
type config struct {
	Listen    string        `yaml:"listen"`
	Admin     string        `yaml:"admin"`
	Server    *identity     `yaml:"server"`
	Plain     bool          `yaml:"plain"`
	Database  string        `yaml:"database"`
	MasterKey string        `yaml:"master_key"`
	Anchors   []anchor      `yaml:"anchors"`
	Policies  string        `yaml:"policies"`
	Documents *documents    `yaml:"documents"`
	Sources   []source      `yaml:"sources"`
	Refresh   duration      `yaml:"refresh"`
	Limits    limits        `yaml:"limits"`
	Sweep     duration      `yaml:"sweep"`
	Authority *authority    `yaml:"authority"`
	Traces    *trace.Config `yaml:"traces"`

	dir    boot.Dir
	tracer *trace.Tracer // of a server
}

type identity struct {
	Certificate string `yaml:"certificate"`
	Key         string `yaml:"key"` // URI
}

type duration = time.Duration

type anchor struct {
	Issuer      string `yaml:"issuer"`
	Certificate string `yaml:"certificate"`
	SHA256      string `yaml:"sha256"`
}

type documents struct {
	Policy       string `yaml:"policy"`
	TimeStamps   string `yaml:"time_stamps"`
	Certificates string `yaml:"certificates"`
}

// A source is one of the three.
type source struct {
	Snapshots *folder `yaml:"snapshots"`
	CRLs      *folder `yaml:"crls"`
	OCSP      *online `yaml:"ocsp"`
}

type folder struct {
	Folder string `yaml:"folder"`
	URL    string `yaml:"url"`
}

type online struct {
	URL         string   `yaml:"url"`
	Allowed     []string `yaml:"allowed"`
	Timeout     duration `yaml:"timeout"`
	RememberFor duration `yaml:"remember_good_for"`
	BadFor      duration `yaml:"remember_bad_for"`
	Entries     int      `yaml:"remember_entries"`
}

type limits struct {
	Deadline     duration `yaml:"deadline"`
	Rate         int      `yaml:"rate"`
	Document     int64    `yaml:"document"` // MiB
	Documents    int      `yaml:"documents"`
	Challenges   int      `yaml:"challenges"`
	ChallengeFor duration `yaml:"challenge_for"`
}

// An authority is whose relying-party API is asked, over mutual TLS, and what tenants get of that.
type authority struct {
	URL            string   `yaml:"url"`
	Certificate    string   `yaml:"certificate"`
	Key            string   `yaml:"key"`      // URI
	CA             string   `yaml:"ca"`       // of the authority's server
	Self           string   `yaml:"self"`     // URL
	Events         string   `yaml:"events"`   // URI of a key
	Receipts       string   `yaml:"receipts"` // likewise
	FormerReceipts []string `yaml:"former_receipts"`
	Private        bool     `yaml:"private_receivers"`
	Workers        int      `yaml:"workers"`
}

// readConfig reads a file strictly: an unknown field is an error.
func readConfig(path string) (*config, error) {
	c := &config{Listen: "127.0.0.1:8090", Admin: "127.0.0.1:8091", Refresh: time.Minute, Sweep: time.Hour}
	var err error
	if c.dir, err = boot.ReadConfig(path, c); err != nil {
		return nil, err
	}
	if err := c.validate(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// validate reports every mistake that can be seen without opening anything.
func (c *config) validate() error {
	var wrong []error
	bad := func(yes bool, format string, args ...any) {
		if yes {
			wrong = append(wrong, fmt.Errorf(format, args...))
		}
	}
	for _, f := range []struct{ name, value string }{
		{"database", c.Database},
		{"master_key", c.MasterKey},
		{"policies", c.Policies},
	} {
		bad(f.value == "", "%s is required", f.name)
	}
	if err := c.Traces.Validate(); err != nil {
		wrong = append(wrong, err)
	}
	bad(len(c.Anchors) == 0, "anchors: at least one is required")
	for i, a := range c.Anchors {
		_, err := jpki.ParseIssuerID(a.Issuer)
		bad(err != nil || a.Certificate == "" || a.SHA256 == "", "anchors[%d]: issuer (as sign-1), certificate and sha256 are required", i)
		bad(slices.ContainsFunc(c.Anchors[:i], func(b anchor) bool { return a.Issuer == b.Issuer }), "anchors[%d]: a second %s", i, a.Issuer)
	}
	switch {
	case c.Plain == (c.Server != nil):
		bad(true, "either server has a certificate and a key, or plain: true says that a proxy on this machine has them")
	case c.Plain:
		bad(!loopback(c.Listen), "plain: true is for a loopback address, and listen is %s: tokens would cross the network in the clear", c.Listen)
	default:
		bad(c.Server.Certificate == "" || c.Server.Key == "", "server: certificate and key are required")
	}
	bad(len(c.Sources) == 0, "sources: at least one is required: what is not checked is never good")
	for i, s := range c.Sources {
		for _, f := range []*folder{s.Snapshots, s.CRLs} {
			bad(f != nil && f.Folder == "", "sources[%d]: folder is required", i)
			bad(f != nil && f.URL != "" && !httpURL(f.URL), "sources[%d]: url is no http URL without a final slash", i)
		}
		bad(count(s.Snapshots != nil, s.CRLs != nil, s.OCSP != nil) != 1, "sources[%d] is snapshots, crls or ocsp", i)
		if o := s.OCSP; o != nil {
			bad((o.URL == "") == (len(o.Allowed) == 0), "sources[%d]: either url or allowed is required", i)
			bad(o.RememberFor == 0 && (o.BadFor != 0 || o.Entries != 0), "sources[%d]: remember_good_for is required to remember", i)
		}
	}
	bad(c.Documents != nil && c.Documents.Policy == "", "documents: policy is required")
	bad(c.Refresh < time.Second || c.Sweep < time.Second, "refresh and sweep are at least 1s")
	bad(c.Limits.Document < 0 || c.Limits.Document<<20 > verifier.MaxDocumentBytes, "limits.document is not between 0 and %d", verifier.MaxDocumentBytes>>20)
	if a := c.Authority; a != nil {
		bad(!strings.HasPrefix(a.URL, "https://") || !httpURL(a.URL), "authority.url is no https URL without a final slash")
		bad(a.CA == "" || a.Certificate == "" || a.Key == "", "authority: ca, certificate and key are required")
		given := count(a.Self != "", a.Events != "", a.Receipts != "")
		bad(given != 0 && given != 3, "authority: self, events and receipts go together")
		bad(given == 0 && (len(a.FormerReceipts) > 0 || a.Private || a.Workers != 0), "authority: self, events and receipts are required to follow users and to take consents")
		bad(given == 3 && (!httpURL(a.Self) || !strings.HasPrefix(a.Self, "https://") && !loopback(host(a.Self))), "authority.self is no https URL without a final slash")
		bad(given == 3 && c.Documents == nil, "authority: documents are required, too: consents are signed documents")
		bad(a.Workers < 0, "authority.workers is negative")
	}
	return errors.Join(wrong...)
}

func count(all ...bool) (n int) {
	for _, yes := range all {
		if yes {
			n++
		}
	}
	return n
}

func httpURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && u.Host != "" && (u.Scheme == "http" || u.Scheme == "https") && u.User == nil && u.RawQuery == "" && u.Fragment == "" && !strings.HasSuffix(u.Path, "/")
}

// host returns host and port of a URL.
func host(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return ""
	}
	return u.Host
}

// loopback reports whether nobody on another machine can connect to an address. A name is not looked up.
func loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	ip, err2 := netip.ParseAddr(host)
	return err == nil && (err2 == nil && ip.IsLoopback() || host == "localhost")
}

// key opens a key; the path of a file is relative to the configuration's.
func (c *config) key(ctx context.Context, uri string) (crypto.Signer, error) {
	return hsm.Open(ctx, c.dir.KeyURI(uri))
}

// tls is nil for plain HTTP.
func (c *config) tls(ctx context.Context) (*tls.Config, error) {
	if c.Plain {
		return nil, nil
	}
	key, err := c.key(ctx, c.Server.Key)
	if err != nil {
		return nil, fmt.Errorf("server.key: %w", err)
	}
	return c.dir.ServerTLS(c.Server.Certificate, key)
}

// masterKey reads the key under which tenants' keys are sealed, from a file that only its owner may read.
func (c *config) masterKey() ([]byte, error) {
	text, err := c.dir.Secret(c.MasterKey)
	if err != nil {
		return nil, fmt.Errorf("master_key: %w", err)
	}
	key, err := hex.DecodeString(text)
	if err != nil || len(key) != 32 {
		return nil, fmt.Errorf("master_key: %s does not hold 64 hexadecimal digits", c.MasterKey)
	}
	return key, nil
}

// anchors opens the trust anchors, each of which must be the one whose fingerprint the file says.
func (c *config) anchors() (out []sources.Issuer, err error) {
	for i, a := range c.Anchors {
		fail := func(err error) ([]sources.Issuer, error) {
			return nil, fmt.Errorf("anchors[%d] (%s): %w", i, a.Issuer, err)
		}
		id, err := jpki.ParseIssuerID(a.Issuer)
		if err != nil {
			return fail(err)
		}
		cert, err := c.dir.Certificate(a.Certificate)
		if err != nil {
			return fail(err)
		}
		sum := sha256.Sum256(cert.Raw)
		if want := strings.ToLower(strings.ReplaceAll(a.SHA256, ":", "")); hex.EncodeToString(sum[:]) != want {
			return fail(fmt.Errorf("the SHA-256 of %s is %x and should be %s", a.Certificate, sum, want))
		}
		out = append(out, sources.Issuer{ID: id, Certificate: cert})
	}
	return out, nil
}

func certificatesOf(issuers []sources.Issuer) (out []*x509.Certificate) {
	for _, i := range issuers {
		out = append(out, i.Certificate)
	}
	return out
}

// policies reads what is demanded of certificates. A policy that names no issuers has those of the authority for its purpose.
func (c *config) policies(issuers []sources.Issuer) ([]verifier.Policy, error) {
	out := verifier.SandboxPolicies()
	if c.Policies != "sandbox" {
		text, err := c.dir.Read(c.Policies)
		if err != nil {
			return nil, fmt.Errorf("policies: %w", err)
		}
		if out, err = verifier.ParsePolicies(text); err != nil {
			return nil, fmt.Errorf("policies: %w", err)
		}
	}
	for i, p := range out {
		if len(p.IssuerKeyIDs) > 0 {
			continue
		}
		var own []*x509.Certificate
		for _, issuer := range issuers {
			if (issuer.ID.CA == jpki.SignCA) == (p.Purpose == verifier.ForSignature) {
				own = append(own, issuer.Certificate)
			}
		}
		if len(own) == 0 {
			return nil, fmt.Errorf("policies: none of the anchors is for %s, of which policy %s is", p.Purpose, p.Name)
		}
		out[i] = p.WithIssuers(own...)
	}
	return out, nil
}

// relyingParty is the client of the authority's API; nil where there is none. This server's certificate is read again for each
// connection: whoever renews it writes over the files, the key first.
func (c *config) relyingParty(ctx context.Context) (*client.Client, error) {
	a := c.Authority
	if a == nil {
		return nil, nil
	}
	roots, err := c.dir.Pool(a.CA)
	if err != nil {
		return nil, fmt.Errorf("authority.ca: %w", err)
	}
	identify := func(ctx context.Context) (*tls.Certificate, error) {
		key, err := c.key(ctx, a.Key)
		if err != nil {
			return nil, fmt.Errorf("authority.key: %w", err)
		}
		return c.dir.Identity(a.Certificate, key)
	}
	if _, err := identify(ctx); err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	return client.New(a.URL, &tls.Config{
		MinVersion: tls.VersionTLS12, RootCAs: roots,
		GetClientCertificate: func(r *tls.CertificateRequestInfo) (*tls.Certificate, error) { return identify(r.Context()) },
	}).Through(func(base http.RoundTripper) http.RoundTripper { return c.tracer.Transport("authority", base) }), nil
}
