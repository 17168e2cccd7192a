package main

import (
	"fmt"
	"math"
	"strings"
)

// A plot is a picture of the day, in SVG: seconds to the right, something upward.
type plot struct {
	b         strings.Builder
	seconds   float64
	low, high float64
	log       bool
	drawn     int
}

const (
	plotWidth, plotHeight  = 900.0, 360.0
	plotLeft, plotTop      = 60.0, 30.0
	plotInnerW, plotInnerH = 640.0, 280.0
)

var colours = []string{"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"} // told apart by everybody

// newPlot begins a plot with the parts of the day.
func (l *load) newPlot(title string, low, high float64, log bool) *plot {
	p := &plot{seconds: l.seconds, low: low, high: high, log: log}
	fmt.Fprintf(&p.b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %g %g" font-family="sans-serif" font-size="11"><rect width="100%%" height="100%%" fill="#fff"/>`, plotWidth, plotHeight)
	fmt.Fprintf(&p.b, `<text x="%g" y="16" font-size="13">%s</text>`, plotLeft, title)
	at := 0.0
	for i, h := range l.day {
		fmt.Fprintf(&p.b, `<rect x="%.1f" y="%g" width="%.1f" height="%g" fill="%s"/><text x="%.1f" y="%g">%s</text>`,
			p.x(at), plotTop, p.x(at+h.share*l.seconds)-p.x(at), plotInnerH, []string{"#f4f4f4", "#e9e9e9"}[i%2], p.x(at)+3, plotTop+plotInnerH+28, h.name)
		at += h.share * l.seconds
	}
	for v := math.Pow(10, math.Ceil(math.Log10(low))); v <= high; v *= 10 {
		fmt.Fprintf(&p.b, `<path d="M%g %.1fH%g" stroke="#bbb" stroke-width="0.5"/><text x="%g" y="%.1f" text-anchor="end">%g</text>`, plotLeft, p.y(v), plotLeft+plotInnerW, plotLeft-4, p.y(v)+4, v)
	}
	for i := range 7 {
		s := l.seconds * float64(i) / 6
		fmt.Fprintf(&p.b, `<text x="%.1f" y="%g" text-anchor="middle">%.0f s</text>`, p.x(s), plotTop+plotInnerH+14, s)
	}
	if l.failover && !l.failedAt.IsZero() {
		x := p.x(l.failedAt.Sub(l.began).Seconds())
		fmt.Fprintf(&p.b, `<path d="M%.1f %gV%g" stroke="#c00" stroke-dasharray="4 3"/><text x="%.1f" y="%g" fill="#c00">primary killed</text>`, x, plotTop, plotTop+plotInnerH, x+3, plotTop+12)
	}
	return p
}

func (p *plot) x(seconds float64) float64 { return plotLeft + plotInnerW*seconds/p.seconds }

func (p *plot) y(v float64) float64 {
	v = min(max(v, p.low), p.high)
	part := (v - p.low) / (p.high - p.low)
	if p.log {
		part = math.Log(v/p.low) / math.Log(p.high/p.low)
	}
	return plotTop + plotInnerH*(1-part)
}

// draw adds a line and its name.
func (p *plot) draw(name string, points [][2]float64) {
	colour := colours[p.drawn%len(colours)]
	p.b.WriteString(`<polyline fill="none" stroke-width="1.4" stroke="` + colour + `" points="`)
	for _, at := range points {
		fmt.Fprintf(&p.b, "%.1f,%.1f ", p.x(at[0]), p.y(at[1]))
	}
	y := plotTop + 14 + 18*float64(p.drawn)
	fmt.Fprintf(&p.b, `"/><path d="M%g %gh18" stroke="%s" stroke-width="2"/><text x="%g" y="%g">%s</text>`, plotLeft+plotInnerW+14, y-4, colour, plotLeft+plotInnerW+38, y, name)
	p.drawn++
}

func (p *plot) end() string { return p.b.String() + "</svg>\n" }
