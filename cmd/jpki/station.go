package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"iter"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/client"
	"github.com/openjpki/jpki/cmd/internal/sandbox"
)

// stationCommand is what a counter does.
func stationCommand() *cobra.Command {
	return group(&cobra.Command{
		Use: "station", Short: "What a counter asks the authority for: certificates, one or many, and what became of them",
		Example: `  openssl req -newkey rsa:2048 -nodes -keyout my.key -subj / | jpki station request > my.crt
  jpki station batch cards.ndjson -out results.ndjson`,
	}, stationRequest(), stationBatch(), stationPersonalise(), stationSearch(), stationUndelivered(), stationDeliver(), stationDiscard(), stationPhone())
}

func stationRequest() *cobra.Command {
	var holder, token, kind string
	c := &cobra.Command{
		Use: "request [FILE]", Short: "Have a certification request (PKCS #10) answered with a certificate",
		Long:    `Reads the request, PEM or DER, from FILE or standard input and prints the certificate in PEM.`,
		Example: `  openssl req -newkey rsa:2048 -nodes -keyout my.key -subj / | jpki station request -kind card-sign > my.crt`,
		Args:    atMostOne("FILE"),
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
			var text bytes.Buffer
			if _, err := text.ReadFrom(in); err != nil {
				return err
			}
			der := text.Bytes()
			if block, _ := pem.Decode(der); block != nil {
				der = block.Bytes
			}
			station, err := env.Station()
			if err != nil {
				return err
			}
			if holder, err = someHolder(c.Context(), env, holder); err != nil {
				return err
			}
			if token == "" {
				token = "T" + rand.Text()[:12]
			}
			got, err := station.Issue(c.Context(), rand.Text(), client.CertificateOrder{Holder: holder, Token: token, Requests: []client.KeyRequest{{Kind: jpki.Kind(kind), Request: client.RequestPEM(der)}}})
			if err != nil {
				return err
			}
			fmt.Fprint(c.OutOrStdout(), got.Certificates[0].Certificate)
			return nil
		},
	}
	c.Flags().StringVar(&holder, "holder", "", "an existing holder; default: somebody new")
	c.Flags().StringVar(&token, "token", "", "number of the card; default: a new one")
	c.Flags().StringVar(&kind, "kind", string(jpki.CardSign), "card-sign or card-auth")
	return c
}

// someHolder returns the holder named, or registers somebody new.
func someHolder(ctx context.Context, env sandbox.Env, holder string) (string, error) {
	if holder != "" {
		return holder, nil
	}
	register, err := env.Register()
	if err != nil {
		return "", err
	}
	r := sandbox.NewResident(int(rand.Text()[0]))
	return r.ID, sandbox.RegisterResident(ctx, register, r)
}

func stationOf(c *cobra.Command) (*client.Client, error) {
	env, err := sandbox.Load(dirOf(c))
	if err != nil {
		return nil, err
	}
	return env.Station()
}

func stationSearch() *cobra.Command {
	var holder, token, serial, state string
	var asJSON bool
	c := &cobra.Command{
		Use: "search", Short: "Find certificates by holder, token or serial number",
		Example: `  jpki station search -holder sample-holder
  jpki station search -token $CARD -state good
  jpki station search -serial 5249C40EFDA7DF856290BCC9F7F0B47E -json`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			s := client.Search{Holder: holder, Token: token, State: jpki.State(state)}
			if serial != "" {
				var err error
				if s.Serial, err = jpki.ParseSerial(serial); err != nil {
					return usageError{err}
				}
			}
			station, err := stationOf(c)
			if err != nil {
				return err
			}
			return printCertificates(c, station.Search(c.Context(), s), asJSON)
		},
	}
	c.Flags().StringVar(&holder, "holder", "", "the holder's identifier")
	c.Flags().StringVar(&token, "token", "", "number of the card or phone")
	c.Flags().StringVar(&serial, "serial", "", "serial number, hexadecimal")
	c.Flags().StringVar(&state, "state", "", "good, suspended or revoked; default: any")
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object a line")
	return c
}

func stationUndelivered() *cobra.Command {
	var days int
	var asJSON bool
	c := &cobra.Command{
		Use: "undelivered", Short: "Certificates in force that have not reached their holder",
		Example: `  jpki station undelivered -older-than 90`,
		Args:    exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			station, err := stationOf(c)
			if err != nil {
				return err
			}
			return printCertificates(c, station.Undelivered(c.Context(), days), asJSON)
		},
	}
	c.Flags().IntVar(&days, "older-than", 0, "only those issued so many days ago or earlier")
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object a line")
	return c
}

func printCertificates(c *cobra.Command, certs iter.Seq2[client.Certificate, error], asJSON bool) error {
	out := c.OutOrStdout()
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for cert, err := range certs {
		if err != nil {
			return err
		}
		if asJSON {
			if err := json.NewEncoder(out).Encode(cert); err != nil {
				return err
			}
			continue
		}
		delivered := "not delivered"
		if cert.DeliveredAt != nil {
			delivered = "delivered " + cert.DeliveredAt.In(jpki.JST).Format(time.DateOnly)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s %s\tuntil %s\t%s\n", cert.Token, cert.Kind, cert.ID, cert.State, cert.Reason, cert.NotAfter.In(jpki.JST).Format(time.DateOnly), delivered)
	}
	return w.Flush()
}

func stationDeliver() *cobra.Command {
	return &cobra.Command{
		Example: `  jpki station deliver CK3V7QJ2MNBXA`,
		Use:     "deliver TOKEN", Short: "Record that a card reached its holder",
		Args: exactly("TOKEN"),
		RunE: func(c *cobra.Command, args []string) error {
			station, err := stationOf(c)
			if err != nil {
				return err
			}
			got, err := station.Deliver(c.Context(), rand.Text(), args[0])
			if err != nil {
				return err
			}
			for _, id := range got.Delivered {
				fmt.Fprintln(c.OutOrStdout(), id)
			}
			return nil
		},
	}
}

func stationDiscard() *cobra.Command {
	return &cobra.Command{
		Example: `  jpki station discard CK3V7QJ2MNBXA`,
		Use:     "discard TOKEN", Short: "End the certificates of a card that was never handed over",
		Args: exactly("TOKEN"),
		RunE: func(c *cobra.Command, args []string) error {
			station, err := stationOf(c)
			if err != nil {
				return err
			}
			got, err := station.Revoke(c.Context(), rand.Text(), client.Change{Token: args[0], Cause: jpki.Discarded})
			if err != nil {
				return err
			}
			for _, g := range got.Changed {
				fmt.Fprintf(c.OutOrStdout(), "%-9s  %s  %s %s\n", g.Kind, g.Certificate, g.State, g.Reason)
			}
			return nil
		},
	}
}
