package jpki

import (
	"errors"
	"fmt"
)

// A Problem is a stable name for a way in which a request can fail; it is itself an error, so that
// errors.Is(err, jpki.WeakKey) works. problems in problem.go says how each appears over HTTP.
type Problem string

// Error returns the name.
func (p Problem) Error() string { return string(p) }

// The problems, by who has to act.
const (
	// The caller's message.
	Malformed          Problem = "malformed"            // not the agreed syntax
	TooLarge           Problem = "too-large"            // beyond a stated limit
	MyNumberPresent    Problem = "my-number-present"    // contains a My Number
	BadRequestProof    Problem = "bad-request-proof"    // a certification request's own signature is wrong
	WeakKey            Problem = "weak-key"             // algorithm, size or shape of the key is not admitted
	KeyReused          Problem = "key-reused"           // the key is already certified
	MissingIdempotency Problem = "idempotency-required" // no Idempotency-Key header
	IdempotencyReused  Problem = "idempotency-reused"   // the same key with another body

	// Who the caller is.
	NoClientCertificate      Problem = "client-certificate-required"
	ClientCertificateExpired Problem = "client-certificate-expired"
	ClientCertificateInvalid Problem = "client-certificate-invalid"
	UnknownStation           Problem = "unknown-station"
	WrongMunicipality        Problem = "wrong-municipality"
	Unauthorized             Problem = "unauthorized" // no or a wrong access token
	Forbidden                Problem = "forbidden"    // known, but not allowed this

	// The state of things.
	NotFound           Problem = "not-found"
	UnknownHolder      Problem = "unknown-holder"
	UnknownToken       Problem = "unknown-token"
	UnknownCertificate Problem = "unknown-certificate"
	NotEligible        Problem = "not-eligible"         // age, guardianship, deceased or departed
	AlreadyCertified   Problem = "already-certified"    // the token has a live certificate of that kind
	NotRenewable       Problem = "not-renewable"        // outside the renewal window, or nothing to renew
	NoValidityLeft     Problem = "no-validity-left"     // card, stay or another cap ends too soon
	ForbiddenChange    Problem = "forbidden-transition" // the table of transitions has no such row
	EventConflict      Problem = "event-conflict"       // an event's identifier was used for other content
	Conflict           Problem = "conflict"             // somebody else changed it at the same time
	ChallengeInvalid   Problem = "challenge-invalid"    // unknown, used, expired or bound to something else
	EvidenceNotKept    Problem = "evidence-not-kept"    // the verdict is known, but not what it was reached from
	UnknownTenant      Problem = "unknown-tenant"       // the caller acts for no such relying party
	UnknownUser        Problem = "unknown-user"         // the relying party knows nobody by this identifier
	ConsentRequired    Problem = "consent-required"     // no consent in force covers this
	NotAvailableYet    Problem = "not-available-yet"    // no newer signature certificate than the one the relying party knows
	CursorExpired      Problem = "cursor-expired"       // what came behind that position is not kept any more

	// Ourselves.
	InProgress       Problem = "in-progress" // the same request is being worked on
	RateLimited      Problem = "rate-limited"
	Unavailable      Problem = "unavailable"
	DeadlineExceeded Problem = "deadline-exceeded" // the time that the caller or we allow is over
	MethodNotAllowed Problem = "method-not-allowed"
	Internal         Problem = "internal"
)

// An Error is a problem with what to tell the client and, apart from it, what to tell the log.
type Error struct {
	Problem Problem
	Detail  string // written for the client; never contains personal data or secrets
	Err     error  // the cause, for the log only; may be nil
}

// Error joins all parts, for logs.
func (e *Error) Error() string {
	s := string(e.Problem)
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap makes errors.Is find both the problem and the cause.
func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Problem}
	}
	return []error{e.Problem, e.Err}
}

// Errorf returns an [*Error] whose detail is the formatted text: it goes to the client.
func Errorf(p Problem, format string, args ...any) error {
	return &Error{Problem: p, Detail: fmt.Sprintf(format, args...)}
}

// WrapError returns an [*Error] with a cause that only the log sees.
func WrapError(p Problem, err error, detail string) error {
	return &Error{Problem: p, Detail: detail, Err: err}
}

// ProblemOf returns the problem an error is about; [Internal] for errors that name none.
func ProblemOf(err error) Problem {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Problem
	}
	if p, ok := errors.AsType[Problem](err); ok {
		return p
	}
	return Internal
}
