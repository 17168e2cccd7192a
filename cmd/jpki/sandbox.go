package main

import (
	"errors"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/openjpki/jpki/cmd/internal/sandbox"
)

func sandboxCommand() *cobra.Command {
	var opt sandbox.Options
	c := &cobra.Command{
		Use:   "sandbox",
		Short: "Run everything in one process and play the life of a card",
		Long: `Makes a sandbox hierarchy on first start (names under O=JPKI-SANDBOX), starts the authority, the status services and
the verifier on loopback, plays the life of a card as a story, and stays up until Ctrl-C. While it is up, DIR/env holds
shell variables with every address and file.

With -live, something happens to a fictitious resident every few seconds after the story: births, moves, marriages, lost and
new cards, renewals, deaths. Each is a line, with the pseudonym under which the bank knows the resident, and so is each change that
the bank's feed tells. It all happens in real time, and the same -seed gives the same order. Their cards are in DIR/cards.

With -samples, DIR/samples has a request for every answer that a program which calls the verifier must handle, each with what
the answer is and a script that sends it; docs/samples.md lists them.

  port 8443  authority: station and register API (mutual TLS)
  port 8445  enrolment: certificates for stations, for the step client
  port 8080  status: /ocsp, /crl/ISSUER/PARTITION.crl, /ca/ISSUER.cer
  port 8090  verifier API for relying parties
  port 8099  /healthz, /readyz, /metrics`,
		Example: `  jpki sandbox                      # in var/sandbox
  jpki sandbox -once                # ends after the story: 0 if every step held
  jpki sandbox -dir /tmp/b -offset 100   # a second one beside the first
  jpki sandbox -profile next        # cards with P-384 keys and certificates for ten years
  jpki sandbox -hsm -dir var/hsm    # the CAs' keys in a SoftHSM token (Debian: softhsm2), behind jpki-signer
  jpki sandbox -live                # and residents who move, marry, lose their cards, every 2 s
  jpki sandbox -live 500ms -seed 7  # more often, and another order of events
  jpki sandbox -samples             # and requests that the verifier refuses, in DIR/samples
  jpki sandbox -lang ja             # 物語を日本語で`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 1 && c.Flags().Changed("live") {
				return nil
			}
			return exactly()(c, args)
		},
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 { // -live alone is a flag, too, so a time behind it is an argument
				var err error
				if opt.Live, err = time.ParseDuration(args[0]); err != nil {
					return usageError{errLive}
				}
			}
			if c.Flags().Changed("live") && (opt.Live < 100*time.Millisecond || opt.Live > time.Hour || opt.Once) {
				return usageError{errLive}
			}
			opt.Dir, opt.Out = dirOf(c), c.OutOrStdout()
			if opt.Lang != "en" && opt.Lang != "ja" {
				return usageError{errLang}
			}
			if opt.Profile != "" && !slices.Contains(sandbox.Profiles, opt.Profile) {
				return usageError{errors.New("-profile must be " + strings.Join(sandbox.Profiles, " or "))}
			}
			return sandbox.Run(c.Context(), opt)
		},
	}
	lang := "en"
	if strings.HasPrefix(os.Getenv("LANG"), "ja") {
		lang = "ja"
	}
	c.Flags().IntVar(&opt.Offset, "offset", 0, "added to every port")
	c.Flags().BoolVar(&opt.Once, "once", false, "end after the story")
	c.Flags().DurationVar(&opt.Live, "live", 0, "after the story, have something happen to a resident so often (alone: every "+sandbox.LiveEvery.String()+")")
	c.Flags().Lookup("live").NoOptDefVal = sandbox.LiveEvery.String()
	c.Flags().Uint64Var(&opt.LiveSeed, "seed", 1, "of the order of events with -live")
	c.Flags().BoolVar(&opt.Samples, "samples", false, "write requests for every answer of the verifier into DIR/samples")
	c.Flags().BoolVar(&opt.HSM, "hsm", false, "on first start, put the CAs' keys into a SoftHSM token behind jpki-signer")
	c.Flags().StringVar(&opt.Profile, "profile", "", "rules of today's cards or of the next generation's: today or next (default: as last time, first today)")
	c.Flags().StringVar(&opt.VerifierDatabase, "verifier-database", "", "postgres:// URL of the verifier's database (default: a file in the sandbox's directory)")
	c.Flags().StringVar(&opt.Lang, "lang", lang, "language of the story: en or ja")
	return c
}

var errLive = errors.New("-live takes a time between 100ms and 1h, and goes not with -once")

func dirOf(c *cobra.Command) string {
	dir, _ := c.Flags().GetString("dir") // declared on the root command
	return dir
}
