package report

import (
	"cmp"
	"slices"
)

// spread is what is said of several measurements of the same thing.
type spread struct {
	n                int
	median, min, max float64
}

// spreadOf sums up figures; of an even number the median is the mean of the middle two.
func spreadOf(figures []float64) spread {
	if len(figures) == 0 {
		return spread{}
	}
	f := slices.Sorted(slices.Values(figures))
	n := len(f)
	return spread{n: n, median: (f[(n-1)/2] + f[n/2]) / 2, min: f[0], max: f[n-1]}
}

// series are the runs of one case by one method.
type series struct {
	Case
	method string
	runs   []Run // that got through
	failed []string
}

// of sums up one property of the runs; runs without it do not count.
func (s series) of(property func(Run) (float64, bool)) spread {
	var f []float64
	for _, r := range s.runs {
		if v, ok := property(r); ok {
			f = append(f, v)
		}
	}
	return spreadOf(f)
}

func blackout(r Run) (float64, bool) { return float64(r.Blackout), true }
func gap(r Run) (float64, bool)      { return float64(r.Gap), true }
func total(r Run) (float64, bool)    { return float64(r.Total), true }
func wire(r Run) (float64, bool)     { return float64(r.Wire), true }
func memory(r Run) (float64, bool)   { return float64(r.Memory), true }
func rounds(r Run) (float64, bool)   { return float64(r.Copying()), r.Method != Baseline }
func predicted(r Run) (float64, bool) {
	return float64(r.Predicted), r.Predicted > 0
}

// grouped puts runs together that belong together, cases in order of program, link, load and size, methods as they came.
func grouped(runs []Run) []series {
	var all []series
	for _, r := range runs {
		i := slices.IndexFunc(all, func(s series) bool { return s.Case == r.Case && s.method == r.Method })
		if i < 0 {
			i = len(all)
			all = append(all, series{Case: r.Case, method: r.Method})
		}
		if r.Failed != "" {
			all[i].failed = append(all[i].failed, r.Failed)
			continue
		}
		all[i].runs = append(all[i].runs, r)
	}
	slices.SortStableFunc(all, func(a, b series) int {
		return cmp.Or(-cmp.Compare(a.Program, b.Program), cmp.Compare(a.Link, b.Link), cmp.Compare(a.Load, b.Load), cmp.Compare(a.Size, b.Size))
	})
	return all
}

// find are the series that a condition holds for.
func find(all []series, holds func(series) bool) []series {
	var found []series
	for _, s := range all {
		if len(s.runs) > 0 && holds(s) {
			found = append(found, s)
		}
	}
	return found
}
