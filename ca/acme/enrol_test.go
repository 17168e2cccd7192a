package acme_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/smallstep/certificates/api"
	casapi "github.com/smallstep/certificates/cas/apiv1"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/acme"
	"github.com/openjpki/jpki/ca/ceremony"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/ca/store/storetest"
)

func base64Std(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

func sqlite(t *testing.T) *world {
	t.Helper()
	return newWorld(t, storetest.Create(t, "sqlite:"+t.TempDir()+"/ca.db"))
}

func pair(resp *api.SignResponse, key any) *tls.Certificate {
	return &tls.Certificate{Certificate: [][]byte{resp.ServerPEM.Raw}, PrivateKey: key, Leaf: resp.ServerPEM.Certificate}
}

// A station's life with smallstep's own Go client: admitted, renewed, given another key in both ways, given up.
func TestLifeOfAStation(t *testing.T) {
	storetest.OnBoth(t, func(t *testing.T, db *store.Store) {
		w := newWorld(t, db)
		step := w.step(t)
		key := newKey()
		resp, err := step.Sign(&api.SignRequest{CsrPEM: api.NewCertificateRequest(request(t, key, counter.ID, nil)), OTT: w.token(t, counter.ID, "helpdesk", w.helpdesk, nil)})
		if err != nil {
			t.Fatal(err)
		}
		first := pair(resp, key)
		if p := w.stationAPI(t, first); p != jpki.UnknownToken {
			t.Fatalf("the station API does not know the admitted station: %s", p)
		}

		if resp, err = step.Renew(w.as(first)); err != nil {
			t.Fatal(err)
		}
		renewed := pair(resp, key)
		if renewed.Leaf.SerialNumber.Cmp(first.Leaf.SerialNumber) == 0 || w.stationAPI(t, renewed) != jpki.UnknownToken {
			t.Error("the renewed certificate is the old one or does not work")
		}

		newer := newKey()
		if resp, err = step.Rekey(&api.RekeyRequest{CsrPEM: api.NewCertificateRequest(request(t, newer, counter.ID, nil))}, w.as(renewed)); err != nil {
			t.Fatal(err)
		}
		second := pair(resp, newer)
		if w.stationAPI(t, second) != jpki.UnknownToken || w.stationAPI(t, renewed) != jpki.UnknownStation || w.stationAPI(t, first) != jpki.UnknownStation {
			t.Error("the new key does not work, or the old one still does")
		}
		if _, err := step.Renew(w.as(renewed)); err == nil {
			t.Error("a replaced key was certified anew")
		}

		newest := newKey()
		if resp, err = step.Sign(&api.SignRequest{CsrPEM: api.NewCertificateRequest(request(t, newest, counter.ID, nil)), OTT: w.selfToken(t, counter.ID, second, nil)}); err != nil {
			t.Fatal(err)
		}
		third := pair(resp, newest)
		if w.stationAPI(t, third) != jpki.UnknownToken || w.stationAPI(t, second) != jpki.UnknownStation {
			t.Error("by x5c: the new key does not work, or the old one still does")
		}
		if !third.Leaf.NotAfter.Equal(third.Leaf.NotBefore.Add(90*24*time.Hour)) || third.Leaf.NotAfter.Before(second.Leaf.NotAfter) {
			t.Error("by x5c: the life is capped:", third.Leaf.NotBefore, third.Leaf.NotAfter)
		}

		if _, err := step.Revoke(&api.RevokeRequest{Serial: third.Leaf.SerialNumber.String(), Passive: true}, w.as(third)); err != nil {
			t.Fatal(err)
		}
		if _, err := step.Renew(w.as(third)); err == nil || w.stationAPI(t, third) != jpki.UnknownStation {
			t.Error("a given-up key still works")
		}
		for _, c := range []*tls.Certificate{first, renewed, second, third} {
			serial := must(jpki.SerialFromBig(c.Leaf.SerialNumber))
			var row store.StationCertificate
			if err := db.View(t.Context(), func(tx *store.Tx) (err error) { row, err = tx.StationCertificate(serial); return err }); err != nil {
				t.Fatal(err)
			}
			if string(row.DER) != string(c.Leaf.Raw) || row.Station != counter.ID || (row.Revoked != nil) != (c == third) {
				t.Errorf("recorded: %+v", row)
			}
		}
		if got := w.audited(t, "station.certified"); len(got) != 4 || !strings.HasPrefix(got[0], "authority:provisioner/helpdesk aoba-counter-2") || !strings.HasPrefix(got[3], "counter:aoba-counter-2 aoba-counter-2") {
			t.Errorf("audited: %q", got)
		}
		if got := w.audited(t, "station.revoked"); len(got) != 1 {
			t.Errorf("audited: %q", got)
		}
		if got := w.enrolment.Outcomes(); got["ok"] < 5 || got[string(jpki.UnknownStation)] != 2 {
			t.Error(got)
		}
	})
}

// Whatever a request asks for, the certificate is the station profile's.
func TestContentsAreOurs(t *testing.T) {
	w := sqlite(t)
	csr := request(t, newKey(), counter.ID, func(r *x509.CertificateRequest) {
		r.Subject = pkix.Name{CommonName: counter.ID, Organization: []string{"Somebody else"}, OrganizationalUnit: []string{"register"}}
		r.ExtraExtensions = []pkix.Extension{
			{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Critical: true, Value: []byte{0x30, 0x03, 0x01, 0x01, 0xff}},                                                  // CA
			{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Value: must(asn1.Marshal([]asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 1}, {1, 3, 6, 1, 5, 5, 7, 3, 9}}))}, // server, OCSP
			{Id: asn1.ObjectIdentifier{2, 5, 29, 15}, Critical: true, Value: []byte{0x03, 0x02, 0x01, 0x06}},                                                        // certSign, crlSign
		}
	})
	far := api.TimeDuration{}
	far.SetTime(time.Now().AddDate(5, 0, 0))
	resp, err := w.step(t).Sign(&api.SignRequest{CsrPEM: api.NewCertificateRequest(csr), OTT: w.token(t, counter.ID, "helpdesk", w.helpdesk, nil), NotAfter: far})
	if err != nil {
		t.Fatal(err)
	}
	c := resp.ServerPEM.Certificate
	switch {
	case c.Subject.String() != "CN=aoba-counter-2,O=JPKI-SANDBOX,C=JP":
		t.Error(c.Subject)
	case c.IsCA || c.KeyUsage != x509.KeyUsageDigitalSignature || len(c.ExtKeyUsage) != 1 || c.ExtKeyUsage[0] != x509.ExtKeyUsageClientAuth || len(c.UnknownExtKeyUsage) > 0:
		t.Error(c.IsCA, c.KeyUsage, c.ExtKeyUsage, c.UnknownExtKeyUsage)
	case len(c.DNSNames) > 0 || c.NotAfter.Sub(c.NotBefore) != 90*24*time.Hour:
		t.Error(c.DNSNames, c.NotBefore, c.NotAfter)
	case c.CheckSignatureFrom(w.infra) != nil:
		t.Error("not the infrastructure CA's signature")
	}
	for _, e := range c.Extensions {
		if strings.HasPrefix(e.Id.String(), "1.3.6.1.4.1.37476.") {
			t.Error("the certificate tells its provisioner")
		}
	}
}

