package sandbox

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"math/big"
	"runtime"

	"golang.org/x/sync/errgroup"
)

// TrialKeys makes n RSA-2048 keys for trials of many cards, some fifty times as fast as sound ones: every key is another
// pair out of a small pool of primes. Whoever has two of these public keys with a prime in common has both private keys
// by one GCD. They are for a sandbox's trial batches and for nothing else. progress is told how much of the work is done, 0 to 1.
func TrialKeys(ctx context.Context, n int, progress func(done float64)) ([]*rsa.PrivateKey, error) {
	size := 2
	for size*(size-1)/2 < n {
		size++
	}
	primes := make([]*big.Int, size)
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i := range primes {
		g.Go(func() (err error) {
			if err := ctx.Err(); err != nil {
				return err
			}
			for primes[i] == nil || new(big.Int).Mod(primes[i], big.NewInt(publicExponent)).Cmp(big.NewInt(1)) == 0 {
				if primes[i], err = rand.Prime(rand.Reader, 1024); err != nil {
					return err
				}
			}
			return nil
		})
		progress(float64(i) / float64(size) / 2)
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	keys := make([]*rsa.PrivateKey, n)
	next := 0
	for i := range primes {
		for j := range i {
			if next == n {
				break
			}
			k := next
			next++
			g.Go(func() (err error) {
				if err := ctx.Err(); err != nil {
					return err
				}
				keys[k], err = keyOf(primes[i], primes[j])
				return err
			})
		}
		progress(0.5 + float64(next)/float64(n)/2)
	}
	return keys, g.Wait()
}

const publicExponent = 65537

func keyOf(p, q *big.Int) (*rsa.PrivateKey, error) {
	one := big.NewInt(1)
	phi := new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one))
	d := new(big.Int).ModInverse(big.NewInt(publicExponent), phi)
	if d == nil || p.Cmp(q) == 0 {
		return nil, errors.New("these two primes make no key")
	}
	k := &rsa.PrivateKey{PublicKey: rsa.PublicKey{N: new(big.Int).Mul(p, q), E: publicExponent}, D: d, Primes: []*big.Int{p, q}}
	k.Precompute()
	return k, nil
}
