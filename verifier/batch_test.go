package verifier_test

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"iter"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/verifier"
)

// A bank asks at night which of its customers' certificates are still good, and takes in signatures that came meanwhile.
func ExampleVerifier_Batch() {
	t := &testing.T{} // makes the certificates
	w := newWorld(t)
	moved, stays := w.signCert(t), w.signCert(t)
	w.ocsp.statuses[moved.serial()] = status{reason: jpki.AffiliationChanged, at: t0.Add(-time.Hour)}
	signed := stays.input(t)
	cache, err := verifier.NewVerdictCache(verifier.VerdictCacheConfig{ // the last two are about one certificate, and ask once
		Checker: w.checker(t), Now: func() time.Time { return t0 }, GoodFor: 5 * time.Minute,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	v := w.verifier(t, func(c *verifier.Config) { c.Revocation = cache })

	inputs := func(yield func(verifier.BatchInput) bool) { // from a database, say, one by one
		for _, in := range []verifier.BatchInput{{Certificate: moved.der}, {Certificate: []byte("garbage")}, {Certificate: stays.der}, {Signature: &signed}} {
			if !yield(in) {
				return
			}
		}
	}
	for r := range v.Batch(context.Background(), inputs, verifier.BatchConfig{}) {
		if r.Err != nil {
			fmt.Println(r.Index, r.Err)
			continue
		}
		fmt.Println(r.Index, r.OK(), r.Result.Code)
	}
	fmt.Println(w.ocsp.asked, "questions")

	// Output:
	// 0 false revoked-attributes-changed
	// 1 false malformed-certificate
	// 2 true ok
	// 3 true ok
	// 2 questions
}

// TestBatch: every answer is the one the single call gives, in the order of the inputs; what is bad harms no other; and no
// more inputs are taken ahead than agreed.
func TestBatch(t *testing.T) {
	a := newArchive(t)
	source := &teller{says: func(leaf, _ *x509.Certificate) (verifier.Revocation, error) {
		if leaf.SerialNumber.BitLen() < 8 {
			panic("broken by this input")
		}
		return verifier.Revocation{State: jpki.Good, ThisUpdate: t0, CheckedAt: t0, NextUpdate: t0.Add(time.Hour)}, nil
	}}
	v := must(verifier.New(verifier.Config{
		Anchors: a.config(t).Anchors, Policies: a.policies, Revocation: source, Now: func() time.Time { return a.now }, Rand: rand.Reader,
		Documents: &verifier.DocumentConfig{
			Policy: must(verifier.FindDocumentPolicy("sandbox-signature-2026")), Anchors: []*x509.Certificate{a.sign[1].cert},
			Sources: []verifier.RevocationSource{pool(list(t, a.sign[1], t0.Add(-time.Hour)))},
		},
	}))
	good := a.signCert(t).input(t)
	wrong := a.signCert(t).input(t)
	wrong.Digest = slices.Clone(wrong.Digest)
	wrong.Digest[0] ^= 1
	breaks := a.signCert(t, func(c *x509.Certificate) { c.SerialNumber.SetInt64(9) }).input(t)
	document := file{by: a.signer, content: contract}.der(t)
	kinds := []struct {
		in      verifier.BatchInput
		code    verifier.Code // empty for an error
		problem jpki.Problem
	}{
		{verifier.BatchInput{Signature: &good}, verifier.OK, ""},
		{verifier.BatchInput{Signature: &wrong}, verifier.DigestMismatch, ""},
		{verifier.BatchInput{Signature: &breaks}, "", jpki.Internal},
		{verifier.BatchInput{Document: &verifier.DocumentInput{Data: document}}, verifier.OK, ""},
		{verifier.BatchInput{Document: &verifier.DocumentInput{Data: []byte("hello")}}, "", jpki.Malformed},
		{verifier.BatchInput{Document: &verifier.DocumentInput{Reader: shortReader{}, Size: 100, Format: verifier.FormatCMS}}, "", jpki.Unavailable},
		{verifier.BatchInput{Certificate: a.signer.der}, verifier.OK, ""},
		{verifier.BatchInput{Certificate: []byte{1}}, verifier.MalformedCertificate, ""},
		{verifier.BatchInput{}, "", jpki.Malformed},
		{verifier.BatchInput{Signature: &good, Certificate: a.signer.der}, "", jpki.Malformed},
	}
	for _, cfg := range []verifier.BatchConfig{{}, {Workers: 1, Ahead: 1}, {Workers: 7, Ahead: 3}, {Workers: 3, Ahead: 40}} {
		const n = 300
		taken := 0
		inputs := func(yield func(verifier.BatchInput) bool) {
			for taken < n {
				taken++
				if !yield(kinds[(taken-1)%len(kinds)].in) {
					return
				}
			}
		}
		ahead := max(cfg.Ahead, cfg.Workers)
		if cfg.Ahead == 0 {
			ahead = 4 * runtime.GOMAXPROCS(0)
		}
		given := 0
		for r := range v.Batch(t.Context(), inputs, cfg) {
			k := kinds[r.Index%len(kinds)]
			if r.Index != given {
				t.Fatalf("answer %d comes as number %d", r.Index, given)
			}
			if given++; taken > given+ahead {
				t.Errorf("%d inputs taken, %d answers given", taken, given)
			}
			var code verifier.Code
			if r.Result != nil {
				code = r.Result.Code
			} else if r.Document != nil {
				code = r.Document.Code
			}
			if code != k.code || r.OK() != (k.code == verifier.OK) || (r.Err == nil) != (k.problem == "") || k.problem != "" && !errors.Is(r.Err, k.problem) {
				t.Errorf("%d: %q, %v, want %q, %q", r.Index, code, r.Err, k.code, k.problem)
			}
		}
		if given != n {
			t.Errorf("%d answers", given)
		}
	}
}

type shortReader struct{}

func (shortReader) ReadAt([]byte, int64) (int, error) { return 0, io.ErrUnexpectedEOF }

// TestBatchEnds: with its context, or when nobody listens any more; nothing is left running.
func TestBatchEnds(t *testing.T) {
	w := newWorld(t)
	in := w.signCert(t).input(t)
	ctx, cancel := context.WithCancel(t.Context())
	v := w.verifier(t, func(c *verifier.Config) {
		c.Revocation = askFunc(func(ctx context.Context, _, _ *x509.Certificate, _ time.Time) (verifier.Revocation, error) {
			<-ctx.Done()
			return verifier.Revocation{}, ctx.Err()
		})
	})
	taken := 0
	endless := func(yield func(verifier.BatchInput) bool) {
		for taken++; yield(verifier.BatchInput{Signature: &in}); taken++ {
			if taken == 5 {
				cancel()
			}
		}
	}
	before := runtime.NumGoroutine()
	given, ended := 0, 0
	for r := range v.Batch(ctx, endless, verifier.BatchConfig{Workers: 2, Ahead: 8}) {
		if given++; r.OK() {
			t.Error("good without a status")
		}
		if errors.Is(r.Err, context.Canceled) {
			ended++
		}
	}
	if taken > 7 || given != taken-1 || ended == 0 {
		t.Errorf("%d taken, %d answers, %d ended", taken, given, ended)
	}
	var many iter.Seq[verifier.BatchInput] = func(yield func(verifier.BatchInput) bool) {
		for listens := true; listens; {
			listens = yield(verifier.BatchInput{Certificate: []byte{1}})
		}
	}
	for r := range v.Batch(t.Context(), many, verifier.BatchConfig{Workers: 4}) {
		if r.Index == 3 {
			break
		}
	}
	// One that has said that it is done may not be gone yet; one that hangs never is.
	after := runtime.NumGoroutine()
	for range 500 {
		if after <= before {
			return
		}
		time.Sleep(10 * time.Millisecond)
		after = runtime.NumGoroutine()
	}
	t.Errorf("%d goroutines, %d before", after, before)
}
