package verifier_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/openjpki/jpki/verifier"
)

const bankName = "https://bank.example.jp/tokens"

// A notary is an issuer of tokens.
type notary struct{ leaf }

func newNotary(t *testing.T, a *archive, key crypto.Signer) notary {
	t.Helper()
	return notary{a.issue(t, a.stamps, key, func(c *x509.Certificate) { c.NotAfter = t0.AddDate(1, 0, 0) })}
}

func (n notary) cert() *x509.Certificate { return must(x509.ParseCertificate(n.der)) }

func (n notary) config(a *archive) verifier.TokenConfig {
	return verifier.TokenConfig{Certificate: n.cert(), Signer: n.key, Issuer: bankName, Now: func() time.Time { return a.now }, Rand: rand.Reader}
}

// believes configures an issuer.
func (n notary) believed(c *verifier.DocumentConfig) {
	c.TokenIssuers = []verifier.TokenIssuer{{Certificate: n.cert(), Name: bankName}}
}

// TestTokens: in every format and by every kind of key, a token outlives certificates and lists, and is about this document only.
func TestTokens(t *testing.T) {
	a := newArchive(t)
	fresh := list(t, a.sign[1], t0.Add(-time.Hour))
	part := `<part Id="p">pay 100</part>`
	other := map[string][]byte{
		"CMS": file{by: a.signer, content: []byte("The undersigned opens two accounts.")}.der(t), "PDF": signPDF(t, a.signer, bytes.Replace(onePage(), []byte("9 9 l S"), []byte("8 8 l S"), 1)),
		"XML": signedXML(t, a.signer, "<a></a>", "", "<doc><a></a></doc>"), "JWS": a.jws(t, t0.Add(2*time.Hour)),
	}
	for name, doc := range map[string]struct {
		data    []byte
		spoiled []byte
		ref     string
	}{
		"CMS": {file{by: a.signer, content: contract}.der(t), file{by: a.signer, content: contract, spoil: func(v []byte) { v[9] ^= 1 }}.der(t), "content"},
		"PDF": {signedPDF(t, a.signer), repainted(t, signedPDF(t, a.signer)), "0 "},
		"XML": {signedXML(t, a.signer, part, "", `<doc>`+part+`</doc>`), signedXML(t, a.signer, "<b></b>", "", `<doc>`+part+`</doc>`), ""},
		"JWS": {a.jws(t, t0.Add(time.Hour)), bytes.Replace(a.jws(t, t0.Add(time.Hour)), []byte(".VGhl"), []byte(".VGhf"), 1), "payload"},
	} {
		for kind, key := range map[string]crypto.Signer{"P-256": ecKey(elliptic.P256()), "P-384": ecKey(elliptic.P384()), "RSA": rsaKey()} {
			t.Run(name+" "+kind, func(t *testing.T) {
				a.now = t0
				n := newNotary(t, a, key)
				v := a.documents(t, n.believed, func(c *verifier.DocumentConfig) { c.Sources = []verifier.RevocationSource{pool(fresh)} })
				hash := must(verifier.TokenHash(n.cert()))
				res, err := v.Document(t.Context(), verifier.DocumentInput{Data: doc.data, TokenHash: hash})
				if err != nil || !res.OK() {
					t.Fatal(res, err)
				}
				tokens, err := res.Tokens(n.config(a))
				if err != nil || len(tokens) != 1 {
					t.Fatal(tokens, err)
				}
				claims := opened(t, tokens[0], n)
				if p := claims["sig_val_claims"].(map[string]any)["profile"]; p != name {
					t.Errorf("profile %v", p)
				}
				sig := claims["sig_val_claims"].(map[string]any)["sig"].([]any)[0].(map[string]any)
				if ref := sig["sig_data_ref"].([]any)[0].(map[string]any)["ref"].(string); !strings.HasPrefix(ref, doc.ref) {
					t.Errorf("what was signed is called %q", ref)
				}

				// Years later: the signer's certificate and all lists have expired.
				a.now = t0.AddDate(8, 0, 0)
				late := a.documents(t, n.believed)
				if res, err := late.Document(t.Context(), verifier.DocumentInput{Data: doc.data}); err != nil || res.OK() {
					t.Fatal(res.Code, err)
				}
				got, err := late.VerifyToken(t.Context(), verifier.DocumentInput{Data: doc.data}, tokens...)
				if err != nil || !got.OK() {
					t.Fatalf("%v %+v", err, got.Signatures)
				}
				s := got.Signatures[0]
				if s.BestTimeProof != verifier.ByToken || !s.BestTime.Equal(t0) || s.Token == nil || s.Token.Issuer != bankName || s.Attributes == nil || len(got.Fetches) != 0 || s.Signer.Kind != "card-sign" {
					t.Errorf("%+v %+v", s, s.Token)
				}
				conforms(t, got)

				for what, data := range map[string][]byte{"another document": other[name], "changed": doc.spoiled} {
					got, err := late.VerifyToken(t.Context(), verifier.DocumentInput{Data: data}, tokens...)
					if err == nil && (got.OK() || len(got.Signatures) != 1 || got.Signatures[0].Token != nil) {
						t.Errorf("%s: %s", what, got.Code)
					}
					if what == "another document" && got.Code != verifier.TokenMissing {
						t.Errorf("%s: %s", what, got.Code)
					}
				}
			})
		}
	}
}

