package acme

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/smallstep/certificates/api"
	"github.com/smallstep/certificates/authority"
	"github.com/smallstep/certificates/authority/provisioner"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
)

// maxBody bounds a request body, in octets: a token with a certificate and a request with an RSA-4096 key fit many times.
const maxBody = 64 << 10

// endpoints is the part of step-ca's API that stations need, also below /1.0. There is none that gives out a
// provisioner's encrypted key: passwords are not for everybody to guess.
var endpoints = map[string]struct {
	method string
	handle func(*Enrolment, *http.Request) (status int, body any, err error)
}{
	"/health":       {http.MethodGet, (*Enrolment).health},
	"/roots":        {http.MethodGet, (*Enrolment).listRoots},
	"/root/":        {http.MethodGet, (*Enrolment).root},
	"/provisioners": {http.MethodGet, (*Enrolment).listProvisioners},
	"/sign":         {http.MethodPost, (*Enrolment).sign},
	"/renew":        {http.MethodPost, (*Enrolment).renew},
	"/rekey":        {http.MethodPost, (*Enrolment).rekey},
	"/revoke":       {http.MethodPost, (*Enrolment).revoke},
}

// ServeHTTP answers one request and writes one line about it, without its token or request.
func (e *Enrolment) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if e.phones != nil && strings.HasPrefix(r.URL.Path, acmePath+"/") {
		e.servePhone(w, r)
		return
	}
	r = r.WithContext(jpki.WithRequestID(r.Context(), e.NewID()))
	w.Header().Set("X-Request-ID", jpki.RequestID(r.Context()))
	w.Header().Set("Cache-Control", "no-store")
	path := strings.TrimPrefix(r.URL.Path, "/1.0")
	if strings.HasPrefix(path, "/root/") {
		path = "/root/"
	}
	start, route := e.Now(), "none"
	status, body, err := http.StatusNotFound, any(nil), jpki.Errorf(jpki.NotFound, "")
	if ep, ok := endpoints[path]; ok {
		route = path
		if r.Body = http.MaxBytesReader(w, r.Body, maxBody); r.Method != ep.method {
			err = jpki.Errorf(jpki.MethodNotAllowed, "")
		} else {
			status, body, err = e.call(ep.handle, r)
		}
	}
	outcome := "ok"
	if err != nil {
		p := problem(err)
		status, outcome, body = p.HTTPStatus(), string(p), e.refusal(r, p, err)
		w.Header().Set("Content-Type", "application/problem+json")
	} else {
		w.Header().Set("Content-Type", "application/json")
	}
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
	e.report(r, route, start, status, outcome, err)
}

// report counts a request and writes the line about it.
func (e *Enrolment) report(r *http.Request, route string, start time.Time, status int, outcome string, err error) {
	e.outcomes.Add(outcome)
	attrs := []slog.Attr{
		slog.String("route", route), slog.Int("status", status), slog.String("outcome", outcome),
		slog.Duration("took", e.Now().Sub(start)), slog.String("request_id", jpki.RequestID(r.Context())),
	}
	level := slog.LevelInfo
	if status == http.StatusInternalServerError {
		level, attrs = slog.LevelError, append(attrs, slog.Any("error", err))
	}
	e.Log.LogAttrs(r.Context(), level, "enrolment request", attrs...)
}

// call keeps a panic, of which the embedded library has some, from ending the connection without an answer.
func (e *Enrolment) call(f func(*Enrolment, *http.Request) (int, any, error), r *http.Request) (status int, body any, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("handler panicked with %T", p)
		}
	}()
	return f(e, r)
}

// problem finds our problem in an error, or else what smallstep makes of its own: it carries HTTP statuses.
func problem(err error) jpki.Problem {
	if p := jpki.ProblemOf(err); p != jpki.Internal {
		return p
	}
	if s := interface{ StatusCode() int }(nil); errors.As(err, &s) {
		switch s.StatusCode() {
		case http.StatusBadRequest:
			return jpki.Malformed
		case http.StatusUnauthorized:
			return jpki.Unauthorized
		case http.StatusForbidden:
			return jpki.Forbidden
		}
	}
	return jpki.Internal
}

// A refusal is a problem (RFC 9457) that step's clients can show, too: they look for message.
type refusal struct {
	jpki.ProblemDetails
	Message string `json:"message"`
}

func (e *Enrolment) refusal(r *http.Request, p jpki.Problem, err error) refusal {
	d := jpki.ProblemDetails{
		Type: jpki.ProblemBase + string(p), Title: p.Title(r.Header.Get("Accept-Language")), Status: p.HTTPStatus(), RequestID: jpki.RequestID(r.Context()),
	}
	if ours, ok := errors.AsType[*jpki.Error](err); ok && p != jpki.Internal {
		d.Detail = ours.Detail
	}
	message := d.Title
	if d.Detail != "" {
		message += ": " + d.Detail
	}
	return refusal{d, message}
}

func (e *Enrolment) health(*http.Request) (int, any, error) {
	return http.StatusOK, api.HealthResponse{Status: "ok"}, nil
}

func (e *Enrolment) listRoots(*http.Request) (int, any, error) {
	return http.StatusCreated, api.RootsResponse{Certificates: []api.Certificate{{Certificate: e.Root}}}, nil // 201 is what step-ca says
}

func (e *Enrolment) root(r *http.Request) (int, any, error) {
	_, sum, _ := strings.Cut(r.URL.Path, "/root/")
	cert, err := e.step.Root(strings.ToLower(strings.ReplaceAll(sum, "-", "")))
	if err != nil {
		return 0, nil, jpki.Errorf(jpki.NotFound, "")
	}
	return http.StatusOK, api.RootResponse{RootPEM: api.Certificate{Certificate: cert}}, nil
}

