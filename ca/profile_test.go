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

// The real authorities' own certificates are public. Ours have the same extensions in the same order, with the same
// criticality and, where no name or key is concerned, the same octets.
func TestCACertificatesHaveTheShapeOfTheRealOnes(t *testing.T) {
	vectors := os.Getenv("JPKI_VECTORS")
	if vectors == "" {
		vectors = filepath.Join("..", "..", "shared", "vectors")
	}
	text, err := os.ReadFile(filepath.Join(vectors, "jpki-ca", "sign_ca_2023.pem"))
	if err != nil {
		t.Skipf("no public CA certificates to compare with: %v", err)
	}
	block, _ := pem.Decode(text)
	real, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	serial, _ := jpki.NewSerial(rand.Reader)
	ours, err := ca.SelfSigned(ca.Sandbox(), jpki.SignCA, signers()[0], serial, real.NotBefore)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(shapeOf(real), shapeOf(ours)); diff != "" {
		t.Errorf("extensions (-real +ours):\n%s", diff)
	}
	for i, e := range real.Extensions {
		switch id := e.Id.String(); id {
		case "2.5.29.15", "2.5.29.19":
			if !bytes.Equal(e.Value, ours.Extensions[i].Value) {
				t.Errorf("%s: real %x, ours %x", id, e.Value, ours.Extensions[i].Value)
			}
		}
	}
	if !ours.NotAfter.Equal(real.NotAfter) || ours.SignatureAlgorithm != real.SignatureAlgorithm || ours.Version != real.Version {
		t.Errorf("ends %v, theirs %v", ours.NotAfter, real.NotAfter)
	}
	if tags, want := nameTags(t, ours.RawSubject), nameTags(t, real.RawSubject); !cmp.Equal(tags, want) {
		t.Errorf("string types %v, theirs %v", tags, want)
	}
}

func nameTags(t *testing.T, name []byte) (tags []int) {
	var rdns []asn1.RawValue
	if _, err := asn1.Unmarshal(name, &rdns); err != nil {
		t.Fatal(err)
	}
	for _, r := range rdns {
		var attribute struct {
			Type  asn1.ObjectIdentifier
			Value asn1.RawValue
		}
		if _, err := asn1.Unmarshal(r.Bytes, &attribute); err != nil {
			t.Fatal(err)
		}
		tags = append(tags, attribute.Value.Tag)
	}
	return tags
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
