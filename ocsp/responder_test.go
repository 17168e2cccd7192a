package ocsp_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ocsp"
	xocsp "golang.org/x/crypto/ocsp"
)

// post sends octets as a request and returns the answer's octets and headers.
func (w *world) post(t testing.TB, der []byte) ([]byte, http.Header) {
	t.Helper()
	return read(t, must(http.Post(w.url, "application/ocsp-request", bytes.NewReader(der))))
}

func (w *world) get(t testing.TB, path string, header ...string) ([]byte, http.Header) {
	t.Helper()
	req := must(http.NewRequestWithContext(t.Context(), http.MethodGet, w.url, nil))
	req.URL.Opaque = "/ocsp" + path // as it is, not as package url would have it
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	return read(t, must(http.DefaultClient.Do(req)))
}

func read(t testing.TB, res *http.Response) ([]byte, http.Header) {
	t.Helper()
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode == http.StatusOK && res.Header.Get("Content-Type") != "application/ocsp-response" {
		t.Errorf("content type %q", res.Header.Get("Content-Type"))
	}
	res.Header.Set("status", res.Status[:3])
	return body, res.Header
}

// ask asks about serials of an authority, and checks the answer's signature.
func (w *world) ask(t testing.TB, a *authority, hash crypto.Hash, nonce []byte, serials ...jpki.Serial) *ocsp.Response {
	t.Helper()
	der, _ := w.post(t, must(must(ocsp.NewRequest(a.cert, hash, nonce, serials...)).Marshal()))
	r, err := ocsp.ParseResponse(der)
	if err != nil {
		t.Fatal(err)
	}
	if r.Status == ocsp.Successful {
		if err := r.Verify(ocsp.VerifyOptions{Issuer: a.cert, At: w.clock.now(), Nonce: nonce}); err != nil {
			t.Error(err)
		}
	}
	return r
}

func statusOf(t testing.TB, der []byte) ocsp.ResponseStatus {
	t.Helper()
	r, err := ocsp.ParseResponse(der)
	if err != nil {
		t.Fatal(err)
	}
	return r.Status
}

// Every kind of key, every state, checked by us and by x/crypto.
func TestAnswers(t *testing.T) {
	for _, keys := range []struct {
		name          string
		ca, responder func() crypto.Signer
		algorithm     x509.SignatureAlgorithm
	}{
		{"RSA by RSA", func() crypto.Signer { return rsaKey(0) }, func() crypto.Signer { return rsaKey(1) }, x509.SHA256WithRSA},
		{"P-256 by RSA", func() crypto.Signer { return rsaKey(0) }, p256, x509.ECDSAWithSHA256},
		{"P-256 by P-256", p256, p256, x509.ECDSAWithSHA256},
		{"P-384 by P-384", p384, p384, x509.ECDSAWithSHA384},
		{"RSA by P-384", p384, func() crypto.Signer { return rsaKey(1) }, x509.SHA256WithRSA},
	} {
		t.Run(keys.name, func(t *testing.T) {
			w := newWorld(t, keys.ca(), p384(), keys.responder(), now)
			producedAt, until := now.Truncate(time.Second), now.Truncate(time.Second).Add(5*time.Minute)
			for _, hash := range []crypto.Hash{crypto.SHA1, crypto.SHA256, crypto.SHA384} {
				for _, test := range []struct {
					serial jpki.Serial
					want   ocsp.Answer
					theirs int
				}{
					{w.good, ocsp.Answer{}, xocsp.Good},
					{w.hold, ocsp.Answer{Revoked: true, Reason: jpki.CertificateHold, RevokedAt: w.sinceHold}, xocsp.Revoked},
					{w.revoked, ocsp.Answer{Revoked: true, Reason: jpki.AffiliationChanged, RevokedAt: w.sinceRevoked}, xocsp.Revoked},
					{w.discarded, ocsp.Answer{Revoked: true, Reason: jpki.Unspecified, RevokedAt: w.sinceRevoked}, xocsp.Revoked},
					{w.never, ocsp.Answer{Unknown: true}, xocsp.Unknown},
				} {
					r := w.ask(t, w.first, hash, nil, test.serial)
					test.want.CertID = must(ocsp.NewCertID(w.first.cert, hash, test.serial))
					test.want.ThisUpdate, test.want.NextUpdate = producedAt, until
					got, err := r.Answer(w.first.cert, test.serial)
					if err != nil {
						t.Fatal(err)
					}
					if d := diff(test.want, got); d != "" {
						t.Error(d)
					}
					if !r.ProducedAt.Equal(producedAt) || r.Nonce != nil || len(r.Certificates) != 1 || r.ResponderName != nil {
						t.Errorf("produced %v, nonce %x, %d certificates, name %x", r.ProducedAt, r.Nonce, len(r.Certificates), r.ResponderName)
					}
					theirs, err := xocsp.ParseResponseForCert(r.Raw, &x509.Certificate{SerialNumber: test.serial.Big()}, w.first.cert)
					if err != nil {
						t.Fatal(err)
					}
					if theirs.Status != test.theirs || theirs.SignatureAlgorithm != keys.algorithm || theirs.IssuerHash != hash ||
						!theirs.ThisUpdate.Equal(producedAt) || !theirs.NextUpdate.Equal(until) || !theirs.ProducedAt.Equal(producedAt) ||
						!bytes.Equal(theirs.ResponderKeyHash, r.ResponderKeyHash) ||
						theirs.Status == xocsp.Revoked && (!theirs.RevokedAt.Equal(test.want.RevokedAt) || theirs.RevocationReason != int(test.want.Reason)) {
						t.Errorf("x/crypto reads %+v", theirs)
					}
				}
			}
		})
	}
}

