package report

import (
	"fmt"
	"slices"
)

// picture is a plot's file and what is said of it.
type picture struct {
	file, says string
	plot
}

// pictures are the plots that the data is enough for: a line has two points at least.
func pictures(d Data) []picture {
	all := grouped(d.Runs)
	redis := func(s series) bool { return s.Program == "redis" && s.Link == TenGigabit }
	dirtier := func(s series) bool { return s.Program == "dirtier" }
	bySize := func(s series) float64 { return float64(s.Size) }
	byLoad := func(s series) float64 { return s.Load }
	size := func(s series) string { return fmt.Sprintf("%s, %s", s.method, s.loadText()) }
	load := func(s series) string {
		return fmt.Sprintf("%s, %s, %s", s.method, bytesText(float64(s.Size)), s.Link)
	}
	var out []picture
	for _, p := range []picture{
		{"blackout-memory.svg", "Blackout against memory, redis over " + TenGigabit, draw(find(all, redis), size, bySize, blackout)},
		{"wire-memory.svg", "Bytes on the wire against memory, redis over " + TenGigabit, draw(find(all, redis), size, bySize, wire)},
		{"blackout-dirtier.svg", "Blackout against the part of memory that is rewritten a second, dirtier", draw(find(all, dirtier), load, byLoad, blackout)},
	} {
		p.title, p.across, p.xText = p.says, "memory", bytesText
		p.up, p.yText = "blackout, ms", figure
		switch p.file {
		case "wire-memory.svg":
			p.up, p.yText = "bytes", bytesOfDecade
		case "blackout-dirtier.svg":
			p.across, p.xText = "per cent of memory rewritten a second", func(f float64) string { return fmt.Sprintf("%g %%", f) }
		}
		if len(p.lines) > 0 {
			out = append(out, p)
		}
	}
	return out
}

// bytesOfDecade is for axes, whose ticks are powers of ten.
func bytesOfDecade(n float64) string {
	for _, u := range []struct {
		name string
		is   float64
	}{{"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}} {
		if n >= u.is {
			return figure(n/u.is) + " " + u.name
		}
	}
	return figure(n) + " B"
}

// draw makes a line of all series of one name.
func draw(all []series, name func(series) string, x func(series) float64, y func(Run) (float64, bool)) plot {
	var p plot
	for _, s := range all {
		at := point{x(s), s.of(y)}
		i := slices.IndexFunc(p.lines, func(l line) bool { return l.name == name(s) })
		if i < 0 {
			i = len(p.lines)
			p.lines = append(p.lines, line{name: name(s)})
		}
		p.lines[i].points = append(p.lines[i].points, at)
	}
	p.lines = slices.DeleteFunc(p.lines, func(l line) bool { return len(l.points) < 2 })
	for _, l := range p.lines {
		for _, at := range l.points {
			p.xs = append(p.xs, at.x)
		}
	}
	slices.Sort(p.xs)
	p.xs = slices.Compact(p.xs)
	return p
}
