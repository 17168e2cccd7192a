package acme

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"path"
	"time"

	"github.com/go-chi/chi/v5"
	stepacme "github.com/smallstep/certificates/acme"
	"go.step.sm/crypto/jose"
	"go.step.sm/crypto/keyutil"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/store"
)

// A judge returns the key that the payload of a challenge's response attests for a key authorization. Its error is the refusal;
// with the problems Malformed and Unavailable the challenge stays open.
type judge func(payload []byte, authorization string) (crypto.PublicKey, error)

// judge returns who judges an attestation's format, or nil for smallstep.
func (c *Config) judge(a Attestation) (judge, error) {
	switch a.Format {
	case androidKey:
		j, err := newAndroids(a, c.Now)
		if err != nil {
			return nil, err
		}
		return j.judge, nil
	case appAttest:
		j, err := newAppAttests(a, isSandbox(c.Root), c.Now)
		if err != nil {
			return nil, err
		}
		return j.judge, nil
	}
	return nil, nil
}

// A challengeAnswer is a request with an attestation on its way through smallstep, which checks who sends it and then asks
// for the challenge: there it is judged, so that smallstep finds a challenge that was decided already.
type challengeAnswer struct {
	judge judge
	body  []byte
}

type answerKey struct{}

// answerChallenge runs smallstep's handler; in a directory for a format of ours it judges the attestation itself.
func (e *Enrolment) answerChallenge(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if judge := e.judges[chi.URLParam(r, "provisionerID")]; judge != nil {
			body, err := io.ReadAll(r.Body) // which servePhone has bounded
			if err != nil {
				refuse(w, r, jpki.Errorf(jpki.Malformed, "the request broke off"))
				return
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
			r = r.WithContext(context.WithValue(r.Context(), answerKey{}, &challengeAnswer{judge, body}))
		}
		h(w, r)
	}
}

// judgeChallenge decides a pending challenge by the attestation in a request whose signature has been checked. Steps:
//  1. whose request it is: the account's that the challenge is for
//  2. judge the attestation
//  3. record how it ended, and the key, in one transaction
//
// What is no fault of the phone's, such as a status list that is too old, leaves the challenge open.
func (e *Enrolment) judgeChallenge(ctx context.Context, a *challengeAnswer, row store.ACMEAuthorization) (*stepacme.Challenge, error) {
	// 1.
	request, err := jose.ParseJWS(string(a.body))
	if err != nil || len(request.Signatures) != 1 {
		return nil, asACME(jpki.Errorf(jpki.Malformed, "the request is not one JWS"))
	}
	if path.Base(request.Signatures[0].Protected.KeyID) != row.Account {
		return nil, asACME(jpki.Errorf(jpki.Unauthorized, "the challenge is another account's"))
	}
	account, err := (accounts{e}).GetAccount(ctx, row.Account)
	if err != nil {
		return nil, err
	}
	authorization, err := stepacme.KeyAuthorization(row.Token, account.Key)
	if err != nil {
		return nil, asACME(err)
	}
	// 2.
	key, err := a.judge(request.UnsafePayloadWithoutVerification(), authorization)
	if p := jpki.ProblemOf(err); p == jpki.Unavailable || p == jpki.Malformed {
		if ours, ok := errors.AsType[*jpki.Error](err); ok && p == jpki.Unavailable {
			e.Log.LogAttrs(ctx, slog.LevelError, "the status list of attestation keys cannot be used", slog.Any("error", ours.Err), slog.String("request_id", jpki.RequestID(ctx)))
		}
		return nil, asACME(err)
	}
	// 3.
	var refusal *stepacme.Error
	if err != nil {
		refusal = stepacme.NewDetailedError(stepacme.ErrorBadAttestationStatementType, "%s", err)
		if errors.Is(err, errPhoneCannot) {
			refusal = stepacme.NewDetailedError(stepacme.ErrorRejectedIdentifierType, "%s", err)
		}
		row.ChallengeStatus, row.ChallengeError = string(stepacme.StatusInvalid), encodeError(refusal)
	} else {
		if row.Fingerprint, err = keyutil.Fingerprint(key); err != nil {
			return nil, asACME(err)
		}
		row.ChallengeStatus, row.ValidatedAt = string(stepacme.StatusValid), e.Now().UTC().Format(time.RFC3339)
	}
	err = e.Store.Update(ctx, func(tx *store.Tx) error {
		now, err := tx.ACMEAuthorization(row.ID)
		if err != nil {
			return err
		}
		if now.ChallengeStatus != string(stepacme.StatusPending) {
			return jpki.Errorf(jpki.Conflict, "the challenge has been decided meanwhile")
		}
		if refusal == nil {
			if err := tx.SetACMEAuthorization(row.ID, row.Status, row.Fingerprint); err != nil {
				return err
			}
		}
		return tx.SetACMEChallenge(row.ID, row.ChallengeStatus, row.ChallengeError, row.ValidatedAt)
	})
	return challenge(row), asACME(err)
}

// errPhoneCannot is what the phone itself reports.
var errPhoneCannot = errors.New("the phone reports that it cannot attest its key")
