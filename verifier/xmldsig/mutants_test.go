package xmldsig_test

import (
	"bytes"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/openjpki/jpki/verifier/xmldsig"
)

// tokens are the tags of a document and what stands between them.
var tokens = regexp.MustCompile(`<[^>]*>|[^<]+`)

// insertions are what mutants have more than the original: nodes of every kind, things that one reader sees and another
// does not, and attributes.
var insertions = []string{
	" ", "\n", "x", "<!-- c -->", "<?p q?>", "<![CDATA[x]]>", "&amp;", "&#13;", "<x/>", `<item xmlns="urn:order" Id="I">x</item>`, `<x Id="P"/>`,
	`<ds:Object xmlns:ds="` + dsig + `"/>`, `<x xmlns="` + dsig + `"/>`, "<!DOCTYPE a>",
}

// mutant changes one thing in a document and says what: an octet; a tag or text that is left out, twice, exchanged for
// another or followed by something more; an element that is left out, twice or put elsewhere; an attribute that is one more.
func mutant(document string, rng *rand.Rand) (out, what string) {
	parts := tokens.FindAllString(document, -1)
	at, other := rng.IntN(len(parts)), rng.IntN(len(parts))
	end := endOf(parts, at)
	switch rng.IntN(10) {
	case 0:
		octets := []byte(document)
		i := rng.IntN(len(octets))
		octets[i] ^= 1 << rng.IntN(7)
		return string(octets), "an octet"
	case 1:
		what, parts = "left out", slices.Delete(parts, at, at+1)
	case 2:
		what, parts = "twice", slices.Insert(parts, at, parts[at])
	case 3:
		what = "exchanged"
		parts[at], parts[other] = parts[other], parts[at]
	case 4:
		what, parts = "element left out", slices.Delete(parts, at, end)
	case 5:
		what, parts = "element twice", slices.Insert(parts, at, slices.Clone(parts[at:end])...)
	case 6:
		what = "element elsewhere"
		element := slices.Clone(parts[at:end])
		parts = slices.Delete(parts, at, end)
		parts = slices.Insert(parts, min(other, len(parts)), element...)
	case 7:
		what = "an attribute more"
		attribute := []string{` Id="I"`, ` Id="S"`, ` a="b"`, ` xmlns="urn:x"`, ` xml:lang="ja"`, ` Algorithm="` + rsaSHA256 + `"`, ` URI="#I"`}[rng.IntN(7)]
		if p := parts[at]; strings.HasSuffix(p, "/>") {
			parts[at] = strings.TrimSuffix(p, "/>") + attribute + "/>"
		} else if strings.HasPrefix(p, "<") {
			parts[at] = strings.TrimSuffix(p, ">") + attribute + ">"
		}
	default:
		what, parts = "something more", slices.Insert(parts, at, insertions[rng.IntN(len(insertions))])
	}
	return strings.Join(parts, ""), what
}

// endOf returns where the element that begins with a tag ends; a text, an end tag and an empty element end at once.
func endOf(parts []string, at int) int {
	depth := 0
	for i := at; i < len(parts); i++ {
		switch p := parts[i]; {
		case strings.HasPrefix(p, "</"):
			depth--
		case strings.HasPrefix(p, "<") && !strings.HasSuffix(p, "/>"):
			depth++
		}
		if depth <= 0 {
			return i + 1
		}
	}
	return len(parts)
}

// TestMutantsAgainstXMLSec changes one thing after the other in valid documents: nothing that xmlsec1 refuses is accepted
// here, but for what excuse names.
func TestMutantsAgainstXMLSec(t *testing.T) {
	const mutants = 600
	rng := rand.New(rand.NewPCG(4, 8)) // the same changes each time
	id := newIdentity(t, ecSHA256)
	_, cert, _ := strings.Cut(id.files(t), ",")
	check := func(document string) error {
		_, err := xmlsec(t, document, "--verify", "--trusted-pem", cert, "--id-attr:Id", "urn:order:item", "--id-attr:Id", dsig+":Object", "--id-attr:Id", "http://uri.etsi.org/01903/v1.3.2#:SignedProperties")
		return err
	}
	for _, form := range []struct{ name, document string }{
		{"enveloped", id.enveloped(t)}, {"enveloping", id.enveloping(t)}, {"partial", id.partial(t)}, {"XAdES", id.xades(t)},
	} {
		if err := check(form.document); err != nil {
			t.Fatalf("%s: xmlsec1 does not accept the document: %v", form.name, err)
		}
		seen := map[string]bool{form.document: true}
		accepted, refused := map[string]int{}, 0
		for range mutants {
			changed, what := mutant(form.document, rng)
			if seen[changed] {
				continue
			}
			seen[changed] = true
			if !acceptedBy(changed, id.cert) {
				refused++
				continue
			}
			why := "xmlsec1 accepts it, too"
			if err := check(changed); err != nil {
				if why = excuse(changed, err); why == "" {
					t.Errorf("%s: %s: accepted here, refused by xmlsec1 (%v): %s", form.name, what, err, changed)
				}
			}
			accepted[why]++
		}
		if refused < mutants/3 {
			t.Errorf("%s: only %d refused", form.name, refused)
		}
		t.Logf("%s: %d of %d changed documents refused; accepted: %v", form.name, refused, len(seen)-1, accepted)
	}
}

// acceptedBy reports whether a document has signatures, all of which hold and are by a certificate.
func acceptedBy(document string, cert []byte) bool {
	all, err := xmldsig.Read([]byte(document), xmldsig.Options{})
	if err != nil || len(all) == 0 {
		return false
	}
	for _, s := range all {
		if v := s.Verify(); v.Err != nil || !bytes.Equal(v.Certificate, cert) {
			return false
		}
	}
	return true
}

// excuse says why a change is no reason for us to refuse and one for xmlsec1; empty if there is no such reason.
func excuse(document string, err error) string {
	for _, id := range []string{"I", "O", "P", "S"} {
		if strings.Contains(err.Error(), `duplicate ID attribute "`+id+`"`) && !strings.Contains(document, `="#`+id+`"`) {
			return "an identifier twice that no reference names: xmlsec1 does not load the document, told that the attribute is an identifier"
		}
	}
	return ""
}
