// Package verifier says whether a certificate or a signature may be relied upon, and why: the library a bank links.
//
// It owns [Verifier], [Policy], [Result], [StatusChecker] and [Challenges]. It opens no database and no port, makes no
// request on its own except through the StatusChecker it is given, and never imports the authority.
// Its verdicts are those of ETSI EN 319 102-1; certificates follow RFC 5280, answers about them RFC 6960 (see [OCSP]).
// Every exported type is safe for concurrent use. A negative verdict is a [Result], not an error; what was not checked is
// never good: a status that cannot be established makes a verdict INDETERMINATE.
// Start at Verifier.Signature; codes.go holds every verdict there is and policy.go what is demanded.
package verifier
