package verifier_test

import (
	"bytes"
	"crypto/x509"
	_ "embed"
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/openjpki/jpki/verifier"
)

//go:embed document.schema.json
var documentSchema []byte

// conforms holds the JSON form of a result against document.schema.json.
func conforms(t *testing.T, res *verifier.DocumentResult) {
	t.Helper()
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("document.json", must(jsonschema.UnmarshalJSON(bytes.NewReader(documentSchema)))); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("document.json")
	if err != nil {
		t.Fatal(err)
	}
	written := must(json.Marshal(res))
	if err := schema.Validate(must(jsonschema.UnmarshalJSON(bytes.NewReader(written)))); err != nil {
		t.Errorf("%v\n%s", err, written)
	}
}

// TestSchemaHasTheCodes: the closed list in the schema is that of the package.
func TestSchemaHasTheCodes(t *testing.T) {
	var schema struct {
		Defs struct {
			Code struct{ Enum []verifier.Code }
		} `json:"$defs"`
	}
	if err := json.Unmarshal(documentSchema, &schema); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(slices.Concat(verifier.Codes(), verifier.DocumentCodes()), schema.Defs.Code.Enum); diff != "" {
		t.Error(diff)
	}
}

// TestArchived: of a signature whose certificate and whose time-stamping authority have both expired, a later time-stamp over all
// that was known then makes up, and nothing less does.
func TestArchived(t *testing.T) {
	a := newArchive(t)
	made, sealed, later := t0.Add(-30*day), t0.Add(200*day), t0.Add(5*year)
	old := a.authorityCert(t, a.stamps, func(c *x509.Certificate) { c.NotAfter = t0.Add(year) })
	f := file{by: a.signer, content: contract, stamp: stamped(t, old, made)}
	f.crls = [][]byte{list(t, a.sign[1], sealed.Add(-time.Hour)), list(t, a.stamps, sealed.Add(-time.Hour)), list(t, a.stamps, later.Add(-time.Hour))}
	a.now = later
	v := a.documents(t)
	policy := must(verifier.FindDocumentPolicy("sandbox-signature-2026"))
	judge := func(f file) *verifier.DocumentResult {
		res, err := v.Document(t.Context(), verifier.DocumentInput{Data: f.der(t)})
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	bare := judge(f)
	if bare.Code != verifier.Expired || bare.SubIndication != verifier.SubOutOfBoundsNoPOE || bare.Signatures[0].TimeStamps[0].Code != verifier.Expired {
		t.Fatalf("without archive: %s %+v", bare.Code, bare.Signatures[0].TimeStamps)
	}
	// The facts of a later time-stamp, as a room for a format reports them, beside those of the first.
	f.stamp = stamped(t, a.tsa, sealed)
	second := judge(f).Evidence
	for _, r := range []struct {
		name   string
		change func(*verifier.StampFacts)
		code   verifier.Code
	}{
		{"archive", func(s *verifier.StampFacts) { s.Kind = verifier.ArchiveStamp }, verifier.OK},
		{"archive that covers something else", func(s *verifier.StampFacts) {
			s.Kind, s.Token.Integrity = verifier.ArchiveStamp, verifier.DigestMismatch
		}, verifier.Expired},
		{"archive made too late", func(s *verifier.StampFacts) { s.Kind, s.Time = verifier.ArchiveStamp, t0.Add(4*year+100*day) }, verifier.Expired},
	} {
		e := bare.Evidence
		e.Certificates = append(slices.Clone(e.Certificates), second.Certificates...)
		e.Signatures = slices.Clone(e.Signatures)
		stamp := second.Signatures[0].Stamps[0]
		r.change(&stamp)
		e.Signatures[0].Stamps = append(slices.Clone(e.Signatures[0].Stamps), stamp)
		res, err := v.Reevaluate(t.Context(), e, policy)
		if err != nil || res.Code != r.code {
			t.Errorf("%s: %v %v\n%+v\n%+v", r.name, res.Code, err, res.Signatures[0].Checks, res.Signatures[0].TimeStamps)
		}
		if r.code == verifier.OK && !res.Signatures[0].BestTime.Equal(made) {
			t.Errorf("%s: known since %s", r.name, res.Signatures[0].BestTime)
		}
	}
}

// TestOtherPolicy: the same evidence under a policy that demands more.
func TestOtherPolicy(t *testing.T) {
	a := newArchive(t)
	v := a.documents(t, func(c *verifier.DocumentConfig) {
		c.Sources = []verifier.RevocationSource{pool(list(t, a.sign[1], t0.Add(-2*time.Hour)))}
	})
	res, err := v.Document(t.Context(), verifier.DocumentInput{Data: file{by: a.signer, content: contract}.der(t)})
	if err != nil || !res.OK() {
		t.Fatalf("%+v %v", res, err)
	}
	for _, r := range []struct {
		change func(*verifier.DocumentPolicy)
		code   verifier.Code
	}{
		{func(*verifier.DocumentPolicy) {}, verifier.OK},
		{func(p *verifier.DocumentPolicy) { p.MaxRevocationAge = 3600 }, verifier.StatusNotEstablished},
		{func(p *verifier.DocumentPolicy) { p.Algorithms[0].MinBits = 3072 }, verifier.WeakAlgorithm},
		{func(p *verifier.DocumentPolicy) { p.Algorithms = p.Algorithms[2:] }, verifier.WeakAlgorithm},
		{func(p *verifier.DocumentPolicy) { p.KeyUsage = append(p.KeyUsage, "keyEncipherment") }, verifier.WrongKeyUsage},
	} {
		p := must(verifier.FindDocumentPolicy("sandbox-signature-2026"))
		p.Name = "stricter-1"
		r.change(&p)
		again, err := v.Reevaluate(t.Context(), res.Evidence, p)
		if err != nil || again.Code != r.code {
			t.Errorf("%s, want %s: %v", again.Code, r.code, err)
		}
		if again.Policy.Name != "stricter-1" || again.Policy.SHA256 == res.Policy.SHA256 || again.ID != res.ID {
			t.Errorf("policy %+v", again.Policy)
		}
	}
	p := must(verifier.FindDocumentPolicy("jpki-signature-2026"))
	if _, err := v.Reevaluate(t.Context(), res.Evidence, p); err == nil {
		t.Error("anchors that the policy does not name")
	}
	if _, err := v.Reevaluate(t.Context(), verifier.Evidence{}, p); err == nil {
		t.Error("no evidence")
	}
}