// signing is the body of a call of /sign.
func signing(csr *x509.CertificateRequest, token string) []byte {
	return must(json.Marshal(&api.SignRequest{CsrPEM: api.NewCertificateRequest(csr), OTT: token}))
}

// A refusal costs a token at most: no certificate, no change of any station.
func TestRefusals(t *testing.T) {
	w := sqlite(t)
	replaced, registerPair, outsider := w.enrolled(t, other), w.enrolled(t, register), w.enrolled(t, unlisted)
	present := w.enrolled(t, other)
	disabled := w.enrolled(t, counter)
	if err := w.authority.Disable(t.Context(), operator, counter.ID); err != nil {
		t.Fatal(err)
	}
	// issued makes a certificate for the key of present, with another life or another issuer.
	issued := func(from, until time.Duration, issuer *x509.Certificate, issuerKey *ecdsa.PrivateKey) *tls.Certificate {
		der := must(x509.CreateCertificate(rand.Reader, &x509.Certificate{
			SerialNumber: newSerial().Big(), Subject: pkix.Name{CommonName: other.ID}, NotBefore: time.Now().Add(from), NotAfter: time.Now().Add(until),
			KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		}, issuer, present.Leaf.PublicKey, issuerKey))
		return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: present.PrivateKey, Leaf: must(x509.ParseCertificate(der))}
	}
	expired := issued(-2*time.Hour, -time.Hour, w.infra, w.infraKey)
	otherKey := newKey()
	otherRoot := must(ceremony.NewInfrastructure(otherKey, newSerial(), time.Now()))
	untrusted := issued(-time.Hour, time.Hour, otherRoot, otherKey)

	good := func() string { return w.token(t, other.ID, "helpdesk", w.helpdesk, nil) }
	changed := func(c claimSet) string { return w.token(t, other.ID, "helpdesk", w.helpdesk, c) }
	csr := func(change func(*x509.CertificateRequest)) []byte {
		return signing(request(t, newKey(), other.ID, change), good())
	}
	with := func(token string) []byte { return signing(request(t, newKey(), other.ID, nil), token) }
	named := func(name, token string) []byte { return signing(request(t, newKey(), name, nil), token) }
	weak := must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader))
	broken := *request(t, newKey(), other.ID, nil)
	broken.Raw = append([]byte(nil), broken.Raw...)
	broken.Raw[len(broken.Raw)-1] ^= 1

	for name, c := range map[string]struct {
		path string
		as   *tls.Certificate
		body []byte
		want jpki.Problem
	}{
		"no token":                            {"/sign", nil, with(""), jpki.Unauthorized},
		"not a token":                         {"/sign", nil, with("eyJ.eyJ.x"), jpki.Unauthorized},
		"another's signature":                 {"/sign", nil, with(w.token(t, other.ID, "helpdesk", w.forger(), nil)), jpki.Unauthorized},
		"unknown provisioner":                 {"/sign", nil, with(w.token(t, other.ID, "nobody", w.helpdesk, nil)), jpki.Unauthorized},
		"token for another authority":         {"/sign", nil, with(changed(claimSet{"aud": "https://ca.example/1.0/sign"})), jpki.Unauthorized},
		"token to revoke":                     {"/sign", nil, with(changed(claimSet{"aud": w.url + "/1.0/revoke"})), jpki.Unauthorized},
		"expired token":                       {"/sign", nil, with(changed(claimSet{"exp": time.Now().Add(-2 * time.Minute).Unix()})), jpki.Unauthorized},
		"token not yet valid":                 {"/sign", nil, with(changed(claimSet{"nbf": time.Now().Add(10 * time.Minute).Unix()})), jpki.Unauthorized},
		"token without an end":                {"/sign", nil, with(changed(claimSet{"exp": nil})), jpki.Unauthorized},
		"token that lives long":               {"/sign", nil, with(changed(claimSet{"exp": time.Now().Add(2 * time.Hour).Unix()})), jpki.Unauthorized},
		"token without identifier":            {"/sign", nil, with(changed(claimSet{"jti": nil})), jpki.Unauthorized},
		"token for more names":                {"/sign", nil, with(changed(claimSet{"sans": []string{other.ID, "register"}})), jpki.Forbidden},
		"token for another name":              {"/sign", nil, with(w.token(t, "minato-counter-9", "helpdesk", w.helpdesk, nil)), jpki.Forbidden},
		"token for a station not listed":      {"/sign", nil, named("hotline", w.token(t, "hotline", "helpdesk", w.helpdesk, nil)), jpki.Forbidden},
		"token for another's station":         {"/sign", nil, named("register", w.token(t, "register", "helpdesk", w.helpdesk, nil)), jpki.Forbidden},
		"token for a disabled station":        {"/sign", nil, named(counter.ID, w.token(t, counter.ID, "helpdesk", w.helpdesk, nil)), jpki.UnknownStation},
		"request for another CN":              {"/sign", nil, csr(func(r *x509.CertificateRequest) { r.Subject.CommonName = "register" }), jpki.Forbidden},
		"request for more names":              {"/sign", nil, csr(func(r *x509.CertificateRequest) { r.DNSNames = append(r.DNSNames, "register") }), jpki.Forbidden},
		"request for an address":              {"/sign", nil, csr(func(r *x509.CertificateRequest) { r.IPAddresses = []net.IP{{127, 0, 0, 1}} }), jpki.Forbidden},
		"request with a My Number":            {"/sign", nil, csr(func(r *x509.CertificateRequest) { r.Subject.SerialNumber = "123456789018" }), jpki.MyNumberPresent},
		"request with a broken signature":     {"/sign", nil, signing(&broken, good()), jpki.BadRequestProof},
		"weak key":                            {"/sign", nil, signing(request(t, weak, other.ID, nil), good()), jpki.WeakKey},
		"no request":                          {"/sign", nil, []byte(`{"ott":"x"}`), jpki.Malformed},
		"not JSON":                            {"/sign", nil, []byte(`<csr/>`), jpki.Malformed},
		"body too large":                      {"/sign", nil, bytes.Repeat([]byte(" "), 1<<20), jpki.TooLarge},
		"by self: for another name":           {"/sign", nil, named("register", w.selfToken(t, "register", present, nil)), jpki.Forbidden},
		"by self: expired certificate":        {"/sign", nil, with(w.selfToken(t, other.ID, expired, nil)), jpki.Unauthorized},
		"by self: certificate of another CA":  {"/sign", nil, with(w.selfToken(t, other.ID, untrusted, nil)), jpki.Unauthorized},
		"by self: disabled station":           {"/sign", nil, named(counter.ID, w.selfToken(t, counter.ID, disabled, nil)), jpki.UnknownStation},
		"by self: replaced key":               {"/sign", nil, with(w.selfToken(t, other.ID, replaced, nil)), jpki.UnknownStation},
		"by self: not in the table":           {"/sign", nil, named("hotline", w.selfToken(t, "hotline", outsider, nil)), jpki.Forbidden},
		"by self: another key's signature":    {"/sign", nil, with(w.selfToken(t, other.ID, &tls.Certificate{Certificate: present.Certificate, PrivateKey: newKey()}, nil)), jpki.Unauthorized},
		"renewal without certificate":         {"/renew", nil, nil, jpki.NoClientCertificate},
		"renewal after the end":               {"/renew", expired, nil, jpki.ClientCertificateExpired},
		"renewal under another CA":            {"/renew", untrusted, nil, jpki.ClientCertificateInvalid},
		"renewal of a disabled station":       {"/renew", disabled, nil, jpki.UnknownStation},
		"renewal of a replaced key":           {"/renew", replaced, nil, jpki.UnknownStation},
		"renewal of a station not listed":     {"/renew", outsider, nil, jpki.Forbidden},
		"new key of a disabled station":       {"/rekey", disabled, csr(nil), jpki.UnknownStation},
		"new key under another name":          {"/rekey", present, csr(func(r *x509.CertificateRequest) { r.Subject.CommonName = "register" }), jpki.Forbidden},
		"new key that is weak":                {"/rekey", present, signing(request(t, weak, other.ID, nil), ""), jpki.WeakKey},
		"revocation of another's certificate": {"/revoke", present, must(json.Marshal(api.RevokeRequest{Serial: registerPair.Leaf.SerialNumber.String(), Passive: true})), jpki.Forbidden},
		"revocation by token":                 {"/revoke", present, must(json.Marshal(api.RevokeRequest{Serial: present.Leaf.SerialNumber.String(), OTT: good(), Passive: true})), jpki.Forbidden},
		"revocation of a ceremony's":          {"/revoke", present, must(json.Marshal(api.RevokeRequest{Serial: present.Leaf.SerialNumber.String(), Passive: true})), jpki.UnknownCertificate},
		"password guessing":                   {"/provisioners/" + w.helpdesk.KeyID + "/encrypted-key", nil, nil, jpki.NotFound},
		"a method of no use":                  {"/health", nil, nil, jpki.MethodNotAllowed},
	} {
		status, body := post(t, w.as(c.as), w.url+c.path, c.body)
		var d struct {
			jpki.ProblemDetails
			Message string `json:"message"`
		}
		if err := json.Unmarshal(body, &d); err != nil || d.Problem() != c.want || status != c.want.HTTPStatus() || d.Message == "" {
			t.Errorf("%s: %d %s, want %s", name, status, body, c.want)
		}
	}
	if p := w.stationAPI(t, present); p != jpki.UnknownToken {
		t.Error("a refused request changed a station:", p)
	}
	if got := w.audited(t, "station.certified"); len(got) != 0 {
		t.Errorf("certified: %q", got)
	}
	// What the helpdesk may not, the ministry may.
	byMinistry := named("register", w.token(t, "register", "ministry", w.ministry, nil))
	if status, body := post(t, w.as(nil), w.url+"/1.0/sign", byMinistry); status != 201 {
		t.Errorf("the ministry's token: %d %s", status, body)
	}
	if log := w.log.String(); strings.Contains(log, "eyJ") || strings.Contains(log, "123456789018") {
		t.Error("the log holds a token or a My Number")
	}
}

