// Package trace follows one request through the processes that work on it.
//
// [Start] makes a [Tracer] of a program's configuration: its handler and its round tripper pass W3C trace contexts on, its key
// and its logger say what belongs to which trace, and what was sampled is exported by OTLP over HTTP. It owns OpenTelemetry:
// no other package imports it, and spans say nothing but what this package puts there. A nil Tracer traces nothing and
// returns what it is given, so that a process without traces pays nothing. Start at Start.
package trace

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/openjpki/jpki"
)

// Config is what a configuration file says under "traces"; a nil one switches traces off.
type Config struct {
	Endpoint string   `yaml:"endpoint"` // whole URL of an OTLP/HTTP receiver, as http://127.0.0.1:4318/v1/traces
	Ratio    *float64 `yaml:"ratio"`    // of the traces that begin here, 0 to 1, how many are exported; 1 if the file does not say
	CA       string   `yaml:"ca"`       // file with who certifies the receiver; without it, whom this machine trusts
}

// Validate reports what can be seen without opening anything.
func (c *Config) Validate() error {
	if c == nil {
		return nil
	}
	u, err := url.Parse(c.Endpoint)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return errors.New("traces.endpoint is no http URL")
	}
	if c.Ratio != nil && !(*c.Ratio >= 0 && *c.Ratio <= 1) { // which also refuses what is no number
		return errors.New("traces.ratio is not between 0 and 1")
	}
	if c.CA != "" && u.Scheme != "https" {
		return errors.New("traces.ca is for an https endpoint")
	}
	return nil
}

// A Tracer makes the spans of one process. It is safe for concurrent use.
type Tracer struct {
	provider *sdk.TracerProvider
	tracer   trace.Tracer
	log      *slog.Logger
}

// What waits to be exported is bounded: a receiver that is away costs spans and no request.
const (
	maxWaiting  = 4096
	exportEvery = time.Second
	exportTime  = 5 * time.Second
)

// Start makes the tracer of the program called service; nil if cfg is. read reads the files that cfg names. Failures of
// the export are logged.
func Start(ctx context.Context, service string, cfg *Config, read func(path string) ([]byte, error), log *slog.Logger) (*Tracer, error) {
	if cfg == nil {
		return nil, nil
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	options := []otlptracehttp.Option{otlptracehttp.WithEndpointURL(cfg.Endpoint), otlptracehttp.WithTimeout(exportTime)}
	if cfg.CA != "" {
		text, err := read(cfg.CA)
		if err != nil {
			return nil, fmt.Errorf("traces.ca: %w", err)
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("traces.ca: %s has no certificate in PEM", cfg.CA)
		}
		options = append(options, otlptracehttp.WithTLSClientConfig(&tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}))
	}
	exporter, err := otlptracehttp.New(ctx, options...)
	if err != nil {
		return nil, fmt.Errorf("traces: %w", err)
	}
	ratio := 1.0
	if cfg.Ratio != nil {
		ratio = *cfg.Ratio
	}
	provider := sdk.NewTracerProvider(
		sdk.WithSampler(sdk.ParentBased(sdk.TraceIDRatioBased(ratio))),
		sdk.WithResource(resource.NewSchemaless(attribute.String("service.name", service))), // and not the machine, its user and command line
		sdk.WithBatcher(exporter, sdk.WithMaxQueueSize(maxWaiting), sdk.WithBatchTimeout(exportEvery), sdk.WithExportTimeout(exportTime)),
	)
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		log.WarnContext(context.WithoutCancel(ctx), "traces are not exported", slog.Any("error", err))
	}))
	return &Tracer{provider: provider, tracer: provider.Tracer("github.com/openjpki/jpki"), log: log}, nil
}

// Close exports what waits, for a few seconds at most. A receiver that is away is logged: it is no failure of the program's.
func (t *Tracer) Close() {
	if t == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), exportTime)
	defer cancel()
	if err := t.provider.Shutdown(ctx); err != nil {
		t.log.WarnContext(ctx, "the last traces are not exported", slog.Any("error", err))
	}
}

// header carries a traceparent and nothing else: tracestate and baggage are free text of whoever calls.
type header struct{ http.Header }

func (h header) Get(name string) string {
	value := h.Header.Get(name)
	if name != "traceparent" || jpki.ContainsMyNumber(value) {
		return ""
	}
	return value
}

func (h header) Set(name, value string) {
	if name == "traceparent" {
		h.Header.Set(name, value)
	}
}

func (h header) Keys() []string { return []string{"traceparent"} }

var w3c propagation.TraceContext

var documented = regexp.MustCompile(`(?m)^  (/[^\s:]*):`)

// Routes returns the paths that an OpenAPI document in YAML describes, with names in braces where they vary.
func Routes(openapi []byte) (out []string) {
	for _, m := range documented.FindAllSubmatch(openapi, -1) {
		out = append(out, string(m[1]))
	}
	return out
}

// match returns the route that a path is of; "other" if none: a path may name a card or a person, and is never told.
func match(routes [][]string, path string) string {
	parts := strings.Split(path, "/")
	for _, route := range routes {
		if slices.EqualFunc(route, parts, func(r, p string) bool { return r == p || strings.HasPrefix(r, "{") && p != "" }) {
			return strings.Join(route, "/")
		}
	}
	return "other"
}

