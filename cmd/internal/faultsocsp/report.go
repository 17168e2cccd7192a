package main

import (
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// A row is a scenario with what came of it.
type row struct {
	sc    scenario
	tally *tally
	note  string
}

// refused returns the refusals where an answer was possible.
func (r row) refused() (out []refusal) {
	for _, one := range r.tally.refusals {
		if r.sc.excuse == nil || !r.sc.excuse(r.tally, one) {
			out = append(out, one)
		}
	}
	return out
}

// recovered returns how long after the fault's end the last trouble was: a refusal, excused or not, of a responder that
// must see changes, or a change that was seen later than the bound.
func (r row) recovered() time.Duration {
	last := r.tally.healed
	for _, one := range r.tally.refusals {
		if one.responder < 3 {
			last = max(last, one.at)
		}
	}
	for _, s := range r.tally.sights {
		if s.committed > r.tally.fault && s.seen-s.committed > int64(bound) {
			last = max(last, s.seen)
		}
	}
	return time.Duration(last - r.tally.healed)
}

// broken lists the promises that did not hold.
func (r row) broken() (out []string) {
	t := r.tally
	for _, p := range []struct {
		bad  bool
		what string
	}{
		{t.answers == 0, "nobody answered"},
		{t.stale > 0, fmt.Sprintf("%d stale answers", t.stale)},
		{t.wrong > 0, fmt.Sprintf("%d wrong answers", t.wrong)},
		{len(r.refused()) > 0, fmt.Sprintf("%d refusals where an answer was possible", len(r.refused()))},
		{t.unseen > 0, fmt.Sprintf("%d changes that were never seen", t.unseen)},
		{r.recovered() > recovery, fmt.Sprintf("not well again within %v", recovery)},
	} {
		if p.bad {
			out = append(out, p.what)
		}
	}
	return out
}

// target is what a change may take to be seen, for 99 of a hundred.
func (r row) target() time.Duration {
	if r.sc.name == "healthy" {
		return 50 * time.Millisecond
	}
	return bound
}

// report prints the table and, below, what broke.
func report(w io.Writer, rows []row, seed uint64, load string) {
	if len(rows) == 0 {
		return
	}
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight|tabwriter.Debug)
	cells := []string{"fault", "answers", "stale", "wrong", "refused while possible", "refused in all", "recovery s", "changes", "visible p50/p99/max ms", "responder 1", "responder 2", "responder 3", "target ms", "held"}
	_, _ = fmt.Fprintln(tab, strings.Join(cells, "\t"))
	for _, r := range rows {
		all := r.tally.visible(-1)
		held, met := "yes", "yes"
		if len(r.broken()) > 0 {
			held = "NO"
		}
		if quantile(all, 0.99) > r.target() {
			met = "no"
		}
		cells := []string{
			r.sc.fault, fmt.Sprint(r.tally.answers), fmt.Sprint(r.tally.stale), fmt.Sprint(r.tally.wrong), fmt.Sprint(len(r.refused())), fmt.Sprint(len(r.tally.refusals)),
			fmt.Sprintf("%.1f", r.recovered().Seconds()), fmt.Sprint(len(all)), spread(all), spread(r.tally.visible(0)), spread(r.tally.visible(1)), spread(r.tally.visible(2)),
			fmt.Sprintf("%d %s", r.target().Milliseconds(), met), held,
		}
		_, _ = fmt.Fprintln(tab, strings.Join(cells, "\t"))
	}
	_ = tab.Flush()
	_, _ = fmt.Fprintf(w, `
stale: the question was sent more than %v after the commit had returned, and the answer did not know. wrong: what cannot be
true, as good for a number that was never issued. visible: from the return of the commit to the first answer that says it,
asked every %v. recovery: from the fault's end to the last refusal or change that took more than %v to be seen. target: for
p99, and no promise. Clocks and keys are broken in a build of the program that has these faults in it. Seed %d.
%d processors; load averages at the end %s. Where they are above the processors, times say more about other work than about us.
`, bound, watchClosely, bound, seed, runtime.GOMAXPROCS(0), load)
	for _, r := range rows {
		if r.sc.remark != "" || r.note != "" {
			_, _ = fmt.Fprintf(w, "%s: %s\n", r.sc.name, strings.Trim(r.sc.remark+"; "+r.note, "; "))
		}
	}
	for _, r := range rows {
		for _, what := range r.broken() {
			_, _ = fmt.Fprintf(w, "BROKEN %s: %s\n", r.sc.name, what)
		}
		for _, e := range r.tally.examples {
			_, _ = fmt.Fprintf(w, "   %s\n", e)
		}
		why := map[string]int{}
		for _, one := range r.refused() {
			what := "issued"
			if one.issued == 0 {
				what = "never issued"
			}
			why[fmt.Sprintf("responder %d: %s after %.1f s, about a number %s, %.1f s after the fault began", one.responder+1, one.why, one.took.Seconds(), what, float64(one.at-r.tally.fault)/1e9)]++
		}
		for i, key := range slices.Sorted(maps.Keys(why)) {
			if i == 5 {
				_, _ = fmt.Fprintf(w, "   … %d kinds\n", len(why))
				break
			}
			_, _ = fmt.Fprintf(w, "   %d x %s\n", why[key], key)
		}
	}
}

// spread is p50, p99 and maximum in milliseconds.
func spread(sorted []time.Duration) string {
	if len(sorted) == 0 {
		return "-"
	}
	ms := func(q float64) string { return fmt.Sprintf("%.0f", float64(quantile(sorted, q).Microseconds())/1000) }
	return ms(0.5) + "/" + ms(0.99) + "/" + ms(1)
}
