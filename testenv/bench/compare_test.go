package bench

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"drover/testenv/bench/report"
	"drover/testenv/host"
	"drover/testenv/host/hosttest"
)

// BenchmarkCompare moves the same programs over the same links between the same hosts, by hand and by drover with each tracker
// that works here. -report writes what it found; see options_test.go for what else can be chosen.
func BenchmarkCompare(b *testing.B) {
	chosen, err := studies()
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		began, load := time.Now(), loadAverage(b)
		g := newGround(b)
		d := report.Data{Command: command(), Date: began, Machine: machineData(b, g, load), Best: method(g.trackers[0]), LeftOut: g.leftOut}
		roads := newRoads(g)
		for i, s := range chosen {
			roads.take(b, s.Link)
			progress("%s: case %d of %d: %+v", time.Since(began).Round(time.Second), i+1, len(chosen), s.Case)
			d.Runs = append(d.Runs, g.compare(b, fmt.Sprintf("case%d", i+1), s)...)
		}
		d.Links, d.Loop = roads.known, g.loop
		d.Took = report.InMillis(time.Since(began))
		tell(b, d)
		if *reportTo == "" {
			continue
		}
		whole, err := report.Read(*reportTo)
		if err != nil {
			b.Fatal(err)
		}
		whole.Data = d
		if err := report.Write(*reportTo, whole); err != nil {
			b.Fatal(err)
		}
	}
}

func method(tracker string) string { return "drover " + tracker }

// compare moves one program by every method. What did not get through is in the runs, and fails the benchmark.
func (g *ground) compare(b *testing.B, name string, s study) (all []report.Run) {
	b.Helper()
	if !s.bestOnly {
		m := startByHand(b, g, "by-hand-"+name, s.Case)
		all = append(all, g.moves(b, m, s, g.byHandMethods(), func(method string) { m.method = method })...)
	}
	m := startDrover(b, g, name, s.Case)
	m.cutFor = linkNamed(s.Link).cut
	trackers := g.trackers
	if s.bestOnly {
		trackers = trackers[:1]
	}
	var methods []string
	for _, t := range trackers {
		methods = append(methods, method(t))
	}
	return append(all, g.moves(b, m, s, methods, func(method string) { m.tracker = strings.TrimPrefix(method, "drover ") })...)
}

// moves puts the program under load and moves it several times by each method, then ends it.
func (g *ground) moves(b *testing.B, m mover, s study, methods []string, use func(method string)) (all []report.Run) {
	b.Helper()
	c := s.Case
	g.shape(b, host.Shape{}) // to be filled at once
	var l load
	if isRedis(c) {
		l = loadRedis(b, g, c, m.address())
	} else {
		l = loadSelf(b, m.log)
	}
	by, ok := m.(*byHand)
	if ok && g.loop == 0 && c.Program == "redis" {
		g.loop = bareLoop(b, by.on.Host, by.pid)
	}
	g.shape(b, g.cable)
	for _, method := range methods {
		use(method)
		for range s.times(method == methods[0] && !ok) {
			r, err := once(b.Context(), m, l)
			r.Case, r.Method = c, method
			if err != nil {
				b.Errorf("%s: %v", method, err)
				r.Failed = err.Error()
				progress("    %s: %v", method, err)
				all = append(all, r)
				if ok {
					return all // nobody undoes what was done by hand: the program may be gone
				}
				continue
			}
			progress("    %s: blackout %.1f ms (predicted %.1f), gap %.1f ms, total %.0f ms, %d bytes, %d rounds, slow-down of %.0f to %.0f a second, and %.0f while filled in",
				method, r.Blackout, r.Predicted, r.Gap, r.Total, r.Wire, r.Copying(), r.OpsBefore, r.OpsDuring, r.OpsFilling)
			all = append(all, r)
		}
	}
	if err := errors.Join(l.stop(), m.end(b.Context())); err != nil {
		b.Errorf("after %s of %+v: %v", strings.Join(methods, ", "), c, err)
	}
	return all
}

// once is one move, with what the load saw.
func once(ctx context.Context, m mover, l load) (report.Run, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*hosttest.Patience)
	defer cancel()
	before, err := pace(ctx, l)
	if err != nil {
		return report.Run{}, err
	}
	l.mark()
	s := &sights{ops: l.ops}
	r, err := m.move(ctx, s)
	s.filling(false)
	if err != nil {
		return r, err
	}
	r.OpsBefore, r.OpsDuring, r.OpsFilling = before, s.copied.rate(longCopied), s.filled.rate(longFilled)
	gap, err := l.gap(ctx)
	r.Gap = report.InMillis(gap)
	return r, err
}

