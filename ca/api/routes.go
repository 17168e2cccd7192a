package api

import (
	"context"
	"encoding/base64"
	"encoding/pem"
	"net/http"
	"net/url"
	"strings"

	"github.com/gin-gonic/gin"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/client"
	"github.com/openjpki/jpki/ca/store"
)

type route struct {
	method, path string
	handle       gin.HandlerFunc
}

// routes is the table of the API; openapi.yaml tells the same, and a test compares the two.
func (a *API) routes() []route {
	return []route{
		{http.MethodPost, "/station/v1/certificates", a.issue(a.Authority.Issue)},
		{http.MethodPost, "/station/v1/renewals", a.issue(a.Authority.Renew)},
		{http.MethodPost, "/station/v1/deliveries", a.deliver},
		{http.MethodPost, "/station/v1/suspensions", a.change(a.Authority.Suspend)},
		{http.MethodPost, "/station/v1/resumptions", a.change(a.Authority.Resume)},
		{http.MethodPost, "/station/v1/revocations", a.change(a.Authority.Revoke)},
		{http.MethodPost, "/station/v1/batches", a.batch},
		{http.MethodGet, "/station/v1/tokens/:token", a.token},
		{http.MethodGet, "/station/v1/certificates", a.search},
		{http.MethodGet, "/station/v1/undelivered", a.undelivered},
		{http.MethodPost, "/station/v1/phone-enrolments", a.phoneEnrolment},
		{http.MethodPost, "/holder/v1/challenges", a.holderChallenge},
		{http.MethodPost, "/holder/v1/phone-enrolments", a.holderPhone},
		{http.MethodPost, "/registry/v1/events", a.event},
		{http.MethodPost, "/registry/v1/batches", a.feed},
		{http.MethodPost, "/responder/v1/certificates", a.delegate},
	}
}

type (
	issueCommand  = func(ctx context.Context, by jpki.Actor, r ca.IssueRequest) ([]ca.Issued, error)
	changeCommand = func(ctx context.Context, by jpki.Actor, r ca.ChangeRequest) ([]ca.Changed, error)
)

func (a *API) issue(command issueCommand) gin.HandlerFunc {
	return func(c *gin.Context) {
		var body client.CertificateOrder
		by, err := a.begin(c, &body)
		if err != nil {
			a.refuse(c, err)
			return
		}
		req, err := decodeOrder(c.GetHeader("Idempotency-Key"), body)
		if err != nil {
			a.refuse(c, err)
			return
		}
		done, err := a.Admission.Single(c.Request.Context(), by.ID)
		if err != nil {
			a.refuse(c, err)
			return
		}
		defer done()
		issued, err := command(c.Request.Context(), by, req)
		if err != nil {
			a.refuse(c, err)
			return
		}
		a.answer(c, http.StatusCreated, client.Certificates{Certificates: encodeIssued(issued)})
	}
}

func decodeOrder(key string, body client.CertificateOrder) (ca.IssueRequest, error) {
	req := ca.IssueRequest{IdempotencyKey: key, Holder: body.Holder, Token: body.Token, Parent: body.Parent}
	for _, r := range body.Requests {
		der, err := decodeRequest(r.Request)
		if err != nil {
			return req, err
		}
		req.Requests = append(req.Requests, ca.KeyRequest{Kind: r.Kind, Request: der})
	}
	return req, nil
}

func encodeIssued(issued []ca.Issued) (out []client.Certificate) {
	for _, i := range issued {
		out = append(out, client.Certificate{
			ID: i.ID, Kind: i.Kind, Certificate: client.PEM(i.Certificate), Issuer: client.PEM(i.Issuer), NotAfter: i.NotAfter, Replaces: i.Replaces,
		})
	}
	return out
}

func (a *API) change(command changeCommand) gin.HandlerFunc {
	return func(c *gin.Context) {
		var body client.Change
		by, err := a.begin(c, &body)
		if err != nil {
			a.refuse(c, err)
			return
		}
		changed, err := command(c.Request.Context(), by, ca.ChangeRequest{
			IdempotencyKey: c.GetHeader("Idempotency-Key"), Token: body.Token, Certificate: body.Certificate, Cause: body.Cause,
		})
		if err != nil {
			a.refuse(c, err)
			return
		}
		a.answer(c, http.StatusOK, client.Changes{Changed: encodeChanged(changed)})
	}
}

