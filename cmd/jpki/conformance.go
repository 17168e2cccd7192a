package main

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/cmd/internal/sandbox"
	"github.com/openjpki/jpki/ocsp/conformance"
)

// conformanceFlags say which responder is asked about what.
type conformanceFlags struct {
	url, issuer                       string
	good, revoked, suspended, unknown string
	cases, write                      string
	only                              []string
	timeout                           time.Duration
	asJSON, strict                    bool
}

func ocspConformance() *cobra.Command {
	var f conformanceFlags
	c := &cobra.Command{
		Use: "conformance", Short: "Does a responder do what RFC 6960, 9919 and 9654 say?",
		Long: `Asks any OCSP responder the cases of docs/ocsp-conformance.md and says of each whether it passed, and why not. Certificates
are given as serial numbers or files. Without -issuer, the sandbox that runs in -dir is asked about its samples. Nothing is
suspended or revoked. Exit code 0 means that every MUST held (with -strict: every SHOULD, too); 3 that one did not.`,
		Example: `  jpki ocsp conformance
  jpki ocsp conformance -url http://ocsp.example.jp -issuer ca.pem -good 5249C40EFDA7DF856290BCC9F7F0B47E
  jpki ocsp conformance -json -only nonce-0,get-slashes`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			kit, err := f.kit()
			if err != nil {
				return err
			}
			cfg, err := f.config(c)
			if err != nil {
				return err
			}
			if f.write != "" {
				return writeMessages(kit, cfg, f.write)
			}
			results, err := kit.Run(c.Context(), cfg)
			if err != nil {
				return err
			}
			if err := f.print(c, results); err != nil {
				return err
			}
			failed := func(r conformance.Result) bool {
				return r.Verdict == conformance.Fail && r.Level == conformance.Should
			}
			if !conformance.Conforms(results) || f.strict && slices.ContainsFunc(results, failed) {
				return errNo
			}
			return nil
		},
	}
	c.Flags().StringVar(&f.url, "url", "", "the responder; default: the sandbox's")
	c.Flags().StringVar(&f.issuer, "issuer", "", "certificate of the issuer, PEM or DER; default: the sandbox's authority for signature")
	c.Flags().StringVar(&f.good, "good", "", "a certificate in force: serial number, hexadecimal, or file")
	c.Flags().StringVar(&f.revoked, "revoked", "", "a revoked certificate; cases about it do not apply without")
	c.Flags().StringVar(&f.suspended, "suspended", "", "a certificate on hold; cases about it do not apply without")
	c.Flags().StringVar(&f.unknown, "unknown", "", "a serial number that was never issued; default: drawn")
	c.Flags().StringVar(&f.cases, "cases", "", "folder with other cases than those built in")
	c.Flags().StringSliceVar(&f.only, "only", nil, "the cases to run, by name")
	c.Flags().DurationVar(&f.timeout, "timeout", 5*time.Second, "of each case")
	c.Flags().StringVar(&f.write, "write", "", "send nothing; write into this folder what would be sent")
	c.Flags().BoolVar(&f.strict, "strict", false, "a SHOULD that does not hold makes the exit code 3, too")
	c.Flags().BoolVar(&f.asJSON, "json", false, "print the results as JSON")
	return c
}

func (f *conformanceFlags) kit() (*conformance.Kit, error) {
	if f.cases == "" {
		return conformance.New()
	}
	root, err := os.OpenRoot(f.cases)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }()
	return conformance.Load(root.FS())
}

