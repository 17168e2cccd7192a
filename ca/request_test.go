package ca

import (
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"math/big"
	"testing"

	"github.com/openjpki/jpki"
)

func TestWeakKeysAreRefused(t *testing.T) {
	good, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	if err := checkKey(&good.PublicKey, []string{"rsa-2048"}); err != nil {
		t.Fatalf("a sound key: %v", err)
	}
	p := good.Primes[0]
	// The next primes above p: their product with p is what a careless generator makes.
	near := func(skip int) *big.Int {
		q := new(big.Int).Set(p)
		for found := 0; found < skip; {
			q.Add(q, big.NewInt(2))
			if q.ProbablyPrime(5) {
				found++
			}
		}
		return q
	}
	modulus := func(a, b *big.Int) *rsa.PublicKey { return &rsa.PublicKey{N: new(big.Int).Mul(a, b), E: 65537} }
	odd := func(n *big.Int) *big.Int { return new(big.Int).SetBit(n, 0, 1) }
	multiple := new(big.Int).Mul(big.NewInt(751), odd(new(big.Int).Rsh(good.N, 9)))
	for name, k := range map[string]*rsa.PublicKey{
		"a square":          modulus(p, p),
		"neighbouring":      modulus(p, near(1)),
		"three primes away": modulus(p, near(3)),
		"small factor":      {N: multiple, E: 65537},
		"even":              {N: new(big.Int).SetBit(good.N, 0, 0), E: 65537},
		"exponent 3":        {N: good.N, E: 3},
		"2047 bits":         {N: new(big.Int).Rsh(good.N, 1), E: 65537},
		"2049 bits":         {N: odd(new(big.Int).Lsh(good.N, 1)), E: 65537},
	} {
		if k.N.BitLen() < 2047 {
			continue // a product that came out too short
		}
		if err := checkKey(k, []string{"rsa-2048"}); !errors.Is(err, jpki.WeakKey) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMaybeSquareNeverDeniesASquare(t *testing.T) {
	for range 20_000 {
		n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 1030))
		if err != nil {
			t.Fatal(err)
		}
		if !maybeSquare(new(big.Int).Mul(n, n)) {
			t.Fatalf("%v² is denied", n)
		}
	}
}
