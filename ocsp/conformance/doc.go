// Package conformance asks any OCSP responder hard questions and judges its answers, case by case.
//
// It owns the [Kit]: cases as files (kit/cases.json and kit/requests, described in kit/README.md), each with its RFC
// paragraph, what is sent octet by octet and what is required; [Kit.Run] sends them and returns a [Result] for each.
// It shares no code with the responder or the codec of package ocsp: what it reads, it reads by encoding/asn1 and net/http.
// It follows RFC 6960, RFC 9919, RFC 9654, RFC 9110 and RFC 9112. It opens a connection for every case and needs nothing of
// the responder but its address, its issuer's certificate and one serial number in force.
// A Kit is safe for concurrent use. Start at New and Kit.Run.
package conformance
