package cms_test

import (
	"bytes"
	"crypto"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/verifier/cms"
)

// vectors returns the folder of test vectors.
func vectors(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("JPKI_VECTORS")
	if dir == "" {
		t.Skip("JPKI_VECTORS is not set")
	}
	return dir
}

type adesCase struct {
	File            string   `json:"file"`
	Detached        []string `json:"detached"`
	DetachedDigests []struct {
		Alg string `json:"alg"`
		B64 string `json:"b64"`
	} `json:"detached_digests"`
	Verdict string   `json:"verdict"`
	Levels  []string `json:"levels"`
}

// readings are the documents about which the expectation alone does not say enough, by name: why they are refused, which
// of their time-stamps are not intact, and how far they got. Other documents of verdict all-valid are intact throughout.
var readings = map[string]struct {
	why    cms.Integrity
	level  cms.Level
	stamps []cms.Integrity // if one is not intact
}{
	"dss-1419__CAdES-BpB-att-SHA256-SHA512withRSA.p7m":   {cms.AlgorithmMismatch, cms.LevelCMS, nil},
	"dss-1419__CAdES-BpB-att-SHA3_224-SHA256withRSA.p7m": {cms.AlgorithmMismatch, cms.LevelCMS, nil},
	"dss-1419__CAdES-BpB-att-SHA3_512-SHA256withRSA.p7m": {cms.AlgorithmMismatch, cms.LevelCMS, nil},
	"dss-951__NexU-CAdES-B-B-Detached-Sha512.p7m":        {cms.ContentMissing, cms.LevelB, nil},
	"evidence-record__C-E-ERS-detached.p7s":              {cms.ContentMissing, cms.LevelLT, nil},
	"dss-2011__cades-tstv2-detached.p7s":                 {cms.ContentMissing, cms.LevelLT, []cms.Integrity{cms.Intact, cms.NotChecked}},
	// The parameters of RSA-PSS are not, octet by octet, those that were signed (RFC 6211).
	"evidence-record__C-E-ERS-basic-invalid-sig.p7m": {cms.AlgorithmMismatch, cms.LevelCMS, nil},

	"CAdESDoubleLTA.p7m":            {cms.Intact, cms.LevelLTA, nil},
	"cades-lta-duplicated-atst.p7m": {cms.Intact, cms.LevelLTA, nil},
	"wrongContentHints.p7m":         {cms.Intact, cms.LevelB, nil},
	"Signature-CBp-B-1.p7m":         {cms.Intact, cms.LevelBES, nil},
	"Signature-15-CBp-LT-2.p7m":     {cms.Intact, cms.LevelT, nil}, // references to revocations only
	"Signature-C-A-XL-1.p7m":        {cms.Intact, cms.LevelLTA, []cms.Integrity{cms.Intact, cms.NotChecked, cms.Intact}},
	"Signature-C-X-1.p7m":           {cms.Intact, cms.LevelT, []cms.Integrity{cms.NotChecked, cms.Intact}},
	"cades-ats-v3-wrong-cert.p7m":   {cms.Intact, cms.LevelLT, []cms.Integrity{cms.Intact, cms.ContentMismatch}},
	"cades-dss1956.p7m":             {cms.Intact, cms.LevelLT, []cms.Integrity{cms.Intact, cms.ContentMismatch}}, // an index without its SEQUENCE
	"cades-dss1997.p7m":             {cms.Intact, cms.LevelLT, []cms.Integrity{cms.Intact, cms.NotChecked, cms.ContentMismatch}},
	"cades-t-copied-sigtst.p7m":     {cms.Intact, cms.LevelB, []cms.Integrity{cms.Intact, cms.ContentMismatch}},

	"dss-1344__screenshot.png.signed_qes_detached.p7s":         {cms.Intact, cms.LevelLT, []cms.Integrity{cms.NotChecked, cms.Intact}},
	"dss-1469__cadesLTAwithATv2expired.p7s":                    {cms.Intact, cms.LevelLT, []cms.Integrity{cms.NotChecked, cms.Intact}},
	"dss-916__test.txt.signed_Certipost-2048.detached.old.p7s": {cms.Intact, cms.LevelLT, []cms.Integrity{cms.NotChecked, cms.Intact}},
}

// disagreements are documents whose verdict here is not the one expected, with the reason. There are none.
var disagreements = map[string]string{}

