package main

import (
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/cmd/internal/sandbox"
)

// cli is who gives an operator's commands.
var cli = jpki.Actor{Role: jpki.System, ID: "jpki"}

// relyingPartyCommand is what the authority's operator does about banks and telecoms.
func relyingPartyCommand() *cobra.Command {
	var operator, cert, number, name, uses string
	add := &cobra.Command{
		Use: "add", Short: "Register a relying party with the operator of a verifier",
		Long: `Registers the relying party of a Corporate Number, so that the operator may act for it, or changes its name and what it is
entitled to. With -cert the operator is enrolled, too, by the client certificate in FILE: one of the station CA's that names the
operator. It works on the sandbox's database, whether that runs or not, and the audit record has it.`,
		Example: `  jpki relying-party add -operator verifier-1 -tenant 8700110005901 -name 砂箱電話 -uses signature`,
		Args:    exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			t := store.Tenant{Operator: operator, Name: name}
			var err error
			if t.Number, err = jpki.ParseCorporateNumber(number); err != nil {
				return usageError{err}
			}
			for u := range strings.SplitSeq(uses, ",") {
				t.Uses = append(t.Uses, jpki.Use(u))
			}
			return sandbox.WithAuthority(c.Context(), dirOf(c), func(a *ca.Authority) error {
				if cert != "" {
					parsed, err := sandbox.ReadCertificate(cert)
					if err != nil {
						return err
					}
					if err := a.Enrol(c.Context(), cli, jpki.Actor{Role: jpki.Verifying, ID: operator}, parsed); err != nil {
						return err
					}
				}
				if err := a.RegisterTenant(c.Context(), cli, t); err != nil {
					return err
				}
				fmt.Fprintf(c.OutOrStdout(), "%s acts for %s, entitled to %s\n", operator, t.Number, uses)
				return nil
			})
		},
	}
	add.Flags().StringVar(&operator, "operator", "", "the operator of the verifier, as its client certificate names it")
	add.Flags().StringVar(&cert, "cert", "", "the operator's client certificate, to enrol it")
	add.Flags().StringVar(&number, "tenant", "", "the relying party's Corporate Number")
	add.Flags().StringVar(&name, "name", "", "what holders know it by")
	add.Flags().StringVar(&uses, "uses", "signature", "what it is entitled to: signature, authentication or both with a comma")

	list := &cobra.Command{
		Use: "list", Short: "List the relying parties",
		Example: `  jpki relying-party list`,
		Args:    exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			return sandbox.WithAuthority(c.Context(), dirOf(c), func(a *ca.Authority) error {
				tenants, err := a.Tenants(c.Context())
				w := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
				for _, t := range tenants {
					var uses []string
					for _, u := range t.Uses {
						uses = append(uses, string(u))
					}
					state := "registered"
					if t.Ended {
						state = "ended"
					}
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", t.Number, t.Operator, state, strings.Join(uses, ","), t.Name)
				}
				return errors.Join(err, w.Flush())
			})
		},
	}

	end := &cobra.Command{
		Use: "end NUMBER", Short: "End a relying party's registration: its operator gets nothing more for it",
		Example: `  jpki relying-party end 8700110005901`,
		Args:    exactly("NUMBER"),
		RunE: func(c *cobra.Command, args []string) error {
			return sandbox.WithAuthority(c.Context(), dirOf(c), func(a *ca.Authority) error {
				return a.EndTenant(c.Context(), cli, jpki.CorporateNumber(args[0]))
			})
		},
	}
	return group(&cobra.Command{Use: "relying-party", Short: "Register banks and others with the operators of verifiers", Example: add.Example}, add, list, end)
}
