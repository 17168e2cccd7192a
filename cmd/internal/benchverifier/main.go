// Command benchverifier measures what a verification costs beside the signature checks and digests it cannot do without.
//
// For each kind of message and key it measures, in one run on one core: that bound, by the standard library alone; the
// verification from octets to verdict with nothing remembered; the same with certificates and their signatures in
// path.Cache; and, where there is one, a peer on the same octets. Then both cores, latencies, and memory while a gibibyte
// goes by. It judges nothing but its targets and exits with 0 when one is missed. make bench-verifier runs it. Start at run.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/pprof"
	"syscall"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if len(os.Args) == 4 && os.Args[1] == "task" { // what the bench starts for itself
		err = runTask(os.Args[2], os.Args[3])
	} else {
		b := bench{}
		short := flag.Bool("short", false, "one round of short measurements, and 64 MiB for memory")
		flag.IntVar(&b.rounds, "rounds", 5, "how often everything is measured; the tables show medians")
		flag.DurationVar(&b.slice, "slice", 40*time.Millisecond, "how long one measurement lasts")
		flag.Int64Var(&b.mebibytes, "memory", 1024, "how many MiB of content the memory test has")
		flag.StringVar(&b.only, "only", "", "measure rows whose name contains this, and nothing else")
		flag.StringVar(&b.profile, "profile", "", "write a processor profile of the verifications, without bounds and peers, to this file")
		flag.Parse() // exits
		if *short {
			b.rounds, b.slice, b.mebibytes = 1, 5*time.Millisecond, 64
		}
		err = b.run(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchverifier:", err)
		os.Exit(1)
	}
}

type bench struct {
	rounds        int
	slice         time.Duration
	mebibytes     int64
	only, profile string

	rows    []*row
	batches []*batch
	step    func()
}

// run measures everything. Steps:
//  1. make keys, certificates and messages
//  2. rounds on one core, in each of which everything is measured once, what is compared in a row
//  3. both cores against one
//  4. latencies
//  5. memory
func (b *bench) run(ctx context.Context) error {
	cores := runtime.GOMAXPROCS(1)
	if err := b.makeRows(ctx); err != nil {
		return err
	}
	if b.profile != "" {
		return b.writeProfile(ctx)
	}
	bars, bar := progress(ctx, b.rounds*(len(b.rows)+len(b.batches)))
	b.step = bar.Increment
	err := b.measureRows(ctx)
	if err == nil && b.only == "" {
		err = b.measureBatches(ctx, cores)
	}
	bar.Abort(false) // when all went well it is complete, and this does nothing
	bars.Wait()
	if err != nil {
		return err
	}
	fmt.Printf("%d processors, %s, medians of %d round(s) of %v, rates per processor second\n\n", runtime.NumCPU(), runtime.Version(), b.rounds, b.slice)
	b.report(os.Stdout)
	if b.only != "" {
		return nil
	}
	b.reportBatches(os.Stdout, cores)
	runtime.GOMAXPROCS(cores)
	if err := b.reportLatencies(ctx, os.Stdout); err != nil {
		return err
	}
	return b.reportMemory(ctx, os.Stdout)
}

// measureRows measures the rows, one core.
func (b *bench) measureRows(ctx context.Context) error {
	for range b.rounds {
		for _, r := range b.rows {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := r.measure(b.slice); err != nil {
				return fmt.Errorf("%s, %s: %w", r.what, r.key, err)
			}
			b.step()
		}
	}
	return nil
}

// writeProfile profiles what is ours: for each row as long as a measurement of each round lasts. go tool pprof -tagfocus
// shows one row, key or way (cold, cached).
func (b *bench) writeProfile(ctx context.Context) error {
	f, err := os.Create(b.profile)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err := pprof.StartCPUProfile(f); err != nil {
		return err
	}
	defer pprof.StopCPUProfile()
	for _, r := range b.rows {
		for way, work := range map[string]func() error{"cold": r.cold, "cached": r.cached} {
			if work == nil {
				continue
			}
			pprof.Do(ctx, pprof.Labels("row", r.what, "key", r.key, "way", way), func(context.Context) {
				_, _, err = rate(time.Duration(b.rounds)*b.slice, work)
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// progress shows a bar on standard error, if that is a terminal.
func progress(ctx context.Context, total int) (*mpb.Progress, *mpb.Bar) {
	var out io.Writer
	if isatty.IsTerminal(os.Stderr.Fd()) {
		out = os.Stderr
	}
	bars := mpb.NewWithContext(ctx, mpb.WithOutput(out))
	return bars, bars.AddBar(int64(total), mpb.PrependDecorators(decor.Name("measurements "), decor.CountersNoUnit("%d / %d")),
		mpb.AppendDecorators(decor.Percentage(), decor.Name("  "), decor.AverageETA(decor.ET_STYLE_GO)))
}
