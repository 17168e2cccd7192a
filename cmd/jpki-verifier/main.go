// Command jpki-verifier is the relying party's zone as a server: banks and telecoms verify signatures and log-ins over HTTP.
//
// It holds trust anchors, a database of its own with what is kept for its tenants, and the master key under which that is sealed; it has no
// key of the authority's. Any number of them stand side by side on one PostgreSQL, but a log-in ends where it began. One strict YAML file
// says everything; see config.go, and "jpki-verifier -example" for one to begin with. It is read at the start only. Start at serve.
package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/openjpki/jpki/cmd/internal/boot"
	"github.com/openjpki/jpki/verifier/store"
)

//go:embed example.yaml
var example []byte

func main() { boot.Main(program()) }

func program() boot.Program {
	var c *config
	return boot.Program{
		Name: "jpki-verifier", Example: example,
		Usage: `usage: jpki-verifier -config FILE [-check] [migrate]

Verifies signatures, documents and log-ins for relying parties, over HTTP.

  jpki-verifier -example > verifier.yaml              # a configuration to begin with
  jpki-verifier -config verifier.yaml migrate         # make the schema, or bring an older one forward
  jpki-verifier -config verifier.yaml -check          # is it complete, does everything fit together, is the database as it must be?
  jpki-verifier -config verifier.yaml                 # serve until SIGTERM or SIGINT; a change of the file needs a restart

`,
		Read:   func(path string) (err error) { c, err = readConfig(path); return err },
		Check:  func(ctx context.Context, log *slog.Logger) error { return c.checkAll(ctx, log) },
		Serve:  func(ctx context.Context, log *slog.Logger) error { return serve(ctx, c, log) },
		Orders: func(ctx context.Context, args []string, out io.Writer) error { return c.order(ctx, args, out) },
	}
}

// order carries out the one command that there is; tenants are the tool's ("jpki tenant").
func (c *config) order(ctx context.Context, args []string, out io.Writer) error {
	if len(args) != 1 || args[0] != "migrate" {
		return boot.UsageError{Err: errors.New("the only command is migrate (see -help)")}
	}
	key, err := c.masterKey()
	if err != nil {
		return err
	}
	s, err := store.Create(ctx, store.Config{Database: c.Database, MasterKey: key})
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "the schema is the one that this program knows")
	return s.Close()
}
