// Package api serves the verifier over HTTP to relying parties: banks and telecoms that do not link the library.
//
// It owns [API], an http.Handler with the routes of openapi.yaml and, at /docs, a page made of it. It decides nothing about
// certificates (see package verifier), asks the authority for consents and attributes and keeps neither, keeps what package
// verifier/store seals, and lets no request body, certificate or attribute into a log. Problems are RFC 9457 documents; a negative verdict is no problem but an answer with status 200.
// An API is safe for concurrent use. Whatever goes wrong ends in a problem with a stable type; a panic in one request
// ends that request only.
// Start at routes in api.go; serve.go is the way of every request, body.go says what is read, openapi.yaml what is promised.
package api

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	_ "embed" // openapi.yaml
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/verifier"
	"github.com/openjpki/jpki/verifier/store"
)

// Config is what [New] wants.
type Config struct {
	Verifier    *verifier.Verifier   // required
	Challenges  *verifier.Challenges // required; the Verifier's own
	Store       *store.Store         // required: tenants and what is kept for them
	Now         func() time.Time     // required
	Rand        io.Reader            // for identifiers; nil means crypto/rand; must be safe for concurrent use
	Log         *slog.Logger         // one line a request and errors of our own; nil means none
	Deadline    time.Duration        // what a request, or a line of a batch, may take; 0 means 10 s, at most 10 minutes
	Rate        int                  // requests a second of tenants that have no rate of their own; 0 means 1000
	MaxDocument int64                // octets of a document sent as such; 0 means 16 MiB, at most verifier.MaxDocumentBytes
	Documents   int                  // bodies with documents that are in memory at once; 0 means 8
	Consents    *Consents            // how the authority is asked for consents and attributes; nil: those routes refuse
	// Issuers names the authority's generations by the key identifiers of their certificates, in hexadecimal: what was done with a certificate
	// of one of them is put aside for [Reporter]. Empty: nothing is.
	Issuers  map[string]jpki.IssuerID
	Watching *Watching // nil refuses to follow users
}

// An API is the relying-party API.
type API struct {
	Config
	readers   keyring
	meters    meters
	documents chan struct{} // a place for each body with a document
	receipts  *receipts     // nil without Consents
	outcomes  jpki.Tally
	engine    *gin.Engine
}

// A reply is what a handler wants answered: a status, a body that JSON can hold, and the outcome to count.
type reply struct {
	status  int
	body    any
	outcome string
}

// A call is a request whose sender is known and whose body is read.
type call struct {
	*http.Request
	*store.Access
	limit  time.Duration // for all of it
	body   []byte
	param  string      // the identifier in the path
	answer http.Header // of the answer
}

// A route says who may call what. Its handler is handle, or stream for batches.
type route struct {
	method, path string
	scope        store.Scope // "" for every token
	documents    bool        // the body may be a document
	handle       func(*API, call) (reply, error)
	stream       *lines
}

// routes is the whole API under a token; documentPath, docsPath and receiptKeysPath need none.
var routes = []route{
	{http.MethodPost, "/v1/verifications", store.Verify, true, (*API).verify, nil},
	{http.MethodPost, "/v1/verifications/batch", store.Verify, false, nil, &verificationLines},
	{http.MethodPost, "/v1/challenges", store.Verify, false, (*API).challenge, nil},
	{http.MethodPost, "/v1/authentications", store.Verify, false, (*API).authenticate, nil},
	{http.MethodPost, "/v1/certificate-status", store.Status, false, (*API).certificateStatus, nil},
	{http.MethodPost, "/v1/certificate-status/batch", store.Status, false, nil, &statusLines},
	{http.MethodGet, "/v1/evidence/:id", store.Evidence, false, (*API).evidence, nil},
	{http.MethodDelete, "/v1/evidence/:id", store.Evidence, false, (*API).deleteEvidence, nil},
	{http.MethodPost, "/v1/evidence/:id/reevaluations", store.Evidence, false, (*API).reevaluate, nil},
	{http.MethodPost, "/v1/evidence-deletions", store.Evidence, false, (*API).deleteOfUser, nil},
	{http.MethodPost, "/v1/consent-texts", store.Consent, false, (*API).consentText, nil},
	{http.MethodPost, "/v1/consents", store.Consent, false, (*API).giveConsent, nil},
	{http.MethodPost, "/v1/consent-searches", store.Consent, false, (*API).searchConsents, nil},
	{http.MethodPost, "/v1/attributes", store.Consent, false, (*API).latestAttributes, nil},
	{http.MethodPost, "/v1/holder/log-ins", store.Holder, false, (*API).holderLogin, nil},
	{http.MethodPost, "/v1/holder/record", store.Holder, false, (*API).holderRecord, nil},
	{http.MethodPost, "/v1/holder/consents", store.Holder, false, (*API).holderConsents, nil},
	{http.MethodPost, "/v1/holder/consent-withdrawals", store.Holder, false, (*API).holderWithdrawal, nil},
	{http.MethodGet, "/v1/policies", "", false, (*API).policies, nil},
	{http.MethodGet, "/v1/trust-anchors", "", false, (*API).trustAnchors, nil},
}

