package pdf_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"maps"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openjpki/jpki/verifier/pdf"
)

var day = time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)

// A signer is a key with a certificate of its own making.
type signer struct {
	key crypto.Signer
	der []byte
}

func newSigner(t testing.TB, key crypto.Signer) signer {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "Test Signer"}, NotBefore: day.AddDate(-1, 0, 0), NotAfter: day.AddDate(5, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment, SubjectKeyId: []byte{1, 2, 3},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return signer{key, der}
}

var rsaKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

func p256(t testing.TB) signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return newSigner(t, key)
}

func (s signer) config() pdf.SignConfig {
	return pdf.SignConfig{
		Certificate: s.der, Signer: s.key, Rand: rand.Reader, Time: day, Name: "試験 花子", Reason: "Opening an account", Location: "Tokyo", Contact: "-",
	}
}

func sign(t testing.TB, document []byte, c pdf.SignConfig) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := pdf.Sign(&out, bytes.NewReader(document), int64(len(document)), c); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func read(t testing.TB, document []byte) *pdf.Document {
	t.Helper()
	d, err := pdf.Read(bytes.NewReader(document), int64(len(document)))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// need returns if an outside program is there.
func need(t testing.TB, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		if os.Getenv("JPKI_TEST_REQUIRE") == "1" {
			t.Fatalf("%s is not installed", program)
		}
		t.Skipf("%s is not installed", program)
	}
}

