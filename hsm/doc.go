// Package hsm opens signing keys by URI.
//
// A URI names a key and where it is kept; [Open] turns it into a [crypto.Signer] and [Create] makes a new key of one
// [Algorithm]. The package issues nothing, knows no certificates and never exports a private key.
// Keys in files are PKCS #8 (RFC 5958) in PEM (RFC 7468), named by file URIs (RFC 8089); keys that jpki-signer uses for us
// are named by signer URIs (see hsm/signer), and those in tokens, behind it, by PKCS #11 URIs (RFC 7512; see hsm/pkcs11).
// Signers are safe for concurrent use; a key that cannot sign and verify is refused when it is opened, not when it is needed.
// Start at Open.
package hsm
