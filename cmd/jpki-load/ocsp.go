package main

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/openjpki/jpki/cmd/internal/ocspload"
)

// mixFlags declares what a set of requests is made of.
func mixFlags(c *cobra.Command, m *ocspload.Mix) (hashes *string) {
	c.Flags().IntVar(&m.Count, "n", 0, "how many different requests; 0: one for each serial number")
	c.Flags().Float64Var(&m.GET, "get", 0, "share sent by GET, 0 to 1; the rest by POST")
	c.Flags().Float64Var(&m.Nonce, "nonce", 0, "share of the POSTs with a nonce, 0 to 1, fresh each time")
	c.Flags().Uint64Var(&m.Seed, "seed", 1, "the same number mixes the same way")
	return c.Flags().String("hash", "sha256", "algorithms of CertIDs with their shares, as in sha1=0.2,sha256=0.8")
}

// parseHashes reads algorithms and shares.
func parseHashes(text string) (map[crypto.Hash]float64, error) {
	out := map[crypto.Hash]float64{}
	for part := range strings.SplitSeq(text, ",") {
		name, share, given := strings.Cut(strings.TrimSpace(part), "=")
		h, ok := map[string]crypto.Hash{"sha1": crypto.SHA1, "sha256": crypto.SHA256, "sha384": crypto.SHA384}[strings.ToLower(name)]
		if !ok {
			return nil, usageError{errors.New("-hash wants sha1, sha256 or sha384")}
		}
		n := 1.0
		if given {
			var err error
			if n, err = strconv.ParseFloat(share, 64); err != nil || n < 0 {
				return nil, usageError{errors.New("-hash: a share is a number that is not negative")}
			}
		}
		out[h] += n
	}
	return out, nil
}

func ocspCommand() *cobra.Command {
	var opt ocspload.Options
	var mix ocspload.Mix
	var from sourceFlags
	var report, title string
	var threads int
	var hashes *string
	c := &cobra.Command{
		Use: "ocsp", Short: "Replay OCSP requests, verify answers, print rates and latencies",
		Long: `Asks an OCSP responder about certificates whose status is known, over keep-alive connections, and prints latencies, rate,
errors by kind and octets. Every answer is looked at: HTTP status, OCSP status, and what it says of the serial number. A
sample is verified in full during the run: signature, the responder's authority, times, nonce. One wrong answer makes the
exit code 3. Requests are written before the clock starts.

A closed loop (the default) sends the next request when an answer is there: it finds the highest rate. An open loop (-rate)
sends at a fixed rate and counts latencies from the time a request was due, so that a stall shows.

Without -url and -issuer it asks the sandbox that runs in -dir.`,
		Example: `  jpki-load ocsp -duration 30s -conns 200
  jpki-load ocsp -rate 2000 -conns 500 -get 0.5 -nonce 0.2 -report load.html
  jpki-load ocsp -url http://ocsp.example.jp -issuer ca.pem -targets serials.csv -hash sha1=0.2,sha256=0.8`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			var err error
			if mix.Hashes, err = parseHashes(*hashes); err != nil {
				return err
			}
			if opt.Conns < 1 || opt.Duration <= 0 || opt.Warmup < 0 || opt.Rate < 0 {
				return usageError{errors.New("-conns and -duration have to be positive, -rate and -warmup not negative")}
			}
			if opt.Samples == 0 {
				opt.Samples = -1
			}
			if threads > 0 {
				runtime.GOMAXPROCS(threads)
			}
			address, targets, err := from.load(c)
			if err != nil {
				return err
			}
			set, err := ocspload.NewSet(address, targets, mix)
			if err != nil {
				return usageError{err}
			}
			runtime.GC() // what making the set left behind is not to be cleared away during the run
			fmt.Fprintf(c.OutOrStdout(), "%-12s %s, %d different requests about %d certificates\n", "responder", address, set.Len(), len(targets))
			result, err := ocspload.Run(c.Context(), set, opt)
			if err != nil && (result == nil || !errors.Is(err, context.Canceled)) {
				return err
			}
			result.WriteTable(c.OutOrStdout())
			if report != "" {
				if err := writeReport(result, report, title); err != nil {
					return err
				}
			}
			if result.Wrong > 0 {
				return errNo
			}
			return err
		},
	}
	hashes = mixFlags(c, &mix)
	from.declare(c)
	c.Flags().IntVar(&opt.Conns, "conns", 50, "connections")
	c.Flags().Float64Var(&opt.Rate, "rate", 0, "open loop: requests a second; 0: closed loop")
	c.Flags().DurationVar(&opt.Warmup, "warmup", time.Second, "at the beginning, not counted")
	c.Flags().DurationVar(&opt.Duration, "duration", 10*time.Second, "counted")
	c.Flags().DurationVar(&opt.Timeout, "timeout", 5*time.Second, "of one request")
	c.Flags().IntVar(&opt.Samples, "samples", 100, "answers a second that are verified in full; 0: none")
	c.Flags().DurationVar(&opt.MaxAge, "max-age", 0, "an answer that is older is wrong; 0: as long as it says itself")
	c.Flags().BoolVar(&opt.Nonces, "require-nonce", false, "a nonce that does not come back is a wrong answer")
	c.Flags().IntVar(&threads, "threads", 0, "processors this client uses at once; 0: all")
	c.Flags().StringVar(&report, "report", "", "write an HTML report into this file")
	c.Flags().StringVar(&title, "title", "OCSP under load", "title of the report")
	return c
}

func writeReport(r *ocspload.Result, path, title string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(r.WriteReport(f, title), f.Close())
}

func requestsCommand() *cobra.Command {
	var mix ocspload.Mix
	var from sourceFlags
	var out string
	var hashes *string
	c := &cobra.Command{
		Use: "requests", Short: "Write request sets for other load generators",
		Long: `Writes requests.bin (each request with two octets of length in front, big-endian), requests.b64 (a base64 a line, to be
escaped where a GET needs it), serials.txt (32 hexadecimal digits a line) and targets.csv, which "jpki-load ocsp -targets" reads.`,
		Example: `  jpki-load requests -o perf/ocsp -n 10000 -hash sha1`,
		Args:    noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			var err error
			if mix.Hashes, err = parseHashes(*hashes); err != nil {
				return err
			}
			if out == "" {
				return usageError{errors.New("-o is required")}
			}
			address, targets, err := from.load(c)
			if err != nil {
				return err
			}
			set, err := ocspload.NewSet(address, targets, mix)
			if err != nil {
				return usageError{err}
			}
			if err := set.WriteFiles(out); err != nil {
				return err
			}
			return from.write(out, targets)
		},
	}
	hashes = mixFlags(c, &mix)
	from.declare(c)
	c.Flags().StringVar(&out, "o", "", "the folder")
	return c
}
