package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

func medianOf(samples []sample, figure func(sample) float64) float64 {
	if len(samples) == 0 {
		return 0
	}
	var values []float64
	for _, s := range samples {
		values = append(values, figure(s))
	}
	return median(values)
}

func perCPU(s sample) float64 { return s.perCPU }
func slow(s sample) float64   { return s.P99 }

// ratio is the median of what a row reached against another in the same round; 0 if one of them was not measured.
func (b *bench) ratio(x, y row, figure func(sample) float64) float64 {
	var values []float64
	over := b.samples[y]
	for i, s := range b.samples[x] {
		if i < len(over) && figure(over[i]) > 0 && !s.void && !over[i].void {
			values = append(values, figure(s)/figure(over[i]))
		}
	}
	if len(values) == 0 {
		return 0
	}
	return median(values)
}

// table writes medians, and the limits that were measured.
func (b *bench) table(w io.Writer) {
	fmt.Fprintf(w, "%-29s %-6s %5s %10s %10s %8s %8s %8s %9s %7s\n", "", "method", "conns", "requests/s", "per CPU-s", "/ nginx", "p50 ms", "p99 ms", "as meant", "failed")
	order := slices.Clone(b.order)
	slices.SortStableFunc(order, func(x, y row) int { return b.first(x) - b.first(y) })
	for i, at := range order {
		if i > 0 && order[i-1].what != at.what && (at.connections != "50" || at.what == nginxMemory || b.first(at) != b.first(order[i-1])) {
			if !strings.HasPrefix(at.what, "of ") || !strings.HasPrefix(order[i-1].what, "of ") {
				fmt.Fprintln(w)
			}
		}
		samples := b.samples[at]
		over := fmt.Sprintf("%.2f", b.ratio(at, row{nginxMemory, at.method, at.connections}, perCPU))
		if at.what == openSSL {
			over = ""
		}
		meant, failed := "", 0
		if m := medianOf(samples, func(s sample) float64 { return s.meant }); m > 0 {
			meant = fmt.Sprintf("%.1f %%", 100*m)
		}
		for _, s := range samples {
			failed += s.Failed
		}
		fmt.Fprintf(w, "%-29s %-6s %5s %10.0f %10.0f %8s %8.2f %8.2f %9s %7d\n", at.what, at.method, at.connections,
			medianOf(samples, func(s sample) float64 { return s.Rate }), medianOf(samples, perCPU), over,
			medianOf(samples, func(s sample) float64 { return s.P50 / 1000 }), medianOf(samples, func(s sample) float64 { return s.P99 / 1000 }), meant, failed)
	}
	signed := b.signing()
	fmt.Fprintf(w, "\nWithout HTTP, per CPU-second: %.0f bare P-256 signatures with randomness, as we sign; %.0f without; %.0f answers built and signed\n", signed.bare, signed.fixed, signed.answers)
	if peer, front := b.samples[row{openSSL, "POST", "2"}], b.samples[row{hit, "POST", "50"}]; len(peer) > 0 && len(front) > 0 {
		theirs := medianOf(peer, perCPU)
		bound := 1 / (1/medianOf(front, perCPU) + 1/signed.bare)
		fmt.Fprintf(w, "openssl ocsp spends %.0f µs on a request; a cache hit and a bare signature, %.0f µs together, would be %.1f x as many requests\n", 1e6/theirs, 1e6/bound, bound/theirs)
	}
	fmt.Fprintf(w, "\n%-14s %16s %16s %14s\n", "certificates", "MiB, answers kept", "MiB, none kept", "ready after s")
	for _, z := range b.sizes {
		fmt.Fprintf(w, "%-14.0e %16.0f %16.0f %14.2f\n", float64(z.count), z.hot.resident(), z.cold.resident(), z.hot.ready.Seconds())
	}
	fmt.Fprint(w, `
per CPU-s: requests for a second of the server's processes, with Redis' for those on Redis. "/ nginx" is to nginx answering
from memory in the same round; a round in which fewer than 95 % were as meant does not count there. "as meant" is the share of our answers that came from where the row says: the shelf in the
process, Redis, or the key. Every server was asked some questions before each measurement and its answers' signatures and
statuses were right; nginx sends the same octets always, and the file by GET only. openssl serves one request a connection and is asked by a client
of our own, two connections at once: one that is opened without a request, as wrk does first, would block it. Servers share one processor, wrk has another.
`)
}

func (b *bench) first(at row) int {
	return slices.IndexFunc(b.order, func(o row) bool { return o.what == at.what })
}

// signing is how many signatures and signed answers a second of a processor makes.
func (b *bench) signing() rates {
	of := func(figure func(rates) float64) float64 {
		var values []float64
		for _, r := range b.rates {
			values = append(values, figure(r))
		}
		return median(values)
	}
	return rates{of(func(r rates) float64 { return r.bare }), of(func(r rates) float64 { return r.fixed }), of(func(r rates) float64 { return r.answers })}
}

// A goal is a figure to be reached.
type goal struct {
	name    string
	want    float64
	atMost  bool
	reached []figure // each has to
	missing string   // why there is none
}

type figure struct {
	value float64
	at    string
}