func (a *API) deliver(c *gin.Context) {
	var body client.Delivery
	by, err := a.begin(c, &body)
	if err != nil {
		a.refuse(c, err)
		return
	}
	ids, err := a.Authority.Deliver(c.Request.Context(), by, c.GetHeader("Idempotency-Key"), body.Token)
	if err != nil {
		a.refuse(c, err)
		return
	}
	a.answer(c, http.StatusOK, client.Delivered{Delivered: ids})
}

func (a *API) token(c *gin.Context) {
	by, err := a.begin(c, nil)
	if err != nil {
		a.refuse(c, err)
		return
	}
	certs, err := a.Authority.Certificates(c.Request.Context(), by, c.Param("token"))
	if err != nil {
		a.refuse(c, err)
		return
	}
	a.answer(c, http.StatusOK, client.Certificates{Certificates: encodeCertificates(certs)})
}

func encodeCertificates(certs []store.Certificate) []client.Certificate {
	out := []client.Certificate{}
	for _, s := range certs {
		w := client.Certificate{
			ID: s.ID, Kind: s.Kind, Holder: s.Holder, Token: s.Token, Certificate: client.PEM(s.DER), NotAfter: s.NotAfter, Replaces: s.Replaces,
			State: s.Status.State, Since: &s.Status.Since, DeliveredAt: s.DeliveredAt,
		}
		if reason, _, revoked := s.Status.Revocation(); revoked {
			w.Reason = reason.String()
		}
		out = append(out, w)
	}
	return out
}

func (a *API) event(c *gin.Context) {
	var body jpki.Event
	by, err := a.begin(c, &body)
	if err != nil {
		a.refuse(c, err)
		return
	}
	outcome, err := a.Authority.ApplyResidentEvent(c.Request.Context(), by, body)
	if err != nil {
		a.refuse(c, err)
		return
	}
	a.answer(c, http.StatusOK, client.EventOutcome{Applied: outcome.Applied, Changed: encodeChanged(outcome.Changed)})
}

// begin authenticates the caller and then, only then, reads the body (where body is not nil).
func (a *API) begin(c *gin.Context, body any) (jpki.Actor, error) {
	by, err := a.authenticate(c)
	if err != nil {
		return by, err
	}
	if jpki.ContainsMyNumber(c.Request.URL.Path) || jpki.ContainsMyNumber(c.GetHeader("Idempotency-Key")) || c.Request.URL.RawQuery != "" && queryHoldsMyNumber(c.Request.URL.RawQuery) {
		return by, jpki.Errorf(jpki.MyNumberPresent, "")
	}
	if (by.Role == jpki.Responder) != (c.FullPath() == "/responder/v1/certificates") {
		return by, jpki.Errorf(jpki.Forbidden, "a %s has no business here", by.Role)
	}
	if (by.Role == jpki.Verifying) != strings.HasPrefix(c.FullPath(), relyingZone) {
		return by, jpki.Errorf(jpki.Forbidden, "a %s has no business here", by.Role)
	}
	if by.Role == jpki.Verifying {
		if err := a.operators.Spend(by.ID); err != nil {
			return by, err
		}
	} else if by.Role != jpki.Register && c.FullPath() != "/station/v1/suspensions" { // a loss is never reported too often
		if err := a.Admission.Spend(by.ID); err != nil {
			return by, err
		}
	}
	if body == nil {
		return by, nil
	}
	return by, decode(c, body)
}

func queryHoldsMyNumber(query string) bool {
	plain, err := url.QueryUnescape(query)
	return jpki.ContainsMyNumber(query) || err == nil && jpki.ContainsMyNumber(plain)
}

// decodeRequest reads a certification request in PEM or base64.
func decodeRequest(text string) ([]byte, error) {
	if block, rest := pem.Decode([]byte(text)); block != nil {
		if (block.Type != "CERTIFICATE REQUEST" && block.Type != "NEW CERTIFICATE REQUEST") || strings.TrimSpace(string(rest)) != "" {
			return nil, jpki.Errorf(jpki.Malformed, "request is not one CERTIFICATE REQUEST in PEM")
		}
		return block.Bytes, nil
	}
	der, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(der) == 0 {
		return nil, jpki.Errorf(jpki.Malformed, "request is neither PEM nor base64")
	}
	return der, nil
}

func encodeChanged(changed []ca.Changed) []client.Changed {
	out := []client.Changed{}
	for _, c := range changed {
		w := client.Changed{Certificate: c.ID, Kind: c.Kind, State: c.Status.State, Since: c.Status.Since}
		if reason, _, revoked := c.Status.Revocation(); revoked {
			w.Reason = reason.String()
		}
		out = append(out, w)
	}
	return out
}
