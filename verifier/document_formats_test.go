package verifier_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/openjpki/jpki/verifier"
	"github.com/openjpki/jpki/verifier/pdf"
)

const (
	exclusive = `"http://www.w3.org/2001/10/xml-exc-c14n#"`
	dsig      = `"http://www.w3.org/2000/09/xmldsig#"`
)

// signedXML puts a signature at the end of an element <doc>, written in canonical form so that nothing of the product has to
// canonicalise it. uri names what is signed and target is that.
func signedXML(t *testing.T, by leaf, inside, uri, target string) []byte {
	t.Helper()
	sum := sha256.Sum256([]byte(target))
	transforms := `<Transform Algorithm=` + exclusive + `></Transform>`
	if uri == "" {
		transforms = `<Transform Algorithm="http://www.w3.org/2000/09/xmldsig#enveloped-signature"></Transform>` + transforms
	}
	info := `><CanonicalizationMethod Algorithm=` + exclusive + `></CanonicalizationMethod>` +
		`<SignatureMethod Algorithm="http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"></SignatureMethod>` +
		`<Reference URI="` + uri + `"><Transforms>` + transforms + `</Transforms>` +
		`<DigestMethod Algorithm="http://www.w3.org/2001/04/xmlenc#sha256"></DigestMethod><DigestValue>` + base64.StdEncoding.EncodeToString(sum[:]) +
		`</DigestValue></Reference></SignedInfo>`
	_, value := by.sign(t, crypto.SHA256, []byte(`<SignedInfo xmlns=`+dsig+info))
	return []byte(`<doc>` + inside + `<Signature xmlns=` + dsig + `><SignedInfo` + info + `<SignatureValue>` + base64.StdEncoding.EncodeToString(value) +
		`</SignatureValue><KeyInfo><X509Data><X509Certificate>` + base64.StdEncoding.EncodeToString(by.der) + `</X509Certificate></X509Data></KeyInfo></Signature></doc>`)
}

// onePage is a PDF of one page.
func onePage() []byte {
	return appendObjects([]byte("%PDF-1.7\n"), -1, map[int]string{
		1: "<</Type/Catalog/Pages 2 0 R>>", 2: "<</Type/Pages/Kids[3 0 R]/Count 1>>",
		3: "<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 100]/Contents 4 0 R/Resources<<>>>>", 4: content("0 0 m 9 9 l S"),
	}, 5, "")
}

func content(s string) string { return fmt.Sprintf("<</Length %d>>stream\n%s\nendstream", len(s), s) }

// appendObjects appends objects and a cross-reference section that follows the one at prev.
func appendObjects(data []byte, prev int, objects map[int]string, size int, trailer string) []byte {
	var b bytes.Buffer
	b.Write(data)
	var xref strings.Builder
	xref.WriteString("xref\n")
	if prev < 0 {
		xref.WriteString("0 1\n0000000000 65535 f \n")
	} else {
		trailer += fmt.Sprintf("/Prev %d", prev)
	}
	for n := range size {
		if object, ok := objects[n]; ok {
			fmt.Fprintf(&xref, "%d 1\n%010d 00000 n \n", n, b.Len())
			fmt.Fprintf(&b, "%d 0 obj\n%s\nendobj\n", n, object)
		}
	}
	at := b.Len()
	fmt.Fprintf(&b, "%strailer\n<</Size %d/Root 1 0 R%s>>\nstartxref\n%d\n%%%%EOF\n", xref.String(), size, trailer, at)
	return b.Bytes()
}

func signedPDF(t *testing.T, by leaf) []byte {
	t.Helper()
	return signPDF(t, by, onePage())
}

