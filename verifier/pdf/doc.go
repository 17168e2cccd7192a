// Package pdf reads and makes signatures in PDF documents, PAdES among them, and says what they cover and what came after.
//
// It owns [Document], [Signature], [Verdict], [Change] and [Store]. It computes: whether a signature is intact, whether it
// covers its revision entirely, what later revisions changed. It says nothing of trust: no path, no status, no time is believed.
// It follows ISO 32000-2 §7, §12.7.5.5 and §12.8 and ETSI EN 319 142-1; CMS is package cms's. Files are read in place, never
// repaired, and bounded: see [MaxRevisions] and its neighbours. A Document does not change after Read; many may use it at once.
// Start at Read, Document.Verify and Sign; rules.go holds the table of what may change after a signature.
package pdf