func TestSeveralCertificatesAndNonce(t *testing.T) {
	w := newWorld(t, p256(), p256(), p256(), now)
	nonce := bytes.Repeat([]byte{0xab}, 128)
	serials := []jpki.Serial{w.never, w.good, w.hold, w.good}
	r := w.ask(t, w.first, crypto.SHA256, nonce, serials...)
	if !bytes.Equal(r.Nonce, nonce) {
		t.Errorf("nonce %x", r.Nonce)
	}
	var got []string
	for i, a := range r.Answers {
		if a.CertID.Serial != serials[i] {
			t.Errorf("answer %d is about another certificate", i)
		}
		got = append(got, answer(a))
	}
	if d := cmp.Diff([]string{"unknown", "good", "revoked", "good"}, got); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(map[string]uint64{"unknown": 1, "good": 2, "revoked": 1}, w.responder.Outcomes()); d != "" {
		t.Error(d)
	}
	hundred := make([]jpki.Serial, ocsp.MaxCertIDs)
	for i := range hundred {
		hundred[i] = w.good
	}
	if r := w.ask(t, w.first, crypto.SHA384, nil, hundred...); len(r.Answers) != ocsp.MaxCertIDs {
		t.Errorf("%d answers, status %v", len(r.Answers), r.Status)
	}
}

