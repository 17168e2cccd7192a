package verifier_test

import (
	"testing"
	"time"

	"github.com/openjpki/jpki/verifier"
)

// TestReevaluateSignature: from the stored response the verdict is the same later, and from anything else it is never better.
func TestReevaluateSignature(t *testing.T) {
	w := newWorld(t)
	v := w.verifier(t)
	l, other := w.signCert(t), w.signCert(t)
	in := l.input(t)
	first, err := v.Signature(t.Context(), in)
	if err != nil || !first.OK() {
		t.Fatal(err, first)
	}
	foreign, err := v.Signature(t.Context(), other.input(t))
	if err != nil || !foreign.OK() {
		t.Fatal(err, foreign)
	}
	in.At = first.ValidationTime
	evidence := verifier.SignatureEvidence{SignatureInput: in, Response: first.Revocation.Evidence, CheckedAt: first.Revocation.CheckedAt, Source: first.Revocation.Source}
	asked := w.ocsp.asked
	w.now = w.now.AddDate(6, 0, 0) // every certificate has expired
	for _, tc := range []struct {
		name   string
		change func(*verifier.SignatureEvidence)
		want   verifier.Code
	}{
		{"as it was", func(*verifier.SignatureEvidence) {}, verifier.OK},
		{"no response", func(e *verifier.SignatureEvidence) { e.Response = nil }, verifier.StatusNotEstablished},
		{"no time of the response", func(e *verifier.SignatureEvidence) { e.CheckedAt = time.Time{} }, verifier.StatusNotEstablished},
		{"garbage", func(e *verifier.SignatureEvidence) { e.Response = []byte{0x30, 0} }, verifier.StatusNotEstablished},
		{"about another", func(e *verifier.SignatureEvidence) { e.Response = foreign.Revocation.Evidence }, verifier.StatusNotEstablished},
		{"altered", func(e *verifier.SignatureEvidence) {
			e.Response = append([]byte(nil), e.Response...)
			e.Response[len(e.Response)-1] ^= 1
		}, verifier.StatusNotEstablished},
		{"a response of another time", func(e *verifier.SignatureEvidence) { e.CheckedAt = e.CheckedAt.AddDate(1, 0, 0) }, verifier.StatusNotEstablished},
		{"asked about a later time", func(e *verifier.SignatureEvidence) { e.At = e.At.AddDate(0, 6, 0) }, verifier.StatusNotEstablished},
		{"another digest", func(e *verifier.SignatureEvidence) {
			e.Digest = append([]byte(nil), e.Digest...)
			e.Digest[0] ^= 1
		}, verifier.DigestMismatch},
		{"another certificate", func(e *verifier.SignatureEvidence) { e.Certificate = other.der }, verifier.StatusNotEstablished}, // of the same key
	} {
		e := evidence
		tc.change(&e)
		got, err := v.ReevaluateSignature(t.Context(), e)
		if err != nil || got.Code != tc.want || got.OK() != (tc.want == verifier.OK) || (got.Attributes != nil) != got.OK() {
			t.Errorf("%s: %v %+v", tc.name, err, got)
		}
	}
	evidence.At = time.Time{}
	if _, err := v.ReevaluateSignature(t.Context(), evidence); err == nil {
		t.Error("without the time of the verification it is judged as of now")
	}
	if w.ocsp.asked != asked {
		t.Error("somebody was asked")
	}
}
