package crl_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"io"
	"iter"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/crl"
)

// An authority is one generation of a test authority.
type authority struct {
	id   jpki.IssuerID
	cert *x509.Certificate
	key  crypto.Signer
}

func generate(tb testing.TB, alg string) crypto.Signer {
	tb.Helper()
	var key crypto.Signer
	var err error
	switch alg {
	case "rsa":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case "p-256":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "p-384":
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "p-521":
		key, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	}
	if err != nil || key == nil {
		tb.Fatalf("key %s: %v", alg, err)
	}
	return key
}

// selfSigned makes a CA certificate in the manner of the real ones: every generation has the same name.
func selfSigned(tb testing.TB, key crypto.Signer, edit func(*x509.Certificate)) *x509.Certificate {
	tb.Helper()
	pub, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		tb.Fatal(err)
	}
	keyID := sha1.Sum(pub)
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		RawSubject:            name(tb, "JPKI for digital signature", "Open JPKI Sandbox"),
		NotBefore:             time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:              time.Date(2060, 1, 1, 0, 0, 0, 0, time.UTC),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true, IsCA: true, SubjectKeyId: keyID[:],
	}
	if edit != nil {
		edit(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		tb.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	return cert
}

var authorities sync.Map // algorithm → authority: keys are slow to make and the same for all tests

func newAuthority(tb testing.TB, alg string) authority {
	tb.Helper()
	if a, ok := authorities.Load(alg); ok {
		return a.(authority)
	}
	key := generate(tb, alg)
	a := authority{jpki.IssuerID{CA: jpki.SignCA, Generation: 1}, selfSigned(tb, key, nil), key}
	authorities.Store(alg, a)
	return a
}

// name returns the DER of C=JP, O=JPKI-SANDBOX and the given organisational units.
func name(tb testing.TB, units ...string) []byte {
	tb.Helper()
	add := func(oid int, tag int, value string) pkix.RelativeDistinguishedNameSET {
		return pkix.RelativeDistinguishedNameSET{{Type: asn1.ObjectIdentifier{2, 5, 4, oid}, Value: asn1.RawValue{Tag: tag, Bytes: []byte(value)}}}
	}
	rdns := pkix.RDNSequence{add(6, asn1.TagPrintableString, "JP"), add(10, asn1.TagUTF8String, "JPKI-SANDBOX")}
	for _, u := range units {
		rdns = append(rdns, add(11, asn1.TagUTF8String, u))
	}
	der, err := asn1.Marshal(rdns)
	if err != nil {
		tb.Fatal(err)
	}
	return der
}

const host = "http://status.example"

func partition(tb testing.TB, issuer jpki.IssuerID, code string) crl.Scope {
	tb.Helper()
	s := crl.Scope{Issuer: issuer, Partition: code, DirectoryName: name(tb, "JPKI for digital signature", "CRL Distribution Points", code+" CRLDP")}
	s.URL = host + "/crl/" + s.ID().Path()
	return s
}

// distributionPoints encodes what certificates and CRLs say of a scope, by encoding/asn1 alone.
func distributionPoints(tb testing.TB, s crl.Scope) (cdp, idp []byte) {
	tb.Helper()
	type choice struct {
		FullName []asn1.RawValue `asn1:"tag:0"`
	}
	type point struct {
		Name          choice `asn1:"tag:0"`
		OnlyUserCerts bool   `asn1:"optional,tag:1"`
	}
	var c choice
	if s.URL != "" {
		c.FullName = append(c.FullName, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(s.URL)})
	}
	c.FullName = append(c.FullName, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 4, IsCompound: true, Bytes: s.DirectoryName})
	cdp, err := asn1.Marshal([]point{{c, false}})
	if err != nil {
		tb.Fatal(err)
	}
	idp, err = asn1.Marshal(point{c, true})
	if err != nil {
		tb.Fatal(err)
	}
	return cdp, idp
}

func serial(tb testing.TB, s string) jpki.Serial {
	tb.Helper()
	n, err := jpki.ParseSerial(s)
	if err != nil {
		tb.Fatal(err)
	}
	return n
}

var t0 = time.Date(2026, 4, 1, 3, 0, 0, 0, time.UTC)

