package drive

import (
	"cmp"
	"slices"

	"drover/coordinator/record"
	workerapi "drover/worker/api"
)

// mostPast bounds what a source is told of past moves.
const mostPast = 16

// Past is what the record's last moves from one host to another took, beside what was expected of them, the newest first.
func Past(s *record.State, source, target string) []workerapi.PastMove {
	var moves []record.Migration
	for _, m := range s.Migrations {
		if m.Source == source && m.Target == target && m.Blackout > 0 && m.Expected.Own > 0 {
			moves = append(moves, m)
		}
	}
	slices.SortFunc(moves, func(a, b record.Migration) int { return cmp.Compare(b.Transitions[0].Index, a.Transitions[0].Index) })
	past := []workerapi.PastMove{}
	for _, m := range moves[:min(len(moves), mostPast)] {
		past = append(past, workerapi.PastMove{Way: m.Expected.Way, Own: m.Expected.Own, Took: max(0, m.Blackout-m.Expected.Link)})
	}
	return past
}
