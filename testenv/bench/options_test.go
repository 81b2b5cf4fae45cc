package bench

import (
	"errors"
	"flag"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"drover/testenv/bench/report"
	"drover/testenv/host"
	"drover/testenv/victims/vital"
)

// What BenchmarkCompare measures. Without any of programs, sizes, loads and links it is the standing selection.
var (
	programs  = flag.String("programs", "", "compare: programs, of redis, dirtier, python, busy (a redis that is asked without pause), repeated (pages)")
	sizes     = flag.String("sizes", "", "compare: memory of the program, as 64M,1G")
	loads     = flag.String("loads", "", "compare: redis: writes a second; dirtier: per cent of its memory a second")
	linkNames = flag.String("links", "", "compare: links, of unlimited, 10g, 1g, 200m, 1g-cut")
	trackers  = flag.String("trackers", "", "compare: drover's trackers, the one to judge by first; else all that work here")
	repeat    = flag.Int("repeat", 0, "compare: moves of each case by each method; 0: 3, and 20 of the headline by the method to judge by")
	headline  = flag.Bool("headline", false, "compare: only the 1 GiB redis with 10,000 writes a second over 10 Gbit/s, only by the method to judge by")
	reportTo  = flag.String("report", "", "compare: folder to write the report to")
)

// link is a cable's shape at both ends of a way, and what -links calls it.
type link struct {
	flag, name string
	shape      host.Shape // of the way; each of its two cables adds half of the delay
	cut        time.Duration
}

var allLinks = []link{
	{flag: "unlimited", name: report.Unlimited},
	{flag: "10g", name: report.TenGigabit, shape: host.Shape{Rate: 10 * host.Gbit}},
	{flag: "1g", name: report.Gigabit, shape: host.Shape{Rate: host.Gbit, Delay: time.Millisecond}},
	{flag: "200m", name: "200 Mbit/s, 30 ms", shape: host.Shape{Rate: 200 * host.Mbit, Delay: 30 * time.Millisecond}},
	{flag: "1g-cut", name: report.GigabitCut, shape: host.Shape{Rate: host.Gbit, Delay: time.Millisecond}, cut: 5 * time.Second},
}

// cable is the shape of each of the two cables of a way.
func (l link) cable() host.Shape {
	s := l.shape
	s.Delay /= 2
	return s
}

func linkNamed(name string) link {
	i := slices.IndexFunc(allLinks, func(l link) bool { return l.name == name || l.flag == name })
	if i < 0 {
		return link{}
	}
	return allLinks[i]
}

// study is a case and by whom it is moved.
type study struct {
	report.Case
	bestOnly bool // only by the method to judge by: it is about drover alone
	most     int  // moves by the method to judge by, where -repeat does not say; 0 is as many as by the others
}

// times is how often it is moved by a method.
func (s study) times(best bool) int {
	switch {
	case *repeat > 0:
		return *repeat
	case best && s.most > 0:
		return s.most
	}
	return 3
}

// product is every combination.
func product(programs []string, sizes []int64, loads map[string][]float64, links []string) (all []study) {
	for _, l := range links {
		for _, p := range programs {
			for _, load := range loads[p] {
				for _, s := range sizes {
					c := report.Case{Program: p, Size: s, Load: load, Link: linkNamed(l).name}
					all = append(all, study{Case: c, bestOnly: linkNamed(l).cut > 0 || p == report.Busy || p == report.Repeated})
				}
			}
		}
	}
	return all
}

const mib = 1 << 20

// theHeadline is the case that everything is about. The worst of its moves counts as well, so that there are many.
func theHeadline() study {
	return study{Case: report.Case{Program: "redis", Size: 1024 * mib, Load: 10_000, Link: report.TenGigabit}, most: 20}
}

// standing is the selection that fits into half an hour and that the figures to reach are judged by.
func standing() []study {
	some := func(program, link string, load float64, sizes ...int64) []study {
		return product([]string{program}, sizes, map[string][]float64{program: {load}}, []string{link})
	}
	return slices.Concat(
		some("redis", "10g", 10_000, 64*mib, 256*mib),
		[]study{theHeadline()},
		some("redis", "10g", 0, 64*mib, 1024*mib, 4096*mib),
		some("python", "10g", 0, 64*mib, 1024*mib),
		some(report.Repeated, "10g", 0, 512*mib),
		some(report.Busy, "10g", 0, 256*mib),
		some("redis", "unlimited", 5_000, 256*mib),
		some("redis", "1g", 5_000, 64*mib),
		some("redis", "1g-cut", 5_000, 64*mib),
		product([]string{"dirtier"}, []int64{64 * mib}, allLoads, []string{"1g"}),
		some("redis", "200m", 5_000, 64*mib),
	)
}

// allLoads are those that are compared, by program.
var allLoads = map[string][]float64{"redis": {0, 5_000, 10_000}, "dirtier": {0.1, 1, 10, 50}, "python": {0}, report.Busy: {0}, report.Repeated: {0}}

// asFlag are programs whose names are long.
var asFlag = map[string]string{"busy": report.Busy, "repeated": report.Repeated}

// studies are what the flags choose.
func studies() ([]study, error) {
	some := *programs+*sizes+*loads+*linkNames != ""
	switch {
	case *headline && some:
		return nil, errors.New("-headline says program, size, load and link by itself")
	case *headline:
		h := theHeadline()
		h.bestOnly = true
		return []study{h}, nil
	case !some:
		return standing(), nil
	}
	chosen, size, load, over := []string{"redis", "dirtier"}, []int64{64 * mib, 256 * mib, 1024 * mib}, allLoads, []string{"10g"}
	if *programs != "" {
		chosen = strings.Split(*programs, ",")
	}
	if *sizes != "" {
		size = nil
		for _, text := range strings.Split(*sizes, ",") {
			var s vital.Size
			if err := s.Set(text); err != nil {
				return nil, fmt.Errorf("-sizes: %w", err)
			}
			size = append(size, int64(s))
		}
	}
	if *loads != "" {
		var same []float64
		for _, text := range strings.Split(*loads, ",") {
			f, err := strconv.ParseFloat(text, 64)
			if err != nil || f < 0 {
				return nil, fmt.Errorf("-loads: %q is no rate", text)
			}
			same = append(same, f)
		}
		load = map[string][]float64{"redis": same, "dirtier": same, "python": {0}, report.Busy: {0}, report.Repeated: {0}}
	}
	if *linkNames != "" {
		over = strings.Split(*linkNames, ",")
	}
	for _, l := range over {
		if linkNamed(l).name == "" {
			return nil, fmt.Errorf("-links: there is no %q", l)
		}
	}
	for i, p := range chosen {
		if long := asFlag[p]; long != "" {
			p, chosen[i] = long, long
		}
		if allLoads[p] == nil {
			return nil, fmt.Errorf("-programs: there is no %q", p)
		}
	}
	return product(chosen, size, load, over), nil
}
