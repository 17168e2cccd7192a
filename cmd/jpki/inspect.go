package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/mattn/go-runewidth"
	"github.com/spf13/cobra"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/audit"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/cmd/internal/sandbox"
	"github.com/openjpki/jpki/verifier"
)

var errLang = errors.New("-lang is en or ja")

func certificateCommand() *cobra.Command {
	show := &cobra.Command{
		Use: "show FILE", Short: "What a certificate says, with the four attributes in Japanese",
		Example: `  jpki certificate show var/sandbox/sample/sign.crt`,
		Args:    exactly("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			cert, err := sandbox.ReadCertificate(args[0])
			if err != nil {
				return err
			}
			return describeCertificate(c.OutOrStdout(), cert.Raw, "")
		},
	}
	return group(&cobra.Command{Use: "certificate", Short: "Look at certificates", Example: show.Example}, show)
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
	for _, e := range c.Extensions {
		if e.Id.String() != "2.5.29.17" || c.IsCA {
			continue
		}
		a, err := verifier.ParseAttributes(e.Value)
		if err != nil {
			continue // of another form than the four attributes'
		}
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
	c := &cobra.Command{
		Use: "ocsp CERTIFICATE", Short: "Ask the responder about a certificate: good, revoked or unknown",
		Long: `Asks the OCSP responder, checks the answer's signature, responder, nonce and times, and prints the status.
Exit code 0 means good; 3 anything else.`,
		Example: `  jpki ocsp var/sandbox/sample/sign.crt`,
		Args:    exactly("CERTIFICATE"),
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
			out := c.OutOrStdout()
			fmt.Fprintln(out, sandbox.Describe(a))
			if a.Revoked {
				fmt.Fprintf(out, "since  %s JST\n", a.RevokedAt.In(jpki.JST).Format(time.DateTime))
			}
			fmt.Fprintf(out, "as of  %s JST\n", a.ThisUpdate.In(jpki.JST).Format(time.DateTime))
			if a.Revoked || a.Unknown {
				return errNo
			}
			return nil
		},
	}
	c.Flags().StringVar(&url, "url", "", "another responder than the sandbox's")
	return c
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
	return group(&cobra.Command{Use: "crl", Short: "Look at revocation lists", Example: show.Example}, show)
}

func readFile(c *cobra.Command, path string) ([]byte, error) {
	if path == "-" {
		return io.ReadAll(io.LimitReader(c.InOrStdin(), 1<<30))
	}
	return os.ReadFile(path)
}

func verifyCommand() *cobra.Command {
	var certFile, sigFile string
	var asJSON bool
	c := &cobra.Command{
		Use: "verify -cert CERT -signature SIG FILE", Short: "Verify a signature over a file with the verifier library",
		Long: `Checks a raw signature over the file's SHA-256 as a relying party would: trust anchor, validity, purpose, policy,
revocation by OCSP, and the signature. Exit code 0 means it may be relied upon; 3 that it may not, or not yet.`,
		Example: `  jpki verify -cert contract.txt.crt -signature contract.txt.sig contract.txt
  jpki verify -cert c.crt -signature c.sig -json c.txt | jq .code`,
		Args: exactly("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			if certFile == "" || sigFile == "" {
				return usageError{errors.New("-cert and -signature are required")}
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
			return printVerdict(c, v, asJSON)
		},
	}
	c.Flags().StringVar(&certFile, "cert", "", "the signer's certificate, PEM or DER")
	c.Flags().StringVar(&sigFile, "signature", "", "the signature, binary")
	c.Flags().BoolVar(&asJSON, "json", false, "print the whole result as JSON")
	return c
}

