package pdf_test

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/openjpki/jpki/verifier/pdf"
)

func vectors(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("JPKI_VECTORS")
	if dir == "" {
		t.Skip("JPKI_VECTORS names no folder of vectors")
	}
	return filepath.Join(dir, "dss-ades", "pades")
}

// disagreements are the files that DSS's tests call valid and in which we refuse a signature: the field, what we say, and why.
var disagreements = map[string]struct {
	field string
	want  error
	why   string
}{
	"BadEncodedCMS.pdf":                  {"Test Signature", pdf.ErrMalformed, "the SignerInfo is none; openssl does not read it either"},
	"pades-spoofing-replaced-reason.pdf": {"Signature1", pdf.ErrCoverage, "a later revision replaced the signature dictionary; DSS reports that as a warning"},
}

// reasons are what else must be refused, in files about which we and DSS agree: for a reason of its own, or a document time-stamp, of
// which DSS's verdict on signatures does not speak.
var reasons = map[string]struct {
	field string
	want  error
}{
	"dss-818__Signature-P-SK-1 (HASH_FAILURE).pdf": {"Signature6", pdf.ErrMalformed}, // a time-stamp whose dictionary has Type twice, after signatures over attributes that are not sorted
	"pades-t-duplicated-doctst.pdf":                {"Signature3", pdf.ErrDigest},    // the token of another document time-stamp: level T
}

// What DSS's own tests say of its files, without trust: all valid means that each signature is intact.
func TestDSS(t *testing.T) {
	dir := vectors(t)
	var cases []struct {
		File    string
		Verdict string
		Levels  []string
		Agreed  *bool
	}
	raw, err := os.ReadFile(filepath.Join(dir, "expected.json"))
	if err == nil {
		err = json.Unmarshal(raw, &cases)
	}
	if err != nil || len(cases) < 30 {
		t.Fatal(len(cases), err)
	}
	right := 0
	for _, tc := range cases {
		data, err := os.ReadFile(filepath.Join(dir, tc.File))
		if err != nil {
			t.Fatal(err)
		}
		short := strings.TrimPrefix(tc.File, "validation__")
		signatures, valid, found := 0, true, map[string]error{}
		d, err := pdf.Read(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			valid = false
		} else {
			for i, v := range d.Verify(nil) {
				s := d.Signatures[i]
				found[s.Field] = v.Err
				if s.SubFilter == pdf.DocStamp && short != "timestamped-fields.pdf" { // which has nothing else
					continue
				}
				if signatures++; v.Err != nil {
					valid = false
					t.Logf("%s: %s: %v", short, s.Field, v.Err)
				}
			}
			valid = valid && signatures > 0
		}
		if r, ok := reasons[short]; ok && !errors.Is(found[r.field], r.want) {
			t.Errorf("%s: %s: %v, want %v", short, r.field, found[r.field], r.want)
		}
		if odd, disagree := disagreements[short]; disagree {
			if valid || tc.Verdict != "all-valid" || !errors.Is(found[odd.field], odd.want) {
				t.Errorf("%s: %s: %v, want %v", short, odd.field, found[odd.field], odd.want)
			}
			continue
		}
		if valid == (tc.Verdict == "all-valid") {
			right++
		} else {
			t.Errorf("%s: valid %t, DSS says %s", short, valid, tc.Verdict)
		}
	}
	if right != len(cases)-len(disagreements) {
		t.Errorf("%d of %d as DSS says", right, len(cases))
	}
	t.Logf("%d of %d as DSS says, %d otherwise for a reason", right, len(cases), len(disagreements))
}

// The levels that DSS's tests name, for signatures whose level depends on what is there only.
func TestDSSLevels(t *testing.T) {
	dir := vectors(t)
	for file, want := range map[string]pdf.Baseline{
		"doc-firmado-LT":                   pdf.LevelLT,
		"pades-tst-with-null-type":         pdf.LevelLTA,
		"pades-lt-extended-dss":            pdf.LevelLT,
		"pades-t-duplicated-sigtst":        pdf.LevelT,
		"pades-two-sig-copied-tst":         pdf.LevelT,
		"PAdES-LT":                         pdf.LevelLT,
		"DSS-2199":                         pdf.NotPAdES,
		"pkcs7":                            pdf.NotPAdES,
		"pdf-double-signer-info":           pdf.NotPAdES,
		"pades-epes":                       pdf.NotPAdES, // EPES: from before the baseline
		"hello_signed_INCSAVE_signed":      pdf.LevelB,
		"pades_with_orphan_ocsp_cert_refs": pdf.LevelLTA,
	} {
		data, err := os.ReadFile(filepath.Join(dir, "validation__"+file+".pdf"))
		if err != nil {
			t.Fatal(err)
		}
		if got := read(t, data).Verify(nil)[0].Baseline; got != want {
			t.Errorf("%s: %s, want %s", file, got, want)
		}
	}
}

// What is in a security store, and which signature a VRI is of.
func TestStore(t *testing.T) {
	dir := vectors(t)
	for _, tc := range []struct {
		file     string
		revision int
		want     [4]int // certificates, CRLs, OCSP responses, VRIs
		field    string // whose VRI is there
	}{
		{"Signature-P-FR_CS-5", 2, [4]int{}, ""},
		{"Signature-P-FR_CS-5", 3, [4]int{6, 4, 0, 2}, "PRF_1"},
		{"Signature-P-FR_CS-5", 6, [4]int{3, 2, 0, 1}, ""}, // for a time-stamp in the signature
		{"dss-1959__pades-revoc-removed-from-dss-dict", 7, [4]int{7, 0, 1, 1}, "Signature1"},
		{"doc-firmado-LT", 2, [4]int{7, 3, 1, 1}, "Signature1"},
		{"doc-firmado-LT", 99, [4]int{}, ""},
		{"doc-firmado-LT", -1, [4]int{}, ""},
	} {
		data, err := os.ReadFile(filepath.Join(dir, "validation__"+tc.file+".pdf"))
		if err != nil {
			t.Fatal(err)
		}
		var got [4]int
		field := ""
		if s := read(t, data).Store(tc.revision); s != nil {
			got = [4]int{len(s.Certificates), len(s.CRLs), len(s.OCSPs), len(s.VRI)}
			for _, der := range s.Certificates {
				if _, err := x509.ParseCertificate(der); err != nil {
					t.Errorf("%s: %v", tc.file, err)
				}
			}
			for _, v := range s.VRI {
				if v.Signature != nil {
					field = v.Signature.Field
				}
			}
		}
		if got != tc.want || field != tc.field {
			t.Errorf("%s, revision %d: %v %q, want %v %q", tc.file, tc.revision, got, field, tc.want, tc.field)
		}
	}
}
