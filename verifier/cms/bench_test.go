package cms_test

import (
	"bytes"
	"crypto/rand"
	"testing"
	"time"

	"github.com/smallstep/pkcs7"

	"github.com/openjpki/jpki/verifier/cms"
	"github.com/openjpki/jpki/verifier/primitive"
)

// BenchmarkVerify sets everything from octets to verdict, nothing cached, against the one signature that has to be checked
// (the limit) and against smallstep/pkcs7, in the same run: "limit" is the share of the limit's rate that is reached,
// "pkcs7" how many times that library's.
func BenchmarkVerify(b *testing.B) {
	for name, id := range map[string]*identity{"RSA-2048": rsaID, "P-256": ecID, "P-384": ec384ID, "Ed25519": edID} {
		b.Run(name, func(b *testing.B) {
			der, err := cms.Sign(bytes.NewReader(text), cms.SignConfig{Certificate: id.der, Signer: id.key, Rand: rand.Reader, SigningTime: noon, Attached: true})
			if err != nil {
				b.Fatal(err)
			}
			s := one(b, der, cms.Input{})
			key, message, value := s.Key, []byte("any message"), s.Value
			alg := s.Algorithm
			ours := func() {
				d, err := cms.Parse(der)
				if err != nil {
					b.Fatal(err)
				}
				if sigs, err := d.Verify(cms.Input{}); err != nil || sigs[0].Integrity != cms.Intact {
					b.Fatal("not intact")
				}
			}
			limit := func() { _ = primitive.VerifyMessage(key, alg, message, value) }
			theirs := func() {
				p, err := pkcs7.Parse(der)
				if err == nil {
					err = p.Verify()
				}
				if err != nil {
					b.Fatal(err)
				}
			}
			if name == "Ed25519" { // which it does not know
				theirs = nil
			}
			b.ReportAllocs()
			var spent [3]float64
			for b.Loop() {
				for i, f := range []func(){ours, limit, theirs} {
					if f != nil {
						spent[i] += seconds(f)
					}
				}
			}
			b.ReportMetric(spent[1]/spent[0], "limit")
			if theirs != nil {
				b.ReportMetric(spent[2]/spent[0], "pkcs7")
			}
			b.ReportMetric(1e6*spent[0]/float64(b.N), "µs/ours")
			b.ReportMetric(1e6*spent[1]/float64(b.N), "µs/primitive")
		})
	}
}

func seconds(f func()) float64 {
	start := time.Now()
	f()
	return time.Since(start).Seconds()
}
