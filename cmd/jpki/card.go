package main

import (
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/client"
	"github.com/openjpki/jpki/cmd/internal/sandbox"
	"github.com/openjpki/jpki/hsm/card"
)

func cardCommand() *cobra.Command {
	return group(&cobra.Command{
		Use: "card", Short: "Virtual My Number cards: make, show, sign, log in, suspend",
		Long: `Cards of the sandbox are files in its cards folder. A CARD is named by its number or by its file.
New cards have the PINs ` + sandbox.SignPIN + ` (signature) and ` + sandbox.AuthPIN + ` (authentication) unless you choose others.`,
		Example: `  CARD=$(jpki card new)
  jpki card sign $CARD contract.txt`,
	}, cardNew(), cardBlank(), cardServe(), cardShow(), cardSign(), cardLogin(), cardSuspend())
}

func pins(c *cobra.Command, sign, auth *string) {
	if sign != nil {
		c.Flags().StringVar(sign, "sign-pin", sandbox.SignPIN, "signature PIN: 6 to 16 capital letters and digits")
	}
	if auth != nil {
		c.Flags().StringVar(auth, "auth-pin", sandbox.AuthPIN, "authentication PIN: 4 digits")
	}
}

func openCard(c *cobra.Command, name string) (*card.Card, error) {
	if strings.ContainsRune(name, filepath.Separator) || strings.HasSuffix(name, ".card") {
		return card.Open(name)
	}
	return card.Open(filepath.Join(dirOf(c), "cards", name+".card"))
}

func cardNew() *cobra.Command {
	var signPIN, authPIN, holder string
	c := &cobra.Command{
		Use: "new", Short: "Make a card, have two certificates issued to it and hand it over",
		Long: `Makes a virtual card with two keys, registers a fictitious resident (or takes the holder you name), has the counter order
both certificates and writes them on the card. It prints the card's number. Needs a running sandbox.`,
		Example: `  jpki card new
  jpki card new -holder H4ZK…          # a new card for somebody: the old one ends
  CARD=$(jpki card new) && jpki card show $CARD`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			env, err := sandbox.Load(dirOf(c))
			if err != nil {
				return err
			}
			if err := errors.Join(card.CheckPIN(jpki.CardSign, signPIN), card.CheckPIN(jpki.CardAuth, authPIN)); err != nil {
				return usageError{err}
			}
			if holder, err = someHolder(c.Context(), env, holder); err != nil {
				return err
			}
			station, err := env.Station()
			if err != nil {
				return err
			}
			k, err := card.New(card.Config{Dir: env.CardDir, ID: "C" + rand.Text()[:12], SignPIN: signPIN, AuthPIN: authPIN, Keys: env.Keys(), Rand: rand.Reader})
			if err != nil {
				return err
			}
			if _, err := sandbox.Personalise(c.Context(), station, k, holder, signPIN, authPIN, jpki.CardSign, jpki.CardAuth); err != nil {
				return errors.Join(err, os.Remove(k.Path()))
			}
			fmt.Fprintln(c.OutOrStdout(), k.ID())
			fmt.Fprintln(c.ErrOrStderr(), "holder "+holder)
			return nil
		},
	}
	pins(c, &signPIN, &authPIN)
	c.Flags().StringVar(&holder, "holder", "", "an existing holder; default: somebody new")
	return c
}

func cardShow() *cobra.Command {
	var signPIN string
	c := &cobra.Command{
		Use: "show [CARD]", Short: "List the cards, or show one: tries left and certificates",
		Example: `  jpki card show
  jpki card show CK3V7QJ2MNBXA -sign-pin ` + sandbox.SignPIN,
		Args: atMostOne("CARD"),
		RunE: func(c *cobra.Command, args []string) error {
			out := c.OutOrStdout()
			if len(args) == 0 {
				paths, err := card.List(filepath.Join(dirOf(c), "cards"))
				if err != nil {
					return err
				}
				for _, p := range paths {
					fmt.Fprintln(out, strings.TrimSuffix(filepath.Base(p), ".card"))
				}
				return nil
			}
			k, err := openCard(c, args[0])
			if err != nil {
				return err
			}
			fmt.Fprintf(out, "card  %s\n", k.ID())
			for _, kind := range card.Kinds {
				tries, err := k.Tries(kind)
				if err != nil {
					return err
				}
				fmt.Fprintf(out, "\n%s  PIN tries left: %d\n", kind, tries)
				if kind == jpki.CardSign && !c.Flags().Changed("sign-pin") {
					fmt.Fprintln(out, "  readable with -sign-pin only, as on a real card")
					continue
				}
				der, err := k.Certificate(kind, signPIN)
				if errors.Is(err, card.ErrNoCertificate) {
					fmt.Fprintln(out, "  no certificate")
					continue
				}
				if err != nil {
					return err
				}
				if err := describeCertificate(out, der, "  "); err != nil {
					return err
				}
			}
			return nil
		},
	}
	pins(c, &signPIN, nil)
	return c
}

