package crl_test

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"io"
	"maps"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/crl"
)

// likeStdlib compares what our reader and crypto/x509 read in a list.
func likeStdlib(t *testing.T, head *crl.Head, entries []crl.Entry, list *x509.RevocationList) {
	t.Helper()
	if !bytes.Equal(head.Issuer, list.RawIssuer) || !bytes.Equal(head.AuthorityKeyID, list.AuthorityKeyId) || head.Algorithm != list.SignatureAlgorithm {
		t.Errorf("issuer, key or algorithm: %x %x %v, want %x %x %v", head.Issuer, head.AuthorityKeyID, head.Algorithm, list.RawIssuer, list.AuthorityKeyId, list.SignatureAlgorithm)
	}
	if !head.ThisUpdate.Equal(list.ThisUpdate) || !head.NextUpdate.Equal(list.NextUpdate) {
		t.Errorf("times %v %v, want %v %v", head.ThisUpdate, head.NextUpdate, list.ThisUpdate, list.NextUpdate)
	}
	if (head.Number == nil) != (list.Number == nil) || head.Number != nil && head.Number.Cmp(list.Number) != 0 {
		t.Errorf("number %v, want %v", head.Number, list.Number)
	}
	if head.Entries != len(entries) || len(entries) != len(list.RevokedCertificateEntries) {
		t.Fatalf("%d entries, %d visited, want %d", head.Entries, len(entries), len(list.RevokedCertificateEntries))
	}
	for i, want := range list.RevokedCertificateEntries {
		got := entries[i]
		if got.Serial.Big().Cmp(want.SerialNumber) != 0 || !got.At.Equal(want.RevocationTime) || int(got.Reason) != want.ReasonCode {
			t.Errorf("entry %d: %v, want %X %v %d", i, got, want.SerialNumber, want.RevocationTime, want.ReasonCode)
		}
	}
}

// execute runs a program.
func execute(t *testing.T, args []string) ([]byte, error) {
	t.Helper()
	return exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput()
}

func readAll(r io.Reader, issuer *x509.Certificate) (head *crl.Head, entries []crl.Entry, err error) {
	head, err = crl.Read(r, issuer, func(e crl.Entry) error { entries = append(entries, e); return nil })
	return head, entries, err
}

// Our own lists of every algorithm are read as crypto/x509 reads them, in whatever pieces they come.
func TestReadOurs(t *testing.T) {
	for _, alg := range []string{"rsa", "p-256", "p-384"} {
		for _, n := range []int{0, 1, 2, 9_000} { // the last is more than one buffer
			a := newAuthority(t, alg)
			var der []byte
			var want []crl.Entry
			scope := partition(t, a.id, "99101")
			if n == 9_000 {
				der, want = randomList(t, a, n)
			} else {
				want = numbered(t, n)
				der = build(t, template(a, scope), want)
			}
			list, err := x509.ParseRevocationList(der)
			if err != nil {
				t.Fatal(err)
			}
			for name, r := range map[string]io.Reader{"whole": bytes.NewReader(der), "halves": iotest.HalfReader(bytes.NewReader(der)), "octets": iotest.OneByteReader(bytes.NewReader(der)), "with EOF": iotest.DataErrReader(bytes.NewReader(der))} {
				head, got, err := readAll(r, a.cert)
				if err != nil {
					t.Fatalf("%s, %d entries, %s: %v", alg, n, name, err)
				}
				likeStdlib(t, head, got, list)
				if head.Delta() || (n > 0) != head.Ascending || len(head.Points) != 0 && (!head.OnlyUser || head.For(scope.URL) != nil || head.For(scope.URL+"x") == nil) {
					t.Errorf("head %+v", head)
				}
			}
			if n == 9_000 {
				tables(t, a, der, want)
			}
		}
	}
}

