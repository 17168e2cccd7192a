package verifier

import (
	"crypto"

	"github.com/openjpki/jpki/verifier/primitive"
)

// VerifyDigest says what a bare signature is taken for, for vectors.
func VerifyDigest(public crypto.PublicKey, hash crypto.Hash, digest, signature []byte) bool {
	key, err := primitive.NewKey(public)
	return err == nil && checkValue(key, hash, digest, signature) == OK
}

// CodeOf is for TestDocumentCodes.
var CodeOf = codeOf
