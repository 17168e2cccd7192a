// Package jpki is the vocabulary of a public key infrastructure in the manner of Japan's JPKI.
//
// It owns the words every other package speaks: [Serial], [IssuerID], [CertID], [Kind], [Status],
// [Reason], [Cause], [Actor], [Event], [Attributes] and [Error]. It does no I/O apart from writing
// an error as an HTTP problem, keeps no state and imports only the standard library. The terms are
// those of RFC 5280 and RFC 6960; docs/glossary.md gives the Japanese for each.
// Every type is a plain value and safe for concurrent use unless it says otherwise.
// Start at status.go for the life of a certificate and at errors.go for what can go wrong.
package jpki
