package report

import (
	"fmt"
	"math"
	"strings"
)

// Names of links that figures speak of.
const (
	Unlimited  = "unlimited"
	TenGigabit = "10 Gbit/s"
	Gigabit    = "1 Gbit/s, 1 ms"
	GigabitCut = "1 Gbit/s, 1 ms, cut for 5 s" // in the first round
)

// Busy is the redis whose client asks it without pause: what its moves cost it can be counted.
const Busy = "redis, asked without pause"

// Repeated is a program whose pages are zero, one half, and all alike, the other.
const Repeated = "zero and repeated pages"

// Verdicts on a figure.
const (
	reached     = "reached"
	missed      = "missed"
	notMeasured = "not measured"
)

// goal is one figure to reach.
type goal struct{ what, want, got, verdict string }

// against decides a goal by one number and a bound.
func (g goal) against(got, most float64, words func(float64) string) goal {
	g.got, g.verdict = words(got), reached
	if got > most {
		g.verdict = missed
	}
	return g
}

// goals judges drover by the method it chooses by itself.
func goals(d Data) []goal {
	all := grouped(d.Runs)
	best := find(all, func(s series) bool { return s.method == d.Best })
	out := headline(all, best)
	out = append(out, growth(best), firstRoundBytes(all, best), repeatedPages(best), laterRounds(best))
	out = append(out, firstRoundRate(d.Loop, best), linkUse(d.Links, best), slowDown(best), sourceMemory(best), cutLink(best), prediction(best))
	for i := range out {
		if out[i].verdict == "" {
			out[i].got, out[i].verdict = "–", notMeasured
		}
	}
	return out
}

// headline is the blackout that the project is about, alone and beside the baseline's.
func headline(all, best []series) []goal {
	const what = "blackout, 1 GiB redis, 10,000 writes/s, 10 Gbit/s"
	typical := goal{what: what + ": median", want: "≤ 120 ms"}
	worst := goal{what: what + ": worst", want: "≤ 250 ms (of 20)"}
	times := goal{what: what + ": times shorter than the baseline's", want: "≥ 30"}
	c := Case{Program: "redis", Size: 1 << 30, Load: 10_000, Link: TenGigabit}
	is := func(s series) bool { return s.Case == c }
	if ours := find(best, is); len(ours) > 0 {
		b := ours[0].of(blackout)
		typical = typical.against(b.median, 120, millisText)
		worst = worst.against(b.max, 250, func(ms float64) string { return fmt.Sprintf("%s of %d", millisText(ms), b.n) })
		if theirs := find(all, func(s series) bool { return is(s) && s.method == Baseline }); len(theirs) > 0 && b.median > 0 {
			ratio := theirs[0].of(blackout).median / b.median
			times = times.against(-ratio, -30, func(f float64) string { return figure(-f) })
		}
	}
	return []goal{typical, worst, times}
}

// growth is by how much the blackout of a redis that nobody writes to grows from its smallest size to its largest.
func growth(best []series) goal {
	g := goal{what: "growth of the blackout with memory (clean pages, freeze, stream and restore together)", want: "≤ 60 ms a GiB"}
	clean := find(best, func(s series) bool { return s.Program == "redis" && s.Load == 0 && s.Link == TenGigabit })
	if len(clean) < 2 {
		return g
	}
	small, large := clean[0], clean[len(clean)-1]
	gibs := float64(large.Size-small.Size) / (1 << 30)
	return g.against((large.of(blackout).median-small.of(blackout).median)/gibs, 60, func(f float64) string {
		return fmt.Sprintf("%s ms a GiB, from %s to %s", figure(f), bytesText(float64(small.Size)), bytesText(float64(large.Size)))
	})
}

// firstRoundBytes compares the first round with what tar and zstd -1 make of the same memory, at rest.
func firstRoundBytes(all, best []series) goal {
	g := goal{what: "bytes on the wire, first round of a redis or a Python heap at rest", want: "≤ those of zstd -1 of the same pages"}
	ratio := math.Inf(-1)
	for _, ours := range find(best, func(s series) bool { return s.Load == 0 && (s.Program == "redis" || s.Program == "python") }) {
		for _, theirs := range find(all, func(s series) bool { return s.Case == ours.Case && s.method == Baseline }) {
			ratio = max(ratio, ours.of(firstWire).median/theirs.of(wire).median)
		}
	}
	if math.IsInf(ratio, -1) {
		return g
	}
	return g.against(ratio, 1, func(f float64) string { return percentText(f) + " of them" })
}

func firstWire(r Run) (float64, bool) {
	first, ok := r.FirstRound()
	return float64(first.Wire), ok
}

// repeatedPages is what pages cost that are zero or all alike, the few of the interpreter that holds them included.
func repeatedPages(best []series) goal {
	g := goal{what: "bytes on the wire of zero and repeated pages", want: "≤ 1 % of their size"}
	for _, s := range find(best, func(s series) bool { return s.Program == Repeated }) {
		if first := s.of(firstWire); first.n > 0 {
			return g.against(first.median/float64(s.Size), 0.01, func(f float64) string { return percentText(f) + ", the interpreter that holds them included" })
		}
	}
	return g
}

