package verifier

// VerifyDigest is the primitive, for vectors.
var VerifyDigest = verifyDigest

// CodeOf is for TestDocumentCodes.
var CodeOf = codeOf
