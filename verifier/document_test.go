package verifier_test

import (
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/verifier"
	"github.com/openjpki/jpki/verifier/jws"
	"github.com/openjpki/jpki/verifier/path"
)

const (
	day  = 24 * time.Hour
	year = 365 * day
)

// TestSubIndications has a document for each cause, and the words of EN 319 102-1 §5.1.3 for it.
func TestSubIndications(t *testing.T) {
	a := newArchive(t)
	now, signer := t0, a.signer
	stampTime := t0.Add(-30 * day)
	fresh := list(t, a.sign[1], now.Add(-time.Hour))
	stampsFresh := list(t, a.stamps, now.Add(-time.Hour))
	revoked := func(at time.Time, reason int, ext ...pkix.Extension) [][]byte {
		return [][]byte{list(t, a.sign[1], now.Add(-time.Hour), signer.revoked(at, reason, ext...)), stampsFresh}
	}
	plain := file{by: signer, content: contract}
	withStamp := plain
	withStamp.stamp = stamped(t, a.tsa, stampTime)
	good := [][]byte{fresh, stampsFresh}

	later := now.Add(5 * year) // the signer's certificate has expired, that of the time-stamps has not
	laterLists := [][]byte{list(t, a.sign[1], later.Add(-time.Hour)), list(t, a.stamps, later.Add(-time.Hour))}
	archived := withStamp
	archived.crls = [][]byte{list(t, a.sign[1], stampTime.Add(time.Hour))}

	foreign := newAuthority(t, "sign", ecKey(elliptic.P256()), t0)
	middle := a.middle(t)
	below := a.issue(t, middle, rsaKey(), likeSign)
	tooDeep := a.issue(t, a.middleOf(t, middle), rsaKey(), likeSign)
	auth := a.authCert(t)
	weakTSA := a.authorityCert(t, a.stamps, func(c *x509.Certificate) {
		c.ExtraExtensions, c.ExtKeyUsage = nil, []x509.ExtKeyUsage{x509.ExtKeyUsageTimeStamping, x509.ExtKeyUsageClientAuth}
	})
	covered := map[verifier.Code]bool{}
	with := func(f file, change func(*file)) file { change(&f); return f }

	for _, r := range []struct {
		name    string
		file    file
		data    []byte
		lists   [][]byte
		now     time.Time
		existed time.Time
		brought []byte
		policy  func(*verifier.DocumentPolicy)
		want    verifier.Indication
		sub     verifier.SubIndication
		code    verifier.Code
		block   verifier.CheckID // that fails
	}{
		{name: "good", file: plain, lists: good, want: "TOTAL-PASSED", code: verifier.OK},
		{name: "detached", file: with(plain, func(f *file) { f.detached = true }), lists: good, brought: contract, want: "TOTAL-PASSED", code: verifier.OK},

		{name: "revoked, no proof", file: plain, lists: revoked(now.Add(-day), 3), want: "INDETERMINATE", sub: "REVOKED_NO_POE", code: verifier.RevokedAttributesChanged, block: verifier.CheckRFC},
		{name: "revoked after time-stamp", file: withStamp, lists: revoked(now.Add(-day), 3), want: "TOTAL-PASSED", code: verifier.OK},
		{name: "revoked after the caller knew it", file: plain, lists: revoked(now.Add(-day), 3), existed: now.Add(-2 * day), want: "TOTAL-PASSED", code: verifier.OK},
		{name: "revoked before the caller knew it", file: plain, lists: revoked(now.Add(-day), 3), existed: now.Add(-time.Hour), want: "INDETERMINATE", sub: "REVOKED_NO_POE", code: verifier.RevokedAttributesChanged, block: verifier.CheckRFC},
		{name: "revoked before time-stamp", file: withStamp, lists: revoked(stampTime.Add(-day), 5), want: "INDETERMINATE", sub: "REVOKED_NO_POE", code: verifier.RevokedCeased, block: verifier.CheckRFC},
		{name: "signed after revocation", file: with(plain, func(f *file) { f.attrs = contentStamp(t, a.tsa, stampTime) }), lists: revoked(stampTime.Add(-day), 4), want: "TOTAL-FAILED", sub: "REVOKED", code: verifier.RevokedSuperseded, block: verifier.CheckRFC},
		{name: "key compromised after time-stamp", file: withStamp, lists: revoked(now.Add(-day), 1), want: "TOTAL-PASSED", code: verifier.OK},
		{name: "key compromised before time-stamp, revoked after", file: withStamp, lists: revoked(now.Add(-day), 1, invalidSince(stampTime.Add(-day))), want: "INDETERMINATE", sub: "REVOKED_NO_POE", code: verifier.RevokedKeyCompromise, block: verifier.CheckRFC},
		{name: "key compromised between", file: withStamp, lists: revoked(now.Add(-day), 1, invalidSince(stampTime.Add(day))), want: "TOTAL-PASSED", code: verifier.OK},
		{name: "on hold", file: plain, lists: revoked(now.Add(-day), 6), want: "INDETERMINATE", sub: "TRY_LATER", code: verifier.Suspended, block: verifier.CheckRFC},
		{name: "on hold after time-stamp", file: withStamp, lists: revoked(now.Add(-day), 6), want: "TOTAL-PASSED", code: verifier.OK},
		{name: "authority revoked", file: with(plain, func(f *file) { f.by = below; f.certs = [][]byte{middle.cert.Raw} }), lists: [][]byte{
			list(t, a.sign[1], now.Add(-time.Hour), leaf{der: middle.cert.Raw}.revoked(now.Add(-day), 5)), list(t, middle, now.Add(-time.Hour)),
		}, want: "INDETERMINATE", sub: "REVOKED_CA_NO_POE", code: verifier.IssuerRevoked, block: verifier.CheckRFC},
		{name: "authority good", file: with(plain, func(f *file) { f.by = below; f.certs = [][]byte{middle.cert.Raw} }), lists: [][]byte{fresh, list(t, middle, now.Add(-time.Hour))}, want: "TOTAL-PASSED", code: verifier.OK},

		{name: "expired, no proof", file: plain, now: later, lists: laterLists, want: "INDETERMINATE", sub: "OUT_OF_BOUNDS_NO_POE", code: verifier.Expired, block: verifier.CheckXCV},
		{name: "expired after time-stamp, status kept", file: archived, now: later, lists: laterLists, want: "TOTAL-PASSED", code: verifier.OK},
		{name: "expired after time-stamp, status forgotten", file: withStamp, now: later, lists: laterLists, want: "INDETERMINATE", sub: "OUT_OF_BOUNDS_NO_POE", code: verifier.StatusAfterExpiry, block: verifier.CheckRFC},
		{name: "signed after expiry", file: with(plain, func(f *file) { f.attrs = contentStamp(t, a.tsa, now.Add(4*year+10*day)) }), now: later, lists: laterLists, want: "TOTAL-FAILED", sub: "EXPIRED", code: verifier.Expired, block: verifier.CheckXCV},
		{name: "not yet valid", file: plain, lists: good, existed: now.AddDate(-1, 0, 0), want: "TOTAL-FAILED", sub: "NOT_YET_VALID", code: verifier.NotYetValid, block: verifier.CheckXCV},

		{name: "no data on revocation", file: plain, want: "INDETERMINATE", sub: "TRY_LATER", code: verifier.StatusNotEstablished, block: verifier.CheckRFC},
		{name: "list out of date", file: plain, lists: [][]byte{list(t, a.sign[1], now.Add(-2*day))}, want: "INDETERMINATE", sub: "TRY_LATER", code: verifier.StatusNotEstablished, block: verifier.CheckRFC},
		{name: "list by a namesake", file: plain, lists: [][]byte{list(t, foreign, now.Add(-time.Hour))}, want: "INDETERMINATE", sub: "TRY_LATER", code: verifier.StatusNotEstablished, block: verifier.CheckRFC},

		{name: "algorithm relied upon until now", file: plain, lists: good, policy: rsaUntil(now), want: "TOTAL-PASSED", code: verifier.OK},
		{name: "algorithm relied upon until an hour ago", file: plain, lists: good, policy: rsaUntil(now.Add(-time.Hour)), want: "INDETERMINATE", sub: "CRYPTO_CONSTRAINTS_FAILURE_NO_POE", code: verifier.AlgorithmExpired, block: verifier.CheckVTS},
		{name: "stamped while the algorithm was relied upon", file: withStamp, lists: good, policy: rsaUntil(now.Add(-time.Hour)), want: "TOTAL-PASSED", code: verifier.OK},
		{name: "on record while the algorithm was relied upon", file: plain, lists: good, existed: now.Add(-time.Hour), policy: rsaUntil(now.Add(-time.Hour)), want: "TOTAL-PASSED", code: verifier.OK},
		{name: "content stamped when the algorithm was not relied upon any more", file: with(plain, func(f *file) { f.attrs = contentStamp(t, a.tsa, now.Add(-time.Hour)) }), lists: good, policy: rsaUntil(now.Add(-2 * time.Hour)), want: "INDETERMINATE", sub: "CRYPTO_CONSTRAINTS_FAILURE", code: verifier.AlgorithmExpired, block: verifier.CheckVTS},
		{name: "authorities and time-stamps with an algorithm relied upon until an hour ago", file: withStamp, lists: good, policy: ecUntil(now.Add(-time.Hour)), want: "INDETERMINATE", sub: "CRYPTO_CONSTRAINTS_FAILURE_NO_POE", code: verifier.AlgorithmExpired, block: verifier.CheckXCV},
		{name: "SHA-1 of its time, not proven to be of that time", file: with(plain, func(f *file) { f.sha1 = true }), lists: good, policy: sha1Until(now.Add(-time.Hour)), want: "INDETERMINATE", sub: "CRYPTO_CONSTRAINTS_FAILURE_NO_POE", code: verifier.AlgorithmExpired, block: verifier.CheckVTS},
		{name: "SHA-1 of its time", file: with(plain, func(f *file) { f.sha1 = true }), lists: good, existed: now.Add(-time.Hour), policy: sha1Until(now.Add(-time.Hour)), want: "TOTAL-PASSED", code: verifier.OK},

		{name: "time-stamp by a stranger proves nothing", file: with(plain, func(f *file) { f.stamp = stamped(t, a.authorityCert(t, foreign), stampTime) }), lists: revoked(now.Add(-day), 3), want: "INDETERMINATE", sub: "REVOKED_NO_POE", code: verifier.RevokedAttributesChanged, block: verifier.CheckRFC},
		{name: "time-stamp by a key for other things, too", file: with(plain, func(f *file) { f.stamp = stamped(t, weakTSA, stampTime) }), lists: revoked(now.Add(-day), 3), want: "INDETERMINATE", sub: "REVOKED_NO_POE", code: verifier.RevokedAttributesChanged, block: verifier.CheckRFC},
		{name: "time-stamp by a revoked authority", file: withStamp, lists: [][]byte{revoked(now.Add(-day), 3)[0], list(t, a.stamps, now.Add(-time.Hour), a.tsa.revoked(now.Add(-time.Hour), 1))}, want: "INDETERMINATE", sub: "REVOKED_NO_POE", code: verifier.RevokedAttributesChanged, block: verifier.CheckRFC},
		{name: "time-stamp of the future", file: with(plain, func(f *file) { f.stamp = stamped(t, a.tsa, now.Add(day)) }), lists: good, want: "TOTAL-PASSED", code: verifier.OK},
		{name: "content stamped after the signature", file: with(withStamp, func(f *file) { f.attrs = contentStamp(t, a.tsa, stampTime.Add(day)) }), lists: good, want: "INDETERMINATE", sub: "TIMESTAMP_ORDER_FAILURE", code: verifier.TimeStampOrder, block: verifier.CheckVTS},

		{name: "other content", file: with(plain, func(f *file) { f.detached = true }), lists: good, brought: []byte("another contract"), want: "TOTAL-FAILED", sub: "HASH_FAILURE", code: verifier.DigestMismatch, block: verifier.CheckCV},
		{name: "content not brought", file: with(plain, func(f *file) { f.detached = true }), lists: good, want: "INDETERMINATE", sub: "SIGNED_DATA_NOT_FOUND", code: verifier.SignedDataMissing, block: verifier.CheckCV},
		{name: "value spoilt", file: with(plain, func(f *file) { f.spoil = func(v []byte) { v[9] ^= 1 } }), lists: good, want: "TOTAL-FAILED", sub: "SIG_CRYPTO_FAILURE", code: verifier.SignatureWrong, block: verifier.CheckCV},
		{name: "certificate missing", file: with(plain, func(f *file) { f.noCert = true; f.certs = [][]byte{a.tsa.der} }), lists: good, want: "INDETERMINATE", sub: "NO_SIGNING_CERTIFICATE_FOUND", code: verifier.SigningCertificateMissing, block: verifier.CheckISC},
		{name: "an attribute twice", file: with(plain, func(f *file) { f.attrs = [][]byte{attribute("1.2.840.113549.1.9.4", tlv(4, make([]byte, 32)))} }), lists: good, want: "TOTAL-FAILED", sub: "FORMAT_FAILURE", code: verifier.MalformedSignature, block: verifier.CheckFC},
		{name: "SHA-1", file: with(plain, func(f *file) { f.sha1 = true }), lists: good, want: "INDETERMINATE", sub: "CRYPTO_CONSTRAINTS_FAILURE", code: verifier.WeakAlgorithm, block: verifier.CheckSAV},
		{name: "certificate not named, and need not be", file: with(plain, func(f *file) { f.bare = true }), lists: good, want: "TOTAL-PASSED", code: verifier.OK},
		{name: "certificate not named", file: with(plain, func(f *file) { f.bare = true }), lists: good, policy: func(p *verifier.DocumentPolicy) { p.RequireNamedCertificate = true }, want: "INDETERMINATE", sub: "SIG_CONSTRAINTS_FAILURE", code: verifier.SigningCertificateUnnamed, block: verifier.CheckSAV},
		{name: "signature policy not agreed to", file: with(plain, func(f *file) { f.policy = "2.999.7" }), lists: good, want: "INDETERMINATE", sub: "SIGNATURE_POLICY_NOT_AVAILABLE", code: verifier.SignaturePolicyUnknown, block: verifier.CheckVCI},
		{name: "signature policy implied", file: with(plain, func(f *file) { f.attrs = [][]byte{attribute("1.2.840.113549.1.9.16.2.15", []byte{5, 0})} }), lists: good, want: "INDETERMINATE", sub: "SIGNATURE_POLICY_NOT_AVAILABLE", code: verifier.SignaturePolicyUnknown, block: verifier.CheckVCI},
		{name: "signature policy implied and agreed to", file: with(plain, func(f *file) { f.attrs = [][]byte{attribute("1.2.840.113549.1.9.16.2.15", []byte{5, 0})} }), lists: good, policy: func(p *verifier.DocumentPolicy) { p.SignaturePolicies = []string{"implied"} }, want: "TOTAL-PASSED", code: verifier.OK},
		{name: "signature policy unreadable", file: with(plain, func(f *file) { f.attrs = [][]byte{attribute("1.2.840.113549.1.9.16.2.15", []byte{4, 0})} }), lists: good, policy: func(p *verifier.DocumentPolicy) { p.SignaturePolicies = []string{"implied", "2.999.7"} }, want: "INDETERMINATE", sub: "SIGNATURE_POLICY_NOT_AVAILABLE", code: verifier.SignaturePolicyUnknown, block: verifier.CheckVCI},
		{name: "signature policy by its URN, text not at hand", file: with(plain, func(f *file) { f.policy = "2.999.7" }), lists: good, policy: func(p *verifier.DocumentPolicy) { p.SignaturePolicies = []string{"urn:oid:2.999.7"} }, want: "INDETERMINATE", sub: "SIGNATURE_POLICY_NOT_AVAILABLE", code: verifier.SignaturePolicyMissing, block: verifier.CheckVCI},
		{name: "signature policy agreed to unread", file: with(plain, func(f *file) { f.policy = "2.999.7" }), lists: good, policy: func(p *verifier.DocumentPolicy) { p.SignaturePolicies = []string{"*"} }, want: "TOTAL-PASSED", code: verifier.OK},

		{name: "another authority of that name", file: with(plain, func(f *file) { f.by = a.issue(t, foreign, rsaKey(), likeSign) }), lists: good, want: "INDETERMINATE", sub: "NO_CERTIFICATE_CHAIN_FOUND", code: verifier.UntrustedIssuer, block: verifier.CheckXCV},
		{name: "authentication certificate", file: with(plain, func(f *file) { f.by = auth }), lists: [][]byte{list(t, a.auth[1], now.Add(-time.Hour))}, want: "INDETERMINATE", sub: "CHAIN_CONSTRAINTS_FAILURE", code: verifier.WrongPurpose, block: verifier.CheckXCV},
		{name: "no key usage", file: with(plain, func(f *file) {
			f.by = a.issue(t, a.sign[1], rsaKey(), func(c *x509.Certificate) { likeSign(c); c.KeyUsage = 0 })
		}), lists: good, want: "INDETERMINATE", sub: "CHAIN_CONSTRAINTS_FAILURE", code: verifier.WrongKeyUsage, block: verifier.CheckXCV},
		{name: "path too long", file: with(plain, func(f *file) {
			f.by = tooDeep
			f.certs = [][]byte{middle.cert.Raw, a.last.cert.Raw}
		}), lists: good, want: "INDETERMINATE", sub: "CERTIFICATE_CHAIN_GENERAL_FAILURE", code: verifier.ChainRefused, block: verifier.CheckXCV},

		{name: "JWS past its end", data: a.jws(t, now.Add(-time.Hour)), lists: good, want: "INDETERMINATE", sub: "SIG_CONSTRAINTS_FAILURE", code: verifier.SignatureExpired, block: verifier.CheckSAV},
		{name: "JWS", data: a.jws(t, now.Add(time.Hour)), lists: good, want: "TOTAL-PASSED", code: verifier.OK},
	} {
		t.Run(r.name, func(t *testing.T) {
			if a.now = r.now; r.now.IsZero() {
				a.now = now
			}
			v := a.documents(t, func(c *verifier.DocumentConfig) {
				c.Sources = []verifier.RevocationSource{pool(r.lists...)}
				if r.policy != nil {
					r.policy(&c.Policy)
				}
			})
			in := verifier.DocumentInput{Data: r.data, Existed: r.existed}
			if r.data == nil {
				in.Data = r.file.der(t)
			}
			if r.brought != nil {
				in.Detached = brings(r.brought)
			}
			res, err := v.Document(t.Context(), in)
			if err != nil {
				t.Fatal(err)
			}
			if len(res.Signatures) != 1 {
				t.Fatalf("%d signatures", len(res.Signatures))
			}
			s := res.Signatures[0]
			if s.Indication != r.want || s.SubIndication != r.sub || s.Code != r.code {
				t.Fatalf("%s %s %s, want %s %s %s\n%+v\n%+v", s.Indication, s.SubIndication, s.Code, r.want, r.sub, r.code, s.Checks, s.TimeStamps)
			}
			if res.OK() != (r.code == verifier.OK) || res.Code != r.code {
				t.Errorf("document: OK %v, %s", res.OK(), res.Code)
			}
			if s.Message.EN == "" || s.Message.JA == "" || s.Action.EN == "" || s.Action.JA == "" {
				t.Error("no words for people")
			}
			if last := s.Checks[len(s.Checks)-1]; r.block != "" && (last.OK || last.ID != r.block) || r.block == "" && !last.OK {
				t.Errorf("ended at %+v, want %q", last, r.block)
			}
			if (s.Attributes != nil) != (s.Code == verifier.OK) {
				t.Errorf("attributes %v with %s", s.Attributes, s.Code)
			}
			sameAgain(t, a, v, res)
		})
		covered[r.code] = true
	}
	elsewhere := []verifier.Code{
		verifier.NoSignature, verifier.UncoveredContent, verifier.ChangedAfterSigning, // TestWhatIsCovered
		verifier.TokenRefused, verifier.TokenMissing, verifier.TokenNegative, // TestTokenRefused
		verifier.TimeStampNotChecked,     // TestOldArchives
		verifier.SignaturePolicyMismatch, // TestSignaturePolicy
	}
	for _, c := range verifier.DocumentCodes() {
		if !covered[c] && !slices.Contains(elsewhere, c) && c != verifier.ChainNotEstablished { // package path's tests reach its limits
			t.Errorf("no row for %s", c)
		}
	}
}