// The CertID comes back octet for octet, whatever form the client gave it, and what was never issued is unknown.
func TestCertIDIsEchoed(t *testing.T) {
	w := newWorld(t, p256(), p256(), p256(), now)
	own := must(ocsp.NewCertID(w.first.cert, crypto.SHA1, w.good))
	certID := func(algorithm, serial []byte) []byte {
		return seq(algorithm, octets(own.NameHash), octets(own.KeyHash), serial)
	}
	goodSerial := integer(w.good.Bytes()...)
	for name, test := range map[string]struct {
		id   []byte
		want string
	}{
		"with NULL":    {certID(seq(sha1OID, null), goodSerial), "good"},
		"without NULL": {certID(seq(sha1OID), goodSerial), "good"},
		"zero":         {certID(seq(sha1OID, null), integer(0)), "unknown"},
		"negative":     {certID(seq(sha1OID, null), integer(0xff)), "unknown"},
		"21 octets":    {certID(seq(sha1OID, null), integer(append([]byte{1}, make([]byte, 20)...)...)), "unknown"},
	} {
		der, _ := w.post(t, request([][]byte{test.id}))
		r := must(ocsp.ParseResponse(der))
		if r.Status != ocsp.Successful || answer(r.Answers[0]) != test.want || !bytes.Equal(r.Answers[0].CertID.Raw, test.id) {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

func TestGenerations(t *testing.T) {
	w := newWorld(t, p256(), p384(), p256(), now)
	if !bytes.Equal(w.first.cert.RawSubject, w.second.cert.RawSubject) {
		t.Fatal("the generations have different names")
	}
	foreign := newAuthority(jpki.IssuerID{CA: jpki.SignCA, Generation: 3}, p256(), now)
	// A number the second generation issued is not one of the first, though the name is the same.
	if a := must(w.ask(t, w.second, crypto.SHA256, nil, w.never).Answer(w.second.cert, w.never)); answer(a) != "good" {
		t.Errorf("issued by the second generation: %s", answer(a))
	}
	if a := must(w.ask(t, w.first, crypto.SHA256, nil, w.never).Answer(w.first.cert, w.never)); answer(a) != "unknown" {
		t.Errorf("not issued by the first generation: %s", answer(a))
	}
	r := w.ask(t, w.second, crypto.SHA256, nil, w.never)
	if err := r.Verify(ocsp.VerifyOptions{Issuer: w.first.cert, At: now}); err == nil {
		t.Error("the second generation's responder is believed about the first's certificates")
	}
	if _, err := r.Answer(w.first.cert, w.never); err == nil {
		t.Error("an answer about the second generation's certificate passes for one about the first's")
	}
	first := must(ocsp.NewCertID(w.first.cert, crypto.SHA256, w.good))
	second := must(ocsp.NewCertID(w.second.cert, crypto.SHA256, w.never))
	other := must(ocsp.NewCertID(foreign.cert, crypto.SHA256, w.good))
	mixed := first // the name of one and the key of nobody, and the other way round
	mixed.Raw = seq(seq(wrap(6, []byte{0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1}), null), octets(first.NameHash), octets(other.KeyHash), integer(1))
	wrongName := first
	wrongName.Raw = seq(seq(wrap(6, []byte{0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1}), null), octets(make([]byte, 32)), octets(first.KeyHash), integer(1))
	unknownHash := ocsp.CertID{Raw: seq(seq(otherOID), octets(first.NameHash), octets(first.KeyHash), integer(1))}
	for name, ids := range map[string][]ocsp.CertID{
		"foreign": {other}, "ours and foreign": {first, other}, "foreign and ours": {other, first}, "two generations": {first, second},
		"foreign key": {mixed}, "foreign name": {wrongName}, "unknown hash algorithm": {unknownHash},
	} {
		der, h := w.post(t, must((&ocsp.Request{CertIDs: ids}).Marshal()))
		if s := statusOf(t, der); s != ocsp.Unauthorized || h.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %v, %q", name, s, h.Get("Cache-Control"))
		}
	}
	if n := w.responder.Outcomes()["unauthorized"]; n != 7 {
		t.Errorf("counted %d unauthorized; want 7", n)
	}
}

// A suspension shows in the first answer that is produced a second later, with nothing running in the background.
func TestNoStaleGood(t *testing.T) {
	w := newWorld(t, p256(), p256(), p256(), now)
	if a := must(w.ask(t, w.first, crypto.SHA256, nil, w.good).Answer(w.first.cert, w.good)); answer(a) != "good" {
		t.Fatal(answer(a))
	}
	w.log.add(w.first, w.good, jpki.Status{State: jpki.Suspended, Reason: jpki.CertificateHold, Since: now.Truncate(time.Second), Version: 2})
	w.clock.advance(time.Second + time.Millisecond)
	if a := must(w.ask(t, w.first, crypto.SHA256, nil, w.good).Answer(w.first.cert, w.good)); answer(a) != "revoked" || a.Reason != jpki.CertificateHold {
		t.Errorf("after the suspension: %s %v", answer(a), a.Reason)
	}
	w.log.mu.Lock()
	w.log.broken = true
	w.log.mu.Unlock()
	if a := must(w.ask(t, w.first, crypto.SHA256, nil, w.hold).Answer(w.first.cert, w.hold)); answer(a) != "revoked" {
		t.Errorf("log down, view fresh: %s", answer(a))
	}
	w.clock.advance(time.Second + time.Millisecond)
	for name, serial := range map[string]jpki.Serial{"good": w.discarded, "revoked": w.hold, "never issued": w.never} {
		if r := w.ask(t, w.first, crypto.SHA256, nil, serial); r.Status != ocsp.TryLater {
			t.Errorf("log down, view old, %s: %v", name, r.Status)
		}
	}
}

func withStatuses(f statusesFunc) option { return func(_ *world, c *ocsp.Config) { c.Statuses = f } }

func TestTroubleBehind(t *testing.T) {
	for name, test := range map[string]struct {
		statuses statusesFunc
		want     ocsp.ResponseStatus
	}{
		"unavailable": {func(context.Context, jpki.CertID) (jpki.Status, time.Time, error) {
			return jpki.Status{}, time.Time{}, jpki.Errorf(jpki.Unavailable, "too old")
		}, ocsp.TryLater},
		"other error": {func(context.Context, jpki.CertID) (jpki.Status, time.Time, error) {
			return jpki.Status{}, time.Time{}, errors.New("bug")
		}, ocsp.InternalError},
		"no state": {func(context.Context, jpki.CertID) (jpki.Status, time.Time, error) {
			return jpki.Status{}, now, nil
		}, ocsp.InternalError},
		"state of tomorrow": {func(context.Context, jpki.CertID) (jpki.Status, time.Time, error) {
			return jpki.Status{State: "dormant"}, now, nil
		}, ocsp.InternalError},
		"view of tomorrow": {func(context.Context, jpki.CertID) (jpki.Status, time.Time, error) {
			return jpki.Status{State: jpki.Good}, now.Add(time.Hour), nil
		}, ocsp.Successful},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, p256(), p256(), p256(), now, withStatuses(test.statuses))
			r := w.ask(t, w.first, crypto.SHA256, nil, w.good)
			if r.Status != test.want {
				t.Errorf("%v; want %v", r.Status, test.want)
			}
			for _, a := range r.Answers {
				if a.ThisUpdate.After(now) {
					t.Errorf("this update %v is in the future", a.ThisUpdate)
				}
			}
			if test.want != ocsp.Successful && w.responder.Outcomes()[test.want.String()] != 1 {
				t.Errorf("outcomes %v", w.responder.Outcomes())
			}
		})
	}
}

