package jws_test

import (
	"crypto"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"pgregory.net/rapid"

	"github.com/openjpki/jpki/verifier/jws"
	"github.com/openjpki/jpki/verifier/primitive"
)

var algorithms = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}

// What go-jose makes, we accept, and what we make, go-jose accepts.
func TestAgainstGoJOSE(t *testing.T) {
	const payload = `{"title":"約款への同意"}`
	for _, alg := range algorithms {
		id := newIdentity(t, alg)
		key, err := primitive.NewKey(id.key.Public())
		if err != nil {
			t.Fatal(err)
		}
		given := jws.Options{Key: func(*jws.Signature) *primitive.Key { return key }}
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(alg), Key: id.key}, nil)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := signer.Sign([]byte(payload))
		if err != nil {
			t.Fatal(err)
		}
		compact, err := theirs.CompactSerialize()
		if err != nil {
			t.Fatal(err)
		}
		detached, err := theirs.DetachedCompactSerialize()
		if err != nil {
			t.Fatal(err)
		}
		for form, text := range map[string]string{"compact": compact, "JSON": theirs.FullSerialize()} {
			if err := verdict(text, given); err != nil {
				t.Errorf("%s of go-jose, %s: %v", alg, form, err)
			}
		}
		o := given
		o.Payload = []byte(payload)
		if err := verdict(detached, o); err != nil {
			t.Errorf("%s of go-jose, detached: %v", alg, err)
		}
		if err := verdict(compact, o); !errors.Is(err, jws.ErrMalformed) {
			t.Errorf("%s: a payload beside the one given: %v", alg, err)
		}

		ours, err := jose.ParseSigned(id.sign(t, payload), []jose.SignatureAlgorithm{jose.SignatureAlgorithm(alg)})
		if err != nil {
			t.Fatalf("%s: %v", alg, err)
		}
		// go-jose knows no sigT and keeps to the rule about what is critical.
		if _, err := ours.Verify(id.key.Public()); err == nil {
			t.Errorf("%s: go-jose passed over a critical parameter", alg)
		}
		config := id.config()
		config.SigningTime, config.Detached = time.Time{}, true
		plain, err := jws.Sign([]byte(payload), config)
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := jose.ParseDetached(string(plain), []byte(payload), []jose.SignatureAlgorithm{jose.SignatureAlgorithm(alg)})
		if err != nil {
			t.Fatalf("%s: %v", alg, err)
		}
		if err := parsed.DetachedVerify([]byte(payload), id.key.Public()); err != nil {
			t.Errorf("%s by us: %v", alg, err)
		}
		if chain, err := parsed.Signatures[0].Protected.Certificates(x509.VerifyOptions{Roots: pool(t, id)}); err != nil || len(chain) == 0 {
			t.Errorf("%s: go-jose finds no certificate: %v", alg, err)
		}
	}
}

func pool(t *testing.T, id identity) *x509.CertPool {
	t.Helper()
	cert, err := x509.ParseCertificate(id.cert)
	if err != nil {
		t.Fatal(err)
	}
	p := x509.NewCertPool()
	p.AddCert(cert)
	return p
}