func rsaUntil(at time.Time) func(*verifier.DocumentPolicy) {
	return func(p *verifier.DocumentPolicy) { p.Algorithms[0].Until = at }
}

// ecUntil is about the keys of authorities and of time-stamps.
func ecUntil(at time.Time) func(*verifier.DocumentPolicy) {
	return func(p *verifier.DocumentPolicy) { p.Algorithms[2].Until = at }
}

func sha1Until(at time.Time) func(*verifier.DocumentPolicy) {
	return func(p *verifier.DocumentPolicy) {
		p.Algorithms = append(p.Algorithms, verifier.DocumentAlgorithm{Key: "rsa", MinBits: 1024, Hashes: []string{"sha1"}, Until: at})
	}
}

// sameAgain stores the evidence and has it judged anew, by a verifier without sources: nothing may change.
func sameAgain(t *testing.T, a *archive, v *verifier.Verifier, res *verifier.DocumentResult) {
	t.Helper()
	conforms(t, res)
	stored := must(json.Marshal(res.Evidence))
	var e verifier.Evidence
	if err := json.Unmarshal(stored, &e); err != nil {
		t.Fatal(err)
	}
	a.now = a.now.Add(400 * day) // whenever
	policy := must(verifier.FindDocumentPolicy("sandbox-signature-2026"))
	if policy.Digest() != res.Policy.SHA256 {
		return // a row with its own
	}
	again, err := v.Reevaluate(t.Context(), e, policy)
	if err != nil {
		t.Fatal(err)
	}
	again.Fetches, again.Evidence = res.Fetches, res.Evidence
	for i := range again.Signatures {
		for k := range again.Signatures[i].Evidence { // a source's name stays with what it found
			if again.Signatures[i].Evidence[k].Source == "" {
				t.Error("evidence without a source")
			}
		}
	}
	if diff := cmp.Diff(must(json.Marshal(res)), must(json.Marshal(again))); diff != "" {
		t.Errorf("verification (-) and evidence (+) differ:\n%s\n%s", must(json.Marshal(res)), must(json.Marshal(again)))
	}
}

