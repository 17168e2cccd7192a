package xmldsig_test

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"strings"
	"testing"

	"github.com/openjpki/jpki/verifier/primitive"
	"github.com/openjpki/jpki/verifier/xmldsig"
	"github.com/openjpki/jpki/verifier/xmldsig/c14n"
)

// Whatever the document, reading and checking end, and what is accepted of a known certificate covers what that one signed.
func FuzzVerify(f *testing.F) {
	id := newIdentity(f, ecSHA256)
	known := map[string]bool{}
	xades := id.xades(f)
	stamped := strings.Replace(xades, "</xades:QualifyingProperties>", `<xades:UnsignedProperties><xades:UnsignedSignatureProperties><xades:SignatureTimeStamp><xades:EncapsulatedTimeStamp>MAA=</xades:EncapsulatedTimeStamp></xades:SignatureTimeStamp><a:ArchiveTimeStamp xmlns:a="http://uri.etsi.org/01903/v1.4.1#"><xades:EncapsulatedTimeStamp>MAA=</xades:EncapsulatedTimeStamp></a:ArchiveTimeStamp></xades:UnsignedSignatureProperties></xades:UnsignedProperties></xades:QualifyingProperties>`, 1)
	for _, doc := range []string{id.enveloped(f), id.enveloping(f), id.partial(f), xades, stamped, id.sign(f, template{parts: []part{{transforms: []string{
		`<ds:Transform Algorithm="http://www.w3.org/TR/1999/REC-xpath-19991116"><ds:XPath>not(ancestor-or-self::ds:Signature)</ds:XPath></ds:Transform>`, exclusive,
	}}}}, order)} {
		f.Add([]byte(doc))
		for _, content := range contents(f, doc) {
			known[content] = true
		}
	}
	f.Add([]byte(`<s:Signature xmlns:s="` + dsig + `"><s:SignedInfo><s:CanonicalizationMethod Algorithm="` + exclusive + `"/><s:SignatureMethod Algorithm="` + rsaSHA256 + `"/><s:Reference URI="a"/></s:SignedInfo><s:SignatureValue/></s:Signature>`))
	f.Fuzz(func(t *testing.T, data []byte) {
		o := xmldsig.Options{Limits: c14n.Limits{Bytes: 1 << 16, Work: 1 << 18}, Certificates: [][]byte{id.cert}, Resolve: func(string) ([]byte, bool) { return []byte("<a/>"), true }}
		all, err := xmldsig.Read(data, o)
		if err != nil {
			return
		}
		accepted := false
		for _, s := range all {
			for i := range s.References {
				_, _ = s.Manifest(&s.References[i])
			}
			if s.Properties != nil {
				for i := range s.Properties.Stamps {
					_, _ = s.Properties.Stamps[i].Imprint(crypto.SHA256)
				}
			}
			v := s.Verify()
			accepted = accepted || v.Err == nil && bytes.Equal(v.Certificate, id.cert)
		}
		if !accepted || len(all) != 1 {
			return
		}
		for _, content := range contents(t, string(data)) {
			if !known[content] {
				t.Fatalf("accepted: %q", content)
			}
		}
	})
}

// What reading and checking an enveloped XAdES signature in 5 KB cost beside the signature check and the digests that they cannot do
// without.
func BenchmarkVerify(b *testing.B) {
	for _, method := range []string{rsaSHA256, ecSHA256} {
		id := newIdentity(b, method)
		fill := strings.Repeat(`<line n="1" unit="yen">約款 &amp; 申込</line>`+"\n", 20)
		doc := []byte(id.sign(b, id.xadesTemplate(), strings.Replace(order, "SIGNATURE", fill+"SIGNATURE", 1)))
		all, err := xmldsig.Read(doc, xmldsig.Options{})
		if err != nil {
			b.Fatal(err)
		}
		key, err := primitive.CertificateKey(id.cert)
		if err != nil {
			b.Fatal(err)
		}
		covered := contents(b, string(doc))
		info := []byte(covered[0])
		name := method[strings.IndexByte(method, '#')+1:]
		b.Run(name+"/bound", func(b *testing.B) {
			for b.Loop() {
				if err := primitive.VerifyMessage(key, all[0].Algorithm, info, all[0].Value); err != nil {
					b.Fatal(err)
				}
				for _, content := range covered[1:] {
					_ = sha256.Sum256([]byte(content))
				}
			}
		})
		b.Run(name+"/read-and-verify", func(b *testing.B) {
			b.SetBytes(int64(len(doc)))
			for b.Loop() {
				if err := verdict(doc, xmldsig.Options{}); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/verify", func(b *testing.B) {
			for b.Loop() {
				if v := all[0].Verify(); v.Err != nil {
					b.Fatal(v.Err)
				}
			}
		})
	}
}
