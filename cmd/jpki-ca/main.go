// Command jpki-ca is the authority as a server: stations, the resident register, holders and status servers speak with it
// over TLS, and it publishes CRLs and status snapshots.
//
// It has the use of the issuing keys, the database and the audit key; nothing in the public zone has any of them. Any
// number of them stand side by side on one database, and each answers; what one should do alone (CRLs, snapshots,
// checkpoints) is done by whoever has the lease. One strict YAML file says everything; see config.go, and
// "jpki-ca -example" for one to begin with. Start at serve; operate.go sets up and changes what is recorded.
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
	"syscall"
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
	flags := flag.NewFlagSet("jpki-ca", flag.ContinueOnError)
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), `usage: jpki-ca -config FILE [-check] [COMMAND …]

The authority: answers stations, the resident register and holders, publishes CRLs and snapshots.

  jpki-ca -example > ca.yaml                     # a configuration to begin with
  jpki-ca -config ca.yaml -check                 # is it complete, does everything fit together, is the database as it must be?
  jpki-ca -config ca.yaml                        # serve until SIGTERM

Commands change what is on record and end; -operator says who gives them:

  migrate                                        # make the schema, or bring an older one forward
  init CERTIFICATE CERTIFICATE                   # record sign-1 and auth-1, which issue from then on
  enrol ROLE:NAME[:MUNICIPALITY] CERTIFICATE     # admit a station, the register or a status server
  disable NAME                                   # end a station's access
  add GENERATION CERTIFICATE                     # record the next generation; it does not issue yet
  activate GENERATION                            # let a recorded generation issue

`)
		flags.PrintDefaults()
	}
	path := flags.String("config", "", "the configuration, YAML")
	check := flags.Bool("check", false, "check the configuration, the files and keys that it names and the database, and end")
	show := flags.Bool("example", false, "print a configuration with every field explained, and end")
	operator := flags.String("operator", "", "who gives the command, for the audit record")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return exitUsage
	}
	if *show {
		_, _ = os.Stdout.Write(example)
		return 0
	}
	fail := func(err error, code int) int {
		fmt.Fprintln(os.Stderr, "jpki-ca:", err)
		return code
	}
	c, err := readConfig(*path)
	if err != nil {
		return fail(err, exitUsage)
	}
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	switch {
	case flags.NArg() > 0:
		if *check {
			return fail(errors.New("-check takes no command"), exitUsage)
		}
		err = c.operate(ctx, *operator, flags.Args(), os.Stdout)
		if errors.Is(err, errUsage) {
			return fail(err, exitUsage)
		}
	case *check:
		if err = c.checkAll(ctx, log); err != nil {
			return fail(err, exitUsage)
		}
		fmt.Println("ok")
	default:
		err = serve(ctx, c, log)
	}
	if err != nil {
		return fail(err, exitFailure)
	}
	return 0
}
