// Package cms reads and makes CMS signatures, CAdES among them, and says whether they are intact.
//
// It owns [SignedData], [Signature], [TimeStamp] and [Token]. Intact means: made by the key in this certificate, over
// this content, with these attributes. It says nothing of trust: no path is built, no status asked, no time believed.
// It follows RFC 5652 with 5035, 5940, 6211, 8419 and 8933, RFC 3161 with 5816, and ETSI EN 319 122-1. BER is read, DER is made.
// Parse and Sign keep no state; a SignedData may be verified by many at once. A broken signature is a Signature with a
// reason, not an error. Everything from outside has a limit: see [MaxBytes] and its neighbours.
// Start at Parse and SignedData.Verify; integrity.go holds every reason there is.
package cms
