// Package api serves the verifier over HTTP to relying parties: banks and telecoms that do not link the library.
//
// It owns [API], an http.Handler with the routes of openapi.yaml. It decides nothing about certificates (see package
// verifier), keeps no result, and lets no request body, certificate or attribute into a log.
// Problems are RFC 9457 documents; a negative verdict is no problem but an answer with status 200.
// An API is safe for concurrent use. Whatever goes wrong ends in a problem with a stable type; a panic in one request
// ends that request only.
// Start at routes in api.go; body.go says what is read, openapi.yaml what is promised.
package api

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	_ "embed" // openapi.yaml
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/verifier"
)

// Config is what [New] wants.
type Config struct {
	Verifier   *verifier.Verifier   // required
	Challenges *verifier.Challenges // required; the Verifier's own
	// Tokens holds, for each relying party, the SHA-256 of its bearer token. Names are 1 to 64 printable ASCII characters
	// without spaces; they appear in logs and, as the default audience, in challenges. At least one is required.
	Tokens map[string][sha256.Size]byte
	Now    func() time.Time // required
	Rand   io.Reader        // for request identifiers; nil means crypto/rand
	Log    *slog.Logger     // one line a request and errors of our own; nil means none
}

// An API is the relying-party API.
type API struct {
	verifier   *verifier.Verifier
	challenges *verifier.Challenges
	parties    []party
	now        func() time.Time
	rand       io.Reader
	log        *slog.Logger
	outcomes   jpki.Tally
	engine     *gin.Engine
}

type party struct {
	name  string
	token [sha256.Size]byte
}

// A reply is what a handler wants answered: a status, a body that JSON can hold, and the outcome to count.
type reply struct {
	status  int
	body    any
	outcome string
}

// A call is a request whose sender is known.
type call struct {
	*http.Request
	party string
}

// routes is the whole API under a token; /openapi.yaml needs none.
var routes = []struct {
	method, path string
	handle       func(*API, call) (reply, error)
}{
	{http.MethodPost, "/v1/verifications", (*API).verify},
	{http.MethodPost, "/v1/challenges", (*API).challenge},
	{http.MethodPost, "/v1/authentications", (*API).authenticate},
	{http.MethodPost, "/v1/certificate-status", (*API).certificateStatus},
	{http.MethodGet, "/v1/policies", (*API).policies},
	{http.MethodGet, "/v1/trust-anchors", (*API).trustAnchors},
}

const (
	documentPath = "/openapi.yaml"
	answered     = "answered" // the outcome of what gives no verdict
)

//go:embed openapi.yaml
var document []byte

