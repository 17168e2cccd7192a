package watch_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"errors"
	"io"
	"math/big"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/crl/watch"
)

const (
	aoba   = "http://status.example/crl/sign-1/99101.crl"
	minato = "http://status.example/crl/sign-1/99202.crl"
	full   = "http://status.example/crl/sign-1/full.crl"
)

// A place publishes lists and answers by OCSP, and lets a test spoil both.
type place struct {
	t       *testing.T
	key     *ecdsa.PrivateKey
	cert    *x509.Certificate
	now     time.Time
	lists   map[string][]byte
	status  map[string]watch.Status // by serial; others are good
	expired map[string]bool
	issued  *x509.Certificate // in Aoba
}

func newPlace(t *testing.T) *place {
	t.Helper()
	p := &place{t: t, now: time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC), lists: map[string][]byte{}, status: map[string]watch.Status{}, expired: map[string]bool{}}
	p.key, p.cert = p.authority("JPKI-SANDBOX")
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(0x77), Subject: pkix.Name{CommonName: "x"}, NotBefore: p.now, NotAfter: p.now.AddDate(5, 0, 0), CRLDistributionPoints: []string{aoba}, AuthorityKeyId: p.cert.SubjectKeyId,
	}, p.cert, p.key.Public(), p.key)
	if err == nil {
		p.issued, err = x509.ParseCertificate(der)
	}
	if err != nil {
		t.Fatal(err)
	}
	p.publish(1, revoked{0x41: jpki.Superseded, 0x42: jpki.CertificateHold})
	return p
}

func (p *place) authority(name string) (*ecdsa.PrivateKey, *x509.Certificate) {
	p.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		p.t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{Organization: []string{name}}, NotBefore: p.now, NotAfter: p.now.AddDate(10, 0, 0),
		KeyUsage: x509.KeyUsageCRLSign | x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true,
	}, &x509.Certificate{Subject: pkix.Name{Organization: []string{name}}}, key.Public(), key)
	if err != nil {
		p.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		p.t.Fatal(err)
	}
	return key, cert
}

type revoked map[int64]jpki.Reason

// list makes the list of an address, signed by a key.
func (p *place) list(url string, number int64, entries revoked, key *ecdsa.PrivateKey) []byte {
	p.t.Helper()
	return p.listWith(url, number, entries, key)
}

// delta makes a delta of the list of an address, since number 1.
func (p *place) delta(url string, number int64, entries revoked) []byte {
	p.t.Helper()
	return p.listWith(url, number, entries, p.key, pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 27}, Critical: true, Value: must(asn1.Marshal(1))})
}

func (p *place) listWith(url string, number int64, entries revoked, key *ecdsa.PrivateKey, more ...pkix.Extension) []byte {
	p.t.Helper()
	template := &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: p.now, NextUpdate: p.now.Add(48 * time.Hour)}
	for serial, reason := range entries {
		at := p.now.Add(-time.Hour).Truncate(time.Second)
		if s, ok := p.status[hex(serial)]; ok {
			at = s.At
		}
		p.status[hex(serial)] = watch.Status{Revoked: true, Reason: reason, At: at}
		template.RevokedCertificateEntries = append(template.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(serial), RevocationTime: at, ReasonCode: int(reason)})
	}
	if url != full {
		type name struct {
			URL string `asn1:"tag:6,ia5"`
		}
		type point struct {
			Full name `asn1:"tag:0"`
		}
		type idp struct {
			Point point `asn1:"tag:0"`
		}
		der, err := asn1.Marshal(idp{point{name{url}}})
		if err != nil {
			p.t.Fatal(err)
		}
		template.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 28}, Critical: true, Value: der}}
	}
	template.ExtraExtensions = append(template.ExtraExtensions, more...)
	der, err := x509.CreateRevocationList(rand.Reader, template, p.cert, key)
	if err != nil {
		p.t.Fatal(err)
	}
	return der
}

func hex(n int64) string { return must(jpki.SerialFromBig(big.NewInt(n))).String() }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// publish publishes all lists; the entries are Aoba's.
func (p *place) publish(number int64, entries revoked) {
	p.lists[aoba] = p.list(aoba, number, entries, p.key)
	p.lists[minato] = p.list(minato, number, nil, p.key)
	p.lists[full] = p.list(full, number, entries, p.key)
}

func (p *place) config() watch.Config {
	return watch.Config{
		Targets: []watch.Target{{URL: aoba}, {URL: minato}, {URL: full, Full: true}}, Issuers: []*x509.Certificate{p.cert}, Now: func() time.Time { return p.now }, Sample: 100,
		Unlisted: []*x509.Certificate{p.issued},
		Fetch: func(_ context.Context, url string) (io.ReadCloser, error) {
			der, ok := p.lists[url]
			if !ok {
				return nil, errors.New("not there")
			}
			return io.NopCloser(bytes.NewReader(der)), nil
		},
		Ask: func(_ context.Context, _ *x509.Certificate, serial jpki.Serial) (watch.Status, error) {
			return p.status[serial.String()], nil
		},
		Expired: func(_ context.Context, _ *x509.Certificate, serial jpki.Serial) (bool, error) {
			return p.expired[serial.String()], nil
		},
	}
}

