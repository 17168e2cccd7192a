// Package api serves the authority over HTTP to stations, the resident register, status servers, operators of verifiers, and holders.
//
// [New] returns a handler for a TLS listener that asks for client certificates. Each route is four acts: authenticate,
// decode, call one command of package ca, encode; routes.go is the table, relying.go that of the relying parties' zone. Holders
// have no client certificate: their card signs what they ask for (phones.go, record.go). It decides nothing. Refusals are problems of
// RFC 9457 with stable types, also for clients without a usable certificate. A body that contains a My Number is refused
// and nothing of it is logged; bodies are never logged. openapi.yaml describes the API. The handler is safe for
// concurrent use. Start at routes.go.
package api

import (
	"bytes"
	"context"
	"crypto/x509"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
)

// OpenAPI is the description of the API (OpenAPI 3.1, YAML).
//
//go:embed openapi.yaml
var OpenAPI []byte

// maxBody bounds a request body, in octets: two certification requests fit many times.
const maxBody = 64 << 10

// Config is what the API needs; every field is required unless it says otherwise.
type Config struct {
	Authority *ca.Authority
	NewID     func() string // draws request identifiers and such
	Now       func() time.Time
	Log       *slog.Logger
	Admission *ca.Admission // optional; default: one with default limits
	Phones    *Phones       // optional; nil: no phones enrol here
	Relying   *Relying      // optional; nil: no consents are taken here, and holders cannot read their record

	// Delegate certifies the key of a request, which ca.Authority.CertifyResponder has checked, for answering OCSP in the
	// name of an issuer. Optional: without it status servers get nothing here.
	Delegate ca.CertifyDelegate
}

// An API is the handler. Its outcomes are counted by problem, "ok" for successes.
type API struct {
	Config
	engine   *gin.Engine
	orders   *ca.Admission // of status servers
	outcomes jpki.Tally
	lines    jpki.Tally
	holders  *holders // nil without Phones
	relying  *relying // nil without Relying

	operators *ca.Admission // of verifiers
}

// New checks the configuration and returns the handler.
func New(c Config) (*API, error) {
	if c.Authority == nil || c.NewID == nil || c.Now == nil || c.Log == nil {
		return nil, errors.New("api: every field of Config but Admission, Phones, Relying and Delegate is required")
	}
	if c.Admission == nil {
		var err error
		if c.Admission, err = ca.NewAdmission(ca.AdmissionConfig{Now: c.Now}); err != nil {
			return nil, err
		}
	}
	orders, err := ca.NewAdmission(ca.AdmissionConfig{Now: c.Now, Rate: ordersRate, Burst: ordersBurst})
	if err != nil {
		return nil, err
	}
	operators, err := ca.NewAdmission(ca.AdmissionConfig{Now: c.Now, Rate: operatorRate, Burst: operatorBurst, Streams: operatorPolls})
	if err != nil {
		return nil, err
	}
	gin.SetMode(gin.ReleaseMode)
	a := &API{Config: c, engine: gin.New(), orders: orders, operators: operators}
	a.engine.HandleMethodNotAllowed = true
	a.engine.RedirectTrailingSlash = false
	a.engine.Use(a.observe, a.recover)
	a.engine.NoRoute(func(c *gin.Context) { a.refuse(c, jpki.Errorf(jpki.NotFound, "")) })
	a.engine.NoMethod(func(c *gin.Context) { a.refuse(c, jpki.Errorf(jpki.MethodNotAllowed, "")) })
	a.engine.GET("/openapi.yaml", func(c *gin.Context) { c.Data(http.StatusOK, "application/yaml", OpenAPI) })
	if c.Phones != nil {
		var err error
		if a.holders, err = newHolders(c); err != nil {
			return nil, err
		}
	}
	if c.Relying != nil {
		if a.relying, err = newRelying(c); err != nil {
			return nil, err
		}
	}
	for _, r := range append(a.routes(), a.relyingRoutes()...) {
		a.engine.Handle(r.method, r.path, r.handle)
	}
	return a, nil
}

// ServeHTTP answers one request.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.engine.ServeHTTP(w, r) }

// Outcomes returns how often requests ended in which problem, or "ok".
func (a *API) Outcomes() map[string]uint64 { return a.outcomes.Snapshot() }

// LineOutcomes returns the same for the lines of batches.
func (a *API) LineOutcomes() map[string]uint64 { return a.lines.Snapshot() }

var requestID = regexp.MustCompile(`^[A-Za-z0-9-]{8,64}$`)

