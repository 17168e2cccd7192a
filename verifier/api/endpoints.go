package api

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/verifier/push"
	"github.com/openjpki/jpki/verifier/store"
)

// oldSecret is how long a webhook's former secret signs beside the new one.
const oldSecret = 24 * time.Hour

// An endpointAnswer is an endpoint as its tenant sees it.
type endpointAnswer struct {
	ID        string       `json:"id"`
	Method    store.Method `json:"method"`
	URL       string       `json:"url,omitempty"`
	Secret    string       `json:"secret,omitempty"` // once
	Enabled   bool         `json:"enabled"`
	Position  int64        `json:"position"`
	Waiting   int64        `json:"waiting"`
	Attempts  int          `json:"attempts"`
	Failure   string       `json:"failure,omitempty"`
	NextAt    *time.Time   `json:"next_at,omitempty"` // with attempts
	CreatedAt time.Time    `json:"created_at"`
}

func describe(e store.Endpoint, end int64, secret []byte) endpointAnswer {
	out := endpointAnswer{
		ID: e.ID, Method: e.Method, URL: e.URL, Enabled: e.Enabled, Position: e.Position, Waiting: max(0, end-e.Position), Attempts: e.Attempts, Failure: e.Failure, CreatedAt: e.CreatedAt,
	}
	if e.Attempts > 0 {
		out.NextAt = &e.NextAt
	}
	if secret != nil {
		out.Secret = "whsec_" + base64.StdEncoding.EncodeToString(secret) // as Standard Webhooks writes secrets
	}
	return out
}

// checkEndpoint lets nothing but an identifier come near the database.
func (c call) checkEndpoint() error {
	if b, err := hex.DecodeString(c.param); err != nil || len(b) != 16 {
		return jpki.Errorf(jpki.NotFound, "there is no such endpoint")
	}
	return nil
}

func (a *API) drawSecret() ([]byte, error) {
	secret := make([]byte, 32)
	if _, err := io.ReadFull(a.Rand, secret); err != nil {
		return nil, fmt.Errorf("draw secret: %w", err)
	}
	return secret, nil
}

func (a *API) createEndpoint(c call) (reply, error) {
	var in struct {
		URL   string `json:"url"`
		After *int64 `json:"after"`
	}
	if err := c.decode(&in, false); err != nil {
		return reply{}, err
	}
	if err := push.CheckURL(in.URL, a.Watching.Private); err != nil {
		return reply{}, err
	}
	after := int64(-1)
	if in.After != nil {
		if after = *in.After; after < 0 {
			return reply{}, jpki.Errorf(jpki.Malformed, "after is not negative")
		}
	}
	secret, err := a.drawSecret()
	if err != nil {
		return reply{}, err
	}
	e, err := a.Store.AddEndpoint(c.Context(), c.Access, store.Webhook, store.Target{URL: in.URL, Secret: secret}, after, a.Now())
	if err != nil {
		return reply{}, err
	}
	return a.described(c, http.StatusCreated, e, secret)
}

func (a *API) described(c call, status int, e store.Endpoint, secret []byte) (reply, error) {
	end, err := a.Store.FeedEnd(c.Context(), c.Tenant.ID)
	return reply{status, describe(e, end, secret), answered}, err
}

func (a *API) endpoints(c call) (reply, error) {
	list, err := a.Store.Endpoints(c.Context(), c.Access)
	if err != nil {
		return reply{}, err
	}
	end, err := a.Store.FeedEnd(c.Context(), c.Tenant.ID)
	out := []endpointAnswer{}
	for _, e := range list {
		out = append(out, describe(e, end, nil))
	}
	return reply{http.StatusOK, map[string]any{"endpoints": out}, answered}, err
}

func (a *API) endpoint(c call) (reply, error) {
	if err := c.checkEndpoint(); err != nil {
		return reply{}, err
	}
	e, err := a.Store.Endpoint(c.Context(), c.Access, c.param)
	if err != nil {
		return reply{}, err
	}
	return a.described(c, http.StatusOK, e, nil)
}

// webhookOnly refuses streams, which have routes of their own.
func webhookOnly(e *store.Endpoint) error {
	if e.Method != store.Webhook {
		return jpki.Errorf(jpki.NotFound, "the endpoint is a stream: see %s", push.StreamsPath)
	}
	return nil
}

