package ocspload

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/cmd/internal/sandbox"
	"github.com/openjpki/jpki/cmd/internal/seed"
)

// SandboxTargets returns certificates of a sandbox that runs in dir, with the answers expected, and beside them a share of
// numbers that were never issued. They are, limit at most: the samples, what the CRLs list, what was seeded with
// certificates, and what was seeded as a plan, in even steps through each.
func SandboxTargets(ctx context.Context, dir string, env sandbox.Env, limit int, unknown float64) ([]Target, error) {
	c := &collection{issuers: map[jpki.IssuerID]*x509.Certificate{}, dir: dir, seen: map[jpki.CertID]bool{}, limit: limit}
	for _, add := range []func(context.Context, sandbox.Env) error{c.addListed, c.addSamples, c.addSeeded, c.addPlans} {
		if err := add(ctx, env); err != nil {
			return nil, err
		}
	}
	n := len(c.targets)
	for i := 0; float64(i) < float64(n)*unknown/(1-unknown); i++ {
		serial, err := jpki.NewSerial(rand.Reader)
		if err != nil {
			return nil, err
		}
		c.targets = append(c.targets, Target{Issuer: c.targets[i%n].Issuer, Serial: serial, State: Unknown})
	}
	return c.targets, nil
}

// A collection gathers targets, each once.
type collection struct {
	dir     string
	issuers map[jpki.IssuerID]*x509.Certificate
	seen    map[jpki.CertID]bool
	limit   int
	targets []Target
}

func (c *collection) full() bool { return len(c.targets) >= c.limit }

func (c *collection) add(id jpki.CertID, state State) error {
	if c.seen[id] || c.full() {
		return nil
	}
	issuer := c.issuers[id.Issuer]
	if issuer == nil {
		var err error
		if issuer, err = sandbox.ReadCertificate(sandbox.CertificateFile(c.dir, id.Issuer)); err != nil {
			return err
		}
		c.issuers[id.Issuer] = issuer
	}
	c.seen[id] = true
	c.targets = append(c.targets, Target{Issuer: issuer, Serial: id.Serial, State: state})
	return nil
}

// maxList bounds a CRL, in octets.
const maxList = 1 << 30

// addListed takes what the full lists of the issuing generations say is revoked or on hold.
func (c *collection) addListed(ctx context.Context, env sandbox.Env) error {
	for _, issuer := range jpki.CAs {
		for generation := 1; ; generation++ {
			id := jpki.IssuerID{CA: issuer, Generation: generation}
			list, err := FetchList(ctx, env.CRLURL+"/"+id.String()+"/full.crl")
			if err != nil && generation > 1 {
				break // there is no such generation
			}
			if err != nil {
				return err
			}
			for _, e := range list.RevokedCertificateEntries {
				serial, err := jpki.SerialFromBig(e.SerialNumber)
				if err != nil {
					return err
				}
				state := Revoked
				if e.ReasonCode == int(jpki.CertificateHold) {
					state = Suspended
				}
				if err := c.add(jpki.CertID{Issuer: id, Serial: serial}, state); err != nil {
					return err
				}
				if len(c.targets) >= c.limit/2 {
					break // room for the good
				}
			}
		}
	}
	return nil
}

// FetchList fetches a revocation list. Its signature is not checked: it is a list of numbers to ask about.
func FetchList(ctx context.Context, url string) (*x509.RevocationList, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	der, err := io.ReadAll(io.LimitReader(resp.Body, maxList))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("fetch %s: HTTP status %d", url, resp.StatusCode)
	}
	return x509.ParseRevocationList(der)
}

func (c *collection) addSamples(_ context.Context, env sandbox.Env) error {
	for _, path := range []string{env.SampleSignCert, env.SampleAuthCert} {
		cert, err := sandbox.ReadCertificate(path)
		if err != nil {
			return err
		}
		id, err := env.CertID(cert)
		if err != nil {
			return err
		}
		if err := c.add(id, Any); err != nil { // somebody may suspend them meanwhile
			return err
		}
	}
	return nil
}

func (c *collection) addSeeded(ctx context.Context, env sandbox.Env) error {
	found, err := env.Seeded(ctx)
	if err != nil {
		return err
	}
	for cert, err := range found {
		if err != nil {
			return err
		}
		if err := c.add(cert.ID, State(cert.State)); err != nil {
			return err
		}
		if c.full() {
			break
		}
	}
	return nil
}

func (c *collection) addPlans(context.Context, sandbox.Env) error {
	plans, err := seed.Read(sandbox.SeedPlans(c.dir))
	if err != nil {
		return err
	}
	for i := range plans {
		p := &plans[i]
		room := (c.limit - len(c.targets)) / (len(plans) - i)
		for k := range min(room, p.Count) {
			change := p.At(k * (p.Count / min(room, p.Count)))
			if err := c.add(change.ID, State(change.Status.State)); err != nil {
				return err
			}
		}
	}
	return nil
}
