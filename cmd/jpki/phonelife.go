package main

import (
	"crypto/rand"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/client"
	"github.com/openjpki/jpki/cmd/internal/sandbox"
)

func phoneSuspend() *cobra.Command {
	cause := string(jpki.Lost)
	c := &cobra.Command{
		Use: "suspend PHONE", Short: "Report a phone lost: the call centre suspends its certificates",
		Long:    `A PHONE is named by its number, which its invitation says. The card stays as it is.`,
		Example: `  jpki phone suspend $PHONE`,
		Args:    exactly("PHONE"),
		RunE: func(c *cobra.Command, args []string) error {
			env, err := sandbox.Load(dirOf(c))
			if err != nil {
				return err
			}
			hotline, err := env.Hotline()
			if err != nil {
				return err
			}
			got, err := hotline.Suspend(c.Context(), rand.Text(), client.Change{Token: args[0], Cause: jpki.Cause(cause)})
			if err != nil {
				return err
			}
			printChanges(c.OutOrStdout(), got)
			return nil
		},
	}
	c.Flags().StringVar(&cause, "cause", cause, "lost or key-doubt")
	return c
}

func phoneResume() *cobra.Command {
	return &cobra.Command{
		Use: "resume PHONE", Short: "Report a lost phone found: a counter releases what may be released",
		Long: `The authentication certificate is good again. The signature certificate never is: it is ended, so that the phone can enrol for
another ("jpki phone begin -token PHONE -kind phone-sign CARD").`,
		Example: `  jpki phone resume $PHONE`,
		Args:    exactly("PHONE"),
		RunE: func(c *cobra.Command, args []string) error {
			station, err := stationOf(c)
			if err != nil {
				return err
			}
			got, err := station.Resume(c.Context(), rand.Text(), client.Change{Token: args[0], Cause: jpki.Found})
			if err != nil {
				return err
			}
			printChanges(c.OutOrStdout(), got)
			on, err := station.Token(c.Context(), args[0])
			if err != nil {
				return err
			}
			for _, held := range on.Certificates {
				if held.Kind != jpki.PhoneSign || held.State != jpki.Suspended {
					continue
				}
				if got, err = station.Revoke(c.Context(), rand.Text(), client.Change{Certificate: &held.ID, Cause: jpki.HolderRequest}); err != nil {
					return err
				}
				printChanges(c.OutOrStdout(), got)
			}
			return nil
		},
	}
}

func printChanges(w io.Writer, got client.Changes) {
	for _, g := range got.Changed {
		fmt.Fprintf(w, "%-10s  %s  %s %s\n", g.Kind, g.Certificate, g.State, g.Reason)
	}
}