// opened has go-jose, which is not ours, verify a token, and returns its claims. The digest of the certificate is computed here.
func opened(t *testing.T, token string, n notary) map[string]any {
	t.Helper()
	sig, err := jose.ParseSigned(token, []jose.SignatureAlgorithm{jose.RS256, jose.ES256, jose.ES384})
	if err != nil {
		t.Fatal(err)
	}
	payload, err := sig.Verify(n.key.Public())
	if err != nil {
		t.Fatalf("go-jose refuses the token: %v", err)
	}
	if typ := sig.Signatures[0].Protected.ExtraHeaders["typ"]; typ != "JWT" {
		t.Errorf("typ %v", typ)
	}
	for _, secret := range []string{"住所", "氏名", "千代田"} {
		if bytes.Contains(payload, []byte(secret)) {
			t.Error("personal data in a token")
		}
	}
	var claims map[string]any
	if err := json.Unmarshal(payload, &claims); err != nil {
		t.Fatal(err)
	}
	return claims
}

// jwt signs claims with go-jose.
func jwt(t *testing.T, alg jose.SignatureAlgorithm, key any, header map[jose.HeaderKey]any, claims any) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, &jose.SignerOptions{ExtraHeaders: header})
	if err != nil {
		t.Fatal(err)
	}
	return must(must(signer.Sign(must(json.Marshal(claims)))).CompactSerialize())
}