// Every fault is found, by the check that is for it, and nothing else is.
func TestFaults(t *testing.T) {
	usual := revoked{0x41: jpki.Superseded, 0x42: jpki.CertificateHold}
	for name, row := range map[string]struct {
		spoil func(p *place, cfg *watch.Config)
		want  []string // URL and check
	}{
		"nothing happened": {func(*place, *watch.Config) {}, nil},
		"a new list": {func(p *place, _ *watch.Config) {
			p.publish(2, revoked{0x41: jpki.Superseded, 0x42: jpki.CertificateHold, 0x43: jpki.Superseded})
		}, nil},
		"expired entry": {func(p *place, _ *watch.Config) {
			p.expired["41"] = true
			p.publish(2, revoked{0x42: jpki.CertificateHold})
		}, nil},
		"released entry": {func(p *place, _ *watch.Config) {
			p.publish(2, revoked{0x41: jpki.Superseded})
			p.status["42"] = watch.Status{}
		}, nil},
		"revoked since": {func(p *place, _ *watch.Config) {
			p.status["77"] = watch.Status{Revoked: true, Reason: jpki.Superseded, At: p.now.Add(time.Minute)}
		}, nil},
		"revoked in the list's second": {func(p *place, _ *watch.Config) {
			p.status["42"] = watch.Status{Revoked: true, Reason: jpki.AffiliationChanged, At: p.now}
		}, nil},
		"entry removed":         {func(p *place, _ *watch.Config) { p.publish(2, revoked{0x42: jpki.CertificateHold}) }, []string{aoba + " vanished", full + " vanished"}},
		"hold removed":          {func(p *place, _ *watch.Config) { p.publish(2, revoked{0x41: jpki.Superseded}) }, []string{aoba + " vanished", full + " vanished"}},
		"list missing":          {func(p *place, _ *watch.Config) { delete(p.lists, minato) }, []string{minato + " fetch"}},
		"another partition's":   {func(p *place, _ *watch.Config) { p.lists[aoba] = p.lists[minato] }, []string{aoba + " scope"}},
		"a partition as full":   {func(p *place, _ *watch.Config) { p.lists[full] = p.lists[minato] }, []string{full + " scope"}},
		"full as a partition":   {func(p *place, _ *watch.Config) { p.lists[aoba] = p.lists[full] }, []string{aoba + " scope"}},
		"not a list":            {func(p *place, _ *watch.Config) { p.lists[aoba] = []byte("404") }, []string{aoba + " form"}},
		"truncated":             {func(p *place, _ *watch.Config) { p.lists[aoba] = p.lists[aoba][:50] }, []string{aoba + " form"}},
		"number went back":      {func(p *place, _ *watch.Config) { p.lists[aoba] = p.list(aoba, 0, usual, p.key) }, []string{aoba + " number"}},
		"target dropped":        {func(_ *place, cfg *watch.Config) { cfg.Targets = cfg.Targets[1:] }, []string{aoba + " gone"}},
		"nextUpdate has passed": {func(p *place, _ *watch.Config) { p.now = p.now.Add(48 * time.Hour) }, []string{aoba + " age", minato + " age", full + " age"}},
		"older than the bound": {func(p *place, cfg *watch.Config) {
			cfg.MaxAge = time.Hour
			p.now = p.now.Add(2 * time.Hour)
		}, []string{aoba + " age", minato + " age", full + " age"}},
		"number twice": {func(p *place, _ *watch.Config) {
			p.now = p.now.Add(time.Hour)
			p.lists[minato] = p.list(minato, 1, nil, p.key)
		}, []string{minato + " number"}},
		"time went back": {func(p *place, _ *watch.Config) {
			now := p.now
			p.now = now.Add(-time.Hour)
			p.lists[minato] = p.list(minato, 2, nil, p.key)
			p.now = now
		}, []string{minato + " number"}},
		"wrong signature": {func(p *place, _ *watch.Config) {
			der := bytes.Clone(p.lists[minato])
			i := bytes.Index(der, []byte("99202"))
			der[i] ^= 1
			p.lists[minato] = der
		}, []string{minato + " signature"}},
		"another authority's": {func(p *place, _ *watch.Config) {
			key, cert := p.authority("SOMEBODY")
			p.cert, cert = cert, p.cert
			p.lists[minato] = p.list(minato, 2, nil, key)
			p.cert = cert
		}, []string{minato + " signature"}},
		"listed and good":    {func(p *place, _ *watch.Config) { p.status["41"] = watch.Status{} }, []string{aoba + " ocsp", full + " ocsp"}},
		"listed and unknown": {func(p *place, _ *watch.Config) { p.status["41"] = watch.Status{Unknown: true} }, []string{aoba + " ocsp", full + " ocsp"}},
		"another reason": {func(p *place, _ *watch.Config) {
			s := p.status["41"]
			s.Reason = jpki.KeyCompromise
			p.status["41"] = s
		}, []string{aoba + " ocsp", full + " ocsp"}},
		"revoked and not listed": {func(p *place, _ *watch.Config) {
			p.status["77"] = watch.Status{Revoked: true, Reason: jpki.Superseded, At: p.now.Add(-time.Hour)}
		}, []string{aoba + " ocsp", full + " ocsp"}},
		"issued and unknown": {func(p *place, _ *watch.Config) { p.status["77"] = watch.Status{Unknown: true} }, []string{aoba + " ocsp", full + " ocsp"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			report, state, err := watch.Look(t.Context(), p.config(), nil)
			if err != nil || len(report.Findings) != 0 {
				t.Fatalf("before: %v, %v", report.Findings, err)
			}
			// What is remembered is remembered in a file.
			var kept watch.State
			if err := json.Unmarshal(must(json.Marshal(state)), &kept); err != nil {
				t.Fatal(err)
			}
			cfg := p.config()
			row.spoil(p, &cfg)
			report, next, err := watch.Look(t.Context(), cfg, kept)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, f := range report.Findings {
				got = append(got, f.URL+" "+string(f.Check))
			}
			slices.Sort(got)
			want := slices.Sorted(slices.Values(row.want))
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("findings (-want +got)\n%s\n%v", diff, report.Findings)
			}
			if len(next) != 3 {
				t.Errorf("%d lists are remembered", len(next))
			}
		})
	}
}

