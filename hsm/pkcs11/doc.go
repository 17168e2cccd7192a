// Package pkcs11 uses keys in tokens through a vendor's PKCS #11 library, each token in a process of its own.
//
// A [URI] names a token, a key in it and where its PIN is. A [Slot] keeps a child process alive that has loaded the library,
// logged in and found the keys ([Work] is that process's whole life): a library that crashes, hangs or has lost its
// sessions costs one restart of the child. A [Key] signs through one of several slots and waits while none is there.
// It has no policy and speaks to no peers (see hsm/signer, whose protocol the child speaks too). It follows PKCS #11 v2.40
// and RFC 7512. Only Work needs cgo; without it, it says so. Slots and keys are safe for concurrent use. A PIN that a token
// refused is never tried again. Start at NewSlot.
package pkcs11
