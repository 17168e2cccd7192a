// Package jws finds the signatures in a JSON or compact JWS and checks what can be checked by computing alone.
//
// It owns [Signature], [Header], [Object], [Stamp] and [Verdict], and makes signatures by [Sign]: values, digests, what was
// covered and, of JAdES, what the signer and later parties added. It says nothing of trust, and asks no clock: whose the key is
// and whether it was valid is for others. It follows RFC 7515, 7518 and 7797 (b64) and ETSI TS 119 182-1 (JAdES). It opens no
// address and no file, and uses no key for being sent along.
// A Signature does not change after Read; all methods may be called from many goroutines.
// Start at Read and Signature.Verify; header.go holds every header parameter that is understood.
package jws