// New checks the configuration. It puts gin out of its debug mode, which would print.
func New(cfg Config) (*API, error) {
	a := &API{verifier: cfg.Verifier, challenges: cfg.Challenges, now: cfg.Now, rand: cfg.Rand, log: cfg.Log}
	switch {
	case cfg.Verifier == nil:
		return nil, errors.New("relying-party API: Verifier is required")
	case cfg.Challenges == nil || cfg.Challenges != cfg.Verifier.Challenges():
		return nil, errors.New("relying-party API: Challenges is required and must be the Verifier's")
	case cfg.Now == nil:
		return nil, errors.New("relying-party API: Now is required")
	case len(cfg.Tokens) == 0:
		return nil, errors.New("relying-party API: Tokens is required")
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Tokens)) {
		p := party{name, cfg.Tokens[name]}
		if name == "" || len(name) > 64 || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return nil, fmt.Errorf("relying-party API: Tokens: name %.80q is not 1 to 64 printable ASCII characters", name)
		}
		if p.token == [sha256.Size]byte{} || slices.ContainsFunc(a.parties, func(o party) bool { return o.token == p.token }) {
			return nil, fmt.Errorf("relying-party API: Tokens: %s has no token, or another's", name)
		}
		a.parties = append(a.parties, p)
	}
	if a.rand == nil {
		a.rand = rand.Reader
	}
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	if gin.Mode() == gin.DebugMode {
		gin.SetMode(gin.ReleaseMode)
	}
	a.engine = gin.New()
	a.engine.HandleMethodNotAllowed = true
	a.engine.RedirectTrailingSlash = false
	a.engine.Use(a.observe)
	for _, r := range routes {
		a.engine.Handle(r.method, r.path, func(c *gin.Context) { a.serve(c, r.handle) })
	}
	a.engine.GET(documentPath, func(c *gin.Context) {
		c.Set(outcomeKey, answered)
		c.Data(http.StatusOK, "application/yaml", document)
	})
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
	began := a.now()
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
			a.log.ErrorContext(c.Request.Context(), "panic", slog.String("request_id", id), slog.String("type", fmt.Sprintf("%T", p)), slog.String("stack", string(debug.Stack())))
			if !c.Writer.Written() {
				a.refuse(c, jpki.Internal)
			}
			c.Set(outcomeKey, string(jpki.Internal))
		}
		outcome := c.GetString(outcomeKey)
		a.outcomes.Add(outcome)
		a.log.InfoContext(c.Request.Context(), "request", slog.String("request_id", id), slog.String("method", knownMethod(c.Request.Method)),
			slog.String("route", c.FullPath()), slog.Int("status", c.Writer.Status()), slog.String("outcome", outcome),
			slog.String("relying_party", c.GetString(partyKey)), slog.Duration("took", a.now().Sub(began)))
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
	if _, err := io.ReadFull(a.rand, b[:]); err != nil {
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

// serve is the edge around every handler: who asks, the handler, the answer.
func (a *API) serve(c *gin.Context, handle func(*API, call) (reply, error)) {
	name, ok := a.authorised(c.Request)
	if !ok {
		c.Header("WWW-Authenticate", "Bearer")
		a.refuse(c, jpki.Errorf(jpki.Unauthorized, "send Authorization: Bearer with your token"))
		return
	}
	c.Set(partyKey, name)
	if c.Request.URL.RawQuery != "" {
		a.refuse(c, jpki.Errorf(jpki.Malformed, "there are no query parameters"))
		return
	}
	rep, err := handle(a, call{c.Request, name})
	var body []byte
	if err == nil {
		body, err = json.Marshal(rep.body)
	}
	if err != nil {
		a.refuse(c, err)
		return
	}
	c.Set(outcomeKey, rep.outcome)
	c.Header("Cache-Control", "no-store")
	c.Data(rep.status, "application/json", append(body, '\n'))
}

// authorised returns the relying party whose token the request bears. Every token is compared, in constant time.
func (a *API) authorised(r *http.Request) (name string, ok bool) {
	scheme, token, found := strings.Cut(r.Header.Get("Authorization"), " ")
	if !found || !strings.EqualFold(scheme, "Bearer") || token == "" {
		return "", false
	}
	sum := sha256.Sum256([]byte(token))
	for _, p := range a.parties {
		if subtle.ConstantTimeCompare(sum[:], p.token[:]) == 1 {
			name, ok = p.name, true
		}
	}
	return name, ok
}

func (a *API) refuse(c *gin.Context, err error) {
	problem := jpki.WriteProblem(c.Writer, c.Request, err)
	c.Set(outcomeKey, string(problem))
	if problem == jpki.Internal {
		a.log.ErrorContext(c.Request.Context(), "internal error", slog.String("request_id", jpki.RequestID(c.Request.Context())), slog.Any("error", err))
	}
}

// verdict is the reply that carries a result. Why a status could not be established is for our log: the answer has only
// its name, since the cause may tell of our network.
func (a *API) verdict(c call, res *verifier.Result, err error) (reply, error) {
	if err != nil {
		return reply{}, err
	}
	if res.Cause != nil {
		a.log.WarnContext(c.Context(), "status not established", slog.String("request_id", jpki.RequestID(c.Context())),
			slog.String("failure", string(res.StatusFailure)), slog.Any("error", res.Cause))
	}
	return reply{http.StatusOK, res, string(res.Code)}, nil
}

func (a *API) verify(c call) (reply, error) {
	f, err := c.fields("certificate", "digest", "hash", "signature", "at?")
	if err != nil {
		return reply{}, err
	}
	var in verifier.SignatureInput
	if in.Hash, err = verifier.ParseHash(f.text("hash")); err != nil {
		return reply{}, err
	}
	in.Certificate, in.Digest, in.Signature, in.At = f.octets("certificate"), f.octets("digest"), f.octets("signature"), f.at()
	if f.err != nil {
		return reply{}, f.err
	}
	res, err := a.verifier.Signature(c.Context(), in)
	return a.verdict(c, res, err)
}

func (a *API) certificateStatus(c call) (reply, error) {
	f, err := c.fields("certificate")
	if err != nil {
		return reply{}, err
	}
	certificate := f.octets("certificate")
	if f.err != nil {
		return reply{}, f.err
	}
	res, err := a.verifier.CertificateStatus(c.Context(), certificate)
	return a.verdict(c, res, err)
}

func (a *API) challenge(c call) (reply, error) {
	f, err := c.fields("audience?", "binding?")
	if err != nil {
		return reply{}, err
	}
	audience, binding := f.session(c.party)
	if f.err != nil {
		return reply{}, f.err
	}
	ch, err := a.challenges.NewChallenge(c.Context(), audience, binding)
	if err != nil {
		return reply{}, err
	}
	return reply{http.StatusCreated, struct {
		ID        string    `json:"challenge_id"`
		Nonce     []byte    `json:"nonce"`
		Message   []byte    `json:"message"`
		ExpiresAt time.Time `json:"expires_at"`
	}{ch.ID, ch.Nonce, ch.Message, ch.ExpiresAt}, answered}, nil
}

func (a *API) authenticate(c call) (reply, error) {
	f, err := c.fields("challenge_id", "audience?", "binding?", "certificate", "signature")
	if err != nil {
		return reply{}, err
	}
	in := verifier.LoginInput{ChallengeID: f.text("challenge_id"), Certificate: f.octets("certificate"), Signature: f.octets("signature")}
	in.Audience, in.Binding = f.session(c.party)
	if f.err != nil {
		return reply{}, f.err
	}
	res, err := a.verifier.Login(c.Context(), in)
	return a.verdict(c, res, err)
}

func (a *API) policies(call) (reply, error) {
	type entry struct {
		SHA256 string          `json:"sha256"`
		Policy verifier.Policy `json:"policy"`
	}
	out := []entry{}
	for _, p := range a.verifier.Policies() {
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
	for _, c := range a.verifier.Anchors() {
		sum := sha256.Sum256(c.Raw)
		out = append(out, entry{c.Subject.String(), hex.EncodeToString(c.SubjectKeyId), hex.EncodeToString(sum[:]), c.NotBefore, c.NotAfter, bytes.Clone(c.Raw)})
	}
	return reply{http.StatusOK, map[string]any{"trust_anchors": out}, answered}, nil
}
