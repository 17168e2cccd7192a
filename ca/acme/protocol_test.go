package acme_test

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	stepacme "github.com/smallstep/certificates/acme"
	casapi "github.com/smallstep/certificates/cas/apiv1"
	"go.step.sm/crypto/jose"
	xacme "golang.org/x/crypto/acme"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/acme"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/ca/store/storetest"
)

// nonce fetches one.
func (p *phone) nonce() string {
	p.t.Helper()
	req := must(http.NewRequestWithContext(p.t.Context(), http.MethodHead, p.url+"/acme/phone-"+p.format+"/new-nonce", nil))
	resp := must(p.client.HTTPClient.Do(req))
	_ = resp.Body.Close()
	if resp.Header.Get("Replay-Nonce") == "" || resp.Header.Get("Cache-Control") != "no-store" {
		p.t.Fatal(resp.Header)
	}
	return resp.Header.Get("Replay-Nonce")
}

// jws signs a request to a path with the account's key, by its URL if it has one.
func (p *phone) jws(path, nonce, kid string, payload []byte) []byte {
	p.t.Helper()
	o := &jose.SignerOptions{ExtraHeaders: map[jose.HeaderKey]any{"url": p.url + path, "nonce": nonce}, EmbedJWK: kid == ""}
	if kid != "" {
		o.ExtraHeaders["kid"] = kid
	}
	signer := must(jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: p.acct}, o))
	text := must(signer.Sign(payload)).FullSerialize()
	if len(payload) == 0 { // POST-as-GET: empty, not detached (RFC 8555 §6.3)
		text = `{"payload":"",` + text[1:]
	}
	return []byte(text)
}

// send sends a body and returns the status and what problem there is.
func (p *phone) send(path string, body []byte, change func(*http.Request)) (int, string) {
	p.t.Helper()
	req := must(http.NewRequestWithContext(p.t.Context(), http.MethodPost, p.url+path, bytes.NewReader(body)))
	req.Header.Set("Content-Type", "application/jose+json")
	if change != nil {
		change(req)
	}
	resp := must(p.client.HTTPClient.Do(req))
	defer func() { _ = resp.Body.Close() }()
	var d struct{ Type string }
	_ = json.NewDecoder(resp.Body).Decode(&d)
	return resp.StatusCode, d.Type[strings.LastIndexAny(d.Type, ":#")+1:]
}

// kid returns the account's URL.
func (p *phone) kid() string {
	p.t.Helper()
	return must(p.client.GetReg(p.t.Context(), "")).URI
}

const newOrder = "/acme/phone-step/new-order"

func orderFor(ids ...xacme.AuthzID) map[string]any {
	list := make([]map[string]string, len(ids))
	for i, id := range ids {
		list[i] = map[string]string{"type": id.Type, "value": id.Value}
	}
	return map[string]any{"identifiers": list}
}

