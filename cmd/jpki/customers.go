package main

import (
	"bufio"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/cmd/internal/sandbox"
	"github.com/openjpki/jpki/crl"
	"github.com/openjpki/jpki/crl/snapshot"
	"github.com/openjpki/jpki/verifier/nightcheck"
)

func checkCommand() *cobra.Command {
	return group(&cobra.Command{
		Use: "check", Short: "Check many certificates offline",
		Example: "  jpki check customers -snapshot sign-1=snapshots customers.csv",
	}, checkCustomersCommand())
}

// A customersCheck is what the command line says.
type customersCheck struct {
	snapshots, lists, deltas, cas []string // issuer=file
	in, out, since, format        string
	certificates                  string
}

func checkCustomersCommand() *cobra.Command {
	var f customersCheck
	c := &cobra.Command{
		Use: "customers LINES", Short: "Check a whole customer base against snapshots and CRLs, offline",
		Long: `Reads a CSV, NDJSON if the name ends so, or standard input for -, and writes a result for each line: unchanged, changed (the certificate's
content: a move, a new name), renewed, suspended, ended, revoked (the source does not say why), not-covered, unknown or unreadable; since when, as
far as the source says; and how old the source is. Nothing is asked over the network.

A line has "customer", a reference of your own, and either "issuer" (sign-1, or the key identifier), "serial" (hexadecimal), "not_before" and
"not_after" (RFC 3339) of a certificate that was verified before, or "certificate" (base64 of DER), or "certificate_file", a name in the folder
-certificates; signatures of these two are verified. In a CSV the first line names the columns, and others may be there.

With -since, the results of an earlier night, only what is not as then is printed, and -out gets the results that the next night needs. Lines
must ascend by the octets of "customer" then. A summary goes to standard error.

Exit code 0 means that all are unchanged, with -since that nothing is otherwise than then; 3 that something is; 1 that it was not possible to say.`,
		Example: `  jpki check customers -snapshot sign-1=snapshots customers.csv
  jpki check customers -snapshot sign-1=snapshots -crl sign-1=full.crl -since yesterday.csv -out today.csv customers.csv`,
		Args: exactly("LINES"),
		RunE: func(c *cobra.Command, args []string) error { return f.run(c, args[0]) },
	}
	c.Flags().StringArrayVar(&f.snapshots, "snapshot", nil, "of an issuer, a folder that \"crl snapshot fetch\" keeps, or a file: sign-1=snapshots; one for each issuer")
	c.Flags().StringArrayVar(&f.lists, "crl", nil, "the complete CRL of an issuer: sign-1=full.crl")
	c.Flags().StringArrayVar(&f.deltas, "delta", nil, "a delta CRL to combine with it: sign-1=full-delta.crl")
	c.Flags().StringArrayVar(&f.cas, "ca", nil, "an issuer's certificate: sign-1=ca.crt (default: the sandbox's)")
	c.Flags().StringVar(&f.in, "in", "", "csv or ndjson (default: by the name)")
	c.Flags().StringVar(&f.format, "format", "csv", "of results: csv or ndjson")
	c.Flags().StringVar(&f.out, "out", "", "the file that gets all results, when they are whole (default: standard output)")
	c.Flags().StringVar(&f.since, "since", "", "all results of an earlier night, in the same format")
	c.Flags().StringVar(&f.certificates, "certificates", "", "the folder of the certificates that lines name")
	return c
}

func (f *customersCheck) run(c *cobra.Command, name string) (err error) {
	sources, err := f.sources(dirOf(c))
	if err != nil {
		return err
	}
	cfg := nightcheck.Config{Sources: sources, Now: time.Now, In: nightcheck.Format(f.in), Out: nightcheck.Format(f.format)}
	if f.in == "" && (strings.HasSuffix(name, ".ndjson") || strings.HasSuffix(name, ".jsonl")) {
		cfg.In = nightcheck.NDJSON
	}
	in, size := c.InOrStdin(), int64(0)
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return err
		}
		defer func() { _ = file.Close() }()
		info, err := file.Stat()
		if err != nil {
			return err
		}
		in, size = file, info.Size()
	}
	if f.certificates != "" {
		root, err := os.OpenRoot(f.certificates) // which no link leads out of
		if err != nil {
			return err
		}
		defer func() { _ = root.Close() }()
		cfg.Files = root.FS()
	}
	printed := bufio.NewWriter(c.OutOrStdout())
	out := io.Writer(printed)
	if f.since != "" {
		file, err := os.Open(f.since)
		if err != nil {
			return err
		}
		defer func() { _ = file.Close() }()
		cfg.Previous, cfg.Changes, out = file, printed, io.Discard
	}
	keep := func() error { return nil }
	if f.out != "" {
		file, err := os.OpenFile(f.out+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		defer func() { _ = file.Close(); _ = os.Remove(file.Name()) }()
		out, keep = file, func() error { return errors.Join(file.Sync(), file.Close(), os.Rename(file.Name(), f.out)) }
	}
	summary, err := f.check(c.Context(), cfg, in, size, out)
	if err = errors.Join(err, printed.Flush()); err != nil {
		return err
	}
	if err := keep(); err != nil {
		return err
	}
	if err := f.report(c.ErrOrStderr(), sources, summary); err != nil {
		return err
	}
	if f.since == "" && summary.Classes[nightcheck.Unchanged] != summary.Lines || f.since != "" && summary.Changed > 0 {
		return errNo
	}
	return nil
}

