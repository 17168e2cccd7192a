// Package boot starts and stops a process the same way everywhere.
//
// [Run] serves a list of [Service]s and loops until the context ends or one of them fails, then drains them. [Admin] is the
// handler of the administrative address: /healthz, /readyz and Prometheus /metrics, which it makes of [Outcomes] and
// [Gauge]s: libraries count, this package owns the registry. It knows none of the zones. Start at Run.
package boot

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"
)

// A Service is one HTTP server on a listener that is open already.
type Service struct {
	Name     string
	Listener net.Listener
	Handler  http.Handler
	TLS      *tls.Config // nil for plain HTTP
}

// drain is how long requests under way may take to end when the process stops.
const drain = 5 * time.Second

// garbage is how much may gather, in per cent of what is in use, before it is collected: servers that hold little and
// throw away much would otherwise spend a fifth of their time collecting. GOGC in the environment says otherwise.
const garbage = 400

// Run serves all services and runs all loops until ctx ends or one of them fails; it returns that failure, or nil. Loops
// return when their context ends.
func Run(ctx context.Context, log *slog.Logger, services []Service, loops ...func(context.Context) error) error {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbage)
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, s := range services {
		srv := &http.Server{ // which changes its TLS configuration, and two services may share one
			Handler: s.Handler, TLSConfig: s.TLS.Clone(), ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
			ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: 60 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 96 << 10,
		}
		g.Go(func() error {
			var err error
			if s.TLS != nil {
				err = srv.ServeTLS(s.Listener, "", "")
			} else {
				err = srv.Serve(s.Listener)
			}
			if errors.Is(err, http.ErrServerClosed) {
				return nil
			}
			return fmt.Errorf("serve %s: %w", s.Name, err)
		})
		g.Go(func() error {
			<-ctx.Done()
			stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
			defer cancel()
			if srv.Shutdown(stop) != nil {
				_ = srv.Close()
			}
			return nil
		})
	}
	for _, loop := range loops {
		g.Go(func() error {
			if err := loop(ctx); err != nil && !errors.Is(err, context.Canceled) {
				return err
			}
			return nil
		})
	}
	return g.Wait()
}

// A Server serves one listener and is no http.Server, or more than one.
type Server interface {
	Serve(net.Listener) error
	Shutdown(context.Context) error
	Close() error
}

// Serve is a loop that serves until its context ends, and then until what was begun is answered.
func Serve(name string, s Server, l net.Listener) func(context.Context) error {
	return func(ctx context.Context) error {
		ended := make(chan error, 1)
		go func() { ended <- s.Serve(l) }()
		select {
		case err := <-ended:
			if ctx.Err() == nil {
				return fmt.Errorf("serve %s: %w", name, err)
			}
		case <-ctx.Done():
		}
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
		defer cancel()
		if s.Shutdown(stop) != nil {
			_ = s.Close()
		}
		return nil
	}
}

// Every calls f at once and then at intervals until the context ends; errors are logged and do not stop it.
func Every(log *slog.Logger, name string, interval time.Duration, f func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			if err := f(ctx); err != nil && ctx.Err() == nil {
				log.ErrorContext(ctx, "periodic work failed", slog.String("work", name), slog.Any("error", err))
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-tick.C:
			}
		}
	}
}

// A Metric is what Outcomes and Gauge make and Admin shows.
type Metric = prometheus.Collector

// A Note is an error of ready that does not keep the process from serving: somebody should look, but no client notices.
type Note string

func (n Note) Error() string { return string(n) }

// Admin returns the handler of the administrative address. ready says why the process cannot serve now, or nil, or a [Note].
func Admin(ready func() error, metrics ...Metric) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	registry.MustRegister(metrics...)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		err := ready()
		if note, ok := errors.AsType[Note](err); ok {
			_, _ = fmt.Fprintf(w, "ready, but %s\n", note)
			return
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("ready\n"))
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	return mux
}

// Outcomes makes a counter metric of a tally's snapshot, one series a label.
func Outcomes(name, help string, snapshot func() map[string]uint64) Metric {
	return outcomes{prometheus.NewDesc(name, help, []string{"outcome"}, nil), snapshot}
}

type outcomes struct {
	desc     *prometheus.Desc
	snapshot func() map[string]uint64
}

func (o outcomes) Describe(ch chan<- *prometheus.Desc) { ch <- o.desc }

func (o outcomes) Collect(ch chan<- prometheus.Metric) {
	for label, n := range o.snapshot() {
		ch <- prometheus.MustNewConstMetric(o.desc, prometheus.CounterValue, float64(n), label)
	}
}

// Gauge makes a metric of a value read when it is asked for.
func Gauge(name, help string, value func() float64) Metric {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
}
