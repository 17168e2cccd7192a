package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/cloudflare/cfssl/certinfo"
	"github.com/mattn/go-runewidth"
	"github.com/spf13/cobra"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/cmd/internal/sandbox"
	"github.com/openjpki/jpki/ocsp"
	"github.com/openjpki/jpki/verifier"
)

var errLang = errors.New("-lang is en or ja")

func certificateCommand() *cobra.Command {
	var asJSON bool
	show := &cobra.Command{
		Use: "show FILE", Short: "What a certificate says, with the four attributes in Japanese",
		Example: `  jpki certificate show var/sandbox/sample/sign.crt
  jpki certificate show -json var/sandbox/sample/sign.crt | jq .attributes`,
		Args: exactly("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			cert, err := sandbox.ReadCertificate(args[0])
			if err != nil {
				return err
			}
			if asJSON {
				return encodeCertificate(c.OutOrStdout(), cert)
			}
			return describeCertificate(c.OutOrStdout(), cert.Raw, "")
		},
	}
	show.Flags().BoolVar(&asJSON, "json", false, "print it as JSON")
	return group(&cobra.Command{Use: "certificate", Short: "Look at certificates", Example: show.Example}, show)
}

// encodeCertificate prints a certificate for scripts, in the shape of `cfssl certinfo`, with the four attributes beside it.
func encodeCertificate(out io.Writer, c *x509.Certificate) error {
	view := struct {
		*certinfo.Certificate
		Policies   []string         `json:"policies,omitempty"`
		Attributes *jpki.Attributes `json:"attributes,omitempty"`
	}{Certificate: certinfo.ParseCertificate(c), Attributes: attributesOf(c)}
	for _, p := range c.Policies {
		view.Policies = append(view.Policies, p.String())
	}
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(view)
}

// attributesOf returns the four attributes of a signature certificate; nil where there are none.
func attributesOf(c *x509.Certificate) *jpki.Attributes {
	for _, e := range c.Extensions {
		if e.Id.String() == "2.5.29.17" && !c.IsCA {
			if a, err := verifier.ParseAttributes(e.Value); err == nil {
				return a
			}
		}
	}
	return nil
}

// policyNames tells the sandbox's certificate policies apart for people.
var policyNames = func() map[string]jpki.Kind {
	out := map[string]jpki.Kind{}
	for _, p := range verifier.SandboxPolicies() {
		for kind, oids := range p.CertificatePolicies {
			for _, oid := range oids {
				out[oid] = kind
			}
		}
	}
	return out
}()

// describeCertificate prints a certificate for people, a field a line.
func describeCertificate(out io.Writer, der []byte, indent string) error {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	line := func(name, format string, args ...any) { // a Japanese character is two places wide
		fmt.Fprintf(out, "%s%s  %s\n", indent, runewidth.FillRight(name, 14), fmt.Sprintf(format, args...))
	}
	line("subject", "%s", distinguishedName(c.RawSubject))
	line("issuer", "%s", distinguishedName(c.RawIssuer))
	line("serial", "%X", c.SerialNumber)
	line("valid", "%s to %s JST", c.NotBefore.In(jpki.JST).Format(time.DateTime), c.NotAfter.In(jpki.JST).Format(time.DateTime))
	line("key", "%s", keyName(c.PublicKey))
	var usages []string
	for bit, name := range map[x509.KeyUsage]string{x509.KeyUsageDigitalSignature: "digitalSignature", x509.KeyUsageContentCommitment: "nonRepudiation", x509.KeyUsageCertSign: "keyCertSign", x509.KeyUsageCRLSign: "cRLSign"} {
		if c.KeyUsage&bit != 0 {
			usages = append(usages, name)
		}
	}
	if len(usages) > 1 && usages[0] > usages[1] {
		usages[0], usages[1] = usages[1], usages[0]
	}
	line("key usage", "%s", strings.Join(usages, ", "))
	for _, p := range c.Policies {
		name := p.String()
		if kind, ok := policyNames[name]; ok {
			name += " (" + string(kind) + ", sandbox)"
		}
		line("policy", "%s", name)
	}
	for _, u := range c.OCSPServer {
		line("OCSP", "%s", u)
	}
	for _, u := range c.CRLDistributionPoints {
		line("CRL", "%s", u)
	}
	line("key identifier", "%X, of the issuer %X", c.SubjectKeyId, c.AuthorityKeyId)
	line("SHA-256", "%X", sha256.Sum256(der))
	if a := attributesOf(c); a != nil {
		line("氏名", "%s%s", a.Name, substitutes(a.NameSubstitutes))
		line("生年月日", "%s", birthDate(a.BirthDate))
		line("性別", "%s", map[jpki.Sex]string{jpki.Male: "男", jpki.Female: "女", jpki.SexUnknown: "不明", jpki.SexNotApplicable: "適用不能"}[a.Sex])
		line("住所", "%s%s", a.Address, substitutes(a.AddressSubstitutes))
	}
	return nil
}

