package verifier_test

import (
	"encoding/asn1"
	"slices"
	"testing"
	"time"

	"github.com/openjpki/jpki/verifier"
)

// TestClaimsAreFacts: what the signer says of the signature is reported and changes no verdict; a counter-signature has its own.
func TestClaimsAreFacts(t *testing.T) {
	a := newArchive(t)
	v := a.documents(t, func(c *verifier.DocumentConfig) {
		c.Sources = []verifier.RevocationSource{pool(list(t, a.sign[1], t0.Add(-time.Hour)))}
	})
	const origin, creation = "1.2.840.113549.1.9.16.6.1", "1.2.840.113549.1.9.16.6.6"
	commitment := func(id string) []byte { return tlv(0x30, must(asn1.Marshal(oid(id)))) }
	res := must(v.Document(t.Context(), verifier.DocumentInput{Data: file{by: a.signer, content: contract, attrs: [][]byte{
		attribute("1.2.840.113549.1.9.16.2.16", commitment(origin), commitment(creation)), attribute("0.4.0.19122.1.1", tlv(0x30)),
	}}.der(t)}))
	if !res.OK() {
		t.Fatal(res.Code)
	}
	s := res.Signatures[0]
	if !slices.Equal(s.Commitments, []string{origin, creation}) || !s.ClaimsRoles || s.PolicyID != "" {
		t.Errorf("%v %v %q", s.Commitments, s.ClaimsRoles, s.PolicyID)
	}
	conforms(t, res)
	if res = must(v.Document(t.Context(), verifier.DocumentInput{Data: file{by: a.signer, content: contract, policy: "2.999.7"}.der(t)})); res.OK() || res.Signatures[0].PolicyID != "2.999.7" {
		t.Errorf("%s %q", res.Code, res.Signatures[0].PolicyID)
	}
	conforms(t, res)
}

// TestOldArchives: archive time-stamps before version 3, and those over references, are reported by name and prove nothing, so that a
// certificate revoked after them stays a doubt.
func TestOldArchives(t *testing.T) {
	a := newArchive(t)
	v := a.documents(t, func(c *verifier.DocumentConfig) {
		c.Sources = []verifier.RevocationSource{pool(list(t, a.sign[1], t0.Add(-time.Hour), a.signer.revoked(t0.Add(-day), 3)), list(t, a.stamps, t0.Add(-time.Hour)))}
	})
	for id, name := range map[string]string{
		"1.2.840.113549.1.9.16.2.27": "archive-v1", "1.2.840.113549.1.9.16.2.48": "archive-v2",
		"1.2.840.113549.1.9.16.2.25": "cades-c", "1.2.840.113549.1.9.16.2.26": "references",
	} {
		at := t0.Add(-30 * day)
		res := must(v.Document(t.Context(), verifier.DocumentInput{Data: file{by: a.signer, content: contract, stamp: func(value []byte) [][]byte {
			return [][]byte{attribute(id, token(t, a.tsa, at, value))}
		}}.der(t)}))
		s := res.Signatures[0]
		if res.SubIndication != "REVOKED_NO_POE" || s.BestTimeProof != verifier.ByValidation || len(s.TimeStamps) != 1 {
			t.Fatalf("%s: %s %s %+v", name, res.SubIndication, s.BestTimeProof, s.TimeStamps)
		}
		if got := s.TimeStamps[0]; got.Kind != verifier.OtherStamp || got.Code != verifier.TimeStampNotChecked || got.Detail != name || !got.Time.Equal(at) {
			t.Errorf("%s: %+v", name, got)
		}
		conforms(t, res)
		sameAgain(t, a, v, res)
		a.now = t0
	}
}
