package acme_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"maps"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/acme"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/ca/store/storetest"
)

var oidAppNonce = asn1.ObjectIdentifier{1, 2, 840, 113635, 100, 8, 2}

const walletApp = "TEAMID1234.jp.example.wallet"

// An authenticator is what App Attest says of a key, part by part.
type authenticator struct {
	app     string
	flags   byte
	counter uint32
	name    string // AAGUID, filled up with zeros
	id      []byte // of the key; nil: the right one
	cose    map[int]any
	behind  []byte
}

func honest(key *ecdsa.PublicKey) authenticator {
	point := must(key.Bytes())
	return authenticator{app: walletApp, flags: 0x40, name: "appattest", cose: map[int]any{1: 2, 3: -7, -1: 1, -2: point[1:33], -3: point[33:]}}
}

func (a authenticator) bytes(key *ecdsa.PublicKey) []byte {
	app := sha256.Sum256([]byte(a.app))
	id := a.id
	if id == nil {
		sum := sha256.Sum256(must(key.Bytes()))
		id = sum[:]
	}
	var name [16]byte
	copy(name[:], a.name)
	out := binary.BigEndian.AppendUint32(append(app[:], a.flags), a.counter)
	out = append(binary.BigEndian.AppendUint16(append(out, name[:]...), uint16(len(id))), id...)
	return slices.Concat(out, must(cbor.Marshal(a.cose)), a.behind)
}

// appNonce is the extension that says what was attested.
func appNonce(authData []byte, clientData string) pkix.Extension {
	hash := sha256.Sum256([]byte(clientData))
	nonce := sha256.Sum256(slices.Concat(authData, hash[:]))
	return pkix.Extension{Id: oidAppNonce, Value: append([]byte{0x30, 0x24, 0xa1, 0x22, 0x04, 0x20}, nonce[:]...)}
}

// vouch is what an application says of a key, and the key signs.
func vouch(authorization string, spki []byte) string {
	return "JPKI phone key, version 1\n" + authorization + "\n" + base64.RawURLEncoding.EncodeToString(spki) + "\n"
}

func appPayload(object map[string]any, spki, sig []byte) json.RawMessage {
	b := base64.RawURLEncoding
	return must(json.Marshal(map[string]string{"attObj": b.EncodeToString(must(cbor.Marshal(object))), "key": b.EncodeToString(spki), "sig": b.EncodeToString(sig)}))
}

// appPayload is what an honest application answers a challenge with, for a key of its own.
func (m *maker) appPayload(key crypto.Signer, authorization string) json.RawMessage {
	attested := newKey()
	spki := must(x509.MarshalPKIXPublicKey(key.Public()))
	message := vouch(authorization, spki)
	data := honest(&attested.PublicKey).bytes(&attested.PublicKey)
	leaf := m.under(attested.Public(), false, appNonce(data, message))
	return appPayload(map[string]any{
		"fmt": "apple-appattest", "attStmt": map[string]any{"x5c": [][]byte{leaf, m.root.Raw}, "receipt": []byte("receipt")}, "authData": data,
	}, spki, signWith(key, message))
}