// distinguishedName writes a name in the order in which the certificate has it.
func distinguishedName(der []byte) string {
	var rdns pkix.RDNSequence
	if _, err := asn1.Unmarshal(der, &rdns); err != nil {
		return "unreadable"
	}
	var parts []string
	for _, rdn := range rdns {
		for _, a := range rdn {
			name := a.Type.String()
			if short, ok := map[string]string{"2.5.4.6": "C", "2.5.4.10": "O", "2.5.4.11": "OU", "2.5.4.7": "L", "2.5.4.3": "CN"}[name]; ok {
				name = short
			}
			parts = append(parts, fmt.Sprintf("%s=%v", name, a.Value))
		}
	}
	return strings.Join(parts, ", ")
}

func keyName(k any) string {
	switch k := k.(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d bits", k.N.BitLen())
	case *ecdsa.PublicKey:
		return "ECDSA " + k.Curve.Params().Name
	case ed25519.PublicKey:
		return "Ed25519"
	}
	return fmt.Sprintf("%T", k)
}

func substitutes(marks string) string {
	if strings.Contains(marks, "1") {
		return "（代替文字の位置: " + marks + "）"
	}
	return ""
}

func birthDate(b jpki.BirthDate) string {
	y, m, d := b.Parts()
	part := func(n int, unit string) string {
		if n == 0 {
			return "不詳"
		}
		return fmt.Sprint(n) + unit
	}
	return part(y, "年") + part(m, "月") + part(d, "日")
}

func ocspCommand() *cobra.Command {
	var url string
	var asJSON bool
	c := &cobra.Command{
		Use: "ocsp CERTIFICATE", Short: "Ask the responder about a certificate: good, revoked or unknown",
		Long: `Asks the OCSP responder, checks the answer's signature, responder, nonce and times, and prints the status.
Exit code 0 means good; 3 anything else.`,
		Example: `  jpki ocsp var/sandbox/sample/sign.crt
  jpki ocsp -json var/sandbox/sample/sign.crt | jq -r .status`,
		Args: exactly("CERTIFICATE"),
		RunE: func(c *cobra.Command, args []string) error {
			env, err := sandbox.Load(dirOf(c))
			if err != nil {
				return err
			}
			cert, err := sandbox.ReadCertificate(args[0])
			if err != nil {
				return err
			}
			issuer, err := env.Issuer(cert)
			if err != nil {
				return err
			}
			if url == "" {
				url = env.OCSPURL
			}
			a, err := sandbox.AskOCSP(c.Context(), url, cert, issuer)
			if err != nil {
				return err
			}
			if err := printAnswer(c.OutOrStdout(), a, asJSON); err != nil {
				return err
			}
			if a.Revoked || a.Unknown {
				return errNo
			}
			return nil
		},
	}
	c.AddCommand(ocspConformance())
	c.Flags().StringVar(&url, "url", "", "another responder than the sandbox's")
	c.Flags().BoolVar(&asJSON, "json", false, "print the answer as JSON")
	return c
}

// printAnswer prints an OCSP answer for people or scripts.
func printAnswer(out io.Writer, a ocsp.Answer, asJSON bool) error {
	if !asJSON {
		fmt.Fprintln(out, sandbox.Describe(a))
		if a.Revoked {
			fmt.Fprintf(out, "since  %s JST\n", a.RevokedAt.In(jpki.JST).Format(time.DateTime))
		}
		fmt.Fprintf(out, "as of  %s JST\n", a.ThisUpdate.In(jpki.JST).Format(time.DateTime))
		return nil
	}
	answer := struct {
		Serial     jpki.Serial `json:"serial"`
		Status     string      `json:"status"` // good, revoked or unknown
		Reason     string      `json:"reason,omitempty"`
		RevokedAt  *time.Time  `json:"revoked_at,omitempty"`
		ThisUpdate time.Time   `json:"this_update"`
		NextUpdate time.Time   `json:"next_update"`
	}{Serial: a.CertID.Serial, Status: "good", ThisUpdate: a.ThisUpdate, NextUpdate: a.NextUpdate}
	switch {
	case a.Unknown:
		answer.Status = "unknown"
	case a.Revoked:
		answer.Status, answer.Reason, answer.RevokedAt = "revoked", a.Reason.String(), &a.RevokedAt
	}
	return json.NewEncoder(out).Encode(answer)
}

