package ceremony_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/ceremony"
)

var now = time.Date(2031, 5, 6, 7, 8, 9, 0, time.UTC)

func clock() time.Time { return now }

func p256(t *testing.T) crypto.Signer {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func serial(t *testing.T) jpki.Serial {
	t.Helper()
	s, err := jpki.NewSerial(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestResponderUnderEachKindOfAuthorityKey(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []crypto.Signer{rsaKey, p384} {
		root, err := ca.SelfSigned(ca.Sandbox(), jpki.SignCA, key, serial(t), now)
		if err != nil {
			t.Fatal(err)
		}
		s, err := ceremony.NewSigner(root, key, clock)
		if err != nil {
			t.Fatal(err)
		}
		c, err := s.Responder(p256(t), jpki.IssuerID{CA: jpki.SignCA, Generation: 1})
		if err != nil {
			t.Fatal(err)
		}
		nocheck := false
		for _, e := range c.Extensions {
			nocheck = nocheck || e.Id.String() == "1.3.6.1.5.5.7.48.1.5"
		}
		switch {
		case c.CheckSignatureFrom(root) != nil:
			t.Error("not signed by the authority's key")
		case !nocheck || c.IsCA || len(c.ExtKeyUsage) != 1 || c.ExtKeyUsage[0] != x509.ExtKeyUsageOCSPSigning || c.KeyUsage != x509.KeyUsageDigitalSignature:
			t.Errorf("nocheck %v, CA %v, usages %v %v", nocheck, c.IsCA, c.ExtKeyUsage, c.KeyUsage)
		case c.NotBefore.After(now) || c.NotAfter.Sub(now) > 30*24*time.Hour || c.NotAfter.Before(now):
			t.Errorf("valid from %v to %v", c.NotBefore, c.NotAfter)
		case c.SignatureAlgorithm == x509.SHA1WithRSA:
			t.Error("signed with SHA-1")
		}
	}
}

func TestServersAndStationsCannotStandInForEachOther(t *testing.T) {
	key := p256(t)
	root, err := ceremony.NewInfrastructure(key, serial(t), now)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ceremony.NewSigner(root, key, clock)
	if err != nil {
		t.Fatal(err)
	}
	server, err := s.Server(p256(t), "authority", "127.0.0.1", "localhost")
	if err != nil {
		t.Fatal(err)
	}
	station, err := s.Station(p256(t), "aoba-1")
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(root)
	check := func(c *x509.Certificate, usage x509.ExtKeyUsage) error {
		_, err := c.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage}})
		return err
	}
	if check(server, x509.ExtKeyUsageServerAuth) != nil || check(station, x509.ExtKeyUsageClientAuth) != nil {
		t.Error("a certificate does not serve its own purpose")
	}
	if check(server, x509.ExtKeyUsageClientAuth) == nil || check(station, x509.ExtKeyUsageServerAuth) == nil {
		t.Error("a certificate serves the other's purpose")
	}
	if err := server.VerifyHostname("127.0.0.1"); err != nil {
		t.Error(err)
	}
	if station.Subject.CommonName != "aoba-1" {
		t.Error(station.Subject)
	}
}

// Whoever runs an authority under a name of its own has that name in every certificate under it.
func TestOrganisationIsTheAuthoritys(t *testing.T) {
	key := p256(t)
	root, err := ceremony.NewInfrastructureOf("架空市", key, serial(t), now)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ceremony.NewSigner(root, key, clock)
	if err != nil {
		t.Fatal(err)
	}
	for name, make := range map[string]func() (*x509.Certificate, error){
		"server":    func() (*x509.Certificate, error) { return s.Server(p256(t), "authority", "localhost") },
		"station":   func() (*x509.Certificate, error) { return s.Station(p256(t), "aoba-1") },
		"certified": func() (*x509.Certificate, error) { return s.CertifyStation(p256(t).Public(), "aoba-1", serial(t)) },
		"responder": func() (*x509.Certificate, error) {
			return s.Responder(p256(t), jpki.IssuerID{CA: jpki.SignCA, Generation: 1})
		},
	} {
		c, err := make()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := c.Subject.Organization; len(got) != 1 || got[0] != "架空市" || len(c.Subject.Country) != 1 || c.Subject.Country[0] != "JP" {
			t.Errorf("%s: %s", name, c.Subject)
		}
	}
	if _, err := ceremony.NewInfrastructureOf("", key, serial(t), now); err == nil {
		t.Error("an infrastructure CA of nobody")
	}
}
