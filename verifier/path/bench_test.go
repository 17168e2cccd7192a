package path_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"testing"
	"time"

	xocsp "golang.org/x/crypto/ocsp"

	"github.com/openjpki/jpki/verifier/path"
	"github.com/openjpki/jpki/verifier/primitive"
)

// BenchmarkValidate says how much more than its bare signature checks a path of two certificates costs, read anew each
// time: "ratio" is the share of the time that the checks alone take, measured in the same run. Beside it crypto/x509,
// and the same with a cache, where nothing of a signature is left.
func BenchmarkValidate(b *testing.B) {
	for _, kind := range []struct {
		name string
		key  func() crypto.Signer
	}{
		{"RSA-2048", func() crypto.Signer { return must(rsa.GenerateKey(rand.Reader, 2048)) }},
		{"P-256", newKey},
		{"P-384", func() crypto.Signer { return must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)) }},
	} {
		root := issue(b, template("Root", true), nil, kind.key())
		middle := issue(b, template("Middle", true), root, kind.key())
		leaf := issue(b, template("leaf", false), middle, kind.key())
		o := answer(b, leaf, middle, middle, xocsp.Response{Status: xocsp.Good})
		v := must(path.New(path.Config{Anchors: certificates(root)}))
		bare := func(b *testing.B, checks int) float64 {
			b.Helper()
			key := must(middle.Key())
			alg := must(leaf.Algorithm())
			start := time.Now()
			n := 0
			for ; n < 20 || time.Since(start) < 50*time.Millisecond; n++ {
				if primitive.VerifyMessage(key, alg, leaf.x.RawTBSCertificate, leaf.Signature) != nil {
					b.Fatal("wrong")
				}
			}
			return float64(checks) * float64(time.Since(start).Nanoseconds()) / float64(n)
		}
		share := func(b *testing.B, checks int) {
			b.Helper()
			b.StopTimer()
			perOp := float64(b.Elapsed().Nanoseconds()) / float64(b.N)
			b.ReportMetric(bare(b, checks)/perOp, "ratio")
		}
		b.Run(kind.name+"/path", func(b *testing.B) {
			for b.Loop() {
				l, m := must(path.ParseCertificate(leaf.Raw)), must(path.ParseCertificate(middle.Raw))
				res := must(v.Validate(b.Context(), path.Request{Certificate: l, Certificates: []*path.Certificate{m}, At: noon, Revocation: path.RevocationOff}))
				if !res.OK() {
					b.Fatal(res.Code)
				}
			}
			share(b, 2)
		})
		b.Run(kind.name+"/path and OCSP", func(b *testing.B) {
			for b.Loop() {
				l := must(path.ParseCertificate(leaf.Raw))
				o := must(path.ParseOCSP(o.Raw))
				res := must(v.Validate(b.Context(), path.Request{Certificate: l, Certificates: certificates(middle), At: noon, OCSP: []*path.OCSP{o}, Revocation: path.RevocationIfOffered}))
				if !res.OK() {
					b.Fatal(res.Code)
				}
			}
			share(b, 3)
		})
		b.Run(kind.name+"/remembered", func(b *testing.B) {
			cache := must(path.NewCache(1000))
			v := must(path.New(path.Config{Anchors: certificates(root), Cache: cache}))
			for b.Loop() {
				l, m := must(cache.Certificate(leaf.Raw)), must(cache.Certificate(middle.Raw))
				res := must(v.Validate(b.Context(), path.Request{Certificate: l, Certificates: []*path.Certificate{m}, At: noon, Revocation: path.RevocationOff}))
				if !res.OK() {
					b.Fatal(res.Code)
				}
			}
			share(b, 2)
		})
		b.Run(kind.name+"/crypto-x509", func(b *testing.B) {
			roots := x509.NewCertPool()
			roots.AddCert(root.x)
			for b.Loop() {
				l, m := must(x509.ParseCertificate(leaf.Raw)), must(x509.ParseCertificate(middle.Raw))
				pool := x509.NewCertPool()
				pool.AddCert(m)
				if _, err := l.Verify(x509.VerifyOptions{Roots: roots, Intermediates: pool, CurrentTime: noon, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
					b.Fatal(err)
				}
			}
			share(b, 2)
		})
	}
}