// config gathers what to ask about: what the flags say, or the sandbox's.
func (f *conformanceFlags) config(c *cobra.Command) (conformance.Config, error) {
	cfg := conformance.Config{URL: f.url, Now: time.Now, Rand: rand.Reader, Timeout: f.timeout, Only: f.only}
	for _, s := range []struct {
		flag, text string
		to         *jpki.Serial
	}{{"good", f.good, &cfg.Good}, {"revoked", f.revoked, &cfg.Revoked}, {"suspended", f.suspended, &cfg.Suspended}, {"unknown", f.unknown, &cfg.Unknown}} {
		serial, err := serialOf(s.text)
		if err != nil {
			return cfg, usageError{fmt.Errorf("-%s: %w", s.flag, err)}
		}
		*s.to = serial
	}
	var err error
	if f.issuer != "" {
		if f.url == "" || f.good == "" {
			return cfg, usageError{errors.New("with -issuer, -url and -good are required")}
		}
		cfg.Issuer, err = sandbox.ReadCertificate(f.issuer)
		return cfg, err
	}
	env, err := sandbox.Load(dirOf(c))
	if err != nil {
		return cfg, err
	}
	if cfg.URL == "" {
		cfg.URL = env.OCSPURL
	}
	if cfg.Issuer, err = sandbox.ReadCertificate(env.TrustSign); err != nil {
		return cfg, err
	}
	if cfg.Good.IsZero() {
		if cfg.Good, err = serialOf(env.SampleSignCert); err != nil {
			return cfg, err
		}
	}
	return cfg, listed(c.Context(), env, &cfg)
}

// serialOf reads a serial number, or that of a certificate file.
func serialOf(text string) (jpki.Serial, error) {
	if text == "" {
		return jpki.Serial{}, nil
	}
	if serial, err := jpki.ParseSerial(strings.ToUpper(strings.TrimPrefix(text, "0x"))); err == nil {
		return serial, nil
	}
	cert, err := sandbox.ReadCertificate(text)
	if errors.Is(err, fs.ErrNotExist) {
		return jpki.Serial{}, errors.New("neither a serial number nor a certificate file")
	}
	if err != nil {
		return jpki.Serial{}, err
	}
	return jpki.SerialFromBig(cert.SerialNumber)
}

// listed finds a revoked and a suspended certificate on the sandbox's list, where none was named.
func listed(ctx context.Context, env sandbox.Env, cfg *conformance.Config) error {
	name := strings.TrimSuffix(filepath.Base(env.TrustSign), filepath.Ext(env.TrustSign))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, env.CRLURL+"/"+name+"/full.crl", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	der, err := io.ReadAll(io.LimitReader(resp.Body, 1<<30))
	if err != nil {
		return err
	}
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		return err
	}
	for _, e := range list.RevokedCertificateEntries {
		to := &cfg.Revoked
		if e.ReasonCode == int(jpki.CertificateHold) {
			to = &cfg.Suspended
		}
		if to.IsZero() {
			if *to, err = jpki.SerialFromBig(e.SerialNumber); err != nil {
				return err
			}
		}
	}
	return nil
}

// print shows what failed or did not apply, and how many passed.
func (f *conformanceFlags) print(c *cobra.Command, results []conformance.Result) error {
	out := c.OutOrStdout()
	if f.asJSON {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		return e.Encode(results)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	counts := map[string]int{}
	for _, r := range results {
		counts[string(r.Verdict)+" "+r.Level]++
		what := r.Title
		if r.Verdict != conformance.Pass {
			what = r.Why
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", r.Verdict, r.Level, r.ID, r.Ref, what)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(out, "\n%d cases:", len(results))
	for _, v := range []conformance.Verdict{conformance.Pass, conformance.Fail, conformance.NotApplicable} {
		fmt.Fprintf(out, "  %s %d MUST, %d SHOULD, %d MAY.", v, counts[string(v)+" MUST"], counts[string(v)+" SHOULD"], counts[string(v)+" MAY"])
	}
	_, err := fmt.Fprintln(out)
	return err
}

// writeMessages writes each message of each case that applies into a file of its own: CASE.http, or CASE.1.http and so on.
func writeMessages(kit *conformance.Kit, cfg conformance.Config, dir string) error {
	messages, err := kit.Messages(cfg)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	for _, id := range slices.Sorted(maps.Keys(messages)) {
		for i, octets := range messages[id] {
			name := id
			if len(messages[id]) > 1 {
				name = fmt.Sprintf("%s.%d", id, i+1)
			}
			if err := os.WriteFile(filepath.Join(dir, name+".http"), octets, 0o600); err != nil {
				return err
			}
		}
	}
	return nil
}