// What RFC 8555 says about requests holds.
func TestRequests(t *testing.T) {
	storetest.OnBoth(t, func(t *testing.T, db *store.Store) {
		w := newWorld(t, db)
		parent := w.card(t, "h1", 0)
		p := w.phone(t, "app-1", "step").joined(w.invite(t, parent, pair2...))
		kid := p.kid()
		good := must(json.Marshal(orderFor(xacme.AuthzID{Type: "permanent-identifier", Value: "app-1"})))

		spent := p.jws(newOrder, p.nonce(), kid, good)
		if status, got := p.send(newOrder, spent, nil); status != http.StatusCreated {
			t.Fatal(status, got)
		}
		stranger := w.phone(t, "app-1", "step")
		elsewhere := func(r *http.Request) { r.Host = "evil.example" }
		lured := &phone{world: &world{url: "https://evil.example"}, t: t, acct: p.acct} // signs for a server that passes it on
		for name, c := range map[string]struct {
			path   string
			body   []byte
			change func(*http.Request)
			want   string
		}{
			"a nonce again":                   {newOrder, spent, nil, "badNonce"},
			"a nonce of one's own":            {newOrder, p.jws(newOrder, "AAAA", kid, good), nil, "badNonce"},
			"no nonce":                        {newOrder, p.jws(newOrder, "", kid, good), nil, "badNonce"},
			"made out to another path":        {newOrder, p.jws("/acme/phone-step/new-account", p.nonce(), kid, good), nil, "malformed"},
			"made out to another host":        {newOrder, lured.jws(newOrder, p.nonce(), kid, good), elsewhere, "malformed"},
			"signed by another key":           {newOrder, stranger.jws(newOrder, p.nonce(), kid, good), nil, "malformed"},
			"no account":                      {newOrder, p.jws(newOrder, p.nonce(), kid+"x", good), nil, "accountDoesNotExist"},
			"another directory's account":     {"/acme/phone-apple/new-order", p.jws("/acme/phone-apple/new-order", p.nonce(), kid, good), nil, "unauthorized"},
			"not signed":                      {newOrder, []byte(`{}`), nil, "malformed"},
			"too much":                        {newOrder, bytes.Repeat([]byte(" "), 1<<16+1), nil, "too-large"},
			"another content type":            {newOrder, p.jws(newOrder, p.nonce(), kid, good), func(r *http.Request) { r.Header.Set("Content-Type", "application/json") }, "malformed"},
			"not JSON":                        {newOrder, p.jws(newOrder, p.nonce(), kid, []byte("x")), nil, "malformed"},
			"a DNS name":                      {newOrder, p.jws(newOrder, p.nonce(), kid, must(json.Marshal(orderFor(xacme.AuthzID{Type: "dns", Value: "example.com"})))), nil, "unsupportedIdentifier"},
			"two devices":                     {newOrder, p.jws(newOrder, p.nonce(), kid, must(json.Marshal(orderFor(xacme.AuthzID{Type: "permanent-identifier", Value: "a"}, xacme.AuthzID{Type: "permanent-identifier", Value: "b"})))), nil, "rejectedIdentifier"},
			"a My Number":                     {newOrder, p.jws(newOrder, p.nonce(), kid, must(json.Marshal(orderFor(xacme.AuthzID{Type: "permanent-identifier", Value: "123456789018"})))), nil, "my-number-present"},
			"a long name":                     {newOrder, p.jws(newOrder, p.nonce(), kid, must(json.Marshal(orderFor(xacme.AuthzID{Type: "permanent-identifier", Value: strings.Repeat("a", 129)})))), nil, "rejectedIdentifier"},
			"an end of one's own choice":      {newOrder, p.jws(newOrder, p.nonce(), kid, []byte(`{"identifiers":[{"type":"permanent-identifier","value":"app-1"}],"notAfter":"`+time.Now().Add(time.Hour).UTC().Format(time.RFC3339)+`"}`)), nil, "malformed"},
			"an order that there is not":      {"/acme/phone-step/order/x", p.jws("/acme/phone-step/order/x", p.nonce(), kid, nil), nil, "not-found"},
			"a challenge that there is not":   {"/acme/phone-step/challenge/x/y", p.jws("/acme/phone-step/challenge/x/y", p.nonce(), kid, nil), nil, "not-found"},
			"a certificate that there is not": {"/acme/phone-step/certificate/x", p.jws("/acme/phone-step/certificate/x", p.nonce(), kid, nil), nil, "not-found"},
			"a method of no use":              {"/acme/phone-step/directory", nil, nil, "method-not-allowed"},
		} {
			if status, got := p.send(c.path, c.body, c.change); got != c.want || status < 400 || status >= 500 {
				t.Errorf("%s: %d %s, want %s", name, status, got, c.want)
			}
		}

		// Another account's things, by their names.
		o, az, err := p.order()
		if err != nil {
			t.Fatal(err)
		}
		other := w.phone(t, "app-1", "step").joined(w.invite2(t, parent))
		path := func(url string) string { return strings.TrimPrefix(url, w.url) }
		for _, url := range []string{o.URI, az.URI, az.Challenges[0].URI, kid + "/orders"} {
			if status, got := other.send(path(url), other.jws(path(url), other.nonce(), other.kid(), nil), nil); got != "unauthorized" || status != http.StatusUnauthorized {
				t.Errorf("%s of another: %d %s", path(url), status, got)
			}
		}

		// Many orders, then none.
		for n := 0; ; n++ {
			if _, _, err := p.order(); problemOf(err) == "rateLimited" && n > 0 {
				break
			} else if err != nil || n > 8 {
				t.Fatal(n, err)
			}
		}
		if err := p.client.DeactivateReg(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, _, err := p.order(); problemOf(err) != "unauthorized" {
			t.Errorf("an order by a deactivated account: %v", err)
		}
	})
}

// Every directory says what there is, and nothing else is one.
func TestDirectory(t *testing.T) {
	w := sqlite(t)
	for name, want := range map[string]int{"phone-step": 200, "phone-apple": 200, "phone-tpm": 404, "helpdesk": 404, "station": 404} {
		resp := must((&http.Client{Transport: w.as(nil)}).Do(must(http.NewRequestWithContext(t.Context(), http.MethodGet, w.url+"/acme/"+name+"/directory", nil))))
		var d map[string]any
		if err := json.NewDecoder(resp.Body).Decode(&d); err != nil || resp.StatusCode != want {
			t.Errorf("%s: %d %v", name, resp.StatusCode, err)
		}
		_ = resp.Body.Close()
		base := w.url + "/acme/" + name + "/"
		if want == 200 && (d["newOrder"] != base+"new-order" || d["revokeCert"] != base+"revoke-cert" || d["keyChange"] != base+"key-change" || d["meta"].(map[string]any)["externalAccountRequired"] != true) {
			t.Errorf("%s: %v", name, d)
		}
	}
}

// An account whose making was cut off before it was bound is made again with the same key.
func TestAccountCutOff(t *testing.T) {
	storetest.OnBoth(t, func(t *testing.T, db *store.Store) {
		w := newWorld(t, db)
		p := w.phone(t, "app-1", "step")
		i := w.invite(t, w.card(t, "h1", 0), pair2...)
		jwk := &jose.JSONWebKey{Key: p.acct.Public()}
		accounts := acme.Accounts(w.enrolment)
		if err := accounts.CreateAccount(t.Context(), &stepacme.Account{Key: jwk, Status: stepacme.StatusValid, ProvisionerID: "phone-step", LocationPrefix: w.url + "/acme/phone-step/account/"}); err != nil {
			t.Fatal(err)
		}
		if _, err := accounts.GetAccountByKeyID(t.Context(), must(stepacme.KeyToID(jwk))); !stepacme.IsErrNotFound(err) {
			t.Error("an account that is bound to nothing counts:", err)
		}
		if _, err := p.joined(i).obtain(phoneKey(2), jpki.PhoneAuth); err != nil {
			t.Error(err)
		}
	})
}

// The signing service does nothing for phones that no order is being finalized for.
func TestNoSignatureWithoutFinalization(t *testing.T) {
	w := sqlite(t)
	p := w.phone(t, "app-1", "step").joined(w.invite(t, w.card(t, "h1", 0), jpki.PhoneAuth))
	p.ready(phoneKey(2))
	req := &casapi.CreateCertificateRequest{Provisioner: &casapi.ProvisionerInfo{Type: "ACME"}, CSR: must(x509.ParseCertificateRequest(csr(phoneKey(2), "")))}
	if _, err := acme.Service(w.enrolment).CreateCertificate(req); err == nil || len(w.certificates(t)) != 0 {
		t.Error("signed")
	}
}

// A key identifier has one spelling, and opens the key of its own enrolment only.
func FuzzParseBindingKeyID(f *testing.F) {
	f.Add(base64.RawURLEncoding.EncodeToString(make([]byte, 32)))
	f.Add("")
	f.Add(strings.Repeat("A", 42) + "B")
	f.Add(strings.Repeat("A", 43) + "\n")
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ca.ParseBindingKeyID(s)
		raw, _ := base64.RawURLEncoding.DecodeString(s)
		if err == nil && (base64.RawURLEncoding.EncodeToString(raw) != s || base64.RawURLEncoding.EncodeToString(raw[:16]) != id) {
			t.Errorf("%q is not the only spelling of %q", s, id)
		}
		if _, err := ca.OpenBinding(s, store.PhoneEnrolment{ID: id, SealedKey: make([]byte, 60)}); err == nil {
			t.Errorf("%q opened what was not sealed under it", s)
		}
	})
}

