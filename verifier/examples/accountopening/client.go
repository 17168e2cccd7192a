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

func (b byClient) verify(ctx context.Context, a application) (answer, error) {
	sum, hash := digest(a)
	v, err := b.c.VerifySignature(ctx, client.SignatureRequest{
		Certificate: a.certificate, Digest: sum, Hash: hash, Signature: a.signature,
		Keep: client.Keep{User: a.customer, Identify: client.Identify{IdentifyUser: true, Purpose: purpose}},
	})
	if code := problemOf(err); err != nil {
		return answer{code: code}, unlessProblem(err)
	}
	out := answer{ok: v.OK(), code: v.Code, evidence: v.ID}
	if v.User != nil {
		out.user = v.User.ID
	}
	if v.Attributes != nil {
		out.attributes = &attributes{v.Attributes.Name, v.Attributes.Address, string(v.Attributes.BirthDate), string(v.Attributes.Sex)}
	}
	return out, nil
}

func (b byClient) follow(ctx context.Context, user string) (code string, err error) {
	out, err := b.c.CreateWatches(ctx, client.Watch{User: user, Purpose: purpose})
	if err == nil && len(out.Unknown) > 0 {
		return string(jpki.UnknownUser), nil
	}
	return problemOf(err), unlessProblem(err)
}

// problemOf names the verifier's problem; empty if there is none.
func problemOf(err error) string {
	if _, ok := errors.AsType[*jpki.Error](err); !ok {
		return ""
	}
	return string(jpki.ProblemOf(err))
}

// unlessProblem returns an error that is no problem of the verifier's.
func unlessProblem(err error) error {
	if problemOf(err) != "" {
		return nil
	}
	return err
}
