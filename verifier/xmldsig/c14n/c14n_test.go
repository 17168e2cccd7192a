package c14n_test

import (
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/openjpki/jpki/verifier/xmldsig/c14n"
)

const dsig = "http://www.w3.org/2000/09/xmldsig#"

func vectors(t *testing.T, name string) string {
	t.Helper()
	dir := os.Getenv("JPKI_VECTORS")
	if dir == "" {
		t.Skip("JPKI_VECTORS names no folder of vectors")
	}
	return filepath.Join(dir, name)
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func parse(t *testing.T, data []byte) *c14n.Document {
	t.Helper()
	doc, err := c14n.Parse(data, c14n.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func write(t *testing.T, s c14n.Set, m c14n.Method) string {
	t.Helper()
	var b bytes.Buffer
	if err := s.Write(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// The intermediate octets of the examples that Merlin Hughes published for XML-DSig.
func TestInteroperabilityVectors(t *testing.T) {
	total := 0
	for _, v := range []struct{ dir, file string }{{"merlin-c14n-three", "signature.xml"}, {"merlin-exc-c14n-one", "exc-signature.xml"}} {
		dir := filepath.Join(vectors(t, "c14n"), v.dir)
		doc := parse(t, read(t, filepath.Join(dir, v.file)))
		for i, ref := range doc.Root().Descendants(dsig, "Reference") {
			total++
			got := dereference(t, doc, ref)
			digest := sha1.Sum([]byte(got))
			want := strings.TrimSpace(ref.Descendants(dsig, "DigestValue")[0].Text())
			if base64.StdEncoding.EncodeToString(digest[:]) != want {
				t.Errorf("%s, reference %d: digest differs", v.dir, i)
			}
			if v.dir == "merlin-c14n-three" {
				if diff := cmp.Diff(string(read(t, filepath.Join(dir, fmt.Sprintf("c14n-%d.txt", i)))), got); diff != "" {
					t.Errorf("%s, reference %d (- want, + got):\n%s", v.dir, i, diff)
				}
			}
		}
	}
	if total != 31 {
		t.Errorf("%d references, want 31", total)
	}
	// The last file is what was signed.
	dir := filepath.Join(vectors(t, "c14n"), "merlin-c14n-three")
	info := parse(t, read(t, filepath.Join(dir, "signature.xml"))).Root().Descendants(dsig, "SignedInfo")[0]
	if got := write(t, info.Subtree(false), c14n.Method{}); got != string(read(t, filepath.Join(dir, "c14n-27.txt"))) {
		t.Error("SignedInfo differs")
	}
}

// dereference does what these examples ask for.
func dereference(t *testing.T, doc *c14n.Document, ref c14n.Node) string {
	t.Helper()
	set := doc.Root().Subtree(false)
	if uri, _ := ref.Attr("", "URI"); uri != "" {
		id := strings.TrimSuffix(strings.TrimPrefix(uri, "#xpointer(id('"), "'))")
		set = doc.ByID(id)[0].Subtree(true)
	}
	m := c14n.Method{}
	for _, tr := range ref.Descendants(dsig, "Transform") {
		alg, _ := tr.Attr("", "Algorithm")
		if method, ok := c14n.ParseMethod(alg); ok {
			m = method
			for _, inc := range tr.Elements() {
				list, _ := inc.Attr("", "PrefixList")
				for f := range strings.FieldsSeq(list) {
					m.Prefixes = append(m.Prefixes, strings.Replace(f, "#default", "", 1))
				}
			}
			continue
		}
		holder := tr.Elements()[0]
		e, err := c14n.Compile(holder.Text(), holder.Namespace)
		if err != nil {
			t.Fatal(err)
		}
		if set, err = e.Filter(set, holder); err != nil {
			t.Fatal(err)
		}
	}
	return write(t, set, m)
}

func TestForms(t *testing.T) {
	const all = `<!DOCTYPE a [<!ENTITY e "x<b/>y"><!ENTITY f "1&#38;#38;2"><!ATTLIST a d CDATA "v" t NMTOKENS #IMPLIED>]>` + "\r\n" +
		`<?pi  text ?><!-- c --><a t="  m  n " z='"&lt;&#9;&f;' b="1` + "\t\n" + `2">&e;&e;<![CDATA[<&>]]>` + "\r\r\n" + `&#13;<e/></a><!--d--><?q?>`
	for name, c := range map[string]struct {
		in   string
		m    c14n.Method
		want string
	}{
		"everything at once": {
			all,
			c14n.Method{Comments: true},
			"<?pi text ?>\n<!-- c -->\n<a b=\"1  2\" d=\"v\" t=\"m n\" z=\"&quot;&lt;&#x9;1&amp;2\">x<b></b>yx<b></b>y&lt;&amp;&gt;\n\n&#xD;<e></e></a>\n<!--d-->\n<?q?>",
		},
		"without comments":      {`<!--x--><a><!--y-->z</a><!--x-->`, c14n.Method{}, `<a>z</a>`},
		"superfluous namespace": {`<p:a xmlns:p="u"><p:b xmlns:p="u" xmlns:q="r"/></p:a>`, c14n.Method{}, `<p:a xmlns:p="u"><p:b xmlns:q="r"></p:b></p:a>`},
		"default taken back":    {`<a xmlns="u"><b xmlns=""><c/></b></a>`, c14n.Method{}, `<a xmlns="u"><b xmlns=""><c></c></b></a>`},
		"never had":             {`<a><b xmlns=""/></a>`, c14n.Method{}, `<a><b></b></a>`},
		"order of attributes":   {`<a xmlns:z="a" xmlns:y="b" y:n="1" z:n="2" m="3"/>`, c14n.Method{}, `<a xmlns:y="b" xmlns:z="a" m="3" z:n="2" y:n="1"></a>`},
		"exclusive":             {`<p:a xmlns:p="u" xmlns:q="v" xmlns="w"><q:b p:c="1"/><d/></p:a>`, c14n.Method{Exclusive: true}, `<p:a xmlns:p="u"><q:b xmlns:q="v" p:c="1"></q:b><d xmlns="w"></d></p:a>`},
		"exclusive with list":   {`<p:a xmlns:p="u" xmlns:q="v" xmlns="w"><q:b p:c="1"/><d/></p:a>`, c14n.Method{Exclusive: true, Prefixes: []string{"q", ""}}, `<p:a xmlns="w" xmlns:p="u" xmlns:q="v"><q:b p:c="1"></q:b><d></d></p:a>`},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, write(t, parse(t, []byte(c.in)).Root().Subtree(true), c.m)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// What is inherited by a part of a document.
func TestParts(t *testing.T) {
	doc := parse(t, []byte(`<a xmlns="u" xmlns:p="v" xml:lang="ja" xml:id="x" xml:base="http://h/d/e" p:z=""><b xml:base="../f/"><c id="c" xml:base="g"><p:d/></c></b></a>`))
	part := doc.ByID("c")[0].Subtree(true)
	for _, c := range []struct {
		m    c14n.Method
		want string
	}{
		{c14n.Method{}, `<c xmlns="u" xmlns:p="v" id="c" xml:base="g" xml:id="x" xml:lang="ja"><p:d></p:d></c>`},
		{c14n.Method{V11: true}, `<c xmlns="u" xmlns:p="v" id="c" xml:base="http://h/f/g" xml:lang="ja"><p:d></p:d></c>`},
		{c14n.Method{Exclusive: true}, `<c xmlns="u" id="c" xml:base="g"><p:d xmlns:p="v"></p:d></c>`},
	} {
		if diff := cmp.Diff(c.want, write(t, part, c.m)); diff != "" {
			t.Errorf("%+v: %s", c.m, diff)
		}
	}
	less := doc.Root().Subtree(true).Without(doc.ByID("c")[0])
	if got := write(t, less, c14n.Method{Exclusive: true}); !strings.HasSuffix(got, `<b xml:base="../f/"></b></a>`) {
		t.Error(got)
	}
}

func TestRefused(t *testing.T) {
	deep := strings.Repeat("<a>", 600) + strings.Repeat("</a>", 600)
	laughs := `<!DOCTYPE a [<!ENTITY a "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa">`
	for c := 'b'; c < 'm'; c++ {
		laughs += fmt.Sprintf(`<!ENTITY %c "%s">`, c, strings.Repeat(fmt.Sprintf("&%c;", c-1), 30))
	}
	for name, c := range map[string]struct {
		in   string
		want error
	}{
		"nothing":                {"", c14n.ErrMalformed},
		"no end":                 {"<a>", c14n.ErrMalformed},
		"wrong end":              {"<a></b>", c14n.ErrMalformed},
		"two elements":           {"<a/><b/>", c14n.ErrMalformed},
		"undeclared prefix":      {"<p:a/>", c14n.ErrMalformed},
		"attribute twice":        {`<a b="1" b="2"/>`, c14n.ErrMalformed},
		"twice by namespace":     {`<a xmlns:p="u" xmlns:q="u" p:b="1" q:b="2"/>`, c14n.ErrMalformed},
		"prefix declared twice":  {`<a xmlns:p="u" xmlns:p="v"/>`, c14n.ErrMalformed},
		"< in attribute":         {`<a b="<"/>`, c14n.ErrMalformed},
		"control character":      {"<a>\x01</a>", c14n.ErrMalformed},
		"character 0":            {"<a>&#0;</a>", c14n.ErrMalformed},
		"unknown entity":         {"<a>&b;</a>", c14n.ErrMalformed},
		"entity in itself":       {`<!DOCTYPE a [<!ENTITY b "&b;">]><a>&b;</a>`, c14n.ErrMalformed},
		"itself in attribute":    {`<!DOCTYPE a [<!ENTITY b "&b;">]><a c="&b;"/>`, c14n.ErrMalformed},
		"unbalanced entity":      {`<!DOCTYPE a [<!ENTITY b "</a><a>">]><a>&b;</a>`, c14n.ErrMalformed},
		"external entity":        {`<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>`, c14n.ErrMalformed},
		"parameter entity":       {`<!DOCTYPE a [<!ENTITY % b "c">%b;]><a/>`, c14n.ErrUnsupported},
		"a billion laughs":       {laughs + `]><a>&l;</a>`, c14n.ErrLimit},
		"in an attribute":        {laughs + `]><a b="&l;"/>`, c14n.ErrLimit},
		"deep":                   {deep, c14n.ErrLimit},
		"XML 1.1":                {`<?xml version="1.1"?><a/>`, c14n.ErrUnsupported},
		"encoding":               {`<?xml version="1.0" encoding="EBCDIC-JP-kana"?><a/>`, c14n.ErrUnsupported},
		"not UTF-8":              {"<a>\xff</a>", c14n.ErrMalformed},
		"]]> in text":            {"<a>]]></a>", c14n.ErrMalformed},
		"-- in comment":          {"<!-- -- --><a/>", c14n.ErrMalformed},
		"instruction called xml": {"<a><?xml version='1.0'?></a>", c14n.ErrMalformed},
		"xml bound otherwise":    {`<a xmlns:xml="u"/>`, c14n.ErrMalformed},
		"text outside":           {`<a/>x`, c14n.ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := c14n.Parse([]byte(c.in), c14n.Limits{}); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
}

func TestEncodings(t *testing.T) {
	want := `<a>é漢</a>`
	utf16 := []byte{0xFE, 0xFF}
	for _, r := range want {
		utf16 = append(utf16, byte(r>>8), byte(r))
	}
	for name, in := range map[string][]byte{"UTF-8": []byte(want), "with mark": []byte("\uFEFF" + want), "UTF-16": utf16} {
		if got := write(t, parse(t, in).Root().Subtree(true), c14n.Method{}); got != want {
			t.Errorf("%s: %s", name, got)
		}
	}
	if got := write(t, parse(t, []byte("<?xml version='1.0' encoding='ISO-8859-1'?><a>\xe9</a>")).Root().Subtree(true), c14n.Method{}); got != "<a>é</a>" {
		t.Errorf("ISO-8859-1: %s", got)
	}
}

func TestXPath(t *testing.T) {
	doc := parse(t, []byte(`<!DOCTYPE r [<!ATTLIST c k ID #IMPLIED>]><r xmlns:p="u" xml:lang="ja-JP"><a n="1">one<p:b/>two</a><a n="2"><!--x--><?q y?></a><c k="K"> s  t </c></r>`))
	namespace := func(prefix string) (string, bool) { return "u", prefix == "p" }
	for expr, want := range map[string]bool{
		"count(//a) = 2":                                true,
		"count(/r/a[2]/comment()) = 1":                  true,
		"string(//a[@n='1']) = 'onetwo'":                true,
		"//p:b/preceding-sibling::text() = 'one'":       true,
		"//p:b/following::node()[1] = 'two'":            true,
		"name(//p:b) = 'p:b'":                           true,
		"local-name(//p:*) = 'b'":                       true,
		"count(//namespace::*) = 2 * count(//*)":        true,
		"id('K')/self::c":                               true,
		"normalize-space(//c) = 's t'":                  true,
		"sum(//@n) = 3 and 7 mod 4 = 3":                 true,
		"6 div 4 - 1 = .5":                              true,
		"translate('bar','abc','AB') = 'BAr'":           true,
		"substring('12345', 1.5, 2.6) = '234'":          true,
		"//a[last()]/@n = 2":                            true,
		"//a[position() < 2]/@n = 2":                    false,
		"lang('ja')":                                    false, // the root has no language
		"boolean(//r[lang('JA')])":                      true,
		"//a != //a":                                    true,
		"not(//nothing)":                                true,
		"(//a | //c)[3]/@k = 'K'":                       true,
		"//processing-instruction('q')":                 true,
		"string(1 div 0) = 'Infinity' and -(-1) = 1":    true,
		"//c/ancestor::*[1]/self::r and //@n/parent::a": true,
		"concat('a', true(), 1.50) = 'atrue1.5'":        true,
		"count(descendant-or-self::node()) > 9":         true,
	} {
		e, err := c14n.Compile(expr, namespace)
		if err != nil {
			t.Errorf("%s: %v", expr, err)
			continue
		}
		set, err := e.Filter(doc.Root().Subtree(true), c14n.Node{})
		if got := set.Has(doc.Root()); err != nil || got != want {
			t.Errorf("%s: %v (%v), want %v", expr, got, err, want)
		}
	}
	for expr, want := range map[string]error{
		"": c14n.ErrMalformed, "a b": c14n.ErrMalformed, "//": c14n.ErrMalformed, "q:a": c14n.ErrMalformed, "f()": c14n.ErrUnsupported, "$x": c14n.ErrMalformed, "not()": c14n.ErrMalformed,
		"'a": c14n.ErrMalformed, "a[": c14n.ErrMalformed, "up::a": c14n.ErrMalformed, strings.Repeat("(", 100) + "1": c14n.ErrLimit, strings.Repeat("a", 9000): c14n.ErrLimit,
	} {
		if _, err := c14n.Compile(expr, namespace); !errors.Is(err, want) {
			t.Errorf("%.20q: %v, want %v", expr, err, want)
		}
	}
	e, err := c14n.Compile("count(//*[//*[//*[//*]]]) > 0", namespace)
	if err != nil {
		t.Fatal(err)
	}
	big := parse(t, []byte("<a>"+strings.Repeat("<b/>", 3000)+"</a>"))
	if _, err := e.Filter(big.Root().Subtree(true), c14n.Node{}); !errors.Is(err, c14n.ErrLimit) {
		t.Errorf("a costly expression: %v", err)
	}
}

// xmllint agrees on whole documents.
func TestAgainstXMLLint(t *testing.T) {
	if _, err := exec.LookPath("xmllint"); err != nil {
		if os.Getenv("JPKI_TEST_REQUIRE") == "1" {
			t.Fatal("xmllint is missing")
		}
		t.Skip("xmllint is missing")
	}
	files, _ := filepath.Glob(filepath.Join(vectors(t, "dss-ades"), "xades", "*.xml"))
	if len(files) < 40 {
		t.Fatalf("%d files", len(files))
	}
	for _, file := range files {
		doc, err := c14n.Parse(read(t, file), c14n.Limits{})
		if err != nil {
			t.Errorf("%s: %v", filepath.Base(file), err)
			continue
		}
		for flag, m := range map[string]c14n.Method{"--c14n": {Comments: true}, "--c14n11": {Comments: true, V11: true}, "--exc-c14n": {Comments: true, Exclusive: true}} {
			want, err := exec.CommandContext(t.Context(), "xmllint", "--nonet", "--huge", flag, file).Output()
			if err != nil {
				t.Errorf("%s: xmllint: %v", filepath.Base(file), err)
				continue
			}
			if got := write(t, doc.Root().Subtree(true), m); got != string(want) {
				t.Errorf("%s %s differs", filepath.Base(file), flag)
			}
		}
	}
}

// A canonical document is its own canonical form, and nothing makes the parser or the writer fall over.
func FuzzCanonical(f *testing.F) {
	f.Add([]byte(`<!DOCTYPE a [<!ENTITY e "x<b/>y"><!ATTLIST a d CDATA "v">]><?p q?><a xmlns:p="u" p:z="&#9;">&e;<![CDATA[<]]><p:b xmlns=""/></a><!--c-->`))
	f.Add([]byte(`<a xmlns="u"><b xmlns="" xml:lang="x"/></a>`))
	f.Fuzz(func(t *testing.T, data []byte) {
		limits := c14n.Limits{Bytes: 1 << 16}
		doc, err := c14n.Parse(data, limits)
		if err != nil {
			return
		}
		for _, m := range []c14n.Method{{Comments: true}, {Comments: true, Exclusive: true}} {
			once := write(t, doc.Root().Subtree(true), m)
			again, err := c14n.Parse([]byte(once), c14n.Limits{})
			if err != nil {
				t.Fatalf("%q became %q: %v", data, once, err)
			}
			if twice := write(t, again.Root().Subtree(true), m); twice != once {
				t.Fatalf("%q, then %q", once, twice)
			}
		}
	})
}

func FuzzXPath(f *testing.F) {
	f.Add("not(ancestor-or-self::ds:Signature)")
	f.Add("count(ancestor-or-self::a | here()/ancestor::b[1]) > count(//@*[position() mod 2 = 1])")
	f.Fuzz(func(t *testing.T, source string) {
		e, err := c14n.Compile(source, func(string) (string, bool) { return "u", true })
		if err != nil {
			return
		}
		doc := parse(t, []byte(`<a xmlns:p="u" b="c"><p:d>e</p:d><!--f--><?g h?></a>`))
		all := doc.Root().Subtree(true)
		set, err := e.Filter(all, doc.Element())
		if err != nil {
			return
		}
		for _, m := range []c14n.Method{{}, {Exclusive: true}} {
			if len(write(t, set, m)) > len(write(t, all, c14n.Method{Comments: true}))+100 {
				t.Fatal("a part is larger than the whole")
			}
		}
	})
}

// BenchmarkCanonical parses and writes a document of 5 KB.
func BenchmarkCanonical(b *testing.B) {
	in := []byte("<a xmlns='u' xmlns:p='v'>" + strings.Repeat(`<p:item n="1" m="zwei">Some text &amp; more of it, as in an invoice</p:item>`+"\n", 64) + "</a>")
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		doc, err := c14n.Parse(in, c14n.Limits{})
		if err != nil {
			b.Fatal(err)
		}
		h := sha1.New()
		if err := doc.Root().Subtree(false).Write(h, c14n.Method{Exclusive: true}); err != nil {
			b.Fatal(err)
		}
	}
}
