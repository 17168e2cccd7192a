package main

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/verifier/cms"
	"github.com/openjpki/jpki/verifier/pdf"
)

func signCommand() *cobra.Command {
	var signPIN, output string
	var attached bool
	c := &cobra.Command{
		Use: "sign CARD FILE", Short: "Sign a document with the card's signature key: CMS, or inside a PDF",
		Long: `Writes a CMS signature (CAdES-B-B) to FILE.p7s, which leaves FILE as it is, or with -attached contains it. A PDF is
signed inside (PAdES-B-B) and written to FILE.signed.pdf. openssl cms, pdfsig and "jpki verify" accept both.`,
		Example: `  jpki sign $CARD contract.txt
  jpki verify contract.txt.p7s -detached contract.txt
  openssl cms -verify -binary -inform DER -in contract.txt.p7s -content contract.txt -CAfile $TRUST_SIGN -purpose any`,
		Args: exactly("CARD", "FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			k, err := openCard(c, args[0])
			if err != nil {
				return err
			}
			document, err := os.ReadFile(args[1])
			if err != nil {
				return err
			}
			key, err := k.Signer(jpki.CardSign, signPIN)
			if err != nil {
				return err
			}
			certificate, err := k.Certificate(jpki.CardSign, signPIN)
			if err != nil {
				return err
			}
			now := time.Now()
			if bytes.HasPrefix(document, []byte("%PDF-")) && !attached {
				var out bytes.Buffer
				err := pdf.Sign(&out, bytes.NewReader(document), int64(len(document)), pdf.SignConfig{Certificate: certificate, Signer: key, Rand: rand.Reader, Time: now})
				if err != nil {
					return err
				}
				if output == "" {
					output = strings.TrimSuffix(args[1], filepath.Ext(args[1])) + ".signed.pdf"
				}
				return os.WriteFile(output, out.Bytes(), 0o600)
			}
			file, err := cms.Sign(bytes.NewReader(document), cms.SignConfig{
				Certificate: certificate, Signer: key, Rand: rand.Reader, SigningTime: now, Attached: attached,
			})
			if err != nil {
				return err
			}
			if output == "" {
				output = args[1] + ".p7s"
			}
			if err := os.WriteFile(output, file, 0o600); err != nil {
				return fmt.Errorf("write the signature: %w", err)
			}
			return nil
		},
	}
	pins(c, &signPIN, nil)
	c.Flags().StringVar(&output, "out", "", "where the result goes (default FILE.p7s, of a PDF FILE.signed.pdf)")
	c.Flags().BoolVar(&attached, "attached", false, "put the document into the CMS file")
	return c
}
