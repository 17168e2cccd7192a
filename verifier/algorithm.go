package verifier

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"math/big"
)

// verifyDigest reports whether signature is by key over digest: RSA with PKCS#1 v1.5 padding (RFC 8017 §8.2.2, comparing
// the whole encoded message) or ECDSA as a DER SEQUENCE of r and s. It makes no statement about the strength of either.
func verifyDigest(key crypto.PublicKey, hash crypto.Hash, digest, signature []byte) bool {
	if !hash.Available() || len(digest) != hash.Size() {
		return false
	}
	switch k := key.(type) {
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(k, hash, digest, signature) == nil
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(k, digest, signature)
	}
	return false
}

// digestInfo holds the DER that precedes a digest in a PKCS#1 v1.5 encoded message (RFC 8017 §9.2 note 1).
var digestInfo = map[crypto.Hash]string{
	crypto.SHA256: "\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20",
	crypto.SHA384: "\x30\x41\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\x04\x30",
	crypto.SHA512: "\x30\x51\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03\x05\x00\x04\x40",
}

// signedOtherDigest reports whether a signature that does not verify is nevertheless by this RSA key, over another digest:
// then the data changed, not the signer. It explains a refusal and never leads to an acceptance.
func signedOtherDigest(key crypto.PublicKey, signature []byte) bool {
	k, ok := key.(*rsa.PublicKey)
	if !ok || len(signature) != k.Size() {
		return false
	}
	s := new(big.Int).SetBytes(signature)
	if s.Cmp(k.N) >= 0 {
		return false
	}
	em := s.Exp(s, big.NewInt(int64(k.E)), k.N).FillBytes(make([]byte, k.Size()))
	for hash, prefix := range digestInfo {
		pad := len(em) - 3 - len(prefix) - hash.Size()
		if pad < 8 {
			continue
		}
		head := append([]byte{0, 1}, bytes.Repeat([]byte{0xff}, pad)...)
		head = append(append(head, 0), prefix...)
		if bytes.HasPrefix(em, head) {
			return true
		}
	}
	return false
}

// certificateHash returns the hash function of an algorithm that certificates may be signed with, and false for others.
func certificateHash(a x509.SignatureAlgorithm) (crypto.Hash, bool) {
	switch a {
	case x509.SHA256WithRSA, x509.ECDSAWithSHA256:
		return crypto.SHA256, true
	case x509.SHA384WithRSA, x509.ECDSAWithSHA384:
		return crypto.SHA384, true
	case x509.SHA512WithRSA, x509.ECDSAWithSHA512:
		return crypto.SHA512, true
	}
	return 0, false
}
