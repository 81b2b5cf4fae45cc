package report

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// bytesText is a number of bytes for people, in binary units.
func bytesText(n float64) string {
	for _, u := range []struct {
		name string
		is   float64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n >= u.is {
			return figure(n/u.is) + " " + u.name
		}
	}
	return figure(n) + " B"
}

// millisText is a time for people.
func millisText(ms float64) string {
	if ms >= 10_000 {
		return figure(ms/1000) + " s"
	}
	return figure(ms) + " ms"
}

// percentText is a part of one, as per cent.
func percentText(part float64) string { return figure(100*part) + " %" }

// figure is a number with three digits that count, or all there are before the point.
func figure(f float64) string {
	switch a := max(f, -f); {
	case a >= 99.95 || f == math.Trunc(f):
		return strconv.FormatFloat(f, 'f', 0, 64)
	case a >= 9.995:
		return strconv.FormatFloat(f, 'f', 1, 64)
	}
	return strconv.FormatFloat(f, 'f', 2, 64)
}

// bitsText is a rate in bits a second for people.
func bitsText(rate float64) string {
	if rate >= 1e9 {
		return figure(rate/1e9) + " Gbit/s"
	}
	return figure(rate/1e6) + " Mbit/s"
}

// loadText says what a case's program does.
func (c Case) loadText() string {
	switch c.Program {
	case "dirtier":
		return fmt.Sprintf("%g %% of it a second", c.Load)
	case "redis":
		return fmt.Sprintf("%g writes/s", c.Load)
	}
	return "–"
}

// movesText is how many moves there were, and how many did not get through.
func (s series) movesText() string {
	if len(s.failed) == 0 {
		return fmt.Sprint(len(s.runs))
	}
	return fmt.Sprintf("%d, %d failed", len(s.runs), len(s.failed))
}

// text says all of a spread: one figure alone, or the median with the least and the greatest.
func (s spread) text(words func(float64) string) string {
	if s.n == 0 {
		return "–"
	}
	median, least, most := words(s.median), words(s.min), words(s.max)
	if least == most {
		return median
	}
	return fmt.Sprintf("%s (%s–%s)", median, least, most)
}

// text is a time of the order of minutes, to the second.
func (m Millis) text() string { return m.Duration().Round(time.Second).String() }
