package boot_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/openjpki/jpki/cmd/internal/boot"
)

var quiet = slog.New(slog.DiscardHandler)

func TestRunDrainsAndReportsTheFirstFailure(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	started, finish := make(chan struct{}), make(chan struct{})
	slow := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(started)
		<-finish
		_, _ = io.WriteString(w, "whole")
	})
	boom := errors.New("boom")
	ended := make(chan error, 1)
	go func() {
		ended <- boot.Run(context.Background(), quiet, []boot.Service{{Name: "slow", Listener: l, Handler: slow}},
			func(context.Context) error { <-started; return boom },
			func(ctx context.Context) error { <-ctx.Done(); close(finish); return ctx.Err() })
	}()
	resp, err := http.Get("http://" + l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if body, _ := io.ReadAll(resp.Body); string(body) != "whole" {
		t.Errorf("a request under way was cut short: %q", body)
	}
	if err := <-ended; !errors.Is(err, boom) {
		t.Errorf("got %v", err)
	}
}

func TestAdmin(t *testing.T) {
	notReady := errors.New("the status log is behind")
	err := notReady
	h := boot.Admin(func() error { return err },
		boot.Outcomes("jpki_test_total", "Test.", func() map[string]uint64 { return map[string]uint64{"good": 3} }),
		boot.Gauge("jpki_test_age_seconds", "Test.", func() float64 { return 1.5 }))
	get := func(path string) (int, string) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w.Code, w.Body.String()
	}
	if code, _ := get("/healthz"); code != 200 {
		t.Error(code)
	}
	if code, body := get("/readyz"); code != 503 || !strings.Contains(body, "behind") {
		t.Error(code, body)
	}
	err = nil
	if code, _ := get("/readyz"); code != 200 {
		t.Error(code)
	}
	if _, body := get("/metrics"); !strings.Contains(body, `jpki_test_total{outcome="good"} 3`) || !strings.Contains(body, "jpki_test_age_seconds 1.5") {
		t.Error(body)
	}
}

func TestEveryGoesOnAfterAFailure(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	err := boot.Every(quiet, "test", time.Millisecond, func(context.Context) error {
		if n++; n == 3 {
			cancel()
		}
		return errors.New("always")
	})(ctx)
	if n != 3 || !errors.Is(err, context.Canceled) {
		t.Error(n, err)
	}
}
