package main

import (
	"testing"

	"github.com/openjpki/jpki/verifier"
)

// What is measured is accepted by the library: a bench of refusals would measure something else.
func TestWorld(t *testing.T) {
	w, err := newWorld()
	if err != nil {
		t.Fatal(err)
	}
	v, err := w.verifier()
	if err != nil {
		t.Fatal(err)
	}
	if res, err := v.Signature(t.Context(), w.raw(0)); err != nil || !res.OK() {
		t.Errorf("raw signature: %v, %v", res, err)
	}
	if res, err := v.Document(t.Context(), verifier.DocumentInput{Data: w.documents[0]}); err != nil || !res.OK() {
		t.Errorf("document: %v, %v", res, err)
	}
}
