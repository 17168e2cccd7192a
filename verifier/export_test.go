package verifier

import (
	"context"
	"crypto"
	"crypto/x509"
	"time"

	"github.com/openjpki/jpki/verifier/primitive"
)

// VerifyDigest says what a bare signature is taken for, for vectors.
func VerifyDigest(public crypto.PublicKey, hash crypto.Hash, digest, signature []byte) bool {
	key, err := primitive.NewKey(public)
	return err == nil && checkValue(key, hash, digest, signature) == OK
}

// CodeOf is for TestDocumentCodes.
var CodeOf = codeOf

// CheckFresh asks a cache as a Verifier does, for a policy.
func CheckFresh(ctx context.Context, c *VerdictCache, leaf, issuer *x509.Certificate, at time.Time, maxAge time.Duration) (Revocation, error) {
	return c.check(ctx, leaf, issuer, at, maxAge)
}

// Remembered counts what a cache has.
func Remembered(c *VerdictCache) int { return len(c.young) + len(c.old) }