// The same token in many hands at once admits once.
func TestATokenAdmitsOnce(t *testing.T) {
	storetest.OnBoth(t, func(t *testing.T, db *store.Store) {
		w := newWorld(t, db)
		token := w.token(t, counter.ID, "helpdesk", w.helpdesk, nil)
		statuses := make([]int, 8)
		var wg sync.WaitGroup
		for i := range statuses {
			body := signing(request(t, newKey(), counter.ID, nil), token)
			wg.Go(func() { statuses[i], _ = post(t, w.as(nil), w.url+"/sign", body) })
		}
		wg.Wait()
		admitted := 0
		for _, s := range statuses {
			if s == 201 {
				admitted++
			} else if s != 401 {
				t.Error(s)
			}
		}
		if got := w.audited(t, "station.certified"); admitted != 1 || len(got) != 1 {
			t.Errorf("admitted %d times: %q", admitted, got)
		}
	})
}

// Somebody who knows a token's identifier, but not the provisioner's key, cannot spend it.
func TestAForgeryDoesNotSpendTheToken(t *testing.T) {
	w := sqlite(t)
	same := claimSet{"jti": "the-same"}
	csr := request(t, newKey(), counter.ID, nil)
	if status, body := post(t, w.as(nil), w.url+"/sign", signing(csr, w.token(t, counter.ID, "helpdesk", w.forger(), same))); status != 401 {
		t.Fatal(status, string(body))
	}
	if status, body := post(t, w.as(nil), w.url+"/sign", signing(csr, w.token(t, counter.ID, "helpdesk", w.helpdesk, same))); status != 201 {
		t.Fatal(status, string(body))
	}
}