func run(t testing.TB, program string, args ...string) string {
	t.Helper()
	need(t, program)
	out, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// save puts a document into a file.
func save(t testing.TB, document []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "document.pdf")
	if err := os.WriteFile(path, document, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// objects are what stands between "obj" and "endobj".
type objects map[int]string

func stream(dict, data string) string {
	return fmt.Sprintf("<<%s/Length %d>>\nstream\n%s\nendstream", dict, len(data), data)
}

// sample is a document of one page with a text field and a bookmark.
func sample() objects {
	return objects{
		1:  "<</Type/Catalog/Pages 2 0 R/AcroForm 5 0 R/Outlines 13 0 R>>",
		2:  "<</Type/Pages/Kids[3 0 R]/Count 1>>",
		3:  "<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Contents 4 0 R/Annots[6 0 R]/Resources<</Font<</Helv 7 0 R>>/XObject<</X 10 0 R>>>>>>",
		4:  stream("", "BT /Helv 24 Tf 72 720 Td (Pay 100 to Alice) Tj ET /X Do"),
		5:  "<</Fields[6 0 R]/DA(/Helv 0 Tf 0 g)/DR<</Font<</Helv 7 0 R>>>>>>",
		6:  "<</Type/Annot/Subtype/Widget/FT/Tx/T(amount)/V(100)/Rect[72 600 200 620]/P 3 0 R/AP<</N 8 0 R>>>>",
		7:  "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
		8:  stream("/Type/XObject/Subtype/Form/BBox[0 0 128 20]/Resources<</Font<</Helv 7 0 R>>>>", "BT /Helv 12 Tf (100) Tj ET"),
		9:  "<</Producer(test)>>",
		10: stream("/Type/XObject/Subtype/Form/BBox[0 0 99 99]", "1 1 1 rg 0 0 99 99 re f"),
		11: "<</Type/Catalog/Pages 12 0 R>>",
		12: "<</Type/Pages/Kids[]/Count 0>>",
		13: "<</First 14 0 R/Last 14 0 R/Count 1>>",
		14: "<</Title(Top)/Parent 13 0 R/Dest[3 0 R/XYZ 0 0 0]>>",
	}
}

// The objects Sign adds to the sample.
const (
	signatureObject = 15
	fieldObject     = 16
)

// document writes objects as a file with a cross-reference table.
func document(o objects) []byte { return update([]byte("%PDF-1.7\n%\xe2\xe3\xcf\xd3\n"), o, "") }

var startxref = regexp.MustCompile(`startxref\s+(\d+)`)

// lastXref returns the place of the newest cross-reference section; −1 if there is none.
func lastXref(file []byte) int {
	all := startxref.FindAllSubmatch(file, -1)
	if len(all) == 0 {
		return -1
	}
	at, _ := strconv.Atoi(string(all[len(all)-1][1]))
	return at
}

// update appends objects, a cross-reference table and a trailer. An object that is empty becomes a free one. Entries of the
// trailer that are given stand instead of /Root and /Info.
func update(file []byte, o objects, trailer string) []byte {
	out := bytes.NewBuffer(slices.Clone(file))
	offsets := map[int]int{}
	for _, n := range slices.Sorted(maps.Keys(o)) {
		if o[n] != "" {
			offsets[n] = out.Len()
			fmt.Fprintf(out, "%d 0 obj\n%s\nendobj\n", n, o[n])
		}
	}
	return table(out.Bytes(), o, offsets, trailer)
}

func table(file []byte, o objects, offsets map[int]int, trailer string) []byte {
	out := bytes.NewBuffer(file)
	prev, at := lastXref(file), out.Len()
	out.WriteString("xref\n")
	if prev < 0 {
		out.WriteString("0 1\n0000000000 65535 f\r\n")
	}
	for _, n := range slices.Sorted(maps.Keys(o)) {
		kind, generation := "n", 0
		if _, there := offsets[n]; !there {
			kind, generation = "f", 1
		}
		fmt.Fprintf(out, "%d 1\n%010d %05d %s\r\n", n, offsets[n], generation, kind)
	}
	if trailer == "" {
		trailer = "/Root 1 0 R/Info 9 0 R"
	}
	if prev >= 0 && !strings.Contains(trailer, "/Prev") {
		trailer += fmt.Sprintf("/Prev %d", prev)
	}
	size := 99
	if prev < 0 {
		size = slices.Max(slices.Collect(maps.Keys(o))) + 1
	}
	fmt.Fprintf(out, "trailer\n<</Size %d%s>>\nstartxref\n%d\n%%%%EOF\n", size, trailer, at)
	return out.Bytes()
}

// streamed writes objects into one object stream, those in plain beside it, with a cross-reference stream.
func streamed(packed, plain objects) []byte {
	out := bytes.NewBufferString("%PDF-1.7\n%\xe2\xe3\xcf\xd3\n")
	type row struct{ kind, a, b int }
	rows := map[int]row{0: {0, 0, 255}}
	for _, n := range slices.Sorted(maps.Keys(plain)) {
		rows[n] = row{1, out.Len(), 0}
		fmt.Fprintf(out, "%d 0 obj\n%s\nendobj\n", n, plain[n])
	}
	rows[50] = row{1, out.Len(), 0}
	for i, n := range slices.Sorted(maps.Keys(packed)) {
		rows[n] = row{2, 50, i}
	}
	fmt.Fprintf(out, "50 0 obj\n%s\nendobj\n", objectStream(packed))
	at := out.Len()
	rows[51] = row{1, at, 0}
	var index, data strings.Builder
	for _, n := range slices.Sorted(maps.Keys(rows)) {
		fmt.Fprintf(&index, "%d 1 ", n)
		r := rows[n]
		data.Write([]byte{byte(r.kind), byte(r.a >> 16), byte(r.a >> 8), byte(r.a), byte(r.b)})
	}
	fmt.Fprintf(out, "51 0 obj\n%s\nendobj\nstartxref\n%d\n%%%%EOF\n",
		stream(fmt.Sprintf("/Type/XRef/Size 99/W[1 3 1]/Index[%s]/Root 1 0 R/Info 9 0 R", index.String()), data.String()), at)
	return out.Bytes()
}

func objectStream(packed objects) string {
	var head, body strings.Builder
	for _, n := range slices.Sorted(maps.Keys(packed)) {
		fmt.Fprintf(&head, "%d %d ", n, body.Len())
		body.WriteString(packed[n] + " ")
	}
	return stream(fmt.Sprintf("/Type/ObjStm/N %d/First %d", len(packed), head.Len()), head.String()+body.String())
}

// split parts the sample into what an object stream can hold and what it cannot.
func split(o objects) (packed, plain objects) {
	packed, plain = objects{}, objects{}
	for n, text := range o {
		if strings.Contains(text, "stream") {
			plain[n] = text
		} else {
			packed[n] = text
		}
	}
	return packed, plain
}