func (g goal) met() bool {
	return !slices.ContainsFunc(g.reached, func(f figure) bool { return g.atMost && f.value > g.want || !g.atMost && f.value < g.want })
}

// String is a line of the list.
func (g goal) String() string {
	sign := "at least"
	if g.atMost {
		sign = "at most"
	}
	line := fmt.Sprintf("%-66s %-8s %5.4g x", g.name, sign, g.want)
	if len(g.reached) == 0 {
		return line + "   -    not measured: " + g.missing
	}
	var figures []string
	for _, f := range g.reached {
		figures = append(figures, strings.TrimSpace(fmt.Sprintf("%.3g %s", f.value, f.at)))
	}
	verdict := "no "
	if g.met() {
		verdict = "yes"
	}
	return line + "   " + verdict + "  " + strings.Join(figures, ", ")
}

// targets are the figures that this run was for.
func (b *bench) targets() []goal {
	each := func(f func(method, n string) float64) (out []figure) {
		for _, method := range methods {
			for _, n := range connections {
				if v := f(method, n); v > 0 {
					out = append(out, figure{v, "(" + method + " " + n + ")"})
				}
			}
		}
		return out
	}
	against := func(what, peer string) []figure {
		return each(func(method, n string) float64 {
			return b.ratio(row{what, method, n}, row{peer, method, n}, perCPU)
		})
	}
	const noPeers = "the peers that have to be built were left out"
	out := []goal{
		{name: "cache hit / nginx from memory", want: 0.9, reached: against(hit, nginxMemory)},
		{name: "cache hit / nginx with a file (by GET)", want: 1.6, reached: each(func(method, n string) float64 {
			return b.ratio(row{hit, method, n}, row{nginxFile, "GET", n}, perCPU)
		})},
		{name: "cache hit / cfssl from a file", want: 7, reached: against(hit, cfssl), missing: noPeers},
		{name: "all from Redis / net/http + go-redis, with Redis' time", want: 2.3, reached: against(fromRedis, plainRedis)},
		{name: "all from Redis / goroutines + rueidis, with Redis' time", want: 0.9, reached: against(fromRedis, bareRedis)},
		{name: "all signed / bound of cache hit and bare signature", want: 0.85, reached: each(b.ofBound)},
		{name: "all signed / openssl ocsp -multi 2", want: 10, reached: each(func(method, n string) float64 {
			return b.ratio(row{live, method, n}, row{openSSL, "POST", "2"}, perCPU)
		})},
		{name: "built and signed without HTTP / bare signature", want: 0.9, reached: b.ofSignature()},
		{name: "cache hit / of the other build", want: 1, reached: against(hit, otherHit)},
		{name: "all signed / of the other build", want: 1, reached: against(live, otherLive)},
		{name: "p99 of a cache hit at 200 connections / nginx with a file (by GET)", want: 1, atMost: true, reached: b.slowness()},
	}
	out = slices.DeleteFunc(out, func(g goal) bool { return b.other == "" && strings.HasSuffix(g.name, "other build") })
	if b.only != "" {
		return slices.DeleteFunc(out, func(g goal) bool { return len(g.reached) == 0 })
	}
	var kept, anyOf []figure
	for _, z := range b.sizes[1:] {
		at := fmt.Sprintf("(%.0e)", float64(z.count))
		kept = append(kept, figure{b.ratio(row{hotOf(z.count), "POST", "50"}, row{hotOf(asked), "POST", "50"}, perCPU), at})
		anyOf = append(anyOf, figure{b.ratio(row{coldOf(z.count), "POST", "50"}, row{coldOf(asked), "POST", "50"}, perCPU), at})
	}
	return append(out,
		goal{name: "cache hit among many certificates / among 10,000", want: 0.9, reached: kept},
		goal{name: "any certificate of many, signed / of 10,000", want: 0.9, reached: anyOf})
}

// ofBound compares answers that are all signed with what HTTP and a signature cost apart. Rates of signing were measured
// before each pair of method and connections, in their order.
func (b *bench) ofBound(method, n string) float64 {
	turns := len(methods) * len(connections)
	turn := slices.Index(connections, n)*len(methods) + slices.Index(methods, method)
	front := b.samples[row{hit, method, n}]
	var values []float64
	for i, s := range b.samples[row{live, method, n}] {
		if i >= len(front) {
			return 0
		}
		bound := 1 / (1/front[i].perCPU + 1/b.rates[i*turns+turn].bare)
		values = append(values, s.perCPU/bound)
	}
	if len(values) == 0 {
		return 0
	}
	return median(values)
}

// ofSignature compares answers that are built and signed with bare signatures of the same turn.
func (b *bench) ofSignature() []figure {
	var values []float64
	for _, r := range b.rates {
		values = append(values, r.answers/r.bare)
	}
	return []figure{{median(values), ""}}
}

func (b *bench) slowness() (out []figure) {
	for _, method := range methods {
		if v := b.ratio(row{hit, method, "200"}, row{nginxFile, "GET", "200"}, slow); v > 0 {
			out = append(out, figure{v, "(" + method + ")"})
		}
	}
	return out
}