func signPDF(t *testing.T, by leaf, page []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := pdf.Sign(&out, bytes.NewReader(page), int64(len(page)), pdf.SignConfig{Certificate: by.der, Signer: by.key, Rand: rand.Reader, Time: t0}); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// repainted changes what the page of a signed PDF shows, by an incremental update.
func repainted(t *testing.T, signed []byte) []byte {
	t.Helper()
	var prev, size int
	if _, err := fmt.Sscanf(string(signed[bytes.LastIndex(signed, []byte("startxref"))+10:]), "%d", &prev); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscanf(string(signed[bytes.LastIndex(signed, []byte("/Size "))+6:]), "%d", &size); err != nil {
		t.Fatal(err)
	}
	// The object whose reference the page has: the root may have been written anew, so only the content is replaced.
	return appendObjects(signed, prev, map[int]string{4: content("9 9 m 0 0 l S")}, size, "")
}

// TestWhatIsCovered: a good signature is not enough if there is something else in the document.
func TestWhatIsCovered(t *testing.T) {
	a := newArchive(t)
	fresh := list(t, a.sign[1], t0.Add(-3600e9))
	v := a.documents(t, func(c *verifier.DocumentConfig) { c.Sources = []verifier.RevocationSource{pool(fresh)} })
	part := `<part Id="p">pay 100</part>`
	signed := signedPDF(t, a.signer)
	for _, r := range []struct {
		name      string
		data      []byte
		format    verifier.Format
		code      verifier.Code
		signature verifier.Code // empty if there is none
	}{
		{"XML, all of it", signedXML(t, a.signer, part, "", `<doc>`+part+`</doc>`), verifier.FormatXML, verifier.OK, verifier.OK},
		{"XML, part of it", signedXML(t, a.signer, part+`<part>pay 999</part>`, "#p", part), verifier.FormatXML, verifier.UncoveredContent, verifier.OK},
		{"XML, other content", signedXML(t, a.signer, part, "#p", `<part Id="p">pay 999</part>`), verifier.FormatXML, verifier.DigestMismatch, verifier.DigestMismatch},
		{"XML without signature", []byte(`<doc>` + part + `</doc>`), verifier.FormatXML, verifier.NoSignature, ""},
		{"PDF", signed, verifier.FormatPDF, verifier.OK, verifier.OK},
		{"PDF without signature", onePage(), verifier.FormatPDF, verifier.NoSignature, ""},
		{"PDF with another picture", repainted(t, signed), verifier.FormatPDF, verifier.ChangedAfterSigning, verifier.ChangedAfterSigning},
	} {
		t.Run(r.name, func(t *testing.T) {
			res, err := v.Document(t.Context(), verifier.DocumentInput{Data: r.data})
			if err != nil {
				t.Fatal(err)
			}
			if res.Code != r.code || res.Format != r.format || res.OK() != (r.code == verifier.OK) {
				t.Fatalf("%s %s %v: %+v", res.Format, res.Code, res.OK(), res.Signatures)
			}
			if r.signature == "" && len(res.Signatures) != 0 || r.signature != "" && (len(res.Signatures) != 1 || res.Signatures[0].Code != r.signature) {
				t.Errorf("signatures %+v", res.Signatures)
			}
			if res.Message.EN == "" || res.Action.JA == "" {
				t.Error("no words for people")
			}
			if r.signature != "" {
				a.now = t0
				sameAgain(t, a, v, res)
				a.now = t0
			}
		})
	}
}

// TestForeignDocuments: documents of DSS, in all formats, none of whose anchors we have. None may pass, each has a verdict with a
// reason, and the evidence alone gives the same one.
func TestForeignDocuments(t *testing.T) {
	dir := os.Getenv("JPKI_VECTORS")
	if dir == "" {
		t.Skip("JPKI_VECTORS names no folder of vectors")
	}
	a := newArchive(t)
	v := a.documents(t, func(c *verifier.DocumentConfig) { c.Policy = must(verifier.FindDocumentPolicy("rfc5280")) })
	seen := map[verifier.Format]int{}
	for folder, format := range map[string]verifier.Format{"cades": verifier.FormatCMS, "xades": verifier.FormatXML, "pades": verifier.FormatPDF, "jades": verifier.FormatJSON} {
		var cases []struct{ File string }
		if err := json.Unmarshal(must(os.ReadFile(filepath.Join(dir, "dss-ades", folder, "expected.json"))), &cases); err != nil {
			t.Fatal(err)
		}
		for _, c := range cases {
			data, err := os.ReadFile(filepath.Join(dir, "dss-ades", folder, c.File))
			if err != nil {
				t.Fatal(err)
			}
			res, err := v.Document(t.Context(), verifier.DocumentInput{Data: data, Detached: func(string) io.Reader { return nil }})
			if err != nil {
				continue // not of the format at all: a problem, no verdict
			}
			if res.Format != format {
				t.Errorf("%s: taken for %s", c.File, res.Format)
			}
			seen[format] += len(res.Signatures)
			if res.OK() || res.Indication == verifier.TotalPassed {
				t.Errorf("%s: passed without an anchor", c.File)
			}
			for _, s := range res.Signatures {
				if s.SubIndication == "" || len(s.Checks) == 0 || s.Checks[len(s.Checks)-1].OK || s.Attributes != nil {
					t.Errorf("%s: %+v", c.File, s)
				}
			}
			again, err := v.Reevaluate(t.Context(), res.Evidence, must(verifier.FindDocumentPolicy("rfc5280")))
			if err != nil || again.Code != res.Code || again.SubIndication != res.SubIndication {
				t.Errorf("%s: from evidence %+v, %v", c.File, again, err)
			}
		}
	}
	for _, format := range []verifier.Format{verifier.FormatCMS, verifier.FormatXML, verifier.FormatPDF, verifier.FormatJSON} {
		if seen[format] < 15 {
			t.Errorf("%s: %d signatures", format, seen[format])
		}
	}
}
