// Package c14n reads XML documents into nodes and writes any set of them in a canonical form.
//
// It owns [Document], [Set], [Method] and [Expression]; it knows nothing of signatures.
// It reads XML 1.0 with namespaces, octets as they were signed: no external entity, file or address is ever opened, and
// work, depth and sizes are bounded by [Limits]. It writes Canonical XML 1.0 and 1.1 and Exclusive XML Canonicalization 1.0,
// each with and without comments, and selects nodes by XPath 1.0.
// A Document does not change after Parse and may be used by many goroutines at once.
// Start at Parse and Set.Write; write.go holds the rules of the canonical forms.
package c14n