// What is read of an attestation is what encoding it again says.
func FuzzAttestationLeaf(f *testing.F) {
	m := newMaker()
	leaf := m.certify(newKey().Public())
	f.Add([]byte(attestation("apple", map[string]any{"x5c": [][]byte{leaf, m.root.Raw}})))
	f.Add([]byte(attestation("apple", map[string]any{"x5c": [][]byte{}})))
	f.Add([]byte(`{"attObj":"oA"}`))
	f.Add([]byte(`{"attObj":"n59"}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		cert, err := acme.AttestationLeaf(payload)
		if err != nil {
			return
		}
		again, err := acme.AttestationLeaf(attestation("x", map[string]any{"x5c": [][]byte{cert.Raw}}))
		if err != nil || !again.Equal(cert) {
			t.Errorf("%v", err)
		}
		var p struct {
			AttObj string `json:"attObj"`
		}
		if err := json.Unmarshal(payload, &p); err != nil {
			t.Fatal(err)
		}
		if err := cbor.Wellformed(must(base64.RawURLEncoding.DecodeString(p.AttObj))); err != nil {
			t.Errorf("read from what is no CBOR: %v", err)
		}
	})
}

// A kind is what the only keyUsage of a request says, and one of those wanted.
func FuzzRequestedKind(f *testing.F) {
	f.Add([]byte{0x03, 0x02, 0x06, 0xc0}, []byte(nil))
	f.Add([]byte{0x03, 0x02, 0x07, 0x80}, []byte{0x03, 0x02, 0x06, 0x40})
	f.Add([]byte{0x03, 0x01, 0x00}, []byte(nil))
	f.Add([]byte{0x03, 0x82, 0x00, 0x02, 0x07, 0x80}, []byte(nil))
	f.Fuzz(func(t *testing.T, first, second []byte) {
		r := &x509.CertificateRequest{Extensions: []pkix.Extension{{Id: oidKeyUsage, Value: first}}}
		if second != nil {
			r.Extensions = append(r.Extensions, pkix.Extension{Id: oidKeyUsage, Value: second})
		}
		for _, wanted := range [][]jpki.Kind{pair2, {jpki.PhoneAuth}} {
			kind, err := acme.RequestedKind(r, wanted)
			if err != nil {
				continue
			}
			var usage asn1.BitString
			rest, err := asn1.Unmarshal(first, &usage)
			if err != nil || len(rest) > 0 || len(r.Extensions) > 1 || !slices.Contains(wanted, kind) || (usage.At(1) == 1) != (kind == jpki.PhoneSign) {
				t.Errorf("% x, % x: %s of %v", first, second, kind, wanted)
			}
		}
	})
}
