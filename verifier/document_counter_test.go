package verifier_test

import (
	"crypto"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openjpki/jpki/verifier"
)

// countersigned adds a counter-signature over a signature value (RFC 5652 §11.4). Some spoil it.
func countersigned(t *testing.T, by leaf, over func(value []byte) []byte, spoil func([]byte)) func([]byte) [][]byte {
	t.Helper()
	return func(value []byte) [][]byte {
		cert := must(x509.ParseCertificate(by.der))
		attrs := [][]byte{
			attribute("1.2.840.113549.1.9.4", tlv(4, sha256Of(over(value)))),
			attribute("1.2.840.113549.1.9.16.2.47", tlv(0x30, tlv(0x30, tlv(0x30, tlv(4, sha256Of(by.der)))))),
		}
		slices.SortFunc(attrs, func(a, b []byte) int { return strings.Compare(string(a), string(b)) })
		_, sig := by.sign(t, crypto.SHA256, tlv(0x31, attrs...))
		if spoil != nil {
			spoil(sig)
		}
		return [][]byte{attribute("1.2.840.113549.1.9.6", tlv(0x30, []byte{2, 1, 1}, tlv(0x30, cert.RawIssuer, must(asn1.Marshal(cert.SerialNumber))),
			tlv(0x30, must(asn1.Marshal(oid(oidSHA256)))), tlv(0xa0, attrs...), tlv(0x30, must(asn1.Marshal(oid("1.2.840.113549.1.1.1"))), []byte{5, 0}), tlv(4, sig)))}
	}
}

// counterXML is a CounterSignature over the element called v, which is as given.
func counterXML(t *testing.T, by leaf, over string, spoil func([]byte)) string {
	t.Helper()
	b64 := base64.StdEncoding.EncodeToString
	info := `><CanonicalizationMethod Algorithm=` + exclusive + `></CanonicalizationMethod><SignatureMethod Algorithm="http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"></SignatureMethod>` +
		`<Reference Type="http://uri.etsi.org/01903#CountersignedSignature" URI="#v"><Transforms><Transform Algorithm=` + exclusive + `></Transform></Transforms>` +
		`<DigestMethod Algorithm="http://www.w3.org/2001/04/xmlenc#sha256"></DigestMethod><DigestValue>` + b64(sha256Of([]byte(over))) + `</DigestValue></Reference></SignedInfo>`
	_, value := by.sign(t, crypto.SHA256, []byte(`<SignedInfo xmlns=`+dsig+info))
	if spoil != nil {
		spoil(value)
	}
	return `<CounterSignature><Signature xmlns=` + dsig + `><SignedInfo` + info + `<SignatureValue>` + b64(value) + `</SignatureValue><KeyInfo><X509Data><X509Certificate>` +
		b64(by.der) + `</X509Certificate></X509Data></KeyInfo></Signature></CounterSignature>`
}

// counterJWS is an unsigned property with a counter-signature over a value.
func (a *archive) counterJWS(t *testing.T, by leaf, over []byte, spoil func([]byte)) map[string]any {
	t.Helper()
	protected := base64url(must(json.Marshal(map[string]any{"alg": "RS256", "x5c": [][]byte{by.der}})))
	_, value := by.sign(t, crypto.SHA256, []byte(protected+"."+base64url(over)))
	if spoil != nil {
		spoil(value)
	}
	return map[string]any{"cSig": protected + ".." + base64url(value)}
}

