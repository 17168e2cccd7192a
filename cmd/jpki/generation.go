package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/cmd/internal/sandbox"
	"github.com/openjpki/jpki/hsm"
)

func generationCommand() *cobra.Command {
	var name, alg string
	roll := &cobra.Command{
		Use: "roll", Short: "Make the next generation of a CA and let it issue",
		Long: `Makes a key, its self-signed certificate under the CA's unchanged name and an OCSP responder for it, records the generation
and lets it issue in place of the former one, which goes on answering for its certificates. A sandbox that is running first
publishes the new CA certificate and its CRLs, and issues with it within a second or so. Its DIR/env goes on naming the
generation of the sample certificates until the next start.`,
		Example: `  jpki generation roll -ca sign -alg p-384`,
		Args:    exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			if !slices.Contains(jpki.CAs, jpki.CA(name)) || !slices.Contains([]hsm.Algorithm{hsm.RSA2048, hsm.P384}, hsm.Algorithm(alg)) {
				return usageError{errors.New("-ca must be sign or auth, and -alg rsa-2048 or p-384")}
			}
			id, err := sandbox.Roll(c.Context(), dirOf(c), jpki.CA(name), hsm.Algorithm(alg))
			if err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "%s (%s) issues from now on; its certificate is %s\n", id, alg, sandbox.CertificateFile(dirOf(c), id))
			return nil
		},
	}
	roll.Flags().StringVar(&name, "ca", "sign", "which authority: sign or auth")
	roll.Flags().StringVar(&alg, "alg", string(hsm.P384), "algorithm of the new key: rsa-2048 or p-384")
	return group(&cobra.Command{Use: "generation", Short: "Give a certification authority a new key", Example: roll.Example}, roll)
}
