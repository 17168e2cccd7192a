package cms_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/openjpki/jpki/verifier/cms"
	"github.com/openjpki/jpki/verifier/primitive"
)

// TestPKITSMessages verifies the signed messages of NIST's PKITS. Each is intact: what the suite asks is whether its path is
// valid. Two are signed by DSA keys.
func TestPKITSMessages(t *testing.T) {
	files, _ := filepath.Glob(filepath.Join(vectors(t), "nist-pkits", "smime", "*.eml"))
	dsa := 0
	for _, name := range files {
		mail := bytes.ReplaceAll(read(t, name), []byte("\r\n"), []byte("\n"))
		boundary := regexp.MustCompile(`boundary="([^"]+)"`).FindSubmatch(mail)
		parts := bytes.Split(mail, append([]byte("\n--"), boundary[1]...))
		content := bytes.ReplaceAll(bytes.TrimPrefix(parts[1], []byte("\n")), []byte("\n"), []byte("\r\n"))
		_, body, _ := bytes.Cut(parts[2][1:], []byte("\n\n"))
		der, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(string(body)), ""))
		if err != nil {
			t.Fatal(err)
		}
		s := one(t, der, cms.Input{Content: bytes.NewReader(content)})
		if s.Integrity == cms.UnknownAlgorithm && strings.Contains(s.Detail, "DSA") {
			dsa++
		} else if s.Integrity != cms.Intact {
			t.Errorf("%s: %s (%s)", filepath.Base(name), s.Integrity, s.Detail)
		}
		if s := one(t, der, cms.Input{Content: bytes.NewReader(append(content, '\n'))}); s.Integrity == cms.Intact {
			t.Errorf("%s: intact with other content", filepath.Base(name))
		}
	}
	if len(files) < 112 || dsa != 2 {
		t.Errorf("%d messages, %d by DSA", len(files), dsa)
	}
}

// pdfReadings are the PDF documents of whose CMS files not all are intact, by name, in their order in the file; those not
// listed are. What is wrong with other documents of verdict invalid is not in the CMS file.
var pdfReadings = map[string][]cms.Integrity{
	// Signed over attributes that are not sorted (RFC 5652 §5.4), which DSS's tests call invalid; the time-stamp at the end is not.
	"dss-818__Signature-P-SK-1 (HASH_FAILURE).pdf":       {cms.SignatureWrong, cms.SignatureWrong, cms.SignatureWrong, cms.SignatureWrong, cms.SignatureWrong},
	"pades-5-signatures-and-1-document-timestamp.pdf":    {cms.SignatureWrong, cms.SignatureWrong, cms.SignatureWrong, cms.SignatureWrong, cms.SignatureWrong},
	"Signature-P-HU_NET-2.pdf":                           {cms.UnknownAlgorithm}, // a signature algorithm as the digest's
	"dss-1420__PAdES-BpB-att-SHA256-SHA3_256withRSA.pdf": {cms.AlgorithmMismatch},
	"pades-bes-no-certificates.pdf":                      {cms.NoCertificate},
	"pades-t-duplicated-doctst.pdf":                      {cms.Intact, cms.Intact, cms.ContentMismatch},
	"BadEncodedCMS.pdf":                                  {cms.Malformed}, // a serial number that is not DER: DSS reads it, openssl does not
}

// TestPDFSignatures verifies the CMS files in the PDF documents of DSS, each over its ByteRange, found by its looks. Whether
// the document is what its signer saw is another package's question.
func TestPDFSignatures(t *testing.T) {
	dir := filepath.Join(vectors(t), "dss-ades", "pades")
	var cases []adesCase
	if err := json.Unmarshal(read(t, filepath.Join(dir, "expected.json")), &cases); err != nil {
		t.Fatal(err)
	}
	ranges := regexp.MustCompile(`/ByteRange\s*\[\s*0\s+(\d+)\s+(\d+)\s+(\d+)\s*\]`)
	checked := 0
	for _, tc := range cases {
		name := strings.TrimPrefix(tc.File, "validation__")
		raw := read(t, filepath.Join(dir, tc.File))
		for i, m := range ranges.FindAllSubmatch(raw, -1) {
			var n [3]int // where the contents begin and end, and how much follows
			for i := range n {
				n[i], _ = strconv.Atoi(string(m[i+1]))
			}
			der, err := hex.DecodeString(strings.Trim(string(raw[n[0]:n[1]]), "<> \r\n"))
			if err != nil {
				t.Fatal(err)
			}
			want := cms.Intact
			if list := pdfReadings[name]; i < len(list) {
				want = list[i]
			}
			content := append(bytes.Clone(raw[:n[0]]), raw[n[1]:n[1]+n[2]]...)
			for _, got := range pdfIntegrity(t, der, content) {
				if checked++; got != want {
					t.Errorf("%s, signature %d: %s, want %s", name, i, got, want)
				}
			}
			content[0] ^= 1
			for _, got := range pdfIntegrity(t, der, content) {
				if got == cms.Intact {
					t.Errorf("%s, signature %d: intact after a change", name, i)
				}
			}
		}
	}
	if checked < 73 {
		t.Errorf("only %d signatures", checked)
	}
}

// pdfIntegrity checks one Contents: a signature, or a document time-stamp.
func pdfIntegrity(t *testing.T, der, content []byte) (out []cms.Integrity) {
	t.Helper()
	if token, err := cms.ParsePaddedToken(der); err == nil {
		return append(out, token.Verify(primitive.Digest(token.Hash, content), nil).Integrity)
	}
	d, err := cms.ParsePadded(der)
	if err != nil {
		return append(out, cms.Malformed)
	}
	in := cms.Input{}
	if d.Detached {
		in.Content = bytes.NewReader(content)
	}
	sigs, err := d.Verify(in)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range sigs {
		out = append(out, s.Integrity)
	}
	return out
}
