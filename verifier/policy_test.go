package verifier_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/verifier"
)

func TestPolicyDigest(t *testing.T) {
	// Members in alphabetical order without spaces: written out, so that a change of the form is noticed.
	const canonical = `{"algorithms":[{"hashes":["sha256"],"key":"rsa","min_bits":2048}],"certificate_policies":{"card-sign":["2.999.1"]},` +
		`"key_usage":["digitalSignature"],"max_revocation_age_seconds":60,"name":"p","purpose":"signature"}`
	p := verifier.Policy{
		Name: "p", Purpose: verifier.ForSignature, CertificatePolicies: map[jpki.Kind][]string{jpki.CardSign: {"2.999.1"}},
		KeyUsage: []string{"digitalSignature"}, MaxRevocationAge: 60, Algorithms: []verifier.Algorithm{{Key: "rsa", MinBits: 2048, Hashes: []string{"sha256"}}},
	}
	sum := sha256.Sum256([]byte(canonical))
	if got := p.Digest(); got != hex.EncodeToString(sum[:]) {
		t.Errorf("digest %s", got)
	}
	q := p
	q.MaxRevocationAge = 61
	if q.Digest() == p.Digest() {
		t.Error("two policies, one digest")
	}
	q = p
	q.Algorithms = []verifier.Algorithm{p.Algorithms[0]}
	q.Algorithms[0].Until = time.Date(2030, 12, 31, 23, 59, 59, 0, time.UTC)
	sum = sha256.Sum256([]byte(strings.Replace(canonical, `2048}`, `2048,"until":"2030-12-31T23:59:59Z"}`, 1)))
	if got := q.Digest(); got != hex.EncodeToString(sum[:]) {
		t.Errorf("digest with an end %s", got)
	}
}

// TestDocumentPolicyEnds: what is broken may be admitted for the past, and only so.
func TestDocumentPolicyEnds(t *testing.T) {
	for _, r := range []struct {
		row verifier.DocumentAlgorithm
		ok  bool
	}{
		{verifier.DocumentAlgorithm{Key: "rsa", MinBits: 2048, Hashes: []string{"sha256"}}, true},
		{verifier.DocumentAlgorithm{Key: "rsa", MinBits: 2048, Hashes: []string{"sha256"}, Until: t0}, true},
		{verifier.DocumentAlgorithm{Key: "rsa", MinBits: 1024, Hashes: []string{"sha256"}, Until: t0}, true},
		{verifier.DocumentAlgorithm{Key: "rsa", MinBits: 1024, Hashes: []string{"sha256"}}, false},
		{verifier.DocumentAlgorithm{Key: "rsa", MinBits: 1023, Hashes: []string{"sha256"}, Until: t0}, false},
		{verifier.DocumentAlgorithm{Key: "p256", Hashes: []string{"sha1"}, Until: t0}, true},
		{verifier.DocumentAlgorithm{Key: "p256", Hashes: []string{"sha1"}}, false},
		{verifier.DocumentAlgorithm{Key: "p256", Hashes: []string{"md5"}, Until: t0}, false},
	} {
		p := must(verifier.FindDocumentPolicy("rfc5280"))
		before := p.Digest()
		p.Algorithms = append(p.Algorithms, r.row)
		if err := p.Validate(); (err == nil) != r.ok {
			t.Errorf("%+v: %v", r.row, err)
		}
		again, err := verifier.ParseDocumentPolicy(must(json.Marshal(p)))
		if r.ok && (err != nil || again.Digest() != p.Digest() || p.Digest() == before) {
			t.Errorf("%+v: %v, digests %s, %s and %s", r.row, err, before, p.Digest(), again.Digest())
		}
	}
}

func TestPoliciesAreData(t *testing.T) {
	data := must(json.Marshal(verifier.SandboxPolicies()))
	got, err := verifier.ParsePolicies(data)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(verifier.SandboxPolicies(), got); diff != "" {
		t.Error(diff)
	}
	// A verifier keeps its own copy, and hands out copies.
	w := newWorld(t)
	v := w.verifier(t)
	want := v.Policies()
	w.policies[0].CertificatePolicies[jpki.CardSign][0] = "1.2.3"
	v.Policies()[1].Algorithms[0].Hashes[0] = "sha512"
	if diff := cmp.Diff(want, v.Policies()); diff != "" {
		t.Error(diff)
	}
}

func TestParseHash(t *testing.T) {
	for _, name := range []string{"", "SHA256", "sha1", "md5"} {
		if _, err := verifier.ParseHash(name); !errors.Is(err, jpki.Malformed) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestPolicyRefused(t *testing.T) {
	for _, tc := range []struct {
		want  string
		spoil func(*verifier.Policy)
	}{
		{"name must be", func(p *verifier.Policy) { p.Name = "JPKI policy" }},
		{"purpose is neither", func(p *verifier.Policy) { p.Purpose = "both" }},
		{"certificate_policies is empty", func(p *verifier.Policy) { p.CertificatePolicies = nil }},
		{"is not one of card-sign", func(p *verifier.Policy) { p.CertificatePolicies["stamp"] = []string{"2.999.9"} }},
		{"card-auth is not for signature", func(p *verifier.Policy) { p.CertificatePolicies[jpki.CardAuth] = []string{"2.999.9"} }},
		{"is no policy's identifier", func(p *verifier.Policy) { p.CertificatePolicies[jpki.CardSign] = []string{"2.5.29.32.0"} }},
		{"is no policy's identifier", func(p *verifier.Policy) { p.CertificatePolicies[jpki.CardSign] = []string{"card"} }},
		{"occurs twice", func(p *verifier.Policy) { p.CertificatePolicies[jpki.CardSign] = []string{"2.999.8.5.1.1.40"} }},
		{`key_usage: "signing" is unknown`, func(p *verifier.Policy) { p.KeyUsage = []string{"signing"} }},
		{"key_usage is empty", func(p *verifier.Policy) { p.KeyUsage = nil }},
		{"contradicts", func(p *verifier.Policy) { p.ForbiddenKeyUsage = p.KeyUsage }},
		{"extended_key_usage", func(p *verifier.Policy) { p.ExtendedKeyUsage = []string{"clientAuth"} }},
		{"issuer_key_ids", func(p *verifier.Policy) { p.IssuerKeyIDs = []string{"AB"} }},
		{"max_revocation_age_seconds", func(p *verifier.Policy) { p.MaxRevocationAge = 604801 }},
		{"algorithms is empty", func(p *verifier.Policy) { p.Algorithms = nil }},
		{"min_bits", func(p *verifier.Policy) { p.Algorithms[0].MinBits = 1024 }},
		{`"dsa"`, func(p *verifier.Policy) { p.Algorithms[0].Key = "dsa" }},
		{`hash "sha1" is unknown`, func(p *verifier.Policy) { p.Algorithms[0].Hashes = []string{"sha1"} }},
	} {
		p := verifier.SandboxPolicies()[0]
		tc.spoil(&p)
		if err := p.Validate(); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", tc.want, err)
		}
	}
	// Everything wrong is reported at once.
	p := verifier.SandboxPolicies()[0]
	p.Name, p.MaxRevocationAge = "", 0
	if err := p.Validate(); err == nil || !strings.Contains(err.Error(), "name must be") || !strings.Contains(err.Error(), "max_revocation") {
		t.Error(err)
	}
	for _, data := range []string{`{}`, `[{"name":"p","colour":"red"}]`, `[] []`, `[{"name":"p"}]`} {
		if _, err := verifier.ParsePolicies([]byte(data)); err == nil {
			t.Errorf("%s accepted", data)
		}
	}
}
