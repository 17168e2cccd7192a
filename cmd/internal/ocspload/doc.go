// Package ocspload puts an OCSP responder under load with real requests and tells what it did.
//
// It owns the [Target] (a certificate with the answer expected for it), the [Set] of requests made from targets before the
// clock starts, [Run], which replays a set over keep-alive connections and returns a [Result], and [Canary], which measures
// how long a revocation takes to be visible. It serves nothing and issues nothing.
// Latencies of an open loop count from the time a request was due, so a responder that stalls is not flattered by requests
// that were never sent (coordinated omission). HTTP is RFC 9112, OCSP RFC 6960; samples are verified by package ocsp.
// A Set is read-only and shared by connections, each with a goroutine of its own. Start at NewSet and Run.
package ocspload
