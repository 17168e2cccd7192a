package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/openjpki/jpki/ca/ceremony"
)

func ceremonyCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "ceremony", Short: "Make, delegate or destroy an authority's keys before witnesses",
		Long: `One input file describes one ceremony: a new generation of an authority, the delegation of a responder's key, or the
destruction of a key. What happens is written line by line into a transcript in which each line names the hash of the line
before; openssl reads what was made; the witnesses sign the transcript. docs/ceremony.md tells how one is held.`,
		Example: `  jpki ceremony check input.yaml                      # is the file in order?
  jpki ceremony rehearse input.yaml -out rehearsal    # everything, with keys that are destroyed at the end
  jpki ceremony run input.yaml -out 2026-sign-1       # in earnest: asks before each step
  openssl cms -sign -binary -in 2026-sign-1/transcript.ndjson -signer w1.pem -inkey w1.key -outform DER -out 2026-sign-1/witness-1.p7s
  jpki ceremony verify 2026-sign-1`,
	}
	return group(c, ceremonyCheck(), ceremonyHold(true), ceremonyHold(false), ceremonyVerify(), ceremonyShare(), ceremonyRestore())
}

func ceremonyCheck() *cobra.Command {
	return &cobra.Command{
		Use: "check FILE", Short: "Read an input file and say what the ceremony would be", Example: "  jpki ceremony check input.yaml", Args: exactly("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			p, err := ceremony.ReadPlan(args[0])
			if err != nil {
				return err
			}
			out := c.OutOrStdout()
			fmt.Fprintf(out, "%s: %s for %s, at %s\n", p.Title, p.Kind, p.Generation, p.Place)
			for _, w := range p.Witnesses {
				fmt.Fprintf(out, "witness  %s (%s)\n", w.Name, w.Role)
			}
			fmt.Fprintf(out, "%d of them must sign the transcript\n", p.Quorum)
			if p.Custody != nil {
				fmt.Fprintf(out, "any %d of %s can restore the key\n", p.Custody.Threshold, strings.Join(p.Custody.Custodians, ", "))
			}
			return nil
		},
	}
}

func ceremonyHold(rehearsal bool) *cobra.Command {
	var dir string
	var yes bool
	c := &cobra.Command{
		Use: "run FILE", Short: "Hold the ceremony", Args: exactly("FILE"),
		Long: `Asks before each step and writes results and transcript into a new folder. One that is broken off is begun anew in
another folder. At the end it prints the transcript's hash: witnesses note it by hand, and then sign the file.`,
		Example: "  jpki ceremony run input.yaml -out 2026-sign-1",
	}
	if rehearsal {
		c.Use, c.Short, c.Example = "rehearse FILE", "Hold the ceremony with keys that are destroyed at its end", "  jpki ceremony rehearse input.yaml -out rehearsal -yes"
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		if dir == "" {
			return usageError{errors.New("-out is required: the folder of the results")}
		}
		p, err := ceremony.ReadPlan(args[0])
		if err != nil {
			return err
		}
		out, in := c.OutOrStdout(), bufio.NewReader(c.InOrStdin())
		n := 0
		agree := func(step, text string) error {
			n++
			fmt.Fprintf(out, "%3d  %s\n     %s\n", n, step, text)
			if yes {
				return nil
			}
			fmt.Fprint(out, "     go on? [yes/no] ")
			switch answer, err := in.ReadString('\n'); {
			case errors.Is(err, io.EOF):
				return errors.New("nobody answered: the ceremony is broken off")
			case err != nil:
				return err
			case strings.TrimSpace(answer) != "yes":
				return errors.New("the answer was not yes: the ceremony is broken off")
			}
			return nil
		}
		hash, err := ceremony.Hold(c.Context(), ceremony.Config{Plan: p, Dir: dir, Rehearsal: rehearsal, Agree: agree, Program: program(), Now: time.Now})
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "\ntranscript %s\n           %s\n", filepath.Join(dir, "transcript.ndjson"), spaced(hash))
		for _, name := range ceremony.Secrets(dir) {
			fmt.Fprintf(out, "secret     %s: take it to its keeper, and out of this folder\n", filepath.Join(dir, name))
		}
		for i, w := range p.Witnesses {
			fmt.Fprintf(out, "wanted     %s: the signature of %s\n", filepath.Join(dir, fmt.Sprintf("witness-%d.p7s", i+1)), w.Name)
		}
		return nil
	}
	c.Flags().StringVar(&dir, "out", "", "new folder for results and transcript")
	c.Flags().BoolVar(&yes, "yes", false, "do not ask before each step")
	return c
}