// firstRoundRate compares the first round over a link that does not hold it up with a loop that does nothing else.
func firstRoundRate(loop float64, best []series) goal {
	g := goal{what: "rate of the first round of a redis, unlimited link", want: "≥ 70 % of a bare loop that reads, digests and compresses with s2"}
	var parts []float64
	for _, s := range find(best, func(s series) bool { return s.Program == "redis" && s.Link == Unlimited && loop > 0 }) {
		for _, r := range s.runs {
			if first, ok := r.FirstRound(); ok && first.Took > 0 {
				parts = append(parts, float64(first.Pages)*4096/(float64(first.Took)/1000)/loop)
			}
		}
	}
	s := spreadOf(parts)
	if s.n == 0 {
		return g
	}
	return g.against(-s.median, -0.7, func(float64) string {
		return fmt.Sprintf("%s of %s/s", s.text(percentText), bytesText(loop))
	})
}

// laterRounds compares what a rewritten page costs with what the whole page cost in the first round.
func laterRounds(best []series) goal {
	g := goal{what: "bytes of a page in later rounds, redis that is written to", want: "≤ 50 % of those in the first round"}
	var parts []float64
	for _, s := range find(best, func(s series) bool { return s.Program == "redis" && s.Load > 0 }) {
		for _, r := range s.runs {
			if first, ok := r.FirstRound(); ok {
				parts = append(parts, laterCost(r)/(float64(first.Wire)/float64(first.Pages)))
			}
		}
	}
	s := spreadOf(finite(parts))
	if s.n == 0 {
		return g
	}
	return g.against(s.median, 0.5, func(float64) string { return s.text(percentText) })
}

// laterCost is what a page costs, in bytes, after the first round; NaN if there was none.
func laterCost(r Run) float64 {
	var bytes, pages float64
	for _, round := range r.Rounds[1:] {
		bytes, pages = bytes+float64(round.Wire), pages+float64(round.Pages)
	}
	return bytes / pages
}

func finite(all []float64) (out []float64) {
	for _, f := range all {
		if !math.IsNaN(f) && !math.IsInf(f, 0) {
			out = append(out, f)
		}
	}
	return out
}

// linkUse is how much of a link of 1 Gbit/s the first round fills with compressed bytes.
func linkUse(links []Link, best []series) goal {
	g := goal{what: "first round of a redis over 1 Gbit/s, in compressed bytes", want: "≥ 95 % of what the link was seen to carry"}
	var carried float64
	for _, l := range links {
		if l.Name == Gigabit {
			carried = l.Carried
		}
	}
	var parts []float64
	for _, s := range find(best, func(s series) bool { return s.Program == "redis" && s.Link == Gigabit && carried > 0 }) {
		for _, r := range s.runs {
			if first, ok := r.FirstRound(); ok && first.Took > 0 {
				parts = append(parts, float64(first.Wire)*8/(float64(first.Took)/1000)/carried)
			}
		}
	}
	s := spreadOf(parts)
	if s.n == 0 {
		return g
	}
	return g.against(-s.median, -0.95, func(float64) string { return s.text(percentText) })
}

// slowDown is what the copying costs a redis that is asked without pause.
func slowDown(best []series) goal {
	g := goal{what: "slow-down of the program while it is copied", want: "≤ 10 % of its operations"}
	for _, s := range find(best, func(s series) bool { return s.Program == Busy }) {
		lost := s.of(Run.SlowDown)
		if lost.n > 0 {
			return g.against(lost.median, 0.10, func(float64) string { return lost.text(percentText) })
		}
	}
	return g
}

// sourceMemory is the worker's, where it is worst.
func sourceMemory(best []series) goal {
	g := goal{what: "memory of the source's worker, above the tree's", want: "≤ 2 % of the tree + 128 MiB"}
	var worst Run
	over := math.Inf(-1)
	for _, s := range best {
		for _, r := range s.runs {
			if by := float64(r.Memory) - memoryBound(r); r.Memory > 0 && by > over {
				over, worst = by, r
			}
		}
	}
	if math.IsInf(over, -1) {
		return g
	}
	return g.against(over, 0, func(float64) string {
		return fmt.Sprintf("%s, for a tree of %s", bytesText(float64(worst.Memory)), bytesText(float64(worst.Size)))
	})
}

func memoryBound(r Run) float64 { return 0.02*float64(r.Size) + 128<<20 }

// cutLink compares a move whose link was cut with the same move over a whole one.
func cutLink(best []series) goal {
	g := goal{what: "link cut for 5 s in the first round", want: "finishes, and resends ≤ 64 MiB"}
	for _, cut := range find(best, func(s series) bool { return s.Link == GigabitCut }) {
		whole := cut.Case
		whole.Link = Gigabit
		for _, s := range find(best, func(s series) bool { return s.Case == whole }) {
			again := max(0, cut.of(wire).median-s.of(wire).median)
			return g.against(again, 64<<20, func(f float64) string { return "finished, " + bytesText(f) + " more than without" })
		}
	}
	return g
}

// prediction is how far the prediction was off, either way.
func prediction(best []series) goal {
	g := goal{what: "predicted against measured blackout", want: "within 25 %"}
	var off []float64
	for _, s := range best {
		for _, r := range s.runs {
			if part, ok := r.PredictionError(); ok {
				off = append(off, math.Abs(part))
			}
		}
	}
	s := spreadOf(off)
	if s.n == 0 {
		return g
	}
	return g.against(s.median, 0.25, func(float64) string { return "off by " + s.text(percentText) })
}

// failures are the runs that did not get through, and why.
func failures(all []series) []string {
	var out []string
	for _, s := range all {
		for _, why := range s.failed {
			line, _, _ := strings.Cut(why, "\n")
			out = append(out, fmt.Sprintf("%s, %s, %s, %s, %s: %s", s.Program, bytesText(float64(s.Size)), s.loadText(), s.Link, s.method, line))
		}
	}
	return out
}