func (e *Enrolment) listProvisioners(*http.Request) (int, any, error) {
	return http.StatusOK, api.ProvisionersResponse{Provisioners: e.provisioners}, nil
}

// sign certifies a key for whoever holds a one-time token.
func (e *Enrolment) sign(r *http.Request) (int, any, error) {
	var body api.SignRequest
	if err := decode(r, &body); err != nil {
		return 0, nil, err
	}
	csr, err := possession(body.CsrPEM)
	if err != nil {
		return 0, nil, err
	}
	o, options, err := e.authorize(r.Context(), body.OTT, csr)
	if err != nil {
		return 0, nil, err
	}
	return signed(e.issue(o, func() ([]*x509.Certificate, error) {
		return e.step.SignWithContext(r.Context(), csr, provisioner.SignOptions{}, options...)
	}))
}

// renew certifies the key of the client certificate anew.
func (e *Enrolment) renew(r *http.Request) (int, any, error) {
	o, err := e.self(r)
	if err != nil {
		return 0, nil, err
	}
	if o.Key, err = x509.MarshalPKIXPublicKey(o.Present.PublicKey); err != nil {
		return 0, nil, err
	}
	return signed(e.issue(o, func() ([]*x509.Certificate, error) { return e.step.RenewContext(r.Context(), o.Present, nil) }))
}

// rekey certifies another key for the holder of the client certificate, whose key ends with that.
func (e *Enrolment) rekey(r *http.Request) (int, any, error) {
	o, err := e.self(r)
	if err != nil {
		return 0, nil, err
	}
	var body api.RekeyRequest
	if err := decode(r, &body); err != nil {
		return 0, nil, err
	}
	csr, err := possession(body.CsrPEM)
	if err != nil {
		return 0, nil, err
	}
	if err := checkNames(csr, o.Station.ID); err != nil {
		return 0, nil, err
	}
	if o.Key, err = x509.MarshalPKIXPublicKey(csr.PublicKey); err != nil {
		return 0, nil, jpki.WrapError(jpki.Malformed, err, "the request's key cannot be read")
	}
	return signed(e.issue(o, func() ([]*x509.Certificate, error) { return e.step.RenewContext(r.Context(), o.Present, csr.PublicKey) }))
}

// revoke ends the client certificate, and with it the station until an operator admits it again.
func (e *Enrolment) revoke(r *http.Request) (int, any, error) {
	o, err := e.self(r)
	if err != nil {
		return 0, nil, err
	}
	var body api.RevokeRequest
	if err := decode(r, &body); err != nil {
		return 0, nil, err
	}
	if err := body.Validate(); err != nil {
		return 0, nil, jpki.WrapError(jpki.Malformed, err, "a revocation names a serial number and is passive")
	}
	if body.OTT != "" || body.Serial != o.Present.SerialNumber.String() {
		return 0, nil, jpki.Errorf(jpki.Forbidden, "a station can revoke its own certificate only")
	}
	err = e.step.Revoke(provisioner.NewContextWithMethod(r.Context(), provisioner.RevokeMethod),
		&authority.RevokeOptions{Serial: body.Serial, ReasonCode: body.ReasonCode, PassiveOnly: true, MTLS: true, Crt: o.Present})
	return http.StatusOK, api.RevokeResponse{Status: "ok"}, err
}

// self authenticates a station by its client certificate, as everywhere, and begins an order of its own.
func (e *Enrolment) self(r *http.Request) (*order, error) {
	var chain []*x509.Certificate
	if r.TLS != nil {
		chain = r.TLS.PeerCertificates
	}
	actor, err := e.Authority.Authenticate(r.Context(), chain)
	if err != nil {
		return nil, err
	}
	station, listed := e.stations[actor.ID]
	if !listed {
		return nil, jpki.Errorf(jpki.Forbidden, "the station is not in the operator's table")
	}
	o := &order{ctx: r.Context()}
	o.Station, o.Present = station.Actor, chain[0]
	return o, nil
}

// possession checks that a request was signed with its own key and carries no My Number.
func possession(c api.CertificateRequest) (*x509.CertificateRequest, error) {
	csr := c.CertificateRequest
	if csr == nil {
		return nil, jpki.Errorf(jpki.Malformed, "csr is required")
	}
	if ca.CarriesMyNumber(csr) {
		return nil, jpki.Errorf(jpki.MyNumberPresent, "in the certification request")
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, jpki.WrapError(jpki.BadRequestProof, err, "")
	}
	return csr, nil
}

func signed(chain []*x509.Certificate, err error) (int, any, error) {
	if err != nil {
		return 0, nil, err
	}
	out := api.SignResponse{}
	for _, c := range chain {
		out.CertChainPEM = append(out.CertChainPEM, api.Certificate{Certificate: c})
	}
	out.ServerPEM, out.CaPEM = out.CertChainPEM[0], out.CertChainPEM[1]
	return http.StatusCreated, &out, nil
}

// decode reads a JSON body. Fields of newer clients are ignored, as step-ca does.
func decode(r *http.Request, v any) error {
	body, err := io.ReadAll(r.Body)
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return jpki.Errorf(jpki.TooLarge, "a body has at most %d octets", maxBody)
	}
	if err == nil {
		err = json.Unmarshal(body, v)
	}
	if err != nil {
		return jpki.WrapError(jpki.Malformed, err, "the body is not the JSON of step's API")
	}
	return nil
}
