package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/cmd/internal/boot"
	"github.com/openjpki/jpki/cmd/internal/ocspload"
	"github.com/openjpki/jpki/cmd/internal/sandbox"
)

// canaryLoop sends canaries again and again and shows what became of them to Prometheus.
func canaryLoop(c *cobra.Command, env sandbox.Env, opt ocspload.CanaryOptions, again time.Duration, metrics string) error {
	var rounds jpki.Tally
	var slowest, at atomic.Int64 // nanoseconds; Unix time
	log := slog.New(slog.NewTextHandler(c.ErrOrStderr(), nil))
	var services []boot.Service
	if metrics != "" {
		listener, err := (&net.ListenConfig{}).Listen(c.Context(), "tcp", metrics)
		if err != nil {
			return err
		}
		ready := func() error {
			if at.Load() == 0 {
				return errors.New("no canary has come back yet")
			}
			return nil
		}
		services = append(services, boot.Service{Name: "admin", Listener: listener, Handler: boot.Admin(ready,
			boot.Outcomes("jpki_canary_total", "Canaries by what each responder said of them: seen, late or wrong; failed: they could not be sent.", rounds.Snapshot),
			boot.Gauge("jpki_canary_visible_seconds", "The longest time from a suspension's or revocation's confirmation to the first right answer, the last time.",
				func() float64 { return time.Duration(slowest.Load()).Seconds() }),
			boot.Gauge("jpki_canary_last_seconds", "When the last canaries came back, Unix time.", func() float64 { return float64(at.Load()) }))})
	}
	return boot.Run(c.Context(), log, services, boot.Every(log, "canary", again, func(ctx context.Context) error {
		sights, err := ocspload.Canary(ctx, env, opt)
		var most time.Duration
		for _, s := range sights {
			switch {
			case s.Wrong > 0:
				rounds.Add("wrong")
			case s.Violations > 0:
				rounds.Add("late")
			default:
				rounds.Add("seen")
			}
			most = max(most, s.Quantile(1))
			for _, e := range s.Examples {
				log.WarnContext(ctx, "canary", slog.String("responder", s.URL), slog.String("violation", e))
			}
		}
		if err != nil {
			rounds.Add("failed")
			return err
		}
		slowest.Store(int64(most))
		at.Store(time.Now().Unix())
		return nil
	}))
}
