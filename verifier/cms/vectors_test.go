package cms_test

import (
	"bytes"
	"crypto"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

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
		raw, err := os.ReadFile(filepath.Join(dir, tc.File))
		if err != nil {
			t.Fatal(err)
		}
		d, err := cms.Parse(raw)
		if err != nil {
			t.Errorf("%s (%s): %v", tc.File, tc.Verdict, err)
			continue
		}
		var in cms.Input
		for _, f := range tc.Detached {
			b, _ := os.ReadFile(filepath.Join(dir, f))
			in.Content = bytes.NewReader(b)
		}
		for _, x := range tc.DetachedDigests {
			b, _ := base64.StdEncoding.DecodeString(x.B64)
			in.Digests = map[crypto.Hash][]byte{crypto.SHA256: b}
		}
		sigs, err := d.Verify(in)
		if err != nil {
			t.Errorf("%s: %v", tc.File, err)
		}
		var got []string
		for _, s := range sigs {
			x := string(s.Integrity) + "/" + string(s.Level) + " " + s.Detail
			for _, ts := range s.TimeStamps {
				x += " {" + string(ts.Kind) + ":" + string(ts.Integrity) + ":" + ts.Detail + "}"
			}
			for _, c := range s.CounterSignatures {
				x += " counter:" + string(c.Integrity) + c.Detail
			}
			got = append(got, x)
		}
		t.Logf("%-60s %-10s %v: %s", strings.TrimPrefix(tc.File, "validation__"), tc.Verdict, tc.Levels, strings.Join(got, " | "))
	}
}

func TestRFC4134(t *testing.T) {
	files, _ := filepath.Glob(filepath.Join(vectors(t), "cms-rfc4134", "*.bin"))
	for _, f := range files {
		raw, _ := os.ReadFile(f)
		d, err := cms.Parse(raw)
		if err != nil {
			t.Logf("%s: %v", filepath.Base(f), err)
			continue
		}
		sigs, err := d.Verify(cms.Input{})
		if err != nil {
			t.Error(err)
		}
		for _, s := range sigs {
			t.Logf("%s: %s %s %s %v certs %d crls %d detached %v counters %d", filepath.Base(f), s.Integrity, s.Detail, s.Level, s.Algorithm, len(d.Certificates), len(d.CRLs), d.Detached, len(s.CounterSignatures))
		}
		if len(sigs) == 0 {
			t.Logf("%s: no signers, certs %d crls %d", filepath.Base(f), len(d.Certificates), len(d.CRLs))
		}
	}
}
