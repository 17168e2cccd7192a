// Package path builds and validates certification paths as RFC 5280 §6 says: may this certificate's key be relied upon, and why?
//
// It owns [Certificate], [CRL], [OCSP], the [Validator] and its [Result] with a [Code] from a closed list. It knows nothing of
// JPKI, opens no connection, reads no clock: anchors, pools, lists, answers, the time and what is wanted come with the call.
// It follows RFC 5280 §6 with RFC 9618's policy graph, RFC 5937 for anchors, RFC 6960 §4.2.2.2 for OCSP, in strict DER of its own reading.
// Every exported type is safe for concurrent use once made. A negative verdict is a Result, not an error; a status that was
// not established is undetermined, never good; all work is bounded by [Limits].
// Start at Validator.Validate; codes.go holds every verdict there is, limits.go every bound.
package path
