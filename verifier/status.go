package verifier

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"math/big"
	"slices"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/verifier/path"
)

// A StatusChecker says whether a certificate is revoked, from whatever source it has.
//
// Check is called with a certificate whose issuer is established. at is the time the verdict is about, never in the
// future; a checker that knows only the present answers for the present, and one that keeps the past may answer from
// data of that time or later. Check must return an error, preferably a [*StatusError], whenever it is in doubt: about who
// said it, of which certificate, or when; errors are logged, so they name no person. It must not block longer than ctx and must be safe for concurrent use.
type StatusChecker interface {
	Check(ctx context.Context, leaf, issuer *x509.Certificate, at time.Time) (Revocation, error)
}

// Unknown is the state of a certificate that its authority says it never issued; the other states are those of package jpki.
const Unknown jpki.State = "unknown"

// A Revocation is what a source said of one certificate, with the proof.
type Revocation struct {
	State      jpki.State  `json:"state"`                     // good, suspended, revoked or unknown
	Reason     jpki.Reason `json:"-"`                         // meaningful if RevokedAt is set; in JSON its name, as "reason"
	RevokedAt  *time.Time  `json:"revoked_at,omitempty"`      // since when it is suspended or revoked; nil if neither
	Source     string      `json:"source"`                    // URL or name of the source
	ThisUpdate time.Time   `json:"status_as_of"`              // when this was known to be true
	NextUpdate time.Time   `json:"next_update,omitzero"`      // until when the source stands by it; zero if it does not say
	CheckedAt  time.Time   `json:"checked_at"`                // when the source was asked
	Age        int         `json:"age_seconds"`               // from ThisUpdate to CheckedAt, at least 0; filled by the Verifier
	Evidence   []byte      `json:"evidence,omitempty"`        // what was signed, for OCSP the response in DER
	Format     string      `json:"evidence_format,omitempty"` // media type of Evidence; an OCSP response's algorithms are held against the policy

	signed []path.SignedBy // what Evidence is signed with, if it is known already
}

// MarshalJSON adds the reason by its name in RFC 5280 §5.3.1.
func (r Revocation) MarshalJSON() ([]byte, error) {
	type plain Revocation
	out := struct {
		plain
		Reason string `json:"reason,omitempty"`
	}{plain: plain(r)}
	if r.RevokedAt != nil {
		out.Reason = r.Reason.String()
	}
	return json.Marshal(out)
}

// A StatusFailure is a stable name for why a status could not be established.
type StatusFailure string

// The failures.
const (
	NotChecked         StatusFailure = "not-checked"         // no StatusChecker is configured
	NoSource           StatusFailure = "no-source"           // the certificate names no source and none is configured
	SourceNotAllowed   StatusFailure = "source-not-allowed"  // the certificate names only sources off the allow-list
	Unreachable        StatusFailure = "unreachable"         // no connection, or it broke
	TimedOut           StatusFailure = "timed-out"           // no answer in time
	HTTPFailure        StatusFailure = "http-failure"        // an answer, but not 200 with the right media type
	Redirected         StatusFailure = "redirected"          // the source points elsewhere; redirects are never followed
	AnswerTooLarge     StatusFailure = "answer-too-large"    //
	AnswerMalformed    StatusFailure = "answer-malformed"    //
	SourceRefused      StatusFailure = "source-refused"      // an OCSP error status
	NonceWrong         StatusFailure = "nonce-wrong"         // missing, or another: perhaps a replay
	ResponderWrong     StatusFailure = "responder-wrong"     // signature wrong, or the responder may not speak for this issuer
	OtherCertificate   StatusFailure = "other-certificate"   // the answer is about another certificate
	AnswerNotCurrent   StatusFailure = "answer-not-current"  // expired, older than the policy accepts, or of the future
	CheckFailed        StatusFailure = "check-failed"        // the checker returned an error without a name
	AnswerWeak         StatusFailure = "answer-weak"         // signed by an algorithm or key that the policy does not rely on, or not any more
	AnswerInconsistent StatusFailure = "answer-inconsistent" // a state that is none, or a revocation without time
)

// StatusFailures lists every failure.
var StatusFailures = []StatusFailure{
	NotChecked, NoSource, SourceNotAllowed, Unreachable, TimedOut, HTTPFailure, Redirected, AnswerTooLarge, AnswerMalformed, SourceRefused,
	NonceWrong, ResponderWrong, OtherCertificate, AnswerNotCurrent, CheckFailed, AnswerWeak, AnswerInconsistent,
}

// A StatusError says why a status could not be established and when to ask again.
type StatusError struct {
	Failure    StatusFailure
	RetryAfter time.Duration // zero if the source did not say
	Err        error         // the cause, for logs; may be nil
}

