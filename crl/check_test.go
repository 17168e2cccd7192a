package crl_test

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"slices"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/crl"
)

func TestCheck(t *testing.T) {
	a := newAuthority(t, "p-256")
	next := authority{jpki.IssuerID{CA: jpki.SignCA, Generation: 2}, nil, generate(t, "p-256")}
	next.cert = selfSigned(t, next.key, nil) // the next generation: the same name, another key
	rsa := newAuthority(t, "rsa")
	scope, full := partition(t, a.id, "99101"), crl.Scope{Issuer: a.id}
	now := t0.Add(time.Minute)
	three := numbered(t, 3)
	_, idp := distributionPoints(t, scope)
	_, otherIDP := distributionPoints(t, partition(t, a.id, "99102"))

	ours := func(edit func(*crl.Template), entries ...crl.Entry) []byte {
		tm := template(a, scope)
		if edit != nil {
			edit(&tm)
		}
		return build(t, tm, entries)
	}
	// foreign makes a CRL that Build would not make.
	foreign := func(edit func(*x509.RevocationList)) []byte {
		list := &x509.RevocationList{Number: big.NewInt(t0.UnixMilli()), ThisUpdate: t0, NextUpdate: t0.Add(time.Hour)}
		list.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 28}, Critical: true, Value: idp}}
		edit(list)
		der, err := x509.CreateRevocationList(rand.Reader, list, a.cert, a.key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	entry := func(e crl.Entry) x509.RevocationListEntry {
		return x509.RevocationListEntry{SerialNumber: e.Serial.Big(), RevocationTime: e.At, ReasonCode: int(e.Reason)}
	}
	old := ours(func(t *crl.Template) { t.Number, t.ThisUpdate = big.NewInt(1000), t0.Add(-time.Hour) }, three...)
	good := ours(nil, three...)
	only := func(may ...crl.Entry) func(jpki.Serial) bool {
		return func(s jpki.Serial) bool {
			return slices.ContainsFunc(may, func(e crl.Entry) bool { return e.Serial == s })
		}
	}
	for _, c := range []struct {
		name      string
		old, new  []byte
		issuer    *x509.Certificate
		scope     crl.Scope
		mayVanish func(jpki.Serial) bool
		want      string
	}{
		{"first", nil, good, a.cert, scope, nil, ""},
		{"first, empty", nil, ours(nil), a.cert, scope, nil, ""},
		{"first, full", nil, ours(func(t *crl.Template) { t.Scope = full }, three...), a.cert, full, nil, ""},
		{"by another encoder", nil, foreign(func(l *x509.RevocationList) {}), a.cert, scope, nil, ""},
		{"nothing new", old, good, a.cert, scope, nil, ""},
		{"one more", ours(func(t *crl.Template) { t.Number = big.NewInt(1) }, three[:2]...), good, a.cert, scope, nil, ""},
		{"expired or released", old, ours(nil, three[1]), a.cert, scope, only(three[0], three[2]), ""},

		{"vanished", old, ours(nil, three[1:]...), a.cert, scope, nil, three[0].Serial.String() + " has vanished"},
		{"all vanished", old, ours(nil), a.cert, scope, nil, "has vanished"},
		{"one of two may not vanish", old, ours(nil, three[0]), a.cert, scope, only(three[1]), three[2].Serial.String() + " has vanished"},
		{"same number", good, good, a.cert, scope, nil, "does not come after"},
		{"smaller number", ours(func(t *crl.Template) { t.Number = new(big.Int).Add(t.Number, big.NewInt(1)) }), good, a.cert, scope, nil, "does not come after"},
		{"earlier", ours(func(t *crl.Template) { t.Number, t.ThisUpdate = big.NewInt(1), t0.Add(time.Second) }), good, a.cert, scope, nil, "is before the published"},
		{"old of another scope", ours(func(tm *crl.Template) { tm.Number, tm.Scope = big.NewInt(1), partition(t, a.id, "99102") }), good, a.cert, scope, nil, "published one: the issuingDistributionPoint"},
		{"old damaged", old[:len(old)-1], good, a.cert, scope, nil, "published one: parse"},
		{"old empty", []byte{}, good, a.cert, scope, nil, "published one: parse"},
		{"old of another key", build(t, template(next, partition(t, next.id, "99101")), nil), good, a.cert, scope, nil, "published one: the authorityKeyIdentifier"},

		{"no CRL", nil, nil, a.cert, scope, nil, "parse"},
		{"trailing data", nil, append(bytes.Clone(good), 0), a.cert, scope, nil, "something follows"},
		{"another generation", nil, good, next.cert, scope, nil, "another key"},
		{"another algorithm", nil, good, rsa.cert, scope, nil, "another key"},
		{"another authority", nil, good, selfSigned(t, a.key, func(c *x509.Certificate) { c.RawSubject = name(t, "JPKI for user authentication") }), scope, nil, "name is another"},
		{"another partition", nil, good, a.cert, partition(t, a.id, "99102"), nil, "issuingDistributionPoint is not the scope's"},
		{"partition as full", nil, good, a.cert, full, nil, "3 extensions, want 2"},
		{"full as partition", nil, ours(func(t *crl.Template) { t.Scope = full }), a.cert, scope, nil, "2 extensions, want 3"},
		{"no URL as with URL", nil, ours(func(t *crl.Template) { t.Scope.URL = "" }), a.cert, scope, nil, "issuingDistributionPoint is not the scope's"},
		{"bad scope", nil, good, a.cert, crl.Scope{}, nil, "scope"},
		{"not critical", nil, foreign(func(l *x509.RevocationList) { l.ExtraExtensions[0].Critical = false }), a.cert, scope, nil, "critical: false"},
		{"wrong point", nil, foreign(func(l *x509.RevocationList) { l.ExtraExtensions[0].Value = otherIDP }), a.cert, scope, nil, "issuingDistributionPoint is not the scope's"},
		{"more extensions", nil, foreign(func(l *x509.RevocationList) {
			l.ExtraExtensions = append(l.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 27}, Critical: true, Value: []byte{2, 1, 1}})
		}), a.cert, scope, nil, "4 extensions"},
		{"number 0", nil, foreign(func(l *x509.RevocationList) { l.Number = new(big.Int) }), a.cert, scope, nil, "number"},
		{"not yet", nil, ours(func(t *crl.Template) { t.ThisUpdate = now.Add(time.Second) }), a.cert, scope, nil, "thisUpdate is in the future"},
		{"over", nil, ours(func(t *crl.Template) { t.NextUpdate = now }), a.cert, scope, nil, "nextUpdate is not in the future"},
		{"revoked in the future", nil, ours(nil, crl.Entry{Serial: three[0].Serial, At: now.Add(time.Second), Reason: jpki.Superseded}), a.cert, scope, nil, "not yet revoked"},
		{"twice", nil, foreign(func(l *x509.RevocationList) {
			l.RevokedCertificateEntries = []x509.RevocationListEntry{entry(three[1]), entry(three[1])}
		}), a.cert, scope, nil, "twice or out of order"},
		{"out of order", nil, foreign(func(l *x509.RevocationList) {
			l.RevokedCertificateEntries = []x509.RevocationListEntry{entry(three[1]), entry(three[0])}
		}), a.cert, scope, nil, "twice or out of order"},
		{"removeFromCRL", nil, foreign(func(l *x509.RevocationList) {
			e := entry(three[1])
			e.ReasonCode = 8
			l.RevokedCertificateEntries = []x509.RevocationListEntry{e}
		}), a.cert, scope, nil, "reason 8"},
		{"entry extension", nil, foreign(func(l *x509.RevocationList) {
			e := entry(three[1])
			e.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 24}, Value: []byte("\x18\x0f20260401000000Z")}}
			l.RevokedCertificateEntries = []x509.RevocationListEntry{e}
		}), a.cert, scope, nil, "other extensions than its reason"},
		{"another issuer's certificate in an indirect CRL", nil, foreign(func(l *x509.RevocationList) {
			e := entry(three[0]) // no reason
			e.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 29}, Critical: true, Value: []byte{0x30, 0}}}
			l.RevokedCertificateEntries = []x509.RevocationListEntry{e}
		}), a.cert, scope, nil, "other extensions than its reason"},
		{"zero serial", nil, foreign(func(l *x509.RevocationList) {
			e := entry(three[1])
			e.SerialNumber = new(big.Int)
			l.RevokedCertificateEntries = []x509.RevocationListEntry{e}
		}), a.cert, scope, nil, "serial is not positive"},
	} {
		checkError(t, c.name, crl.Check(c.old, c.new, c.issuer, c.scope, now, c.mayVanish), c.want)
		if err := crl.CheckStream(c.old, c.new, c.issuer, c.scope, now, c.mayVanish); (err == nil) != (c.want == "") {
			t.Errorf("%s: the reader of long lists alone: %v, want %q", c.name, err, c.want)
		}
	}

	// No octet can be changed and none cut off.
	for i := range good {
		for _, mask := range []byte{1, 0x80} {
			tampered := bytes.Clone(good)
			tampered[i] ^= mask
			if crl.Check(old, tampered, a.cert, scope, now, nil) == nil || crl.CheckStream(old, tampered, a.cert, scope, now, nil) == nil {
				t.Errorf("octet %d changed by %#x, and the CRL passes", i, mask)
			}
		}
		if crl.Check(old, good[:i], a.cert, scope, now, nil) == nil || crl.CheckStream(old, good[:i], a.cert, scope, now, nil) == nil {
			t.Errorf("cut after %d octets, and the CRL passes", i)
		}
	}
}

// What the reader of long lists takes, crypto/x509 takes, and both see the same entries.
func FuzzCheckStream(f *testing.F) {
	a := newAuthority(f, "p-256")
	scope := partition(f, a.id, "99101")
	good := build(f, template(a, scope), numbered(f, 3))
	f.Add(good, 0, byte(0))
	f.Add(good, 200, byte(1))
	f.Fuzz(func(t *testing.T, der []byte, at int, mask byte) {
		if len(der) > 0 && at >= 0 {
			der = bytes.Clone(der)
			der[at%len(der)] ^= mask
		}
		if crl.CheckStream(nil, der, a.cert, scope, t0.Add(time.Minute), nil) == nil {
			if err := crl.Check(nil, der, a.cert, scope, t0.Add(time.Minute), nil); err != nil {
				t.Errorf("only the reader of long lists takes it: %v", err)
			}
		}
	})
}