// TestTokenRefused: a token by somebody else, for somebody else, of another time, with other digests or of another form is not believed;
// go-jose makes them all, so that the one without a change shows that it is the change that counts.
func TestTokenRefused(t *testing.T) {
	a := newArchive(t)
	n := newNotary(t, a, rsaKey())
	thief := newNotary(t, a, ecKey(elliptic.P256()))
	data := file{by: a.signer, content: contract}.der(t)
	v := a.documents(t, func(c *verifier.DocumentConfig) {
		n.believed(c)
		c.TokenAudience = []string{"us"}
		c.Sources = []verifier.RevocationSource{pool(list(t, a.sign[1], t0.Add(-time.Hour)))}
	})
	res := must(v.Document(t.Context(), verifier.DocumentInput{Data: data, TokenHash: crypto.SHA256}))
	good := must(res.Tokens(n.config(a)))[0]
	sum := sha256.Sum256(n.der)
	kid := map[jose.HeaderKey]any{"typ": "JWT", "kid": base64.StdEncoding.EncodeToString(sum[:])}
	sig := func(c map[string]any) map[string]any { return c["sig_val_claims"].(map[string]any) }
	first := func(c map[string]any) map[string]any { return sig(c)["sig"].([]any)[0].(map[string]any) }
	verdict := func(c map[string]any) map[string]any { return first(c)["sig_val"].([]any)[0].(map[string]any) }
	zero := base64.StdEncoding.EncodeToString(make([]byte, 32))
	type claims = map[string]any
	for name, r := range map[string]struct {
		header map[jose.HeaderKey]any
		key    any
		alg    jose.SignatureAlgorithm
		change func(claims)
		code   verifier.Code
	}{
		"as it was":          {code: verifier.OK},
		"for us":             {change: func(c claims) { c["aud"] = "us" }, code: verifier.OK},
		"for us and others":  {change: func(c claims) { c["aud"] = []string{"them", "us"} }, code: verifier.OK},
		"for null":           {change: func(c claims) { c["aud"] = nil }, code: verifier.OK},
		"with nulls":         {change: func(c claims) { sig(c)["ext"] = nil; verdict(c)["msg"] = nil }, code: verifier.OK},
		"before its end":     {change: func(c claims) { c["exp"] = t0.Unix() + 1 }, code: verifier.OK},
		"for others":         {change: func(c claims) { c["aud"] = "them" }, code: verifier.TokenRefused},
		"after its end":      {change: func(c claims) { c["exp"] = t0.Unix() }, code: verifier.TokenRefused},
		"of the future":      {change: func(c claims) { c["iat"] = t0.Unix() + 3600 }, code: verifier.TokenRefused},
		"before its key":     {change: func(c claims) { c["iat"] = t0.Unix() - 1e8 }, code: verifier.TokenRefused},
		"another issuer":     {change: func(c claims) { c["iss"] = "https://other.example.jp" }, code: verifier.TokenRefused},
		"no time":            {change: func(c claims) { delete(c, "iat") }, code: verifier.TokenRefused},
		"no claims":          {change: func(c claims) { delete(c, "sig_val_claims") }, code: verifier.TokenRefused},
		"another claim":      {change: func(c claims) { c["nbf"] = 1 }, code: verifier.TokenRefused},
		"another version":    {change: func(c claims) { sig(c)["ver"] = "2.0" }, code: verifier.TokenRefused},
		"another hash":       {change: func(c claims) { sig(c)["hash_algo"] = "http://www.w3.org/2001/04/xmlenc#sha512" }, code: verifier.TokenRefused},
		"SHA-1":              {change: func(c claims) { sig(c)["hash_algo"] = "http://www.w3.org/2000/09/xmldsig#sha1" }, code: verifier.TokenRefused},
		"hash by another":    {alg: jose.RS384, code: verifier.TokenRefused},
		"by a thief":         {key: thief.key, alg: jose.ES256, code: verifier.TokenRefused},
		"unknown kid":        {header: map[jose.HeaderKey]any{"typ": "JWT", "kid": zero}, code: verifier.TokenRefused},
		"no key named":       {header: map[jose.HeaderKey]any{"typ": "JWT"}, code: verifier.TokenRefused},
		"own certificate":    {key: thief.key, alg: jose.ES256, header: map[jose.HeaderKey]any{"typ": "JWT", "x5c": []string{base64.StdEncoding.EncodeToString(thief.der)}}, code: verifier.TokenRefused},
		"no JWT":             {header: map[jose.HeaderKey]any{"typ": "jose", "kid": kid["kid"]}, code: verifier.TokenRefused},
		"HMAC with the cert": {key: n.der, alg: jose.HS256, code: verifier.TokenRefused},

		"another profile":     {change: func(c claims) { sig(c)["profile"] = "PDF" }, code: verifier.TokenMissing},
		"another signature":   {change: func(c claims) { first(c)["sig_ref"].(claims)["sig_hash"] = zero }, code: verifier.TokenMissing},
		"other attributes":    {change: func(c claims) { first(c)["sig_ref"].(claims)["sb_hash"] = zero }, code: verifier.TokenMissing},
		"other content":       {change: func(c claims) { first(c)["sig_data_ref"].([]any)[0].(claims)["hash"] = zero }, code: verifier.TokenMissing},
		"content by a name":   {change: func(c claims) { first(c)["sig_data_ref"].([]any)[0].(claims)["ref"] = "x" }, code: verifier.TokenMissing},
		"content twice":       {change: func(c claims) { l := first(c)["sig_data_ref"].([]any); first(c)["sig_data_ref"] = append(l, l[0]) }, code: verifier.TokenMissing},
		"another certificate": {change: func(c claims) { first(c)["signer_cert_ref"].(claims)["ref"] = []string{zero} }, code: verifier.TokenMissing},
		"another kind of ref": {change: func(c claims) { first(c)["signer_cert_ref"].(claims)["type"] = "x" }, code: verifier.TokenMissing},
		"the certificate":     {change: func(c claims) { first(c)["signer_cert_ref"] = claims{"type": "chain", "ref": [][]byte{a.signer.der}} }, code: verifier.OK},

		"failed":          {change: func(c claims) { verdict(c)["res"] = "FAILED" }, code: verifier.TokenNegative},
		"not established": {change: func(c claims) { verdict(c)["res"] = "INDETERMINATE" }, code: verifier.TokenNegative},
		"another policy":  {change: func(c claims) { verdict(c)["pol"] = "lenient" }, code: verifier.TokenNegative},
		"no verdict":      {change: func(c claims) { verdict(c)["res"] = "OK" }, code: verifier.TokenRefused},
		"passed and failed": {change: func(c claims) {
			bad := maps.Clone(verdict(c))
			bad["res"] = "FAILED"
			first(c)["sig_val"] = []any{verdict(c), bad}
		}, code: verifier.TokenNegative},
		"two entries": {change: func(c claims) {
			bad := maps.Clone(first(c))
			worse := maps.Clone(verdict(c))
			worse["res"] = "INDETERMINATE"
			bad["sig_val"] = []any{worse}
			sig(c)["sig"] = []any{first(c), bad}
		}, code: verifier.TokenNegative},
	} {
		t.Run(name, func(t *testing.T) {
			c := opened(t, good, n)
			if r.change != nil {
				r.change(c)
			}
			if r.key == nil {
				r.key = n.key
			}
			if r.header == nil {
				r.header = kid
			}
			if r.alg == "" {
				r.alg = jose.RS256
			}
			got, err := v.VerifyToken(t.Context(), verifier.DocumentInput{Data: data}, jwt(t, r.alg, r.key, r.header, c))
			if err != nil {
				t.Fatal(err)
			}
			if got.Code != r.code || got.OK() != (r.code == verifier.OK) {
				t.Errorf("%s, want %s: %+v", got.Code, r.code, got.Signatures[0].Checks)
			}
			if name == "failed" && got.Indication != verifier.TotalFailed || name == "not established" && got.Indication != verifier.Indeterminate {
				t.Errorf("%s", got.Indication)
			}
			conforms(t, got)
		})
	}

	// What is no token at all, and too many of them.
	for _, text := range []string{"", "ey", "{}", good[:len(good)-2], strings.Repeat("ey", verifier.MaxTokenBytes), "ey..", strings.Replace(good, ".", "..", 1)} {
		got, err := v.VerifyToken(t.Context(), verifier.DocumentInput{Data: data}, text)
		if err != nil || got.Code != verifier.TokenRefused {
			t.Errorf("%.20q: %v %v", text, got, err)
		}
	}
	if _, err := v.VerifyToken(t.Context(), verifier.DocumentInput{Data: data}); err == nil {
		t.Error("no token")
	}
	if _, err := v.VerifyToken(t.Context(), verifier.DocumentInput{Data: data}, slices.Repeat([]string{good}, verifier.MaxTokens+1)...); err == nil {
		t.Error("too many tokens")
	}
	// A policy that is agreed to by name, as of an issuer with names of its own.
	own := a.documents(t, func(c *verifier.DocumentConfig) {
		c.TokenIssuers = []verifier.TokenIssuer{{Certificate: n.cert(), Name: bankName, Policies: []string{"lenient"}}}
	})
	if got := must(own.VerifyToken(t.Context(), verifier.DocumentInput{Data: data}, good)); got.Code != verifier.TokenNegative {
		t.Errorf("own policy not agreed to: %s", got.Code)
	}
}