// program names this build, as the Go tool chain recorded it.
func program() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "jpki"
	}
	words := []string{"jpki", info.Main.Version, info.GoVersion}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" || s.Key == "vcs.modified" {
			words = append(words, s.Key+"="+s.Value)
		}
	}
	return strings.Join(words, " ")
}

// spaced writes a hash so that it can be read out.
func spaced(hash string) string {
	var parts []string
	for i := 0; i < len(hash); i += 8 {
		parts = append(parts, hash[i:min(i+8, len(hash))])
	}
	return strings.Join(parts, " ")
}

func ceremonyVerify() *cobra.Command {
	return &cobra.Command{
		Use: "verify DIR", Short: "Check a ceremony's transcript, results and signatures, at any later time", Args: exactly("DIR"),
		Long: `Exit code 0: everything is as it was and enough witnesses have signed. 3: something was altered, or signatures are missing.`,
		RunE: func(c *cobra.Command, args []string) error {
			out := c.OutOrStdout()
			r, err := ceremony.Verify(c.Context(), args[0])
			if err != nil {
				fmt.Fprintf(out, "not as it was: %v\n", err)
				return errNo
			}
			for _, e := range r.Transcript {
				fmt.Fprintf(out, "%3d  %s  %s\n", e.Number, e.Time.Format(time.RFC3339), e.Step)
			}
			if r.Rehearsal {
				fmt.Fprintln(out, "a rehearsal: its keys are of no use")
			}
			fmt.Fprintf(out, "transcript %s\n", spaced(r.Hash))
			for _, name := range r.Signed {
				fmt.Fprintf(out, "signed by  %s\n", name)
			}
			if !r.Complete() {
				fmt.Fprintf(out, "incomplete: %d of %d signatures\n", len(r.Signed), r.Quorum)
				return errNo
			}
			fmt.Fprintln(out, "whole")
			return nil
		},
		Example: "  jpki ceremony verify 2026-sign-1",
	}
}

func readShare(path string) (ceremony.Share, error) {
	f, err := os.Open(path)
	if err != nil {
		return ceremony.Share{}, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 8<<10))
	if err != nil {
		return ceremony.Share{}, err
	}
	s, err := ceremony.ParseShare(text)
	if err != nil {
		return s, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

func ceremonyShare() *cobra.Command {
	return &cobra.Command{
		Use: "share DIR SHARE", Short: "Check a custodian's share, alone, without showing it to anybody", Example: "  jpki ceremony share 2026-sign-1 my.share", Args: exactly("DIR", "SHARE"),
		RunE: func(c *cobra.Command, args []string) error {
			s, err := readShare(args[1])
			if err != nil {
				return err
			}
			if err := ceremony.CheckShare(args[0], s); err != nil {
				fmt.Fprintf(c.OutOrStdout(), "not good: %v\n", err)
				return errNo
			}
			fmt.Fprintf(c.OutOrStdout(), "the share of %s is good; %d such shares restore the key\n", s.Custodian, s.Threshold)
			return nil
		},
	}
}

func ceremonyRestore() *cobra.Command {
	var output string
	c := &cobra.Command{
		Use: "restore DIR SHARE…", Short: "Restore a key from its backup and enough custodians' shares",
		Example: "  jpki ceremony restore 2026-sign-1 a.share b.share -out sign-1.key", Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if output == "" {
				return usageError{errors.New("-out is required: the new key file")}
			}
			var shares []ceremony.Share
			for _, path := range args[1:] {
				s, err := readShare(path)
				if err != nil {
					return err
				}
				shares = append(shares, s)
			}
			key, err := ceremony.Restore(args[0], shares)
			if err != nil {
				return err
			}
			defer clear(key)
			f, err := os.OpenFile(output, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			if err != nil {
				return err
			}
			_, err = f.Write(key)
			if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "the key is in %s\n", output)
			return nil
		},
	}
	c.Flags().StringVar(&output, "out", "", "the new key file; it must not be there")
	return c
}
