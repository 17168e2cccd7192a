package ocsp

import "context"

// A Query is one OCSP request, freed of the protocol that brought it. The responder keeps nothing of it.
type Query struct {
	Request         []byte // DER
	GET             bool   // a cache between us and the client may keep the answer
	IfNoneMatch     string // of a GET, as sent
	IfModifiedSince string // of a GET, as sent
	Client          Client
}

// A Client is who asks, as far as the listener knows. The zero value is somebody nobody knows.
type Client struct {
	Address     string // IP address, without the port
	Certificate []byte // SHA-256 of the client certificate that the TLS terminator in front of us vouched for; nil without
}

// A Reply is what goes back: an HTTP status, header fields and a body. Its slices are shared and must not be changed.
type Reply struct {
	Code int
	Head []byte // complete header lines, each ended by CRLF, without Date, Content-Length and Connection
	Body []byte // empty for 304
}

// An Exchanger turns a query into its reply; a [Responder] is one. It is called by many goroutines at once.
type Exchanger interface {
	Exchange(ctx context.Context, q *Query) Reply
}