func crlCommand() *cobra.Command {
	show := &cobra.Command{
		Use: "show FILE", Short: "What a CRL says",
		Example: `  curl -s $CRL_URL/sign-1/full.crl | jpki crl show -
  jpki crl show var/sandbox/public/crl/sign-1/99101.crl`,
		Args: exactly("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			text, err := readFile(c, args[0])
			if err != nil {
				return err
			}
			if block, _ := pem.Decode(text); block != nil {
				text = block.Bytes
			}
			list, err := x509.ParseRevocationList(text)
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintf(w, "issuer\t%s\nkey identifier\t%X\nnumber\t%d\nthis update\t%s JST\nnext update\t%s JST\nentries\t%d\n", distinguishedName(list.RawIssuer), list.AuthorityKeyId, list.Number,
				list.ThisUpdate.In(jpki.JST).Format(time.DateTime), list.NextUpdate.In(jpki.JST).Format(time.DateTime), len(list.RevokedCertificateEntries))
			for _, e := range list.RevokedCertificateEntries {
				fmt.Fprintf(w, "  %X\t%s JST  %s\n", e.SerialNumber, e.RevocationTime.In(jpki.JST).Format(time.DateTime), jpki.Reason(e.ReasonCode))
			}
			return w.Flush()
		},
	}
	return group(&cobra.Command{Use: "crl", Short: "Revocation lists and status snapshots: look at them, watch, publish", Example: show.Example}, show, crlPublishCommand(), crlMirrorCommand(), snapshotCommand(), crlWatchCommand())
}

func readFile(c *cobra.Command, path string) ([]byte, error) {
	if path == "-" {
		return io.ReadAll(io.LimitReader(c.InOrStdin(), 1<<30))
	}
	return os.ReadFile(path)
}

func verifyCommand() *cobra.Command {
	var certFile, sigFile string
	var document documentCheck
	c := &cobra.Command{
		Use: "verify FILE", Short: "Verify a signed document, or a raw signature over a file",
		Long: `Checks the signatures of a document (CMS, XML, PDF or JWS) by the building blocks of EN 319 102-1 and says what was checked, what
failed and what to do. Exit code 0: TOTAL-PASSED; 1: TOTAL-FAILED; 3: INDETERMINATE. Anchors are the sandbox's, or those of -trust.

With -cert and -signature it checks a raw signature over the file instead, as a relying party's API does: trust anchor, validity,
purpose, policy, revocation by OCSP, and the signature. Exit code 0 means it may be relied upon; 3 that it may not, or not yet.`,
		Example: `  jpki verify contract.txt.p7s -detached contract.txt
  jpki verify contract.signed.pdf -json | jq .code
  jpki verify invoice.xml -trust anchors/ -evidence invoice.evidence.json
  jpki verify contract.signed.pdf -token contract.svt -token-key token.key -token-cert token.crt
  jpki verify contract.signed.pdf -with-token contract.svt -token-cert token.crt
  jpki verify -cert contract.txt.crt -signature contract.txt.sig contract.txt`,
		Args: exactly("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			if certFile == "" && sigFile == "" {
				return document.run(c, args[0])
			}
			if certFile == "" || sigFile == "" {
				return usageError{errors.New("-cert and -signature belong together")}
			}
			env, err := sandbox.Load(dirOf(c))
			if err != nil {
				return err
			}
			text, err := readFile(c, args[0])
			if err != nil {
				return err
			}
			signature, err := os.ReadFile(sigFile)
			if err != nil {
				return err
			}
			cert, err := sandbox.ReadCertificate(certFile)
			if err != nil {
				return err
			}
			v, err := verifyLocally(c.Context(), env, cert, text, signature)
			if err != nil {
				return err
			}
			return printVerdict(c, v, document.asJSON)
		},
	}
	c.Flags().StringVar(&certFile, "cert", "", "of a raw signature: the signer's certificate, PEM or DER")
	c.Flags().StringVar(&sigFile, "signature", "", "the raw signature, binary")
	c.Flags().BoolVar(&document.asJSON, "json", false, "print the whole result as JSON")
	document.flags(c)
	return c
}

func verifyLocally(ctx context.Context, env sandbox.Env, cert *x509.Certificate, text, signature []byte) (sandbox.Verdict, error) {
	var v sandbox.Verdict
	lib, err := env.Verifier()
	if err != nil {
		return v, err
	}
	digest, hash := sandbox.Digest(cert.PublicKey, text)
	result, err := lib.Signature(ctx, verifier.SignatureInput{Certificate: cert.Raw, Digest: digest, Hash: hash, Signature: signature})
	if err != nil {
		return v, err
	}
	if v.Raw, err = json.Marshal(result); err != nil {
		return v, err
	}
	raw := v.Raw
	err = json.Unmarshal(raw, &v)
	v.Raw = raw
	return v, err
}

// printVerdict prints a verdict for people or scripts; one that is not TOTAL-PASSED ends with errNo.
func printVerdict(c *cobra.Command, v sandbox.Verdict, asJSON bool) error {
	out := c.OutOrStdout()
	if asJSON {
		fmt.Fprintln(out, string(v.Raw))
	} else {
		lang := ""
		if strings.HasPrefix(os.Getenv("LANG"), "ja") {
			lang = "ja"
		}
		fmt.Fprintf(out, "%s  %s\n%s\n%s\n", v.Indication, v.Code, v.Message.In(lang), v.Action.In(lang))
		if a := v.Attributes; a != nil {
			fmt.Fprintf(out, "氏名      %s\n生年月日  %s\n住所      %s\n", a.Name, birthDate(a.BirthDate), a.Address)
		}
	}
	if v.Indication != string(verifier.TotalPassed) {
		return errNo
	}
	return nil
}
