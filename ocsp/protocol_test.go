package ocsp_test

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ocsp"
	"golang.org/x/crypto/cryptobyte/asn1"
	xocsp "golang.org/x/crypto/ocsp"
)

var (
	preferredOID = wrap(asn1.OBJECT_IDENTIFIER, []byte{0x2b, 6, 1, 5, 5, 7, 0x30, 1, 8})
	rsa256OID    = wrap(asn1.OBJECT_IDENTIFIER, []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 0x0b})
	ecdsa256OID  = wrap(asn1.OBJECT_IDENTIFIER, []byte{0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2})
	ecKeyOID     = wrap(asn1.OBJECT_IDENTIFIER, []byte{0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1})
	p256OID      = wrap(asn1.OBJECT_IDENTIFIER, []byte{0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7})
	p384OID      = wrap(asn1.OBJECT_IDENTIFIER, []byte{0x2b, 0x81, 4, 0, 0x22})
)

// Of two delegates of one issuer the client's first choice signs, else the default (RFC 6960 §4.4.7).
func TestPreferredSignatureAlgorithms(t *testing.T) {
	w := newWorld(t, p256(), p256(), rsaKey(1), now, withNear, func(w *world, c *ocsp.Config) {
		c.Delegates = append(c.Delegates, w.first.delegate(p256()))
	})
	id := must(ocsp.NewCertID(w.first.cert, crypto.SHA256, w.good)).Raw
	prefer := func(list ...[]byte) []byte {
		return request([][]byte{id}, exts(seq(preferredOID, octets(seq(list...)))))
	}
	for name, test := range map[string]struct {
		der  []byte
		want x509.SignatureAlgorithm
		bad  bool
	}{
		"none":              {der: request([][]byte{id}), want: x509.SHA256WithRSA},
		"ECDSA":             {der: prefer(seq(seq(ecdsa256OID))), want: x509.ECDSAWithSHA256},
		"RSA":               {der: prefer(seq(seq(rsa256OID, null))), want: x509.SHA256WithRSA},
		"ECDSA before RSA":  {der: prefer(seq(seq(ecdsa256OID)), seq(seq(rsa256OID, null))), want: x509.ECDSAWithSHA256},
		"unknown, ECDSA":    {der: prefer(seq(seq(otherOID)), seq(seq(ecdsa256OID))), want: x509.ECDSAWithSHA256},
		"unknown":           {der: prefer(seq(seq(otherOID))), want: x509.SHA256WithRSA},
		"on P-256":          {der: prefer(seq(seq(ecdsa256OID), seq(ecKeyOID, p256OID))), want: x509.ECDSAWithSHA256},
		"on P-384":          {der: prefer(seq(seq(ecdsa256OID), seq(ecKeyOID, p384OID))), want: x509.SHA256WithRSA},
		"with a nonce":      {der: request([][]byte{id}, exts(nonceExt(16), seq(preferredOID, octets(seq(seq(seq(ecdsa256OID))))))), want: x509.ECDSAWithSHA256},
		"two certificates":  {der: request([][]byte{id, id}, exts(seq(preferredOID, octets(seq(seq(seq(ecdsa256OID))))))), want: x509.ECDSAWithSHA256},
		"not a list":        {der: request([][]byte{id}, exts(seq(preferredOID, octets(null)))), bad: true},
		"something behind":  {der: prefer(seq(seq(ecdsa256OID), seq(ecKeyOID), null)), bad: true},
		"seventeen of them": {der: prefer(bytes.Split(bytes.Repeat(append(seq(seq(otherOID)), 0xee), 17), []byte{0xee})...), bad: true},
	} {
		for range 2 { // the second time it is kept
			reply := w.responder.Exchange(t.Context(), &ocsp.Query{Request: test.der})
			if test.bad {
				if s := statusOf(t, reply.Body); s != ocsp.MalformedRequest {
					t.Errorf("%s: %v", name, s)
				}
				continue
			}
			theirs, err := xocsp.ParseResponseForCert(reply.Body, &x509.Certificate{SerialNumber: w.good.Big()}, w.first.cert)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if theirs.SignatureAlgorithm != test.want {
				t.Errorf("%s: %v; want %v", name, theirs.SignatureAlgorithm, test.want)
			}
		}
	}
	d := w.delegates[0]
	if err := w.responder.SetDelegates([]ocsp.Delegate{d, w.first.delegate(p256()), w.first.delegate(p256())}); err == nil {
		t.Error("two that sign alike are accepted")
	}
}

