package ocsp_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ocsp"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
	xocsp "golang.org/x/crypto/ocsp"
)

func TestVerify(t *testing.T) {
	at := time.Now()
	first := newAuthority(jpki.IssuerID{CA: jpki.SignCA, Generation: 1}, rsaKey(0), at)
	second := newAuthority(jpki.IssuerID{CA: jpki.SignCA, Generation: 2}, p384(), at)
	key := p256()
	spoilt := func(spoil func(*x509.Certificate)) *x509.Certificate {
		tmpl := first.delegateTemplate()
		spoil(tmpl)
		return first.issue(tmpl, key)
	}
	proper := spoilt(func(*x509.Certificate) {})
	strange := proper.Subject
	strange.CommonName = "another responder"
	renamed := *first.cert
	renamed.RawSubject, renamed.Subject = nil, strange
	underAnotherName := must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, first.delegateTemplate(), &renamed, key.Public(), first.key))))
	for _, test := range []struct {
		name      string
		responder *x509.Certificate
		key       crypto.Signer
		embedded  *x509.Certificate
		issuer    *x509.Certificate // verified against; nil means first
		at        time.Time         // zero means now
		ok        bool
	}{
		{name: "delegate", responder: proper, key: key, embedded: proper, ok: true},
		{name: "issuer itself", responder: first.cert, key: first.key, ok: true},
		{name: "issuer itself, embedded", responder: first.cert, key: first.key, embedded: first.cert, ok: true},
		{name: "delegate without key usage", responder: proper, key: key, embedded: spoilt(func(c *x509.Certificate) { c.KeyUsage = 0 }), ok: true},
		{name: "delegate not embedded", responder: proper, key: key},
		{name: "delegate with a stranger's name", responder: proper, key: key, embedded: spoilt(func(c *x509.Certificate) { c.Subject = strange })},
		{name: "without OCSPSigning", responder: proper, key: key, embedded: spoilt(func(c *x509.Certificate) { c.ExtKeyUsage = nil })},
		{name: "for any purpose", responder: proper, key: key, embedded: spoilt(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} })},
		{name: "without nocheck", responder: proper, key: key, embedded: spoilt(func(c *x509.Certificate) { c.ExtraExtensions = nil })},
		{name: "with nocheck that is none", responder: proper, key: key, embedded: spoilt(func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: noCheck.Id, Value: []byte{1, 1, 0}}}
		})},
		{name: "not for digital signatures", responder: proper, key: key, embedded: spoilt(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageContentCommitment })},
		{name: "certification authority", responder: proper, key: key, embedded: spoilt(func(c *x509.Certificate) { c.IsCA = true })},
		{name: "expired", responder: proper, key: key, embedded: proper, at: proper.NotAfter.Add(time.Second)},
		{name: "not valid yet", responder: proper, key: key, embedded: spoilt(func(c *x509.Certificate) { c.NotBefore = at.Add(time.Minute) })},
		{name: "delegate of the other generation", responder: proper, key: key, embedded: second.issue(second.delegateTemplate(), key)},
		{name: "answer of the other generation", responder: proper, key: key, embedded: proper, issuer: second.cert},
		{name: "the other generation itself", responder: second.cert, key: second.key},
		{name: "the other generation itself, embedded", responder: second.cert, key: second.key, embedded: second.cert},
		{name: "issued under another name", responder: proper, key: key, embedded: underAnotherName},
		{name: "subscriber", responder: proper, key: key, embedded: first.issue(&x509.Certificate{
			SerialNumber: newSerial().Big(), Subject: proper.Subject,
			NotBefore: at.Add(-time.Hour), NotAfter: at.Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		}, key)},
		{name: "signed by another key", responder: proper, key: p256(), embedded: proper},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.at.IsZero() {
				test.at = at.Add(time.Second)
			}
			if test.issuer == nil {
				test.issuer = first.cert
			}
			tmpl := xocsp.Response{Status: xocsp.Good, SerialNumber: newSerial().Big(), ThisUpdate: at, NextUpdate: at.Add(time.Hour), Certificate: test.embedded}
			r, err := ocsp.ParseResponse(must(xocsp.CreateResponse(test.issuer, test.responder, tmpl, test.key)))
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Verify(ocsp.VerifyOptions{Issuer: test.issuer, At: test.at}); (err == nil) != test.ok {
				t.Errorf("%v; believe: %v", err, test.ok)
			}
		})
	}
}

