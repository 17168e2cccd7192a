package ca_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
)

type shape struct {
	ID       string
	Critical bool
}

func shapeOf(c *x509.Certificate) (out []shape) {
	for _, e := range c.Extensions {
		out = append(out, shape{e.Id.String(), e.Critical})
	}
	return out
}

func TestCertificatesHaveTheProfilesShape(t *testing.T) {
	onBoth(t, func(w *world) {
		issued := w.issue("h1", "card-1", jpki.CardSign, jpki.CardAuth)
		phone := w.request("h1", "phone-1", jpki.PhoneSign, jpki.PhoneAuth)
		phone.Parent = &issued[0].ID
		more, err := w.a.Issue(w.t.Context(), counter, phone)
		if err != nil {
			w.t.Fatal(err)
		}
		const ku, eku, san, cp, ian, dp, aia, aki, ski = "2.5.29.15", "2.5.29.37", "2.5.29.17", "2.5.29.32", "2.5.29.18", "2.5.29.31", "1.3.6.1.5.5.7.1.1", "2.5.29.35", "2.5.29.14"
		sign := []shape{{ku, true}, {san, false}, {cp, true}, {ian, false}, {dp, false}, {aia, false}, {aki, false}, {ski, false}}
		auth := []shape{{ku, true}, {eku, false}, {cp, true}, {ian, false}, {dp, false}, {aia, false}, {aki, false}, {ski, false}}
		for i, got := range append(issued, more...) {
			c, err := x509.ParseCertificate(got.Certificate)
			if err != nil {
				w.t.Fatal(err)
			}
			want, policy, usage := sign, []string{"2.999.8.5.1.1.20", "2.999.8.5.1.3.30", "2.999.8.5.1.1.40", "2.999.8.5.1.3.50"}[i], x509.KeyUsageDigitalSignature|x509.KeyUsageContentCommitment
			if i%2 == 1 {
				want, usage = auth, x509.KeyUsageDigitalSignature
			}
			if diff := cmp.Diff(want, shapeOf(c)); diff != "" {
				w.t.Errorf("%s: extensions (-want +got):\n%s", got.Kind, diff)
			}
			sum := sha1.Sum(rawKey(w.t, c))
			switch {
			case len(c.Policies) != 1 || c.Policies[0].String() != policy:
				w.t.Errorf("%s: policies %v", got.Kind, c.Policies)
			case c.KeyUsage != usage:
				w.t.Errorf("%s: key usage %v", got.Kind, c.KeyUsage)
			case c.IsCA || c.BasicConstraintsValid:
				w.t.Errorf("%s has basicConstraints", got.Kind)
			case !bytes.Equal(c.SubjectKeyId, sum[:]) || !bytes.Equal(c.AuthorityKeyId, w.issuers[i%2].Certificate.SubjectKeyId):
				w.t.Errorf("%s: key identifiers", got.Kind)
			case len(c.OCSPServer) != 1 || c.OCSPServer[0] != "http://status.example/ocsp":
				w.t.Errorf("%s: OCSP %v", got.Kind, c.OCSPServer)
			case len(c.CRLDistributionPoints) != 1 || c.CRLDistributionPoints[0] != "http://status.example/crl/"+got.ID.Issuer.String()+"/99101.crl":
				w.t.Errorf("%s: CRL %v", got.Kind, c.CRLDistributionPoints)
			case len(got.Certificate) > 2048 || got.Certificate[0] != 0x30 || got.Certificate[1] != 0x82:
				w.t.Errorf("%s: %d octets beginning %x: card readers want 30 82 and no more than 2048", got.Kind, len(got.Certificate), got.Certificate[:2])
			case (i%2 == 1) && bytes.Contains(got.Certificate, []byte("花子")):
				w.t.Errorf("%s carries the holder's name", got.Kind)
			}
		}
	})
}