const (
	documentPath = "/openapi.yaml"
	docsPath     = "/docs"
	answered     = "answered" // the outcome of what gives no verdict
)

//go:embed openapi.yaml
var document []byte

// OpenAPI returns the description of the API, YAML.
func OpenAPI() []byte { return bytes.Clone(document) }

// New checks the configuration. It puts gin out of its debug mode, which would print.
func New(cfg Config) (*API, error) {
	switch {
	case cfg.Verifier == nil:
		return nil, errors.New("relying-party API: Verifier is required")
	case cfg.Challenges == nil || cfg.Challenges != cfg.Verifier.Challenges():
		return nil, errors.New("relying-party API: Challenges is required and must be the Verifier's")
	case cfg.Store == nil:
		return nil, errors.New("relying-party API: Store is required")
	case cfg.Now == nil:
		return nil, errors.New("relying-party API: Now is required")
	case cfg.Deadline < 0 || cfg.Deadline > 10*time.Minute:
		return nil, errors.New("relying-party API: Deadline is not between 0 and 10 minutes")
	case cfg.Rate < 0 || cfg.Documents < 0 || cfg.MaxDocument < 0 || cfg.MaxDocument > verifier.MaxDocumentBytes:
		return nil, fmt.Errorf("relying-party API: Rate, Documents or MaxDocument is negative, or MaxDocument more than %d", verifier.MaxDocumentBytes)
	}
	if w := cfg.Watching; w != nil && (w.Authority == nil || w.Events == nil) {
		return nil, errors.New("relying-party API: Authority and Events of Watching are required")
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.Reader
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.Deadline, cfg.Rate = cmp.Or(cfg.Deadline, 10*time.Second), cmp.Or(cfg.Rate, 1000)
	cfg.MaxDocument, cfg.Documents = cmp.Or(cfg.MaxDocument, 16<<20), cmp.Or(cfg.Documents, 8)
	a := &API{Config: cfg, documents: make(chan struct{}, cfg.Documents)}
	if err := a.openConsents(); err != nil {
		return nil, fmt.Errorf("relying-party API: Consents: %w", err)
	}
	page, style, err := docsPage(document)
	if err != nil {
		return nil, fmt.Errorf("relying-party API: %w", err)
	}
	if gin.Mode() == gin.DebugMode {
		gin.SetMode(gin.ReleaseMode)
	}
	a.engine = gin.New()
	a.engine.HandleMethodNotAllowed = true
	a.engine.RedirectTrailingSlash = false
	a.engine.Use(a.observe)
	for _, r := range slices.Concat(routes, watching(watchRoutes)) {
		a.engine.Handle(r.method, r.path, func(c *gin.Context) { a.serve(c, r) })
	}
	a.engine.GET(documentPath, func(c *gin.Context) {
		c.Set(outcomeKey, answered)
		c.Data(http.StatusOK, "application/yaml", document)
	})
	a.wellKnown()
	a.engine.GET(docsPath, func(c *gin.Context) {
		c.Set(outcomeKey, answered)
		c.Header("Content-Security-Policy", "default-src 'none'; style-src 'sha256-"+style+"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		c.Data(http.StatusOK, "text/html; charset=utf-8", page)
	})
	a.engine.GET(receiptKeysPath, a.receiptKeys)
	a.engine.NoRoute(func(c *gin.Context) { a.refuse(c, jpki.Errorf(jpki.NotFound, "there is no such path")) })
	a.engine.NoMethod(func(c *gin.Context) { a.refuse(c, jpki.Errorf(jpki.MethodNotAllowed, "see the Allow header")) })
	return a, nil
}

// ServeHTTP answers one request.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.engine.ServeHTTP(w, r) }

// Outcomes returns how many requests ended how: by verdict code, by problem, or "answered".
func (a *API) Outcomes() map[string]uint64 { return a.outcomes.Snapshot() }

const (
	outcomeKey = "outcome"
	partyKey   = "party"
)

// observe gives the request its identifier, and afterwards counts and logs it. It logs what we decided, never what was
// sent: not the path (only the route it matched), query, body or address.
func (a *API) observe(c *gin.Context) {
	began := a.Now()
	id, err := a.requestID(c.Request.Header.Get("X-Request-ID"))
	c.Request = c.Request.WithContext(jpki.WithRequestID(c.Request.Context(), id))
	c.Header("X-Request-ID", id)
	c.Header("X-Content-Type-Options", "nosniff")
	if err != nil {
		a.refuse(c, err)
		c.Abort()
	}
	defer func() {
		p := recover()
		if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
			panic(p)
		}
		if p != nil {
			// The value may quote the input; its type and the stack do not.
			a.Log.ErrorContext(c.Request.Context(), "panic", slog.String("request_id", id), slog.String("type", fmt.Sprintf("%T", p)), slog.String("stack", string(debug.Stack())))
			if !c.Writer.Written() {
				a.refuse(c, jpki.Internal)
			}
			c.Set(outcomeKey, string(jpki.Internal))
		}
		outcome := c.GetString(outcomeKey)
		a.outcomes.Add(outcome)
		a.Log.InfoContext(c.Request.Context(), "request", slog.String("request_id", id), slog.String("method", knownMethod(c.Request.Method)),
			slog.String("route", c.FullPath()), slog.Int("status", c.Writer.Status()), slog.String("outcome", outcome),
			slog.String("relying_party", c.GetString(partyKey)), slog.Duration("took", a.Now().Sub(began)))
	}()
	c.Next()
}

// requestID returns the caller's identifier if it is fit to be repeated and logged, else a new one.
func (a *API) requestID(given string) (string, error) {
	fit := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r)
	}
	if given != "" && len(given) <= 64 && !strings.ContainsFunc(given, func(r rune) bool { return !fit(r) }) && !jpki.ContainsMyNumber(given) {
		return given, nil
	}
	var b [16]byte
	if _, err := io.ReadFull(a.Rand, b[:]); err != nil {
		return "", fmt.Errorf("draw request identifier: %w", err)
	}
	return hex.EncodeToString(b[:]), nil
}

