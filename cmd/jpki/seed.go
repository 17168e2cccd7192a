package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/openjpki/jpki/cmd/internal/sandbox"
)

func seedCommand() *cobra.Command {
	var opt sandbox.SeedOptions
	c := &cobra.Command{
		Use: "seed", Short: "Add many certificates to a sandbox, for load and scale tests",
		Long: `Adds N issued certificates of nobody, half for signature and half for authentication, spread over the municipalities; a
running sandbox answers for them at once. With -status-only there are numbers and statuses but no certificates: faster.
More than 100000 of those go into the status snapshot instead of the database, a hundred million in minutes: the sandbox must
be stopped then, its CRLs do not list them, and DIR/status.seeds says how to compute their numbers.`,
		Example: `  jpki seed -n 1000
  jpki seed -n 100000000 -revoked 0.05 -status-only`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			opt.Dir = dirOf(c)
			if opt.Count < 1 || opt.Revoked < 0 || opt.Revoked > 1 {
				return usageError{errors.New("-n must be positive and -revoked between 0 and 1")}
			}
			bars, bar := progress(c.Context(), "seed", opt.Count, 0)
			opt.Progress = func(done int) { bar.SetCurrent(int64(done)) }
			err := sandbox.Seed(c.Context(), opt)
			if err != nil {
				bar.Abort(false)
			}
			bars.Wait()
			return err
		},
	}
	c.Flags().IntVarP(&opt.Count, "n", "n", 1000, "how many certificates")
	c.Flags().Float64Var(&opt.Revoked, "revoked", 0.05, "share of them that is revoked, 0 to 1")
	c.Flags().BoolVar(&opt.StatusOnly, "status-only", false, "numbers and statuses without certificates")
	return c
}

// progress shows a bar on standard error, if that is a terminal. It is full at total, or ended with bar.Abort.
func progress(ctx context.Context, name string, total, done int) (*mpb.Progress, *mpb.Bar) {
	var out io.Writer
	if isatty.IsTerminal(os.Stderr.Fd()) {
		out = os.Stderr
	}
	start := time.Now()
	speed := func(s decor.Statistics) string {
		return fmt.Sprintf("  %.0f/s", float64(s.Current-int64(done))/max(time.Since(start).Seconds(), 0.001))
	}
	bars := mpb.NewWithContext(ctx, mpb.WithOutput(out))
	bar := bars.AddBar(int64(total), mpb.PrependDecorators(decor.Name(name+" "), decor.CountersNoUnit("%d / %d")),
		mpb.AppendDecorators(decor.Percentage(), decor.Any(speed), decor.Name("  "), decor.AverageETA(decor.ET_STYLE_GO)))
	bar.SetCurrent(int64(done))
	return bars, bar
}