func method(m string) string {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return m
	}
	return "_OTHER"
}

// Handler makes a span of each request, named after its method and route.
func (t *Tracer) Handler(routes []string, next http.Handler) http.Handler {
	if t == nil {
		return next
	}
	var split [][]string
	for _, literal := range []bool{true, false} { // what is spelt out is preferred
		for _, r := range routes {
			if literal != strings.Contains(r, "{") {
				split = append(split, strings.Split(r, "/"))
			}
		}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		route, verb := match(split, r.URL.Path), method(r.Method)
		ctx, span := t.tracer.Start(w3c.Extract(r.Context(), header{r.Header}), verb+" "+route, trace.WithSpanKind(trace.SpanKindServer),
			trace.WithAttributes(attribute.String("http.request.method", verb), attribute.String("http.route", route)))
		answer := &answered{ResponseWriter: w}
		defer func() {
			if answer.code == 0 {
				answer.code = http.StatusOK
			}
			span.SetAttributes(attribute.Int("http.response.status_code", answer.code))
			if answer.code >= 500 {
				span.SetStatus(codes.Error, "")
			}
			span.End()
		}()
		next.ServeHTTP(answer, r.WithContext(ctx))
	})
}

// An answered remembers the status.
type answered struct {
	http.ResponseWriter
	code int
}

func (a *answered) WriteHeader(code int) {
	if a.code == 0 && code >= 200 {
		a.code = code
	}
	a.ResponseWriter.WriteHeader(code)
}

// Flush is http.Flusher's, which handlers of streams ask for by its type.
func (a *answered) Flush() { _ = http.NewResponseController(a.ResponseWriter).Flush() }

// Unwrap is for http.ResponseController.
func (a *answered) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// Transport makes a span of each request to the peer, a fixed name as "authority", and tells it which. A nil base is
// http.DefaultTransport.
func (t *Tracer) Transport(peer string, base http.RoundTripper) http.RoundTripper {
	if t == nil {
		return base
	}
	if base == nil {
		base = http.DefaultTransport
	}
	return &transport{t, peer, base}
}

type transport struct {
	*Tracer
	peer string
	base http.RoundTripper
}

// RoundTrip ends the span when the answer's header has come.
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	verb := method(r.Method)
	ctx, span := t.tracer.Start(r.Context(), verb+" to "+t.peer, trace.WithSpanKind(trace.SpanKindClient),
		trace.WithAttributes(attribute.String("http.request.method", verb), attribute.String("peer.service", t.peer)))
	defer span.End()
	r = r.Clone(ctx)
	w3c.Inject(ctx, header{r.Header})
	resp, err := t.base.RoundTrip(r)
	if err != nil {
		span.SetStatus(codes.Error, "") // an error quotes the URL
		return nil, err
	}
	span.SetAttributes(attribute.Int("http.response.status_code", resp.StatusCode))
	if resp.StatusCode >= 500 {
		span.SetStatus(codes.Error, "")
	}
	return resp, nil
}

// CloseIdleConnections is for http.Client.
func (t *transport) CloseIdleConnections() {
	if c, ok := t.base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// Key makes a span of each signature for what names a purpose, as "certificate". A signature that nobody traces, for which
// there is no context, has none.
func (t *Tracer) Key(purpose string, key crypto.Signer) crypto.Signer {
	if t == nil || key == nil {
		return key
	}
	return &tracedKey{key, t, purpose}
}

// A contextSigner gives up when its context ends, as keys in jpki-signer do.
type contextSigner interface {
	SignContext(ctx context.Context, digest []byte, opts crypto.SignerOpts) ([]byte, error)
}

type tracedKey struct {
	crypto.Signer
	t       *Tracer
	purpose string
}

// SignContext signs, as part of ctx's trace.
func (k *tracedKey) SignContext(ctx context.Context, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	_, span := k.t.tracer.Start(ctx, "sign "+k.purpose, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(attribute.String("peer.service", "signer")))
	defer span.End()
	var out []byte
	var err error
	if s, ok := k.Signer.(contextSigner); ok {
		out, err = s.SignContext(ctx, digest, opts)
	} else {
		out, err = k.Signer.Sign(rand.Reader, digest, opts)
	}
	if err != nil {
		span.SetStatus(codes.Error, "")
	}
	return out, err
}

// Sign is crypto.Signer's.
func (k *tracedKey) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return k.Signer.Sign(rand, digest, opts)
}

// Log adds trace_id to each record that is written for a request.
func (t *Tracer) Log(log *slog.Logger) *slog.Logger {
	if t == nil {
		return log
	}
	return slog.New(logged{log.Handler()})
}

type logged struct{ slog.Handler }

func (l logged) Handle(ctx context.Context, r slog.Record) error {
	if s := trace.SpanContextFromContext(ctx); s.HasTraceID() {
		r = r.Clone()
		r.AddAttrs(slog.String("trace_id", s.TraceID().String()))
	}
	return l.Handler.Handle(ctx, r)
}

func (l logged) WithAttrs(a []slog.Attr) slog.Handler { return logged{l.Handler.WithAttrs(a)} }

func (l logged) WithGroup(name string) slog.Handler { return logged{l.Handler.WithGroup(name)} }
