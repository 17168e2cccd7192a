// Package ocsp answers and reads OCSP: is this certificate good, revoked or unknown at this moment?
//
// It owns [Request], [Response] and [CertID], the [Responder] that a status service serves, the [Keeper] that renews its
// keys, and what a relying party needs to believe an answer: [Response.Verify], [Response.Answer] and [Answer.Fresh].
// It keeps no answers itself and does not know where statuses come from: see [Shelf], [Statuses] and package ocsp/status.
// It follows RFC 6960, RFC 9919 (the lightweight profile) and RFC 9654 (nonces), in strict DER.
// Parsed values are plain data; a Responder is safe for concurrent use and refuses rather than guesses.
// Start at Responder.Exchange to see a request answered and at Response.Verify to see an answer checked.
package ocsp
