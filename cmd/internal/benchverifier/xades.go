package main

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/openjpki/jpki/verifier/xmldsig/c14n"
)

const (
	dsig      = "http://www.w3.org/2000/09/xmldsig#"
	exclusive = "http://www.w3.org/2001/10/xml-exc-c14n#"
	sha256URI = "http://www.w3.org/2001/04/xmlenc#sha256"
)

// xades makes a document of some length with an enveloped XAdES-B-B signature of the subscriber. covered is how long the
// two things are that its digests are over, and SignedInfo.
func (w *world) xades(length int) (document []byte, covered [3]int, err error) {
	method := map[string]string{rsa2048: "rsa-sha256", p256: "ecdsa-sha256", p384: "ecdsa-sha384"}[w.kind]
	cert := base64.StdEncoding.EncodeToString(w.leaf.cert.Raw)
	certDigest := sha256.Sum256(w.leaf.cert.Raw)
	reference := func(uri, typ, transforms string) string {
		return fmt.Sprintf(`<ds:Reference URI="%s"%s><ds:Transforms>%s<ds:Transform Algorithm="%s"/></ds:Transforms><ds:DigestMethod Algorithm="%s"/><ds:DigestValue>DIGEST</ds:DigestValue></ds:Reference>`,
			uri, typ, transforms, exclusive, sha256URI)
	}
	signature := `<ds:Signature xmlns:ds="` + dsig + `" Id="S"><ds:SignedInfo><ds:CanonicalizationMethod Algorithm="` + exclusive + `"/>` +
		`<ds:SignatureMethod Algorithm="http://www.w3.org/2001/04/xmldsig-more#` + method + `"/>` +
		reference("", "", `<ds:Transform Algorithm="`+dsig+`enveloped-signature"/>`) +
		reference("#P", ` Type="http://uri.etsi.org/01903#SignedProperties"`, "") +
		`</ds:SignedInfo><ds:SignatureValue>VALUE</ds:SignatureValue><ds:KeyInfo><ds:X509Data><ds:X509Certificate>` + cert + `</ds:X509Certificate></ds:X509Data></ds:KeyInfo>` +
		`<ds:Object><xades:QualifyingProperties xmlns:xades="http://uri.etsi.org/01903/v1.3.2#" Target="#S"><xades:SignedProperties Id="P"><xades:SignedSignatureProperties>` +
		`<xades:SigningTime>2026-04-01T12:00:00Z</xades:SigningTime><xades:SigningCertificateV2><xades:Cert><xades:CertDigest><ds:DigestMethod Algorithm="` + sha256URI + `"/>` +
		`<ds:DigestValue>` + base64.StdEncoding.EncodeToString(certDigest[:]) + `</ds:DigestValue></xades:CertDigest></xades:Cert></xades:SigningCertificateV2>` +
		`</xades:SignedSignatureProperties></xades:SignedProperties></xades:QualifyingProperties></ds:Object></ds:Signature>`
	const head, tail = `<application xmlns="urn:bank"><branch n="1">本店</branch>` + "\n", `</application>`
	const line = `<line n="1" unit="yen">約款 &amp; 申込</line>` + "\n"
	fill := strings.Repeat(line, max(0, length-len(head)-len(tail)-len(signature))/len(line))
	text := head + fill + signature + tail

	doc, err := c14n.Parse([]byte(text), c14n.Limits{})
	if err != nil {
		return nil, covered, err
	}
	body, err := canonical(doc.Root().Subtree(false).Without(doc.ByID("S")[0]))
	if err != nil {
		return nil, covered, err
	}
	properties, err := canonical(doc.ByID("P")[0].Subtree(false))
	if err != nil {
		return nil, covered, err
	}
	for _, part := range []string{body, properties} {
		digest := sha256.Sum256([]byte(part))
		text = strings.Replace(text, "DIGEST", base64.StdEncoding.EncodeToString(digest[:]), 1)
	}
	if doc, err = c14n.Parse([]byte(text), c14n.Limits{}); err != nil {
		return nil, covered, err
	}
	info, err := canonical(doc.Root().Descendants(dsig, "SignedInfo")[0].Subtree(false))
	if err != nil {
		return nil, covered, err
	}
	value, err := w.rawValue([]byte(info))
	if err != nil {
		return nil, covered, err
	}
	covered = [3]int{len(body), len(properties), len(info)}
	return []byte(strings.Replace(text, "VALUE", base64.StdEncoding.EncodeToString(value), 1)), covered, nil
}

func canonical(s c14n.Set) (string, error) {
	var b strings.Builder
	err := s.Write(&b, c14n.Method{Exclusive: true})
	return b.String(), err
}

// rawValue signs as XML-DSig and JOSE write it: r and s of ECDSA side by side.
func (w *world) rawValue(message []byte) ([]byte, error) {
	key, ok := w.leaf.key.(*ecdsa.PrivateKey)
	if !ok {
		return w.leaf.key.Sign(rand.Reader, w.digest(message), w.hash)
	}
	r, s, err := ecdsa.Sign(rand.Reader, key, w.digest(message))
	if err != nil {
		return nil, err
	}
	size := (key.Params().BitSize + 7) / 8
	return append(r.FillBytes(make([]byte, size)), s.FillBytes(make([]byte, size))...), nil
}