// Disabled while the key signs, a station stays out.
func TestDisabledMeanwhile(t *testing.T) {
	storetest.OnBoth(t, func(t *testing.T, db *store.Store) {
		w := newWorld(t, db)
		present := w.enrolled(t, counter)
		w.whenSigning(func() error { return w.authority.Disable(t.Context(), operator, counter.ID) })
		if _, err := w.step(t).Renew(w.as(present)); err == nil {
			t.Error("renewed")
		}
		if p := w.stationAPI(t, present); p != jpki.UnknownStation {
			t.Error("the station is in again:", p)
		}
		if got := w.audited(t, "station.certified"); len(got) != 0 {
			t.Errorf("%q", got)
		}
	})
}

// A signer that fails, lies or dies leaves nobody enrolled, and does not tell the client why.
func TestFailingSigner(t *testing.T) {
	w := sqlite(t)
	honest := w.certify
	for name, certify := range map[string]func() (*x509.Certificate, error){
		"fails":  func() (*x509.Certificate, error) { return nil, errors.New("slot 7 is on fire") },
		"panics": func() (*x509.Certificate, error) { panic("slot 7 is on fire") },
		"lies":   func() (*x509.Certificate, error) { return honest(newKey().Public(), counter.ID, newSerial()) },
	} {
		w.mu.Lock()
		w.certify = func(crypto.PublicKey, string, jpki.Serial) (*x509.Certificate, error) { return certify() }
		w.mu.Unlock()
		status, body := post(t, w.as(nil), w.url+"/sign", signing(request(t, newKey(), counter.ID, nil), w.token(t, counter.ID, "helpdesk", w.helpdesk, nil)))
		if status != 500 || strings.Contains(string(body), "fire") {
			t.Errorf("%s: %d %s", name, status, body)
		}
	}
	if got := w.audited(t, "station.certified"); len(got) != 0 {
		t.Errorf("%q", got)
	}
}

