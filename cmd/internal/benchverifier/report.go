package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"
)

// rate does work for some time and returns how often it could be done in a second of the processor, and how many
// allocations each took.
func rate(slice time.Duration, work func() error) (perSecond, allocations float64, err error) {
	if err := work(); err != nil { // warms up
		return 0, 0, err
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start, used, n := time.Now(), cpuSeconds(), 0
	for ; n < 10 || time.Since(start) < slice; n++ {
		if err := work(); err != nil {
			return 0, 0, err
		}
	}
	spent := cpuSeconds() - used
	runtime.ReadMemStats(&after)
	return float64(n) / spent, float64(after.Mallocs-before.Mallocs) / float64(n), nil
}

// cpuSeconds returns what this process has used of the processors.
func cpuSeconds() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

// of returns the median of a figure of the samples.
func (r *row) of(figure func(sample) float64) float64 {
	var values []float64
	for _, s := range r.samples {
		values = append(values, figure(s))
	}
	return median(values)
}

// What the columns are: ratios are of one round each.
func perBound(s sample) float64      { return s.cold / s.bound }
func perRemembered(s sample) float64 { return s.cached / s.boundRemembered }
func perPeer(s sample) float64       { return s.cold / s.theirs }

// A goal is a target: what column of which rows reaches at least how much.
type goal struct {
	what, name string
	figure     func(sample) float64
	least      float64
}

var goals = []goal{
	{rowRaw, "cold / bound", perBound, 0.6},
	{rowRawPath, "cold / bound", perBound, 0.6},
	{rowRawPath, "with caches / bound", perRemembered, 0.9},
	{rowCMS, "cold / bound", perBound, 0.6},
	{rowCMSPath, "cold / bound", perBound, 0.6},
	{rowCMSPath, "with caches / bound", perRemembered, 0.9},
	{rowCMS, "cold / pkcs7", perPeer, 5},
	{rowXAdES, "cold / bound", perBound, 0.4},
	{rowXAdESPath, "cold / bound", perBound, 0.4},
}

// report writes the rows, and then which targets are met.
func (b *bench) report(w io.Writer) {
	_, _ = fmt.Fprintf(w, "%-27s %-9s %9s %9s %8s %8s %9s %9s %8s  %s\n", "", "keys", "bound/s", "cold/s", "/ bound", "allocs", "bound/s", "cached/s", "/ bound", "cold / peer")
	for _, what := range b.names() {
		for _, r := range b.rows {
			if r.what != what {
				continue
			}
			_, _ = fmt.Fprintf(w, "%-27s %-9s %9.0f %9.0f %8.2f %8.0f", r.what, r.key, r.of(func(s sample) float64 { return s.bound }),
				r.of(func(s sample) float64 { return s.cold }), r.of(perBound), r.of(func(s sample) float64 { return s.allocations }))
			if r.cached != nil {
				_, _ = fmt.Fprintf(w, " %9.0f %9.0f %8.2f", r.of(func(s sample) float64 { return s.boundRemembered }), r.of(func(s sample) float64 { return s.cached }), r.of(perRemembered))
			} else {
				_, _ = fmt.Fprintf(w, " %9s %9s %8s", "", "", "")
			}
			if r.theirs != nil {
				_, _ = fmt.Fprintf(w, "  %.2f × %s", r.of(perPeer), r.peer)
			}
			_, _ = fmt.Fprintln(w)
		}
	}
	_, _ = fmt.Fprintln(w)
	for _, g := range goals {
		for _, r := range b.rows {
			if r.what == g.what && (g.name != "cold / pkcs7" || r.theirs != nil) {
				target(w, r.key+", "+r.what+": "+g.name, r.of(g.figure), g.least, true)
			}
		}
	}
	_, _ = fmt.Fprintln(w)
}

// names returns what rows there are, each once.
func (b *bench) names() (out []string) {
	for _, r := range b.rows {
		if !slices.Contains(out, r.what) {
			out = append(out, r.what)
		}
	}
	return out
}

// target writes a figure and whether it is what was aimed at.
func target(w io.Writer, what string, figure, limit float64, atLeast bool) {
	verdict := "met"
	if figure > limit && !atLeast || figure < limit && atLeast {
		verdict = "MISSED"
	}
	_, _ = fmt.Fprintf(w, "%-62s %8.2f  (target %s %g) %s\n", what, figure, map[bool]string{false: "<=", true: ">="}[atLeast], limit, verdict)
}

// A batch is many messages at once, on one core and on all.
type batch struct {
	key      string
	work     func() error
	one, all []float64 // a second, by the clock
}

// measureBatches has as many goroutines as cores verify for some time.
func (b *bench) measureBatches(ctx context.Context, cores int) error {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	for range b.rounds {
		for _, t := range b.batches {
			if err := ctx.Err(); err != nil {
				return err
			}
			for n, to := range map[int]*[]float64{1: &t.one, cores: &t.all} {
				runtime.GOMAXPROCS(n)
				per, err := together(n, 5*b.slice, t.work)
				if err != nil {
					return err
				}
				*to = append(*to, per)
			}
			b.step()
		}
	}
	return nil
}

// together returns how often n goroutines can do work in a second.
func together(n int, slice time.Duration, work func() error) (float64, error) {
	counts, failures := make([]int, n), make([]error, n)
	var wait sync.WaitGroup
	start := time.Now()
	for i := range n {
		wait.Go(func() {
			for time.Since(start) < slice && failures[i] == nil {
				failures[i] = work()
				counts[i]++
			}
		})
	}
	wait.Wait()
	took, total := time.Since(start).Seconds(), 0
	for i := range n {
		if total += counts[i]; failures[i] != nil {
			return 0, failures[i]
		}
	}
	return float64(total) / took, nil
}

func (b *bench) reportBatches(w io.Writer, cores int) {
	_, _ = fmt.Fprintf(w, "%-27s %-9s %9s %9s %8s   by the clock\n", "many at once", "keys", "1 core/s", fmt.Sprintf("%d cores/s", cores), "ratio")
	for _, t := range b.batches {
		var ratios []float64
		for i := range t.one {
			ratios = append(ratios, t.all[i]/t.one[i])
		}
		_, _ = fmt.Fprintf(w, "%-27s %-9s %9.0f %9.0f %8.2f\n", rowCMSPath, t.key, median(t.one), median(t.all), median(ratios))
	}
	_, _ = fmt.Fprintln(w)
}

// reportLatencies measures what one who verifies now and then waits for: a CAdES message, its path and an OCSP answer.
func (b *bench) reportLatencies(ctx context.Context, w io.Writer) error {
	world, err := newWorld(rsa2048)
	if err != nil {
		return err
	}
	rows, err := world.rows(ctx)
	if err != nil {
		return err
	}
	cold, err := world.checker(0)
	if err != nil {
		return err
	}
	verify := rows[slices.IndexFunc(rows, func(r *row) bool { return r.what == rowCMS })].cold
	took := make([]time.Duration, 400*b.rounds)
	for i := range took {
		start := time.Now()
		if err := verify(); err != nil {
			return err
		}
		if _, err := cold.path(ctx, world.leaf.cert.Raw, world.ocsp); err != nil {
			return err
		}
		took[i] = time.Since(start)
	}
	slices.Sort(took)
	for _, p := range []int{50, 99} {
		target(w, fmt.Sprintf("%s, CAdES B-B with path and OCSP, cold: p%d, ms", rsa2048, p), float64(took[len(took)*p/100].Microseconds())/1000, 5, false)
	}
	_, _ = fmt.Fprintln(w)
	return nil
}

// reportMemory verifies a detached signature about much content in a process of its own.
func (b *bench) reportMemory(ctx context.Context, w io.Writer) error {
	dir, err := os.MkdirTemp("", "benchverifier-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := signMuch(dir, b.mebibytes<<20); err != nil {
		return err
	}
	var peaks, seconds [3]float64
	for i, task := range []string{"idle", "digest", "verify"} {
		if seconds[i], peaks[i], err = runSelf(ctx, task, dir); err != nil {
			return fmt.Errorf("%s: %w", task, err)
		}
	}
	_, _ = fmt.Fprintf(w, "detached content of %d MiB: idle %.1f MiB resident, SHA-256 alone %.1f MiB in %.2f s, verification %.1f MiB in %.2f s\n", b.mebibytes, peaks[0], peaks[1], seconds[1], peaks[2], seconds[2])
	target(w, "detached content: peak MiB above idle", peaks[2]-peaks[0], 16, false)
	target(w, "detached content: SHA-256 alone / verification, processor time", seconds[1]/seconds[2], 0.9, true)
	return nil
}
