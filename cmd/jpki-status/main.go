// Command jpki-status is the public zone as a server of its own: an OCSP responder that follows the authority's status log.
//
// It holds delegated OCSP keys, a database handle that reads statuses only, and what can be made again: a snapshot of
// statuses, signed answers in memory and in Redis. Any number of them stand side by side. One strict YAML file says
// everything; see config.go, and "jpki-status -example" for one to begin with. Start at serve.
package main

import (
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/pprof"
	"syscall"

	"github.com/openjpki/jpki/ocsp/cache"
)

//go:embed example.yaml
var example []byte

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:]))
}

// Exit codes: 0 done, 1 it did not work, 2 the command line or the configuration is wrong.
const (
	exitFailure = 1
	exitUsage   = 2
)

func run(ctx context.Context, args []string) int {
	flags := flag.NewFlagSet("jpki-status", flag.ContinueOnError)
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), `usage: jpki-status -config FILE [-check]

Answers OCSP requests from the status log of a JPKI authority.

  jpki-status -example > status.yaml          # a configuration to begin with
  jpki-status -config status.yaml -check      # is it complete, do keys and certificates fit together?
  jpki-status -config status.yaml             # serve until SIGTERM

`)
		flags.PrintDefaults()
	}
	path := flags.String("config", "", "the configuration, YAML")
	check := flags.Bool("check", false, "check the configuration and the files it names, and end")
	show := flags.Bool("example", false, "print a configuration with every field explained, and end")
	profile := flags.String("cpuprofile", "", "write a CPU profile to this file")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return exitUsage
	case flags.NArg() > 0:
		fmt.Fprintf(os.Stderr, "jpki-status: unexpected argument %q (see -help)\n", flags.Arg(0))
		return exitUsage
	}
	if *show {
		_, _ = os.Stdout.Write(example)
		return 0
	}
	cfg, err := readConfig(*path)
	if err == nil && *check {
		err = cfg.checkFiles(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "jpki-status:", err)
		return exitUsage
	}
	if *check {
		fmt.Println("ok")
		return 0
	}
	if *profile != "" {
		f, err := os.Create(*profile)
		if err == nil {
			err = pprof.StartCPUProfile(f)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "jpki-status:", err)
			return exitFailure
		}
		defer pprof.StopCPUProfile()
	}
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	cache.LogTo(log)
	if err := serve(ctx, cfg, log); err != nil {
		fmt.Fprintln(os.Stderr, "jpki-status:", err)
		return exitFailure
	}
	return 0
}
