package cms

// An Integrity says whether what was signed is what is there, or why that is not so: a closed list.
type Integrity string

// What can be said of a signature, a counter-signature or a time-stamp, in the order in which it is found out. After
// each stands the sub-indication of ETSI EN 319 102-1 §5.1.3 it leads to.
const (
	Intact              Integrity = "intact"
	Malformed           Integrity = "malformed"             // not the syntax of the standard: FORMAT_FAILURE
	UnknownAlgorithm    Integrity = "unknown-algorithm"     // nothing that can be checked here: FORMAT_FAILURE
	AlgorithmMismatch   Integrity = "algorithm-mismatch"    // two fields name different algorithms, or the key is of another kind: SIG_CRYPTO_FAILURE
	AttributesMissing   Integrity = "attributes-missing"    // signed attributes are there, but not the two that bind the content: FORMAT_FAILURE
	AttributesAmbiguous Integrity = "attributes-ambiguous"  // an attribute that decides something occurs twice: FORMAT_FAILURE
	AttributesAsContent Integrity = "attributes-as-content" // another signature's attributes, passed off as content: FORMAT_FAILURE
	ContentTypeMismatch Integrity = "content-type-mismatch" // the signed content type is another: FORMAT_FAILURE
	NoCertificate       Integrity = "no-certificate"        // the signer's certificate is not at hand: NO_SIGNING_CERTIFICATE_FOUND
	CertificateMismatch Integrity = "certificate-mismatch"  // the signed reference is to another certificate: NO_SIGNING_CERTIFICATE_FOUND
	SignatureWrong      Integrity = "signature-wrong"       // SIG_CRYPTO_FAILURE
	ContentMissing      Integrity = "content-missing"       // detached, and nobody brought it: SIGNED_DATA_NOT_FOUND
	ContentMismatch     Integrity = "content-mismatch"      // signed right, over something else: HASH_FAILURE
	NotChecked          Integrity = "not-checked"           // a time-stamp of a kind that is recognised only; never to be taken for Intact
)

// A Level is how far a signature has been prepared for the future (ETSI EN 319 122-1 §6). It says what is there, and for
// time-stamps that they cover what they should; whether any of it is to be trusted is another question.
type Level string

// The levels.
const (
	LevelCMS Level = "CMS"         // no signed reference to the signer's certificate: not CAdES
	LevelBES Level = "CAdES-BES"   // with that reference, without a signing time
	LevelB   Level = "CAdES-B-B"   // with both
	LevelT   Level = "CAdES-B-T"   // and an intact time-stamp over the signature
	LevelLT  Level = "CAdES-B-LT"  // and certificates and revocation information
	LevelLTA Level = "CAdES-B-LTA" // and an intact archive time-stamp over all this
)