func TestLookRefuses(t *testing.T) {
	p := newPlace(t)
	for name, spoil := range map[string]func(*watch.Config){
		"Targets": func(c *watch.Config) { c.Targets = nil }, "Issuers": func(c *watch.Config) { c.Issuers = nil },
		"Fetch": func(c *watch.Config) { c.Fetch = nil }, "Now": func(c *watch.Config) { c.Now = nil },
	} {
		cfg := p.config()
		spoil(&cfg)
		if _, _, err := watch.Look(t.Context(), cfg, nil); err == nil {
			t.Errorf("looked without %s", name)
		}
	}
}

// A delta is looked at as one: it is of the complete list's partition, changes by removal are releases, and what it names no
// more has gone into the complete list.
func TestDeltas(t *testing.T) {
	const delta = "http://status.example/crl/sign-1/99101-delta.crl"
	for name, row := range map[string]struct {
		spoil func(p *place)
		want  []string
	}{
		"well":       {func(*place) {}, nil},
		"a new base": {func(p *place) { p.lists[delta] = p.delta(aoba, 9, nil) }, nil},
		"complete":   {func(p *place) { p.lists[delta] = p.lists[aoba] }, []string{delta + " scope"}},
		"another's":  {func(p *place) { p.lists[delta] = p.delta(minato, 9, nil) }, []string{delta + " scope"}},
		"not released": {func(p *place) {
			p.status["42"] = watch.Status{Revoked: true, Reason: jpki.CertificateHold, At: p.now.Add(-time.Hour)}
		}, []string{delta + " ocsp"}},
		"held again": {func(p *place) {
			p.status["42"] = watch.Status{Revoked: true, Reason: jpki.CertificateHold, At: p.now.Add(time.Hour)}
		}, nil},
		"never issued":   {func(p *place) { p.status["42"] = watch.Status{Unknown: true} }, []string{delta + " ocsp"}},
		"not revoked":    {func(p *place) { p.status["44"] = watch.Status{} }, []string{delta + " ocsp"}},
		"number is less": {func(p *place) { p.lists[delta] = p.delta(aoba, 3, nil) }, []string{delta + " number"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			cfg := p.config()
			cfg.Targets = []watch.Target{{URL: delta, Delta: true, Point: aoba}}
			p.lists[delta] = p.delta(aoba, 5, revoked{0x42: jpki.RemoveFromCRL, 0x44: jpki.Superseded})
			p.status["42"] = watch.Status{}
			_, state, err := watch.Look(t.Context(), cfg, nil)
			if err != nil {
				t.Fatal(err)
			}
			row.spoil(p)
			report, _, err := watch.Look(t.Context(), cfg, state)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, f := range report.Findings {
				got = append(got, f.URL+" "+string(f.Check))
			}
			if diff := cmp.Diff(row.want, got); diff != "" {
				t.Errorf("%s\n%v", diff, report.Findings)
			}
		})
	}
}
