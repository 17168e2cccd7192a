package xmldsig_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openjpki/jpki/verifier/primitive"
	"github.com/openjpki/jpki/verifier/xmldsig/c14n"
)

const (
	dsig      = "http://www.w3.org/2000/09/xmldsig#"
	exclusive = "http://www.w3.org/2001/10/xml-exc-c14n#"
	enveloped = dsig + "enveloped-signature"
	rsaSHA256 = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"
	ecSHA256  = "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha256"
	ecSHA384  = "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384"
)

// An identity is a key with a certificate of its own making.
type identity struct {
	method string
	key    crypto.Signer
	cert   []byte
}

func newIdentity(t testing.TB, method string) identity {
	t.Helper()
	var key crypto.Signer
	var err error
	switch method {
	case ecSHA256:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case ecSHA384:
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	default:
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	}
	if err != nil {
		t.Fatal(err)
	}
	return identity{method, key, certify(t, key)}
}

func certify(t testing.TB, key crypto.Signer) []byte {
	t.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// files writes key and certificate in PEM and returns the argument of xmlsec1's --privkey-pem.
func (id identity) files(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	der, err := x509.MarshalPKCS8PrivateKey(id.key)
	if err != nil {
		t.Fatal(err)
	}
	key, cert := filepath.Join(dir, "key.pem"), filepath.Join(dir, "cert.pem")
	save(t, key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	save(t, cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: id.cert}))
	return key + "," + cert
}

func save(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// xmlsec runs xmlsec1 on a document.
func xmlsec(t testing.TB, doc string, args ...string) (string, error) {
	t.Helper()
	if _, err := exec.LookPath("xmlsec1"); err != nil {
		if os.Getenv("JPKI_TEST_REQUIRE") == "1" {
			t.Fatal("xmlsec1 is missing")
		}
		t.Skip("xmlsec1 is missing")
	}
	file := filepath.Join(t.TempDir(), "doc.xml")
	save(t, file, []byte(doc))
	cmd := exec.CommandContext(t.Context(), "xmlsec1", append(args, file)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, stderr.String())
	}
	return string(out), err
}

// A part is one reference to be made.
type part struct {
	uri, typ   string
	transforms []string // identifiers, or elements in full
	more       string   // in place of the digest's element
}

// A template says what a signature is to look like; what is empty is as usual.
type template struct {
	canonical string
	method    string
	parts     []part
	info      string // in SignedInfo, after the references
	keyInfo   string
	objects   string
	attrs     string
}

// placeholder stands where a digest or a value will.
const placeholder = "PLACEHOLDER"

func (tm template) String() string {
	var b strings.Builder
	canonical := tm.canonical
	if canonical == "" {
		canonical = exclusive
	}
	if !strings.HasPrefix(canonical, "<") {
		canonical = fmt.Sprintf(`<ds:CanonicalizationMethod Algorithm="%s"/>`, canonical)
	}
	method := tm.method
	if !strings.HasPrefix(method, "<") {
		method = fmt.Sprintf(`<ds:SignatureMethod Algorithm="%s"/>`, method)
	}
	fmt.Fprintf(&b, `<ds:Signature xmlns:ds="%s" Id="S"%s><ds:SignedInfo>%s%s`, dsig, tm.attrs, canonical, method)
	for _, p := range tm.parts {
		fmt.Fprintf(&b, `<ds:Reference URI="%s"`, p.uri)
		if p.typ != "" {
			fmt.Fprintf(&b, ` Type="%s"`, p.typ)
		}
		b.WriteString(">")
		if len(p.transforms) > 0 {
			b.WriteString("<ds:Transforms>")
			for _, t := range p.transforms {
				if strings.HasPrefix(t, "<") {
					b.WriteString(t)
				} else {
					fmt.Fprintf(&b, `<ds:Transform Algorithm="%s"/>`, t)
				}
			}
			b.WriteString("</ds:Transforms>")
		}
		fmt.Fprintf(&b, `<ds:DigestMethod Algorithm="http://www.w3.org/2001/04/xmlenc#sha256"/><ds:DigestValue>%s%s</ds:DigestValue></ds:Reference>`, placeholder, p.more)
	}
	fmt.Fprintf(&b, `%s</ds:SignedInfo><ds:SignatureValue>%s</ds:SignatureValue>%s%s</ds:Signature>`, tm.info, placeholder, tm.keyInfo, tm.objects)
	return b.String()
}

func (id identity) keyInfo() string {
	return "<ds:KeyInfo><ds:X509Data><ds:X509Certificate>" + base64.StdEncoding.EncodeToString(id.cert) + "</ds:X509Certificate></ds:X509Data></ds:KeyInfo>"
}

// properties are XAdES properties of this signer.
func (id identity) properties() string {
	digest := sha256.Sum256(id.cert)
	return `<xades:QualifyingProperties xmlns:xades="http://uri.etsi.org/01903/v1.3.2#" Target="#S"><xades:SignedProperties Id="P"><xades:SignedSignatureProperties>` +
		`<xades:SigningTime>2026-11-23T00:00:00Z</xades:SigningTime><xades:SigningCertificateV2><xades:Cert><xades:CertDigest><ds:DigestMethod Algorithm="http://www.w3.org/2001/04/xmlenc#sha256"/>` +
		`<ds:DigestValue>` + base64.StdEncoding.EncodeToString(digest[:]) + `</ds:DigestValue></xades:CertDigest></xades:Cert></xades:SigningCertificateV2>` +
		`</xades:SignedSignatureProperties></xades:SignedProperties></xades:QualifyingProperties>`
}

