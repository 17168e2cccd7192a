package boot

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
)

// A Program is a server with one configuration file, as all of ours are on the command line.
type Program struct {
	Name    string
	Usage   string // ends in an empty line; the flags follow
	Example []byte // a configuration with every field explained

	Flags  func(*flag.FlagSet)                                                // adds flags of its own; nil adds none
	Read   func(path string) error                                            // reads and checks the file, and nothing else
	Check  func(context.Context, *slog.Logger) error                          // what can be known without serving
	Serve  func(context.Context, *slog.Logger) error                          // until the context ends
	Orders func(ctx context.Context, arguments []string, out io.Writer) error // what else it may be told to do; nil if nothing
}

// The exit codes of programs besides 0, done: it did not work; the command line or the configuration is wrong.
const (
	ExitFailure = 1
	ExitUsage   = 2
)

// A UsageError says that the command line is wrong.
type UsageError struct{ Err error }

// Error is the cause's.
func (e UsageError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e UsageError) Unwrap() error { return e.Err }

// Main runs a program as its command line says until it is done, or SIGINT or SIGTERM ends it, and exits.
func Main(p Program) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := p.Run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// Run runs a program with its arguments and returns its exit code.
func (p Program) Run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet(p.Name, flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), p.Usage)
		flags.PrintDefaults()
	}
	path := flags.String("config", "", "the configuration, YAML")
	check := flags.Bool("check", false, "check the configuration, what it names and what it connects to, and end")
	show := flags.Bool("example", false, "print a configuration with every field explained, and end")
	if p.Flags != nil {
		p.Flags(flags)
	}
	fail := func(err error, code int) int {
		fmt.Fprintf(stderr, "%s: %v\n", p.Name, err)
		return code
	}
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return ExitUsage
	case *show:
		_, _ = stdout.Write(p.Example)
		return 0
	case flags.NArg() > 0 && p.Orders == nil:
		return fail(fmt.Errorf("unexpected argument %q (see -help)", flags.Arg(0)), ExitUsage)
	case flags.NArg() > 0 && *check:
		return fail(errors.New("-check takes no command"), ExitUsage)
	case *path == "":
		return fail(errors.New("-config is required (see -help)"), ExitUsage)
	}
	if err := p.Read(*path); err != nil {
		return fail(err, ExitUsage)
	}
	log := slog.New(slog.NewJSONHandler(stderr, nil))
	var err error
	switch {
	case flags.NArg() > 0:
		err = p.Orders(ctx, flags.Args(), stdout)
	case *check:
		if err = p.Check(ctx, log); err != nil {
			return fail(err, ExitUsage)
		}
		fmt.Fprintln(stdout, "ok")
	default:
		err = p.Serve(ctx, log)
	}
	if _, usage := errors.AsType[UsageError](err); usage {
		return fail(err, ExitUsage)
	} else if err != nil {
		return fail(err, ExitFailure)
	}
	return 0
}
