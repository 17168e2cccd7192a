package nightcheck_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/crl"
	"github.com/openjpki/jpki/crl/snapshot"
	"github.com/openjpki/jpki/verifier/nightcheck"
)

var (
	t0    = time.Date(2026, 4, 1, 3, 0, 0, 0, time.UTC)
	sign1 = jpki.IssuerID{CA: jpki.SignCA, Generation: 1}
	auth2 = jpki.IssuerID{CA: jpki.AuthCA, Generation: 2}
)

type authority struct {
	id   jpki.IssuerID
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB, id jpki.IssuerID) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	octets, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	keyID := sha1.Sum(octets) // RFC 5280 §4.2.1.2 method 1
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{Organization: []string{"JPKI-SANDBOX"}, CommonName: string(id.CA)}, NotBefore: t0.AddDate(-5, 0, 0), NotAfter: t0.AddDate(20, 0, 0),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, BasicConstraintsValid: true, IsCA: true, SubjectKeyId: keyID[:],
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return authority{id, cert, key}
}

func serial(n int) jpki.Serial {
	s, err := jpki.SerialFromBytes([]byte{0x40, byte(n >> 16), byte(n >> 8), byte(n)})
	if err != nil {
		panic(err)
	}
	return s
}

func (a authority) list(t testing.TB, at time.Time, entries ...crl.Entry) *crl.List {
	t.Helper()
	var b bytes.Buffer
	err := crl.Build(&b, crl.Template{IssuerCert: a.cert, Signer: a.key, Scope: crl.Scope{Issuer: a.id}, Number: big.NewInt(at.Unix()), ThisUpdate: at, NextUpdate: at.Add(48 * time.Hour)},
		func(yield func(crl.Entry) bool) {
			for _, e := range entries {
				if !yield(e) {
					return
				}
			}
		})
	if err != nil {
		t.Fatal(err)
	}
	l, err := crl.Load(&b, a.cert)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// snapshot makes one of the certificates 0 to 99 that covers who was issued until an hour before it and expires after it.
func (a authority) snapshot(t testing.TB, at time.Time, now func() time.Time, states map[int]jpki.State) *snapshot.Snapshot {
	t.Helper()
	var b bytes.Buffer
	_, err := snapshot.Build(&b, snapshot.Template{
		Issuer: a.id, IssuerCert: a.cert, Signer: a.key, Sequence: uint64(at.UnixMilli()), ThisUpdate: at, NextUpdate: at.Add(48 * time.Hour), IssuedUntil: at.Add(-time.Hour), ExpiresFrom: at, Rand: rand.Reader, TempDir: t.TempDir(),
	}, func(yield func(snapshot.Certificate, error) bool) {
		for n := range 100 {
			state := jpki.Good
			if s, ok := states[n]; ok {
				state = s
			}
			if !yield(snapshot.Certificate{Serial: serial(n), State: state}, nil) {
				return
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	s, err := snapshot.Open(b.Bytes(), snapshot.Config{IssuerCert: a.cert, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (a authority) certificate(t testing.TB, n int) []byte {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial(n).Big(), Subject: pkix.Name{CommonName: "subscriber"}, NotBefore: t0.AddDate(-1, 0, 0), NotAfter: t0.AddDate(4, 0, 0), AuthorityKeyId: a.cert.SubjectKeyId,
	}, a.cert, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func clock() time.Time { return t0.Add(time.Hour) }

const (
	csvHead    = "customer,issuer,serial,not_before,not_after\n"
	resultHead = "customer,certificate,result,reason,since,after,source,source_time,was,detail\n"
)

// row asks about a certificate that was issued a year ago and is valid for four.
func row(customer string, issuer string, n int) string {
	return fmt.Sprintf("%s,%s,%s,%s,%s\n", customer, issuer, serial(n), t0.AddDate(-1, 0, 0).Format(time.RFC3339), t0.AddDate(4, 0, 0).Format(time.RFC3339))
}

func check(t testing.TB, cfg nightcheck.Config, in string) (string, *nightcheck.Summary) {
	t.Helper()
	cfg.Now = clock
	c, err := nightcheck.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	s, err := c.Check(t.Context(), strings.NewReader(in), &out)
	if err != nil {
		t.Fatal(err)
	}
	return out.String(), s
}

// Every reason and state has its class, whichever source says so; where both speak, the newer says the state and the list the rest.
func TestClasses(t *testing.T) {
	a := newAuthority(t, sign1)
	since := t0.Add(-24 * time.Hour)
	listed := func(reasons map[int]jpki.Reason) (out []crl.Entry) {
		for n := range 100 {
			if r, ok := reasons[n]; ok {
				out = append(out, crl.Entry{Serial: serial(n), At: since, Reason: r})
			}
		}
		return out
	}
	reasons := map[int]jpki.Reason{1: jpki.AffiliationChanged, 2: jpki.Superseded, 3: jpki.CertificateHold, 4: jpki.CessationOfOperation, 5: jpki.KeyCompromise, 6: jpki.Unspecified}
	states := map[int]jpki.State{1: jpki.Revoked, 2: jpki.Revoked, 3: jpki.Suspended, 4: jpki.Revoked, 5: jpki.Revoked, 6: jpki.Revoked}
	list, packed := a.list(t, t0, listed(reasons)...), a.snapshot(t, t0, clock, states)
	later := a.list(t, t0.Add(30*time.Minute), listed(reasons)...)
	released := a.snapshot(t, t0.Add(30*time.Minute), clock, map[int]jpki.State{1: jpki.Good, 3: jpki.Good, 7: jpki.Revoked, 8: jpki.Suspended})
	const day, at, half = "2026-03-31T03:00:00Z", "2026-04-01T03:00:00Z", "2026-04-01T03:30:00Z"
	for _, c := range []struct {
		name   string
		source nightcheck.Source
		want   map[int]string
	}{
		{"list", nightcheck.Source{List: list}, map[int]string{
			0: "unchanged,,,,crl," + at, 1: "changed,affiliationChanged," + day + ",,crl," + at, 2: "renewed,superseded," + day + ",,crl," + at, 3: "suspended,certificateHold," + day + ",,crl," + at,
			4: "ended,cessationOfOperation," + day + ",,crl," + at, 5: "ended,keyCompromise," + day + ",,crl," + at, 6: "ended,unspecified," + day + ",,crl," + at,
		}},
		{"snapshot", nightcheck.Source{Snapshot: packed}, map[int]string{
			0: "unchanged,,,,snapshot," + at, 1: "revoked,,,,snapshot," + at, 3: "suspended,certificateHold,,,snapshot," + at, 6: "revoked,,,,snapshot," + at,
		}},
		{"both of one time", nightcheck.Source{Snapshot: packed, List: list}, map[int]string{
			0: "unchanged,,,,snapshot," + at, 1: "changed,affiliationChanged," + day + ",,crl," + at, 3: "suspended,certificateHold," + day + ",,snapshot," + at,
		}},
		{"an older snapshot", nightcheck.Source{Snapshot: a.snapshot(t, t0, clock, map[int]jpki.State{7: jpki.Revoked, 8: jpki.Suspended}), List: later}, map[int]string{
			0: "unchanged,,,,crl," + half, 1: "changed,affiliationChanged," + day + ",,crl," + half, 3: "suspended,certificateHold," + day + ",,crl," + half,
			7: "revoked,,,,snapshot," + at, // nothing revoked becomes good
			8: "unchanged,,,,crl," + half,
		}},
		{"a newer snapshot", nightcheck.Source{Snapshot: released, List: list}, map[int]string{
			0: "unchanged,,,,snapshot," + half, 1: "changed,affiliationChanged," + day + ",,crl," + at, 3: "unchanged,,,,snapshot," + half, 7: "revoked,,,,snapshot," + half, 8: "suspended,certificateHold,,,snapshot," + half,
		}},
	} {
		c.source.ID, c.source.Cert = sign1, a.cert
		for n, want := range c.want {
			got, _ := check(t, nightcheck.Config{Sources: []nightcheck.Source{c.source}}, csvHead+row("anna", "sign-1", n))
			if want := resultHead + "anna,sign-1/" + serial(n).String() + "," + want + ",,\n"; got != want {
				t.Errorf("%s, %d\n%s", c.name, n, cmp.Diff(want, got))
			}
		}
	}
}

// What a source cannot know it does not say: expired, too young, another issuer's.
func TestCoverage(t *testing.T) {
	a := newAuthority(t, sign1)
	for _, s := range []nightcheck.Source{{List: a.list(t, t0)}, {Snapshot: a.snapshot(t, t0, clock, nil)}} {
		s.ID, s.Cert = sign1, a.cert
		for _, c := range []struct{ issuer, from, to, want string }{
			{"sign-1", "2025-04-01T00:00:00Z", "2030-04-01T00:00:00Z", "unchanged"},
			{hex.EncodeToString(a.cert.SubjectKeyId), "2025-04-01T00:00:00Z", "2030-04-01T00:00:00Z", "unchanged"},
			{strings.ToUpper(hex.EncodeToString(a.cert.SubjectKeyId)), "2025-04-01T09:00:00+09:00", "2030-04-01T00:00:00Z", "unchanged"},
			{"sign-1", "2025-04-01T00:00:00Z", "2026-04-01T02:59:59Z", "not-covered"},
			{"sign-1", "2026-04-01T03:00:01Z", "2030-04-01T00:00:00Z", "not-covered"},
			{"sign-2", "2025-04-01T00:00:00Z", "2030-04-01T00:00:00Z", "unknown"},
			{strings.Repeat("00", 20), "2025-04-01T00:00:00Z", "2030-04-01T00:00:00Z", "unknown"},
			{"SIGN", "2025-04-01T00:00:00Z", "2030-04-01T00:00:00Z", "unreadable"},
			{"sign-1", "2025-04-01", "2030-04-01T00:00:00Z", "unreadable"},
			{"sign-1", "2031-04-01T00:00:00Z", "2030-04-01T00:00:00Z", "unreadable"},
		} {
			got, summary := check(t, nightcheck.Config{Sources: []nightcheck.Source{s}}, csvHead+"anna,"+c.issuer+",40,"+c.from+","+c.to+"\n")
			if fields := strings.Split(got, "\n"); len(fields) != 3 || strings.Split(fields[1], ",")[2] != c.want || summary.Classes[nightcheck.Class(c.want)] != 1 {
				t.Errorf("%+v: %s", c, got)
			}
		}
	}
}

// Every line has its result, however it is broken, and nothing of it is quoted.
func TestUnreadable(t *testing.T) {
	a, b := newAuthority(t, sign1), newAuthority(t, auth2)
	stranger := newAuthority(t, sign1)
	stranger.cert.SubjectKeyId = a.cert.SubjectKeyId // claims to be
	base := base64.StdEncoding.EncodeToString
	files := fstest.MapFS{
		"good.crt": {Data: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: b.certificate(t, 1)})}, "good.der": {Data: a.certificate(t, 1)}, "long": {Data: make([]byte, 70<<10)}, "none": {Data: []byte("none")},
	}
	cfg := nightcheck.Config{Files: files, Sources: []nightcheck.Source{
		{ID: sign1, Cert: a.cert, List: a.list(t, t0, crl.Entry{Serial: serial(1), At: t0, Reason: jpki.AffiliationChanged})}, {ID: auth2, Cert: b.cert, List: b.list(t, t0)},
	}}
	long := strings.Repeat("x", 300)
	for _, c := range []struct{ members, want string }{
		{`"customer":"a","certificate":"` + base(a.certificate(t, 1)) + `"`, "changed"},
		{`"customer":"a","certificate":"` + base(b.certificate(t, 1)) + `"`, "unchanged"},
		{`"customer":"a","certificate":"` + base(stranger.certificate(t, 1)) + `"`, "line 1: the issuer has not signed the certificate"},
		{`"customer":"a","certificate":"` + base(newAuthority(t, sign1).certificate(t, 1)) + `"`, "unknown"},
		{`"customer":"a","certificate":"?"`, "line 1: the certificate is not base64"},
		{`"customer":"a","certificate":"AAAA"`, "line 1: not a certificate"},
		{`"customer":"a","certificate_file":"good.crt"`, "unchanged"},
		{`"customer":"a","certificate_file":"good.der"`, "changed"},
		{`"customer":"a","certificate_file":"none"`, "line 1: not a certificate"},
		{`"customer":"a","certificate_file":"long"`, "line 1: the certificate's file cannot be read, or is too long"},
		{`"customer":"a","certificate_file":"missing"`, "line 1: the certificate's file cannot be opened"},
		{`"customer":"a","certificate_file":"../check.go"`, "line 1: certificate_file is not a name in the folder of certificates"},
		{`"customer":"a"`, "line 1: serial is not a serial number"},
		{`"customer":"a","serial":"0","issuer":"sign-1"`, "line 1: serial is not a serial number"},
		{`"customer":"a","serial":"4x","issuer":"sign-1"`, "line 1: serial is not a serial number"},
		{`"customer":"a","serial":"` + long + `","issuer":"sign-1"`, "line 1: serial is not a serial number"},
		{`"customer":""`, "line 1: the customer's reference is missing"},
		{`"customer":"` + long + `"`, "line 1: the customer's reference is too long"},
		{`"customer":"a\nb"`, "line 1: the customer's reference has a control character"},
		{`"customer":1`, "line 1: the line is not a JSON object of strings"},
		{`"customer":"a"}{`, "line 1: something follows the JSON object"},
		{`"customer":"` + "\xff" + `"`, "line 1: the line is not UTF-8"},
		{`"customer":"` + strings.Repeat("x", 70<<10) + `"`, "line 1: the line is too long"},
		{`"customer":"` + strings.Repeat("x", 700<<10) + `"`, "line 1: the line is too long"},
	} {
		cfg.In, cfg.Out = nightcheck.NDJSON, nightcheck.NDJSON
		got, summary := check(t, cfg, "{"+c.members+"}\n\r\n{\"customer\":\"z\",\"issuer\":\"auth-3\",\"serial\":\"40\",\"not_before\":\"2025-04-01T00:00:00Z\",\"not_after\":\"2025-04-01T00:00:00Z\"}")
		first, second, _ := strings.Cut(got, "\n")
		var result struct{ Customer, Result, Detail string }
		if err := json.Unmarshal([]byte(first), &result); err != nil || result.Result != c.want && (result.Result != "unreadable" || result.Detail != c.want) {
			t.Errorf("%.80s: %v %s, want %q", c.members, err, first, c.want)
		}
		if second != `{"customer":"z","certificate":"auth-3/40","result":"unknown"}`+"\n" || summary.Lines != 2 {
			t.Errorf("%.80s: then %q, %+v", c.members, second, summary)
		}
	}
	cfg.In, cfg.Out = nightcheck.CSV, nightcheck.CSV
	for text, want := range map[string]string{
		`a,sign-1`: "a,,unreadable,,,,,,,\"line 2: the line has too few columns\"", `"a,sign-1,40`: `,,unreadable,,,,,,,"line 2: a quotation mark is missing: a line is a record"`,
		`a"b,x,x,x,x`: `,,unreadable,,,,,,,"line 2: a quotation mark inside a field without them"`, `"a"b,x`: `,,unreadable,,,,,,,"line 2: something follows a quotation mark"`,
		strings.Repeat(",", 300):  `,,unreadable,,,,,,,"line 2: too many columns"`,
		`"a, ""b""",sign-1,"x",,`: `"a, ""b""",,unreadable,,,,,,,"line 2: serial is not a serial number"`,
		"\x01,sign-1,40,,":        `,,unreadable,,,,,,,"line 2: the customer's reference has a control character"`,
		"\x01":                    `,,unreadable,,,,,,,"line 2: the line has too few columns"`,
	} {
		if got, _ := check(t, cfg, csvHead+text); got != resultHead+want+"\n" {
			t.Errorf("%.50s: %s", text, got)
		}
	}
}

// With the results of an earlier night only what changed goes to Changes, with what it was, and an own word for when.
func TestCompare(t *testing.T) {
	a := newAuthority(t, sign1)
	source := func(s *snapshot.Snapshot, l *crl.List) nightcheck.Config {
		return nightcheck.Config{Sources: []nightcheck.Source{{ID: sign1, Cert: a.cert, Snapshot: s, List: l}}}
	}
	for _, format := range []nightcheck.Format{nightcheck.CSV, nightcheck.NDJSON} {
		cfg := source(a.snapshot(t, t0.Add(-24*time.Hour), clock, map[int]jpki.State{2: jpki.Suspended, 9: jpki.Revoked}), nil)
		cfg.Out = format
		before := csvHead + row("anna", "sign-1", 1) + row("bert", "sign-1", 2) + row("carl", "sign-1", 3) + row("carl", "sign-1", 4) + row("dora", "sign-1", 5) + row("emil", "sign-1", 9)
		yesterday, _ := check(t, cfg, before)

		cfg = source(a.snapshot(t, t0, clock, map[int]jpki.State{1: jpki.Revoked, 4: jpki.Suspended, 6: jpki.Revoked, 9: jpki.Revoked}), nil)
		var changes strings.Builder
		cfg.Out, cfg.Previous, cfg.Changes = format, strings.NewReader(yesterday), &changes
		now := csvHead + row("anna", "sign-1", 1) + row("bert", "sign-1", 2) + row("carl", "sign-1", 3) + row("carl", "sign-1", 4) + "carla,?,?,?,?\n" + row("emil", "sign-1", 9) + row("fritz", "sign-1", 6) + row("gerda", "sign-1", 7)
		today, summary := check(t, cfg, now)
		if summary.Lines != 8 || summary.Changed != 5 || summary.Gone != 1 {
			t.Errorf("%+v", summary)
		}
		if format == nightcheck.CSV {
			want := resultHead +
				"anna,sign-1/40000001,revoked,,,2026-03-31T03:00:00Z,snapshot,2026-04-01T03:00:00Z,unchanged,\n" +
				"bert,sign-1/40000002,unchanged,,,,snapshot,2026-04-01T03:00:00Z,suspended,\n" +
				"carl,sign-1/40000004,suspended,certificateHold,,2026-03-31T03:00:00Z,snapshot,2026-04-01T03:00:00Z,unchanged,\n" +
				"carla,,unreadable,,,,,,,\"line 6: serial is not a serial number\"\n" +
				"fritz,sign-1/40000006,revoked,,,,snapshot,2026-04-01T03:00:00Z,,\n"
			if diff := cmp.Diff(want, changes.String()); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		}
		for line := range strings.Lines(changes.String()) {
			if !strings.Contains(today, line) {
				t.Errorf("not among all: %s", line)
			}
		}

		// A day later nothing has changed, and what is known of when stays; a list tells it.
		changes.Reset()
		cfg.Previous = strings.NewReader(today)
		again, summary := check(t, cfg, now)
		if summary.Changed != 1 || !strings.Contains(again, "2026-03-31T03:00:00Z") { // the unreadable one
			t.Errorf("%+v\n%s", summary, again)
		}
		changes.Reset()
		cfg = source(nil, a.list(t, t0, crl.Entry{Serial: serial(1), At: t0.Add(-5 * time.Hour), Reason: jpki.AffiliationChanged}))
		cfg.Out, cfg.Previous, cfg.Changes = format, strings.NewReader(again), &changes
		check(t, cfg, csvHead+row("anna", "sign-1", 1))
		if got := changes.String(); !strings.Contains(got, "affiliationChanged") || !strings.Contains(got, "2026-03-31T22:00:00Z") || strings.Contains(got, "2026-03-31T03:00:00Z") {
			t.Error(got)
		}
		// What the list said stays known when there is a snapshot alone.
		changes.Reset()
		cfg = source(nil, a.list(t, t0, crl.Entry{Serial: serial(1), At: t0.Add(-5 * time.Hour), Reason: jpki.AffiliationChanged}))
		cfg.Out = format
		listed, _ := check(t, cfg, csvHead+row("anna", "sign-1", 1))
		cfg = source(a.snapshot(t, t0, clock, map[int]jpki.State{1: jpki.Revoked}), nil)
		cfg.Out, cfg.Previous, cfg.Changes = format, strings.NewReader(listed), &changes
		got, summary := check(t, cfg, csvHead+row("anna", "sign-1", 1))
		if summary.Changed != 0 || !strings.Contains(got, "affiliationChanged") || !strings.Contains(got, "2026-03-31T22:00:00Z") || !strings.Contains(got, "snapshot") {
			t.Errorf("%+v %s", summary, got)
		}
	}
	for name, c := range map[string]struct{ previous, in string }{
		"not ascending":          {resultHead, csvHead + row("bert", "sign-1", 1) + row("anna", "sign-1", 1)},
		"not a result":           {csvHead, csvHead},
		"empty":                  {"", csvHead},
		"earlier, not ascending": {resultHead + "b,,unknown,,,,,,,\na,,unknown,,,,,,,\n", csvHead + row("z", "sign-1", 1)},
		"no class":               {resultHead + "b,,well,,,,,,,\n", csvHead},
		"no time":                {resultHead + "b,,unknown,,now,,,,,\n", csvHead},
		"no columns":             {resultHead + "b\n", csvHead},
		"no head":                {resultHead, row("a", "sign-1", 1)},
	} {
		cfg := source(nil, a.list(t, t0))
		cfg.Now, cfg.Previous = clock, strings.NewReader(c.previous)
		checker, err := nightcheck.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := checker.Check(t.Context(), strings.NewReader(c.in), &strings.Builder{}); !errors.Is(err, jpki.Malformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// However many lines there are and however they fall into blocks, each has its result, in its place.
func TestManyLines(t *testing.T) {
	a := newAuthority(t, sign1)
	var entries []crl.Entry
	for n := 0; n < 60_000; n += 7 {
		entries = append(entries, crl.Entry{Serial: serial(n), At: t0, Reason: jpki.Superseded})
	}
	var in, want strings.Builder
	in.WriteString(strings.TrimSpace(csvHead) + ",note\r\n")
	want.WriteString(resultHead)
	for n := range 60_000 {
		in.WriteString(strings.TrimSpace(row(fmt.Sprintf("c%08d", n), "sign-1", n)) + "," + strings.Repeat("x", n%97) + "\r\n")
		end := ",unchanged,,,,crl,2026-04-01T03:00:00Z,,\n"
		if n%7 == 0 {
			end = ",renewed,superseded,2026-04-01T03:00:00Z,,crl,2026-04-01T03:00:00Z,,\n"
		}
		fmt.Fprintf(&want, "c%08d,sign-1/%s%s", n, serial(n), end)
	}
	for _, workers := range []int{1, 5} {
		var lines, read int64
		cfg := nightcheck.Config{Workers: workers, Sources: []nightcheck.Source{{ID: sign1, Cert: a.cert, List: a.list(t, t0, entries...)}}}
		cfg.Progress = func(l, r int64) { lines, read = l, r }
		got, summary := check(t, cfg, in.String())
		if got != want.String() {
			t.Errorf("%d workers: not the results", workers)
		}
		if summary.Lines != 60_000 || lines != 60_000 || read != int64(in.Len()) {
			t.Errorf("%+v, %d lines, %d octets of %d", summary, lines, read, in.Len())
		}
	}
}

type broken struct{ after int }

func (b *broken) Write(p []byte) (int, error) {
	if b.after -= len(p); b.after < 0 {
		return 0, errors.New("disk full")
	}
	return len(p), nil
}

func (b *broken) Read(p []byte) (int, error) {
	if b.after <= 0 {
		return 0, errors.New("disk gone")
	}
	n := copy(p, strings.Repeat("x\n", min(len(p), b.after)/2))
	b.after -= max(n, 1)
	return n, nil
}

func TestBrokenFiles(t *testing.T) {
	a := newAuthority(t, sign1)
	c, err := nightcheck.New(nightcheck.Config{Now: clock, In: nightcheck.NDJSON, Sources: []nightcheck.Source{{ID: sign1, Cert: a.cert, List: a.list(t, t0)}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Check(t.Context(), &broken{1 << 20}, &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), "disk gone") {
		t.Error(err)
	}
	if _, err := c.Check(t.Context(), strings.NewReader(strings.Repeat("x\n", 1<<20)), &broken{1 << 20}); err == nil || !strings.Contains(err.Error(), "disk full") {
		t.Error(err)
	}
}

func TestNewRefuses(t *testing.T) {
	a, b := newAuthority(t, sign1), newAuthority(t, auth2)
	good := nightcheck.Source{ID: sign1, Cert: a.cert, List: a.list(t, t0)}
	with := func(edit func(*nightcheck.Source)) []nightcheck.Source {
		s := good
		edit(&s)
		return []nightcheck.Source{s}
	}
	late := func() time.Time { return t0.Add(20 * time.Hour) }
	for want, cfg := range map[string]nightcheck.Config{
		"Config.Sources is missing": {Now: clock},
		"Config.Now is missing":     {Sources: []nightcheck.Source{good}},
		"Config.Workers":            {Now: clock, Sources: []nightcheck.Source{good}, Workers: -1},
		"no format":                 {Now: clock, Sources: []nightcheck.Source{good}, Out: "xml"},
		"neither snapshot nor list": {Now: clock, Sources: with(func(s *nightcheck.Source) { s.List = nil })},
		"there twice":               {Now: clock, Sources: []nightcheck.Source{good, good}},
		"of another key":            {Now: clock, Sources: with(func(s *nightcheck.Source) { s.List = b.list(t, t0) })},
		"snapshot is of auth-2":     {Now: clock, Sources: with(func(s *nightcheck.Source) { s.Snapshot = b.snapshot(t, t0, clock, nil) })},
		"snapshot is out of date":   {Now: late, Sources: with(func(s *nightcheck.Source) { s.Snapshot = a.snapshot(t, t0.Add(-30*time.Hour), clock, nil) })},
		"CRL is out of date":        {Now: func() time.Time { return t0.Add(49 * time.Hour) }, Sources: []nightcheck.Source{good}},
	} {
		if _, err := nightcheck.New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}