// TestDSSVectors checks the CAdES documents of the European Commission's DSS (esig/dss at d9473b8, see SOURCE.txt): an
// invalid one is never intact, a valid one always.
func TestDSSVectors(t *testing.T) {
	dir := filepath.Join(vectors(t), "dss-ades", "cades")
	var cases []adesCase
	text, err := os.ReadFile(filepath.Join(dir, "expected.json"))
	if err == nil {
		err = json.Unmarshal(text, &cases)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range cases {
		name := strings.TrimPrefix(tc.File, "validation__")
		raw, err := os.ReadFile(filepath.Join(dir, tc.File))
		if err != nil {
			t.Fatal(err)
		}
		var in cms.Input
		for _, f := range tc.Detached {
			b, err := os.ReadFile(filepath.Join(dir, f))
			if err != nil {
				t.Fatal(err)
			}
			in.Content = bytes.NewReader(b)
		}
		for _, x := range tc.DetachedDigests {
			b, _ := base64.StdEncoding.DecodeString(x.B64)
			in.Digests = map[crypto.Hash][]byte{crypto.SHA256: b}
		}
		d, err := cms.Parse(raw)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		sigs, err := d.Verify(in)
		if err != nil || len(sigs) == 0 {
			t.Errorf("%s: %d signatures, %v", name, len(sigs), err)
		}
		for _, s := range sigs {
			checkReading(t, name, tc.Verdict, s)
		}
	}
	if len(cases) < 34 {
		t.Errorf("only %d documents", len(cases))
	}
}

func checkReading(t *testing.T, name, verdict string, s *cms.Signature) {
	t.Helper()
	intact := s.Integrity == cms.Intact
	if why, known := disagreements[name]; intact != (verdict == "all-valid") && !known {
		t.Errorf("%s: %s (%s), expected %s %s", name, s.Integrity, s.Detail, verdict, why)
	}
	want, listed := readings[name]
	if !listed {
		want.why, want.level = cms.Intact, s.Level
	}
	if s.Integrity != want.why || s.Level != want.level {
		t.Errorf("%s: %s (%s) at %s, want %s at %s", name, s.Integrity, s.Detail, s.Level, want.why, want.level)
	}
	for i, ts := range s.TimeStamps {
		reading := cms.Intact
		if want.stamps != nil {
			reading = want.stamps[i]
		}
		if ts.Integrity != reading {
			t.Errorf("%s: time-stamp %d (%s) is %s (%s), want %s", name, i, ts.Kind, ts.Integrity, ts.Detail, reading)
		}
		if ts.Token == nil || ts.Token.Time.IsZero() || ts.Authority == nil || ts.Authority.Certificate == nil {
			t.Errorf("%s: time-stamp %d lacks facts", name, i)
		}
	}
	for _, c := range s.CounterSignatures {
		if c.Integrity != cms.Intact {
			t.Errorf("%s: counter-signature %s", name, c.Integrity)
		}
	}
}

// TestRFC4134 reads the examples of RFC 4134 §4. Those that a DSA key signed are read and refused by name.
func TestRFC4134(t *testing.T) {
	dir := filepath.Join(vectors(t), "cms-rfc4134")
	type want struct {
		integrity   []cms.Integrity
		certs, crls int
		counters    int
	}
	dsa := cms.UnknownAlgorithm
	for name, w := range map[string]want{
		"4.1":  {[]cms.Integrity{dsa}, 1, 0, 0},
		"4.2":  {[]cms.Integrity{cms.Intact}, 1, 0, 0},
		"4.3":  {[]cms.Integrity{dsa}, 1, 0, 0},
		"4.4":  {[]cms.Integrity{dsa}, 3, 1, 1},
		"4.5":  {[]cms.Integrity{cms.Intact}, 2, 0, 0},
		"4.6":  {[]cms.Integrity{dsa, dsa}, 2, 0, 0},
		"4.7":  {[]cms.Integrity{dsa}, 1, 0, 0},
		"4.10": {[]cms.Integrity{dsa}, 1, 0, 0},
		"4.11": {nil, 2, 1, 0},
	} {
		raw, err := os.ReadFile(filepath.Join(dir, name+".bin"))
		if err != nil {
			t.Fatal(err)
		}
		d, err := cms.Parse(raw)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		sigs, err := d.Verify(cms.Input{})
		if err != nil || len(sigs) != len(w.integrity) || len(d.Certificates) != w.certs || len(d.CRLs) != w.crls {
			t.Errorf("%s: %d signatures, %d certificates, %d CRLs, %v", name, len(sigs), len(d.Certificates), len(d.CRLs), err)
			continue
		}
		for i, s := range sigs {
			if s.Integrity != w.integrity[i] || len(s.CounterSignatures) != w.counters {
				t.Errorf("%s: %s (%s), %d counter-signatures", name, s.Integrity, s.Detail, len(s.CounterSignatures))
			}
		}
	}
	for _, name := range []string{"3.1", "3.2", "5.1", "5.2", "6.0", "7.1", "7.2"} { // data, enveloped, digested, encrypted
		raw, err := os.ReadFile(filepath.Join(dir, name+".bin"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := cms.Parse(raw); !errors.Is(err, jpki.Malformed) {
			t.Errorf("%s, which is no SignedData: %v", name, err)
		}
	}
}

// Whatever octet changes in a document with two archive time-stamps: not both they and the signature are intact, unless it
// is behind the beginning of the last of them, which nothing covers yet, or one of those that nothing ever covers.
func TestArchiveTimeStampsCover(t *testing.T) {
	raw := read(t, filepath.Join(vectors(t), "dss-ades", "cades", "validation__CAdESDoubleLTA.p7m"))
	last := bytes.LastIndex(raw, []byte{6, 6, 4, 0, 0x8d, 0x45, 2, 4}) // the attribute's type
	unnoticed := 0
	for i := 0; i < last; i += 7 {
		changed := bytes.Clone(raw)
		changed[i] ^= 4
		d, err := cms.Parse(changed)
		if err != nil {
			continue
		}
		sigs, err := d.Verify(cms.Input{})
		if err != nil || len(sigs) != 1 || sigs[0].Integrity != cms.Intact {
			continue
		}
		if stamps := sigs[0].TimeStamps; len(stamps) == 3 && stamps[1].Integrity == cms.Intact && stamps[2].Integrity == cms.Intact {
			unnoticed++
		}
	}
	if unnoticed > 4 {
		t.Errorf("%d changes went unnoticed", unnoticed)
	}
}
