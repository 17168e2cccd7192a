package pdf_test

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"io"
	"runtime"
	"testing"

	"github.com/openjpki/jpki/verifier/pdf"
	"github.com/openjpki/jpki/verifier/primitive"
)

// signLarge signs a large document without having it in memory.
func signLarge(t testing.TB, size int64) *readerAt {
	t.Helper()
	r := large(size)
	var update tail
	update.skip = r.length()
	if err := pdf.Sign(&update, r, r.length(), p256(t).config()); err != nil {
		t.Fatal(err)
	}
	r.tail = append(r.tail, update.kept...)
	return r
}

// A tail keeps what comes after a number of octets.
type tail struct {
	skip int64
	kept []byte
}

func (w *tail) Write(p []byte) (int, error) {
	n := min(w.skip, int64(len(p)))
	w.skip -= n
	w.kept = append(w.kept, p[n:]...)
	return len(p), nil
}

// A large document is verified in memory that does not grow with it.
func TestMemory(t *testing.T) {
	const size = 192 << 20
	r := signLarge(t, size)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	v := func() []pdf.Verdict {
		d, err := pdf.Read(r, r.length())
		if err != nil {
			t.Fatal(err)
		}
		return d.Verify(nil)
	}()
	runtime.ReadMemStats(&after)
	if len(v) != 1 || v[0].Err != nil {
		t.Fatal(v)
	}
	if used := after.TotalAlloc - before.TotalAlloc; used > 8<<20 {
		t.Errorf("%d octets allocated for a document of %d", used, r.length())
	}
}

// Verifying against what cannot be saved: the digest of the document and one check of the signature value. The ratio is
// of the same run.
func BenchmarkVerify(b *testing.B) {
	s := newSigner(b, rsaKey())
	signed := sign(b, document(sample()), s.config())
	key, err := primitive.NewKey(&rsaKey().PublicKey)
	if err != nil {
		b.Fatal(err)
	}
	algorithm := primitive.Algorithm{Scheme: primitive.PKCS1v15, Hash: crypto.SHA256}
	digest := sha256.Sum256(signed)
	value, err := rsa.SignPKCS1v15(nil, rsaKey(), crypto.SHA256, digest[:])
	if err != nil {
		b.Fatal(err)
	}
	for name, data := range map[string]io.ReaderAt{"small": bytes.NewReader(signed), "16MiB": nil} {
		size := int64(len(signed))
		if data == nil {
			r := large(16 << 20)
			whole := make([]byte, r.length())
			if _, err := r.ReadAt(whole, 0); err != nil {
				b.Fatal(err)
			}
			whole = sign(b, whole, s.config())
			data, size = bytes.NewReader(whole), int64(len(whole))
		}
		b.Run(name, func(b *testing.B) {
			for range b.N {
				d, err := pdf.Read(data, size)
				if err != nil {
					b.Fatal(err)
				}
				if v := d.Verify(nil); v[0].Err != nil {
					b.Fatal(v[0].Err)
				}
			}
			ours := b.Elapsed()
			for range b.N {
				sum := sha256.New()
				if _, err := io.Copy(sum, io.NewSectionReader(data, 0, size)); err != nil {
					b.Fatal(err)
				}
				if err := primitive.Verify(key, algorithm, digest[:], value); err != nil {
					b.Fatal(err)
				}
				sum.Sum(nil)
			}
			b.ReportMetric(float64(b.Elapsed()-ours)/float64(ours), "of-bound")
			b.ReportMetric(float64(ours.Nanoseconds())/float64(b.N), "ns/verification")
			b.ReportMetric(0, "ns/op")
		})
	}
}
