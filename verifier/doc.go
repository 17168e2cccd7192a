// Package verifier says whether a certificate, a signature or a signed document may be relied upon, and why: the library a bank links.
//
// It owns [Verifier], [Policy], [Result], [DocumentResult], [Evidence], [StatusChecker] and [Challenges]. It opens no database and no
// port, makes no request on its own except through the sources it is given, and never imports the authority.
// Its verdicts are those of ETSI EN 319 102-1; certificates follow RFC 5280, answers about them RFC 6960, time-stamps RFC 3161.
// Every exported type is safe for concurrent use. A negative verdict is a result, not an error; what was not checked is
// never good: a status that cannot be established makes a verdict INDETERMINATE.
// Start at Verifier.Document, or Verifier.Signature for a bare value; codes.go and document_codes.go hold every verdict there is.
package verifier