// thisUpdate is the oldest view that an answer rests on.
func TestThisUpdateIsTheOldestView(t *testing.T) {
	var n int
	w := newWorld(t, p256(), p256(), p256(), now, withStatuses(func(context.Context, jpki.CertID) (jpki.Status, time.Time, error) {
		n++
		return jpki.Status{State: jpki.Good}, now.Add(time.Duration([]int{-1, -3, -2}[n-1]) * time.Second), nil
	}))
	r := w.ask(t, w.first, crypto.SHA256, nil, w.good, w.hold, w.revoked)
	for _, a := range r.Answers {
		if want := now.Add(-3 * time.Second).Truncate(time.Second); !a.ThisUpdate.Equal(want) || !a.NextUpdate.Equal(want.Add(5*time.Minute)) {
			t.Errorf("%v to %v; want from %v", a.ThisUpdate, a.NextUpdate, want)
		}
	}
}

// A process that was stopped between reading a status and signing does not send what it has.
func TestLate(t *testing.T) {
	var w *world
	good := func(context.Context, jpki.CertID) (jpki.Status, time.Time, error) {
		at := w.clock.now()
		w.clock.advance(time.Minute)
		return jpki.Status{State: jpki.Good}, at, nil
	}
	w = newWorld(t, p256(), p256(), p256(), now, withStatuses(good))
	if r := w.ask(t, w.first, crypto.SHA256, nil, w.good); r.Status != ocsp.TryLater {
		t.Errorf("one certificate: %v", r.Status)
	}
	if r := w.ask(t, w.first, crypto.SHA256, nil, w.good, w.hold); r.Status != ocsp.TryLater {
		t.Errorf("two certificates: %v", r.Status)
	}
	if d := cmp.Diff(map[string]uint64{"late": 2, "tryLater": 2}, w.responder.Outcomes()); d != "" {
		t.Error(d)
	}
}

