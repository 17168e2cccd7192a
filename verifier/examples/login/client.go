package main

import (
	"context"
	"errors"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/verifier/client"
)

// byClient asks by the Go client, which repeats by itself what broke off.
type byClient struct{ c *client.Client }

func withClient(url, token string) (byClient, error) {
	c, err := client.New(client.Config{URL: url, Token: token})
	return byClient{c}, err
}

func (b byClient) challenge(ctx context.Context, origin, binding string) (challenge, error) {
	c, err := b.c.Challenge(ctx, client.Session{Audience: origin, Binding: binding})
	if err != nil {
		return challenge{}, err
	}
	return challenge{c.ID, c.Message}, nil
}

func (b byClient) login(ctx context.Context, id string, certificate, signature []byte, origin, binding string) (answer, error) {
	v, err := b.c.Login(ctx, client.LoginRequest{ChallengeID: id, Certificate: certificate, Signature: signature, Session: client.Session{Audience: origin, Binding: binding}, Identify: client.Identify{IdentifyUser: true}})
	if _, ok := errors.AsType[*jpki.Error](err); ok {
		return answer{code: string(jpki.ProblemOf(err))}, nil
	}
	if err != nil {
		return answer{}, err
	}
	out := answer{ok: v.OK(), code: v.Code}
	if v.User != nil {
		out.user = v.User.ID
	}
	return out, nil
}
