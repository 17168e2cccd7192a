package verifier

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/openjpki/jpki/verifier/primitive"
)

// schemeOf returns the algorithm of a bare signature by a key over a digest: RSA with PKCS#1 v1.5 padding (RFC 8017 §8.2) or
// ECDSA as a DER SEQUENCE of r and s.
func schemeOf(key *primitive.Key, hash crypto.Hash) primitive.Algorithm {
	if key.Kind == primitive.RSA {
		return primitive.Algorithm{Scheme: primitive.PKCS1v15, Hash: hash}
	}
	return primitive.Algorithm{Scheme: primitive.ECDSA, Hash: hash}
}

// checkValue returns the verdict on a bare signature. That it is by this key over another digest explains a refusal: the data
// changed, not the signer.
func checkValue(key *primitive.Key, hash crypto.Hash, digest, signature []byte) Code {
	if primitive.Verify(key, schemeOf(key, hash), digest, signature) == nil {
		return OK
	}
	if _, _, other := primitive.SignedDigest(key, signature); other {
		return DigestMismatch
	}
	return SignatureWrong
}

// keyOf returns the key of a certificate that crypto/x509 read; keys for RSA-PSS alone, which policies do not know here, are none.
func keyOf(cert *x509.Certificate) (*primitive.Key, error) {
	key, err := primitive.NewKey(cert.PublicKey)
	if err != nil {
		return nil, errors.New("key that is neither RSA nor ECDSA, or beyond the limits") // the cause may quote contents
	}
	return key, nil
}

// errAlgorithmExpired reports an algorithm that the policy admits for an earlier time only.
var errAlgorithmExpired = errors.New("relied upon only until")

// admits reports why the policy does not admit a signature by a key at a time, or nil.
func (d *demand) admits(key *primitive.Key, alg primitive.Algorithm, at time.Time) error {
	name := algorithmName(key, alg)
	switch {
	case key.Kind == primitive.RSA && (key.Bits > maxRSABits || key.Exponent < 65537): // SP 800-56B §6.2: smaller exponents have a history
		return fmt.Errorf("RSA key of %d bits with exponent %d", key.Bits, key.Exponent)
	case name == "":
		return errors.New(alg.String() + " by a key of " + key.String())
	}
	var until time.Time
	for _, a := range d.Algorithms {
		if a.Key != name || a.MinBits > key.Bits || !slices.ContainsFunc(a.Hashes, func(h string) bool { return hashNames[h] == alg.Hash }) {
			continue
		}
		if a.Until.IsZero() || !at.After(a.Until) {
			return nil
		}
		if a.Until.After(until) {
			until = a.Until
		}
	}
	what := fmt.Sprintf("%s with %s", key, primitive.HashName(alg.Hash))
	if !until.IsZero() {
		return fmt.Errorf("%s is %w %s", what, errAlgorithmExpired, until.UTC().Format(time.RFC3339))
	}
	return errors.New(what)
}