// tables checks the look-ups of a list that has the wanted entries.
func tables(t *testing.T, a authority, der []byte, want []crl.Entry) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "list.crl")
	if err := os.WriteFile(path, der, 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := crl.OpenList(path, a.cert)
	if err != nil {
		t.Fatal(err)
	}
	found := map[jpki.Serial]crl.Entry{}
	for e := range l.All() {
		found[e.Serial] = e
	}
	if len(found) != len(want) {
		t.Errorf("%d entries in all, want %d", len(found), len(want))
	}
	for _, e := range want {
		e.At = e.At.UTC().Truncate(time.Second)
		got, ok := l.Find(e.Serial)
		if !ok || got != e || found[e.Serial] != e {
			t.Fatalf("found %v, %v, %v, want %v", got, ok, found[e.Serial], e)
		}
		octets := e.Serial.Bytes()
		octets[len(octets)-1] ^= 1
		neighbour, err := jpki.SerialFromBytes(octets)
		if err != nil {
			t.Fatal(err)
		}
		if _, listed := found[neighbour]; listed {
			continue
		}
		if got, ok := l.Find(neighbour); ok {
			t.Fatalf("%v is not listed, found %v", neighbour, got)
		}
	}
	for _, i := range []int{0, len(want) / 2, len(want) - 1} {
		if e, ok, head, err := crl.Lookup(bytes.NewReader(der), a.cert, want[i].Serial); err != nil || !ok || e != want[i] || head.Entries != len(want) {
			t.Errorf("looked up %v, %v, %v, want %v", e, ok, err, want[i])
		}
	}
	if _, ok, _, err := crl.Lookup(bytes.NewReader(der), a.cert, serial(t, "01")); ok || err != nil {
		t.Errorf("looked up what is not there: %v, %v", ok, err)
	}
}

// Every octet of a list is signed: no list with another one there is read, and no part of it.
func TestReadFlipped(t *testing.T) {
	a := newAuthority(t, "p-256")
	der := build(t, template(a, partition(t, a.id, "99101")), numbered(t, 3))
	for i := range der {
		bad := bytes.Clone(der)
		bad[i] ^= 1
		if _, _, err := readAll(bytes.NewReader(bad), a.cert); err == nil {
			t.Errorf("read with octet %d changed", i)
		}
		if _, _, err := readAll(bytes.NewReader(der[:i]), a.cert); err == nil {
			t.Errorf("read of %d octets", i)
		}
	}
	if _, _, err := readAll(bytes.NewReader(append(bytes.Clone(der), 0)), a.cert); err == nil {
		t.Error("read with something behind it")
	}
	other := newAuthority(t, "p-384")
	if _, _, err := readAll(bytes.NewReader(der), other.cert); err == nil {
		t.Error("read with another key")
	}
	broken := errors.New("broken")
	if _, _, err := readAll(io.MultiReader(bytes.NewReader(der[:40]), iotest.ErrReader(broken)), a.cert); !errors.Is(err, broken) {
		t.Errorf("a broken reader: %v", err)
	}
	if _, err := crl.Read(bytes.NewReader(der), a.cert, func(crl.Entry) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("a visit that fails: %v", err)
	}
}

// A foreign list is one with whatever crypto/x509 lets us say in a list.
type foreign struct {
	number, base int64
	entries      []x509.RevocationListEntry
	extensions   []pkix.Extension
	this         time.Time
}

func (f foreign) make(tb testing.TB, a authority) []byte {
	tb.Helper()
	if f.this.IsZero() {
		f.this = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	}
	if f.base != 0 {
		der, err := asn1.Marshal(f.base)
		if err != nil {
			tb.Fatal(err)
		}
		f.extensions = append([]pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 27}, Critical: true, Value: der}}, f.extensions...)
	}
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(f.number), ThisUpdate: f.this, NextUpdate: f.this.Add(time.Hour), RevokedCertificateEntries: f.entries, ExtraExtensions: f.extensions,
	}, a.cert, a.key)
	if err != nil {
		tb.Fatal(err)
	}
	return der
}

func revoked(n int64, reason jpki.Reason, extensions ...pkix.Extension) x509.RevocationListEntry {
	return x509.RevocationListEntry{SerialNumber: big.NewInt(n), RevocationTime: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), ReasonCode: int(reason), ExtraExtensions: extensions}
}

