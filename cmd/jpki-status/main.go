// Command jpki-status is the public zone as a server of its own: an OCSP responder that follows the authority's status log.
//
// It holds delegated OCSP keys, a database handle that reads statuses only, and what can be made again: a snapshot of
// statuses, signed answers in memory and in Redis. Any number of them stand side by side. One strict YAML file says
// everything; see config.go, and "jpki-status -example" for one to begin with. Start at serve.
package main

import (
	"context"
	_ "embed"
	"flag"
	"log/slog"
	"os"
	"runtime/pprof"

	"github.com/openjpki/jpki/cmd/internal/boot"
	"github.com/openjpki/jpki/ocsp/cache"
)

//go:embed example.yaml
var example []byte

func main() { boot.Main(program()) }

func program() boot.Program {
	var c *config
	var profile string
	return boot.Program{
		Name: "jpki-status", Example: example,
		Usage: `usage: jpki-status -config FILE [-check]

Answers OCSP requests from the status log of a JPKI authority.

  jpki-status -example > status.yaml          # a configuration to begin with
  jpki-status -config status.yaml -check      # is it complete, do keys and certificates fit together?
  jpki-status -config status.yaml             # serve until SIGTERM

`,
		Flags: func(f *flag.FlagSet) { f.StringVar(&profile, "cpuprofile", "", "write a CPU profile to this file") },
		Read:  func(path string) (err error) { c, err = readConfig(path); return err },
		Check: func(ctx context.Context, _ *slog.Logger) error {
			cache.LogTo(slog.New(slog.DiscardHandler)) // it connects to nothing, and what it makes may try to
			return c.checkFiles(ctx)
		},
		Serve: func(ctx context.Context, log *slog.Logger) error {
			if profile != "" {
				f, err := os.Create(profile) // #nosec G304 -- the operator says where
				if err == nil {
					err = pprof.StartCPUProfile(f)
				}
				if err != nil {
					return err
				}
				defer pprof.StopCPUProfile()
			}
			cache.LogTo(log)
			return serve(ctx, c, log)
		},
	}
}
