package path

import (
	"crypto"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/openjpki/jpki/verifier/primitive"
)

// Algorithms says which signatures and keys are relied upon. What is in no row is refused by its name.
type Algorithms struct {
	Keys    []KeyRule
	Schemes []primitive.Scheme
	Hashes  []crypto.Hash // also of PSS's mask generation
	// Rows, if there are any, take the place of the three: one of them must admit key, scheme and hash together, and at the
	// time that counts (see Request.AlgorithmsAt).
	Rows []AlgorithmRow
}

// An AlgorithmRow admits signatures of one kind, for good or until some day, as ETSI TS 119 312 has it.
type AlgorithmRow struct {
	Key    KeyRule
	Scheme primitive.Scheme
	Hashes []crypto.Hash // not of Ed25519, which has its own
	Until  time.Time     // the last moment; zero means that no end is known
}

// A KeyRule admits keys of one kind.
type KeyRule struct {
	Kind             primitive.KeyKind
	MinBits, MaxBits int // of RSA; 0 means no bound of ours
}

// StandardAlgorithms returns what is admitted unless a Config says otherwise: at least 112 bits of strength, no SHA-1.
func StandardAlgorithms() Algorithms {
	return Algorithms{
		Keys: []KeyRule{
			{Kind: primitive.RSA, MinBits: 2048, MaxBits: 8192},
			{Kind: primitive.P256},
			{Kind: primitive.P384},
			{Kind: primitive.P521},
			{Kind: primitive.Edwards25519},
		},
		Schemes: []primitive.Scheme{primitive.PKCS1v15, primitive.PSS, primitive.ECDSA, primitive.Ed25519},
		Hashes:  []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512, crypto.SHA3_256, crypto.SHA3_384, crypto.SHA3_512},
	}
}

// checkKey returns why a certificate's key is refused.
func (a *Algorithms) checkKey(c *Certificate) (*primitive.Key, *problem) {
	key, err := c.Key()
	if err != nil {
		return nil, &problem{KeyRefused, err.Error()}
	}
	if slices.ContainsFunc(a.Keys, func(r KeyRule) bool { return r.admits(key) }) || slices.ContainsFunc(a.Rows, func(r AlgorithmRow) bool { return r.Key.admits(key) }) {
		return key, nil
	}
	return nil, &problem{KeyRefused, "public key: " + key.String() + " is not admitted"}
}

func (r KeyRule) admits(key *primitive.Key) bool {
	return r.Kind == key.Kind && key.Bits >= r.MinBits && (r.MaxBits == 0 || key.Bits <= r.MaxBits)
}

// checkRows returns why no row admits a signature by key that counts at a time.
func (a *Algorithms) checkRows(key *primitive.Key, alg primitive.Algorithm, at time.Time) *problem {
	var until time.Time
	for _, r := range a.Rows {
		if !r.Key.admits(key) || r.Scheme != alg.Scheme || alg.Scheme != primitive.Ed25519 && !slices.Contains(r.Hashes, alg.Hash) ||
			alg.Scheme == primitive.PSS && !slices.Contains(r.Hashes, alg.MGF) {
			continue
		}
		if r.Until.IsZero() || !at.After(r.Until) {
			return nil
		}
		if r.Until.After(until) {
			until = r.Until
		}
	}
	what := alg.String() + " by a key of " + key.String()
	if until.IsZero() {
		return &problem{AlgorithmRefused, "signature algorithm: " + what + " is not admitted"}
	}
	return &problem{AlgorithmExpired, "signature algorithm: " + what + " is relied upon until " + until.UTC().Format(time.RFC3339) + " only"}
}

// checkAlgorithm returns why a signature algorithm is refused.
func (a *Algorithms) checkAlgorithm(alg primitive.Algorithm) *problem {
	ok := slices.Contains(a.Schemes, alg.Scheme)
	if alg.Scheme != primitive.Ed25519 {
		ok = ok && slices.Contains(a.Hashes, alg.Hash)
	}
	if alg.Scheme == primitive.PSS {
		ok = ok && slices.Contains(a.Hashes, alg.MGF)
	}
	if !ok {
		return &problem{AlgorithmRefused, "signature algorithm: " + alg.String() + " is not admitted"}
	}
	return nil
}

// A signed is something with a signature: a certificate, a list, an answer.
type signed struct {
	sum       [32]byte // SHA-256 of all of it
	message   []byte
	algorithm primitive.Algorithm
	err       error // why the algorithm could not be read
	signature []byte
}

// verifyData is verify for lists, answers and who signed them.
func (j *job) verifyData(s signed, signer *Certificate) *problem {
	return j.verify(&s, signer, j.dataAt)
}

// verify returns why signer's key did not sign s, nil if it did. at is when the algorithms must be relied upon. The algorithm
// policy is asked every time; that a signature is right is remembered, for the call and in the cache.
func (j *job) verify(s *signed, signer *Certificate, at time.Time) *problem {
	if s.err != nil {
		return &problem{AlgorithmRefused, s.err.Error()}
	}
	rules := &j.v.algorithms
	if rules.Rows == nil {
		if p := rules.checkAlgorithm(s.algorithm); p != nil {
			return p
		}
	}
	key, p := rules.checkKey(signer)
	if p == nil && rules.Rows != nil {
		p = rules.checkRows(key, s.algorithm, at)
	}
	if p != nil {
		return p
	}
	id := verified{s.sum, signer.SPKISHA256}
	known, seen := j.signatures[id]
	switch {
	case seen && known == nil:
		return nil
	case seen:
		return known
	case j.v.cache.knows(id):
		j.work.Remembered++
		return nil
	case j.work.Signatures >= j.v.limits.Signatures:
		j.exhausted = true
		return &problem{LimitReached, "more signatures than admitted"}
	}
	j.work.Signatures++
	if err := primitive.VerifyMessage(key, s.algorithm, s.message, s.signature); err != nil {
		p = &problem{SignatureWrong, "the signature is not by this key"}
		if !errors.Is(err, primitive.ErrWrong) {
			p = &problem{AlgorithmRefused, fmt.Sprintf("signature: %v", err)}
		}
	} else {
		j.v.cache.remember(id)
	}
	if j.signatures == nil {
		j.signatures = map[verified]*problem{}
	}
	j.signatures[id] = p
	return p
}

// signedPart returns what a certificate's issuer signed.
func (c *Certificate) signedPart() signed {
	alg, err := c.Algorithm()
	return signed{sum: c.SHA256, message: c.tbs, algorithm: alg, err: err, signature: c.Signature}
}
