package xmldsig_test

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/openjpki/jpki/verifier/cms"
	"github.com/openjpki/jpki/verifier/xmldsig"
)

// Time-stamps of DSS's documents whose tokens are over something else, as the names of the documents say: a certificate was added to
// KeyInfo after the archive time-stamp, a token was copied from another signature.
var foreignStamps = map[string]bool{
	"validation__xades-lta-with-additional-cert-in-keyinfo.xml 0 ArchiveTimeStamp": true,
	"validation__xades-two-sig-copied-tst.xml 1 SignatureTimeStamp":                true,
}

// What we compute to be stamped is what the authorities stamped.
func TestImprints(t *testing.T) {
	dir := vectors(t, "dss-ades/xades")
	files, err := filepath.Glob(filepath.Join(dir, "validation__*"))
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for _, file := range files {
		all, err := xmldsig.Read(read(t, file), xmldsig.Options{})
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for i, s := range all {
			if s.Properties == nil {
				continue
			}
			for _, stamp := range s.Properties.Stamps {
				name := fmt.Sprintf("%s %d %s", filepath.Base(file), i, stamp.Kind)
				token, err := cms.ParseToken(stamp.Token)
				if err != nil {
					t.Errorf("%s: %v", name, err)
					continue
				}
				switch digest, err := stamp.Imprint(token.Hash); {
				case errors.Is(err, xmldsig.ErrUnsupported):
					count["recognised "+stamp.Kind]++
				case err != nil:
					t.Errorf("%s: %v", name, err)
				case bytes.Equal(digest, token.Imprint) == foreignStamps[name]:
					t.Errorf("%s: over what it should be: %v", name, !foreignStamps[name])
				default:
					count[stamp.Kind]++
				}
			}
		}
	}
	// Those recognised only: ArchiveTimeStamp of XAdES 1.3.2 (not 1.4.1), time-stamps on references, and two with a canonicalization
	// that is called "".
	want := map[string]int{
		"SignatureTimeStamp": 34, "ArchiveTimeStamp": 11, "recognised SignatureTimeStamp": 1, "recognised ArchiveTimeStamp": 7,
		"recognised RefsOnlyTimeStamp": 2, "recognised RefsOnlyTimeStampV2": 2,
		"recognised SigAndRefsTimeStamp": 5, "recognised SigAndRefsTimeStampV2": 4,
	}
	if d := cmp.Diff(want, count); d != "" {
		t.Error(d)
	}
}
