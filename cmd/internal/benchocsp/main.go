// Command benchocsp measures OCSP against its limits and against other responders, in one run on one machine.
//
// It makes a small authority, starts jpki-status as anybody would, with a configuration file, and beside it nginx, cfssl,
// "openssl ocsp" and a plain responder on Redis; all are asked the same by wrk, one after the other in each round. What
// counts is requests per CPU-second of the server and its companions, from /proc, as a ratio within a round: other work on
// the machine disturbs that least. Servers and client each have a processor of their own where there are two. It judges
// nothing but its list of targets and exits with 0 when one is missed. "benchocsp fronts" compares HTTP fronts alone, see
// compareFronts. Start at bench.run.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

type options struct {
	rounds         int
	length         time.Duration
	fronts         []string
	methods        []string
	connections    []string
	client         string
	profile        string
	serve, driving string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	switch args := os.Args[1:]; {
	case len(args) > 0 && args[0] == "fronts":
		err = compareFronts(ctx, args[1:])
	case len(args) > 0 && args[0] == "be": // what the bench starts for itself
		err = be(ctx, args[1:])
	default:
		err = newBench(args).run(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchocsp:", err)
		os.Exit(1)
	}
}

// compareFronts measures HTTP fronts for OCSP against each other and against nginx answering from memory. Each front is a
// process of its own that looks the request up among a thousand and sends half a kilobyte; nginx sends the same from its
// configuration without looking at anything.
func compareFronts(ctx context.Context, args []string) error {
	var o options
	var fronts, methods, connections string
	flag := flag.NewFlagSet("benchocsp fronts", flag.ExitOnError)
	flag.IntVar(&o.rounds, "rounds", 5, "how often each front is measured")
	flag.DurationVar(&o.length, "length", time.Second, "of one measurement")
	flag.StringVar(&fronts, "fronts", "nginx,front,fasthttp,nethttp,handler", "which to measure")
	flag.StringVar(&methods, "methods", "POST,GET", "which to measure")
	flag.StringVar(&connections, "connections", "50,200", "how many at once")
	flag.StringVar(&o.client, "client", "", "wrk or own; wrk if it is installed")
	flag.StringVar(&o.profile, "cpuprofile", "", "a front that is ours writes a CPU profile here")
	flag.StringVar(&o.serve, "serve", "", "be this front (internal)")
	flag.StringVar(&o.driving, "drive", "", "make load on this address (internal)")
	_ = flag.Parse(args) // exits
	o.fronts, o.methods, o.connections = strings.Split(fronts, ","), strings.Split(methods, ","), strings.Split(connections, ",")
	return run(ctx, o)
}

func run(ctx context.Context, o options) error {
	switch {
	case o.serve != "":
		return serve(ctx, o.serve, o.profile)
	case o.driving != "":
		connections, err := strconv.Atoi(o.connections[0])
		if err != nil {
			return err
		}
		return driveAndPrint(o.driving, o.methods[0], connections, o.length)
	}
	if _, err := exec.LookPath("wrk"); o.client == "" {
		o.client = "wrk"
		if err != nil {
			o.client = "own"
		}
	}
	dir, err := os.MkdirTemp("", "benchocsp")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)

	var targets []*target
	for _, name := range o.fronts {
		t, err := startTarget(ctx, name, dir, o.profile)
		if err != nil {
			fmt.Printf("%s is not measured: %v\n", name, err)
			continue
		}
		defer t.stop()
		targets = append(targets, t)
	}
	fmt.Printf("%d processors, %s, load by %s, %d rounds of %s, medians\n", runtime.NumCPU(), runtime.Version(), o.client, o.rounds, o.length)

	out := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(out, "method\tconns\tfront\trequests/s\tper CPU-s\t÷ nginx\t(rounds)\tp50 µs\tp99 µs\tfailed\t")
	for _, method := range o.methods {
		for _, connections := range o.connections {
			results := map[*target][]result{}
			for round := range o.rounds {
				for i := range targets {
					t := targets[(i+round)%len(targets)] // nobody always follows the same neighbour
					r, err := measure(ctx, o, t, method, connections, dir)
					if err != nil {
						return fmt.Errorf("%s: %w", t.name, err)
					}
					results[t] = append(results[t], r)
				}
			}
			for _, t := range targets {
				rs := results[t]
				ratio, rounds := "–", ""
				if targets[0].name == "nginx" {
					var ratios []float64
					for i, r := range rs {
						ratios = append(ratios, r.perCPU/results[targets[0]][i].perCPU)
						rounds += fmt.Sprintf(" %.2f", ratios[i])
					}
					ratio = fmt.Sprintf("%.2f", median(ratios))
				}
				failed := 0
				for _, r := range rs {
					failed += r.Failed
				}
				of := func(f func(result) float64) float64 {
					var vs []float64
					for _, r := range rs {
						vs = append(vs, f(r))
					}
					return median(vs)
				}
				fmt.Fprintf(out, "%s\t%s\t%s\t%.0f\t%.0f\t%s\t%s\t%.0f\t%.0f\t%d\t\n", method, connections, t.name,
					of(func(r result) float64 { return r.Rate }), of(func(r result) float64 { return r.perCPU }), ratio, rounds,
					of(func(r result) float64 { return r.P50 }), of(func(r result) float64 { return r.P99 }), failed)
			}
			if err := out.Flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

func median(vs []float64) float64 {
	vs = slices.Sorted(slices.Values(vs))
	return (vs[(len(vs)-1)/2] + vs[len(vs)/2]) / 2
}

// measure makes load for a while and looks what it cost the server.
func measure(ctx context.Context, o options, t *target, method, connections, dir string) (result, error) {
	before, err := cpuTime(t.pid)
	if err != nil {
		return result{}, err
	}
	var r result
	if o.client == "wrk" {
		r, err = wrk(ctx, t.address, method, connections, o.length, dir)
	} else {
		r, err = driver(ctx, t.address, method, connections, o.length)
	}
	if err != nil {
		return r, err
	}
	after, err := cpuTime(t.pid)
	if err != nil {
		return r, err
	}
	r.perCPU = float64(r.Requests) / max((after-before).Seconds(), 1e-3)
	return r, nil
}

// pinned returns a command that runs on one processor, if there are two and taskset.
func pinned(ctx context.Context, processor int, name string, args ...string) *exec.Cmd {
	if _, err := exec.LookPath("taskset"); err == nil && runtime.NumCPU() > 1 {
		name, args = "taskset", append([]string{"-c", strconv.Itoa(processor), name}, args...)
	}
	return exec.CommandContext(ctx, name, args...) //nolint:gosec // this program, nginx or wrk
}
