package main

import (
	"crypto/rsa"
	"crypto/x509"
	"testing"
)

func TestEveryRequestIsForAnotherKeyAndProvesIt(t *testing.T) {
	ring, err := newKeyring()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for range 3 * primeChoices {
		der, err := ring.request(&x509.CertificateRequest{})
		if err != nil {
			t.Fatal(err)
		}
		csr, err := x509.ParseCertificateRequest(der)
		if err != nil {
			t.Fatal(err)
		}
		if err := csr.CheckSignature(); err != nil {
			t.Error(err)
		}
		key, ok := csr.PublicKey.(*rsa.PublicKey)
		if !ok || key.N.BitLen() != 2048 {
			t.Fatalf("the key is %T, or has not 2048 bits", csr.PublicKey)
		}
		if seen[key.N.String()] {
			t.Error("the same key twice")
		}
		seen[key.N.String()] = true
	}
}

func BenchmarkRequest(b *testing.B) {
	ring, err := newKeyring()
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := ring.request(&x509.CertificateRequest{}); err != nil {
			b.Fatal(err)
		}
	}
}