func cardSign() *cobra.Command {
	var signPIN, output, certOut string
	c := &cobra.Command{
		Use: "sign CARD FILE", Short: "Sign a file with the card's signature key",
		Long: `Writes a raw signature over the file to FILE.sig and the signature certificate to FILE.crt: RSA PKCS #1 v1.5 over its SHA-256, or by a card of
the next generation ECDSA, in DER, over its SHA-384.`,
		Example: `  jpki card sign $CARD contract.txt
  jpki verify -cert contract.txt.crt -signature contract.txt.sig contract.txt`,
		Args: exactly("CARD", "FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			k, err := openCard(c, args[0])
			if err != nil {
				return err
			}
			text, err := os.ReadFile(args[1])
			if err != nil {
				return err
			}
			_, _, signature, err := sandbox.SignWith(k, jpki.CardSign, signPIN, text)
			if err != nil {
				return err
			}
			der, err := k.Certificate(jpki.CardSign, signPIN)
			if err != nil {
				return err
			}
			if output == "" {
				output = args[1] + ".sig"
			}
			if certOut == "" {
				certOut = args[1] + ".crt"
			}
			return errors.Join(os.WriteFile(output, signature, 0o600),
				os.WriteFile(certOut, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
		},
	}
	pins(c, &signPIN, nil)
	c.Flags().StringVar(&output, "out", "", "where the signature goes (default FILE.sig)")
	c.Flags().StringVar(&certOut, "cert-out", "", "where the certificate goes (default FILE.crt)")
	return c
}

func cardLogin() *cobra.Command {
	var authPIN string
	var asJSON bool
	c := &cobra.Command{
		Use: "login CARD", Short: "Log in at the sandbox's bank with the card's authentication key",
		Example: `  jpki card login $CARD
  jpki card login $CARD -json | jq .code`,
		Args: exactly("CARD"),
		RunE: func(c *cobra.Command, args []string) error {
			env, err := sandbox.Load(dirOf(c))
			if err != nil {
				return err
			}
			k, err := openCard(c, args[0])
			if err != nil {
				return err
			}
			bank := env.Bank()
			challenge, err := bank.Challenge(c.Context())
			if err != nil {
				return err
			}
			_, _, signature, err := sandbox.SignWith(k, jpki.CardAuth, authPIN, challenge.Message)
			if err != nil {
				return err
			}
			der, err := k.Certificate(jpki.CardAuth, "")
			if err != nil {
				return err
			}
			v, err := bank.Login(c.Context(), challenge.ID, der, signature)
			if err != nil {
				return err
			}
			return printVerdict(c, v, asJSON)
		},
	}
	pins(c, nil, &authPIN)
	c.Flags().BoolVar(&asJSON, "json", false, "print the whole result as JSON")
	return c
}

func cardSuspend() *cobra.Command {
	cause := string(jpki.Lost)
	c := &cobra.Command{
		Use: "suspend [CARD]", Short: "Report a card lost: the call centre suspends its certificates",
		Long: `Without CARD the sample certificates' card is suspended; they are replaced when the sandbox starts next time.`,
		Example: `  jpki card suspend $CARD
  jpki card suspend                 # the card of $SAMPLE_SIGN_CERT`,
		Args: atMostOne("CARD"),
		RunE: func(c *cobra.Command, args []string) error {
			env, err := sandbox.Load(dirOf(c))
			if err != nil {
				return err
			}
			hotline, err := env.Hotline()
			if err != nil {
				return err
			}
			changes, err := suspendTargets(c, env, args, cause)
			if err != nil {
				return err
			}
			for _, ch := range changes {
				got, err := hotline.Suspend(c.Context(), rand.Text(), ch)
				if err != nil {
					return err
				}
				for _, g := range got.Changed {
					fmt.Fprintf(c.OutOrStdout(), "%-9s  %s  %s %s\n", g.Kind, g.Certificate, g.State, g.Reason)
				}
			}
			return nil
		},
	}
	c.Flags().StringVar(&cause, "cause", cause, "lost or key-doubt")
	return c
}

func suspendTargets(c *cobra.Command, env sandbox.Env, args []string, cause string) ([]client.Change, error) {
	if len(args) == 1 {
		k, err := openCard(c, args[0])
		if err != nil {
			return nil, err
		}
		return []client.Change{{Token: k.ID(), Cause: jpki.Cause(cause)}}, nil
	}
	var out []client.Change
	for _, path := range []string{env.SampleSignCert, env.SampleAuthCert} {
		cert, err := sandbox.ReadCertificate(path)
		if err != nil {
			return nil, err
		}
		id, err := env.CertID(cert)
		if err != nil {
			return nil, err
		}
		out = append(out, client.Change{Certificate: &id, Cause: jpki.Cause(cause)})
	}
	return out, nil
}
