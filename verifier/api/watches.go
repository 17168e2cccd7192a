package api

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"net/http"
	"slices"
	"strings"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/client"
	"github.com/openjpki/jpki/verifier"
	"github.com/openjpki/jpki/verifier/push"
	"github.com/openjpki/jpki/verifier/store"
)

// A Watcher is the authority, as the operator of this verifier may ask it about users. [client.Client] is one.
type Watcher interface {
	Identify(context.Context, client.IdentityRequest) (client.Identity, error)
	CreateWatches(context.Context, client.WatchOrder) (client.WatchOutcome, error)
	EndWatches(context.Context, client.WatchOrder) (client.WatchOutcome, error)
	// WatchesAfter returns a page; after is the former page's Next.
	WatchesAfter(ctx context.Context, tenant jpki.CorporateNumber, after string) (client.WatchPage, error)
}

// Watching is what it takes to follow users.
type Watching struct {
	Authority Watcher      // required
	Events    *push.Events // required: signs events
	// Changed returns what is closed when feeds next grow; nil, or what another process adds, is noticed within a second.
	Changed func() <-chan struct{}
	Private bool // as in [push.Config]
}

// watchRoutes are those of users who are followed. They all need [Config].Watching.
var watchRoutes = []route{
	{method: http.MethodPost, path: "/v1/watches", handle: (*API).createWatches},
	{method: http.MethodPost, path: "/v1/watch-endings", handle: (*API).endWatches},
	{method: http.MethodPost, path: "/v1/watch-lists", handle: (*API).listWatches},
	{method: http.MethodGet, path: "/v1/changes", handle: (*API).changes},
	{method: http.MethodPost, path: "/v1/endpoints", handle: (*API).createEndpoint},
	{method: http.MethodGet, path: "/v1/endpoints", handle: (*API).endpoints},
	{method: http.MethodGet, path: "/v1/endpoints/:id", handle: (*API).endpoint},
	{method: http.MethodPatch, path: "/v1/endpoints/:id", handle: (*API).changeEndpoint},
	{method: http.MethodDelete, path: "/v1/endpoints/:id", handle: (*API).deleteEndpoint},
	{method: http.MethodPost, path: "/v1/endpoints/:id/secrets", handle: (*API).rotateSecret},
	{method: http.MethodPost, path: "/v1/endpoints/:id/tests", handle: (*API).testEndpoint},
	{method: http.MethodGet, path: "/v1/endpoints/:id/dead-letters", handle: (*API).deadLetters},
	{method: http.MethodPost, path: "/v1/endpoints/:id/redeliveries", handle: (*API).redeliver},
	{method: http.MethodPost, path: push.StreamsPath, handle: (*API).createStream},
	{method: http.MethodGet, path: push.StreamsPath, handle: (*API).streams},
	{method: http.MethodPatch, path: push.StreamsPath, handle: (*API).updateStream},
	{method: http.MethodPut, path: push.StreamsPath, handle: (*API).replaceStream},
	{method: http.MethodDelete, path: push.StreamsPath, handle: (*API).deleteStream},
	{method: http.MethodGet, path: push.StatusPath, handle: (*API).streamStatus},
	{method: http.MethodPost, path: push.StatusPath, handle: (*API).setStreamStatus},
	{method: http.MethodPost, path: push.VerificationPath, handle: (*API).verifyStream},
	{method: http.MethodPost, path: push.StreamsPath + "/:id/poll", handle: (*API).pollStream},
}

// watching gives routes their scope and refuses them where there is no authority.
func watching(in []route) (out []route) {
	for _, r := range in {
		handle := r.handle
		r.scope = store.Watch
		r.handle = func(a *API, c call) (reply, error) {
			if a.Watching == nil {
				return reply{}, errNoAuthority()
			}
			return handle(a, c)
		}
		out = append(out, r)
	}
	return out
}

func errNoAuthority() error {
	return jpki.Errorf(jpki.Forbidden, "this verifier is not connected to an authority, so users cannot be followed")
}

// relayed are the authority's problems that concern the tenant. Any other is between the authority and us.
var relayed = []jpki.Problem{
	jpki.Malformed, jpki.MyNumberPresent, jpki.UnknownTenant, jpki.UnknownUser, jpki.UnknownCertificate, jpki.Forbidden, jpki.RateLimited, jpki.TooLarge,
}

// ofAuthority makes an error of the authority's one for the tenant.
func ofAuthority(err error) error {
	switch p := jpki.ProblemOf(err); {
	case err == nil, slices.Contains(relayed, p):
		return err
	case p == jpki.Unavailable:
		return jpki.WrapError(jpki.Unavailable, err, "the authority does not answer")
	default:
		return jpki.WrapError(jpki.Internal, err, "")
	}
}