// changeEndpoint pauses, resumes or moves a webhook.
func (a *API) changeEndpoint(c call) (reply, error) {
	if err := c.checkEndpoint(); err != nil {
		return reply{}, err
	}
	var in struct {
		URL     *string `json:"url"`
		Enabled *bool   `json:"enabled"`
	}
	if err := c.decode(&in, false); err != nil {
		return reply{}, err
	}
	if in.URL != nil {
		if err := push.CheckURL(*in.URL, a.Watching.Private); err != nil {
			return reply{}, err
		}
	}
	e, err := a.Store.ChangeEndpoint(c.Context(), c.Access, c.param, func(e *store.Endpoint, _ int64) error {
		if in.URL != nil {
			e.URL = *in.URL
		}
		if in.Enabled != nil {
			e.Enabled = *in.Enabled
		}
		return webhookOnly(e)
	}, a.Now())
	if err != nil {
		return reply{}, err
	}
	return a.described(c, http.StatusOK, e, nil)
}

func (a *API) deleteEndpoint(c call) (reply, error) {
	if err := c.checkEndpoint(); err != nil {
		return reply{}, err
	}
	return reply{http.StatusNoContent, nil, answered}, a.Store.DeleteEndpoint(c.Context(), c.Access, c.param)
}

// rotateSecret gives a webhook a new secret; for a day messages have both signatures.
func (a *API) rotateSecret(c call) (reply, error) {
	if err := c.checkEndpoint(); err != nil {
		return reply{}, err
	}
	secret, err := a.drawSecret()
	if err != nil {
		return reply{}, err
	}
	e, err := a.Store.ChangeEndpoint(c.Context(), c.Access, c.param, func(e *store.Endpoint, _ int64) error {
		e.OldSecret, e.OldUntil, e.Secret = e.Secret, a.Now().Add(oldSecret).Unix(), secret
		return webhookOnly(e)
	}, a.Now())
	if err != nil {
		return reply{}, err
	}
	return a.described(c, http.StatusCreated, e, secret)
}

// testEndpoint has a message sent that tells nothing. What came of it shows in the endpoint.
func (a *API) testEndpoint(c call) (reply, error) {
	if err := c.checkEndpoint(); err != nil {
		return reply{}, err
	}
	n, err := a.Store.AddNotice(c.Context(), c.Access, c.param, "", a.Now())
	if err != nil {
		return reply{}, err
	}
	return reply{http.StatusAccepted, map[string]string{"id": n.ID}, answered}, nil
}

// A deadLetter is a change that the receiver refused.
type deadLetter struct {
	push.News
	Failure string    `json:"failure"`
	DiedAt  time.Time `json:"died_at"`
	Again   bool      `json:"again"` // on its way once more
}

func (a *API) deadLetters(c call) (reply, error) {
	if err := c.checkEndpoint(); err != nil {
		return reply{}, err
	}
	after, err := c.number("after", 0, 1<<53)
	if err != nil {
		return reply{}, err
	}
	limit, err := c.number("limit", 100, 1000)
	if err != nil {
		return reply{}, err
	}
	list, waiting, err := a.Store.DeadLetters(c.Context(), c.Access, c.param, after, int(max(1, limit)))
	out := []deadLetter{}
	for _, d := range list {
		out = append(out, deadLetter{push.NewsOf(d.Change), d.Failure, d.DiedAt, d.Again})
	}
	return reply{http.StatusOK, map[string]any{"dead_letters": out, "waiting": waiting}, answered}, err
}

func (a *API) redeliver(c call) (reply, error) {
	if err := c.checkEndpoint(); err != nil {
		return reply{}, err
	}
	var in struct {
		Sequence int64 `json:"sequence"` // 0 means all
	}
	if len(c.body) > 0 {
		if err := c.decode(&in, false); err != nil {
			return reply{}, err
		}
	}
	n, err := a.Store.Redeliver(c.Context(), c.Access, c.param, in.Sequence, a.Now())
	return reply{http.StatusAccepted, map[string]int64{"redelivered": n}, answered}, err
}
