package verifier_test

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/sha512"
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

// rules is the text of a signature policy, rulesXML one of another form, and rulesASN1 one in RFC 3125's.
var (
	rules     = []byte("Signatures under these rules are for contracts up to a million yen.")
	rulesXML  = []byte("<?xml version='1.0'?>\n<policy b='2' a='1'>up to a million yen</policy>")
	inASN1    = bytes.Join([][]byte{tlv(0x30, must(asn1.Marshal(oid("2.16.840.1.101.3.4.2.1")))), tlv(0x30, tlv(6, []byte{0x88, 0x37, 7}))}, nil)
	rulesASN1 = tlv(0x30, inASN1, tlv(4, make([]byte, 32)))
)

const rulesID, rulesURN = "2.999.7", "urn:oid:2.999.7"

// asXML is the canonical form of rulesXML.
const asXML = `<policy a="1" b="2">up to a million yen</policy>`

func sha256Of(data []byte) []byte { sum := sha256.Sum256(data); return sum[:] }

// hashed is an OtherHashAlgAndValue.
func hashed(alg string, digest []byte) []byte {
	return tlv(0x30, tlv(0x30, must(asn1.Marshal(oid(alg)))), tlv(4, digest))
}

const (
	oidSHA256 = "2.16.840.1.101.3.4.2.1"
	oidSHA512 = "2.16.840.1.101.3.4.2.3"
)

// stored is a signature-policy-store.
func stored(document []byte) func([]byte) [][]byte {
	return func([]byte) [][]byte {
		return [][]byte{attribute("0.4.0.19122.1.3", tlv(0x30, must(asn1.Marshal(oid("2.999.8"))), tlv(4, document)))}
	}
}

// policyXML is the SignaturePolicyId of an XAdES signature, in canonical form.
func policyXML(transforms string, digest []byte) string {
	return `<SignaturePolicyIdentifier><SignaturePolicyId><SigPolicyId><Identifier>` + rulesURN + `</Identifier></SigPolicyId>` + transforms +
		`<SigPolicyHash><DigestMethod xmlns=` + dsig + ` Algorithm="http://www.w3.org/2001/04/xmlenc#sha256"></DigestMethod><DigestValue xmlns=` + dsig + `>` +
		base64.StdEncoding.EncodeToString(digest) + `</DigestValue></SigPolicyHash><SigPolicyQualifiers><SigPolicyQualifier><SPURI>https://example.jp/rules</SPURI>` +
		`</SigPolicyQualifier></SigPolicyQualifiers></SignaturePolicyId></SignaturePolicyIdentifier>`
}

func transformXML(algorithm string) string {
	return `<Transforms xmlns=` + dsig + `><Transform Algorithm="` + algorithm + `"></Transform></Transforms>`
}

// xades signs <doc> with a signature in it that has these properties, written in canonical form octet by octet.
func (a *archive) xades(t *testing.T, signed, unsigned string) []byte {
	t.Helper()
	const space = ` xmlns="http://uri.etsi.org/01903/v1.3.2#"`
	b64 := base64.StdEncoding.EncodeToString
	certificate := `<SigningCertificateV2><Cert><CertDigest><DigestMethod xmlns=` + dsig + ` Algorithm="http://www.w3.org/2001/04/xmlenc#sha256"></DigestMethod>` +
		`<DigestValue xmlns=` + dsig + `>` + b64(sha256Of(a.signer.der)) + `</DigestValue></CertDigest></Cert></SigningCertificateV2>`
	properties := ` Id="p"><SignedSignatureProperties>` + certificate + signed + `</SignedSignatureProperties></SignedProperties>`
	reference := func(uri, more, target string) string {
		return `<Reference` + more + ` URI="` + uri + `"><Transforms>` + map[bool]string{true: `<Transform Algorithm="http://www.w3.org/2000/09/xmldsig#enveloped-signature"></Transform>`}[uri == ""] +
			`<Transform Algorithm=` + exclusive + `></Transform></Transforms><DigestMethod Algorithm="http://www.w3.org/2001/04/xmlenc#sha256"></DigestMethod><DigestValue>` +
			b64(sha256Of([]byte(target))) + `</DigestValue></Reference>`
	}
	info := `><CanonicalizationMethod Algorithm=` + exclusive + `></CanonicalizationMethod><SignatureMethod Algorithm="http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"></SignatureMethod>` +
		reference("", "", "<doc>contract</doc>") + reference("#p", ` Type="http://uri.etsi.org/01903#SignedProperties"`, "<SignedProperties"+space+properties) + `</SignedInfo>`
	_, value := a.signer.sign(t, crypto.SHA256, []byte(`<SignedInfo xmlns=`+dsig+info))
	if unsigned != "" {
		unsigned = `<UnsignedProperties><UnsignedSignatureProperties>` + unsigned + `</UnsignedSignatureProperties></UnsignedProperties>`
	}
	return []byte(`<doc>contract<Signature xmlns=` + dsig + ` Id="s"><SignedInfo` + info + `<SignatureValue Id="v">` + b64(value) + `</SignatureValue><KeyInfo><X509Data><X509Certificate>` +
		b64(a.signer.der) + `</X509Certificate></X509Data></KeyInfo><Object><QualifyingProperties` + space + ` Target="#s"><SignedProperties` + properties + unsigned + `</QualifyingProperties></Object></Signature></doc>`)
}

