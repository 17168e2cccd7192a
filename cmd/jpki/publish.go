package main

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/cmd/internal/sandbox"
	"github.com/openjpki/jpki/cmd/internal/sources"
	"github.com/openjpki/jpki/crl"
	"github.com/openjpki/jpki/crl/snapshot"
)

func crlPublishCommand() *cobra.Command {
	var every bool
	var url string
	c := &cobra.Command{
		Use: "publish [LIST]", Short: "Publish one CRL or all of them anew from the database, at once",
		Long: `Makes the CRL anew from the database, whatever its age, has it pass the check against the published one and puts it in its
place; with a delta, if it has one. LIST is like sign-1/99101, auth-1/h7 or sign-1/full; -all means every one, and one that fails
does not stop the others. It works on the sandbox's directory, whether that runs or not, and takes turns with what publishes there.

Exit code 0: published; 1: one or more were not, and the old ones stay.`,
		Example: `  jpki crl publish -all
  jpki crl publish sign-1/99101
  jpki crl publish -all -status-url http://127.0.0.1:8080     # of a sandbox that does not run`,
		Args: atMostOne("LIST"),
		RunE: func(c *cobra.Command, args []string) error {
			if every == (len(args) == 1) {
				return usageError{errors.New("want one list, or -all")}
			}
			var only *crl.ID
			if !every {
				id, err := crl.ParsePath(args[0] + ".crl")
				if err != nil || id.Delta {
					return usageError{fmt.Errorf("%q is not of the form sign-1/99101, auth-1/h7 or sign-1/full", args[0])}
				}
				only = &id
			}
			outcomes, err := sandbox.PublishLists(c.Context(), dirOf(c), strings.TrimSuffix(url, "/"), only)
			printOutcomes(c, outcomes)
			return err
		},
	}
	c.Flags().BoolVar(&every, "all", false, "every CRL of every generation")
	c.Flags().StringVar(&url, "status-url", "", "where certificates say that the lists are (default: the address of the sandbox that runs)")
	return c
}

func printOutcomes(c *cobra.Command, outcomes map[string]uint64) {
	for _, outcome := range slices.Sorted(maps.Keys(outcomes)) {
		fmt.Fprintf(c.OutOrStdout(), "%s %d\n", outcome, outcomes[outcome])
	}
}

func snapshotPublishCommand() *cobra.Command {
	var whole bool
	var margin time.Duration
	c := &cobra.Command{
		Use: "publish", Short: "Publish a delta of every generation at once, or a snapshot",
		Long: `The sandbox publishes a snapshot once a day and a delta every hour. This publishes at once what is missing since, into the same
folder, whether the sandbox runs or not.`,
		Example: "  jpki crl snapshot publish\n  jpki crl snapshot publish -whole",
		Args:    exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			outcomes, err := sandbox.PublishSnapshots(c.Context(), dirOf(c), whole, margin)
			printOutcomes(c, outcomes)
			return err
		},
	}
	c.Flags().BoolVar(&whole, "whole", false, "snapshots, not deltas")
	c.Flags().DurationVar(&margin, "margin", 2*time.Minute, "how long an issuance may take: younger certificates are not covered")
	return c
}

func snapshotFetchCommand() *cobra.Command {
	var f snapshotFlags
	var url string
	c := &cobra.Command{
		Use: "fetch DIR", Short: "Bring a folder up to date with the published snapshot and its deltas",
		Long: `Fetches the index and those of its files that DIR does not have, checks everything, and puts the new index into DIR last: another
program may use the folder meanwhile. What is older than what DIR has is refused.`,
		Example: `  jpki crl snapshot fetch -issuer sign-1 snapshots`,
		Args:    exactly("DIR"),
		RunE: func(c *cobra.Command, args []string) error {
			id, err := jpki.ParseIssuerID(f.issuer)
			if err != nil {
				return usageError{err}
			}
			if url == "" {
				env, err := sandbox.Load(dirOf(c))
				if err != nil {
					return err
				}
				url = env.StatusURL()
			}
			cert, err := sandbox.ReadCertificate(sandbox.CertificateFile(dirOf(c), id))
			if err != nil {
				return err
			}
			n, octets, err := sources.FetchSnapshot(c.Context(), strings.TrimSuffix(url, "/")+"/snapshot/"+id.String()+"/", args[0], cert)
			if err == nil {
				fmt.Fprintf(c.OutOrStdout(), "%d files fetched, %d octets\n", n, octets)
			}
			return err
		},
	}
	c.Flags().StringVar(&f.issuer, "issuer", "sign-1", "the generation whose certificates are meant")
	c.Flags().StringVar(&url, "status-url", "", "of the status service (default: the sandbox that runs)")
	return c
}

