package ocspload

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"
	"strings"
	"time"
)

//go:embed report.html.tmpl
var reportText string

// WriteReport writes the result as one HTML file with its plots in it; it refers to nothing outside.
func (r *Result) WriteReport(out io.Writer, title string) error {
	t, err := template.New("report").Parse(reportText)
	if err != nil {
		return err
	}
	type stat struct{ Name, Value string }
	stats := []stat{{"answers/s", fmt.Sprintf("%.0f", r.PerSecond())}}
	for _, q := range quantiles {
		stats = append(stats, stat{q.Name, short(r.Latency.Quantile(q.Q))})
	}
	var failed uint64
	for _, n := range r.Errors {
		failed += n
	}
	stats = append(stats, stat{"errors", fmt.Sprint(failed)}, stat{"wrong", fmt.Sprint(r.Wrong)})
	mix := map[State]int{}
	for _, m := range r.Set.messages {
		mix[r.Set.targets[m.target].State]++
	}
	var made []string
	for _, s := range States {
		if mix[s] > 0 {
			made = append(made, fmt.Sprintf("%s %.1f%%", s, 100*float64(mix[s])/float64(len(r.Set.messages))))
		}
	}
	rows := append([]row{{"responder", r.Set.host}, {"requests", fmt.Sprintf("%d different: %s", r.Set.Len(), strings.Join(made, ", "))}}, r.Rows()...)
	return t.Execute(out, map[string]any{
		"Title": title, "Start": r.Start.Format("2006-01-02 15:04:05 MST"), "Stats": stats, "Rows": rows, "Examples": r.Examples, "Warnings": r.Warnings(), "OK": r.Wrong == 0,
		"Quantiles": r.quantilePlot(), "Density": r.densityPlot(), "Rate": r.ratePlot(), "Times": r.timePlot(),
	})
}

// A plot is drawn in a box of width by height with margins for its scales.
type plot struct {
	b      strings.Builder
	x, y   func(float64) float64
	x0, x1 float64
	bottom float64
}

const (
	plotWidth, plotHeight               = 560, 260
	marginLeft, marginRight, marginHead = 62, 28, 16
	marginFoot                          = 40
)

// linear maps a range onto pixels.
func linear(from, to, a, b float64) func(float64) float64 {
	if to <= from {
		to = from + 1
	}
	return func(v float64) float64 { return a + (v-from)/(to-from)*(b-a) }
}

// newPlot makes axes from 0 to x1 and from y0 to y1.
func newPlot(x1, y0, y1 float64, logY bool) *plot {
	p := &plot{x0: marginLeft, x1: plotWidth - marginRight, bottom: plotHeight - marginFoot}
	p.x = linear(0, x1, p.x0, p.x1)
	if logY {
		up := linear(math.Log10(y0), math.Log10(y1), p.bottom, marginHead)
		p.y = func(v float64) float64 { return up(math.Log10(max(v, y0))) }
	} else {
		p.y = linear(y0, y1, p.bottom, marginHead)
	}
	return p
}

// rowLine draws a horizontal line of the grid with its label.
func (p *plot) rowLine(v float64, label string) {
	fmt.Fprintf(&p.b, `<line class="grid" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/><text class="scale" text-anchor="end" x="%.1f" y="%.1f">%s</text>`,
		p.x0, p.x1, p.y(v), p.y(v), p.x0-6, p.y(v)+4, template.HTMLEscapeString(label))
}

// column draws a vertical line of the grid with its label.
func (p *plot) column(v float64, label string) {
	fmt.Fprintf(&p.b, `<line class="grid" x1="%.1f" x2="%.1f" y1="%d" y2="%.1f"/><text class="scale" text-anchor="middle" x="%.1f" y="%.1f">%s</text>`,
		p.x(v), p.x(v), marginHead, p.bottom, p.x(v), p.bottom+16, template.HTMLEscapeString(label))
}

func (p *plot) caption(text string) {
	fmt.Fprintf(&p.b, `<text class="scale" text-anchor="middle" x="%.1f" y="%d">%s</text>`, (p.x0+p.x1)/2, plotHeight-6, template.HTMLEscapeString(text))
}

type point struct{ x, y float64 }

func (p *plot) line(class string, points []point) {
	if len(points) == 0 {
		return
	}
	fmt.Fprintf(&p.b, `<polyline class="%s" points="`, class)
	for _, at := range points {
		fmt.Fprintf(&p.b, "%.1f,%.1f ", p.x(at.x), p.y(at.y))
	}
	p.b.WriteString(`"/>`)
}

func (p *plot) svg(label string) template.HTML {
	return template.HTML(fmt.Sprintf(`<svg viewBox="0 0 %d %d" role="img" aria-label="%s">%s</svg>`, plotWidth, plotHeight, template.HTMLEscapeString(label), p.b.String())) //nolint:gosec // made of numbers and of texts escaped above
}

// decades draws a logarithmic scale of latencies and returns its ends.
func decades(low, high time.Duration) (from, to float64) {
	from = math.Pow(10, math.Floor(math.Log10(max(float64(low), 1000))))
	to = math.Pow(10, math.Ceil(math.Log10(max(float64(high), from*1.01))))
	return from, to
}

func (p *plot) latencyRows(from, to float64) {
	for v := from; v <= to*1.001; v *= 10 {
		p.rowLine(v, roundName(time.Duration(v)))
	}
}