var (
	sha256RSA = seq(wrap(asn1.OBJECT_IDENTIFIER, []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11}), null)
	sha1RSA   = seq(wrap(asn1.OBJECT_IDENTIFIER, []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 5}), null)
)

// basic wraps what may or may not be a BasicOCSPResponse.
func basic(parts ...[]byte) []byte {
	return seq(wrap(asn1.ENUM, []byte{0}), tagged(0, seq(wrap(asn1.OBJECT_IDENTIFIER, []byte{0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1}), octets(seq(parts...)))))
}

func bits(b []byte) []byte { return wrap(asn1.BIT_STRING, []byte{0}, b) }

func date(t time.Time) []byte {
	return build(func(b *cryptobyte.Builder) { b.AddASN1GeneralizedTime(t.UTC()) })
}

// single is a SingleResponse; status is its CHOICE.
func single(id ocsp.CertID, status []byte, more ...[]byte) []byte {
	return seq(append([][]byte{id.Raw, status, date(now)}, more...)...)
}

// signedBy makes the response data of an answer and signs it with an RSA key.
func signedBy(key crypto.Signer, hash crypto.Hash, algorithm, responderID []byte, producedAt time.Time, certs []byte, singles ...[]byte) []byte {
	tbs := seq(responderID, date(producedAt), seq(singles...))
	h := hash.New()
	h.Write(tbs)
	signature := must(rsa.SignPKCS1v15(nil, key.(*rsa.PrivateKey), hash, h.Sum(nil)))
	parts := [][]byte{tbs, algorithm, bits(signature)}
	if certs != nil {
		parts = append(parts, tagged(0, seq(certs)))
	}
	return basic(parts...)
}

var (
	goodStatus    = []byte{0x80, 0}
	unknownStatus = []byte{0x82, 0}
)

func revokedStatus(reason byte) []byte {
	return tagged(1, date(now), tagged(0, wrap(asn1.ENUM, []byte{reason})))
}

