package primitive_test

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"errors"
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

// FuzzPolicyReference: a document is the one that was signed if its digest is, or that of the two parts that RFC 3125 names, and with any
// octet of these changed it is another.
func FuzzPolicyReference(f *testing.F) {
	f.Add([]byte("rules"), uint(0))
	f.Add([]byte{0x30, 8, 0x30, 0, 0x30, 0, 4, 2, 1, 2}, uint(3))
	f.Add([]byte{0x30, 4, 0x30, 0, 0x30, 0}, uint(5))
	f.Fuzz(func(t *testing.T, document []byte, at uint) {
		whole := primitive.Digest(crypto.SHA256, document)
		for _, specified := range []bool{false, true} {
			ref := primitive.PolicyReference{Hash: crypto.SHA256, Digest: whole, Specified: specified}
			if err := ref.Check(document); err != nil {
				t.Fatal(err)
			}
			if len(document) > 0 {
				other := bytes.Clone(document)
				other[at%uint(len(other))] ^= 1
				if err := ref.Check(other); !errors.Is(err, primitive.ErrWrong) {
					t.Fatalf("another document: %v", err)
				}
			}
		}
		parts, ok := primitive.PolicyInASN1(document)
		ref := primitive.PolicyReference{Hash: crypto.SHA256, Digest: primitive.Digest(crypto.SHA256, parts), Specified: true}
		if err := ref.Check(document); ok != (err == nil) && len(document) > 0 {
			t.Fatalf("in ASN.1 %t: %v", ok, err)
		}
		if ref.Specified = false; ok && !errors.Is(ref.Check(document), primitive.ErrWrong) {
			t.Fatal("by the digest of a part, though all was to be covered")
		}
	})
}
