// Command cluster runs the whole production topology on one machine: to look at, to load and to break.
//
// It starts, as processes on loopback, PostgreSQL with a synchronous standby, a Redis Cluster of six, a SoftHSM token behind
// jpki-signer, two jpki-ca, two relays, three jpki-status and a jpki-verifier, from configurations it writes to a folder. "load"
// plays a campaign day on it and reports; "soak" breaks one thing after the other, in an order that a seed decides, and checks
// the promises meanwhile. It installs nothing and knows nothing of the programs but their files, ports and signals. Exit code 0
// means that all went well, 1 that something did not, 2 a wrong command line. Whatever it starts ends with it. make cluster,
// make load and make soak run it. Start at command; topology.go has what runs.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout))
}

const usage = `usage: cluster [up|load|soak] [FLAGS]

  cluster                        # start everything, print where it is, stay until Enter or Ctrl-C
  cluster up -once               # start everything, walk through the life of a card, end
  cluster load                   # a campaign day; report and plots in the folder
  cluster load -failover         # the same, and the database's primary is killed at the worst time
  cluster soak -for 10m -seed 7  # break everything, in the order of seed 7, and check the promises

`

// run returns the exit code.
func run(ctx context.Context, args []string, out io.Writer) int {
	name := "up"
	if len(args) > 0 && args[0] != "" && args[0][0] != '-' {
		name, args = args[0], args[1:]
	}
	flags := flag.NewFlagSet("cluster "+name, flag.ContinueOnError)
	flags.Usage = func() { fmt.Fprint(flags.Output(), usage); flags.PrintDefaults() }
	dir := flags.String("dir", filepath.Join("var", "cluster"), "the folder for configurations, data and logs; what an earlier run left in it is removed")
	bin := flags.String("bin", "bin", "where the programs are")
	var play func(context.Context, *cluster, io.Writer) error
	switch name {
	case "up":
		once := flags.Bool("once", false, "walk through the life of a card and end")
		play = func(ctx context.Context, c *cluster, out io.Writer) error {
			if *once {
				return walk(ctx, c, out)
			}
			fmt.Fprintln(out, "Enter or Ctrl-C ends it.")
			entered := make(chan struct{})
			go func() {
				if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err == nil { // without a terminal only signals end it
					close(entered)
				}
			}()
			select {
			case <-entered:
			case <-ctx.Done():
			}
			return nil
		}
	case "load":
		l := &load{}
		l.flags(flags)
		play = l.play
	case "soak":
		s := &soak{}
		flags.DurationVar(&s.length, "for", time.Minute, "how long things are broken")
		flags.Uint64Var(&s.seed, "seed", rand.Uint64N(1_000_000), "decides what is broken when") //nolint:gosec // no secret
		flags.StringVar(&s.only, "only", "", "break only what has one of these names, with commas: see the table in faults.go")
		flags.DurationVar(&s.recovery, "recovery", 30*time.Second, "how soon after the last fault of a round everything must be well")
		play = s.play
	default:
		fmt.Fprintf(os.Stderr, "cluster: there is no %q\n%s", name, usage)
		return 2
	}
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	case flags.NArg() > 0:
		fmt.Fprintf(os.Stderr, "cluster: %q is too much\n", flags.Arg(0))
		return 2
	}
	if err := with(ctx, *dir, *bin, out, play); err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		return 1
	}
	return 0
}

// with starts a cluster, has play do what it does with it, and ends it.
func with(ctx context.Context, dir, bin string, out io.Writer, play func(context.Context, *cluster, io.Writer) error) (err error) {
	c, err := newCluster(dir, bin, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		return err
	}
	defer c.close()
	began := time.Now()
	if err := c.build(ctx); err != nil {
		return err
	}
	c.describe(out)
	fmt.Fprintf(out, "\nEverything is well after %.1f s.\n", time.Since(began).Seconds())
	return play(ctx, c, out)
}