func verifyLocally(ctx context.Context, env sandbox.Env, cert *x509.Certificate, text, signature []byte) (sandbox.Verdict, error) {
	var v sandbox.Verdict
	lib, err := env.Verifier()
	if err != nil {
		return v, err
	}
	digest := sha256.Sum256(text)
	result, err := lib.Signature(ctx, verifier.SignatureInput{Certificate: cert.Raw, Digest: digest[:], Hash: crypto.SHA256, Signature: signature})
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

func auditCommand() *cobra.Command {
	verify := &cobra.Command{
		Use: "verify", Short: "Check that nothing in the audit record was removed, reordered or altered",
		Long: `Reads the record from the database, checks each entry's link to the one before it, every signed checkpoint, and that each
certificate's last recorded change is its present status. Works while the sandbox runs and when it does not.
Exit code 0 means the record is whole; 3 that it is not.`,
		Example: `  jpki audit verify
  jpki audit verify -dir /tmp/b`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error { return verifyAudit(c, dirOf(c)) },
	}
	return group(&cobra.Command{Use: "audit", Short: "The authority's audit record", Example: verify.Example}, verify)
}

func verifyAudit(c *cobra.Command, dir string) error {
	db, err := store.Open(c.Context(), "sqlite:"+filepath.Join(dir, "authority", "ca.db"))
	if err != nil {
		return fmt.Errorf("open the sandbox's database (has the sandbox been started once?): %w", err)
	}
	defer func() { _ = db.Close() }()
	out := c.OutOrStdout()
	checkpoints, err := readCheckpoints(dir)
	if err != nil {
		return brokenRecord(out, err)
	}
	var r *record
	var wrong []string
	// While the authority works, a status can be newer than the record read before it. Read again, the record has caught up.
	suspect := func(jpki.CertID) bool { return true }
	for range 3 {
		if r, err = readRecord(c.Context(), db, checkpoints); err != nil {
			return brokenRecord(out, err)
		}
		differ, err := r.compare(c.Context(), db, suspect)
		if err != nil {
			return err
		}
		wrong = slices.Sorted(maps.Values(differ))
		if len(differ) == 0 {
			break
		}
		suspect = func(id jpki.CertID) bool { _, yes := differ[id]; return yes }
	}
	if n := len(checkpoints); n > 0 && checkpoints[n-1].Seq > r.head.Seq {
		wrong = append(wrong, fmt.Sprintf("entries %d to %d are missing: a signed checkpoint saw them", r.head.Seq+1, checkpoints[n-1].Seq))
	}
	for _, w := range wrong {
		fmt.Fprintln(out, w)
	}
	if len(wrong) > 0 {
		return errNo
	}
	fmt.Fprintf(out, "whole: %d entries, %d signed checkpoints, %d certificates as recorded\nhead   %s\n", r.head.Seq, len(checkpoints), len(r.last), r.head.Hash)
	return nil
}

// brokenRecord prints what is wrong with a record; any other error stays one.
func brokenRecord(out io.Writer, err error) error {
	broken, ok := errors.AsType[*audit.BrokenChainError](err)
	if !ok && !errors.Is(err, errForged) {
		return err
	}
	if ok {
		err = broken
	}
	fmt.Fprintln(out, err)
	return errNo
}

// A record is the audit record as it was read.
type record struct {
	head audit.Head
	last map[jpki.CertID]recorded
}

// A recorded is the status that an entry says a certificate got.
type recorded struct {
	State   jpki.State `json:"state"`
	Reason  string     `json:"reason"`
	Cause   jpki.Cause `json:"cause"`
	Version int64      `json:"version"`
}

func (r recorded) String() string {
	return strings.Join(strings.Fields(fmt.Sprintf("%s %s %s", r.State, r.Reason, r.Cause)), " ") + fmt.Sprintf(" (version %d)", r.Version)
}

func readRecord(ctx context.Context, db *store.Store, checkpoints []audit.Checkpoint) (*record, error) {
	at := map[int64]audit.Hash{}
	for _, cp := range checkpoints {
		if hash, twice := at[cp.Seq]; twice && hash != cp.Hash {
			return nil, &audit.BrokenChainError{Seq: cp.Seq, Reason: "two signed checkpoints saw different ones"}
		}
		at[cp.Seq] = cp.Hash
	}
	r := &record{last: map[jpki.CertID]recorded{}}
	var err error
	r.head, err = audit.Verify(db.AuditEntries(ctx), func(e audit.Entry) error {
		if hash, ok := at[e.Seq]; ok && hash != e.Hash {
			return &audit.BrokenChainError{Seq: e.Seq, Reason: "not what a signed checkpoint saw"}
		}
		switch e.Action {
		case "issue", "suspend", "resume", "revoke", "issue.abandoned":
			var ch recorded
			id, err := jpki.ParseCertID(e.Subject)
			if err != nil || json.Unmarshal([]byte(e.Detail), &ch) != nil {
				return &audit.BrokenChainError{Seq: e.Seq, Reason: "no certificate's status in it"}
			}
			r.last[id] = ch
		}
		return nil
	})
	return r, err
}

// compare says which of the suspected certificates are not as recorded, and how.
func (r *record) compare(ctx context.Context, db *store.Store, suspect func(jpki.CertID) bool) (map[jpki.CertID]string, error) {
	differ := map[jpki.CertID]string{}
	for id, want := range r.last {
		if !suspect(id) {
			continue
		}
		c, err := db.StatusOf(ctx, id)
		if errors.Is(err, jpki.UnknownCertificate) {
			differ[id] = fmt.Sprintf("%s has no status, the record says %s", id, want)
			continue
		}
		if err != nil {
			return nil, err
		}
		got := recorded{State: c.Status.State, Cause: c.Status.Cause, Version: c.Status.Version}
		if got.State != jpki.Good {
			got.Reason = c.Status.Reason.String()
		}
		if got != want {
			differ[id] = fmt.Sprintf("%s is %s, the record says %s", id, got, want)
		}
	}
	return differ, nil
}

// errForged marks a checkpoint that the audit key did not sign.
var errForged = errors.New("not signed with the audit key")

// readCheckpoints reads the signed heads and checks their signatures.
func readCheckpoints(dir string) ([]audit.Checkpoint, error) {
	public, err := os.ReadFile(filepath.Join(dir, "public", "audit.pub"))
	if err != nil {
		return nil, err
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(public)))
	if err != nil || len(key) != ed25519.PublicKeySize {
		return nil, errors.New("public/audit.pub is not an audit key")
	}
	text, err := os.ReadFile(filepath.Join(dir, "authority", "checkpoints"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	// A process killed while it wrote leaves at most one line without its end.
	lines := strings.Split(string(text), "\n")
	var out []audit.Checkpoint
	for i, line := range lines[:len(lines)-1] {
		c, err := audit.ParseCheckpoint(line)
		if err != nil || !c.Valid(key) {
			return nil, fmt.Errorf("checkpoint in line %d: %w", i+1, errForged)
		}
		out = append(out, c)
	}
	return out, nil
}
