package verifier

// VerifyDigest is the primitive, for vectors.
var VerifyDigest = verifyDigest