func TestVerifyByHand(t *testing.T) {
	a := newAuthority(jpki.IssuerID{CA: jpki.SignCA, Generation: 1}, rsaKey(0), now)
	d := a.delegate(rsaKey(1))
	// Same name as the delegate, made by the issuer, but for another key and another purpose: chaff.
	chaff := a.issue(&x509.Certificate{SerialNumber: newSerial().Big(), Subject: d.Certificate.Subject, NotBefore: now, NotAfter: now.Add(time.Hour)}, p256())
	id := must(ocsp.NewCertID(a.cert, crypto.SHA256, newSerial()))
	answer := single(id, goodStatus)
	byName := func(c *x509.Certificate) []byte { return tagged(1, c.RawSubject) }
	byKey := func(k crypto.Signer) []byte {
		hash := sha1.Sum(x509.MarshalPKCS1PublicKey(k.Public().(*rsa.PublicKey)))
		return tagged(2, octets(hash[:]))
	}
	certs := func(list ...*x509.Certificate) (out []byte) {
		for _, c := range list {
			out = append(out, c.Raw...)
		}
		return out
	}
	for _, test := range []struct {
		name string
		der  []byte
		ok   bool
	}{
		{"issuer by key", signedBy(a.key, crypto.SHA256, sha256RSA, byKey(a.key), now, nil, answer), true},
		{"issuer by name", signedBy(a.key, crypto.SHA256, sha256RSA, byName(a.cert), now, nil, answer), true},
		{"delegate by key", signedBy(d.Key, crypto.SHA256, sha256RSA, byKey(d.Key), now, certs(d.Certificate), answer), true},
		{"delegate by name", signedBy(d.Key, crypto.SHA256, sha256RSA, byName(d.Certificate), now, certs(d.Certificate), answer), true},
		{"delegate after chaff", signedBy(d.Key, crypto.SHA256, sha256RSA, byName(d.Certificate), now, certs(a.cert, chaff, d.Certificate), answer), true},
		{"delegate before chaff", signedBy(d.Key, crypto.SHA256, sha256RSA, byName(d.Certificate), now, certs(d.Certificate, chaff), answer), true},
		{"delegate, ID of the issuer's key", signedBy(d.Key, crypto.SHA256, sha256RSA, byKey(a.key), now, certs(d.Certificate), answer), false},
		{"delegate, ID of the issuer's name", signedBy(d.Key, crypto.SHA256, sha256RSA, byName(a.cert), now, certs(d.Certificate), answer), false},
		{"delegate, ID of nobody", signedBy(d.Key, crypto.SHA256, sha256RSA, tagged(2, octets(make([]byte, 20))), now, certs(d.Certificate), answer), false},
		{"SHA-1", signedBy(a.key, crypto.SHA1, sha1RSA, byKey(a.key), now, nil, answer), false},
		{"SHA-1 under the name of SHA-256", signedBy(a.key, crypto.SHA1, sha256RSA, byKey(a.key), now, nil, answer), false},
		{"produced within the skew", signedBy(a.key, crypto.SHA256, sha256RSA, byKey(a.key), now.Add(time.Minute), nil, answer), true},
		{"produced in the future", signedBy(a.key, crypto.SHA256, sha256RSA, byKey(a.key), now.Add(2*time.Minute), nil, answer), false},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, err := ocsp.ParseResponse(test.der)
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Verify(ocsp.VerifyOptions{Issuer: a.cert, At: now, Skew: time.Minute}); (err == nil) != test.ok {
				t.Errorf("%v; believe: %v", err, test.ok)
			}
		})
	}
	r := must(ocsp.ParseResponse(signedBy(a.key, crypto.SHA256, sha256RSA, byKey(a.key), now, nil, answer)))
	for name, o := range map[string]ocsp.VerifyOptions{
		"no issuer": {At: now}, "no time": {Issuer: a.cert}, "a nonce was sent": {Issuer: a.cert, At: now, Nonce: []byte{1}},
	} {
		if err := r.Verify(o); err == nil {
			t.Errorf("%s: believed", name)
		}
	}
	for _, body := range [][]byte{xocsp.UnauthorizedErrorResponse, xocsp.MalformedRequestErrorResponse, xocsp.InternalErrorErrorResponse, xocsp.TryLaterErrorResponse, xocsp.SigRequredErrorResponse} {
		r, err := ocsp.ParseResponse(body)
		if err != nil || r.Status == ocsp.Successful || r.Verify(ocsp.VerifyOptions{Issuer: a.cert, At: now}) == nil {
			t.Errorf("%x: %v, %v", body, r, err)
		}
	}
}

func TestNonceMustBeEchoed(t *testing.T) {
	w := newWorld(t, p256(), p256(), p256(), now)
	r := w.ask(t, w.first, crypto.SHA256, []byte("0123456789abcdef"), w.good)
	for _, nonce := range []string{"0123456789abcdeg", "0123456789abcde", ""} {
		if err := r.Verify(ocsp.VerifyOptions{Issuer: w.first.cert, At: now, Nonce: []byte(nonce)}); err == nil {
			t.Errorf("nonce %q passes", nonce)
		}
	}
	if err := r.Verify(ocsp.VerifyOptions{Issuer: w.first.cert, At: now}); err != nil {
		t.Errorf("nobody asked for the nonce: %v", err)
	}
}