func knownMethod(m string) string {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return m
	}
	return "other"
}

func (a *API) refuse(c *gin.Context, err error) {
	problem := jpki.WriteProblem(c.Writer, c.Request, err)
	c.Set(outcomeKey, string(problem))
	if problem == jpki.Internal {
		a.Log.ErrorContext(c.Request.Context(), "internal error", slog.String("request_id", jpki.RequestID(c.Request.Context())), slog.Any("error", err))
	}
}

func (a *API) policies(call) (reply, error) {
	type entry struct {
		SHA256 string          `json:"sha256"`
		Policy verifier.Policy `json:"policy"`
	}
	out := []entry{}
	for _, p := range a.Verifier.Policies() {
		out = append(out, entry{p.Digest(), p})
	}
	return reply{http.StatusOK, map[string]any{"policies": out}, answered}, nil
}

func (a *API) trustAnchors(call) (reply, error) {
	type entry struct {
		Subject     string    `json:"subject"`
		KeyID       string    `json:"key_id"`
		SHA256      string    `json:"sha256"`
		NotBefore   time.Time `json:"not_before"`
		NotAfter    time.Time `json:"not_after"`
		Certificate []byte    `json:"certificate"`
	}
	out := []entry{}
	for _, c := range a.Verifier.Anchors() {
		sum := sha256.Sum256(c.Raw)
		out = append(out, entry{c.Subject.String(), hex.EncodeToString(c.SubjectKeyId), hex.EncodeToString(sum[:]), c.NotBefore, c.NotAfter, bytes.Clone(c.Raw)})
	}
	return reply{http.StatusOK, map[string]any{"trust_anchors": out}, answered}, nil
}
