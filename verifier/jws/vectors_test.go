package jws_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/openjpki/jpki/verifier/cms"
	"github.com/openjpki/jpki/verifier/jws"
)

// What of DSS's valid documents is refused here: DSS notes the mistake and goes on.
var stricter = map[string]error{
	"validation__dss2620__jades-b-level-with-etsiu-in-crit.json":          jws.ErrMalformed, // crit names what is not there
	"validation__dss2620__jades-with-crit-string-type.json":               jws.ErrMalformed, // crit is no list
	"validation__dss2620__jades-with-crit-with-duplicated-header.json":    jws.ErrMalformed, // crit names the same twice
	"validation__dss2620__jades-with-expiration-time-header-in-crit.json": jws.ErrMalformed, // exp is no number
}

// The JAdES documents of esig/dss.
func TestJAdESVectors(t *testing.T) {
	dir := vectors(t, "dss-ades/jades")
	var cases []struct {
		File, Verdict string
		Detached      []string
	}
	if err := json.Unmarshal(read(t, filepath.Join(dir, "expected.json")), &cases); err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		o := jws.Options{Resolve: func(string) ([]byte, bool) {
			if len(c.Detached) == 0 {
				return nil, false
			}
			return read(t, filepath.Join(dir, c.Detached[0])), true
		}}
		err := verdict(string(read(t, filepath.Join(dir, c.File))), o)
		if want := stricter[c.File]; want != nil {
			if !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", c.File, err, want)
			}
		} else if (err == nil) != (c.Verdict == "all-valid") {
			t.Errorf("%s: %v, want %s", c.File, err, c.Verdict)
		}
	}
	if len(cases) != 21 {
		t.Errorf("%d documents", len(cases))
	}
}

// Time-stamps whose tokens are over something else, as the names of the documents say.
var foreignStamps = []string{
	"validation__jades-flattened-BpT-broken-sigTst.json 0 sigTst",
	"validation__jades-lta-broken-arcTst.json 0 arcTst",
	"validation__jades-two-sigs-copied-tst.json 1 sigTst",
}

// What we compute to be stamped is what the authorities stamped.
func TestImprints(t *testing.T) {
	dir := vectors(t, "dss-ades/jades")
	files, err := filepath.Glob(filepath.Join(dir, "validation__*"))
	if err != nil {
		t.Fatal(err)
	}
	checked := map[string]int{}
	var foreign []string
	for _, file := range files {
		all, err := jws.Read(read(t, file), jws.Options{})
		if err != nil {
			continue
		}
		for i, s := range all {
			for _, stamp := range s.Stamps {
				token, err := cms.ParseToken(stamp.Token)
				if err != nil {
					t.Fatalf("%s: %v", file, err)
				}
				digest, err := stamp.Imprint(token.Hash)
				if err != nil {
					t.Errorf("%s: %s: %v", file, stamp.Kind, err)
				}
				if checked[stamp.Kind]++; !bytes.Equal(digest, token.Imprint) {
					foreign = append(foreign, filepath.Base(file)+" "+string(rune('0'+i))+" "+stamp.Kind)
				}
			}
		}
	}
	slices.Sort(foreign)
	if d := cmp.Diff(foreignStamps, foreign); d != "" {
		t.Errorf("time-stamps over something else: %s", d)
	}
	if d := cmp.Diff(map[string]int{"sigTst": 10, "arcTst": 8}, checked); d != "" {
		t.Errorf("time-stamps checked: %s", d)
	}
}

// What is read out of documents by others.
func TestFacts(t *testing.T) {
	dir := vectors(t, "dss-ades/jades")
	facts := func(name string) *jws.Signature {
		t.Helper()
		all, err := jws.Read(read(t, filepath.Join(dir, name)), jws.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return all[0]
	}
	s := facts("validation__jades-triple-LTA.json")
	if got := []int{len(s.Header.Certificates), len(s.Stamps), len(s.CertificateValues), len(s.CRLs), len(s.OCSPs)}; !slices.Equal(got, []int{1, 4, 8, 0, 2}) {
		t.Errorf("certificates, time-stamps, values: %v", got)
	}
	if got := s.Header.SigningTime.Format("2006-01-02T15:04:05Z"); got != "2021-07-25T21:30:40Z" || s.Header.ContentType != "text/plain" || string(s.Payload) != "TL-039 Test Document" {
		t.Errorf("%s %s %s", got, s.Header.ContentType, s.Payload)
	}
	s = facts("validation__dss2620__jades-with-notBefore-header-in-crit.json")
	if s.Header.NotBefore.Unix() != 1733491325 || s.Header.SigningTime.Unix() != 1762435325 || !slices.Equal(s.Header.Critical, []string{"nbf"}) {
		t.Errorf("%+v", s.Header)
	}
	s = facts("validation__simple-detached.json")
	if s.Mechanism != jws.ObjectsHash || len(s.Objects) != 1 || s.Objects[0].URI != "sample.json" || s.Objects[0].ContentType != "json" {
		t.Errorf("%+v", s.Objects)
	}
}