// numbered makes n entries with 16-octet serials.
func numbered(tb testing.TB, n int) []crl.Entry {
	tb.Helper()
	out := make([]crl.Entry, n)
	for i := range out {
		var b [16]byte
		b[0] = 0x40
		binary.BigEndian.PutUint64(b[4:], uint64(i))
		s, err := jpki.SerialFromBytes(b[:])
		if err != nil {
			tb.Fatal(err)
		}
		out[i] = crl.Entry{Serial: s, At: t0.Add(-time.Duration(i) * time.Minute), Reason: jpki.Reason(i % 7)}
	}
	return out
}

func template(a authority, s crl.Scope) crl.Template {
	return crl.Template{IssuerCert: a.cert, Signer: a.key, Number: big.NewInt(t0.UnixMilli()), ThisUpdate: t0, NextUpdate: t0.Add(48 * time.Hour), Scope: s}
}

func build(tb testing.TB, t crl.Template, entries []crl.Entry) []byte {
	tb.Helper()
	var b bytes.Buffer
	if err := crl.Build(&b, t, slices.Values(entries)); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

// byStdlib makes the same CRL with crypto/x509.
func byStdlib(tb testing.TB, t crl.Template, entries []crl.Entry) []byte {
	tb.Helper()
	list := &x509.RevocationList{Number: t.Number, ThisUpdate: t.ThisUpdate, NextUpdate: t.NextUpdate}
	for _, e := range entries {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: e.Serial.Big(), RevocationTime: e.At.Truncate(time.Second), ReasonCode: int(e.Reason)})
	}
	if t.Scope.Partition != "" {
		_, idp := distributionPoints(tb, t.Scope)
		list.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 28}, Critical: true, Value: idp}}
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, t.IssuerCert, t.Signer)
	if err != nil {
		tb.Fatal(err)
	}
	return der
}

// Our encoder and the standard library's write the same octets; with RSA, whose signatures are deterministic, all of them.
func TestBuildLikeStdlib(t *testing.T) {
	odd := []crl.Entry{
		{serial(t, "01"), t0, jpki.Unspecified},
		{serial(t, "7F"), t0.Add(999 * time.Millisecond), jpki.KeyCompromise},
		{serial(t, "80"), t0.In(jpki.JST), jpki.CACompromise}, // needs a leading zero
		{serial(t, "0100"), time.Date(1950, 1, 1, 0, 0, 0, 0, time.UTC), jpki.AffiliationChanged},
		{serial(t, "FFFFFFFF"), time.Date(2049, 12, 31, 23, 59, 59, 0, time.UTC), jpki.Superseded},
		{serial(t, "7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF"), time.Date(2050, 1, 1, 0, 0, 0, 0, time.UTC), jpki.CertificateHold},
		{serial(t, "FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF"), time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), jpki.CessationOfOperation},
	}
	for _, alg := range []string{"rsa", "p-256", "p-384"} {
		a := newAuthority(t, alg)
		withoutURL := partition(t, a.id, "13221")
		withoutURL.URL = ""
		for _, scope := range []crl.Scope{{Issuer: a.id}, partition(t, a.id, "99101"), withoutURL} {
			late := template(a, scope)
			late.ThisUpdate, late.NextUpdate = time.Date(2049, 12, 31, 12, 0, 0, 0, time.UTC), time.Date(2050, 1, 1, 12, 0, 0, 0, time.UTC)
			late.Number = new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 159), big.NewInt(1))
			for _, c := range []struct {
				name     string
				template crl.Template
				entries  []crl.Entry
			}{
				{"empty", template(a, scope), nil},
				{"one", template(a, scope), odd[:1]},
				{"two octets of length", template(a, scope), numbered(t, 4)},
				{"odd", template(a, scope), odd},
				{"odd and late", late, odd},
				{"three octets of length", template(a, scope), numbered(t, 2000)},
			} {
				t.Run(alg+"/"+scope.ID().String()+"/"+c.name, func(t *testing.T) {
					got, want := build(t, c.template, c.entries), byStdlib(t, c.template, c.entries)
					list, err := x509.ParseRevocationList(got)
					if err != nil {
						t.Fatal(err)
					}
					theirs, err := x509.ParseRevocationList(want)
					if err != nil {
						t.Fatal(err)
					}
					if !bytes.Equal(list.RawTBSRevocationList, theirs.RawTBSRevocationList) {
						t.Errorf("tbsCertList differs from the standard library's\n got %x\nwant %x", list.RawTBSRevocationList, theirs.RawTBSRevocationList)
					}
					if err := list.CheckSignatureFrom(a.cert); err != nil {
						t.Error(err)
					}
					if alg == "rsa" && !bytes.Equal(got, want) {
						t.Error("the CRL differs from the standard library's outside tbsCertList")
					}
					if len(list.Raw) != len(got) {
						t.Error("something follows the CRL")
					}
				})
			}
		}
	}
}

