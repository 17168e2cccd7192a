// Command jpki-signer keeps signing keys in a process of their own and signs for its peers on a unix socket.
//
// It admits peers by user and group, key by key and purpose by purpose, at a rate. Keys are in tokens behind a vendor's
// PKCS #11 library, which is loaded by child processes ("jpki-signer -worker", started by itself) and by no other program of
// ours, or in files. One strict YAML file says everything; see config.go, and "jpki-signer -example". Start at serve.
package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/openjpki/jpki/hsm/pkcs11"
	"github.com/openjpki/jpki/hsm/signer"
)

//go:embed example.yaml
var example []byte

func main() {
	if len(os.Args) == 2 && os.Args[1] == "-worker" {
		os.Exit(work())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:]))
}

// Exit codes: 0 done, 1 it did not work, 2 the command line or the configuration is wrong, 3 the key to be made is there already.
const (
	exitFailure = 1
	exitUsage   = 2
	exitExists  = 3
)

// work is the life of a child process. A terminal's Ctrl-C reaches it too and is its parent's business: it ends with the connection.
func work() int {
	signal.Ignore(os.Interrupt, syscall.SIGTERM)
	runtime.GOMAXPROCS(1) // Go only passes requests on here, and C_Sign's threads do not count: more would look for work in vain
	conn, err := net.FileConn(os.NewFile(3, "parent"))
	if err == nil {
		err = pkcs11.Work(conn)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "jpki-signer -worker:", err)
		return exitFailure
	}
	return 0
}

func run(ctx context.Context, args []string) int {
	flags := flag.NewFlagSet("jpki-signer", flag.ContinueOnError)
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), `usage: jpki-signer -config FILE [-check | -create NAME | -reload]
       jpki-signer -usage FILE

Signs for other programs with keys in PKCS #11 tokens or files.

  jpki-signer -example > signer.yaml          # a configuration to begin with
  jpki-signer -config signer.yaml -check      # is it complete, do tokens, PINs and keys answer?
  jpki-signer -config signer.yaml -create sign-1   # make the key where the configuration says it is
  jpki-signer -config signer.yaml             # serve until SIGTERM
  jpki-signer -config signer.yaml -reload     # the one that serves reads its keys and rules again, as at SIGHUP
  jpki-signer -usage /var/lib/jpki-signer/usage.ndjson   # is the record of use whole? prints its last line

`)
		flags.PrintDefaults()
	}
	path := flags.String("config", "", "the configuration, YAML")
	check := flags.Bool("check", false, "check the configuration, log in to every token, try every key, and end")
	create := flags.String("create", "", "make the key of this `name` at its first place, and end; never replaces a key")
	reload := flags.Bool("reload", false, "have the signer that serves read its keys and rules again, and end; what is wrong with them is said here")
	usage := flags.String("usage", "", "verify a record of use, print its last line, and end")
	show := flags.Bool("example", false, "print a configuration with every field explained, and end")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return exitUsage
	case flags.NArg() > 0:
		fmt.Fprintf(os.Stderr, "jpki-signer: unexpected argument %q (see -help)\n", flags.Arg(0))
		return exitUsage
	}
	fail := func(code int, err error) int {
		fmt.Fprintln(os.Stderr, "jpki-signer:", err)
		return code
	}
	switch {
	case *show:
		_, _ = os.Stdout.Write(example)
		return 0
	case *usage != "":
		if err := showUsage(*usage); err != nil {
			return fail(exitFailure, err)
		}
		return 0
	}
	cfg, err := readConfig(*path)
	if err != nil {
		return fail(exitUsage, err)
	}
	switch {
	case *check:
		if err := cfg.checkKeys(ctx); err != nil {
			return fail(exitUsage, err)
		}
		fmt.Println("ok")
		return 0
	case *create != "":
		if err := cfg.create(ctx, *create); errors.Is(err, fs.ErrExist) {
			return fail(exitExists, err)
		} else if err != nil {
			return fail(exitFailure, err)
		}
		return 0
	case *reload:
		if err := cfg.reload(ctx); err != nil {
			return fail(exitFailure, err)
		}
		return 0
	}
	if err := serve(ctx, cfg, slog.New(slog.NewJSONHandler(os.Stderr, nil))); err != nil {
		return fail(exitFailure, err)
	}
	return 0
}

func showUsage(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	last, err := signer.VerifyUsage(f)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(last)
}
