package path_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"testing"
	"time"

	xocsp "golang.org/x/crypto/ocsp"

	"github.com/openjpki/jpki/verifier/path"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// An entity is a certificate with its key.
type entity struct {
	*path.Certificate
	x   *x509.Certificate
	key crypto.Signer
}

var serials int64

func newKey() crypto.Signer { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) }

// template returns an authority's or a subscriber's certificate, valid for a year around noon.
func template(cn string, ca bool) *x509.Certificate {
	serials++
	t := &x509.Certificate{
		SerialNumber: big.NewInt(serials), Subject: pkix.Name{Organization: []string{"PATH-TEST"}, CommonName: cn},
		NotBefore: noon.AddDate(0, -6, 0), NotAfter: noon.AddDate(0, 6, 0), BasicConstraintsValid: true, IsCA: ca, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	if ca {
		t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	}
	return t
}

// issue makes a certificate; a nil by is self-signed, a nil key is a new one.
func issue(tb testing.TB, t *x509.Certificate, by *entity, key crypto.Signer) *entity {
	tb.Helper()
	if key == nil {
		key = newKey()
	}
	parent, signer := t, key
	if by != nil {
		parent, signer = by.x, by.key
	}
	raw, err := x509.CreateCertificate(rand.Reader, t, parent, key.Public(), signer)
	if err != nil {
		tb.Fatal(err)
	}
	c, err := path.ParseCertificate(raw)
	if err != nil {
		tb.Fatal(err)
	}
	return &entity{c, must(x509.ParseCertificate(raw)), key}
}

func newCA(tb testing.TB, cn string, by *entity) *entity {
	return issue(tb, template(cn, true), by, nil)
}

func newLeaf(tb testing.TB, cn string, by *entity) *entity {
	return issue(tb, template(cn, false), by, nil)
}

// A list describes a CRL to be made.
type list struct {
	number    int64
	base      int64 // a delta if not 0
	at        time.Time
	next      time.Time
	revoked   []x509.RevocationListEntry
	extension []pkix.Extension
}

func (by *entity) list(tb testing.TB, l list) *path.CRL {
	tb.Helper()
	if l.at.IsZero() {
		l.at = noon.Add(-time.Hour)
	}
	if l.next.IsZero() {
		l.next = noon.Add(time.Hour)
	}
	if l.base != 0 {
		l.extension = append(l.extension, pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 27}, Critical: true, Value: must(asn1.Marshal(l.base))})
	}
	raw, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(l.number), ThisUpdate: l.at, NextUpdate: l.next, RevokedCertificateEntries: l.revoked, ExtraExtensions: l.extension,
	}, by.x, by.key)
	if err != nil {
		tb.Fatal(err)
	}
	return must(path.ParseCRL(raw))
}

func entry(c *entity, at time.Time, reason int) x509.RevocationListEntry {
	return x509.RevocationListEntry{SerialNumber: c.x.SerialNumber, RevocationTime: at, ReasonCode: reason}
}

// answer makes an OCSP response about c by responder, whose certificate is embedded unless it is the issuer.
func answer(tb testing.TB, c, issuer, responder *entity, t xocsp.Response) *path.OCSP {
	tb.Helper()
	t.SerialNumber = c.x.SerialNumber
	if t.ThisUpdate.IsZero() {
		t.ThisUpdate = noon.Add(-time.Minute)
	}
	if t.NextUpdate.IsZero() {
		t.NextUpdate = noon.Add(time.Hour)
	}
	if responder.x != issuer.x {
		t.Certificate = responder.x
	}
	raw, err := xocsp.CreateResponse(issuer.x, responder.x, t, responder.key)
	if err != nil {
		tb.Fatal(err)
	}
	return must(path.ParseOCSP(raw))
}

// certificates returns the certificates of entities.
func certificates(all ...*entity) (out []*path.Certificate) {
	for _, e := range all {
		out = append(out, e.Certificate)
	}
	return out
}

// validate asks a new Validator with one anchor.
func validate(tb testing.TB, anchor *entity, req path.Request) *path.Result {
	tb.Helper()
	if req.At.IsZero() {
		req.At = noon
	}
	v := must(path.New(path.Config{Anchors: certificates(anchor)}))
	return must(v.Validate(tb.Context(), req))
}

func extension(oid string, critical bool, value []byte) pkix.Extension {
	var id asn1.ObjectIdentifier
	if _, err := asn1.Unmarshal(append([]byte{6, byte(len(must(path.ParseOID(oid))))}, must(path.ParseOID(oid))...), &id); err != nil {
		panic(err)
	}
	return pkix.Extension{Id: id, Critical: critical, Value: value}
}
