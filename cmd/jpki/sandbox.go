package main

import (
	"errors"
	"os"
	"slices"
	"strings"

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
  jpki sandbox -lang ja             # 物語を日本語で`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
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
	c.Flags().BoolVar(&opt.HSM, "hsm", false, "on first start, put the CAs' keys into a SoftHSM token behind jpki-signer")
	c.Flags().StringVar(&opt.Profile, "profile", "", "rules of today's cards or of the next generation's: today or next (default: as last time, first today)")
	c.Flags().StringVar(&opt.Lang, "lang", lang, "language of the story: en or ja")
	return c
}

func dirOf(c *cobra.Command) string {
	dir, _ := c.Flags().GetString("dir") // declared on the root command
	return dir
}
