package ocspload

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// quantiles are those that tables show.
var quantiles = []struct {
	Name string
	Q    float64
}{{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p99.9", 0.999}, {"max", 1}}

// PerRequest returns the processor time this process spent on each answer.
func (r *Result) PerRequest() time.Duration {
	if r.Done == 0 {
		return 0
	}
	return r.CPU / time.Duration(r.Done)
}

// Share returns how much of what this process may use of the processors it used, 0 to 1.
func (r *Result) Share() float64 {
	return r.CPU.Seconds() / r.Duration.Seconds() / float64(r.Cores)
}

// Warnings say why the numbers may not be the responder's.
func (r *Result) Warnings() []string {
	var out []string
	if r.Share() > 0.9 {
		out = append(out, "this client used all the processors it may: what was measured is the client")
	}
	if r.Rate > 0 && r.Lateness.Quantile(0.99) > 5*time.Millisecond {
		out = append(out, "this client was late itself: latencies are too high by up to "+short(r.Lateness.Quantile(0.99))+" (p99)")
	}
	if r.Unsent > 0 {
		out = append(out, fmt.Sprintf("%d requests were due and had no free connection until the end: latencies are too low", r.Unsent))
	}
	if r.Checked == 0 && r.Samples > 0 {
		out = append(out, "no answer was verified")
	}
	return out
}

// row is a name and a value in tables.
type row struct{ Name, Value string }

// Rows returns the result as tables show it.
func (r *Result) Rows() []row {
	mode := fmt.Sprintf("closed loop, %d connections", r.Conns)
	if r.Rate > 0 {
		mode = fmt.Sprintf("open loop, %.0f a second over %d connections; latency counts from when a request was due", r.Rate, r.Conns)
	}
	out := []row{{"mode", mode}, {"counted", fmt.Sprintf("%s after %s of warm-up", r.Duration, r.Warmup)}, {"answers", fmt.Sprintf("%d, %.0f/s", r.Done, r.PerSecond())}}
	var latency []string
	for _, q := range quantiles {
		latency = append(latency, q.Name+" "+short(r.Latency.Quantile(q.Q)))
	}
	out = append(out, row{"latency", strings.Join(latency, "   ")},
		row{"errors", countsOf(r.Errors)},
		row{"octets", fmt.Sprintf("%s sent, %s received", octets(r.Sent), octets(r.Received))},
		row{"connections", fmt.Sprintf("%d opened", r.Opened)},
		row{"wrong", fmt.Sprintf("%d; every answer glanced at, %d verified in full", r.Wrong, r.Checked)})
	if r.NoNonce > 0 {
		out = append(out, row{"nonces", fmt.Sprintf("%d of those verified did not come back", r.NoNonce)})
	}
	if r.Rate > 0 {
		out = append(out, row{"lateness", "of the client itself: p50 " + short(r.Lateness.Quantile(0.5)) + "   p99 " + short(r.Lateness.Quantile(0.99)) + "   max " + short(r.Lateness.Max)})
	}
	cpu := fmt.Sprintf("%.1f µs a request, %.0f%% of %d processors", float64(r.PerRequest().Nanoseconds())/1000, 100*r.Share(), r.Cores)
	if r.Busy >= 0 {
		cpu += fmt.Sprintf("; the machine was %.0f%% busy", 100*r.Busy)
	}
	return append(out, row{"client", cpu})
}

// WriteTable prints the result for a terminal.
func (r *Result) WriteTable(out io.Writer) {
	for _, row := range r.Rows() {
		fmt.Fprintf(out, "%-12s %s\n", row.Name, row.Value)
	}
	for _, e := range r.Examples {
		fmt.Fprintf(out, "  WRONG      %s\n", e)
	}
	for _, w := range r.Warnings() {
		fmt.Fprintf(out, "  MIND       %s\n", w)
	}
}

func countsOf(m map[string]uint64) string {
	if len(m) == 0 {
		return "none"
	}
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, fmt.Sprintf("%s %d", k, m[k]))
	}
	return strings.Join(parts, ", ")
}

// short writes a duration with three digits.
func short(d time.Duration) string {
	switch {
	case d >= 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d >= time.Second:
		return fmt.Sprintf("%.2f s", d.Seconds())
	case d >= 100*time.Millisecond:
		return fmt.Sprintf("%.0f ms", d.Seconds()*1e3)
	case d >= 10*time.Millisecond:
		return fmt.Sprintf("%.1f ms", d.Seconds()*1e3)
	case d >= time.Millisecond:
		return fmt.Sprintf("%.2f ms", d.Seconds()*1e3)
	}
	return fmt.Sprintf("%.0f µs", d.Seconds()*1e6)
}

func octets(n uint64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.2f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
}
