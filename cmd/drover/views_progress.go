package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"drover/coordinator/api"
	workerapi "drover/worker/api"
)

// migrationProgress is a migration under way.
type migrationProgress api.Migration

func (v migrationProgress) text(w io.Writer) { fmt.Fprintln(w, v.line()) }

func (v migrationProgress) stage() string { return fmt.Sprintf("%s %d", v.Phase, v.Progress.Round) }

func (v migrationProgress) line() string {
	return strings.Join(append([]string{time.Now().Format("15:04:05"), v.Workload, string(v.Phase)}, v.details()...), "  ")
}

// details are the figures that are known.
func (v migrationProgress) details() (parts []string) {
	p := v.Progress
	say := func(known bool, format string, args ...any) {
		if known {
			parts = append(parts, fmt.Sprintf(format, args...))
		}
	}
	say(p.Round > 0, "round %d", p.Round)
	say(p.PagesTotal > 0, "%s pages left of %s", count(p.PagesLeft), count(p.PagesTotal))
	say(p.WireBytes > 0, "%s sent", bytesOf(p.WireBytes))
	say(p.Rate > 0, "%s", rateOf(p.Rate))
	say(p.Limit > 0, "of %s allowed", rateOf(float64(p.Limit)))
	say(p.Throttle > 0, "slowed down by %d%%", p.Throttle)
	say(p.BlackoutGuess > 0 && v.Blackout == 0, "blackout ~%s", span(p.BlackoutGuess))
	say(p.TimeLeft > 0, "~%s left", span(p.TimeLeft))
	say(v.Blackout > 0, "blackout %s", span(v.Blackout))
	say(v.Filling != nil, "%s", filledText(v.Filling))
	say(v.Reason != "", "%s", v.Reason)
	return parts
}

// filledText says how much memory is in place on the target.
func filledText(f *workerapi.Filling) string {
	if f == nil {
		return ""
	}
	return fmt.Sprintf("%s of %s of its memory in place", bytesOf(f.Done), bytesOf(f.All))
}

func (v migrationProgress) block() []string {
	p := v.Progress
	rounds := "copying has not begun"
	if p.Round > 0 {
		rounds = fmt.Sprintf("round %d of at most %d", p.Round, v.Options.MaxRounds)
		if p.Tracker != "" {
			rounds += fmt.Sprintf(", tracker %s, compression %s", p.Tracker, orDash(p.Compression))
		}
	}
	if p.Throttle > 0 {
		rounds += fmt.Sprintf("; slowed down by %d%%", p.Throttle)
	}
	guess := "unknown yet"
	if p.BlackoutGuess > 0 {
		guess = "~" + span(p.BlackoutGuess)
	}
	left := "unknown yet"
	if p.TimeLeft > 0 {
		left = "~" + span(p.TimeLeft)
	}
	blackout := fmt.Sprintf("  blackout if cut over now %s   time left %s", guess, left)
	if v.Blackout > 0 {
		blackout = "  blackout " + span(v.Blackout)
	}
	if v.Filling != nil {
		blackout += ", " + filledText(v.Filling)
	}
	return []string{
		fmt.Sprintf("%s  %s → %s  %s  %s", v.Workload, v.Source, v.Target, v.Phase, span(lasted(api.Migration(v)).Truncate(time.Second))),
		"  " + rounds,
		fmt.Sprintf("  %s %s of %s pages left", bar(p.PagesTotal-min(p.PagesLeft, p.PagesTotal), p.PagesTotal, 24), count(p.PagesLeft), count(p.PagesTotal)),
		fmt.Sprintf("  %s pages, %s on the wire at %s; the tree dirties %s pages/s", count(p.PagesSent), bytesOf(p.WireBytes), rateOf(p.Rate), count(uint64(p.DirtyRate))),
		blackout,
	}
}

// planProgress is a plan under way.
type planProgress api.Plan

func (v planProgress) text(w io.Writer) { fmt.Fprintln(w, v.line()) }

// states counts a plan's moves.
func (v planProgress) states() string {
	n := map[string]int{}
	for _, item := range v.Items {
		n[item.State]++
	}
	var parts []string
	for _, state := range []string{"moved", "moving", "waiting", "failed", "skipped", "moved-back"} {
		if n[state] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n[state], state))
		}
	}
	return strings.Join(parts, ", ")
}

func (v planProgress) stage() string { return string(v.State) + v.states() }

func (v planProgress) line() string {
	line := fmt.Sprintf("%s  plan %s  %s  %s", time.Now().Format("15:04:05"), v.Spec.Name, v.State, v.states())
	for _, item := range v.Items {
		if item.State == "moving" {
			line += fmt.Sprintf("  %s %s → %s", item.Workload, item.From, item.To)
		}
	}
	return line
}

// shown bounds how many moves are drawn in place.
const shown = 20

func (v planProgress) block() []string {
	lines := []string{fmt.Sprintf("plan %s  %s  %s", v.Spec.Name, v.State, v.states())}
	for _, item := range v.Items {
		if len(lines) > shown {
			return append(lines, fmt.Sprintf("  … %d in all", len(v.Items)))
		}
		if item.State == "moved" && len(v.Items) > shown {
			continue
		}
		lines = append(lines, fmt.Sprintf("  %-10s %s  %s → %s  %s", item.State, item.Workload, orDash(item.From), item.To, item.Reason))
	}
	return lines
}