func rawKey(t *testing.T, c *x509.Certificate) []byte {
	var info struct {
		Algorithm asn1.RawValue
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(c.RawSubjectPublicKeyInfo, &info); err != nil {
		t.Fatal(err)
	}
	return info.Key.Bytes
}

// A stranger reads the certificate: OpenSSL's dump shows names, policies, both places of the CRL and the four attributes.
func TestOpenSSLReadsTheSignatureCertificate(t *testing.T) {
	onBoth(t, func(w *world) {
		got := w.issue("h1", "card-1", jpki.CardSign)[0]
		text := strings.ReplaceAll(openssl(w.t, got.Certificate, "x509", "-inform", "DER", "-noout", "-text"), " = ", "=")
		for _, want := range []string{
			"Issuer: C=JP, O=JPKI-SANDBOX, OU=JPKI-SANDBOX for digital signature, OU=jpki sandbox operator",
			"Subject: C=JP, L=Sunabako-ken, L=Aoba-shi, CN=",
			"X509v3 Key Usage: critical\n                Digital Signature, Non Repudiation",
			"X509v3 Certificate Policies: critical\n                Policy: 2.999.8.5.1.1.20\n                  CPS: http://jpki-sandbox.example/cps.html",
			"URI:http://status.example/crl/sign-1/99101.crl\n                  DirName:C=JP, O=JPKI-SANDBOX, OU=JPKI-SANDBOX for digital signature, OU=CRL Distribution Points, OU=Sunabako-ken, CN=Aoba-shi CRLDP",
			"OCSP - URI:http://status.example/ocsp",
			"Not After : Feb 17 14:59:59 2031 GMT",
			"1.2.392.200149.8.5.5.1::砂場　花子", "1.2.392.200149.8.5.5.4::319800217", "1.2.392.200149.8.5.5.3::2",
			"1.2.392.200149.8.5.5.5::砂箱県青葉市中央一丁目2番3号", "1.2.392.200149.8.5.5.2::00000", "1.2.392.200149.8.5.5.6::000000000000000",
		} {
			if !strings.Contains(text, want) {
				w.t.Errorf("OpenSSL does not show %q in\n%s", want, text)
			}
		}
	})
}

func timestamp(t time.Time) string { return strconv.FormatInt(t.Unix(), 10) }

// opensslRun is for what may fail.
func opensslRun(args ...string) ([]byte, error) {
	return exec.Command("openssl", args...).CombinedOutput()
}

func openssl(t *testing.T, stdin []byte, args ...string) string {
	t.Helper()
	cmd := exec.Command("openssl", args...)
	cmd.Stdin = bytes.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("openssl %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// The real authorities' own certificates are public. Ours are the same octet by octet but for what must differ: serial
// number, the text of names, the modulus, its identifier and the signature. Of these the lengths must agree, names and
// number aside.
func TestCACertificatesAreTheRealOnesOctetByOctet(t *testing.T) {
	vectors := os.Getenv("JPKI_VECTORS")
	if vectors == "" {
		vectors = filepath.Join("..", "..", "shared", "vectors")
	}
	files, _ := filepath.Glob(filepath.Join(vectors, "jpki-ca", "*.pem"))
	if len(files) == 0 {
		t.Skip("no public CA certificates to compare with (set JPKI_VECTORS)")
	}
	for _, file := range files {
		block, _ := pem.Decode(must(os.ReadFile(file)))
		real := must(x509.ParseCertificate(block.Bytes))
		name := jpki.CA(filepath.Base(file)[:4]) // sign_ca_2023.pem
		serial, _ := jpki.NewSerial(rand.Reader)
		ours, err := ca.SelfSigned(ca.Sandbox(), name, signers()[0], serial, real.NotBefore)
		if err != nil {
			t.Fatal(err)
		}
		if theirs, ours := anonymise(t, block.Bytes), anonymise(t, ours.Raw); !bytes.Equal(theirs, ours) {
			t.Errorf("%s (-real +ours):\n%s", filepath.Base(file), cmp.Diff(dump(theirs), dump(ours)))
		}
	}
}

// anonymise replaces what is a certificate's own: serial number and the text of names by nothing, the key, its identifier and
// the signature by as many zeros. Everything else is encoded again as it was.
func anonymise(t *testing.T, der []byte) []byte {
	t.Helper()
	out := rewrite(t, der, "", func(path string, v asn1.RawValue) ([]byte, bool) {
		switch {
		case path == "/0/0/1", v.Class == asn1.ClassUniversal && v.Tag == asn1.TagUTF8String:
			return nil, true
		case path == "/0/0/6/1", path == "/0/2", v.Class == asn1.ClassUniversal && v.Tag == asn1.TagOctetString && len(v.Bytes) == 20:
			return make([]byte, len(v.Bytes)), true
		}
		return nil, false
	})
	if bytes.Equal(out, der) {
		t.Fatal("nothing was replaced")
	}
	return out
}

// rewrite encodes DER again, value by value, and also what OCTET STRINGs hold, with the contents that replace gives.
func rewrite(t *testing.T, der []byte, path string, replace func(path string, v asn1.RawValue) ([]byte, bool)) (out []byte) {
	t.Helper()
	for i := 0; len(der) > 0; i++ {
		var v asn1.RawValue
		rest, err := asn1.Unmarshal(der, &v)
		if err != nil {
			t.Fatal(err)
		}
		here := fmt.Sprintf("%s/%d", path, i)
		contents, replaced := replace(here, v)
		switch {
		case replaced:
		case v.IsCompound, v.Class == asn1.ClassUniversal && v.Tag == asn1.TagOctetString && nested(v.Bytes):
			contents = rewrite(t, v.Bytes, here, replace)
		default:
			contents = v.Bytes
		}
		out = append(out, must(asn1.Marshal(asn1.RawValue{Class: v.Class, Tag: v.Tag, IsCompound: v.IsCompound, Bytes: contents}))...)
		der = rest
	}
	return out
}

func TestSelfSignedWithEveryAlgorithm(t *testing.T) {
	serial, _ := jpki.NewSerial(rand.Reader)
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384()} {
		k, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		c, err := ca.SelfSigned(ca.Sandbox(), jpki.AuthCA, crypto.Signer(k), serial, time.Now())
		if err != nil || c.CheckSignatureFrom(c) != nil {
			t.Errorf("%s: %v", curve.Params().Name, err)
		}
	}
}

func TestProfilesThatAreRefused(t *testing.T) {
	text, err := os.ReadFile("profiles/sandbox.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ca.ParseProfile(text); err != nil {
		t.Fatal(err)
	}
	for what, edit := range map[string][2]string{
		"unknown key":         {"name: JPKI-SANDBOX", "name: JPKI-SANDBOX\nextra: x"},
		"unknown extension":   {"subjectAltName, certificatePolicies!", "subjectAltNam, certificatePolicies!"},
		"bad policy":          {"2.999.8.5.1.1.20", "policy"},
		"bad name":            {"[C=JP, \"CN={id}\"]", "[C=JP, \"XX={id}\"]"},
		"unknown key usage":   {"[digitalSignature, nonRepudiation]", "[digitalSignature, everything]"},
		"unknown attribute":   {"field: sex", "field: shoe_size"},
		"short municipality":  {`code: "99101"`, `code: "9910"`},
		"municipality twice":  {`code: "99202"`, `code: "99101"`},
		"a kind left out":     {"  phone-auth:", "  phone-other:"},
		"an authority absent": {"  auth:\n    subject", "  other:\n    subject"},
		"terms left out":      {"validity:\n  birthdays: 5 ", "validity:\n  birthdays: 0 "},
		"renewing loses time": {"renewed: 6", "renewed: 4"},
		"renewing gains time": {"renewed: 6", "renewed: 7"},
		"window too long":     {"renewal_months: 3", "renewal_months: 61"},
		"minors' cards":       {"card_minor: 5", "card_minor: 11"},
		"full age":            {"full_age: 18", "full_age: 8"},
		"a CA too short":      {"authority_years: 10", "authority_years: 6"},
		"unknown characters":  {"[ascii, ", "[klingon, "},
		"no substitute":       {"substitute: 〓", "substitute: ''"},
		"two substitutes":     {"substitute: 〓", "substitute: 〓〓"},
		"a bad substitute":    {"substitute: 〓", "substitute: 髙"},
		"no keys":             {"keys: [rsa-2048]", "keys: []"},
		"unknown keys":        {"keys: [rsa-2048]", "keys: [rsa-1024]"},
		"a nameless signer":   {"[keyUsage!, subjectAltName, ", "[keyUsage!, "},
		"a log-in with name":  {"[keyUsage!, extKeyUsage, ", "[keyUsage!, subjectAltName, extKeyUsage, "},
	} {
		changed := strings.Replace(string(text), edit[0], edit[1], 1)
		if changed == string(text) {
			t.Fatalf("%s: nothing to edit", what)
		}
		if _, err := ca.ParseProfile([]byte(changed)); err == nil {
			t.Errorf("%s was accepted", what)
		}
	}
}
