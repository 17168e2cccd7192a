package main

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/openjpki/jpki/cmd/internal/sandbox"
	"github.com/openjpki/jpki/verifier"
	"github.com/openjpki/jpki/verifier/path"
)

// A documentCheck is the command line of `jpki verify FILE`.
type documentCheck struct {
	detached, trust, policy, existed, evidence string
	texts                                      []string
	tokens                                     tokenFlags
	asJSON                                     bool
}

func (d *documentCheck) flags(c *cobra.Command) {
	c.Flags().StringVar(&d.detached, "detached", "", "the file that was signed, if the signature does not contain it")
	c.Flags().StringVar(&d.trust, "trust", "", "directory of trust anchors (*.pem *.crt *.cer), with tsa/ for time-stamps, ca/ for what stands between, and lists and answers (*.crl *.ors); default: the sandbox")
	c.Flags().StringVar(&d.policy, "policy", "", "name of a policy, or a JSON file with one (default sandbox-signature-2026, with -trust rfc5280)")
	c.Flags().StringVar(&d.existed, "existed", "", "when you know that the document existed, as 2026-11-23T12:00:00Z")
	c.Flags().StringVar(&d.evidence, "evidence", "", "where to store the evidence")
	c.Flags().StringArrayVar(&d.texts, "signature-policy", nil, "text of a signature policy that you have read, as IDENTIFIER=FILE; signatures that name it must have signed its digest (may be repeated)")
	d.tokens.flags(c)
}

// run verifies one document. Nothing is fetched but from the sandbox's responder: with -trust only what lies there counts.
func (d *documentCheck) run(c *cobra.Command, name string) error {
	cfg, err := d.config(c)
	if err != nil {
		return err
	}
	if cfg.PolicyDocuments, err = policyTexts(d.texts); err != nil {
		return usageError{err}
	}
	if err := d.tokens.configure(c.Context(), &cfg); err != nil {
		return err
	}
	v, err := verifier.New(verifier.Config{Documents: &cfg, Now: time.Now, Rand: rand.Reader})
	if err != nil {
		return usageError{err}
	}
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }() // was only read
	info, err := file.Stat()
	if err != nil {
		return err
	}
	in := verifier.DocumentInput{Reader: file, Size: info.Size(), TokenHash: d.tokens.hash}
	if d.existed != "" {
		if in.Existed, err = time.Parse(time.RFC3339, d.existed); err != nil {
			return usageError{fmt.Errorf("-existed: %w", err)}
		}
	}
	if d.detached != "" {
		signed, err := os.Open(d.detached)
		if err != nil {
			return err
		}
		defer func() { _ = signed.Close() }()
		in.Detached = func(string) io.Reader { return io.NewSectionReader(signed, 0, 1<<62) }
	}
	var res *verifier.DocumentResult
	if d.tokens.with != "" {
		res, err = d.tokens.verify(c.Context(), v, in)
	} else {
		res, err = v.Document(c.Context(), in)
	}
	if err != nil {
		return unreadable(name, info.Size(), err, japanese())
	}
	if err := d.tokens.write(res); err != nil {
		return err
	}
	if d.evidence != "" {
		stored, err := json.MarshalIndent(res.Evidence, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(d.evidence, stored, 0o600); err != nil {
			return err
		}
	}
	if d.asJSON {
		enc := json.NewEncoder(c.OutOrStdout())
		enc.SetIndent("", "  ")
		if err := enc.Encode(res); err != nil {
			return err
		}
	} else {
		explainDocument(c.OutOrStdout(), name, res, japanese())
	}
	switch {
	case res.OK():
		return nil
	case res.Indication == verifier.TotalFailed:
		return errRefused
	}
	return errNo
}

// policyTexts reads the files of -signature-policy.
func policyTexts(flags []string) (out []verifier.SignaturePolicyDocument, err error) {
	for _, text := range flags {
		id, name, ok := cutLast(text, "=")
		if !ok || id == "" {
			return nil, fmt.Errorf("-signature-policy: %.200q is not IDENTIFIER=FILE", text)
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("-signature-policy: %w", err)
		}
		out = append(out, verifier.SignaturePolicyDocument{ID: id, Data: data})
	}
	return out, nil
}

// cutLast is [strings.Cut] at the last separator: identifiers that are addresses may have one, too.
func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

func (d *documentCheck) config(c *cobra.Command) (cfg verifier.DocumentConfig, err error) {
	policy := d.policy
	if d.trust == "" {
		if policy == "" {
			policy = "sandbox-signature-2026"
		}
		if err := d.sandbox(c, &cfg); err != nil {
			return cfg, err
		}
	} else {
		if policy == "" {
			policy = "rfc5280"
		}
		if err := trust(d.trust, &cfg); err != nil {
			return cfg, err
		}
	}
	if cfg.Policy, err = verifier.FindDocumentPolicy(policy); err == nil {
		return cfg, nil
	}
	data, err := os.ReadFile(policy)
	if err != nil {
		return cfg, usageError{fmt.Errorf("-policy: %q is neither the name of a policy nor a file with one", policy)}
	}
	if cfg.Policy, err = verifier.ParseDocumentPolicy(data); err != nil {
		return cfg, usageError{err}
	}
	return cfg, nil
}

func (d *documentCheck) sandbox(c *cobra.Command, cfg *verifier.DocumentConfig) error {
	env, err := sandbox.Load(dirOf(c))
	if err != nil {
		return err
	}
	if cfg.Anchors, err = env.Anchors(); err != nil {
		return err
	}
	checker, err := verifier.NewOCSP(verifier.OCSPConfig{URL: env.OCSPURL, Now: time.Now, Rand: rand.Reader})
	if err != nil {
		return err
	}
	cfg.Sources = []verifier.RevocationSource{verifier.CheckerSource(env.OCSPURL, checker)}
	return nil
}

// trust reads a directory of trust anchors and what belongs to them.
func trust(dir string, cfg *verifier.DocumentConfig) error {
	var crls []*path.CRL
	var answers []*path.OCSP
	for _, folder := range []struct {
		name string
		to   *[]*x509.Certificate
	}{{"", &cfg.Anchors}, {"tsa", &cfg.TimeStampAnchors}, {"ca", &cfg.Certificates}} {
		entries, err := os.ReadDir(filepath.Join(dir, folder.name))
		if folder.name != "" && errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		for _, e := range entries {
			name := filepath.Join(dir, folder.name, e.Name())
			ext := strings.ToLower(filepath.Ext(name))
			if e.IsDir() || !strings.Contains(".pem.crt.cer.crl.ors", ext) || ext == "" {
				continue
			}
			data, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			if block, _ := pem.Decode(data); block != nil {
				data = block.Bytes
			}
			switch ext {
			case ".crl":
				l, err := path.ParseCRL(data)
				if err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				crls = append(crls, l)
			case ".ors":
				o, err := path.ParseOCSP(data)
				if err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				answers = append(answers, o)
			default:
				cert, err := x509.ParseCertificate(data)
				if err != nil {
					return fmt.Errorf("%s: not a certificate", name)
				}
				*folder.to = append(*folder.to, cert)
			}
		}
	}
	cfg.Sources = []verifier.RevocationSource{verifier.StoredSource(dir, crls, answers)}
	return nil
}