func TestReadRefuses(t *testing.T) {
	a := newAuthority(t, "p-256")
	idp := func(hex string) pkix.Extension {
		return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 28}, Critical: true, Value: []byte(hex)}
	}
	unknown := func(critical bool) pkix.Extension {
		return pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, 1}, Critical: critical, Value: []byte{5, 0}}
	}
	for _, row := range []struct {
		name string
		list foreign
		want string // "" if it is read
	}{
		{"plain", foreign{number: 1, entries: []x509.RevocationListEntry{revoked(5, 1)}}, ""},
		{"unsorted", foreign{number: 1, entries: []x509.RevocationListEntry{revoked(5, 1), revoked(4, 1), revoked(300, 0)}}, ""},
		{"other reasons", foreign{number: 1, entries: []x509.RevocationListEntry{revoked(5, 9), revoked(6, 10)}}, ""},
		{"unknown extension", foreign{number: 1, extensions: []pkix.Extension{unknown(false)}, entries: []x509.RevocationListEntry{revoked(5, 1, unknown(false))}}, ""},
		{"invalidity date", foreign{number: 1, entries: []x509.RevocationListEntry{revoked(5, 1, pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 24}, Value: []byte("\x18\x0f20260101000000Z")})}}, ""},
		{"delta", foreign{number: 2, base: 1, entries: []x509.RevocationListEntry{revoked(5, 8)}}, ""},
		{"critical unknown", foreign{number: 1, extensions: []pkix.Extension{unknown(true)}}, "critical and unknown"},
		{"critical unknown of an entry", foreign{number: 1, entries: []x509.RevocationListEntry{revoked(5, 1, unknown(true))}}, "unknown"},
		{"extension twice", foreign{number: 1, extensions: []pkix.Extension{unknown(false), unknown(false)}}, "twice"},
		{"removed from a complete list", foreign{number: 1, entries: []x509.RevocationListEntry{revoked(5, 8)}}, "only a delta"},
		{"reason 7", foreign{number: 1, entries: []x509.RevocationListEntry{revoked(5, 7)}}, "none"},
		{"indirect", foreign{number: 1, extensions: []pkix.Extension{idp("\x30\x03\x84\x01\xff")}}, "indirect"},
		{"certificateIssuer", foreign{number: 1, entries: []x509.RevocationListEntry{revoked(5, 1, pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 29}, Critical: true, Value: []byte{0x30, 0}})}}, "indirect"},
		{"empty point", foreign{number: 1, extensions: []pkix.Extension{idp("\x30\x00")}}, "is none"},
		{"false", foreign{number: 1, extensions: []pkix.Extension{idp("\x30\x03\x81\x01\x00")}}, "is none"},
		{"both kinds", foreign{number: 1, extensions: []pkix.Extension{idp("\x30\x06\x81\x01\xff\x82\x01\xff")}}, "only another"},
		{"negative serial", foreign{number: 1, entries: []x509.RevocationListEntry{revoked(-5, 1)}}, "negative"},
		{"zero serial", foreign{number: 1, entries: []x509.RevocationListEntry{revoked(0, 1)}}, "zero"},
		{"2050", foreign{number: 1, this: time.Date(2050, 2, 28, 23, 59, 59, 0, time.UTC)}, ""},
		{"2049", foreign{number: 1, this: time.Date(2049, 12, 31, 23, 59, 59, 0, time.UTC)}, ""},
		{"leap day", foreign{number: 1, this: time.Date(2096, 2, 29, 0, 0, 0, 0, time.UTC)}, ""},
	} {
		der := row.list.make(t, a)
		head, entries, err := readAll(bytes.NewReader(der), a.cert)
		if row.want != "" {
			checkError(t, row.name, err, row.want)
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", row.name, err)
			continue
		}
		list, err := x509.ParseRevocationList(der)
		if err != nil {
			t.Fatal(err)
		}
		likeStdlib(t, head, entries, list)
	}
	twice := foreign{number: 1, entries: []x509.RevocationListEntry{revoked(5, 1), revoked(5, 4)}}.make(t, a)
	_, err := crl.Load(bytes.NewReader(twice), a.cert)
	checkError(t, "loaded twice", err, "twice")
	_, _, _, err = crl.Lookup(bytes.NewReader(twice), a.cert, serial(t, "05"))
	checkError(t, "looked up twice", err, "twice")
	if head, _, err := readAll(bytes.NewReader(twice), a.cert); err != nil || head.Ascending {
		t.Errorf("a list with one twice: %v, %v", head, err)
	}
}

// Every second of two centuries' noons and every day is read as package time writes it.
func TestReadTimes(t *testing.T) {
	a := newAuthority(t, "p-256")
	for at := time.Date(1950, 1, 1, 12, 34, 56, 0, time.UTC); at.Year() < 2110; at = at.AddDate(0, 0, 97) {
		der := foreign{number: 1, this: at}.make(t, a)
		if head, _, err := readAll(bytes.NewReader(der), a.cert); err != nil || !head.ThisUpdate.Equal(at) {
			t.Fatalf("%v: %v %v", at, head, err)
		}
	}
}

