// Package bucket puts published CRLs into a bucket of an S3-compatible object store, and never an older one over a newer.
//
// A [Bucket] is the store's side: signed requests to get, look at and conditionally put one object. A [Mirror] keeps a bucket
// in step with the directory that a crl.Publisher writes to; several may work for one bucket, from directories of their own. The
// package makes no CRLs; it verifies each before it goes out. It follows AWS Signature Version 4 and RFC 9110 §13 (conditional
// requests): the store must honour If-Match and If-None-Match of PUT. Both types are safe for concurrent use. Whatever is killed
// or races, an object is at any moment a whole list, and its number only grows. Start at Mirror.Sync.
package bucket
