// Package bucket puts published CRLs and status snapshots into a bucket of an S3-compatible object store, and never an older one over a newer.
//
// A [Bucket] is the store's side: signed requests to get, look at and conditionally put one object. A [Mirror] keeps a bucket
// in step with the directories that a crl.Publisher and a snapshot.Publisher write to; several may work for one bucket, from directories of their own. The
// package makes neither; it verifies each before it goes out. It follows AWS Signature Version 4 and RFC 9110 §13 (conditional
// requests): the store must honour If-Match and If-None-Match of PUT. Both types are safe for concurrent use. Whatever is killed
// or races, a list in the bucket is whole and its number only grows, and an index names whole files that are there. Start at Mirror.Sync.
package bucket
