// Package snapshot writes and reads signed files that tell the status of every certificate of one issuer's key in little more
// than half a bit each, so that a relying party checks all its customers at home and nobody learns who they are.
//
// [Build] makes a snapshot of a whole universe of certificates, [BuildDelta] what has changed since; [Open] checks one and
// gives a [Snapshot], [Snapshot.Apply] brings it up to date, [Snapshot.Lookup] answers. For the certificates of the universe the
// answers are exact. They are arbitrary for serials that were never issued: a snapshot says what became of a certificate whose
// signature has been verified, never whether there is one. A [Publisher] keeps a directory of both up to date, a [Server] hands it
// out, [OpenDir] opens a copy of it. The package decides about no certificate and
// fetches nothing. The format is its own and described in docs/snapshot-format.md. A Snapshot is immutable and safe for concurrent
// use; what fails a check is refused whole. Start at Snapshot.Lookup.
package snapshot
