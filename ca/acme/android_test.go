package acme_test

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/acme"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/ca/store/storetest"
)

var oidAndroid = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 1, 17}

// What a phone says of a key, as encoding/asn1 writes it. -1 stands for a number that is not there.
type androidDescription struct {
	Version     int64
	Level       asn1.Enumerated
	MintVersion int64
	MintLevel   asn1.Enumerated
	Challenge   []byte
	Unique      []byte
	Software    androidList
	Hardware    androidList
}

type androidList struct {
	Purpose         []int64       `asn1:"tag:1,explicit,set,omitempty"`
	Algorithm       int64         `asn1:"tag:2,explicit,optional,default:-1"`
	KeySize         int64         `asn1:"tag:3,explicit,optional,default:-1"`
	Digest          []int64       `asn1:"tag:5,explicit,set,omitempty"`
	Padding         []int64       `asn1:"tag:6,explicit,set,omitempty"`
	Curve           int64         `asn1:"tag:10,explicit,optional,default:-1"`
	Exponent        int64         `asn1:"tag:200,explicit,optional,default:-1"`
	NoAuth          asn1.RawValue `asn1:"optional"`
	AllApplications asn1.RawValue `asn1:"optional"`
	Created         int64         `asn1:"tag:701,explicit,optional,default:-1"`
	Origin          int64         `asn1:"tag:702,explicit,optional,default:-1"`
	Root            androidRoot   `asn1:"tag:704,explicit,optional"`
	Application     []byte        `asn1:"tag:709,explicit,omitempty"`
}

type androidRoot struct {
	Key    []byte
	Locked bool
	State  asn1.Enumerated
	Hash   []byte
}

var (
	noAuth          = asn1.RawValue{FullBytes: []byte{0xbf, 0x83, 0x77, 2, 5, 0}}
	allApplications = asn1.RawValue{FullBytes: []byte{0xbf, 0x84, 0x58, 2, 5, 0}}
)

func emptyList() androidList {
	return androidList{Algorithm: -1, KeySize: -1, Curve: -1, Exponent: -1, Created: -1, Origin: -1}
}

// androidApp is the package and the signer's digest of the application that asked for a key.
type androidApp struct {
	Packages []struct {
		Name    []byte
		Version int64
	} `asn1:"set"`
	Signers [][]byte `asn1:"set"`
}

func appID(name string, signer string) []byte {
	sum := sha256.Sum256([]byte(signer))
	a := androidApp{Signers: [][]byte{sum[:]}}
	a.Packages = append(a.Packages, struct {
		Name    []byte
		Version int64
	}{[]byte(name), 7})
	return must(asn1.Marshal(a))
}

// describe is what an honest phone says of a key.
func describe(key crypto.PublicKey, challenge string) androidDescription {
	h := emptyList()
	h.Purpose, h.Digest, h.Origin = []int64{2}, []int64{0, 4}, 0
	h.Root = androidRoot{Key: make([]byte, 32), Locked: true, Hash: make([]byte, 32)}
	switch k := key.(type) {
	case *rsa.PublicKey:
		h.Algorithm, h.KeySize, h.Padding, h.Exponent = 1, int64(k.N.BitLen()), []int64{5}, int64(k.E)
	case *ecdsa.PublicKey:
		h.Algorithm, h.KeySize, h.Curve = 3, int64(k.Params().BitSize), 1
		if k.Curve == elliptic.P384() {
			h.Curve, h.Digest = 2, []int64{5}
		}
	}
	s := emptyList()
	s.Created, s.Application = 1_700_000_000_000, appID("jp.example.wallet", "signer")
	return androidDescription{Version: 300, Level: 1, MintVersion: 300, MintLevel: 1, Challenge: []byte(challenge), Software: s, Hardware: h}
}

func (d androidDescription) extension() pkix.Extension {
	return pkix.Extension{Id: oidAndroid, Value: must(asn1.Marshal(d))}
}

