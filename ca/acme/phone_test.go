package acme_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	xacme "golang.org/x/crypto/acme"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/acme"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/ca/store/storetest"
)

var (
	holderActor = jpki.Actor{Role: jpki.Holder, ID: "h1"}
	pair2       = []jpki.Kind{jpki.PhoneSign, jpki.PhoneAuth}

	oidStepDevice = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 37476, 9000, 64, 4}
	oidAppleUDID  = asn1.ObjectIdentifier{1, 2, 840, 113635, 100, 8, 9, 2}
	oidAppleNonce = asn1.ObjectIdentifier{1, 2, 840, 113635, 100, 8, 11, 1}
	oidKeyUsage   = asn1.ObjectIdentifier{2, 5, 29, 15}
)

// A maker is who attests phones' keys.
type maker struct {
	key  *ecdsa.PrivateKey
	root *x509.Certificate
}

func newMaker() *maker {
	m := &maker{key: newKey()}
	m.root = must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, makerTemplate(), makerTemplate(), m.key.Public(), m.key))))
	return m
}

func makerTemplate() *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: newSerial().Big(), Subject: pkix.Name{Organization: []string{"JPKI-SANDBOX"}, CommonName: "attestation"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
}

// certify makes an attestation certificate.
func (m *maker) certify(key crypto.PublicKey, extensions ...pkix.Extension) []byte {
	return must(x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: newSerial().Big(), Subject: pkix.Name{CommonName: "attested key"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtraExtensions: extensions,
	}, m.root, key, m.key))
}

var (
	phoneKeysMu sync.Mutex
	phoneKeys   []*rsa.PrivateKey
)

// phoneKey returns the n-th of keys that all tests share: they are dear.
func phoneKey(n int) *rsa.PrivateKey {
	phoneKeysMu.Lock()
	defer phoneKeysMu.Unlock()
	for len(phoneKeys) <= n {
		phoneKeys = append(phoneKeys, must(rsa.GenerateKey(rand.Reader, 2048)))
	}
	return phoneKeys[n]
}

// A phone is a phone in software with the ACME client of golang.org/x/crypto.
type phone struct {
	*world
	t      *testing.T
	device string
	format string
	maker  *maker
	acct   *ecdsa.PrivateKey
	client *xacme.Client
}

func (w *world) phone(t *testing.T, device, format string) *phone {
	t.Helper()
	p := &phone{world: w, t: t, device: device, format: format, maker: w.makers[format], acct: newKey()}
	p.client = &xacme.Client{
		Key: p.acct, HTTPClient: &http.Client{Transport: w.as(nil)}, DirectoryURL: w.url + "/acme/phone-" + format + "/directory",
		RetryBackoff: func(n int, _ *http.Request, resp *http.Response) time.Duration {
			if n > 1 || resp.StatusCode != http.StatusBadRequest { // which is retried for a nonce only
				return -1
			}
			return time.Millisecond
		},
	}
	return p
}

// card makes holder h1 with a card and returns its signature certificate.
func (w *world) card(t *testing.T, holder string, first int) jpki.CertID {
	t.Helper()
	if _, err := w.authority.ApplyResidentEvent(t.Context(), register, jpki.Event{
		ID: "registered-" + holder, Holder: holder, Type: jpki.Registered, EffectiveAt: w.now(), Municipality: counter.Municipality,
		Attributes: &jpki.Attributes{Name: "砂場　花子", Sex: jpki.Female, BirthDate: jpki.NewBirthDate(1980, 2, 17), Address: "砂箱県青葉市中央一丁目2番3号"},
	}); err != nil {
		t.Fatal(err)
	}
	req := ca.IssueRequest{IdempotencyKey: "card-" + holder, Holder: holder, Token: "card-" + holder}
	for i, k := range []jpki.Kind{jpki.CardSign, jpki.CardAuth} {
		req.Requests = append(req.Requests, ca.KeyRequest{Kind: k, Request: csr(phoneKey(first+i), "")})
	}
	return must(w.authority.Issue(t.Context(), counter, req))[0].ID
}

// csr makes a certification request with a keyUsage, or without one for "".
func csr(key crypto.Signer, kind jpki.Kind) []byte {
	t := &x509.CertificateRequest{}
	switch kind {
	case jpki.PhoneSign:
		t.ExtraExtensions = []pkix.Extension{{Id: oidKeyUsage, Critical: true, Value: []byte{0x03, 0x02, 0x06, 0xc0}}}
	case jpki.PhoneAuth:
		t.ExtraExtensions = []pkix.Extension{{Id: oidKeyUsage, Critical: true, Value: []byte{0x03, 0x02, 0x07, 0x80}}}
	}
	return must(x509.CreateCertificateRequest(rand.Reader, t, key))
}

