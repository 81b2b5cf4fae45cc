package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// table writes columns; cells of a row that is shorter than the head stay empty.
func table(w io.Writer, head string, rows [][]string) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, strings.ReplaceAll(head, " ", "\t"))
	for _, row := range rows {
		fmt.Fprintln(t, strings.Join(row, "\t"))
	}
	t.Flush()
}

// fact writes one line of a description, if there is something to say.
func fact(w io.Writer, name, value string) {
	if value != "" {
		fmt.Fprintf(w, "%-12s %s\n", name, value)
	}
}

// bytesOf is a size for people: 0 B, 12.3 MB, 1.2 GB.
func bytesOf[N int64 | uint64 | float64](n N) string {
	v, unit := float64(n), "B"
	for _, u := range []string{"kB", "MB", "GB", "TB"} {
		if v < 1000 {
			break
		}
		v, unit = v/1000, u
	}
	if unit == "B" || v >= 100 {
		return fmt.Sprintf("%.0f %s", v, unit)
	}
	return fmt.Sprintf("%.1f %s", v, unit)
}

// rateOf is bytes a second for people.
func rateOf(bytesPerSecond float64) string { return bytesOf(bytesPerSecond) + "/s" }

// count is a number with its thousands apart.
func count(n uint64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// span is a duration for people: as exact as it matters at its length.
func span(d time.Duration) string {
	switch {
	case d < 0:
		return "-" + span(-d)
	case d < time.Millisecond:
		return d.Round(time.Microsecond).String()
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

// since is how long ago t was, or "" if it never was.
func since(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return span(time.Since(t).Truncate(time.Second)) + " ago"
}

// until is the day until which something is good, or "" if that is not known.
func until(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return "until " + t.Local().Format("2006-01-02 15:04")
}

// clock is a time of day for progress, the date with it when it was not today.
func clock(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	t = t.Local()
	if time.Since(t) > 20*time.Hour || time.Until(t) > 20*time.Hour {
		return t.Format("2006-01-02 15:04:05")
	}
	return t.Format("15:04:05")
}

func plural(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	if strings.HasSuffix(one, "s") {
		one += "e"
	}
	return fmt.Sprintf("%d %ss", n, one)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// bar is how much of a whole is done.
func bar(done, whole uint64, width int) string {
	filled := 0
	if whole > 0 {
		filled = int(min(done, whole) * uint64(width) / whole)
	}
	return "[" + strings.Repeat("█", filled) + strings.Repeat("·", width-filled) + "]"
}
