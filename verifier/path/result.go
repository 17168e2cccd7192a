package path

import (
	"time"

	"github.com/openjpki/jpki"
)

// A Result is the verdict on a path with the facts it rests on.
type Result struct {
	Code     Code
	Detail   string         // for people; names no person
	Index    int            // of the certificate in Path that Code is about; len(Path) is the anchor, -1 none
	Path     []*Certificate // the certificate asked about first, then issuers; the best that was found if no path is valid
	Anchor   *Certificate   // nil if no anchor was reached
	Policies []ValidPolicy  // the user-constrained-policy-set; AnyPolicy in it means that nothing limits it
	Statuses []Status       // one for each certificate of a path that is valid or fails by status only; otherwise empty
	Work     Work

	// LimitReached says that not everything was tried. A path that was found valid is not affected.
	LimitReached bool
}

// OK reports whether there is a valid path, as far as was asked for.
func (r *Result) OK() bool { return r.Code == OK }

// A State is what is known of a certificate's revocation.
type State string

// The states. Undetermined is not good: it says that nothing is known.
const (
	Good         State = "good"
	IsRevoked    State = "revoked" // or on hold: see Reason
	Undetermined State = "undetermined"
)

// A Status is the revocation status of one certificate, with what proves it.
type Status struct {
	Certificate *Certificate
	State       State
	Reason      jpki.Reason // if revoked
	Since       time.Time   // if revoked
	// InvalidSince is when the key was, or may have been, compromised, if who revoked it says so (invalidityDate, RFC 5280
	// §5.3.2; in answers by OCSP RFC 6960 §4.4.5); otherwise zero. It may lie before Since.
	InvalidSince time.Time
	Later        bool       // revoked only after the time asked about, and so good at that time: Reason and Since say when and why
	Why          StatusCode // if undetermined
	Detail       string
	Evidence     []Evidence // what State rests on
}

// Evidence is one list or answer.
type Evidence struct {
	Kind       string // "crl", "delta-crl" or "ocsp"
	SHA256     [32]byte
	ThisUpdate time.Time
	NextUpdate time.Time // zero if absent
	Signer     *Certificate
	Raw        []byte
}

// A problem is why something is refused.
type problem struct {
	code   Code
	detail string
}
