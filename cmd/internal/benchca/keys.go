package main

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"runtime"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// A keyring makes RSA-2048 keys, each another one, at a small part of what those of sandbox.TrialKeys cost: a million of
// requests shall not be the bench's main work. A modulus is the product of eight primes of 256 bits, one from each column; which,
// say the hexadecimal digits of the key's number. Whoever knows two such moduli has the factors of both. The authority
// cannot tell and spends on their requests what it would on others.
type keyring struct {
	columns [keyPrimes][primeChoices]ringPrime
	next    atomic.Uint64
}

const (
	keyPrimes    = 8
	primeChoices = 16
	primeOctets  = 2048 / 8 / keyPrimes
	exponent     = 65537
)

type ringPrime struct{ p, d *big.Int } // d is the private exponent modulo p-1

func newKeyring() (*keyring, error) {
	ring := &keyring{}
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i := range keyPrimes * primeChoices {
		g.Go(func() (err error) {
			ring.columns[i/primeChoices][i%primeChoices], err = newRingPrime()
			return err
		})
	}
	return ring, g.Wait()
}

func newRingPrime() (ringPrime, error) {
	octets := make([]byte, primeOctets)
	for {
		if _, err := rand.Read(octets); err != nil {
			return ringPrime{}, err
		}
		octets[0] |= 0xF0 // so that the product of eight has 2048 bits: (15/16)^8 > 1/2
		octets[primeOctets-1] |= 1
		p := new(big.Int).SetBytes(octets)
		if !p.ProbablyPrime(20) {
			continue
		}
		if d := new(big.Int).ModInverse(big.NewInt(exponent), new(big.Int).Sub(p, big.NewInt(1))); d != nil {
			return ringPrime{p, d}, nil
		}
	}
}

// request returns a certification request for a key that no other request is for.
func (r *keyring) request(template *x509.CertificateRequest) ([]byte, error) {
	key := &ringKey{public: rsa.PublicKey{N: big.NewInt(1), E: exponent}}
	number := r.next.Add(1) - 1
	for i := range key.primes {
		key.primes[i] = r.columns[i][number%primeChoices]
		key.public.N.Mul(key.public.N, key.primes[i].p)
		number /= primeChoices
	}
	return x509.CreateCertificateRequest(rand.Reader, template, key)
}

// A ringKey is a key out of a keyring. It implements crypto.Signer.
type ringKey struct {
	public rsa.PublicKey
	primes [keyPrimes]ringPrime
}

func (k *ringKey) Public() crypto.PublicKey { return &k.public }

// sha256Prefix is the DER of a DigestInfo for SHA-256 up to the digest (RFC 8017 §9.2, note 1).
const sha256Prefix = "\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20"

// Sign makes a PKCS #1 v1.5 signature (RFC 8017 §8.2.1) over a SHA-256 digest, by the Chinese remainder theorem.
func (k *ringKey) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if opts.HashFunc() != crypto.SHA256 {
		return nil, errors.New("ring keys sign SHA-256 digests only")
	}
	const size = 2048 / 8
	padded := make([]byte, size)
	for i := range padded {
		padded[i] = 0xFF
	}
	padded[0], padded[1] = 0, 1
	body := append([]byte{0}, sha256Prefix...)
	copy(padded[size-len(body)-len(digest):], append(body, digest...))

	m, sum := new(big.Int).SetBytes(padded), new(big.Int)
	for _, q := range k.primes {
		others := new(big.Int).Quo(k.public.N, q.p)
		part := new(big.Int).Exp(m, q.d, q.p)
		part.Mul(part, new(big.Int).ModInverse(others, q.p))
		sum.Add(sum, part.Mul(part.Mod(part, q.p), others))
	}
	return sum.Mod(sum, k.public.N).FillBytes(padded), nil
}
