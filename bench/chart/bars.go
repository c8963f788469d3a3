package chart

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// Series is what one bar of each group stands for.
type Series struct {
	Name  string
	Color string
}

// Group is bars that belong together, one value per series. Zero draws no bar
// but the note, or "–".
type Group struct {
	Name   string
	Values []float64
	Notes  []string // by series; may be shorter than Values
}

// Bars is a picture of horizontal bars.
type Bars struct {
	Title  string
	Axis   string // what the axis counts, with its unit
	Series []Series
	Groups []Group
	Format func(float64) string // of the number behind a bar
}

// Measures of the picture, in pixels.
const (
	width     = 900
	left      = 262 // where the bars begin
	right     = 110 // room for the number behind the longest
	top       = 92  // title and legend
	barHeight = 13
	barGap    = 2
	groupGap  = 14
	bottom    = 48 // axis
)

const style = `<style>
text { font: 12px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2328 }
.title { font-size: 16px; font-weight: 600 }
.small { font-size: 11px; fill: #59636e }
.ground { fill: #ffffff }
.grid { stroke: #d1d9e0; stroke-width: 1 }
@media (prefers-color-scheme: dark) {
text { fill: #f0f6fc }
.small { fill: #9198a1 }
.ground { fill: #0d1117 }
.grid { stroke: #3d444d }
}
</style>
`

// SVG returns the picture.
func (b *Bars) SVG() string {
	low, high := b.decades()
	groupHeight := len(b.Series)*(barHeight+barGap) + groupGap
	height := top + len(b.Groups)*groupHeight + bottom
	x := func(v float64) float64 {
		share := (math.Log10(v) - float64(low)) / float64(high-low)
		return left + share*(width-left-right)
	}
	var w strings.Builder
	fmt.Fprintf(&w, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" aria-labelledby="title">`+"\n", width, height)
	fmt.Fprintf(&w, "<title id=\"title\">%s</title>\n", html.EscapeString(b.Title))
	w.WriteString(style)
	fmt.Fprintf(&w, "<rect class=\"ground\" width=\"%d\" height=\"%d\"/>\n", width, height)
	fmt.Fprintf(&w, "<text class=\"title\" x=\"16\" y=\"28\">%s</text>\n", html.EscapeString(b.Title))
	b.legend(&w)
	floor := height - bottom
	for decade := low; decade <= high; decade++ {
		v := math.Pow10(decade)
		fmt.Fprintf(&w, "<line class=\"grid\" x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\"/>\n", x(v), top-6, x(v), floor)
		fmt.Fprintf(&w, "<text class=\"small\" x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%s</text>\n", x(v), floor+16, tick(v))
	}
	fmt.Fprintf(&w, "<text class=\"small\" x=\"%d\" y=\"%d\" text-anchor=\"middle\">%s (logarithmic)</text>\n",
		(left+width-right)/2, floor+36, html.EscapeString(b.Axis))
	for i, g := range b.Groups {
		b.group(&w, g, top+i*groupHeight, x)
	}
	w.WriteString("</svg>\n")
	return w.String()
}

func (b *Bars) group(w *strings.Builder, g Group, y int, x func(float64) float64) {
	middle := y + len(b.Series)*(barHeight+barGap)/2 + 4
	fmt.Fprintf(w, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%s</text>\n", left-10, middle, html.EscapeString(g.Name))
	for i, s := range b.Series {
		at := y + i*(barHeight+barGap)
		end, label := float64(left), "–"
		if i < len(g.Notes) && g.Notes[i] != "" {
			label = g.Notes[i]
		}
		if v := g.Values[i]; v > 0 {
			end, label = x(v), b.Format(v)
			fmt.Fprintf(w, "<rect x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"%d\" rx=\"2\" fill=\"%s\"><title>%s, %s: %s</title></rect>\n",
				left, at, max(end-left, 1), barHeight, s.Color, html.EscapeString(g.Name), html.EscapeString(s.Name), html.EscapeString(label))
		}
		fmt.Fprintf(w, "<text class=\"small\" x=\"%.1f\" y=\"%d\">%s</text>\n", end+5, at+barHeight-3, html.EscapeString(label))
	}
}

func (b *Bars) legend(w *strings.Builder) {
	x := 16
	for _, s := range b.Series {
		fmt.Fprintf(w, "<rect x=\"%d\" y=\"44\" width=\"12\" height=\"12\" rx=\"2\" fill=\"%s\"/>\n", x, s.Color)
		fmt.Fprintf(w, "<text x=\"%d\" y=\"54\">%s</text>\n", x+17, html.EscapeString(s.Name))
		x += 17 + 8*len(s.Name) + 20
	}
}

// decades returns the powers of ten between which all values lie.
func (b *Bars) decades() (low, high int) {
	least, most := math.Inf(1), 0.0
	for _, g := range b.Groups {
		for _, v := range g.Values {
			if v > 0 {
				least, most = min(least, v), max(most, v)
			}
		}
	}
	if most == 0 {
		return 0, 1
	}
	low, high = int(math.Floor(math.Log10(least))), int(math.Ceil(math.Log10(most)))
	return low, max(high, low+1)
}

func tick(v float64) string {
	switch {
	case v >= 1e6:
		return fmt.Sprintf("%g M", v/1e6)
	case v >= 1e3:
		return fmt.Sprintf("%g k", v/1e3)
	}
	return fmt.Sprintf("%g", v)
}
