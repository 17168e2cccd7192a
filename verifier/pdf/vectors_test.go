package pdf_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/openjpki/jpki/verifier/pdf"
)

func vectors(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("JPKI_VECTORS")
	if dir == "" {
		if os.Getenv("JPKI_TEST_REQUIRE") == "1" {
			t.Fatal("JPKI_VECTORS is not set")
		}
		t.Skip("JPKI_VECTORS is not set")
	}
	return filepath.Join(dir, "dss-ades", "pades")
}

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
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range cases {
		data, err := os.ReadFile(filepath.Join(dir, tc.File))
		if err != nil {
			t.Fatal(err)
		}
		doc, err := pdf.Read(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			t.Logf("%s %s: %v", tc.File, tc.Verdict, err)
			continue
		}
		t.Logf("%s %s %v agreed %v revisions %v size %d", tc.File, tc.Verdict, tc.Levels, tc.Agreed != nil && *tc.Agreed, doc.Revisions, len(data))
		for i, v := range doc.Verify(nil) {
			s := doc.Signatures[i]
			t.Logf("    %s %s rev %d %s %v %v: %v", s.Field, s.SubFilter, s.Revision, v.Baseline, v.Modification, v.Deviations, v.Err)
			for _, c := range v.Changes {
				t.Logf("        %d %v %s %s %s", c.Revision, c.Level, c.Where, c.Field, c.Detail)
			}
		}
	}
}