func (w *world) invite(t *testing.T, parent jpki.CertID, kinds ...jpki.Kind) acme.PhoneInvitation {
	t.Helper()
	return must(w.enrolment.BeginPhone(t.Context(), holderActor, ca.PhoneEnrolmentRequest{Holder: "h1", Token: "phone-1", Parent: parent, Kinds: kinds}))
}

func (p *phone) register(i acme.PhoneInvitation) error {
	_, err := p.client.Register(p.t.Context(), &xacme.Account{ExternalAccountBinding: &xacme.ExternalAccountBinding{KID: i.KeyID, Key: i.Key}}, xacme.AcceptTOS)
	return err
}

func (p *phone) joined(i acme.PhoneInvitation) *phone {
	p.t.Helper()
	if err := p.register(i); err != nil {
		p.t.Fatal(err)
	}
	return p
}

// order asks for an order and returns it with its challenge.
func (p *phone) order() (*xacme.Order, *xacme.Authorization, error) {
	o, err := p.client.AuthorizeOrder(p.t.Context(), []xacme.AuthzID{{Type: "permanent-identifier", Value: p.device}})
	if err != nil {
		return nil, nil, err
	}
	az, err := p.client.GetAuthorization(p.t.Context(), o.AuthzURLs[0])
	if err == nil && (len(az.Challenges) != 1 || az.Challenges[0].Type != "device-attest-01") {
		p.t.Fatalf("challenges: %+v", az.Challenges)
	}
	return o, az, err
}

// keyAuthorization is what the phone signs (RFC 8555 §8.1).
func (p *phone) keyAuthorization(token string) string {
	return token + "." + must(xacme.JWKThumbprint(p.acct.Public()))
}

func managedDevice(id string) pkix.Extension {
	return pkix.Extension{Id: oidStepDevice, Value: must(asn1.Marshal(struct{ DeviceID string }{id}))}
}

// attest makes the payload of the challenge's response.
func (p *phone) attest(key *rsa.PrivateKey, token string) json.RawMessage {
	statement := map[string]any{}
	switch p.format {
	case "android-key":
		return p.maker.androidPayload(key, p.keyAuthorization(token))
	case "apple-appattest":
		return p.maker.appPayload(key, p.keyAuthorization(token))
	case "step":
		sum := sha256.Sum256([]byte(p.keyAuthorization(token)))
		statement["x5c"] = [][]byte{p.maker.certify(key.Public(), managedDevice(p.device))}
		statement["sig"] = must(cbor.Marshal(must(rsa.SignPKCS1v15(nil, key, crypto.SHA256, sum[:]))))
	case "apple":
		sum := sha256.Sum256([]byte(token))
		statement["x5c"] = [][]byte{p.maker.certify(key.Public(), pkix.Extension{Id: oidAppleUDID, Value: []byte(p.device)}, pkix.Extension{Id: oidAppleNonce, Value: sum[:]})}
	}
	return attestation(p.format, statement)
}

func attestation(format string, statement map[string]any) json.RawMessage {
	object := must(cbor.Marshal(map[string]any{"fmt": format, "attStmt": statement}))
	return must(json.Marshal(map[string]string{"attObj": base64.RawURLEncoding.EncodeToString(object)}))
}

// prove answers the challenge.
func (p *phone) prove(az *xacme.Authorization, payload json.RawMessage) error {
	ch := *az.Challenges[0]
	ch.Payload = payload
	if _, err := p.client.Accept(p.t.Context(), &ch); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(p.t.Context(), 30*time.Second) // the client waits for as long as nothing is decided
	defer cancel()
	_, err := p.client.WaitAuthorization(ctx, az.URI)
	return err
}

// ready brings an order to where it can be finalized.
func (p *phone) ready(key *rsa.PrivateKey) *xacme.Order {
	p.t.Helper()
	o, az, err := p.order()
	if err == nil {
		err = p.prove(az, p.attest(key, az.Challenges[0].Token))
	}
	if err != nil {
		p.t.Fatal(err)
	}
	return o
}

// obtain gets a certificate for a key.
func (p *phone) obtain(key *rsa.PrivateKey, kind jpki.Kind) ([]*x509.Certificate, error) {
	p.t.Helper()
	return p.finalize(p.ready(key), csr(key, kind))
}

