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

// Where we say something else than the test of DSS over the same file does, which as a rule is about one signature of it or
// about a warning: the field, what we say, and why.
var disagreements = map[string]struct {
	field string
	want  error
	why   string
}{
	"BadEncodedCMS.pdf":                            {"Test Signature", pdf.ErrMalformed, "the SignerInfo is none; openssl does not read it either"},
	"pades-spoofing-replaced-reason.pdf":           {"Signature1", pdf.ErrCoverage, "a later revision replaced the signature dictionary; DSS reports that as a warning"},
	"pades-t-duplicated-doctst.pdf":                {"Signature3", pdf.ErrDigest, "the token of another document time-stamp, which is why DSS says level T"},
	"dss-818__Signature-P-SK-1 (HASH_FAILURE).pdf": {"Signature6", pdf.ErrMalformed, "the dictionary has Type twice"},
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
		odd, disagree := disagreements[short]
		valid, found := true, false
		d, err := pdf.Read(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			valid = false
		} else {
			for i, v := range d.Verify(nil) {
				s := d.Signatures[i]
				if disagree && s.Field == odd.field {
					if found = true; !errors.Is(v.Err, odd.want) {
						t.Errorf("%s: %s: %v, want %v", short, s.Field, v.Err, odd.want)
					}
					continue
				}
				if v.Err != nil {
					valid = false
					t.Logf("%s: %s: %v", short, s.Field, v.Err)
				}
			}
			valid = valid && len(d.Signatures) > 0
		}
		if disagree {
			if !found {
				t.Errorf("%s: no field %s", short, odd.field)
			}
			continue
		}
		if valid == (tc.Verdict == "all-valid") {
			right++
		} else {
			t.Errorf("%s: valid %t, DSS says %s", short, valid, tc.Verdict)
		}
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
