package report

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// plot is a picture of lines over two logarithmic axes.
type plot struct {
	title, across, up string
	xs                []float64 // where the axis has ticks: every x that occurs
	xText, yText      func(float64) string
	lines             []line
}

// line is one line of a plot.
type line struct {
	name   string
	points []point
}

// point is a median with what it was made of.
type point struct {
	x float64
	y spread
}

const (
	width, height           = 760, 420
	left, right, top, below = 80, 24, 44, 110
)

// colours are told apart by people who see red and green alike, too (Okabe and Ito's).
var colours = []string{"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"}

// svg draws the plot; it is "" if there is nothing to draw.
func (p plot) svg() string {
	lowest, highest := math.Inf(1), math.Inf(-1)
	for _, l := range p.lines {
		for _, at := range l.points {
			if at.y.min > 0 {
				lowest, highest = min(lowest, at.y.min), max(highest, at.y.max)
			}
		}
	}
	if math.IsInf(lowest, 1) || len(p.xs) == 0 {
		return ""
	}
	lowest, highest = math.Floor(math.Log10(lowest)), math.Max(math.Ceil(math.Log10(highest)), math.Floor(math.Log10(lowest))+1)
	first, last := math.Log(p.xs[0]), math.Log(p.xs[len(p.xs)-1])
	if first == last {
		first, last = first-1, last+1
	}
	x := func(v float64) float64 { return left + (math.Log(v)-first)/(last-first)*(width-left-right) }
	y := func(v float64) float64 {
		return height - below - (math.Log10(v)-lowest)/(highest-lowest)*(height-top-below)
	}

	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#fff"/>`+"\n", width, height)
	text(&b, width/2, 24, "middle", p.title, `font-size="15"`)
	text(&b, (left+width-right)/2, height-below+42, "middle", p.across, "")
	text(&b, 0, 0, "middle", p.up, fmt.Sprintf(`transform="translate(18 %d) rotate(-90)"`, (top+height-below)/2))
	for decade := lowest; decade <= highest; decade++ {
		v := math.Pow(10, decade)
		fmt.Fprintf(&b, `<path d="M%d %.1fH%d" stroke="#ccc"/>`+"\n", left, y(v), width-right)
		text(&b, left-6, y(v)+4, "end", p.yText(v), "")
	}
	for _, v := range p.xs {
		fmt.Fprintf(&b, `<path d="M%.1f %dv5" stroke="#333"/>`+"\n", x(v), height-below)
		text(&b, x(v), height-below+20, "middle", p.xText(v), "")
	}
	fmt.Fprintf(&b, `<path d="M%d %dV%dH%d" fill="none" stroke="#333"/>`+"\n", left, top, height-below, width-right)
	for i, l := range p.lines {
		l.draw(&b, colours[i%len(colours)], x, y)
		atX, atY := left+float64(i%2)*(width-left)/2, height-below+62+float64(i/2)*16
		fmt.Fprintf(&b, `<path d="M%.0f %.0fh22" stroke="%s" stroke-width="3"/>`+"\n", atX, atY-4, colours[i%len(colours)])
		text(&b, atX+28, atY, "start", l.name, "")
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// draw is the line through the medians, with a bar from the least to the greatest at each.
func (l line) draw(b *strings.Builder, colour string, x, y func(float64) float64) {
	var path strings.Builder
	for _, at := range l.points {
		if at.y.min <= 0 {
			continue
		}
		step := "L"
		if path.Len() == 0 {
			step = "M"
		}
		fmt.Fprintf(&path, "%s%.1f %.1f", step, x(at.x), y(at.y.median))
		fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="3.5" fill="%s"/>`+"\n", x(at.x), y(at.y.median), colour)
		fmt.Fprintf(b, `<path d="M%.1f %.1fV%.1f" stroke="%s"/>`+"\n", x(at.x), y(at.y.min), y(at.y.max), colour)
	}
	fmt.Fprintf(b, `<path d="%s" fill="none" stroke="%s" stroke-width="2"/>`+"\n", path.String(), colour)
}

func text(b *strings.Builder, x, y float64, anchor, words, more string) {
	at := fmt.Sprintf(`x="%.1f" y="%.1f" `, x, y)
	if strings.Contains(more, "transform") {
		at = ""
	}
	fmt.Fprintf(b, `<text %stext-anchor="%s" fill="#222" %s>%s</text>`+"\n", at, anchor, more, html.EscapeString(words))
}