// Every rule refuses what breaks it, and only that.
func TestAppAttestations(t *testing.T) {
	const challenge = "token.thumbprint"
	root := newMaker()
	issuing := root.intermediate()
	attested, other := newKey(), newKey()
	p256, p384, rsa2048 := newKey(), must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)), phoneKey(2)
	tall := must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)) // no key of App Attest's
	spkiOf := func(k crypto.PublicKey) []byte { return must(x509.MarshalPKIXPublicKey(k)) }
	// An attestation in the making; what a row changes is broken and nothing else.
	type making struct {
		key       crypto.Signer // the certificate's
		spki      []byte        // instead of its encoding
		certified crypto.PublicKey
		a         authenticator
		said      string           // the client data instead of the right one
		ext       []pkix.Extension // instead of the nonce
		issuer    *maker
		above     [][]byte
		receipt   []byte
		format    string
		sig       []byte
		policy    acme.AppAttestPolicy
		sandbox   bool
		now       time.Time
		payload   json.RawMessage
		object    map[string]any // changes
	}
	asCA := issuing.intermediate(appNonce(nil, ""))
	for _, c := range []struct {
		name   string
		change func(m *making)
		want   string // part of the refusal; "" for none
	}{
		{"RSA", func(*making) {}, ""},
		{"P-256", func(m *making) { m.key = p256 }, ""},
		{"P-384", func(m *making) { m.key = p384 }, ""},
		{"without the root", func(m *making) { m.above = m.above[:1] }, ""},
		{"the second application", func(m *making) { m.policy.Apps = []string{"TEAMID1234.jp.example.other", walletApp} }, ""},
		{"in development, let in", func(m *making) { m.a.name, m.policy.Development, m.sandbox = "appattestdevelop", true, true }, ""},
		{"in production, where development is let in", func(m *making) { m.policy.Development, m.sandbox = true, true }, ""},

		{"another challenge", func(m *making) { m.said = vouch("token.thumbprinT", spkiOf(m.key.Public())) }, "another challenge or key"},
		{"another key vouched for", func(m *making) { m.said = vouch(challenge, spkiOf(p256.Public())) }, "another challenge or key"},
		{"the challenge alone", func(m *making) { m.said = challenge }, "another challenge or key"},
		{"the key exchanged on the way", func(m *making) {
			m.said = vouch(challenge, spkiOf(m.key.Public()))
			m.key = p256
		}, "another challenge or key"},
		{"another application", func(m *making) { m.a.app = "TEAMID1234.jp.example.wallet2" }, "another application"},
		{"another team's application", func(m *making) { m.a.app = "TEAMID1235.jp.example.wallet" }, "another application"},
		{"a key that was used", func(m *making) { m.a.counter = 1 }, "used before"},
		{"in development", func(m *making) { m.a.name = "appattestdevelop" }, "environment"},
		{"in development, in a sandbox that does not let it in", func(m *making) { m.a.name, m.sandbox = "appattestdevelop", true }, "environment"},
		{"another authenticator", func(m *making) { m.a.name = "appattestsandbox" }, "environment"},
		{"no authenticator", func(m *making) { m.a.name = "" }, "environment"},
		{"another key's identifier", func(m *making) { m.a.id = make([]byte, 32) }, "names another key"},
		{"a short identifier", func(m *making) { m.a.id = make([]byte, 31) }, "data cannot be read"},
		{"another key in the data", func(m *making) { id := m.a.id; m.a = honest(&other.PublicKey); m.a.id = id }, "about another key"},
		{"a key of another curve in the data", func(m *making) { m.a.cose[-1] = 2 }, "data cannot be read"},
		{"a key for another algorithm in the data", func(m *making) { m.a.cose[3] = -35 }, "data cannot be read"},
		{"half a key in the data", func(m *making) { delete(m.a.cose, -3) }, "data cannot be read"},
		{"no key in the data", func(m *making) { m.a.flags = 0 }, "data cannot be read"},
		{"extensions", func(m *making) { m.a.flags = 0xc0 }, "data cannot be read"},
		{"something behind the data", func(m *making) { m.a.behind = []byte{0} }, "data cannot be read"},
		{"a certificate for P-384", func(m *making) { m.certified = tall.Public() }, "not one of App Attest's"},
		{"a certificate for RSA", func(m *making) { m.certified = rsa2048.Public() }, "not one of App Attest's"},
		{"a certificate for another key", func(m *making) { m.certified = other.Public() }, "names another key"},
		{"no receipt", func(m *making) { m.receipt = nil }, "no receipt"},

		{"another root", func(m *making) { m.issuer = newMaker(); m.above = [][]byte{m.issuer.root.Raw} }, "root that is trusted"},
		{"nothing above", func(m *making) { m.above = nil }, "root that is trusted"},
		{"in another order", func(m *making) { slices.Reverse(m.above) }, "not one chain"},
		{"a certificate appended", func(m *making) { m.above = append(m.above, newMaker().root.Raw) }, "not one chain"},
		{"nonces above", func(m *making) { m.issuer, m.above = asCA, [][]byte{asCA.root.Raw, issuing.root.Raw} }, "was attested itself"},
		{"nine certificates", func(m *making) { m.above = slices.Repeat(m.above, 4) }, "more than 8"},
		{"after its end", func(m *making) { m.now = time.Now().AddDate(0, 2, 0) }, "root that is trusted"},
		{"no nonce", func(m *making) { m.ext = []pkix.Extension{} }, "no nonce"},
		{"a nonce of another form", func(m *making) {
			m.ext = []pkix.Extension{{Id: oidAppNonce, Value: append([]byte{4, 32}, make([]byte, 32)...)}}
		}, "nonce cannot be read"},
		{"the nonce in the other format's extension", func(m *making) {
			x := appNonce(m.a.bytes(&attested.PublicKey), vouch(challenge, spkiOf(m.key.Public())))
			x.Id = oidAppleNonce
			m.ext = []pkix.Extension{x}
		}, "no nonce"},

		{"not signed", func(m *making) { m.sig = []byte{} }, "has not signed"},
		{"signed by another", func(m *making) { m.sig = signWith(p256, vouch(challenge, spkiOf(m.key.Public()))) }, "has not signed"},
		{"the challenge alone is signed", func(m *making) { m.sig = signWith(m.key, challenge) }, "has not signed"},
		{"P-521", func(m *making) { m.key = must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader)) }, "no kind that certificates have"},
		{"RSA-1024", func(m *making) { m.spki = spkiOf(&rsa.PublicKey{N: short(1024), E: 65537}) }, "no kind that certificates have"},
		{"RSA with exponent 3", func(m *making) { m.spki = spkiOf(&rsa.PublicKey{N: rsa2048.N, E: 3}) }, "no kind that certificates have"},
		{"no key", func(m *making) { m.spki = []byte{} }, "no kind that certificates have"},
		{"a key with something behind it", func(m *making) { m.spki = append(spkiOf(m.key.Public()), 0) }, "no kind that certificates have"},

		{"another format", func(m *making) { m.format = "android-key" }, "format apple-appattest"},
		{"Apple's other format", func(m *making) { m.format = "apple" }, "format apple-appattest"},
		{"no data", func(m *making) { m.object = map[string]any{"authData": nil} }, "another challenge or key"},
		{"data that is text", func(m *making) { m.object = map[string]any{"authData": "appattest"} }, "CBOR"},
		{"a deep object", func(m *making) { m.object = map[string]any{"more": deep(20)} }, "CBOR"},
		{"a wide object", func(m *making) { m.object = map[string]any{"more": make([]int, 100)} }, "CBOR"},
		{"not CBOR", func(m *making) { m.payload = json.RawMessage(`{"attObj":"_w"}`) }, "no kind"},
		{"not base64url", func(m *making) { m.payload = json.RawMessage(`{"attObj":"!"}`) }, "base64url"},
		{"too large", func(m *making) { m.payload = make([]byte, 65<<10) }, "too large"},
		{"it cannot", func(m *making) { m.payload = json.RawMessage(`{"error":"no App Attest"}`) }, "cannot attest"},
		{"nothing", func(m *making) { m.payload = json.RawMessage{} }, "malformed"},
		{"not JSON", func(m *making) { m.payload = json.RawMessage(`{`) }, "malformed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := &making{
				key: rsa2048, certified: attested.Public(), a: honest(&attested.PublicKey), issuer: issuing, above: [][]byte{issuing.root.Raw, root.root.Raw}, receipt: []byte("receipt"),
				format: "apple-appattest", policy: acme.AppAttestPolicy{Apps: []string{walletApp}}, now: time.Now(),
			}
			right := sha256.Sum256(must(attested.PublicKey.Bytes()))
			m.a.id = right[:]
			c.change(m)
			if m.spki == nil {
				m.spki = spkiOf(m.key.Public())
			}
			if m.said == "" {
				m.said = vouch(challenge, m.spki)
			}
			data := m.a.bytes(&attested.PublicKey)
			if m.ext == nil {
				m.ext = []pkix.Extension{appNonce(data, m.said)}
			}
			if m.sig == nil {
				m.sig = signWith(m.key, vouch(challenge, m.spki))
			}
			x5c := append([][]byte{m.issuer.under(m.certified, false, m.ext...)}, m.above...)
			object := map[string]any{"fmt": m.format, "attStmt": map[string]any{"x5c": x5c, "receipt": m.receipt}, "authData": data}
			maps.Copy(object, m.object)
			if m.payload == nil {
				m.payload = appPayload(object, m.spki, m.sig)
			}
			key, err := acme.JudgeApp(acme.Attestation{Format: "apple-appattest", Roots: []*x509.Certificate{root.root}, AppAttest: m.policy}, m.sandbox, func() time.Time { return m.now }, m.payload, challenge)
			switch {
			case c.want == "" && err != nil:
				t.Fatal(err)
			case c.want == "" && !m.key.Public().(interface{ Equal(x crypto.PublicKey) bool }).Equal(key):
				t.Error("another key was returned")
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// short is an odd number of some bits, good enough for a key that nobody uses.
func short(bits int) *big.Int {
	n := new(big.Int).Lsh(big.NewInt(1), uint(bits-1))
	return n.SetBit(n, 0, 1)
}

// deep is an array in an array, n times.
func deep(n int) any {
	if n == 0 {
		return 0
	}
	return []any{deep(n - 1)}
}

// An iPhone's application gets both certificates for keys that it vouches for, and for no others.
func TestAppleAppEnrols(t *testing.T) {
	storetest.OnBoth(t, func(t *testing.T, db *store.Store) {
		w := newWorld(t, db)
		parent := w.card(t, "h1", 0)
		p := w.phone(t, "app-1", "apple-appattest").joined(w.invite(t, parent, pair2...))
		for k, kind := range pair2 {
			chain, err := p.obtain(phoneKey(2+k), kind)
			if err != nil {
				t.Fatal(kind, err)
			}
			if !phoneKey(2 + k).PublicKey.Equal(chain[0].PublicKey) {
				t.Fatal(kind, "is not a certificate of the key")
			}
		}
		if got := w.certificates(t); len(got[jpki.PhoneSign]) != 1 || len(got[jpki.PhoneAuth]) != 1 {
			t.Error(got)
		}
	})
}

// The key of the request is the one that was vouched for; an attestation answers one challenge, of its own account, once.
func TestAppAttestChallenge(t *testing.T) {
	w := sqlite(t)
	parent := w.card(t, "h1", 0)
	p := w.phone(t, "app-1", "apple-appattest").joined(w.invite(t, parent, jpki.PhoneAuth))

	// Another key than the application's, among them the one that Apple has attested.
	if _, err := p.finalize(p.ready(phoneKey(2)), csr(phoneKey(3), "")); problemOf(err) != "unauthorized" {
		t.Errorf("another key: %v", err)
	}
	if _, err := p.finalize(p.ready(phoneKey(2)), csr(newKey(), "")); problemOf(err) != "unauthorized" {
		t.Errorf("a key of another kind: %v", err)
	}

	// What is no attestation leaves the challenge open; one for another challenge loses it.
	o, az, err := p.order()
	if err != nil {
		t.Fatal(err)
	}
	good := p.attest(phoneKey(2), az.Challenges[0].Token)
	if got := problemOf(p.prove(az, json.RawMessage(`[1]`))); got != "malformed" {
		t.Errorf("not an attestation: %s", got)
	}
	if err := p.prove(az, good); err != nil {
		t.Fatal(err)
	}
	if _, err := p.finalize(o, csr(phoneKey(2), "")); err != nil {
		t.Error(err)
	}
	o, az, err = p.order()
	if err != nil {
		t.Fatal(err)
	}
	if got := problemOf(p.prove(az, good)); got != "badAttestationStatement" {
		t.Errorf("an attestation that was used: %s", got)
	}
	if _, err := p.finalize(o, csr(phoneKey(2), "")); problemOf(err) != "orderNotReady" {
		t.Errorf("finalized: %v", err)
	}

	// No format is another's, although Apple's two have the same root here.
	for _, format := range []string{"apple", "step", "android-key"} {
		stranger := w.phone(t, "app-1", format).joined(w.invite(t, parent, jpki.PhoneSign))
		_, az, err := stranger.order()
		if err != nil {
			t.Fatal(err)
		}
		if got := problemOf(stranger.prove(az, w.makers["apple"].appPayload(phoneKey(4), stranger.keyAuthorization(az.Challenges[0].Token)))); got != "badAttestationStatement" {
			t.Errorf("in the directory for %s: %s", format, got)
		}
	}
	if strings.Contains(w.log.String(), "app-1") {
		t.Error("the log names the device")
	}
}

// Without applications the format is not offered, and outside a sandbox not to applications in development, nor to the
// sandbox's maker of phones.
func TestAppAttestIsConfigured(t *testing.T) {
	w := sqlite(t)
	sandboxed := w.enrolment.Config
	template := makerTemplate()
	template.Subject = pkix.Name{Organization: []string{"A real authority"}, CommonName: "infrastructure"}
	key := newKey()
	real := sandboxed
	real.Root = must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))))
	for _, c := range []struct {
		name   string
		config acme.Config
		root   *x509.Certificate
		policy acme.AppAttestPolicy
		ok     bool
	}{
		{"an application", real, real.Root, acme.AppAttestPolicy{Apps: []string{walletApp}}, true},
		{"in development, in a sandbox", sandboxed, w.makers["apple"].root, acme.AppAttestPolicy{Apps: []string{walletApp}, Development: true}, true},
		{"in development", real, real.Root, acme.AppAttestPolicy{Apps: []string{walletApp}, Development: true}, false},
		{"the sandbox's maker", real, w.makers["apple"].root, acme.AppAttestPolicy{Apps: []string{walletApp}}, false},
		{"no application", real, real.Root, acme.AppAttestPolicy{}, false},
		{"no team", real, real.Root, acme.AppAttestPolicy{Apps: []string{"jp.example.wallet"}}, false},
		{"no roots", real, nil, acme.AppAttestPolicy{Apps: []string{walletApp}}, false},
	} {
		a := acme.Attestation{Format: "apple-appattest", AppAttest: c.policy}
		if c.root != nil {
			a.Roots = []*x509.Certificate{c.root}
		}
		c.config.Phones = []acme.Attestation{a}
		if _, err := acme.New(c.config); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// What is read of an authenticator's data is all that is there: put together again it is the same, up to how CBOR may
// write a key.
func FuzzAuthData(f *testing.F) {
	key := newKey()
	f.Add(honest(&key.PublicKey).bytes(&key.PublicKey))
	f.Add(make([]byte, 200))
	f.Fuzz(func(t *testing.T, raw []byte) {
		d, err := acme.ParseAuthData(raw)
		if err != nil {
			return
		}
		const keyID, coordinate = 55, 32
		again := binary.BigEndian.AppendUint32(append(d.App[:], raw[32]), d.Counter)
		again = slices.Concat(again, d.Authenticator[:], []byte{0, 32}, d.KeyID)
		if !bytes.Equal(again, raw[:keyID+32]) || len(d.Point) != 1+2*coordinate || d.Point[0] != 4 {
			t.Errorf("%x was read of %x", again, raw)
		}
		var cose map[int]any
		if err := cbor.Unmarshal(raw[keyID+32:], &cose); err == nil { // a key may have members of other types besides
			x, _ := cose[-2].([]byte)
			y, _ := cose[-3].([]byte)
			if !bytes.Equal(slices.Concat([]byte{4}, x, y), d.Point) {
				t.Errorf("the point %x of %x", d.Point, raw)
			}
		}
		if _, err := acme.ParseAuthData(append(bytes.Clone(raw), 0)); err == nil {
			t.Error("an octet behind it was not noticed")
		}
	})
}

// An attestation object is read within its limits, or not at all, and the same again when written by the encoder.
func FuzzAppObject(f *testing.F) {
	key := newKey()
	f.Add(must(cbor.Marshal(map[string]any{
		"fmt": "apple-appattest", "attStmt": map[string]any{"x5c": [][]byte{{1}, {2}}, "receipt": []byte{3}}, "authData": honest(&key.PublicKey).bytes(&key.PublicKey),
	})))
	f.Add([]byte{0xa1, 0x63, 'f', 'm', 't', 0x6f})
	f.Add(bytes.Repeat([]byte{0x81}, 64))
	f.Fuzz(func(t *testing.T, object []byte) {
		x5c, receipt, data, err := acme.ParseAppObject(object)
		if err != nil {
			return
		}
		if len(x5c) > 32 || len(data)+len(receipt) > len(object) {
			t.Errorf("%d certificates, %d and %d octets of %d", len(x5c), len(receipt), len(data), len(object))
		}
		again := must(cbor.Marshal(map[string]any{"fmt": "apple-appattest", "attStmt": map[string]any{"x5c": x5c, "receipt": receipt}, "authData": data}))
		x5c2, receipt2, data2, err := acme.ParseAppObject(again)
		if err != nil || !slices.EqualFunc(x5c, x5c2, bytes.Equal) || !bytes.Equal(receipt, receipt2) || !bytes.Equal(data, data2) {
			t.Errorf("%x was read differently again: %v", object, err)
		}
	})
}

// The nonce is read as encoding/asn1 reads it.
func FuzzAppNonce(f *testing.F) {
	f.Add(appNonce(nil, "").Value)
	f.Add([]byte{0x30, 0})
	f.Fuzz(func(t *testing.T, der []byte) {
		nonce, err := acme.ParseAppNonce(der)
		if err != nil {
			return
		}
		var want struct {
			Nonce []byte `asn1:"tag:1,explicit"`
		}
		if rest, err := asn1.Unmarshal(der, &want); err != nil || len(rest) > 0 || !bytes.Equal(want.Nonce, nonce) {
			t.Errorf("%x: read %x, want %x, %v", der, nonce, want.Nonce, err)
		}
	})
}