// What goes in comes out, field by field.
func TestBuildParses(t *testing.T) {
	a := newAuthority(t, "p-256")
	scope := partition(t, a.id, "99101")
	_, idp := distributionPoints(t, scope)
	rapid.Check(t, func(r *rapid.T) {
		raw := rapid.SliceOfNDistinct(rapid.SliceOfN(rapid.Byte(), 1, 20), 0, 40, func(b []byte) string { return new(big.Int).SetBytes(b).String() }).Draw(r, "serials")
		var entries []crl.Entry
		for _, b := range raw {
			s, err := jpki.SerialFromBytes(b)
			if err != nil {
				continue // zero
			}
			entries = append(entries, crl.Entry{
				Serial: s,
				At:     time.Unix(rapid.Int64Range(-631152000, 253402300799).Draw(r, "at"), 0).UTC(), // 1950 to 9999
				Reason: jpki.Reason(rapid.IntRange(0, 6).Draw(r, "reason")),
			})
		}
		slices.SortFunc(entries, func(a, b crl.Entry) int { return a.Serial.Big().Cmp(b.Serial.Big()) })
		want := template(a, scope)
		want.Number = big.NewInt(rapid.Int64Range(1, 1<<62).Draw(r, "number"))
		list, err := x509.ParseRevocationList(build(t, want, entries))
		if err != nil {
			r.Fatal(err)
		}
		var got []crl.Entry
		for _, e := range list.RevokedCertificateEntries {
			s, err := jpki.SerialFromBig(e.SerialNumber)
			if err != nil {
				r.Fatal(err)
			}
			got = append(got, crl.Entry{Serial: s, At: e.RevocationTime, Reason: jpki.Reason(e.ReasonCode)})
		}
		if diff := cmp.Diff(entries, got, cmp.Comparer(func(a, b jpki.Serial) bool { return a == b })); diff != "" {
			r.Error(diff)
		}
		if list.Number.Cmp(want.Number) != 0 || !list.ThisUpdate.Equal(want.ThisUpdate) || !list.NextUpdate.Equal(want.NextUpdate) ||
			!bytes.Equal(list.AuthorityKeyId, a.cert.SubjectKeyId) || !bytes.Equal(list.RawIssuer, a.cert.RawSubject) {
			r.Error("number, times, key identifier or issuer differ")
		}
		if n := len(list.Extensions); n != 3 || !bytes.Equal(list.Extensions[2].Value, idp) || !list.Extensions[2].Critical {
			r.Errorf("%d extensions, or the last is not the critical issuingDistributionPoint", n)
		}
		if err := list.CheckSignatureFrom(a.cert); err != nil {
			r.Error(err)
		}
	})
}

// A strange signer is one that a CRL must not be built with.
type strange struct {
	crypto.Signer
	sign func(digest []byte) ([]byte, error)
}

func (s strange) Sign(_ io.Reader, digest []byte, _ crypto.SignerOpts) ([]byte, error) {
	return s.sign(digest)
}

