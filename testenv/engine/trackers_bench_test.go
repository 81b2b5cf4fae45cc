package engine_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"drover/engine/track"
)

// BenchmarkRounds measures what rounds cost the one who makes them: of a program of which a hundredth is written between two of
// them. Each figure but the first round's is the median of five.
func BenchmarkRounds(b *testing.B) {
	onHost(b, func() {
		for _, name := range []string{"wp", "hash"} {
			for _, megabytes := range []int{200, 1024} {
				b.Run(fmt.Sprintf("%s/%dM", name, megabytes), func(b *testing.B) {
					b.ReportMetric(0, "ns/op")
					measureRounds(b, trackers[name], megabytes)
				})
			}
		}
	}, "./testenv/victims/dirtier")
}

// BenchmarkSlowDown measures what rounds cost a program that writes all its memory of 200 MiB at random, as fast as it can, while a
// round is made each second after the first: by how much fewer pages it writes in a second of its processor time than just before (the
// median of five, and the extremes: the machine's noise is in it), and what share of that time the kernel takes, then and before
// (which is the cost of first writes, without the noise).
func BenchmarkSlowDown(b *testing.B) {
	onHost(b, func() {
		for _, name := range []string{"wp", "hash"} {
			b.Run(name, func(b *testing.B) {
				b.ReportMetric(0, "ns/op")
				measureSlowDown(b, name)
			})
		}
	}, "./testenv/victims/dirtier")
}

func measureRounds(b *testing.B, make makeTracker, megabytes int) {
	set := megabytes * 256 / 100
	v := startOutside(b, "dirtier", "-memory", fmt.Sprintf("%dM", megabytes), "-working-set", fmt.Sprintf("%dK", set*4), "-rate", fmt.Sprint(set*20), "-verify", "0", "-say", "20ms")
	v.works(b)
	tr := make(v.tree)
	laps := map[string][]float64{}
	round := func(what string) {
		st, err := tr.Round(b.Context(), ignore)
		must(b, err)
		laps["ms/"+what] = append(laps["ms/"+what], milliseconds(st.Took))
		laps["pages/"+what] = append(laps["pages/"+what], float64(st.Emitted))
		if st.Stopped > 0 {
			laps["us/stop"] = append(laps["us/stop"], float64(st.Stopped.Nanoseconds())/1000)
		}
	}
	round("first")
	for range 5 {
		v.writes(b, uint64(set*5))
		round("1%")
	}
	v.freeze(b, true) // CRIU would
	for range 5 {
		if exact, ok := tr.(track.Exact); ok {
			c, err := exact.Changed(b.Context())
			must(b, err)
			laps["ms/changed"] = append(laps["ms/changed"], milliseconds(c.Stats().Took))
		}
	}
	v.freeze(b, false)
	begin := time.Now()
	must(b, tr.Close())
	laps["ms/close"] = []float64{milliseconds(time.Since(begin))}
	for what, all := range laps {
		slices.Sort(all)
		b.ReportMetric(all[len(all)/2], what)
	}
}

func measureSlowDown(b *testing.B, name string) {
	v := startOutside(b, "dirtier", "-memory", "200M", "-working-set", "200M", "-rate", "5000000", "-verify", "0", "-say", "20ms")
	v.works(b)
	var alone, watched effort
	var slower []float64
	for range 5 {
		before := v.effort(b)
		alone.add(before)
		tr := trackers[name](v.tree)
		_, err := tr.Round(b.Context(), ignore)
		must(b, err)
		stop, ended := make(chan struct{}), make(chan error)
		go func() { ended <- eachSecond(b.Context(), tr, stop) }()
		during := v.effort(b)
		watched.add(during)
		close(stop)
		must(b, <-ended)
		slower = append(slower, 100*(1-during.pace()/before.pace()))
	}
	slices.Sort(slower)
	b.ReportMetric(slower[2], "%slower")
	b.ReportMetric(slower[0], "%slower-at-best")
	b.ReportMetric(slower[4], "%slower-at-worst")
	b.ReportMetric(100*alone.share(), "%kernel-before")
	b.ReportMetric(100*watched.share(), "%kernel-during")
}

// effort is what a program has done, and in what processor time.
type effort struct {
	pages        uint64
	user, system time.Duration
}

func (e *effort) add(o effort) {
	e.pages, e.user, e.system = e.pages+o.pages, e.user+o.user, e.system+o.system
}

func (e *effort) pace() float64 { return float64(e.pages) / (e.user + e.system).Seconds() }

func (e *effort) share() float64 { return e.system.Seconds() / (e.user + e.system).Seconds() }

// effort is what dirtier does in three seconds.
func (v *outside) effort(b *testing.B) effort {
	pages := v.written(b)
	user, system := v.spent(b)
	end, stop := context.WithTimeout(b.Context(), 3*time.Second)
	defer stop()
	<-end.Done()
	moreUser, moreSystem := v.spent(b)
	return effort{v.written(b) - pages, moreUser - user, moreSystem - system}
}

// eachSecond makes a round a second and closes the tracker.
func eachSecond(ctx context.Context, tr track.Tracker, stop <-chan struct{}) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-stop:
			return tr.Close()
		}
		if _, err := tr.Round(ctx, ignore); err != nil {
			return err
		}
	}
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// written is how many pages dirtier says that it has written.
func (v *outside) written(t testing.TB) uint64 {
	all := v.reports(t)
	var last struct{ Written uint64 }
	must(t, json.Unmarshal([]byte(all[len(all)-1]), &last))
	return last.Written
}

// writes returns when so many pages more have been written.
func (v *outside) writes(t testing.TB, more uint64) {
	t.Helper()
	from := v.written(t)
	eventually(t, "it writes", func() bool { return v.written(t) >= from+more })
}

// spent is the processor time of the tree's root.
func (v *outside) spent(t testing.TB) (user, system time.Duration) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", v.tree.Pid))
	must(t, err)
	_, rest, _ := strings.Cut(string(b), ") ")
	fields := strings.Fields(rest) // from the third on
	var inUser, inSystem int64     // in hundredths of a second (USER_HZ)
	_, err = fmt.Sscan(fields[11]+" "+fields[12], &inUser, &inSystem)
	must(t, err)
	return time.Duration(inUser * 1e7), time.Duration(inSystem * 1e7)
}