// No bit of a response can be changed.
func TestTampering(t *testing.T) {
	w := newWorld(t, rsaKey(0), p256(), p256(), now)
	nonce := []byte("0123456789abcdef")
	der := w.ask(t, w.first, crypto.SHA256, nonce, w.revoked).Raw
	for i := range der {
		bad := bytes.Clone(der)
		bad[i] ^= 1 << (i % 8)
		if r, err := ocsp.ParseResponse(bad); err == nil && r.Verify(ocsp.VerifyOptions{Issuer: w.first.cert, At: now, Nonce: nonce}) == nil {
			t.Errorf("octet %d of %d changed from %02x to %02x: still believed", i, len(der), der[i], bad[i])
		}
		if _, err := ocsp.ParseResponse(der[:i]); err == nil {
			t.Errorf("cut to %d octets: accepted", i)
		}
	}
	if _, err := ocsp.ParseResponse(append(bytes.Clone(der), 0)); err == nil {
		t.Error("an octet behind: accepted")
	}
}

func TestParseResponseRefuses(t *testing.T) {
	a := newAuthority(jpki.IssuerID{CA: jpki.SignCA, Generation: 1}, p256(), now)
	id := must(ocsp.NewCertID(a.cert, crypto.SHA256, newSerial()))
	key := tagged(2, octets(make([]byte, 20)))
	good := single(id, goodStatus)
	with := func(parts ...[]byte) []byte { return basic(seq(parts...), sha256RSA, bits(nil)) }
	many := func(n int) []byte {
		var list [][]byte
		for range n {
			list = append(list, good)
		}
		return seq(list...)
	}
	certs := func(n int) []byte { return tagged(0, seq(bytes.Repeat(a.cert.Raw, n))) }
	extensions := func(list ...[]byte) []byte { return tagged(1, seq(list...)) }
	for _, test := range []struct {
		name string
		der  []byte
		ok   bool
	}{
		{"plain", with(key, date(now), many(1)), true},
		{"100 answers", with(key, date(now), many(100)), true},
		{"101 answers", with(key, date(now), many(101)), false},
		{"no answer", with(key, date(now), many(0)), false},
		{"8 certificates", basic(seq(key, date(now), many(1)), sha256RSA, bits(nil), certs(8)), true},
		{"9 certificates", basic(seq(key, date(now), many(1)), sha256RSA, bits(nil), certs(9)), false},
		{"certificate that is none", basic(seq(key, date(now), many(1)), sha256RSA, bits(nil), tagged(0, seq(seq()))), false},
		{"signature of seven bits", basic(seq(key, date(now), many(1)), sha256RSA, wrap(asn1.BIT_STRING, []byte{1, 0})), false},
		{"too long", with(key, date(now), many(1), extensions(seq(otherOID, octets(make([]byte, ocsp.MaxResponseBytes))))), false},
		{"version 2", with(tagged(0, integer(1)), key, date(now), many(1)), false},
		{"key hash of 19", with(tagged(2, octets(make([]byte, 19))), date(now), many(1)), false},
		{"responder of a third kind", with(tagged(3, octets(nil)), date(now), many(1)), false},
		{"time with fractions", with(key, wrap(asn1.GeneralizedTime, []byte("20260401030000.5Z")), many(1)), false},
		{"time of a zone", with(key, wrap(asn1.GeneralizedTime, []byte("20260401120000+0900")), many(1)), false},
		{"nonce", with(key, date(now), many(1), extensions(nonceExt(128))), true},
		{"long nonce", with(key, date(now), many(1), extensions(nonceExt(129))), false},
		{"two nonces", with(key, date(now), many(1), extensions(nonceExt(8), nonceExt(9))), false},
		{"critical extension", with(key, date(now), many(1), extensions(seq(otherOID, yes, octets(nil)))), false},
		{"critical extension of one answer", with(key, date(now), seq(single(id, goodStatus, extensions(seq(otherOID, yes, octets(nil)))))), false},
		{"extension of one answer", with(key, date(now), seq(single(id, goodStatus, extensions(seq(otherOID, octets(nil)))))), true},
		{"good with contents", with(key, date(now), seq(single(id, []byte{0x80, 1, 0}))), false},
		{"unknown with contents", with(key, date(now), seq(single(id, []byte{0x82, 1, 0}))), false},
		{"status of a fourth kind", with(key, date(now), seq(single(id, []byte{0x83, 0}))), false},
		{"reason 6", with(key, date(now), seq(single(id, revokedStatus(6)))), true},
		{"reason 7", with(key, date(now), seq(single(id, revokedStatus(7)))), false},
		{"reason 10", with(key, date(now), seq(single(id, revokedStatus(10)))), true},
		{"reason 11", with(key, date(now), seq(single(id, revokedStatus(11)))), false},
		{"reason -1", with(key, date(now), seq(single(id, revokedStatus(0xff)))), false},
		{"refusal with an answer", seq(wrap(asn1.ENUM, []byte{6}), tagged(0, seq())), false},
		{"success without", seq(wrap(asn1.ENUM, []byte{0})), false},
		{"status 4", seq(wrap(asn1.ENUM, []byte{4})), false},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := ocsp.ParseResponse(test.der); (err == nil) != test.ok {
				t.Errorf("error %v; accept: %v", err, test.ok)
			}
		})
	}
}