// pace is how many operations a second there are when the last move is over for the load, too: TCP may send again later than the
// program answers. A load that nobody counts is given the same time.
func pace(ctx context.Context, l load) (float64, error) {
	const lasts = time.Second
	for ops := l.ops(); ops > 0 && l.ops() == ops; {
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("the load does nothing after the last move: %w", ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
	ops, from := l.ops(), time.Now()
	time.Sleep(lasts)
	return float64(l.ops()-ops) / time.Since(from).Seconds(), nil
}

// Over less than this the rate of operations says nothing: a copy is looked at four times a second.
const (
	longCopied = 300 * time.Millisecond
	longFilled = 100 * time.Millisecond
)

// sights are how a program's operations went in one move.
type sights struct {
	ops            func() int64
	copied, filled watch
	end            chan struct{} // of looking while memory is filled in; nil while nobody does
	ended          chan struct{}
}

// copying is called when the program is copied while it runs, now and then.
func (s *sights) copying() { s.copied.see(s.ops()) }

// filling says whether the released program's memory is being filled in. The look begins with its first operation: how long the client's TCP
// waited before it tried again is not the program's doing.
func (s *sights) filling(now bool) {
	switch {
	case now && s.end == nil:
		s.end, s.ended = make(chan struct{}), make(chan struct{})
		go s.look(s.ops(), s.end, s.ended)
	case !now && s.end != nil:
		close(s.end)
		<-s.ended
		s.end = nil
	}
}

func (s *sights) look(before int64, end, ended chan struct{}) {
	defer close(ended)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		if ops := s.ops(); ops > before {
			s.filled.see(ops)
		}
		select {
		case <-tick.C:
		case <-end:
			return
		}
	}
}

// watch is how operations went between the first and the last look.
type watch struct {
	from, to time.Time
	ops      [2]int64
}

func (w *watch) see(ops int64) {
	w.to, w.ops[1] = time.Now(), ops
	if w.from.IsZero() {
		w.from, w.ops[0] = w.to, ops
	}
}

// rate is a second's; 0 if the looks were too close together to say.
func (w *watch) rate(long time.Duration) float64 {
	if lasted := w.to.Sub(w.from); lasted > long {
		return float64(w.ops[1]-w.ops[0]) / lasted.Seconds()
	}
	return 0
}

// command is how to do this again.
func command() string {
	var chosen []string
	flag.Visit(func(f *flag.Flag) {
		if !strings.HasPrefix(f.Name, "test.") && f.Name != "report" {
			chosen = append(chosen, "-"+f.Name+" "+f.Value.String())
		}
	})
	if len(chosen) == 0 {
		return "make bench-report"
	}
	return "make bench-report BENCH='" + strings.Join(chosen, " ") + "'"
}

// progress says how far it has come: a benchmark's own log comes at its end, and is cut.
func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format("15:04:05 ")+format+"\n", args...)
}

func machineData(b *testing.B, g *ground, load float64) report.Machine {
	b.Helper()
	var u unix.Utsname
	var info unix.Sysinfo_t
	if err := errors.Join(unix.Uname(&u), unix.Sysinfo(&info)); err != nil {
		b.Fatal(err)
	}
	criu := hosttest.Run(b, g.Workers[0].Host, "criu", "--version")
	first, _, _ := strings.Cut(criu, "\n")
	return report.Machine{
		Processor: processor(b), Processors: runtime.NumCPU(), Memory: int64(info.Totalram) * int64(info.Unit),
		Kernel: unix.ByteSliceToString(u.Release[:]), CRIU: strings.TrimPrefix(first, "Version: "), Go: runtime.Version(),
		Drover: hosttest.Commit(b), Load: load,
	}
}

// loadAverage is that of the last minute.
func loadAverage(b *testing.B) float64 {
	b.Helper()
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		b.Fatal(err)
	}
	return float64(info.Loads[0]) / (1 << 16) // fixed point, see sysinfo(2)
}

// tell reports, beside the log, the figure that everything is about.
func tell(b *testing.B, d report.Data) {
	b.Helper()
	for _, r := range d.Runs {
		if r.Failed != "" {
			return // the benchmark has failed and says why
		}
	}
	fmt.Fprint(os.Stderr, report.Moves(d.Runs))
	b.ReportMetric(float64(len(d.Runs)), "moves")
	b.ReportMetric(0, "ns/op")
}
