// Package primitive checks one signature value, under one algorithm, by one public key.
//
// It owns [Key], [Algorithm] and the names algorithms go by in X.509, CMS, XML-DSig and JOSE.
// It has no opinion on strength: SHA-1 and RSA-1024 are checked like the rest, and a caller's policy refuses them by the
// facts it finds in Algorithm and Key. What is known but never checked here (DSA, Ed448, MD5…) is refused by name.
// Signatures follow RFC 8017, FIPS 186-5 and RFC 8032; identifiers RFC 4055, 5480, 5758, 8410, 9688, 7518, 9231.
// Everything is safe for concurrent use; errors wrap one of [ErrMalformed], [ErrUnsupported], [ErrMismatch], [ErrWrong].
// Start at Verify; names.go holds every algorithm there is.
package primitive