func storeXML(document []byte) string {
	return `<SignaturePolicyStore xmlns="http://uri.etsi.org/01903/v1.4.1#"><SPDocSpecification></SPDocSpecification><SignaturePolicyDocument>` + base64.StdEncoding.EncodeToString(document) + `</SignaturePolicyDocument></SignaturePolicyStore>`
}

// jades signs with a sigPId, and etsiU if unsigned is not nil.
func (a *archive) jades(t *testing.T, policy map[string]any, unsigned map[string]any) []byte {
	t.Helper()
	header := map[string]any{"alg": "RS256", "x5c": [][]byte{a.signer.der}, "x5t#S256": base64url(sha256Of(a.signer.der))}
	if policy != nil {
		header["sigPId"] = policy
	}
	protected := base64url(must(json.Marshal(header)))
	_, value := a.signer.sign(t, crypto.SHA256, []byte(protected+"."+base64url(contract)))
	out := map[string]any{"payload": base64url(contract), "protected": protected, "signature": base64url(value)}
	if unsigned != nil {
		out["header"] = map[string]any{"etsiU": []any{base64url(must(json.Marshal(unsigned)))}}
	}
	return must(json.Marshal(out))
}

// TestSignaturePolicy: the digest of a signature policy that was signed is held against the text of the relying party or else against
// what came along; that there is no text is said, and by whom it is wanted refused; another text is refused.
func TestSignaturePolicy(t *testing.T) {
	a := newArchive(t)
	plain := file{by: a.signer, content: contract}
	cades := func(digest []byte, store func([]byte) [][]byte) []byte {
		f := plain
		f.policy, f.hashed, f.stamp = rulesID, digest, store
		return f.der(t)
	}
	bound := hashed(oidSHA256, sha256Of(rules))
	sum512 := sha512.Sum512(rules)
	jadesPolicy := func(digest []byte, more ...any) map[string]any {
		out := map[string]any{"id": map[string]any{"id": rulesURN}, "digAlg": "S256", "digVal": base64url(digest)}
		for i := 0; i < len(more); i += 2 {
			out[more[i].(string)] = more[i+1]
		}
		return out
	}
	const matches, differs, missing = verifier.PolicyMatches, verifier.PolicyDiffers, verifier.PolicyMissing
	for _, r := range []struct {
		name   string
		data   []byte
		text   []byte // the caller's
		agreed string // rulesID if empty
		code   verifier.Code
		state  verifier.PolicyDocumentState // none if empty
		source string
	}{
		{name: "CAdES, our text", data: cades(bound, nil), text: rules, code: verifier.OK, state: matches, source: "caller"},
		{name: "CAdES, our text, by SHA-512", data: cades(hashed(oidSHA512, sum512[:]), nil), text: rules, code: verifier.OK, state: matches, source: "caller"},
		{name: "CAdES, another text of ours", data: cades(bound, nil), text: []byte("up to a billion yen"), code: verifier.SignaturePolicyMismatch, state: differs, source: "caller"},
		{name: "CAdES, another text of ours, which nobody asked to read", data: cades(bound, nil), text: []byte("up to a billion yen"), agreed: "*", code: verifier.SignaturePolicyMismatch, state: differs, source: "caller"},
		{name: "CAdES, another text of ours and the right one in the store", data: cades(bound, stored(rules)), text: []byte("up to a billion yen"), code: verifier.SignaturePolicyMismatch, state: differs, source: "caller"},
		{name: "CAdES, our text and another in the store", data: cades(bound, stored([]byte("up to a billion yen"))), text: rules, code: verifier.OK, state: matches, source: "caller"},
		{name: "CAdES, in the store", data: cades(bound, stored(rules)), code: verifier.OK, state: matches, source: "document"},
		{name: "CAdES, another in the store", data: cades(bound, stored([]byte("up to a billion yen"))), code: verifier.SignaturePolicyMismatch, state: differs, source: "document"},
		{name: "CAdES, another in the store and then the right one", data: cades(bound, func(v []byte) [][]byte {
			return slices.Concat(stored([]byte("up to a billion yen"))(v), stored(rules)(v))
		}), code: verifier.OK, state: matches, source: "document"},
		{name: "CAdES, a store that cannot be read", data: cades(bound, func([]byte) [][]byte { return [][]byte{attribute("0.4.0.19122.1.3", tlv(4, rules))} }), code: verifier.SignaturePolicyMissing, state: missing},
		{name: "CAdES, no text", data: cades(bound, nil), code: verifier.SignaturePolicyMissing, state: missing},
		{name: "CAdES, no text wanted", data: cades(bound, nil), agreed: "*", code: verifier.OK, state: missing},
		{name: "CAdES, no digest", data: cades(hashed(oidSHA256, nil), nil), code: verifier.OK, state: verifier.PolicyWithoutHash},
		{name: "CAdES, a digest of zeros", data: cades(hashed(oidSHA256, make([]byte, 32)), stored(rules)), text: rules, code: verifier.OK, state: verifier.PolicyWithoutHash},
		{name: "CAdES, unknown hash function", data: cades(hashed("2.999.1", sha256Of(rules)), nil), text: rules, code: verifier.SignaturePolicyMismatch, state: verifier.PolicyNotProcessed},
		{name: "CAdES, a policy without the field of its digest", data: cades([]byte{}, nil), text: rules, code: verifier.SignaturePolicyUnknown},
		{name: "CAdES, ASN.1", data: cades(hashed(oidSHA256, sha256Of(inASN1)), stored(rulesASN1)), code: verifier.OK, state: matches, source: "document"},
		{name: "CAdES, ASN.1 by all its octets", data: cades(hashed(oidSHA256, sha256Of(rulesASN1)), nil), text: rulesASN1, code: verifier.OK, state: matches, source: "caller"},
		{name: "CAdES, ASN.1 with octets behind", data: cades(hashed(oidSHA256, sha256Of(inASN1)), nil), text: append(slices.Clone(rulesASN1), 0), code: verifier.SignaturePolicyMismatch, state: differs, source: "caller"},

		{name: "XAdES without policy", data: a.xades(t, "", ""), code: verifier.OK},
		{name: "XAdES, our text", data: a.xades(t, policyXML("", sha256Of(rules)), ""), text: rules, code: verifier.OK, state: matches, source: "caller"},
		{name: "XAdES, another text of ours", data: a.xades(t, policyXML("", sha256Of(rules)), ""), text: rulesXML, code: verifier.SignaturePolicyMismatch, state: differs, source: "caller"},
		{name: "XAdES, no text", data: a.xades(t, policyXML("", sha256Of(rules)), ""), code: verifier.SignaturePolicyMissing, state: missing},
		{name: "XAdES, no text wanted", data: a.xades(t, policyXML("", sha256Of(rules)), ""), agreed: "*", code: verifier.OK, state: missing},
		{name: "XAdES, in the store", data: a.xades(t, policyXML("", sha256Of(rules)), storeXML(rules)), code: verifier.OK, state: matches, source: "document"},
		{name: "XAdES, another in the store", data: a.xades(t, policyXML("", sha256Of(rules)), storeXML(rulesXML)), code: verifier.SignaturePolicyMismatch, state: differs, source: "document"},
		{name: "XAdES, canonical form", data: a.xades(t, policyXML(transformXML("http://www.w3.org/2001/10/xml-exc-c14n#"), sha256Of([]byte(asXML))), ""), text: rulesXML, code: verifier.OK, state: matches, source: "caller"},
		{name: "XAdES, canonical form of what is no XML", data: a.xades(t, policyXML(transformXML("http://www.w3.org/2001/10/xml-exc-c14n#"), sha256Of(rules)), ""), text: rules, code: verifier.SignaturePolicyMismatch, state: verifier.PolicyNotProcessed, source: "caller"},
		{name: "XAdES, unknown transform", data: a.xades(t, policyXML(transformXML("urn:x"), sha256Of(rules)), storeXML(rules)), code: verifier.SignaturePolicyMismatch, state: verifier.PolicyNotProcessed, source: "document"},
		{name: "XAdES, unknown transform, no text wanted", data: a.xades(t, policyXML(transformXML("urn:x"), sha256Of(rules)), storeXML(rules)), agreed: "*", code: verifier.OK, state: verifier.PolicyNotProcessed, source: "document"},
		{name: "XAdES, as specified", data: a.xades(t, policyXML(transformXML("http://uri.etsi.org/01903/v1.3.2/SignaturePolicy/SPDocDigestAsInSpecification"), sha256Of(inASN1)), ""), text: rulesASN1, code: verifier.OK, state: matches, source: "caller"},
		{name: "XAdES, ASN.1 without saying so", data: a.xades(t, policyXML("", sha256Of(inASN1)), ""), text: rulesASN1, code: verifier.SignaturePolicyMismatch, state: differs, source: "caller"},
		{name: "XAdES, implied", data: a.xades(t, "<SignaturePolicyIdentifier><SignaturePolicyImplied></SignaturePolicyImplied></SignaturePolicyIdentifier>", ""), text: rules, code: verifier.SignaturePolicyUnknown},
		{name: "XAdES, implied and agreed to", data: a.xades(t, "<SignaturePolicyIdentifier><SignaturePolicyImplied></SignaturePolicyImplied></SignaturePolicyIdentifier>", ""), agreed: "implied", code: verifier.OK},
		{name: "XAdES, implied and an identifier", data: a.xades(t, "<SignaturePolicyIdentifier><SignaturePolicyImplied></SignaturePolicyImplied>"+strings.TrimPrefix(policyXML("", sha256Of(rules)), "<SignaturePolicyIdentifier>"), ""), agreed: "implied", code: verifier.SignaturePolicyUnknown},
		{name: "XAdES, two digests", data: a.xades(t, strings.Replace(policyXML("", sha256Of(rules)), "<SigPolicyHash>", `<SigPolicyHash><DigestMethod xmlns=`+dsig+` Algorithm="http://www.w3.org/2001/04/xmlenc#sha256"></DigestMethod><DigestValue xmlns=`+dsig+`>AAAA</DigestValue></SigPolicyHash><SigPolicyHash>`, 1), ""), text: rules, code: verifier.SignaturePolicyUnknown},

		{name: "JAdES without policy", data: a.jades(t, nil, nil), code: verifier.OK},
		{name: "JAdES, our text", data: a.jades(t, jadesPolicy(sha256Of(rules)), nil), text: rules, code: verifier.OK, state: matches, source: "caller"},
		{name: "JAdES, another text of ours", data: a.jades(t, jadesPolicy(sha256Of(rules)), nil), text: rulesXML, code: verifier.SignaturePolicyMismatch, state: differs, source: "caller"},
		{name: "JAdES, no text", data: a.jades(t, jadesPolicy(sha256Of(rules)), nil), code: verifier.SignaturePolicyMissing, state: missing},
		{name: "JAdES, no text wanted", data: a.jades(t, jadesPolicy(sha256Of(rules)), nil), agreed: "*", code: verifier.OK, state: missing},
		{name: "JAdES, in the store", data: a.jades(t, jadesPolicy(sha256Of(rules)), map[string]any{"sigPSt": map[string]any{"sigPolDoc": rules}}), code: verifier.OK, state: matches, source: "document"},
		{name: "JAdES, in the store, base64url", data: a.jades(t, jadesPolicy(sha256Of(rules)), map[string]any{"sigPSt": map[string]any{"sigPolDoc": base64url(rules)}}), code: verifier.OK, state: matches, source: "document"},
		{name: "JAdES, another in the store", data: a.jades(t, jadesPolicy(sha256Of(rules)), map[string]any{"sigPSt": map[string]any{"sigPolDoc": rulesXML}}), code: verifier.SignaturePolicyMismatch, state: differs, source: "document"},
		{name: "JAdES, a place in the store", data: a.jades(t, jadesPolicy(sha256Of(rules)), map[string]any{"sigPSt": map[string]any{"sigPolLocalURI": "file:///etc/passwd"}}), code: verifier.SignaturePolicyMissing, state: missing},
		{name: "JAdES, as specified", data: a.jades(t, jadesPolicy(sha256Of(inASN1), "digPSp", true), nil), text: rulesASN1, code: verifier.OK, state: matches, source: "caller"},
		{name: "JAdES, ASN.1 without saying so", data: a.jades(t, jadesPolicy(sha256Of(inASN1)), nil), text: rulesASN1, code: verifier.SignaturePolicyMismatch, state: differs, source: "caller"},
		{name: "JAdES, no digest", data: a.jades(t, map[string]any{"id": map[string]any{"id": rulesURN}}, nil), text: rules, code: verifier.OK, state: verifier.PolicyWithoutHash},
		{name: "JAdES, unknown hash function", data: a.jades(t, jadesPolicy(sha256Of(rules), "digAlg", "S1"), nil), text: rules, code: verifier.SignaturePolicyMismatch, state: verifier.PolicyNotProcessed},
		{name: "JAdES, implied: there is no such thing, and what has no identifier is none", data: a.jades(t, map[string]any{}, nil), agreed: "implied", code: verifier.MalformedSignature},
		{name: "JAdES, an empty identifier", data: a.jades(t, map[string]any{"id": map[string]any{"id": ""}}, nil), agreed: "*", code: verifier.MalformedSignature},
	} {
		t.Run(r.name, func(t *testing.T) {
			a.now = t0
			v := a.documents(t, func(c *verifier.DocumentConfig) {
				c.Sources = []verifier.RevocationSource{pool(list(t, a.sign[1], t0.Add(-time.Hour)))}
				if c.Policy.SignaturePolicies = []string{r.agreed}; r.agreed == "" {
					c.Policy.SignaturePolicies = []string{rulesID}
				}
				if r.text != nil {
					c.PolicyDocuments = []verifier.SignaturePolicyDocument{{ID: rulesURN, Data: r.text}}
				}
			})
			res, err := v.Document(t.Context(), verifier.DocumentInput{Data: r.data})
			if err != nil || len(res.Signatures) != 1 {
				t.Fatalf("%+v %v", res, err)
			}
			s := res.Signatures[0]
			if s.Code != r.code || res.OK() != (r.code == verifier.OK) {
				t.Fatalf("%s, want %s: %+v", s.Code, r.code, s.Checks)
			}
			var state verifier.PolicyDocumentState
			var source string
			if s.Policy != nil {
				state, source = s.Policy.State, s.Policy.Source
			}
			if state != r.state || source != r.source {
				t.Errorf("%q from %q, want %q from %q: %+v", state, source, r.state, r.source, s.Policy)
			}
			if state == matches && (s.Policy.SHA256 == "" || len(s.Policy.Digest) == 0 || s.Policy.Hash == "") {
				t.Errorf("%+v", s.Policy)
			}
			if r.state == missing && r.code == verifier.OK && !slices.ContainsFunc(s.Checks, func(c verifier.Check) bool {
				return c.ID == verifier.CheckVCI && strings.Contains(c.Detail, "was not compared")
			}) {
				t.Errorf("passed in silence: %+v", s.Checks)
			}
			if last := s.Checks[len(s.Checks)-1]; strings.HasPrefix(string(r.code), "signature-policy") && (last.OK || last.ID != verifier.CheckVCI) {
				t.Errorf("ended at %+v", last)
			}
			conforms(t, res)
			sameAgain(t, a, v, res)
		})
	}
}

// TestPolicyDocumentsMisuse: two texts under one name, or none, are no configuration.
func TestPolicyDocumentsMisuse(t *testing.T) {
	a := newArchive(t)
	for name, list := range map[string][]verifier.SignaturePolicyDocument{
		"no name": {{Data: rules}}, "no text": {{ID: rulesID}}, "twice": {{rulesID, rules}, {rulesURN, rules}}, "too long": {{rulesID, make([]byte, verifier.MaxPolicyBytes+1)}},
	} {
		cfg := verifier.DocumentConfig{Policy: must(verifier.FindDocumentPolicy("rfc5280")), Anchors: []*x509.Certificate{a.sign[1].cert}, PolicyDocuments: list}
		if _, err := verifier.New(verifier.Config{Documents: &cfg, Now: time.Now, Rand: bytes.NewReader(nil)}); err == nil {
			t.Error(name)
		}
	}
}