// Error joins failure and cause.
func (e *StatusError) Error() string {
	if e.Err == nil {
		return string(e.Failure)
	}
	return string(e.Failure) + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *StatusError) Unwrap() error { return e.Err }

// ask asks the checker; one that remembers is told how fresh the policy wants it.
func (e *evaluation) ask(ctx context.Context, leaf, issuer *x509.Certificate) (Revocation, error) {
	if c, ok := e.v.revocation.(*VerdictCache); ok {
		return c.check(ctx, leaf, issuer, e.at, e.demand.maxAge)
	}
	return e.v.revocation.Check(ctx, leaf, issuer, e.at)
}

// status establishes the state of leaf at e.at and returns the verdict on it. It writes the revocation data or the reason
// for their absence into the result.
func (e *evaluation) status(ctx context.Context, leaf, issuer *x509.Certificate) (Code, string) {
	failed := func(f StatusFailure, retry time.Duration) (Code, string) {
		e.res.StatusFailure = f
		e.res.RetryAfter = int((max(retry, 0) + time.Second - 1) / time.Second)
		if retry == 0 {
			e.res.RetryAfter = int(defaultRetry / time.Second)
		}
		return StatusNotEstablished, string(f)
	}
	if e.v.revocation == nil {
		return failed(NotChecked, 0)
	}
	rev, err := e.ask(ctx, leaf, issuer)
	if err != nil {
		e.res.Cause = err
		if se, ok := errors.AsType[*StatusError](err); ok {
			return failed(se.Failure, se.RetryAfter)
		}
		return failed(CheckFailed, 0)
	}
	// The checker proved who said it and of whom; how recent it must be is the policy's question. For a time in the past
	// the data must be of that time or later; that they are not of the future is measured by the clock.
	now := e.v.now()
	switch {
	case rev.ThisUpdate.IsZero(), rev.ThisUpdate.After(now.Add(e.v.skew)), rev.ThisUpdate.Before(e.at.Add(-e.demand.maxAge)),
		!rev.NextUpdate.IsZero() && rev.NextUpdate.Before(e.at.Add(-e.v.skew)):
		return failed(AnswerNotCurrent, 0)
	}
	if weak := e.demand.admitsProof(&rev, issuer, now); weak != nil {
		e.res.Cause = weak
		return failed(weak.Failure, 0)
	}
	switch rev.State {
	case jpki.Good, Unknown:
		rev.RevokedAt = nil
	case jpki.Suspended, jpki.Revoked:
		if rev.RevokedAt == nil || (rev.State == jpki.Suspended) != (rev.Reason == jpki.CertificateHold) {
			return failed(AnswerInconsistent, 0)
		}
	default:
		return failed(AnswerInconsistent, 0)
	}
	rev.Age = int(max(rev.CheckedAt.Sub(rev.ThisUpdate), 0) / time.Second)
	e.res.Revocation = &rev

	switch asOf := rev.ThisUpdate.UTC().Format(time.RFC3339); rev.State {
	case Unknown:
		return CertificateUnknown, "never issued, as of " + asOf
	case jpki.Good:
		// RFC 6960 §4.4.4: without an archive cutoff nothing obliges a source to remember what has expired.
		if rev.ThisUpdate.After(leaf.NotAfter) {
			return StatusAfterExpiry, "good as of " + asOf + ", after the certificate expired"
		}
		return OK, "good as of " + asOf
	default:
		since := rev.RevokedAt.UTC().Format(time.RFC3339)
		// At the present a revocation counts even if its time lies a little ahead: clocks differ.
		if e.past && rev.RevokedAt.After(e.at) && !compromisedThen(&rev, leaf, e.at) {
			return OK, "good at the time asked about; " + rev.Reason.String() + " only since " + since
		}
		code, known := revocationCodes[rev.Reason]
		if !known {
			code = RevokedUnspecified
		}
		return code, rev.Reason.String() + " since " + since
	}
}

// compromisedThen reports whether the proof of a later revocation says that the key was compromised by a time: see
// compromisedBefore. A proof that is no OCSP response says nothing of it here.
func compromisedThen(rev *Revocation, leaf *x509.Certificate, at time.Time) bool {
	if rev.Format != mediaResponse || rev.Reason != jpki.KeyCompromise && rev.Reason != jpki.CACompromise {
		return false
	}
	o, err := path.ParseOCSP(rev.Evidence)
	if err != nil {
		return true // it was read before, so one of two readers is wrong: the doubt counts
	}
	return slices.ContainsFunc(o.Answers, func(a path.OCSPAnswer) bool {
		return leaf.SerialNumber.Cmp(new(big.Int).SetBytes(a.Serial)) == 0 && !a.InvalidSince.IsZero() && !a.InvalidSince.After(at)
	})
}
