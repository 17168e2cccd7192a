package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// A row is what was measured: who issued, under which CA key, for how many clients at once.
type row struct {
	what, key string
	clients   int
}

// What our own rows are called.
const (
	inside  = "in process, pairs"
	hasty   = "the same, commits not waited for"
	outside = "over HTTP, pairs"
	single  = "over HTTP, one a request"
)

// A sample is one measurement of a row.
type sample struct {
	certs, failed int
	wall          time.Duration
	cpu, database time.Duration // of the issuing process; of PostgreSQL
	latencies     []time.Duration
	limits        limits // measured before and after
}

func (s sample) rate() float64         { return float64(s.certs) / s.wall.Seconds() }
func (s sample) perCPU() float64       { return float64(s.certs) / s.cpu.Seconds() }
func (s sample) withDatabase() float64 { return float64(s.certs) / (s.cpu + s.database).Seconds() }
func (s sample) ofBare() float64       { return s.perCPU() / s.limits.signature }
func (s sample) ofBound() float64      { return s.perCPU() / s.limits.bound }

// slow is the latency that one in a hundred requests exceeds, in milliseconds.
func (s sample) slow() float64 {
	if len(s.latencies) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s.latencies))
	return sorted[len(sorted)*99/100].Seconds() * 1000
}

// results are the samples of all rows, one a round.
type results struct {
	order   []row
	samples map[row][]sample
}

func (r *results) add(to row, s sample) {
	if _, known := r.samples[to]; !known {
		r.order = append(r.order, to)
	}
	r.samples[to] = append(r.samples[to], s)
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 0 {
		return (sorted[middle-1] + sorted[middle]) / 2
	}
	return sorted[middle]
}

func medianOf(samples []sample, figure func(sample) float64) float64 {
	var values []float64
	for _, s := range samples {
		values = append(values, figure(s))
	}
	return median(values)
}

// ratio is the median of what a row reached against another in the same round; 0 if one of them was not measured.
func (r *results) ratio(a, b row, figure func(sample) float64) float64 {
	var values []float64
	over := r.samples[b]
	for i, s := range r.samples[a] {
		if i < len(over) {
			values = append(values, figure(s)/figure(over[i]))
		}
	}
	return median(values)
}

// first is where rows of a kind begin.
func (r *results) first(what string) int {
	return slices.IndexFunc(r.order, func(at row) bool { return at.what == what })
}

// table writes medians, and the limits that were measured.
func (r *results) table(w io.Writer) {
	fmt.Fprintf(w, "%-34s %-9s %7s %9s %8s %10s %10s %8s %8s\n", "", "CA key", "clients", "certs/s", "p99 ms", "per CPU-s", "with DB", "/ bare", "/ bound")
	bare := map[string][]sample{}
	var keys []string
	order := slices.Clone(r.order) // as measured; now all of one kind together, in the order of their first
	slices.SortStableFunc(order, func(a, b row) int { return r.first(a.what) - r.first(b.what) })
	for i, at := range order {
		if i > 0 && order[i-1].what != at.what {
			fmt.Fprintln(w)
		}
		samples := r.samples[at]
		database := fmt.Sprintf("%.0f", medianOf(samples, sample.withDatabase))
		if at.what == stepCA { // it has none but its own
			database = ""
		}
		fmt.Fprintf(w, "%-34s %-9s %7d %9.0f %8.1f %10.0f %10s", at.what, at.key, at.clients, medianOf(samples, sample.rate), medianOf(samples, sample.slow), medianOf(samples, sample.perCPU), database)
		if samples[0].limits.signature > 0 {
			fmt.Fprintf(w, " %8.2f %8.2f", medianOf(samples, sample.ofBare), medianOf(samples, sample.ofBound))
			if !slices.Contains(keys, at.key) {
				keys = append(keys, at.key)
			}
			bare[at.key] = append(bare[at.key], samples...)
		}
		fmt.Fprintln(w)
		failed := 0
		for _, s := range samples {
			failed += s.failed
		}
		if failed > 0 {
			fmt.Fprintf(w, "%-34s %d requests failed and are not counted\n", "", failed)
		}
	}
	fmt.Fprintf(w, "\nLimits, per CPU-second    bare signature    signature and proof of possession\n")
	for _, key := range keys {
		fmt.Fprintf(w, "%-24s %15.0f %36.0f\n", key, medianOf(bare[key], func(s sample) float64 { return s.limits.signature }), medianOf(bare[key], func(s sample) float64 { return s.limits.bound }))
	}
	fmt.Fprint(w, `
per CPU-s: certificates for a second of the issuing process; with PostgreSQL's beside it under "with DB". Bare signatures
and the check of a request's signature (RSA-2048) are measured before and after each measurement of ours, on one processor.
Of our requests, pairs bring two certificates, both of a card; a peer's brings one. p99 is a request's. Server, database and
the client that loads them share this machine. step-ca speaks TLS, we mutual TLS, cfssl plain HTTP: each its default.
`)
}

