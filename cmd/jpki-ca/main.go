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
	"flag"
	"io"
	"log/slog"

	"github.com/openjpki/jpki/cmd/internal/boot"
)

//go:embed example.yaml
var example []byte

func main() { boot.Main(program()) }

func program() boot.Program {
	var c *config
	var operator string
	return boot.Program{
		Name: "jpki-ca", Example: example,
		Usage: `usage: jpki-ca -config FILE [-check] [COMMAND …]

The authority: answers stations, the resident register and holders, publishes CRLs and snapshots.

  jpki-ca -example > ca.yaml                     # a configuration to begin with
  jpki-ca -config ca.yaml -check                 # is it complete, does everything fit together, is the database as it must be?
  jpki-ca -config ca.yaml                        # serve until SIGTERM

Commands change what is on record and end; -operator says who gives them:

  migrate                                        # make the schema, or bring an older one forward
  init CERTIFICATE CERTIFICATE                   # record sign-1 and auth-1, which issue from then on
  enrol ROLE:NAME[:MUNICIPALITY] CERTIFICATE     # admit a station, the register, a status server or the operator of a verifier
  disable NAME                                   # end a station's access
  tenant OPERATOR NUMBER USES NAME               # let a verifier's operator act for a relying party, by its Corporate Number
  add GENERATION CERTIFICATE                     # record the next generation; it does not issue yet
  activate GENERATION                            # let a recorded generation issue
  end-tenant NUMBER                              # end it: its operator gets nothing more for it

`,
		Flags: func(f *flag.FlagSet) {
			f.StringVar(&operator, "operator", "", "who gives the command, for the audit record")
		},
		Read:  func(path string) (err error) { c, err = readConfig(path); return err },
		Check: func(ctx context.Context, log *slog.Logger) error { return c.checkAll(ctx, log) },
		Serve: func(ctx context.Context, log *slog.Logger) error { return serve(ctx, c, log) },
		Orders: func(ctx context.Context, args []string, out io.Writer) error {
			return c.operate(ctx, operator, args, out)
		},
	}
}