// What was never issued, in each of the three ways.
func TestNeverIssued(t *testing.T) {
	for _, way := range []ocsp.NeverIssued{ocsp.AsUnknown, ocsp.AsRevoked, ocsp.AsUnauthorized} {
		w := newWorld(t, p256(), p256(), p256(), now, withNear, func(_ *world, c *ocsp.Config) { c.NeverIssued, c.Retention = way, time.Hour })
		for name, serials := range map[string][]jpki.Serial{"one": {w.never}, "with a good one": {w.good, w.never}} {
			r := w.exchange(t.Context(), t, crypto.SHA256, nil, serials...)
			if way == ocsp.AsUnauthorized {
				if r.Status != ocsp.Unauthorized {
					t.Errorf("%s: %v", name, r.Status)
				}
				continue
			}
			a := must(r.Answer(w.first.cert, w.never))
			if way == ocsp.AsUnknown && (!a.Unknown || r.ExtendedRevoke) {
				t.Errorf("%s: %+v", name, a)
			}
			if way == ocsp.AsRevoked && (!a.Revoked || a.Reason != jpki.CertificateHold || a.RevokedAt.Unix() != 0 || !r.ExtendedRevoke || !a.ArchiveCutoff.IsZero()) {
				t.Errorf("%s: %+v, extension %v", name, a, r.ExtendedRevoke)
			}
		}
		zero := seq(seq(sha1OID, null), octets(must(ocsp.NewCertID(w.first.cert, crypto.SHA1, w.good)).NameHash), octets(must(ocsp.NewCertID(w.first.cert, crypto.SHA1, w.good)).KeyHash), integer(0))
		r := w.check(t, w.responder.Exchange(t.Context(), &ocsp.Query{Request: request([][]byte{zero})}), nil)
		got := r.Status.String()
		if r.Status == ocsp.Successful {
			got = answer(r.Answers[0])
		}
		if want := map[ocsp.NeverIssued]string{ocsp.AsUnknown: "unknown", ocsp.AsRevoked: "revoked", ocsp.AsUnauthorized: "unauthorized"}[way]; got != want {
			t.Errorf("serial zero: %s; want %s", got, want)
		}
		if n := w.responder.Outcomes()["unknown"]; n != 3 {
			t.Errorf("%q: %d unknown", way, n)
		}
	}
}

func TestExtensionsOfAnswers(t *testing.T) {
	const url = "http://crl.example/sign-1.crl"
	w := newWorld(t, p256(), p256(), p256(), now, withNear, func(w *world, c *ocsp.Config) {
		c.ByName, c.Retention, c.CRLs = true, 10*time.Hour, map[jpki.IssuerID]string{w.first.id: url}
	})
	for range 2 {
		r := w.exchange(t.Context(), t, crypto.SHA256, nil, w.hold)
		a := r.Answers[0]
		if a.CRL != url || !a.ArchiveCutoff.Equal(now.Add(-10*time.Hour).Truncate(time.Second)) || r.ResponderKeyHash != nil || !bytes.Equal(r.ResponderName, w.delegates[0].Certificate.RawSubject) {
			t.Errorf("%+v, name %x", a, r.ResponderName)
		}
		theirs := must(xocsp.ParseResponse(r.Raw, w.first.cert))
		if len(theirs.Extensions) != 2 || theirs.RawResponderName == nil {
			t.Errorf("x/crypto reads %+v", theirs)
		}
	}
	// The authority's own beginning is as far as it can go.
	w = newWorld(t, p256(), p256(), p256(), now, func(_ *world, c *ocsp.Config) { c.Retention = 1000 * time.Hour })
	if a := w.exchange(t.Context(), t, crypto.SHA256, nil, w.hold).Answers[0]; !a.ArchiveCutoff.Equal(w.first.cert.NotBefore) {
		t.Errorf("archive cutoff %v", a.ArchiveCutoff)
	}
}

