package xmldsig_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/openjpki/jpki/verifier/xmldsig"
)

var forms = []string{
	"http://www.w3.org/TR/2001/REC-xml-c14n-20010315", "http://www.w3.org/TR/2001/REC-xml-c14n-20010315#WithComments",
	"http://www.w3.org/2006/12/xml-c14n11", "http://www.w3.org/2006/12/xml-c14n11#WithComments",
	exclusive, exclusive + "WithComments",
}

// What xmlsec1 signs, we accept, in every canonical form, by every kind of key that cards have had.
func TestAgainstXMLSec(t *testing.T) {
	const wild = `<?xml version="1.0"?><!-- a --><?p q?>
<o:order xmlns:o="urn:order" xmlns="urn:x" xmlns:unused="urn:u" xml:lang="ja"><item b='2' a="1&#9;" o:c="&lt;"><!-- c -->約款 &amp; <![CDATA[<申込>]]></item>
 <empty xmlns=""/>SIGNATURE</o:order><!-- z -->`
	for _, method := range []string{rsaSHA256, ecSHA256, ecSHA384, "http://www.w3.org/2001/04/xmldsig-more#rsa-sha512"} {
		id := newIdentity(t, method)
		for _, form := range forms {
			for name, tm := range map[string]template{
				"enveloped":  {parts: []part{{transforms: []string{enveloped, form}}}},
				"enveloping": {parts: []part{{uri: "#O", transforms: []string{form}}}, objects: `<ds:Object Id="O">` + strings.NewReplacer(`<?xml version="1.0"?>`, "", "SIGNATURE", "").Replace(wild) + `</ds:Object>`},
				"both":       {parts: []part{{transforms: []string{enveloped, form}}, {uri: "#O"}}, objects: `<ds:Object Id="O"><a:b xmlns:a="urn:a"/></ds:Object>`},
				"XPath": {parts: []part{{transforms: []string{
					`<ds:Transform Algorithm="http://www.w3.org/TR/1999/REC-xpath-19991116"><ds:XPath>not(ancestor-or-self::ds:Signature) and not(self::comment())</ds:XPath></ds:Transform>`, form,
				}}}},
			} {
				tm.canonical, tm.method = form, method
				tm.keyInfo = "<ds:KeyInfo><ds:X509Data/></ds:KeyInfo>"
				document := strings.Replace(wild, "SIGNATURE", strings.ReplaceAll(tm.String(), placeholder, ""), 1)
				if name == "enveloping" {
					document = strings.ReplaceAll(tm.String(), placeholder, "")
				}
				signed, err := xmlsec(t, document, "--sign", "--privkey-pem", id.files(t))
				if err != nil {
					t.Fatalf("%s %s: %v", name, form, err)
				}
				if err := verdict([]byte(signed), xmldsig.Options{}); err != nil {
					t.Errorf("%s %s %s: %v", method, name, form, err)
				}
				if err := verdict([]byte(strings.Replace(signed, "申込", "申請", 1)), xmldsig.Options{}); err == nil && strings.Contains(signed, "申込") {
					t.Errorf("%s %s %s: changed", method, name, form)
				}
			}
		}
	}
}

// What the other tests sign, xmlsec1 accepts: they attack sound documents.
func TestXMLSecAcceptsOurs(t *testing.T) {
	for _, method := range []string{rsaSHA256, ecSHA256, ecSHA384} {
		id := newIdentity(t, method)
		for name, doc := range map[string]string{"enveloped": id.enveloped(t), "enveloping": id.enveloping(t), "partial": id.partial(t), "XAdES": id.xades(t)} {
			_, cert, _ := strings.Cut(id.files(t), ",")
			if _, err := xmlsec(t, doc, "--verify", "--insecure", "--trusted-pem", cert, "--id-attr:Id", "urn:order:item", "--id-attr:Id", "http://uri.etsi.org/01903/v1.3.2#:SignedProperties"); err != nil {
				t.Errorf("%s %s: %v", method, name, err)
			}
			if err := verdict([]byte(doc), xmldsig.Options{}); err != nil {
				t.Error(fmt.Errorf("%s %s: %w", method, name, err))
			}
		}
	}
}
