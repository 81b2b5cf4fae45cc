package report

import (
	"fmt"
	"math"
	"strings"
)

// Moves is every move, for people: of each case by each method the blackouts in the order in which they were measured, their median and the
// worst of them, and how far the predictions were off.
func Moves(runs []Run) string {
	var b strings.Builder
	for _, s := range grouped(runs) {
		fmt.Fprintf(&b, "%s, %s, %s, %s, %s: %s moves\n", s.Program, bytesText(float64(s.Size)), s.loadText(), s.Link, s.method, s.movesText())
		s.tell(&b, "blackout", blackout, millisText)
		s.tell(&b, "client gap", gap, millisText)
		s.tell(&b, "prediction off by", func(r Run) (float64, bool) {
			part, ok := r.PredictionError()
			return math.Abs(part), ok
		}, percentText)
		s.tell(&b, "slow-down while filled in", Run.SlowDownFilling, percentText)
	}
	return b.String()
}

// tell is nothing where no run has the property.
func (s series) tell(b *strings.Builder, what string, property func(Run) (float64, bool), words func(float64) string) {
	sum := s.of(property)
	if sum.n == 0 {
		return
	}
	var each []string
	for _, r := range s.runs {
		if v, ok := property(r); ok {
			each = append(each, words(v))
		}
	}
	fmt.Fprintf(b, "  %s: median %s, worst %s of %d: %s\n", what, words(sum.median), words(sum.max), sum.n, strings.Join(each, ", "))
}