// under makes a certificate below a maker's root or below another of its certificates.
func (m *maker) under(key crypto.PublicKey, isCA bool, extensions ...pkix.Extension) []byte {
	template := &x509.Certificate{
		SerialNumber: newSerial().Big(), Subject: pkix.Name{CommonName: "attested " + rand.Text()}, NotBefore: time.Unix(0, 0), NotAfter: time.Now().AddDate(0, 1, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtraExtensions: extensions,
	}
	if isCA {
		template.KeyUsage, template.IsCA, template.BasicConstraintsValid = x509.KeyUsageCertSign, true, true
	}
	return must(x509.CreateCertificate(rand.Reader, template, m.root, key, m.key))
}

// intermediate makes a maker whose certificate is another's.
func (m *maker) intermediate(extensions ...pkix.Extension) *maker {
	out := &maker{key: newKey()}
	out.root = must(x509.ParseCertificate(m.under(out.key.Public(), true, extensions...)))
	return out
}

func signWith(key crypto.Signer, text string) []byte {
	h := crypto.SHA256
	if k, ok := key.(*ecdsa.PrivateKey); ok && k.Curve == elliptic.P384() {
		h = crypto.SHA384
	}
	digest := h.New()
	_, _ = digest.Write([]byte(text))
	return must(key.Sign(rand.Reader, digest.Sum(nil), h))
}

// androidPayload is what an honest phone answers a challenge with.
func (m *maker) androidPayload(key crypto.Signer, authorization string) json.RawMessage {
	return attestation("android-key", map[string]any{
		"x5c": [][]byte{m.under(key.Public(), false, describe(key.Public(), authorization).extension()), m.root.Raw}, "sig": signWith(key, authorization),
	})
}

// writeStatus puts a status list in place of a file's content, as operators do.
func writeStatus(t *testing.T, file, text string) {
	t.Helper()
	if err := errors.Join(os.WriteFile(file+".new", []byte(text), 0o600), os.Rename(file+".new", file)); err != nil {
		t.Fatal(err)
	}
}

func serialOf(der []byte) string {
	return must(x509.ParseCertificate(der)).SerialNumber.Text(16)
}

// Every rule refuses what breaks it, and only that.
func TestAndroidAttestations(t *testing.T) {
	const challenge = "token.thumbprint"
	root := newMaker()
	device := root.intermediate()
	p256, p384, rsa2048 := newKey(), must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)), phoneKey(2)
	signer := sha256.Sum256([]byte("signer"))
	// An attestation in the making; what a row changes is broken and nothing else.
	type making struct {
		key     crypto.Signer
		d       androidDescription
		x5c     [][]byte // instead of what is made of d
		sig     []byte   // instead of the key's over the challenge
		alg     int64
		format  string
		policy  acme.AndroidPolicy
		now     time.Time
		status  string
		listed  int // which certificate of the chain is on the list, from 1
		payload json.RawMessage
	}
	signed := func(m *making, above ...*maker) [][]byte { // the key's certificate and those above it
		out := [][]byte{above[0].under(m.key.Public(), false, m.d.extension())}
		for _, a := range above {
			out = append(out, a.root.Raw)
		}
		return out
	}
	attested := &maker{key: newKey()} // a phone's key, whose owner would be a maker
	attestedDER := device.under(attested.key.Public(), false, describe(attested.key.Public(), challenge).extension())
	attested.root = must(x509.ParseCertificate(attestedDER))
	asCA := device.intermediate(describe(newKey().Public(), challenge).extension())
	for _, c := range []struct {
		name   string
		change func(m *making)
		want   string // part of the refusal; "" for none
	}{
		{"P-256", func(*making) {}, ""},
		{"P-384", func(m *making) { m.key = p384; m.d = describe(p384.Public(), challenge); m.alg = -35 }, ""},
		{"RSA", func(m *making) { m.key = rsa2048; m.d = describe(rsa2048.Public(), challenge); m.alg = -257 }, ""},
		{"without the root", func(m *making) { m.x5c = signed(m, device) }, ""},
		{"StrongBox", func(m *making) { m.d.Level, m.d.MintLevel, m.policy.StrongBox = 2, 2, true }, ""},
		{"a later version", func(m *making) { m.d.Version = 900 }, ""},
		{"the application", func(m *making) { m.policy.Apps = []acme.AndroidApp{{Package: "jp.example.wallet", Signer: signer}} }, ""},
		{"a system of the user's, let in", func(m *making) { m.d.Hardware.Root.State = 1; m.policy.Boot = []acme.BootState{0, 1} }, ""},
		{"unlocked, let in", func(m *making) {
			m.d.Hardware.Root.State, m.d.Hardware.Root.Locked = 2, false
			m.policy.Boot = []acme.BootState{acme.BootVerified, acme.BootUnverified}
		}, ""},
		{"somebody else is on the list", func(m *making) { m.status = `{"entries":{"c0ffee":{"status":"REVOKED"}}}` }, ""},

		{"another challenge", func(m *making) { m.d.Challenge = []byte("token.thumbprinT") }, "another challenge"},
		{"no challenge", func(m *making) { m.d.Challenge = nil }, "another challenge"},
		{"attested by software", func(m *making) { m.d.Level = 0 }, "has attested"},
		{"a key in software", func(m *making) { m.d.MintLevel = 0 }, "is not in"},
		{"a level that nobody knows", func(m *making) { m.d.MintLevel = 3 }, "is not in"},
		{"no chip of its own", func(m *making) { m.d.Level, m.policy.StrongBox = 2, true }, "is not in"},
		{"to verify", func(m *making) { m.d.Hardware.Purpose = []int64{2, 3} }, "than signing"},
		{"to attest", func(m *making) { m.d.Hardware.Purpose = []int64{7} }, "than signing"},
		{"for nothing", func(m *making) { m.d.Hardware.Purpose = nil }, "than signing"},
		{"for what software says", func(m *making) { m.d.Software.Purpose, m.d.Hardware.Purpose = []int64{2}, nil }, "than signing"},
		{"imported", func(m *making) { m.d.Hardware.Origin = 2 }, "not made"},
		{"made here, says software", func(m *making) { m.d.Software.Origin, m.d.Hardware.Origin = 0, -1 }, "not made"},
		{"every application's", func(m *making) { m.d.Hardware.AllApplications = allApplications }, "every application"},
		{"every application's, says software", func(m *making) { m.d.Software.AllApplications = allApplications }, "every application"},
		{"no root of trust", func(m *making) { m.d.Hardware.Root = androidRoot{} }, "has started"},
		{"a root of trust in software", func(m *making) { m.d.Software.Root, m.d.Hardware.Root = m.d.Hardware.Root, androidRoot{} }, "has started"},
		{"an unlocked boot loader", func(m *making) { m.d.Hardware.Root.Locked = false }, "unlocked"},
		{"a system of the user's", func(m *making) { m.d.Hardware.Root.State = 1 }, "not started"},
		{"any system", func(m *making) { m.d.Hardware.Root.State = 2 }, "not started"},
		{"a changed system", func(m *making) { m.d.Hardware.Root.State = 3 }, "not started"},
		{"without its user", func(m *making) { m.d.Hardware.NoAuth, m.policy.UserAuth = noAuth, true }, "without asking"},
		{"another application", func(m *making) { m.policy.Apps = []acme.AndroidApp{{Package: "jp.example.other", Signer: signer}} }, "another application"},
		{"an application signed by another", func(m *making) { m.policy.Apps = []acme.AndroidApp{{Package: "jp.example.wallet"}} }, "another application"},
		{"no application", func(m *making) {
			m.d.Software.Application, m.policy.Apps = nil, []acme.AndroidApp{{Package: "jp.example.wallet", Signer: signer}}
		}, "identity cannot be read"},
		{"before version 3", func(m *making) { m.d.Version = 2 }, "version before 3"},
		{"another size", func(m *making) { m.d.Hardware.KeySize = 384 }, "not what its description"},
		{"another curve", func(m *making) { m.d.Hardware.Curve = 2 }, "not what its description"},
		{"another algorithm", func(m *making) { m.d.Hardware.Algorithm = 1 }, "not what its description"},
		{"no SHA-256", func(m *making) { m.d.Hardware.Digest = []int64{0, 5} }, "not what its description"},
		{"no PKCS #1", func(m *making) {
			m.key, m.d = rsa2048, describe(rsa2048.Public(), challenge)
			m.d.Hardware.Padding = []int64{3}
		}, "not what its description"},
		{"another key", func(m *making) {
			x := m.d.extension()
			m.x5c = [][]byte{device.under(newKey().Public(), false, x), device.root.Raw, root.root.Raw}
		}, "has not signed"},
		{"P-521", func(m *making) {
			k := must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader))
			m.key, m.d = k, describe(k.Public(), challenge)
		}, "not what its description"},

		{"another root", func(m *making) { m.x5c = signed(m, newMaker()) }, "root that is trusted"},
		{"a root with the name of ours", func(m *making) {
			m.x5c = append(signed(m, newMaker())[:1], root.root.Raw)
		}, "root that is trusted"},
		{"nothing above", func(m *making) { m.x5c = signed(m, device)[:1] }, "root that is trusted"},
		{"a certificate appended", func(m *making) { m.x5c = append(signed(m, device, root), newMaker().root.Raw) }, "not one chain"},
		{"a certificate between", func(m *making) { m.x5c = slices.Insert(signed(m, device, root), 1, root.intermediate().root.Raw) }, "not one chain"},
		{"in another order", func(m *making) { c := signed(m, device, root); m.x5c = [][]byte{c[0], c[2], c[1]} }, "not one chain"},
		{"signed by an attested key", func(m *making) { m.x5c = signed(m, attested, device, root) }, "root that is trusted"},
		{"signed by an attested key that may sign certificates", func(m *making) { m.x5c = signed(m, asCA, device, root) }, "was attested itself"},
		{"described above only", func(m *making) {
			m.x5c = [][]byte{asCA.under(m.key.Public(), false), asCA.root.Raw, device.root.Raw, root.root.Raw}
		}, "was attested itself"},
		{"not described", func(m *making) { m.x5c = [][]byte{device.under(m.key.Public(), false), device.root.Raw} }, "does not describe"},
		{"described illegibly", func(m *making) {
			x := m.d.extension()
			x.Value = append(x.Value, 0)
			m.x5c = [][]byte{device.under(m.key.Public(), false, x), device.root.Raw}
		}, "cannot be read"},
		{"a CA's key", func(m *making) {
			m.x5c = [][]byte{device.under(m.key.Public(), true, m.d.extension()), device.root.Raw}
		}, "certification authority's"},
		{"the root itself", func(m *making) { m.x5c = [][]byte{root.root.Raw} }, "certification authority's"},
		{"after its end", func(m *making) { m.now = time.Now().AddDate(0, 2, 0) }, "root that is trusted"},
		{"no certificates", func(m *making) { m.x5c = [][]byte{} }, "no certificates"},
		{"nine certificates", func(m *making) { m.x5c = slices.Repeat(signed(m, device, root), 3) }, "more than 8"},
		{"what is no certificate", func(m *making) { m.x5c = [][]byte{{0x30, 0}} }, "cannot be read"},

		{"the key's certificate is on the list", func(m *making) { m.listed = 1 }, "revoked keys"},
		{"the phone's is", func(m *making) { m.listed = 2 }, "revoked keys"},
		{"the root is", func(m *making) { m.listed = 3 }, "revoked keys"},

		{"not signed", func(m *making) { m.sig = []byte{} }, "has not signed"},
		{"signed for another challenge", func(m *making) { m.sig = signWith(m.key, "another") }, "has not signed"},
		{"another algorithm's name", func(m *making) { m.alg = -257 }, "has not signed"},
		{"another format", func(m *making) { m.format = "step" }, "format android-key"},
		{"not CBOR", func(m *making) { m.payload = json.RawMessage(`{"attObj":"_w"}`) }, "CBOR"},
		{"not base64url", func(m *making) { m.payload = json.RawMessage(`{"attObj":"!"}`) }, "base64url"},
		{"too large", func(m *making) { m.payload = make([]byte, 65<<10) }, "too large"},
		{"it cannot", func(m *making) { m.payload = json.RawMessage(`{"error":"no key store"}`) }, "cannot attest"},
		{"nothing", func(m *making) { m.payload = json.RawMessage{} }, "malformed"},
		{"not JSON", func(m *making) { m.payload = json.RawMessage(`{`) }, "malformed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "status.json")
			m := &making{key: p256, d: describe(p256.Public(), challenge), format: "android-key", now: time.Now(), status: `{"entries":{}}`}
			m.policy = acme.AndroidPolicy{StatusList: file, MaxListAge: 100 * 24 * time.Hour}
			c.change(m)
			if m.x5c == nil {
				m.x5c = signed(m, device, root)
			}
			if m.listed > 0 {
				m.status = fmt.Sprintf(`{"entries":{%q:{"status":"SUSPENDED","reason":"SOFTWARE_FLAW"}}}`, serialOf(m.x5c[m.listed-1]))
			}
			if m.sig == nil {
				m.sig = signWith(m.key, challenge)
			}
			writeStatus(t, file, m.status)
			statement := map[string]any{"x5c": m.x5c, "sig": m.sig}
			if m.alg != 0 {
				statement["alg"] = m.alg
			}
			if m.payload == nil {
				m.payload = attestation(m.format, statement)
			}
			key, err := acme.JudgeAndroid(acme.Attestation{Format: "android-key", Roots: []*x509.Certificate{root.root}, Android: m.policy}, func() time.Time { return m.now }, m.payload, challenge)
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

// A phone with Android gets both certificates; what is not its fault leaves the challenge open, and what is does not.
func TestAndroidPhoneEnrols(t *testing.T) {
	storetest.OnBoth(t, func(t *testing.T, db *store.Store) {
		w := newWorld(t, db)
		parent := w.card(t, "h1", 0)
		p := w.phone(t, "app-1", "android-key").joined(w.invite(t, parent, pair2...))
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

// The key of the request is the attested one; a challenge is decided once and by its own account.
func TestAndroidChallenge(t *testing.T) {
	w := sqlite(t)
	parent := w.card(t, "h1", 0)
	key := phoneKey(2)
	p := w.phone(t, "app-1", "android-key").joined(w.invite(t, parent, jpki.PhoneAuth))

	// Another key than the attested.
	if _, err := p.finalize(p.ready(key), csr(phoneKey(3), "")); problemOf(err) != "unauthorized" {
		t.Errorf("another key: %v", err)
	}

	// What is not JSON, or nothing, leaves it open; so does a list that is too old, is not there or cannot be read.
	o, az, err := p.order()
	if err != nil {
		t.Fatal(err)
	}
	good := p.attest(key, az.Challenges[0].Token)
	if got := problemOf(p.prove(az, json.RawMessage(`[1]`))); got != "malformed" {
		t.Errorf("not an attestation: %s", got)
	}
	long := time.Now().AddDate(0, 0, -8)
	for name, spoil := range map[string]func(){
		"too old":    func() { _ = os.Chtimes(w.statusList, long, long) },
		"gone":       func() { _ = os.Remove(w.statusList) },
		"not a list": func() { writeStatus(t, w.statusList, "<html>") },
		"no entries": func() { writeStatus(t, w.statusList, "{}") },
		"no serial number": func() {
			writeStatus(t, w.statusList, `{"entries":{"x":{"status":"REVOKED"}}}`)
		},
		"from the future": func() { next := time.Now().Add(time.Hour); _ = os.Chtimes(w.statusList, next, next) },
	} {
		spoil()
		if got := problemOf(p.prove(az, good)); got != "unavailable" {
			t.Errorf("a status list %s: %s", name, got)
		}
		writeStatus(t, w.statusList, `{"entries":{}}`)
	}
	if err := p.prove(az, good); err != nil {
		t.Fatal("it was open:", err)
	}
	if err := p.prove(az, good); err != nil {
		t.Error("answered again, it stays decided:", err)
	}
	if _, err := p.finalize(o, csr(key, "")); err != nil {
		t.Error(err)
	}

	// A lost challenge stays lost, and takes the order along; also when the list is replaced by one with the maker's root.
	w.card(t, "h2", 4)
	other := w.phone(t, "app-2", "android-key").joined(must(w.enrolment.BeginPhone(t.Context(), jpki.Actor{Role: jpki.Holder, ID: "h2"}, beginFor(w, t, "h2", "phone-2"))))
	o, az, err = other.order()
	if err != nil {
		t.Fatal(err)
	}
	if got := problemOf(p.prove(az, p.attest(key, az.Challenges[0].Token))); got != "unauthorized" {
		t.Errorf("by another account: %s", got)
	}
	good = other.attest(phoneKey(4), az.Challenges[0].Token)
	writeStatus(t, w.statusList, fmt.Sprintf(`{"entries":{%q:{"status":"REVOKED"}}}`, serialOf(other.maker.root.Raw)))
	if got := problemOf(other.prove(az, good)); got != "badAttestationStatement" {
		t.Errorf("a revoked root: %s", got)
	}
	writeStatus(t, w.statusList, `{"entries":{}}`)
	if err := other.prove(az, good); err == nil {
		t.Error("a lost challenge was won later")
	}
	if _, err := other.finalize(o, csr(phoneKey(4), "")); problemOf(err) != "orderNotReady" {
		t.Errorf("finalized: %v", err)
	}
	if strings.Contains(w.log.String(), "app-1") {
		t.Error("the log names the device")
	}

	// Formats that smallstep knows are not for this directory, nor this one for theirs.
	o2, az, err := other.order()
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(az.Challenges[0].Token))
	apple := attestation("apple", map[string]any{"x5c": [][]byte{other.maker.certify(phoneKey(4).Public(), pkix.Extension{Id: oidAppleUDID, Value: []byte("app-2")}, pkix.Extension{Id: oidAppleNonce, Value: sum[:]})}})
	if got := problemOf(other.prove(az, apple)); got != "badAttestationStatement" {
		t.Errorf("Apple's format: %s", got)
	}
	if _, err := other.finalize(o2, csr(phoneKey(4), "")); problemOf(err) != "orderNotReady" {
		t.Errorf("finalized: %v", err)
	}
	step := w.phone(t, "app-2", "step").joined(must(w.enrolment.BeginPhone(t.Context(), jpki.Actor{Role: jpki.Holder, ID: "h2"}, beginFor(w, t, "h2", "phone-2"))))
	if _, az, err = step.order(); err != nil {
		t.Fatal(err)
	}
	if got := problemOf(step.prove(az, step.maker.androidPayload(phoneKey(4), step.keyAuthorization(az.Challenges[0].Token)))); got != "badAttestationStatement" {
		t.Errorf("android-key in another directory: %s", got)
	}
}

// Without a list or its age the format is not offered.
func TestAndroidNeedsAStatusList(t *testing.T) {
	w := sqlite(t)
	for name, p := range map[string]acme.AndroidPolicy{"no list": {MaxListAge: time.Hour}, "no age": {StatusList: "status.json"}} {
		c := w.enrolment.Config
		c.Phones = []acme.Attestation{{Format: "android-key", Roots: []*x509.Certificate{w.makers["android-key"].root}, Android: p}}
		if _, err := acme.New(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// Serial numbers are compared as numbers; what cannot be one spoils the list.
func FuzzStatusList(f *testing.F) {
	for _, s := range []string{`{"entries":{}}`, `{"entries":{"00aB":{"status":"REVOKED"},"1":{"status":"SUSPENDED","reason":"KEY_COMPROMISE"}}}`, `{"entries":{"-1":{"status":"REVOKED"}}}`, `{}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := acme.ParseStatusList(text)
		if err != nil {
			return
		}
		var list struct {
			Entries map[string]any `json:"entries"`
		}
		if err := json.Unmarshal(text, &list); err != nil {
			t.Fatal(err)
		}
		for name := range list.Entries {
			n, ok := new(big.Int).SetString(name, 16)
			if !ok || n.Sign() < 0 || !got[n.Text(16)] {
				t.Errorf("%q is not on the list that was read", name)
			}
		}
		if len(got) > len(list.Entries) {
			t.Errorf("%d of %d entries", len(got), len(list.Entries))
		}
	})
}

// described turns what was read into what encoding/asn1 writes.
func described(d acme.KeyDescription) androidDescription {
	list := func(numbers map[uint32][]int64, noAuthSet, all bool) androidList {
		l := emptyList()
		l.Purpose, l.Digest, l.Padding = numbers[1], numbers[5], numbers[6]
		for tag, to := range map[uint32]*int64{2: &l.Algorithm, 3: &l.KeySize, 10: &l.Curve, 200: &l.Exponent, 702: &l.Origin} {
			if n, there := numbers[tag]; there {
				*to = n[0]
			}
		}
		if noAuthSet {
			l.NoAuth = noAuth
		}
		if all {
			l.AllApplications = allApplications
		}
		return l
	}
	out := androidDescription{
		Version: d.Version, Level: asn1.Enumerated(d.Level), MintVersion: 1, MintLevel: asn1.Enumerated(d.KeyMintLevel), Challenge: d.Challenge,
		Software: list(d.Software.Numbers, d.Software.NoAuthRequired, d.Software.AllApplications), Hardware: list(d.Hardware.Numbers, d.Hardware.NoAuthRequired, d.Hardware.AllApplications),
	}
	out.Software.Application, out.Hardware.Application = d.Software.Application, d.Hardware.Application
	if r := d.Software.Root; r != nil {
		out.Software.Root = androidRoot{Key: []byte{1}, Locked: r.Locked, State: asn1.Enumerated(r.State)}
	}
	if r := d.Hardware.Root; r != nil {
		out.Hardware.Root = androidRoot{Key: []byte{1}, Locked: r.Locked, State: asn1.Enumerated(r.State)}
	}
	return out
}

// What is read of a description is what another encoder writes of it, and nothing may stand behind it.
func FuzzKeyDescription(f *testing.F) {
	for _, key := range []crypto.PublicKey{newKey().Public(), phoneKey(2).Public()} {
		f.Add(describe(key, "challenge").extension().Value)
	}
	d := describe(newKey().Public(), "")
	d.Software.NoAuth, d.Hardware.AllApplications = noAuth, allApplications
	f.Add(d.extension().Value)
	f.Fuzz(func(t *testing.T, der []byte) {
		got, err := acme.ParseKeyDescription(der)
		if err != nil {
			return
		}
		if _, err := acme.ParseKeyDescription(append(bytes.Clone(der), 0)); err == nil {
			t.Error("an octet behind it was not noticed")
		}
		if got.Level > 1<<31-1 || got.KeyMintLevel > 1<<31-1 || got.Software.Root != nil && got.Software.Root.State > 1<<31-1 || got.Hardware.Root != nil && got.Hardware.Root.State > 1<<31-1 {
			return // more than an asn1.Enumerated need hold
		}
		again, err := acme.ParseKeyDescription(must(asn1.Marshal(described(got))))
		if err != nil {
			t.Fatalf("%+v: %v", got, err)
		}
		empty := gocmp.FilterValues(func(x, y []int64) bool { return len(x)+len(y) == 0 }, gocmp.Ignore())
		sorted := cmpopts.SortSlices(cmp.Less[int64])
		for _, l := range []map[uint32][]int64{got.Software.Numbers, got.Hardware.Numbers, again.Software.Numbers, again.Hardware.Numbers} {
			for tag, n := range l {
				if len(n) == 0 {
					delete(l, tag)
				}
			}
		}
		if diff := gocmp.Diff(got, again, cmpopts.EquateEmpty(), empty, sorted); diff != "" {
			t.Error(diff)
		}
	})
}

// An application is read as encoding/asn1 reads it.
func FuzzApplication(f *testing.F) {
	f.Add(appID("jp.example.wallet", "signer"))
	f.Add([]byte{0x30, 4, 0x31, 0, 0x31, 0})
	f.Fuzz(func(t *testing.T, der []byte) {
		packages, signers, err := acme.ParseApplication(der)
		if err != nil {
			return
		}
		var want androidApp
		rest, err := asn1.Unmarshal(der, &want)
		if err != nil || len(rest) > 0 || len(want.Packages) != len(packages) || len(want.Signers) != len(signers) {
			t.Fatalf("% x: %v, %d packages, %d signers", der, err, len(packages), len(signers))
		}
		for i, p := range want.Packages {
			if string(p.Name) != packages[i] {
				t.Errorf("package %q, want %q", packages[i], p.Name)
			}
		}
	})
}

// beginFor asks for a phone on the strength of a holder's card.
func beginFor(w *world, t *testing.T, holder, token string) ca.PhoneEnrolmentRequest {
	t.Helper()
	return ca.PhoneEnrolmentRequest{Holder: holder, Token: token, Parent: w.certOf(t, holder, jpki.CardSign), Kinds: []jpki.Kind{jpki.PhoneAuth}}
}