func object(content string) string { return "<ds:Object>" + content + "</ds:Object>" }

// methodOf returns a canonical form by its identifier.
func methodOf(t testing.TB, uri string) c14n.Method {
	t.Helper()
	m, ok := c14n.ParseMethod(uri)
	if !ok {
		t.Fatalf("canonical form %s", uri)
	}
	return m
}

// sign fills in the digests and the value of the signature in a document. It knows references to the whole document without the
// signature, and to elements by Id; the last transform that is a canonical form counts.
func (id identity) sign(t testing.TB, tm template, document string) string {
	t.Helper()
	if tm.method == "" {
		tm.method = id.method
	}
	if tm.keyInfo == "" {
		tm.keyInfo = id.keyInfo()
	}
	document = strings.Replace(document, "SIGNATURE", tm.String(), 1)
	doc := parse(t, document)
	for _, p := range tm.parts {
		set := doc.Root().Subtree(strings.HasPrefix(p.uri, "#xpointer")).Without(doc.ByID("S")[0])
		if name, ok := strings.CutPrefix(p.uri, "#"); ok && len(doc.ByID(name)) > 0 {
			set = doc.ByID(name)[0].Subtree(false)
		}
		m := c14n.Method{}
		for _, tr := range p.transforms {
			if found, ok := c14n.ParseMethod(tr); ok {
				m = found
			}
		}
		content := canonical(t, set, m)
		if slices.Contains(p.transforms, dsig+"base64") {
			text, err := set.Text()
			if err != nil {
				t.Fatal(err)
			}
			octets, _ := base64.StdEncoding.DecodeString(text) // what is not base64 is refused anyway
			content = string(octets)
		}
		digest := sha256.Sum256([]byte(content))
		document = strings.Replace(document, placeholder, base64.StdEncoding.EncodeToString(digest[:]), 1)
	}
	m := methodOf(t, exclusive)
	if tm.canonical != "" && !strings.HasPrefix(tm.canonical, "<") {
		m = methodOf(t, tm.canonical)
	}
	info := parse(t, document).Root().Descendants(dsig, "SignedInfo")[0]
	value := id.value(t, []byte(canonical(t, info.Subtree(true), m)))
	return strings.Replace(document, placeholder, value, 1)
}

func (id identity) value(t testing.TB, message []byte) string {
	t.Helper()
	alg, err := primitive.FromXML(id.method)
	if err != nil {
		t.Fatal(err)
	}
	digest := primitive.Digest(alg.Hash, message)
	if key, ok := id.key.(*ecdsa.PrivateKey); ok {
		r, s, err := ecdsa.Sign(rand.Reader, key, digest)
		if err != nil {
			t.Fatal(err)
		}
		size := (key.Params().BitSize + 7) / 8
		return base64.StdEncoding.EncodeToString(append(r.FillBytes(make([]byte, size)), s.FillBytes(make([]byte, size))...))
	}
	value, err := id.key.Sign(rand.Reader, digest, alg.SignerOpts())
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(value)
}

func parse(t testing.TB, document string) *c14n.Document {
	t.Helper()
	doc, err := c14n.Parse([]byte(document), c14n.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func canonical(t testing.TB, s c14n.Set, m c14n.Method) string {
	t.Helper()
	var b strings.Builder
	if err := s.Write(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// The three kinds of documents.
const order = `<order xmlns="urn:order"><item Id="I" n="1">約款 &amp; 申込</item><amount>1</amount>SIGNATURE</order>`

func (id identity) enveloped(t testing.TB) string {
	t.Helper()
	return id.sign(t, template{parts: []part{{transforms: []string{enveloped, exclusive}}}}, order)
}

func (id identity) enveloping(t testing.TB) string {
	t.Helper()
	return id.sign(t, template{parts: []part{{uri: "#O"}}, objects: `<ds:Object Id="O"><amount xmlns="urn:order">1</amount></ds:Object>`}, "SIGNATURE")
}

// partial signs one element beside the signature.
func (id identity) partial(t testing.TB) string {
	t.Helper()
	return id.sign(t, template{parts: []part{{uri: "#I", transforms: []string{exclusive}}}}, order)
}

func (id identity) xades(t testing.TB) string {
	t.Helper()
	return id.sign(t, id.xadesTemplate(), order)
}

func (id identity) xadesTemplate() template {
	return template{parts: []part{
		{transforms: []string{enveloped, exclusive}},
		{uri: "#P", typ: "http://uri.etsi.org/01903#SignedProperties", transforms: []string{exclusive}},
	}, objects: object(id.properties())}
}

// fill signs a document whose digests are there already.
func (id identity) fill(t testing.TB, document string) string {
	t.Helper()
	document = strings.NewReplacer(`SignatureMethod Algorithm=""`, `SignatureMethod Algorithm="`+id.method+`"`, "</ds:Signature>", id.keyInfo()+"</ds:Signature>").Replace(document)
	info := parse(t, document).Root().Descendants(dsig, "SignedInfo")[0]
	return strings.Replace(document, placeholder, id.value(t, []byte(canonical(t, info.Subtree(true), methodOf(t, exclusive)))), 1)
}

func sum(text string) []byte {
	digest := sha256.Sum256([]byte(text))
	return digest[:]
}
