package verifier

import (
	"context"
	"errors"
	"time"
)

// LoginInput is what comes back after a holder answered a challenge.
type LoginInput struct {
	ChallengeID string
	Audience    string // as at [Challenges.NewChallenge]
	Binding     []byte // as at [Challenges.NewChallenge]
	Certificate []byte // the authentication certificate, DER
	Signature   []byte // over [Challenge.Message]: RSA PKCS#1 v1.5, or ECDSA as DER
}

// Login says whether the holder of an authentication certificate answered a challenge. A challenge that is unknown,
// used, expired or for another audience or session is a [jpki.ChallengeInvalid] error; whatever the outcome, it is used
// up. Since the signature was made between challenge and answer, revoked and expired are final verdicts here. Steps:
//  1. consume the challenge
//  2. check the certificate under the authentication policy
//  3. check the signature over the challenge's message
//  4. establish the status
func (v *Verifier) Login(ctx context.Context, in LoginInput) (*Result, error) {
	if v.challenges == nil {
		return nil, errors.New("verify log-in: no challenges are configured")
	}
	if err := checkInput(in.Certificate, in.Signature); err != nil {
		return nil, err
	}
	// 1.
	ch, err := v.challenges.consume(in.ChallengeID, in.Audience, in.Binding)
	if err != nil {
		return nil, err
	}
	e, err := v.evaluate(ForAuthentication, time.Time{}, true)
	if err != nil {
		return nil, err
	}
	// 2.
	leaf, issuer, ok := e.certificate(in.Certificate)
	if !ok {
		return e.res, nil
	}
	// 3.
	hash := loginHash(leaf.PublicKey)
	h := hash.New()
	h.Write(ch.Message)
	if !e.signature(leaf, hash, h.Sum(nil), in.Signature) {
		return e.res, nil
	}
	// 4.
	return e.finish(ctx, leaf, issuer), nil
}
