package main

import (
	"bufio"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/cmd/internal/lists"
	"github.com/openjpki/jpki/cmd/internal/sandbox"
	"github.com/openjpki/jpki/crl/snapshot"
)

// A snapshotFlags says which files are read, and whose they are.
type snapshotFlags struct {
	issuer string
	deltas []string
}

func snapshotCommand() *cobra.Command {
	return group(&cobra.Command{
		Use: "snapshot", Short: "Status snapshots: every certificate's status in one small signed file",
		Example: "  jpki crl snapshot build -issuer sign-1 -out sign-1.snapshot\n  jpki crl snapshot lookup -issuer sign-1 sign-1.snapshot var/sandbox/sample/sign.crt",
	}, snapshotBuildCommand(), snapshotPublishCommand(), snapshotFetchCommand(), snapshotCheckCommand(), snapshotLookupCommand())
}

func (f *snapshotFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.issuer, "issuer", "sign-1", "the generation whose certificates are meant")
	c.Flags().StringArrayVar(&f.deltas, "delta", nil, "a delta to apply; several in their order")
}

// open opens a snapshot and applies the deltas, or opens what the index in a folder names.
func (f *snapshotFlags) open(dir, file string) (*snapshot.Snapshot, *x509.Certificate, error) {
	id, err := jpki.ParseIssuerID(f.issuer)
	if err != nil {
		return nil, nil, usageError{err}
	}
	cert, err := sandbox.ReadCertificate(sandbox.CertificateFile(dir, id))
	if err != nil {
		return nil, nil, err
	}
	if info, err := os.Stat(file); err == nil && info.IsDir() {
		s, _, err := snapshot.OpenDir(file, snapshot.Config{IssuerCert: cert, Now: time.Now})
		return s, cert, err
	}
	octets, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, err
	}
	s, err := snapshot.Open(octets, snapshot.Config{IssuerCert: cert, Now: time.Now})
	for _, name := range f.deltas {
		if err != nil {
			break
		}
		if octets, err = os.ReadFile(name); err == nil {
			s, err = s.Apply(octets)
		}
	}
	return s, cert, err
}

func snapshotBuildCommand() *cobra.Command {
	var f snapshotFlags
	var out, since string
	var life, margin time.Duration
	c := &cobra.Command{
		Use: "build", Short: "Make a snapshot of the sandbox's certificates, or a delta since one",
		Long: `Reads the status of every certificate of one generation from the sandbox's database and writes a snapshot, signed
with the generation's key. With -since (and -delta, if there are any) it writes a delta that brings those files up to date.
Works while the sandbox runs and when it does not.`,
		Example: `  jpki crl snapshot build -issuer sign-1 -out sign-1.snapshot
  jpki crl snapshot build -issuer sign-1 -since sign-1.snapshot -out sign-1.delta`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			if out == "" {
				return usageError{errors.New("-out is required")}
			}
			return f.build(c, out, since, life, margin)
		},
	}
	f.add(c)
	c.Flags().StringVar(&out, "out", "", "the file to write")
	c.Flags().StringVar(&since, "since", "", "the snapshot that the delta is for")
	c.Flags().DurationVar(&life, "life", 48*time.Hour, "for how long the file may be used")
	c.Flags().DurationVar(&margin, "margin", 2*time.Minute, "how long an issuance may take: younger certificates are not covered")
	return c
}