func TestBuildRefuses(t *testing.T) {
	a, ec := newAuthority(t, "rsa"), newAuthority(t, "p-256")
	good := partition(t, a.id, "99101")
	two := numbered(t, 2)
	edit := func(f func(*crl.Template)) crl.Template { out := template(a, good); f(&out); return out }
	for _, c := range []struct {
		name    string
		t       crl.Template
		entries []crl.Entry
		want    string
	}{
		{"good", template(a, good), two, ""},
		{"descending", template(a, good), []crl.Entry{two[1], two[0]}, "ascending"},
		{"duplicate", template(a, good), []crl.Entry{two[0], two[0]}, "ascending"},
		{"descending in length", template(a, good), []crl.Entry{{serial(t, "0100"), t0, 0}, {serial(t, "FF"), t0, 0}}, "ascending"},
		{"no serial", template(a, good), []crl.Entry{{At: t0}}, "no serial"},
		{"removeFromCRL", template(a, good), []crl.Entry{{two[0].Serial, t0, jpki.RemoveFromCRL}}, "reason 8"},
		{"reason 7", template(a, good), []crl.Entry{{two[0].Serial, t0, 7}}, "reason 7"},
		{"reason -1", template(a, good), []crl.Entry{{two[0].Serial, t0, -1}}, "reason -1"},
		{"no time", template(a, good), []crl.Entry{{Serial: two[0].Serial}}, "before 1950"},
		{"number 0", edit(func(t *crl.Template) { t.Number = new(big.Int) }), nil, "number"},
		{"no number", edit(func(t *crl.Template) { t.Number = nil }), nil, "number"},
		{"long number", edit(func(t *crl.Template) { t.Number = new(big.Int).Lsh(big.NewInt(1), 159) }), nil, "number"},
		{"no validity", edit(func(t *crl.Template) { t.NextUpdate = t.ThisUpdate }), nil, "nextUpdate"},
		{"no signer", edit(func(t *crl.Template) { t.Signer = nil }), nil, "missing"},
		{"no certificate", edit(func(t *crl.Template) { t.IssuerCert = nil }), nil, "missing"},
		{"another key", edit(func(t *crl.Template) { t.Signer = ec.key }), nil, "another key"},
		{"P-521", edit(func(tm *crl.Template) {
			tm.Signer = generate(t, "p-521")
			tm.IssuerCert = selfSigned(t, tm.Signer, nil)
		}), nil, "neither"},
		{"no cRLSign", edit(func(tm *crl.Template) {
			tm.IssuerCert = selfSigned(t, a.key, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCertSign })
		}), nil, "does not let it"},
		{"no CA", edit(func(tm *crl.Template) {
			tm.IssuerCert = selfSigned(t, a.key, func(c *x509.Certificate) { c.IsCA, c.SubjectKeyId = false, []byte{1} })
		}), nil, "does not let it"},
		{"no key identifier", edit(func(tm *crl.Template) {
			tm.IssuerCert = selfSigned(t, a.key, nil)
			tm.IssuerCert.SubjectKeyId = nil
		}), nil, "subjectKeyIdentifier"},
		{"scope", edit(func(t *crl.Template) { t.Scope.DirectoryName = nil }), nil, "directory name"},
		{"broken signer", edit(func(t *crl.Template) {
			t.Signer = strange{a.key, func([]byte) ([]byte, error) { return nil, errors.New("token removed") }}
		}), nil, "token removed"},
		{"short signature", edit(func(t *crl.Template) {
			t.Signer = strange{a.key, func([]byte) ([]byte, error) { return make([]byte, 255), nil }}
		}), nil, "another length"},
	} {
		err := crl.Build(io.Discard, c.t, slices.Values(c.entries))
		checkError(t, c.name, err, c.want)
	}

	for _, alg := range []authority{a, ec} {
		walk := 0
		shrinking := iter.Seq[crl.Entry](func(yield func(crl.Entry) bool) {
			walk++
			for _, e := range two[:max(0, 3-walk)] {
				if !yield(e) {
					return
				}
			}
		})
		checkError(t, "a sequence that changes", crl.Build(io.Discard, template(alg, good), shrinking), "not the same each time")
		whole := build(t, template(alg, good), two)
		for _, n := range []int{0, 10, len(whole) / 2, len(whole) - 20} { // in the head, in the list, in the signature
			if err := crl.Build(&full{n}, template(alg, good), slices.Values(two)); !errors.Is(err, errFull) {
				t.Errorf("a disk with room for %d of %d octets: %v", n, len(whole), err)
			}
		}
	}
}

var errFull = errors.New("disk full")

// full is a writer that takes n octets.
type full struct{ n int }

func (f *full) Write(b []byte) (int, error) {
	if len(b) > f.n {
		return f.n, errFull
	}
	f.n -= len(b)
	return len(b), nil
}

