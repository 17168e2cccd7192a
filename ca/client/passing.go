package client

import (
	"context"
	"net/http"
	"net/url"

	"github.com/openjpki/jpki"
)

// What follows is for who passes a holder's requests on: a verifier between the holder's software and the authority. The holder signs
// in between, so each call is one step.

// HolderLogin begins a holder's request: it returns what the holder's authentication key is to sign. A challenge in the name of
// another authority than the one that was called is [jpki.ChallengeInvalid].
func (c *Client) HolderLogin(ctx context.Context, ask HolderAsk) (out HolderLogin, err error) {
	if err := c.do(ctx, http.MethodPost, "/holder/v1/log-ins", "", ask, &out); err != nil {
		return out, err
	}
	if out.Audience != c.base {
		return HolderLogin{}, jpki.Errorf(jpki.ChallengeInvalid, "the challenge is another authority's")
	}
	return out, nil
}

// HolderRecord returns a page of the record of the holder who signed, or, with Next, the page that follows.
func (c *Client) HolderRecord(ctx context.Context, p HolderProof) (out RecordPage, err error) {
	return out, c.do(ctx, http.MethodPost, "/holder/v1/record", "", p, &out)
}

// HolderConsents returns all consents of the holder who signed.
func (c *Client) HolderConsents(ctx context.Context, p HolderProof) (out HolderConsents, err error) {
	return out, c.do(ctx, http.MethodPost, "/holder/v1/consents", "", p, &out)
}

// HolderWithdrawal ends a consent of the holder who signed.
func (c *Client) HolderWithdrawal(ctx context.Context, p HolderProof) (out Consent, err error) {
	return out, c.do(ctx, http.MethodPost, "/holder/v1/consent-withdrawals", "", p, &out)
}

// ConsentsAfter returns one page of what [Client.Consents] yields, behind the consent called after; empty begins.
func (c *Client) ConsentsAfter(ctx context.Context, tenant jpki.CorporateNumber, user, after string) (out ConsentPage, err error) {
	q := url.Values{"tenant": {string(tenant)}}
	if user != "" {
		q.Set("user", user)
	}
	if after != "" {
		q.Set("after", after)
	}
	return out, c.do(ctx, http.MethodGet, "/relying-party/v1/consents?"+q.Encode(), "", nil, &out)
}
