// Command jpki-load puts OCSP responders under load with real requests, verifies what they answer and measures how long a
// revocation takes to be visible.
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

// Exit codes: 0 done, 1 it did not work, 2 the command line is wrong, 3 an answer was wrong or came too late.
const (
	exitFailure = 1
	exitUsage   = 2
	exitNo      = 3
)

// errNo is the error of a command that worked and whose finding is bad; it has been printed already.
var errNo = errors.New("no")

// usageError is a mistake on the command line.
type usageError struct{ error }

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
	case errors.As(err, &usage):
		fmt.Fprintln(os.Stderr, "jpki-load: "+usage.Error()+" (see --help)")
		return exitUsage
	}
	fmt.Fprintln(os.Stderr, "jpki-load: "+explain(err))
	return exitFailure
}

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
		Use: "jpki-load", Short: "Load and canary tests of OCSP responders",
		Example: `  jpki-load ocsp                                   # the sandbox that runs, 50 connections for 10 s
  jpki-load ocsp -url http://ocsp.example.jp -issuer ca.pem -targets serials.csv -rate 5000 -report load.html
  jpki-load canary                                 # how long until a suspension shows?`,
		SilenceUsage: true, SilenceErrors: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("unknown command %q", args[0])}
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.PersistentFlags().String("dir", "var/sandbox", "directory of the sandbox")
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(ocspCommand(), requestsCommand(), canaryCommand())
	return root
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

// noArguments wants flags only.
func noArguments(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("unexpected argument %q", args[0])}
	}
	return nil
}
