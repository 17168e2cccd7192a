package ocsp_test

import (
	"bytes"
	"context"
	"crypto"
	"encoding/base64"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ocsp"
)

// The reader by hand and the one in full agree: what the first takes, the second reads as the same question, and every
// question that the second reads as simple is taken by the first.
func FuzzSimpleRequest(f *testing.F) {
	a := newAuthority(jpki.IssuerID{CA: jpki.SignCA, Generation: 1}, p256(), now)
	for _, hash := range []crypto.Hash{crypto.SHA1, crypto.SHA256, crypto.SHA384} {
		f.Add(must(must(ocsp.NewRequest(a.cert, hash, nil, newSerial())).Marshal()))
	}
	f.Add(must(must(ocsp.NewRequest(a.cert, crypto.SHA1, []byte{1}, newSerial())).Marshal()))
	f.Add(request(one()))
	f.Add(request([][]byte{plainCertID(integer(0x80)), plainCertID(integer(0))}))
	f.Add(request([][]byte{plainCertID(integer(0, 0x7f))}))
	f.Fuzz(func(t *testing.T, der []byte) {
		certID, issuer, serial, simple := ocsp.ReadSimple(der)
		q, err := ocsp.ParseRequest(der)
		if err != nil { // what only the full reader refuses lies in the issuer, and no table of issuers has that
			return
		}
		if want := len(q.CertIDs) == 1 && q.Nonce == nil && !q.Extra; simple != want {
			t.Fatalf("simple %v, full %+v", simple, q)
		}
		if !simple {
			return
		}
		id := q.CertIDs[0]
		if !bytes.Equal(certID, id.Raw) || !bytes.HasPrefix(id.Raw[len(id.Raw)-len(issuer)-len(serial)-2:], issuer) || !bytes.HasSuffix(id.Raw, serial) {
			t.Fatalf("%x of %x by %x; full %+v", certID, serial, issuer, id)
		}
		if s, err := jpki.SerialFromBytes(serial); serial[0] < 0x80 && (err == nil) == id.Serial.IsZero() || err == nil && serial[0] < 0x80 && s != id.Serial {
			t.Fatalf("serial %x; full %v", serial, id.Serial)
		}
	})
}

// Whatever comes: an answer that parses, about what was asked, by the right key, and good only for what is good.
func FuzzExchange(f *testing.F) {
	w := newWorld(f, p256(), p256(), p256(), now, withNear)
	for _, nonce := range [][]byte{nil, {1}, make([]byte, 128)} {
		f.Add(must(must(ocsp.NewRequest(w.first.cert, crypto.SHA1, nonce, w.good)).Marshal()), true)
		f.Add(must(must(ocsp.NewRequest(w.first.cert, crypto.SHA256, nonce, w.hold, w.never)).Marshal()), false)
	}
	own := must(ocsp.NewCertID(w.first.cert, crypto.SHA256, w.good)).Raw
	f.Add(request([][]byte{own}, exts(nonceExt(129))), false)
	f.Add(request([][]byte{own}, exts(nonceExt(0))), false)
	f.Add(request([][]byte{own}, exts(seq(nonceOID, octets(make([]byte, 16))))), false)
	f.Fuzz(func(t *testing.T, der []byte, get bool) {
		reply := w.responder.Exchange(context.Background(), &ocsp.Query{Request: der, GET: get})
		r, err := ocsp.ParseResponse(reply.Body)
		if err != nil {
			t.Fatal(err)
		}
		q, err := ocsp.ParseRequest(der)
		if (err != nil) != (r.Status == ocsp.MalformedRequest) {
			t.Fatalf("%v, answered %v", err, r.Status)
		}
		if r.Status != ocsp.Successful {
			return
		}
		if !bytes.Equal(q.Nonce, r.Nonce) || len(r.Nonce) > ocsp.MaxNonceBytes || len(q.CertIDs) != len(r.Answers) {
			t.Fatalf("nonce %x for %x, %d answers to %d", r.Nonce, q.Nonce, len(r.Answers), len(q.CertIDs))
		}
		issuer := w.first.cert
		if r.Verify(ocsp.VerifyOptions{Issuer: issuer, At: now}) != nil {
			issuer = w.second.cert
		}
		if err := r.Verify(ocsp.VerifyOptions{Issuer: issuer, At: now}); err != nil {
			t.Fatal(err)
		}
		for i, a := range r.Answers {
			good := a.CertID.Serial == w.good && issuer == w.first.cert || a.CertID.Serial == w.never && issuer == w.second.cert
			if !bytes.Equal(a.CertID.Raw, q.CertIDs[i].Raw) || (!a.Revoked && !a.Unknown) != good {
				t.Fatalf("%+v to %+v", a, q.CertIDs[i])
			}
		}
	})
}

// Of the octets on a shelf outside only those that a responder put there are served.
func FuzzKeptValue(f *testing.F) {
	far := new(shelf)
	w := newWorld(f, p256(), p256(), p256(), now, func(_ *world, c *ocsp.Config) { c.Far, c.Secret = []ocsp.Shelf{far}, bytes.Repeat([]byte{7}, 32) })
	first := w.exchange(f.Context(), f, crypto.SHA256, nil, w.hold)
	var genuine []byte
	for _, v := range far.values {
		genuine = v
	}
	far.put = func(string, []byte) []byte { return genuine }
	f.Add(genuine)
	f.Add(genuine[:100])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, value []byte) {
		far.get = func(string, []byte, bool) ([]byte, bool) { return value, true }
		r := w.exchange(context.Background(), t, crypto.SHA256, nil, w.hold)
		if a, err := r.Answer(w.first.cert, w.hold); err != nil || !a.Revoked {
			t.Fatalf("%+v, %v", a, err)
		}
		if served := bytes.Equal(r.Raw, first.Raw); served != bytes.Equal(value, genuine) {
			t.Fatalf("served %v: %x", served, value)
		}
	})
}

// An answer that is kept costs next to nothing.
func TestAllocations(t *testing.T) {
	good := statusesFunc(func(context.Context, jpki.CertID) (jpki.Status, time.Time, error) {
		return jpki.Status{State: jpki.Good, Version: 1}, now, nil
	})
	w := newWorld(t, p256(), p256(), p256(), now, withStatuses(good), withNear)
	der := must(must(ocsp.NewRequest(w.first.cert, crypto.SHA1, nil, w.good)).Marshal())
	path := []byte("/" + base64.StdEncoding.EncodeToString(der))
	dst := make([]byte, 0, len(path))
	q := &ocsp.Query{GET: true, IfNoneMatch: `"other"`}
	if n := testing.AllocsPerRun(100, func() {
		q.Request, _ = ocsp.DecodeGET(path, dst)
		if r := w.responder.Exchange(t.Context(), q); len(r.Body) < 100 || !bytes.Equal(q.Request, der) {
			t.Fatal(r)
		}
	}); n > 2 { // the key as a string; and one to spare for the race detector
		t.Errorf("%v allocations", n)
	}
}