// Of several answers about one certificate the worst counts.
func TestWorstAnswer(t *testing.T) {
	a := newAuthority(jpki.IssuerID{CA: jpki.SignCA, Generation: 1}, p256(), now)
	serial := newSerial()
	one, two := must(ocsp.NewCertID(a.cert, crypto.SHA1, serial)), must(ocsp.NewCertID(a.cert, crypto.SHA256, serial))
	other := must(ocsp.NewCertID(a.cert, crypto.SHA256, newSerial()))
	for _, test := range []struct {
		want     string
		statuses [][]byte
	}{
		{"good", [][]byte{goodStatus, goodStatus}},
		{"unknown", [][]byte{goodStatus, unknownStatus}},
		{"unknown", [][]byte{unknownStatus, goodStatus}},
		{"revoked", [][]byte{goodStatus, revokedStatus(1)}},
		{"revoked", [][]byte{revokedStatus(1), goodStatus}},
		{"revoked", [][]byte{unknownStatus, revokedStatus(1)}},
		{"revoked", [][]byte{revokedStatus(1), unknownStatus}},
	} {
		der := basic(seq(tagged(2, octets(make([]byte, 20))), date(now), seq(single(other, revokedStatus(0)), single(one, test.statuses[0]), single(two, test.statuses[1]))), sha256RSA, bits(nil))
		r := must(ocsp.ParseResponse(der))
		if got, err := r.Answer(a.cert, serial); err != nil || answer(got) != test.want {
			t.Errorf("%x: %s, %v; want %s", test.statuses, answer(got), err, test.want)
		}
		if _, err := r.Answer(a.cert, newSerial()); err == nil {
			t.Error("an answer about another serial")
		}
		if _, err := r.Answer(a.cert, jpki.Serial{}); err == nil {
			t.Error("an answer about no serial")
		}
	}
}