// isPurpose reports whether it is 1 to 64 of a-z, 0-9 and hyphen.
func isPurpose(s string) bool {
	return s != "" && len(s) <= 64 && !strings.ContainsFunc(s, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' })
}

type watchOrder struct {
	Watches []client.Watch `json:"watches"`
}

func (c call) watchOrder() (o client.WatchOrder, err error) {
	var in watchOrder
	if err := c.decode(&in, false); err != nil {
		return o, err
	}
	if len(in.Watches) == 0 || len(in.Watches) > client.MaxWatches {
		return o, jpki.Errorf(jpki.Malformed, "watches are 1 to %d", client.MaxWatches)
	}
	for _, w := range in.Watches {
		if len(w.User) != 32 || !isPurpose(w.Purpose) || !w.Since.IsZero() {
			return o, jpki.Errorf(jpki.Malformed, "a watch has a user of 32 letters and digits, and a purpose of 1 to 64 of a-z, 0-9 and hyphen")
		}
	}
	return client.WatchOrder{Tenant: c.Tenant.ID, Watches: in.Watches}, nil
}

// createWatches passes on to the authority, where watches are; nothing about them is kept here.
func (a *API) createWatches(c call) (reply, error) {
	return a.order(c, a.Watching.Authority.CreateWatches)
}

func (a *API) endWatches(c call) (reply, error) { return a.order(c, a.Watching.Authority.EndWatches) }

func (a *API) order(c call, do func(context.Context, client.WatchOrder) (client.WatchOutcome, error)) (reply, error) {
	o, err := c.watchOrder()
	if err != nil {
		return reply{}, err
	}
	out, err := do(c.Context(), o)
	if err != nil {
		return reply{}, ofAuthority(err)
	}
	if out.Unknown == nil {
		out.Unknown = []string{}
	}
	return reply{http.StatusOK, struct {
		Changed int      `json:"changed"`
		Unknown []string `json:"unknown"`
	}{out.Changed, out.Unknown}, answered}, nil
}

// listWatches takes the place to go on from in a body: it names a user, and URLs get into logs.
func (a *API) listWatches(c call) (reply, error) {
	in := struct {
		After string `json:"after"`
	}{}
	if len(c.body) > 0 {
		if err := c.decode(&in, false); err != nil {
			return reply{}, err
		}
	}
	if len(in.After) > 128 {
		return reply{}, jpki.Errorf(jpki.Malformed, "after is not what the last page gave as next")
	}
	page, err := a.Watching.Authority.WatchesAfter(c.Context(), c.Tenant.ID, in.After)
	if err != nil {
		return reply{}, ofAuthority(err)
	}
	if page.Watches == nil {
		page.Watches = []client.Watch{}
	}
	return reply{http.StatusOK, page, answered}, nil
}

// identification reads whether the user is asked for, and the purpose under which the holder sees it.
func (a *API) identification(f *fields, standard string) (purpose string, err error) {
	asked := f.text("identify_user") == "true"
	switch {
	case !asked && f.has("purpose"):
		return "", jpki.Errorf(jpki.Malformed, "purpose goes with identify_user")
	case !asked:
		return "", nil
	case a.Watching == nil:
		return "", errNoAuthority()
	case !f.has("purpose"):
		return standard, nil
	case !isPurpose(f.text("purpose")):
		return "", jpki.Errorf(jpki.Malformed, "purpose is not 1 to 64 of a-z, 0-9 and hyphen")
	}
	return f.text("purpose"), nil
}

// identified adds to a verdict that may be relied upon whose certificate it is, as this tenant knows the person. What is kept of the verdict
// does not have it. With an empty purpose nobody asked.
func (a *API) identified(ctx context.Context, access *store.Access, v verdict, purpose string, certificate []byte) (verdict, error) {
	if purpose == "" || v.code != string(verifier.OK) || certificate == nil {
		return v, nil
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})
	id, err := a.Watching.Authority.Identify(ctx, client.IdentityRequest{Tenant: access.Tenant.ID, Purpose: purpose, Certificate: string(text)})
	if err != nil {
		if p := jpki.ProblemOf(err); p == jpki.UnknownCertificate || p == jpki.Forbidden {
			err = jpki.Errorf(jpki.Forbidden, "you are not entitled to identify the user of this certificate")
		}
		return v, ofAuthority(err)
	}
	v.answer, err = with(v.answer, "user", struct {
		ID     string `json:"id"`
		New    bool   `json:"new"`
		Latest bool   `json:"latest"`
	}{id.User, id.New, id.Latest})
	return v, err
}

// certificateOf returns the certificate of the one signer of a document; nil if there are several.
func certificateOf(res *verifier.DocumentResult) []byte {
	var digest string
	for _, s := range res.Signatures {
		if s.Signer == nil || digest != "" && s.Signer.SHA256 != digest {
			return nil
		}
		digest = s.Signer.SHA256
	}
	for _, der := range res.Evidence.Certificates {
		if sum := sha256.Sum256(der); hex.EncodeToString(sum[:]) == digest {
			return der
		}
	}
	return nil
}