// roundName writes a power of ten of a second's parts.
func roundName(d time.Duration) string {
	switch {
	case d >= time.Second:
		return fmt.Sprintf("%d s", d/time.Second)
	case d >= time.Millisecond:
		return fmt.Sprintf("%d ms", d/time.Millisecond)
	}
	return fmt.Sprintf("%d µs", d/time.Microsecond)
}

// quantilePlot shows latency by the share of answers that were slower, each tenth as wide as the one before.
func (r *Result) quantilePlot() template.HTML {
	from, to := decades(r.Latency.Quantile(0.01), r.Latency.Max)
	p := newPlot(5, from, to, true)
	p.latencyRows(from, to)
	for i, label := range []string{"0", "90%", "99%", "99.9%", "99.99%", "99.999%"} {
		p.column(float64(i), label)
	}
	var line []point
	for x := 0.0; x <= 5; x += 0.02 {
		q := 1 - math.Pow(10, -x)
		if x > 0 && float64(r.Latency.Count)*(1-q) < 1 {
			break
		}
		line = append(line, point{x, float64(r.Latency.Quantile(max(q, 1e-9)))})
	}
	p.line("a", line)
	p.caption("share of answers that came within")
	return p.svg("latency by quantile")
}

// densityPlot shows how many answers took how long, on a logarithmic scale of latencies.
func (r *Result) densityPlot() template.HTML {
	const parts = 16 // of a decade
	from, to := decades(r.Latency.Quantile(0.0001), r.Latency.Max)
	bins := make([]float64, int(math.Round(math.Log10(to/from)*parts))+1)
	var most float64
	for i, n := range r.Latency.counts {
		if n == 0 {
			continue
		}
		bin := int(math.Log10(max(float64(upper(i)), from)/from) * parts)
		bin = min(bin, len(bins)-1)
		bins[bin] += 100 * float64(n) / float64(max(r.Latency.Count, 1))
		most = max(most, bins[bin])
	}
	step := niceStep(most / 4)
	top := math.Ceil(most/step) * step
	p := newPlot(float64(len(bins)-1), 0, top, false)
	for v := 0.0; v <= top*1.001; v += step {
		p.rowLine(v, fmt.Sprintf("%g%%", v))
	}
	for i := 0; i < len(bins); i += parts {
		p.column(float64(i), roundName(time.Duration(from*math.Pow(10, float64(i/parts)))))
	}
	for i, v := range bins {
		if v > 0 {
			x, w := p.x(float64(i)), p.x(1)-p.x(0)
			fmt.Fprintf(&p.b, `<rect class="bar" x="%.1f" y="%.1f" width="%.1f" height="%.1f"/>`, x, p.y(v), max(w-1, 1), max(p.bottom-p.y(v), 0.5))
		}
	}
	p.caption("latency (share of answers in each bar)")
	return p.svg("distribution of latencies")
}

// niceStep rounds up to 1, 2 or 5 times a power of ten.
func niceStep(v float64) float64 {
	if v <= 0 {
		return 1
	}
	unit := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range []float64{1, 2, 5, 10} {
		if v <= m*unit {
			return m * unit
		}
	}
	return 10 * unit
}

func (p *plot) seconds(end float64) {
	step := niceStep(end / 8)
	for v := 0.0; v <= end*1.001; v += step {
		p.column(v, fmt.Sprintf("%g", math.Round(v*1000)/1000))
	}
	p.caption("seconds after the warm-up")
}

// ratePlot shows answers and errors a second over time.
func (r *Result) ratePlot() template.HTML {
	end := r.Duration.Seconds()
	top := r.Rate
	var answers, failed []point
	anyFailed := false
	for _, iv := range r.Intervals {
		x, n := (iv.Begin + iv.Length/2).Seconds(), iv.Length.Seconds()
		answers = append(answers, point{x, float64(iv.Done) / n})
		failed = append(failed, point{x, float64(iv.Errors) / n})
		top, anyFailed = max(top, float64(iv.Done)/n, float64(iv.Errors)/n), anyFailed || iv.Errors > 0
	}
	step := niceStep(top / 4)
	top = max(math.Ceil(top/step), 1) * step
	p := newPlot(end, 0, top, false)
	for v := 0.0; v <= top*1.001; v += step {
		p.rowLine(v, fmt.Sprintf("%g", v))
	}
	p.seconds(end)
	if r.Rate > 0 {
		p.line("due", []point{{0, r.Rate}, {end, r.Rate}})
	}
	p.line("a", answers)
	if anyFailed {
		p.line("bad", failed)
	}
	return p.svg("answers a second over time")
}

// timePlot shows latencies over time.
func (r *Result) timePlot() template.HTML {
	from, to := decades(r.Latency.Quantile(0.2), r.Latency.Max)
	p := newPlot(r.Duration.Seconds(), from, to, true)
	p.latencyRows(from, to)
	p.seconds(r.Duration.Seconds())
	var p50, p99, top []point
	for _, iv := range r.Intervals {
		if iv.Max > 0 {
			x := (iv.Begin + iv.Length/2).Seconds()
			p50, p99, top = append(p50, point{x, float64(iv.P50)}), append(p99, point{x, float64(iv.P99)}), append(top, point{x, float64(iv.Max)})
		}
	}
	p.line("c", top)
	p.line("b", p99)
	p.line("a", p50)
	return p.svg("latency over time")
}
