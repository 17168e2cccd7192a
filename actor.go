package jpki

import "context"

// A Role says on whose behalf an actor acts.
type Role string

// The roles; ca/lifecycle.go says which command each may give.
const (
	Counter    Role = "counter"     // a municipality's issuance counter (窓口端末)
	CallCentre Role = "call-centre" // takes loss reports at any hour
	Register   Role = "register"    // the resident register
	Responder  Role = "responder"   // a status server: may have OCSP keys certified and nothing else
	Verifying  Role = "verifier"    // an operator of a verifier (プラットフォーム事業者): acts for relying parties, its tenants
	Holder     Role = "holder"      // a person, for themselves: the actor's ID is the holder's
	System     Role = "authority"   // the authority itself: reconciliation, ceremonies
)

// An Actor is the authenticated party that gives a command.
type Actor struct {
	Role         Role
	ID           string // as enrolled, for example a station's name
	Municipality string // the only municipality it may act for; empty for none or, by role, for all
}

// String returns role and name, as the audit record shows them.
func (a Actor) String() string { return string(a.Role) + ":" + a.ID }

type requestIDKey struct{}

// WithRequestID returns a context that carries the request's identifier for logs and problems.
func WithRequestID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, requestIDKey{}, id)
}

// RequestID returns the identifier put there by [WithRequestID], or "".
func RequestID(ctx context.Context) string { s, _ := ctx.Value(requestIDKey{}).(string); return s }