// TestCounterSignatures: a counter-signature has a verdict of its own, by the same rules. Whatever it is, that on the signature it
// countersigns is the same; a document passes only if all its signatures do, and a counter-signature never makes up for one.
func TestCounterSignatures(t *testing.T) {
	a := newArchive(t)
	witness := a.signCert(t)
	foreign := newAuthority(t, "sign", ecKey(elliptic.P256()), t0)
	stranger := a.issue(t, foreign, rsaKey(), likeSign)
	gone := a.signCert(t)
	bend := func(v []byte) { v[7] ^= 1 }
	for _, r := range []struct {
		name     string
		by       leaf
		other    bool // over something else than the value
		spoil    func([]byte)
		broken   bool // the signature itself
		document verifier.Code
		counter  verifier.Code
		failed   bool
	}{
		{name: "valid", by: witness, document: verifier.OK, counter: verifier.OK},
		{name: "broken", by: witness, spoil: bend, document: verifier.SignatureWrong, counter: verifier.SignatureWrong, failed: true},
		{name: "over another value", by: witness, other: true, counter: verifier.DigestMismatch, failed: true},
		{name: "by a stranger", by: stranger, document: verifier.UntrustedIssuer, counter: verifier.UntrustedIssuer},
		{name: "by one whose certificate is revoked", by: gone, document: verifier.RevokedAttributesChanged, counter: verifier.RevokedAttributesChanged},
		{name: "valid, of a signature that is broken", by: witness, broken: true, counter: verifier.OK, failed: true},
	} {
		plain := file{by: a.signer, content: contract, certs: [][]byte{r.by.der}}
		over := func(v []byte) []byte { return v }
		otherValue := []byte("another value")
		if r.other {
			over = func([]byte) []byte { return otherValue }
		}
		plain.stamp = countersigned(t, r.by, over, r.spoil)
		if r.broken {
			value := countersigned(t, r.by, over, r.spoil)
			plain.spoil = bend
			plain.stamp = value
		}
		first := string(a.xades(t, "", ""))
		_, rest, _ := strings.Cut(first, `<SignatureValue Id="v">`)
		b64, _, _ := strings.Cut(rest, "<")
		element := `<SignatureValue xmlns=` + dsig + ` Id="v">` + b64 + `</SignatureValue>`
		if r.other {
			element = `<SignatureValue xmlns=` + dsig + ` Id="v">AAAA</SignatureValue>`
		}
		xml := a.xades(t, "", counterXML(t, r.by, element, r.spoil))
		var flat struct{ Signature string }
		if err := json.Unmarshal(a.jades(t, nil, nil), &flat); err != nil {
			t.Fatal(err)
		}
		value := must(base64.RawURLEncoding.DecodeString(flat.Signature))
		if r.other {
			value = otherValue
		}
		jws := a.jades(t, nil, a.counterJWS(t, r.by, value, r.spoil))
		if r.broken {
			xml = []byte(strings.Replace(string(xml), ">contract<", ">contrast<", 1))
			jws = []byte(strings.Replace(string(jws), base64url(contract), base64url([]byte("The undersigned opens a contract.")), 1))
		}
		for format, data := range map[string][]byte{"CAdES": plain.der(t), "XAdES": xml, "JAdES": jws} {
			t.Run(format+" "+r.name, func(t *testing.T) {
				a.now = t0
				v := a.documents(t, func(c *verifier.DocumentConfig) {
					c.Sources = []verifier.RevocationSource{pool(list(t, a.sign[1], t0.Add(-time.Hour), gone.revoked(t0.Add(-day), 3)))}
				})
				res, err := v.Document(t.Context(), verifier.DocumentInput{Data: data})
				if err != nil || len(res.Signatures) != 2 {
					t.Fatalf("%+v %v", res, err)
				}
				s, counter := res.Signatures[0], res.Signatures[1]
				if s.Countersigns || !counter.Countersigns || (s.Code == verifier.OK) == r.broken {
					t.Errorf("the signature: %s %+v", s.Code, s.Checks)
				}
				want := r.counter
				if r.other && format == "JAdES" {
					want = verifier.SignatureWrong // it has no digest of its own
				}
				if counter.Code != want {
					t.Errorf("the counter-signature: %s, want %s: %+v", counter.Code, want, counter.Checks)
				}
				if res.OK() != (r.document == verifier.OK && r.counter == verifier.OK && !r.broken) || r.document != "" && res.Code != r.document || r.failed != (res.Indication == verifier.TotalFailed) {
					t.Errorf("the document: %s %s", res.Indication, res.Code)
				}
				sameAgain(t, a, v, res)
			})
		}
	}
}
