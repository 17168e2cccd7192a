// Package front is the HTTP/1.1 listener of the status service: it brings OCSP requests to an [ocsp.Exchanger] fast.
//
// It owns [Server], which reads HTTP with a parser of its own, as much of it as OCSP needs, and hands connections that
// turn to anything else (CRLs, CA certificates) to net/http on the same port. Server is also an http.Handler that answers
// the same, for embedding behind TLS, HTTP/2 or a router. It knows no OCSP beyond the base64 of a GET and keeps no log.
// It follows RFC 9110 and RFC 9112, RFC 6960 appendix A.1 and RFC 9440, and refuses what parsers could read differently.
// A Server is safe for concurrent use. Every wait has a limit, and so has the memory a connection may take.
// Start at Server.Serve to see connections come in and at conn.serve to see one served.
package front
