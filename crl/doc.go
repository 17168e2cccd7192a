// Package crl builds, checks, publishes and serves certificate revocation lists.
//
// [Build] encodes a list of [Entry] for a [Scope]: one municipality's part of what an issuer's key has certified, or all of
// it; complete, or a delta of what has changed. [Check] reads a list with other parsers and compares it with the one it is to
// replace; a [Publisher] lets nothing past that Check refuses; a [Server] hands the files out. The package decides about no
// certificate and stores no statuses: a [Source] tells it what is revoked and a [Log] what has changed. It knows no indirect
// CRLs. It follows RFC 5280 §5; files are served as RFC 2585 says. Lists may have any length: none is held in memory.
// Publisher and Server are safe for concurrent use, a directory may have several of both in several processes. Files are
// replaced whole: at any moment, and after any crash, each name shows a complete list that passed the check.
// Start at Publisher.Publish.
package crl