func TestScope(t *testing.T) {
	id := jpki.IssuerID{CA: jpki.AuthCA, Generation: 2}
	good := partition(t, id, "99101")
	edit := func(f func(*crl.Scope)) crl.Scope { out := good; f(&out); return out }
	for _, c := range []struct {
		name  string
		scope crl.Scope
		want  string
	}{
		{"partition", good, ""},
		{"without URL", edit(func(s *crl.Scope) { s.URL = "" }), ""},
		{"full", crl.Scope{Issuer: id}, ""},
		{"full with URL", crl.Scope{Issuer: id, URL: host + "/crl/auth-2/full.crl"}, ""},
		{"full with a name", edit(func(s *crl.Scope) { s.Partition, s.URL = "", "" }), "no distribution point"},
		{"no issuer", edit(func(s *crl.Scope) { s.Issuer = jpki.IssuerID{} }), "the issuer is none"},
		{"traversal", edit(func(s *crl.Scope) { s.Partition = "../99" }), "not a municipality code"},
		{"short code", edit(func(s *crl.Scope) { s.Partition = "9910" }), "not a municipality code"},
		{"another's URL", edit(func(s *crl.Scope) { s.URL = host + "/crl/auth-2/99102.crl" }), "URL"},
		{"relative URL", edit(func(s *crl.Scope) { s.URL = "/crl/auth-2/99101.crl" }), "URL"},
		{"LDAP", edit(func(s *crl.Scope) { s.URL = "ldap://x/crl/auth-2/99101.crl" }), "URL"},
		{"not ASCII", edit(func(s *crl.Scope) { s.URL = "http://x/失効/auth-2/99101.crl" }), "URL"},
		{"no name", edit(func(s *crl.Scope) { s.DirectoryName = nil }), "directory name"},
		{"empty name", edit(func(s *crl.Scope) { s.DirectoryName = []byte{0x30, 0} }), "directory name"},
		{"two names", edit(func(s *crl.Scope) { s.DirectoryName = append(bytes.Clone(good.DirectoryName), 0x30, 0) }), "directory name"},
	} {
		checkError(t, c.name, c.scope.Validate(), c.want)
	}

	for _, s := range []crl.Scope{good, edit(func(s *crl.Scope) { s.URL = "" })} {
		want, _ := distributionPoints(t, s)
		got, err := s.CRLDistributionPoints()
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("CRLDistributionPoints: %v\n got %x\nwant %x", err, got, want)
		}
	}
	if _, err := (crl.Scope{Issuer: id}).CRLDistributionPoints(); err == nil {
		t.Error("a full CRL has a distribution point")
	}
}

func TestParsePath(t *testing.T) {
	for _, k := range []crl.ID{
		{Issuer: jpki.IssuerID{CA: jpki.SignCA, Generation: 1}},
		{Issuer: jpki.IssuerID{CA: jpki.AuthCA, Generation: 12}, Partition: "99101"},
		{Issuer: jpki.IssuerID{CA: jpki.SignCA, Generation: 3}, Partition: "132217"},
	} {
		if got, err := crl.ParsePath(k.Path()); err != nil || got != k {
			t.Errorf("ParsePath(%q) = %v, %v", k.Path(), got, err)
		}
	}
	for _, s := range []string{
		"", "/", "full.crl", "sign-1", "sign-1/", "sign-1/.crl", "sign-1/full", "sign-1/full.crl/", "sign-1//full.crl", "/sign-1/full.crl",
		"sign-01/full.crl", "sign-0/full.crl", "root-1/full.crl", "sign-1/../full.crl", "sign-1/9910.crl", "sign-1/9910１.crl", "sign-1/99101.CRL",
		"sign-1/99101.crl.crl", "sign-1/.99101.crl.new", "sign-1/99101.crl\x00", "SIGN-1/full.crl", "sign-1/Full.crl", "sign-1\\full.crl",
	} {
		if k, err := crl.ParsePath(s); err == nil {
			t.Errorf("ParsePath(%q) = %v, want an error", s, k)
		}
	}
}

func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("JPKI_TEST_REQUIRE") == "1" {
			t.Fatalf("%s is required: %v", name, err)
		}
		t.Skipf("%s is not installed", name)
	}
	return path
}

func write(t *testing.T, dir, file, pemType string, der []byte) string {
	t.Helper()
	path := filepath.Join(dir, file)
	if pemType != "" {
		der = pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der})
	}
	if err := os.WriteFile(path, der, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// subscriber makes a certificate that points to a partition.
func subscriber(t *testing.T, a authority, s crl.Scope, number jpki.Serial) []byte {
	t.Helper()
	cdp, _ := distributionPoints(t, s)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: number.Big(), Subject: pkix.Name{CommonName: "subscriber"}, KeyUsage: x509.KeyUsageDigitalSignature,
		NotBefore: t0.Add(-24 * time.Hour), NotAfter: t0.Add(24 * time.Hour), AuthorityKeyId: a.cert.SubjectKeyId,
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 31}, Value: cdp}},
	}, a.cert, generate(t, "p-256").Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// OpenSSL finds the partition's CRL through the certificate's distribution point and believes it.
