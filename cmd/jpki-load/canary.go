package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/openjpki/jpki/cmd/internal/ocspload"
	"github.com/openjpki/jpki/cmd/internal/sandbox"
)

func canaryCommand() *cobra.Command {
	var opt ocspload.CanaryOptions
	var asJSON bool
	var again time.Duration
	var metrics string
	c := &cobra.Command{
		Use: "canary", Short: "Measure how long a suspension and a revocation take to be visible",
		Long: `Has trial certificates issued by the authority of the sandbox that runs in -dir, suspends them through the call centre's API,
revokes them through the station's, and asks every responder about each all the while. It prints the time from the command's
answer to the first right answer. An answer that is still stale to a question asked later than -bound is a violation, and so
is an answer that does not verify; one makes the exit code 3. With -again it goes on until Ctrl-C, and -metrics ADDRESS shows what
it finds to Prometheus.`,
		Example: `  jpki-load canary -rounds 50
  jpki-load canary -url http://ocsp-1.example.jp/ocsp,http://ocsp-2.example.jp/ocsp -bound 1s -watch 5s
  jpki-load canary -rounds 1 -again 1m -metrics 127.0.0.1:8084`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			if opt.Rounds < 1 || opt.Parallel < 1 || opt.Bound <= 0 || opt.Watch <= opt.Bound || opt.Every <= 0 {
				return usageError{errors.New("-rounds, -parallel, -bound and -every have to be positive, and -watch longer than -bound")}
			}
			if again < 0 || metrics != "" && again == 0 || asJSON && again > 0 {
				return usageError{errors.New("-again is not negative, -metrics needs it, and -json is for one time only")}
			}
			dir, _ := c.Flags().GetString("dir") // declared on the root command
			env, err := sandbox.Load(dir)
			if err != nil {
				return err
			}
			if len(opt.URLs) == 0 {
				opt.URLs = []string{env.OCSPURL}
			}
			if again > 0 {
				return canaryLoop(c, env, opt, again, metrics)
			}
			sights, err := ocspload.Canary(c.Context(), env, opt)
			if sights == nil {
				return err
			}
			if perr := printSights(c, sights, opt, asJSON); perr != nil {
				return perr
			}
			if err != nil {
				return err
			}
			for _, s := range sights {
				if s.Violations > 0 || s.Wrong > 0 {
					return errNo
				}
			}
			return nil
		},
	}
	c.Flags().StringSliceVar(&opt.URLs, "url", nil, "responders; default: the sandbox's")
	c.Flags().IntVar(&opt.Rounds, "rounds", 20, "cards, each suspended and then revoked")
	c.Flags().IntVar(&opt.Parallel, "parallel", 4, "rounds at once")
	c.Flags().DurationVar(&opt.Bound, "bound", time.Second, "an answer that is stale later than this is a violation")
	c.Flags().DurationVar(&opt.Watch, "watch", 2*time.Second, "how long responders are watched after each change")
	c.Flags().DurationVar(&opt.Every, "every", 2*time.Millisecond, "between two questions")
	c.Flags().BoolVar(&opt.GET, "get", false, "ask by GET without a nonce, so that HTTP caches in between take part")
	c.Flags().DurationVar(&again, "again", 0, "begin again and again, that far apart")
	c.Flags().StringVar(&metrics, "metrics", "", "address for /metrics, /healthz and /readyz, with -again")
	c.Flags().BoolVar(&asJSON, "json", false, "print the findings as JSON")
	return c
}

func printSights(c *cobra.Command, sights []*ocspload.Sight, opt ocspload.CanaryOptions, asJSON bool) error {
	out := c.OutOrStdout()
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	if asJSON {
		type finding struct {
			URL        string   `json:"url"`
			Changes    int      `json:"changes"`
			P50        float64  `json:"p50_ms"`
			P99        float64  `json:"p99_ms"`
			Max        float64  `json:"max_ms"`
			Asked      int      `json:"asked"`
			Stale      int      `json:"stale"`
			Back       int      `json:"back"`
			NoAnswer   int      `json:"no_answer"`
			Wrong      int      `json:"wrong"`
			Violations int      `json:"violations"`
			Examples   []string `json:"examples,omitempty"`
		}
		var all []finding
		for _, s := range sights {
			all = append(all, finding{s.URL, len(s.Visible), ms(s.Quantile(0.5)), ms(s.Quantile(0.99)), ms(s.Quantile(1)), s.Asked, s.Stale, s.Back, s.NoAnswer, s.Wrong, s.Violations, s.Examples})
		}
		return json.NewEncoder(out).Encode(all)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "responder\tchanges\tp50 ms\tp99 ms\tmax ms\tasked\tstale\tback\tno answer\twrong\tviolations")
	for _, s := range sights {
		fmt.Fprintf(w, "%s\t%d\t%.1f\t%.1f\t%.1f\t%d\t%d\t%d\t%d\t%d\t%d\n",
			s.URL, len(s.Visible), ms(s.Quantile(0.5)), ms(s.Quantile(0.99)), ms(s.Quantile(1)), s.Asked, s.Stale, s.Back, s.NoAnswer, s.Wrong, s.Violations)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, s := range sights {
		for _, e := range s.Examples {
			fmt.Fprintf(out, "  VIOLATION  %s %s\n", s.URL, e)
		}
	}
	_, err := fmt.Fprintf(out, "time from a command's answer to the first right answer; bound %s\n", opt.Bound)
	return err
}
