// Package signer asks another process for signatures, and answers who asks.
//
// A [Client] reaches jpki-signer over its unix socket and makes a [Key] of a name: a [crypto.Signer] that waits, reconnects
// and asks again while its deadline lasts. A [Server] admits peers by the kernel's word (SO_PEERCRED) and a [Rule] for each
// key, queues them fairly, has a [Backend] sign, verifies what comes back, and counts it in a chained [Meter]. It holds no
// key, no PIN and no vendor library: those are behind the Backend (see hsm/pkcs11). The protocol is ours, in wire.go.
// Every exported type is safe for concurrent use; a request is a digest, so that asking twice does no harm. Start at Open
// and at Server.Serve.
package signer