func TestOpenSSLVerify(t *testing.T) {
	openssl := tool(t, "openssl")
	for _, alg := range []string{"rsa", "p-256", "p-384"} {
		t.Run(alg, func(t *testing.T) {
			a, dir := newAuthority(t, alg), t.TempDir()
			here, elsewhere := partition(t, a.id, "99101"), partition(t, a.id, "99102")
			entries := numbered(t, 3)
			for i := range entries { // held, moved, renewed
				entries[i].Reason = []jpki.Reason{jpki.CertificateHold, jpki.AffiliationChanged, jpki.Superseded}[i]
			}
			ca := write(t, dir, "ca.pem", "CERTIFICATE", a.cert.Raw)
			hereCRL := write(t, dir, "here.pem", "X509 CRL", build(t, template(a, here), entries))
			elsewhereCRL := write(t, dir, "elsewhere.pem", "X509 CRL", build(t, template(a, elsewhere), nil))
			fullCRL := write(t, dir, "full.pem", "X509 CRL", build(t, template(a, crl.Scope{Issuer: a.id}), entries))
			good := write(t, dir, "good.pem", "CERTIFICATE", subscriber(t, a, here, serial(t, "4242")))
			revoked := write(t, dir, "revoked.pem", "CERTIFICATE", subscriber(t, a, here, entries[1].Serial))
			for _, c := range []struct{ crl, cert, want string }{
				{hereCRL, good, "good.pem: OK"},
				{hereCRL, revoked, "certificate revoked"},
				{fullCRL, good, "good.pem: OK"},
				{fullCRL, revoked, "certificate revoked"},
				{elsewhereCRL, good, "different CRL scope"},
				{elsewhereCRL, revoked, "different CRL scope"},
			} {
				out, _ := exec.Command(openssl, "verify", "-crl_check", "-attime", "1775012400", "-CAfile", ca, "-CRLfile", c.crl, c.cert).CombinedOutput()
				if !strings.Contains(strings.ToLower(string(out)), strings.ToLower(c.want)) {
					t.Errorf("%s against %s: want %q\n%s", filepath.Base(c.cert), filepath.Base(c.crl), c.want, out)
				}
			}
		})
	}
}

// Two other implementations read what we wrote.
func TestOtherReaders(t *testing.T) {
	a, dir := newAuthority(t, "rsa"), t.TempDir()
	entries := []crl.Entry{{serial(t, "1234"), t0.Add(-time.Hour), jpki.AffiliationChanged}, {serial(t, "F234"), t0.Add(-2 * time.Hour), jpki.Unspecified}}
	ca := write(t, dir, "ca.pem", "CERTIFICATE", a.cert.Raw)
	list := write(t, dir, "list.crl", "", build(t, template(a, partition(t, a.id, "99101")), entries))
	for _, c := range []struct {
		tool string
		args []string
		want []string
	}{
		{"openssl", []string{"crl", "-inform", "DER", "-in", list, "-CAfile", ca, "-noout", "-text"}, []string{
			"verify OK", "Version 2 (0x1)", "sha256WithRSAEncryption", "Last Update: Apr  1 03:00:00 2026 GMT", "Next Update: Apr  3 03:00:00 2026 GMT",
			"X509v3 Issuing Distribution Point: critical", "OU = 99101 CRLDP", "URI:http://status.example/crl/sign-1/99101.crl", "Only User Certificates",
			"Serial Number: 1234\n        Revocation Date: Apr  1 02:00:00 2026 GMT\n        CRL entry extensions:\n            X509v3 CRL Reason Code: \n                Affiliation Changed",
			"Serial Number: F234\n        Revocation Date: Apr  1 01:00:00 2026 GMT\n    Signature Algorithm",
		}},
		{"certtool", []string{"--crl-info", "--inder", "--infile", list}, []string{"Version: 2", "Serial Number (hex): 1234", "Serial Number (hex): 00f234", "RSA-SHA256"}},
	} {
		out, err := exec.Command(tool(t, c.tool), c.args...).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", c.tool, err, out)
		}
		for _, want := range c.want {
			if !strings.Contains(string(out), want) {
				t.Errorf("%s does not say %q\n%s", c.tool, want, out)
			}
		}
	}
}

func checkError(t *testing.T, name string, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("%s: %v, want no error", name, err)
	case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
		t.Errorf("%s: %v, want an error with %q", name, err, want)
	}
}

// Time and garbage grow with the number of entries; memory in use does not.
func BenchmarkBuild(b *testing.B) {
	a := newAuthority(b, "rsa")
	t := template(a, partition(b, a.id, "99101"))
	for _, n := range []int{1_000, 200_000} {
		entries := numbered(b, n)
		b.Run(big.NewInt(int64(n)).String(), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := crl.Build(io.Discard, t, slices.Values(entries)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