// TestAnswersByOCSP: the online checker as a source, nonce and all.
func TestAnswersByOCSP(t *testing.T) {
	a := newArchive(t)
	v := a.documents(t, func(c *verifier.DocumentConfig) {
		c.Sources = []verifier.RevocationSource{pool(), verifier.CheckerSource("ocsp", a.checker(t))}
	})
	in := verifier.DocumentInput{Data: file{by: a.signer, content: contract}.der(t)}
	res, err := v.Document(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	s := res.Signatures[0]
	if !res.OK() || len(s.Evidence) != 1 || s.Evidence[0].Source != "ocsp" || s.Evidence[0].Kind != "ocsp" || s.Evidence[0].Age != 600 {
		t.Fatalf("%s %+v %+v", res.Code, s.Checks, s.Evidence)
	}
	var asked []string
	for _, f := range res.Fetches {
		asked = append(asked, f.Source)
	}
	if diff := cmp.Diff([]string{"pool", "ocsp"}, asked); diff != "" {
		t.Error(diff)
	}
	in.Existed = t0.Add(-2 * time.Hour)
	for since, want := range map[time.Duration]verifier.Code{-3 * time.Hour: verifier.RevokedKeyCompromise, -90 * time.Minute: verifier.OK} {
		a.ocsp.statuses[a.signer.serial()] = status{reason: jpki.KeyCompromise, at: t0.Add(-time.Hour), invalidSince: t0.Add(since)}
		if res, err = v.Document(t.Context(), in); err != nil || res.Code != want {
			t.Errorf("key compromised %s, document on record two hours before now: %v %v, want %s", since, res.Code, err, want)
		}
	}
	in.Existed = time.Time{}
	a.ocsp.statuses[a.signer.serial()] = status{unknown: true}
	if res, err = v.Document(t.Context(), in); err != nil || res.Code != verifier.CertificateUnknown && res.Code != verifier.StatusNotEstablished {
		t.Errorf("never issued: %v %v", res.Code, err)
	}
	a.ocsp.server.Close()
	if res, err = v.Document(t.Context(), in); err != nil || res.Code != verifier.StatusNotEstablished || !res.Fetches[1].Failed || res.Fetches[1].Err == nil {
		t.Errorf("source down: %v %v", res.Code, err)
	}
}

// TestBadSignatureAsksNobody: no source hears of a signature that is not one.
func TestBadSignatureAsksNobody(t *testing.T) {
	a := newArchive(t)
	v := a.documents(t, func(c *verifier.DocumentConfig) {
		c.Sources = []verifier.RevocationSource{verifier.CheckerSource("ocsp", a.checker(t))}
	})
	res, err := v.Document(t.Context(), verifier.DocumentInput{Data: file{by: a.signer, content: contract, spoil: func(v []byte) { v[3] ^= 4 }}.der(t)})
	if err != nil || res.Code != verifier.SignatureWrong {
		t.Fatalf("%v %v", res, err)
	}
	if a.ocsp.asked != 0 || len(res.Fetches) != 0 {
		t.Errorf("asked %d times, %d fetches", a.ocsp.asked, len(res.Fetches))
	}
}

// TestDocumentCodes: every path's verdict has a code of ours, every code has words, and no code is in both lists.
func TestDocumentCodes(t *testing.T) {
	both := slices.Concat(verifier.Codes(), verifier.DocumentCodes())
	slices.Sort(both)
	if len(slices.Compact(slices.Clone(both))) != len(both) {
		t.Error("a code twice")
	}
	for _, c := range path.Codes {
		for _, index := range []int{0, 1, -1} {
			code := verifier.CodeOf(&path.Result{Code: c, Index: index})
			if (code == verifier.OK) != (c == path.OK) || !slices.Contains(both, code) {
				t.Errorf("%s of certificate %d: %q", c, index, code)
			}
		}
	}
}

func (a *archive) jws(t *testing.T, expires time.Time) []byte {
	t.Helper()
	header := map[string]any{"alg": "RS256", "exp": expires.Unix(), "x5c": [][]byte{a.signer.der}}
	head := base64url(must(json.Marshal(header))) + "." + base64url(contract)
	_, value := a.signer.sign(t, crypto.SHA256, []byte(head))
	out := []byte(head + "." + base64url(value))
	if _, err := jws.Read(out, jws.Options{}); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestDocumentMisuse(t *testing.T) {
	a := newArchive(t)
	v := a.documents(t)
	for name, in := range map[string]verifier.DocumentInput{
		"nothing": {}, "of the future": {Data: []byte("0"), At: t0.Add(time.Hour)}, "no format": {Data: []byte("hello")},
		"unknown format": {Data: []byte("0"), Format: "zip"}, "both": {Data: []byte("0"), Reader: strings.NewReader("0"), Size: 1},
		"known before": {Data: []byte("0"), Existed: t0.Add(time.Hour)}, "short": {Reader: strings.NewReader("%PDF-1.7"), Size: 100}, "CMS that is none": {Data: []byte{0x30, 0}},
	} {
		if res, err := v.Document(t.Context(), in); err == nil || res != nil {
			t.Errorf("%s: %v %v", name, res, err)
		}
	}
	if _, err := verifier.New(verifier.Config{Now: time.Now, Rand: rand.Reader, Documents: &verifier.DocumentConfig{
		Policy: must(verifier.FindDocumentPolicy("jpki-signature-2026")), Anchors: []*x509.Certificate{a.sign[0].cert},
	}}); err == nil {
		t.Error("an anchor that the policy does not name was taken")
	}
}
