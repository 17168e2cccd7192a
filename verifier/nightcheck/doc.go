// Package nightcheck checks a relying party's whole customer base against published CRLs and status snapshots, offline.
//
// A [Checker] reads lines, each a reference of the relying party's own and a certificate, and writes for each a [Result]: unchanged, or what has
// become of the certificate, since when as far as the source says, and how old the source is. With the results of an earlier night it tells
// what changed since. It fetches nothing, trusts the issuers it is given, and keeps nothing: memory does not grow with the lines. A line that cannot
// be read has a result that says so. It follows RFC 4180 (a line is a record) and NDJSON. A Checker is safe for concurrent use. Start at Checker.Check.
package nightcheck