func (p *phone) finalize(o *xacme.Order, csr []byte) ([]*x509.Certificate, error) {
	chain, _, err := p.client.CreateCertFromOrder(p.t.Context(), o, csr, true)
	out := make([]*x509.Certificate, len(chain))
	for i, der := range chain {
		out[i] = must(x509.ParseCertificate(der))
	}
	return out, err
}

// problemOf returns the last part of an ACME error's type; "" for none.
func problemOf(err error) string {
	if a, ok := errors.AsType[*xacme.AuthorizationError](err); ok && len(a.Errors) > 0 {
		err = a.Errors[0]
	}
	if e, ok := errors.AsType[*xacme.Error](err); ok {
		return e.ProblemType[strings.LastIndexAny(e.ProblemType, ":#")+1:]
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

func (w *world) state(t *testing.T, id jpki.CertID) string {
	t.Helper()
	c, err := w.db.StatusOf(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if c.Status.Cause != "" {
		return string(c.Status.State) + " " + string(c.Status.Cause)
	}
	return string(c.Status.State)
}

// certificates returns those of h1's phone, by kind.
func (w *world) certificates(t *testing.T) map[jpki.Kind][]store.Certificate {
	t.Helper()
	out := map[jpki.Kind][]store.Certificate{}
	if err := w.db.View(t.Context(), func(tx *store.Tx) error {
		all, err := tx.CertificatesOf("h1")
		for _, c := range all {
			if c.Token == "phone-1" {
				out[c.Kind] = append(out[c.Kind], c)
			}
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

// A phone gets both certificates with a client that nobody here wrote, and they end with the card's.
func TestPhoneEnrols(t *testing.T) {
	storetest.OnBoth(t, func(t *testing.T, db *store.Store) {
		w := newWorld(t, db)
		parent := w.card(t, "h1", 0)
		last := map[jpki.Kind]jpki.CertID{}
		for n, format := range []string{"step", "apple"} {
			i := w.invite(t, parent, pair2...)
			if !slices.Contains(i.Directories, "/acme/phone-"+format+"/directory") {
				t.Fatal(i.Directories)
			}
			p := w.phone(t, "app-7f3a-"+format, format).joined(i)
			for k, kind := range pair2 {
				key := phoneKey(2 + 2*n + k)
				chain, err := p.obtain(key, kind)
				if err != nil {
					t.Fatal(format, kind, err)
				}
				if len(chain) != 2 || chain[0].CheckSignatureFrom(chain[1]) != nil || !key.PublicKey.Equal(chain[0].PublicKey) {
					t.Fatal(format, kind, "is not a certificate of the key with its issuer's")
				}
				if got := chain[0].KeyUsage&x509.KeyUsageContentCommitment != 0; got != (kind == jpki.PhoneSign) {
					t.Errorf("%s %s: key usage %b", format, kind, chain[0].KeyUsage)
				}
				rows := w.certificates(t)[kind]
				at := slices.IndexFunc(rows, func(c store.Certificate) bool { return bytes.Equal(c.DER, chain[0].Raw) })
				if len(rows) != 1+n || at < 0 || w.state(t, rows[at].ID) != "good" {
					t.Fatalf("%s %s: %d recorded, this one at %d", format, kind, len(rows), at)
				}
				last[kind] = rows[at].ID
			}
			if format == "step" { // the holder gives them up
				for _, id := range last {
					if _, err := w.authority.Revoke(t.Context(), counter, ca.ChangeRequest{IdempotencyKey: "end-" + id.Serial.String(), Certificate: &id, Cause: jpki.HolderRequest}); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		// The card's signature certificate ends, and with it the phone's.
		if _, err := w.authority.Revoke(t.Context(), counter, ca.ChangeRequest{IdempotencyKey: "end", Certificate: &parent, Cause: jpki.HolderRequest}); err != nil {
			t.Fatal(err)
		}
		if s, a := w.state(t, last[jpki.PhoneSign]), w.state(t, last[jpki.PhoneAuth]); s != "revoked holder-request" || a != "good" {
			t.Errorf("after the card's signature certificate the phone's are %s and %s", s, a)
		}
		if got := w.audited(t, "issue"); len(got) != 6 || !strings.HasPrefix(got[5], "holder:h1 ") {
			t.Errorf("audited: %q", got)
		}
		if got := w.audited(t, "phone.bound"); len(got) != 2 {
			t.Errorf("audited: %q", got)
		}
		if strings.Contains(w.log.String(), "app-7f3a") {
			t.Error("the log names the device")
		}
	})
}

// Attestations that prove nothing end the challenge, and the order with it.
func TestAttestationsRefused(t *testing.T) {
	w := sqlite(t)
	parent := w.card(t, "h1", 0)
	key, stranger := phoneKey(2), newMaker()
	sign := func(key *rsa.PrivateKey, text string) []byte {
		sum := sha256.Sum256([]byte(text))
		return must(cbor.Marshal(must(rsa.SignPKCS1v15(nil, key, crypto.SHA256, sum[:]))))
	}
	device := managedDevice("app-1")
	udid := pkix.Extension{Id: oidAppleUDID, Value: []byte("app-1")}
	nonce := func(token string) pkix.Extension {
		sum := sha256.Sum256([]byte(token))
		return pkix.Extension{Id: oidAppleNonce, Value: sum[:]}
	}
	step := func(m *maker, text string, x ...pkix.Extension) json.RawMessage {
		return attestation("step", map[string]any{"x5c": [][]byte{m.certify(key.Public(), x...)}, "sig": sign(key, text)})
	}
	apple := func(m *maker, x ...pkix.Extension) json.RawMessage {
		return attestation("apple", map[string]any{"x5c": [][]byte{m.certify(key.Public(), x...)}})
	}
	for name, c := range map[string]struct {
		format string
		make   func(p *phone, token string) json.RawMessage
		want   string
	}{
		"another maker's root": {"step", func(p *phone, token string) json.RawMessage { return step(stranger, p.keyAuthorization(token), device) }, "badAttestationStatement"},
		"a root of another format": {"step", func(p *phone, token string) json.RawMessage {
			return step(w.makers["apple"], p.keyAuthorization(token), device)
		}, "badAttestationStatement"},
		"another challenge's token": {"step", func(p *phone, _ string) json.RawMessage { return step(p.maker, p.keyAuthorization("another"), device) }, "badAttestationStatement"},
		"another account's key":     {"step", func(p *phone, token string) json.RawMessage { return step(p.maker, token+".AAAA", device) }, "badAttestationStatement"},
		"signed by another key": {"step", func(p *phone, token string) json.RawMessage {
			return attestation("step", map[string]any{"x5c": [][]byte{p.maker.certify(key.Public(), device)}, "sig": sign(phoneKey(3), p.keyAuthorization(token))})
		}, "badAttestationStatement"},
		"another device": {"step", func(p *phone, token string) json.RawMessage {
			return step(p.maker, p.keyAuthorization(token), managedDevice("app-2"))
		}, "badAttestationStatement"},
		"no device":                     {"step", func(p *phone, token string) json.RawMessage { return step(p.maker, p.keyAuthorization(token)) }, "badAttestationStatement"},
		"a format of another directory": {"step", func(p *phone, token string) json.RawMessage { return apple(w.makers["apple"], udid, nonce(token)) }, "badAttestationStatement"},
		"a format that is not let in":   {"step", func(p *phone, _ string) json.RawMessage { return attestation("tpm", map[string]any{"ver": "2.0"}) }, "badAttestationStatement"},
		"a format that nobody knows":    {"step", func(p *phone, _ string) json.RawMessage { return attestation("none", nil) }, "badAttestationStatement"},
		"no certificates": {"step", func(p *phone, token string) json.RawMessage {
			return attestation("step", map[string]any{"sig": sign(key, token)})
		}, "badAttestationStatement"},
		"Apple's, another nonce": {"apple", func(p *phone, _ string) json.RawMessage { return apple(p.maker, udid, nonce("another")) }, "badAttestationStatement"},
		"Apple's, no nonce":      {"apple", func(p *phone, _ string) json.RawMessage { return apple(p.maker, udid) }, "badAttestationStatement"},
		"Apple's, an empty nonce": {"apple", func(p *phone, _ string) json.RawMessage {
			return apple(p.maker, udid, pkix.Extension{Id: oidAppleNonce, Value: []byte{}})
		}, "badAttestationStatement"},
		"Apple's, another device": {"apple", func(p *phone, token string) json.RawMessage {
			return apple(p.maker, pkix.Extension{Id: oidAppleUDID, Value: []byte("app-2")}, nonce(token))
		}, "badAttestationStatement"},
		"the phone says it cannot": {"step", func(*phone, string) json.RawMessage { return json.RawMessage(`{"error":"no key store"}`) }, "rejectedIdentifier"},
		"nothing":                  {"step", func(*phone, string) json.RawMessage { return json.RawMessage(`{}`) }, "badAttestationStatement"},
		"not CBOR":                 {"step", func(*phone, string) json.RawMessage { return json.RawMessage(`{"attObj":"_w"}`) }, "badAttestationStatement"},
		"a long thing that is no base64": {"step", func(*phone, string) json.RawMessage {
			return json.RawMessage(`{"attObj":"` + strings.Repeat("!", 20000) + `"}`)
		}, "badAttestationStatement"},
	} {
		t.Run(name, func(t *testing.T) {
			p := w.phone(t, "app-1", c.format).joined(w.invite(t, parent, jpki.PhoneAuth))
			o, az, err := p.order()
			if err != nil {
				t.Fatal(err)
			}
			if got := problemOf(p.prove(az, c.make(p, az.Challenges[0].Token))); got != c.want {
				t.Errorf("the challenge: %q, want %q", got, c.want)
			}
			if _, err := p.finalize(o, csr(key, "")); problemOf(err) != "orderNotReady" {
				t.Errorf("finalized: %v", err)
			}
			if err := p.prove(az, p.attest(key, az.Challenges[0].Token)); err == nil {
				t.Error("a lost challenge was won later")
			}
		})
	}
	if got := w.certificates(t); len(got) != 0 {
		t.Error(got)
	}
}

// What is no answer to a challenge leaves it open.
func TestMalformedAnswers(t *testing.T) {
	w := sqlite(t)
	p := w.phone(t, "app-1", "step").joined(w.invite(t, w.card(t, "h1", 0), jpki.PhoneAuth))
	o, az, err := p.order()
	if err != nil {
		t.Fatal(err)
	}
	for name, payload := range map[string]json.RawMessage{
		"not an object": json.RawMessage(`[1]`), "CBOR of something else": json.RawMessage(`{"attObj":"gwECAw"}`),
	} {
		if got := problemOf(p.prove(az, payload)); got != "malformed" {
			t.Errorf("%s: %s", name, got)
		}
	}
	if err := p.prove(az, p.attest(phoneKey(2), az.Challenges[0].Token)); err != nil {
		t.Fatal(err)
	}
	if _, err := p.finalize(o, csr(phoneKey(2), "")); err != nil {
		t.Error("the only kind needs no keyUsage:", err)
	}
}

// Nothing is signed but what was attested and enrolled, and when it is done again it is done once.
func TestFinalization(t *testing.T) {
	storetest.OnBoth(t, func(t *testing.T, db *store.Store) {
		w := newWorld(t, db)
		parent := w.card(t, "h1", 0)
		key, second := phoneKey(2), phoneKey(3)
		p := w.phone(t, "app-1", "step").joined(w.invite(t, parent, pair2...))
		o := p.ready(key)
		my := must(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{SerialNumber: "123456789018"}, ExtraExtensions: must(x509.ParseCertificateRequest(csr(key, jpki.PhoneSign))).Extensions}, key))
		encipher := must(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{ExtraExtensions: []pkix.Extension{{Id: oidKeyUsage, Value: []byte{0x03, 0x02, 0x05, 0xa0}}}}, key))
		garbled := must(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{ExtraExtensions: []pkix.Extension{{Id: oidKeyUsage, Value: []byte{0x04, 0x01, 0x80}}}}, key))
		broken := slices.Clone(csr(key, jpki.PhoneSign))
		broken[len(broken)-1] ^= 1
		for name, c := range map[string]struct {
			csr  []byte
			want string
		}{
			"another key than the attested": {csr(second, jpki.PhoneSign), "unauthorized"},
			"no kind, of two":               {csr(key, ""), "malformed"},
			"a key that enciphers":          {encipher, "malformed"},
			"a keyUsage that is none":       {garbled, "malformed"},
			"a My Number":                   {my, "my-number-present"},
			"a broken signature":            {broken, "malformed"},
		} {
			if _, err := p.finalize(o, c.csr); problemOf(err) != c.want {
				t.Errorf("%s: %v, want %s", name, err, c.want)
			}
		}
		first, err := p.finalize(o, csr(key, jpki.PhoneSign))
		if err != nil {
			t.Fatal(err)
		}
		for _, again := range [][]byte{csr(key, jpki.PhoneSign), csr(key, jpki.PhoneAuth)} {
			if got, err := p.finalize(o, again); err != nil || !got[0].Equal(first[0]) {
				t.Errorf("finalized again: %v", err)
			}
		}
		if _, err := p.obtain(second, jpki.PhoneSign); problemOf(err) != "already-certified" {
			t.Errorf("a second certificate of the kind: %v", err)
		}
		if _, err := p.obtain(key, jpki.PhoneAuth); problemOf(err) != "key-reused" {
			t.Errorf("one key for both: %v", err)
		}
		p.device = "app-2"
		if _, err := p.obtain(second, jpki.PhoneAuth); problemOf(err) != "forbidden" {
			t.Errorf("a key of another device: %v", err)
		}
		p.device = "app-1"
		if _, err := p.obtain(second, jpki.PhoneAuth); err != nil {
			t.Error(err)
		}
		if got := w.certificates(t); len(got[jpki.PhoneSign]) != 1 || len(got[jpki.PhoneAuth]) != 1 {
			t.Error(got)
		}

		// An enrolment for one kind.
		one := w.phone(t, "app-1", "step").joined(w.begin(t, ca.PhoneEnrolmentRequest{Holder: "h1", Token: "phone-2", Parent: parent, Kinds: []jpki.Kind{jpki.PhoneAuth}}))
		if _, err := one.obtain(phoneKey(4), jpki.PhoneSign); problemOf(err) != "forbidden" {
			t.Errorf("a kind that was not asked for: %v", err)
		}
	})
}

func (w *world) begin(t *testing.T, req ca.PhoneEnrolmentRequest) acme.PhoneInvitation {
	t.Helper()
	return must(w.enrolment.BeginPhone(t.Context(), holderActor, req))
}

// Several finalizations of one order at once issue one certificate.
func TestFinalizedAtOnce(t *testing.T) {
	storetest.OnBoth(t, func(t *testing.T, db *store.Store) {
		w := newWorld(t, db)
		p := w.phone(t, "app-1", "step").joined(w.invite(t, w.card(t, "h1", 0), jpki.PhoneAuth))
		o := p.ready(phoneKey(2))
		results := make(chan error, 6)
		for range cap(results) {
			go func() {
				_, err := p.finalize(o, csr(phoneKey(2), ""))
				results <- err
			}()
		}
		good := 0
		for range cap(results) {
			switch err := <-results; problemOf(err) {
			case "":
				good++
			case "in-progress":
			default:
				t.Error(err)
			}
		}
		if got := w.certificates(t)[jpki.PhoneAuth]; good == 0 || len(got) != 1 {
			t.Errorf("%d of them got a certificate, there are %d", good, len(got))
		}
	})
}

// An invitation is good for one account and for its time.
func TestBinding(t *testing.T) {
	storetest.OnBoth(t, func(t *testing.T, db *store.Store) {
		w := newWorld(t, db)
		parent := w.card(t, "h1", 0)
		i := w.invite(t, parent, pair2...)
		wrong, unknown, none := i, i, i
		wrong.Key = make([]byte, 32)
		unknown.KeyID = base64.RawURLEncoding.EncodeToString(make([]byte, 32))
		half := i
		raw := must(base64.RawURLEncoding.DecodeString(i.KeyID))
		raw[len(raw)-1] ^= 1
		half.KeyID = base64.RawURLEncoding.EncodeToString(raw)
		none.KeyID = "x"
		for name, bad := range map[string]acme.PhoneInvitation{"a wrong key": wrong, "an unknown enrolment": unknown, "a wrong secret": half, "no identifier": none} {
			if err := w.phone(t, "app-1", "step").register(bad); problemOf(err) != "unauthorized" {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := w.phone(t, "app-1", "step").client.Register(t.Context(), &xacme.Account{}, xacme.AcceptTOS); problemOf(err) != "externalAccountRequired" {
			t.Errorf("no binding: %v", err)
		}
		first := w.phone(t, "app-1", "step").joined(i)
		if err := first.register(i); !errors.Is(err, xacme.ErrAccountAlreadyExists) {
			t.Errorf("the same account again: %v", err)
		}
		if err := w.phone(t, "app-2", "step").register(i); problemOf(err) != "unauthorized" {
			t.Errorf("a second account: %v", err)
		}
		ready := first.ready(phoneKey(2))

		// Another's order is not there for the taking.
		w.card(t, "h2", 4)
		parent2 := w.certOf(t, "h2", jpki.CardSign)
		other := w.phone(t, "app-9", "step").joined(must(w.enrolment.BeginPhone(t.Context(), jpki.Actor{Role: jpki.Holder, ID: "h2"},
			ca.PhoneEnrolmentRequest{Holder: "h2", Token: "phone-9", Parent: parent2, Kinds: pair2})))
		if _, err := other.finalize(ready, csr(phoneKey(2), jpki.PhoneSign)); problemOf(err) != "unauthorized" {
			t.Errorf("another's order: %v", err)
		}
		if _, err := other.client.GetOrder(t.Context(), ready.URI); problemOf(err) != "unauthorized" {
			t.Errorf("another's order: %v", err)
		}

		// Time passes.
		late := w.invite2(t, parent)
		w.ahead.Store(int64(16 * time.Minute))
		if err := w.phone(t, "app-1", "step").register(late); problemOf(err) != "unauthorized" {
			t.Errorf("after the end: %v", err)
		}
		if _, _, err := first.order(); problemOf(err) != "unauthorized" {
			t.Errorf("an order after the end: %v", err)
		}
		if _, err := first.finalize(ready, csr(phoneKey(2), jpki.PhoneSign)); problemOf(err) != "unauthorized" {
			t.Errorf("finalized after the end: %v", err)
		}
		if got := w.certificates(t); len(got) != 0 {
			t.Error(got)
		}

		// A newer enrolment of the phone ends the former, and a day later nothing is left of either.
		older := w.phone(t, "app-1", "step").joined(w.invite(t, parent, pair2...))
		newer := w.invite(t, parent, pair2...)
		if _, _, err := older.order(); problemOf(err) != "unauthorized" {
			t.Errorf("an order of a former enrolment: %v", err)
		}
		w.ahead.Store(int64(48 * time.Hour))
		w.invite(t, parent, jpki.PhoneAuth)
		err := db.View(t.Context(), func(tx *store.Tx) error {
			if _, err := tx.PhoneEnrolment(newer.Enrolment); !errors.Is(err, jpki.NotFound) {
				t.Errorf("an old enrolment is still there: %v", err)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := first.client.GetOrder(t.Context(), ready.URI); problemOf(err) != "accountDoesNotExist" {
			t.Errorf("an old account is still there: %v", err)
		}
	})
}

// invite2 is an invitation for another phone of h1.
func (w *world) invite2(t *testing.T, parent jpki.CertID) acme.PhoneInvitation {
	t.Helper()
	return w.begin(t, ca.PhoneEnrolmentRequest{Holder: "h1", Token: "phone-2", Parent: parent, Kinds: pair2})
}

func (w *world) certOf(t *testing.T, holder string, kind jpki.Kind) (id jpki.CertID) {
	t.Helper()
	if err := w.db.View(t.Context(), func(tx *store.Tx) error {
		all, err := tx.CertificatesOf(holder)
		for _, c := range all {
			if c.Kind == kind {
				id = c.ID
			}
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return id
}

// A repeated finalization of something issued in time is answered after the enrolment's end, too.
func TestFetchedLate(t *testing.T) {
	w := sqlite(t)
	p := w.phone(t, "app-1", "step").joined(w.invite(t, w.card(t, "h1", 0), jpki.PhoneAuth))
	o := p.ready(phoneKey(2))
	first, err := p.finalize(o, csr(phoneKey(2), ""))
	if err != nil {
		t.Fatal(err)
	}
	w.ahead.Store(int64(16 * time.Minute))
	if got, err := p.finalize(o, csr(phoneKey(2), "")); err != nil || !got[0].Equal(first[0]) {
		t.Error(err)
	}
}

// The parent is looked at again when the certificate is made.
func TestParentEndsMeanwhile(t *testing.T) {
	w := sqlite(t)
	parent := w.card(t, "h1", 0)
	p := w.phone(t, "app-1", "step").joined(w.invite(t, parent, pair2...))
	o := p.ready(phoneKey(2))
	if _, err := w.authority.Suspend(t.Context(), counter, ca.ChangeRequest{IdempotencyKey: "lost", Token: "card-h1", Cause: jpki.Lost}); err != nil {
		t.Fatal(err)
	}
	if _, err := p.finalize(o, csr(phoneKey(2), jpki.PhoneSign)); problemOf(err) != "forbidden" {
		t.Errorf("on the strength of a lost card: %v", err)
	}
}

// Who may begin an enrolment, and for what.
func TestBeginPhoneEnrolment(t *testing.T) {
	w := sqlite(t)
	parent := w.card(t, "h1", 0)
	w.card(t, "h2", 4)
	good := ca.PhoneEnrolmentRequest{Holder: "h1", Token: "phone-1", Parent: parent, Kinds: pair2}
	for name, c := range map[string]struct {
		by     jpki.Actor
		change func(r *ca.PhoneEnrolmentRequest)
		want   jpki.Problem
	}{
		"the hotline":             {unlisted, func(*ca.PhoneEnrolmentRequest) {}, jpki.Forbidden},
		"another holder":          {jpki.Actor{Role: jpki.Holder, ID: "h2"}, func(*ca.PhoneEnrolmentRequest) {}, jpki.Forbidden},
		"another municipality":    {other, func(*ca.PhoneEnrolmentRequest) {}, jpki.WrongMunicipality},
		"nobody":                  {counter, func(r *ca.PhoneEnrolmentRequest) { r.Holder = "h9" }, jpki.UnknownHolder},
		"a My Number":             {counter, func(r *ca.PhoneEnrolmentRequest) { r.Token = "123456789018" }, jpki.MyNumberPresent},
		"another's card":          {counter, func(r *ca.PhoneEnrolmentRequest) { r.Parent = w.certOf(t, "h2", jpki.CardSign) }, jpki.Forbidden},
		"the other certificate":   {counter, func(r *ca.PhoneEnrolmentRequest) { r.Parent = w.certOf(t, "h1", jpki.CardAuth) }, jpki.Forbidden},
		"a certificate of nobody": {counter, func(r *ca.PhoneEnrolmentRequest) { r.Parent.Serial = newSerial() }, jpki.UnknownCertificate},
		"no kinds":                {counter, func(r *ca.PhoneEnrolmentRequest) { r.Kinds = nil }, jpki.Malformed},
		"a card's kind":           {counter, func(r *ca.PhoneEnrolmentRequest) { r.Kinds = []jpki.Kind{jpki.PhoneAuth, jpki.CardAuth} }, jpki.Malformed},
		"for days":                {counter, func(r *ca.PhoneEnrolmentRequest) { r.Life = 24 * time.Hour }, jpki.Malformed},
		"for no time":             {counter, func(r *ca.PhoneEnrolmentRequest) { r.Life = -time.Minute }, jpki.Malformed},
	} {
		req := good
		req.Kinds = slices.Clone(good.Kinds)
		c.change(&req)
		if _, err := w.enrolment.BeginPhone(t.Context(), c.by, req); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
	if got := w.audited(t, "phone.enrolment"); len(got) != 0 {
		t.Error(got)
	}
	i, err := w.enrolment.BeginPhone(t.Context(), counter, good)
	if err != nil || len(i.Key) != 32 || i.ExpiresAt.After(time.Now().Add(16*time.Minute)) {
		t.Fatal(i, err)
	}
	if got := w.audited(t, "phone.enrolment"); len(got) != 1 || strings.Contains(got[0], i.KeyID) {
		t.Error(got)
	}
	p := w.phone(t, "app-1", "step").joined(i)
	if _, err := p.obtain(phoneKey(2), jpki.PhoneSign); err != nil {
		t.Fatal(err)
	}
	if _, err := w.enrolment.BeginPhone(t.Context(), counter, good); !errors.Is(err, jpki.AlreadyCertified) {
		t.Error(err)
	}
	if got := w.audited(t, "issue"); !strings.HasPrefix(got[len(got)-1], counter.String()+" ") {
		t.Errorf("audited: %q", got)
	}
}

// What the sandbox trusts is trusted nowhere else.
func TestSandboxRootStaysThere(t *testing.T) {
	w := sqlite(t)
	c := w.enrolment.Config
	template := makerTemplate()
	template.Subject = pkix.Name{Organization: []string{"A real authority"}, CommonName: "infrastructure"}
	key := newKey()
	c.Root = must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))))
	if _, err := acme.New(c); err == nil {
		t.Error("the sandbox's attestation root was accepted by another authority")
	}
	c.Phones = []acme.Attestation{{Format: "apple", Roots: []*x509.Certificate{c.Root}}}
	if _, err := acme.New(c); err != nil {
		t.Error(err)
	}
	for name, bad := range map[string]acme.Attestation{
		"no roots": {Format: "step"}, "tpm": {Format: "tpm", Roots: []*x509.Certificate{c.Root}}, "twice": {Format: "apple", Roots: []*x509.Certificate{c.Root}},
	} {
		c := c
		c.Phones = append(slices.Clone(c.Phones), bad)
		if _, err := acme.New(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	c.Phones = nil
	e, err := acme.New(c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.BeginPhone(context.Background(), holderActor, ca.PhoneEnrolmentRequest{}); !errors.Is(err, jpki.NotFound) {
		t.Error(err)
	}
}