func TestDelegateCertificateEnds(t *testing.T) {
	w := newWorld(t, p256(), p256(), p256(), now)
	end := w.delegates[0].Certificate.NotAfter
	w.clock.advance(end.Sub(now) - time.Minute)
	a := must(w.ask(t, w.first, crypto.SHA256, nil, w.good).Answer(w.first.cert, w.good))
	if !a.NextUpdate.Equal(end) {
		t.Errorf("next update %v; the certificate ends %v", a.NextUpdate, end)
	}
	w.clock.advance(time.Minute + time.Second)
	if r := w.ask(t, w.first, crypto.SHA256, nil, w.good); r.Status != ocsp.TryLater {
		t.Errorf("certificate has expired: %v", r.Status)
	}
	if n := w.responder.Outcomes()["delegateExpired"]; n != 1 {
		t.Errorf("delegateExpired %d", n)
	}
	w.clock.advance(-48 * time.Hour)
	if r := w.ask(t, w.first, crypto.SHA256, nil, w.good); r.Status != ocsp.TryLater {
		t.Errorf("certificate is not valid yet: %v", r.Status)
	}
}

// Roll-over while questions come in: each answer is by the old delegate or the new one.
func TestSetDelegates(t *testing.T) {
	w := newWorld(t, p256(), p256(), p256(), now)
	successor := w.first.delegate(p384())
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for ctx.Err() == nil {
				if r := w.ask(t, w.first, crypto.SHA256, nil, w.good); r.Status != ocsp.Successful {
					t.Error(r.Status)
					return
				}
			}
		})
	}
	if err := w.responder.SetDelegates([]ocsp.Delegate{successor}); err != nil {
		t.Fatal(err)
	}
	r := w.ask(t, w.first, crypto.SHA256, nil, w.good)
	stop()
	wg.Wait()
	if !r.Certificates[0].Equal(successor.Certificate) {
		t.Error("the old delegate still answers")
	}
	if r := w.ask(t, w.second, crypto.SHA256, nil, w.good); r.Status != ocsp.Unauthorized {
		t.Errorf("an issuer without delegate: %v", r.Status)
	}
	if err := w.responder.SetDelegates(nil); err == nil {
		t.Error("no delegate at all is accepted")
	}
	if r := w.ask(t, w.first, crypto.SHA256, nil, w.good); r.Status != ocsp.Successful {
		t.Errorf("after a refused change: %v", r.Status)
	}
}

// A lyingKey shows one public key and signs with another.
type lyingKey struct {
	crypto.Signer
	public crypto.PublicKey
}

func (k lyingKey) Public() crypto.PublicKey { return k.public }