// TestTokenNeverUpgrades: a verdict that was not passed is written as what it was and stays that; the latest token counts; what is
// not intact now no token helps.
func TestTokenNeverUpgrades(t *testing.T) {
	a := newArchive(t)
	n := newNotary(t, a, rsaKey())
	data := file{by: a.signer, content: contract}.der(t)
	at := func(now time.Time, lists ...[]byte) (*verifier.DocumentResult, string) {
		a.now = now
		v := a.documents(t, n.believed, func(c *verifier.DocumentConfig) { c.Sources = []verifier.RevocationSource{pool(lists...)} })
		res := must(v.Document(t.Context(), verifier.DocumentInput{Data: data, TokenHash: crypto.SHA256}))
		return res, must(res.Tokens(n.config(a)))[0]
	}
	unknown, silent := at(t0)
	passed, good := at(t0.Add(time.Hour), list(t, a.sign[1], t0))
	revoked, bad := at(t0.Add(2*day), list(t, a.sign[1], t0.Add(2*day-time.Hour), a.signer.revoked(t0.Add(day), 3)))
	if unknown.Code != verifier.StatusNotEstablished || !passed.OK() || revoked.SubIndication != "REVOKED_NO_POE" {
		t.Fatal(unknown.Code, passed.Code, revoked.Code)
	}
	a.now = t0.Add(3 * day)
	v := a.documents(t, n.believed)
	for name, r := range map[string]struct {
		tokens []string
		code   verifier.Code
	}{
		"not established": {[]string{silent}, verifier.TokenNegative}, "passed": {[]string{good}, verifier.OK}, "revoked": {[]string{bad}, verifier.TokenNegative},
		"passed later": {[]string{silent, good}, verifier.OK}, "revoked later": {[]string{bad, good, silent}, verifier.TokenNegative},
		"with rubbish": {[]string{"ey", good, "ey"}, verifier.OK},
	} {
		if got := must(v.VerifyToken(t.Context(), verifier.DocumentInput{Data: data}, r.tokens...)); got.Code != r.code {
			t.Errorf("%s: %s, want %s", name, got.Code, r.code)
		}
	}
	// Also from evidence.
	tokens, err := must(v.Reevaluate(t.Context(), passed.Evidence, must(verifier.FindDocumentPolicy("sandbox-signature-2026")))).Tokens(n.config(a))
	if err != nil {
		t.Fatal(err)
	}
	if got := must(v.VerifyToken(t.Context(), verifier.DocumentInput{Data: data}, tokens...)); !got.OK() {
		t.Errorf("from evidence: %s", got.Code)
	}
	// A second signature that no token is about.
	for _, input := range []verifier.DocumentInput{{Data: data, TokenHash: crypto.SHA1}, {Data: data, TokenHash: crypto.MD5}} {
		if _, err := v.Document(t.Context(), input); err == nil {
			t.Error("digests by a hash function that is too weak")
		}
	}
	if res := must(v.Document(t.Context(), verifier.DocumentInput{Data: data})); must2(res.Tokens(n.config(a))) == nil {
		t.Error("a token without digests")
	}
}

