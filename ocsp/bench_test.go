package ocsp_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ocsp"
)

// BenchmarkSign makes blocks of bare signatures and of responses, without HTTP, in turns, so that the noise of the machine
// meets both, and prints the median of how many responses were made in the time of one signature.
func BenchmarkSign(b *testing.B) {
	for _, kind := range []struct {
		name  string
		key   func() crypto.Signer
		block int // as many as share the check of one signature, or enough to be measured
	}{{"P-256", p256, 256}, {"RSA-2048", func() crypto.Signer { return rsaKey(1) }, 8}} {
		b.Run(kind.name, func(b *testing.B) {
			a := newAuthority(jpki.IssuerID{CA: jpki.SignCA, Generation: 1}, p256(), now)
			k := kind.key()
			respond := ocsp.Respond(a.delegate(k), must(ocsp.NewCertID(a.cert, crypto.SHA256, newSerial())), now)
			digest := sha256.Sum256([]byte("bare"))
			var ratios []float64
			for b.Loop() {
				t0 := time.Now()
				for range kind.block {
					must(k.Sign(rand.Reader, digest[:], crypto.SHA256))
				}
				t1 := time.Now()
				for range kind.block {
					must(respond())
				}
				ratios = append(ratios, float64(t1.Sub(t0))/float64(time.Since(t1)))
			}
			slices.Sort(ratios)
			b.ReportMetric(ratios[len(ratios)/2], "×bare")
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
	fresh := newWorld(b, p256(), p256(), p256(), now, withStatuses(good))
	b.Run("signed", func(b *testing.B) {
		q := ocsp.Query{Request: must(must(ocsp.NewRequest(fresh.first.cert, crypto.SHA1, nil, fresh.good)).Marshal())}
		b.ReportAllocs()
		for b.Loop() {
			if r := fresh.responder.Exchange(b.Context(), &q); len(r.Body) < 100 {
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
