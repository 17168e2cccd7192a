package api

import (
	"encoding/base64"
	"net/http"
	"time"

	"github.com/openjpki/jpki/ca/client"
)

// The holder's part: whoever has a token with the scope holder passes on what the holder signs with the authentication certificate,
// and the authority's answer. The authority checks the signature, which is bound to one request.

// holderLogin begins a request.
func (a *API) holderLogin(c call) (reply, error) {
	authority, err := a.authority()
	if err != nil {
		return reply{}, err
	}
	f, err := c.fields("action", "consent?")
	if err != nil {
		return reply{}, err
	}
	ask := client.HolderAsk{Action: client.HolderAction(f.text("action")), Consent: f.text("consent")}
	l, err := authority.HolderLogin(c.Context(), ask)
	if err != nil {
		return reply{}, theirs(err)
	}
	message, err := l.Message(ask)
	if err != nil {
		return reply{}, theirs(err)
	}
	return reply{http.StatusCreated, struct {
		Challenge string    `json:"challenge"`
		Nonce     []byte    `json:"nonce"`
		Audience  string    `json:"audience"`
		ExpiresAt time.Time `json:"expires_at"`
		Message   []byte    `json:"message"`
	}{l.Challenge, l.Nonce, l.Audience, l.ExpiresAt, message}, answered}, nil
}

var proofMembers = []string{"challenge", "certificate", "signature"}

// proof reads what the holder signed.
func (f *fields) proof() client.HolderProof {
	return client.HolderProof{Challenge: f.text("challenge"), Certificate: client.PEM(f.octets("certificate")), Signature: f.octets("signature")}
}

func (a *API) holderRecord(c call) (reply, error) {
	authority, err := a.authority()
	if err != nil {
		return reply{}, err
	}
	f, err := c.fields("challenge?", "certificate?", "signature?", "next?")
	if err != nil {
		return reply{}, err
	}
	proof := client.HolderProof{Next: f.text("next")}
	if f.has("next") {
		err = f.without(proofMembers...)
	} else if err = f.require(proofMembers...); err == nil {
		proof = f.proof()
		err = f.err
	}
	if err != nil {
		return reply{}, err
	}
	page, err := authority.HolderRecord(c.Context(), proof)
	if err != nil {
		return reply{}, theirs(err)
	}
	return reply{http.StatusOK, page, answered}, nil
}

func (a *API) holderConsents(c call) (reply, error) {
	authority, err := a.authority()
	if err != nil {
		return reply{}, err
	}
	f, err := c.fields(proofMembers...)
	if err != nil {
		return reply{}, err
	}
	proof := f.proof()
	if f.err != nil {
		return reply{}, f.err
	}
	out, err := authority.HolderConsents(c.Context(), proof)
	if err != nil {
		return reply{}, theirs(err)
	}
	return reply{http.StatusOK, out, answered}, nil
}

func (a *API) holderWithdrawal(c call) (reply, error) {
	authority, err := a.authority()
	if err != nil {
		return reply{}, err
	}
	f, err := c.fields("challenge", "certificate", "signature", "consent", "nonce", "expires_at")
	if err != nil {
		return reply{}, err
	}
	proof := f.proof()
	proof.Consent, proof.ExpiresAt = f.text("consent"), f.time("expires_at")
	if proof.Nonce, err = base64.StdEncoding.Strict().DecodeString(f.text("nonce")); err != nil || len(proof.Nonce) == 0 {
		f.fail("nonce is that of the challenge, base64")
	}
	if f.err != nil {
		return reply{}, f.err
	}
	out, err := authority.HolderWithdrawal(c.Context(), proof)
	if err != nil {
		return reply{}, theirs(err)
	}
	return reply{http.StatusOK, out, answered}, nil
}

var _ Consenter = (*client.Client)(nil)