func TestCombine(t *testing.T) {
	a := newAuthority(t, "p-256")
	load := func(f foreign) *crl.List {
		t.Helper()
		l, err := crl.Load(bytes.NewReader(f.make(t, a)), a.cert)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	elsewhere := pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 28}, Critical: true, Value: []byte("\x30\x03\x81\x01\xff")}
	t0 := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	full := load(foreign{number: 10, entries: []x509.RevocationListEntry{revoked(1, 1), revoked(2, 6), revoked(3, 6)}})
	delta := load(foreign{number: 12, base: 9, this: t0.Add(time.Minute), entries: []x509.RevocationListEntry{revoked(2, 8), revoked(3, 4), revoked(4, 5), revoked(77, 8)}})
	both, err := crl.Combine(full, delta)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]jpki.Reason{}
	for e := range both.All() {
		got[e.Serial.String()] = e.Reason
	}
	want := map[string]jpki.Reason{"01": 1, "03": 4, "04": 5}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("combined (-want +got)\n%s", diff)
	}
	for n := range int64(100) {
		if n == 0 {
			continue
		}
		s, err := jpki.SerialFromBig(big.NewInt(n))
		if err != nil {
			t.Fatal(err)
		}
		e, ok := both.Find(s)
		if reason, listed := want[s.String()]; ok != listed || e.Reason != reason {
			t.Errorf("%s: %v %v, want %v %v", s, e, ok, reason, listed)
		}
	}
	if e, ok := delta.Find(serial(t, "02")); !ok || e.Reason != jpki.RemoveFromCRL {
		t.Errorf("in the delta alone: %v, %v", e, ok)
	}
	if h := both.Head(); h.Delta() || h.Number.Int64() != 12 || !h.ThisUpdate.Equal(t0.Add(time.Minute)) {
		t.Errorf("head %+v", h)
	}
	again, err := crl.Combine(both, load(foreign{number: 13, base: 12, this: t0.Add(2 * time.Minute), entries: []x509.RevocationListEntry{revoked(2, 1)}}))
	if err != nil {
		t.Fatal(err)
	}
	if e, ok := again.Find(serial(t, "02")); !ok || e.Reason != 1 {
		t.Errorf("revoked after its release: %v, %v", e, ok)
	}

	for _, row := range []struct {
		name            string
		complete, delta *crl.List
		want            string
	}{
		{"two complete", full, load(foreign{number: 11}), "is a complete one"},
		{"two deltas", delta, delta, "itself a delta"},
		{"too old", full, load(foreign{number: 12, base: 11}), "has number 10, the delta changes 11"},
		{"passed", full, load(foreign{number: 10, base: 9}), "the delta is of 10"},
		{"another scope", full, load(foreign{number: 12, base: 9, extensions: []pkix.Extension{elsewhere}}), "scopes"},
		{"older", full, load(foreign{number: 12, base: 9, this: t0.Add(-time.Hour)}), "older"},
	} {
		_, err := crl.Combine(row.complete, row.delta)
		checkError(t, row.name, err, row.want)
		if !errors.Is(err, crl.ErrCombine) {
			t.Errorf("%s: %v is no ErrCombine", row.name, err)
		}
	}
}

func TestFresh(t *testing.T) {
	this := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	h := crl.Head{ThisUpdate: this, NextUpdate: this.Add(time.Hour)}
	endless := crl.Head{ThisUpdate: this}
	for _, row := range []struct {
		name   string
		head   crl.Head
		after  time.Duration
		maxAge time.Duration
		want   string
	}{
		{"new", h, 0, 0, ""},
		{"last second", h, time.Hour - time.Second, 0, ""},
		{"due", h, time.Hour, 0, "was due"},
		{"due, not old", h, time.Hour, 2 * time.Hour, "was due"},
		{"old", h, time.Minute, 59 * time.Second, "older than"},
		{"as old as it may be", h, time.Minute, time.Minute, ""},
		{"future", h, -time.Second, 0, "later than now"},
		{"endless", endless, time.Minute, 0, "no nextUpdate"},
		{"endless, bound", endless, time.Minute, time.Minute, ""},
	} {
		err := row.head.Fresh(this.Add(row.after), row.maxAge)
		if row.want == "" && err != nil {
			t.Errorf("%s: %v", row.name, err)
		} else if row.want != "" {
			checkError(t, row.name, err, row.want)
		}
	}
}