func TestFresh(t *testing.T) {
	const skew = 30 * time.Second
	from, until := now, now.Add(5*time.Minute)
	for _, test := range []struct {
		name       string
		this, next time.Time
		at         time.Time
		maxAge     time.Duration
		fresh      bool
	}{
		{"now", from, until, now, 0, true},
		{"ahead by the skew", from, until, now.Add(-skew), 0, true},
		{"ahead by more", from, until, now.Add(-skew - 1), 0, false},
		{"at the end and the skew", from, until, until.Add(skew), 0, true},
		{"beyond", from, until, until.Add(skew + 1), 0, false},
		{"age", from, until, now.Add(time.Minute + skew), time.Minute, true},
		{"old", from, until, now.Add(time.Minute + skew + 1), time.Minute, false},
		{"no end", from, time.Time{}, now, 0, false},
		{"no end but an age", from, time.Time{}, now, time.Minute, true},
		{"no end and too old", from, time.Time{}, now.Add(time.Minute + skew + 1), time.Minute, false},
		{"ends before it begins", from, from.Add(-1), now, 0, false},
	} {
		a := ocsp.Answer{ThisUpdate: test.this, NextUpdate: test.next}
		if err := a.Fresh(test.at, skew, test.maxAge); (err == nil) != test.fresh {
			t.Errorf("%s: %v; fresh: %v", test.name, err, test.fresh)
		}
	}
}

func TestResponseStatusString(t *testing.T) {
	for s, want := range map[ocsp.ResponseStatus]string{
		ocsp.Successful: "successful", ocsp.MalformedRequest: "malformedRequest", ocsp.InternalError: "internalError",
		ocsp.TryLater: "tryLater", ocsp.SigRequired: "sigRequired", ocsp.Unauthorized: "unauthorized", 4: "status 4",
	} {
		if s.String() != want {
			t.Errorf("%d: %q; want %q", s, s, want)
		}
	}
}

// What we accept, x/crypto reads the same way if it reads it at all; and what an answer says survives being written.
func FuzzParseResponse(f *testing.F) {
	w := newWorld(f, p256(), p256(), p256(), now)
	for _, s := range []jpki.Serial{w.good, w.hold, w.never} {
		f.Add(w.ask(f, w.first, crypto.SHA256, nil, s).Raw)
	}
	f.Add(w.ask(f, w.first, crypto.SHA1, []byte("nonce"), w.good, w.hold).Raw)
	f.Add(xocsp.TryLaterErrorResponse)
	f.Fuzz(func(t *testing.T, der []byte) {
		r, err := ocsp.ParseResponse(der)
		if err != nil {
			return
		}
		if r.Status != ocsp.Successful {
			if len(der) != 5 || len(r.Answers) != 0 {
				t.Errorf("a refusal of %d octets with %d answers", len(der), len(r.Answers))
			}
			return
		}
		if (r.ResponderName == nil) == (r.ResponderKeyHash == nil) || len(r.Answers) == 0 || len(r.Answers) > ocsp.MaxCertIDs {
			t.Errorf("name %x, key hash %x, %d answers", r.ResponderName, r.ResponderKeyHash, len(r.Answers))
		}
		if r.Verify(ocsp.VerifyOptions{Issuer: w.second.cert, At: now}) == nil {
			t.Error("believed about an authority that signed nothing")
		}
		for _, a := range r.Answers {
			if !bytes.Contains(der, a.CertID.Raw) || a.Revoked && a.Unknown || !a.Revoked && (a.Reason != 0 || !a.RevokedAt.IsZero()) {
				t.Errorf("answer %+v", a)
			}
		}
		if len(r.Answers) != 1 {
			return
		}
		theirs, err := xocsp.ParseResponse(der, nil)
		if err != nil {
			return
		}
		a := r.Answers[0]
		if want := map[int]string{xocsp.Good: "good", xocsp.Revoked: "revoked", xocsp.Unknown: "unknown"}[theirs.Status]; answer(a) != want ||
			!a.ThisUpdate.Equal(theirs.ThisUpdate) || !a.NextUpdate.Equal(theirs.NextUpdate) || !r.ProducedAt.Equal(theirs.ProducedAt) ||
			!a.RevokedAt.Equal(theirs.RevokedAt) || int(a.Reason) != theirs.RevocationReason ||
			!a.CertID.Serial.IsZero() && a.CertID.Serial.Big().Cmp(theirs.SerialNumber) != 0 {
			t.Errorf("we read %+v, x/crypto %+v", a, theirs)
		}
	})
}
