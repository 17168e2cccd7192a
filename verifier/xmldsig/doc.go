// Package xmldsig finds the signatures in an XML document and checks what can be checked by computing alone.
//
// It owns [Signature], [Reference], [KeyInfo], [Properties] and [Verdict]: values, digests, what was covered and, of XAdES,
// what the signer and later parties added. It says nothing of trust: whose the key is and whether it was valid is for others.
// It follows XML-DSig 1.1 (RFC 3275, RFC 9231 for algorithms) and XAdES (EN 319 132-1, TS 101 903). It opens no address by
// itself; transforms are those listed in transform.go, and work is bounded by c14n.Limits.
// A Signature does not change after Read; all methods may be called from many goroutines.
// Start at Read and Signature.Verify.
package xmldsig
