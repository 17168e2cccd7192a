package ocsp_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ocsp"
)

// BenchmarkSign makes responses, without HTTP, and bare signatures in turns, so that the noise of the machine meets both,
// and prints how many responses are made in the time of one signature.
func BenchmarkSign(b *testing.B) {
	for name, key := range map[string]func() crypto.Signer{"P-256": p256, "RSA-2048": func() crypto.Signer { return rsaKey(1) }} {
		b.Run(name, func(b *testing.B) {
			a := newAuthority(jpki.IssuerID{CA: jpki.SignCA, Generation: 1}, p256(), now)
			k := key()
			respond := ocsp.Respond(a.delegate(k), must(ocsp.NewCertID(a.cert, crypto.SHA256, newSerial())), now)
			digest := sha256.Sum256([]byte("bare"))
			var bare, whole time.Duration
			for b.Loop() {
				t0 := time.Now()
				must(k.Sign(rand.Reader, digest[:], crypto.SHA256))
				t1 := time.Now()
				must(respond())
				bare, whole = bare+t1.Sub(t0), whole+time.Since(t1)
			}
			b.ReportMetric(float64(bare)/float64(whole), "×bare")
			b.ReportMetric(float64(bare.Nanoseconds())/float64(b.N), "bare-ns/op")
			b.ReportMetric(float64(whole.Nanoseconds())/float64(b.N), "response-ns/op")
		})
	}
}

// BenchmarkExchange: an answer from the near shelf, by GET and POST, and one that has to be signed.
func BenchmarkExchange(b *testing.B) {
	var w *world
	good := func(context.Context, jpki.CertID) (jpki.Status, time.Time, error) {
		return jpki.Status{State: jpki.Good, Version: 1}, now, nil
	}
	der := func(nonce []byte) []byte {
		return must(must(ocsp.NewRequest(w.first.cert, crypto.SHA1, nonce, w.good)).Marshal())
	}
	w = newWorld(b, p256(), p256(), p256(), now, withStatuses(good), withNear)
	b.Run("near, POST", func(b *testing.B) {
		q := ocsp.Query{Request: der(nil)}
		b.ReportAllocs()
		for b.Loop() {
			if r := w.responder.Exchange(b.Context(), &q); len(r.Body) < 100 {
				b.Fatal(r)
			}
		}
	})
	b.Run("near, GET", func(b *testing.B) {
		path := []byte("/" + base64.StdEncoding.EncodeToString(der(nil)))
		q := ocsp.Query{GET: true}
		dst := make([]byte, 0, len(path))
		b.ReportAllocs()
		for b.Loop() {
			q.Request, _ = ocsp.DecodeGET(path, dst)
			if r := w.responder.Exchange(b.Context(), &q); len(r.Body) < 100 {
				b.Fatal(r)
			}
		}
	})
	b.Run("nonce", func(b *testing.B) {
		q := ocsp.Query{Request: der(make([]byte, 32))}
		b.ReportAllocs()
		for b.Loop() {
			if r := w.responder.Exchange(b.Context(), &q); len(r.Body) < 100 {
				b.Fatal(r)
			}
		}
	})
}