// A table or key that cannot be meant is refused at the start.
func TestConfig(t *testing.T) {
	w := sqlite(t)
	key, private := provisioners()[0].public, must(json.Marshal(provisioners()[0].private))
	for name, change := range map[string]func(c *acme.Config){
		"no root":              func(c *acme.Config) { c.Root = nil },
		"private key":          func(c *acme.Config) { c.Provisioners[0].Key = private },
		"no key":               func(c *acme.Config) { c.Provisioners[0].Key = []byte("{}") },
		"reserved name":        func(c *acme.Config) { c.Provisioners[0].Name = "station" },
		"two of a name":        func(c *acme.Config) { c.Provisioners = append(c.Provisioners, c.Provisioners[0]) },
		"station twice":        func(c *acme.Config) { c.Stations = append(c.Stations, c.Stations[0]) },
		"unknown provisioner":  func(c *acme.Config) { c.Stations[0].Provisioner = "nobody" },
		"name that is no name": func(c *acme.Config) { c.Stations[0].ID = "aoba counter" },
		"name with My Number":  func(c *acme.Config) { c.Stations[0].ID = "123456789018" },
	} {
		c := w.enrolment.Config
		c.Provisioners, c.Stations = []acme.Provisioner{{Name: "helpdesk", Key: key}}, []acme.Station{{Actor: counter, Provisioner: "helpdesk"}}
		change(&c)
		if _, err := acme.New(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// The signing service does nothing that the handler has not authorised.
func TestNoSignatureWithoutAnOrder(t *testing.T) {
	w := sqlite(t)
	w.whenSigning(func() error { t.Error("signed"); return nil })
	draft := &x509.Certificate{Subject: pkix.Name{CommonName: counter.ID}, PublicKey: newKey().Public()}
	if _, err := acme.Service(w.enrolment).CreateCertificate(&casapi.CreateCertificateRequest{Template: draft}); err == nil {
		t.Error("created")
	}
	if _, err := acme.Service(w.enrolment).RenewCertificate(&casapi.RenewCertificateRequest{Template: draft}); err == nil {
		t.Error("renewed")
	}
}