func TestCovers(t *testing.T) {
	a := newAuthority(t, "rsa")
	here, there := partition(t, a.id, "99101"), partition(t, a.id, "99102")
	parse := func(s crl.Scope) *x509.Certificate {
		t.Helper()
		cert, err := x509.ParseCertificate(subscriber(t, a, s, serial(t, "42")))
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	head, _, err := readAll(bytes.NewReader(build(t, template(a, here), nil)), a.cert)
	if err != nil {
		t.Fatal(err)
	}
	if err := head.Covers(parse(here)); err != nil {
		t.Error(err)
	}
	checkError(t, "another partition", head.Covers(parse(there)), "another distribution point")
	checkError(t, "a CA", head.Covers(a.cert), "user certificates")
	stranger := newAuthority(t, "p-384")
	full, _, err := readAll(bytes.NewReader(build(t, template(stranger, crl.Scope{Issuer: stranger.id}), nil)), stranger.cert)
	if err != nil {
		t.Fatal(err)
	}
	checkError(t, "another key", full.Covers(parse(here)), "another key")
}

// pkitsRefused are the lists of the PKITS that we do not read, and why.
var pkitsRefused = map[string]string{
	"DSACACRL.crl":                             "algorithm",
	"DSAParametersInheritedCACRL.crl":          "algorithm",
	"BadCRLSignatureCACRL.crl":                 "signature",
	"NegativeSerialNumberCACRL.crl":            "negative",
	"UnknownCRLEntryExtensionCACRL.crl":        "unknown",
	"indirectCRLCA1CRL.crl":                    "indirect",
	"indirectCRLCA3cRLIssuerCRL.crl":           "indirect",
	"indirectCRLCA4cRLIssuerCRL.crl":           "indirect",
	"indirectCRLCA5CRL.crl":                    "indirect",
	"keyUsageCriticalcRLSignFalseCACRL.crl":    "does not let it sign",
	"keyUsageNotCriticalcRLSignFalseCACRL.crl": "does not let it sign",
	"UnknownCRLExtensionCACRL.crl":             "unknown",
}

// The lists of NIST's PKITS 1.0.1 are each read, as crypto/x509 reads it, or refused for a stated reason. The suite here has
// the issuers' certificates as files named after them; a list whose issuer is another is refused with every one.
func TestPKITS(t *testing.T) {
	dir := os.Getenv("JPKI_VECTORS")
	if dir == "" {
		t.Skip("JPKI_VECTORS is not set")
	}
	lists, err := filepath.Glob(filepath.Join(dir, "nist-pkits", "crls", "*.crl"))
	if err != nil || len(lists) < 100 {
		t.Fatalf("%d lists, %v", len(lists), err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "nist-pkits", "certs", "*.crt"))
	if err != nil {
		t.Fatal(err)
	}
	var issuers []*x509.Certificate
	for _, f := range files {
		der, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if cert, err := x509.ParseCertificate(der); err == nil {
			issuers = append(issuers, cert)
		}
	}
	read, reasons := 0, map[string]string{}
	for _, path := range lists {
		name := filepath.Base(path)
		der, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		list, stdErr := x509.ParseRevocationList(der)
		var verified bool
		var why error
		for _, cert := range issuers {
			if stdErr == nil && !bytes.Equal(cert.RawSubject, list.RawIssuer) {
				continue
			}
			head, entries, err := readAll(bytes.NewReader(der), cert)
			if err != nil {
				why = err
				continue
			}
			verified = true
			likeStdlib(t, head, entries, list)
			break
		}
		if verified {
			read++
			continue
		}
		if why == nil { // no issuer of that name among the certificates: all but the signature
			if stdErr != nil {
				t.Errorf("%s: not read by crypto/x509, and no issuer: %v", name, stdErr)
				continue
			}
			stand := &x509.Certificate{RawSubject: list.RawIssuer}
			var entries []crl.Entry
			head, err := crl.ReadUnverified(bytes.NewReader(der), stand, func(e crl.Entry) error { entries = append(entries, e); return nil })
			if err == nil {
				likeStdlib(t, head, entries, list)
				read++
				continue
			}
			why = err
		}
		reasons[name] = why.Error()
	}
	for name := range pkitsRefused {
		if _, refused := reasons[name]; !refused {
			t.Errorf("%s was read", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(reasons)) {
		want, known := pkitsRefused[name]
		if !known || !strings.Contains(reasons[name], want) {
			t.Errorf("%s: %s", name, reasons[name])
		}
	}
	t.Logf("%d lists read, %d refused", read, len(reasons))
}

// Lists made by OpenSSL and GnuTLS are read as crypto/x509 reads them.
func TestReadOthersLists(t *testing.T) {
	openssl, certtool := tool(t, "openssl"), tool(t, "certtool")
	for _, alg := range []string{"rsa", "p-384"} {
		a := newAuthority(t, alg)
		dir := t.TempDir()
		key, err := x509.MarshalPKCS8PrivateKey(a.key)
		if err != nil {
			t.Fatal(err)
		}
		ca, keyFile := write(t, dir, "ca.pem", "CERTIFICATE", a.cert.Raw), write(t, dir, "ca.key", "PRIVATE KEY", key)
		victim := write(t, dir, "victim.pem", "CERTIFICATE", subscriber(t, a, partition(t, a.id, "99101"), serial(t, "4711")))
		files := map[string]string{
			"ca.cnf":    "[ca]\ndefault_ca=d\n[d]\ndatabase=" + filepath.Join(dir, "index") + "\ncrlnumber=" + filepath.Join(dir, "number") + "\ndefault_md=sha384\ndefault_crl_days=2\ncrl_extensions=e\n[e]\nauthorityKeyIdentifier=keyid\n",
			"index":     "R\t400101000000Z\t260101000000Z,keyCompromise\t4711\tunknown\t/CN=a\nR\t400101000000Z\t260101000000Z,certificateHold\t4A\tunknown\t/CN=b\nR\t400101000000Z\t260101000000Z\t02\tunknown\t/CN=c\n",
			"number":    "1F\n",
			"crl.templ": "crl_next_update = 2\ncrl_number = 31\n",
		}
		for name, text := range files {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for name, args := range map[string][]string{
			"openssl.crl":  {openssl, "ca", "-config", filepath.Join(dir, "ca.cnf"), "-gencrl", "-cert", ca, "-keyfile", keyFile, "-out", filepath.Join(dir, "openssl.crl")},
			"certtool.crl": {certtool, "--generate-crl", "--load-ca-privkey", keyFile, "--load-ca-certificate", ca, "--load-certificate", victim, "--template", filepath.Join(dir, "crl.templ"), "--outfile", filepath.Join(dir, "certtool.crl")},
		} {
			if out, err := execute(t, args); err != nil {
				t.Fatalf("%s: %v\n%s", name, err, out)
			}
			text, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			block, _ := pem.Decode(text)
			list, err := x509.ParseRevocationList(block.Bytes)
			if err != nil {
				t.Fatal(err)
			}
			head, entries, err := readAll(bytes.NewReader(block.Bytes), a.cert)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			likeStdlib(t, head, entries, list)
			if !slices.ContainsFunc(entries, func(e crl.Entry) bool { return e.Serial == serial(t, "4711") }) {
				t.Errorf("%s: 4711 is not listed", name)
			}
		}
	}
}

// What we read crypto/x509 reads too, and reads the same.
func FuzzRead(f *testing.F) {
	a := newAuthority(f, "p-256")
	for _, list := range []foreign{
		{number: 1},
		{number: 1, entries: []x509.RevocationListEntry{revoked(5, 1), revoked(4, 0), revoked(1<<40, 6)}},
		{number: 2, base: 1, entries: []x509.RevocationListEntry{revoked(5, 8)}, this: time.Date(2050, 2, 28, 0, 0, 0, 0, time.UTC)},
		{number: 1, extensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 28}, Critical: true, Value: []byte("\x30\x03\x81\x01\xff")}}},
	} {
		f.Add(list.make(f, a))
	}
	s := crl.Scope{Issuer: a.id, Partition: "99101", DirectoryName: name(f, "x"), URL: host + "/crl/sign-1/99101.crl"}
	f.Add(build(f, template(a, s), numbered(f, 3)))
	f.Fuzz(func(t *testing.T, der []byte) {
		var entries []crl.Entry
		head, err := crl.ReadUnverified(bytes.NewReader(der), a.cert, func(e crl.Entry) error { entries = append(entries, e); return nil })
		if err != nil {
			return
		}
		list, err := x509.ParseRevocationList(der)
		if err != nil {
			t.Fatalf("we read what crypto/x509 does not: %v", err)
		}
		likeStdlib(t, head, entries, list)
	})
}
