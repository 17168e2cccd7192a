package main

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/cmd/internal/phone"
	"github.com/openjpki/jpki/cmd/internal/sandbox"
)

// phoneCommand is what holders do with a phone.
func phoneCommand() *cobra.Command {
	return group(&cobra.Command{
		Use: "phone", Short: "Virtual phones: ask for one with a card, get its two certificates by ACME, lose it and find it",
		Long: `A phone's certificates hang on a card: its holder asks with the card's signature key, or a counter does ("jpki station phone").
The answer is an invitation, good for 15 minutes and one phone, with which the phone enrols itself.`,
		Example: `  jpki phone begin $CARD | jpki phone enrol -out myphone
  jpki ocsp myphone/phone-auth.crt`,
	}, phoneBegin(), phoneEnrol(), phoneSuspend(), phoneResume())
}

func printInvitation(c *cobra.Command, i sandbox.Invitation) error {
	e := json.NewEncoder(c.OutOrStdout())
	e.SetIndent("", "  ")
	return e.Encode(i)
}

// phoneFlags are which phone, and what it shall have.
func phoneFlags(c *cobra.Command, token *string, kind *string) {
	c.Flags().StringVar(token, "token", "", "number of the phone; default: a new one")
	c.Flags().StringVar(kind, "kind", "", "phone-sign or phone-auth; default: both")
}

func phoneOf(token, kind string) (string, []jpki.Kind) {
	if token == "" {
		token = sandbox.NewPhone()
	}
	if kind != "" {
		return token, []jpki.Kind{jpki.Kind(kind)}
	}
	return token, sandbox.PhoneKinds()
}

func phoneBegin() *cobra.Command {
	var signPIN, token, kind string
	c := &cobra.Command{
		Use: "begin CARD", Short: "Ask for a phone with the card's signature key; prints an invitation",
		Long: `The card signs a challenge of the authority together with what is asked for. The invitation, JSON, holds a key that is told once:
who has it enrols a phone in the holder's name. If it gets lost, ask again.`,
		Example: `  jpki phone begin $CARD > invitation.json
  jpki phone begin -token P7Q2 -kind phone-auth $CARD`,
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
			token, kinds := phoneOf(token, kind)
			i, err := env.BeginOwnPhone(c.Context(), k, signPIN, token, kinds...)
			if err != nil {
				return err
			}
			return printInvitation(c, i)
		},
	}
	pins(c, &signPIN, nil)
	phoneFlags(c, &token, &kind)
	return c
}

func stationPhone() *cobra.Command {
	var token, kind string
	c := &cobra.Command{
		Use: "phone CARD", Short: "Let a phone in on the strength of a card that is in force; prints an invitation",
		Long:    `The counter has seen the holder and the card. The invitation, JSON, holds a key that is told once; if it gets lost, ask again.`,
		Example: `  jpki station phone $CARD > invitation.json`,
		Args:    exactly("CARD"),
		RunE: func(c *cobra.Command, args []string) error {
			env, err := sandbox.Load(dirOf(c))
			if err != nil {
				return err
			}
			token, kinds := phoneOf(token, kind)
			i, err := env.BeginPhone(c.Context(), args[0], token, kinds...)
			if err != nil {
				return err
			}
			return printInvitation(c, i)
		},
	}
	phoneFlags(c, &token, &kind)
	return c
}

// maxInvitation bounds an invitation, in octets.
const maxInvitation = 64 << 10

func phoneEnrol() *cobra.Command {
	var out, format string
	c := &cobra.Command{
		Use: "enrol [INVITATION]", Short: "Be a phone: make keys, have them attested, and get their certificates by ACME",
		Long: `Reads an invitation from a file or standard input and writes KIND.key and KIND.crt, PEM, for each certificate into a new folder.
The phone's maker is the sandbox's, whose key attests anything.`,
		Example: `  jpki phone begin $CARD | jpki phone enrol
  jpki phone enrol -format android-key -out myphone invitation.json`,
		Args: atMostOne("INVITATION"),
		RunE: func(c *cobra.Command, args []string) error {
			env, err := sandbox.Load(dirOf(c))
			if err != nil {
				return err
			}
			in := c.InOrStdin()
			if len(args) == 1 {
				f, err := os.Open(args[0])
				if err != nil {
					return err
				}
				defer func() { _ = f.Close() }()
				in = f
			}
			text, err := io.ReadAll(io.LimitReader(in, maxInvitation))
			if err != nil {
				return err
			}
			var i sandbox.Invitation
			if err := json.Unmarshal(bytes.TrimSpace(text), &i); err != nil || i.KeyID == "" || len(i.Kinds) == 0 {
				return errors.New("that is no invitation; \"jpki phone begin\" and \"jpki station phone\" print one")
			}
			if out == "" {
				out = "phone-" + i.Token
			}
			if err := os.Mkdir(out, 0o700); err != nil { // before anything is asked for: an invitation is good once
				return err
			}
			got, err := env.EnrolPhone(c.Context(), i, format)
			return errors.Join(err, writePhone(c.OutOrStdout(), out, got))
		},
	}
	c.Flags().StringVar(&out, "out", "", "folder for keys and certificates (default phone-TOKEN)")
	c.Flags().StringVar(&format, "format", "", "how the maker attests: step, apple, android-key or apple-appattest (default step; for P-384 keys android-key)")
	return c
}

// writePhone writes what a phone got, and says so.
func writePhone(w io.Writer, dir string, got []phone.Certificate) error {
	for _, g := range got {
		key, err := x509.MarshalPKCS8PrivateKey(g.Key)
		if err != nil {
			return err
		}
		cert, err := x509.ParseCertificate(g.DER)
		if err != nil {
			return err
		}
		base := filepath.Join(dir, string(g.Kind))
		if err := errors.Join(os.WriteFile(base+".key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600),
			os.WriteFile(base+".crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: g.DER}), 0o600)); err != nil {
			return err
		}
		fmt.Fprintf(w, "%-10s  until %s  %s.crt\n", g.Kind, cert.NotAfter.In(jpki.JST).Format(time.DateOnly), base)
	}
	return nil
}