// register is a set of certificates.
type register map[[sha256.Size]byte]bool

func (r register) Registered(c [sha256.Size]byte) bool { return r[c] }

// openSSLRequest has OpenSSL write a request, signed if there is a signer.
func openSSLRequest(t *testing.T, w *world, signer *x509.Certificate, key crypto.Signer) []byte {
	t.Helper()
	openssl := tool(t, "openssl")
	out := filepath.Join(t.TempDir(), "request.der")
	args := []string{"ocsp", "-issuer", writePEM(t, "issuer.pem", "CERTIFICATE", w.first.cert.Raw), "-sha256", "-serial", "0x" + w.good.String(), "-reqout", out}
	if signer != nil {
		args = append(args, "-signer", writePEM(t, "signer.pem", "CERTIFICATE", signer.Raw), "-signkey", writePEM(t, "key.pem", "PRIVATE KEY", marshalKey(t, key)))
	}
	if b, err := exec.Command(openssl, args...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	return must(os.ReadFile(out))
}

func TestAccess(t *testing.T) {
	parties := newAuthority(jpki.IssuerID{CA: jpki.AuthCA, Generation: 1}, p256(), now)
	party := func(a *authority, name string, key crypto.Signer) *x509.Certificate {
		return a.issue(&x509.Certificate{
			SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		}, key)
	}
	key := rsaKey(0)
	bank, other := party(parties, "bank", key), party(parties, "other", key)
	stranger := party(newAuthority(jpki.IssuerID{CA: jpki.AuthCA, Generation: 2}, p384(), now), "bank", key)
	known := register{sha256.Sum256(bank.Raw): true, sha256.Sum256(stranger.Raw): true}
	fingerprint := func(c *x509.Certificate) []byte { s := sha256.Sum256(c.Raw); return s[:] }

	var w *world
	world := func(who ocsp.Admission) {
		w = newWorld(t, p256(), p256(), p256(), now, withNear, func(_ *world, c *ocsp.Config) {
			c.Access = ocsp.Access{Who: who, Anchors: []*x509.Certificate{parties.cert}, Register: known}
		})
	}
	for _, test := range []struct {
		who                                        ocsp.Admission
		nobody, byCert, unknownCert, signed, wrong ocsp.ResponseStatus
		spoilt, unregistered, unsignedWithUnknown  ocsp.ResponseStatus
	}{
		{ocsp.Everybody, ocsp.Successful, ocsp.Successful, ocsp.Successful, ocsp.Successful, ocsp.Unauthorized, ocsp.Unauthorized, ocsp.Successful, ocsp.Successful},
		{ocsp.ByCertificate, ocsp.Unauthorized, ocsp.Successful, ocsp.Unauthorized, ocsp.Unauthorized, ocsp.Unauthorized, ocsp.Unauthorized, ocsp.Unauthorized, ocsp.Unauthorized},
		{ocsp.BySignature, ocsp.SigRequired, ocsp.SigRequired, ocsp.SigRequired, ocsp.Successful, ocsp.Unauthorized, ocsp.Unauthorized, ocsp.Unauthorized, ocsp.SigRequired},
		{ocsp.ByEither, ocsp.SigRequired, ocsp.Successful, ocsp.SigRequired, ocsp.Successful, ocsp.Unauthorized, ocsp.Unauthorized, ocsp.Unauthorized, ocsp.SigRequired},
	} {
		world(test.who)
		right := openSSLRequest(t, w, bank, key)
		spoilt := bytes.Clone(right)
		spoilt[bytes.Index(spoilt, bank.Raw)-10] ^= 1
		plain := must(must(ocsp.NewRequest(w.first.cert, crypto.SHA256, nil, w.good)).Marshal())
		for name, c := range map[string]struct {
			der    []byte
			client []byte
			want   ocsp.ResponseStatus
		}{
			"nobody":               {plain, nil, test.nobody},
			"registered":           {plain, fingerprint(bank), test.byCert},
			"not registered":       {plain, fingerprint(other), test.unknownCert},
			"half a fingerprint":   {plain, fingerprint(bank)[:16], test.unsignedWithUnknown},
			"signed":               {right, nil, test.signed},
			"by a stranger":        {openSSLRequest(t, w, stranger, key), nil, test.wrong},
			"signature spoilt":     {spoilt, nil, test.spoilt},
			"signer not a party's": {openSSLRequest(t, w, other, key), nil, test.unregistered},
		} {
			reply := w.responder.Exchange(t.Context(), &ocsp.Query{Request: c.der, Client: ocsp.Client{Certificate: c.client}})
			if s := statusOf(t, reply.Body); s != c.want {
				t.Errorf("%q, %s: %v; want %v", test.who, name, s, c.want)
			}
			if open := strings.Contains(string(reply.Head), "public"); open && test.who != ocsp.Everybody {
				t.Errorf("%q, %s: a shared cache may keep it: %q", test.who, name, reply.Head)
			}
		}
		w.clock.advance(2 * time.Hour)
		if s := statusOf(t, w.responder.Exchange(t.Context(), &ocsp.Query{Request: right}).Body); s == ocsp.Successful {
			t.Errorf("%q: signed with a certificate that has ended", test.who)
		}
	}
	for name, a := range map[string]ocsp.Access{
		"no register": {Who: ocsp.ByCertificate}, "no anchors": {Who: ocsp.BySignature, Register: known}, "no admission": {Who: "friends"},
		"anchor that is no CA": {Anchors: []*x509.Certificate{bank}},
	} {
		if _, err := ocsp.New(ocsp.Config{Delegates: w.delegates, Statuses: &manyStatuses{}, Now: time.Now, Access: a}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestQuota(t *testing.T) {
	w := newWorld(t, p256(), p256(), p256(), now, withNear, func(_ *world, c *ocsp.Config) { c.Quota = ocsp.Quota{Rate: 2, Burst: 5, Clients: 64} })
	one := must(must(ocsp.NewRequest(w.first.cert, crypto.SHA256, nil, w.good)).Marshal())
	three := must(must(ocsp.NewRequest(w.first.cert, crypto.SHA256, nil, w.good, w.good, w.good)).Marshal())
	ask := func(address string, der []byte) ocsp.ResponseStatus {
		return statusOf(t, w.responder.Exchange(t.Context(), &ocsp.Query{Request: der, Client: ocsp.Client{Address: address}}).Body)
	}
	count := func(address string, der []byte) (n int) {
		for ask(address, der) == ocsp.Successful {
			if n++; n > 100 {
				t.Fatal("no end")
			}
		}
		return n
	}
	for address, want := range map[string]int{"192.0.2.1": 5, "192.0.2.2": 5, "2001:db8:0:1::1": 5, "": 5} {
		if n := count(address, one); n != want {
			t.Errorf("%s: %d; want %d", address, n, want)
		}
	}
	if n := count("2001:db8:0:1::2", one); n != 0 {
		t.Errorf("a neighbour in the same /64: %d", n)
	}
	if n := count("::ffff:192.0.2.1", one); n != 0 {
		t.Errorf("the same in IPv6: %d", n)
	}
	w.clock.advance(time.Second)
	if n := count("192.0.2.1", one); n != 2 {
		t.Errorf("after a second: %d", n)
	}
	w.clock.advance(time.Hour)
	if n := count("192.0.2.1", three); n != 1 {
		t.Errorf("three at a time: %d", n)
	}
	// A flood of addresses takes no more memory; whoever asks too much now is still told so.
	for i := range 10_000 {
		ask(fmt.Sprintf("10.0.%d.%d", i/256, i%256), one)
	}
	if n := count("192.0.2.9", one); n != 5 {
		t.Errorf("after a flood: %d", n)
	}
	if n := w.responder.Outcomes()["quota"]; n == 0 {
		t.Error("not counted")
	}
	for name, q := range map[string]ocsp.Quota{"negative": {Rate: -1}, "burst": {Rate: 1, Burst: -1}} {
		if _, err := ocsp.New(ocsp.Config{Delegates: w.delegates, Statuses: &manyStatuses{}, Now: time.Now, Quota: q}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// A new delegate takes over a certificate at a time, so that not all answers are signed anew at once.
func TestHandover(t *testing.T) {
	w := newWorld(t, p256(), p256(), p256(), now, withNear, func(_ *world, c *ocsp.Config) { c.Handover = 10 * time.Minute })
	serials := make([]jpki.Serial, 256)
	for i := range serials {
		serials[i] = must(jpki.SerialFromBytes([]byte{1, byte(i)}))
		w.log.add(w.first, serials[i], jpki.Status{State: jpki.Good, Since: now, Version: 1})
	}
	successor := w.first.delegate(p256())
	byNew := func() (n int) {
		for _, s := range serials {
			if w.exchange(t.Context(), t, crypto.SHA256, nil, s).Certificates[0].Equal(successor.Certificate) {
				n++
			}
		}
		return n
	}
	if n := byNew(); n != 0 {
		t.Errorf("before: %d", n)
	}
	for range 2 { // to say the same again changes nothing
		if err := w.responder.SetDelegates([]ocsp.Delegate{successor, w.delegates[1]}); err != nil {
			t.Fatal(err)
		}
		if n := byNew(); n > 1 {
			t.Errorf("at the beginning: %d", n)
		}
	}
	w.clock.advance(5 * time.Minute)
	if n := byNew(); n < 126 || n > 130 {
		t.Errorf("half-way: %d of 256", n)
	}
	w.clock.advance(5 * time.Minute)
	if n := byNew(); n != 256 {
		t.Errorf("at the end: %d", n)
	}
	// Near the end of the old one's certificate there is no time to be gradual.
	last := w.first.delegate(p256())
	w.clock.advance(successor.Certificate.NotAfter.Sub(w.clock.now()) - time.Minute)
	tmpl := w.first.delegateTemplate()
	tmpl.NotAfter = tmpl.NotAfter.Add(time.Hour)
	last.Certificate = w.first.issue(tmpl, last.Key)
	if err := w.responder.SetDelegates([]ocsp.Delegate{last}); err != nil {
		t.Fatal(err)
	}
	successor = last
	if n := byNew(); n != 256 {
		t.Errorf("in a hurry: %d", n)
	}
}

// OpenSSL believes every kind of answer: with all extensions, by name and by key, RSA and P-256, kept and fresh.
func TestOpenSSLReadsAllKinds(t *testing.T) {
	openssl := tool(t, "openssl")
	for _, byName := range []bool{false, true} {
		for keyName, responder := range map[string]crypto.Signer{"RSA": rsaKey(1), "P-256": p256()} {
			w := newWorld(t, p256(), p256(), responder, time.Now(), withNear, func(w *world, c *ocsp.Config) {
				w.clock.run = true
				c.ByName, c.Retention, c.NeverIssued, c.CRLs = byName, time.Hour, ocsp.AsRevoked, map[jpki.IssuerID]string{w.first.id: "http://crl.example/1"}
			})
			ca := writePEM(t, "ca.pem", "CERTIFICATE", w.first.cert.Raw)
			for serial, want := range map[jpki.Serial][]string{
				w.good:    {": good", "Archive Cutoff", "http://crl.example/1"},
				w.hold:    {": revoked", "Reason: certificateHold", "Archive Cutoff"},
				w.revoked: {": revoked", "Reason: affiliationChanged"},
				w.never:   {": revoked", "Reason: certificateHold", "Revocation Time: Jan  1 00:00:00 1970 GMT"},
			} {
				for _, nonce := range []string{"-no_nonce", "-no_nonce", "-nonce"} {
					out, err := exec.Command(openssl, "ocsp", "-url", w.url, "-CAfile", ca, "-issuer", ca, "-sha256", "-serial", "0x"+serial.String(), nonce, "-resp_text").CombinedOutput()
					text := string(out)
					for _, s := range append(want, "Response verify OK") {
						if err != nil || !strings.Contains(text, s) {
							t.Errorf("%s, by name %v, %s: %v, no %q in\n%s", keyName, byName, nonce, err, s, text)
						}
					}
					if strings.Contains(text, "WARNING") {
						t.Errorf("%s: %s", keyName, text)
					}
				}
			}
		}
	}
}