// checkTable copies a CSV and adds the status of each line's certificate. It holds one line at a time.
func checkTable(out io.Writer, in io.Reader, s *snapshot.Snapshot, issuer *x509.Certificate) (allGood bool, err error) {
	ration := &lineRation{in: in}
	r, w := csv.NewReader(ration), csv.NewWriter(out)
	r.ReuseRecord = true
	head, err := r.Read()
	if err != nil {
		return false, fmt.Errorf("read the line that names the columns: %w", err)
	}
	column := func(name string) int { return slices.Index(head, name) }
	columns := tableColumns{column("certificate"), column("serial"), column("not_before"), column("not_after")}
	if columns.certificate < 0 && min(columns.serial, columns.notBefore, columns.notAfter) < 0 {
		return false, errors.New(`the first line names neither a column "certificate" nor "serial", "not_before" and "not_after"`)
	}
	if err := w.Write(append(slices.Clone(head), "status")); err != nil {
		return false, err
	}
	allGood = true
	for {
		ration.from = r.InputOffset()
		line, err := r.Read()
		if err == io.EOF {
			w.Flush()
			return allGood, w.Error()
		}
		if err != nil {
			return false, err
		}
		status := "not covered"
		if q, err := columns.question(line, issuer); err != nil {
			status = "wrong: " + err.Error()
		} else if state, covered := s.Lookup(q); covered {
			status = string(state)
		}
		allGood = allGood && status == string(jpki.Good)
		if err := w.Write(append(line, status)); err != nil {
			return false, err
		}
	}
}

// maxTableLine is how long a line of a CSV may be, read-ahead included: one that never ends shall not fill the memory.
const maxTableLine = 1 << 20

// A lineRation ends a table with a line that is too long.
type lineRation struct {
	in         io.Reader
	from, read int64 // where the line begins, and how far has been read
}

func (l *lineRation) Read(b []byte) (int, error) {
	if l.read-l.from > maxTableLine {
		return 0, fmt.Errorf("a line is longer than %d octets", maxTableLine)
	}
	n, err := l.in.Read(b)
	l.read += int64(n)
	return n, err
}

type tableColumns struct{ certificate, serial, notBefore, notAfter int }

// question reads what a line asks. Errors are short and quote nothing of the line.
func (t tableColumns) question(line []string, issuer *x509.Certificate) (q snapshot.Question, err error) {
	if t.certificate >= 0 {
		der, err := base64.StdEncoding.DecodeString(strings.TrimSpace(line[t.certificate]))
		if err != nil {
			return q, errors.New("not base64")
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return q, errors.New("not a certificate")
		}
		if cert.CheckSignatureFrom(issuer) != nil {
			return q, errors.New("another issuer's certificate")
		}
		q.NotBefore, q.NotAfter = cert.NotBefore, cert.NotAfter
		q.Serial, err = jpki.SerialFromBig(cert.SerialNumber)
		return q, err
	}
	if q.Serial, err = jpki.ParseSerial(strings.ToUpper(strings.TrimSpace(line[t.serial]))); err != nil {
		return q, errors.New("not a serial number")
	}
	for _, at := range []struct {
		to   *time.Time
		text string
	}{{&q.NotBefore, line[t.notBefore]}, {&q.NotAfter, line[t.notAfter]}} {
		if *at.to, err = time.Parse(time.RFC3339, strings.TrimSpace(at.text)); err != nil {
			return q, errors.New("not a time")
		}
	}
	return q, nil
}
