package path

// A Code is a stable name for a verdict on a path.
type Code string

// The codes.
const (
	OK                 Code = "ok"
	NoIssuer           Code = "no-issuer"            // no certificate of the issuer is at hand, or none that may be one
	SignatureWrong     Code = "signature-wrong"      // no key of that name made the signature
	AlgorithmRefused   Code = "algorithm-refused"    // unknown, broken by policy, or not fit for the key
	AlgorithmExpired   Code = "algorithm-expired"    // relied upon once, but not any more at the time that counts
	KeyRefused         Code = "key-refused"          // the public key is malformed, of an unknown kind or too weak
	Malformed          Code = "malformed"            // an extension's value, or a name that must not be empty
	NotYetValid        Code = "not-yet-valid"        //
	Expired            Code = "expired"              //
	NotCA              Code = "not-ca"               // basicConstraints do not say it is an authority
	KeyUsageWrong      Code = "key-usage-wrong"      // the key is not for this
	PathTooLong        Code = "path-too-long"        // beyond a pathLenConstraint or what was asked for
	NameNotAdmitted    Code = "name-not-admitted"    // by nameConstraints
	PolicyMissing      Code = "policy-missing"       // a valid policy is required and there is none
	PolicyMappingWrong Code = "policy-mapping-wrong" // to or from anyPolicy
	UnknownCritical    Code = "unknown-critical"     // a critical extension that is not understood
	PurposeWrong       Code = "purpose-wrong"        // extKeyUsage does not admit what is wanted
	NameMismatch       Code = "name-mismatch"        // not issued for the name asked about
	ProfileViolated    Code = "profile-violated"     // something RFC 5280 §4 forbids issuers, if that was to be checked
	Revoked            Code = "revoked"              //
	StatusUndetermined Code = "status-undetermined"  // whether it is revoked could not be established
	LimitReached       Code = "limit-reached"        // too much work: there may be a path
)

// Codes lists every code.
var Codes = []Code{
	OK, NoIssuer, SignatureWrong, AlgorithmRefused, AlgorithmExpired, KeyRefused, Malformed, NotYetValid, Expired, NotCA, KeyUsageWrong, PathTooLong, NameNotAdmitted,
	PolicyMissing, PolicyMappingWrong, UnknownCritical, PurposeWrong, NameMismatch, ProfileViolated, Revoked, StatusUndetermined, LimitReached,
}

// A StatusCode is a stable name for why the status of a certificate is undetermined.
type StatusCode string

// The status codes.
const (
	StatusKnown        StatusCode = ""
	NotChecked         StatusCode = "not-checked"          // nobody asked for it
	NoData             StatusCode = "no-data"              // there is no list and no answer that concerns the certificate
	DataMisnamed       StatusCode = "data-misnamed"        // an answer about this number that does not name its issuer rightly
	DataMalformed      StatusCode = "data-malformed"       // or has a critical extension that is not understood
	DataNotCurrent     StatusCode = "data-not-current"     // of the future, out of date, or without end
	DataForged         StatusCode = "data-forged"          // no key that may speak for the issuer made the signature
	SignerRefused      StatusCode = "signer-refused"       // who made the signature may not, or has no valid path of its own
	ReasonsIncomplete  StatusCode = "reasons-incomplete"   // the lists do not cover every reason
	CertificateUnknown StatusCode = "certificate-unknown"  // the responder says it does not know it
	AfterExpiry        StatusCode = "after-expiry"         // the data are of after the certificate's end, when it may be forgotten
	StatusCircular     StatusCode = "status-circular"      // it depends on itself
	StatusLimitReached StatusCode = "status-limit-reached" // too much work
)

// StatusCodes lists every status code, in the order of what they tell: where several are true, the last counts.
var StatusCodes = []StatusCode{
	StatusKnown, NotChecked, NoData, DataMisnamed, AfterExpiry, DataNotCurrent, DataMalformed, DataForged, SignerRefused, StatusCircular, ReasonsIncomplete, CertificateUnknown, StatusLimitReached,
}
