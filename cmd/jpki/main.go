// Command jpki is the operator's and the developer's tool, and the whole system in one process for a laptop.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/openjpki/jpki"
)

func main() { os.Exit(run(os.Args[1:])) }

// Exit codes: 0 done, 1 it did not work, 2 the command line is wrong, 3 the answer is "no" (not good, not valid, broken).
const (
	exitFailure = 1
	exitUsage   = 2
	exitNo      = 3
)

// errNo is the error of a command that worked and whose answer is no; it has been printed already.
var errNo = errors.New("no")

// errRefused is likewise, of a document whose signature is certainly not to be relied upon.
var errRefused = errors.New("refused")

func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := newRoot()
	root.SetArgs(singleDashes(args))
	err := root.ExecuteContext(ctx)
	var usage usageError
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errNo):
		return exitNo
	case errors.Is(err, errRefused):
		return exitFailure
	case errors.As(err, &usage):
		fmt.Fprintln(os.Stderr, "jpki: "+usage.Error()+" (see --help)")
		return exitUsage
	}
	fmt.Fprintln(os.Stderr, "jpki: "+explain(err))
	return exitFailure
}

// usageError is a mistake on the command line.
type usageError struct{ error }

// explain puts an error into one line; problems of the authority speak in their own sentence.
func explain(err error) string {
	if e, ok := errors.AsType[*jpki.Error](err); ok {
		text := e.Problem.Title(os.Getenv("LANG"))
		if e.Detail != "" {
			text += ": " + e.Detail
		}
		return text + " [" + string(e.Problem) + "]"
	}
	return err.Error()
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "jpki",
		Short: "A Japanese public key infrastructure, open and complete",
		Long: `jpki runs and inspects a public key infrastructure in the manner of Japan's JPKI.

Start the whole system with "jpki sandbox"; while it runs, the other commands find it through -dir.`,
		Example: `  jpki sandbox                            # everything in one process, with a story; stays until Ctrl-C
  jpki card new                           # a resident with a card and two certificates
  jpki card sign CARD contract.txt        # sign with the card
  jpki certificate show sign.crt          # what a certificate says, attributes in Japanese
  jpki ocsp sign.crt                      # good, revoked or unknown
  jpki audit verify                       # has anybody tampered with the record?`,
		SilenceUsage: true, SilenceErrors: true,
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.PersistentFlags().String("dir", "var/sandbox", "directory of the sandbox")
	root.CompletionOptions.HiddenDefaultCmd = true
	return group(root, sandboxCommand(), cardCommand(), phoneCommand(), stationCommand(), registerCommand(), certificateCommand(), ocspCommand(), crlCommand(), signCommand(), verifyCommand(), checkCommand(), auditCommand(), seedCommand(), generationCommand(), relayCommand(), revokeCommand(), ceremonyCommand(), tenantCommand(), relyingPartyCommand())
}

// singleDashes lets every flag be written with one dash, as in -dir and -n: -h is the only short one.
func singleDashes(args []string) []string {
	out := make([]string, 0, len(args))
	for i, a := range args {
		if a == "--" {
			return append(out, args[i:]...)
		}
		if len(a) > 1 && a[0] == '-' && a[1] != '-' && a != "-h" {
			a = "-" + a
		}
		out = append(out, a)
	}
	return out
}

// group makes a command of commands: alone it explains itself, and an unknown word behind it is a mistake.
func group(c *cobra.Command, commands ...*cobra.Command) *cobra.Command {
	c.Args = cobra.ArbitraryArgs
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usageError{fmt.Errorf("unknown command %q for %q", args[0], c.CommandPath())}
		}
		return c.Help()
	}
	c.AddCommand(commands...)
	return c
}

// atMostOne allows one argument and says what it is.
func atMostOne(name string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) > 1 {
			return usageError{fmt.Errorf("want at most one argument: [%s]", name)}
		}
		return nil
	}
}

// exactly demands a number of arguments and says what they are.
func exactly(names ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != len(names) {
			return usageError{fmt.Errorf("want %d argument(s): %v", len(names), names)}
		}
		return nil
	}
}
