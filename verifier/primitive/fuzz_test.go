package primitive_test

import (
	"crypto"
	"crypto/x509"
	"math/big"
	"testing"

	"github.com/openjpki/jpki/verifier/primitive"
)

func modulus(bits int) *big.Int {
	n := new(big.Int).Lsh(big.NewInt(1), uint(bits-1))
	return n.SetBit(n, 0, 1)
}

// What is read as a key survives being written and read again.
func FuzzParseKey(f *testing.F) {
	for _, signer := range everyKey {
		der, _ := x509.MarshalPKIXPublicKey(signer.Public())
		f.Add(der)
	}
	f.Add(x509.MarshalPKCS1PublicKey(&rsaKey.PublicKey))
	f.Fuzz(func(t *testing.T, der []byte) {
		key, err := primitive.ParseKey(der)
		if err != nil {
			return
		}
		again, err := x509.MarshalPKIXPublicKey(key.Public())
		if err != nil {
			t.Fatalf("a key that cannot be written: %v", err)
		}
		k, err := primitive.ParseKey(again)
		if err != nil || k.String() != key.String() || k.Exponent != key.Exponent {
			t.Fatalf("%v was read again as %v: %v", key, k, err)
		}
		if err := primitive.VerifyMessage(key, primitive.Algorithm{}, nil, nil); err == nil {
			t.Fatal("an empty algorithm verified")
		}
	})
}

// What is read as an algorithm is the same after being written; and with any key, verification says no and does not panic.
func FuzzParseAlgorithm(f *testing.F) {
	for _, a := range everyAlgorithms {
		der, _ := a.Identifier()
		f.Add(der)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		a, err := primitive.ParseAlgorithm(der)
		if err != nil {
			return
		}
		again, err := a.Identifier()
		if err != nil {
			t.Fatalf("%v cannot be written: %v", a, err)
		}
		if b, err := primitive.ParseAlgorithm(again); err != nil || a != b {
			t.Fatalf("%v became %v: %v", a, b, err)
		}
		for _, signer := range everyKey {
			key, _ := primitive.NewKey(signer.Public())
			if primitive.VerifyMessage(key, a, message, make([]byte, 256)) == nil {
				t.Fatalf("%v: zeros verify", a)
			}
		}
	})
}

// A signature with other octets than the one that was made does not verify, by the deterministic schemes.
func FuzzVerify(f *testing.F) {
	algs := []primitive.Algorithm{
		{Scheme: primitive.PKCS1v15, Hash: crypto.SHA256},
		primitive.NewPSS(crypto.SHA256),
		{Scheme: primitive.PSS, Hash: crypto.SHA256, MGF: crypto.SHA1, Salt: 0},
		{Scheme: primitive.Ed25519},
	}
	for i, a := range algs {
		signer := crypto.Signer(rsaKey)
		if a.Scheme == primitive.Ed25519 {
			signer = edKey
		}
		f.Add(i, sign(f, signer, a, message))
	}
	f.Fuzz(func(t *testing.T, which int, sig []byte) {
		a := algs[uint(which)%uint(len(algs))]
		signer := crypto.Signer(rsaKey)
		if a.Scheme == primitive.Ed25519 {
			signer = edKey
		}
		key, _ := primitive.NewKey(signer.Public())
		if primitive.VerifyMessage(key, a, []byte("another message"), sig) == nil {
			t.Fatal("a forgery")
		}
	})
}