func must3[T any](a, b T, err error) (T, T) { return a, must(b, err) }

func must2[T any](_ T, err error) error { return err }

// FuzzToken: whatever is done to the claims of a token, signed by its issuer, it makes no other document pass, and one that is
// negative nowhere stays so.
func FuzzToken(f *testing.F) {
	tt := &testing.T{}
	a := newArchive(tt)
	n := newNotary(tt, a, ecKey(elliptic.P256()))
	v := a.documents(tt, n.believed, func(c *verifier.DocumentConfig) {
		c.Sources = []verifier.RevocationSource{pool(list(tt, a.sign[1], t0.Add(-time.Hour)))}
	})
	data := file{by: a.signer, content: contract}.der(tt)
	other := file{by: a.signer, content: []byte("another")}.der(tt)
	res, err := v.Document(f.Context(), verifier.DocumentInput{Data: data, TokenHash: crypto.SHA256})
	if err != nil || !res.OK() {
		f.Fatal(res, err)
	}
	good := must(res.Tokens(n.config(a)))[0]
	head, rest, _ := strings.Cut(good, ".")
	payload, _, _ := strings.Cut(rest, ".")
	f.Add(must(base64.RawURLEncoding.DecodeString(payload)))
	f.Add(bytes.Replace(must(base64.RawURLEncoding.DecodeString(payload)), []byte("PASSED"), []byte("FAILED"), 1))
	f.Fuzz(func(t *testing.T, claims []byte) {
		input := head + "." + base64url(claims)
		sum := sha256.Sum256([]byte(input))
		r, s := must3(ecdsa.Sign(rand.Reader, n.key.(*ecdsa.PrivateKey), sum[:]))
		text := input + "." + base64url(append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...))
		if got, err := v.VerifyToken(t.Context(), verifier.DocumentInput{Data: other}, text); err != nil || got.OK() {
			t.Fatalf("another document: %v %v", got, err)
		}
		got, err := v.VerifyToken(t.Context(), verifier.DocumentInput{Data: data}, text)
		if err != nil {
			t.Fatal(err)
		}
		if got.OK() && (!bytes.Contains(claims, []byte("PASSED")) && !bytes.Contains(claims, []byte(`\u`)) || got.Signatures[0].Token == nil) {
			t.Fatal("passed without a token that says so")
		}
	})
}
