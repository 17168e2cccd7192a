package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// quantile returns a quantile of values that are sorted, and 0 of none.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

// A line of the report is a kind of request in a part of the day.
type line struct {
	times  []time.Duration // sorted
	failed int
}

func (l *load) line(kind, part int) (out line) {
	for _, s := range l.samples {
		if s.kind != kind || s.part != part {
			continue
		}
		if s.failed {
			out.failed++
			continue
		}
		out.times = append(out.times, s.took)
	}
	slices.Sort(out.times)
	return out
}

// report prints what was measured, and writes it and the plots to the folder.
func (l *load) report(out io.Writer, f findings, n night) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight|tabwriter.Debug)
	row := func(cells ...string) { fmt.Fprintln(w, strings.Join(cells, "\t")+"\t") }
	millis := func(d time.Duration) string { return fmt.Sprintf("%.1f", d.Seconds()*1000) }
	row("part of the day", "what", "planned/s", "done/s", "done", "failed", "p50 ms", "p95 ms", "p99 ms", "max ms", "target p99", "p99/target")
	for part, h := range l.day {
		planned := []float64{h.questions, h.certificates / 2, h.lookUps, h.changes, h.changes * float64(len(l.asked)), h.checks}
		for kind, k := range kinds {
			one := l.line(kind, part)
			p99 := quantile(one.times, 0.99)
			row(h.name, k.name, fmt.Sprintf("%.1f", planned[kind]*l.scale), fmt.Sprintf("%.1f", float64(len(one.times))/(h.share*l.seconds)), fmt.Sprint(len(one.times)), fmt.Sprint(one.failed),
				millis(quantile(one.times, 0.5)), millis(quantile(one.times, 0.95)), millis(p99), millis(quantile(one.times, 1)), millis(k.target), fmt.Sprintf("%.2f", float64(p99)/float64(k.target)))
		}
	}
	_ = w.Flush()
	fmt.Fprintf(&b, `
Times run from when a request was due, not from when there was room for it. One issue is of two certificates. "Seen" runs from the
answer to a suspension or revocation until a status server says so, asked every 5 ms. Targets are ours; no service level of the real
system is known.

Processors used, of %d:
`, runtime.NumCPU())
	for part, u := range l.loads {
		verdict := ""
		if u.busy() > 0.9 {
			verdict = " - the processors are what saturates"
		}
		fmt.Fprintf(&b, "  %-16s %3.0f %% busy%s: %s\n", l.day[part].name, 100*u.busy(), verdict, u)
	}
	if l.failover {
		fmt.Fprintf(&b, "\nThe primary was killed after %.1f s; the standby was promoted and had a standby of its own after another %.1f s. What the killed\nprocesses had used of the processors is counted as others'.\n", l.failedAt.Sub(l.began).Seconds(), l.mended.Seconds())
	}
	if n.lines > 0 {
		rate := float64(n.lines) / n.took.Seconds()
		fmt.Fprintf(&b, "\nNight batch: %d lines about %d customers against the CRL in %.2f s (%.2f s of processors), %.0f lines a second; target 1000000, ratio %.2f. Each result compared.\n",
			n.lines, n.customers, n.took.Seconds(), n.cpu.Seconds(), rate, rate/1e6)
	}
	again := l.y.retried.Snapshot()
	fmt.Fprintf(&b, "\nCommands given again: %s\n", numbered(again))
	for _, what := range slices.Sorted(maps.Keys(l.failed)) {
		fmt.Fprintf(&b, "failed %d times: %s\n", l.failed[what], what)
	}
	fmt.Fprintf(&b, "\nPromises: every answer of a status server was held against what was committed a second before; %d certificates on record, each as answered;\n%d audit entries, %d signed checkpoints, whole. Broken: %d.\n",
		f.Certificates, f.Entries, f.Checkpoints, len(l.broken))
	for _, w := range l.broken[:min(len(l.broken), 20)] {
		fmt.Fprintf(&b, "BROKEN %s\n", w)
	}
	folder := l.c.path("report")
	if err := os.Mkdir(folder, 0o755); err != nil { //nolint:gosec // no secret
		return err
	}
	for name, text := range map[string]string{"report.txt": b.String(), "latency.svg": l.latencies(), "rates.svg": l.rates()} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o644); err != nil { //nolint:gosec // no secret
			return err
		}
	}
	_, err := fmt.Fprintf(out, "\n%s\nThis and plots are in %s.\n", b.String(), folder)
	return err
}

// perSecond collects the times of a kind, by the second in which they were due.
func (l *load) perSecond(kind int) [][]time.Duration {
	out := make([][]time.Duration, int(l.seconds)+1)
	for _, s := range l.samples {
		if at := int(s.at.Seconds()); s.kind == kind && !s.failed && at < len(out) {
			out[at] = append(out[at], s.took)
		}
	}
	for _, times := range out {
		slices.Sort(times)
	}
	return out
}

// latencies plots the worst of each second.
func (l *load) latencies() string {
	p := l.newPlot("the slowest of each second, in milliseconds", 0.1, 100_000, true)
	for kind, k := range kinds {
		var points [][2]float64
		for at, times := range l.perSecond(kind) {
			if len(times) > 0 {
				points = append(points, [2]float64{float64(at) + 0.5, quantile(times, 1).Seconds() * 1000})
			}
		}
		p.draw(k.name, points)
	}
	return p.end()
}

// rates plots what was done of what was asked for in each second.
func (l *load) rates() string {
	p := l.newPlot("done, of what was due in each second", 0.5, 2000, true)
	for kind, k := range kinds {
		var points [][2]float64
		for at, times := range l.perSecond(kind) {
			if at < int(l.seconds) {
				points = append(points, [2]float64{float64(at) + 0.5, max(0.5, float64(len(times)))})
			}
		}
		p.draw(k.name, points)
	}
	return p.end()
}