// A target is a figure to be reached.
type target struct {
	name    string
	want    float64
	atMost  bool
	unit    string
	reached []figure // each has to
	missing string   // why there is none
	remark  string
}

type figure struct {
	value float64
	at    string
}

func (t target) met() bool {
	return !slices.ContainsFunc(t.reached, func(f figure) bool { return t.atMost && f.value > t.want || !t.atMost && f.value < t.want })
}

// String is a line of the list.
func (t target) String() string {
	sign := "at least"
	if t.atMost {
		sign = "at most"
	}
	line := fmt.Sprintf("%-58s %-8s %4.4g %s", t.name, sign, t.want, t.unit)
	if len(t.reached) == 0 {
		return line + "   -    not measured: " + t.missing
	}
	var figures []string
	for _, f := range t.reached {
		figures = append(figures, strings.TrimSpace(fmt.Sprintf("%.3g %s", f.value, f.at)))
	}
	verdict := "no "
	if t.met() {
		verdict = "yes"
	}
	return line + "   " + verdict + "  " + strings.Join(figures, ", ") + t.remark
}

// targets are the figures that this run was for.
func (r *results) targets() []target {
	own := func(key string) (out []figure) {
		for _, n := range clientCounts {
			if s := r.samples[row{inside, key, n}]; len(s) > 0 {
				out = append(out, figure{medianOf(s, sample.ofBare), fmt.Sprintf("(%d clients)", n)})
			}
		}
		return out
	}
	against := func(peer, key string) (out []figure) {
		for _, n := range clientCounts {
			if v := r.ratio(row{outside, key, n}, row{peer, key, n}, sample.rate); v > 0 {
				out = append(out, figure{v, fmt.Sprintf("(%d clients; per CPU-s %.2f)", n, r.ratio(row{outside, key, n}, row{peer, key, n}, sample.perCPU))})
			}
		}
		return out
	}
	const (
		least = 0.85 // RSA-2048
		most  = 0.9  // P-384
		rsa   = 2.5  // against peers
		ec    = 5
	)
	// What nobody can have who makes signatures with this library and checks proofs of possession is said.
	outOfReach := func(want float64, best []float64) string {
		if len(best) == 0 || median(best) >= want {
			return ""
		}
		return fmt.Sprintf("; out of reach per CPU-s: the bound is %.2f x", median(best))
	}
	bounded := func(key string, want float64) string {
		var best []float64
		for _, n := range clientCounts {
			for _, s := range r.samples[row{inside, key, n}] {
				best = append(best, s.limits.bound/s.limits.signature)
			}
		}
		return outOfReach(want, best)
	}
	boundedBy := func(peer, key string, want float64) string {
		var best []float64
		for _, n := range clientCounts {
			theirs := r.samples[row{peer, key, n}]
			for i, s := range r.samples[row{outside, key, n}] {
				if i < len(theirs) {
					best = append(best, s.limits.bound/theirs[i].perCPU())
				}
			}
		}
		return outOfReach(want, best)
	}
	const noPeers = "the peers were left out"
	group := target{name: "commits waited for / not waited for, P-256", want: 0.8, unit: "x"}
	if v := r.ratio(row{inside, p256, 32}, row{hasty, p256, 32}, sample.rate); v > 0 {
		group.reached = []figure{{v, "(32 clients)"}}
	}
	return []target{
		{name: "RSA-2048 in process, per CPU-s, / bare signature", want: least, unit: "x", reached: own(rsa2048), remark: bounded(rsa2048, least)},
		{name: "P-384 in process, per CPU-s, / bare signature", want: most, unit: "x", reached: own(p384), remark: bounded(p384, most)},
		group,
		{name: "RSA-2048 over HTTP, certs/s, / " + stepCA, want: rsa, unit: "x", reached: against(stepCA, rsa2048), missing: noPeers, remark: boundedBy(stepCA, rsa2048, rsa)},
		{name: "RSA-2048 over HTTP, certs/s, / " + cfssl, want: rsa, unit: "x", reached: against(cfssl, rsa2048), missing: noPeers, remark: boundedBy(cfssl, rsa2048, rsa)},
		{name: "P-256 over HTTP, certs/s, / " + stepCA, want: ec, unit: "x", reached: against(stepCA, p256), missing: noPeers, remark: boundedBy(stepCA, p256, ec)},
	}
}

// flat is how much of its first quarter's average resident memory a process may hold on average in the last.
const flat = 1.1

func memoryTarget(n int, prints []footprint) target {
	t := target{name: "resident memory, last quarter / first quarter", want: flat, atMost: true, unit: "x", missing: "see -memory"}
	if len(prints) > 0 {
		first, last := quarters(prints)
		t.reached = []figure{{last.resident / first.resident, fmt.Sprintf("(%d certificates: %.0f MiB, then %.0f; heap %.0f, then %.0f)", n, first.resident, last.resident, first.heap, last.heap)}}
	}
	return t
}

func eventsTarget(took time.Duration) target {
	return target{name: fmt.Sprintf("%d register events over HTTP", eventCount), want: 60, atMost: true, unit: "s", reached: []figure{{took.Seconds(), "s"}}}
}
