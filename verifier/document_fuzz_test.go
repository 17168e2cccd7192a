package verifier_test

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"testing"
	"time"

	"github.com/openjpki/jpki/verifier"
	"github.com/openjpki/jpki/verifier/cms"
)

// FuzzDocument: whatever is done to a good document, it passes only with the content that was signed, its verdict has a reason
// otherwise, and its evidence gives the same one.
func FuzzDocument(f *testing.F) {
	a := newArchive(&testing.T{}) // makes certificates
	good := file{by: a.signer, content: contract, stamp: func(v []byte) [][]byte {
		return [][]byte{attribute("1.2.840.113549.1.9.16.2.14", token(&testing.T{}, a.tsa, t0.Add(-time.Hour), v))}
	}}.der(&testing.T{})
	f.Add(good)
	f.Add(signedXML(&testing.T{}, a.signer, "<a></a>", "", "<doc><a></a></doc>"))
	f.Add(signedPDF(&testing.T{}, a.signer))
	f.Add(a.jws(&testing.T{}, t0.Add(time.Hour)))
	sources := []verifier.RevocationSource{pool(list(&testing.T{}, a.sign[1], t0.Add(-time.Hour)), list(&testing.T{}, a.stamps, t0.Add(-time.Hour)))}
	policy := must(verifier.FindDocumentPolicy("sandbox-signature-2026"))
	v := must(verifier.New(verifier.Config{Documents: &verifier.DocumentConfig{
		Policy: policy, Anchors: []*x509.Certificate{a.sign[1].cert}, TimeStampAnchors: []*x509.Certificate{a.stamps.cert}, Sources: sources,
	}, Now: func() time.Time { return t0 }, Rand: zeros{}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		res, err := v.Document(t.Context(), verifier.DocumentInput{Data: data})
		if err != nil {
			return
		}
		if res.OK() && res.Format == verifier.FormatCMS && bytes.HasPrefix(data, []byte{0x30}) {
			if d, err := cms.Parse(data); err != nil || !bytes.Equal(d.Content, contract) {
				t.Fatal("passed with another content")
			}
		}
		for _, s := range res.Signatures {
			if last := s.Checks[len(s.Checks)-1]; last.OK != (s.Code == verifier.OK) || s.Message.EN == "" {
				t.Fatalf("%s after %+v", s.Code, s.Checks)
			}
		}
		var e verifier.Evidence
		if err := json.Unmarshal(must(json.Marshal(res.Evidence)), &e); err != nil {
			t.Fatal(err)
		}
		again, err := v.Reevaluate(t.Context(), e, policy)
		if err != nil || again.Code != res.Code || again.OK() != res.OK() {
			t.Fatalf("%s, from evidence %v %v", res.Code, again, err)
		}
	})
}

// FuzzEvidence: stored evidence may be anything, and is then refused or judged.
func FuzzEvidence(f *testing.F) {
	a := newArchive(&testing.T{})
	policy := must(verifier.FindDocumentPolicy("sandbox-signature-2026"))
	v := must(verifier.New(verifier.Config{Documents: &verifier.DocumentConfig{
		Policy: policy, Anchors: []*x509.Certificate{a.sign[1].cert}, TimeStampAnchors: []*x509.Certificate{a.stamps.cert},
	}, Now: func() time.Time { return t0 }, Rand: zeros{}}))
	res, err := v.Document(f.Context(), verifier.DocumentInput{Data: file{by: a.signer, content: contract, crls: [][]byte{list(&testing.T{}, a.sign[1], t0.Add(-time.Hour))}}.der(&testing.T{})})
	if err != nil || !res.OK() {
		f.Fatal(res, err)
	}
	f.Add(must(json.Marshal(res.Evidence)))
	f.Fuzz(func(t *testing.T, data []byte) {
		var e verifier.Evidence
		if json.Unmarshal(data, &e) != nil {
			return
		}
		if res, err := v.Reevaluate(t.Context(), e, policy); err == nil && !res.OK() && res.Indication == verifier.TotalPassed {
			t.Fatal("two answers")
		}
	})
}

// zeros is a source of identifiers that are all alike.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