// Several signatures, a payload as it is, and things JSON leaves open.
func TestForms(t *testing.T) {
	a, b := newIdentity(t, "ES256"), newIdentity(t, "ES384")
	const payload = `say "friend"`
	general := func(ids []identity, more map[string]any, text string) string {
		var list []any
		for _, id := range ids {
			h := b64(id.header(t, more))
			list = append(list, map[string]any{"protected": h, "signature": id.value(t, h+"."+text), "header": map[string]any{"kid": "x", "unknown": 1}})
		}
		out, err := json.Marshal(map[string]any{"payload": text, "signatures": list, "unknown": nil})
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	two := general([]identity{a, b}, nil, b64(payload))
	unencoded := general([]identity{a, b}, map[string]any{"b64": false, "crit": []string{"b64"}}, payload)
	for name, text := range map[string]string{"two": two, "b64=false": unencoded, "spaces": " \n" + two + "\n"} {
		all, err := jws.Read([]byte(text), jws.Options{})
		if err != nil || len(all) != 2 {
			t.Fatalf("%s: %d signatures, %v", name, len(all), err)
		}
		for i, s := range all {
			if v := s.Verify(); v.Err != nil || string(v.Certificate) != string([]identity{a, b}[i].cert) || string(s.Payload) != payload || s.KeyID != "x" {
				t.Errorf("%s, signature %d: %v", name, i, v.Err)
			}
		}
	}
	// One of the two broken leaves the other.
	all, err := jws.Read([]byte(strings.Replace(two, b64(b.header(t, nil))[:40], b64(b.header(t, nil))[1:41], 1)), jws.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if v := all[0].Verify(); v.Err != nil {
		t.Error(v.Err)
	}
	if v := all[1].Verify(); !errors.Is(v.Err, jws.ErrMalformed) {
		t.Error(v.Err)
	}

	mixed := strings.Replace(general([]identity{a}, nil, b64(payload)), `"signatures":[`, `"signatures":[`+entry(t, b, map[string]any{"b64": false, "crit": []string{"b64"}}, b64(payload))+",", 1)
	if err := verdict(mixed, jws.Options{}); !errors.Is(err, jws.ErrMalformed) {
		t.Errorf("encoded and not: %v", err)
	}
}

func entry(t *testing.T, id identity, more map[string]any, text string) string {
	h := b64(id.header(t, more))
	return fmt.Sprintf(`{"protected":%q,"signature":%q}`, h, id.value(t, h+"."+text))
}

// What is signed as it should be, and must be refused all the same; and what an attacker would try.
func TestRefused(t *testing.T) {
	id, evil := newIdentity(t, "ES256"), newIdentity(t, "ES256")
	rs := newIdentity(t, "RS256")
	good := id.sign(t, "pay 1 yen")
	parts := strings.Split(good, ".")
	jwk, err := json.Marshal(jose.JSONWebKey{Key: evil.key.Public()})
	if err != nil {
		t.Fatal(err)
	}
	bank := jws.Options{Certificates: [][]byte{id.cert}}
	pinned := jws.Options{Key: func(*jws.Signature) *primitive.Key {
		key, _ := primitive.CertificateKey(id.cert)
		return key
	}}
	// signed makes a JWS by who, with these members instead of those.
	signed := func(who identity, more map[string]any) string {
		return who.compact(t, who.header(t, more), b64("x"), b64("x"))
	}
	public, err := x509.MarshalPKIXPublicKey(rs.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	mac := func(key []byte) string {
		input := b64(rs.header(t, map[string]any{"alg": "HS256"})) + "." + b64("x")
		h := hmac.New(sha256.New, key)
		h.Write([]byte(input))
		return input + "." + b64(string(h.Sum(nil)))
	}
	thumb := func(der []byte) string { sum := sha256.Sum256(der); return b64(string(sum[:])) }
	flat := func(protected, header string) string {
		p := b64(protected)
		return fmt.Sprintf(`{"payload":%q,"protected":%q,"header":%s,"signature":%q}`, b64("x"), p, header, id.value(t, p+"."+b64("x")))
	}
	sigD := func(v map[string]any) string {
		return id.compact(t, id.header(t, map[string]any{"sigD": v, "crit": []string{"sigD"}}), "", "")
	}
	for _, c := range []struct {
		name string
		text string
		o    jws.Options
		want error
	}{
		{"nothing", "", jws.Options{}, jws.ErrMalformed},
		{"two parts", "a.b", jws.Options{}, jws.ErrMalformed},
		{"four parts", good + ".e30", jws.Options{}, jws.ErrMalformed},
		{"payload changed", parts[0] + "." + b64("pay 9 yen") + "." + parts[2], jws.Options{}, jws.ErrValue},
		{"header changed", b64(id.header(t, nil)) + "." + parts[1] + "." + parts[2], jws.Options{}, jws.ErrValue},
		{"value cut", good[:len(good)-2], jws.Options{}, jws.ErrValue},
		{"value of nothing", parts[0] + "." + parts[1] + ".", jws.Options{}, jws.ErrValue},
		{"padding", parts[0] + "=." + parts[1] + "." + parts[2], jws.Options{}, jws.ErrMalformed},
		{"line break inside", parts[0] + "." + parts[1] + "\n." + parts[2], jws.Options{}, jws.ErrMalformed},

		{"none", b64(`{"alg":"none"}`) + "." + b64("x") + ".", bank, jws.ErrUnsupported},
		{"nOnE", b64(`{"alg":"nOnE"}`) + "." + b64("x") + ".", bank, jws.ErrUnsupported},
		{"HMAC by the public key", mac(public), jws.Options{Certificates: [][]byte{rs.cert}}, jws.ErrUnsupported},
		{"HMAC by the certificate", mac(rs.cert), jws.Options{Certificates: [][]byte{rs.cert}}, jws.ErrUnsupported},
		{"algorithm of another key", signed(id, map[string]any{"alg": "RS256"}), jws.Options{}, jws.ErrValue},
		{"algorithm of another curve", signed(id, map[string]any{"alg": "ES384"}), jws.Options{}, jws.ErrValue},
		{"no algorithm", signed(id, map[string]any{"alg": nil}), jws.Options{}, jws.ErrMalformed},
		{"algorithm unprotected", flat(id.header(t, map[string]any{"alg": nil}), `{"alg":"ES256"}`), jws.Options{}, jws.ErrMalformed},
		{"algorithm protected and not", flat(id.header(t, nil), `{"alg":"ES256"}`), jws.Options{}, jws.ErrMalformed},
		{"algorithm twice", flat(strings.Replace(id.header(t, nil), "{", `{"alg":"none",`, 1), `{}`), jws.Options{}, jws.ErrMalformed},
		{"member twice", strings.Replace(flat(id.header(t, nil), `{}`), "{", `{"payload":"eQ",`, 1), jws.Options{}, jws.ErrMalformed},
		{"member twice, spelt differently", strings.Replace(flat(id.header(t, nil), `{}`), "{", `{"p\u0061yload":"eQ",`, 1), jws.Options{}, jws.ErrMalformed},
		{"member in capitals", strings.Replace(flat(id.header(t, nil), `{}`), `"protected"`, `"Protected"`, 1), jws.Options{}, jws.ErrMalformed},

		{"key sent along", signed(evil, map[string]any{"x5c": nil, "jwk": json.RawMessage(jwk)}), jws.Options{}, jws.ErrNoKey},
		{"key sent along, another known", signed(evil, map[string]any{"x5c": nil, "jwk": json.RawMessage(jwk)}), bank, jws.ErrValue},
		{"address of a key", signed(evil, map[string]any{"x5c": nil, "jku": "https://evil.example/keys", "x5u": "file:///etc/passwd"}), bank, jws.ErrValue},
		{"path as key identifier", signed(evil, map[string]any{"x5c": nil, "kid": "../../../dev/null"}), bank, jws.ErrValue},
		{"certificate sent along, key pinned", signed(evil, nil), pinned, jws.ErrValue},
		{"certificate unprotected", flat(id.header(t, map[string]any{"x5c": nil}), id.header(t, map[string]any{"alg": nil})), jws.Options{}, jws.ErrMalformed},
		{"somebody else's certificate first", signed(evil, map[string]any{"x5c": []string{base64.StdEncoding.EncodeToString(id.cert), base64.StdEncoding.EncodeToString(evil.cert)}}), jws.Options{}, jws.ErrValue},
		{"reference to another certificate", signed(id, map[string]any{"x5t#S256": thumb(evil.cert)}), jws.Options{}, jws.ErrCertificate},
		{"second reference to another certificate", signed(id, map[string]any{"x5t#S256": thumb(id.cert), "x5t#o": map[string]string{"digAlg": "S256", "digVal": thumb(evil.cert)}}), jws.Options{}, jws.ErrCertificate},
		{"certificate is a text", signed(id, map[string]any{"x5c": "MIIB"}), jws.Options{}, jws.ErrMalformed},
		{"no certificates", signed(id, map[string]any{"x5c": []string{}}), jws.Options{}, jws.ErrMalformed},
		{"certificate is none", signed(id, map[string]any{"x5c": []string{"MIIB"}}), jws.Options{}, jws.ErrUnsupported},

		{"critical and unknown", signed(id, map[string]any{"crit": []string{"http://example.com/UNDEFINED"}, "http://example.com/UNDEFINED": true}), jws.Options{}, jws.ErrUnsupported},
		{"critical and empty", signed(id, map[string]any{"crit": []string{}}), jws.Options{}, jws.ErrMalformed},
		{"critical and absent", signed(id, map[string]any{"crit": []string{"sigT"}}), jws.Options{}, jws.ErrMalformed},
		{"critical and no extension", signed(id, map[string]any{"crit": []string{"alg"}}), jws.Options{}, jws.ErrMalformed},
		{"critical unprotected", flat(id.header(t, nil), `{"crit":["exp"],"exp":1}`), jws.Options{}, jws.ErrMalformed},
		{"b64 not critical", id.compact(t, id.header(t, map[string]any{"b64": false}), "x", "x"), jws.Options{}, jws.ErrMalformed},
		{"b64 is a text", id.compact(t, id.header(t, map[string]any{"b64": "false", "crit": []string{"b64"}}), "x", "x"), jws.Options{}, jws.ErrMalformed},
		{"time is none", signed(id, map[string]any{"sigT": "yesterday"}), jws.Options{}, jws.ErrMalformed},
		{"expiry is no number", signed(id, map[string]any{"exp": "2030"}), jws.Options{}, jws.ErrMalformed},

		{"detached, nothing given", id.compact(t, id.header(t, nil), b64("x"), ""), jws.Options{}, jws.ErrNotFound},
		{"detached, something else given", id.compact(t, id.header(t, nil), b64("x"), ""), jws.Options{Payload: []byte("y")}, jws.ErrValue},
		{"attached, though another is given", good, jws.Options{Payload: []byte("y")}, jws.ErrMalformed},
		{"objects, though a payload is given", sigD(map[string]any{"mId": jws.ObjectsURI, "pars": []string{"a"}}), jws.Options{Payload: []byte("y")}, jws.ErrMalformed},
		{"objects not critical", id.compact(t, id.header(t, map[string]any{"sigD": map[string]any{"mId": jws.ObjectsURI, "pars": []string{"a"}}}), "", ""), jws.Options{Payload: []byte{}}, jws.ErrMalformed},
		{"no objects", sigD(map[string]any{"mId": jws.ObjectsHash, "pars": []string{}, "hashM": "S256", "hashV": []string{}}), jws.Options{}, jws.ErrMalformed},
		{"objects without digests", sigD(map[string]any{"mId": jws.ObjectsHash, "pars": []string{"a"}}), jws.Options{}, jws.ErrMalformed},
		{"fewer digests than objects", sigD(map[string]any{"mId": jws.ObjectsHash, "pars": []string{"a", "b"}, "hashM": "S256", "hashV": []string{"aa"}}), jws.Options{}, jws.ErrMalformed},
		{"objects by unknown means", sigD(map[string]any{"mId": "x", "pars": []string{"a"}}), jws.Options{}, jws.ErrUnsupported},

		{"general and flattened", strings.Replace(flat(id.header(t, nil), `{}`), "{", `{"signatures":[],`, 1), jws.Options{}, jws.ErrMalformed},
		{"no signatures", `{"payload":"eA","signatures":[]}`, jws.Options{}, jws.ErrMalformed},
		{"too many signatures", `{"payload":"eA","signatures":[` + strings.Repeat(`{"signature":"eA"},`, 200) + `{"signature":"eA"}]}`, jws.Options{}, jws.ErrUnsupported},
		{"deep", `{"payload":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`, jws.Options{}, jws.ErrUnsupported},
		{"many values", `{"payload":[` + strings.Repeat("1,", 30000) + `1]}`, jws.Options{}, jws.ErrUnsupported},
		{"long", strings.Repeat(" ", jws.MaxBytes) + "{}", jws.Options{}, jws.ErrUnsupported},
	} {
		if err := verdict(c.text, c.o); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	if err := verdict(good, bank); err != nil {
		t.Error(err)
	}
}

// Things outside a JWS that it names.
func TestObjects(t *testing.T) {
	id := newIdentity(t, "PS256")
	files := map[string]string{"a.txt": "first", "b.txt": "second"}
	o := jws.Options{Resolve: func(uri string) ([]byte, bool) {
		text, ok := files[uri]
		return []byte(text), ok
	}, Fields: func(name string) ([]string, bool) {
		if name == "digest" {
			return []string{"SHA-256=abc"}, true
		}
		return []string{"post /orders"}, name == "(request-target)"
	}}
	sum := func(text string) string { return b64(string(primitive.Digest(crypto.SHA512, []byte(text)))) }
	signed := func(b64 bool, sigD map[string]any, payload string) string {
		more := map[string]any{"sigD": sigD, "crit": []string{"sigD"}}
		if !b64 {
			more["b64"], more["crit"] = false, []string{"sigD", "b64"}
		}
		return id.compact(t, id.header(t, more), payload, "")
	}
	uris := []string{"a.txt", "b.txt"}
	hashed := signed(true, map[string]any{"mId": jws.ObjectsHash, "pars": uris, "hashM": "S512", "hashV": []string{sum(b64("first")), sum(b64("second"))}}, "")
	raw := signed(false, map[string]any{"mId": jws.ObjectsHash, "pars": uris, "hashM": "S512", "hashV": []string{sum("first"), sum("second")}}, "")
	joined := signed(true, map[string]any{"mId": jws.ObjectsURI, "pars": uris}, b64("firstsecond"))
	message := signed(false, map[string]any{"mId": jws.HTTPFields, "pars": []string{"(request-target)", "Digest"}}, "(request-target): post /orders\ndigest: SHA-256=abc")
	for name, text := range map[string]string{"digests": hashed, "raw digests": raw, "joined": joined, "fields": message} {
		if err := verdict(text, o); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := verdict(text, jws.Options{}); !errors.Is(err, jws.ErrNotFound) {
			t.Errorf("%s, without: %v", name, err)
		}
	}
	files["b.txt"] = "other"
	for name, c := range map[string]struct {
		text string
		want error
	}{"digests": {hashed, jws.ErrDigest}, "raw digests": {raw, jws.ErrDigest}, "joined": {joined, jws.ErrValue}} {
		if err := verdict(c.text, o); !errors.Is(err, c.want) {
			t.Errorf("%s changed: %v, want %v", name, err, c.want)
		}
	}
}

// A counter-signature counts for the signature that it is about.
func TestCounterSignatures(t *testing.T) {
	a, b := newIdentity(t, "ES256"), newIdentity(t, "ES384")
	h := b64(a.header(t, nil))
	value := a.value(t, h+"."+b64("x"))
	with := func(counter any) string {
		item, err := json.Marshal(map[string]any{"cSig": counter})
		if err != nil {
			t.Fatal(err)
		}
		out, err := json.Marshal(map[string]any{"payload": b64("x"), "protected": h, "signature": value, "header": map[string]any{"etsiU": []string{b64(string(item))}}})
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	good := b.compact(t, b.header(t, nil), value, "")
	for _, counter := range []string{good, b.compact(t, b.header(t, nil), value, value)} {
		all, err := jws.Read([]byte(with(counter)), jws.Options{})
		if err != nil || len(all) != 2 || all[0].Inside || !all[1].Inside || all[1].CountersignedAt != 0 {
			t.Fatalf("%d signatures, %v", len(all), err)
		}
		for _, s := range all {
			if v := s.Verify(); v.Err != nil {
				t.Error(v.Err)
			}
		}
	}
	other := b64("something else")
	for name, c := range map[string]struct {
		counter any
		want    error
	}{
		"over something else":          {b.compact(t, b.header(t, nil), other, other), jws.ErrDigest},
		"over something else, unsaid":  {b.compact(t, b.header(t, nil), other, ""), jws.ErrValue},
		"no JWS":                       {17, jws.ErrMalformed},
		"several in one":               {map[string]any{"signatures": []any{}}, jws.ErrMalformed},
		"over objects that it chooses": {b.compact(t, b.header(t, map[string]any{"sigD": map[string]any{"mId": jws.ObjectsURI, "pars": []string{"a"}}, "crit": []string{"sigD"}}), value, ""), jws.ErrDigest},
	} {
		if err := verdict(with(c.counter), jws.Options{}); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// Any octet of a compact JWS counts.
func TestEveryOctetCounts(t *testing.T) {
	id := newIdentity(t, "ES256")
	good := id.sign(t, "pay 1 yen")
	if err := verdict(good, jws.Options{}); err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		changed := []byte(good)
		at := rapid.IntRange(0, len(changed)-1).Draw(t, "at")
		c := rapid.Byte().Draw(t, "octet")
		if changed[at] == c {
			return
		}
		changed[at] = c
		if verdict(string(changed), jws.Options{}) == nil {
			t.Fatalf("octet %d may be %q", at, c)
		}
	})
}

// Sign checks what it is told.
func TestSignRefuses(t *testing.T) {
	id, other := newIdentity(t, "ES256"), newIdentity(t, "ES256")
	for name, change := range map[string]func(*jws.SignConfig){
		"no certificate":      func(c *jws.SignConfig) { c.Certificate = nil },
		"no signer":           func(c *jws.SignConfig) { c.Signer = nil },
		"no chance":           func(c *jws.SignConfig) { c.Rand = nil },
		"no algorithm":        func(c *jws.SignConfig) { c.Algorithm = "" },
		"HMAC":                func(c *jws.SignConfig) { c.Algorithm = "HS256" },
		"another curve":       func(c *jws.SignConfig) { c.Algorithm = "ES384" },
		"another certificate": func(c *jws.SignConfig) { c.Certificate = other.cert },
		"broken certificate":  func(c *jws.SignConfig) { c.Certificate = []byte{0x30, 0} },
	} {
		c := id.config()
		change(&c)
		if out, err := jws.Sign([]byte("x"), c); err == nil {
			t.Errorf("%s: %s", name, out)
		}
	}
}

// Whatever the text, reading and checking end, and only what was signed is accepted of a known key.
func FuzzVerify(f *testing.F) {
	id := newIdentity(f, "ES256")
	key, err := primitive.CertificateKey(id.cert)
	if err != nil {
		f.Fatal(err)
	}
	good := id.sign(f, "pay 1 yen")
	parts := strings.Split(good, ".")
	f.Add(good)
	f.Add(fmt.Sprintf(`{"payload":%q,"signatures":[{"protected":%q,"header":{"kid":"x","etsiU":["e30",{"sigTst":{"tstTokens":[{"val":"MAA="}]}},{"cSig":"a.b.c"},{"cSig":{"protected":"e30","signature":""}}]},"signature":%q}]}`, parts[1], parts[0], parts[2]))
	f.Add(id.compact(f, id.header(f, map[string]any{"b64": false, "exp": 1, "nbf": 2, "iat": 3, "crit": []string{"b64", "exp"}, "x5t#o": map[string]any{"digAlg": "S256", "digVal": "eA"}}), "pay 1 yen", "pay 1 yen"))
	f.Add(id.compact(f, id.header(f, map[string]any{"sigD": map[string]any{"mId": jws.ObjectsHash, "pars": []string{"a"}, "hashM": "S256", "hashV": []string{"aa"}}, "crit": []string{"sigD"}}), "", ""))
	f.Fuzz(func(t *testing.T, text string) {
		for _, o := range []jws.Options{{Key: func(*jws.Signature) *primitive.Key { return key }}, {Resolve: func(string) ([]byte, bool) { return []byte("a"), true }}} {
			all, err := jws.Read([]byte(text), o)
			if err != nil {
				continue
			}
			for _, s := range all {
				for _, stamp := range s.Stamps {
					_, _ = stamp.Imprint(crypto.SHA256)
				}
				if v := s.Verify(); v.Err == nil && o.Key != nil && string(s.Payload) != "pay 1 yen" && s.Mechanism == "" {
					t.Fatalf("accepted: %q", s.Payload)
				}
			}
		}
	})
}

// What reading and checking cost beside the signature check and the digest that they cannot do without.
func BenchmarkVerify(b *testing.B) {
	for _, alg := range []string{"RS256", "ES256"} {
		id := newIdentity(b, alg)
		text := []byte(id.sign(b, strings.Repeat("x", 1000)))
		key, _ := primitive.CertificateKey(id.cert)
		all, err := jws.Read(text, jws.Options{})
		if err != nil {
			b.Fatal(err)
		}
		input := text[:strings.LastIndexByte(string(text), '.')]
		b.Run(alg+"/bound", func(b *testing.B) {
			for b.Loop() {
				if err := primitive.VerifyMessage(key, all[0].Algorithm, input, all[0].Value); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(alg+"/read-and-verify", func(b *testing.B) {
			for b.Loop() {
				if err := verdict(string(text), jws.Options{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
