package verifier_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/openjpki/jpki/verifier"
	"github.com/openjpki/jpki/verifier/pdf"
)

// largePDF writes a signed PDF with a stream of size octets to a file, sparsely.
func largePDF(t *testing.T, by leaf, size int64) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "large.pdf"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	head := onePage()
	prev := bytes.LastIndex(head, []byte("xref\n0"))
	at := len(head)
	head = append(head, fmt.Sprintf("5 0 obj\n<</Length %d>>stream\n", size)...)
	end := int64(len(head)) + size
	tail := "\nendstream\nendobj\n"
	xref := end + int64(len(tail))
	tail += fmt.Sprintf("xref\n5 1\n%010d 00000 n \ntrailer\n<</Size 6/Root 1 0 R/Prev %d>>\nstartxref\n%d\n%%%%EOF\n", at, prev, xref)
	write := func(data []byte, at int64) {
		if _, err := f.WriteAt(data, at); err != nil {
			t.Fatal(err)
		}
	}
	write(head, 0)
	write([]byte(tail), end)
	length := end + int64(len(tail))
	update := &after{skip: length}
	if err := pdf.Sign(update, f, length, pdf.SignConfig{Certificate: by.der, Signer: by.key, Rand: rand.Reader, Time: t0}); err != nil {
		t.Fatal(err)
	}
	write(update.kept, length)
	return f
}

// after keeps what comes after a number of octets.
type after struct {
	skip int64
	kept []byte
}

func (w *after) Write(p []byte) (int, error) {
	n := min(w.skip, int64(len(p)))
	w.skip -= n
	w.kept = append(w.kept, p[n:]...)
	return len(p), nil
}

// TestLargeDocument: a PDF of 200 MiB in a file is verified, and a token made and accepted, in memory that has nothing to do with its size: all
// that is allocated, whether it is freed or not, stays below a tenth of it.
func TestLargeDocument(t *testing.T) {
	const size = 200 << 20
	a := newArchive(t)
	n := newNotary(t, a, rsaKey())
	v := a.documents(t, n.believed, func(c *verifier.DocumentConfig) {
		c.Sources = []verifier.RevocationSource{pool(list(t, a.sign[1], t0.Add(-time.Hour)))}
	})
	file := largePDF(t, a.signer, size)
	info := must(file.Stat())
	if info.Size() < size {
		t.Fatal(info.Size())
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	in := verifier.DocumentInput{Reader: file, Size: info.Size(), TokenHash: crypto.SHA256}
	res, err := v.Document(t.Context(), in)
	if err != nil || !res.OK() {
		t.Fatalf("%v %+v", err, res)
	}
	again, err := v.VerifyToken(t.Context(), in, must(res.Tokens(n.config(a)))...)
	if err != nil || !again.OK() {
		t.Fatalf("%v %+v", err, again)
	}
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > size/10 {
		t.Errorf("%d octets allocated for a document of %d", used, info.Size())
	} else {
		t.Logf("%d KiB allocated for a document of %d MiB, verified twice", used>>10, info.Size()>>20)
	}
	if _, err := file.WriteAt([]byte{1}, size/2); err != nil {
		t.Fatal(err)
	}
	if res, err := v.Document(t.Context(), in); err != nil || res.Code != verifier.DigestMismatch {
		t.Errorf("a bit changed in the middle: %v %v", res, err)
	}
}