// requestName is the form of names that callers give.
var requestName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$`)

// observe names the request, and when it has ended writes one line about it: route, never path or body, for a path can
// name a card.
func (a *API) observe(c *gin.Context) {
	id := c.GetHeader("X-Request-ID")
	if !requestID.MatchString(id) || jpki.ContainsMyNumber(id) {
		id = a.NewID()
	}
	c.Request = c.Request.WithContext(jpki.WithRequestID(c.Request.Context(), id))
	c.Header("X-Request-ID", id)
	start := a.Now()
	c.Next()
	a.Log.InfoContext(c.Request.Context(), "request", slog.String("route", c.FullPath()), slog.String("method", c.Request.Method), slog.Int("status", c.Writer.Status()),
		slog.String("actor", c.GetString("actor")), slog.String("problem", c.GetString("problem")), slog.Duration("took", a.Now().Sub(start)), slog.String("request_id", id))
}

func (a *API) recover(c *gin.Context) {
	defer func() {
		if p := recover(); p != nil {
			a.Log.ErrorContext(c.Request.Context(), "request handler panicked", slog.String("route", c.FullPath()), slog.String("request_id", jpki.RequestID(c.Request.Context())), slog.String("type", fmt.Sprintf("%T", p)))
			if !c.Writer.Written() {
				a.refuse(c, jpki.Internal)
			}
			c.Abort()
		}
	}()
	c.Next()
}

// refuse answers with the problem that err is about. What only the log may see goes there.
func (a *API) refuse(c *gin.Context, err error) {
	p := jpki.WriteProblem(c.Writer, c.Request, err)
	a.outcomes.Add(string(p))
	c.Set("problem", string(p))
	if p == jpki.Internal || p == jpki.Unavailable {
		level := slog.LevelError
		if errors.Is(c.Request.Context().Err(), context.Canceled) { // the caller went away: nothing failed here
			level = slog.LevelInfo
		}
		a.Log.Log(c.Request.Context(), level, "request failed", slog.String("route", c.FullPath()), slog.Any("error", err), slog.String("request_id", jpki.RequestID(c.Request.Context())))
	}
	c.Abort()
}

func (a *API) answer(c *gin.Context, status int, body any) {
	a.outcomes.Add("ok")
	c.Header("Cache-Control", "no-store")
	c.JSON(status, body)
}

// authenticate finds out who presented the client certificate.
func (a *API) authenticate(c *gin.Context) (jpki.Actor, error) {
	actor, err := a.Authority.Authenticate(c.Request.Context(), chainOf(c.Request))
	if err == nil {
		c.Set("actor", actor.String())
	}
	return actor, err
}

func chainOf(r *http.Request) []*x509.Certificate {
	if r.TLS == nil {
		return nil
	}
	return r.TLS.PeerCertificates
}

// decode reads a JSON body strictly into v: one object, no unknown fields, no My Number in any string or number.
func decode(c *gin.Context, v any) error {
	body, err := jpki.ReadBody(c.Request, maxBody)
	if err != nil {
		return err
	}
	return parse(body, v)
}

// parse reads one JSON object as decode says.
func parse(body []byte, v any) error {
	if literalsHoldMyNumber(body) {
		return jpki.Errorf(jpki.MyNumberPresent, "")
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return jpki.Errorf(jpki.Malformed, "%s", describe(err))
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return jpki.Errorf(jpki.Malformed, "the body holds more than one JSON value")
	}
	return nil
}

// literalsHoldMyNumber looks at every string and number of a JSON text, one by one: digits of two are no number. A text
// that is no JSON is refused whatever this says.
func literalsHoldMyNumber(text []byte) bool {
	for i := 0; i < len(text); {
		end := i + 1
		switch c := text[i]; {
		case c == '"':
			plain := true
			for ; end < len(text) && text[end] != '"'; end++ {
				if text[end] == '\\' {
					plain = false
					end++
				}
			}
			end = min(end+1, len(text))
			literal := strings.Trim(string(text[i:end]), `"`)
			if !plain {
				var unquoted string
				if json.Unmarshal(text[i:end], &unquoted) == nil {
					literal = unquoted
				}
			}
			if jpki.ContainsMyNumber(literal) {
				return true
			}
		case c == '-' || c >= '0' && c <= '9':
			for end < len(text) && strings.IndexByte("+-.eE0123456789", text[end]) >= 0 {
				end++
			}
			if jpki.ContainsMyNumber(string(text[i:end])) {
				return true
			}
		}
		i = end
	}
	return false
}

// describe says what is wrong with a body without repeating anything of it but field names of ours.
func describe(err error) string {
	var typ *json.UnmarshalTypeError
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &typ):
		return fmt.Sprintf("%s must be a %s", typ.Field, typ.Type)
	case errors.As(err, &syntax), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the body is not JSON"
	}
	return "the body has an unknown field or a value of the wrong form"
}

// Routes lists what is served, as "METHOD /path/{parameter}".
func (a *API) Routes() []string {
	var out []string
	for _, r := range a.engine.Routes() {
		parts := strings.Split(r.Path, "/")
		for i, p := range parts {
			if name, ok := strings.CutPrefix(p, ":"); ok {
				parts[i] = "{" + name + "}"
			}
		}
		out = append(out, r.Method+" "+strings.Join(parts, "/"))
	}
	return out
}