func (f *snapshotFlags) build(c *cobra.Command, out, since string, life, margin time.Duration) (err error) {
	ctx := c.Context()
	id, err := jpki.ParseIssuerID(f.issuer)
	if err != nil {
		return usageError{err}
	}
	dir, err := filepath.Abs(dirOf(c))
	if err != nil {
		return err
	}
	db, err := store.Open(ctx, "sqlite:"+filepath.Join(dir, "authority", "ca.db"))
	if err != nil {
		return fmt.Errorf("open the sandbox's database (has the sandbox been started once?): %w", err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	var before *snapshot.Snapshot
	if since != "" {
		if before, _, err = f.open(dir, since); err != nil {
			return err
		}
	}
	cert, err := sandbox.ReadCertificate(sandbox.CertificateFile(dir, id))
	if err != nil {
		return err
	}
	key, err := sandbox.GenerationKey(ctx, dir, id)
	if err != nil {
		return err
	}
	file, err := os.OpenFile(out+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644) //nolint:gosec // it is for everybody
	if err != nil {
		return err
	}
	defer func() { _ = file.Close(); _ = os.Remove(file.Name()) }()
	w := bufio.NewWriter(file)
	var info snapshot.Info
	at := time.Now() // before anything is read: what changes later may be missing
	t := snapshot.Template{
		Issuer: id, IssuerCert: cert, Signer: key, Sequence: uint64(at.UnixMilli()), ThisUpdate: at, NextUpdate: at.Add(life),
		IssuedUntil: at.Add(-margin), ExpiresFrom: at, Rand: rand.Reader,
	}
	certificates := lists.Statuses{DB: db, Now: time.Now}.Certificates(ctx, id, at.Truncate(time.Second))
	if before == nil {
		info, err = snapshot.Build(w, t, certificates)
	} else {
		info, err = snapshot.BuildDelta(w, t, before, certificates)
	}
	if err != nil {
		return err
	}
	if err := errors.Join(w.Flush(), file.Sync(), os.Rename(file.Name(), out)); err != nil {
		return err
	}
	return printSnapshot(c, info)
}

func printSnapshot(c *cobra.Command, i snapshot.Info) error {
	w := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
	at := func(t time.Time) string { return t.In(jpki.JST).Format(time.DateTime) + " JST" }
	fmt.Fprintf(w, "issuer\t%s\nsequence\t%d\nthis update\t%s\nnext update\t%s\nissued until\t%s\nexpires from\t%s\ngood\t%d\nsuspended\t%d\nrevoked\t%d\n",
		i.Issuer, i.Sequence, at(i.ThisUpdate), at(i.NextUpdate), at(i.IssuedUntil), at(i.ExpiresFrom), i.Good, i.Suspended, i.Revoked)
	return w.Flush()
}

func snapshotCheckCommand() *cobra.Command {
	var f snapshotFlags
	c := &cobra.Command{
		Use: "check SNAPSHOT [CSV]", Short: "Check a snapshot and its deltas, and print what they cover; or check many certificates with them",
		Long: `SNAPSHOT is a file, with its deltas in -delta, or a folder that "fetch" keeps. With CSV, or - for standard input, it prints
that file again with a column "status" more: good, suspended, revoked, not covered, or wrong and why. The first line of a CSV
names its columns: either one is "certificate", with a certificate in base64 (DER), whose signature is checked, too; or there are
"serial" (hexadecimal), "not_before" and "not_after" (RFC 3339) of certificates that were verified before. Others are passed through.
Exit code 0 means that all are good; 3 that some are not.`,
		Example: `  jpki crl snapshot check -issuer sign-1 -delta sign-1.delta sign-1.snapshot
  jpki crl snapshot check -issuer sign-1 snapshots customers.csv`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			s, issuer, err := f.open(dirOf(c), args[0])
			if err != nil {
				return err
			}
			if len(args) == 1 {
				return printSnapshot(c, s.Info())
			}
			in := c.InOrStdin()
			if args[1] != "-" {
				file, err := os.Open(args[1])
				if err != nil {
					return err
				}
				defer func() { _ = file.Close() }()
				in = file
			}
			good, err := checkTable(c.OutOrStdout(), in, s, issuer)
			if err == nil && !good {
				return errNo
			}
			return err
		},
	}
	f.add(c)
	return c
}

func snapshotLookupCommand() *cobra.Command {
	var f snapshotFlags
	c := &cobra.Command{
		Use: "lookup SNAPSHOT CERTIFICATE", Short: "What a snapshot says of a certificate, without asking anybody",
		Long: `Checks the snapshot, its deltas and that the issuer signed the certificate, and prints good, suspended, revoked, or
not covered. Exit code 0 means good; 3 anything else.`,
		Example: `  jpki crl snapshot lookup -issuer sign-1 sign-1.snapshot var/sandbox/sample/sign.crt`,
		Args:    exactly("SNAPSHOT", "CERTIFICATE"),
		RunE: func(c *cobra.Command, args []string) error {
			s, issuer, err := f.open(dirOf(c), args[0])
			if err != nil {
				return err
			}
			cert, err := sandbox.ReadCertificate(args[1])
			if err != nil {
				return err
			}
			if err := cert.CheckSignatureFrom(issuer); err != nil {
				return fmt.Errorf("%s did not issue the certificate: %w", f.issuer, err)
			}
			serial, err := jpki.SerialFromBig(cert.SerialNumber)
			if err != nil {
				return err
			}
			state, covered := s.Lookup(snapshot.Question{Serial: serial, NotBefore: cert.NotBefore, NotAfter: cert.NotAfter})
			if covered {
				fmt.Fprintln(c.OutOrStdout(), state)
			} else {
				fmt.Fprintln(c.OutOrStdout(), "not covered")
			}
			if state != jpki.Good {
				return errNo
			}
			return nil
		},
	}
	f.add(c)
	return c
}