func TestNewChecks(t *testing.T) {
	w := newWorld(t, p256(), p256(), p256(), now)
	key := p256()
	spoilt := func(spoil func(*x509.Certificate)) ocsp.Delegate {
		tmpl := w.first.delegateTemplate()
		spoil(tmpl)
		return ocsp.Delegate{Issuer: w.first.id, IssuerCertificate: w.first.cert, Certificate: w.first.issue(tmpl, key), Key: key}
	}
	proper := func() ocsp.Delegate { return spoilt(func(*x509.Certificate) {}) }
	for name, d := range map[string]ocsp.Delegate{
		"another key":             {Issuer: w.first.id, IssuerCertificate: w.first.cert, Certificate: proper().Certificate, Key: p256()},
		"a key that lies":         {Issuer: w.first.id, IssuerCertificate: w.first.cert, Certificate: proper().Certificate, Key: lyingKey{p256(), key.Public()}},
		"no key":                  {Issuer: w.first.id, IssuerCertificate: w.first.cert, Certificate: proper().Certificate},
		"no certificate":          {Issuer: w.first.id, IssuerCertificate: w.first.cert, Key: key},
		"no issuer":               {Issuer: w.first.id, Certificate: proper().Certificate, Key: key},
		"the other generation":    {Issuer: w.second.id, IssuerCertificate: w.second.cert, Certificate: proper().Certificate, Key: key},
		"issuer that is no CA":    {Issuer: w.first.id, IssuerCertificate: proper().Certificate, Certificate: proper().Certificate, Key: key},
		"the issuer's own":        {Issuer: w.first.id, IssuerCertificate: w.first.cert, Certificate: w.first.cert, Key: w.first.key},
		"no extended key usage":   spoilt(func(c *x509.Certificate) { c.ExtKeyUsage = nil }),
		"another ext. key usage":  spoilt(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} }),
		"no nocheck":              spoilt(func(c *x509.Certificate) { c.ExtraExtensions = nil }),
		"no digital signature":    spoilt(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }),
		"certification authority": spoilt(func(c *x509.Certificate) { c.IsCA = true }),
		"may sign certificates":   spoilt(func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign }),
		"critical unknown extension": spoilt(func(c *x509.Certificate) {
			c.ExtraExtensions = append(c.ExtraExtensions, noCheck)
			c.ExtraExtensions[1].Id = []int{1, 2, 3}
			c.ExtraExtensions[1].Critical = true
		}),
		"P-521": func() ocsp.Delegate {
			return w.first.delegate(must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader)))
		}(),
	} {
		if err := w.responder.SetDelegates([]ocsp.Delegate{d}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if err := w.responder.SetDelegates([]ocsp.Delegate{proper()}); err != nil {
		t.Errorf("a proper delegate: %v", err)
	}
	if err := w.responder.SetDelegates([]ocsp.Delegate{proper(), proper()}); err == nil {
		t.Error("two delegates for one issuer are accepted")
	}
	statuses := statusesFunc(func(context.Context, jpki.CertID) (jpki.Status, time.Time, error) { panic("not asked") })
	for name, cfg := range map[string]ocsp.Config{
		"no statuses":       {Delegates: w.delegates, Now: time.Now},
		"no clock":          {Delegates: w.delegates, Statuses: statuses},
		"no delegate":       {Statuses: statuses, Now: time.Now},
		"prefix with slash": {Delegates: w.delegates, Statuses: statuses, Now: time.Now, Prefix: "/ocsp/"},
		"relative prefix":   {Delegates: w.delegates, Statuses: statuses, Now: time.Now, Prefix: "ocsp"},
		"half a second":     {Delegates: w.delegates, Statuses: statuses, Now: time.Now, Validity: time.Second / 2},
		"cached for longer": {Delegates: w.delegates, Statuses: statuses, Now: time.Now, Validity: time.Minute, MaxAge: time.Hour},
		"late before begun": {Delegates: w.delegates, Statuses: statuses, Now: time.Now, Late: -1},
	} {
		if _, err := ocsp.New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestHTTP(t *testing.T) {
	w := newWorld(t, p256(), p256(), p256(), now)
	der := must(must(ocsp.NewRequest(w.first.cert, crypto.SHA256, nil, w.good)).Marshal())
	path := "/ocsp/" + base64.StdEncoding.EncodeToString(der)
	for _, test := range []struct {
		name, method, path, contentType string
		body                            io.Reader
		code                            int
		status                          ocsp.ResponseStatus // of a 200
	}{
		{"POST", "POST", "/ocsp", "application/ocsp-request", bytes.NewReader(der), 200, ocsp.Successful},
		{"POST with a slash", "POST", "/ocsp/", "application/ocsp-request", bytes.NewReader(der), 200, ocsp.Successful},
		{"POST with a query", "POST", "/ocsp?a=b", "application/ocsp-request", bytes.NewReader(der), 200, ocsp.Successful},
		{"POST without type", "POST", "/ocsp", "", bytes.NewReader(der), 200, ocsp.Successful},
		{"POST with parameter", "POST", "/ocsp", "Application/OCSP-Request; charset=binary", bytes.NewReader(der), 200, ocsp.Successful},
		{"POST of octets", "POST", "/ocsp", "application/octet-stream", bytes.NewReader(der), 200, ocsp.Successful},
		{"POST of a form", "POST", "/ocsp", "application/x-www-form-urlencoded", bytes.NewReader(der), 415, 0},
		{"POST of nonsense type", "POST", "/ocsp", "///", bytes.NewReader(der), 415, 0},
		{"POST below", "POST", path, "application/ocsp-request", bytes.NewReader(der), 404, 0},
		{"POST of nothing", "POST", "/ocsp", "application/ocsp-request", nil, 200, ocsp.MalformedRequest},
		{"POST of garbage", "POST", "/ocsp", "application/ocsp-request", strings.NewReader("hello"), 200, ocsp.MalformedRequest},
		{"POST beyond the limit", "POST", "/ocsp", "application/ocsp-request", io.LimitReader(endless{}, 100<<20), 200, ocsp.MalformedRequest},
		{"GET", "GET", path, "", nil, 200, ocsp.Successful},
		{"GET with a query", "GET", path + "?cache=no", "", nil, 200, ocsp.Successful},
		{"GET of nothing", "GET", "/ocsp", "", nil, 200, ocsp.MalformedRequest},
		{"GET of garbage", "GET", "/ocsp/hello", "", nil, 200, ocsp.MalformedRequest},
		{"GET beyond the limit", "GET", "/ocsp/MIIB" + strings.Repeat("A", 300<<10), "", nil, 200, ocsp.MalformedRequest},
		{"HEAD", "HEAD", path, "", nil, 405, 0},
		{"PUT", "PUT", "/ocsp", "application/ocsp-request", bytes.NewReader(der), 405, 0},
		{"elsewhere", "GET", "/ocspx/" + path, "", nil, 404, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			req := must(http.NewRequestWithContext(t.Context(), test.method, strings.TrimSuffix(w.url, "/ocsp")+test.path, test.body))
			if test.contentType != "" {
				req.Header.Set("Content-Type", test.contentType)
			}
			res := must(http.DefaultClient.Do(req))
			body, h := read(t, res)
			if res.StatusCode != test.code {
				t.Fatalf("status %s; want %d", res.Status, test.code)
			}
			switch test.code {
			case 200:
				if s := statusOf(t, body); s != test.status {
					t.Errorf("%v; want %v", s, test.status)
				}
			case 405, 415:
				var p jpki.ProblemDetails
				if test.method != http.MethodHead && (json.Unmarshal(body, &p) != nil || p.Status != test.code) || h.Get("Content-Type") != "application/problem+json" {
					t.Errorf("%s %s", h.Get("Content-Type"), body)
				}
				if test.code == 405 && h.Get("Allow") != "GET, POST" {
					t.Errorf("Allow: %q", h.Get("Allow"))
				}
			}
			if test.status != ocsp.Successful && test.code == 200 && h.Get("Cache-Control") != "no-store" {
				t.Errorf("Cache-Control: %q", h.Get("Cache-Control"))
			}
		})
	}
	got := w.responder.Outcomes()
	want := map[string]uint64{"good": 8, "malformedRequest": 6, "unsupported-media-type": 2, "not-found": 1, "method-not-allowed": 2}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	// Mounted where it does not belong, it still says so.
	rec := httptest.NewRecorder()
	w.responder.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/crl", nil))
	if rec.Code != http.StatusNotFound {
		t.Errorf("outside the prefix: %d", rec.Code)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestCaching(t *testing.T) {
	w := newWorld(t, p256(), p256(), p256(), now, withNear)
	path := func(nonce []byte) string {
		return "/" + base64.StdEncoding.EncodeToString(must(must(ocsp.NewRequest(w.first.cert, crypto.SHA256, nonce, w.good)).Marshal()))
	}
	body, h := w.get(t, path(nil))
	for name, want := range map[string]string{
		"ETag":          fmt.Sprintf("%q", fmt.Sprintf("%x", sha256.Sum256(body))),
		"Cache-Control": "max-age=60, public, no-transform, must-revalidate",
		"Last-Modified": "Wed, 01 Apr 2026 03:00:00 GMT",
		"Expires":       "Wed, 01 Apr 2026 03:05:00 GMT",
	} {
		if h.Get(name) != want {
			t.Errorf("%s: %q; want %q", name, h.Get(name), want)
		}
	}
	tag := h.Get("ETag")
	modified := func(want string, header ...string) http.Header {
		t.Helper()
		body, h := w.get(t, path(nil), header...)
		if h.Get("status") != want || (want == "304") != (len(body) == 0) {
			t.Errorf("%v: %s, body of %d", header, h.Get("status"), len(body))
		}
		return h
	}
	h = modified("304", "If-None-Match", `"other", `+tag)
	if h.Get("ETag") != tag || h.Get("Cache-Control") != "max-age=60, public, no-transform, must-revalidate" {
		t.Errorf("304 with %v", h)
	}
	modified("200", "If-None-Match", `"other"`)
	modified("304", "If-None-Match", "*")
	modified("304", "If-Modified-Since", "Wed, 01 Apr 2026 03:00:01 GMT")
	modified("200", "If-Modified-Since", "Wed, 01 Apr 2026 03:00:00 GMT") // within that second there may have been another
	modified("200", "If-Modified-Since", "Wed, 01 Apr 2026 03:00:01 GMT", "If-None-Match", `"other"`)
	w.clock.advance(149 * time.Second)
	modified("304", "If-None-Match", tag)
	w.clock.advance(time.Second) // half of its life: it is served for the last time while its successor is made
	modified("304", "If-None-Match", tag)
	for w.responder.Sources()["signed"] < 2 {
		time.Sleep(time.Millisecond)
	}
	for h.Get("ETag") == tag {
		_, h = w.get(t, path(nil))
	}
	if h.Get("Last-Modified") != "Wed, 01 Apr 2026 03:02:29 GMT" { // the view was a second old
		t.Errorf("Last-Modified of the successor: %q", h.Get("Last-Modified"))
	}
	modified("200", "If-None-Match", tag)
	tag = h.Get("ETag")
	modified("304", "If-None-Match", tag)
	// A change of status makes a new answer at once.
	w.log.add(w.first, w.good, jpki.Status{State: jpki.Suspended, Reason: jpki.CertificateHold, Since: now, Version: 2})
	w.clock.advance(1100 * time.Millisecond)
	modified("200", "If-None-Match", tag)

	// Near the end of the delegate's certificate nothing outlives it.
	end := w.delegates[0].Certificate.NotAfter
	w.clock.advance(end.Sub(w.clock.now()) - 10*time.Second)
	_, h = w.get(t, path(nil))
	if h.Get("Cache-Control") != "max-age=5, public, no-transform, must-revalidate" || h.Get("Expires") != end.Format(http.TimeFormat) {
		t.Errorf("ten seconds before the end: %q, %q", h.Get("Cache-Control"), h.Get("Expires"))
	}

	// Signed answers never say no-store (RFC 9919 §7.2).
	for name, test := range map[string]struct {
		h    http.Header
		want string
	}{
		"GET with nonce": {second(w.get(t, path([]byte("0123456789abcdef")))), "max-age=0, private, no-transform, must-revalidate"},
		"POST":           {second(w.post(t, must(must(ocsp.NewRequest(w.first.cert, crypto.SHA256, nil, w.good)).Marshal()))), "max-age=5, public, no-transform, must-revalidate"},
	} {
		if test.h.Get("Cache-Control") != test.want {
			t.Errorf("%s: %v", name, test.h)
		}
	}
}

// What cannot change any more may be kept for longer than what can.
func TestMaxAge(t *testing.T) {
	w := newWorld(t, p256(), p256(), p256(), now)
	for serial, want := range map[jpki.Serial]string{w.good: "60", w.hold: "60", w.revoked: "150", w.discarded: "150", w.never: "60"} {
		_, h := w.post(t, must(must(ocsp.NewRequest(w.first.cert, crypto.SHA256, nil, serial)).Marshal()))
		if got := h.Get("Cache-Control"); got != "max-age="+want+", public, no-transform, must-revalidate" {
			t.Errorf("%q; want %s", got, want)
		}
	}
}

func second[A, B any](_ A, b B) B { return b }