// check runs with a bar that counts octets, if it is known how many there are.
func (f *customersCheck) check(ctx context.Context, cfg nightcheck.Config, in io.Reader, size int64, out io.Writer) (*nightcheck.Summary, error) {
	finish := func(bool) {}
	if size > 0 {
		bars, bar := progress(ctx, "octets", int(size), 0)
		cfg.Progress = func(_, read int64) { bar.SetCurrent(min(read, size)) }
		finish = func(well bool) {
			if well {
				bar.SetTotal(size, true)
			} else {
				bar.Abort(false)
			}
			bars.Wait()
		}
	}
	checker, err := nightcheck.New(cfg)
	if err != nil {
		finish(false)
		if errors.Is(err, jpki.Unavailable) {
			return nil, err
		}
		return nil, usageError{err}
	}
	summary, err := checker.Check(ctx, in, out)
	finish(err == nil)
	return summary, err
}

func (f *customersCheck) report(w io.Writer, sources []nightcheck.Source, s *nightcheck.Summary) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "lines\t%d\n", s.Lines)
	for _, class := range nightcheck.Classes {
		if n := s.Classes[class]; n > 0 {
			fmt.Fprintf(t, "%s\t%d\n", class, n)
		}
	}
	if f.since != "" {
		fmt.Fprintf(t, "otherwise than before\t%d\nnot there any more\t%d\n", s.Changed, s.Gone)
	}
	at := func(t time.Time) string { return t.In(jpki.JST).Format(time.DateTime) + " JST" }
	for _, source := range sources {
		if source.Snapshot != nil {
			fmt.Fprintf(t, "%s snapshot of\t%s\n", source.ID, at(source.Snapshot.Info().ThisUpdate))
		}
		if source.List != nil {
			fmt.Fprintf(t, "%s CRL of\t%s\n", source.ID, at(source.List.Head().ThisUpdate))
		}
	}
	return t.Flush()
}

// sources opens what the flags name, in the order of the flags.
func (f *customersCheck) sources(dir string) (sources []nightcheck.Source, err error) {
	of := map[jpki.IssuerID]int{}
	cas := map[jpki.IssuerID]string{}
	each := func(flag string, values []string, do func(id jpki.IssuerID, path string) error) {
		for _, v := range values {
			name, path, ok := strings.Cut(v, "=")
			id, wrong := jpki.ParseIssuerID(name)
			switch {
			case err != nil:
			case !ok || wrong != nil || path == "":
				err = usageError{fmt.Errorf("-%s is like sign-1=FILE", flag)}
			default:
				err = do(id, path)
			}
		}
	}
	each("ca", f.cas, func(id jpki.IssuerID, path string) error { cas[id] = path; return nil })
	source := func(id jpki.IssuerID) (*nightcheck.Source, error) {
		n, ok := of[id]
		if !ok {
			path := cas[id]
			if path == "" {
				path = sandbox.CertificateFile(dir, id)
			}
			cert, err := sandbox.ReadCertificate(path)
			if err != nil {
				return nil, err
			}
			n, of[id] = len(sources), len(sources)
			sources = append(sources, nightcheck.Source{ID: id, Cert: cert})
		}
		return &sources[n], nil
	}
	each("snapshot", f.snapshots, func(id jpki.IssuerID, path string) error {
		s, err := source(id)
		if err == nil && s.Snapshot != nil {
			err = usageError{fmt.Errorf("-snapshot names %s twice", id)}
		}
		if err == nil {
			s.Snapshot, err = openSnapshot(path, s.Cert)
		}
		return err
	})
	each("crl", f.lists, func(id jpki.IssuerID, path string) error {
		s, err := source(id)
		if err == nil && s.List != nil {
			err = usageError{fmt.Errorf("-crl names %s twice", id)}
		}
		if err == nil {
			s.List, err = crl.OpenList(path, s.Cert)
		}
		return err
	})
	each("delta", f.deltas, func(id jpki.IssuerID, path string) error {
		s, err := source(id)
		if err != nil {
			return err
		}
		if s.List == nil {
			return usageError{fmt.Errorf("-delta names %s, of which there is no -crl", id)}
		}
		delta, err := crl.OpenList(path, s.Cert)
		if err == nil {
			s.List, err = crl.Combine(s.List, delta)
		}
		return err
	})
	if err == nil && len(sources) == 0 {
		err = usageError{errors.New("there is neither -snapshot nor -crl")}
	}
	return sources, err
}

// openSnapshot opens a snapshot alone, or what the index in a folder names.
func openSnapshot(path string, issuer *x509.Certificate) (*snapshot.Snapshot, error) {
	cfg := snapshot.Config{IssuerCert: issuer, Now: time.Now}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		s, _, err := snapshot.OpenDir(path, cfg)
		return s, err
	}
	octets, err := os.ReadFile(filepath.Clean(path))
	if err != nil {
		return nil, err
	}
	return snapshot.Open(octets, cfg)
}
