package trace_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/openjpki/jpki/cmd/internal/trace"
)

// A receiver is an OTLP/HTTP receiver that keeps what it gets.
type receiver struct {
	*httptest.Server
	mu    sync.Mutex
	raw   [][]byte
	spans map[string]*otlp.Span // by service and name
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{spans: map[string]*otlp.Span{}}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		var got collector.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(body, &got)
		}
		if err != nil || req.URL.Path != "/v1/traces" || req.Header.Get("Content-Type") != "application/x-protobuf" {
			t.Errorf("%s %s: %v", req.URL.Path, req.Header.Get("Content-Type"), err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.raw = append(r.raw, body)
		for _, of := range got.GetResourceSpans() {
			service := of.GetResource().GetAttributes()[0].GetValue().GetStringValue()
			for _, scope := range of.GetScopeSpans() {
				for _, s := range scope.GetSpans() {
					r.spans[service+": "+s.GetName()] = s
				}
			}
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) start(t *testing.T, service string, ratio float64) *trace.Tracer {
	t.Helper()
	tracer, err := trace.Start(t.Context(), service, &trace.Config{Endpoint: r.URL + "/v1/traces", Ratio: &ratio}, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return tracer
}

// world is a station's client, an authority that signs with a key, and how both are traced.
type world struct {
	station, authority *trace.Tracer
	log                bytes.Buffer
	client             *http.Client
	server             *httptest.Server
}

func newWorld(t *testing.T, station, authority *trace.Tracer) *world {
	t.Helper()
	w := &world{station: station, authority: authority}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	traced := authority.Key("certificate", key)
	log := authority.Log(slog.New(slog.NewJSONHandler(&w.log, nil)).With(slog.String("program", "authority")))
	routes := trace.Routes([]byte("paths:\n  /station/v1/tokens/{token}:\n    get:\n  /station/v1/tokens/all:\n"))
	server := httptest.NewServer(authority.Handler(routes, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		digest := make([]byte, 32)
		if s, ok := traced.(interface {
			SignContext(ctx context.Context, digest []byte, opts crypto.SignerOpts) ([]byte, error)
		}); ok {
			if sig, err := s.SignContext(r.Context(), digest, crypto.SHA256); err != nil || !ecdsa.VerifyASN1(&key.PublicKey, digest, sig) {
				t.Errorf("signature: %v", err)
			}
		}
		log.InfoContext(r.Context(), "request")
		rw.WriteHeader(http.StatusConflict)
		rw.(http.Flusher).Flush()
	})))
	t.Cleanup(server.Close)
	w.client, w.server = &http.Client{Transport: station.Transport("authority", nil)}, server
	return w
}

// close ends the server before its tracer: a caller may have its answer before the server is done with it.
func (w *world) close() {
	w.server.Close()
	w.station.Close()
	w.authority.Close()
}

func (w *world) get(t *testing.T, path string, headers ...string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.server.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := w.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
}

// One request is one trace: the station's call, the authority's answer, the signature. Neither the path nor what callers
// may write freely is in what is exported; the log has the trace's name.
func TestTrace(t *testing.T) {
	r := newReceiver(t)
	station, authority := r.start(t, "station", 1), r.start(t, "jpki-ca", 0)
	w := newWorld(t, station, authority)
	w.get(t, "/station/v1/tokens/T-4711?name=Taro", "tracestate", "vendor=Hanako", "baggage", "user=Jiro", "User-Agent", "Saburo", "X-Request-ID", "Shiro-1234")
	w.close()
	call, answer, signature := r.spans["station: GET to authority"], r.spans["jpki-ca: GET /station/v1/tokens/{token}"], r.spans["jpki-ca: sign certificate"]
	if call == nil || answer == nil || signature == nil || len(r.spans) != 3 {
		t.Fatalf("spans: %v", r.spans)
	}
	if len(call.GetParentSpanId()) != 0 || !bytes.Equal(answer.GetParentSpanId(), call.GetSpanId()) || !bytes.Equal(signature.GetParentSpanId(), answer.GetSpanId()) {
		t.Errorf("parents: %v", r.spans)
	}
	for _, s := range r.spans {
		if !bytes.Equal(s.GetTraceId(), call.GetTraceId()) {
			t.Errorf("%s is of another trace", s.GetName())
		}
	}
	if got := answer.String(); !strings.Contains(got, "409") {
		t.Errorf("no status in %s", got)
	}
	for _, raw := range r.raw {
		for _, secret := range []string{"T-4711", "Taro", "Hanako", "Jiro", "Saburo", "Shiro", "127.0.0.1"} {
			if bytes.Contains(raw, []byte(secret)) {
				t.Errorf("%s was exported", secret)
			}
		}
	}
	var line struct {
		TraceID string `json:"trace_id"`
		Program string `json:"program"`
	}
	if err := json.Unmarshal(w.log.Bytes(), &line); err != nil || line.TraceID != hex.EncodeToString(call.GetTraceId()) || line.Program != "authority" {
		t.Errorf("log: %s, %v", w.log.Bytes(), err)
	}
}

// A path that is no route, a method of a caller's invention and a traceparent with a My Number are not told.
func TestUnknown(t *testing.T) {
	r := newReceiver(t)
	authority := r.start(t, "jpki-ca", 1)
	w := newWorld(t, nil, authority)
	w.get(t, "/station/v1/tokens/T-4711/more", "traceparent", "00-11111111111111111111111111111111-2222222222222222-01", "tracestate", "vendor=Hanako")
	w.get(t, "/station/v1/tokens/all", "traceparent", "nonsense")
	w.close()
	other, all := r.spans["jpki-ca: GET other"], r.spans["jpki-ca: GET /station/v1/tokens/all"]
	if other == nil || all == nil {
		t.Fatalf("spans: %v", r.spans)
	}
	if hex.EncodeToString(other.GetTraceId()) != strings.Repeat("1", 32) || hex.EncodeToString(other.GetParentSpanId()) != strings.Repeat("2", 16) {
		t.Errorf("the caller's trace is not continued: %v", other)
	}
	if other.GetTraceState() != "" || len(all.GetParentSpanId()) != 0 {
		t.Errorf("spans: %v", r.spans)
	}
}

// What is not sampled where it begins is exported nowhere, and is one trace in the logs all the same.
func TestSampling(t *testing.T) {
	r := newReceiver(t)
	station, authority := r.start(t, "station", 0), r.start(t, "jpki-ca", 1)
	w := newWorld(t, station, authority)
	w.get(t, "/station/v1/tokens/T-4711")
	w.close()
	if len(r.spans) != 0 || !strings.Contains(w.log.String(), `"trace_id":"`) {
		t.Errorf("spans: %v, log: %s", r.spans, w.log.String())
	}
}

// A receiver that is away keeps no request and no end waiting, and is logged.
func TestReceiverAway(t *testing.T) {
	r := newReceiver(t)
	r.Close()
	w := newWorld(t, nil, r.start(t, "jpki-ca", 1))
	w.get(t, "/station/v1/tokens/T-4711")
	w.close()
}

// Switched off, everything is what it was: there is nothing left that could cost anything.
func TestOff(t *testing.T) {
	off, err := trace.Start(t.Context(), "jpki-ca", nil, nil, nil)
	if err != nil || off != nil {
		t.Fatal(off, err)
	}
	handler, key, log := http.NewServeMux(), new(ecdsa.PrivateKey), slog.New(slog.DiscardHandler)
	if off.Handler(nil, handler) != http.Handler(handler) || off.Transport("x", http.DefaultTransport) != http.DefaultTransport || off.Key("x", key) != crypto.Signer(key) || off.Log(log) != log {
		t.Error("something is wrapped")
	}
	off.Close()
}

func TestValidate(t *testing.T) {
	half, two, nan := 0.5, 2.0, math.NaN()
	for name, test := range map[string]struct {
		cfg *trace.Config
		ok  bool
	}{
		"none":          {nil, true},
		"plain":         {&trace.Config{Endpoint: "http://127.0.0.1:4318/v1/traces"}, true},
		"half":          {&trace.Config{Endpoint: "https://c.example/v1/traces", Ratio: &half, CA: "ca.pem"}, true},
		"no endpoint":   {&trace.Config{}, false},
		"no URL":        {&trace.Config{Endpoint: "c.example:4318"}, false},
		"user":          {&trace.Config{Endpoint: "https://user@c.example/v1/traces"}, false},
		"a CA for none": {&trace.Config{Endpoint: "http://c.example/v1/traces", CA: "ca.pem"}, false},
		"twice all":     {&trace.Config{Endpoint: "https://c.example/v1/traces", Ratio: &two}, false},
		"no number":     {&trace.Config{Endpoint: "https://c.example/v1/traces", Ratio: &nan}, false},
	} {
		if err := test.cfg.Validate(); (err == nil) != test.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}
